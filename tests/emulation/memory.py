"""Test equipment: the stand-in's memory, which counts what it gives out and can refuse.

New memory is filled with bytes of ones, nan as a float and -1 as an integer, so that what is read
before it is written shows.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from tests.emulation.execution import Timeline, current_device, forbid_in_capture

__all__ = ["Allocation", "MemoryPointer", "MemoryPool", "OutOfMemoryError", "alloc", "counter"]

_ALIGNMENT = 512  # bytes, as CuPy's (cupy/cuda/memory.pyx, _allocation_unit_size)


class OutOfMemoryError(MemoryError):
    """As ``cupy.cuda.memory.OutOfMemoryError``."""

    def __init__(self, size: int, total: int, limit: int) -> None:
        message = f"Out of memory allocating {size:,} bytes (allocated so far: {total:,} bytes"
        super().__init__(message + (f", limit set to: {limit:,} bytes)." if limit else ")."))


class Allocation:
    """A stretch of memory of one device, and who used it last."""

    def __init__(self, size: int, pool: MemoryPool | None) -> None:
        self.device = current_device()
        self.size = size
        raw = np.full(size + _ALIGNMENT, 0xFF, np.uint8)
        start = -raw.ctypes.data % _ALIGNMENT
        self.data = raw[start : start + size]
        self.written: tuple[Timeline, int] | None = None
        self.read: dict[Timeline, int] = {}
        self._pool = pool

    def __del__(self) -> None:
        if self._pool is not None:
            self._pool._used -= self.size


class MemoryPointer:
    """As ``cupy.cuda.MemoryPointer``: an address in an allocation."""

    def __init__(self, mem: Allocation, offset: int) -> None:
        self.mem = mem
        self.ptr = mem.data.ctypes.data + offset
        self.device_id = mem.device


class MemoryPool:
    """As ``cupy.cuda.MemoryPool``."""

    def __init__(self) -> None:
        self._used = 0
        self._limit = 0

    def malloc(self, size: int) -> MemoryPointer:
        if self._limit and self._used + size > self._limit:
            raise OutOfMemoryError(size, self._used, self._limit)
        allocation = Allocation(size, self)
        self._used += size
        return MemoryPointer(allocation, 0)

    def used_bytes(self) -> int:
        return self._used

    def total_bytes(self) -> int:
        return self._used

    def free_all_blocks(self) -> None:
        """Give unused memory back; this pool keeps none."""

    def set_limit(self, size: int | None = None, fraction: float | None = None) -> None:
        assert fraction is None, "the stand-in knows no total"
        self._limit = size or 0


class Counter:
    """How often memory was asked for."""

    n_allocations = 0
    n_bytes = 0


counter = Counter()
default_pool = MemoryPool()


class _Thread(threading.local):
    allocator: Callable[[int], Any] | None = None


_thread = _Thread()
_allocator: list[Callable[[int], Any]] = [default_pool.malloc]


def alloc(size: int) -> Any:
    """Ask the current allocator for memory."""
    # CuPy lets its pool answer during a capture, and memory that is then freed is used again by
    # whoever asks next, while the graph still writes there.
    forbid_in_capture(f"an allocation of {size} bytes while a stream captures")
    counter.n_allocations += 1
    counter.n_bytes += size
    return get_allocator()(size)


def get_allocator() -> Callable[[int], Any]:
    return _thread.allocator or _allocator[0]


def set_allocator(allocator: Callable[[int], Any] | None = None) -> None:
    _allocator[0] = default_pool.malloc if allocator is None else allocator


@contextmanager
def using_allocator(allocator: Callable[[int], Any] | None = None) -> Iterator[None]:
    """Ask this allocator inside the ``with`` block, in this thread."""
    before, _thread.allocator = _thread.allocator, allocator
    try:
        yield
    finally:
        _thread.allocator = before
