"""Wheel, sdist and bare checkout, each in a clean environment outside the checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.slow

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


class Environment:
    """A clean virtual environment, used from a folder that is not the checkout."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.work = folder, folder / "work"
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        self.work.mkdir()
        bin_folder = "Scripts" if os.name == "nt" else "bin"
        self.python = folder / bin_folder / "python"

    def run(self, *arguments, cwd=None):
        environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
        return subprocess.run(
            [self.python, *map(str, arguments)],
            cwd=cwd or self.work,
            capture_output=True,
            text=True,
            check=False,
            env={**environment, "XPNET_DEVICE": "cpu"},
        )

    def pip(self, *arguments):
        done = self.run("-m", "pip", "install", "--quiet", *arguments)
        if done.returncode and os.environ.get("CI") != "true" and "No matching dist" in done.stderr:
            pytest.skip(f"packages cannot be downloaded: {done.stderr.splitlines()[-1]}")
        assert done.returncode == 0, done.stderr

    def trains(self):
        done = self.run("-W", "error", "-c", TRAIN.format(where=str(self.folder)))
        assert done.returncode == 0, done.stderr
        assert float(done.stdout.split()[-1]) > 0.95


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    """Build the sdist from a copy of the tracked files, and the wheel from the sdist."""
    checkout = copy_of_the_checkout(tmp_path_factory.mktemp("a checkout"))
    out = tmp_path_factory.mktemp("dist")
    done = subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", out, checkout],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,), (sdist,) = out.glob("*.whl"), out.glob("*.tar.gz")
    return wheel, sdist


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


def test_what_is_in_the_archives(archives):
    wheel, sdist = archives
    in_wheel = set(zipfile.ZipFile(wheel).namelist())
    with tarfile.open(sdist) as archive:
        in_sdist = {name.partition("/")[2] for name in archive.getnames()}
    for names in (in_wheel, in_sdist):
        assert {
            "xpnet/py.typed",
            "xpnet/kernels/reference.py",
            "xpnet/recipes/cats-deep.toml",
        } <= names
    assert {name.split("/")[0] for name in in_wheel} == {
        "xpnet",
        next(name.split("/")[0] for name in in_wheel if ".dist-info" in name),
    }
    tracked = {name for name in files_of_the_checkout() if name.split("/")[0] in ("tests", "bench")}
    expected = {"README.md", "LICENSE", "pyproject.toml", "train.py", "Makefile", "CHANGELOG.md"}
    assert expected | tracked | {"kernels/reference.py"} <= in_sdist


def test_the_wheel_with_its_dependencies(archives, tmp_path):
    environment = Environment(tmp_path / "a b")
    environment.pip(archives[0])
    environment.trains()
    checkout = copy_of_the_checkout(tmp_path)
    done = environment.run("-m", "pip", "uninstall", "--yes", "xpnet")
    assert done.returncode == 0, done.stderr
    done = environment.run(checkout / "train.py", "digits-logistic")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-9] == "digits-logistic"


def test_numpy_alone(archives, tmp_path):
    environment = Environment(tmp_path / "bare")
    environment.pip("numpy")
    checkout = copy_of_the_checkout(tmp_path)
    done = environment.run("-W", "error", "-c", "import xpnet", cwd=checkout)
    assert done.returncode == 0, done.stderr
    done = environment.run(checkout / "train.py")
    assert done.returncode == 2
    assert done.stderr == (
        "train.py: dataset 'digits' needs scikit-learn, which cannot be imported (No module named "
        "'sklearn'); type: pip install scikit-learn\n"
    )
    done = environment.run(checkout / "train.py", "--list")
    assert (done.returncode, done.stdout.split()[0]) == (0, "cats-deep")
    environment.pip("--no-deps", archives[1])
    environment.trains()
