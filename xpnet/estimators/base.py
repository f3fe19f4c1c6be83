"""The base class of the estimators: training, prediction and learned attributes."""

from __future__ import annotations

import functools
import inspect
import re
import warnings
from collections.abc import Sequence
from numbers import Real
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import is_classifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import check_scoring
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state, column_or_1d
from sklearn.utils.validation import check_is_fitted, validate_data

from xpnet.device import Device
from xpnet.device import device as make_device
from xpnet.estimators.arrays import Arrays, affine, put
from xpnet.estimators.building import hidden_units, make_network, make_optimizer
from xpnet.estimators.callbacks import Task
from xpnet.estimators.parameters import EstimatorParameters, resolved
from xpnet.estimators.rules import Held, Patience, Rate
from xpnet.estimators.samples import Samples
from xpnet.estimators.scikit import (
    CallbackSupportMixin,
    _check_optimize_result,
    _check_sample_weight,
)
from xpnet.nn import Dropout, Network
from xpnet.nn.losses import Loss
from xpnet.nn.optimizers import Optimizer
from xpnet.nn.schedules import Schedule
from xpnet.random import EpochOrder
from xpnet.training import DivergenceError, Report, TrainingState, fit, minimize

__all__ = ["NetworkEstimator"]

# Arguments of the optimizer that its state also holds.
_CONSTANTS = {"learning_rate", "eps", "weight_decay"}


