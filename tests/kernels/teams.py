"""What the tests of the team of threads share: a team of a chosen size, and processes with one."""

from __future__ import annotations

import subprocess
import sys
from contextlib import contextmanager

import pytest

from tests.devices import environment
from xpnet.kernels import host

THREADS = (1, 2, 3, 7)
PARTS = 4


@contextmanager
def team_of(n, *, far=None, processors=PARTS, forced=True):
    """Let n threads share the work, however many processors there are, near or far.

    They cut it as on a machine of so many processors.
    """
    threadpoolctl = pytest.importorskip("threadpoolctl")
    matmul, module = host.shared()["matmul"], host._module()
    with threadpoolctl.threadpool_limits(n, "blas"):
        module.use_threads(processors, n, n if forced else 0)
        module.assume_far(far)
        try:
            assert host.count_threads() == n
            yield matmul
        finally:
            module.assume_far(None)
            restore_threads()


def restore_threads():
    """Cut and share work again as on this machine."""
    host.shared.cache_clear()
    host.shared()


def run(code, **more):
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment(**{"OPENBLAS_NUM_THREADS": "2", **more}),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


SETUP = """
import os, time, numpy as np
from xpnet.kernels import host
matmul = host.shared()["matmul"]
A = np.random.default_rng(0).standard_normal((400, 400))
out = np.empty_like(A)
matmul(A, A, out=out)
expected = out.copy()
"""
