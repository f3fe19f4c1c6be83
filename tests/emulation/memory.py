"""Test equipment: the stand-in's memory, which counts what it gives out and can refuse.

New memory is filled with bytes of ones, nan as a float and -1 as an integer, so that what is read
before it is written shows. CuPy's pool gives memory that was freed to the next request on
the stream that allocated it first, although another stream may still be at work on it
(cupy/cuda/memory.pyx, SingleDeviceMemoryPool): here all new memory of a stream counts as such.
"""

from __future__ import annotations

import bisect
import ctypes
import threading
import weakref
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from tests.emulation.execution import (
    ExtensionType,
    Timeline,
    copy_later,
    current_device,
    forbid_in_capture,
    get_current_stream,
    lock,
)

__all__ = [
    "Allocation",
    "MemoryPointer",
    "MemoryPool",
    "OutOfMemoryError",
    "alloc",
    "allocation_at",
    "counter",
    "memcpy_async",
    "pinned_pool",
]

_ALIGNMENT = 512  # bytes, as CuPy's (cupy/cuda/memory.pyx, _allocation_unit_size)


def _rounded(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT


class OutOfMemoryError(MemoryError):
    """As ``cupy.cuda.memory.OutOfMemoryError``."""

    def __init__(self, size: int, total: int, limit: int) -> None:
        message = f"Out of memory allocating {size:,} bytes (allocated so far: {total:,} bytes"
        super().__init__(message + (f", limit set to: {limit:,} bytes)." if limit else ")."))
        self._size, self._total, self._limit = size, total, limit


class Allocation:
    """A stretch of memory of one device, and who used it last."""

    _pool: MemoryPool | None = None  # that has it back
    _start = 0

    def __init__(self, size: int) -> None:
        self.device = current_device()
        self.size = size
        raw = np.full(size + _ALIGNMENT, 0xFF, np.uint8)
        start = -raw.ctypes.data % _ALIGNMENT
        self._bytes = raw[start : start + size]
        self.written: tuple[Timeline, int] | None = None
        self.read: dict[Timeline, int] = {}
        self._stream = get_current_stream().timeline
        self._start = self._bytes.ctypes.data
        with lock:
            bisect.insort(_starts, self._start)
            _at[self._start] = weakref.ref(self)

    def __del__(self) -> None:
        if not self._start or lock is None:  # it was never made, or Python is at its end
            return
        with lock:
            del _starts[bisect.bisect_left(_starts, self._start)], _at[self._start]
        if self._pool is None:  # cudaFree waits
            return
        with lock:
            self._pool._take_back(self)
            freed = self._stream.freed
            for timeline, position in (*self.read.items(), *filter(None, [self.written])):
                freed[timeline] = max(freed.get(timeline, 0), position)


_starts: list[int] = []  # of all allocations, in order
_at: dict[int, weakref.ref[Allocation]] = {}


def allocation_at(address: int) -> tuple[Allocation, int]:
    """Return the allocation that an address lies in, and where in it, or raise ValueError."""
    with lock:
        place = bisect.bisect_right(_starts, address) - 1
        found = _at[_starts[place]]() if place >= 0 else None
        if found is None or address - _starts[place] >= found.size:
            raise ValueError(f"{address:#x} is no address of the device's memory")
        return found, address - _starts[place]


class MemoryPointer(metaclass=ExtensionType):
    """As ``cupy.cuda.MemoryPointer``: an address in an allocation."""

    def __init__(self, mem: Allocation, offset: int) -> None:
        self.mem = mem
        self.ptr = mem._start + offset
        self.device_id = mem.device


def _forbid_in_capture(size: int) -> None:
    # CuPy lets its pool answer during a capture, and memory that is then freed is given to the
    # next request, while the graph still writes there. A user's allocator is called.
    forbid_in_capture(f"an allocation of {size} bytes while a stream captures")


class MemoryPool(metaclass=ExtensionType):
    """As ``cupy.cuda.MemoryPool``."""

    def __init__(self) -> None:
        self._used: dict[int, int] = defaultdict(int)  # bytes of each device
        self._limits: dict[int, int] = {}
        # What was freed, by device and stream: for that stream alone, also when it is gone.
        self._kept: dict[int, dict[int, int]] = defaultdict(lambda: defaultdict(int))

    def malloc(self, size: int) -> MemoryPointer:
        _forbid_in_capture(size)
        device, rounded = current_device(), _rounded(size)
        with lock:
            used, limit = self._used[device], self._limits.get(device, 0)
            made = Allocation(size)
            kept, number = self._kept[device], made._stream.number
            again = min(kept[number], rounded)
            if limit and used + sum(kept.values()) + rounded - again > limit:
                # cupy/cuda/memory.pyx, SingleDeviceMemoryPool._alloc and _try_malloc
                kept.clear()
                again = 0
                if used + rounded > limit:
                    raise OutOfMemoryError(rounded, used, limit)
            kept[number] -= again
            made.read = made._stream.still_used()
            made._pool = self
            self._used[device] += rounded
        return MemoryPointer(made, 0)

    def _take_back(self, allocation: Allocation) -> None:
        rounded = _rounded(allocation.size)
        self._used[allocation.device] -= rounded
        self._kept[allocation.device][allocation._stream.number] += rounded

    def used_bytes(self) -> int:
        return self._used[current_device()]

    def total_bytes(self) -> int:
        return self.used_bytes() + self.free_bytes()

    def free_bytes(self) -> int:
        """Return what is kept for later."""
        return sum(self._kept[current_device()].values())

    def free_all_blocks(self) -> None:
        """Give unused memory back."""
        self._kept[current_device()].clear()

    def get_limit(self) -> int:
        return self._limits.get(current_device(), 0)

    def set_limit(self, size: int | None = None, fraction: float | None = None) -> None:
        assert fraction is None, "the stand-in knows no total"
        self._limits[current_device()] = size or 0


class Counter:
    """How often memory was asked for."""

    n_allocations = 0
    n_bytes = 0


counter = Counter()
default_pool = MemoryPool()


def _raw(size: int) -> MemoryPointer:
    """Ask CUDA itself, which is what None stands for (cupy/cuda/memory.pyx, set_allocator)."""
    _forbid_in_capture(size)
    return MemoryPointer(Allocation(size), 0)


class PinnedMemoryPointer(bytearray):
    """As ``cupy.cuda.PinnedMemoryPointer``: the host's memory, from which a GPU copies later."""

    @property
    def ptr(self) -> int:
        return np.frombuffer(self, np.uint8).ctypes.data


class PinnedPool:
    """As ``cupy.cuda.PinnedMemoryPool``, which keeps what it has asked for."""

    n_bytes = 0

    def malloc(self, size: int) -> PinnedMemoryPointer:
        rounded = 1 << (size - 1).bit_length()  # cupy/cuda/pinned_memory.pyx
        self.n_bytes += rounded
        return PinnedMemoryPointer(rounded)


pinned_pool = PinnedPool()


def memcpy_async(target: int, source: int, size: int, kind: int, stream: int) -> None:
    """As ``cupy.cuda.runtime.memcpyAsync``, from pinned memory to the device."""
    forbid_in_capture("the current stream is capturing, so H2D transfers are disallowed")
    assert (kind, stream) == (1, get_current_stream().ptr)
    allocation, start = allocation_at(target)
    assert start + size <= allocation.size, "a copy past the end of an array"
    copy_later(lambda: ctypes.memmove(allocation._start + start, source, size), allocation)


class _Thread(threading.local):
    allocator: Callable[[int], Any] | None = None


_thread = _Thread()
_allocator: list[Callable[[int], Any]] = [default_pool.malloc]


def alloc(size: int) -> MemoryPointer:
    """Ask the current allocator for memory."""
    with lock:
        counter.n_allocations += 1
        counter.n_bytes += size
    pointer = get_allocator()(size)
    if not isinstance(pointer, MemoryPointer):  # cupy/cuda/memory.pyx, alloc, by its type
        raise TypeError(f"Cannot convert {type(pointer)} to cupy.cuda.memory.MemoryPointer")
    return pointer


def get_allocator() -> Callable[[int], Any]:
    return _thread.allocator or _allocator[0]


def set_allocator(allocator: Callable[[int], Any] | None = None) -> None:
    if _thread.allocator is not None:  # cupy/cuda/memory.pyx, set_allocator
        raise ValueError(
            "Can't change the global allocator inside `using_allocator` context manager"
        )
    _allocator[0] = _raw if allocator is None else allocator


@contextmanager
def using_allocator(allocator: Callable[[int], Any] | None = None) -> Iterator[None]:
    """Ask this allocator inside the ``with`` block, in this thread."""
    before, _thread.allocator = _thread.allocator, _raw if allocator is None else allocator
    try:
        yield
    finally:
        _thread.allocator = before
