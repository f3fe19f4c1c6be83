"""Plots of regression: predicted against true targets."""

from __future__ import annotations

import importlib
import math
from typing import Any

import numpy as np
import numpy.typing as npt

from xpnet.nn.losses import determination
from xpnet.report.figures import (
    CENTRED,
    HUGE,
    SUBTITLE,
    TRAIN,
    make_figure,
    png_of,
    style,
    write_header,
)

__all__ = ["draw_predictions"]

MAX_TARGETS = 9  # panels of predictions


def draw_predictions(true: npt.ArrayLike, predicted: npt.ArrayLike, *, title: str) -> bytes:
    """Draw predicted against true targets, and the diagonal on which they are equal.

    Each target has a panel with its R2; at most nine targets are drawn. Values that are not a
    number or over 1e100 are left out.

    Parameters
    ----------
    true, predicted : arrays (n_samples,) or (n_samples, n_targets)
        True and predicted targets.
    title : str
        Title of the picture.

    Returns
    -------
    bytes
        A PNG file, 720 pixels wide, or 1200 with several targets.

    Raises
    ------
    ValueError
        If the shapes differ.
    ImportError
        If matplotlib is missing; see :func:`plotting_problem`.
    """
    with style():
        return png_of(_predictions_figure(true, predicted, title))


def _predictions_figure(true: npt.ArrayLike, predicted: npt.ArrayLike, title: str) -> Any:
    true, predicted = np.asarray(true, np.float64), np.asarray(predicted, np.float64)
    if true.ndim not in (1, 2) or true.shape != predicted.shape or 0 in true.shape[1:]:
        raise ValueError(
            "true and predicted must both have shape (n_samples,) or (n_samples, n_targets), got "
            f"{true.shape} and {predicted.shape}"
        )
    n = len(true)
    true, predicted = true.reshape(n, -1), predicted.reshape(n, -1)
    n_targets = true.shape[1]
    n_shown = min(n_targets, MAX_TARGETS)
    n_columns = min(n_shown, 3)
    n_rows = math.ceil(n_shown / n_columns)

    # Lengths are in inches.
    width, header = 6.0 if n_shown == 1 else 10.0, 0.85
    left, right, words, footer = 0.85, 0.15, 0.35, 0.6
    side = width / n_columns - left - right
    height = header + n_rows * (words + side + footer)
    figure = make_figure(width, height)
    line = f"{n:,} test sample{'s' * (n != 1)}"
    if n_targets > n_shown:
        line += f"; {n_shown} of {n_targets} targets shown"
    write_header(figure, title, line)
    for place in range(n_shown):
        row, column = divmod(place, n_columns)
        x = column * width / n_columns + left
        y = header + row * (words + side + footer) + words
        axes = figure.add_axes((x / width, 1 - (y + side) / height, side / width, side / height))
        name = f"target {place}, " if n_targets > 1 else ""
        _predictions(axes, true[:, place], predicted[:, place], name)
        if row == n_rows - 1 or place + n_columns >= n_shown:
            axes.set_xlabel("true")
        if column == 0:
            axes.set_ylabel("predicted")
    return figure


def _predictions(
    axes: Any, true: npt.NDArray[np.float64], predicted: npt.NDArray[np.float64], name: str
) -> None:
    """Draw one target, with the same scale and range on both axes."""
    ticker = importlib.import_module("matplotlib.ticker")
    fits = (np.abs(true) < HUGE) & (np.abs(predicted) < HUGE)  # False for nan
    true, predicted = true[fits], predicted[fits]
    if not len(true):
        axes.set_axis_off()
        axes.text(0.5, 0.5, "no finite values", **CENTRED, transform=axes.transAxes, color="0.35")
        return
    low = min(true.min(), predicted.min())
    high = max(true.max(), predicted.max())
    margin = 0.05 * (high - low) or max(abs(low), 1.0) * 0.05
    limits = (low - margin, high + margin)
    axes.plot(limits, limits, color="0.6", linewidth=1, zorder=1)
    opacity = min(0.7, max(0.2, 200 / len(true)))
    axes.scatter(true, predicted, s=16, color=TRAIN, alpha=opacity, linewidths=0, zorder=2)
    axes.set(xlim=limits, ylim=limits)
    n_ticks = 3 if name else 5  # a panel among others is narrow
    axes.xaxis.set_major_locator(ticker.MaxNLocator(n_ticks, steps=(1, 2, 5, 10)))
    axes.yaxis.set_major_locator(ticker.MaxNLocator(n_ticks, steps=(1, 2, 5, 10)))
    axes.ticklabel_format(useOffset=False, scilimits=(-3, 5))
    axes.grid(color="0.9")
    axes.set_axisbelow(True)
    R2 = float(determination(np, predicted[:, None], true[:, None])[0])
    axes.set_title(f"{name}R2 {R2:.4f}", fontsize=SUBTITLE)
