"""First values: moments, bounds, and the course notebooks' numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.registered import one_of_each, variants
from xpnet import nn
from xpnet.nn.interfaces import Initializer
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


WITH_GAIN = [init.name for init in one_of_each(nn.Initializer) if hasattr(init, "gain")]
ACTIVATIONS = [
    a for made in one_of_each(nn.Activation) for a in (made, *variants(made)) if a.gain is not None
]


@pytest.mark.parametrize("rng", ["numpy", "numpy-legacy"])
@pytest.mark.parametrize("initializer", one_of_each(nn.Initializer), ids=repr)
def test_a_draw(initializer, rng):
    """It has the shape and the dtype that it must have, and follows from the stream."""
    first, same, other = (
        initializer.draw(weight_stream(seed, rng), (FAN_IN, FAN_OUT)) for seed in (1, 1, 2)
    )
    assert first.shape == (FAN_IN, FAN_OUT)
    assert first.dtype == np.float64
    assert np.isfinite(first).all()
    np.testing.assert_array_equal(first, same)
    assert np.any(first != other) == (first.std() > 0)


# Constants


@pytest.mark.parametrize("value", [-2.5, 0, 0.1, np.float32(0.5), 1e300])
def test_a_constant_is_everywhere(value):
    found = nn.Constant(value).draw(weight_stream(0), (3, 2))
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found, np.full((3, 2), float(value)))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, True, "1", None, 10**400])
def test_a_constant_must_be_a_finite_number(value):
    with pytest.raises(ValueError, match=r"value must be a finite number, got"):
        nn.Constant(value)


# Orthogonal matrices


@pytest.mark.parametrize("rng", ["numpy", "numpy-legacy"])
@given(fan_in=st.integers(1, 40), fan_out=st.integers(1, 40), gain=st.sampled_from([1.0, 0.3, 2.0]))
def test_orthogonal(rng, fan_in, fan_out, gain):
    W = nn.Orthogonal(gain).draw(weight_stream(2, rng), (fan_in, fan_out)) / gain
    assert W.shape == (fan_in, fan_out)
    gram = W @ W.T if fan_in < fan_out else W.T @ W
    np.testing.assert_allclose(gram, np.eye(min(fan_in, fan_out)), atol=1e-12)


@pytest.mark.parametrize("shape", [(30, 20), (20, 30), (1, 9), (9, 1), (1, 1)])
def test_orthogonal_is_pytorchs_of_the_same_draws(shape, monkeypatch):
    """PyTorch draws feature-major: given the draws of the legacy stream, it gives the transpose."""
    draws = torch.from_numpy(np.random.RandomState(5).standard_normal(shape[::-1]))
    monkeypatch.setattr(torch.Tensor, "normal_", lambda self, *_, **__: self.copy_(draws))
    peer = torch.nn.init.orthogonal_(torch.empty(shape[::-1], dtype=torch.float64), gain=1.5)
    W = nn.Orthogonal(1.5).draw(weight_stream(5, "numpy-legacy"), shape)
    np.testing.assert_allclose(W, peer.numpy().T, atol=1e-12)


@pytest.mark.parametrize("rng", ["numpy", "numpy-legacy"])
def test_orthogonal_draws_are_uniform(rng):
    """Under Haar's measure an element has mean 0 and variance 1/n, and so has the trace / sqrt(n).

    Without the choice of signs the diagonal of Q, as LAPACK gives it, is mostly negative.
    """
    n, count = 4, 4000
    stream = weight_stream(6, rng)
    draws = np.stack([nn.Orthogonal().draw(stream, (n, n)) for _ in range(count)])
    assert np.abs(draws.mean(axis=0)).max() < 5 / math.sqrt(n * count)
    np.testing.assert_allclose((draws**2).mean(axis=0), 1 / n, atol=5 * 0.2 / math.sqrt(count))
    traces = np.trace(draws, axis1=1, axis2=2)
    assert abs(traces.mean()) < 5 / math.sqrt(count)
    assert traces.var() == pytest.approx(1, abs=0.15)
    assert np.linalg.det(draws).mean() == pytest.approx(0, abs=5 / math.sqrt(count))


# Against PyTorch


@pytest.mark.parametrize("gain", [1.0, 1.7])
@pytest.mark.parametrize("rng", ["numpy", "numpy-legacy"])
@pytest.mark.parametrize("name", ["xavier_normal", "xavier_uniform", "he_normal", "he_uniform"])
def test_distribution_is_pytorchs(name, rng, gain):
    ours = Initializer.resolve({"type": name, "gain": gain})
    W = ours.draw(weight_stream(3, rng), (FAN_IN, FAN_OUT))
    torch.manual_seed(4)
    peer = torch.empty(FAN_OUT, FAN_IN, dtype=torch.float64)
    if name.startswith("xavier"):
        getattr(torch.nn.init, f"{name}_")(peer, gain=gain)
    else:
        peer = getattr(torch.nn.init, f"kaiming_{name[3:]}_")(peer, nonlinearity="relu") * gain
    # five standard errors of the difference of two variances, of normal samples
    assert abs(W.var() / peer.numpy().var() - 1) < 5 * 2 / math.sqrt(W.size)
    assert W.max() == pytest.approx(peer.numpy().max(), rel=0.3 if "normal" in name else 0.01)


# Gains


@given(
    name=st.sampled_from(WITH_GAIN),
    rng=st.sampled_from(["numpy", "numpy-legacy"]),
    gain=st.floats(1e-3, 1e3),
    shape=st.tuples(st.integers(1, 12), st.integers(1, 12)),
)
def test_a_gain_multiplies_what_is_drawn(name, rng, gain, shape):
    plain, scaled = (
        Initializer.resolve(spec).draw(weight_stream(7, rng), shape)
        for spec in (name, {"type": name, "gain": gain})
    )
    np.testing.assert_allclose(scaled, gain * plain, rtol=1e-14)


@pytest.mark.parametrize("rng", ["numpy", "numpy-legacy"])
def test_without_a_gain_not_a_bit_changes(rng):
    draw, shape = weight_stream(8, rng).normal((7, 5)), (7, 5)
    found = nn.HeNormal().draw(weight_stream(8, rng), shape)
    np.testing.assert_array_equal(found, draw * math.sqrt(2 / 7))
    found = nn.XavierUniform().draw(weight_stream(8, rng), shape)
    np.testing.assert_array_equal(found, weight_stream(8, rng).uniform(shape) * math.sqrt(3 / 6))


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=repr)
def test_the_word_takes_the_gain_of_the_layers_activation(activation):
    for name in WITH_GAIN:
        by_word = nn.Dense(6, activation, init={"type": name, "gain": "activation"})
        by_number = nn.Dense(6, activation, init={"type": name, "gain": activation.gain})
        networks = [nn.Network([d], 4, device="cpu", seed=1) for d in (by_word, by_number)]
        np.testing.assert_array_equal(networks[0].parameters, networks[1].parameters)
        assert by_word.get_config()["init"] == {"type": name, "gain": "activation"}
        assert by_word.clone().get_config() == by_word.get_config()


def second_moment(activation):
    """Integrate ``f(z)^2`` against the standard normal density, from whole number to whole number.

    That is where activations have their kinks.
    """
    network = nn.Network([activation.clone()], 1, device="cpu", dtype="float64")
    nodes, weights = np.polynomial.legendre.leggauss(20)
    z = (np.arange(-40, 40)[:, None] + (nodes + 1) / 2).ravel()
    f = network.predict(z[:, None])[:, 0]
    density = np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
    return np.sum(np.tile(weights / 2, 80) * f**2 * density)


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=repr)
def test_gains(activation):
    by_moment = 1 / math.sqrt(second_moment(activation))
    if isinstance(activation, nn.Sigmoid):
        assert activation.gain == torch.nn.init.calculate_gain("sigmoid")
        assert by_moment == pytest.approx(1.846, abs=5e-4)  # as the docstring says
    elif isinstance(activation, nn.Tanh):
        assert activation.gain == torch.nn.init.calculate_gain("tanh")
        assert by_moment == pytest.approx(1.593, abs=5e-4)
    else:
        assert activation.gain == pytest.approx(by_moment, rel=1e-12)


def test_the_gain_of_a_steep_leaky_relu():
    activation = nn.LeakyReLU(2.0)
    assert activation.gain == pytest.approx(1 / math.sqrt(second_moment(activation)), rel=1e-12)


def test_gains_that_pytorch_states():
    calculate = torch.nn.init.calculate_gain
    assert nn.Identity().gain == calculate("linear")
    assert nn.ReLU().gain == calculate("relu")
    for slope in (0.0, 0.01, 0.5, 3.0):
        assert nn.LeakyReLU(slope).gain == pytest.approx(calculate("leaky_relu", slope), rel=1e-15)


def test_he_with_the_gain_of_relu_counts_it_twice():
    layer = nn.Dense(300, "relu", init=nn.HeNormal("activation"))
    W = nn.Network([layer], 200, device="cpu").named_parameters()["layers.0.W"]
    assert W.var() == pytest.approx(4 / 200, rel=5 * math.sqrt(2 / W.size))


@pytest.mark.parametrize("name", WITH_GAIN)
@pytest.mark.parametrize("gain", [0, -1.0, np.nan, np.inf, True, "relu", None, [1.0]])
def test_a_gain_is_a_positive_number_or_the_word(name, gain):
    with pytest.raises(ValueError, match=r"gain must be a positive (finite )?number.*, got"):
        Initializer.resolve({"type": name, "gain": gain})


def test_the_word_needs_an_activation():
    class Scale(nn.Layer):
        def build(self, n_in):
            self.add_parameter("S", (n_in, n_in), {"type": "orthogonal", "gain": "activation"})
            return n_in

    with pytest.raises(ValueError, match=r"'orthogonal' has gain=\"activation\", but there is no"):
        nn.Network([Scale()], 3, device="cpu")

    class Cube(nn.Activation):
        def function(self, Z):
            return Z**3

        def derivative(self, Z, A):
            del A
            return 3 * Z**2

    nn.Dense(2, Cube(), init=nn.LeCunNormal(1.5))
    with pytest.raises(ValueError, match=r"Cube\(\) has no gain: .*'lecun_normal' a number"):
        nn.Dense(2, Cube(), init=nn.LeCunNormal("activation"))
    Cube.gain = 1 / math.sqrt(15)  # E Z^6 = 15
    nn.Network([nn.Dense(2, Cube(), init=nn.LeCunNormal("activation"))], 3, device="cpu")


def test_an_initializer_outside_may_look_at_the_activation():
    class ByName(nn.Initializer):
        def __init__(self, value=0.0):
            self.value = value

        def for_activation(self, activation):
            return ByName(float(len(activation.name)))

        def draw(self, stream, shape):
            del stream
            return np.full(shape, self.value)

    network = nn.Network([nn.Dense(2, "tanh", init=ByName())], 3, device="cpu")
    assert (network.named_parameters()["layers.0.W"] == 4).all()


# Biases


@pytest.mark.parametrize("rng", ["numpy", "numpy-legacy"])
def test_biases_are_drawn_after_the_weights_of_their_layer(rng):
    layers = [nn.Dense(4, "relu", bias_init="normal"), nn.Dense(3, bias_init=nn.Uniform(0.2))]
    network = nn.Network(layers, 5, device="cpu", dtype="float64", seed=9, rng=rng)
    stream = weight_stream(9, rng)
    expected = {
        "layers.0.W": nn.HeNormal().draw(stream, (5, 4)),
        "layers.0.b": nn.Normal().draw(stream, (4,)),
        "layers.1.W": nn.XavierNormal().draw(stream, (4, 3)),
        "layers.1.b": nn.Uniform(0.2).draw(stream, (3,)),
    }
    found = network.named_parameters()
    assert set(found) == set(expected)
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values)
    again = nn.Network(**network.get_config(), device="cpu")
    np.testing.assert_array_equal(again.parameters, network.parameters)


def test_biases_that_cannot_be():
    for default in ("zeros", nn.Zeros(), {"type": "zeros"}):
        nn.Dense(2, bias=False, bias_init=default)
    with pytest.raises(ValueError, match=r"bias_init must be left out with bias=False, got 'ones'"):
        nn.Dense(2, bias=False, bias_init="ones")
    with pytest.raises(ValueError, match=r"unknown initializer 'auto'"):
        nn.Dense(2, bias_init="auto")
    for init in ("xavier_normal", nn.HeNormal("activation"), "orthogonal"):
        with pytest.raises(ValueError, match=r"is for weight matrices .* got shape \(2,\)"):
            nn.Network([nn.Dense(2, bias_init=init)], 3, device="cpu")
