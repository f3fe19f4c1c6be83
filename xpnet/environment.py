"""``show_config``: prints versions, BLAS, devices and kernels in use."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
import sys
from typing import Any

import numpy as np

from xpnet.device import Device, DeviceUnavailableError
from xpnet.device import device as make_device
from xpnet.kernels import host
from xpnet.kernels.blas import chosen_threads, numpy_blas
from xpnet.kernels.cuda_check import cuda_problem, format_cuda_version
from xpnet.version import __version__

__all__ = ["show_config", "versions"]

_PACKAGES = ("numpy", "scikit-learn", "cupy-cuda12x", "cupy-cuda13x", "cupy")


def versions() -> dict[str, str]:
    """Return the versions that a result depends on.

    Returns
    -------
    dict of str to str
        Versions of Python, xpnet and the installed packages that compute, and NumPy's BLAS.
    """
    found = {"python": platform.python_version(), "xpnet": __version__}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    found["blas"] = _blas()
    return found


def show_config() -> None:
    """Print versions, BLAS and its threads, devices, driver, and the kernels and threads in use.

    If CuPy is installed, it is imported to find out whether a GPU can be used.
    """
    rows = [(name, version) for name, version in versions().items() if name != "blas"]
    rows += [
        ("machine", f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs"),
        ("BLAS", f"{_blas()}, {_blas_threads()}"),
        ("XPNET_DEVICE", os.environ.get("XPNET_DEVICE") or "not set: cpu"),
        ("cuda", _cuda()),
        *_device(),
    ]
    width = max(len(name) for name, _ in rows)
    sys.stdout.write("".join(f"{name:<{width}}  {value}\n" for name, value in rows))


def _blas() -> str:
    config: Any = np.show_config(mode="dicts")
    blas = config.get("Build Dependencies", {}).get("blas", {})
    return f"{blas.get('name', 'unknown')} {blas.get('version', '')}".strip()


def _blas_threads() -> str:
    try:
        from threadpoolctl import threadpool_info  # a dependency of scikit-learn
    except ImportError:  # show_config must work if packages are missing
        return "threads unknown (threadpoolctl is not installed)"
    counts = [
        f"threads: {pool['num_threads']}"
        for pool in threadpool_info()
        if pool["user_api"] == "blas" and pool["internal_api"] != "xpnet"
    ]
    return ", ".join(counts) or "threads unknown (threadpoolctl does not know this BLAS)"


def _cuda() -> str:
    problem = cuda_problem()
    if problem is not None:
        return f"not usable: {problem}"
    cupy: Any = importlib.import_module("cupy")
    runtime = cupy.cuda.runtime
    names = [
        runtime.getDeviceProperties(i)["name"].decode() for i in range(runtime.getDeviceCount())
    ]
    listed = ", ".join(f"cuda:{i} {name}" for i, name in enumerate(names))
    driver = format_cuda_version(runtime.driverGetVersion())
    built_for = format_cuda_version(runtime.runtimeGetVersion())
    return f"{listed}; the driver supports CUDA {driver}, CuPy is built for {built_for}"


def _device() -> list[tuple[str, str]]:
    """Describe the default device."""
    try:
        device = make_device()
    except (ValueError, DeviceUnavailableError) as error:
        return [("device", f"none: {error}")]
    precision = "float32"
    if device.precision == "tf32":
        precision = "tf32: products of float32 matrices on tensor cores, 10 bits of mantissa"
    return [
        ("device", device.name),
        ("kernels", _kernels(device)),
        ("precision", precision),
        ("threads", _threads(device)) if device.index is None else ("cuBLAS", _cublas(device)),
    ]


def _threads(device: Device) -> str:
    """Return the number of threads of a training step, and the reason for it."""
    if device.kernels != "fused" or not host.shared():
        return "chosen by NumPy's BLAS"
    if numpy_blas() is None:
        return "chosen by SciPy's BLAS"
    n_threads = host.count_threads()
    if chosen_threads() is not None:
        return f"{n_threads}: set by XPNET_THREADS, limited by NumPy's BLAS"
    if n_threads == 1:
        return "1: one processor, or the limit of NumPy's BLAS"
    shared = {
        None: "could not measure whether processors share a core",
        True: "two processors share a core",
        False: "processors do not share a core",
    }
    return f"up to {n_threads}, as many as make a step faster; {shared[host.shares_core()]}"


def _cublas(device: Device) -> str:
    from xpnet.kernels import cublas

    with device.activate():
        number = cublas.version(device.xp)
    return f"{number // 10_000}.{number % 10_000 // 100}.{number % 100}"


def _kernels(device: Device) -> str:
    if device.kernels == "fused":
        if device.index is not None:
            return "fused: CuPy elementwise"
        return f"fused: {host.description()}"
    plain = f"reference ({device.xp.__name__} expressions)"
    problem = host.problem()
    if device.index is None and problem is not None:
        return f"{plain}: the host kernels are {problem}"
    return f"{plain}, set by XPNET_KERNELS"
