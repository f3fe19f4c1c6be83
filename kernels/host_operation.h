// An operation, as its row of the catalogue describes it, and the state of one call.

#pragma once

#include "host_loops.h"
#include "host_numpy.h"

namespace {

const int MAX_PARAMETERS = 16;
const int MAX_DIMENSIONS = 16;
const npy_intp CACHE_LINE = 64;  // bytes

enum Kind { ELEMENTWISE, COLUMN_REDUCE, ROWWISE, GATHER, RESAMPLED };
enum Layout { EACH, COLUMN, ROW, SINGLE };
enum Use { IN, INOUT, OUT };

struct OperandSpec {
    PyObject* name;
    int type;  // a NumPy type number, or NPY_NOTYPE for the type T
    Layout layout;
    Use use;
    bool is_optional;
};

struct ConstantSpec {
    PyObject* name;
    int bits;  // bits of an integer; 0 for a real number, 1 for a real number in [0, 1)
};

struct Parameter {
    PyObject* name;  // interned
    bool is_required, may_be_none, is_operand;
    int index;
    double otherwise;  // default value of a constant
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
    bool reads_columns;  // whether a column's index matters, so that rows cannot be merged
    bool has_columns;    // whether an operand has one value for each column
    int total;           // the operand for the sum of each column
    int height, width;   // constants: the size of an image
    Parameter parameters[MAX_PARAMETERS];
    OperandSpec operands[XPN_MAX_OPERANDS];
    ConstantSpec constants[XPN_MAX_CONSTANTS];
};

// An operand, broadcast to the shape of the result.
struct View {
    PyArrayObject* array;  // null for None
    char* data;
    npy_intp itemsize;
    npy_intp strides[MAX_DIMENSIONS];
};

// Objects that a call owns.
struct Call {
    PyObject* owned[2 * XPN_MAX_OPERANDS];
    int n_owned = 0;
    // Outputs that are computed in other arrays and copied at the end.
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

}  // namespace
