"""The bound training step: what it computes and what it does not allocate."""

from __future__ import annotations

import functools
import gc

import numpy as np
import pytest

import xpnet
from tests.conftest import traced_peak
from tests.registered import labels_for, one_of_each
from xpnet import nn
from xpnet.kernels import host
from xpnet.kernels.reference import NumpyOps

N, D = 200, 50


def make_step(device, batch_size):
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((N, D)), rng.integers(0, 10, N)
    network = nn.Network([nn.Dense(64, "tanh"), nn.Dense(10)], D, device=device, dtype="float64")
    loss, optimizer = nn.SoftmaxCrossEntropy(), nn.GradientDescent(0.1)
    state = optimizer.init_state(device, network.parameters)
    data = device.asarray(X)
    labels = loss.labels(device, y, 10, np.float64)
    return network, nn.TrainingStep(network, loss, optimizer, state, data, labels, batch_size)


def test_the_whole_data_set_is_used_where_it_lies(dev):
    with dev.activate():
        _, gathered = make_step(dev, N)
        network, whole = make_step(dev, None)
        first = float(dev.to_host(gathered(dev.asarray(np.arange(N))))[0])
        second = float(dev.to_host(whole())[0])
    assert first == second
    assert whole.X is whole._data
    assert gathered.X is not gathered._data
    assert network.n_outputs == 10


def test_steps_of_two_sizes_share_the_parameters(dev):
    with dev.activate():
        network, step = make_step(dev, 32)
        small = nn.TrainingStep(
            network, step._loss, step._optimizer, step._state, step._data, step._labels, 7
        )
        before = dev.to_host(network.parameters).copy()
        step(dev.asarray(np.arange(32)))
        between = dev.to_host(network.parameters).copy()
        small(dev.asarray(np.arange(7)))
    assert np.any(before != between)
    assert np.any(between != dev.to_host(network.parameters))


def make_improved_step(device, batch_size, optimizer=None):
    """Make one with everything there is to improve a network."""
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((N, D)), rng.integers(0, 10, N)
    made = [
        nn.Dropout(0.1),
        nn.Dense(64, max_norm=1.0),
        nn.BatchNorm(),
        "relu",
        nn.Dropout(0.3),
        nn.Dense(48),
        nn.BatchNorm(unbiased=False),
        nn.LayerNorm(),
        nn.Dense(10),
    ]
    network = nn.Network(made, D, device=device)
    loss = nn.SoftmaxCrossEntropy(0.1)
    optimizer = optimizer or nn.AdamW(0.01)
    return network, nn.TrainingStep(
        network,
        loss,
        optimizer,
        optimizer.init_state(device, network.parameters),
        device.asarray(X, network.dtype),
        loss.labels(device, y, 10, network.dtype),
        batch_size,
        weights=device.asarray(1 + np.arange(N) % 3, network.dtype),
        regularizer=nn.Regularizer(l1=1e-4, l2=1e-3, clip_value=1.0, clip_norm=0.5),
        average=nn.MovingAverage(network, 0.9),
    )


PARTS = [
    *one_of_each(nn.Layer),
    *one_of_each(nn.Activation),
    *one_of_each(nn.Loss),
    *one_of_each(nn.Augmentation),
]


def make_step_with(part, device, batch_size):
    """Make one of a small network with a layer, an activation, a loss or an augmentation."""
    rng = np.random.default_rng(0)
    loss = part if isinstance(part, nn.Loss) else nn.SoftmaxCrossEntropy()
    n_outputs, y = next((n, y) for n in (10, 1) for y in labels_for(loss, rng, N, n))
    hidden = [part.clone()] if isinstance(part, nn.Layer) else []
    made = [nn.Dense(16), *hidden, nn.Dense(8, "tanh"), nn.Dense(n_outputs)]
    network, optimizer = nn.Network(made, D, device=device), nn.GradientDescent(0.01)
    return network, nn.TrainingStep(
        network,
        loss,
        optimizer,
        optimizer.init_state(device, network.parameters),
        device.asarray(rng.standard_normal((N, D)), network.dtype),
        loss.labels(device, y, n_outputs, network.dtype),
        batch_size,
        augmentations=[part] if isinstance(part, nn.Augmentation) else (),
        image_shape=(5, 10),
    )


class MeasuredOps(NumpyOps):
    """Notes the peak of what each product and gather allocates."""

    def __init__(self, xp):
        super().__init__(xp)
        self.peaks: dict[str, int] = {"matmul": 0, "gather": 0}
        self.calls = 0

    def measure(self, name, call):
        result = None

        def work():
            nonlocal result
            result = call()

        self.peaks[name] = max(self.peaks[name], traced_peak(work))
        self.calls += 1
        return result

    def matmul(self, A, B, out=None):
        return self.measure("matmul", lambda: NumpyOps.matmul(self, A, B, out=out))

    def gather(self, X, indices, out=None, divide_by=None):
        return self.measure("gather", lambda: NumpyOps.gather(self, X, indices, out, divide_by))


