"""What is measured: the parts of a page, in their order."""

from __future__ import annotations

import importlib.metadata
import math
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from bench.cpu.contestants import CONTESTANTS, FLOOR, OURS
from bench.cpu.problems import NETWORKS, TO_ACCURACY, Problem
from bench.cpu.turns import ROOT, Failed, Process, Spread, environment, ratios, take_turns

__all__ = ["PARTS", "Settings"]

Row: TypeAlias = dict[str, Any]
PEERS = ("plain NumPy", "scikit-learn", "PyTorch", "JAX")
TARGET = 0.88  # test accuracy on Fashion-MNIST
SLACK = 60e6  # bytes beyond data, parameters and activations that a training may take


@dataclass(frozen=True)
class Settings:
    """How the benchmark was called.

    Attributes
    ----------
    n_threads : int
        For every contestant.
    is_quick : bool
        Whether two rounds and small networks have to do.
    say : callable
        Is told what goes on.
    """

    n_threads: int
    is_quick: bool
    say: Callable[[str], None]

    @property
    def rounds(self) -> int:
        """How often everybody has a turn."""
        return 2 if self.is_quick else 9


def machine(settings: Settings) -> list[Row]:
    """Describe the machine, and who takes part in which version."""
    import xpnet
    from xpnet.environment import versions
    from xpnet.kernels import host

    rows = [
        {"": "processor", "is": _processor()},
        {"": "processors used", "is": f"{settings.n_threads} of {os.cpu_count()}"},
        {"": "threads", "is": f"{settings.n_threads} for every contestant"},
        {"": "system", "is": f"{platform.system()} {platform.machine()}"},
        {"": "handing over", "is": _handover(settings)},
        {"": "xpnet", "is": xpnet.__version__},
        {"": "host kernels", "is": host.problem() or host.description()},
        {"": "BLAS", "is": versions()["blas"]},
        {"": "Python", "is": platform.python_version()},
    ]
    for name in ("numpy", "scikit-learn", "torch", "jax"):
        try:
            rows.append({"": name, "is": importlib.metadata.version(name)})
        except importlib.metadata.PackageNotFoundError:
            rows.append({"": name, "is": "not installed"})
    return rows


def _processor() -> str:
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8") as file:
            fields = dict(line.split(":", 1) for line in file if ":" in line)
    except OSError:
        return platform.processor() or "unknown"
    found = {key.strip(): value.strip() for key, value in fields.items()}
    family = f"family {found.get('cpu family', '?')} model {found.get('model', '?')}"
    return f"{found.get('model name', 'unknown')}, {family}"


_HANDOVER = """
import time, statistics, numpy as np, threadpoolctl
A, B = np.ones((128, 784), np.float32), np.ones((784, 256), np.float32)
Z, out = np.empty((128, 256), np.float32), np.empty((128, 256), np.float32)
def reading(n):
    found = []
    with threadpoolctl.threadpool_limits(n):
        for _ in range(300):
            np.matmul(A, B, out=Z)
            start = time.perf_counter()
            np.maximum(Z, 0, out=out)
            found.append(time.perf_counter() - start)
    return statistics.median(found)
print((reading(THREADS) - reading(1)) / (Z.nbytes / 64 * (1 - 1 / THREADS)) * 1e9)
"""


def _handover(settings: Settings) -> str:
    """Tell how long one processor takes to read what another has just written."""
    if settings.n_threads < 2:
        return "one thread: nothing is handed over"
    code = _HANDOVER.replace("THREADS", str(settings.n_threads))
    found = float(_run(code, OURS, settings.n_threads)[1])
    return (
        f"{max(found, 0.0):.1f} ns a cache line from one processor to another. A virtual machine's "
        "processors may be close by in one minute (1 to 3 ns) and far apart in the next (10 ns), "
        "and all threads' times change with it"
    )


def _run(code: str, contestant: str, n_threads: int) -> tuple[float, str]:
    """Run a program; gives its seconds and what it printed."""
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=environment(contestant, n_threads),
        capture_output=True,
        text=True,
        check=False,
    )
    seconds = time.perf_counter() - start
    if done.returncode:
        raise Failed(f"{contestant}: {done.stderr.strip().splitlines()[-1:]}")
    return seconds, done.stdout


