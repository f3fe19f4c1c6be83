"""Early stopping: when a run ends, and what the network is then."""

from __future__ import annotations

import signal
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest

from xpnet import nn, training
from xpnet.training import EarlyStopping
from xpnet.training.stopping import Best

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


@pytest.mark.heavy
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
    assert history.reports[-1].epoch - history.best_epoch == 8


def test_the_last_epoch_is_no_early_stop(dev):
    _, whole = train(dev, EarlyStopping(patience=5))
    last = whole.reports[-1].epoch
    _, history = train(dev, EarlyStopping(patience=5), epochs=last + 1)
    assert history.reports[-1].epoch == last
    assert not history.stopped_early


def test_a_schedule_that_watches_and_early_stopping(dev):
    schedule = nn.ReduceOnPlateau(patience=3)
    _, history = train(dev, EarlyStopping(patience=10), schedule=schedule)
    assert history.stopped_early
    assert history.reports[-1].learning_rate < history.reports[0].learning_rate


@pytest.mark.parametrize("restores", [True, False])
def test_whatever_ends_a_run_the_best_is_restored(dev, restores):
    """Ctrl-C, and an error in the caller's function; or else the average is kept."""
    stopping = EarlyStopping(patience=200) if restores else None
    for is_error in (False, True):
        network = nn.Network([nn.Dense(32, "relu"), nn.Dense(K)], D, device=dev, dtype="float64")
        seen: list[tuple[float, float]] = []

        def end(report, network=network, seen=seen, is_error=is_error):
            seen.append((report.validation_cost, measured(network)[0]))
            if report.epoch == 60:
                if is_error:
                    raise RuntimeError("enough")
                signal.raise_signal(signal.SIGINT)

        options: dict[str, Any] = {
            "loss": "softmax_cross_entropy",
            "optimizer": nn.Adam(0.02),
            "epochs": 120,
            "average": 0.5,
            "validation": data(60, 1),
            "early_stopping": stopping,
            "on_report": end,
        }
        with pytest.raises(RuntimeError) if is_error else nullcontext():
            training.fit(network, *data(60, 0), **options)
        costs = [cost for cost, _ in seen]
        np.testing.assert_allclose(costs, [found for _, found in seen], rtol=1e-12)
        cost, _ = measured(network)
        assert cost == pytest.approx(min(costs) if restores else costs[-1], rel=1e-12)
        assert min(costs) < costs[-1]


def test_a_run_that_diverges_leaves_its_best_epoch(dev):
    network = nn.Network([nn.Dense(8), nn.Dense(K)], D, device=dev, dtype="float64")
    X, y = data(60, 0)
    costs: list[float] = []
    with pytest.raises(training.DivergenceError):
        training.fit(
            network,
            X,
            np.eye(K)[y],
            loss="mean_squared_error",
            optimizer=nn.GradientDescent(5.0),
            schedule={"type": "constant", "warmup": 40},
            epochs=3000,
            validation=(X, np.eye(K)[y]),
            early_stopping=EarlyStopping(patience=5000),
            on_report=lambda report: costs.append(report.validation_cost or 0),
        )
    cost, _ = training.evaluate(network, "mean_squared_error", X, np.eye(K)[y])
    assert cost == pytest.approx(min(costs), rel=1e-12)
    assert cost < costs[-1] / 1e6


def test_what_is_no_number_is_not_the_best():
    network = nn.Network([nn.Dense(K)], D)
    best = Best(EarlyStopping("cost", 2), network, None)
    stops = [
        best.is_time_to_stop(training.Report(epoch, epoch, cost, 0.1, 1.0, 1.0))
        for epoch, cost in enumerate([float("nan"), 1.0, 0.5, 0.2])
    ]
    assert (best.epoch, stops) == (3, [False] * 4)


def test_the_accuracy_in_training_is_that_of_the_average(dev):
    network, history = train(dev, None, epochs=4, average=0.9, train_accuracy=True)
    _, accuracy = training.evaluate(network, "softmax_cross_entropy", *data(60, 0))
    assert history.reports[-1].train_accuracy == accuracy


def test_what_is_not_there_cannot_be_watched(dev):
    network = nn.Network([nn.Dense(K)], D, device=dev)
    arguments: dict[str, Any] = {"loss": "softmax_cross_entropy", "optimizer": "adam", "epochs": 1}
    for options, said in (
        ({"early_stopping": EarlyStopping()}, "early_stopping monitors validation_cost: pass val"),
        ({"schedule": "reduce_on_plateau"}, "schedule monitors validation_cost: pass validation"),
        (
            {"early_stopping": EarlyStopping("train_accuracy")},
            "early_stopping monitors train_accuracy: pass train_accuracy=True",
        ),
    ):
        with pytest.raises(ValueError, match=said):
            training.fit(network, *data(10, 0), **{**arguments, **options})


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"monitor": "loss"}, "monitor must be one of 'cost', .* got 'loss'"),
        ({"patience": True}, "patience must be a positive integer, got True"),
        ({"patience": 0}, "patience must be a positive integer, got 0"),
        ({"patience": 1.5}, "patience must be a positive integer, got 1.5"),
        ({"min_delta": -1}, "min_delta must be a non-negative"),
        ({"restore_best": 1}, "restore_best must be true or false, got 1"),
    ],
)
def test_wrong_settings(options, said):
    with pytest.raises(ValueError, match=said):
        EarlyStopping(**options)
