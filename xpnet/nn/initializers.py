"""Initializers: how the initial values of weights and biases are drawn.

With independent inputs of variance ``s`` and weights of variance ``v``, ``Z = X W`` has variance
``fan_in v s``, and going backward ``dX`` has ``fan_out v`` times the variance of ``dZ``. The
schemes below choose ``v`` so that one of these two factors, or both about equally, is near 1 in
every layer. They differ in what they assume the activation does to the variance.

Xavier, He, LeCun and orthogonal initialisation take a ``gain``, a factor on the standard deviation.
It compensates for what an activation f does to the second moment: if ``Z`` has variance 1, ``v =
gain^2 / fan_in`` with ``gain^2 = 1 / E f(Z)^2`` gives the next layer's ``Z`` variance 1 again.
``gain="activation"`` takes the gain of the activation that follows the weights, as is customary; if
all layers have the same activation, it is also the one that precedes them.

He initialisation already contains the gain of ReLU, as the factor 2. With ``gain="activation"`` in
front of a ReLU the variance would be ``4 / fan_in``: use that gain with LeCun or Xavier
initialisation or with :class:`Orthogonal` instead.
"""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from xpnet.nn.checks import check_number, check_positive, is_number
from xpnet.nn.interfaces import Activation, Initializer
from xpnet.random import WeightStream

__all__ = [
    "Constant",
    "HeNormal",
    "HeUniform",
    "LeCunNormal",
    "LeCunUniform",
    "Normal",
    "Ones",
    "Orthogonal",
    "Uniform",
    "XavierNormal",
    "XavierUniform",
    "Zeros",
]


class Zeros(Initializer):
    """Set all values to 0: suitable for biases, and for weights only without hidden layers."""

    name = "zeros"

    def draw(self, stream: WeightStream, shape: tuple[int, ...]) -> npt.NDArray[np.float64]:
        """Return zeros."""
        del stream
        return np.zeros(shape)


class Ones(Initializer):
    """Set all values to 1: suitable for scales."""

    name = "ones"

    def draw(self, stream: WeightStream, shape: tuple[int, ...]) -> npt.NDArray[np.float64]:
        """Return ones."""
        del stream
        return np.ones(shape)


class Constant(Initializer):
    """Set all values to a constant: for biases, such as 0.1 in front of a ReLU.

    Parameters
    ----------
    value : float
        The constant, any finite number.
    """

    name = "constant"

    def __init__(self, value: float) -> None:
        self.value = check_number("value", value)

    def draw(self, stream: WeightStream, shape: tuple[int, ...]) -> npt.NDArray[np.float64]:
        """Return an array filled with the value."""
        del stream
        return np.full(shape, self.value)


class Normal(Initializer):
    """Normal distribution with mean 0 and standard deviation ``std``.

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


class _WithGain(Initializer, abstract=True):
    """Base class of initializers of weight matrices with a gain, given or the activation's."""

    def __init__(self, gain: float | str = 1.0) -> None:
        if gain != "activation" and not is_number(gain):
            raise ValueError(f'gain must be a positive number or "activation", got {gain!r}')
        self.gain = gain if isinstance(gain, str) else check_positive("gain", gain)

    def for_activation(self, activation: Activation) -> Initializer:
        """Return a copy with the activation's gain if ``gain`` is "activation", else itself."""
        if self.gain != "activation":
            return self
        if activation.gain is None:
            raise ValueError(
                f"activation {activation!r} has no gain: set gain in its class, or give "
                f"initializer {self.name!r} a number for gain"
            )
        return type(self)(**{**self._arguments(), "gain": activation.gain})

    def draw(self, stream: WeightStream, shape: tuple[int, ...]) -> npt.NDArray[np.float64]:
        """Draw a weight matrix of shape (fan_in, fan_out)."""
        if len(shape) != 2:
            raise ValueError(
                f"initializer {self.name!r} is for weight matrices (fan_in, fan_out), "
                f"got shape {shape}"
            )
        if self.gain == "activation":
            raise ValueError(
                f'initializer {self.name!r} has gain="activation", but there is no activation '
                "here: set gain to a number"
            )
        return self._draw(stream, shape, float(self.gain))

    def _draw(
        self, stream: WeightStream, shape: tuple[int, ...], gain: float
    ) -> npt.NDArray[np.float64]:
        raise NotImplementedError


class _FanScaled(_WithGain, abstract=True):
    """Mean 0 and variance ``gain^2 factor / fan``."""

    factor: ClassVar[float]
    fan: ClassVar[str]
    is_uniform: ClassVar[bool]

    def _draw(
        self, stream: WeightStream, shape: tuple[int, ...], gain: float
    ) -> npt.NDArray[np.float64]:
        fan_in, fan_out = shape
        fan = fan_in if self.fan == "in" else (fan_in + fan_out) / 2
        if self.is_uniform:  # the variance of U[-a, a) is a^2 / 3
            return stream.uniform(shape) * (gain * math.sqrt(3.0 * self.factor / fan))
        return stream.normal(shape) * (gain * math.sqrt(self.factor / fan))


