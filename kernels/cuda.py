"""The fused operations on CUDA: compiles CuPy kernels at first use and launches them.

=============== ==================================================================================
elementwise     large contiguous arrays: a thread for every four elements; otherwise a thread for
                each element, with CuPy's broadcasting
dropout         a thread for each block of four random words, and so for up to four elements
gather          a thread for each element of the result, or for every four
rowwise         a warp for each row
resampled       a thread for each element of the result, which draws its row's random numbers
column-reduce   without the sum: as elementwise. With it, several threads share the rows of each
                column, and a second kernel adds up their sums; if there are few numbers, a warp
                goes down each column instead. There are no atomic operations, so two runs give
                the same bits
=============== ==================================================================================
"""

from __future__ import annotations

import functools
import inspect
import math
import threading
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, TypeAlias

from xpnet.kernels import cuda_source as source
from xpnet.kernels.catalogue import (
    CATALOGUE,
    ColumnReduce,
    Constant,
    Operand,
    Resampled,
    Row,
    Rowwise,
)
from xpnet.kernels.cuda_launch import block_size, is_by_warp, n_multiprocessors, n_splits
from xpnet.kernels.cuda_source import KernelSpec
from xpnet.kernels.reference import Array, ReferenceOps
from xpnet.kernels.streams import owner_of_memory

__all__ = ["check_array", "fused"]

Given: TypeAlias = Mapping[str, Any]  # the arguments of a call, by name

_WARP = 32
_WORD = 2**32
# From this many elements a thread has four: measured as faster on an H200.
_MANY = 2**15


def fused(cupy: ModuleType) -> dict[str, Callable[..., Any]]:
    """Return the operations that have kernels.

    Parameters
    ----------
    cupy : module
        CuPy, or a stand-in for it.

    Returns
    -------
    dict of str to callable
        Operations by name, with the signatures of the methods of
        :class:`~xpnet.kernels.reference.ReferenceOps`. They also raise TypeError if an operand is
        not a CuPy array or has a wrong dtype, and ValueError if a shape is wrong or too large.
    """
    reference = ReferenceOps(cupy)
    return {row.name: _operation(cupy, row, reference) for row in CATALOGUE}


def check_array(cupy: ModuleType, operation: str, name: str, value: Any) -> None:
    """Raise TypeError if an operand is not a CuPy array."""
    if not isinstance(value, cupy.ndarray):
        kind = type(value)
        raise TypeError(
            f"{operation}: {name} must be a CuPy array, got {kind.__module__}.{kind.__qualname__}"
        )


def _operation(cupy: ModuleType, row: Row, reference: ReferenceOps) -> _Operation:
    if isinstance(row, Rowwise):
        return _RowwiseOperation(cupy, row, reference)
    if isinstance(row, ColumnReduce):
        return _ColumnOperation(cupy, row, reference)
    if isinstance(row, Resampled):
        return _ResampledOperation(cupy, row, reference)
    if source.is_plain(row):
        return _ElementwiseOperation(cupy, row, reference)
    kind = _WordsOperation if source.uses_words(row) else _GatherOperation
    return kind(cupy, row, reference)


