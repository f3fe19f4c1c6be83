"""Layers and activations that a user defines in plain ``xp`` take part in everything."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from tests import devices
from xpnet import gradient_check, nn, training

MODULE = '''
from xpnet import nn


class Swish(nn.Activation):
    """A = Z sigmoid(beta Z), with dA/dZ = beta A + sigmoid(beta Z) (1 - beta A)."""

    def __init__(self, beta=1.0):
        self.beta = beta

    def function(self, Z):
        return Z / (1 + self.xp.exp(-self.beta * Z))

    def derivative(self, Z, A):
        S = 1 / (1 + self.xp.exp(-self.beta * Z))
        return self.beta * A + S * (1 - self.beta * A)


class Scale(nn.Layer):
    """A_ij = X_ij s_j, hence ds_j = sum_i dA_ij X_ij and dX_ij = dA_ij s_j."""

    def build(self, n_in):
        self.add_parameter("s", (n_in,), "ones", decay=False)
        return n_in

    def forward(self, X, cache):
        cache.X = X
        return X * self.s

    def backward(self, dA, cache):
        self.ds[...] = (dA * cache.X).sum(axis=-2)
        return dA * self.s
'''
namespace: dict[str, Any] = {"__name__": "my_layers"}
exec(MODULE, namespace)  # the file that a user would import
Swish, Scale = namespace["Swish"], namespace["Scale"]


def make_network(dev, **options):
    layers = [Scale(), nn.Dense(8, Swish(1.5)), nn.Dense(6, "Swish"), Scale(), Swish(), nn.Dense(3)]
    return nn.Network(layers, 4, device=dev, **options)


@pytest.mark.parametrize("layer", [Swish(), Swish(0.5), Scale()])
def test_layer_gradients(dev, layer):
    result = gradient_check(layer, device=dev)
    assert result.passed, str(result)


@pytest.mark.heavy
def test_network_gradients(dev):
    y = np.arange(7) % 3
    result = gradient_check(
        make_network(dev, seed=1), y=y, loss="softmax_cross_entropy", batch_size=7
    )
    assert result.passed, str(result)
    assert {"layers.0.s", "layers.3.s"} < set(result.errors)


@pytest.mark.heavy
def test_training(dev):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((300, 4))
    y = np.argmax(X[:, :3] + 0.5 * X[:, 1:], axis=1)
    network = make_network(dev)
    history = training.fit(
        network,
        X,
        y,
        loss="softmax_cross_entropy",
        optimizer=nn.Adam(0.01),
        epochs=40,
        batch_size=32,
    )
    assert history.cost[-1][1] < 0.5 * history.cost[0][1]
    assert training.evaluate(network, "softmax_cross_entropy", X, y)[1] > 0.9


def test_saving_and_loading_in_another_process(dev, tmp_path):
    (tmp_path / "my_layers.py").write_text(MODULE)
    network = make_network(dev, seed=3)
    training.save_network(network, tmp_path / "net.safetensors")
    X = np.random.default_rng(1).standard_normal((5, 4)).astype(np.float32)
    np.save(tmp_path / "X.npy", X)
    script = (
        "import numpy as np; from xpnet import training\n{importing}"
        "net = training.load_network('net.safetensors')\n"
        "np.save('Z.npy', net.predict(np.load('X.npy')))\n"
    )
    environment = devices.environment(XPNET_DEVICE=dev.name)

    def run(importing):
        return subprocess.run(
            [sys.executable, "-c", script.format(importing=importing)],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )

    done = run("import my_layers\n")
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(np.load(tmp_path / "Z.npy"), network.predict(X))
    unknown = run("")
    assert unknown.returncode != 0
    assert "unknown layer 'Scale'; valid layers" in unknown.stderr
    assert "(import your own first)" in unknown.stderr


def test_a_name_of_ours_cannot_be_taken():
    with pytest.raises(TypeError, match=r"name 'relu' is taken by xpnet\.nn\.activations\.ReLU"):

        class ReLU(nn.Activation):
            name = "relu"


def test_defining_a_class_again_replaces_it():
    def define(value):
        class Again(nn.Activation):
            marker = value

        return Again

    define(1)
    second = define(2)
    assert type(nn.Activation.resolve("Again")) is second


def test_what_is_missing_is_said(dev):
    class Empty(nn.Layer):
        pass

    with pytest.raises(NotImplementedError, match=r"Empty must define forward\(X, cache\)"):
        nn.Network([Empty()], 2, device=dev)


def test_an_activation_with_parameters_stands_alone():
    class Learned(nn.Activation):
        def build(self, n_in):
            self.add_parameter("slope", (n_in,), "ones")
            return n_in

    with pytest.raises(ValueError, match="has parameters: add it to the network"):
        nn.Network([nn.Dense(2, Learned())], 2, device="cpu")


def test_a_wrong_number_of_outputs_is_refused():
    class Wrong(nn.Layer):
        def build(self, n_in):
            del n_in
            return

    with pytest.raises(ValueError, match=r"Wrong\.build's number of outputs must be a positive"):
        nn.Network([Wrong()], 2, device="cpu")


@pytest.mark.parametrize(
    "forward",
    [
        lambda layer, X: X[:, :1],
        lambda layer, X: X.astype(np.float64),
        lambda layer, X: np.sqrt(2 / np.pi) * X,
    ],
)
def test_an_output_of_another_shape_or_dtype_is_refused(forward):
    class Wrong(nn.Layer):
        def forward(self, X, cache):
            del cache
            return forward(self, X)

    with pytest.raises(ValueError, match=r"layer 0, Wrong\(\), must return float32"):
        nn.Network([Wrong()], 3, device="cpu")


class WideMask(nn.Activation, abstract=True):
    """A leaky rectifier whose mask, and so whose gradient, is float64 whatever the network is."""

    def forward(self, X, cache):
        cache.mask = self.xp.where(X > 0, 1.0, 0.1)
        return (X * cache.mask).astype(X.dtype)

    def backward(self, dA, cache):
        return dA * cache.mask


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("place", ["in a dense layer", "after one"])
def test_a_gradient_of_another_dtype_is_brought_back(dev, place, bias):
    def parameters(activation):
        inside = place == "in a dense layer"
        first = nn.Dense(4, activation if inside else "tanh", bias=bias)
        layers = [first, *(() if inside else (activation,)), nn.Dense(2)]
        network = nn.Network(layers, 3, seed=0, device=dev)
        X, y = np.linspace(-1, 1, 60).reshape(20, 3), np.arange(20) % 2
        training.fit(
            network, X, y, loss="softmax_cross_entropy", optimizer="adam", epochs=3, batch_size=7
        )
        return dev.to_host(network.parameters)

    expected = parameters(nn.LeakyReLU(0.1))
    assert expected.dtype == np.float32
    weights = parameters(WideMask())
    assert weights.shape == expected.shape
    if place == "after one":  # inside, the initializers differ
        np.testing.assert_allclose(weights, expected, rtol=1e-4, atol=1e-5)


def test_a_gradient_given_in_another_dtype(dev):
    network = nn.Network([nn.Dense(3, "relu"), nn.Dense(2)], 4, seed=0, device=dev)
    with dev.activate():
        caches = network.allocate(5, training=True)
        network.forward(dev.xp.ones((5, 4), dtype=np.float32), caches)
        network.backward(dev.xp.ones((5, 2)), caches)
    assert np.isfinite(dev.to_host(network.gradients)).all()


def test_a_middle_layer_that_returns_no_gradient_is_named(dev):
    class Closed(nn.Activation):
        def function(self, Z):
            return Z * 1

        def backward(self, dA, cache):
            del dA, cache

    network = nn.Network([nn.Dense(2), Closed()], 2, device=dev)
    with pytest.raises(TypeError, match=r"Closed\.backward returned None although"):
        training.fit(
            network, [[0, 1]], [0], loss=nn.SoftmaxCrossEntropy(), optimizer="adam", epochs=1
        )


def test_a_subclass_of_a_built_in_activation(dev):
    class Renamed(nn.LeakyReLU):
        pass

    class Doubled(nn.ReLU):
        def function(self, Z):
            return 2 * self.xp.maximum(Z, 0)

        def derivative(self, Z, A):
            del A
            return 2.0 * (Z > 0)

    X = np.array([[-1.0, 2.0]])
    for layer, expected in ((Renamed(0.5), [[-0.5, 2.0]]), (Doubled(), [[0.0, 4.0]])):
        assert gradient_check(layer, device=dev).passed
        network = nn.Network([layer], 2, device=dev, dtype="float64")
        np.testing.assert_array_equal(network.predict(X), expected)
    dense = nn.Dense(3, Doubled())
    assert gradient_check(dense, device=dev).passed


@pytest.mark.parametrize("name", ["identity", "relu", "elu", "gelu_tanh", "softplus", "tanh"])
def test_function_and_derivative_of_a_built_in_activation(dev, name):
    layer = nn.Activation.resolve(name)
    nn.Network([layer], 3, device=dev, dtype="float64")
    with dev.activate():
        Z = dev.asarray(np.array([[-1.0, 0.5, 2.0]]))
        A = layer.function(Z)
        slope = (layer.function(Z + 1e-6) - layer.function(Z - 1e-6)) / 2e-6
        found = dev.to_host(layer.derivative(Z, A))
    np.testing.assert_allclose(found, dev.to_host(slope), rtol=1e-8)


def test_buffers_of_an_activation_inside_a_dense_layer(dev):
    class Masked(nn.Activation):
        gradient_from = "output"

        def allocate(self, cache, shape, dtype):
            cache.mask = self.xp.empty(shape, dtype=dtype)

        def forward(self, X, cache):
            cache.mask[...] = X > 0
            return X * cache.mask

        def backward(self, dA, cache):
            return dA * cache.mask

    assert gradient_check(nn.Dense(3, Masked()), device=dev).passed


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["forward"], "parameter 'forward' of Named needs another name"),
        (["xp"], "parameter 'xp' of Named needs"),
        (["two words"], "'two words' is not an identifier"),
        (["a", "a"], "parameter 'a' of Named needs"),
        (["a", "da"], "parameter 'da' of Named needs"),
        (["da", "a"], "parameter 'a' of Named needs another name: 'da' is not"),
    ],
)
def test_names_of_parameters(names, said):
    class Named(nn.Layer):
        def build(self, n_in):
            for name in names:
                self.add_parameter(name, (n_in,), "ones")
            return n_in

    with pytest.raises(ValueError, match=said):
        nn.Network([Named()], 2, device="cpu")


def test_shapes_of_parameters(dev):
    class Shaped(nn.Layer):
        def build(self, n_in):
            self.add_parameter("a", n_in, "ones")
            self.add_parameter("c", [2, 3], "ones")
            return n_in

        def forward(self, X, cache):
            del cache
            return X * self.a

    shapes = {
        k: v.shape for k, v in nn.Network([Shaped()], 4, device=dev).named_parameters().items()
    }
    assert shapes == {"layers.0.a": (4,), "layers.0.c": (2, 3)}


def test_a_layer_whose_build_failed_can_be_used_again(dev):
    class Particular(nn.Activation):
        def build(self, n_in):
            if n_in != 3:
                raise ArithmeticError(n_in)
            self.add_parameter("s", n_in, "ones")
            return n_in

        def function(self, Z):
            return Z * self.s

    layer = Particular()
    for wrong in (2, 4):
        with pytest.raises(ArithmeticError):
            nn.Network([layer], wrong, device=dev)
    assert nn.Network([layer], 3, device=dev).n_parameters == 3


def test_a_layer_that_failed_its_trial_can_be_used_again(dev):
    class Switch(nn.Layer):
        is_right = False

        def build(self, n_in):
            self.add_parameter("s", n_in, "ones")
            return n_in

        def forward(self, X, cache):
            del cache
            return X * self.s if self.is_right else None

    layer = Switch()
    with pytest.raises(ValueError, match=r"float32 \(2, 3\) for 2 samples, got None None"):
        nn.Network([layer], 3, device=dev)
    layer.is_right = True
    assert nn.Network([layer], 3, device=dev).n_parameters == 3


def test_a_subclass_that_gives_only_another_derivative(dev):
    class Straight(nn.ReLU):
        """A straight-through gradient: not the derivative of the function, on purpose."""

        def derivative(self, Z, A):
            del A
            return self.xp.ones_like(Z)

    assert not gradient_check(Straight(), [[-1.0, 2.0]], device=dev).passed


def test_layers_of_a_network_that_failed_can_be_used_again(dev):
    first, second = nn.Dense(3), nn.Dense(2, "relu")

    class Bad(nn.Initializer):
        def draw(self, stream, shape):
            raise ArithmeticError(stream, shape)

    with pytest.raises(ArithmeticError):
        nn.Network([first, second, nn.Dense(2, init=Bad())], 4, device=dev)
    assert nn.Network([first, second], 4, device=dev).n_parameters == 15 + 8


def test_an_argument_that_is_not_stored_is_named():
    class Unstored(nn.Activation):
        def __init__(self, beta=1.0):
            del beta

    class Open(nn.Activation):
        def __init__(self, **settings):
            del settings

    with pytest.raises(TypeError, match=r"must store its argument as self\.beta"):
        Unstored().clone()
    with pytest.raises(TypeError, match=r"must name every argument, got \*\*settings"):
        nn.Dense(3, Open())
