"""Matrix products on CUDA by cuBLAS, with our own handle and workspace.

CuPy refuses to call cuBLAS while a stream captures (its issue 6290): its handle has no workspace
from the user, so cuBLAS would allocate memory, which a graph must not do. Here the workspace is an
array that lives as long as the operations, so a product can be part of a graph. It gives the same
bits inside and outside of a graph, because handle, workspace size and algorithm are the same.

The library is CuPy's cuBLAS, found by ``cuda.pathfinder``, which CuPy installs. Its six functions
are called through ctypes. nvmath-python also has bindings for them, but adds hundreds more, and
dependencies such as cuda-core, cuTENSOR and cuDSS that xpnet does not need.

cuBLAS is column-major. Its n by m matrix ``M'`` with leading dimension ``ld`` is the row-major m by
n matrix ``M`` whose rows are ``ld`` elements apart. So ``C = A B`` is computed as ``C' = B' A'``:
the operands change places, and each keeps its own transposition.

References
----------
NVIDIA, "cuBLAS library", CUDA 13: cublasGemmEx, cublasGemmStridedBatchedEx, cublasSetWorkspace,
cublasSetStream ("cuBLAS unconditionally resets its workspace"), and section 2.1.4, "Results
reproducibility".
"""

from __future__ import annotations

import ctypes
import functools
import importlib
import math
import threading
from collections.abc import Iterator
from itertools import product
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from xpnet.kernels.cuda import check_array
from xpnet.kernels.reference import Array
from xpnet.kernels.streams import owner_of_memory

__all__ = ["CublasError", "Products", "load", "version"]

MIN_VERSION = 120_000  # CUDA 12's, the oldest that CuPy 14 is built for
# Bytes, by the major compute capability, as NVIDIA recommends them: Hopper, Blackwell, others.
WORKSPACE = {9: 32 << 20, 10: 32 << 20, 12: 32 << 20}
OTHER_WORKSPACE = 4 << 20

_INT_MAX = 2**31 - 1
_N, _T = 0, 1  # cublasOperation_t
_DEFAULT_ALGORITHM = -1  # CUBLAS_GEMM_DEFAULT
# cudaDataType, and cublasComputeType_t by precision.
_DATA_TYPES = {"float32": 0, "float64": 1}
_COMPUTE_TYPES = {
    ("float32", "float32"): 68,  # CUBLAS_COMPUTE_32F
    ("float32", "tf32"): 77,  # CUBLAS_COMPUTE_32F_FAST_TF32
    ("float64", "float32"): 70,  # CUBLAS_COMPUTE_64F
    ("float64", "tf32"): 70,
}
_SCALARS: dict[str, tuple[Any, Any]] = {
    "float32": (ctypes.c_float(1), ctypes.c_float(0)),
    "float64": (ctypes.c_double(1), ctypes.c_double(0)),
}

_INT, _POINTER, _SIZE = ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t
_STRIDE = ctypes.c_longlong
_SHAPE = (_POINTER, _INT, _INT, _INT, _INT, _INT, _POINTER)  # handle, operations, m, n, k, alpha
PROTOTYPES: dict[str, tuple[Any, ...]] = {
    "cublasCreate_v2": (ctypes.POINTER(_POINTER),),
    "cublasGetVersion_v2": (_POINTER, ctypes.POINTER(_INT)),
    "cublasSetStream_v2": (_POINTER, _POINTER),
    "cublasSetWorkspace_v2": (_POINTER, _POINTER, _SIZE),
    "cublasGemmEx": (
        *_SHAPE,
        *(_POINTER, _INT, _INT),  # A, its type, lda
        *(_POINTER, _INT, _INT),
        _POINTER,  # beta
        *(_POINTER, _INT, _INT),
        *(_INT, _INT),  # how to compute, and the algorithm
    ),
    "cublasGemmStridedBatchedEx": (
        *_SHAPE,
        *(_POINTER, _INT, _INT, _STRIDE),
        *(_POINTER, _INT, _INT, _STRIDE),
        _POINTER,
        *(_POINTER, _INT, _INT, _STRIDE),
        *(_INT, _INT, _INT),  # count, how to compute, and the algorithm
    ),
}
_STATUS = {  # cublasStatus_t
    1: "CUBLAS_STATUS_NOT_INITIALIZED",
    3: "CUBLAS_STATUS_ALLOC_FAILED",
    7: "CUBLAS_STATUS_INVALID_VALUE",
    8: "CUBLAS_STATUS_ARCH_MISMATCH",
    11: "CUBLAS_STATUS_MAPPING_ERROR",
    13: "CUBLAS_STATUS_EXECUTION_FAILED",
    14: "CUBLAS_STATUS_INTERNAL_ERROR",
    15: "CUBLAS_STATUS_NOT_SUPPORTED",
    16: "CUBLAS_STATUS_LICENSE_ERROR",
}


