"""Programs of the host kernels: what they rearrange, their threads, their limits and their errors.

That they have the bits of single steps, for every part, is in test_captured.py.
"""

from __future__ import annotations

import gc
import threading
import time
from typing import Any

import numpy as np
import pytest

import xpnet
from tests.kernels.teams import run, team_of
from tests.nn.test_captured import (
    Allocating,
    assert_same_bits,
    taken_as_program,
    taken_one_by_one,
)
from tests.nn.test_step import N, make_step
from xpnet import nn
from xpnet.graph import CaptureError
from xpnet.kernels import host
from xpnet.nn.program import record, runs_programs

pytestmark = [
    pytest.mark.host,
    pytest.mark.skipif(not runs_programs(xpnet.device("cpu")), reason="there are no host kernels"),
]

WIDTHS = (300, 192, 96)  # large enough for several threads


@pytest.fixture
def device():
    return xpnet.device("cpu", "fused")


def maker(dtype, optimizer="adam", **options):
    """Return a function that makes a step whose products and loops are cut into parts."""

    def make(device, batch_size):
        rng = np.random.default_rng(0)
        layers = [nn.Dense(width, "relu") for width in WIDTHS[1:]]
        network = nn.Network([*layers, nn.Dense(10)], WIDTHS[0], device=device, dtype=dtype)
        rule, loss = nn.Optimizer.resolve(optimizer), nn.SoftmaxCrossEntropy()
        return network, nn.TrainingStep(
            network,
            loss,
            rule,
            rule.init_state(device, network.parameters),
            rng.standard_normal((N, WIDTHS[0])).astype(dtype),
            loss.labels(device, rng.integers(0, 10, N), 10, dtype),
            batch_size,
            **options,
        )

    return make


TEAMS = [(n, far, forced) for n in (1, 2, 3) for far in (False, True) for forced in (False, True)]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("batch_size", [40, 150])
def test_the_number_of_threads_changes_no_bit(device, dtype, batch_size):
    make = maker(dtype)
    with device.activate():
        with team_of(1):
            expected = taken_one_by_one(device, make, batch_size)
        for n_threads, far, forced in TEAMS:
            with team_of(n_threads, far=far, forced=forced):
                found = taken_as_program(device, make, batch_size, 7)
            assert_same_bits(device, expected, found)


def parts_of(make, device, batch_size=40):
    with device.activate():
        return nn.StepProgram(make(device, batch_size)[1]).jobs


def test_updates_follow_their_gradients(device):
    """The gradient of each layer's input comes first, since it reads the old weights."""
    jobs = parts_of(maker("float64"), device)
    assert [job for job in jobs if "adam" in job] == [
        "adam_tick (1,)",
        "matmul (96, 40) @ (40, 10), adam_update (960,)",
        "matmul (192, 40) @ (40, 96), adam_update (18432,)",
        "matmul (300, 40) @ (40, 192), adam_update (57600,)",
        "adam_update (576,)",  # biases, and what fills up the rows of the weights
    ]
    for gradient, product in (
        ("matmul (40, 10) @ (10, 96)", "matmul (96, 40) @ (40, 10)"),
        ("matmul (40, 96) @ (96, 192)", "matmul (192, 40) @ (40, 96)"),
    ):
        (last,) = (number for number, job in enumerate(jobs) if job.startswith(product))
        assert jobs.index(gradient) < last


@pytest.mark.parametrize(
    "options", [{"l2": 0.1}, {"l1": 0.1}, {"clip_value": 1.0}, {"clip_norm": 1.0}], ids=str
)
def test_updates_wait_for_what_needs_the_whole_gradient(device, options):
    jobs = parts_of(maker("float64", regularizer=nn.Regularizer(**options)), device)
    assert [job for job in jobs if "adam_update" in job] == ["adam_update (77568,)"]


