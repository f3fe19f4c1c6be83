"""ONNX: networks and models for runtimes that know nothing of xpnet.

An ONNX file is a graph of standard operations with the network's numbers in it, and one for
prediction: dropout is not in it, batch normalisation has its running statistics. A layer of one's
own takes part if its class says which operations it is made of, in a method ``onnx_nodes(graph,
X)``; see :class:`Graph`.

Operations are those of opset 17, in files of IR version 8, as ONNX 1.12 of 2022 had them:
onnxruntime was seen to read them from 1.15 of 2023 on, and of what was added since only Gelu would
be of use here. Where the CPU part of onnxruntime lacks an operation for float64, or an operation
computes or keeps a number in float32 whatever its input, a few others stand in its place.
"""

from __future__ import annotations

import importlib
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from xpnet.data import Preprocessing
from xpnet.files import write_whole
from xpnet.kernels.reference import Array
from xpnet.nn import activations as f
from xpnet.nn.dropout import Dropout
from xpnet.nn.interfaces import Layer
from xpnet.nn.layers import Dense
from xpnet.nn.losses import (
    MeanSquaredError,
    PoissonDeviance,
    SigmoidCrossEntropy,
    SoftmaxCrossEntropy,
)
from xpnet.nn.network import Network
from xpnet.nn.normalization import BatchNorm, LayerNorm
from xpnet.training.model import Model
from xpnet.version import __version__

if TYPE_CHECKING:
    import onnx

__all__ = ["Graph", "export_model", "onnx_model"]

OPSET, IR_VERSION = 17, 8
MOST_BYTES = 2**31 - 2**20  # protobuf holds 2 GiB; the rest is for all that is no parameter
LINKS = {  # what logits may go through, the first by default
    "classes": ("softmax", "sigmoid"),
    "labels": ("sigmoid",),
    "numbers": ("identity", "exp"),
}


def onnx_model(
    network: Network,
    *,
    outputs: str,
    classes: Any = None,
    link: str | None = None,
    preprocessing: Preprocessing | None = None,
    targets: Preprocessing | None = None,
    name: str = "xpnet",
    doc: str = "",
    metadata: Mapping[str, str] | None = None,
    path: str | os.PathLike[str] | None = None,
) -> onnx.ModelProto:
    """Turn a network into an ONNX model that predicts.

    Its input is ``X`` (N, n_features), float32 or float64 as the network. Its outputs have the
    names that skl2onnx gives them without ZipMap, P being the probabilities:

    ========= ============================================= ====================================
    outputs   first output                                  second output
    ========= ============================================= ====================================
    "classes" ``label`` (N,), ``classes[argmax P]``         ``probabilities`` (N, n_classes)
    "labels"  ``label`` int64 (N, n_outputs), 1 if ``Z>0``  ``probabilities`` (N, n_outputs)
    "numbers" ``variable`` (N, n_outputs), ``link(Z)``      none
    ========= ============================================= ====================================

    Probabilities and numbers are in the network's dtype. Of classes that are equally probable the
    first is the label. Nothing is refused: what is not finite goes the way of all other inputs.

    Parameters
    ----------
    network : Network
        On any device; its parameters and statistics are copied.
    outputs : {"classes", "labels", "numbers"}
        What the network tells: one class out of several, independent labels, or numbers.
    classes : array_like (n_classes,), optional
        For "classes": the label of each output, of two classes for a single output, which is the
        logit of the second. Integers and bools become int64; strings; floats stay float32 or
        float64. By default 0, 1, ...
    link : str, optional
        What logits go through: "softmax" or "sigmoid" for "classes" (by default "softmax", for a
        single output "sigmoid", and then P is ``[1 - p, p]``), "sigmoid" for "labels", "identity"
        (by default) or "exp" for "numbers".
    preprocessing : Preprocessing, optional
        What is done to ``X`` first, in float64, as :class:`Preprocessing` does it.
    targets : Preprocessing, optional
        For "numbers": how targets were standardised; numbers are scaled back, after the link.
    name, doc : str
        The graph's name, and a text for who opens the file.
    metadata : mapping of str to str, optional
        More to be kept in the file.
    path : path, optional
        A file to write, whole or not at all; an older one is replaced.

    Returns
    -------
    onnx.ModelProto
        Checked by ``onnx.checker``, shapes and types included.

    Raises
    ------
    ImportError
        If onnx cannot be imported.
    ValueError
        If arguments are out of range or do not fit each other or the network, a layer or
        activation is neither xpnet's own nor has a method ``onnx_nodes``, or the network is over
        2 GiB.
    OSError
        If the file cannot be written.
    """
    module = _require_onnx()
    if outputs not in LINKS:
        raise ValueError(f"outputs must be one of {', '.join(LINKS)}, got {outputs!r}")
    links = [link for link in LINKS[outputs] if link != "softmax" or network.n_outputs > 1]
    link = links[0] if link is None else link
    if link not in links:
        raise ValueError(
            f"link must be one of {', '.join(links)} for {network.n_outputs} outputs that are "
            f"{outputs}, got {link!r}"
        )
    if classes is not None and outputs != "classes":
        raise ValueError(f"classes are for outputs='classes', got some with {outputs!r}")
    if targets is not None and outputs != "numbers":
        raise ValueError(f"targets are for outputs='numbers', got some with {outputs!r}")
    if network.parameters.nbytes > MOST_BYTES:
        raise ValueError(
            f"an ONNX file holds less than 2 GiB, and the network has {network.parameters.nbytes} "
            "bytes of parameters: save it with xpnet.training.save_network"
        )
    graph = Graph(module, network)
    Z = _network_nodes(graph, _preprocessed(graph, "X", preprocessing))
    graph.scope = outputs
    if outputs == "classes":
        results = _classes(graph, Z, link, _class_labels(classes, max(2, network.n_outputs)))
    elif outputs == "labels":
        results = _labels(graph, Z)
    else:
        results = _numbers(graph, Z, link, targets)
    made = graph.model(results, name, doc, metadata or {})
    if path is not None:
        write_whole(path, made.SerializeToString())
    return made


