"""Narrows a search space to the part that holds a study's best trials."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from xpnet.recipe import Recipe
from xpnet.search.study import SearchError, Study
from xpnet.spaces import Choice, Fixed, Integer, OneMinusLogUniform, Range, Scale, Space

__all__ = ["Narrowing", "refine"]

_FEWEST = 10  # complete trials needed
_SHARE, _LEAST = 0.2, 5  # fraction and minimum number of trials that count as the best
_NEAR = 0.05  # distance from an end of the scale that counts as being at the end


@dataclass(frozen=True)
class Narrowing:
    """The narrowing of one hyper-parameter.

    Attributes
    ----------
    name : str
        Name of the hyper-parameter.
    before : Scale
        Scale in the study.
    after : Scale or None
        Narrowed scale; None if the hyper-parameter no longer exists, because its condition cannot
        hold any more.
    why : str
        Reason for the narrowed scale.
    """

    name: str
    before: Scale
    after: Scale | None
    why: str


def refine(study: Study) -> tuple[Recipe, dict[str, Any], list[Narrowing]]:
    """Narrow a study's space around its best trials.

    A range shrinks to the range of the best fifth of the trials, at least five, on its own scale,
    plus their average distance on either side: this estimates the ends of a range from points that
    are uniform in it. So ranges of unimportant hyper-parameters stay wide. Choices lose the options
    that no best trial has.

    Parameters
    ----------
    study : Study
        Study with at least ten complete trials.

    Returns
    -------
    recipe : Recipe
        The study's recipe with the narrowed table ``[search]``.
    best : dict
        Settings of the study's best trial in the narrowed space.
    narrowings : list of Narrowing
        The narrowing of each hyper-parameter.

    Raises
    ------
    SearchError
        If the study has fewer than ten complete trials.
    """
    ranked = study.ranked()
    if len(ranked) < _FEWEST:
        raise SearchError(
            f"refining needs at least {_FEWEST} complete trials, got {len(ranked)} in the study "
            f"{study.name!r}"
        )
    chosen = [
        study.settings_of(trial) for trial in ranked[: max(_LEAST, round(_SHARE * len(ranked)))]
    ]
    kept: dict[str, Scale] = {}
    narrowings = []
    decided: dict[str, Any] = {}
    for name, scale in study.space.items():
        found = [settings[name] for settings in chosen if name in settings]
        narrowed, why = _narrow(scale, found, len(chosen))
        after = _drop_decided_conditions(narrowed, scale, kept, decided)
        if after is None or not _may_exist(name, after, kept):
            after, why = None, "its condition holds for none of the best trials"
        else:
            kept[name] = after
            if isinstance(after, Fixed):
                decided[name] = found[0] if found else after.constant
        narrowings.append(Narrowing(name, scale, after, why))
    recipe = study.recipe
    values = {**recipe.values, "search": Space(kept).to_tables()}
    refined = Recipe(recipe.name, values).changed({}, search=True)
    best = {name: setting for name, setting in chosen[0].items() if name in kept}
    for name, scale in kept.items():
        if isinstance(scale, Fixed) and name in best:
            best[name] = scale.constant
    return refined, best, narrowings


def _narrow(scale: Scale, found: Sequence[Any], n_best: int) -> tuple[Scale, str]:
    """Return the narrowed scale, and the reason for it."""
    if isinstance(scale, Fixed):
        return scale, "fixed"
    if len(found) < max(3, n_best // 2):
        return scale, f"only {len(found)} of the best {n_best} trials have it"
    if isinstance(scale, Choice):
        return _narrow_choice(scale, found)
    if not isinstance(scale, Range):
        raise SearchError(f"a scale must be a range, a choice or fixed, got {scale!r}")
    positions = sorted(scale.position(setting) for setting in found)
    low, high = positions[0], positions[-1]
    margin = max((high - low) / (len(found) - 1), _NEAR / 2)
    start, end = max(low - margin, 0.0), min(high + margin, 1.0)
    after = _between(scale, start, end)
    ends = f"{_format_position(scale, low)} to {_format_position(scale, high)}"
    why = f"the best {len(found)} trials are in {ends}"
    if isinstance(after, Range) and (after.low, after.high) == (scale.low, scale.high):
        why += "; the range is unchanged"
    best = scale.position(found[0])
    if min(best, 1 - best) < _NEAR or found[0] in scale.extremes():
        side = "lower" if best < 0.5 else "upper"
        why += f"; the best is at the {side} end: try a wider range"
    return after, why


def _narrow_choice(scale: Choice, found: Sequence[Any]) -> tuple[Scale, str]:
    counts = {setting: found.count(setting) for setting in scale.settings}
    left = [setting for setting in scale.settings if counts[setting]]
    why = ", ".join(f"{count} of the best are {setting}" for setting, count in counts.items())
    if len(left) == 1:
        return Fixed(scale.value(left[0]), condition=scale.condition), why
    options = (
        {setting: scale.value(setting) for setting in left}
        if isinstance(scale.options, dict)
        else left
    )
    return replace(scale, options=options), why


def _between(scale: Range, start: float, end: float) -> Scale:
    """Return the part of a range between two positions, with its ends rounded to few digits."""
    low, high = scale.at(start), scale.at(end)
    if not scale.whole:
        low, high = _few_digits(scale, low, math.floor), _few_digits(scale, high, math.ceil)
        low, high = max(low, scale.low), min(high, scale.high)
    if low == high:
        return Fixed(low, condition=scale.condition)
    return replace(scale, low=low, high=high)


def _few_digits(scale: Range, value: float, towards: Any) -> float:
    """Round up or down to two digits, of 1 - x on a scale of 1 - x."""
    if isinstance(scale, OneMinusLogUniform):
        other = math.floor if towards is math.ceil else math.ceil
        return 1 - _two_digits(1 - value, other)
    return _two_digits(value, towards)


def _two_digits(value: float, towards: Any) -> float:
    if value == 0:
        return 0.0
    decimals = 1 - math.floor(math.log10(abs(value)))
    return float(f"{towards(value * 10.0**decimals)}e{-decimals}")


def _format_position(scale: Range, position: float) -> str:
    return f"{scale.at(position):.3g}"


def _drop_decided_conditions(
    after: Scale, before: Scale, kept: dict[str, Scale], decided: dict[str, Any]
) -> Scale | None:
    """Drop conditions that always hold; return None if one can no longer hold."""
    condition: dict[str, tuple[Any, ...]] = {}
    for other, wanted in before.condition.items():
        if other not in kept:
            return None
        if other in decided:
            if decided[other] not in wanted:
                return None
            for higher, values in kept[other].condition.items():  # it may be conditional itself
                condition[higher] = tuple(v for v in condition.get(higher, values) if v in values)
            continue
        above = kept[other]
        still = tuple(value for value in wanted if above.contains(value))
        if not still:
            return None
        everything = isinstance(above, (Choice, Integer)) and len(still) == _n_settings(above)
        if not everything or above.condition:
            condition[other] = tuple(v for v in condition.get(other, still) if v in still)
    return replace(after, condition=condition)


def _may_exist(name: str, scale: Scale, kept: dict[str, Scale]) -> bool:
    """Return whether a hyper-parameter's conditions can still hold in the narrowed space."""
    try:
        Space({**kept, name: scale})
    except ValueError:
        return False
    return True


def _n_settings(scale: Choice | Integer) -> int:
    return len(scale.settings) if isinstance(scale, Choice) else scale.high - scale.low + 1
