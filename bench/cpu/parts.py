"""The parts of the benchmark, in the order of the page."""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import math
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from bench.cpu.contestants import CONTESTANTS, FLOOR, FLOORS, OURS
from bench.cpu.problems import NETWORKS, TO_ACCURACY, Problem
from bench.cpu.turns import (
    PAUSE,
    Failed,
    Process,
    Spread,
    busy_processor,
    compare_environments,
    environment,
    processors,
    ratios,
    take_epochs,
    take_turns,
)
from bench.environment import ROOT, output_of, processor_name

__all__ = ["PARTS", "Settings", "describe_processor"]

Row: TypeAlias = dict[str, Any]
TARGET = 0.88  # test accuracy on Fashion-MNIST
# How often the rarest input is active. Then about 5% of Adam's first moments in the first layer are
# subnormal after ten epochs with batches of 128, as on Fashion-MNIST (6%).
RARELY = 1e-5
SLACK = 60e6  # bytes that training may take beyond data, parameters and activations


@dataclass(frozen=True)
class Settings:
    """How the benchmark was called."""

    n_threads: int  # of every contestant
    is_quick: bool  # only two rounds and small networks
    say: Callable[[str], None]  # called with progress messages
    numbers: tuple[int, ...] = ()  # networks to train, from 1; all of them by default

    def networks(self) -> list[Problem]:
        """Return the networks to train; only the first one if the run is quick."""
        chosen = [NETWORKS[number - 1] for number in self.numbers] or list(NETWORKS)
        return chosen[:1] if self.is_quick else chosen

    @property
    def rounds(self) -> int:
        """Number of turns of each contestant."""
        return 2 if self.is_quick else 7


