"""Pictures of a study: importance, slices, parallel coordinates, best of n trials.

Each function gives the bytes of a PNG file, as those of :mod:`xpnet.report` do: the same input
gives the same bytes, and pyplot is not used.
"""

from __future__ import annotations

import importlib
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from optuna.trial import TrialState

from xpnet.report import (
    CENTRED,
    HUGE,
    LABEL,
    SUBTITLE,
    TRAIN,
    VALIDATION,
    clean,
    make_figure,
    png_of,
    shorten,
    style,
    text_width,
    write_header,
)
from xpnet.search.results import best_of, best_so_far, importances
from xpnet.search.study import Study
from xpnet.spaces import Choice, Fixed, LogInteger, LogUniform, OneMinusLogUniform, Range, Scale

__all__ = ["draw_best", "draw_importances", "draw_parallel", "draw_slices"]

SMALL = 8.5  # size of the text at ticks, in points
LINE = 0.19  # inches from one line of such text to the next
MOST_COLUMNS = 4  # panels in a row
MOST_BESIDE, MOST_ABOVE = 12, 20  # options of a choice, beyond which not every one is named
MOST_THICK = 20  # lines
MOST_N = 300  # numbers of trials at which the best of so many is computed
GREY = "0.55"
COLOURS = (TRAIN, VALIDATION, "#3a8f4d", "#7d1d3f", "#c9a227", "#5b4a9c", "#2a9d9d", "0.35")
DASHES = ("-", "--", ":", "-.")  # one after the other, where there are more curves than colours


def draw_importances(study: Study) -> bytes:
    """Draw how much each hyper-parameter decides whether a trial is a good one, the most on top.

    Parameters
    ----------
    study : Study

    Returns
    -------
    bytes
        A PNG file, 1200 pixels wide. Where :func:`.results.importances` tells nothing, it says so.

    Raises
    ------
    ImportError
        If matplotlib is missing; see :func:`xpnet.report.plotting_problem`.
    """
    with style():
        return png_of(_importances_figure(study))


def draw_slices(study: Study) -> bytes:
    """Draw the objective against each hyper-parameter that varies, on its own scale.

    A trial is missing from the panels of those hyper-parameters that it does not have. The axis of
    the objective leaves out what is far worse than the rest, and trials that diverged: they are
    triangles at its edge.

    Parameters
    ----------
    study : Study

    Returns
    -------
    bytes
        A PNG file, up to 1440 pixels wide: four panels in a row. Where no trial is complete, or
        nothing varies, it says so.

    Raises
    ------
    ImportError
        If matplotlib is missing; see :func:`xpnet.report.plotting_problem`.
    """
    with style():
        return png_of(_slices_figure(study))


def draw_parallel(study: Study) -> bytes:
    """Draw each complete trial as a line through its hyper-parameters to what came of it.

    The axes are the hyper-parameters that vary, the most important first, or in the order of the
    space where that is not known; each runs on its own scale. The last one is the objective, the
    best on top; its end takes in all that is far worse. A line is broken where the trial does not
    have the hyper-parameter. The best tenth of the trials, or twenty, are drawn over the others
    and thicker, and the very best one in a colour of its own.

    Parameters
    ----------
    study : Study

    Returns
    -------
    bytes
        A PNG file, 1440 pixels wide from three hyper-parameters to nine, wider with more. Where no
        trial is complete, or nothing varies, it says so.

    Raises
    ------
    ImportError
        If matplotlib is missing; see :func:`xpnet.report.plotting_problem`.
    """
    with style():
        return png_of(_parallel_figure(study))


def draw_best(
    curves: Mapping[str, Sequence[float]],
    *,
    is_maximised: bool,
    objective: str,
    title: str,
    so_far: Sequence[float] | None = None,
) -> bytes:
    """Draw what the best of n trials would be, had others been drawn, against n.

    A line is the mean of :func:`.results.best_of`, with a band from the 5 % to the 95 % quantile.
    If any value is not finite, most means are none: all lines are then medians, and it says so.

    Parameters
    ----------
    curves : mapping of str to sequence of float
        Values of trials, by what the legend is to say.
    is_maximised : bool
    objective : str
        What the values are.
    title : str
    so_far : sequence of float, optional
        Values of trials in the order in which they came, or the best so far of these: a line of
        steps.

    Returns
    -------
    bytes
        A PNG file of 1080 x 648 pixels.

    Raises
    ------
    ImportError
        If matplotlib is missing; see :func:`xpnet.report.plotting_problem`.
    """
    with style():
        return png_of(_best_figure(curves, is_maximised, objective, title, so_far))


