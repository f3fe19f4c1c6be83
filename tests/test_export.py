"""ONNX: what onnxruntime makes of exported networks, beside their own predictions."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from tests.conftest import ROOT
from tests.onnx_runs import DTYPES, close, network, run, samples, variable
from tests.registered import one_of_each, variants
from xpnet import nn
from xpnet.data import Preprocessing
from xpnet.export import onnx_model

host = pytest.mark.host

ACTIVATIONS = [
    *(activation for made in one_of_each(nn.Activation) for activation in (made, *variants(made))),
    *(nn.LeakyReLU(0.0), nn.LeakyReLU(2.5), nn.ELU(2.5)),
]


# Layers


@host
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", ACTIVATIONS, ids=repr)
@pytest.mark.parametrize("in_dense", [False, True], ids=["layer", "in Dense"])
def test_activations(activation, dtype, in_dense):
    values = np.concatenate([np.linspace(-30, 30, 601), np.logspace(-8, 3, 200), [0.0, -0.0, 1e3]])
    X = np.concatenate([values, -values]).reshape(-1, 1).astype(dtype)
    layer = nn.Dense(1, activation, init="ones") if in_dense else activation.clone()
    made = nn.Network([layer], 1, dtype=dtype, device="cpu")
    close(variable(made, X), made.predict(X))


@host
def test_digits_of_elu_near_0():
    X = np.logspace(-12, 0, 50)[:, None] * np.array([[-1.0]])
    made = nn.Network([nn.ELU(0.7)], 1, dtype="float64", device="cpu")
    np.testing.assert_allclose(variable(made, X), 0.7 * np.expm1(X), rtol=1e-14)


def followed(layer):
    """Give a stack of a layer and one more."""
    return lambda: [layer.clone(), nn.Dense(3)]


STACKS = {
    **{repr(layer): followed(layer) for layer in one_of_each(nn.Layer)},
    "dense": lambda: [nn.Dense(5, "tanh"), nn.Dense(3)],
    "no bias": lambda: [nn.Dense(5, "relu", bias=False), nn.Dense(3, bias=False)],
    "batch norm": lambda: [nn.Dense(5, bias=False), nn.BatchNorm(eps=1e-3), "relu", nn.Dense(3)],
    "layer norm": lambda: [nn.LayerNorm(eps=1e-3), nn.Dense(5), nn.LayerNorm(), nn.Dense(3)],
    "dropout": lambda: [nn.Dropout(0.5), nn.Dense(5, "elu"), nn.Dropout(0.9), nn.Dense(3)],
    "nothing": lambda: [nn.Dropout(0.5)],
    "deep": lambda: [*(nn.Dense(8, "gelu_tanh") for _ in range(6)), nn.Dense(3, max_norm=2)],
    "wide": lambda: [nn.Dense(3000, "relu"), nn.BatchNorm(), nn.Dense(3)],
}


@host
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("stack", STACKS)
def test_layers(stack, dtype):
    made = network(STACKS[stack](), dtype=dtype)
    for n in (1, 37):
        X = samples(n, dtype=dtype)
        close(variable(made, X), made.predict(X))
    found = variable(made, samples(0, dtype=dtype))
    assert found.shape == (0, made.n_outputs)


@host
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("stack", STACKS)
def test_extreme_inputs(stack, dtype):
    made = network(STACKS[stack](), dtype=dtype)
    X = np.sign(samples(20, dtype=dtype)) * np.asarray(1e3, dtype)
    expected = made.predict(X)
    size = np.abs(expected).max()
    found = variable(made, X)
    close(found / size, expected / size)


@host
@pytest.mark.parametrize("dtype", DTYPES)
def test_no_operation_that_older_runtimes_fail_at(dtype):
    """Gemm before an activation: see the comment in Dense's nodes."""
    exported = onnx_model(
        network([nn.Dense(5, "relu"), nn.Dense(3)], dtype=dtype), outputs="numbers"
    )
    found = [node.op_type for node in exported.graph.node]
    assert found == ["MatMul", "Add", "Relu", "MatMul", "Add", "Identity"]


