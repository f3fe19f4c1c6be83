"""What a part of the GPU gate is given, and how it ends."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, TypeAlias

__all__ = ["Failed", "Incomplete", "Row", "Settings", "Skipped"]

Row: TypeAlias = dict[str, Any]  # of a table: values by column


@dataclass(frozen=True)
class Settings:
    """How the gate was called.

    Attributes
    ----------
    is_rehearsal : bool
        Whether the GPU is the stand-in of the tests, and sizes are small.
    is_quick : bool
        Whether a few tests stand for all.
    deadline : float
        When the part will be stopped, in seconds since the epoch.
    """

    is_rehearsal: bool
    is_quick: bool
    deadline: float

    def left(self) -> float:
        """Give the seconds until the part is stopped."""
        return max(self.deadline - time.time(), 0.1)

    @property
    def device(self) -> str:
        """The device as ``pytest --device`` takes it."""
        return "emulated" if self.is_rehearsal else "cuda"


class Failed(Exception):  # noqa: N818  (an outcome)
    """A part found something wrong; it may have rows all the same."""

    def __init__(self, reason: str, rows: list[Row] | None = None) -> None:
        super().__init__(reason)
        self.rows = rows or []


class Incomplete(Exception):  # noqa: N818
    """A measurement has run out of time; what it has is right."""

    def __init__(self, reason: str, rows: list[Row]) -> None:
        super().__init__(reason)
        self.rows = rows


class Skipped(Exception):  # noqa: N818
    """A part needs what is not installed."""
