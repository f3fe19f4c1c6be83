"""The benchmark: that all contestants do the same work, and what it does when one fails."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from bench.cpu import __main__ as command
from bench.cpu import contestants, parts, problems, turns
from bench.cpu.contestants import CONTESTANTS, FLOOR, OURS
from bench.cpu.problems import Problem
from tests.conftest import ROOT
from tests.devices import environment
from xpnet.report import plotting_problem

pytestmark = pytest.mark.host

# In float64, where contestants that do the same differ by little; the batch is all samples, whose
# order makes no difference.
SEVERAL = Problem((6, 5, 4, 3), 40, 40, dtype="float64", learning_rate=0.01)
BINARY = Problem(
    (6, 5, 1), 40, 40, dtype="float64", optimizer="gradient_descent", learning_rate=0.5
)


def after(name, problem, epochs):
    """Train from the common start; gives weights and biases, layer by layer."""
    made = CONTESTANTS[name](problem, 1)
    start = problems.initial_weights(problem.widths, problem.dtype, 0)
    if isinstance(made, contestants.Xpnet):
        for i, (W, b) in enumerate(start):
            made.network.layers[i].W[...] = W
            made.network.layers[i].b[...] = b
        made.train(epochs)
        return [array for layer in made.network.layers for array in (layer.W, layer.b)]
    made.train(epochs)
    if isinstance(made, contestants.PyTorch):
        trained = [p.detach().numpy() for p in made.model.parameters()]
        return [p.T if p.ndim == 2 else p for p in trained]
    if isinstance(made, contestants.Jax):
        return [np.asarray(array) for pair in made.state[0] for array in pair]
    assert isinstance(made, contestants.PlainNumpy)
    return made.parameters


@pytest.mark.parametrize("problem", [SEVERAL, BINARY], ids=lambda problem: problem.name)
@pytest.mark.parametrize(
    "name",
    [
        OURS,
        pytest.param("PyTorch", marks=pytest.mark.needs("torch")),
        pytest.param("JAX", marks=pytest.mark.needs("jax")),
    ],
)
def test_contestants_take_the_same_steps(name, problem):
    expected = after("plain NumPy", problem, 20)
    found = after(name, problem, 20)
    start = [a for pair in problems.initial_weights(problem.widths, "float64", 0) for a in pair]
    for first, second, before in zip(found, expected, start, strict=True):
        np.testing.assert_allclose(first, second, rtol=1e-7, atol=1e-9)
        assert np.abs(second - before).max() > 1e-3


def test_the_products_are_those_of_a_step():
    made = contestants.Products(Problem((6, 5, 3), 4, 8), 1)
    A, W = made.A[0].copy(), made.W[0].copy()
    made.train(1)
    np.testing.assert_allclose(made.A[1], A @ W, rtol=1e-5)
    np.testing.assert_allclose(made.dW[0], A.T @ made.dA[1], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(made.dA[1], made.dA[2] @ made.W[1].T, rtol=1e-4, atol=1e-6)


def test_scikit_learn_trains_as_often_as_it_says():
    problem = Problem((6, 5, 3), 10, 40, epochs=3)
    made = contestants.ScikitLearn(problem, 1)
    made.train(problem.epochs)
    assert made.model.t_ == problem.n_steps * 10
    assert made.model.n_iter_ == 3


def test_nobody_is_given_a_blas_kernel_chosen_by_hand(monkeypatch):
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    monkeypatch.setenv("OPENBLAS_L2_SIZE", "512")
    for name in CONTESTANTS:
        chosen = turns.environment(name, 2)
        assert not {"OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"} & set(chosen)
        assert chosen["OPENBLAS_NUM_THREADS"] == chosen["OMP_NUM_THREADS"] == "2"
        assert chosen["XPNET_KERNELS"] == ("reference" if name == "xpnet, reference" else "")


@pytest.mark.slow
def test_a_page_of_a_small_run(monkeypatch, tmp_path):
    """All parts at sizes that take no time; a contestant that fails has its line and no more."""
    tiny = (Problem((8, 6, 3), 10, 40), Problem((8, 6, 1), 40, 40, dtype="float64"))
    monkeypatch.setattr(parts, "NETWORKS", tiny)
    monkeypatch.setattr(parts, "_series", lambda _: {"width": [(w, tiny[0]) for w in (2, 4, 8)]})
    monkeypatch.setattr(turns, "REST", 0.0)
    monkeypatch.setitem(CONTESTANTS, "someone else", contestants.PlainNumpy)
    monkeypatch.setattr(sys, "argv", ["bench.cpu", "--quick", "--out", str(tmp_path)])
    only = ["machine", "steps", "one-thread", "memory", "scaling"]
    monkeypatch.setattr(command, "PARTS", {name: parts.PARTS[name] for name in only})
    assert command.main() == 0
    (written,) = tmp_path.glob("*.json")
    found = json.loads(written.read_text(encoding="utf-8"))
    steps = {row["contestant"]: row for row in found["parts"]["steps"]}
    assert list(steps) == list(CONTESTANTS)
    assert "error" in steps["someone else"]  # its process does not know it
    assert steps[OURS]["times_ours"] == [1.0, 1.0, 1.0]
    assert steps[FLOOR]["times_floor"] == [1.0, 1.0, 1.0]
    for name in (OURS, "plain NumPy", "scikit-learn"):
        assert len(steps[name]["us"]) == 2
        assert steps[name]["steps_per_s"] == pytest.approx(
            1e6 / np.median(steps[name]["us"]), rel=1e-9
        )
    page = written.with_suffix(".md").read_text(encoding="utf-8")
    for word in ("8-6-3, batch 10", "scikit-learn", "KeyError", "slope", "budget"):
        assert word in page
    rows = {row["contestant"]: row for row in found["parts"]["memory"] if "error" not in row}
    assert rows[OURS]["training_mb"] < rows[OURS]["budget_mb"]
    if plotting_problem() is None:
        assert written.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


def test_one_of_ours_that_fails_is_an_exit_status(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(
        command, "PARTS", {"starting": lambda _: [{"contestant": OURS, "what": "", "error": "no"}]}
    )
    monkeypatch.setattr(sys, "argv", ["bench.cpu", "--out", str(tmp_path)])
    assert command.main() == 1
    assert capsys.readouterr().err == "no\n"


def test_a_folder_that_cannot_be_written(monkeypatch, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(sys, "argv", ["bench.cpu", "--out", str(tmp_path / "file" / "sub")])
    assert command.main() == 2
    assert "--out: cannot write into" in capsys.readouterr().err


@pytest.mark.slow
def test_a_profile_adds_up():
    done = subprocess.run(
        [sys.executable, "-m", "bench.cpu", "--profile", "1"],
        cwd=ROOT,
        env=environment(OPENBLAS_CORETYPE="Haswell"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    head, *lines = done.stdout.splitlines()
    assert head.startswith("784-128-10, batch 32, float32")
    assert sum("matmul" in line for line in lines) == 5
    whole = float(head.split(":")[1].split()[0])
    parts_us = [float(line.rsplit(" us", 1)[0].split()[-1].replace(",", "")) for line in lines]
    assert lines[-1].split()[0] == "Python"
    assert parts_us[-1] < 25 + whole / 4  # of a whole step of two layers, on a busy machine
    assert 0.5 < sum(parts_us) / whole < 3


def test_spreads():
    assert turns.Spread.of([3.0]) == turns.Spread(3.0, 3.0, 3.0)
    assert turns.Spread.of([1.0, 2.0, 3.0, 4.0, 5.0]) == turns.Spread(3.0, 2.0, 4.0)
    assert turns.ratios([2.0, 9.0], [1.0, 3.0]) == [2.0, 3.0]


def test_what_each_tool_costs():
    """A short run; every tool has a line."""
    done = subprocess.run(
        [sys.executable, "-m", "bench.tools", "--turns", "2"],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    lines = done.stdout.splitlines()[2:]
    assert len(lines) == 16
    assert all(float(line.split(" | ")[2].split()[0]) > 0 for line in lines)
