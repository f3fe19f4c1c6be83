"""Which stream owns the scratch memory of an operation with more than one kernel.

Such operations keep a buffer for each stream, because only kernels of one stream run in the order
in which they are issued. Work that is recorded on one stream and launched on another uses the
buffer of the latter.
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
    """Declare that work issued inside the ``with`` block will run on another stream.

    Parameters
    ----------
    stream : int
        Pointer of that stream.
    """
    before, _thread.launched_on = _thread.launched_on, stream
    try:
        yield
    finally:
        _thread.launched_on = before


def is_recorded() -> bool:
    """Return whether this thread's work is recorded, to run later on another stream."""
    return _thread.launched_on is not None


def owner_of_memory(cupy: ModuleType) -> int:
    """Return the pointer of the stream on which work will run, by default the current one."""
    if _thread.launched_on is not None:
        return _thread.launched_on
    pointer: int = cupy.cuda.get_current_stream().ptr
    return pointer
