"""Diagnosis: its numbers against others' arithmetic, theory, and what each ailment looks like."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

import xpnet
from xpnet import diagnose, nn


def batch(n_features, n=200, seed=0):
    return np.random.default_rng(seed).standard_normal((n, n_features))


def softmax(Z):
    E = np.exp(Z - Z.max(axis=1, keepdims=True))
    return E / E.sum(axis=1, keepdims=True)


def saturated(layer: nn.LayerDiagnosis) -> float:
    """Give the share, which must be there."""
    assert layer.saturated is not None
    return layer.saturated


def host(network):
    """Copy a network's arrays to the host."""
    buffers = (network.parameters, network.gradients, network.statistics)
    return [network.device.to_host(buffer).copy() for buffer in buffers]


@pytest.mark.parametrize("with_loss", [False, True])
def test_numbers_are_those_of_plain_numpy(dev, with_loss):
    layers = [nn.Dense(6, "tanh", init=nn.Normal(2.0)), nn.Dense(5, "relu", bias_init="normal")]
    network = nn.Network([*layers, nn.Dense(3)], 4, device=dev, dtype="float64", seed=2)
    W1, b1, W2, b2, W3, b3 = (dev.to_host(p) for p in network.named_parameters().values())
    X, y = batch(4, 30), np.arange(30) % 3
    if with_loss:
        found = diagnose(network, X, y, loss="softmax_cross_entropy", saturated_below=0.2)
    else:
        found = diagnose(network, X, saturated_below=0.2, seed=5)

    A1 = np.tanh(X @ W1 + b1)
    Z2 = A1 @ W2 + b2
    A2 = np.maximum(Z2, 0)
    Z3 = A2 @ W3 + b3
    dZ3 = np.random.default_rng(5).standard_normal((30, 3))
    if with_loss:
        dZ3 = (softmax(Z3) - np.eye(3)[y]) / 30
    dA2 = dZ3 @ W3.T
    dA1 = (dA2 * (Z2 > 0)) @ W2.T
    dX = (dA1 * (1 - A1**2)) @ W1.T
    slopes = (None, 1 - A1**2, (Z2 > 0).astype(float), None)
    everything = zip(
        (found.input, *found.layers), (X, A1, A2, Z3), (dX, dA1, dA2, dZ3), slopes, strict=True
    )
    for layer, A, dA, slope in everything:
        numbers = (layer.mean, layer.variance, layer.mean_square)
        np.testing.assert_allclose(numbers, (A.mean(), A.var(), (A**2).mean()), rtol=1e-10)
        gradient = (layer.gradient_mean, layer.gradient_variance)
        np.testing.assert_allclose(gradient, (dA.mean(), dA.var()), rtol=1e-8, atol=1e-15)
        if slope is None:
            assert (layer.saturated, layer.dead) == (None, None)
        else:
            assert layer.saturated == pytest.approx((slope < 0.2).mean(), abs=1e-12)
            assert layer.dead == pytest.approx((slope == 0).all(axis=0).mean(), abs=1e-12)
    assert 0 < saturated(found.layers[0]) < 1
    labels = ["input", "0 dense 6 tanh", "1 dense 5 relu", "2 dense 3"]
    assert [layer.label for layer in (found.input, *found.layers)] == labels
    assert (found.n_samples, found.saturated_below) == (30, 0.2)


def test_small_tanh_networks_keep_to_glorots_equations(dev):
    """Var A = fan_in Var W E X^2 forward and Var dX = fan_out Var W Var dA backward."""
    widths, gain = (300, 200, 250, 300), 0.3
    layers = [nn.Dense(width, "tanh", init=nn.XavierNormal(gain)) for width in widths[1:]]
    found = diagnose(nn.Network(layers, widths[0], device=dev, seed=1), 0.3 * batch(300, 400))
    records = (found.input, *found.layers)
    for before, after, n_in, n_out in zip(
        records[:-1], records[1:], widths[:-1], widths[1:], strict=True
    ):
        v = gain**2 * 2 / (n_in + n_out)
        assert after.variance == pytest.approx(n_in * v * before.mean_square, rel=0.1)
        assert before.gradient_variance == pytest.approx(
            n_out * v * after.gradient_variance, rel=0.1
        )


def test_he_keeps_the_second_moment_through_relu(dev):
    layers = [nn.Dense(400, "relu", init="he_normal") for _ in range(6)]
    found = diagnose(nn.Network(layers, 400, device=dev, seed=3), batch(400, 300))
    for layer in found.layers:
        # a ReLU's output has half the second moment of its input
        assert layer.mean_square == pytest.approx(1, rel=0.3)
        assert layer.saturated == pytest.approx(0.5, abs=0.05)
        assert layer.dead == pytest.approx(0, abs=0.15)


def test_weights_of_0_show(dev):
    layers = [nn.Dense(5, name, init="zeros") for name in ("tanh", "relu")]
    network = nn.Network([*layers, nn.Dense(3)], 4, device=dev)
    tanh, relu, last = diagnose(network, batch(4)).layers
    assert (tanh.variance, relu.variance, last.variance) == (0, 0, 0)
    assert (tanh.saturated, tanh.dead) == (0, 0)
    assert (relu.saturated, relu.dead) == (1, 1)
    assert tanh.gradient_variance == 0
    assert relu.gradient_variance > 0


