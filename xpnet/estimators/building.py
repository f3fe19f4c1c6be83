"""Builds an estimator's network and optimizer from its parameters."""

from __future__ import annotations

import functools
from numbers import Integral, Real
from typing import Any

import numpy as np

from xpnet.device import Device
from xpnet.device import device as make_device
from xpnet.estimators.parameters import EstimatorParameters, invalid, resolved
from xpnet.estimators.rules import glorot_bound
from xpnet.nn import Adam, BatchNorm, Dense, Dropout, Momentum, Nesterov, Network
from xpnet.nn.interfaces import Activation, Initializer, Layer
from xpnet.nn.optimizers import Optimizer
from xpnet.random import RandomStateStream

__all__ = ["hidden_units", "make_network", "make_optimizer"]


def hidden_units(parameters: EstimatorParameters) -> list[int]:
    """Return the number of units of each hidden layer."""
    sizes = parameters.hidden_layer_sizes
    units = list(sizes) if hasattr(sizes, "__iter__") else [sizes]
    if any(isinstance(n, bool) or not isinstance(n, Integral) for n in units):
        raise ValueError(f"hidden_layer_sizes must be whole numbers > 0, got {units}.")
    if any(n <= 0 for n in units):
        raise ValueError(f"hidden_layer_sizes must be > 0, got {units}.")
    return [int(n) for n in units]


def _per_layer(parameters: EstimatorParameters, name: str, n_hidden: int) -> list[Any]:
    """Return a parameter's value for each hidden layer."""
    value = getattr(parameters, name)
    if isinstance(value, (str, dict, Layer)) or np.ndim(value) == 0:
        return [value] * n_hidden
    if len(value) != n_hidden:
        wanted = f"one value, or one for each of the {n_hidden} hidden layers"
        raise invalid(parameters, name, wanted)
    return list(value)


def _layers(parameters: EstimatorParameters, n_features: int, n_outputs: int) -> list[Layer]:
    units = hidden_units(parameters)
    activations = [
        _activation(parameters, spec) for spec in _per_layer(parameters, "activation", len(units))
    ]
    rates = _per_layer(parameters, "dropout", len(units))
    widths = [n_features, *units, n_outputs]
    layers: list[Layer] = []
    for number, (n, f, rate) in enumerate(zip(units, activations, rates, strict=True)):
        dense = functools.partial(Dense, n, max_norm=parameters.max_norm)
        drawn = _drawn(parameters, widths[number], n, f)
        if parameters.batch_norm:
            drawn.pop("bias_init", None)
            layers += [dense(bias=False, **drawn), BatchNorm(unbiased=False), f.clone()]
        else:
            layers.append(dense(f, **drawn))
        if not (isinstance(rate, Real) and 0 <= float(rate) < 1):
            wanted = "a float in the range [0.0, 1.0), or one for each hidden layer"
            raise invalid(parameters, "dropout", wanted)
        if rate:
            layers.append(Dropout(float(rate)))
    last = activations[-1] if activations else _output_of(parameters)
    if parameters.initialization is not None:  # only scikit-learn's draws depend on it
        last = Activation.resolve("identity")
    drawn = _drawn(parameters, widths[-2], n_outputs, last)
    if not parameters.fit_intercept:
        drawn.pop("bias_init", None)
    layers.append(Dense(n_outputs, bias=bool(parameters.fit_intercept), **drawn))
    return layers


def _drawn(
    parameters: EstimatorParameters, fan_in: int, fan_out: int, f: Activation
) -> dict[str, Any]:
    """Return the initializers of a layer's weights and biases."""
    if parameters.initialization is not None:
        if isinstance(parameters.initialization, str) and parameters.initialization == "auto":
            return {"init": f.default_init}
        init = resolved(parameters, "initialization", Initializer)
        return {"init": init.for_activation(f)}
    bound = glorot_bound(fan_in, fan_out, sigmoid=f.name == "sigmoid")
    uniform = {"type": "uniform", "limit": bound}
    return {"init": uniform, "bias_init": uniform}


