"""Converts hyper-parameters to and from the parameters of an Optuna study.

Optuna knows uniform and log-uniform numbers, integers and choices. A scale of 1 - x is a
log-uniform number under the name ``1 - NAME``, so that whatever opens the study draws it on its
scale; a named choice is its name.
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
    """A hyper-parameter as a study of Optuna's has it.

    Parameters
    ----------
    name : str
    scale : Scale

    Attributes
    ----------
    label : str
        Its name in the study.
    distribution : BaseDistribution
    """

    def __init__(self, name: str, scale: Scale) -> None:
        self.name = name
        self.scale = scale
        self.label = f"1 - {name}" if isinstance(scale, OneMinusLogUniform) else name
        self.distribution = _distribution(scale)

    def to_optuna(self, setting: Any) -> Any:
        """Give what the study says for a setting."""
        if isinstance(self.scale, OneMinusLogUniform):
            low, high = 1 - self.scale.high, 1 - self.scale.low
            return min(max(1 - setting, low), high)
        if isinstance(self.scale, Fixed):
            return self.distribution.choices[0]  # type: ignore[attr-defined]
        return setting

    def from_optuna(self, said: Any) -> Any:
        """Give the setting for what the study says."""
        if isinstance(self.scale, OneMinusLogUniform):
            return min(max(1 - said, self.scale.low), self.scale.high)
        return self.scale.constant if isinstance(self.scale, Fixed) else said

    def suggest(self, trial: Trial) -> Any:
        """Have the study's sampler choose, and give the setting."""
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
    raise ValueError(f"a scale must be one of xpnet.spaces, got {scale!r}")


def parameters(space: Space) -> dict[str, Parameter]:
    """Give the parameters of a space, by the hyper-parameters' own names."""
    return {name: Parameter(name, scale) for name, scale in space.items()}


def suggest(space: Space, trial: Trial) -> dict[str, Any]:
    """Have a trial's sampler choose a point of a space.

    Parameters
    ----------
    space : Space
    trial : optuna.Trial
        What it has been given before stays.

    Returns
    -------
    dict
        Settings; see :meth:`Space.resolve`.
    """
    settings: dict[str, Any] = {}
    for name, parameter in parameters(space).items():
        if space.exists(name, settings):
            settings[name] = parameter.suggest(trial)
    return settings


def settings_of(space: Space, params: Mapping[str, Any]) -> dict[str, Any]:
    """Give the settings that a trial's parameters, as Optuna has them, stand for."""
    return {
        name: parameter.from_optuna(params[parameter.label])
        for name, parameter in parameters(space).items()
        if parameter.label in params
    }


def short_names(names: Sequence[str]) -> dict[str, str]:
    """Leave out of paths what does not tell them apart, from the left."""
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
    """Write a setting in few characters, a string without its quotes."""
    if isinstance(setting, float):  # near 1 it is the distance from it that is read
        digits = 3 - math.floor(math.log10(1 - setting)) if 0.9 < setting < 1 else 4
        return f"{setting:.{digits}g}"
    return setting if isinstance(setting, str) else json.dumps(setting)
