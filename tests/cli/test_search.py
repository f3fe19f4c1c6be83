"""The command that searches, as a person meets it: what it prints, writes, and refuses."""

from __future__ import annotations

import csv
import dataclasses
import json
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState

import xpnet.cli
from tests import devices
from tests.cli.searches import (
    BEST,
    FILES,
    RATE,
    SEARCH,
    UNITS,
    begun,
    fails_if_called,
    filled,
    is_one_line_of_status_2,
    opened,
    write,
)
from tests.conftest import ROOT
from tests.search.studies import RECIPE, add, fill, recipe
from tests.test_terminal import on_a_terminal, visible
from xpnet.cli import search
from xpnet.recipe import Recipe, load_recipe
from xpnet.search import running
from xpnet.search.study import open_storage, studies
from xpnet.training import load_model

pytestmark = [
    pytest.mark.host,
    pytest.mark.needs("optuna", "rich", "safetensors", "scipy", "sklearn", "tomli_w"),
    pytest.mark.usefixtures("search_folder"),
]

WINNER = {"history.json", "model.safetensors", "recipe.toml"}


@pytest.fixture
def no_trials(monkeypatch):
    """Let nothing be run, and note what was asked for."""
    asked: list[dict[str, Any]] = []

    def run_trials(study, **options):
        assert study.name
        asked.append(options)
        return True

    monkeypatch.setattr(running, "run_trials", run_trials)
    return asked


def tree(folder):
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.stat().st_size)
        for path in Path(folder).rglob("*")
    }


