"""Diagnosis of a network's activations and gradients, layer by layer."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from xpnet.kernels.reference import Array
from xpnet.nn.activations import Identity
from xpnet.nn.batch import Batch
from xpnet.nn.checks import check_positive
from xpnet.nn.interfaces import Activation, Layer
from xpnet.nn.layers import Dense
from xpnet.nn.losses import Loss, resolve_with_labels
from xpnet.nn.network import Network, load_batch, missing_gradient
from xpnet.random import check_seed

__all__ = ["Diagnosis", "LayerDiagnosis", "diagnose"]

_GRID = (-10.0, 10.0, 4001)  # where an activation's largest derivative is looked for
_NUMBERS = 6  # that are measured of each layer


@dataclass(frozen=True)
class LayerDiagnosis:
    """What :func:`diagnose` finds at one layer's output, over all samples and units.

    Attributes
    ----------
    label : str
        The layer's place, name and number of outputs, and its activation; or ``"input"``.
    mean, variance : float
        Of the output.
    gradient_mean, gradient_variance : float
        Of the gradient with respect to the output.
    saturated : float or None
        Share of the elements at which the activation's derivative is small; None where there is no
        activation or it is the identity.
    dead : float or None
        Share of the units whose derivative is exactly 0 for every sample; None as above.
    """

    label: str
    mean: float
    variance: float
    gradient_mean: float
    gradient_variance: float
    saturated: float | None = None
    dead: float | None = None

    @property
    def mean_square(self) -> float:
        """The second moment of the output, ``variance + mean^2``."""
        return self.variance + self.mean * self.mean


@dataclass(frozen=True)
class Diagnosis:
    """The outcome of :func:`diagnose`.

    Attributes
    ----------
    input : LayerDiagnosis
        The batch itself, and the gradient with respect to it.
    layers : tuple of LayerDiagnosis
        One for each layer of the network, in order.
    n_samples : int
        Size of the batch.
    saturated_below : float
        As given.
    """

    input: LayerDiagnosis
    layers: tuple[LayerDiagnosis, ...]
    n_samples: int
    saturated_below: float

    def __str__(self) -> str:
        rows = [("layer", *_COLUMNS)]
        for layer in (self.input, *self.layers):
            moments = (layer.mean, layer.variance, layer.mean_square)
            numbers = (*moments, layer.gradient_mean, layer.gradient_variance)
            shares = ("-" if s is None else f"{s:.1%}" for s in (layer.saturated, layer.dead))
            rows.append((layer.label, *(f"{number:.3g}" for number in numbers), *shares))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        table = [
            "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])])
            for row in rows
        ]
        meanings = [
            f"  {column}: {meaning.format(self.saturated_below)}"
            for column, meaning in _COLUMNS.items()
        ]
        return "\n".join([f"signals of a batch of {self.n_samples}", *table, *meanings])

    def to_dict(self) -> dict[str, Any]:
        """Give everything as plain tables, for JSON: what is not finite becomes None."""
        return {
            "n_samples": self.n_samples,
            "saturated_below": self.saturated_below,
            "input": _plain(self.input),
            "layers": [_plain(layer) for layer in self.layers],
        }


_COLUMNS = {
    "mean": "of the layer's output, over samples and units",
    "variance": "of the output",
    "mean square": "of the output, variance + mean^2",
    "gradient mean": "of the gradient with respect to the output",
    "gradient variance": "of that gradient",
    "saturated": "elements whose activation's derivative is below {:g} times its largest",
    "dead": "units whose activation's derivative is 0 for every sample",
}


def _plain(layer: LayerDiagnosis) -> dict[str, Any]:
    values = {**dataclasses.asdict(layer), "mean_square": layer.mean_square}
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in values.items()
    }


def diagnose(
    network: Network,
    X: Any,
    y: Any = None,
    *,
    loss: str | dict[str, Any] | Loss | None = None,
    saturated_below: float = 0.05,
    seed: int = 0,
) -> Diagnosis:
    """Measure what a batch does in a network: one forward and one backward pass in training mode.

    Layer by layer, the mean and variance of the output and of the gradient with respect to it,
    before that layer's own derivative. Signals that keep their size from layer to layer are what
    initialisation aims at; variances that fall or rise by a factor per layer show that it does not
    succeed, and saturated and dead units where gradients stop.

    Saturation is looked at where an activation is: in a :class:`Dense` layer, at ``Z = X W + b``,
    and in one that is a layer of its own. An element is saturated where ``|f'(Z)|`` lies below
    ``saturated_below`` times the largest ``|f'|`` on [-10, 10]. Of a ReLU those are the elements
    that are off. A unit is dead if ``f'(Z)`` is exactly 0 for every sample: nothing reaches its
    weights. For a ReLU that means off on the whole batch; a tanh is dead where it has rounded to 1.

    Parameters, gradients and statistics of the network are afterwards what they were, bit by bit.
    Nothing may train the network meanwhile.

    Parameters
    ----------
    network : Network
    X : array_like (n_samples, n_features)
        The batch, finite.
    y : array_like, optional
        Labels; needed with a loss, and only then.
    loss : str, dict or Loss, optional
        Whose mean over the batch the gradients are of. Without one, a random upstream gradient
        from the standard normal distribution stands at the output.
    saturated_below : float
        In (0, 1).
    seed : int
        Of what is drawn: the upstream gradient, and what dropout drops.

    Returns
    -------
    Diagnosis
        Numbers are computed in float64 from the network's own. A signal that overflows gives
        infinities and nans.

    Raises
    ------
    ValueError, TypeError
        If the arguments do not fit each other, or a layer gives no gradient of its input.

    References
    ----------
    Glorot and Bengio, "Understanding the difficulty of training deep feedforward neural
    networks", AISTATS 2010, sections 3 and 4, whose figures show these quantities.
    """
    if not isinstance(network, Network):
        raise TypeError(f"network must be a Network, got {network!r}")
    if not check_positive("saturated_below", saturated_below) < 1:
        raise ValueError(f"saturated_below must lie in (0, 1), got {saturated_below!r}")
    chosen = resolve_with_labels(loss, y)
    check_seed(seed)
    device = network.device
    X = load_batch(network, X)
    measure = _Measurement(network, X, saturated_below, seed)
    with device.activate():
        buffers = (network.parameters, network.gradients, network.statistics)
        kept = [buffer.copy() for buffer in buffers]
        try:
            output = measure.forward()
            measure.backward(_upstream(network, output, y, chosen, seed))
            found = device.to_host(measure.numbers)
        finally:
            for buffer, values in zip(buffers, kept, strict=True):
                buffer[...] = values
    records = [
        LayerDiagnosis(label, *map(float, row[:4]), *(map(float, row[4:]) if has_shares else ()))
        for label, has_shares, row in zip(measure.labels, measure.has_shares, found, strict=True)
    ]
    return Diagnosis(records[0], tuple(records[1:]), len(X), float(saturated_below))


def _upstream(network: Network, output: Array, y: Any, loss: Loss | None, seed: int) -> Array:
    """Give the gradient with respect to the output."""
    device, dtype = network.device, network.dtype
    if loss is None:
        drawn = np.random.default_rng(seed).standard_normal(output.shape)
        return device.asarray(drawn, dtype)
    labels = loss.labels(device, y, network.n_outputs, dtype)
    if len(labels) != len(output):
        raise ValueError(f"X and y must have one length, got {len(output)} and {len(labels)}")
    losses, mean = device.xp.empty(len(output), dtype=dtype), device.xp.empty(1, dtype=dtype)
    dlogits = device.xp.empty_like(output)
    loss.forward(device.ops, output, labels, losses, mean, dlogits)
    return dlogits


class _Measurement:
    """Both passes through a network, by its layers' own methods, with a look at each output.

    Attributes
    ----------
    numbers : float64 device array (1 + n_layers, 6)
        Of the input and of each layer: mean, variance, those of the gradient, saturated, dead.
    labels : list of str
    has_shares : list of bool
        Whether the last two numbers are there.
    """

    def __init__(self, network: Network, X: Array, saturated_below: float, seed: int) -> None:
        self.network, self.X = network, X
        self.saturated_below, self.seed = saturated_below, seed
        self.labels, self.has_shares = ["input"], [False]

    def forward(self) -> Array:
        network, device, n = self.network, self.network.device, len(self.X)
        shape = (1 + len(network.layers), _NUMBERS)
        self.numbers = device.xp.zeros(shape, dtype=device.xp.float64)
        batch = Batch.of(device, n, network.dtype, seed=self.seed)
        self.caches = network.allocate(n, training=True, input_gradient=True, batch=batch)
        A = self.X
        self._write(0, 0, A)
        for number, (layer, cache) in enumerate(zip(network.layers, self.caches, strict=True)):
            X, A = A, layer.forward(A, cache)
            self._write(1 + number, 0, A)
            f = _activation(layer)
            words = [str(number), layer.name, str(A.shape[-1])]
            if f is not None and f is not layer:
                words.append(f.name)
            self.labels.append(" ".join(words))
            self.has_shares.append(f is not None)
            if f is not None:
                self._write_shares(1 + number, f, _input_of(layer, X))
        return A

    def backward(self, dA: Array) -> None:
        network = self.network
        for number in reversed(range(len(network.layers))):
            self._write(1 + number, 2, dA)
            layer = network.layers[number]
            dX = layer.backward(dA, self.caches[number])
            if dX is None:
                raise missing_gradient(layer)
            dA = dX.astype(network.dtype, copy=False)
        self._write(0, 2, dA)

    def _write(self, row: int, column: int, values: Array) -> None:
        """Put mean and variance into their place."""
        xp, wide = self.network.device.xp, values.astype(self.numbers.dtype)
        mean = wide.mean()
        self.numbers[row, column] = mean
        self.numbers[row, column + 1] = xp.square(wide - mean).mean()

    def _write_shares(self, row: int, f: Activation, Z: Array) -> None:
        """Put the shares of saturated elements and of dead units into their place."""
        grid = self.network.device.asarray(np.linspace(*_GRID)[:, None], Z.dtype)
        largest = _slope(f, grid).max()
        slope = _slope(f, Z)
        self.numbers[row, 4] = (slope < self.saturated_below * largest).mean()
        self.numbers[row, 5] = (slope == 0).all(axis=0).mean()


def _activation(layer: Layer) -> Activation | None:
    """Give the activation that a layer is or has, if its derivative is known and not constant."""
    f: Any = layer
    if isinstance(layer, Dense):  # of which a subclass may compute something else
        f = layer._f if type(layer).forward is Dense.forward else None
    if not isinstance(f, Activation) or isinstance(f, Identity):
        return None
    is_known = all(
        getattr(type(f), name) is not getattr(Activation, name)
        for name in ("function", "derivative")
    )
    return f if is_known else None


def _input_of(layer: Layer, X: Array) -> Array:
    """Give ``Z``, which a Dense layer may not have kept."""
    if not isinstance(layer, Dense):
        return X
    Z = layer.ops.matmul(X, layer.W)
    return layer.ops.add_bias(Z, layer.b, out=Z) if layer.bias else Z


def _slope(f: Activation, Z: Array) -> Array:
    """Compute ``|f'(Z)|``, of Z's shape whatever the activation gives."""
    return f.xp.abs(f.xp.ones_like(Z) * f.derivative(Z, f.function(Z)))
