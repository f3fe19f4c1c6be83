"""Turn Ctrl-C into a request to stop after the current step."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Self

__all__ = ["Interruption"]


class Interruption:
    """Turn the first Ctrl-C inside the ``with`` block into a request to stop.

    The second one raises ``KeyboardInterrupt`` immediately. Blocks may be nested: the inner block
    shares the request of the outer one, so that Ctrl-C between two pieces of work stops the second.
    Outside the main thread, where Python delivers no signals, the block has no effect.
    """

    def __init__(self) -> None:
        self._requested = False
        self._outer: Interruption | None = None

    def is_requested(self) -> bool:
        """Return whether Ctrl-C was pressed since the outermost block began."""
        return self._requested if self._outer is None else self._outer.is_requested()

    def __enter__(self) -> Self:
        previous = None
        if threading.current_thread() is threading.main_thread():
            previous = signal.getsignal(signal.SIGINT)
        owner = getattr(previous, "__self__", None)
        if isinstance(owner, Interruption):
            self._outer = owner
        # Leave the signal alone if it is ignored (a background job) or handled outside Python.
        self._previous = previous if callable(previous) and self._outer is None else None
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._handle)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        if self._requested:
            raise KeyboardInterrupt
        self._requested = True