def test_products_and_gather_allocate_nothing():
    device = nn.Network([nn.Dense(1)], 1, device="cpu").device
    device.ops = ops = MeasuredOps(np)
    batch_size = 128
    _, step = make_step(device, batch_size)
    indices = np.random.default_rng(1).integers(0, N, (1000, batch_size))
    step(indices[0])
    ops.calls = 0
    for batch in indices:
        step(batch)
    assert ops.calls == 1000 * 7  # gathers of X and y, two products forward, dW twice, dX once
    # Python's own small objects pass; the smallest array, the batch's labels, would not.
    assert max(ops.peaks.values()) < batch_size * 8 / 2, ops.peaks


@pytest.mark.host
@pytest.mark.parametrize("part", [None, *PARTS], ids=repr)
def test_a_fused_step_allocates_nothing(part):
    """With everything at once, and with each part alone."""
    if host.problem() is not None:
        pytest.skip(f"the host kernels are {host.problem()}")
    make = functools.partial(make_step_with, part) if part else make_improved_step
    batch_size = 512
    _, step = make(xpnet.device("cpu", kernels="fused"), batch_size)
    indices = np.random.default_rng(1).integers(0, N, (300, batch_size))
    gc.collect()  # not meanwhile: what it warns of takes memory
    for batch in indices:  # until Python has small objects at hand again
        step(batch)

    def work():
        for batch in indices:
            step(batch)

    peak = traced_peak(work)
    assert peak < batch_size * 4, peak  # the losses are the smallest array of a step


def test_the_measurement_sees_an_allocation():
    """The buffered default of take, which the gather avoids, is found out."""
    ops = MeasuredOps(np)
    X, indices, out = np.ones((N, D)), np.arange(32), np.empty((32, D))
    ops.measure("gather", lambda: np.take(X, indices, axis=0, out=out))
    assert ops.peaks["gather"] > out.nbytes


def test_nothing_waits_for_the_device():
    """A step reads no value back: neither float() nor to_host()."""
    device = nn.Network([nn.Dense(1)], 1, device="cpu").device
    _, step = make_step(device, 32)

    def refuse(array):
        raise AssertionError(f"a step read back {array!r}")

    device.to_host = refuse  # type: ignore[method-assign]
    loss_value = step(np.arange(32))
    assert loss_value.shape == (1,)
    assert step.loss_value is loss_value


def test_a_gathering_step_needs_indices(dev):
    with dev.activate():
        _, step = make_step(dev, 32)
        with pytest.raises(TypeError, match="a step of batch size 32 needs indices, got None"):
            step()


@pytest.mark.parametrize("batch_size", [1, 3, N])
def test_loss_is_the_mean_before_the_update(dev, batch_size):
    with dev.activate():
        network, step = make_step(dev, batch_size)
        rows = dev.asarray(np.arange(batch_size))
        logits = network.predict(dev.to_host(step._data)[:batch_size])
        y = dev.to_host(step._labels)[:batch_size]
        found = float(dev.to_host(step(rows))[0])
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    assert found == pytest.approx(-log_p[np.arange(batch_size), y].mean(), rel=1e-12)


def assert_asks_for_no_memory(make, batch_size):
    """Take steps on CUDA. That they do not wait is made sure of in every test: tests/devices.py."""

    def refuse(size):
        raise MemoryError(f"a steady step asked for {size} bytes")

    device = xpnet.device(xpnet.device().name, "fused")
    with device.activate():
        network, step = make(device, batch_size)
        order = device.asarray(np.random.default_rng(2).permutation(N))
        steps = [] if batch_size is None else [order[:batch_size]]
        step(*steps)  # what is made at first use
        before = device.to_host(network.parameters).copy()
        with device.xp.cuda.using_allocator(refuse):
            with pytest.raises(MemoryError, match="asked for"):
                device.xp.empty(3)
            for _ in range(5):
                step(*steps)
        assert np.any(device.to_host(network.parameters) != before)


@pytest.mark.accelerator
@pytest.mark.parametrize("batch_size", [7, None])
@pytest.mark.parametrize("part", PARTS, ids=repr)
def test_a_fused_step_on_cuda_asks_for_no_memory(part, batch_size):
    assert_asks_for_no_memory(functools.partial(make_step_with, part), batch_size)


@pytest.mark.accelerator
@pytest.mark.parametrize(
    "optimizer",
    [*one_of_each(nn.Optimizer), *one_of_each(nn.Optimizer, weight_decay=0.1)],
    ids=repr,
)
@pytest.mark.parametrize("batch_size", [32, None])
def test_an_improved_step_on_cuda_asks_for_no_memory(batch_size, optimizer):
    make = functools.partial(make_improved_step, optimizer=optimizer)
    assert_asks_for_no_memory(make, batch_size)
