"""The network that an estimator's parameters ask for."""

from __future__ import annotations

import functools
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.utils._param_validation import InvalidParameterError

from xpnet.device import Device
from xpnet.device import device as make_device
from xpnet.estimators.rules import glorot_bound
from xpnet.nn import BatchNorm, Dense, Dropout, Network
from xpnet.nn.interfaces import Activation, Initializer, Layer
from xpnet.random import RandomStateStream

if TYPE_CHECKING:
    from xpnet.estimators.base import NetworkEstimator

__all__ = ["hidden_units", "invalid", "make_network", "resolved"]

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
        wanted = f"one for all hidden layers or one for each of the {n_hidden}"
        raise invalid(estimator, name, wanted)
    return list(value)


def _layers(estimator: NetworkEstimator, n_features: int, n_outputs: int) -> list[Layer]:
    """Make the layers."""
    units = hidden_units(estimator)
    activations = [
        _activation(estimator, spec) for spec in _per_layer(estimator, "activation", len(units))
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
            wanted = "a float in the range [0.0, 1.0) or one for each hidden layer"
            raise invalid(estimator, "dropout", wanted)
        if rate:
            layers.append(Dropout(float(rate)))
    last = activations[-1] if activations else _output_of(estimator)
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
        init = resolved(estimator, "initialization", Initializer)
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


def _device(estimator: NetworkEstimator) -> Device:
    precision = None if estimator.precision == "float64" else estimator.precision
    try:
        return make_device(estimator.device, precision=precision)
    except ValueError as error:
        name = "precision" if str(error).startswith("precision") else "device"
        raise invalid(estimator, name, "one that there is", error) from error


def make_network(estimator: NetworkEstimator, X: Any, n_outputs: int, *, is_first: bool) -> Network:
    """Make the network, with weights drawn or those of the last fit."""
    device = _device(estimator)
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


def resolved(estimator: NetworkEstimator, name: str, kind: Any, spec: Any = None) -> Any:
    """Turn a parameter's value, or one of several, into what it stands for."""
    try:
        return kind.resolve(getattr(estimator, name) if spec is None else spec)
    except (TypeError, ValueError) as error:
        wanted = f"a known name, a table of a known one's options or an instance of {kind.__name__}"
        raise invalid(estimator, name, wanted, error) from error


def invalid(
    estimator: NetworkEstimator, name: str, wanted: str, detail: Any = None
) -> InvalidParameterError:
    """Make the error of a parameter's value, as scikit-learn words it."""
    return InvalidParameterError(
        f"The {name!r} parameter of {type(estimator).__name__} must be {wanted}. Got "
        f"{getattr(estimator, name)!r} instead." + (f" ({detail})" if detail is not None else "")
    )


def _output_of(estimator: NetworkEstimator) -> Activation:
    """Give the activation that a network without hidden layers draws its weights for."""
    spec = estimator.activation
    if isinstance(spec, (str, dict, Activation)):
        return _activation(estimator, spec)
    return Activation.resolve("identity")


def _activation(estimator: NetworkEstimator, spec: Any) -> Activation:
    known = _ACTIVATIONS.get(spec, spec) if isinstance(spec, str) else spec
    found: Activation = resolved(estimator, "activation", Activation, known)
    return found
