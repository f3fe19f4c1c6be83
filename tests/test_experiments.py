"""The experiments, in their short form, and the command that carries them out."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")

import bench.experiments.__main__ as main_module
from bench.experiments import (
    batch_norm,
    best,
    cats,
    circles,
    fashion,
    glorot,
    moons,
    running,
    search,
)
from bench.experiments.catalogue import EXPERIMENTS
from bench.experiments.fashion import SHORT
from bench.experiments.page import Done, page
from tests import devices
from tests.conftest import ROOT
from xpnet.data import DataError
from xpnet.recipe import Recipe, load_recipe
from xpnet.training import DivergenceError

pytestmark = pytest.mark.host

PNG = b"\x89PNG\r\n"


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_the_short_form(name, tmp_path, monkeypatch):
    """Every run, the section and the page."""
    beside = ROOT.parent / "shared" / "data"
    if not os.environ.get("XPNET_DATA_DIR") and beside.is_dir():
        monkeypatch.setenv("XPNET_DATA_DIR", str(beside))
    if name == "search":
        pytest.importorskip("optuna")
    experiment = EXPERIMENTS[name]
    runs = running.runs_of(experiment, tmp_path, is_short=True)
    assert len({run.file for run in runs}) == len(runs)
    kept = {}
    for run in runs:
        try:
            running.run_here(run)
        except DataError as error:
            pytest.skip(str(error))
        found = running.outcome(run)  # as JSON gives it back
        assert found is not None
        kept[run.key] = found
    section = experiment.section({key: found["result"] for key, found in kept.items()})
    text = page([Done(experiment, section, "", list(kept.values()))], is_short=True)
    assert "nan" not in re.sub("[^a-z]", " ", text).split()
    assert experiment.claimed in text
    assert section.came_out in text
    assert f"python -m bench.experiments {name}" in text
    shown = set(re.findall(r"!\[[^]]+\]\(([^)]+)\)", text))
    assert shown == set(section.pictures)
    own = section.own_pictures  # which may not be published
    assert not set(own) & shown
    assert all(picture.startswith(PNG) for picture in {**section.pictures, **own}.values())
    (anchor,) = re.findall(r"\]\(#([^)]+)\)", text)
    headings = re.findall("^## (.+)$", text, re.MULTILINE)
    assert anchor in [re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in headings]


def test_full_runs_are_recipes_that_exist():
    """What takes minutes is at least well formed: every run's settings resolve."""
    for experiment in EXPERIMENTS.values():
        full, short = experiment.runs(False), experiment.runs(True)
        assert json.loads(json.dumps(full)) == full
        assert len(short) <= len(full)
    changes = [
        change
        for run in EXPERIMENTS["cats"].runs(False).values()
        for change in run.get("changes", [])
    ]
    load_recipe("cats-deep", changes=[c for c in changes if "{" not in c])
    assert load_recipe(best.NAME).values["data"]["dataset"] == "fashion-mnist"


@pytest.mark.slow
@pytest.mark.parametrize("activation", ["tanh", "softsign", "sigmoid"])
@pytest.mark.parametrize("init", glorot.INITS)
def test_variances_keep_to_glorots_equations(activation, init):
    """Five hidden layers of 1000, pixels of handwritten digits."""
    found = glorot.signals(activation, init, 1, list(SHORT))
    expected = glorot.predicted(activation, init, 64, found["input"])
    # Softsign is a line at 0 alone, and bends sooner where activations are larger.
    rtol = {"softsign": 0.5 if init == "standard" else 1.0}.get(activation, 0.25)
    np.testing.assert_allclose(
        glorot.factors(found["gradients"]), glorot.factors(expected["gradients"]), rtol=rtol
    )
    first = found["activations"][0] / expected["activations"][0]
    assert 0.3 < first < 1.05
    of_layers = np.divide(found["activations"][1:], found["activations"][:-1])
    predicted = np.divide(expected["activations"][1:], expected["activations"][:-1])
    np.testing.assert_allclose(of_layers, predicted, rtol=rtol)
    if activation == "tanh" and init == "normalised":
        assert found["gradients"][-1] / found["gradients"][0] < 2.5
    if activation == "tanh" and init == "standard":
        assert max(found["weights"]) / min(found["weights"]) < 1.3


