"""Calls scikit-learn's callbacks during a fit."""

from __future__ import annotations

from typing import Any

from xpnet.estimators.samples import Samples
from xpnet.nn import Network

__all__ = ["Task"]


class Task:
    """One task for the fit, with a subtask for each epoch.

    Parameters
    ----------
    estimator : BaseEstimator with CallbackSupportMixin
    network : Network
        Which it trains.
    samples : Samples
        What the hooks are told of.
    n_epochs : int
        Most epochs.

    References
    ----------
    scikit-learn 1.9, "Supporting callbacks in third party estimators".
    """

    def __init__(self, estimator: Any, network: Network, samples: Samples, n_epochs: int) -> None:
        weights = samples.weights
        metadata = None if weights is None else {"sample_weight": weights}
        self._estimator, self._network = estimator, network
        self._data = {"X": samples.shown, "y": samples.y, "metadata": metadata}
        self._root = estimator._init_callback_context(max_subtasks=n_epochs)
        # Without callbacks nothing is to be told.
        self._is_heard = bool(getattr(estimator, "_skl_callbacks", ()))
        self._begin(self._root)
        self._epoch: Any = None
        self._begin_epoch()

    def end_epoch(self, *, is_last: bool) -> bool:
        """End an epoch's task, and begin the next; tell whether a callback asks to stop."""
        if not self._is_heard:
            return False
        stops = self._end(self._epoch)
        if not is_last and not stops:
            self._begin_epoch()
        return stops

    def end(self) -> None:
        """End the fit's task."""
        if self._is_heard:
            self._end(self._root)

    def _begin_epoch(self) -> None:
        if self._is_heard:
            self._epoch = self._root.subcontext(task_name="epoch")
            self._begin(self._epoch)

    def _begin(self, context: Any) -> None:
        if self._is_heard:
            context.call_on_fit_task_begin(
                estimator=self._estimator, **self._data, reconstruction_attributes=self._learned
            )

    def _end(self, context: Any) -> bool:
        return bool(
            context.call_on_fit_task_end(
                estimator=self._estimator, **self._data, reconstruction_attributes=self._learned
            )
        )

    def _learned(self) -> dict[str, Any]:
        return {"network_": self._network.copy()}
