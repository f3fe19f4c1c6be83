"""Small recipes, and all that a run of one shows."""

from __future__ import annotations

import numpy as np

from xpnet.recipe import parse_recipe

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

DIGITS = """
loss = "softmax_cross_entropy"
optimizer = "adam"
[data]
dataset = "digits"
[network]
layers = [{ type = "dense", units = 10 }]
[training]
epochs = 2
"""

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