def command(*arguments, cwd=ROOT, **more):
    return subprocess.Popen(
        [sys.executable, "-m", "bench.experiments", *arguments],
        cwd=cwd,
        env=devices.environment(**more),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def said(process):
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


@pytest.mark.slow
def test_what_is_there_is_not_repeated(tmp_path, monkeypatch):
    kept = ["--kept", str(tmp_path)]
    published = ROOT / "bench" / "results" / "experiments" / "README.md"
    before = published.read_bytes()
    status, out, err = said(command("circles", "--short", *kept))
    assert (status, err) == (0, "")
    assert "circles: 0 of 3 runs are done already" in out
    assert f"written: {tmp_path / 'README.md'}" in out
    assert published.read_bytes() == before  # it waits until there is everything for it
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "zeros 0.500" in text
    assert "not available: 8 of 8 runs are missing" in text  # football was not asked for
    file = tmp_path / "circles" / "he.json"
    written = file.stat().st_mtime_ns
    (tmp_path / "circles" / "zeros.json").write_text('{"arguments": {"epochs": 3')
    status, out, err = said(command("circles", "--short", *kept))
    assert (status, err) == (0, "")
    assert "circles: 2 of 3 runs are done already" in out
    assert file.stat().st_mtime_ns == written

    asked: list[running.Run] = []

    def carry_out(runs, _say):
        asked.extend(runs)
        return {}

    monkeypatch.setattr(main_module, "carry_out", carry_out)
    for again, n_runs in ((False, 0), (True, 3)):
        asked.clear()
        main_module._carry_out(circles.EXPERIMENT, tmp_path, again, True)
        assert len(asked) == n_runs


def test_other_arguments_are_another_run(tmp_path):
    run = running.runs_of(circles.EXPERIMENT, tmp_path, is_short=True)[0]
    running.run_here(run)
    kept = running.outcome(run)
    assert kept is not None
    assert kept["result"]["train"] == 0.5
    other = dataclasses.replace(run, arguments={**run.arguments, "epochs": 21})
    assert running.outcome(other) is None


@pytest.mark.slow
def test_missing_data_are_named(tmp_path):
    pytest.importorskip("scipy.io")
    (tmp_path / "data").mkdir()
    folders = ["--kept", str(tmp_path / "kept"), "--out", str(tmp_path / "page")]
    status, out, err = said(
        command("football", "--short", *folders, XPNET_DATA_DIR=str(tmp_path / "data"))
    )
    assert status == 1
    assert "football, none: football.mat is missing: put the file" in err
    assert "Traceback" not in err + out
    text = (tmp_path / "page" / "README.md").read_text(encoding="utf-8")
    assert "8 of 8 runs are missing; football.mat is missing" in text


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="signals are POSIX's")
def test_ctrl_c_keeps_what_has_ended(tmp_path):
    folders = ["--kept", str(tmp_path / "kept"), "--out", str(tmp_path / "page")]
    process = command("moons", *folders)
    folder = tmp_path / "kept" / "moons"
    began = time.monotonic()
    while not list(folder.glob("*.json")) and time.monotonic() - began < 60:
        time.sleep(0.05)
    assert of_folder(folder.parent)
    process.send_signal(signal.SIGINT)
    status, _, err = said(process)
    assert status == 130, err
    assert not of_folder(folder.parent)  # runs end with their command
    assert err == "stopped; run the same command to resume\n"
    kept = list(folder.glob("*.json"))
    assert kept
    assert len(kept) < 9
    assert all(json.loads(file.read_text())["result"]["accuracy"] > 0.5 for file in kept)
    assert f"{9 - len(kept)} of 9 runs are missing" in (tmp_path / "page" / "README.md").read_text(
        encoding="utf-8"
    )


