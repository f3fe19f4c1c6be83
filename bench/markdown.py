"""Tables in Markdown."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["table"]


def table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Give the lines of a table."""
    return [
        f"| {' | '.join(titles)} |",
        f"|{'|'.join(' --- ' for _ in titles)}|",
        *(f"| {' | '.join(row)} |" for row in rows),
    ]
