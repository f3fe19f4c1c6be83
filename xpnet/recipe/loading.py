"""Reads a recipe: a shipped one, a file, or text."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from xpnet.recipe.changes import apply_change
from xpnet.recipe.errors import RecipeError, nearest
from xpnet.recipe.recipe import Recipe
from xpnet.recipe.schema import resolve

__all__ = ["load_recipe", "parse_recipe", "recipe_names"]


def recipe_names() -> list[str]:
    """Return the names of the recipes that come with xpnet."""
    folder = resources.files("xpnet") / "recipes"
    return sorted(
        entry.name.removesuffix(".toml")
        for entry in folder.iterdir()
        if entry.name.endswith(".toml")
    )


def load_recipe(name: str | os.PathLike[str], *, changes: Sequence[str] = ()) -> Recipe:
    """Read a recipe that comes with xpnet, or one of your own.

    Parameters
    ----------
    name : str or path
        One of :func:`recipe_names`, or a path that ends in ``.toml``.
    changes : sequence of str
        Changes such as ``"training.epochs=5"``, applied in this order. A value is read as TOML, or
        as a string if it is not valid TOML.

    Returns
    -------
    Recipe

    Raises
    ------
    RecipeError
        If there is no recipe of that name, it cannot be read, or it is invalid.
    TypeError
        If ``changes`` is a string.
    """
    if isinstance(changes, str):
        raise TypeError(f"changes must be a sequence of strings, got the string {changes!r}")
    name = os.fspath(name)
    if name.lower().endswith(".toml"):
        try:
            text = Path(name).read_text(encoding="utf-8-sig")
        except (OSError, ValueError) as error:  # ValueError: not UTF-8, or a null in the name
            reason = error.strerror if isinstance(error, OSError) else error
            raise RecipeError(f"cannot read the recipe {name}: {reason}") from error
        return parse_recipe(Path(name).stem, text, changes=changes, source=name)
    if name not in recipe_names():
        near = nearest(name, tuple(recipe_names()))
        valid = f"did you mean {near!r}? Valid" if near else "valid"
        raise RecipeError(
            f"unknown recipe {name!r}; {valid} recipes: {', '.join(recipe_names())}, or a file "
            "ending in .toml"
        )
    text = (resources.files("xpnet") / "recipes" / f"{name}.toml").read_text(encoding="utf-8")
    return parse_recipe(name, text, changes=changes)


def parse_recipe(
    name: str, text: str, *, changes: Sequence[str] = (), source: str | None = None
) -> Recipe:
    """Make a recipe from TOML text; see :func:`load_recipe`."""
    try:
        tables = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise RecipeError(f"{source or name} is not TOML: {error}") from error
    try:
        for change in changes:
            apply_change(tables, change)
        return Recipe(name, resolve(tables))
    except RecipeError as error:
        raise RecipeError(f"{source or name}: {error}") from error
