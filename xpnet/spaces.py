"""Hyper-parameters and the scales on which they are looked for.

A scale maps [0, 1] to the values that a hyper-parameter may have, so that equal lengths matter
alike: a learning rate by its logarithm, a momentum by the logarithm of what it lacks to 1. Where a
search draws, how a grid is laid and how a picture's axis runs all follow from that one map.
"""

from __future__ import annotations

import itertools
import math
import numbers
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
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
    "Space",
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
    def grid(self) -> list[Any]:
        """Give the settings of a grid."""

    @abstractmethod
    def extremes(self) -> list[Any]:
        """Give settings such that all others are fine if these are."""

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

    @abstractmethod
    def transform(self, value: float) -> float:
        """Map a value to where equal lengths matter alike."""

    @abstractmethod
    def inverse(self, transformed: float) -> float:
        """Map back."""

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

    def transform(self, value: float) -> float:
        """Give the value."""
        return value

    def inverse(self, transformed: float) -> float:
        """Give the value."""
        return transformed


@dataclass(frozen=True)
class LogUniform(Range):
    """Numbers whose ratios matter: a learning rate, a penalty; log(x) is uniform. Above 0."""

    word: ClassVar[str] = "log_uniform"
    needs: ClassVar[str] = "low must be greater than 0, of which there is no logarithm"

    def _fits(self) -> bool:
        return bool(self.low > 0)

    def transform(self, value: float) -> float:
        """Give the logarithm."""
        return math.log(value)

    def inverse(self, transformed: float) -> float:
        """Give the exponential."""
        return math.exp(transformed)


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

    def transform(self, value: float) -> float:
        """Give the value."""
        return value

    def inverse(self, transformed: float) -> float:
        """Give the value."""
        return transformed


@dataclass(frozen=True)
class LogInteger(Range):
    """Integers whose ratios matter: a number of units, a batch size. At least 1.

    k is drawn as often as a log-uniform number from low - 1/2 to high + 1/2 is rounded to it.
    """

    word: ClassVar[str] = "log_integer"
    whole: ClassVar[bool] = True
    needs: ClassVar[str] = "low must be at least 1"

    def _fits(self) -> bool:
        return bool(self.low >= 1)

    def transform(self, value: float) -> float:
        """Give the logarithm."""
        return math.log(value)

    def inverse(self, transformed: float) -> float:
        """Give the exponential."""
        return math.exp(transformed)


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

    def grid(self) -> list[Any]:
        """Give all settings."""
        return list(self.settings)

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

    def grid(self) -> list[Any]:
        """Give the value."""
        return [self.constant]

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