@host
def test_batch_norm_of_features_far_from_0():
    made = network([nn.BatchNorm()], 4, "float32")
    made.layers[0].running_mean[...] = 1e4
    made.layers[0].running_variance[...] = 1e-2
    X = (1e4 + samples(50, 4)).astype("float32")
    close(variable(made, X), made.predict(X))


@host
def test_layer_norm_of_little_variance():
    """The eps of an attribute would be a float32."""
    made = network([nn.LayerNorm(eps=1e-5)], 4, "float64")
    X = 1e-4 * samples(50, 4)
    np.testing.assert_allclose(variable(made, X), made.predict(X), rtol=1e-12, atol=1e-13)


def test_networks_on_the_device(dev):
    layers = [nn.Dense(5, "tanh"), nn.BatchNorm(), nn.Dense(3)]
    made = network(layers, dtype="float32", dev=dev)
    X = samples(9, dtype="float32")
    close(variable(made, X), made.predict(X))
    assert onnx_model(made, outputs="numbers") == onnx_model(
        made.copy(device="cpu"), outputs="numbers"
    )


# Layers of the user's own


class Doubled(nn.Dense):
    name = "Export-doubled"

    def forward(self, X, cache):
        return 2 * super().forward(X, cache)


class Silent(nn.ReLU):
    name = "Export-silent"


class Cube(nn.Activation):
    name = "Export-cube"

    def function(self, Z):
        return Z**3

    def derivative(self, Z, A):
        del A
        return 3 * Z**2

    def onnx_nodes(self, graph, X):
        return graph.add("Pow", X, 3.0)


class Scale(nn.Layer):
    name = "Export-scale"

    def build(self, n_in):
        self.add_parameter("s", (n_in,), "ones")
        return n_in

    def forward(self, X, cache):
        del cache
        return X * self.s

    def onnx_nodes(self, graph, X):
        return graph.add("Mul", X, graph.constant(self.s, "s"))


class Nameless(Cube):
    name = "Export-nameless"

    def onnx_nodes(self, graph, X):
        graph.add("Neg", X)


@host
@pytest.mark.parametrize(
    ("layers", "what"),
    [
        (
            [nn.Dense(2), Doubled(3)],
            r"layer 1, Doubled\(units=3, .*, cannot be exported: Doubled must",
        ),
        ([Silent()], r"layer 0, Silent\(\), cannot be exported: Silent must"),
        (
            [nn.Dense(2), nn.Dense(3, "Export-silent")],
            r"activation of layers\.1, Silent\(\), cannot",
        ),
    ],
    ids=["layer", "activation", "in Dense"],
)
def test_layers_that_are_not_known(layers, what):
    layers = [layer.clone() for layer in layers]
    with pytest.raises(ValueError, match=what + r".* define onnx_nodes\(graph, X\)"):
        onnx_model(nn.Network(layers, 4, device="cpu"), outputs="numbers")


@pytest.mark.parametrize("dtype", DTYPES)
def test_layers_that_say_what_they_are(dev, dtype):
    made = network([nn.Dense(4, "Export-cube"), Scale(), Cube(), Scale()], dtype=dtype, dev=dev)
    X = samples(9, dtype=dtype)
    exported = onnx_model(made, outputs="numbers")
    close(variable(made, X), made.predict(X))
    names = {constant.name for constant in exported.graph.initializer}
    assert {"layers.0.W", "layers.0.b", "layers.1.s", "layers.3.s"} <= names


@host
def test_layers_that_return_no_name():
    made = nn.Network([Nameless()], 4, device="cpu")
    with pytest.raises(ValueError, match=r"Nameless\.onnx_nodes must return the name .*got None"):
        onnx_model(made, outputs="numbers")


# Outputs


