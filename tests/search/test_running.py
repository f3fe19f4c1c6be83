"""Running trials in processes: as many as asked for, each once, whatever dies meanwhile."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import random
import signal
import subprocess
import sys
import time
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState, create_trial

from tests.conftest import ROOT
from tests.search.studies import RECIPE, recipe, study
from xpnet.recipe import RecipeError
from xpnet.search import running, worker
from xpnet.search.running import replay, run_trials
from xpnet.search.sampling import design
from xpnet.search.study import SearchError, open_storage, open_study

pytestmark = [pytest.mark.host, pytest.mark.needs("optuna", "scipy", "sklearn")]


def states(of):
    return [trial.state.name for trial in of.trials()]


def points(of):
    return {tuple(trial.params.items()) for trial in of.trials()}


def test_trials_are_where_their_numbers_say_and_replay_to_the_bit(tmp_path):
    found = study(tmp_path)
    seen: list[running.State] = []
    assert run_trials(found, n_trials=5, n_workers=2, on_state=seen.append)
    assert states(found) == ["COMPLETE"] * 5
    for trial in found.trials():
        expected = design("random", found.space, 0, trial.number)
        assert found.settings_of(trial) == pytest.approx(expected, rel=1e-12)
        facts = trial.user_attrs
        assert facts["validation_accuracy"] == trial.value
        assert facts["epochs"] == 2
        assert facts["worker"]["threads"] == worker.threads_for(2)
        assert facts["parameters"] == 65 * found.settings_of(trial)[
            "network.layers.0.units"
        ] + 10 * (1 + found.settings_of(trial)["network.layers.0.units"])
    assert seen[-1].n_finished == 5
    assert seen[-1].best is not None
    assert seen[-1].best.number == found.ranked()[0].number
    # The study alone suffices, to Optuna as well.
    plain = optuna.load_study(study_name="study", storage=found.storage)
    assert plain.best_value == found.ranked()[0].value
    assert set(plain.best_params) == {
        "optimizer.learning_rate",
        "1 - optimizer.beta1",
        "network.layers.0.units",
    }
    again = replay(open_study(open_storage(tmp_path / "study.journal"), "study"), 3)
    assert again.found == again.recorded == found.trials()[3].value
    in_this_process = found.recipe_of(found.trials()[3]).validate(found.recipe.load_data())
    assert in_this_process.accuracy == pytest.approx(again.found)
    # More of them later; enough is enough.
    assert run_trials(found, n_trials=6, n_workers=1)
    assert run_trials(found, n_trials=4, n_workers=1)
    assert states(found) == ["COMPLETE"] * 6
    assert len(points(found)) == 6


@pytest.mark.slow
def test_killed_workers_lose_nothing(tmp_path):
    """Whenever trials have come to their end a worker dies, wherever it may be."""
    found = study(tmp_path, of=recipe("training.epochs=200"))
    rng, killed, n_then = random.Random(0), [], 0

    def kill(state):
        nonlocal n_then
        ready = [facts["pid"] for facts in state.workers]
        if state.n_finished > n_then and ready:
            n_then = state.n_finished
            killed.append(rng.choice(ready))
            with contextlib.suppress(ProcessLookupError):  # of one that is dead and not yet buried
                os.kill(killed[-1], signal.SIGKILL)

    assert run_trials(found, n_trials=10, n_workers=2, on_state=kill)
    assert len(killed) >= 2
    assert states(found) == ["COMPLETE"] * 10
    assert len(points(found)) == 10
    for trial in found.trials():
        expected = design("random", found.space, 0, trial.number)
        assert found.settings_of(trial) == pytest.approx(expected, rel=1e-12)
    best = found.ranked()[0]
    assert replay(found, best.number).found == best.value


COMMAND = """
import sys
from pathlib import Path

if __name__ == "__main__":
    from tests.search.studies import recipe, study
    from xpnet.search.running import run_trials

    slow = recipe("training.epochs=200", "training.batch_size=8")
    run_trials(study(Path(sys.argv[1]), of=slow, lease=2.0), n_trials=4, n_workers=1)
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "killpg"), reason="signals are POSIX's")
def test_a_command_that_is_killed_leaves_its_trial_to_others(tmp_path):
    """Its workers end as well, though nobody has told them to."""
    script = tmp_path / "command.py"
    script.write_text(COMMAND, encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(script), str(tmp_path)]
    first = subprocess.Popen(command, env=environment)
    deadline = time.monotonic() + 60
    while not (tmp_path / "study.journal").exists() or '"param_name"' not in (
        tmp_path / "study.journal"
    ).read_text(encoding="utf-8"):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(0.3)
    first.kill()
    first.wait()
    found = open_study(open_storage(tmp_path / "study.journal"), "study")
    (orphan,) = [t for t in found.trials() if t.state == TrialState.RUNNING]
    subprocess.run(command, env=environment, check=True, timeout=120)
    assert states(found) == ["COMPLETE"] * 4
    assert len(points(found)) == 4
    assert found.trials()[orphan.number].params == orphan.params | (
        found.trials()[orphan.number].params
    )