class XavierNormal(_FanScaled):
    """Xavier (Glorot) initialisation, normal: variance ``2 / (fan_in + fan_out)``.

    A compromise between the forward condition ``1 / fan_in`` and the backward condition
    ``1 / fan_out``, for activations that are close to the identity around 0.

    Parameters
    ----------
    gain : float or "activation"
        Factor on the standard deviation; "activation" takes the gain of the layer's activation.

    References
    ----------
    Glorot and Bengio, AISTATS 2010, equation 12.
    """

    name = "xavier_normal"
    factor, fan, is_uniform = 1.0, "average", False


class XavierUniform(_FanScaled):
    """Xavier (Glorot) initialisation, uniform on ``+-sqrt(6 / (fan_in + fan_out))``.

    Parameters
    ----------
    gain : float or "activation"
        Factor on the standard deviation; "activation" takes the gain of the layer's activation.

    References
    ----------
    Glorot and Bengio, AISTATS 2010, equation 16 ("normalized initialization").
    """

    name = "xavier_uniform"
    factor, fan, is_uniform = 1.0, "average", True


class HeNormal(_FanScaled):
    """He initialisation, normal: variance ``2 / fan_in``.

    A ReLU passes half of a symmetric input, which halves the second moment; the factor 2
    compensates for this.

    Parameters
    ----------
    gain : float or "activation"
        Factor on the standard deviation; "activation" takes the gain of the layer's activation,
        which for a ReLU would count the factor 2 twice.

    References
    ----------
    He, Zhang, Ren and Sun, "Delving deep into rectifiers", ICCV 2015, equation 10.
    """

    name = "he_normal"
    factor, fan, is_uniform = 2.0, "in", False


class HeUniform(_FanScaled):
    """He initialisation, uniform on ``+-sqrt(6 / fan_in)``; see :class:`HeNormal`.

    Parameters
    ----------
    gain : float or "activation"
        Factor on the standard deviation; "activation" takes the gain of the layer's activation,
        which for a ReLU would count the factor 2 twice.
    """

    name = "he_uniform"
    factor, fan, is_uniform = 2.0, "in", True


class LeCunNormal(_FanScaled):
    """LeCun initialisation, normal: variance ``1 / fan_in``.

    Parameters
    ----------
    gain : float or "activation"
        Factor on the standard deviation; "activation" takes the gain of the layer's activation.

    References
    ----------
    LeCun, Bottou, Orr and Mueller, "Efficient BackProp", 1998, section 4.6, equation 16.
    """

    name = "lecun_normal"
    factor, fan, is_uniform = 1.0, "in", False


class LeCunUniform(_FanScaled):
    """LeCun initialisation, uniform on ``+-sqrt(3 / fan_in)``; see :class:`LeCunNormal`.

    Parameters
    ----------
    gain : float or "activation"
        Factor on the standard deviation; "activation" takes the gain of the layer's activation.
    """

    name = "lecun_uniform"
    factor, fan, is_uniform = 1.0, "in", True


class Orthogonal(_WithGain):
    """Orthogonal initialisation: ``W`` is drawn uniformly from the (semi-)orthogonal matrices.

    ``W^T W = gain^2 I`` if ``fan_in >= fan_out``, else ``W W^T = gain^2 I``. A square ``W``
    multiplies the length of every vector by the gain, forward and backward.

    With ``A = Q R`` for a matrix ``A`` of standard normal draws, ``Q`` is uniform (by Haar's
    measure) once a positive diagonal of ``R`` makes the factorisation unique: column j of ``Q``
    is multiplied by the sign of ``R_jj``. A wide matrix is drawn as the transpose of a tall one.
    LAPACK computes the factorisation, and the last digits depend on its build.

    Parameters
    ----------
    gain : float or "activation"
        Factor on every singular value; "activation" takes the gain of the layer's activation.

    References
    ----------
    Saxe, McClelland and Ganguli, "Exact solutions to the nonlinear dynamics of learning in deep
    linear neural networks", ICLR 2014. Mezzadri, "How to generate random matrices from
    the classical compact groups", Notices of the AMS 54, 2007, section 5, for the sign.
    """

    name = "orthogonal"

    def _draw(
        self, stream: WeightStream, shape: tuple[int, ...], gain: float
    ) -> npt.NDArray[np.float64]:
        A = stream.normal(shape)
        is_wide = shape[0] < shape[1]
        Q, R = np.linalg.qr(A.T if is_wide else A)
        Q *= np.where(np.diagonal(R) < 0, -gain, gain)
        return Q.T if is_wide else Q
