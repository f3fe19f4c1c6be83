"""Logistic regression, a network of one layer."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from xpnet.estimators.base import NetworkEstimator
from xpnet.estimators.classifier import NetworkClassifier
from xpnet.estimators.scikit import Interval, StrOptions, _fit_context, with_callbacks

__all__ = ["LogisticRegression"]


class LogisticRegression(NetworkClassifier):
    """Logistic regression with scikit-learn's most common parameters.

    It minimises ``J = C sum_i w_i l_i + 1/2 sum W^2``, where ``l_i`` is the cross-entropy of the
    softmax of ``X W + b``, or of its sigmoid for two classes. The intercept is not penalised. A
    multilabel problem is fitted as one such model per label.

    Parameters
    ----------
    C : float, default=1.0
        Inverse of the strength of the L2 penalty; must be positive. Use ``np.inf`` for no penalty.
    tol : float, default=1e-4
        Tolerance for stopping. L-BFGS stops when the largest element of the gradient of the mean
        cost is at most ``tol``; the other solvers stop when the loss no longer improves by ``tol``.
    fit_intercept : bool, default=True
        Whether to fit an intercept (bias).
    class_weight : dict, "balanced" or None, default=None
        Weights of the classes, which multiply the sample weights. ``"balanced"`` gives all classes
        the same total weight.
    random_state : int, RandomState instance or None, default=None
        Seed of the order of the samples for ``"adam"`` and ``"sgd"``. Nothing else is random: the
        weights start at 0.
    solver : {"lbfgs", "adam", "sgd"}, default="lbfgs"
        ``"lbfgs"`` converges to the exact minimum. ``"adam"`` and ``"sgd"`` train on minibatches,
        which suits large data and GPUs.
    max_iter : int, default=100
        Maximum number of iterations, or of epochs for ``"adam"`` and ``"sgd"``.
    verbose : int, default=0
        Whether to print the loss of each iteration.
    warm_start : bool, default=False
        Whether to start from the weights of the previous fit.
    learning_rate_init : float, default=0.01
        Learning rate of ``"adam"`` and ``"sgd"``.
    batch_size : int or "auto", default="auto"
        Number of samples in a minibatch, for ``"adam"`` and ``"sgd"``. ``"auto"`` is
        ``min(200, n_samples)``.
    n_iter_no_change : int, default=10
        ``"adam"`` and ``"sgd"`` stop after more consecutive epochs than this without improvement.
    device : str, :class:`xpnet.Device` or None, default=None
        Device to compute on, as for :class:`xpnet.MLPClassifier`.
    precision : {"float32", "float64", "tf32"} or None, default=None
        Precision to compute in, as for :class:`xpnet.MLPClassifier`. None is float64 with L-BFGS.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Class labels.
    coef_ : ndarray of shape (1, n_features), or (n_classes, n_features) for more than two classes
        Weights.
    intercept_ : ndarray of shape (1,) or (n_classes,)
        Biases.
    n_iter_ : ndarray of shape (1,)
        Number of iterations, or epochs.
    network_ : xpnet.nn.Network
        The trained network.
    device_ : str
        Device of the last fit.
    n_features_in_ : int
        Number of features.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the features, if ``X`` has names that are all strings.

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
        """Coefficient of half the weights' sum of squares, relative to the sum of the losses."""
        return float(1.0 / self.C)

    def _lbfgs_options(self) -> dict[str, Any]:
        return {"gtol": self.tol, "ftol": 64 * np.finfo(float).eps, "maxls": 50}

    @with_callbacks
    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Fit the model to training samples.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Training samples.
        y : array-like of shape (n_samples,) or (n_samples, n_classes)
            Class of each sample; for multilabel problems a matrix of 0 and 1.
        sample_weight : array-like of shape (n_samples,), optional
            Weight of each sample, at least 0. None gives all samples weight 1.

        Returns
        -------
        self
            The fitted estimator.
        """
        self._fit(X, y, sample_weight)
        self.n_iter_ = np.array([self.n_iter_], dtype=np.int32)
        return self

    def decision_function(self, X: Any) -> npt.NDArray[Any]:
        """Compute the logits ``X W + b``.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Samples.

        Returns
        -------
        ndarray of shape (n_samples,), or (n_samples, n_classes) for more than two classes
            Logits, in the order of ``classes_``. With two classes, that of ``classes_[1]``.
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
