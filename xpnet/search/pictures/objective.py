"""The objective of a study as an axis: its name, and the part of its values that is drawn."""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from xpnet.report.figures import HUGE, set_log_axis
from xpnet.search.pictures.scales import drop_crowded, round_logs, round_numbers
from xpnet.search.study import Study

__all__ = ["View", "objective_name", "view_of"]


def objective_name(study: Study) -> str:
    """Name what a study's trials are told apart by."""
    score = study.recipe.settings.loss.score_name
    return study.objective.replace("_", " ").replace("accuracy", score)


def view_of(study: Study, pruned: Iterable[float] = ()) -> View | None:
    """Choose the part that a study's trials are drawn in; None if no value is finite."""
    trials = study.complete()
    stable = [trial.values[0] for trial in trials if "diverged" not in trial.user_attrs]
    everything = [trial.values[0] for trial in trials]
    for values in (stable, everything):
        view = View.of(values, pruned, is_maximised=study.is_maximised)
        if view is not None:
            return view
    return None


@dataclass(frozen=True)
class View:
    """The part of the objective's axis that is drawn; what is worse has its place at the edge."""

    worst: float
    best: float
    is_maximised: bool
    is_log: bool

    @classmethod
    def of(
        cls, values: Iterable[float], further: Iterable[float] = (), *, is_maximised: bool
    ) -> View | None:
        """Choose it, so that a few that are far worse do not leave the others no room.

        Parameters
        ----------
        values : iterable of float
            Those that are to be told apart; what is not finite has no say.
        further : iterable of float
            Those of which only the better ones have a say.
        is_maximised : bool

        Returns
        -------
        View or None
            None if no value is finite.
        """
        sign = 1.0 if is_maximised else -1.0
        order = sorted(sign * value for value in values if abs(value) < HUGE)  # nan is not
        if not order:
            return None
        median, best = order[len(order) // 2], order[-1]
        low = order[len(order) // 20]  # with less than twenty, the worst
        low = max(order[0], low - 0.25 * (best - low))
        if best > median:
            low = max(low, median - 30 * (best - median))
        best = max(best, *(sign * value for value in further if abs(value) < HUGE), best)
        return cls.between(sign * low, sign * best, is_maximised=is_maximised)

    @classmethod
    def between(cls, worst: float, best: float, *, is_maximised: bool) -> View:
        """Make one from its ends: by logarithms where costs are over 20 times the lowest."""
        is_log = not is_maximised and best > 1 / HUGE and worst > 20 * best
        return cls(worst, best, is_maximised, is_log)

    def is_worse(self, value: float) -> bool:
        """Tell whether a value is not on the axis."""
        if not abs(value) < HUGE:
            return True
        return value < self.worst if self.is_maximised else value > self.worst

    def fraction(self, value: float) -> float:
        """Give the place of a value between the worst, 0, and the best, 1."""
        if self.is_worse(value):
            return 0.0
        if self.best == self.worst:
            return 1.0
        start, end, here = (self._place(v) for v in (self.worst, self.best, value))
        return min((here - start) / (end - start), 1.0)

    def limits(self, beyond_worst: float = 0.06) -> tuple[float, float]:
        """Give the ends of the axis, with room of so many lengths of the part that is drawn."""
        start, end = self._place(self.worst), self._place(self.best)
        span = end - start
        ends = [start - beyond_worst * span, end + 0.06 * span]
        if not span:
            ends = [end - 0.05 * (abs(end) or 1.0), end + 0.05 * (abs(end) or 1.0)]
        if self.is_log:
            ends = [10**one for one in ends]
        return min(ends), max(ends)

    def set_axis(self, axes: Any, beyond_worst: float = 0.06) -> None:
        """Make it an y axis."""
        if self.is_log:
            set_log_axis(axes, self.best, self.worst)
        else:
            ticker = importlib.import_module("matplotlib.ticker")
            axes.yaxis.set_major_locator(ticker.MaxNLocator(6, steps=(1, 2, 5, 10)))
            axes.ticklabel_format(axis="y", useOffset=False, scilimits=(-4, 6))
        axes.set_ylim(*self.limits(beyond_worst))

    def ticks(self) -> list[tuple[float, str]]:
        """Give places between 0 and 1, and the numbers there: the ends, and a few between."""
        low, high = sorted((self.worst, self.best))
        if low == high:
            return [(1.0, f"{self.best:.4g}")]
        ends = [self.worst, self.best]
        inner = round_logs(low, high) if self.is_log else round_numbers(low, high, 5)
        said = [(value, f"{value:.4g}") for value in [*ends, *inner]]
        return drop_crowded([(self.fraction(value), label) for value, label in said], len(ends))

    def _place(self, value: float) -> float:
        return math.log10(value) if self.is_log else value
