"""Learning curves: cost and score against epochs."""

from __future__ import annotations

import importlib
from typing import Any

from xpnet.report.figures import (
    CENTRED,
    HUGE,
    SUBTITLE,
    TRAIN,
    VALIDATION,
    make_figure,
    png_of,
    set_log_axis,
    style,
    write_title,
)
from xpnet.training.history import History

__all__ = ["draw_curves"]


def draw_curves(history: History, *, title: str) -> bytes:
    """Draw the cost and the loss's score, such as accuracy, against the epoch, counted from 1.

    The training cost is the mean over an epoch, during training; all other values are measured at
    the end of the epoch. Values that are missing, not a number or over 1e100 are left out. The cost
    axis is logarithmic if all costs are positive and the highest is over 20 times the lowest. The
    axis of R2, which has no lower bound, ends at -1 if any value is above -1.

    Parameters
    ----------
    history : History
        History of the training run.
    title : str
        Title of the picture.

    Returns
    -------
    bytes
        A PNG file of 1440 x 576 pixels.

    Raises
    ------
    ImportError
        If matplotlib is missing; see :func:`plotting_problem`.
    """
    with style():
        return png_of(_curves_figure(history, title))


def _curves_figure(history: History, title: str) -> Any:
    figure = make_figure(12, 4.8, layout="constrained")
    write_title(figure, title)
    reports = history.reports
    cost_axes, score_axes = figure.subplots(1, 2)
    costs = _curves(
        cost_axes,
        "cost",
        {
            "train, mean over the epoch": [(r.epoch + 1, r.cost) for r in reports],
            "validation": [(r.epoch + 1, r.validation_cost) for r in reports],
        },
    )
    if costs and min(costs) > 1 / HUGE and max(costs) > 20 * min(costs):
        set_log_axis(cost_axes, min(costs), max(costs))
    scores = _curves(
        score_axes,
        history.score_name,
        {
            "train": [(r.epoch + 1, r.train_accuracy) for r in reports],
            "validation": [(r.epoch + 1, r.validation_accuracy) for r in reports],
        },
    )
    if scores:
        low, high = score_axes.get_ylim()
        lowest = -0.02
        if history.score_name != "accuracy":
            lowest = -1.02 if max(scores) > -1 else low
        score_axes.set_ylim(max(low, lowest), min(high, 1.02))
    return figure


def _curves(
    axes: Any, quantity: str, curves: dict[str, list[tuple[int, float | None]]]
) -> list[float]:
    """Draw one panel and return the values in it."""
    shown: list[float] = []
    for (label, curve), colour in zip(curves.items(), (TRAIN, VALIDATION), strict=True):
        points = [(epoch, y) for epoch, y in curve if y is not None and abs(y) < HUGE]
        if points:
            epochs, values = zip(*points, strict=True)
            marker = "o" if len(points) <= 30 else ""
            axes.plot(epochs, values, label=label, color=colour, marker=marker, markersize=4)
            shown += values
    axes.set_title(quantity, fontsize=SUBTITLE)
    if not shown:
        axes.set_axis_off()
        nothing = f"no {quantity} was measured"
        axes.text(0.5, 0.5, nothing, **CENTRED, transform=axes.transAxes, color="0.35")
        return shown
    ticker = importlib.import_module("matplotlib.ticker")
    axes.set_xlabel("epoch")
    axes.set_ylabel(quantity)
    axes.xaxis.set_major_locator(
        ticker.MaxNLocator("auto", steps=(1, 2, 5, 10), integer=True, min_n_ticks=1)
    )
    axes.ticklabel_format(useOffset=False)
    axes.margins(y=0.3 if len(shown) <= len(curves) else 0.06)  # room for the legend
    axes.grid(color="0.9")
    axes.set_axisbelow(True)
    axes.legend()
    return shown
