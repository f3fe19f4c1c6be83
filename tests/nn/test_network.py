"""The network: flat buffers, prediction, copies, configuration."""

from __future__ import annotations

import copy
import json
import pickle
import threading
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xpnet import nn


def make(dev, **options):
    layers = [nn.Dense(5, "relu"), nn.Dense(7, nn.ELU(0.5), init="he_uniform"), nn.Dense(3)]
    return nn.Network(layers, 4, device=dev, **options)


def test_parameters_lie_in_one_buffer_weights_first(dev):
    network = make(dev)
    names = ["layers.0.W", "layers.1.W", "layers.2.W", "layers.0.b", "layers.1.b", "layers.2.b"]
    for buffer, views in (
        (network.parameters, network.named_parameters()),
        (network.gradients, network.named_gradients()),
    ):
        with dev.activate():
            buffer[...] = dev.xp.arange(buffer.size)
        starts = {name: int(dev.to_host(views[name]).reshape(-1)[0]) for name in names}
        assert sorted(starts, key=lambda name: starts[name]) == names
        assert all(start % 16 == 0 for start in starts.values())
        assert starts["layers.2.W"] + 7 * 3 <= network.n_decayed <= starts["layers.0.b"]
    assert network.n_parameters == 4 * 5 + 5 + 5 * 7 + 7 + 7 * 3 + 3


def test_forward_is_what_the_equations_say(dev):
    network = make(dev, dtype="float64", seed=5)
    parameters = {name: dev.to_host(v) for name, v in network.named_parameters().items()}
    X = np.random.default_rng(0).standard_normal((6, 4))
    A = np.maximum(X @ parameters["layers.0.W"] + parameters["layers.0.b"], 0)
    Z = A @ parameters["layers.1.W"] + parameters["layers.1.b"]
    A = np.where(Z > 0, Z, 0.5 * np.expm1(np.minimum(Z, 0)))
    Z = A @ parameters["layers.2.W"] + parameters["layers.2.b"]
    np.testing.assert_allclose(network.predict(X), Z, rtol=1e-13, atol=1e-15)


@given(n=st.integers(0, 40), batch_size=st.integers(1, 45))
def test_prediction_does_not_depend_on_the_batch_size(dev, n, batch_size):
    network = make(dev, dtype="float64")
    X = np.random.default_rng(n).standard_normal((n, 4))
    found = network.predict(X, batch_size=batch_size)
    assert found.shape == (n, 3)
    np.testing.assert_allclose(found, network.predict(X), rtol=1e-12, atol=1e-14)


def test_prediction_touches_no_training_buffer(dev):
    network = make(dev, dtype="float64")
    rng = np.random.default_rng(1)
    gradients = []
    for between in (False, True):
        with dev.activate():
            X = dev.asarray(np.random.default_rng(2).standard_normal((5, 4)))
            caches = network.allocate(5, training=True)
            A = network.forward(X, caches)
            if between:
                network.predict(rng.standard_normal((5, 4)))
            network.backward(dev.xp.ones_like(A), caches)
        gradients.append(dev.to_host(network.gradients).copy())
    np.testing.assert_array_equal(*gradients)


def test_prediction_from_several_threads(dev):
    network = make(dev, dtype="float64")
    X = np.random.default_rng(3).standard_normal((4, 2000, 4))
    expected = [network.predict(x) for x in X]
    found: dict[int, list[np.ndarray]] = {i: [] for i in range(4)}

    def work(i):
        for _ in range(20):
            found[i].append(network.predict(X[i], batch_size=100))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i in range(4):
        assert len(found[i]) == 20
        for Z in found[i]:
            np.testing.assert_allclose(Z, expected[i], rtol=1e-12, atol=1e-14)


def test_prediction_converts_no_more_than_a_batch():
    network = make("cpu")
    seen = []
    whole = network.device.asarray

    def watch(array, dtype=None, *, name="array"):
        seen.append(array.shape)
        return whole(array, dtype, name=name)

    network.device.asarray = watch
    network.predict(np.zeros((50, 4)), batch_size=20)
    assert seen == [(20, 4), (20, 4), (10, 4)]


@pytest.mark.host
def test_prediction_holds_a_batch_and_the_result_in_memory(tmp_path):
    X = np.lib.format.open_memmap(tmp_path / "X.npy", "w+", np.uint8, (30_000, 784))
    network = nn.Network([nn.Dense(64, "relu"), nn.Dense(10)], 784, device="cpu")
    network.predict(X[:2000])
    tracemalloc.start()
    try:
        found = network.predict(X, batch_size=1000, divide_by=255)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    batch = 1000 * (784 + 64 + 10) * 4
    assert found.shape == (30_000, 10)
    assert found.nbytes + batch / 2 < peak < found.nbytes + 2.5 * batch


