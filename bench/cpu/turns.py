"""Runs the contestants alternately, each in its own process."""

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
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

from bench.cpu.problems import Problem
from bench.environment import BY_HAND, ROOT, THREADS

__all__ = [
    "Failed",
    "Process",
    "Spread",
    "busy_processor",
    "compare_environments",
    "environment",
    "pin",
    "processors",
    "ratios",
    "take_epochs",
    "take_turns",
]

PAUSE = 0.1  # seconds before a turn, in which the threads of the previous one go to sleep
ANSWER_TIMEOUT = 900  # seconds for an answer


class Failed(RuntimeError):  # noqa: N818  (an outcome)
    """A contestant could not do what was asked; the message says why."""


class Spread(NamedTuple):
    """Median and quartiles of several rounds."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Summarise the rounds."""
        if len(values) < 2:
            return cls(values[0], values[0], values[0])
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(median, low, high)


def environment(contestant: str, n_threads: int) -> dict[str, str]:
    """Return the environment variables of a contestant's process.

    It lacks OPENBLAS_CORETYPE and OPENBLAS_L2_SIZE, which override the BLAS's choice of a kernel,
    and XPNET_THREADS, which overrides xpnet's choice of threads.
    """
    chosen = {
        **os.environ,
        **dict.fromkeys(THREADS, str(n_threads)),
        "PYTHONPATH": str(ROOT),
        "XPNET_DEVICE": "cpu",
        "XPNET_KERNELS": "reference" if contestant == "xpnet, reference" else "",
        "CUDA_VISIBLE_DEVICES": "",
        "JAX_PLATFORMS": "cpu",
    }
    unwanted = (*BY_HAND, "XPNET_THREADS")
    return {name: value for name, value in chosen.items() if not name.startswith(unwanted)}


def pin(n_threads: int) -> None:
    """Restrict this process to ``n_threads`` processors, if the system can."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, processors(n_threads))


def processors(n: int) -> set[int]:
    """Return the first ``n`` processors that this process may use."""
    return set(sorted(os.sched_getaffinity(0))[:n])


class Process:
    """A contestant's process, with variables beyond those of its :func:`environment`."""

    def __init__(self, contestant: str, n_threads: int, **variables: str) -> None:
        self.contestant = contestant
        self.n_threads = n_threads
        # A pipe that is not read would fill up.
        self._said = tempfile.TemporaryFile()  # noqa: SIM115
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.cpu.worker"],
            cwd=ROOT,
            env={**environment(contestant, n_threads), **variables},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            text=True,
            encoding="utf-8",
        )

    def prepare(self, problem: Problem) -> dict[str, Any]:
        """Make data and network; return settings and versions."""
        answer: dict[str, Any] = self.ask(
            "prepare",
            contestant=self.contestant,
            problem=asdict(problem),
            n_threads=self.n_threads,
        )
        return answer

    def ask(self, do: str, **arguments: Any) -> Any:
        """Send a request, and wait for the answer."""
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # then there is no answer
            process.stdin.write(json.dumps({"do": do, "arguments": arguments}) + "\n")
            process.stdin.flush()
        too_long = threading.Timer(ANSWER_TIMEOUT, process.kill)
        too_long.start()
        line = process.stdout.readline()
        too_long.cancel()
        if not line:
            self._said.seek(0)
            said = self._said.read()[-500:].decode(errors="replace")
            raise Failed(
                f"{self.contestant}: its process ended with status {process.wait()}: {said}"
            )
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
def busy_processor(n_threads: int) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process that keeps one of the contestants' processors busy until the block ends.

    It also ends if this process is killed, because its standard input closes.
    """
    code = f"""
import sys, threading
from bench.cpu.turns import pin
pin({n_threads})
def work():
    while True: pass
threading.Thread(target=work, daemon=True).start()
print("working", flush=True)
sys.stdin.read()
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=environment("a busy process", n_threads),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    try:
        assert process.stdout is not None
        if not process.stdout.readline():
            raise Failed("the process that keeps a processor busy did not start")
        yield process
    finally:
        process.kill()
        process.communicate()


