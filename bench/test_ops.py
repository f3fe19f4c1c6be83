"""Every fused operation beside the reference, and beside a copy of as many bytes.

*Hot* calls run over the same arrays again and again, which then lie in the cache as far as they
fit. *Cold* calls go round through so many sets of arrays that the cache has lost each when its turn
comes. Fused and reference calls alternate, so that what disturbs one disturbs the other.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import xpnet
from tests.kernels.cases import ELSEWHERE, ROWS, case
from xpnet.kernels.reference import NumpyOps, ReferenceOps

COLD_BYTES = 128 * 2**20  # several times the last cache of this and most machines
ROUNDS = 41

PARAMETERS = (235_146,)  # of 784-256-128-10
LINES = (919, 256)  # the same, as rows that are summed
WEIGHTS = (784, 256)
HIDDEN, LARGE = (128, 256), (1024, 1024)
LOGITS, MANY_LOGITS = (128, 10), (1024, 1000)
IMAGES = (128, 784)


def shapes_of(name: str) -> tuple[tuple[int, ...], ...]:
    """Give the shapes that an operation meets in training."""
    if name.endswith("_update") or name in ("scale", "clip"):
        return (PARAMETERS,)
    if name in ("square_sum", "penalty_grad"):
        return (LINES,)
    if name == "limit_norms":
        return (WEIGHTS,)
    if name in ("shares", "variance_correction", "clip_factor"):
        return ((128,),)
    if name == "batch_norm_tick":
        return ((256,),)
    if name == "adam_tick":
        return ((1,),)
    if name == "mean":
        return ((128,), (8192,))
    if name in (*ELSEWHERE, "brightness_contrast", "gaussian_noise"):
        return (IMAGES,)
    if name == "softmax" or name.endswith(("_cross_entropy", "squared_error", "_deviance")):
        return (LOGITS, MANY_LOGITS)
    return (HIDDEN, LARGE)


CASES = [
    (name, shape, cache)
    for name in ROWS
    for shape in shapes_of(name)
    for cache in (("hot", "cold") if np.prod(shape) > 10**4 else ("hot",))
]


def arguments_of(name: str, shape: tuple[int, ...], device: xpnet.Device) -> dict[str, Any]:
    """Make the operands of one call on the device, the result's included."""
    arguments = case(name, shape, "ordinary")
    arguments.pop("n_decay", None)
    arguments.pop("weight_decay", None)
    outs = [operand for operand in ROWS[name].operands if operand.name == "out"]
    if outs and "out" not in arguments:
        layouts = {"each": shape, "column": shape[1:], "single": (*shape[:-1], 1)}
        arguments["out"] = np.empty(layouts[outs[0].layout], np.float32)
    return {
        key: device.asarray(value) if isinstance(value, np.ndarray) else value
        for key, value in arguments.items()
    }


def traffic(name: str, arguments: dict[str, Any]) -> int:
    """Count the bytes that a single pass reads and writes."""
    total = 0
    for operand in ROWS[name].operands:
        array = arguments.get(operand.name)
        if array is None:
            continue
        n_bytes = array.nbytes
        if name == "gather" and operand.name == "X":
            n_bytes = arguments["out"].size  # of the data set only these bytes
        total += n_bytes * (2 if operand.use == "inout" else 1)
    return total


def times(calls: dict[str, Callable[[], Any]], n_rounds: int) -> dict[str, list[float]]:
    """Time calls by turns, each often enough for the clock, in microseconds."""
    repeats = {}
    for key, call in calls.items():
        call()
        start = time.perf_counter()
        call()
        repeats[key] = max(1, int(2e-4 / (time.perf_counter() - start)))
    found: dict[str, list[float]] = {key: [] for key in calls}
    for _ in range(n_rounds):
        for key, call in calls.items():
            start = time.perf_counter()
            for _ in range(repeats[key]):
                call()
            found[key].append((time.perf_counter() - start) / repeats[key] * 1e6)
    return found


def interquartile(values: list[float]) -> float:
    low, _, high = statistics.quantiles(values, n=4)
    return high - low


@pytest.mark.parametrize(
    ("name", "shape", "cache"), CASES, ids=["-".join(map(str, parts)) for parts in CASES]
)
def test_operation(benchmark: Any, name: str, shape: tuple[int, ...], cache: str) -> None:
    device = xpnet.device()
    if device.kernels != "fused":
        pytest.skip("there are no fused kernels here")
    base = NumpyOps if device.index is None else ReferenceOps
    fused, reference = getattr(device.ops, name), getattr(base(device.xp), name)
    with device.activate():
        first = arguments_of(name, shape, device)
        n_bytes = traffic(name, first)
        n_sets = (
            min(-(-COLD_BYTES // n_bytes), 500) if cache == "cold" and not benchmark.disabled else 1
        )
        sets = [first, *(arguments_of(name, shape, device) for _ in range(n_sets - 1))]
        # A copy reads half of the bytes and writes the other half.
        halves = [np.ones(n_bytes // 2, np.uint8) for _ in range(2 * n_sets)]
        buffers = [device.asarray(half) for half in halves]
        pairs = list(zip(buffers[::2], buffers[1::2], strict=True))
        turn, copy_turn = itertools.cycle(sets), itertools.cycle(pairs)

        def run(operation: Callable[..., Any]) -> None:
            operation(**next(turn))
            device.synchronize()

        def copy() -> None:
            target, source = next(copy_turn)
            target[...] = source
            device.synchronize()

        if not benchmark.disabled:
            found = times(
                {"reference": lambda: run(reference), "fused": lambda: run(fused), "copy": copy},
                ROUNDS,
            )
            medians = {key: statistics.median(values) for key, values in found.items()}
            benchmark.extra_info.update(
                {
                    "operation": name,
                    "shape": "x".join(map(str, shape)),
                    "cache": cache,
                    "reference_us": medians["reference"],
                    "reference_iqr_us": interquartile(found["reference"]),
                    "fused_us": medians["fused"],
                    "fused_iqr_us": interquartile(found["fused"]),
                    "GB/s": n_bytes / medians["fused"] / 1e3,
                    "copy GB/s": n_bytes / medians["copy"] / 1e3,
                }
            )
        benchmark.group = f"operations, float32, {device.name}"
        benchmark(run, fused)
