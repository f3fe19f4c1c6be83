"""Plot of the expected best of n trials against n."""

from __future__ import annotations

import importlib
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
    make_figure,
    png_of,
    style,
    write_header,
)
from xpnet.report.text import clean, shorten
from xpnet.search.pictures.axes import View
from xpnet.search.results import best_of, best_so_far

__all__ = ["draw_best"]

MOST_N = 300  # values of n at which the best of n is computed
COLOURS = (TRAIN, VALIDATION, "#3a8f4d", "#7d1d3f", "#c9a227", "#5b4a9c", "#2a9d9d", "0.35")
DASHES = ("-", "--", ":", "-.")  # used in turn if there are more curves than colours


def draw_best(
    curves: Mapping[str, Sequence[float]],
    *,
    is_maximised: bool,
    objective: str,
    title: str,
    so_far: Sequence[float] | None = None,
) -> bytes:
    """Draw the expected best of n trials against n.

    Lines are means of :func:`.results.best_of`, with a band from the 5 % to the 95 % quantile. If
    any value is not finite, the lines are medians, and the picture says so.

    Parameters
    ----------
    curves : mapping of str to sequence of float
        Results of trials, by the labels of the legend.
    is_maximised : bool
        Whether higher values are better.
    objective : str
        Name of the objective.
    title : str
        Title of the picture.
    so_far : sequence of float, optional
        Results of trials in order, or their running best, which is drawn as a step line.

    Returns
    -------
    bytes
        A PNG file.
    """
    with style():
        return png_of(_best_figure(curves, is_maximised, objective, title, so_far))


def _best_figure(
    curves: Mapping[str, Sequence[float]],
    is_maximised: bool,
    objective: str,
    title: str,
    so_far: Sequence[float] | None = None,
) -> Any:
    worst = -math.inf if is_maximised else math.inf
    given = {
        label: [worst if math.isnan(value) else float(value) for value in values]
        for label, values in curves.items()
        if len(values)
    }
    everything = [value for values in given.values() for value in values]
    is_finite = all(abs(value) < HUGE for value in everything)
    rows = {
        label: _best_rows(values, is_maximised=is_maximised, is_finite=is_finite)
        for label, values in given.items()
    }
    shown = {label: found for label, found in rows.items() if found}
    known = [worst if math.isnan(value) else value for value in so_far or ()]
    best = enumerate(best_so_far(known, is_maximised=is_maximised), start=1)
    steps = [(n, value) for n, value in best if abs(value) < HUGE]
    if not shown and not steps:
        return empty_figure(title, "no value is finite" if given else "there are no values")

    figure = make_figure(9, 5.4, "constrained", header=0.8)
    middle = "mean" if is_finite else "median, because not all values are finite"
    write_header(figure, title, f"expected best of n trials; line: {middle}; band: 5 % to 95 %")
    axes = figure.subplots()
    handles = {}
    for place, (label, found) in enumerate(shown.items()):
        n, middles, lows, highs = zip(*found, strict=True)
        look: dict[str, Any] = {"color": COLOURS[place % len(COLOURS)]}
        axes.fill_between(n, lows, highs, alpha=0.15, linewidth=0, **look)
        look |= {"linestyle": DASHES[place // len(COLOURS) % len(DASHES)], "zorder": 3}
        (handles[label],) = axes.plot(n, middles, **look, **_point_of(n))
    if steps:
        n, values = zip(*steps, strict=True)
        look = {"color": "0.2", "linewidth": 1.2, "zorder": 2.5}
        (handles["actual best so far"],) = axes.step(
            n, values, where="post", **look, **_point_of(n)
        )
    lines = [middle for found in shown.values() for _, middle, _, _ in found]
    reached = [value for _, value in steps]
    _best_view(everything, lines, reached, is_maximised=is_maximised).set_axis(axes, 0.15)
    last = max([2, *(len(values) for values in given.values()), *(n for n, _ in steps)])
    ticker = importlib.import_module("matplotlib.ticker")
    whole = ticker.MaxNLocator(8, steps=(1, 2, 5, 10), integer=True).tick_values(1, last)
    axes.set_xticks([1, *(n for n in whole if 1 + last / 20 <= n <= last)])
    axes.set_xlim(1, last)
    axes.set_xlabel("number of trials, n")
    axes.set_ylabel(objective, parse_math=False)
    axes.grid(color="0.9")
    axes.set_axisbelow(True)
    _best_legend(figure, axes, handles, is_maximised=is_maximised)
    return figure


def _point_of(n: Sequence[int]) -> dict[str, Any]:
    """Return the style of a line that is a single point."""
    return {"marker": "o", "clip_on": False} if len(n) == 1 else {}


def _best_rows(
    values: Sequence[float], *, is_maximised: bool, is_finite: bool
) -> list[tuple[int, float, float, float]]:
    """Return n, middle and both ends of the band, for each n whose middle is finite."""
    found = []
    for n in np.unique(np.geomspace(1, len(values), MOST_N).round().astype(int)).tolist():
        with np.errstate(all="ignore"):  # means of values that are not finite
            mean, (low, median, high) = best_of(
                values, n, is_maximised=is_maximised, quantiles=(0.05, 0.5, 0.95)
            )
        middle = mean if is_finite else median
        if abs(middle) < HUGE:
            low, high = (value if abs(value) < HUGE else math.nan for value in (low, high))
            found.append((n, middle, low, high))
    return found


def _best_view(
    values: Sequence[float],
    lines: Sequence[float],
    reached: Sequence[float],
    *,
    is_maximised: bool,
) -> View:
    """Choose an axis for all lines, except where means are far worse than most values."""
    view = View.of(values, reached, is_maximised=is_maximised)
    view = view or View.between(reached[0], reached[-1], is_maximised=is_maximised)
    drawn, found = [*lines, *reached[:1]], [y for y in (*values, *reached) if abs(y) < HUGE]
    if is_maximised:
        return View.between(max(view.worst, min(drawn)), max(found), is_maximised=True)
    return View.between(min(view.worst, max(drawn)), min(found), is_maximised=False)


def _best_legend(figure: Any, axes: Any, handles: Mapping[str, Any], *, is_maximised: bool) -> None:
    legend = axes.legend(
        list(handles.values()),
        ["-"] * len(handles),
        loc="lower right" if is_maximised else "upper right",
        fontsize=LABEL if len(handles) <= 12 else 6.5,
        ncols=1 + (len(handles) > 12),
    )
    for text, label in zip(legend.get_texts(), handles, strict=True):
        text.set_parse_math(False)  # possible only on an existing text
        text.set_text(shorten(figure, clean(label), LABEL, 4.5))
