"""The values of a recipe as objects."""

from __future__ import annotations

import pickle

import pytest

from tests.recipe.examples import GOOD
from xpnet import nn
from xpnet.data import load_dataset
from xpnet.recipe import RecipeError, load_recipe, parse_recipe, recipe_names
from xpnet.training import EarlyStopping

pytestmark = pytest.mark.host


@pytest.mark.parametrize("name", recipe_names())
def test_objects_say_what_the_values_say(name):
    recipe = load_recipe(name)
    settings, values = recipe.settings, recipe.values
    for kind in ("loss", "optimizer", "schedule"):
        value = values[kind]
        config = getattr(settings, kind).get_config()
        assert config["type"] == (value if isinstance(value, str) else value["type"])
        assert isinstance(value, str) or value.items() <= config.items()
    assert len(settings.network.layers) == len(values["network"]["layers"])
    assert settings.training.epochs == values["training"]["epochs"]
    assert settings.data.dataset == values["data"]["dataset"]


def test_words_that_stand_for_none():
    settings = parse_recipe("good", GOOD, changes=["training.batch_size=full"]).settings
    assert settings.training.batch_size is None
    assert settings.training.seed is None
    assert settings.data.divide_by is None
    assert settings.early_stopping is None
    assert settings.search is None
    changes = ["early_stopping.patience=3", "data.divide_by=2", "training.seed=5"]
    settings = parse_recipe("good", GOOD, changes=changes).settings
    assert settings.early_stopping == EarlyStopping(patience=3)
    assert settings.data.divide_by == 2
    assert settings.training.seed == 5
    assert settings.training.batch_size == 16


def test_a_recipe_builds_networks_of_their_own():
    recipe = parse_recipe("good", GOOD)
    dataset = load_dataset("moons", n_samples=60)
    first, second = recipe.build(dataset, "cpu"), recipe.build(dataset, "cpu")
    assert not set(first.layers) & set(second.layers)
    assert (first.parameters == second.parameters).all()


def test_runs_share_no_component():
    """One of a user's own may keep something of a run."""

    class Counting(nn.GradientDescent):
        name = "counting"

        def update(self, *arguments, **more):
            self.n_updates = getattr(self, "n_updates", 0) + 1
            seen.append(self.n_updates)
            super().update(*arguments, **more)

    seen: list[int] = []
    recipe = parse_recipe("good", GOOD, changes=["optimizer=counting"])
    first = recipe.run(device="cpu")
    n = len(seen)
    second = recipe.run(device="cpu")
    assert seen == [*range(1, n + 1)] * 2
    assert first.model.loss is not second.model.loss


def test_what_another_process_does_not_know(monkeypatch):
    """A recipe goes to other processes as values: a class is looked up there."""

    class OfThisTest(nn.Layer):
        def forward(self, X, cache):
            del cache
            return X

    recipe = parse_recipe("good", GOOD, changes=['network.layers=["OfThisTest"]'])
    assert recipe.settings is recipe.settings
    sent = pickle.dumps(recipe)
    monkeypatch.delitem(nn.Layer._registry, "OfThisTest")
    received = pickle.loads(sent)
    assert received == recipe
    with pytest.raises(
        RecipeError, match=r"^good: network\.layers: unknown layer 'OfThisTest'; valid"
    ):
        _ = received.settings
