"""The course notebooks' learning curves on the cat images, to every printed digit."""

from __future__ import annotations

import json

import pytest

from tests.conftest import require_file
from xpnet.recipe import load_recipe

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def published(data_dir):
    return json.loads(require_file(data_dir, "notebook_curves.json").read_text())


@pytest.fixture(scope="module")
def run(data_dir, dev):
    for part in ("train", "test"):
        require_file(data_dir, f"{part}_catvnoncat.h5")

    def run(kind):
        recipe = load_recipe(f"cats-{kind}")
        result = recipe.run(recipe.load_data(data_dir), dev).to_dict()
        assert result["dtype"] == "float64"
        assert result["majority_accuracy"] == 0.66
        return result, dict(result["cost"])

    return run


@pytest.mark.parametrize(
    ("kind", "decimals", "n_costs", "test_accuracy"),
    [("logistic", 6, 20, 0.70), pytest.param("deep", 4, 31, 0.82, marks=pytest.mark.long)],
)
def test_equal_to_every_printed_digit(run, published, kind, decimals, n_costs, test_accuracy):
    result, cost = run(kind)
    printed = dict(published[kind]["cost"])
    assert len(printed) == n_costs
    assert {i: f"{cost[i]:.{decimals}f}" for i in printed} == printed
    assert result["test_accuracy"] == test_accuracy
    assert 100 * result["train_accuracy"] == pytest.approx(published[kind]["train_accuracy"])


@pytest.mark.long
def test_shallow(run, published):
    """This net trains at the edge of stability around iteration 700.

    There the last bit of a product decides, and it differs by BLAS kernel.
    """
    result, cost = run("shallow")
    for i, text in published["shallow"]["cost"]:
        if i <= 600:
            assert f"{cost[i]:.4f}" == text
        else:
            assert cost[i] == pytest.approx(float(text), abs=0.05 if i <= 1300 else 0.002)
    on_a_gpu = result["device"] != "cpu"  # an image of 50, for another rounding
    assert result["test_accuracy"] == pytest.approx(0.72, abs=0.02 if on_a_gpu else 0)
    assert result["train_accuracy"] == 1.0
