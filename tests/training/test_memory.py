"""How much memory a training takes, from outside."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.devices import environment

pytestmark = pytest.mark.host

pytest.importorskip("resource")

CODE = """
import pathlib
import re
import resource
import sys

import numpy as np
import xpnet
from xpnet import nn, training

def peak():
    status = pathlib.Path("/proc/self/status")
    if status.exists():  # Linux's getrusage begins with what the parent process held
        return int(re.search(r"VmHWM:\\s+(\\d+)", status.read_text())[1]) * 1024
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else 1024 * most

BATCH, WIDTHS = 512, (784, 1024, 1024, 10)
after_import = peak()
rng = np.random.default_rng(0)
X = np.empty((40_000, 784), np.DTYPE)
for rows in range(0, len(X), 1000):
    X[rows : rows + 1000] = rng.integers(0, 256, (1000, 784))
y = rng.integers(0, 10, len(X))
layers = [nn.Dense(width, "relu") for width in WIDTHS[1:-1]] + [nn.Dense(WIDTHS[-1])]
network = nn.Network(layers, WIDTHS[0])
training.fit(
    network, X, y, loss="softmax_cross_entropy", optimizer=nn.Adam(1e-5), epochs=1,
    batch_size=BATCH, train_accuracy=True, validation=(X[:5000], y[:5000]), DIVIDE
)
allowed = X.nbytes + 4 * network.parameters.nbytes + 2 * BATCH * sum(WIDTHS) * 4 + 60e6
print(int(peak() - after_import), X.nbytes, int(allowed))
"""


@pytest.mark.slow
@pytest.mark.parametrize("kernels", ["fused", "reference"])
@pytest.mark.parametrize(("dtype", "divide"), [("uint8", "divide_by=255"), ("float32", "")])
def test_peak_of_a_training(kernels, dtype, divide):
    """The data, parameters with gradients and moments, activations with gradients, and 60 MB."""
    code = CODE.replace("DTYPE", dtype).replace("DIVIDE", divide)
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment(XPNET_DEVICE="cpu", XPNET_KERNELS="" if kernels == "fused" else kernels),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    taken, data, allowed = map(int, done.stdout.split())
    assert data < taken < allowed
