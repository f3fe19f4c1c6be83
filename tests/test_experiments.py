"""The experiments, in their short form, and the command that carries them out."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")

from bench.experiments import best, circles, glorot, running
from bench.experiments.catalogue import EXPERIMENTS
from bench.experiments.fashion import SHORT
from bench.experiments.page import Done, page
from tests import devices
from tests.conftest import ROOT
from xpnet.data import DataError
from xpnet.recipe import load_recipe

pytestmark = pytest.mark.host

PNG = b"\x89PNG\r\n"


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_the_short_form(name, tmp_path):
    """Every run, the section and the page."""
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
    done = Done(experiment, section, "", 60.0, ["2026-01-01T00:00:00+00:00"])
    text = page([done], {"processors": 2}, is_short=True)
    assert "nan" not in re.sub("[^a-z]", " ", text).split()
    assert experiment.claimed in text
    assert section.came_out in text
    assert f"python -m bench.experiments {name}" in text
    shown = set(re.findall(r"!\[[^]]+\]\(([^)]+)\)", text))
    assert shown == set(section.pictures)
    assert all(picture.startswith(PNG) for picture in section.pictures.values())
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


@pytest.mark.parametrize("activation", ["tanh", "softsign", "sigmoid"])
@pytest.mark.parametrize("init", glorot.INITS)
def test_variances_keep_to_glorots_equations(activation, init):
    """Five hidden layers of 1000, pixels of handwritten digits."""
    found = glorot.signals(activation, init, 1, list(SHORT))
    n_inputs = 64
    expected = glorot.predicted(activation, init, n_inputs, found["input"])
    factors = np.array(glorot.factors(found["gradients"]))
    predicted = np.array(glorot.factors(expected["gradients"]))
    if init == "standard":
        # Softsign is steep at 0 alone.
        np.testing.assert_allclose(
            factors, predicted, rtol=0.5 if activation == "softsign" else 0.25
        )
    elif activation == "tanh":
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


def test_what_is_there_is_not_repeated(tmp_path):
    folders = ["--kept", str(tmp_path / "kept"), "--out", str(tmp_path / "page")]
    status, out, err = said(command("circles", "--short", *folders))
    assert (status, err) == (0, "")
    assert "circles: 0 of 3 runs are there" in out
    text = (tmp_path / "page" / "README.md").read_text(encoding="utf-8")
    assert "zeros 0.500" in text
    assert "not there: 8 of 8 runs are missing" in text  # football was not asked for
    file = tmp_path / "kept" / "circles" / "he.json"
    before = file.stat().st_mtime_ns
    (tmp_path / "kept" / "circles" / "zeros.json").write_text('{"arguments": {"epochs": 3')
    status, out, err = said(command("circles", "--short", *folders))
    assert (status, err) == (0, "")
    assert "circles: 2 of 3 runs are there" in out
    assert file.stat().st_mtime_ns == before
    status, out, _ = said(command("circles", "--short", "--again", *folders))
    assert status == 0
    assert "circles: 0 of 3" in out
    assert file.stat().st_mtime_ns > before


def test_other_arguments_are_another_run(tmp_path):
    run = running.runs_of(circles.EXPERIMENT, tmp_path, is_short=True)[0]
    running.run_here(run)
    kept = running.outcome(run)
    assert kept is not None
    assert kept["result"]["train"] == 0.5
    other = dataclasses.replace(run, arguments={**run.arguments, "epochs": 21})
    assert running.outcome(other) is None


def test_missing_data_are_named_and_the_rest_goes_on(tmp_path):
    pytest.importorskip("scipy.io")
    (tmp_path / "data").mkdir()
    folders = ["--kept", str(tmp_path / "kept"), "--out", str(tmp_path / "page")]
    status, out, err = said(
        command("football", "circles", "--short", *folders, XPNET_DATA_DIR=str(tmp_path / "data"))
    )
    assert status == 1
    assert "football, none: football.mat is not there: put the file" in err
    assert "Traceback" not in err + out
    text = (tmp_path / "page" / "README.md").read_text(encoding="utf-8")
    assert "8 of 8 runs are missing; football.mat is not there" in text
    assert "zeros 0.500" in text


@pytest.mark.skipif(os.name == "nt", reason="signals are POSIX's")
def test_ctrl_c_keeps_what_has_ended(tmp_path):
    folders = ["--kept", str(tmp_path / "kept"), "--out", str(tmp_path / "page")]
    process = command("moons", *folders)
    folder = tmp_path / "kept" / "moons"
    began = time.monotonic()
    while not list(folder.glob("*.json")) and time.monotonic() - began < 60:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    status, _, err = said(process)
    assert status == 130, err
    assert err == "stopped; the same command goes on from here\n"
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
    assert "not there" not in text
    assert "short form" not in text
    for picture in re.findall(r"!\[[^]]+\]\(([^)]+)\)", text):
        assert (folder / picture).read_bytes().startswith(PNG)
