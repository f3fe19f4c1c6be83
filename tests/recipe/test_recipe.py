"""Recipes: those that come with xpnet, those of one's own, and what a run of one leaves."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from tests.conftest import require_file
from tests.devices import chosen
from xpnet.data import Contents, DataError, Part, load_dataset, make_dataset
from xpnet.data.preprocessing import NORMALISATIONS
from xpnet.data.store import DEBIAN
from xpnet.recipe import RecipeError, load_recipe, parse_recipe, recipe_names
from xpnet.report import plotting_problem
from xpnet.training import Report, evaluate, fit, load_model

GOOD = """
loss = "softmax_cross_entropy"
optimizer = "adam"
[data]
dataset = "digits"
[network]
layers = [{ type = "dense", units = 10 }]
[training]
epochs = 2
"""


def test_what_is_shipped():
    kinds = ("deep", "logistic", "shallow")
    assert recipe_names() == [
        *(f"cats-{kind}" for kind in kinds),
        "diabetes-shallow",
        *(f"digits-{kind}" for kind in kinds),
        "fashion-mnist",
        "fashion-mnist-best",
    ]
    all_widths = {}
    for name in recipe_names():
        recipe = load_recipe(name)
        assert recipe.name == name
        assert recipe.values["description"]
        layers = recipe.values["network"]["layers"]
        widths = [layer["units"] for layer in layers if "units" in layer]
        kind = name.rpartition("-")[2]
        n_layers = {"logistic": 1, "shallow": 2}.get(kind)
        assert len(widths) == n_layers if n_layers else len(widths) >= 3
        all_widths[name] = widths
    assert all_widths["fashion-mnist"] == [256, 128, 10]
    assert all_widths["fashion-mnist-best"] == [1024, 1024, 10]
    recipe = load_recipe("fashion-mnist")
    assert recipe.values["optimizer"]["type"] == "adam"
    assert recipe.values["training"]["epochs"] <= 20


def test_running_one(dev):
    recipe = parse_recipe("small", GOOD)
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
        parse_recipe("small", GOOD).run(dataset, dev, on_report=reports.append)
    assert not reports


def test_pictures_are_those_of_the_model_that_is_saved(dev, tmp_path):
    if plotting_problem() is not None:
        pytest.skip("no matplotlib here")
    result = parse_recipe("small", GOOD).run(device=dev)
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
    result = parse_recipe("small", GOOD).run(device=dev)
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
        parse_recipe("small", GOOD).run(device=dev, on_report=refuse)


def test_what_is_left(dev, tmp_path):
    result = parse_recipe("small", GOOD).run(device=dev)
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
    text = GOOD.replace('"digits"', '"blobs"').replace("units = 10", "units = 3")
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
    recipe = parse_recipe("mine", GOOD, changes=[f"data.dataset={tmp_path / 'mine.npz'}"])
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
    """Whether they are divided before the training or in it is nothing that a result shows."""
    np.savez(tmp_path / "mine.npz", X=pixels(np.uint8), y=np.arange(100) % 10)
    changes = [f"data.dataset={tmp_path / 'mine.npz'}", f"data.divide_by={divide_by}"]
    changes += [f"data.normalise={normalise}"]
    recipe = parse_recipe("mine", GOOD, changes=changes)
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
        parse_recipe("small", GOOD, changes=changes).run(device=dev)


def test_two_classes_take_one_output_or_two(dev):
    changes = ["data.dataset=moons", "network.layers.0.units=2"]
    two = parse_recipe("two", GOOD, changes=changes).run(device=dev)
    sigmoid = ["loss=sigmoid_cross_entropy", "network.layers.0.units=1"]
    one = parse_recipe("one", GOOD, changes=[*changes, *sigmoid]).run(device=dev)
    for result in (one, two):
        assert result.model.predict_proba(result.dataset.X_test).shape == (80, 2)
    with pytest.raises(RecipeError, match="must have 1 outputs under sigmoid_cross"):
        parse_recipe("two", GOOD, changes=[*changes, sigmoid[0]]).run(device=dev)


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
    result = parse_recipe("small", GOOD, changes=[*changes, "dtype=float64"]).run(device=dev)
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
        parse_recipe("mine", GOOD, changes=changes).run(device=dev)
    assert dtypes == ["uint8", "float32", "float32", "float32"]


def test_another_data_set_than_the_recipes(dev, tmp_path):
    X, y = np.random.default_rng(0).normal(size=(60, 5)), np.arange(60) % 10
    parts = {key: Part(X, y) for key in ("train", "test")}
    dataset = make_dataset("my own", Contents(parts))
    recipe = parse_recipe("small", GOOD)
    recipe.run(dataset, dev).save(tmp_path / "mine")
    recipe.run(device=dev).save(tmp_path / "its")
    histories = [
        json.loads((tmp_path / name / "history.json").read_text()) for name in ("mine", "its")
    ]
    assert [history["dataset"] for history in histories] == ["my own", "digits"]
    assert histories[0]["samples"] == {"train": 60, "validation": 0, "test": 60}
    comment = "# The data were not those of [data] but 'my own'.\n"
    assert (tmp_path / "mine" / "recipe.toml").read_text().startswith(comment)
    assert not (tmp_path / "its" / "recipe.toml").read_text().startswith("#")
    assert load_recipe(tmp_path / "mine" / "recipe.toml").values["data"]["dataset"] == "digits"


def test_noise_beyond_all_measure(dev):
    changes = ["data.dataset=flower", "data.noise=1e308", "network.layers.0.units=2"]
    with pytest.raises(DataError, match="features must be finite"):
        parse_recipe("far", GOOD, changes=changes).run(device=dev)


def test_changes_are_no_string():
    with pytest.raises(TypeError, match="changes must be a sequence of strings, got the string"):
        load_recipe("digits-deep", changes="seed=1")


def test_recipes_that_cannot_be_read(tmp_path):
    with pytest.raises(RecipeError, match="no recipe named 'dogs'; known: cats-deep, cats-log"):
        load_recipe("dogs")
    with pytest.raises(RecipeError, match=r"cannot read the recipe .*none\.toml: No such file"):
        load_recipe(tmp_path / "none.toml")
    (tmp_path / "latin.toml").write_bytes(b"description = '\xe9'")
    with pytest.raises(RecipeError, match=r"cannot read the recipe .*latin\.toml: 'utf-8' codec"):
        load_recipe(tmp_path / "latin.toml")
    (tmp_path / "folder.toml").mkdir()
    with pytest.raises(RecipeError, match="cannot read the recipe"):
        load_recipe(tmp_path / "folder.toml")
    (tmp_path / "wrong.toml").write_text("a = ")
    with pytest.raises(RecipeError, match=r"wrong\.toml is not TOML: Invalid value"):
        load_recipe(tmp_path / "wrong.toml")


def test_data_that_cannot_be_standardised(dev, tmp_path):
    X = np.full((400, 2), 1e308)
    np.savez(tmp_path / "large.npz", X=X, y=np.arange(400) % 10)
    changes = [f"data.dataset={tmp_path / 'large.npz'}", "data.normalise=standardise"]
    said = "large.npz, train samples, with data.divide_by = auto, data.normalise = standardise: .*"
    with pytest.raises(DataError, match=f"{said} sums are finite"):
        parse_recipe("large", GOOD, changes=changes).run(device=dev)
    with pytest.raises(DataError, match=r"train samples, .* = auto: .* got inf for 1e\+308 in"):
        parse_recipe("large", GOOD, changes=changes[:1]).run(device=dev)


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


NUMBERS = """
loss = "mean_squared_error"
optimizer = { type = "adam", learning_rate = 0.01 }
[data]
dataset = "diabetes"
normalise = "standardise"
validation_fraction = 0.2
[network]
layers = [{ type = "dense", units = 8, activation = "tanh" }, { type = "dense", units = 1 }]
[training]
epochs = 20
batch_size = 32
"""


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
            "digits holds classes to be predicted, not n",
        ),
        (
            GOOD,
            ["data.dataset=diabetes"],
            DataError,
            "diabetes holds numbers to be predicted, not ",
        ),
        (
            NUMBERS,
            ["training.class_weight=balanced"],
            RecipeError,
            "class_weight is for labels of one class each",
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
        parse_recipe("small", GOOD).run(diabetes, dev)
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
    said = r"numbers to be predicted must be finite in float32, got inf for 1e\+300"
    with pytest.raises(DataError, match=f"diabetes, {part[2:]} samples: {said}"):
        recipe.run(dataset, dev, on_report=reports.append)
    assert not reports
    recipe = parse_recipe("small", NUMBERS, changes=["data.standardise_target=true"])
    if part == "y_train":  # then its deviation is as large
        assert np.isfinite(recipe.run(dataset, dev).train_cost)
        dataset = dataclasses.replace(dataset, y_train=np.full(len(y), 1.5e308))
        with pytest.raises(DataError, match=r"true: standardising needs features whose sums are"):
            recipe.run(dataset, dev)
    else:
        said = f"samples, with data.standardise_target = true: {said}"
        with pytest.raises(DataError, match=said):
            recipe.run(dataset, dev)


@pytest.mark.parametrize("text", [GOOD, NUMBERS])
def test_weights_of_samples(dev, tmp_path, monkeypatch, text):
    """Whoever has weight 0 has no part in the training, and all have their part in what is said."""
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
