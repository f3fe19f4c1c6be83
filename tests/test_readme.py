"""What README and CHANGELOG say of the project is true; their code is run in test_docs.py."""

from __future__ import annotations

import json
import re
import runpy

import pytest

import xpnet
from tests.conftest import ROOT, require_file

pytestmark = pytest.mark.host

README = (ROOT / "README.md").read_text(encoding="utf-8")
LINK = re.compile(r"\]\(([\w./-]+\.\w+)(?:#[\w-]+)?\)")  # W[l](i) in formulas is none
PAGES = {page: page.read_text(encoding="utf-8") for page in (ROOT / "docs").glob("*.md")}


@pytest.mark.parametrize("target", LINK.findall(README))
def test_links_lead_somewhere(target):
    assert (ROOT / target).exists()


def test_every_page_is_linked():
    assert len(PAGES) >= 3
    for page, text in PAGES.items():
        assert f"](docs/{page.name})" in README
        for target in LINK.findall(text):
            assert (page.parent / target).exists()


def test_the_recipe_shown_is_the_shipped_one():
    (shown,) = re.findall(r"^```toml\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
    shipped = ROOT / "xpnet" / "recipes" / "digits-shallow.toml"
    assert shown == shipped.read_text(encoding="utf-8")


def test_the_courses_results_stand_as_published(data_dir):
    published = json.loads(require_file(data_dir, "notebook_curves.json").read_text())
    for kind, curve in published.items():
        (row,) = re.findall(rf"^\| `cats-{kind}` \|.*$", README, re.MULTILINE)
        cells = [cell.strip() for cell in row.split("|")]
        assert cells[2] == "-".join(map(str, curve["layers"]))
        assert float(cells[4]) == curve["test_accuracy"] / 100


def test_the_page_of_modules_is_current():
    """``make docs`` writes it."""
    written = runpy.run_path(str(ROOT / "docs" / "modules.py"))["page"]()
    assert written == (ROOT / "docs" / "modules.md").read_text(encoding="utf-8")
    for line in written.splitlines():
        assert not line.startswith("- ") or re.fullmatch(r"- \[`\S+`\]\(\S+\): \S.{9,}", line), line


@pytest.mark.parametrize("target", sorted(set(re.findall(r"^make (\w+)", README, re.MULTILINE))))
def test_make_targets_exist(target):
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_changelog_and_version_agree():
    versions = re.findall(
        r"^## \[(.*?)\](?: - \d{4}-\d\d-\d\d)?$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE
    )
    assert versions[:2] == ["Unreleased", xpnet.__version__]
