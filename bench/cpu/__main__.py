"""The command line of :mod:`bench.cpu`."""

from __future__ import annotations

import argparse
import datetime
import json
import sys
import time
from pathlib import Path
from typing import Any

from bench.cpu.parts import PARTS, Settings, describe_processor
from bench.cpu.problems import NETWORKS
from bench.cpu.turns import Failed
from bench.environment import BY_HAND, RESULTS, cannot_write, restart_without
from xpnet.files import write_whole
from xpnet.kernels.blas import available_cpus
from xpnet.report import plotting_problem


def main() -> int:
    """Measure and write a page; return 1 if a measurement of xpnet failed."""
    arguments = _parse()
    if arguments.profile is not None:
        return _profile(arguments)
    folder = Path(arguments.out)
    problem = cannot_write("--out", folder)
    if problem is not None:
        sys.stderr.write(problem)
        return 2
    settings = Settings(arguments.threads, arguments.quick, _say, tuple(arguments.networks or ()))
    when = datetime.datetime.now(datetime.UTC)
    file = folder / f"{when:%Y-%m-%d-%H%M%S}-cpu"
    began = time.time()
    found: dict[str, Any] = {
        "date": when.isoformat(timespec="seconds"),
        "threads": settings.n_threads,
        "is_quick": settings.is_quick,
        "processor": None,
        "shares_core": None,
        "seconds": 0.0,
        "parts": {},
    }
    name = "machine"
    try:
        found.update(describe_processor(settings.n_threads))
        for name in arguments.only or PARTS:
            _say(f"{name} ...")
            found["parts"][name] = PARTS[name](settings)
            found["seconds"] = round(time.time() - began, 1)
            _write(file, found)
    except Failed as error:
        sys.stderr.write(f"{name}: {error}\n")
        return 1
    except KeyboardInterrupt:
        _say(f"stopped; results so far: {file}.md and .json" if found["parts"] else "stopped")
        return 130
    _say(f"written: {file}.md and .json")
    ours = [
        row
        for rows in found["parts"].values()
        for row in rows
        if str(row.get("contestant", "xpnet")).startswith("xpnet") and "error" in row
    ]
    for row in ours:
        sys.stderr.write(f"{row['error']}\n")
    return int(bool(ours))


def _write(file: Path, found: dict[str, Any]) -> None:
    """Write the results so far."""
    from bench.cpu import report

    picture = None
    if plotting_problem() is None:
        drawn = report.draw(found["parts"])
        if drawn is not None:
            picture = file.with_suffix(".png")
            write_whole(picture, drawn)
    write_whole(file.with_suffix(".json"), (json.dumps(found, indent=1) + "\n").encode())
    text = report.page(found, picture.name if picture else None)
    write_whole(file.with_suffix(".md"), text.encode())


def _profile(arguments: argparse.Namespace) -> int:
    """Show the parts of a step, with the BLAS's own choice of kernels."""
    restart_without(*BY_HAND)
    from bench.cpu.profile import profile

    for number in arguments.profile or range(1, len(NETWORKS) + 1):
        sys.stdout.write("\n".join(profile(NETWORKS[number - 1])) + "\n")
    return 0


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.cpu", description="Benchmark training on the CPU, and write a page."
    )
    parser.add_argument(
        "--only",
        nargs="+",
        choices=list(PARTS),
        metavar="PART",
        help=f"parts to run: {', '.join(PARTS)}",
    )
    parser.add_argument("--quick", action="store_true", help="run two rounds on small networks")
    parser.add_argument(
        "--threads",
        type=int,
        choices=range(1, available_cpus() + 1),
        default=min(2, available_cpus()),
        metavar="N",
        help="threads of every contestant (default: 2 if available)",
    )
    parser.add_argument(
        "--out", default=str(RESULTS), help="folder for the results (default: bench/results)"
    )
    listed = "; ".join(f"{i}: {problem.name}" for i, problem in enumerate(NETWORKS, 1))
    numbers: dict[str, Any] = {
        "type": int,
        "choices": range(1, len(NETWORKS) + 1),
        "metavar": "N",
    }
    parser.add_argument(
        "--networks",
        nargs="+",
        help=f"networks for the parts steps, one-thread and threads ({listed})",
        **numbers,
    )
    parser.add_argument(
        "--profile",
        nargs="*",
        help="instead show the parts of a step, for all networks or these",
        **numbers,
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