@dataclass(frozen=True)
class _View:
    """The part of the objective's axis that is drawn; what is worse has its place at the edge."""

    worst: float
    best: float
    is_maximised: bool
    is_log: bool

    @classmethod
    def of(
        cls, values: Iterable[float], further: Iterable[float] = (), *, is_maximised: bool
    ) -> _View | None:
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
        _View or None
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
    def between(cls, worst: float, best: float, *, is_maximised: bool) -> _View:
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
        ticker = importlib.import_module("matplotlib.ticker")
        if self.is_log:
            axes.set_yscale("log")
            is_short = self.worst < 1000 * self.best
            axes.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5) if is_short else (1,)))
            axes.yaxis.set_major_formatter(ticker.StrMethodFormatter("{x:g}"))
            axes.yaxis.set_minor_locator(ticker.NullLocator())
        else:
            axes.yaxis.set_major_locator(ticker.MaxNLocator(6, steps=(1, 2, 5, 10)))
            axes.ticklabel_format(axis="y", useOffset=False, scilimits=(-4, 6))
        axes.set_ylim(*self.limits(beyond_worst))

    def ticks(self) -> list[tuple[float, str]]:
        """Give places between 0 and 1, and the numbers there: the ends, and a few between."""
        low, high = sorted((self.worst, self.best))
        if low == high:
            return [(1.0, f"{self.best:.4g}")]
        ends = [self.worst, self.best]
        inner = _round_logs(low, high) if self.is_log else _round_numbers(low, high, 5)
        said = [(value, f"{value:.4g}") for value in [*ends, *inner]]
        return _apart([(self.fraction(value), label) for value, label in said], len(ends))

    def _place(self, value: float) -> float:
        return math.log10(value) if self.is_log else value


# Ticks on scales


def _round_numbers(low: float, high: float, most: int, *, whole: bool = False) -> list[float]:
    ticker = importlib.import_module("matplotlib.ticker")
    locator = ticker.MaxNLocator(most, steps=(1, 2, 5, 10), integer=whole, min_n_ticks=2)
    found = [float(value) for value in locator.tick_values(low, high)]
    return [value for value in found if low <= value <= high]


def _round_logs(low: float, high: float) -> list[float]:
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
        found = _round_logs(low, high)
    elif isinstance(scale, OneMinusLogUniform):
        found = _round_ones_minus(low, high)
    else:
        found = _round_numbers(low, high, most, whole=scale.whole)
    if len(found) < 2:
        found = _round_numbers(low, high, most, whole=scale.whole)
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


def _apart(ticks: Sequence[tuple[float, str]], n_kept: int) -> list[tuple[float, str]]:
    """Leave out ticks that are too near to one that stands before; the first ones are kept."""
    kept = list(ticks[:n_kept])
    for place, label in ticks[n_kept:]:
        if all(abs(place - other) >= 0.08 for other, _ in kept):
            kept.append((place, label))
    return sorted(kept)


def _vertical_ticks(scale: Scale) -> list[tuple[float, str]]:
    """Give places between 0 and 1, and labels: the bounds and a few between, or all options."""
    if isinstance(scale, Range):
        values = [scale.low, scale.high, *_round_values(scale, 6)]
        return _apart([(scale.position(v), _number(scale, v)) for v in values], 2)
    return _options(scale, MOST_ABOVE)


def _options(scale: Scale, most: int) -> list[tuple[float, str]]:
    settings = scale.grid()
    step = math.ceil(len(settings) / most)
    return [(scale.position(setting), _option(setting)) for setting in settings[::step]]


def _horizontal_ticks(figure: Any, scale: Range, inches: float) -> list[tuple[float, str]]:
    """Give as many ticks as have room side by side."""
    ticks: list[tuple[float, str]] = []
    for most in range(6, 1, -1):
        ticks = [(scale.position(v), _number(scale, v)) for v in _round_values(scale, most)]
        if _fit(figure, ticks, inches):
            break
    return ticks


