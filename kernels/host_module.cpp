// The extension module xpnet.kernels._host: operations over NumPy arrays, run by the loops that
// host_source.py writes.
//
// An Operation knows its parameters and operands, as the catalogue's row states them. A call reads
// the arguments, checks dtypes, shapes and overlap, brings every operand into the form of a matrix
// whose rows are contiguous, and runs the loop over it. All that depends on the row comes from
// Python when the operation is made.

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <structmember.h>

#define NPY_NO_DEPRECATED_API NPY_2_0_API_VERSION
#define NPY_TARGET_VERSION NPY_2_0_API_VERSION
#include <numpy/arrayobject.h>

#include <stdint.h>
#include <string.h>

#include "host_loops.h"
#include "host_memory.h"
#include "host_product.h"
#include "host_team.h"

extern "C" {
extern const XpnEntry xpn_loops_baseline[];
void xpn_words_baseline(unsigned int*, unsigned long long, ptrdiff_t, unsigned long long, unsigned int,
                    unsigned int, unsigned int);
#ifdef XPN_HAVE_avx2
extern const XpnEntry xpn_loops_avx2[];
void xpn_words_avx2(unsigned int*, unsigned long long, ptrdiff_t, unsigned long long, unsigned int,
                    unsigned int, unsigned int);
#endif
#ifdef XPN_HAVE_avx512
extern const XpnEntry xpn_loops_avx512[];
void xpn_words_avx512(unsigned int*, unsigned long long, ptrdiff_t, unsigned long long, unsigned int,
                    unsigned int, unsigned int);
#endif
}

