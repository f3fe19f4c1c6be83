"""Multi-layer perceptrons with scikit-learn's parameters, and more."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import ClassifierMixin, RegressorMixin, _fit_context
from sklearn.callback import with_callbacks
from sklearn.preprocessing import LabelBinarizer
from sklearn.utils import column_or_1d
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import (
    _check_partial_fit_first_call,
    type_of_target,
    unique_labels,
)

from xpnet.estimators.base import NetworkEstimator, host_ops
from xpnet.estimators.rules import HalfSquaredError
from xpnet.nn import PoissonDeviance, SigmoidCrossEntropy, SoftmaxCrossEntropy
from xpnet.nn.base import Loss

__all__ = ["MLPClassifier", "MLPRegressor", "NetworkClassifier"]


def _is_stochastic(estimator: NetworkEstimator) -> bool:
    if estimator.solver == "lbfgs":
        raise AttributeError(
            "partial_fit is only available for stochastic optimizers. "
            f"{estimator.solver} is not stochastic."
        )
    return True


def _balanced(y: npt.NDArray[Any], weights: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Give the classes equal sums of weights, each sample standing for as many as its weight is."""
    _, labels = np.unique(y, return_inverse=True)
    totals = np.bincount(labels, weights)
    balanced: npt.NDArray[Any] = weights * weights.sum() / np.count_nonzero(totals)
    return balanced / np.where(totals > 0, totals, 1.0)[labels]


class NetworkClassifier(ClassifierMixin, NetworkEstimator):
    """What classifiers share: classes and their probabilities."""

    def _targets(self, y: Any, *, incremental: bool) -> npt.NDArray[Any]:
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        if not hasattr(self, "classes_") or not (self.warm_start or incremental):
            self._label_binarizer = LabelBinarizer().fit(y)
            self.classes_ = self._label_binarizer.classes_
        else:
            classes = unique_labels(y)
            if self.warm_start and not incremental and set(classes) != set(self.classes_):
                raise ValueError(
                    "warm_start can only be used where `y` has the same classes as in the previous "
                    f"call to fit. Previously got {self.classes_}, `y` has {classes}"
                )
            if len(np.setdiff1d(classes, self.classes_, assume_unique=True)):
                raise ValueError(
                    "`y` has classes not in `self.classes_`. "
                    f"`self.classes_` has {self.classes_}. 'y' has {classes}."
                )
        targets = self._label_binarizer.transform(y)
        targets = targets.toarray() if hasattr(targets, "toarray") else targets
        columns: npt.NDArray[Any] = targets.astype(bool)
        return columns

    def _labels(self, targets: npt.NDArray[Any]) -> npt.NDArray[Any]:
        if self._is_multiclass():
            return targets.argmax(axis=1)
        return targets.astype(np.float64)

    def _is_multiclass(self) -> bool:
        return bool(self._label_binarizer.y_type_ == "multiclass")

    def _out_activation(self) -> str:
        return "softmax" if self._is_multiclass() else "logistic"

    def _loss(self, dtype: np.dtype[Any]) -> Loss:
        kind = SoftmaxCrossEntropy if self._is_multiclass() else SigmoidCrossEntropy
        # scikit-learn states the loss of probabilities that are at least eps.
        ceiling = -math.log(np.finfo(dtype).eps)
        return kind(label_smoothing=self.label_smoothing, ceiling=ceiling)

    def _weigh(self, X: Any, y: Any, sample_weight: Any, *, incremental: bool) -> Any:
        weights = super()._weigh(X, y, sample_weight, incremental=incremental)
        if self.class_weight is None:
            return weights
        if incremental and isinstance(self.class_weight, str):
            raise ValueError(
                "class_weight='balanced' is not supported for partial_fit, which never sees all "
                "samples: pass the weights as a dictionary, see "
                "sklearn.utils.class_weight.compute_class_weight"
            )
        if isinstance(self.class_weight, str) and weights is not None and y.ndim == 1:
            return _balanced(y, weights)
        if isinstance(self.class_weight, list) and y.ndim == 1:
            raise ValueError(
                "class_weight may be a list, of a table for each output, where y has several; got "
                f"{self.class_weight!r}"
            )
        of_classes = compute_sample_weight(self.class_weight, y)
        if not (np.isfinite(of_classes) & (of_classes >= 0)).all():
            raise ValueError(
                f"class_weight must hold finite numbers of at least 0, got {self.class_weight!r}"
            )
        return of_classes if weights is None else weights * of_classes

    def _score_of(self, held_out: Any, report: Any) -> float:
        if self.scoring is None and len(self.classes_) == 1:
            return 1.0  # predict knows no other, whatever the probability
        return super()._score_of(held_out, report)

    def predict(self, X: Any) -> Any:
        """Predict the classes of samples.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples,), or (n_samples, n_classes) for several labels
        """
        outputs = self._outputs(X)
        return self._label_binarizer.inverse_transform(outputs)

    def predict_proba(self, X: Any) -> npt.NDArray[Any]:
        """Compute the probability of each class.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
            In the order of ``classes_``; for several labels each label's own.
        """
        logits, ops = self._logits(X), host_ops()
        if self._is_multiclass():
            return np.asarray(ops.softmax(logits))
        if self.n_outputs_ == 1:  # 1 - p loses the digits that sigmoid(-Z) has
            return np.column_stack([ops.sigmoid(-logits), ops.sigmoid(logits)])
        return np.asarray(ops.sigmoid(logits))

    def predict_log_proba(self, X: Any) -> npt.NDArray[Any]:
        """Compute the logarithm of the probability of each class.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
            In the order of ``classes_``.
        """
        with np.errstate(divide="ignore"):  # a probability may be too small for a number
            log_proba: npt.NDArray[Any] = np.log(self.predict_proba(X))
        return log_proba

    def _onnx_outputs(self) -> dict[str, Any]:
        if self._label_binarizer.y_type_.startswith("multilabel"):
            return {"outputs": "labels"}
        if len(self.classes_) < 2:
            raise ValueError(
                f"a classifier to be exported must have two classes or more, got {self.classes_}"
            )
        return {"outputs": "classes", "classes": self.classes_}

    def _outputs(self, X: Any) -> npt.NDArray[Any]:
        """Give the probabilities that scikit-learn's decisions are made from."""
        logits = self._logits(X)
        ops = host_ops()
        outputs = np.asarray(ops.softmax(logits) if self._is_multiclass() else ops.sigmoid(logits))
        return outputs.ravel() if self.n_outputs_ == 1 else outputs

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags


