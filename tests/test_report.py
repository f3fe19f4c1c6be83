"""Pictures of a run: what is drawn, and that they are the same bytes each time."""

from __future__ import annotations

import itertools
import math
import os
import struct
import subprocess
import sys

import matplotlib
import numpy as np
import pytest

from tests.conftest import ROOT, slow
from xpnet import report
from xpnet.nn.diagnosis import Diagnosis, LayerDiagnosis
from xpnet.report import (
    draw_confusion,
    draw_curves,
    draw_diagnosis,
    draw_mistakes,
    draw_predictions,
    plotting_problem,
)
from xpnet.training.history import History, Report

pytestmark = pytest.mark.host

ODD_NAMES = [
    *("$x_1$", "a$b", "under_score", "日本語", "नमस्ते", "😀", "two\nlines", "", "\ud800", "\\frac{"),
    "very long " * 500,
]


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


def size(png):
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    assert png.endswith(b"IEND\xaeB`\x82")
    return struct.unpack(">II", png[16:24])


def lines(axes):
    return {line.get_label(): line.get_xydata().tolist() for line in axes.get_lines()}


def words(figure):
    return [text.get_text() for text in figure.findobj(matplotlib.text.Text) if text.get_text()]


def assert_nothing_cut_off(figure):
    figure.canvas.draw()
    box, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
    assert 0 <= box.x0 < box.x1 <= width
    assert 0 <= box.y0 < box.y1 <= height


@pytest.fixture
def styled():
    with report.style():
        yield


# Curves


def test_curves():
    history = reports(
        40,
        cost=lambda epoch: 1 / (1 + epoch),
        validation_cost=lambda epoch: 2 / (1 + epoch),
        validation_accuracy=lambda epoch: epoch / 100,
        train_accuracy=lambda epoch: epoch / 80,
    )
    figure = report._curves_figure(history, "digits-deep")
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
    figure = report._curves_figure(reports(3, cost=lambda epoch: 0.5), "t")
    cost, accuracy = figure.axes
    assert list(lines(cost)) == ["train, mean over the epoch"]
    assert lines(accuracy) == {}
    assert "no accuracy was measured" in words(figure)
    assert_nothing_cut_off(figure)


def test_one_report_is_a_point():
    history = reports(1, cost=lambda epoch: 0.5, validation_accuracy=lambda epoch: 1.0)
    figure = report._curves_figure(history, "t")
    for axes, label in zip(figure.axes, ("train, mean over the epoch", "validation"), strict=True):
        (line,) = axes.get_lines()
        assert (line.get_label(), line.get_marker()) == (label, "o")
        assert list(line.get_xdata()) == [1]
        low, high = axes.get_xlim()
        assert [tick for tick in axes.get_xticks() if low <= tick <= high] == [1]
    assert size(draw_curves(history, title="t")) == (1440, 576)


def test_no_reports():
    figure = report._curves_figure(History(), "t")
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
    figure = report._curves_figure(history, "t")
    assert figure.axes[0].get_yscale() == scale
    assert_nothing_cut_off(figure)


def test_the_validation_cost_counts_for_the_scale():
    history = reports(5, cost=lambda epoch: 1.0, validation_cost=lambda epoch: 30.0)
    assert report._curves_figure(history, "t").axes[0].get_yscale() == "log"


@pytest.mark.parametrize(("low", "ticks"), [(0.04, "0.05 0.1 0.2 0.5"), (1e-4, "0.001 0.01 0.1")])
def test_numbers_on_a_logarithmic_axis(low, ticks):
    history = reports(5, cost=lambda epoch: 0.9 if epoch < 4 else low)
    figure = report._curves_figure(history, "t")
    figure.canvas.draw()
    shown = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert set(ticks.split()) <= set(shown)


