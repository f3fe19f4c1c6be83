"""Copies large arrays from the host to a GPU, through pinned buffers.

A GPU copies from pinned memory, which the operating system may not move. CuPy pins as much of it as
an array needs, rounded up to a power of two, and keeps it: after 20 GB of samples, 32 GB of the
host's memory stay pinned. Here copies go through two buffers: one is filled while the GPU reads the
other.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["LARGE", "to_gpu"]

LARGE = 16 << 20  # bytes of an array and a buffer; larger ones exceed the host's caches
_HOST_TO_DEVICE = 1  # cudaMemcpyKind


def to_gpu(cupy: Any, array: npt.NDArray[Any]) -> Any:
    """Copy a C-contiguous array to the current device, on its current stream.

    If the system has no pinned memory left, CuPy copies, which waits for the GPU.

    Returns
    -------
    cupy.ndarray
        The copy. The host's array may be changed as soon as the function returns.
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
    """Two pinned buffers of one GPU, and events for the end of the last copy from each."""

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


_made: dict[tuple[Any, int], _Buffers] = {}  # by CuPy and device, kept until the process ends
_making = threading.Lock()  # memory of a buffer freed while a GPU reads it would be reused


def _buffers(cupy: Any, index: int) -> _Buffers:
    """Return the process's buffers of the current device, whose number is ``index``."""
    with _making:
        if (cupy, index) not in _made:
            _made[cupy, index] = _Buffers(cupy)
        return _made[cupy, index]
