"""Plot of trials in parallel coordinates: lines through their hyper-parameters."""

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
    make_figure,
    png_of,
    style,
    write_header,
)
from xpnet.report.text import shorten, wrap
from xpnet.search.pictures.axes import (
    View,
    objective_name,
    varying,
    vertical_ticks,
    view_of,
    why_empty,
)
from xpnet.search.results import importances
from xpnet.search.study import Study
from xpnet.spaces import Scale

__all__ = ["draw_parallel"]

MOST_THICK = 20  # lines


def draw_parallel(study: Study) -> bytes:
    """Draw each complete trial as a line through its hyper-parameters to the objective.

    The axes are the hyper-parameters that are not fixed, each on its own scale, with the most
    important first, or in the order of the space if importances are unknown. The last axis is the
    objective, with the best on top; far worse values are drawn at its lower end. A line is broken
    where the trial does not have the hyper-parameter. The best tenth of the trials, at most twenty,
    are drawn thicker and over the others, and the best one in orange. If there is nothing to draw,
    the picture says why.

    Returns
    -------
    bytes
        A PNG file.
    """
    with style():
        return png_of(_parallel_figure(study))


def _parallel_figure(study: Study) -> Any:
    title = f"{study.name}: trials in parallel coordinates"
    view, ranked, scales = view_of(study), study.ranked(), varying(study)
    if view is None:
        return empty_figure(title, why_empty(study))
    order = [name for name in importances(study) if name in scales]
    scales = {name: scales[name] for name in dict.fromkeys([*order, *scales])}

    # Lengths are in inches.
    left, right, below, tall = 0.75, 1.0, 0.35, 3.9
    pitch = max(1.13, (min(12.0, 7.0 + 1.7 * len(scales)) - left - right) / len(scales))
    width = left + len(scales) * pitch + right
    figure = make_figure(width, 1)
    heads = [wrap(figure, n, LABEL, min(pitch, 2 * left) - 0.12) for n in scales]
    heads.append(wrap(figure, objective_name(study), LABEL, min(pitch, 2 * right) - 0.12))
    height = 1.0 + LINE * max(len(head) for head in heads) + tall + below
    figure.set_size_inches(width, height)
    n, best = len(ranked), f"{ranked[0].number}, {ranked[0].values[0]:.4g}"
    line = f"{n:,} complete trial{'s' * (n != 1)}; orange: best, trial {best}"
    write_header(figure, title, f"{line}; most important on the left" if order else line)
    sides = left / width, below / height, len(scales) * pitch / width, tall / height
    axes = figure.add_axes(sides)
    axes.set_axis_off()
    axes.set(xlim=(0, len(scales)), ylim=(0, 1))

    marks = view.ticks()
    if any(view.is_worse(trial.values[0]) for trial in ranked):
        marks[0] = 0.0, f"{'≤' if view.is_maximised else '≥'} {marks[0][1]}"
    _parallel_lines(axes, study, scales, view)
    all_marks = [*(vertical_ticks(scale) for scale in scales.values()), marks]
    for place, (head, labels) in enumerate(zip(heads, all_marks, strict=True)):
        room = right if place == len(scales) else pitch - 0.15
        _parallel_axis(figure, axes, place, head, labels, room)
    return figure


def _parallel_lines(axes: Any, study: Study, scales: Mapping[str, Scale], view: View) -> None:
    """Draw the trials, the worst first."""
    ranked, colour_of = study.ranked(), blues()
    n_thick = min(math.ceil(len(ranked) / 10), MOST_THICK)
    opacity = min(0.75, max(0.2, 40 / len(ranked)))
    for rank, trial in reversed(list(enumerate(ranked))):
        settings = study.settings_of(trial)
        heights = [
            scale.position(settings[name]) if name in settings else math.nan
            for name, scale in scales.items()
        ]
        heights.append(view.fraction(trial.values[0]))
        around = [math.nan, *heights, math.nan]
        alone = [  # points that are not on any line
            x
            for x, (before, _, after) in enumerate(zip(around, heights, around[2:], strict=False))
            if math.isnan(before) and math.isnan(after)
        ]
        axes.plot(
            heights,
            color=VALIDATION if rank == 0 else colour_of(heights[-1]),
            alpha=1.0 if rank == 0 else 0.95 if rank < n_thick else opacity,
            linewidth=2.6 if rank < n_thick else 1.0,
            marker="o" if alone else "",
            markersize=4,
            markevery=alone or None,
            clip_on=False,
            zorder=2,
            solid_capstyle="round",
        )


def _parallel_axis(
    figure: Any,
    axes: Any,
    place: int,
    head: Sequence[str],
    ticks: Sequence[tuple[float, str]],
    room: float,
) -> None:
    """Draw a vertical axis, with its name above and its labels on the right."""
    effects = importlib.import_module("matplotlib.patheffects")
    heights = [y for y, _ in ticks]
    axes.plot((place, place), (0, 1), color="0.25", linewidth=1, clip_on=False, zorder=3)
    axes.plot([place] * len(ticks), heights, "_", color="0.25", ms=7, clip_on=False, zorder=3)
    at = {"textcoords": "offset points", "annotation_clip": False, "parse_math": False}
    axes.annotate(
        "\n".join(head), (place, 1), (0, 9), ha="center", va="bottom", fontsize=LABEL, **at
    )
    for y, label in ticks:
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
