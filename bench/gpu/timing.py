"""Timing of a GPU's work, with the host's clock around many calls and one wait.

A CuPy call costs the host microseconds, often more than its kernel costs the GPU. *Eager* times
include that cost. *Captured* times do not: the calls are recorded once as a CUDA graph, whose
launch runs their kernels back to back.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import xpnet
from bench.gpu.outcome import Settings

__all__ = ["Timed", "captured", "copy", "eager", "repeated"]

_SECONDS = 0.02  # per round, on a GPU
_ROUNDS = 9


@dataclass(frozen=True)
class Timed:
    """Microseconds of a call: median of several rounds, and half their interquartile range."""

    median: float
    spread: float


def copy(target: Any, source: Any) -> None:
    """Copy an array on the device."""
    target[...] = source


def eager(settings: Settings, device: xpnet.Device, call: Callable[[], Any]) -> Timed:
    """Time calls that are issued one by one; the device must be active."""
    return repeated(settings, device, call, 1)


def captured(settings: Settings, device: xpnet.Device, calls: Sequence[Callable[[], Any]]) -> Timed:
    """Time calls that run as one graph; each must have run before and must not allocate."""
    device.synchronize()
    device.stream.begin_capture()
    try:
        for call in calls:
            call()
    finally:
        graph = device.stream.end_capture()
    return repeated(settings, device, lambda: graph.launch(device.stream), len(calls))


def repeated(
    settings: Settings, device: xpnet.Device, call: Callable[[], Any], n_in_call: int
) -> Timed:
    """Time calls that each contain ``n_in_call`` of the work to time."""

    def seconds(n: int) -> float:
        device.synchronize()
        start = time.perf_counter()
        for _ in range(n):
            call()
        device.synchronize()
        return time.perf_counter() - start

    seconds(1)
    n = 1 if settings.is_rehearsal else int(_SECONDS / max(seconds(2) / 2, 1e-6)) + 1
    found = [
        seconds(n) / n / n_in_call * 1e6 for _ in range(2 if settings.is_rehearsal else _ROUNDS)
    ]
    low, median, high = statistics.quantiles(found, n=4)
    return Timed(median, (high - low) / 2)
