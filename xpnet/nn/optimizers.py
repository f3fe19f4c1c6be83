"""Optimizers: gradient descent, momentum, Nesterov, RMSprop, Adam and AdamW.

An optimizer object holds only settings. Its state is kept separately, in a dictionary of device
arrays, so that one object can serve many runs and a checkpoint holds everything that changes.
"""

from __future__ import annotations

from typing import ClassVar, TypeAlias

from xpnet.device import Device
from xpnet.kernels.reference import Array, ReferenceOps
from xpnet.nn.checks import check_flag, check_fraction, check_normal, check_positive
from xpnet.nn.registry import Configurable

__all__ = [
    "Adam",
    "AdamW",
    "GradientDescent",
    "Momentum",
    "Nesterov",
    "Optimizer",
    "RMSprop",
    "State",
]

State: TypeAlias = dict[str, Array]


class Optimizer(Configurable):
    """Base class of optimizers: update rules for a flat buffer of parameters, without state.

    Attributes
    ----------
    learning_rate : float
        Learning rate before any schedule.
    """

    learning_rate: float

    def init_state(self, device: Device, params: Array) -> State:
        """Create the state that the rule carries from step to step.

        Parameters
        ----------
        device : Device
            Device of the parameters.
        params : array (..., n)
            Flat parameters of the network.

        Returns
        -------
        dict of str to device array
            The state. It includes ``"learning_rate"`` (..., 1), which a schedule may overwrite.
        """
        raise NotImplementedError(f"{type(self).__name__} must define init_state(device, params)")

    def update(
        self, ops: ReferenceOps, params: Array, grads: Array, state: State, n_decay: int = 0
    ) -> None:
        """Take one step in place.

        Parameters
        ----------
        ops : ReferenceOps
            Operations of the device.
        params : array (..., n)
            Parameters; overwritten.
        grads : array like params
            Gradients.
        state : dict
            State created by :meth:`init_state`; overwritten.
        n_decay : int
            Length of the prefix of the parameters that weight decay applies to. It is passed only
            if the state holds a ``"weight_decay"``; a rule without weight decay may omit it.
        """
        raise NotImplementedError(f"{type(self).__name__} must define update(...)")


class _Rule(Optimizer, abstract=True):
    """Base class of the update rules: learning rate and decoupled weight decay."""

    def _set(self, learning_rate: float, weight_decay: float) -> None:
        self.learning_rate = check_positive("learning_rate", learning_rate)
        self.weight_decay = check_positive("weight_decay", weight_decay, zero=True)

    def init_state(self, device: Device, params: Array) -> State:
        """Create the state: the learning rate and, if it is not 0, the weight decay."""
        state = {"learning_rate": _scalar(device, params, "learning_rate", self.learning_rate)}
        if self.weight_decay:
            state["weight_decay"] = _scalar(device, params, "weight_decay", self.weight_decay)
        return state


class GradientDescent(_Rule):
    """Gradient descent, ``p <- p - learning_rate dp``.

    On the full batch this is the classical method, on minibatches stochastic gradient descent.

    Parameters
    ----------
    learning_rate : float
        Learning rate, positive: the length of the step in units of the gradient.
    weight_decay : float
        Decoupled weight decay, at least 0: in each step ``W <- W - learning_rate weight_decay W``
        for weights, not for biases and scales.

    Raises
    ------
    ValueError
        If an argument is out of range.
    """

    name = "gradient_descent"

    def __init__(self, learning_rate: float = 0.01, *, weight_decay: float = 0.0) -> None:
        self._set(learning_rate, weight_decay)

    def update(
        self, ops: ReferenceOps, params: Array, grads: Array, state: State, n_decay: int = 0
    ) -> None:
        """Take one step."""
        rate, decay = state["learning_rate"], state.get("weight_decay")
        ops.gradient_descent_update(params, grads, rate, decay, n_decay)