class MLPClassifier(NetworkClassifier):
    """PLACEHOLDER."""

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **NetworkEstimator._parameter_constraints,
        "class_weight": [dict, list, StrOptions({"balanced"}), None],
        "label_smoothing": [Interval(Real, 0, 1, closed="left")],
    }
    loss = "log_loss"  # the only one; no parameter, as in scikit-learn

    def __init__(
        self,
        hidden_layer_sizes: Any = (100,),
        activation: Any = "relu",
        *,
        solver: str = "adam",
        alpha: float = 0.0001,
        batch_size: int | str = "auto",
        learning_rate: str = "constant",
        learning_rate_init: float = 0.001,
        power_t: float = 0.5,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: Any = None,
        tol: float = 1e-4,
        verbose: Any = False,
        warm_start: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        n_iter_no_change: float = 10,
        max_fun: int = 15000,
        device: Any = None,
        precision: str | None = None,
        dropout: Any = 0.0,
        batch_norm: bool = False,
        initialization: Any = None,
        class_weight: Any = None,
        label_smoothing: float = 0.0,
        optimizer: Any = None,
        schedule: Any = None,
        weight_decay: float = 0.0,
        max_norm: float | None = None,
        clip_norm: float | None = None,
        scoring: Any = None,
        warm_start_optimizer: bool = False,
    ) -> None:
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.solver = solver
        self.alpha = alpha
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.learning_rate_init = learning_rate_init
        self.power_t = power_t
        self.max_iter = max_iter
        self.shuffle = shuffle
        self.random_state = random_state
        self.tol = tol
        self.verbose = verbose
        self.warm_start = warm_start
        self.momentum = momentum
        self.nesterovs_momentum = nesterovs_momentum
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon
        self.n_iter_no_change = n_iter_no_change
        self.max_fun = max_fun
        self.device = device
        self.precision = precision
        self.dropout = dropout
        self.batch_norm = batch_norm
        self.initialization = initialization
        self.class_weight = class_weight
        self.label_smoothing = label_smoothing
        self.optimizer = optimizer
        self.schedule = schedule
        self.weight_decay = weight_decay
        self.max_norm = max_norm
        self.clip_norm = clip_norm
        self.scoring = scoring
        self.warm_start_optimizer = warm_start_optimizer

    @with_callbacks
    @_fit_context(prefer_skip_nested_validation=True)
    def fit(
        self,
        X: Any,
        y: Any,
        sample_weight: Any = None,
        *,
        X_val: Any = None,
        y_val: Any = None,
        sample_weight_val: Any = None,
    ) -> Self:
        """Fit the network to samples and their classes.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
        y : array-like of shape (n_samples,) or (n_samples, n_classes)
            Classes, numbers or strings; or for several labels a matrix of 0 and 1.
        sample_weight : array-like of shape (n_samples,), optional
            How much each sample counts, at least 0.
        X_val, y_val, sample_weight_val : like X, y and sample_weight, optional
            Samples that are evaluated after each epoch and not trained on. With
            ``early_stopping=True`` they are what it watches, and no part of ``X`` is set aside.

        Returns
        -------
        self
        """
        return self._fit(X, y, sample_weight, validation=(X_val, y_val, sample_weight_val))

    @available_if(_is_stochastic)
    @with_callbacks
    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None, classes: Any = None) -> Self:
        """Train for one epoch on these samples.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
        y : array-like of shape (n_samples,) or (n_samples, n_classes)
        sample_weight : array-like of shape (n_samples,), optional
        classes : array of shape (n_classes,), optional
            All classes of all calls; needed in the first, and may be left out in later ones.

        Returns
        -------
        self
        """
        if _check_partial_fit_first_call(self, classes):
            is_multilabel = type_of_target(y).startswith("multilabel")
            self._label_binarizer = LabelBinarizer().fit(y if is_multilabel else classes)
        return self._fit(X, y, sample_weight, incremental=True)


