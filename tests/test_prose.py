"""Pages, messages, docstrings and comments are in plain English, as far as a list can tell."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from tests.prose import KINDS, ROOT, texts

pytestmark = pytest.mark.host

# Phrases of a dialect of our own. Ordinary words, such as "has not", are not banned by themselves.
BANNED = """
    what scikit-learn's have not | gone on with | going on with | is nothing that | is none that
    in turns | by turns | by the epoch | one's own | one's back | is somebody's | says when
    does not suffice | do not suffice | takes times as long | what is no | is said twice
    says nothing without | to be had | be had | what decides | look for the first ones
    does not let be | as many as there are | is no file | is no folder | is no trial | is none of
    whoever | anew | where the gpu's memory | what is there already | what there is
    far from each other during | near by, it is | numbers to be predicted
"""
PHRASES = [phrase.strip() for line in BANNED.splitlines() for phrase in line.split("|")]
PATTERN = re.compile(
    "|".join(rf"\b{re.escape(phrase)}\b" for phrase in PHRASES if phrase), re.IGNORECASE
)


@pytest.fixture(scope="module")
def everything():
    found = list(texts())
    return [text for text in found if text.file != Path(__file__).resolve()]


def test_all_kinds_are_found(everything):
    kinds = Counter(text.kind for text in everything)
    assert set(kinds) == set(KINDS)
    assert kinds["message"] > 500
    assert any(text.file == ROOT / "README.md" for text in everything)


@pytest.mark.parametrize("kind", KINDS)
def test_no_banned_phrase(everything, kind):
    hits = [(text, PATTERN.search(text.text)) for text in everything if text.kind == kind]
    found = [f"{hit[0]!r} in {text}" for text, hit in hits if hit]
    assert not found, "\n".join(found)
