"""The page of a benchmark, and its picture."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

from bench import markdown
from bench.cpu.contestants import FLOOR, OURS
from bench.cpu.turns import Spread
from bench.pictures import BLUE, GREY, figure, label_axes, png

__all__ = ["draw", "page"]

Row = dict[str, Any]
Column = tuple[str, Callable[[Row], str]]  # a title, and a function from a row to its cell


def page(found: dict[str, Any], picture: str | None) -> str:
    """Write the tables, in Markdown.

    Parameters
    ----------
    found : dict
        As ``python -m bench.cpu`` writes it in JSON.
    picture : str or None
        The picture's file name.
    """
    lines = [f"# Training on the CPU, {found['date'][:10]}", "", _INTRODUCTION, ""]
    if picture:
        lines += [f"![Time of a step compared with its products, and cost by size]({picture})", ""]
    for name, rows in found["parts"].items():
        title, write = _PARTS[name]
        lines += [f"## {title}", ""]
        if name not in ("machine", "memory"):  # they have no times
            lines += [
                f"{found['processor']}; processors share a core: {found['shares_core']}.",
                "",
            ]
        lines += [*write(rows), ""]
    lines.append(f"{found['seconds']:.0f} s in total.")
    return "\n".join(lines) + "\n"


_INTRODUCTION = (
    "A turn is a whole call as a user would write it, of one or more epochs. Contestants take "
    "turns, each in its own process. Times are medians of the rounds, in microseconds (us). Ratios "
    "are medians of the ratios within a round, with quartiles in brackets. *Times xpnet* is the "
    "time of a step divided by that of xpnet's fused step. *Times floor* is divided by the time of "
    "the step's matrix products alone: NumPy's BLAS with its own threads, into existing buffers. "
    "xpnet divides products among its own threads; the next row shows these products alone."
)


def _table(rows: Sequence[Row], labels: Sequence[Column], values: Sequence[Column]) -> list[str]:
    """Return a table; a row with an error shows it instead of the first value."""

    def cells(row: Row) -> list[str]:
        first = [write(row) for _, write in labels]
        if "error" in row:
            return [*first, row["error"], *[""] * (len(values) - 1)]
        return [*first, *(write(row) for _, write in values)]

    return markdown.table([title for title, _ in (*labels, *values)], [cells(row) for row in rows])


def _field(key: str, form: str = "") -> Callable[[Row], str]:
    return lambda row: format(row[key], form)


def _ratio(key: str) -> Callable[[Row], str]:
    """Return a function that writes a row's median and quartiles, if it has them."""

    def write(row: Row) -> str:
        if row.get(key) is None:
            return ""
        middle, low, high = row[key]
        return f"**{middle:.2f}** ({low:.2f}-{high:.2f})"

    return write


def _range(values: Sequence[float], form: str) -> str:
    return "{0:{3}} ({1:{3}}-{2:{3}})".format(*Spread.of(values), form)


_CONTESTANT: Column = ("", _field("contestant"))


def _machine(rows: list[Row]) -> list[str]:
    return markdown.table(("", ""), [(row[""], str(row["is"])) for row in rows])


def _by_network(
    rows: list[Row], describe: Callable[[Row], str], values: Sequence[Column]
) -> list[str]:
    """Return a table for each network, and the settings of every contestant."""
    lines: list[str] = []
    for network in dict.fromkeys(row["network"] for row in rows):
        chosen = [row for row in rows if row["network"] == network]
        n_threads = chosen[0]["threads"]
        threads = f"{n_threads} thread{'s' * (n_threads > 1)} each."
        lines += [f"### {network}{describe(chosen[0])} {threads}", ""]
        lines += [*_table(chosen, [_CONTESTANT], values), ""]
    settings = {row["contestant"]: row["settings"] for row in rows if "settings" in row}
    return lines + [f"- {name}: {text}." for name, text in settings.items()]


def _steps(rows: list[Row]) -> list[str]:
    def versions(row: Row) -> str:
        return ", ".join(f"{name} {version}" for name, version in row["versions"].items())

    return _by_network(
        rows,
        lambda row: f"\n\n{row['dtype']}, {row['optimizer'].replace('_', ' ')},",
        [
            ("times xpnet", _ratio("times_ours")),
            ("times floor", _ratio("times_floor")),
            ("us a step", lambda row: _range(row["us"], ",.0f")),
            ("steps/s", _field("steps_per_s", ",.1f")),
            ("samples/s", _field("samples_per_s", ",.0f")),
            ("versions", versions),
        ],
    )


