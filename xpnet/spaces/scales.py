"""Scales: what one hyper-parameter may be, and the fraction of [0, 1] at which a value lies."""

from __future__ import annotations

import itertools
import math
import numbers
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
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
]

PLAIN = (bool, int, float, str)


@dataclass(frozen=True)
class Scale(ABC):
    """What one hyper-parameter may be.

    Attributes
    ----------
    condition : dict of str to tuple
        Names of hyper-parameters with few values, and the values at which this one exists; always
        where it is empty. See :meth:`when`.
    """

    condition: dict[str, tuple[Any, ...]] = field(default_factory=dict, kw_only=True)

    word: ClassVar[str]

    def when(self, conditions: Mapping[str, Any]) -> Self:
        """Give the same scale for a hyper-parameter that does not always exist.

        Parameters
        ----------
        conditions : mapping
            Names of other hyper-parameters, and the value or the list of values that each must
            have: the name of a choice that has one.

        Raises
        ------
        ValueError
            If there is no value.
        """
        found = {}
        for name, values in conditions.items():
            listed = tuple(values) if isinstance(values, (list, tuple)) else (values,)
            if not listed or not all(isinstance(value, PLAIN) for value in listed):
                raise ValueError(
                    f"when must give one value or a list of them for {name!r}, got {values!r:.200}"
                )
            found[str(name)] = listed
        return replace(self, condition=found)

    @abstractmethod
    def at(self, u: float) -> Any:
        """Give the setting at the fraction ``u``, in [0, 1], of the scale."""

    @abstractmethod
    def position(self, setting: Any) -> float:
        """Give the fraction of the scale, in [0, 1], at which a setting lies."""

    @abstractmethod
    def contains(self, setting: Any) -> bool:
        """Tell whether a setting is one of this scale's."""

    @abstractmethod
    def extremes(self) -> list[Any]:
        """Give settings such that all others are fine if these are."""

    def grid(self) -> list[Any]:
        """Give the settings of a grid: all, where they are few."""
        return self.extremes()

    def value(self, setting: Any) -> Any:
        """Give the value that a setting stands for: another one only where choices have names."""
        return setting

    @abstractmethod
    def arguments(self) -> dict[str, Any]:
        """Give what stands in a recipe's table, conditions apart."""

    def to_table(self) -> dict[str, Any]:
        """Give the recipe's table; :meth:`from_table` reads it back."""
        when = {name: list(values) for name, values in self.condition.items()}
        return self.arguments() | ({"when": when} if when else {})

    @staticmethod
    def from_table(table: Mapping[str, Any]) -> Scale:
        """Read ``{ log_uniform = [1e-4, 0.1] }``.

        Parameters
        ----------
        table : mapping
            One of :data:`KINDS` with its bounds or choices; ``points``, of ranges; ``when``.

        Raises
        ------
        ValueError
            If it says something else.
        """
        words = [word for word in table if word in KINDS]
        if len(words) != 1:
            said = ", ".join(table) or "an empty table"
            raise ValueError(f"it must say one of {', '.join(KINDS)}, got {said}")
        kind = KINDS[words[0]]
        allowed = {words[0], "when"} | ({"points"} if issubclass(kind, Range) else set())
        for key in table:
            if key not in allowed:
                raise ValueError(
                    f"{key} is nothing that {words[0]} knows; known: {', '.join(sorted(allowed))}"
                )
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
    """Undo what TOML makes of a dotted name that is not quoted: tables in tables."""
    for name, values in conditions.items():
        if isinstance(values, Mapping) and values:
            yield from ((f"{name}.{rest}", inner) for rest, inner in _dotted(values))
        else:
            yield name, values


_LARGEST = 2**53  # of the integers that are floats, each of them


def _check_number(word: str, name: str, value: Any, *, whole: bool) -> Any:
    kind = numbers.Integral if whole else numbers.Real  # NumPy's are, too
    is_number = isinstance(value, kind) and not isinstance(value, bool)
    if not is_number or not abs(value) <= sys.float_info.max:
        noun = "an integer" if whole else "a finite number"
        raise ValueError(f"{word}: {name} must be {noun}, got {value!r:.200}")
    if whole and abs(value) > _LARGEST:
        raise ValueError(f"{word}: {name} must lie in [-2^53, 2^53], got {value}")
    return int(value) if whole else float(value)


