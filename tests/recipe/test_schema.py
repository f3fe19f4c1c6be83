"""The schema: refusals, defaults, the reference page, and that no key goes unread."""

from __future__ import annotations

import itertools
import re
import tomllib
from typing import Any

import numpy as np
import pytest

import xpnet
from tests.conftest import ROOT
from xpnet import nn
from xpnet.data import DataError
from xpnet.data.preprocessing import NORMALISATIONS
from xpnet.recipe import RecipeError, parse_recipe
from xpnet.recipe.keys import KEYS
from xpnet.recipe.kinds import Component
from xpnet.recipe.options import REQUIRED, options
from xpnet.recipe.reference import reference_page
from xpnet.recipe.schema import resolve

pytestmark = pytest.mark.host

GOOD = """
loss = "softmax_cross_entropy"
optimizer = { type = "adam", learning_rate = 0.01 }
[data]
dataset = "moons"
n_samples = 60
validation_fraction = 0.2
[network]
layers = [{ type = "dense", units = 4, activation = "tanh" }, { type = "dense", units = 2 }]
[training]
epochs = 3
batch_size = 16
"""


def test_everything_is_filled_in():
    values = parse_recipe("good", GOOD).values
    assert values == {
        "description": "",
        "seed": 0,
        "rng": "numpy",
        "dtype": "float32",
        "device": "cpu",
        "precision": "float32",
        "loss": {"type": "softmax_cross_entropy", "label_smoothing": 0.0, "clip": 0.0},
        "optimizer": {
            "type": "adam",
            "learning_rate": 0.01,
            "beta1": 0.9,
            "beta2": 0.999,
            "eps": 1e-8,
            "epsilon_hat": False,
            "weight_decay": 0.0,
        },
        "schedule": {"type": "constant", "per": "epoch", "warmup": 0},
        "data": {
            "dataset": "moons",
            "n_samples": 60,
            "noise": 0.2,
            "divide_by": "auto",
            "normalise": "none",
            "standardise_target": False,
            "test_fraction": 0.2,
            "validation_fraction": 0.2,
            "seed": 0,
        },
        "network": {
            "init": "auto",
            "layers": [
                {
                    "type": "dense",
                    "units": 4,
                    "activation": "tanh",
                    "bias": True,
                    "bias_init": "zeros",
                },
                {
                    "type": "dense",
                    "units": 2,
                    "activation": "identity",
                    "bias": True,
                    "bias_init": "zeros",
                },
            ],
        },
        "training": {
            "epochs": 3,
            "batch_size": 16,
            "shuffle": True,
            "augmentation": [],
            "seed": "auto",
            "class_weight": "none",
            "l1": 0.0,
            "l2": 0.0,
            "penalty": "mean",
            "clip_value": "none",
            "clip_norm": "none",
            "average": "none",
            "report_every": 1,
        },
        "early_stopping": {
            "patience": "never",
            "monitor": "validation_cost",
            "min_delta": 0.0,
            "restore_best": True,
        },
    }


def test_what_is_filled_in_says_the_same_again():
    recipe = parse_recipe("good", GOOD)
    again = parse_recipe("good", recipe.to_toml())
    assert again == recipe
    assert recipe.run().history.cost == again.run().history.cost


def test_what_is_written_out_can_still_be_changed():
    written = parse_recipe("good", GOOD, changes=["network.layers.1.init=zeros"]).to_toml()
    recipe = parse_recipe("written", written, changes=["network.init=zeros"])
    network = recipe.build(recipe.load_data(), "cpu")
    assert [layer.get_config()["init"] for layer in network.layers] == ["zeros", "zeros"]
    recipe = parse_recipe("written", written)
    network = recipe.build(recipe.load_data(), "cpu")
    assert [layer.get_config()["init"] for layer in network.layers] == ["auto", "zeros"]


