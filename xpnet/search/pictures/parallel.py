"""Trials as lines through their hyper-parameters, in parallel coordinates."""

from __future__ import annotations

import importlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

from xpnet.report.figures import (
    LABEL,
    LINE,
    SMALL,
    VALIDATION,
    blues,
    empty_figure,
    fractions,
    make_figure,
    png_of,
    style,
    write_header,
)
from xpnet.report.text import shorten, wrap
from xpnet.search.pictures.objective import View, objective_name, view_of
from xpnet.search.pictures.scales import nothing_to_draw, varying, vertical_ticks
from xpnet.search.results import importances
from xpnet.search.study import Study
from xpnet.spaces import Scale

__all__ = ["draw_parallel"]

MOST_THICK = 20  # lines


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


def _parallel_figure(study: Study) -> Any:
    title = f"{study.name}: trials from their hyper-parameters to what came of them"
    why = nothing_to_draw(study)
    if why is not None:
        return empty_figure(title, why)
    scales = varying(study)
    order = [*(name for name in importances(study) if name in scales)]
    is_known = bool(order)
    scales = {name: scales[name] for name in dict.fromkeys([*order, *scales])}
    view, ranked = view_of(study), study.ranked()

    # All in inches.
    left, right, below, tall = 0.75, 1.0, 0.35, 3.9
    pitch = max(1.13, (min(12.0, 7.0 + 1.7 * len(scales)) - left - right) / len(scales))
    width = left + len(scales) * pitch + right
    figure = make_figure(width, 1)
    heads = [wrap(figure, n, LABEL, min(pitch, 2 * left) - 0.12) for n in scales]
    heads.append(wrap(figure, objective_name(study), LABEL, min(pitch, 2 * right) - 0.12))
    above = 1.0 + LINE * max(len(head) for head in heads)
    height = above + tall + below
    figure.set_size_inches(width, height)
    n = len(ranked)
    line = f"{n:,} complete trial{'s' * (n != 1)}"
    if view is not None:
        line += f"; orange: the best, trial {ranked[0].number}"
    write_header(figure, title, f"{line}; the most important first" if is_known else line)
    where = (left, below, len(scales) * pitch, tall)
    axes = figure.add_axes(fractions(figure, *where))
    axes.set_axis_off()
    axes.set(xlim=(0, len(scales)), ylim=(0, 1))

    marks = [] if view is None else view.ticks()
    if view is None:
        marks = [(0.0, "not finite")]
    elif any(view.is_worse(trial.values[0]) for trial in ranked):
        is_one = view.worst == view.best
        sign = "≤" if view.is_maximised else "≥"
        marks = [(0.0, "worse"), *marks] if is_one else [(0.0, f"{sign} {marks[0][1]}"), *marks[1:]]
    ticks = [*(vertical_ticks(scale) for scale in scales.values()), marks]
    _parallel_lines(axes, study, scales, view)
    for place, (head, labels) in enumerate(zip(heads, ticks, strict=True)):
        is_last = place == len(scales)
        room = right if is_last else pitch - 0.15
        _parallel_axis(figure, axes, place, head, labels, room)
    return figure


def _parallel_lines(
    axes: Any, study: Study, scales: Mapping[str, Scale], view: View | None
) -> None:
    """Draw the trials, the worst first."""
    collections = importlib.import_module("matplotlib.collections")
    ranked = study.ranked()
    colour_of = blues()
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
        colour = (*colour_of(result)[:3], 0.95 if is_thick else opacity)
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
