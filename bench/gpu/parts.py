"""The parts of the GPU gate, in the order in which they run."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

from bench.gpu import checks, measurements
from bench.gpu.outcome import Failed, Row, Settings, Skipped

__all__ = ["PARTS", "Failed", "Part", "Settings", "Skipped"]


@dataclass(frozen=True)
class Part:
    """One part.

    Attributes
    ----------
    run : callable
        Gives rows of a table, or raises.
    seconds : float
        It is stopped after this long.
    """

    run: Callable[[Settings], list[Row]]
    seconds: float


PARTS: dict[str, Part] = {
    "environment": Part(measurements.environment, 60),
    "parity in float64": Part(functools.partial(checks.parity, "float64 or twenty"), 80),
    "parity in float32": Part(functools.partial(checks.parity, "not float64"), 80),
    "tests": Part(checks.tests, 220),
    "steady step": Part(checks.steady_step, 40),
    "memcheck": Part(functools.partial(checks.sanitizer, "memcheck"), 60),
    "initcheck": Part(functools.partial(checks.sanitizer, "initcheck"), 60),
    "racecheck": Part(functools.partial(checks.sanitizer, "racecheck"), 60),
    "classifiers": Part(checks.classifiers, 60),
    "operations": Part(measurements.operations, 90),
    "steps": Part(measurements.steps, 60),
    "sizes": Part(measurements.sizes, 90),
}
