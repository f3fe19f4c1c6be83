"""The options of components: each is described, and none goes unread."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.recipe.examples import GOOD, outcome
from tests.registered import optimizers
from xpnet import nn
from xpnet.recipe import RecipeError, parse_recipe
from xpnet.recipe.kinds import Component
from xpnet.recipe.signatures import REQUIRED, options

pytestmark = pytest.mark.host


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


def changed(component: Any) -> dict[str, str]:
    """Give another value for each option of a component: numbers are 0.3, flags turned round."""
    config = component.get_config()
    return {
        option: str(not value).lower() if isinstance(value, bool) else "0.3"
        for option, value in config.items()
        if option != "type"
    }


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
        f"{rule.name}.{option}": (f"optimizer={rule.name}", f"optimizer.{option}={value}")
        for rule in optimizers()
        for option, value in changed(rule).items()
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
