"""How numbers are written on the page."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

__all__ = ["spread"]


def spread(values: Sequence[float], decimals: int = 3) -> str:
    """Write a mean and the standard deviation of a single value."""
    if len(values) < 2:
        return f"{statistics.fmean(values):.{decimals}f}"
    return f"{statistics.fmean(values):.{decimals}f} ± {statistics.stdev(values):.{decimals}f}"