def test_an_update_waits_for_all_rows_of_a_sum(device):
    """The sum of a product's parts writes some of the parameters that the update changes."""
    rng = np.random.default_rng(0)
    X, W = rng.standard_normal((32, 784)), rng.standard_normal((784, 128))
    A, B = rng.standard_normal((40, 48)), rng.standard_normal((40, 128))
    start, rate = rng.standard_normal((80, 128)), np.array([0.5])

    def run(recorded):
        values, gradient, velocity = start.copy(), np.ones_like(start), np.ones(start.size)
        loss = np.zeros(1)

        def work():
            device.ops.matmul(A.T, B, out=gradient[32:])
            device.ops.matmul(X, W, out=values[16:48])
            device.ops.momentum_update(values.ravel(), gradient.ravel(), velocity, rate, 0.9, 1.0)

        if recorded:
            program = record(work, loss)
            assert any(job.startswith("sum of parts (32, 128)") for job in program.jobs)
            program.run(np.zeros(1), None, None, None)
        else:
            work()
        return values, velocity

    with device.activate(), team_of(2):
        for expected, found in zip(run(False), run(True), strict=True):
            np.testing.assert_array_equal(found, expected)


def test_a_first_layer_that_needs_its_input_keeps_the_order(device):
    """Batch norm in front of a layer has parameters, so that layer computes dX."""

    def make(device, batch_size):
        network = nn.Network([nn.BatchNorm(), nn.Dense(20, "tanh"), nn.Dense(10)], 50)
        loss, rule = nn.SoftmaxCrossEntropy(), nn.Momentum(0.1)
        rng = np.random.default_rng(0)
        return network, nn.TrainingStep(
            network,
            loss,
            rule,
            rule.init_state(device, network.parameters),
            rng.standard_normal((N, 50)).astype("f"),
            loss.labels(device, rng.integers(0, 10, N), 10, "f"),
            batch_size,
        )

    with device.activate():
        expected = taken_one_by_one(device, make, 32)
        assert_same_bits(device, expected, taken_as_program(device, make, 32, 9))
        jobs = parts_of(make, device, 32)
    assert jobs.index("matmul (32, 20) @ (20, 50)") < jobs.index(
        "matmul (50, 32) @ (32, 20), momentum_update (1000,)"
    )


def test_an_update_is_not_moved_over_a_copy_of_the_weights(device):
    """What reads the weights between the gradient and the update keeps the update in its place."""
    network, step = maker("float64")(device, 40)
    seen = np.empty_like(network.parameters)
    own = network.backward

    def backward(dlogits, caches):
        own(dlogits, caches)
        device.ops.clip(network.gradients, 1e9, out=network.gradients)
        device.ops.clip(network.parameters, 1e9, out=seen)

    network.backward = backward
    with device.activate():
        with pytest.raises(CaptureError, match="got Network"):
            nn.StepProgram(step)
        indices = np.arange(40)
        program = record(lambda: step(indices), step.loss_value, step.counter, indices)
        before = network.parameters.copy()
        program.run(np.empty(1), indices, None, None)
    np.testing.assert_array_equal(seen, before)
    assert np.any(network.parameters != before)
    assert "adam_update (77568,)" in program.jobs


def test_an_update_waits_for_a_product_of_the_weights_with_themselves(device):
    """Later tiles of the gradient would read weights that an earlier one has updated."""
    rng = np.random.default_rng(0)
    start, B = rng.standard_normal(400 * 400), rng.standard_normal((32, 400))
    P, G, rate = start.copy(), np.empty(400 * 400), np.full(1, 0.1)
    A, ops = P.reshape(400, 400)[:32], device.ops

    def work():
        ops.matmul(A.T, B, out=G.reshape(400, 400))
        ops.gradient_descent_update(P, G, rate)

    program = record(work, np.empty(1))
    program.run(np.empty(1), None, None, None)
    found = P.copy()
    P[...] = start
    work()
    np.testing.assert_array_equal(found, P)


class OwnRegularizer(nn.Regularizer):
    """A user's, which a program would not see."""


class OwnAverage(nn.MovingAverage):
    """The same."""


def test_regularizers_and_averages_of_a_user_are_not_recorded(device):
    with device.activate():
        make = maker("float32", regularizer=OwnRegularizer(l2=0.1))
        with pytest.raises(CaptureError, match="OwnRegularizer"):
            nn.StepProgram(make(device, 40)[1])
        network = maker("float32")(device, 40)[0]
        make = maker("float32", average=OwnAverage(network, 0.9))
        with pytest.raises(CaptureError, match="OwnAverage"):
            nn.StepProgram(make(device, 40)[1])


