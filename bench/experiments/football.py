"""Course 2, week 1, notebook "Regularization": where the goalkeeper should kick the ball."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bench import markdown
from bench.experiments.experiment import Experiment, Results, Section
from bench.experiments.planar import Points, draw_regions, outcome
from bench.markdown import spread
from xpnet import nn, training
from xpnet.data import DataError
from xpnet.kernels.reference import Array

__all__ = ["EXPERIMENT", "load", "train"]

EPOCHS = 30_000
SEEDS = range(5)
KEEP = 0.86
PRINTED = {  # cost at an iteration, training and test accuracy, as the notebook prints them
    "none": (10_000, 0.16329987525724, 0.947867298578, 0.915),
    "l2": (10_000, 0.26849188732822, 0.938388625592, 0.93),
    "frozen": (20_000, 0.0605824357985, 0.928909952607, 0.95),
}


def load(folder: str | os.PathLike[str] | None = None) -> tuple[Points, Points]:
    """Read the course's file: 211 positions to train on, 200 to test.

    Raises
    ------
    DataError
        If the file is missing.
    ImportError
        If SciPy is not installed.
    """
    import scipy.io

    where = folder or os.environ.get("XPNET_DATA_DIR")
    file = Path(where or ".") / "football.mat"
    if not where or not file.is_file():
        raise DataError(
            "football.mat is missing: put the file of the course's exercise into a folder and set "
            "XPNET_DATA_DIR to that folder"
        )
    held = scipy.io.loadmat(file)
    return (held["X"], held["y"][:, 0]), (held["Xval"], held["yval"][:, 0])


class FrozenDropout(nn.Layer):
    """The notebook's dropout, which seeds its generator in every forward pass: one mask for all.

    The mask is the first that NumPy's legacy generator draws from the seed 1, after those of the
    preceding layers. Its rows are units, and it fits the whole training set only.
    """

    name = "frozen_dropout"

    def __init__(self, keep: float, units_before: int = 0) -> None:
        self.keep, self.units_before = keep, units_before

    def allocate(self, cache: nn.Cache, shape: tuple[int, ...], dtype: npt.DTypeLike) -> None:
        """Draw the mask."""
        n_samples, n_units = shape
        drawn = np.random.RandomState(1).rand(self.units_before + n_units, n_samples)
        kept = (drawn[self.units_before :] < self.keep).T
        cache.factor = self.device.asarray(kept / self.keep, dtype)

    def forward(self, X: Array, cache: nn.Cache) -> Array:
        """Apply the mask during training."""
        return X * cache.factor if cache.training else X

    def backward(self, dA: Array, cache: nn.Cache) -> Array:
        """Apply the mask to the gradient."""
        return dA * cache.factor


def train(
    method: str, data: tuple[Points, Points], epochs: int, seed: int = 0
) -> tuple[nn.Network, training.History]:
    """Train 2-20-3-1 as the notebook does: weights scaled by 1 / sqrt(fan_in), full batch.

    Parameters
    ----------
    method : {"none", "l2", "frozen", "dropout"}
        Regularisation: ``l2`` with the notebook's lambda of 0.7, ``frozen`` for its dropout,
        ``dropout`` for ours.
    data : as :func:`load` returns it
    epochs : int
    seed : int
        Seed of our dropout's masks.
    """
    layers: list[Any] = []
    units_before = 0
    for units in (20, 3):
        layers.append(nn.Dense(units, "relu", init="lecun_normal"))
        if method == "frozen":
            layers.append(FrozenDropout(KEEP, units_before))
        elif method == "dropout":
            layers.append(nn.Dropout(1 - KEEP))
        units_before += units
    layers.append(nn.Dense(1, init="lecun_normal"))
    network = nn.Network(layers, 2, dtype="float64", seed=3, rng="numpy-legacy")
    history = training.fit(
        network,
        *data[0],
        loss="sigmoid_cross_entropy",
        optimizer=nn.GradientDescent(0.3),
        epochs=epochs,
        report_every=min(epochs, 1000),
        seed=seed,
        l2=0.7 if method == "l2" else 0.0,
        penalty="sum",
    )
    return network, history


def _run(method: str, epochs: int, seed: int = 0) -> dict[str, Any]:
    data = load()
    return outcome(*train(method, data, epochs, seed), data)


def _runs(is_short: bool) -> dict[str, dict[str, Any]]:
    epochs = 20 if is_short else EPOCHS
    fixed = {method: {"method": method, "epochs": epochs} for method in PRINTED}
    fresh = {
        f"dropout, masks {seed}": {"method": "dropout", "epochs": epochs, "seed": seed}
        for seed in SEEDS
    }
    return {**fixed, **fresh}


def _section(results: Results) -> Section:
    fresh = [results[f"dropout, masks {seed}"] for seed in SEEDS]
    tests = [found["test"] for found in fresh]
    rows, is_equal = [], {}
    for method, words in (
        ("none", "none"),
        ("l2", "L2, lambda 0.7"),
        ("frozen", "dropout, keep 0.86, one mask for the whole run"),
    ):
        at, cost, train_accuracy, test = PRINTED[method]
        found = results[method]
        ours = dict(found["cost"]).get(at)
        is_equal[method] = ours is not None and abs(ours - cost) < 1e-9 and found["test"] == test
        rows.append(
            (
                words,
                f"{cost:.10f} at {at:,}",
                "-" if ours is None else f"{ours:.10f}",
                f"{train_accuracy:.4f} / {test:.3f}",
                f"{found['train']:.4f} / {found['test']:.3f}",
            )
        )
    rows.append(
        (
            "dropout, keep 0.86, a fresh mask in every step, five seeds",
            "-",
            "-",
            "-",
            f"{spread([found['train'] for found in fresh], 4)} / {spread(tests)}",
        )
    )
    frozen = (
        "gives the notebook's 0.95, with its cost to nine decimals"
        if is_equal["frozen"]
        else "gives the result in the table"
    )
    listed = ", ".join(f"{test:.3f}" for test in tests)
    titles = ("regularisation", "cost: notebook", "ours", "train / test: notebook", "ours")
    lines = [
        *markdown.table(titles, rows),
        "",
        "The notebook's dropout calls `np.random.seed(1)` in every forward pass, so it drops the "
        "same units of the same samples in all 30,000 iterations. That is not dropout: each sample "
        "sees a fixed part of the network. `FrozenDropout` in "
        "[football.py](../../experiments/football.py), which is also an example of a custom "
        f"layer, does the same and {frozen}. Dropout as published draws a new mask in "
        "each step. With new masks and the same initial weights, the test accuracies of five seeds "
        f"are {listed}. One test position counts 0.005, and the standard error of 0.93 on 200 "
        "positions is 0.018, so differences of 0.02 may be noise.",
        "",
        "![Decision regions of each network on the field](football.png)",
    ]
    panels = [
        (f"{words}: test {results[key]['test']:.3f}", results[key]["region"])
        for key, words in (
            ("none", "none"),
            ("l2", "L2"),
            ("frozen", "dropout, one mask"),
            ("dropout, masks 0", "dropout, fresh masks 0"),
            ("dropout, masks 1", "dropout, fresh masks 1"),
            ("dropout, masks 2", "dropout, fresh masks 2"),
        )
    ]
    came_out = (
        f"none {results['none']['test']:.3f}, L2 {results['l2']['test']:.3f}, dropout with the "
        f"notebook's single mask {results['frozen']['test']:.3f}, with fresh masks {spread(tests)} "
        "(five seeds)"
    )
    return Section(came_out, lines, {"football.png": draw_regions(panels)})


EXPERIMENT = Experiment(
    name="football",
    title="Regularisation: none, L2, dropout",
    claimed="test accuracy 0.915 without regularisation, 0.93 with L2, 0.95 with dropout",
    source="the course, Improving Deep Neural Networks, week 1, notebook Regularization",
    runs=_runs,
    run=_run,
    section=_section,
)
