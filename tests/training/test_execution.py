"""Captured training, by CUDA graphs or CPU programs: the same run to the bit, and as it says."""

from __future__ import annotations

import gc
import logging
import os
import signal
import threading
import time
from typing import Any

import numpy as np
import pytest

import xpnet
from tests.conftest import slow
from tests.nn.test_captured import Allocating
from xpnet import nn
from xpnet.graph import CaptureError
from xpnet.random import EpochOrder
from xpnet.training import EarlyStopping, Interruption, fit
from xpnet.training.execution import STEPS_PER_GRAPH

N, D, K = 330, 12, 4
_RNG = np.random.default_rng(0)
X, Y = _RNG.standard_normal((N, D)).astype("f"), _RNG.integers(0, K, N)


def train(layers=None, *, device=None, optimizer="adam", epochs=3, batch_size=8, **arguments):
    layers = layers or [nn.Dense(16, "relu"), nn.Dropout(0.2), nn.BatchNorm(), nn.Dense(K)]
    network = nn.Network(layers, D, device=device or xpnet.device())
    arguments = {"X": X, "y": Y, "loss": "softmax_cross_entropy", **arguments}
    history = fit(network, optimizer=optimizer, epochs=epochs, batch_size=batch_size, **arguments)
    return network, history


def assert_same_run(first, second):
    (network, history), (other, other_history) = first, second
    timeless = ("seconds", "samples_per_second")
    plain, other_plain = history.to_dict(), other_history.to_dict()
    for name in set(plain) - {*timeless, "reports", "captured"}:
        assert other_plain[name] == plain[name], name
    for report, other_report in zip(history.reports, other_history.reports, strict=True):
        for name, value in vars(report).items():
            assert name in timeless or getattr(other_report, name) == value, name
    for name in ("parameters", "statistics"):
        found, expected = (n.device.to_host(getattr(n, name)) for n in (other, network))
        np.testing.assert_array_equal(found, expected, err_msg=name)


WAYS: dict[str, dict[str, Any]] = {
    "as it comes": {},
    "a rate for each step": {"schedule": {"type": "cosine", "per": "step", "warmup": 5}},
    "a rate for each epoch": {"schedule": "exponential"},
    "the whole data set": {"batch_size": None, "epochs": 20},
    "bytes": {"X": (X * 40 + 128).clip(0, 255).astype(np.uint8), "divide_by": 255},
    "weights of samples and classes": {
        "sample_weight": 1 + np.arange(N) % 3,
        "class_weight": "balanced",
    },
    "penalties, clipping, an average": {"l1": 1e-4, "l2": 1e-3, "clip_norm": 0.5, "average": 0.9},
    "noise": {"augmentation": [nn.GaussianNoise(0.1)]},
    "validation and accuracy": {"validation": (X[:50], Y[:50]), "train_accuracy": True},
    "reports now and then": {"report_every": 2, "epochs": 5},
    "no shuffle": {"shuffle": False},
    "fewer steps than a graph has": {"batch_size": 64},
    "early stopping": {
        "validation": (X[:50], Y[:50]),
        "early_stopping": EarlyStopping("validation_cost", patience=1),
        "epochs": 8,
    },
}

# Their steps are those of other ways: only what happens between two graphs differs.
RARE = ("a rate for each epoch", "reports now and then", "no shuffle")


@pytest.mark.parametrize("name", [*(name for name in WAYS if name not in RARE), *map(slow, RARE)])
def test_the_run_is_the_same_to_the_bit(name):
    network, history = train(**WAYS[name], capture=False)
    captured, captured_history = train(**WAYS[name])
    assert (history.captured, captured_history.captured) == (False, True)
    assert_same_run((network, history), (captured, captured_history))


def watch_takes(monkeypatch, kind):
    """Return a list that gets the number of steps of each call of an execution of this kind."""
    taken = []
    take = kind.take

    def watch(self, number, order):
        found = take(self, number, order)
        taken.append(found[0])
        return found

    monkeypatch.setattr(kind, "take", watch)
    return taken


@pytest.mark.accelerator
def test_most_steps_are_taken_many_at_a_time(monkeypatch):
    from xpnet.training import execution

    taken = watch_takes(monkeypatch, execution.GraphExecution)
    _, history = train(epochs=2)
    assert history.n_steps == sum(taken) == 2 * 42
    # 41 steps of 8 samples and one of 2; the first of each size as it is.
    assert taken == [1, 16, 16, *[1] * 8, 1, 16, 16, *[1] * 9, 1]
    assert STEPS_PER_GRAPH == 16


@pytest.mark.host
def test_a_program_takes_what_is_left_of_a_batch_size(monkeypatch):
    from xpnet.training import execution

    taken = watch_takes(monkeypatch, execution.ProgramExecution)
    _, history = train(epochs=2)
    assert history.n_steps == sum(taken) == 2 * 42
    # 41 steps of 8 samples and one of 2; the first of each size as it is.
    assert taken == [1, 40, 1, 41, 1]
    assert not train(epochs=1, batch_size=None)[1].captured  # a single step


