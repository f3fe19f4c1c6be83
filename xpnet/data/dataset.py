"""A data set in memory, split into training and test data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["DataError", "Dataset"]


class DataError(ValueError):
    """A data set is missing, damaged or does not fit; the message says what and what to do."""


@dataclass(frozen=True)
class Dataset:
    """Samples and labels of a classification problem.

    Attributes
    ----------
    name : str
    X_train, X_test : arrays (n_samples, n_features)
        Float, scaled as the data set's loader says.
    y_train, y_test : int64 arrays (n_samples,)
        Classes, counted from 0.
    class_names : tuple of str
    """

    name: str
    X_train: npt.NDArray[Any]
    y_train: npt.NDArray[np.int64]
    X_test: npt.NDArray[Any]
    y_test: npt.NDArray[np.int64]
    class_names: tuple[str, ...]

    @property
    def n_features(self) -> int:
        """Number of columns of ``X``."""
        return int(self.X_train.shape[1])

    @property
    def majority_accuracy(self) -> float:
        """Test accuracy of always guessing the commonest class of the test data, a fraction."""
        return float(np.bincount(self.y_test).max() / len(self.y_test))