namespace {

const int MAX_PARAMETERS = 16;
const int MAX_DIMENSIONS = 16;
const npy_intp TILE = 512;             // elements of an operand that is copied piece by piece
const npy_intp CACHE_LINE = 64;        // bytes
const npy_intp MANY_COLUMNS = 1024;    // from here on a row is worth aligning
const npy_intp NOGIL_ELEMENTS = 8192;  // from here on other threads may run meanwhile
const npy_intp TEAM_ELEMENTS = 8192;   // a part of a loop that is worth a thread,
const npy_intp FAR_ELEMENTS = 65536;   // and of a single row, one that is far
const npy_intp STRETCH = 1024;         // elements of a row that are called for at a time
const npy_intp SUMS = 65536;           // bytes, on the stack, for the sums of parts of a matrix
const npy_intp AHEAD = 4;              // rows of a minibatch that are called for in advance,
const npy_intp AHEAD_IF_SHORT = 32;    // more of them if they are shorter than a cache line,
const npy_intp PREFETCHED = 4096;      // and how many bytes of each
const npy_intp GATHER_BYTES = 1 << 15;      // a part of a minibatch that is worth a thread,
const npy_intp FAR_GATHER_BYTES = 1 << 17;  // and one that is far

enum Kind { ELEMENTWISE, COLUMN_REDUCE, ROWWISE, GATHER, RESAMPLED };
enum Layout { EACH, COLUMN, ROW, SINGLE };
enum Use { IN, INOUT, OUT };

struct Variant {
    const char* name;
    const XpnEntry* entries;
    XpnWords words;
    bool is_supported;
};

int find_variants(Variant* found) {
    int n = 0;
#ifdef XPN_HAVE_avx512
    __builtin_cpu_init();
    found[n++] = {"avx512", xpn_loops_avx512, xpn_words_avx512,
                  __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
                      __builtin_cpu_supports("fma")};
#endif
#ifdef XPN_HAVE_avx2
    __builtin_cpu_init();
    found[n++] = {"avx2", xpn_loops_avx2, xpn_words_avx2,
                  __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")};
#endif
    found[n++] = {"baseline", xpn_loops_baseline, xpn_words_baseline, true};
    return n;
}

struct OperandSpec {
    PyObject* name;
    int type;  // a NumPy type number, or NPY_NOTYPE for the type T
    Layout layout;
    Use use;
    bool is_optional;
};

struct ConstantSpec {
    PyObject* name;
    int bits;  // of an integer's range; 0 for a real number, 1 for one in [0, 1)
};

struct Parameter {
    PyObject* name;  // interned
    bool is_required, may_be_none, is_operand;
    int index;
    double otherwise;  // a constant's value where it is not given
};

struct Operation {
    PyObject_HEAD
    vectorcallfunc vectorcall;
    PyObject* attributes;
    PyObject* name;
    PyObject* reference;
    Kind kind;
    XpnLoop loops[2];
    int n_parameters, n_operands, n_constants, result;  // result: the operand "out", or -1
    bool reads_columns;  // whether the index of a column matters, so that rows cannot be merged
    bool has_columns;    // whether an operand has a value for each column
    int total;           // the operand that receives the sum of each column
    int height, width;   // constants: the size of an image
    Parameter parameters[MAX_PARAMETERS];
    OperandSpec operands[XPN_MAX_OPERANDS];
    ConstantSpec constants[XPN_MAX_CONSTANTS];
};

// An operand laid over the shape of the result.
struct View {
    PyArrayObject* array;  // null for None
    char* data;
    npy_intp itemsize;
    npy_intp strides[MAX_DIMENSIONS];
};

// What a call holds on to.
struct Call {
    PyObject* owned[2 * XPN_MAX_OPERANDS];
    int n_owned = 0;
    // Outputs that are computed elsewhere and copied when done.
    PyArrayObject* copy_to[XPN_MAX_OPERANDS];
    PyArrayObject* copy_from[XPN_MAX_OPERANDS];
    int n_copies = 0;

    ~Call() {
        for (int i = 0; i < n_owned; ++i) Py_DECREF(owned[i]);
    }
    PyArrayObject* own(PyObject* object) {
        if (object) owned[n_owned++] = object;
        return reinterpret_cast<PyArrayObject*>(object);
    }
};

PyObject* shape_of(const npy_intp* shape, int n) {
    PyObject* tuple = PyTuple_New(n);
    for (int i = 0; tuple && i < n; ++i) PyTuple_SET_ITEM(tuple, i, PyLong_FromSsize_t(shape[i]));
    return tuple;
}

PyObject* shape_of(PyArrayObject* array) {
    return shape_of(PyArray_DIMS(array), PyArray_NDIM(array));
}

// ---------------------------------------------------------------------------------------------
// Arguments.

int read_constant(const Operation* self, int k, PyObject* value, XpnConstant* constant) {
    const ConstantSpec& spec = self->constants[k];
    if (spec.bits <= 1) {
        constant->real = PyFloat_AsDouble(value);
        constant->integer = 1;  // that it was given
        if (constant->real == -1.0 && PyErr_Occurred()) return -1;
        if (spec.bits == 1 && !(constant->real >= 0 && constant->real < 1)) {
            PyErr_Format(PyExc_ValueError, "%U must lie in [0, 1), got %S", spec.name, value);
            return -1;
        }
        return 0;
    }
    PyObject* integer = PyArray_IsScalar(value, Bool) ? PyNumber_Long(value) : PyNumber_Index(value);
    if (!integer) return -1;
    constant->integer = PyLong_AsUnsignedLongLong(integer);
    Py_DECREF(integer);
    const bool failed = constant->integer == (unsigned long long)-1 && PyErr_Occurred();
    if (failed || (spec.bits < 64 && constant->integer >> spec.bits)) {
        PyErr_Clear();
        PyErr_Format(PyExc_ValueError, "%U must lie in [0, 2**%d), got %R", spec.name, spec.bits,
                     value);
        return -1;
    }
    return 0;
}

int find_parameter(const Operation* self, PyObject* name) {
    for (int i = 0; i < self->n_parameters; ++i) {
        if (self->parameters[i].name == name) return i;
    }
    for (int i = 0; i < self->n_parameters; ++i) {
        if (PyUnicode_Compare(self->parameters[i].name, name) == 0) return i;
    }
    return -1;
}

int read_arguments(const Operation* self, PyObject* const* args, Py_ssize_t n_args,
                   PyObject* names, PyObject** given, XpnConstant* constants) {
    PyObject* values[MAX_PARAMETERS] = {nullptr};
    if (n_args > self->n_parameters) {
        PyErr_Format(PyExc_TypeError, "%U() takes at most %d arguments, got %zd", self->name,
                     self->n_parameters, n_args);
        return -1;
    }
    for (Py_ssize_t i = 0; i < n_args; ++i) values[i] = args[i];
    const Py_ssize_t n_names = names ? PyTuple_GET_SIZE(names) : 0;
    for (Py_ssize_t i = 0; i < n_names; ++i) {
        PyObject* name = PyTuple_GET_ITEM(names, i);
        const int k = find_parameter(self, name);
        if (k < 0 || values[k]) {
            PyErr_Format(PyExc_TypeError,
                         k < 0 ? "%U() got an unexpected keyword argument %R"
                               : "%U() got multiple values for argument %R",
                         self->name, name);
            return -1;
        }
        values[k] = args[n_args + i];
    }
    for (int k = 0; k < self->n_constants; ++k) constants[k] = {0, 0};
    for (int i = 0; i < self->n_parameters; ++i) {
        const Parameter& parameter = self->parameters[i];
        if (!values[i] && parameter.is_required) {
            PyErr_Format(PyExc_TypeError, "%U() missing required argument %R", self->name,
                         parameter.name);
            return -1;
        }
        PyObject* value = values[i] == Py_None ? nullptr : values[i];
        if (values[i] == Py_None && !parameter.is_operand && !parameter.may_be_none) {
            PyErr_Format(PyExc_TypeError, "%U: %U must be a number, got None", self->name,
                         parameter.name);
            return -1;
        }
        if (parameter.is_operand) {
            given[parameter.index] = value;
        } else if (!values[i]) {
            XpnConstant& constant = constants[parameter.index];
            constant.real = parameter.otherwise;
            if (self->constants[parameter.index].bits > 1) {
                constant.integer = (unsigned long long)parameter.otherwise;
            }
        } else if (value && read_constant(self, parameter.index, value,
                                          &constants[parameter.index]) < 0) {
            return -1;
        }
    }
    return 0;
}

// ---------------------------------------------------------------------------------------------
// Operands.

const char* type_name(int type) {
    switch (type) {
        case NPY_FLOAT: return "float32";
        case NPY_DOUBLE: return "float64";
        case NPY_UINT8: return "uint8";
        default: return "int64";
    }
}

bool has_type(PyArrayObject* array, int type) {
    const int found = PyArray_TYPE(array);
    return found == type || (PyTypeNum_ISNUMBER(found) && PyArray_EquivTypenums(found, type));
}

// Checks kinds and dtypes; sets the type number that T stands for.
int check_operands(const Operation* self, PyObject** given, View* views, int* T, Call* call) {
    PyObject* first = nullptr;
    *T = NPY_NOTYPE;
    for (int k = 0; k < self->n_operands; ++k) {
        const OperandSpec& spec = self->operands[k];
        views[k].array = nullptr;
        views[k].data = nullptr;
        if (!given[k]) {
            if (!spec.is_optional && k != self->result) {
                PyErr_Format(PyExc_TypeError, "%U: %U must be an array, got None", self->name,
                             spec.name);
                return -1;
            }
            continue;
        }
        if (!PyArray_Check(given[k])) {
            PyErr_Format(PyExc_TypeError, "%U: %U must be a NumPy array, got %s", self->name,
                         spec.name, Py_TYPE(given[k])->tp_name);
            return -1;
        }
        PyArrayObject* array = reinterpret_cast<PyArrayObject*>(given[k]);
        if (PyArray_NDIM(array) >= MAX_DIMENSIONS - 1) {
            PyErr_Format(PyExc_ValueError, "%U: %U has %d dimensions, which are too many",
                         self->name, spec.name, PyArray_NDIM(array));
            return -1;
        }
        if (spec.type == NPY_NOTYPE && *T == NPY_NOTYPE) {
            if (!has_type(array, NPY_FLOAT) && !has_type(array, NPY_DOUBLE)) {
                PyErr_Format(PyExc_TypeError, "%U: %U must be float32 or float64, got %S",
                             self->name, spec.name, (PyObject*)PyArray_DESCR(array));
                return -1;
            }
            *T = has_type(array, NPY_FLOAT) ? NPY_FLOAT : NPY_DOUBLE;
            first = spec.name;
        }
        const int wanted = spec.type == NPY_NOTYPE ? *T : spec.type;
        if (spec.use == IN && wanted == NPY_INT64 && PyArray_ISINTEGER(array) &&
            (!has_type(array, NPY_INT64) || !PyArray_ISBEHAVED_RO(array))) {
            array = call->own(PyArray_CastToType(array, PyArray_DescrFromType(NPY_INT64), 0));
            if (!array) return -1;
        }
        if (!has_type(array, wanted)) {
            if (spec.type == NPY_NOTYPE) {
                PyErr_Format(PyExc_TypeError, "%U: %U must be %s like %U, got %S", self->name,
                             spec.name, type_name(wanted), first,
                             (PyObject*)PyArray_DESCR(array));
            } else {
                PyErr_Format(PyExc_TypeError, "%U: %U must be %s, got %S", self->name, spec.name,
                             type_name(wanted), (PyObject*)PyArray_DESCR(array));
            }
            return -1;
        }
        if (!PyArray_ISALIGNED(array) || !PyArray_ISNOTSWAPPED(array)) {
            PyErr_Format(PyExc_ValueError, "%U: %U must be aligned and in native byte order",
                         self->name, spec.name);
            return -1;
        }
        if (spec.use != IN && !PyArray_ISWRITEABLE(array)) {
            PyErr_Format(PyExc_ValueError, "%U: %U is written to, but the array is read-only",
                         self->name, spec.name);
            return -1;
        }
        views[k].array = array;
    }
    return 0;
}

// The shape of an operand laid over rows and columns: a value for each column gets an axis for the
// rows, a value for each row one for the columns.
int expanded_shape(PyArrayObject* array, Layout layout, npy_intp* shape) {
    int n = PyArray_NDIM(array);
    for (int i = 0; i < n; ++i) shape[i] = PyArray_DIM(array, i);
    if (layout == COLUMN && n > 0) {
        shape[n] = shape[n - 1];
        shape[n - 1] = 1;
        ++n;
    } else if (layout == ROW) {
        shape[n++] = 1;
    }
    return n;
}

// The shape of an output, given that of the result; the inverse of expanded_shape.
int reduced_shape(Layout layout, const npy_intp* shape, int n, npy_intp* reduced) {
    memcpy(reduced, shape, n * sizeof(npy_intp));
    if (layout == COLUMN && n > 1) {
        reduced[n - 2] = reduced[n - 1];
        return n - 1;
    }
    if (layout == ROW && n > 0) return n - 1;
    if (layout == SINGLE && n > 0) reduced[n - 1] = 1;
    return n;
}

// Broadcasts what is read.
int result_shape(const Operation* self, const View* views, npy_intp* shape) {
    int n = 0;
    for (int i = 0; i < MAX_DIMENSIONS; ++i) shape[i] = 1;
    npy_intp aligned[MAX_DIMENSIONS];  // from the last axis backwards
    for (int i = 0; i < MAX_DIMENSIONS; ++i) aligned[i] = 1;
    for (int k = 0; k < self->n_operands; ++k) {
        if (!views[k].array || self->operands[k].use == OUT) continue;
        npy_intp own[MAX_DIMENSIONS + 1];
        const int m = expanded_shape(views[k].array, self->operands[k].layout, own);
        if (self->operands[k].layout == SINGLE && m > 0 && own[m - 1] != 1) {
            PyObject* found = shape_of(views[k].array);
            PyErr_Format(PyExc_ValueError, "%U: %U must have shape (..., 1), got %S", self->name,
                         self->operands[k].name, found);
            Py_XDECREF(found);
            return -1;
        }
        n = m > n ? m : n;
        for (int i = 0; i < m; ++i) {
            const npy_intp length = own[m - 1 - i];
            if (length != 1 && aligned[i] != 1 && aligned[i] != length) {
                PyObject* found = shape_of(views[k].array);
                npy_intp so_far[MAX_DIMENSIONS];
                for (int j = 0; j < n; ++j) so_far[j] = aligned[n - 1 - j];
                PyObject* others = shape_of(so_far, n);
                if (found && others) {
                    PyErr_Format(PyExc_ValueError,
                                 "%U: %U of shape %S does not broadcast against %S", self->name,
                                 self->operands[k].name, found, others);
                }
                Py_XDECREF(found);
                Py_XDECREF(others);
                return -1;
            }
            if (length != 1) aligned[i] = length;
        }
    }
    for (int i = 0; i < n; ++i) shape[i] = aligned[n - 1 - i];
    return n;
}

// Lays an operand over the result: the stride of an axis that it lacks or repeats is 0.
void lay_over(View* view, Layout layout, const npy_intp* shape, int n) {
    npy_intp own[MAX_DIMENSIONS + 1], strides[MAX_DIMENSIONS + 1];
    PyArrayObject* array = view->array;
    const int m = expanded_shape(array, layout, own);
    for (int i = 0; i < PyArray_NDIM(array); ++i) strides[i] = PyArray_STRIDE(array, i);
    if (layout == COLUMN && m > 1) {
        strides[m - 1] = strides[m - 2];
        strides[m - 2] = 0;
    } else if (layout == ROW) {
        strides[m - 1] = 0;
    }
    view->data = PyArray_BYTES(array);
    view->itemsize = PyArray_ITEMSIZE(array);
    for (int i = 0; i < n; ++i) {
        const int j = i - (n - m);
        view->strides[i] = j < 0 || own[j] == 1 ? 0 : strides[j];
    }
    // A single column is contiguous, and so is nothing, whose strides NumPy sets to 0.
    if (n > 0 && (shape[n - 1] == 1 || PyArray_SIZE(array) == 0) &&
        (layout == EACH || layout == COLUMN)) {
        view->strides[n - 1] = view->itemsize;
    }
}

// The bytes from the first element's to the last one's.
void extent(PyArrayObject* array, char** low, char** high) {
    *low = *high = PyArray_BYTES(array);
    for (int i = 0; i < PyArray_NDIM(array); ++i) {
        const npy_intp reach = (PyArray_DIM(array, i) - 1) * PyArray_STRIDE(array, i);
        *(reach < 0 ? low : high) += reach;
    }
    *high += PyArray_ITEMSIZE(array);
}

// Axes in front, of length 1, do not count.
bool is_same_array(PyArrayObject* a, PyArrayObject* b) {
    if (PyArray_NDIM(a) < PyArray_NDIM(b)) return is_same_array(b, a);
    const int extra = PyArray_NDIM(a) - PyArray_NDIM(b);
    if (PyArray_BYTES(a) != PyArray_BYTES(b) || PyArray_ITEMSIZE(a) != PyArray_ITEMSIZE(b)) {
        return false;
    }
    for (int i = 0; i < PyArray_NDIM(a); ++i) {
        const npy_intp length = i < extra ? 1 : PyArray_DIM(b, i - extra);
        if (PyArray_DIM(a, i) != length) return false;
        if (length > 1 && PyArray_STRIDE(a, i) != PyArray_STRIDE(b, i - extra)) return false;
    }
    return true;
}

int shares_memory(PyArrayObject* a, PyArrayObject* b) {
    PyObject* numpy = PyImport_ImportModule("numpy");
    PyObject* found = numpy ? PyObject_CallMethod(numpy, "shares_memory", "OO", a, b) : nullptr;
    const int answer = found ? PyObject_IsTrue(found) : -1;
    Py_XDECREF(found);
    Py_XDECREF(numpy);
    return answer;
}

// Whether two elements of a written array are one: its axes, from the closest, must not reach into
// each other.
bool overlaps_itself(PyArrayObject* array) {
    npy_intp reach = PyArray_ITEMSIZE(array);
    bool used[MAX_DIMENSIONS] = {false};
    for (int pass = 0; pass < PyArray_NDIM(array); ++pass) {
        int closest = -1;
        npy_intp least = 0;
        for (int i = 0; i < PyArray_NDIM(array); ++i) {
            const npy_intp stride = PyArray_STRIDE(array, i);
            const npy_intp length = stride < 0 ? -stride : stride;
            if (!used[i] && (closest < 0 || length < least)) {
                closest = i;
                least = length;
            }
        }
        used[closest] = true;
        if (PyArray_DIM(array, closest) < 2) continue;
        if (least < reach) return true;
        reach += least * (PyArray_DIM(array, closest) - 1);
    }
    return false;
}

// Operands are the same array or share no memory.
int check_overlap(const Operation* self, const View* views) {
    for (int w = 0; w < self->n_operands; ++w) {
        PyArrayObject* written = views[w].array;
        if (!written || self->operands[w].use == IN || PyArray_SIZE(written) == 0) continue;
        if (overlaps_itself(written)) {
            PyErr_Format(PyExc_ValueError, "%U: %U overlaps itself", self->name,
                         self->operands[w].name);
            return -1;
        }
        char *low, *high;
        extent(written, &low, &high);
        for (int k = 0; k < self->n_operands; ++k) {
            PyArrayObject* other = views[k].array;
            const bool other_is_written = self->operands[k].use != IN;
            if (!other || k == w || (other_is_written && k < w) || PyArray_SIZE(other) == 0) {
                continue;
            }
            char *other_low, *other_high;
            extent(other, &other_low, &other_high);
            if (high <= other_low || other_high <= low) continue;
            const bool is_same = is_same_array(written, other) &&
                                 self->operands[w].layout == self->operands[k].layout &&
                                 self->kind != GATHER;
            const bool is_updated = self->operands[w].use == INOUT || self->kind == RESAMPLED;
            if (is_same && !other_is_written && !is_updated) continue;
            const int shared = is_same ? 1 : shares_memory(written, other);
            if (shared < 0) return -1;
            if (!shared) continue;
            PyErr_Format(PyExc_ValueError,
                         is_same ? "%U: %U and %U are one array: what is changed must be apart"
                                 : "%U: %U partly overlaps %U: operands must be the same array or "
                                   "share no memory",
                         self->name, self->operands[w].name, self->operands[k].name);
            return -1;
        }
    }
    return 0;
}

// ---------------------------------------------------------------------------------------------
// Running a loop.

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

// Merges neighbouring axes that every operand steps through as through one.
void merge_axes(Plan* plan) {
    const int n_operands = plan->self->n_operands;
    const int last = plan->self->reads_columns ? plan->n - 1 : plan->n;  // first axis to keep apart
    int to = 0;
    for (int from = 1; from < plan->n; ++from) {
        if (plan->shape[from] == 1 && from < plan->n - 1) continue;  // an axis of one step
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

// One matrix, of which some operand does not lie in contiguous rows: piece by piece, by way of a
// tile for each such operand.
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

// One matrix in contiguous rows, and all that the loop over it needs: threads are given copies.
struct Task {
    const Operation* self;
    XpnLoop loop;
    Division division;
    char* sums;  // where rows are divided that are summed: a row of sums for each part; or null
    XpnBlock block;
    unsigned char itemsize[XPN_MAX_OPERANDS];
    XpnConstant constants[XPN_MAX_CONSTANTS];
};

// A matrix of few columns whose operands would be contiguous as a whole, but for those with one
// value for each column: these are repeated, so that several rows run as one.
bool run_as_few_rows(const Task& task, const XpnBlock& block) {
    const Operation* self = task.self;
    if (self->kind != ELEMENTWISE || self->reads_columns || block.n_rows < 2 ||
        block.n_columns < 1 || block.n_columns > TILE / 8) {
        return false;
    }
    alignas(64) char tiles[XPN_MAX_OPERANDS][TILE * sizeof(double)];
    const npy_intp rows_at_once = TILE / block.n_columns;
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
        for (npy_intp r = 0; r < rows_at_once; ++r) {
            memcpy(tiles[k] + r * block.n_columns * itemsize, block.data[k],
                   (size_t)(block.n_columns * itemsize));
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

// A long row in two pieces, so that what is written begins at a cache line in the second: a vector
// that lies across two lines takes as long as two.
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

// Calls for what is to be changed: other processors must give it up first, and one after the other
// that takes long.
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

// A piece of a row: `n` columns from `begin` on.
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

// A long row, a stretch at a time, the next of which is called for meanwhile.
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

template <class T> void add_up(const char* sums, int n, npy_intp n_columns, char* total) {
    const T* from = reinterpret_cast<const T*>(sums);
    T* to = reinterpret_cast<T*>(total);
    for (npy_intp i = 0; i < n_columns; ++i) to[i] = from[i];
    for (int k = 1; k < n; ++k) {
        for (npy_intp i = 0; i < n_columns; ++i) to[i] += from[k * n_columns + i];
    }
}

// Rows whose columns are summed: each part has sums of its own, which are added up in order.
void share_sums(Task* task, int n_parts, const Terms& terms) {
    alignas(64) char sums[SUMS];
    const int total = task->self->total;
    const XpnBlock& block = task->block;
    task->sums = sums;
    team().share(run_part, *task, n_parts, terms);
    const Flushing flushing;
    (task->itemsize[total] == sizeof(float) ? add_up<float> : add_up<double>)(
        sums, n_parts, block.n_columns, block.data[total]);
}

// By the team where it is worth it. Rows whose elements are numbered, for random words, are divided
// by rows, a rowwise loop must see all of them, and an image is not divided. Where rows are summed,
// their division decides the bits of the sums.
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
    if (is_whole) return team().share(run_part, *task, 1, terms_of(1, false, 0));
    const int n_threads = team_size();
    const Pace::Kind kind = kind_of(self, block.n_rows, block.n_columns, by_columns);
    if (sums_up && !by_columns) {
        const int n_parts = task->division.parts(size, TEAM_ELEMENTS, most_parts());
        if (n_parts * block.n_columns * task->itemsize[self->total] <= SUMS) {
            return share_sums(task, n_parts, terms_of(n_threads, false, kind));
        }
        task->division = Division(false, block.n_rows, block.n_columns);
    }
    const int n_parts = task->division.parts(size, TEAM_ELEMENTS, n_threads);
    // The parameters, one long row, are used by products that short ones do not share.
    const bool is_short = block.n_rows == 1 && size < (double)n_parts * FAR_ELEMENTS;
    team().share(run_part, *task, n_parts, terms_of(n_threads, is_short, kind));
}

// All matrices of the operands.
void run(const Plan* plan) {
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
    if (n_outer == 0) return;
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
        if (!is_contiguous) {
            run_in_tiles(plan, block, inner);
        } else {
            run_shared(&task);
        }
        for (int i = n - 3; i >= 0 && ++index[i] == plan->shape[i]; --i) index[i] = 0;
    }
}

// Rowwise and column-reduce loops take contiguous rows only: others are copied as a whole.
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

// Makes the output that was not given; checks those that were.
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

// Rowwise loops count in int, and take operands of one shape, or a single element.
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

// ---------------------------------------------------------------------------------------------
// The gather of a minibatch: operands X, indices, out; one constant, what to divide by.

PyObject* refuse_index(const Operation* self, npy_intp n_samples, npy_int64 index) {
    return PyErr_Format(PyExc_IndexError, "%U: indices must lie in [0, %zd), got %lld", self->name,
                        n_samples, (long long)index);
}

struct Gathering {
    XpnLoop loop;  // null: rows are copied as they are
    char *X, *out;
    const npy_int64* index;
    npy_intp n, n_samples, row_size, in_bytes, out_bytes;
    XpnConstant divide_by;
    std::atomic<npy_int64>* outside;  // the last index that was found to be out of range, or 0
};

// Rows lie anywhere: the processor does not foresee the next one.
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
    const npy_intp ahead = g.in_bytes < CACHE_LINE ? AHEAD_IF_SHORT : AHEAD;
    for (npy_intp i = division.bound(part, n_parts); i < end; ++i) {
        if (i + ahead < end) prefetch(g, i + ahead);
        // Looked at again: another thread may have written it.
        const npy_int64 found = *static_cast<const volatile npy_int64*>(g.index + i);
        if (found < 0 || found >= g.n_samples) {
            g.outside->store(found, std::memory_order_relaxed);
            return;
        }
        char* from = g.X + found * g.in_bytes;
        char* to = g.out + i * g.out_bytes;
        if (!g.loop) {
            memcpy(to, from, (size_t)g.in_bytes);
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
    // Whatever is not the common case is the reference's.
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
    if (!is_copy && !from_bytes) return PyObject_Vectorcall(self->reference, args, n_args, names);
    View views[3];
    for (int k = 0; k < 3; ++k) views[k].array = reinterpret_cast<PyArrayObject*>(given[k]);
    if (check_overlap(self, views) < 0) return nullptr;
    const npy_intp n = PyArray_DIM(out, 0), n_samples = PyArray_DIM(X, 0);
    const npy_intp row_size = n ? PyArray_SIZE(out) / n : 0;
    const npy_intp in_bytes = row_size * PyArray_ITEMSIZE(X);
    const npy_intp out_bytes = row_size * PyArray_ITEMSIZE(out);
    const npy_int64* index = static_cast<const npy_int64*>(PyArray_DATA(indices));
    for (npy_intp i = 0; i < n; ++i) {
        const npy_int64 found = index[i];
        if (found < 0 || found >= n_samples) return refuse_index(self, n_samples, found);
    }
    if (!divides) divide_by.real = 1;
    std::atomic<npy_int64> outside{0};  // 0 is inside: where there is nothing, it was refused above
    const Gathering gathering = {
        is_copy ? nullptr : self->loops[has_type(out, NPY_DOUBLE)],
        PyArray_BYTES(X), PyArray_BYTES(out), index, n, n_samples, row_size, in_bytes, out_bytes,
        divide_by, &outside,
    };
    PyThreadState* state = n * row_size >= NOGIL_ELEMENTS ? PyEval_SaveThread() : nullptr;
    const Division division(true, n, row_size);
    const double size = (double)n * (double)out_bytes;
    const int n_threads = size < 2 * GATHER_BYTES ? 1 : team_size();
    const int n_parts = division.parts(size, GATHER_BYTES, n_threads);
    team().share(gather_part, gathering, n_parts,
                 terms_of(n_threads, size < n_parts * FAR_GATHER_BYTES,
                          kind_of(self, n, in_bytes, out_bytes)));
    if (state) PyEval_RestoreThread(state);
    if (outside != 0) return refuse_index(self, n_samples, outside);
    Py_INCREF(out);
    return out_;
}

// ---------------------------------------------------------------------------------------------
// Matrix products.

PyObject* numpy_matmul = nullptr;

// Reads a matrix as the BLAS takes it; false where it cannot. The stride of an axis of length 1 is
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

// Reads a product of matrices as they come in training; false for whatever else NumPy multiplies.
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

PyObject* matmul(PyObject*, PyObject* const* args, Py_ssize_t n_args, PyObject* names) {
    PyObject* given[3] = {nullptr, nullptr, nullptr};
    const bool has_out = names && n_args == 2 && PyTuple_GET_SIZE(names) == 1 &&
                         PyUnicode_CompareWithASCIIString(PyTuple_GET_ITEM(names, 0), "out") == 0;
    for (int i = 0; i < 3 && (has_out || (n_args == 3 && !names)); ++i) given[i] = args[i];
    Product product;
    if (!read_product(given, &product)) {
        return PyObject_Vectorcall(numpy_matmul, args, (size_t)n_args, names);
    }
    Threads& threads = blas().threads;
    if (threads.is_only_thread) {
        PyThreadState* first = PyInterpreterState_ThreadHead(PyInterpreterState_Get());
        threads.is_only_thread = !PyThreadState_Next(first);
    }
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

// use_blas(sgemm, dgemm, sgemv, dgemv, get_threads, set_threads, is_64_bit): the functions by their
// addresses.
PyObject* use_blas(PyObject*, PyObject* args) {
    unsigned long long addresses[6];
    int is_64_bit;
    if (!PyArg_ParseTuple(args, "KKKKKKp", &addresses[0], &addresses[1], &addresses[2],
                          &addresses[3], &addresses[4], &addresses[5], &is_64_bit)) {
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
    Py_RETURN_NONE;
}

// use_threads(processors, most, forced): into how many parts work is cut, how many threads there may
// be, and how many there must be (0: as pays).
PyObject* use_threads(PyObject*, PyObject* args) {
    int processors, most, forced;
    if (!PyArg_ParseTuple(args, "iii", &processors, &most, &forced)) return nullptr;
    Blas& b = blas();
    std::lock_guard<std::mutex> lock(b.mutex);
    b.threads.processors = processors;
    b.threads.most = most;
    b.threads.forced = forced;
    Py_RETURN_NONE;
}

PyObject* memory = nullptr;

// use_memory(handler): lets NumPy allocate arrays of this context by it, by that for large pages if
// it is None; gives the one before, or None where nothing was changed.
PyObject* use_memory(PyObject*, PyObject* handler) {
    PyObject* wanted = handler == Py_None ? memory : handler;
    if (wanted == Py_None) Py_RETURN_NONE;
    return PyDataMem_SetHandler(wanted);
}

PyObject* assume_far(PyObject*, PyObject* far) {
    team().assume(far == Py_None ? -1 : PyObject_IsTrue(far));
    Py_RETURN_NONE;
}

PyObject* count_threads(PyObject*, PyObject*) { return PyLong_FromLong(team_size()); }

// Whether the caller's processor and a helper's are one core; None where that cannot be found out.
PyObject* shares_core(PyObject*, PyObject*) {
    if (team_size() < 2) Py_RETURN_NONE;
    Py_BEGIN_ALLOW_THREADS
    team().measure_now();
    Py_END_ALLOW_THREADS
    const int found = team().is_one_core();
    if (found < 0) Py_RETURN_NONE;
    return PyBool_FromLong(found);
}

// ---------------------------------------------------------------------------------------------
// The type Operation.

PyObject* call_operation(PyObject* callable, PyObject* const* args, size_t nargsf,
                         PyObject* names) {
    const Operation* self = reinterpret_cast<Operation*>(callable);
    const Py_ssize_t n_args = PyVectorcall_NARGS(nargsf);
    PyObject* given[XPN_MAX_OPERANDS] = {nullptr};
    XpnConstant constants[XPN_MAX_CONSTANTS];
    if (read_arguments(self, args, n_args, names, given, constants) < 0) return nullptr;
    if (self->kind == GATHER) {
        return run_gather(self, given, args, n_args, names, constants[0]);
    }
    return run_operation(self, given, constants);
}

void free_operation(PyObject* object) {
    Operation* self = reinterpret_cast<Operation*>(object);
    PyTypeObject* type = Py_TYPE(object);
    Py_XDECREF(self->attributes);
    Py_XDECREF(self->name);
    Py_XDECREF(self->reference);
    for (int i = 0; i < self->n_parameters; ++i) Py_XDECREF(self->parameters[i].name);
    for (int i = 0; i < self->n_operands; ++i) Py_XDECREF(self->operands[i].name);
    for (int i = 0; i < self->n_constants; ++i) Py_XDECREF(self->constants[i].name);
    PyObject_Free(object);
    Py_DECREF(type);
}

PyObject* represent(PyObject* object) {
    return PyUnicode_FromFormat("<fused operation %U>",
                                reinterpret_cast<Operation*>(object)->name);
}

PyMemberDef members[] = {
    {"__vectorcalloffset__", T_PYSSIZET, offsetof(Operation, vectorcall), READONLY, nullptr},
    {"__dictoffset__", T_PYSSIZET, offsetof(Operation, attributes), READONLY, nullptr},
    {nullptr, 0, 0, 0, nullptr},
};

PyGetSetDef properties[] = {
    {"__dict__", PyObject_GenericGetDict, PyObject_GenericSetDict, nullptr, nullptr},
    {nullptr, nullptr, nullptr, nullptr, nullptr},
};

PyType_Slot slots[] = {
    {Py_tp_dealloc, reinterpret_cast<void*>(free_operation)},
    {Py_tp_call, reinterpret_cast<void*>(PyVectorcall_Call)},
    {Py_tp_repr, reinterpret_cast<void*>(represent)},
    {Py_tp_members, members},
    {Py_tp_getset, properties},
    {Py_tp_setattro, reinterpret_cast<void*>(PyObject_GenericSetAttr)},
    {Py_tp_getattro, reinterpret_cast<void*>(PyObject_GenericGetAttr)},
    {0, nullptr},
};

PyType_Spec operation_spec = {
    "xpnet.kernels._host.Operation", sizeof(Operation), 0,
    Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_VECTORCALL | Py_TPFLAGS_DISALLOW_INSTANTIATION, slots,
};

PyTypeObject* operation_type = nullptr;

int index_of(PyObject* name, const OperandSpec* operands, int n) {
    for (int i = 0; i < n; ++i) {
        if (PyUnicode_Compare(operands[i].name, name) == 0) return i;
    }
    return -1;
}

// Reads (name, type, layout, use, optional) of every operand.
int read_operands(Operation* self, PyObject* operands) {
    const Py_ssize_t n = PyTuple_Size(operands);
    if (n < 0 || n > XPN_MAX_OPERANDS) return -1;
    self->result = -1;
    for (Py_ssize_t i = 0; i < n; ++i) {
        OperandSpec& spec = self->operands[i];
        const char* type;
        int layout, use, is_optional;
        if (!PyArg_ParseTuple(PyTuple_GET_ITEM(operands, i), "Usiip", &spec.name, &type, &layout,
                              &use, &is_optional)) {
            return -1;
        }
        Py_INCREF(spec.name);
        ++self->n_operands;
        spec.type = strcmp(type, "T") == 0       ? NPY_NOTYPE
                    : strcmp(type, "uint8") == 0 ? NPY_UINT8
                                                 : NPY_INT64;
        spec.layout = static_cast<Layout>(layout);
        spec.use = static_cast<Use>(use);
        spec.is_optional = is_optional != 0;
        if (spec.layout == COLUMN) {
            if (spec.use == OUT) self->total = (int)i;
            self->has_columns = self->has_columns || spec.use == IN;
        }
        if (PyUnicode_CompareWithASCIIString(spec.name, "out") == 0) self->result = (int)i;
    }
    return 0;
}

// Reads (name, bits) of every constant that is given in a call.
int read_constants(Operation* self, PyObject* constants) {
    const Py_ssize_t n = PyTuple_Size(constants);
    if (n < 0 || n > XPN_MAX_CONSTANTS) return -1;
    for (Py_ssize_t i = 0; i < n; ++i) {
        ConstantSpec& spec = self->constants[i];
        if (!PyArg_ParseTuple(PyTuple_GET_ITEM(constants, i), "Ui", &spec.name, &spec.bits)) {
            return -1;
        }
        Py_INCREF(spec.name);
        ++self->n_constants;
        if (PyUnicode_CompareWithASCIIString(spec.name, "n_decay") == 0) self->reads_columns = true;
        if (PyUnicode_CompareWithASCIIString(spec.name, "height") == 0) self->height = (int)i;
        if (PyUnicode_CompareWithASCIIString(spec.name, "width") == 0) self->width = (int)i;
    }
    return 0;
}

// Reads (name, is_required, may_be_none, otherwise) of every parameter, an operand or a constant.
int read_parameters(Operation* self, PyObject* parameters) {
    const Py_ssize_t n = PyTuple_Size(parameters);
    if (n < 0 || n > MAX_PARAMETERS) return -1;
    for (Py_ssize_t i = 0; i < n; ++i) {
        Parameter& parameter = self->parameters[i];
        int is_required, may_be_none;
        if (!PyArg_ParseTuple(PyTuple_GET_ITEM(parameters, i), "Uppd", &parameter.name,
                              &is_required, &may_be_none, &parameter.otherwise)) {
            return -1;
        }
        Py_INCREF(parameter.name);
        ++self->n_parameters;
        PyUnicode_InternInPlace(&parameter.name);
        parameter.is_required = is_required != 0;
        parameter.may_be_none = may_be_none != 0;
        parameter.index = index_of(parameter.name, self->operands, self->n_operands);
        parameter.is_operand = parameter.index >= 0;
        for (int k = 0; k < self->n_constants && !parameter.is_operand; ++k) {
            if (PyUnicode_Compare(self->constants[k].name, parameter.name) == 0) {
                parameter.index = k;
            }
        }
        if (parameter.index < 0) {
            PyErr_Format(PyExc_ValueError, "%U: %U is neither an operand nor a constant",
                         self->name, parameter.name);
            return -1;
        }
    }
    return 0;
}

const Variant* find_variant(const char* name) {
    static Variant variants[3];
    static const int n = find_variants(variants);
    for (int i = 0; i < n; ++i) {
        if (variants[i].is_supported && strcmp(variants[i].name, name) == 0) return &variants[i];
    }
    return nullptr;
}

PyObject* make_operation(PyObject*, PyObject* args) {
    PyObject *name, *parameters, *operands, *constants, *reference;
    const char* variant;
    int kind;
    if (!PyArg_ParseTuple(args, "sUiO!O!O!O", &variant, &name, &kind, &PyTuple_Type, &parameters,
                          &PyTuple_Type, &operands, &PyTuple_Type, &constants, &reference)) {
        return nullptr;
    }
    const Variant* chosen = find_variant(variant);
    const XpnEntry* entry = chosen ? chosen->entries : nullptr;
    const char* row = PyUnicode_AsUTF8(name);
    if (!row) return nullptr;
    while (entry && entry->name && strcmp(entry->name, row) != 0) ++entry;
    if (!entry || !entry->name) {
        return PyErr_Format(PyExc_ValueError, "there is no loop %U for %s here", name, variant);
    }
    Operation* self = PyObject_New(Operation, operation_type);
    if (!self) return nullptr;
    memset(reinterpret_cast<char*>(self) + sizeof(PyObject), 0,
           sizeof(Operation) - sizeof(PyObject));
    self->vectorcall = call_operation;
    Py_INCREF(name);
    self->name = name;
    Py_INCREF(reference);
    self->reference = reference;
    self->kind = static_cast<Kind>(kind);
    self->loops[0] = entry->float_loop;
    self->loops[1] = entry->double_loop;
    if (read_operands(self, operands) < 0 || read_constants(self, constants) < 0 ||
        read_parameters(self, parameters) < 0) {
        if (!PyErr_Occurred()) PyErr_SetString(PyExc_ValueError, "too many operands or constants");
        Py_DECREF(self);
        return nullptr;
    }
    return reinterpret_cast<PyObject*>(self);
}

PyObject* supported_variants(PyObject*, PyObject*) {
    Variant variants[3];
    const int n = find_variants(variants);
    PyObject* names = PyList_New(0);
    for (int i = 0; names && i < n; ++i) {
        if (!variants[i].is_supported) continue;
        PyObject* name = PyUnicode_FromString(variants[i].name);
        if (!name || PyList_Append(names, name) < 0) Py_CLEAR(names);
        Py_XDECREF(name);
    }
    return names;
}

PyObject* random_words(PyObject*, PyObject* args) {
    const char* name;
    unsigned long long first, seed;
    npy_intp n;
    unsigned int layer, step, purpose;
    if (!PyArg_ParseTuple(args, "sKnKIII", &name, &first, &n, &seed, &layer, &step, &purpose)) {
        return nullptr;
    }
    const Variant* variant = find_variant(name);
    if (!variant || n < 0) {
        return PyErr_Format(PyExc_ValueError, "%zd words by %s cannot be had here", n, name);
    }
    PyObject* words = PyArray_SimpleNew(1, &n, NPY_UINT32);
    if (!words) return nullptr;
    variant->words(
        static_cast<unsigned int*>(PyArray_DATA(reinterpret_cast<PyArrayObject*>(words))), first,
        n, seed, layer, step, purpose);
    return words;
}

PyMethodDef functions[] = {
    {"make_operation", make_operation, METH_VARARGS,
     "make_operation(variant, name, kind, parameters, operands, constants, reference)"},
    {"random_words", random_words, METH_VARARGS,
     "random_words(variant, first, n, seed, layer, step, purpose): words of the Philox stream"},
    {"matmul", reinterpret_cast<PyCFunction>(reinterpret_cast<AnyFunction>(matmul)),
     METH_FASTCALL | METH_KEYWORDS, "matmul(A, B, out): the product of two matrices"},
    {"use_blas", use_blas, METH_VARARGS,
     "use_blas(sgemm, dgemm, sgemv, dgemv, get_threads, set_threads, is_64_bit): addresses"},
    {"use_threads", use_threads, METH_VARARGS,
     "use_threads(processors, most, forced): how work is cut, and how many threads take part"},
    {"use_memory", use_memory, METH_O,
     "use_memory(handler): how NumPy allocates arrays here; None means in large pages"},
    {"assume_far", assume_far, METH_O,
     "assume_far(far): for tests, where the team's threads are; None measures it"},
    {"count_threads", count_threads, METH_NOARGS, "How many threads may share a product."},
    {"shares_core", shares_core, METH_NOARGS,
     "Whether the processors of the team are one core; None where that cannot be found out."},
    {"supported_variants", supported_variants, METH_NOARGS,
     "The compiled variants that this processor can run, the best first."},
    {nullptr, nullptr, 0, nullptr},
};

PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "_host", "Loops over NumPy arrays, written from the catalogue.", -1,
    functions, nullptr, nullptr, nullptr, nullptr,
};

}  // namespace

// For threadpoolctl, which finds them by name (xpnet.kernels.blas).
extern "C" {
#if defined(__GNUC__)
#pragma GCC visibility push(default)
#endif
int xpnet_get_num_threads() { return get_limit(); }

void xpnet_set_num_threads(int n) { set_limit(n); }
#if defined(__GNUC__)
#pragma GCC visibility pop
#endif
}

PyMODINIT_FUNC PyInit__host() {
    if (PyArray_ImportNumPyAPI() < 0) return nullptr;
    PyObject* numpy = PyImport_ImportModule("numpy");
    numpy_matmul = numpy ? PyObject_GetAttrString(numpy, "matmul") : nullptr;
    Py_XDECREF(numpy);
    memory = make_memory();
    if (!numpy_matmul || !memory) return nullptr;
    prepare_for_forks();
    operation_type = reinterpret_cast<PyTypeObject*>(PyType_FromSpec(&operation_spec));
    PyObject* module = operation_type ? PyModule_Create(&definition) : nullptr;
    if (!module) return nullptr;
    if (PyModule_AddObjectRef(module, "Operation", (PyObject*)operation_type) < 0 ||
        PyModule_AddStringConstant(module, "digest", XPN_DIGEST) < 0 ||
        PyModule_AddStringConstant(module, "compiler", XPN_COMPILER) < 0) {
        Py_DECREF(module);
        return nullptr;
    }
    return module;
}
