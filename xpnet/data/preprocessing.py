"""Preprocessing of features, learned from the training samples and applied to all samples."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from xpnet.data.checks import is_real_number, unknown_name
from xpnet.data.dataset import DataError

__all__ = ["NORMALISATIONS", "Preprocessing"]

NORMALISATIONS = ("none", "standardise", "min-max", "per-image")
_LEARNT = ("standardise", "min-max")  # from the training samples

_CHUNK = 1 << 22  # numbers converted to float64 at a time


@dataclass(frozen=True, eq=False)  # arrays do not compare to one bool
class Preprocessing:
    """Division of all features, then a normalisation: ``(X / divide_by - shift) / scale``.

    ============= ================================ ======================================
    normalise     shift                            scale
    ============= ================================ ======================================
    "none"        0                                1
    "standardise" each feature's mean              each feature's standard deviation
    "min-max"     each feature's minimum           each feature's maximum minus minimum
    "per-image"   the mean of the sample's own     the standard deviation of the sample's
                  features, all of them together   own features
    ============= ================================ ======================================

    The statistics of a feature always come from the training samples, those of a sample from that
    sample: the result for one sample does not depend on the others in ``X``.

    Attributes
    ----------
    divide_by : float
        Positive divisor of all features; 255 maps 8-bit pixels to [0, 1].
    normalise : {"none", "standardise", "min-max", "per-image"}
    shift, scale : float64 arrays (n_features,) or None
        Statistics of the training samples after the division, for "standardise" and "min-max";
        else None. A feature that is constant in the training samples has ``scale`` 1.

    Raises
    ------
    ValueError
        If an argument is out of range, or the arguments do not fit each other.

    Notes
    -----
    - With "min-max" the training samples span [0, 1]. Other samples are not clipped and may lie
      outside.
    - "per-image" gives all images the same brightness and contrast, over pixels and channels
      together. It works on samples of any shape. A sample whose features are all equal, up to
      rounding, becomes zeros.

    References
    ----------
    - "standardise": Y. LeCun, L. Bottou, G. B. Orr and K.-R. Mueller, "Efficient BackProp", 1998,
      section 4.3.
    - "per-image": I. Goodfellow, Y. Bengio and A. Courville, "Deep Learning", 2016, equation 12.3
      with ``s = 1`` and ``lambda = 0``: global contrast normalisation.
    """

    divide_by: float = 1.0
    normalise: str = "none"
    shift: npt.NDArray[np.float64] | None = None
    scale: npt.NDArray[np.float64] | None = None

    def __post_init__(self) -> None:
        try:
            divide_by = float(self.divide_by) if is_real_number(self.divide_by) else math.nan
        except OverflowError:
            divide_by = math.inf
        if not 0 < divide_by < math.inf:
            raise ValueError(f"divide_by must be a finite number > 0, got {self.divide_by!r:.40}")
        object.__setattr__(self, "divide_by", divide_by)  # NumPy scalars become floats
        if not isinstance(self.normalise, str) or self.normalise not in NORMALISATIONS:
            raise ValueError(unknown_name("normalisation", self.normalise, NORMALISATIONS))
        if self.shift is None or self.scale is None:
            if self.shift is not self.scale:
                raise ValueError("shift and scale must be given together")
            if self.normalise in _LEARNT:
                raise ValueError(f"normalise={self.normalise!r} needs shift and scale")
        elif self.normalise not in _LEARNT:
            raise ValueError(f"normalise={self.normalise!r} takes no shift and scale")
        elif not all(
            isinstance(statistic, np.ndarray) and statistic.dtype == np.float64
            for statistic in (self.shift, self.scale)
        ):
            raise ValueError("shift and scale must be float64 arrays")
        elif not (np.isfinite(self.shift).all() and np.isfinite(self.scale).all()):
            raise ValueError("shift and scale must be finite")
        elif self.shift.ndim != 1 or self.shift.shape != self.scale.shape:
            raise ValueError(
                "shift and scale must both have shape (n_features,), got "
                f"{self.shift.shape} and {self.scale.shape}"
            )
        elif not (self.scale > 0).all():
            raise ValueError(f"scale must be positive, got {self.scale.min()}")

    @classmethod
    def fit(cls, X: npt.NDArray[Any], *, divide_by: float = 1.0, normalise: str = "none") -> Self:
        """Learn the statistics from training samples.

        Parameters
        ----------
        X : array (n_samples, n_features)
            Training samples. A memory-mapped array is read chunk by chunk.
        divide_by : float
            Divisor of all features.
        normalise : {"none", "standardise", "min-max", "per-image"}
            Normalisation after the division; see the class. Only "standardise" and "min-max"
            learn from ``X``.

        Returns
        -------
        Preprocessing

        Raises
        ------
        ValueError
            If ``divide_by`` or ``normalise`` is invalid, or ``X`` has another shape or no samples
            to learn from.
        DataError
            If a feature's statistics are not finite, because its values are not finite or so
            large that their sum, or maximum minus minimum, overflows.

        Notes
        -----
        The standard deviation is ``sqrt(mean((x - mean)^2))``, computed in float64 in two passes
        over the data. Before squaring, a feature's deviations are divided by a power of two near
        its largest value, so that squares neither overflow nor underflow.
        """
        divide_by = cls(divide_by).divide_by
        _check_samples(X)
        if normalise not in _LEARNT:
            return cls(divide_by, normalise)
        if not len(X):
            raise ValueError(f"normalise={normalise!r} needs at least one sample, got none")
        learn = _mean_and_deviation if normalise == "standardise" else _minimum_and_range
        return cls(divide_by, normalise, *learn(X, divide_by))

    def __call__(self, X: npt.NDArray[Any], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """Preprocess samples.

        Parameters
        ----------
        X : array (n_samples, n_features)
            Samples; left unchanged.
        dtype : {"float32", "float64"}
            Data type of the result.

        Returns
        -------
        array like X, of that dtype
            ``X`` itself, memory-mapped or not, if there is nothing to do.

        Raises
        ------
        ValueError
            If ``X`` or ``dtype`` is invalid.
        DataError
            If the result is not finite, because ``X`` is not finite or out of the dtype's range.

        Notes
        -----
        Chunks of samples are computed in float64 and rounded once, so that little memory is
        needed besides the result.
        """
        dtype = np.dtype(dtype)
        if dtype.name not in ("float32", "float64"):
            raise ValueError(f"dtype must be 'float32' or 'float64', got {dtype.name!r}")
        _check_samples(X, None if self.shift is None else len(self.shift))
        is_done = self.divide_by == 1 and self.normalise == "none" and X.dtype == dtype
        result = X if is_done else np.empty(X.shape, dtype)
        for rows in _chunks(X):
            if not is_done:
                with np.errstate(over="ignore", invalid="ignore"):  # checked below
                    chunk = _scaled(X[rows], self.divide_by)
                    if self.shift is not None and self.scale is not None:
                        chunk -= self.shift
                        chunk /= self.scale
                    elif self.normalise == "per-image":
                        _normalise_each(chunk)
                    result[rows] = chunk
            is_finite = np.isfinite(result[rows])
            if not is_finite.all():
                at = tuple(np.argwhere(~is_finite)[0])
                raise DataError(
                    f"features must be finite in {dtype}, got {result[rows][at]} for "
                    f"{X[rows][at]} in feature {at[1]}"
                )
        return result

    def invert(self, X: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Invert :meth:`__call__`: return ``(X scale + shift) divide_by``.

        Parameters
        ----------
        X : float64 array (n_samples, n_features)

        Returns
        -------
        float64 array like X

        Raises
        ------
        ValueError
            If the normalisation is neither "standardise" nor "min-max".
        """
        if self.shift is None or self.scale is None:
            raise ValueError(
                f"only {' and '.join(map(repr, _LEARNT))} can be inverted, got {self.normalise!r}"
            )
        return (X * self.scale + self.shift) * self.divide_by


