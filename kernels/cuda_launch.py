"""Chooses the numbers of threads and blocks of a CUDA kernel."""

from __future__ import annotations

import functools
from types import ModuleType
from typing import Any

from xpnet.kernels.cuda_source import ROWS_AT_ONCE

__all__ = ["block_size", "is_by_warp", "n_multiprocessors", "n_splits"]

_WARP = 32
_BLOCKS_PER_MULTIPROCESSOR = 4  # of 128 threads: enough loads in flight to keep the memory busy


def block_size(n_threads: int, multiprocessors: int) -> int:
    """Return the threads of a block: fewer than 128 if the blocks would not fill the GPU."""
    for size in (128, 64):
        if n_threads >= size * _BLOCKS_PER_MULTIPROCESSOR * multiprocessors:
            return size
    return _WARP


def n_splits(n_networks: int, n_rows: int, n_columns: int, multiprocessors: int) -> int:
    """Return the number of threads that share the rows of one column of a column-reduce.

    Enough to fill the GPU, but few enough that a thread has at least the rows that it loads at
    once.
    """
    wanted = 128 * _BLOCKS_PER_MULTIPROCESSOR * multiprocessors
    fill = -(-wanted // max(n_networks * n_columns, 1))
    return max(min(fill, -(-n_rows // ROWS_AT_ONCE)), 1)


def is_by_warp(n_networks: int, n_rows: int, n_columns: int, n_arrays: int) -> bool:
    """Return whether a warp goes down each column, so that a column-reduce is one kernel.

    Its lanes read different rows, each number from its own sector of memory. That is faster with
    enough rows for the lanes and few numbers: up to half a million in one array, or 65,536 in each
    of several, as measured on an H200.
    """
    most = 2**19 if n_arrays == 1 else 2**16
    return _WARP <= n_rows <= 512 and n_networks * n_rows * n_columns <= most


def n_multiprocessors(cupy: ModuleType) -> int:
    """Return the number of multiprocessors of the current GPU."""
    return _multiprocessors_of(cupy, cupy.cuda.Device().id)


@functools.cache
def _multiprocessors_of(cupy: ModuleType, index: int) -> int:
    runtime: Any = cupy.cuda.runtime
    return int(runtime.deviceGetAttribute(runtime.cudaDevAttrMultiProcessorCount, index))
