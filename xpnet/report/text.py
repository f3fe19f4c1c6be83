"""Text in pictures: made printable, measured, shortened and wrapped."""

from __future__ import annotations

import bisect
import importlib
import re
from typing import Any

__all__ = ["clean", "shorten", "text_width", "wrap"]


def clean(text: str) -> str:
    """Return a text on one line, without unprintable characters and runs of spaces."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def shorten(figure: Any, text: str, points: float, inches: float) -> str:
    """Cut a text to a width, ending in an ellipsis if it is cut."""
    if len(text) <= 1000 and text_width(figure, text, points) <= inches:
        return text
    keep = bisect.bisect_right(
        range(min(len(text), 1000)),
        inches,
        key=lambda n: text_width(figure, f"{text[:n]}…", points),
    )
    return f"{text[: max(keep - 1, 0)].rstrip()}…"


def text_width(figure: Any, text: str, points: float) -> float:
    """Return the width of a line of text in inches."""
    fonts = importlib.import_module("matplotlib.font_manager")
    renderer = figure.canvas.get_renderer()
    width, _, _ = renderer.get_text_width_height_descent(
        text, fonts.FontProperties(size=points), ismath=False
    )
    return float(width) / float(figure.dpi)


def wrap(figure: Any, text: str, points: float, inches: float, most: int = 3) -> list[str]:
    """Wrap a name into lines at its dots, else at underscores, else anywhere."""
    lines = [""]
    for piece in _pieces(figure, clean(text), points, inches):
        if text_width(figure, lines[-1] + piece, points) <= inches:
            lines[-1] += piece
        else:
            lines.append(piece)
    lines = [line.strip() for line in lines if line.strip()]
    if len(lines) > most:
        rest = "".join(lines[most - 1 :])
        lines[most - 1 :] = [shorten(figure, f"{rest}…", points, inches)]
    return lines


def _pieces(figure: Any, text: str, points: float, inches: float) -> list[str]:
    """Split a text into pieces that fit into a width."""
    found = [text[:300]]  # more than fits
    for at in (r"[^. ]*[. ]?", r"[^_]*_?", r"."):
        divided: list[str] = []
        for piece in found:
            fits = text_width(figure, piece, points) <= inches
            divided += [piece] if fits else re.findall(at, piece)
        found = [piece for piece in divided if piece]
    return found
