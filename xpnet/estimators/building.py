"""The network that an estimator's parameters ask for."""

from __future__ import annotations

import functools
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

import numpy as np

from xpnet.device import device as make_device
from xpnet.estimators.rules import glorot_bound
from xpnet.nn import BatchNorm, Dense, Dropout, Network
from xpnet.nn.base import Activation, Initializer, Layer
from xpnet.random import RandomStateStream

if TYPE_CHECKING:
    from xpnet.estimators.base import NetworkEstimator

__all__ = ["hidden_units", "make_network", "resolved"]

# scikit-learn's names of what is known here by another.
_ACTIVATIONS = {"logistic": "sigmoid"}


def hidden_units(estimator: NetworkEstimator) -> list[int]:
    """Give the units of the hidden layers."""
    sizes = estimator.hidden_layer_sizes
    units = list(sizes) if hasattr(sizes, "__iter__") else [sizes]
    if any(isinstance(n, (bool, np.bool_)) or not isinstance(n, Integral) for n in units):
        raise ValueError(f"hidden_layer_sizes must be whole numbers > 0, got {units}.")
    if any(n <= 0 for n in units):
        raise ValueError(f"hidden_layer_sizes must be > 0, got {units}.")
    return [int(n) for n in units]


def _per_layer(estimator: NetworkEstimator, name: str, n_hidden: int) -> list[Any]:
    """Give a parameter's value for each hidden layer."""
    value = getattr(estimator, name)
    if isinstance(value, (str, dict, Layer)) or np.ndim(value) == 0:
        return [value] * n_hidden
    if len(value) != n_hidden:
        raise ValueError(
            f"{name} must be one for all hidden layers or one for each of the {n_hidden}, got "
            f"{len(value)}: {value!r}"
        )
    return list(value)


def _layers(estimator: NetworkEstimator, n_features: int, n_outputs: int) -> list[Layer]:
    """Make the layers."""
    units = hidden_units(estimator)
    activations = [
        resolved("activation", Activation, _ACTIVATIONS.get(spec, spec))
        if isinstance(spec, str)
        else resolved("activation", Activation, spec)
        for spec in _per_layer(estimator, "activation", len(units))
    ]
    rates = _per_layer(estimator, "dropout", len(units))
    widths = [n_features, *units, n_outputs]
    layers: list[Layer] = []
    for number, (n, f, rate) in enumerate(zip(units, activations, rates, strict=True)):
        dense = functools.partial(Dense, n, max_norm=estimator.max_norm)
        drawn = _drawn(estimator, widths[number], n, f)
        if estimator.batch_norm:
            drawn.pop("bias_init", None)
            layers += [
                dense(bias=False, **drawn),
                BatchNorm(unbiased=False),
                f.clone(),
            ]
        else:
            layers.append(dense(f, **drawn))
        if not (isinstance(rate, Real) and 0 <= float(rate) < 1):
            raise ValueError(f"dropout must lie in [0, 1), got {estimator.dropout!r}")
        if rate:
            layers.append(Dropout(float(rate)))
    last = activations[-1] if activations else _output_of(estimator.activation)
    if estimator.initialization is not None:  # scikit-learn's draws look at the one before
        last = Activation.resolve("identity")
    drawn = _drawn(estimator, widths[-2], n_outputs, last)
    if not estimator.fit_intercept:
        drawn.pop("bias_init", None)
    layers.append(Dense(n_outputs, bias=bool(estimator.fit_intercept), **drawn))
    return layers


def _drawn(estimator: NetworkEstimator, fan_in: int, fan_out: int, f: Activation) -> dict[str, Any]:
    """Say how a layer's weights and biases are drawn."""
    if estimator.initialization is not None:
        if isinstance(estimator.initialization, str) and estimator.initialization == "auto":
            return {"init": f.default_init}
        init = resolved("initialization", Initializer, estimator.initialization)
        return {"init": init.for_activation(f)}
    bound = glorot_bound(fan_in, fan_out, sigmoid=f.name == "sigmoid")
    uniform = {"type": "uniform", "limit": bound}
    return {"init": uniform, "bias_init": uniform}


def _dtype(estimator: NetworkEstimator, X: Any, *, is_first: bool) -> np.dtype[Any]:
    if estimator.precision is not None:
        return np.dtype("float64" if estimator.precision == "float64" else "float32")
    if estimator.solver == "lbfgs":
        return np.dtype(np.float64)
    # Weights that are there stay what they are, as scikit-learn's do.
    return np.dtype(X.dtype) if is_first else estimator.network_.dtype


def make_network(estimator: NetworkEstimator, X: Any, n_outputs: int, *, is_first: bool) -> Network:
    """Make the network, with weights drawn or those of the last fit."""
    given = None if estimator.precision == "float64" else estimator.precision
    device = make_device(estimator.device, precision=given)
    dtype = _dtype(estimator, X, is_first=is_first)
    layers = _layers(estimator, X.shape[1], n_outputs)
    make = functools.partial(Network, n_features=X.shape[1], device=device, dtype=dtype)
    if is_first:
        return make(layers, stream=RandomStateStream(estimator._random_state))
    old = estimator.network_
    is_same = [layer.get_config() for layer in layers] == [
        layer.get_config() for layer in old.layers
    ]
    is_there = old.dtype == dtype and all(
        getattr(old.device, name) == getattr(device, name)
        for name in ("name", "kernels", "precision")
    )
    if is_same and is_there:
        return old
    if is_same:
        return old.copy(device=device, dtype=dtype)
    return _with_weights_of(old, make(layers))


def _with_weights_of(old: Network, network: Network) -> Network:
    """Give a network the weights of another, whose other layers may be different ones."""
    buffers = [
        [*one.named_parameters().values(), *one.named_statistics().values()]
        for one in (old, network)
    ]
    shapes = [[view.shape for view in views] for views in buffers]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"the weights of the last fit have the shapes {shapes[0]}, and these parameters ask "
            f"for {shapes[1]}: fit with warm_start=False"
        )
    with network.device.activate():
        for source, target in zip(*buffers, strict=True):
            target[...] = network.device.asarray(old.device.to_host(source), network.dtype)
    return network


def resolved(name: str, kind: Any, spec: Any) -> Any:
    """Turn a parameter's value into what it stands for; errors name the parameter."""
    try:
        return kind.resolve(spec)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}: {error}") from error


def _output_of(spec: Any) -> Activation:
    """Give the activation that a network without hidden layers draws its weights for."""
    if isinstance(spec, (str, dict, Activation)):
        name = _ACTIVATIONS.get(spec, spec) if isinstance(spec, str) else spec
        found: Activation = resolved("activation", Activation, name)
        return found
    return Activation.resolve("identity")
