"""A worker process, which receives hyper-parameters, runs trials and sends the results."""

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

# Environment variables from which BLAS and OpenMP libraries read their number of threads.
_THREADS = (
    *("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS"),
    "VECLIB_MAXIMUM_THREADS",
)


@dataclass(frozen=True)
class Task:
    """A trial to run.

    Attributes
    ----------
    values : dict
        Values of hyper-parameters by their paths in the recipe.
    objective : str
        See :class:`.study.Settings`.
    asks : bool
        Whether to send each report and wait for an answer, which says whether to stop.
    last_epoch : int or None
        Stop after this epoch, counted from 1.
    """

    values: dict[str, Any]
    objective: str
    asks: bool = False
    last_epoch: int | None = None


class Worker:
    """A worker process, as its parent process sees it.

    Parameters
    ----------
    recipe : Recipe
        Recipe of the study.
    device : str or None
        See :meth:`Recipe.build`.
    n_threads : int
        Number of threads of BLAS and the compiled loops.
    data_dir : path or None
        See :meth:`Recipe.load_data`.

    Attributes
    ----------
    connection : Connection
        Receives the messages ``("ready", facts)``, ``("refused", why)``, ``("report", step,
        value)`` and ``("done", outcome)``.
    process : SpawnProcess
        The process.
    facts : dict or None
        Device, precision and threads, once the worker is ready.
    device : str or None
        The argument ``device``.
    trial : object
        The parent's record of the current trial; None if the worker is idle.
    reported : int
        The parent's record of the last epoch that earlier attempts at the trial reported.
    """

    def __init__(
        self,
        recipe: Recipe,
        device: str | None,
        n_threads: int,
        data_dir: str | os.PathLike[str] | None,
    ) -> None:
        context = multiprocessing.get_context("spawn")  # CUDA and BLAS threads break on fork
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
        """Kill the process.

        Returns
        -------
        int
            The exit status; negative if a signal, such as this one, ended the process.
        """
        self.connection.close()
        self.process.kill()
        self.process.join()
        status = self.process.exitcode or 0
        self.process.close()
        return status


@contextlib.contextmanager
def _without_ctrl_c() -> Iterator[None]:
    """Block Ctrl-C while a process is started, so that it is blocked in that process for good.

    The parent process receives it a moment later.
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
    """Set environment variables while a process is started."""
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
    """Divide the processors among workers, limited by OPENBLAS_NUM_THREADS and similar variables.

    Returns
    -------
    int
        Number of threads per worker, at least 1.
    """
    said = [os.environ.get(name, "") for name in _THREADS]
    most = min(
        (int(text) for text in said if text.isdigit() and int(text)), default=available_cpus()
    )
    return max(1, min(available_cpus() // n_workers, most))


def devices_of(spec: str, n_workers: int | None) -> list[str]:
    """Assign a device to each worker, distributing them over all GPUs.

    Parameters
    ----------
    spec : str
        ``"cpu"``, ``"cuda"`` for all GPUs, ``"cuda:N"`` or ``"auto"``.
    n_workers : int or None
        Number of workers; by default one per GPU, or on the CPU one per processor, but at most
        eight.

    Returns
    -------
    list of str
        The device of each worker.
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
    """Return the SHA-256 of the training and validation samples, labels and weights."""
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
    """Run the tasks that the parent sends, until it closes its end of the connection."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # on systems without pthread_sigmask
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
    """Run a trial and return its outcome.

    ``state`` is ``"complete"``, ``"pruned"`` or ``"failed"``, and ``value`` is the objective's. All
    other entries become attributes of the trial.
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
    except Exception as error:  # ends the trial, not the search
        device.free_memory()  # the trial may have run out of it
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
    """Return the outcome of a training that diverged: complete, with the worst possible value.

    Without a value, such settings would seem untried.
    """
    worst = math.inf
    if objective == "validation_accuracy":
        worst = 0.0 if has_classes else -math.inf
    return {"state": "complete", "value": worst, "last_report": worst, "diverged": why}
