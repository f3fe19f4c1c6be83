"""All pictures: their style, odd texts, the same bytes each time, matplotlib's absence."""

from __future__ import annotations

import os
import subprocess
import sys

import matplotlib
import numpy as np
import pytest

from tests.conftest import ROOT, slow
from tests.report.pictures import ODD_NAMES, size, words
from tests.report.test_curves import reports
from xpnet.report import draw_confusion, draw_curves, draw_mistakes, plotting_problem
from xpnet.report.classification import _confusion_figure, _mistakes_figure
from xpnet.training.history import History

pytestmark = pytest.mark.host


def pictures(title="title", names=ODD_NAMES):
    n = len(names)
    true = np.arange(n)
    images = np.random.default_rng(0).random((n, 8, 8))
    history = reports(3, cost=lambda epoch: 9.0**-epoch, train_accuracy=lambda epoch: 0.5)
    return [
        draw_curves(history, title=title),
        draw_mistakes(images, true, true[::-1], class_names=names, image_shape=(8, 8), title=title),
        draw_confusion(true, true[::-1], class_names=names, title=title),
    ]


@pytest.mark.parametrize(
    "title", [slow(ODD_NAMES[0]), ODD_NAMES[3], ODD_NAMES[-1], "\ud800", slow("")]
)
def test_odd_names_and_titles(title, capfd, caplog):
    for png in pictures(title):
        width, height = size(png)
        assert 1000 <= width <= 1600
        assert 300 <= height <= 1600
    assert capfd.readouterr() == ("", "")
    assert caplog.records == []


@pytest.mark.usefixtures("styled")
def test_odd_names_are_written_as_they_are():
    names = ["$x_1$", "a$b$"]
    figure = _mistakes_figure(np.zeros((1, 4)), [0], [1], names, (2, 2), "$t_1$", 25)
    assert {"predicted: a$b$\ntrue: $x_1$", "$t_1$"} <= set(words(figure))
    assert all(not text.get_parse_math() for text in figure.texts if "$" in text.get_text())
    axes = _confusion_figure([0], [1], names, "$t_1$").axes[0]
    for label in (*axes.get_xticklabels(), *axes.get_yticklabels()):
        assert not label.get_parse_math()


def test_same_bytes_whatever_the_style():
    before = pictures()
    with matplotlib.rc_context({"axes.facecolor": "black", "font.size": 30, "savefig.dpi": 10}):
        assert pictures() == before
        assert matplotlib.rcParams["font.size"] == 30
    assert pictures() == before


def run(code):
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "XPNET_DEVICE": "cpu"},
    ).stdout.split()


def test_pyplot_is_not_touched():
    code = (
        "import sys, xpnet.report as report; from xpnet.training import History; "
        "print('matplotlib' in sys.modules); "
        "report.draw_curves(History(), title='t'); "
        "report.draw_confusion([0], [0], class_names=['a'], title='t'); "
        "print('matplotlib' in sys.modules, 'matplotlib.pyplot' in sys.modules)"
    )
    assert run(code) == ["False", "True", "False"]


def test_without_matplotlib(monkeypatch):
    assert plotting_problem() is None
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    problem = plotting_problem()
    assert problem is not None
    assert problem.startswith("matplotlib cannot be imported (")
    assert problem.endswith("); type: pip install matplotlib")
    with pytest.raises(ImportError, match="matplotlib cannot be imported"):
        draw_curves(History(), title="t")
