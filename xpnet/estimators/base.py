"""What the estimators share: parameters, the network that they stand for, and its training.

Some names that are imported here begin with an underscore or lie in a module that does. They are
what scikit-learn has for authors of estimators: without them the checks of parameters and samples,
and their words, would have to be written anew. The tests hold these words to scikit-learn's.
"""

from __future__ import annotations

import functools
import inspect
import re
import warnings
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, is_classifier
from sklearn.callback import CallbackSupportMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import check_scoring, get_scorer_names
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state, column_or_1d
from sklearn.utils._param_validation import Interval, Options, StrOptions
from sklearn.utils.optimize import _check_optimize_result
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from xpnet.device import Device
from xpnet.device import device as make_device
from xpnet.estimators.arrays import Arrays, affine, put
from xpnet.estimators.building import hidden_units, make_network, resolved
from xpnet.estimators.progress import Epochs, Task
from xpnet.estimators.rules import EpochOrder, Held, Known, Patience, Rate
from xpnet.estimators.samples import Samples
from xpnet.nn import (
    Adam,
    Dropout,
    Momentum,
    Nesterov,
    Network,
)
from xpnet.nn.interfaces import Activation, Initializer
from xpnet.nn.losses import Loss
from xpnet.nn.optimizers import Optimizer
from xpnet.nn.schedules import Schedule
from xpnet.training import DivergenceError, TrainingState, fit, minimize

__all__ = ["NetworkEstimator"]

_STOCHASTIC = ("sgd", "adam")
# What an optimizer's state holds of its arguments.
_CONSTANTS = {"learning_rate", "eps", "weight_decay"}
_SOLVERS_OWN = (
    "dropout",
    "batch_norm",
    "max_norm",
    "weight_decay",
    "clip_norm",
    "optimizer",
    "schedule",
)