def test_ways_to_draw_are_written_out_and_read_back():
    init = {"type": "orthogonal", "gain": "activation"}
    changes = [
        'network.init={type="orthogonal", gain="activation"}',
        'network.layers.0.bias_init={type="constant", value=-1}',
    ]
    recipe = parse_recipe("good", GOOD, changes=changes)
    again = parse_recipe("again", recipe.to_toml())
    assert again.values == recipe.values
    assert again.values["network"]["init"] == init
    network = again.build(again.load_data(), "cpu")
    first, last = (layer.get_config() for layer in network.layers)
    assert (first["init"], last["init"]) == (init, init)
    assert (first["bias_init"], last["bias_init"]) == ({"type": "constant", "value": -1}, "zeros")
    W, b = (network.named_parameters()[f"layers.0.{name}"] for name in ("W", "b"))
    np.testing.assert_allclose(W @ W.T, (5 / 3) ** 2 * np.eye(2), atol=1e-6)
    assert (b == -1).all()


def test_options_that_toml_has_no_word_for():
    class CappedForThisTest(nn.Initializer):
        name = "capped_for_this_test"

        def __init__(self, top=None, bottom=0):
            self.top, self.bottom = top, bottom

    changes = ["network.layers.0.init=capped_for_this_test"]
    recipe = parse_recipe("good", GOOD, changes=changes)
    assert parse_recipe("again", recipe.to_toml()).values == recipe.values
    CappedForThisTest.__init__.__defaults__ = (None, object())
    with pytest.raises(RecipeError, match=r"init\.bottom must be something that TOML can s"):
        parse_recipe("good", GOOD, changes=changes)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        # keys that are not there
        (
            "epochs = 3",
            "epoch = 3",
            "training.epoch (got 3) is not a key of a recipe; did you mean training.epochs?",
        ),
        (
            "[data]",
            "epochs = 3\n[data]",
            "epochs (got 3) is not a key of a recipe; did you mean training.epochs?",
        ),
        ("[data]", "[trianing]\nepochs = 3\n[data]", "trianing (got {'epochs': 3}) is not a key"),
        (
            "[data]",
            '"training.epochs" = 3\n[data]',
            '"training.epochs" (got 3) is not a key of a recipe; did you mean training.epochs?',
        ),
        ("[data]", "xyz = 1\n[data]", "xyz (got 1) is not a key of a recipe; known here: descr"),
        (
            "units = 4",
            "unit = 4",
            "network.layers.0.unit (got 4) is not a key of a recipe; did "
            "you mean network.layers.0.units?",
        ),
        ("learning_rate", "learning_rat", "did you mean optimizer.learning_rate?"),
        # values that were taken for keys
        (
            "n_samples = 60",
            "standardise = true",
            "data.standardise (got True) is not a key of a recipe; did you mean data.normalise?",
        ),
        (
            "n_samples = 60",
            "standardize = true",
            "data.standardize (got True) is not a key of a recipe; did you mean data.normalise?",
        ),
        ("[data]", "float64 = true\n[data]", "float64 (got True) is not a key of a recipe; did "),
        # values of the wrong type
        ("epochs = 3", "epochs = 3.5", "training.epochs must be an integer in [1, 10^9], got 3.5"),
        ("epochs = 3", "epochs = true", "training.epochs must be an integer in"),
        ("epochs = 3", 'epochs = "3"', "training.epochs must be an integer in"),
        ("epochs = 3", "epochs = 3\nshuffle = 1", "training.shuffle must be true or false, got 1"),
        ("[data]", "training = 3\n[data]", "is not TOML"),
        ("[training]\nepochs = 3\nbatch_size = 16", "", "training.epochs is missing"),
        ("[data]", "seed = 1979-05-27\n[data]", "seed must be an integer"),
        (
            'loss = "softmax_cross_entropy"',
            "loss = 3",
            "loss must be the name of a known loss or a table",
        ),
        ('loss = "softmax_cross_entropy"', "loss = {}", "loss.type is missing: one of "),
        ("layers = [{", "layers = 3 # [{", "network.layers must be a list of layers"),
        (
            'dataset = "moons"',
            "dataset = 3",
            "data.dataset must be the name of a data set or a file",
        ),
        (
            'dataset = "moons"',
            'dataset = "moon"',
            "data.dataset must be the name of a data set or a file (.npz, .csv, .h5 or idx; "
            "digits, cats, fashion-mnist, diabetes, moons, circles, blobs, flower), got 'moon'; "
            "did you mean 'moons'?",
        ),
        (
            'dataset = "moons"',
            'dataset = "points.txt"',
            "data.dataset must be the name of a data set or a file (.npz, .csv, .h5 or idx; ",
        ),
        # impossible values
        ("epochs = 3", "epochs = 0", "training.epochs must be an integer in [1, 10^9], got 0"),
        (
            "batch_size = 16",
            'batch_size = "ful"',
            'training.batch_size must be "full" or an '
            "integer in [1, 10^9], got 'ful'; did you mean 'full'?",
        ),
        (
            "batch_size = 16",
            "batch_size = true",
            'training.batch_size must be "full" or an integer in [1, 10^9], got True',
        ),
        (
            "batch_size = 16",
            "batch_size = 0",
            'training.batch_size must be "full" or an integer in',
        ),
        (
            "n_samples = 60",
            "n_samples = 1",
            "data.n_samples must be an integer in [10, 10^9], got 1",
        ),
        ("n_samples = 60", "noise = -0.1", "data.noise must be a number >= 0, got -0.1"),
        ("n_samples = 60", "noise = nan", "data.noise must be a finite number >= 0, got nan"),
        ("n_samples = 60", "noise = 1" + "0" * 400, "data.noise must be a finite number >= 0"),
        (
            '"adam", learning_rate = 0.01',
            '"adam", momentun = 1',
            "optimizer.momentun (got 1) is not a key of a recipe; known here: optimizer.type,",
        ),
        ("n_samples = 60", '"laye\\nrs" = 3', "data.laye\\nrs (got 3) is not"),
        (
            "[training]",
            "[trainig]",
            "trainig (got {'batch_size': 16, 'epochs': 3}) is not a key of a ",
        ),
        ("[training]", "[trainig]", "did you mean training?"),
        ("n_samples = 60", "divide_by = 0", 'data.divide_by must be "auto" or a number > 0, got 0'),
        (
            "n_samples = 60",
            "divide_by = inf",
            'data.divide_by must be "auto" or a finite number > 0, got inf',
        ),
        (
            "n_samples = 60",
            'normalise = "minmax"',
            'data.normalise must be "none", "standardise", "min-max" or "per-image", got '
            "'minmax'; did you mean 'min-max'?",
        ),
        ("n_samples = 60", "normalise = true", '"min-max" or "per-image", got True'),
        (
            "n_samples = 60",
            "test_fraction = 1",
            "data.test_fraction must be a number in (0, 1), got",
        ),
        (
            "_fraction = 0.2",
            "_fraction = 1.0",
            "data.validation_fraction must be a number in [0, 1)",
        ),
        ("[data]", "seed = -1\n[data]", "seed must be an integer in [0, 2^63-1], got -1"),
        ("[data]", 'rng = "numpy-legacy"\nseed = 4294967296\n[data]', "seed must be below 2**32"),
        (
            "[data]",
            'rng = "nunpy"\n[data]',
            "must be \"numpy\" or \"numpy-legacy\", got 'nunpy'; did you mean 'numpy'?",
        ),
        (
            "[data]",
            'dtype = "float16"\n[data]',
            'dtype must be "float32" or "float64", got \'float16\'; did you mean',
        ),
        ("[data]", 'device = "gpu"\n[data]', 'device must be "cpu", "cuda", "cuda:N" or'),
        (
            '"adam"',
            '"adan"',
            "optimizer.type must be the name of a known optimizer (",  # others' tests define more
        ),
        ('"adam"', '"adan"', "rmsprop), got 'adan'; did you mean 'adam'?"),
        (
            "[network]",
            "[network]\ninit = 3",
            'init must be "auto" or the name of a known initializer or',
        ),
        (
            "= 0.01",
            "= -0.01",
            "optimizer.learning_rate must be a positive finite number, got -0.01",
        ),
        ("= 0.01", "= 0.01, beta1 = 1.0", "optimizer.beta1 must lie in [0, 1), got 1.0"),
        ('"tanh"', '"tahn"', "network.layers.0.activation must be the name of a known activation"),
        (
            "[network]",
            '[network]\ninit = "aut"',
            'network.init must be "auto" or the name of a known initializer (',
        ),
        ("[network]", '[network]\ninit = "aut"', "got 'aut'; did you mean 'auto'?"),
        (
            '"tanh"',
            '{ type = "leaky_relu", slope = "x" }',
            "network.layers.0.activation.slope must",
        ),
        (
            '"tanh"',
            '{ type = "relu", slope = 1 }',
            "network.layers.0.activation.slope (got 1) is not a key",
        ),
        (
            "[network]",
            '[early_stopping]\nmonitor = "cost"\n[network]',
            "early_stopping.monitor (got 'cost') says nothing without early_stopping.patience",
        ),
        ("units = 2", "units = 0", "network.layers.1.units must be a positive integer, got 0"),
        (
            "units = 2 ",
            'activation = "relu" ',
            "network.layers.1.units is missing: Number of outputs",
        ),
        ("[network]", '[network]\ninit = "he_norma"', "did you mean 'he_normal'?"),
        ("[network]", '[network]\ninit = { type = "normal", std = 0 }', "network.init.std must be"),
        (
            "[network]",
            '[network]\ninit = { type = "he_normal", gain = "activatio" }',
            "network.init.gain must be a positive number or \"activation\", got 'activatio'",
        ),
        (
            'activation = "tanh"',
            'activation = "tanh", bias_init = { type = "constant" }',
            "network.layers.0.bias_init.value is missing: Any finite number.",
        ),
        (
            'activation = "tanh"',
            'activation = "tanh", bias = false, bias_init = "ones"',
            "network.layers.0.bias_init must be left out with bias=False, got 'ones'",
        ),
        (
            'activation = "tanh"',
            'activation = "tanh", bias_init = "auto"',
            "network.layers.0.bias_init must be the name of a known initializer (",
        ),
        (
            "n_samples = 60",
            "standardise_target = 1",
            "data.standardise_target must be true or false, got 1",
        ),
        (
            "n_samples = 60",
            "standardise_target = true",
            "data.standardise_target must be false with a loss for classes, got True",
        ),
        # keys of other data sets
        (
            "n_samples = 60",
            'sample_weight = "w"',
            "data.sample_weight (got 'w') is not for moons, only for .csv, .npz, .h5, .hdf5",
        ),
        (
            '"moons"\nn_samples = 60',
            '"a.npz"\nsample_weight = ""',
            "data.sample_weight must be \"none\" or a string, got ''",
        ),
        ("n_samples = 60", 'target = "y"', "data.target (got 'y') is not for moons, only for .csv"),
        ('"moons"', '"digits"', "data.n_samples (got 60) is not for digits, only for moons, circ"),
        ('"moons"\nn_samples = 60', '"a.csv"', "data.target is missing: it must be a string"),
    ],
)
def test_wrong_recipes(old, new, said):
    assert old in GOOD
    with pytest.raises(RecipeError, match=re.escape(said)) as caught:
        parse_recipe("wrong", GOOD.replace(old, new, 1))
    assert str(caught.value).startswith("wrong")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    ["seed = " + "9" * 5000, "a = " + "[" * 10_000, "a = 1\na = 2", "\x00", 'a = "\\q"', "[data"],
)
def test_what_is_not_toml(text):
    with pytest.raises(RecipeError, match=r"wrong is not TOML|is not a key"):
        parse_recipe("wrong", text)


