"""Checks whether a CUDA device is usable; if not, says why and what to type."""

from __future__ import annotations

import ctypes
import importlib
from collections.abc import Callable
from typing import Any

__all__ = ["compute_capability", "cuda_problem", "format_cuda_version", "one_line"]

_MIN_CUDA12_DRIVER = 12000
_CUDA13_DRIVER = 13000
_CUDA13_MIN_CAPABILITY = (7, 5)  # CUDA 13 dropped Maxwell, Pascal and Volta


def cuda_problem(index: int = 0) -> str | None:
    """Return why a CUDA device cannot be used, or None if it can.

    Parameters
    ----------
    index : int
        CUDA device number.

    Returns
    -------
    str or None
        One line, with a command to type if one helps; None if the device is usable.
    """
    try:
        cupy: Any = importlib.import_module("cupy")
    except ImportError as error:
        if isinstance(error, ModuleNotFoundError) and error.name == "cupy":
            return f"CuPy is not installed; {_installation_advice()}"
        return f"CuPy cannot be imported ({one_line(error)}); {_installation_advice()}"
    except OSError as error:  # CuPy creates its folder for compiled kernels
        return (
            f"CuPy cannot be imported ({one_line(error)}); set CUPY_CACHE_DIR to a writable folder"
        )
    except Exception as error:  # for example, CuPy built for another NumPy
        return f"CuPy cannot be imported ({one_line(error)}); reinstall it"
    runtime = cupy.cuda.runtime
    try:
        n_devices = runtime.getDeviceCount()
    except runtime.CUDARuntimeError as error:
        advice = _installation_advice()
        return f"CuPy {cupy.__version__} finds no usable GPU ({one_line(error)}); {advice}"
    if n_devices == 0:
        return f"CuPy {cupy.__version__} finds no GPU; {_installation_advice()}"
    if index >= n_devices:
        listed = ", ".join(f"cuda:{i}" for i in range(n_devices))
        return f"there is no CUDA device {index}; this machine has {listed}"
    capability = compute_capability(cupy, index)
    if runtime.runtimeGetVersion() >= _CUDA13_DRIVER and capability < _CUDA13_MIN_CAPABILITY:
        return (
            f"CUDA 13 no longer supports compute capability {capability[0]}.{capability[1]} of "
            f"cuda:{index}; {_install('cupy-cuda12x')}"
        )
    try:
        from xpnet.kernels import cublas  # loads a library

        # A product needs cuBLAS, a sum the compiler; importing CuPy and counting GPUs need neither.
        with cupy.cuda.Device(index):
            A = cupy.ones((2, 2), dtype="float32")
            cupy.asnumpy(cupy.matmul(A, A) + A)
            cublas.version(cupy)  # with our own handle
    except Exception as error:  # any error is the reason
        package = _installed_cupy() or "cupy-cuda13x"
        return (
            f"CuPy {cupy.__version__} cannot compute on cuda:{index} ({one_line(error)}); if a "
            f"CUDA library is missing, type: pip install '{package}[ctk]'"
        )
    return None


def one_line(error: Exception) -> str:
    """Return an error's message in one line."""
    return " ".join(str(error).split()) or type(error).__name__


def compute_capability(cupy: Any, index: int) -> tuple[int, int]:
    """Return a GPU's compute capability, such as (9, 0)."""
    # CuPy gives "75" for 7.5 and "120" for 12.0.
    text = cupy.cuda.Device(index).compute_capability
    return int(text[:-1]), int(text[-1])


def format_cuda_version(version: int) -> str:
    """Return a CUDA version as text: 13010 is "13.1"."""
    return f"{version // 1000}.{version % 1000 // 10}"


def _installation_advice() -> str:
    """Return what is missing for CUDA on this machine, and the command to type."""
    found = _nvidia_driver()
    if found is None:
        then = "" if _installed_cupy() else ", then type: pip install 'cupy-cuda13x[ctk]'"
        return (
            f"no NVIDIA driver was found: install one{then} (or stay on the CPU with "
            "XPNET_DEVICE=cpu)"
        )
    version, capability = found
    supports = f"the NVIDIA driver supports CUDA {format_cuda_version(version)}"
    if version < _MIN_CUDA12_DRIVER:
        return f"{supports}, and CuPy needs 12.0 or newer: update the driver"
    if capability is None:
        return f"{supports} but shows no GPU: check nvidia-smi and CUDA_VISIBLE_DEVICES"
    is_cuda13 = version >= _CUDA13_DRIVER and capability >= _CUDA13_MIN_CAPABILITY
    return (
        f"{supports} and the GPU has compute capability {capability[0]}.{capability[1]}; "
        f"{_install('cupy-cuda13x' if is_cuda13 else 'cupy-cuda12x')}"
    )


def _install(package: str) -> str:
    """Return the command that installs a CuPy; an environment must not have two of them."""
    installed = _installed_cupy()
    first = f"pip uninstall -y {installed} && " if installed not in (None, package) else ""
    return f"type: {first}pip install '{package}[ctk]'"


def _installed_cupy() -> str | None:
    from importlib import metadata  # takes 20 ms, so only after an error

    for package in ("cupy-cuda11x", "cupy-cuda12x", "cupy-cuda13x", "cupy"):
        try:
            metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
        return package
    return None


def _nvidia_driver() -> tuple[int, tuple[int, int] | None] | None:
    """Query the NVIDIA driver itself, without CuPy.

    Returns
    -------
    (version, capability) or None
        The newest CUDA version that the driver supports, such as 13010 for 13.1, and the first
        GPU's compute capability (None without a GPU). None without a driver.
    """
    library = None
    for file in ("libcuda.so.1", "nvcuda.dll"):
        try:
            library = ctypes.CDLL(file)
            break
        except OSError:
            continue
    if library is None:
        return None
    version = ctypes.c_int()
    if library.cuDriverGetVersion(ctypes.byref(version)) != 0 or version.value == 0:
        return None
    handle, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    # 75 and 76: CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR
    calls: tuple[Callable[[], int], ...] = (
        lambda: library.cuInit(0),
        lambda: library.cuDeviceGet(ctypes.byref(handle), 0),
        lambda: library.cuDeviceGetAttribute(ctypes.byref(major), 75, handle),
        lambda: library.cuDeviceGetAttribute(ctypes.byref(minor), 76, handle),
    )
    if any(call() != 0 for call in calls):
        return version.value, None
    return version.value, (major.value, minor.value)
