"""What the GPU gate says about graphs: the reproducer, and the comparison of bits."""

from __future__ import annotations

import subprocess
import sys
import time
import types

import pytest

import xpnet
from bench.gpu import capture_refusal, checks
from bench.gpu.outcome import Failed, Settings
from tests.conftest import ROOT
from xpnet import nn
from xpnet.kernels import cublas

SETTINGS = Settings(is_rehearsal=True, is_quick=True, deadline=time.time() + 3600)
SCRIPT = ROOT / "bench" / "gpu" / "capture_refusal.py"


@pytest.mark.emulated
def test_cupy_refuses_and_our_own_products_do_not(capsys):
    assert capture_refusal.main(cublas.load()) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.endswith(
        "in a capture: NotImplementedError: calling cuBLAS API during stream capture is currently "
        "unsupported"
    )
    assert second == "with a separate handle: the same bits in a graph as outside of one"


@pytest.mark.emulated
def test_a_cupy_that_no_longer_refuses(monkeypatch, capsys):
    cupy = xpnet.device().xp
    monkeypatch.setattr(cupy, "matmul", lambda A, B, out: out)
    assert capture_refusal.main(cublas.load()) == 3
    assert "captured a product and no longer refuses" in capsys.readouterr().out
    assert checks.refusal(SETTINGS)


@pytest.mark.emulated
def test_a_product_with_other_bits_in_a_graph(monkeypatch):
    make = capture_refusal._own_products

    def other(cupy, stream, library):
        multiply = make(cupy, stream, library)

        def inexact(A, B, out):
            multiply(A, B, out)
            if stream.is_capturing():
                cupy.multiply(out, 1 + 1e-6, out=out)

        return inexact

    monkeypatch.setattr(capture_refusal, "_own_products", other)
    assert capture_refusal.main(cublas.load()) == 1
    with pytest.raises(Failed, match="other bits") as failed:
        checks.refusal(SETTINGS)
    assert len(failed.value.rows) == 2


@pytest.mark.gpu
def test_the_reproducer_by_itself():
    done = subprocess.run(
        [sys.executable, SCRIPT], capture_output=True, text=True, check=False, cwd="/"
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.host
def test_the_reproducer_without_a_gpu(monkeypatch, capsys):
    cupy = types.ModuleType("cupy")
    vars(cupy).update(__version__="14.2.0", is_available=lambda: False)
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    assert capture_refusal.main() == 2
    assert capsys.readouterr().err == "CuPy 14.2.0 finds no usable GPU\n"


@pytest.mark.host
def test_the_reproducer_needs_nothing_of_xpnet():
    text = SCRIPT.read_text(encoding="utf-8")
    assert "import xpnet" not in text
    assert "from xpnet" not in text
    assert "from bench" not in text


@pytest.mark.emulated
def test_a_number_that_changes_on_the_host_is_found(monkeypatch):
    update = nn.AdamW.update
    count = [0]

    def counting(self, ops, params, grads, state, n_decay=0):
        count[0] += 1
        ops.xp.multiply(grads, 1 / count[0], out=grads)
        update(self, ops, params, grads, state, n_decay)

    monkeypatch.setattr(nn.AdamW, "update", counting)
    with pytest.raises(Failed, match=r"plain in float32: \d+ of \d+ numbers of the \w+ differ"):
        checks.graph_equals_eager(SETTINGS)
