"""Layers and losses: forward and backward pass on two devices."""

from __future__ import annotations

import numpy as np
import pytest

from tests.parity.comparison import assert_close, host_reference
from xpnet import nn

ACTIVATIONS = [
    *("identity", "sigmoid", "tanh", "relu", "elu", "gelu_tanh", "softplus", "softsign"),
    "leaky_relu",
]
LOSSES = [
    ("softmax_cross_entropy", 5),
    ("sigmoid_cross_entropy", 3),
    ("sigmoid_cross_entropy", 1),
    ("mean_squared_error", 3),
    ("poisson_deviance", 3),
]


def test_every_activation_is_compared():
    """Of xpnet's own; other tests define more."""
    ours = {name for name, c in nn.Activation.known().items() if c.__module__.startswith("xpnet.")}
    assert ours == set(ACTIVATIONS)


def passes(device, layers, X, upstream, dtype):
    """Run both passes, and give all that they compute."""
    network = nn.Network(layers, X.shape[1], device=device, dtype=dtype, seed=3)
    rng = np.random.default_rng(4)
    with device.activate():
        for parameter in network.named_parameters().values():
            parameter[...] = device.asarray(0.5 * rng.standard_normal(parameter.shape), dtype)
        caches = network.allocate(len(X), training=True, input_gradient=True)
        output = network.forward(device.asarray(X, dtype), caches)
        found = {"output": device.to_host(output).copy()}
        found["dX"] = device.to_host(
            network.backward(device.asarray(upstream.copy(), dtype), caches)
        )
    gradients = network.named_gradients().items()
    return found | {name: device.to_host(gradient).copy() for name, gradient in gradients}


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("batch_size", [1, 7, 130])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_dense(dev, activation, batch_size, bias, dtype):
    rng = np.random.default_rng(1)
    X, upstream = rng.standard_normal((batch_size, 11)), rng.standard_normal((batch_size, 6))
    X, upstream = X.astype(dtype), upstream.astype(dtype)

    def layers():
        return [nn.Dense(9, activation, bias=bias), nn.Dense(6, activation, bias=bias)]

    expected = passes(host_reference(), layers(), X, upstream, "float64")
    for name, found in passes(dev, layers(), X, upstream, dtype).items():
        assert_close(found, expected[name], dtype, name)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_an_activation_as_a_layer(dev, activation, dtype):
    rng = np.random.default_rng(2)
    X, upstream = (rng.standard_normal((20, 11)).astype(dtype) for _ in range(2))
    expected = passes(host_reference(), [activation], X, upstream, "float64")
    for name, found in passes(dev, [activation], X, upstream, dtype).items():
        assert_close(found, expected[name], dtype, name)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("batch_size", [1, 7, 130])
@pytest.mark.parametrize(
    "layer",
    [nn.BatchNorm(0.3), nn.BatchNorm(0.3, unbiased=False), nn.LayerNorm(), nn.Dropout(0.4)],
    ids=repr,
)
def test_a_layer_between_others(dev, layer, batch_size, dtype):
    rng = np.random.default_rng(3)
    X, upstream = rng.standard_normal((batch_size, 11)), rng.standard_normal((batch_size, 6))
    X, upstream = X.astype(dtype), upstream.astype(dtype)

    def layers():
        return [nn.Dense(9, bias=False), layer.clone(), "tanh", nn.Dense(6)]

    expected = passes(host_reference(), layers(), X, upstream, "float64")
    for name, found in passes(dev, layers(), X, upstream, dtype).items():
        if np.linalg.norm(expected[name]):
            assert_close(found, expected[name], dtype, name)
        else:  # what a batch of one leaves of gradients in front of its normalisation
            assert not found.any(), name


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(("name", "n_outputs"), LOSSES)
@pytest.mark.parametrize("n_samples", [1, 33, 1000])
def test_a_loss(dev, name, n_outputs, n_samples, dtype):
    rng = np.random.default_rng(5)
    logits = (4 * rng.standard_normal((n_samples, n_outputs))).astype(dtype)
    is_softmax = name.startswith("softmax")
    y = rng.integers(0, n_outputs if is_softmax else 2, (n_samples, 1 if is_softmax else n_outputs))
    y = y[:, 0] if is_softmax else y

    def computed(device, dtype):
        loss, xp = nn.Loss.resolve(name), device.xp
        labels = loss.labels(device, y, n_outputs, dtype)
        with device.activate():
            Z = device.asarray(logits, dtype)
            outputs = {
                "losses": xp.empty(n_samples, dtype=dtype),
                "mean": xp.empty(1, dtype=dtype),
                "dlogits": xp.empty_like(Z),
            }
            loss.forward(device.ops, Z, labels, *outputs.values())
            if loss.has_classes:
                outputs["probabilities"] = loss.probabilities(device.ops, Z)
            decisions = device.to_host(loss.decide(device.ops, Z))
        return {key: device.to_host(array) for key, array in outputs.items()}, decisions

    expected, decided = computed(host_reference(), "float64")
    found, decisions = computed(dev, dtype)
    if name == "poisson_deviance":  # whose decisions are rounded
        assert_close(decisions, decided, dtype, "decisions")
    else:
        np.testing.assert_array_equal(decisions, decided)
    assert decisions.dtype == (np.int64 if is_softmax else dtype)
    for key, array in found.items():
        assert_close(array, expected[key], dtype, key)
