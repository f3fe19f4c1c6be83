"""The class ``Batch``: what layers and losses know about a minibatch besides its samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy.typing as npt

from xpnet.device import Device
from xpnet.kernels.reference import Array

__all__ = ["Batch"]


@dataclass
class Batch:
    """Seed, step and sample weights of a minibatch; the caches of all layers share it.

    Attributes
    ----------
    seed : int
        Seed of all random numbers drawn during training.
    step : int64 device array (1,)
        Number of the training step; every random draw depends on it.
    weights : device array (n_samples, 1)
        Weight of each sample in the mean over the batch; they sum to 1.
    correction : device array (1,)
        Factor that makes the variance over the batch unbiased, n / (n - 1); see
        :meth:`~xpnet.kernels.reference.ReferenceOps.variance_correction`.
    """

    seed: int
    step: Array
    weights: Array
    correction: Array

    @classmethod
    def of(
        cls, device: Device, size: int, dtype: npt.DTypeLike, *, seed: int = 0, step: Any = None
    ) -> Self:
        """Return a batch of equally weighted samples; the device must be active.

        Parameters
        ----------
        device : Device
            Device of the network.
        size : int
            Number of samples.
        dtype : dtype
            Dtype of the network.
        seed : int
            Seed of all random numbers drawn during training.
        step : int64 device array (1,), optional
            Step counter to share. By default a new one, at 0.
        """
        xp = device.xp
        correction = size / (size - 1) if size > 1 else 0.0
        return cls(
            seed,
            xp.zeros(1, dtype=xp.int64) if step is None else step,
            xp.full((size, 1), 1 / max(size, 1), dtype=dtype),
            xp.full(1, correction, dtype=dtype),
        )
