"""What show_config prints."""

from __future__ import annotations

import numpy as np
import pytest

import xpnet
from xpnet.environment import versions


def test_show_config(capsys, monkeypatch):
    monkeypatch.setenv("XPNET_DEVICE", "cpu")
    xpnet.show_config()
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert lines["numpy"] == np.__version__
    assert lines["xpnet"] == xpnet.__version__
    assert (lines["XPNET_DEVICE"], lines["device"]) == ("cpu", "cpu")
    assert "threads" in lines["BLAS"]
    assert lines["cuda"]
    assert lines["kernels"].startswith("reference (numpy expressions), fused: none")


def test_the_device_that_none_means(capsys, monkeypatch):
    monkeypatch.delenv("XPNET_DEVICE", raising=False)
    xpnet.show_config()
    assert "not set: cpu" in capsys.readouterr().out
    monkeypatch.setenv("XPNET_DEVICE", "gpu")
    xpnet.show_config()
    assert "none: XPNET_DEVICE must be 'cpu', 'cuda'" in capsys.readouterr().out


def test_threads_are_counted(capsys):
    threadpoolctl = pytest.importorskip("threadpoolctl")
    with threadpoolctl.threadpool_limits(1, user_api="blas"):
        xpnet.show_config()
    assert "threads: 1" in capsys.readouterr().out


def test_the_reason_why_cuda_is_not_usable(capsys, dev):
    if dev.index is not None:
        pytest.skip("this machine has a GPU")
    xpnet.show_config()
    assert "not usable: CuPy " in capsys.readouterr().out


def test_versions():
    found = versions()
    assert found["numpy"] == np.__version__
    assert found["blas"]
