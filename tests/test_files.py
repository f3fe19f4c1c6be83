"""Files and folders that appear whole or not at all."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from xpnet.files import check_folder, write_folder, write_whole

pytestmark = pytest.mark.host

FILES = {"a": b"1" * 10_000, "b": b"2"}


def read(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_what_is_no_file_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    write_whole(tmp_path / "pipe", b"some")
    assert os.read(reader, 100) == b"some"
    os.close(reader)
    assert (tmp_path / "pipe").is_fifo()
    (tmp_path / "link").symlink_to("/dev/null")
    write_whole(tmp_path / "link", b"some")
    assert (tmp_path / "link").is_symlink()
    with pytest.raises(IsADirectoryError):
        write_whole(tmp_path, b"some")
    assert {entry.name for entry in tmp_path.iterdir()} == {"pipe", "link"}


@pytest.mark.skipif(not Path("/dev/stdout").exists(), reason="no /dev/stdout here")
def test_standard_output_by_name():
    command = "from xpnet.files import write_whole; write_whole('/dev/stdout', b'some')"
    done = subprocess.run(
        [sys.executable, "-c", command], capture_output=True, check=True, cwd=ROOT
    )
    assert done.stdout == b"some"


@pytest.mark.parametrize("name", ["new", "deep/er/new", "a" * 255, "here already"])
def test_a_folder_that_is_new_or_empty(tmp_path, name):
    (tmp_path / "here already").mkdir()
    check_folder(tmp_path / name)
    write_folder(tmp_path / name, FILES)
    assert read(tmp_path / name) == FILES
    top = {"here already", name.split("/")[0]}
    assert {entry.name for entry in tmp_path.iterdir()} == top


@pytest.mark.skipif(os.name == "nt", reason="no such rights")
def test_an_empty_folder_stays_the_one_that_it_is(tmp_path, monkeypatch):
    """It may be a mount point, somebody's working directory, or shared by a group."""
    folder = tmp_path / "shared"
    folder.mkdir()
    folder.chmod(0o2770)
    before = folder.stat()
    monkeypatch.chdir(folder)
    check_folder(".")
    write_folder(".", FILES)
    assert {path.name for path in Path().iterdir()} == set(FILES)  # the process is still in it
    assert read(folder) == FILES
    after = folder.stat()
    assert (after.st_ino, after.st_mode) == (before.st_ino, before.st_mode)


def test_the_place_that_is_probed_is_the_one_that_is_written(tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    probed = []
    monkeypatch.setattr(Path, "mkdir", lambda path: probed.append(path.parent.name))
    monkeypatch.setattr(Path, "rmdir", lambda path: probed.append(path.parent.name))
    for name in ("empty", "new/er"):
        check_folder(tmp_path / name)
    assert probed == ["empty", "empty", tmp_path.name, tmp_path.name]


def test_what_a_process_that_was_killed_has_left_is_in_nobodys_way(tmp_path):
    left = tmp_path / f".{'0a' * 8}.partial"
    left.mkdir()
    check_folder(tmp_path)
    write_folder(tmp_path, FILES)
    assert {entry.name for entry in tmp_path.iterdir()} == {*FILES, left.name}


def test_an_empty_folder_that_cannot_be_filled(tmp_path, monkeypatch):
    rename, count = Path.rename, iter([None, OSError(28, "No space left on device")])

    def full(path, target):
        error = next(count)
        if error is not None:
            raise error
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", full)
    with pytest.raises(OSError, match="No space left"):
        write_folder(tmp_path, FILES)
    assert not list(tmp_path.iterdir())


def test_what_comes_meanwhile_is_not_touched(tmp_path, monkeypatch):
    def come(handle):
        del handle
        folder.mkdir(exist_ok=True)
        (folder / "theirs").touch()

    monkeypatch.setattr(os, "fsync", come)
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "new", tmp_path / "empty"):
        with pytest.raises(FileExistsError, match="it exists and is not an empty folder"):
            write_folder(folder, FILES)
        assert [entry.name for entry in folder.iterdir()] == ["theirs"]
    assert {entry.name for entry in tmp_path.iterdir()} == {"new", "empty"}


@pytest.mark.skipif(os.name == "nt", reason="links need rights")
def test_a_file_through_a_link(tmp_path):
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to("real")
    write_whole(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"new"


def test_what_is_there_is_not_touched(tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").write_text("x")
    (tmp_path / "round").symlink_to("round")
    for name in ("file", "folder", "round"):
        for refuse in (check_folder, lambda path: write_folder(path, FILES)):
            with pytest.raises(FileExistsError, match="it exists and is not an empty folder"):
                refuse(tmp_path / name)
    assert {entry.name for entry in tmp_path.iterdir()} == {"file", "folder", "round"}
    assert read(tmp_path / "folder") == {"file": b"x"}


@pytest.mark.parametrize("name", ["file/new", "a" * 256, "file/deep/er/new"])
def test_places_that_cannot_be(tmp_path, name):
    (tmp_path / "file").write_text("x")
    with pytest.raises(OSError, match=r"Not a directory|File exists|File name too long"):
        check_folder(tmp_path / name)
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_a_disk_that_is_full(tmp_path, monkeypatch):
    count = iter([None, OSError(28, "No space left on device")])

    def full(handle):
        del handle
        error = next(count)
        if error is not None:
            raise error

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_folder(tmp_path / "new", FILES)
    assert not list(tmp_path.iterdir())


def test_a_file_that_a_full_disk_leaves_as_it_was(tmp_path, monkeypatch):
    def full(handle):
        raise OSError(28, f"No space left on device {handle}")

    (tmp_path / "file").write_bytes(b"old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_whole(tmp_path / "file", b"new")
    assert read(tmp_path) == {"file": b"old"}


@pytest.mark.skipif(os.name == "nt", reason="links need rights")
def test_through_a_link(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    write_folder(tmp_path / "link", FILES)
    assert (tmp_path / "link").is_symlink()
    assert read(tmp_path / "real") == FILES