def export_model(model: Model, path: str | os.PathLike[str] | None = None) -> onnx.ModelProto:
    """Turn a trained model, preprocessing included, into an ONNX model, and save it if asked.

    Its input is ``X`` (N, n_features), float32 or float64 as the network: features as the data set
    gave them, images as rows of them. Outputs are those of :func:`onnx_model`: for classes
    ``label``, the name of the most probable one, and ``probabilities``; for numbers ``variable``,
    in the units of the targets. The file's metadata name the loss and, as JSON, ``class_names``,
    ``feature_names`` and ``image_shape``, where there are any.

    Parameters
    ----------
    model : Model
    path : path, optional
        Usually ``*.onnx``. The file appears whole or not at all; an older one is replaced.

    Returns
    -------
    onnx.ModelProto

    Raises
    ------
    ImportError
        If onnx cannot be imported.
    ValueError
        If a layer, an activation or the loss is not known, or the network is over 2 GiB.
    OSError
        If the file cannot be written.
    """
    loss = type(model.loss)
    if loss not in _OF_LOSS:
        raise ValueError(
            f"what becomes of logits under the loss {model.loss!r} is not known, which is not one "
            "of xpnet's own: call onnx_model(model.network, outputs=..., link=...)"
        )
    outputs, link = _OF_LOSS[loss]
    described = {
        "class_names": model.class_names or None,
        "feature_names": model.feature_names,
        "image_shape": model.image_shape,
    }
    return onnx_model(
        model.network,
        outputs=outputs,
        link=link,
        classes=model.class_names or None,
        preprocessing=model.preprocessing,
        targets=model.targets,
        metadata={
            "loss": model.loss.name,
            **{name: json.dumps(value) for name, value in described.items() if value is not None},
        },
        path=path,
    )


_OF_LOSS: dict[type, tuple[str, str | None]] = {
    SoftmaxCrossEntropy: ("classes", "softmax"),
    SigmoidCrossEntropy: ("classes", "sigmoid"),
    MeanSquaredError: ("numbers", "identity"),
    PoissonDeviance: ("numbers", "exp"),
}


