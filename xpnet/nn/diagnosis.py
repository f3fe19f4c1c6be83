"""Diagnose a network's activations and gradients, layer by layer."""

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

_GRID = (-10.0, 10.0, 4001)  # points at which an activation's largest derivative is searched
_NUMBERS = 6  # numbers measured for each layer


@dataclass(frozen=True)
class LayerDiagnosis:
    """Result of :func:`diagnose` for one layer's output, over all samples and units.

    Attributes
    ----------
    label : str
        Position, name, number of outputs and activation of the layer; or ``"input"``.
    mean, variance : float
        Mean and variance of the output.
    gradient_mean, gradient_variance : float
        Mean and variance of the gradient with respect to the output.
    saturated : float or None
        Fraction of the elements where the activation's derivative is small; None for the identity
        and for a layer without an activation.
    dead : float or None
        Fraction of the units whose derivative is exactly 0 for every sample; None as above.
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
        """Second moment of the output, ``variance + mean^2``."""
        return self.variance + self.mean * self.mean


@dataclass(frozen=True)
class Diagnosis:
    """Result of :func:`diagnose`.

    Attributes
    ----------
    input : LayerDiagnosis
        Result for the batch itself and the gradient with respect to it.
    layers : tuple of LayerDiagnosis
        Results for the layers of the network, in order.
    n_samples : int
        Number of samples in the batch.
    saturated_below : float
        The threshold that was given.
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
        return "\n".join([f"signals in a batch of {self.n_samples} samples", *table, *meanings])

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain dictionaries for JSON; non-finite numbers become None."""
        return {
            "n_samples": self.n_samples,
            "saturated_below": self.saturated_below,
            "input": _plain(self.input),
            "layers": [_plain(layer) for layer in self.layers],
        }


_COLUMNS = {
    "mean": "mean of the layer's output over samples and units",
    "variance": "variance of the output",
    "mean square": "variance + mean^2 of the output",
    "gradient mean": "mean of the gradient with respect to the output",
    "gradient variance": "variance of that gradient",
    "saturated": "share of elements whose activation has a derivative below {:g} times its largest",
    "dead": "share of units whose activation has derivative 0 for every sample",
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
    """Run a batch forward and backward in training mode and measure the signals in each layer.

    For each layer, this computes the mean and variance of the output and of the gradient with
    respect to it, before that layer's own derivative. Good initialisation keeps the size of both
    signals from layer to layer. Variances that shrink or grow by a factor per layer show that it
    does not; saturated and dead units show where gradients stop.

    Saturation is measured for each activation, inside a :class:`Dense` layer (at ``Z = X W + b``)
    or as a separate layer. An element is saturated if ``|f'(Z)|`` is below ``saturated_below``
    times the largest ``|f'|`` on [-10, 10]; for a ReLU these are the inactive elements. A unit is
    dead if ``f'(Z)`` is exactly 0 for every sample, so that its weights get no gradient. A ReLU is
    dead if it is inactive on the whole batch, a tanh if its output has rounded to 1 or -1.

    The parameters, gradients and statistics of the network are restored afterwards, bit by bit.
    Do not train the network at the same time.

    Parameters
    ----------
    network : Network
        Network to diagnose.
    X : array_like (n_samples, n_features)
        The batch; must be finite.
    y : array_like, optional
        Labels; required if ``loss`` is given.
    loss : str, dict or Loss, optional
        Loss whose mean over the batch is differentiated. By default the gradient at the output is
        drawn from the standard normal distribution.
    saturated_below : float
        Threshold for saturation, in (0, 1).
    seed : int
        Seed of the random gradient at the output and of dropout masks.

    Returns
    -------
    Diagnosis
        The statistics are computed in float64 from signals in the network's dtype. A signal that
        overflows gives infinities and nans.

    Raises
    ------
    ValueError, TypeError
        If the arguments do not fit each other, or a layer does not return the gradient of its
        input.

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
    """Return the gradient with respect to the output."""
    device, dtype = network.device, network.dtype
    if loss is None:
        drawn = np.random.default_rng(seed).standard_normal(output.shape)
        return device.asarray(drawn, dtype)
    labels = loss.labels(device, y, network.n_outputs, dtype)
    if len(labels) != len(output):
        raise ValueError(f"X and y must have the same length, got {len(output)} and {len(labels)}")
    losses, mean = device.xp.empty(len(output), dtype=dtype), device.xp.empty(1, dtype=dtype)
    dlogits = device.xp.empty_like(output)
    loss.forward(device.ops, output, labels, losses, mean, dlogits)
    return dlogits


class _Measurement:
    """Run both passes with the layers' own methods and measure each output.

    Attributes
    ----------
    numbers : float64 device array (1 + n_layers, 6)
        For the input and each layer: mean and variance of the output, mean and variance of the
        gradient, saturated, dead.
    labels : list of str
        Label of each row.
    has_shares : list of bool
        Whether the last two numbers of a row are measured.
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
        """Write the mean and variance."""
        xp, wide = self.network.device.xp, values.astype(self.numbers.dtype)
        mean = wide.mean()
        self.numbers[row, column] = mean
        self.numbers[row, column + 1] = xp.square(wide - mean).mean()

    def _write_shares(self, row: int, f: Activation, Z: Array) -> None:
        """Write the fractions of saturated elements and of dead units."""
        grid = self.network.device.asarray(np.linspace(*_GRID)[:, None], Z.dtype)
        largest = _slope(f, grid).max()
        slope = _slope(f, Z)
        self.numbers[row, 4] = (slope < self.saturated_below * largest).mean()
        self.numbers[row, 5] = (slope == 0).all(axis=0).mean()


def _activation(layer: Layer) -> Activation | None:
    """Return the activation of a layer if its derivative is known and not constant, else None."""
    f: Any = layer
    if isinstance(layer, Dense):  # a subclass may compute something else
        f = layer._f if type(layer).forward is Dense.forward else None
    if not isinstance(f, Activation) or isinstance(f, Identity):
        return None
    is_known = all(
        getattr(type(f), name) is not getattr(Activation, name)
        for name in ("function", "derivative")
    )
    return f if is_known else None


def _input_of(layer: Layer, X: Array) -> Array:
    """Return ``Z``, recomputed for a Dense layer, which may not have kept it."""
    if not isinstance(layer, Dense):
        return X
    Z = layer.ops.matmul(X, layer.W)
    return layer.ops.add_bias(Z, layer.b, out=Z) if layer.bias else Z


def _slope(f: Activation, Z: Array) -> Array:
    """Compute ``|f'(Z)|``, broadcast to the shape of Z."""
    return f.xp.abs(f.xp.ones_like(Z) * f.derivative(Z, f.function(Z)))