class CublasError(RuntimeError):
    """cuBLAS cannot be used, or a call to it failed."""


def load() -> Any:
    """Load the cuBLAS that CuPy uses.

    Returns
    -------
    ctypes.CDLL

    Raises
    ------
    CublasError
        If cuBLAS cannot be loaded.
    """
    try:
        pathfinder = importlib.import_module("cuda.pathfinder")
        return ctypes.CDLL(pathfinder.load_nvidia_dynamic_lib("cublas").abs_path)
    except (ImportError, OSError, RuntimeError) as error:  # pathfinder's is a RuntimeError
        raise CublasError(f"cuBLAS cannot be loaded: {error}") from error


class _Library:
    """cuBLAS with declared arguments, return codes checked, and one handle for each GPU.

    Several threads may call its functions, even with the same handle; the lock keeps calls that
    belong together from being interleaved.
    """

    cublasCreate_v2: Any
    cublasGetVersion_v2: Any

    def __init__(self, library: Any) -> None:
        self.lock = threading.RLock()  # re-entrant: a signal handler may multiply too
        self._handles: dict[int, Any] = {}
        for name, arguments in PROTOTYPES.items():
            try:
                function = getattr(library, name)
            except AttributeError as error:
                raise CublasError(f"cuBLAS lacks the function {name}: {error}") from error
            function.argtypes, function.restype = arguments, _INT
            setattr(self, name, functools.partial(_checked, name, function))

    def handle(self, device: int) -> Any:
        """Return the handle of a GPU, which must be current; the lock must be held."""
        if device not in self._handles:
            handle, number = _POINTER(), _INT()
            self.cublasCreate_v2(ctypes.byref(handle))
            self.cublasGetVersion_v2(handle, ctypes.byref(number))
            if number.value < MIN_VERSION:
                raise CublasError(
                    f"cuBLAS must be {MIN_VERSION} (CUDA 12) or newer, got {number.value}"
                )
            self._handles[device] = handle
        return self._handles[device]


def _checked(name: str, function: Any, *arguments: Any) -> None:
    status = function(*arguments)
    if status:
        raise CublasError(f"{name}: {_STATUS.get(status, f'status {status}')}")


@functools.cache
def _library() -> Any:
    """Return the library, one per process: handles are costly, and all networks can share them."""
    return _Library(load())


def version(cupy: ModuleType) -> int:
    """Return cuBLAS's version, such as 130001; a GPU must be current."""
    library, number = _library(), _INT()
    with library.lock:
        handle = library.handle(cupy.cuda.Device().id)
        library.cublasGetVersion_v2(handle, ctypes.byref(number))
    return number.value


class _Layout(NamedTuple):
    """Layout of the matrix in the last two axes: transposed or not, and its leading dimension."""

    operation: int
    leading: int


