"""Losses: labels checked at the border, probabilities, decisions."""

from __future__ import annotations

import numpy as np
import pytest

from xpnet import nn

SIGMOID, SOFTMAX = nn.SigmoidCrossEntropy(), nn.SoftmaxCrossEntropy()


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
