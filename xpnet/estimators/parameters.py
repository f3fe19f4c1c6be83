"""The parameters of the estimators: their constraints, and which exclude each other.

Some names that are imported here begin with an underscore or lie in a module that does. They are
what scikit-learn has for authors of estimators: without them the checks of parameters and their
words would have to be written anew. The tests hold these words to scikit-learn's.
"""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.metrics import get_scorer_names
from sklearn.utils._param_validation import (
    Interval,
    InvalidParameterError,
    Options,
    StrOptions,
)

from xpnet.device import Device
from xpnet.estimators.rules import Known
from xpnet.nn.interfaces import Activation, Initializer
from xpnet.nn.optimizers import Optimizer
from xpnet.nn.schedules import Schedule

__all__ = ["EstimatorParameters", "invalid", "resolved"]

_SOLVERS_OWN = (
    "dropout",
    "batch_norm",
    "max_norm",
    "weight_decay",
    "clip_norm",
    "optimizer",
    "schedule",
)


class EstimatorParameters(BaseEstimator):
    """The parameters that estimators have in common, each with the value of those without it."""

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "hidden_layer_sizes": ["array-like", Interval(Integral, 1, None, closed="left")],
        "activation": [
            Known(Activation, "logistic"),
            Activation,
            dict,
            "array-like",
        ],
        "solver": [StrOptions({"lbfgs", "sgd", "adam"})],
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

    def _store(self, arguments: dict[str, Any]) -> None:
        """Keep a constructor's arguments, its ``locals()``, as they came."""
        for name, value in arguments.items():
            if name != "self":
                setattr(self, name, value)

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
        defaults = {name: getattr(EstimatorParameters, name) for name in _SOLVERS_OWN}
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


def resolved(estimator: BaseEstimator, name: str, kind: Any, spec: Any = None) -> Any:
    """Turn a parameter's value, or one of several, into what it stands for."""
    try:
        return kind.resolve(getattr(estimator, name) if spec is None else spec)
    except (TypeError, ValueError) as error:
        wanted = f"a known name, a table of a known one's options or an instance of {kind.__name__}"
        raise invalid(estimator, name, wanted, error) from error


def invalid(
    estimator: BaseEstimator, name: str, wanted: str, detail: Any = None
) -> InvalidParameterError:
    """Make the error of a parameter's value, as scikit-learn words it."""
    return InvalidParameterError(
        f"The {name!r} parameter of {type(estimator).__name__} must be {wanted}. Got "
        f"{getattr(estimator, name)!r} instead." + (f" ({detail})" if detail is not None else "")
    )
