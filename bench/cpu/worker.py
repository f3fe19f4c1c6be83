"""A contestant's process: reads requests as lines of JSON, and answers each with one line.

Only this process imports the measured package.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.cpu.turns import pin


def main() -> int:
    """Answer requests until there are no more."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a library prints is not an answer
    worker = _Worker()
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = {"value": getattr(worker, request["do"])(**request["arguments"])}
        except Exception as error:  # any error is the answer
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
    return 0


class _Worker:
    def prepare(self, contestant: str, problem: dict[str, Any], n_threads: int) -> dict[str, Any]:
        """Import, make data and network; return settings and versions."""
        pin(n_threads)
        from bench.cpu.contestants import CONTESTANTS
        from bench.cpu.problems import Problem

        chosen = CONTESTANTS[contestant]
        self.contestant = chosen(Problem.from_dict(problem), n_threads)
        return {
            "settings": chosen.settings,
            "versions": {name: importlib.metadata.version(name) for name in chosen.packages},
        }

    def start(self) -> None:
        """Make a new network, to train from the start."""
        self.contestant.start()

    def turn(self) -> float:
        """Train for one turn; return the seconds."""
        return self._train(self.contestant.problem.epochs)

    def epoch(self) -> float:
        """Train for one epoch; return the seconds."""
        return self._train(1)

    def _train(self, epochs: int) -> float:
        start = time.perf_counter()
        self.contestant.train(epochs)
        return time.perf_counter() - start

    def train_until(self, target: float, seed: int) -> dict[str, Any]:
        """Train on Fashion-MNIST until its test accuracy is reached."""
        import numpy as np

        from xpnet.data import load_dataset

        data = load_dataset("fashion-mnist", validation_fraction=0)
        n = len(data.X_train) // self.contestant.problem.batch_size
        n *= self.contestant.problem.batch_size  # whole minibatches, for JAX
        self.contestant.use(data.X_train[:n], data.y_train[:n], seed)

        def accuracy(predict: Callable[[Any], Any]) -> float:
            return float(np.mean(predict(data.X_test) == data.y_test))

        return self.contestant.train_until(accuracy, target)

    def memory(self, contestant: str, problem: dict[str, Any], n_threads: int) -> dict[str, int]:
        """Train for a turn; return the peak memory in bytes, after the imports and in total."""
        pin(n_threads)
        from bench.cpu.contestants import CONTESTANTS
        from bench.cpu.problems import Problem

        chosen = CONTESTANTS[contestant]
        tiny = Problem((4, 3, 2), 2, 4)
        chosen(tiny, n_threads).train(1)  # imports what it needs
        after_import = peak_memory()
        made = chosen(Problem.from_dict(problem), n_threads)
        made.train(made.problem.epochs)
        return {"after_import": after_import, "peak": peak_memory(), "data": made.X.nbytes}


def peak_memory() -> int:
    """Return the peak memory of this process, in bytes."""
    status = Path("/proc/self/status")
    if status.exists():
        # In a new process, getrusage starts with the peak of the parent.
        (line,) = (text for text in status.read_text("ascii").splitlines() if "VmHWM" in text)
        return int(line.split()[1]) * 1024
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


if __name__ == "__main__":
    sys.exit(main())
