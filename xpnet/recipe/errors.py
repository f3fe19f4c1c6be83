"""``RecipeError``, and the wording of its messages with the nearest valid name."""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["RecipeError", "missing", "nearest", "shown", "unknown", "wrong"]


class RecipeError(ValueError):
    """A recipe does not exist or says something that cannot be; the message says what."""


def wrong(path: str, expected: str, came: Any, *, near: str | None = None) -> RecipeError:
    """Give the error of a value that is not what was expected."""
    hint = f"; did you mean {near!r}?" if near else ""
    return RecipeError(f"{path} must be {_with_article(expected)}, got {shown(came)}{hint}")


def missing(path: str, expected: str, meaning: str) -> RecipeError:
    """Give the error of a key that must be there."""
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
    """Name the nearest key: in the same table, or by its last word in any, or by its path.

    Or else the one that ``by_choice`` gives for the nearest of the values that keys have; before
    all others the one that has just this value.
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
    hint = f"did you mean {near}?" if near else f"known here: {', '.join(siblings.values())}"
    where = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in path)
    return RecipeError(f"{where} (got {shown(came)}) is not a key of a recipe; {hint}")


def _by_last_word(keys: Iterable[str]) -> dict[str, str]:
    return {key.rpartition(".")[2]: key for key in keys}


def nearest(word: Any, known: Iterable[str]) -> str | None:
    """Find the name that was probably meant."""
    found = difflib.get_close_matches(str(word), list(known), n=1, cutoff=0.7)
    return found[0] if found else None


def shown(value: Any) -> str:
    """Write a value as it came, shortened, in one line."""
    return reprlib.repr(value).replace("\n", "\\n")
