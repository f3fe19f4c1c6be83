"""L1 and L2 penalties, gradient clipping, and the moving average of parameters.

:class:`Regularizer` adds the penalties and clips the gradient, :class:`MovingAverage` averages the
parameters. Both work on the network's flat buffers and do not depend on its layers.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from xpnet.kernels.reference import Array, ReferenceOps
from xpnet.nn.checks import check_fraction, check_positive
from xpnet.nn.interfaces import Cache
from xpnet.nn.network import LINE, Network

__all__ = ["MovingAverage", "Regularizer"]


class Regularizer:
    """Penalties on the weights, then clipping of the gradient.

    The cost becomes ``J = mean loss + l1 sum |W| + l2 / 2 sum W^2``, summed over all weights, not
    over biases and scales. Its gradient is ``dW + l1 sign(W) + l2 W``, where the derivative of
    ``|W|`` at 0 is taken as 0. Andrew Ng's Deep Learning Specialization writes the second penalty
    as ``lambda / (2 m) sum W^2``, so that ``l2 = lambda / m`` for m training samples.

    Then every element of the gradient is clipped to ``[-clip_value, clip_value]``. Finally, if the
    norm of the whole gradient is larger than ``clip_norm``, the gradient is scaled down to it.

    Parameters
    ----------
    l1, l2 : float
        Coefficients of the penalties, at least 0.
    clip_value : float or None
        Largest magnitude of an element of the gradient, positive; None for no clipping.
    clip_norm : float or None
        Largest norm of the whole gradient, positive; None for no clipping.
    per_batch : bool
        Whether to add the penalties to the sum of a batch's losses before it is divided by the
        number of samples, or the sum of their weights. ``l1`` and ``l2`` are then divided by it,
        too, and count more in a smaller batch, as in scikit-learn's networks.

    Raises
    ------
    ValueError
        If an argument is out of range.

    Notes
    -----
    Weight decay, which changes the parameters directly and not through the gradient, is part of the
    optimizers; see :class:`xpnet.nn.AdamW`.

    References
    ----------
    Pascanu, Mikolov and Bengio, "On the difficulty of training recurrent neural networks", ICML
    2013, algorithm 1, for clipping by norm; its scale is ``clip_norm / (norm + 1e-6)``, as in
    PyTorch.
    """

    def __init__(
        self,
        *,
        l1: float = 0.0,
        l2: float = 0.0,
        clip_value: float | None = None,
        clip_norm: float | None = None,
        per_batch: bool = False,
    ) -> None:
        self.per_batch = per_batch
        self.l1 = check_positive("l1", l1, zero=True)
        self.l2 = check_positive("l2", l2, zero=True)
        self.clip_value = None if clip_value is None else check_positive("clip_value", clip_value)
        self.clip_norm = None if clip_norm is None else check_positive("clip_norm", clip_norm)

    @property
    def has_penalty(self) -> bool:
        """Whether there is a penalty to add to the cost."""
        return self.l1 > 0 or self.l2 > 0

    @property
    def is_needed(self) -> bool:
        """Whether there is a penalty or clipping."""
        return self.has_penalty or self.clip_value is not None or self.clip_norm is not None

    def allocate(self, network: Network, batch_size: int) -> Cache:
        """Create the buffers for a network and a batch size; the device must be active."""
        xp, dtype = network.device.xp, network.dtype
        cache = Cache(
            sums=xp.empty(LINE, dtype=dtype),
            factor=xp.empty(1, dtype=dtype),
        )
        cache.weights = _rows(network.parameters[: network.n_decayed])
        # One number for each row: broadcasting a single one would allocate memory in every step.
        factor = 1 / batch_size if self.per_batch else 1.0
        cache.penalty_factor = xp.full((len(cache.weights), 1), factor, dtype=dtype)
        if self.per_batch:
            cache.ones = xp.ones_like(cache.penalty_factor)
            cache.inverse_sum = xp.empty(1, dtype=dtype)
        cache.dW = _rows(network.gradients[: network.n_decayed])
        cache.gradient = _rows(network.gradients)
        return cache

    def apply(
        self,
        ops: ReferenceOps,
        network: Network,
        cost: Array,
        cache: Cache,
        weights: Array | None = None,
    ) -> None:
        """Regularize the network's gradients and add the penalty to the cost, in place.

        Parameters
        ----------
        ops : ReferenceOps
            Operations of the device.
        network : Network
            Network whose gradients are changed.
        cost : array (1,)
            Cost of the batch; changed.
        cache : Cache
            Result of :meth:`allocate`.
        weights : array (n_samples,), optional
            Weights of the samples as given. By default all samples have equal weights.
        """
        if self.has_penalty and network.n_decayed:
            if self.per_batch and weights is not None:
                ops.inverse_sum(weights, out=cache.inverse_sum)
                ops.scale(cache.ones, cache.inverse_sum, out=cache.penalty_factor)
            ops.penalty_grad(
                *(cache.dW, cache.weights, cache.penalty_factor, self.l1, self.l2),
                out=cache.dW,
                penalty=cache.sums,
            )
            ops.add_sum(cache.sums, cost, out=cost)
        if self.clip_value is not None:
            ops.clip(network.gradients, self.clip_value, out=network.gradients)
        if self.clip_norm is not None:
            ops.square_sum(cache.gradient, out=cache.sums)
            ops.clip_factor(cache.sums, self.clip_norm, out=cache.factor)
            ops.scale(network.gradients, cache.factor, out=network.gradients)


def _rows(flat: Array) -> Array:
    return flat.reshape(-1, LINE)


class MovingAverage:
    """Exponential moving average of a network's parameters.

    It starts as a copy of the parameters. After step t, ``average <- b average + (1 - b)
    parameters`` with ``b = min(beta, (1 + t) / (10 + t))``. At first this averages over about the
    last tenth of the steps, so that the initial parameters are soon forgotten, and later over about
    ``1 / (1 - beta)`` steps. Statistics such as those of batch normalisation are moving averages
    already and are not averaged.

    Parameters
    ----------
    network : Network
        Network whose parameters are averaged; its device must be active.
    beta : float
        Decay of the average, in [0, 1).

    Raises
    ------
    ValueError
        If ``beta`` is out of range.

    References
    ----------
    Szegedy et al., "Rethinking the Inception architecture for computer vision", CVPR 2016, section
    8, for evaluation with exponentially averaged weights; the smaller ``b`` of the first steps
    comes from TensorFlow's ExponentialMovingAverage.
    """

    def __init__(self, network: Network, beta: float) -> None:
        self.beta = check_fraction("beta", beta)
        self._network = network
        self.average = network.parameters.copy()
        self._saved = network.device.xp.empty_like(self.average)

    def update(self, ops: ReferenceOps, step: Array) -> None:
        """Update the average after step ``step``, an int64 device array (1,) that starts at 1."""
        ops.average_update(self.average, self._network.parameters, step, self.beta)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Replace the network's parameters by the average inside the ``with`` block."""
        self._saved[...] = self._network.parameters
        self.keep()
        try:
            yield
        finally:
            self._network.parameters[...] = self._saved

    def keep(self) -> None:
        """Replace the network's parameters by the average for good."""
        self._network.parameters[...] = self.average
