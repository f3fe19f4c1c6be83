"""The contributor's guide to kernels: what it says to add is all that an operation takes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap

import pytest

from tests.conftest import ROOT
from tests.packages import copy_of_the_checkout, quick_build
from xpnet.kernels import host

pytestmark = [pytest.mark.host, pytest.mark.needs("hypothesis", "setuptools")]

GUIDE = ROOT / "docs" / "kernels.md"
# Before which line each of the three goes.
PLACES = {
    "kernels/functions.h": "// Losses.",
    "kernels/catalogue.py": "    # Losses on logits.",
    "kernels/reference.py": "    # Regularisation.",
}


@pytest.mark.slow
def test_an_operation_takes_three_things(tmp_path):
    if host.problem() is not None:
        pytest.skip(f"the host kernels are {host.problem()}")
    checkout = copy_of_the_checkout(tmp_path)
    blocks = re.findall(
        r"^```(?:cpp|python)\n(.*?)^```", GUIDE.read_text("utf-8"), re.DOTALL | re.MULTILINE
    )
    formula, row, method = blocks
    blocks = [
        formula,
        textwrap.indent(row.rstrip(), "    ") + ",\n",
        textwrap.indent(method, "    "),
    ]
    for (name, place), block in zip(PLACES.items(), blocks, strict=True):
        path = checkout / name
        text = path.read_text(encoding="utf-8")
        assert text.count(place) == 1
        path.write_text(text.replace(place, f"{block}\n{place}"), encoding="utf-8")

    def run(*arguments):
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=checkout,
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, **quick_build(tmp_path), "PYTHONPATH": str(checkout)},
        )

    built = run("setup.py", "--quiet", "build_ext", "--inplace")
    assert built.returncode == 0, built.stdout + built.stderr
    code = (
        "import numpy, xpnet; ops = xpnet.device(kernels='fused').ops; "
        "assert 'silu' in ops.fused; print(ops.silu(numpy.array([0.0, 2.0])))"
    )
    used = run("-c", code)
    assert used.stdout == "[0.         1.76159416]\n", used.stderr
    names = ("test_host.py", "test_host_errors.py", "test_cuda_compile.py")
    tests = [f"tests/kernels/{name}" for name in names]
    which = "silu or test_kernels_compile and float32-90"  # other architectures: test_cuda_compile
    tested = run("-m", "pytest", "-q", "-k", which, "-p", "no:cacheprovider", *tests)
    assert tested.returncode == 0, tested.stdout
    passed = int(re.findall(r"(\d+) passed", tested.stdout)[0])
    assert passed >= 13, tested.stdout  # without those that compile for CUDA
