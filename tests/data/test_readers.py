"""Arrays in .npz and .h5 files, by every name that is usual; and what holds for any file."""

from __future__ import annotations

import builtins
import importlib
import struct
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tests.conftest import require_file
from tests.data.files import IMAGES, X, Y, held, refusal, write_h5, write_npz
from xpnet.data.checks import check_class_names, check_labels
from xpnet.data.dataset import DataError
from xpnet.data.readers import read_file

pytestmark = pytest.mark.host


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
        ({"Z": X}, "holds no features: expected an array X, data, features, X_train"),
        ({"y": Y}, "holds no features"),
        ({"X": X, "data": X}, "must hold only one of the arrays X, data"),
        ({"X": X, "y": Y, "y_test": Y}, "holds the labels y_test, but no features for them"),
        ({"X": X[:0]}, "X must hold at least one sample and one feature, got shape (0, 2)"),
        ({"X": X[:, :0]}, "X must hold at least one sample and one feature, got shape (6, 0)"),
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
        ({"X": X, "classes": np.array([b"a", b"a"])}, "must hold distinct names"),
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
    assert "y must hold valid Unicode strings" in refusal(write_npz(tmp_path, X=X, y=beyond))
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
    assert "X.npy must hold numbers or strings, got Python objects" in refusal(path)

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
    assert "is damaged: X claims 8,000,000,000,000 bytes, too many for the 0 stored bytes" in said(
        lambda file: file.create_dataset("X", (10**9, 1000), "f8")
    )
    chunks = {"shape": (1, 2), "maxshape": (None, 2), "chunks": (10**8, 2)}
    assert "a chunk of X claims 800,000,000 bytes, too many for the" in said(
        lambda file: file.create_dataset("X", dtype="f4", **chunks)
    )
    assert "X must use no filters other than deflate, shuffle, fletcher32, lzf" in said(
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
        assert refusal(path) == f"is damaged: its string heap is truncated at byte {at:,}"


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


# ---- any file


H5 = pytest.param("a.h5", marks=pytest.mark.needs("h5py"))


@pytest.mark.parametrize("name", ["a.npz", "a.csv", H5, "a-idx3-ubyte", "a-idx3-ubyte.gz"])
def test_files_that_are_not_there_or_empty(tmp_path, name):
    path = tmp_path / name
    assert refusal(path) == "no such file"
    path.touch()
    assert "is empty" in refusal(path)
    path.unlink()
    path.mkdir()
    assert refusal(path) == "is not a regular file"


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
    with pytest.raises(DataError, match="class_names must hold distinct names") as caught:
        read_file(tmp_path / "a.npz")
    str(caught.value).encode()
