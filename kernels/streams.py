"""Scratch memory of operations that take more than one kernel, one buffer for each stream.

Some operations keep buffers for a stream: there, and only there, kernels run in the order in which
they are issued. Work that is recorded on one stream to be launched on another uses what is kept for
the latter.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

__all__ = ["is_recorded", "launched_on", "owner_of_memory"]


class _Thread(threading.local):
    launched_on: int | None = None


_thread = _Thread()


@contextmanager
def launched_on(stream: int) -> Iterator[None]:
    """Say that what this thread issues inside the ``with`` block will run on another stream.

    Parameters
    ----------
    stream : int
        Its pointer.
    """
    before, _thread.launched_on = _thread.launched_on, stream
    try:
        yield
    finally:
        _thread.launched_on = before


def is_recorded() -> bool:
    """Tell whether what this thread issues will run on another stream, and not now."""
    return _thread.launched_on is not None


def owner_of_memory(cupy: ModuleType) -> int:
    """Give the pointer of the stream that work will run on: the current one, if nothing is said."""
    if _thread.launched_on is not None:
        return _thread.launched_on
    pointer: int = cupy.cuda.get_current_stream().ptr
    return pointer
