"""Losses: labels checked at the border, probabilities, decisions."""

from __future__ import annotations

import inspect
import math

import numpy as np
import pytest

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
    z = np.asarray(z)
    labels = loss.labels(dev, y, z.shape[1], z.dtype)
    with dev.activate():
        xp = dev.xp
        logits = dev.asarray(z)
        losses, mean = xp.empty(len(z), z.dtype), xp.empty(1, z.dtype)
        dlogits = xp.empty_like(logits)
        parts = () if weights is None else (dev.ops.shares(dev.asarray(weights)),)
        loss.forward(dev.ops, logits, labels, losses, mean, dlogits, *parts)
    return dev.to_host(losses), float(dev.to_host(mean)[0]), dev.to_host(dlogits)


SURE = [[0.5, -3.0, 9.0], [50.0, -60.0, 2.0], [-1e3, 1e3, 0.0], [-45.0, 700.0, -800.0]]
EPS = {dtype: float(np.finfo(dtype).eps) for dtype in (np.float32, np.float64)}


def theirs():
    """Give scikit-learn's losses."""
    return pytest.importorskip("sklearn.neural_network._base")


def scikit_learns(kind, z, y, weights=None):
    """Give the loss that scikit-learn states of logits; its activations are done in place."""
    A = z.copy()
    given = () if weights is None else (weights,)  # from scikit-learn 1.7 on
    if kind is nn.SigmoidCrossEntropy:
        theirs().inplace_logistic(A)
        return float(theirs().binary_log_loss(np.asarray(y, z.dtype), A, *given))
    theirs().inplace_softmax(A)
    return float(theirs().log_loss(np.eye(z.shape[1], dtype=z.dtype)[y], A, *given))


def answers(rng, kind, n, n_outputs):
    if kind is nn.SigmoidCrossEntropy:
        return rng.integers(0, 2, (n, n_outputs))
    return rng.integers(0, n_outputs, n)


BOTH = pytest.mark.parametrize("kind", [nn.SigmoidCrossEntropy, nn.SoftmaxCrossEntropy])


@BOTH
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n_outputs", [2, 3, 40])
def test_what_scikit_learn_states(dev, kind, n_outputs, dtype):
    rng = np.random.default_rng(n_outputs)
    z = rng.uniform(-60, 60, (150, n_outputs)).astype(dtype)
    y, weights = answers(rng, kind, *z.shape), rng.random(150).astype(dtype)
    rel = 1e-12 if dtype is np.float64 else 1e-5
    takes_weights = "sample_weight" in inspect.signature(theirs().log_loss).parameters
    for w in (None, weights) if takes_weights else (None,):
        expected = scikit_learns(kind, z, y, w)
        assert forward(dev, kind(clip=EPS[dtype]), z, y, w)[1] == pytest.approx(expected, rel=rel)
        assert forward(dev, kind(), z, y, w)[1] > 1.02 * expected


@pytest.mark.parametrize("sign", [1, -1])
def test_digits_that_a_probability_has_lost(dev, sign):
    z = np.linspace(0.0, 40.0, 401)[:, None] * sign
    for y in (np.zeros_like(z), np.ones_like(z)):
        losses = forward(dev, nn.SigmoidCrossEntropy(clip=EPS[np.float64]), z, y)[0]
        theirs = [
            scikit_learns(nn.SigmoidCrossEntropy, z[i : i + 1], y[i : i + 1]) for i in range(401)
        ]
        np.testing.assert_allclose(losses, theirs, rtol=1e-11)


@BOTH
def test_logits_without_end(dev, kind):
    z = np.array([[-np.inf, 0.0], [-1e308, 1e308], [-800.0, 800.0]])
    y = np.eye(2)[[0, 0, 0]] if kind is nn.SigmoidCrossEntropy else [0, 0, 0]
    losses = forward(dev, kind(clip=0.01), z, y)[0]
    if kind is nn.SigmoidCrossEntropy:
        np.testing.assert_allclose(losses, -np.log(0.01) * np.array([1, 2, 2]) + [np.log(2), 0, 0])
    else:
        np.testing.assert_allclose(losses, -np.log(0.01))


