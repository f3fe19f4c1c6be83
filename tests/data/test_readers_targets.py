"""Regression targets and sample weights in files of each format."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tests.data.files import IMAGES, X, Y, held, refusal, write_csv, write_h5, write_idx, write_npz
from xpnet.data.readers import read_file

pytestmark = pytest.mark.host


@pytest.mark.parametrize("write", [write_npz, write_h5])
@pytest.mark.parametrize(
    ("y", "read"),
    [
        (Y, Y),
        (Y / 4, Y / 4),
        (-Y.astype(">f4") / 8, -Y / 8),
        (Y.reshape(6, 1) / 2, Y / 2),
        (np.stack([Y, -Y], axis=1) / 2, np.stack([Y, -Y], axis=1) / 2),
        (Y.astype(np.uint8), Y),
    ],
)
def test_targets_in_many_forms(tmp_path, write, y, read):
    path = write(tmp_path, X=X, y=y, X_test=X[:3], y_test=y[:3], classes=np.array([b"a", b"a"]))
    contents = read_file(path, task="regression")
    assert contents.class_names is None  # there are none, and what is called so is not looked at
    for part, n in (("train", 6), ("test", 3)):
        np.testing.assert_array_equal(held(contents, part).y, read[:n])
        assert held(contents, part).y.dtype == np.float64


@pytest.mark.parametrize("write", [write_npz, write_h5])
@pytest.mark.parametrize(
    ("y", "said"),
    [
        (Y[:5], "y must hold a number, or a row of numbers, for each of 6 samples, got shape (5,)"),
        (Y[None], "for each of 6 samples, got shape (1, 6)"),
        (np.zeros((6, 1, 2)), "for each of 6 samples, got shape (6, 1, 2)"),
        (Y == 1, "y must hold numeric regression targets, got dtype bool"),
        (np.array([b"a", b"b"] * 3), "y must hold numeric regression targets, got dtype |S1"),
        (np.where(Y == 2, np.nan, Y), "y must hold finite numbers, got nan for sample 2"),
        (np.stack([Y, np.where(Y > 1, np.inf, Y)], axis=1), "got inf for sample 2"),
    ],
)
def test_wrong_targets(tmp_path, write, y, said):
    assert said in refusal(write(tmp_path, X=X, y=y), task="regression")


@given(
    hnp.arrays(
        st.sampled_from(["u1", "i2", ">i4", "i8", "<f4", ">f8", "f2"]),
        hnp.array_shapes(min_dims=1, max_dims=2, max_side=4),
        elements={"allow_nan": False, "allow_infinity": False},
    )
)
def test_any_finite_targets_come_back(tmp_path_factory, array):
    path = write_npz(tmp_path_factory.mktemp("a"), X=np.ones((len(array), 2)), y=array)
    y = held(read_file(path, task="regression")).y
    np.testing.assert_array_equal(y.reshape(len(y), -1), array.reshape(len(y), -1).astype(float))
    assert y.shape == (array.shape if array.shape[1:] != (1,) else (len(array),))


@pytest.mark.parametrize("write", [write_npz, write_h5])
@pytest.mark.parametrize("task", ["classification", "regression"])
def test_weights_in_an_array(tmp_path, write, task):
    weights = np.array([0, 1, 2, 0.5, 3, 1e300])
    path = write(tmp_path, X=X, y=Y, X_val=X, y_val=Y, X_test=X, y_test=Y, How=weights, much=Y)
    contents = read_file(path, task=task, sample_weight="How")
    np.testing.assert_array_equal(held(contents).sample_weight, weights)
    assert (
        held(contents, "test").sample_weight is held(contents, "validation").sample_weight is None
    )
    assert held(read_file(path, task=task)).sample_weight is None
    whole = read_file(path, sample_weight="much")
    assert held(whole).sample_weight.dtype == np.float64


@pytest.mark.parametrize("write", [write_npz, write_h5])
@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ([1, 1, -0.5, 1, 1, -1], "w must hold finite weights of at least 0, got -0.5 for sample 2"),
        ([1, np.inf, 1, 1, 1, 1], "finite weights of at least 0, got inf for sample 1"),
        ([1, np.nan, 1, 1, 1, 1], "finite weights of at least 0, got nan for sample 1"),
        ([1, 1], "w must hold a weight for each of 6 samples, got shape (2,)"),
        ([b"a"] * 6, "w must hold numbers, got dtype |S1"),
    ],
)
def test_wrong_weights(tmp_path, write, weights, said):
    path = write(tmp_path, X=X, y=Y, w=np.array(weights))
    assert said in refusal(path, sample_weight="w")
    assert "unknown array 'v'; valid arrays:" in refusal(path, sample_weight="v")


def test_numbers_and_weights_in_columns(tmp_path):
    path = write_csv(tmp_path, "w,a,y,b\n1,2,1.50,3\n0,4,-1e2,5\n2.5,6,07,8\n")
    contents = read_file(path, target="y", task="regression", sample_weight="w")
    assert contents.feature_names == ("a", "b")
    np.testing.assert_array_equal(held(contents).X, [[2, 3], [4, 5], [6, 8]])
    assert held(contents).X.flags.c_contiguous
    assert held(contents).y.tolist() == [1.5, -100, 7]
    assert held(contents).sample_weight.tolist() == [1, 0, 2.5]
    contents = read_file(path, target="y", sample_weight="w")
    assert held(contents).y.tolist() == ["1.50", "-1e2", "07"]
    assert held(contents).sample_weight.tolist() == [1, 0, 2.5]
    contents = read_file(path, columns=["b"], task="regression")
    assert held(contents).y is held(contents).sample_weight is None


@pytest.mark.parametrize(
    ("rows", "options", "said"),
    [
        ("1,2,x\n", {}, "line 2, column y: expected a finite number, got 'x'"),
        ("1,2,3\n1,2,\n", {}, "line 3, column y: expected a finite number, got ''"),
        ("1,2,inf\n", {}, "line 2, column y: expected a finite number, got 'inf'"),
        ("1,2,3\n1,-2,3\n", {}, "line 3, column w: expected a weight of at least 0, got '-2'"),
        ("1,nan,3\n", {}, "line 2, column w: expected a finite number, got 'nan'"),
        (
            "1,2,3\n",
            {"sample_weight": "ww"},
            "unknown column 'ww'; did you mean 'w'? Valid columns",
        ),
        ("1,2,3\n", {"sample_weight": "y"}, "must be neither the target nor a feature, got 'y'"),
        ("1,2,3\n", {"columns": ["a", "w"]}, "must be neither the target nor a feature, got 'w'"),
        ("1,2,3\n", {"columns": ["y"]}, "without the target, got y"),
    ],
)
def test_wrong_numbers_and_weights_in_columns(tmp_path, rows, options, said):
    path = write_csv(tmp_path, "a,w,y\n" + rows)
    options = {"target": "y", "task": "regression", "sample_weight": "w", **options}
    assert said in refusal(path, **options)


def test_numbers_in_idx(tmp_path):
    path = write_idx(tmp_path / "a-images-idx3-ubyte", IMAGES)
    write_idx(tmp_path / "a-labels-idx1-ubyte", (Y / 2).astype(">f4"), 0x0D)
    assert held(read_file(path, task="regression")).y.tolist() == (Y / 2).tolist()
    write_idx(tmp_path / "a-labels-idx1-ubyte", np.stack([Y, -Y], 1).astype(">f8"), 0x0E)
    assert held(read_file(path, task="regression")).y.shape == (6, 2)
