"""The gradient checker catches what is wrong, and names it."""

from __future__ import annotations

import numpy as np
import pytest

from xpnet import gradient_check, nn


class DoubledWeightGradient(nn.Dense):
    name = "test-doubled-dW"

    def backward(self, dA, cache):
        dX = super().backward(dA, cache)
        self.dW *= 2
        return dX


class WrongInputGradient(nn.Dense):
    name = "test-wrong-dX"

    def backward(self, dA, cache):
        dX = super().backward(dA, cache)
        if dX is not None:
            dX[..., 0] = -dX[..., 0]
        return dX


class BiasOverTheWrongAxis(nn.Dense):
    name = "test-wrong-axis"

    def backward(self, dA, cache):
        dZ = dA.copy()
        dX = super().backward(dA, cache)
        self.db[...] = dZ.sum(axis=-1)
        return dX


class ForgottenBias(nn.Dense):
    name = "test-forgotten-db"

    def backward(self, dA, cache):
        kept = self.db.copy()
        dX = super().backward(dA, cache)
        self.db[...] = kept
        return dX


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("wrong", "place", "name"),
    [
        (DoubledWeightGradient, 0, "layers.0.W"),
        (DoubledWeightGradient, 1, "layers.1.W"),
        (DoubledWeightGradient, 2, "layers.2.W"),
        (WrongInputGradient, 0, "X"),
        (BiasOverTheWrongAxis, 1, "layers.1.b"),
        (BiasOverTheWrongAxis, 2, "layers.2.b"),
        (ForgottenBias, 1, "layers.1.b"),
    ],
)
def test_a_wrong_gradient_is_named(dev, wrong, place, name):
    layers = [nn.Dense(5), nn.Dense(5), nn.Dense(5)]
    layers[place] = wrong(5)
    network = nn.Network(layers, 5, device=dev, seed=6)
    result = gradient_check(network, batch_size=5)  # as many samples as units: the shapes fit
    assert not result.passed
    assert result.worst == name
    assert [n for n, error in result.errors.items() if error >= 1e-7] == [name]
    assert f"FAILED, worst: {name}" in str(result)


def test_a_wrong_input_gradient_deep_inside_spoils_what_lies_before(dev):
    network = nn.Network([nn.Dense(5), WrongInputGradient(5)], 5, device=dev)
    result = gradient_check(network)
    assert {n for n, error in result.errors.items() if error >= 1e-7} == {
        "X",
        "layers.0.W",
        "layers.0.b",
    }


def test_a_small_error_is_caught(dev):
    class SlightlyOff(nn.Dense):
        def backward(self, dA, cache):
            dX = super().backward(dA, cache)
            self.dW[0, 0] *= 1 + 1e-5
            return dX

    assert not gradient_check(nn.Network([SlightlyOff(2)], 3, device=dev)).passed


def test_an_error_behind_the_loss_is_caught(dev):
    class Summed(nn.SoftmaxCrossEntropy):
        def forward(self, ops, logits, labels, losses, mean, dlogits=None, weights=None):
            super().forward(ops, logits, labels, losses, mean, dlogits, weights)
            if dlogits is not None:
                dlogits *= len(losses)  # the gradient of the sum, not of the mean

    network = nn.Network([nn.Dense(3)], 4, device=dev)
    result = gradient_check(network, y=np.arange(5) % 3, loss=Summed())
    assert not result.passed


def test_elements_on_a_kink_are_left_out_and_counted(dev):
    X = np.array([[0.0, 1.0, -1.0], [2.0, 0.0, 0.0]])
    result = gradient_check(nn.ReLU(), X, device=dev)
    assert result.passed
    assert (result.skipped["X"], result.checked["X"]) == (3, 3)
    assert "3 skipped" in str(result)


def test_a_kink_within_reach_is_dodged(dev):
    X = np.array([[5e-3, -7e-3, 3e-3, -2e-3, 5e-4, -1e-5]])
    result = gradient_check(nn.LeakyReLU(0.3), X, device=dev)
    assert result.passed, str(result)
    assert result.skipped["X"] == 0


