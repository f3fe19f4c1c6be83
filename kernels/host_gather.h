// The gather of a minibatch: operands X, indices and out, and the constant divide_by.

#pragma once

#include "host_arguments.h"
#include "host_product.h"
#include "host_record.h"
#include "host_team.h"

namespace {

const npy_intp AHEAD = 4;              // rows of a minibatch to prefetch,
const npy_intp AHEAD_IF_SHORT = 32;    // and rows shorter than a cache line
const npy_intp IN_CACHE = 1 << 15;     // bytes of a data set that stays in the cache
const npy_intp PREFETCHED = 4096;      // bytes of each row to prefetch
const npy_intp GATHER_BYTES = 1 << 15;      // a part of a minibatch that is worth a thread,
const npy_intp FAR_GATHER_BYTES = 1 << 17;  // or a far thread

PyObject* refuse_index(const Operation* self, npy_intp n_samples, npy_int64 index) {
    return PyErr_Format(PyExc_IndexError, "%U: indices must lie in [0, %zd), got %lld", self->name,
                        n_samples, (long long)index);
}

struct Gathering {
    XpnLoop loop;  // null: rows are copied unchanged
    char *X, *out;
    const npy_int64* index;
    npy_intp n, n_samples, row_size, in_bytes, out_bytes;
    XpnConstant divide_by;
    std::atomic<npy_int64>* outside;  // the last index found out of range, or 0
};

// Rows can be anywhere, so the processor cannot predict the next one.
void prefetch(const Gathering& g, npy_intp i) {
#if defined(__GNUC__)
    const npy_int64 found = g.index[i];
    if (found < 0 || found >= g.n_samples) return;
    const npy_intp length = g.in_bytes < PREFETCHED ? g.in_bytes : PREFETCHED;
    const char* from = g.X + found * g.in_bytes;
    for (npy_intp at = 0; at < length; at += CACHE_LINE) __builtin_prefetch(from + at);
#else
    (void)g, (void)i;
#endif
}

// Copies a short row: the compiler turns a known size into a few instructions.
inline void copy_row(char* to, const char* from, npy_intp size) {
    switch (size) {
        case 4: memcpy(to, from, 4); return;
        case 8: memcpy(to, from, 8); return;
        case 16: memcpy(to, from, 16); return;
        case 32: memcpy(to, from, 32); return;
        default: memcpy(to, from, (size_t)size);
    }
}

void gather_part(const void* job, int part, int n_parts) {
    const Gathering& g = *static_cast<const Gathering*>(job);
    const Division division(true, g.n, g.row_size);
    const npy_intp end = division.bound(part + 1, n_parts);
    XpnBlock block;
    block.n_rows = 1;
    block.n_columns = g.row_size;
    block.first = 0;
    block.first_column = 0;
    block.constants = &g.divide_by;
    const bool prefetches = g.n_samples * g.in_bytes > IN_CACHE;
    const npy_intp ahead = g.in_bytes < CACHE_LINE ? AHEAD_IF_SHORT : AHEAD;
    for (npy_intp i = division.bound(part, n_parts); i < end; ++i) {
        if (prefetches && i + ahead < end) prefetch(g, i + ahead);
        // Checked again: another thread may have changed it.
        const npy_int64 found = *static_cast<const volatile npy_int64*>(g.index + i);
        if (found < 0 || found >= g.n_samples) {
            g.outside->store(found, std::memory_order_relaxed);
            return;
        }
        char* from = g.X + found * g.in_bytes;
        char* to = g.out + i * g.out_bytes;
        if (!g.loop) {
            copy_row(to, from, g.in_bytes);
        } else {
            block.data[0] = from;
            block.data[1] = const_cast<char*>(reinterpret_cast<const char*>(g.index + i));
            block.data[2] = to;
            g.loop(&block);
        }
    }
}

bool is_plain(PyArrayObject* array) { return PyArray_ISCARRAY_RO(array); }

PyObject* run_gather(const Operation* self, PyObject** given, PyObject* const* args,
                     Py_ssize_t n_args, PyObject* names, XpnConstant divide_by) {
    PyObject *X_ = given[0], *indices_ = given[1], *out_ = given[2];
    PyArrayObject* X = reinterpret_cast<PyArrayObject*>(X_);
    PyArrayObject* indices = reinterpret_cast<PyArrayObject*>(indices_);
    PyArrayObject* out = reinterpret_cast<PyArrayObject*>(out_);
    const bool divides = divide_by.integer != 0;
    // The reference handles everything except the common case.
    bool is_ours = X_ && indices_ && out_ && PyArray_Check(X_) && PyArray_Check(indices_) &&
                   PyArray_Check(out_) && is_plain(X) && is_plain(indices) && is_plain(out) &&
                   PyArray_ISWRITEABLE(out) && !PyDataType_REFCHK(PyArray_DESCR(X)) &&
                   has_type(indices, NPY_INT64) && PyArray_NDIM(indices) == 1 &&
                   PyArray_NDIM(X) > 0 && PyArray_NDIM(X) < MAX_DIMENSIONS && PyArray_NDIM(out) == PyArray_NDIM(X) &&
                   PyArray_DIM(out, 0) == PyArray_DIM(indices, 0) &&
                   PyArray_CompareLists(PyArray_DIMS(out) + 1, PyArray_DIMS(X) + 1,
                                        PyArray_NDIM(X) - 1);
    const bool is_copy = is_ours && !divides && PyArray_EquivTypes(PyArray_DESCR(X),
                                                                  PyArray_DESCR(out));
    const bool from_bytes = is_ours && PyArray_TYPE(X) == NPY_UINT8 &&
                            (has_type(out, NPY_FLOAT) || has_type(out, NPY_DOUBLE));
    if (!is_copy && !from_bytes) {
        if (recording) return refuse_record(self->name, "has operands that only NumPy can gather");
        return PyObject_Vectorcall(self->reference, args, n_args, names);
    }
    View views[3];
    for (int k = 0; k < 3; ++k) views[k].array = reinterpret_cast<PyArrayObject*>(given[k]);
    if (check_overlap(self, views) < 0) return nullptr;
    const npy_intp n = PyArray_DIM(out, 0), n_samples = PyArray_DIM(X, 0);
    const npy_intp row_size = n ? PyArray_SIZE(out) / n : 0;
    const npy_intp in_bytes = row_size * PyArray_ITEMSIZE(X);
    const npy_intp out_bytes = row_size * PyArray_ITEMSIZE(out);
    const npy_int64* index = static_cast<const npy_int64*>(PyArray_DATA(indices));
    for (npy_intp i = 0; i < n && !recording; ++i) {
        const npy_int64 found = index[i];
        if (found < 0 || found >= n_samples) return refuse_index(self, n_samples, found);
    }
    if (!divides) divide_by.real = 1;
    std::atomic<npy_int64> outside{0};  // 0 is in range: an empty X was rejected above
    const Gathering gathering = {
        is_copy ? nullptr : self->loops[has_type(out, NPY_DOUBLE)],
        PyArray_BYTES(X), PyArray_BYTES(out), index, n, n_samples, row_size, in_bytes, out_bytes,
        divide_by, recording ? &recording->outside : &outside,
    };
    PyThreadState* state = !recording && n * row_size >= NOGIL_ELEMENTS ? PyEval_SaveThread() : nullptr;
    const Division division(true, n, row_size);
    const double size = (double)n * (double)out_bytes;
    const int n_threads = size < 2 * GATHER_BYTES ? 1 : team_size();
    const int n_parts = division.parts(size, GATHER_BYTES, n_threads);
    submit(gather_part, gathering, n_parts,
           terms_of(n_threads, size < n_parts * FAR_GATHER_BYTES,
                    kind_of(self, n, in_bytes, out_bytes)));
    if (state) PyEval_RestoreThread(state);
    if (outside != 0) return refuse_index(self, n_samples, outside);
    if (recording) {
        for (int k = 0; k < 3; ++k) recording->keep(given[k]);
    }
    Py_INCREF(out);
    return out_;
}

}  // namespace
