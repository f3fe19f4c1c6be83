"""Recipes on Fashion-MNIST, and what experiments on it share."""

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
# A short form trains on scikit-learn's digits, which are everywhere, for an epoch.
SHORT = ("data.dataset=digits", "data.divide_by=16", "training.epochs=1", "data.test_fraction=0.2")


def recipe(name: str, changes: Sequence[str]) -> Recipe:
    """Read one of the recipes beside this file."""
    return load_recipe(FOLDER / f"{name}.toml", changes=changes)


_loaded: dict[str, Dataset] = {}


def load_data(of: Recipe) -> Dataset:
    """Load a recipe's data, once in a process."""
    key = repr(of.values["data"])
    if key not in _loaded:
        _loaded[key] = of.load_data()
    return _loaded[key]


def run(name: str, changes: Sequence[str], n_train: int | None = None, seed: int = 0) -> Result:
    """Run a recipe, on a part of the training samples if so told.

    Parameters
    ----------
    name, changes
        See :func:`recipe`.
    n_train : int, optional
        So many training samples, the classes in equal parts, drawn with the seed.
    seed : int
        The recipe's seed too.
    """
    chosen = recipe(name, [*changes, f"seed={seed}"])
    data = load_data(chosen)
    if n_train is not None and n_train < len(data.X_train):
        data = part(data, n_train, seed)
    return chosen.run(data)


def part(data: Dataset, n: int, seed: int) -> Dataset:
    """Draw so many training samples, the classes in equal parts."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(data.y_train))
    each = n // data.n_classes
    chosen = np.concatenate(
        [order[data.y_train[order] == label][:each] for label in range(data.n_classes)]
    )
    return dataclasses.replace(data, X_train=data.X_train[chosen], y_train=data.y_train[chosen])


def errors(result: Result) -> dict[str, Any]:
    """Give what pages say of a run."""
    return {
        "test_error": 1 - result.test_accuracy,
        "train_error": 1 - result.train_accuracy,
        "seconds": result.history.seconds,
    }
