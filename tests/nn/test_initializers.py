"""First values: moments, bounds, and the course notebooks' numbers."""

from __future__ import annotations

import numpy as np
import pytest

from xpnet import nn
from xpnet.nn.base import Initializer
from xpnet.random import weight_stream

FAN_IN, FAN_OUT = 300, 200
VARIANCE = {
    "xavier_normal": 2 / (FAN_IN + FAN_OUT),
    "xavier_uniform": 2 / (FAN_IN + FAN_OUT),
    "he_normal": 2 / FAN_IN,
    "he_uniform": 2 / FAN_IN,
    "lecun_normal": 1 / FAN_IN,
    "lecun_uniform": 1 / FAN_IN,
    "normal": 0.01**2,
    "uniform": 0.05**2 / 3,
    "zeros": 0.0,
}


@pytest.mark.parametrize("rng", ["numpy", "numpy-legacy"])
@pytest.mark.parametrize("name", VARIANCE)
def test_moments(name, rng):
    draw = Initializer.resolve(name).draw(weight_stream(1, rng), (FAN_IN, FAN_OUT))
    n, variance = draw.size, VARIANCE[name]
    assert draw.shape == (FAN_IN, FAN_OUT)
    # five standard errors of the mean, and of the variance of a normal sample
    assert abs(draw.mean()) <= 5 * np.sqrt(variance / n)
    assert abs(draw.var() - variance) <= 5 * variance * np.sqrt(2 / n)
    kurtosis = (draw**4).mean() / max(draw.var() ** 2, 1e-300)
    if "normal" in name:
        assert abs(kurtosis - 3) < 0.15
    elif variance:
        assert abs(draw).max() <= np.sqrt(3 * variance)
        assert abs(kurtosis - 1.8) < 0.1


def test_scale_and_limit_are_used():
    def std(initializer):
        return initializer.draw(weight_stream(0), (100, 100)).std()

    assert std(nn.Normal(0.5)) == pytest.approx(0.5, rel=0.05)
    assert std(nn.Uniform(2.0)) == pytest.approx(2 / np.sqrt(3), rel=0.05)
    assert np.all(nn.Ones().draw(weight_stream(0), (3,)) == 1)


def test_legacy_weights_are_the_notebooks():
    """A notebook draws randn(fan_out, fan_in) layer by layer, and no biases."""
    state = np.random.RandomState(3)
    W1, W2 = state.randn(25, 7) * 0.01, state.randn(1, 25) / np.sqrt(25)
    network = nn.Network(
        [nn.Dense(25, "tanh", init="normal"), nn.Dense(1, init="lecun_normal")],
        7,
        device="cpu",
        dtype="float64",
        seed=3,
        rng="numpy-legacy",
    )
    np.testing.assert_array_equal(network.named_parameters()["layers.0.W"], W1.T)
    np.testing.assert_allclose(network.named_parameters()["layers.1.W"], W2.T, rtol=1e-15)
    assert not network.named_parameters()["layers.0.b"].any()


def test_fans_need_a_matrix():
    with pytest.raises(ValueError, match=r"'he_normal' is for weight matrices .* got shape \(3,\)"):
        nn.HeNormal().draw(weight_stream(0), (3,))


def test_a_draw_of_another_shape_is_refused():
    class Wrong(nn.Initializer):
        def draw(self, stream, shape):
            del stream, shape
            return np.zeros((2, 2))

    with pytest.raises(ValueError, match=r"must draw shape \(4, 3\), got \(2, 2\)"):
        nn.Network([nn.Dense(3, init=Wrong())], 4, device="cpu")