def _require_onnx() -> Any:
    try:
        return importlib.import_module("onnx")
    except ImportError as error:
        raise ImportError(
            f"exporting needs onnx, which cannot be imported ({error}); type: pip install onnx"
        ) from error


class Graph:
    """An ONNX graph in the making; a layer of one's own adds to it what it is made of.

    A layer, or activation, with a method ``onnx_nodes(graph, X)`` is exported by that. ``X`` is the
    name of its input (N, n_in), in the network's dtype, and it returns the name of its output (N,
    n_out), in the same::

        class Swish(nn.Activation):
            ...
            def onnx_nodes(self, graph, X):
                return graph.add("Mul", X, graph.add("Sigmoid", X))

    Attributes
    ----------
    dtype : dtype
        The network's, float32 or float64.
    scope : str
        What names of values and constants begin with.
    """

    def __init__(self, module: Any, network: Network) -> None:
        self.dtype = network.dtype
        self.scope = "input"
        self._onnx = module
        self._network = network
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []
        self._names = {"X", "label", "probabilities", "variable"}

    def add(
        self, op: str, *inputs: str | float | Array, output: str | None = None, **attributes: Any
    ) -> str:
        """Add an operation with one output.

        Parameters
        ----------
        op : str
            An operation of ONNX, by its name there; of opset 17.
        *inputs : str, float or array
            Names of values; anything else becomes a :meth:`constant`.
        output : str, optional
            The output's name, if it is one of the whole graph's.
        **attributes
            The operation's attributes.

        Returns
        -------
        str
            The name of the output.
        """
        names = [given if isinstance(given, str) else self.constant(given) for given in inputs]
        made = output or self._name(op.lower())
        self._nodes.append(self._onnx.helper.make_node(op, names, [made], name=made, **attributes))
        return made

    def constant(
        self, values: float | Array, name: str = "constant", dtype: npt.DTypeLike | None = None
    ) -> str:
        """Add a constant.

        Parameters
        ----------
        values : float or array
            An array on the network's device, such as a layer's parameter, or on the host.
        name : str
            What it is to be called within the layer.
        dtype : dtype, optional
            By default the network's.

        Returns
        -------
        str
            Its name in the graph.
        """
        if isinstance(values, self._network.device.xp.ndarray):
            values = self._network.device.to_host(values)
        array = np.ascontiguousarray(values, self.dtype if dtype is None else dtype)
        array = array.reshape(np.shape(values))  # a number has no axis
        made = self._name(name)
        self._constants.append(self._onnx.numpy_helper.from_array(array, made))
        return made

    def cast(self, X: str, dtype: npt.DTypeLike) -> str:
        """Convert a value to another dtype."""
        return self.add("Cast", X, to=self._type(dtype))

    def _type(self, dtype: npt.DTypeLike) -> int:
        number: int = self._onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        return number

    def _name(self, name: str) -> str:
        """Find a name in the layer that is not taken."""
        made, number = f"{self.scope}.{name}", 1
        while made in self._names:
            number += 1
            made = f"{self.scope}.{name}_{number}"
        self._names.add(made)
        return made

    def model(
        self,
        results: Mapping[str, tuple[npt.DTypeLike, Sequence[Any]]],
        name: str,
        doc: str,
        metadata: Mapping[str, str],
    ) -> onnx.ModelProto:
        """Make a model of what was added, and have it checked.

        Parameters
        ----------
        results : mapping of str to dtype and shape
            Its outputs.
        name, doc : str
        metadata : mapping of str to str

        Returns
        -------
        onnx.ModelProto
        """
        helper = self._onnx.helper
        made: onnx.ModelProto = helper.make_model(
            helper.make_graph(
                self._nodes,
                name,
                [
                    helper.make_tensor_value_info(
                        "X", self._type(self.dtype), ["N", self._network.n_features]
                    )
                ],
                [
                    helper.make_tensor_value_info(output, self._type(dtype), shape)
                    for output, (dtype, shape) in results.items()
                ],
                self._constants,
            ),
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="xpnet",
            producer_version=__version__,
            doc_string=doc,
        )
        if metadata:
            helper.set_model_props(made, dict(metadata))
        self._onnx.checker.check_model(made, full_check=True)
        return made


