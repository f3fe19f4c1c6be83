// Products of NumPy arrays, by the functions of a BLAS or by NumPy itself.

#pragma once

#include "host_numpy.h"
#include "host_product.h"

namespace {

PyObject* numpy_matmul = nullptr;

// Describes a matrix for the BLAS; returns false if it cannot. The stride of an axis of length 1 is
// ignored.
bool read_matrix(PyArrayObject* array, Matrix* matrix) {
    const npy_intp itemsize = PyArray_ITEMSIZE(array);
    const npy_intp lengths[2] = {PyArray_DIM(array, 1), PyArray_DIM(array, 0)};
    const npy_intp strides[2] = {PyArray_STRIDE(array, 1), PyArray_STRIDE(array, 0)};
    matrix->data = PyArray_BYTES(array);
    for (int inner = 0; inner < 2; ++inner) {  // along rows, or else along columns
        const int outer = 1 - inner;
        if (lengths[inner] != 1 && strides[inner] != itemsize) continue;
        if (lengths[outer] != 1 && strides[outer] % itemsize != 0) continue;
        matrix->is_transposed = inner == 1;
        matrix->leading = lengths[outer] == 1 ? lengths[inner] : strides[outer] / itemsize;
        if (matrix->leading >= lengths[inner] && matrix->leading <= NPY_MAX_INT) return true;
    }
    return false;
}

bool is_apart(PyArrayObject* a, PyArrayObject* b) {
    char *a_low, *a_high, *b_low, *b_high;
    extent(a, &a_low, &a_high);
    extent(b, &b_low, &b_high);
    return a_high <= b_low || b_high <= a_low;
}

// Reads a product of matrices as they occur in training; returns false for other products.
bool read_product(PyObject* const* args, Product* p) {
    PyArrayObject* arrays[3];
    for (int i = 0; i < 3; ++i) {
        if (!args[i] || !PyArray_CheckExact(args[i])) return false;  // subclasses may differ
        arrays[i] = reinterpret_cast<PyArrayObject*>(args[i]);
        if (PyArray_NDIM(arrays[i]) != 2 || !PyArray_ISBEHAVED_RO(arrays[i])) return false;
        if (PyArray_TYPE(arrays[i]) != PyArray_TYPE(arrays[0])) return false;
    }
    const int type = PyArray_TYPE(arrays[0]);
    if (type != NPY_FLOAT && type != NPY_DOUBLE) return false;
    p->is_double = type == NPY_DOUBLE;
    p->m = PyArray_DIM(arrays[0], 0);
    p->k = PyArray_DIM(arrays[0], 1);
    p->n = PyArray_DIM(arrays[1], 1);
    if (p->m < 1 || p->n < 1 || p->k < 1 || p->m > NPY_MAX_INT || p->n > NPY_MAX_INT ||
        p->k > NPY_MAX_INT || PyArray_DIM(arrays[1], 0) != p->k ||
        PyArray_DIM(arrays[2], 0) != p->m || PyArray_DIM(arrays[2], 1) != p->n) {
        return false;
    }
    return read_matrix(arrays[0], &p->A) && read_matrix(arrays[1], &p->B) &&
           read_matrix(arrays[2], &p->out) && !p->out.is_transposed &&
           PyArray_ISWRITEABLE(arrays[2]) && is_apart(arrays[2], arrays[0]) &&
           is_apart(arrays[2], arrays[1]);
}

// Notes whether a second Python thread exists.
void look_for_threads() {
    Threads& threads = blas().threads;
    if (!threads.is_only_thread) return;
    PyThreadState* first = PyInterpreterState_ThreadHead(PyInterpreterState_Get());
    threads.is_only_thread = !PyThreadState_Next(first);
}

PyObject* matmul(PyObject*, PyObject* const* args, Py_ssize_t n_args, PyObject* names) {
    PyObject* given[3] = {nullptr, nullptr, nullptr};
    const bool has_out = names && n_args == 2 && PyTuple_GET_SIZE(names) == 1 &&
                         PyUnicode_CompareWithASCIIString(PyTuple_GET_ITEM(names, 0), "out") == 0;
    for (int i = 0; i < 3 && (has_out || (n_args == 3 && !names)); ++i) given[i] = args[i];
    Product product;
    if (!read_product(given, &product)) {
        if (recording) {
            PyErr_SetString(PyExc_RuntimeError, "matmul has operands that its BLAS cannot take");
            return nullptr;
        }
        return PyObject_Vectorcall(numpy_matmul, args, (size_t)n_args, names);
    }
    if (recording) {
        for (PyObject* array : given) recording->keep(array);
        multiply(product);
        Py_INCREF(given[2]);
        return given[2];
    }
    look_for_threads();
    if ((double)product.m * (double)product.n * (double)product.k >= NOGIL_ELEMENTS) {
        Py_BEGIN_ALLOW_THREADS
        multiply(product);
        Py_END_ALLOW_THREADS
    } else {
        multiply(product);
    }
    Py_INCREF(given[2]);
    return given[2];
}

// use_blas(sgemm, dgemm, sgemv, dgemv, get_threads, set_threads, is_64_bit, is_fortran): addresses
// of the functions.
PyObject* use_blas(PyObject*, PyObject* args) {
    unsigned long long addresses[6];
    int is_64_bit, is_fortran;
    if (!PyArg_ParseTuple(args, "KKKKKKpp", &addresses[0], &addresses[1], &addresses[2],
                          &addresses[3], &addresses[4], &addresses[5], &is_64_bit, &is_fortran)) {
        return nullptr;
    }
    Blas& b = blas();
    for (int i = 0; i < 2; ++i) {
        b.gemm[i] = reinterpret_cast<AnyFunction>((uintptr_t)addresses[i]);
        b.gemv[i] = reinterpret_cast<AnyFunction>((uintptr_t)addresses[2 + i]);
    }
    b.get_threads = reinterpret_cast<int (*)()>((uintptr_t)addresses[4]);
    b.set_threads = reinterpret_cast<void (*)(int)>((uintptr_t)addresses[5]);
    b.is_64_bit = is_64_bit != 0;
    b.is_fortran = is_fortran != 0;
    Py_RETURN_NONE;
}

}  // namespace
