"""The command that trains, as a person meets it: what it prints and writes."""

from __future__ import annotations

import json
import logging
import re
import shlex
import time
import warnings
from pathlib import Path

import numpy as np
import pytest

import xpnet.cli
from tests.cli.commands import (
    FILES,
    TRAIN,
    XPNET,
    curves,
    is_one_line_of_status_2,
    run,
    run_process,
    table,
)
from tests.conftest import ROOT
from xpnet.cli import _EPILOG, prediction, search, training
from xpnet.data import DataError
from xpnet.recipe import Recipe, Result, load_recipe, recipe_names
from xpnet.training import load_model

pytestmark = [
    pytest.mark.needs("rich", "safetensors", "sklearn", "tomli_w"),
    pytest.mark.usefixtures("few_pictures"),
]


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

    few, built = ["digits-logistic", "--quiet", "--set", "training.epochs=1"], []
    build = Recipe.build

    def count(*arguments):
        built.append(arguments)
        return build(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Recipe, "run", run_beside_another)
        patch.setattr(Recipe, "build", count)
        assert xpnet.cli.train(few) == 0
    assert len(built) == 1
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


def test_help():
    done = run("train", "--help", command=xpnet.cli.main)
    assert done.returncode == 0
    assert done.stdout.startswith("usage: xpnet train [-h]")
    assert "--data-dir DIR" in done.stdout


def test_the_help_names_commands_examples_variables_and_pages():
    shown = run("--help", command=xpnet.cli.main, COLUMNS="80").stdout
    assert max(map(len, shown.splitlines())) <= 80
    assert all(f"\n    {name} " in shown for name in ("train", "predict", "search"))
    source = "".join(path.read_text(encoding="utf-8") for path in ROOT.glob("[kx]*/**/*.py"))
    read = set(re.findall("XPNET_[A-Z_]*[A-Z]", source))
    assert set(re.findall(r"^  (XPNET_\w+) ", shown, re.MULTILINE)) == read
    pages = (ROOT / "docs").glob("*.md")
    titles = {page.read_text(encoding="utf-8").splitlines()[0][2:] for page in pages}
    named = re.findall('"([A-Z].*?)"', " ".join(shown.split("To read on")[1].split()))
    assert len(named) == 4
    assert titles.issuperset(named)


@pytest.mark.parametrize("example", re.findall("^  (xpnet .+?)  ", _EPILOG, re.MULTILINE))
def test_the_examples_of_the_help_are_understood(monkeypatch, example):
    """Everything up to the work is done."""
    seen = []

    def work(options, ctrl_c):
        del ctrl_c
        seen.append(options)
        return 0

    for module in (prediction, search, training):
        monkeypatch.setattr(module, "work", work)
    assert xpnet.cli.main(shlex.split(example)[1:]) == 0
    assert len(seen) == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["trian"],
            "unknown command 'trian'; did you mean 'train'? Commands: train, predict, sear",
        ),
        (["dance"], "unknown command 'dance'; commands: train, predict, search"),
        (["digits-deep"], "'digits-deep' is a recipe, not a command; to train it, type: xpnet tra"),
        (["mine.toml"], "type: xpnet train mine.toml"),
        (["train", "--trget=y"], "unrecognized arguments: --trget=y; did you mean --target? See x"),
    ],
)
def test_an_unknown_word_gets_the_nearest_one(words, said):
    done = run(*words, command=xpnet.cli.main)
    is_one_line_of_status_2(done)
    assert said in done.stderr


def test_a_data_file_in_place_of_a_recipe_gets_commands_that_work(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    rows = "".join(f"{k % 3},{k % 5},{k % 3}\n" for k in range(60))
    Path("my data.csv").write_text(f"a,b,the kind\n{rows}")
    said = run("train", "my data.csv", "--target", "the kind", command=xpnet.cli.main).stderr
    assert said.startswith("xpnet: my data.csv is a data file, not a recipe; for N classes type: ")
    found = re.findall(r"xpnet train (.+?)(?:;|$)", said)
    assert len(found) == 2
    for number, command in enumerate(found):
        words = shlex.split(command.replace("units=N", "units=3").strip())
        words += ["--quiet", "--out", f"run{number}", "--set", "training.epochs=1"]
        done = run("train", *words, command=xpnet.cli.main)
        assert done.returncode == 0, done.stderr
    said = run("train", "a.csv", command=xpnet.cli.main).stderr
    assert said.startswith("xpnet: a.csv (not found here) is a data file")
    assert "--target COLUMN" in said
    said = run("train", "it's.csv.gz", command=xpnet.cli.main).stderr
    assert said == """xpnet: it's.csv.gz is compressed; type: gunzip 'it'"'"'s.csv.gz'\n"""


def test_the_list():
    done = run("--list")
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines] == recipe_names()
    assert lines[0] == (
        "cats-deep           Cat or not: four layers, weights scaled by 1 / sqrt(fan_in), as in "
        "week 4 of the course"
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
    is_one_line_of_status_2(run(command=xpnet.cli.main))
    done = run("train", "--colour", command=xpnet.cli.main)
    assert done.stderr == "xpnet: unrecognized arguments: --colour; see xpnet train --help\n"
    done = run("--version", command=xpnet.cli.main)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"xpnet {xpnet.__version__}\n", "")


def test_warnings_that_are_not_of_pictures_pass(monkeypatch, tmp_path):
    def warn(result, folder, on_problem):
        del result, folder, on_problem
        warnings.warn("of something else", UserWarning, stacklevel=1)

    monkeypatch.setattr(Result, "save", warn)
    few = ["digits-logistic", "--set", "training.epochs=1", "--out", str(tmp_path / "out")]
    with pytest.warns(UserWarning, match="of something else"):
        assert xpnet.cli.train(few) == 0


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


def test_downloads_are_announced_unless_quiet(monkeypatch, capsys, tmp_path):
    def download(recipe, data_dir):
        del recipe, data_dir
        logging.getLogger("xpnet.data").info("downloading a file")
        raise DataError("no connection")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Recipe, "load_data", download)
    for options, announced in (([], "downloading a file\n"), (["--quiet"], "")):
        assert xpnet.cli.train(options) == 2
        assert capsys.readouterr().out == announced


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
