"""How much samples count: weights of their own, and of their classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from xpnet.device import host_array
from xpnet.nn.base import Loss, check_positive

__all__ = ["sample_weights"]


def sample_weights(
    sample_weight: Any,
    class_weight: str | Sequence[float] | Mapping[int, float] | None,
    labels: npt.NDArray[Any],
    n_samples: int,
    *,
    loss: Loss,
) -> npt.NDArray[np.float64] | None:
    """Combine the weights of samples with those of their classes.

    Parameters
    ----------
    sample_weight : array_like (n_samples,) or None
    class_weight : "balanced", sequence, mapping or None
        See :func:`xpnet.training.fit`.
    labels : array (n_samples,) or (n_samples, n_outputs)
        As the loss gives them, on the host.
    n_samples : int
    loss : Loss

    Returns
    -------
    float64 array (n_samples,) or None
        None where all samples count the same.

    Raises
    ------
    ValueError, TypeError
        If a weight is negative or not finite, all are 0, or there are not as many as there must
        be; or if the loss has no classes.
    """
    if sample_weight is None and class_weight is None:
        return None
    weights = np.ones(n_samples)
    if sample_weight is not None:
        weights = host_array(sample_weight, np.float64, name="sample_weight").copy()
        if weights.shape != (n_samples,):
            raise ValueError(
                f"sample_weight must have shape ({n_samples},), one for each sample, got "
                f"{weights.shape}"
            )
        if not (np.isfinite(weights).all() and (weights >= 0).all()):
            raise ValueError("sample_weight must be finite and at least 0")
    if class_weight is not None:
        classes = _classes(labels, loss)
        weights *= _of_classes(class_weight, classes)[classes]
    if not weights.any():
        raise ValueError("the weights of all samples are 0: there is nothing to train on")
    return weights


def _classes(labels: npt.NDArray[Any], loss: Loss) -> npt.NDArray[np.int64]:
    """Give the class of each sample; a probability above 1/2 is class 1."""
    if labels.dtype.kind in "iu":
        return labels.astype(np.int64, copy=False)
    if labels.ndim == 2 and labels.shape[1] == 1 and loss.has_classes:
        return (labels[:, 0] > 0.5).astype(np.int64)
    raise ValueError(f"class_weight is for labels of one class each, which {loss!r} has not here")


def _of_classes(
    class_weight: str | Sequence[float] | Mapping[int, float], classes: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    counts = np.bincount(classes, minlength=2)
    if isinstance(class_weight, str):
        if class_weight != "balanced":
            raise ValueError(
                f"class_weight must be 'balanced', a list or a dict, got {class_weight!r}"
            )
        # A class without samples has no part, and its weight no meaning.
        return len(classes) / (np.count_nonzero(counts) * np.maximum(counts, 1))
    if isinstance(class_weight, Mapping):
        weights = np.ones(len(counts))
        for key, value in class_weight.items():
            if isinstance(key, bool) or not isinstance(key, (int, np.integer)) or key < 0:
                raise ValueError(f"class_weight must have classes 0, 1, ... for keys, got {key!r}")
            if key < len(weights):
                weights[key] = check_positive(f"class_weight[{key}]", value, zero=True)
        return weights
    values = [check_positive("class_weight", value, zero=True) for value in class_weight]
    if len(values) < len(counts):
        raise ValueError(
            f"class_weight must have a number for each of the {len(counts)} classes, got "
            f"{len(values)}"
        )
    return np.array(values)
