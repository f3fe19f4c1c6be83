"""Losses on logits: cross-entropies, squared error, Poisson deviance.

A loss takes the last layer's ``Z``, before any sigmoid or softmax. Sigmoid or softmax and logarithm
then combine into expressions that neither overflow nor take the logarithm of 0, and their joint
derivative is simply ``prediction - label``.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from xpnet.device import Device
from xpnet.kernels.reference import Array, ReferenceOps
from xpnet.nn.checks import check_fraction, check_positive
from xpnet.nn.registry import Configurable

__all__ = [
    "Loss",
    "MeanSquaredError",
    "PoissonDeviance",
    "SigmoidCrossEntropy",
    "SoftmaxCrossEntropy",
    "determination",
]


class Loss(Configurable):
    """Base class of losses on logits, which take the mean over the batch and interpret the output.

    Attributes
    ----------
    has_classes : bool
        Whether the labels are classes, as opposed to regression targets.
    has_negatives : bool
        Whether regression targets may be negative, as standardised targets are.
    score_name : str
        Name of the quantity that :meth:`score` computes, for tables and plots.
    """

    has_classes: ClassVar[bool] = True
    has_negatives: ClassVar[bool] = True
    score_name: ClassVar[str] = "accuracy"

    def labels(
        self, device: Device, y: Any, n_outputs: int, dtype: npt.DTypeLike, *, name: str = "y"
    ) -> Array:
        """Check labels, convert them to the form that :meth:`forward` takes and move them.

        Parameters
        ----------
        device : Device
            Device to move the labels to.
        y : array_like (n_samples,) or (n_samples, n_outputs)
            Labels.
        n_outputs : int
            Number of outputs of the network.
        dtype : dtype
            Dtype of the network.
        name : str
            Name of the argument in error messages.

        Returns
        -------
        array (n_samples, ...)

        Raises
        ------
        TypeError, ValueError
            If the labels do not fit the loss or the network.
        """
        raise NotImplementedError(f"{type(self).__name__} must define labels(...)")

    def forward(
        self,
        ops: ReferenceOps,
        logits: Array,
        labels: Array,
        losses: Array,
        mean: Array,
        dlogits: Array | None = None,
        weights: Array | None = None,
    ) -> None:
        """Compute the loss of every sample, the mean loss and, optionally, its gradient.

        Parameters
        ----------
        ops : ReferenceOps
            Operations of the device.
        logits : array (..., n_samples, n_outputs)
            Output of the network.
        labels : array
            Labels as returned by :meth:`labels`.
        losses : array (..., n_samples)
            Overwritten with the loss of every sample.
        mean : array (..., 1)
            Overwritten with the mean loss.
        dlogits : array like logits, optional
            Overwritten with the gradient of ``mean``.
        weights : array (..., n_samples), optional
            Weights of the samples in the mean, which sum to 1. By default all samples have equal
            weights. A loss that is never used with sample or class weights may omit this argument.
        """
        raise NotImplementedError(f"{type(self).__name__} must define forward(...)")

    def probabilities(self, ops: ReferenceOps, logits: Array) -> Array:
        """Convert logits to probabilities."""
        raise NotImplementedError(f"{type(self).__name__} must define probabilities(ops, logits)")

    def decide(self, ops: ReferenceOps, logits: Array) -> Array:
        """Convert logits to predicted labels, in the form that :meth:`labels` returns."""
        raise NotImplementedError(f"{type(self).__name__} must define decide(ops, logits)")

    def score(
        self, ops: ReferenceOps, logits: Array, labels: Array, weights: Array | None = None
    ) -> Array:
        """Compute the score of the predictions, at best 1; by default, the accuracy.

        ``weights`` (n_samples,) are the weights of the samples, which sum to 1; by default they are
        equal. A loss that is never evaluated with weights may omit this argument.
        """
        right = self.correct(ops, logits, labels)
        return right.mean() if weights is None else (right * weights).sum()

    def correct(self, ops: ReferenceOps, logits: Array, labels: Array) -> Array:
        """Return which samples are predicted correctly, bool (n_samples,)."""
        right = self.decide(ops, logits) == labels
        return right.all(axis=-1) if right.ndim == 2 else right


def resolve_with_labels(loss: str | dict[str, Any] | Loss | None, y: Any) -> Loss | None:
    """Return the loss as an object; raise a ValueError if only one of loss and labels is given."""
    if loss is None and y is not None:
        raise ValueError("y was given without a loss: pass loss=... as well")
    if loss is not None and y is None:
        raise ValueError("a loss needs labels: pass y as well")
    return None if loss is None else Loss.resolve(loss)


class _OpLoss(Loss, abstract=True):
    """Base class of losses that call an operation of the device.

    A subclass names the operation and those of its arguments that are passed as constants.
    """

    op: ClassVar[str]
    constants: ClassVar[tuple[str, ...]] = ()

    def forward(
        self,
        ops: ReferenceOps,
        logits: Array,
        labels: Array,
        losses: Array,
        mean: Array,
        dlogits: Array | None = None,
        weights: Array | None = None,
    ) -> None:
        """Compute the losses, their mean and, optionally, its gradient."""
        constants = [getattr(self, constant) for constant in self.constants]
        getattr(ops, self.op)(logits, labels, losses, dlogits, weights, *constants)
        ops.mean(losses, weights, out=mean)


class _CrossEntropy(_OpLoss, abstract=True):
    """Base class of cross-entropies, with label smoothing and clipping of probabilities."""

    constants = ("label_smoothing", "clip")

    def __init__(self, label_smoothing: float = 0.0, clip: float = 0.0) -> None:
        self.label_smoothing = check_fraction("label_smoothing", label_smoothing)
        self.clip = check_positive("clip", clip, zero=True)
        if self.clip >= 0.5 or 0 < self.clip < 2.0**-126:  # logarithms need normal numbers
            raise ValueError(f"clip must be 0 or lie in [2^-126, 0.5), got {clip!r}")


class SigmoidCrossEntropy(_CrossEntropy):
    """Binary cross-entropy on logits, for two classes or for several independent labels.

    With ``A = sigmoid(Z)`` the loss of a sample is ``-sum_j [Y_j log A_j + (1 - Y_j) log(1 -
    A_j)]``. Substituting ``log A = -softplus(-Z)``, ``log(1 - A) = -softplus(Z)`` and
    ``softplus(-Z) = softplus(Z) - Z`` gives ``sum_j [softplus(Z_j) - Y_j Z_j]``. Since
    ``softplus' = sigmoid``, the gradient is ``A - Y``. The mean over n samples divides it by n; a
    weighted mean multiplies it by the sample's share of all weights.

    Parameters
    ----------
    label_smoothing : float
        Amount of label smoothing, in [0, 1): ``Y`` is replaced by ``(1 - label_smoothing) Y +
        label_smoothing / 2``.
    clip : float
        Bound for probabilities, in [0, 1/2): the reported loss is that of probabilities clipped to
        ``[clip, 1 - clip]``; 0 means no clipping. The gradient is ``A - Y`` in any case.

    Raises
    ------
    ValueError
        If an argument is out of range, or ``clip`` is below 2^-126, too small for float32.

    Notes
    -----
    Without clipping the loss is computed from the logits, to full precision. With clipping it is
    ``-sum_j [Y_j log A_j + (1 - Y_j) log(1 - A_j)]`` for the rounded and then clipped ``A_j``: near
    1 the digits of ``1 - A_j`` are lost, and so are those of the loss. scikit-learn computes the
    loss in this way but steps along the unclipped gradient ``A - Y``; its stopping rules and its
    line search see the clipped loss. With the dtype's eps, 2.2e-16 in float64, the loss is that of
    scikit-learn.
    """

    name = op = "sigmoid_cross_entropy"

    def labels(
        self, device: Device, y: Any, n_outputs: int, dtype: npt.DTypeLike, *, name: str = "y"
    ) -> Array:
        """Check labels in [0, 1]; return them as (n_samples, n_outputs) in the network's dtype."""
        labels = _in_columns(device, y, n_outputs, dtype, name)
        _check_range(device, labels, name, "0, 1 or probabilities between them", 0, 1)
        return labels

    def probabilities(self, ops: ReferenceOps, logits: Array) -> Array:
        """Compute ``A = sigmoid(Z)``, of shape (n_samples, n_outputs)."""
        return ops.sigmoid(logits)

    def decide(self, ops: ReferenceOps, logits: Array) -> Array:
        """Return 1 where ``A > 1/2``, that is ``Z > 0``, else 0, in the logits' shape and dtype."""
        del ops
        return (logits > 0).astype(logits.dtype)

    def correct(self, ops: ReferenceOps, logits: Array, labels: Array) -> Array:
        """Return which samples are predicted correctly; a label above 1/2 counts as 1."""
        return super().correct(ops, logits, (labels > 0.5).astype(labels.dtype))