def test_wrong_arguments_are_one_line(tmp_path):
    status, _, err = said(command("nonsense"))
    assert status == 2
    assert "nonsense" in err
    (tmp_path / "file").write_text("")
    status, _, err = said(command("circles", "--short", "--out", str(tmp_path / "file" / "page")))
    assert status == 2
    assert err.startswith("--out: cannot write into")


def test_the_page_in_the_repository_has_all_of_them():
    folder = ROOT / "bench" / "results" / "experiments"
    text = (folder / "README.md").read_text(encoding="utf-8")
    for experiment in EXPERIMENTS.values():
        assert f"## {experiment.title}\n\n- **Claimed:** {experiment.claimed}" in text
    assert "not available" not in text
    assert "short form" not in text
    for picture in re.findall(r"!\[[^]]+\]\(([^)]+)\)", text):
        assert (folder / picture).read_bytes().startswith(PNG)


def test_a_part_of_the_samples_has_all_classes():
    recipe = fashion.recipe("dropout", SHORT)
    data = fashion.load_data(recipe)
    first, second = (fashion.part(data, 100, seed) for seed in (0, 1))
    for part in (first, second):
        assert np.bincount(part.y_train).tolist() == [10] * 10
        assert len(part.X_train) == 100
        assert part.X_test is data.X_test
    assert not np.array_equal(first.X_train, second.X_train)


def resolved(name):
    """What the full form of an experiment runs, as recipes."""
    experiment = EXPERIMENTS[name]
    named = experiment.recipes[-1]
    file = ROOT / named if named.endswith(".toml") else named
    runs = {
        key: arguments["changes"]
        for key, arguments in experiment.runs(False).items()
        if "changes" in arguments
    }
    return {key: load_recipe(file, changes=changes).values for key, changes in runs.items()}


def test_what_the_cats_tools_are():
    runs = resolved("cats")
    assert len(runs) == 24
    plain = runs["none, seeds 0 to 4"]
    for tool, (table, key) in {
        "L2": ("training", "l2"),
        "dropout": ("network", "layers"),
        "augmentation": ("training", "augmentation"),
        "standardised pixels": ("data", "normalise"),
        "each image standardised": ("data", "normalise"),
    }.items():
        own = runs[f"{tool}, seeds 5 to 9"]
        assert own[table][key] != plain[table][key]
    dropping = runs["dropout, seeds 0 to 4"]["network"]["layers"]
    assert [kind(layer) for layer in dropping].count("dropout") == 1


def test_what_dropout_is_tried_with():
    runs = resolved("dropout")
    rates = {key: [v["network"]["layers"][n]["rate"] for n in (0, 2, 4)] for key, v in runs.items()}
    limits = {key: v["network"]["layers"][1].get("max_norm") for key, v in runs.items()}
    assert rates["none, 60000 samples, seeds 2"] == [0, 0, 0]
    assert rates["dropout, 100 samples, seeds 0 1 2"] == [0, 0.2, 0.2]
    assert rates["the paper's rates, 60000 samples, seeds 0"] == [0.2, 0.5, 0.5]
    assert limits["dropout, 100 samples, seeds 0 1 2"] is None
    assert limits["dropout, max-norm, 500 samples, seeds 0 1 2"] == 1.5


@pytest.mark.parametrize("activation", ["sigmoid", "relu"])
def test_what_batch_norm_is_tried_with(activation):
    layers = {
        normalised: load_recipe(
            ROOT / "bench" / "experiments" / "batch_norm.toml",
            changes=[f"network.layers={batch_norm._layers(activation, normalised, 100)}"],
        ).values["network"]["layers"]
        for normalised in (False, True)
    }
    assert [kind(layer) for layer in layers[False]] == ["dense"] * 4
    assert [layer["activation"] for layer in layers[False]] == [activation] * 3 + ["identity"]
    hidden = ["dense", "batch_norm", activation]
    assert [kind(layer) for layer in layers[True]] == [*hidden * 3, "dense"]


def kind(layer):
    return layer if isinstance(layer, str) else layer["type"]


