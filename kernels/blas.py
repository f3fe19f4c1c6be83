"""The BLAS that NumPy computes its products with: its functions, and how many threads it uses.

NumPy does not pass them on. They are looked up by name in the libraries that NumPy's own extension
module has loaded, so that it is that BLAS and no other one in the process.
"""

from __future__ import annotations

import ctypes
import functools
import importlib
import math
import os
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Blas", "available_cpus", "count_blas_threads", "numpy_blas"]

# What OpenBLAS calls itself: in NumPy's wheels, where distributions build it with 64-bit integers,
# and elsewhere. Before and after a function's name, and whether integers have 64 bits.
_NAMES = (("scipy_", "64_", True), ("", "64_", True), ("scipy_", "", False), ("", "", False))
_PTHREADS = 1  # what openblas_get_parallel gives; OpenMP keeps a number of threads per thread
_QUOTA = Path("/sys/fs/cgroup/cpu.max")


@dataclass(frozen=True)
class Blas:
    """Addresses of functions of an OpenBLAS that has threads of its own.

    Attributes
    ----------
    sgemm, dgemm : int
        ``cblas_sgemm`` and ``cblas_dgemm``.
    get_threads, set_threads : int
        ``openblas_get_num_threads`` and ``openblas_set_num_threads``.
    is_64_bit : bool
        Whether its integers have 64 bits.
    """

    sgemm: int
    dgemm: int
    get_threads: int
    set_threads: int
    is_64_bit: bool


@functools.cache
def numpy_blas() -> Blas | None:
    """Find the BLAS that NumPy uses.

    Returns
    -------
    Blas or None
        None where it is none that is known here: one that is not OpenBLAS with threads of its own,
        or where a library's dependencies are not searched for names (Windows).
    """
    try:
        module = importlib.import_module("numpy._core._multiarray_umath")
        library = ctypes.CDLL(str(module.__file__))
    except (ImportError, OSError):
        return None
    for before, after, is_64_bit in _NAMES:
        try:
            found = Blas(
                _address(library, f"{before}cblas_sgemm{after}"),
                _address(library, f"{before}cblas_dgemm{after}"),
                _address(library, f"{before}openblas_get_num_threads{after}"),
                _address(library, f"{before}openblas_set_num_threads{after}"),
                is_64_bit,
            )
            threading_layer = library[f"{before}openblas_get_parallel{after}"]()
        except AttributeError:  # no function of that name
            continue
        return found if threading_layer == _PTHREADS else None
    return None


def _address(library: ctypes.CDLL, name: str) -> int:
    return ctypes.cast(library[name], ctypes.c_void_p).value or 0


def count_blas_threads() -> int | None:
    """Ask NumPy's BLAS how many threads it takes; None where it is none that is known here."""
    blas = numpy_blas()
    return None if blas is None else int(ctypes.CFUNCTYPE(ctypes.c_int)(blas.get_threads)())


def available_cpus() -> int:
    """Count the processors that this process may use: by its affinity and its container's quota.

    Returns
    -------
    int
        At least 1; part of a processor counts as one.
    """
    pins = hasattr(os, "sched_getaffinity")
    n = len(os.sched_getaffinity(0)) if pins else os.cpu_count() or 1
    try:
        quota, period = _QUOTA.read_text(encoding="ascii").split()
        return max(1, n if quota == "max" else min(n, math.ceil(int(quota) / int(period))))
    except (OSError, ValueError):  # another system, or an older kind of control group
        return n
