"""Neural-network classifiers and regressors from first principles, on NumPy or CuPy.

Importing xpnet imports NumPy and nothing heavier. Other packages are imported when they are used.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

# In a checkout, xpnet/kernels is a link to kernels/. Where git makes no links, as often on Windows,
# the package is loaded from there.
if (
    not Path(__file__).with_name("kernels").is_dir()
    and (_path := Path(__file__).parents[1] / "kernels" / "__init__.py").is_file()
    and (_spec := importlib.util.spec_from_file_location("xpnet.kernels", _path)) is not None
    and _spec.loader is not None
):
    sys.modules["xpnet.kernels"] = kernels = importlib.util.module_from_spec(_spec)
    try:
        _spec.loader.exec_module(kernels)
    except BaseException:  # a second import says the same
        del sys.modules["xpnet.kernels"]
        raise

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