class SoftmaxCrossEntropy(_CrossEntropy):
    """Cross-entropy of the softmax of the logits, for one class out of several.

    With ``P = softmax(Z)`` and ``y`` the sample's class, the loss is ``-log P_y = log sum_k
    exp(Z_k) - Z_y``. The first term's derivative with respect to ``Z_k`` is ``P_k``, the second's
    is 1 for ``k = y``, so the gradient is ``P - onehot(y)``. The mean over n samples divides it by
    n; a weighted mean multiplies it by the sample's share of all weights.

    With label smoothing the class is replaced by a distribution over all K classes, ``T = (1 -
    label_smoothing) onehot(y) + label_smoothing / K``. The loss is then ``log sum_k exp(Z_k) -
    sum_k T_k Z_k`` and its gradient ``P - T``.

    Parameters
    ----------
    label_smoothing : float
        Amount of label smoothing, in [0, 1).
    clip : float
        Bound for probabilities, in [0, 1/2): the reported loss is that of probabilities clipped to
        ``[clip, 1 - clip]``; 0 means no clipping. The gradient is ``P - T`` in any case.

    Raises
    ------
    ValueError
        If an argument is out of range, or ``clip`` is below 2^-126, too small for float32.

    Notes
    -----
    With clipping the loss is ``-log P_y``, or with smoothing ``-sum_k T_k log P_k``, for the
    rounded and then clipped probabilities, as in scikit-learn; see :class:`SigmoidCrossEntropy`.

    References
    ----------
    Szegedy et al., "Rethinking the Inception architecture for computer vision", CVPR 2016, section
    7, for label smoothing.
    """

    name = op = "softmax_cross_entropy"

    def labels(
        self, device: Device, y: Any, n_outputs: int, dtype: npt.DTypeLike, *, name: str = "y"
    ) -> Array:
        """Check class indices in [0, n_outputs); return them as int64 (n_samples,)."""
        del dtype
        labels = device.asarray(y, name=name)
        if labels.dtype.kind not in "iu":
            raise TypeError(f"{name} must hold integer class indices, got dtype {labels.dtype}")
        if labels.ndim != 1:
            raise ValueError(f"{name} must have shape (n_samples,), got {labels.shape}")
        last = n_outputs - 1
        _check_range(device, labels, name, f"classes 0 to {last}, one for each output", 0, last)
        with device.activate():
            return labels.astype(np.int64, copy=False)

    def probabilities(self, ops: ReferenceOps, logits: Array) -> Array:
        """Compute ``P = softmax(Z)``, of shape (n_samples, n_classes)."""
        return ops.softmax(logits)

    def decide(self, ops: ReferenceOps, logits: Array) -> Array:
        """Return the class with the largest logit, int64 (n_samples,)."""
        return ops.xp.argmax(logits, axis=-1)


