"""Penalties, clipping, max-norm and the moving average."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xpnet import gradient_check, nn, training

D, K, N = 6, 3, 40


def samples():
    rng = np.random.default_rng(0)
    return rng.standard_normal((N, D)) * 3, rng.integers(0, K, N)


def make(dev, layers=None, dtype="float64"):
    return nn.Network(layers or [nn.Dense(8, "tanh"), nn.Dense(K)], D, device=dev, dtype=dtype)


def train(network, epochs=1, **options):
    X, y = samples()
    arguments: dict[str, Any] = {
        "loss": "softmax_cross_entropy",
        "optimizer": nn.GradientDescent(0.1),
        **options,
    }
    return training.fit(network, X, y, epochs=epochs, **arguments)


def host(dev, network):
    named = network.named_parameters().items()
    return {name: dev.to_host(array).copy() for name, array in named}


def test_the_penalty_is_in_the_cost(dev):
    network = make(dev)
    X, y = samples()
    plain, _ = training.evaluate(network, "softmax_cross_entropy", X, y)
    weights = [W for name, W in host(dev, network).items() if name.endswith("W")]
    expected = plain + 0.3 * sum(np.abs(W).sum() for W in weights)
    expected += 0.7 / 2 * sum((W**2).sum() for W in weights)
    history = train(network, l1=0.3, l2=0.7)
    assert history.reports[0].cost == pytest.approx(expected, rel=1e-12)
    # Validation costs are without: they are compared between networks.
    network = make(dev)
    history = train(network, l2=0.7, validation=samples())
    cost, _ = training.evaluate(network, "softmax_cross_entropy", X, y)
    assert history.reports[0].validation_cost == pytest.approx(cost, rel=1e-12)


def test_biases_and_scales_are_not_penalised(dev):
    """With no data to speak of, weights shrink and nothing else does."""
    layers = [nn.Dense(8, "tanh"), nn.LayerNorm(), nn.Dense(K)]
    network = make(dev, layers)
    with dev.activate():
        for name, array in network.named_parameters().items():
            if not name.endswith("W"):
                array[...] = 1.0
    before = host(dev, network)
    X = np.zeros((6, D))
    options: dict[str, Any] = {
        "loss": "softmax_cross_entropy",
        "optimizer": nn.GradientDescent(1e-3),
        "epochs": 1,
    }
    training.fit(network, X, np.arange(6) % K, l2=100.0, **options)
    for name, array in host(dev, network).items():
        ratio = np.linalg.norm(array) / np.linalg.norm(before[name])
        assert ratio == pytest.approx(0.9 if name.endswith("W") else 1.0, abs=2e-3), name


def test_a_penalty_on_the_sum_is_divided_by_the_training_samples(dev):
    """The course's lambda / (2 m), also on minibatches."""
    for options in ({}, {"batch_size": 16, "shuffle": False}):
        costs = [
            train(make(dev), 2, l1=0.2 * n, l2=0.7 * n, penalty=kind, **options).cost
            for kind, n in (("mean", 1), ("sum", N))
        ]
        np.testing.assert_allclose(costs[0], costs[1], rtol=1e-12)


@pytest.mark.heavy
def test_l1_makes_weights_small_that_do_nothing(dev):
    network = make(dev)
    train(network, 600, l1=0.02)
    with_l1 = np.abs(host(dev, network)["layers.0.W"])
    network = make(dev)
    train(network, 600)
    without = np.abs(host(dev, network)["layers.0.W"])
    assert (with_l1 < 3e-3).mean() > 0.3
    assert (without < 3e-3).mean() < 0.1


@pytest.mark.heavy
@pytest.mark.parametrize("penalty", [{"l1": 0.3}, {"l2": 0.7}, {"l1": 0.1, "l2": 0.2}])
def test_gradients_of_penalties(dev, penalty):
    rng = np.random.default_rng(3)
    X, y = rng.standard_normal((7, D)), rng.integers(0, K, 7)
    network = make(dev)
    options: dict[str, Any] = {
        "loss": "softmax_cross_entropy",
        "sample_weight": rng.random(7),
        **penalty,
    }
    result = gradient_check(network, X, y, **options)
    assert result.passed, str(result)
    without = gradient_check(network, X, **penalty)  # a random upstream gradient
    assert without.passed, str(without)


@pytest.mark.heavy
def test_an_error_in_a_penalty_is_caught(dev, monkeypatch):
    def wrong(self, ops, network, cost, cache):
        del self, cost, cache
        network.gradients[: network.n_decayed] += 0.7001 * network.parameters[: network.n_decayed]
        del ops

    monkeypatch.setattr(nn.Regularizer, "apply", wrong)
    rng = np.random.default_rng(3)
    X, y = rng.standard_normal((7, D)), rng.integers(0, K, 7)
    assert not gradient_check(make(dev), X, y, loss="softmax_cross_entropy", l2=0.7).passed


# Clipping.


