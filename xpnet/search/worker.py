"""A worker process that runs trials: it receives settings and sends validation results."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import math
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import Any

import numpy as np

from xpnet.data import DataError, Dataset
from xpnet.device import Device, DeviceUnavailableError
from xpnet.kernels.blas import available_cpus, count_blas_threads
from xpnet.kernels.cuda_check import cuda_problem
from xpnet.recipe import Recipe, RecipeError
from xpnet.training import DivergenceError, Report

__all__ = ["Task", "Worker", "devices_of", "fingerprint", "threads_for"]

# What libraries of BLAS and OpenMP read their number of threads from, as they are loaded.
_THREADS = (
    *("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS"),
    "VECLIB_MAXIMUM_THREADS",
)


@dataclass(frozen=True)
class Task:
    """What a worker is to do.

    Attributes
    ----------
    values : dict
        By paths of the recipe.
    objective : str
        See :class:`.study.Settings`.
    asks : bool
        Whether each report is sent, and answered with whether to stop.
    last_epoch : int or None
        Stop after the report of this one, counted from 1.
    """

    values: dict[str, Any]
    objective: str
    asks: bool = False
    last_epoch: int | None = None


class Worker:
    """The process, seen from the one that started it.

    Parameters
    ----------
    recipe : Recipe
    device : str or None
        See :meth:`Recipe.build`.
    n_threads : int
        Of its BLAS and loops.
    data_dir : path or None
        See :meth:`Recipe.load_data`.

    Attributes
    ----------
    connection : Connection
        Messages come in here: ``("ready", facts)``, ``("refused", why)``, ``("report", step,
        value)`` and ``("done", outcome)``.
    process : SpawnProcess
    facts : dict or None
        What it said when it was ready.
    device : str or None
        As given.
    trial : object
        For whoever started it to keep what it is at; None while it is idle.
    reported : int
        Likewise: up to which epoch the trial's reports are known, of earlier attempts.
    """

    def __init__(
        self,
        recipe: Recipe,
        device: str | None,
        n_threads: int,
        data_dir: str | os.PathLike[str] | None,
    ) -> None:
        context = multiprocessing.get_context("spawn")  # CUDA, and threads of BLAS, bear no fork
        self.connection, theirs = context.Pipe()
        self.process: SpawnProcess = context.Process(
            target=_work,
            args=(theirs, recipe, device, n_threads, data_dir),
            name="xpnet worker",
            daemon=True,
        )
        self.device = device
        self.facts: dict[str, Any] | None = None
        self.trial: Any = None
        self.reported = 0
        with _environment(dict.fromkeys(_THREADS, str(n_threads))), _without_ctrl_c():
            self.process.start()
        theirs.close()

    def end(self) -> int:
        """End it at once, whatever it is at.

        Returns
        -------
        int
            Its exit status, negative if it was ended by a signal, also this one.
        """
        self.connection.close()
        self.process.kill()
        self.process.join()
        status = self.process.exitcode or 0
        self.process.close()
        return status


@contextlib.contextmanager
def _without_ctrl_c() -> Iterator[None]:
    """Keep Ctrl-C from a process that is being started, for as long as it lives.

    It is for the one that started it, to which it comes a moment later.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables for a process that is being started."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def threads_for(n_workers: int) -> int:
    """Divide the processors among workers; what OPENBLAS_NUM_THREADS and its like say is the most.

    Returns
    -------
    int
        Threads of each, at least 1.
    """
    said = [os.environ.get(name, "") for name in _THREADS]
    most = min(
        (int(text) for text in said if text.isdigit() and int(text)), default=available_cpus()
    )
    return max(1, min(available_cpus() // n_workers, most))


def devices_of(spec: str, n_workers: int | None) -> list[str]:
    """Give each worker a device: of several GPUs one after another.

    Parameters
    ----------
    spec : str
        ``"cpu"``, ``"cuda"``, which may be any GPU, ``"cuda:N"`` or ``"auto"``.
    n_workers : int or None
        None for as many as there are GPUs, or on the CPU processors, but no more than eight.

    Returns
    -------
    list of str
    """
    gpus = []
    if spec in ("cuda", "auto") and cuda_problem() is None:
        runtime: Any = importlib.import_module("cupy").cuda.runtime
        gpus = [f"cuda:{number}" for number in range(runtime.getDeviceCount())]
    if spec == "auto":
        spec = "cuda" if gpus else "cpu"
    if spec != "cuda":
        gpus = []
    one_of_each = gpus or [spec] * (min(available_cpus(), 8) if spec == "cpu" else 1)
    n_workers = len(one_of_each) if n_workers is None else n_workers
    return [one_of_each[number % len(one_of_each)] for number in range(n_workers)]


def fingerprint(dataset: Dataset) -> str:
    """Tell data from others by the samples that trials see: SHA-256 of those and their labels."""
    found = hashlib.sha256()
    arrays = (
        *(dataset.X_train, dataset.y_train, dataset.sample_weight),
        *(dataset.X_validation, dataset.y_validation),
    )
    for array in arrays:
        if array is not None:
            found.update(f"{array.dtype.str}{array.shape}".encode())
            found.update(np.ascontiguousarray(array).data)
    return found.hexdigest()


def _work(
    connection: Connection,
    recipe: Recipe,
    device: str | None,
    n_threads: int,
    data_dir: str | os.PathLike[str] | None,
) -> None:
    """Be a worker until the other end is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # where it could not be kept away from the start
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        dataset = recipe.load_data(data_dir)
        recipe.check_validation(dataset)
        made = recipe.build(dataset, device).device
    except (DataError, DeviceUnavailableError, RecipeError, ValueError) as error:
        connection.send(("refused", str(error)))
        return
    threads = count_blas_threads() or n_threads
    facts = {"device": made.name, "precision": made.precision, "threads": threads}
    connection.send(("ready", {**facts, "data": fingerprint(dataset)}))
    while True:
        try:
            task = connection.recv()
        except EOFError:
            return
        connection.send(("done", _outcome(recipe, dataset, made, task, connection)))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
    os._exit(1)


def _outcome(
    recipe: Recipe, dataset: Dataset, device: Device, task: Task, connection: Connection
) -> dict[str, Any]:
    """Run a trial, and give what is to be told of it.

    ``state`` is ``"complete"``, ``"pruned"`` or ``"failed"``; ``value`` the objective's; the rest
    goes into the trial's attributes.
    """
    has_classes = recipe.settings.loss.has_classes
    was_stopped = False

    def on_report(report: Report) -> bool:
        nonlocal was_stopped
        if task.asks:
            value = getattr(report, task.objective)
            connection.send(("report", report.epoch + 1, value))
            was_stopped = connection.recv()
        return was_stopped or report.epoch + 1 == task.last_epoch

    try:
        found = recipe.changed(task.values).validate(dataset, device, on_report=on_report)
    except DivergenceError as error:
        return _diverged(task.objective, str(error), has_classes=has_classes)
    except Exception as error:  # it is the trial's end, not the search's
        device.free_memory()  # which may be what it died of
        return {"state": "failed", "reason": " ".join(f"{type(error).__name__}: {error}".split())}
    value = found.accuracy if task.objective == "validation_accuracy" else found.cost
    if math.isnan(value):
        return _diverged(task.objective, f"{task.objective} is nan", has_classes=has_classes)
    best, last = found.history.best_epoch, found.history.reports[-1]
    return {
        "state": "pruned" if was_stopped else "complete",
        "value": value,
        "validation_accuracy": found.accuracy,
        "validation_cost": found.cost,
        "last_report": getattr(last, task.objective),
        "train_cost": last.cost,
        "epochs": last.epoch + 1,
        **({} if best is None else {"best_epoch": best + 1}),
        "seconds": round(found.history.seconds, 3),
        "parameters": found.n_parameters,
    }


def _diverged(objective: str, why: str, *, has_classes: bool) -> dict[str, Any]:
    """Give the outcome of a training that came to nothing: a result, and the worst there is.

    Left out, it would seem that settings of this kind were never tried.
    """
    worst = math.inf
    if objective == "validation_accuracy":
        worst = 0.0 if has_classes else -math.inf
    return {"state": "complete", "value": worst, "last_report": worst, "diverged": why}
