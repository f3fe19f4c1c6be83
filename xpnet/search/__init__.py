"""Hyper-parameter search: spaces, studies, and the processes that run trials."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from xpnet.spaces import (
    Choice,
    Fixed,
    Integer,
    LogInteger,
    LogUniform,
    OneMinusLogUniform,
    Space,
    Uniform,
)

if TYPE_CHECKING:
    from xpnet.search.distributions import scipy_distributions
    from xpnet.search.parameters import suggest
    from xpnet.search.running import replay, run_trials
    from xpnet.search.study import SearchError, open_storage, open_study

__all__ = [
    "Choice",
    "Fixed",
    "Integer",
    "LogInteger",
    "LogUniform",
    "OneMinusLogUniform",
    "SearchError",
    "Space",
    "Uniform",
    "open_storage",
    "open_study",
    "replay",
    "run_trials",
    "scipy_distributions",
    "suggest",
]

_FROM = {  # all but the first need Optuna
    "scipy_distributions": "distributions",
    "suggest": "parameters",
    **dict.fromkeys(("replay", "run_trials"), "running"),
    **dict.fromkeys(("SearchError", "open_storage", "open_study"), "study"),
}


def __getattr__(name: str) -> Any:
    if name in _FROM:
        try:
            return getattr(importlib.import_module(f"xpnet.search.{_FROM[name]}"), name)
        except ModuleNotFoundError as error:
            if error.name != "optuna":
                raise
            raise ImportError(
                f"xpnet.search.{name} needs optuna, which is not installed: pip install optuna"
            ) from error
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
