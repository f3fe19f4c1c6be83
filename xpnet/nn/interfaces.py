"""The interfaces ``Layer``, ``Activation`` and ``Initializer``: base classes to derive from.

Each of the three needs the others: a layer draws its parameters by an initializer, an activation is
a layer, a dense layer has an activation, and an initializer may depend on it. They stand together
here so that the modules that implement them do not import each other. Every other interface (Loss,
Optimizer, Schedule, Augmentation) stands in the module of its implementations.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from xpnet.device import Device
from xpnet.kernels.reference import Array, ReferenceOps
from xpnet.nn.batch import Batch
from xpnet.nn.checks import check_count
from xpnet.nn.registry import Configurable
from xpnet.random import WeightStream

__all__ = ["Activation", "Cache", "Initializer", "Layer"]


class Cache(SimpleNamespace):
    """What one layer keeps from its forward pass for its backward pass, for one batch size.

    Layers hold parameters only; everything that belongs to a batch lives in a cache that is
    handed to ``forward`` and ``backward``. That is why prediction cannot disturb training and may
    run in several threads.

    Attributes
    ----------
    training : bool
        Whether a backward pass will follow: dropout drops, and batch normalisation takes the
        batch's own statistics.
    input_gradient : bool
        Whether the layer's ``backward`` must return ``dX``; the first layer with parameters need
        not, and those before it are not asked to go back at all.
    number : int
        The layer's place in the network, from 0.
    batch : Batch
        Where ``training`` is true.
    """

    training: bool
    input_gradient: bool
    number: int
    batch: Batch


class Layer(Configurable):
    """One layer of a network: a forward pass and its derivative.

    A subclass writes up to four methods: ``build`` declares parameters, ``allocate`` makes
    buffers, ``forward`` and ``backward`` are the mathematics, in terms of ``self.xp`` (NumPy or
    CuPy) and, where one fits, of ``self.ops``. Only ``forward`` and ``backward`` are needed.

    A parameter declared as ``add_parameter("W", ...)`` is there as ``self.W``, its gradient as
    ``self.dW``: views into the network's flat buffers. ``backward`` overwrites the gradient
    (``self.dW[...] = ...``).

    A layer belongs to one network.
    """

    if TYPE_CHECKING:  # parameters become attributes that no type checker can foresee

        def __getattr__(self, name: str) -> Any: ...

    @property
    def device(self) -> Device:
        """The device of the network that the layer belongs to."""
        found: Device | None = getattr(self, "_device", None)
        if found is None:
            raise RuntimeError(f"{self!r} belongs to no network yet: put it into a Network")
        return found

    @property
    def xp(self) -> Any:
        """The array module, ``numpy`` or ``cupy``."""
        return self.device.xp

    @property
    def ops(self) -> ReferenceOps:
        """The device's table of operations."""
        return self.device.ops

    def add_parameter(
        self, name: str, shape: int | Sequence[int], init: Any, *, decay: bool = True
    ) -> None:
        """Declare a parameter; called from :meth:`build`.

        Parameters
        ----------
        name : str
            A Python identifier: the parameter becomes ``self.<name>``, its gradient
            ``self.d<name>``.
        shape : int or sequence of int
        init : str, dict or Initializer
            How its first values are drawn.
        decay : bool
            Whether weight decay applies to it: True for weights, False for biases and scales.

        Raises
        ------
        ValueError
            If the name is no identifier or is taken, by an attribute or by another parameter or
            its gradient, or a length is not positive.
        """
        self._check_free(f"parameter {name!r}", name, f"d{name}")
        lengths = _lengths(f"shape of parameter {name!r}", shape)
        self._parameters[name] = (lengths, Initializer.resolve(init), decay)

    def add_statistic(self, name: str, shape: int | Sequence[int], value: float) -> None:
        """Declare an array that is learned without a gradient; called from :meth:`build`.

        It is there as ``self.<name>``, which :meth:`forward` may change in place where
        ``cache.training`` is true, and is kept and saved with the parameters.

        Parameters
        ----------
        name : str
            A Python identifier that is not taken.
        shape : int or sequence of int
        value : float
            What all of it begins with.

        Raises
        ------
        ValueError
            If the name is no identifier or is taken, or a length is not positive.
        """
        self._check_free(f"statistic {name!r}", name)
        self._statistics[name] = (_lengths(f"shape of statistic {name!r}", shape), float(value))

    def _check_free(self, what: str, *attributes: str) -> None:
        """Raise a ValueError where an array cannot become an attribute under its name."""
        gradients = {f"d{name}" for name in self._parameters}
        taken = {*self._parameters, *gradients, *self._statistics}
        for attribute in attributes:
            is_identifier = str(attribute).isidentifier()
            if not is_identifier or attribute in taken or hasattr(self, attribute):
                raise ValueError(
                    f"{what} of {type(self).__name__} needs a name of its own: {attribute!r} is "
                    "not an identifier or already taken"
                )

    def build(self, n_in: int) -> int:
        """Declare the parameters for ``n_in`` input features and return the number of outputs.

        The default declares none and keeps the number of features.
        """
        return n_in

    def allocate(self, cache: Cache, shape: tuple[int, ...], dtype: npt.DTypeLike) -> None:
        """Make the buffers for inputs of this shape; the default makes none.

        Parameters
        ----------
        cache : Cache
            Where to keep them, as attributes.
        shape : tuple of int
            The input's shape, ``(..., n_samples, n_in)``.
        dtype : dtype
            The network's.
        """

    def forward(self, X: Array, cache: Cache) -> Array:
        """Compute the layer's output.

        Parameters
        ----------
        X : array (..., n_samples, n_in)
            Not to be changed.
        cache : Cache
            Keeps what :meth:`backward` needs.

        Returns
        -------
        array (..., n_samples, n_out)
            A buffer of the cache's or a new array.
        """
        raise NotImplementedError(f"{type(self).__name__} must define forward(X, cache)")

    def backward(self, dA: Array, cache: Cache) -> Array | None:
        """Propagate a gradient back through the layer.

        Parameters
        ----------
        dA : array (..., n_samples, n_out)
            The gradient of the loss with respect to the output. It may be overwritten.
        cache : Cache
            As :meth:`forward` left it.

        Returns
        -------
        array (..., n_samples, n_in) or None
            The gradient with respect to the input; may be None where ``cache.input_gradient``
            is False. A new array, ``dA`` itself or a buffer of the cache's, and never a view of
            anything else: the layer before overwrites it.
        """
        raise NotImplementedError(f"{type(self).__name__} must define backward(dA, cache)")

    @property
    def has_constraint(self) -> bool:
        """Whether :meth:`constrain` does anything; by default, where a subclass defines it."""
        return type(self).constrain is not Layer.constrain

    def constrain(self, cache: Cache) -> None:
        """Bring parameters back to where they must be, after each update; the default does nothing.

        Parameters
        ----------
        cache : Cache
            For buffers.
        """

    def _attach(self, device: Device, n_in: int) -> int:
        if getattr(self, "_device", None) is not None:
            raise ValueError(
                f"{self!r} already belongs to a network; make a new layer for each place"
            )
        self._device: Device | None = device
        self._parameters: dict[str, tuple[tuple[int, ...], Initializer, bool]] = {}
        self._statistics: dict[str, tuple[tuple[int, ...], float]] = {}
        try:
            n_out = self.build(n_in)
            return check_count(f"{type(self).__name__}.build's number of outputs", n_out)
        except BaseException:
            self._detach()
            raise

    def _detach(self) -> None:
        """Undo :meth:`_attach`, so that the layer can go into another network."""
        for name in getattr(self, "_parameters", {}):
            self.__dict__.pop(name, None)
            self.__dict__.pop(f"d{name}", None)
        for name in getattr(self, "_statistics", {}):
            self.__dict__.pop(name, None)
        self._device = None