def test_relus_far_below_0_are_dead(dev):
    layers = [nn.Dense(8, "relu", bias_init=nn.Constant(-100)), nn.Dense(2)]
    found = diagnose(nn.Network(layers, 4, device=dev), batch(4))
    assert (found.layers[0].dead, found.layers[0].saturated) == (1.0, 1.0)
    assert found.input.gradient_variance == 0


def test_a_unit_that_is_on_once_lives(dev):
    network = nn.Network([nn.ReLU()], 3, device=dev)
    (found,) = diagnose(network, [[-1, -2, 3], [-1, 1, 2], [0, -1, 5]]).layers
    assert found.dead == pytest.approx(1 / 3)
    assert found.saturated == pytest.approx(5 / 9)
    assert found.label == "0 relu 3"


def test_large_weights_saturate_tanh(dev):
    layers = [nn.Dense(50, "tanh", init=nn.Normal(std)) for std in (0.01, 30.0)]
    small, large = diagnose(nn.Network(layers, 20, device=dev), batch(20)).layers
    assert small.saturated == 0
    assert saturated(large) > 0.5
    (huge,) = diagnose(
        nn.Network([nn.Dense(9, "tanh", init=nn.Normal(1e6))], 20, device=dev), batch(20)
    ).layers
    assert saturated(huge) > 0.99


@pytest.mark.parametrize(
    ("activation", "largest"),
    [
        *((nn.Sigmoid(), 0.25), (nn.Tanh(), 1), (nn.LeakyReLU(3.0), 3), (nn.ELU(5.0), 5)),
        *((nn.GELUTanh(), 1.1289), (nn.Softplus(), 1), (nn.Softsign(), 1)),
    ],
    ids=repr,
)
def test_saturation_is_relative_to_the_largest_derivative(dev, activation, largest):
    X = np.linspace(-6, 6, 997)[:, None]
    activation = activation.clone()
    network = nn.Network([activation], 1, device=dev, dtype="float64")
    (found,) = diagnose(network, X, saturated_below=0.1).layers
    with dev.activate():
        Z = dev.asarray(X)
        slope = np.abs(dev.to_host(activation.derivative(Z, activation.function(Z))))
    assert found.saturated == pytest.approx((slope < 0.1 * largest).mean(), abs=2e-3)


def test_the_limit_is_used(dev):
    network = nn.Network([nn.Tanh()], 5, device=dev)
    shares = [
        saturated(diagnose(network, batch(5), saturated_below=limit).layers[0])
        for limit in (0.01, 0.1, 0.5, 0.9)
    ]
    assert shares == sorted(set(shares))


def test_the_network_is_left_as_it_was(dev):
    class Counting(nn.Layer):
        count: Any

        def build(self, n_in):
            self.add_parameter("count", 1, "zeros")
            return n_in

        def forward(self, X, cache):
            del cache
            self.count += 1  # which no layer should
            return X * 1

        def backward(self, dA, cache):
            del cache
            return dA

    layers = [nn.Dense(5, "relu"), nn.BatchNorm(), Counting(), nn.Dropout(0.4), nn.Dense(3)]
    network = nn.Network(layers, 4, device=dev)
    network.gradients.fill(7)
    X = batch(4).astype(np.float32)
    before, kept = host(network), X.copy()
    found = diagnose(network, X, np.arange(200) % 3, loss="softmax_cross_entropy")
    for old, new in zip(before, host(network), strict=True):
        np.testing.assert_array_equal(new, old)
    np.testing.assert_array_equal(X, kept)
    assert found.layers[1].mean == pytest.approx(0, abs=1e-5)  # over the batch, as in training
    again = diagnose(network, X, np.arange(200) % 3, loss="softmax_cross_entropy")
    assert again == found


def test_the_network_is_left_as_it_was_after_an_error(dev):
    class Failing(nn.Layer):
        def forward(self, X, cache):
            del cache
            return X

        def backward(self, dA, cache):
            del dA, cache
            raise RuntimeError("no way back")

    network = nn.Network([nn.BatchNorm(), Failing()], 4, device=dev)
    before = host(network)
    with pytest.raises(RuntimeError, match="no way back"):
        diagnose(network, batch(4))
    for old, new in zip(before, host(network), strict=True):
        np.testing.assert_array_equal(new, old)


def test_the_seed_is_of_the_upstream_gradient_and_of_dropout(dev):
    network = nn.Network([nn.Dropout(), nn.Dense(3)], 4, device=dev, seed=1)
    one, two = (diagnose(network, batch(4), seed=seed).layers for seed in (1, 2))
    assert one[0].variance != two[0].variance
    assert one[1].gradient_variance != two[1].gradient_variance
    assert one[1].gradient_variance == pytest.approx(1, abs=0.3)


class Halving(nn.Layer):
    name = "test-halving"

    def forward(self, X, cache):
        del cache
        return X / 2

    def backward(self, dA, cache):
        del cache
        return dA / 2


