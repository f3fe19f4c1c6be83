"""The team of threads: loops and training that it shares, several callers, forks and signals."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import threading
from pathlib import Path

import numpy as np
import pytest

import xpnet
from tests.conftest import slow, traced_peak
from tests.kernels.cases import ROWS, call_in_place, case, copies
from tests.kernels.teams import SETUP, THREADS, run, team_of
from xpnet import nn, training
from xpnet.kernels import host
from xpnet.kernels.catalogue import ColumnReduce, Elementwise, Rowwise

pytestmark = [pytest.mark.host]
if os.environ.get("CI") != "true":
    reason = "there are no host kernels, or NumPy's BLAS is not OpenBLAS"
    pytestmark += [pytest.mark.skipif(not host.shared(), reason=reason)]


def test_predictions_while_a_network_is_trained():
    """Several threads predict with one network, which shares the team with a training."""
    rng = np.random.default_rng(0)
    X = rng.integers(0, 256, (1500, 300), dtype=np.uint8)
    y = rng.integers(0, 10, len(X))
    device = xpnet.device("cpu", "fused")
    layers = [nn.Dense(256, "relu"), nn.Dense(10)]
    network = nn.Network(layers, 300, device=device)
    found: list[np.ndarray] = []
    with team_of(2):
        expected = network.predict(X, batch_size=400, divide_by=255)

        def predict():
            found.extend(network.predict(X, batch_size=400, divide_by=255) for _ in range(20))

        threads = [threading.Thread(target=predict) for _ in range(3)]
        for thread in threads:
            thread.start()
        trained = []
        for _ in range(2):
            other = nn.Network([layer.clone() for layer in layers], 300, device=device)
            training.fit(
                other,
                X,
                y,
                loss="softmax_cross_entropy",
                optimizer="adam",
                epochs=3,
                batch_size=128,
                divide_by=255,
            )
            trained.append(other.parameters)
        for thread in threads:
            thread.join()
    assert len(found) == 60
    assert all(np.array_equal(logits, expected) for logits in found)
    np.testing.assert_array_equal(*trained)


LONG = [name for name, row in ROWS.items() if not isinstance(row, Rowwise) and name != "adam_tick"]


@pytest.mark.parametrize("name", LONG)
def test_a_shared_loop_computes_the_same(name):
    """The threads write every element, each once, whatever they share a loop into.

    The parts whose rows are added up follow from the shape and the machine, not from the threads.
    """
    operation = host.fused()[name]
    shapes = [(97, 701), (701, 97), (1, 70_001), (5, 9_001)]
    if isinstance(ROWS[name], ColumnReduce):
        shapes.append((300, 3_000))  # more columns than there is room for their sums
    for shape in shapes:
        arguments = case(name, shape, "ordinary")
        expected = None
        for far, n_threads in itertools.product((False, True), THREADS):
            own = copies(arguments)
            with team_of(n_threads, far=far):
                written = call_in_place(operation, ROWS[name], own)
            found = {k: v for k, v in own.items() if isinstance(v, np.ndarray)} | written
            expected = expected or found
            for key, first in expected.items():
                np.testing.assert_array_equal(found[key], first, f"{shape=}, {far=}, {n_threads=}")


def test_far_and_near_are_the_same_bits():
    """A long update, which far threads take a stretch at a time."""
    found = []
    for far in (False, True):
        arguments = case("adam_update", (300_001,), "ordinary")
        with team_of(2, far=far):
            host.fused()["adam_update"](**arguments)
        found.append([v for v in arguments.values() if isinstance(v, np.ndarray)])
    for first, second in zip(*found, strict=True):
        np.testing.assert_array_equal(first, second)


def test_numbered_elements_are_not_divided_into_columns():
    """A part knows the number of its first element where it has whole rows, or there is one row."""
    for row in ROWS.values():
        if isinstance(row, Elementwise) and row.words:
            assert all(operand.layout != "column" for operand in row.operands)


def test_many_callers_of_loops_at_once():
    rng = np.random.default_rng(0)
    dA, A = (rng.standard_normal((300, 400)).astype(np.float32) for _ in range(2))
    operation = host.fused()["relu_grad"]
    failures = []

    def compute(expected):
        out, db = np.empty_like(A), np.empty(400, np.float32)
        for _ in range(100):
            operation(dA, A, out=out, db=db)
            if not (np.array_equal(out, expected[0]) and np.array_equal(db, expected[1])):
                failures.append(1)

    with team_of(3):
        expected = np.empty_like(A), np.empty(400, np.float32)
        operation(dA, A, out=expected[0], db=expected[1])
        callers = [threading.Thread(target=compute, args=(expected,)) for _ in range(4)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
    assert not failures


def test_the_loops_of_a_stack():
    rng = np.random.default_rng(0)
    Z, b = rng.standard_normal((5, 90, 300)), rng.standard_normal((5, 300))
    with team_of(3):
        A = host.fused()["relu"](Z, b)
    np.testing.assert_array_equal(A, np.maximum(Z + b[:, None, :], 0))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
@pytest.mark.parametrize("busy", [False, True])
def test_a_fork_takes_no_threads_along(busy):
    """Python warns of forks beside other threads; parent and child go on with new ones."""
    code = """
