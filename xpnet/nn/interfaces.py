"""The interfaces ``Layer``, ``Activation`` and ``Initializer``: base classes to derive from.

These three depend on each other: a layer draws its parameters with an initializer, an activation is
a layer, a dense layer has an activation, and an initializer may depend on that. They share a module
so that the modules that implement them need not import each other. Every other interface (Loss,
Optimizer, Schedule, Augmentation) is in the module of its implementations.
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
    """Values that one layer keeps from its forward pass for its backward pass.

    Layers hold only parameters. Everything that belongs to a batch is stored in a cache, which is
    passed to ``forward`` and ``backward`` and belongs to one batch size. This way prediction cannot
    disturb training and may run in several threads.

    Attributes
    ----------
    training : bool
        Whether a backward pass will follow. If True, dropout is active and batch normalisation
        uses the batch's statistics.
    input_gradient : bool
        Whether the layer's ``backward`` must return ``dX``. The first layer with parameters need
        not return it, and ``backward`` is not called for the layers before it.
    number : int
        Position of the layer in the network, from 0.
    batch : Batch
        Seed, step and weights of the minibatch; only if ``training`` is True.
    """

    training: bool
    input_gradient: bool
    number: int
    batch: Batch


class Layer(Configurable):
    """Base class of layers: a forward pass and its derivative.

    A subclass implements up to four methods. ``build`` declares parameters and ``allocate`` creates
    buffers. ``forward`` and ``backward`` do the mathematics with ``self.xp`` (NumPy or CuPy) and,
    optionally, with the operations of ``self.ops``. Only ``forward`` and ``backward`` are required.

    A parameter declared with ``add_parameter("W", ...)`` is available as ``self.W`` and its
    gradient as ``self.dW``. Both are views into the network's flat buffers. ``backward`` overwrites
    the gradient (``self.dW[...] = ...``).

    A layer belongs to a single network.
    """

    if TYPE_CHECKING:  # parameters become attributes unknown to a type checker

        def __getattr__(self, name: str) -> Any: ...

    @property
    def device(self) -> Device:
        """Device of the network that the layer belongs to."""
        found: Device | None = getattr(self, "_device", None)
        if found is None:
            raise RuntimeError(f"{self!r} is not part of a network yet: add it to a Network")
        return found

    @property
    def xp(self) -> Any:
        """Array module, ``numpy`` or ``cupy``."""
        return self.device.xp

    @property
    def ops(self) -> ReferenceOps:
        """Operations of the device."""
        return self.device.ops

    def add_parameter(
        self, name: str, shape: int | Sequence[int], init: Any, *, decay: bool = True
    ) -> None:
        """Declare a parameter; call it from :meth:`build`.

        Parameters
        ----------
        name : str
            Name of the parameter, a Python identifier. The parameter becomes ``self.<name>`` and
            its gradient ``self.d<name>``.
        shape : int or sequence of int
            Shape of the parameter.
        init : str, dict or Initializer
            Initializer of its values.
        decay : bool
            Whether weight decay applies to it: True for weights, False for biases and scales.

        Raises
        ------
        ValueError
            If ``name`` is not an identifier or is already used by an attribute, another parameter
            or a gradient, or if a length in ``shape`` is not positive.
        """
        self._check_free(f"parameter {name!r}", name, f"d{name}")
        lengths = _lengths(f"shape of parameter {name!r}", shape)
        self._parameters[name] = (lengths, Initializer.resolve(init), decay)

    def add_statistic(self, name: str, shape: int | Sequence[int], value: float) -> None:
        """Declare an array that is learned without a gradient; call it from :meth:`build`.

        It becomes ``self.<name>`` and is saved with the parameters. :meth:`forward` may change it
        in place if ``cache.training`` is True.

        Parameters
        ----------
        name : str
            Name of the array, a Python identifier that is not used yet.
        shape : int or sequence of int
            Shape of the array.
        value : float
            Initial value of all elements.

        Raises
        ------
        ValueError
            If ``name`` is not an identifier or is already used, or if a length in ``shape`` is not
            positive.
        """
        self._check_free(f"statistic {name!r}", name)
        self._statistics[name] = (_lengths(f"shape of statistic {name!r}", shape), float(value))

    def _check_free(self, what: str, *attributes: str) -> None:
        """Raise a ValueError unless these names are free for new attributes."""
        gradients = {f"d{name}" for name in self._parameters}
        taken = {*self._parameters, *gradients, *self._statistics}
        for attribute in attributes:
            is_identifier = str(attribute).isidentifier()
            if not is_identifier or attribute in taken or hasattr(self, attribute):
                raise ValueError(
                    f"{what} of {type(self).__name__} needs another name: {attribute!r} is not an "
                    "identifier or is already used"
                )

    def build(self, n_in: int) -> int:
        """Declare the parameters for ``n_in`` input features and return the number of outputs.

        The default declares no parameters and returns ``n_in``.
        """
        return n_in

    def allocate(self, cache: Cache, shape: tuple[int, ...], dtype: npt.DTypeLike) -> None:
        """Create the buffers for inputs of this shape; the default creates none.

        Parameters
        ----------
        cache : Cache
            Object that stores the buffers as attributes.
        shape : tuple of int
            Shape of the input, ``(..., n_samples, n_in)``.
        dtype : dtype
            Dtype of the network.
        """

    def forward(self, X: Array, cache: Cache) -> Array:
        """Compute the layer's output.

        Parameters
        ----------
        X : array (..., n_samples, n_in)
            Input. It must not be changed.
        cache : Cache
            Object that stores what :meth:`backward` needs.

        Returns
        -------
        array (..., n_samples, n_out)
            Output, in a buffer of the cache or a new array.
        """
        raise NotImplementedError(f"{type(self).__name__} must define forward(X, cache)")

    def backward(self, dA: Array, cache: Cache) -> Array | None:
        """Propagate a gradient back through the layer.

        Parameters
        ----------
        dA : array (..., n_samples, n_out)
            Gradient of the loss with respect to the output. It may be overwritten.
        cache : Cache
            The cache as :meth:`forward` left it.

        Returns
        -------
        array (..., n_samples, n_in) or None
            Gradient with respect to the input; may be None if ``cache.input_gradient`` is False.
            It must be a new array, ``dA`` itself or a buffer of the cache, never a view of anything
            else, since the preceding layer overwrites it.
        """
        raise NotImplementedError(f"{type(self).__name__} must define backward(dA, cache)")

    @property
    def has_constraint(self) -> bool:
        """Whether :meth:`constrain` does anything; by default, whether a subclass defines it."""
        return type(self).constrain is not Layer.constrain

    def constrain(self, cache: Cache) -> None:
        """Enforce constraints on the parameters after each update; the default does nothing.

        Parameters
        ----------
        cache : Cache
            Object that holds the buffers.
        """

    def _attach(self, device: Device, n_in: int) -> int:
        if getattr(self, "_device", None) is not None:
            raise ValueError(
                f"{self!r} already belongs to a network; create a separate layer for each use"
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
        """Undo :meth:`_attach`, so that the layer can be added to another network."""
        for name in getattr(self, "_parameters", {}):
            self.__dict__.pop(name, None)
            self.__dict__.pop(f"d{name}", None)
        for name in getattr(self, "_statistics", {}):
            self.__dict__.pop(name, None)
        self._device = None


class Activation(Layer, abstract=True):
    """Base class of activations: functions applied to every element, also usable as layers.

    A subclass implements ``function(Z)`` and ``derivative(Z, A)``, where ``A = function(Z)``. The
    chain rule does the rest: ``dZ = dA * derivative(Z, A)``, element by element.

    Attributes
    ----------
    gradient_from : {"input", "output", "both"}
        Arrays that the derivative is computed from. If the output is enough, a :class:`Dense` layer
        stores ``A`` in the buffer of ``Z``.
    default_init : str
        Default initializer of weights in front of this activation.
    gain : float or None
        Factor by which an initializer with ``gain="activation"`` multiplies the standard deviation
        of these weights; None if the class does not define one.
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
        """Compute ``dZ`` and write the gradient of the bias into ``db``."""
        dZ = self.backward(dA, cache).astype(db.dtype, copy=False)
        self.ops.bias_grad(dZ, out=db)
        return dZ


class Initializer(Configurable):
    """Base class of initializers, which draw the initial values of a parameter."""

    def draw(self, stream: WeightStream, shape: tuple[int, ...]) -> npt.NDArray[np.float64]:
        """Draw values on the host.

        Parameters
        ----------
        stream : WeightStream
            Source of random numbers.
        shape : tuple of int
            Shape of the parameter, ``(fan_in, fan_out)`` for a weight matrix.

        Returns
        -------
        float64 array of that shape
        """
        raise NotImplementedError(f"{type(self).__name__} must define draw(stream, shape)")

    def for_activation(self, activation: Activation) -> Initializer:
        """Return the initializer for weights in front of this activation; by default, itself."""
        del activation
        return self


def _lengths(name: str, shape: int | Sequence[int]) -> tuple[int, ...]:
    given = shape if isinstance(shape, Sequence) else (shape,)
    return tuple(check_count(name, length) for length in given)
