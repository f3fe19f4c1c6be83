"""The classes ``Contents``, which a file holds, and ``Dataset``, split for an experiment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["TASKS", "Contents", "DataError", "Dataset", "Part"]

TASKS = ("classification", "regression")  # labels are classes, or numeric targets


class DataError(ValueError):
    """A data set is missing, damaged or unsuitable; the message says what to do."""


@dataclass(frozen=True, eq=False)  # arrays do not compare to one bool
class Part:
    """The samples of one part: training, validation or test.

    Attributes
    ----------
    X : array (n_samples, ...)
        Finite numbers. Each sample is a vector, or an image of shape (height, width) or (height,
        width, n_channels). At least one sample and one feature.
    y : array (n_samples,) or None
        Labels: integers or strings. In regression, targets: floats of shape (n_samples,) or
        (n_samples, n_targets). None if the file has no labels.
    sample_weight : float64 array (n_samples,) or None
        Weight of each sample; None if all weights are equal.
    """

    X: npt.NDArray[Any]
    y: npt.NDArray[Any] | None
    sample_weight: npt.NDArray[np.float64] | None = None


@dataclass(frozen=True, eq=False)
class Contents:
    """The contents of a data file.

    Attributes
    ----------
    parts : dict of str to Part
        Keys are ``"train"``, ``"validation"`` and ``"test"``. A file without parts has only
        ``"train"``.
    class_names : tuple of str or None
        Names of the classes 0, 1, ..., if the file gives them.
    feature_names : tuple of str or None
        Names of the columns of ``X``, if the file gives them.
    """

    parts: dict[str, Part]
    class_names: tuple[str, ...] | None = None
    feature_names: tuple[str, ...] | None = None


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set for classification or regression, split into training and test samples.

    Arrays are not copied: a memory-mapped array stays memory-mapped.

    Attributes
    ----------
    name : str
    X_train, X_test : arrays (n_samples, n_features)
        Features as published, without scaling.
    y_train, y_test : int64 arrays (n_samples,)
        Classes, counted from 0. In regression, targets: float64 arrays of shape (n_samples,) or
        (n_samples, n_targets).
    class_names : tuple of str
        Empty in regression.
    X_validation, y_validation : arrays or None
        None if nothing is held out for validation.
    image_shape : tuple of int or None
        ``(height, width)`` or ``(height, width, 3)``, if samples are images.
    feature_names : tuple of str or None
    sample_weight : float64 array (n_samples,) or None
        Weight of each training sample; None if all weights are equal.
    """

    name: str
    X_train: npt.NDArray[Any]
    y_train: npt.NDArray[Any]
    X_test: npt.NDArray[Any]
    y_test: npt.NDArray[Any]
    class_names: tuple[str, ...]
    X_validation: npt.NDArray[Any] | None = None
    y_validation: npt.NDArray[Any] | None = None
    image_shape: tuple[int, ...] | None = None
    feature_names: tuple[str, ...] | None = None
    sample_weight: npt.NDArray[np.float64] | None = None

    @property
    def task(self) -> str:
        """``"classification"`` or ``"regression"``."""
        return "classification" if self.class_names else "regression"

    @property
    def n_features(self) -> int:
        """Number of columns of ``X``."""
        return int(self.X_train.shape[1])

    @property
    def n_classes(self) -> int:
        """Number of classes, 0 in regression."""
        return len(self.class_names)

    @property
    def n_targets(self) -> int:
        """Number of regression targets, 0 in classification."""
        if self.class_names:
            return 0
        return 1 if self.y_train.ndim == 1 else int(self.y_train.shape[1])

    @property
    def majority_accuracy(self) -> float:
        """Test accuracy of always predicting the most frequent class of the test data.

        In regression it is 0, the R2 of always predicting the mean of the test data.
        """
        if not self.class_names:
            return 0.0
        return float(np.bincount(self.y_test).max() / len(self.y_test))
