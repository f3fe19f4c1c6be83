"""The kinds of values that keys have (number, choice, component, ...), each with its check.

A check returns the value with all defaults filled in, or raises a :class:`RecipeError` with the
key's path, the value given, what was expected, and the nearest valid name. Some kinds also accept
a word such as ``"none"``, because TOML has no null.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from xpnet.nn.interfaces import Activation, Initializer
from xpnet.nn.registry import Configurable
from xpnet.recipe.errors import RecipeError, nearest, unknown, wrong
from xpnet.recipe.signatures import options

__all__ = [
    "Boolean",
    "Choice",
    "ClassWeight",
    "Component",
    "Components",
    "Initialization",
    "Kind",
    "Number",
    "Text",
]


class Kind(Protocol):
    """The values that a key may have."""

    @property
    def name(self) -> str:
        """Name of the kind on the reference page."""

    def check(self, path: str, value: Any) -> Any:
        """Return the value with all defaults filled in, or raise a RecipeError."""


@dataclass(frozen=True)
class Number:
    """A finite number or an integer within bounds, or a certain word."""

    low: float
    high: float = math.inf
    whole: bool = False
    open_low: bool = False
    open_high: bool = False
    word: str | None = None

    @property
    def name(self) -> str:
        """For instance ``integer >= 1``."""
        return self._name()

    def _name(self, adjective: str = "") -> str:
        noun = f"{_or(self.word)}{adjective}{'integer' if self.whole else 'number'}"
        if self.high == math.inf:
            return f"{noun} {'>' if self.open_low else '>='} {self.low:g}"
        bounds = f"{'(' if self.open_low else '['}{_bound(self.low)}, {_bound(self.high)}"
        return f"{noun} in {bounds}{')' if self.open_high else ']'}"

    def check(self, path: str, value: Any) -> Any:
        """Return an int or a float, or the word."""
        if isinstance(value, str) and value == self.word:
            return value
        kinds = int if self.whole else (int, float)
        is_finite = True
        if (
            isinstance(value, bool)
            or not isinstance(value, kinds)
            or not (is_finite := abs(value) <= sys.float_info.max)
            or not self.low <= value <= self.high
            or (self.open_low and value == self.low)
            or (self.open_high and value == self.high)
        ):
            near = nearest(value, (self.word,)) if self.word and isinstance(value, str) else None
            raise wrong(path, self._name("" if is_finite else "finite "), value, near=near)
        return int(value) if self.whole else float(value)


@dataclass(frozen=True)
class Boolean:
    """True or false."""

    name: str = "boolean"

    def check(self, path: str, value: Any) -> bool:
        """Return the value."""
        if not isinstance(value, bool):
            raise wrong(path, "true or false", value)
        return value


@dataclass(frozen=True)
class Text:
    """A string that matches a pattern, or a certain word, which must match it too."""

    form: str = "string"
    pattern: str = ".*"
    word: str | None = None

    @property
    def name(self) -> str:
        """The form in words."""
        return f"{_or(self.word)}{self.form}"

    def check(self, path: str, value: Any) -> str:
        """Return the value."""
        if not isinstance(value, str) or not re.fullmatch(self.pattern, value):
            raise wrong(path, self.name, value)
        _check_characters(path, value)
        return value


def _check_characters(path: str, text: str) -> None:
    """Raise a RecipeError for characters that UTF-8 cannot encode: a recipe file is UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise RecipeError(f"{path} must be valid UTF-8 text, got {text!a}") from error


def _check_is_toml(path: str, value: Any) -> None:
    """Raise a RecipeError for an option that cannot be written as TOML."""
    if isinstance(value, str):
        _check_characters(path, value)
    elif isinstance(value, (list, tuple)):
        for number, member in enumerate(value):
            _check_is_toml(f"{path}.{number}", member)
    elif isinstance(value, dict):
        for key, member in value.items():
            _check_is_toml(f"{path}.{key}", member)
    elif not isinstance(value, (bool, int, float)):
        raise wrong(path, "a valid TOML value", value)


@dataclass(frozen=True)
class Choice:
    """One of a few strings."""

    choices: tuple[str, ...]

    @property
    def name(self) -> str:
        """The strings, quoted."""
        *others, last = (f'"{choice}"' for choice in self.choices)
        return f"{', '.join(others)} or {last}"

    def check(self, path: str, value: Any) -> str:
        """Return the value."""
        if value not in self.choices or not isinstance(value, str):
            raise wrong(path, self.name, value, near=nearest(value, self.choices))
        return value