class NetworkEstimator(CallbackSupportMixin, EstimatorParameters):
    """An estimator that trains a :class:`xpnet.nn.Network` by scikit-learn's rules.

    A subclass describes its network and its training with the attributes of
    :class:`EstimatorParameters`, as parameters or as constants. It also implements the methods
    below, such as :meth:`_targets` and :meth:`_loss`.
    """

    network_: Network

    # Implemented by subclasses.

    def _targets(self, y: Any, *, incremental: bool) -> npt.NDArray[Any]:
        """Check labels against those of earlier calls and return them in columns."""
        raise NotImplementedError

    def _labels(self, targets: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return targets in the form that the loss takes."""
        raise NotImplementedError

    def _loss(self, dtype: np.dtype[Any]) -> Loss:
        """Return the loss."""
        raise NotImplementedError

    def _out_activation(self) -> str:
        """Return scikit-learn's name of the output activation."""
        raise NotImplementedError

    # Fitting.

    def _fit(
        self,
        X: Any,
        y: Any,
        sample_weight: Any = None,
        *,
        validation: tuple[Any, Any, Any] = (None, None, None),
        incremental: bool = False,
    ) -> Self:
        self._check_options()
        hidden_units(self)
        is_first = not hasattr(self, "network_") or not (self.warm_start or incremental)
        if self.early_stopping and incremental:
            raise ValueError("partial_fit does not support early_stopping=True")
        if self.schedule is not None and incremental:
            raise ValueError(
                f"partial_fit does not support a schedule, got schedule={self.schedule!r}; set "
                "learning_rate_init between the calls instead"
            )
        shown = X
        X, y = self._validate(X, y, reset=is_first)
        targets = self._targets(y, incremental=incremental)
        weights = self._weigh(X, y, sample_weight, incremental=incremental)
        samples = Samples(X, targets, y, weights, shown)
        held_out = self._held_out(*validation)
        self._random_state = check_random_state(self.random_state)
        network = make_network(
            self,
            X.shape[1],
            targets.shape[1],
            self._dtype(X, is_first=is_first),
            old=None if is_first else self.network_,
            random_state=self._random_state,
        )
        self.n_outputs_ = targets.shape[1]
        self.out_activation_ = self._out_activation()
        if is_first:
            self._begin()
        is_random = any(isinstance(layer, Dropout) for layer in network.layers)
        if is_random and not hasattr(self, "_seed"):
            self._seed = int(self._random_state.randint(2**31))
        self.network_ = network
        self.device_ = network.device.name
        if self.solver == "lbfgs":
            self._fit_lbfgs(samples)
        else:
            self._fit_stochastic(samples, held_out, incremental=incremental)
        return self

    def _validate(self, X: Any, y: Any, *, reset: bool) -> tuple[Any, Any]:
        X, y = validate_data(
            self,
            X,
            y,
            accept_sparse=["csr", "csc"],
            multi_output=True,
            y_numeric=not is_classifier(self),
            dtype=(np.float64, np.float32),
            reset=reset,
        )
        return X, column_or_1d(y, warn=True) if y.ndim == 2 and y.shape[1] == 1 else y

    def _weigh(self, X: Any, y: Any, sample_weight: Any, *, incremental: bool) -> Any:
        """Return the sample weights to train with."""
        del y, incremental
        return _checked_weights(X, sample_weight)

    def _held_out(self, X_val: Any, y_val: Any, sample_weight_val: Any) -> Samples | None:
        """Check the caller's validation data."""
        if (X_val is None) != (y_val is None):
            raise ValueError(
                "X_val and y_val must be given together, got only "
                f"{'X_val' if y_val is None else 'y_val'}"
            )
        if X_val is None:
            if sample_weight_val is not None:
                raise ValueError("sample_weight_val needs X_val and y_val, got neither")
            return None
        if self.solver == "lbfgs":
            raise ValueError(
                "X_val needs solver='adam' or 'sgd', which evaluate it after each epoch, got "
                "solver='lbfgs'"
            )
        shown = X_val
        X_val, y_val = self._validate(X_val, y_val, reset=False)
        weights = _checked_weights(X_val, sample_weight_val)
        targets = self._targets(y_val, incremental=True)
        return Samples(X_val, targets, y_val, weights, shown)

    def _dtype(self, X: Any, *, is_first: bool) -> np.dtype[Any]:
        """Return the dtype of the weights if ``precision`` is None."""
        if self.solver == "lbfgs":
            return np.dtype(np.float64)
        # Later fits keep the dtype of the weights, as in scikit-learn.
        return np.dtype(X.dtype) if is_first else self.network_.dtype

    def _begin(self) -> None:
        """Reset the attributes for a first fit."""
        self.n_iter_: Any = 0
        self.t_ = 0
        self.n_layers_ = len(hidden_units(self)) + 2
        for name in ("_state", "_seed", "_patience"):
            self.__dict__.pop(name, None)

    def _begin_curves(self) -> None:
        """Reset the learning curves for a first fit with minibatches."""
        self.loss_curve_: list[float] = []
        self.validation_scores_: list[float] | None = [] if self.early_stopping else None
        self.validation_loss_curve_: list[float] | None = None
        self._reset_best()

    def _reset_best(self) -> None:
        """Forget the best loss or score so far."""
        self._watched = (self.early_stopping, self.scoring)
        self._patience = Patience(self.tol, self.n_iter_no_change)
        self._best: Any = None
        self.best_loss_ = None if self.early_stopping else np.inf
        self.best_validation_score_ = -np.inf if self.early_stopping else None

    def _fit_lbfgs(self, samples: Samples) -> None:
        network = self.network_
        task = Task(self, network, samples, self.max_iter)
        if self.verbose:
            print(f"L-BFGS, {network.n_parameters} parameters")

        def note(cost: float) -> bool:
            self.n_iter_ += 1
            if self.verbose:
                print(f"Iteration {self.n_iter_}, loss = {cost:.8f}")
            return task.end_epoch(is_last=self.n_iter_ >= self.max_iter)

        self.n_iter_ = 0
        result = minimize(
            network,
            samples.X,
            self._labels(samples.targets),
            loss=self._loss(network.dtype),
            max_iter=int(self.max_iter),
            l2=float(self.alpha),
            sample_weight=samples.weights,
            options=self._lbfgs_options(),
            on_iteration=note,
        )
        self.n_iter_ = _check_optimize_result("lbfgs", result, self.max_iter)
        self.loss_: float = np.float64(result.fun)
        if not np.isfinite(result.x).all():
            raise ValueError(_NON_FINITE)
        task.end()

    def _lbfgs_options(self) -> dict[str, Any]:
        return {"maxfun": self.max_fun, "gtol": self.tol}

    def _fit_stochastic(
        self, samples: Samples, held_out: Samples | None, *, incremental: bool
    ) -> None:
        network = self.network_
        if not hasattr(self, "_patience"):
            self._begin_curves()
        elif self._watched != (self.early_stopping, self.scoring):
            self._reset_best()
        self._patience.tol, self._patience.n_epochs = self.tol, self.n_iter_no_change
        optimizer, schedule = self._make_update(incremental)
        if self.early_stopping and held_out is None:
            train, val = self._split(samples)
            samples, held_out = samples.take(train), samples.take(val)
        n_samples = len(samples)
        validation = None
        if held_out is not None:
            validation = held_out.X, self._labels(held_out.targets), held_out.weights
        epochs = 1 if incremental else int(self.max_iter)
        task = Task(self, network, samples, epochs)
        has_stopped = False

        def end_epoch(report: Report) -> bool:
            nonlocal has_stopped
            stops = self._end_epoch(report, held_out, n_samples)
            is_asked = task.end_epoch(is_last=stops or report.epoch + 1 == epochs)
            has_stopped = stops or is_asked
            return has_stopped

        try:
            history = fit(
                network,
                samples.X,
                self._labels(samples.targets),
                loss=self._loss(network.dtype),
                optimizer=optimizer,
                epochs=epochs,
                batch_size=self._batch_size(n_samples),
                shuffle=EpochOrder(n_samples, self._random_state) if self.shuffle else False,
                seed=getattr(self, "_seed", 0),
                schedule=schedule,
                sample_weight=samples.weights,
                l2=float(self.alpha),
                penalty=self._penalty,
                clip_norm=self.clip_norm,
                validation=validation,
                state=self._state,
                train_accuracy=schedule.monitor == "train_accuracy",
                on_report=end_epoch,
            )
        except DivergenceError as error:
            if not self.early_stopping or self._best is None:
                raise ValueError(f"{_NON_FINITE} ({error})") from error
            _warn(
                f"{_NON_FINITE} The best epoch's weights are restored. ({error})",
                ConvergenceWarning,
            )
        else:
            is_at_its_end = self.n_iter_ == self.max_iter and not incremental
            if history.interrupted:
                _warn("Training interrupted by user.")
            elif is_at_its_end and not has_stopped:
                _warn(
                    f"Stochastic Optimizer: Maximum iterations ({self.max_iter}) reached and the "
                    "optimization hasn't converged yet.",
                    ConvergenceWarning,
                )
        if self.early_stopping and self._best is not None:
            self._restore_best()
        task.end()

    def _batch_size(self, n_samples: int) -> int:
        if isinstance(self.batch_size, str):
            return min(200, n_samples)
        if self.batch_size > n_samples:
            _warn(
                "Got `batch_size` less than 1 or larger than sample size. It is going to be clipped"
            )
        return min(int(self.batch_size), n_samples)

    def _make_update(self, incremental: bool) -> tuple[Optimizer, Schedule]:
        """Return the optimizer and the schedule, and set the state that training starts from."""
        rate = Rate(
            float(self.learning_rate_init),
            self.learning_rate if self.solver == "sgd" else "constant",
            self.power_t,
        )
        optimizer = make_optimizer(self)
        resumes = incremental or (self.warm_start and self.warm_start_optimizer)
        old: TrainingState | None = getattr(self, "_state", None)
        last: Rate | None = getattr(self, "_rate", None)
        begun = TrainingState.start(self.network_, optimizer)
        if old is not None:
            if old.network is not self.network_:
                old = old.moved_to(self.network_)
            begun.steps = old.steps  # no mask is drawn twice
            carried = {name: a for name, a in old.optimizer.items() if name not in _CONSTANTS}
            if resumes and carried.keys() == begun.optimizer.keys() - _CONSTANTS:
                begun.optimizer.update(carried)
                if last is not None and last.initial == rate.initial:
                    rate.current = last.current
        self._state = begun
        self._rate = rate
        if self.schedule is not None:
            return optimizer, resolved(self, "schedule", Schedule)
        if self.optimizer is not None:
            return optimizer, Schedule.resolve("constant")
        return optimizer, Held(rate)

    def _split(self, samples: Samples) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """Split the samples into training and validation rows, as scikit-learn does."""
        should_stratify = is_classifier(self) and self.n_outputs_ == 1
        train, val = train_test_split(
            np.arange(len(samples)),
            random_state=self._random_state,
            test_size=self.validation_fraction,
            stratify=samples.targets if should_stratify else None,
        )
        if len(val) < 2:
            raise ValueError(
                "The validation set is too small. Increase 'validation_fraction' "
                "or the size of your dataset."
            )
        return train, val

    # After each epoch.

    def _end_epoch(self, report: Report, held_out: Samples | None, n_samples: int) -> bool:
        """Record an epoch; return whether to stop because nothing improves any more."""
        self.n_iter_ = report.epoch + 1
        self.loss_ = np.float64(report.cost)
        self.t_ += n_samples
        self.loss_curve_.append(self.loss_)
        if self.verbose:
            print(f"Iteration {self.n_iter_}, loss = {report.cost:.8f}")
        self._watch(report, held_out)
        old = self._rate.current
        self._rate.at_epochs_end(self.t_)
        stops = self._patience.is_over and self._lower_rate_or_stop()
        self._rescale_velocity(old)
        return stops

    def _watch(self, report: Report, held_out: Samples | None) -> None:
        """Record the validation score, and whether the loss or score improved."""
        patience = self._patience
        if held_out is not None:
            score = self._score_of(held_out, report)
            if self.validation_scores_ is None:
                self.validation_scores_ = []
            if self.validation_loss_curve_ is None:
                self.validation_loss_curve_ = []
            self.validation_scores_.append(score)
            if report.validation_cost is not None:
                self.validation_loss_curve_.append(report.validation_cost)
            if self.verbose:
                print(f"Validation score: {score:f}")
        if not self.early_stopping:
            patience.observe_loss(self.loss_)
            self.best_loss_ = patience.best
            return
        if patience.observe_score(score):
            self._keep_best()
        self.best_validation_score_ = patience.best_score

    def _lower_rate_or_stop(self) -> bool:
        """Lower an adaptive learning rate if possible; return whether to stop instead."""
        what = "Validation score" if self.early_stopping else "Training loss"
        message = (
            f"{what} did not improve more than tol={self.tol:f} for "
            f"{self.n_iter_no_change:d} consecutive epochs."
        )
        is_lowered = self._rate.lower()
        if is_lowered:
            self._patience.n_without = 0
            message += f" Setting learning rate to {self._rate.current:f}"
        else:
            is_low = self._rate.kind == "adaptive"
            message += " Learning rate too small. Stopping." if is_low else " Stopping."
        if self.verbose:
            print(message)
        return not is_lowered

    def _rescale_velocity(self, old: float) -> None:
        """Rescale the velocity after the learning rate has changed.

        scikit-learn's velocity includes the learning rate, so a new rate does not change it. Ours
        is in units of the gradient, and is multiplied by the rate where it is used.
        """
        if self._rate.current != old:
            velocity = self._state.optimizer.get("velocity")
            if velocity is not None:
                velocity *= old / self._rate.current

    def _keep_best(self) -> None:
        network = self.network_
        to_host = network.device.to_host
        self._best = [to_host(a).copy() for a in (network.parameters, network.statistics)]

    def _restore_best(self) -> None:
        network = self.network_
        buffers = network.parameters, network.statistics
        with network.device.activate():
            for buffer, best in zip(buffers, self._best, strict=True):
                buffer[...] = network.device.asarray(best)

    def _score_of(self, held_out: Samples, report: Any) -> float:
        """Return an epoch's score on the validation data."""
        if self.scoring is None:
            return float(report.validation_accuracy)
        if self.scoring == "loss":
            return -float(report.validation_cost)
        scorer = check_scoring(self, scoring=self.scoring)
        # A user's function need not take weights.
        given: dict[str, Any] = {}
        if held_out.weights is not None and _takes_weights(scorer):
            given["sample_weight"] = held_out.weights
        names = self.__dict__.pop("feature_names_in_", None)  # the checked data have no names
        try:
            score = scorer(self, held_out.X, held_out.y, **given)
        finally:
            if names is not None:
                self.feature_names_in_ = names
        if not isinstance(score, Real):
            raise ValueError(f"scoring must return a number, got {score!r} from {scorer!r}")
        return float(score)

    # Predicting.

    def _logits(self, X: Any) -> npt.NDArray[Any]:
        """Check samples and return the network's output."""
        check_is_fitted(self)
        X = validate_data(self, X, accept_sparse=["csr", "csc"], reset=False)
        logits: npt.NDArray[Any] = self.network_.predict(X)
        if self.precision is None:  # the dtype of X @ W in NumPy
            logits = logits.astype(np.result_type(X.dtype, logits.dtype), copy=False)
        return logits

    def __sklearn_is_fitted__(self) -> bool:
        return "network_" in vars(self)

    def to_onnx(self, path: Any = None) -> Any:
        """Export the fitted estimator to ONNX, to predict without xpnet.

        The model's input is ``X`` of shape (n_samples, n_features), in the network's dtype. Its
        outputs are ``label`` and ``probabilities`` for a classifier, ``variable`` for a regressor.

        Parameters
        ----------
        path : path-like, optional
            File to write.

        Returns
        -------
        onnx.ModelProto

        Raises
        ------
        ImportError
            If the package onnx is not installed.
        ValueError
            If a layer or an activation of the network has no equivalent in ONNX.
        """
        from xpnet.export import onnx_model

        check_is_fitted(self)
        name = type(self).__name__
        return onnx_model(self.network_, name=name, path=path, **self._onnx_outputs())

    def _onnx_outputs(self) -> dict[str, Any]:
        """Return the arguments of :func:`xpnet.export.onnx_model` that describe the outputs."""
        raise NotImplementedError

    # Learned attributes.

    def _affine(self) -> list[tuple[npt.NDArray[Any], npt.NDArray[Any]]]:
        if "network_" not in vars(self):
            raise AttributeError(f"{type(self).__name__} is not fitted yet")
        return affine(self.network_)

    def _put(self, attribute: str, name: str, values: Sequence[Any]) -> None:
        """Set a parameter, ``"W"`` or ``"b"``, of every dense layer."""
        if "network_" not in vars(self):
            raise AttributeError(f"{attribute} can only be set after fit")
        if self.batch_norm or (name == "b" and not self.fit_intercept):
            reason = "batch_norm=True" if self.batch_norm else "fit_intercept=False"
            raise AttributeError(f"{attribute} cannot be set with {reason}")
        put(self.network_, attribute, name, values)

    @property
    def coefs_(self) -> list[npt.NDArray[Any]]:
        """The weight matrices, as used in prediction."""
        return Arrays((W for W, _ in self._affine()), functools.partial(setattr, self, "coefs_"))

    @coefs_.setter
    def coefs_(self, values: Sequence[Any]) -> None:
        self._put("coefs_", "W", values)

    @property
    def intercepts_(self) -> list[npt.NDArray[Any]]:
        """The biases, as used in prediction."""
        return Arrays(
            (b for _, b in self._affine()), functools.partial(setattr, self, "intercepts_")
        )

    @intercepts_.setter
    def intercepts_(self, values: Sequence[Any]) -> None:
        self._put("intercepts_", "b", values)

    # Pickles.

    def __getstate__(self) -> dict[str, Any]:
        state = dict(super().__getstate__())
        network = state.get("network_")
        if network is not None and network.device.index is not None:
            on_host = state["network_"] = network.copy(device=host())
            if isinstance(state["device"], Device):
                state["device"] = state["device"].name  # it may be loaded without a GPU
            if "_state" in state:
                state["_state"] = state["_state"].moved_to(on_host)
        return state

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags


_NON_FINITE = (
    "Solver produced non-finite parameter weights. The input data may contain large values and "
    "need to be preprocessed."
)


def _checked_weights(X: Any, sample_weight: Any) -> Any:
    if sample_weight is None:
        return None
    return _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)


def _warn(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn at the line that called scikit-learn or xpnet."""
    level, frame = 2, inspect.currentframe()
    while frame is not None and _INSIDE.match(frame.f_globals.get("__name__", "")):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level - 1)


_INSIDE = re.compile(r"(xpnet|sklearn)(\.|$)")


def _takes_weights(scorer: Any) -> bool:
    parameters = inspect.signature(scorer).parameters.values()
    return any(p.name == "sample_weight" or p.kind is p.VAR_KEYWORD for p in parameters)


@functools.cache
def host() -> Device:
    """Return the CPU device, which turns logits into predictions."""
    return make_device("cpu", precision="float32")
