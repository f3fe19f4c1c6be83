"""What the tests of further parameters share: samples, a fit, and the same network by hand."""

from __future__ import annotations

from typing import Any

import numpy as np

from xpnet import nn, training
from xpnet.estimators import MLPClassifier
from xpnet.random import RandomStateStream


def problem(n=60, n_features=5, seed=0, dtype="float64"):
    """Make samples of three classes, overlapping and of different numbers."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, n_features))
    y = np.argmax(X[:, :3] + [0.5, 0.0, -0.3] + 0.5 * rng.standard_normal((n, 3)), axis=1)
    return X.astype(dtype), y


BASE: dict[str, Any] = {
    "hidden_layer_sizes": (8, 6),
    "initialization": "he_normal",
    "alpha": 0.01,
    "batch_size": 16,
    "max_iter": 4,
    "learning_rate_init": 0.02,
    "shuffle": False,
    "random_state": 3,
}


def fitted(X, y, kind=MLPClassifier, fit=None, **options):
    return kind(**{**BASE, **options}).fit(X, y, **(fit or {}))


def by_hand(X, y, layers=None, dtype="float64", **options):
    """Train the network that the estimators of these tests are to be."""
    random_state = np.random.RandomState(3)
    if layers is None:
        layers = [dense(8), dense(6), dense(3, None)]
    stream = RandomStateStream(random_state)
    network = nn.Network(layers, X.shape[1], dtype=dtype, stream=stream)
    options = {
        "loss": "softmax_cross_entropy",
        "optimizer": nn.Adam(0.02, epsilon_hat=True),
        "epochs": 4,
        "batch_size": 16,
        "shuffle": False,
        "l2": 0.01,
        "penalty": "batch",
        "seed": int(random_state.randint(2**31)),
        **options,
    }
    return network, training.fit(network, X, y, **options)


def dense(units, activation="relu", init="he_normal", **options):
    return nn.Dense(units, activation or "identity", init=init, **options)


def weights(network):
    values = {**network.named_parameters(), **network.named_statistics()}
    return {name: network.device.to_host(view) for name, view in values.items()}


def agree(estimator, network, history, tolerance=1e-10):
    found, expected = weights(estimator.network_), weights(network)
    assert found.keys() == expected.keys()
    for name, values in found.items():
        np.testing.assert_allclose(values, expected[name], rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(estimator.loss_curve_, [r.cost for r in history.reports], 1e-6)


def differ(one, other):
    a, b = (np.concatenate([W.ravel() for W in e.coefs_]) for e in (one, other))
    return a.shape != b.shape or not np.allclose(a, b, rtol=1e-6, atol=1e-6)


def drop(first, second):
    rates = [[nn.Dropout(rate)] if rate else [] for rate in (first, second)]
    return [dense(8), *rates[0], dense(6), *rates[1], dense(3, None)]


def normalised():
    return [
        *(dense(8, None, bias=False, init={"type": "he_normal"}), nn.BatchNorm(unbiased=False)),
        *("relu", dense(6, None, bias=False), nn.BatchNorm(unbiased=False), "relu"),
        dense(3, None),
    ]


# Batch normalisation


def forward(estimator, X):
    """Compute a classifier's probabilities from what it says of itself."""
    f: dict[str, Any] = {
        "relu": lambda Z: np.maximum(Z, 0),
        "tanh": np.tanh,
        "identity": lambda Z: Z,
    }
    A = X
    for W, b in zip(estimator.coefs_[:-1], estimator.intercepts_[:-1], strict=True):
        A = f[estimator.activation](A @ W + b)
    Z = A @ estimator.coefs_[-1] + estimator.intercepts_[-1]
    E = np.exp(Z - Z.max(axis=1, keepdims=True))
    return E / E.sum(axis=1, keepdims=True)
