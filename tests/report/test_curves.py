"""Learning curves."""

from __future__ import annotations

import math

import pytest

from tests.report.pictures import assert_nothing_cut_off, size, words
from xpnet.report import draw_curves
from xpnet.report.curves import _curves_figure
from xpnet.training.history import History, Report

pytestmark = pytest.mark.host


def reports(n, **curves):
    """Make a history of n reports, every other epoch; a curve is a function of the epoch."""
    return History(
        [
            Report(
                epoch=epoch,
                iteration=epoch,
                cost=curves["cost"](epoch),
                learning_rate=0.1,
                seconds=1.0,
                samples_per_second=1.0,
                **{name: curve(epoch) for name, curve in curves.items() if name != "cost"},
            )
            for epoch in range(0, 2 * n, 2)
        ]
    )


def lines(axes):
    return {line.get_label(): line.get_xydata().tolist() for line in axes.get_lines()}


def test_curves():
    history = reports(
        40,
        cost=lambda epoch: 1 / (1 + epoch),
        validation_cost=lambda epoch: 2 / (1 + epoch),
        validation_accuracy=lambda epoch: epoch / 100,
        train_accuracy=lambda epoch: epoch / 80,
    )
    figure = _curves_figure(history, "digits-deep")
    cost, accuracy = figure.axes
    assert lines(cost) == {
        "train, mean over the epoch": [[r.epoch + 1, r.cost] for r in history.reports],
        "validation": [[r.epoch + 1, r.validation_cost] for r in history.reports],
    }
    assert lines(accuracy) == {
        "train": [[r.epoch + 1, r.train_accuracy] for r in history.reports],
        "validation": [[r.epoch + 1, r.validation_accuracy] for r in history.reports],
    }
    assert [axes.get_ylabel() for axes in figure.axes] == ["cost", "accuracy"]
    assert {axes.get_xlabel() for axes in figure.axes} == {"epoch"}
    assert "digits-deep" in words(figure)
    assert all(axes.get_legend() for axes in figure.axes)
    assert_nothing_cut_off(figure)


def test_curves_without_validation_or_accuracy():
    figure = _curves_figure(reports(3, cost=lambda epoch: 0.5), "t")
    cost, accuracy = figure.axes
    assert list(lines(cost)) == ["train, mean over the epoch"]
    assert lines(accuracy) == {}
    assert "no accuracy was measured" in words(figure)
    assert_nothing_cut_off(figure)


def test_one_report_is_a_point():
    history = reports(1, cost=lambda epoch: 0.5, validation_accuracy=lambda epoch: 1.0)
    figure = _curves_figure(history, "t")
    for axes, label in zip(figure.axes, ("train, mean over the epoch", "validation"), strict=True):
        (line,) = axes.get_lines()
        assert (line.get_label(), line.get_marker()) == (label, "o")
        assert list(line.get_xdata()) == [1]
        low, high = axes.get_xlim()
        assert [tick for tick in axes.get_xticks() if low <= tick <= high] == [1]
    assert size(draw_curves(history, title="t")) == (1440, 576)


def test_no_reports():
    figure = _curves_figure(History(), "t")
    assert {"no cost was measured", "no accuracy was measured"} <= set(words(figure))
    assert size(draw_curves(History(), title="t")) == (1440, 576)


@pytest.mark.parametrize(
    ("low", "high", "scale"),
    [
        *((0.1, 2.1, "log"), (0.1, 1.9, "linear"), (-0.1, 9.0, "linear"), (0.0, 9.0, "linear")),
        *((1e-30, 1.0, "log"), (5e-324, 1.0, "linear"), (1.0, 1e99, "log")),
    ],
)
def test_scale_of_the_cost(low, high, scale):
    history = reports(5, cost=lambda epoch: high if epoch < 4 else low)
    figure = _curves_figure(history, "t")
    assert figure.axes[0].get_yscale() == scale
    assert_nothing_cut_off(figure)


def test_the_validation_cost_counts_for_the_scale():
    history = reports(5, cost=lambda epoch: 1.0, validation_cost=lambda epoch: 30.0)
    assert _curves_figure(history, "t").axes[0].get_yscale() == "log"


@pytest.mark.parametrize(("low", "ticks"), [(0.04, "0.05 0.1 0.2 0.5"), (1e-4, "0.001 0.01 0.1")])
def test_numbers_on_a_logarithmic_axis(low, ticks):
    history = reports(5, cost=lambda epoch: 0.9 if epoch < 4 else low)
    figure = _curves_figure(history, "t")
    figure.canvas.draw()
    shown = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert set(ticks.split()) <= set(shown)


def test_what_is_not_finite_or_huge_is_left_out():
    costs = {0: 1.0, 2: math.nan, 4: 3.0, 6: math.inf, 8: 1.7e308, 10: 2.0, 12: -math.inf}
    figure = _curves_figure(reports(7, cost=costs.get), "t")
    assert list(lines(figure.axes[0]).values()) == [[[1, 1], [5, 3], [11, 2]]]
    assert_nothing_cut_off(figure)


def test_accuracy_stays_within_its_bounds():
    history = reports(9, cost=lambda epoch: 1.0, train_accuracy=lambda epoch: float(epoch > 5))
    low, high = _curves_figure(history, "t").axes[1].get_ylim()
    assert -0.03 < low < 0
    assert 1 < high < 1.03


def test_the_axis_of_a_score_that_is_no_accuracy():
    history = reports(
        4,
        cost=lambda epoch: 0.5,
        validation_accuracy=lambda epoch: -30.0 if epoch == 0 else epoch / 10,
        train_accuracy=lambda epoch: epoch / 8,
    )
    history.score_name = "R2"
    figure = _curves_figure(history, "t")
    axes = figure.axes[1]
    assert (axes.get_ylabel(), axes.get_title()) == ("R2", "R2")
    assert not any("accuracy" in word for word in words(figure))
    assert axes.get_ylim()[0] == -1.02  # what is good can be told apart
    assert_nothing_cut_off(figure)
    bad = reports(4, cost=lambda epoch: 0.5, validation_accuracy=lambda epoch: -3.0 - epoch)
    bad.score_name = "R2"
    low, high = _curves_figure(bad, "t").axes[1].get_ylim()
    assert low < -9 < -3 < high
    nothing = History(score_name="R2")
    assert "no R2 was measured" in words(_curves_figure(nothing, "t"))
