"""What a part of the GPU gate is given, and how it ends."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, TypeAlias

__all__ = ["Failed", "Incomplete", "Row", "Settings", "Skipped"]

Row: TypeAlias = dict[str, Any]  # of a table: values by column


@dataclass(frozen=True)
class Settings:
    """How the gate was called."""

    is_rehearsal: bool  # on the stand-in of the tests, at small sizes
    is_quick: bool  # a few tests stand for all
    deadline: float  # when the part will be stopped, in seconds since the epoch

    def left(self) -> float:
        """Give the seconds until the part is stopped."""
        return max(self.deadline - time.time(), 0.1)

    @property
    def device(self) -> str:
        """The device as ``pytest --device`` takes it."""
        return "emulated" if self.is_rehearsal else "cuda"


class _WithRows(Exception):  # noqa: N818
    def __init__(self, reason: str, rows: list[Row] | None = None) -> None:
        super().__init__(reason)
        self.rows = rows or []


class Failed(_WithRows):
    """A part found something wrong; it may have rows all the same."""


class Incomplete(_WithRows):
    """A measurement has run out of time; what it has is right."""


class Skipped(Exception):  # noqa: N818
    """A part needs what is not installed."""
