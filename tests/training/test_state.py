"""Runs that go on from one another, and what else a caller may bring to a run."""

from __future__ import annotations

import numpy as np
import pytest

from tests.training.test_loop import N, make, problem, train, weights
from xpnet import nn, training
from xpnet.training import TrainingState


def with_dropout(dev):
    layers = [nn.Dense(6, "tanh"), nn.Dropout(0.3), nn.Dense(3)]
    return nn.Network(layers, 4, device=dev, dtype="float64", seed=1)


@pytest.mark.parametrize(
    "optimizer", [nn.Adam(0.01), nn.Momentum(0.1), nn.AdamW(0.01, weight_decay=0.1)]
)
def test_two_runs_with_one_state_are_one(dev, optimizer):
    """Moments, step count and masks go on."""
    whole, _ = train(dev, with_dropout(dev), optimizer=optimizer, shuffle=False, epochs=4)
    parts = with_dropout(dev)
    state = TrainingState.start(parts, optimizer)
    for _ in range(2):
        train(dev, parts, optimizer=optimizer, shuffle=False, epochs=2, state=state)
    np.testing.assert_array_equal(weights(parts), weights(whole))
    assert dev.to_host(state.steps)[0] == 4
    afresh = with_dropout(dev)
    for _ in range(2):
        train(dev, afresh, optimizer=optimizer, shuffle=False, epochs=2)
    assert (weights(afresh) != weights(whole)).any()


def test_a_state_goes_along_with_a_copy(dev):
    """Its step count, too, which masks of dropout depend on, is a copy."""
    network, optimizer = with_dropout(dev), nn.Adam(0.01)
    state = TrainingState.start(network, optimizer)
    train(dev, network, optimizer=optimizer, state=state)
    copy = network.copy()
    moved = state.moved_to(copy)
    for twin, its in ((network, state), (copy, moved)):
        train(dev, twin, optimizer=optimizer, state=its)
    np.testing.assert_array_equal(weights(copy), weights(network))
    assert dev.to_host(state.steps)[0] == dev.to_host(moved.steps)[0]
    with pytest.raises(ValueError, match="state must belong to this network, Network"):
        train(dev, copy, optimizer=optimizer, state=state)
    with pytest.raises(ValueError, match="state must be a TrainingState, got 3"):
        train(dev, copy, optimizer=optimizer, state=3)


def test_a_schedule_of_the_next_run_begins_at_its_beginning(dev):
    network, optimizer = make(dev), nn.GradientDescent(0.1)
    state = TrainingState.start(network, optimizer)
    options = {"optimizer": optimizer, "state": state, "epochs": 3}
    train(dev, network, schedule=nn.ExponentialDecay(0.5), **options)
    _, history = train(dev, network, **options)
    assert [report.learning_rate for report in history.reports] == pytest.approx([0.1] * 3)


def test_an_order_of_ones_own(dev):
    """The function is asked once an epoch, and its order is the one of the steps."""
    asked = []

    def order(epoch):
        asked.append(epoch)
        return np.arange(N)[:: -1 if epoch % 2 else 1]

    network, _ = train(dev, shuffle=order, batch_size=16, epochs=2)
    assert asked == [0, 1]
    twin, optimizer = make(dev), nn.Adam(0.01)
    state = TrainingState.start(twin, optimizer)
    X, y = problem()
    for rows in (slice(None), slice(None, None, -1)):
        training.fit(
            twin,
            *(np.ascontiguousarray(X[rows]), y[rows].copy()),
            loss="softmax_cross_entropy",
            optimizer=optimizer,
            epochs=1,
            batch_size=16,
            shuffle=False,
            state=state,
        )
    np.testing.assert_array_equal(weights(network), weights(twin))


@pytest.mark.parametrize(
    "order",
    [
        np.arange(N - 1),
        np.zeros(N, dtype=int),
        np.arange(N) - 1,
        np.arange(N) + 1,
        np.arange(N) * 1.0,
        None,
    ],
)
def test_what_is_no_order_is_refused(dev, order):
    with pytest.raises(
        ValueError, match="shuffle must return each index from 0 to 49 exactly once"
    ):
        train(dev, shuffle=lambda _: order, batch_size=16)


def test_a_report_may_be_the_last(dev):
    _, history = train(dev, epochs=9, on_report=lambda report: report.epoch == 2)
    assert len(history.reports) == 3
    assert history.stopped_early
    _, history = train(dev, epochs=3, on_report=lambda report: report.epoch + 7)
    assert len(history.reports) == 3  # only True ends a run


def test_validation_samples_may_count_differently(dev):
    X, y = problem(seed=3)
    w = np.arange(N) % 3
    network, history = train(dev, validation=(X, y, w))
    kept = np.repeat(np.arange(N), w)
    cost, accuracy = training.evaluate(network, "softmax_cross_entropy", X[kept], y[kept])
    report = history.reports[-1]
    assert (report.validation_cost, report.validation_accuracy) == pytest.approx((cost, accuracy))
    found = training.evaluate(network, "softmax_cross_entropy", X, y, sample_weight=w)
    assert found == pytest.approx((cost, accuracy))
    with pytest.raises(ValueError, match="sample_weight must have shape"):
        train(dev, validation=(X, y, w[1:]))


def test_a_weighted_score_of_numbers(dev):
    rng = np.random.default_rng(0)
    X, Y = rng.standard_normal((30, 4)), rng.standard_normal((30, 3))
    w = np.arange(30) % 3
    kept = np.repeat(np.arange(30), w)
    network = make(dev)
    for loss in ("mean_squared_error", "poisson_deviance"):
        numbers = np.abs(Y) if loss.startswith("poisson") else Y
        cost, score = training.evaluate(network, loss, X[kept], numbers[kept])
        found = training.evaluate(network, loss, X, numbers, sample_weight=w)
        assert found == pytest.approx((cost, score))
    one = np.eye(30)[3]  # all the weight on one sample: its target is constant
    assert training.evaluate(network, "mean_squared_error", X, Y, sample_weight=one)[1] == 0


def test_weights_from_a_stream_that_others_draw_from(dev):
    from xpnet.random import RandomStateStream

    state, twin = np.random.RandomState(5), np.random.RandomState(5)
    uniform = {"type": "uniform", "limit": 0.5}
    layers = [nn.Dense(3, init=uniform, bias_init=uniform), nn.Dense(2, init="normal")]
    network = nn.Network(layers, 4, device=dev, dtype="float64", stream=RandomStateStream(state))
    found = {name: dev.to_host(v) for name, v in network.named_parameters().items()}
    np.testing.assert_allclose(found["layers.0.W"], twin.uniform(-0.5, 0.5, (4, 3)), rtol=1e-15)
    np.testing.assert_allclose(found["layers.0.b"], twin.uniform(-0.5, 0.5, 3), rtol=1e-15)
    np.testing.assert_allclose(found["layers.1.W"], 0.01 * twin.standard_normal((3, 2)))
    assert state.random_sample() == twin.random_sample()
