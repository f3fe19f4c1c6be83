"""The base class of the classifiers: classes, class weights and probabilities."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import ClassifierMixin
from sklearn.preprocessing import LabelBinarizer
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.multiclass import unique_labels

from xpnet.estimators.base import NetworkEstimator, host
from xpnet.estimators.parameters import invalid
from xpnet.nn import SigmoidCrossEntropy, SoftmaxCrossEntropy
from xpnet.nn.losses import Loss

__all__ = ["NetworkClassifier"]


def _balanced(y: npt.NDArray[Any], weights: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Scale the weights so that all classes have the same total weight."""
    _, labels = np.unique(y, return_inverse=True)
    totals = np.bincount(labels, weights)
    balanced: npt.NDArray[Any] = weights * weights.sum() / np.count_nonzero(totals)
    return balanced / np.where(totals > 0, totals, 1.0)[labels]


def _columns(y: Any, classes: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Return ``y`` as a fitted LabelBinarizer transforms it, without checking it again."""
    columns: npt.NDArray[np.bool_]
    if y.ndim == 2:
        columns = (y.toarray() if hasattr(y, "toarray") else y) != 0
    elif len(classes) == 1:
        columns = np.zeros((len(y), 1), dtype=bool)
    else:
        columns = y[:, None] == (classes[1:] if len(classes) == 2 else classes)
    return columns


class NetworkClassifier(ClassifierMixin, NetworkEstimator):
    """An estimator whose labels are classes."""

    def _targets(self, y: Any, *, incremental: bool) -> npt.NDArray[Any]:
        if not hasattr(self, "classes_") or not (self.warm_start or incremental):
            self._label_binarizer = LabelBinarizer().fit(y)
            self.classes_ = self._label_binarizer.classes_
            return _columns(y, self.classes_)
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
        labels: npt.NDArray[Any] = (
            targets.argmax(axis=1) if self._is_multiclass() else targets.astype(np.float64)
        )
        return labels

    def _is_multiclass(self) -> bool:
        return bool(self._label_binarizer.y_type_ == "multiclass")

    def _out_activation(self) -> str:
        return "softmax" if self._is_multiclass() else "logistic"

    def _cross_entropy(self, **options: Any) -> Loss:
        kind = SoftmaxCrossEntropy if self._is_multiclass() else SigmoidCrossEntropy
        return kind(**options)

    def _loss(self, dtype: np.dtype[Any]) -> Loss:
        # scikit-learn states the loss of probabilities clipped to [eps, 1 - eps].
        eps = float(np.finfo(dtype).eps)
        return self._cross_entropy(label_smoothing=self.label_smoothing, clip=eps)

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
            raise invalid(self, "class_weight", "a list only if y has several outputs")
        of_classes = compute_sample_weight(self.class_weight, y)
        if not (np.isfinite(of_classes) & (of_classes >= 0)).all():
            raise invalid(self, "class_weight", "finite and at least 0 for each class")
        return of_classes if weights is None else weights * of_classes

    def _score_of(self, held_out: Any, report: Any) -> float:
        if self.scoring is None and len(self.classes_) == 1:
            return 1.0  # predict returns the only class, whatever its probability
        return super()._score_of(held_out, report)

    def predict(self, X: Any) -> Any:
        """Predict the class of each sample.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Samples.

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_classes)
            Class of each sample; for multilabel problems a matrix of 0 and 1.
        """
        logits = self._logits(X)
        outputs = np.asarray(self._cross_entropy().probabilities(host().ops, logits))
        return self._label_binarizer.inverse_transform(
            outputs.ravel() if self.n_outputs_ == 1 else outputs
        )

    def predict_proba(self, X: Any) -> npt.NDArray[Any]:
        """Predict the probability of each class.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Samples.

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
            Probabilities, in the order of ``classes_``. For multilabel problems each column is the
            probability of that label.
        """
        logits = self._logits(X)
        probabilities = functools.partial(self._cross_entropy().probabilities, host().ops)
        if self.n_outputs_ > 1:
            return np.asarray(probabilities(logits))
        # 1 - p loses the digits that sigmoid(-Z) has.
        return np.column_stack([probabilities(-logits), probabilities(logits)])

    def predict_log_proba(self, X: Any) -> npt.NDArray[Any]:
        """Predict the logarithm of the probability of each class.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Samples.

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
            Logarithms of the probabilities, in the order of ``classes_``.
        """
        with np.errstate(divide="ignore"):  # a probability may underflow to 0
            log_proba: npt.NDArray[Any] = np.log(self.predict_proba(X))
        return log_proba

    def _onnx_outputs(self) -> dict[str, Any]:
        if self._label_binarizer.y_type_.startswith("multilabel"):
            return {"outputs": "labels"}
        if len(self.classes_) < 2:
            raise ValueError(
                f"to_onnx needs a classifier of at least two classes, got {self.classes_}"
            )
        return {"outputs": "classes", "classes": self.classes_}

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags
