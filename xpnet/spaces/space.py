"""Spaces: hyper-parameters by name, the conditions on which they exist, points and grids."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from xpnet.spaces.scales import Choice, Fixed, Integer, Scale

__all__ = ["Space"]


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
        return self._combinations({name: scale.grid() for name, scale in self._scales.items()})

    def _combinations(self, settings: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
        """Combine settings of hyper-parameters, each of them only where it exists."""
        points: list[dict[str, Any]] = [{}]
        for name, listed in settings.items():
            points = [
                {**point, name: setting} if is_there else point
                for point in points
                for is_there in (self.exists(name, point),)
                for setting in (listed if is_there else (None,))
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
        return self._combinations(
            {
                key: needed.get(key) or scale.extremes()
                for key, scale in self._scales.items()
                if key in needed or key in besides
            }
        )

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
