"""The training step: forward, loss, backward and update of one minibatch."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from xpnet.device import Device
from xpnet.kernels.reference import Array
from xpnet.nn.augmentation import Augmentation
from xpnet.nn.batch import Batch
from xpnet.nn.losses import Loss
from xpnet.nn.network import Network, check_divisor
from xpnet.nn.optimizers import Optimizer
from xpnet.nn.regularization import MovingAverage, Regularizer
from xpnet.nn.sparse import SparseSamples

__all__ = ["TrainingStep"]


class TrainingStep:
    """Gather, augment, forward, loss, backward, regularise and update, in preallocated buffers.

    Steps for different batch sizes share the network's parameters and gradients and the
    optimizer's state, but each has its own activations. The device must be active when a step is
    created and when it is called. A step never waits for the device, unless its samples are sparse.

    Parameters
    ----------
    network : Network
        Network to train.
    loss : Loss
        Loss to minimise.
    optimizer : Optimizer
        Update rule.
    state : dict of str to device array
        The optimizer's state for this network.
    X : device array (n_samples, n_features) or SparseSamples
        Data set, in the network's dtype, as bytes (uint8), which are converted when a batch is
        gathered, or sparse. A batch of sparse samples is made dense on the host, which on CUDA
        waits for the device once per step to get the indices.
    y : device array (n_samples, ...)
        Labels, as returned by the loss.
    batch_size : int or None
        Number of samples in a minibatch. None trains on the whole data set in place, without
        gathering; bytes and sparse samples are then converted once, when the step is created.
    divide_by : float or None
        Divisor of uint8 data; see :func:`check_divisor`.
    weights : device array (n_samples,), optional
        Weights of the samples, in the network's dtype: the loss of a batch becomes ``sum_i w_i l_i
        / sum_i w_i``. By default all weights are equal.
    regularizer : Regularizer, optional
        Penalties and gradient clipping.
    average : MovingAverage, optional
        Moving average to update after each step.
    augmentations : sequence of Augmentation
        Augmentations of the samples of each step, in order. The data set is not changed.
    image_shape : tuple of int or None
        Shape of the images, ``(height, width)`` or ``(height, width, channels)``; None if the
        samples are not images.
    seed : int or None
        Seed of random numbers in training, such as dropout masks; None takes the network's seed.
    counter : int64 device array (1,), optional
        Number of steps taken by all steps that share this counter; random numbers depend on it. By
        default a new counter, at 0.

    Attributes
    ----------
    batch_size : int
        Number of samples in a step.
    gathers : bool
        Whether a step takes the indices of its samples.
    from_host : bool
        Whether the host gathers the samples, because they are sparse. Such a step cannot be
        recorded.
    counter : int64 device array (1,)
        Number of steps taken.
    loss_value : device array (1,)
        Mean loss of the last batch plus the penalties, before the update.

    Raises
    ------
    ValueError
        If an augmentation does not fit the samples, or ``divide_by`` is given with sparse samples.
    """

    def __init__(
        self,
        network: Network,
        loss: Loss,
        optimizer: Optimizer,
        state: dict[str, Array],
        X: Array | SparseSamples,
        y: Array,
        batch_size: int | None = None,
        divide_by: float | None = None,
        *,
        weights: Array | None = None,
        regularizer: Regularizer | None = None,
        average: MovingAverage | None = None,
        augmentations: Sequence[Augmentation] = (),
        image_shape: tuple[int, ...] | None = None,
        seed: int | None = None,
        counter: Array | None = None,
    ) -> None:
        xp = network.device.xp
        self._network = network
        self._ops = network.device.ops
        self._loss = loss
        self._optimizer = optimizer
        self._state = state
        self._data = X
        self._labels = y
        self.gathers = batch_size is not None
        is_sparse = isinstance(X, SparseSamples)
        self.from_host = is_sparse and self.gathers
        self._gather: Callable[..., Array]
        if isinstance(X, SparseSamples):
            check_divisor(divide_by, X, network.dtype)
            self._gather = X.gather
        else:
            self._gather = functools.partial(self._ops.gather, X, divide_by=divide_by)
        self.batch_size = len(X) if batch_size is None else batch_size
        self.X, self.y = X, y
        is_made = is_sparse or X.dtype != network.dtype
        if self.gathers or is_made:
            self.X = xp.empty((self.batch_size, *X.shape[1:]), dtype=network.dtype)
        if self.gathers:
            self.y = xp.empty((self.batch_size, *y.shape[1:]), dtype=y.dtype)
        elif is_made:
            self._gather(xp.arange(len(X)), out=self.X)
        self._image_shape = None if image_shape is None else tuple(image_shape)
        self._augmentations = self._with_buffers(augmentations)
        self._batch = Batch.of(
            network.device,
            self.batch_size,
            network.dtype,
            seed=network.seed if seed is None else seed,
            step=counter,
        )
        self.counter = self._batch.step
        self._weights, self._batch_weights = weights, weights
        if weights is not None and self.gathers:
            self._batch_weights = xp.empty(self.batch_size, dtype=network.dtype)
        self._caches = network.allocate(self.batch_size, training=True, batch=self._batch)
        # A regularizer that has nothing to do is not even called.
        self._regularizer = regularizer if regularizer and regularizer.is_needed else None
        if self._regularizer is not None:
            self._buffers = self._regularizer.allocate(network, self.batch_size)
        self._has_constraints = any(layer.has_constraint for layer in network.layers)
        self._average = average
        self._n_decay = (network.n_decayed,) if "weight_decay" in state else ()
        self._losses = xp.empty(self.batch_size, dtype=network.dtype)
        self._dlogits = xp.empty((self.batch_size, network.n_outputs), dtype=network.dtype)
        self.loss_value = xp.empty(1, dtype=network.dtype)

    @property
    def parts(self) -> list[Any]:
        """The network, its layers, and everything else that takes part in the step."""
        network = self._network
        parts = [network, *network.layers, self._loss, self._optimizer]
        parts += [augmentation for augmentation, _, _ in self._augmentations]
        return parts + [part for part in (self._regularizer, self._average) if part is not None]

    @property
    def device(self) -> Device:
        """Device of the network."""
        return self._network.device

    def __call__(self, indices: Array | None = None) -> Array:
        """Take one step.

        Parameters
        ----------
        indices : int64 device array (batch_size,), optional
            Indices of the minibatch's samples, in ``[0, n_samples)``; a GPU does not check them.
            None if the step trains on the whole data set.

        Returns
        -------
        device array (1,)
            :attr:`loss_value`.
        """
        ops, network, batch = self._ops, self._network, self._batch
        if self.gathers:
            if indices is None:
                raise TypeError(f"a step of batch size {self.batch_size} needs indices, got None")
            self._gather(indices, out=self.X)
            ops.gather(self._labels, indices, out=self.y)
            if self._weights is not None:
                ops.gather(self._weights, indices, out=self._batch_weights)
        batch.step += 1
        weighted = () if self._weights is None else (self._normalise_weights(),)
        X = self._augment() if self._augmentations else self.X
        logits = network.forward(X, self._caches)
        self._loss.forward(
            ops, logits, self.y, self._losses, self.loss_value, self._dlogits, *weighted
        )
        network.backward(self._dlogits, self._caches)
        if self._regularizer is not None:
            self._regularizer.apply(
                ops, network, self.loss_value, self._buffers, self._batch_weights
            )
        self._optimizer.update(
            ops, network.parameters, network.gradients, self._state, *self._n_decay
        )
        if self._has_constraints:
            network.constrain(self._caches)
        if self._average is not None:
            self._average.update(ops, batch.step)
        return self.loss_value

    def _with_buffers(
        self, augmentations: Sequence[Augmentation]
    ) -> list[tuple[Augmentation, Array, Array]]:
        """Return each augmentation with the buffers it reads and writes.

        A gathered batch may be overwritten, so one more buffer is enough. The data set, or its
        converted copy, must not be overwritten.
        """
        xp = self._network.device.xp
        source, buffers = self.X, [self.X] if self.gathers else []
        found = []
        for augmentation in augmentations:
            augmentation.check(self._image_shape, self.X.shape[-1])
            _check_numbers(augmentation, self._network.dtype)
            usable = [
                buffer for buffer in buffers if (buffer is source) == augmentation.works_in_place
            ]
            if not usable:
                usable = [xp.empty(self.X.shape, dtype=self.X.dtype)]
                buffers += usable
            found.append((augmentation, source, usable[0]))
            source = usable[0]
        return found

    def _augment(self) -> Array:
        """Return the augmented samples."""
        out = self.X
        for number, (augmentation, source, out) in enumerate(self._augmentations):
            came = augmentation.apply(
                self._ops, source, self._batch, number, self._image_shape, out
            )
            if came is not out:
                raise TypeError(f"augmentation {augmentation!r} must write to out and return it")
        return out

    def _normalise_weights(self) -> Array:
        """Compute the normalised weights of the batch, which the layers share, and return them."""
        batch = self._batch
        shares = self._ops.shares(self._batch_weights, out=batch.weights[..., 0])
        self._ops.variance_correction(shares, out=batch.correction)
        return shares


def _check_numbers(augmentation: Augmentation, dtype: np.dtype[Any]) -> None:
    """Raise a ValueError for options that are infinite in the network's dtype."""
    for key, value in augmentation.get_config().items():
        with np.errstate(over="ignore"):
            if isinstance(value, float) and not np.isfinite(dtype.type(value)):
                raise ValueError(f"{key} of {augmentation!r} must be finite in {dtype}")
