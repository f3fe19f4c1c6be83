"""The reference page of all keys."""

from __future__ import annotations

import re
import tomllib

import pytest

from tests.conftest import ROOT
from tests.recipe.examples import GOOD
from tests.registered import KINDS, own
from xpnet.recipe import parse_recipe
from xpnet.recipe.keys import KEYS
from xpnet.recipe.page import reference_page
from xpnet.recipe.schema import resolve
from xpnet.recipe.signatures import options

pytestmark = pytest.mark.host


def test_the_reference_page_is_up_to_date_and_complete():
    page = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
    assert page == reference_page(), "run `make docs`"
    rows = [line.split(" | ") for line in page.splitlines() if line.startswith("| `")]
    listed = {row[0].strip("| `"): row for row in rows}
    for key in KEYS:
        assert all(cell.strip() for cell in listed[key.path]), key.path
        assert key.meaning in listed[key.path][4]
    for kind in KINDS:
        for component in own(kind):
            assert f"| `{component.name}` |" in page
            for option in options(component):
                assert f"| | `{option.name}` | " in page


def test_examples_on_the_reference_page_work():
    page = reference_page()
    assert "--set network.layers.0.units=32" in page
    recipe = parse_recipe("good", GOOD, changes=["network.layers.0.units=32"])
    assert recipe.values["network"]["layers"][0]["units"] == 32
    (example,) = re.findall(r"`\{ type = .* \}`", page)
    adam = tomllib.loads(f"optimizer = {example.strip('`')}")
    assert resolve({**tomllib.loads(GOOD), **adam})["optimizer"]["learning_rate"] == 0.01
