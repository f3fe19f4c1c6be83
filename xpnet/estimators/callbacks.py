"""Calls scikit-learn's callbacks during a fit."""

from __future__ import annotations

from typing import Any

from xpnet.estimators.samples import Samples
from xpnet.estimators.scikit import begin_fit, has_callbacks
from xpnet.nn import Network

__all__ = ["Task"]


class Task:
    """The task of a fit, with a subtask for each of its at most ``n_epochs`` epochs.

    References
    ----------
    scikit-learn 1.9, "Supporting callbacks in third party estimators".
    """

    def __init__(self, estimator: Any, network: Network, samples: Samples, n_epochs: int) -> None:
        weights = samples.weights
        self._arguments = {
            "estimator": estimator,
            "X": samples.shown,
            "y": samples.y,
            "metadata": None if weights is None else {"sample_weight": weights},
            "reconstruction_attributes": lambda: {"network_": network.copy()},
        }
        self._root = self._epoch = begin_fit(estimator, n_epochs)
        self._root.call_on_fit_task_begin(**self._arguments)
        # Most fits have no callbacks, and calling a hook may take longer than an epoch.
        self._has_callbacks = has_callbacks(estimator)
        if self._has_callbacks:
            self._begin_epoch()

    def end_epoch(self, *, is_last: bool) -> bool:
        """End an epoch's task and begin the next; return whether a callback asks to stop."""
        if not self._has_callbacks:
            return False
        stops = bool(self._epoch.call_on_fit_task_end(**self._arguments))
        if not is_last and not stops:
            self._begin_epoch()
        return stops

    def end(self) -> None:
        """End the fit's task."""
        self._root.call_on_fit_task_end(**self._arguments)

    def _begin_epoch(self) -> None:
        self._epoch = self._root.subcontext(task_name="epoch")
        self._epoch.call_on_fit_task_begin(**self._arguments)
