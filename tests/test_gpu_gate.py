"""The GPU gate rehearsed on the emulated device, from end to end. No result here is a GPU's."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from bench.gpu import report
from bench.gpu.parts import PARTS
from tests import devices
from tests.conftest import ROOT
from tests.packages import Environment, copy_of_the_checkout
from xpnet.device import cuda_problem

pytestmark = [pytest.mark.host, pytest.mark.slow]


def gate(*arguments, cwd=ROOT):
    return subprocess.run(
        [sys.executable, "-m", "bench.gpu", *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(cwd)},
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
        assert f"## emulated {part['part']}\n" in page
        assert f"| {part['part']} | emulated passed |" in page
    assert "Nothing here is a result of a GPU" in page
    assert "EMULATED" in done.stdout
    assert done.stdout.count("emulated") >= 1
    assert "every part passed or was skipped" in done.stdout


def test_a_rehearsal_with_four_packages(tmp_path):
    """Besides CuPy, which is stood in for, three: numpy, pytest and pytest-benchmark."""
    environment = Environment(tmp_path / "venv")
    environment.pip("numpy", "pytest", "pytest-benchmark")
    done = environment.run("-m", "bench.gpu", "--rehearse", "--quick", "--out", tmp_path, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    parts = {part["part"]: part for part in read(tmp_path)[0]["parts"]}
    assert {part["status"] for part in parts.values()} == {"passed"}
    assert {row["data"] for row in parts["classifiers"]["rows"]} == {"drawn"}
    assert {row["implementation"] for row in parts["steps"]["rows"]} == {"xpnet fused"}


def test_it_goes_on_past_a_part_that_fails(tmp_path):
    checkout = copy_of_the_checkout(tmp_path)
    step = checkout / "xpnet" / "nn" / "step.py"
    text, end = step.read_text(encoding="utf-8"), "        return self.loss_value\n"
    assert text.count(end) == 1
    step.write_text(
        text.replace(end, f"        float(self.loss_value[0])\n{end}"), encoding="utf-8"
    )
    only = ("environment", "steady step", "memcheck")
    arguments = ("--rehearse", "--quick", "--only", *only, "--out", tmp_path)
    done = gate(*arguments, cwd=checkout)
    assert done.returncode == 1, done.stdout + done.stderr
    found, page = read(tmp_path)
    statuses = {part["part"]: part["status"] for part in found["parts"]}
    assert statuses == {"environment": "passed", "steady step": "failed", "memcheck": "passed"}
    assert "Device synchronization was detected" in page
    assert "1 parts FAILED" in done.stdout


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


def test_the_emulated_device_is_not_the_machines():
    """The gate asks for the stand-in only where it was told to."""
    assert "cupy" not in devices.environment().get("PYTHONPATH", "")


def test_a_page():
    rows = [{"what": "GPU", "value": "NVIDIA H100 80GB HBM3"}, {"what": "a|b", "more": 12345.678}]
    parts = [
        {"part": "environment", "status": "passed", "seconds": 1.0, "rows": rows},
        {"part": "tests", "status": "failed", "seconds": 2.0, "reason": "one\ntwo"},
    ]
    found = {"date": "2026-01-01T00:00:00+00:00", "emulated": False, "seconds": 3.0, "parts": parts}
    assert report.gpu(found) == "nvidia-h100-80gb-hbm3"
    page = report.page(found)
    assert "| what | value | more |\n| --- | --- | --- |\n| GPU | NVIDIA" in page
    assert "| a/b |  | 12,346 |" in page
    assert "emulated" not in page.lower()
    assert report.summary(found).endswith("1 parts FAILED, 3 s in all")
    assert "tests        failed in 2.0 s: one two" in report.summary(found)
