"""The parts of the GPU gate, in the order they run."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

from bench.gpu import checks, measurements, rates, steps
from bench.gpu.outcome import Row, Settings

__all__ = ["PARTS", "Part"]


@dataclass(frozen=True)
class Part:
    """One part; it returns rows of a table, or raises an exception."""

    run: Callable[[Settings], list[Row]]
    seconds: float  # time limit, longer in a rehearsal
    is_check: bool = True  # past the limit a check fails, a measurement is incomplete


PARTS: dict[str, Part] = {
    "environment": Part(measurements.environment, 60, is_check=False),
    "parity in float64": Part(functools.partial(checks.parity, "float64"), 70),
    "parity in float32": Part(functools.partial(checks.parity, "not float64"), 70),
    "steady step": Part(checks.steady_step, 40),
    "graph equals eager": Part(checks.graph_equals_eager, 60),
    "capture refusal": Part(checks.refusal, 20),
    "memcheck": Part(functools.partial(checks.sanitizer, "memcheck"), 40),
    "initcheck": Part(functools.partial(checks.sanitizer, "initcheck"), 40),
    "racecheck": Part(functools.partial(checks.sanitizer, "racecheck"), 40),
    "synccheck": Part(functools.partial(checks.sanitizer, "synccheck"), 40),
    "steps": Part(steps.steps, 80, is_check=False),
    "epochs": Part(rates.epochs, 40, is_check=False),
    "bandwidths": Part(rates.bandwidths, 40, is_check=False),
    "rooflines": Part(rates.rooflines, 40, is_check=False),
    "classifiers": Part(checks.classifiers, 60),
    "tests": Part(checks.tests, 200),
    "compiled steps": Part(steps.compiled_steps, 100, is_check=False),
    "operations": Part(measurements.operations, 110, is_check=False),
    "sizes": Part(measurements.sizes, 60, is_check=False),
    "cold starts": Part(measurements.cold_starts, 60, is_check=False),
}
