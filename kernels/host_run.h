// Runs the loop of an operation over its operands, in threads if that pays off.

#pragma once

#include <stdint.h>
#include <string.h>

#include "host_arguments.h"
#include "host_product.h"
#include "host_record.h"
#include "host_team.h"

namespace {

const npy_intp TILE = 512;             // elements of an operand that are copied at a time
const npy_intp MANY_COLUMNS = 1024;    // from this length on a row is worth aligning
const npy_intp FAR_ELEMENTS = 65536;   // of a part of a single row that is worth a far thread
const npy_intp STRETCH = 1024;         // elements of a row to prefetch at a time
const npy_intp SUMS = 65536;           // bytes on the stack for the sums of parts of a matrix

struct Plan {
    const Operation* self;
    XpnLoop loop;
    View* views;
    npy_intp shape[MAX_DIMENSIONS];
    int n;
    const XpnConstant* constants;
};

bool has_rows_of_elements(const OperandSpec& spec) {
    return spec.layout == EACH || spec.layout == COLUMN;
}

// Merges neighbouring axes that are contiguous in every operand.
void merge_axes(Plan* plan) {
    const int n_operands = plan->self->n_operands;
    const int last = plan->self->reads_columns ? plan->n - 1 : plan->n;  // first axis to keep apart
    int to = 0;
    for (int from = 1; from < plan->n; ++from) {
        if (plan->shape[from] == 1 && from < plan->n - 1) continue;  // an axis of length 1
        bool merges = from < last;
        for (int k = 0; k < n_operands && merges; ++k) {
            const View& view = plan->views[k];
            merges = !view.data || view.strides[to] == view.strides[from] * plan->shape[from];
        }
        if (merges || plan->shape[to] == 1) {
            plan->shape[to] *= plan->shape[from];
        } else {
            plan->shape[++to] = plan->shape[from];
        }
        for (int k = 0; k < n_operands; ++k) {
            plan->views[k].strides[to] = plan->views[k].strides[from];
        }
    }
    plan->n = to + 1;
}

// Copies between an operand's row and contiguous elements.
void copy_elements(char* to, npy_intp to_stride, const char* from, npy_intp from_stride,
                   npy_intp n, npy_intp itemsize) {
    for (npy_intp i = 0; i < n; ++i) {
        memcpy(to + i * to_stride, from + i * from_stride, (size_t)itemsize);
    }
}

// Runs over a matrix with operands whose rows are not contiguous: piece by piece, through a tile
// for each such operand.
void run_in_tiles(const Plan* plan, const XpnBlock& block, const npy_intp* inner) {
    alignas(64) char tiles[XPN_MAX_OPERANDS][TILE * sizeof(double)];
    const Operation* self = plan->self;
    const Flushing flushing;
    for (npy_intp r = 0; r < block.n_rows; ++r) {
        for (npy_intp start = 0; start < block.n_columns; start += TILE) {
            const npy_intp n = block.n_columns - start < TILE ? block.n_columns - start : TILE;
            XpnBlock piece = block;
            piece.n_rows = 1;
            piece.n_columns = n;
            piece.first_column = start;
            piece.first = block.first + (unsigned long long)(r * block.n_columns + start);
            for (int k = 0; k < self->n_operands; ++k) {
                if (!block.data[k]) continue;
                const npy_intp itemsize = plan->views[k].itemsize;
                char* at = block.data[k] + r * block.stride[k];
                piece.data[k] = at;
                if (!has_rows_of_elements(self->operands[k])) continue;
                at += start * inner[k];
                piece.data[k] = at;
                if (inner[k] == itemsize) continue;
                piece.data[k] = tiles[k];
                if (self->operands[k].use != OUT) {
                    copy_elements(tiles[k], itemsize, at, inner[k], n, itemsize);
                }
            }
            plan->loop(&piece);
            for (int k = 0; k < self->n_operands; ++k) {
                const npy_intp itemsize = plan->views[k].itemsize;
                if (piece.data[k] != tiles[k] || self->operands[k].use == IN) continue;
                char* at = block.data[k] + r * block.stride[k] + start * inner[k];
                copy_elements(at, inner[k], tiles[k], itemsize, n, itemsize);
            }
        }
    }
}

// A matrix with contiguous rows, and all data for its loop; each thread gets a copy.
struct Task {
    const Operation* self;
    XpnLoop loop;
    Division division;
    char* sums;  // if summed rows are divided, a row of sums for each part; otherwise null
    XpnBlock block;
    unsigned char itemsize[XPN_MAX_OPERANDS];
    XpnConstant constants[XPN_MAX_CONSTANTS];
};

// Runs over a matrix of few columns whose operands are contiguous, except those with one value for
// each column. These are repeated, so that several rows run as one.
bool run_as_few_rows(const Task& task, const XpnBlock& block) {
    const Operation* self = task.self;
    if (self->kind != ELEMENTWISE || self->reads_columns || block.n_rows < 2 ||
        block.n_columns < 1 || block.n_columns > TILE / 8) {
        return false;
    }
    alignas(64) char tiles[XPN_MAX_OPERANDS][TILE * sizeof(double)];
    const npy_intp fit = TILE / block.n_columns;
    const npy_intp rows_at_once = block.n_rows < fit ? block.n_rows : fit;
    XpnBlock piece = block;
    for (int k = 0; k < self->n_operands; ++k) {
        const npy_intp itemsize = task.itemsize[k];
        const bool is_repeated = block.data[k] && block.stride[k] == 0 &&
                                 has_rows_of_elements(self->operands[k]);
        if (!block.data[k] || (block.stride[k] == 0 && !is_repeated)) continue;
        if (!is_repeated && (block.stride[k] != block.n_columns * itemsize ||
                             !has_rows_of_elements(self->operands[k]))) {
            return false;
        }
        if (!is_repeated) continue;
        const npy_intp row = block.n_columns * itemsize, whole = rows_at_once * row;
        memcpy(tiles[k], block.data[k], (size_t)row);
        for (npy_intp filled = row; filled < whole; filled *= 2) {  // by what is already there
            const npy_intp rest = whole - filled;
            memcpy(tiles[k] + filled, tiles[k], (size_t)(filled < rest ? filled : rest));
        }
        piece.data[k] = tiles[k];
    }
    piece.n_rows = 1;
    for (npy_intp r = 0; r < block.n_rows; r += rows_at_once) {
        const npy_intp n = block.n_rows - r < rows_at_once ? block.n_rows - r : rows_at_once;
        piece.n_columns = n * block.n_columns;
        piece.first = block.first + (unsigned long long)(r * block.n_columns);
        for (int k = 0; k < self->n_operands; ++k) {
            if (block.stride[k] != 0) piece.data[k] = block.data[k] + r * block.stride[k];
        }
        task.loop(&piece);
    }
    return true;
}

// Runs over a long row in two pieces, so that the output of the second begins at a cache line: a
// vector across two cache lines takes as long as two vectors.
void run_row_aligned(const Task& task, const XpnBlock& block) {
    const Operation* self = task.self;
    int written = 0;
    while (self->operands[written].use == IN || !block.data[written]) ++written;
    const npy_intp itemsize = task.itemsize[written];
    const npy_intp past = (npy_intp)((uintptr_t)block.data[written] % CACHE_LINE);
    const npy_intp head = past % itemsize == 0 ? (CACHE_LINE - past) % CACHE_LINE / itemsize : 0;
    if (head == 0 || block.n_columns < MANY_COLUMNS) return task.loop(&block);
    XpnBlock piece = block;
    piece.n_columns = head;
    task.loop(&piece);
    piece.n_columns = block.n_columns - head;
    piece.first_column = block.first_column + head;
    piece.first = block.first + (unsigned long long)head;
    for (int k = 0; k < self->n_operands; ++k) {
        if (piece.data[k] && has_rows_of_elements(self->operands[k])) {
            piece.data[k] += head * task.itemsize[k];
        }
    }
    task.loop(&piece);
}

void run_rows(const Task& task, const XpnBlock& block) {
    if (task.self->kind == ELEMENTWISE && block.n_rows == 1) {
        run_row_aligned(task, block);
    } else if (!run_as_few_rows(task, block)) {
        task.loop(&block);
    }
}

// Prefetches what will be changed: other processors must give up its cache lines first, which takes
// long one by one.
void call_for(const Task& task, const XpnBlock& block) {
#if defined(__x86_64__) && defined(__GNUC__)
    for (int k = 0; k < task.self->n_operands; ++k) {
        if (!block.data[k] || task.self->operands[k].use != INOUT) continue;
        const char* end = block.data[k] + block.n_columns * task.itemsize[k];
        for (const char* at = block.data[k]; at < end; at += CACHE_LINE) {
            __asm__ __volatile__("prefetchw %0" : : "m"(*at));
        }
    }
#else
    (void)task, (void)block;
#endif
}

// A piece of a row: `n` columns, starting at `begin`.
XpnBlock stretch_of(const Task& task, const XpnBlock& row, npy_intp begin, npy_intp n) {
    XpnBlock piece = row;
    piece.n_columns = begin + n < row.n_columns ? n : row.n_columns - begin;
    piece.first_column += begin;
    piece.first += (unsigned long long)begin;
    for (int k = 0; k < task.self->n_operands; ++k) {
        if (piece.data[k] && has_rows_of_elements(task.self->operands[k])) {
            piece.data[k] += begin * task.itemsize[k];
        }
    }
    return piece;
}

// Runs over a long row in stretches, and prefetches the next one meanwhile.
void run_called_for(const Task& task, const XpnBlock& row) {
    XpnBlock piece = stretch_of(task, row, 0, STRETCH);
    for (npy_intp begin = STRETCH; begin < row.n_columns; begin += STRETCH) {
        const XpnBlock next = stretch_of(task, row, begin, STRETCH);
        call_for(task, next);
        task.loop(&piece);
        piece = next;
    }
    task.loop(&piece);
}

void run_part(const void* job, int part, int n_parts) {
    const Task& task = *static_cast<const Task*>(job);
    const Operation* self = task.self;
    XpnBlock piece = task.block;
    piece.constants = task.constants;
    const npy_intp begin = task.division.bound(part, n_parts);
    const npy_intp end = task.division.bound(part + 1, n_parts);
    if (begin == end) return;
    if (task.division.by_rows) {
        piece.n_rows = end - begin;
        piece.first += (unsigned long long)(begin * piece.n_columns);
        if (task.sums) {
            piece.data[self->total] =
                task.sums + part * piece.n_columns * task.itemsize[self->total];
        }
    } else {
        piece.n_columns = end - begin;
        piece.first_column += begin;
        piece.first += (unsigned long long)begin;  // of the first row, where elements are numbered
    }
    for (int k = 0; k < self->n_operands; ++k) {
        if (!piece.data[k]) continue;
        if (task.division.by_rows) {
            piece.data[k] += begin * piece.stride[k];
        } else if (has_rows_of_elements(self->operands[k])) {
            piece.data[k] += begin * task.itemsize[k];
        }
    }
    if (self->kind == ELEMENTWISE && piece.n_rows == 1 && n_parts > 1 && team().is_apart()) {
        run_called_for(task, piece);
    } else {
        run_rows(task, piece);
    }
}

// Runs over rows whose columns are summed: each part has its own sums, added up in order.
void share_sums(Task* task, int n_parts, const Terms& terms) {
    alignas(64) char own[SUMS];
    const int total = task->self->total;
    const XpnBlock& block = task->block;
    const size_t size = (size_t)(n_parts * block.n_columns * task->itemsize[total]);
    task->sums = recording ? static_cast<char*>(recording->allocate(size)) : own;
    if (!task->sums) return;
    submit(run_part, *task, n_parts, terms);
    // The total may be one of the inputs, so that no part may write it.
    const bool is_double = task->itemsize[total] == sizeof(double);
    submit_sums({task->sums, n_parts, false, 1, block.n_columns, block.data[total],
                 block.n_columns, is_double});
}

// Runs by the team if that is worth it. A rowwise loop must see all elements of a row, and an image
// is not divided. If rows are summed, their division decides the bits of the sums.
void run_shared(Task* task) {
    const Operation* self = task->self;
    const XpnBlock& block = task->block;
    const bool sums_up = self->kind == COLUMN_REDUCE && block.data[self->total];
    const bool by_columns = block.n_rows == 1 || ((self->has_columns || sums_up) &&
                                                  !divides_rows(block.n_rows, block.n_columns));
    task->division = Division(!by_columns, block.n_rows, block.n_columns);
    task->sums = nullptr;
    const double size = (double)block.n_rows * (double)block.n_columns;
    const bool is_whole = self->kind == ROWWISE || (self->kind == RESAMPLED && block.n_rows == 1) ||
                          size < 2 * TEAM_ELEMENTS;
    if (is_whole) return submit(run_part, *task, 1, terms_of(1, false, 0));
    const int n_threads = team_size();
    const Pace::Kind kind = kind_of(self, block.n_rows, block.n_columns, by_columns);
    if (sums_up && !by_columns) {
        const int n_parts = task->division.parts(size, TEAM_ELEMENTS, most_parts());
        if (n_parts == 1) return submit(run_part, *task, 1, terms_of(1, false, 0));
        if (n_parts * block.n_columns * task->itemsize[self->total] <= SUMS) {
            return share_sums(task, n_parts, terms_of(n_threads, false, kind));
        }
        task->division = Division(false, block.n_rows, block.n_columns);
    }
    const int n_parts = task->division.parts(size, TEAM_ELEMENTS, n_threads);
    // The parameters are one long row, and short products that use them are not shared.
    const bool is_short = block.n_rows == 1 && size < (double)n_parts * FAR_ELEMENTS;
    submit(run_part, *task, n_parts, terms_of(n_threads, is_short, kind));
}

// Runs over all matrices of the operands. Returns false if that cannot be recorded.
bool run(const Plan* plan) {
    const Operation* self = plan->self;
    const int n = plan->n;
    Task task;
    task.self = self;
    task.loop = plan->loop;
    memcpy(task.constants, plan->constants, self->n_constants * sizeof(XpnConstant));
    XpnBlock& block = task.block;
    block.constants = task.constants;
    block.first_column = 0;
    block.n_columns = n > 0 ? plan->shape[n - 1] : 1;
    block.n_rows = n > 1 ? plan->shape[n - 2] : 1;
    npy_intp inner[XPN_MAX_OPERANDS];
    bool is_contiguous = true;
    npy_intp n_outer = 1;
    for (int i = 0; i < n - 2; ++i) n_outer *= plan->shape[i];
    if (n_outer == 0) return true;
    for (int k = 0; k < self->n_operands; ++k) {
        const View& view = plan->views[k];
        inner[k] = n > 0 ? view.strides[n - 1] : 0;
        block.stride[k] = n > 1 && view.data ? view.strides[n - 2] : 0;
        if (block.n_columns == 1) inner[k] = view.itemsize;
        task.itemsize[k] = (unsigned char)view.itemsize;
        if (view.data && has_rows_of_elements(self->operands[k])) {
            is_contiguous = is_contiguous && inner[k] == view.itemsize;
        }
    }
    npy_intp index[MAX_DIMENSIONS] = {0};
    for (npy_intp outer = 0; outer < n_outer; ++outer) {
        for (int k = 0; k < self->n_operands; ++k) {
            const View& view = plan->views[k];
            char* at = view.data;
            for (int i = 0; at && i < n - 2; ++i) at += index[i] * view.strides[i];
            block.data[k] = at;
        }
        block.first = (unsigned long long)(outer * block.n_rows * block.n_columns);
        if (is_contiguous) {
            run_shared(&task);
        } else if (recording) {
            return false;
        } else {
            run_in_tiles(plan, block, inner);
        }
        for (int i = n - 3; i >= 0 && ++index[i] == plan->shape[i]; --i) index[i] = 0;
    }
    return true;
}

// Rowwise and column-reduce loops need contiguous rows: other operands are copied as a whole.
int make_contiguous(const Operation* self, View* views, const npy_intp* shape, int n, Call* call) {
    for (int k = 0; k < self->n_operands; ++k) {
        const OperandSpec& spec = self->operands[k];
        View& view = views[k];
        if (!view.array || !has_rows_of_elements(spec)) continue;
        if (shape[n - 1] == 1 || view.strides[n - 1] == view.itemsize) continue;
        npy_intp own[MAX_DIMENSIONS + 1];
        const int m = reduced_shape(spec.layout, shape, n, own);
        PyArrayObject* copy = call->own(PyArray_SimpleNew(m, own, PyArray_TYPE(view.array)));
        if (!copy) return -1;
        if (spec.use == IN) {
            if (PyArray_CopyInto(copy, view.array) < 0) return -1;
        } else {
            call->copy_to[call->n_copies] = view.array;
            call->copy_from[call->n_copies++] = copy;
        }
        view.array = copy;
        lay_over(&view, spec.layout, shape, n);
    }
    return 0;
}

int check_shape(const Operation* self, int k, PyArrayObject* array, const npy_intp* wanted, int m) {
    if (PyArray_NDIM(array) == m && PyArray_CompareLists(PyArray_DIMS(array), wanted, m)) return 0;
    PyObject* found = shape_of(array);
    PyObject* expected = shape_of(wanted, m);
    if (found && expected) {
        PyErr_Format(PyExc_ValueError, "%U: %U must have shape %S, got %S", self->name,
                     self->operands[k].name, expected, found);
    }
    Py_XDECREF(found);
    Py_XDECREF(expected);
    return -1;
}

// Allocates a missing output, and checks the given ones.
int prepare_outputs(const Operation* self, View* views, const npy_intp* shape, int n, int T,
                    Call* call) {
    for (int k = 0; k < self->n_operands; ++k) {
        const OperandSpec& spec = self->operands[k];
        if (spec.use == IN || (!views[k].array && k != self->result)) continue;
        npy_intp wanted[MAX_DIMENSIONS + 1];
        const int m = reduced_shape(spec.layout, shape, n, wanted);
        if (!views[k].array) {
            views[k].array = call->own(PyArray_SimpleNew(m, wanted, T));
            if (!views[k].array) return -1;
            continue;
        }
        if (check_shape(self, k, views[k].array, wanted, m) < 0) return -1;
    }
    return 0;
}

// Rowwise loops count in int, and their operands have the same shape or a single element.
int check_rows(const Operation* self, const View* views, const npy_intp* shape, int n) {
    for (int i = n > 1 ? n - 2 : 0; i < n; ++i) {
        if (shape[i] > INT32_MAX) {
            PyErr_Format(PyExc_ValueError, "%U: there must be fewer than 2**31 %s, got %zd",
                         self->name, i == n - 1 ? "columns" : "rows", shape[i]);
            return -1;
        }
    }
    for (int k = 0; k < self->n_operands; ++k) {
        if (!views[k].array || self->operands[k].use != IN) continue;
        npy_intp wanted[MAX_DIMENSIONS + 1];
        int m = reduced_shape(self->operands[k].layout, shape, n, wanted);
        if (self->operands[k].layout == SINGLE) wanted[0] = m = 1;
        if (check_shape(self, k, views[k].array, wanted, m) < 0) return -1;
    }
    return 0;
}

int check_images(const Operation* self, const XpnConstant* constants, npy_intp n_columns) {
    const unsigned long long height = constants[self->height].integer;
    const unsigned long long width = constants[self->width].integer;
    if (height != 0 && width != 0 && (unsigned long long)n_columns % (height * width) == 0) return 0;
    PyErr_Format(PyExc_ValueError, "%U: X must have a multiple of %llu x %llu columns, got %zd",
                 self->name, height, width, n_columns);
    return -1;
}

bool is_elementwise(const Operation* self, const View* views) {
    if (self->kind == ELEMENTWISE) return true;
    if (self->kind != COLUMN_REDUCE) return false;
    for (int k = 0; k < self->n_operands; ++k) {
        const OperandSpec& spec = self->operands[k];
        if (spec.use == OUT && spec.layout == COLUMN && views[k].array) return false;
    }
    return self->operands[self->result].layout == EACH;
}

PyObject* result_of(const Operation* self, const View* views) {
    PyObject* result = self->result < 0 ? Py_None : (PyObject*)views[self->result].array;
    Py_INCREF(result);
    return result;
}

PyObject* run_operation(const Operation* self, PyObject** given, const XpnConstant* constants) {
    View views[XPN_MAX_OPERANDS];
    int T;
    Call call;
    Plan plan;
    if (check_operands(self, given, views, &T, &call) < 0) return nullptr;
    const int n = plan.n = result_shape(self, views, plan.shape);
    if (n < 0) return nullptr;
    const bool elementwise = is_elementwise(self, views);
    const bool in_rows = self->kind == ROWWISE || self->kind == RESAMPLED;
    if (!elementwise && n < (in_rows ? 1 : 2)) {
        PyErr_Format(PyExc_ValueError, "%U: %U must have at least %d dimensions, got %d",
                     self->name, self->operands[0].name, in_rows ? 1 : 2, n);
        return nullptr;
    }
    if (in_rows && check_rows(self, views, plan.shape, n) < 0) return nullptr;
    if (self->kind == RESAMPLED && check_images(self, constants, plan.shape[n - 1]) < 0) {
        return nullptr;
    }
    if (prepare_outputs(self, views, plan.shape, n, T, &call) < 0) return nullptr;
    if (check_overlap(self, views) < 0) return nullptr;
    PyObject* result = result_of(self, views);
    npy_intp size = 1;
    for (int i = 0; i < n; ++i) size *= plan.shape[i];
    for (int k = 0; k < self->n_operands; ++k) {
        if (views[k].array) lay_over(&views[k], self->operands[k].layout, plan.shape, n);
    }
    if (!elementwise && make_contiguous(self, views, plan.shape, n, &call) < 0) {
        Py_DECREF(result);
        return nullptr;
    }
    plan.self = self;
    plan.loop = self->loops[T == NPY_DOUBLE];
    plan.views = views;
    plan.constants = constants;
    if (elementwise && n > 1) merge_axes(&plan);
    if (recording) {
        const char* why = call.n_owned > 0 ? "allocates memory"
                          : !run(&plan)    ? "has an operand whose rows are not contiguous"
                                           : nullptr;
        for (int k = 0; k < self->n_operands; ++k) {
            if (views[k].array) recording->keep(reinterpret_cast<PyObject*>(views[k].array));
        }
        recording->keep(reinterpret_cast<PyObject*>(const_cast<Operation*>(self)));
        if (!why) return result;
        Py_DECREF(result);
        return refuse_record(self->name, why);
    }
    if (size >= NOGIL_ELEMENTS) {
        Py_BEGIN_ALLOW_THREADS
        run(&plan);
        Py_END_ALLOW_THREADS
    } else {
        run(&plan);
    }
    for (int i = 0; i < call.n_copies; ++i) {
        if (PyArray_CopyInto(call.copy_to[i], call.copy_from[i]) < 0) {
            Py_DECREF(result);
            return nullptr;
        }
    }
    return result;
}

}  // namespace