def test_what_is_not_finite_or_huge_is_left_out():
    costs = {0: 1.0, 2: math.nan, 4: 3.0, 6: math.inf, 8: 1.7e308, 10: 2.0, 12: -math.inf}
    figure = report._curves_figure(reports(7, cost=costs.get), "t")
    assert list(lines(figure.axes[0]).values()) == [[[1, 1], [5, 3], [11, 2]]]
    assert_nothing_cut_off(figure)


def test_accuracy_stays_within_its_bounds():
    history = reports(9, cost=lambda epoch: 1.0, train_accuracy=lambda epoch: float(epoch > 5))
    low, high = report._curves_figure(history, "t").axes[1].get_ylim()
    assert -0.03 < low < 0
    assert 1 < high < 1.03


# Mistakes


def test_the_axis_of_a_score_that_is_no_accuracy():
    history = reports(
        4,
        cost=lambda epoch: 0.5,
        validation_accuracy=lambda epoch: -30.0 if epoch == 0 else epoch / 10,
        train_accuracy=lambda epoch: epoch / 8,
    )
    history.score_name = "R2"
    figure = report._curves_figure(history, "t")
    axes = figure.axes[1]
    assert (axes.get_ylabel(), axes.get_title()) == ("R2", "R2")
    assert not any("accuracy" in word for word in words(figure))
    assert axes.get_ylim()[0] == -1.02  # what is good can be told apart
    assert_nothing_cut_off(figure)
    bad = reports(4, cost=lambda epoch: 0.5, validation_accuracy=lambda epoch: -3.0 - epoch)
    bad.score_name = "R2"
    low, high = report._curves_figure(bad, "t").axes[1].get_ylim()
    assert low < -9 < -3 < high
    nothing = History(score_name="R2")
    assert "no R2 was measured" in words(report._curves_figure(nothing, "t"))


# Predictions


@pytest.mark.parametrize("n_targets", [1, 2, 5, 12])
def test_predictions(n_targets):
    rng = np.random.default_rng(0)
    true = rng.normal(5, 10.0 ** rng.integers(-3, 9, n_targets), (50, n_targets))
    predicted = true + rng.normal(size=true.shape) * true.std(axis=0)
    figure = report._predictions_figure(true, predicted, "surface")
    n_shown = min(n_targets, 9)
    assert len(figure.axes) == n_shown
    for k, axes in enumerate(figure.axes):
        (points,) = axes.collections
        expected = np.stack([true[:, k], predicted[:, k]], axis=1)
        np.testing.assert_allclose(points.get_offsets(), expected)
        (diagonal,) = axes.get_lines()
        assert axes.get_xlim() == axes.get_ylim() == tuple(diagonal.get_xdata())
        np.testing.assert_array_equal(diagonal.get_xdata(), diagonal.get_ydata())
        residual = ((true[:, k] - predicted[:, k]) ** 2).sum()
        R2 = 1 - residual / ((true[:, k] - true[:, k].mean()) ** 2).sum()
        name = f"target {k}, " if n_targets > 1 else ""
        assert axes.get_title() == f"{name}R2 {R2:.4f}"
        box = axes.get_window_extent()
        assert box.width == pytest.approx(box.height)
    assert {"true", "predicted", "surface"} <= set(words(figure))
    more = f"; 9 of {n_targets} targets shown" if n_targets > 9 else ""
    assert f"50 test samples{more}" in words(figure)
    assert_nothing_cut_off(figure)
    width, height = size(draw_predictions(true, predicted, title="surface"))
    assert (width, height) == tuple(np.round(figure.get_size_inches() * report.DPI).astype(int))


def test_predictions_that_cannot_be_drawn():
    figure = report._predictions_figure([1.0, np.nan, 1e200, 3.0], [1.0, 2.0, 2.0, np.inf], "t")
    (axes,) = figure.axes
    assert np.asarray(axes.collections[0].get_offsets()).tolist() == [[1.0, 1.0]]
    figure = report._predictions_figure([np.nan], [1.0], "t")
    assert "nothing to be drawn" in words(figure)
    assert "1 test sample" in words(figure)
    for true, predicted in (([1.0], [1.0, 2.0]), (np.zeros((2, 0)), np.zeros((2, 0)))):
        with pytest.raises(ValueError, match="true and predicted must have one shape, "):
            draw_predictions(true, predicted, title="t")


