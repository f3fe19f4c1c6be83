"""Names and settings of hyper-parameters, as tables write them."""

from __future__ import annotations

import pytest

from xpnet.search.parameters import format_setting, short_names

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


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0123456, "0.01235"),
        (0.9, "0.9"),
        (0.98765, "0.98765"),
        (0.9998765, "0.9998765"),
        (1.0, "1"),
        (1e-7, "1e-07"),
        (True, "true"),
        (64, "64"),
        ("relu", "relu"),
        ([1, 2], "[1, 2]"),
    ],
)
def test_settings_are_written_in_the_digits_that_tell(value, text):
    assert format_setting(value) == text
