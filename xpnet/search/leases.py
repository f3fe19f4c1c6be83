"""Leases on trials: if a worker dies, another one restarts its trial, once.

Optuna's storages let only one process turn a waiting trial into a running one. They do not tell
whether that process is still alive: the journal, which needs no server, has no heartbeat. So each
process that takes a trial writes a lease into the trial's attributes, under its own key with the
number of the attempt, and increments the lease's count every few seconds. A process that sees the
count unchanged for the duration of a lease, by its own clock, may take the trial for the next
attempt. Clocks are never compared.

If several processes take a trial at once, each writes a lease with the count 0, waits for a moment
and looks again. It yields to a lease that is already counting, or else to one with a lower name,
because storages do not keep the order of attributes. The process that is left starts to count.

If the first process was only asleep, two processes run the same trial for a while. Both get the
same result, because the trial's parameters are fixed, and a storage lets a trial finish only once:
some time is lost, but nothing counts twice.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

__all__ = ["MOST_ATTEMPTS", "Leases", "n_lost"]

MOST_ATTEMPTS = 10  # of a trial whose processes die: perhaps the trial kills them
_PREFIX = "xpnet:lease:"
_GIVEN_BACK, _LOST = -1, -2  # counts of leases that have ended
_PAUSE = 0.25  # seconds; longer than from reading a trial to writing a lease


@dataclass(frozen=True)
class _Lease:
    """One process's claim on a trial."""

    attempt: int
    holder: str
    count: int


class Leases:
    """The leases of this process, and the last known leases of others.

    Parameters
    ----------
    storage : BaseStorage
        Storage of the study.
    seconds : float
        Duration of a lease after its last renewal.
    clock, sleep : callable
        Replacements of :func:`time.monotonic` and :func:`time.sleep`, for tests.
    """

    def __init__(
        self,
        storage: BaseStorage,
        seconds: float,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self.seconds = seconds
        self.name = secrets.token_hex(6)
        self._storage = storage
        self._clock = clock
        self._sleep = sleep
        self._mine: dict[int, _Lease] = {}  # by the trial's id
        self._renewed = clock()
        self._seen: dict[int, tuple[_Lease | None, float]] = {}

    @property
    def held(self) -> list[int]:
        """The ids of the trials that this process holds."""
        return list(self._mine)

    def take(self, trial: FrozenTrial) -> bool:
        """Try to take a waiting trial, or one whose process is gone.

        Parameters
        ----------
        trial : FrozenTrial
            A recent state of the trial.

        Returns
        -------
        bool
            Whether this process holds the trial now.
        """
        try:
            if trial.state == TrialState.WAITING:
                if not self._storage.set_trial_state_values(trial._trial_id, TrialState.RUNNING):
                    return False
                return self._claim(trial, 0.0)
            if trial.state != TrialState.RUNNING or not self._is_orphan(trial):
                return False
            return self._claim(trial, _PAUSE)
        except UpdateFinishedTrialError:
            return False

    def _claim(self, trial: FrozenTrial, pause: float) -> bool:
        """Write a lease for the next attempt, and return whether it is the valid one."""
        last, trial_id = _current(trial), trial._trial_id
        lease = _Lease(1 if last is None else last.attempt + 1, self.name, 0)
        self._write(trial_id, lease)
        self._sleep(pause)
        if _current(self._storage.get_trial(trial_id)) != lease:
            return False
        self._mine[trial_id] = replace(lease, count=1)
        self._write(trial_id, self._mine[trial_id])
        self._seen.pop(trial_id, None)
        return True

    def _is_orphan(self, trial: FrozenTrial) -> bool:
        """Return whether a running trial has lost its process, as far as this one has seen."""
        if trial._trial_id in self._mine:
            return False
        lease, now = _current(trial), self._clock()
        if lease is not None and lease.count in (_GIVEN_BACK, _LOST):
            return True
        seen, since = self._seen.get(trial._trial_id, (None, now))
        if trial._trial_id not in self._seen or seen != lease:
            self._seen[trial._trial_id] = lease, now
            return False
        return now - since > self.seconds

    def renew(self) -> None:
        """Renew the leases of this process, if a quarter of their duration has passed."""
        if self._clock() - self._renewed < self.seconds / 4:
            return
        self._renewed = self._clock()
        for trial_id, lease in list(self._mine.items()):
            self._mine[trial_id] = replace(lease, count=lease.count + 1)
            # Another process may have taken the trial for abandoned and finished it.
            with contextlib.suppress(UpdateFinishedTrialError):
                self._write(trial_id, self._mine[trial_id])

    def give_back(self, trial_id: int) -> None:
        """Release a trial that is not finished."""
        self._end(trial_id, _GIVEN_BACK)

    def mark_lost(self, trial_id: int) -> None:
        """Release a trial whose worker died; the attempt counts as lost."""
        self._end(trial_id, _LOST)

    def _end(self, trial_id: int, count: int) -> None:
        lease = self._mine.pop(trial_id)
        with contextlib.suppress(UpdateFinishedTrialError):  # another process has finished it
            self._write(trial_id, replace(lease, count=count))

    def discard(self, trial_id: int) -> None:
        """Forget a finished trial."""
        self._mine.pop(trial_id, None)

    def _write(self, trial_id: int, lease: _Lease) -> None:
        key = f"{_PREFIX}{lease.attempt}:{lease.holder}"
        self._storage.set_trial_system_attr(trial_id, key, lease.count)


def n_lost(trial: FrozenTrial) -> int:
    """Return the number of attempts at a trial that did not release it."""
    counts: dict[int, int] = {}
    for lease in _leases(trial):
        counts[lease.attempt] = min(lease.count, counts.get(lease.attempt, lease.count))
    return sum(count != _GIVEN_BACK for count in counts.values())


def _leases(trial: FrozenTrial) -> Iterator[_Lease]:
    for key, count in trial.system_attrs.items():
        if key.startswith(_PREFIX):
            attempt, holder = key.removeprefix(_PREFIX).split(":")
            yield _Lease(int(attempt), holder, count)


def _current(trial: FrozenTrial) -> _Lease | None:
    """Return the valid lease: of the latest attempt, one that counts, else the lowest name."""
    return min(
        _leases(trial),
        key=lambda lease: (-lease.attempt, lease.count == 0, lease.holder),
        default=None,
    )
