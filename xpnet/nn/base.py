"""What layers, activations, initializers, losses and optimizers have in common.

Each is a small class whose constructor stores its arguments under their own names. From that
alone follows the rest: a name to ask for it by (in ``Dense(10, activation="relu")``, in a recipe,
in a saved model), a configuration to save, and the way back. A class defined outside xpnet takes
part in all of this as soon as it is defined.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from xpnet.device import Device
from xpnet.kernels.reference import Array, ReferenceOps
from xpnet.random import WeightStream

__all__ = [
    "Activation",
    "Augmentation",
    "Batch",
    "Cache",
    "Configurable",
    "Initializer",
    "Layer",
    "Loss",
    "Optimizer",
    "Schedule",
    "check_count",
    "check_fraction",
    "check_positive",
]


class Configurable:
    """A class that is known by name and rebuilt from its constructor's arguments.

    A direct subclass (``Layer``, ``Loss``, ...) is a *kind* with a register of its own; every
    class derived from a kind, but for those declared with ``abstract=True``, enters that register
    under its ``name``, which is the class name unless the class sets it. Defining a class again
    under the same name replaces the first, as re-running a notebook cell does; the names of
    xpnet's own classes are taken.
    """

    name: ClassVar[str]
    _registry: ClassVar[dict[str, type[Any]]]

    def __init_subclass__(cls, *, abstract: bool = False) -> None:
        super().__init_subclass__()
        if Configurable in cls.__bases__:
            cls._registry = {}
            return
        if abstract:
            return
        if "name" not in cls.__dict__:
            cls.name = cls.__name__
        known = cls._registry.get(cls.name)
        if known is not None and is_own(known) and known.__module__ != cls.__module__:
            raise TypeError(
                f"name {cls.name!r} is taken by {known.__module__}.{known.__name__}: "
                "give the class another name"
            )
        cls._registry[cls.name] = cls

    @classmethod
    def resolve(cls, spec: Any) -> Self:
        """Turn a name, a configuration or an instance into an instance.

        Parameters
        ----------
        spec : str, dict or instance
            ``"relu"``; ``{"type": "leaky_relu", "slope": 0.1}``; or an instance of this kind,
            which is returned as it is.

        Returns
        -------
        instance of this kind

        Raises
        ------
        ValueError
            If the name is not known or an argument is missing, unknown or out of range.
        TypeError
            If ``spec`` is of another type.
        """
        if isinstance(spec, cls):
            return spec
        if isinstance(spec, str):
            spec = {"type": spec}
        kind = cls.__name__.lower()
        if not isinstance(spec, dict) or not isinstance(spec.get("type"), str):
            raise TypeError(
                f"{kind} must be a name, an instance of {cls.__name__} or a table with a "
                f"'type', got {spec!r}"
            )
        arguments = {key: value for key, value in spec.items() if key != "type"}
        known = cls.known()
        found = known.get(spec["type"])
        if found is None:
            raise ValueError(
                f"there is no {kind} named {spec['type']!r}; known here: "
                f"{', '.join(known)} (one of your own must be defined or imported first)"
            )
        try:
            inspect.signature(found).bind(**arguments)
        except TypeError as error:
            raise ValueError(f"{kind} {spec['type']!r}: {error}") from error
        instance: Self = found(**arguments)
        return instance

    @classmethod
    def known(cls) -> dict[str, type[Self]]:
        """Give the classes of this kind that are defined by now, by name, sorted."""
        return {name: c for name, c in sorted(cls._registry.items()) if issubclass(c, cls)}

    def clone(self) -> Self:
        """Make a new instance from the same arguments."""
        return type(self)(**self._arguments())

    def get_config(self) -> dict[str, Any]:
        """Give the name and the constructor's arguments, as :meth:`resolve` takes them."""
        config: dict[str, Any] = {"type": self.name}
        for parameter, value in self._arguments().items():
            config[parameter] = value.get_config() if isinstance(value, Configurable) else value
        return config

    def __repr__(self) -> str:
        arguments = ", ".join(f"{name}={value!r}" for name, value in self._arguments().items())
        return f"{type(self).__name__}({arguments})"

    def _arguments(self) -> dict[str, Any]:
        """Read the constructor's arguments back from the attributes of the same names."""
        found = {}
        for parameter in inspect.signature(type(self)).parameters.values():
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                raise TypeError(
                    f"{type(self).__name__}.__init__ must name every argument, got {parameter}"
                )
            if not hasattr(self, parameter.name):
                raise TypeError(
                    f"{type(self).__name__}.__init__ must store its argument as "
                    f"self.{parameter.name}, so that it can be copied and saved"
                )
            found[parameter.name] = getattr(self, parameter.name)
        return found