def mistakes(true, predicted, images=None, shape=(2, 3), most=25, names=("cat", "dog", "eel")):
    if images is None:
        images = np.arange(len(true) * math.prod(shape), dtype=np.uint8)
        images = images.reshape(len(true), *shape)
    return report._mistakes_figure(images, true, predicted, names, shape, "title", most)


def test_mistakes():
    true, predicted = np.array([0, 1, 2, 1]), np.array([0, 2, 2, 0])
    figure = mistakes(true, predicted)
    assert [axes.get_title() for axes in figure.axes] == [
        "predicted: eel\ntrue: dog",
        "predicted: cat\ntrue: dog",
    ]
    for axes, first in zip(figure.axes, (6, 18), strict=True):
        (picture,) = axes.get_images()
        expected = np.arange(first, first + 6).reshape(2, 3) / 255
        np.testing.assert_allclose(picture.get_array(), expected)
        assert picture.get_interpolation() == "nearest"
        assert picture.get_cmap().name == "gray"
    assert "2 of 4 test images were misclassified" in words(figure)
    assert_nothing_cut_off(figure)


@pytest.mark.parametrize(
    ("n_wrong", "most", "line"),
    [
        (0, 25, "none of 40 test images was misclassified"),
        (1, 25, "1 of 40 test images was misclassified"),
        slow(25, 25, "25 of 40 test images were misclassified"),
        (26, 25, "26 of 40 test images were misclassified; 25 shown"),
        slow(40, 100, "40 of 40 test images were misclassified"),
        (40, 1, "40 of 40 test images were misclassified; 1 shown"),
    ],
)
def test_how_many(n_wrong, most, line):
    true = np.zeros(40, int)
    predicted = (np.arange(40) < n_wrong).astype(int)
    figure = mistakes(true, predicted, most=most)
    assert line in words(figure)
    assert len(figure.axes) == min(n_wrong, most)
    assert_nothing_cut_off(figure)
    images = np.zeros((40, 6))
    names, shape = ("a", "b"), (2, 3)
    png = draw_mistakes(
        images, true, predicted, class_names=names, image_shape=shape, title="t", most=most
    )
    assert size(png)[0] in (1200, 1440)


def test_thousands():
    figure = mistakes(np.zeros(60_000, int), np.ones(60_000, int), np.zeros((60_000, 6)), most=2)
    assert "60,000 of 60,000 test images were misclassified; 2 shown" in words(figure)


def test_no_images():
    figure = mistakes(np.zeros(0, int), np.zeros(0, int))
    assert "none of 0 test images was misclassified" in words(figure)


@pytest.mark.parametrize(
    ("images", "expected"),
    [
        (np.array([[0, 51], [255, 0]], np.uint8), [0, 0.2]),
        (np.array([[0, 51], [102, 0]], np.uint8), [0, 0.2]),  # not stretched
        (np.array([[0, 4], [16, 0]], np.float64), [0, 0.25]),
        (np.array([[-1, 0], [1, 0]], np.float32), [0, 0.5]),
        (np.array([[0, 300], [1000, 0]], np.uint16), [0, 0.3]),
        (np.array([[-128, -1], [127, 0]], np.int8), [0, 127 / 255]),
        (np.array([[False, True], [True, False]]), [0, 1]),
        (np.array([[7, 7], [7, 7]]), [0, 0]),
    ],
)
def test_the_range_is_that_of_all_images(images, expected):
    """Only the first of the two images is shown."""
    figure = mistakes([0, 0], [1, 0], images, (1, 2))
    np.testing.assert_allclose(figure.axes[0].get_images()[0].get_array(), [expected])


