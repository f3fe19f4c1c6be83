"""Layers, losses and augmentations: what they compute on two devices."""

from __future__ import annotations

import numpy as np
import pytest

from tests.parity.comparison import assert_close, host_reference
from tests.registered import labels_for, losses_by_outputs, one_of_each, variants
from xpnet import nn
from xpnet.nn.batch import Batch


def passes(device, made, X, upstream, dtype):
    """Run both passes, and give all that they compute."""
    network = nn.Network(made, X.shape[1], device=device, dtype=dtype, seed=3)
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
@pytest.mark.parametrize("activation", one_of_each(nn.Activation), ids=repr)
def test_dense(dev, activation, batch_size, bias, dtype):
    rng = np.random.default_rng(1)
    X, upstream = rng.standard_normal((batch_size, 11)), rng.standard_normal((batch_size, 6))
    X, upstream = X.astype(dtype), upstream.astype(dtype)

    def made():
        return [nn.Dense(9, activation, bias=bias), nn.Dense(6, activation, bias=bias)]

    expected = passes(host_reference(), made(), X, upstream, "float64")
    for name, found in passes(dev, made(), X, upstream, dtype).items():
        assert_close(found, expected[name], dtype, name)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(
    "activation", [b for a in one_of_each(nn.Activation) for b in (a, *variants(a))], ids=repr
)
def test_an_activation_as_a_layer(dev, activation, dtype):
    rng = np.random.default_rng(2)
    X, upstream = (rng.standard_normal((20, 11)).astype(dtype) for _ in range(2))
    expected = passes(host_reference(), [activation.clone()], X, upstream, "float64")
    for name, found in passes(dev, [activation.clone()], X, upstream, dtype).items():
        assert_close(found, expected[name], dtype, name)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("batch_size", [1, 7, 130])
@pytest.mark.parametrize("layer", one_of_each(nn.Layer), ids=repr)
def test_a_layer_between_others(dev, layer, batch_size, dtype):
    rng = np.random.default_rng(3)
    X, upstream = rng.standard_normal((batch_size, 11)), rng.standard_normal((batch_size, 6))
    X, upstream = X.astype(dtype), upstream.astype(dtype)

    def made():
        return [nn.Dense(9, bias=False), layer.clone(), "tanh", nn.Dense(6)]

    expected = passes(host_reference(), made(), X, upstream, "float64")
    for name, found in passes(dev, made(), X, upstream, dtype).items():
        if np.linalg.norm(expected[name]):
            assert_close(found, expected[name], dtype, name)
        else:  # what a batch of one leaves of gradients in front of its normalisation
            assert not found.any(), name


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(("loss", "n_outputs"), losses_by_outputs(1, 3), ids=repr)
@pytest.mark.parametrize("n_samples", [1, 33, 1000])
def test_a_loss(dev, loss, n_outputs, n_samples, dtype):
    rng = np.random.default_rng(5)
    logits = (4 * rng.standard_normal((n_samples, n_outputs))).astype(dtype)

    def computed(device, dtype, y):
        xp = device.xp
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
            assert decisions.dtype == labels.dtype
        return {key: device.to_host(array) for key, array in outputs.items()}, decisions

    for y in labels_for(loss, rng, n_samples, n_outputs):
        y = y.astype(dtype) if y.dtype.kind == "f" else y  # the same numbers for both
        expected, decided = computed(host_reference(), "float64", y)
        found, decisions = computed(dev, dtype, y)
        if loss.has_classes:
            np.testing.assert_array_equal(decisions, decided)
        else:  # numbers, which may be rounded
            assert_close(decisions, decided, dtype, "decisions")
        for key, array in found.items():
            assert_close(array, expected[key], dtype, key)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("shape", [(6, 7), (7, 2, 3)])
@pytest.mark.parametrize("augmentation", one_of_each(nn.Augmentation), ids=repr)
def test_an_augmentation(dev, augmentation, shape, dtype):
    """With the same draws: those of the seed, the place in the list and the step."""
    X = np.random.default_rng(7).standard_normal((30, 42)).astype(dtype)

    def changed(device, dtype):
        with device.activate():
            given = device.asarray(X, dtype)
            step = device.asarray(np.array([3]))
            batch = Batch.of(device, len(X), given.dtype, seed=5, step=step)
            out = device.xp.empty_like(given)
            augmentation.apply(device.ops, given, batch, 2, shape, out)
            return device.to_host(out)

    found = changed(dev, dtype)
    assert_close(found, changed(host_reference(), "float64"), dtype)
    assert np.any(found != X)
