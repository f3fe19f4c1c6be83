"""The options of components: each is described, and none goes unread."""

from __future__ import annotations

import functools
import json
import re
from typing import Any

import numpy as np
import pytest

from tests.recipe.examples import GOOD, outcome
from tests.registered import labels_for, make, own, required, variants
from xpnet import nn
from xpnet.nn.registry import Configurable
from xpnet.recipe import RecipeError, parse_recipe
from xpnet.recipe.kinds import Component
from xpnet.recipe.signatures import REQUIRED, options

pytestmark = pytest.mark.host

# Where a component of each kind stands in a recipe, and the changes that make place for it.
PLACES: dict[type[Configurable], tuple[str, ...]] = {
    nn.Layer: (
        'network.layers=[{type="dense", units=4}, "identity", "tanh", {type="dense", units=2}]',
        "network.layers.1",
    ),
    nn.Activation: ("network.layers.0.activation",),
    nn.Initializer: ("network.init",),
    nn.Loss: ("loss",),
    nn.Optimizer: ("optimizer",),
    nn.Schedule: ("schedule",),
    nn.Augmentation: ('training.augmentation=["flip"]', "training.augmentation.0"),
}
OPTIONS = [
    pytest.param(kind, cls, option.name, id=f"{cls.name}.{option.name}")
    for kind in PLACES
    for cls in own(kind)
    for option in options(cls)
]
# A rate that is too high, so that the validation cost goes up and down.
PLATEAU = ("training.epochs=12", "optimizer.learning_rate=1.0", "schedule.patience=0")
# What must be changed, too, for an option to make a difference.
BESIDE: dict[str, tuple[str, ...]] = {
    "adam.epsilon_hat": ("optimizer.eps=0.01", "dtype=float64"),  # not lost beside a gradient
    "adamw.epsilon_hat": ("optimizer.eps=0.01", "dtype=float64"),
    "constant.per": ("schedule.warmup=2",),
    "step.gamma": ("schedule.interval=1",),
    "step.per": ("schedule.interval=2",),
    "reduce_on_plateau.monitor": PLATEAU,
    "reduce_on_plateau.gamma": PLATEAU,
    "reduce_on_plateau.patience": PLATEAU,
    "reduce_on_plateau.threshold": (*PLATEAU, "optimizer.learning_rate=0.01"),  # falls, slowly
    "reduce_on_plateau.cooldown": PLATEAU,
    "reduce_on_plateau.min_factor": PLATEAU,
}


@pytest.mark.parametrize(("kind", "cls", "name"), OPTIONS)
def test_every_option_is_described(kind, cls, name):
    del kind
    (option,) = (option for option in options(cls) if option.name == name)
    assert option.type
    assert option.meaning


def toml(value: Any) -> str:
    """Write a value as in a recipe."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}={toml(v)}" for key, v in value.items()) + "}"
    return json.dumps(value)


def images_outcome(*changes):
    """Train on images, and give the costs."""
    text = GOOD.replace('"moons"\nn_samples = 60', '"digits"').replace("units = 2 ", "units = 10 ")
    text = text.replace("epochs = 3", "epochs = 1")
    return parse_recipe("images", text, changes=changes).run(device="cpu").history.cost


@functools.cache
def seen(kind, *changes):
    """Give what a person would see of a run; the run without a change is there for all options."""
    return (images_outcome if kind is nn.Augmentation else outcome)(*changes)


@pytest.mark.parametrize(("kind", "cls", "name"), OPTIONS)
def test_an_option_that_nobody_reads_fails_here(kind, cls, name):
    *before, place = PLACES[kind]
    if kind is nn.Loss and labels_for(make(cls), np.random.default_rng(0), 4, 2)[0].ndim == 2:
        before.append("network.layers.1.units=1")  # the two classes are 0 and 1 of one output
    before += [f"{place}={toml({'type': cls.name, **required(cls)})}"]
    before += BESIDE.get(f"{cls.name}.{name}", ())
    names = [option.name for option in options(cls)]
    other = variants(make(cls))[names.index(name)].get_config()[name]
    assert seen(kind, *before) != seen(kind, *before, f"{place}.{name}={toml(other)}"), (
        f"{name}={other!r} changes nothing: if it needs other changes beside it, say so in BESIDE"
    )


def test_what_is_changed_beside_belongs_to_an_option():
    assert set(BESIDE) <= {parameters.id for parameters in OPTIONS}


def test_augmentations_of_images_need_images():
    changes = ['training.augmentation=["gaussian_noise", { type = "shift", pixels = 1 }]']
    recipe = parse_recipe("good", GOOD, changes=changes)
    said = "good: training.augmentation.1 does not fit moons: augmentation 'shift' is for images"
    with pytest.raises(RecipeError, match=re.escape(said)):
        recipe.run(device="cpu")


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
