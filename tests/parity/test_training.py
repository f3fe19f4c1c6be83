"""Training on two devices: one step from one state, then twenty with dropout and minibatches."""

from __future__ import annotations

import numpy as np
import pytest

from tests.parity.comparison import assert_close, error, host_reference
from tests.registered import labels_for, one_of_each
from xpnet import nn
from xpnet.kernels import philox
from xpnet.random import Purpose, shuffle
from xpnet.training import fit


def samples(n=100, n_features=12, n_classes=4):
    rng = np.random.default_rng(6)
    y = rng.integers(0, n_classes, n)
    X = rng.standard_normal((n, n_features)) + y[:, None] * np.linspace(-1, 1, n_features)
    return X, y


# What is drawn.


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("shape", [(1,), (7, 13), (64, 257), (3, 5, 17)])
def test_a_dropout_mask_has_the_same_bits(dev, shape, dtype):
    def mask(device):
        with device.activate():
            ones = device.xp.ones(shape, dtype=dtype)
            steps = [device.asarray(np.array([step])) for step in (0, 1, 2**31)]
            drawn = [
                device.ops.dropout(ones, 0.3, 2**63 + 5, 2, step, Purpose.DROPOUT) for step in steps
            ]
            return np.stack([device.to_host(array) for array in drawn])

    found, expected = mask(dev), mask(host_reference())
    assert found.tobytes() == expected.tobytes()


@pytest.mark.parametrize("n", [1, 2, 1000, 4097])
def test_a_shuffle_has_the_same_bits(dev, n):
    for seed, epoch in ((0, 0), (2**64 - 1, 3)):
        with dev.activate():
            drawn = philox.permutation(dev.xp, n, seed, step=epoch, purpose=Purpose.SHUFFLE)
            found = dev.to_host(drawn)
        expected = shuffle(n, seed, epoch)
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)


# One step.

OPTIMIZERS = [
    *one_of_each(nn.Optimizer, learning_rate=0.1),
    *one_of_each(nn.Optimizer, learning_rate=0.1, weight_decay=0.2),
    nn.Momentum(0.1, averaged=True),
    nn.Momentum(0.1, averaged=True, weight_decay=0.2),
    nn.Nesterov(0.1, averaged=True),
    nn.Adam(0.01, epsilon_hat=True),
]


def one_step(device, optimizer, dtype, loss=None):
    """Take a step from a state that some steps have led to."""
    X, y = (array[:40] for array in samples())
    if loss is not None:
        y = labels_for(loss, np.random.default_rng(8), 40, 4)[0]
    layers = [nn.Dense(10, "tanh"), nn.Dense(9, "relu"), nn.Dense(4)]
    network = nn.Network(layers, 12, device=device, dtype=dtype, seed=2)
    loss, rng = loss or nn.SoftmaxCrossEntropy(), np.random.default_rng(7)
    with device.activate():
        state = optimizer.init_state(device, network.parameters)
        n = network.parameters.shape
        if "step" in state:
            state["step"][...] = 3
        for name in ("m", "velocity"):
            if name in state:
                state[name][...] = device.asarray(0.01 * rng.standard_normal(n), dtype)
        for name in ("v", "s"):
            if name in state:
                state[name][...] = device.asarray(0.001 * rng.random(n), dtype)
        labels = loss.labels(device, y, 4, dtype)
        data = device.asarray(X, dtype)
        step = nn.TrainingStep(network, loss, optimizer, state, data, labels, 16)
        loss_value = step(device.asarray(np.arange(5, 21)))
        arrays = {"loss": loss_value, "parameters": network.parameters, **state}
        arrays |= network.named_gradients()
        return {name: device.to_host(array).copy() for name, array in arrays.items()}


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=repr)
def test_one_step(dev, optimizer, dtype):
    expected = one_step(host_reference(), optimizer, "float64")
    for name, found in one_step(dev, optimizer, dtype).items():
        if found.dtype.kind == "i":
            np.testing.assert_array_equal(found, expected[name])
        else:
            assert_close(found, expected[name], dtype, name)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("loss", one_of_each(nn.Loss, label_smoothing=0.2), ids=repr)
def test_one_step_of_a_loss(dev, loss, dtype):
    expected = one_step(host_reference(), nn.Momentum(0.1), "float64", loss)
    for name, found in one_step(dev, nn.Momentum(0.1), dtype, loss).items():
        assert_close(found, expected[name], dtype, name)


# Twenty steps.


def twenty_steps(device, dtype):
    X, y = samples()
    layers = [nn.Dropout(0.1), nn.Dense(16, "relu"), nn.Dropout(0.3), nn.Dense(4)]
    network = nn.Network(layers, 12, device=device, dtype=dtype, seed=1)
    costs = []
    history = fit(
        network,
        X,
        y,
        loss="softmax_cross_entropy",
        optimizer=nn.Adam(0.01),
        epochs=5,
        batch_size=30,  # and a last batch of 10
        on_report=lambda report: costs.append(report.cost),
    )
    assert history.n_steps == 20
    return device.to_host(network.parameters), np.array(costs)


def test_twenty_steps_in_float64(dev):
    """With dropout and minibatches."""
    found, costs = twenty_steps(dev, "float64")
    expected, expected_costs = twenty_steps(host_reference(), "float64")
    assert error(found, expected) <= 1e-12
    assert error(costs, expected_costs) <= 1e-12
    assert costs[-1] < costs[0]


def test_twenty_steps_in_float32(dev):
    found, _ = twenty_steps(dev, "float32")
    expected, _ = twenty_steps(host_reference(), "float64")
    assert error(found, expected) <= 1e-4  # rounding grows from step to step


def test_the_same_bits_on_one_device(dev):
    for run in (twenty_steps, with_every_tool):
        first, second = (run(dev, "float32")[0] for _ in range(2))
        assert first.tobytes() == second.tobytes()


# All that improves a network at once.


def with_every_tool(device, dtype):
    X, y = samples()
    layers = [
        nn.Dropout(0.1),
        nn.Dense(16, bias=False, max_norm=1.2),
        nn.BatchNorm(),
        "relu",
        nn.Dropout(0.2),
        nn.Dense(12),
        nn.LayerNorm(),
        "tanh",
        nn.Dense(4),
    ]
    network = nn.Network(layers, 12, device=device, dtype=dtype, seed=1)
    history = fit(
        network,
        X,
        y,
        loss=nn.SoftmaxCrossEntropy(0.1),
        optimizer=nn.Nesterov(0.05, weight_decay=0.01),
        schedule=nn.CosineDecay(per="step", warmup=3),
        sample_weight=np.arange(100) % 4,
        class_weight="balanced",
        l1=1e-4,
        l2=1e-3,
        clip_value=0.1,
        clip_norm=0.3,
        average=0.7,
        epochs=5,
        batch_size=33,  # and a last batch of a single sample
        validation=(X, y),
    )
    found = np.concatenate([device.to_host(network.parameters), device.to_host(network.statistics)])
    return found, np.array([(r.cost, r.validation_cost) for r in history.reports])


def test_every_tool_in_float64(dev):
    found, costs = with_every_tool(dev, "float64")
    expected, expected_costs = with_every_tool(host_reference(), "float64")
    assert error(found, expected) <= 1e-11
    assert error(costs, expected_costs) <= 1e-11
    assert costs[-1, 1] < costs[0, 1]


def test_every_tool_in_float32(dev):
    found, _ = with_every_tool(dev, "float32")
    expected, _ = with_every_tool(host_reference(), "float64")
    assert error(found, expected) <= 1e-4
