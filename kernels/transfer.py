"""Copies large arrays from the host to a GPU, through pinned buffers.

A GPU copies from pinned memory, which the operating system may not move. CuPy asks for as much of
it as an array takes, rounded up to a power of two, and keeps it: after 20 GB of samples, 32 GB of
the host's memory stay pinned. Here they go through two buffers, of which one is filled while the
GPU reads the other.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["LARGE", "to_gpu"]

LARGE = 16 << 20  # bytes, of an array and of a buffer: more would not stay in the host's caches
_HOST_TO_DEVICE = 1  # cudaMemcpyKind


def to_gpu(cupy: Any, array: npt.NDArray[Any]) -> Any:
    """Copy a C-contiguous array to the current device, on its current stream.

    Where the system gives no pinned memory, CuPy copies, which waits for the GPU.

    Returns
    -------
    cupy.ndarray
        The host's array may be changed from now on.
    """
    made = cupy.empty(array.shape, dtype=array.dtype)
    try:
        buffers = _buffers(cupy, made.device.id)
    except cupy.cuda.runtime.CUDARuntimeError:
        made.set(array)
        return made
    buffers.copy(array.reshape(-1).view(np.uint8), made.data.ptr)
    return made


class _Buffers:
    """Two pinned buffers of one GPU, and the events behind the last copy from each."""

    def __init__(self, cupy: Any) -> None:
        self._cupy = cupy
        self._lock = threading.Lock()
        pinned = [cupy.cuda.alloc_pinned_memory(LARGE) for _ in range(2)]
        self._slots = [
            (memory, np.frombuffer(memory, np.uint8, LARGE), cupy.cuda.Event()) for memory in pinned
        ]

    def copy(self, source: npt.NDArray[np.uint8], target: int) -> None:
        """Copy bytes to an address of the GPU."""
        stream = self._cupy.cuda.get_current_stream()
        with self._lock:
            for number, start in enumerate(range(0, len(source), LARGE)):
                memory, buffer, has_left = self._slots[number % 2]
                has_left.synchronize()
                piece = source[start : start + LARGE]
                np.copyto(buffer[: len(piece)], piece)
                self._cupy.cuda.runtime.memcpyAsync(
                    target + start, memory.ptr, len(piece), _HOST_TO_DEVICE, stream.ptr
                )
                has_left.record(stream)


_made: dict[tuple[Any, int], _Buffers] = {}  # by CuPy and device, for as long as the process lives
_making = threading.Lock()  # buffers that were dropped while a GPU reads them would be used again


def _buffers(cupy: Any, index: int) -> _Buffers:
    """Give a process's own; ``index`` is the current device's number."""
    with _making:
        if (cupy, index) not in _made:
            _made[cupy, index] = _Buffers(cupy)
        return _made[cupy, index]