class _Operation:
    """An operation with kernels, called like the reference's method."""

    def __init__(self, cupy: ModuleType, row: Row, reference: ReferenceOps) -> None:
        self.cupy = cupy
        self.row = row
        self.method = getattr(reference, row.name)
        functools.update_wrapper(self, self.method)  # the name, the docstring and the signature
        self.signature = inspect.signature(self.method)
        self.parameters = tuple(self.signature.parameters)
        self.defaults = {
            name: parameter.default
            for name, parameter in self.signature.parameters.items()
            if parameter.default is not parameter.empty
        }
        self.formulas = {
            item.name: compile(item.formula, f"{row.name}: {item.name}", "eval")
            for item in row.numbers
            if item.formula is not None
        }
        self.constants = source.passed_constants(row)
        self.inputs, self.outputs = source.by_use(row)
        self.made: dict[object, Any] = {}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        given = dict(zip(self.parameters, args, strict=False)) | kwargs
        n_given = len(given)
        given = self.defaults | given
        if n_given != len(args) + len(kwargs) or given.keys() != self.signature.parameters.keys():
            self.signature.bind(*args, **kwargs)  # raises the TypeError of any such call
        return self.run(given)

    def run(self, given: Given) -> Any:
        """Check the arguments and launch the kernels."""
        raise NotImplementedError

    def kernel(self, variant: object, make: Callable[[], KernelSpec]) -> Any:
        """Return a kernel, made at the first request."""
        if variant not in self.made:  # two threads may both make it; either kernel works
            self.made[variant] = make().make(self.cupy)
        return self.made[variant]

    def check_arrays(self, given: Given) -> None:
        """Raise TypeError if an operand is not an array, or has a wrong dtype."""
        first: tuple[str, Any] | None = None
        for operand in (*self.inputs, *self.outputs):
            name, array = operand.name, given[operand.name]
            if array is None and (operand.optional or name in self.defaults):
                continue
            check_array(self.cupy, self.row.name, name, array)
            if operand.type != "T":
                self._check_integer(operand, array.dtype)
            elif first is None:
                if array.dtype.char not in "fd":
                    raise TypeError(
                        f"{self.row.name}: {name} must be float32 or float64, got {array.dtype}"
                    )
                first = name, array.dtype
            elif array.dtype != first[1]:
                raise TypeError(
                    f"{self.row.name}: {name} must be {first[1]} like {first[0]}, got {array.dtype}"
                )

    def _check_integer(self, operand: Operand, dtype: Any) -> None:
        # Inputs may be integers of any size; they are converted.
        if operand.use == "in" and dtype.kind in "iu":
            return
        if dtype != operand.type:
            expected = "integers" if operand.use == "in" else operand.type
            raise TypeError(f"{self.row.name}: {operand.name} must be {expected}, got {dtype}")

    def numbers(self, given: Given) -> list[Any]:
        """Return the constants in the order of the kernel's parameters.

        They are Python numbers, and formulas are computed in double precision. CuPy rounds them to
        the types of the parameters.
        """
        for item in self.row.numbers:
            if item.type == "fraction" and not 0 <= given[item.name] < 1:
                raise ValueError(f"{item.name} must lie in [0, 1), got {given[item.name]}")
        values: list[Any] = []
        for item in self.constants:
            if item.name in self.formulas:
                # The formula comes from the catalogue, and sees only these numbers.
                value = eval(self.formulas[item.name], {"__builtins__": {}}, dict(given))  # noqa: S307
            else:
                value = given[item.name]
            is_real = item.type in ("T", "double")
            values.append(float(value) if is_real else self._integer(item, int(value)))
        return values

    def _integer(self, item: Constant, value: int) -> int:
        bits = {"uint32": 32, "int64": 63, "uint64": 64}[item.type]
        if not 0 <= value < 2**bits:
            raise ValueError(f"{item.name} must lie in [0, 2**{bits}), got {value}")
        return value

    def readable(self, operand: Operand, array: Array) -> Array:
        """Return an input as a raw kernel reads it: C-contiguous and of the declared type."""
        if operand.type != "T":
            array = array.astype(operand.type, copy=False)
        return self.cupy.ascontiguousarray(array)

    def writable(self, name: str, array: Array | None, shape: tuple[int, ...], dtype: Any) -> Array:
        """Return a C-contiguous array for a raw kernel's output: the output itself if possible."""
        if array is not None:
            if array.shape != shape:
                raise ValueError(
                    f"{self.row.name}: {name} must have shape {shape}, got {array.shape}"
                )
            if array.flags.c_contiguous:
                return array
        return self.cupy.empty(shape, dtype)

    def check_singles(self, given: Given) -> None:
        """Raise ValueError if an operand that must be a single number is not."""
        for operand in self.inputs:
            if operand.layout == "single" and given[operand.name].size != 1:
                raise ValueError(
                    f"{self.row.name}: {operand.name} must have one element, "
                    f"got shape {given[operand.name].shape}"
                )

    def check_count(self, what: str, n: int, limit: int) -> None:
        """Raise ValueError if the kernel's integers would overflow."""
        if n >= limit:
            raise ValueError(f"{self.row.name}: there must be fewer than {limit} {what}, got {n}")


