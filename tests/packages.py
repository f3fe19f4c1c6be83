"""Wheel and sdist built from a copy of the checkout, and clean environments to put them into."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.conftest import ROOT

TRAIN = """
import numpy as np, xpnet
from xpnet import nn, training
import xpnet.kernels.reference
assert xpnet.__file__.startswith({where!r}), xpnet.__file__
rng = np.random.default_rng(0)
X = rng.standard_normal((200, 3)); y = (X.sum(axis=1) > 0).astype(int)
net = nn.Network([nn.Dense(8, "tanh"), nn.Dense(2)], 3)
training.fit(net, X, y, loss="softmax_cross_entropy", optimizer="adam", epochs=100, batch_size=20)
print("accuracy", training.evaluate(net, "softmax_cross_entropy", X, y)[1])
"""


def kernels_in(shown: str) -> str:
    """Give the line of show_config that tells what kernels are in use, without its name."""
    (line,) = (line for line in shown.splitlines() if line.startswith("kernels"))
    return line.split(maxsplit=1)[1]


def quick_build(folder: Path) -> dict[str, str]:
    """Give an environment in which the kernels are compiled in seconds: unoptimised and once.

    setup.py's own flags come after those of the environment, so the compiler has to add its own.
    """
    chosen = {"XPNET_MULTIVERSION": "0"}
    if os.name != "nt":
        compiler = folder / "unoptimised"
        real = os.environ.get("CXX") or sysconfig.get_config_var("CXX")
        compiler.write_text(f'#!/bin/sh\nexec {real} "$@" -O0\n', encoding="utf-8")
        compiler.chmod(0o755)
        chosen["CXX"] = shlex.quote(str(compiler))
    return chosen


class Environment:
    """A clean virtual environment, used from a folder that is not the checkout."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.work = folder, folder / "work"
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        self.work.mkdir()
        bin_folder = "Scripts" if os.name == "nt" else "bin"
        self.python = folder / bin_folder / "python"

    def run(self, *arguments, cwd=None, env=None):
        environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
        return subprocess.run(
            [self.python, *map(str, arguments)],
            cwd=cwd or self.work,
            capture_output=True,
            text=True,
            check=False,
            env={**environment, "XPNET_DEVICE": "cpu", **(env or {})},
        )

    def pip(self, *arguments, env=None):
        done = self.run("-m", "pip", "install", "--quiet", *arguments, env=env)
        if done.returncode and os.environ.get("CI") != "true" and "No matching dist" in done.stderr:
            pytest.skip(f"packages cannot be downloaded: {done.stderr.splitlines()[-1]}")
        assert done.returncode == 0, done.stderr

    def add_installed_packages(self):
        """Let it import what is installed where the tests run, which takes a minute to install."""
        site = self.run(
            "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"
        ).stdout.strip()
        paths = dict.fromkeys(sysconfig.get_path(name) for name in ("purelib", "platlib"))
        (Path(site) / "borrowed.pth").write_text("\n".join(paths) + "\n", encoding="utf-8")

    def trains(self):
        done = self.run("-W", "error", "-c", TRAIN.format(where=str(self.folder)))
        assert done.returncode == 0, done.stderr
        assert float(done.stdout.split()[-1]) > 0.95

    def kernels(self):
        """Give the line of show_config that tells what kernels are in use."""
        done = self.run("-c", "import xpnet; xpnet.show_config()")
        assert done.returncode == 0, done.stderr
        return kernels_in(done.stdout)


def files_of_the_checkout() -> list[str]:
    """List what git tracks, and what it would."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [name for name in listed.stdout.split("\0") if name and (ROOT / name).exists()]


def copy_of_the_checkout(folder: Path) -> Path:
    checkout = folder / "xpnet checkout"
    for name in files_of_the_checkout():
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, checkout / name, follow_symlinks=False)
    return checkout


def build_archives(checkout: Path, out: Path, env=None) -> tuple[Path, Path]:
    """Build the sdist from a checkout, and the wheel from the sdist."""
    done = subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", out, checkout],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **(env or {})},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,), (sdist,) = out.glob("*.whl"), out.glob("*.tar.gz")
    return wheel, sdist