@dataclass(frozen=True)
class Range(Scale):
    """Numbers between two bounds, both of which belong to it.

    Parameters
    ----------
    low, high : number
        With ``low < high``; where there is but one value, it is :class:`Fixed`.
    points : int
        How many a grid has: the middles of so many equal parts of the scale.

    Raises
    ------
    ValueError
        If the bounds are no numbers, or not in that order, or not of those that the scale has.
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
        """Map a value to where equal lengths matter alike: to itself, if nothing else is said."""
        return value

    def inverse(self, transformed: float) -> float:
        """Map back."""
        return transformed

    def _ends(self) -> tuple[float, float]:
        """Give the transformed bounds; integers own half a unit on either side."""
        half = 0.5 if self.whole else 0.0
        return self.transform(self.low - half), self.transform(self.high + half)

    def at(self, u: float) -> Any:
        """Give the value at the fraction ``u``, in [0, 1], of the scale."""
        start, end = self._ends()
        value = self.inverse(start + u * (end - start))
        nearest: Any = round(value) if self.whole else value
        return min(max(nearest, self.low), self.high)

    def position(self, setting: Any) -> float:
        """Give the fraction of the scale, in [0, 1], at which a value lies."""
        start, end = self._ends()
        if start == end:  # neighbours, whose logarithms are one number
            return 0.5
        return min(max((self.transform(setting) - start) / (end - start), 0.0), 1.0)

    def contains(self, setting: Any) -> bool:
        """Tell whether a value lies between the bounds."""
        kinds = int if self.whole else (int, float)
        return (
            isinstance(setting, kinds)
            and not isinstance(setting, bool)
            and self.low <= setting <= self.high
        )

    def grid(self) -> list[Any]:
        """Give the middles of ``points`` equal parts of the scale."""
        values = [self.at((i + 0.5) / self.points) for i in range(self.points)]
        return list(dict.fromkeys(values))  # integers may coincide

    def extremes(self) -> list[Any]:
        """Give the bounds."""
        return [self.low, self.high]

    def arguments(self) -> dict[str, Any]:
        """Give what stands in a recipe's table."""
        points = {} if self.points == 3 else {"points": self.points}
        return {self.word: [self.low, self.high], **points}


@dataclass(frozen=True)
class Uniform(Range):
    """Numbers whose differences matter: a rate of dropout."""

    word: ClassVar[str] = "uniform"


@dataclass(frozen=True)
class _Logarithmic(Range):
    """Numbers whose ratios matter."""

    def transform(self, value: float) -> float:
        """Give the logarithm."""
        return math.log(value)

    def inverse(self, transformed: float) -> float:
        """Give the exponential."""
        return math.exp(transformed)


@dataclass(frozen=True)
class LogUniform(_Logarithmic):
    """Numbers whose ratios matter: a learning rate, a penalty; log(x) is uniform. Above 0."""

    word: ClassVar[str] = "log_uniform"
    needs: ClassVar[str] = "low must be greater than 0, of which there is no logarithm"

    def _fits(self) -> bool:
        return bool(self.low > 0)


@dataclass(frozen=True)
class OneMinusLogUniform(Range):
    """Numbers near 1 whose distances from it matter by their ratios: a momentum, Adam's betas.

    x = 1 - 10^r with r uniform, so that 0.9 to 0.99 gets as much as 0.99 to 0.999. In [0, 1).
    """

    word: ClassVar[str] = "one_minus_log_uniform"
    needs: ClassVar[str] = "low must be at least 0 and high less than 1, where log(1 - x) ends"

    def _fits(self) -> bool:
        return bool(self.low >= 0 and self.high < 1)

    def transform(self, value: float) -> float:
        """Give -log(1 - x), which grows with x."""
        return -math.log1p(-value)

    def inverse(self, transformed: float) -> float:
        """Map back."""
        return -math.expm1(-transformed)


@dataclass(frozen=True)
class Integer(Range):
    """Integers whose differences matter: a number of layers."""

    word: ClassVar[str] = "integer"
    whole: ClassVar[bool] = True