def test_moons_decay_is_a_schedule():
    runs = EXPERIMENTS["moons"].runs(False)
    assert {key for key, run in runs.items() if run["schedule"] != "constant"} == {
        f"{name}, large, decay" for name in moons.OPTIMIZERS
    }
    _, history = moons.train({"type": "gradient_descent", "learning_rate": 0.1}, 2001, moons.DECAY)
    rates = {report.epoch: report.learning_rate for report in history.reports}
    assert (rates[0], rates[1000], rates[2000]) == pytest.approx((0.1, 0.05, 0.1 / 3))


def test_epochs_are_counted_to_the_first_that_reaches_the_target():
    count = batch_norm._epochs_to_target
    assert count({"validation": [0.2, 0.85, 0.9]}) == 2
    assert count({"validation": [0.2, 0.849]}) == np.inf
    assert count({"diverged": "at once"}) == np.inf


def test_the_gain_of_dropout_is_what_the_error_falls_by():
    errors = {"none": 0.11, "dropout": 0.10, "dropout, max-norm": 0.12, "the paper's rates": 0.2}
    results = {}
    for key, run in EXPERIMENTS["dropout"].runs(False).items():
        error = errors[key.rpartition(", seeds")[0].rpartition(", ")[0]]
        results[key] = [
            {"test_error": error + 0.001 * seed, "train_error": 0.01, "seconds": 1.0}
            for seed in run["seeds"]
        ]
    section = EXPERIMENTS["dropout"].section(results)
    assert (
        "11.10 ± 0.10 % without, 10.10 ± 0.10 % with dropout (a gain of 1.00)" in section.came_out
    )
    row = next(line for line in section.lines if line.startswith("| 500 |"))
    assert row.endswith("| 1.00 ± 0.00 | -1.00 ± 0.00 |")


def test_the_gain_of_the_cats_tools_is_what_accuracy_rises_by():
    experiment = EXPERIMENTS["cats"]
    accuracy = {"none": 0.6, "L2": 0.7, "dropout": 0.5}
    results: dict[str, Any] = {}
    for key, run in experiment.runs(False).items():
        if "kind" in run:
            of_all = {"cost": [[0, 0.7]], "train": 1.0, "test": 0.7}
            results[key] = {**of_all, "mistakes": "", "wrong": [[3, 1], [4, 0]]}
            continue
        of_tool = accuracy.get(key.partition(",")[0], 0.6)
        results[key] = [
            {"test": of_tool + 0.02 * (seed % 2), "train": 1.0} for seed in run["seeds"]
        ]
    section = experiment.section(results)
    rows = {line.split(" | ")[0]: line for line in section.lines if line.startswith("| ")}
    assert rows["| L2"].endswith("| +0.100 ± 0.000 |")
    assert rows["| dropout"].endswith("| -0.100 ± 0.000 |")
    assert "from 0.510 (dropout) to 0.710 (L2)" in section.came_out
    # 20 splits that share their images say less than 20 that do not.
    gains = [0.1, -0.1] * 10
    alone = np.std(gains, ddof=1) / np.sqrt(20)
    assert cats._error(gains, 209) == pytest.approx(alone * np.sqrt(1 + 20 * 50 / 209))


def test_trials_are_what_a_search_goes_by(monkeypatch):
    pytest.importorskip("optuna")
    changes = list(search.SHORT)
    found = search._run(None, changes, "random", 3, 2)
    recipe = fashion.recipe("search", changes)
    data = fashion.load_data(recipe)
    assert found["samples"] == [1149, 288, 360]
    for settings, validation, test, _ in found["trials"]:
        alone = recipe.changed(recipe.space.resolve(settings))
        assert validation == alone.validate(data).accuracy
        assert test == alone.run(data).test_accuracy
    assert found["trials"][0] != found["trials"][1]

    def diverge(*_):
        raise DivergenceError(0, 10.0)

    monkeypatch.setattr(Recipe, "run", diverge)
    assert search._run(None, changes, "grid", 0, 1)["trials"][0][1:3] == [0.0, 0.0]