def _fit(figure: Any, ticks: Sequence[tuple[float, str]], inches: float) -> bool:
    """Tell whether labels below an axis leave room to each other and to the next panel's."""
    ends = -math.inf
    for place, label in ticks:
        half = text_width(figure, label, SMALL) / 2
        start = place * inches - half
        if start < max(ends + 0.08, -0.23) or start + 2 * half > inches + 0.23:
            return False
        ends = start + 2 * half
    return True


# Text


def _wrapped(figure: Any, text: str, points: float, inches: float, most: int = 3) -> list[str]:
    """Divide a name into lines: at its points, else at underscores, else anywhere."""
    lines = [""]
    for piece in _pieces(figure, clean(text), points, inches):
        if text_width(figure, lines[-1] + piece, points) <= inches:
            lines[-1] += piece
        else:
            lines.append(piece)
    lines = [line.strip() for line in lines if line.strip()]
    if len(lines) > most:
        rest = "".join(lines[most - 1 :])
        lines[most - 1 :] = [shorten(figure, f"{rest}…", points, inches)]
    return lines


def _pieces(figure: Any, text: str, points: float, inches: float) -> list[str]:
    """Divide a text into pieces of no more than a width."""
    found = [text[:300]]  # more than has room
    for at in (r"[^. ]*[. ]?", r"[^_]*_?", r"."):
        divided: list[str] = []
        for piece in found:
            fits = text_width(figure, piece, points) <= inches
            divided += [piece] if fits else re.findall(at, piece)
        found = [piece for piece in divided if piece]
    return found


def _sentence(title: str, line: str) -> Any:
    """Make a picture that says why there is nothing in it."""
    figure = make_figure(10, 1.6)
    write_header(figure, title, "")
    figure.text(0.5, 0.36, line, **CENTRED, fontsize=SUBTITLE, color="0.35", parse_math=False)
    return figure


def _objective(study: Study) -> str:
    """Name what a study's trials are told apart by."""
    score = study.recipe.settings.loss.score_name
    return study.objective.replace("_", " ").replace("accuracy", score)


def _counts(study: Study) -> str:
    """Say how many trials there are."""
    found = Counter(trial.state for trial in study.trials())
    states = ((TrialState.COMPLETE, "complete"), (TrialState.PRUNED, "pruned"))
    said = [f"{found[state]:,} {word}" for state, word in states if found[state]]
    said += [f"{found[TrialState.FAIL]:,} failed"] if found[TrialState.FAIL] else []
    n = sum(found[state] for state in (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL))
    return f"trial{'s' * (n != 1)}: {', '.join(said)}"


def _varying(study: Study) -> dict[str, Scale]:
    return {name: s for name, s in study.space.items() if not isinstance(s, Fixed)}


def _nothing(study: Study) -> str | None:
    """Say why there is nothing to be drawn; None if there is."""
    if not _varying(study):
        return "all hyper-parameters are fixed"
    if not study.complete():
        n = len(study.trials())
        return f"none of {n:,} trials is complete" if n else "there are no trials yet"
    return None


def _blues() -> Any:
    """Make a map of colours without those that cannot be seen on white."""
    matplotlib = importlib.import_module("matplotlib")
    colours = importlib.import_module("matplotlib.colors")
    return colours.ListedColormap(matplotlib.colormaps["Blues"](np.linspace(0.32, 1.0, 256)))


# Importance


def _importances_figure(study: Study) -> Any:
    title = f"{study.name}: importance of hyper-parameters"
    shares = importances(study)
    if not shares:
        return _sentence(title, _no_importance(study))
    # All in inches.
    width, header, footer, pitch, right = 10.0, 1.0, 0.3, 0.42, 0.7
    height = header + len(shares) * pitch + footer
    figure = make_figure(width, height)
    n = sum(math.isfinite(trial.values[0]) for trial in study.complete())
    line = "what sets the best of the trials apart: look for the first ones first"
    write_header(figure, title, f"{line} (PED-ANOVA, from {n:,} trials)")
    labels = [shorten(figure, clean(name), LABEL, 5.0) for name in shares]
    left = max(text_width(figure, label, LABEL) for label in labels) + 0.35
    where = (left, footer, width - left - right, len(shares) * pitch)
    axes = figure.add_axes(_fractions(figure, *where))
    rows = range(len(shares))
    axes.barh(rows, list(shares.values()), 0.62, color=TRAIN)
    axes.set_ylim(len(shares) - 0.5, -0.5)
    axes.set_xlim(0, max(shares.values()))
    axes.set_xticks([])
    axes.set_yticks(rows, labels, fontsize=LABEL, parse_math=False)
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right", "bottom"]].set_visible(False)
    for row, share in zip(rows, shares.values(), strict=True):
        axes.annotate(
            f"{share:.1%}",
            (share, row),
            (5, 0),
            textcoords="offset points",
            va="center",
            fontsize=LABEL,
        )
    return figure