class HardTanh(nn.Activation):
    name = "test-hard-tanh"

    def function(self, Z):
        return self.xp.clip(Z, -1, 1)

    def derivative(self, Z, A):
        del A
        return self.xp.abs(Z) < 1  # a mask


class Offset(nn.Activation):
    """Gives its passes alone."""

    name = "test-offset"

    def forward(self, X, cache):
        del cache
        return X + 1

    def backward(self, dA, cache):
        del cache
        return dA


class Noisy(nn.Dense):
    name = "test-noisy"

    def forward(self, X, cache):
        return super().forward(X, cache) * 1.5


def test_layers_of_ones_own(dev):
    layers = [
        Halving(),
        HardTanh(),
        nn.Dense(6, HardTanh(), bias=False),
        Offset(),
        Noisy(2, "relu"),
    ]
    network = nn.Network(layers, 5, device=dev, dtype="float64")
    X = batch(5)
    half, clipped, dense, offset, noisy = diagnose(network, X).layers
    assert half.variance == pytest.approx(X.var() / 4)
    assert (half.saturated, half.dead) == (None, None)
    assert clipped.saturated == pytest.approx((np.abs(X) >= 2).mean())
    assert 0 <= saturated(dense) <= 1
    assert offset.mean == pytest.approx(dense.mean + 1)
    assert offset.gradient_mean == pytest.approx(dense.gradient_mean)
    assert (offset.saturated, noisy.saturated) == (None, None)  # what Z is nobody knows
    labels = ["0 test-halving 5", "1 test-hard-tanh 5", "2 dense 6 test-hard-tanh"]
    assert [half.label, clipped.label, dense.label] == labels
    assert (offset.label, noisy.label) == ("3 test-offset 6", "4 test-noisy 2")


def test_a_layer_without_input_gradient_is_refused(dev):
    class Closed(nn.Layer):
        def forward(self, X, cache):
            del cache
            return X * 1

        def backward(self, dA, cache):
            del dA, cache

    with pytest.raises(TypeError, match=r"Closed\.backward returned None"):
        diagnose(nn.Network([Closed()], 3, device=dev), batch(3))


def test_the_table_and_the_dictionary(dev):
    layers = [nn.Dense(6, "tanh"), nn.Dense(5, "relu", init="zeros"), nn.Dense(2)]
    found = diagnose(nn.Network(layers, 4, device=dev), batch(4), saturated_below=0.125)
    title, head, *rows = str(found).splitlines()
    assert title == "signals in a batch of 200 samples"
    table, meanings = rows[:4], rows[4:]
    assert len({len(line) for line in (head, *table)}) == 1
    assert table[2].startswith("1 dense 5 relu")
    assert table[2].endswith("100.0%  100.0%")
    assert table[3].split()[-2:] == ["-", "-"]
    assert f"{found.layers[0].variance:.3g}" in table[1]
    for line in meanings:
        name, _, meaning = line.strip().partition(": ")
        assert name in head
        assert meaning
    assert "below 0.125 times" in str(found)
    values = found.to_dict()
    assert json.loads(json.dumps(values, allow_nan=False)) == values
    assert values["layers"][1]["dead"] == 1.0
    assert values["input"]["mean_square"] == found.input.mean_square


def test_what_overflows_is_shown(dev):
    layers = [nn.Dense(5, "relu", init=nn.Normal(1e30)), nn.Dense(3, init=nn.Normal(1e30))]
    found = diagnose(nn.Network(layers, 4, device=dev), batch(4))
    assert not math.isfinite(found.layers[1].variance)
    values = found.to_dict()["layers"][1]
    assert values["variance"] is None
    json.dumps(values, allow_nan=False)


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        ({"X": np.zeros((2, 3))}, ValueError, r"X must have shape \(n_samples, 4\), got \(2, 3\)"),
        ({"X": np.zeros((0, 4))}, ValueError, "X must hold at least one sample and be finite"),
        ({"X": [[0, 1, 2, np.nan]]}, ValueError, "X must hold at least one sample and be finite"),
        ({"y": [0] * 200}, ValueError, "y was given without a loss"),
        ({"loss": "softmax_cross_entropy"}, ValueError, "a loss needs labels"),
        (
            {"y": [0, 1], "loss": "softmax_cross_entropy"},
            ValueError,
            "X and y must have the same length, got 200 and 2",
        ),
        ({"saturated_below": 0}, ValueError, "saturated_below must be a positive"),
        ({"saturated_below": 1.0}, ValueError, r"saturated_below must lie in \(0, 1\), got 1.0"),
        ({"seed": -1}, ValueError, r"seed must lie in \[0, 2"),
        ({"network": nn.Dense(3)}, TypeError, r"network must be a Network, got Dense\("),
    ],
)
def test_wrong_arguments(dev, arguments, error, said):
    network = nn.Network([nn.Dense(3)], 4, device=dev)
    with pytest.raises(error, match=said):
        diagnose(**{"network": network, "X": batch(4), **arguments})


def test_it_is_at_the_top_too():
    assert xpnet.diagnose is nn.diagnose
