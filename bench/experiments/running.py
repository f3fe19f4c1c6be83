"""Runs experiments, each run in its own process, and keeps their outcomes.

The outcome of a run is a file with its arguments and its result, written whole or not at all. A run
is not repeated if its file exists with the same arguments and recipes, so an interrupted command
can resume. Files do not notice changes of the code: after one, use ``--again``.
"""

from __future__ import annotations

import contextlib
import datetime
import functools
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.cpu.turns import environment
from bench.environment import ROOT
from bench.experiments.experiment import Experiment
from xpnet.environment import versions
from xpnet.files import write_whole
from xpnet.kernels.blas import available_cpus
from xpnet.recipe import load_recipe

__all__ = ["CANNOT", "Run", "carry_out", "outcome", "run_here", "runs_of"]

CANNOT = 2  # exit status of a run whose data or packages are missing


@dataclass(frozen=True, eq=False)  # compared by identity, as keys
class Run:
    """One run of an experiment, and the file of its outcome."""

    experiment: Experiment
    key: str
    arguments: dict[str, Any]
    file: Path
    is_short: bool


def runs_of(experiment: Experiment, folder: Path, *, is_short: bool) -> list[Run]:
    """List the runs of an experiment."""
    return [
        Run(
            experiment,
            key,
            arguments,
            folder / experiment.name / f"{re.sub('[^a-z0-9.]+', '-', key.lower())}.json",
            is_short,
        )
        for key, arguments in experiment.runs(is_short).items()
    ]


def outcome(run: Run) -> dict[str, Any] | None:
    """Return the kept outcome of a run, or None without one for its arguments and recipes."""
    try:
        kept = json.loads(run.file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(kept, dict) or kept.get("arguments") != run.arguments:
        return None
    return kept if kept.get("recipes") == _digest(run.experiment.recipes) else None


@functools.cache
def _digest(recipes: tuple[str, ...]) -> str:
    """Return a digest of the recipes' values."""
    files = [ROOT / name if name.endswith(".toml") else name for name in recipes]
    values = [load_recipe(file).values for file in files]
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def run_here(run: Run) -> dict[str, Any]:
    """Run in this process, and keep the outcome."""
    began = time.perf_counter()
    result = run.experiment.run(**run.arguments)
    kept = {
        "arguments": run.arguments,
        "recipes": _digest(run.experiment.recipes),
        "result": result,
        "machine": {"processors": available_cpus(), **versions()},
        "seconds": round(time.perf_counter() - began, 1),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    run.file.parent.mkdir(parents=True, exist_ok=True)
    write_whole(run.file, (json.dumps(kept, allow_nan=False) + "\n").encode())
    return kept


def carry_out(runs: Sequence[Run], say: Callable[[str], None]) -> dict[Run, str]:
    """Carry out runs in child processes, as many at a time as the processors allow.

    Parameters
    ----------
    runs : sequence of Run
        Runs with the same number of threads.
    say : callable
        Called with a line for every run that ends.

    Returns
    -------
    dict of Run to str
        The reason for each run that failed.

    Raises
    ------
    KeyboardInterrupt
        After Ctrl-C; outcomes of finished runs are kept.
    """
    if not runs:
        return {}
    n_workers = max(available_cpus() // runs[0].experiment.n_threads, 1)
    failed: dict[Run, str] = {}
    stop = threading.Event()
    with ThreadPoolExecutor(n_workers) as pool:
        try:
            futures = {pool.submit(_in_a_child, run, stop): run for run in runs}
            for n_done, future in enumerate(as_completed(futures), 1):
                run, why = futures[future], future.result()
                if why is not None:
                    failed[run] = why
                kept = outcome(run)
                took = f"{kept['seconds']:.0f} s" if kept and why is None else f"failed: {why}"
                say(f"  {n_done}/{len(runs)} {run.experiment.name}: {run.key}, {took}")
        except BaseException:
            stop.set()
            raise
    return failed


def _in_a_child(run: Run, stop: threading.Event) -> str | None:
    """Carry out a run in a child process, and return the reason if it fails."""
    command = [sys.executable, "-m", "bench.experiments", "--run", run.experiment.name, run.key]
    command += ["--kept", str(run.file.parent.parent.resolve())]
    command += ["--short"] if run.is_short else []
    environ = environment("xpnet", run.experiment.n_threads)
    with tempfile.TemporaryFile() as said:
        if stop.is_set():
            return "interrupted"
        # Only this process handles Ctrl-C: training would take it as a request to stop early.
        child = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environ,
            stdout=said,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        while child.poll() is None:
            if stop.wait(0.05):
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(child.pid, signal.SIGKILL)
                child.wait()
                return "interrupted"
        said.seek(0)
        text = said.read()[-3000:].decode(errors="replace").strip()
    if child.returncode == 0:
        return None
    lines = text.splitlines() or ["no output"]
    return lines[-1] if child.returncode == CANNOT else f"exit status {child.returncode}: {text}"
