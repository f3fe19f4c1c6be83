"""The code of README and docs runs, in an empty directory, from an installed wheel."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.packages import Environment
from xpnet.data.store import DEBIAN

pytestmark = [pytest.mark.host, pytest.mark.slow, pytest.mark.needs("build", "setuptools")]

# What docs/kernels.md says is done to a checkout, in tests/kernels/test_guide.py.
PAGES = [
    ROOT / "README.md",
    *(page for page in sorted((ROOT / "docs").glob("*.md")) if page.name != "kernels.md"),
]
BLOCK = re.compile(r"^```(python|sh)\n(.*?)^```", re.DOTALL | re.MULTILINE)
# What is there to be typed elsewhere: into a fresh machine, a checkout, a machine with a GPU.
ELSEWHERE = ("pip install ", "make ", "python -m pytest ", "python -m bench.", "XPNET_DEVICE=cuda ")
SEARCH = "xpnet search "
# What takes more than a few seconds is cut short.
LONG = ("xpnet train cats-", "xpnet train fashion-mnist")


@pytest.fixture(scope="module")
def installed(archives, tmp_path_factory):
    environment = Environment(tmp_path_factory.mktemp("docs") / "venv")
    environment.pip("--no-deps", archives[0])
    environment.add_installed_packages()
    return environment


def steps(page: Path) -> list[tuple[str, str]]:
    """Give what a page says to run, in its order."""
    found = []
    for language, code in BLOCK.findall(page.read_text(encoding="utf-8")):
        if language == "python":
            found.append((language, code))
            continue
        for line in code.splitlines():
            command = line.partition("  #")[0].strip()
            if command and not command.startswith(ELSEWHERE):
                found.append((language, command))
    return found


def script(page: Path, data_dir: str) -> str:
    """Write a program that does all of it, in one process but for the commands."""
    lines = ["import subprocess"]
    for number, (language, code) in enumerate(steps(page)):
        if language == "python":
            lines.append(f"exec(compile({code!r}, '{page.name}, block {number}', 'exec'))")
            continue
        if code.startswith(LONG):
            needs = DEBIAN / "fashion-mnist"
            if "cats" in code:
                needs = Path(data_dir, "train_catvnoncat.h5")
            if not needs.exists():
                continue
            code += " --set training.epochs=1"
        if code.startswith(SEARCH):
            code = re.sub(r"--trials \d+", "--trials 10", code) + " --set training.epochs=8"
        lines.append(f"subprocess.run({code!r}, shell=True, check=True)")
    return "\n".join(lines)


def test_the_pages_say_what_to_run():
    said = {page.name: len(steps(page)) for page in PAGES}
    assert said["README.md"] >= 10
    assert said["data.md"] >= 2
    assert said["notation.md"] == 3


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_code_runs(page, installed, tmp_path):
    data_dir = os.environ.get("XPNET_DATA_DIR") or str(ROOT.parent / "shared" / "data")
    kept = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    if Path(data_dir).is_dir():
        kept["XPNET_DATA_DIR"] = data_dir
    done = subprocess.run(
        [installed.python, "-W", "error", "-c", script(page, data_dir)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env={
            **kept,
            "PATH": f"{installed.python.parent}{os.pathsep}{kept['PATH']}",
            "XPNET_DEVICE": "cpu",
        },
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr
    accuracies = re.findall(r"test accuracy (0\.\d+)", done.stdout)
    assert all(float(accuracy) > 0.85 for accuracy in accuracies)
    n_winners = sum(code.startswith(SEARCH) and "--replay" not in code for _, code in steps(page))
    n_printed = page.read_text(encoding="utf-8").count("test accuracy {")
    assert len(accuracies) == n_printed + n_winners
    if page.name == "README.md":
        assert "gradient check passed" in done.stdout
        assert "['0', '1', '2', '3', '4']" in done.stdout
    if page.name == "notation.md":
        assert "both ways agree" in done.stdout


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_are_the_packages_own(page):
    for language, command in steps(page):
        if language == "sh":
            assert shlex.split(command)[0] == "xpnet", command
