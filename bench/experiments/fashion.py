"""Functions that the experiments on Fashion-MNIST share."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from xpnet.data import Dataset
from xpnet.recipe import Recipe, Result, load_recipe

__all__ = ["SHORT", "errors", "load_data", "part", "recipe", "run"]

FOLDER = Path(__file__).resolve().parent
# The short form trains on scikit-learn's digits, which need no download, for one epoch.
SHORT = ("data.dataset=digits", "data.divide_by=16", "training.epochs=1", "data.test_fraction=0.2")


def recipe(name: str, changes: Sequence[str]) -> Recipe:
    """Read a recipe of this folder."""
    return load_recipe(FOLDER / f"{name}.toml", changes=changes)


_loaded: dict[str, Dataset] = {}


def load_data(of: Recipe) -> Dataset:
    """Load a recipe's data, once per process."""
    key = repr(of.values["data"])
    if key not in _loaded:
        _loaded[key] = of.load_data()
    return _loaded[key]


def run(name: str, changes: Sequence[str], n_train: int | None = None, seed: int = 0) -> Result:
    """Run a recipe, optionally on a part of the training samples.

    Parameters
    ----------
    name, changes
        See :func:`recipe`.
    n_train : int, optional
        Number of training samples, the same for each class, drawn with the seed.
    seed : int
        Seed of the recipe and of the draw.
    """
    chosen = recipe(name, [*changes, f"seed={seed}"])
    data = load_data(chosen)
    if n_train is not None and n_train < len(data.X_train):
        data = part(data, n_train, seed)
    return chosen.run(data)


def part(data: Dataset, n: int, seed: int) -> Dataset:
    """Draw ``n`` training samples, the same number of each class."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(data.y_train))
    each = n // data.n_classes
    chosen = np.concatenate(
        [order[data.y_train[order] == label][:each] for label in range(data.n_classes)]
    )
    return dataclasses.replace(data, X_train=data.X_train[chosen], y_train=data.y_train[chosen])


def errors(result: Result) -> dict[str, Any]:
    """Return the errors and the seconds of a run."""
    return {
        "test_error": 1 - result.test_accuracy,
        "train_error": 1 - result.train_accuracy,
        "seconds": result.history.seconds,
    }
