"""Losses on logits.

A loss takes the last layer's ``Z`` before any squashing. Sigmoid or softmax and logarithm then
combine into expressions that neither overflow nor take the logarithm of 0, and their joint
derivative is simply ``prediction - label``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from xpnet.device import Device
from xpnet.kernels.reference import Array, ReferenceOps
from xpnet.nn.base import Loss

__all__ = ["SigmoidCrossEntropy", "SoftmaxCrossEntropy"]


class SigmoidCrossEntropy(Loss):
    """Binary cross-entropy on logits, for two classes or for several independent labels.

    With ``A = sigmoid(Z)`` the loss of a sample is ``-sum_j [Y_j log A_j + (1 - Y_j) log(1 -
    A_j)]``. Putting ``log A = -softplus(-Z)`` and ``log(1 - A) = -softplus(Z)`` in, and
    ``softplus(-Z) = softplus(Z) - Z``, leaves ``sum_j [softplus(Z_j) - Y_j Z_j]``. Since
    ``softplus' = sigmoid``, the gradient is ``A - Y``; the mean over n samples divides it by n.
    """

    name = "sigmoid_cross_entropy"

    def labels(
        self, device: Device, y: Any, n_outputs: int, dtype: npt.DTypeLike, *, name: str = "y"
    ) -> Array:
        """Check labels in [0, 1] and shape them (n_samples, n_outputs), in the network's dtype."""
        labels = device.asarray(y, dtype, name=name)
        if labels.ndim == 1 and n_outputs == 1:
            labels = labels.reshape(-1, 1)
        if labels.ndim != 2 or labels.shape[1] != n_outputs:
            raise ValueError(
                f"{name} must have shape (n_samples, {n_outputs}), one column for each output, "
                f"got {labels.shape}"
            )
        with device.activate():
            if not bool(((labels >= 0) & (labels <= 1)).all()):
                raise ValueError(
                    f"{name} must hold 0, 1 or probabilities between them, got values from "
                    f"{float(labels.min())} to {float(labels.max())}"
                )
        return labels

    def forward(
        self,
        ops: ReferenceOps,
        logits: Array,
        labels: Array,
        losses: Array,
        mean: Array,
        dlogits: Array | None = None,
    ) -> None:
        """Compute the losses, their mean and its gradient."""
        ops.sigmoid_cross_entropy(logits, labels, losses, dlogits)
        ops.mean(losses, out=mean)

    def probabilities(self, ops: ReferenceOps, logits: Array) -> Array:
        """Compute ``A = sigmoid(Z)``, of shape (n_samples, n_outputs)."""
        return ops.sigmoid(logits)

    def decide(self, ops: ReferenceOps, logits: Array) -> Array:
        """1 where ``A > 1/2``, that is ``Z > 0``, else 0; shape and dtype of the logits."""
        del ops
        return (logits > 0).astype(logits.dtype)

    def correct(self, ops: ReferenceOps, logits: Array, labels: Array) -> Array:
        """Compare decisions with labels, a label above 1/2 counting as 1: bool (n_samples,)."""
        return super().correct(ops, logits, (labels > 0.5).astype(labels.dtype))


class SoftmaxCrossEntropy(Loss):
    """Cross-entropy of the softmax of the logits, for one class out of several.

    With ``P = softmax(Z)`` and ``y`` the sample's class, the loss is ``-log P_y = log sum_k
    exp(Z_k) - Z_y``. The first term's derivative with respect to ``Z_k`` is ``P_k``, the second's
    is 1 for ``k = y``, so the gradient is ``P - onehot(y)``; the mean over n samples divides it
    by n.
    """

    name = "softmax_cross_entropy"

    def labels(
        self, device: Device, y: Any, n_outputs: int, dtype: npt.DTypeLike, *, name: str = "y"
    ) -> Array:
        """Check class indices in [0, n_outputs) and give them as int64 (n_samples,)."""
        del dtype
        labels = device.asarray(y, name=name)
        if labels.dtype.kind not in "iu":
            raise TypeError(f"{name} must hold integer class indices, got dtype {labels.dtype}")
        if labels.ndim != 1:
            raise ValueError(f"{name} must have shape (n_samples,), got {labels.shape}")
        with device.activate():
            if labels.size and not bool(((labels >= 0) & (labels < n_outputs)).all()):
                raise ValueError(
                    f"{name} must hold classes 0 to {n_outputs - 1}, one for each output, got "
                    f"values from {int(labels.min())} to {int(labels.max())}"
                )
            return labels.astype(np.int64, copy=False)

    def forward(
        self,
        ops: ReferenceOps,
        logits: Array,
        labels: Array,
        losses: Array,
        mean: Array,
        dlogits: Array | None = None,
    ) -> None:
        """Compute the losses, their mean and its gradient."""
        ops.softmax_cross_entropy(logits, labels, losses, dlogits)
        ops.mean(losses, out=mean)

    def probabilities(self, ops: ReferenceOps, logits: Array) -> Array:
        """Compute ``P = softmax(Z)``, of shape (n_samples, n_classes)."""
        return ops.softmax(logits)

    def decide(self, ops: ReferenceOps, logits: Array) -> Array:
        """Return the class with the largest logit, int64 (n_samples,)."""
        return ops.xp.argmax(logits, axis=-1)
