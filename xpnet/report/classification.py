"""Plots of a classifier's mistakes: misclassified images and the confusion matrix."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from xpnet.report.figures import (
    CENTRED,
    LABEL,
    make_figure,
    png_of,
    style,
    write_header,
)
from xpnet.report.text import clean, shorten, text_width

__all__ = ["draw_confusion", "draw_mistakes"]

MAX_NUMBERED = 20  # classes; with more, the cells of a confusion matrix are too small for numbers


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
    """Draw the first misclassified test images.

    Parameters
    ----------
    images : array (n_samples, ...)
        All test images, flattened or not. ``uint8`` images are shown as they are; others are
        scaled from the smallest to the largest value in the array.
    true, predicted : integer arrays (n_samples,)
        Classes, counted from 0.
    class_names : sequence of str
        Names of the classes.
    image_shape : tuple of int
        ``(height, width)`` for grey images, ``(height, width, 3)`` for colour images.
    title : str
        Title of the picture.
    most : int
        Maximum number of images to draw.

    Returns
    -------
    bytes
        A PNG file, 1200 pixels wide, or 1440 with more than 25 images.

    Raises
    ------
    ValueError
        If the shapes do not match, or a class has no name.
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
    """Draw the confusion matrix: true classes in rows, predicted classes in columns.

    The colour of a cell is its fraction of the samples of the true class. With up to 20 classes the
    cells show the numbers of samples; with more, only some of the classes are named.

    Parameters
    ----------
    true, predicted : integer arrays (n_samples,)
        Classes, counted from 0.
    class_names : sequence of str
        Names of the classes.
    title : str
        Title of the picture.

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
            f"images must be {len(true)} images of shape {image_shape}, got an array of shape "
            f"{images.shape}"
        )
    if most < 1:
        raise ValueError(f"most must be at least 1, got {most}")
    wrong = np.flatnonzero(true != predicted)
    shown = wrong[:most]

    # Lengths are in inches, positions from the left and the top.
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
    """Scale some of the images to [0, 1], by the range of all images."""
    low, high = 0.0, 255.0
    if images.dtype != np.uint8 and images.size:
        low, high = float(images.min()), float(images.max())
    chosen = np.asarray(images[shown], np.float64)
    # The difference of halves does not overflow.
    return np.clip((chosen / 2 - low / 2) / ((high / 2 - low / 2) or 1.0), 0, 1)


def _confusion_figure(
    true: npt.ArrayLike, predicted: npt.ArrayLike, class_names: Sequence[str], title: str
) -> Any:
    n_classes = len(class_names)
    true, predicted = _classes(true, predicted, n_classes)
    counts = _count(true, predicted, n_classes)
    totals = counts.sum(axis=1, keepdims=True)
    shares = counts / np.maximum(totals, 1)

    # Lengths are in inches. The square is as large as the names allow.
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


def _count(
    true: npt.NDArray[np.int64], predicted: npt.NDArray[np.int64], n_classes: int
) -> npt.NDArray[np.int64]:
    """Count the samples of each true class (rows) and predicted class (columns)."""
    counts = np.bincount(true * n_classes + predicted, minlength=n_classes**2)
    return counts.reshape(n_classes, n_classes).astype(np.int64)


def _ink(background: tuple[float, float, float, float]) -> str:
    """Return black or white, whichever is easier to read on a colour."""
    red, green, blue, _ = background
    return "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 0.55 else "white"


def _classes(
    true: npt.ArrayLike, predicted: npt.ArrayLike, n_classes: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    true, predicted = np.asarray(true, np.int64), np.asarray(predicted, np.int64)
    if n_classes < 1:
        raise ValueError("class_names must hold at least one name")
    if true.ndim != 1 or true.shape != predicted.shape:
        raise ValueError(
            "true and predicted must be vectors of the same length, got shapes "
            f"{true.shape} and {predicted.shape}"
        )
    for name, labels in (("true", true), ("predicted", predicted)):
        if labels.size and not 0 <= labels.min() <= labels.max() < n_classes:
            raise ValueError(
                f"{name} must hold classes 0 to {n_classes - 1}, one for each of class_names, got "
                f"{labels.min()} to {labels.max()}"
            )
    return true, predicted