def test_nothing_to_compare_is_no_pass(dev):
    assert not gradient_check(nn.ReLU(), np.zeros((2, 2)), device=dev).passed


def test_the_network_is_left_alone(dev):
    network = nn.Network([nn.Dense(3, "relu"), nn.Dense(1)], 4, device=dev)
    before = dev.to_host(network.parameters).copy()
    X = np.random.default_rng(0).standard_normal((5, 4))
    kept = X.copy()
    gradient_check(network, X)
    np.testing.assert_array_equal(dev.to_host(network.parameters), before)
    np.testing.assert_array_equal(X, kept)
    assert network.dtype == np.float32


def test_large_arrays_are_sampled(dev):
    network = nn.Network([nn.Dense(40, "tanh")], 30, device=dev)
    result = gradient_check(network, max_elements=50)
    assert result.passed
    assert result.checked == {"X": 50, "layers.0.W": 50, "layers.0.b": 40}


def test_a_network_without_any_gradient_passes(dev):
    network = nn.Network([nn.Dense(3, init="zeros"), nn.Dense(2, init="zeros")], 4, device=dev)
    result = gradient_check(network)
    assert result.errors["layers.0.W"] == 0


def test_a_layer_without_input_gradient_is_refused(dev):
    class Closed(nn.Layer):
        def forward(self, X, cache):
            cache.X = X
            return X * 1

        def backward(self, dA, cache):
            del dA, cache

    with pytest.raises(TypeError, match=r"Closed\.backward returned None"):
        gradient_check(Closed(), device=dev)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"y": [0, 1]}, "y was given without a loss"),
        ({"loss": "softmax_cross_entropy"}, "a loss needs labels"),
        ({"X": np.zeros(3)}, "X must have shape"),
        ({"X": np.zeros((0, 4))}, "at least one sample"),
        ({"X": np.full((2, 4), np.nan)}, "be finite"),
        ({"tolerance": 0}, "tolerance must be a positive"),
        ({"max_elements": -1}, "max_elements must be a positive integer, got -1"),
        ({"batch_size": 0}, "batch_size must be a positive integer"),
        ({"n_features": 3}, "n_features and device must be None"),
        ({"device": "cpu"}, "n_features and device must be None for a network"),
        ({"X": np.zeros((2, 9))}, r"X must have shape \(n_samples, 4\)"),
        ({"X": np.zeros((2, 4)), "y": [0], "loss": "softmax_cross_entropy"}, "the same length"),
    ],
)
def test_arguments_that_do_not_fit(dev, arguments, said):
    with pytest.raises(ValueError, match=said):
        gradient_check(nn.Network([nn.Dense(3)], 4, device=dev), **arguments)


def test_what_is_no_model_is_refused():
    with pytest.raises(TypeError, match="model must be a Network or a Layer, got 'relu'"):
        gradient_check("relu")  # type: ignore[arg-type]


@pytest.mark.heavy
@pytest.mark.parametrize("scale", [10, 100, 255, 1000])
def test_steep_functions_are_neither_passed_over_nor_refused(dev, scale):
    """A step that is small for inputs of unit size is large for raw pixels."""
    X = scale * np.random.default_rng(0).standard_normal((50, 4))
    if scale < 1000:  # beyond that rounding leaves no step to take, and the check says so
        right = gradient_check(nn.Network([nn.Dense(3, "tanh")], 4, device=dev), X)
        assert right.passed, str(right)
    network = nn.Network([DoubledWeightGradient(3, "tanh")], 4, device=dev)
    wrong = gradient_check(network, X)
    assert not wrong.passed
    assert wrong.worst == "layers.0.W"


def test_an_array_of_which_most_is_left_out_fails(dev):
    X = np.array([[0.0, 0.0, 0.0, 1.0]])
    assert not gradient_check(nn.LeakyReLU(1.0 / 3), np.zeros((1, 4)), device=dev).passed
    result = gradient_check(nn.LeakyReLU(3.0), X, device=dev)  # 3 of 4, and most of the norm
    assert result.skipped["X"] == 3
    assert not result.passed


