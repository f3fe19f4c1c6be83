"""Early stopping: when a run ends, and what the network is then."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from xpnet import nn, training
from xpnet.training import EarlyStopping

D, K = 5, 2


def data(n, seed):
    """Mostly noise, so that a large network fits too much of it."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, D))
    return X, (X[:, 0] + 1.5 * rng.standard_normal(n) > 0).astype(int)


def train(dev, early_stopping, epochs=120, layers=None, **options):
    network = nn.Network(
        layers or [nn.Dense(32, "relu"), nn.Dense(K)], D, device=dev, dtype="float64", seed=2
    )
    X, y = data(60, 0)
    history = training.fit(
        network,
        X,
        y,
        loss="softmax_cross_entropy",
        optimizer=nn.Adam(0.02),
        epochs=epochs,
        validation=data(60, 1),
        early_stopping=early_stopping,
        **options,
    )
    return network, history


def measured(network):
    return training.evaluate(network, "softmax_cross_entropy", *data(60, 1))


@pytest.mark.parametrize("patience", [1, 5, 20])
@pytest.mark.parametrize("monitor", ["validation_cost", "validation_accuracy", "train_accuracy"])
def test_it_stops_and_the_best_is_restored(dev, monitor, patience):
    options: dict[str, Any] = {"train_accuracy": monitor == "train_accuracy"}
    _, whole = train(dev, None, **options)
    network, history = train(dev, EarlyStopping(monitor, patience), **options)
    values = [getattr(report, monitor) for report in whole.reports]
    values = [-v for v in values] if monitor.endswith("cost") else values
    best, stop = 0, len(values) - 1
    for epoch, value in enumerate(values):
        best = epoch if value > values[best] else best
        if epoch - best >= patience:
            stop = epoch
            break
    assert (history.best_epoch, history.reports[-1].epoch) == (best, stop)
    assert history.stopped_early == (stop < len(values) - 1)
    assert history.stopped_early
    report = history.reports[best]
    cost, accuracy = measured(network)
    assert cost == pytest.approx(report.validation_cost, rel=1e-12)
    assert accuracy == report.validation_accuracy
    # Up to there it is the run that it would have been.
    assert history.cost == whole.cost[: stop + 1]


def test_the_last_parameters_can_be_kept(dev):
    network, history = train(dev, EarlyStopping(patience=5, restore_best=False))
    assert history.stopped_early
    cost, _ = measured(network)
    assert cost == pytest.approx(history.reports[-1].validation_cost, rel=1e-12)
    assert cost > min(report.validation_cost for report in history.reports)


def test_the_best_is_restored_where_all_epochs_were_run(dev):
    network, history = train(dev, EarlyStopping(patience=1000))
    assert not history.stopped_early
    cost, _ = measured(network)
    assert cost == min(report.validation_cost for report in history.reports)
    assert history.best_epoch < 119


def test_a_smaller_improvement_than_min_delta_does_not_count(dev):
    _, history = train(dev, EarlyStopping(patience=3, min_delta=10.0))
    assert (history.best_epoch, len(history.reports)) == (0, 4)


def test_with_batch_norm_and_an_average(dev):
    """The statistics of the best epoch, too, and the average that was evaluated then."""
    layers = [nn.Dense(32), "batch_norm", "relu", nn.Dense(K)]
    options: dict[str, Any] = {"batch_size": 20, "average": 0.9, "layers": layers}
    network, history = train(dev, EarlyStopping(patience=8), **options)
    assert history.stopped_early
    cost, _ = measured(network)
    assert cost == pytest.approx(history.reports[history.best_epoch].validation_cost, rel=1e-12)


def test_reports_are_what_is_looked_at(dev):
    _, history = train(dev, EarlyStopping(patience=5), report_every=4)
    assert all(report.epoch % 4 == 0 for report in history.reports)
    assert history.reports[-1].epoch - history.best_epoch in (8, 5, 6, 7)


def test_what_is_not_there_cannot_be_watched(dev):
    network = nn.Network([nn.Dense(K)], D, device=dev)
    arguments: dict[str, Any] = {"loss": "softmax_cross_entropy", "optimizer": "adam", "epochs": 1}
    for options, said in (
        ({"early_stopping": EarlyStopping()}, "early_stopping watches validation_cost: pass val"),
        ({"schedule": "reduce_on_plateau"}, "schedule watches validation_cost: pass validation"),
        (
            {"early_stopping": EarlyStopping("train_accuracy")},
            "early_stopping watches train_accuracy: pass train_accuracy=True",
        ),
    ):
        with pytest.raises(ValueError, match=said):
            training.fit(network, *data(10, 0), **{**arguments, **options})


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"monitor": "loss"}, "monitor must be one of 'cost', .* got 'loss'"),
        ({"patience": 0}, "patience must be a positive integer, got 0"),
        ({"patience": 1.5}, "patience must be a positive integer, got 1.5"),
        ({"min_delta": -1}, "min_delta must be a non-negative"),
        ({"restore_best": 1}, "restore_best must be true or false, got 1"),
    ],
)
def test_wrong_settings(options, said):
    with pytest.raises(ValueError, match=said):
        EarlyStopping(**options)
