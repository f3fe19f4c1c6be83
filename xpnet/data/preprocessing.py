"""Preprocessing of features, learned from the training samples and applied to all."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from xpnet.data.checks import is_real_number
from xpnet.data.dataset import DataError

__all__ = ["NORMALISATIONS", "Preprocessing"]

NORMALISATIONS = ("none", "standardise", "min-max", "per-image")
_LEARNT = ("standardise", "min-max")  # from the training samples

_CHUNK = 1 << 22  # numbers that are brought to float64 at a time


@dataclass(frozen=True, eq=False)  # arrays do not compare to one bool
class Preprocessing:
    """A division of all features and then a normalisation, ``(X / divide_by - shift) / scale``.

    ============= ================================ ======================================
    normalise     shift                            scale
    ============= ================================ ======================================
    "none"        0                                1
    "standardise" each feature's mean              each feature's standard deviation
    "min-max"     each feature's minimum           each feature's maximum minus minimum
    "per-image"   the mean of the sample's own     the standard deviation of the sample's
                  features, all of them together   own features
    ============= ================================ ======================================

    Means, deviations, minima and maxima of features are those of the training samples, whatever
    is preprocessed, and those of a sample are its own: one sample gives the same features alone
    and among others.

    Attributes
    ----------
    divide_by : float
        Positive; 255 brings 8-bit pixels to [0, 1].
    normalise : {"none", "standardise", "min-max", "per-image"}
    shift, scale : float64 arrays (n_features,) or None
        Of the training samples after the division, under "standardise" and "min-max"; else None.
        A feature that is constant there has ``scale`` 1.

    Raises
    ------
    ValueError
        If one of these is out of its range, or they do not fit each other.

    Notes
    -----
    - Under "min-max" the training samples span [0, 1]. Other samples may lie outside: nothing is
      clipped.
    - "per-image" is for images, to which it gives one brightness and one contrast. It needs
      nothing of an image, though: it is done to samples of any shape, pixels and channels
      together. A sample whose features are all the same, up to rounding, becomes zeros.

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
        object.__setattr__(self, "divide_by", divide_by)  # of NumPy's scalars too
        if not isinstance(self.normalise, str) or self.normalise not in NORMALISATIONS:
            known = ", ".join(map(repr, NORMALISATIONS))
            raise ValueError(f"normalise must be one of {known}, got {self.normalise!r:.40}")
        if self.shift is None or self.scale is None:
            if self.shift is not self.scale:
                raise ValueError("shift and scale must come together")
            if self.normalise in _LEARNT:
                raise ValueError(f"shift and scale must be given with {self.normalise!r}")
        elif self.normalise not in _LEARNT:
            raise ValueError(f"shift and scale must not be given with {self.normalise!r}")
        elif not all(
            isinstance(statistic, np.ndarray) and statistic.dtype == np.float64
            for statistic in (self.shift, self.scale)
        ):
            raise ValueError("shift and scale must be float64 arrays")
        elif not (np.isfinite(self.shift).all() and np.isfinite(self.scale).all()):
            raise ValueError("shift and scale must be finite")
        elif self.shift.ndim != 1 or self.shift.shape != self.scale.shape:
            raise ValueError(
                "shift and scale must have one shape, (n_features,), got "
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
            A memory-mapped array is read chunk by chunk.
        divide_by : float
        normalise : {"none", "standardise", "min-max", "per-image"}
            What is done after the division; see the class. Only "standardise" and "min-max" learn
            from ``X``.

        Returns
        -------
        Preprocessing

        Raises
        ------
        ValueError
            If ``divide_by`` or ``normalise`` is out of its range, ``X`` is not of that shape, or
            has no samples to learn from.
        DataError
            If a feature's statistics are not finite: because it is not, or is too large for its
            values to be summed, or its minimum to be subtracted from its maximum.

        Notes
        -----
        The standard deviation is ``sqrt(mean((x - mean)^2))``, in two passes over the data in
        float64. Before they are squared, a feature's deviations are divided by a power of two near
        its largest value: squares neither overflow nor vanish.
        """
        divide_by = cls(divide_by).divide_by
        _check_samples(X)
        if normalise not in _LEARNT:
            return cls(divide_by, normalise)
        if not len(X):
            raise ValueError(f"{normalise!r} needs a sample at least to learn from, got none")
        learn = _mean_and_deviation if normalise == "standardise" else _minimum_and_range
        return cls(divide_by, normalise, *learn(X, divide_by))

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
        _check_samples(X, None if self.shift is None else len(self.shift))
        is_done = self.divide_by == 1 and self.normalise == "none" and X.dtype == dtype
        result = X if is_done else np.empty(X.shape, dtype)
        for rows in _chunks(X):
            if not is_done:
                with np.errstate(over="ignore", invalid="ignore"):  # looked at below
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
        """Give the numbers that :meth:`__call__` would turn into these, ``X scale + shift``.

        Parameters
        ----------
        X : float64 array (n_samples, n_features)

        Returns
        -------
        float64 array like X

        Raises
        ------
        ValueError
            If the normalisation is not one of those that keep what they learnt.
        """
        if self.shift is None or self.scale is None:
            raise ValueError(f"{self.normalise!r} cannot be undone: it keeps nothing")
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
            "standardising needs features whose sums are finite, got values up to "
            f"{np.max([np.abs(X[rows, at]).max() for rows in _chunks(X)]):g} in feature {at}"
        )
    # What rounding leaves of a constant feature's deviation is not worth blowing up.
    is_constant = std <= n * np.finfo(np.float64).eps * np.abs(mean)
    return mean, np.where(is_constant, 1.0, std)


def _minimum_and_range(X: npt.NDArray[Any], divide_by: float) -> _Statistics:
    """Give ``shift`` and ``scale`` of "min-max".

    No care is taken of rounding here: values that were the same are still so after the division,
    and so is the order of the others. For the same reason no training sample leaves [0, 1].
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
            "min-max needs features whose maximum minus minimum is finite, got "
            f"{high[at]:g} and {low[at]:g} in feature {at}"
        )
    return low, np.where(span == 0, 1.0, span)


def _normalise_each(X: npt.NDArray[np.float64]) -> None:
    """Normalise every sample by itself, in place: "per-image".

    Mean and deviation go with the sample's size, which is brought near 1 first, by a power of two:
    neither sums nor squares overflow or vanish. Features that are not finite stay so, and leave the
    sample's others finite.
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
    """Give a new float64 array, sample after sample whatever the order of ``X`` in memory.

    In another order a sample's features would be summed in another order, too.
    """
    scaled: npt.NDArray[np.float64] = np.divide(X, divide_by, dtype=np.float64, order="C")
    return scaled


def _chunks(X: npt.NDArray[Any]) -> Iterator[slice]:
    step = max(1, _CHUNK // max(1, X.shape[1]))
    return (slice(start, start + step) for start in range(0, len(X), step))