def test_a_grid_ends_by_itself_and_has_no_point_twice(tmp_path):
    text = RECIPE.replace("[4, 64] }", "[4, 64], points = 1 }")
    text = text.replace("[1e-3, 1e-1] }", "[1e-3, 1e-1], points = 2 }")
    text = text.replace("[0.5, 0.99] }", "[0.5, 0.99], points = 2 }")
    found = study(tmp_path, of=recipe(text=text), sampler="grid")
    assert run_trials(found, n_workers=1, n_trials=100)
    assert states(found) == ["COMPLETE"] * 4
    assert len(points(found)) == 4
    expected = [tuple(point.values()) for point in found.space.grid()]
    came = [tuple(found.settings_of(trial).values()) for trial in found.trials()]
    assert sorted(came) == [pytest.approx(point) for point in sorted(expected)]


@pytest.mark.slow
def test_the_recipes_own_settings_first_and_a_pruner(tmp_path):
    first = {
        "optimizer.learning_rate": 0.003,
        "optimizer.beta1": 0.9,
        "network.layers.0.units": 16,
    }
    found = study(
        tmp_path,
        of=recipe("training.epochs=6"),
        first=first,
        origin="recipe",
        sampler="tpe",
        pruner="halving",
        objective="validation_cost",
    )
    assert run_trials(found, n_trials=9, n_workers=1)
    trials = found.trials()
    assert found.settings_of(trials[0]) == pytest.approx(first)
    assert set(states(found)) == {"COMPLETE", "PRUNED"}
    pruned = next(trial for trial in trials if trial.state == TrialState.PRUNED)
    assert len(pruned.intermediate_values) == pruned.user_attrs["epochs"] < 6
    again = replay(found, pruned.number)
    assert again.found == again.recorded == pruned.value
    complete = found.complete()
    assert [found.ranked()[0].value] == [min(trial.value for trial in complete)]
    assert found.ranked()[0].value == found.ranked()[0].user_attrs["validation_cost"]


def test_what_diverges_is_a_result_and_what_fails_is_said(tmp_path):
    """A learning rate that no network bears; and one that a recipe refuses when it is too late."""
    text = RECIPE.replace("[1e-3, 1e-1]", "[1e30, 1e35]").replace('"adam"', '"momentum"')
    text = text.replace("optimizer.beta1", "optimizer.beta")
    found = study(tmp_path, of=recipe(text=text))
    assert run_trials(found, n_trials=2, n_workers=1)
    assert states(found) == ["COMPLETE"] * 2
    assert [trial.value for trial in found.trials()] == [0.0, 0.0]
    assert all("no longer finite" in trial.user_attrs["diverged"] for trial in found.trials())


@pytest.mark.slow
def test_a_trial_that_is_taken_up_is_not_judged_by_its_earlier_reports(tmp_path):
    """What had come to its fourth epoch is not cut short before, however good others are now."""
    found = study(tmp_path, of=recipe("training.epochs=6"), pruner="median")
    plain = found.optuna.ask()
    for epoch in range(1, 5):
        plain.report(0.1, epoch)
    for _ in range(6):
        good = create_trial(value=0.99, intermediate_values=dict.fromkeys(range(1, 7), 0.99))
        found.optuna.add_trial(good)
    found.storage.set_trial_system_attr(plain._trial_id, "xpnet:lease:1:somebody", -1)
    assert run_trials(found, n_trials=7, n_workers=1)
    taken_up = found.trials()[0]
    assert taken_up.state == TrialState.PRUNED
    assert taken_up.user_attrs["epochs"] == 5 == taken_up.last_step
    assert taken_up.value == taken_up.user_attrs["last_report"] == taken_up.intermediate_values[5]
    assert replay(found, 0).found == taken_up.value


