"""Contestants taking turns, each in a process of its own."""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.cpu.problems import Problem

__all__ = ["Failed", "Process", "Spread", "environment", "ratios", "take_turns"]

ROOT = Path(__file__).resolve().parent.parent.parent
REST = 0.1  # seconds before a turn, in which threads of the one before go to sleep


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
    threads = dict.fromkeys(
        ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(n_threads)
    )
    chosen = {
        **os.environ,
        **threads,
        "PYTHONPATH": str(ROOT),
        "XPNET_DEVICE": "cpu",
        "XPNET_KERNELS": "reference" if contestant == "xpnet, reference" else "",
        "CUDA_VISIBLE_DEVICES": "",
        "JAX_PLATFORMS": "cpu",
    }
    for name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):
        chosen.pop(name, None)
    return chosen


class Process:
    """A contestant's process."""

    def __init__(self, contestant: str, n_threads: int) -> None:
        self.contestant = contestant
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.cpu.worker"],
            cwd=ROOT,
            env=environment(contestant, n_threads),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
        )

    def ask(self, do: str, **arguments: Any) -> Any:
        """Ask for something, and wait for the answer."""
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps({"do": do, "arguments": arguments}) + "\n")
            process.stdin.flush()
        except BrokenPipeError:
            pass
        line = process.stdout.readline()
        if not line:
            assert process.stderr is not None
            said = process.stderr.read()[-500:]
            raise Failed(f"{self.contestant}: its process ended, {process.wait()}: {said}")
        answer = json.loads(line)
        if "error" in answer:
            raise Failed(f"{self.contestant}: {answer['error']}")
        return answer["value"]

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()


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
