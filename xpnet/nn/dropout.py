"""Dropout of a layer's outputs or of the input."""

from __future__ import annotations

import numpy.typing as npt

from xpnet.kernels.reference import Array
from xpnet.nn.checks import check_fraction
from xpnet.nn.interfaces import Cache, Layer
from xpnet.random import Purpose

__all__ = ["Dropout"]


class Dropout(Layer):
    """Inverted dropout: during training each element is set to 0 with probability ``rate``.

    With ``M_ij`` independent, 1 with probability ``1 - rate`` and else 0, ``A = X * M / (1 -
    rate)``. The division keeps the mean of ``A`` at ``X``, which is why prediction, where nothing
    is dropped, needs no scaling. The mask does not depend on ``X``: ``dX = dA * M / (1 - rate)``.

    As the first layer it drops inputs. The mask comes from Philox, keyed by the training seed, the
    layer's position and the step number, and is identical on every device. It is not stored: the
    backward pass draws it again.

    Parameters
    ----------
    rate : float
        Probability of dropping an element, in [0, 1). ``keep_prob`` in Andrew Ng's Deep Learning
        Specialization is ``1 - rate``.

    Raises
    ------
    ValueError
        If ``rate`` is out of range.

    References
    ----------
    Srivastava, Hinton, Krizhevsky, Sutskever and Salakhutdinov, "Dropout: a simple way to prevent
    neural networks from overfitting", JMLR 15, 2014, section 4 and, for the inverted form, section
    10.
    """

    name = "dropout"

    def __init__(self, rate: float = 0.5) -> None:
        self.rate = check_fraction("rate", rate)

    def allocate(self, cache: Cache, shape: tuple[int, ...], dtype: npt.DTypeLike) -> None:
        """Create the buffer ``A``."""
        if cache.training:
            cache.A = self.xp.empty(shape, dtype=dtype)

    def forward(self, X: Array, cache: Cache) -> Array:
        """Drop elements during training; return the input itself in prediction."""
        if not cache.training:
            return X
        return self._drop(X, cache, cache.A)

    def backward(self, dA: Array, cache: Cache) -> Array:
        """Drop the same elements from the gradient."""
        return self._drop(dA, cache, dA)

    def _drop(self, X: Array, cache: Cache, out: Array) -> Array:
        batch = cache.batch
        return self.ops.dropout(
            X, self.rate, batch.seed, cache.number, batch.step, Purpose.DROPOUT, out=out
        )
