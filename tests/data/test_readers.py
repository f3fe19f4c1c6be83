"""Every format that is read, by every name that is usual in it; and every way of being wrong."""

from __future__ import annotations

import builtins
import gzip
import importlib
import struct
import time
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tests.conftest import require_file
from xpnet.data.checks import check_class_names, check_labels
from xpnet.data.dataset import DataError
from xpnet.data.readers import read_file, read_idx

pytestmark = pytest.mark.host

X = np.arange(12, dtype=np.float32).reshape(6, 2)
Y = np.array([0, 1, 2, 0, 1, 2])
IMAGES = np.arange(6 * 5 * 4, dtype=np.uint8).reshape(6, 5, 4)


def write_npz(folder, **arrays):
    np.savez(folder / "a.npz", **arrays)
    return folder / "a.npz"


def write_h5(folder, **arrays):
    import h5py

    with h5py.File(folder / "a.h5", "w") as file:
        for name, array in arrays.items():
            file[name] = array
    return folder / "a.h5"


def write_csv(folder, text, encoding="utf-8"):
    (folder / "a.csv").write_bytes(text.encode(encoding))
    return folder / "a.csv"


def write_idx(path, array, code=0x08, shape=None):
    shape = array.shape if shape is None else shape
    content = struct.pack(f">BBBB{len(shape)}I", 0, 0, code, len(shape), *shape) + array.tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix.lower() == ".gz" else content)
    return path


def held(contents, part="train"):
    return contents.parts[part]


def refusal(path, **options):
    """Give what read_file says against a file: one line that begins with its name."""
    with pytest.raises(DataError) as caught:
        read_file(path, **options)
    said = str(caught.value)
    assert said.startswith(f"{path}: ")
    assert len(said.splitlines()) == 1
    return said.removeprefix(f"{path}: ")


# ---- .npz and .h5


@pytest.mark.parametrize("write", [write_npz, write_h5])
@pytest.mark.parametrize(
    ("part", "names"),
    [
        ("train", ("X", "y")),
        ("train", ("x", "Y")),
        ("train", ("data", "target")),
        ("train", ("features", "labels")),
        ("train", ("X_train", "y_train")),
        ("train", ("train_X", "train_y")),
        ("train", ("train_set_x", "train_set_y")),
        ("validation", ("X_validation", "y_validation")),
        ("validation", ("valid_X", "valid_y")),
        ("validation", ("X_val", "y_val")),
        ("validation", ("val_set_x", "val_set_y")),
        ("test", ("X_test", "y_test")),
        ("test", ("test_set_x", "test_set_y")),
    ],
)
def test_usual_names(tmp_path, write, part, names):
    contents = read_file(write(tmp_path, **dict(zip(names, (X, Y), strict=True)), other=X))
    assert list(contents.parts) == [part]
    np.testing.assert_array_equal(held(contents, part).X, X)
    assert held(contents, part).X.dtype == X.dtype
    np.testing.assert_array_equal(held(contents, part).y, Y)
    assert held(contents, part).y.dtype == np.int64
    assert contents.class_names is None


@pytest.mark.parametrize("write", [write_npz, write_h5])
@pytest.mark.parametrize("name", ["class_names", "classes", "list_classes", "target_names"])
def test_class_names_and_all_parts(tmp_path, write, name):
    names = np.array([b"zero", b"one", b"two"])
    path = write(
        tmp_path, X_train=X, y_train=Y, X_val=X[:2], X_test=X[:3], y_test=Y[:3], **{name: names}
    )
    contents = read_file(path)
    assert contents.class_names == ("zero", "one", "two")
    assert {part: len(held.X) for part, held in contents.parts.items()} == {
        "train": 6,
        "validation": 2,
        "test": 3,
    }
    assert held(contents, "validation").y is None


@given(
    hnp.arrays(
        st.sampled_from(["bool", "u1", "i2", "<i4", ">i4", "<f4", ">f8", "f2"]),
        hnp.array_shapes(min_dims=2, max_dims=3, max_side=4),
        elements={"allow_nan": False, "allow_infinity": False},
    )
)
def test_any_finite_array_comes_back_from_npz(tmp_path_factory, array):
    X = held(read_file(write_npz(tmp_path_factory.mktemp("a"), X=array))).X
    np.testing.assert_array_equal(X, array.astype(np.uint8) if array.dtype == bool else array)
    assert X.dtype.isnative
    assert X.flags.c_contiguous