class Activation(Layer, abstract=True):
    """A function applied to every element; also a layer of its own.

    A subclass gives ``function(Z)`` and ``derivative(Z, A)``, where ``A = function(Z)``. The
    chain rule does the rest: ``dZ = dA * derivative(Z, A)``, element by element.

    Attributes
    ----------
    gradient_from : {"input", "output", "both"}
        What the derivative is stated in. Where the output alone suffices, a :class:`Dense` layer
        lets ``A`` take the place of ``Z``.
    default_init : str
        The initializer that suits weights in front of this activation.
    gain : float or None
        What an initializer with ``gain="activation"`` multiplies the standard deviation of these
        weights by; None where the class states none.
    """

    gradient_from: ClassVar[str] = "both"
    default_init: ClassVar[str] = "xavier_normal"
    gain: float | None = None

    def function(self, Z: Array) -> Array:
        """Compute ``A`` from ``Z``."""
        raise NotImplementedError(f"{type(self).__name__} must define function(Z)")

    def derivative(self, Z: Array, A: Array) -> Array:
        """Compute ``dA/dZ``, given ``Z`` and ``A = function(Z)``."""
        raise NotImplementedError(f"{type(self).__name__} must define derivative(Z, A)")

    def forward(self, X: Array, cache: Cache) -> Array:
        """Compute ``A = function(X)``."""
        cache.Z = X
        cache.A = self.function(X)
        return cache.A

    def backward(self, dA: Array, cache: Cache) -> Array:
        """Compute ``dZ = dA * derivative``."""
        return self.xp.multiply(dA, self.derivative(cache.Z, cache.A), out=dA)

    def forward_with_bias(self, Z: Array, b: Array, cache: Cache) -> Array:
        """Compute ``A = function(Z + b)``; ``Z`` may be overwritten."""
        return self.forward(self.ops.add_bias(Z, b, out=Z), cache)

    def backward_with_bias(self, dA: Array, cache: Cache, db: Array) -> Array:
        """Compute ``dZ``, and write the bias's gradient into ``db``."""
        dZ = self.backward(dA, cache).astype(db.dtype, copy=False)
        self.ops.bias_grad(dZ, out=db)
        return dZ


class Initializer(Configurable):
    """Draws the first values of a parameter."""

    def draw(self, stream: WeightStream, shape: tuple[int, ...]) -> npt.NDArray[np.float64]:
        """Draw values on the host.

        Parameters
        ----------
        stream : WeightStream
        shape : tuple of int
            ``(fan_in, fan_out)`` for a weight matrix.

        Returns
        -------
        float64 array of that shape
        """
        raise NotImplementedError(f"{type(self).__name__} must define draw(stream, shape)")

    def for_activation(self, activation: Activation) -> Initializer:
        """Give the initializer of weights in front of this activation; the default is itself."""
        del activation
        return self


def _lengths(name: str, shape: int | Sequence[int]) -> tuple[int, ...]:
    given = shape if isinstance(shape, Sequence) else (shape,)
    return tuple(check_count(name, length) for length in given)
