"""The training loop and what it leaves behind."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from xpnet.training.history import History, Report
from xpnet.training.loop import DivergenceError, evaluate, fit

if TYPE_CHECKING:
    from xpnet.training.checkpoint import load_network, save_network

__all__ = [
    "DivergenceError",
    "History",
    "Report",
    "evaluate",
    "fit",
    "load_network",
    "save_network",
]


def __getattr__(name: str) -> Any:
    if name in ("load_network", "save_network"):  # needs safetensors, which training does not
        from xpnet.training import checkpoint

        return getattr(checkpoint, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
