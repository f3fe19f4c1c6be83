"""Early stopping: when a run ends and which parameters it keeps."""

from __future__ import annotations

import math
from dataclasses import dataclass

from xpnet.nn.checks import check_count, check_flag, check_positive
from xpnet.nn.network import Network
from xpnet.nn.regularization import MovingAverage
from xpnet.nn.schedules import check_monitor
from xpnet.training.history import Report

__all__ = ["Best", "EarlyStopping"]


@dataclass(frozen=True)
class EarlyStopping:
    """Stop training when a monitored number has not improved for some epochs.

    Attributes
    ----------
    monitor : {"cost", "train_accuracy", "validation_cost", "validation_accuracy"}
        Number of a report to monitor. A cost should fall, an accuracy rise.
    patience : int
        Number of epochs without an improvement after which training stops, at least 1. It is
        checked at each report.
    min_delta : float
        Smallest change from the best value so far that counts as an improvement, at least 0.
    restore_best : bool
        Whether to restore the parameters of the best reported epoch, even if all epochs were run.
        If False, the network keeps the last parameters.

    Raises
    ------
    ValueError
        If an argument is out of range.

    References
    ----------
    Goodfellow, Bengio and Courville, "Deep learning", 2016, section 7.8, algorithm 7.1.
    """

    monitor: str = "validation_cost"
    patience: int = 10
    min_delta: float = 0.0
    restore_best: bool = True

    def __post_init__(self) -> None:
        check_monitor(self.monitor)
        check_count("patience", self.patience)
        check_positive("min_delta", self.min_delta, zero=True)
        check_flag("restore_best", self.restore_best)


class Best:
    """The best epoch so far and its parameters; the network's device must be active.

    If the parameters are ``averaged``, the average is evaluated and kept.

    Attributes
    ----------
    epoch : int or None
        Best reported epoch.
    """

    def __init__(
        self, settings: EarlyStopping, network: Network, averaged: MovingAverage | None
    ) -> None:
        self.epoch: int | None = None
        self._settings, self._network, self._averaged = settings, network, averaged
        self._sign = 1.0 if settings.monitor.endswith("accuracy") else -1.0
        self._value = -math.inf
        if settings.restore_best:
            self._parameters = network.parameters.copy()
            self._statistics = network.statistics.copy()

    def is_time_to_stop(self, report: Report) -> bool:
        """Return whether to stop after a report; keep the parameters if it is the best."""
        settings, network = self._settings, self._network
        value = self._sign * getattr(report, settings.monitor)
        if value > self._value + settings.min_delta:  # False for nan
            self.epoch, self._value = report.epoch, value
            if settings.restore_best:
                averaged = self._averaged
                self._parameters[...] = network.parameters if averaged is None else averaged.average
                self._statistics[...] = network.statistics
        best = -1 if self.epoch is None else self.epoch
        return report.epoch - best >= settings.patience

    def restore(self) -> None:
        """Restore the parameters of the best epoch if ``restore_best`` is True."""
        if self._settings.restore_best and self.epoch is not None:
            self._network.parameters[...] = self._parameters
            self._network.statistics[...] = self._statistics
