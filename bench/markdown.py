"""Tables and numbers in Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

__all__ = ["spread", "table"]


def table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table."""
    return [
        f"| {' | '.join(titles)} |",
        f"|{'|'.join(' --- ' for _ in titles)}|",
        *(f"| {' | '.join(row)} |" for row in rows),
    ]


def spread(values: Sequence[float], decimals: int = 3) -> str:
    """Write a mean and the standard deviation of a single value."""
    if len(values) < 2:
        return f"{statistics.fmean(values):.{decimals}f}"
    return f"{statistics.fmean(values):.{decimals}f} ± {statistics.stdev(values):.{decimals}f}"
