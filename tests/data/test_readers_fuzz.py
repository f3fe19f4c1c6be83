"""Damaged data files: what comes out is finite samples, or an error of one line."""

from __future__ import annotations

import faulthandler
import gzip
import io
import os
import struct
import zipfile

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from sklearn.datasets import load_digits

from xpnet.data.dataset import DataError
from xpnet.data.readers import read_file

pytestmark = pytest.mark.host

N_EXAMPLES = int(os.environ.get("XPNET_FUZZ_EXAMPLES", 2 * settings().max_examples))
TIMEOUT = 60  # seconds for a file, of which none takes more than one

IMAGES = load_digits().images[:24].astype(np.uint8)
LABELS = load_digits().target[:24]
NAMES = [f"digit {k}" for k in range(10)]


def npz(save):
    file = io.BytesIO()
    save(file, X=IMAGES, y=LABELS, X_test=IMAGES[:3] / 16, y_test=LABELS[:3], class_names=NAMES)
    return file.getvalue()


def npz_members():
    with zipfile.ZipFile(io.BytesIO(npz(np.savez))) as archive:
        return [(name, archive.read(name)) for name in archive.namelist()]


def h5(libver=None, **packing):
    import h5py

    file = io.BytesIO()
    with h5py.File(file, "w", libver=libver) as h5_file:
        h5_file.create_dataset("train_set_x", data=IMAGES, **packing)
        h5_file.create_dataset("train_set_y", data=LABELS, **packing)
        h5_file["test_set_x"] = IMAGES[:3] / 16
        h5_file["test_set_y"] = [NAMES[label] for label in LABELS[:3]]  # of varying length
        h5_file["list_classes"] = np.array(NAMES, dtype="S")
    return file.getvalue()


def csv_text():
    rows = [",".join(f"p{k}" for k in range(64)) + ",digit"]
    rows += [
        ",".join(map(str, (*x.ravel() / 2, y))) for x, y in zip(IMAGES[:8], LABELS, strict=False)
    ]
    return "\n".join(rows).encode()


def idx(array, code):
    start = struct.pack(f">BBBB{array.ndim}I", 0, 0, code, array.ndim, *array.shape)
    return start + array.tobytes()


@st.composite
def damages(draw):
    """Draw a function that damages a file's bytes, often near their start or end."""
    kind = draw(st.sampled_from(["flip", "truncate", "insert", "delete", "overwrite", "duplicate"]))
    place = draw(st.floats(0, 1, exclude_max=True))
    place = draw(st.sampled_from([place, place**4, 1 - place**4 - 1e-9]))
    length = draw(st.sampled_from([1, 2, 4, 8, 30, 200]))
    some = draw(st.binary(min_size=1, max_size=8))
    usual = [b"\0", b"\xff", b"\x7f", b"\x80", b"\1", b"nan", b"inf", b"-1", b",", b"\n", b'"']
    some = draw(st.sampled_from([some, *usual]))

    def damage(data):
        if not data:
            return data
        at = int(place * len(data))
        end = min(at + length, len(data))
        filler = (some * length)[:length]
        return {
            "flip": data[:at] + bytes([data[at] ^ 1 << some[0] % 8]) + data[at + 1 :],
            "truncate": data[:at],
            "insert": data[:at] + filler + data[at:],
            "delete": data[:at] + data[end:],
            "overwrite": data[:at] + filler[: end - at] + data[end:],
            "duplicate": data[:end] + data[at:],
        }[kind]

    return damage


def check_readable_or_refused(path, **options):
    faulthandler.dump_traceback_later(TIMEOUT, exit=True)
    try:
        contents = read_file(path, **options)
    except DataError as error:
        said = str(error)
        if not said.startswith(str(path.parent)) or len(said.splitlines()) != 1:
            raise
        return
    finally:
        faulthandler.cancel_dump_traceback_later()
    assert contents.parts
    names = contents.class_names
    assert names is None or (len(set(names)) == len(names) > 0 and all(names))
    for part in contents.parts.values():
        assert part.X.dtype.kind in "iuf"
        assert part.X.dtype.isnative
        assert part.X.flags.c_contiguous
        assert part.X.ndim in (2, 3, 4)
        assert part.X.size
        assert np.isfinite(part.X).all()
        if part.sample_weight is not None:
            assert part.sample_weight.shape == part.X.shape[:1]
            assert part.sample_weight.dtype == np.float64
            assert np.isfinite(part.sample_weight).all()
            assert (part.sample_weight >= 0).all()
        if options.get("task") == "regression":
            assert contents.class_names is None
            assert part.y is None or (part.y.dtype == np.float64 and np.isfinite(part.y).all())
        elif part.y is not None:
            assert part.y.shape == part.X.shape[:1]
            assert part.y.dtype == np.int64 or (part.y.dtype.kind == "U" and all(part.y))
            if names and part.y.dtype == np.int64:
                assert 0 <= part.y.min() <= part.y.max() < len(names)


def fuzz(*variants):
    """Give a test many damaged variants of a file."""

    def decorate(test):
        drawn = given(data=st.sampled_from(variants), damage=st.lists(damages(), max_size=4))
        calm = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
        return settings(max_examples=N_EXAMPLES, suppress_health_check=calm)(drawn(test))

    return decorate


def damaged(data, damage):
    for do in damage:
        data = do(data)
    return data


@fuzz(npz(np.savez), npz(np.savez_compressed))
def test_npz(tmp_path, data, damage):
    path = tmp_path / "a.npz"
    path.write_bytes(damaged(data, damage))
    check_readable_or_refused(path)


@pytest.mark.parametrize("options", [{}, {"task": "regression", "sample_weight": "y"}])
@fuzz(*npz_members())
def test_npz_members(tmp_path, data, damage, options):
    """Damage before packing, which no checksum tells."""
    name, member = data
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        for other, content in npz_members():
            archive.writestr(other, damaged(member, damage) if other == name else content)
    check_readable_or_refused(tmp_path / "a.npz", **options)


@pytest.mark.parametrize("options", [{}, {"task": "regression", "sample_weight": "p2"}])
@fuzz(csv_text(), csv_text().replace(b",", b'","').replace(b"\n", b'"\r\n"').join([b'"', b'"']))
def test_csv(tmp_path, data, damage, options):
    path = tmp_path / "a.csv"
    path.write_bytes(damaged(data, damage))
    check_readable_or_refused(path, target="digit", **options)


@fuzz(
    h5(),
    h5("latest"),
    h5(chunks=True),
    h5(chunks=True, compression="gzip", shuffle=True, fletcher32=True),
)
def test_h5(tmp_path, data, damage):
    path = tmp_path / "a.h5"
    path.write_bytes(damaged(data, damage))
    check_readable_or_refused(path)


@fuzz((IMAGES, 0x08), (IMAGES.astype(">f4"), 0x0D))
@pytest.mark.parametrize("end", ["", ".gz"])
@pytest.mark.parametrize("which", ["images", "labels", "inside"])
def test_idx(tmp_path, data, damage, end, which):
    files = {"images-idx3": idx(*data), "labels-idx1": idx(LABELS.astype(np.uint8), 0x08)}
    for name, content in files.items():
        hit = name.startswith(which)
        inner = damaged(content, damage) if which == "inside" else content
        packed = gzip.compress(inner, mtime=0) if end else inner
        (tmp_path / f"{name}-ubyte{end}").write_bytes(damaged(packed, damage) if hit else packed)
    check_readable_or_refused(tmp_path / f"images-idx3-ubyte{end}")