@contextlib.contextmanager
def _processes(
    environments: Mapping[str, tuple[str, Mapping[str, str]]], n_threads: int
) -> Iterator[dict[str, Process]]:
    """Start a process for every name until the block ends."""
    with contextlib.ExitStack() as stack:
        yield {
            name: stack.enter_context(
                contextlib.closing(Process(contestant, n_threads, **variables))
            )
            for name, (contestant, variables) in environments.items()
        }


def take_turns(
    problem: Problem, contestants: Sequence[str], n_threads: int, rounds: int
) -> dict[str, dict[str, Any]]:
    """Let contestants train on a problem alternately.

    Returns
    -------
    dict
        For each contestant ``settings``, ``versions`` and ``us``, the microseconds of a step in
        every round; or ``error``, for one that is not installed or failed.
    """
    return _take_turns(problem, {name: (name, {}) for name in contestants}, n_threads, rounds)


def compare_environments(
    problem: Problem,
    contestant: str,
    environments: Mapping[str, Mapping[str, str]],
    n_threads: int,
    rounds: int,
) -> dict[str, dict[str, Any]]:
    """Let processes of one contestant with different variables train alternately.

    Returns
    -------
    dict
        The result of :func:`take_turns`, by the names of the environments.
    """
    named = {name: (contestant, variables) for name, variables in environments.items()}
    return _take_turns(problem, named, n_threads, rounds)


def take_epochs(
    problem: Problem, contestants: Sequence[str], n_threads: int, trainings: int
) -> dict[str, dict[str, Any]]:
    """Let contestants train from the start several times, alternating after every epoch.

    Returns
    -------
    dict
        The result of :func:`take_turns`, except that ``us`` has a list for every training: the
        microseconds of a step in each epoch.
    """
    n_steps = problem.n_steps // problem.epochs
    with _processes({name: (name, {}) for name in contestants}, n_threads) as made:
        found = _prepare(made, problem, "epoch")
        for _ in range(trainings):
            for name in _ask_each(made, found, "start"):
                found[name]["us"].append([])
            for number in range(problem.epochs):
                for name, seconds in _ask_each(made, found, "epoch", number).items():
                    found[name]["us"][-1].append(seconds / n_steps * 1e6)
    return found


def _take_turns(
    problem: Problem,
    environments: Mapping[str, tuple[str, Mapping[str, str]]],
    n_threads: int,
    rounds: int,
) -> dict[str, dict[str, Any]]:
    with _processes(environments, n_threads) as made:
        found = _prepare(made, problem, "turn")
        for number in range(rounds):
            for name, seconds in _ask_each(made, found, "turn", number).items():
                found[name]["us"].append(seconds / problem.n_steps * 1e6)
    return found


def _prepare(made: dict[str, Process], problem: Problem, warm_up: str) -> dict[str, dict[str, Any]]:
    """Prepare every process, and warm up."""
    found: dict[str, dict[str, Any]] = {}
    for name, process in made.items():
        try:
            found[name] = process.prepare(problem)
            process.ask(warm_up)  # compiles and allocates at first use
            found[name]["us"] = []
        except Failed as error:
            found[name] = {"error": str(error)}
    return found


def _ask_each(
    made: dict[str, Process], found: dict[str, dict[str, Any]], do: str, number: int = 0
) -> dict[str, Any]:
    """Send a command to each process that still works, one at a time; return the results."""
    names = [name for name in made if "error" not in found[name]]
    shift = number % max(len(names), 1)  # no contestant always follows the same one
    answers: dict[str, Any] = {}
    for name in names[shift:] + names[:shift]:
        time.sleep(PAUSE)
        try:
            answers[name] = made[name].ask(do)
        except Failed as error:
            found[name] = {"error": str(error)}
    return answers


def ratios(of: Sequence[float], to: Sequence[float]) -> list[float]:
    """Divide round by round."""
    return [a / b for a, b in zip(of, to, strict=True)]
