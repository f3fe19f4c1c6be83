"""Named data sets: what they hold, and the errors when they cannot be read or downloaded."""

from __future__ import annotations

import gzip
import struct
import sys
from typing import Any

import numpy as np
import pytest

from tests.conftest import require_file
from xpnet.data import DataError, load_contents, load_dataset, named, store

pytestmark = pytest.mark.host


@pytest.fixture(autouse=True)
def _nothing_elsewhere(monkeypatch, tmp_path):
    """Look in no folder but those of the test, and reach no network."""
    monkeypatch.delenv("XPNET_DATA_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(store, "DEBIAN", tmp_path / "debian")
    for variable in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")  # where nobody listens


def test_digits():
    data = load_dataset("digits")
    assert (data.X_train.shape, data.X_test.shape) == ((1437, 64), (360, 64))
    assert (data.X_train.min(), data.X_train.max()) == (0, 16)
    assert set(data.y_train) == set(data.y_test) == set(range(10))
    # stratified: every class's share of the test data is a fifth, to the sample
    for digit in range(10):
        n = (data.y_train == digit).sum() + (data.y_test == digit).sum()
        assert abs((data.y_test == digit).sum() - n / 5) <= 1
    assert data.class_names == tuple("0123456789")
    assert data.image_shape == (8, 8)
    assert data.majority_accuracy == pytest.approx(37 / 360)
    again = load_dataset("digits")
    np.testing.assert_array_equal(again.X_test, data.X_test)
    with_validation = load_dataset("digits", validation_fraction=0.1)
    np.testing.assert_array_equal(with_validation.X_test, data.X_test)
    assert with_validation.y_validation is not None
    assert len(with_validation.y_validation) == 144
    assert len(with_validation.y_train) == 1293


def test_cats(data_dir):
    for part in ("train", "test"):
        require_file(data_dir, f"{part}_catvnoncat.h5")
    data = load_dataset("cats", data_dir=data_dir)
    assert (data.X_train.shape, data.X_test.shape) == ((209, 12288), (50, 12288))
    assert (data.y_train.sum(), data.y_test.sum()) == (72, 33)
    assert data.X_train.dtype == np.uint8
    assert (data.image_shape, data.class_names) == ((64, 64, 3), ("non-cat", "cat"))
    assert data.majority_accuracy == 33 / 50
    assert data.X_validation is None


def test_diabetes():
    from sklearn.datasets import load_diabetes

    data = load_dataset("diabetes", task="regression")
    assert (data.task, data.n_classes, data.n_targets, data.class_names) == ("regression", 0, 1, ())
    assert (data.X_train.shape, data.X_test.shape) == ((353, 10), (89, 10))
    assert data.y_train.dtype == data.y_test.dtype == np.float64
    assert (data.y_train.min(), data.y_train.max()) == (25, 346)
    assert data.feature_names == ("age", "sex", "bmi", "bp", "s1", "s2", "s3", "s4", "s5", "s6")
    assert data.majority_accuracy == 0
    published = load_diabetes(scaled=False)
    found = np.column_stack([np.r_[data.X_train, data.X_test], np.r_[data.y_train, data.y_test]])
    given = np.column_stack([published.data, published.target])
    np.testing.assert_array_equal(found[np.lexsort(found.T)], given[np.lexsort(given.T)])
    other = load_dataset("diabetes", task="regression", seed=1, validation_fraction=0.25)
    assert not np.array_equal(other.y_test, data.y_test)
    assert other.y_validation is not None
    assert len(other.y_validation) == 89


@pytest.mark.parametrize("name", named.NAMES)
def test_a_name_is_for_one_of_the_two_tasks(name):
    other = "classification" if name == "diabetes" else "regression"
    said = f"{name} is a classification data set, got task 'regression': use a loss for classific"
    if name == "diabetes":
        said = "diabetes is a regression data set, got task 'classification': use a loss for reg"
    with pytest.raises(DataError, match=said):
        load_dataset(name, task=other)
    if name not in named.GENERATED:
        with pytest.raises(DataError, match=said):
            load_contents(name, task=other)
    for load in (load_dataset, load_contents):
        with pytest.raises(ValueError, match="task must be 'classification' or 'regression', got"):
            load("digits", task="ranking")


@pytest.mark.parametrize("name", ["moons", "digits", "a-images-idx3-ubyte"])
def test_weights_are_in_files_that_name_them(name):
    said = f"sample_weight is only for .csv, .npz, .h5, .hdf5 files; got 'w' for {name}"
    with pytest.raises(DataError, match=said):
        load_dataset(name, sample_weight="w")


def test_fashion_mnist(monkeypatch):
    monkeypatch.undo()
    require_file(store.DEBIAN / "fashion-mnist", "train-images-idx3-ubyte.gz")
    data = load_dataset("fashion-mnist")
    assert (data.X_train.shape, data.X_test.shape) == ((60_000, 784), (10_000, 784))
    assert np.bincount(data.y_train).tolist() == [6000] * 10
    assert np.bincount(data.y_test).tolist() == [1000] * 10
    assert data.class_names[9] == "Ankle boot"
    assert data.y_train[0] == 9
    assert data.image_shape == (28, 28)


@pytest.mark.parametrize(
    ("name", "n_classes"), [("moons", 2), ("circles", 2), ("blobs", 3), ("flower", 2)]
)
def test_points_drawn_at_random(name, n_classes):
    data = load_dataset(name, n_samples=300, test_fraction=0.25)
    assert (data.X_train.shape, data.X_test.shape) == ((225, 2), (75, 2))
    assert data.n_classes == n_classes
    assert data.image_shape is None
    np.testing.assert_array_equal(
        load_dataset(name, n_samples=300, test_fraction=0.25).X_test, data.X_test
    )
    other = load_dataset(name, n_samples=300, test_fraction=0.25, seed=1)
    assert not np.array_equal(other.X_train, data.X_train)
    noisier = load_dataset(name, n_samples=300, test_fraction=0.25, noise=3.0)
    assert np.abs(noisier.X_train).max() > np.abs(data.X_train).max()


def test_points_are_scikit_learns():
    """With the noise that the table gives."""
    from sklearn import datasets

    expected = {
        "moons": datasets.make_moons(100, noise=0.2, random_state=3),
        "circles": datasets.make_circles(100, noise=0.05, random_state=3),
        "blobs": datasets.make_blobs(100, centers=3, cluster_std=1.0, random_state=3),
    }
    for name, (X, y) in expected.items():
        data = load_dataset(name, n_samples=100, seed=3)
        found = np.column_stack(
            [np.r_[data.X_train, data.X_test], np.r_[data.y_train, data.y_test]]
        )
        given = np.column_stack([X, y])
        np.testing.assert_array_equal(found[np.lexsort(found.T)], given[np.lexsort(given.T)])
    assert named.GENERATED["flower"] == 0.2


def test_an_odd_number_of_points():
    for name in ("moons", "circles", "blobs", "flower"):
        data = load_dataset(name, n_samples=101)
        assert len(data.y_train) + len(data.y_test) == 101


def test_the_flower_is_the_courses():
    """Four hundred points of seed 1: radius 4 |sin 4t| but for the noise, four petals a class."""
    X, y = named._flower(400, 0.0, 1)
    radius, angle = np.hypot(*X.T), np.arctan2(X[:, 0], X[:, 1])
    np.testing.assert_allclose(radius, np.abs(4 * np.sin(4 * angle)), atol=1e-12)
    assert np.bincount(y).tolist() == [200, 200]
    noisy, _ = named._flower(400, 0.2, 1)
    state = np.random.RandomState(1)
    t = np.linspace(0, 3.12, 200) + 0.2 * state.randn(200)
    r = 4 * np.sin(4 * t) + 0.2 * state.randn(200)
    np.testing.assert_allclose(noisy[:200], np.stack([r * np.sin(t), r * np.cos(t)], axis=1))


@pytest.mark.needs("h5py", "pooch")
def test_folders_are_looked_into(monkeypatch, tmp_path):
    with pytest.raises(DataError, match=r"'cats': cannot get train_catvnoncat\.h5 from https://"):
        load_dataset("cats")
    for folder in ("named", "environment"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "train_catvnoncat.h5").write_text(folder)
    monkeypatch.setenv("XPNET_DATA_DIR", str(tmp_path / "environment"))
    with pytest.raises(DataError, match=r"environment.train_catvnoncat\.h5"):
        load_dataset("cats")
    with pytest.raises(DataError, match=r"named.train_catvnoncat\.h5"):
        load_dataset("cats", data_dir=tmp_path / "named")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("songs", "unknown data set 'songs'; valid data sets: digits, cats, fashion-mnist"),
        ("cat", "unknown data set 'cat'; did you mean 'cats'?"),
        (["digits"], r"dataset must be a name or a path, got \['digits'\]"),
        (None, "dataset must be a name or a path, got None"),
        ("points.txt", "unknown data set 'points.txt'"),
        ("none.npz", "none.npz: no such file"),
        ("none.csv", "target must name the column of the labels"),
        ("folder/none", "folder/none"),
        ("a" * 300, "unknown data set 'aaa"),
        ("a" * 300 + ".npz", "aaa.npz: "),
    ],
)
def test_an_unknown_name(name, said):
    with pytest.raises(DataError, match=said):
        load_dataset(name)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"n_samples": 0}, "n_samples must be an integer of at least 10, got 0"),
        ({"n_samples": 10.5}, "n_samples must be an integer of at least 10, got 10.5"),
        ({"noise": -1}, "noise must be a finite number of at least 0, got -1"),
        ({"noise": float("nan")}, "noise must be a finite number of at least 0, got nan"),
        ({"test_fraction": 0}, r"test_fraction must lie in \(0, 1\), got 0"),
        ({"test_fraction": "half"}, r"test_fraction must lie in \(0, 1\), got 'half'"),
        ({"validation_fraction": 1.0}, r"validation_fraction must lie in \[0, 1\), got 1.0"),
        ({"seed": -1}, r"seed must lie in \[0, 2\*\*32\), got -1"),
    ],
)
def test_options_out_of_range(options, said):
    with pytest.raises(ValueError, match=said):
        load_dataset("moons", **options)