def is_own(cls: type) -> bool:
    """Tell whether a class is one of xpnet's, and not of whoever uses it."""
    return cls.__module__.partition(".")[0] == "xpnet"


@dataclass
class Batch:
    """What a minibatch is beside its samples; the caches of all layers share it.

    Attributes
    ----------
    seed : int
        Of whatever is drawn during training.
    step : int64 device array (1,)
        The number of the training step, which every random draw takes into account.
    weights : device array (n_samples, 1)
        Each sample's part in the mean over the batch; they sum to 1.
    correction : device array (1,)
        What makes the variance over the batch one without bias, n / (n - 1); see
        :meth:`~xpnet.kernels.reference.ReferenceOps.variance_correction`.
    """

    seed: int
    step: Array
    weights: Array
    correction: Array

    @classmethod
    def of(
        cls, device: Device, size: int, dtype: npt.DTypeLike, *, seed: int = 0, step: Any = None
    ) -> Self:
        """Make the one of samples that all count the same, with the device active.

        Parameters
        ----------
        device : Device
        size : int
            Number of samples.
        dtype : dtype
            The network's.
        seed : int
        step : int64 device array (1,), optional
            By default one of its own, at 0.
        """
        xp = device.xp
        correction = size / (size - 1) if size > 1 else 0.0
        return cls(
            seed,
            xp.zeros(1, dtype=xp.int64) if step is None else step,
            xp.full((size, 1), 1 / max(size, 1), dtype=dtype),
            xp.full(1, correction, dtype=dtype),
        )


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

    def __init__(self) -> None:  # so that subclasses without arguments need none
        pass

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
        taken = self._taken_names()
        for attribute in (name, f"d{name}"):
            if not str(name).isidentifier() or attribute in taken or hasattr(self, attribute):
                raise ValueError(
                    f"parameter {name!r} of {type(self).__name__} needs a name of its own: "
                    f"{attribute!r} is not an identifier or already taken"
                )
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
        is_taken = name in self._taken_names() or hasattr(self, name)
        if not str(name).isidentifier() or is_taken:
            raise ValueError(
                f"statistic {name!r} of {type(self).__name__} needs a name of its own: it is not "
                "an identifier or already taken"
            )
        self._statistics[name] = (_lengths(f"shape of statistic {name!r}", shape), float(value))

    def _taken_names(self) -> set[str]:
        """Give the names that parameters, their gradients and statistics will have."""
        gradients = {f"d{name}" for name in self._parameters}
        return {*self._parameters, *gradients, *self._statistics}

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


class Augmentation(Configurable):
    """Changes the samples of a minibatch at random, before the network sees them, in training only.

    A subclass gives :meth:`apply`. What it draws should depend on nothing but the batch's seed and
    step and the place in the list of augmentations, so that a run can be repeated on any device.

    Attributes
    ----------
    works_in_place : bool
        Whether :meth:`apply` may be given ``out = X``.
    """

    works_in_place: ClassVar[bool] = False

    def check(self, image_shape: tuple[int, ...] | None, n_features: int) -> None:
        """Raise a ValueError that names what is needed, where samples are not as they must be.

        The default takes any.

        Parameters
        ----------
        image_shape : tuple of int or None
            ``(height, width)`` or ``(height, width, channels)`` where samples are images.
        n_features : int
        """
        del image_shape, n_features

    def apply(
        self,
        ops: ReferenceOps,
        X: Array,
        batch: Batch,
        number: int,
        image_shape: tuple[int, ...] | None,
        out: Array,
    ) -> Array:
        """Write changed samples.

        Parameters
        ----------
        ops : ReferenceOps
        X : array (n_samples, n_features)
            Not to be changed, unless it is ``out``.
        batch : Batch
        number : int
            The augmentation's place in the list, from 0: what it draws for.
        image_shape : tuple of int or None
            As :meth:`check` has let pass.
        out : array like X
            Overwritten. Another array than ``X`` but where :attr:`works_in_place` is true.

        Returns
        -------
        array like X
            ``out``.
        """
        raise NotImplementedError(f"{type(self).__name__} must define apply(...)")