@pytest.mark.slow
def test_what_optuna_enqueues_comes_first(tmp_path):
    found = study(tmp_path)
    found.optuna.enqueue_trial({"network.layers.0.units": 20, "1 - optimizer.beta1": 0.2})
    assert run_trials(found, n_trials=1, n_workers=1)
    settings = found.settings_of(found.trials()[0])
    assert settings["network.layers.0.units"] == 20
    assert settings["optimizer.beta1"] == pytest.approx(0.8)
    expected = design("random", found.space, 0, 0)
    assert expected is not None
    assert settings["optimizer.learning_rate"] == pytest.approx(expected["optimizer.learning_rate"])


class DeadWorker:
    """A worker that has died before it had begun."""

    def __init__(self, status=1):
        self.facts = self.trial = None
        self.device, self.process = "cpu", self
        self.status = status

    def join(self, seconds):
        """Wait for what is over."""

    def end(self):
        assert self.status is not None, "it was ended before"
        status, self.status = self.status, None
        return status


@pytest.mark.parametrize(
    ("status", "message"),
    [(1, "exit before they are ready"), (-9, "are killed before.*by signal 9")],
)
def test_workers_that_die_at_once_end_the_search_in_a_line(tmp_path, monkeypatch, status, message):
    found = study(tmp_path)
    run: Any = running._Run(found, 1, None)
    assert run._next_trial() is not None
    monkeypatch.setattr(run, "_start", lambda device: DeadWorker(status))
    run.workers = [DeadWorker(status)]

    def restart_often():
        for _ in range(100):
            run._restart_worker(run.workers[0])

    with pytest.raises(SearchError, match=message):
        restart_often()
    run.end()
    assert list(found.trials()[0].system_attrs.values()) == [-1]


def test_an_owner_that_was_asleep_and_is_faster(tmp_path, monkeypatch):
    """It brings its trial to an end while this process is about to hand it out."""
    found = study(tmp_path)
    run: Any = running._Run(found, 1, None)
    worker: Any = DeadWorker()
    worker.facts = {}
    run.workers = [worker]
    monkeypatch.setattr(run, "_handle_messages", lambda: None)
    assign_trial = run._assign_trial

    def late(worker, trial):
        found.optuna.tell(trial.number, 0.5)
        assign_trial(worker, trial)

    monkeypatch.setattr(run, "_assign_trial", late)
    assert run.advance() is False
    assert worker.trial is None
    assert run.leases.held == []
    assert [trial.value for trial in found.trials()] == [0.5]


def test_a_storage_that_breaks_is_said_in_a_line(tmp_path, monkeypatch):
    found = study(tmp_path)

    def fail(*arguments):
        del arguments
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(found.storage, "create_new_trial", fail)
    with pytest.raises(SearchError, match=r"the storage cannot be used any more: .*No space left"):
        run_trials(found, n_trials=1, n_workers=1)


def test_all_trials_failing_ends_the_search(tmp_path, monkeypatch):
    found = study(tmp_path)
    for _ in range(4):
        failed = create_trial(state=TrialState.FAIL, user_attrs={"reason": "MemoryError: 3 TB"})
        found.optuna.add_trial(failed)
    values = {"network.layers.0.units": -1}
    monkeypatch.setattr(type(found.space), "resolve", lambda self, settings: values)
    with pytest.raises(SearchError, match=r"all 5 trials failed.*units must be"):
        run_trials(found, n_trials=9, n_workers=1)
    assert found.trials()[4].user_attrs["reason"].startswith("RecipeError: ")


@pytest.mark.slow
def test_time_is_up(tmp_path):
    found = study(tmp_path)
    for minutes in (0.06, 0.25, 1.0):  # a busy machine may take longer to start a worker
        began = time.monotonic()
        assert run_trials(found, minutes=minutes, n_workers=1)
        assert time.monotonic() - began < 60 * (minutes + 1)
        if states(found):
            break
    assert set(states(found)) == {"COMPLETE"}
    assert run_trials(found, minutes=1e-9, n_workers=1)


def test_ctrl_c_gives_back_what_runs(tmp_path):
    found = study(tmp_path, of=recipe("training.epochs=2000"))

    pressed: list[bool] = []

    def press(state):
        if state.n_running and not pressed:
            pressed.append(True)
            signal.raise_signal(signal.SIGINT)

    assert not run_trials(found, n_trials=3, n_workers=1, on_state=press)
    assert states(found) == ["RUNNING"]
    given_back = found.trials()[0]
    assert [count for key, count in given_back.system_attrs.items() if "lease" in key] == [-1]


def test_other_data_are_refused(tmp_path):
    found = study(tmp_path)
    found.optuna.set_user_attr("data", "other")
    with pytest.raises(SearchError, match="the data differ from those of the study"):
        run_trials(found, n_trials=1, n_workers=1)


