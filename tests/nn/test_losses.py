"""Losses: labels checked at the border, probabilities, decisions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from sklearn.neural_network import _base

from xpnet import nn

SIGMOID, SOFTMAX = nn.SigmoidCrossEntropy(), nn.SoftmaxCrossEntropy()
POISSON = nn.PoissonDeviance()


@pytest.mark.parametrize("y", [[0, 1, 1], [[0], [1], [1]], [False, True, True], [0.0, 1.0, 1.0]])
def test_binary_labels(dev, y):
    labels = SIGMOID.labels(dev, y, 1, np.float32)
    assert labels.dtype == np.float32
    np.testing.assert_array_equal(dev.to_host(labels), [[0], [1], [1]])


def test_several_binary_labels(dev):
    labels = SIGMOID.labels(dev, [[0, 1], [0.25, 1]], 2, np.float64)
    np.testing.assert_array_equal(dev.to_host(labels), [[0, 1], [0.25, 1]])


@pytest.mark.parametrize("dtype", [np.int64, np.uint8, np.int32])
def test_classes(dev, dtype):
    labels = SOFTMAX.labels(dev, np.array([2, 0, 1], dtype), 3, np.float32)
    assert labels.dtype == np.int64
    np.testing.assert_array_equal(dev.to_host(labels), [2, 0, 1])


@pytest.mark.parametrize(
    ("loss", "y", "n_outputs", "error", "said"),
    [
        (SIGMOID, [0, 2], 1, ValueError, r"labels must hold 0, 1 .* values from 0.0 to 2.0"),
        (SIGMOID, [0, -1], 1, ValueError, "values from -1.0 to 0.0"),
        (SIGMOID, [0, np.nan], 1, ValueError, "must hold 0, 1 or probabilities"),
        (SIGMOID, [0, 1], 2, ValueError, r"shape \(n_samples, 2\).* got \(2,\)"),
        (SIGMOID, ["a", "b"], 1, TypeError, "labels does not convert to an array of float32"),
        (
            POISSON,
            [0, -1],
            1,
            ValueError,
            "labels must hold counts .* >= 0, got values from -1.0 to",
        ),
        (POISSON, [0, np.nan], 1, ValueError, "labels must be finite"),
        (POISSON, [0, np.inf], 1, ValueError, "labels must be finite"),
        (POISSON, [0, 1], 2, ValueError, r"shape \(n_samples, 2\).* got \(2,\)"),
        (SOFTMAX, [0, 3], 3, ValueError, "labels must hold classes 0 to 2.* from 0 to 3"),
        (SOFTMAX, [0, -1], 3, ValueError, "from -1 to 0"),
        (SOFTMAX, [0.0, 1.0], 3, TypeError, "integer class indices, got dtype float64"),
        (SOFTMAX, ["a", "b"], 3, TypeError, "labels does not convert to numbers: its dtype is <U1"),
        (SOFTMAX, [[0, 1]], 3, ValueError, r"shape \(n_samples,\), got \(1, 2\)"),
    ],
)
def test_wrong_labels(dev, loss, y, n_outputs, error, said):
    with pytest.raises(error, match=said):
        loss.labels(dev, y, n_outputs, np.float32, name="labels")


def test_probabilities_and_decisions(dev):
    z = np.array([[0.0, 2.0], [1.0, -1.0]])
    with dev.activate():
        logits = dev.asarray(z)
        P = dev.to_host(SOFTMAX.probabilities(dev.ops, logits))
        np.testing.assert_allclose(P, np.exp(z) / np.exp(z).sum(axis=1, keepdims=True))
        np.testing.assert_array_equal(dev.to_host(SOFTMAX.decide(dev.ops, logits)), [1, 0])
        A = dev.to_host(SIGMOID.probabilities(dev.ops, logits))
        np.testing.assert_allclose(A, 1 / (1 + np.exp(-z)))
        np.testing.assert_array_equal(
            dev.to_host(SIGMOID.decide(dev.ops, logits)), [[0, 1], [1, 0]]
        )


def test_what_counts_as_correct(dev):
    with dev.activate():
        logits = dev.asarray(np.array([[2.0], [-1.0], [0.5]]))
        for y, expected in (
            ([[1], [1], [0]], [True, False, False]),
            ([[0.9], [0.2], [0.4]], [True, True, False]),
        ):
            found = SIGMOID.correct(dev.ops, logits, dev.asarray(np.array(y, float)))
            np.testing.assert_array_equal(dev.to_host(found), expected)


def forward(dev, loss, z, y, weights=None):
    """Give the losses of the samples, their mean and its gradient."""
    z = np.asarray(z, np.float64)
    labels = loss.labels(dev, y, z.shape[1], z.dtype)
    with dev.activate():
        xp = dev.xp
        logits = dev.asarray(z)
        losses, mean, dlogits = xp.empty(len(z)), xp.empty(1), xp.empty_like(logits)
        parts = () if weights is None else (dev.ops.shares(dev.asarray(weights)),)
        loss.forward(dev.ops, logits, labels, losses, mean, dlogits, *parts)
    return dev.to_host(losses), float(dev.to_host(mean)[0]), dev.to_host(dlogits)


SURE = [[0.5, -3.0, 9.0], [50.0, -60.0, 2.0], [-1e3, 1e3, 0.0], [-45.0, 700.0, -800.0]]
CEILING = -math.log(np.finfo(np.float64).eps)  # scikit-learn clips probabilities to [eps, 1 - eps]


@pytest.mark.parametrize("y", [[2, 1, 0, 2], [1, 2, 0, 0]])
def test_the_ceiling_of_scikit_learn(dev, y):
    weights, z = np.array([1.0, 2.0, 0.5, 3.0]), np.array(SURE)
    onehot = np.eye(3)[y]
    A, E = 1 / (1 + np.exp(np.minimum(-z, 700))), np.exp(z - z.max(axis=1, keepdims=True))
    cases: list[tuple[Any, Any, Any]] = [
        (
            nn.SigmoidCrossEntropy(ceiling=CEILING),
            onehot,
            lambda w: _base.binary_log_loss(onehot, A, w),
        ),
        (
            nn.SoftmaxCrossEntropy(ceiling=CEILING),
            y,
            lambda w: _base.log_loss(onehot, E / E.sum(axis=1, keepdims=True), w),
        ),
    ]
    for loss, labels, theirs in cases:
        for w in (None, weights):
            assert forward(dev, loss, z, labels, w)[1] == pytest.approx(theirs(w), rel=1e-6)
            free = forward(dev, type(loss)(), z, labels, w)[1]
            assert free > 1.5 * theirs(w)


def test_a_ceiling_is_one_of_each_output_or_of_a_sample(dev):
    z, onehot = np.array([[-30.0, 1.0, 30.0], [0.1, 0.2, 0.3]]), np.array([[1, 0, 0], [0, 1, 0]])
    terms = np.log1p(np.exp(z)) - onehot * z
    losses = forward(dev, nn.SigmoidCrossEntropy(ceiling=5.0), z, onehot)[0]
    np.testing.assert_allclose(losses, [5 + terms[0, 1] + 5, terms[1].sum()], rtol=1e-12)
    losses = forward(dev, nn.SoftmaxCrossEntropy(ceiling=5.0), z, [0, 1])[0]
    np.testing.assert_allclose(losses, [5, np.log(np.exp(z[1]).sum()) - z[1, 1]], rtol=1e-12)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weights", [None, np.array([1.0, 2.0, 0.5, 3.0])], ids=["alike", "each"])
@pytest.mark.parametrize("kind", [nn.SigmoidCrossEntropy, nn.SoftmaxCrossEntropy])
def test_the_gradient_knows_no_ceiling(dev, kind, weights, smoothing):
    y = np.eye(3)[[2, 1, 0, 2]] if kind is nn.SigmoidCrossEntropy else [2, 1, 0, 2]
    free = forward(dev, kind(smoothing), SURE, y, weights)
    capped = forward(dev, kind(smoothing, 0.7), SURE, y, weights)
    assert capped[1] < free[1]
    np.testing.assert_array_equal(capped[2], free[2])


@pytest.mark.parametrize("kind", [nn.SigmoidCrossEntropy, nn.SoftmaxCrossEntropy])
def test_a_ceiling_hides_no_nan(dev, kind):
    z = [[np.nan, 0.0], [0.0, 500.0]]
    y = np.eye(2) if kind is nn.SigmoidCrossEntropy else [0, 0]
    losses, mean, dlogits = forward(dev, kind(ceiling=2.0), z, y)
    assert np.isnan(losses[0])
    assert losses[1] <= 4
    assert math.isnan(mean)
    assert np.isnan(dlogits[0]).any()


@pytest.mark.parametrize("kind", [nn.SigmoidCrossEntropy, nn.SoftmaxCrossEntropy])
def test_what_a_ceiling_may_be(kind):
    assert kind().get_config() == {"type": kind.name, "label_smoothing": 0.0, "ceiling": None}
    assert nn.Loss.resolve(kind(0.1, 3).get_config()).get_config()["ceiling"] == 3.0
    for wrong in (0, -1.0, math.inf, math.nan, True, "high"):
        with pytest.raises(ValueError, match=f"ceiling must be a positive .*number, got {wrong!r}"):
            kind(ceiling=wrong)


@pytest.mark.parametrize("n_outputs", [1, 3])
def test_scikit_learns_poisson_deviance(dev, n_outputs):
    rng = np.random.default_rng(3)
    z, weights = rng.normal(0, 2, (50, n_outputs)), rng.random(50)
    y = np.where(rng.random(z.shape) < 0.3, 0, rng.gamma(1.0, 5.0, z.shape))
    assert (y == 0).any()
    for w in (None, weights):
        expected = _base.poisson_loss(y, np.exp(z), w)
        losses, mean, dlogits = forward(dev, POISSON, z, y, w)
        assert mean == pytest.approx(expected, rel=1e-12)
        parts = np.full(50, 1 / 50) if w is None else w / w.sum()
        np.testing.assert_allclose(dlogits, parts[:, None] * (np.exp(z) - y), rtol=1e-12)
        assert (losses > 0).all()


def test_the_deviance_of_what_is_met(dev):
    """Near its minimum it is half of ``(mu - Y)^2 / Y``, however large Y is."""
    y = np.array([[1e9], [3.0], [1e-300], [0.0]])
    z = np.log(np.where(y > 0, y, np.exp(-800.0) + 1e-320))
    losses, _, dlogits = forward(dev, POISSON, z, y)
    np.testing.assert_allclose(losses, np.zeros(4), atol=1e-6)
    np.testing.assert_allclose(dlogits, np.zeros((4, 1)), atol=1e-5)
    off = forward(dev, POISSON, np.log([[1e9 * (1 + 1e-3)]]), [[1e9]])[0]
    np.testing.assert_allclose(off, 1e9 * (1e-3 - math.log1p(1e-3)), rtol=1e-8)


def test_expected_values_and_their_score(dev):
    z, y = np.array([[0.0], [1.0], [2.0], [-3.0]]), np.array([[1.0], [2.0], [8.0], [0.0]])
    with dev.activate():
        logits, labels = dev.asarray(z), POISSON.labels(dev, y, 1, np.float64)
        decided = dev.to_host(POISSON.decide(dev.ops, logits))
        score = float(dev.to_host(POISSON.score(dev.ops, logits, labels)))
    np.testing.assert_allclose(decided, np.exp(z), rtol=1e-15)
    expected = 1 - ((np.exp(z) - y) ** 2).sum() / ((y - y.mean()) ** 2).sum()
    assert score == pytest.approx(expected, rel=1e-12)
    assert (POISSON.score_name, POISSON.has_classes) == ("R2", False)