def _epochs(rows: list[Row]) -> list[str]:
    def us_in(epoch: int) -> Callable[[Row], str]:
        return lambda row: f"{median(training[epoch - 1] for training in row['us']):,.0f}"

    return [
        "Every contestant trains for ten epochs from the start, several times; they alternate "
        "after every epoch. Most inputs are rarely active, like the border pixels of images of "
        "clothes. While an input is zero, Adam's first moment of its weights decays and becomes "
        "subnormal. Arithmetic on subnormal numbers is slow on Intel's processors. *Epoch 10 / "
        "epoch 1* is the ratio of the times of a step in these epochs: the median of the "
        "trainings, with quartiles in brackets.",
        "",
        *_by_network(
            rows,
            lambda row: f", {row['samples']:,} samples\n\n{row['dtype']},",
            [
                *((f"us a step in epoch {epoch}", us_in(epoch)) for epoch in (1, 3, 10)),
                ("epoch 10 / epoch 1", _ratio("last_to_first")),
            ],
        ),
    ]


def _threads(rows: list[Row]) -> list[str]:
    if "skipped" in rows[0]:
        return [f"Skipped: {rows[0]['skipped']}."]

    def us_of(name: str) -> Callable[[Row], str]:
        return lambda row: f"{median(row['us'][name]):,.0f}"

    names = next((list(row["us"]) for row in rows if "us" in row), [])
    return [
        "xpnet chooses how many threads to use; XPNET_THREADS overrides its choice. With *one "
        "busy* another process keeps one processor busy. *Own / better* divides the median of its "
        "own choice by the smaller of the other two medians. In brackets are the quartiles of the "
        "ratio within a round.",
        "",
        *_table(
            rows,
            [("network", _field("network")), ("load", _field("load"))],
            [
                *((f"{name}, us a step", us_of(name)) for name in names),
                ("own / better", _ratio("times_better")),
            ],
        ),
    ]


def _accuracy(rows: list[Row]) -> list[str]:
    def in_all(row: Row) -> str:
        return f"**{row['times_ours_in_all']:.2f}**" if "times_ours_in_all" in row else ""

    def epochs(row: Row) -> str:
        missed = f"; {row['n_not_reached']} never" if row["n_not_reached"] else ""
        return ", ".join(str(run["epochs"]) for run in row["runs"]) + missed

    return [
        "784-256-128-10, batch 128, Adam with learning rate 0.001, float32. The test accuracy is "
        "measured after every epoch; this time does not count. Seconds are from images in memory "
        "(bytes for xpnet, floats in [0, 1] for the others) to a network with that accuracy, "
        "without imports. Every run has its own seed; its number of epochs is partly luck.",
        "",
        *_table(
            rows,
            [_CONTESTANT],
            [
                ("times xpnet, all runs together", in_all),
                ("times xpnet, run by run", _ratio("times_ours")),
                ("times xpnet, an epoch", _ratio("times_ours_an_epoch")),
                (
                    "seconds of all runs (of training)",
                    lambda row: f"{sum(row['whole_s']):.1f} ({sum(row['training_s']):.1f})",
                ),
                ("seconds an epoch", lambda row: f"{median(row['epoch_s']):.3f}"),
                ("epochs, run by run", epochs),
            ],
        ),
    ]


def _memory(rows: list[Row]) -> list[str]:
    return [
        "Peak memory of the process during one epoch, minus its peak after the imports and a tiny "
        "training (the last column). The budget is data + 4 x parameters + 2 x activations of a "
        "minibatch + 60 MB, the limit that xpnet keeps.",
        "",
        *_table(
            rows,
            [("network", _field("network")), _CONTESTANT],
            [
                ("peak of training, MB", _field("training_mb", ",.0f")),
                ("budget, MB", _field("budget_mb", ",.0f")),
                ("data, MB", _field("data_mb", ",.0f")),
                ("before, MB", _field("after_import_mb", ",.0f")),
            ],
        ),
    ]


def _starting(rows: list[Row]) -> list[str]:
    return [
        "Time of a whole process: Python starts, imports and ends; or also draws 32 samples, makes "
        "the network 784-128-10 and takes one step.",
        "",
        *_table(
            rows,
            [_CONTESTANT, ("until", _field("what"))],
            [("seconds", lambda row: _range(row["seconds"], ".2f"))],
        ),
    ]


