"""Checks of arguments: numbers, counts and fractions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["check_count", "check_fraction", "check_normal", "check_positive"]


def check_positive(name: str, value: float, *, zero: bool = False) -> float:
    """Return ``value`` as a float, or raise a ValueError naming the argument and what came."""
    bound = "non-negative" if zero else "positive"
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise ValueError(f"{name} must be a {bound} number, got {value!r}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number) or number < 0 or (number == 0 and not zero):
        raise ValueError(f"{name} must be a {bound} finite number, got {value!r}")
    return number


def check_normal(name: str, value: float, dtype: npt.DTypeLike) -> None:
    """Raise a ValueError unless ``value`` is 0 or a normal number of the dtype.

    Fused operations take a subnormal number for 0, and a division by it would be one by 0.
    """
    dtype = np.dtype(dtype)
    with np.errstate(all="ignore"):
        rounded = float(np.asarray(value, dtype))
    smallest, largest = (float(limit) for limit in (np.finfo(dtype).tiny, np.finfo(dtype).max))
    if math.isfinite(rounded) and (value == 0 or abs(rounded) >= smallest):
        return
    became = "subnormal" if 0 < abs(rounded) < smallest else f"{rounded:g}"
    raise ValueError(
        f"{name}={value:g} is {became} in {dtype}: out of its range, which goes from "
        f"{smallest:.3g} to {largest:.3g}"
    )


def check_count(name: str, value: Any) -> int:
    """Return ``value`` as an int, or raise a ValueError naming the argument and what came."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise ValueError(f"{name} must be a positive integer, got {value!r}")
    return int(value)


def check_fraction(name: str, value: float, interval: str = "[0, 1)") -> float:
    """Return ``value`` as a float if it lies in the interval, as it is written, within [0, 1].

    Else raise a ValueError naming the argument and what came.
    """
    number = check_positive(name, value, zero=interval.startswith("["))
    if number > 1 or (number == 1 and interval.endswith(")")):
        raise ValueError(f"{name} must lie in {interval}, got {value!r}")
    return number
