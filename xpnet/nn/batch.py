"""The class ``Batch``: what layers and losses know of a minibatch beside its samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy.typing as npt

from xpnet.device import Device
from xpnet.kernels.reference import Array

__all__ = ["Batch"]


@dataclass
class Batch:
    """What a minibatch is beside its samples; the caches of all layers share it.

    Attributes
    ----------
    seed : int
        Of whatever is drawn during training.
    step : int64 device array (1,)
        The number of the training step, which every random draw takes into account.
    weights : device array (n_samples, 1)
        Each sample's part in the mean over the batch; they sum to 1.
    correction : device array (1,)
        What makes the variance over the batch one without bias, n / (n - 1); see
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
        """Make the one of samples that all count the same, with the device active.

        Parameters
        ----------
        device : Device
        size : int
            Number of samples.
        dtype : dtype
            The network's.
        seed : int
        step : int64 device array (1,), optional
            By default one of its own, at 0.
        """
        xp = device.xp
        correction = size / (size - 1) if size > 1 else 0.0
        return cls(
            seed,
            xp.zeros(1, dtype=xp.int64) if step is None else step,
            xp.full((size, 1), 1 / max(size, 1), dtype=dtype),
            xp.full(1, correction, dtype=dtype),
        )
