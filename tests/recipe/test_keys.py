"""The keys of a recipe: none goes unread."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import xpnet
from tests.recipe.examples import GOOD, outcome
from xpnet.data import DataError
from xpnet.data.preprocessing import NORMALISATIONS
from xpnet.recipe import parse_recipe
from xpnet.recipe.keys import KEYS

pytestmark = pytest.mark.host

# What each key is changed to, and what then changes: the key has a reader that does something.
CHANGES = {
    "description": '"two moons"',
    "seed": "1",
    "rng": '"numpy-legacy"',
    "dtype": '"float64"',
    "device": '"cuda:99"',
    "precision": '"tf32"',
    "loss": '"sigmoid_cross_entropy"',
    "optimizer": '"gradient_descent"',
    "schedule": '"exponential"',
    "data.dataset": '"circles"',
    "data.target": '"y"',
    "data.sample_weight": '"w"',
    "data.n_samples": "100",
    "data.noise": "0.1",
    "data.divide_by": "2",
    "data.normalise": '"standardise"',
    "data.standardise_target": "true",
    "data.test_fraction": "0.5",
    "data.validation_fraction": "0.0",
    "data.seed": "1",
    "network.init": '"zeros"',
    "network.layers": '[{ type = "dense", units = 2 }]',
    "training.epochs": "4",
    "training.batch_size": '"full"',
    "training.shuffle": "false",
    "training.augmentation": '["gaussian_noise"]',
    "training.seed": "1",
    "training.class_weight": "[1.0, 2.0]",
    "training.l1": "0.1",
    "training.l2": "0.1",
    "training.penalty": '"sum"',
    "training.clip_value": "1e-3",
    "training.clip_norm": "1e-3",
    "training.average": "0.5",
    "training.report_every": "2",
    "early_stopping.patience": "1",
    "early_stopping.monitor": '"cost"',
    "early_stopping.min_delta": "0.01",
    "early_stopping.restore_best": "false",
}
# What must be said besides, for a key to matter.
WITH = {
    "loss": ("network.layers.1.units=1",),
    "training.clip_value": ("optimizer=gradient_descent",),  # Adam divides a scale out
    "training.clip_norm": ("optimizer=gradient_descent",),
    "training.penalty": ("training.l2=0.1",),
    **dict.fromkeys(
        ("early_stopping.monitor", "early_stopping.restore_best"),
        (
            "early_stopping.patience=2",
            "training.epochs=30",
            "optimizer.learning_rate=1.0",
        ),
    ),
    "early_stopping.patience": ("training.epochs=30", "optimizer.learning_rate=1.0"),
    "early_stopping.min_delta": ("early_stopping.patience=2", "training.epochs=30"),
}


def test_every_key_is_tried():
    assert list(CHANGES) == [key.path for key in KEYS]


# Keys without an effect on these data; tests below try them.
ELSEWHERE = {
    *("description", "device", "precision"),
    *("data.target", "data.sample_weight", "data.standardise_target"),
}


@pytest.mark.parametrize("path", sorted(set(CHANGES) - ELSEWHERE))
def test_a_key_that_nobody_reads_fails_here(path):
    base = () if path == "loss" else WITH.get(path, ())
    changes = (*WITH.get(path, ()), f"{path}={CHANGES[path]}")
    assert outcome(*changes) != outcome(*base)
    assert outcome(*changes) == outcome(*changes)


def test_every_normalisation_is_another():
    outcomes = [outcome(f"data.normalise={choice}") for choice in NORMALISATIONS]
    assert all(one != other for one, other in itertools.combinations(outcomes, 2))
    assert outcomes[0] == outcome()


def test_the_device_is_read(monkeypatch):
    from xpnet import DeviceUnavailableError

    monkeypatch.delenv("XPNET_DEVICE", raising=False)
    recipe = parse_recipe("good", GOOD, changes=['device="cuda:99"'])
    with pytest.raises(DeviceUnavailableError):
        recipe.run()
    monkeypatch.setenv("XPNET_DEVICE", "cpu")
    assert recipe.run().network.device.name == "cpu"
    monkeypatch.setenv("XPNET_DEVICE", "cuda:98")
    assert recipe.run(device="cpu").recipe.values["device"] == "cpu"


def test_the_precision_is_read(monkeypatch):
    from xpnet import DeviceUnavailableError

    monkeypatch.delenv("XPNET_PRECISION", raising=False)
    recipe = parse_recipe("good", GOOD, changes=["precision=tf32"])
    with pytest.raises(DeviceUnavailableError, match="precision=tf32 needs an NVIDIA GPU"):
        recipe.run()
    assert recipe.run(device=xpnet.device("cpu")).recipe.values["precision"] == "float32"
    monkeypatch.setenv("XPNET_PRECISION", "float32")
    assert recipe.run().to_dict()["precision"] == "float32"


def test_the_target_is_read(tmp_path):
    path = tmp_path / "points.csv"
    path.write_text("\n".join(["u,v,y", *(f"{i % 7},{i % 5},{'ab'[i % 2]}" for i in range(40))]))
    text = GOOD.replace('"moons"\nn_samples = 60', f"'{path}'")
    recipe = parse_recipe("csv", text, changes=["data.target=y"])
    assert recipe.load_data().class_names == ("a", "b")
    assert recipe.run(device="cpu").model.feature_names == ("u", "v")
    assert parse_recipe("csv", text, changes=["data.target=u"]).values["data"]["target"] == "u"
    # y is text, and then a feature
    with pytest.raises(DataError, match="column y: expected a finite number, got 'a'"):
        parse_recipe("csv", text, changes=["data.target=u"]).load_data()


@pytest.mark.parametrize("end", ["csv", "npz", "h5"])
def test_the_weights_of_samples_are_read(tmp_path, end):
    rng = np.random.default_rng(0)
    X, y, w = rng.normal(size=(60, 2)), np.arange(60) % 2, rng.uniform(size=60)
    path = tmp_path / f"points.{end}"
    if end == "csv":
        rows = "".join(f"{X[k, 0]},{w[k]},{y[k]},{X[k, 1]}\n" for k in range(60))
        path.write_text("u,w,y,v\n" + rows)
    elif end == "npz":
        np.savez(path, X=X, y=y, w=w)
    else:
        h5py = pytest.importorskip("h5py")
        with h5py.File(path, "w") as file:
            file.update({"X": X, "y": y, "w": w})
    text = GOOD.replace('"moons"\nn_samples = 60', f"'{path}'")
    base = ["data.target=y"] if end == "csv" else []
    costs = []
    for change in ("none", "w"):
        recipe = parse_recipe("mine", text, changes=[*base, f"data.sample_weight={change}"])
        dataset = recipe.load_data()
        assert (dataset.sample_weight is None) == (change == "none")
        if change == "w" or end != "csv":
            assert dataset.n_features == 2
            costs.append(recipe.run(dataset, "cpu").history.cost)
    assert len(costs) == 1 or costs[0] != costs[1]
    assert parse_recipe("mine", recipe.to_toml()).values == recipe.values
    assert parse_recipe("mine", text, changes=base).values["data"]["sample_weight"] == "none"


def test_whether_targets_are_standardised_is_read():
    text = GOOD.replace("softmax_cross_entropy", "mean_squared_error").replace("moons", "diabetes")
    text = text.replace("n_samples = 60", 'normalise = "standardise"')
    changes = ["network.layers.1.units=1", "data.standardise_target="]
    result = []
    for choice in ("true", "false"):
        recipe = parse_recipe("numbers", text, changes=[changes[0], changes[1] + choice])
        result.append(recipe.run(device="cpu"))
    assert result[0].train_cost < 2
    assert result[1].train_cost > 1000
    X = result[0].dataset.X_test
    assert 50 < result[0].model.predict(X).mean() < 250
