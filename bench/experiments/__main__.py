"""The command line of the experiments; see :mod:`bench.experiments`."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.cpu.turns import ROOT
from bench.experiments.catalogue import EXPERIMENTS
from bench.experiments.experiment import Experiment
from bench.experiments.page import Done, page
from bench.experiments.running import Run, carry_out, outcome, run_as_child, runs_of
from bench.folders import cannot_write
from xpnet.environment import versions
from xpnet.files import write_whole
from xpnet.kernels.blas import available_cpus
from xpnet.report import plotting_problem

KEPT = ROOT / "runs" / "experiments"
PAGE = ROOT / "bench" / "results" / "experiments"


def main() -> int:
    """Carry out what is not there yet, and write the page; the exit status is 1 if a run failed."""
    arguments = _parse()
    problem = plotting_problem()
    if problem is not None:
        sys.stderr.write(f"the page has pictures: {problem}\n")
        return 2
    kept = Path(arguments.kept or (KEPT / "short" if arguments.short else KEPT))
    if arguments.run:
        name, key = arguments.run
        return _one_run(name, key, kept, is_short=arguments.short)
    out = Path(arguments.out or (kept if arguments.short else PAGE))
    for name, folder in (("--kept", kept), ("--out", out)):
        problem = cannot_write(name, folder)
        if problem is not None:
            sys.stderr.write(problem)
            return 2
    signal.signal(signal.SIGTERM, _end)
    chosen = [EXPERIMENTS[name] for name in arguments.names or EXPERIMENTS]
    failed: dict[Run, str] = {}
    try:
        for experiment in [] if arguments.page else chosen:
            failed |= _carry_out(experiment, kept, arguments.again, arguments.short)
    except KeyboardInterrupt:
        _write(kept, out, failed, is_short=arguments.short)
        sys.stderr.write("stopped; the same command goes on from here\n")
        return 130
    _write(kept, out, failed, is_short=arguments.short)
    _say(f"written: {out / 'README.md'}")
    for run, why in failed.items():
        sys.stderr.write(f"{run.experiment.name}, {run.key}: {why}\n")
    return int(bool(failed))


def _end(number: int, frame: Any) -> None:
    """End by SIGTERM as by Ctrl-C: runs end with their command."""
    del number, frame
    raise KeyboardInterrupt


def _one_run(name: str, key: str, kept: Path, *, is_short: bool) -> int:
    """Carry out one run: what the command starts for each."""
    runs = runs_of(EXPERIMENTS[name], kept, is_short=is_short)
    return run_as_child(next(run for run in runs if run.key == key))


def _carry_out(experiment: Experiment, kept: Path, again: bool, is_short: bool) -> dict[Run, str]:
    runs = runs_of(experiment, kept, is_short=is_short)
    if again:
        for run in runs:
            run.file.unlink(missing_ok=True)
    left = [run for run in runs if outcome(run) is None]
    _say(f"{experiment.name}: {len(runs) - len(left)} of {len(runs)} runs are there")
    return carry_out(left, _say)


def _write(kept: Path, out: Path, failed: dict[Run, str], *, is_short: bool) -> None:
    """Write the page and its pictures from all that is there."""
    reasons = {run.experiment.name: why.splitlines()[-1] for run, why in failed.items()}
    all_done = [
        _gather(experiment, kept, reasons.get(experiment.name, ""), is_short)
        for experiment in EXPERIMENTS.values()
    ]
    for done in all_done:
        for name, picture in (done.section.pictures if done.section else {}).items():
            write_whole(out / name, picture)
    text = page(all_done, _machine(), is_short=is_short)
    write_whole(out / "README.md", text.encode())


def _gather(experiment: Experiment, kept: Path, reason: str, is_short: bool) -> Done:
    runs = runs_of(experiment, kept, is_short=is_short)
    outcomes = {run.key: outcome(run) for run in runs}
    there = {key: found for key, found in outcomes.items() if found is not None}
    missing = f"{len(runs) - len(there)} of {len(runs)} runs are missing"
    is_complete = len(there) == len(runs)
    return Done(
        experiment,
        experiment.section({key: found["result"] for key, found in there.items()})
        if is_complete
        else None,
        f"{missing}; {reason}" if reason else missing,
        sum(found["seconds"] for found in there.values()),
        [found["date"] for found in there.values()],
    )


def _machine() -> dict[str, Any]:
    return {"processors": available_cpus(), **versions()}


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.experiments", description=__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", choices=[*EXPERIMENTS, []], help=", ".join(EXPERIMENTS)
    )
    parser.add_argument("--again", action="store_true", help="repeat what is there already")
    parser.add_argument("--page", action="store_true", help="write the page from what is there")
    parser.add_argument(
        "--short", action="store_true", help="seconds instead of minutes; the numbers mean nothing"
    )
    parser.add_argument("--out", help="folder for the page (bench/results/experiments)")
    parser.add_argument("--kept", help="folder where outcomes of runs are kept (runs/experiments)")
    parser.add_argument("--run", nargs=2, metavar=("NAME", "KEY"), help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
