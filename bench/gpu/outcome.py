"""Settings and outcomes of the parts of the GPU gate."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, TypeAlias

__all__ = ["Failed", "Incomplete", "Row", "Settings", "Skipped"]

Row: TypeAlias = dict[str, Any]  # of a table: values by column


@dataclass(frozen=True)
class Settings:
    """How the gate was called."""

    is_rehearsal: bool  # on the tests' stand-in for CuPy, at small sizes
    is_quick: bool  # only a few tests
    deadline: float  # when the part is stopped, in seconds since the epoch

    def left(self) -> float:
        """Return the seconds until the part is stopped."""
        return max(self.deadline - time.time(), 0.1)

    @property
    def device(self) -> str:
        """The device, as an argument of ``pytest --device``."""
        return "emulated" if self.is_rehearsal else "cuda"


class _WithRows(Exception):  # noqa: N818
    def __init__(self, reason: str, rows: list[Row] | None = None) -> None:
        super().__init__(reason)
        self.rows = rows or []


class Failed(_WithRows):
    """A part found an error; it may still have rows."""


class Incomplete(_WithRows):
    """A measurement ran out of time; the rows that it has are valid."""


class Skipped(Exception):  # noqa: N818
    """A part needs something that is not installed."""
