"""Checks that an extra does what it is for: ``python -P tests/extras.py plot``.

It runs in a clean environment with xpnet and that extra alone (``noxfile.py``). An extra that needs
something that a machine may lack, such as a GPU, is checked up to that point.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.datasets import load_iris

import xpnet
from xpnet.kernels import host

MPI = """
import numpy as np
from mpi4py import MPI
from xpnet import nn
comm = MPI.COMM_WORLD
network = nn.Network([nn.Dense(2)], n_features=3)
network.gradients[...] = comm.rank + 1
comm.Allreduce(MPI.IN_PLACE, network.gradients)
assert (network.gradients == 3).all(), network.gradients
"""


def run(*command: str, status: int = 0) -> str:
    """Run a command and return all that it prints."""
    done = subprocess.run(
        [sys.executable, *command],
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
        env={**os.environ, "PYTHONWARNINGS": "error"},
    )
    assert done.returncode == status, f"{command}: status {done.returncode}\n{done.stdout}"
    return done.stdout


def fitted() -> tuple[Any, float]:
    """Fit an estimator to iris; return it and its accuracy."""
    X, y = load_iris(return_X_y=True)
    X = (X - X.mean(axis=0)) / X.std(axis=0)
    model = xpnet.MLPClassifier((8,), solver="lbfgs", alpha=1.0, random_state=0).fit(X, y)
    return model, model.score(X, y)


def core() -> str:
    """Train an estimator and a recipe."""
    model, score = fitted()
    assert score > 0.95, (model, score)
    run("-m", "xpnet", "train", "digits-logistic", "--quiet", "--out", "run")
    assert Path("run/model.safetensors").is_file()
    return f"accuracy on iris {score:.2f}; trained digits-logistic"


def data() -> str:
    """Read an .h5 file, and load the package that downloads."""
    import h5py
    import pooch

    images = np.arange(20 * 12, dtype=np.uint8).reshape(20, 2, 2, 3)
    with h5py.File("cats.h5", "w") as file:
        file["X"], file["y"] = images, np.arange(20) % 2
    dataset = xpnet.data.load_dataset("cats.h5")
    assert dataset.X_train.shape[1] == 12
    return f"read {len(dataset.X_train)} images; pooch {pooch.__version__}"


def plot() -> str:
    """Draw the pictures of a run."""
    run("-m", "xpnet", "train", "digits-logistic", "--out", "run")
    pictures = sorted(path.name for path in Path("run").glob("*.png"))
    assert pictures
    return f"drew {', '.join(pictures)}"


def onnx() -> str:
    """Export an estimator."""
    fitted()[0].to_onnx("iris.onnx")
    return f"wrote iris.onnx, {Path('iris.onnx').stat().st_size:,} bytes"


def search() -> str:
    """Search for hyper-parameters, in a journal and in SQLite."""
    for storage in ("study.log", "sqlite:///study.db"):
        run("-m", "xpnet", "search", "digits-deep", "--trials", "2", "--storage", storage)
    return "two studies of two trials"


def postgresql() -> str:
    """Search with the trials in a database, ``XPNET_POSTGRESQL``; without one, load the driver."""
    url = os.environ.get("XPNET_POSTGRESQL")
    if url:
        run("-m", "xpnet", "search", "digits-deep", "--trials", "2", "--storage", url)
        return "a study of two trials"
    said = run(
        *("-m", "xpnet", "search", "digits-deep", "--trials", "2"),
        *("--storage", "postgresql+psycopg://nobody@127.0.0.1:1/none"),
        status=2,
    )
    assert "connection" in said, said
    return "the driver is there; XPNET_POSTGRESQL names no database"


def distributed() -> str:
    """Add up gradients of two processes."""
    Path("add.py").write_text(MPI, encoding="utf-8")
    mpiexec = Path(sys.executable).with_name("mpiexec")
    done = subprocess.run(
        [mpiexec if mpiexec.exists() else "mpiexec", "-n", "2", sys.executable, "add.py"],
        check=False,
    )
    assert done.returncode == 0
    return "added up the gradients of two processes"


def cuda() -> str:
    """Import CuPy, and name the GPUs or the reason why there are none."""
    import cupy

    said = run("-c", "import xpnet; xpnet.show_config()")
    (line,) = (line for line in said.splitlines() if line.startswith("cuda "))
    if "cuda:0" in line:
        run("-m", "xpnet", "train", "digits-logistic", "--quiet", "--device", "cuda")
    return f"CuPy {cupy.__version__}; {line}"


CHECKS: dict[str, Callable[[], str]] = {
    "": core,
    "cuda12": cuda,
    "cuda13": cuda,
    "data": data,
    "plot": plot,
    "onnx": onnx,
    "search": search,
    "postgresql": postgresql,
    "distributed": distributed,
}
# These are for a checkout: make test and make bench install and use them.
FOR_DEVELOPERS = {"bench", "test"}

if __name__ == "__main__":
    extra = sys.argv[1] if len(sys.argv) > 1 else ""
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        assert xpnet.__file__.startswith(sysconfig.get_path("purelib")), xpnet.__file__
        assert host.problem() is None, host.problem()
        result = CHECKS[extra]()
        os.chdir(Path(folder).parent)
    sys.stdout.write(f"{extra or 'no extra'}: {result}\n")
