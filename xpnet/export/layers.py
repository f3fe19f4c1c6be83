"""Translate each layer and activation to ONNX operations."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from xpnet.export.graph import Graph
from xpnet.nn import activations as f
from xpnet.nn.dropout import Dropout
from xpnet.nn.interfaces import Layer
from xpnet.nn.layers import Dense
from xpnet.nn.normalization import BatchNorm, LayerNorm

__all__ = ["network_nodes"]


def network_nodes(graph: Graph, X: str) -> str:
    """Add all layers and return the name of the logits."""
    for number, layer in enumerate(graph._network.layers):
        graph.scope = f"layers.{number}"
        X = _layer_nodes(graph, layer, X, f"layer {number}")
    return X


def _layer_nodes(graph: Graph, layer: Layer, X: str, where: str) -> str:
    # Look up the exact class: a subclass may compute something else.
    known = _LAYERS.get(type(layer))
    if known is not None:
        return known(graph, layer, X)
    nodes = getattr(layer, "onnx_nodes", None)
    if nodes is None:
        raise ValueError(
            f"{where}, {layer!r}, cannot be exported: {type(layer).__name__} must define "
            "onnx_nodes(graph, X), see xpnet.export.Graph"
        )
    found = nodes(graph, X)
    if not isinstance(found, str):
        raise ValueError(
            f"{type(layer).__name__}.onnx_nodes must return the name of its output, got {found!r}"
        )
    return found


def _dense(graph: Graph, layer: Any, X: str) -> str:
    # Not Gemm: at least onnxruntime 1.15 fuses it with a following activation into one operation,
    # and has no float64 kernel for the result.
    W = graph.constant(layer.W, "W")
    Z = graph.add("MatMul", X, W)
    if layer.bias:
        Z = graph.add("Add", Z, graph.constant(layer.b, "b"))
    return _layer_nodes(graph, layer._f, Z, f"activation of {graph.scope}")


def _batch_norm(graph: Graph, layer: Any, X: str) -> str:
    # onnxruntime computes BatchNormalization as X scale + (beta - mean scale), which loses the
    # digits of features that are far from 0, and it keeps eps in float32.
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
    """Return the input; used for the identity and for dropout, which acts only in training."""
    del graph, layer
    return X


# Activations


def _op(op: str) -> Callable[[Graph, Any, str], str]:
    """Return a translation to a single operation without constants."""

    def nodes(graph: Graph, layer: Any, Z: str) -> str:
        del layer
        return graph.add(op, Z)

    return nodes


def _leaky_relu(graph: Graph, layer: Any, Z: str) -> str:
    if graph.dtype == np.float32:
        return graph.add("LeakyRelu", Z, alpha=layer.slope)
    # For float64 the slope must be a constant, since attributes are float32.
    below = graph.add("Mul", graph.add("Min", Z, 0.0), layer.slope)
    return graph.add("Add", graph.add("Relu", Z), below)


def _elu(graph: Graph, layer: Any, Z: str) -> str:
    if graph.dtype == np.float32:
        return graph.add("Elu", Z, alpha=layer.alpha)
    # onnxruntime has no Elu for float64, and ONNX has no expm1, which keeps the digits near 0. But
    # exp(Z) - 1 = tanh(Z / 2) (exp(Z) + 1), by tanh(Z / 2) = (exp(Z) - 1) / (exp(Z) + 1).
    M = graph.add("Min", Z, 0.0)
    half = graph.add("Tanh", graph.add("Mul", M, 0.5))
    expm1 = graph.add("Mul", half, graph.add("Add", graph.add("Exp", M), 1.0))
    return graph.add("Add", graph.add("Relu", Z), graph.add("Mul", expm1, layer.alpha))


def _gelu_tanh(graph: Graph, layer: Any, Z: str) -> str:
    # Gelu needs opset 20. Use Z sigmoid(2U), U = sqrt(2/pi) (Z + 0.044715 Z^3); see GELUTanh.
    del layer
    cube = graph.add("Mul", graph.add("Mul", graph.add("Mul", Z, 0.044715), Z), Z)
    U2 = graph.add("Mul", graph.add("Add", Z, cube), 2 * math.sqrt(2 / math.pi))
    return graph.add("Mul", Z, graph.add("Sigmoid", U2))


def _softplus(graph: Graph, layer: Any, Z: str) -> str:
    if graph.dtype == np.float32:
        return graph.add("Softplus", Z)
    # onnxruntime has no Softplus for float64, and ONNX has no log1p. Results below 1e-16 become 0.
    del layer
    E = graph.add("Exp", graph.add("Neg", graph.add("Abs", Z)))
    return graph.add("Add", graph.add("Relu", Z), graph.add("Log", graph.add("Add", E, 1.0)))


def _softsign(graph: Graph, layer: Any, Z: str) -> str:
    if graph.dtype == np.float32:
        return graph.add("Softsign", Z)
    del layer  # onnxruntime has no Softsign for float64
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
