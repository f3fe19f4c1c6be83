"""Plot of the importance of each hyper-parameter."""

from __future__ import annotations

import math
from typing import Any

from xpnet.report.figures import (
    LABEL,
    TRAIN,
    empty_figure,
    make_figure,
    png_of,
    style,
    write_header,
)
from xpnet.report.text import clean, shorten
from xpnet.search.results import importances
from xpnet.search.study import Study

__all__ = ["draw_importances"]


def draw_importances(study: Study) -> bytes:
    """Draw the importance of each hyper-parameter, the largest on top.

    If :func:`.results.importances` returns nothing, the picture says so.

    Returns
    -------
    bytes
        A PNG file.
    """
    with style():
        return png_of(_importances_figure(study))


def _importances_figure(study: Study) -> Any:
    title = f"{study.name}: importance of hyper-parameters"
    values = [trial.values[0] for trial in study.complete() if math.isfinite(trial.values[0])]
    n, shares = len(values), importances(study)
    if not shares:
        return empty_figure(title, _no_importance(n, len(set(values))))
    figure = make_figure(10, 1.3 + 0.42 * len(shares), "constrained", header=0.85)
    write_header(figure, title, f"by PED-ANOVA, from {n:,} trials; tune the top ones first")
    axes = figure.subplots()
    rows = range(len(shares))
    bars = axes.barh(rows, list(shares.values()), 0.62, color=TRAIN)
    axes.bar_label(bars, fmt="{:.1%}", padding=5, fontsize=LABEL)
    axes.set_ylim(len(shares) - 0.5, -0.5)
    axes.set_xlim(0, max(shares.values()))
    axes.set_xticks([])
    labels = [shorten(figure, clean(name), LABEL, 5.0) for name in shares]
    axes.set_yticks(rows, labels, fontsize=LABEL, parse_math=False)
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right", "bottom"]].set_visible(False)
    return figure


def _no_importance(n: int, n_different: int) -> str:
    """Return why there are no importances, by the number of finite results."""
    if n > 1 and n_different == 1:
        return f"all {n:,} complete trials have the same result, so importance is unknown"
    number = f"{n:,} trial has" if n == 1 else f"{n or 'no'} trials have"
    return f"{number} a finite result, too few to estimate importance"
