"""Changes one key or option of a recipe by its path, for ``--set``."""

from __future__ import annotations

import re
import tomllib
from typing import Any

from xpnet.recipe.errors import RecipeError

__all__ = ["apply_change", "set_value"]


def apply_change(tables: dict[str, Any], change: str) -> None:
    """Apply one change ``key=value`` in place."""
    path, equals, text = change.partition("=")
    words = path.strip().split(".")
    if not equals or not all(words):
        raise RecipeError(f"a change must read KEY=VALUE, got {change!r}")
    try:
        read = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        read = {}
    value = read["value"] if set(read) == {"value"} else text.strip()
    set_value(tables, ".".join(words), value)


def set_value(tables: dict[str, Any], path: str, value: Any) -> None:
    """Set one key of a recipe's tables, or an option of a component in them.

    Parameters
    ----------
    tables : dict
        Changed in place.
    path : str
        Such as ``network.layers.0.units``; lists are indexed from 0.
    value : object
        Value as TOML gives it.

    Raises
    ------
    RecipeError
        If the tables have no such key.
    """
    words = path.split(".")
    if words[0] == "search":
        words[1:] = _as_named(words[1:], tables.get("search"))
    within: Any = tables
    for depth, word in enumerate(words[:-1], start=1):
        so_far = ".".join(words[:depth])
        slot = _slot(within, word, so_far)
        if isinstance(within, dict):
            within.setdefault(word, {})
        if isinstance(within[slot], str):  # a component given by its name
            within[slot] = {"type": within[slot]}
        within = within[slot]
        if not isinstance(within, (dict, list)):
            raise RecipeError(f"{path} is not a key of a recipe: {so_far} is not a table or a list")
    within[_slot(within, words[-1], path)] = value


def _as_named(words: list[str], search: Any) -> list[str]:
    """Join the words that form one key of a table ``[search]``, as in a saved recipe."""
    for n in range(len(words), 1, -1):
        name = ".".join(words[:n])
        if isinstance(search, dict) and name in search:
            return [name, *words[n:]]
    return words


def _slot(within: dict[str, Any] | list[Any], word: str, path: str) -> Any:
    """Return the key of a table, or the index in a list, that a word names."""
    if isinstance(within, dict):
        return word
    if not re.fullmatch("[0-9]{1,9}", word) or int(word) >= len(within):
        indices = f"the list's indices are 0 to {len(within) - 1}"
        raise RecipeError(
            f"{path} is not a key of a recipe: {indices if within else 'the list is empty'}"
        )
    return int(word)
