"""A small recipe with a search, and studies of it."""

from __future__ import annotations

import numpy as np
from optuna.trial import TrialState, create_trial

from xpnet.recipe import parse_recipe
from xpnet.search.parameters import parameters
from xpnet.search.study import open_storage, open_study

RECIPE = """
seed = 3
loss = "softmax_cross_entropy"
optimizer = { type = "adam", learning_rate = 0.003 }

[data]
dataset = "digits"
divide_by = 16
validation_fraction = 0.2

[network]
layers = [{ type = "dense", units = 16, activation = "relu" }, { type = "dense", units = 10 }]

[training]
epochs = 2
batch_size = 64

[search]
optimizer.learning_rate = { log_uniform = [1e-3, 1e-1] }
optimizer.beta1 = { one_minus_log_uniform = [0.5, 0.99] }
network.layers.0.units = { log_integer = [4, 64] }
"""


def recipe(*changes, text=RECIPE):
    return parse_recipe("small", text, changes=changes)


def study(folder, name="study", of=None, **settings):
    """Open or begin a study in a journal of its own."""
    storage = open_storage(folder / f"{name}.journal")
    return open_study(storage, name, of or recipe(), **settings)


def add(found, point, value=None, state=TrialState.COMPLETE, **user_attrs):
    """Add a trial at a point of the study's space, as if it had been run."""
    known = parameters(found.space)
    found.optuna.add_trial(
        create_trial(
            state=state,
            value=value,
            params={known[name].label: known[name].to_optuna(one) for name, one in point.items()},
            distributions={known[name].label: known[name].distribution for name in point},
            user_attrs=user_attrs,
        )
    )


def fill(found, n, value_of, seed=0):
    """Add trials at random points, each with the value that a function gives its settings."""
    rng = np.random.default_rng(seed)
    for _ in range(n):
        point = found.space.at(rng.random(len(found.space)).tolist())
        add(found, point, value_of(point))
    return found
