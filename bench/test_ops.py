"""Every fused operation compared with the reference and with a copy of as many bytes.

*Hot* calls use the same arrays every time, so that these stay in the cache if they fit. *Cold*
calls cycle through enough sets of arrays that none is in the cache any more when it is used again.
Fused and reference calls alternate, so that other load on the machine affects both.
"""

from __future__ import annotations

import itertools
import math
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import xpnet
from xpnet.kernels.catalogue import CATALOGUE, Operand, Resampled
from xpnet.kernels.reference import NumpyOps, ReferenceOps

ROWS = {row.name: row for row in CATALOGUE}
COLD_BYTES = 128 * 2**20  # several times the last cache of this and most machines
ROUNDS = 41

PARAMETERS = (235_146,)  # of 784-256-128-10
LINES = (919, 256)  # the same, as rows that are summed
WEIGHTS = (784, 256)
HIDDEN, LARGE = (128, 256), (1024, 1024)
LOGITS, MANY_LOGITS = (128, 10), (1024, 1000)
IMAGES = (128, 784)


def shapes_of(name: str) -> tuple[tuple[int, ...], ...]:
    """Return the shapes that an operation has in training."""
    if name.endswith("_update") or name in ("scale", "clip"):
        return (PARAMETERS,)
    if name in ("square_sum", "penalty_grad"):
        return (LINES,)
    if name == "limit_norms":
        return (WEIGHTS,)
    if name in ("shares", "add_sum", "inverse_sum", "variance_correction", "clip_factor"):
        return ((128,),)
    if name in ("batch_norm_tick", "inverse_std"):
        return ((256,),)
    if name == "adam_tick":
        return ((1,),)
    if name == "mean":
        return ((128,), (8192,))
    if isinstance(ROWS[name], Resampled) or name in (
        "gather",
        "brightness_contrast",
        "gaussian_noise",
    ):
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


# Arguments of the operations; other numbers are 0.5, and the step count is 7.
NUMBERS: dict[str, Any] = {
    **dict.fromkeys(("beta", "beta1"), 0.9),
    **dict.fromkeys(("momentum", "smoothing", "weight"), 0.1),
    **dict.fromkeys(("eps", "eps_const"), 1e-8),
    **dict.fromkeys(("seed", "layer", "purpose"), 1),
    "beta2": 0.999,
    "clip": 0.0,
    "degrees": 30.0,
    "divide_by": 255.0,
    "epsilon_hat": True,
    "halved": False,
    "pixels": 2,
    "unbiased": True,
}
SCALES = {"learning_rate": 0.01, "bias1": 0.19, "bias2": 0.002, "eps": 1e-8, "correction": 1.1}
POSITIVE = ("v", "s", "squares", "variance", "running_variance", "weights", "counts")
N_STORED = 50  # samples that a minibatch is gathered from


def arguments_of(name: str, shape: tuple[int, ...], device: xpnet.Device) -> dict[str, Any]:
    """Make the operands of one call on the device, including results but no weight decay."""
    row, rng = ROWS[name], np.random.default_rng([0, *name.encode()])
    arguments: dict[str, Any] = {
        operand.name: draw(operand, shape, rng)
        for operand in row.operands
        if operand.name != "weight_decay"
    }
    numbers = {
        number.name: NUMBERS.get(number.name, 0.5)
        for number in row.numbers
        if number.formula is None and number.name != "n_decay"
    }
    if "height" in numbers:  # two channels, twice as wide as they are high
        numbers["height"] = math.isqrt(shape[-1] // 4)
        numbers["width"] = 2 * numbers["height"]
    if "A" in arguments:  # an output of the activation
        activation = getattr(NumpyOps(np), name.removesuffix("_grad"))
        arguments["A"] = activation(arguments["A"], *numbers.values())
    arrays = {key: device.asarray(array) for key, array in arguments.items()}
    return {**arrays, **numbers}


def draw(operand: Operand, shape: tuple[int, ...], rng: np.random.Generator) -> Any:
    """Draw an operand of an operation on rows of this shape."""
    layouts = {"column": shape[-1:], "row": shape[:-1], "single": (*shape[:-1], 1)}
    own = layouts.get(operand.layout, shape)
    match operand.name:
        case "step":
            return np.full(shape if operand.layout == "each" else 1, 7, np.int64)
        case "indices":
            return rng.integers(0, N_STORED, own)
    if operand.use == "out":
        return np.empty(own, np.float32)
    if operand.type == "uint8":
        return rng.integers(0, 256, (N_STORED, *shape[1:]), np.uint8)
    if operand.type == "int64":
        return rng.integers(0, shape[-1], own)
    if operand.name in SCALES:
        return np.float32(SCALES[operand.name]) * (1 + rng.random(own, np.float32))
    if operand.name == "labels":
        return np.clip(1.5 * rng.random(own, np.float32) - 0.25, 0, 1)
    array = 3 * rng.standard_normal(own, np.float32)
    return np.abs(array) if operand.name in POSITIVE else array


def traffic(name: str, arguments: dict[str, Any]) -> int:
    """Count the bytes that a single pass reads and writes."""
    total = 0
    for operand in ROWS[name].operands:
        array = arguments.get(operand.name)
        if array is None:
            continue
        n_bytes = array.nbytes
        if name == "gather" and operand.name == "X":
            n_bytes = arguments["out"].size  # only these bytes of the data set
        total += n_bytes * (2 if operand.use == "inout" else 1)
    return total


def times(calls: dict[str, Callable[[], Any]], n_rounds: int) -> dict[str, list[float]]:
    """Time calls alternately, each often enough for the clock, in microseconds."""
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