@pytest.mark.parametrize("shape", [(3, 2), (2, 3, 3), (2, 3, 4)])
def test_flat_images_are_the_same_as_images(shape):
    images = np.random.default_rng(0).random((4, *shape))
    options = {"class_names": ("a", "b"), "image_shape": shape, "title": "t"}
    true, predicted = [0, 1, 0, 1], [1, 1, 1, 0]
    png = draw_mistakes(images, true, predicted, **options)
    assert png == draw_mistakes(images.reshape(4, -1), true, predicted, **options)
    figure = mistakes(true, predicted, images, shape)
    scaled = (images - images.min()) / (images.max() - images.min())
    np.testing.assert_allclose(figure.axes[1].get_images()[0].get_array(), scaled[2])


@pytest.mark.parametrize("shape", [(1, 200), (200, 1), (64, 64, 3)])
def test_images_of_other_proportions(shape):
    assert_nothing_cut_off(mistakes([0] * 7, [1] * 7, shape=shape))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"shape": (6,)}, r"image_shape must be \(height, width\)"),
        ({"shape": (2, 3, 2)}, "with 3 or 4 channels, got"),
        (
            {"images": np.zeros((2, 5))},
            r"images must be 2 of shape \(2, 3\), got an array \(2, 5\)",
        ),
        ({"images": np.zeros((3, 6))}, "images must be 2 of shape"),
        ({"images": np.zeros((3, 4))}, "images must be 2 of shape"),
        ({"most": 0}, "most must be at least 1, got 0"),
        ({"names": ("cat",)}, "predicted must hold classes from 0 to 0"),
    ],
)
def test_mistakes_that_do_not_fit(options, said):
    with pytest.raises(ValueError, match=said):
        mistakes([0, 0], [1, 0], **options)


# Confusion


@pytest.mark.usefixtures("styled")
@pytest.mark.parametrize("n_classes", [1, 2, 10, slow(20), 21, 30, slow(100)])
def test_confusion(n_classes):
    rng = np.random.default_rng(n_classes)
    true, predicted = rng.integers(0, n_classes, (2, 500))
    names = [f"Class number {i}" for i in range(n_classes)]
    figure = report._confusion_figure(true, predicted, names, "title")
    counts = np.zeros((n_classes, n_classes), int)
    for row, column in zip(true, predicted, strict=True):
        counts[row, column] += 1
    axes = figure.axes[0]
    shares = axes.get_images()[0].get_array()
    n_samples = counts.sum(axis=1)
    np.testing.assert_allclose(shares * n_samples[:, None], counts, atol=1e-12)
    np.testing.assert_allclose(shares.sum(axis=1), n_samples > 0)
    cells = {text.get_position(): text.get_text() for text in axes.texts}
    if n_classes <= 20:
        assert cells == {(c, r): str(counts[r, c]) for r, c in np.ndindex(counts.shape)}
    else:
        assert cells == {}
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels == [names[int(tick)] for tick in axes.get_yticks()]
    assert labels == [label.get_text() for label in axes.get_xticklabels()]
    assert min(n_classes, 10) <= len(labels) <= 20
    correct = (true == predicted).sum()
    assert f"{correct} of 500 test samples were classified correctly" in words(figure)
    assert_nothing_cut_off(figure)
    assert_no_overlap(axes)


def assert_no_overlap(axes):
    """Neither the names along the axes nor the numbers in the cells touch each other."""
    boxes = [label.get_window_extent() for label in axes.get_yticklabels()]
    for above, below in itertools.pairwise(boxes):
        assert above.y0 >= below.y1
    labels = axes.get_xticklabels()
    if labels[0].get_rotation() == 0:
        boxes = [label.get_window_extent() for label in labels]
        assert all(a.x1 < b.x0 for a, b in itertools.pairwise(boxes))
    if axes.texts:
        cell = axes.get_window_extent().width / math.isqrt(len(axes.texts))
        assert max(text.get_window_extent().width for text in axes.texts) < cell
        assert min(text.get_fontsize() for text in axes.texts) >= 5