def test_the_grid_of_the_search_has_as_many_points_as_trials():
    space = fashion.recipe("search", []).space
    assert len(space) == 7
    assert len(space.grid()) == search.N_TRIALS["grid"] == 192
    assert list(search.NAMES) == list(space)
    runs = EXPERIMENTS["search"].runs(False)
    for data, (sampler, number) in itertools.product(search.DATA, search.N_TRIALS.items()):
        tried = [
            trial
            for key, run in runs.items()
            if key.startswith(f"{data}, {sampler} ")
            for trial in range(run["first"], run["first"] + run["number"])
        ]
        assert tried == list(range(number))


def test_when_random_search_is_no_worse_than_the_grid():
    """A quarter of the random trials are better than the grid's best, the others worse."""
    sampling = pytest.importorskip("xpnet.search.sampling")
    experiment = EXPERIMENTS["search"]
    space = fashion.recipe("search", []).space
    accuracies = {"random": [(0.9, 0.7), *[(0.5, 0.6)] * 3], "grid": [(0.8, 0.65), (0.5, 0.9)]}
    results = {
        key: {
            "samples": [4000, 1600, 10000],
            "trials": [
                [sampling.design(run["sampler"], space, 0, trial), *kinds[trial % len(kinds)], 0.1]
                for kinds in (accuracies[run["sampler"]],)
                for trial in range(run["first"], run["first"] + run["number"])
            ],
        }
        for key, run in experiment.runs(False).items()
    }
    section = experiment.section(results)
    text = "\n".join(section.lines)
    # Of n trials none is a good one with probability 3/4^n: the mean is 0.9 - 0.4 3/4^n.
    assert (
        "On digits the mean of random search is no worse than the grid's best from 5 trials on, "
        "its median from 3 trials on. Its mean test accuracy is no worse than that of the grid's "
        "choice from 3 trials on (the mean of the 96 points that share the best). With 8 random "
        "trials the mean validation accuracy is -0.060 below the grid's best, or -6.0 standard "
        "errors; with 8 points of the grid it is 0.00" in text
    )
    assert "| **grid** | 192 | **0.800** | **0.650** | - | - |" in text
    row = next(line for line in section.lines if line.startswith("| random | 8 |"))
    assert row.startswith("| random | 8 | 0.860 (0.500-0.900) | 0.6")
    assert "| 0.90 | 0." in row
    assert (
        "no worse than the grid's 192 with probability 0.90 (mean validation accuracy 0.860, the "
        "grid's 0.800), and on average from 5 trials on" in section.came_out
    )


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_other_ends_are_as_ctrl_c(name):
    number = getattr(signal, name, None)
    if number is None:
        pytest.skip(f"there is no {name}")
    before = {n: signal.getsignal(getattr(signal, n)) for n in ("SIGTERM", "SIGHUP")}
    try:
        main_module.end_on_signals()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
    finally:
        for n, handler in before.items():
            signal.signal(getattr(signal, n), handler)


def of_folder(folder):
    """Processes of runs whose outcomes go there."""
    listed = subprocess.run(
        ["ps", "-ww", "-eo", "args"], capture_output=True, text=True, check=True
    ).stdout
    return [line for line in listed.splitlines() if "--run" in line and str(folder) in line]


def test_two_commands_do_not_work_in_one_folder(tmp_path):
    fcntl = pytest.importorskip("fcntl")
    with (tmp_path / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        status, _, err = said(command("circles", "--short", "--kept", str(tmp_path)))
    assert (status, err) == (2, f"--kept: another command is using {tmp_path}\n")


def test_other_recipes_are_another_run(tmp_path):
    run = running.runs_of(circles.EXPERIMENT, tmp_path, is_short=True)[0]
    running.run_here(run)
    other = dataclasses.replace(
        run, experiment=dataclasses.replace(run.experiment, recipes=("digits-deep",))
    )
    assert running.outcome(run) is not None
    assert running.outcome(other) is None
