"""What the command that trains refuses, and what it says where it cannot write or save."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import xpnet.cli
from tests import devices
from tests.cli.commands import (
    FILES,
    POINTS,
    TRAIN,
    curves,
    is_one_line_of_status_2,
    run,
    shell,
    table,
)
from tests.conftest import slow
from xpnet.recipe import load_recipe

pytestmark = [
    pytest.mark.needs("rich", "safetensors", "sklearn", "tomli_w"),
    pytest.mark.usefixtures("few_pictures"),
]


@pytest.fixture
def no_gpu(dev):
    if dev.index is not None:
        pytest.skip("this machine has a GPU")


@pytest.mark.parametrize("arguments", ["--list", "--show digits-deep", "--help"])
def test_what_cannot_be_printed_is_said_once(arguments):
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    for command in (f"'{TRAIN[0]}' '{TRAIN[1]}'", f"'{sys.executable}' -m xpnet train"):
        done = shell(f"{command} {arguments} > /dev/full")
        is_one_line_of_status_2(done)
        assert "cannot write the output: No space left" in done.stderr


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
            "unknown recipe 'digits-depe'; did you mean 'digits-deep'?",
        ),
        (["none.toml"], {}, "cannot read the recipe none.toml: No such file"),
        (["."], {}, "unknown recipe '.'"),
        (["cats-deep", "--set", "data.dataset=moon"], {}, "did you mean 'moons'?"),
        (["cats-deep", "--set", "data.dataset=a.npz"], {}, "a.npz"),
        (["digits-deep", "--out", os.devnull], {}, "--out: cannot make the folder"),
        (["digits-deep", "--out", ""], {}, "--out must name a folder, got an empty string"),
        (
            ["digits-deep", "--data-dir", "none"],
            {},
            "data_dir must be an existing folder, got 'non",
        ),
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
        (
            ["digits-deep", "--set", "loss=mean_squared_error"],
            {},
            "digits is a classification data",
        ),
        (
            ["digits-deep", "--set", "data.dataset=diabetes"],
            {},
            "diabetes is a regression data set",
        ),
        (
            ["diabetes-shallow", "--set", "loss=softmax_cross_entropy"],
            {},
            "data.standardise_target must be false with a classification loss, got True",
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
            "learning_rate=1e-300 is 0 in float32: choose a value between",
        ),
        (["--colour"], {}, "unrecognized arguments: --colour; see train.py --help"),
        (["--data-dir", "a" * 300], {}, "': File name too long"),
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
    assert "it exists and is not an empty folder" in done.stderr
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


def test_what_does_not_fit_is_refused_before_anything_is_trained(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    recipe = load_recipe("digits-deep", changes=["network.layers.3.units=9"])
    Path("nine.toml").write_text(recipe.to_toml())
    assert xpnet.cli.train(["digits-logistic", "nine.toml"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("train.py: nine: network.layers.3 must have 10 outputs")
    assert [entry.name for entry in tmp_path.iterdir()] == ["nine.toml"]


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


@pytest.mark.parametrize(
    ("module", "package"),
    [
        ("rich", "rich"),
        ("safetensors", "safetensors"),
        ("sklearn", "scikit-learn"),
        ("tomli_w", "tomli-w"),
    ],
)
def test_a_missing_core_package_is_refused_before_the_work(
    monkeypatch, tmp_path, capsys, module, package
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, module, None)
    assert xpnet.cli.train(["digits-logistic"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == (
        f"train.py: xpnet needs {package}, not installed here; type: pip install {package}\n"
    )
    assert not list(tmp_path.iterdir())


def test_a_core_package_that_is_damaged(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    for name in [name for name in sys.modules if name.partition(".")[0] == "sklearn"]:
        monkeypatch.delitem(sys.modules, name)
    (tmp_path / "sklearn").mkdir()
    (tmp_path / "sklearn" / "__init__.py").write_text("raise ImportError('no libgomp.so:\\n lost')")
    monkeypatch.syspath_prepend(tmp_path)
    assert xpnet.cli.train(["digits-logistic"]) == 2
    assert capsys.readouterr().err == (
        "train.py: xpnet needs scikit-learn, which cannot be imported (no libgomp.so: lost); type: "
        "pip install --force-reinstall scikit-learn\n"
    )


def test_another_import_that_fails_is_no_mistake_of_the_user(monkeypatch):
    monkeypatch.setattr(xpnet.cli.training, "load_recipe", lambda *_, **__: __import__("nowhere"))
    with pytest.raises(ModuleNotFoundError, match="nowhere"):
        xpnet.cli.train(["digits-logistic"])
