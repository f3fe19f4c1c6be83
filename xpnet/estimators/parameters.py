"""The parameters of the estimators: their constraints, and which exclude each other.

Parameters that ``MLPClassifier`` has in scikit-learn keep its constraints.
"""

from __future__ import annotations

from numbers import Real
from typing import Any, ClassVar

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.metrics import get_scorer_names

from xpnet.device import Device
from xpnet.estimators.rules import Known
from xpnet.estimators.scikit import MLP_CONSTRAINTS, Interval, InvalidParameterError, StrOptions
from xpnet.nn.interfaces import Activation, Initializer
from xpnet.nn.optimizers import Optimizer
from xpnet.nn.schedules import Schedule

__all__ = ["EstimatorParameters", "invalid", "resolved"]

_NOT_WITH_LBFGS = (
    *("dropout", "batch_norm", "max_norm", "weight_decay", "clip_norm"),
    *("optimizer", "schedule"),
)


class EstimatorParameters(BaseEstimator):
    """The parameters of all estimators, with the values for estimators that lack them."""

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **MLP_CONSTRAINTS,
        "activation": [Known(Activation, "logistic"), Activation, dict, "array-like"],
        "device": [None, str, Device],
        "precision": [None, StrOptions({"float32", "float64", "tf32"})],
        "dropout": [Interval(Real, 0, 1, closed="left"), "array-like"],
        "batch_norm": ["boolean"],
        "initialization": [None, Known(Initializer, "auto"), Initializer, dict],
        "optimizer": [None, Known(Optimizer), Optimizer, dict],
        "schedule": [None, Known(Schedule), Schedule, dict],
        "weight_decay": [Interval(Real, 0, None, closed="left")],
        "max_norm": [None, Interval(Real, 0, None, closed="neither")],
        "clip_norm": [None, Interval(Real, 0, None, closed="neither")],
        "scoring": [None, StrOptions({"loss", *get_scorer_names()}), callable],
        "warm_start_optimizer": ["boolean"],
    }

    # Values for an estimator that lacks the parameter.
    hidden_layer_sizes: Any = ()
    activation: Any = "identity"
    learning_rate: str = "constant"
    power_t: float = 0.5
    shuffle: bool = True
    momentum: float = 0.9
    nesterovs_momentum: bool = True
    early_stopping: bool = False
    validation_fraction: float = 0.1
    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-8
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
    _penalty: ClassVar[str] = "batch"  # how alpha is scaled, as in xpnet.training.fit

    def _store(self, arguments: dict[str, Any]) -> None:
        """Store a constructor's arguments, its ``locals()``, unchanged."""
        for name, value in arguments.items():
            if name != "self":
                setattr(self, name, value)

    def _check_options(self) -> None:
        """Raise an error for parameters that exclude each other."""
        if self.solver == "sgd" and self.learning_rate != "constant":
            for name in ("optimizer", "schedule"):
                if getattr(self, name) is not None:
                    raise ValueError(
                        f"learning_rate must be 'constant' with {name}={getattr(self, name)!r}, "
                        f"got {self.learning_rate!r}"
                    )
        if self.solver != "lbfgs":
            return
        for name in _NOT_WITH_LBFGS:
            value, default = getattr(self, name), getattr(EstimatorParameters, name)
            is_default = value is default or (np.ndim(value) == 0 and value == default)
            if name == "dropout" and np.ndim(value) == 1:
                is_default = not np.any(np.asarray(value, dtype=float))
            if not is_default:
                raise ValueError(
                    f"{name} must be {default!r} with solver='lbfgs', got {value!r}; use "
                    "solver='adam' or 'sgd' instead"
                )


def resolved(estimator: BaseEstimator, name: str, kind: Any, spec: Any = None) -> Any:
    """Return the object that a parameter's value, or one of its values, specifies."""
    try:
        return kind.resolve(getattr(estimator, name) if spec is None else spec)
    except (TypeError, ValueError) as error:
        wanted = f"a known name, a dict of options or an instance of {kind.__name__}"
        raise invalid(estimator, name, wanted, error) from error


def invalid(
    estimator: BaseEstimator, name: str, wanted: str, detail: Any = None
) -> InvalidParameterError:
    """Return the error for a parameter's value, in scikit-learn's wording."""
    return InvalidParameterError(
        f"The {name!r} parameter of {type(estimator).__name__} must be {wanted}. Got "
        f"{getattr(estimator, name)!r} instead." + (f" ({detail})" if detail is not None else "")
    )
