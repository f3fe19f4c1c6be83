"""Steps captured as a CUDA graph or a CPU program do what the step does, to the bit."""

from __future__ import annotations

import functools

import numpy as np
import pytest

import xpnet
from tests.nn.test_step import PARTS, N, make_improved_step, make_step, make_step_with
from tests.registered import one_of_each
from xpnet import nn
from xpnet.graph import CaptureError, Recorder

N_STEPS = 50
OF_GRAPHS = pytest.mark.accelerator
OF_PROGRAMS = pytest.mark.host


@pytest.fixture
def device():
    return xpnet.device(xpnet.device().name, "fused")


def batches_of(device, batch_size, n_steps=N_STEPS):
    rng = np.random.default_rng(3)
    return device.asarray(rng.integers(0, N, n_steps * batch_size))


def taken_one_by_one(device, make, batch_size):
    network, step = make(device, batch_size)
    order = batches_of(device, batch_size)
    losses = [
        device.to_host(step(order[start : start + batch_size])).copy()
        for start in range(0, len(order), batch_size)
    ]
    return network, step, np.concatenate(losses)


def taken_captured(device, make, batch_size, n_at_once):
    """As a program in calls of several steps, or as graphs."""
    if device.index is None:
        return taken_as_program(device, make, batch_size, n_at_once)
    return taken_as_graphs(device, make, batch_size, n_at_once)


def taken_as_program(device, make, batch_size, n_at_once, **options):
    """All steps in calls of so many at most; the first as it is, as fit does."""
    network, step = make(device, batch_size)
    order = batches_of(device, batch_size)
    losses = np.empty(N_STEPS, network.dtype)
    losses[0] = step(order[:batch_size])[0]
    program = nn.StepProgram(step, **options)
    number = 1
    while number < N_STEPS:
        n = min(n_at_once, N_STEPS - number)
        chosen = order[number * batch_size : (number + n) * batch_size]
        number += program(losses[number : number + n], chosen)
    return network, step, losses


def taken_as_graphs(device, make, batch_size, n_in_graph):
    """The first step as it is, then as many as fit in graphs, the rest in graphs of one."""
    network, step = make(device, batch_size)
    order = batches_of(device, batch_size)
    recorder = Recorder(device)
    step(order[:batch_size])
    losses = [device.to_host(step.loss_value).copy()]
    graphs = {n: nn.CapturedSteps(step, n, recorder) for n in {n_in_graph, 1}}
    number = 1
    while number < N_STEPS:
        n = n_in_graph if number + n_in_graph <= N_STEPS else 1
        chosen = order[number * batch_size : (number + n) * batch_size]
        losses.append(device.to_host(graphs[n](chosen)).copy())
        number += n
    return network, step, np.concatenate(losses)


def assert_same_bits(device, first, second):
    (network, step, losses), (other, other_step, other_losses) = first, second
    assert len(set(losses.tolist())) > N_STEPS / 2, "the steps must differ"
    np.testing.assert_array_equal(other_losses, losses)
    for name in ("parameters", "gradients", "statistics"):
        found, expected = (device.to_host(getattr(n, name)) for n in (other, network))
        np.testing.assert_array_equal(found, expected, err_msg=name)
    for name, array in step._state.items():
        expected = device.to_host(array)
        np.testing.assert_array_equal(device.to_host(other_step._state[name]), expected, name)
    assert device.to_host(step._batch.step)[0] == N_STEPS
    assert device.to_host(other_step._batch.step)[0] == N_STEPS


@pytest.mark.parametrize("n_in_graph", [7, 49])
@pytest.mark.parametrize("make", [make_step, make_improved_step])
def test_captured_steps_have_the_bits_of_steps(device, make, n_in_graph):
    with device.activate():
        expected = taken_one_by_one(device, make, 32)
        found = taken_captured(device, make, 32, n_in_graph)
        assert_same_bits(device, expected, found)


