"""Writes files and folders atomically: completely or not at all."""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path

__all__ = ["check_folder", "is_stream", "write_folder", "write_whole"]


def write_whole(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file so that nobody sees it half-written.

    The data go to a temporary file in the same folder, which is then renamed. Until then an older
    file of that name stays complete. A pipe or a device is written to directly.

    Parameters
    ----------
    path : path
    data : bytes

    Raises
    ------
    OSError
        If the folder does not exist or is not writable, or if the disk is full. Nothing is left
        behind.
    """
    if is_stream(path):
        with Path(path).open("wb") as file:
            file.write(data)
        return
    target = Path(os.path.realpath(path))  # a link stays a link
    temporary = _temporary_sibling(target)
    try:
        _write(temporary, data)
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def is_stream(path: str | os.PathLike[str]) -> bool:
    """Return whether a path must be written to directly instead of being replaced."""
    # /dev/stdout may be a regular file, but the process already writes to it.
    is_handle = str(Path(path).absolute()).startswith(("/dev/std", "/dev/fd/"))
    return is_handle or (Path(path).exists() and not Path(path).is_file())


def write_folder(path: str | os.PathLike[str], files: Mapping[str, bytes]) -> None:
    """Write a folder so that nobody sees it half-written.

    The files go to a temporary folder next to it, which is then renamed. If the folder exists and
    is empty, it is kept, because it may have permissions of its own or be a mount point: then the
    temporary folder is inside it, and the files are moved up at the end. A process that is killed
    may leave the temporary folder and, if it was moving files, some of the files.

    Parameters
    ----------
    path : path
        A path that does not exist, or an empty folder. Parent folders are created.
    files : mapping of str to bytes
        Contents by file name.

    Raises
    ------
    OSError
        If the path exists and is not an empty folder, or if it is not writable, or if the disk is
        full. Nothing is left behind except the parent folders.
    """
    target = Path(os.path.realpath(path))
    _check_free(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    is_there = target.is_dir()
    temporary = _temporary_sibling(target / "inside" if is_there else target)
    placed: list[Path] = []
    try:
        temporary.mkdir()
        for name, data in files.items():
            _write(temporary / name, data)
        _check_free(target)
        if is_there:
            placed = [target / name for name in files]
            for file in placed:
                (temporary / file.name).rename(file)
            temporary.rmdir()
        else:
            temporary.rename(target)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        for file in placed:
            file.unlink(missing_ok=True)
        raise


def check_folder(path: str | os.PathLike[str]) -> None:
    """Raise the OSError that :func:`write_folder` would raise, as far as that can be known."""
    target = Path(os.path.realpath(path))
    _check_free(target)
    within = next(folder for folder in (target, *target.parents) if folder.exists())
    probe = _temporary_sibling(within / target.name)
    probe.mkdir()
    probe.rmdir()


def _check_free(target: Path) -> None:
    if target.is_dir():
        is_taken = not all(_TEMPORARY.fullmatch(entry.name) for entry in target.iterdir())
    else:  # is_symlink: a link that leads to itself does not exist()
        is_taken = target.exists() or target.is_symlink()
    if is_taken:
        raise FileExistsError(errno.EEXIST, "it exists and is not an empty folder", str(target))


_TEMPORARY = re.compile(r"\.[0-9a-f]{16}\.partial")


def _temporary_sibling(target: Path) -> Path:
    """Return a temporary path in the same folder, not derived from the name, which may be long."""
    return target.with_name(f".{secrets.token_hex(8)}.partial")


def _write(path: Path, data: bytes) -> None:
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
