"""Search with one worker and with several: ``python -m bench.search``.

One worker with all BLAS threads and several workers that share the threads run the same trials
alternately, each time as a new study. The time covers the whole search: workers start, load the
data, run the trials and end.
"""

from __future__ import annotations

import argparse
import datetime
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.cpu.turns import Spread
from bench.environment import BY_HAND, THREADS, restart_without
from bench.markdown import table

PROBLEMS = {
    "digits-deep": (160, []),
    "fashion-mnist": (24, ["training.epochs=2"]),
}


def main() -> int:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.search", description="Time a search with one worker and with several."
    )
    parser.add_argument(
        "--workers", type=int, default=4, help="number of workers to compare with one"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--trials", type=int, help="number of trials (default: depends on the recipe)"
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(PROBLEMS))
    arguments = parser.parse_args()
    from xpnet.environment import versions
    from xpnet.kernels.blas import available_cpus

    rows = [_measure(name, arguments) for name in arguments.names or PROBLEMS]
    several = f"{arguments.workers} workers, s"
    header = ("recipe", "trials", "one worker, s", several, "faster by", "threads", "same results")
    sys.stdout.write("\n".join(table(header, rows)) + "\n\n")
    facts = {"date": datetime.date.today(), "processors": available_cpus(), **versions()}
    sys.stdout.write("\n".join(f"- {key}: {value}" for key, value in facts.items()) + "\n")
    return 0


def _measure(name: str, arguments: argparse.Namespace) -> tuple[str, ...]:
    n_trials, changes = PROBLEMS[name]
    n_trials = arguments.trials or n_trials
    seconds: dict[int, list[float]] = {1: [], arguments.workers: []}
    threads: dict[int, Any] = {}
    values: dict[int, list[float]] = {}
    for _ in range(arguments.rounds):
        for n_workers, found in seconds.items():
            took, threads[n_workers], values[n_workers] = _run(name, changes, n_trials, n_workers)
            found.append(took)
    one, several = seconds.values()
    ratio = Spread.of([a / b for a, b in zip(one, several, strict=True)])
    pairs = zip(*values.values(), strict=True)
    return (
        name,
        str(n_trials),
        f"{statistics.median(one):.1f}",
        f"{statistics.median(several):.1f}",
        f"{ratio.median:.2f} ({ratio.low:.2f} to {ratio.high:.2f})",
        " and ".join(f"{n}: {said}" for n, said in threads.items()),
        f"{sum(a == b for a, b in pairs)} of {n_trials}",
    )


def _run(
    name: str, changes: list[str], n_trials: int, n_workers: int
) -> tuple[float, str, list[float]]:
    """Run a study; return its seconds, the workers' threads and the trials' results."""
    from xpnet.recipe import load_recipe
    from xpnet.search import open_storage, open_study, run_trials

    with tempfile.TemporaryDirectory() as folder:
        recipe = load_recipe(name, changes=changes)
        study = open_study(open_storage(Path(folder) / "study.journal"), "study", recipe)
        began = time.perf_counter()
        run_trials(study, n_trials=n_trials, n_workers=n_workers)
        took = time.perf_counter() - began
        trials = study.complete()
        threads = {trial.user_attrs["worker"]["threads"] for trial in trials}
        return took, ", ".join(map(str, sorted(threads))), [trial.values[0] for trial in trials]


if __name__ == "__main__":
    restart_without(*BY_HAND, *THREADS)
    sys.exit(main())
