"""Checks of arguments: numbers, counts, fractions and flags."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = [
    "check_count",
    "check_flag",
    "check_fraction",
    "check_normal",
    "check_number",
    "check_positive",
    "is_integer",
    "is_number",
]


def is_number(value: Any) -> bool:
    """Tell whether ``value`` is a real number, Python's or NumPy's; booleans are none."""
    is_real = isinstance(value, (int, float, np.integer, np.floating))
    return is_real and not isinstance(value, bool)


def is_integer(value: Any) -> bool:
    """Tell whether ``value`` is an integer, Python's or NumPy's; booleans are none."""
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def check_flag(name: str, value: bool) -> bool:
    """Return ``value`` if it is a boolean, or raise a ValueError naming the argument and it."""
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be true or false, got {value!r}")
    return value


def check_number(name: str, value: float) -> float:
    """Return ``value`` as a float if it is finite, or raise a ValueError naming the argument."""
    number = _to_float(value)
    if not math.isfinite(number):
        raise ValueError(f"{name} must be a finite number, got {value!r}")
    return number


def check_positive(name: str, value: float, *, zero: bool = False) -> float:
    """Return ``value`` as a float, or raise a ValueError naming the argument and what came."""
    number = _to_float(value)
    if not math.isfinite(number) or number < 0 or (number == 0 and not zero):
        bound = "non-negative" if zero else "positive"
        kind = f"{bound} finite number" if is_number(value) else f"{bound} number"
        raise ValueError(f"{name} must be a {kind}, got {value!r}")
    return number


def _to_float(value: float) -> float:
    """Convert a number, or give nan; an integer too large for a float becomes infinite."""
    try:
        return float(value) if is_number(value) else math.nan
    except OverflowError:
        return math.inf


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


def check_count(name: str, value: Any, *, zero: bool = False) -> int:
    """Return ``value`` as an int, or raise a ValueError naming the argument and what came."""
    if not is_integer(value) or value < (0 if zero else 1):
        kind = "an integer of at least 0" if zero else "a positive integer"
        raise ValueError(f"{name} must be {kind}, got {value!r}")
    return int(value)


def check_fraction(name: str, value: float, interval: str = "[0, 1)") -> float:
    """Return ``value`` as a float if it lies in the interval, as it is written, within [0, 1].

    Else raise a ValueError naming the argument and what came.
    """
    number = check_positive(name, value, zero=interval.startswith("["))
    if number > 1 or (number == 1 and interval.endswith(")")):
        raise ValueError(f"{name} must lie in {interval}, got {value!r}")
    return number