def test_memory_mapped_input(dev, tmp_path):
    network = make(dev)
    X = np.random.default_rng(4).standard_normal((50, 4)).astype(np.float32)
    np.save(tmp_path / "X.npy", X)
    mapped = np.load(tmp_path / "X.npy", mmap_mode="r")
    np.testing.assert_array_equal(
        network.predict(mapped, batch_size=7), network.predict(X, batch_size=7)
    )


def test_same_seed_same_parameters(dev):
    first, second, other = make(dev, seed=1), make(dev, seed=1), make(dev, seed=2)
    np.testing.assert_array_equal(dev.to_host(first.parameters), dev.to_host(second.parameters))
    assert np.any(dev.to_host(first.parameters) != dev.to_host(other.parameters))


def test_a_seed_that_is_drawn_is_kept(dev):
    first = make(dev, seed=None)
    again = make(dev, seed=first.seed)
    np.testing.assert_array_equal(dev.to_host(first.parameters), dev.to_host(again.parameters))
    assert make(dev, seed=None).seed != first.seed


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda n: pickle.loads(pickle.dumps(n))])
def test_duplicates_are_whole_and_independent(dev, duplicate):
    network = make(dev, seed=7)
    with dev.activate():
        network.named_parameters()["layers.0.b"][...] = 3
    twin = duplicate(network)
    X = np.random.default_rng(5).standard_normal((6, 4))
    np.testing.assert_array_equal(twin.predict(X), network.predict(X))
    with dev.activate():
        twin.parameters.fill(0)  # the twin's layers are views of the twin's buffer
    assert np.all(twin.predict(X) == 0)
    assert np.any(network.predict(X) != 0)
    assert twin.get_config() == network.get_config()


def test_copy_to_another_dtype(dev):
    network = make(dev, seed=7)
    twin = network.copy(dtype="float64")
    assert (twin.dtype, network.dtype) == (np.float64, np.float32)
    np.testing.assert_array_equal(dev.to_host(twin.parameters), dev.to_host(network.parameters))


def test_configuration_rebuilds_the_network(dev):
    network = make(dev, seed=8)
    config = network.get_config()
    assert config["layers"][1] == {
        "type": "dense",
        "units": 7,
        "activation": {"type": "elu", "alpha": 0.5},
        "init": "he_uniform",
        "bias": True,
        "bias_init": "zeros",
        "max_norm": None,
    }
    again = nn.Network(**config, device=dev)
    np.testing.assert_array_equal(dev.to_host(again.parameters), dev.to_host(network.parameters))


def test_repr_says_what_it_is(dev):
    text = repr(make(dev))
    assert "Dense(units=5, activation='relu', init='auto', bias=True, bias_init='zeros'" in text
    assert f"device='{dev.name}'" in text


def test_he_or_xavier_by_activation():
    assert nn.Dense(3, "relu")._init.name == "he_normal"
    assert nn.Dense(3, "tanh")._init.name == "xavier_normal"
    assert nn.Dense(3, "relu", init="xavier_uniform")._init.name == "xavier_uniform"


def test_one_activation_object_may_serve_many_layers(dev):
    f = nn.LeakyReLU(0.2)
    network = nn.Network([nn.Dense(3, f), nn.Dense(3, f)], 2, device=dev)
    assert network.predict(np.ones((1, 2))).shape == (1, 3)


