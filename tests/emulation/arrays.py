"""Test equipment: the stand-in's ndarray.

The numbers lie in memory that no one else may look at; :func:`host_view` is for the equipment
alone. What CuPy refuses is refused, and so is what it would let pass although it hides a copy or a
wait.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_tuple

from tests.emulation import execution, memory
from tests.emulation.dtypes import check_cast, check_dtype, is_weak, resolve_dtypes
from tests.emulation.execution import launch

__all__ = ["elementwise", "empty", "host_view", "ndarray", "reduction"]


class ndarray:  # noqa: N801  (its name in CuPy)
    """As ``cupy.ndarray``."""

    __slots__ = ("__weakref__", "_allocation", "_view")
    __module__ = "cupy"
    __hash__ = None  # type: ignore[assignment]
    __array_priority__ = 100

    _allocation: memory.Allocation
    _view: Any

    def __init__(self, shape: Any, dtype: Any = float, memptr: Any = None) -> None:
        shape = (shape,) if isinstance(shape, (int, np.integer)) else tuple(shape)
        if min(shape, default=0) < 0:  # cupy/_core/core.pyx, _ndarray_base._init
            raise ValueError("Negative dimensions are not allowed")
        dtype = check_dtype(dtype)
        size = math.prod(shape) * dtype.itemsize
        pointer = memory.alloc(size) if memptr is None else memptr
        start = pointer.ptr - pointer.mem._start
        self._allocation = pointer.mem
        self._view = pointer.mem._bytes[start : start + size].view(dtype).reshape(shape)

    @classmethod
    def _of(cls, view: Any, allocation: memory.Allocation) -> ndarray:
        made = cls.__new__(cls)
        made._view, made._allocation = view, allocation
        return made

    def _viewed(self, view: Any) -> ndarray:
        return self._of(view, self._allocation)

    # What needs no device.

    @property
    def shape(self) -> tuple[int, ...]:
        return self._view.shape  # type: ignore[no-any-return]

    @property
    def dtype(self) -> Any:
        return self._view.dtype

    @property
    def ndim(self) -> int:
        return self._view.ndim  # type: ignore[no-any-return]

    @property
    def size(self) -> int:
        return self._view.size  # type: ignore[no-any-return]

    @property
    def nbytes(self) -> int:
        return self._view.nbytes  # type: ignore[no-any-return]

    @property
    def itemsize(self) -> int:
        return self._view.itemsize  # type: ignore[no-any-return]

    @property
    def strides(self) -> tuple[int, ...]:
        return self._view.strides  # type: ignore[no-any-return]

    @property
    def flags(self) -> SimpleNamespace:
        flags = self._view.flags
        return SimpleNamespace(c_contiguous=flags.c_contiguous, f_contiguous=flags.f_contiguous)

    @property
    def device(self) -> execution.Device:
        return execution.Device(self._allocation.device)

    @property
    def data(self) -> memory.MemoryPointer:
        return memory.MemoryPointer(self._allocation, _address(self) - self._allocation._start)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        # cupy/_core/core.pyx, _ndarray_base.__cuda_array_interface__
        return {
            "shape": self.shape,
            "typestr": self.dtype.str,
            "descr": self.dtype.descr,
            "stream": execution.get_current_stream().ptr or 1,
            "version": 3,
            "strides": None if self.flags.c_contiguous else self.strides,
            "data": (self.data.ptr if self.size else 0, False),
        }

    def __len__(self) -> int:
        return len(self._view)

    # Views.

    @property
    def T(self) -> ndarray:  # noqa: N802
        return self._viewed(self._view.T)

    def swapaxes(self, first: int, second: int) -> ndarray:
        return self._viewed(self._view.swapaxes(first, second))

    def transpose(self, *axes: Any) -> ndarray:
        return self._viewed(self._view.transpose(*axes))

    def reshape(self, *shape: Any) -> ndarray:
        view = self._view.reshape(*shape)
        if np.may_share_memory(view, self._view) or not view.size:
            return self._viewed(view)
        return self.copy().reshape(*shape)

    def ravel(self) -> ndarray:
        return self.reshape(-1)

    def view(self, dtype: Any) -> ndarray:
        return self._viewed(self._view.view(check_dtype(dtype)))

    # Copies.

    def copy(self, order: str = "C") -> ndarray:
        assert order == "C"
        return _assigned(empty(self.shape, self.dtype), self)

    __copy__ = copy

    def __deepcopy__(self, memo: Any) -> ndarray:
        return self.copy()

    def astype(self, dtype: Any, order: str = "K", *, copy: bool = True) -> ndarray:
        assert order == "K"
        if not copy and self.dtype == dtype:
            return self
        return _assigned(new_like(self, dtype), self)

    def fill(self, value: Any) -> None:
        """Set every element to a number (core.pyx, _ndarray_base.fill)."""
        if isinstance(value, ndarray):
            if value.ndim:
                raise ValueError("non-scalar cupy.ndarray cannot be used for fill")
            assign(self, value)
            return
        view, number = self._view, np.array(_operand(value), self.dtype)
        launch("fill", lambda: _store(view, number), [], [self])

    def get(self) -> Any:
        """Copy to the host."""
        if not self.size:  # core.pyx, _ndarray_base.get, looks no further
            return np.empty(self.shape, self.dtype)
        return self._read("ndarray.get")

    def set(self, array: Any) -> None:
        """Copy from the host (core.pyx, _ndarray_base.set)."""
        if not isinstance(array, np.ndarray):
            raise TypeError("Only numpy.ndarray can be set to cupy.ndarray")
        if array.dtype != self.dtype:
            raise TypeError(f"{array.dtype} array cannot be set to {self.dtype} array")
        if array.shape != self.shape:
            raise ValueError(f"Shape mismatch. Old shape: {self.shape}, new shape: {array.shape}")
        if not (self.flags.c_contiguous or self.flags.f_contiguous):
            raise RuntimeError("Cannot set to non-contiguous array")
        copy_from_host(self, array)

    def item(self) -> Any:
        # core.pyx, _ndarray_base.item
        if self.size != 1:
            raise ValueError("can only convert an array of size 1 to a Python scalar")
        return self._read("ndarray.item").item()

    def tolist(self) -> Any:
        return self._read("ndarray.tolist").tolist()

    def _read(self, what: str) -> Any:
        return execution.synchronized_read(what, self)

    # What makes the host wait without saying so. CuPy: cupy/_core/core.pyx, each through get(), and
    # an empty array is False with a warning.

    def __float__(self) -> float:
        return float(self._read("float()"))

    def __int__(self) -> int:
        return int(self._read("int()"))

    def __bool__(self) -> bool:
        if self.size != 1:
            raise ValueError(
                "The truth value of an array with more than one element is ambiguous. Use a.any() "
                "or a.all()"
            )
        return bool(self._read("bool()"))

    def __str__(self) -> str:
        return str(self._read("str()"))

    def __repr__(self) -> str:
        return repr(self._read("repr()"))

    def __format__(self, spec: str) -> str:
        return format(self._read("format()"), spec)

    # What is refused. There is no buffer either (core.pyx, _ndarray_base.__getbuffer__), and no
    # __index__.

    def __reduce__(self) -> Any:
        # core.pyx, _ndarray_base.__reduce__, copies to the host.
        raise TypeError("a CUDA array in a pickle: get() it first")

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        # core.pyx, _ndarray_base.__array__
        raise TypeError(
            "Implicit conversion to a NumPy array is not allowed. "
            "Please use `.get()` to construct a NumPy array explicitly."
        )

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        others = [item for item in inputs if not isinstance(item, ndarray)]
        is_operator = ufunc in _OPERATORS and method == "__call__" and not kwargs
        if is_operator and others and all(isinstance(item, np.generic) for item in others):
            return elementwise(ufunc, inputs)  # a NumPy scalar on the left
        kinds = ", ".join(type(item).__name__ for item in inputs)
        # CuPy hands numpy.exp(x) on to cupy.exp (core.pyx, _ndarray_base.__array_ufunc__), and
        # refuses where a NumPy array takes part. Mathematics that names NumPy is a mistake in both.
        raise TypeError(f"numpy.{ufunc.__name__} on a CUDA array ({kinds}): use the device's xp")

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        # CuPy: core.pyx, _ndarray_base.__array_function__, hands on as well.
        raise TypeError(f"numpy.{function.__name__} on a CUDA array: use the device's xp")

    def __iter__(self) -> Any:
        if not self.ndim:  # core.pyx, _ndarray_base.__iter__
            raise TypeError("iteration over a 0-d array")
        return (self[i] for i in range(len(self)))

    def __contains__(self, item: Any) -> bool:
        # CuPy has none, and Python falls back to __iter__, == and bool().
        raise TypeError("'in' on a CUDA array would read it element by element")

    # Elements.

    def __getitem__(self, key: Any) -> ndarray:
        index = _index(key)
        if not _is_advanced(index):
            found = self._view[index]
            return self._viewed(self._view[(*index, ...)] if np.isscalar(found) else found)
        arrays, plain = _plain(index)
        view = self._view
        result = empty(view[plain].shape, self.dtype)
        target = result._view
        launch("getitem", lambda: _store(target, view[plain]), [self, *arrays], [result])
        return result

    def __setitem__(self, key: Any, value: Any) -> None:
        index = _index(key)
        if not _is_advanced(index):
            found = self._view[(*index, ...)] if Ellipsis not in index else self._view[index]
            assign(self._viewed(found), value)
            return
        arrays, plain = _plain(index)
        view, source = self._view, _operand(value)
        np.broadcast_to(source, view[plain].shape)  # or it raises
        if isinstance(value, ndarray):
            arrays.append(value)
        else:
            source = np.array(source, self.dtype)
        check_overlap("setitem", self, arrays, may_be_same=False)

        def work() -> None:
            counts = np.zeros(view.shape, int)
            np.add.at(counts, plain, 1)
            if np.size(source) > 1 and counts.max(initial=0) > 1:
                # CuPy's user guide, Differences between CuPy and NumPy: which one stays is open.
                raise ValueError("setitem: an index that comes twice, with a value for each")
            view[plain] = source

        launch("setitem", work, arrays, [self])

    # Arithmetic and comparisons are added below.

    def sum(self, axis: Any = None, dtype: Any = None, out: Any = None, keepdims: Any = False):
        return reduction(np.sum, self, axis, out, keepdims, dtype)

    def mean(self, axis: Any = None, dtype: Any = None, out: Any = None, keepdims: Any = False):
        return reduction(np.mean, self, axis, out, keepdims, dtype)

    def max(self, axis: Any = None, out: Any = None, keepdims: Any = False):
        return reduction(np.max, self, axis, out, keepdims)

    def min(self, axis: Any = None, out: Any = None, keepdims: Any = False):
        return reduction(np.min, self, axis, out, keepdims)

    def all(self, axis: Any = None, out: Any = None, keepdims: Any = False):
        return reduction(np.all, self, axis, out, keepdims)

    def any(self, axis: Any = None, out: Any = None, keepdims: Any = False):
        return reduction(np.any, self, axis, out, keepdims)


def host_view(array: Any) -> Any:
    """Return the memory of an array, for the equipment."""
    if not isinstance(array, ndarray):  # cupy/_core/_scalar.pyx, CScalar.__init__
        raise TypeError(f"Unsupported type {type(array)}")
    return array._view


def empty(shape: Any, dtype: Any = float) -> ndarray:
    """Make an array of what happens to be in memory."""
    return ndarray(shape, float if dtype is None else dtype)


def new_like(array: ndarray, dtype: Any) -> ndarray:
    """Make an array whose axes lie in memory in the same order, as order="K" says."""
    axes = sorted(range(array.ndim), key=lambda axis: -abs(array.strides[axis]))
    made = empty([array.shape[axis] for axis in axes], dtype)
    return made.transpose(*np.argsort(axes).tolist()) if axes else made


def elementwise(ufunc: Any, operands: Any, out: Any = None) -> ndarray:
    """Call one of NumPy's ufuncs as CuPy's of that name would be called.

    Operands are arrays of the current device and scalars (cupy/_core/_kernel.pyx,
    _preprocess_args), types follow NumPy's rules (NEP 50; guess_routine), and ``out``, which takes
    part in the broadcast, has its shape and a type that the result's converts to
    (_get_out_args_from_optionals).
    """
    given = [_operand(item) for item in operands]
    types: list[Any] = [type(item) if is_weak(item) else np.asarray(item).dtype for item in given]
    *loop_dtypes, result_dtype = resolve_dtypes(ufunc, *types)
    if any(map(is_weak, given)):
        with np.errstate(all="ignore"):
            # A number becomes one of the loop's type at once (_scalar.pyx, CScalar.apply_dtype), or
            # it raises OverflowError, also where NumPy compares numbers that do not fit.
            given = [
                np.array(item, dtype) if is_weak(item) else item
                for item, dtype in zip(given, loop_dtypes, strict=True)
            ]
    shape = _broadcast(*map(np.shape, given))
    if out is None:
        out = empty(shape, result_dtype)
    else:
        shape = _broadcast(shape, host_view(out).shape)
        check_out(out, shape)
        check_cast(result_dtype, out.dtype)
    arrays = [item for item in operands if isinstance(item, ndarray)]
    check_overlap(ufunc.__name__, out, arrays)
    for item in arrays:
        is_apart = item is out or item._allocation is not out._allocation
        if not is_apart and np.may_share_memory(item._view, out._view):
            memory.alloc(item.nbytes)  # for a copy (_copy_in_args_if_needed)
    target = out._view
    launch(ufunc.__name__, lambda: ufunc(*given, out=target, casting="same_kind"), arrays, [out])
    return out  # type: ignore[no-any-return]


@functools.cache
def _broadcast(*shapes: tuple[int, ...]) -> tuple[int, ...]:
    return np.broadcast_shapes(*shapes)


def reduction(
    function: Any, array: Any, axis: Any, out: Any, keepdims: bool, dtype: Any = None
) -> ndarray:
    """Call one of NumPy's reductions as CuPy's of that name would be called."""
    more: dict[str, Any] = {} if dtype is None else {"dtype": dtype}
    view = host_view(array)
    name = function.__name__
    like = np.ones((1,) * view.ndim, view.dtype)
    result_dtype = function(like, **more).dtype
    # AxisError, or ValueError for one that comes twice (_reduction.pyx, _get_axis).
    axes = normalize_axis_tuple(range(view.ndim) if axis is None else axis, view.ndim)
    has_identity = name in ("sum", "mean", "all", "any")
    if not has_identity and any(view.shape[i] == 0 for i in axes):
        # _reduction.pyx, _AbstractReductionKernel._call
        raise ValueError(f"zero-size array to reduction operation cupy_{name}")
    shape = tuple(
        1 if i in axes else n for i, n in enumerate(view.shape) if keepdims or i not in axes
    )
    if out is None:
        out = empty(shape, result_dtype)
    else:
        check_out(out, shape)  # of any type (_reduction.pyx, _get_out_args)
        if name == "min":
            # _routines_statistics.pyx, _ndarray_min, takes out for a dtype where CUB reduces.
            raise TypeError("min(out=) does not work in CuPy 14.2")
        if name == "mean" and out.dtype.kind != "f":
            # _routines_statistics.pyx, _ndarray_mean, sums up in out, and cuts fractions off.
            raise TypeError(f"mean: out of {out.dtype}")
        check_overlap(name, out, [array], may_be_same=False)
    memory.alloc(1)  # CUB's workspace, also with out= (cupy/cuda/cub.pyx, device_reduce)

    target = out._view

    def work() -> None:
        target[...] = function(view, axis=axis, keepdims=keepdims, **more)

    launch(name, work, [array], [out])
    return out  # type: ignore[no-any-return]


def check_out(out: Any, shape: tuple[int, ...]) -> None:
    if host_view(out).shape != shape:
        raise ValueError(f"Out shape is mismatched: {out.shape} where the result has {shape}")


def check_overlap(
    name: str, out: ndarray, operands: list[ndarray], *, may_be_same: bool = True
) -> None:
    """Raise if an operand shares memory with the result in part.

    CuPy copies such an operand of a ufunc first (_kernel.pyx, _copy_in_args_if_needed), which asks
    for memory behind the caller's back, and lets it pass in an ElementwiseKernel and a reduction.
    """
    for item in operands:
        is_apart = item._allocation is not out._allocation
        if is_apart or (may_be_same and _is_same(item, out)):
            continue
        if shares_memory(item, out):
            raise ValueError(f"{name}: an operand and the result overlap in part")


def _is_same(a: ndarray, b: ndarray) -> bool:
    if _address(a) != _address(b):
        return False
    if a.flags.c_contiguous and b.flags.c_contiguous:  # of any shape: () becomes (1,) on the way
        return (a.nbytes, a.dtype) == (b.nbytes, b.dtype)
    return (a.shape, a.strides) == (b.shape, b.strides)


def _address(array: ndarray) -> int:
    return array._view.__array_interface__["data"][0]  # type: ignore[no-any-return]


def shares_memory(a: ndarray, b: ndarray) -> bool:
    """Return whether two arrays have an element in common."""
    if a._allocation is not b._allocation:
        return False
    shares: Any = np.shares_memory
    try:
        return bool(shares(a._view, b._view, max_work=10_000))
    except np.exceptions.TooHardError:
        return True


def _operand(value: Any) -> Any:
    """Return what NumPy computes with in place of an operand, or refuse it."""
    if isinstance(value, ndarray):
        return value._view
    if isinstance(value, (bool, int, float, complex, np.generic)):
        return value
    # cupy/_core/_scalar.pyx, CScalar.__init__
    raise TypeError(f"Unsupported type {type(value)}")


def _store(target: Any, source: Any) -> None:
    target[...] = source


def assign(target: ndarray, value: Any) -> None:
    """Copy into an array, converting and broadcasting (_routines_indexing.pyx, _scatter_op)."""
    if not isinstance(value, ndarray):
        target.fill(value)
        return
    source = _operand(value)
    np.broadcast_to(source, target.shape)  # or it raises
    check_overlap("copy", target, [value])
    view = target._view
    launch("copy", lambda: _store(view, source), [value], [target])


def _assigned(target: ndarray, value: Any) -> ndarray:
    assign(target, value)
    return target


def copy_from_host(target: ndarray, array: Any) -> None:
    # CuPy has no such rule. What changes from step to step is made on the device.
    execution.check_synchronize("a copy from the host")
    # cupy/cuda/memory.pyx, MemoryPointer.copy_from_host_async
    execution.forbid_in_capture("the current stream is capturing, so H2D transfers are disallowed")
    # The host may go on to change it: CuPy stages it in pinned memory (core.pyx, _array_default).
    view, own = target._view, array.copy()
    launch("copy from the host", lambda: _store(view, own), [], [target])


def _index(key: Any) -> tuple[Any, ...]:
    """Check an index, and make it a tuple."""
    index = key if isinstance(key, tuple) else (key,)
    for item in index:
        if isinstance(item, ndarray):
            if item.dtype.kind not in "biu":  # _routines_indexing.pyx, _prepare_slice_list
                raise IndexError("arrays used as indices must be of integer or boolean type.")
        elif isinstance(item, bool) or not (
            item is None or item is Ellipsis or isinstance(item, (int, np.integer, slice))
        ):
            # CuPy copies lists and NumPy arrays to the GPU here, which nobody sees, takes bool for
            # a mask, which synchronises, and cuts the fraction off a float
            # (_routines_indexing.pyx, _prepare_slice_list and _view_getitem).
            raise TypeError(f"Unsupported type {type(item)} as an index of a CUDA array")
    return index


def _plain(index: tuple[Any, ...]) -> tuple[list[ndarray], tuple[Any, ...]]:
    """Return the arrays of an index, and the index as NumPy takes it."""
    arrays = [item for item in index if isinstance(item, ndarray)]
    for item in arrays:
        if item.dtype == bool and item.size:
            # The host does not know how many elements there are, and asks the device, for reading
            # as for writing (_routines_indexing.pyx, _prepare_mask_indexing_single).
            item._read("a boolean mask")
    return arrays, tuple(item._view if isinstance(item, ndarray) else item for item in index)


def _is_advanced(index: tuple[Any, ...]) -> bool:
    return any(isinstance(item, ndarray) for item in index)


def _binary(ufunc: Any, *, is_reversed: bool = False) -> Callable[[ndarray, Any], ndarray]:
    def method(self: ndarray, other: Any) -> ndarray:
        return elementwise(ufunc, (other, self) if is_reversed else (self, other))

    return method


def _in_place(ufunc: Any) -> Callable[[ndarray, Any], ndarray]:
    def method(self: ndarray, other: Any) -> ndarray:
        return elementwise(ufunc, (self, other), out=self)

    return method


def _unary(ufunc: Any) -> Callable[[ndarray], ndarray]:
    return lambda self: elementwise(ufunc, (self,))


_ARITHMETIC: dict[str, Any] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "truediv": np.divide,
    "floordiv": np.floor_divide,
    "mod": np.remainder,
    "pow": np.power,
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "xor": np.bitwise_xor,
    "lshift": np.left_shift,
    "rshift": np.right_shift,
}
_COMPARISONS: dict[str, Any] = {
    "eq": np.equal,
    "ne": np.not_equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
}
_OPERATORS = {*_ARITHMETIC.values(), *_COMPARISONS.values()}
for _name, _ufunc in _ARITHMETIC.items():
    setattr(ndarray, f"__{_name}__", _binary(_ufunc))
    setattr(ndarray, f"__r{_name}__", _binary(_ufunc, is_reversed=True))
    setattr(ndarray, f"__i{_name}__", _in_place(_ufunc))
for _name, _ufunc in _COMPARISONS.items():
    setattr(ndarray, f"__{_name}__", _binary(_ufunc))
_UNARY: dict[str, Any] = {"neg": np.negative, "invert": np.invert, "abs": np.absolute}
for _name, _ufunc in _UNARY.items():
    setattr(ndarray, f"__{_name}__", _unary(_ufunc))
