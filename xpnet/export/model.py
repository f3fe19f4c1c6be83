"""Exports a network or a trained model: preprocessing, layers and outputs."""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from xpnet.data import Preprocessing
from xpnet.export.graph import Graph
from xpnet.export.layers import network_nodes
from xpnet.files import write_whole
from xpnet.nn.losses import (
    MeanSquaredError,
    PoissonDeviance,
    SigmoidCrossEntropy,
    SoftmaxCrossEntropy,
)
from xpnet.nn.network import Network
from xpnet.training.model import Model

if TYPE_CHECKING:
    import onnx

__all__ = ["export_model", "onnx_model"]

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
    Z = network_nodes(graph, _preprocessed(graph, "X", preprocessing))
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


# Input and outputs


def _preprocessed(graph: Graph, X: str, preprocessing: Preprocessing | None) -> str:
    """Add a preprocessing, in float64 and rounded once, as it is done on the host."""
    if preprocessing is None or (
        preprocessing.divide_by == 1 and preprocessing.normalise == "none"
    ):
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


_Results = dict[str, tuple[npt.DTypeLike, Sequence[Any]]]  # outputs: their dtypes and shapes


def _classes(graph: Graph, Z: str, link: str, labels: npt.NDArray[Any]) -> _Results:
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


def _labels(graph: Graph, Z: str) -> _Results:
    n = graph._network.n_outputs
    graph.cast(graph.add("Greater", Z, 0.0), np.int64, output="label")
    graph.add("Sigmoid", Z, output="probabilities")
    return {"label": (np.int64, ["N", n]), "probabilities": (graph.dtype, ["N", n])}


def _numbers(graph: Graph, Z: str, link: str, targets: Preprocessing | None) -> _Results:
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