def test_a_search_from_beginning_to_end(run, tmp_path, monkeypatch):
    """Three trials and the winner; the same again; one more; a replay, also of what is forged."""
    done = run(*SEARCH, "--trials", 3, "--workers", 1)
    assert (done.status, done.errors) == (0, "")
    found = opened()
    assert [trial.state.name for trial in found.trials()] == ["COMPLETE"] * 3
    folder = tmp_path / "runs" / "search" / "small-random"
    best = found.ranked()[0]
    assert {p.name for p in folder.iterdir()} == set(FILES) | {f"trial-{best.number}"}
    # The table has the best first, and the recipe's own settings with an asterisk.
    table = done.table
    assert list(table[0]) == ["trial", "validation_accuracy", "learning_rate", "beta1", "units"]
    assert [row["trial"].rstrip("*") for row in table] == [str(t.number) for t in found.ranked()]
    assert [row["validation_accuracy"] for row in table] == [
        f"{trial.value:.4f}" for trial in found.ranked()
    ]
    assert [row["trial"] for row in table if "*" in row["trial"]] == ["0*"]
    own = next(row for row in table if row["trial"] == "0*")
    assert (own["learning_rate"], own["beta1"], own["units"]) == ("0.003", "0.9", "16")
    assert "3 trials: 3 complete\n" in done.out
    assert f"* the recipe's own settings: validation_accuracy {found.trials()[0].value:.4f}" in (
        done.out
    )
    # Progress: how many, and the best so far.
    lines = [line for line in done.out.splitlines() if line.startswith("  trial ")]
    assert done.out.startswith("small-random, random\n")
    assert lines[-1].startswith(f"  trial 3/3  best {best.value:.4f}  trial {best.number}  learn")
    assert len(set(lines)) == len(lines)
    # Files.
    said = json.loads((folder / "trials.json").read_text(encoding="utf-8"))
    assert said["best"] == best.number
    with (folder / "trials.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["value"]) for row in rows] == [trial.value for trial in found.trials()]
    assert [int(row[UNITS]) for row in rows] == [
        found.settings_of(trial)[UNITS] for trial in found.trials()
    ]
    assert load_recipe(folder / "best.toml").values == found.recipe_of(best).values
    # The winner, with the only test score of all.
    winner = folder / f"trial-{best.number}"
    assert {p.name for p in winner.iterdir()} == WINNER
    history = json.loads((winner / "history.json").read_text(encoding="utf-8"))
    assert history["samples"] == {"train": 1437, "validation": 0, "test": 360}
    assert re.findall(r"test.*accuracy.*", done.out) == [
        f"test accuracy {history['test_accuracy']:.4f}, on 360 samples that the search did not use"
    ]
    assert f"trial {best.number}, retrained on 1,437 samples: test accuracy" in done.out
    assert load_model(winner / "model.safetensors").network.n_features == 64

    # The same command, and that without --trials, neither train nor test again.
    before = tree(winner)
    with monkeypatch.context() as patch:
        patch.setattr(Recipe, "run", fails_if_called)
        again = run(*SEARCH, "--trials", 3, "--workers", 1)
        patch.setattr(running, "run_trials", fails_if_called)
        report = run(*SEARCH)
    score = f"{history['test_accuracy']:.4f}"
    for one in (again, report):
        assert one.status == 0
        assert one.table == table
        assert one.out.endswith(
            f"\ntrial {best.number} was trained and tested before: test_accuracy {score}\n"
        )
    assert tree(winner) == before
    assert len(opened().trials()) == 3

    # One more.
    more = run(*SEARCH, "--trials", 4, "--workers", 1, "--no-winner", "--quiet")
    assert more.status == 0
    assert "4 trials: 4 complete\n" in more.out
    assert "tested" not in more.out
    assert "  trial " not in more.out
    assert "  wrote " not in more.out
    assert [trial.value for trial in opened().trials()][:3] == [t.value for t in found.trials()][:3]

    # Once more what was, from the study alone; and what was not.
    replayed = run(*SEARCH, "--replay", 2)
    assert replayed.status == 0, replayed.out
    assert replayed.out.endswith("\nthe same to the bit\n")
    value = found.trials()[2].value
    assert f"trial 2: validation_accuracy was {value!r}, is now {value!r}\n" in replayed.out
    assert f"{RATE} = {found.settings_of(found.trials()[2])[RATE]!r}\n" in replayed.out
    study = opened()
    facts = study.trials()[2].user_attrs["worker"]
    add(study, study.settings_of(study.trials()[2]), value + 0.125, worker=facts)
    forged = run(*SEARCH, "--replay", 4)
    assert forged.status == 1
    assert forged.errors == ""
    assert forged.out.endswith("\nnot the same\n")
    assert f"trial 4: validation_accuracy was {value + 0.125!r}, is now {value!r}\n" in forged.out


def test_a_grid_ends_by_itself_elsewhere(run, tmp_path):
    """In a database, in another folder, with changes, by the other name of the command."""
    text = RECIPE.partition("[search]")[0] + (
        "[search]\noptimizer.learning_rate = { log_uniform = [0.01, 0.1], points = 2 }\n"
    )
    write(Path("größe.toml"), text)
    url = f"sqlite:///{tmp_path}/study.db"
    done = run(
        *("search", "größe.toml", "--sampler", "grid", "--workers", 1, "--storage", url),
        *("--study", "né", "--out", "here/and there", "--set", "training.epochs=1"),
        *("--objective", "validation_cost", "--device", "cpu"),
        command=xpnet.cli.main,
    )
    assert (done.status, done.errors) == (0, "")
    assert done.out.startswith("né, grid\n  trial 0/2  no result yet\n")
    assert "\n  trial 2/2  best " in done.out
    found = opened("né", url)
    assert found.recipe.values["training"]["epochs"] == 1
    assert found.recipe.name == "größe"
    assert not found.is_maximised
    values = [trial.value for trial in found.trials()]
    assert len(values) == 2
    assert [row["validation_cost"] for row in done.table] == [f"{v:.4f}" for v in sorted(values)]
    assert not any("*" in row["trial"] for row in done.table), "a grid is the grid alone"
    best = found.ranked()[0].number
    assert {p.name for p in Path("here/and there").iterdir()} == set(FILES) | {f"trial-{best}"}
    assert not Path("runs").exists()


def test_ctrl_c_and_the_same_command_goes_on(run, monkeypatch):
    arguments = (*SEARCH, "--trials", 2, "--workers", 1, "--set", "training.epochs=30")
    shown = search._show_progress

    def press(study, options):
        context: Any = shown(study, options)

        class Pressing:
            def __enter__(self):
                on_state = context.__enter__()

                def then(state):
                    on_state(state)
                    if state.n_finished and not pressed:
                        pressed.append(state)
                        signal.raise_signal(signal.SIGINT)

                return then

            def __exit__(self, *error):
                return context.__exit__(*error)

        return Pressing()

    pressed: list[Any] = []
    monkeypatch.setattr(search, "_show_progress", press)
    done = run(*arguments)
    assert done.status == 130
    assert done.errors == "train.py search: interrupted; type the same command to resume\n"
    n_finished = sum(trial.state.is_finished() for trial in opened().trials())
    assert n_finished >= 1
    assert len(done.table) == n_finished
    assert "tested" not in done.out
    done = run(*arguments)
    assert (done.status, done.errors) == (0, "")
    assert [trial.state.name for trial in opened().trials()] == ["COMPLETE"] * 2
    assert "retrained on" in done.out


def test_ctrl_c_before_the_first_trial(run, monkeypatch):
    monkeypatch.setattr(running, "run_trials", lambda study, **options: False)
    done = run(*SEARCH, "--trials", 2)
    assert done.status == 130
    assert done.errors == "train.py search: interrupted\n"


def test_refining_a_study_that_is_filled(run, monkeypatch):
    found = filled(40)
    before = len(found.trials())

    def run_trials(study, n_trials, **options):
        assert n_trials == 1
        assert options["on_state"] is not None
        assert study.name == "small-random.refined"
        assert study.first == pytest.approx(BEST)
        add(study, study.first, 0.953125)
        return True

    monkeypatch.setattr(running, "run_trials", run_trials)
    done = run(*SEARCH, "--refine", "--trials", 1, "--no-winner")
    assert (done.status, done.errors) == (0, "")
    lines = done.out.splitlines()
    assert lines[0] == "small-random.refined: scales around the best of 40 trials"
    assert lines[2].split() == ["hyper-parameter", "before", "now"]
    assert re.match(
        rf"{re.escape(RATE)} +log_uniform 0.001, 0.1 +log_uniform 0.0\d+, 0.1$", lines[4]
    )
    assert any(line.startswith(f"{RATE}: the best 8 trials are in 0.0") for line in lines)
    assert "* the best of small-random: validation_accuracy 0.9531" in lines
    refined = opened("small-random.refined")
    assert refined.refines == refined.origin == "small-random"
    assert refined.settings == dataclasses.replace(found.settings, seed=1), "points of its own"
    assert refined.space[RATE].to_table() != found.space[RATE].to_table()
    assert Path("runs/search/small-random.refined/trials.json").exists()
    assert len(opened().trials()) == before
    # It is resumed, not repeated.
    again = run(*SEARCH, "--refine", "--no-winner")
    assert again.status == 0
    assert again.out.startswith("resuming small-random.refined\n")
    assert len(opened("small-random.refined").trials()) == 1
    # And refined in its turn.
    refined = opened("small-random.refined")
    fill(refined, 20, lambda point: point[RATE])

    def of_the_third(study, **options):
        assert options["n_trials"] == 1
        add(study, study.first, 0.5)
        return True

    monkeypatch.setattr(running, "run_trials", of_the_third)
    third = run(
        *(*SEARCH, "--study", "small-random.refined", "--refine", "--trials", 1, "--no-winner")
    )
    assert third.status == 0, third.errors
    assert studies(refined.storage)[-1] == "small-random.refined.refined"


def test_refining_takes_trials(run):
    filled(9)
    done = run(*SEARCH, "--refine")
    assert is_one_line_of_status_2(done)
    assert "refining needs at least 10 complete trials, got" in done.errors
    assert studies(open_storage("runs/search/small.journal")) == ["small-random"]


def test_what_is_said_of_trials(run, no_trials):
    found = filled(12, objective="validation_cost")
    add(found, BEST, state=TrialState.FAIL, reason="OSError: gone")
    add(found, BEST, state=TrialState.PRUNED)
    add(found, BEST, state=TrialState.RUNNING)
    add(found, BEST, float("inf"), diverged="cost is nan")
    done = run(*SEARCH, "--no-winner")
    assert (done.status, done.errors) == (0, "")
    assert no_trials == []
    assert len(done.table) == 10, "the best ten"
    lines = done.out.splitlines()
    assert "16 trials: 13 complete, 1 fail, 1 pruned, 1 running, 1 of them diverged" in lines
    assert "last failure: OSError: gone" in lines
    decides = next(line for line in lines if line.startswith("importance: "))
    shares = [int(share) for share in re.findall(r"(\d+)%", decides)]
    assert shares == sorted(shares, reverse=True)
    assert 98 <= sum(shares) <= 102
    with Path("runs/search/small-random/trials.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["value"] for row in rows][12:] == ["", "", "", ""]
    assert [row["state"] for row in rows][12:] == ["fail", "pruned", "running", "complete"]


def test_where_no_trial_has_ended_there_is_none_either(run):
    found = begun()
    add(found, BEST, state=TrialState.RUNNING)
    done = run(*SEARCH)
    assert (done.status, done.errors) == (0, "")
    assert done.out.splitlines()[1] == "1 trial: 1 running"
    assert "no trial is complete yet" in done.out
    assert not Path("runs/search/small-random/best.toml").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--trials", "0"], "argument --trials: must be an integer of at least 1, got '0'"),
        (["--trials", "two"], "argument --trials: must be an integer of at least 1, got 'two'"),
        (["--trials", "-1"], "argument --trials: must be an integer of at least 1, got '-1'"),
        (["--trials", "1" * 5000], "argument --trials"),
        (["--trials"], "argument --trials: expected one argument"),
        (["--minutes", "0"], "argument --minutes: must be a number greater than 0, got '0'"),
        (["--minutes", "nan"], "argument --minutes: must be a number greater than 0, got 'nan'"),
        (["--minutes", "inf"], "argument --minutes: must be a number"),
        (["--workers", "0"], "argument --workers: must be an integer of at least 1, got '0'"),
        (["--workers", "1.5"], "argument --workers: must be an integer"),
        (["--lease", "-3"], "argument --lease: must be a number greater than 0, got '-3'"),
        (["--sampler-seed", "-1"], "argument --sampler-seed: must be an integer of at least 0"),
        (["--replay", "x"], "argument --replay: must be an integer of at least 0, got 'x'"),
        (["--replay", "0"], "there is no study 'small-random' in "),
        (
            ["--sampler", "sobol", "--trials", "1"],
            "unknown sampler 'sobol'; valid samplers: random, grid, quasi",
        ),
        (
            ["--sampler", "", "--trials", "1"],
            "unknown sampler ''; valid samplers: random, grid, quasi-random, t",
        ),
        (
            ["--pruner", "asha", "--trials", "1"],
            "unknown pruner 'asha'; valid pruners: none, median, halving",
        ),
        (
            ["--objective", "test_accuracy", "--trials", "1"],
            "unknown objective 'test_accuracy'; valid objectives: val",
        ),
        (["--set", "training.epochs"], "a change must read KEY=VALUE, got 'training.epochs'"),
        (["--set", "training.epoch=3"], "training.epoch"),
        (["--set", "training.epochs=0"], "training.epochs must be"),
        (["--set", "data.validation_fraction=0"], "the data set has no validation samples; "),
        (["--set", "search.seed=1"], "search.seed must be"),
        (["--storage", ""], "--storage must not be an empty string"),
        (["--storage", "nonsense://x"], "cannot open the storage 'nonsense://x': "),
        (["--storage", "small.toml"], "must be an Optuna journal, got another file: 'small.toml'"),
        (["--study", ""], "--study must not be an empty string"),
        (["--out", "", "--trials", "1"], "--out must not be an empty string"),
        (["--out", "small.toml", "--trials", "1"], "--out: cannot write small.toml: Not a dir"),
        (["--out", "small.toml/x", "--trials", "1"], "--out: cannot write small.toml/x: Not a dir"),
        (["--out", "no\0name", "--trials", "1"], "--out: cannot write no"),
        (["--data-dir"], "argument --data-dir: expected one argument"),
        (["--device", "gpu", "--trials", "1", "--workers", "1"], "a worker cannot start: device"),
        (["--refine"], "there is no study 'small-random' in "),
        (["--no-such"], "unrecognized arguments: --no-such; see train.py search --help"),
        (
            ["--samplerseed", "1"],
            "unrecognized arguments: --samplerseed 1; did you mean --sampler-seed? See train.py se",
        ),
        ([], "yet; add --trials or --minutes to create it"),
    ],
)
def test_wrong_input_is_said_in_a_line(run, arguments, said):
    done = run(*SEARCH, *arguments)
    assert is_one_line_of_status_2(done)
    assert said in done.errors
    if arguments[:1] == ["--out"]:
        assert {path.name for path in Path().iterdir()} <= {"small.toml", "runs"}