@pytest.mark.parametrize("write", [write_npz, write_h5])
@pytest.mark.parametrize(
    ("y", "read"),
    [
        (Y.reshape(6, 1).astype(np.uint8), Y),
        (Y.reshape(1, 6), Y),
        (Y.astype(np.float64), Y),
        (Y == 1, (Y == 1).astype(np.int64)),
        (-Y, -Y),
        (np.array([b"a", b"b ", b"c", b"a", b"b", b"c"]), np.array(list("abcabc"))),
    ],
)
def test_labels_in_many_forms(tmp_path, write, y, read):
    labels = held(read_file(write(tmp_path, X=X, y=y))).y
    np.testing.assert_array_equal(labels, read)
    assert labels.dtype == read.dtype


def test_a_single_channel_is_no_axis(tmp_path):
    assert held(read_file(write_npz(tmp_path, X=IMAGES[..., None]))).X.shape == (6, 5, 4)


@pytest.mark.parametrize("write", [write_npz, write_h5])
@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"Z": X}, "holds no features: expected them as X, data, features, X_train"),
        ({"y": Y}, "holds no features"),
        ({"X": X, "data": X}, "holds the same thing twice, as X, data"),
        ({"X": X, "y": Y, "y_test": Y}, "holds y_test, but no features that these labels"),
        ({"X": X[:0]}, "X must hold a sample and a feature at least, got (0, 2)"),
        ({"X": X[:, :0]}, "X must hold a sample and a feature at least, got (6, 0)"),
        ({"X": X[:, 0]}, "X must have shape (n_samples, n_features), or (n_samples, height"),
        ({"X": X.reshape(1, 1, 1, 6, 2)}, "X must have shape"),
        ({"X": X.reshape(2, 1, 3, 2)}, "with 1, 3 or 4 channels, got (2, 1, 3, 2)"),
        ({"X": X * 1j}, "got dtype complex64"),
        ({"X": X.astype("S3")}, "integers or floats of up to 64 bits, got dtype |S3"),
        ({"X": np.where(X == 3, np.nan, X)}, "got NaN or infinity 1 times, first at (1, 1)"),
        ({"X": np.where(X > 9, np.inf, X)}, "got NaN or infinity 2 times, first at (5, 0)"),
        ({"X": X, "y": Y[:5]}, "y must hold a label for each of 6 samples"),
        ({"X": X, "y": np.eye(6)}, "y must hold a label for each of 6 samples"),
        ({"X": X, "y": Y + 0.5}, "y must hold whole numbers, got 0.5 for sample 0"),
        ({"X": X, "y": Y * np.nan}, "y must hold whole numbers, got nan for sample 0"),
        ({"X": X, "y": Y * 2.0**60}, "y must hold whole numbers, got"),
        ({"X": X, "y": np.uint64(2**63) + Y.astype("u8")}, "y must hold whole numbers, got"),
        ({"X": X, "y": Y * 1j}, "got dtype complex128"),
        ({"X": X, "y": np.array([b"a", b" "] * 3)}, "got an empty string at 1"),
        ({"X": X, "y": np.array([b"a" * 201] * 6)}, "1 to 200 characters, got 201"),
        (
            {"X": X, "y": Y, "classes": np.array([b"a", b"b"])},
            "as there are 2 class names, got 0 to 2",
        ),
        ({"X": X, "y": Y - 1, "classes": np.array([b"a", b"b"])}, "labels out of range"),
        ({"X": X, "classes": np.array([b"a", b"a"])}, "must hold names that differ"),
        ({"X": X, "classes": Y / 2}, "classes must be a list of strings, got dtype float64"),
        ({"X": X, "y": np.array([b"\xff"] * 6)}, "must hold UTF-8 text, got another encoding"),
    ],
)
def test_wrong_arrays(tmp_path, write, arrays, said):
    assert said in refusal(write(tmp_path, **arrays))


def test_names_that_are_numbers(tmp_path):
    """As scikit-learn's ``load_digits()`` gives them."""
    found = read_file(write_npz(tmp_path, data=X, target=Y, target_names=np.arange(3)))
    assert found.class_names == ("0", "1", "2")
    said = refusal(write_npz(tmp_path, data=X, target=Y, target_names=np.arange(1, 4)))
    assert "target_names must be a list of strings, got dtype int64" in said  # 1 would be named 2


