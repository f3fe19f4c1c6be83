"""The functions and the number of threads of NumPy's own BLAS, or else of SciPy's.

NumPy does not expose them. They are looked up by name in the libraries that NumPy's extension
module has loaded, so that no other BLAS in the process is used by mistake. Where that fails, as on
Windows and with Apple's Accelerate, SciPy's functions for Cython serve.
"""

from __future__ import annotations

import ctypes
import functools
import importlib
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = [
    "Blas",
    "available_cores",
    "available_cpus",
    "chosen_blas",
    "chosen_threads",
    "count_blas_threads",
    "numpy_blas",
    "register",
    "scipy_blas",
]

# OpenBLAS's names in NumPy's wheels, in distributions with 64-bit integers, and elsewhere: prefix
# and suffix of a function's name, and whether integers have 64 bits.
_NAMES = (("scipy_", "64_", True), ("", "64_", True), ("scipy_", "", False), ("", "", False))
_PTHREADS = 1  # result of openblas_get_parallel; OpenMP has a number of threads for each thread
_CGROUPS = Path("/sys/fs/cgroup")
_OWN_CGROUPS = Path("/proc/self/cgroup")
_TOPOLOGY = Path("/sys/devices/system/cpu")
_MOST_THREADS = 64  # as in host_team.h


@dataclass(frozen=True)
class Blas:
    """Addresses of functions of a BLAS.

    Attributes
    ----------
    sgemm, dgemm, sgemv, dgemv : int
        ``cblas_sgemm`` and so on, or those of Fortran's interface.
    get_threads, set_threads : int
        ``openblas_get_num_threads`` and ``openblas_set_num_threads`` of an OpenBLAS that runs its
        own threads; 0 if they are unknown.
    is_64_bit : bool
        Whether its integers have 64 bits.
    is_fortran : bool
        Whether the functions have Fortran's interface: all arguments are addresses, and matrices
        are stored by columns.
    """

    sgemm: int
    dgemm: int
    sgemv: int
    dgemv: int
    get_threads: int
    set_threads: int
    is_64_bit: bool
    is_fortran: bool = False


@functools.cache
def numpy_blas() -> Blas | None:
    """Find the BLAS that NumPy uses.

    Returns
    -------
    Blas or None
        None if it is not an OpenBLAS that runs its own threads, or if its functions cannot be found
        (Windows does not search a library's dependencies for names).
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
                _address(library, f"{before}cblas_sgemv{after}"),
                _address(library, f"{before}cblas_dgemv{after}"),
                _address(library, f"{before}openblas_get_num_threads{after}"),
                _address(library, f"{before}openblas_set_num_threads{after}"),
                is_64_bit,
            )
            threading_layer = library[f"{before}openblas_get_parallel{after}"]()
        except AttributeError:  # no function of that name
            continue
        return found if threading_layer == _PTHREADS else None
    return None


@functools.cache
def scipy_blas() -> Blas | None:
    """Find the BLAS that SciPy offers to Cython; None without SciPy.

    SciPy's BLAS chooses its number of threads itself.
    """
    try:
        capsules = importlib.import_module("scipy.linalg.cython_blas").__pyx_capi__
    except ImportError:
        return None
    api = ctypes.pythonapi
    get_name = ctypes.PYFUNCTYPE(ctypes.c_char_p, ctypes.py_object)(("PyCapsule_GetName", api))
    get_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
        ("PyCapsule_GetPointer", api)
    )

    def address(name: str) -> int:
        return int(get_pointer(capsules[name], get_name(capsules[name])))

    return Blas(
        sgemm=address("sgemm"),
        dgemm=address("dgemm"),
        sgemv=address("sgemv"),
        dgemv=address("dgemv"),
        get_threads=0,
        set_threads=0,
        is_64_bit=b"int64" in get_name(capsules["sgemm"]),  # SciPy's type for 64-bit integers
        is_fortran=True,
    )


def chosen_blas() -> Blas | None:
    """Return NumPy's BLAS if its functions can be called, else SciPy's, or None."""
    return numpy_blas() or scipy_blas()


def _address(library: ctypes.CDLL, name: str) -> int:
    return ctypes.cast(library[name], ctypes.c_void_p).value or 0


def count_blas_threads() -> int | None:
    """Return the number of threads of NumPy's BLAS, or None if that BLAS is unknown."""
    blas = numpy_blas()
    return None if blas is None else int(ctypes.CFUNCTYPE(ctypes.c_int)(blas.get_threads)())