LABELS = {
    "int": [7, -3, 2**40],
    "uint8": np.array([3, 1, 2], np.uint8),
    "str": ["cat", "élan", "犬"],
    "numpy str": np.array(["cat", "élan", "a longer one"]),
    "objects": np.array(["cat", "dog", ""], dtype=object),
    "int objects": np.array([5, 3, 4], dtype=object),
    "float": [0.1, -2.5, 1e300],
    "float32": np.array([0.1, 2, 3], np.float32),
    "default": None,
}


@host
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("labels", LABELS)
def test_classes(labels, dtype):
    classes = LABELS[labels]
    made = network([nn.Dense(5, "tanh"), nn.Dense(3)], dtype=dtype)
    exported = onnx_model(made, outputs="classes", classes=classes)
    known = np.array([0, 1, 2] if classes is None else classes)
    for n in (0, 1, 200):
        X = 5 * samples(n, dtype=dtype)
        label, P = run(exported, X, "label", "probabilities")
        expected = made.device.ops.softmax(made.predict(X))
        assert P.dtype == dtype
        close(P, expected)
        np.testing.assert_array_equal(label, known[expected.argmax(axis=1)])
    if known.dtype.kind in "ui":
        assert label.dtype == np.int64
    elif known.dtype.kind == "f":
        assert label.dtype == known.dtype
    assert len(set(label.tolist())) == 3


@host
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "classes", [None, [False, True], ["no", "yes"], [4, 9], [True, False]], ids=str
)
def test_two_classes_of_one_output(classes, dtype):
    made = network([nn.Dense(1)], dtype=dtype)
    exported = onnx_model(made, outputs="classes", classes=classes)
    for n in (0, 1, 200):
        X = 5 * samples(n, dtype=dtype)
        label, P = run(exported, X, "label", "probabilities")
        p = made.device.ops.sigmoid(made.predict(X))
        expected = np.concatenate([1 - p, p], axis=1)
        close(P, expected)
        known = np.array([0, 1] if classes is None else classes)
        np.testing.assert_array_equal(label, known[expected.argmax(axis=1)])
    assert label.dtype == (object if isinstance(known[0], str) else np.int64)
    assert 0 < P[:, 1].min() < 0.5 < P[:, 1].max() < 1


@host
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n_outputs", [1, 2, 3])
def test_of_equal_classes_the_first(n_outputs, dtype):
    made = nn.Network([nn.Dense(n_outputs, init="zeros")], 4, dtype=dtype, device="cpu")
    exported = onnx_model(made, outputs="classes", classes=["a", "b", "c"][: max(2, n_outputs)])
    label, P = run(exported, samples(3, 4, dtype), "label", "probabilities")
    assert label.tolist() == ["a"] * 3
    np.testing.assert_array_equal(P, P[::-1, ::-1])


@host
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n_outputs", [1, 3])
def test_extreme_logits(n_outputs, dtype):
    made = nn.Network([nn.Dense(n_outputs)], 4, dtype=dtype, device="cpu", seed=2)
    X = np.sign(samples(50, 4, dtype)) * np.asarray(1e3, dtype)
    Z = made.predict(X)
    assert np.abs(Z).max() > 500
    label, P = run(onnx_model(made, outputs="classes"), X, "label", "probabilities")
    if n_outputs == 1:
        p = made.device.ops.sigmoid(Z)
        expected = np.concatenate([1 - p, p], axis=1)
    else:
        expected = made.device.ops.softmax(Z)
    close(P, expected)
    np.testing.assert_array_equal(label, expected.argmax(axis=1))


@host
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n_outputs", [1, 4])
def test_independent_labels(n_outputs, dtype):
    made = network([nn.Dense(5, "tanh"), nn.Dense(n_outputs)], dtype=dtype)
    exported = onnx_model(made, outputs="labels")
    loss = nn.SigmoidCrossEntropy()
    for n, size in ((0, 1), (1, 1), (200, 5), (20, 1e3)):
        X = np.asarray(size, dtype) * samples(n, dtype=dtype)
        label, P = run(exported, X, "label", "probabilities")
        Z = made.predict(X)
        assert label.dtype == np.int64
        np.testing.assert_array_equal(label, loss.decide(made.device.ops, Z))
        close(P, made.device.ops.sigmoid(Z))
    assert set(label.ravel().tolist()) == {0, 1}


