"""What the tests of readers share: small files of each format, and what is said of wrong ones."""

from __future__ import annotations

import gzip
import struct

import numpy as np
import pytest

from xpnet.data.dataset import DataError
from xpnet.data.readers import read_file

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
