"""Recipes: whole experiments as TOML files, read, checked and run."""

from __future__ import annotations

from xpnet.recipe.errors import RecipeError
from xpnet.recipe.loading import load_recipe, parse_recipe, recipe_names
from xpnet.recipe.recipe import Recipe
from xpnet.recipe.result import Result, Validation

__all__ = [
    "Recipe",
    "RecipeError",
    "Result",
    "Validation",
    "load_recipe",
    "parse_recipe",
    "recipe_names",
]
