"""Classes counted from 0, and parts held out."""

from __future__ import annotations

import math
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from xpnet.data import Contents, DataError, Part, make_dataset

pytestmark = pytest.mark.host

LISTS: Any = ([[0.0], [1.0]], [0, 1])


def points(y, n_features=2):
    y = np.asarray(y)
    return Part(np.arange(len(y) * n_features, dtype=float).reshape(len(y), n_features), y)


@given(
    st.lists(st.integers(2, 40), min_size=2, max_size=5),
    st.floats(0.1, 0.6),
    st.floats(0.1, 0.4),
    st.integers(0, 2**32 - 1),
)
@settings(max_examples=50)
def test_splits_are_stratified_disjoint_and_complete(counts, test, validation, seed):
    y = np.repeat(np.arange(len(counts)), counts)
    contents = Contents({"train": points(y)})
    options = {"test_fraction": test, "validation_fraction": validation, "seed": seed}
    try:
        data = make_dataset("d", contents, **options)
    except DataError:  # too few samples for so many classes
        with pytest.raises(DataError, match=r"must have at least two samples|cannot hold out"):
            make_dataset("d", contents, **options)
        return
    assert data.X_validation is not None
    assert data.y_validation is not None
    parts = [data.X_train, data.X_validation, data.X_test]
    together = np.sort(np.concatenate([X[:, 0] for X in parts]))
    np.testing.assert_array_equal(together, points(y).X[:, 0])
    for k, n in enumerate(counts):
        share = n * len(data.y_test) / len(y)
        assert abs((data.y_test == k).sum() - share) <= 1
    again = make_dataset("d", contents, **options)
    np.testing.assert_array_equal(data.X_train, again.X_train)


@given(
    st.integers(2, 60),
    st.integers(1, 3),
    st.floats(0.05, 0.9),
    st.floats(0, 0.9),
    st.integers(0, 2**32 - 1),
)
@settings(max_examples=50)
def test_numbers_are_split_at_random_with_their_weights(n, n_targets, test, validation, seed):
    X = np.arange(n, dtype=float).reshape(n, 1)
    y = (X * np.arange(1, n_targets + 1) / 3).reshape((n, n_targets)[: 1 + (n_targets > 1)])
    contents = Contents({"train": Part(X, y, X[:, 0] + 0.5)}, ("names", "of", "no", "classes"))
    options = {"test_fraction": test, "validation_fraction": validation, "seed": seed}
    n_test = math.ceil(test * n)
    if n_test == n or math.ceil(validation * (n - n_test)) == n - n_test:
        with pytest.raises(DataError, match="no sample would be left for training"):
            make_dataset("d", contents, task="regression", **options)
        return
    data = make_dataset("d", contents, task="regression", **options)
    assert (data.task, data.class_names, data.n_targets) == ("regression", (), n_targets)
    parts = [(data.X_train, data.y_train), (data.X_test, data.y_test)]
    assert len(data.y_test) == n_test
    if data.X_validation is not None and data.y_validation is not None:
        parts.append((data.X_validation, data.y_validation))
    for features, targets in parts:
        expected = (features * np.arange(1, n_targets + 1) / 3).reshape(targets.shape)
        np.testing.assert_array_equal(targets, expected)
    np.testing.assert_array_equal(data.sample_weight, data.X_train[:, 0] + 0.5)
    np.testing.assert_array_equal(np.sort(np.concatenate([part[0] for part in parts]), axis=0), X)


