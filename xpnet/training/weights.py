"""Sample weights and class weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from xpnet.device import Device
from xpnet.kernels.reference import Array
from xpnet.nn.checks import check_positive, is_integer
from xpnet.nn.losses import Loss

__all__ = ["sample_weights"]


def sample_weights(
    sample_weight: Any,
    class_weight: str | Sequence[float] | Mapping[int, float] | None,
    labels: Array,
    device: Device,
    *,
    loss: Loss,
    n_outputs: int,
) -> tuple[npt.NDArray[np.float64] | None, float]:
    """Combine the weights of samples with those of their classes.

    Parameters
    ----------
    sample_weight : array_like (n_samples,) or None
        Weights of the samples.
    class_weight : "balanced", sequence, mapping or None
        Weights of the classes; see :func:`xpnet.training.fit`.
    labels : device array (n_samples,) or (n_samples, n_outputs)
        Labels as returned by the loss.
    device : Device
        Device of the labels.
    loss : Loss
        Loss of the labels.
    n_outputs : int
        Number of outputs of the network.

    Returns
    -------
    weights : float64 array (n_samples,) or None
        Weights, scaled so that the largest is 1, which is in the range of every dtype; only their
        ratios matter. None if all are equal.
    unit : float
        Factor that the weights were divided by; may be infinite.

    Raises
    ------
    ValueError, TypeError
        If a weight is negative or not finite, all weights are 0, their number is wrong, or class
        weights are given for labels without classes.
    """
    if sample_weight is None and class_weight is None:
        return None, 1.0
    n_samples = len(labels)
    weights = np.ones(n_samples)
    if sample_weight is not None:
        on_device = device.asarray(sample_weight, np.float64, name="sample_weight")
        weights = device.to_host(on_device).copy()
        if weights.shape != (n_samples,):
            raise ValueError(
                f"sample_weight must have shape ({n_samples},), one for each sample, got "
                f"{weights.shape}"
            )
        if not (np.isfinite(weights).all() and (weights >= 0).all()):
            raise ValueError("sample_weight must be finite and at least 0")
    largest = float(weights.max())
    if largest > 0:
        weights /= largest
    if class_weight is not None:
        classes = _classes(device.to_host(labels), loss)
        per_class = _class_weights(class_weight, classes, max(n_outputs, 2))
        if per_class.any():
            largest *= float(per_class.max())  # infinite where it overflows
            per_class = per_class / per_class.max()
        weights *= per_class[classes]
    if not weights.any():
        raise ValueError("the weights of all samples are 0: there is nothing to train on")
    return weights / weights.max(), largest * float(weights.max())


def _classes(labels: npt.NDArray[Any], loss: Loss) -> npt.NDArray[np.int64]:
    """Return the class of each sample; a probability above 1/2 is class 1."""
    if labels.dtype.kind in "iu":
        return labels.astype(np.int64, copy=False)
    if labels.ndim == 2 and labels.shape[1] == 1 and loss.has_classes:
        return (labels[:, 0] > 0.5).astype(np.int64)
    raise ValueError(
        "class_weight needs one class per sample and cannot be used for regression or several "
        f"labels, got loss {loss!r}"
    )


def _class_weights(
    class_weight: str | Sequence[float] | Mapping[int, float],
    classes: npt.NDArray[np.int64],
    n_classes: int,
) -> npt.NDArray[np.float64]:
    if isinstance(class_weight, str) and class_weight == "balanced":
        counts = np.bincount(classes, minlength=n_classes)
        # A class without samples is not counted, and its weight does not matter.
        return len(classes) / (np.count_nonzero(counts) * np.maximum(counts, 1))
    if isinstance(class_weight, Mapping):
        weights = np.ones(n_classes)
        for key, value in class_weight.items():
            if not is_integer(key) or not 0 <= key < n_classes:
                raise ValueError(
                    f"keys of class_weight must be classes from 0 to {n_classes - 1}, got {key!r}"
                )
            weights[key] = check_positive(f"class_weight[{key}]", value, zero=True)
        return weights
    is_list = isinstance(class_weight, (Sequence, np.ndarray)) and np.ndim(class_weight) == 1
    if isinstance(class_weight, str) or not is_list:
        raise ValueError(f"class_weight must be 'balanced', a list or a dict, got {class_weight!r}")
    if len(class_weight) != n_classes:
        raise ValueError(
            f"class_weight must have a number for each of the {n_classes} classes, got "
            f"{len(class_weight)}"
        )
    numbers: list[Any] = list(class_weight)
    return np.array([check_positive("class_weight", value, zero=True) for value in numbers])
