"""How much each hyper-parameter decides."""

from __future__ import annotations

import math
from typing import Any

from xpnet.report.figures import (
    LABEL,
    TRAIN,
    empty_figure,
    fractions,
    make_figure,
    png_of,
    style,
    write_header,
)
from xpnet.report.text import clean, shorten, text_width
from xpnet.search.results import importances
from xpnet.search.study import Study

__all__ = ["draw_importances"]


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


def _importances_figure(study: Study) -> Any:
    title = f"{study.name}: importance of hyper-parameters"
    shares = importances(study)
    if not shares:
        return empty_figure(title, _no_importance(study))
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
    axes = figure.add_axes(fractions(figure, *where))
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
