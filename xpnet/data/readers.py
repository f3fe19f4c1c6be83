"""Reads samples and labels from files: .npz, .h5 and idx here, .csv by ``csv_reader.py``.

For any file, a reader returns finite samples or raises a :class:`DataError` of one line. It
compares the sizes that a header claims with the file's size before it allocates memory.
"""

from __future__ import annotations

import gzip
import importlib
import itertools
import math
import mmap
import os
import re
import struct
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from xpnet.data.checks import (
    ContentError,
    check_class_names,
    check_features,
    check_labels,
    check_targets,
    check_weights,
    listed,
    unknown_name,
)
from xpnet.data.csv_reader import read_csv
from xpnet.data.dataset import Contents, DataError, Part

__all__ = ["SUFFIXES", "read_file", "read_idx"]

SUFFIXES = (".npz", ".csv", ".h5", ".hdf5", "idx3-ubyte", "idx1-ubyte")

_DEFLATE = 1032  # deflate's highest compression factor
_SLACK = 1 << 20  # bytes that a file of any size may unpack to


def read_file(
    path: str | os.PathLike[str],
    *,
    target: str | None = None,
    columns: Sequence[str] | None = None,
    task: str = "classification",
    sample_weight: str | None = None,
) -> Contents:
    """Read samples, and labels if there are any, from a file.

    ``.npz`` and ``.h5``
        Arrays with the usual names, in upper or lower case: ``X``, ``data``, ``features``,
        ``X_train``, ``train_X`` or ``train_set_x`` with ``y``, ``labels``, ``target``,
        ``y_train``, ``train_y`` or ``train_set_y``; the same with ``test``, ``validation``,
        ``valid`` or ``val`` in place of ``train``; and ``class_names``, ``classes``,
        ``list_classes`` or ``target_names``. Other arrays are ignored.
    ``.csv``
        Comma-separated values in UTF-8; the first line names the columns.
    idx
        ``NAME-images-idx3-ubyte``, with or without ``.gz``; the labels are read from
        ``NAME-labels-idx1-ubyte`` in the same folder. If ``NAME`` contains the word ``train``,
        the images and labels with ``t10k`` or ``test`` in its place are the test part.

    Parameters
    ----------
    path : path
    target : str, optional
        Column of a ``.csv`` file that holds the labels; without it, ``y`` is None.
    columns : sequence of str, optional
        Feature columns of a ``.csv`` file, in this order; by default all except the target and
        the weights.
    task : {"classification", "regression"}
        Whether labels are classes or regression targets. Class names are ignored in regression.
    sample_weight : str, optional
        Column of a ``.csv`` file, or array of an ``.npz`` or ``.h5`` file, with the weight of
        each training sample.

    Returns
    -------
    Contents
        Features in the file's dtype (booleans as uint8, cells of a ``.csv`` file as float64) and
        native byte order; images with a single channel have shape (n, height, width). Labels are
        int64 or strings, targets and weights float64.

    Raises
    ------
    DataError
        If the file cannot be read or is damaged, if samples are not finite, if labels or weights
        do not match them, or if the file is ``.h5`` and h5py is not installed.
    """
    where = os.fsdecode(path)
    name = where.lower()
    with _data_errors(where):
        if not Path(where).is_file():
            raise ContentError("is not a regular file" if Path(where).exists() else "no such file")
        if name.endswith(".npz"):
            return _read_npz(where, task, sample_weight)
        if name.endswith(".csv"):
            return read_csv(where, target, columns, task, sample_weight)
        if name.endswith((".h5", ".hdf5")):
            return _read_h5(where, task, sample_weight)
        if kind := re.search(r"[-._]idx([13])[-._]ubyte(\.gz)?$", name):
            if kind[1] == "1":
                raise ContentError("holds labels: give the image file, -images-idx3-ubyte, instead")
            return _read_idx_files(Path(where), task)
        raise ContentError(
            "the name must end in .npz, .csv, .h5, .hdf5, -idx3-ubyte or -idx3-ubyte.gz"
        )