def test_a_call_ends_within_its_time(device):
    with device.activate():
        step = maker("float32")(device, 150)[1]
        program = nn.StepProgram(step)
        losses, order = np.empty(5000, "f"), np.tile(np.arange(150), 5000)
        start = time.perf_counter()
        n_taken = program(losses, order)
        assert time.perf_counter() - start < 1  # 50 ms, on a machine that may be busy
        assert 1 <= n_taken < 5000
        assert step.counter[0] == n_taken
        assert np.isfinite(losses[:n_taken]).all()


def test_two_networks_at_once(device):
    make = maker("float32")
    with device.activate():
        expected = taken_one_by_one(device, make, 40)
    found, errors = {}, []

    def train(name):
        try:
            with device.activate():
                found[name] = taken_as_program(device, make, 40, 7)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=train, args=(name,)) for name in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    for name in range(3):
        assert_same_bits(device, expected, found[name])


def test_a_program_keeps_its_arrays(device):
    with device.activate():
        network, step = make_step(device, 20)
        program = nn.StepProgram(step)._program
        del network, step
        gc.collect()
        _ = [np.full(10_000, np.nan) for _ in range(100)]
        losses = np.empty(3)
        assert program.run(losses, np.arange(60), None, None) == 3
    assert (losses < 3).all()


def test_times_of_the_parts(device):
    with device.activate():
        _, step = make_step(device, 20)
        program = nn.StepProgram(step)
        seconds = np.zeros(len(program.jobs))
        program(np.empty(10), np.arange(200), seconds=seconds)
    assert (seconds >= 0).all()
    assert seconds.sum() > 0
    assert seconds.sum() < 1


def test_errors(device):
    with device.activate():
        _, step = make_step(device, 20)
        rate = step._state["learning_rate"]
        program = nn.StepProgram(step)
        losses, order = np.empty(2), np.arange(40)
        not_arrays: Any = [1, 2]
        with pytest.raises(TypeError, match="indices must be an array, as the steps were recorded"):
            program(losses)
        with pytest.raises(
            TypeError, match=r"rates must be None, as the steps .* got numpy.ndarray"
        ):
            program(losses, order, np.ones(2))
        with pytest.raises(TypeError, match="indices must be a NumPy array, got list"):
            program(losses, not_arrays)
        with pytest.raises(ValueError, match="losses must not be empty"):
            program(losses[:0], order[:0])
        for name, wrong, expected, got in (
            ("losses", np.empty(2, "f"), r"float64 array of shape \(2,\)", "float32"),
            ("losses", np.empty(4)[::2], r"float64 array of shape \(2,\)", "float64"),
            ("indices", order[:39], r"int64 array of shape \(40,\)", r"int64 of shape \(39,\)"),
            ("seconds", np.zeros(3), r"float64 array of shape \(14,\)", r"float64 of shape \(3,\)"),
        ):
            given: dict[str, Any] = {"losses": losses, "indices": order, name: wrong}
            with pytest.raises(
                ValueError, match=f"{name} must be a contiguous {expected}, got {got}"
            ):
                program(**given)
        with pytest.raises(ValueError, match=r"rates must be .* got float64 of shape \(3,\)"):
            nn.StepProgram(step, rate)(losses, order, np.ones(3))
        for index in (-1, N):
            indices = order.copy()
            indices[33] = index
            steps = int(step.counter[0])
            assert program(losses, indices) == 1  # the step before it
            with pytest.raises(IndexError, match=rf"must lie in \[0, {N}\), got {index}"):
                program(losses[:1], indices[20:])
            assert step.counter[0] == steps + 1
        assert program(losses, order) == 2


def test_a_rate_for_each_step(device):
    rates = np.array([0.5, 0.0, 0.125, 1.0])
    with device.activate():
        order = np.arange(80)
        network, step = make_step(device, 20)
        for number, value in enumerate(rates):
            step._state["learning_rate"][...] = value
            step(order[20 * number : 20 * (number + 1)])
        other, other_step = make_step(device, 20)
        rate = other_step._state["learning_rate"]
        assert nn.StepProgram(other_step, rate)(np.empty(4), order, rates) == 4
        assert rate[0] == rates[-1]
    np.testing.assert_array_equal(other.parameters, network.parameters)


