"""Names of hyper-parameters, as tables write them."""

from __future__ import annotations

import pytest

from xpnet.search.parameters import short_names

pytestmark = [pytest.mark.host, pytest.mark.needs("optuna")]

RATE, BETA, UNITS = "optimizer.learning_rate", "optimizer.beta1", "network.layers.0.units"


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ([RATE, BETA, UNITS], ["learning_rate", "beta1", "units"]),
        (
            ["network.layers.0.units", "network.layers.2.units"],
            ["layers.0.units", "layers.2.units"],
        ),
        (["seed", "training.seed", "data.seed"], ["seed", "training.seed", "data.seed"]),
        (["optimizer", "optimizer.beta"], ["optimizer", "beta"]),
        (["network.layers.0", "network.layers.1"], ["layers.0", "layers.1"]),
        (["a.b.c", "b.c", "c"], ["a.b.c", "b.c", "c"]),
    ],
)
def test_short_names_differ(names, expected):
    short = short_names(names)
    assert list(short) == names
    assert list(short.values()) == expected
