"""The GPU gate rehearsed on the emulated device, from end to end. No result here is a GPU's."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import xpnet
from bench.gpu import __main__ as gate_module
from bench.gpu import checks, measurements, report, steps
from bench.gpu.outcome import Failed, Incomplete, Settings, Skipped
from bench.gpu.parts import PARTS
from tests import devices
from tests.conftest import ROOT
from tests.packages import Environment, copy_of_the_checkout
from xpnet.device import device
from xpnet.kernels.cuda_check import cuda_problem

pytestmark = [pytest.mark.host, pytest.mark.slow]


def gate(*arguments, cwd=ROOT, **variables):
    return subprocess.run(
        [sys.executable, "-m", "bench.gpu", *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(cwd), **variables},
        capture_output=True,
        text=True,
        check=False,
    )


def read(folder):
    (file,) = folder.glob("*-emulated.json")
    found = json.loads(file.read_text(encoding="utf-8"))
    return found, file.with_suffix(".md").read_text(encoding="utf-8")


@pytest.mark.skipif(cuda_problem() is None, reason="this machine has a GPU")
@pytest.mark.parametrize("command", ["python", "make"])
def test_without_a_gpu(command):
    before = set((ROOT / "bench").rglob("*.json"))
    if command == "make":
        made = ["make", "gpu", f"PYTHON={sys.executable}"]
        own = {k: v for k, v in os.environ.items() if not k.startswith("MAKE")}
        done = subprocess.run(made, cwd=ROOT, env=own, capture_output=True, text=True, check=False)
    else:
        done = gate()
    assert done.returncode == 2
    said = [line for line in done.stderr.splitlines() if not line.startswith("make")]
    assert len(said) == 1
    assert said[0].startswith("no GPU to run on: CuPy ")
    assert done.stdout == ""
    assert set((ROOT / "bench").rglob("*.json")) == before


def test_a_rehearsal(tmp_path):
    done = gate("--rehearse", "--quick", "--out", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    found, page = read(tmp_path)
    assert found["emulated"] is True
    assert [part["part"] for part in found["parts"]] == list(PARTS)
    for part in found["parts"]:
        assert part["status"] == "passed", part
        assert part["rows"], part
        assert f"## emulated: {part['part']}\n" in page
        assert f"| {part['part']} | emulated: passed |" in page
    (operations,) = (part for part in found["parts"] if part["part"] == "operations")
    assert {row["in L2"] for row in operations["rows"]} == {"yes", "no"}
    assert "Nothing here is a result of a GPU" in page
    assert "EMULATED" in done.stdout
    assert done.stdout.count("emulated: passed") == 2 * len(PARTS)
    assert "Nothing failed; " in done.stdout


def test_precisions_are_those_of_the_rows(tmp_path):
    """And not of the environment, where the gate's own CPU would be refused."""
    arguments = ("--rehearse", "--quick", "--only", "environment", "--out", tmp_path)
    done = gate(*arguments, XPNET_PRECISION="tf32")
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_rehearsal_with_four_packages(tmp_path):
    """Besides CuPy, which is stood in for, three: numpy, pytest and pytest-benchmark."""
    environment = Environment(tmp_path / "venv")
    environment.pip("numpy", "pytest", "pytest-benchmark")
    # A part of each kind: tests, checks, and what looks for other packages.
    only = ("environment", "parity in float32", "steady step", "steps", "classifiers", "tests")
    arguments = ("--rehearse", "--quick", "--only", *only, "--out", tmp_path)
    done = environment.run("-m", "bench.gpu", *arguments, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    parts = {part["part"]: part for part in read(tmp_path)[0]["parts"]}
    assert {part["status"] for part in parts.values()} == {"passed"}
    assert {row["data"] for row in parts["classifiers"]["rows"]} == {"drawn"}
    assert {row["implementation"] for row in parts["steps"]["rows"]} == {
        "xpnet captured",
        "xpnet eager",
    }


def test_it_goes_on_past_a_part_that_fails(tmp_path):
    checkout = copy_of_the_checkout(tmp_path)
    step = checkout / "xpnet" / "nn" / "step.py"
    text, end = step.read_text(encoding="utf-8"), "        return self.loss_value\n"
    assert text.count(end) == 1
    step.write_text(
        text.replace(end, f"        float(self.loss_value[0])\n{end}"), encoding="utf-8"
    )
    only = ("environment", "steady step", "bandwidths")
    arguments = ("--rehearse", "--quick", "--only", *only, "--out", tmp_path)
    done = gate(*arguments, cwd=checkout)
    assert done.returncode == 1, done.stdout + done.stderr
    found, page = read(tmp_path)
    statuses = {part["part"]: part["status"] for part in found["parts"]}
    assert statuses == {"environment": "passed", "steady step": "failed", "bandwidths": "passed"}
    assert "Device synchronization was detected" in page
    assert "steady step FAILED; " in done.stdout


def test_a_part_that_crashes(tmp_path):
    """A process that ends without a result, as after an illegal access, fails its part alone."""
    checkout = copy_of_the_checkout(tmp_path)
    checks = checkout / "bench" / "gpu" / "checks.py"
    start = "def steady_step(settings: Settings) -> list[Row]:\n"
    text = checks.read_text(encoding="utf-8")
    assert text.count(start) == 1
    checks.write_text(text.replace(start, f"{start}    os.abort()\n"), encoding="utf-8")
    arguments = ("--rehearse", "--quick", "--only", "steady step", "memcheck", "--out", tmp_path)
    done = gate(*arguments, cwd=checkout)
    assert done.returncode == 1, done.stdout + done.stderr
    failed, passed = read(tmp_path)[0]["parts"]
    assert (failed["status"], passed["status"]) == ("failed", "passed")
    assert failed["reason"].startswith("exit status -6")


def test_an_interruption(tmp_path):
    """The part that is running is ended, with what it has started, and the rest is kept."""
    command = [sys.executable, "-m", "bench.gpu", "--rehearse", "--only", "environment", "tests"]
    process = subprocess.Popen(
        [*command, "--out", str(tmp_path)],
        cwd=ROOT,
        env=devices.environment(),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line == "tests ...\n":
            break
    time.sleep(2)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    started = children.read_text().split() if children.exists() else []
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode == 130
    parts = read(tmp_path)[0]["parts"]
    assert [part["status"] for part in parts] == ["passed", "interrupted"]
    assert not [pid for pid in started if Path("/proc", pid).exists()]


def test_a_part_that_runs_out_of_time(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    settings = Settings(is_rehearsal=True, is_quick=False, deadline=0)
    part = gate_module._run_apart("tests", settings, 4)
    assert part["status"] == "failed"
    assert "ran out of time at " in part["reason"]
    assert part["seconds"] < 20
    for name, status in (("tests", "not run"), ("sizes", "incomplete")):
        part = gate_module._run_apart(name, settings, 0.5)
        assert (part["status"], part["reason"]) == (status, "no time left")
        assert (status in report.WRONG) == (name == "tests")


def program(folder, name, text):
    """Put a program on the path."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(0o755)


@pytest.mark.parametrize("finds", [False, True])
def test_a_sanitizer(tmp_path, monkeypatch, finds):
    """With a program in its place, which runs what it is given and may find something."""
    ends = "exit $4" if finds else 'shift 6; exec "$@"'
    program(tmp_path / "bin", "compute-sanitizer", f'echo "ERROR SUMMARY of $2"; {ends}')
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    site = ROOT / "tests" / "emulation" / "site"
    monkeypatch.setenv("PYTHONPATH", f"{site}{os.pathsep}{ROOT}")
    settings = Settings(is_rehearsal=False, is_quick=False, deadline=time.time() + 60)
    if finds:
        with pytest.raises(Failed, match="exit status 9: ERROR SUMMARY of racecheck"):
            checks.sanitizer("racecheck", settings)
    else:
        (row,) = checks.sanitizer("memcheck", settings)
        assert row["a small step under"] == "memcheck"
        assert "ERROR SUMMARY of memcheck losses: " in row["says"]
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Skipped, match="not installed"):
        checks.sanitizer("memcheck", settings)


def test_clocks(tmp_path, monkeypatch):
    says = 'test "$1" = --id=0000:0f:00.0 && echo "1980 MHz, 1980 MHz, 2619 MHz, 31, 70 W, 700 W"'
    program(tmp_path / "bin", "nvidia-smi", says)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    rows = measurements._clocks("0000:0f:00.0")
    assert rows[0] == {"what": "clocks.sm", "value": "1980 MHz"}
    assert len(rows) == 6
    monkeypatch.setenv("PATH", str(tmp_path))
    assert (
        measurements._clocks("0000:0f:00.0")[0]["value"] == "unknown: nvidia-smi is not installed"
    )


def test_a_page():
    rows = [{"what": "GPU", "value": "NVIDIA H100 80GB HBM3"}, {"what": "a|b", "more": 12345.678}]
    parts = [
        {"part": "environment", "status": "passed", "seconds": 1.0, "rows": rows},
        {"part": "tests", "status": "failed", "seconds": 2.0, "reason": "one\ntwo"},
    ]
    found = {"date": "2026-01-01T00:00:00+00:00", "emulated": False, "seconds": 3.0, "parts": parts}
    page = report.page(found)
    assert "| what | value | more |\n| --- | --- | --- |\n| GPU | NVIDIA" in page
    assert "| a/b |  | 12,346 |" in page
    assert "emulated" not in page.lower()
    assert report.summary(found).endswith("\ntests FAILED; 3 s in total")
    assert "tests        failed in 2.0 s: one two" in report.summary(found)


def test_a_contestant_that_fails_loses_its_own_rows(monkeypatch):
    """Where it is made, from then on, and the others are measured on every network."""
    cpu = device("cpu", "reference")
    monkeypatch.setattr(xpnet, "device", lambda *_: cpu)
    made = []

    def fail(device, widths, batch_size):
        made.append((device, widths, batch_size))
        raise RuntimeError("no such kernel")

    makers = {"xpnet captured": lambda *_: lambda n: n, "PyTorch captured": fail}
    settings = Settings(is_rehearsal=True, is_quick=False, deadline=time.time() + 100)
    with pytest.raises(Incomplete, match=r"^PyTorch captured: no such kernel$") as error:
        steps._compared(settings, makers, None, 0)
    assert len(made) == 1
    assert [row["implementation"] for row in error.value.rows] == ["xpnet captured"] * 2