@contextmanager
def _data_errors(where: str) -> Iterator[None]:
    """Turn errors of the checks, the system and the libraries into a DataError."""
    try:
        yield
    except DataError:
        raise
    except ContentError as error:
        raise _data_error(where, error) from error.__cause__
    except MemoryError as error:
        raise _data_error(where, "does not fit into memory") from error
    except UnicodeDecodeError as error:
        raise _data_error(where, f"must hold UTF-8 text, got another encoding ({error})") from error
    except (
        EOFError,
        KeyError,
        OSError,
        OverflowError,
        RuntimeError,
        SyntaxError,
        TypeError,
        ValueError,
        struct.error,
        tokenize.TokenError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise _data_error(where, f"cannot be read: {_reason(error)}") from error


def _data_error(where: str, said: object) -> DataError:
    line = " ".join(f"{where}: {said}".splitlines())
    # Damaged names may contain halves of surrogate pairs or invalid code points.
    as_bytes = line.encode("utf-8", "backslashreplace")
    return DataError(as_bytes.decode("utf-8", "backslashreplace"))


def _reason(error: Exception) -> str:
    said = " ".join(str(getattr(error, "strerror", None) or error).split())
    return said[:200] or type(error).__name__


def _size(where: str) -> int:
    if not (size := Path(where).stat().st_size):
        raise ContentError("is empty")
    return size


def _check_claim(name: str, claimed: int, stored: int, factor: int = _DEFLATE) -> None:
    """Raise if ``stored`` bytes cannot unpack to ``claimed`` bytes, before these are allocated."""
    if claimed > stored * factor + _SLACK:
        raise ContentError(
            f"is damaged: {name} claims {claimed:,} bytes, too many for the {stored:,} stored bytes"
        )


# ---- arrays with the usual names

_PARTS = {"train": ("train",), "validation": ("validation", "valid", "val"), "test": ("test",)}
_PLAIN = {"x": ("x", "data", "features"), "y": ("y", "labels", "target")}
_CLASS_NAMES = ("class_names", "classes", "list_classes", "target_names")


def _usual_names(part: str, letter: str) -> tuple[str, ...]:
    """Return the usual names of a part's features (x) or labels (y), in lower case."""
    of_part = (
        (f"{letter}_{word}", f"{word}_{letter}", f"{word}_set_{letter}") for word in _PARTS[part]
    )
    return (*(_PLAIN[letter] if part == "train" else ()), *itertools.chain(*of_part))


def _collect(
    names: Sequence[str],
    read: Callable[[str], npt.NDArray[Any]],
    task: str,
    sample_weight: str | None,
) -> Contents:
    """Find features, labels, weights and class names among arrays, and check them."""

    def find(usual: tuple[str, ...]) -> str | None:
        found = [name for name in names if name.lower() in usual]
        if len(found) > 1:
            raise ContentError(f"must hold only one of the arrays {listed(found)}")
        return found[0] if found else None

    features = {part: find(_usual_names(part, "x")) for part in _PARTS}
    labels = {part: find(_usual_names(part, "y")) for part in _PARTS}
    named = find(_CLASS_NAMES) if task == "classification" else None
    if not any(features.values()):
        raise ContentError(
            "holds no features: expected an array X, data, features, X_train, train_X or "
            "train_set_x (or the same with validation or test), got "
            f"{listed(names) or 'no arrays'}"
        )
    if sample_weight is not None and sample_weight not in names:
        raise ContentError(unknown_name("array", sample_weight, names))
    class_names = None if named is None else check_class_names(named, read(named))
    parts = {}
    for part, x_name in features.items():
        y_name = labels[part]
        if x_name is not None:
            X = check_features(x_name, read(x_name))
            y = weights = None
            if y_name is not None:
                y = _check_y(task, y_name, read(y_name), len(X), class_names)
            if sample_weight is not None and sample_weight in (x_name, y_name):
                raise ContentError(
                    "sample_weight must be neither the features nor the labels, got "
                    f"{sample_weight!r}"
                )
            if sample_weight is not None and part == "train":
                weights = check_weights(sample_weight, read(sample_weight), len(X))
            parts[part] = Part(X, y, weights)
        elif y_name is not None:
            raise ContentError(f"holds the labels {y_name}, but no features for them")
    return Contents(parts, class_names)


def _check_y(
    task: str,
    name: str,
    y: npt.NDArray[Any],
    n_samples: int,
    class_names: tuple[str, ...] | None = None,
) -> npt.NDArray[Any]:
    """Return one label, or one row of regression targets, per sample."""
    if task == "regression":
        return check_targets(name, y, n_samples)
    return check_labels(name, y, n_samples, class_names)


# ---- npz


def _read_npz(where: str, task: str, sample_weight: str | None) -> Contents:
    size = _size(where)
    with zipfile.ZipFile(where) as archive:
        members = {
            info.filename.removesuffix(".npy"): info
            for info in archive.infolist()
            if info.filename.endswith(".npy")
        }

        def read(name: str) -> npt.NDArray[Any]:
            return _read_member(archive, members[name], size)

        return _collect(list(members), read, task, sample_weight)


def _read_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, size: int) -> npt.NDArray[Any]:
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ContentError(f"{info.filename} must be stored or deflated, got another compression")
    factor = 1 if info.compress_type == zipfile.ZIP_STORED else _DEFLATE
    _check_claim(info.filename, info.file_size, min(info.compress_size, size), factor)
    with archive.open(info) as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about headers written by Python 2
        version = np.lib.format.read_magic(file)
        if version == (1, 0):
            shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        elif version == (2, 0):
            shape, _, dtype = np.lib.format.read_array_header_2_0(file)
        else:
            raise ContentError(f"{info.filename} must have version 1.0 or 2.0, got {version}")
        if dtype.hasobject:
            raise ContentError(
                f"{info.filename} must hold numbers or strings, got Python objects, which are not "
                "read"
            )
        n_bytes = math.prod(shape) * dtype.itemsize
        is_valid = dtype.itemsize > 0 and min(shape, default=0) >= 0
        if not is_valid or file.tell() + n_bytes != info.file_size:
            raise ContentError(
                f"is damaged: {info.filename} claims dtype {dtype} and shape {shape}, which do not "
                f"match its {info.file_size:,} bytes"
            )
    with archive.open(info) as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        array: npt.NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)
        file.read(1)  # at the end of the file, zipfile compares the checksum
    return array


