"""Compute the learning rate of each step and move it to the device."""

from __future__ import annotations

import math

import numpy as np

from xpnet.kernels.reference import Array
from xpnet.nn.checks import check_positive
from xpnet.nn.network import Network
from xpnet.nn.schedules import Schedule

__all__ = ["Rates"]


class Rates:
    """Sets an optimizer's learning rate from a schedule, without waiting for the device.

    A schedule per epoch writes one number per epoch. A schedule per step sends the rates of a whole
    epoch to the device, and each step takes the next of them. The factors multiply
    ``learning_rate``. ``state`` is the optimizer's state, whose device must be active. Each epoch
    has ``n_steps`` steps.

    Attributes
    ----------
    rate : device array (1,)
        Array from which the optimizer reads the learning rate.
    by_step : device array (n_steps,) or None
        Rates of this epoch's steps, if each step has its own.
    """

    def __init__(
        self,
        schedule: Schedule,
        learning_rate: float,
        state: dict[str, Array],
        n_epochs: int,
        n_steps: int,
        network: Network,
    ) -> None:
        self._schedule, self._what = schedule, f"a factor of schedule {schedule!r}"
        self._learning_rate = learning_rate
        self.rate = state["learning_rate"]
        self._n_epochs, self._n_steps = n_epochs, n_steps
        self._device, self._dtype = network.device, network.dtype
        self.by_step: Array | None = None
        self._current = math.nan  # so that the rate of an earlier run is overwritten

    def begin_epoch(self, epoch: int) -> None:
        """Set the rate of an epoch, or prepare the rates of its steps."""
        schedule, n = self._schedule, self._n_epochs
        if schedule.per == "step":
            first, total = epoch * self._n_steps, n * self._n_steps
            factors = [schedule.at(first + i, total) for i in range(self._n_steps)]
            self.by_step = self._send(factors)
            return
        factor = schedule.at(epoch, n)
        if factor != self._current:
            self._current = factor
            self.rate[...] = self._send([factor])

    def begin_step(self, number: int) -> None:
        """Set the rate of one of the epoch's steps."""
        if self.by_step is not None:
            self.rate[...] = self.by_step[number : number + 1]

    def _send(self, factors: list[float]) -> Array:
        for factor in factors:
            check_positive(self._what, factor, zero=True)
        rates = self._learning_rate * np.array(factors)
        return self._device.asarray(rates, self._dtype, name="learning rates")