@pytest.mark.usefixtures("styled")
@pytest.mark.parametrize("n_classes", [1, slow(2), 10, slow(20), slow(100)])
@pytest.mark.parametrize("name", ["W" * 70, "i"])
def test_names_of_any_length_fit(n_classes, name):
    figure = report._confusion_figure([0] * 3, [0] * 3, [name] * n_classes, name * 4)
    assert_nothing_cut_off(figure)
    assert_no_overlap(figure.axes[0])
    label = figure.axes[0].get_yticklabels()[0].get_text()
    assert label == "i" if name == "i" else label.endswith("W…")


@pytest.mark.usefixtures("styled")
def test_large_counts_fit():
    true = np.repeat(np.arange(20), 123_456)
    axes = report._confusion_figure(true, true, ["a"] * 20, "t").axes[0]
    axes.figure.canvas.draw()
    assert_no_overlap(axes)


@pytest.mark.usefixtures("styled")
def test_numbers_can_be_read_on_their_colours():
    axes = report._confusion_figure([0] * 10 + [1], [0] * 9 + [1, 1], ["a", "b"], "t").axes[0]
    inks = {text.get_position(): text.get_color() for text in axes.texts}
    assert inks == {(0, 0): "white", (1, 0): "black", (0, 1): "0.7", (1, 1): "white"}


def test_no_samples():
    figure = report._confusion_figure([], [], ["a", "b"], "t")
    assert "0 of 0 test samples were classified correctly" in words(figure)
    assert np.all(figure.axes[0].get_images()[0].get_array() == 0)


@pytest.mark.parametrize(
    ("true", "predicted", "names", "said"),
    [
        ([0, 1], [0], "ab", r"of one length, got \(2,\) and \(1,\)"),
        ([[0]], [[0]], "ab", "of one length"),
        ([0, 2], [0, 1], "ab", "true must hold classes from 0 to 1, .* got 0 to 2"),
        ([0, 1], [0, -1], "ab", "predicted must hold classes from 0 to 1, .* got -1 to 0"),
        ([], [], "", "at least one name"),
    ],
)
def test_classes_that_do_not_fit(true, predicted, names, said):
    with pytest.raises(ValueError, match=said):
        draw_confusion(true, predicted, class_names=names, title="t")


# All


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
    figure = report._mistakes_figure(np.zeros((1, 4)), [0], [1], names, (2, 2), "$t_1$", 25)
    assert {"predicted: a$b$\ntrue: $x_1$", "$t_1$"} <= set(words(figure))
    assert all(not text.get_parse_math() for text in figure.texts if "$" in text.get_text())
    axes = report._confusion_figure([0], [1], names, "$t_1$").axes[0]
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


# Signals layer by layer


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
    figure = report._diagnosis_figure(signals(variances), "a deep net")
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
    assert "one pass forward and backward of 500 samples" in said
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
    figure = report._diagnosis_figure(signals(variances), "t")
    (line,) = figure.axes[0].get_lines()
    shown = [value for value in line.get_xdata() if not math.isnan(value)]
    assert shown == [value for value in variances if 1e-100 < value < 1e100]
    assert {f"{value:.2g}" for value in variances} <= set(words(figure))
    assert_nothing_cut_off(figure)


@pytest.mark.usefixtures("styled")
def test_diagnosis_of_layers_with_odd_names():
    n = len(ODD_NAMES)
    figure = report._diagnosis_figure(signals([1.0] * n, labels=ODD_NAMES), ODD_NAMES[-1])
    assert_nothing_cut_off(figure)
    assert size(draw_diagnosis(signals([1.0] * n, labels=ODD_NAMES), title="$x"))[0] == 1440