def available_cpus() -> int:
    """Count the processors that this process may use, by its affinity and its container's quota.

    Returns
    -------
    int
        At least 1; a part of a processor counts as one.
    """
    return max(1, min([len(_processors()), *(math.ceil(quota) for quota in _quotas())]))


def available_cores() -> int:
    """Count the cores of the processors that this process may use.

    Returns
    -------
    int
        The result of :func:`available_cpus` if the system does not say which processors share a
        core.
    """
    try:
        siblings = {
            (_TOPOLOGY / f"cpu{n}" / "topology" / "thread_siblings_list").read_text("ascii")
            for n in _processors()
        }
    except OSError:
        return available_cpus()
    return min(len(siblings), available_cpus())


def _processors() -> set[int]:
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def _quotas() -> Iterator[float]:
    """Yield the quotas of this process's control groups and their parents, in processors."""
    for folder in _control_groups():
        try:
            if (folder / "cpu.max").exists():
                quota, period = (folder / "cpu.max").read_text("ascii").split()
            else:
                quota = (folder / "cpu.cfs_quota_us").read_text("ascii")
                period = (folder / "cpu.cfs_period_us").read_text("ascii")
            if quota != "max" and int(quota) > 0 and int(period) > 0:
                yield int(quota) / int(period)
        except (OSError, ValueError):  # no quota here
            continue


def _control_groups() -> Iterator[Path]:
    """Yield the folders that may have a quota: of version 2, and of version 1's ``cpu``."""
    try:
        lines = _OWN_CGROUPS.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:  # another system
        return
    for line in lines:
        _, colon, rest = line.partition(":")
        controllers, second_colon, path = rest.partition(":")
        if not (colon and second_colon):
            continue
        if not controllers:
            mounts = {""}
        elif "cpu" in controllers.split(","):
            mounts = {controllers, "cpu", "cpu,cpuacct"}  # the order of names differs
        else:
            continue
        for root in (_CGROUPS / mount for mount in sorted(mounts)):
            # Inside a container the path may be the one on its host, and the root its own folder.
            own = root / path.lstrip("/")
            yield from (folder for folder in (own, *own.parents) if folder.is_relative_to(root))


def chosen_threads() -> int | None:
    """Read the number of threads from the environment variable ``XPNET_THREADS``.

    Returns
    -------
    int or None
        None if it is not set; xpnet then uses as many threads as pay off.

    Raises
    ------
    ValueError
        If it is not a whole number from 1 to 64.
    """
    text = os.environ.get("XPNET_THREADS") or None
    if text is None:
        return None
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= _MOST_THREADS:
        raise ValueError(
            f"XPNET_THREADS must be a whole number from 1 to {_MOST_THREADS}, got {text!r}; unset "
            "it to let xpnet choose"
        )
    return int(text)


@functools.cache
def register() -> None:
    """Register xpnet's threads with threadpoolctl, if it is installed.

    Its limits for BLAS then also apply to them, and ``threadpool_info`` lists them.
    """
    try:
        threadpoolctl: Any = importlib.import_module("threadpoolctl")
        base = threadpoolctl.LibController
    except (ImportError, AttributeError):  # not installed, or before 3.2
        return

    # The base is a class only if threadpoolctl is installed.
    class Team(base):  # type: ignore[valid-type, misc]
        user_api = "blas"
        internal_api = "xpnet"
        filename_prefixes = ("_host",)
        check_symbols = ("xpnet_get_num_threads", "xpnet_set_num_threads")

        def get_num_threads(self) -> int:
            return int(self.dynlib.xpnet_get_num_threads())

        def set_num_threads(self, num_threads: int) -> None:
            self.dynlib.xpnet_set_num_threads(int(num_threads))

        def get_version(self) -> None:
            return None

    threadpoolctl.register(Team)