def steps(settings: Settings) -> list[Row]:
    """Time training steps of every contestant on every network."""
    rows: list[Row] = []
    for problem in NETWORKS[:1] if settings.is_quick else NETWORKS:
        settings.say(problem.name)
        is_slow = problem.n_parameters > 10**7
        rounds = min(settings.rounds, 5) if is_slow else settings.rounds
        found = take_turns(problem, list(CONTESTANTS), settings.n_threads, rounds)
        rows += [_step_row(problem, name, found, settings.n_threads) for name in CONTESTANTS]
    return rows


def _step_row(problem: Problem, name: str, found: dict[str, dict[str, Any]], n_threads: int) -> Row:
    row: Row = {
        "network": problem.name,
        "contestant": name,
        "dtype": problem.dtype,
        "optimizer": problem.optimizer,
        "threads": n_threads,
        **found[name],
    }
    if "error" in found[name]:
        return row
    us = found[name]["us"]
    row["steps_per_s"] = 1e6 / statistics.median(us)
    row["samples_per_s"] = row["steps_per_s"] * problem.batch_size
    row["times_ours"] = _spread(us, found[OURS])
    row["times_floor"] = _spread(us, found[FLOOR])
    return row


def _spread(us: list[float], other: dict[str, Any]) -> list[float] | None:
    if "us" not in other:
        return None
    found = Spread.of(ratios(us, other["us"]))
    return [found.median, found.low, found.high]


def to_accuracy(settings: Settings) -> list[Row]:
    """Time training on Fashion-MNIST until a test accuracy is reached."""
    rows: list[Row] = []
    names = [name for name in CONTESTANTS if name != FLOOR]
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    errors: dict[str, str] = {}
    for number in range(1 if settings.is_quick else 7):
        settings.say(f"seed {number}")
        for name in names:
            if name in errors:
                continue
            process = Process(name, settings.n_threads)
            try:
                process.ask(
                    "prepare",
                    contestant=name,
                    problem=replace(TO_ACCURACY, n_samples=128).as_dict(),
                    n_threads=settings.n_threads,
                )
                runs[name].append(process.ask("train_until", target=TARGET, seed=number))
            except Failed as error:
                errors[name] = str(error)
            finally:
                process.close()
    for name in names:
        row: Row = {"contestant": name, "threads": settings.n_threads}
        if name in errors:
            rows.append({**row, "error": errors[name]})
            continue
        for key in ("training_s", "whole_s", "epochs", "accuracy"):
            row[key] = statistics.mean(run[key] for run in runs[name])
        row["median_s"] = statistics.median(run["whole_s"] for run in runs[name])
        row["runs"] = runs[name]
        rows.append(row)
    ours = next((row for row in rows if row["contestant"] == OURS), {})
    for row in rows:
        if "whole_s" in row and "whole_s" in ours:
            row["times_ours"] = row["whole_s"] / ours["whole_s"]
    return rows


def memory(settings: Settings) -> list[Row]:
    """Measure the peak of memory while training, over that after the imports."""
    rows: list[Row] = []
    for problem in NETWORKS[:1] if settings.is_quick else NETWORKS[:4]:
        settings.say(problem.name)
        for name in CONTESTANTS:
            if name == FLOOR:
                continue
            row: Row = {"network": problem.name, "contestant": name}
            process = Process(name, settings.n_threads)
            one_epoch = replace(problem, epochs=1)
            try:
                found = process.ask(
                    "memory",
                    contestant=name,
                    problem=one_epoch.as_dict(),
                    n_threads=settings.n_threads,
                )
            except Failed as error:
                rows.append({**row, "error": str(error)})
                continue
            finally:
                process.close()
            itemsize = np.dtype(problem.dtype).itemsize
            parameters = problem.n_parameters * itemsize
            activations = problem.batch_size * sum(problem.widths) * itemsize
            rows.append(
                {
                    **row,
                    "after_import_mb": found["after_import"] / 1e6,
                    "training_mb": (found["peak"] - found["after_import"]) / 1e6,
                    "data_mb": found["data"] / 1e6,
                    "budget_mb": (found["data"] + 4 * parameters + 2 * activations + SLACK) / 1e6,
                }
            )
    return rows


