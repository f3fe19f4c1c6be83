"""Random numbers: seeds, and the generators of weights and of the order of samples.

Weights are drawn on the host and then copied, so that they are the same on every device. Random
numbers during training come from Philox (:mod:`xpnet.kernels.philox`), keyed by seed and purpose.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from xpnet.kernels import host, philox

__all__ = [
    "EpochOrder",
    "Purpose",
    "RandomStateStream",
    "WeightStream",
    "check_seed",
    "epoch_order",
    "shuffle",
    "subset",
    "weight_stream",
]


class Purpose(IntEnum):
    """Purpose of a draw from Philox; draws for different purposes are independent."""

    SHUFFLE = 1
    SUBSET = 2
    DROPOUT = 3
    AUGMENTATION = 4


class WeightStream(Protocol):
    """Draws the initial values of parameters; each call continues the stream."""

    def normal(self, shape: tuple[int, ...]) -> npt.NDArray[np.float64]:
        """Draw from the standard normal distribution."""

    def uniform(self, shape: tuple[int, ...]) -> npt.NDArray[np.float64]:
        """Draw from the uniform distribution on [-1, 1)."""


class RandomStateStream:
    """Draws arrays in C order from a NumPy generator.

    Parameters
    ----------
    state : numpy.random.RandomState or numpy.random.Generator
        Generator to draw from. Other code may draw from it too.
    """

    def __init__(self, state: np.random.RandomState | np.random.Generator) -> None:
        self._state = state

    def normal(self, shape: tuple[int, ...]) -> npt.NDArray[np.float64]:
        """Draw from the standard normal distribution."""
        return self._state.standard_normal(shape)

    def uniform(self, shape: tuple[int, ...]) -> npt.NDArray[np.float64]:
        """Draw from the uniform distribution on [-1, 1)."""
        return self._state.uniform(-1.0, 1.0, shape)


class _LegacyStream(RandomStateStream):
    """The generator of the course's notebooks: ``RandomState``, weights drawn feature-major.

    The course is Andrew Ng's Deep Learning Specialization (Coursera). Its notebooks hold a weight
    matrix as (fan_out, fan_in), the transpose of ours, and a vector as a column. Drawing the
    reversed shape and transposing gives each weight the same number as in the notebook.
    """

    def normal(self, shape: tuple[int, ...]) -> npt.NDArray[np.float64]:
        return super().normal(shape[::-1]).T

    def uniform(self, shape: tuple[int, ...]) -> npt.NDArray[np.float64]:
        return super().uniform(shape[::-1]).T


def weight_stream(seed: int, rng: str = "numpy") -> WeightStream:
    """Return the stream that a network's parameters are drawn from.

    Parameters
    ----------
    seed : int
    rng : {"numpy", "numpy-legacy"}
        ``"numpy"`` is NumPy's PCG64 generator. ``"numpy-legacy"`` is ``RandomState`` with weights
        drawn feature-major, as in the course's notebooks; the seed must then be below 2**32.

    Returns
    -------
    WeightStream

    Raises
    ------
    ValueError
        If ``rng`` is not one of these names, or the seed is out of range.
    """
    if rng == "numpy":
        return RandomStateStream(np.random.Generator(np.random.PCG64(check_seed(seed))))
    if rng == "numpy-legacy":
        return _LegacyStream(np.random.RandomState(check_seed(seed, bits=32)))
    raise ValueError(f"rng must be one of 'numpy', 'numpy-legacy', got {rng!r}")


def shuffle(n: int, seed: int, epoch: int) -> npt.NDArray[np.int64]:
    """Draw the order in which an epoch visits the samples.

    Parameters
    ----------
    n : int
        Number of samples.
    seed, epoch : int
        The same pair gives the same order on every device.

    Returns
    -------
    int64 array of shape (n,)
        A permutation of ``0 .. n - 1``.
    """
    return _permutation(n, check_seed(seed), step=epoch, purpose=Purpose.SHUFFLE)


def epoch_order(n: int, seed: int, epoch: int, rng: str = "numpy") -> npt.NDArray[np.int64]:
    """Draw the order in which an epoch visits the samples, with a network's ``rng``.

    Parameters
    ----------
    n, seed, epoch : int
        See :func:`shuffle`.
    rng : {"numpy", "numpy-legacy"}
        ``"numpy"`` is :func:`shuffle`. ``"numpy-legacy"`` is the order of the course's notebooks,
        ``RandomState(seed + epoch).permutation(n)``, with a seed below 2**32.

    Returns
    -------
    int64 array of shape (n,)
    """
    if rng != "numpy-legacy":
        return shuffle(n, seed, epoch)
    legacy = np.random.RandomState((check_seed(seed, bits=32) + epoch) % 2**32)
    return legacy.permutation(n).astype(np.int64, copy=False)


class EpochOrder:
    """The order of the samples in each epoch as scikit-learn draws it: the last one, shuffled.

    Parameters
    ----------
    n : int
        Number of samples.
    random_state : numpy.random.RandomState
        Generator to draw from.
    """

    def __init__(self, n: int, random_state: np.random.RandomState) -> None:
        self.n = n
        self._order = np.arange(n, dtype=np.int64)
        self._random_state = random_state

    def __call__(self, epoch: int) -> npt.NDArray[np.int64]:
        """Return the order of the next epoch, in the array of the last one."""
        del epoch
        self._random_state.shuffle(self._order)
        return self._order


def subset(n: int, size: int, seed: int) -> npt.NDArray[np.int64]:
    """Draw a random subset of the samples, each with the same probability.

    Parameters
    ----------
    n : int
        Number of samples.
    size : int
        Number of samples to draw, at most ``n``.
    seed : int
        The same seed gives the same samples on every device.

    Returns
    -------
    int64 array of shape (size,)
        Distinct indices from ``0 .. n - 1``, ascending.
    """
    return np.sort(_permutation(n, check_seed(seed), purpose=Purpose.SUBSET)[:size])


def _permutation(n: int, seed: int, **draw: int) -> npt.NDArray[np.int64]:
    """Draw a permutation, by the host kernels if there are any."""
    if host.problem() is None:
        return host.permutation(n, seed, **draw)
    order: npt.NDArray[np.int64] = philox.permutation(np, n, seed, **draw)
    return order


def check_seed(seed: Any, *, bits: int = 64) -> int:
    """Return the seed as an int, or raise a ValueError."""
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)):
        raise ValueError(f"seed must be an integer, got {seed!r}")
    if not 0 <= seed < 2**bits:
        raise ValueError(f"seed must lie in [0, 2**{bits}), got {seed}")
    return int(seed)
