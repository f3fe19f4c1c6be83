"""The winner: trained on all but the test samples, and the recipe that says how."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from optuna.storages import InMemoryStorage
from sklearn.datasets import load_digits

from tests.search.studies import RECIPE, add, recipe
from xpnet.recipe import load_recipe
from xpnet.search.study import SearchError, open_study
from xpnet.search.winner import plan

pytestmark = [pytest.mark.host, pytest.mark.needs("optuna", "scipy", "sklearn", "tomli_w")]

RATE, BETA, UNITS = "optimizer.learning_rate", "optimizer.beta1", "network.layers.0.units"
POINT = {RATE: 0.02, BETA: 0.9, UNITS: 24}
STOPPING = ("training.epochs=9", "early_stopping.patience=2")
COSINE = "schedule=cosine"


@pytest.fixture(autouse=True)
def _without_pictures(monkeypatch):
    monkeypatch.setattr("xpnet.recipe.result.plotting_problem", lambda: "not here")


def study(*changes):
    return open_study(InMemoryStorage(), "study", recipe(*changes))


def trial(found, **user_attrs):
    add(found, POINT, 0.5, **user_attrs)
    return found.trials()[-1]


def parameters(network):
    return [np.array(value) for value in network.named_parameters().values()]


def assert_same(one: Any, other: Any) -> None:
    pairs = list(zip(parameters(one.network), parameters(other.network), strict=True))
    assert pairs
    assert all((a == b).all() for a, b in pairs)
    assert one.test_accuracy == other.test_accuracy
    assert one.test_cost == other.test_cost


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Digits in files: with a validation part; without; with weights; with both."""
    folder = tmp_path_factory.mktemp("data")
    X, y = load_digits(return_X_y=True)
    X, y = X.astype("uint8"), y.astype("int64")
    parts = {
        "X_train": X[:600],
        "y_train": y[:600],
        "X_test": X[600:700],
        "y_test": y[600:700],
    }
    validation = {"X_validation": X[700:850], "y_validation": y[700:850]}
    weights = {"w": np.linspace(0.1, 2.0, 600)}
    contents: dict[str, dict[str, Any]] = {
        "own.npz": {**parts, **validation},
        "weighted.npz": {**parts, **weights},
        "both.npz": {**parts, **validation, **weights},
    }
    for name, arrays in contents.items():
        np.savez(folder / name, **arrays)
    return folder


def of_file(files, name, *changes):
    weighted = () if name == "own.npz" else ("data.sample_weight=w",)
    return (f"data.dataset={str(files / name)!r}", *weighted, *changes)


def test_validation_samples_join():
    found = study()
    planned = plan(found, trial(found))
    before = found.recipe.load_data()
    X, y = before.X_validation, before.y_validation
    assert X is not None
    assert y is not None
    data = planned.dataset
    assert len(data.X_train) == len(before.X_train) + len(X) == 1437
    assert data.X_validation is None
    assert data.y_validation is None
    assert (data.X_test == before.X_test).all()
    assert (data.y_test == before.y_test).all()
    joined = np.sort([hash(bytes(row)) for row in np.ascontiguousarray(data.X_train)])
    both = np.concatenate([before.X_train, X])
    assert (joined == np.sort([hash(bytes(row)) for row in both])).all()
    assert (np.bincount(data.y_train) == np.bincount(np.concatenate([before.y_train, y]))).all()
    assert planned.notes == []
    assert planned.last_epoch is None
    assert planned.recipe.values["data"]["validation_fraction"] == 0
    assert planned.recipe.values["network"]["layers"][0]["units"] == 24
    assert "search" not in planned.recipe.values
    assert found.recipe == recipe()


@pytest.mark.parametrize(
    "changes",
    [
        (),
        (*STOPPING, "early_stopping.restore_best=false"),
        STOPPING,
        ("data.normalise=standardise",),
    ],
)
def test_the_saved_recipe_makes_the_winner_again(tmp_path, changes):
    found = study(*changes)
    made = plan(found, trial(found, best_epoch=4, epochs=6)).run()
    epochs = {0: 2, 1: 2}.get(len(changes), 4 if len(changes) == 2 else 6)
    assert len(made.history.reports) == epochs
    assert made.history.best_epoch is None
    made.save(tmp_path / "winner")
    text = (tmp_path / "winner" / "recipe.toml").read_text(encoding="utf-8")
    assert not text.startswith("#")
    again = load_recipe(tmp_path / "winner" / "recipe.toml").run()
    assert_same(made, again)
    assert made.test_accuracy > 0.5


def test_a_file_with_a_validation_part_of_its_own_is_joined(files, tmp_path):
    found = study(*of_file(files, "own.npz"))
    planned = plan(found, trial(found))
    data, before = planned.dataset, found.recipe.load_data()
    assert before.X_validation is not None
    assert data.X_validation is None
    assert data.y_validation is None
    assert (data.X_train[:600] == before.X_train).all()
    assert (data.X_train[600:] == before.X_validation).all()
    assert (data.y_train[600:] == before.y_validation).all()
    assert len(data.X_train) == len(data.y_train) == 750
    made = planned.run()
    assert made.history.n_samples == 750 * 2
    made.save(tmp_path / "winner")
    text = (tmp_path / "winner" / "recipe.toml").read_text(encoding="utf-8")
    assert text.startswith("# Trained on ")
    assert text.splitlines()[0].endswith(", not on the data set in [data].")
    assert "training and validation samples" in text.splitlines()[0]


