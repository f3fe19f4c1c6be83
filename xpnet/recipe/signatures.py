"""Reads the options of components from their constructors and docstrings."""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass
from typing import Any

from xpnet.nn.registry import Configurable

__all__ = ["REQUIRED", "Option", "options", "plain"]

REQUIRED = object()  # the default of a required key or option


@dataclass(frozen=True)
class Option:
    """One argument of a component's constructor, as its docstring describes it."""

    name: str
    type: str
    default: Any
    meaning: str

    @property
    def is_required(self) -> bool:
        """Whether the option has no default."""
        return self.default is REQUIRED


_options: dict[Any, tuple[Option, ...]] = {}  # cached: a search checks many recipes


def options(component: type[Configurable]) -> tuple[Option, ...]:
    """Return the options of a layer, loss, optimizer, ..., from its signature and docstring."""
    if component not in _options:
        _options[component] = _read_options(component)
    return _options[component]


def _read_options(component: type[Configurable]) -> tuple[Option, ...]:
    described = _described(inspect.getdoc(component) or "")
    return tuple(
        Option(
            name,
            described.get(name, ("", ""))[0],
            REQUIRED if parameter.default is parameter.empty else parameter.default,
            described.get(name, ("", ""))[1],
        )
        for name, parameter in inspect.signature(component).parameters.items()
        if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    )


def _described(docstring: str) -> dict[str, tuple[str, str]]:
    """Read type and meaning of each parameter from a numpydoc section ``Parameters``."""
    found: dict[str, tuple[str, str]] = {}
    section = re.search(
        r"^Parameters\n-+\n(.*?)(?=^\S[^\n]*\n-+$|\Z)", docstring, re.MULTILINE | re.DOTALL
    )
    for entry in re.split(r"^(?=\S)", section[1] if section else "", flags=re.MULTILINE):
        head, _, body = entry.partition("\n")
        names, _, type_ = head.partition(" : ")
        for name in filter(None, names.split(", ")):
            found[name] = (type_, plain(" ".join(body.split())))
    return found


def plain(text: str) -> str:
    """Replace reStructuredText's roles and literals by text in single backquotes."""
    return re.sub(r":\w+:`~?[\w.]*?(\w+)`", r"`\1`", text).replace("``", "`")
