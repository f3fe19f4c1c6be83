"""The registry of layers, losses, optimizers, ...: classes by name, configurations and copies.

Layers, activations, initializers, losses, optimizers, schedules and augmentations are small classes
whose constructors store their arguments under the same names. This is enough to look a class up by
name (in ``Dense(10, activation="relu")``, in a recipe, in a saved model), to save its configuration
and to rebuild it. A class that you define outside xpnet is registered as soon as it is defined.
"""

from __future__ import annotations

import difflib
import inspect
from typing import Any, ClassVar, Self

__all__ = ["Configurable", "is_own"]


class Configurable:
    """Base class of objects that are found by name and rebuilt from their constructor's arguments.

    A direct subclass (``Layer``, ``Loss``, ...) is a *kind* with its own registry. Every class
    derived from a kind is registered under its ``name``, which defaults to the class name, unless
    it is declared with ``abstract=True``. Defining a class again under the same name, for instance
    by re-running a notebook cell, replaces the first. The names of xpnet's classes are reserved.
    """

    name: ClassVar[str]
    _registry: ClassVar[dict[str, type[Any]]]
    _read_signature: ClassVar[inspect.Signature]

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
            If ``spec`` has another type.
        """
        if isinstance(spec, cls):
            return spec
        if isinstance(spec, str):
            spec = {"type": spec}
        kind = cls.__name__.lower()
        if not isinstance(spec, dict) or not isinstance(spec.get("type"), str):
            raise TypeError(
                f"{kind} must be a name, an instance of {cls.__name__} or a dict with a 'type', "
                f"got {spec!r}"
            )
        arguments = {key: value for key, value in spec.items() if key != "type"}
        found = cls._registry.get(spec["type"])
        if found is None or not issubclass(found, cls):
            raise ValueError(_unknown(kind, spec["type"], list(cls.known())))
        try:
            found._signature().bind(**arguments)
        except TypeError as error:
            raise ValueError(f"{kind} {spec['type']!r}: {error}") from error
        instance: Self = found(**arguments)
        return instance

    @classmethod
    def known(cls) -> dict[str, type[Self]]:
        """Return the classes of this kind that are defined so far, by name, sorted."""
        return {name: c for name, c in sorted(cls._registry.items()) if issubclass(c, cls)}

    def clone(self) -> Self:
        """Return a new instance with the same arguments."""
        return type(self)(**self._arguments())

    def get_config(self) -> dict[str, Any]:
        """Return the name and the constructor's arguments, in the form :meth:`resolve` takes."""
        config: dict[str, Any] = {"type": self.name}
        for parameter, value in self._arguments().items():
            config[parameter] = value.get_config() if isinstance(value, Configurable) else value
        return config

    def __repr__(self) -> str:
        arguments = ", ".join(f"{name}={value!r}" for name, value in self._arguments().items())
        return f"{type(self).__name__}({arguments})"

    @classmethod
    def _signature(cls) -> inspect.Signature:
        """Return the constructor's signature, cached: reading it is slower than most calls."""
        if "_read_signature" not in cls.__dict__:
            cls._read_signature = inspect.signature(cls)
        return cls._read_signature

    def _arguments(self) -> dict[str, Any]:
        """Read the constructor's arguments back from the attributes of the same names."""
        found = {}
        for parameter in self._signature().parameters.values():
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
    """Return whether a class is part of xpnet, as opposed to user code."""
    return cls.__module__.partition(".")[0] == "xpnet"


def _unknown(kind: str, name: str, known: list[str]) -> str:
    """Write the error message for an unknown name, with the nearest valid one if there is one."""
    by_lower = {valid.lower(): valid for valid in known}  # "ReLU" means "relu"
    word = name.lower()
    near = [valid for valid in by_lower if word and valid.startswith(word)]
    if len(near) != 1:
        near = difflib.get_close_matches(word, by_lower, n=1, cutoff=0.7) or near
    kinds = "losses" if kind == "loss" else f"{kind}s"
    hint = f"did you mean {by_lower[near[0]]!r}? Valid" if near else "valid"
    return f"unknown {kind} {name!r}; {hint} {kinds}: {', '.join(known)} (import your own first)"
