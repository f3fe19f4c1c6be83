"""Test equipment: the modules ``cupy`` and ``cupyx`` of the stand-in."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

from tests.emulation import arrays, cublas, execution, functions, kernels, memory
from xpnet.kernels import cublas as calls

__all__ = ["cupy", "cupyx", "library"]

_CUDA = 13000


def _properties(index: int) -> dict[str, Any]:
    execution.Device(index)
    return {"name": execution.NAME.encode(), "major": 9, "minor": 0, "totalGlobalMem": 80 * 2**30}


# Of an H100, and of half of one. The numbers are those of cudaDeviceAttr.
_MULTIPROCESSORS, _L2_CACHE = 16, 38
_ATTRIBUTES = [{_MULTIPROCESSORS: 132, _L2_CACHE: 50 * 2**20}, {_MULTIPROCESSORS: 66}]


def _module(name: str, **members: Any) -> ModuleType:
    made = ModuleType(name, doc=__doc__)
    vars(made).update(members)
    return made


cupy = _module(
    "cupy",
    **functions.FUNCTIONS,
    __version__="14.2.0 (emulated)",
    ndarray=arrays.ndarray,
    ElementwiseKernel=kernels.ElementwiseKernel,
    get_default_memory_pool=lambda: memory.default_pool,
    is_available=lambda: True,
)
runtime = _module(
    "cupy.cuda.runtime",
    CUDARuntimeError=execution.CUDARuntimeError,
    cudaDevAttrL2CacheSize=_L2_CACHE,
    cudaDevAttrMultiProcessorCount=_MULTIPROCESSORS,
    deviceGetAttribute=lambda attribute, index: _ATTRIBUTES[index][attribute],
    deviceGetPCIBusId=lambda index: f"0000:00:{index:02}.0",
    driverGetVersion=lambda: _CUDA,
    getDeviceCount=lambda: execution.N_DEVICES,
    getDeviceProperties=_properties,
    memcpyAsync=memory.memcpy_async,
    memGetInfo=lambda: (64 * 2**30 - memory.default_pool.total_bytes(), 80 * 2**30),
    runtimeGetVersion=lambda: _CUDA,
)
cuda = _module(
    "cupy.cuda",
    Device=execution.Device,
    Event=execution.Event,
    Graph=execution.Graph,
    MemoryPointer=memory.MemoryPointer,
    MemoryPool=memory.MemoryPool,
    Stream=execution.Stream,
    alloc=memory.alloc,
    alloc_pinned_memory=memory.pinned_pool.malloc,
    get_allocator=memory.get_allocator,
    get_current_stream=execution.get_current_stream,
    memory=SimpleNamespace(OutOfMemoryError=memory.OutOfMemoryError),
    runtime=runtime,
    set_allocator=memory.set_allocator,
    using_allocator=memory.using_allocator,
)
cupy.cuda = cuda  # type: ignore[attr-defined]
cupyx = _module(
    "cupyx",
    DeviceSynchronized=execution.DeviceSynchronized,
    allow_synchronize=execution.allow_synchronize,
)
library = cublas.Library()


def install() -> None:
    """Let ``import cupy`` give the stand-in, in this process, and its cuBLAS be used with it."""
    sys.modules.update(
        {"cupy": cupy, "cupy.cuda": cuda, "cupy.cuda.runtime": runtime, "cupyx": cupyx}
    )
    calls.load = lambda: library


def is_installed() -> bool:
    """Return whether the stand-in is in the place of CuPy in this process."""
    return sys.modules.get("cupy") is cupy