def test_without_validation_in_the_file_a_fraction_with_weights_joins(files):
    found = study(*of_file(files, "weighted.npz"))
    planned = plan(found, trial(found))
    assert planned.notes == []
    weights = planned.dataset.sample_weight
    assert weights is not None
    assert len(weights) == len(planned.dataset.X_train) == 600
    assert_same(planned.run(), planned.recipe.run())


def test_weighted_samples_whose_validation_part_is_the_files_stay(files):
    found = study(*of_file(files, "both.npz", *STOPPING))
    one = trial(found, best_epoch=3, epochs=5)
    planned = plan(found, one)
    assert planned.notes == [
        "on the training samples only, because the validation samples have no weights"
    ]
    assert planned.last_epoch is None
    assert planned.recipe == found.recipe_of(one)
    assert len(planned.dataset.X_train) == 600
    assert planned.dataset.X_validation is not None
    validated = found.recipe_of(one).validate(found.recipe.load_data())
    assert planned.run().history.best_epoch == validated.history.best_epoch


@pytest.mark.parametrize("schedule", ["constant", "{type='constant', warmup=2}"])
def test_under_a_constant_schedule_epochs_are_set(schedule):
    found = study(*STOPPING, f"schedule={schedule}")
    planned = plan(found, trial(found, best_epoch=4, epochs=6))
    assert planned.notes == []
    assert planned.last_epoch == 4
    assert planned.recipe.values["training"]["epochs"] == 4
    assert planned.recipe.values["early_stopping"]["patience"] == "never"
    full = plan(study(*STOPPING, f"schedule={schedule}"), found.trials()[0]).run()
    assert len(full.history.reports) == 4


@pytest.mark.parametrize("schedule", ["cosine", "{type='step', gamma=0.5, interval=2}"])
def test_under_another_schedule_a_callback_stops_it_and_it_is_noted(schedule):
    found = study(*STOPPING, f"schedule={schedule}")
    planned = plan(found, trial(found, best_epoch=4, epochs=6))
    assert planned.notes == ["up to epoch 4, the trial's best"]
    assert planned.last_epoch == 4
    assert planned.recipe.values["training"]["epochs"] == 9
    made = planned.run()
    assert [report.epoch for report in made.history.reports] == [0, 1, 2, 3]
    assert made.history.stopped_early
    whole = planned.recipe.run(planned.dataset)
    rates = [report.learning_rate for report in whole.history.reports]
    assert [report.learning_rate for report in made.history.reports] == rates[:4]
    assert len(rates) == 9


def test_without_restoring_the_best_it_ends_where_the_trial_did():
    found = study(*STOPPING, COSINE, "early_stopping.restore_best=false")
    assert plan(found, trial(found, best_epoch=4, epochs=6)).last_epoch == 6


def test_early_stopping_that_watches_training_stays():
    found = study(*STOPPING, "early_stopping.monitor=cost")
    planned = plan(found, trial(found, best_epoch=4, epochs=6))
    assert planned.last_epoch is None
    assert planned.recipe.values["early_stopping"]["patience"] == 2
    assert planned.recipe.values["training"]["epochs"] == 9
    assert planned.dataset.X_validation is None
    assert planned.run().history.best_epoch is not None


@pytest.mark.parametrize("monitor", ["validation_cost", "validation_accuracy"])
def test_a_schedule_that_watches_validation_stays(monitor):
    found = study(*STOPPING, f"schedule={{type='reduce_on_plateau', monitor='{monitor}'}}")
    one = trial(found, best_epoch=4, epochs=6)
    planned = plan(found, one)
    assert planned.notes == [
        f"on the training samples only, because its schedule monitors {monitor}"
    ]
    assert planned.recipe == found.recipe_of(one)
    assert planned.last_epoch is None
    assert planned.dataset.X_validation is not None
    assert planned.run().history.best_epoch is not None


def test_a_schedule_that_watches_training_has_all_samples():
    found = study("schedule={type='reduce_on_plateau', monitor='cost'}")
    planned = plan(found, trial(found))
    assert planned.notes == []
    assert planned.dataset.X_validation is None
    planned.run()


def test_what_has_diverged_is_refused():
    found = study()
    with pytest.raises(SearchError, match="the best trial, 0, diverged: there is no network"):
        plan(found, trial(found, diverged="cost is nan"))


def test_reports_come_through_and_may_stop_it():
    found = study("training.epochs=8")
    seen: list[int] = []

    def until(report):
        seen.append(report.epoch)
        return report.epoch == 2

    made = plan(found, trial(found)).run(on_report=until)
    assert seen == [0, 1, 2] == [report.epoch for report in made.history.reports]
    counted = itertools.count()
    plan(found, trial(found)).run(on_report=lambda report: next(counted))
    assert next(counted) == 8, "a number is no answer"


def test_a_trial_that_changes_how_it_stops():
    """The trial's own settings decide, not the recipe's."""
    text = RECIPE.partition("[search]")[0] + "[search]\nearly_stopping.patience = {choice=[1, 3]}\n"
    found = open_study(InMemoryStorage(), "study", recipe("training.epochs=9", text=text))
    add(found, {"early_stopping.patience": 3}, 0.5, best_epoch=5, epochs=8)
    planned = plan(found, found.trials()[0])
    assert planned.last_epoch == planned.recipe.values["training"]["epochs"] == 5
