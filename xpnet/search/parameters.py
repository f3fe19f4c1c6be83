"""Converts hyper-parameters to and from the parameters of an Optuna study.

Optuna has uniform and log-uniform numbers, integers and choices. A hyper-parameter on a scale of
1 - x is stored as the log-uniform number ``1 - NAME``, so that Optuna's own tools plot it on its
scale. A choice with names is stored by name.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import Trial

from xpnet.spaces import (
    PLAIN,
    Choice,
    Fixed,
    Integer,
    LogInteger,
    LogUniform,
    OneMinusLogUniform,
    Scale,
    Space,
    Uniform,
)

__all__ = [
    "Parameter",
    "format_setting",
    "parameters",
    "settings_of",
    "short_names",
    "suggest",
]


class Parameter:
    """A hyper-parameter as an Optuna study stores it.

    Parameters
    ----------
    name : str
    scale : Scale

    Attributes
    ----------
    label : str
        Name in the study.
    distribution : BaseDistribution
    """

    def __init__(self, name: str, scale: Scale) -> None:
        self.name = name
        self.scale = scale
        self.label = f"1 - {name}" if isinstance(scale, OneMinusLogUniform) else name
        self.distribution = _distribution(scale)

    def to_optuna(self, setting: Any) -> Any:
        """Return the study's value for a setting."""
        if isinstance(self.scale, OneMinusLogUniform):
            low, high = 1 - self.scale.high, 1 - self.scale.low
            return min(max(1 - setting, low), high)
        if isinstance(self.scale, Fixed):
            return self.distribution.choices[0]  # type: ignore[attr-defined]
        return setting

    def from_optuna(self, said: Any) -> Any:
        """Return the setting for a value of the study."""
        if isinstance(self.scale, OneMinusLogUniform):
            return min(max(1 - said, self.scale.low), self.scale.high)
        return self.scale.constant if isinstance(self.scale, Fixed) else said

    def suggest(self, trial: Trial) -> Any:
        """Return the setting that the study's sampler suggests."""
        d: Any = self.distribution
        if isinstance(d, FloatDistribution):
            return self.from_optuna(trial.suggest_float(self.label, d.low, d.high, log=d.log))
        if isinstance(d, IntDistribution):
            return self.from_optuna(trial.suggest_int(self.label, d.low, d.high, log=d.log))
        return self.from_optuna(trial.suggest_categorical(self.label, d.choices))


def _distribution(scale: Scale) -> BaseDistribution:
    if isinstance(scale, (Uniform, LogUniform)):
        return FloatDistribution(scale.low, scale.high, log=isinstance(scale, LogUniform))
    if isinstance(scale, OneMinusLogUniform):
        return FloatDistribution(1 - scale.high, 1 - scale.low, log=True)
    if isinstance(scale, (Integer, LogInteger)):
        return IntDistribution(scale.low, scale.high, log=isinstance(scale, LogInteger))
    if isinstance(scale, Fixed):
        value = scale.constant
        return CategoricalDistribution(
            (value if isinstance(value, PLAIN) else json.dumps(value, sort_keys=True),)
        )
    if isinstance(scale, Choice):
        return CategoricalDistribution(scale.settings)
    raise ValueError(f"scale must be a class of xpnet.spaces, got {scale!r}")


def parameters(space: Space) -> dict[str, Parameter]:
    """Return the parameters of a space, by the names of the hyper-parameters."""
    return {name: Parameter(name, scale) for name, scale in space.items()}


def suggest(space: Space, trial: Trial) -> dict[str, Any]:
    """Suggest a point of a space by a trial's sampler.

    Parameters
    ----------
    space : Space
        Space to search.
    trial : optuna.Trial
        Trial; parameters that it already has are kept.

    Returns
    -------
    dict
        Settings; for their values see :meth:`Space.resolve`.
    """
    settings: dict[str, Any] = {}
    for name, parameter in parameters(space).items():
        if space.exists(name, settings):
            settings[name] = parameter.suggest(trial)
    return settings


def settings_of(space: Space, params: Mapping[str, Any]) -> dict[str, Any]:
    """Convert the parameters of an Optuna trial to settings."""
    return {
        name: parameter.from_optuna(params[parameter.label])
        for name, parameter in parameters(space).items()
        if parameter.label in params
    }


def short_names(names: Sequence[str]) -> dict[str, str]:
    """Shorten dotted names from the left, as far as they stay distinct."""
    short = {}
    for name in names:
        words = name.split(".")
        for n in range(1, len(words) + 1):
            tail = ".".join(words[-n:])
            alike = [o for o in names if o == tail or o.endswith(f".{tail}")]
            if not words[-n].isdigit() and len(alike) == 1:
                break
        short[name] = tail
    return short


def format_setting(setting: Any) -> str:
    """Format a setting in few characters, a string without quotes."""
    if isinstance(setting, float):  # near 1, the distance from 1 matters
        digits = 3 - math.floor(math.log10(1 - setting)) if 0.9 < setting < 1 else 4
        return f"{setting:.{digits}g}"
    return setting if isinstance(setting, str) else json.dumps(setting)
