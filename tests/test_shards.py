"""The tests are shared among processes: each must know the same tests by the same names."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT

LATER = """
import sys, time
import pytest
now, later = time.time, float(sys.argv.pop(1))
time.time = lambda: now() + later
sys.exit(pytest.main(sys.argv[1:]))
"""


def collect(*arguments, seed="0", later=0.0, status=0):
    """Name the tests in another process, which may put sets in another order, and start later."""
    command = [sys.executable, "-c", LATER, str(later), "--co", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, *arguments],
        cwd=ROOT,
        env=os.environ | {"PYTHONHASHSEED": seed},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == status, done.stdout + done.stderr
    return [line for line in done.stdout.splitlines() if "::" in line], done.stderr


@pytest.mark.slow
@pytest.mark.host
def test_shares_are_all_of_the_tests():
    path = "tests/nn/test_losses.py"
    everything, _ = collect(path)
    assert everything
    shares = [collect(path, "--shard", f"{n}/3")[0] for n in (1, 2, 3)]
    assert sorted(itertools.chain(*shares)) == sorted(everything)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    _, said = collect(path, "--shard", "4/3", status=pytest.ExitCode.USAGE_ERROR)
    assert "--shard must be K/N with 1 <= K <= N, got '4/3'" in said


@pytest.mark.slow
@pytest.mark.host
def test_names_are_the_same_in_every_process():
    first, _ = collect("--device", "emulated")  # where a GPU's tests are, which are shared out
    second, _ = collect("--device", "emulated", seed="1", later=3600.0)
    assert len(first) > 1000
    assert first == second
