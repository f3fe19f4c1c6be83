"""Pictures of a run: learning curves, mistakes, confusion, predicted numbers, signals by layer.

Each function gives the bytes of a PNG file. The same input gives the same bytes, whatever style
matplotlib is set to, and no window or figure of the caller's is touched: pyplot is not used.
"""

from __future__ import annotations

import bisect
import contextlib
import importlib
import io
import math
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from xpnet.nn.diagnosis import Diagnosis
from xpnet.nn.losses import determination
from xpnet.training.history import History

__all__ = [
    "draw_confusion",
    "draw_curves",
    "draw_diagnosis",
    "draw_mistakes",
    "draw_predictions",
    "plotting_problem",
]

DPI = 120
TITLE, SUBTITLE, LABEL = 14.0, 11.0, 9.5  # sizes of text, in points
MAX_TARGETS = 9  # panels of predictions
MAX_NUMBERED = 20  # classes, beyond which the cells of a confusion matrix are too small to write in
TRAIN, VALIDATION = "#1f5fa8", "#d9650f"
HUGE = 1e100  # where it and its inverse are passed, matplotlib overflows
CENTRED = {"ha": "center", "va": "center"}

# Asked for letters that matplotlib's own font lacks, where they are installed.
FALLBACKS = (
    *("Noto Sans CJK JP", "Noto Sans CJK SC", "Noto Sans Devanagari", "Noto Sans Thai"),
    *("Arial Unicode MS", "Microsoft YaHei", "Yu Gothic", "Malgun Gothic"),
)


def plotting_problem() -> str | None:
    """Say why pictures cannot be drawn, and what to do; None if they can."""
    try:
        importlib.import_module("matplotlib.figure")
    except ImportError as error:
        return f"matplotlib cannot be imported ({error}); type: pip install matplotlib"
    return None


def draw_curves(history: History, *, title: str) -> bytes:
    """Draw cost and accuracy, or what else the loss scores by, against the epoch, counted from 1.

    The training cost is the mean over an epoch, while the network learns; everything else is
    measured at the epoch's end. What was not measured, is not a number or over 1e100 is left
    out. The cost axis is logarithmic where the costs are positive and the highest is over 20
    times the lowest. That of R2, which has no lowest value, goes down to -1 where any is above.

    Parameters
    ----------
    history : History
    title : str

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


def draw_mistakes(
    images: npt.ArrayLike,
    true: npt.ArrayLike,
    predicted: npt.ArrayLike,
    *,
    class_names: Sequence[str],
    image_shape: tuple[int, ...],
    title: str,
    most: int = 25,
) -> bytes:
    """Draw the test images that were misclassified, the first ones if there are many.

    Parameters
    ----------
    images : array (n_samples, ...)
        All test images, flat or not. ``uint8`` is shown as it is; anything else is scaled from
        the lowest to the highest number in it.
    true, predicted : integer arrays (n_samples,)
        Classes, counted from 0.
    class_names : sequence of str
    image_shape : tuple of int
        ``(height, width)`` for grey images, ``(height, width, 3)`` for colour.
    title : str
    most : int
        Draw no more images than this.

    Returns
    -------
    bytes
        A PNG file, 1200 pixels wide, or 1440 with more than 25 images.

    Raises
    ------
    ValueError
        If the shapes do not fit, or a class has no name.
    ImportError
        If matplotlib is missing; see :func:`plotting_problem`.
    """
    with style():
        return png_of(
            _mistakes_figure(images, true, predicted, class_names, image_shape, title, most)
        )


def draw_confusion(
    true: npt.ArrayLike, predicted: npt.ArrayLike, *, class_names: Sequence[str], title: str
) -> bytes:
    """Draw how many samples of each class were taken for which.

    A cell's colour is its share of the samples of its row's class. With up to 20 classes the
    cells hold the numbers of samples; with more, not every class is named.

    Parameters
    ----------
    true, predicted : integer arrays (n_samples,)
        Classes, counted from 0.
    class_names : sequence of str
    title : str

    Returns
    -------
    bytes
        A PNG file, 1200 pixels wide and about as high.

    Raises
    ------
    ValueError
        If the lengths differ, or a class has no name.
    ImportError
        If matplotlib is missing; see :func:`plotting_problem`.
    """
    with style():
        return png_of(_confusion_figure(true, predicted, class_names, title))


def draw_predictions(true: npt.ArrayLike, predicted: npt.ArrayLike, *, title: str) -> bytes:
    """Draw predicted numbers against the true ones, and the diagonal where they are the same.

    One panel for each target, the first nine if there are more, each with its R2. What is not a
    number or over 1e100 is left out.

    Parameters
    ----------
    true, predicted : arrays (n_samples,) or (n_samples, n_targets)
    title : str

    Returns
    -------
    bytes
        A PNG file, 720 pixels wide, 1200 with several targets.

    Raises
    ------
    ValueError
        If the shapes differ.
    ImportError
        If matplotlib is missing; see :func:`plotting_problem`.
    """
    with style():
        return png_of(_predictions_figure(true, predicted, title))


def draw_diagnosis(diagnosis: Diagnosis, *, title: str) -> bytes:
    """Draw what a network's signals look like, one row for each layer, the input on top.

    Three panels: the variance of the activations, that of the gradients with respect to them, both
    on a logarithmic axis, and the shares of saturated elements and dead units. All numbers are also
    written; a variance that has no place on the axis (0, not a number, beyond 1e100 or 1e-100) has
    no point.

    Parameters
    ----------
    diagnosis : Diagnosis
        As :func:`xpnet.diagnose` gives it.
    title : str

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
        ticker = importlib.import_module("matplotlib.ticker")
        cost_axes.set_yscale("log")
        is_short = max(costs) < 1000 * min(costs)
        cost_axes.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5) if is_short else (1,)))
        cost_axes.yaxis.set_major_formatter(ticker.StrMethodFormatter("{x:g}"))
        cost_axes.yaxis.set_minor_locator(ticker.NullLocator())
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
    """Draw one panel; give the values in it."""
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


