"""Contestants taking turns, each in a process of its own."""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.cpu.problems import Problem

__all__ = [
    "Failed",
    "Process",
    "Spread",
    "environment",
    "pin",
    "processors",
    "ratios",
    "take_turns",
]

ROOT = Path(__file__).resolve().parent.parent.parent
REST = 0.1  # seconds before a turn, in which threads of the one before go to sleep
PATIENCE = 900  # seconds for an answer
# What sets a library by hand, where a measurement wants it as it is.
BY_HAND = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE", "XLA_FLAGS", "GOMP_", "KMP_", "OMP_WAIT")
_THREADS = (
    *("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"),
    "VECLIB_MAXIMUM_THREADS",
)


class Failed(RuntimeError):  # noqa: N818  (an outcome)
    """A contestant could not do what was asked; the message says why."""


@dataclass(frozen=True)
class Spread:
    """The median of several rounds, and the quartiles."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Sum up the rounds."""
        if len(values) < 2:
            return cls(values[0], values[0], values[0])
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(median, low, high)


def environment(contestant: str, n_threads: int) -> dict[str, str]:
    """Give the environment of a contestant's process.

    OPENBLAS_CORETYPE and OPENBLAS_L2_SIZE choose a BLAS kernel by hand, and a measurement wants the
    one that fits the machine.
    """
    threads = dict.fromkeys(_THREADS, str(n_threads))
    chosen = {
        **os.environ,
        **threads,
        "PYTHONPATH": str(ROOT),
        "XPNET_DEVICE": "cpu",
        "XPNET_KERNELS": "reference" if contestant == "xpnet, reference" else "",
        "CUDA_VISIBLE_DEVICES": "",
        "JAX_PLATFORMS": "cpu",
    }
    return {name: value for name, value in chosen.items() if not name.startswith(BY_HAND)}


def pin(n_threads: int) -> None:
    """Keep this process to so many processors, where the system can."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, processors(n_threads))


def processors(n: int) -> set[int]:
    """Choose so many of those that this process may use."""
    return set(sorted(os.sched_getaffinity(0))[:n])


class Process:
    """A contestant's process."""

    def __init__(self, contestant: str, n_threads: int) -> None:
        self.contestant = contestant
        # A pipe that nobody reads would fill up.
        self._said = tempfile.TemporaryFile()  # noqa: SIM115
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.cpu.worker"],
            cwd=ROOT,
            env=environment(contestant, n_threads),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            text=True,
            encoding="utf-8",
        )

    def ask(self, do: str, **arguments: Any) -> Any:
        """Ask for something, and wait for the answer."""
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # then there is no answer
            process.stdin.write(json.dumps({"do": do, "arguments": arguments}) + "\n")
            process.stdin.flush()
        too_long = threading.Timer(PATIENCE, process.kill)
        too_long.start()
        line = process.stdout.readline()
        too_long.cancel()
        if not line:
            self._said.seek(0)
            said = self._said.read()[-500:].decode(errors="replace")
            raise Failed(f"{self.contestant}: its process ended, {process.wait()}: {said}")
        answer = json.loads(line)
        if "error" in answer:
            raise Failed(f"{self.contestant}: {answer['error']}")
        return answer["value"]

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()
        self._said.close()


@contextlib.contextmanager
def processes(contestants: Sequence[str], n_threads: int) -> Iterator[dict[str, Process]]:
    """Keep a process for each contestant."""
    made: dict[str, Process] = {}
    try:
        for contestant in contestants:
            made[contestant] = Process(contestant, n_threads)
        yield made
    finally:
        for process in made.values():
            process.close()


def take_turns(
    problem: Problem, contestants: Sequence[str], n_threads: int, rounds: int
) -> dict[str, dict[str, Any]]:
    """Let contestants train on a problem by turns.

    Returns
    -------
    dict
        For each contestant ``settings``, ``versions`` and ``us``, the microseconds of a step in
        every round; or ``error``, for one that is not installed or failed.
    """
    found: dict[str, dict[str, Any]] = {}
    with processes(contestants, n_threads) as made:
        for contestant, process in made.items():
            try:
                found[contestant] = process.ask(
                    "prepare",
                    contestant=contestant,
                    problem=problem.as_dict(),
                    n_threads=n_threads,
                )
                process.ask("turn")  # what is compiled, or made at first use
                found[contestant]["us"] = []
            except Failed as error:
                found[contestant] = {"error": str(error)}
        for number in range(rounds):
            names = [name for name in contestants if "us" in found[name]]
            shift = number % max(len(names), 1)  # nobody always follows the same one
            for contestant in names[shift:] + names[:shift]:
                time.sleep(REST)
                try:
                    seconds = made[contestant].ask("turn")
                except Failed as error:
                    found[contestant] = {"error": str(error)}
                    continue
                found[contestant]["us"].append(seconds / problem.n_steps * 1e6)
    return found


def ratios(of: Sequence[float], to: Sequence[float]) -> list[float]:
    """Divide round by round."""
    return [a / b for a, b in zip(of, to, strict=True)]
