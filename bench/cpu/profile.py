"""The time of each part of a training step."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from bench.cpu.contestants import Xpnet
from bench.cpu.problems import Problem
from xpnet import nn

__all__ = ["profile"]


class _Timed:
    """A table of operations that records the time of each call."""

    def __init__(self, ops: Any) -> None:
        self._ops = ops
        self.does_nothing = False
        self.calls: list[tuple[str, float]] = []

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._ops, name)
        if not callable(found):
            return found
        operation: Callable[..., Any] = found

        def timed(*args: Any, **kwargs: Any) -> Any:
            if self.does_nothing:
                return kwargs.get("out")
            start = time.perf_counter()
            result = operation(*args, **kwargs)
            seconds = time.perf_counter() - start
            shapes = [array.shape for array in args if isinstance(array, np.ndarray)]
            shown = " @ ".join(map(str, shapes[:2] if name == "matmul" else shapes[:1]))
            self.calls.append((f"{name} {shown}", seconds * 1e6))
            return result

        return timed


def profile(problem: Problem) -> list[str]:
    """Return a table of a step's parts in order: medians in microseconds, and shares.

    The whole step is timed without a clock around its parts, and Python's own share with operations
    that do nothing.
    """
    made = Xpnet(problem, 1)
    device = made.network.device
    ops = device.ops
    rng = np.random.default_rng(0)
    n_steps = max(15, min(500, int(2e10 / (problem.n_parameters * problem.batch_size))))
    with device.activate():
        step = _bind(made)
        batches = _batches(rng, problem, n_steps + 5)
        plain = [_seconds(step, batch) for batch in batches][5:]
        timed = _Timed(ops)
        device.ops = timed  # type: ignore[assignment]
        step = _bind(made)
        parts: list[list[tuple[str, float]]] = []
        for batch in batches:
            timed.calls.clear()
            step(batch)
            parts.append(list(timed.calls))
        timed.does_nothing = True
        idle = [_seconds(step, batch) for batch in batches][5:]
        device.ops = ops
    names = [name for name, _ in parts[-1]]
    medians = [statistics.median(one[i][1] for one in parts[5:]) for i in range(len(names))]
    whole = statistics.median(plain)
    lines = [f"{problem.name}, {problem.dtype}, {device.kernels} kernels: {whole:,.1f} us a step"]
    width = max(len(name) for name in names)
    for name, us in zip(names, medians, strict=True):
        lines.append(f"  {name:<{width}} {us:>10,.1f} us {us / whole:>7.1%}")
    python = statistics.median(idle)
    lines.append(f"  {'Python':<{width}} {python:>10,.1f} us {python / whole:>7.1%}")
    return lines


def _bind(made: Xpnet) -> nn.TrainingStep:
    network, problem = made.network, made.problem
    is_binary = network.n_outputs == 1
    loss = nn.SigmoidCrossEntropy() if is_binary else nn.SoftmaxCrossEntropy()
    return nn.TrainingStep(
        network,
        loss,
        made.optimizer,
        made.optimizer.init_state(network.device, network.parameters),
        made.X,
        loss.labels(network.device, made.y, network.n_outputs, network.dtype),
        None if problem.batch_size == problem.n_samples else problem.batch_size,
        255.0 if made.X.dtype == np.uint8 else None,
    )


def _batches(rng: np.random.Generator, problem: Problem, n: int) -> list[Any]:
    order = rng.permutation(problem.n_samples)
    if problem.batch_size == problem.n_samples:
        return [None] * n
    per_epoch = problem.n_samples // problem.batch_size
    starts = [k % per_epoch * problem.batch_size for k in range(n)]
    return [order[start : start + problem.batch_size] for start in starts]


def _seconds(step: nn.TrainingStep, batch: Any) -> float:
    start = time.perf_counter()
    step(batch)
    return (time.perf_counter() - start) * 1e6
