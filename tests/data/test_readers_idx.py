"""Images and labels in idx files, and every way of being wrong."""

from __future__ import annotations

import gzip

import numpy as np
import pytest

from tests.data.files import IMAGES, Y, held, refusal, write_idx
from xpnet.data.dataset import DataError
from xpnet.data.readers import read_file, read_idx

pytestmark = pytest.mark.host


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
        (b"\0\0\x08", "is not an idx file: expected two zero bytes"),
        (b"\x93NUMPY", "is not an idx file"),
        (b"\0\0\x0a\x01\0\0\0\1\0", "is not an idx file"),
        (b"\0\0\x08\x00", "is not an idx file"),
        (b"\0\0\x08\x03\0\0\0\1", "is truncated: expected 3 lengths after its start"),
    ):
        path.write_bytes(content)
        assert said in refusal(path)
    write_idx(path, IMAGES[:5], shape=IMAGES.shape)
    assert "is damaged: shape (6, 5, 4) takes 120 bytes, got 100" in refusal(path)
    write_idx(path, IMAGES, shape=(5, 5, 4))
    assert "is damaged: shape (5, 5, 4) takes 100 bytes, got more" in refusal(path)
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
    assert "holds labels: give the image file" in refusal(labels)


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
    assert said.lower() in refusal(path).lower() or "is not an idx file" in refusal(path)