class Products:
    """The operation ``matmul`` of one device.

    Parameters
    ----------
    cupy : module
        CuPy, or a stand-in for it.
    precision : {"float32", "tf32"}
        Precision of float32 products. ``"tf32"`` uses tensor cores: operands are rounded to TF32's
        10 bits of mantissa, and their products are summed in float32.
    """

    def __init__(self, cupy: ModuleType, precision: str = "float32") -> None:
        self._cupy = cupy
        self._precision = precision
        self._workspaces: dict[tuple[int, int], Array] = {}
        self.__name__ = "matmul"

    def __call__(self, A: Array, B: Array, out: Array | None = None) -> Array:
        """Matrix product over the last two axes, ``out = A @ B``; other axes broadcast.

        Transposed views and rows with gaps between them are read without a copy. Operands that
        cuBLAS cannot read are copied.

        CuPy's own product, which cannot be captured, handles vectors, mixed dtypes, and dtypes
        other than float32 and float64.

        Parameters
        ----------
        A : array (..., m, k)
        B : array (..., k, n)
            An array of A's dtype.
        out : array (..., m, n), optional
            Must be C-contiguous and share no memory with A and B.

        Returns
        -------
        array (..., m, n)
            ``out``, or a new array.

        Raises
        ------
        TypeError
            If an operand is not a CuPy array, or ``out`` has another dtype.
        ValueError
            If shapes do not match, or ``out`` is not C-contiguous or overlaps an operand.
        CublasError
            If cuBLAS fails.
        """
        check_array(self._cupy, "matmul", "A", A)
        check_array(self._cupy, "matmul", "B", B)
        if min(A.ndim, B.ndim) < 2 or A.dtype != B.dtype or A.dtype.char not in "fd":
            return self._cupy.matmul(A, B, out=out)
        *stack, m, n, k = self._check_shapes(A, B)
        shape = (*stack, m, n)
        if out is None:
            out = self._cupy.empty(shape, dtype=A.dtype)
        else:
            self._check_out(A, B, out, shape)
        if out.size == 0:
            return out
        if k == 0:
            out.fill(0)
            return out
        A, layout_A = self._readable(A)
        B, layout_B = self._readable(B)
        name = A.dtype.name
        one, zero = (ctypes.byref(scalar) for scalar in _SCALARS[name])
        type_ = _DATA_TYPES[name]
        compute = _COMPUTE_TYPES[name, self._precision]
        pointers = A.data.ptr, B.data.ptr, out.data.ptr
        library, workspace = _library(), self._workspace()
        with library.lock:
            handle = self._prepared_handle(library, workspace)
            shape_and_one = (handle, layout_B.operation, layout_A.operation, n, m, k, one)
            for (a, b, c), (stride_a, stride_b, stride_c), count in _batches(A, B, out, pointers):
                if count == 1:
                    library.cublasGemmEx(
                        *shape_and_one,
                        *(b, type_, layout_B.leading),
                        *(a, type_, layout_A.leading),
                        zero,
                        *(c, type_, n),
                        *(compute, _DEFAULT_ALGORITHM),
                    )
                    continue
                library.cublasGemmStridedBatchedEx(
                    *shape_and_one,
                    *(b, type_, layout_B.leading, stride_b),
                    *(a, type_, layout_A.leading, stride_a),
                    zero,
                    *(c, type_, n, stride_c),
                    *(count, compute, _DEFAULT_ALGORITHM),
                )
        return out

    def release(self) -> None:
        """Free the workspaces; the next product allocates one again."""
        self._workspaces.clear()  # a product that is being launched keeps a reference

    def _workspace(self) -> Array:
        """Return the workspace of the stream on which the product will run."""
        gpu = self._cupy.cuda.Device()
        key = gpu.id, owner_of_memory(self._cupy)
        workspace = self._workspaces.get(key)
        if workspace is None:
            n_bytes = WORKSPACE.get(int(gpu.compute_capability[:-1]), OTHER_WORKSPACE)
            made = self._cupy.empty(n_bytes, dtype="uint8")
            workspace = self._workspaces.setdefault(key, made)
        return workspace

    def _prepared_handle(self, library: Any, workspace: Array) -> Any:
        """Return the handle, with its stream and workspace set; the lock must be held.

        It is the handle of the current GPU, wherever the arrays are: a handle created for another
        GPU would stay wrong for the whole process.
        """
        handle = library.handle(self._cupy.cuda.Device().id)
        stream = self._cupy.cuda.get_current_stream().ptr
        library.cublasSetStream_v2(handle, stream)  # which forgets the workspace
        library.cublasSetWorkspace_v2(handle, workspace.data.ptr, workspace.nbytes)
        return handle

    def _check_shapes(self, A: Array, B: Array) -> tuple[int, ...]:
        """Return the stack's shape, and m, n, k."""
        if A.shape[-1] != B.shape[-2]:
            raise ValueError(f"matmul: the shapes {A.shape} and {B.shape} do not fit")
        stack: tuple[int, ...] = A.shape[:-2]
        if stack != B.shape[:-2]:
            try:
                stack = np.broadcast_shapes(stack, B.shape[:-2])
            except ValueError:
                raise ValueError(f"matmul: the shapes {A.shape} and {B.shape} do not fit") from None
        if max(math.prod(stack), *A.shape[-2:], *B.shape[-2:]) > _INT_MAX:
            raise ValueError(
                "matmul: axes and the number of products must be less than 2**31, got shapes "
                f"{A.shape} and {B.shape}"
            )
        return (*stack, A.shape[-2], B.shape[-1], A.shape[-1])

    def _check_out(self, A: Array, B: Array, out: Array, shape: tuple[int, ...]) -> None:
        check_array(self._cupy, "matmul", "out", out)
        if out.dtype != A.dtype:
            raise TypeError(f"matmul: out must be {A.dtype} like A, got {out.dtype}")
        if out.shape != shape:
            raise ValueError(f"matmul: out must have shape {shape}, got {out.shape}")
        if not out.flags.c_contiguous:
            raise ValueError(f"matmul: out must be C-contiguous, got strides {out.strides}")
        start = out.data.ptr
        for name, array in (("A", A), ("B", B)):
            first, last = _extent(array)
            if first < start + out.nbytes and start < last and out.size:
                raise ValueError(f"matmul: out must not share memory with {name}")

    def _readable(self, array: Array) -> tuple[Array, _Layout]:
        """Return an operand that cuBLAS can read, and its layout."""
        layout = _layout(array)
        if layout is None:
            array = self._cupy.ascontiguousarray(array)
            layout = _Layout(_N, array.shape[-1])
        return array, layout


