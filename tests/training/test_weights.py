"""Weights of samples and classes in training."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from xpnet import nn, training

D, K, N = 5, 3, 30


def samples():
    rng = np.random.default_rng(0)
    return rng.standard_normal((N, D)), rng.choice(K, N, p=[0.7, 0.2, 0.1])


def trained(dev, X, y, *, loss="softmax_cross_entropy", n_outputs=K, dtype="float64", **options):
    network = nn.Network([nn.Dense(6, "tanh"), nn.Dense(n_outputs)], D, device=dev, dtype=dtype)
    arguments: dict[str, Any] = {"optimizer": nn.GradientDescent(0.5), "epochs": 20, **options}
    history = training.fit(network, X, y, loss=loss, **arguments)
    return dev.to_host(network.parameters), history


def test_a_weight_is_so_many_samples(dev):
    X, y = samples()
    counts = np.array([0, 1, 2, 1, 3] * 6)
    weighted, history = trained(dev, X, y, sample_weight=counts)
    repeated, expected = trained(dev, np.repeat(X, counts, axis=0), np.repeat(y, counts))
    np.testing.assert_allclose(weighted, repeated, rtol=0, atol=1e-12)
    np.testing.assert_allclose(history.cost, expected.cost, rtol=1e-12)
    assert np.abs(weighted - trained(dev, X, y)[0]).max() > 1e-3


@pytest.mark.parametrize("factor", [1.0, 0.01, 7.0])
def test_only_ratios_count(dev, factor):
    """Also on minibatches, whose own sum divides them."""
    X, y = samples()
    weights = np.random.default_rng(1).random(N)
    options: dict[str, Any] = {"batch_size": 8, "seed": 3}
    found, _ = trained(dev, X, y, sample_weight=factor * weights, **options)
    expected, _ = trained(dev, X, y, sample_weight=weights, **options)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
    same, _ = trained(dev, X, y, sample_weight=np.full(N, factor), **options)
    np.testing.assert_allclose(same, trained(dev, X, y, **options)[0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("factor", [1e-308, 1e-50, 1e38, 1e307])
def test_weights_out_of_float32s_range(dev, factor):
    X, y = samples()
    options: dict[str, Any] = {"dtype": "float32", "batch_size": 8}
    weights = 1.0 + np.arange(N) % 3
    found, history = trained(dev, X, y, sample_weight=factor * weights, **options)
    expected, whole = trained(dev, X, y, sample_weight=weights, **options)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(history.cost, whole.cost, rtol=1e-4)
    options |= {"sample_weight": factor * weights, "class_weight": [1e5, 1.0, 1e300]}
    _, history = trained(dev, X, y, **options)
    assert np.isfinite(history.cost).all()


def test_balanced_classes_of_which_one_is_absent(dev):
    X, y = samples()
    y = np.where(y == 1, 0, y)
    counts = np.bincount(y)
    found, _ = trained(dev, X, y, class_weight="balanced")
    expected, _ = trained(dev, X, y, sample_weight=(N / (2 * np.maximum(counts, 1)))[y])
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-13)


def test_a_penalty_on_the_sum_of_weighted_losses(dev):
    """The same as with samples repeated."""
    X, y = samples()
    counts = np.array([0, 1, 2, 1, 3] * 6)
    options: dict[str, Any] = {"l2": 3.0, "penalty": "sum"}
    weighted, _ = trained(dev, X, y, sample_weight=counts, **options)
    repeated, _ = trained(dev, np.repeat(X, counts, axis=0), np.repeat(y, counts), **options)
    np.testing.assert_allclose(weighted, repeated, rtol=0, atol=1e-12)


def test_a_batch_that_counts_for_nothing_changes_nothing(dev):
    X, y = samples()
    weights = np.where(np.arange(N) < 10, 0.0, 1.0)
    options: dict[str, Any] = {
        "batch_size": 10,
        "shuffle": False,
        "epochs": 3,
        "sample_weight": weights,
    }
    found, history = trained(dev, X, y, **options)
    del options["sample_weight"]
    expected, rest = trained(dev, X[10:], y[10:], **options)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
    np.testing.assert_allclose(
        [cost for _, cost in history.cost], [cost for _, cost in rest.cost], rtol=1e-12
    )


def test_the_cost_of_an_epoch_is_the_weighted_mean(dev):
    X, y = samples()
    weights = np.random.default_rng(1).random(N)
    _, whole = trained(
        dev, X, y, sample_weight=weights, epochs=1, optimizer=nn.GradientDescent(1e-12)
    )
    options: dict[str, Any] = {"epochs": 1, "batch_size": 7, "optimizer": nn.GradientDescent(1e-12)}
    _, batches = trained(dev, X, y, sample_weight=weights, **options)
    assert batches.cost[0][1] == pytest.approx(whole.cost[0][1], rel=1e-9)


@pytest.mark.parametrize(
    "class_weight",
    ["balanced", [0.5, 2.0, 3.0], {1: 4.0}, {0: 0.0, 2: 1.5}],
    ids=repr,
)
def test_class_weights(dev, class_weight):
    X, y = samples()
    counts = np.bincount(y)
    if class_weight == "balanced":
        of_classes = N / (K * counts)
    elif isinstance(class_weight, dict):
        of_classes = np.array([class_weight.get(k, 1.0) for k in range(K)])
    else:
        of_classes = np.array(class_weight)
    own = np.random.default_rng(2).random(N)
    found, _ = trained(dev, X, y, class_weight=class_weight, sample_weight=own)
    expected, _ = trained(dev, X, y, sample_weight=own * of_classes[y])
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-13)
    assert np.abs(found - trained(dev, X, y, sample_weight=own)[0]).max() > 1e-3


def test_class_weights_of_two_classes(dev):
    X, y = samples()
    y = (y > 0).astype(float)
    options: dict[str, Any] = {"loss": "sigmoid_cross_entropy", "n_outputs": 1}
    found, _ = trained(dev, X, y, class_weight={1: 3.0}, **options)
    expected, _ = trained(dev, X, y, sample_weight=1 + 2 * y, **options)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_weights_in_every_dtype(dev, dtype):
    X, y = samples()
    found, history = trained(dev, X, y, sample_weight=np.arange(N), dtype=dtype, batch_size=7)
    assert found.dtype == dtype
    assert history.reports[-1].cost < history.reports[0].cost


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"sample_weight": np.ones(4)}, ValueError, r"shape \(30,\).* got \(4,\)"),
        ({"sample_weight": -np.ones(N)}, ValueError, "finite and at least 0"),
        ({"sample_weight": np.full(N, np.nan)}, ValueError, "finite and at least 0"),
        ({"sample_weight": np.zeros(N)}, ValueError, "all samples are 0"),
        ({"sample_weight": ["a"] * N}, TypeError, "sample_weight does not convert"),
        ({"class_weight": "even"}, ValueError, "must be 'balanced', a list or a dict, got 'even'"),
        ({"class_weight": [1, 2]}, ValueError, "each of the 3 classes, got 2"),
        ({"class_weight": [1, 2, -1]}, ValueError, "class_weight must be a non-negative"),
        ({"class_weight": [1, 2, 3, 4]}, ValueError, "each of the 3 classes, got 4"),
        ({"class_weight": np.array(3.0)}, ValueError, "must be 'balanced', a list or a dict, got"),
        (
            {"sample_weight": np.full(N, 1e308), "l2": 1.0, "penalty": "sum"},
            ValueError,
            "penalty='sum' divides by the sum of the sample weights, .* got inf",
        ),
        ({"class_weight": 5}, ValueError, "must be 'balanced', a list or a dict, got 5"),
        (
            {"class_weight": {"a": 2}},
            ValueError,
            "keys of class_weight must be classes from 0 to 2, got 'a'",
        ),
        (
            {"class_weight": {3: 2}},
            ValueError,
            "keys of class_weight must be classes from 0 to 2, got 3",
        ),
        ({"class_weight": {0: -1}}, ValueError, r"class_weight\[0\] must be a non-negative"),
    ],
)
def test_wrong_weights(dev, options, error, said):
    X, y = samples()
    with pytest.raises(error, match=said):
        trained(dev, X, y, **options)


def test_a_regression_has_no_classes(dev):
    X, _ = samples()
    with pytest.raises(ValueError, match="class_weight needs one class per sample"):
        trained(dev, X, X[:, 0], loss="mean_squared_error", n_outputs=1, class_weight="balanced")


def test_the_score_of_a_constant_target(dev):
    """1 where it is met and else 0, also where its mean is rounded; the outputs' mean."""
    loss = nn.MeanSquaredError()
    with dev.activate():

        def score(predictions, targets, dtype=np.float32):
            arrays = (dev.asarray(np.array(a, dtype)) for a in (predictions, targets))
            return float(dev.to_host(loss.score(dev.ops, *arrays)))

        constant = np.full((7, 1), 0.1)
        assert score(constant, constant) == 1
        assert score(constant * 1.01, constant) == 0
        rng = np.random.default_rng(0)
        targets = rng.standard_normal((20, 2)) * [1, 100] + [0, 1000]
        predictions = targets + rng.standard_normal((20, 2)) * [0.5, 1]
        expected = 1 - ((predictions - targets) ** 2).sum(0) / (
            (targets - targets.mean(0)) ** 2
        ).sum(0)
        far = 1e6 + rng.standard_normal((60_000, 1))
        assert abs(score(np.full((60_000, 1), far.mean()), far)) < 1e-3
        for unit in (1e-30, 1e30):
            assert score(predictions * unit, targets * unit) == pytest.approx(
                expected.mean(), abs=1e-5
            )
        assert score(predictions, targets, np.float64) == pytest.approx(expected.mean(), rel=1e-12)


def test_a_network_regresses(dev):
    """The same network, on numbers: R^2 near 1 on samples that it has not seen."""
    rng = np.random.default_rng(5)
    X = rng.uniform(-2, 2, (600, D))
    y = np.sin(X[:, 0]) + X[:, 1] * X[:, 2]
    network = nn.Network([nn.Dense(64, "tanh"), nn.Dense(1)], D, device=dev, seed=0)
    history = training.fit(
        network,
        X[:500],
        y[:500],
        loss="mean_squared_error",
        optimizer=nn.Adam(0.01),
        epochs=150,
        batch_size=50,
        validation=(X[500:], y[500:]),
        report_every=150,
    )
    prediction = network.predict(X[500:])[:, 0]
    R2 = 1 - np.sum((prediction - y[500:]) ** 2) / np.sum((y[500:] - y[500:].mean()) ** 2)
    assert R2 > 0.9
    assert history.reports[-1].validation_accuracy == pytest.approx(R2, abs=1e-5)
    cost, _ = training.evaluate(network, "mean_squared_error", X[500:], y[500:])
    assert cost == pytest.approx(np.mean((prediction - y[500:]) ** 2), rel=1e-5)