def _no_importance(study: Study) -> str:
    """Say why nothing is known."""
    values = [trial.values[0] for trial in study.complete() if math.isfinite(trial.values[0])]
    n = len(values)
    if n > 1 and len(set(values)) == 1:
        return f"all of {n:,} complete trials came to the same: nothing tells good from bad"
    verb, number = ("has" if n == 1 else "have"), f"{n:,}" if n else "no"
    return f"{number} trial{'s' * (n != 1)} {verb} a finite result: too few to tell good from bad"


def _fractions(
    figure: Any, left: float, bottom: float, width: float, height: float
) -> tuple[float, float, float, float]:
    """Bring inches to shares of a figure."""
    whole, high = figure.get_size_inches()
    return float(left / whole), float(bottom / high), float(width / whole), float(height / high)


# Slices


@dataclass(frozen=True)
class _Point:
    """A trial in the panels."""

    number: int
    value: float
    is_complete: bool
    settings: dict[str, Any]


def _points(study: Study) -> list[_Point]:
    """List the trials that have a value: the pruned ones their last."""
    found = []
    for trial in study.trials():
        is_complete = trial.state == TrialState.COMPLETE
        reports = trial.intermediate_values
        if is_complete or (trial.state == TrialState.PRUNED and reports):
            value = trial.values[0] if is_complete else reports[max(reports)]
            found.append(_Point(trial.number, value, is_complete, study.settings_of(trial)))
    return found


def _is_beyond(view: _View | None, point: _Point) -> bool:
    """Tell whether a point has its place at the edge."""
    return view is None or view.is_worse(point.value)


def _view_of(study: Study, pruned: Iterable[float] = ()) -> _View | None:
    trials = study.complete()
    stable = [trial.values[0] for trial in trials if "diverged" not in trial.user_attrs]
    everything = [trial.values[0] for trial in trials]
    for values in (stable, everything):
        view = _View.of(values, pruned, is_maximised=study.is_maximised)
        if view is not None:
            return view
    return None


def _slices_figure(study: Study) -> Any:
    title = f"{study.name}: hyper-parameters one by one"
    why = _nothing(study)
    if why is not None:
        return _sentence(title, why)
    scales = _varying(study)
    points = _points(study)
    view = _view_of(study, [point.value for point in points if not point.is_complete])
    colours = _colours_of(points)

    # All in inches.
    n_rows = math.ceil(len(scales) / MOST_COLUMNS)
    n_columns = math.ceil(len(scales) / n_rows)
    side, gap, left, right, above = 2.3125, 0.3, 0.85, 1.0, 1.08
    if n_columns < 3:
        side = 5.0 if n_columns == 1 else 3.2
    tall = 2.1 if n_columns > 2 else 2.8
    width = left + n_columns * side + (n_columns - 1) * gap + right
    figure = make_figure(width, 1)
    names = [_wrapped(figure, name, LABEL, side + gap - 0.1) for name in scales]
    marks = [_marks(figure, scale, side) for scale in scales.values()]
    heads, feet = [], []
    for first in range(0, len(scales), n_columns):
        heads.append(0.12 + LINE * max(len(name) for name in names[first : first + n_columns]))
        feet.append(max(mark.footer for mark in marks[first : first + n_columns]) + 0.12)
    height = above + sum(heads) + n_rows * tall + sum(feet)
    figure.set_size_inches(width, height)
    write_header(figure, title, f"{_objective(study)}; {_counts(study)}")

    ranked = study.ranked()
    best = ranked[0].number
    panels = []
    y = above
    for place, (name, scale) in enumerate(scales.items()):
        row, column = divmod(place, n_columns)
        if column == 0:
            y += heads[row] + (tall + feet[row - 1] if row else 0)
        where = (left + column * (side + gap), height - y - tall, side, tall)
        axes = figure.add_axes(_fractions(figure, *where))
        panels.append(axes)
        _slice(axes, view, name, scale, points, best, colours, is_maximised=study.is_maximised)
        axes.set_title("\n".join(names[place]), fontsize=LABEL, pad=5, parse_math=False)
        marks[place].write(axes)
        axes.tick_params(axis="y", labelleft=column == 0, labelsize=SMALL)
        if column == 0:
            axes.set_ylabel(_objective(study), fontsize=LABEL)
    bar = (width - right + 0.2, height - above - heads[0] - tall, 0.14, tall)
    _number_bar(figure, bar, colours)
    _slices_legend(figure, view, points, best, is_maximised=study.is_maximised)
    return figure


