"""Axes of hyper-parameters, each on its own scale, and of the objective."""

from __future__ import annotations

import importlib
import json
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from xpnet.report.figures import HUGE, SMALL, set_log_axis
from xpnet.report.text import clean, text_width
from xpnet.search.study import Study
from xpnet.spaces import Fixed, LogInteger, LogUniform, OneMinusLogUniform, Range, Scale, Uniform

__all__ = [
    "View",
    "have_room",
    "objective_name",
    "ticks",
    "varying",
    "vertical_ticks",
    "view_of",
    "why_empty",
]


def varying(study: Study) -> dict[str, Scale]:
    """Return the hyper-parameters that are not fixed."""
    return {name: s for name, s in study.space.items() if not isinstance(s, Fixed)}


def objective_name(study: Study) -> str:
    """Return the name of a study's objective for a plot."""
    return study.objective.replace("_", " ")


# Hyper-parameters


def ticks(scale: Scale, most: int) -> list[tuple[float, str]]:
    """Return positions in [0, 1] and labels: round values of a range, or options of a choice."""
    values = _round_values(scale, most) if isinstance(scale, Range) else scale.grid()
    step = math.ceil(len(values) / most)
    return [_tick(scale, value) for value in values[::step]]


def vertical_ticks(scale: Scale) -> list[tuple[float, str]]:
    """Return ticks at the bounds and a few values between, or at up to 20 options of a choice."""
    if not isinstance(scale, Range):
        return ticks(scale, 20)
    kept = [_tick(scale, scale.low), _tick(scale, scale.high)]
    for place, label in ticks(scale, 6):
        if all(abs(place - other) >= 0.08 for other, _ in kept):
            kept.append((place, label))
    return sorted(kept)


def have_room(figure: Any, marks: Sequence[tuple[float, str]], inches: float) -> bool:
    """Return whether labels fit side by side below an axis of this width in inches."""
    halves = [text_width(figure, label, SMALL) / 2 for _, label in marks]
    gaps = [inches * (after - before) for (before, _), (after, _) in pairwise(marks)]
    return all(g > a + b + 0.08 for g, (a, b) in zip(gaps, pairwise(halves), strict=True))


def _tick(scale: Scale, setting: Any) -> tuple[float, str]:
    if isinstance(scale, Range):
        label = re.sub(r"e([-+])0*", lambda e: f"e{e[1].strip('+')}", _digits(scale, setting))
    else:
        label = clean(setting if isinstance(setting, str) else json.dumps(setting)) or '""'
    return scale.position(setting), label


def _digits(scale: Range, value: float) -> str:
    """Format a value with as many digits as its position on the scale needs."""
    if scale.whole:
        return f"{value:g}" if float(f"{value:g}") == value else str(value)
    span = scale.transform(scale.high) - scale.transform(scale.low)
    for digits in range(1, 17):
        label = f"{value:.{digits}g}"
        if isinstance(scale, OneMinusLogUniform) and float(label) >= 1:
            continue
        if abs(scale.transform(float(label)) - scale.transform(value)) <= 0.004 * span:
            return label
    return repr(value)


def _round_values(scale: Range, most: int) -> list[Any]:
    """Return round values of a scale, in order."""
    low, high = scale.low, scale.high
    found: list[float] = []
    if isinstance(scale, LogInteger) and all(end & (end - 1) == 0 for end in (low, high)):
        found = [2**power for power in range(low.bit_length() - 1, high.bit_length())]
    elif isinstance(scale, (LogUniform, LogInteger)):
        found = _round_logs(low, high)
    elif isinstance(scale, OneMinusLogUniform):
        found = [1 - value for value in reversed(_round_logs(1 - high, 1 - low))]
    if len(found) < 2:
        ticker = importlib.import_module("matplotlib.ticker")
        locator = ticker.MaxNLocator(most, steps=(1, 2, 5, 10), integer=scale.whole, min_n_ticks=2)
        found = [float(one) for one in locator.tick_values(low, high) if low <= one <= high]
    return [int(value) if scale.whole else value for value in found]


