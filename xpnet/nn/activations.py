"""Activation functions, each with the derivation of its backward pass.

An activation works element by element, so its Jacobian is diagonal and the chain rule reads
``dZ = dA * f'(Z)``. Each class computes ``f'`` either from the output ``A``, so that the input need
not be kept, or from the input ``Z``, where the output does not determine the derivative well.

Each class also has a gain, the factor by which an initializer with ``gain="activation"`` multiplies
the standard deviation of the weights; :mod:`xpnet.nn.initializers` explains why. For identity,
sigmoid, tanh, ReLU and leaky ReLU it is the customary value, the one of PyTorch's
``calculate_gain``. For the others it is ``1 / sqrt(E f(Z)^2)`` with Z standard normal, which brings
the second moment back to 1. The two definitions agree for identity, ReLU and leaky ReLU. For tanh
the customary gain is 5/3 and the second definition gives 1.593. For sigmoid they are 1 and 1.846,
and most of the second moment comes from the mean.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy.typing as npt

from xpnet.kernels.reference import Array
from xpnet.nn.checks import check_positive
from xpnet.nn.interfaces import Activation, Cache

__all__ = [
    "ELU",
    "GELUTanh",
    "Identity",
    "LeakyReLU",
    "ReLU",
    "Sigmoid",
    "Softplus",
    "Softsign",
    "Tanh",
]


_ELU_BELOW_0 = 0.14494541749292378  # E (exp(Z) - 1)^2 [Z < 0] for standard normal Z


class _OpActivation(Activation, abstract=True):
    """Base class of activations that call an operation of the device and write into fixed buffers.

    A subclass names the operation and those of its arguments that are passed as constants.
    """

    op: ClassVar[str]
    constants: ClassVar[tuple[str, ...]] = ()

    def build(self, n_in: int) -> int:
        self._constants = tuple(getattr(self, constant) for constant in self.constants)
        # If a subclass overrides the function or the derivative, its version must be used.
        self._is_op = all(
            getattr(type(self), name) is getattr(_OpActivation, name)
            for name in ("function", "derivative", "forward", "backward")
        )
        self._forward: Any = getattr(self.ops, self.op)
        self._backward: Any = getattr(self.ops, f"{self.op}_grad")
        return n_in

    def function(self, Z: Array) -> Array:
        return self._forward(Z, *self._constants)

    def derivative(self, Z: Array, A: Array) -> Array:
        kept = A if self.gradient_from == "output" else Z
        return self._backward(self.xp.ones_like(Z), kept, *self._constants)

    def allocate(self, cache: Cache, shape: tuple[int, ...], dtype: npt.DTypeLike) -> None:
        if not hasattr(cache, "A"):  # a Dense layer may share Z's buffer
            cache.A = self.xp.empty(shape, dtype=dtype)

    def forward(self, X: Array, cache: Cache) -> Array:
        if not self._is_op:
            return super().forward(X, cache)
        cache.Z = X
        return self._forward(X, *self._constants, out=cache.A)

    def backward(self, dA: Array, cache: Cache) -> Array:
        if not self._is_op:
            return super().backward(dA, cache)
        kept = cache.A if self.gradient_from == "output" else cache.Z
        return self._backward(dA, kept, *self._constants, out=dA)

    def forward_with_bias(self, Z: Array, b: Array, cache: Cache) -> Array:
        if not self._is_op:
            return super().forward_with_bias(Z, b, cache)
        cache.Z, cache.b = Z, b
        return self._forward(Z, *self._constants, b=b, out=cache.A)

    def backward_with_bias(self, dA: Array, cache: Cache, db: Array) -> Array:
        if not self._is_op:
            return super().backward_with_bias(dA, cache, db)
        if self.gradient_from == "output":
            return self._backward(dA, cache.A, *self._constants, out=dA, db=db)
        return self._backward(dA, cache.Z, *self._constants, b=cache.b, out=dA, db=db)


class Identity(Activation):
    """Identity, ``A = Z`` and so ``dZ = dA``: for a layer that outputs logits."""

    name = "identity"
    gradient_from = "output"
    gain = 1.0

    def function(self, Z: Array) -> Array:
        """Return ``Z`` itself."""
        return Z

    def derivative(self, Z: Array, A: Array) -> Array:
        """Return ones."""
        del A
        return self.xp.ones_like(Z)

    def forward(self, X: Array, cache: Cache) -> Array:
        """Return the input itself."""
        del cache
        return X

    def backward(self, dA: Array, cache: Cache) -> Array:
        """Return the gradient itself."""
        del cache
        return dA


class Sigmoid(_OpActivation):
    """Logistic function, ``A = 1 / (1 + exp(-Z))``.

    Writing ``e = exp(-Z)``, ``dA/dZ = e / (1 + e)^2 = A (1 - A)``.
    """

    name = op = "sigmoid"
    gradient_from = "output"
    gain = 1.0


class Tanh(_OpActivation):
    """Hyperbolic tangent, ``A = tanh(Z)``.

    From ``tanh = sinh / cosh`` and ``cosh^2 - sinh^2 = 1``, ``dA/dZ = 1 - A^2``.
    """

    name = op = "tanh"
    gradient_from = "output"
    gain = 5 / 3


class ReLU(_OpActivation):
    """Rectified linear unit, ``A = max(Z, 0)``.

    ``dA/dZ`` is 1 for ``Z > 0`` and 0 for ``Z < 0``. At the kink it is taken as 0.

    Half of ``E Z^2`` comes from ``Z > 0``, so the gain is ``sqrt(2)``.

    References
    ----------
    Nair and Hinton, "Rectified linear units improve restricted Boltzmann machines", ICML 2010.
    """

    name = op = "relu"
    gradient_from = "output"
    default_init = "he_normal"
    gain = math.sqrt(2.0)


class LeakyReLU(_OpActivation):
    """Leaky ReLU, ``A = Z`` for ``Z > 0``, else ``slope Z``.

    ``dA/dZ`` is 1 for ``Z > 0``, else ``slope``, also at the kink. Since ``slope >= 0``, ``A > 0``
    exactly where ``Z > 0``, so the derivative can be computed from ``A``.

    One half of ``E Z^2 = 1`` is kept and the other is multiplied by ``slope^2``, so the gain is
    ``sqrt(2 / (1 + slope^2))``.

    Parameters
    ----------
    slope : float
        Slope for negative inputs, at least 0.

    References
    ----------
    Maas, Hannun and Ng, "Rectifier nonlinearities improve neural network acoustic models",
    ICML 2013, section 2.
    """

    name = op = "leaky_relu"
    gradient_from = "output"
    default_init = "he_normal"
    constants = ("slope",)

    def __init__(self, slope: float = 0.01) -> None:
        self.slope = check_positive("slope", slope, zero=True)
        self.gain = math.sqrt(2.0) / math.hypot(1.0, self.slope)


class ELU(_OpActivation):
    """Exponential linear unit, ``A = Z`` for ``Z > 0``, else ``alpha (exp(Z) - 1)``.

    ``dA/dZ`` is 1 for ``Z > 0``, else ``alpha exp(Z) = A + alpha``, also at 0, which is a kink if
    ``alpha != 1``.

    The gain is ``1 / sqrt(1/2 + c alpha^2)`` with ``c = E (exp(Z) - 1)^2 [Z < 0]``. Since ``E
    exp(tZ) [Z < 0] = exp(t^2 / 2) Phi(-t)``, where Phi is the normal distribution function, ``c =
    e^2 Phi(-2) - 2 sqrt(e) Phi(-1) + 1/2 = 0.1449``; for ``alpha = 1`` the gain is 1.245.

    Parameters
    ----------
    alpha : float
        Scale of the negative part, positive: the output tends to ``-alpha`` for large negative
        inputs.

    References
    ----------
    Clevert, Unterthiner and Hochreiter, "Fast and accurate deep network learning by exponential
    linear units", ICLR 2016, equation 15.
    """

    name = op = "elu"
    gradient_from = "output"
    default_init = "he_normal"
    constants = ("alpha",)

    def __init__(self, alpha: float = 1.0) -> None:
        self.alpha = check_positive("alpha", alpha)
        self.gain = 1 / math.hypot(math.sqrt(0.5), math.sqrt(_ELU_BELOW_0) * self.alpha)


class GELUTanh(_OpActivation):
    """Gaussian error linear unit (GELU) in its tanh form.

    ``A = Z/2 (1 + tanh(U))``, ``U = sqrt(2/pi) (Z + 0.044715 Z^3)``. Since ``(1 + tanh(U))/2 =
    sigmoid(2U) = S``, ``A = Z S``, and by the product rule ``dA/dZ = S + Z S (1 - S) 2 dU/dZ`` with
    ``dU/dZ = sqrt(2/pi) (1 + 3 0.044715 Z^2)``. It differs from the form with erf by at most about
    5e-4.

    References
    ----------
    Hendrycks and Gimpel, "Gaussian error linear units", arXiv 1606.08415, section 2.
    """

    name = op = "gelu_tanh"
    gradient_from = "input"
    default_init = "he_normal"
    gain = 1.5335805216661471  # 1 / sqrt(E f(Z)^2), by quadrature


class Softplus(_OpActivation):
    """Softplus, ``A = log(1 + exp(Z))``.

    ``dA/dZ = exp(Z) / (1 + exp(Z)) = sigmoid(Z) = 1 - exp(-A)``.

    References
    ----------
    Dugas et al., "Incorporating second-order functional knowledge for better option pricing",
    NIPS 2000.
    """

    name = op = "softplus"
    gradient_from = "output"
    gain = 1.0418668355353016  # 1 / sqrt(E f(Z)^2), by quadrature


class Softsign(_OpActivation):
    """Softsign, ``A = Z / (1 + |Z|)``.

    For ``Z > 0`` the quotient rule gives ``(1 + Z - Z) / (1 + Z)^2``, and ``A`` is odd, so
    ``dA/dZ = 1 / (1 + |Z|)^2``.

    References
    ----------
    Glorot and Bengio, "Understanding the difficulty of training deep feedforward neural
    networks", AISTATS 2010, section 2.3, who credit Bergstra et al. 2009.
    """

    name = op = "softsign"
    gradient_from = "input"
    gain = 2.3375333631085393  # 1 / sqrt(E f(Z)^2), by quadrature
