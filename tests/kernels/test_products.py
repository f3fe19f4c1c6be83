"""Matrix products and long loops, shared by a team of threads."""

from __future__ import annotations

import importlib
import itertools
import os
import shutil
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import xpnet
from tests.conftest import slow, traced_peak
from tests.devices import environment
from tests.kernels.cases import ROWS, call_in_place, case, copies
from xpnet import nn, training
from xpnet.kernels import blas, host
from xpnet.kernels.catalogue import ColumnReduce, Elementwise, Rowwise

pytestmark = [pytest.mark.host]
if os.environ.get("CI") != "true":
    reason = "there are no host kernels, or NumPy's BLAS is not OpenBLAS"
    pytestmark += [pytest.mark.skipif(not host.shared(), reason=reason)]

THREADS = (1, 2, 3, 7)
# How many threads, whether far from each other, whether all of them take part.
TEAMS = [(1, False, True), *((n, far, True) for n in (2, 3, 7) for far in (False, True))]
TEAMS += [(2, False, False), (7, True, False)]


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


def matrix(rng, shape, dtype, *, transposed=False, apart=0):
    """Draw a matrix; transposed, or as a view whose rows do not follow each other."""
    n_rows, n_columns = reversed(shape) if transposed else shape
    values = rng.standard_normal((n_rows, n_columns + apart)).astype(dtype)[:, :n_columns]
    return values.T if transposed else values


def assert_product(out, A, B):
    exact = A.astype(np.float64) @ B.astype(np.float64)
    bound = np.abs(A).astype(np.float64) @ np.abs(B).astype(np.float64)
    eps = np.finfo(out.dtype).eps
    assert (np.abs(out - exact) <= A.shape[1] * eps * bound + np.finfo(out.dtype).tiny).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("m", "k", "n"),
    [
        (128, 784, 256),
        (784, 128, 256),
        (2, 3000, 200),
        (997, 131, 61),
        (61, 131, 997),
        (512,) * 3,
        slow(1200, 80, 3600),  # two or three parts are too large for their own memory
        (30, 5000, 30),
        (1000, 10, 1000),
        (32, 784, 128),  # parts that are small enough for the BLAS to rearrange nothing
        (3000, 200, 1),  # by vectors
        (1, 200, 3000),
        (700, 1, 900),
        (1, 5000, 1),
        (50, 900, 63),  # of columns that are too few for four parts
    ],
)
def test_product(dtype, m, k, n):
    """The product is right, and its bits do not depend on which threads compute it."""
    rng = np.random.default_rng(m)
    for A_transposed, B_transposed, apart in [(0, 0, 0), (1, 0, 3), (0, 1, 1), (1, 1, 0)]:
        A = matrix(rng, (m, k), dtype, transposed=A_transposed, apart=apart)
        B = matrix(rng, (k, n), dtype, transposed=B_transposed, apart=apart)
        expected = None
        for number, (n_threads, far, forced) in enumerate(TEAMS):
            # What lies between the rows of the result stays; one of them has nothing there.
            whole = np.full((m, n + apart * (number != 1)), np.nan, dtype)
            out = whole[:, :n]
            with team_of(n_threads, far=far, forced=forced) as matmul:
                assert matmul(A, B, out=out) is out
            assert np.isnan(whole[:, n:]).all()
            if expected is None:
                assert_product(out, A, B)
                expected = out
            np.testing.assert_array_equal(out, expected, f"{n_threads=}, {far=}, {forced=}")


@given(
    *(st.integers(0, 40) for _ in range(3)),
    *(st.booleans() for _ in range(2)),
    st.integers(0, 2),
    st.sampled_from([np.float32, np.float64]),
    st.sampled_from(["out", "positional", "none"]),
)
def test_whatever_numpy_multiplies(m, k, n, A_transposed, B_transposed, apart, dtype, how):
    rng = np.random.default_rng(0)
    A = matrix(rng, (m, k), dtype, transposed=A_transposed, apart=apart)
    B = matrix(rng, (k, n), dtype, transposed=B_transposed, apart=apart)
    matmul = host.shared()["matmul"]
    if how == "none":
        out = matmul(A, B)
    else:
        out = np.empty((m, n), dtype)
        assert (matmul(A, B, out=out) if how == "out" else matmul(A, B, out)) is out
    assert (out.dtype, out.shape) == (dtype, (m, n))
    assert_product(out, A, B)