_Statistics = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]


def _mean_and_deviation(X: npt.NDArray[Any], divide_by: float) -> _Statistics:
    n, total, largest = len(X), np.zeros(X.shape[1]), np.zeros(X.shape[1])
    with np.errstate(over="ignore", invalid="ignore"):
        for rows in _chunks(X):
            chunk = _scaled(X[rows], divide_by)
            total += chunk.sum(axis=0)
            np.maximum(largest, np.abs(chunk, out=chunk).max(axis=0), out=largest)
        mean, power = total / n, np.frexp(largest)[1]
        squares = np.zeros(X.shape[1])
        for rows in _chunks(X):
            chunk = _scaled(X[rows], divide_by)
            chunk -= mean
            squares += (np.ldexp(chunk, -power, out=chunk) ** 2).sum(axis=0)
        std = np.ldexp(np.sqrt(squares / n), power)
    is_finite = np.isfinite(mean) & np.isfinite(std)
    if not is_finite.all():
        at = int(np.argmin(is_finite))
        raise DataError(
            "'standardise' needs features whose sums are finite, got values up to "
            f"{np.max([np.abs(X[rows, at]).max() for rows in _chunks(X)]):g} in feature {at}"
        )
    # Do not divide by the rounding error that is left as the deviation of a constant feature.
    is_constant = std <= n * np.finfo(np.float64).eps * np.abs(mean)
    return mean, np.where(is_constant, 1.0, std)