# Layers


def _network_nodes(graph: Graph, X: str) -> str:
    """Add all layers, and return the name of the logits."""
    for number, layer in enumerate(graph._network.layers):
        graph.scope = f"layers.{number}"
        X = _layer_nodes(graph, layer, X, f"layer {number}")
    return X


def _layer_nodes(graph: Graph, layer: Layer, X: str, where: str) -> str:
    # By the very class: a subclass may compute something else.
    known = _LAYERS.get(type(layer))
    if known is not None:
        return known(graph, layer, X)
    nodes = getattr(layer, "onnx_nodes", None)
    if nodes is None:
        raise ValueError(
            f"{where}, {layer!r}, is not one of xpnet's own, and {type(layer).__name__} does not "
            "say what it is in ONNX: give it a method onnx_nodes(graph, X), see xpnet.export.Graph"
        )
    found = nodes(graph, X)
    if not isinstance(found, str):
        raise ValueError(
            f"{type(layer).__name__}.onnx_nodes must return the name of its output, got {found!r}"
        )
    return found


def _dense(graph: Graph, layer: Any, X: str) -> str:
    # Not Gemm: onnxruntime 1.15, at least, joins that with an activation that follows into a single
    # operation, and then has none for float64.
    W = graph.constant(layer.W, "W")
    Z = graph.add("MatMul", X, W)
    if layer.bias:
        Z = graph.add("Add", Z, graph.constant(layer.b, "b"))
    return _layer_nodes(graph, layer._f, Z, f"activation of {graph.scope}")


def _batch_norm(graph: Graph, layer: Any, X: str) -> str:
    # BatchNormalization is computed as X scale + (beta - mean scale) by onnxruntime, which loses
    # the digits of features that are far from 0; and it keeps eps in float32.
    to_host = graph._network.device.to_host
    variance = to_host(layer.running_variance).astype(np.float64)
    scale = to_host(layer.gamma) / np.sqrt(variance + layer.eps)
    centred = graph.add("Sub", X, graph.constant(layer.running_mean, "running_mean"))
    scaled = graph.add("Mul", centred, graph.constant(scale, "scale"))
    return graph.add("Add", scaled, graph.constant(layer.beta, "beta"))


def _layer_norm(graph: Graph, layer: Any, X: str) -> str:
    # LayerNormalization has its mean, variance and eps in float32.
    centred = graph.add("Sub", X, graph.add("ReduceMean", X, axes=[1]))
    variance = graph.add("ReduceMean", graph.add("Mul", centred, centred), axes=[1])
    std = graph.add("Sqrt", graph.add("Add", variance, layer.eps))
    scaled = graph.add("Mul", graph.add("Div", centred, std), graph.constant(layer.gamma, "gamma"))
    return graph.add("Add", scaled, graph.constant(layer.beta, "beta"))


def _same(graph: Graph, layer: Any, X: str) -> str:
    """Dropout drops in training only."""
    del graph, layer
    return X


# Activations


def _op(op: str) -> Callable[[Graph, Any, str], str]:
    """Give what an operation without constants makes."""

    def nodes(graph: Graph, layer: Any, Z: str) -> str:
        del layer
        return graph.add(op, Z)

    return nodes


def _leaky_relu(graph: Graph, layer: Any, Z: str) -> str:
    if graph.dtype == np.float32:
        return graph.add("LeakyRelu", Z, alpha=layer.slope)
    # An attribute is a float32.
    below = graph.add("Mul", graph.add("Min", Z, 0.0), layer.slope)
    return graph.add("Add", graph.add("Relu", Z), below)


def _elu(graph: Graph, layer: Any, Z: str) -> str:
    if graph.dtype == np.float32:
        return graph.add("Elu", Z, alpha=layer.alpha)
    # onnxruntime has none for float64, and ONNX no expm1, which keeps the digits near 0. It is
    # exp(Z) - 1 = tanh(Z / 2) (exp(Z) + 1), by tanh(Z / 2) = (exp(Z) - 1) / (exp(Z) + 1).
    M = graph.add("Min", Z, 0.0)
    half = graph.add("Tanh", graph.add("Mul", M, 0.5))
    expm1 = graph.add("Mul", half, graph.add("Add", graph.add("Exp", M), 1.0))
    return graph.add("Add", graph.add("Relu", Z), graph.add("Mul", expm1, layer.alpha))