def test_what_is_no_product_of_two_matrices_is_numpys():
    matmul = host.shared()["matmul"]
    rng = np.random.default_rng(0)
    A, B = rng.standard_normal((3, 4, 5)), rng.standard_normal((3, 5, 2))
    np.testing.assert_array_equal(matmul(A, B), A @ B)
    out = np.empty((3, 4, 2))
    np.testing.assert_array_equal(matmul(A, B, out=out), A @ B)
    np.testing.assert_array_equal(matmul(A[0], B[0, :, 0]), A[0] @ B[0, :, 0])
    np.testing.assert_array_equal(matmul(A[0].tolist(), B[0]), A[0] @ B[0])
    square = rng.standard_normal((64, 64))
    expected = square @ square
    matmul(square, square, out=square)  # NumPy sees that they overlap
    np.testing.assert_array_equal(square, expected)
    reversed_rows = np.empty((64, 64))[::-1]
    matmul(expected, expected, out=reversed_rows)
    np.testing.assert_array_equal(reversed_rows, expected @ expected)
    swapped = expected.astype(expected.dtype.newbyteorder())
    np.testing.assert_array_equal(
        matmul(swapped, expected, out=np.empty((64, 64))), swapped @ expected
    )

    class Own(np.ndarray):
        def __array_ufunc__(self, *arguments, **options):
            return "intercepted"

    assert matmul(square.view(Own), square, out=np.empty((64, 64))) == "intercepted"
    mixed = matmul(expected.astype(np.float32), expected, out=np.empty((64, 64)))
    np.testing.assert_array_equal(mixed, expected.astype(np.float32) @ expected)


@pytest.mark.parametrize(
    ("shapes", "expected"),
    [
        ([(2, 3), (2, 3), (2, 3)], "mismatch"),
        ([(20, 30), (30, 40), (20, 41)], "mismatch|broadcast"),
    ],
)
def test_shapes_that_do_not_fit(shapes, expected):
    A, B, out = (np.ones(shape) for shape in shapes)
    with pytest.raises(ValueError, match=expected):
        host.shared()["matmul"](A, B, out=out)


def test_a_read_only_result():
    out = np.empty((20, 20))
    out.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        host.shared()["matmul"](np.ones((20, 20)), np.ones((20, 20)), out=out)


@pytest.mark.parametrize("n_threads", THREADS)
def test_the_blas_gets_its_threads_back(n_threads):
    A = np.ones((300, 300))
    out = np.empty_like(A)
    with team_of(n_threads) as matmul:
        matmul(A, A, out=out)
        import threadpoolctl

        pools = [p for p in threadpoolctl.threadpool_info() if p["internal_api"] == "openblas"]
        assert pools
        assert {pool["num_threads"] for pool in pools} == {n_threads}
        assert host.count_threads() == n_threads


def test_a_limit_set_during_a_product_stays():
    """Whoever sets the BLAS's threads while it is held at one is left with what they set."""
    import threadpoolctl

    A = np.ones((1500, 1500))
    out = np.empty_like(A)
    started, controller = threading.Event(), threadpoolctl.ThreadpoolController()

    def multiply():
        started.set()
        for _ in range(4):
            matmul(A, A, out=out)

    with team_of(3) as matmul:
        thread = threading.Thread(target=multiply)
        thread.start()
        started.wait()
        time.sleep(0.02)
        limit = controller.limit(limits=2, user_api="blas")
        thread.join()
        assert host.count_threads() in (2, 3)  # 3 where no product was in progress just then
        limit.restore_original_limits()