def test_what_is_wrong_leaves_no_study_behind(run):
    for change in ("data.validation_fraction=0", "training.epochs=0"):
        run(*SEARCH, "--trials", 1, "--set", change)
    run("search", "small.toml", "--sampler", "sobol", "--trials", 1)
    assert not Path("runs").exists() or studies(open_storage("runs/search/small.journal")) == []


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("none.toml", None, "cannot read the recipe none.toml: No such file"),
        ("none", None, "unknown recipe 'none'"),
        (
            "a.npz",
            None,
            "a.npz (not found here) is a data file, not a recipe; for N classes type: ",
        ),
        ("plain.toml", RECIPE.partition("[search]")[0], "search is missing: add a table [search] "),
        ("half.toml", RECIPE.replace("= [4, 64]", "= [4"), "half.toml is not TOML: "),
        ("odd.toml", RECIPE.replace("[4, 64]", "[64, 4]"), "low must be less than high"),
        ("far.toml", RECIPE.replace("[4, 64]", "[0, 64]"), "low must be at least 1"),
        ("data.toml", RECIPE.replace('"digits"', '"nothing.npz"'), "nothing.npz"),
    ],
)
def test_a_recipe_that_is_wrong(run, name, text, said):
    if text is not None:
        write(Path(name), text)
    done = run("search", name, "--trials", 1)
    assert is_one_line_of_status_2(done)
    assert said in done.errors
    assert not Path("runs").exists()