def test_long_values_are_shortened():
    with pytest.raises(RecipeError) as caught:
        parse_recipe("wrong", GOOD.replace("epochs = 3", f'epochs = "{"x" * 10_000}"'))
    assert len(str(caught.value)) < 300


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


def outcome(*changes):
    """Run the good recipe with changes, and give all that a person would see of it."""
    recipe = parse_recipe("good", GOOD, changes=changes)
    result = recipe.run(device="cpu")
    return (
        result.history.cost,
        [(r.validation_cost, r.validation_accuracy) for r in result.history.reports],
        result.test_cost,
        result.model.predict_proba(np.zeros((1, 2))).tobytes(),
    )


def test_every_key_is_tried():
    assert list(CHANGES) == [key.path for key in KEYS]


# What is no other for these data; it is tried below.
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
    with pytest.raises(DeviceUnavailableError, match="precision=tf32: it is a number format of NV"):
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
    with pytest.raises(DataError, match="column y: a finite number expected, got 'a'"):
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


def test_what_must_not_be_negative_is_not_standardised():
    text = GOOD.replace("softmax_cross_entropy", "poisson_deviance").replace("moons", "diabetes")
    text = text.replace("n_samples = 60", "standardise_target = true")
    said = "numbers: data.standardise_target must be false with poisson_deviance, which is for numb"
    with pytest.raises(RecipeError, match=said):
        parse_recipe("numbers", text)
    recipe = parse_recipe("numbers", text, changes=["data.standardise_target=false"])
    assert recipe.values["loss"] == "poisson_deviance"


