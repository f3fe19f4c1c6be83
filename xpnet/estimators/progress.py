"""What happens at the end of each epoch of an estimator's fit: curves, stopping, callbacks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from xpnet.estimators.rules import Rate
from xpnet.training import Report

if TYPE_CHECKING:
    from xpnet.estimators.base import NetworkEstimator
    from xpnet.estimators.samples import Samples

__all__ = ["Epochs", "Task"]


class Task:
    """A fit as scikit-learn's callbacks see it: one task, with a subtask for each epoch.

    Parameters
    ----------
    estimator : NetworkEstimator
    samples : Samples
        What the hooks are told of.
    n_epochs : int
        Most epochs.

    References
    ----------
    scikit-learn 1.9, "Supporting callbacks in third party estimators".
    """

    def __init__(self, estimator: NetworkEstimator, samples: Samples, n_epochs: int) -> None:
        weights = samples.weights
        metadata = None if weights is None else {"sample_weight": weights}
        self._estimator = estimator
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
        return {"network_": self._estimator.network_.copy()}


class Epochs:
    """Takes the report of each epoch, and tells whether the run ends with it.

    Parameters
    ----------
    estimator : NetworkEstimator
        Its attributes are kept up to date.
    task : Task
    rate : Rate
        Where ``solver="sgd"`` has the learning rate from.
    held_out : Samples or None
        Those that are not trained on.
    n_samples : int
        Of an epoch.
    n_epochs : int

    Attributes
    ----------
    has_stopped : bool
        Whether training ended because nothing improved any more, or a callback asked for it.
    """

    def __init__(
        self,
        estimator: NetworkEstimator,
        task: Task,
        rate: Rate,
        held_out: Samples | None,
        n_samples: int,
        n_epochs: int,
    ) -> None:
        self._estimator, self._task, self._rate = estimator, task, rate
        self._held_out, self._n_samples, self._n_epochs = held_out, n_samples, n_epochs
        self._patience = estimator._patience
        self._patience.tol, self._patience.n_epochs = estimator.tol, estimator.n_iter_no_change
        self.has_stopped = False

    def __call__(self, report: Report) -> bool:
        """Take note of an epoch."""
        estimator = self._estimator
        estimator.n_iter_ = report.epoch + 1
        estimator.loss_ = np.float64(report.cost)
        estimator.t_ += self._n_samples
        estimator.loss_curve_.append(estimator.loss_)
        if estimator.verbose:
            print(f"Iteration {estimator.n_iter_}, loss = {report.cost:.8f}")
        self._validate(report)
        old = self._rate.current
        self._rate.at_epochs_end(estimator.t_)
        stops = self._patience.is_over and self._give_up()
        self._carry_over(old)
        is_last = stops or report.epoch + 1 == self._n_epochs
        is_asked = self._task.end_epoch(is_last=is_last)
        self.has_stopped = stops or is_asked
        return self.has_stopped

    def _validate(self, report: Report) -> None:
        """Note what the validation data say, and whether anything improved."""
        estimator, patience = self._estimator, self._patience
        if self._held_out is not None:
            score = estimator._score_of(self._held_out, report)
            if estimator.validation_scores_ is None:
                estimator.validation_scores_ = []
            if estimator.validation_loss_curve_ is None:
                estimator.validation_loss_curve_ = []
            estimator.validation_scores_.append(score)
            if report.validation_cost is not None:
                estimator.validation_loss_curve_.append(report.validation_cost)
            if estimator.verbose:
                print(f"Validation score: {score:f}")
        if not estimator.early_stopping:
            patience.observe_loss(estimator.loss_)
            estimator.best_loss_ = patience.best
            return
        if patience.observe_score(score):
            estimator._keep_best()
        estimator.best_validation_score_ = patience.best_score

    def _give_up(self) -> bool:
        """Lower the rate where that is possible, else end the run."""
        estimator, patience = self._estimator, self._patience
        what = "Validation score" if estimator.early_stopping else "Training loss"
        said = (
            f"{what} did not improve more than tol={estimator.tol:f} for "
            f"{estimator.n_iter_no_change:d} consecutive epochs."
        )
        goes_on = self._rate.lower()
        if goes_on:
            patience.n_without = 0
            said += f" Setting learning rate to {self._rate.current:f}"
        else:
            is_low = self._rate.kind == "adaptive"
            said += " Learning rate too small. Stopping." if is_low else " Stopping."
        if estimator.verbose:
            print(said)
        return not goes_on

    def _carry_over(self, old: float) -> None:
        """Let velocities go on at their speed.

        In scikit-learn a velocity is in units of the parameters, the learning rate in it; ours is
        in units of the gradient, and the rate comes in as it is used.
        """
        if self._rate.current != old:
            velocity = self._estimator._state.optimizer.get("velocity")
            if velocity is not None:
                velocity *= old / self._rate.current