def _gelu_tanh(graph: Graph, layer: Any, Z: str) -> str:
    # Gelu is of opset 20. As Z sigmoid(2U), U = sqrt(2/pi) (Z + 0.044715 Z^3), see the reference.
    del layer
    cube = graph.add("Mul", graph.add("Mul", graph.add("Mul", Z, 0.044715), Z), Z)
    U2 = graph.add("Mul", graph.add("Add", Z, cube), 2 * math.sqrt(2 / math.pi))
    return graph.add("Mul", Z, graph.add("Sigmoid", U2))


def _softplus(graph: Graph, layer: Any, Z: str) -> str:
    if graph.dtype == np.float32:
        return graph.add("Softplus", Z)
    # onnxruntime has none for float64, and ONNX no log1p. Without it, what is under 1e-16 is 0.
    del layer
    E = graph.add("Exp", graph.add("Neg", graph.add("Abs", Z)))
    return graph.add("Add", graph.add("Relu", Z), graph.add("Log", graph.add("Add", E, 1.0)))


def _softsign(graph: Graph, layer: Any, Z: str) -> str:
    if graph.dtype == np.float32:
        return graph.add("Softsign", Z)
    del layer  # onnxruntime has none for float64
    return graph.add("Div", Z, graph.add("Add", graph.add("Abs", Z), 1.0))


_LAYERS: dict[type[Layer], Callable[[Graph, Any, str], str]] = {
    Dense: _dense,
    BatchNorm: _batch_norm,
    LayerNorm: _layer_norm,
    Dropout: _same,
    f.Identity: _same,
    f.Sigmoid: _op("Sigmoid"),
    f.Tanh: _op("Tanh"),
    f.ReLU: _op("Relu"),
    f.LeakyReLU: _leaky_relu,
    f.ELU: _elu,
    f.GELUTanh: _gelu_tanh,
    f.Softplus: _softplus,
    f.Softsign: _softsign,
}


# Input and outputs


def _preprocessed(graph: Graph, X: str, preprocessing: Preprocessing | None) -> str:
    """Add a preprocessing, in float64 and rounded once, as it is done on the host."""
    if preprocessing is None:
        return X
    if preprocessing.divide_by == 1 and preprocessing.normalise == "none":
        return X
    shift, scale = preprocessing.shift, preprocessing.scale
    n_features = graph._network.n_features
    if shift is not None and shift.shape != (n_features,):
        raise ValueError(
            f"preprocessing must be of {n_features} features, as the network's, got {len(shift)}"
        )
    graph.scope = "preprocessing"
    is_cast = graph.dtype != np.float64
    X = graph.cast(X, np.float64) if is_cast else X
    if preprocessing.divide_by != 1:
        X = graph.add("Div", X, graph.constant(preprocessing.divide_by, "divide_by", np.float64))
    if shift is not None and scale is not None:
        X = graph.add("Sub", X, graph.constant(shift, "shift", np.float64))
        X = graph.add("Div", X, graph.constant(scale, "scale", np.float64))
    elif preprocessing.normalise == "per-image":
        X = _per_image(graph, X, n_features)
    return graph.cast(X, graph.dtype) if is_cast else X


def _per_image(graph: Graph, X: str, n: int) -> str:
    """Add "per-image", by which the largest of a sample is brought to 1 first, against overflow."""

    def number(value: float) -> str:
        return graph.constant(value, dtype=np.float64)

    def one_for(condition: str, otherwise: str) -> str:
        return graph.add("Where", condition, number(1), otherwise)

    largest = graph.add("ReduceMax", graph.add("Abs", X), axes=[1])
    X = graph.add("Div", X, one_for(graph.add("Equal", largest, number(0)), largest))
    mean = graph.add("ReduceMean", X, axes=[1])
    X = graph.add("Sub", X, mean)
    std = graph.add("Sqrt", graph.add("ReduceMean", graph.add("Mul", X, X), axes=[1]))
    rounding = graph.add("Mul", graph.add("Abs", mean), number(n * np.finfo(np.float64).eps))
    is_constant = graph.add("LessOrEqual", std, rounding)
    return graph.add(
        "Where", is_constant, number(0), graph.add("Div", X, one_for(is_constant, std))
    )