def _layout(array: Array) -> _Layout | None:
    """Return the layout with which cuBLAS can read a matrix, or None if it needs a copy.

    The stride of an axis of length 1 is ignored.
    """
    (n_rows, n_columns), size = array.shape[-2:], array.itemsize
    down, right = array.strides[-2:]
    if (down % size and n_rows > 1) or (right % size and n_columns > 1):
        return None
    if (right == size or n_columns == 1) and (n_rows == 1 or down >= n_columns * size):
        leading = n_columns if n_rows == 1 else down // size
        return _Layout(_N, leading) if leading <= _INT_MAX else None
    if (down == size or n_rows == 1) and right >= n_rows * size:  # a single column was above
        leading = right // size
        return _Layout(_T, leading) if leading <= _INT_MAX else None
    return None


def _extent(array: Array) -> tuple[int, int]:
    """Return the addresses where an array's memory begins and ends."""
    if not array.size:
        return 0, 0
    first = last = array.data.ptr
    for length, stride in zip(array.shape, array.strides, strict=True):
        if stride < 0:
            first += (length - 1) * stride
        else:
            last += (length - 1) * stride
    return first, last + array.itemsize


def _batches(
    A: Array, B: Array, out: Array, pointers: tuple[int, int, int]
) -> Iterator[tuple[tuple[int, ...], tuple[int, ...], int]]:
    """Yield batches of a stack's products, each with constant distances between its matrices.

    Yields
    ------
    pointers : of A, B and out
    strides : in elements
    count : int
        Number of products.
    """
    stack, size = out.shape[:-2], out.itemsize
    steps = zip(*(_steps(array, stack) for array in (A, B, out)), strict=True)
    axes = [(n, step) for n, step in zip(stack, steps, strict=True) if n > 1]
    count, apart = 1, (0, 0, 0)
    if axes and all(step >= 0 and step % size == 0 for step in axes[-1][1]):
        count, apart = axes.pop()
        while axes and axes[-1][1] == tuple(count * step for step in apart):
            count *= axes.pop()[0]
    strides = tuple(step // size for step in apart)
    for place in product(*(range(n) for n, _ in axes)):
        offsets = [
            sum(i * step[which] for i, (_, step) in zip(place, axes, strict=True))
            for which in range(3)
        ]
        yield tuple(map(sum, zip(pointers, offsets, strict=True))), strides, count


def _steps(array: Array, stack: tuple[int, ...]) -> tuple[int, ...]:
    """Return the bytes from matrix to matrix along each axis of the stack, 0 if they repeat."""
    missing = len(stack) - (array.ndim - 2)
    lengths = (1,) * missing + array.shape[:-2]
    strides = (0,) * missing + array.strides[:-2]
    return tuple(0 if n == 1 else step for n, step in zip(lengths, strides, strict=True))
