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
from xpnet.estimators.classifier import NetworkClassifier

__all__ = ["LogisticRegression"]


class LogisticRegression(NetworkClassifier):
    """Logistic regression: the network of one layer, with scikit-learn's commonest parameters.

    ``J = C sum_i w_i l_i + 1/2 sum W^2`` is minimised, where ``l_i`` is the cross-entropy of the
    softmax of ``X W + b``, or of its sigmoid where there are two classes; the intercept has no
    penalty. Several labels at once are several such models.

    Parameters
    ----------
    C : float, default=1.0
        Inverse strength of the L2 penalty, positive; infinite for none.
    tol : float, default=1e-4
        With L-BFGS, the largest element of the gradient of the cost's mean at which it ends; else
        by how much the loss must improve.
    fit_intercept : bool, default=True
    class_weight : dict, "balanced" or None, default=None
        Factors on the weights of samples by their class.
    random_state : int, RandomState instance or None, default=None
        Of the order of the samples; nothing else is random, the weights begin at 0.
    solver : {"lbfgs", "adam", "sgd"}, default="lbfgs"
        The first is exact; the others take minibatches, for data that are large or on a GPU.
    max_iter : int, default=100
        Most iterations, or epochs.
    verbose : int, default=0
        Whether to print each iteration's loss.
    warm_start : bool, default=False
        Whether to begin with the last fit's weights.
    learning_rate_init : float, default=0.01
        Of ``"adam"`` and ``"sgd"``.
    batch_size : int or "auto", default="auto"
        Of ``"adam"`` and ``"sgd"``: samples in a minibatch; ``"auto"`` is 200, or all where there
        are fewer.
    n_iter_no_change : int, default=10
        Of ``"adam"`` and ``"sgd"``: they end after more epochs than this without an improvement.
    device : str, :class:`xpnet.Device` or None, default=None
        As for :class:`xpnet.MLPClassifier`, as is ``precision``.
    precision : {"float32", "float64", "tf32"} or None, default=None
        None is float64 with L-BFGS and else the dtype of ``X``, or that of the weights which a fit
        goes on from.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
    coef_ : ndarray of shape (1, n_features), or (n_classes, n_features) for more than two classes
    intercept_ : ndarray of shape (1,) or (n_classes,)
    n_iter_ : ndarray of shape (1,)
    network_ : xpnet.nn.Network
    device_ : str
    n_features_in_ : int
    feature_names_in_ : ndarray of shape (n_features_in_,)

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from xpnet import LogisticRegression
    >>> X, y = load_iris(return_X_y=True)
    >>> LogisticRegression(max_iter=200).fit(X, y).score(X, y) > 0.95
    True
    """

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
        self._store(locals())

    @property
    def alpha(self) -> float:
        """Coefficient of half the sum of squares of the weights, beside the sum of the losses."""
        return float(1.0 / self.C)

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

    @coef_.setter
    def coef_(self, value: Any) -> None:
        self._put("coef_", "W", [np.transpose(value)])

    @property
    def intercept_(self) -> npt.NDArray[Any]:
        """The biases, of shape (1,) or (n_classes,)."""
        return self.intercepts_[0]

    @intercept_.setter
    def intercept_(self, value: Any) -> None:
        self._put("intercept_", "b", [value])