def test_another_recipe_or_sampler_under_one_name(run):
    filled()
    done = run(*SEARCH, "--set", "training.epochs=3")
    assert is_one_line_of_status_2(done)
    assert "was created with another recipe: training.epochs was 2, not 3" in done.errors
    done = run(*SEARCH, "--study", "small-random", "--sampler", "grid", "--trials", 1)
    assert is_one_line_of_status_2(done)
    assert "has sampler random, got grid" in done.errors


@pytest.mark.usefixtures("no_trials")
def test_time_that_is_too_short(run):
    done = run(*SEARCH, "--minutes", "1e-9")
    assert is_one_line_of_status_2(done)
    assert "no trials yet: time ran out before the first trial started" in done.errors


def test_what_is_asked_for_is_done(run, no_trials):
    filled()
    Path("somewhere").mkdir()
    done = run(
        *(
            *SEARCH,
            "--trials",
            40,
            "--minutes",
            2.5,
            "--workers",
            3,
            "--lease",
            60,
            "--device",
            "cpu",
        ),
        *("--data-dir", "somewhere", "--no-winner", "--quiet"),
    )
    assert done.status == 0
    (asked,) = no_trials
    assert asked == {
        "n_trials": 40,
        "minutes": 2.5,
        "n_workers": 3,
        "device": "cpu",
        "data_dir": "somewhere",
        "on_state": None,
    }
    assert "lease 60.0, got 61.0" in run(*SEARCH, "--lease", 61).errors