@pytest.mark.parametrize(
    "kind",
    [nn.Layer, nn.Activation, nn.Initializer, nn.Loss, nn.Optimizer, nn.Schedule, nn.Augmentation],
)
def test_every_option_is_described(kind):
    for component in kind.known().values():
        if component.__module__.partition(".")[0] == "xpnet":
            for option in options(component):
                assert option.type, f"{component.name}.{option.name}"
                assert option.meaning, f"{component.name}.{option.name}"


HIDDEN = (
    'network.layers=[{{type="dense", units=4}}, {{type={}}}, "tanh", {{type="dense", units=2}}]'
)
MOMENTUM: dict[str, Any] = {
    "learning_rate": 0.3,
    "beta": 0.3,
    "averaged": "true",
    "weight_decay": 0.3,
}
ADAM: dict[str, Any] = {
    "learning_rate": 0.3,
    "beta1": 0.3,
    "beta2": 0.3,
    "eps": 0.3,
    "weight_decay": 0.3,
}
SCHEDULES: dict[str, dict[str, Any]] = {
    "constant": {"warmup": 2},
    "inverse_time": {"decay": 0.1, "interval": 2, "per": "step", "warmup": 2},
    "exponential": {"gamma": 0.3, "per": "step", "warmup": 2},
    "step": {"interval": 1, "warmup": 2},
    "cosine": {"final": 0.5, "per": "step", "warmup": 2},
    "reduce_on_plateau": {"warmup": 2},
}
# A rate that is too high, so that the validation cost goes up and down.
PLATEAU = (
    "training.epochs=12",
    "optimizer.learning_rate=1.0",
    "schedule=reduce_on_plateau",
    "schedule.patience=0",
)


