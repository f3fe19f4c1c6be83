"""Deprecated names: what this module held has modules of its own."""

from __future__ import annotations

import importlib
import warnings
from typing import Any

_NOW_IN = {
    **dict.fromkeys(("Activation", "Cache", "Initializer", "Layer"), "interfaces"),
    "Augmentation": "augmentation",
    "Batch": "batch",
    "Loss": "losses",
    "Optimizer": "optimizers",
    "Schedule": "schedules",
    "Configurable": "registry",
}


def __getattr__(name: str) -> Any:
    if name not in _NOW_IN:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = f"xpnet.nn.{_NOW_IN[name]}"
    warnings.warn(f"xpnet.nn.base.{name} is in {module} now", DeprecationWarning, stacklevel=2)
    return getattr(importlib.import_module(module), name)
