"""Recipes that come with xpnet, and refusals of wrong ones."""

from __future__ import annotations

import pytest

from xpnet.data import load_dataset
from xpnet.recipe import RecipeError, load_recipe, parse_recipe, recipe_names
from xpnet.training import Report

GOOD = """
[data]
dataset = "digits"
[network]
layers = [{ type = "dense", units = 10 }]
[loss]
type = "softmax_cross_entropy"
[optimizer]
type = "adam"
[training]
epochs = 2
"""


def test_what_is_shipped():
    kinds = ("deep", "logistic", "shallow")
    assert recipe_names() == [f"{data}-{kind}" for data in ("cats", "digits") for kind in kinds]
    for name in recipe_names():
        recipe = load_recipe(name)
        n_layers = len(recipe.network["layers"])
        assert {"logistic": n_layers == 1, "shallow": n_layers == 2, "deep": n_layers > 2}[
            name.partition("-")[2]
        ]


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
        "train_accuracy",
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


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("[data]", "[data", "recipe 'wrong' is not TOML"),
        ("[loss]", "[lost]", "must hold the tables data, loss, network, optimizer, training"),
        ("dataset", "datasets", "unknown key data.datasets"),
        ("epochs", "epoch", "unknown key training.epoch; known: epochs"),
        ('"adam"', '"adan"', "no optimizer named 'adan'"),
        ('"softmax_cross_entropy"', '"hinge"', "no loss named 'hinge'"),
        ('type = "adam"', "learning_rate = 1", "optimizer must be a name"),
        ("units = 10", "units = -1", "units must be a positive integer, got -1"),
        ("units = 10", "unit = 10", "layer 'dense': "),
        ('"dense"', '"dnse"', "no layer named 'dnse'"),
        ("epochs = 2", "epochs = -2", "training.epochs must be a positive integer, got -2"),
        ("epochs = 2", 'epochs = 2\nbatch_size = "x"', "training.batch_size must be a positive"),
        ("[network]", '[network]\ndtype = "float16"', "dtype must be 'float32' or 'float64'"),
        ("[network]", "[network]\nseed = -1", "seed must lie in"),
        ("[network]", '[network]\nrng = "x"', "rng must be one of"),
        ('[{ type = "dense", units = 10 }]', "[]", "layers must hold at least one layer"),
        ("epochs = 2", 'epochs = 2\nshuffle = "yes"', "training.shuffle must be true or false"),
        ("epochs = 2", "shuffle = true", "key training.epochs is missing"),
        ('dataset = "digits"', "", "key data.dataset is missing"),
        ('[data]\ndataset = "digits"', "data = 3", "data must be a table, got 3"),
    ],
)
def test_wrong_recipes(old, new, said):
    with pytest.raises(RecipeError, match=said):
        parse_recipe("wrong", GOOD.replace(old, new))


def test_a_name_that_is_not_there():
    with pytest.raises(RecipeError, match="no recipe named 'dogs'; known: cats-deep, cats-log"):
        load_recipe("dogs")
