"""The problems to train on: networks, batch sizes, data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["NETWORKS", "TO_ACCURACY", "Problem", "data_of", "initial_weights"]


@dataclass(frozen=True)
class Problem:
    """A network and its training in one turn.

    Attributes
    ----------
    widths : tuple of int
        Numbers of features, of units of the hidden layers (ReLU) and of outputs (one for two
        classes).
    batch_size : int
        Samples in a minibatch; must divide ``n_samples``.
    n_samples, epochs : int
        Samples and epochs of a turn.
    dtype : {"float32", "float64"}
    optimizer : {"adam", "gradient_descent"}
    learning_rate : float
    active : float
        Probability that the last feature of a sample is not zero. The probability is 1 for the
        first feature and falls geometrically. Far below 1, most features are rarely active, like
        the border pixels of images of clothes.
    """

    widths: tuple[int, ...]
    batch_size: int
    n_samples: int
    epochs: int = 1
    dtype: str = "float32"
    optimizer: str = "adam"
    learning_rate: float = 0.001
    active: float = 1.0

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

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Problem:
        """Make a problem from its fields, also as read from JSON."""
        return cls(**{**values, "widths": tuple(values["widths"])})


TO_ACCURACY = Problem((784, 256, 128, 10), 128, 128 * 468)
NETWORKS = (
    Problem((784, 128, 10), 32, 32 * 1875, epochs=2),
    Problem((784, 256, 128, 10), 128, 128 * 468, epochs=2),
    Problem((784, 1024, 1024, 10), 1024, 1024 * 58),
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
    # Of a size common among scikit-learn's users.
    Problem((4, 100, 3), 150, 900, epochs=400, dtype="float64"),
    Problem((4, 100, 3), 200, 1000, epochs=400, dtype="float64"),
    Problem((20, 100, 1), 150, 900, epochs=400, dtype="float64"),
    Problem((20, 100, 1), 200, 1000, epochs=400, dtype="float64"),
    Problem((8, 16, 3), 32, 32 * 100, epochs=100),
)


def data_of(problem: Problem, *, as_bytes: bool) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
    """Draw samples and labels, as bytes if requested and the problem is in float32.

    The values affect the time of a step only if they lead to subnormal numbers, which are slow on
    Intel's processors. Rarely active features lead to them: Adam's first moment of their weights
    decays while they are zero.
    """
    rng = np.random.default_rng(0)
    n, d = problem.n_samples, problem.widths[0]
    y = rng.integers(0, max(problem.widths[-1], 2), n)
    X: npt.NDArray[Any]
    if as_bytes and problem.dtype == "float32":
        X = rng.integers(0, 256, (n, d), dtype=np.uint8)
    else:
        X = np.empty((n, d), problem.dtype)
        for part in _pieces(X):
            rng.random(part.shape, X.dtype, part)
    if problem.active < 1:
        rng = np.random.default_rng(1)  # bytes and numbers are zero in the same places
        chances = problem.active ** np.linspace(0, 1, d)
        for part in _pieces(X):
            part *= rng.random(part.shape, np.float32) < chances
    return X, y


def _pieces(X: npt.NDArray[Any]) -> Iterator[npt.NDArray[Any]]:
    """Return views of a few thousand samples each, so that drawing takes little memory."""
    return (X[start : start + 4096] for start in range(0, len(X), 4096))


def initial_weights(
    widths: Sequence[int], dtype: str, seed: int
) -> list[tuple[npt.NDArray[Any], ...]]:
    """Draw weights by He's rule and set biases to zero, layer by layer."""
    rng = np.random.default_rng(seed)
    return [
        ((rng.standard_normal((n, m)) * np.sqrt(2 / n)).astype(dtype), np.zeros(m, dtype))
        for n, m in pairwise(widths)
    ]