CYCLES = """
import threading, threadpoolctl
import numpy as np
old = threadpoolctl.ThreadpoolController()  # made before xpnet was loaded, so without it
from xpnet import nn, training
from xpnet.kernels import blas, host
assert host.count_threads() == 2

def cycle():
    for _ in range(N):
        with LIMIT(limits=1, user_api="blas"):
            pass

def fit():
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((2000, 200)), rng.integers(0, 3, 2000)
    network = nn.Network([nn.Dense(256, "relu"), nn.Dense(3)], 200)
    options = {"loss": "softmax_cross_entropy", "optimizer": "adam", "batch_size": 256}
    training.fit(network, X, y, epochs=1, **options)

limiting = threading.Thread(target=cycle)
limiting.start()
while limiting.is_alive():
    fit()
fit()
print(host.count_threads(), blas.count_blas_threads())
"""


NEW = "threadpoolctl.ThreadpoolController().limit"


@pytest.mark.parametrize(("limit", "n"), [("old.limit", 2000), (NEW, 300), slow(NEW, 2000)])
def test_limits_in_another_thread_leave_no_limit(limit, n):
    """A limit that begins while a product runs finds one thread, and puts that back at its end."""
    assert run(CYCLES.replace("LIMIT", limit).replace("range(N)", f"range({n})")) == "2 2\n"


THREADS_OF = """
import ctypes, threading, threadpoolctl
import numpy as np
old = threadpoolctl.ThreadpoolController()  # made before xpnet was loaded, so without it
from xpnet.kernels import blas, host
set_threads = ctypes.CFUNCTYPE(None, ctypes.c_int)(blas.numpy_blas().set_threads)

def threads():
    A, out = np.ones((300, 300)), np.empty((300, 300))
    host.shared()["matmul"](A, A, out=out)
    return host.count_threads(), blas.count_blas_threads()

"""


def test_one_thread_is_leftover_or_asked_for():
    """Left by another thread of Python it is set right; what the user asks for stays."""
    code = """
print(threads())
with old.limit(limits=1):  # nobody else is there: it is the user's
    print(threads())
with threadpoolctl.threadpool_limits({"libscipy_openblas": 1}):
    print(threads())
with threadpoolctl.threadpool_limits(1):
    print(threads())
set_threads(1)
print(threads())
set_threads(2)
stop = threading.Event()
threading.Thread(target=stop.wait).start()
print(threads())
set_threads(1)  # as by a thread that saved a 1
print(threads())
with threadpoolctl.threadpool_limits(1):
    print(threads())
    set_threads(1)
    print(threads())
print(threads())
kept = threadpoolctl.threadpool_limits(1)
print(threads())
stop.set()
"""
    one, two = "(1, 1)", "(2, 2)"
    found = run(THREADS_OF + code).split("\n")[:-1]
    assert found == [two, one, one, one, one, two, two, one, one, two, one]


@pytest.mark.parametrize("chosen", ["", "1"])
def test_other_limits_leave_the_blas_as_it_is(chosen):
    """threadpoolctl saves and restores our number with all others, whatever is limited."""
    code = """
with old.limit(limits=1):
    threads()
    for limits, api in ((1, "openmp"), (None, None), (1, "blas"), (2, None)):
        with threadpoolctl.threadpool_limits(limits, api):
            threads()
for _ in range(2):
    print(*threads())
    with threadpoolctl.threadpool_limits(1, "openmp"):
        threads()
with threadpoolctl.threadpool_limits(2):
    print(*threads())
print(*threads())
"""
    line = f"{chosen or 2} 2\n"
    assert run(THREADS_OF + code, XPNET_THREADS=chosen) == 4 * line


def test_a_limit_of_one_that_begins_during_a_product_stays():
    code = """
limited, ended = threading.Event(), threading.Event()
A = np.ones((1500, 1500))

def multiply():
    while not limited.is_set():
        host.shared()["matmul"](A, A, out=np.empty_like(A))
    ended.set()

threading.Thread(target=multiply).start()
time.sleep(0.05)
kept = threadpoolctl.threadpool_limits(1)
limited.set()
ended.wait()
print(blas.count_blas_threads(), *threads())
"""
    assert run(f"import time{THREADS_OF}{code}") == "1 1 1\n"


