"""Logistic regression: the network of one layer."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import _fit_context
from sklearn.callback import with_callbacks
from sklearn.utils._param_validation import Interval, StrOptions

from xpnet.estimators.base import NetworkEstimator
from xpnet.estimators.mlp import NetworkClassifier

__all__ = ["LogisticRegression"]


class LogisticRegression(NetworkClassifier):
    """Placeholder."""

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "C": [Interval(Real, 0, None, closed="right")],
        "tol": [Interval(Real, 0, None, closed="left")],
        "fit_intercept": ["boolean"],
        "class_weight": [dict, StrOptions({"balanced"}), None],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        **{
            name: NetworkEstimator._parameter_constraints[name]
            for name in (
                *("random_state", "solver", "verbose", "warm_start"),
                *("learning_rate_init", "batch_size", "n_iter_no_change", "device", "precision"),
            )
        },
    }
    initialization = "zeros"
    _penalty = "sum"

    def __init__(
        self,
        *,
        C: float = 1.0,
        tol: float = 1e-4,
        fit_intercept: bool = True,
        class_weight: Any = None,
        random_state: Any = None,
        solver: str = "lbfgs",
        max_iter: int = 100,
        verbose: Any = 0,
        warm_start: bool = False,
        learning_rate_init: float = 0.01,
        batch_size: int | str = "auto",
        n_iter_no_change: float = 10,
        device: Any = None,
        precision: str | None = None,
    ) -> None:
        self.C = C
        self.tol = tol
        self.fit_intercept = fit_intercept
        self.class_weight = class_weight
        self.random_state = random_state
        self.solver = solver
        self.max_iter = max_iter
        self.verbose = verbose
        self.warm_start = warm_start
        self.learning_rate_init = learning_rate_init
        self.batch_size = batch_size
        self.n_iter_no_change = n_iter_no_change
        self.device = device
        self.precision = precision

    @property
    def alpha(self) -> float:  # type: ignore[override]
        """Coefficient of half the sum of squares of the weights, beside the sum of the losses."""
        return 1.0 / self.C

    def _lbfgs_options(self) -> dict[str, Any]:
        return {"gtol": self.tol, "ftol": 64 * np.finfo(float).eps, "maxls": 50}

    @with_callbacks
    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Fit the weights to samples and their classes.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
        y : array-like of shape (n_samples,)
        sample_weight : array-like of shape (n_samples,), optional
            How much each sample counts, at least 0.

        Returns
        -------
        self
        """
        self._fit(X, y, sample_weight)
        self.n_iter_ = np.array([self.n_iter_], dtype=np.int32)
        return self

    def decision_function(self, X: Any) -> npt.NDArray[Any]:
        """Compute the logits, which are linear in the features.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples,), or (n_samples, n_classes) for more than two classes
        """
        logits = self._logits(X)
        return logits.ravel() if logits.shape[1] == 1 else logits

    @property
    def coef_(self) -> npt.NDArray[Any]:
        """The weights, of shape (1, n_features), or (n_classes, n_features)."""
        return self.coefs_[0].T

    @property
    def intercept_(self) -> npt.NDArray[Any]:
        """The biases, of shape (1,) or (n_classes,)."""
        return self.intercepts_[0]