class Momentum(_Rule):
    """Gradient descent with momentum, in its classical or averaged form.

    Classical (``averaged=False``): ``v <- beta v + dp``, ``p <- p - learning_rate v``. If
    successive gradients agree, steps become ``1 / (1 - beta)`` times as long.

    Averaged (``averaged=True``), as in Andrew Ng's Deep Learning Specialization: ``v <- beta v +
    (1 - beta) dp``, a running average of the gradients, so that steps are about as long as without
    momentum. The averaged form with some learning rate and weight decay equals the classical form
    with ``1 - beta`` times that learning rate and ``1 / (1 - beta)`` times that weight decay.

    Parameters
    ----------
    learning_rate : float
        Learning rate, positive.
    beta : float
        Fraction of the velocity that is kept in each step, in [0, 1); the classical form also
        allows 1.
    averaged : bool
        Whether the velocity is a running average of the gradients; if False, it is their decaying
        sum.
    weight_decay : float
        Decoupled weight decay, at least 0: in each step ``W <- W - learning_rate weight_decay W``
        for weights, not for biases and scales.

    Raises
    ------
    ValueError
        If an argument is out of range.

    References
    ----------
    Polyak, "Some methods of speeding up the convergence of iteration methods", 1964.
    """

    name = "momentum"
    op: ClassVar[str] = "momentum_update"

    def __init__(
        self,
        learning_rate: float = 0.01,
        *,
        beta: float = 0.9,
        averaged: bool = False,
        weight_decay: float = 0.0,
    ) -> None:
        self._set(learning_rate, weight_decay)
        self.averaged = check_flag("averaged", averaged)
        self.beta = check_fraction("beta", beta, "[0, 1)" if averaged else "[0, 1]")

    def init_state(self, device: Device, params: Array) -> State:
        """Create the state, including the velocity, initially 0."""
        return super().init_state(device, params) | {"velocity": device.xp.zeros_like(params)}

    def update(
        self, ops: ReferenceOps, params: Array, grads: Array, state: State, n_decay: int = 0
    ) -> None:
        """Take one step."""
        weight = 1 - self.beta if self.averaged else 1.0
        rate, decay = state["learning_rate"], state.get("weight_decay")
        update = getattr(ops, self.op)
        update(params, grads, state["velocity"], rate, self.beta, weight, decay, n_decay)


class Nesterov(Momentum):
    """Nesterov momentum, which evaluates the gradient ahead, where the velocity leads.

    With the velocity of :class:`Momentum`, ``p <- p - learning_rate (beta v + dp)``; in the
    averaged form ``p <- p - learning_rate (beta v + (1 - beta) dp)``. As in PyTorch, the parameters
    ``p`` are those of the look-ahead point, where the gradient is evaluated.

    Parameters
    ----------
    learning_rate : float
        Learning rate, positive.
    beta : float
        Fraction of the velocity that is kept in each step; see :class:`Momentum`.
    averaged : bool
        Whether the velocity is a running average of the gradients; see :class:`Momentum`.
    weight_decay : float
        Decoupled weight decay, at least 0: in each step ``W <- W - learning_rate weight_decay W``
        for weights, not for biases and scales.

    Raises
    ------
    ValueError
        If an argument is out of range.

    References
    ----------
    Sutskever, Martens, Dahl and Hinton, "On the importance of initialization and momentum in deep
    learning", ICML 2013, equations 3 and 4; Bengio, Boulanger-Lewandowski and Pascanu, "Advances in
    optimizing recurrent networks", 2013, equation 7.
    """

    name = "nesterov"
    op = "nesterov_update"


