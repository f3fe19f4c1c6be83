"""What the GPU gate writes: a line for a part, a summary, a page of tables."""

from __future__ import annotations

import re
from typing import Any

__all__ = ["gpu", "line", "page", "summary"]

_EMULATED = (
    "EMULATED: this is a rehearsal on test equipment. Nothing here is a result of a GPU, and the "
    "times mean nothing."
)


def gpu(found: dict[str, Any]) -> str:
    """Give the GPU's name as a part of a file name."""
    for part in found["parts"]:
        for row in part.get("rows") or ():
            if row.get("what") == "GPU":
                return re.sub(r"[^a-z0-9]+", "-", str(row["value"]).lower()).strip("-")
    return "gpu"


def line(part: dict[str, Any]) -> str:
    """Say in one line what came of a part."""
    reason = " ".join(str(part.get("reason", "")).split())
    return f"{part['status']} in {part['seconds']:.1f} s{': ' if reason else ''}{reason[:300]}"


def summary(found: dict[str, Any]) -> str:
    """Say what came of all parts."""
    width = max(len(part["part"]) for part in found["parts"])
    lines = [_EMULATED] if found["emulated"] else []
    lines += [f"{part['part']:<{width}}  {line(part)}" for part in found["parts"]]
    n_failed = sum(part["status"] == "failed" for part in found["parts"])
    verdict = f"{n_failed} parts FAILED" if n_failed else "every part passed or was skipped"
    return "\n".join([*lines, f"{verdict}, {found['seconds']:.0f} s in all"])


def page(found: dict[str, Any]) -> str:
    """Write everything as Markdown."""
    mark = "emulated " if found["emulated"] else ""
    parts = [f"# xpnet on a GPU, {mark}{found['date']}", ""]
    if found["emulated"]:
        parts += [f"**{_EMULATED}**", ""]
    outcomes = [
        {"part": part["part"], "outcome": f"{mark}{part['status']}", "seconds": part["seconds"]}
        for part in found["parts"]
    ]
    parts += _table(outcomes)
    for part in found["parts"]:
        parts += ["", f"## {mark}{part['part']}", ""]
        if "reason" in part:
            parts += ["```", str(part["reason"]).strip(), "```", ""]
        parts += _table(part.get("rows") or [])
    return "\n".join(parts).rstrip() + "\n"


def _table(rows: list[dict[str, Any]]) -> list[str]:
    if not rows:
        return []
    columns = list(dict.fromkeys(key for row in rows for key in row))
    lines = ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
    return lines + [
        "| " + " | ".join(_cell(row.get(column, "")) for column in columns) + " |" for row in rows
    ]


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1e4 else f"{value:,.0f}"
    return str(value).replace("|", "/").replace("\n", " ")