@pytest.mark.parametrize(
    "optimizer",
    [*one_of_each(nn.Optimizer), *one_of_each(nn.Optimizer, weight_decay=0.1)],
    ids=repr,
)
def test_every_optimizer(device, optimizer):
    def make(device, batch_size):
        return make_improved_step(device, batch_size, optimizer)

    with device.activate():
        expected = taken_one_by_one(device, make, 17)
        assert_same_bits(device, expected, taken_captured(device, make, 17, 7))


@pytest.mark.parametrize("part", PARTS, ids=repr)
def test_every_part(device, part):
    """Layers, activations, losses and augmentations."""
    make = functools.partial(make_step_with, part)
    with device.activate():
        expected = taken_one_by_one(device, make, 17)
        assert_same_bits(device, expected, taken_captured(device, make, 17, 7))


@OF_GRAPHS
def test_what_changes_outside_is_seen(device):
    """The learning rate is where the optimizer reads it, not in the graph."""
    with device.activate():
        network, step = make_step(device, 32)
        order = batches_of(device, 32)
        recorder = Recorder(device)
        step(order[:32])
        captured = nn.CapturedSteps(step, 2, recorder)
        step._state["learning_rate"][...] = 0
        before = device.to_host(network.parameters).copy()
        captured(order[:64])
        np.testing.assert_array_equal(device.to_host(network.parameters), before)
        step._state["learning_rate"][...] = 1
        captured(order[:64])
        assert np.any(device.to_host(network.parameters) != before)


@OF_GRAPHS
def test_a_rate_for_each_step(device):
    rates = [0.5, 0.0, 0.125, 1.0]
    with device.activate():
        order = batches_of(device, 32, 5)
        found = []
        for is_captured in (False, True):
            network, step = make_step(device, 32)
            rate = step._state["learning_rate"]
            recorder = Recorder(device)
            step(order[:32])
            if is_captured:
                captured = nn.CapturedSteps(step, 4, recorder, rate)
                captured(order[32:], rates=device.asarray(rates, np.float64))
            for number, value in enumerate([] if is_captured else rates):
                rate[...] = value
                step(order[32 * (number + 1) : 32 * (number + 2)])
            found.append(device.to_host(network.parameters))
            assert device.to_host(rate)[0] == rates[-1]
        np.testing.assert_array_equal(found[1], found[0])


@OF_GRAPHS
def test_a_step_on_the_whole_data_set(device):
    with device.activate():
        found = []
        for is_captured in (False, True):
            network, step = make_improved_step(device, None)
            recorder = Recorder(device)
            step()
            take = nn.CapturedSteps(step, 1, recorder) if is_captured else step
            losses = [device.to_host(take()).copy() for _ in range(6)]
            found.append((np.array(losses), device.to_host(network.parameters)))
        np.testing.assert_array_equal(found[1][0], found[0][0])
        np.testing.assert_array_equal(found[1][1], found[0][1])
        assert len(np.unique(found[0][0])) == 6


@OF_GRAPHS
def test_two_sizes_share_the_network(device):
    """As in an epoch, whose last minibatch holds what is left."""
    with device.activate():
        found = []
        for is_captured in (False, True):
            network, step = make_step(device, 32)
            small = nn.TrainingStep(
                network, step._loss, step._optimizer, step._state, step._data, step._labels, 7
            )
            recorder = Recorder(device)
            order = batches_of(device, 32)
            step(order[:32])
            small(order[:7])
            takes = [
                nn.CapturedSteps(one, 1, recorder) if is_captured else one for one in (step, small)
            ]
            for turn in range(6):
                takes[turn % 2](order[: (32, 7)[turn % 2]])
            found.append(device.to_host(network.parameters))
        np.testing.assert_array_equal(found[1], found[0])


