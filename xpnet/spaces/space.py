"""Search spaces: named hyper-parameters, their conditions, points and grids."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from xpnet.spaces.scales import Choice, Fixed, Integer, Scale, unknown_name

__all__ = ["Space"]


class Space(Mapping[str, Scale]):
    """A search space: hyper-parameters by name, each with its scale.

    A point of the space is a dictionary of settings, in the order of the space, without the
    hyper-parameters that do not exist at this point. :meth:`resolve` returns the values of the
    settings.

    Parameters
    ----------
    scales : mapping of str to Scale
        Scales by the names of the hyper-parameters. A conditional hyper-parameter comes after
        those that its condition names.

    Raises
    ------
    ValueError
        If there are no scales; if a condition names a hyper-parameter that does not come before
        it, is not a choice, fixed or an integer, or never has a required value; or if conditions
        exclude each other.
    """

    def __init__(self, scales: Mapping[str, Scale]) -> None:
        if not isinstance(scales, Mapping) or not scales:
            raise ValueError(f"a space must have at least one hyper-parameter, got {scales!r:.200}")
        self._scales: dict[str, Scale] = {}
        for name, scale in scales.items():
            if not isinstance(scale, Scale):
                raise ValueError(
                    f"{name} must be a scale, such as LogUniform(1e-4, 0.1), got {scale!r:.200}"
                )
            self._check_condition(name, scale)
            self._scales[str(name)] = scale
            for other, values in self._needed(str(name)).items():
                if not values:
                    raise ValueError(
                        f"{name} never exists: its conditions leave no value of {other}"
                    )

    def _check_condition(self, name: str, scale: Scale) -> None:
        for other, wanted in scale.condition.items():
            if other not in self._scales:
                raise ValueError(
                    f"{name}: when must name a hyper-parameter before it "
                    f"({', '.join(self._scales) or 'there is none'}), got {other!r}"
                )
            above = self._scales[other]
            if not isinstance(above, (Choice, Fixed, Integer)):
                raise ValueError(
                    f"{name}: when must name a choice, fixed or integer hyper-parameter, got "
                    f"{other!r}, which is {above.word}"
                )
            for value in wanted:
                if not above.contains(value):
                    raise ValueError(
                        f"{name}: when requires {other} to be {value!r}, which is not one of its "
                        "values"
                    )

    def __getitem__(self, name: str) -> Scale:
        return self._scales[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._scales)

    def __len__(self) -> int:
        return len(self._scales)

    def __repr__(self) -> str:
        return f"Space({self._scales!r})"

    def exists(self, name: str, settings: Mapping[str, Any]) -> bool:
        """Return whether a hyper-parameter exists, given the settings before it."""
        return all(
            other in settings and settings[other] in wanted
            for other, wanted in self._scales[name].condition.items()
        )

    def at(self, u: Sequence[float]) -> dict[str, Any]:
        """Return the point at the positions ``u``, one in [0, 1] for each scale in order."""
        settings: dict[str, Any] = {}
        for (name, scale), fraction in zip(self._scales.items(), u, strict=True):
            if self.exists(name, settings):
                settings[name] = scale.at(fraction)
        return settings

    def grid(self) -> list[dict[str, Any]]:
        """Return all points that combine the scales' grids, each once."""
        return self._combinations({name: scale.grid() for name, scale in self._scales.items()})

    def _combinations(self, settings: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
        """Return all combinations of settings, without hyper-parameters that do not exist."""
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
        """Return the values of settings."""
        return {name: self._scales[name].value(setting) for name, setting in settings.items()}

    def contains(self, settings: Mapping[str, Any]) -> bool:
        """Return whether the settings are a point: all that exist at it, and no others."""
        wanted = [name for name in self._scales if self.exists(name, settings)]
        return list(settings) == wanted and all(
            self._scales[name].contains(setting) for name, setting in settings.items()
        )

    def _needed(self, name: str) -> dict[str, list[Any]]:
        """Return the values that other hyper-parameters must have for this one to exist."""
        needed: dict[str, list[Any]] = {}
        for below in reversed(self._scales):  # each comes after those that its condition names
            if below == name or below in needed:
                for other, wanted in self._scales[below].condition.items():
                    needed[other] = [v for v in needed.get(other, wanted) if v in wanted]
        return needed

    def settings_before(self, name: str) -> dict[str, Any]:
        """Return the smallest set of settings for which a hyper-parameter exists."""
        return self.all_before(name)[0]

    def all_before(self, name: str, others: Sequence[str] = ()) -> list[dict[str, Any]]:
        """Return all combinations of settings for which a hyper-parameter exists.

        Parameters
        ----------
        name : str
            The hyper-parameter.
        others : sequence of str
            Further hyper-parameters before it whose extremes are to be combined as well.

        Returns
        -------
        list of dict
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
        """Return the space with other names, such as those of parameters in a pipeline.

        Parameters
        ----------
        names : mapping
            New names by old names. Other hyper-parameters keep their names.

        Returns
        -------
        Space

        Raises
        ------
        ValueError
            If an old name is unknown, or two hyper-parameters would have the same name.
        """
        unknown = [name for name in names if name not in self._scales]
        if unknown:
            raise ValueError(unknown_name("hyper-parameter", unknown[0], self))
        new = {name: names.get(name, name) for name in self._scales}
        if len(set(new.values())) < len(new):
            raise ValueError(f"names must be distinct, got {', '.join(new.values())}")
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
        """Return the table ``[search]`` of a recipe, which :meth:`from_tables` reads."""
        return {name: scale.to_table() for name, scale in self._scales.items()}

    @classmethod
    def from_tables(cls, tables: Mapping[str, Mapping[str, Any]]) -> Space:
        """Read the table ``[search]`` of a recipe.

        Parameters
        ----------
        tables : mapping of str to mapping
            Tables of scales, by the names of the hyper-parameters; see :meth:`Scale.from_table`.

        Returns
        -------
        Space

        Raises
        ------
        ValueError
            If a table or the space is invalid; the message begins with the hyper-parameter's name.
        """
        scales = {}
        for name, table in tables.items():
            try:
                scales[name] = Scale.from_table(table)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from error
        return cls(scales)
