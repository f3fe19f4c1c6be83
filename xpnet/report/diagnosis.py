"""Plots of a network's activations and gradients, layer by layer."""

from __future__ import annotations

import importlib
import math
from collections.abc import Sequence
from typing import Any

from xpnet.nn.diagnosis import Diagnosis
from xpnet.report.figures import (
    HUGE,
    LABEL,
    SUBTITLE,
    TRAIN,
    VALIDATION,
    make_figure,
    png_of,
    style,
    write_header,
)
from xpnet.report.text import clean, shorten

__all__ = ["draw_diagnosis"]


def draw_diagnosis(diagnosis: Diagnosis, *, title: str) -> bytes:
    """Draw the activations and gradients of a network, one row for each layer, the input on top.

    Three panels show the variance of the activations and the variance of the gradients with respect
    to them, both on a logarithmic axis, and the fractions of saturated elements and dead units. All
    values are also written as numbers. A variance that does not fit on the axis (0, not a number,
    above 1e100 or below 1e-100) has no point.

    Parameters
    ----------
    diagnosis : Diagnosis
        Result of :func:`xpnet.diagnose`.
    title : str
        Title of the picture.

    Returns
    -------
    bytes
        A PNG file, 1440 pixels wide.

    Raises
    ------
    ImportError
        If matplotlib is missing; see :func:`plotting_problem`.
    """
    with style():
        return png_of(_diagnosis_figure(diagnosis, title))


def _diagnosis_figure(diagnosis: Diagnosis, title: str) -> Any:
    rows = (diagnosis.input, *diagnosis.layers)
    figure = make_figure(12, 1.6 + 0.42 * len(rows), "constrained", header=0.75)
    n = diagnosis.n_samples
    write_header(figure, title, f"one forward and backward pass over {n:,} sample{'s' * (n != 1)}")
    labels = [shorten(figure, clean(row.label), LABEL, 2.2) for row in rows]
    panels = figure.subplots(1, 3)
    for axes in panels:
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_yticks(range(len(rows)), labels, fontsize=LABEL, parse_math=False)
        axes.tick_params(axis="y", length=0, labelleft=axes is panels[0])
        axes.grid(color="0.9")
        axes.set_axisbelow(True)
    _variances(panels[0], "variance of the activations", [row.variance for row in rows], TRAIN)
    gradients = [row.gradient_variance for row in rows]
    _variances(panels[1], "variance of the gradients", gradients, VALIDATION)
    _shares(panels[2], [(row.saturated, row.dead) for row in rows])
    return figure


def _variances(axes: Any, quantity: str, values: Sequence[float], colour: str) -> None:
    """Draw values from top to bottom on a logarithmic axis, and write them on the right."""
    ticker = importlib.import_module("matplotlib.ticker")
    fitting = [value for value in values if 1 / HUGE < value < HUGE]  # leaves out nan
    placed = [value if value in fitting else math.nan for value in values]
    axes.plot(placed, range(len(values)), color=colour, marker="o", markersize=5)
    low, high = math.log10(min(fitting, default=1.0)), math.log10(max(fitting, default=1.0))
    decades = max(high - low, 1.0)
    middle = (low + high) / 2
    start, stop = middle - 0.6 * decades, middle + 0.9 * decades  # numbers are on the right
    axes.set_xscale("log")
    axes.set_xlim(10**start, 10**stop)
    step = math.ceil((stop - start) / 5)
    digits = (1, 2, 5) if stop - start < 2.2 else (1,)
    ticks = [
        digit * 10.0**power
        for power in range(math.floor(start), math.ceil(stop))
        for digit in digits
        if power % step == 0 and start <= power + math.log10(digit) <= middle + 0.75 * decades
    ]
    axes.xaxis.set_major_locator(ticker.FixedLocator(ticks))
    axes.xaxis.set_major_formatter(ticker.StrMethodFormatter("{x:g}"))
    axes.xaxis.set_minor_locator(ticker.NullLocator())
    axes.set_title(quantity, fontsize=SUBTITLE)
    for row, value in enumerate(values):
        where = {"transform": axes.get_yaxis_transform(), "ha": "right", "va": "center"}
        axes.text(0.98, row, f"{value:.2g}", **where, fontsize=LABEL)


def _shares(axes: Any, shares: Sequence[tuple[float | None, float | None]]) -> None:
    """Draw pairs of bars from top to bottom, each with its value at its end."""
    ticker = importlib.import_module("matplotlib.ticker")
    patches = importlib.import_module("matplotlib.patches")
    handles = []
    kinds = (("saturated elements", "#c9a227"), ("dead units", "#7d1d3f"))
    for place, (label, colour) in enumerate(kinds):
        known = [(row, pair[place]) for row, pair in enumerate(shares)]
        rows = [row - 0.2 + 0.4 * place for row, share in known if share is not None]
        lengths = [share for _, share in known if share is not None]
        bars = axes.barh(rows, lengths, 0.36, color=colour)
        axes.bar_label(bars, fmt="{:.1%}", padding=3, fontsize=8)
        handles.append(patches.Patch(color=colour, label=label))
    for row, pair in enumerate(shares):
        if None in pair:
            axes.text(0.015, row, "no activation", va="center", fontsize=LABEL, color="0.5")
    axes.set_xlim(0, 1.17)  # room for the value of a full bar
    axes.xaxis.set_major_locator(ticker.FixedLocator((0, 0.25, 0.5, 0.75, 1)))
    axes.xaxis.set_major_formatter(ticker.PercentFormatter(1, 0))
    axes.legend(
        handles=handles,  # even if there are no bars
        loc="lower center",
        bbox_to_anchor=(0.5, 0.995),
        ncols=2,
        frameon=False,
        borderaxespad=0.2,
        handlelength=1.2,
        fontsize=SUBTITLE - 1,
    )