class Space(Mapping[str, Scale]):
    """Hyper-parameters by name, each with its scale.

    A point of it is a dictionary of settings, in the same order and without those hyper-parameters
    that do not exist there; :meth:`resolve` gives what the settings stand for.

    Parameters
    ----------
    scales : mapping of str to Scale
        A hyper-parameter stands after those that its condition names.

    Raises
    ------
    ValueError
        If there is none, or a condition names a hyper-parameter that does not stand before it, has
        more than a few values, or never has one of those that are asked for; or if conditions
        exclude each other.
    """

    def __init__(self, scales: Mapping[str, Scale]) -> None:
        if not isinstance(scales, Mapping) or not scales:
            raise ValueError(f"a space must have at least one hyper-parameter, got {scales!r:.200}")
        self._scales: dict[str, Scale] = {}
        for name, scale in scales.items():
            if not isinstance(scale, Scale):
                raise ValueError(
                    f"{name} must be a scale, as LogUniform(1e-4, 0.1), got {scale!r:.200}"
                )
            self._check_condition(name, scale)
            self._scales[str(name)] = scale
            for other, values in self._needed(str(name)).items():
                if not values:
                    raise ValueError(f"{name} never exists: no value of {other} is left by when")

    def _check_condition(self, name: str, scale: Scale) -> None:
        for other, wanted in scale.condition.items():
            if other not in self._scales:
                raise ValueError(
                    f"{name}: when names {other!r}, which must be a hyper-parameter that stands "
                    f"before it; there {'are' if self._scales else 'is'} "
                    f"{', '.join(self._scales) or 'none'}"
                )
            above = self._scales[other]
            if not isinstance(above, (Choice, Fixed, Integer)):
                raise ValueError(
                    f"{name}: when names {other!r}, which must be choice, fixed or integer, got "
                    f"{above.word}"
                )
            for value in wanted:
                if not above.contains(value):
                    raise ValueError(f"{name}: {other} is never {value!r}, as when asks for")

    def __getitem__(self, name: str) -> Scale:
        return self._scales[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._scales)

    def __len__(self) -> int:
        return len(self._scales)

    def __repr__(self) -> str:
        return f"Space({self._scales!r})"

    def exists(self, name: str, settings: Mapping[str, Any]) -> bool:
        """Tell whether a hyper-parameter exists, given the settings before it."""
        return all(
            other in settings and settings[other] in wanted
            for other, wanted in self._scales[name].condition.items()
        )

    def at(self, u: Sequence[float]) -> dict[str, Any]:
        """Give the point at the fractions ``u`` of all scales, in [0, 1], in their order."""
        settings: dict[str, Any] = {}
        for (name, scale), fraction in zip(self._scales.items(), u, strict=True):
            if self.exists(name, settings):
                settings[name] = scale.at(fraction)
        return settings

    def grid(self) -> list[dict[str, Any]]:
        """Give every combination of the scales' own grids, each once."""
        points: list[dict[str, Any]] = [{}]
        for name, scale in self._scales.items():
            points = [
                {**point, name: setting} if is_there else point
                for point in points
                for is_there in (self.exists(name, point),)
                for setting in (scale.grid() if is_there else (None,))
            ]
        return points

    def resolve(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Give the values that settings stand for."""
        return {name: self._scales[name].value(setting) for name, setting in settings.items()}

    def contains(self, settings: Mapping[str, Any]) -> bool:
        """Tell whether these are the settings of a point: all that exist there, and no others."""
        wanted = [name for name in self._scales if self.exists(name, settings)]
        return list(settings) == wanted and all(
            self._scales[name].contains(setting) for name, setting in settings.items()
        )

    def _needed(self, name: str) -> dict[str, list[Any]]:
        """Give the values that others must have, all the way up, for a hyper-parameter to exist."""
        needed: dict[str, list[Any]] = {}
        for below in reversed(self._scales):  # each stands after those that its condition names
            if below == name or below in needed:
                for other, wanted in self._scales[below].condition.items():
                    needed[other] = [v for v in needed.get(other, wanted) if v in wanted]
        return needed

    def settings_before(self, name: str) -> dict[str, Any]:
        """Give the fewest settings under which a hyper-parameter exists."""
        return self.all_before(name)[0]

    def all_before(self, name: str, others: Sequence[str] = ()) -> list[dict[str, Any]]:
        """Give the settings under which a hyper-parameter exists, in all combinations.

        Parameters
        ----------
        name : str
        others : sequence of str
            Further hyper-parameters that stand before it, whose settings are to be among them:
            their extremes.
        """
        needed = self._needed(name)
        besides = {above for other in others for above in (other, *self._needed(other))}
        points: list[dict[str, Any]] = [{}]
        for key, scale in self._scales.items():
            if key in needed or key in besides:
                points = [
                    {**point, key: setting} if is_there else point
                    for point in points
                    for is_there in (self.exists(key, point),)
                    for setting in ((needed.get(key) or scale.extremes()) if is_there else (None,))
                ]
        return points

    def renamed(self, names: Mapping[str, str]) -> Space:
        """Give the space with other names, as those of an estimator's parameters in a pipeline.

        Parameters
        ----------
        names : mapping
            New names by old ones. Those that are not in it stay.

        Raises
        ------
        ValueError
            If there is no hyper-parameter of an old name, or two would have one name.
        """
        unknown = [name for name in names if name not in self._scales]
        if unknown:
            raise ValueError(f"there is no hyper-parameter {unknown[0]!r}: {', '.join(self)}")
        new = {name: names.get(name, name) for name in self._scales}
        if len(set(new.values())) < len(new):
            raise ValueError(f"two hyper-parameters would have one name: {', '.join(new.values())}")
        return Space(
            {
                new[name]: replace(
                    scale,
                    condition={new[other]: wanted for other, wanted in scale.condition.items()},
                )
                for name, scale in self._scales.items()
            }
        )

    def to_tables(self) -> dict[str, dict[str, Any]]:
        """Give the table ``[search]`` of a recipe; :meth:`from_tables` reads it back."""
        return {name: scale.to_table() for name, scale in self._scales.items()}

    @classmethod
    def from_tables(cls, tables: Mapping[str, Mapping[str, Any]]) -> Space:
        """Read the table ``[search]`` of a recipe.

        Raises
        ------
        ValueError
            See :class:`Space` and :meth:`Scale.from_table`; the message begins with the name.
        """
        scales = {}
        for name, table in tables.items():
            try:
                scales[name] = Scale.from_table(table)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from error
        return cls(scales)