class _RegressionLoss(_OpLoss, abstract=True):
    """Base class of regression losses."""

    has_classes = False
    score_name = "R2"

    def labels(
        self, device: Device, y: Any, n_outputs: int, dtype: npt.DTypeLike, *, name: str = "y"
    ) -> Array:
        """Check targets; return them as (n_samples, n_outputs) in the network's dtype."""
        targets = _in_columns(device, y, n_outputs, dtype, name)
        with device.activate():
            if not bool(device.xp.isfinite(targets).all()):
                raise ValueError(f"{name} must be finite")
        return targets

    def score(
        self, ops: ReferenceOps, logits: Array, labels: Array, weights: Array | None = None
    ) -> Array:
        """Compute ``R^2 = 1 - SS_residual / SS_total``, averaged over the outputs.

        An output with a constant target scores 1 if the prediction is exact, else 0, as in
        scikit-learn.
        """
        return determination(ops.xp, self.decide(ops, logits), labels, weights).mean()


class MeanSquaredError(_RegressionLoss):
    """Mean squared error, for regression: the network's outputs are its predictions.

    The loss of a sample with m outputs is ``1/m sum_j (Z_j - Y_j)^2``, so that the mean over the
    samples is the mean over all targets. The gradient is ``2/m (Z - Y)``; the mean over n samples
    divides it by n, a weighted mean multiplies it by the sample's share of all weights.
    """

    name = "mean_squared_error"
    op = "squared_error"

    def decide(self, ops: ReferenceOps, logits: Array) -> Array:
        """Return the predictions themselves."""
        del ops
        return logits