def _minimum_and_range(X: npt.NDArray[Any], divide_by: float) -> _Statistics:
    """Return ``shift`` and ``scale`` of "min-max".

    Rounding needs no care here: the division keeps the order of values and maps equal values to
    equal ones. For the same reason all training samples stay within [0, 1].
    """
    low, high = np.full(X.shape[1], math.inf), np.full(X.shape[1], -math.inf)
    with np.errstate(over="ignore", invalid="ignore"):
        for rows in _chunks(X):
            chunk = _scaled(X[rows], divide_by)
            np.minimum(low, chunk.min(axis=0), out=low)
            np.maximum(high, chunk.max(axis=0), out=high)
        span = high - low
    is_finite = np.isfinite(span)
    if not is_finite.all():
        at = int(np.argmin(is_finite))
        raise DataError(
            "'min-max' needs features whose maximum minus minimum is finite, got "
            f"{high[at]:g} and {low[at]:g} in feature {at}"
        )
    return low, np.where(span == 0, 1.0, span)


def _normalise_each(X: npt.NDArray[np.float64]) -> None:
    """Normalise each sample separately, in place: "per-image".

    Each sample is first multiplied by a power of two that brings its largest value near 1, so that
    sums and squares neither overflow nor underflow. Mean and deviation scale likewise. Features
    that are not finite stay so, and the sample's other features stay finite.
    """
    n = max(1, X.shape[1])
    largest = np.abs(X).max(axis=1, keepdims=True, initial=0.0)
    is_finite = np.isfinite(largest)
    np.ldexp(X, -np.frexp(np.where(is_finite, largest, 0.0))[1], out=X)
    mean = np.where(is_finite, X.sum(axis=1, keepdims=True) / n, 0.0)
    X -= mean
    std = np.where(is_finite, np.sqrt((X**2).sum(axis=1, keepdims=True) / n), 1.0)
    is_constant = std <= n * np.finfo(np.float64).eps * np.abs(mean)
    np.copyto(X, 0.0, where=is_constant)
    X /= np.where(is_constant, 1.0, std)


def _check_samples(X: npt.NDArray[Any], n_features: int | None = None) -> None:
    if X.ndim != 2 or n_features not in (None, X.shape[1]):
        columns = "n_features" if n_features is None else n_features
        raise ValueError(f"X must have shape (n_samples, {columns}), got {X.shape}")
    if X.dtype.kind not in "biuf":
        raise ValueError(f"X must hold numbers, got dtype {X.dtype}")


def _scaled(X: npt.NDArray[Any], divide_by: float) -> npt.NDArray[np.float64]:
    """Return a new float64 array in C order, for any memory order of ``X``.

    In another order the features of a sample would be summed in another order.
    """
    scaled: npt.NDArray[np.float64] = np.divide(X, divide_by, dtype=np.float64, order="C")
    return scaled


def _chunks(X: npt.NDArray[Any]) -> Iterator[slice]:
    step = max(1, _CHUNK // max(1, X.shape[1]))
    return (slice(start, start + step) for start in range(0, len(X), step))
