"""Check training and validation data and move them to the device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from xpnet.device import Device
from xpnet.kernels.reference import Array
from xpnet.nn.losses import Loss
from xpnet.nn.network import Network, check_divisor, check_samples
from xpnet.nn.sparse import SparseSamples, is_sparse
from xpnet.training.weights import sample_weights

__all__ = ["TrainingData", "load_training_data", "samples", "shares"]

# What the error recommends if samples do not fit into a GPU's memory.
_TOO_LARGE = "train on fewer samples, or on the CPU"
_BYTES = "pass uint8 data with divide_by if possible"
_TOO_WIDE = {
    "float32": _BYTES,
    "float64": f"use dtype float32, which needs half the memory; {_BYTES}",
}


@dataclass(frozen=True)
class TrainingData:
    """Training samples with labels and weights, and held-out samples.

    Attributes
    ----------
    X : device array or SparseSamples
        Samples.
    y : device array
        Labels.
    weights : float64 array (n_samples,) or None
        Sample weights on the host, scaled so that the largest is 1; None if all are equal.
    unit : float
        Factor that the weights were divided by.
    divide_by : float or None
        Divisor of uint8 data.
    held_out : tuple or None
        Samples, labels and normalised weights of the validation data, on the device.
    """

    X: Array | SparseSamples
    y: Array
    weights: npt.NDArray[np.float64] | None
    unit: float
    divide_by: float | None
    held_out: tuple[Array | SparseSamples, Array, Array | None] | None

    def __len__(self) -> int:
        return len(self.X)

    @property
    def total_weight(self) -> float:
        """Sum of the sample weights as given, or the number of samples without weights."""
        return float(len(self)) if self.weights is None else float(self.weights.sum()) * self.unit


def load_training_data(
    network: Network,
    loss: Loss,
    X: Any,
    y: Any,
    *,
    sample_weight: Any,
    class_weight: str | Sequence[float] | Mapping[int, float] | None,
    divide_by: float | None,
    validation: Any,
) -> TrainingData:
    """Check the data and move them to the device; the parameters are those of ``fit``.

    Raises
    ------
    ValueError, TypeError
        If the data do not fit the network.
    """
    X_data, y_data = samples(network, loss, X, y, "")
    weights, unit = sample_weights(
        sample_weight, class_weight, y_data, network.device, loss=loss, n_outputs=network.n_outputs
    )
    divide_by = check_divisor(divide_by, X_data, network.dtype)
    held_out = None
    if validation is not None:
        if not isinstance(validation, (tuple, list)) or len(validation) not in (2, 3):
            raise ValueError(
                "validation must be a tuple (X, y) or (X, y, sample_weight), got "
                f"{type(validation).__name__}"
            )
        X_held_out, y_held_out = samples(network, loss, validation[0], validation[1], "validation ")
        check_divisor(divide_by, X_held_out, network.dtype, name="validation X")
        held_out = X_held_out, y_held_out, shares(network, loss, y_held_out, *validation[2:])
    return TrainingData(X_data, y_data, weights, unit, divide_by, held_out)


def samples(
    network: Network, loss: Loss, X: Any, y: Any, prefix: str
) -> tuple[Array | SparseSamples, Array]:
    """Check samples and labels and move them; bytes stay bytes, and sparse samples stay sparse."""
    is_bytes = getattr(X, "dtype", None) == np.uint8
    dtype = None if is_bytes else network.dtype
    advice = _TOO_LARGE if is_bytes else f"{_TOO_WIDE[network.dtype.name]}; {_TOO_LARGE}"
    X_data: Array | SparseSamples
    if is_sparse(X):
        check_samples(X, network.n_features, name=f"{prefix}X")
        X_data = SparseSamples(X, network.device, network.dtype, name=f"{prefix}X")
    else:
        X_data = network.device.asarray(X, dtype, name=f"{prefix}X", advice=advice)
        check_samples(X_data, network.n_features, name=f"{prefix}X")
    if len(X_data) == 0:
        raise ValueError(f"{prefix}X must hold at least one sample, got none")
    if not is_bytes:
        _check_finite(network.device, X_data, f"{prefix}X")
    y_data = loss.labels(network.device, y, network.n_outputs, network.dtype, name=f"{prefix}y")
    if len(y_data) != len(X_data):
        raise ValueError(
            f"{prefix}X and {prefix}y must have the same length, got {len(X_data)} samples and "
            f"{len(y_data)} labels"
        )
    return X_data, y_data


def shares(network: Network, loss: Loss, labels: Array, sample_weight: Any = None) -> Array | None:
    """Return sample weights that sum to 1, in the network's dtype; None if all are equal."""
    device, n_outputs = network.device, network.n_outputs
    weights, _ = sample_weights(sample_weight, None, labels, device, loss=loss, n_outputs=n_outputs)
    if weights is None:
        return None
    return device.asarray(weights / weights.sum(), network.dtype, name="sample_weight")


def _check_finite(device: Device, X: Array | SparseSamples, name: str) -> None:
    xp, values = (np, X.data) if isinstance(X, SparseSamples) else (device.xp, X)
    with device.activate(), np.errstate(all="ignore"):
        # A sum takes one pass and no memory; check every element only if the sum is not finite.
        if bool(xp.isfinite(values.sum())):
            return
        n_bad = int((~xp.isfinite(values)).sum())
        if n_bad:
            raise ValueError(f"{name} must be finite, got {n_bad} values that are nan or infinite")
