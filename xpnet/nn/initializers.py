"""How the first values of weights and biases are drawn.

With independent inputs of variance ``s`` and weights of variance ``v``, ``Z = X W`` has variance
``fan_in v s``, and going backward ``dX`` has ``fan_out v`` times the variance of ``dZ``. The
schemes below choose ``v`` so that one of the two, or both about equally, stays near 1 from layer
to layer, and differ in what the activation between them does to the variance.
"""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from xpnet.nn.base import Initializer, check_positive
from xpnet.random import WeightStream

__all__ = [
    "HeNormal",
    "HeUniform",
    "LeCunNormal",
    "LeCunUniform",
    "Normal",
    "Ones",
    "Uniform",
    "XavierNormal",
    "XavierUniform",
    "Zeros",
]


class Zeros(Initializer):
    """All values 0: right for biases, and for weights only where there is no hidden layer."""

    name = "zeros"

    def draw(self, stream: WeightStream, shape: tuple[int, ...]) -> npt.NDArray[np.float64]:
        """Return zeros; nothing is drawn."""
        del stream
        return np.zeros(shape)


class Ones(Initializer):
    """All values 1: for scales."""

    name = "ones"

    def draw(self, stream: WeightStream, shape: tuple[int, ...]) -> npt.NDArray[np.float64]:
        """Return ones; nothing is drawn."""
        del stream
        return np.ones(shape)


class Normal(Initializer):
    """Normal distribution with mean 0 and a standard deviation of its own.

    Parameters
    ----------
    std : float
        Standard deviation, positive.
    """

    name = "normal"

    def __init__(self, std: float = 0.01) -> None:
        self.std = check_positive("std", std)

    def draw(self, stream: WeightStream, shape: tuple[int, ...]) -> npt.NDArray[np.float64]:
        """Draw ``std`` times the standard normal distribution."""
        return stream.normal(shape) * self.std


class Uniform(Initializer):
    """Uniform distribution on ``[-limit, limit)``.

    Parameters
    ----------
    limit : float
        Half the width of the interval, positive.
    """

    name = "uniform"

    def __init__(self, limit: float = 0.05) -> None:
        self.limit = check_positive("limit", limit)

    def draw(self, stream: WeightStream, shape: tuple[int, ...]) -> npt.NDArray[np.float64]:
        """Draw ``limit`` times the uniform distribution on [-1, 1)."""
        return stream.uniform(shape) * self.limit


class _FanScaled(Initializer, abstract=True):
    """Mean 0 and variance ``gain / fan``."""

    gain: ClassVar[float]
    fan: ClassVar[str]
    is_uniform: ClassVar[bool]

    def draw(self, stream: WeightStream, shape: tuple[int, ...]) -> npt.NDArray[np.float64]:
        """Draw a weight matrix of shape (fan_in, fan_out)."""
        if len(shape) != 2:
            raise ValueError(
                f"initializer {self.name!r} is for weight matrices (fan_in, fan_out), "
                f"got shape {shape}"
            )
        fan_in, fan_out = shape
        fan = fan_in if self.fan == "in" else (fan_in + fan_out) / 2
        if self.is_uniform:  # the variance of U[-a, a) is a^2 / 3
            return stream.uniform(shape) * math.sqrt(3.0 * self.gain / fan)
        return stream.normal(shape) * math.sqrt(self.gain / fan)


class XavierNormal(_FanScaled):
    """Xavier (Glorot) initialisation, normal: variance ``2 / (fan_in + fan_out)``.

    A compromise between the forward condition ``1 / fan_in`` and the backward one
    ``1 / fan_out``, for activations that are near the identity around 0.

    References
    ----------
    Glorot and Bengio, AISTATS 2010, equation 12.
    """

    name = "xavier_normal"
    gain, fan, is_uniform = 1.0, "average", False


class XavierUniform(_FanScaled):
    """Xavier (Glorot) initialisation, uniform on ``+-sqrt(6 / (fan_in + fan_out))``.

    References
    ----------
    Glorot and Bengio, AISTATS 2010, equation 16 ("normalized initialization").
    """

    name = "xavier_uniform"
    gain, fan, is_uniform = 1.0, "average", True


class HeNormal(_FanScaled):
    """He initialisation, normal: variance ``2 / fan_in``.

    A ReLU passes half of a symmetric input, which halves the second moment; the 2 makes up for
    it.

    References
    ----------
    He, Zhang, Ren and Sun, "Delving deep into rectifiers", ICCV 2015, equation 10.
    """

    name = "he_normal"
    gain, fan, is_uniform = 2.0, "in", False


class HeUniform(_FanScaled):
    """He initialisation, uniform on ``+-sqrt(6 / fan_in)``; see :class:`HeNormal`."""

    name = "he_uniform"
    gain, fan, is_uniform = 2.0, "in", True


class LeCunNormal(_FanScaled):
    """LeCun initialisation, normal: variance ``1 / fan_in``.

    References
    ----------
    LeCun, Bottou, Orr and Mueller, "Efficient BackProp", 1998, section 4.6, equation 16.
    """

    name = "lecun_normal"
    gain, fan, is_uniform = 1.0, "in", False


class LeCunUniform(_FanScaled):
    """LeCun initialisation, uniform on ``+-sqrt(3 / fan_in)``; see :class:`LeCunNormal`."""

    name = "lecun_uniform"
    gain, fan, is_uniform = 1.0, "in", True
