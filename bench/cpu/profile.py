"""The time of each part of a training step."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from bench.cpu.contestants import Xpnet
from bench.cpu.problems import Problem
from xpnet import nn
from xpnet.nn.program import runs_programs

__all__ = ["profile"]

ROUNDS = 15


class _Timed:
    """A table of operations that records the time of each call."""

    def __init__(self, ops: Any) -> None:
        self._ops = ops
        self.calls: list[tuple[str, float]] = []

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._ops, name)
        if not callable(found):
            return found
        operation: Callable[..., Any] = found

        def timed(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            result = operation(*args, **kwargs)
            seconds = time.perf_counter() - start
            shapes = [array.shape for array in args if isinstance(array, np.ndarray)]
            shown = " @ ".join(map(str, shapes[:2] if name == "matmul" else shapes[:1]))
            self.calls.append((f"{name} {shown}", seconds))
            return result

        return timed


def profile(problem: Problem) -> list[str]:
    """Return a table of a step's parts in order: medians in microseconds, and shares.

    The whole step is timed without a clock around its parts. With fused kernels it is a program's;
    the step that Python takes, operation by operation, is timed as well.
    """
    made = Xpnet(problem, 1)
    device = made.network.device
    n_steps = max(15, min(500, int(2e10 / (problem.n_parameters * problem.batch_size))))
    with device.activate():
        order = _order(problem, n_steps)
        by_python = _by_python(made, problem, order, n_steps)
        if runs_programs(device):
            names, times, whole = _of_program(made, order, n_steps)
        else:
            names, times = _of_operations(made, problem, order, n_steps)
            whole = by_python
    lines = [f"{problem.name}, {problem.dtype}, {device.kernels} kernels: {whole:,.1f} us a step"]
    width = max(len(name) for name in names)
    for name, us in zip(names, times, strict=True):
        lines.append(f"  {name:<{width}} {us:>10,.1f} us {us / whole:>7.1%}")
    if runs_programs(device):
        lines.append(f"  {by_python:,.1f} us if Python calls each operation")
    return lines


def _of_program(
    made: Xpnet, order: npt.NDArray[np.int64] | None, n_steps: int
) -> tuple[tuple[str, ...], list[float], float]:
    """Return the parts of a step as a program, their times, and that of the whole step."""
    step = _bind(made)
    program = nn.StepProgram(step)
    losses = np.empty(n_steps, made.network.dtype)

    def run(seconds: npt.NDArray[np.float64] | None = None) -> float:
        start, taken = time.perf_counter(), 0
        while taken < n_steps:
            rest = None if order is None else order[taken * step.batch_size :]
            taken += program(losses[taken:], rest, seconds=seconds)
        return (time.perf_counter() - start) / n_steps * 1e6

    run()
    whole = statistics.median(run() for _ in range(ROUNDS))
    found = np.zeros((ROUNDS, len(program.jobs)))
    for seconds in found:
        run(seconds)
    return program.jobs, (np.median(found, axis=0) / n_steps * 1e6).tolist(), whole


def _of_operations(
    made: Xpnet, problem: Problem, order: npt.NDArray[np.int64] | None, n_steps: int
) -> tuple[tuple[str, ...], list[float]]:
    """Return the operations that a step calls, and their times."""
    device = made.network.device
    ops, timed = device.ops, _Timed(device.ops)
    device.ops = timed  # type: ignore[assignment]
    try:
        step = _bind(made)
        parts: list[list[tuple[str, float]]] = []
        for batch in _batches(problem, order, n_steps):
            timed.calls.clear()
            step(*batch)
            parts.append(list(timed.calls))
    finally:
        device.ops = ops
    names = tuple(name for name, _ in parts[-1])
    times = [statistics.median(one[i][1] for one in parts) * 1e6 for i in range(len(names))]
    return names, times


def _by_python(
    made: Xpnet, problem: Problem, order: npt.NDArray[np.int64] | None, n_steps: int
) -> float:
    """Return the median time of a step, in microseconds, called from Python."""
    step = _bind(made)
    found = []
    for batch in _batches(problem, order, n_steps):
        start = time.perf_counter()
        step(*batch)
        found.append(time.perf_counter() - start)
    return statistics.median(found) * 1e6


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


def _order(problem: Problem, n_steps: int) -> npt.NDArray[np.int64] | None:
    """Return the indices of the samples of all steps; None if each trains on the whole data."""
    if problem.batch_size == problem.n_samples:
        return None
    rng, size = np.random.default_rng(0), n_steps * problem.batch_size
    n_epochs = -(-size // problem.n_samples)
    return np.concatenate([rng.permutation(problem.n_samples) for _ in range(n_epochs)])[:size]


def _batches(
    problem: Problem, order: npt.NDArray[np.int64] | None, n_steps: int
) -> list[tuple[npt.NDArray[np.int64], ...]]:
    """Return the arguments of each step."""
    if order is None:
        return [()] * n_steps
    return [(batch,) for batch in order.reshape(n_steps, problem.batch_size)]
