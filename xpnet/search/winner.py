"""Trains the best trial's network on all but the test samples, and tests it once."""

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

# What a winner's recipe may have otherwise than its trial's.
_OF_A_RUN = (
    *("description", "device", "precision", "data.divide_by", "data.validation_fraction"),
    *("training.epochs", "early_stopping.patience", "early_stopping.monitor"),
    *("early_stopping.min_delta", "early_stopping.restore_best"),
)


@dataclasses.dataclass(frozen=True)
class Plan:
    """How a trial's network is trained again.

    Attributes
    ----------
    recipe : Recipe
    dataset : Dataset
    last_epoch : int or None
        Training ends with this epoch, counted from 1; None for the recipe's last one.
    notes : list of str
        What the recipe alone does not say.
    """

    recipe: Recipe
    dataset: Dataset
    last_epoch: int | None
    notes: list[str]

    @property
    def n_epochs(self) -> int:
        """How many epochs it trains for, unless it stops early."""
        epochs: int = self.last_epoch or self.recipe.settings.training.epochs
        return epochs

    def run(self, device: str | None = None, *, on_report: OnReport | None = None) -> Result:
        """Train it, and evaluate it on the test samples; see :meth:`Recipe.run`."""

        def until(report: Report) -> bool:
            stops = on_report is not None and is_true(on_report(report))
            return stops or report.epoch + 1 == self.last_epoch

        return self.recipe.run(self.dataset, device, on_report=until)


def plan(study: Study, trial: FrozenTrial, data_dir: str | os.PathLike[str] | None = None) -> Plan:
    """Plan the training of a trial's network on training and validation samples together.

    Early stopping has nothing to watch then: it ends with the epoch that was the trial's best. What
    is scheduled by the validation cost, and samples with weights whose validation part is a file's
    own, are trained as the trial was.

    Parameters
    ----------
    study : Study
    trial : FrozenTrial
        One that is complete, and did not diverge.
    data_dir : path, optional
        See :meth:`Recipe.load_data`.

    Returns
    -------
    Plan

    Raises
    ------
    SearchError
        If the trial has diverged.
    """
    if "diverged" in trial.user_attrs:
        raise SearchError(f"trial {trial.number}, the best one, has diverged: there is no network")
    recipe = study.recipe_of(trial)
    schedule = recipe.settings.schedule
    monitor = schedule.monitor
    if monitor is not None and monitor.startswith("validation"):
        note = f"on the training samples alone, as its schedule watches {monitor}"
        return Plan(recipe, recipe.load_data(data_dir), None, [note])
    merged = recipe.changed({"data.validation_fraction": 0.0})
    dataset = merged.load_data(data_dir)
    notes = []
    if dataset.X_validation is not None and dataset.sample_weight is not None:
        note = "on the training samples alone, as the validation samples have no weights"
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
            notes.append(f"{last_epoch} of the epochs, which was the trial's best")
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
    """Read the test score of a trial's network that was trained again before.

    Parameters
    ----------
    study : Study
    trial : FrozenTrial
    place : Path
        The folder that it was saved into, by :meth:`Result.save`.

    Returns
    -------
    tuple of str and (float or None), or None
        What the score is called, and its value, None if not finite; None if nothing is there.

    Raises
    ------
    SearchError
        If what is there is another study's.
    """
    if not (place / "history.json").exists():
        return None
    _check_same_trial(study.recipe_of(trial), place)
    found = json.loads((place / "history.json").read_text(encoding="utf-8"))
    name = next(key for key in found if key.startswith("test_") and key != "test_cost")
    return name, found[name]


def _check_same_trial(recipe: Recipe, place: Path) -> None:
    """Refuse another study's network, of a trial with the same number."""
    kept = dict(_flat(load_recipe(place / "recipe.toml").values))
    for path, value in _flat(recipe.values):
        if path not in _OF_A_RUN and kept.get(path) != value:
            raise SearchError(
                f"{place} is there, and it is another study's, as {path} differs: write to another "
                "folder, or take it away"
            )


def _flat(tables: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """Give each value under its path."""
    for key, value in tables.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{path}{key}.")
        else:
            yield f"{path}{key}", value
