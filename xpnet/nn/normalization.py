"""Batch normalisation and layer normalisation, with the derivations of their backward passes."""

from __future__ import annotations

import numpy.typing as npt

from xpnet.kernels.reference import Array
from xpnet.nn.checks import check_flag, check_fraction, check_normal, check_positive
from xpnet.nn.interfaces import Cache, Layer

__all__ = ["BatchNorm", "LayerNorm"]


class BatchNorm(Layer):
    """Batch normalisation, ``A = gamma N + beta`` with ``N = (X - mean) / sqrt(var + eps)``.

    In training, the mean and variance of each feature are those of the batch, ``mean_j = sum_i w_i
    X_ij`` and ``var_j = sum_i w_i (X_ij - mean_j)^2``, where ``w_i`` is the weight of sample i in
    the mean over the batch, 1/n if all weights are equal. In prediction they are running averages
    of these, so that a sample's output does not depend on other samples.

    The backward pass. With ``s_j = 1 / sqrt(var_j + eps)`` and ``dN_ij = gamma_j dA_ij`` (one
    feature from here on), a change of ``X_i`` moves ``N_k`` in three ways: directly, through the
    mean and through the variance, ``dN_k/dX_i = s [k = i] - s w_i - N_k w_i N_i s``. (The last:
    ``dvar/dX_i = 2 w_i (X_i - mean)``, ``ds/dvar = -s^3 / 2``, and ``X - mean = N / s``.) Hence

    - ``dbeta = sum_i dA_i`` and ``dgamma = sum_i dA_i N_i``;
    - ``dX_i = sum_k dN_k dN_k/dX_i = gamma s (dA_i - w_i (dbeta + N_i dgamma))``.

    A batch of one sample, or with only one nonzero weight, has variance 0. Its output is ``beta``
    for every sample, no gradient reaches the input, and the running variance does not change,
    except with ``unbiased=False``, where it moves towards 0. A batch whose weights are all 0
    changes neither of the running statistics.

    A bias in front of this layer has no effect, since the mean is subtracted: use ``Dense(...,
    bias=False)``.

    Parameters
    ----------
    momentum : float
        Weight of the batch's statistics in the update of the running ones, in (0, 1]: ``running <-
        (1 - momentum) running + momentum batch``. Keras calls 1 minus this number momentum.
    eps : float
        Value added to the variance, positive.
    unbiased : bool
        Whether the running variance follows the unbiased variance, ``n / (n - 1)`` times that of
        the batch, or the variance of the batch itself.

    Attributes
    ----------
    gamma, beta : arrays (n_features,)
        Scale and shift, initially 1 and 0. Weight decay and penalties do not apply to them.
    running_mean, running_variance : arrays (n_features,)
        Running statistics, initially 0 and 1. If samples have weights, n in ``n / (n - 1)`` is the
        effective number of samples, ``1 / sum_i w_i^2``.

    Raises
    ------
    ValueError
        If an argument is out of range.

    Notes
    -----
    A sample with weight 2 is one observation; the same sample given twice is two. The two cases
    differ only in ``n / (n - 1)``: with ``unbiased=False`` they agree up to rounding.

    References
    ----------
    Ioffe and Szegedy, "Batch normalization: accelerating deep network training by reducing internal
    covariate shift", ICML 2015, algorithms 1 and 2.
    """

    name = "batch_norm"
    gamma: Array
    beta: Array
    dgamma: Array
    dbeta: Array
    running_mean: Array
    running_variance: Array

    def __init__(self, momentum: float = 0.1, *, eps: float = 1e-5, unbiased: bool = True) -> None:
        self.momentum = check_fraction("momentum", momentum, "(0, 1]")
        self.eps = check_positive("eps", eps)
        self.unbiased = check_flag("unbiased", unbiased)

    def build(self, n_in: int) -> int:
        """Declare the scale, the shift and the running statistics."""
        self.add_parameter("gamma", (n_in,), "ones", decay=False)
        self.add_parameter("beta", (n_in,), "zeros", decay=False)
        self.add_statistic("running_mean", (n_in,), 0.0)
        self.add_statistic("running_variance", (n_in,), 1.0)
        return n_in

    def allocate(self, cache: Cache, shape: tuple[int, ...], dtype: npt.DTypeLike) -> None:
        """Create the buffers ``N`` and ``A`` and those for the batch's statistics."""
        check_normal("eps", self.eps, dtype)
        xp = self.xp
        cache.normalized, cache.A = xp.empty(shape, dtype=dtype), xp.empty(shape, dtype=dtype)
        feature_shape = (*shape[:-2], shape[-1])
        for name in ("mean", "variance", "inverse_std"):
            setattr(cache, name, xp.empty(feature_shape, dtype=dtype))

    def forward(self, X: Array, cache: Cache) -> Array:
        """Compute ``A``; in training, also update the running statistics."""
        ops = self.ops
        mean, inverse_std = cache.mean, cache.inverse_std
        if cache.training:
            batch = cache.batch
            ops.column_mean(X, batch.weights, out=mean)
            ops.column_variance(X, batch.weights, mean, out=cache.variance)
            ops.batch_norm_tick(
                mean,
                cache.variance,
                batch.correction,
                self.running_mean,
                self.running_variance,
                inverse_std,
                self.momentum,
                self.eps,
                self.unbiased,
            )
        else:
            mean = self.running_mean
            ops.inverse_std(self.running_variance, self.eps, out=inverse_std)
        return ops.batch_norm(
            X, mean, inverse_std, self.gamma, self.beta, cache.normalized, out=cache.A
        )

    def backward(self, dA: Array, cache: Cache) -> Array | None:
        """Write ``dgamma`` and ``dbeta`` and return ``dX``."""
        ops = self.ops
        ops.scale_grad(dA, cache.normalized, out=self.dgamma)
        ops.bias_grad(dA, out=self.dbeta)
        if not cache.input_gradient:
            return None
        return ops.batch_norm_grad(
            dA,
            cache.normalized,
            cache.batch.weights,
            cache.inverse_std,
            self.gamma,
            self.dgamma,
            self.dbeta,
            out=dA,
        )


