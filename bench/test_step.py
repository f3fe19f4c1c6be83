"""One training step compared with its matrix products alone.

The products are the floor of a step: same shapes, same BLAS, warm buffers. ``make bench`` times
both; the tests run each once, so that it keeps working.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

import xpnet
from xpnet import nn

NETWORKS = {
    "784-128-10 batch 32": ((784, 128, 10), 32),
    "784-256-128-10 batch 128": ((784, 256, 128, 10), 128),
    "784-1024-1024-10 batch 1024": ((784, 1024, 1024, 10), 1024),
}


def bind_step(
    device: xpnet.Device, widths: Sequence[int], batch_size: int, X: Any, y: Any
) -> nn.TrainingStep:
    """Make a float32 ReLU network and its training step with Adam, with the device active."""
    layers = [nn.Dense(width, "relu") for width in widths[1:-1]] + [nn.Dense(widths[-1])]
    return bind(nn.Network(layers, widths[0], device=device), nn.Adam(), X, y, batch_size)


def bind(
    network: nn.Network,
    optimizer: nn.Optimizer,
    X: Any,
    y: Any,
    batch_size: int,
    loss: nn.Loss | None = None,
    **more: Any,
) -> nn.TrainingStep:
    """Make a classifier's training step, with its device active."""
    device, loss = network.device, loss or nn.SoftmaxCrossEntropy()
    data = device.asarray(X, network.dtype)
    labels = loss.labels(device, y, network.n_outputs, network.dtype)
    state = optimizer.init_state(device, network.parameters)
    return nn.TrainingStep(network, loss, optimizer, state, data, labels, batch_size, **more)


def make_step(device: xpnet.Device, widths: tuple[int, ...], batch_size: int) -> Any:
    rng = np.random.default_rng(0)
    n = 4 * batch_size
    X, y = rng.standard_normal((n, widths[0])), rng.integers(0, widths[-1], n)
    step = bind_step(device, widths, batch_size, X, y)
    indices = device.asarray(rng.permutation(n)[:batch_size])

    def run() -> None:
        step(indices)
        device.synchronize()

    return run


def multiply(
    matmul: Callable[..., Any], A: list[Any], dA: list[Any], W: list[Any], dW: list[Any]
) -> None:
    """Compute the products of a step: forward into ``A``, back into ``dW`` and ``dA``."""
    for i, matrix in enumerate(W):
        matmul(A[i], matrix, out=A[i + 1])
    for i, matrix in reversed(list(enumerate(W))):
        matmul(A[i].T, dA[i + 1], out=dW[i])
        if i:
            matmul(dA[i + 1], matrix.T, out=dA[i])


def make_products(device: xpnet.Device, widths: tuple[int, ...], batch_size: int) -> Any:
    xp = device.xp
    # Zeros take as long to multiply as normal numbers, and never overflow.
    A = [xp.zeros((batch_size, width), dtype="float32") for width in widths]
    dA = [xp.zeros((batch_size, width), dtype="float32") for width in widths]
    W = [xp.zeros(shape, dtype="float32") for shape in pairwise(widths)]
    dW = [xp.empty_like(matrix) for matrix in W]

    def run() -> None:
        multiply(xp.matmul, A, dA, W, dW)
        device.synchronize()

    return run


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("what", ["products", "step"])
def test_step(benchmark: Any, name: str, what: str) -> None:
    device = xpnet.device()
    make = make_products if what == "products" else make_step
    benchmark.group = f"{name}, float32, {device.name}"
    with device.activate():
        run = make(device, *NETWORKS[name])
        run()
        benchmark(run)
