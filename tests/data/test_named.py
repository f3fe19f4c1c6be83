"""Named data sets: what they hold, and what is said where they cannot be had."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from tests.conftest import require_file
from xpnet.data import DataError, load_dataset


def test_digits():
    data = load_dataset("digits")
    assert (data.X_train.shape, data.X_test.shape) == ((1437, 64), (360, 64))
    assert data.X_train.min() == 0
    assert data.X_train.max() == 1
    assert set(data.y_train) == set(data.y_test) == set(range(10))
    # stratified: every class's share of the test data is a fifth, to the sample
    for digit in range(10):
        n = (data.y_train == digit).sum() + (data.y_test == digit).sum()
        assert abs((data.y_test == digit).sum() - n / 5) <= 1
    assert data.class_names == tuple("0123456789")
    assert data.majority_accuracy == pytest.approx(37 / 360)
    again = load_dataset("digits")
    np.testing.assert_array_equal(again.X_test, data.X_test)


def test_cats(data_dir):
    for part in ("train", "test"):
        require_file(data_dir, f"{part}_catvnoncat.h5")
    pytest.importorskip("h5py")
    data = load_dataset("cats", data_dir=data_dir)
    assert (data.X_train.shape, data.X_test.shape) == ((209, 12288), (50, 12288))
    assert (data.y_train.sum(), data.y_test.sum()) == (72, 33)
    assert 0 <= data.X_train.min() < data.X_train.max() <= 1
    assert data.majority_accuracy == 33 / 50


def test_the_environment_names_the_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("XPNET_DATA_DIR", str(tmp_path))
    with pytest.raises(DataError, match=r"train_catvnoncat\.h5, which is not in"):
        load_dataset("cats")
    monkeypatch.delenv("XPNET_DATA_DIR")
    with pytest.raises(DataError, match="say where it is with --data-dir DIR or XPNET_DATA_DIR"):
        load_dataset("cats")


@pytest.mark.parametrize("name", ["dogs", ["digits"], None])
def test_an_unknown_name(name):
    with pytest.raises(DataError, match="dataset must be one of digits, cats, got "):
        load_dataset(name)


@pytest.mark.parametrize(
    ("module", "dataset", "package"),
    [("sklearn.datasets", "digits", "scikit-learn"), ("h5py", "cats", "h5py")],
)
def test_a_missing_package_is_named(monkeypatch, tmp_path, module, dataset, package):
    (tmp_path / "train_catvnoncat.h5").touch()
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(
        DataError,
        match=rf"needs {package}, which cannot be imported \(.*\); type: pip install {package}",
    ):
        load_dataset(dataset, data_dir=tmp_path)


def images(n=3, shape=(64, 64, 3), dtype=np.uint8):
    return np.zeros((n, *shape), dtype)


@pytest.mark.parametrize(
    ("contents", "said"),
    [
        ({}, "is not the cats file it should be"),
        ({"train_set_x": images()}, "is not the cats file it should be"),
        ({"train_set_x": images(shape=(8, 8, 3)), "train_set_y": [0] * 3}, r"\(n, 64, 64, 3\)"),
        ({"train_set_x": images(dtype=np.int16), "train_set_y": [0] * 3}, "uint8 images"),
        ({"train_set_x": images(), "train_set_y": [0, 1]}, "for each of the 3 images"),
        ({"train_set_x": images(), "train_set_y": [0, 1, 2]}, "a label 0 or 1"),
        ({"train_set_x": images(0), "train_set_y": np.zeros(0, int)}, "for each of the 0 images"),
    ],
)
def test_files_that_are_not_what_they_should_be(tmp_path, contents, said):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "train_catvnoncat.h5", "w") as file:
        for key, value in contents.items():
            file[key] = value
    with pytest.raises(DataError, match=said):
        load_dataset("cats", data_dir=tmp_path)


@pytest.mark.parametrize("content", [b"", b"\x89HDF\r\n\x1a\n" + b"\0" * 50, b"text"])
def test_files_that_are_not_hdf5(tmp_path, content):
    pytest.importorskip("h5py")
    (tmp_path / "train_catvnoncat.h5").write_bytes(content)
    with pytest.raises(DataError, match="is not the cats file it should be"):
        load_dataset("cats", data_dir=tmp_path)
