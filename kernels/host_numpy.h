// Python's and NumPy's headers, with the versions of their interfaces.

#pragma once

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <structmember.h>

#define NPY_NO_DEPRECATED_API NPY_2_0_API_VERSION
#define NPY_TARGET_VERSION NPY_2_0_API_VERSION
#include <numpy/arrayobject.h>

namespace {

const npy_intp NOGIL_ELEMENTS = 8192;  // from this size on the GIL is released

}  // namespace