@pytest.mark.parametrize(
    ("chosen", "blas_threads", "expected"), [("1", "2", 1), ("2", "2", 2), ("3", "2", 2)]
)
def test_threads_by_hand(chosen, blas_threads, expected):
    """All of them take part, but no more than the BLAS is set to."""
    code = """
A, out = np.ones((900, 900)), np.empty((900, 900))
before = len(os.listdir("/proc/self/task"))
print(host.count_threads())
for _ in range(20):
    host.shared()["matmul"](A, A, out=out)
print(len(os.listdir("/proc/self/task")) - before)
"""
    code = f"import os{THREADS_OF}{code}"
    if Path("/proc/self/task").exists():
        done = run(code, XPNET_THREADS=chosen, OPENBLAS_NUM_THREADS=blas_threads)
        assert done == f"{expected}\n{expected - 1}\n"


@pytest.mark.parametrize("chosen", ["abc", "0", "65", "-1", "1.5", "\N{SUPERSCRIPT TWO}"])
def test_a_wrong_number_of_threads(monkeypatch, chosen):
    monkeypatch.setenv("XPNET_THREADS", chosen)
    with pytest.raises(ValueError, match=f"XPNET_THREADS must be .* from 1 to 64, got '{chosen}'"):
        blas.chosen_threads()
    host.shared.cache_clear()
    try:
        with pytest.raises(ValueError, match="XPNET_THREADS"):
            xpnet.device("cpu", "fused")
    finally:
        monkeypatch.delenv("XPNET_THREADS")
        restore_threads()


def test_many_callers_at_once():
    # One of them has the team; the others compute by themselves, divided in the same way.
    rng = np.random.default_rng(0)
    A, B = (rng.standard_normal((256, 256)).astype(np.float32) for _ in range(2))
    failures = []

    def compute(matmul, expected):
        out = np.empty_like(A)
        for _ in range(200):
            out.fill(np.nan)
            matmul(A, B, out=out)
            if not np.array_equal(out, expected):
                failures.append(out)

    with team_of(3) as matmul:
        expected = matmul(A, B, out=np.empty_like(A)).copy()
        callers = [threading.Thread(target=compute, args=(matmul, expected)) for _ in range(4)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
        assert host.count_threads() == 3
    assert not failures


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
importlib.import_module("xpnet.kernels._host")  # an extension module may be imported anew
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
    costs, changes = compile_and_run("pace", tmp_path).splitlines()
    assert max(float(cost) for cost in costs.split()) < 1.05
    worst_fall_back, n_stayed, worst_after_idling = (int(word) for word in changes.split())
    assert 0 < worst_fall_back <= 250  # jobs: a step has some ten
    assert n_stayed == 0  # it shared again within three seconds in all cases
    assert 0 < worst_after_idling <= 400


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


def test_no_more_threads_than_processors():
    with team_of(3):
        host._module().use_threads(PARTS, 2, 0)
        assert host.count_threads() == 2


def test_arrays_in_large_pages():
    """Inside an active device, and again as before when it is left, by an error too."""
    multiarray: Any = importlib.import_module("numpy._core.multiarray")
    name = multiarray.get_handler_name
    device, before = xpnet.device("cpu", "fused"), name()
    assert before == "default_allocator"  # whatever the tests before have activated
    with device.activate():
        dirty = np.empty(6 << 20, np.uint8)
        dirty.fill(255)
        if name() != before:  # where the system has large pages
            assert name(dirty) == "xpnet_large_pages"
            assert dirty.ctypes.data % (2 << 20) == 0
        del dirty
        assert not np.zeros(6 << 20, np.uint8).any()  # of memory that has been used
        grown = np.ones(3 << 20, np.uint8)
        grown.resize(9 << 20, refcheck=False)
        assert grown[: 3 << 20].all()
        assert not grown[3 << 20 :].any()
    assert name() == before
    with pytest.raises(KeyError), device.activate():
        raise KeyError
    assert name() == before
    with xpnet.device("cpu", "reference").activate():
        assert name() == before


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


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="processes cannot be pinned")
def test_one_processor_is_not_shared():
    # OpenBLAS makes its threads when NumPy is imported, of the team's there are none.
    code = "import os, numpy; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
    code += "before = len(os.listdir('/proc/self/task'))\n" + SETUP
    code += "print(host.count_threads(), len(os.listdir('/proc/self/task')) - before)\n"
    assert run(code) == "1 0\n"


