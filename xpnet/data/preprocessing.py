"""Preprocessing of features: what is learnt from the training samples and done to all others."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from xpnet.data.dataset import DataError

__all__ = ["Preprocessing"]

_CHUNK = 1 << 22  # numbers that are brought to float64 at a time


@dataclass(frozen=True, eq=False)  # arrays do not compare to one bool
class Preprocessing:
    """Scaling of the features, ``(X / divide_by - mean) / std``.

    Without ``mean`` and ``std`` it is the division alone. The statistics are those of the
    training samples, whatever is preprocessed, so that one sample gives the same features
    alone and among others.

    Attributes
    ----------
    divide_by : float
        Positive; 255 brings 8-bit pixels to [0, 1].
    mean, std : float64 arrays (n_features,) or None
        Of the training samples after the division, each feature on its own. A feature that is
        constant there has ``std`` 1.

    Raises
    ------
    ValueError
        If one of these is out of its range.
    """

    divide_by: float = 1.0
    mean: npt.NDArray[np.float64] | None = None
    std: npt.NDArray[np.float64] | None = None

    def __post_init__(self) -> None:
        numbers = (int, float, np.integer, np.floating)
        is_number = isinstance(self.divide_by, numbers) and not isinstance(self.divide_by, bool)
        try:
            divide_by = float(self.divide_by) if is_number else math.nan
        except OverflowError:
            divide_by = math.inf
        if not 0 < divide_by < math.inf:
            raise ValueError(f"divide_by must be a finite number > 0, got {self.divide_by!r:.40}")
        object.__setattr__(self, "divide_by", divide_by)  # of NumPy's scalars too
        if self.mean is None or self.std is None:
            if self.mean is not self.std:
                raise ValueError("mean and std must come together")
        elif not (np.isfinite(self.mean).all() and np.isfinite(self.std).all()):
            raise ValueError("mean and std must be finite")
        elif self.mean.ndim != 1 or self.mean.shape != self.std.shape:
            raise ValueError(
                "mean and std must have one shape, (n_features,), got "
                f"{self.mean.shape} and {self.std.shape}"
            )
        elif not (self.std > 0).all():
            raise ValueError(f"std must be positive, got {self.std.min()}")

    @classmethod
    def fit(cls, X: npt.NDArray[Any], *, divide_by: float = 1.0, standardise: bool = False) -> Self:
        """Learn the statistics from training samples.

        Parameters
        ----------
        X : array (n_samples, n_features)
            A memory-mapped array is read chunk by chunk.
        divide_by : float
        standardise : bool
            Whether to subtract the mean and divide by the standard deviation,
            ``sqrt(mean((x - mean)^2))``, in two passes over the data in float64. Before they are
            squared, a feature's deviations are divided by a power of two near its largest value:
            squares neither overflow nor vanish.

        Returns
        -------
        Preprocessing

        Raises
        ------
        ValueError
            If ``divide_by`` is out of its range, or ``X`` is not of that shape.
        DataError
            If the statistics are not finite: the features are too large to be summed.
        """
        scaling = cls(divide_by)
        _check_samples(X)
        if not standardise:
            return scaling
        if not len(X):
            raise ValueError("standardising needs a sample at least, got none")
        n, total, largest = len(X), np.zeros(X.shape[1]), np.zeros(X.shape[1])
        with np.errstate(over="ignore", invalid="ignore"):
            for rows in _chunks(X):
                chunk = _scaled(X[rows], scaling.divide_by)
                total += chunk.sum(axis=0)
                np.maximum(largest, np.abs(chunk, out=chunk).max(axis=0), out=largest)
            mean, power = total / n, np.frexp(largest)[1]
            squares = np.zeros(X.shape[1])
            for rows in _chunks(X):
                chunk = _scaled(X[rows], scaling.divide_by)
                chunk -= mean
                squares += (np.ldexp(chunk, -power, out=chunk) ** 2).sum(axis=0)
            std = np.ldexp(np.sqrt(squares / n), power)
        if not (np.isfinite(mean).all() and np.isfinite(std).all()):
            raise DataError(
                "standardising needs features whose sums are finite, got values up to "
                f"{max(float(np.abs(X[rows]).max()) for rows in _chunks(X)):g}"
            )
        # What rounding leaves of a constant feature's deviation is not worth blowing up.
        is_constant = std <= n * np.finfo(np.float64).eps * np.abs(mean)
        return cls(scaling.divide_by, mean, np.where(is_constant, 1.0, std))

    def __call__(self, X: npt.NDArray[Any], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """Preprocess samples.

        Parameters
        ----------
        X : array (n_samples, n_features)
            Not changed.
        dtype : {"float32", "float64"}

        Returns
        -------
        array like X, of that dtype
            ``X`` itself, memory-mapped or not, where there is nothing to do.

        Raises
        ------
        ValueError
            If ``X`` or ``dtype`` is not as said.
        DataError
            If what comes out is not finite, because ``X`` is not or is out of the dtype's range.

        Notes
        -----
        Computed in float64 and rounded once, in chunks: beyond the result little memory is used.
        """
        dtype = np.dtype(dtype)
        if dtype.name not in ("float32", "float64"):
            raise ValueError(f"dtype must be 'float32' or 'float64', got {dtype.name!r}")
        _check_samples(X, None if self.mean is None else len(self.mean))
        is_done = self.divide_by == 1 and self.mean is None and X.dtype == dtype
        result = X if is_done else np.empty(X.shape, dtype)
        for rows in _chunks(X):
            if not is_done:
                with np.errstate(over="ignore", invalid="ignore"):  # looked at below
                    chunk = _scaled(X[rows], self.divide_by)
                    if self.mean is not None and self.std is not None:
                        chunk -= self.mean
                        chunk /= self.std
                    result[rows] = chunk
            is_finite = np.isfinite(result[rows])
            if not is_finite.all():
                at = tuple(np.argwhere(~is_finite)[0])
                raise DataError(
                    f"features must be finite in {dtype}, got {result[rows][at]} for "
                    f"{X[rows][at]} in feature {at[1]}"
                )
        return result


def _check_samples(X: npt.NDArray[Any], n_features: int | None = None) -> None:
    if X.ndim != 2 or n_features not in (None, X.shape[1]):
        columns = "n_features" if n_features is None else n_features
        raise ValueError(f"X must have shape (n_samples, {columns}), got {X.shape}")
    if X.dtype.kind not in "biuf":
        raise ValueError(f"X must hold numbers, got dtype {X.dtype}")


def _scaled(X: npt.NDArray[Any], divide_by: float) -> npt.NDArray[np.float64]:
    """Give a new float64 array."""
    scaled: npt.NDArray[np.float64] = np.divide(X, divide_by, dtype=np.float64)
    return scaled


def _chunks(X: npt.NDArray[Any]) -> Iterator[slice]:
    step = max(1, _CHUNK // max(1, X.shape[1]))
    return (slice(start, start + step) for start in range(0, len(X), step))