class Loss(Configurable):
    """A loss on logits: owns the mean over the batch and the output's meaning.

    Attributes
    ----------
    has_classes : bool
        Whether labels are classes, and not numbers to be predicted.
    has_negatives : bool
        Whether numbers to be predicted may be negative, as those are that have been standardised.
    score_name : str
        What :meth:`score` measures, as tables and pictures call it.
    """

    has_classes: ClassVar[bool] = True
    has_negatives: ClassVar[bool] = True
    score_name: ClassVar[str] = "accuracy"

    def labels(
        self, device: Device, y: Any, n_outputs: int, dtype: npt.DTypeLike, *, name: str = "y"
    ) -> Array:
        """Bring a user's labels to the device, checked and in the form that :meth:`forward` takes.

        Parameters
        ----------
        device : Device
        y : array_like (n_samples,) or (n_samples, n_outputs)
        n_outputs : int
            The network's number of outputs.
        dtype : dtype
            The network's.
        name : str
            How error messages call the argument.

        Returns
        -------
        array whose first axis is the samples

        Raises
        ------
        TypeError, ValueError
            If the labels do not fit the loss or the network.
        """
        raise NotImplementedError(f"{type(self).__name__} must define labels(...)")

    def forward(
        self,
        ops: ReferenceOps,
        logits: Array,
        labels: Array,
        losses: Array,
        mean: Array,
        dlogits: Array | None = None,
        weights: Array | None = None,
    ) -> None:
        """Compute the loss of every sample, their mean and, if asked, the mean's gradient.

        Parameters
        ----------
        ops : ReferenceOps
        logits : array (..., n_samples, n_outputs)
        labels : array
            As :meth:`labels` gives them.
        losses : array (..., n_samples)
            Overwritten.
        mean : array (..., 1)
            Overwritten.
        dlogits : array like logits, optional
            Overwritten with the gradient of ``mean``.
        weights : array (..., n_samples), optional
            The samples' parts in the mean, which sum to 1; by default all count the same. A loss
            that is trained without weights of samples or classes need not have it.
        """
        raise NotImplementedError(f"{type(self).__name__} must define forward(...)")

    def probabilities(self, ops: ReferenceOps, logits: Array) -> Array:
        """Turn logits into probabilities."""
        raise NotImplementedError(f"{type(self).__name__} must define probabilities(ops, logits)")

    def decide(self, ops: ReferenceOps, logits: Array) -> Array:
        """Turn logits into predicted labels, in the form of :meth:`labels`."""
        raise NotImplementedError(f"{type(self).__name__} must define decide(ops, logits)")

    def score(
        self, ops: ReferenceOps, logits: Array, labels: Array, weights: Array | None = None
    ) -> Array:
        """Measure how good predictions are, 1 at best: by default the accuracy.

        ``weights`` (n_samples,) are the samples' parts in it, which sum to 1; by default all count
        the same. A loss that is evaluated without weights need not have them.
        """
        right = self.correct(ops, logits, labels)
        return right.mean() if weights is None else (right * weights).sum()

    def correct(self, ops: ReferenceOps, logits: Array, labels: Array) -> Array:
        """Tell which samples are predicted right: bool (n_samples,)."""
        right = self.decide(ops, logits) == labels
        return right.all(axis=-1) if right.ndim == 2 else right


class Optimizer(Configurable):
    """An update rule over one flat buffer of parameters; holds settings, no state.

    Attributes
    ----------
    learning_rate : float
        Before any schedule.
    """

    learning_rate: float

    def init_state(self, device: Device, params: Array) -> dict[str, Array]:
        """Make the state that the rule carries from step to step.

        Parameters
        ----------
        device : Device
        params : array (..., n)
            The network's flat parameters.

        Returns
        -------
        dict of str to device array
            Among them ``"learning_rate"`` (..., 1), which a schedule may overwrite.
        """
        raise NotImplementedError(f"{type(self).__name__} must define init_state(device, params)")

    def update(
        self,
        ops: ReferenceOps,
        params: Array,
        grads: Array,
        state: dict[str, Array],
        n_decay: int = 0,
    ) -> None:
        """Take one step, in place.

        Parameters
        ----------
        ops : ReferenceOps
        params : array (..., n)
            Overwritten.
        grads : array like params
        state : dict
            As :meth:`init_state` made it; overwritten.
        n_decay : int
            Length of the prefix of the parameters that weight decay applies to. It is given where
            the state holds a ``"weight_decay"``; a rule that has none need not know it.
        """
        raise NotImplementedError(f"{type(self).__name__} must define update(...)")


