"""Leases: one process at a trial, and another one when that is gone."""

from __future__ import annotations

import pytest
from optuna.study import StudyDirection
from optuna.trial import TrialState, create_trial

from xpnet.search.leases import MOST_ATTEMPTS, Leases, n_lost
from xpnet.search.study import open_storage

pytestmark = pytest.mark.host


class Clock:
    seconds = 0.0

    def __call__(self):
        return self.seconds


everywhere = pytest.mark.parametrize("storages", ["journal", "sqlite"], indirect=True)


@pytest.fixture
def storages(request, tmp_path):
    """Give a function that opens the same storage as another process would."""
    if getattr(request, "param", "journal") == "sqlite":
        return lambda: open_storage(f"sqlite:///{tmp_path}/study.db")
    return lambda: open_storage(tmp_path / "study.journal")


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def others(storages, clock):
    """Give a function that makes the leases of one more process."""
    return lambda sleep=lambda seconds: None: Leases(storages(), 30.0, clock, sleep)


@pytest.fixture
def storage(storages):
    return storages()


@pytest.fixture
def waiting(storage):
    study_id = storage.create_new_study([StudyDirection.MAXIMIZE], "study")
    trial_id = storage.create_new_trial(study_id, create_trial(state=TrialState.WAITING))
    return lambda: storage.get_trial(trial_id)


@everywhere
def test_one_of_two_takes_a_trial_that_waits(others, waiting):
    one, other = others(), others()
    as_seen = waiting()
    assert one.take(as_seen)
    assert not other.take(as_seen)
    assert waiting().state == TrialState.RUNNING
    assert one.held == [as_seen._trial_id]
    assert other.held == []


def test_a_lease_that_is_renewed_holds(others, waiting, clock):
    one, other = others(), others()
    one.take(waiting())
    for _ in range(20):
        clock.seconds += 10
        one.renew()
        assert not other.take(waiting())


def test_a_trial_whose_process_is_gone_is_taken_up_after_the_lease(others, waiting, clock):
    one, other = others(), others()
    one.take(waiting())
    assert not other.take(waiting())  # seen for the first time
    clock.seconds = 30
    assert not other.take(waiting())
    clock.seconds = 30.1
    assert other.take(waiting())
    assert n_lost(waiting()) == 2  # the first, and for all one can know the second


def test_who_comes_later_waits_by_its_own_clock(others, waiting, clock):
    one = others()
    one.take(waiting())
    clock.seconds = 1000
    late = others()
    assert not late.take(waiting())
    clock.seconds = 1031
    assert late.take(waiting())


@pytest.mark.parametrize("names", [("a", "b"), ("b", "a")])
def test_of_two_that_take_up_at_once_one_has_it(others, waiting, clock, names):
    """The one that has begun, whatever their names."""
    gone, one, other = others(), others(), others()
    one.name, other.name = names
    gone.take(waiting())
    assert not one.take(waiting())
    assert not other.take(waiting())
    clock.seconds = 31
    as_both_see_it = waiting()
    taken = [one.take(as_both_see_it), other.take(as_both_see_it)]
    assert taken == [True, False]
    assert other.held == []
    assert not other.take(waiting())  # a new lease, seen for the first time


@everywhere
@pytest.mark.parametrize("lower_first", [True, False])
def test_of_two_that_take_up_at_the_very_same_time_one_has_it(others, waiting, clock, lower_first):
    """The second one does all of it while the first one waits for such as it."""
    taken, as_both_see_it = [], waiting()
    gone, second = others(), others()
    first = others(lambda seconds: taken.append(second.take(as_both_see_it)) if seconds else None)
    first.name, second.name = ("a", "b") if lower_first else ("b", "a")
    gone.take(waiting())
    assert not first.take(waiting())
    assert not second.take(waiting())
    clock.seconds = 31
    as_both_see_it = waiting()
    taken.append(first.take(as_both_see_it))
    assert sorted(taken) == [False, True]
    assert [bool(first.held), bool(second.held)] == [lower_first, not lower_first]


def test_a_process_that_died_between_taking_and_its_lease(others, waiting, storage, clock):
    as_seen = waiting()
    storage.set_trial_state_values(as_seen._trial_id, TrialState.RUNNING)
    one = others()
    assert not one.take(waiting())
    clock.seconds = 31
    assert one.take(waiting())


@everywhere
@pytest.mark.parametrize("how", ["give_back", "mark_lost"])
def test_what_is_let_go_is_taken_up_at_once(others, waiting, how):
    one, other = others(), others()
    one.take(waiting())
    getattr(one, how)(waiting()._trial_id)
    assert n_lost(waiting()) == (how == "mark_lost")
    assert one.held == []
    assert other.take(waiting())


def test_attempts_that_were_given_back_are_not_lost(others, waiting):
    for _ in range(3 * MOST_ATTEMPTS):
        one = others()
        assert one.take(waiting())
        one.give_back(waiting()._trial_id)
    assert n_lost(waiting()) == 0


def test_one_that_was_asleep_does_no_harm(others, waiting, storage, clock):
    """Its trial has been taken up, and even finished, by another process."""
    asleep, other = others(), others()
    asleep.take(waiting())
    other.take(waiting())
    clock.seconds = 31
    assert other.take(waiting())
    asleep.renew()  # awake, and none the wiser: the other one's lease is the later
    clock.seconds = 40
    other.renew()
    third = others()
    assert not third.take(waiting())
    storage.set_trial_state_values(waiting()._trial_id, TrialState.COMPLETE, [0.5])
    clock.seconds = 60
    asleep.renew()
    asleep.give_back(waiting()._trial_id)
    assert waiting().state == TrialState.COMPLETE
    assert not third.take(waiting())
    assert not asleep.take(waiting())