class NetworkEstimator(CallbackSupportMixin, BaseEstimator):
    """An estimator that trains a :class:`xpnet.nn.Network` by scikit-learn's rules.

    A subclass says by attributes of these names, which may be its parameters or constants, what its
    network is and how it is trained; by :meth:`_targets` what labels are to the network; by
    :meth:`_loss` what it is trained on.
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "hidden_layer_sizes": ["array-like", Interval(Integral, 1, None, closed="left")],
        "activation": [
            Known(Activation, "logistic"),
            Activation,
            dict,
            "array-like",
        ],
        "solver": [StrOptions({"lbfgs", *_STOCHASTIC})],
        "alpha": [Interval(Real, 0, None, closed="left")],
        "batch_size": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
        "learning_rate": [StrOptions({"constant", "invscaling", "adaptive"})],
        "learning_rate_init": [Interval(Real, 0, None, closed="neither")],
        "power_t": [Interval(Real, 0, None, closed="left")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "shuffle": ["boolean"],
        "random_state": ["random_state"],
        "tol": [Interval(Real, 0, None, closed="left")],
        "verbose": ["verbose"],
        "warm_start": ["boolean"],
        "momentum": [Interval(Real, 0, 1, closed="both")],
        "nesterovs_momentum": ["boolean"],
        "early_stopping": ["boolean"],
        "validation_fraction": [Interval(Real, 0, 1, closed="left")],
        "beta_1": [Interval(Real, 0, 1, closed="left")],
        "beta_2": [Interval(Real, 0, 1, closed="left")],
        "epsilon": [Interval(Real, 0, None, closed="neither")],
        "n_iter_no_change": [
            Interval(Integral, 1, None, closed="left"),
            Options(Real, {np.inf}),
        ],
        "max_fun": [Interval(Integral, 1, None, closed="left")],
        "device": [None, str, Device],
        "precision": [None, StrOptions({"float32", "float64", "tf32"})],
        "dropout": [Interval(Real, 0, 1, closed="left"), "array-like"],
        "batch_norm": ["boolean"],
        "initialization": [
            None,
            Known(Initializer, "auto"),
            Initializer,
            dict,
        ],
        "optimizer": [None, Known(Optimizer), Optimizer, dict],
        "schedule": [None, Known(Schedule), Schedule, dict],
        "weight_decay": [Interval(Real, 0, None, closed="left")],
        "max_norm": [None, Interval(Real, 0, None, closed="neither")],
        "clip_norm": [None, Interval(Real, 0, None, closed="neither")],
        "scoring": [None, StrOptions({"loss", *get_scorer_names()}), callable],
        "warm_start_optimizer": ["boolean"],
    }

    # What an estimator that has no such parameter does.
    hidden_layer_sizes: Any = ()
    activation: Any = "identity"
    alpha: float
    batch_size: Any = "auto"
    learning_rate: str = "constant"
    learning_rate_init: float = 0.001
    power_t: float = 0.5
    shuffle: bool = True
    momentum: float = 0.9
    nesterovs_momentum: bool = True
    early_stopping: bool = False
    validation_fraction: float = 0.1
    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-8
    n_iter_no_change: float = 10
    max_fun: int = 15000
    fit_intercept: bool = True
    class_weight: Any = None
    dropout: Any = 0.0
    batch_norm: bool = False
    initialization: Any = None
    optimizer: Any = None
    schedule: Any = None
    weight_decay: float = 0.0
    max_norm: float | None = None
    clip_norm: float | None = None
    label_smoothing: float = 0.0
    scoring: Any = None
    warm_start_optimizer: bool = False
    _penalty: ClassVar[str] = "batch"  # what alpha stands beside: the sum over a batch
    solver: str
    max_iter: int
    tol: float
    verbose: Any
    random_state: Any
    warm_start: bool
    device: Any
    precision: str | None
    network_: Network

    def _store(self, arguments: dict[str, Any]) -> None:
        """Keep a constructor's arguments, its ``locals()``, as they came."""
        for name, value in arguments.items():
            if name != "self":
                setattr(self, name, value)

    # What subclasses say.

    def _targets(self, y: Any, *, incremental: bool) -> npt.NDArray[Any]:
        """Check labels against those of earlier calls and give them in columns."""
        raise NotImplementedError

    def _labels(self, targets: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Give targets in the form that the loss takes."""
        raise NotImplementedError

    def _loss(self, dtype: np.dtype[Any]) -> Loss:
        """Make the loss."""
        raise NotImplementedError

    def _out_activation(self) -> str:
        """Name what follows the last layer, as scikit-learn calls it."""
        raise NotImplementedError

    def _check_options(self) -> None:
        """Refuse what cannot be had together."""
        if self.solver != "lbfgs":
            for name in ("optimizer", "schedule"):
                is_by_rule = self.solver == "sgd" and self.learning_rate != "constant"
                if is_by_rule and getattr(self, name) is not None:
                    raise ValueError(
                        f"learning_rate={self.learning_rate!r} is a rule of solver='sgd' for its "
                        f"rate: it must be 'constant' beside {name}={getattr(self, name)!r}"
                    )
            return
        defaults = {name: getattr(NetworkEstimator, name) for name in _SOLVERS_OWN}
        for name, default in defaults.items():
            value = getattr(self, name)
            is_default = value is default or (np.ndim(value) == 0 and value == default)
            if name == "dropout" and np.ndim(value) == 1:
                is_default = not np.any(np.asarray(value, dtype=float))
            if not is_default:
                raise ValueError(
                    f"solver='lbfgs' minimises a function of the weights alone, in steps of its "
                    f"own: {name} must be {default!r} with it, got {value!r}; choose "
                    "solver='adam' or 'sgd'"
                )

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
                "partial_fit does not support a schedule, which is for the epochs of one fit, got "
                f"schedule={self.schedule!r}: set learning_rate_init between the calls"
            )
        shown = X
        X, y = self._validate(X, y, reset=is_first)
        targets = self._targets(y, incremental=incremental)
        weights = self._weigh(X, y, sample_weight, incremental=incremental)
        samples = Samples(X, targets, y, weights, shown)
        held_out = self._held_out(*validation)
        self._random_state = check_random_state(self.random_state)
        network = make_network(self, X, targets.shape[1], is_first=is_first)
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
        """Give the weights that samples are trained with."""
        del y, incremental
        return _checked_weights(X, sample_weight)

    def _held_out(self, X_val: Any, y_val: Any, sample_weight_val: Any) -> Samples | None:
        """Check validation data of the caller's own."""
        if (X_val is None) != (y_val is None):
            raise ValueError(
                "X_val and y_val must be given together, got "
                f"{'X_val' if y_val is None else 'y_val'} alone"
            )
        if X_val is None:
            if sample_weight_val is not None:
                raise ValueError("sample_weight_val must go with X_val and y_val, got it alone")
            return None
        if self.solver == "lbfgs":
            raise ValueError(
                "X_val is for solver='adam' and 'sgd', whose epochs it is evaluated after, got "
                "solver='lbfgs'"
            )
        shown = X_val
        X_val, y_val = self._validate(X_val, y_val, reset=False)
        weights = _checked_weights(X_val, sample_weight_val)
        targets = self._targets(y_val, incremental=True)
        return Samples(X_val, targets, y_val, weights, shown)

    def _begin(self) -> None:
        """Set what a first fit begins with."""
        self.n_iter_: Any = 0
        self.t_ = 0
        self.n_layers_ = len(hidden_units(self)) + 2
        for name in ("_state", "_seed", "_patience"):
            self.__dict__.pop(name, None)

    def _begin_curves(self) -> None:
        """Set what a first fit by epochs begins with."""
        self.loss_curve_: list[float] = []
        self.validation_scores_: list[float] | None = [] if self.early_stopping else None
        self.validation_loss_curve_: list[float] | None = None
        self._begin_watch()

    def _begin_watch(self) -> None:
        """Begin to watch a number, of which there is no best so far."""
        self._watched = (self.early_stopping, self.scoring)
        self._patience = Patience(self.tol, self.n_iter_no_change)
        self._best: Any = None
        self.best_loss_ = None if self.early_stopping else np.inf
        self.best_validation_score_ = -np.inf if self.early_stopping else None

    def _fit_lbfgs(self, samples: Samples) -> None:
        network = self.network_
        task = Task(self, samples, self.max_iter)
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
            self._begin_watch()
        optimizer, schedule, rate = self._rule(incremental)
        if self.early_stopping and held_out is None:
            train, val = self._split(samples)
            samples, held_out = samples.take(train), samples.take(val)
        n_samples = len(samples)
        validation = None
        if held_out is not None:
            validation = held_out.X, self._labels(held_out.targets), held_out.weights
        epochs = 1 if incremental else int(self.max_iter)
        task = Task(self, samples, epochs)
        monitor = Epochs(self, task, rate, held_out, n_samples, epochs)
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
                on_report=monitor,
            )
        except DivergenceError as error:
            if not self.early_stopping or self._best is None:
                raise ValueError(f"{_NON_FINITE} ({error})") from error
            _warn(f"{_NON_FINITE} The best epoch's are restored. ({error})", ConvergenceWarning)
        else:
            is_at_its_end = self.n_iter_ == self.max_iter and not incremental
            if history.interrupted:
                _warn("Training interrupted by user.")
            elif is_at_its_end and not monitor.has_stopped:
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

    def _rule(self, incremental: bool) -> tuple[Optimizer, Schedule, Rate]:
        """Make the optimizer and the schedule, and the state to go on from."""
        rate = Rate(
            float(self.learning_rate_init),
            self.learning_rate if self.solver == "sgd" else "constant",
            self.power_t,
        )
        optimizer = self._optimizer()
        goes_on = incremental or (self.warm_start and self.warm_start_optimizer)
        old: TrainingState | None = getattr(self, "_state", None)
        last: Rate | None = getattr(self, "_rate", None)
        begun = TrainingState.start(self.network_, optimizer)
        if old is not None:
            if old.network is not self.network_:
                old = old.moved_to(self.network_)
            begun.steps = old.steps  # no mask is drawn twice
            carried = {name: a for name, a in old.optimizer.items() if name not in _CONSTANTS}
            if goes_on and carried.keys() == begun.optimizer.keys() - _CONSTANTS:
                begun.optimizer.update(carried)
                if last is not None and last.initial == rate.initial:
                    rate.current = last.current
        self._state = begun
        self._rate = rate
        if self.schedule is not None:
            return optimizer, resolved(self, "schedule", Schedule), rate
        if self.optimizer is not None:
            return optimizer, Schedule.resolve("constant"), rate
        return optimizer, Held(rate), rate

    def _optimizer(self) -> Optimizer:
        spec, decay = self.optimizer, float(self.weight_decay)
        if isinstance(spec, str):
            spec = {"type": spec, "learning_rate": float(self.learning_rate_init)}
            spec |= {"weight_decay": decay} if decay else {}
        elif spec is not None and decay:
            raise ValueError(
                "weight_decay is for a solver or the name of an optimizer; give it to the "
                f"optimizer itself, got weight_decay={self.weight_decay!r} beside {spec!r}"
            )
        if spec is not None:
            found: Optimizer = resolved(self, "optimizer", Optimizer, spec)
            return found
        if self.solver == "adam":
            return Adam(
                float(self.learning_rate_init),
                beta1=self.beta_1,
                beta2=self.beta_2,
                eps=float(self.epsilon),
                epsilon_hat=True,
                weight_decay=decay,
            )
        kind = Nesterov if self.nesterovs_momentum else Momentum
        return kind(float(self.learning_rate_init), beta=float(self.momentum), weight_decay=decay)

    def _split(self, samples: Samples) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """Choose samples to train on and for validation, as scikit-learn draws them."""
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

    def _keep_best(self) -> None:
        """Keep the parameters of the best epoch so far."""
        network = self.network_
        to_host = network.device.to_host
        self._best = [to_host(a).copy() for a in (network.parameters, network.statistics)]

    def _restore_best(self) -> None:
        """Give the network the parameters of the best epoch."""
        network = self.network_
        buffers = network.parameters, network.statistics
        with network.device.activate():
            for buffer, best in zip(buffers, self._best, strict=True):
                buffer[...] = network.device.asarray(best)

    def _score_of(self, held_out: Samples, report: Any) -> float:
        """Give the score of an epoch on the validation data."""
        if self.scoring is None:
            return float(report.validation_accuracy)
        if self.scoring == "loss":
            return -float(report.validation_cost)
        scorer = check_scoring(self, scoring=self.scoring)
        # A function of one's own need not know of weights.
        given: dict[str, Any] = {}
        if held_out.weights is not None and _takes_weights(scorer):
            given["sample_weight"] = held_out.weights
        names = self.__dict__.pop("feature_names_in_", None)  # which the checked data have lost
        try:
            score = scorer(self, held_out.X, held_out.y, **given)
        finally:
            if names is not None:
                self.feature_names_in_ = names
        if not isinstance(score, Real):
            raise ValueError(f"scoring must give a number, got {score!r} from {scorer!r}")
        return float(score)

    # Predicting.

    def _logits(self, X: Any) -> npt.NDArray[Any]:
        """Check samples and give the network's output."""
        check_is_fitted(self)
        X = validate_data(self, X, accept_sparse=["csr", "csc"], reset=False)
        logits: npt.NDArray[Any] = self.network_.predict(X)
        if self.precision is None:  # as NumPy has it for X @ W
            logits = logits.astype(np.result_type(X.dtype, logits.dtype), copy=False)
        return logits

    def __sklearn_is_fitted__(self) -> bool:
        return "network_" in vars(self)

    def to_onnx(self, path: Any = None) -> Any:
        """Export the fitted estimator to ONNX, for runtimes that know nothing of xpnet.

        The model takes ``X`` (n_samples, n_features) in the network's dtype. A classifier's gives
        ``label`` and ``probabilities``, a regressor's ``variable``.

        Parameters
        ----------
        path : path-like, optional
            The file to write.

        Returns
        -------
        onnx.ModelProto

        Raises
        ------
        ImportError
            Where the package onnx is not installed.
        ValueError
            If the network has a layer or an activation that has no form in ONNX.
        """
        from xpnet.export import onnx_model

        check_is_fitted(self)
        name = type(self).__name__
        return onnx_model(self.network_, name=name, path=path, **self._onnx_outputs())

    def _onnx_outputs(self) -> dict[str, Any]:
        """Say what the outputs are, as :func:`xpnet.export.onnx_model` takes it."""
        raise NotImplementedError

    # What has been learned.

    @property
    def coefs_(self) -> list[npt.NDArray[Any]]:
        """The weight matrices, as they act in prediction."""
        return Arrays((W for W, _ in affine(self)), functools.partial(setattr, self, "coefs_"))

    @coefs_.setter
    def coefs_(self, values: Sequence[Any]) -> None:
        put(self, "coefs_", "W", values)

    @property
    def intercepts_(self) -> list[npt.NDArray[Any]]:
        """The biases, as they act in prediction."""
        return Arrays((b for _, b in affine(self)), functools.partial(setattr, self, "intercepts_"))

    @intercepts_.setter
    def intercepts_(self, values: Sequence[Any]) -> None:
        put(self, "intercepts_", "b", values)

    # Pickles.

    def __getstate__(self) -> dict[str, Any]:
        state = dict(super().__getstate__())
        network = state.get("network_")
        if network is not None and network.device.index is not None:
            on_host = state["network_"] = network.copy(device=host())
            if isinstance(state["device"], Device):
                state["device"] = state["device"].name  # a GPU may be missing where it is loaded
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
    """Warn at the line that called into scikit-learn's or xpnet's code."""
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
    """Give the CPU, for what predictions become there, whatever precision is asked of a GPU."""
    return make_device("cpu", precision="float32")
