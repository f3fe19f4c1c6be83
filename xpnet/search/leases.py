"""Leases on trials: if a worker dies, another one restarts its trial, once.

A trial that waits becomes a running one for a single process: that much Optuna's storages see to.
They do not tell whether that process is alive; the journal, which needs no server, has no heartbeat
at all. So each process that takes a trial leaves a lease in the trial's attributes, under a key of
its own with the number of the attempt, and raises its count every few seconds. Who has seen the
count stand still for as long as a lease holds, by its own clock, may take the trial for the next
attempt. No clocks are compared.

Where several take it up at once, each leaves a lease with the count 0, waits for a moment, and
looks again: it yields to one that has begun to count, or else to one with a lower name, as storages
do not keep the order of attributes. Who is left begins to count.

Should a process only have been asleep, two are at the same trial for a while. Its result is that
of its parameters, which stay, and a storage lets a trial be finished once: the time is lost, and
nothing is counted twice.
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

MOST_ATTEMPTS = 10  # of a trial whose processes die: something in it may be what kills them
_PREFIX = "xpnet:lease:"
_GIVEN_BACK, _LOST = -1, -2  # counts of what nobody is at any more
_PAUSE = 0.25  # seconds; more than from a look at a trial to a lease for it


@dataclass(frozen=True)
class _Lease:
    """One process's claim on a trial."""

    attempt: int
    holder: str
    count: int


class Leases:
    """Leases of this process, and what it sees of others'.

    Parameters
    ----------
    storage : BaseStorage
    seconds : float
        How long a lease holds without a sign of life.
    clock, sleep : callable
        What gives seconds and what lets them pass; for tests.
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
        """The ids of the trials that this process is at."""
        return list(self._mine)

    def take(self, trial: FrozenTrial) -> bool:
        """Take a trial that waits, or one whose process is gone, and tell whether it is ours now.

        Parameters
        ----------
        trial : FrozenTrial
            As it was a moment ago.
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
        """Leave a lease for the attempt after the one that was seen, and tell if it stands."""
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
        """Tell whether nobody is at a running trial, as far as this process has seen."""
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
        """Show that this process is alive, if it is time to."""
        if self._clock() - self._renewed < self.seconds / 4:
            return
        self._renewed = self._clock()
        for trial_id, lease in list(self._mine.items()):
            self._mine[trial_id] = replace(lease, count=lease.count + 1)
            # Somebody may have taken it for left behind, and been faster.
            with contextlib.suppress(UpdateFinishedTrialError):
                self._write(trial_id, self._mine[trial_id])

    def give_back(self, trial_id: int) -> None:
        """Let others have a trial that is not finished."""
        self._end(trial_id, _GIVEN_BACK)

    def mark_lost(self, trial_id: int) -> None:
        """Let others, or this process, have a trial whose worker has died."""
        self._end(trial_id, _LOST)

    def _end(self, trial_id: int, count: int) -> None:
        lease = self._mine.pop(trial_id)
        with contextlib.suppress(UpdateFinishedTrialError):  # somebody else was faster
            self._write(trial_id, replace(lease, count=count))

    def discard(self, trial_id: int) -> None:
        """Forget a trial that has its result."""
        self._mine.pop(trial_id, None)

    def _write(self, trial_id: int, lease: _Lease) -> None:
        key = f"{_PREFIX}{lease.attempt}:{lease.holder}"
        self._storage.set_trial_system_attr(trial_id, key, lease.count)


def n_lost(trial: FrozenTrial) -> int:
    """Count the attempts at a trial whose processes did not give it back."""
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
    """Give the lease that stands, of the latest attempt: that which counts, or the lowest name."""
    return min(
        _leases(trial),
        key=lambda lease: (-lease.attempt, lease.count == 0, lease.holder),
        default=None,
    )