def _device(parameters: EstimatorParameters) -> Device:
    precision = None if parameters.precision == "float64" else parameters.precision
    try:
        return make_device(parameters.device, precision=precision)
    except ValueError as error:
        name = "precision" if str(error).startswith("precision") else "device"
        raise invalid(parameters, name, f"a valid {name}", error) from error


def make_network(
    parameters: EstimatorParameters,
    n_features: int,
    n_outputs: int,
    dtype: np.dtype[Any],
    *,
    old: Network | None,
    random_state: np.random.RandomState,
) -> Network:
    """Build the network, with new weights or with those of ``old``, the previous fit's.

    Returns ``old`` itself if it already matches the parameters. ``dtype`` is used if ``precision``
    is None.
    """
    device = _device(parameters)
    if parameters.precision is not None:
        dtype = np.dtype("float64" if parameters.precision == "float64" else "float32")
    layers = _layers(parameters, n_features, n_outputs)
    make = functools.partial(Network, n_features=n_features, device=device, dtype=dtype)
    if old is None:
        return make(layers, stream=RandomStateStream(random_state))
    if [layer.get_config() for layer in layers] != [layer.get_config() for layer in old.layers]:
        return _with_weights_of(old, make(layers))
    is_there = old.dtype == dtype and all(
        getattr(old.device, name) == getattr(device, name)
        for name in ("name", "kernels", "precision")
    )
    return old if is_there else old.copy(device=device, dtype=dtype)


def make_optimizer(parameters: EstimatorParameters) -> Optimizer:
    """Return the solver's optimizer, or the one that replaces it."""
    spec, decay = parameters.optimizer, float(parameters.weight_decay)
    if isinstance(spec, str):
        spec = {"type": spec, "learning_rate": float(parameters.learning_rate_init)}
        spec |= {"weight_decay": decay} if decay else {}
    elif spec is not None and decay:
        raise ValueError(
            f"weight_decay must be 0 with optimizer={spec!r}, got {parameters.weight_decay!r}; "
            "set it in the optimizer itself"
        )
    if spec is not None:
        found: Optimizer = resolved(parameters, "optimizer", Optimizer, spec)
        return found
    if parameters.solver == "adam":
        return Adam(
            float(parameters.learning_rate_init),
            beta1=parameters.beta_1,
            beta2=parameters.beta_2,
            eps=float(parameters.epsilon),
            epsilon_hat=True,
            weight_decay=decay,
        )
    kind = Nesterov if parameters.nesterovs_momentum else Momentum
    return kind(
        float(parameters.learning_rate_init), beta=float(parameters.momentum), weight_decay=decay
    )


def _with_weights_of(old: Network, network: Network) -> Network:
    """Copy the weights of a network into one whose other layers may differ."""
    buffers = [
        [*one.named_parameters().values(), *one.named_statistics().values()]
        for one in (old, network)
    ]
    shapes = [[view.shape for view in views] for views in buffers]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"the previous fit's weights must have the shapes {shapes[1]} for these parameters, "
            f"got {shapes[0]}; fit with warm_start=False to start again"
        )
    with network.device.activate():
        for source, target in zip(*buffers, strict=True):
            target[...] = network.device.asarray(old.device.to_host(source), network.dtype)
    return network


def _output_of(parameters: EstimatorParameters) -> Activation:
    """Return the activation for which a network without hidden layers draws its weights."""
    spec = parameters.activation
    if isinstance(spec, (str, dict, Activation)):
        return _activation(parameters, spec)
    return Activation.resolve("identity")


def _activation(parameters: EstimatorParameters, spec: Any) -> Activation:
    if isinstance(spec, str) and spec == "logistic":  # scikit-learn's name
        spec = "sigmoid"
    found: Activation = resolved(parameters, "activation", Activation, spec)
    return found
