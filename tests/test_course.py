"""The course's experiments on improving networks, to the digits that its notebooks print."""

from __future__ import annotations

import pytest

from tests.conftest import require_file
from xpnet import nn, training

pytestmark = pytest.mark.host  # float64 on the reference device, as the course


@pytest.fixture(scope="module")
def football(data_dir):
    """Where goalkeepers' balls were hit from: 211 positions to train on, 200 to test."""
    io = pytest.importorskip("scipy.io")
    mat = io.loadmat(require_file(data_dir, "football.mat"))
    return (mat["X"], mat["y"][:, 0]), (mat["Xval"], mat["yval"][:, 0])


def play(football, epochs, layers=None, **options):
    """Course 2, week 1, "Regularization": 2-20-3-1, lecun_normal, full batch."""
    hidden = [nn.Dense(20, "relu", init="lecun_normal"), nn.Dense(3, "relu", init="lecun_normal")]
    network = nn.Network(
        layers or [*hidden, nn.Dense(1, init="lecun_normal")],
        2,
        dtype="float64",
        seed=3,
        rng="numpy-legacy",
    )
    history = training.fit(
        network,
        *football[0],
        loss="sigmoid_cross_entropy",
        optimizer=nn.GradientDescent(0.3),
        epochs=epochs,
        report_every=10_000,
        **options,
    )
    accuracy = [training.evaluate(network, "sigmoid_cross_entropy", *part)[1] for part in football]
    return dict(history.cost), accuracy


def test_football_without_regularisation(football):
    cost, (train, test) = play(football, 30_000)
    assert cost[0] == pytest.approx(0.6557412523481002, abs=1e-10)
    assert cost[10_000] == pytest.approx(0.16329987525724, abs=1e-10)
    assert (round(train, 4), test) == (0.9479, 0.915)


def test_football_with_l2(football):
    """Lambda 0.7; the cost that is printed includes the penalty."""
    cost, (train, test) = play(football, 30_000, l2=0.7, penalty="sum")
    assert cost[10_000] == pytest.approx(0.26849188732822, abs=1e-10)
    assert (round(train, 4), test) == (0.9384, 0.93)


def make_moons():
    datasets = pytest.importorskip("sklearn.datasets")
    return datasets.make_moons(n_samples=300, noise=0.2, random_state=3)


@pytest.mark.parametrize(
    ("optimizer", "last_cost", "accuracy"),
    [
        (nn.GradientDescent(7e-4), 0.464518, 0.7967),
        (nn.Momentum(7e-4, averaged=True), 0.464740, 0.7967),
        # The course adds epsilon to the corrected root, as Algorithm 1 does.
        (nn.Adam(7e-4), 0.197648, 0.94),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_moons(optimizer, last_cost, accuracy):
    """Course 2, week 2, "Optimization methods": 2-5-2-1, He, batches of 64, 10,000 epochs."""
    X, y = make_moons()
    network = nn.Network(
        [nn.Dense(5, "relu"), nn.Dense(2, "relu"), nn.Dense(1, init="he_normal")],
        2,
        dtype="float64",
        seed=3,
        rng="numpy-legacy",
    )
    history = training.fit(
        network,
        X,
        y,
        loss="sigmoid_cross_entropy",
        optimizer=optimizer,
        epochs=10_000,
        batch_size=64,
        seed=11,  # the notebook counts its seed 10 up before the first epoch
        report_every=1000,
    )
    at = {report.epoch: report for report in history.reports}
    assert at[9000].last_cost == pytest.approx(last_cost, abs=5e-7)
    assert round(training.evaluate(network, "sigmoid_cross_entropy", X, y)[1], 4) == accuracy