@given(st.floats(1e-3, 100), st.sampled_from(["float32", "float64"]))
def test_a_clipped_gradient_is_no_longer_than_asked(dev, limit, dtype):
    network = make(dev, dtype=dtype)
    rng = np.random.default_rng(4)
    gradient = rng.standard_normal(network.gradients.shape).astype(dtype)
    with dev.activate():
        network.gradients[...] = dev.asarray(gradient)
        regularizer = nn.Regularizer(clip_norm=limit)
        cost = dev.xp.zeros(1, dtype=dtype)
        regularizer.apply(dev.ops, network, cost, regularizer.allocate(network, 1))
        found = dev.to_host(network.gradients)
    norm = np.linalg.norm(gradient.astype(float))
    tolerance = 100 * np.finfo(dtype).eps
    expected = gradient * min(1, limit / (norm + 1e-6))
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=0)
    assert np.linalg.norm(found.astype(float)) <= limit * (1 + tolerance)


def test_clipping_by_value(dev):
    network = make(dev)
    gradient = np.linspace(-2, 2, len(network.gradients))
    gradient[3] = np.nan
    with dev.activate():
        network.gradients[...] = dev.asarray(gradient)
        regularizer = nn.Regularizer(clip_value=0.5)
        cost = dev.xp.zeros(1)
        regularizer.apply(dev.ops, network, cost, regularizer.allocate(network, 1))
        np.testing.assert_array_equal(dev.to_host(network.gradients), gradient.clip(-0.5, 0.5))


def test_clipping_lets_a_run_survive(dev):
    """Without it the same run diverges."""
    options: dict[str, Any] = {"optimizer": nn.GradientDescent(50.0), "loss": "mean_squared_error"}
    X, y = samples()
    y = np.eye(K)[y]
    layers = [nn.Dense(8, "relu"), nn.Dense(K)]
    with pytest.raises(training.DivergenceError):
        training.fit(make(dev, layers), X, y, epochs=30, **options)
    layers = [nn.Dense(8, "relu"), nn.Dense(K)]
    history = training.fit(make(dev, layers), X, y, epochs=30, clip_norm=1e-3, **options)
    assert history.reports[-1].cost < history.reports[0].cost


# Max-norm.


def test_no_unit_has_longer_weights_than_max_norm(dev):
    layers = [nn.Dense(8, "tanh", max_norm=0.9), nn.Dense(K)]
    network = make(dev, layers)
    norms = []

    def measure(report):
        del report
        W = host(dev, network)
        norms.append([np.linalg.norm(W[f"layers.{i}.W"], axis=0) for i in (0, 1)])

    train(network, 60, on_report=measure, optimizer=nn.Adam(0.05))
    limited = np.array([first for first, _ in norms])
    assert limited.max() <= 0.9 * (1 + 1e-12)
    assert (np.abs(limited[-1] - 0.9) < 1e-9).any()  # it is reached
    assert norms[-1][1].max() > 0.95  # where there is no limit


def test_max_norm_is_a_projection_after_each_step(dev):
    """Srivastava et al. 2014, section 5.1, written out: a step, then longer columns are scaled."""
    X, y = samples()
    network = make(dev, [nn.Dense(K, max_norm=0.5)])
    start = host(dev, network)
    W, b = start["layers.0.W"], start["layers.0.b"]
    train(network, 50)
    for _ in range(50):
        Z = X @ W + b
        P = np.exp(Z - Z.max(axis=1, keepdims=True))
        dZ = (P / P.sum(axis=1, keepdims=True) - np.eye(K)[y]) / N
        W, b = W - 0.1 * X.T @ dZ, b - 0.1 * dZ.sum(axis=0)
        norm = np.linalg.norm(W, axis=0)
        W = W * np.minimum(1, 0.5 / norm)
    found = host(dev, network)
    np.testing.assert_allclose(found["layers.0.W"], W, rtol=0, atol=1e-12)
    np.testing.assert_allclose(found["layers.0.b"], b, rtol=0, atol=1e-12)


def test_weights_whose_norm_overflows_are_not_hidden(dev):
    with dev.activate():
        W = dev.asarray(np.array([[1e20, 3.0], [1e20, 4.0]], np.float32))
        dev.ops.limit_norms(W, dev.ops.square_sum(W), 1.0, out=W)
        found = dev.to_host(W)
    np.testing.assert_allclose(found, [[1e20, 0.6], [1e20, 0.8]], rtol=1e-6)


# The moving average.


