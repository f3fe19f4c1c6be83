"""Samples and labels: what a file holds, and a data set split for an experiment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Contents", "DataError", "Dataset", "Part"]


class DataError(ValueError):
    """A data set is missing, damaged or does not fit; the message says what and what to do."""


@dataclass(frozen=True, eq=False)  # arrays do not compare to one bool
class Part:
    """Samples of one purpose, as a file holds them.

    Attributes
    ----------
    X : array (n_samples, ...)
        Finite numbers; each sample a vector, or an image of shape (height, width) or (height,
        width, n_channels). At least one sample and one feature.
    y : array (n_samples,) or None
        Labels: integers or strings. None where the file holds none.
    """

    X: npt.NDArray[Any]
    y: npt.NDArray[Any] | None


@dataclass(frozen=True, eq=False)
class Contents:
    """What a data file holds.

    Attributes
    ----------
    parts : dict of str to Part
        Under ``"train"``, ``"validation"`` and ``"test"``; a file that makes no difference
        between them holds ``"train"`` alone.
    class_names : tuple of str or None
        Names of the classes 0, 1, ..., where the file gives them.
    feature_names : tuple of str or None
        Names of the columns of ``X``, where the file gives them.
    """

    parts: dict[str, Part]
    class_names: tuple[str, ...] | None = None
    feature_names: tuple[str, ...] | None = None


@dataclass(frozen=True, eq=False)
class Dataset:
    """A classification problem: samples and labels, split for training and testing.

    Arrays are held as they are: a memory-mapped array stays one.

    Attributes
    ----------
    name : str
    X_train, X_test : arrays (n_samples, n_features)
        Features as published, not scaled.
    y_train, y_test : int64 arrays (n_samples,)
        Classes, counted from 0.
    class_names : tuple of str
    X_validation, y_validation : arrays or None
        None where nothing is held out for validation.
    image_shape : tuple of int or None
        ``(height, width)`` or ``(height, width, 3)``, where a sample is an image.
    feature_names : tuple of str or None
    """

    name: str
    X_train: npt.NDArray[Any]
    y_train: npt.NDArray[np.int64]
    X_test: npt.NDArray[Any]
    y_test: npt.NDArray[np.int64]
    class_names: tuple[str, ...]
    X_validation: npt.NDArray[Any] | None = None
    y_validation: npt.NDArray[np.int64] | None = None
    image_shape: tuple[int, ...] | None = None
    feature_names: tuple[str, ...] | None = None

    @property
    def n_features(self) -> int:
        """Number of columns of ``X``."""
        return int(self.X_train.shape[1])

    @property
    def n_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    @property
    def majority_accuracy(self) -> float:
        """Test accuracy of always guessing the commonest class of the test data, a fraction."""
        return float(np.bincount(self.y_test).max() / len(self.y_test))