def _colours_of(points: Sequence[_Point]) -> dict[str, Any]:
    """Choose what the numbers of trials are drawn in."""
    colours = importlib.import_module("matplotlib.colors")
    numbers = [point.number for point in points]
    low, high = min(numbers), max(numbers)
    return {"cmap": _blues(), "norm": colours.Normalize(low, max(high, low + 1))}


def _number_bar(
    figure: Any, where: tuple[float, float, float, float], colours: Mapping[str, Any]
) -> None:
    """Say which colour is which trial's."""
    ticker = importlib.import_module("matplotlib.ticker")
    cm = importlib.import_module("matplotlib.cm")
    axes = figure.add_axes(_fractions(figure, *where))
    figure.colorbar(cm.ScalarMappable(**colours), cax=axes)
    axes.yaxis.set_major_locator(ticker.MaxNLocator(5, integer=True))
    axes.tick_params(labelsize=SMALL)
    axes.set_title("trial", fontsize=LABEL, pad=5)


def _slices_legend(
    figure: Any, view: _View | None, points: Sequence[_Point], best: int, *, is_maximised: bool
) -> None:
    """Say what the marks are, of those that there are."""
    lines = importlib.import_module("matplotlib.lines")

    def mark(label: str, **look: Any) -> Any:
        return lines.Line2D([], [], linestyle="", label=label, **look)

    hollow = {"markerfacecolor": "none", "markeredgecolor": GREY}
    beyond = [point for point in points if _is_beyond(view, point)]
    handles = []
    if not any(point.number == best for point in beyond):
        handles.append(mark(f"the best, trial {best}", marker="*", color=VALIDATION, markersize=11))
    if any(not point.is_complete for point in points):
        handles.append(mark("pruned, at its last value", marker="o", markersize=4, **hollow))
    if beyond:
        marker = "v" if is_maximised else "^"
        label = "worse than shown, or diverged"
        handles.append(mark(label, marker=marker, color="0.45", markersize=6))
    figure.legend(
        handles=handles,
        loc="upper center",
        bbox_to_anchor=(0.5, 1 - 0.76 / figure.get_figheight()),
        ncols=len(handles),
        frameon=False,
        borderaxespad=0,
        handletextpad=0.3,
        fontsize=LABEL,
    )


@dataclass(frozen=True)
class _Marks:
    """The ticks below a panel."""

    ticks: list[tuple[float, str]]
    is_slanted: bool
    footer: float  # inches that they take

    def write(self, axes: Any) -> None:
        places, labels = zip(*self.ticks, strict=True)
        slant = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"}
        axes.set_xticks(
            places,
            labels,
            fontsize=SMALL,
            parse_math=False,
            **(slant if self.is_slanted else {}),
        )


def _marks(figure: Any, scale: Scale, side: float) -> _Marks:
    """Choose the ticks of a panel so wide, and whether they have to be slanted."""
    if isinstance(scale, Range):
        return _Marks(_horizontal_ticks(figure, scale, side / 1.08), is_slanted=False, footer=0.3)
    ticks = _options(scale, MOST_BESIDE)
    if _fit(figure, ticks, side / 1.08):
        return _Marks(ticks, is_slanted=False, footer=0.3)
    ticks = [(place, shorten(figure, label, SMALL, 1.2)) for place, label in ticks]
    longest = max(text_width(figure, label, SMALL) for _, label in ticks)
    return _Marks(ticks, is_slanted=True, footer=0.3 + longest * math.sin(math.radians(40)))