@dataclass(frozen=True)
class ClassWeight:
    """Weights of classes: a list of numbers, or a word."""

    name: str = '"none", "balanced" or list of numbers'
    word: str = "none"

    def check(self, path: str, value: Any) -> Any:
        """Return the word, or the numbers as floats."""
        words = (self.word, "balanced")
        if isinstance(value, str) and value in words:
            return value
        if not isinstance(value, list) or not value:
            raise wrong(path, self.name, value, near=nearest(value, words))
        return [Number(0).check(f"{path}.{number}", one) for number, one in enumerate(value)]


@dataclass(frozen=True)
class Component:
    """A layer, loss, optimizer, ...: its name, or a table with its ``type`` and options.

    It may also be a certain word.
    """

    kind: type[Configurable]
    word: str | None = None

    @property
    def name(self) -> str:
        """The kind, in lower case."""
        return f"{_or(self.word)}{self.kind.__name__.lower()}"

    def check(self, path: str, value: Any) -> Any:
        """Return a table with all options, only the name if there are none, or the word."""
        if isinstance(value, str) and value == self.word:
            return value
        table = {"type": value} if isinstance(value, str) else value
        named = f"name of a known {self.kind.__name__.lower()}"
        if not isinstance(table, dict):
            raise wrong(path, f"{_or(self.word)}{named} or a table with its type", value)
        known = self.kind.known()
        if "type" not in table:
            raise RecipeError(f"{path}.type is missing: one of {', '.join(known)}")
        name = table["type"]
        if not isinstance(name, str) or name not in known:
            named = f"{named} ({', '.join(known)})"
            if name is not value:  # in a table
                raise wrong(f"{path}.type", named, name, near=nearest(name, known))
            words = known if self.word is None else (self.word, *known)
            raise wrong(path, f"{_or(self.word)}{named}", name, near=nearest(name, words))
        given = {key: option for key, option in table.items() if key != "type"}
        found = {option.name: option for option in options(known[name])}
        for key in given:
            if key not in found:
                known_here = tuple(f"{path}.{word}" for word in ("type", *found))
                raise unknown(f"{path}.{key}", given[key], known_here)
        for key, option in found.items():
            if key not in given and option.is_required:
                raise RecipeError(f"{path}.{key} is missing: {option.meaning or 'it is required'}")
        checked = _check_nested(path, given)
        try:
            made = known[name](**checked)
        except (TypeError, ValueError, OverflowError) as error:
            # Constructors name the argument first: "units must be ..."
            is_named = str(error).partition(" ")[0] in found
            raise RecipeError(f"{path}{'.' if is_named else ': '}{error}") from error
        config = _check_nested(path, made.get_config())
        for key, option in list(config.items()):
            if option is None and key in found and found[key].default is None:
                del config[key]  # TOML has no null
            else:
                _check_is_toml(f"{path}.{key}", option)
        return config if len(config) > 1 else name


@dataclass(frozen=True)
class Components:
    """A list of components, with at least one unless ``may_be_empty`` is True."""

    kind: type[Configurable]
    may_be_empty: bool = False

    @property
    def name(self) -> str:
        """The plural of the components' kind."""
        return f"list of {self.kind.__name__.lower()}s"

    def check(self, path: str, value: Any) -> list[Any]:
        """Return the list with every member checked."""
        if not isinstance(value, list) or not (value or self.may_be_empty):
            at_least = "" if self.may_be_empty else ", at least one"
            raise wrong(path, f"{self.name}{at_least}", value)
        return [
            Component(self.kind).check(f"{path}.{number}", member)
            for number, member in enumerate(value)
        ]


# Options of layers that are components themselves.
Initialization = Component(Initializer, "auto")
_NESTED: dict[str, Kind] = {
    "activation": Component(Activation),
    "init": Initialization,
    "bias_init": Component(Initializer),
}


def _check_nested(path: str, given: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: _NESTED[key].check(f"{path}.{key}", option) if key in _NESTED else option
        for key, option in given.items()
    }


def _or(word: str | None) -> str:
    return "" if word is None else f'"{word}" or '


def _bound(value: float) -> str:
    power = round(math.log2(value + 1)) if value >= 2**31 else 0
    return f"2^{power}-1" if power else f"{value:g}".replace("1e+0", "10^")
