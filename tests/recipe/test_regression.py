"""Recipes with a loss for numbers."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from tests.recipe.examples import DIGITS, NUMBERS
from xpnet.data import DataError, load_dataset
from xpnet.recipe import RecipeError, load_recipe, parse_recipe
from xpnet.report import plotting_problem
from xpnet.training import Report, load_model


def surface(folder, n_targets, n=200, shift=0.0, scale=1.0):
    """Write samples of smooth functions of two features."""
    X = np.random.default_rng(0).uniform(-1, 1, (n, 2))
    y = np.stack([np.sin(2 * X[:, 0] + k) * X[:, 1] for k in range(n_targets)], axis=1)
    y = shift + scale * y
    np.savez(folder / "surface.npz", X=X, y=y if n_targets > 1 else y[:, 0])
    return folder / "surface.npz"


def determination(predicted, y):
    y = y.reshape(len(y), -1)
    residual = ((predicted.reshape(y.shape) - y) ** 2).sum(axis=0)
    return (1 - residual / ((y - y.mean(axis=0)) ** 2).sum(axis=0)).mean()


@pytest.mark.heavy
@pytest.mark.parametrize("n_targets", [1, 3])
@pytest.mark.parametrize("standardise", [False, True])
def test_regression(dev, tmp_path, n_targets, standardise):
    changes = [
        f"data.dataset={surface(tmp_path, n_targets)}",
        f"data.standardise_target={str(standardise).lower()}",
        f"network.layers.1.units={n_targets}",
        "network.layers.0.units=32",
        "optimizer.learning_rate=0.02",
        "training.epochs=150",
    ]
    recipe = parse_recipe("numbers", NUMBERS, changes=changes)
    result = recipe.run(device=dev)
    dataset, model = result.dataset, result.model
    assert (dataset.task, dataset.n_targets) == ("regression", n_targets)
    predicted = model.predict(dataset.X_test)
    assert predicted.shape == dataset.y_test.shape
    assert determination(predicted, dataset.y_test) > 0.95
    assert result.test_accuracy == pytest.approx(determination(predicted, dataset.y_test), abs=1e-4)
    fitted = determination(model.predict(dataset.X_train), dataset.y_train)
    assert result.train_accuracy == pytest.approx(fitted, abs=1e-4)
    held_out = determination(model.predict(dataset.X_validation), dataset.y_validation)
    last = result.history.reports[-1]
    assert last.validation_accuracy == pytest.approx(held_out, abs=1e-4)
    # The cost is the mean of the squares, in units of the targets' variance if standardised.
    deviation = dataset.y_train.std(axis=0) if standardise else 1
    cost = (((predicted - dataset.y_test) / deviation) ** 2).mean()
    assert result.test_cost == pytest.approx(cost, rel=1e-3)
    files = result.save(tmp_path / "out")
    pictures = ["curves.png", "predictions.png"] if plotting_problem() is None else []
    assert files[3:] == pictures
    text = (tmp_path / "out" / "history.json").read_text()
    assert "accuracy" not in text
    history = json.loads(text)
    assert history == result.to_dict()
    assert (history["test_R2"], history["train_R2"]) == (
        result.test_accuracy,
        result.train_accuracy,
    )
    assert history["reports"][-1]["validation_R2"] == last.validation_accuracy
    again = load_model(tmp_path / "out", device=dev)
    np.testing.assert_array_equal(again.predict(dataset.X_test), predicted)
    assert (
        load_recipe(tmp_path / "out" / "recipe.toml").run(device=dev).to_dict()["cost"]
        == (history["cost"])
    )


@pytest.mark.heavy
@pytest.mark.parametrize("n_targets", [1, 2])
def test_regression_of_counts(dev, tmp_path, n_targets):
    rng = np.random.default_rng(0)
    X = rng.uniform(-1, 1, (400, 2))
    rates = np.exp(2 + np.stack([X[:, 0] + k * X[:, 1] for k in range(1, n_targets + 1)], axis=1))
    y = rng.poisson(rates)
    np.savez(tmp_path / "counts.npz", X=X, y=y if n_targets > 1 else y[:, 0])
    changes = [
        "loss=poisson_deviance",
        f"data.dataset={tmp_path / 'counts.npz'}",
        f"network.layers.1.units={n_targets}",
        "training.epochs=60",
    ]
    result = parse_recipe("counts", NUMBERS, changes=changes).run(device=dev)
    dataset, model = result.dataset, result.model
    predicted = model.predict(dataset.X_test)
    assert predicted.shape == dataset.y_test.shape
    assert (predicted > 0).all()
    assert determination(predicted, dataset.y_test) > 0.6
    assert result.test_accuracy == pytest.approx(determination(predicted, dataset.y_test), abs=1e-4)
    true, mu = (a.reshape(len(a), -1) for a in (dataset.y_test, predicted))
    deviance = np.where(true > 0, true * np.log(np.maximum(true, 1) / mu), 0) - true + mu
    assert result.test_cost == pytest.approx(deviance.sum(axis=1).mean(), rel=1e-4)
    pictures = ["curves.png", "predictions.png"] if plotting_problem() is None else []
    assert result.save(tmp_path / "out")[3:] == pictures
    again = load_model(tmp_path / "out", device=dev)
    np.testing.assert_array_equal(again.predict(dataset.X_test), predicted)
    negative = surface(tmp_path, n_targets)
    with pytest.raises(RecipeError, match="counts: y must hold counts or other numbers >= 0, got"):
        parse_recipe("counts", NUMBERS, changes=[*changes, f"data.dataset={negative}"]).run(
            device=dev
        )


@pytest.mark.heavy
def test_large_numbers_that_differ_little(dev, tmp_path):
    """In float32 seconds since 1970 are 128 apart."""
    path = surface(tmp_path, 1, shift=1.7e9, scale=10.0)
    changes = [f"data.dataset={path}", "network.layers.0.units=32", "training.epochs=150"]
    changes += ["optimizer.learning_rate=0.02", "data.standardise_target=true"]
    result = parse_recipe("numbers", NUMBERS, changes=changes).run(device=dev)
    assert determination(result.model.predict(result.dataset.X_test), result.dataset.y_test) > 0.9


def test_the_shipped_regression(dev, tmp_path):
    result = load_recipe("diabetes-shallow").run(device=dev)
    assert result.network.n_parameters == 97
    assert (result.history.reports[-1].validation_accuracy or 0) > 0.4
    assert result.test_accuracy > 0.25
    result.save(tmp_path / "out")


def test_early_stopping_watches_r2(dev):
    changes = ["early_stopping.patience=3", "early_stopping.monitor=validation_accuracy"]
    changes += ["training.epochs=400", "data.standardise_target=true"]
    history = parse_recipe("numbers", NUMBERS, changes=changes).run(device=dev).history
    watched = [(r.validation_accuracy or 0, r.epoch) for r in history.reports]
    assert history.stopped_early
    assert history.best_epoch == max(watched)[1]


@pytest.mark.parametrize(
    ("text", "changes", "error", "said"),
    [
        (
            NUMBERS,
            ["network.layers.1.units=3"],
            RecipeError,
            "network.layers.1 must have 1 outputs under mean_squared_error for the one number of "
            "diabetes, got 3",
        ),
        (
            NUMBERS,
            ["data.dataset=digits"],
            DataError,
            "digits is a classification data set, got ta",
        ),
        (
            DIGITS,
            ["data.dataset=diabetes"],
            DataError,
            "diabetes is a regression data set, got task ",
        ),
        (
            NUMBERS,
            ["training.class_weight=balanced"],
            RecipeError,
            "class_weight needs one class per sample",
        ),
    ],
)
def test_what_does_not_fit_numbers(dev, text, changes, error, said):
    with pytest.raises(error, match=said):
        parse_recipe("small", text, changes=changes).run(device=dev)


def test_a_data_set_of_the_other_task(dev):
    digits, diabetes = load_dataset("digits"), load_dataset("diabetes", task="regression")
    said = "loss must be one for the 10 classes of digits, got 'mean_squared_error', which is for n"
    with pytest.raises(RecipeError, match=f"small: {said}"):
        parse_recipe("small", NUMBERS).run(digits, dev)
    said = "must be one for the one number of diabetes, got 'softmax_cross_entropy', which is for c"
    with pytest.raises(RecipeError, match=f"small: loss {said}"):
        parse_recipe("small", DIGITS).run(diabetes, dev)
    three = dataclasses.replace(diabetes, y_train=np.zeros((353, 3)), y_test=np.zeros((89, 3)))
    with pytest.raises(
        RecipeError, match=r"1 must have 3 outputs .* for the 3 numbers of diabetes,"
    ):
        parse_recipe("small", NUMBERS).run(three, dev)


@pytest.mark.parametrize("part", ["y_train", "y_test", "y_validation"])
def test_numbers_out_of_range_are_refused_before_the_training(dev, part):
    dataset = load_dataset("diabetes", task="regression", validation_fraction=0.2)
    y = getattr(dataset, part).copy()
    y[7] = 1e300
    dataset = dataclasses.replace(dataset, **{part: y})
    reports: list[Report] = []
    recipe = parse_recipe("small", NUMBERS)
    said = r"regression targets must be finite in float32, got inf for 1e\+300"
    with pytest.raises(DataError, match=f"diabetes, {part[2:]} samples: {said}"):
        recipe.run(dataset, dev, on_report=reports.append)
    assert not reports
    recipe = parse_recipe("small", NUMBERS, changes=["data.standardise_target=true"])
    if part == "y_train":  # then its deviation is as large
        assert np.isfinite(recipe.run(dataset, dev).train_cost)
        dataset = dataclasses.replace(dataset, y_train=np.full(len(y), 1.5e308))
        with pytest.raises(DataError, match=r"true: 'standardise' needs features whose sums are"):
            recipe.run(dataset, dev)
    else:
        said = f"samples, with data.standardise_target = true: {said}"
        with pytest.raises(DataError, match=said):
            recipe.run(dataset, dev)
