"""Reading recipes: those that come with xpnet, and those of users."""

from __future__ import annotations

import pytest

from xpnet.recipe import RecipeError, load_recipe, recipe_names


def test_what_is_shipped():
    kinds = ("deep", "logistic", "shallow")
    assert recipe_names() == [
        *(f"cats-{kind}" for kind in kinds),
        "diabetes-shallow",
        *(f"digits-{kind}" for kind in kinds),
        "fashion-mnist",
        "fashion-mnist-best",
    ]
    all_widths = {}
    for name in recipe_names():
        recipe = load_recipe(name)
        assert recipe.name == name
        assert recipe.values["description"]
        layers = recipe.values["network"]["layers"]
        widths = [layer["units"] for layer in layers if "units" in layer]
        kind = name.rpartition("-")[2]
        n_layers = {"logistic": 1, "shallow": 2}.get(kind)
        assert len(widths) == n_layers if n_layers else len(widths) >= 3
        all_widths[name] = widths
    assert all_widths["fashion-mnist"] == [256, 128, 10]
    assert all_widths["fashion-mnist-best"] == [1024, 1024, 10]
    recipe = load_recipe("fashion-mnist")
    assert recipe.values["optimizer"]["type"] == "adam"
    assert recipe.values["training"]["epochs"] <= 20


def test_changes_are_no_string():
    with pytest.raises(TypeError, match="changes must be a sequence of strings, got the string"):
        load_recipe("digits-deep", changes="seed=1")


def test_recipes_that_cannot_be_read(tmp_path):
    with pytest.raises(
        RecipeError, match="unknown recipe 'dogs'; valid recipes: cats-deep, cats-log"
    ):
        load_recipe("dogs")
    with pytest.raises(RecipeError, match=r"cannot read the recipe .*none\.toml: No such file"):
        load_recipe(tmp_path / "none.toml")
    (tmp_path / "latin.toml").write_bytes(b"description = '\xe9'")
    with pytest.raises(RecipeError, match=r"cannot read the recipe .*latin\.toml: 'utf-8' codec"):
        load_recipe(tmp_path / "latin.toml")
    (tmp_path / "folder.toml").mkdir()
    with pytest.raises(RecipeError, match="cannot read the recipe"):
        load_recipe(tmp_path / "folder.toml")
    (tmp_path / "wrong.toml").write_text("a = ")
    with pytest.raises(RecipeError, match=r"wrong\.toml is not TOML: Invalid value"):
        load_recipe(tmp_path / "wrong.toml")