def test_weights_of_classes_and_of_parts_that_are_there():
    y, weights = np.arange(40) % 2, np.arange(40.0)
    data = make_dataset("d", Contents({"train": Part(weights[:, None], y, weights)}))
    np.testing.assert_array_equal(data.sample_weight, data.X_train[:, 0])
    part = Part(weights[:, None], y, weights)
    data = make_dataset("d", Contents({"train": part, "test": part}))
    np.testing.assert_array_equal(data.sample_weight, weights)
    assert make_dataset("d", Contents({"train": points(y, 1), "test": part})).sample_weight is None
    for wrong, said in (
        (weights - 1, "training weights must hold finite weights of at least 0, g"),
        (weights[1:], "training weights must hold a weight for each of 40 sample"),
    ):
        with pytest.raises(DataError, match=f"d: {said}"):
            make_dataset("d", Contents({"train": Part(weights[:, None], y, wrong)}))
    part = Part(weights[:, None], y, LISTS[0])
    with pytest.raises(DataError, match="d: training weights must be a NumPy array, got list"):
        make_dataset("d", Contents({"train": part}))


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        (
            {"train": points(["a", "b"])},
            "training labels must hold numeric regression targets, got dt",
        ),
        ({"train": points([0.5, np.nan])}, "training labels must hold finite numbers, got nan for"),
        (
            {"train": points([0.5, 1.0]), "test": Part(np.zeros((2, 2)), np.zeros((2, 3)))},
            r"test targets must have as many columns as the training targets, whose shap",
        ),
        (
            {"train": points([0.5])},
            "cannot hold out 0.2 of 1 samples for test: no sample would be left",
        ),
    ],
)
def test_numbers_that_do_not_fit(parts, said):
    with pytest.raises(DataError, match=f"d: {said}"):
        make_dataset("d", Contents(parts), task="regression")


def test_no_other_task():
    with pytest.raises(ValueError, match="task must be 'classification' or 'regression', got 'x'"):
        make_dataset("d", Contents({"train": points([0, 1] * 5)}), task="x")


def test_the_seed_matters():
    contents = Contents({"train": points([0, 1] * 20)})
    one, other = (make_dataset("d", contents, seed=seed) for seed in (0, 1))
    assert not np.array_equal(one.X_test, other.X_test)


def test_parts_that_are_there_are_taken_as_they_are(tmp_path):
    X = np.memmap(tmp_path / "X", dtype=np.uint8, mode="w+", shape=(6, 4, 4))
    part = Part(X, np.array([7, 9] * 3))
    data = make_dataset(
        "d", Contents({"train": part, "test": part, "validation": part}), validation_fraction=0.5
    )
    for found in (data.X_train, data.X_test, data.X_validation):
        assert isinstance(found, np.memmap)
        assert np.shares_memory(found, X)
        assert found.shape == (6, 16)
    assert data.image_shape == (4, 4)
    assert data.class_names == ("7", "9")
    np.testing.assert_array_equal(data.y_test, [0, 1] * 3)
    assert (data.n_features, data.n_classes, data.majority_accuracy) == (16, 2, 0.5)


def test_labels_become_classes():
    train, test = points(["pear", "apple", "fig"] * 2), points(["fig", "apple"])
    data = make_dataset("d", Contents({"train": train, "test": test}))
    assert data.class_names == ("apple", "fig", "pear")
    assert data.y_train.tolist() == [2, 0, 1] * 2
    assert data.y_test.tolist() == [1, 0]
    names = ("pear", "fig", "apple", "plum")
    data = make_dataset("d", Contents({"train": train, "test": test}, names))
    assert data.class_names == names
    assert data.y_train.tolist() == [0, 2, 1] * 2
    data = make_dataset("d", Contents({"train": points([3, -1]), "test": points([-1])}))
    assert (data.class_names, data.y_train.tolist()) == (("-1", "3"), [1, 0])


@pytest.mark.parametrize(
    "y",
    [
        np.array([True, False] * 3),
        np.array([1.0, 0.0] * 3),
        np.array([[1], [0]] * 3),
        np.array(["b", "a"] * 3, dtype=object),
        np.array([b"b", b"a"] * 3),
    ],
)
def test_labels_in_any_form(y):
    part = Part(np.zeros((6, 2, 2, 1)), y)
    data = make_dataset("d", Contents({"train": part, "test": part}))
    assert data.y_train.tolist() == [1, 0] * 3
    assert data.image_shape == (2, 2)  # a single channel is no axis


def test_names_in_any_sequence():
    part = points([0, 1])
    classes: Any = np.array(["a", "b"])
    features: Any = ["u", "v"]
    data = make_dataset("d", Contents({"train": part, "test": part}, classes, features))
    assert (data.class_names, data.feature_names) == (("a", "b"), ("u", "v"))
    wrong: Any = (("u",), ("u", "u"), "uv", ("u", ""))
    for names in wrong:
        contents = Contents({"train": part, "test": part}, None, names)
        with pytest.raises(DataError, match="d: feature_names must be 2 different strings, got"):
            make_dataset("d", contents)


