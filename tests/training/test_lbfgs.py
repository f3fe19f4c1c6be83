"""L-BFGS on the flat buffer of parameters."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import logsumexp

from tests.training.test_loop import N, make, problem, weights
from xpnet import nn, training


def logistic(dev):
    return nn.Network([nn.Dense(3, init="zeros")], 4, device=dev, dtype="float64")


@pytest.mark.parametrize("weighted", [False, True])
def test_the_minimum_is_the_minimum(dev, weighted):
    """Of a convex cost, written out here and minimised from numerical gradients."""
    X, y = problem()
    w = 1.0 + np.arange(N) % 3 if weighted else np.ones(N)

    def cost(p):
        W, b = p[:12].reshape(4, 3), p[12:]
        Z = X @ W + b
        losses = logsumexp(Z, axis=1) - Z[np.arange(N), y]
        return (w @ losses + 0.5 * 2.0 * (W**2).sum()) / w.sum()

    expected = minimize(cost, np.zeros(15), options={"gtol": 1e-7})
    network = logistic(dev)
    result = training.minimize(
        *(network, X, y),
        loss="softmax_cross_entropy",
        l2=2.0,
        sample_weight=w if weighted else None,
        options={"gtol": 1e-9, "ftol": 0},
    )
    assert result.fun == pytest.approx(expected.fun, rel=1e-9)
    named = {name: dev.to_host(view) for name, view in network.named_parameters().items()}
    np.testing.assert_allclose(named["layers.0.W"].ravel(), expected.x[:12], atol=1e-5)
    # Of the biases only the differences matter.
    b = named["layers.0.b"]
    np.testing.assert_allclose(b - b[0], expected.x[12:] - expected.x[12], atol=1e-5)


def test_each_iteration_is_told_and_may_be_the_last(dev):
    X, y = problem()
    network, costs = make(dev), []

    def note(cost):
        now, _ = training.evaluate(network, "softmax_cross_entropy", X, y)
        assert now == pytest.approx(cost, rel=1e-12)
        costs.append(cost)
        return np.equal(len(costs), 4)  # a bool of NumPy's

    result = training.minimize(network, X, y, loss="softmax_cross_entropy", on_iteration=note)
    assert len(costs) == 4
    assert costs == sorted(costs, reverse=True)
    assert result.fun == pytest.approx(costs[-1])
    now, _ = training.evaluate(network, "softmax_cross_entropy", X, y)
    assert now == pytest.approx(costs[-1], rel=1e-12)


def test_padding_stays_nothing(dev):
    network = make(dev)
    training.minimize(network, *problem(), loss="softmax_cross_entropy", max_iter=5)
    is_padding = np.ones(len(weights(network)), dtype=bool)
    for span in network._spans.values():
        is_padding[span] = False
    assert is_padding.any()
    assert not weights(network)[is_padding].any()


@pytest.mark.parametrize(
    ("layer", "said"),
    [
        (nn.Dropout(0.1), r"does not work with Dropout\(rate=0.1\)"),
        (nn.BatchNorm(), "does not work with BatchNorm"),
        (nn.Dense(3, max_norm=1.0), r"does not work with Dense\(.*max_norm=1.0\)"),
    ],
)
def test_what_is_no_function_of_the_parameters_is_refused(dev, layer, said):
    network = nn.Network([layer.clone(), nn.Dense(3)], 4, device=dev)
    before = weights(network)
    with pytest.raises(ValueError, match=said):
        training.minimize(network, *problem(), loss="softmax_cross_entropy")
    np.testing.assert_array_equal(weights(network), before)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"max_iter": 0}, "max_iter must be a positive integer, got 0"),
        ({"l2": -1}, "l2 must be a non-negative finite number, got -1"),
        ({"sample_weight": np.zeros(N)}, "the weights of all samples are 0"),
    ],
)
def test_wrong_arguments(dev, options, said):
    with pytest.raises(ValueError, match=said):
        training.minimize(make(dev), *problem(), loss="softmax_cross_entropy", **options)
