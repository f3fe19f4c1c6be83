"""``RecipeError``, and the wording of its messages with the nearest valid name."""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["RecipeError", "missing", "nearest", "shown", "unknown", "wrong"]


class RecipeError(ValueError):
    """A recipe does not exist or is invalid; the message says why."""


def wrong(path: str, expected: str, came: Any, *, near: str | None = None) -> RecipeError:
    """Return the error for a value that is not what was expected."""
    hint = f"; did you mean {near!r}?" if near else ""
    return RecipeError(f"{path} must be {_with_article(expected)}, got {shown(came)}{hint}")


def missing(path: str, expected: str, meaning: str) -> RecipeError:
    """Return the error for a required key that is missing."""
    return RecipeError(f"{path} is missing: it must be {_with_article(expected)}. {meaning}")


def _with_article(noun: str) -> str:
    """Write ``"full" or integer >= 1`` as ``"full" or an integer >= 1``."""
    before, word, after = noun.rpartition('" or ')
    article = {
        **dict.fromkeys(("finite", "list", "loss", "number", "schedule", "string"), "a "),
        **dict.fromkeys(("initializer", "integer", "optimizer"), "an "),
        "name": "the ",
    }
    return f"{before}{word}{article.get(after.partition(' ')[0], '')}{after}"


def unknown(
    path: str, came: Any, known: tuple[str, ...], by_choice: Mapping[str, str] | None = None
) -> RecipeError:
    """Return the error for an unknown key, with the nearest key or the valid ones.

    A key that has ``path``'s last word as one of its values, as ``by_choice`` tells, comes first.
    Then the nearest key in the same table, the nearest by the last word in any table, the nearest
    by the whole path, and the key whose values contain the nearest word.
    """
    table, _, word = path.rpartition(".")
    siblings = _by_last_word(key for key in known if key.rpartition(".")[0] == table)
    anywhere = _by_last_word(known)
    near = (
        (by_choice or {}).get(word)
        or siblings.get(nearest(word, siblings) or "")
        or anywhere.get(nearest(word, anywhere) or "")
    )
    if near is None and not siblings:
        near = nearest(path, known)
    if near is None and by_choice is not None:
        near = by_choice.get(nearest(word, by_choice) or "")
    hint = f"did you mean {near}?" if near else f"valid keys: {', '.join(siblings.values())}"
    where = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in path)
    return RecipeError(f"{where} (got {shown(came)}) is not a key of a recipe; {hint}")


def _by_last_word(keys: Iterable[str]) -> dict[str, str]:
    return {key.rpartition(".")[2]: key for key in keys}


def nearest(word: Any, known: Iterable[str]) -> str | None:
    """Return the name that was probably meant: the only one that continues it, or a similar one."""
    text, names = str(word), list(known)
    found = [name for name in names if name.startswith(text)] if len(text) > 2 else []
    if len(found) != 1:
        found = difflib.get_close_matches(text, names, n=1, cutoff=0.7)
    return found[0] if found else None


def shown(value: Any) -> str:
    """Return the ``repr`` of a value, shortened, in one line."""
    return reprlib.repr(value).replace("\n", "\\n")