def test_no_class_is_lost_to_the_training():
    contents = Contents({"train": points([0] * 1000 + [1] * 2)})
    with pytest.raises(DataError, match=r"cannot hold out 0.9 .*: none of class '1' would be left"):
        make_dataset("d", contents, test_fraction=0.9)
    # Each class keeps its share to the sample: a fifth of two samples is none.
    data = make_dataset("d", contents, test_fraction=0.2)
    assert np.bincount(data.y_train).tolist() == [799, 2]


def test_numpys_scalars_are_fractions():
    contents = Contents({"train": points(np.arange(40) % 2)})
    fraction: Any = np.float32(0.25)
    assert len(make_dataset("d", contents, test_fraction=fraction).y_test) == 10


@pytest.mark.parametrize(
    ("parts", "names", "said"),
    [
        ({"test": points([0, 1])}, None, "d holds no training samples, only test"),
        (
            {"train": Part(np.zeros((2, 1)), None)},
            None,
            "no labels for its training samples",
        ),
        ({"train": points([0, 1]), "test": Part(np.zeros((2, 2)), None)}, None, "its test samples"),
        ({"train": points([0, 1]), "test": points([0, 1], 3)}, None, r"\(2,\), got \(3,\)"),
        ({"train": points([5, 5])}, None, "at least two classes, got only the label '5'"),
        ({"train": points(["a"])}, None, "at least two classes, got only the label 'a'"),
        ({"train": points([0, 0])}, ("a", "b"), "at least two classes, got only the label '0'"),
        (
            {"train": Part(np.zeros((200, 2)), np.arange(150) % 2)},
            None,
            r"d: training labels must hold a label for each of 200 samples, got shape \(150,\)",
        ),
        (
            {"train": Part(np.zeros((150, 2)), np.arange(200) % 2)},
            None,
            r"a label for each of 150 samples, got shape \(200,\)",
        ),
        (
            {"train": points([0, 1]), "test": points([0.5, 1.5])},
            None,
            "test labels must hold whole numbers, got 0.5 for sample 0",
        ),
        ({"train": points([[0, 1], [1, 0]])}, None, "a label for each of 2 samples"),
        (
            {"train": points(np.array(["a", np.nan], dtype=object))},
            None,
            "training labels must hold strings, got nan at 1",
        ),
        ({"train": Part(np.zeros(2), np.arange(2))}, None, r"must have shape .* got \(2,\)"),
        ({"train": Part(np.array([["1"], ["2"]]), np.arange(2))}, None, "got dtype <U1"),
        (
            {"train": Part(*LISTS)},
            None,
            "d: training samples must be a NumPy array, got list",
        ),
        (
            {"train": points([0, 1]), "test": points([0, 2])},
            None,
            "test labels hold '2', which is not one of the 2 classes '0', '1'",
        ),
        ({"train": points([0, 2])}, ("a", "b"), "train labels hold '2', which is not one of the 2"),
        ({"train": points(["a", "c"])}, ("a", "b"), "train labels hold 'c', which is not one"),
        ({"train": points([0, 0, 0, 1])}, None, "class '1' must have at least two samples to"),
        (
            {"train": points([0, 0, 1, 1])},
            None,
            "cannot hold out 0.2 of 4 samples",
        ),
        (
            {"train": points([0, 1]), "tests": points([0, 1])},
            None,
            "d: unknown part 'tests'; did you mean 'test'",
        ),
        (
            {"train": points([0, 1]), "test": points(["0", "1"])},
            None,
            "numbers in all parts or strings in all parts, got int64 for training and <U1 for test",
        ),
        (
            {"train": points([0, 1])},
            ("a", "a"),
            r"class_names must be different strings, got \('a'",
        ),
        ({"train": points([0, 1])}, (0, 1), r"class_names must be different strings, got \(0, 1\)"),
    ],
)
def test_what_does_not_fit(parts, names, said):
    with pytest.raises(DataError, match=said):
        make_dataset("d", Contents(parts, names))
