"""Test equipment: the stand-in's functions, those that xpnet and its tests use and no others.

Each takes CuPy's arguments by CuPy's names, and what it lacks is an error.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_index

from tests.emulation import execution, memory
from tests.emulation.arrays import (
    assign,
    check_out,
    check_overlap,
    copy_from_host,
    elementwise,
    empty,
    host_view,
    ndarray,
    new_like,
    reduction,
    shares_memory,
)
from tests.emulation.dtypes import check_cast
from tests.emulation.execution import launch

__all__ = ["FUNCTIONS"]

_UFUNCS = [
    *("add", "subtract", "multiply", "divide", "power", "negative", "absolute", "sign"),
    *("exp", "expm1", "log", "log1p", "sqrt", "square", "tanh", "sin", "cos"),
    *("maximum", "minimum", "copysign", "floor", "isfinite", "isnan", "isinf"),
    *("equal", "not_equal", "less", "less_equal", "greater", "greater_equal"),
    *("logical_and", "logical_or", "logical_not"),
]
_DTYPES = [
    *("bool_", "uint8", "uint32", "uint64", "int8", "int32", "int64", "float32", "float64"),
    *("pi", "inf", "nan", "newaxis"),
]


def _ufunc(name: str) -> Callable[..., ndarray]:
    ufunc: Any = getattr(np, name)

    def call(*operands: Any, out: Any = None) -> ndarray:
        if len(operands) == ufunc.nin + 1 and out is None:
            *operands, out = operands  # type: ignore[assignment]
        if len(operands) != ufunc.nin:
            raise TypeError(f"Wrong number of arguments for 'cupy_{name}'")
        return elementwise(ufunc, operands, out)

    call.__name__ = name
    return call


def asarray(a: Any, dtype: Any = None) -> ndarray:
    return array(a, dtype, copy=None)


def array(obj: Any, dtype: Any = None, copy: bool | None = True) -> ndarray:
    if isinstance(obj, ndarray):
        if obj.device.id != execution.current_device():
            # CuPy copies from one device to the other (core.pyx, _array_from_cupy_ndarray).
            raise ValueError(f"an array of cuda:{obj.device.id} copied to another device unseen")
        dtype = obj.dtype if dtype is None else np.dtype(dtype)
        if copy is False and obj.dtype != dtype:  # core.pyx, _ndarray_base._astype
            raise ValueError("Unable to avoid copy while creating an array as requested.")
        return obj.astype(dtype, copy=bool(copy))
    if isinstance(obj, (list, tuple)) and any(isinstance(item, ndarray) for item in obj):
        # CuPy joins them on the device (core.pyx, _array_from_nested_cupy_sequence).
        raise TypeError("the stand-in makes no array of a list of arrays: use stack")
    host = np.asarray(obj, dtype=dtype)
    if not host.ndim:  # which is no copy (core.pyx, _array_default)
        made = empty((), host.dtype)
        made.fill(host[()])
        return made
    host = np.asarray(host, host.dtype.newbyteorder("="))
    # It lies in memory as on the host (core.pyx, _array_default).
    is_turned = host.flags.f_contiguous and not host.flags.c_contiguous
    target = empty(host.shape[::-1], host.dtype).T if is_turned else empty(host.shape, host.dtype)
    copy_from_host(target, host)
    return target


def ascontiguousarray(a: Any, dtype: Any = None) -> ndarray:
    dtype = host_view(a).dtype if dtype is None else np.dtype(dtype)
    made: ndarray = a if a.ndim else a.reshape(1)
    if made.flags.c_contiguous and made.dtype == dtype:
        return made
    target = empty(made.shape, dtype)
    assign(target, made)
    return target


def asnumpy(a: Any) -> Any:
    return a.get() if isinstance(a, ndarray) else np.asarray(a)


def _filled(shape: Any, value: Any, dtype: Any) -> ndarray:
    made = empty(shape, dtype)
    made.fill(value)
    return made


def zeros(shape: Any, dtype: Any = float) -> ndarray:
    return _filled(shape, 0, dtype)


def ones(shape: Any, dtype: Any = float) -> ndarray:
    return _filled(shape, 1, dtype)


def full(shape: Any, fill_value: Any, dtype: Any = None) -> ndarray:
    if dtype is None:
        dtype = fill_value.dtype if isinstance(fill_value, ndarray) else np.array(fill_value).dtype
    return _filled(shape, fill_value, dtype)


def empty_like(prototype: ndarray, dtype: Any = None) -> ndarray:
    host_view(prototype)
    return new_like(prototype, prototype.dtype if dtype is None else dtype)


def zeros_like(a: ndarray, dtype: Any = None) -> ndarray:
    return full_like(a, 0, dtype)


def ones_like(a: ndarray, dtype: Any = None) -> ndarray:
    return full_like(a, 1, dtype)


def full_like(a: ndarray, fill_value: Any, dtype: Any = None) -> ndarray:
    made = empty_like(a, dtype)
    made.fill(fill_value)
    return made


def arange(start: Any, stop: Any = None, step: Any = 1, dtype: Any = None) -> ndarray:
    start, stop = (0, start) if stop is None else (start, stop)
    values = np.arange(start, stop, step, dtype=dtype)
    made = empty(values.shape, values.dtype)
    view = made._view
    launch("arange", lambda: np.copyto(view, values), [], [made])
    return made


def broadcast(*arrays: Any) -> SimpleNamespace:
    return SimpleNamespace(shape=np.broadcast_shapes(*(np.shape(host_view(a)) for a in arrays)))


def broadcast_to(array: ndarray, shape: Any) -> ndarray:
    # Written to, it raises; CuPy's can be, and its elements are one (broadcast_to of
    # _routines_manipulation.pyx).
    return array._viewed(np.broadcast_to(host_view(array), shape))


def where(condition: Any, x: Any = None, y: Any = None) -> Any:
    if x is None or y is None:
        # Of one argument, the host waits for the number of elements (_routines_indexing.pyx,
        # _ndarray_nonzero).
        raise NotImplementedError("the stand-in has no where of one argument, which synchronises")
    chosen = host_view(condition)  # CuPy asks it for astype (cupy/_sorting/search.py, where)
    given = [item._view if isinstance(item, ndarray) else item for item in (x, y)]
    for item in (x, y):
        if not isinstance(item, (ndarray, bool, int, float, np.generic)):
            raise TypeError(f"Unsupported type {type(item)}")
    dtype = np.result_type(*(getattr(item, "dtype", item) for item in given))
    given = [np.array(item, dtype) if np.isscalar(item) else item for item in given]
    made = empty(np.broadcast_shapes(chosen.shape, *map(np.shape, given)), dtype)
    arrays = [item for item in (condition, x, y) if isinstance(item, ndarray)]
    view = made._view
    launch("where", lambda: np.copyto(view, np.where(chosen, *given)), arrays, [made])
    return made


def clip(a: ndarray, a_min: Any, a_max: Any, out: Any = None) -> ndarray:
    host_view(a)
    low = elementwise(np.maximum, (a, a_min), out)
    return elementwise(np.minimum, (low, a_max), low)


def matmul(a: ndarray, b: ndarray, out: Any = None) -> ndarray:
    """Multiply through cuBLAS, as cupy/_core/_routines_linalg.pyx, matmul does."""
    # cupy_backends/cuda/libs/cublas.pyx, setStream
    execution.forbid_in_capture(
        "calling cuBLAS API during stream capture is currently unsupported", NotImplementedError
    )
    A, B = host_view(a), host_view(b)
    dtype = np.result_type(A, B)
    if dtype.char not in "fd":
        raise NotImplementedError(f"the stand-in multiplies no matrices of {dtype}")
    shape = _product_shape(A.shape, B.shape)
    for item in (a, b):
        # What cuBLAS cannot read as it lies is copied: for two axes everything that is neither
        # C- nor F-contiguous (dot, _mat_to_cublas_contiguous), for more also a transposed view.
        flags = item.flags
        if item.dtype != dtype or not (
            flags.c_contiguous or (flags.f_contiguous and item.ndim == 2)
        ):
            memory.alloc(item.size * dtype.itemsize)
    if shape == (1, 1):  # an inner product is no product of cuBLAS's (_routines_linalg.pyx, dot)
        memory.alloc(max(a.size, 1) * dtype.itemsize)
    target = empty(shape, dtype) if out is None else out
    if out is not None:
        check_out(out, shape)
        check_cast(dtype, out.dtype)  # cupy/linalg/_product.py, matmul, a _GUFunc
        check_overlap("matmul", out, [a, b], may_be_same=False)
        if out.dtype != dtype or not out.flags.c_contiguous:
            memory.alloc(out.size * dtype.itemsize)  # the result, which is copied to out
    view = target._view
    launch("matmul", lambda: _multiply(A, B, view, dtype), [a, b], [target])
    return target


def _product_shape(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape of a product (_routines_linalg.pyx, matmul and dot)."""
    if not a or not b:
        raise ValueError("Scalar operands are not allowed, use '*' instead")
    if a[-1] != b[-2:][0]:
        raise ValueError(f"Axis dimension mismatch: {a} and {b}")
    return (*np.broadcast_shapes(a[:-2], b[:-2]), *a[-2:-1], *b[1:][-1:])


