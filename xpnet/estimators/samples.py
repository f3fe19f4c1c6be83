"""The samples, targets and weights that an estimator has checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy.typing as npt

from xpnet.estimators.scikit import _safe_indexing

__all__ = ["Samples"]


@dataclass(frozen=True)
class Samples:
    """Samples to train or evaluate on.

    Attributes
    ----------
    X : array or sparse matrix (n_samples, n_features)
        Checked samples.
    targets : array (n_samples, n_outputs)
        Targets of the network. For classes they are boolean, with one column for each class, or a
        single column for two classes.
    y : array
        Checked labels.
    weights : array (n_samples,) or None
        Sample weights.
    shown : array, sparse matrix or DataFrame
        ``X`` as callbacks see it, with feature names if it has any.
    """

    X: Any
    targets: npt.NDArray[Any]
    y: Any
    weights: Any
    shown: Any

    def __len__(self) -> int:
        return int(self.X.shape[0])

    def take(self, rows: npt.NDArray[Any]) -> Self:
        """Select samples by their row numbers."""
        X = self.X.tocsr() if hasattr(self.X, "tocsr") else self.X
        taken = X[rows]
        weights = None if self.weights is None else self.weights[rows]
        has_names = hasattr(self.shown, "columns")
        shown = _safe_indexing(self.shown, rows) if has_names else taken
        return type(self)(taken, self.targets[rows], self.y[rows], weights, shown)
