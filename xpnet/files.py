"""Writes files and folders atomically: whole or not at all."""

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
    """Write a file so that it is never seen half-written.

    The data go to a temporary file beside it, which then takes its name; an older file of that
    name stays whole until then. What is no regular file, as a pipe or a device, is written to.

    Parameters
    ----------
    path : path
    data : bytes

    Raises
    ------
    OSError
        If the folder is not there or not writable, or the disk is full. Nothing is left behind.
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
    """Tell whether a path is something to be written to, not a file to be replaced."""
    # /dev/stdout may be a regular file, but one that is being written to.
    is_handle = str(Path(path).absolute()).startswith(("/dev/std", "/dev/fd/"))
    return is_handle or (Path(path).exists() and not Path(path).is_file())


def write_folder(path: str | os.PathLike[str], files: Mapping[str, bytes]) -> None:
    """Write a folder so that it is never seen half-written.

    The files go to a temporary folder beside it, which then takes its name. An empty folder that
    is there already stays the one that it is, with its rights, and perhaps a disk of its own
    (a mount point): there the temporary folder is inside, and its files are moved up at the end.
    A process that is killed may leave the temporary folder, and if it is killed while moving
    files up, some of them.

    Parameters
    ----------
    path : path
        Must not exist, or be an empty folder. Folders above it are made.
    files : mapping of str to bytes
        What to write under which name.

    Raises
    ------
    OSError
        If there is something already, or the place is not writable or full. Nothing is left
        behind but the folders above.
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
    """Raise the OSError that :func:`write_folder` would, where that can be told beforehand."""
    target = Path(os.path.realpath(path))
    _check_free(target)
    within = next(folder for folder in (target, *target.parents) if folder.exists())
    probe = _temporary_sibling(within / target.name)
    probe.mkdir()
    probe.rmdir()


def _check_free(target: Path) -> None:
    if target.is_dir():
        is_taken = not all(_TEMPORARY.fullmatch(entry.name) for entry in target.iterdir())
    else:  # a link that is left leads round in circles
        is_taken = target.exists() or target.is_symlink()
    if is_taken:
        raise FileExistsError(errno.EEXIST, "there is something already", str(target))


_TEMPORARY = re.compile(r"\.[0-9a-f]{16}\.partial")


def _temporary_sibling(target: Path) -> Path:
    """Name a temporary sibling; not by the target's own name, which may be as long as allowed."""
    return target.with_name(f".{secrets.token_hex(8)}.partial")


def _write(path: Path, data: bytes) -> None:
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