# ---- h5

# Filters of HDF5 and h5py that only unpack bytes, each by at most deflate's factor.
_H5_FILTERS = {1: "deflate", 2: "shuffle", 3: "fletcher32", 32000: "lzf"}


def _read_h5(where: str, task: str, sample_weight: str | None) -> Contents:
    try:
        h5py = importlib.import_module("h5py")
    except ImportError as error:
        raise ContentError(
            f"reading it needs h5py, which cannot be imported ({_reason(error)}); type: "
            "pip install h5py"
        ) from error
    size = _size(where)
    with h5py.File(where, "r", locking=False) as file:
        names = [
            name
            for name in file
            # Do not follow soft or external links, which may lead to another file.
            if isinstance(file.get(name, getlink=True), h5py.HardLink)
            and file.get(name, getclass=True) is h5py.Dataset
        ]

        def read(name: str) -> npt.NDArray[Any]:
            return _read_dataset(h5py, where, name, file[name], size)

        return _collect(names, read, task, sample_weight)


def _read_dataset(h5py: Any, where: str, name: str, dataset: Any, size: int) -> npt.NDArray[Any]:
    if dataset.is_virtual or dataset.external:
        raise ContentError(f"{name} must be in the file itself, got a reference to another file")
    if dataset.shape is None:
        raise ContentError(f"{name} must hold values, got an empty dataset")
    is_text = dataset.dtype.hasobject and h5py.check_string_dtype(dataset.dtype) is not None
    if not is_text and dataset.dtype.kind not in "biufSU":
        raise ContentError(f"{name} must hold numbers or strings, got dtype {dataset.dtype}")
    settings = dataset.id.get_create_plist()
    filters = [settings.get_filter(number)[0] for number in range(settings.get_nfilters())]
    if not set(filters) <= set(_H5_FILTERS) or len(set(filters)) < len(filters):
        raise ContentError(
            f"{name} must use no filters other than {listed(_H5_FILTERS.values())}, each at most "
            f"once, got {filters}"
        )
    stored = min(dataset.id.get_storage_size(), size)
    _check_claim(name, dataset.size * dataset.dtype.itemsize, stored)
    if dataset.chunks is not None:
        _check_claim(f"a chunk of {name}", math.prod(dataset.chunks) * dataset.dtype.itemsize, size)
    if is_text:
        _, size_of_lengths = dataset.file.id.get_create_plist().get_sizes()
        _check_heaps(where, size_of_lengths)
        return _read_strings(name, dataset, size)
    return np.asarray(dataset[()])


