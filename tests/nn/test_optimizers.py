"""Update rules against transcriptions of the papers, and against PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from xpnet import nn


def run(dev, optimizer, gradients, dtype=np.float64):
    """Update parameters from 0 with the given gradients."""
    with dev.activate():
        params = dev.xp.zeros(gradients.shape[1], dtype=dtype)
        state = optimizer.init_state(dev, params)
        for g in gradients:
            optimizer.update(dev.ops, params, dev.asarray(g, dtype), state)
    return dev.to_host(params)


GRADIENTS = np.random.default_rng(0).standard_normal((30, 6)) * np.logspace(-6, 2, 6)


def test_gradient_descent(dev):
    found = run(dev, nn.GradientDescent(0.3), GRADIENTS)
    np.testing.assert_allclose(found, -0.3 * GRADIENTS.sum(axis=0), rtol=1e-12)


def test_adam_is_algorithm_1(dev):
    theta, m, v = np.zeros(6), np.zeros(6), np.zeros(6)
    for t, g in enumerate(GRADIENTS, start=1):
        m = 0.8 * m + (1 - 0.8) * g
        v = 0.95 * v + (1 - 0.95) * g**2
        m_hat, v_hat = m / (1 - 0.8**t), v / (1 - 0.95**t)
        theta = theta - 0.01 * m_hat / (np.sqrt(v_hat) + 1e-4)
    found = run(dev, nn.Adam(0.01, beta1=0.8, beta2=0.95, eps=1e-4), GRADIENTS)
    np.testing.assert_allclose(found, theta, rtol=1e-12)


def test_adam_in_the_epsilon_hat_form(dev):
    theta, m, v = np.zeros(6), np.zeros(6), np.zeros(6)
    for t, g in enumerate(GRADIENTS, start=1):
        m = 0.8 * m + (1 - 0.8) * g
        v = 0.95 * v + (1 - 0.95) * g**2
        rate = 0.01 * np.sqrt(1 - 0.95**t) / (1 - 0.8**t)
        theta = theta - rate * m / (np.sqrt(v) + 1e-4)
    settings: dict[str, Any] = {"beta1": 0.8, "beta2": 0.95, "eps": 1e-4}
    found = run(dev, nn.Adam(0.01, **settings, epsilon_hat=True), GRADIENTS)
    np.testing.assert_allclose(found, theta, rtol=1e-12)
    other = run(dev, nn.Adam(0.01, **settings), GRADIENTS)
    assert np.abs(other / theta - 1).max() > 1e-3  # the flag is read


def test_float32_stays_float32(dev):
    for optimizer in (nn.GradientDescent(0.3), nn.Adam(0.01)):
        found = run(dev, optimizer, GRADIENTS, np.float32)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, run(dev, optimizer, GRADIENTS), rtol=2e-5)


def test_the_learning_rate_is_read_from_the_state(dev):
    for optimizer in (nn.GradientDescent(0.3), nn.Adam(0.3)):
        with dev.activate():
            params = dev.xp.ones(3)
            state = optimizer.init_state(dev, params)
            state["learning_rate"].fill(0)
            optimizer.update(dev.ops, params, dev.xp.ones(3), state)
        np.testing.assert_array_equal(dev.to_host(params), 1)


def test_padding_stays_zero(dev):
    """A parameter whose gradient is 0 does not move, not even by nan."""
    for optimizer in (nn.GradientDescent(0.3), nn.Adam(0.3)):
        assert np.all(run(dev, optimizer, np.zeros((3, 4))) == 0)


def make(**settings):
    return nn.Optimizer.resolve({"type": "adam", **settings})


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: nn.GradientDescent(0), "learning_rate must be a positive finite number, got 0"),
        (lambda: nn.Adam(10**400), "learning_rate must be a positive finite number"),
        (lambda: nn.Adam(-1), "learning_rate must be a positive"),
        (lambda: nn.Adam(float("nan")), "learning_rate must be a positive"),
        (
            lambda: make(learning_rate="fast"),
            "learning_rate must be a positive number, got 'fast'",
        ),
        (lambda: nn.Adam(beta1=1.0), r"beta1 must lie in \[0, 1\), got 1.0"),
        (lambda: nn.Adam(beta2=-0.1), "beta2 must be a non-negative"),
        (lambda: nn.Adam(eps=0), "eps must be a positive"),
        (lambda: make(epsilon_hat=1), "epsilon_hat must be true or false, got 1"),
    ],
)
def test_wrong_settings(call, said):
    with pytest.raises(ValueError, match=said):
        call()


def test_settings_out_of_the_dtypes_range_are_refused(dev):
    params = dev.xp.zeros(1, dtype=np.float32)
    for optimizer, said in (
        (nn.Adam(eps=1e-60), "eps=1e-60 is 0 in float32"),
        (nn.Adam(1e-60), "learning_rate=1e-60 is 0 in float32"),
        (nn.GradientDescent(1e-60), "learning_rate=1e-60 is 0 in float32"),
        (nn.GradientDescent(1e60), r"learning_rate=1e\+60 is inf in float32"),
    ):
        with pytest.raises(ValueError, match=said), dev.activate():
            optimizer.init_state(dev, params)


def test_state_of_a_stack_has_a_leading_axis(dev):
    with dev.activate():
        state = nn.Adam().init_state(dev, dev.xp.zeros((3, 8)))
    assert {name: array.shape for name, array in state.items()} == {
        "learning_rate": (3, 1),
        "bias1": (3, 1),
        "bias2": (3, 1),
        "eps": (3, 1),
        "m": (3, 8),
        "v": (3, 8),
        "step": (3, 1),
    }


def test_float32_adam_uses_constants_from_float64(dev):
    """1 - beta2 is 0.001 to float32's precision; taken in float32 it would be 1e-5 off."""
    with dev.activate():
        params = dev.xp.zeros(1, dtype=np.float32)
        state = nn.Adam().init_state(dev, params)
        nn.Adam().update(dev.ops, params, dev.xp.ones(1, dtype=np.float32), state)
        m, v = (float(dev.to_host(state[name])[0]) for name in ("m", "v"))
    assert m == pytest.approx(0.1, rel=1e-7)
    assert v == pytest.approx(0.001, rel=1e-7)