def test_refining_says_how_and_begins_nothing_without_an_end(run):
    filled(40)
    done = run(*SEARCH, "--refine")
    assert (done.status, done.errors) == (0, "")
    assert done.out.splitlines()[-1] == "to search there, add --trials or --minutes"
    assert studies(opened().storage) == ["small-random"]


def test_a_replay_is_from_the_study_alone_and_nothing_else(run, monkeypatch):
    filled()
    seen = []
    monkeypatch.setattr(running, "replay", lambda study, number, **more: seen.append(study))
    with pytest.raises(AttributeError):  # the stand-in gives no replay to be printed
        run(*SEARCH, "--replay", 1, "--set", "training.epochs=77")
    assert seen[0].recipe.values["training"]["epochs"] != 77
    done = run(*SEARCH, "--replay", 1, "--trials", 9)
    assert is_one_line_of_status_2(done)
    assert "--replay cannot be combined with --trials" in done.errors


@pytest.mark.parametrize("package", ["optuna", "sqlalchemy"])
def test_without_optuna_it_says_what_to_type(run, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    done = run(*SEARCH, "--trials", 1)
    assert is_one_line_of_status_2(done)
    assert f"searching needs {package}, which cannot be imported" in done.errors
    assert done.errors.endswith(f"type: pip install {package}\n")
    assert not Path("runs").exists()


def test_enough_is_enough(run):
    """Fewer trials than there are is no reason to say 12/4."""
    filled()
    done = run(*SEARCH, "--trials", 4, "--workers", 1, "--no-winner")
    assert (done.status, done.errors) == (0, "")
    assert done.out.splitlines()[1].startswith("  trial 12/12  best 0.9375  trial 11  ")
    assert len(opened().trials()) == 12


def test_help(run):
    done = subprocess.run(
        [sys.executable, str(ROOT / "train.py"), "search", "--help"],
        capture_output=True,
        text=True,
        check=True,
        env=devices.environment(COLUMNS="60"),
    )
    assert done.stdout.startswith("usage: train.py search [-h]")
    for option in ("--trials N", "--refine", "--replay N", "--storage URL", "--set KEY=VALUE"):
        assert option in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 60
    with pytest.raises(SystemExit) as ended:
        run("search", "--help", command=xpnet.cli.main)
    assert ended.value.code == 0
    with pytest.raises(SystemExit):
        xpnet.cli.main(["--help"])


@pytest.mark.slow
def test_a_narrow_terminal_has_room_for_what_decides(tmp_path):
    filled(30)
    command = [sys.executable, str(ROOT / "train.py"), *SEARCH, "--trials", "9", "--no-winner"]
    status, written = on_a_terminal(
        command, 50, tmp_path, PYTHONPATH=devices.environment()["PYTHONPATH"]
    )
    assert status == 0, written
    lines = visible(written.decode())
    progress = [line for line in lines if line.startswith("  best 0.9375  trial 29")]
    assert progress
    assert max(map(len, progress)) <= 50
    assert any("trial 30/30" in line for line in lines)
    rule = next(number for number, line in enumerate(lines) if line.startswith("---"))
    table = [line.rstrip() for line in lines[rule - 1 : rule + 11]]
    assert len({len(line) for line in table}) == 1
    assert len(table[0]) <= 50
    assert table[0].split()[:2] == ["trial", "validation_accuracy"]
    assert "learning_rate" in table[0].split(), "it decides"
    assert len(table[0].split()) == 4, "the least of the others was left out"


def test_the_small_recipe_is_that_of_the_other_tests():
    assert load_recipe("small.toml") == recipe()