def test_a_worker_that_cannot_begin_says_why(tmp_path):
    found = study(tmp_path, of=recipe("data.dataset=cats", "loss=sigmoid_cross_entropy"))
    with pytest.raises(SearchError, match="a worker cannot start: "):
        run_trials(found, n_trials=1, n_workers=1, data_dir=tmp_path / "none")
    with pytest.raises(SearchError, match="a worker cannot start: device must"):
        run_trials(study(tmp_path, "other"), n_trials=1, n_workers=1, device="gpu")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "n_trials or minutes must be given"),
        ({"n_trials": 0}, "n_trials must be a positive integer, got 0"),
        ({"n_trials": 2.5}, "n_trials must be"),
        ({"minutes": 0}, "minutes must be a number greater than 0, got 0"),
        ({"minutes": math.nan}, "minutes must be"),
        ({"n_trials": 1, "n_workers": 0}, "n_workers must be"),
    ],
)
def test_bad_arguments(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        run_trials(study(tmp_path), **arguments)


def test_replaying_what_has_no_result(tmp_path):
    found = study(tmp_path)
    with pytest.raises(SearchError, match="has no trials"):
        replay(found, 0)
    found.optuna.add_trial(create_trial(state=TrialState.FAIL))
    with pytest.raises(SearchError, match="trial 0 has no result: it is fail"):
        replay(found, 0)
    with pytest.raises(SearchError, match="number must be from 0 to 0, got 1"):
        replay(found, 1)


def test_validation_data_are_needed(tmp_path):
    found = study(tmp_path, of=recipe("data.validation_fraction=0"))
    with pytest.raises(SearchError, match=r"the data set has no validation samples; set, for"):
        run_trials(found, n_trials=1, n_workers=1)


def test_threads_are_divided(monkeypatch):
    for name in worker._THREADS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(worker, "available_cpus", lambda: 8)
    assert [worker.threads_for(n) for n in (1, 2, 3, 4, 8, 20)] == [8, 4, 2, 2, 1, 1]
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert [worker.threads_for(n) for n in (1, 2, 3, 8)] == [3, 3, 2, 1]
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "0")
    assert worker.threads_for(1) == 3


def test_devices_are_divided(monkeypatch):
    monkeypatch.setattr(worker, "available_cpus", lambda: 4)
    assert worker.devices_of("cpu", None) == ["cpu"] * 4
    assert worker.devices_of("cpu", 2) == ["cpu"] * 2
    assert worker.devices_of("cuda:1", None) == ["cuda:1"]
    monkeypatch.setattr(worker, "cuda_problem", lambda: "no driver")
    assert worker.devices_of("auto", 3) == ["cpu"] * 3
    assert worker.devices_of("cuda", 1) == ["cuda"]  # and the worker says why it cannot
    monkeypatch.setattr(worker, "cuda_problem", lambda: None)

    class Runtime:
        getDeviceCount = staticmethod(lambda: 2)

    class Cuda:
        runtime = Runtime

    class Cupy:
        cuda = Cuda

    monkeypatch.setitem(sys.modules, "cupy", Cupy)
    assert worker.devices_of("cuda", None) == ["cuda:0", "cuda:1"]
    assert worker.devices_of("auto", 3) == ["cuda:0", "cuda:1", "cuda:0"]
    assert worker.devices_of("cpu", 1) == ["cpu"]


def test_a_fingerprint_is_of_what_trials_see():
    data = recipe().load_data()
    known = worker.fingerprint(data)
    same = dataclasses.replace(data, X_test=data.X_test[:5], y_test=data.y_test[:5])
    assert worker.fingerprint(same) == known
    for name in ("y_train", "X_validation", "y_validation"):
        other = getattr(data, name).copy()
        other.flat[0] += 1
        assert worker.fingerprint(dataclasses.replace(data, **{name: other})) != known


def test_a_recipe_without_a_search(tmp_path):
    text = RECIPE.partition("[search]")[0]
    with pytest.raises(RecipeError, match=r"search is missing: add a table \[search\] with"):
        study(tmp_path, of=recipe(text=text))


def test_what_another_process_was_faster_with_stays(tmp_path):
    """Two at one trial: the first result counts, the second changes nothing."""
    found = study(tmp_path)
    run = running._Run(found, 1, None)
    trial = run._next_trial()
    assert trial is not None
    outcome = {"state": "complete", "value": 0.5}
    other = open_study(open_storage(tmp_path / "study.journal"), "study")
    running._Run(other, 1, None)._finish(trial, dict(outcome))
    run._finish(trial, {"state": "complete", "value": 0.25})
    assert [trial.value for trial in found.trials()] == [0.5]
