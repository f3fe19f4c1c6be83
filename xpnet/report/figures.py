"""Helpers of all pictures: style, sizes and colours, figures, titles, PNG files."""

from __future__ import annotations

import contextlib
import importlib
import io
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np

from xpnet.report.text import clean, shorten

__all__ = [
    "CENTRED",
    "DPI",
    "HUGE",
    "LABEL",
    "LINE",
    "SMALL",
    "SUBTITLE",
    "TRAIN",
    "VALIDATION",
    "blues",
    "empty_figure",
    "make_figure",
    "plotting_problem",
    "png_of",
    "set_log_axis",
    "style",
    "write_header",
    "write_title",
]

DPI = 120
TITLE, SUBTITLE, LABEL, SMALL = 14.0, 11.0, 9.5, 8.5  # text sizes in points
LINE = 0.19  # inches from one line of small text to the next
TRAIN, VALIDATION = "#1f5fa8", "#d9650f"
HUGE = 1e100  # beyond it and its inverse, matplotlib overflows
CENTRED = {"ha": "center", "va": "center"}

# Fonts for characters that matplotlib's own font lacks, used if they are installed.
FALLBACKS = (
    *("Noto Sans CJK JP", "Noto Sans CJK SC", "Noto Sans Devanagari", "Noto Sans Thai"),
    *("Arial Unicode MS", "Microsoft YaHei", "Yu Gothic", "Malgun Gothic"),
)


def plotting_problem() -> str | None:
    """Return why pictures cannot be drawn and what to do, or None if they can be drawn."""
    try:
        importlib.import_module("matplotlib.figure")
    except ImportError as error:
        return f"matplotlib cannot be imported ({error}); type: pip install matplotlib"
    return None


@contextlib.contextmanager
def style() -> Iterator[None]:
    """Draw in matplotlib's default style, not the caller's, with the installed fonts."""
    problem = plotting_problem()
    if problem:
        raise ImportError(problem)
    matplotlib = importlib.import_module("matplotlib")
    fonts = importlib.import_module("matplotlib.font_manager")
    installed = set(fonts.get_font_names())
    with matplotlib.rc_context(), warnings.catch_warnings():
        matplotlib.rcdefaults()
        family = ["DejaVu Sans", *(name for name in FALLBACKS if name in installed)]
        matplotlib.rcParams["font.family"] = family
        # Characters that no font has are drawn as boxes; some scripts are drawn without ligatures.
        ignored = r"Glyph .* missing from|Matplotlib currently does not support"
        warnings.filterwarnings("ignore", ignored, UserWarning)
        yield


def make_figure(
    width: float, height: float, layout: str | None = None, *, header: float = 0.0
) -> Any:
    """Make a figure, drawn by Agg, with sizes in inches; a layout leaves room for the header."""
    figure = importlib.import_module("matplotlib.figure").Figure(
        (width, height), DPI, layout=layout
    )
    importlib.import_module("matplotlib.backends.backend_agg").FigureCanvasAgg(figure)
    if layout is not None:
        rect = (0, 0, 1, 1 - header / height)
        figure.get_layout_engine().set(w_pad=0.12, h_pad=0.12, rect=rect)
    return figure


def empty_figure(title: str, line: str) -> Any:
    """Make a figure with a message in place of a plot."""
    figure = make_figure(10, 1.6)
    write_header(figure, title, "")
    figure.text(0.5, 0.36, line, **CENTRED, fontsize=SUBTITLE, color="0.35", parse_math=False)
    return figure


def png_of(figure: Any) -> bytes:
    """Return a figure as the bytes of a PNG file, without date or version."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    return buffer.getvalue()


def write_title(figure: Any, title: str, **where: float) -> None:
    """Write a title over the whole figure, without interpreting it as math."""
    text = shorten(figure, clean(title), TITLE, 0.94 * figure.get_figwidth())
    figure.suptitle(text, fontsize=TITLE, parse_math=False, **where)


def write_header(figure: Any, title: str, line: str) -> None:
    """Write a title and a subtitle in the top 0.75 inches."""
    height = figure.get_figheight()
    write_title(figure, title, y=1 - 0.15 / height)
    figure.text(0.5, 1 - 0.5 / height, line, ha="center", va="top", fontsize=SUBTITLE)


def blues() -> Any:
    """Make a map of blues, without the ones too pale to see on white."""
    matplotlib = importlib.import_module("matplotlib")
    colours = importlib.import_module("matplotlib.colors")
    return colours.ListedColormap(matplotlib.colormaps["Blues"](np.linspace(0.32, 1.0, 256)))


def set_log_axis(axes: Any, low: float, high: float) -> None:
    """Make the y axis logarithmic, with more ticks if the values span few decades."""
    ticker = importlib.import_module("matplotlib.ticker")
    axes.set_yscale("log")
    is_short = high < 1000 * low
    axes.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5) if is_short else (1,)))
    axes.yaxis.set_major_formatter(ticker.StrMethodFormatter("{x:g}"))
    axes.yaxis.set_minor_locator(ticker.NullLocator())