def test_numpys_own_strings():
    strings = getattr(np.dtypes, "StringDType", None)
    if strings is None:
        pytest.skip("NumPy has no StringDType")
    labels = np.array(["b", "a"] * 3, dtype=strings())
    assert check_labels("y", labels, 6).tolist() == ["b", "a"] * 3
    assert check_class_names("names", labels[:2]) == ("b", "a")


@pytest.mark.parametrize("write", [write_npz, write_h5])
def test_images_with_four_channels(tmp_path, write):
    found = held(read_file(write(tmp_path, X=np.ones((6, 2, 3, 4)), y=Y)))
    assert found.X.shape == (6, 2, 3, 4)


def test_strings_of_varying_length_in_a_column(tmp_path):
    import h5py

    labels = np.array([["a"], ["b"]] * 3, dtype=object)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["X"] = X
        file.create_dataset("y", data=labels, dtype=h5py.string_dtype())
    assert held(read_file(tmp_path / "a.h5")).y.tolist() == ["a", "b"] * 3
    with h5py.File(tmp_path / "a.h5", "a") as file:
        del file["y"]
        file.create_dataset("y", data=labels.reshape(2, 3), dtype=h5py.string_dtype())
    assert "y must be a list of strings, got shape (2, 3)" in refusal(tmp_path / "a.h5")


def test_strings_that_are_no_text(tmp_path):
    beyond = np.array([0x110000] * 6, dtype="<u4").view("<U1")  # after the last code point
    assert "y must hold strings of Unicode" in refusal(write_npz(tmp_path, X=X, y=beyond))
    half = np.array(["\ud800"] * 6)  # of a pair
    assert "'utf-8' codec can't encode" in refusal(write_npz(tmp_path, X=X, y=half))


def test_a_checksum_that_is_wrong(tmp_path):
    path = write_npz(tmp_path, X=X)
    whole = path.read_bytes()
    at = whole.index(X.tobytes())
    path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    assert "Bad CRC-32 for file 'X.npy'" in refusal(path)


def test_what_npz_files_must_not_be(tmp_path):
    path = write_npz(tmp_path, X=np.array([[{"an": "object"}]], dtype=object))
    assert "X.npy holds Python objects, which are not read" in refusal(path)

    def write_member(content, **options):
        with zipfile.ZipFile(path, "w", **options) as archive:
            archive.writestr("X.npy", content)

    write_member(b"no array")
    assert "the magic string is not correct" in refusal(path)
    write_member(b"\x93NUMPY\x03\x00" + bytes(100))
    assert "X.npy must have version 1.0 or 2.0, got (3, 0)" in refusal(path)
    write_member(b"\x93NUMPY\x01\x00", compression=zipfile.ZIP_LZMA)
    assert "X.npy must be stored or deflated, got another compression" in refusal(path)
    header = "{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000, 1000), }"
    header = header.ljust(117) + "\n"
    write_member(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode())
    assert "claims dtype float64 and shape (1000000000, 1000)" in refusal(path)


def test_what_h5_files_must_not_be(tmp_path):
    import h5py

    other = write_npz(tmp_path, X=X)

    def said(make):
        with h5py.File(tmp_path / "a.h5", "w") as file:
            make(file)
        return refusal(tmp_path / "a.h5")

    assert "holds no features" in said(lambda file: file.create_group("X"))
    outside = [(str(other), 0, 48)]
    assert "X must be in the file itself" in said(
        lambda file: file.create_dataset("X", (6, 2), "f4", external=outside)
    )
    link = h5py.ExternalLink(str(tmp_path / "b.h5"), "X")
    assert "holds no features" in said(lambda file: file.__setitem__("X", link))
    assert "X must hold values, got an empty dataset" in said(
        lambda file: file.__setitem__("X", h5py.Empty("f4"))
    )
    # Nothing is stored of this dataset, which would fill the memory of most machines.
    assert "is damaged: X claims 8,000,000,000,000 bytes, which the 0 stored cannot hold" in said(
        lambda file: file.create_dataset("X", (10**9, 1000), "f8")
    )
    chunks = {"shape": (1, 2), "maxshape": (None, 2), "chunks": (10**8, 2)}
    assert "a chunk of X claims 800,000,000 bytes, which the" in said(
        lambda file: file.create_dataset("X", dtype="f4", **chunks)
    )
    assert "X must be packed with none but deflate, shuffle, fletcher32, lzf" in said(
        lambda file: file.create_dataset("X", data=X.astype("i4"), scaleoffset=0)
    )
    assert "X must hold numbers or strings, got dtype" in said(
        lambda file: file.create_dataset("X", data=np.zeros(3, [("a", "i4"), ("b", "f4")]))
    )