# What each option of a component is changed to, and where it is tried.
# Where a change comes to something only beside others, those come before it.
OPTIONS: dict[str, Any] = {
    "dense.units": "network.layers.0.units=5",
    "dense.activation": 'network.layers.0.activation="relu"',
    "dense.init": 'network.layers.0.init="ones"',
    "dense.bias": "network.layers.0.bias=false",
    "dense.bias_init": 'network.layers.0.bias_init="ones"',
    "dense.max_norm": "network.layers.0.max_norm=0.1",
    "dropout.rate": (HIDDEN.format('"dropout"'), "network.layers.1.rate=0.1"),
    "batch_norm.momentum": (HIDDEN.format('"batch_norm"'), "network.layers.1.momentum=0.5"),
    "batch_norm.eps": (HIDDEN.format('"batch_norm"'), "network.layers.1.eps=0.5"),
    "batch_norm.unbiased": (HIDDEN.format('"batch_norm"'), "network.layers.1.unbiased=false"),
    "layer_norm.eps": (HIDDEN.format('"layer_norm"'), "network.layers.1.eps=0.5"),
    "leaky_relu.slope": (
        "network.layers.0.activation=leaky_relu",
        "network.layers.0.activation.slope=0.3",
    ),
    "elu.alpha": ("network.layers.0.activation=elu", "network.layers.0.activation.alpha=0.3"),
    "constant.value": (
        'network.layers.0.bias_init={type="constant", value=0.1}',
        "network.layers.0.bias_init.value=0.3",
    ),
    **{
        f"{init}.gain": (f"network.init={init}", "network.init.gain=0.3")
        for init in (
            *("he_normal", "he_uniform", "lecun_normal", "lecun_uniform", "orthogonal"),
            *("xavier_normal", "xavier_uniform"),
        )
    },
    "normal.std": ("network.init=normal", "network.init.std=0.3"),
    "uniform.limit": ("network.init=uniform", "network.init.limit=0.3"),
    "softmax_cross_entropy.label_smoothing": "loss.label_smoothing=0.3",
    "softmax_cross_entropy.clip": "loss.clip=0.3",
    "sigmoid_cross_entropy.label_smoothing": (
        "network.layers.1.units=1",
        "loss=sigmoid_cross_entropy",
        "loss.label_smoothing=0.3",
    ),
    "sigmoid_cross_entropy.clip": (
        "network.layers.1.units=1",
        "loss=sigmoid_cross_entropy",
        "loss.clip=0.3",
    ),
    **{
        f"{optimizer}.{option}": (f"optimizer={optimizer}", f"optimizer.{option}={value}")
        for optimizer, changes in {
            "gradient_descent": {"learning_rate": 0.3, "weight_decay": 0.3},
            "momentum": MOMENTUM,
            "nesterov": MOMENTUM,
            "rmsprop": {"learning_rate": 0.3, "beta": 0.3, "eps": 0.3, "weight_decay": 0.3},
            "adam": ADAM,
            "adamw": ADAM,
        }.items()
        for option, value in changes.items()
    },
    # eps shows only where it is not lost beside a gradient
    **{
        f"{adam}.epsilon_hat": (
            f"optimizer={adam}",
            "optimizer.eps=0.01",
            "dtype=float64",
            "optimizer.epsilon_hat=true",
        )
        for adam in ("adam", "adamw")
    },
    **{
        f"{schedule}.{option}": (f"schedule={schedule}", f"schedule.{option}={value}")
        for schedule, changes in SCHEDULES.items()
        for option, value in changes.items()
    },
    "constant.per": ("schedule=constant", "schedule.warmup=2", "schedule.per=step"),
    "step.gamma": ("schedule=step", "schedule.interval=1", "schedule.gamma=0.5"),
    "step.per": ("schedule=step", "schedule.interval=2", "schedule.per=step"),
    "reduce_on_plateau.monitor": (*PLATEAU, "schedule.monitor=cost"),
    "reduce_on_plateau.gamma": (*PLATEAU, "schedule.gamma=0.5"),
    "reduce_on_plateau.patience": (*PLATEAU, "schedule.patience=2"),
    "reduce_on_plateau.threshold": (
        *PLATEAU,
        "optimizer.learning_rate=0.01",  # the cost falls, slowly
        "schedule.threshold=0.5",
    ),
    "reduce_on_plateau.cooldown": (*PLATEAU, "schedule.cooldown=2"),
    "reduce_on_plateau.min_factor": (*PLATEAU, "schedule.min_factor=0.5"),
}


