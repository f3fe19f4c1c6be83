"""Ctrl-C at any moment of a command: its exit status, what it says and what is kept."""

from __future__ import annotations

import contextlib
import json
import random
import signal
import subprocess
import sys
import time
import weakref

import numpy as np
import pytest

import xpnet.cli
from tests.cli.commands import FILES, TRAIN, pictures, table
from xpnet.cli import prediction
from xpnet.cli.running import CtrlC
from xpnet.data import DataError
from xpnet.recipe import Recipe, Result, load_recipe
from xpnet.terminal import Progress
from xpnet.training import load_model

pytestmark = [
    pytest.mark.needs("rich", "safetensors", "sklearn", "tomli_w"),
    pytest.mark.usefixtures("few_pictures"),
]


def test_ctrl_c_while_loading_is_status_130(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)

    def interrupt(recipe, data_dir):
        del recipe, data_dir
        signal.raise_signal(signal.SIGINT)

    def interrupted_import(recipe, data_dir):
        with contextlib.suppress(KeyboardInterrupt):
            interrupt(recipe, data_dir)
        raise DataError("initialization failed")

    before = signal.getsignal(signal.SIGINT)
    for load in (interrupt, interrupted_import):
        monkeypatch.setattr(Recipe, "load_data", load)
        assert xpnet.cli.train([]) == 130
        assert capsys.readouterr().err == "train.py: interrupted\n"
        assert signal.getsignal(signal.SIGINT) is before
    assert not list(tmp_path.iterdir())


def test_ctrl_c_that_somebody_swallows(monkeypatch, capsys, tmp_path):
    """A library may: whatever it does, nothing is trained after that."""
    monkeypatch.chdir(tmp_path)
    load = Recipe.load_data

    def swallow(recipe, data_dir):
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        return load(recipe, data_dir)

    monkeypatch.setattr(Recipe, "load_data", swallow)
    assert xpnet.cli.train([]) == 130
    assert capsys.readouterr() == ("", "train.py: interrupted\n")
    assert not list(tmp_path.iterdir())


def test_ctrl_c_that_somebody_swallows_at_the_end(monkeypatch, capsys):
    def swallow(options, ctrl_c):
        del options, ctrl_c
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        return 0

    monkeypatch.setattr(prediction, "work", swallow)
    assert xpnet.cli.main(["predict", "a", "b"]) == 130
    assert capsys.readouterr().err == "xpnet: interrupted\n"


@pytest.mark.slow
@pytest.mark.long
def test_a_real_ctrl_c_to_a_real_process(tmp_path, dev):
    """At random moments of a training: status 130, and a folder that is whole and loads."""
    seed = random.randrange(2**32)
    moments = random.Random(seed)
    for number in range(3):
        out = tmp_path / str(number)
        process = subprocess.Popen(
            [*TRAIN, "digits-deep", "--set", "training.epochs=1000000", "--out", str(out)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        assert process.stdout.readline().startswith("digits-deep on")  # training has begun
        time.sleep(moments.uniform(0, 2))
        process.send_signal(signal.SIGINT)
        printed, errors = process.communicate(timeout=60)
        assert process.returncode == 130, (seed, errors)
        assert errors == "train.py: interrupted in digits-deep; its result so far is saved\n"
        assert [row["recipe"] for row in table(printed)] == ["digits-deep"]
        assert {entry.name for entry in out.iterdir()} == FILES | pictures()
        history = json.loads((out / "history.json").read_text())
        assert history["interrupted"]
        assert history["n_steps"] >= 1
        recipe = load_recipe(out / "recipe.toml")
        data = recipe.load_data()
        found = load_model(out / "model.safetensors", device=dev).predict(data.X_test)
        assert np.mean(found == data.y_test) == pytest.approx(history["test_accuracy"], abs=0.003)
    assert {entry.name for entry in tmp_path.iterdir()} == set("012")


@pytest.mark.slow
@pytest.mark.long
def test_ctrl_c_at_any_moment(tmp_path):
    """While importing, loading, training, drawing: no folder is ever half there."""
    for delay in (0.02, 0.1, 0.4, 0.8, 1.2, 1.6, 2.0, 2.4):
        process = subprocess.Popen(
            [*TRAIN, "--out", str(tmp_path / "out" / str(delay))],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        time.sleep(delay)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
        if process.returncode in (0, -signal.SIGINT) or "Fatal Python error: init_" in errors:
            continue  # it had finished, or Python itself was not up yet
        assert process.returncode == 130, errors
        assert len(errors.splitlines()) <= 1, errors
    for folder in tmp_path.glob("out/*/*"):
        assert {entry.name for entry in folder.iterdir()} == FILES | pictures()


def test_ctrl_c_where_python_has_nobody_to_raise_it_to(monkeypatch, capsys):
    """In the callback of a weak reference, say, of which the import system has many."""
    seen = []
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: seen.append(unraisable.exc_type))

    class Thing:
        pass

    def drop(callback):
        thing = Thing()
        reference = weakref.ref(thing, callback)
        del thing
        assert reference() is None

    ctrl_c = CtrlC()
    with ctrl_c:
        drop(lambda _: signal.raise_signal(signal.SIGINT))
        drop(lambda _: 1 / 0)
        assert ctrl_c.was_pressed
        with pytest.raises(KeyboardInterrupt):
            ctrl_c.check()
    drop(lambda _: 1 // 0)
    assert seen == [ZeroDivisionError] * 2
    assert capsys.readouterr().err == ""


def test_ctrl_c_keeps_what_was_reached(monkeypatch, capsys, tmp_path):
    def interrupt(progress, report):
        del progress
        if report.epoch == 10:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Progress, "__call__", interrupt)
    status = xpnet.cli.train(["digits-logistic", "digits-deep", "--out", str(tmp_path / "out")])
    printed = capsys.readouterr()
    assert status == 130
    assert "interrupted in digits-logistic; its result so far is saved" in printed.err
    assert [row["recipe"] for row in table(printed.out)] == ["digits-logistic"]
    history = json.loads((tmp_path / "out" / "digits-logistic" / "history.json").read_text())
    assert history["interrupted"]
    assert history["reports"][-1]["epoch"] == 10
    assert [entry.name for entry in (tmp_path / "out").iterdir()] == ["digits-logistic"]


def test_a_second_ctrl_c_gives_up(monkeypatch, capsys, tmp_path):
    def interrupt_twice(progress, report):
        del progress, report
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Progress, "__call__", interrupt_twice)
    for expected in ([], [tmp_path / "out"]):
        for folder in expected:  # it may have been there, empty
            folder.mkdir()
        assert xpnet.cli.train(["digits-logistic", "--out", str(tmp_path / "out")]) == 130
        assert capsys.readouterr().err == (
            "train.py: interrupted twice in digits-logistic; nothing was saved\n"
        )
        assert list(tmp_path.rglob("*")) == expected


@pytest.mark.long
def test_a_second_ctrl_c_that_comes_too_late(monkeypatch, capsys, tmp_path):
    save = Result.save

    def interrupted_twice(result, folder, **options):
        save(result, folder, **options)
        raise KeyboardInterrupt

    monkeypatch.setattr(Result, "save", interrupted_twice)
    out = tmp_path / "out"
    assert xpnet.cli.train(["digits-logistic", "--out", str(out), "--quiet"]) == 130
    assert capsys.readouterr().err == (
        f"train.py: interrupted twice in digits-logistic; saved in {out}\n"
    )
    assert load_model(out).network.n_features == 64
