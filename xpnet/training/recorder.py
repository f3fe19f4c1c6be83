"""Keep the losses of steps on the device, read them at reports, and detect divergence."""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np
import numpy.typing as npt

from xpnet.kernels.reference import Array
from xpnet.nn.network import Network
from xpnet.training.history import History, Report

__all__ = ["DivergenceError", "LossRecorder"]

_CAPACITY = 65_536  # largest number of losses kept on the device


class DivergenceError(ArithmeticError):
    """The loss or the parameters became infinite or nan.

    Attributes
    ----------
    step : int
        Number, from 0, of the first update whose loss was not finite; or of the last update, if its
        loss was finite but its result was not.
    learning_rate : float
        Learning rate when the divergence was noticed.
    """

    def __init__(self, step: int, learning_rate: float) -> None:
        super().__init__(
            f"loss or parameters were no longer finite at step {step} with learning rate "
            f"{learning_rate:g}: try a smaller learning rate, inputs scaled to about unit size, "
            "or a smaller initialisation"
        )
        self.step = step
        self.learning_rate = learning_rate

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the constructor's arguments, not the message."""
        return type(self), (self.step, self.learning_rate)


class LossRecorder:
    """Keeps the losses of the steps on the device until a report reads them all at once.

    ``state`` is the optimizer's state and ``n_steps`` the largest number of steps between two
    reports.
    """

    def __init__(self, network: Network, state: dict[str, Array], n_steps: int) -> None:
        self.history = History(device=network.device.name, precision=network.device.precision)
        self._network = network
        self._device = network.device
        self._state = state
        self._on_device = network.device.xp.empty(min(n_steps, _CAPACITY), dtype=network.dtype)
        self._filled = 0
        self.resume()

    def resume(self) -> None:
        """Start an interval between reports and its clock."""
        self._losses: list[float] = []
        self._n_samples = 0
        self._resumed = time.perf_counter()

    def record(self, losses: Array, n_steps: int) -> None:
        """Record the losses of some steps."""
        filled = self._filled + n_steps
        if filled > len(self._on_device):
            self._fetch()
            filled = n_steps
        self._on_device[self._filled : filled] = losses
        self._filled = filled

    def end_epoch(self, n_samples: int, weights: npt.NDArray[np.float64]) -> None:
        """Record the number of an epoch's samples and their total weight in each of its steps."""
        self._n_samples += n_samples
        self._weights = weights

    def _fetch(self) -> None:
        self._losses += self._device.to_host(self._on_device[: self._filled]).tolist()
        self._filled = 0

    def read(self) -> float:
        """Read the costs back and return the mean over the epoch's samples."""
        history = self.history
        self._fetch()
        losses, weights = self._losses, self._weights
        self._elapsed = time.perf_counter() - self._resumed
        if not all(map(math.isfinite, losses)):
            first = [math.isfinite(loss) for loss in losses].index(False)
            raise DivergenceError(history.n_steps + first, self._learning_rate())
        history.seconds += self._elapsed
        history.n_steps += len(losses)
        history.n_samples += self._n_samples
        of_epoch, total = np.array(losses[-len(weights) :]), weights.sum()
        # The formula of np.average, which takes longer to check its arguments than to compute.
        return float((of_epoch * weights).sum() / total if total else of_epoch.mean())

    def report(
        self,
        epoch: int,
        cost: float,
        scores: tuple[float, float] | None,
        train_accuracy: float | None,
    ) -> Report:
        """Add a report to the history; ``scores`` are the validation cost and accuracy."""
        history = self.history
        validation_cost, validation_accuracy = scores or (None, None)
        history.reports.append(
            Report(
                epoch=epoch,
                iteration=history.n_steps - len(self._weights),
                cost=cost,
                learning_rate=self._learning_rate(),
                seconds=history.seconds,
                samples_per_second=self._n_samples / max(self._elapsed, 1e-9),
                validation_cost=validation_cost,
                validation_accuracy=validation_accuracy,
                train_accuracy=train_accuracy,
                last_cost=self._losses[-1],
            )
        )
        return history.reports[-1]

    def check_parameters(self) -> None:
        """Raise a DivergenceError if the last update left parameters that are not finite."""
        network, xp = self._network, self._device.xp
        if not all(bool(xp.isfinite(a).all()) for a in (network.parameters, network.statistics)):
            raise DivergenceError(self.history.n_steps - 1, self._learning_rate())

    def _learning_rate(self) -> float:
        return float(self._device.to_host(self._state["learning_rate"])[0])
