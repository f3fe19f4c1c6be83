"""How close steps and operations come to the GPU's limits, and how long an epoch takes."""

from __future__ import annotations

import functools
from collections.abc import Callable
from itertools import pairwise
from typing import Any
from unittest import mock

import numpy as np

import xpnet
from bench.gpu import timing
from bench.gpu.outcome import Failed, Row, Settings
from bench.gpu.steps import Case, bind_captured, in_time
from bench.test_step import multiply
from xpnet import nn
from xpnet.data import DataError
from xpnet.data.named import load_contents
from xpnet.kernels import cuda
from xpnet.training import fit
from xpnet.training.execution import STEPS_PER_GRAPH

__all__ = ["bandwidths", "epochs", "rooflines"]

_ADAM_BYTES = 28  # per parameter: four numbers are read, three written


def bandwidths(settings: Settings) -> list[Row]:
    """Measure the bandwidth of Adam and the bias gradient, compared with a copy."""
    device = xpnet.device("cuda", "fused")
    n = 10_000 if settings.is_rehearsal else 100_000_000
    rows: list[Row] = []
    with device.activate():
        xp = device.xp
        p, g, m, v = (xp.zeros(n, dtype="float32") for _ in range(4))
        copy = _timed(settings, device, functools.partial(timing.copy, m, v))
        rate = 8 * n / copy.median / 1e3
        rows.append(_row(f"copy of {n:,} numbers", 8 * n, copy, rate))
        optimizer = nn.Adam()
        state = {**optimizer.init_state(device, p), "m": m, "v": v}
        update = functools.partial(optimizer.update, device.ops, p, g, state)
        update()
        n_bytes = _ADAM_BYTES * n
        rows.append(
            _row(f"Adam, {n:,} parameters", n_bytes, _timed(settings, device, update), rate)
        )
        del p, g, m, v, state, update
        for shape in ((128, 256), (1024, 1024), (8192, 2048), (8192, 10)):
            if settings.is_rehearsal:
                shape = (min(shape[0], 64), min(shape[1], 16))
            dZ, A, out = (xp.ones(shape, dtype="float32") for _ in range(3))
            db, ones = xp.empty(shape[1], dtype="float32"), xp.ones((1, shape[0]), dtype="float32")
            name, size = "x".join(map(str, shape)), 4 * dZ.size
            by_ones = functools.partial(device.ops.matmul, ones, dZ, out=db.reshape(1, -1))
            by_one_kernel = functools.partial(_in_one_kernel, device.ops.bias_grad, dZ, db)
            with_relu = functools.partial(device.ops.relu_grad, dZ, A, out=out, db=db)
            for what, n_bytes, call in (
                ("bias gradient", size, functools.partial(device.ops.bias_grad, dZ, out=db)),
                ("the same as a product with ones", size, by_ones),
                ("the same by one kernel, a thread for each column", size, by_one_kernel),
                ("ReLU's gradient and the bias's", 3 * size, with_relu),
            ):
                call()
                taken = _timed(settings, device, call, repeated=20)
                rows.append(_row(f"{what}, {name}", n_bytes, taken, rate))
    return rows


def _in_one_kernel(bias_grad: Any, dZ: Any, db: Any) -> None:
    with mock.patch.multiple(cuda, n_splits=lambda *_: 1, is_by_warp=lambda *_: False):
        bias_grad(dZ, out=db)


def _timed(
    settings: Settings, device: xpnet.Device, call: Callable[[], Any], repeated: int = 1
) -> timing.Timed:
    return timing.captured(settings, device, [call] * repeated)


def _row(what: str, n_bytes: int, taken: timing.Timed, of_copy: float) -> Row:
    rate = n_bytes / taken.median / 1e3
    return {
        "what": what,
        "precision": "float32",
        "us": taken.median,
        "+-": taken.spread,
        "GB/s": rate,
        "of the copy": f"{rate / of_copy:.0%}",
    }


_CASES: tuple[Case, ...] = (
    ((784, 256, 128, 10), 128, "float32"),
    ((784, 256, 128, 10), 1024, "float32"),
    ((784, 256, 128, 10), 8192, "float32"),
    ((784, 256, 128, 10), 8192, "tf32"),
    ((784, 1024, 1024, 10), 1024, "float32"),
    ((784, 2048, 2048, 2048, 10), 8192, "float32"),
    ((784, 2048, 2048, 2048, 10), 8192, "tf32"),
)


