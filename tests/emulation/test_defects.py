"""Mistakes put into a copy of the code on purpose: each is found without a GPU, and by what.

A run of the same tests on the stand-in shows that they pass on the unchanged code.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests import devices
from tests.packages import copy_of_the_checkout

# It runs the emulated device by itself.
pytestmark = [pytest.mark.host, pytest.mark.slow, pytest.mark.needs("hypothesis")]

STEP = "tests/nn/test_step.py"
NETWORK = "tests/nn/test_network.py"
LOSSES = "tests/nn/test_losses.py"


@dataclass(frozen=True)
class Defect:
    """A text in a file, what is put in its place, and what finds that."""

    file: str
    text: str
    put: str
    found_by: str  # the check
    says: str
    tests: str = STEP  # that come across it


DEFECTS = {
    "float(loss) in the step": Defect(
        "xpnet/nn/step.py",
        "        return self.loss_value\n",
        "        float(self.loss_value[0])\n        return self.loss_value\n",
        "float() of a device array, inside a step",
        "Device synchronization was detected while disallowed: float() waits for the device",
    ),
    "a condition on values in the step": Defect(
        "xpnet/nn/step.py",
        "        return self.loss_value\n",
        "        if self.loss_value > 1e9:\n            raise ArithmeticError\n"
        "        return self.loss_value\n",
        "bool() of a device array, inside a step",
        "Device synchronization was detected while disallowed: bool() waits for the device",
    ),
    "a NumPy array into a layer": Defect(
        "xpnet/nn/network.py",
        'batch = self.device.asarray(X[start:stop], self.dtype, name="X")',
        "batch = X[start:stop]",
        "products take device arrays",
        "matmul: A must be a CuPy array, got numpy.ndarray",
        NETWORK,
    ),
    "a Python scalar for a device scalar": Defect(
        "xpnet/nn/optimizers.py",
        "ops.gradient_descent_update(params, grads, rate, decay, n_decay)",
        "ops.gradient_descent_update(params, grads, self.learning_rate, decay, n_decay)",
        "fused operations take arrays for what changes from step to step",
        "learning_rate must be a CuPy array, got builtins.float",
    ),
    "an allocation in the steady step": Defect(
        "xpnet/nn/step.py",
        "logits = network.forward(X, self._caches)",
        "logits = network.forward(X.copy(), self._caches)",
        "an allocator that refuses",
        "a steady step asked for",
    ),
    "the update on another stream": Defect(
        "xpnet/nn/step.py",
        "        self._optimizer.update(\n"
        "            ops, network.parameters, network.gradients, self._state, *self._n_decay\n"
        "        )\n",
        "        with network.device.xp.cuda.Stream(non_blocking=True):\n"
        "            self._optimizer.update(\n"
        "                ops, network.parameters, network.gradients, self._state, *self._n_decay\n"
        "            )\n",
        "the order of streams",
        "and nothing makes it wait",
    ),
    "a border that does not wait": Defect(
        "xpnet/device.py",
        "                caller.wait_event(self.stream.record())\n",
        "",
        "the order of streams",
        "and nothing makes it wait",
        NETWORK,
    ),
    "np for xp in a layer": Defect(
        "xpnet/nn/layers.py",
        "            cache.dX = xp.empty(shape, dtype=dtype)\n",
        "            import numpy as np\n\n            cache.dX = np.empty(shape, dtype=dtype)\n",
        "products take device arrays",
        "matmul: out must be a CuPy array, got numpy.ndarray",
    ),
    "a function of NumPy's in a layer": Defect(
        "xpnet/nn/losses.py",
        "return ops.xp.argmax(logits, axis=-1)",
        "import numpy as np\n\n        return np.argmax(logits, axis=-1)",
        "the stand-in hands nothing on from NumPy",
        "numpy.argmax on a CUDA array: use the device's xp",
        LOSSES,
    ),
}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    return copy_of_the_checkout(tmp_path_factory.mktemp("defect"))


def run(checkout: Path, *tests: str, device: str = "cuda") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"]
    return subprocess.run(
        [*command, "--device", "emulated", "--hypothesis-profile", "quick", *tests],
        cwd=checkout,
        env=devices.environment(XPNET_DEVICE=device, PYTHONPATH=str(checkout)),
        capture_output=True,
        text=True,
        check=False,
    )


SHARED = (STEP, LOSSES, "tests/parity/test_training.py")
SECOND = {
    "the first device for every other": (
        "        with self.activate():\n            if not on_gpu:",
        "        with self.xp.cuda.Device(0):\n            if not on_gpu:",
    ),
    "as it is": ("", ""),
}


@pytest.mark.parametrize("name", SECOND)
def test_on_the_second_device(checkout, name):
    file, (text, put) = checkout / "xpnet" / "device.py", SECOND[name]
    original = file.read_text(encoding="utf-8")
    assert text in original
    file.write_text(original.replace(text, put), encoding="utf-8")
    try:
        done = run(checkout, *SHARED, device="cuda:1")
    finally:
        file.write_text(original, encoding="utf-8")
    assert done.returncode == (0 if name == "as it is" else 1), done.stdout[-3000:]


@pytest.mark.parametrize(
    "name", DEFECTS, ids=lambda name: f"{name}: found by {DEFECTS[name].found_by}"
)
def test_defect_is_found(checkout, name):
    defect = DEFECTS[name]
    file = checkout / defect.file
    original = file.read_text(encoding="utf-8")
    assert original.count(defect.text) == 1
    file.write_text(original.replace(defect.text, defect.put), encoding="utf-8")
    try:
        done = run(checkout, defect.tests)
    finally:
        file.write_text(original, encoding="utf-8")
    assert done.returncode == 1, f"not found by {defect.found_by}: {done.stdout[-3000:]}"
    assert defect.says in done.stdout, done.stdout[-3000:]