class Schedule(Configurable):
    """How the learning rate changes as training goes on: a factor on the optimizer's.

    A subclass gives :meth:`factor`. With ``warmup`` the factor rises in equal steps at first, from
    ``1 / warmup`` to 1, and the schedule begins after that. An instance is used for one run;
    :func:`xpnet.training.fit` clones the one that it is given.

    Attributes
    ----------
    per : {"epoch", "step"}
        What positions count.
    warmup : int
        How many of them the warm-up takes.
    monitor : str or None
        The number of a report that :meth:`observe` is given: ``"cost"``, ``"train_accuracy"``,
        ``"validation_cost"`` or ``"validation_accuracy"``; None for none.

    References
    ----------
    Goyal et al., "Accurate, large minibatch SGD: training ImageNet in 1 hour", 2017, section 2.2,
    for the warm-up.
    """

    per: str = "epoch"
    warmup: int = 0
    monitor: str | None = None

    def factor(self, t: int, n: int) -> float:
        """Give the factor at position ``t = 0, 1, ..., n - 1`` after the warm-up."""
        raise NotImplementedError(f"{type(self).__name__} must define factor(t, n)")

    def at(self, t: int, n: int) -> float:
        """Give the factor at position ``t`` of ``n`` in all, the warm-up included."""
        n_left = max(n - self.warmup, 1)
        if t < self.warmup:
            return (t + 1) / self.warmup * self.factor(0, n_left)
        return self.factor(t - self.warmup, n_left)

    def observe(self, value: float) -> None:
        """Take note of what a report says, after an epoch; the default does nothing."""
        del value


def check_positive(name: str, value: float, *, zero: bool = False) -> float:
    """Return ``value`` as a float, or raise a ValueError naming the argument and what came."""
    bound = "non-negative" if zero else "positive"
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise ValueError(f"{name} must be a {bound} number, got {value!r}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number) or number < 0 or (number == 0 and not zero):
        raise ValueError(f"{name} must be a {bound} finite number, got {value!r}")
    return number


def check_normal(name: str, value: float, dtype: npt.DTypeLike) -> None:
    """Raise a ValueError unless ``value`` is 0 or a normal number of the dtype.

    Fused operations take a subnormal number for 0, and a division by it would be one by 0.
    """
    dtype = np.dtype(dtype)
    with np.errstate(all="ignore"):
        rounded = float(np.asarray(value, dtype))
    smallest, largest = (float(limit) for limit in (np.finfo(dtype).tiny, np.finfo(dtype).max))
    if math.isfinite(rounded) and (value == 0 or abs(rounded) >= smallest):
        return
    became = "subnormal" if 0 < abs(rounded) < smallest else f"{rounded:g}"
    raise ValueError(
        f"{name}={value:g} is {became} in {dtype}: out of its range, which goes from "
        f"{smallest:.3g} to {largest:.3g}"
    )


def check_count(name: str, value: Any) -> int:
    """Return ``value`` as an int, or raise a ValueError naming the argument and what came."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise ValueError(f"{name} must be a positive integer, got {value!r}")
    return int(value)


def check_fraction(name: str, value: float, interval: str = "[0, 1)") -> float:
    """Return ``value`` as a float if it lies in the interval, as it is written, within [0, 1].

    Else raise a ValueError naming the argument and what came.
    """
    number = check_positive(name, value, zero=interval.startswith("["))
    if number > 1 or (number == 1 and interval.endswith(")")):
        raise ValueError(f"{name} must lie in {interval}, got {value!r}")
    return number


def _lengths(name: str, shape: int | Sequence[int]) -> tuple[int, ...]:
    given = shape if isinstance(shape, Sequence) else (shape,)
    return tuple(check_count(name, length) for length in given)