def rooflines(settings: Settings) -> list[Row]:
    """Compare captured steps with their products alone and with the limits of the GPU.

    The limits are the rate of a product of square matrices and the bandwidth of a copy, both
    measured here. A step must do ``2 m n k`` operations for each product. In float32, with nothing
    fused into the products, it must move 40 bytes per parameter (read forward and backward, its
    gradient written, and Adam's 28); 36 bytes for each hidden activation of each sample (written by
    the product; read and written with the bias; read for dW, and by the next product; the same for
    its gradient except for the bias); and 8 bytes for each feature of each sample.
    """
    rows: list[Row] = []
    measured: dict[str, tuple[float, float]] = {}
    for widths, batch_size, precision in in_time(settings, _CASES, 8, rows):
        device = xpnet.device("cuda", "fused", precision)
        with device.activate():
            if precision not in measured:
                measured[precision] = _limits(settings, device)
            product_rate, bandwidth = measured[precision]
            multiply_all = _products(device, widths, batch_size)
            multiply_all()
            products = _timed(settings, device, multiply_all)
            captured, indices = bind_captured(device, widths, batch_size)
            take = functools.partial(captured, indices)
            step = timing.repeated(settings, device, take, STEPS_PER_GRAPH)
            del multiply_all, captured, take  # they hold memory
        device.free_memory()
        n_operations = _n_operations(widths, batch_size)
        arithmetic = n_operations / product_rate
        memory = _n_bytes(widths, batch_size) / bandwidth
        rows.append(
            {
                "network": "-".join(map(str, widths)),
                "batch": batch_size,
                "precision": precision,
                "step (us)": step.median,
                "+-": step.spread,
                "products alone (us)": products.median,
                "TFLOP/s": n_operations / step.median / 1e6,
                "square products, TFLOP/s": product_rate / 1e6,
                "of that rate": f"{arithmetic / step.median:.0%}",
                "arithmetic allows (us)": arithmetic,
                "memory allows (us)": memory,
                "bound by": "arithmetic" if arithmetic > memory else "memory",
                "step / limit": step.median / max(arithmetic, memory),
            }
        )
    return rows


def _limits(settings: Settings, device: xpnet.Device) -> tuple[float, float]:
    """Return the GPU's operations and bytes per microsecond."""
    n = 64 if settings.is_rehearsal else 8192
    # Constant matrices would take less power, so the clock would be higher.
    A = _normal(device, (n, n))
    C = device.xp.empty_like(A)
    multiply = functools.partial(device.ops.matmul, A, A, out=C)
    multiply()
    product = _timed(settings, device, multiply)
    copy = _timed(settings, device, functools.partial(timing.copy, C, A))
    return 2 * n**3 / product.median, 2 * A.nbytes / copy.median


def _normal(device: xpnet.Device, shape: tuple[int, int]) -> Any:
    """Draw a matrix that keeps the scale of what it is multiplied with."""
    rng = np.random.default_rng(0)
    return device.asarray(rng.standard_normal(shape, np.float32) / np.float32(np.sqrt(shape[0])))


def _products(device: xpnet.Device, widths: tuple[int, ...], batch_size: int) -> Callable[[], None]:
    """Return a function that computes the products of a step."""
    A = [_normal(device, (batch_size, width)) for width in widths]
    dA = [_normal(device, (batch_size, width)) for width in widths]
    W = [_normal(device, shape) for shape in pairwise(widths)]
    dW = [device.xp.empty_like(matrix) for matrix in W]
    return functools.partial(multiply, device.ops.matmul, A, dA, W, dW)


def _n_operations(widths: tuple[int, ...], batch_size: int) -> int:
    sizes = [n_in * n_out for n_in, n_out in pairwise(widths)]
    return 2 * batch_size * (3 * sum(sizes) - sizes[0])


def _n_bytes(widths: tuple[int, ...], batch_size: int) -> int:
    n_parameters = sum((n_in + 1) * n_out for n_in, n_out in pairwise(widths))
    return 40 * n_parameters + batch_size * (36 * sum(widths[1:]) + 8 * widths[0])


def epochs(settings: Settings) -> list[Row]:
    """Time an epoch of fit on Fashion-MNIST, or on random data of that size."""
    data, X, y = _fashion(600 if settings.is_rehearsal else 60_000)
    rows: list[Row] = []
    for precision, capture in (("float32", True), ("float32", False), ("tf32", True)):
        device = xpnet.device("cuda", "fused", precision)
        layers = [nn.Dense(256, "relu"), nn.Dense(128, "relu"), nn.Dense(10)]
        network = nn.Network(layers, X.shape[1], device=device)
        history = fit(
            network,
            X,
            y,
            loss="softmax_cross_entropy",
            optimizer="adam",
            epochs=2 if settings.is_rehearsal else 9,
            batch_size=128,
            divide_by=255,
            capture=capture,
        )
        if history.captured is not capture:
            raise Failed(f"captured is {history.captured}", rows)
        seconds = np.diff([report.seconds for report in history.reports])
        rows.append(
            {
                "data": data,
                "network": "784-256-128-10",
                "batch": 128,
                "precision": precision,
                "steps": "captured" if capture else "one by one",
                "an epoch (ms)": 1e3 * float(np.median(seconds)),
                "slowest (ms)": 1e3 * float(seconds.max()),
                "the first (ms)": 1e3 * history.reports[0].seconds,
                "cost": history.reports[-1].cost,
            }
        )
    return rows


def _fashion(n: int) -> tuple[str, Any, Any]:
    """Return images as bytes, and their labels."""
    try:
        part = load_contents("fashion-mnist").parts["train"]
    except DataError:
        rng = np.random.default_rng(0)
        return "drawn", rng.integers(0, 256, (n, 784), np.uint8), rng.integers(0, 10, n)
    return "fashion-mnist", part.X.reshape(len(part.X), -1)[:n], np.asarray(part.y)[:n]
