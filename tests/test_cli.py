"""The command line as a person meets it: what it prints, exit statuses, files, real processes."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import random
import re
import shutil
import signal
import struct
import subprocess
import sys
import time
import warnings
import weakref
from pathlib import Path

import numpy as np
import pytest

import xpnet.cli
from tests import devices
from tests.conftest import ROOT, slow
from xpnet.cli import prediction
from xpnet.cli.running import CtrlC
from xpnet.data import DataError
from xpnet.recipe import Recipe, Result, load_recipe, recipe_names
from xpnet.terminal import Progress
from xpnet.training import load_model

FILES = {"history.json", "model.safetensors", "recipe.toml"}
pytestmark = pytest.mark.needs("rich", "safetensors", "sklearn", "tomli_w")

TRAIN = (sys.executable, str(ROOT / "train.py"))
XPNET = (sys.executable, "-m", "xpnet")
# A short run for tests of processes. Points are no images: curves.png is their only picture.
POINTS = (
    f"'{TRAIN[0]}' '{TRAIN[1]}' digits-logistic --out out --set data.dataset=blobs "
    "--set data.divide_by=1 --set network.layers.0.units=3"
)


def run(*arguments, command=xpnet.cli.train, cwd=None, encoding="utf-8", **environment):
    """Run a command in this process, where a new one would spend its time on imports."""
    out, errors = (io.TextIOWrapper(io.BytesIO(), encoding) for _ in range(2))
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(errors),
    ):
        if cwd is not None:
            patch.chdir(cwd)
        for name, value in environment.items():
            patch.setenv(name, value)
        try:
            status = command([*map(str, arguments)])
        except SystemExit as end:  # after --help
            status = end.code
    texts = []
    for stream in (out, errors):
        stream.flush()
        texts.append(stream.buffer.getvalue().decode(encoding))
    return subprocess.CompletedProcess(arguments, status, *texts)


def run_process(*arguments, command=TRAIN, cwd=None):
    return subprocess.run(
        [*command, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        env=devices.environment(),
    )


def pictures():
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        return set()
    return {"curves.png", "mistakes.png", "confusion.png"}


def curves():
    return pictures() & {"curves.png"}


@pytest.fixture
def drawn():
    """Let the commands in this process draw, and name their pictures of classified images."""
    return pictures()


@pytest.fixture(autouse=True)
def _few_pictures(request, monkeypatch):
    """Draw in this process only where a test looks at pictures: they take most of a run's time."""
    if "drawn" not in request.fixturenames:
        monkeypatch.setattr("xpnet.recipe.result.plotting_problem", lambda: "not here")
        monkeypatch.setattr("xpnet.cli.training.plotting_problem", lambda: None)  # and say nothing


def shell(command, cwd=None):
    return subprocess.run(
        command,
        shell=True,
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        env=devices.environment(),
    )


def is_one_line_of_status_2(done):
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert "Traceback" not in done.stdout


@pytest.fixture
def no_gpu(dev):
    if dev.index is not None:
        pytest.skip("this machine has a GPU")


def table(stdout):
    """Read the table at the end of the output as a dictionary for each row."""
    lines = stdout.splitlines()
    rule = max(number for number, line in enumerate(lines) if line.startswith("---"))
    header = lines[rule - 1].split()
    return [dict(zip(header, line.split(), strict=True)) for line in lines[rule + 1 :]]


@pytest.mark.slow
def test_three_classifiers_on_digits_in_one_table(tmp_path, drawn):
    done = run("--out", tmp_path / "a b")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    rows = table(done.stdout)
    assert [row["recipe"] for row in rows] == ["digits-logistic", "digits-shallow", "digits-deep"]
    for row, least in zip(rows, (0.95, 0.96, 0.96), strict=True):
        assert float(row["test"]) >= least
        folder = tmp_path / "a b" / row["recipe"]
        assert {entry.name for entry in folder.iterdir()} == FILES | drawn
        history = json.loads((folder / "history.json").read_text())
        assert history["recipe"] == row["recipe"]
        for column, key in (
            ("train", "train_accuracy"),
            ("test", "test_accuracy"),
            ("majority", "majority_accuracy"),
        ):
            assert round(history[key], 4) == float(row[column])
        assert history["train_accuracy"] > history["test_accuracy"] > history["majority_accuracy"]
        assert (history["dtype"], history["seed"], history["rng"]) == ("float32", 0, "numpy")
        assert row["device"] == history["device"]
        assert history["majority_accuracy"] == pytest.approx(37 / 360)
        assert history["cost"][0][0] == 0
        assert history["seconds"] > 0
        assert history["samples_per_second"] > 0
        assert {"python", "xpnet", "numpy", "blas"} <= set(history["versions"])
        assert not history["interrupted"]
        assert all(report["train_accuracy"] > 0 for report in history["reports"])
        assert all(report["validation_accuracy"] > 0 for report in history["reports"])
        # what was run can be run again, and gives the same
        again = load_recipe(folder / "recipe.toml")
        assert again.values["device"] == history["device"]
        assert again.values["training"]["epochs"] == 60
        result = again.run(device="cpu")
        if history["device"] == "cpu":
            assert [list(pair) for pair in result.history.cost] == history["cost"]
        model = load_model(folder / "model.safetensors")
        predicted = model.predict(result.dataset.X_test)
        assert np.mean(predicted == result.dataset.y_test) == history["test_accuracy"]