import threading
stopped = threading.Event()
def work():
    other = np.empty_like(A)
    while not stopped.is_set():
        matmul(A, A, out=other)
for _ in range(3 * BUSY):  # of three, one has the team
    threading.Thread(target=work, daemon=True).start()
time.sleep(0.05)
import importlib, sys
del sys.modules["xpnet.kernels._host"]
importlib.import_module("xpnet.kernels._host")  # an extension module may be imported again
child = os.fork()
if child == 0:
    ok = all((matmul(A, A, out=out) == expected).all() for _ in range(50))
    os._exit(0 if ok and host.count_threads() == 2 else 1)
stopped.set()
matmul(A, A, out=out)
assert (out == expected).all()
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    first = "import warnings; warnings.simplefilter('ignore' if BUSY else 'error')\n"
    assert run(f"BUSY = {busy}\n{first}{SETUP}{code}") == "0\n"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_forks_while_others_compute():
    """Small products, which nobody shares, hold the BLAS's locks; a child must not inherit them."""
    code = """
import signal, threading
small = np.ascontiguousarray(A[:24, :24])
right = matmul(small, small, out=np.empty_like(small)).copy()
def work():
    other = np.empty_like(small)
    while True:
        matmul(small, small, out=other)
for _ in range(4):
    threading.Thread(target=work, daemon=True).start()
for _ in range(40):
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        mine = matmul(small, small, out=np.empty_like(small))
        os._exit(0 if (mine == right).all() and host.count_threads() == 2 else 1)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code == 0, code
print("done", flush=True)
os._exit(0)
"""
    first = "import warnings; warnings.simplefilter('ignore')\n"
    assert run(first + SETUP + code) == "done\n"