def test_what_cannot_be_recorded(device):
    rng = np.random.default_rng(0)
    loss, rule = nn.SoftmaxCrossEntropy(), nn.Adam()

    def bind(network):
        return nn.TrainingStep(
            network,
            loss,
            rule,
            rule.init_state(network.device, network.parameters),
            rng.standard_normal((N, 5)),
            loss.labels(network.device, rng.integers(0, 3, N), 3, np.float64),
            20,
        )

    with device.activate():
        network = nn.Network([Allocating(), nn.Dense(3)], 5, device=device, dtype="float64")
        with pytest.raises(CaptureError, match=r"xpnet's own layers.* got Allocating\(\)"):
            nn.StepProgram(bind(network))
        reference = xpnet.device("cpu", "reference")
        network = nn.Network([nn.Dense(3)], 5, device=reference, dtype="float64")
        with pytest.raises(CaptureError, match="the device is 'cpu' with reference kernels"):
            nn.StepProgram(bind(network))
    X = np.ones((4, 4))
    counter, loss_value = np.zeros(1, np.int64), np.zeros(1)

    def record(work):
        return host.record(work, loss_value, counter, None, None)

    ops = device.ops
    with pytest.raises(RuntimeError, match="relu allocates memory"):
        record(lambda: ops.relu(X))
    with pytest.raises(RuntimeError, match="relu has an operand whose rows are not contiguous"):
        record(lambda: ops.relu(X[:, ::2], out=np.empty((4, 2))))
    with pytest.raises(RuntimeError, match="matmul has operands that its BLAS cannot take"):
        record(lambda: ops.matmul(X[::-1], X, out=np.empty((4, 4))))
    with pytest.raises(RuntimeError, match="gather has operands that only NumPy can gather"):
        record(lambda: ops.gather(X[:, ::2], np.arange(2), out=np.empty((2, 2))))
    with pytest.raises(RuntimeError, match="this thread is already recording"):
        record(lambda: record(lambda: None))
    with pytest.raises(ZeroDivisionError):
        record(lambda: 1 // 0)
    np.testing.assert_array_equal(ops.relu(X), X)  # operations run again


def test_scipys_blas_serves_where_numpys_cannot_be_called():
    """As on Windows, and with Accelerate."""
    code = """
import numpy as np, xpnet
from xpnet import nn, training
from xpnet.kernels import blas, host
blas.numpy_blas = lambda: None
import xpnet.environment
xpnet.environment.numpy_blas = lambda: None
device = xpnet.device("cpu")
assert "matmul" in device.ops.fused
rng = np.random.default_rng(0)
for dtype in ("f", "d"):
    for m, k, n in ((3, 4, 5), (60, 70, 80), (1, 9, 7), (9, 7, 1), (1, 5, 1), (200, 300, 100)):
        for A_T in (False, True):
            for B_T in (False, True):
                A = rng.standard_normal((m, k)).astype(dtype)
                B = rng.standard_normal((k, n)).astype(dtype)
                A = np.ascontiguousarray(A.T).T if A_T else A
                B = np.ascontiguousarray(B.T).T if B_T else B
                out = np.full((m, n + 2), np.nan, dtype)
                device.ops.matmul(A, B, out=out[:, :n])
                np.testing.assert_allclose(out[:, :n], A @ B, rtol=1e-4, atol=1e-4)
                assert np.isnan(out[:, n:]).all()
found = []
for capture in (False, None):
    network = nn.Network([nn.Dense(90, "relu"), nn.Dense(3)], 80, seed=0)
    X, y = np.random.default_rng(0).standard_normal((99, 80)), np.arange(99) % 3
    history = training.fit(network, X, y, loss="softmax_cross_entropy", optimizer="adam", epochs=3,
                           batch_size=20, capture=capture)
    found.append((history.captured, network.parameters.tobytes()))
assert found[0] == (False, found[1][1]) and found[1][0]
xpnet.show_config()
"""
    assert "threads       chosen by SciPy's BLAS" in run(code)
