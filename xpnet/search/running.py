"""Runs the trials of a study in several processes; no trial is lost or counted twice."""

from __future__ import annotations

import contextlib
import math
import multiprocessing.connection
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from xpnet.nn.checks import check_count
from xpnet.recipe import Recipe
from xpnet.search.leases import MOST_ATTEMPTS, Leases, n_lost
from xpnet.search.parameters import parameters, suggest
from xpnet.search.sampling import design, grid_of, make_pruner, make_sampler
from xpnet.search.study import SearchError, Study, quiet, storage_reason
from xpnet.search.worker import Task, Worker, devices_of, threads_for
from xpnet.training import Interruption

__all__ = ["Replay", "State", "replay", "run_trials"]

_TICK = 0.5  # seconds between checks of other processes
_MOST_FAILURES = 5  # if all of the first trials fail, the settings are not the cause
_MOST_STARTS = 3  # of workers that exit with an error before they are ready
_MOST_KILLS = 50  # of workers that are killed before they are ready


@dataclass(frozen=True)
class State:
    """Progress of a search.

    Attributes
    ----------
    n_finished, n_running : int
        Numbers of finished and running trials.
    n_trials : int or None
        Target number of trials; None if only the time is limited.
    seconds, most_seconds : float
        Seconds since this process started, and after which it starts no more trials; infinite if
        the time is not limited.
    best : FrozenTrial or None
        Best trial so far.
    workers : list of dict
        Device, precision, threads and process id of this process's workers that are ready.
    """

    n_finished: int
    n_running: int
    n_trials: int | None
    seconds: float
    most_seconds: float
    best: FrozenTrial | None
    workers: list[dict[str, Any]]


def run_trials(
    study: Study,
    *,
    n_trials: int | None = None,
    minutes: float | None = None,
    n_workers: int | None = None,
    device: str | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    on_state: Callable[[State], object] | None = None,
) -> bool:
    """Run trials in worker processes until the study has enough of them.

    Several processes, on one or more machines, may run trials of one study at the same time. They
    share only the storage.

    Parameters
    ----------
    study : Study
        Study to run trials of.
    n_trials : int or None
        Target number of trials of the study, including existing trials and those of other
        processes. A grid ends with its last point.
    minutes : float or None
        Start no trials after this time; running trials are completed. One of ``n_trials`` and
        ``minutes`` is needed, except for a grid.
    n_workers : int or None
        Number of worker processes. By default one per GPU, or on the CPU one per processor, but at
        most eight. The processors are divided among the workers.
    device : str or None
        See :meth:`Recipe.build`; ``"cuda"`` distributes the workers over all GPUs.
    data_dir : path, optional
        See :meth:`Recipe.load_data`.
    on_state : callable, optional
        Called with a :class:`State`, at most twice a second, and at the end.

    Returns
    -------
    bool
        True, or False after Ctrl-C, which returns running trials to the study.

    Raises
    ------
    SearchError
        If an argument is invalid, the data differ from the study's, workers cannot start, all
        trials so far have failed, or the storage fails.

    Notes
    -----
    Workers are spawned, not forked. A script that calls this function must guard its main part by
    ``if __name__ == "__main__":``, and define or import custom components, such as layers and
    losses, outside of it.
    """
    if n_trials is not None:
        n_trials = check_count("n_trials", n_trials)
    if minutes is not None and not (isinstance(minutes, (int, float)) and 0 < minutes < math.inf):
        raise SearchError(f"minutes must be a number greater than 0, got {minutes!r}")
    if n_trials is None and minutes is None and study.settings.sampler != "grid":
        raise SearchError("n_trials or minutes must be given: only a grid search ends by itself")
    if n_workers is not None:
        n_workers = check_count("n_workers", n_workers)
    run = _Run(study, n_trials, minutes)
    with Interruption() as interruption, quiet():
        try:
            with _storage_errors():
                is_over = run.is_done()
            if not is_over:
                run.start(n_workers, device, data_dir)
            while not is_over and not interruption.is_requested():
                with _storage_errors():
                    is_over = not run.advance()
                    state = run.state() if run.is_time_to_report() else None
                if state is not None and on_state is not None:
                    on_state(state)
        finally:
            run.end()
        if on_state is not None:
            with _storage_errors():
                state = run.state()
            on_state(state)
        return not interruption.is_requested()


