"""What is registered: one of each of xpnet's own, for tests that must cover all of a kind."""

from __future__ import annotations

from typing import Any

from xpnet import nn
from xpnet.nn.registry import is_own

__all__ = ["optimizers"]


def optimizers(**options: Any) -> list[nn.Optimizer]:
    """Make one of each optimizer, with its default settings but for those that are given."""
    return [made(**options) for made in nn.Optimizer.known().values() if is_own(made)]