@OF_GRAPHS
def test_the_step_is_left_as_it_was(device):
    with device.activate():
        _, step = make_step(device, 32)
        order = batches_of(device, 32, 4)
        own = step(order[:32])
        captured = nn.CapturedSteps(step, 2, Recorder(device))
        assert step.loss_value is own
        losses = device.to_host(captured(order[:64])).copy()
        assert step(order[64:96]) is own
        np.testing.assert_array_equal(device.to_host(captured.losses), losses)
        device.ops.matmul = lambda A, B, out: device.xp.matmul(A, B, out=out)
        with pytest.raises(CaptureError):
            nn.CapturedSteps(step, 2, Recorder(device))
        assert step.loss_value is own


@OF_GRAPHS
def test_arguments_are_asked_for(device):
    with device.activate():
        _, step = make_step(device, 32)
        order = batches_of(device, 32)
        recorder = Recorder(device)
        step(order[:32])
        captured = nn.CapturedSteps(step, 2, recorder)
        with pytest.raises(
            TypeError, match="indices must be given, as the steps gather samples, got None"
        ):
            captured()
        with pytest.raises(ValueError, match=r"indices must have shape \(64,\), got \(32,\)"):
            captured(order[:32])
        with pytest.raises(TypeError, match="rates must be None, got array"):
            captured(order[:64], rates=order[:2])
        with pytest.raises(ValueError, match="n_steps must be a positive integer, got 0"):
            nn.CapturedSteps(step, 0, recorder)


class Allocating(nn.Layer):
    """A layer of a user's, in plain array expressions."""

    def build(self, n_in):
        return n_in

    def forward(self, X, cache):
        del cache
        return X * 2

    def backward(self, dA, cache):
        del cache
        return dA * 2


class CountingOnTheHost(nn.GradientDescent):
    """Its rate falls with a count that is Python's."""

    name = "counting_on_the_host"

    def __init__(self, learning_rate=0.1):
        super().__init__(learning_rate)
        self.count = 0

    def update(self, ops, params, grads, state, n_decay=0):
        self.count += 1
        ops.xp.multiply(grads, 1 / self.count, out=grads)
        super().update(ops, params, grads, state, n_decay)


def step_with(device, layers, optimizer):
    rng = np.random.default_rng(0)
    network = nn.Network([*layers, nn.Dense(10)], 50, device=device, dtype="float64")
    loss = nn.SoftmaxCrossEntropy()
    return network, nn.TrainingStep(
        network,
        loss,
        optimizer,
        optimizer.init_state(device, network.parameters),
        device.asarray(rng.standard_normal((N, 50))),
        loss.labels(device, rng.integers(0, 10, N), 10, np.float64),
        32,
    )


@OF_GRAPHS
def test_a_layer_that_asks_for_memory_is_found(device):
    with device.activate():
        _, step = step_with(device, [Allocating()], nn.GradientDescent())
        order = batches_of(device, 32, 2)
        recorder = Recorder(device)
        step(order[:32])
        with pytest.raises(CaptureError, match="bytes"):
            nn.CapturedSteps(step, 2, recorder)


@OF_GRAPHS
def test_products_of_cupys_are_found(device):
    with device.activate():
        _, step = make_step(device, 32)
        order = batches_of(device, 32, 2)
        device.ops.matmul = lambda A, B, out: device.xp.matmul(A, B, out=out)
        recorder = Recorder(device)
        step(order[:32])
        with pytest.raises(CaptureError, match="cuBLAS API during stream capture"):
            nn.CapturedSteps(step, 2, recorder)


@OF_GRAPHS
def test_a_number_that_changes_on_the_host_is_found(device):
    """The graph has it as it was: the comparison of bits is what tells."""

    def make(device, batch_size):
        assert batch_size == 32
        return step_with(device, [nn.Dense(8, "tanh")], CountingOnTheHost())

    with device.activate():
        expected = taken_one_by_one(device, make, 32)
        found = taken_as_graphs(device, make, 32, 1)
        with pytest.raises(AssertionError, match="Arrays are not equal"):
            assert_same_bits(device, expected, found)
