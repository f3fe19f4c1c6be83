"""Trains the best trial's network on all samples except the test samples, and tests it once."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from optuna.trial import FrozenTrial

from xpnet.data import Dataset
from xpnet.nn.schedules import NoDecay
from xpnet.recipe import Recipe, Result, load_recipe
from xpnet.search.study import SearchError, Study
from xpnet.training import Report
from xpnet.training.arguments import OnReport, is_true

__all__ = ["Plan", "plan", "read_score"]

# Keys in which a winner's recipe may differ from its trial's.
_OF_A_RUN = (
    *("description", "device", "precision", "data.divide_by", "data.validation_fraction"),
    *("training.epochs", "early_stopping.patience", "early_stopping.monitor"),
    *("early_stopping.min_delta", "early_stopping.restore_best"),
)


@dataclasses.dataclass(frozen=True)
class Plan:
    """Plan for training a trial's network again.

    Attributes
    ----------
    recipe : Recipe
        Recipe to train by.
    dataset : Dataset
        Data to train on.
    last_epoch : int or None
        Last epoch of the training, counted from 1; None for the recipe's last epoch.
    notes : list of str
        Differences from the trial that the recipe does not show.
    """

    recipe: Recipe
    dataset: Dataset
    last_epoch: int | None
    notes: list[str]

    @property
    def n_epochs(self) -> int:
        """Number of epochs, unless the training stops early."""
        epochs: int = self.last_epoch or self.recipe.settings.training.epochs
        return epochs

    def run(self, device: str | None = None, *, on_report: OnReport | None = None) -> Result:
        """Train the network and evaluate it on the test samples; see :meth:`Recipe.run`."""

        def until(report: Report) -> bool:
            stops = on_report is not None and is_true(on_report(report))
            return stops or report.epoch + 1 == self.last_epoch

        return self.recipe.run(self.dataset, device, on_report=until)


def plan(study: Study, trial: FrozenTrial, data_dir: str | os.PathLike[str] | None = None) -> Plan:
    """Plan the training of a trial's network on training and validation samples together.

    Without validation samples, early stopping has nothing to monitor, so training ends with the
    trial's best epoch. The network is trained on the training samples only if the learning-rate
    schedule monitors the validation set, or if the training samples have weights and the file's
    validation samples do not.

    Parameters
    ----------
    study : Study
        Study of the trial.
    trial : FrozenTrial
        Complete trial that did not diverge.
    data_dir : path, optional
        See :meth:`Recipe.load_data`.

    Returns
    -------
    Plan

    Raises
    ------
    SearchError
        If the trial diverged.
    """
    if "diverged" in trial.user_attrs:
        raise SearchError(f"the best trial, {trial.number}, diverged: there is no network to train")
    recipe = study.recipe_of(trial)
    schedule = recipe.settings.schedule
    monitor = schedule.monitor
    if monitor is not None and monitor.startswith("validation"):
        note = f"on the training samples only, because its schedule monitors {monitor}"
        return Plan(recipe, recipe.load_data(data_dir), None, [note])
    merged = recipe.changed({"data.validation_fraction": 0.0})
    dataset = merged.load_data(data_dir)
    notes = []
    if dataset.X_validation is not None and dataset.sample_weight is not None:
        note = "on the training samples only, because the validation samples have no weights"
        return Plan(recipe, recipe.load_data(data_dir), None, [note])
    if dataset.X_validation is not None:
        dataset = _joined(dataset)
    stopping, last_epoch = recipe.settings.early_stopping, None
    if stopping is not None and stopping.monitor.startswith("validation"):
        ended = "best_epoch" if stopping.restore_best else "epochs"
        last_epoch = int(trial.user_attrs[ended])
        merged = merged.changed({"early_stopping": {}})
        if isinstance(schedule, NoDecay):
            merged = merged.changed({"training.epochs": last_epoch})
        else:
            notes.append(f"up to epoch {last_epoch}, the trial's best")
    return Plan(merged, dataset, last_epoch, notes)


def _joined(dataset: Dataset) -> Dataset:
    """Add the validation samples to the training samples."""
    X: list[Any] = [dataset.X_train, dataset.X_validation]
    y: list[Any] = [dataset.y_train, dataset.y_validation]
    return dataclasses.replace(
        dataset,
        name=f"{dataset.name}, training and validation samples",
        X_train=np.concatenate(X),
        y_train=np.concatenate(y),
        X_validation=None,
        y_validation=None,
    )


def read_score(study: Study, trial: FrozenTrial, place: Path) -> tuple[str, float | None] | None:
    """Read the test score of a trial's network from an earlier training.

    Parameters
    ----------
    study : Study
        Study of the trial.
    trial : FrozenTrial
        The trial.
    place : Path
        Folder of the saved network; see :meth:`Result.save`.

    Returns
    -------
    tuple of str and (float or None), or None
        Name and value of the score, where the value is None if not finite; None if the folder has
        no network.

    Raises
    ------
    SearchError
        If the folder holds another study's network.
    """
    if not (place / "history.json").exists():
        return None
    _check_same_trial(study.recipe_of(trial), place)
    found = json.loads((place / "history.json").read_text(encoding="utf-8"))
    name = next(key for key in found if key.startswith("test_") and key != "test_cost")
    return name, found[name]


def _check_same_trial(recipe: Recipe, place: Path) -> None:
    """Raise if a folder holds another study's network, of a trial with the same number."""
    kept = dict(_flat(load_recipe(place / "recipe.toml").values))
    for path, value in _flat(recipe.values):
        if path not in _OF_A_RUN and kept.get(path) != value:
            raise SearchError(
                f"{place} holds the network of another study, with another {path}: use another "
                "output folder, or remove it"
            )


def _flat(tables: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield each path and its value."""
    for key, value in tables.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{path}{key}.")
        else:
            yield f"{path}{key}", value
