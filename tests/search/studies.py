"""A small recipe with a search, and studies of it."""

from __future__ import annotations

from xpnet.recipe import parse_recipe
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