def test_every_option_is_tried():
    found = {
        f"{name}.{option.name}"
        for kind in (nn.Layer, nn.Initializer, nn.Loss, nn.Optimizer, nn.Schedule)
        for name, component in kind.known().items()
        if component.__module__.partition(".")[0] == "xpnet"
        for option in options(component)
    }
    assert set(OPTIONS) == found


@pytest.mark.parametrize("path", sorted(OPTIONS))
def test_an_option_that_nobody_reads_fails_here(path):
    said = OPTIONS[path]
    *base, change = [said] if isinstance(said, str) else said
    assert outcome(*base, change) != outcome(*base)


# Augmentations are of images, and what each option of theirs is changed to.
OF_IMAGES = (
    GOOD.replace('"moons"\nn_samples = 60', '"digits"')
    .replace("units = 2 ", "units = 10 ")
    .replace("epochs = 3", "epochs = 1")
)
OPTIONS_OF_AUGMENTATIONS = {
    "flip.probability": 0.3,
    "shift.pixels": 1,
    "shift.fill": 0.3,
    "random_crop.padding": 1,
    "random_crop.fill": 0.3,
    "rotate.degrees": 5.0,
    "rotate.fill": 0.3,
    "brightness_contrast.brightness": 0.3,
    "brightness_contrast.contrast": 0.3,
    "gaussian_noise.std": 0.3,
}


