"""The command line of :mod:`bench.experiments`."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.environment import RESULTS, ROOT, cannot_write
from bench.experiments.catalogue import EXPERIMENTS
from bench.experiments.experiment import Experiment
from bench.experiments.page import Done, page
from bench.experiments.running import CANNOT, Run, carry_out, outcome, run_here, runs_of
from xpnet.data import DataError
from xpnet.files import write_whole
from xpnet.report import plotting_problem

KEPT = ROOT / "runs" / "experiments"
PAGE = RESULTS / "experiments"


def main() -> int:
    """Carry out missing runs and write the page; return 1 if a run failed."""
    arguments = _parse()
    problem = plotting_problem()
    if problem is not None:
        sys.stderr.write(f"cannot draw the page's pictures: {problem}\n")
        return 2
    kept = Path(arguments.kept or (KEPT / "short" if arguments.short else KEPT))
    if arguments.run:
        name, key = arguments.run
        return _one_run(name, key, kept, is_short=arguments.short)
    folders = {} if arguments.page else {"--kept": kept}
    for name, folder in {**folders, "--out": Path(arguments.out or kept)}.items():
        problem = cannot_write(name, folder)
        if problem is not None:
            sys.stderr.write(problem)
            return 2
    end_on_signals()
    failed: dict[Run, str] = {}
    status = 0
    try:
        with contextlib.nullcontext() if arguments.page else _lock(kept):
            for name in [] if arguments.page else arguments.names or EXPERIMENTS:
                failed |= _carry_out(EXPERIMENTS[name], kept, arguments.again, arguments.short)
    except BlockingIOError:
        sys.stderr.write(f"--kept: another command is using {kept}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("stopped; run the same command to resume\n")
        status = 130
    written = _write(kept, arguments.out, failed, is_short=arguments.short)
    _say(f"written: {written / 'README.md'}")
    if status:
        return status
    for run, why in failed.items():
        sys.stderr.write(f"{run.experiment.name}, {run.key}: {why}\n")
    return int(bool(failed))


def end_on_signals() -> None:
    """Treat other signals like Ctrl-C, so that the runs end with the command."""
    for name in ("SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.default_int_handler)


@contextlib.contextmanager
def _lock(kept: Path) -> Iterator[None]:
    """Lock a folder against other commands, if the system has POSIX file locks."""
    with (kept / ".lock").open("w") as file:
        if importlib.util.find_spec("fcntl"):
            fcntl: Any = importlib.import_module("fcntl")
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


def _one_run(name: str, key: str, kept: Path, *, is_short: bool) -> int:
    """Carry out one run, in the child process that the command starts for it."""
    runs = {run.key: run for run in runs_of(EXPERIMENTS[name], kept, is_short=is_short)}
    if key not in runs:
        sys.stderr.write(f"{name} has no run {key!r}\n")
        return 2
    try:
        run_here(runs[key])
    except (DataError, ImportError) as error:  # one line, no traceback
        sys.stderr.write(f"{error}\n")
        return CANNOT
    return 0


def _carry_out(experiment: Experiment, kept: Path, again: bool, is_short: bool) -> dict[Run, str]:
    runs = runs_of(experiment, kept, is_short=is_short)
    left = [run for run in runs if again or outcome(run) is None]
    _say(f"{experiment.name}: {len(runs) - len(left)} of {len(runs)} runs are done already")
    return carry_out(left, _say)


def _write(kept: Path, out: str | None, failed: dict[Run, str], *, is_short: bool) -> Path:
    """Write the page and its pictures from the kept outcomes, and return the folder.

    By default the page in the repository changes only if all runs are complete.
    """
    reasons = {run.experiment.name: why.splitlines()[-1] for run, why in failed.items()}
    all_done = [
        _collect(experiment, kept, reasons.get(experiment.name, ""), is_short)
        for experiment in EXPERIMENTS.values()
    ]
    is_complete = not is_short and all(done.section for done in all_done)
    folder = Path(out or (PAGE if is_complete else kept))
    folder.mkdir(parents=True, exist_ok=True)
    for section in (done.section for done in all_done if done.section):
        for name, picture in section.pictures.items():
            write_whole(folder / name, picture)
        for name, picture in section.own_pictures.items():
            write_whole(kept / name, picture)
    write_whole(folder / "README.md", page(all_done, is_short=is_short).encode())
    return folder


def _collect(experiment: Experiment, kept: Path, reason: str, is_short: bool) -> Done:
    runs = runs_of(experiment, kept, is_short=is_short)
    outcomes = {run.key: outcome(run) for run in runs}
    there = {key: found for key, found in outcomes.items() if found is not None}
    section, missing = None, ""
    if len(there) < len(runs):
        missing = f"{len(runs) - len(there)} of {len(runs)} runs are missing"
        missing += f"; {reason}" if reason else ""
    else:
        try:
            section = experiment.section({key: found["result"] for key, found in there.items()})
        except (DataError, ImportError) as error:
            missing = str(error)
        except KeyError as error:  # kept by another version of the code
            missing = f"the kept outcomes lack {error}; repeat them with --again"
    return Done(experiment, section, missing, list(there.values()))


def _say(text: str) -> None:
    with contextlib.suppress(BrokenPipeError):  # the output is closed, but the runs go on
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()


def _name(text: str) -> str:
    if text not in EXPERIMENTS:
        raise argparse.ArgumentTypeError(
            f"unknown experiment {text!r}; valid experiments: {', '.join(EXPERIMENTS)}"
        )
    return text


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.experiments",
        description="Repeat published results with xpnet, and write a page that compares them.",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", type=_name, help=", ".join(EXPERIMENTS))
    parser.add_argument("--again", action="store_true", help="repeat finished runs too")
    parser.add_argument("--page", action="store_true", help="only write the page")
    parser.add_argument(
        "--short",
        action="store_true",
        help="take seconds, not minutes; the numbers mean nothing",
    )
    parser.add_argument(
        "--out",
        help="folder for the page (default: bench/results/experiments if all runs are complete, "
        "otherwise the folder of --kept)",
    )
    parser.add_argument("--kept", help="folder for the outcomes (default: runs/experiments)")
    parser.add_argument("--run", nargs=2, metavar=("NAME", "KEY"), help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