def _round_logs(low: float, high: float) -> list[float]:
    """Return powers of 10, with 2 and 5 times each if there are few."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    digits = (1, 2, 5) if high < 100 * low else (1,)
    # 10.0**power may differ from the float that 1e<power> denotes.
    found = [float(f"{digit}e{power}") for power in powers for digit in digits]
    return [value for value in found if low * (1 - 1e-9) <= value <= high * (1 + 1e-9)]


# The objective


@dataclass(frozen=True)
class View:
    """The visible part of the objective's axis; worse values are drawn at its edge."""

    scale: Range
    is_maximised: bool

    @classmethod
    def of(
        cls, values: Iterable[float], further: Iterable[float] = (), *, is_maximised: bool
    ) -> View | None:
        """Choose a view that leaves out a few far worse values, to give the others room.

        All finite ``values`` are considered, and those of ``further`` that are better. The result
        is None if no value is finite.
        """
        sign = 1.0 if is_maximised else -1.0
        order = sorted(sign * value for value in values if abs(value) < HUGE)  # leaves out nan
        if not order:
            return None
        median, best = order[len(order) // 2], order[-1]
        low = order[len(order) // 20]  # with fewer than twenty values, the worst
        low = max(order[0], low - 0.25 * (best - low))
        if best > median:
            low = max(low, median - 30 * (best - median))
        best = max([best, *(sign * value for value in further if abs(value) < HUGE)])
        return cls.between(sign * low, sign * best, is_maximised=is_maximised)

    @classmethod
    def between(cls, worst: float, best: float, *, is_maximised: bool) -> View:
        """Make a view from its ends; it is logarithmic if costs exceed 20 times the lowest."""
        low, high = min(worst, best), max(worst, best)
        if low == high:
            margin = 0.05 * (abs(low) or 1.0)
            low, high = low - margin, high + margin
        is_log = not is_maximised and low > 1 / HUGE and high > 20 * low
        return cls(LogUniform(low, high) if is_log else Uniform(low, high), is_maximised)

    @property
    def worst(self) -> float:
        """The worse end of the axis."""
        return float(self.scale.low if self.is_maximised else self.scale.high)

    def is_worse(self, value: float) -> bool:
        """Return whether a value is beyond the worse end of the axis, or not finite."""
        if not abs(value) < HUGE:
            return True
        return value < self.worst if self.is_maximised else value > self.worst

    def fraction(self, value: float) -> float:
        """Return the position of a value between the worst, 0, and the best, 1."""
        if self.is_worse(value):
            return 0.0
        place = self.scale.position(value)
        return place if self.is_maximised else 1 - place

    def set_axis(self, axes: Any, beyond_worst: float = 0.06) -> None:
        """Set up a y axis, extended beyond its worse end by a fraction of its length."""
        scale = self.scale
        if isinstance(scale, LogUniform):
            set_log_axis(axes, scale.low, scale.high)
        else:
            ticker = importlib.import_module("matplotlib.ticker")
            axes.yaxis.set_major_locator(ticker.MaxNLocator(6, steps=(1, 2, 5, 10)))
            axes.ticklabel_format(axis="y", useOffset=False, scilimits=(-4, 6))
        start, end = scale.transform(scale.low), scale.transform(scale.high)
        below, above = (beyond_worst, 0.06) if self.is_maximised else (0.06, beyond_worst)
        span = end - start
        axes.set_ylim(scale.inverse(start - below * span), scale.inverse(end + above * span))

    def ticks(self) -> list[tuple[float, str]]:
        """Return positions from the worst, 0, to the best, 1, and their labels."""
        marks = vertical_ticks(self.scale)
        return marks if self.is_maximised else [(1 - place, label) for place, label in marks[::-1]]


def view_of(study: Study, pruned: Iterable[float] = ()) -> View | None:
    """Choose the view of a study's trials; None if there is nothing to draw."""
    trials = study.complete() if varying(study) else []
    stable = [trial.values[0] for trial in trials if "diverged" not in trial.user_attrs]
    view = View.of(stable, pruned, is_maximised=study.is_maximised)
    everything = [trial.values[0] for trial in trials]
    return view or View.of(everything, pruned, is_maximised=study.is_maximised)


def why_empty(study: Study) -> str:
    """Return why there is nothing to draw."""
    if not varying(study):
        return "all hyper-parameters are fixed"
    n = len(study.trials())
    if not study.complete():
        return f"none of {n:,} trials is complete" if n else "there are no trials yet"
    return f"none of {n:,} trials has a finite result"
