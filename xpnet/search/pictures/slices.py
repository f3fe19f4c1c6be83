"""Plots of the objective against each hyper-parameter."""

from __future__ import annotations

import importlib
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from optuna.trial import TrialState

from xpnet.report.figures import (
    LABEL,
    SMALL,
    VALIDATION,
    blues,
    empty_figure,
    make_figure,
    png_of,
    style,
    write_header,
)
from xpnet.report.text import shorten, wrap
from xpnet.search.pictures.axes import (
    View,
    have_room,
    objective_name,
    ticks,
    varying,
    view_of,
    why_empty,
)
from xpnet.search.study import Study
from xpnet.spaces import Choice, Range, Scale

__all__ = ["draw_slices"]

MOST_COLUMNS = 4  # panels in a row
MOST_BESIDE = 12  # options of a choice; with more, only some are named
GREY = "0.55"


def draw_slices(study: Study) -> bytes:
    """Draw the objective against each hyper-parameter that is not fixed, on its own scale.

    A panel leaves out the trials that do not have its hyper-parameter. Trials that diverged or are
    far worse than the rest are triangles at the edge of the objective's axis. If there is nothing
    to draw, the picture says why.

    Returns
    -------
    bytes
        A PNG file.
    """
    with style():
        return png_of(_slices_figure(study))


def _slices_figure(study: Study) -> Any:
    title = f"{study.name}: {objective_name(study)} against each hyper-parameter"
    scales, points = varying(study), _points(study)
    view = view_of(study, [point.value for point in points if not point.is_complete])
    if view is None:
        return empty_figure(title, why_empty(study))
    n_rows = math.ceil(len(scales) / MOST_COLUMNS)
    n_columns = math.ceil(len(scales) / n_rows)
    width = {1: 6.5, 2: 8.0}.get(n_columns, 3.0 * n_columns)
    room = width / n_columns - 0.6  # inches for the name and the ticks of a panel
    figure = make_figure(width, 1.1 + 2.8 * n_rows, "constrained", header=1.1)
    write_header(figure, title, _counts(study))
    grid = figure.subplots(n_rows, n_columns, sharey=True, squeeze=False)
    best, colours = study.ranked()[0].number, _colours_of(points)
    is_crowded = any(view.is_worse(point.value) for point in points)
    view.set_axis(grid[0, 0], 0.14 if is_crowded else 0.06)
    for axes, (name, scale) in zip(grid.flat, scales.items(), strict=False):
        _slice(axes, view, name, scale, points, best, colours)
        lines = wrap(figure, name, LABEL, room)
        axes.set_title("\n".join(lines), fontsize=LABEL, pad=5, parse_math=False)
        _set_ticks(figure, axes, scale, room)
        axes.tick_params(axis="y", labelsize=SMALL)
    for axes in grid[:, 0]:
        axes.set_ylabel(objective_name(study), fontsize=LABEL)
    for axes in grid.flat[len(scales) :]:
        axes.set_visible(False)
    _number_bar(figure, grid, colours)
    _slices_legend(figure, view, points, best)
    return figure


@dataclass(frozen=True)
class _Point:
    """A trial in the panels."""

    number: int
    value: float
    is_complete: bool
    settings: dict[str, Any]


def _points(study: Study) -> list[_Point]:
    """Return the trials that have a value; a pruned trial has its last value."""
    found = []
    for trial in study.trials():
        is_complete = trial.state == TrialState.COMPLETE
        reports = trial.intermediate_values
        if is_complete or (trial.state == TrialState.PRUNED and reports):
            value = trial.values[0] if is_complete else reports[max(reports)]
            found.append(_Point(trial.number, value, is_complete, study.settings_of(trial)))
    return found


def _counts(study: Study) -> str:
    """Return how many trials are complete, pruned and failed, in words."""
    found = Counter(trial.state.name.lower() for trial in study.trials())
    words = {"complete": "complete", "pruned": "pruned", "fail": "failed"}
    said = [f"{found[state]:,} {word}" for state, word in words.items() if found[state]]
    n = sum(found[state] for state in words)
    return f"{n:,} trial{'s' * (n != 1)}: {', '.join(said)}"