def test_one_recipe_writes_into_the_folder_itself(tmp_path, drawn):
    (tmp_path / "out").mkdir()
    done = run("digits-logistic", "--out", "out", "--set", "training.epochs=3", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert {entry.name for entry in (tmp_path / "out").iterdir()} == FILES | drawn
    assert "  wrote out\n" in done.stdout


def test_pictures_that_cannot_be_drawn_are_told(monkeypatch, tmp_path):
    for name in ("xpnet.recipe.result", "xpnet.cli.training"):
        monkeypatch.setattr(f"{name}.plotting_problem", lambda: "no matplotlib")
    few = ["digits-logistic", "--set", "training.epochs=1", "--out"]
    done = run(*few, "out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "\n  wrote out\n  no pictures: no matplotlib\n" in done.stdout
    assert {entry.name for entry in (tmp_path / "out").iterdir()} == FILES
    quiet = run(*few, "quiet", "--quiet", cwd=tmp_path)
    assert "no pictures" not in quiet.stdout + quiet.stderr


@pytest.mark.heavy
def test_a_name_that_another_run_takes_meanwhile(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(time, "strftime", lambda form: "NOW")
    run_alone = Recipe.run

    def run_beside_another(*arguments, **options):
        Path("runs/digits-logistic-NOW").mkdir(parents=True)
        Path("runs/digits-logistic-NOW/theirs").touch()
        return run_alone(*arguments, **options)

    few = ["digits-logistic", "--quiet", "--set", "training.epochs=1"]
    with monkeypatch.context() as patch:
        patch.setattr(Recipe, "run", run_beside_another)
        assert xpnet.cli.train(few) == 0
    assert xpnet.cli.train(few) == 0  # in the same second, and seen before the training
    found = {path.name: {entry.name for entry in path.iterdir()} for path in Path("runs").iterdir()}
    assert found == {
        "digits-logistic-NOW": {"theirs"},
        "digits-logistic-NOW-2": FILES,
        "digits-logistic-NOW-3": FILES,
    }


@pytest.mark.long
def test_by_default_a_folder_under_runs(tmp_path):
    for _ in range(2):
        done = run("digits-logistic", "--quiet", "--set", "training.epochs=3", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    folders = [entry.name for entry in (tmp_path / "runs").iterdir()]
    assert len(folders) == 2
    assert all(name.startswith("digits-logistic-20") for name in folders)


def test_options_reach_the_run(tmp_path):
    done = run(
        *("digits-logistic", "--quiet", "--seed", "7", "--dtype", "float64", "--device", "cpu"),
        *("--set", "training.epochs=2", "--set", "optimizer.learning_rate=3e-4"),
        *("--out", tmp_path / "out"),
        XPNET_DEVICE="cuda",
    )
    assert done.returncode == 0, done.stderr
    history = json.loads((tmp_path / "out" / "history.json").read_text())
    assert (history["seed"], history["dtype"], history["device"]) == (7, "float64", "cpu")
    assert [report["learning_rate"] for report in history["reports"]] == [3e-4, 3e-4]


@pytest.mark.long
def test_quiet_prints_the_table_alone(tmp_path):
    loud = run("digits-logistic", "--out", tmp_path / "loud")
    quiet = run("digits-logistic", "--quiet", "--out", tmp_path / "quiet")
    assert "epoch 60/60" in loud.stdout
    assert "accuracy 0.9" in loud.stdout
    assert quiet.stdout.splitlines()[1].startswith("recipe ")
    assert [row["recipe"] for row in table(quiet.stdout)] == ["digits-logistic"]


@pytest.mark.parametrize("arguments", ["--list", "--show digits-deep", "--help"])
def test_what_cannot_be_printed_is_said_once(arguments):
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    for command in (f"'{TRAIN[0]}' '{TRAIN[1]}'", f"'{sys.executable}' -m xpnet train"):
        done = shell(f"{command} {arguments} > /dev/full")
        is_one_line_of_status_2(done)
        assert "cannot write the output: No space left" in done.stderr


def test_help():
    done = run("train", "--help", command=xpnet.cli.main)
    assert done.returncode == 0
    assert done.stdout.startswith("usage: xpnet train [-h]")
    assert "--data-dir DIR" in done.stdout


def test_the_list():
    done = run("--list")
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines] == recipe_names()
    assert lines[0] == (
        "cats-deep           Cat or not: four layers, weights scaled by 1 / sqrt(fan_in), as the "
        "course's last week"
    )


@pytest.mark.long
def test_show_prints_a_recipe_that_can_be_run(tmp_path):
    done = run("--show", "digits-shallow", "--set", "training.epochs=2")
    assert done.returncode == 0
    (tmp_path / "mine.toml").write_text(done.stdout)
    recipe = load_recipe("digits-shallow", changes=["training.epochs=2"])
    assert load_recipe(tmp_path / "mine.toml").values == recipe.values
    done = run("mine.toml", "--quiet", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert table(done.stdout)[0]["recipe"] == "mine"


def test_what_is_shown_is_toml_in_any_encoding(tmp_path):
    described = ["--set", "description='caf\xe9 \N{CAT FACE}'"]
    for encoding in ("utf-8", "cp1252", "ascii"):
        done = run("--show", "digits-shallow", *described, encoding=encoding)
        (tmp_path / "mine.toml").write_text(done.stdout)
        found = load_recipe(tmp_path / "mine.toml").values["description"]
        assert found == "caf\xe9 \N{CAT FACE}"
    lines = run("--show", "digits-shallow", "digits-deep").stdout.splitlines()
    assert [line for line in lines if line.startswith("#")] == ["# digits-shallow", "# digits-deep"]


def test_both_commands_are_the_same(tmp_path):
    """Run as processes, to test the entry points too."""
    listed = run("--list").stdout
    for command, arguments in ((TRAIN, ["--list"]), (XPNET, ["train", "--list"])):
        done = run_process(*arguments, command=command, cwd=tmp_path)
        assert (done.returncode, done.stdout, done.stderr) == (0, listed, "")
    is_one_line_of_status_2(run_process("nope", cwd=tmp_path))
    for arguments in ([], ["dance"]):
        is_one_line_of_status_2(run(*arguments, command=xpnet.cli.main))
    done = run("train", "--colour", command=xpnet.cli.main)
    assert done.stderr == "xpnet: unrecognized arguments: --colour; see xpnet train --help\n"


@pytest.mark.usefixtures("no_gpu")
def test_cuda_without_a_gpu():
    for done in (run(XPNET_DEVICE="cuda"), run("--device", "cuda", XPNET_DEVICE="cpu")):
        is_one_line_of_status_2(done)
        assert done.stdout == ""
        assert "pip install 'cupy-cuda1" in done.stderr or "driver" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "environment", "said"),
    [
        ([], {"XPNET_DEVICE": "gpu"}, "XPNET_DEVICE must be 'cpu', 'cuda', 'cuda:N'"),
        (["--device", "gpu"], {}, "train.py: device must be 'cpu'"),
        (
            ["digits-depe"],
            {},
            "there is no recipe named 'digits-depe'; did you mean 'digits-deep'?",
        ),
        (["none.toml"], {}, "cannot read the recipe none.toml: No such file"),
        (["."], {}, "there is no recipe named '.'"),
        (["cats-deep", "--set", "data.dataset=moon"], {}, "did you mean 'moons'?"),
        (["cats-deep", "--set", "data.dataset=a.npz"], {}, "a.npz"),
        (["digits-deep", "--out", os.devnull], {}, "--out: cannot make the folder"),
        (["digits-deep", "--out", ""], {}, "--out must name a folder, got an empty string"),
        (["digits-deep", "--data-dir", "none"], {}, "--data-dir is 'none', which is no folder"),
        (["digits-deep", "--set", "data.divide_by=1e-320"], {}, "divide_by = 1e-320: features mu"),
        (["--out", "a" * 300], {}, "--out: cannot make the folder"),
        (["digits-deep", "--out", "/proc/none"], {}, "--out: cannot make the folder '/proc/none'"),
        (["digits-deep", "--data-dir", ""], {"XPNET_DEVICE": "cuda:99"}, "XPNET_DEVICE=cuda:99: "),
        (["digits-deep", "--dtype", "float16"], {}, "dtype must be"),
        (["digits-deep", "--seed", "x"], {}, "seed must be an integer in [0, 2^63-1], got 'x'"),
        (["digits-deep", "--seed=-1"], {}, "seed must be an integer in [0, 2^63-1], got -1"),
        (["digits-deep", "--target", "y"], {}, "data.target (got 'y') is not for digits"),
        (["digits-deep", "--set", "epochs=3"], {}, "did you mean training.epochs?"),
        (["digits-deep", "--set", "loss=sigmoid_cross_entropy"], {}, "loss must be 'softmax_cross"),
        (["digits-deep", "--set", "loss=mean_squared_error"], {}, "digits holds classes to be pre"),
        (
            ["digits-deep", "--set", "data.dataset=diabetes"],
            {},
            "diabetes holds numbers to be pred",
        ),
        (
            ["diabetes-shallow", "--set", "loss=softmax_cross_entropy"],
            {},
            "data.standardise_target must be false with a loss for classes, got True",
        ),
        (
            ["diabetes-shallow", "--set", "network.layers.1.units=2"],
            {},
            "network.layers.1 must have 1 outputs under mean_squared_error for the one number of",
        ),
        (
            ["digits-deep", "--set", "data.sample_weight=w"],
            {},
            "data.sample_weight (got 'w') is no",
        ),
        (
            ["digits-deep", "--set", "network.layers.3.units=9"],
            {},
            "network.layers.3 must have 10 outputs under softmax_cross_entropy for the 10 classes",
        ),
        (
            ["digits-deep", "--set", "network.layers.0.units=1000000000000"],
            {},
            "network.layers",
        ),
        (
            ["digits-deep", "--set", "optimizer.learning_rate=1e-300"],
            {},
            "learning_rate=1e-300 is 0 in float32: out of its range",
        ),
        (["--colour"], {}, "unrecognized arguments: --colour; see train.py --help"),
        (["--data-dir", "a" * 300], {}, "which cannot be looked into: File name too long"),
        (
            ["digits-deep", "--set", "learning_rate=0.1"],
            {},
            "learning_rate (got 0.1) is not a key of a recipe; did you mean optimizer.learning_ra",
        ),
        (["digits-deep", "--set", "units=5"], {}, "did you mean network.layers.N.units?"),
        (["digits-deep", "--set"], {}, "argument --set: expected one argument"),
    ],
)
def test_wrong_input_is_one_line_and_status_2(tmp_path, arguments, environment, said):
    if said.endswith("'/proc/none'") and not Path("/proc").is_dir():
        pytest.skip("no /proc here")
    done = run(*arguments, cwd=tmp_path, **environment)
    is_one_line_of_status_2(done)
    assert said in done.stderr
    assert not [entry for entry in tmp_path.iterdir() if entry.name != "runs"]
    assert not list(tmp_path.glob("runs/*"))


def test_a_folder_with_something_in_it(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious").write_text("x")
    done = run("digits-logistic", "--out", tmp_path / "out")
    is_one_line_of_status_2(done)
    assert "there is something already" in done.stderr
    assert [entry.name for entry in (tmp_path / "out").iterdir()] == ["precious"]


@pytest.mark.long
@pytest.mark.skipif(sys.platform == "win32", reason="no ulimit")
def test_a_disk_that_fills_up_while_saving(tmp_path):
    """Files may grow to 1 kB: what was trained is shown, and nothing is left half-written."""
    done = subprocess.run(
        ["sh", "-c", f"ulimit -f 1; exec {POINTS} --quiet"],
        cwd=tmp_path,
        env=devices.environment(CUPY_CACHE_IN_MEMORY="1"),  # or CuPy's files would be too large
        capture_output=True,
        text=True,
        check=False,
    )
    is_one_line_of_status_2(done)
    assert "train.py: cannot write out: File too large" in done.stderr
    assert table(done.stdout)[0]["recipe"] == "digits-logistic"
    assert not list(tmp_path.iterdir())


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


def test_warnings_that_are_not_of_pictures_pass(monkeypatch, tmp_path):
    def warn(result, folder, on_problem):
        del result, folder, on_problem
        warnings.warn("of something else", UserWarning, stacklevel=1)

    monkeypatch.setattr(Result, "save", warn)
    few = ["digits-logistic", "--set", "training.epochs=1", "--out", str(tmp_path / "out")]
    with pytest.warns(UserWarning, match="of something else"):
        assert xpnet.cli.train(few) == 0


@pytest.mark.long
def test_a_reader_that_stops_reading(tmp_path):
    done = shell(f"({POINTS}; echo $? > status) | head -n 1", cwd=tmp_path)
    assert done.stdout.startswith("digits-logistic on")
    assert done.stderr == ""
    assert (tmp_path / "status").read_text() == "130\n"
    # The training is finished and kept nevertheless.
    assert {entry.name for entry in (tmp_path / "out").iterdir()} == FILES | curves()
    assert not json.loads((tmp_path / "out" / "history.json").read_text())["interrupted"]


@pytest.mark.long
@pytest.mark.parametrize("quiet", ["", slow("--quiet")])
@pytest.mark.parametrize(
    ("redirection", "status", "said"),
    [("> /dev/full", 2, "cannot write the output: No space left"), slow(">&-", 0, "")],
)
def test_an_output_that_cannot_be_written(tmp_path, redirection, status, said, quiet):
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    done = shell(f"{POINTS} {quiet} {redirection}", cwd=tmp_path)
    assert done.returncode == status
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == (1 if said else 0)
    assert {entry.name for entry in (tmp_path / "out").iterdir()} == FILES | curves()


@pytest.mark.slow
@pytest.mark.long
def test_a_real_ctrl_c_to_a_real_process(tmp_path, dev):
    """At five random moments of a training: status 130, and a folder that is whole and loads."""
    seed = random.randrange(2**32)
    moments = random.Random(seed)
    for number in range(5):
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
        assert errors == "train.py: interrupted in digits-deep, which is kept as it is\n"
        assert [row["recipe"] for row in table(printed)] == ["digits-deep"]
        assert {entry.name for entry in out.iterdir()} == FILES | pictures()
        history = json.loads((out / "history.json").read_text())
        assert history["interrupted"]
        assert history["n_steps"] >= 1
        recipe = load_recipe(out / "recipe.toml")
        data = recipe.load_data()
        found = load_model(out / "model.safetensors", device=dev).predict(data.X_test)
        assert np.mean(found == data.y_test) == pytest.approx(history["test_accuracy"], abs=0.003)
    assert {entry.name for entry in tmp_path.iterdir()} == set("01234")


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


@pytest.mark.heavy
def test_the_same_data_are_loaded_once(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    loaded = []
    load = Recipe.load_data

    def watch(recipe, data_dir):
        loaded.append(recipe.name)
        return load(recipe, data_dir)

    monkeypatch.setattr(Recipe, "load_data", watch)
    few = ["--quiet", "--set", "training.epochs=1"]
    assert xpnet.cli.train(["digits-logistic", "digits-shallow", *few]) == 0
    assert loaded == ["digits-logistic"]


def test_one_table_serves_classes_and_numbers(tmp_path):
    """Its numbers are classes for one recipe and targets for the other."""
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "table.npz", X=rng.normal(size=(90, 3)), y=np.arange(90) % 3 + 5)
    both = ("data.dataset=table.npz", "data.standardise_target=false", "training.epochs=1")
    for name, changes in (
        ("classes", ("loss=softmax_cross_entropy", "network.layers.1.units=3")),
        ("numbers", ()),
    ):
        recipe = load_recipe("diabetes-shallow", changes=[*both, *changes])
        (tmp_path / f"{name}.toml").write_text(recipe.to_toml())
    done = run("classes.toml", "numbers.toml", "--quiet", "--out", "out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    histories = [
        json.loads((tmp_path / "out" / name / "history.json").read_text())
        for name in ("classes", "numbers")
    ]
    assert ["test_accuracy" in history for history in histories] == [True, False]
    assert histories[1]["cost"][0][1] > 10  # the mean of squares of numbers from 5 to 7


def test_what_does_not_fit_is_refused_before_anything_is_trained(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    recipe = load_recipe("digits-deep", changes=["network.layers.3.units=9"])
    Path("nine.toml").write_text(recipe.to_toml())
    assert xpnet.cli.train(["digits-logistic", "nine.toml"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("train.py: nine: network.layers.3 must have 10 outputs")
    assert [entry.name for entry in tmp_path.iterdir()] == ["nine.toml"]


def test_downloads_are_announced_unless_quiet(monkeypatch, capsys, tmp_path):
    def download(recipe, data_dir):
        del recipe, data_dir
        logging.getLogger("xpnet.data").info("downloading a file")
        raise DataError("none to be had")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Recipe, "load_data", download)
    for options, announced in (([], "downloading a file\n"), (["--quiet"], "")):
        assert xpnet.cli.train(options) == 2
        assert capsys.readouterr().out == announced


def test_a_message_is_one_line_whatever_was_typed(capsys):
    assert xpnet.cli.train(["--co\nlour\x1b[31m"]) == 2
    assert capsys.readouterr().err == (
        "train.py: unrecognized arguments: --co\\nlour\\x1b[31m; see train.py --help\n"
    )


def test_errors_that_nobody_reads_keep_their_status():
    command = f"'{TRAIN[0]}' '{TRAIN[1]}' nope 2>&1 | true; exit ${{PIPESTATUS[0]}}"
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("no bash here")
    assert subprocess.run([bash, "-c", command], check=False).returncode == 2


@pytest.mark.long
def test_a_recipe_named_twice_runs_once_and_two_of_one_name_twice(tmp_path):
    shown = run("--show", "digits-logistic", "--set", "training.epochs=2").stdout
    (tmp_path / "digits-logistic.toml").write_text(shown)
    done = run(
        *("digits-logistic", "digits-logistic.toml", "digits-logistic", "--quiet", "--out", "out"),
        *("--set", "training.epochs=2"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert len(table(done.stdout)) == 2
    assert {entry.name for entry in (tmp_path / "out").iterdir()} == {
        "digits-logistic",
        "digits-logistic-2",
    }


@pytest.mark.heavy
def test_a_diverging_run_is_status_1(tmp_path):
    (tmp_path / "far.toml").write_text(
        run("--show", "digits-deep", "--set", "optimizer.learning_rate=1e30").stdout
    )
    done = run("digits-logistic", "far.toml", "digits-shallow", "--quiet", cwd=tmp_path)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "far: loss or parameters were no longer finite at step" in done.stderr
    assert [row["recipe"] for row in table(done.stdout)] == ["digits-logistic"]
    (folder,) = (tmp_path / "runs").iterdir()
    assert re.fullmatch(r"digits-logistic-\d{8}-\d{6}", folder.name)


@pytest.mark.heavy
def test_a_test_image_beyond_all_measure(tmp_path, drawn):
    """The training is kept, with the pictures that can be drawn, in a history that is JSON."""
    rng = np.random.default_rng(0)
    X, y = rng.random((400, 4, 4)).astype(np.float32), np.arange(400) % 10
    X_test = X[:10].copy()
    X_test[0] = 3e38
    np.savez(tmp_path / "far.npz", X=X, y=y, X_test=X_test, y_test=y[:10])
    values = ("data.dataset=far.npz", "data.divide_by=1", "network.layers.0.init=ones")
    changes = [word for value in values for word in ("--set", value)]
    done = run("digits-logistic", *changes, "--out", "out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""

    def refuse(constant):
        raise AssertionError(constant)

    history = (tmp_path / "out" / "history.json").read_text()
    assert json.loads(history, parse_constant=refuse)["test_cost"] is None
    assert {entry.name for entry in (tmp_path / "out").iterdir()} == FILES | curves()
    quiet = run("digits-logistic", *changes, "--quiet", "--out", "quiet", cwd=tmp_path)
    assert quiet.returncode == 0
    assert len(quiet.stderr.splitlines()) == (2 if drawn else 0)
    if drawn:
        assert quiet.stderr.startswith("train.py: digits-logistic: no mistakes.png: ValueError(")
        assert "\n  no mistakes.png: ValueError('X is too large for the netw" in done.stdout
        assert "\n  no confusion.png: ValueError(" in done.stdout


def test_ctrl_c_keeps_what_was_reached(monkeypatch, capsys, tmp_path):
    def interrupt(progress, report):
        del progress
        if report.epoch == 10:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Progress, "__call__", interrupt)
    status = xpnet.cli.train(["digits-logistic", "digits-deep", "--out", str(tmp_path / "out")])
    printed = capsys.readouterr()
    assert status == 130
    assert "interrupted in digits-logistic, which is kept" in printed.err
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
            "train.py: interrupted twice in digits-logistic, of which nothing is kept\n"
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
        f"train.py: interrupted twice in digits-logistic, which is kept in {out}\n"
    )
    assert load_model(out).network.n_features == 64


def test_without_the_packages_that_save(monkeypatch, tmp_path, capsys):
    for package in ("tomli_w", "safetensors"):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, package, None)
            assert xpnet.cli.train(["digits-logistic", "--out", str(tmp_path / "out")]) == 2
        printed = capsys.readouterr()
        assert printed.out == ""
        assert f"saving a run needs {package}, which cannot be imported" in printed.err
        assert printed.err.endswith(f"type: pip install {package}\n")


@pytest.mark.heavy
def test_each_kind_of_score_has_a_table(tmp_path, drawn):
    names = ("digits-logistic", "diabetes-shallow")
    done = run(*names, "--out", "out", "--set", "training.epochs=6", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert any(re.search(r"epoch 6/6 .* validation R2 -?\d\.\d{4} ", line) for line in lines)
    headers = [number - 1 for number, line in enumerate(lines) if line.startswith("----")]
    columns = [re.split("  +", lines[number]) for number in headers]
    assert {"train", "test", "majority"} <= set(columns[0])
    expected = "recipe,device,parameters,cost,R2 train,R2 test,samples/s,seconds"
    assert columns[1] == expected.split(",")
    (row,) = table(done.stdout.replace("R2 t", "R2-t"))
    history = json.loads((tmp_path / "out" / "diabetes-shallow" / "history.json").read_text())
    assert float(row["R2-train"]) == round(history["train_R2"], 4)
    assert float(row["R2-test"]) == round(history["test_R2"], 4)
    assert not any("accuracy" in key for key in (*history, *history["reports"][0]))
    of_numbers = {"curves.png", "predictions.png"} if drawn else set()
    files = {entry.name for entry in (tmp_path / "out" / "diabetes-shallow").iterdir()}
    assert files == FILES | of_numbers


# ---- predict


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A model of three kinds of points, trained from a .csv file of one's own."""
    folder = tmp_path_factory.mktemp("trained")
    rng = np.random.default_rng(0)
    kinds = ("café", "snow \N{SNOWMAN}", "tea")
    lines = ["x,kind,y"]
    for _ in range(60):
        k = rng.integers(3)
        x, y = rng.normal([[0, 5], [5, 0], [-5, -5]][k], 0.5)
        lines.append(f"{x:.3f},{kinds[k]},{y:.3f}")
    (folder / "points.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    done = run(
        *("digits-shallow", "--set", "data.dataset=points.csv", "--target", "kind", "--quiet"),
        *("--set", "network.layers.1.units=3", "--set", "data.divide_by=1", "--out", "run"),
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr
    return folder


def test_predict_prints_a_label_for_each_sample(trained):
    done = run(
        *("predict", "run", "points.csv"),
        command=xpnet.cli.main,
        cwd=trained,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "label,probability"
    given = [
        line.split(",")[1] for line in (trained / "points.csv").read_text("utf-8").splitlines()
    ]
    assert [line.split(",")[0] for line in lines[1:]] == given[1:]
    assert all(0.5 < float(line.split(",")[1]) <= 1 for line in lines[1:])


def test_predict_into_a_file(trained, tmp_path):
    out = tmp_path / "labels.csv"
    done = run(
        *("predict", "run/model.safetensors", "points.csv", "--out", out, "--target", "kind"),
        command=xpnet.cli.main,
        cwd=trained,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == (
        f"60 labels in {out}; 60 of them equal the data's own (accuracy 1.0000)\n"
    )
    assert len(out.read_text("utf-8").splitlines()) == 61
    (tmp_path / "more.csv").write_text("y,x,note\n5,0,none\n")  # columns are found by name
    done = run(
        "predict", trained / "run", tmp_path / "more.csv", "--out", out, command=xpnet.cli.main
    )
    assert done.stdout == f"1 label in {out}\n"
    assert out.read_text("utf-8").splitlines()[1].startswith("café,")


def test_labels_that_the_encoding_lacks(trained):
    done = run(
        "predict", "run", "points.csv", command=xpnet.cli.main, cwd=trained, encoding="ascii"
    )
    assert done.returncode == 0, done.stderr
    assert "caf\\xe9," in done.stdout
    assert "snow \\u2603," in done.stdout


def test_predict_into_standard_output_by_name(trained, tmp_path):
    if not Path("/dev/stdout").exists():
        pytest.skip("no /dev/stdout here")
    command = f"'{sys.executable}' -m xpnet predict run points.csv --target kind --out /dev/stdout"
    done = shell(f"{command} > '{tmp_path}/labels.csv'", cwd=trained)
    assert done.returncode == 0, done.stderr
    lines = (tmp_path / "labels.csv").read_text("utf-8").splitlines()
    assert lines[0] == "label,probability"
    assert len(lines) == 61


@pytest.mark.heavy
def test_predict_named_data(tmp_path):
    done = run("digits-logistic", "--quiet", "--out", "run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    done = run(
        "predict", "run", "digits", "--out", "labels.csv", command=xpnet.cli.main, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("1797 labels in labels.csv; 17")
    assert done.stdout.endswith(", training samples included)\n")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["predict"], "the following arguments are required: MODEL, DATA"),
        (["predict", "none", "points.csv"], "cannot read the model none: there is no such file"),
        (["predict", ".", "points.csv"], "model .: there is no such file, nor a folder that"),
        (["predict", "points.csv", "points.csv"], "points.csv is not a whole safetensors file"),
        (["predict", "run", "none.csv"], "none.csv"),
        (["predict", "run", "few.csv"], "y"),
        (
            ["predict", "run", "wide.npz"],
            "wide.npz does not fit the model: X must have shape (n_sam",
        ),
        (["predict", "run", "moons"], "moons are drawn anew each time, not stored: a file is ne"),
        (["predict", "run", "huge.npz"], "got inf for 1e+300 in feature 0"),
        (
            ["predict", "run", "points.csv", "--out", "no/labels.csv"],
            "--out: cannot write no/labels",
        ),
        (["predict", "run", "points.csv", "--device", "gpu"], "device must be 'cpu'"),
        (["predict", "run", "points.csv", "--target", "none"], "none"),
        (["predict", "run", "wide.npz", "--target", "y"], "the target 'y' is only for .csv files"),
    ],
)
def test_predict_refuses_in_one_line(trained, arguments, said):
    (trained / "few.csv").write_text("x\n1\n")
    np.savez(trained / "wide.npz", X=np.zeros((2, 3)))
    np.savez(trained / "huge.npz", X=np.full((2, 2), 1e300))
    done = run(*arguments, command=xpnet.cli.main, cwd=trained)
    is_one_line_of_status_2(done)
    assert said in done.stderr
    assert not (trained / "no").exists()


def predicted(capsys, *arguments):
    """Predict in this process."""
    assert xpnet.cli.main(["predict", *map(str, arguments)]) == 0
    return capsys.readouterr().out


def test_samples_to_be_tested_come_before_those_to_be_trained_with(trained, tmp_path, capsys):
    X = np.array([[0, 5], [5, 0], [-5, -5]])
    np.savez(tmp_path / "both.npz", X=X, X_test=X[:2])
    assert len(predicted(capsys, trained / "run", tmp_path / "both.npz").splitlines()) == 1 + 2


def test_labels_are_compared_by_name_or_by_number(trained, tmp_path, capsys):
    X = np.array([[0, 5], [5, 0], [-5, -5]])
    names = np.array(["caf\xe9", "snow \N{SNOWMAN}", "tea"])

    def score(**labels):
        np.savez(tmp_path / "a.npz", X=X, **labels)
        out = tmp_path / "labels.csv"
        return predicted(capsys, trained / "run", tmp_path / "a.npz", "--out", out).partition("; ")[
            2
        ]

    right = "3 of them equal the data's own (accuracy 1.0000)\n"
    assert score(y=names) == right
    assert score(y=[0, 1, 2]) == right
    assert score(y=[0, 1, 2], class_names=names) == right
    assert score(y=[2, 0, 1], class_names=names[[1, 2, 0]]) == right
    assert score(y=[0, 1, 2], class_names=["coffee", "snow", "leaves"]) == right
    assert score(y=["tea", "milk", "tea"]).startswith("1 of them equal")
    assert score(y=["a", "b", "c"]) == "none of the data's own labels is a class of the model\n"
    assert score(y=[0, 1, 3]) == "none of the data's own labels is a class of the model\n"


def test_a_target_of_any_characters(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    target = 'a "cat" \N{CAT FACE} \x7f'
    rows = "".join(f"{k % 2},{k % 5},a\u2028{k % 2}\n" for k in range(60))
    header = ",".join(('"' + name.replace('"', '""') + '"') for name in ("u", "v", target))
    (tmp_path / "a.csv").write_text(f"{header}\n{rows}", encoding="utf-8")
    values = ("data.dataset=a.csv", "data.divide_by=1", "network.layers.1.units=2")
    changes = [word for value in values for word in ("--set", value)]
    arguments = ["digits-shallow", *changes, "--target", target, "--quiet", "--out", "run"]
    assert xpnet.cli.train(arguments) == 0
    assert json.loads((tmp_path / "run" / "history.json").read_text())["test_accuracy"] == 1
    capsys.readouterr()
    printed = predicted(capsys, "run", "a.csv")
    predicted(capsys, "run", "a.csv", "--out", "labels.csv")
    assert printed == (tmp_path / "labels.csv").read_text("utf-8")  # U+2028 ends no line of CSV


@pytest.mark.heavy
def test_the_file_that_was_named_is_what_is_predicted(tmp_path, capsys):
    X = np.random.default_rng(0).integers(0, 256, (12, 8, 8)).astype(np.uint8)
    for name, n in (("train", 12), ("t10k", 5)):
        head = bytes((0, 0, 8, 3)) + struct.pack(">3I", n, 8, 8)
        (tmp_path / f"{name}-images-idx3-ubyte").write_bytes(head + X[:n].tobytes())
    assert xpnet.cli.train(["digits-logistic", "--quiet", "--out", str(tmp_path / "run")]) == 0
    capsys.readouterr()
    for name, n in (("train", 12), ("t10k", 5)):
        found = predicted(capsys, tmp_path / "run", tmp_path / f"{name}-images-idx3-ubyte")
        assert len(found.splitlines()) == n + 1
    np.savez(tmp_path / "wide.npz", X=X.reshape(12, 4, 16))
    np.savez(tmp_path / "flat.npz", X=X.reshape(12, 64))
    assert len(predicted(capsys, tmp_path / "run", tmp_path / "flat.npz").splitlines()) == 13
    assert xpnet.cli.main(["predict", str(tmp_path / "run"), str(tmp_path / "wide.npz")]) == 2
    assert "X must have shape (n_samples, 64), got (12, 4, 16)" in capsys.readouterr().err


def test_numbers_of_ones_own(tmp_path, capsys, monkeypatch):
    """A price by area and age; how reliable a sale is, is no feature."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    area, age, trust = rng.uniform(50, 200, 300), rng.uniform(0, 80, 300), rng.uniform(0, 1, 300)
    price = 3000 * area - 2000 * age
    sales = np.stack([area, trust, price, age], axis=1)
    np.savetxt("sales.csv", sales, "%.8g", ",", header="area,trust,price,age", comments="")
    changes = ("data.dataset=sales.csv", "data.sample_weight=trust", "training.epochs=150")
    arguments = [word for change in changes for word in ("--set", change)]
    arguments += ["--target", "price", "--quiet", "--out", "run"]
    assert xpnet.cli.train(["diabetes-shallow", *arguments]) == 0
    assert load_model("run").feature_names == ("area", "age")
    capsys.readouterr()
    printed = predicted(capsys, "run", "sales.csv")
    said = predicted(capsys, "run", "sales.csv", "--out", "prices.csv", "--target", "price")
    assert printed == Path("prices.csv").read_text()
    lines = printed.splitlines()
    assert lines[0] == "prediction"
    found = np.array(lines[1:], dtype=float)
    R2 = 1 - ((found - price) ** 2).mean() / price.var()
    assert R2 > 0.9
    assert said == f"300 predictions in prices.csv; R2 {R2:.4f} beside the data's own\n"
    Path("one.csv").write_text("age,area\n10,100\n")
    assert predicted(capsys, "run", "one.csv", "--out", "a") == "1 prediction in a\n"
    assert abs(float(Path("a").read_text().split()[1]) - 280_000) < 50_000
    Path("sales.csv").write_text("area,trust,price,age\n1,1,1,1\n1,-1,1,1\n")
    assert xpnet.cli.train(["diabetes-shallow", *arguments[:-2]]) == 2
    error = "line 3, column trust: a weight of at least 0 expected, got '-1'\n"
    assert capsys.readouterr().err.endswith(error)


def test_several_numbers(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    X = np.random.default_rng(0).normal(size=(60, 3))
    np.savez("two.npz", X=X, y=X[:, :2] - 5)
    changes = ("data.dataset=two.npz", "network.layers.1.units=2", "training.epochs=1")
    arguments = [word for change in changes for word in ("--set", change)]
    assert xpnet.cli.train(["diabetes-shallow", *arguments, "--quiet", "--out", "run"]) == 0
    capsys.readouterr()
    lines = predicted(capsys, "run", "two.npz").splitlines()
    assert lines[0] == "prediction 0,prediction 1"
    found = np.array([line.split(",") for line in lines[1:]], dtype=float)
    np.testing.assert_allclose(found, load_model("run").predict(X), rtol=1e-8)
    np.savez("one.npz", X=X, y=X[:, 0])
    said = predicted(capsys, "run", "one.npz", "--out", "a")
    assert said == "60 predictions in a; the data's own numbers are not as many as the model's\n"
    for data, error in (
        ("digits", "digits holds classes to be predicted, not numbers: it goes with a loss for cl"),
        ("wide.npz", r"wide.npz does not fit the model: X must have shape \(n_samples, 3\), got"),
        ("text.npz", "text.npz: y must hold numbers to be predicted, got dtype <U1"),
    ):
        np.savez("wide.npz", X=X[:, :2])
        np.savez("text.npz", X=X, y=["a"] * 60)
        assert xpnet.cli.main(["predict", "run", data]) == 2
        assert re.search(error, capsys.readouterr().err)


def test_what_writing_and_reading_need(monkeypatch, capsys, trained):
    for package, arguments in (
        ("tomli_w", ["train", "--show", "digits-deep"]),
        ("safetensors", ["predict", str(trained / "run"), "digits"]),
    ):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, package, None)
            assert xpnet.cli.main(arguments) == 2
        assert f"needs {package}, which cannot be imported" in capsys.readouterr().err


def test_a_damaged_model_is_refused_in_one_line(trained, tmp_path):
    whole = (trained / "run" / "model.safetensors").read_bytes()
    for damaged in (whole[:-1], whole[:-1] + bytes([whole[-1] ^ 1]), b""):
        (tmp_path / "model").write_bytes(damaged)
        done = run("predict", tmp_path / "model", "points.csv", command=xpnet.cli.main, cwd=trained)
        is_one_line_of_status_2(done)
        assert str(tmp_path / "model") in done.stderr
