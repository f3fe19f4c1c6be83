"""Figures for the pages."""

from __future__ import annotations

import importlib
import io
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["BLUE", "COLOURS", "GREY", "curves", "figure", "label_axes", "png", "remove_frame"]

BLUE, GREY = "#1f5fa8", "#8a8a8a"
# Distinct for colour-blind readers too (Okabe and Ito, "Color universal design", 2008).
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")


def figure(width: float, height: float) -> Any:
    """Return a figure; width and height are in inches."""
    module: Any = importlib.import_module("matplotlib.figure")
    return module.Figure(figsize=(width, height), layout="constrained")


def remove_frame(ax: Any) -> None:
    """Remove the top and right lines of the frame, and use small tick labels."""
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    ax.tick_params(labelsize=8)


def label_axes(
    ax: Any, title: str = "", x: str = "", y: str = "", legend: str | None = None
) -> None:
    """Write title and labels, and a legend with this title unless it is None."""
    ax.set_title(title, fontsize=9)
    ax.set_xlabel(x, fontsize=8)
    ax.set_ylabel(y, fontsize=8)
    remove_frame(ax)
    if legend is not None:
        ax.legend(fontsize=7, frameon=False, title=legend or None, title_fontsize=7)


def curves(ax: Any, lines: Mapping[str, Sequence[Sequence[float]]]) -> None:
    """Draw lines through pairs of numbers, each in its own colour."""
    for (label, pairs), colour in zip(lines.items(), COLOURS, strict=False):
        x, y = zip(*pairs, strict=True)
        ax.plot(x, y, color=colour, linewidth=1, label=label)


def png(drawn: Any) -> bytes:
    """Return a figure as a PNG file."""
    buffer = io.BytesIO()
    drawn.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    return buffer.getvalue()
