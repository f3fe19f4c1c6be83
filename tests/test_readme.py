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
LINK = re.compile(r"\]\(([\w./-]+\.\w+)(?:#[\w-]+)?\)")  # W[l](i) in a formula is not a link
PAGES = {page: page.read_text(encoding="utf-8") for page in (ROOT / "docs").glob("*.md")}


@pytest.mark.parametrize("target", LINK.findall(README))
def test_links_lead_somewhere(target):
    assert (ROOT / target).exists()


def test_every_page_is_linked():
    """From README, or from a page that README links."""
    assert len(PAGES) >= 3
    linked = set(re.findall(r"\]\(docs/([\w-]+\.md)", README))
    linked |= {name for text in PAGES.values() for name in re.findall(r"\]\(([\w-]+\.md)", text)}
    assert linked == {page.name for page in PAGES}
    for page, text in PAGES.items():
        for target in LINK.findall(text):
            assert (page.parent / target).exists(), (page.name, target)


@pytest.mark.parametrize("page", [ROOT / "README.md", *PAGES], ids=lambda page: page.name)
def test_headings_that_links_name_exist(page):
    for file, heading in re.findall(r"\]\(([\w./-]*\.md)?#([\w-]+)\)", page.read_text("utf-8")):
        there = (page.parent / file if file else page).read_text(encoding="utf-8")
        headings = re.findall(r"^#+ (.*)$", there, re.MULTILINE)
        slugs = {re.sub(r"[^\w -]", "", one.lower()).replace(" ", "-") for one in headings}
        assert heading in slugs, (file, heading)


def test_the_recipe_shown_is_the_shipped_one():
    tutorial = PAGES[ROOT / "docs" / "tutorial.md"]
    (shown,) = re.findall(r"^```toml\n(.*?)^```", tutorial, re.DOTALL | re.MULTILINE)
    shipped = ROOT / "xpnet" / "recipes" / "digits-shallow.toml"
    assert shown == shipped.read_text(encoding="utf-8")


def test_the_courses_results_stand_as_published(data_dir):
    published = json.loads(require_file(data_dir, "notebook_curves.json").read_text())
    page = PAGES[ROOT / "docs" / "course.md"]
    for kind, curve in published.items():
        (row,) = re.findall(rf"^\| `cats-{kind}` \|.*$", page, re.MULTILINE)
        cells = [cell.strip() for cell in row.split("|")]
        assert cells[2] == "-".join(map(str, curve["layers"]))
        assert float(cells[4]) == curve["test_accuracy"] / 100


def test_the_page_of_modules_is_current():
    """``make docs`` writes it."""
    written = runpy.run_path(str(ROOT / "docs" / "modules.py"))["page"]()
    assert written == (ROOT / "docs" / "modules.md").read_text(encoding="utf-8")
    for line in written.splitlines():
        assert not line.startswith("- ") or re.fullmatch(r"- \[`\S+`\]\(\S+\): \S.{9,}", line), line


TARGETS = set(
    re.findall(r"^make (\w+)|`make (\w[\w-]*)`", "\n".join([README, *PAGES.values()]), re.MULTILINE)
)


@pytest.mark.parametrize("target", sorted({first or second for first, second in TARGETS}))
def test_make_targets_exist(target):
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_changelog_and_version_agree():
    versions = re.findall(
        r"^## \[(.*?)\](?: - \d{4}-\d\d-\d\d)?$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE
    )
    assert versions[:2] == ["Unreleased", xpnet.__version__]
