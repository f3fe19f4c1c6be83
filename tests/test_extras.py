"""Every extra has a check that runs with it alone, and a row on the page about installing."""

from __future__ import annotations

import re
import tomllib

import pytest

from tests import extras
from tests.conftest import ROOT

pytestmark = pytest.mark.host


def declared():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return set(project["optional-dependencies"])


def test_every_extra_has_a_check():
    assert extras.CHECKS.keys() | extras.FOR_DEVELOPERS == {"", *declared()}


def test_every_extra_is_on_the_page():
    page = (ROOT / "docs" / "install.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (?:`(\w+)`|none) \|", page.partition("## Extras")[2], re.MULTILINE)
    assert extras.CHECKS.keys() <= set(rows)
    assert all(f"`{extra}`" in page for extra in extras.FOR_DEVELOPERS)
