"""Misclassified images, and the confusion matrix."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from tests.conftest import slow
from tests.report.pictures import assert_nothing_cut_off, size, words
from xpnet.report import draw_confusion, draw_mistakes
from xpnet.report.classification import _confusion_figure, _mistakes_figure

pytestmark = pytest.mark.host


def mistakes(true, predicted, images=None, shape=(2, 3), most=25, names=("cat", "dog", "eel")):
    if images is None:
        images = np.arange(len(true) * math.prod(shape), dtype=np.uint8)
        images = images.reshape(len(true), *shape)
    return _mistakes_figure(images, true, predicted, names, shape, "title", most)


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
            r"images must be 2 images of shape \(2, 3\), got an array of shape \(2, 5\)",
        ),
        ({"images": np.zeros((3, 6))}, "images must be 2 images of shape"),
        ({"images": np.zeros((3, 4))}, "images must be 2 images of shape"),
        ({"most": 0}, "most must be at least 1, got 0"),
        ({"names": ("cat",)}, "predicted must hold classes 0 to 0"),
    ],
)
def test_mistakes_that_do_not_fit(options, said):
    with pytest.raises(ValueError, match=said):
        mistakes([0, 0], [1, 0], **options)


@pytest.mark.usefixtures("styled")
@pytest.mark.parametrize("n_classes", [1, 2, 10, slow(20), 21, 30, slow(100)])
def test_confusion(n_classes):
    rng = np.random.default_rng(n_classes)
    true, predicted = rng.integers(0, n_classes, (2, 500))
    names = [f"Class number {i}" for i in range(n_classes)]
    figure = _confusion_figure(true, predicted, names, "title")
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
    figure = _confusion_figure([0] * 3, [0] * 3, [name] * n_classes, name * 4)
    assert_nothing_cut_off(figure)
    assert_no_overlap(figure.axes[0])
    label = figure.axes[0].get_yticklabels()[0].get_text()
    assert label == "i" if name == "i" else label.endswith("W…")


@pytest.mark.usefixtures("styled")
def test_large_counts_fit():
    true = np.repeat(np.arange(20), 123_456)
    axes = _confusion_figure(true, true, ["a"] * 20, "t").axes[0]
    axes.figure.canvas.draw()
    assert_no_overlap(axes)


@pytest.mark.usefixtures("styled")
def test_numbers_can_be_read_on_their_colours():
    axes = _confusion_figure([0] * 10 + [1], [0] * 9 + [1, 1], ["a", "b"], "t").axes[0]
    inks = {text.get_position(): text.get_color() for text in axes.texts}
    assert inks == {(0, 0): "white", (1, 0): "black", (0, 1): "0.7", (1, 1): "white"}


def test_no_samples():
    figure = _confusion_figure([], [], ["a", "b"], "t")
    assert "0 of 0 test samples were classified correctly" in words(figure)
    assert np.all(figure.axes[0].get_images()[0].get_array() == 0)


@pytest.mark.parametrize(
    ("true", "predicted", "names", "said"),
    [
        ([0, 1], [0], "ab", r"of the same length, got shapes \(2,\) and \(1,\)"),
        ([[0]], [[0]], "ab", "of the same length"),
        ([0, 2], [0, 1], "ab", "true must hold classes 0 to 1, .* got 0 to 2"),
        ([0, 1], [0, -1], "ab", "predicted must hold classes 0 to 1, .* got -1 to 0"),
        ([], [], "", "at least one name"),
    ],
)
def test_classes_that_do_not_fit(true, predicted, names, said):
    with pytest.raises(ValueError, match=said):
        draw_confusion(true, predicted, class_names=names, title="t")
