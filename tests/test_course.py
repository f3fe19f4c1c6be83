"""The course's experiments on improving networks, to the digits that its notebooks print."""

from __future__ import annotations

import pytest

from bench.experiments import circles, football, moons
from tests.conftest import require_file, slow
from xpnet import training

pytestmark = pytest.mark.host  # float64 on the reference device, as the course


@pytest.fixture(scope="module")
def positions(data_dir):
    """Where goalkeepers' balls were hit from: 211 positions to train on, 200 to test."""
    pytest.importorskip("scipy.io")
    require_file(data_dir, "football.mat")
    return football.load(data_dir)


@pytest.mark.parametrize(
    ("method", "first"), [("none", 0.6557412523481002), ("l2", None), ("frozen", None)]
)
def test_football(positions, method, first):
    """Course 2, week 1, "Regularization": 30,000 iterations; L2's cost includes the penalty."""
    network, history = football.train(method, positions, 30_000)
    cost = dict(history.cost)
    at, printed, *accuracies = football.PRINTED[method]
    assert cost[at] == pytest.approx(printed, abs=1e-10)
    if first is not None:
        assert cost[0] == pytest.approx(first, abs=1e-10)
    found = [training.evaluate(network, "sigmoid_cross_entropy", *part)[1] for part in positions]
    assert found == pytest.approx(accuracies, abs=1e-10)


@pytest.mark.parametrize("name", ["Adam", *(slow(n) for n in moons.OPTIMIZERS if n != "Adam")])
def test_moons(name):
    """Course 2, week 2, "Optimization methods": 10,000 epochs with the rate 7e-4."""
    pytest.importorskip("sklearn.datasets")
    network, history = moons.train({**moons.OPTIMIZERS[name], "learning_rate": 7e-4}, 10_000)
    at = {report.epoch: report for report in history.reports}
    printed, accuracy = moons.PRINTED[name]
    assert at[9000].last_cost == pytest.approx(printed, abs=5e-7)
    found = training.evaluate(network, "sigmoid_cross_entropy", *moons.load())[1]
    assert round(found, 4) == accuracy


@pytest.mark.parametrize("name", circles.INITS)
def test_circles(name):
    """Course 2, week 1, "Initialization": 15,000 iterations."""
    pytest.importorskip("sklearn.datasets")
    network, history = circles.train(circles.INITS[name], 15_000)
    found = [
        training.evaluate(network, "sigmoid_cross_entropy", *part)[1] for part in circles.load()
    ]
    assert found == pytest.approx([circles.PRINTED[name], circles.TEST[name]], abs=5e-3)
    if name == "zeros":
        assert history.cost[-1][1] == pytest.approx(0.6931471805599453, abs=1e-12)