def _slice(
    axes: Any,
    view: _View | None,
    name: str,
    scale: Scale,
    points: Sequence[_Point],
    best: int,
    colours: Mapping[str, Any],
    *,
    is_maximised: bool,
) -> None:
    """Draw one panel."""
    edge, triangle = (0.035, "v") if is_maximised else (0.965, "^")
    axes.set_xlim(-0.04, 1.04)
    if view is None:
        axes.set_ylim(0, 1)
        axes.set_yticks([])
    else:
        view.set_axis(axes, 0.14 if any(_is_beyond(view, p) for p in points) else 0.06)
    axes.grid(color="0.9")
    axes.set_axisbelow(True)
    groups: dict[tuple[bool, bool], list[_Point]] = {}
    for point in points:
        if name in point.settings:
            groups.setdefault((point.is_complete, _is_beyond(view, point)), []).append(point)
    for (is_complete, is_beyond), shown in groups.items():
        look: dict[str, Any] = {"s": 14, "facecolors": "none", "edgecolors": GREY, "zorder": 2}
        if is_complete:
            numbers = [point.number for point in shown]
            look = {"s": 26, "c": numbers, "edgecolors": "0.4", "linewidths": 0.4, "zorder": 3}
            look |= colours
        if is_beyond:
            look |= {"marker": triangle, "transform": axes.get_xaxis_transform()}
        heights = [edge if is_beyond else point.value for point in shown]
        axes.scatter([_place(scale, point, name) for point in shown], heights, **look)
        for point in shown:
            if point.number == best and not is_beyond:
                where = ([_place(scale, point, name)], [point.value])
                axes.scatter(*where, s=120, marker="*", color=VALIDATION, zorder=4)


def _place(scale: Scale, point: _Point, name: str) -> float:
    """Give a point's place across; those of one choice lie beside each other."""
    place = scale.position(point.settings[name])
    if isinstance(scale, Choice):
        place += (point.number * 0.6180339887 % 1 - 0.5) * 0.5 / len(scale.settings)
    return place


# Parallel coordinates


def _parallel_figure(study: Study) -> Any:
    title = f"{study.name}: trials from their hyper-parameters to what came of them"
    why = _nothing(study)
    if why is not None:
        return _sentence(title, why)
    scales = _varying(study)
    order = [*(name for name in importances(study) if name in scales)]
    is_known = bool(order)
    scales = {name: scales[name] for name in dict.fromkeys([*order, *scales])}
    view, ranked = _view_of(study), study.ranked()

    # All in inches.
    left, right, below, tall = 0.75, 1.0, 0.35, 3.9
    pitch = max(1.13, (min(12.0, 7.0 + 1.7 * len(scales)) - left - right) / len(scales))
    width = left + len(scales) * pitch + right
    figure = make_figure(width, 1)
    heads = [_wrapped(figure, n, LABEL, min(pitch, 2 * left) - 0.12) for n in scales]
    heads.append(_wrapped(figure, _objective(study), LABEL, min(pitch, 2 * right) - 0.12))
    above = 1.0 + LINE * max(len(head) for head in heads)
    height = above + tall + below
    figure.set_size_inches(width, height)
    n = len(ranked)
    line = f"{n:,} complete trial{'s' * (n != 1)}"
    if view is not None:
        line += f"; orange: the best, trial {ranked[0].number}"
    write_header(figure, title, f"{line}; the most important first" if is_known else line)
    where = (left, below, len(scales) * pitch, tall)
    axes = figure.add_axes(_fractions(figure, *where))
    axes.set_axis_off()
    axes.set(xlim=(0, len(scales)), ylim=(0, 1))

    marks = [] if view is None else view.ticks()
    if view is None:
        marks = [(0.0, "not finite")]
    elif any(view.is_worse(trial.values[0]) for trial in ranked):
        is_one = view.worst == view.best
        sign = "≤" if view.is_maximised else "≥"
        marks = [(0.0, "worse"), *marks] if is_one else [(0.0, f"{sign} {marks[0][1]}"), *marks[1:]]
    ticks = [*(_vertical_ticks(scale) for scale in scales.values()), marks]
    _parallel_lines(axes, study, scales, view)
    for place, (head, labels) in enumerate(zip(heads, ticks, strict=True)):
        is_last = place == len(scales)
        room = right if is_last else pitch - 0.15
        _parallel_axis(figure, axes, place, head, labels, room)
    return figure


