"""The output of the GPU gate: a line for each part, a summary, a page of tables."""

from __future__ import annotations

from typing import Any

from bench import markdown

__all__ = ["WRONG", "line", "page", "summary"]

WRONG = {"failed", "interrupted", "not run"}  # outcomes that make the gate fail
_EMULATED = (
    "EMULATED: this is a rehearsal on test equipment. Nothing here is a result of a GPU, and the "
    "times mean nothing."
)
_LEGENDS = {
    "environment": "Rates are medians of several rounds, +- half the interquartile range. Copies "
    "count the bytes read and the bytes written; the host's memory is pageable.",
    "classifiers": "Results after training on all samples. Seconds are for the whole fit, without "
    "building the network.",
    "operations": "*Alone* is the time of the operation's kernels, back to back in a CUDA graph; "
    "*called* and *reference called* include the host's cost of issuing them. Times are "
    "medians in microseconds, +- half the interquartile range. *In L2* uses the same arrays every "
    "time; otherwise the arrays are several times as large as the L2 cache. GB/s count the bytes "
    "that one pass must read and write, and *of a copy* compares with a copy of that many bytes.",
    "steps": "Training steps per second with Adam, data on the device; the loss is not read back. "
    "Medians of alternating rounds, +- half the interquartile range. A ratio above 1 means that "
    "captured xpnet is faster. One of its graphs has sixteen steps.",
    "compiled steps": "As above, compared with PyTorch's compiler, which compiles the loss and its "
    'gradient. With mode="reduce-overhead" the fused Adam is eager; when captured, the whole step '
    "is in the graph. The time for compiling does not count.",
    "epochs": "An epoch of fit and the report after it. The order of the samples is drawn on the "
    "host and copied to the device. Medians of the epochs after the first.",
    "bandwidths": "Bytes are those that must be read and written, 28 per parameter for Adam, "
    "compared with a copy of 100 million numbers. Bias gradients run twenty times in a graph, in "
    "L2.",
    "rooflines": "A captured step with Adam, compared with its products alone and with two limits: "
    "its arithmetic at the rate of a product of square matrices, and the bytes that it must move "
    "at the rate of a copy (40 per parameter, 36 per hidden activation of a sample, 8 per feature "
    "of a sample). A step whose arrays fit into L2 may be faster than the memory limit.",
    "sizes": "One epoch of a network with two hidden layers of that width, and a prediction, from "
    "arrays on the host to arrays on the host; the faster of two. Compilation at first use counts "
    "only in the cold starts.",
    "cold starts": "The time of a whole process, which starts, imports, compiles what it needs, "
    "and trains on 512 samples.",
}


def line(part: dict[str, Any], *, emulated: bool) -> str:
    """Return the outcome of a part in one line."""
    reason = " ".join(str(part.get("reason", "")).split())
    outcome = f"{_mark(emulated)}{part['status']} in {part['seconds']:.1f} s"
    return f"{outcome}{': ' if reason else ''}{reason[:300]}"


def _mark(emulated: bool) -> str:
    return "emulated: " if emulated else ""


def summary(found: dict[str, Any]) -> str:
    """Return the outcomes of all parts."""
    width = max(len(part["part"]) for part in found["parts"])
    lines = [_EMULATED] if found["emulated"] else []
    lines += [
        f"{part['part']:<{width}}  {line(part, emulated=found['emulated'])}"
        for part in found["parts"]
    ]
    wrong = [
        f"{part['part']} {part['status'].upper()}"
        for part in found["parts"]
        if part["status"] in WRONG
    ]
    verdict = ", ".join(wrong) or "Nothing failed"
    return "\n".join([*lines, f"{verdict}; {found['seconds']:.0f} s in total"])


def page(found: dict[str, Any]) -> str:
    """Return all results as a page in Markdown."""
    emulated = found["emulated"]
    title = "Rehearsal of the GPU gate on the emulated device" if emulated else "xpnet on a GPU"
    parts = [f"# {title}, {found['date']}", ""]
    if emulated:
        parts += [f"**{_EMULATED}**", ""]
    outcomes = [
        {
            "part": part["part"],
            "outcome": f"{_mark(emulated)}{part['status']}",
            "seconds": part["seconds"],
        }
        for part in found["parts"]
    ]
    parts += _table(outcomes)
    for part in found["parts"]:
        parts += ["", f"## {_mark(emulated)}{part['part']}", ""]
        if "reason" in part:
            parts += ["```", str(part["reason"]).strip(), "```", ""]
        if part["part"] in _LEGENDS and part.get("rows"):
            parts += [_LEGENDS[part["part"]], ""]
        parts += _table(part.get("rows") or [])
    return "\n".join(parts).rstrip() + "\n"


def _table(rows: list[dict[str, Any]]) -> list[str]:
    if not rows:
        return []
    columns = list(dict.fromkeys(key for row in rows for key in row))
    return markdown.table(
        columns, [[_cell(row.get(column, "")) for column in columns] for row in rows]
    )


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1e4 else f"{value:,.0f}"
    return str(value).replace("|", "/").replace("\n", " ")