def _classes(
    graph: Graph, Z: str, link: str, labels: npt.NDArray[Any]
) -> dict[str, tuple[npt.DTypeLike, Sequence[Any]]]:
    n = len(labels)
    if link == "softmax":
        P = graph.add("Softmax", Z, axis=1, output="probabilities")
    elif graph._network.n_outputs > 1:
        P = graph.add("Sigmoid", Z, output="probabilities")
    else:
        of_second = graph.add("Sigmoid", Z)
        of_first = graph.add("Sub", 1.0, of_second)
        P = graph.add("Concat", of_first, of_second, axis=1, output="probabilities")
    most = graph.add("ArgMax", P, axis=1, keepdims=0)
    graph.add("Gather", graph.constant(labels, "names", labels.dtype), most, output="label")
    return {"label": (labels.dtype, ["N"]), "probabilities": (graph.dtype, ["N", n])}


def _labels(graph: Graph, Z: str) -> dict[str, tuple[npt.DTypeLike, Sequence[Any]]]:
    n = graph._network.n_outputs
    to_int64 = graph._type(np.int64)
    graph.add("Cast", graph.add("Greater", Z, 0.0), to=to_int64, output="label")
    graph.add("Sigmoid", Z, output="probabilities")
    return {"label": (np.int64, ["N", n]), "probabilities": (graph.dtype, ["N", n])}


def _numbers(
    graph: Graph, Z: str, link: str, targets: Preprocessing | None
) -> dict[str, tuple[npt.DTypeLike, Sequence[Any]]]:
    """Add the link and, in float64 as on the host, the way back from standardised numbers."""
    n = graph._network.n_outputs
    if link == "exp":
        Z = graph.add("Exp", Z)
    if targets is not None:
        shift, scale = targets.shift, targets.scale
        if shift is None or scale is None or shift.shape != (n,) or targets.divide_by != 1:
            raise ValueError(f"targets must be standardised numbers, {n} of them, got {targets!r}")
        Z = graph.cast(Z, np.float64)
        Z = graph.add("Mul", Z, graph.constant(scale, "scale", np.float64))
        Z = graph.add("Add", Z, graph.constant(shift, "shift", np.float64))
        Z = graph.cast(Z, graph.dtype)
    graph.add("Identity", Z, output="variable")
    return {"variable": (graph.dtype, ["N", n])}


def _class_labels(classes: Any, n: int) -> npt.NDArray[Any]:
    """Bring the labels of classes to a dtype that ONNX has: int64, float32, float64 or strings."""
    labels = np.arange(n) if classes is None else np.asarray(classes)
    found: list[Any] = [] if labels.shape != (n,) else list(labels.tolist())
    if len(set(found)) != n:
        raise ValueError(f"classes must be {n} different labels, got {classes!r:.200}")
    if labels.dtype.kind in "OU" and all(isinstance(label, str) for label in found):
        for label in found:
            if any("\ud800" <= character <= "\udfff" for character in label):
                raise ValueError(f"classes must be text that UTF-8 can hold, got {label!r}")
        return labels.astype(object)
    if labels.dtype.kind in "biuO" and all(isinstance(label, int) for label in found):
        if not all(-(2**63) <= label < 2**63 for label in found):
            raise ValueError(f"classes must be in the range of int64, got {classes!r:.200}")
        return np.array(found, np.int64)
    if labels.dtype.kind == "f":
        return labels.astype(np.float64 if labels.dtype == np.float64 else np.float32)
    raise ValueError(
        f"classes must be integers, bools, strings or floats, got {classes!r:.200} of dtype "
        f"{labels.dtype}"
    )