def test_noise_beyond_all_measure():
    with pytest.raises(DataError, match=r"must be finite, got overflow with noise 1e\+308"):
        load_dataset("moons", noise=1e308)


def test_cats_need_h5py(monkeypatch, tmp_path):
    (tmp_path / "train_catvnoncat.h5").touch()
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(
        DataError, match=r"needs h5py, which cannot be imported \(.*\); type: pip install h5py"
    ):
        load_dataset("cats", data_dir=tmp_path)


def images(n=3, shape=(64, 64, 3), dtype=np.uint8):
    return np.zeros((n, *shape), dtype)


@pytest.mark.parametrize(
    ("contents", "said"),
    [
        ({}, "holds no features: expected an array X, data, features"),
        ({"train_set_x": images()}, "must hold a label 0 or 1 for each image"),
        ({"train_set_x": images(shape=(8, 8, 3)), "train_set_y": [0] * 3}, r"\(n, 64, 64, 3\)"),
        ({"train_set_x": images(dtype=np.int16), "train_set_y": [0] * 3}, "uint8 images"),
        ({"train_set_x": images(), "train_set_y": [0, 1]}, "a label for each of 3 samples"),
        ({"train_set_x": images(), "train_set_y": [0, 1, 2]}, "a label 0 or 1"),
        ({"test_set_x": images(), "test_set_y": [0, 1, 1]}, r"\(n, 64, 64, 3\), got none"),
    ],
)
def test_files_that_are_not_the_cats(tmp_path, contents, said):
    import h5py

    with h5py.File(tmp_path / "train_catvnoncat.h5", "w") as file:
        for key, value in contents.items():
            file[key] = value
    with pytest.raises(DataError, match=said):
        load_dataset("cats", data_dir=tmp_path)