@BOTH
@pytest.mark.parametrize("clip", [2.0**-126, 1e-20, 0.1, 0.499])
def test_clipped_probabilities_of_any_labels(dev, kind, clip):
    z = np.array(SURE)
    y = [[0.3, 1, 0], [0, 0.5, 1], [1, 0, 0.1], [1, 0, 1]]
    losses = forward(
        dev, kind(0.2, clip), z, y if kind is nn.SigmoidCrossEntropy else [2, 1, 0, 2]
    )[0]
    if kind is nn.SigmoidCrossEntropy:
        A = np.clip(1 / (1 + np.exp(np.minimum(-z, 700))), clip, 1 - clip)
        T, B = 0.8 * np.array(y) + 0.1, np.maximum(1 - A, clip)
        expected = -(T * np.log(A) + (1 - T) * np.log(B)).sum(axis=1)
    else:
        E = np.exp(z - z.max(axis=1, keepdims=True))
        P = np.clip(E / E.sum(axis=1, keepdims=True), clip, 1 - clip)
        expected = -((0.8 * np.eye(3)[[2, 1, 0, 2]] + 0.2 / 3) * np.log(P)).sum(axis=1)
    np.testing.assert_allclose(losses, expected, rtol=1e-12)


@BOTH
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weights", [None, np.array([1.0, 2.0, 0.5, 3.0])], ids=["alike", "each"])
def test_the_gradient_knows_no_clip(dev, kind, weights, smoothing):
    y = np.eye(3)[[2, 1, 0, 2]] if kind is nn.SigmoidCrossEntropy else [2, 1, 0, 2]
    free = forward(dev, kind(smoothing), SURE, y, weights)
    clipped = forward(dev, kind(smoothing, 0.2), SURE, y, weights)
    assert clipped[1] < free[1]
    np.testing.assert_array_equal(clipped[2], free[2])


@BOTH
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_a_clip_hides_no_nan(dev, kind, smoothing):
    z = [[np.nan, 0.0], [0.0, 500.0]]
    y = np.eye(2) if kind is nn.SigmoidCrossEntropy else [0, 0]
    for columns in (1, 20):  # short rows and long ones are separate loops
        wide = np.tile(z, (1, columns))
        labels = np.tile(y, (1, columns)) if kind is nn.SigmoidCrossEntropy else y
        losses, mean, dlogits = forward(dev, kind(smoothing, 0.1), wide, labels)
        assert np.isnan(losses[0])
        assert np.isfinite(losses[1])
        assert math.isnan(mean)
        assert np.isnan(dlogits[0]).any()


@BOTH
def test_what_a_clip_may_be(kind):
    assert kind().get_config() == {"type": kind.name, "label_smoothing": 0.0, "clip": 0.0}
    assert nn.Loss.resolve(kind(0.1, 0.25).get_config()).get_config()["clip"] == 0.25
    for wrong in (-1.0, math.inf, math.nan, True, "high", None):
        with pytest.raises(ValueError, match=f"clip must be a non-neg.* number, got {wrong!r}"):
            kind(clip=wrong)
    for wrong in (0.5, 1, 1e-40):
        with pytest.raises(ValueError, match=rf"clip must be 0 or lie in .* 0.5\), got {wrong!r}"):
            kind(clip=wrong)


@pytest.mark.parametrize("n_outputs", [1, 3])
def test_scikit_learns_poisson_deviance(dev, n_outputs):
    if not hasattr(theirs(), "poisson_loss"):
        pytest.skip("needs scikit-learn 1.7")
    rng = np.random.default_rng(3)
    z, weights = rng.normal(0, 2, (50, n_outputs)), rng.random(50)
    y = np.where(rng.random(z.shape) < 0.3, 0, rng.gamma(1.0, 5.0, z.shape))
    assert (y == 0).any()
    for w in (None, weights):
        expected = theirs().poisson_loss(y, np.exp(z), w)
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
