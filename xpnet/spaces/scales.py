"""Scales: the values of a hyper-parameter, and the position of each of them in [0, 1]."""

from __future__ import annotations

import difflib
import itertools
import math
import numbers
import sys
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self

__all__ = [
    "KINDS",
    "PLAIN",
    "Choice",
    "Fixed",
    "Integer",
    "LogInteger",
    "LogUniform",
    "OneMinusLogUniform",
    "Range",
    "Scale",
    "Uniform",
    "unknown_name",
]

PLAIN = (bool, int, float, str)


def unknown_name(what: str, name: str, known: Collection[str]) -> str:
    """Return the message for an unknown name: the nearest valid name, and all valid names."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.65)
    hint = f"did you mean {near[0]!r}? Valid" if near else "valid"
    return f"unknown {what} {name!r:.200}; {hint} {what}s: {', '.join(known)}"


@dataclass(frozen=True)
class Scale(ABC):
    """Base class of scales: the values that a hyper-parameter may have.

    A setting is what a study records for a hyper-parameter: the value, or the name of a value in a
    :class:`Choice` with names.

    Attributes
    ----------
    condition : dict of str to tuple
        Names of other hyper-parameters, and the values of each for which this hyper-parameter
        exists. If empty, it always exists. See :meth:`when`.
    """

    condition: dict[str, tuple[Any, ...]] = field(default_factory=dict, kw_only=True)

    word: ClassVar[str]

    def when(self, conditions: Mapping[str, Any]) -> Self:
        """Return the same scale for a conditional hyper-parameter.

        Parameters
        ----------
        conditions : mapping
            Names of other hyper-parameters, and the value or list of values that each must have
            for this one to exist. For a choice with names, give the name.

        Returns
        -------
        Scale

        Raises
        ------
        ValueError
            If a list of values is empty, or a value is not a string, number or boolean.
        """
        found = {}
        for name, values in conditions.items():
            listed = tuple(values) if isinstance(values, (list, tuple)) else (values,)
            if not listed or not all(isinstance(value, PLAIN) for value in listed):
                raise ValueError(
                    f"when must give one value or a list of values for {name!r}, got "
                    f"{values!r:.200}"
                )
            found[str(name)] = listed
        return replace(self, condition=found)

    @abstractmethod
    def at(self, u: float) -> Any:
        """Return the setting at the position ``u`` in [0, 1]."""

    @abstractmethod
    def position(self, setting: Any) -> float:
        """Return the position of a setting in [0, 1]."""

    @abstractmethod
    def contains(self, setting: Any) -> bool:
        """Return whether a setting belongs to the scale."""

    @abstractmethod
    def extremes(self) -> list[Any]:
        """Return the settings to test: if they are valid, all settings are valid."""

    def grid(self) -> list[Any]:
        """Return the settings of a grid."""
        return self.extremes()

    def value(self, setting: Any) -> Any:
        """Return the value of a setting; they differ only for choices with names."""
        return setting

    @abstractmethod
    def arguments(self) -> dict[str, Any]:
        """Return the scale's table in a recipe, without conditions."""

    def to_table(self) -> dict[str, Any]:
        """Return the scale's table in a recipe, which :meth:`from_table` reads."""
        when = {name: list(values) for name, values in self.condition.items()}
        return self.arguments() | ({"when": when} if when else {})

    @staticmethod
    def from_table(table: Mapping[str, Any]) -> Scale:
        """Read a scale from a table such as ``{ log_uniform = [1e-4, 0.1] }``.

        Parameters
        ----------
        table : mapping
            One of :data:`KINDS` with its bounds or choices; optionally ``when``, and ``points``
            for a range.

        Returns
        -------
        Scale

        Raises
        ------
        ValueError
            If the table does not describe a scale.
        """
        words = [word for word in table if word in KINDS]
        others = [key for key in table if key not in (*KINDS, "points", "when")]
        if not words and others:
            raise ValueError(unknown_name("scale", others[0], KINDS))
        if len(words) != 1:
            came = ", ".join(table) or "an empty table"
            raise ValueError(f"must have exactly one scale of {', '.join(KINDS)}; got {came}")
        kind = KINDS[words[0]]
        options = ("points", "when") if issubclass(kind, Range) else ("when",)
        for key in table:
            if key not in (words[0], *options):
                raise ValueError(f"{words[0]}: {unknown_name('option', key, options)}")
        given = table[words[0]]
        scale: Scale
        if issubclass(kind, Range):
            if not isinstance(given, (list, tuple)) or len(given) != 2:
                raise ValueError(f"{words[0]} must be a list [low, high], got {given!r:.200}")
            scale = kind(*given, **({"points": table["points"]} if "points" in table else {}))
        else:
            scale = kind(given)  # type: ignore[call-arg]
        conditions = table.get("when", {})
        if not isinstance(conditions, Mapping):
            raise ValueError(
                f"when must be a table of hyper-parameters and values, got {conditions!r:.200}"
            )
        return scale.when(dict(_dotted(conditions)))


