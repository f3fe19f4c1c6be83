"""CuPy refuses cuBLAS while a stream captures: a minimal reproducer, and a workaround.

``python bench/gpu/capture_refusal.py`` needs a GPU, NumPy and CuPy, but not xpnet::

    import cupy

    stream = cupy.cuda.Stream(non_blocking=True)
    with stream:
        A = cupy.ones((8, 8), dtype="float32")
        out = cupy.empty_like(A)
        cupy.matmul(A, A, out=out)  # creates the handle and loads the kernel
        stream.begin_capture()
        cupy.matmul(A, A, out=out)  # NotImplementedError

What happens
    Every function in ``cupy_backends/cuda/libs/cublas.pyx`` first sets the current stream on its
    handle. If the stream is capturing, that raises ``NotImplementedError: calling cuBLAS API during
    stream capture is currently unsupported``. This is deliberate: CuPy's pull request 4567 added
    capture without libraries, and issue 6290 ("Improve stream capture support") lists those still
    missing. ``tests/cupy_tests/cuda_tests/test_graph.py`` asserts the refusal.

Why cuBLAS needs care
    cuBLAS itself can be captured (its manual, "CUDA Graphs Support"), except for results written to
    the host, such as those of ``dot`` and ``nrm2`` in host pointer mode. Two more things matter for
    a product. Without a workspace from the caller, the graph contains allocations: each captured
    graph then holds its own workspace (PyTorch's pull request 83461 reports how much memory that
    took). And scalars ``alpha`` and ``beta`` on the host are read when the call is captured, not
    when the graph is launched: they are constants of the graph.

The workaround
    Create a separate handle. Before each product call ``cublasSetStream`` and then
    ``cublasSetWorkspace``, in that order, because the first resets the workspace. The workspace is
    an array allocated before the capture begins. It serves one stream, and must live as long as the
    graph. NVIDIA recommends 32 MiB on Hopper and Blackwell, 4 MiB on older GPUs.

What CuPy could do
    Keep such a workspace with each handle of ``cupy.cuda.device``, per stream, set it together with
    the stream, and during capture refuse only functions that write to the host. Then ``matmul`` and
    ``dot`` with ``out=`` work in a graph. Without ``out=`` their result comes from the pool, which
    is another trap: the pool may reuse that memory while the graph still writes to it.

The exit status is 0 if CuPy refuses and a graph of the workaround gives the same bits as the
product outside of a graph; 1 if it gives other bits; 2 without a GPU; 3 if CuPy no longer refuses.
"""

from __future__ import annotations

import ctypes
import importlib
import sys
from typing import Any

__all__ = ["load_cublas", "main"]

_WORKSPACE = 32 << 20
_POINTER, _INT = ctypes.c_void_p, ctypes.c_int
_PROTOTYPES: dict[str, tuple[Any, ...]] = {
    "cublasCreate_v2": (ctypes.POINTER(_POINTER),),
    "cublasSetStream_v2": (_POINTER, _POINTER),
    "cublasSetWorkspace_v2": (_POINTER, _POINTER, ctypes.c_size_t),
    "cublasGemmEx": (
        *(_POINTER, _INT, _INT, _INT, _INT, _INT, _POINTER),  # handle, operations, m, n, k, alpha
        *(_POINTER, _INT, _INT),  # A, its type, lda
        *(_POINTER, _INT, _INT, _POINTER),  # B, its type, ldb; beta
        *(_POINTER, _INT, _INT),  # C, its type, ldc
        *(_INT, _INT),  # how to compute, the algorithm
    ),
}
_FLOAT, _COMPUTE_FLOAT, _DEFAULT = 0, 68, -1  # CUDA_R_32F, CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT


def load_cublas() -> Any:
    """Load the cuBLAS that CuPy uses; CuPy installs ``cuda.pathfinder``."""
    pathfinder = importlib.import_module("cuda.pathfinder")
    return ctypes.CDLL(pathfinder.load_nvidia_dynamic_lib("cublas").abs_path)


def main(library: Any = None) -> int:
    """Show the refusal, then the workaround, and return the exit status."""
    import cupy

    if not cupy.is_available():
        sys.stderr.write(f"CuPy {cupy.__version__} finds no usable GPU\n")
        return 2
    m, n, k = 37, 29, 53
    stream = cupy.cuda.Stream(non_blocking=True)
    with stream:
        A = cupy.arange(m * k, dtype="float32").reshape(m, k) / (m * k)
        B = cupy.arange(k * n, dtype="float32").reshape(k, n) / (k * n)
        eager, captured = (cupy.zeros((m, n), dtype="float32") for _ in range(2))
        cupy.matmul(A, B, out=eager)
        said = _refusal(cupy, stream, A, B, eager)
        if said is None:
            sys.stdout.write(f"CuPy {cupy.__version__} captured a product and no longer refuses\n")
            return 3
        sys.stdout.write(f"CuPy {cupy.__version__}, in a capture: {said}\n")

        multiply = _own_products(cupy, stream, library or load_cublas())
        multiply(A, B, eager)
        stream.begin_capture()
        multiply(A, B, captured)
        graph = stream.end_capture()
        graph.launch(stream)
        first, second = eager.get().tobytes(), captured.get().tobytes()
    bits = "the same bits" if first == second else "OTHER BITS"
    sys.stdout.write(f"with a separate handle: {bits} in a graph as outside of one\n")
    return int(first != second)


def _refusal(cupy: Any, stream: Any, A: Any, B: Any, out: Any) -> str | None:
    """Return CuPy's error for a product in a capture, or None if it does not refuse."""
    stream.begin_capture()
    try:
        cupy.matmul(A, B, out=out)
    except NotImplementedError as error:
        return f"{type(error).__name__}: {error}"
    finally:
        stream.end_capture()
    return None


def _own_products(cupy: Any, stream: Any, library: Any) -> Any:
    """Return a function that multiplies C-contiguous float32 matrices on a stream."""
    for name, arguments in _PROTOTYPES.items():
        function = getattr(library, name)
        function.argtypes, function.restype = arguments, _INT
    handle, one, zero = _POINTER(), ctypes.c_float(1), ctypes.c_float(0)
    _check(library.cublasCreate_v2(ctypes.byref(handle)))
    workspace = cupy.empty(_WORKSPACE, dtype="uint8")

    def multiply(A: Any, B: Any, out: Any) -> None:
        (m, k), n = A.shape, B.shape[1]
        _check(library.cublasSetStream_v2(handle, stream.ptr))
        _check(library.cublasSetWorkspace_v2(handle, workspace.data.ptr, workspace.nbytes))
        _check(
            library.cublasGemmEx(  # column-major: out' = B' A'
                *(handle, 0, 0, n, m, k, ctypes.byref(one)),
                *(B.data.ptr, _FLOAT, n),
                *(A.data.ptr, _FLOAT, k, ctypes.byref(zero)),
                *(out.data.ptr, _FLOAT, n),
                *(_COMPUTE_FLOAT, _DEFAULT),
            )
        )

    return multiply


def _check(status: int) -> None:
    if status:
        raise RuntimeError(f"cuBLAS failed with status {status}")


if __name__ == "__main__":
    sys.exit(main())
