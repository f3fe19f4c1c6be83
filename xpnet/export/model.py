"""Export a network or a trained model with preprocessing, layers and outputs."""

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

MOST_BYTES = 2**31 - 2**20  # protobuf's limit is 2 GiB; leave room for all but the parameters
LINKS = {  # functions that may be applied to logits; the first is the default
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
    """Convert a network to an ONNX model for prediction.

    The input is ``X`` (N, n_features), float32 or float64 like the network. The outputs have the
    names that skl2onnx uses without ZipMap; P are the probabilities:

    ========= ============================================= ====================================
    outputs   first output                                  second output
    ========= ============================================= ====================================
    "classes" ``label`` (N,), ``classes[argmax P]``         ``probabilities`` (N, n_classes)
    "labels"  ``label`` int64 (N, n_outputs), 1 if ``Z>0``  ``probabilities`` (N, n_outputs)
    "numbers" ``variable`` (N, n_outputs), ``link(Z)``      none
    ========= ============================================= ====================================

    Probabilities and numbers are in the network's dtype. If several classes are equally probable,
    the label is the first of them. The model does not check its input: values that are not finite
    are processed like any others.

    Parameters
    ----------
    network : Network
        Network on any device; its parameters and statistics are copied.
    outputs : {"classes", "labels", "numbers"}
        Kind of output: one class out of several, independent labels, or numbers.
    classes : array_like (n_classes,), optional
        Only for "classes": the label of each class. A network with a single output has two classes,
        and its output is the logit of the second. Labels may be integers and bools, which become
        int64, strings, or floats, which stay float32 or float64. By default 0, 1, ...
    link : str, optional
        Function applied to logits: "softmax" or "sigmoid" for "classes" (by default "softmax", or
        "sigmoid" for a single output, where P is ``[1 - p, p]``), "sigmoid" for "labels", and
        "identity" (default) or "exp" for "numbers".
    preprocessing : Preprocessing, optional
        Preprocessing of ``X`` to include, computed in float64.
    targets : Preprocessing, optional
        Only for "numbers": standardisation of the targets, which the model inverts after the link.
    name, doc : str
        Name of the graph and text that describes the model.
    metadata : mapping of str to str, optional
        Additional metadata of the file.
    path : path, optional
        File to write. It is written atomically and replaces an existing file.

    Returns
    -------
    onnx.ModelProto
        The model, checked by ``onnx.checker`` including shapes and types.

    Raises
    ------
    ImportError
        If onnx cannot be imported.
    ValueError
        If an argument is out of range or does not fit the others or the network, if your own layer
        or activation has no method ``onnx_nodes``, or if the network is larger than 2 GiB.
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
            f"link must be one of {', '.join(links)} for outputs={outputs!r} and a network with "
            f"{network.n_outputs} outputs, got {link!r}"
        )
    if classes is not None and outputs != "classes":
        raise ValueError(f"classes need outputs='classes', got outputs={outputs!r}")
    if targets is not None and outputs != "numbers":
        raise ValueError(f"targets need outputs='numbers', got outputs={outputs!r}")
    if network.parameters.nbytes > MOST_BYTES:
        raise ValueError(
            f"an ONNX file holds less than 2 GiB, but the network has {network.parameters.nbytes} "
            "bytes of parameters: save it with xpnet.training.save_network"
        )
    graph = Graph(module, network)
    Z = network_nodes(graph, _preprocess(graph, "X", preprocessing))
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
    """Convert a trained model with its preprocessing to an ONNX model and optionally save it.

    The input is ``X`` (N, n_features), float32 or float64 like the network: raw features as in the
    data set, each image as one row. The outputs are those of :func:`onnx_model`: for classification
    ``label``, the name of the most probable class, and ``probabilities``; for regression
    ``variable``, in the units of the targets. The metadata of the file contain the loss and, as
    JSON, ``class_names``, ``feature_names`` and ``image_shape`` if the model has them.

    Parameters
    ----------
    model : Model
        Model to convert.
    path : path, optional
        File to write, usually ``*.onnx``. It is written atomically and replaces an existing file.

    Returns
    -------
    onnx.ModelProto

    Raises
    ------
    ImportError
        If onnx cannot be imported.
    ValueError
        If a layer, activation or loss cannot be exported, or the network is larger than 2 GiB.
    OSError
        If the file cannot be written.
    """
    loss = type(model.loss)
    if loss not in _LOSS_OUTPUTS:
        raise ValueError(
            f"cannot export a model with your own loss {model.loss!r}: call "
            "onnx_model(model.network, outputs=..., link=...), which needs no loss"
        )
    outputs, link = _LOSS_OUTPUTS[loss]
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


_LOSS_OUTPUTS: dict[type, tuple[str, str | None]] = {
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


def _preprocess(graph: Graph, X: str, preprocessing: Preprocessing | None) -> str:
    """Add the preprocessing, computed in float64 and rounded once, as on the host."""
    if preprocessing is None or (
        preprocessing.divide_by == 1 and preprocessing.normalise == "none"
    ):
        return X
    shift, scale = preprocessing.shift, preprocessing.scale
    n_features = graph._network.n_features
    if shift is not None and shift.shape != (n_features,):
        raise ValueError(
            f"preprocessing must have {n_features} features, like the network, got {len(shift)}"
        )
    graph.scope = "preprocessing"
    is_cast = graph.dtype != np.float64
    X = graph.cast(X, np.float64) if is_cast else X
    if preprocessing.divide_by != 1:
        # In float64, once for each feature: onnxruntime 1.28 to 1.31 turns a single number into a
        # factor of the product that follows, and rounds it to float32.
        shape = () if is_cast else (n_features,)
        divide_by = np.full(shape, preprocessing.divide_by)
        X = graph.add("Div", X, graph.constant(divide_by, "divide_by", np.float64))
    if shift is not None and scale is not None:
        X = graph.add("Sub", X, graph.constant(shift, "shift", np.float64))
        X = graph.add("Div", X, graph.constant(scale, "scale", np.float64))
    elif preprocessing.normalise == "per-image":
        X = _per_image(graph, X, n_features)
    return graph.cast(X, graph.dtype) if is_cast else X


def _per_image(graph: Graph, X: str, n: int) -> str:
    """Add "per-image", which first scales the largest of a sample to 1 to avoid overflow."""

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
        second = graph.add("Sigmoid", Z)
        first = graph.add("Sub", 1.0, second)
        P = graph.add("Concat", first, second, axis=1, output="probabilities")
    most = graph.add("ArgMax", P, axis=1, keepdims=0)
    graph.add("Gather", graph.constant(labels, "names", labels.dtype), most, output="label")
    return {"label": (labels.dtype, ["N"]), "probabilities": (graph.dtype, ["N", n])}


def _labels(graph: Graph, Z: str) -> _Results:
    n = graph._network.n_outputs
    graph.cast(graph.add("Greater", Z, 0.0), np.int64, output="label")
    graph.add("Sigmoid", Z, output="probabilities")
    return {"label": (np.int64, ["N", n]), "probabilities": (graph.dtype, ["N", n])}


def _numbers(graph: Graph, Z: str, link: str, targets: Preprocessing | None) -> _Results:
    """Add the link and, in float64 as on the host, invert the standardisation of targets."""
    n = graph._network.n_outputs
    if link == "exp":
        Z = graph.add("Exp", Z)
    if targets is not None:
        shift, scale = targets.shift, targets.scale
        if shift is None or scale is None or shift.shape != (n,) or targets.divide_by != 1:
            raise ValueError(f"targets must be a standardisation of {n} outputs, got {targets!r}")
        Z = graph.cast(Z, np.float64)
        Z = graph.add("Mul", Z, graph.constant(scale, "scale", np.float64))
        Z = graph.add("Add", Z, graph.constant(shift, "shift", np.float64))
        Z = graph.cast(Z, graph.dtype)
    graph.add("Identity", Z, output="variable")
    return {"variable": (graph.dtype, ["N", n])}


def _class_labels(classes: Any, n: int) -> npt.NDArray[Any]:
    """Convert class labels to a dtype that ONNX has: int64, float32, float64 or strings."""
    labels = np.arange(n) if classes is None else np.asarray(classes)
    found: list[Any] = [] if labels.shape != (n,) else list(labels.tolist())
    if len(set(found)) != n:
        raise ValueError(f"classes must be {n} different labels, got {classes!r:.200}")
    if labels.dtype.kind in "OU" and all(isinstance(label, str) for label in found):
        for label in found:
            if any("\ud800" <= character <= "\udfff" for character in label):
                raise ValueError(f"classes must be valid UTF-8 text, got {label!r}")
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
