// Reads and checks the arguments of a call, and broadcasts them to the shape of the result.

#pragma once

#include <string.h>

#include "host_operation.h"

namespace {

// ---------------------------------------------------------------------------------------------
// Arguments.

int read_constant(const Operation* self, int k, PyObject* value, XpnConstant* constant) {
    const ConstantSpec& spec = self->constants[k];
    if (spec.bits <= 1) {
        constant->real = PyFloat_AsDouble(value);
        constant->integer = 1;  // given
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

// Checks kinds and dtypes; sets the type number of T.
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
            PyErr_Format(PyExc_ValueError, "%U: %U must have at most %d dimensions, got %d",
                         self->name, spec.name, MAX_DIMENSIONS - 2, PyArray_NDIM(array));
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
            PyErr_Format(PyExc_ValueError, "%U: %U must be writeable, got a read-only array",
                         self->name, spec.name);
            return -1;
        }
        views[k].array = array;
    }
    return 0;
}

// The shape of an operand with axes for rows and columns: a value per column gets an axis for the
// rows, a value per row an axis for the columns.
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

// Broadcasts the inputs.
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

// Broadcasts an operand to the result: axes that it lacks or repeats have stride 0.
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
    // A single column is contiguous, and so is an empty array, whose strides NumPy sets to 0.
    if (n > 0 && (shape[n - 1] == 1 || PyArray_SIZE(array) == 0) &&
        (layout == EACH || layout == COLUMN)) {
        view->strides[n - 1] = view->itemsize;
    }
}

// The first byte of the memory of an array, and the byte after the last.
void extent(PyArrayObject* array, char** low, char** high) {
    *low = *high = PyArray_BYTES(array);
    for (int i = 0; i < PyArray_NDIM(array); ++i) {
        const npy_intp reach = (PyArray_DIM(array, i) - 1) * PyArray_STRIDE(array, i);
        *(reach < 0 ? low : high) += reach;
    }
    *high += PyArray_ITEMSIZE(array);
}

// Leading axes of length 1 are ignored.
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

// Whether two elements of a written array share memory: its axes, from the smallest stride on, must
// not reach into each other.
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
            PyErr_Format(PyExc_ValueError, "%U: %U must not overlap itself", self->name,
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
                         is_same ? "%U: %U and %U must not be the same array"
                                 : "%U: %U partly overlaps %U: operands must be the same array or "
                                   "share no memory",
                         self->name, self->operands[w].name, self->operands[k].name);
            return -1;
        }
    }
    return 0;
}

}  // namespace