def write_idx(path, array):
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    path.write_bytes(gzip.compress(header + array.astype(np.uint8).tobytes()))


@pytest.mark.parametrize(
    ("X", "y", "said"),
    [
        (
            np.zeros((3, 28, 27)),
            np.zeros(3),
            r"uint8 images \(n, 28, 28\), got uint8 \(3, 28, 27\)",
        ),
        (np.zeros((3, 28, 28)), np.zeros(2), "a label 0 to 9 for each of 3 images"),
        (np.zeros((3, 28, 28)), np.full(3, 10), "a label 0 to 9 for each of 3 images"),
        (np.zeros((0, 28, 28)), np.zeros(0), "a label 0 to 9 for each of 0 images"),
    ],
)
def test_files_that_are_not_fashion_mnist(tmp_path, X, y, said):
    for part in ("train", "t10k"):
        write_idx(tmp_path / f"{part}-images-idx3-ubyte.gz", X)
        write_idx(tmp_path / f"{part}-labels-idx1-ubyte.gz", y)
    with pytest.raises(DataError, match=said):
        load_dataset("fashion-mnist", data_dir=tmp_path)


def test_a_file_of_ones_own(tmp_path, monkeypatch):
    path = tmp_path / "points.csv"
    path.write_text("u,v,kind\n" + "1,2,a\n3,4,b\n" * 10)
    data = load_dataset(path, target="kind")
    assert (data.class_names, data.feature_names) == (("a", "b"), ("u", "v"))
    assert load_dataset("points.csv", target="kind", data_dir=tmp_path).n_features == 2
    with pytest.raises(DataError, match="must name the column of the labels; give --target NAME"):
        load_dataset(path)
    with pytest.raises(DataError, match="column kind: expected a finite number"):
        load_contents(str(path))
    assert load_contents(str(path), columns=("v",)).parts["train"].X[:2].tolist() == [[2], [4]]
    monkeypatch.chdir(tmp_path)
    assert load_dataset("points.csv", target="kind").name == "points.csv"


