"""The register of layers, losses, optimizers, ...: classes by name, their configuration and copies.

Layers, activations, initializers, losses, optimizers, schedules and augmentations are small classes
whose constructors store their arguments under their own names. From that alone follows the rest: a
name to ask for it by (in ``Dense(10, activation="relu")``, in a recipe, in a saved model), a
configuration to save, and the way back. A class defined outside xpnet takes part in all of this as
soon as it is defined.
"""

from __future__ import annotations

import inspect
from typing import Any, ClassVar, Self

__all__ = ["Configurable", "is_own"]


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
            found._signature().bind(**arguments)
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

    @classmethod
    def _signature(cls) -> inspect.Signature:
        """Give the constructor's signature, which takes Python longer to read than most to run."""
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
    """Tell whether a class is one of xpnet's, and not of whoever uses it."""
    return cls.__module__.partition(".")[0] == "xpnet"