def machine(settings: Settings) -> list[Row]:
    """Describe the machine and the versions of the contestants."""
    import xpnet
    from xpnet.environment import versions
    from xpnet.kernels import host

    n_threads = settings.n_threads
    described = describe_processor(n_threads)
    commit = output_of("git", "describe", "--always", "--dirty")
    facts = {
        "processor": described["processor"],
        "processors used": f"{n_threads} of {os.cpu_count()}",
        "threads": f"{n_threads} for every contestant",
        "processors share a core": described["shares_core"],
        "processors share a core, per the system": _siblings(n_threads),
        "system": f"{platform.system()} {platform.machine()}",
        "cache line transfer": _cache_line_latency(n_threads),
        "load before": f"{os.getloadavg()[0]:.2f}" if hasattr(os, "getloadavg") else "unknown",
        "xpnet": f"{xpnet.__version__}, commit {commit}",
        "host kernels": host.problem() or host.description(),
        "BLAS": versions()["blas"],
        "Python": platform.python_version(),
    }
    for name in ("numpy", "scikit-learn", "torch", "jax"):
        try:
            facts[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            facts[name] = "not installed"
    return [{"": what, "is": fact} for what, fact in facts.items()]


@functools.cache
def describe_processor(n_threads: int) -> dict[str, str]:
    """Describe the processor.

    Returns
    -------
    dict
        ``processor``, its name; ``shares_core``, whether the processors in use share one core, as
        measured.
    """
    code = "import xpnet\nfrom xpnet.kernels import host\nxpnet.device('cpu')\n"
    found = _run(f"{code}print(host.shares_core())", OURS, n_threads)[1].strip()
    measured = {"True": "yes, measured", "False": "no, measured", "None": "not measured"}
    return {"processor": processor_name(), "shares_core": measured[found]}


def _siblings(n_threads: int) -> str:
    """Return whether the system lists the processors in use as siblings on one core."""
    try:
        siblings = [
            Path(f"/sys/devices/system/cpu/cpu{i}/topology/thread_siblings_list").read_text("ascii")
            for i in processors(n_threads)
        ]
    except (AttributeError, OSError):  # not Linux
        return "unknown"
    return "yes" if len(set(siblings)) < len(siblings) else "no"


_CACHE_LINE_TRANSFER = """
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


def _cache_line_latency(n_threads: int) -> str:
    """Measure how long a processor takes to read what another has just written."""
    if n_threads < 2:
        return "not applicable with one thread"
    code = _CACHE_LINE_TRANSFER.replace("THREADS", str(n_threads))
    found = float(_run(code, OURS, n_threads)[1])
    return f"{max(found, 0.0):.1f} ns per cache line that another processor has just written"


def _run(code: str, contestant: str, n_threads: int) -> tuple[float, str]:
    """Run a program; return its seconds and its output."""
    if hasattr(os, "sched_setaffinity"):
        code = f"import os; os.sched_setaffinity(0, {processors(n_threads)})\n{code}"
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
        raise Failed(f"{contestant}: {''.join(done.stderr.strip().splitlines()[-1:])}")
    return seconds, done.stdout


def steps(settings: Settings) -> list[Row]:
    """Time training steps of every contestant on every network."""
    rows: list[Row] = []
    for problem in settings.networks():
        settings.say(problem.name)
        rounds = min(settings.rounds, 3) if _is_slow(problem) else settings.rounds
        found = take_turns(problem, list(CONTESTANTS), settings.n_threads, rounds)
        rows += [_step_row(problem, name, found, settings.n_threads) for name in CONTESTANTS]
    return rows


def _is_slow(problem: Problem) -> bool:
    return problem.n_parameters > 10**7


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


def _spread(us: list[float], other: dict[str, Any]) -> Spread | None:
    return Spread.of(ratios(us, other["us"])) if "us" in other else None


def one_thread(settings: Settings) -> list[Row]:
    """Time training steps with one thread each."""
    rows: list[Row] = []
    for problem in settings.networks():
        if problem.n_parameters > 10**6:
            continue
        settings.say(problem.name)
        names = [name for name in CONTESTANTS if name not in (FLOORS[1], "plain NumPy")]
        found = take_turns(problem, names, 1, min(settings.rounds, 5))
        rows += [_step_row(problem, name, found, 1) for name in names]
    return rows


def busy(settings: Settings) -> list[Row]:
    """Time training steps beside a process that keeps one processor busy."""
    rows: list[Row] = []
    for network in NETWORKS[:1] if settings.is_quick else NETWORKS[:2]:
        settings.say(network.name)
        problem = _short_turn(network, 0.05)  # some contestants take ten times as long here
        rounds = min(settings.rounds, 5)
        with busy_processor(settings.n_threads):
            found = take_turns(problem, list(CONTESTANTS), settings.n_threads, rounds)
        rows += [_step_row(problem, name, found, settings.n_threads) for name in CONTESTANTS]
    return rows


def epochs(settings: Settings) -> list[Row]:
    """Time each of the first ten epochs where inputs are rarely active."""
    rows: list[Row] = []
    names = [name for name in CONTESTANTS if name not in FLOORS]
    for network in NETWORKS[:1] if settings.is_quick else NETWORKS[:2]:
        settings.say(network.name)
        problem = replace(network, epochs=10, active=RARELY)
        if settings.is_quick:
            problem = replace(problem, n_samples=20 * problem.batch_size)
        trainings = 1 if settings.is_quick else 3
        found = take_epochs(problem, names, settings.n_threads, trainings)
        for name in names:
            row: Row = {
                "network": problem.name,
                "contestant": name,
                "dtype": problem.dtype,
                "samples": problem.n_samples,
                "threads": settings.n_threads,
                **found[name],
            }
            if "us" in row:
                row["last_to_first"] = Spread.of([us[-1] / us[0] for us in row["us"]])
            rows.append(row)
    return rows


def threads(settings: Settings) -> list[Row]:
    """Time xpnet with the number of threads that it chooses, with one thread, and with all."""
    n_threads = settings.n_threads
    if n_threads < 2:
        return [{"skipped": "one processor leaves no choice"}]
    own, one, several = "own choice", "1 thread", f"{n_threads} threads"
    environments: dict[str, dict[str, str]] = {
        own: {},
        one: {"XPNET_THREADS": "1"},
        several: {"XPNET_THREADS": str(n_threads)},
    }
    loads: dict[str, Callable[[], contextlib.AbstractContextManager[Any]]] = {
        "quiet": contextlib.nullcontext,
        "one busy": functools.partial(busy_processor, n_threads),
    }
    rows: list[Row] = []
    for network in settings.networks():
        problem = _short_turn(network, 0.1 if settings.is_quick else 0.5)
        rounds = 2 if settings.is_quick else 3 if _is_slow(problem) else 10
        for load, beside in loads.items():
            settings.say(f"{network.name}, {load}")
            with beside():
                found = compare_environments(problem, OURS, environments, n_threads, rounds)
            row: Row = {"network": network.name, "load": load}
            rows.append(row)
            errors = [answer["error"] for answer in found.values() if "error" in answer]
            if errors:
                row["error"] = errors[0]
                continue
            us = {name: answer["us"] for name, answer in found.items()}
            medians = {name: statistics.median(values) for name, values in us.items()}
            better = min((one, several), key=lambda name: medians[name])
            within = Spread.of(ratios(us[own], us[better]))
            row["us"] = us
            row["times_better"] = [medians[own] / medians[better], within.low, within.high]
    return rows


def _short_turn(problem: Problem, seconds: float) -> Problem:
    """Choose samples and epochs so that xpnet's turn lasts about ``seconds``."""
    work = 6 * problem.n_parameters * problem.batch_size * np.dtype(problem.dtype).itemsize
    seconds_a_step = 5e-5 + work / 1.6e12  # approximate, on two processors
    n_steps = max(2, math.ceil(seconds / seconds_a_step))
    in_epoch = min(problem.n_samples // problem.batch_size, n_steps)
    return replace(
        problem, n_samples=in_epoch * problem.batch_size, epochs=max(1, n_steps // in_epoch)
    )


def accuracy(settings: Settings) -> list[Row]:
    """Time training on Fashion-MNIST until a test accuracy is reached."""
    rows: list[Row] = []
    names = [name for name in CONTESTANTS if name not in FLOORS]
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    errors: dict[str, str] = {}
    for seed in range(1 if settings.is_quick else 5):
        settings.say(f"seed {seed}")
        shift = seed % len(names)
        for name in names[shift:] + names[:shift]:
            if name in errors:
                continue
            try:
                with contextlib.closing(Process(name, settings.n_threads)) as process:
                    process.prepare(replace(TO_ACCURACY, n_samples=128))
                    time.sleep(PAUSE)
                    runs[name].append(process.ask("train_until", target=TARGET, seed=seed))
            except Failed as error:
                errors[name] = str(error)
    for name in names:
        row: Row = {"contestant": name, "threads": settings.n_threads}
        if name in errors:
            rows.append({**row, "error": errors[name]})
            continue
        row["runs"] = runs[name]
        row["n_not_reached"] = sum(run["accuracy"] < TARGET for run in runs[name])
        row["whole_s"] = [run["whole_s"] for run in runs[name]]
        row["training_s"] = [run["training_s"] for run in runs[name]]
        row["epoch_s"] = [run["training_s"] / run["epochs"] for run in runs[name]]
        if OURS not in errors:
            ours = [run["whole_s"] for run in runs[OURS]]
            row["times_ours"] = Spread.of(ratios(row["whole_s"], ours))
            row["times_ours_in_all"] = sum(row["whole_s"]) / sum(ours)
            epochs = [run["training_s"] / run["epochs"] for run in runs[OURS]]
            row["times_ours_an_epoch"] = Spread.of(ratios(row["epoch_s"], epochs))
        rows.append(row)
    return rows


def memory(settings: Settings) -> list[Row]:
    """Measure the peak memory of training beyond that after the imports."""
    rows: list[Row] = []
    for problem in NETWORKS[:1] if settings.is_quick else NETWORKS[:4]:
        settings.say(problem.name)
        for name in CONTESTANTS:
            if name in FLOORS:
                continue
            row: Row = {"network": problem.name, "contestant": name}
            request = {
                "contestant": name,
                "problem": asdict(replace(problem, epochs=1)),
                "n_threads": settings.n_threads,
            }
            try:
                with contextlib.closing(Process(name, settings.n_threads)) as process:
                    found = process.ask("memory", **request)
            except Failed as error:
                rows.append({**row, "error": str(error)})
                continue
            itemsize = np.dtype(problem.dtype).itemsize
            parameters = problem.n_parameters * itemsize
            activations = problem.batch_size * sum(problem.widths) * itemsize
            row["after_import_mb"] = found["after_import"] / 1e6
            row["training_mb"] = (found["peak"] - found["after_import"]) / 1e6
            row["data_mb"] = found["data"] / 1e6
            row["budget_mb"] = (found["data"] + 4 * parameters + 2 * activations + SLACK) / 1e6
            rows.append(row)
    return rows


_IMPORTS = {
    "Python": "pass",
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
    """Time a process that only imports, and one that takes its first training step."""
    rounds = 2 if settings.is_quick else 7
    programs = {(name, "import"): code for name, code in _IMPORTS.items()}
    for name in CONTESTANTS:
        if name not in FLOORS:
            programs[name, "first step"] = _FIRST.format(name=name, n_threads=settings.n_threads)
    rows: dict[tuple[str, str], Row] = {
        key: {"contestant": key[0], "what": key[1], "seconds": []} for key in programs
    }
    for number in range(rounds + 1):
        settings.say(f"round {number}")
        for key, row in rows.items():
            if "error" in row:
                continue
            try:
                took = _run(programs[key], key[0], settings.n_threads)[0]
            except Failed as error:
                row["error"] = str(error)
                del row["seconds"]
                continue
            if number:  # the first one reads files from the disk
                row["seconds"].append(took)
    return list(rows.values())


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
            for name in (OURS, FLOOR):
                if name in row and name in before:
                    growth = math.log(row[name] / before[name])
                    row[f"slope of {name}"] = growth / math.log(row["x"] / before["x"])
        if len(chosen) > 1:  # of a straight line through all of them
            x, y = (np.log(np.array([row[key] for row in chosen], float)) for key in ("x", OURS))
            line = np.polyfit(x, y, 1)
            chosen[-1]["slope of all"] = float(line[0])
    return rows


PARTS: dict[str, Callable[[Settings], list[Row]]] = {
    "machine": machine,
    "steps": steps,
    "one-thread": one_thread,
    "busy": busy,
    "epochs": epochs,
    "threads": threads,
    "accuracy": accuracy,
    "memory": memory,
    "starting": starting,
    "scaling": scaling,
}