def _scaling(rows: list[Row]) -> list[str]:
    def slope(name: str) -> Callable[[Row], str]:
        key = f"slope of {name}"
        return lambda row: f"{row[key]:.2f}" if key in row else ""

    lines = [
        "*Slope* is the slope of log(cost) over log(size), from the previous row to this one: 1 if "
        "the cost grows in proportion to the size, 0 if it does not grow.",
        "",
    ]
    for along in dict.fromkeys(row["along"] for row in rows):
        chosen = [row for row in rows if row["along"] == along]
        unit = "us an epoch" if along == "samples" else "us a step"
        columns = [(f"xpnet, {unit}", _field(OURS, ",.0f")), ("slope", slope(OURS))]
        if any(FLOOR in row for row in chosen):
            columns += [(f"products, {unit}", _field(FLOOR, ",.0f")), ("slope", slope(FLOOR))]
            columns.append(("times floor", lambda row: f"{row[OURS] / row[FLOOR]:.2f}"))
        labels = [(along, _field("x")), ("network", _field("network"))]
        lines += [*_table(chosen, labels, columns), ""]
        if "slope of all" in chosen[-1]:
            of_all = chosen[-1]["slope of all"]
            lines += [f"Slope of a straight line through all rows of xpnet: {of_all:.2f}.", ""]
    return lines


_PARTS: dict[str, tuple[str, Callable[[list[Row]], list[str]]]] = {
    "machine": ("The machine", _machine),
    "steps": ("Steps", _steps),
    "one-thread": ("Steps with one thread", _steps),
    "busy": ("Steps with one processor kept busy", _steps),
    "epochs": ("Steps in epochs 1 to 10", _epochs),
    "threads": ("Choosing the number of threads", _threads),
    "accuracy": ("Fashion-MNIST to a test accuracy of 0.88", _accuracy),
    "memory": ("Memory", _memory),
    "starting": ("Importing and starting", _starting),
    "scaling": ("Cost by size", _scaling),
}


def draw(parts: dict[str, list[Row]]) -> bytes | None:
    """Draw steps with their floor, and cost by size, as PNG; return None without either."""
    steps = [row for row in parts.get("steps", []) if row.get("times_floor")]
    scaling = [row for row in parts.get("scaling", []) if OURS in row]
    networks = list(dict.fromkeys(row["network"] for row in steps))
    series = list(dict.fromkeys(row["along"] for row in scaling))
    if not networks and not series:
        return None
    columns = min(4, max(len(networks), len(series)))
    n_rows = math.ceil(len(networks) / columns) + bool(series)
    drawn = figure(3.6 * columns, 3.8 * n_rows)
    for number, network in enumerate(networks, 1):
        ax = drawn.add_subplot(n_rows, columns, number)
        _bars(ax, [row for row in steps if row["network"] == network], network)
    for number, along in enumerate(series, columns * (n_rows - 1) + 1):
        ax = drawn.add_subplot(n_rows, columns, number)
        _curve(ax, [row for row in scaling if row["along"] == along], along)
    drawn.suptitle("Training on the CPU: time of a step by its products, and cost by size")
    return png(drawn)


def _bars(ax: Any, rows: list[Row], network: str) -> None:
    names = [row["contestant"] for row in rows]
    values, low, high = zip(*(row["times_floor"] for row in rows), strict=True)
    spread = [[v - x for v, x in zip(values, low, strict=True)],
              [x - v for v, x in zip(values, high, strict=True)]]  # fmt: skip
    colours = [BLUE if name.startswith("xpnet") else GREY for name in names]
    places = range(len(names))
    ax.barh(places, values, color=colours, xerr=spread, error_kw={"linewidth": 0.8})
    ax.set_yticks(places, names, fontsize=8)
    ax.invert_yaxis()
    ax.axvline(1, color="black", linewidth=0.8)
    ax.set_xlim(0, max(values) * 1.25)
    for place, value, end in zip(places, values, high, strict=True):
        ax.text(end, place, f" {value:.2f}", va="center", fontsize=8)
    label_axes(ax, network.replace(", ", "\n"), "times its products")


def _curve(ax: Any, rows: list[Row], along: str) -> None:
    x = [row["x"] for row in rows]
    ax.loglog(x, [row[OURS] for row in rows], "o-", color=BLUE, markersize=3, label="xpnet, fused")
    if all(FLOOR in row for row in rows):
        floor = [row[FLOOR] for row in rows]
        ax.loglog(x, floor, "o--", color=GREY, markersize=3, label="products alone")
    ax.set_xticks(x, [str(value) for value in x], rotation=45)
    ax.set_xticks([], minor=True)
    per = "an epoch" if along == "samples" else "a step"
    label_axes(ax, "", along, f"microseconds {per}", legend="")
