"""Folders that results go into."""

from __future__ import annotations

import tempfile
from pathlib import Path

__all__ = ["cannot_write"]


def cannot_write(option: str, folder: Path) -> str | None:
    """Make a folder, and give a line that says why nothing can be written into it, if so."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        return f"{option}: cannot write into {folder}: {error.strerror or error}\n"
    return None