def test_only_fused_kernels_are_captured():
    with pytest.raises(ValueError, match="capture must be true, false or None, got 'yes'"):
        train(capture="yes")
    reference = xpnet.device(xpnet.device().name, "reference")
    _, history = train(device=reference, epochs=1)
    assert not history.captured
    with pytest.raises(ValueError, match=r"the device is '.*' with reference kernels"):
        train(device=reference, capture=True)


class Scaling(Allocating):
    """Of a user's, and in place."""

    name = "scaling_of_test_execution"

    def forward(self, X, cache):
        del cache
        return self.xp.multiply(X, 2, out=X)

    def backward(self, dA, cache):
        del cache
        return self.xp.multiply(dA, 2, out=dA)


class Own(nn.Adam):
    """A user's optimizer may count on the host."""

    name = "own_of_test_execution"


class OwnLoss(nn.SoftmaxCrossEntropy):
    name = "own_loss_of_test_execution"


class OwnNoise(nn.GaussianNoise):
    name = "own_noise_of_test_execution"


class Squared(nn.Activation):
    name = "squared_of_test_execution"

    def function(self, Z):
        return Z * Z

    def derivative(self, Z, A):
        del A
        return 2 * Z


PLAIN = [nn.Dense(8), nn.Dense(K)]
FOREIGN: dict[str, tuple[list[Any], dict[str, Any]]] = {
    "a layer": ([nn.Dense(8), Allocating(), nn.Dense(K)], {}),
    "an activation inside of a layer": ([nn.Dense(8, Squared()), nn.Dense(K)], {}),
    "an optimizer": (PLAIN, {"optimizer": Own()}),
    "a loss": (PLAIN, {"loss": OwnLoss()}),
    "an augmentation": (PLAIN, {"augmentation": [OwnNoise(0.1)]}),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_what_a_user_has_written_is_not_captured_unasked(name, caplog):
    layers, arguments = FOREIGN[name]
    _, history = train([layer.clone() for layer in layers], epochs=1, **arguments)
    assert not history.captured
    assert not caplog.records
    if xpnet.device().index is None:
        with pytest.raises(ValueError, match="capture=True on the CPU needs xpnet's own layers"):
            train([layer.clone() for layer in layers], epochs=1, capture=True, **arguments)


@pytest.mark.parametrize("at", [0, 1, 2, 5, 11])
def test_an_interruption_leaves_whole_steps(monkeypatch, at):
    """It is seen after each call, and what was reached is what single steps reach by then."""
    from xpnet.training import execution, loop

    class Interrupted(Interruption):
        def __init__(self):
            super().__init__()
            self.n_asked = 0

        def is_requested(self):
            self.n_asked += 1
            return self.n_asked > at

    monkeypatch.setattr(loop, "Interruption", Interrupted)
    network, history = train(epochs=4)
    assert history.interrupted
    assert history.captured == (at > 0)
    monkeypatch.undo()

    n_left = [history.n_steps]
    take = execution.EagerExecution.take

    def count(self, number, order):
        n_left[0] -= 1
        return take(self, number, order)

    class Counted(Interruption):
        def is_requested(self):
            return n_left[0] <= 0

    monkeypatch.setattr(execution.EagerExecution, "take", count)
    monkeypatch.setattr(loop, "Interruption", Counted)
    assert_same_run(train(epochs=4, capture=False), (network, history))


@pytest.mark.host
@pytest.mark.parametrize("n_signals", [20, slow(300)])
def test_ctrl_c_at_any_moment_keeps_what_was_reached(monkeypatch, n_signals):
    """The parameters are those of single steps, after as many of them."""
    from xpnet.training import execution

    def start():
        return nn.Network([nn.Dense(16, "relu"), nn.Dropout(0.2), nn.Dense(K)], D, seed=0)

    def run(network, **arguments):
        arguments = {"loss": "softmax_cross_entropy", "optimizer": "adam", **arguments}
        return fit(network, X, Y, epochs=40, batch_size=3, **arguments)

    expected = []
    take = execution.EagerExecution.take

    def watch(self, number, order):
        found = take(self, number, order)
        expected.append(network.parameters.tobytes())
        return found

    network = start()
    with monkeypatch.context() as patched:
        patched.setattr(execution.EagerExecution, "take", watch)
        run(network, capture=False)
    run(start())
    rng = np.random.default_rng(0)
    begin = time.perf_counter()
    assert run(start()).n_steps == len(expected) == 40 * 110
    whole = time.perf_counter() - begin
    n_interrupted = 0
    for delay in rng.uniform(0, whole, n_signals):
        network = start()
        with Interruption() as interruption:
            timer = threading.Timer(delay, os.kill, (os.getpid(), signal.SIGINT))
            timer.start()
            history = run(network)
            timer.join()
            assert interruption.is_requested()
        assert network.parameters.tobytes() == expected[history.n_steps - 1]
        n_interrupted += history.interrupted
    assert n_interrupted > n_signals / 4


@pytest.mark.accelerator
def test_what_a_user_has_written_is_captured_on_demand():
    def layers():
        return [nn.Dense(8), Scaling(), nn.Dense(K)]

    _, history = train(layers(), capture=True)
    assert history.captured
    assert_same_run(train(layers()), train(layers(), capture=True))
    with pytest.raises(CaptureError, match=r"captured as a graph: .* bytes"):
        train([nn.Dense(8), Allocating(), nn.Dense(K)], capture=True)


@pytest.mark.accelerator
def test_a_step_that_cannot_be_captured_is_taken_as_it_is(monkeypatch, caplog):
    """It should not come to that with our own parts; if it does, the run says so and goes on."""
    expected = train(capture=False)

    def allocate(self, A, B, out=None):
        self._cupy.empty(3)
        return multiply(self, A, B, out)

    from xpnet.kernels.cublas import Products

    multiply = Products.__call__
    monkeypatch.setattr(Products, "__call__", allocate)
    with caplog.at_level(logging.WARNING, "xpnet"):
        found = train()
    (record,) = caplog.records
    assert record.message.startswith("training continues step by step: it cannot be captured")
    assert not found[1].captured
    assert_same_run(expected, found)


@pytest.mark.accelerator
def test_graphs_are_gone_after_the_run():
    device = xpnet.device(xpnet.device().name, "fused")
    train(device=device)
    assert len(device.recorders) == 0
    with pytest.raises(ZeroDivisionError) as error:
        train(device=device, on_report=lambda report: report.epoch / 0)
    assert len(device.recorders) == 0, "although the traceback holds what fit has made"
    del error


@pytest.mark.accelerator
def test_memory_goes_back_but_for_the_model():
    device = xpnet.device(xpnet.device().name, "fused")
    pool = device.xp.get_default_memory_pool()
    gc.collect()  # what other tests have left
    device.free_memory()
    with device.activate():
        before = pool.used_bytes(), pool.total_bytes()
    network, _ = train(device=device)
    with device.activate():
        assert pool.used_bytes() > before[0]
    device.free_memory()
    arrays = (network.parameters, network.gradients, network.statistics)
    model = sum(-(-array.nbytes // 512) * 512 for array in arrays)
    with device.activate():
        assert pool.used_bytes() - before[0] == model
        assert pool.total_bytes() - before[1] <= 2 * model + 2**20
    # And everything is made again where it is needed.
    train(device=device)


@pytest.mark.accelerator
def test_memory_is_not_freed_under_a_graph():
    device = xpnet.device(xpnet.device().name, "fused")

    def free(report):
        del report
        device.free_memory()

    with pytest.raises(RuntimeError, match="while a captured training step uses it"):
        train(device=device, on_report=free)


@pytest.mark.host
@pytest.mark.parametrize("n", [50, 1024, 2500])
@pytest.mark.parametrize("kind", ["floats", "bytes", "weights"])
def test_evaluation_as_a_program_is_the_same_to_the_bit(n, kind):
    """In one batch or several; the training accuracy is that of some of many samples."""
    rng = np.random.default_rng(1)
    labels = rng.integers(0, K, n)
    if kind == "bytes":
        samples: Any = rng.integers(0, 256, (n, D), dtype=np.uint8)
        more: dict[str, Any] = {"divide_by": 255, "X": np.tile(samples[:50], (250, 1))}
    else:
        samples = rng.standard_normal((n, D)).astype("f")
        more = {"X": np.tile(X[:50], (250, 1))}
    held_out = (samples, labels, 1 + labels) if kind == "weights" else (samples, labels)
    more |= {"y": np.tile(Y[:50], 250), "validation": held_out, "train_accuracy": True}
    more |= {"batch_size": 5000, "epochs": 4, "average": 0.9}
    runs = [train(capture=capture, **more) for capture in (False, None)]
    assert_same_run(*runs)
    assert len({report.validation_cost for report in runs[0][1].reports}) == 4


@pytest.mark.host
def test_a_second_ctrl_c_ends_an_evaluation():
    """It comes between two batches."""
    rng = np.random.default_rng(0)
    held_out = rng.standard_normal((100_000, D)).astype("f"), rng.integers(0, K, 100_000)
    layers = [nn.Dense(512, "relu"), nn.Dense(512, "relu"), nn.Dense(K)]
    timers = [threading.Timer(delay, os.kill, (os.getpid(), signal.SIGINT)) for delay in (0.2, 0.3)]
    for timer in timers:
        timer.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            train(layers, validation=held_out, epochs=1000)
    finally:
        for timer in timers:
            timer.cancel()


@pytest.mark.host
@pytest.mark.parametrize("n", [N, 10])
def test_an_order_of_a_subclass_or_of_another_length_is_checked(n):
    class Own(EpochOrder):
        def __call__(self, epoch):
            return super().__call__(epoch) * 0

    order = (Own if n == N else EpochOrder)(n, np.random.RandomState(0))
    with pytest.raises(ValueError, match="shuffle must return each index"):
        train(shuffle=order)
