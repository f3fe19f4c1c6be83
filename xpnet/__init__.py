"""Neural-network classifiers and regressors from first principles, on NumPy or CuPy.

Importing xpnet imports NumPy and nothing heavier. Other packages are imported when they are used.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

# In a checkout, xpnet/kernels is a link to kernels/. Where git makes no links, as often on Windows,
# xpnet.kernels is found beside this folder.
if not (Path(__path__[0]) / "kernels").is_dir():
    __path__.append(str(Path(__path__[0]).parent))

from xpnet.device import Device, DeviceUnavailableError, device
from xpnet.version import __version__

if TYPE_CHECKING:
    from xpnet import data, nn, search, training
    from xpnet.environment import show_config
    from xpnet.estimators import LogisticRegression, MLPClassifier, MLPRegressor
    from xpnet.nn.diagnosis import diagnose
    from xpnet.nn.gradient_check import gradient_check
    from xpnet.recipe import load_recipe
    from xpnet.training.model import load_model

__all__ = [
    "Device",
    "DeviceUnavailableError",
    "LogisticRegression",
    "MLPClassifier",
    "MLPRegressor",
    "__version__",
    "data",
    "device",
    "diagnose",
    "gradient_check",
    "load_model",
    "load_recipe",
    "nn",
    "search",
    "show_config",
    "training",
]

_FROM = {
    **dict.fromkeys(("LogisticRegression", "MLPClassifier", "MLPRegressor"), "xpnet.estimators"),
    "diagnose": "xpnet.nn.diagnosis",
    "gradient_check": "xpnet.nn.gradient_check",
    "load_model": "xpnet.training.model",
    "load_recipe": "xpnet.recipe",
    "show_config": "xpnet.environment",
}


def __getattr__(name: str) -> Any:
    if name in ("data", "nn", "search", "training"):
        return importlib.import_module(f"xpnet.{name}")
    if name in _FROM:
        return getattr(importlib.import_module(_FROM[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