class LayerNorm(Layer):
    """Layer normalisation, ``A = gamma N + beta``, ``N_ij = (X_ij - mean_i) / sqrt(var_i + eps)``.

    Mean and variance are taken over the m features of each sample, in training and in prediction.

    The backward pass is that of :class:`BatchNorm` with samples and features exchanged and ``w =
    1/m``, except for ``gamma``, which now varies along the sum. With ``G_ij = gamma_j dA_ij``:
    ``dX_ij = (G_ij - mean_k G_ik - N_ij mean_k (G_ik N_ik)) / sqrt(var_i + eps)``, where the means
    are over the features. Scale and shift still belong to features: ``dgamma_j = sum_i dA_ij
    N_ij``, ``dbeta_j = sum_i dA_ij``.

    Parameters
    ----------
    eps : float
        Value added to the variance, positive.

    Attributes
    ----------
    gamma, beta : arrays (n_features,)
        Scale and shift, initially 1 and 0. Weight decay and penalties do not apply to them.

    Raises
    ------
    ValueError
        If an argument is out of range.

    References
    ----------
    Ba, Kiros and Hinton, "Layer normalization", arXiv 1607.06450, equations 3 and 4.
    """

    name = "layer_norm"
    gamma: Array
    beta: Array
    dgamma: Array
    dbeta: Array

    def __init__(self, *, eps: float = 1e-5) -> None:
        self.eps = check_positive("eps", eps)

    def build(self, n_in: int) -> int:
        """Declare the scale and the shift."""
        self.add_parameter("gamma", (n_in,), "ones", decay=False)
        self.add_parameter("beta", (n_in,), "zeros", decay=False)
        return n_in

    def allocate(self, cache: Cache, shape: tuple[int, ...], dtype: npt.DTypeLike) -> None:
        """Create the buffers ``N``, ``A`` and one for 1 / standard deviation of each sample."""
        check_normal("eps", self.eps, dtype)
        xp = self.xp
        cache.normalized, cache.A = xp.empty(shape, dtype=dtype), xp.empty(shape, dtype=dtype)
        cache.inverse_std = xp.empty(shape[:-1], dtype=dtype)

    def forward(self, X: Array, cache: Cache) -> Array:
        """Compute ``A``."""
        return self.ops.layer_norm(
            X, self.gamma, self.beta, cache.inverse_std, cache.normalized, self.eps, out=cache.A
        )

    def backward(self, dA: Array, cache: Cache) -> Array | None:
        """Write ``dgamma`` and ``dbeta`` and return ``dX``."""
        ops = self.ops
        ops.scale_grad(dA, cache.normalized, out=self.dgamma)
        ops.bias_grad(dA, out=self.dbeta)
        if not cache.input_gradient:
            return None
        return ops.layer_norm_grad(dA, cache.normalized, cache.inverse_std, self.gamma, out=dA)