def _check_heaps(where: str, size_of_lengths: int) -> None:
    """Raise if HDF5 would loop forever over a damaged heap of strings.

    HDF5 steps from one object to the next by their sizes without checking them, so it never moves
    on if a size is 0, or so large that its sum with the header's size wraps to 0. Layout: "HDF5
    File Format Specification Version 3.0", III.E, "Disk Format: Level 1E - Global Heap".
    """
    header = 16  # bytes, of the heap and of each object in it, for any size of lengths
    with (
        Path(where).open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as raw,
    ):

        def length(at: int) -> int:
            return int.from_bytes(raw[at : at + size_of_lengths], "little")

        start = raw.find(b"GCOL\1\0\0\0")
        while start >= 0:
            at, end = start + header, min(start + length(start + 8), len(raw))
            while at + header <= end:
                n_bytes = length(at + 8)
                if raw[at : at + 2] != b"\0\0":  # free space counts its header in its size
                    n_bytes = header + -(-n_bytes // 8) * 8
                if not header <= n_bytes <= end - at:
                    raise ContentError(f"is damaged: its string heap is truncated at byte {at:,}")
                at += n_bytes
            start = raw.find(b"GCOL\1\0\0\0", start + 1)


def _read_strings(name: str, dataset: Any, size: int) -> npt.NDArray[Any]:
    """Read strings of variable length, which may be many and long in a damaged file."""
    if not dataset.ndim or dataset.size != len(dataset):
        raise ContentError(f"{name} must be a list of strings, got shape {dataset.shape}")
    strings: list[bytes] = []
    step = max(1, (1 << 30) // size)
    for start in range(0, len(dataset), step):
        strings.extend(dataset[start : start + step].ravel())
        _check_claim(name, sum(map(len, strings)), size, 1)
    array = np.empty(len(strings), dtype=object)
    array[:] = strings
    return array


# ---- idx

_IDX_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def read_idx(path: str | os.PathLike[str]) -> npt.NDArray[Any]:
    """Read an array in the idx format, compressed with gzip if the name ends in ``.gz``.

    Parameters
    ----------
    path : path

    Returns
    -------
    array
        The array, with the shape and dtype in the file, in native byte order.

    Raises
    ------
    DataError
        If the file cannot be read, is not an idx file, is truncated or has trailing bytes.

    References
    ----------
    Y. LeCun, C. Cortes and C. J. C. Burges, "The MNIST database of handwritten digits", "File
    formats".
    """
    where = os.fsdecode(path)
    packed = where.lower().endswith(".gz")
    with _data_errors(where):
        size = _size(where)
        with gzip.open(where) if packed else Path(where).open("rb") as file:
            start = file.read(4)
            if len(start) < 4 or start[:2] != b"\0\0" or start[2] not in _IDX_TYPES or not start[3]:
                raise ContentError(
                    "is not an idx file: expected two zero bytes, a type code and the number of "
                    f"dimensions, got {start.hex(' ') or 'nothing'}"
                )
            lengths = file.read(4 * start[3])
            if len(lengths) < 4 * start[3]:
                raise ContentError(f"is truncated: expected {start[3]} lengths after its start")
            shape = struct.unpack(f">{start[3]}I", lengths)
            dtype = np.dtype(_IDX_TYPES[start[2]])
            n_bytes = math.prod(shape) * dtype.itemsize
            _check_claim("its header", n_bytes, size, _DEFLATE if packed else 1)
            data = file.read(n_bytes)
            if len(data) < n_bytes or file.read(1):
                came = f"{len(data):,}" if len(data) < n_bytes else "more"
                raise ContentError(f"is damaged: shape {shape} takes {n_bytes:,} bytes, got {came}")
        return np.frombuffer(data, dtype).reshape(shape).astype(dtype.newbyteorder("="))


def _read_idx_files(images: Path, task: str) -> Contents:
    """Read images, and the labels and the test part from the same folder."""
    parts = {"train": _read_idx_part(images, task)}
    for word in ("t10k", "test"):
        test = _find_sibling(images, {"train": word})
        if test is not None and _find_sibling(test, _LABELS) is not None:
            parts["test"] = _read_idx_part(test, task)
            break
    return Contents(parts)


_LABELS = {"images": "labels", "idx3": "idx1"}  # how their file's name differs from the images'


def _read_idx_part(images: Path, task: str) -> Part:
    with _data_errors(os.fspath(images)):
        X = check_features("the array", read_idx(images))
    labels = _find_sibling(images, _LABELS)
    if labels is None:
        return Part(X, None)
    with _data_errors(os.fspath(labels)):
        return Part(X, _check_y(task, "the array", read_idx(labels), len(X)))


def _find_sibling(path: Path, replaced: dict[str, str]) -> Path | None:
    """Find the file whose name has other words in place of these, compressed or not."""
    is_packed = path.suffix.lower() == ".gz"
    plain, packed = (path.stem, path.suffix) if is_packed else (path.name, ".gz")
    is_upper = plain.isupper()
    letter = "[A-Z0-9]" if is_upper else "[a-z0-9]"
    for words in replaced.items():
        word, other = map(str.upper, words) if is_upper else words
        plain, n_found = re.subn(f"(?<!{letter}){word}(?!{letter})", other, plain)
        if not n_found:
            return None
    ends = (packed, "") if is_packed else ("", packed)
    candidates = [path.with_name(plain + end) for end in ends]
    return next((candidate for candidate in candidates if candidate.is_file()), None)
