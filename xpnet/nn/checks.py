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
    """Return whether ``value`` is a real number of Python or NumPy; booleans do not count."""
    is_real = isinstance(value, (int, float, np.integer, np.floating))
    return is_real and not isinstance(value, bool)


def is_integer(value: Any) -> bool:
    """Return whether ``value`` is an integer of Python or NumPy; booleans do not count."""
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def check_flag(name: str, value: bool) -> bool:
    """Return ``value`` if it is a boolean, else raise a ValueError."""
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be true or false, got {value!r}")
    return value


def check_number(name: str, value: float) -> float:
    """Return ``value`` as a float if it is a finite number, else raise a ValueError."""
    number = _to_float(value)
    if not math.isfinite(number):
        raise ValueError(f"{name} must be a finite number, got {value!r}")
    return number


def check_positive(name: str, value: float, *, zero: bool = False) -> float:
    """Return ``value`` as a float if it is positive (or 0), else raise a ValueError."""
    number = _to_float(value)
    if not math.isfinite(number) or number < 0 or (number == 0 and not zero):
        bound = "non-negative" if zero else "positive"
        kind = f"{bound} finite number" if is_number(value) else f"{bound} number"
        raise ValueError(f"{name} must be a {kind}, got {value!r}")
    return number


def _to_float(value: float) -> float:
    """Convert a number to a float, anything else to nan, and too large an integer to infinity."""
    try:
        return float(value) if is_number(value) else math.nan
    except OverflowError:
        return math.inf


def check_normal(name: str, value: float, dtype: npt.DTypeLike) -> None:
    """Raise a ValueError unless ``value`` is 0 or a normal number of the dtype.

    Fused operations treat a subnormal number as 0, and would then divide by 0.
    """
    dtype = np.dtype(dtype)
    with np.errstate(all="ignore"):
        rounded = float(np.asarray(value, dtype))
    smallest, largest = (float(limit) for limit in (np.finfo(dtype).tiny, np.finfo(dtype).max))
    if math.isfinite(rounded) and (value == 0 or abs(rounded) >= smallest):
        return
    became = "subnormal" if 0 < abs(rounded) < smallest else f"{rounded:g}"
    raise ValueError(
        f"{name}={value:g} is {became} in {dtype}: choose a value between {smallest:.3g} and "
        f"{largest:.3g}"
    )


def check_count(name: str, value: Any, *, zero: bool = False) -> int:
    """Return ``value`` as an int if it is positive (or 0), else raise a ValueError."""
    if not is_integer(value) or value < (0 if zero else 1):
        kind = "an integer of at least 0" if zero else "a positive integer"
        raise ValueError(f"{name} must be {kind}, got {value!r}")
    return int(value)


def check_fraction(name: str, value: float, interval: str = "[0, 1)") -> float:
    """Return ``value`` as a float if it lies in ``interval``, else raise a ValueError.

    ``interval`` is written as in ``"[0, 1)"``; each end may be open or closed.
    """
    number = check_positive(name, value, zero=interval.startswith("["))
    if number > 1 or (number == 1 and interval.endswith(")")):
        raise ValueError(f"{name} must lie in {interval}, got {value!r}")
    return number
