"""The benchmark: that all contestants do the same work, and what it does when one fails."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest

from bench.cpu import __main__ as command
from bench.cpu import contestants, parts, problems, report, turns
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


PYTORCH = pytest.param("PyTorch", marks=pytest.mark.needs("torch"))
FLUSHED = pytest.param("PyTorch, subnormals flushed", marks=pytest.mark.needs("torch"))
JAX = pytest.param("JAX", marks=pytest.mark.needs("jax"))


@pytest.fixture
def keep_subnormals():
    """Undo what PyTorch may have been told: this thread runs other tests as well."""
    yield
    if "torch" in sys.modules:
        sys.modules["torch"].set_flush_denormal(False)


def after(name, problem, *epochs):
    """Train from the common start, in one or several calls; gives the parameters."""
    made = CONTESTANTS[name](problem, 1)
    start = problems.initial_weights(problem.widths, problem.dtype, 0)
    if isinstance(made, contestants.Xpnet):
        for i, (W, b) in enumerate(start):
            made.network.layers[i].W[...] = W
            made.network.layers[i].b[...] = b
    for n in epochs:
        made.train(n)
    return parameters_of(made)


def parameters_of(made):
    """Give weights and biases, layer by layer."""
    if isinstance(made, contestants.Xpnet):
        return [array.copy() for layer in made.network.layers for array in (layer.W, layer.b)]
    if isinstance(made, contestants.ScikitLearn):
        pairs = zip(made.model.coefs_, made.model.intercepts_, strict=True)
        return [array for pair in pairs for array in pair]
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
    [OURS, PYTORCH, FLUSHED, JAX],
)
@pytest.mark.usefixtures("keep_subnormals")
def test_contestants_take_the_same_steps(name, problem):
    expected = after("plain NumPy", problem, 20)
    found = after(name, problem, 20)
    start = [a for pair in problems.initial_weights(problem.widths, "float64", 0) for a in pair]
    for first, second, before in zip(found, expected, start, strict=True):
        np.testing.assert_allclose(first, second, rtol=1e-7, atol=1e-9)
        assert np.abs(second - before).max() > 1e-3


@pytest.mark.parametrize("name", [OURS, "plain NumPy", "scikit-learn", PYTORCH, JAX])
def test_training_continues_from_call_to_call(name):
    """Ten calls of one epoch give what one call of ten does: Adam's moments are kept."""
    problem = replace(SEVERAL, epochs=10)
    expected = after(name, problem, 10)
    for first, second in zip(after(name, problem, *[1] * 10), expected, strict=True):
        np.testing.assert_allclose(first, second, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", [OURS, "plain NumPy", "scikit-learn", PYTORCH, JAX])
def test_training_starts_again(name):
    made = CONTESTANTS[name](SEVERAL, 1)
    made.train(2)
    first = parameters_of(made)
    made.start()
    made.train(2)
    for array, before in zip(parameters_of(made), first, strict=True):
        np.testing.assert_allclose(array, before, rtol=1e-9, atol=1e-12)


def test_xpnet_visits_the_samples_in_another_order_in_each_call(monkeypatch):
    from xpnet import training

    seeds = []
    monkeypatch.setattr(training, "fit", lambda *_, seed, **__: seeds.append(seed))
    made = contestants.Xpnet(SEVERAL, 1)
    for n_steps in (0, 5):
        made.state.steps[0] = n_steps
        made.train(1)
    assert seeds == [0, 5]


@pytest.mark.needs("torch")
@pytest.mark.usefixtures("keep_subnormals")
def test_pytorch_flushes_subnormal_numbers_where_it_is_told_to():
    for chosen, is_zero in ((contestants.PyTorch, False), (contestants.FlushedPyTorch, True)):
        torch = chosen(SEVERAL, 1).torch
        assert bool(torch.tensor([1e-30]) * 1e-10 == 0) is is_zero


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


def test_nobody_is_given_a_blas_kernel_or_threads_chosen_by_hand(monkeypatch):
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    monkeypatch.setenv("OPENBLAS_L2_SIZE", "512")
    monkeypatch.setenv("XPNET_THREADS", "1")
    for name in CONTESTANTS:
        chosen = turns.environment(name, 2)
        assert not {"OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE", "XPNET_THREADS"} & set(chosen)
        assert chosen["OPENBLAS_NUM_THREADS"] == chosen["OMP_NUM_THREADS"] == "2"
        assert chosen["XPNET_KERNELS"] == ("reference" if name == "xpnet, reference" else "")


def test_data_with_rarely_active_features():
    problem = Problem((200, 3), 10, 10_000, active=1e-3)
    X, y = problems.data_of(problem, as_bytes=False)
    again, y_again = problems.data_of(problem, as_bytes=False)
    np.testing.assert_array_equal(X, again)
    np.testing.assert_array_equal(y, y_again)
    active = (X != 0).mean(axis=0)
    assert active[0] > 0.99
    np.testing.assert_allclose(active, np.geomspace(1, 1e-3, 200), rtol=0.3, atol=2e-3)
    pixels, _ = problems.data_of(problem, as_bytes=True)
    assert pixels.dtype == np.uint8
    assert not pixels[X == 0].any()
    assert (pixels[X != 0] != 0).mean() > 0.99
    everything, _ = problems.data_of(replace(problem, active=1.0), as_bytes=False)
    assert (everything != 0).mean() > 0.99


def test_a_processor_is_kept_busy_until_the_block_ends():
    before = os.times().children_user
    with turns.busy_processor(1) as process:
        assert process.poll() is None
        time.sleep(1)
    assert process.returncode is not None
    assert os.times().children_user - before > 0.1  # beside other tests
    with pytest.raises(KeyboardInterrupt), turns.busy_processor(1) as process:
        raise KeyboardInterrupt
    assert process.returncode is not None


def test_a_busy_process_does_not_outlive_the_benchmark():
    with turns.busy_processor(1) as process:
        process.communicate(timeout=30)  # closes its input, as the system does at our end
        assert process.returncode == 0


def test_a_process_has_variables_of_its_own():
    environments = {"good": {}, "bad": {"XPNET_DEVICE": "nonsense"}}
    found = turns.compare_environments(Problem((4, 3), 5, 10), OURS, environments, 1, 2)
    assert len(found["good"]["us"]) == 2
    assert "nonsense" in found["bad"]["error"]


@pytest.mark.parametrize("problem", problems.NETWORKS, ids=lambda problem: problem.name)
def test_a_short_turn_takes_the_same_kind_of_steps(problem):
    short = parts._short_turn(problem, 0.5)
    assert short.n_steps > 1
    assert short.n_samples <= problem.n_samples
    assert short.name == problem.name


def test_one_processor_leaves_no_choice_of_threads():
    rows = parts.threads(parts.Settings(1, is_quick=True, say=print))
    assert report._threads(rows) == ["Skipped: one processor leaves no choice."]


@pytest.mark.slow
def test_a_page_of_a_small_run(monkeypatch, tmp_path):
    """All parts at sizes that take no time; a contestant that fails has its line and no more."""
    tiny = (Problem((8, 6, 3), 10, 40), Problem((8, 6, 1), 40, 40, dtype="float64"))
    monkeypatch.setattr(parts, "NETWORKS", tiny)
    monkeypatch.setattr(parts, "_series", lambda _: {"width": [(w, tiny[0]) for w in (2, 8)]})
    monkeypatch.setattr(turns, "PAUSE", 0.0)
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
    assert found["shares_core"] in ("yes, measured", "no, measured", "not measured")
    described = f"{found['processor']}; processors share a core: {found['shares_core']}."
    for part in page.split("\n## ")[1:]:
        has_times = not part.startswith(("The machine", "Memory"))
        assert (part.splitlines()[2] == described) is has_times
    assert f"| processors share a core | {found['shares_core']} |" in page
    rows = {row["contestant"]: row for row in found["parts"]["memory"] if "error" not in row}
    assert rows[OURS]["training_mb"] < rows[OURS]["budget_mb"]
    if plotting_problem() is None:
        assert written.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_a_page_of_busy_epochs_and_threads(monkeypatch):
    monkeypatch.setattr(parts, "NETWORKS", (Problem((8, 6, 3), 10, 40),))
    monkeypatch.setattr(turns, "PAUSE", 0.0)
    names = (OURS, FLOOR, "plain NumPy", "scikit-learn")
    chosen = {name: CONTESTANTS[name] for name in names}
    chosen["someone else"] = contestants.PlainNumpy  # whose process does not know it
    monkeypatch.setattr(parts, "CONTESTANTS", chosen)
    settings = parts.Settings(2, is_quick=True, say=lambda _: None)
    rows = {name: parts.PARTS[name](settings) for name in ("busy", "epochs", "threads")}
    assert [row["contestant"] for row in rows["busy"]] == list(chosen)
    assert rows["busy"][0]["times_ours"] == (1.0, 1.0, 1.0)
    epochs = {row["contestant"]: row for row in rows["epochs"]}
    assert list(epochs) == [OURS, "plain NumPy", "scikit-learn", "someone else"]
    for name in (OURS, "plain NumPy", "scikit-learn"):
        ((*us,),) = epochs[name]["us"]  # one training
        assert len(us) == 10
        assert epochs[name]["last_to_first"] == (us[-1] / us[0],) * 3
    assert [row["load"] for row in rows["threads"]] == ["quiet", "one busy"]
    for row in rows["threads"]:
        own, *others = (np.median(us) for us in row["us"].values())
        assert row["times_better"][0] == pytest.approx(own / min(others))
        assert [len(us) for us in row["us"].values()] == [2, 2, 2]
    found = {"date": "2026-01-01", "processor": "A", "shares_core": "not measured", "seconds": 1.0}
    page = report.page({**found, "parts": json.loads(json.dumps(rows))}, None)
    assert page.count("\n\nA; processors share a core: not measured.\n\n") == 3
    lines = page.splitlines()
    assert sum(line.startswith("| 8-6-3, batch 10 | ") for line in lines) == 2
    assert sum(line.startswith("| someone else | ") and "KeyError" in line for line in lines) == 2
    for title in ("us a step in epoch 10", "epoch 10 / epoch 1", "own / better", "times floor"):
        assert title in page


def test_every_part_has_its_table():
    assert list(report._PARTS) == list(parts.PARTS)


def test_one_of_ours_that_fails_is_an_exit_status(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(command, "describe_processor", lambda _: {"processor": "A"})
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
    parts_us = [float(line.rsplit(" us", 1)[0].split()[-1].replace(",", "")) for line in lines[:-1]]
    assert lines[-1].endswith("us if Python calls each operation")
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