def _parallel_lines(
    axes: Any, study: Study, scales: Mapping[str, Scale], view: _View | None
) -> None:
    """Draw the trials, the worst first."""
    collections = importlib.import_module("matplotlib.collections")
    ranked = study.ranked()
    blues = _blues()
    n_thick = min(math.ceil(len(ranked) / 10), MOST_THICK)
    opacity = min(0.75, max(0.2, 40 / len(ranked)))
    lines, colours, widths, alone = [], [], [], []
    for rank in reversed(range(len(ranked))):
        trial = ranked[rank]
        settings = study.settings_of(trial)
        result = 0.0 if view is None else view.fraction(trial.values[0])
        heights = [
            scale.position(settings[name]) if name in settings else math.nan
            for name, scale in scales.items()
        ]
        heights.append(result)
        is_thick = rank < n_thick
        colour = (*blues(result)[:3], 0.95 if is_thick else opacity)
        if rank == 0 and view is not None:
            colour = importlib.import_module("matplotlib.colors").to_rgba(VALIDATION)
        lines.append(list(enumerate(heights)))
        colours.append(colour)
        widths.append(2.6 if is_thick else 1.0)
        there = [False, *(not math.isnan(y) for y in heights), False]
        alone += [  # ends of no line
            (x, y, colour)
            for x, y in enumerate(heights)
            if there[x + 1] and not there[x] and not there[x + 2]
        ]
    axes.add_collection(
        collections.LineCollection(
            lines, colors=colours, linewidths=widths, clip_on=False, zorder=2, capstyle="round"
        )
    )
    if alone:
        x, y, colours = zip(*alone, strict=True)
        axes.scatter(x, y, s=14, color=colours, clip_on=False, zorder=2)


def _parallel_axis(
    figure: Any,
    axes: Any,
    place: int,
    head: Sequence[str],
    ticks: Sequence[tuple[float, str]],
    room: float,
) -> None:
    """Draw one of the vertical axes, its name over it and its labels at its right."""
    effects = importlib.import_module("matplotlib.patheffects")
    axes.plot((place, place), (0, 1), color="0.25", linewidth=1, clip_on=False, zorder=3)
    at = {"textcoords": "offset points", "annotation_clip": False, "parse_math": False}
    axes.annotate(
        "\n".join(head), (place, 1), (0, 9), ha="center", va="bottom", fontsize=LABEL, **at
    )
    for y, label in ticks:
        axes.plot((place,), (y,), marker="_", color="0.25", markersize=7, clip_on=False, zorder=3)
        axes.annotate(
            shorten(figure, label, SMALL, room - 0.1),
            (place, y),
            (5, 0),
            va="center",
            fontsize=SMALL,
            zorder=4,
            path_effects=[effects.withStroke(linewidth=3, foreground="white")],
            **at,
        )


# Best of n