class MLPRegressor(RegressorMixin, NetworkEstimator):
    """PLACEHOLDER."""

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **NetworkEstimator._parameter_constraints,
        "loss": [StrOptions({"squared_error", "poisson"})],
    }

    def __init__(
        self,
        loss: str = "squared_error",
        hidden_layer_sizes: Any = (100,),
        activation: Any = "relu",
        *,
        solver: str = "adam",
        alpha: float = 0.0001,
        batch_size: int | str = "auto",
        learning_rate: str = "constant",
        learning_rate_init: float = 0.001,
        power_t: float = 0.5,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: Any = None,
        tol: float = 1e-4,
        verbose: Any = False,
        warm_start: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        n_iter_no_change: float = 10,
        max_fun: int = 15000,
        device: Any = None,
        precision: str | None = None,
        dropout: Any = 0.0,
        batch_norm: bool = False,
        initialization: Any = None,
        optimizer: Any = None,
        schedule: Any = None,
        weight_decay: float = 0.0,
        max_norm: float | None = None,
        clip_norm: float | None = None,
        scoring: Any = None,
        warm_start_optimizer: bool = False,
    ) -> None:
        self.loss = loss
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.solver = solver
        self.alpha = alpha
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.learning_rate_init = learning_rate_init
        self.power_t = power_t
        self.max_iter = max_iter
        self.shuffle = shuffle
        self.random_state = random_state
        self.tol = tol
        self.verbose = verbose
        self.warm_start = warm_start
        self.momentum = momentum
        self.nesterovs_momentum = nesterovs_momentum
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon
        self.n_iter_no_change = n_iter_no_change
        self.max_fun = max_fun
        self.device = device
        self.precision = precision
        self.dropout = dropout
        self.batch_norm = batch_norm
        self.initialization = initialization
        self.optimizer = optimizer
        self.schedule = schedule
        self.weight_decay = weight_decay
        self.max_norm = max_norm
        self.clip_norm = clip_norm
        self.scoring = scoring
        self.warm_start_optimizer = warm_start_optimizer

    def _targets(self, y: Any, *, incremental: bool) -> npt.NDArray[Any]:
        del incremental
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        columns: npt.NDArray[Any] = y.reshape(len(y), -1)
        return columns

    def _labels(self, targets: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return targets

    def _loss(self, dtype: np.dtype[Any]) -> Loss:
        del dtype
        return PoissonDeviance() if self.loss == "poisson" else HalfSquaredError()

    def _out_activation(self) -> str:
        return "exp" if self.loss == "poisson" else "identity"

    def _onnx_outputs(self) -> dict[str, Any]:
        return {"outputs": "numbers", "link": self.out_activation_}

    def predict(self, X: Any) -> npt.NDArray[Any]:
        """Predict numbers.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_outputs)
        """
        outputs = self._logits(X)
        if self.out_activation_ == "exp":
            outputs = np.exp(outputs)
        return outputs.ravel() if outputs.shape[1] == 1 else outputs

    @with_callbacks
    @_fit_context(prefer_skip_nested_validation=True)
    def fit(
        self,
        X: Any,
        y: Any,
        sample_weight: Any = None,
        *,
        X_val: Any = None,
        y_val: Any = None,
        sample_weight_val: Any = None,
    ) -> Self:
        """Fit the network to samples and their numbers.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
        sample_weight : array-like of shape (n_samples,), optional
            How much each sample counts, at least 0.
        X_val, y_val, sample_weight_val : like X, y and sample_weight, optional
            Samples that are evaluated after each epoch and not trained on. With
            ``early_stopping=True`` they are what it watches, and no part of ``X`` is set aside.

        Returns
        -------
        self
        """
        return self._fit(X, y, sample_weight, validation=(X_val, y_val, sample_weight_val))

    @available_if(_is_stochastic)
    @with_callbacks
    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train for one epoch on these samples.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
        sample_weight : array-like of shape (n_samples,), optional

        Returns
        -------
        self
        """
        return self._fit(X, y, sample_weight, incremental=True)