@pytest.mark.parametrize(
    ("own", "files", "expected"),
    [
        ("0::/", {"cpu.max": "max 100000\n"}, 64),
        ("0::/", {"cpu.max": "150000 100000\n"}, 2),
        ("0::/", {"cpu.max": "5000 100000\n"}, 1),
        ("0::/", {"cpu.max": "nonsense"}, 64),
        ("0::/", {}, 64),
        ("0::/a.slice/b", {"a.slice/cpu.max": "300000 100000", "a.slice/b/cpu.max": "max 1"}, 3),
        ("0::/a/b", {"a/cpu.max": "900000 100000", "a/b/cpu.max": "200000 100000"}, 2),
        ("0::/on/the/host", {"cpu.max": "200000 100000"}, 2),
        ("3:cpu,cpuacct:/", {"cpu.cfs_quota_us": "-1", "cpu.cfs_period_us": "100000"}, 64),
        ("3:cpu,cpuacct:/", {"cpu.cfs_quota_us": "250000", "cpu.cfs_period_us": "100000"}, 3),
        ("3:cpu,cpuacct:/pod", {"pod/cpu.cfs_quota_us": "5000", "pod/cpu.cfs_period_us": "1"}, 64),
        ("4:memory:/", {"cpu.cfs_quota_us": "5", "cpu.cfs_period_us": "5"}, 64),
        ("3:cpu,cpuacct:/", {"cpu.cfs_quota_us": "5", "cpu.cfs_period_us": "0"}, 64),
        ("no colon\n\n0::/", {"cpu.max": "200000 100000"}, 2),
        ("0::/\udcff", {"cpu.max": "200000 100000"}, 2),
    ],
)
def test_the_quota_of_a_container_counts(monkeypatch, tmp_path, own, files, expected):
    text = f"9:hugetlb:/other\n{own}\n"
    (tmp_path / "own").write_text(text, encoding="utf-8", errors="surrogateescape")
    controllers = own.splitlines()[-1].split(":")[1]
    for name, text in files.items():
        path = tmp_path / "groups" / controllers / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.setattr(blas, "_OWN_CGROUPS", tmp_path / "own")
    monkeypatch.setattr(blas, "_CGROUPS", tmp_path / "groups")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    assert blas.available_cpus() == expected
    monkeypatch.setattr(blas, "_OWN_CGROUPS", tmp_path / "none")
    assert blas.available_cpus() == 64


@pytest.mark.parametrize("mount", ["cpu", "cpu,cpuacct"])
def test_a_quota_is_found_whatever_the_order_of_names(monkeypatch, tmp_path, mount):
    (tmp_path / "own").write_text("4:cpuacct,cpu:/\n")
    (tmp_path / mount).mkdir()
    (tmp_path / mount / "cpu.cfs_quota_us").write_text("200000")
    (tmp_path / mount / "cpu.cfs_period_us").write_text("100000")
    monkeypatch.setattr(blas, "_OWN_CGROUPS", tmp_path / "own")
    monkeypatch.setattr(blas, "_CGROUPS", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    assert blas.available_cpus() == 2


def test_cores_are_counted_once(monkeypatch, tmp_path):
    monkeypatch.setattr(blas, "_TOPOLOGY", tmp_path)
    monkeypatch.setattr(blas, "_OWN_CGROUPS", tmp_path / "none")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 5}, raising=False)
    assert blas.available_cores() == 4  # the system does not say
    for n, siblings in ((0, "0-1"), (1, "0-1"), (2, "2,6"), (5, "5")):
        (tmp_path / f"cpu{n}" / "topology").mkdir(parents=True)
        (tmp_path / f"cpu{n}" / "topology" / "thread_siblings_list").write_text(f"{siblings}\n")
    assert blas.available_cores() == 3


def test_another_blas_is_left_alone(monkeypatch):
    """What NumPy is built on may be another library than OpenBLAS."""
    monkeypatch.setattr(blas, "_PTHREADS", 2)  # as if those of OpenMP were asked for
    assert blas.numpy_blas.__wrapped__() is None
    monkeypatch.setattr(blas, "_NAMES", (("no_such_", "", False),))
    assert blas.numpy_blas.__wrapped__() is None


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