def _stored(buffer: Array, array: Array | None) -> Array:
    """Copy what a kernel wrote to the requested output, if that is another array."""
    if array is None or buffer is array:
        return buffer
    array[...] = buffer
    return array


class _ElementwiseOperation(_Operation):
    """An elementwise row. CuPy broadcasts the operands and allocates a result."""

    def __init__(self, cupy: ModuleType, row: Row, reference: ReferenceOps) -> None:
        super().__init__(cupy, row, reference)
        self.has_fours = source.goes_by_fours(row)
        layouts = {operand.layout for operand in self.inputs}
        self.has_columns = "column" in layouts
        self.has_rows = bool(layouts & {"column", "single"}) or source.has_decay(row)

    def run(self, given: Given) -> Any:
        self.check_arrays(given)
        outputs = [given[operand.name] for operand in self.outputs]
        if self._goes_by_fours(given):
            return self._run_by_fours(given, outputs)
        decay = self._decay(given, outputs[0]) if source.has_decay(self.row) else {}
        inputs = [_broadcastable(operand, given[operand.name]) for operand in self.inputs]
        numbers = self.numbers({**given, **decay})
        sizes = [outputs[0].shape[-1]] if decay else []
        # For an absent operand CuPy gets a number, and compiles the same text for it.
        kernel = self.kernel("only", lambda: source.elementwise(self.row, frozenset()))
        if len(outputs) == 1 and outputs[0] is None:
            return kernel(*inputs, *numbers, *sizes)
        buffers = [self.cupy.empty_like(outputs[0]) if out is None else out for out in outputs]
        kernel(*inputs, *numbers, *sizes, *buffers)
        return buffers[-1] if "out" in given else None

    def _goes_by_fours(self, given: Given) -> bool:
        """Return whether there are many contiguous elements, and nothing broadcasts."""
        if not self.has_fours:
            return False
        shape = given[self.inputs[0].name].shape
        n = math.prod(shape)
        if not _MANY <= n < _WORD - 4:
            return False
        own = {"each": shape, "column": (*shape[:-2], *shape[-1:]), "single": (*shape[:-1], 1)}
        for operand in (*self.inputs, *self.outputs):
            array = given[operand.name]
            if array is None:
                continue
            if array.shape != own[operand.layout] or not array.flags.c_contiguous:
                return False
            if operand.layout != "single" and array.data.ptr % 16:
                return False
        return not self.has_rows or shape[-1] % 4 == 0 or (shape[-1] == n and not self.has_columns)

    def _run_by_fours(self, given: Given, outputs: list[Array | None]) -> Any:
        absent = frozenset(item.name for item in self.inputs if given[item.name] is None)
        inputs = [given[item.name] for item in self.inputs if item.name not in absent]
        *stack, n_columns = inputs[0].shape
        n = inputs[0].size
        n_rows = stack[-1] if len(stack) > 1 else 0
        buffers = [self.cupy.empty_like(inputs[0]) if out is None else out for out in outputs]
        decay = {"n_decay": 0} if given.get("weight_decay") is None else {}
        numbers = self.numbers({**given, **decay})
        kernel = self.kernel(("by fours", absent), lambda: source.by_fours(self.row, absent))
        kernel(*inputs, *numbers, n, n_columns, n_rows, *buffers, size=-(-n // 4))
        return buffers[-1] if "out" in given else None

    def _decay(self, given: Given, param: Array) -> dict[str, int]:
        self.check_count("parameters", param.size, _WORD)
        return {"n_decay": 0 if given["weight_decay"] is None else given["n_decay"]}


def _broadcastable(operand: Operand, array: Array | None) -> Any:
    """Return an operand as CuPy broadcasts it, and 0 for an absent one."""
    if array is None:
        return 0
    if operand.layout == "column" and array.ndim > 1:
        return array[..., None, :]
    return array


class _WordsOperation(_Operation):
    """An elementwise row that reads random words."""

    def run(self, given: Given) -> Array:
        self.check_arrays(given)
        X, out = given["X"], given["out"]
        self.check_singles(given)
        self.check_count("elements", X.size, 4 * _WORD + 1)
        buffer = self.writable("out", out, X.shape, X.dtype)
        inputs = [self.readable(operand, given[operand.name]) for operand in self.inputs]
        kernel = self.kernel("only", lambda: source.words(self.row))
        kernel(*inputs, *self.numbers(given), X.size, buffer, size=-(-X.size // 4))
        return _stored(buffer, out)


class _GatherOperation(_Operation):
    """Gathers bytes as floats, and floats unchanged; CuPy handles the rest."""

    def run(self, given: Given) -> Array:
        X, out, divide_by = given["X"], given["out"], given["divide_by"]
        if self._is_of_numbers(given):
            self._launch_fours(given, [])
            return out
        if not self._is_of_bytes(X, out):
            return self.method(**given)
        self.check_arrays(given)
        shape = (*given["indices"].shape, *X.shape[1:])
        if out.shape != shape:
            raise ValueError(f"{self.row.name}: out must have shape {shape}, got {out.shape}")
        divisor = 1.0 if divide_by is None else float(divide_by)
        if out.flags.c_contiguous and _has_fours(X, out):
            self._launch_fours(given, [divisor])
            return out
        inputs = [self.readable(operand, given[operand.name]) for operand in self.inputs]
        kernel = self.kernel("only", lambda: source.gather(self.row))
        kernel(*inputs, divisor, math.prod(X.shape[1:]), out)
        return out

    def _launch_fours(self, given: Given, numbers: list[float]) -> None:
        X, indices, out = given["X"], given["indices"], given["out"]
        of_bytes = bool(numbers)
        kernel = self.kernel(
            ("fours", of_bytes), lambda: source.gather_fours(self.row, of_bytes=of_bytes)
        )
        X = self.cupy.ascontiguousarray(X)
        indices = self.cupy.ascontiguousarray(indices.astype("int64", copy=False))
        kernel(X, indices, *numbers, math.prod(X.shape[1:]), out, size=out.size // 4)

    def _is_of_numbers(self, given: Given) -> bool:
        """Return whether rows of floats are copied unchanged, directly to ``out``."""
        X, indices, out = given["X"], given["indices"], given["out"]
        if not all(isinstance(array, self.cupy.ndarray) for array in (X, indices, out)):
            return False
        return (
            X.dtype.char in "fd"
            and out.dtype == X.dtype
            and indices.dtype.kind in "iu"
            and given["divide_by"] is None
            and out.shape == (*indices.shape, *X.shape[1:])
            and X.flags.c_contiguous
            and out.flags.c_contiguous
            and out.size < _WORD
            and _has_fours(X, out)
        )

    def _is_of_bytes(self, X: Array, out: Array | None) -> bool:
        if not (isinstance(X, self.cupy.ndarray) and isinstance(out, self.cupy.ndarray)):
            return False
        return X.dtype == "uint8" and out.dtype.char in "fd" and out.size < _WORD


def _has_fours(X: Array, out: Array) -> bool:
    """Return whether rows of X can be read, and written to ``out``, four elements at a time."""
    if X.ndim < 2 or out.size == 0 or math.prod(X.shape[1:]) % 4:
        return False
    return bool(X.data.ptr % min(4 * X.itemsize, 16) == 0 and out.data.ptr % 16 == 0)


class _ResampledOperation(_Operation):
    """Images, in which each element comes from any pixels of its image."""

    row: Resampled

    def run(self, given: Given) -> Array:
        self.check_arrays(given)
        self.check_singles(given)
        X, out = given["X"], given["out"]
        n_columns = X.shape[-1] if X.ndim else 1
        height, width = int(given["height"]), int(given["width"])
        if height < 1 or width < 1 or n_columns % (height * width):
            raise ValueError(
                f"{self.row.name}: X must have a multiple of {height} x {width} columns, "
                f"got {n_columns}"
            )
        self.check_count("columns", n_columns, _WORD // 2)
        self.check_count("elements", X.size, _WORD)
        if out is not None and X.size and out.data.ptr == X.data.ptr:
            raise ValueError(f"{self.row.name}: out and X must not be the same array")
        buffer = self.writable("out", out, X.shape, X.dtype)
        inputs = [self.readable(operand, given[operand.name]) for operand in self.inputs]
        kernel = self.kernel("only", lambda: source.resampled(self.row))
        kernel(*inputs, *self.numbers(given), n_columns, buffer, size=X.size)
        return _stored(buffer, out)


class _RowwiseOperation(_Operation):
    """A warp for each row."""

    row: Rowwise

    def run(self, given: Given) -> Any:
        self.check_arrays(given)
        self.check_singles(given)
        first = next(operand for operand in self.inputs if operand.layout == "each")
        shape, dtype = given[first.name].shape, given[first.name].dtype
        absent = frozenset(
            item.name
            for item in (*self.inputs, *self.outputs)
            if item.optional and given[item.name] is None
        )
        present = [item for item in self.outputs if item.name not in absent]
        shapes = {
            "each": shape,
            "column": (*shape[:-2], shape[-1]),
            "row": shape[:-1],
            "single": (*shape[:-1], 1),
        }
        inputs = []
        for operand in self.inputs:
            if operand.name in absent:
                continue
            array, expected = given[operand.name], shapes[operand.layout]
            if operand.layout != "single" and array.shape != expected:
                raise ValueError(
                    f"{self.row.name}: {operand.name} must have shape {expected}, got {array.shape}"
                )
            inputs.append(self.readable(operand, array))
        buffers = [
            self.writable(item.name, given[item.name], shapes[item.layout], dtype)
            for item in present
        ]
        for what, n in zip(("columns", "rows"), shape[:-3:-1], strict=False):
            self.check_count(what, n, _WORD // 2)
        kernel = self.kernel(absent, lambda: source.rowwise(self.row, absent))
        _launch_rows(self.cupy, kernel, inputs, self.numbers(given), shape, buffers)
        stored = [
            _stored(buffer, given[item.name]) for item, buffer in zip(present, buffers, strict=True)
        ]
        of_name = dict(zip((item.name for item in present), stored, strict=True))
        return of_name.get("out")


def _launch_rows(
    cupy: ModuleType,
    kernel: Any,
    inputs: list[Array],
    numbers: list[Any],
    shape: tuple[int, ...],
    buffers: list[Array],
) -> None:
    n_all_rows = math.prod(shape[:-1])
    n_rows = shape[-2] if len(shape) > 1 else 1
    n_threads = n_all_rows * _WARP
    kernel(
        *inputs,
        *numbers,
        n_all_rows,
        n_rows,
        shape[-1],
        *buffers,
        size=n_threads,
        block_size=block_size(n_threads, n_multiprocessors(cupy)),
    )


class _ColumnOperation(_Operation):
    """A column-reduce: elementwise without the sum, otherwise in one or two kernels."""

    row: ColumnReduce

    def __init__(self, cupy: ModuleType, row: ColumnReduce, reference: ReferenceOps) -> None:
        super().__init__(cupy, row, reference)
        each = source.without_total(row)
        self.each = _ElementwiseOperation(cupy, each, reference)
        self.has_each = bool(each.writes)
        self.kept: dict[tuple[Any, ...], Array] = {}

    def run(self, given: Given) -> Array:
        total = given[self.row.total]
        if total is None and self.has_each:
            return self.each.run(given)
        self.check_arrays(given)
        first = next(operand for operand in self.inputs if operand.layout == "each")
        shape, dtype = given[first.name].shape, given[first.name].dtype
        if len(shape) < 2:
            raise ValueError(
                f"{self.row.name}: {first.name} must have rows and columns, got shape {shape}"
            )
        absent = frozenset(item.name for item in self.inputs if given[item.name] is None)
        inputs = [
            self._input(item, given, shape) for item in self.inputs if item.name not in absent
        ]
        outputs = self.each.outputs
        buffers = [self.writable(item.name, given[item.name], shape, dtype) for item in outputs]
        sums = self.writable(self.row.total, total, (*shape[:-2], shape[-1]), dtype)
        self._launch(absent, [*inputs, *self.numbers(given)], shape, buffers, sums)
        total = _stored(sums, total)
        stored = [
            _stored(buffer, given[item.name]) for item, buffer in zip(outputs, buffers, strict=True)
        ]
        return stored[0] if stored else total

    def _input(self, operand: Operand, given: Given, shape: tuple[int, ...]) -> Array:
        array = given[operand.name]
        own = {"column": (*shape[:-2], shape[-1]), "single": (*shape[:-1], 1)}
        if operand.layout in own:
            array = self.cupy.broadcast_to(array, own[operand.layout])
        elif array.shape != shape:
            raise ValueError(
                f"{self.row.name}: {operand.name} must have shape {shape}, got {array.shape}"
            )
        return self.readable(operand, array)

    def _buffer(self, shape: tuple[int, int], dtype: Any) -> Array:
        """Return a buffer between two kernels, so that repeated steps allocate no memory.

        It belongs to one thread and stream, because only there kernels run in the order of the
        calls. It is kept, because a captured graph may still use it.
        """
        stream, index = owner_of_memory(self.cupy), self.cupy.cuda.Device().id
        key = (threading.get_ident(), index, stream, shape, dtype)
        buffer = self.kept.get(key)
        if buffer is None:
            buffer = self.kept[key] = self.cupy.empty(shape, dtype=dtype)
        return buffer

    def release(self) -> None:
        """Free the buffers."""
        self.kept.clear()

    def _launch(
        self,
        absent: frozenset[str],
        arguments: list[Any],
        shape: tuple[int, ...],
        buffers: list[Array],
        sums: Array,
    ) -> None:
        *stack, n_rows, n_columns = shape
        n_networks = math.prod(stack)
        self.check_count("rows", n_rows, _WORD // 2)
        self.check_count("columns of all networks", n_networks * n_columns, _WORD // 2)
        multiprocessors = n_multiprocessors(self.cupy)
        n_arrays = sum(o.layout == "each" for o in (*self.inputs, *self.each.outputs))
        if is_by_warp(n_networks, n_rows, n_columns, n_arrays):
            n_shares, n_threads, shares = 0, sums.size * _WARP, sums
        else:
            n_shares = n_splits(n_networks, n_rows, n_columns, multiprocessors)
            n_threads = -(-sums.size * n_shares // _WARP) * _WARP
            shares = sums if n_shares == 1 else self._buffer((sums.size, n_shares), sums.dtype)
        kernel = self.kernel(absent, lambda: source.columns(self.row, absent))
        kernel(
            *arguments,
            n_rows,
            n_columns,
            sums.size,
            n_shares,
            *buffers,
            shares,
            size=n_threads,
            block_size=block_size(n_threads, multiprocessors),
        )
        if n_shares > 1:
            kernel = self.kernel("totals", lambda: source.rowwise(source.TOTALS, frozenset()))
            _launch_rows(self.cupy, kernel, [shares], [], shares.shape, [sums])