def test_h5_whose_heap_of_strings_has_no_end(tmp_path):
    path = write_h5(tmp_path, X=X, y=["a", "b", "c"] * 2)
    assert held(read_file(path)).y.tolist() == ["a", "b", "c"] * 2
    whole = path.read_bytes()
    first = whole.index(b"GCOL") + 16
    last = first + 6 * 24  # six strings, then what is free
    for at, size in ((last, 0), (last, 15), (last, 1 << 40), (first, 2**64 - 16), (first, 1 << 62)):
        path.write_bytes(whole[: at + 8] + struct.pack("<Q", size) + whole[at + 16 :])
        assert refusal(path) == f"is damaged: its heap of strings breaks off at byte {at:,}"


def test_h5_without_h5py(tmp_path, monkeypatch):
    def import_module(name):
        raise ImportError(f"No module named {name!r}")

    (tmp_path / "a.h5").write_bytes(b"anything")
    monkeypatch.setattr(importlib, "import_module", import_module)
    assert refusal(tmp_path / "a.h5").endswith("type: pip install h5py")


def test_the_courses_files(data_dir):
    for part, n_samples in (("train", 209), ("test", 50)):
        contents = read_file(require_file(data_dir, f"{part}_catvnoncat.h5"))
        assert contents.class_names == ("non-cat", "cat")
        assert list(contents.parts) == [part]
        assert held(contents, part).X.shape == (n_samples, 64, 64, 3)
        assert held(contents, part).X.dtype == np.uint8
        assert set(held(contents, part).y) == {0, 1}


# ---- numbers to be predicted, and weights


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
        (Y[:5], "y must hold a number, or a row of them, for each of 6 samples, got shape (5,)"),
        (Y[None], "for each of 6 samples, got shape (1, 6)"),
        (np.zeros((6, 1, 2)), "for each of 6 samples, got shape (6, 1, 2)"),
        (Y == 1, "y must hold numbers to be predicted, got dtype bool"),
        (np.array([b"a", b"b"] * 3), "y must hold numbers to be predicted, got dtype |S1"),
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
    assert "has no array 'v'; its arrays are" in refusal(path, sample_weight="v")


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
        ("1,2,x\n", {}, "line 2, column y: a finite number expected, got 'x'"),
        ("1,2,3\n1,2,\n", {}, "line 3, column y: a finite number expected, got ''"),
        ("1,2,inf\n", {}, "line 2, column y: a finite number expected, got 'inf'"),
        ("1,2,3\n1,-2,3\n", {}, "line 3, column w: a weight of at least 0 expected, got '-2'"),
        ("1,nan,3\n", {}, "line 2, column w: a finite number expected, got 'nan'"),
        ("1,2,3\n", {"sample_weight": "ww"}, "has no column 'ww'; did you mean 'w'? its columns"),
        ("1,2,3\n", {"sample_weight": "y"}, "must be in a column of their own, got 'y'"),
        ("1,2,3\n", {"columns": ["a", "w"]}, "must be in a column of their own, got 'w'"),
        ("1,2,3\n", {"columns": ["y"]}, "and not the target, got y"),
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


# ---- .csv


def test_csv(tmp_path):
    path = write_csv(tmp_path, '\ufeffa,"the, label",b\r\n1,x,2.5\r\n\r\n-3e2, y ,+.5\u00a0\r\n')
    contents = read_file(path, target="the, label")
    assert contents.feature_names == ("a", "b")
    np.testing.assert_array_equal(held(contents).X, [[1, 2.5], [-300, 0.5]])
    assert held(contents).y.tolist() == ["x", "y"]
    only_b = read_file(path, columns=["b"])
    np.testing.assert_array_equal(held(only_b).X, [[2.5], [0.5]])
    assert held(only_b).y is None


