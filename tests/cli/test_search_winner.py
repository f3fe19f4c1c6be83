"""What the command that searches ends with: pictures, and the winner, trained and tested."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest

from tests.cli.searches import (
    BEST,
    FILES,
    SEARCH,
    STOPPING,
    STUDY_PICTURES,
    UNITS,
    begun,
    fails_if_called,
    filled,
    is_one_line_of_status_2,
    write,
)
from tests.search.studies import add, fill
from xpnet.cli import search
from xpnet.recipe import Recipe, load_recipe
from xpnet.terminal import OutputError, Progress

pytestmark = [
    pytest.mark.host,
    pytest.mark.needs("optuna", "rich", "safetensors", "scipy", "sklearn", "tomli_w"),
    pytest.mark.usefixtures("search_folder"),
]


def test_ctrl_c_while_the_winner_is_trained(run, monkeypatch):
    filled()
    plain = Recipe.run

    def run_(self, *arguments, on_report=None, **more):
        def press(report):
            signal.raise_signal(signal.SIGINT)
            return on_report(report)

        return plain(self, *arguments, on_report=press, **more)

    with monkeypatch.context() as patch:
        patch.setattr(Recipe, "run", run_)
        done = run(*SEARCH)
    assert done.status == 130
    assert done.errors == (
        "train.py search: interrupted; type the same command to retrain the winner\n"
    )
    assert not Path("runs/search/small-random/trial-11").exists()
    assert run(*SEARCH).status == 0
    assert Path("runs/search/small-random/trial-11/history.json").exists()


def test_where_the_best_has_diverged_there_is_no_winner(run):
    found = begun()
    add(found, BEST, 0.0, diverged="cost is nan")
    done = run(*SEARCH)
    assert done.status == 1
    assert done.errors == "train.py search: all trials have diverged: cost is nan\n"
    assert Path("runs/search/small-random/trials.csv").exists()


def test_another_studys_winner_is_not_taken_for_this_ones(run):
    """The journal was taken away, or --out is that of another: the numbers of trials are equal."""
    filled()
    assert run(*SEARCH).status == 0
    Path("runs/search/small.journal").unlink()
    found = begun()
    fill(found, 11, lambda point: 0.1)
    add(found, {**BEST, UNITS: 33}, 0.9375)
    done = run(*SEARCH)
    assert is_one_line_of_status_2(done)
    place = Path("runs/search/small-random/trial-11")
    assert done.errors.startswith(
        f"train.py search: {place} holds the network of another study, with another network.layers"
    )
    (place / "history.json").unlink()
    done = run(*SEARCH)
    assert is_one_line_of_status_2(done)
    assert f"--out: cannot write {place}: it exists and is not an empty folder" in done.errors


def test_an_early_stopped_winner_is_known_again(run):
    found = begun(of=load_recipe("small.toml", changes=STOPPING))
    add(found, BEST, 0.5, best_epoch=3, epochs=5)
    changes = [word for change in STOPPING for word in ("--set", change)]
    done = run(*SEARCH, *changes)
    assert (done.status, done.errors) == (0, "")
    assert re.search("^  epoch 3/3  ", done.out, re.MULTILINE)
    winner = load_recipe("runs/search/small-random/trial-0/recipe.toml")
    assert winner.values["training"]["epochs"] == 3
    again = run(*SEARCH, *changes)
    assert again.status == 0
    assert "trial 0 was trained and tested before: test_accuracy " in again.out


def test_a_winner_is_kept_though_nobody_reads_of_it(run, monkeypatch):
    """Its training is not lost to a pipe that was closed."""
    filled()
    show = Progress.__call__

    def broken(self, report):
        show(self, report)
        self.problem = OutputError("cannot write the output: no space")

    with monkeypatch.context() as patch:
        patch.setattr(Progress, "__call__", broken)
        done = run(*SEARCH)
    assert is_one_line_of_status_2(done)
    assert done.errors.endswith("cannot write the output: no space\n")
    assert "was trained and tested before" in run(*SEARCH).out


def test_a_winner_that_cannot_be_written_is_not_trained(run, monkeypatch):
    filled()
    Path("runs/search/small-random").mkdir()
    Path("runs/search/small-random/trial-11").write_text("", encoding="utf-8")
    monkeypatch.setattr(Recipe, "run", fails_if_called)
    done = run(*SEARCH)
    assert is_one_line_of_status_2(done)
    assert "trial-11: it exists and is not an empty folder" in done.errors


def test_a_winner_under_numbers(run):
    write(
        Path("numbers.toml"),
        """
        loss = "mean_squared_error"
        optimizer = "adam"
        data = { dataset = "diabetes", normalise = "standardise", validation_fraction = 0.2 }
        network.layers = [{ type = "dense", units = 1 }]
        training = { epochs = 2, batch_size = 64 }
        search = { seed = { integer = [0, 9] } }
        """,
    )
    found = begun("numbers-random", "runs/search/numbers.journal", load_recipe("numbers.toml"))
    add(found, {"seed": 3}, -0.5)
    done = run("search", "numbers.toml", "--quiet")
    assert (done.status, done.errors) == (0, "")
    score = re.search(r"test R2 (-?\d+\.\d{4}), on", done.out)
    assert score is not None
    again = run("search", "numbers.toml")
    assert again.out.endswith(f"tested before: test_R2 {score[1]}\n")


def test_pictures_are_written_and_their_lack_is_said(run, monkeypatch):
    filled()
    names = ("importances", "slices", "parallel", "best")
    pictures = {f"{name}.png": lambda: b"PNG" for name in names}
    monkeypatch.setattr(STUDY_PICTURES, lambda study: pictures)
    done = run(*SEARCH, "--no-winner")
    folder = Path("runs/search/small-random")
    assert {path.name for path in folder.iterdir()} == set(FILES) | set(pictures)
    assert done.out.endswith(f"  wrote {folder}: {', '.join([*FILES, *pictures])}\n")

    def fail():
        raise ArithmeticError("no room")

    monkeypatch.setattr(STUDY_PICTURES, lambda study: {**pictures, "slices.png": fail})
    done = run(*SEARCH, "--no-winner", "--out", "one less")
    assert done.status == 0
    assert done.errors == "train.py search: no slices.png: ArithmeticError('no room')\n"
    assert {path.name for path in Path("one less").iterdir()} == (
        set(FILES) | set(pictures) - {"slices.png"}
    )
    monkeypatch.setattr(search, "plotting_problem", lambda: "matplotlib is not there")
    done = run(*SEARCH, "--no-winner", "--out", "other")
    assert done.status == 0
    assert done.errors == "train.py search: no pictures: matplotlib is not there\n"
    assert {path.name for path in Path("other").iterdir()} == set(FILES)