def _multiply(A: Any, B: Any, out: Any, dtype: Any) -> None:
    out[...] = np.matmul(A, B, dtype=dtype)


def take(a: ndarray, indices: Any, axis: Any = None, out: Any = None) -> ndarray:
    view = host_view(a)
    if isinstance(indices, ndarray):
        if indices.dtype.kind not in "biu":
            raise TypeError(f"indices must be integers, got {indices.dtype}")
        plain, reads = indices._view, [a, indices]
    elif isinstance(indices, (int, np.integer)) and not isinstance(indices, bool):
        plain, reads = indices, [a]
    else:
        # CuPy copies it to the GPU (cupy/_core/_routines_indexing.pyx, _take).
        raise TypeError(f"Unsupported type {type(indices)}")
    axis = axis if axis is None else normalize_axis_index(axis, a.ndim)
    before, after = ((), ()) if axis is None else (a.shape[:axis], a.shape[axis + 1 :])
    shape = (*before, *np.shape(plain), *after)
    target = empty(shape, a.dtype) if out is None else out
    if out is not None:
        # cupy/_core/_routines_indexing.pyx, _take
        if host_view(out).dtype != a.dtype:
            raise TypeError("Output dtype mismatch")
        if out.shape != shape:
            raise ValueError("Output shape mismatch")
        if any(shares_memory(item, out) for item in reads):
            raise ValueError("take: an operand and the result overlap")

    chosen = target._view

    def work() -> None:
        # CuPy wraps an index that is out of range, and goes on with another row.
        chosen[...] = np.take(view, plain, axis=axis, mode="raise")

    launch("take", work, reads, [target])
    return target