def _colours_of(points: Sequence[_Point]) -> dict[str, Any]:
    """Return the colour map of the numbers of trials."""
    colours = importlib.import_module("matplotlib.colors")
    low, high = points[0].number, points[-1].number
    return {"cmap": blues(), "norm": colours.Normalize(low, max(high, low + 1))}


def _number_bar(figure: Any, panels: Any, colours: Mapping[str, Any]) -> None:
    """Draw the colour bar of the numbers of trials."""
    ticker = importlib.import_module("matplotlib.ticker")
    cm = importlib.import_module("matplotlib.cm")
    where = {"ax": panels, "aspect": 20 * len(panels), "pad": 0.02}
    ticks_at = ticker.MaxNLocator(5, integer=True)
    bar = figure.colorbar(cm.ScalarMappable(**colours), ticks=ticks_at, **where)
    bar.ax.tick_params(labelsize=SMALL)
    bar.ax.set_title("trial", fontsize=LABEL, pad=5)


def _slices_legend(figure: Any, view: View, points: Sequence[_Point], best: int) -> None:
    """Draw a legend of the marks that are used."""
    lines = importlib.import_module("matplotlib.lines")

    def mark(label: str, **look: Any) -> Any:
        return lines.Line2D([], [], linestyle="", label=label, **look)

    hollow = {"markerfacecolor": "none", "markeredgecolor": GREY}
    handles = [mark(f"best, trial {best}", marker="*", color=VALIDATION, markersize=11)]
    if any(not point.is_complete for point in points):
        handles.append(mark("pruned, at last value", marker="o", markersize=4, **hollow))
    if any(view.is_worse(point.value) for point in points):
        marker = "v" if view.is_maximised else "^"
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


def _set_ticks(figure: Any, axes: Any, scale: Scale, inches: float) -> None:
    """Label as many round values as fit, or all options, slanted if they do not fit."""
    slant: dict[str, Any] = {}
    if isinstance(scale, Range):
        several = (ticks(scale, most) for most in range(6, 1, -1))
        marks = next((m for m in several if have_room(figure, m, inches)), ticks(scale, 1))
    else:
        marks = ticks(scale, MOST_BESIDE)
        if not have_room(figure, marks, inches):
            slant = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"}
            marks = [(place, shorten(figure, label, SMALL, 1.2)) for place, label in marks]
    axes.set_xticks(*zip(*marks, strict=True), fontsize=SMALL, parse_math=False, **slant)


def _slice(
    axes: Any,
    view: View,
    name: str,
    scale: Scale,
    points: Sequence[_Point],
    best: int,
    colours: Mapping[str, Any],
) -> None:
    """Draw one panel."""
    edge, triangle = (0.035, "v") if view.is_maximised else (0.965, "^")
    axes.set_xlim(-0.04, 1.04)
    axes.grid(color="0.9")
    axes.set_axisbelow(True)
    groups: dict[tuple[bool, bool], list[_Point]] = {}
    for point in points:
        if name in point.settings:
            groups.setdefault((point.is_complete, view.is_worse(point.value)), []).append(point)
            if point.number == best:
                where = _place(scale, point, name), point.value
                axes.scatter(*where, s=120, marker="*", color=VALIDATION, zorder=4)
    for (is_complete, is_worse), shown in groups.items():
        look: dict[str, Any] = {"s": 14, "facecolors": "none", "edgecolors": GREY, "zorder": 2}
        if is_complete:
            numbers = [point.number for point in shown]
            look = {"s": 26, "c": numbers, "edgecolors": "0.4", "linewidths": 0.4, "zorder": 3}
            look |= colours
        if is_worse:
            look |= {"marker": triangle, "transform": axes.get_xaxis_transform()}
        heights = [edge if is_worse else point.value for point in shown]
        axes.scatter([_place(scale, point, name) for point in shown], heights, **look)


def _place(scale: Scale, point: _Point, name: str) -> float:
    """Return the horizontal position of a point; points of a choice are spread out."""
    place = scale.position(point.settings[name])
    if isinstance(scale, Choice):
        place += (point.number * 0.6180339887 % 1 - 0.5) * 0.5 / len(scale.settings)
    return place
