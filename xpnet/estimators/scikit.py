"""The private names of scikit-learn that xpnet uses, for version 1.6 and newer.

Underscored names and underscored modules of scikit-learn may change in any release, so no other
module of xpnet imports them. They are scikit-learn's tools for authors of estimators: with them our
checks and messages are scikit-learn's own, which the tests verify.

Callbacks are public, but new in scikit-learn 1.9. Before that, ``set_callbacks`` raises an error.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import sklearn
from sklearn.base import _fit_context  # checks the parameters when fit is called
from sklearn.neural_network import MLPClassifier
from sklearn.utils import _safe_indexing  # selects rows of a data frame of any kind
from sklearn.utils._param_validation import (
    Interval,  # constraints of parameters
    InvalidParameterError,  # the error for a parameter's value
    StrOptions,
)
from sklearn.utils.multiclass import _check_partial_fit_first_call  # checks its classes
from sklearn.utils.optimize import _check_optimize_result  # warns if L-BFGS did not converge
from sklearn.utils.validation import _check_sample_weight

__all__ = [
    "HAS_CALLBACKS",
    "MLP_CONSTRAINTS",
    "CallbackSupportMixin",
    "Interval",
    "InvalidParameterError",
    "StrOptions",
    "_check_optimize_result",
    "_check_partial_fit_first_call",
    "_check_sample_weight",
    "_fit_context",
    "_safe_indexing",
    "begin_fit",
    "has_callbacks",
    "with_callbacks",
]

MLP_CONSTRAINTS: dict[str, list[Any]] = MLPClassifier._parameter_constraints
HAS_CALLBACKS = importlib.util.find_spec("sklearn.callback") is not None

if HAS_CALLBACKS:
    from sklearn.callback import CallbackSupportMixin, with_callbacks
else:

    class CallbackSupportMixin:  # type: ignore[no-redef]
        """An estimator without callbacks."""

        def set_callbacks(self, *callbacks: Any) -> Any:
            """Raise an error, because the installed scikit-learn has no callbacks."""
            del callbacks
            raise ImportError(
                f"set_callbacks needs scikit-learn 1.9 or newer, got {sklearn.__version__}; "
                "install it with: pip install 'scikit-learn>=1.9'"
            )

        def _init_callback_context(self, **options: Any) -> _NoContext:
            del options
            return _NoContext()

    class _NoContext:
        """The context of a fit without callbacks."""

        def call_on_fit_task_begin(self, **arguments: Any) -> None:
            """Do nothing."""

        def call_on_fit_task_end(self, **arguments: Any) -> None:
            """Do nothing."""

    def with_callbacks(method: Callable[..., Any]) -> Callable[..., Any]:
        """Return the method unchanged."""
        return method


def begin_fit(estimator: Any, n_epochs: int) -> Any:
    """Return the context in which a fit of at most ``n_epochs`` epochs calls its callbacks."""
    return estimator._init_callback_context(max_subtasks=n_epochs)


def has_callbacks(estimator: Any) -> bool:
    """Return whether ``set_callbacks`` was called with a callback."""
    return bool(getattr(estimator, "_skl_callbacks", ()))
