"""Fixtures of the tests of commands."""

from __future__ import annotations

from pathlib import Path

import pytest

import xpnet.cli
from tests.cli.commands import pictures
from xpnet.cli import search


@pytest.fixture
def drawn():
    """Let the commands in this process draw, and name their pictures of classified images."""
    return pictures()


@pytest.fixture
def few_pictures(request, monkeypatch):
    """Draw in this process only where a test looks at pictures: they take most of a run's time."""
    if "drawn" not in request.fixturenames:
        monkeypatch.setattr("xpnet.recipe.result.plotting_problem", lambda: "not here")
        monkeypatch.setattr("xpnet.cli.training.plotting_problem", lambda: None)  # and say nothing


@pytest.fixture
def search_folder(tmp_path, monkeypatch):
    """Work in a folder with the small recipe, and draw nothing, which takes seconds."""
    from tests.cli.searches import STUDY_PICTURES, write  # which need Optuna

    monkeypatch.chdir(tmp_path)
    write(Path("small.toml"))
    monkeypatch.setattr("xpnet.recipe.result.plotting_problem", lambda: "not here")
    monkeypatch.setattr(search, "plotting_problem", lambda: None)
    monkeypatch.setattr(STUDY_PICTURES, lambda study: {})


class Done:
    """What a command has said."""

    def __init__(self, status, out, errors):
        self.status, self.out, self.errors = status, out, errors

    @property
    def table(self):
        """The trials, each by the header's names."""
        lines = self.out.splitlines()
        rule = next(number for number, line in enumerate(lines) if line.startswith("---"))
        header = lines[rule - 1].split()
        rows = []
        for line in lines[rule + 1 :]:
            if not line:
                break
            rows.append(dict(zip(header, line.split(), strict=True)))
        return rows


@pytest.fixture
def run(capsys):
    def call(*arguments, command=xpnet.cli.train):
        status = command([*map(str, arguments)])
        return Done(status, *capsys.readouterr())

    return call