def test_csv_labels_that_are_whole_numbers(tmp_path):
    path = write_csv(tmp_path, "a,y\n1,7\n2,-1\n")
    assert held(read_file(path, target="y")).y.tolist() == [7, -1]
    path = write_csv(tmp_path, "a,y\n1,07\n2,7\n3,+7\n4,-0\n")
    assert held(read_file(path, target="y")).y.tolist() == ["07", "7", "+7", "-0"]
    for label in ("07", "+7", "-0", "7 000", "1" * 19):  # one of them is enough
        path = write_csv(tmp_path, f"a,y\n1,{label}\n2,7\n")
        assert held(read_file(path, target="y")).y.tolist() == [label, "7"]
    path = write_csv(tmp_path, "a,y\n1,007\n2,1.5\n")
    assert held(read_file(path, target="y")).y.tolist() == ["007", "1.5"]


def test_wide_csv(tmp_path):
    """Each column is found in one step: a table of genes has as many."""
    n = 50_000
    names = ",".join(f"gene {k}" for k in range(n))
    path = write_csv(tmp_path, f"{names}\n" + ",".join(map(str, range(n))) + "\n")
    started = time.process_time()
    assert held(read_file(path, target="gene 7")).X.shape == (1, n - 1)
    assert time.process_time() - started < 5  # 25 seconds, if each name were looked for
    twice = write_csv(tmp_path, f"{names},gene 49999\n")
    assert "'gene 49999' twice" in refusal(twice)
    assert time.process_time() - started < 10


def test_long_csv(tmp_path):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(2500, 3))
    path = write_csv(tmp_path, "a,b,c\n" + "\n".join(",".join(map(repr, x)) for x in X.tolist()))
    np.testing.assert_array_equal(held(read_file(path)).X, X)


@pytest.mark.parametrize(
    ("text", "options", "said"),
    [
        ("", {}, "is empty: expected a first line that names the columns"),
        ("\n\n", {}, "is empty"),
        ("a;b\n1;2\n", {}, "line 1: cells must be separated by commas, got 'a;b'"),
        ("a,b\n", {}, "must hold a sample at least, got the names of the columns alone"),
        ("a,,c\n1,2,3\n", {}, "line 1 must name every column, got no name for column 2"),
        ("a,b, a\n1,2,3\n", {}, "line 1 must give each column its own name, got 'a' twice"),
        (
            "petal,label\n1,2\n",
            {"target": "labels"},
            "has no column 'labels'; did you mean 'label'? its columns are petal, label",
        ),
        ("a,b\n1,2\n", {"columns": ["a", "c"]}, "has no column 'c'"),
        ("a,b\n1,2\n", {"columns": ["a", "a"]}, "each once, and not the target, got a, a"),
        ("a,b\n1,2\n", {"columns": []}, "must be one or more"),
        ("a,b\n1,2\n", {"columns": ["a"], "target": "a"}, "not the target, got a"),
        ("a\n1\n", {"target": "a"}, "the feature columns must be one or more"),
        ("a,b\n1,2\n3\n", {}, "line 3: 2 cells expected, got 1"),
        ("a,b\n1,2,3\n", {}, "line 2: 2 cells expected, got 3"),
        ("a,b\n1,2\n\n3,x\n", {}, "line 4, column b: a finite number expected, got 'x'"),
        ("a,b\n1,nan\n", {}, "line 2, column b: a finite number expected, got 'nan'"),
        ("a,b\n1,2\n-inf,2\n", {}, "line 3, column a: a finite number expected, got '-inf'"),
        ("a,b\n1,1e999\n", {}, "got '1e999'"),
        ("a,b\n1,\n", {}, "got ''"),
        ("a,b\n1,1_000\n", {}, "got '1_000'"),
        ("a,b\n1,\uff11\uff12\n", {}, "got '\uff11\uff12'"),
        ("a,b\n1,\n", {"target": "b"}, "line 2: a label expected, got an empty cell"),
        ('a,b\n1,"2\n', {}, "unexpected end of data"),
        ("a,b\n1,\0\n", {}, "line 2: text expected, got a NUL byte"),
        ("a,b\n1," + "x" * 201 + "\n", {"target": "b"}, "got 201 characters"),
    ],
)
def test_wrong_csv(tmp_path, text, options, said):
    assert said in refusal(write_csv(tmp_path, text), **options)