def take_along_axis(a: ndarray, indices: ndarray, axis: int) -> ndarray:
    view, plain = host_view(a), host_view(indices)
    made = empty(
        np.take_along_axis(np.empty(view.shape, "?"), _in_range(plain), axis).shape, a.dtype
    )
    target = made._view
    launch(
        "take_along_axis",
        lambda: np.copyto(target, np.take_along_axis(view, plain, axis)),
        [a, indices],
        [made],
    )
    return made


def _in_range(indices: Any) -> Any:
    return np.zeros_like(indices)


def stack(tup: Any, axis: int = 0) -> ndarray:
    return _joined(np.stack, tup, axis)


def concatenate(tup: Any, axis: int = 0) -> ndarray:
    return _joined(np.concatenate, tup, axis)


def _joined(function: Any, tup: Any, axis: int) -> ndarray:
    arrays = list(tup)
    views = [host_view(item) for item in arrays]
    made = empty(
        function([np.empty(view.shape, "?") for view in views], axis=axis).shape,
        np.result_type(*views),
    )
    target = made._view
    launch(function.__name__, lambda: np.copyto(target, function(views, axis=axis)), arrays, [made])
    return made


def sort(a: ndarray, axis: int = -1) -> ndarray:
    # Thrust asks for memory (cupy/_core/_routines_sorting.pyx, _ndarray_sort).
    execution.forbid_in_capture("sorting while a stream captures")
    view = host_view(a)
    axis = normalize_axis_index(axis, a.ndim)
    made = empty(a.shape, a.dtype)
    target = made._view
    launch("sort", lambda: np.copyto(target, np.sort(view, axis)), [a], [made])
    return made


def copyto(dst: ndarray, src: Any) -> None:
    # cupy/_manipulation/basic.py, copyto
    check_cast(host_view(src).dtype, host_view(dst).dtype)
    assign(dst, src)


def _reducing(name: str, *, has_dtype: bool = False) -> Callable[..., ndarray]:
    function = getattr(np, name)

    def call(
        a: Any, axis: Any = None, *more: Any, out: Any = None, keepdims: bool = False, **k: Any
    ):
        if more or not set(k) <= ({"dtype"} if has_dtype else set()):
            raise TypeError(f"{name}: the stand-in takes axis, out and keepdims, got {more} {k}")
        return reduction(function, a, axis, out, keepdims, k.get("dtype"))

    call.__name__ = name
    return call


FUNCTIONS: dict[str, Any] = {
    **{name: _ufunc(name) for name in _UFUNCS},
    **{name: getattr(np, name) for name in _DTYPES},
    **{name: _reducing(name) for name in ("max", "min", "all", "any", "argmax", "argmin")},
    **{name: _reducing(name, has_dtype=True) for name in ("sum", "mean")},
    **{
        function.__name__: function
        for function in (
            *(array, arange, asarray, ascontiguousarray, asnumpy, broadcast),
            *(broadcast_to, clip, concatenate, copyto, empty, empty_like, full, full_like, matmul),
            *(ones, ones_like, sort, stack, take, take_along_axis, where, zeros, zeros_like),
        )
    },
    "abs": _ufunc("absolute"),
}