def test_the_average_is_what_is_evaluated_and_kept(dev):
    """Against its definition, from the parameters after each step of the same run without it."""
    X, y = samples()
    paths = []

    class Recording(nn.GradientDescent):
        name = "recording"

        def update(self, ops, params, grads, state, n_decay=0):
            super().update(ops, params, grads, state, n_decay)
            paths.append(params.copy())

    network = make(dev)
    average = dev.to_host(network.parameters).copy()
    train(network, 4, optimizer=Recording(0.3), batch_size=16)
    for t, params in enumerate(paths, start=1):
        b = min(0.8, (1 + t) / (10 + t))
        average = b * average + (1 - b) * dev.to_host(params)
    without = dev.to_host(network.parameters).copy()
    network = make(dev)
    costs = []
    history = train(
        network,
        4,
        optimizer=nn.GradientDescent(0.3),
        batch_size=16,
        average=0.8,
        validation=(X, y),
        on_report=lambda report: costs.append(report.validation_cost),
    )
    kept = dev.to_host(network.parameters)
    np.testing.assert_allclose(kept, average, rtol=0, atol=1e-12)
    assert np.abs(kept - without).max() > 1e-3
    cost, _ = training.evaluate(network, "softmax_cross_entropy", X, y)
    assert costs[-1] == pytest.approx(cost, rel=1e-12)
    assert history.n_steps == 12


def test_an_average_soon_forgets_how_it_began(dev):
    """After few steps it is near the parameters, however slow its decay."""
    network = make(dev)
    first = dev.to_host(network.parameters).copy()
    train(network, 100, average=0.999)
    averaged = dev.to_host(network.parameters)
    network = make(dev)
    train(network, 100)
    last = dev.to_host(network.parameters)
    assert np.linalg.norm(averaged - last) < 0.3 * np.linalg.norm(first - last)


def test_training_is_the_same_with_an_average(dev):
    """What is evaluated in between has no influence on the steps."""
    costs = [
        train(make(dev), 5, batch_size=16, **options).cost
        for options in ({}, {"average": 0.9, "validation": samples()})
    ]
    assert costs[0] == costs[1]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"l1": -1}, "l1 must be a non-negative finite number, got -1"),
        ({"l2": float("inf")}, "l2 must be a non-negative finite number, got inf"),
        ({"l2": "0.1"}, "l2 must be a non-negative number, got '0.1'"),
        ({"clip_norm": 0}, "clip_norm must be a positive finite number, got 0"),
        ({"clip_value": -1}, "clip_value must be a positive finite number, got -1"),
        ({"penalty": "max"}, "penalty must be 'mean', 'sum' or 'batch', got 'max'"),
        ({"average": 1}, r"average must lie in \[0, 1\), got 1"),
    ],
)
def test_wrong_settings(dev, options, said):
    with pytest.raises(ValueError, match=said):
        train(make(dev), **options)
    with pytest.raises(ValueError, match="max_norm must be a positive finite number, got 0"):
        nn.Dense(3, max_norm=0)


@pytest.mark.parametrize("weighted", [False, True])
def test_a_penalty_by_the_batch_is_divided_by_the_batch(dev, weighted):
    """Two minibatches, of 25 and 15 samples, against the cost's definition and its derivative."""
    X, y = samples()
    w = 1 + np.arange(N) % 4 if weighted else np.ones(N)
    network = make(dev, [nn.Dense(K)])
    p = host(dev, network)
    history = train(
        network,
        l1=0.2,
        l2=0.7,
        penalty="batch",
        batch_size=25,
        shuffle=False,
        sample_weight=w if weighted else None,
    )
    costs = []
    for rows in (slice(0, 25), slice(25, N)):
        W, b, total = p["layers.0.W"], p["layers.0.b"], w[rows].sum()
        Z = X[rows] @ W + b
        P = np.exp(Z) / np.exp(Z).sum(axis=1, keepdims=True)
        onehot = np.eye(K)[y[rows]]
        penalty = 0.2 * np.abs(W).sum() + 0.35 * (W**2).sum()
        costs.append((-(w[rows] * np.log((P * onehot).sum(axis=1))).sum() + penalty) / total)
        dZ = w[rows, None] * (P - onehot)
        p["layers.0.W"] = W - 0.1 * (X[rows].T @ dZ + 0.2 * np.sign(W) + 0.7 * W) / total
        p["layers.0.b"] = b - 0.1 * dZ.sum(axis=0) / total
    for name, values in host(dev, network).items():
        np.testing.assert_allclose(values, p[name], rtol=1e-10)
    assert history.reports[0].cost == pytest.approx(np.average(costs, weights=[25, 15]), rel=1e-12)


def test_a_batch_that_counts_nothing_has_no_penalty(dev):
    network = make(dev, [nn.Dense(K)])
    w = np.r_[np.zeros(25), np.ones(15)]
    options = {"penalty": "batch", "batch_size": 25, "shuffle": False, "sample_weight": w}
    ends = []

    class Stop(nn.GradientDescent):
        name = "Stops"

        def update(self, ops, params, grads, state, *n_decay):
            ends.append(grads.copy())
            super().update(ops, params, grads, state, *n_decay)

    history = train(network, l2=5.0, optimizer=Stop(0.1), **options)
    assert np.isfinite(history.reports[0].cost)
    assert not dev.to_host(ends[0]).any()
    assert dev.to_host(ends[1]).any()