def test_csv_that_is_not_utf_8(tmp_path):
    assert "must hold UTF-8 text, got another encoding" in refusal(
        write_csv(tmp_path, "naïve\n1\n", "latin-1")
    )


# ---- idx


@pytest.mark.parametrize("end", ["", ".gz"])
@pytest.mark.parametrize(
    ("code", "dtype"),
    [(0x08, ">u1"), (0x09, ">i1"), (0x0B, ">i2"), (0x0C, ">i4"), (0x0D, ">f4"), (0x0E, ">f8")],
)
def test_idx(tmp_path, end, code, dtype):
    array = (IMAGES - 60.0).astype(dtype) if code != 0x08 else IMAGES
    read = read_idx(write_idx(tmp_path / f"a{end}", array, code))
    np.testing.assert_array_equal(read, array)
    assert read.dtype == array.dtype.newbyteorder("=")
    assert read.flags.writeable


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("train-images-idx3-ubyte.gz", "t10k-images-idx3-ubyte.gz"),
        ("train-images-idx3-ubyte.gz", "test-images-idx3-ubyte"),
        ("a-train-images.idx3-ubyte", "a-t10k-images.idx3-ubyte"),
        ("TRAIN-IMAGES-IDX3-UBYTE.GZ", "T10K-IMAGES-IDX3-UBYTE.GZ"),
        ("TRAIN-IMAGES-IDX3-UBYTE.gz", "T10K-IMAGES-IDX3-UBYTE"),
        ("MNISTtrain-images-idx3-ubyte", "MNISTt10k-images-idx3-ubyte"),
    ],
)
def test_idx_files_beside_one_another(tmp_path, train, test):
    for name, n in ((train, 6), (test, 3)):
        write_idx(tmp_path / name, IMAGES[:n])
        labels = name
        for word, other in (("images", "labels"), ("idx3", "idx1")):
            labels = labels.replace(word, other).replace(word.upper(), other.upper())
        write_idx(tmp_path / labels, Y[:n].astype(np.uint8))
    contents = read_file(tmp_path / train)
    np.testing.assert_array_equal(held(contents).X, IMAGES)
    np.testing.assert_array_equal(held(contents).y, Y)
    np.testing.assert_array_equal(held(contents, "test").y, Y[:3])
    alone = read_file(tmp_path / test)
    assert list(alone.parts) == ["train"]
    assert len(held(alone).X) == 3


def test_packed_or_not_as_the_file_that_was_named(tmp_path):
    for end, label in (("", 1), (".gz", 2)):
        write_idx(tmp_path / f"a-images-idx3-ubyte{end}", IMAGES)
        write_idx(tmp_path / f"a-labels-idx1-ubyte{end}", np.full(6, label, np.uint8))
    for end, label in (("", 1), (".gz", 2)):
        assert held(read_file(tmp_path / f"a-images-idx3-ubyte{end}")).y.tolist() == [label] * 6


def test_test_images_alone_are_no_part(tmp_path):
    path = write_idx(tmp_path / "train-images-idx3-ubyte", IMAGES)
    write_idx(tmp_path / "train-labels-idx1-ubyte", Y.astype(np.uint8))
    write_idx(tmp_path / "t10k-images-idx3-ubyte", IMAGES[:2])
    assert list(read_file(path).parts) == ["train"]
    write_idx(tmp_path / "test-images-idx3-ubyte", IMAGES[:3])
    write_idx(tmp_path / "test-labels-idx1-ubyte", Y[:3].astype(np.uint8))
    assert len(held(read_file(path), "test").X) == 3


def test_words_within_words_are_none(tmp_path):
    path = write_idx(tmp_path / "strained-images-idx3-ubyte", IMAGES)
    write_idx(tmp_path / "st10ked-images-idx3-ubyte", IMAGES)
    assert list(read_file(path).parts) == ["train"]


def test_idx_without_labels(tmp_path):
    contents = read_file(write_idx(tmp_path / "new-images-idx3-ubyte", IMAGES))
    assert held(contents).y is None
    assert "test" not in contents.parts


