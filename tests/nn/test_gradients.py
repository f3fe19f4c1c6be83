"""Every gradient against finite differences, to 1e-7."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.emulation import module as stand_in
from tests.registered import labels_for, losses_by_outputs, one_of_each, variants
from xpnet import gradient_check, nn
from xpnet.nn.interfaces import Activation

ACTIVATIONS = [activation.name for activation in one_of_each(nn.Activation)]
SHAPES = [(1, 1), (1, 4), (7, 3), (5, 13)]
# A gradient check is thousands of small losses, of which a GPU, and what stands in for one, do few
# in a second. The stand-in compares 8 elements of each array.
FEWER = 3 if os.environ.get("XPNET_DEVICE", "cpu").startswith("cuda") else 1
MOST = 8 if stand_in.is_installed() else 500


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    "activation", [b for a in one_of_each(nn.Activation) for b in (a, *variants(a))], ids=repr
)
def test_activation(dev, activation, shape):
    X = np.random.default_rng(0).standard_normal(shape) * 2
    result = gradient_check(activation, X, max_elements=MOST, device=dev)
    assert result.passed, str(result)
    assert list(result.errors) == ["X"]


@pytest.mark.parametrize("shape", [(7, 3), (5, 13)])
@pytest.mark.parametrize(
    "layer", [b for a in one_of_each(nn.Layer) for b in (a, *variants(a))], ids=repr
)
def test_layer(dev, layer, shape):
    X = np.random.default_rng(0).standard_normal(shape)
    result = gradient_check(layer, X, seed=3, max_elements=MOST, device=dev)
    assert result.passed, str(result)


@pytest.mark.heavy
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("bias", [True, False])
def test_dense(dev, name, shape, bias):
    batch, n_in = shape
    layer = nn.Dense(3, name, bias=bias)
    options = {"n_features": n_in, "batch_size": batch, "seed": 1, "max_elements": MOST}
    result = gradient_check(layer, **options, device=dev)
    assert result.passed, str(result)
    assert list(result.errors) == ["X", "layers.0.W"] + ["layers.0.b"] * bias


@pytest.mark.heavy
@pytest.mark.parametrize("batch", [1, 2, 9])
@pytest.mark.parametrize(("loss", "n_outputs"), losses_by_outputs(1, 3), ids=repr)
def test_loss(dev, loss, n_outputs, batch):
    rng = np.random.default_rng(6)  # away from the minimum, where there is little to compare
    network = nn.Network([nn.Dense(n_outputs)], 4, device=dev)
    X = rng.standard_normal((batch, 4))
    for y in labels_for(loss, rng, batch, n_outputs):
        result = gradient_check(network, X, y, loss=loss, max_elements=MOST)
        assert result.passed, str(result)


@pytest.mark.heavy
def test_deep_composition(dev):
    """All activations, as part of a Dense layer and as layers of their own, and the loss."""
    hidden: list[nn.Layer] = []
    for width, name in enumerate(ACTIVATIONS, start=5):
        hidden += [nn.Dense(width, name), Activation.resolve(name)]
    network = nn.Network([*hidden, nn.Dense(4)], 7, seed=4, device=dev)
    rng = np.random.default_rng(4)
    result = gradient_check(
        network,
        rng.standard_normal((5, 7)),
        rng.integers(0, 4, 5),
        loss="softmax_cross_entropy",
        max_elements=min(60 // FEWER, MOST),
    )
    assert result.passed, str(result)
    assert len(result.errors) == 1 + 2 * (len(ACTIVATIONS) + 1)


@pytest.mark.heavy
@settings(max_examples=24 // FEWER)
@given(data=st.data())
def test_random_networks(dev, data):
    widths = data.draw(st.lists(st.integers(1, 6), min_size=1, max_size=4), label="widths")
    names = [data.draw(st.sampled_from(ACTIVATIONS)) for _ in widths]
    n_features, batch = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 6))
    seed = data.draw(st.integers(0, 2**32 - 1), label="seed")
    network = nn.Network(
        [nn.Dense(width, name) for width, name in zip(widths, names, strict=True)],
        n_features,
        seed=seed,
        device=dev,
    )
    result = gradient_check(network, batch_size=batch, seed=seed, max_elements=MOST)
    # Units that are all off put the biases behind them on a kink: nothing to compare there.
    assume(not any(result.skipped.values()))
    assert result.passed, str(result)


# The tools for improving networks, each and together.

LOSSES = one_of_each(nn.Loss, label_smoothing=0.2)
TOOLS = [layer.get_config() for layer in one_of_each(nn.Layer)]


@pytest.mark.heavy
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("loss", LOSSES, ids=repr)
@pytest.mark.parametrize("layer", one_of_each(nn.Layer), ids=repr)
def test_tools(dev, layer, loss, weighted):
    rng = np.random.default_rng(8)
    network = nn.Network([nn.Dense(6, "tanh"), layer.clone(), nn.Dense(3)], 4, seed=5, device=dev)
    result = gradient_check(
        network,
        rng.standard_normal((9, 4)),
        labels_for(loss, rng, 9, 3)[0],
        loss=loss,
        sample_weight=rng.integers(0, 3, 9) if weighted else None,
        l1=0.01,
        l2=0.1,
        max_elements=MOST,
    )
    assert result.passed, str(result)


@pytest.mark.heavy
@settings(max_examples=12 // FEWER)
@given(data=st.data())
def test_random_compositions_of_tools(dev, data):
    """Activations, normalisation, dropout, penalties, smoothing and weights, as drawn."""
    draw = data.draw
    hidden: list[Any] = []
    if draw(st.booleans(), label="drops inputs"):
        hidden.append(nn.Dropout(0.2))
    for _ in range(draw(st.integers(1, 2), label="hidden layers")):
        hidden.append(nn.Dense(draw(st.integers(2, 6)), bias=draw(st.booleans())))
        hidden += draw(st.lists(st.sampled_from(TOOLS), max_size=2), label="before")
        hidden.append(draw(st.sampled_from(ACTIVATIONS)))
        hidden += draw(st.lists(st.sampled_from(TOOLS), max_size=1), label="behind")
    n_outputs, n = draw(st.integers(2, 4)), draw(st.integers(3, 9), label="samples")
    seed = draw(st.integers(0, 2**32 - 1), label="seed")
    loss = draw(st.sampled_from(LOSSES), label="loss")
    rng = np.random.default_rng(seed)
    network = nn.Network([*hidden, nn.Dense(n_outputs)], 5, seed=seed, device=dev, dtype="float64")
    with dev.activate():  # scales and biases at their first values put units on kinks
        noise = rng.standard_normal(network.parameters.shape)
        network.parameters[...] += dev.asarray(0.1 * noise)
    result = gradient_check(
        network,
        rng.standard_normal((n, 5)),
        labels_for(loss, rng, n, n_outputs)[0],
        loss=loss,
        sample_weight=rng.random(n) + 0.1 if draw(st.booleans(), label="weighted") else None,
        l1=draw(st.sampled_from([0.0, 0.01])),
        l2=draw(st.sampled_from([0.0, 0.3])),
        max_elements=8,
        seed=seed,
    )
    assume(not any(result.skipped.values()))
    assert result.passed, str(result)