@contextlib.contextmanager
def _storage_errors() -> Iterator[None]:
    """Turn errors of the database or the disk into a SearchError of one line."""
    try:
        yield
    except (StorageInternalError, OSError) as error:
        reason = storage_reason(error)
        raise SearchError(f"the storage cannot be used any more: {reason}") from error


class _Run:
    """The workers of this process, and their trials."""

    def __init__(self, study: Study, n_trials: int | None, minutes: float | None) -> None:
        self.study = study
        self.leases = Leases(study.storage, study.settings.lease)
        self.began = self._reported = time.monotonic()
        self.most_seconds = math.inf if minutes is None else 60 * minutes
        self.n_trials = study.total(n_trials)
        self._grid: list[dict[str, Any]] | None = None
        if study.settings.sampler == "grid":
            self._grid = grid_of(study.space, study.settings.seed)
        self.workers: list[Worker] = []
        self._n_failed_starts = {False: 0, True: 0}  # by whether a signal ended them
        study.optuna.pruner = make_pruner(study.settings.pruner, max(_epochs(study)))

    def start(
        self, n_workers: int | None, device: str | None, data_dir: str | os.PathLike[str] | None
    ) -> None:
        """Start the workers."""
        spec = device or os.environ.get("XPNET_DEVICE") or self.study.recipe.settings.device
        devices = devices_of(spec, n_workers)
        self._data_dir, self._n_threads = data_dir, threads_for(len(devices))
        for of_one in devices:
            self.workers.append(self._start(of_one))

    def _start(self, device: str | None) -> Worker:
        return Worker(self.study.recipe, device, self._n_threads, self._data_dir)

    def end(self) -> None:
        """Stop the workers and release their trials."""
        for worker in self.workers:
            worker.end()
        # A trial that cannot be released is restarted when its lease has expired.
        with contextlib.suppress(StorageInternalError, OSError):
            for trial_id in self.leases.held:
                self.leases.give_back(trial_id)

    def is_time_to_report(self) -> bool:
        """Return whether the last report is half a second old, and note the time."""
        is_time = time.monotonic() - self._reported >= _TICK
        if is_time:
            self._reported = time.monotonic()
        return is_time

    def state(self) -> State:
        """Return the progress of the search."""
        trials = self.study.trials()
        ranked = self.study.ranked(trials)
        return State(
            n_finished=sum(trial.state.is_finished() for trial in trials),
            n_running=sum(trial.state == TrialState.RUNNING for trial in trials),
            n_trials=self.n_trials,
            seconds=time.monotonic() - self.began,
            most_seconds=self.most_seconds,
            best=ranked[0] if ranked else None,
            workers=[worker.facts for worker in self.workers if worker.facts is not None],
        )

    def advance(self) -> bool:
        """Assign trials and handle messages; return whether there is more to do."""
        is_over = time.monotonic() - self.began >= self.most_seconds
        for worker in self.workers:
            if worker.facts is None or worker.trial is not None or is_over:
                continue
            trial = self._next_trial()
            if trial is None:
                break
            try:
                self._assign_trial(worker, trial)
            except UpdateFinishedTrialError:  # its former process was only asleep, and finished it
                worker.trial = None
                self.leases.discard(trial._trial_id)
        is_at_work = any(worker.trial is not None for worker in self.workers)
        if not is_at_work and (is_over or self.is_done()):
            return False
        self._handle_messages()
        self.leases.renew()
        return True

    def is_done(self) -> bool:
        """Return whether all trials, including those of other processes, are finished."""
        if self.n_trials is None:
            return False
        trials = self.study.trials()[: self.n_trials]
        return len(trials) == self.n_trials and all(trial.state.is_finished() for trial in trials)

    def _next_trial(self) -> FrozenTrial | None:
        """Take a waiting or abandoned trial, or create one; None if no trial is left."""
        most = math.inf if self.n_trials is None else self.n_trials
        while True:
            trials = self.study.trials()
            for trial in trials:
                if trial.number >= most:
                    break
                if trial.state.is_finished() or not self.leases.take(trial):
                    continue
                trial_id = trial._trial_id
                trial = self.study.storage.get_trial(trial_id)
                if n_lost(trial) <= MOST_ATTEMPTS:
                    return trial
                reason = f"its worker died {MOST_ATTEMPTS} times"
                self._finish(trial, {"state": "failed", "reason": reason})
            if len(trials) >= most:
                return None
            # Two processes may both create the last trial. Only the first n_trials trials count;
            # the other one keeps waiting.
            self.study.storage.create_new_trial(
                self.study.id, create_trial(state=TrialState.WAITING)
            )

    def _assign_trial(self, worker: Worker, trial: FrozenTrial) -> None:
        study, settings = self.study, self.study.settings
        n_before = int(study.first is not None)
        point = study.first
        if trial.number >= n_before:
            number = trial.number - n_before
            point = (
                design(settings.sampler, study.space, settings.seed, number)
                if self._grid is None
                else self._grid[number]
            )
        if point is not None:
            self._set(trial, point)
        study.optuna.sampler = make_sampler(settings.seed, trial.number)
        worker.trial = Trial(study.optuna, trial._trial_id)
        worker.reported = trial.last_step or 0
        values = study.space.resolve(suggest(study.space, worker.trial))
        asks = settings.pruner != "none"
        _send(worker, Task(values, settings.objective, asks))

    def _set(self, trial: FrozenTrial, point: dict[str, Any]) -> None:
        """Write a point into a trial, except for parameters that are set or enqueued already."""
        known = {**trial.params, **trial.system_attrs.get("fixed_params", {})}
        for name, parameter in parameters(self.study.space).items():
            if name in point and parameter.label not in known:
                distribution = parameter.distribution
                said = distribution.to_internal_repr(parameter.to_optuna(point[name]))
                self.study.storage.set_trial_param(
                    trial._trial_id, parameter.label, said, distribution
                )

    def _handle_messages(self) -> None:
        """Wait briefly for messages from workers, handle them, and restart workers that died."""
        by_end: dict[Any, Worker] = {worker.connection: worker for worker in self.workers}
        for end in multiprocessing.connection.wait(list(by_end), _TICK):
            worker = by_end[end]
            try:
                kind, *said = worker.connection.recv()
            except (EOFError, OSError):
                self._restart_worker(worker)
                continue
            if kind == "refused":
                raise SearchError(f"a worker cannot start: {said[0]}")
            if kind == "ready":
                self._register_worker(worker, said[0])
            elif kind == "report":
                _send(worker, self._should_prune(worker, *said))
            else:
                trial, worker.trial = worker.trial, None
                self._finish(trial, {**said[0], "worker": worker.facts})

    def _register_worker(self, worker: Worker, facts: dict[str, Any]) -> None:
        self.study.check_data(facts.pop("data"))
        worker.facts = facts | {"pid": worker.process.pid}
        self._n_failed_starts = {False: 0, True: 0}

    def _should_prune(self, worker: Worker, epoch: int, value: float) -> bool:
        """Report a value and ask the pruner; epochs that were reported before are skipped."""
        if epoch <= worker.reported:
            return False
        try:
            if not math.isnan(value):
                worker.trial.report(value, epoch)
            return bool(worker.trial.should_prune())
        except UpdateFinishedTrialError:  # another process took it for abandoned, and finished it
            return True

    def _finish(self, trial: Trial | FrozenTrial, outcome: dict[str, Any]) -> None:
        """Store the outcome of a trial, unless another process has finished it."""
        trial_id, state, value = trial._trial_id, outcome.pop("state"), outcome.pop("value", None)
        self.leases.discard(trial_id)
        try:
            for name, one in outcome.items():
                self.study.storage.set_trial_user_attr(trial_id, name, one)
            if state == "complete":
                self.study.optuna.tell(trial.number, value)
            else:
                ended = TrialState.PRUNED if state == "pruned" else TrialState.FAIL
                self.study.optuna.tell(trial.number, state=ended)
        except (UpdateFinishedTrialError, ValueError):
            if not self.study.storage.get_trial(trial_id).state.is_finished():
                raise
        self._check_failures()

    def _check_failures(self) -> None:
        ended = [trial for trial in self.study.trials() if trial.state.is_finished()]
        if len(ended) >= _MOST_FAILURES and all(t.state == TrialState.FAIL for t in ended):
            raise SearchError(
                f"all {len(ended)} trials failed, the last one with: "
                f"{ended[-1].user_attrs.get('reason', 'no reason given')}"
            )

    def _restart_worker(self, worker: Worker) -> None:
        """Replace a worker that died, and release its trial."""
        worker.process.join(1.0)  # its pipe is closed, so it has exited or is about to
        exit_status = worker.end()
        self.workers.remove(worker)
        if worker.trial is not None:
            self.leases.mark_lost(worker.trial._trial_id)
        if worker.facts is None:
            self._n_failed_starts[exit_status < 0] += 1
            if self._n_failed_starts[False] >= _MOST_STARTS:
                raise SearchError("workers exit before they are ready; see their output")
            if self._n_failed_starts[True] >= _MOST_KILLS:
                raise SearchError(
                    f"workers are killed before they are ready, the last one by signal "
                    f"{-exit_status}"
                )
        self.workers.append(self._start(worker.device))