@dataclass(frozen=True)
class LogInteger(_Logarithmic):
    """Integers whose ratios matter: a number of units, a batch size. At least 1.

    k is drawn as often as a log-uniform number from low - 1/2 to high + 1/2 is rounded to it.
    """

    word: ClassVar[str] = "log_integer"
    whole: ClassVar[bool] = True
    needs: ClassVar[str] = "low must be at least 1"

    def _fits(self) -> bool:
        return bool(self.low >= 1)


@dataclass(frozen=True)
class Choice(Scale):
    """One of a few values, each as good as the other.

    Parameters
    ----------
    options : list, or dict of str to value
        Different strings, numbers or booleans; or anything under a name of its own, as tables of
        layers: the names are then what a study says.

    Raises
    ------
    ValueError
        If there are fewer than two, or two that are equal.
    """

    options: Any

    word: ClassVar[str] = "choice"

    def __post_init__(self) -> None:
        given = self.options
        if not isinstance(given, (list, tuple, Mapping)) or len(given) < 2:
            raise ValueError(
                "choice must be a list, or a table of names and values, with two at least, got "
                f"{given!r:.200}"
            )
        if isinstance(given, Mapping):
            if not all(isinstance(name, str) and name for name in given):
                raise ValueError(f"choice: names must be strings, got {list(given)!r:.200}")
            object.__setattr__(self, "options", dict(given))
            return
        for option in given:
            if not isinstance(option, PLAIN):
                raise ValueError(
                    "choice: what is no string, number or boolean must have a name, as in "
                    f"choice = {{ NAME = ... }}, got {option!r:.200}"
                )
            if isinstance(option, float) and math.isnan(option):
                raise ValueError(f"choice: nan is equal to none, got {list(given)!r:.200}")
        object.__setattr__(self, "options", tuple(given))
        if any(a == b for a, b in itertools.combinations(given, 2)):
            raise ValueError(f"choice: values must differ, got {list(given)!r:.200}")

    @property
    def settings(self) -> tuple[Any, ...]:
        """What a study says: the values, or their names."""
        return tuple(self.options)

    def value(self, setting: Any) -> Any:
        """Give the value that a setting stands for."""
        if isinstance(self.options, dict):
            return self.options[setting]
        return self.options[self.options.index(setting)]

    def at(self, u: float) -> Any:
        """Give the setting at the fraction ``u``, in [0, 1]."""
        return self.settings[min(int(u * len(self.settings)), len(self.settings) - 1)]

    def position(self, setting: Any) -> float:
        """Give the middle of the part that a setting has of [0, 1]."""
        return (self.settings.index(setting) + 0.5) / len(self.settings)

    def contains(self, setting: Any) -> bool:
        """Tell whether a setting is among them."""
        return isinstance(setting, PLAIN) and setting in self.settings

    def extremes(self) -> list[Any]:
        """Give all settings."""
        return list(self.settings)

    def arguments(self) -> dict[str, Any]:
        """Give what stands in a recipe's table."""
        named = isinstance(self.options, dict)
        return {self.word: dict(self.options) if named else list(self.options)}


@dataclass(frozen=True)
class Fixed(Scale):
    """One value, that of all trials, whatever the recipe says: a smaller number of epochs."""

    constant: Any

    word: ClassVar[str] = "fixed"

    def at(self, u: float) -> Any:
        """Give the value, wherever ``u`` is."""
        del u
        return self.constant

    def position(self, setting: Any) -> float:
        """Give the middle."""
        del setting
        return 0.5

    def contains(self, setting: Any) -> bool:
        """Tell whether it is the value."""
        return bool(setting == self.constant)

    def extremes(self) -> list[Any]:
        """Give the value."""
        return [self.constant]

    def arguments(self) -> dict[str, Any]:
        """Give what stands in a recipe's table."""
        return {self.word: self.constant}


_SCALES: tuple[type[Scale], ...] = (
    *(Uniform, LogUniform, OneMinusLogUniform, Integer, LogInteger),
    *(Choice, Fixed),
)
KINDS: dict[str, type[Scale]] = {scale.word: scale for scale in _SCALES}