def test_a_target_is_for_columns_only(tmp_path):
    np.savez(tmp_path / "a.npz", X=np.eye(4), y=np.arange(4) % 2)
    for dataset in ("moons", "digits", tmp_path / "a.npz"):
        with pytest.raises(DataError, match=r"target is only for \.csv files, .*; got 'kind'"):
            load_dataset(dataset, target="kind")
    with pytest.raises(DataError, match=r"target is only for \.csv files, .*; got 'kind'"):
        load_contents(tmp_path / "a.npz", target="kind")


def test_an_address_is_no_file():
    with pytest.raises(DataError, match=r"^https://x\.y/a\.csv is a URL: download the file"):
        load_dataset("https://x.y/a.csv", target="kind")


def test_numpys_scalars_are_numbers():
    scalars: dict[str, Any] = {"n_samples": np.int64(50), "noise": np.float32(0)}
    found = load_dataset("flower", **scalars)
    assert len(found.y_train) + len(found.y_test) == 50


def test_where_a_file_of_ones_own_is_looked_up(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def n_found(data_dir=None):
        return len(load_contents("a.csv", data_dir=data_dir).parts["train"].X)

    with pytest.raises(DataError, match=r"a\.csv: no such file"):
        n_found()
    for n_rows, folder in ((3, "environment"), (2, "."), (1, "named")):  # the last comes first
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / "a.csv").write_text("u\n" + "0\n" * n_rows)
        monkeypatch.setenv("XPNET_DATA_DIR", str(tmp_path / "environment"))
        assert n_found("named" if folder == "named" else None) == n_rows
    (tmp_path / "other" / "a.csv").mkdir(parents=True)  # a folder of that name is not the file
    assert n_found("other") == 2
    with pytest.raises(DataError, match="data_dir must be an existing folder, got 'none'"):
        n_found("none")
    with pytest.raises(DataError, match="data_dir must be an existing folder, got 'none'"):
        load_dataset("moons", data_dir="none")


def test_points_drawn_at_random_are_in_no_file():
    with pytest.raises(DataError, match="moons is generated, not stored"):
        load_contents("moons")