def _dotted(conditions: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Join nested tables, which TOML makes of dotted names without quotes, to dotted names."""
    for name, values in conditions.items():
        if isinstance(values, Mapping) and values:
            yield from ((f"{name}.{rest}", inner) for rest, inner in _dotted(values))
        else:
            yield name, values


_LARGEST = 2**53  # floats represent every integer up to this one


def _check_number(word: str, name: str, value: Any, *, whole: bool) -> Any:
    kind = numbers.Integral if whole else numbers.Real  # includes NumPy's
    is_number = isinstance(value, kind) and not isinstance(value, bool)
    if not is_number or not abs(value) <= sys.float_info.max:
        noun = "an integer" if whole else "a finite number"
        raise ValueError(f"{word}: {name} must be {noun}, got {value!r:.200}")
    if whole and abs(value) > _LARGEST:
        raise ValueError(f"{word}: {name} must lie in [-2^53, 2^53], got {value}")
    return int(value) if whole else float(value)


@dataclass(frozen=True)
class Range(Scale):
    """Base class of ranges: numbers between two bounds, including both.

    Parameters
    ----------
    low, high : number
        Bounds, with ``low < high``. For a single value use :class:`Fixed`.
    points : int
        Number of points in a grid: the midpoints of this many equal parts of the scale.

    Raises
    ------
    ValueError
        If the bounds are not numbers, not in this order, or outside the domain of the scale.
    """

    low: Any
    high: Any
    points: int = 3

    whole: ClassVar[bool] = False
    least: ClassVar[float] = -math.inf
    needs: ClassVar[str] = ""

    def __post_init__(self) -> None:
        for name in ("low", "high"):
            checked = _check_number(self.word, name, getattr(self, name), whole=self.whole)
            object.__setattr__(self, name, checked)
        if not self.low < self.high:
            raise ValueError(
                f"{self.word}: low must be less than high, got low={self.low:g} and "
                f"high={self.high:g}"
            )
        if not math.isfinite(self.high - self.low):
            raise ValueError(
                f"{self.word}: high - low must be finite, got low={self.low:g} and "
                f"high={self.high:g}"
            )
        if not self._fits():
            raise ValueError(
                f"{self.word}: {self.needs}, got low={self.low:g} and high={self.high:g}"
            )
        points = _check_number(self.word, "points", self.points, whole=True)
        if points < 1:
            raise ValueError(f"{self.word}: points must be at least 1, got {points}")

    def _fits(self) -> bool:
        return True

    def transform(self, value: float) -> float:
        """Map a value so that equal lengths are equally important; by default to itself."""
        return value

    def inverse(self, transformed: float) -> float:
        """Invert :meth:`transform`."""
        return transformed

    def _ends(self) -> tuple[float, float]:
        """Return the transformed bounds; an integer covers half a unit on either side."""
        half = 0.5 if self.whole else 0.0
        return self.transform(self.low - half), self.transform(self.high + half)

    def at(self, u: float) -> Any:
        """Return the value at the position ``u`` in [0, 1]."""
        start, end = self._ends()
        value = self.inverse(start + u * (end - start))
        nearest: Any = round(value) if self.whole else value
        return min(max(nearest, self.low), self.high)

    def position(self, setting: Any) -> float:
        """Return the position of a value in [0, 1]."""
        start, end = self._ends()
        if start == end:  # large neighbours may have equal logarithms
            return 0.5
        return min(max((self.transform(setting) - start) / (end - start), 0.0), 1.0)

    def contains(self, setting: Any) -> bool:
        """Return whether a value lies between the bounds."""
        kinds = int if self.whole else (int, float)
        return (
            isinstance(setting, kinds)
            and not isinstance(setting, bool)
            and self.low <= setting <= self.high
        )

    def grid(self) -> list[Any]:
        """Return the midpoints of ``points`` equal parts of the scale."""
        values = [self.at((i + 0.5) / self.points) for i in range(self.points)]
        return list(dict.fromkeys(values))  # integers may coincide

    def extremes(self) -> list[Any]:
        """Return the bounds."""
        return [self.low, self.high]

    def arguments(self) -> dict[str, Any]:
        """Return the scale's table in a recipe, without conditions."""
        points = {} if self.points == 3 else {"points": self.points}
        return {self.word: [self.low, self.high], **points}


@dataclass(frozen=True)
class Uniform(Range):
    """Uniform numbers, such as a dropout rate."""

    word: ClassVar[str] = "uniform"


@dataclass(frozen=True)
class _Logarithmic(Range):
    """Base class of ranges on a logarithmic scale."""

    def transform(self, value: float) -> float:
        """Return the logarithm."""
        return math.log(value)

    def inverse(self, transformed: float) -> float:
        """Return the exponential."""
        return math.exp(transformed)


@dataclass(frozen=True)
class LogUniform(_Logarithmic):
    """Positive numbers x with uniform log(x), such as a learning rate or a penalty."""

    word: ClassVar[str] = "log_uniform"
    needs: ClassVar[str] = "low must be greater than 0"

    def _fits(self) -> bool:
        return bool(self.low > 0)


@dataclass(frozen=True)
class OneMinusLogUniform(Range):
    """Numbers x in [0, 1) with uniform log(1 - x), such as a momentum or Adam's betas.

    x = 1 - 10^r with r uniform, so that 0.9 to 0.99 is as likely as 0.99 to 0.999.
    """

    word: ClassVar[str] = "one_minus_log_uniform"
    needs: ClassVar[str] = "low must be at least 0 and high less than 1"

    def _fits(self) -> bool:
        return bool(self.low >= 0 and self.high < 1)

    def transform(self, value: float) -> float:
        """Return -log(1 - x), which grows with x."""
        return -math.log1p(-value)

    def inverse(self, transformed: float) -> float:
        """Invert :meth:`transform`."""
        return -math.expm1(-transformed)


@dataclass(frozen=True)
class Integer(Range):
    """Uniform integers, such as a number of layers."""

    word: ClassVar[str] = "integer"
    whole: ClassVar[bool] = True


@dataclass(frozen=True)
class LogInteger(_Logarithmic):
    """Log-uniform positive integers, such as a number of units or a batch size.

    A value is drawn log-uniformly from [low - 1/2, high + 1/2] and rounded.
    """

    word: ClassVar[str] = "log_integer"
    whole: ClassVar[bool] = True
    needs: ClassVar[str] = "low must be at least 1"

    def _fits(self) -> bool:
        return bool(self.low >= 1)


@dataclass(frozen=True)
class Choice(Scale):
    """One of a few values, all equally likely.

    Parameters
    ----------
    options : list, or dict of str to value
        Distinct strings, numbers or booleans; or a dictionary of names and values of any kind, such
        as tables of layers. A study then records the names.

    Raises
    ------
    ValueError
        If there are fewer than two options, or two are equal.
    """

    options: Any

    word: ClassVar[str] = "choice"

    def __post_init__(self) -> None:
        given = self.options
        if not isinstance(given, (list, tuple, Mapping)) or len(given) < 2:
            raise ValueError(
                "choice must be a list, or a table of names and values, with at least two entries, "
                f"got {given!r:.200}"
            )
        if isinstance(given, Mapping):
            if not all(isinstance(name, str) and name for name in given):
                raise ValueError(f"choice: names must be strings, got {list(given)!r:.200}")
            object.__setattr__(self, "options", dict(given))
            return
        for option in given:
            if not isinstance(option, PLAIN):
                raise ValueError(
                    "choice: values must be strings, numbers or booleans, or have names as in "
                    f"choice = {{ NAME = ... }}, got {option!r:.200}"
                )
            if isinstance(option, float) and math.isnan(option):
                raise ValueError(f"choice: values must not be nan, got {list(given)!r:.200}")
        object.__setattr__(self, "options", tuple(given))
        if any(a == b for a, b in itertools.combinations(given, 2)):
            raise ValueError(f"choice: values must be distinct, got {list(given)!r:.200}")

    @property
    def settings(self) -> tuple[Any, ...]:
        """The settings that a study records: the values, or their names."""
        return tuple(self.options)

    def value(self, setting: Any) -> Any:
        """Return the value of a setting."""
        if isinstance(self.options, dict):
            return self.options[setting]
        return self.options[self.options.index(setting)]

    def at(self, u: float) -> Any:
        """Return the setting at the position ``u`` in [0, 1]."""
        return self.settings[min(int(u * len(self.settings)), len(self.settings) - 1)]

    def position(self, setting: Any) -> float:
        """Return the midpoint of the setting's part of [0, 1]."""
        return (self.settings.index(setting) + 0.5) / len(self.settings)

    def contains(self, setting: Any) -> bool:
        """Return whether a setting is one of the settings."""
        return isinstance(setting, PLAIN) and setting in self.settings

    def extremes(self) -> list[Any]:
        """Return all settings."""
        return list(self.settings)

    def arguments(self) -> dict[str, Any]:
        """Return the scale's table in a recipe, without conditions."""
        named = isinstance(self.options, dict)
        return {self.word: dict(self.options) if named else list(self.options)}


@dataclass(frozen=True)
class Fixed(Scale):
    """One value for all trials, which overrides the recipe's, such as fewer epochs."""

    constant: Any

    word: ClassVar[str] = "fixed"

    def at(self, u: float) -> Any:
        """Return the value, for any ``u``."""
        del u
        return self.constant

    def position(self, setting: Any) -> float:
        """Return 0.5."""
        del setting
        return 0.5

    def contains(self, setting: Any) -> bool:
        """Return whether a setting is the value."""
        return bool(setting == self.constant)

    def extremes(self) -> list[Any]:
        """Return the value, in a list."""
        return [self.constant]

    def arguments(self) -> dict[str, Any]:
        """Return the scale's table in a recipe, without conditions."""
        return {self.word: self.constant}


_SCALES: tuple[type[Scale], ...] = (
    *(Uniform, LogUniform, OneMinusLogUniform, Integer, LogInteger),
    *(Choice, Fixed),
)
KINDS: dict[str, type[Scale]] = {scale.word: scale for scale in _SCALES}
