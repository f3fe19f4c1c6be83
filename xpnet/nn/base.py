"""Deprecated: the classes of this module have moved to other modules of ``xpnet.nn``."""

from __future__ import annotations

import importlib
import warnings
from typing import Any

_MOVED_TO = {
    **dict.fromkeys(("Activation", "Cache", "Initializer", "Layer"), "interfaces"),
    "Augmentation": "augmentation",
    "Batch": "batch",
    "Loss": "losses",
    "Optimizer": "optimizers",
    "Schedule": "schedules",
    "Configurable": "registry",
}


def __getattr__(name: str) -> Any:
    if name not in _MOVED_TO:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = f"xpnet.nn.{_MOVED_TO[name]}"
    message = f"xpnet.nn.base.{name} has moved: import it from {module}"
    warnings.warn(message, DeprecationWarning, stacklevel=2)
    return getattr(importlib.import_module(module), name)
