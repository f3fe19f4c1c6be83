"""The parameters of the estimators: their constraints, and which exclude each other.

Some names that are imported here begin with an underscore or lie in a module that does. They are
what scikit-learn has for authors of estimators: without them the checks of parameters and their
words would have to be written anew. The tests hold these words to scikit-learn's. The constraints
of the parameters that scikit-learn's ``MLPClassifier`` has are its own.
"""

from __future__ import annotations

from numbers import Real
from typing import Any, ClassVar

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.metrics import get_scorer_names
from sklearn.neural_network import MLPClassifier
from sklearn.utils._param_validation import Interval, InvalidParameterError, StrOptions

from xpnet.device import Device
from xpnet.estimators.rules import Known
from xpnet.nn.interfaces import Activation, Initializer
from xpnet.nn.optimizers import Optimizer
from xpnet.nn.schedules import Schedule

__all__ = ["EstimatorParameters", "invalid", "resolved"]

_NOT_WITH_LBFGS = (
    *("dropout", "batch_norm", "max_norm", "weight_decay", "clip_norm"),
    *("optimizer", "schedule"),
)


class EstimatorParameters(BaseEstimator):
    """The parameters that estimators have in common, each with the value of those without it."""

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **MLPClassifier._parameter_constraints,  # scikit-learn's
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

    # What an estimator without such a parameter does.
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
    _penalty: ClassVar[str] = "batch"  # what alpha stands beside: the sum over a batch

    def _store(self, arguments: dict[str, Any]) -> None:
        """Keep a constructor's arguments, its ``locals()``, as they came."""
        for name, value in arguments.items():
            if name != "self":
                setattr(self, name, value)

    def _check_options(self) -> None:
        """Refuse parameters that exclude each other."""
        if self.solver == "sgd" and self.learning_rate != "constant":
            for name in ("optimizer", "schedule"):
                if getattr(self, name) is not None:
                    raise ValueError(
                        f"learning_rate={self.learning_rate!r} is a rule of solver='sgd' for its "
                        f"rate: it must be 'constant' beside {name}={getattr(self, name)!r}"
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