def test_wrong_idx(tmp_path):
    path = tmp_path / "images-idx3-ubyte"
    for content, said in (
        (b"", "is empty"),
        (b"\0\0\x08", "is no idx file: expected two zero bytes"),
        (b"\x93NUMPY", "is no idx file"),
        (b"\0\0\x0a\x01\0\0\0\1\0", "is no idx file"),
        (b"\0\0\x08\x00", "is no idx file"),
        (b"\0\0\x08\x03\0\0\0\1", "is cut short: expected 3 lengths after its start"),
    ):
        path.write_bytes(content)
        assert said in refusal(path)
    write_idx(path, IMAGES[:5], shape=IMAGES.shape)
    assert "is damaged: shape (6, 5, 4) makes 120 bytes, got 100" in refusal(path)
    write_idx(path, IMAGES, shape=(5, 5, 4))
    assert "is damaged: shape (5, 5, 4) makes 100 bytes, got more" in refusal(path)
    write_idx(path, IMAGES, shape=(2**32 - 1, 2**32 - 1, 28))
    assert "is damaged: its header claims" in refusal(path)
    write_idx(path, IMAGES[0, 0])
    assert "the array must have shape" in refusal(path)
    nan = np.where(IMAGES == 7, np.nan, IMAGES).astype(">f4")
    write_idx(path, nan, 0x0D)
    assert "NaN or infinity 1 times, first at (0, 1, 3)" in refusal(path)

    write_idx(path, IMAGES)
    labels = write_idx(tmp_path / "labels-idx1-ubyte", Y[:4].astype(np.uint8))
    with pytest.raises(DataError, match=r"labels-idx1-ubyte: the array must hold a label for each"):
        read_file(path)
    assert "holds labels: give the file of the images" in refusal(labels)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"no gzip", "Not a gzipped file"),
        (
            gzip.compress(b"\0\0\x08\x03" + bytes(100), mtime=0)[:-12],
            "ended before the end-of-stream",
        ),
        (gzip.compress(bytes(4), mtime=0)[:-5] + bytes(5), "CRC check failed"),
    ],
    ids=["another file", "cut off", "wrong checksum"],
)
def test_damaged_gzip(tmp_path, content, said):
    path = tmp_path / "images-idx3-ubyte.gz"
    path.write_bytes(content)
    assert said.lower() in refusal(path).lower() or "is no idx file" in refusal(path)


# ---- any file


H5 = pytest.param("a.h5", marks=pytest.mark.needs("h5py"))


@pytest.mark.parametrize("name", ["a.npz", "a.csv", H5, "a-idx3-ubyte", "a-idx3-ubyte.gz"])
def test_files_that_are_not_there_or_empty(tmp_path, name):
    path = tmp_path / name
    assert refusal(path) == "there is no such file"
    path.touch()
    assert "is empty" in refusal(path)
    path.unlink()
    path.mkdir()
    assert refusal(path) == "is no file of data"


def test_a_name_that_says_nothing(tmp_path):
    path = tmp_path / "a.txt"
    path.touch()
    assert refusal(path).startswith("the name must end in .npz, .csv, .h5, .hdf5, -idx3-ubyte or")


@pytest.mark.parametrize("error", [MemoryError(), PermissionError(13, "Permission denied")])
def test_what_the_system_refuses(tmp_path, monkeypatch, error):
    def refuse(*_args, **_options):
        raise error

    path = write_npz(tmp_path, X=X)
    monkeypatch.setattr(zipfile, "ZipFile", refuse)
    monkeypatch.setattr(builtins, "open", refuse)
    expected = "does not fit into memory" if isinstance(error, MemoryError) else "Permission denied"
    assert expected in refusal(path)


def test_names_with_newlines_and_bytes_stay_on_one_line(tmp_path):
    path = tmp_path / "a\nb.npz"
    np.savez(path, Z=X)
    with pytest.raises(DataError) as caught:
        read_file(path)
    assert len(str(caught.value).splitlines()) == 1


def test_names_of_numbers_that_are_no_characters(tmp_path):
    """NumPy's text is 32-bit numbers, of which most are beyond Unicode."""
    names = np.array(["cat", "dog"], dtype="<U3")
    names.view(np.uint32)[...] = 0x11111111
    np.savez(tmp_path / "a.npz", X=X, y=np.zeros(len(X), int), class_names=names)
    with pytest.raises(DataError, match="class_names must hold names that differ") as caught:
        read_file(tmp_path / "a.npz")
    str(caught.value).encode()
