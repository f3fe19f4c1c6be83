"""What is trained: networks, batch sizes, data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["NETWORKS", "TO_ACCURACY", "Problem", "data_of", "initial_weights"]


@dataclass(frozen=True)
class Problem:
    """A network and how it is trained in one turn.

    Attributes
    ----------
    widths : tuple of int
        Features, units of the hidden layers (ReLU), outputs: one for two classes.
    batch_size : int
        It divides ``n_samples``.
    n_samples, epochs : int
        What a turn trains on, and how often.
    dtype : {"float32", "float64"}
    optimizer : {"adam", "gradient_descent"}
    learning_rate : float
    """

    widths: tuple[int, ...]
    batch_size: int
    n_samples: int
    epochs: int = 1
    dtype: str = "float32"
    optimizer: str = "adam"
    learning_rate: float = 0.001

    @property
    def name(self) -> str:
        """The network and its batch size."""
        batch = "full batch" if self.batch_size == self.n_samples else f"batch {self.batch_size}"
        return f"{'-'.join(map(str, self.widths))}, {batch}"

    @property
    def n_steps(self) -> int:
        """Training steps in a turn."""
        return self.epochs * self.n_samples // self.batch_size

    @property
    def n_parameters(self) -> int:
        """Weights and biases."""
        return sum(n * m + m for n, m in pairwise(self.widths))

    def as_dict(self) -> dict[str, Any]:
        """Give plain data, from which :meth:`from_dict` makes it again."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Problem:
        """Undo :meth:`as_dict`, also after JSON."""
        return cls(**{**values, "widths": tuple(values["widths"])})


TO_ACCURACY = Problem((784, 256, 128, 10), 128, 128 * 468)
NETWORKS = (
    Problem((784, 128, 10), 32, 32 * 1875, epochs=2),
    Problem((784, 256, 128, 10), 128, 128 * 468, epochs=2),
    Problem((784, 1024, 1024, 10), 1024, 1024 * 58, epochs=2),
    Problem((784, 2048, 2048, 2048, 10), 4096, 4096 * 4, epochs=2),
    Problem(
        (12288, 20, 7, 5, 1),
        209,
        209,
        epochs=100,
        dtype="float64",
        optimizer="gradient_descent",
        learning_rate=0.0075,
    ),
)


def data_of(problem: Problem, *, as_bytes: bool) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
    """Draw samples and labels: bytes where they are wanted and the problem is in float32.

    What the numbers are makes no difference to how long a step takes.
    """
    rng = np.random.default_rng(0)
    n, d = problem.n_samples, problem.widths[0]
    y = rng.integers(0, max(problem.widths[-1], 2), n)
    if as_bytes and problem.dtype == "float32":
        return rng.integers(0, 256, (n, d), dtype=np.uint8), y
    X = np.empty((n, d), problem.dtype)
    for start in range(0, n, 4096):
        part = X[start : start + 4096]
        rng.random(part.shape, X.dtype, part)
    return X, y


def initial_weights(
    widths: Sequence[int], dtype: str, seed: int
) -> list[tuple[npt.NDArray[Any], ...]]:
    """Draw weights by He's rule, and zeros for biases, layer by layer."""
    rng = np.random.default_rng(seed)
    return [
        ((rng.standard_normal((n, m)) * np.sqrt(2 / n)).astype(dtype), np.zeros(m, dtype))
        for n, m in pairwise(widths)
    ]
