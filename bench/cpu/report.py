"""The page that a benchmark writes, and its picture."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator
from typing import Any

from bench import markdown
from bench.cpu.contestants import FLOOR, OURS
from bench.cpu.turns import Spread
from bench.pictures import BLUE, GREY, figure, png, remove_frame

__all__ = ["draw", "page"]

Row = dict[str, Any]


def page(found: dict[str, Any], picture: str | None) -> str:
    """Write the tables, in Markdown.

    Parameters
    ----------
    found : dict
        As ``python -m bench.cpu`` writes it in JSON.
    picture : str or None
        The picture's file name.
    """
    lines = [f"# Training on the CPU, {found['date'][:10]}", ""]
    lines += [
        "A turn is a whole call that a user would make, one or more epochs; contestants take "
        "turns, each in a process of its own. Times are medians of the rounds, in microseconds "
        "(us), ratios medians of the ratios within a round, with quartiles in brackets. *Times "
        "xpnet* says how many times as long as xpnet's fused step one takes, *times floor* how "
        "many times as long as its matrix products alone: NumPy's BLAS in its own threads, into "
        "buffers that are there. xpnet shares products out in its own way, which the line below "
        "shows alone.",
        "",
    ]
    if picture:
        lines += [f"![Steps beside their products; cost against size]({picture})", ""]
    shares_core = f"processors share a core: {found['shares_core']}"
    for name, rows in found["parts"].items():
        lines += [f"## {_TITLES[name]}", ""]
        if name not in _WITHOUT_TIMES:
            lines += [f"{found['processor']}; {shares_core}.", ""]
        lines += [*_TABLES[name](rows), ""]
    lines.append(f"{found['seconds']:.0f} s in all.")
    return "\n".join(lines) + "\n"


def _machine(rows: list[Row]) -> list[str]:
    return markdown.table(("", ""), [(row[""], str(row["is"])) for row in rows])


def _ratio(values: list[float] | None) -> str:
    if values is None:
        return ""
    median, low, high = values
    return f"**{median:.2f}** ({low:.2f}-{high:.2f})"


def _by_network(rows: list[Row]) -> Iterator[tuple[str, list[Row]]]:
    for network in dict.fromkeys(row["network"] for row in rows):
        yield network, [row for row in rows if row["network"] == network]


def _steps(rows: list[Row]) -> list[str]:
    lines: list[str] = []
    settings: dict[str, str] = {}
    for network, chosen in _by_network(rows):
        first = chosen[0]
        lines += [
            f"### {network}",
            "",
            f"{first['dtype']}, {first['optimizer'].replace('_', ' ')}, "
            f"{_count_threads(first['threads'])} each.",
            "",
        ]
        table = []
        for row in chosen:
            if "error" in row:
                table.append((row["contestant"], "", "", row["error"], "", "", ""))
                continue
            settings[row["contestant"]] = row["settings"]
            us = Spread.of(row["us"])
            table.append(
                (
                    row["contestant"],
                    _ratio(row["times_ours"]),
                    _ratio(row["times_floor"]),
                    f"{us.median:,.0f} ({us.low:,.0f}-{us.high:,.0f})",
                    f"{row['steps_per_s']:,.1f}",
                    f"{row['samples_per_s']:,.0f}",
                    ", ".join(f"{name} {version}" for name, version in row["versions"].items()),
                )
            )
        titles = ("", "times xpnet", "times floor", "us a step", "steps/s", "samples/s", "versions")
        lines += [*markdown.table(titles, table), ""]
    lines += [f"- {name}: {text}." for name, text in settings.items()]
    return lines


def _epochs(rows: list[Row]) -> list[str]:
    lines = [
        "Every contestant trains ten epochs from the start, several times, and they take turns "
        "epoch by epoch. Most inputs are rarely active, like the pixels at the border of images of "
        "clothes. While an input is zero, Adam's first moment of its weights decays and becomes "
        "subnormal. Arithmetic on subnormal numbers is slow on Intel's processors. *Epoch 10 / "
        "epoch 1* is how many times as long a step takes in epoch 10: the median of the trainings, "
        "with quartiles in brackets.",
        "",
    ]
    settings: dict[str, str] = {}
    for network, chosen in _by_network(rows):
        first = chosen[0]
        lines += [
            f"### {network}, {first['samples']:,} samples",
            "",
            f"{first['dtype']}, {_count_threads(first['threads'])} each.",
            "",
        ]
        table = []
        for row in chosen:
            if "error" in row:
                table.append((row["contestant"], row["error"], "", "", ""))
                continue
            settings[row["contestant"]] = row["settings"]
            us = [statistics.median(values) for values in zip(*row["us"], strict=True)]
            shown = [f"{us[epoch - 1]:,.0f}" for epoch in (1, 3, 10)]
            table.append((row["contestant"], *shown, _ratio(row["last_to_first"])))
        titles = ("", *(f"us a step in epoch {i}" for i in (1, 3, 10)), "epoch 10 / epoch 1")
        lines += [*markdown.table(titles, table), ""]
    lines += [f"- {name}: {text}." for name, text in settings.items()]
    return lines


def _threads(rows: list[Row]) -> list[str]:
    if "skipped" in rows[0]:
        return [f"Skipped: {rows[0]['skipped']}."]
    names = next((list(row["us"]) for row in rows if "us" in row), [])
    table = []
    for row in rows:
        if "error" in row:
            table.append((row["network"], row["load"], row["error"], *[""] * len(names)))
            continue
        us = [f"{statistics.median(values):,.0f}" for values in row["us"].values()]
        table.append((row["network"], row["load"], *us, _ratio(row["times_better"])))
    titles = ("network", "load", *(f"{name}, us a step" for name in names), "own / better")
    return [
        "xpnet chooses how many threads to use; XPNET_THREADS overrides its choice. *One busy* is "
        "beside a process that keeps one processor busy. *Own / better* divides the median of its "
        "own choice by the smaller of the other two medians. In brackets are the quartiles of the "
        "ratio within a round.",
        "",
        *markdown.table(titles, table),
    ]


def _count_threads(n: int) -> str:
    return f"{n} thread{'s' * (n > 1)}"


def _accuracy(rows: list[Row]) -> list[str]:
    table = []
    for row in rows:
        if "error" in row:
            table.append((row["contestant"], "", "", "", row["error"], "", ""))
            continue
        missed = f"; {row['n_not_reached']} never" if row["n_not_reached"] else ""
        in_all = row.get("times_ours_in_all")
        table.append(
            (
                row["contestant"],
                f"**{in_all:.2f}**" if in_all else "",
                _ratio(row.get("times_ours")),
                _ratio(row.get("times_ours_an_epoch")),
                f"{sum(row['whole_s']):.1f} ({sum(row['training_s']):.1f})",
                f"{statistics.median(row['epoch_s']):.3f}",
                ", ".join(str(run["epochs"]) for run in row["runs"]) + missed,
            )
        )
    titles = (
        "",
        "times xpnet, all runs together",
        "times xpnet, run by run",
        "times xpnet, an epoch",
        "seconds of all runs (of training)",
        "seconds an epoch",
        "epochs, run by run",
    )
    return [
        "784-256-128-10, batch 128, Adam with learning rate 0.001, float32. The test accuracy is "
        "measured after every epoch, which is not counted. Seconds go from images in memory (bytes "
        "for xpnet, numbers in [0, 1] for the others) to a network that is that good, without "
        "imports. Every run has a seed of its own, and how many epochs it takes is luck.",
        "",
        *markdown.table(titles, table),
    ]


def _memory(rows: list[Row]) -> list[str]:
    table = [
        (row["network"], row["contestant"], row["error"], "", "", "")
        if "error" in row
        else (
            row["network"],
            row["contestant"],
            f"{row['training_mb']:,.0f}",
            f"{row['budget_mb']:,.0f}",
            f"{row['data_mb']:,.0f}",
            f"{row['after_import_mb']:,.0f}",
        )
        for row in rows
    ]
    titles = ("network", "", "peak of training, MB", "budget, MB", "data, MB", "before, MB")
    return [
        "The most that the process held in memory during one epoch, over the most that it had held "
        "after its imports and a tiny training (the last column). The budget is data + 4 x "
        "parameters + 2 x activations of a minibatch + 60 MB, xpnet's bound.",
        "",
        *markdown.table(titles, table),
    ]


def _starting(rows: list[Row]) -> list[str]:
    table = []
    for row in rows:
        seconds = Spread.of(row["seconds"]) if "seconds" in row else None
        text = f"{seconds.median:.2f} ({seconds.low:.2f}-{seconds.high:.2f})" if seconds else ""
        table.append((row["contestant"], row["what"], text or row["error"]))
    return [
        "A whole process: Python starts, imports, and ends; or draws 32 samples, makes the network "
        "784-128-10 and takes one step.",
        "",
        *markdown.table(("", "until", "seconds"), table),
    ]


def _scaling(rows: list[Row]) -> list[str]:
    lines = [
        "*Slope* is that of the logarithm of the cost against the logarithm of the size, since the "
        "row before: 1 where the cost grows in proportion, 0 where it does not grow.",
        "",
    ]
    for along in dict.fromkeys(row["along"] for row in rows):
        chosen = [row for row in rows if row["along"] == along]
        has_floor = any(FLOOR in row for row in chosen)
        unit = "us an epoch" if along == "samples" else "us a step"
        titles = [along, "network", f"xpnet, {unit}", "slope"]
        titles += [f"products, {unit}", "slope", "times floor"] if has_floor else []
        table = []
        for row in chosen:
            if OURS not in row:
                table.append([f"{row['x']}", row["network"], row["error"], *[""] * len(titles[3:])])
                continue
            cells = [f"{row['x']}", row["network"], f"{row[OURS]:,.0f}"]
            cells.append(_slope(row, OURS))
            if has_floor:
                cells += [f"{row[FLOOR]:,.0f}", _slope(row, FLOOR)]
                cells.append(f"{row[OURS] / row[FLOOR]:.2f}")
            table.append(cells)
        lines += [*markdown.table(titles, table), ""]
        if "slope of all" in chosen[-1]:
            slope = chosen[-1]["slope of all"]
            lines += [f"Slope of a straight line through all of xpnet's: {slope:.2f}.", ""]
    return lines


def _slope(row: Row, name: str) -> str:
    slope = row.get(f"slope of {name}")
    return "" if slope is None else f"{slope:.2f}"


_TITLES = {
    "machine": "The machine",
    "steps": "Steps",
    "one-thread": "Steps with one thread",
    "busy": "Steps beside a process that keeps one processor busy",
    "epochs": "Steps in epochs 1 to 10",
    "threads": "Choosing the number of threads",
    "accuracy": "Fashion-MNIST to a test accuracy of 0.88",
    "memory": "Memory",
    "starting": "Importing and starting",
    "scaling": "Cost against size",
}
_TABLES: dict[str, Callable[[list[Row]], list[str]]] = {
    "machine": _machine,
    "steps": _steps,
    "one-thread": _steps,
    "busy": _steps,
    "epochs": _epochs,
    "threads": _threads,
    "accuracy": _accuracy,
    "memory": _memory,
    "starting": _starting,
    "scaling": _scaling,
}
_WITHOUT_TIMES = ("machine", "memory")


def draw(parts: dict[str, list[Row]]) -> bytes | None:
    """Draw steps beside their floor, and cost against size, as PNG; None where there is neither."""
    steps = [row for row in parts.get("steps", []) if row.get("times_floor")]
    networks = list(dict.fromkeys(row["network"] for row in steps))
    series = list(dict.fromkeys(row["along"] for row in parts.get("scaling", [])))
    if not networks and not series:
        return None
    columns = min(4, max(len(networks), len(series)))
    n_rows = math.ceil(len(networks) / columns) + bool(series)
    drawn = figure(3.6 * columns, 3.8 * n_rows)
    axes = drawn.subplots(n_rows, columns, squeeze=False)
    for row_of_axes in axes:
        for ax in row_of_axes:
            ax.set_visible(False)
    for ax, network in zip(axes.flat, networks, strict=False):
        _bars(ax, [row for row in steps if row["network"] == network], network)
    for ax, along in zip(axes[-1], series, strict=False):
        _curve(
            ax, [row for row in parts["scaling"] if row["along"] == along and OURS in row], along
        )
    drawn.suptitle("Training on the CPU: steps beside their products, and cost against size")
    return png(drawn)


def _bars(ax: Any, rows: list[Row], network: str) -> None:
    ax.set_visible(True)
    names = [row["contestant"] for row in rows]
    values = [row["times_floor"][0] for row in rows]
    spread = [
        [row["times_floor"][0] - row["times_floor"][1] for row in rows],
        [row["times_floor"][2] - row["times_floor"][0] for row in rows],
    ]
    colours = [BLUE if name.startswith("xpnet") else GREY for name in names]
    places = range(len(names))
    ax.barh(places, values, color=colours, xerr=spread, error_kw={"linewidth": 0.8})
    ax.set_yticks(places, names, fontsize=8)
    ax.invert_yaxis()
    ax.axvline(1, color="black", linewidth=0.8)
    ax.set_xlim(0, max(values) * 1.25)
    for place, value, over in zip(places, values, spread[1], strict=True):
        ax.text(value + over, place, f" {value:.2f}", va="center", fontsize=8)
    ax.set_title(network.replace(", ", "\n"), fontsize=9)
    ax.set_xlabel("times its products", fontsize=8)
    remove_frame(ax)


def _curve(ax: Any, rows: list[Row], along: str) -> None:
    ax.set_visible(True)
    x = [row["x"] for row in rows]
    ax.loglog(x, [row[OURS] for row in rows], "o-", color=BLUE, markersize=3, label="xpnet, fused")
    if all(FLOOR in row for row in rows):
        floor = [row[FLOOR] for row in rows]
        ax.loglog(x, floor, "o--", color=GREY, markersize=3, label="products alone")
    ax.set_xticks(x, [str(value) for value in x], rotation=45)
    ax.set_xticks([], minor=True)
    ax.set_xlabel(along, fontsize=8)
    unit = "microseconds an epoch" if along == "samples" else "microseconds a step"
    ax.set_ylabel(unit, fontsize=8)
    remove_frame(ax)
    ax.legend(fontsize=7, frameon=False)
