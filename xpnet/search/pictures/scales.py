"""Axes of hyper-parameters: which ones vary, and ticks on their scales."""

from __future__ import annotations

import importlib
import math
import re
from collections.abc import Sequence
from typing import Any

from xpnet.report.figures import SMALL
from xpnet.report.text import clean, text_width
from xpnet.search.study import Study
from xpnet.spaces import Fixed, LogInteger, LogUniform, OneMinusLogUniform, Range, Scale

__all__ = [
    "drop_crowded",
    "fit_side_by_side",
    "horizontal_ticks",
    "nothing_to_draw",
    "option_ticks",
    "round_logs",
    "round_numbers",
    "varying",
    "vertical_ticks",
]

MOST_ABOVE = 20  # options of a choice one above another, beyond which not every one is named


def varying(study: Study) -> dict[str, Scale]:
    """Give the hyper-parameters that are not fixed."""
    return {name: s for name, s in study.space.items() if not isinstance(s, Fixed)}


def nothing_to_draw(study: Study) -> str | None:
    """Say why there is nothing to be drawn; None if there is."""
    if not varying(study):
        return "all hyper-parameters are fixed"
    if not study.complete():
        n = len(study.trials())
        return f"none of {n:,} trials is complete" if n else "there are no trials yet"
    return None


def round_numbers(low: float, high: float, most: int, *, whole: bool = False) -> list[float]:
    """Give multiples of 1, 2 or 5 times a power of 10."""
    ticker = importlib.import_module("matplotlib.ticker")
    locator = ticker.MaxNLocator(most, steps=(1, 2, 5, 10), integer=whole, min_n_ticks=2)
    found = [float(value) for value in locator.tick_values(low, high)]
    return [value for value in found if low <= value <= high]


def round_logs(low: float, high: float) -> list[float]:
    """Give powers of 10, with their doubles and halves where there are few."""
    start, end = math.floor(math.log10(low)), math.ceil(math.log10(high))
    digits = (1, 2, 5) if math.log10(high / low) < 2 else (1,)
    # Not 10.0**power, which may be beside the number that its letters stand for.
    found = [float(f"{digit}e{power}") for power in range(start, end + 1) for digit in digits]
    return [value for value in found if low <= value <= high]


def _round_ones_minus(low: float, high: float) -> list[float]:
    """Give 0.9, 0.99 and so on; with 0.8, 0.95 and the like between where there are few."""
    start, end = math.floor(-math.log10(1 - low)), math.ceil(-math.log10(1 - high))
    digits = (1, 2, 5) if math.log10((1 - low) / (1 - high)) < 2 else (1,)
    found = [
        float(f"{1 - digit / 10**power:.{power}f}")
        for power in range(start, end + 1)
        for digit in reversed(digits)
    ]
    return [value for value in found if low <= value <= high]


def _round_values(scale: Range, most: int) -> list[Any]:
    """Give values of a scale that are easily read, in order: no more than ``most``."""
    low, high = scale.low, scale.high
    found: list[Any]
    if isinstance(scale, LogInteger) and all(end & (end - 1) == 0 for end in (low, high)):
        found = [2**power for power in range(low.bit_length() - 1, high.bit_length())]
    elif isinstance(scale, (LogUniform, LogInteger)):
        found = round_logs(low, high)
    elif isinstance(scale, OneMinusLogUniform):
        found = _round_ones_minus(low, high)
    else:
        found = round_numbers(low, high, most, whole=scale.whole)
    if len(found) < 2:
        found = round_numbers(low, high, most, whole=scale.whole)
    if len(found) < 2:
        found = [low, high]
    step = math.ceil(len(found) / most)
    return [int(value) if scale.whole else value for value in found[::step]]


def _number(scale: Range, value: float) -> str:
    """Write a value with as many digits as its place on the scale needs."""
    if scale.whole:
        short = re.sub(r"e\+0*", "e", f"{value:g}")
        return short if float(short) == value else str(value)
    start, end = scale.transform(scale.low), scale.transform(scale.high)
    label = repr(value)
    for digits in range(1, 17):
        label = f"{value:.{digits}g}"
        if isinstance(scale, OneMinusLogUniform) and float(label) >= 1:
            continue
        if abs(scale.transform(float(label)) - scale.transform(value)) <= 0.004 * (end - start):
            break
    return re.sub(r"e([-+])0*", lambda found: f"e{found[1].strip('+')}", label)


def _option(setting: Any) -> str:
    """Write a setting of a choice as a recipe does, strings without their quotes."""
    if isinstance(setting, bool):
        return str(setting).lower()
    return clean(str(setting)) or '""'


def drop_crowded(ticks: Sequence[tuple[float, str]], n_kept: int) -> list[tuple[float, str]]:
    """Leave out ticks that are too near to one that stands before; the first ones are kept."""
    kept = list(ticks[:n_kept])
    for place, label in ticks[n_kept:]:
        if all(abs(place - other) >= 0.08 for other, _ in kept):
            kept.append((place, label))
    return sorted(kept)


def vertical_ticks(scale: Scale) -> list[tuple[float, str]]:
    """Give places between 0 and 1, and labels: the bounds and a few between, or all options."""
    if isinstance(scale, Range):
        values = [scale.low, scale.high, *_round_values(scale, 6)]
        return drop_crowded([(scale.position(v), _number(scale, v)) for v in values], 2)
    return option_ticks(scale, MOST_ABOVE)


def option_ticks(scale: Scale, most: int) -> list[tuple[float, str]]:
    """Give places between 0 and 1, and labels, of no more than so many options of a choice."""
    settings = scale.grid()
    step = math.ceil(len(settings) / most)
    return [(scale.position(setting), _option(setting)) for setting in settings[::step]]


def horizontal_ticks(figure: Any, scale: Range, inches: float) -> list[tuple[float, str]]:
    """Give as many ticks as have room side by side."""
    ticks: list[tuple[float, str]] = []
    for most in range(6, 1, -1):
        ticks = [(scale.position(v), _number(scale, v)) for v in _round_values(scale, most)]
        if fit_side_by_side(figure, ticks, inches):
            break
    return ticks


def fit_side_by_side(figure: Any, ticks: Sequence[tuple[float, str]], inches: float) -> bool:
    """Tell whether labels below an axis leave room to each other and to the next panel's."""
    ends = -math.inf
    for place, label in ticks:
        half = text_width(figure, label, SMALL) / 2
        start = place * inches - half
        if start < max(ends + 0.08, -0.23) or start + 2 * half > inches + 0.23:
            return False
        ends = start + 2 * half
    return True
