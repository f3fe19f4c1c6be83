"""The objective against each hyper-parameter."""

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
from xpnet.report.text import shorten, text_width, wrap
from xpnet.search.pictures.objective import View, objective_name, view_of
from xpnet.search.pictures.scales import (
    fit_side_by_side,
    horizontal_ticks,
    nothing_to_draw,
    option_ticks,
    varying,
)
from xpnet.search.study import Study
from xpnet.spaces import Choice, Range, Scale

__all__ = ["draw_slices"]

MOST_COLUMNS = 4  # panels in a row
MOST_BESIDE = 12  # options of a choice side by side, beyond which not every one is named
GREY = "0.55"


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


def _slices_figure(study: Study) -> Any:
    title = f"{study.name}: hyper-parameters one by one"
    why = nothing_to_draw(study)
    if why is not None:
        return empty_figure(title, why)
    scales = varying(study)
    points = _points(study)
    view = view_of(study, [point.value for point in points if not point.is_complete])
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
    names = [wrap(figure, name, LABEL, side + gap - 0.1) for name in scales]
    marks = [_marks(figure, scale, side) for scale in scales.values()]
    heads, feet = [], []
    for first in range(0, len(scales), n_columns):
        heads.append(0.12 + LINE * max(len(name) for name in names[first : first + n_columns]))
        feet.append(max(mark.footer for mark in marks[first : first + n_columns]) + 0.12)
    height = above + sum(heads) + n_rows * tall + sum(feet)
    figure.set_size_inches(width, height)
    write_header(figure, title, f"{objective_name(study)}; {_counts(study)}")

    ranked = study.ranked()
    best = ranked[0].number
    panels = []
    y = above
    for place, (name, scale) in enumerate(scales.items()):
        row, column = divmod(place, n_columns)
        if column == 0:
            y += heads[row] + (tall + feet[row - 1] if row else 0)
        where = (left + column * (side + gap), height - y - tall, side, tall)
        axes = figure.add_axes(fractions(figure, *where))
        panels.append(axes)
        _slice(axes, view, name, scale, points, best, colours, is_maximised=study.is_maximised)
        axes.set_title("\n".join(names[place]), fontsize=LABEL, pad=5, parse_math=False)
        marks[place].write(axes)
        axes.tick_params(axis="y", labelleft=column == 0, labelsize=SMALL)
        if column == 0:
            axes.set_ylabel(objective_name(study), fontsize=LABEL)
    bar = (width - right + 0.2, height - above - heads[0] - tall, 0.14, tall)
    _number_bar(figure, bar, colours)
    _slices_legend(figure, view, points, best, is_maximised=study.is_maximised)
    return figure


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


def _counts(study: Study) -> str:
    """Say how many trials there are."""
    found = Counter(trial.state for trial in study.trials())
    states = ((TrialState.COMPLETE, "complete"), (TrialState.PRUNED, "pruned"))
    said = [f"{found[state]:,} {word}" for state, word in states if found[state]]
    said += [f"{found[TrialState.FAIL]:,} failed"] if found[TrialState.FAIL] else []
    n = sum(found[state] for state in (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL))
    return f"trial{'s' * (n != 1)}: {', '.join(said)}"


def _is_beyond(view: View | None, point: _Point) -> bool:
    """Tell whether a point has its place at the edge."""
    return view is None or view.is_worse(point.value)


def _colours_of(points: Sequence[_Point]) -> dict[str, Any]:
    """Choose what the numbers of trials are drawn in."""
    colours = importlib.import_module("matplotlib.colors")
    numbers = [point.number for point in points]
    low, high = min(numbers), max(numbers)
    return {"cmap": blues(), "norm": colours.Normalize(low, max(high, low + 1))}


def _number_bar(
    figure: Any, where: tuple[float, float, float, float], colours: Mapping[str, Any]
) -> None:
    """Say which colour is which trial's."""
    ticker = importlib.import_module("matplotlib.ticker")
    cm = importlib.import_module("matplotlib.cm")
    axes = figure.add_axes(fractions(figure, *where))
    figure.colorbar(cm.ScalarMappable(**colours), cax=axes)
    axes.yaxis.set_major_locator(ticker.MaxNLocator(5, integer=True))
    axes.tick_params(labelsize=SMALL)
    axes.set_title("trial", fontsize=LABEL, pad=5)


def _slices_legend(
    figure: Any, view: View | None, points: Sequence[_Point], best: int, *, is_maximised: bool
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
        return _Marks(horizontal_ticks(figure, scale, side / 1.08), is_slanted=False, footer=0.3)
    ticks = option_ticks(scale, MOST_BESIDE)
    if fit_side_by_side(figure, ticks, side / 1.08):
        return _Marks(ticks, is_slanted=False, footer=0.3)
    ticks = [(place, shorten(figure, label, SMALL, 1.2)) for place, label in ticks]
    longest = max(text_width(figure, label, SMALL) for _, label in ticks)
    return _Marks(ticks, is_slanted=True, footer=0.3 + longest * math.sin(math.radians(40)))


def _slice(
    axes: Any,
    view: View | None,
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
