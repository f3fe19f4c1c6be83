"""The training step of an estimator: what it asks for in the steady state."""

from __future__ import annotations

import numpy as np
import pytest

import xpnet
from tests.conftest import traced_peak
from xpnet import nn
from xpnet.estimators.rules import HalfSquaredError
from xpnet.kernels import host

LOSSES = {
    "classes": (lambda: nn.SoftmaxCrossEntropy(0.1, clip=1e-7), 5),
    "labels": (lambda: nn.SigmoidCrossEntropy(clip=1e-7), 5),
    "numbers": (HalfSquaredError, 5),
    "counts": (nn.PoissonDeviance, 5),
}


def make_step(device, name, batch_size, n=8192):
    """Make one as estimators do: their losses, their penalty and weights of samples."""
    rng = np.random.default_rng(0)
    make, n_outputs = LOSSES[name]
    loss = make()
    y = rng.integers(0, n_outputs, n) if name == "classes" else rng.integers(0, 2, (n, n_outputs))
    layers = [nn.Dense(32, "relu"), nn.Dense(16), nn.BatchNorm(unbiased=False), nn.Dense(n_outputs)]
    network = nn.Network(layers, 20, device=device)
    optimizer = nn.Adam(epsilon_hat=True)
    return nn.TrainingStep(
        network,
        loss,
        optimizer,
        optimizer.init_state(device, network.parameters),
        device.asarray(rng.standard_normal((n, 20)), network.dtype),
        loss.labels(device, y, n_outputs, network.dtype),
        batch_size,
        weights=device.asarray(np.arange(n) % 3, network.dtype),
        regularizer=nn.Regularizer(l2=1e-3, per_batch=True),
    )


@pytest.mark.host
@pytest.mark.parametrize("name", LOSSES)
def test_a_fused_step_allocates_nothing(name):
    if host.problem() is not None:
        pytest.skip(f"the host kernels are {host.problem()}")
    batch_size = 4096
    step = make_step(xpnet.device("cpu", kernels="fused"), name, batch_size)
    indices = np.random.default_rng(1).integers(0, 8192, (20, batch_size))
    for batch in indices[:2]:  # what is made at first use
        step(batch)

    def work():
        for batch in indices:
            step(batch)

    peak = traced_peak(work)
    assert peak < batch_size * 4, peak  # the losses are the smallest array of a step


@pytest.mark.accelerator
@pytest.mark.parametrize("name", LOSSES)
def test_a_fused_step_on_cuda_asks_for_no_memory(name):
    def refuse(size):
        raise MemoryError(f"a steady step asked for {size} bytes")

    device = xpnet.device(xpnet.device().name, "fused")
    with device.activate():
        step = make_step(device, name, 64)
        batch = device.asarray(np.arange(64))
        step(batch)  # what is made at first use
        with device.xp.cuda.using_allocator(refuse):
            for _ in range(3):
                step(batch)
