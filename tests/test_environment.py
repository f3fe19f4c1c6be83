"""What show_config prints."""

from __future__ import annotations

import re

import numpy as np
import pytest

import xpnet
from xpnet.environment import versions
from xpnet.kernels import host


def test_show_config(capsys, monkeypatch):
    monkeypatch.setenv("XPNET_DEVICE", "cpu")
    xpnet.show_config()
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert lines["numpy"] == np.__version__
    assert lines["xpnet"] == xpnet.__version__
    assert (lines["XPNET_DEVICE"], lines["device"]) == ("cpu", "cpu")
    assert "threads" in lines["BLAS"]
    assert lines["cuda"]
    assert lines["kernels"]
    assert lines["precision"] == "float32"
    assert "cuBLAS" not in lines


def test_kernels_are_told(capsys, monkeypatch):
    """In one line: what is in use, and why it is not more."""

    def told():
        xpnet.show_config()
        lines = capsys.readouterr().out.splitlines()
        (found,) = (line for line in lines if line.startswith("kernels"))
        return found.split(maxsplit=1)[1]

    monkeypatch.setenv("XPNET_DEVICE", "cpu")
    monkeypatch.delenv("XPNET_KERNELS", raising=False)
    if host.problem() is None:
        assert told() == f"fused: {host.description()}"
        assert "loops, compiled by" in told()
        monkeypatch.setenv("XPNET_KERNELS", "reference")
        assert told() == "reference (numpy expressions), set by XPNET_KERNELS"
    monkeypatch.delenv("XPNET_KERNELS", raising=False)
    monkeypatch.setattr(host, "problem", lambda: "not built: for a test")
    assert told() == "reference (numpy expressions): the host kernels are not built: for a test"


@pytest.mark.accelerator
@pytest.mark.parametrize("precision", ["float32", "tf32"])
def test_precision_and_cublas_are_told(capsys, monkeypatch, precision):
    monkeypatch.setenv("XPNET_PRECISION", precision)
    xpnet.show_config()
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert lines["precision"].split(":")[0] == precision
    assert re.fullmatch(r"1[2-9]\.\d+\.\d+", lines["cuBLAS"])


def test_the_device_that_none_means(capsys, monkeypatch):
    monkeypatch.delenv("XPNET_DEVICE", raising=False)
    xpnet.show_config()
    assert "not set: cpu" in capsys.readouterr().out
    monkeypatch.setenv("XPNET_DEVICE", "gpu")
    xpnet.show_config()
    assert "none: XPNET_DEVICE must be 'cpu', 'cuda'" in capsys.readouterr().out


def test_threads_are_counted(capsys):
    import threadpoolctl

    with threadpoolctl.threadpool_limits(1, user_api="blas"):
        xpnet.show_config()
    assert "threads: 1" in capsys.readouterr().out


def threads_told(capsys):
    xpnet.show_config()
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    return lines["threads"]


@pytest.mark.host
def test_threads_are_told(capsys, monkeypatch):
    import threadpoolctl

    if not host.shared():
        pytest.skip("there are no host kernels, or NumPy's BLAS is not OpenBLAS")
    with threadpoolctl.threadpool_limits(1, user_api="blas"):
        assert threads_told(capsys) == "1: one processor, or the limit of NumPy's BLAS"
        monkeypatch.setenv("XPNET_THREADS", "3")
        assert threads_told(capsys) == "1: set by XPNET_THREADS, limited by NumPy's BLAS"
        monkeypatch.delenv("XPNET_THREADS")
        monkeypatch.setattr(host, "count_threads", lambda: 4)
        for shares, said in ((True, "two processors share a core"), (False, "do not share")):
            monkeypatch.setattr(host, "shares_core", lambda shares=shares: shares)
            assert said in threads_told(capsys)
    monkeypatch.setenv("XPNET_KERNELS", "reference")
    assert threads_told(capsys) == "chosen by NumPy's BLAS"


def test_the_reason_why_cuda_is_not_usable(capsys, dev):
    if dev.index is not None:
        pytest.skip("this machine has a GPU")
    xpnet.show_config()
    assert "not usable: CuPy " in capsys.readouterr().out


def test_versions():
    found = versions()
    assert found["numpy"] == np.__version__
    assert found["blas"]
