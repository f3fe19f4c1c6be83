"""The command line as a person meets it: real processes, exit statuses, files."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import xpnet.cli
from tests.conftest import ROOT
from xpnet.data import DataError
from xpnet.recipe import Recipe, load_recipe


def run(*arguments, **environment):
    return subprocess.run(
        [sys.executable, str(ROOT / "train.py"), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )


@pytest.fixture
def no_gpu(dev):
    if dev.index is not None:
        pytest.skip("this machine has a GPU")


def test_three_classifiers_on_digits_in_one_table(tmp_path):
    done = run("--out", tmp_path / "a b")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    rows = [line.split() for line in done.stdout.splitlines()[-3:]]
    assert [row[0] for row in rows] == ["digits-logistic", "digits-shallow", "digits-deep"]
    header = done.stdout.splitlines()[-5].split()
    accuracy = [float(row[header.index("test")]) for row in rows]
    assert accuracy[0] >= 0.95
    assert accuracy[1] >= 0.96
    assert accuracy[2] >= 0.96
    for row in rows:
        history = json.loads((tmp_path / "a b" / row[0] / "history.json").read_text())
        assert history["recipe"] == row[0]
        for column, key in (
            ("train", "train_accuracy"),
            ("test", "test_accuracy"),
            ("majority", "majority_accuracy"),
        ):
            assert round(history[key], 4) == float(row[header.index(column)])
        assert history["train_accuracy"] > history["test_accuracy"] > history["majority_accuracy"]
        assert (history["dtype"], history["seed"], history["rng"]) == ("float32", 0, "numpy")
        assert row[header.index("device")] == history["device"]
        assert history["majority_accuracy"] == pytest.approx(37 / 360)
        assert history["cost"][0][0] == 0
        assert history["seconds"] > 0
        assert history["samples_per_second"] > 0
        assert {"python", "xpnet", "numpy", "blas"} <= set(history["versions"])
        assert not history["interrupted"]


def test_quiet_prints_the_table_alone():
    loud, quiet = run("digits-logistic"), run("digits-logistic", "--quiet")
    assert "epoch    60" in loud.stdout
    assert "epoch" not in quiet.stdout
    assert quiet.stdout.split()[-9] == "digits-logistic"


def test_the_list():
    done = run("--list")
    assert (done.returncode, done.stdout.split()[0]) == (0, "cats-deep")


@pytest.mark.usefixtures("no_gpu")
def test_cuda_without_a_gpu():
    for done in (run(XPNET_DEVICE="cuda"), run("--device", "cuda", XPNET_DEVICE="cpu")):
        assert done.returncode == 2
        assert done.stdout == ""
        assert len(done.stderr.splitlines()) == 1
        assert "pip install 'cupy-cuda1" in done.stderr or "driver" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "environment", "said"),
    [
        ([], {"XPNET_DEVICE": "gpu"}, "XPNET_DEVICE must be 'cpu', 'cuda', 'cuda:N'"),
        (["--device", "gpu"], {}, "device must be 'cpu'"),
        (["digits-depe"], {}, "there is no recipe named 'digits-depe'; known: cats-deep"),
        (["cats-deep"], {"XPNET_DATA_DIR": ""}, "train_catvnoncat.h5: say where it is"),
        (["cats-deep", "--data-dir", "no such folder"], {}, "which is not in no such folder"),
        (["digits-deep", "--out", os.devnull], {}, "--out: cannot make the folder"),
        (["--out", "a" * 300], {}, "--out: cannot make the folder"),
        (["digits-deep", "--data-dir", ""], {"XPNET_DEVICE": "cuda:99"}, "XPNET_DEVICE=cuda:99: "),
    ],
)
def test_wrong_input_is_one_line_and_status_2(arguments, environment, said):
    done = run(*arguments, **environment)
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert said in done.stderr


def test_ctrl_c_while_loading_is_status_130(monkeypatch, capsys):
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
        assert xpnet.cli.main([]) == 130
        assert capsys.readouterr().err == "train.py: interrupted\n"
        assert signal.getsignal(signal.SIGINT) is before


def test_a_reader_that_stops_reading():
    command = f'"{sys.executable}" "{ROOT / "train.py"}" digits-logistic'
    done = subprocess.run(
        f"{command} | head -n 1", shell=True, capture_output=True, text=True, check=False
    )
    assert done.stdout.startswith("digits-logistic on")
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("redirection", "status", "said"),
    [("> /dev/full", 2, "cannot write the output: No space left"), (">&-", 0, "")],
)
def test_an_output_that_cannot_be_written(redirection, status, said):
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    command = f'"{sys.executable}" "{ROOT / "train.py"}" digits-logistic --quiet {redirection}'
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    assert done.returncode == status
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == (1 if said else 0)


def test_what_was_trained_is_shown_where_it_cannot_be_written(tmp_path):
    (tmp_path / "digits-logistic" / "history.json").mkdir(parents=True)
    done = run("digits-logistic", "--quiet", "--out", tmp_path)
    assert done.returncode == 2
    assert "digits-logistic" in done.stdout.splitlines()[-1]
    assert done.stderr.startswith("train.py: cannot write ")
    assert len(done.stderr.splitlines()) == 1
    assert [entry.name for entry in (tmp_path / "digits-logistic").iterdir()] == ["history.json"]


def test_a_real_ctrl_c_to_a_real_process(tmp_path):
    """At several moments: while importing, loading, training."""
    for delay in (0.02, 0.1, 0.4, 0.8, 1.2):
        process = subprocess.Popen(
            [sys.executable, ROOT / "train.py", "--out", tmp_path],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        time.sleep(delay)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
        if process.returncode in (0, -signal.SIGINT):
            continue  # it had finished, or Python itself was not up yet
        assert process.returncode == 130, errors
    for path in tmp_path.glob("*/history.json"):
        assert json.loads(path.read_text())["recipe"] == path.parent.name


def test_a_data_set_is_loaded_once(monkeypatch):
    loaded = []
    load = Recipe.load_data

    def watch(recipe, data_dir):
        loaded.append(recipe.name)
        return load(recipe, data_dir)

    monkeypatch.setattr(Recipe, "load_data", watch)
    assert xpnet.cli.main(["digits-logistic", "digits-shallow", "--quiet"]) == 0
    assert loaded == ["digits-logistic"]


def test_errors_that_nobody_reads_keep_their_status():
    command = f'"{sys.executable}" "{ROOT / "train.py"}" nope 2>&1 | true; exit ${{PIPESTATUS[0]}}'
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("no bash here")
    assert subprocess.run([bash, "-c", command], check=False).returncode == 2


def test_a_recipe_named_twice_runs_once():
    done = run("digits-logistic", "digits-logistic", "--quiet")
    assert done.stdout.count("digits-logistic") == 1


def test_a_diverging_run_is_status_1(monkeypatch, capsys):
    recipe = load_recipe("digits-deep")
    recipe.optimizer.learning_rate = 1e30
    finished = load_recipe("digits-logistic")
    recipes = {recipe.name: recipe, finished.name: finished}
    monkeypatch.setattr(xpnet.cli, "load_recipe", recipes.__getitem__)
    assert xpnet.cli.main([finished.name, recipe.name, "--quiet"]) == 1
    printed = capsys.readouterr()
    assert "digits-deep: loss or parameters were no longer finite at step" in printed.err
    assert printed.out.splitlines()[-1].startswith("digits-logistic")


def test_ctrl_c_is_status_130_with_what_was_reached(monkeypatch, capsys, tmp_path):
    def interrupt(progress, report):
        del progress
        if report.epoch == 10:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(xpnet.cli._Progress, "__call__", interrupt)
    status = xpnet.cli.main(["digits-logistic", "digits-deep", "--out", str(tmp_path)])
    printed = capsys.readouterr()
    assert status == 130
    assert "interrupted in digits-logistic, which is kept" in printed.err
    assert "digits-logistic" in printed.out.splitlines()[-1]
    history = json.loads((tmp_path / "digits-logistic" / "history.json").read_text())
    assert history["interrupted"]
    assert history["reports"][-1]["epoch"] == 10
    assert "digits-deep" not in printed.out
