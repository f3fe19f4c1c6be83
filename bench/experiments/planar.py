"""Networks on points in the plane, and pictures of their decision regions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from bench import pictures
from xpnet import nn, training

__all__ = ["Points", "draw_regions", "outcome", "region"]

Points = tuple[npt.NDArray[Any], npt.NDArray[Any]]  # samples and labels

_N = 90  # points along each axis
_LEVELS = "0123456789"


def outcome(
    network: nn.Network, history: training.History, data: tuple[Points, Points]
) -> dict[str, Any]:
    """Return the outcome of training on two classes of points.

    Returns
    -------
    dict
        ``cost``, pairs of an iteration and its cost; ``train`` and ``test``, the accuracies;
        ``region``, see :func:`region`.
    """
    accuracies = [training.evaluate(network, "sigmoid_cross_entropy", *part)[1] for part in data]
    return {
        "cost": history.cost,
        "train": accuracies[0],
        "test": accuracies[1],
        "region": region(network, *data[0]),
    }


def region(network: nn.Network, X: npt.NDArray[Any], y: npt.NDArray[Any]) -> dict[str, Any]:
    """Evaluate a network of one output on a grid of points over the samples' bounding box.

    Returns
    -------
    dict
        ``box``, (left, right, bottom, top), with a margin; ``rows``, from the bottom, each a string
        with a digit for every point: the probability of class 1 in tenths; and the samples, ``X``
        and ``y``.
    """
    low, high = X.min(axis=0), X.max(axis=0)
    margin = 0.08 * (high - low)
    (left, bottom), (right, top) = low - margin, high + margin
    across, up = np.meshgrid(np.linspace(left, right, _N), np.linspace(bottom, top, _N))
    logits = network.predict(np.stack([across.ravel(), up.ravel()], axis=-1))
    tenths = np.minimum(10 / (1 + np.exp(-np.clip(logits, -50, 50))), 9).astype(int)
    rows = tenths.reshape(_N, _N)
    return {
        "box": [float(v) for v in (left, right, bottom, top)],
        "rows": ["".join(_LEVELS[tenth] for tenth in row) for row in rows],
        "X": X.round(4).tolist(),
        "y": y.tolist(),
    }


def draw_regions(panels: Sequence[tuple[str, dict[str, Any]]], *, columns: int = 3) -> bytes:
    """Draw the decision regions of networks and the samples, as PNG."""
    n_rows = -(-len(panels) // columns)
    drawn = pictures.figure(3.5 * columns, 3.1 * n_rows)
    for number, (title, found) in enumerate(panels, start=1):
        ax = drawn.add_subplot(n_rows, columns, number)
        tenths = np.array([[int(digit) for digit in row] for row in found["rows"]])
        box = found["box"]
        ax.imshow(tenths + 0.5, origin="lower", extent=box, vmin=0, vmax=10, cmap="RdBu_r",
                  alpha=0.6, aspect="auto")  # fmt: skip
        if tenths.min() < 5 <= tenths.max():
            places = [np.linspace(low, high, _N) for low, high in (box[:2], box[2:])]
            ax.contour(*places, tenths >= 5, levels=[0.5], colors="black", linewidths=1)
        X, y = np.array(found["X"]), np.array(found["y"])
        for label, colour in ((0, "#053061"), (1, "#67001f")):
            ax.scatter(*X[y == label].T, s=7, color=colour, edgecolor="white", linewidth=0.3)
        ax.set_title(title, fontsize=9)
        ax.tick_params(labelsize=7)
    return pictures.png(drawn)