def _best_figure(
    curves: Mapping[str, Sequence[float]],
    is_maximised: bool,
    objective: str,
    title: str,
    so_far: Sequence[float] | None,
) -> Any:
    worst = -math.inf if is_maximised else math.inf
    given = {
        label: [worst if math.isnan(value) else float(value) for value in values]
        for label, values in curves.items()
        if len(values)
    }
    is_finite = all(abs(value) < HUGE for values in given.values() for value in values)
    shown = {}
    for label, values in given.items():
        rows = _best_rows(values, is_maximised=is_maximised, is_finite=is_finite)
        if rows:
            shown[label] = rows
    steps = _steps(so_far or (), is_maximised=is_maximised)
    if not shown and not steps:
        return _sentence(title, "there are no values" if not given else "no value is finite")

    figure = make_figure(9, 5.4)
    middle = "mean" if is_finite else "median, as not all values are finite"
    line = f"had others been drawn; line: {middle}; band: 5 % to 95 %"
    write_header(figure, title, f"the best of n trials, {line}")
    axes = figure.add_axes(_fractions(figure, 0.9, 0.62, 7.85, 3.85))
    handles = {}
    for place, (label, rows) in enumerate(shown.items()):
        n, middles, lows, highs = zip(*rows, strict=True)
        colour = COLOURS[place % len(COLOURS)]
        dash = DASHES[place // len(COLOURS) % len(DASHES)]
        axes.fill_between(n, lows, highs, color=colour, alpha=0.15, linewidth=0)
        look = {"marker": "o", "clip_on": False} if len(n) == 1 else {}
        (handles[label],) = axes.plot(n, middles, color=colour, linestyle=dash, zorder=3, **look)
        if len(n) == 1:
            axes.plot(n * 2, (lows[0], highs[0]), color=colour, alpha=0.3, clip_on=False)
    so_far_handle = None
    if steps:
        n, best = zip(*steps, strict=True)
        look = {"marker": "s", "markersize": 4, "clip_on": False} if len(n) == 1 else {}
        (so_far_handle,) = axes.step(
            n, best, where="post", color="0.2", linewidth=1.2, zorder=2.5, **look
        )
    _best_view(given, shown, steps, is_maximised=is_maximised).set_axis(axes, 0.15)
    last = max([len(values) for values in given.values()] + [n for n, _ in steps])
    axes.set_xlim(1, max(last, 2))
    inner = [n for n in _round_numbers(1, max(last, 2), 8, whole=True) if n - 1 >= last / 20]
    axes.set_xticks([1, *(n for n in inner if n > 1)])
    axes.set_xlabel("n, trials")
    axes.set_ylabel(objective, parse_math=False)
    axes.grid(color="0.9")
    axes.set_axisbelow(True)
    _best_legend(figure, axes, handles, so_far_handle, is_maximised=is_maximised)
    return figure


def _best_rows(
    values: Sequence[float], *, is_maximised: bool, is_finite: bool
) -> list[tuple[int, float, float, float]]:
    """Give n, middle and both ends of the band, where the middle is finite."""
    numbers = np.unique(np.geomspace(1, len(values), MOST_N).round().astype(int))
    if len(values) <= MOST_N:
        numbers = np.arange(1, len(values) + 1)
    found = []
    for n in numbers.tolist():
        with np.errstate(all="ignore"):  # the mean of what is not finite
            mean, (low, median, high) = best_of(
                values, n, is_maximised=is_maximised, quantiles=(0.05, 0.5, 0.95)
            )
        middle = mean if is_finite else median
        if abs(middle) < HUGE:
            low, high = (value if abs(value) < HUGE else math.nan for value in (low, high))
            found.append((n, middle, low, high))
    return found


def _best_view(
    given: Mapping[str, Sequence[float]],
    shown: Mapping[str, Sequence[tuple[int, float, float, float]]],
    steps: Sequence[tuple[int, float]],
    *,
    is_maximised: bool,
) -> _View:
    """Choose an axis that has room for all lines, but not for means of what is far worse."""
    reached = [y for _, y in steps]
    values = [value for one in given.values() for value in one]
    view = _View.of(values, reached, is_maximised=is_maximised)
    view = view or _View.between(reached[0], reached[-1], is_maximised=is_maximised)
    lines = [middle for rows in shown.values() for _, middle, _, _ in rows] + reached[:1]
    if is_maximised:
        worst = min(max(view.worst, min(lines)), view.best)
    else:
        worst = max(min(view.worst, max(lines)), view.best)
    return _View.between(worst, view.best, is_maximised=is_maximised)


def _steps(values: Sequence[float], *, is_maximised: bool) -> list[tuple[int, float]]:
    """Give the best so far, where it is finite."""
    worst = -math.inf if is_maximised else math.inf
    known = [worst if math.isnan(value) else float(value) for value in values]
    best = best_so_far(known, is_maximised=is_maximised)
    return [(n, value) for n, value in enumerate(best, start=1) if abs(value) < HUGE]


def _best_legend(
    figure: Any, axes: Any, handles: Mapping[str, Any], so_far: Any, *, is_maximised: bool
) -> None:
    labels = [shorten(figure, clean(label), LABEL, 4.5) for label in handles]
    drawn = list(handles.values())
    if so_far is not None:
        labels, drawn = [*labels, "best so far, as it was"], [*drawn, so_far]
    legend = axes.legend(
        drawn,
        ["-"] * len(drawn),
        loc="lower right" if is_maximised else "upper right",
        fontsize=LABEL if len(drawn) <= 12 else 6.5,
        ncols=1 + (len(drawn) > 12),
    )
    for text, label in zip(legend.get_texts(), labels, strict=True):
        text.set_parse_math(False)  # which only a text that is there can be told
        text.set_text(label)