@host
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n_outputs", [1, 3])
def test_numbers_by_their_exponential(n_outputs, dtype):
    made = network([nn.Dense(5, "tanh"), nn.Dense(n_outputs)], dtype=dtype)
    X = samples(40, dtype=dtype)
    found = variable(made, X, link="exp")
    close(found, np.exp(made.predict(X)))


@host
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"outputs": "class"}, "outputs must be one of classes, labels, numbers, got 'class'"),
        ({"outputs": "numbers", "link": "softmax"}, "must be one of identity, exp for outputs"),
        (
            {"outputs": "labels", "link": "exp"},
            "link must be one of sigmoid for outputs='labels' and",
        ),
        ({"outputs": "classes", "link": "exp"}, "must be one of softmax, sigmoid for"),
        ({"outputs": "labels", "classes": [1, 2, 3]}, "classes need outputs='classes'"),
        ({"outputs": "classes", "classes": [1, 2]}, r"must be 3 different labels, got \[1, 2\]"),
        ({"outputs": "classes", "classes": [1, 2, 1]}, "must be 3 different labels"),
        ({"outputs": "classes", "classes": [[1], [2], [3]]}, "must be 3 different labels"),
        (
            {"outputs": "classes", "classes": [1, 2, 2**64]},
            "must be in the range of int64",
        ),
        (
            {"outputs": "classes", "classes": np.array([1, 2, 2**63], np.uint64)},
            "must be in the range of int64",
        ),
        ({"outputs": "classes", "classes": np.array([1, "a", 2], object)}, "integers, bools, str"),
        ({"outputs": "classes", "classes": [b"a", b"b", b"c"]}, "must be integers, bools, strings"),
        ({"outputs": "classes", "classes": ["a", "b", "\ud800"]}, "must be valid UTF-8 text, got"),
        ({"outputs": "classes", "targets": Preprocessing()}, "targets need outputs='numbers'"),
        ({"outputs": "numbers", "targets": Preprocessing()}, "must be a standardisation of 3"),
        (
            {
                "outputs": "numbers",
                "preprocessing": Preprocessing(1, "standardise", np.zeros(5), np.ones(5)),
            },
            "preprocessing must have 6 features, like the network, got 5",
        ),
    ],
)
def test_arguments_that_do_not_fit(arguments, message):
    with pytest.raises(ValueError, match=message):
        onnx_model(network([nn.Dense(3)]), **arguments)


@host
def test_one_output_has_no_softmax():
    with pytest.raises(ValueError, match=r"one of sigmoid for .* a network with 1"):
        onnx_model(network([nn.Dense(1)]), outputs="classes", link="softmax")


@host
def test_networks_that_are_too_large(monkeypatch):
    monkeypatch.setattr("xpnet.export.model.MOST_BYTES", 1000)
    with pytest.raises(ValueError, match="holds less than 2 GiB, but the network has"):
        onnx_model(network([nn.Dense(3)]), outputs="numbers")


# Without onnx


@host
def test_without_onnx(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ImportError) as error:
        onnx_model(network([nn.Dense(3)]), outputs="numbers")
    message = str(error.value)
    assert message.startswith("exporting needs onnx, which cannot be imported (")
    assert message.endswith("); type: pip install onnx")
    assert "\n" not in message


@host
@pytest.mark.needs("onnx")
def test_onnx_is_imported_at_the_first_export():
    code = (
        "import sys; from xpnet import export, nn; print('onnx' in sys.modules); "
        "export.onnx_model(nn.Network([nn.Dense(2)], 3), outputs='numbers'); "
        "print('onnx' in sys.modules, 'onnxruntime' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["False", "True", "False"]