def test_every_option_of_an_augmentation_is_tried():
    assert set(OPTIONS_OF_AUGMENTATIONS) == {
        f"{name}.{option.name}"
        for name, component in nn.Augmentation.known().items()
        if component.__module__.partition(".")[0] == "xpnet"
        for option in options(component)
    }


@pytest.mark.parametrize("path", OPTIONS_OF_AUGMENTATIONS)
def test_an_option_of_an_augmentation_that_nobody_reads_fails_here(path):
    name, option = path.split(".")
    changed = f"training.augmentation.0.{option}={OPTIONS_OF_AUGMENTATIONS[path]}"
    costs = {
        tuple(parse_recipe("images", OF_IMAGES, changes=changes).run(device="cpu").history.cost)
        for changes in (
            [],
            [f'training.augmentation=["{name}"]'],
            [f'training.augmentation=["{name}"]', changed],
        )
    }
    assert len(costs) == 3


def test_augmentations_of_images_need_images():
    changes = ['training.augmentation=["gaussian_noise", { type = "shift", pixels = 1 }]']
    recipe = parse_recipe("good", GOOD, changes=changes)
    said = "good: training.augmentation.1 does not fit moons: augmentation 'shift' is for images"
    with pytest.raises(RecipeError, match=re.escape(said)):
        recipe.run(device="cpu")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("training.augmentation=3", "training.augmentation must be a list of augmentations, got 3"),
        ("training.augmentation=flip", "training.augmentation must be a list of augmentations, g"),
        ('training.augmentation=["flp"]', "training.augmentation.0 must be the name of a known "),
        ('training.augmentation=["flp"]', "got 'flp'; did you mean 'flip'?"),
        (
            'training.augmentation=[{ type = "shift", pixels = -1 }]',
            "training.augmentation.0.pixels must be an integer in [0, 65535], got -1",
        ),
        (
            'training.augmentation=[{ type = "shift", pixel = 1 }]',
            "did you mean training.augmentation.0.pixels?",
        ),
        ("training.augmentatoin=[]", "did you mean training.augmentation?"),
    ],
)
def test_wrong_augmentations(change, said):
    with pytest.raises(RecipeError, match=re.escape(said)):
        parse_recipe("good", GOOD, changes=[change])