def _send(worker: Worker, message: Any) -> None:
    """Send a message; if the worker has died, receiving from it will show that."""
    with contextlib.suppress(OSError):
        worker.connection.send(message)


def _epochs(study: Study) -> list[int]:
    scale = study.space.get("training.epochs")
    if scale is None:
        return [study.recipe.settings.training.epochs]
    return [scale.value(setting) for setting in scale.extremes()]


@dataclass(frozen=True)
class Replay:
    """A trial that was run again.

    Attributes
    ----------
    number : int
        Number of the trial.
    recorded, found : float
        Objective in the study and in the new run; of a pruned trial, at its last report.
    recipe : Recipe
        Recipe of the trial.
    then, now : dict
        Device, precision and threads of the worker in the study and in the new run.
    """

    number: int
    recorded: float
    found: float
    recipe: Recipe
    then: dict[str, Any]
    now: dict[str, Any]


def replay(
    study: Study,
    number: int,
    *,
    device: str | None = None,
    data_dir: str | os.PathLike[str] | None = None,
) -> Replay:
    """Run a trial again from the study's record of it.

    Parameters
    ----------
    study : Study
        Study of the trial.
    number : int
        Number of the trial.
    device : str or None
        Device; by default the one that the trial ran on. The number of threads is the trial's.
    data_dir : path, optional
        See :meth:`Recipe.load_data`.

    Returns
    -------
    Replay

    Raises
    ------
    SearchError
        If there is no such trial, it has no result, or the data differ from the study's.
    """
    trials = study.trials()
    if not trials:
        raise SearchError(f"the study {study.name!r} has no trials")
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < len(trials):
        raise SearchError(f"number must be from 0 to {len(trials) - 1}, got {number!r}")
    trial = trials[number]
    then = trial.user_attrs.get("worker")
    if trial.value is None or then is None:
        raise SearchError(f"trial {number} has no result: it is {trial.state.name.lower()}")
    last_epoch = None
    if trial.state == TrialState.PRUNED:
        last_epoch = int(trial.user_attrs["epochs"])
    worker = Worker(study.recipe, device or then["device"], then["threads"], data_dir)
    try:
        kind, facts = _receive(worker)
        if kind == "refused":
            raise SearchError(f"the trial cannot be run: {facts}")
        study.check_data(facts.pop("data"))
        values = study.space.resolve(study.settings_of(trial))
        _send(worker, Task(values, study.settings.objective, last_epoch=last_epoch))
        _, outcome = _receive(worker)
    finally:
        worker.end()
    if outcome["state"] == "failed":
        raise SearchError(f"trial {number} failed: {outcome['reason']}")
    found = outcome["value"] if last_epoch is None else outcome["last_report"]
    return Replay(number, trial.value, found, study.recipe_of(trial), then, facts)


def _receive(worker: Worker) -> tuple[str, Any]:
    try:
        kind, said = worker.connection.recv()
    except EOFError as error:
        raise SearchError("the worker died; see its output") from error
    return kind, said