class PoissonDeviance(_RegressionLoss):
    """Half the Poisson deviance, for counts and rates: the predictions are exp of the outputs.

    With the expected value ``mu = exp(Z)``, which is always positive, the loss of a sample is
    ``sum_j [Y_j log(Y_j / mu_j) - Y_j + mu_j]``, that is ``sum_j [exp(Z_j) - Y_j Z_j + (Y_j log
    Y_j - Y_j)]``, where ``Y log Y`` is 0 at ``Y = 0``. The term in round brackets does not depend
    on ``Z``. Without it this is, up to a constant, the negative log-likelihood of counts with a
    Poisson distribution of mean mu; with it the loss is 0 if ``mu = Y`` and otherwise positive. The
    gradient is ``exp(Z) - Y``. The mean over n samples divides it by n; a weighted mean multiplies
    it by the sample's weight.

    References
    ----------
    McCullagh and Nelder, "Generalized linear models", 1989, section 2.3, for the deviance, and
    chapter 6, for counts and the logarithm as their link.
    """

    name = op = "poisson_deviance"
    has_negatives = False

    def labels(
        self, device: Device, y: Any, n_outputs: int, dtype: npt.DTypeLike, *, name: str = "y"
    ) -> Array:
        """Check targets >= 0; return them as (n_samples, n_outputs) in the network's dtype."""
        counts = super().labels(device, y, n_outputs, dtype, name=name)
        _check_range(device, counts, name, "counts or other numbers >= 0", 0, math.inf)
        return counts

    def decide(self, ops: ReferenceOps, logits: Array) -> Array:
        """Return the expected values, ``exp(Z)``."""
        return ops.xp.exp(logits)


def determination(
    xp: Any, predictions: Array, targets: Array, weights: Array | None = None
) -> Array:
    """Compute the coefficient of determination of each output.

    See :meth:`MeanSquaredError.score`.

    Parameters
    ----------
    xp : module
        NumPy or CuPy.
    predictions, targets : arrays (n_samples, n_outputs)
        Predicted and true values.
    weights : array (n_samples,), optional
        Weights of the samples, which sum to 1. By default they are equal.

    Returns
    -------
    array (n_outputs,)
    """
    # Subtract the first target and divide by the largest deviation from it: then the mean loses no
    # digits, and squares neither overflow nor underflow.
    targets, predictions = targets.astype("float64"), predictions.astype("float64")
    first, size = targets[:1], xp.abs(targets - targets[:1]).max(axis=0)
    is_constant = size == 0
    unit = xp.where(is_constant, 1.0, size)
    targets, predictions = (targets - first) / unit, (predictions - first) / unit
    if weights is None:
        residual = xp.square(predictions - targets).sum(axis=0)
        total = xp.square(targets - targets.mean(axis=0)).sum(axis=0)
    else:
        parts = weights.astype("float64")[:, None]
        residual = (parts * xp.square(predictions - targets)).sum(axis=0)
        total = (parts * xp.square(targets - (parts * targets).sum(axis=0))).sum(axis=0)
        is_constant = total == 0  # also if all other samples have weight 0
    constant_score = xp.where(residual == 0, 1.0, 0.0)
    R2 = 1 - residual / xp.where(is_constant, 1.0, total)
    return xp.where(is_constant, constant_score, R2)


def _check_range(
    device: Device, labels: Array, name: str, expected: str, low: float, high: float
) -> None:
    """Raise a ValueError unless all labels lie in [low, high]; nan does not."""
    with device.activate():
        if not bool(((labels >= low) & (labels <= high)).all()):
            raise ValueError(
                f"{name} must hold {expected}, got values from {labels.min().item()} to "
                f"{labels.max().item()}"
            )


def _in_columns(device: Device, y: Any, n_outputs: int, dtype: npt.DTypeLike, name: str) -> Array:
    """Move numbers to the device as (n_samples, n_outputs)."""
    numbers = device.asarray(y, dtype, name=name)
    if numbers.ndim == 1 and n_outputs == 1:
        numbers = numbers.reshape(-1, 1)
    if numbers.ndim != 2 or numbers.shape[1] != n_outputs:
        raise ValueError(
            f"{name} must have shape (n_samples, {n_outputs}), one column for each output, got "
            f"{numbers.shape}"
        )
    return numbers
