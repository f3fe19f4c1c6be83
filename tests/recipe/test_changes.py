"""Changes of a recipe by KEY=VALUE."""

from __future__ import annotations

import re

import pytest

from tests.recipe.examples import GOOD
from xpnet.recipe import RecipeError, parse_recipe

pytestmark = pytest.mark.host


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
            "network.layers.2 is not a key of a recipe: the list's indices are 0 to 1",
        ),
        ("network.layers.x=3", "the list's indices are 0 to 1"),
        ("network.layers.0.units.x=3", "network.layers.0.units is not a table or a list"),
        ("optimizer.type=adan", "did you mean 'adam'?"),
        (
            "data.dataset=p\udcff.npz",
            r"data.dataset must be valid UTF-8 text, got 'p\udcff",
        ),
        ("description=\udcff", "description must be valid UTF-8 text"),
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