def test_a_list_of_augmentations_may_be_empty():
    recipe = parse_recipe("good", GOOD, changes=["training.augmentation=[]"])
    assert recipe == parse_recipe("good", GOOD)
    changes = ["training.augmentation=[]", "training.augmentation.0=flip"]
    with pytest.raises(RecipeError, match=r"0 is not a key of a recipe: the list has no members"):
        parse_recipe("good", GOOD, changes=changes)


def test_options_that_docstrings_leave_out_are_still_known():
    class Undescribed(nn.Layer):
        def __init__(self, width, *, depth=2):
            self.width, self.depth = width, depth

    width, depth = options(Undescribed)
    assert (width.name, width.default, depth.name, depth.default) == ("width", REQUIRED, "depth", 2)
    with pytest.raises(RecipeError, match=r"here\.width is missing: it is required"):
        Component(nn.Layer).check("here", "Undescribed")
    found = Component(nn.Layer).check("here", {"type": "Undescribed", "width": 3})
    assert found == {"type": "Undescribed", "width": 3, "depth": 2}


def test_the_reference_page_is_up_to_date_and_complete():
    page = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
    assert page == reference_page(), "run `make docs`"
    rows = [line.split(" | ") for line in page.splitlines() if line.startswith("| `")]
    listed = {row[0].strip("| `"): row for row in rows}
    for key in KEYS:
        assert all(cell.strip() for cell in listed[key.path]), key.path
        assert key.meaning in listed[key.path][4]
    for kind in (nn.Layer, nn.Initializer, nn.Loss, nn.Optimizer, nn.Schedule, nn.Augmentation):
        for name, component in kind.known().items():
            if component.__module__.partition(".")[0] == "xpnet":
                assert f"| `{name}` |" in page
                for option in options(component):
                    assert f"| | `{option.name}` | " in page


def test_examples_on_the_reference_page_work():
    page = reference_page()
    assert "--set network.layers.0.units=32" in page
    recipe = parse_recipe("good", GOOD, changes=["network.layers.0.units=32"])
    assert recipe.values["network"]["layers"][0]["units"] == 32
    (example,) = re.findall(r"`\{ type = .* \}`", page)
    adam = tomllib.loads(f"optimizer = {example.strip('`')}")
    assert resolve({**tomllib.loads(GOOD), **adam})["optimizer"]["learning_rate"] == 0.01


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("training.epochs", "a change must read KEY=VALUE, got 'training.epochs'"),
        ("=3", "a change must read KEY=VALUE"),
        ("training..epochs=3", "a change must read KEY=VALUE"),
        ("training.epochs=x", "training.epochs must be an integer in [1, 10^9], got 'x'"),
        ("training.epochs=3\nseed=4", "training.epochs must be an integer"),
        ("training.epoch=3", "did you mean training.epochs?"),
        (
            "network.layers.2.units=3",
            "network.layers.2 is not a key of a recipe: members are counted from 0 to 1",
        ),
        ("network.layers.x=3", "members are counted from 0 to 1"),
        ("network.layers.0.units.x=3", "network.layers.0.units holds no keys"),
        ("optimizer.type=adan", "did you mean 'adam'?"),
        (
            "data.dataset=p\udcff.npz",
            r"data.dataset must be text that UTF-8 can hold, got 'p\udcff",
        ),
        ("description=\udcff", "description must be text that UTF-8 can hold"),
    ],
)
def test_wrong_changes(change, said):
    with pytest.raises(RecipeError, match=re.escape(said)):
        parse_recipe("good", GOOD, changes=[change])


def test_changes_in_their_order():
    changes = ["loss.type=softmax_cross_entropy", "optimizer=adam", "optimizer.beta1=0.5"]
    values = parse_recipe("good", GOOD, changes=[*changes, "seed=1", "seed=2"]).values
    assert (values["seed"], values["optimizer"]["beta1"]) == (2, 0.5)
    assert values["optimizer"]["learning_rate"] == 0.001