_IMPORTS = {
    "Python alone": "pass",
    "NumPy": "import numpy",
    OURS: "from xpnet import nn, training",
    "scikit-learn": "from sklearn.neural_network import MLPClassifier",
    "PyTorch": "import torch",
    "JAX": "import jax",
}
_FIRST = """
from bench.cpu.contestants import CONTESTANTS
from bench.cpu.problems import Problem
CONTESTANTS[{name!r}](Problem((784, 128, 10), 32, 32), {n_threads}).train(1)
"""


def starting(settings: Settings) -> list[Row]:
    """Time a process that imports and ends, and one that takes its first training step."""
    rounds = 2 if settings.is_quick else 7
    programs = {(name, "import"): code for name, code in _IMPORTS.items()}
    for name in CONTESTANTS:
        if name in _IMPORTS:
            programs[name, "first step"] = _FIRST.format(name=name, n_threads=settings.n_threads)
    seconds: dict[tuple[str, str], list[float]] = {key: [] for key in programs}
    errors: dict[tuple[str, str], str] = {}
    for number in range(rounds + 1):
        settings.say(f"round {number}")
        for key, code in programs.items():
            if key in errors:
                continue
            try:
                took = _run(code, key[0], settings.n_threads)[0]
            except Failed as error:
                errors[key] = str(error)
                continue
            if number:  # the first one reads files from the disk
                seconds[key].append(took)
    return [
        {"contestant": name, "what": what, "error": errors[name, what]}
        if (name, what) in errors
        else {"contestant": name, "what": what, "seconds": seconds[name, what]}
        for name, what in programs
    ]


def _series(settings: Settings) -> dict[str, list[tuple[float, Problem]]]:
    def problem(widths: tuple[int, ...], batch: int, n_steps: int | None = None) -> Problem:
        work = sum(n * m for n, m in pairwise(widths)) * batch
        n = n_steps or max(3, min(400, int(2e10 / work)))
        return Problem(widths, batch, batch * n)

    def chosen(*sizes: int) -> tuple[int, ...]:
        return sizes[1:3] if settings.is_quick else sizes

    widths = chosen(32, 64, 128, 256, 512, 1024, 2048)
    depths = chosen(1, 2, 4, 8, 16)
    batches = chosen(16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
    samples = chosen(2, 8, 32, 128, 468)
    return {
        "width": [(w, problem((784, w, w, 10), 128)) for w in widths],
        "depth": [(d, problem((784, *[256] * d, 10), 128)) for d in depths],
        "batch size": [(b, problem((784, 256, 128, 10), b)) for b in batches],
        "samples": [(128 * k, problem((784, 256, 128, 10), 128, k)) for k in samples],
    }


def scaling(settings: Settings) -> list[Row]:
    """Time a step against width, depth and batch size, and an epoch against the samples."""
    rows: list[Row] = []
    for along, points in _series(settings).items():
        settings.say(along)
        for x, problem in points:
            contestants = [OURS] if along == "samples" else [OURS, FLOOR]
            found = take_turns(problem, contestants, settings.n_threads, min(settings.rounds, 3))
            row: Row = {"along": along, "x": x, "network": problem.name}
            for name in contestants:
                if "error" in found[name]:
                    row["error"] = found[name]["error"]
                    continue
                us = statistics.median(found[name]["us"])
                row[name] = us * problem.n_steps if along == "samples" else us
            rows.append(row)
    for along in _series(settings):
        chosen = [row for row in rows if row["along"] == along and OURS in row]
        for before, row in pairwise(chosen):
            row["slope"] = math.log(row[OURS] / before[OURS]) / math.log(row["x"] / before["x"])
    return rows


PARTS: dict[str, Callable[[Settings], list[Row]]] = {
    "machine": machine,
    "steps": steps,
    "to accuracy": to_accuracy,
    "memory": memory,
    "starting": starting,
    "scaling": scaling,
}