def _mistakes_figure(
    images: npt.ArrayLike,
    true: npt.ArrayLike,
    predicted: npt.ArrayLike,
    class_names: Sequence[str],
    image_shape: tuple[int, ...],
    title: str,
    most: int,
) -> Any:
    true, predicted = _classes(true, predicted, len(class_names))
    images = np.asanyarray(images)
    if len(image_shape) not in (2, 3) or image_shape[2:] not in ((), (3,), (4,)):
        raise ValueError(
            "image_shape must be (height, width), or (height, width, n_channels) with 3 or 4 "
            f"channels, got {image_shape}"
        )
    if images.shape[:1] != true.shape or images.size != len(true) * math.prod(image_shape):
        raise ValueError(
            f"images must be {len(true)} of shape {image_shape}, got an array {images.shape}"
        )
    if most < 1:
        raise ValueError(f"most must be at least 1, got {most}")
    wrong = np.flatnonzero(true != predicted)
    shown = wrong[:most]

    # All in inches from the left and the top.
    n_columns = min(max(5, math.ceil(math.sqrt(len(shown)))), 6)
    n_rows = math.ceil(len(shown) / n_columns)
    cell, words, header, gap = 2.0, 0.5, 0.8, 0.12
    width, height = n_columns * cell, header + (n_rows * (cell + words) if n_rows else 0.35)
    figure = make_figure(width, height)
    number, verb = f"{len(wrong):,}" if len(wrong) else "none", "were" if len(wrong) > 1 else "was"
    line = f"{number} of {len(true):,} test images {verb} misclassified"
    write_header(figure, title, line + (f"; {len(shown)} shown" if len(shown) < len(wrong) else ""))

    left = (width - min(len(shown), n_columns) * cell) / 2
    scaled = _scaled(images, shown).reshape(len(shown), *image_shape)
    for place, (index, image) in enumerate(zip(shown, scaled, strict=True)):
        row, column = divmod(place, n_columns)
        x, y = left + column * cell, header + row * (cell + words) + words
        side = cell - gap
        axes = figure.add_axes(
            ((x + gap / 2) / width, 1 - (y + side) / height, side / width, side / height)
        )
        axes.imshow(image, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        axes.set(xticks=(), yticks=())
        lines = [
            shorten(figure, f"{what}: {clean(class_names[which])}", LABEL, side)
            for what, which in (("predicted", predicted[index]), ("true", true[index]))
        ]
        axes.set_title("\n".join(lines), fontsize=LABEL, pad=4, parse_math=False)
    return figure


def _scaled(images: npt.NDArray[Any], shown: npt.NDArray[np.intp]) -> npt.NDArray[np.float64]:
    """Bring some of the images to 0..1, by the range of all of them."""
    low, high = 0.0, 255.0
    if images.dtype != np.uint8 and images.size:
        low, high = float(images.min()), float(images.max())
    chosen = np.asarray(images[shown], np.float64)
    # In halves, whose difference does not overflow.
    return np.clip((chosen / 2 - low / 2) / ((high / 2 - low / 2) or 1.0), 0, 1)


def _confusion_figure(
    true: npt.ArrayLike, predicted: npt.ArrayLike, class_names: Sequence[str], title: str
) -> Any:
    n_classes = len(class_names)
    true, predicted = _classes(true, predicted, n_classes)
    counts = _count(true, predicted, n_classes)
    totals = counts.sum(axis=1, keepdims=True)
    shares = counts / np.maximum(totals, 1)

    # All in inches: as large a square as the names leave room for.
    width, header, bar = 10.0, 0.85, 1.15
    figure = make_figure(width, width)
    step = math.ceil(n_classes / MAX_NUMBERED)
    ticks = range(0, n_classes, step)
    names = [shorten(figure, clean(class_names[tick]), LABEL, 1.5) for tick in ticks]
    longest = max(text_width(figure, name, LABEL) for name in names)
    left = longest + 0.7
    side = width - left - bar
    size = side / n_classes  # of a cell
    is_slanted = longest > 0.9 * size * step
    footer = (longest * math.sqrt(0.5) if is_slanted else 0) + 0.75
    height = header + side + footer
    figure.set_size_inches(width, height)

    right = int(np.trace(counts))
    line = f"{right:,} of {len(true):,} test samples were classified correctly"
    write_header(figure, title, line)
    bottom = footer / height
    axes = figure.add_axes((left / width, bottom, side / width, side / height))
    picture = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    bar_axes = figure.add_axes(((left + side + 0.2) / width, bottom, 0.25 / width, side / height))
    figure.colorbar(picture, cax=bar_axes, label="share of the true class")
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    slant = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if is_slanted else {}
    axes.set_xticks(ticks, names, fontsize=LABEL, parse_math=False, **slant)
    axes.set_yticks(ticks, names, fontsize=LABEL, parse_math=False)
    if n_classes <= MAX_NUMBERED:
        n_digits = len(str(counts.max(initial=0)))
        points = min(16.0, 0.45 * 72 * size, 0.85 * 72 * size / (0.64 * n_digits))
        for (row, column), count in np.ndenumerate(counts):
            ink = _ink(picture.to_rgba(shares[row, column])) if count else "0.7"
            axes.text(column, row, str(count), **CENTRED, fontsize=points, color=ink)
    return figure


def _predictions_figure(true: npt.ArrayLike, predicted: npt.ArrayLike, title: str) -> Any:
    true, predicted = np.asarray(true, np.float64), np.asarray(predicted, np.float64)
    if true.ndim not in (1, 2) or true.shape != predicted.shape or 0 in true.shape[1:]:
        raise ValueError(
            "true and predicted must have one shape, (n_samples,) or (n_samples, n_targets), got "
            f"{true.shape} and {predicted.shape}"
        )
    n = len(true)
    true, predicted = true.reshape(n, -1), predicted.reshape(n, -1)
    n_targets = true.shape[1]
    n_shown = min(n_targets, MAX_TARGETS)
    n_columns = min(n_shown, 3)
    n_rows = math.ceil(n_shown / n_columns)

    # All in inches.
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
    """Draw one target: as many units to the inch on both axes, the same range."""
    ticker = importlib.import_module("matplotlib.ticker")
    fits = (np.abs(true) < HUGE) & (np.abs(predicted) < HUGE)  # nan does not
    true, predicted = true[fits], predicted[fits]
    if not len(true):
        axes.set_axis_off()
        axes.text(
            0.5, 0.5, "nothing to be drawn", **CENTRED, transform=axes.transAxes, color="0.35"
        )
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


def _diagnosis_figure(diagnosis: Diagnosis, title: str) -> Any:
    rows = (diagnosis.input, *diagnosis.layers)
    # All in inches.
    width, header, footer, pitch = 12.0, 1.15, 0.45, 0.42
    height = header + len(rows) * pitch + footer
    figure = make_figure(width, height)
    n = diagnosis.n_samples
    write_header(figure, title, f"one pass forward and backward of {n:,} sample{'s' * (n != 1)}")
    labels = [shorten(figure, clean(row.label), LABEL, 2.2) for row in rows]
    left, gap, right = max(text_width(figure, label, LABEL) for label in labels) + 0.3, 0.35, 0.3
    each = (width - left - 2 * gap - right) / 3
    panels = [
        figure.add_axes(
            (
                (left + place * (each + gap)) / width,
                footer / height,
                each / width,
                len(rows) * pitch / height,
            )
        )
        for place in range(3)
    ]
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
    """Draw numbers from top to bottom, on a logarithmic axis, and write them on its right."""
    ticker = importlib.import_module("matplotlib.ticker")
    fitting = [value for value in values if 1 / HUGE < value < HUGE]  # nan is not among them
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
    """Draw bars in pairs, from top to bottom, each with its number at its end."""
    ticker = importlib.import_module("matplotlib.ticker")
    patches = importlib.import_module("matplotlib.patches")
    handles = []
    kinds = (("saturated elements", "#c9a227"), ("dead units", "#7d1d3f"))
    for place, (label, colour) in enumerate(kinds):
        known = [(row, pair[place]) for row, pair in enumerate(shares)]
        rows = [row - 0.2 + 0.4 * place for row, share in known if share is not None]
        lengths = [share for _, share in known if share is not None]
        axes.barh(rows, lengths, 0.36, color=colour)
        handles.append(patches.Patch(color=colour, label=label))
        for row, share in zip(rows, lengths, strict=True):
            axes.text(share + 0.015, row, f"{share:.1%}", va="center", fontsize=8)
    for row, pair in enumerate(shares):
        if None in pair:
            axes.text(0.015, row, "no activation", va="center", fontsize=LABEL, color="0.5")
    axes.set_xlim(0, 1.17)  # room for the number of a full bar
    axes.xaxis.set_major_locator(ticker.FixedLocator((0, 0.25, 0.5, 0.75, 1)))
    axes.xaxis.set_major_formatter(ticker.PercentFormatter(1, 0))
    axes.legend(
        handles=handles,  # also where there are no bars
        loc="lower center",
        bbox_to_anchor=(0.5, 0.995),
        ncols=2,
        frameon=False,
        borderaxespad=0.2,
        handlelength=1.2,
        fontsize=SUBTITLE - 1,
    )


def _count(
    true: npt.NDArray[np.int64], predicted: npt.NDArray[np.int64], n_classes: int
) -> npt.NDArray[np.int64]:
    """Count the samples of each true class (rows) and predicted class (columns)."""
    counts = np.bincount(true * n_classes + predicted, minlength=n_classes**2)
    return counts.reshape(n_classes, n_classes).astype(np.int64)


def _classes(
    true: npt.ArrayLike, predicted: npt.ArrayLike, n_classes: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    true, predicted = np.asarray(true, np.int64), np.asarray(predicted, np.int64)
    if n_classes < 1:
        raise ValueError("class_names must hold at least one name")
    if true.ndim != 1 or true.shape != predicted.shape:
        raise ValueError(
            f"true and predicted must be of one length, got {true.shape} and {predicted.shape}"
        )
    for name, labels in (("true", true), ("predicted", predicted)):
        if labels.size and not 0 <= labels.min() <= labels.max() < n_classes:
            raise ValueError(
                f"{name} must hold classes from 0 to {n_classes - 1}, as many as have names, got "
                f"{labels.min()} to {labels.max()}"
            )
    return true, predicted


def _ink(background: tuple[float, float, float, float]) -> str:
    """Choose black or white, whichever is easier to read on a colour."""
    red, green, blue, _ = background
    return "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 0.55 else "white"


@contextlib.contextmanager
def style() -> Iterator[None]:
    """Draw in matplotlib's own style, not the caller's, and with what letters there are."""
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
        # A letter that no font has is drawn as a box.
        warnings.filterwarnings("ignore", r"Glyph .* missing from", UserWarning)
        yield


def make_figure(width: float, height: float, layout: str | None = None) -> Any:
    """Make a figure of so many inches, to be drawn by Agg."""
    figure = importlib.import_module("matplotlib.figure").Figure(
        (width, height), DPI, layout=layout
    )
    importlib.import_module("matplotlib.backends.backend_agg").FigureCanvasAgg(figure)
    if layout is not None:
        figure.get_layout_engine().set(w_pad=0.12, h_pad=0.12)
    return figure


def png_of(figure: Any) -> bytes:
    """Draw a figure: the bytes of a PNG file, with no date or version in them."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    return buffer.getvalue()


def write_title(figure: Any, title: str, **where: float) -> None:
    """Write a title of the caller's, as it is, over the whole figure."""
    text = shorten(figure, clean(title), TITLE, 0.94 * figure.get_figwidth())
    figure.suptitle(text, fontsize=TITLE, parse_math=False, **where)


def write_header(figure: Any, title: str, line: str) -> None:
    """Write a title and a line below it, in the top 0.75 inches."""
    height = figure.get_figheight()
    write_title(figure, title, y=1 - 0.15 / height)
    figure.text(0.5, 1 - 0.5 / height, line, ha="center", va="top", fontsize=SUBTITLE)


def clean(text: str) -> str:
    """Bring a text to one line of printable letters."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def shorten(figure: Any, text: str, points: float, inches: float) -> str:
    """Cut a text to a width, with an ellipsis for what is cut off."""
    if len(text) <= 1000 and text_width(figure, text, points) <= inches:
        return text
    keep = bisect.bisect_right(
        range(min(len(text), 1000)),
        inches,
        key=lambda n: text_width(figure, f"{text[:n]}…", points),
    )
    return f"{text[: max(keep - 1, 0)].rstrip()}…"


def text_width(figure: Any, text: str, points: float) -> float:
    """Measure a line of text in inches."""
    fonts = importlib.import_module("matplotlib.font_manager")
    renderer = figure.canvas.get_renderer()
    width, _, _ = renderer.get_text_width_height_descent(
        text, fonts.FontProperties(size=points), ismath=False
    )
    return float(width) / float(figure.dpi)