class RMSprop(_Rule):
    """RMSprop, ``s <- beta s + (1 - beta) dp^2``, ``p <- p - learning_rate dp / (sqrt(s) + eps)``.

    Parameters
    ----------
    learning_rate : float
        Learning rate, positive: about the size of a parameter's step.
    beta : float
        Decay rate of the running mean of squares ``s``, in [0, 1).
    eps : float
        Value added to the denominator to keep it from 0, positive.
    weight_decay : float
        Decoupled weight decay, at least 0: in each step ``W <- W - learning_rate weight_decay W``
        for weights, not for biases and scales.

    Raises
    ------
    ValueError
        If an argument is out of range.

    References
    ----------
    Hinton, Srivastava and Swersky, "Neural networks for machine learning", lecture 6e, 2012.
    """

    name = "rmsprop"

    def __init__(
        self,
        learning_rate: float = 0.001,
        *,
        beta: float = 0.9,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        self._set(learning_rate, weight_decay)
        self.beta = check_fraction("beta", beta)
        self.eps = check_positive("eps", eps)

    def init_state(self, device: Device, params: Array) -> State:
        """Create the state, including the running mean of squares, initially 0."""
        check_normal("eps", self.eps, params.dtype)
        return super().init_state(device, params) | {"s": device.xp.zeros_like(params)}

    def update(
        self, ops: ReferenceOps, params: Array, grads: Array, state: State, n_decay: int = 0
    ) -> None:
        """Take one step."""
        rate, decay = state["learning_rate"], state.get("weight_decay")
        ops.rmsprop_update(params, grads, state["s"], rate, self.beta, self.eps, decay, n_decay)


class Adam(_Rule):
    """Adam, Algorithm 1 of the paper.

    At step ``t = 1, 2, ...``::

        m <- beta1 m + (1 - beta1) dp
        v <- beta2 v + (1 - beta2) dp^2
        p <- p - learning_rate (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps)

    The epsilon-hat form of the paper's section 2 (used by scikit-learn, Keras, Chainer and thinc;
    PyTorch, optax and tinygrad use Algorithm 1) folds the bias corrections into the learning rate
    and adds epsilon to the uncorrected ``sqrt(v)``: ``p <- p - learning_rate sqrt(1 - beta2^t) /
    (1 - beta1^t) m / (sqrt(v) + eps)``. Dividing numerator and denominator by ``sqrt(1 -
    beta2^t)`` shows that this is Algorithm 1 with ``eps / sqrt(1 - beta2^t)`` in place of ``eps``,
    and it is computed in that way.

    Parameters
    ----------
    learning_rate : float
        Learning rate, positive: about the size of a parameter's step.
    beta1 : float
        Decay rate of the first moment ``m``, in [0, 1).
    beta2 : float
        Decay rate of the second moment ``v``, in [0, 1).
    eps : float
        Value added to the denominator to keep it from 0, positive.
    epsilon_hat : bool
        Whether to use the form of the paper's section 2 instead of Algorithm 1.
    weight_decay : float
        Decoupled weight decay, at least 0: in each step ``W <- W - learning_rate weight_decay W``
        for weights, not for biases and scales. See :class:`AdamW`.

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
        weight_decay: float = 0.0,
    ) -> None:
        self._set(learning_rate, weight_decay)
        self.beta1 = check_fraction("beta1", beta1)
        self.beta2 = check_fraction("beta2", beta2)
        self.eps = check_positive("eps", eps)
        self.epsilon_hat = check_flag("epsilon_hat", epsilon_hat)

    def init_state(self, device: Device, params: Array) -> State:
        """Create the state, including moments ``m`` and ``v``, step count and bias corrections."""
        xp = device.xp
        return super().init_state(device, params) | {
            "bias1": _scalar(device, params, "bias1", 0.0),
            "bias2": _scalar(device, params, "bias2", 0.0),
            "eps": _scalar(device, params, "eps", self.eps),
            "m": xp.zeros_like(params),
            "v": xp.zeros_like(params),
            "step": xp.zeros((*params.shape[:-1], 1), dtype=xp.int64),
        }

    def update(
        self, ops: ReferenceOps, params: Array, grads: Array, state: State, n_decay: int = 0
    ) -> None:
        """Take one step."""
        rate, decay = state["learning_rate"], state.get("weight_decay")
        bias1, bias2, eps = state["bias1"], state["bias2"], state["eps"]
        beta1, beta2 = self.beta1, self.beta2
        ops.adam_tick(state["step"], bias1, bias2, eps, beta1, beta2, self.eps, self.epsilon_hat)
        m, v = state["m"], state["v"]
        ops.adam_update(params, grads, m, v, rate, bias1, bias2, eps, beta1, beta2, decay, n_decay)


class AdamW(Adam):
    """Adam with decoupled weight decay.

    Before each step of :class:`Adam`, ``W <- W - learning_rate weight_decay W`` for weights, not
    for biases and scales. An L2 penalty in the cost would go through the moments, which divide it
    by the size of the gradient, so weights with large gradients would decay less.

    Parameters
    ----------
    learning_rate : float
        Learning rate, positive: about the size of a parameter's step.
    beta1 : float
        Decay rate of the first moment ``m``, in [0, 1).
    beta2 : float
        Decay rate of the second moment ``v``, in [0, 1).
    eps : float
        Value added to the denominator to keep it from 0, positive.
    epsilon_hat : bool
        Whether to use the form of the Adam paper's section 2 instead of its Algorithm 1.
    weight_decay : float
        Decoupled weight decay, at least 0.

    Raises
    ------
    ValueError
        If an argument is out of range.

    References
    ----------
    Loshchilov and Hutter, "Decoupled weight decay regularization", ICLR 2019, algorithm 2, with the
    decay multiplied by the learning rate as in PyTorch.
    """

    name = "adamw"

    def __init__(
        self,
        learning_rate: float = 0.001,
        *,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-8,
        epsilon_hat: bool = False,
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__(
            learning_rate,
            beta1=beta1,
            beta2=beta2,
            eps=eps,
            epsilon_hat=epsilon_hat,
            weight_decay=weight_decay,
        )


def _scalar(device: Device, params: Array, name: str, value: float) -> Array:
    """Return an array (..., 1) that broadcasts against the parameters."""
    check_normal(name, value, params.dtype)
    return device.xp.full((*params.shape[:-1], 1), value, dtype=params.dtype)
