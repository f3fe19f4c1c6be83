"""Pictures of a network's signals, layer by layer."""

from __future__ import annotations

import math

import pytest

from tests.conftest import slow
from tests.report.pictures import ODD_NAMES, assert_nothing_cut_off, size, words
from xpnet.nn.diagnosis import Diagnosis, LayerDiagnosis
from xpnet.report import draw_diagnosis
from xpnet.report.diagnosis import _diagnosis_figure

pytestmark = pytest.mark.host


def signals(variances, shares=None, labels=None):
    """Make a diagnosis with the same numbers forward and backward."""
    n = len(variances)
    shares = [(None, None), *[(0.5, 0.25)] * (n - 1)] if shares is None else shares
    labels = ["input", *(f"{i} dense 256 relu" for i in range(n - 1))] if labels is None else labels
    first, *others = (
        LayerDiagnosis(label, 0.0, variance, 0.0, variance / 100, *pair)
        for label, variance, pair in zip(labels, variances, shares, strict=True)
    )
    return Diagnosis(first, tuple(others), 500, 0.05)


@pytest.mark.usefixtures("styled")
@pytest.mark.parametrize("n_layers", [1, 3, slow(12), slow(40)])
def test_diagnosis(n_layers):
    variances = [0.5**i for i in range(n_layers + 1)]
    figure = _diagnosis_figure(signals(variances), "a deep net")
    forward, backward, shares = figure.axes
    for axes, scale in ((forward, 1), (backward, 100)):
        ((x, y),) = (line.get_data() for line in axes.get_lines())
        assert list(x) == [variance / scale for variance in variances]
        assert list(y) == list(range(n_layers + 1))
        assert axes.get_xscale() == "log"
        low, high = axes.get_xlim()
        assert sum(low <= tick <= high for tick in axes.get_xticks()) >= 2
    bars = [bar.get_width() for bar in shares.patches]
    assert bars == [0.5] * n_layers + [0.25] * n_layers
    assert [text.get_text() for text in forward.get_yticklabels()][1] == "0 dense 256 relu"
    said = words(figure)
    assert {"a deep net", "saturated elements", "dead units", "no activation", "0.5"} <= set(said)
    assert said.count("25.0%") == n_layers
    assert "one forward and backward pass over 500 samples" in said
    assert_nothing_cut_off(figure)
    png = draw_diagnosis(signals(variances), title="a deep net")
    assert size(png)[0] == 1440
    assert png == draw_diagnosis(signals(variances), title="a deep net")


@pytest.mark.usefixtures("styled")
@pytest.mark.parametrize(
    "variances",
    [
        *([0.0, 0.0], [1.0, 0.0, math.nan, math.inf], [1e99, 1e-97], [5e-324, 1e300, 1.0]),
        *([1.0, 1.0], [1.0, 1e-12]),
    ],
)
def test_variances_that_have_no_place_on_the_axis(variances):
    figure = _diagnosis_figure(signals(variances), "t")
    (line,) = figure.axes[0].get_lines()
    shown = [value for value in line.get_xdata() if not math.isnan(value)]
    assert shown == [value for value in variances if 1e-100 < value < 1e100]
    assert {f"{value:.2g}" for value in variances} <= set(words(figure))
    assert_nothing_cut_off(figure)


@pytest.mark.usefixtures("styled")
def test_diagnosis_of_layers_with_odd_names():
    n = len(ODD_NAMES)
    figure = _diagnosis_figure(signals([1.0] * n, labels=ODD_NAMES), ODD_NAMES[-1])
    assert_nothing_cut_off(figure)
    assert size(draw_diagnosis(signals([1.0] * n, labels=ODD_NAMES), title="$x"))[0] == 1440
