"""What the best of n trials would be, against n."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from xpnet.report.figures import (
    HUGE,
    LABEL,
    TRAIN,
    VALIDATION,
    empty_figure,
    fractions,
    make_figure,
    png_of,
    style,
    write_header,
)
from xpnet.report.text import clean, shorten
from xpnet.search.pictures.objective import View
from xpnet.search.pictures.scales import round_numbers
from xpnet.search.results import best_of, best_so_far

__all__ = ["draw_best"]

MOST_N = 300  # numbers of trials at which the best of so many is computed
COLOURS = (TRAIN, VALIDATION, "#3a8f4d", "#7d1d3f", "#c9a227", "#5b4a9c", "#2a9d9d", "0.35")
DASHES = ("-", "--", ":", "-.")  # one after the other, where there are more curves than colours


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
        return empty_figure(title, "there are no values" if not given else "no value is finite")

    figure = make_figure(9, 5.4)
    middle = "mean" if is_finite else "median, as not all values are finite"
    line = f"had others been drawn; line: {middle}; band: 5 % to 95 %"
    write_header(figure, title, f"the best of n trials, {line}")
    axes = figure.add_axes(fractions(figure, 0.9, 0.62, 7.85, 3.85))
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
    inner = [n for n in round_numbers(1, max(last, 2), 8, whole=True) if n - 1 >= last / 20]
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
) -> View:
    """Choose an axis that has room for all lines, but not for means of what is far worse."""
    reached = [y for _, y in steps]
    values = [value for one in given.values() for value in one]
    view = View.of(values, reached, is_maximised=is_maximised)
    view = view or View.between(reached[0], reached[-1], is_maximised=is_maximised)
    lines = [middle for rows in shown.values() for _, middle, _, _ in rows] + reached[:1]
    if is_maximised:
        worst = min(max(view.worst, min(lines)), view.best)
    else:
        worst = max(min(view.worst, max(lines)), view.best)
    return View.between(worst, view.best, is_maximised=is_maximised)


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