def test_the_error_is_the_stated_formula():
    from xpnet.nn.gradient_check import _error

    a, n = np.array([3.0, 4.0]), np.array([3.0, 4.5])
    n_norm = np.linalg.norm(n)
    assert _error(a, n, whole=1.0) == pytest.approx(0.5 / (5 + n_norm))
    # a small array is measured against 1e-4 of the whole
    assert _error(1e-9 * a, 1e-9 * n, whole=10.0) == pytest.approx(0.5e-9 / 1e-3)
    assert _error(0 * a, 0 * n, whole=0.0) == 0


def test_a_gradient_that_shares_the_memory_of_the_input_gradient_is_caught(dev):
    class Aliased(nn.Layer):
        """A = X + s, whose dX is a view of the gradient of s: right until someone writes to it."""

        def build(self, n_in):
            self.add_parameter("s", (1, n_in), "ones")
            return n_in

        def forward(self, X, cache):
            del cache
            return X + self.s

        def backward(self, dA, cache):
            del cache
            self.ds[...] = dA
            return self.ds

    result = gradient_check(Aliased(), batch_size=1, device=dev)
    assert result.errors["layers.0.s"] == np.inf


def test_an_input_gradient_that_cannot_be_written_is_refused():
    class Broadcast(nn.Layer):
        def forward(self, X, cache):
            cache.shape = X.shape
            return X + X.mean(axis=1, keepdims=True)

        def backward(self, dA, cache):
            return np.broadcast_to(dA.sum(axis=1, keepdims=True), cache.shape)

    with pytest.raises(TypeError, match=r"Broadcast\.backward must return a writable array"):
        gradient_check(Broadcast(), device="cpu")


def test_nan_at_a_kink_fails(dev):
    class Magnitude(nn.Activation):
        def function(self, Z):
            return self.xp.abs(Z)

        def derivative(self, Z, A):
            return Z / A

    X = [[0.0, 1, 2, -3], [1, 2, 3, 4]]
    assert gradient_check(Magnitude(), X, device=dev).errors["X"] == np.inf


def test_a_row_that_is_never_written_fails_even_where_it_is_not_sampled(dev):
    class Incomplete(nn.Dense):
        def backward(self, dA, cache):
            kept = self.dW[-1:].copy()
            dX = super().backward(dA, cache)
            self.dW[-1:] = kept
            return dX

    result = gradient_check(Incomplete(50), n_features=200, max_elements=20, device=dev)
    assert result.errors["layers.0.W"] == np.inf


def test_a_gradient_that_is_added_up_fails(dev):
    class Added(nn.Dense):
        def backward(self, dA, cache):
            kept = self.dW.copy()
            dX = super().backward(dA, cache)
            self.dW += kept
            return dX

    assert not gradient_check(Added(2), device=dev).passed


@pytest.mark.parametrize("change", [lambda d: d.reshape(-1), lambda d: d[:1].copy()])
def test_an_input_gradient_of_another_shape_is_refused(dev, change):
    class Reshaped(nn.Dense):
        def backward(self, dA, cache):
            return change(super().backward(dA, cache))

    with pytest.raises(TypeError, match=r"Reshaped\.backward must return dX as float64 \(5, 4\)"):
        gradient_check(Reshaped(2), device=dev)


def test_two_numbers_of_features_that_differ_are_refused(dev):
    with pytest.raises(ValueError, match="X has 3 features, but n_features=7"):
        gradient_check(nn.Tanh(), np.ones((5, 3)), n_features=7, device=dev)


@pytest.mark.heavy
def test_right_gradients_come_out_far_under_the_tolerance(dev):
    """Pins the extrapolation: plain central differences reach about 1e-9 here."""
    network = nn.Network(
        [nn.Dense(5, "tanh"), nn.Dense(4, "softplus"), nn.Dense(3)], 4, seed=2, device=dev
    )
    errors = gradient_check(network, y=[0, 1, 2, 0, 1], loss="softmax_cross_entropy").errors
    assert max(errors.values()) < 1e-11, errors