def test_a_layer_belongs_to_one_network(dev):
    layer = nn.Dense(3)
    nn.Network([layer], 2, device=dev)
    with pytest.raises(ValueError, match="already belongs to a network"):
        nn.Network([layer], 2, device=dev)
    with pytest.raises(RuntimeError, match="is not part of a network yet"):
        _ = nn.Dense(3).ops


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"layers": []}, "at least one layer"),
        ({"dtype": None}, "dtype must be 'float32' or 'float64', got None"),
        ({"dtype": np.zeros(3)}, "dtype must be 'float32' or 'float64'"),
        ({"values": {}}, "values must have the shapes"),
        ({"values": {"layers.0.W": np.zeros((2, 3)), "layers.0.b": [0]}}, "must have the shapes"),
        ({"n_features": 0}, "n_features must be a positive integer, got 0"),
        ({"n_features": True}, "n_features must be a positive integer"),
        ({"dtype": "float16"}, "dtype must be 'float32' or 'float64', got 'float16'"),
        ({"dtype": int}, "dtype must be 'float32' or 'float64'"),
        ({"seed": -1}, "seed must lie in"),
        ({"seed": 1.5}, "seed must be an integer, got 1.5"),
        ({"rng": "mersenne"}, "rng must be one of 'numpy', 'numpy-legacy', got 'mersenne'"),
        ({"seed": 2**40, "rng": "numpy-legacy"}, "seed must lie in"),
        (
            {"layers": ["dens"]},
            r"unknown layer 'dens'; did you mean 'dense'\? Valid layers: .*dense",
        ),
        ({"layers": [{"type": "dense"}]}, "layer 'dense': missing a required argument: 'units'"),
        ({"layers": [{"type": "dense", "unit": 3}]}, "layer 'dense': "),
        ({"device": "gpu"}, "device must be"),
    ],
)
def test_wrong_arguments(arguments, said):
    with pytest.raises(ValueError, match=said):
        nn.Network(**{"layers": [nn.Dense(3)], "n_features": 2, "device": "cpu", **arguments})


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"units": 0}, "units must be a positive integer, got 0"),
        ({"units": 2.0}, "units must be a positive integer"),
        ({"bias": 1}, "bias must be true or false"),
        (
            {"activation": "rely"},
            r"unknown activation 'rely'; did you mean 'relu'\? Valid activations: .*elu, gelu",
        ),
        ({"activation": "dense"}, "unknown activation 'dense'"),
        ({"activation": "rleu"}, r"unknown activation 'rleu'; did you mean 'relu'\?"),
        ({"activation": "ReLU"}, r"unknown activation 'ReLU'; did you mean 'relu'\?"),
        ({"activation": "xyz"}, "unknown activation 'xyz'; valid activations: .*relu, sigmoid"),
        ({"activation": {"type": "elu", "alpha": -1}}, "alpha must be a positive finite number"),
        ({"activation": {"type": "leaky_relu", "slope": "x"}}, "slope must be a non-negative"),
        ({"init": "he"}, "unknown initializer 'he'; did you mean 'he_normal'"),
        ({"init": {"type": "normal", "std": 0}}, "std must be a positive finite number, got 0"),
    ],
)
def test_wrong_dense_arguments(arguments, said):
    with pytest.raises(ValueError, match=said):
        nn.Dense(**{"units": 3, **arguments})


@pytest.mark.parametrize("layers", [3, None, "relu", nn.Dense(3), {"type": "dense"}])
def test_layers_that_are_no_list_are_refused(layers):
    with pytest.raises(TypeError, match="layers must be a list of layers, got"):
        nn.Network(layers, 2, device="cpu")


def test_first_values(dev):
    values = {"layers.0.W": [[1, 2], [3, 4]], "layers.0.b": np.array([5.0, 6.0])}
    network = nn.Network([nn.Dense(2)], 2, device=dev, values=values)
    np.testing.assert_array_equal(network.predict([[1, 1]]), [[9, 12]])


def test_numpy_integers_are_integers(dev):
    three: Any = np.int64(3)
    four: Any = np.int32(4)
    network = nn.Network([nn.Dense(three)], four, device=dev)
    assert network.predict(np.zeros((5, 4)), batch_size=three).shape == (5, 3)
    json.dumps(network.get_config())


@pytest.mark.parametrize(
    "X",
    [
        [["a"] * 4],
        [[1, 2, 3, 4], [1]],
        {"a": 1},
        "abc",
        [[10**400] * 4],
        np.ma.zeros((2, 4)),
    ],
)
def test_what_is_no_array_of_numbers_is_refused(dev, X):
    with pytest.raises(TypeError, match=r"^X does not convert to an array of float32: "):
        make(dev).predict(X)


@pytest.mark.parametrize("spec", [3, None, {"units": 3}, {"type": ["a"]}])
def test_a_layer_of_another_type_is_refused(spec):
    with pytest.raises(TypeError, match="layer must be a name, an instance of Layer or a dict"):
        nn.Network([spec], 2, device="cpu")


@pytest.mark.parametrize("shape", [(3,), (3, 5), (3, 2, 2)])
def test_wrong_input_shape(dev, shape):
    with pytest.raises(ValueError, match=r"X must have shape \(n_samples, 4\), got"):
        make(dev).predict(np.zeros(shape))


def test_wrong_batch_size(dev):
    with pytest.raises(ValueError, match="batch_size must be a positive integer, got 0"):
        make(dev).predict(np.zeros((1, 4)), batch_size=0)