def compile_and_run(name, folder):
    source = Path(__file__).with_name(f"{name}.cpp")
    include = str(Path(host.__file__).resolve().parent)
    command = ["c++", "-O1", "-std=c++17", "-pthread", f"-I{include}", str(source), "-o"]
    subprocess.run([*command, str(folder / name)], check=True, capture_output=True)
    done = subprocess.run(
        [str(folder / name)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.mark.skipif(shutil.which("c++") is None, reason="there is no C++ compiler")
def test_parts_are_done_exactly_once(tmp_path):
    assert compile_and_run("team_stress", tmp_path) == ""


@pytest.mark.skipif(shutil.which("c++") is None, reason="there is no C++ compiler")
def test_jobs_are_shared_where_that_pays(tmp_path):
    """By made-up times: what the choice costs, and how soon it follows the machine."""
    costs, changes, mistaken = compile_and_run("pace", tmp_path).splitlines()
    assert max(float(cost) for cost in costs.split()) < 1.05
    worst_fall_back, n_stayed, worst_after_idling = (int(word) for word in changes.split())
    assert 0 < worst_fall_back <= 250  # jobs: a step has some ten
    assert n_stayed == 0  # it shared again within three seconds in all cases
    assert 0 < worst_after_idling <= 400
    assert 0 < float(mistaken) < 4  # seconds; the jobs take 15 milliseconds


def test_the_team_follows_its_pace(tmp_path):
    """Jobs that take a helper longer than the caller stay with the caller, unless it is forced."""
    if shutil.which("c++") is None:
        pytest.skip("there is no C++ compiler")
    shared, forced, few = compile_and_run("team_pace", tmp_path).split()
    assert 0 < int(forced) <= 1000  # of a thousand jobs; all of them on a machine that is idle
    assert int(shared) <= max(int(forced) // 2, 50)  # tries
    assert int(few) <= 2  # threads that took part, of three, where two may


STEPS = {
    "784-128-10": ((784, 128, 10), 32),
    "of odd sizes": ((301, 257, 131, 7), 129),
    "of one output": ((1001, 61, 1), 203),
}


def train_with(n_threads, widths, batch_size, dtype, **team):
    """Take 50 steps; gives parameters, gradients, moments and statistics."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((500, widths[0])).astype(dtype)
    y = rng.integers(0, max(widths[-1], 2), len(X))
    device = xpnet.device("cpu", "fused")
    hidden = [layer for n in widths[1:-1] for layer in (nn.Dense(n), nn.BatchNorm(), "relu")]
    network = nn.Network(
        [*hidden, nn.Dropout(0.2), nn.Dense(widths[-1])], widths[0], device=device, dtype=dtype
    )
    loss = nn.SigmoidCrossEntropy() if widths[-1] == 1 else nn.SoftmaxCrossEntropy()
    rule = nn.AdamW()
    with team_of(n_threads, **team), device.activate():
        state = rule.init_state(device, network.parameters)
        step = nn.TrainingStep(
            *(network, loss, rule, state, X),
            loss.labels(device, y, widths[-1], network.dtype),
            batch_size,
            regularizer=nn.Regularizer(l2=1e-3, clip_norm=1.0),
        )
        for _ in range(50):
            step(rng.permutation(len(X))[:batch_size])
    return [network.parameters, network.gradients, network.statistics, state["m"], state["v"]]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize("processors", [slow(2), 4, slow(64)])
def test_training_is_the_same_bits_with_any_number_of_threads(name, dtype, processors):
    expected = train_with(1, *STEPS[name], dtype, processors=processors)
    for n_threads, forced in ((2, True), (3, True), (4, True), (2, False), (4, False)):
        found = train_with(n_threads, *STEPS[name], dtype, processors=processors, forced=forced)
        for first, second in zip(expected, found, strict=True):
            np.testing.assert_array_equal(first, second)


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="threads cannot be looked at")
def test_signals_are_for_the_programs_own_threads():
    code = """
from pathlib import Path
masks = [text.split("SigBlk:")[1].split()[0] for text in (
    (task / "status").read_text() for task in Path("/proc/self/task").iterdir()
)]
print(sum(int(mask, 16).bit_count() > 50 for mask in masks) >= 1, masks)
"""
    assert run(SETUP + code).startswith("True")


def test_idle_threads_sleep():
    """A process that waits uses no processor, and its team wakes up when there is work."""
    code = """
time.sleep(0.1)
before = time.process_time()
time.sleep(0.5)
used = time.process_time() - before
matmul(A, A, out=out)
print(used < 0.1, (out == expected).all())
"""
    assert run(SETUP + code) == "True True\n"


def test_a_training_step_that_is_shared_allocates_nothing():
    device = xpnet.device("cpu", "fused")
    rng = np.random.default_rng(0)
    X, y = rng.integers(0, 256, (2000, 300), dtype=np.uint8), rng.integers(0, 10, 2000)
    network = nn.Network([nn.Dense(256, "relu"), nn.Dense(10)], 300, device=device)
    loss, optimizer = nn.SoftmaxCrossEntropy(), nn.Adam()
    batches = rng.integers(0, 2000, (201, 512))
    with team_of(2), device.activate():
        state = optimizer.init_state(device, network.parameters)
        step = nn.TrainingStep(network, loss, optimizer, state, X, y, 512, 255.0)
        step(batches[0])

        def work():
            for batch in batches[1:]:
                step(batch)

        peak = traced_peak(work)
    assert peak < 512 * 4  # the losses are the smallest array of a step
