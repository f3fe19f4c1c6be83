"""Update rules over the flat buffer of all parameters.

An optimizer object holds settings. Its state lives apart, in a dictionary of device arrays, so
that one set of settings serves many runs and a checkpoint holds everything that changes.
"""

from __future__ import annotations

import numpy as np

from xpnet.device import Device
from xpnet.kernels.reference import Array, ReferenceOps
from xpnet.nn.base import Optimizer, check_positive

__all__ = ["Adam", "GradientDescent"]


class GradientDescent(Optimizer):
    """Gradient descent, ``p <- p - learning_rate dp``.

    On a full batch this is the classical method, on minibatches stochastic gradient descent.

    Parameters
    ----------
    learning_rate : float
        Length of the step in units of the gradient, positive.
    """

    name = "gradient_descent"

    def __init__(self, learning_rate: float = 0.01) -> None:
        self.learning_rate = check_positive("learning_rate", learning_rate)

    def init_state(self, device: Device, params: Array) -> dict[str, Array]:
        """Make the state: the learning rate alone."""
        return {"learning_rate": _scalar(device, params, "learning_rate", self.learning_rate)}

    def update(
        self, ops: ReferenceOps, params: Array, grads: Array, state: dict[str, Array]
    ) -> None:
        """Take one step."""
        ops.gradient_descent_update(params, grads, state["learning_rate"])


class Adam(Optimizer):
    """Adam, Algorithm 1 of the paper.

    At step ``t = 1, 2, ...``::

        m <- beta1 m + (1 - beta1) dp
        v <- beta2 v + (1 - beta2) dp^2
        p <- p - learning_rate (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps)

    The epsilon-hat form of the paper's section 2 (used by scikit-learn, Keras, Chainer and
    tinygrad; PyTorch and optax use Algorithm 1) folds the bias corrections into the learning
    rate and adds epsilon to the uncorrected ``sqrt(v)``: ``p <- p - learning_rate sqrt(1 -
    beta2^t) / (1 - beta1^t) m / (sqrt(v) + eps)``. Dividing through by ``sqrt(1 - beta2^t)``
    shows that it is Algorithm 1 with ``eps / sqrt(1 - beta2^t)`` in place of ``eps``, and that
    is how it is computed.

    Parameters
    ----------
    learning_rate : float
        About the length of a parameter's step, positive.
    beta1, beta2 : float
        Decay rates of the first moment ``m`` and of the second, ``v``, in [0, 1).
    eps : float
        Keeps the denominator from 0, positive.
    epsilon_hat : bool
        Whether to use the form of the paper's section 2 instead of Algorithm 1.

    Raises
    ------
    ValueError
        If an argument is out of range.

    References
    ----------
    Kingma and Ba, "Adam: a method for stochastic optimization", ICLR 2015, Algorithm 1 and the
    last paragraph of section 2.
    """

    name = "adam"

    def __init__(
        self,
        learning_rate: float = 0.001,
        *,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-8,
        epsilon_hat: bool = False,
    ) -> None:
        self.learning_rate = check_positive("learning_rate", learning_rate)
        for name, beta in (("beta1", beta1), ("beta2", beta2)):
            if not 0 <= check_positive(name, beta, zero=True) < 1:
                raise ValueError(f"{name} must lie in [0, 1), got {beta!r}")
        if not isinstance(epsilon_hat, bool):
            raise ValueError(f"epsilon_hat must be true or false, got {epsilon_hat!r}")
        self.beta1 = float(beta1)
        self.beta2 = float(beta2)
        self.eps = check_positive("eps", eps)
        self.epsilon_hat = epsilon_hat

    def init_state(self, device: Device, params: Array) -> dict[str, Array]:
        """Make the state: moments ``m`` and ``v``, the step count and what follows from it."""
        xp = device.xp
        return {
            "learning_rate": _scalar(device, params, "learning_rate", self.learning_rate),
            "bias1": _scalar(device, params, "bias1", 0.0),
            "bias2": _scalar(device, params, "bias2", 0.0),
            "eps": _scalar(device, params, "eps", self.eps),
            "m": xp.zeros_like(params),
            "v": xp.zeros_like(params),
            "step": xp.zeros((*params.shape[:-1], 1), dtype=xp.int64),
        }

    def update(
        self, ops: ReferenceOps, params: Array, grads: Array, state: dict[str, Array]
    ) -> None:
        """Take one step."""
        ops.adam_tick(
            state["step"],
            state["bias1"],
            state["bias2"],
            state["eps"],
            self.beta1,
            self.beta2,
            self.eps,
            self.epsilon_hat,
        )
        ops.adam_update(
            params,
            grads,
            state["m"],
            state["v"],
            state["learning_rate"],
            state["bias1"],
            state["bias2"],
            state["eps"],
            self.beta1,
            self.beta2,
        )


def _scalar(device: Device, params: Array, name: str, value: float) -> Array:
    """Make an array (..., 1) that broadcasts against the parameters."""
    with np.errstate(all="ignore"):
        rounded = float(params.dtype.type(value))
    if not np.isfinite(rounded) or (rounded == 0) != (value == 0):
        raise ValueError(f"{name}={value:g} is {rounded:g} in {params.dtype}: out of its range")
    return device.xp.full((*params.shape[:-1], 1), value, dtype=params.dtype)
