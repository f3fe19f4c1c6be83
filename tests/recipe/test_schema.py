"""The schema: refusals and defaults."""

from __future__ import annotations

import re

import numpy as np
import pytest

from tests.recipe.examples import GOOD
from xpnet import nn
from xpnet.recipe import RecipeError, parse_recipe

pytestmark = pytest.mark.host


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
    with pytest.raises(RecipeError, match=r"init\.bottom must be a valid TOML value"):
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
        ("[data]", "xyz = 1\n[data]", "xyz (got 1) is not a key of a recipe; valid keys: descr"),
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
        (
            'loss = "softmax_cross_entropy"',
            'loss = "softmax"',
            "got 'softmax'; did you mean 'softmax_cross_entropy'?",
        ),
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
            "optimizer.momentun (got 1) is not a key of a recipe; valid keys: optimizer.type,",
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
            "early_stopping.monitor (got 'cost') has no effect without early_stopping.patience",
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
            "network.layers.0.bias_init.value is missing: The constant, any finite number.",
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
            "data.standardise_target must be false with a classification loss, got True",
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


def test_what_must_not_be_negative_is_not_standardised():
    text = GOOD.replace("softmax_cross_entropy", "poisson_deviance").replace("moons", "diabetes")
    text = text.replace("n_samples = 60", "standardise_target = true")
    said = "numbers: data.standardise_target must be false with poisson_deviance, which is for numb"
    with pytest.raises(RecipeError, match=said):
        parse_recipe("numbers", text)
    recipe = parse_recipe("numbers", text, changes=["data.standardise_target=false"])
    assert recipe.values["loss"] == "poisson_deviance"


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
    with pytest.raises(RecipeError, match=r"0 is not a key of a recipe: the list is empty"):
        parse_recipe("good", GOOD, changes=changes)
