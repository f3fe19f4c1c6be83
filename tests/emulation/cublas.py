"""Test equipment: the functions of cuBLAS that xpnet calls, by their contract.

Arguments pass through ctypes's own conversion. Matrices are found at their addresses and read as
cuBLAS reads them, column by column with a leading dimension, and whatever lies outside of the
memory that was asked for is refused. NVIDIA, "cuBLAS library": cublasGemmEx and
cublasGemmStridedBatchedEx for the arguments, cublasSetStream and cublasSetWorkspace for the order
of the calls.
"""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

from tests.emulation import execution, memory

__all__ = ["Library", "tf32"]

VERSION = 130_000
SUCCESS, NOT_INITIALIZED, INVALID_VALUE, NOT_SUPPORTED = 0, 1, 7, 15
_TYPES = {0: np.dtype("float32"), 1: np.dtype("float64")}  # cudaDataType
_COMPUTES = {68: "float32", 77: "float32", 70: "float64"}  # cublasComputeType_t, of which numbers
_FAST_TF32 = 77
_SHAPE = ("handle", "transa", "transb", "m", "n", "k", "alpha")
_GEMM = (
    *_SHAPE,
    *("A", "Atype", "lda", "B", "Btype", "ldb", "beta", "C", "Ctype", "ldc"),
    *("computeType", "algo"),
)
_BATCHED = (
    *_SHAPE,
    *("A", "Atype", "lda", "strideA", "B", "Btype", "ldb", "strideB"),
    *("beta", "C", "Ctype", "ldc", "strideC"),
    *("batchCount", "computeType", "algo"),
)


@dataclass
class _Handle:
    device: int
    stream: int = 0
    workspace: tuple[int, int] | None = None  # where, and how many bytes


class _Function:
    """A function as ctypes has them: with prototype, and called with what fits it."""

    def __init__(self, call: Callable[..., int]) -> None:
        self._call = call
        self.argtypes: tuple[Any, ...] = ()
        self.restype: Any = None

    def __call__(self, *arguments: Any) -> int:
        if len(arguments) != len(self.argtypes) or self.restype is not ctypes.c_int:
            raise TypeError(f"{self._call.__name__}: {len(arguments)} arguments")
        return self._call(*map(_converted, self.argtypes, arguments))


def _converted(kind: Any, argument: Any) -> Any:
    """Return what C would see: a number, an address, or the object that is pointed to."""
    kind.from_param(argument)  # or TypeError
    if hasattr(argument, "_obj"):  # byref
        return argument._obj
    value = argument.value if isinstance(argument, kind) else argument
    if isinstance(value, int) and (kind(value).value or 0) != value:  # which ctypes would cut off
        raise OverflowError(f"{value} does not fit {kind.__name__}")
    return value


def tf32(X: Any) -> Any:
    """Round float32 numbers to 10 bits of mantissa, to nearest, as tensor cores read them."""
    bits = X.astype(np.float32).view(np.uint32)
    rounded = bits + np.uint32(0xFFF) + ((bits >> np.uint32(13)) & np.uint32(1))
    return np.where(np.isfinite(X), (rounded & np.uint32(0xFFFFE000)).view(np.float32), X)


