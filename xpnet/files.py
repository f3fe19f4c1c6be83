"""Writing files whole or not at all."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

__all__ = ["write_whole"]


def write_whole(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file so that it is never seen half-written.

    The data go to a temporary file beside it, which then takes its name; an older file of that
    name stays whole until then.

    Parameters
    ----------
    path : path
    data : bytes

    Raises
    ------
    OSError
        If the folder is not there or not writable, or the disk is full. Nothing is left behind.
    """
    target = Path(os.path.realpath(path))  # a link stays a link
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(8)}")
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
