"""What the tests of commands share: commands run here or in a process, and what they print."""

from __future__ import annotations

import contextlib
import io
import subprocess
import sys

import pytest

import xpnet.cli
from tests import devices
from tests.conftest import ROOT

FILES = {"history.json", "model.safetensors", "recipe.toml"}

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


def table(stdout):
    """Read the table at the end of the output as a dictionary for each row."""
    lines = stdout.splitlines()
    rule = max(number for number, line in enumerate(lines) if line.startswith("---"))
    header = lines[rule - 1].split()
    return [dict(zip(header, line.split(), strict=True)) for line in lines[rule + 1 :]]