class Library:
    """As what ``ctypes.CDLL`` gives for cuBLAS.

    Attributes
    ----------
    calls : list
        The arguments of every product, by name, as C sees them. Kept only where :attr:`is_noting`.
    """

    def __init__(self) -> None:
        self._handles: dict[int, _Handle] = {}
        self._numbers = itertools.count(0xB1A5)
        self.is_noting = False
        self.calls: list[dict[str, Any]] = []
        for name in (
            *("cublasCreate_v2", "cublasGetVersion_v2", "cublasSetStream_v2"),
            *("cublasSetWorkspace_v2", "cublasGemmEx", "cublasGemmStridedBatchedEx"),
        ):
            setattr(self, name, _Function(getattr(self, f"_{name}")))

    def _cublasCreate_v2(self, pointer: Any) -> int:  # noqa: N802
        # cublasCreate allocates, and must not be called while capturing.
        execution.forbid_in_capture("a handle of cuBLAS made while a stream captures")
        pointer.value = next(self._numbers)
        self._handles[pointer.value] = _Handle(execution.current_device())
        return SUCCESS

    def _cublasGetVersion_v2(self, handle: Any, pointer: Any) -> int:  # noqa: N802
        pointer.value = VERSION
        return SUCCESS if handle in self._handles else NOT_INITIALIZED

    def _cublasSetStream_v2(self, handle: Any, stream: Any) -> int:  # noqa: N802
        if handle not in self._handles:
            return NOT_INITIALIZED
        self._handles[handle].stream = stream or 0
        self._handles[handle].workspace = None
        return SUCCESS

    def _cublasSetWorkspace_v2(self, handle: Any, address: Any, n_bytes: int) -> int:  # noqa: N802
        if handle not in self._handles:
            return NOT_INITIALIZED
        found, offset = memory.allocation_at(address)
        if address % 256 or offset + n_bytes > found.size:
            return INVALID_VALUE
        self._handles[handle].workspace = address, n_bytes
        return SUCCESS

    def _cublasGemmEx(self, *given: Any) -> int:  # noqa: N802
        arguments = dict(zip(_GEMM, given, strict=True))
        one = {"strideA": 0, "strideB": 0, "strideC": 0, "batchCount": 1}
        return self._product({**arguments, **one}, arguments)

    def _cublasGemmStridedBatchedEx(self, *given: Any) -> int:  # noqa: N802
        arguments = dict(zip(_BATCHED, given, strict=True))
        return self._product(arguments, arguments)

    def _product(self, a: dict[str, Any], as_called: dict[str, Any]) -> int:
        if self.is_noting:
            self.calls.append(as_called)
        if a["handle"] not in self._handles:
            return NOT_INITIALIZED
        handle = self._handles[a["handle"]]
        m, n, k = a["m"], a["n"], a["k"]
        if min(m, n, k, a["batchCount"]) < 0 or not {a["transa"], a["transb"]} <= {0, 1}:
            return INVALID_VALUE
        dtype: Any = _TYPES.get(a["Ctype"])
        if dtype is None or {a["Atype"], a["Btype"]} != {a["Ctype"]}:
            return NOT_SUPPORTED
        if _COMPUTES.get(a["computeType"]) != dtype.name or a["algo"] != -1:
            return NOT_SUPPORTED
        expected = ctypes.c_float if dtype == np.float32 else ctypes.c_double
        alpha, beta = (
            ctypes.cast(_address(a[name]), ctypes.POINTER(expected)).contents.value
            for name in ("alpha", "beta")
        )
        shapes = {
            "A": (k, m) if a["transa"] else (m, k),
            "B": (n, k) if a["transb"] else (k, n),
            "C": (m, n),
        }
        if any(a[f"ld{name.lower()}"] < max(1, rows) for name, (rows, _) in shapes.items()):
            return INVALID_VALUE
        if handle.device != execution.current_device():
            raise RuntimeError("a handle of cuBLAS on another device than its own")
        if handle.stream != execution.get_current_stream().ptr:
            raise RuntimeError("cuBLAS was told another stream than the current one")
        if handle.workspace is None:
            # cuBLAS asks for one of its own, which the graph of a capture would hold.
            execution.forbid_in_capture("cuBLAS without a workspace while a stream captures")
        if 0 in (m, n, a["batchCount"]):
            return SUCCESS
        written: list[Any] = []
        if handle.workspace is not None:  # which the product uses, now or when a graph is launched
            found, _ = memory.allocation_at(handle.workspace[0])
            written.append(SimpleNamespace(_allocation=found))
        views, used = {}, {}
        for name, (rows, columns) in shapes.items():
            views[name], used[name] = _matrices(
                a[name],
                dtype,
                rows,
                columns,
                a[f"ld{name.lower()}"],
                a[f"stride{name}"],
                a["batchCount"],
            )
        A, B, C = views["A"], views["B"], views["C"]
        A = A.swapaxes(-1, -2) if a["transa"] else A
        B = B.swapaxes(-1, -2) if a["transb"] else B
        is_rounded = a["computeType"] == _FAST_TF32

        def work() -> None:
            left, right = (tf32(A), tf32(B)) if is_rounded else (A, B)
            # As a row-major product of the transposed, whose bits are those of NumPy's.
            made = alpha * np.matmul(right.swapaxes(-1, -2), left.swapaxes(-1, -2))
            C[...] = (made if beta == 0 else made + beta * C.swapaxes(-1, -2)).swapaxes(-1, -2)

        execution.launch("cublasGemmEx", work, [used["A"], used["B"]], [used["C"], *written])
        return SUCCESS


def _address(pointer: Any) -> int:
    """Return the address of a scalar on the host."""
    return pointer if isinstance(pointer, int) else ctypes.addressof(pointer)


def _matrices(
    address: int, dtype: Any, rows: int, columns: int, leading: int, stride: int, count: int
) -> tuple[Any, Any]:
    """Return column-major matrices as views, and whose memory that is."""
    found, offset = memory.allocation_at(address)
    size = dtype.itemsize
    if stride < 0:
        raise ValueError(f"a stride of {stride}, of which cuBLAS's documents say nothing")
    last = (count - 1) * stride + (columns - 1) * leading + rows if columns else 0
    if offset + last * size > found.size:
        raise ValueError(f"cuBLAS reads or writes {offset + last * size} of {found.size} bytes")
    if address % size:
        raise ValueError(f"{address:#x} is not aligned for {dtype}")
    whole = found._bytes[offset : offset + last * size].view(dtype)
    view = as_strided(whole, (count, rows, columns), (stride * size, size, leading * size))
    return view, SimpleNamespace(_allocation=found)
