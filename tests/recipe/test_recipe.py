"""Recipes: how one is run, and what its run leaves."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from tests.conftest import require_file
from tests.devices import chosen
from tests.recipe.examples import DIGITS, NUMBERS
from xpnet.data import Contents, DataError, Part, load_dataset, make_dataset
from xpnet.data.preprocessing import NORMALISATIONS
from xpnet.data.store import DEBIAN
from xpnet.recipe import RecipeError, load_recipe, parse_recipe
from xpnet.report import plotting_problem
from xpnet.training import Report, evaluate, fit, load_model


def test_running_one(dev):
    recipe = parse_recipe("small", DIGITS)
    reports: list[Report] = []
    result = recipe.run(load_dataset("digits"), dev, on_report=reports.append)
    assert len(reports) == 2
    plain = result.to_dict()
    expected = {
        "recipe",
        "device",
        "dtype",
        "seed",
        "rng",
        "versions",
        "cost",
        "train_cost",
        "train_accuracy",
        "test_cost",
        "test_accuracy",
        "majority_accuracy",
        "parameters",
        "samples_per_second",
        "seconds",
    }
    assert expected <= set(plain)
    assert plain["parameters"] == 650
    assert plain["device"] == dev.name
    assert 0 < plain["test_accuracy"] <= 1
    # Of the trained network, not the mean over the last epoch's steps.
    X, y = result.dataset.X_train, result.dataset.y_train
    X = result.model.preprocessing(X, result.network.dtype)
    found = evaluate(result.network, result.model.loss, X, y)
    assert found == (plain["train_cost"], plain["train_accuracy"])
    assert plain["train_cost"] < plain["cost"][-1][1]


def test_what_cannot_be_a_model_is_refused_before_the_training(dev):
    reports: list[Report] = []
    dataset = dataclasses.replace(load_dataset("digits"), class_names=tuple("0123456788"))
    with pytest.raises(ValueError, match="class_names must be a tuple of 10 different strings"):
        parse_recipe("small", DIGITS).run(dataset, dev, on_report=reports.append)
    assert not reports


def test_pictures_are_those_of_the_model_that_is_saved(dev, tmp_path):
    if plotting_problem() is not None:
        pytest.skip("no matplotlib here")
    result = parse_recipe("small", DIGITS).run(device=dev)
    result.save(tmp_path / "before")
    result.network.parameters[...] = 0
    result.save(tmp_path / "after")
    pictures = [(tmp_path / name / "confusion.png").read_bytes() for name in ("before", "after")]
    assert pictures[0] != pictures[1]


def test_a_picture_that_cannot_be_drawn_costs_the_rest_nothing(dev, tmp_path, monkeypatch):
    if plotting_problem() is not None:
        pytest.skip("no matplotlib here")

    def refuse(*arguments, **options):
        del arguments, options
        raise OSError("no ink,\nno paper")

    monkeypatch.setattr("xpnet.recipe.result.draw_mistakes", refuse)
    result = parse_recipe("small", DIGITS).run(device=dev)
    with pytest.warns(RuntimeWarning, match=r"no mistakes\.png: OSError\('no ink,\\nno paper'\)"):
        files = result.save(tmp_path / "warned")
    assert files[3:] == ["curves.png", "confusion.png"]
    problems: list[str] = []
    assert result.save(tmp_path / "told", on_problem=problems.append) == files
    assert problems == [r"no mistakes.png: OSError('no ink,\nno paper')"]


def test_an_error_of_the_callers_is_not_the_recipes(dev):
    def refuse(report):
        del report
        raise ValueError("not mine")

    with pytest.raises(ValueError, match=r"^not mine$"):
        parse_recipe("small", DIGITS).run(device=dev, on_report=refuse)


def test_a_network_built_before(dev):
    recipe = parse_recipe("small", DIGITS)
    dataset = recipe.load_data()
    network = recipe.build(dataset, dev)
    result = recipe.run(dataset, network=network)
    assert result.network is network
    assert result.history.cost == recipe.run(dataset, dev).history.cost
    with pytest.raises(ValueError, match="device must be None if a network is given, got"):
        recipe.run(dataset, dev, network=network)


def test_what_is_left(dev, tmp_path):
    result = parse_recipe("small", DIGITS).run(device=dev)
    folder = tmp_path / "deep" / "folder"
    files = result.save(folder)
    assert {entry.name for entry in folder.iterdir()} == set(files)
    pictures = ["curves.png", "mistakes.png", "confusion.png"]
    assert files[:3] == ["history.json", "model.safetensors", "recipe.toml"]
    assert files[3:] == (pictures if plotting_problem() is None else [])
    assert json.loads((folder / "history.json").read_text()) == result.to_dict()
    model = load_model(folder / "model.safetensors", device=dev)
    X = result.dataset.X_test
    np.testing.assert_array_equal(model.predict_proba(X), result.model.predict_proba(X))
    assert (model.class_names, model.image_shape) == (tuple("0123456789"), (8, 8))
    assert load_recipe(folder / "recipe.toml").values == result.recipe.values
    with pytest.raises(FileExistsError):
        result.save(folder)


def test_no_pictures_of_images_where_there_are_none(dev, tmp_path):
    text = DIGITS.replace('"digits"', '"blobs"').replace("units = 10", "units = 3")
    files = parse_recipe("points", text).run(device=dev).save(tmp_path / "out")
    assert files[3:] == (["curves.png"] if plotting_problem() is None else [])


def pixels(dtype):
    return np.arange(400).reshape(100, 4).astype(dtype)


@pytest.mark.parametrize(
    ("X", "divisor"),
    [
        (pixels(np.uint8), 255),
        (pixels(np.float32), 1),
        # Truth values, and what was made of them, are no pixels.
        (pixels(np.uint8) % 2 == 1, 1),
        (pixels(np.uint8) % 2, 1),
    ],
)
def test_what_the_data_decide_is_written_down(dev, tmp_path, X, divisor):
    np.savez(tmp_path / "mine.npz", X=X, y=np.arange(100) % 10)
    recipe = parse_recipe("mine", DIGITS, changes=[f"data.dataset={tmp_path / 'mine.npz'}"])
    result = recipe.run(device=dev)
    assert recipe.values["data"]["divide_by"] == "auto"
    assert result.recipe.values["data"]["divide_by"] == divisor
    assert result.recipe.values["device"] == dev.name
    assert result.recipe.run(device=dev).history.cost == result.history.cost


@pytest.mark.parametrize("divide_by", [255, 254.9, 3])
@pytest.mark.parametrize("normalise", NORMALISATIONS)
def test_bytes_become_the_numbers_that_preprocessing_makes_of_them(
    dev, tmp_path, monkeypatch, divide_by, normalise
):
    """Dividing features before or during training gives the same result."""
    np.savez(tmp_path / "mine.npz", X=pixels(np.uint8), y=np.arange(100) % 10)
    changes = [f"data.dataset={tmp_path / 'mine.npz'}", f"data.divide_by={divide_by}"]
    changes += [f"data.normalise={normalise}"]
    recipe = parse_recipe("mine", DIGITS, changes=changes)
    trained = []
    for beforehand in (False, True):
        if beforehand:
            monkeypatch.setattr("xpnet.recipe.training._only_divides", lambda *_: False)
        trained.append(recipe.run(device=dev))
    network, other = (result.model.network for result in trained)
    np.testing.assert_array_equal(dev.to_host(network.parameters), dev.to_host(other.parameters))
    assert trained[0].test_cost == trained[1].test_cost
    assert trained[0].train_accuracy == trained[1].train_accuracy


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            ["network.layers.0.units=9"],
            "network.layers.0 must have 10 outputs under softmax_cross_e"
            "ntropy for the 10 classes of digits, got 9",
        ),
        (["loss=sigmoid_cross_entropy"], "loss must be 'softmax_cross_entropy' for the 10 classes"),
        (["network.layers.0.units=100000000000000"], "network.layers: .*memory"),
        (["optimizer.learning_rate=1e-300"], "learning_rate=1e-300 is 0 in float32"),
        (
            ["network.init={type='normal', std=1e39}"],
            r"network.layers: .*Normal\(std=1e\+39\) must draw finite float32 numbers",
        ),
        (
            ["network.layers.0.init=sparse"],
            'network.layers.0.init must be "auto" or the name of a known',
        ),
    ],
)
def test_what_does_not_fit(dev, changes, said):
    with pytest.raises(RecipeError, match=f"^small: .*{said}"):
        parse_recipe("small", DIGITS, changes=changes).run(device=dev)


def test_two_classes_take_one_output_or_two(dev):
    changes = ["data.dataset=moons", "network.layers.0.units=2"]
    two = parse_recipe("two", DIGITS, changes=changes).run(device=dev)
    sigmoid = ["loss=sigmoid_cross_entropy", "network.layers.0.units=1"]
    one = parse_recipe("one", DIGITS, changes=[*changes, *sigmoid]).run(device=dev)
    for result in (one, two):
        assert result.model.predict_proba(result.dataset.X_test).shape == (80, 2)
    with pytest.raises(RecipeError, match="must have 1 outputs under sigmoid_cross"):
        parse_recipe("two", DIGITS, changes=[*changes, sigmoid[0]]).run(device=dev)


def normalised(choice, train, X):
    """Do what the reference of keys says."""
    if choice == "standardise":
        std = train.std(axis=0)
        return (X - train.mean(axis=0)) / np.where(std > 0, std, 1)
    if choice == "min-max":
        span = train.max(axis=0) - train.min(axis=0)
        return (X - train.min(axis=0)) / np.where(span > 0, span, 1)
    if choice == "per-image":
        return (X - X.mean(axis=1, keepdims=True)) / X.std(axis=1, keepdims=True)
    return X


@pytest.mark.parametrize("choice", NORMALISATIONS)
def test_what_the_network_is_given(dev, monkeypatch, choice):
    seen = {}

    def spy(network, X, y, *, divide_by, validation, **more):
        parts = {"train": X, "validation": validation[0]}
        seen.update({k: v / (divide_by or 1) for k, v in parts.items()})
        return fit(network, X, y, divide_by=divide_by, validation=validation, **more)

    monkeypatch.setattr("xpnet.recipe.training.fit", spy)
    changes = [f"data.normalise={choice}", "data.divide_by=16", "data.validation_fraction=0.2"]
    result = parse_recipe("small", DIGITS, changes=[*changes, "dtype=float64"]).run(device=dev)
    dataset, model = result.dataset, result.model
    assert dataset.X_validation is not None
    train = dataset.X_train / 16
    assert len(train) < 1797 * 0.8 * 0.8 + 1
    for part, X in (("train", dataset.X_train), ("validation", dataset.X_validation)):
        expected = normalised(choice, train, X / 16)
        np.testing.assert_allclose(seen[part], expected, rtol=1e-9, atol=1e-12)
    expected = normalised(choice, train, dataset.X_test / 16)
    found = model.preprocessing(dataset.X_test, "float64")
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)
    Z = model.network.predict(expected)
    assert (model.predict(dataset.X_test) == Z.argmax(axis=1)).all()
    assert result.test_accuracy == (Z.argmax(axis=1) == dataset.y_test).mean()
    assert result.recipe.values["data"]["normalise"] == choice


def test_only_what_is_not_normalised_stays_bytes(dev, tmp_path, monkeypatch):
    np.savez(tmp_path / "mine.npz", X=pixels(np.uint8), y=np.arange(100) % 10)
    dtypes = []

    def spy(network, X, y, **more):
        dtypes.append(X.dtype)
        return fit(network, X, y, **more)

    monkeypatch.setattr("xpnet.recipe.training.fit", spy)
    for choice in NORMALISATIONS:
        changes = [f"data.dataset={tmp_path / 'mine.npz'}", f"data.normalise={choice}"]
        parse_recipe("mine", DIGITS, changes=changes).run(device=dev)
    assert dtypes == ["uint8", "float32", "float32", "float32"]


def test_another_data_set_than_the_recipes(dev, tmp_path):
    X, y = np.random.default_rng(0).normal(size=(60, 5)), np.arange(60) % 10
    parts = {key: Part(X, y) for key in ("train", "test")}
    dataset = make_dataset("my own", Contents(parts))
    recipe = parse_recipe("small", DIGITS)
    recipe.run(dataset, dev).save(tmp_path / "mine")
    recipe.run(device=dev).save(tmp_path / "its")
    histories = [
        json.loads((tmp_path / name / "history.json").read_text()) for name in ("mine", "its")
    ]
    assert [history["dataset"] for history in histories] == ["my own", "digits"]
    assert histories[0]["samples"] == {"train": 60, "validation": 0, "test": 60}
    comment = "# Trained on 'my own', not on the data set in [data].\n"
    assert (tmp_path / "mine" / "recipe.toml").read_text().startswith(comment)
    assert not (tmp_path / "its" / "recipe.toml").read_text().startswith("#")
    assert load_recipe(tmp_path / "mine" / "recipe.toml").values["data"]["dataset"] == "digits"


def test_noise_beyond_all_measure(dev):
    changes = ["data.dataset=flower", "data.noise=1e308", "network.layers.0.units=2"]
    with pytest.raises(DataError, match="features must be finite"):
        parse_recipe("far", DIGITS, changes=changes).run(device=dev)


def test_data_that_cannot_be_standardised(dev, tmp_path):
    X = np.full((400, 2), 1e308)
    np.savez(tmp_path / "large.npz", X=X, y=np.arange(400) % 10)
    changes = [f"data.dataset={tmp_path / 'large.npz'}", "data.normalise=standardise"]
    said = "large.npz, train samples, with data.divide_by = auto, data.normalise = standardise: .*"
    with pytest.raises(DataError, match=f"{said} sums are finite"):
        parse_recipe("large", DIGITS, changes=changes).run(device=dev)
    with pytest.raises(DataError, match=r"train samples, .* = auto: .* got inf for 1e\+308 in"):
        parse_recipe("large", DIGITS, changes=changes[:1]).run(device=dev)


@pytest.mark.long
@pytest.mark.slow
def test_fashion_mnist(dev, request):
    require_file(DEBIAN / "fashion-mnist", "train-images-idx3-ubyte.gz")
    is_emulated = request.config.stash[chosen] == "emulated"  # and slow
    recipe = load_recipe("fashion-mnist", changes=["training.epochs=1"] if is_emulated else [])
    result = recipe.run(recipe.load_data(), dev)
    assert len(result.dataset.X_train) == 54_000
    assert result.dataset.n_classes == 10
    assert result.history.reports[-1].epoch == recipe.values["training"]["epochs"] - 1 <= 19
    assert result.test_accuracy >= (0.8 if is_emulated else 0.89)


@pytest.mark.parametrize("text", [DIGITS, NUMBERS])
def test_weights_of_samples(dev, tmp_path, monkeypatch, text):
    """Samples of weight 0 do not take part in training; scores count every sample."""
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(120, 3)), np.arange(120) % 10
    weights = rng.uniform(0, 2, 120) * (y != 3)
    np.savez(tmp_path / "mine.npz", X=X, y=y, w=weights)
    seen = []

    def spy(network, X, y, *, sample_weight, **more):
        seen.append(sample_weight)
        return fit(network, X, y, sample_weight=sample_weight, **more)

    monkeypatch.setattr("xpnet.recipe.training.fit", spy)
    changes = [f"data.dataset={tmp_path / 'mine.npz'}", "data.sample_weight=w"]
    changes += ["data.divide_by=1", "data.normalise=none"]
    result = parse_recipe("mine", text, changes=changes).run(device=dev)
    place = {tuple(row): weight for row, weight in zip(X.tolist(), weights, strict=True)}
    expected = [place[tuple(row)] for row in result.dataset.X_train.tolist()]
    np.testing.assert_array_equal(seen[0], expected)
    found = evaluate(
        result.network, result.model.loss, result.dataset.X_train, result.dataset.y_train
    )
    assert found == (result.train_cost, result.train_accuracy)
    recipe = parse_recipe("mine", text, changes=[*changes, "data.sample_weight=none"])
    assert recipe.run(device=dev).history.cost != result.history.cost
    assert seen[1] is None
    np.savez(tmp_path / "mine.npz", X=X, y=y, w=0 * weights)
    with pytest.raises(RecipeError, match="the weights of all samples are 0: there is nothing"):
        parse_recipe("mine", text, changes=changes).run(device=dev)
