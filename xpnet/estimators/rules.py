"""scikit-learn's own rules: initial weights, convergence, falling rates, squared error.

Here are the rules of scikit-learn's multi-layer perceptrons that differ from xpnet's: the
distribution of the initial weights and biases, when a run has converged, how ``solver="sgd"``
lowers its learning rate, and how the squared error is defined. The order of the samples is
:class:`xpnet.random.EpochOrder`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from xpnet.estimators.scikit import StrOptions
from xpnet.nn.losses import MeanSquaredError
from xpnet.nn.schedules import Schedule

__all__ = ["HalfSquaredError", "Held", "Known", "Patience", "Rate", "glorot_bound"]

_LOWEST_RATE = 1e-6  # an adaptive rate stops falling here, and so does training


def glorot_bound(fan_in: int, fan_out: int, *, sigmoid: bool) -> float:
    """Return the bound of the uniform distribution of a layer's weights and biases.

    ``sqrt(6 / (fan_in + fan_out))``, with 2 instead of 6 before a sigmoid. Drawing the biases too,
    and using 6 for ReLU, are scikit-learn's choices, not the paper's.

    References
    ----------
    Glorot and Bengio, "Understanding the difficulty of training deep feedforward neural networks",
    AISTATS 2010, equation 16.
    """
    return math.sqrt((2.0 if sigmoid else 6.0) / (fan_in + fan_out))


class HalfSquaredError(MeanSquaredError, abstract=True):
    """Half the squared error, ``l_i = 1 / (2 m) sum_j (Z_ij - Y_ij)^2`` for m outputs.

    The gradient is that of the sum over the outputs, ``Z - Y``, so that an output learns as fast
    with others as without. The reported loss is the mean over the outputs. Both follow
    scikit-learn.
    """

    constants = ("halved",)
    halved = True


@dataclass
class Rate:
    """The learning rate of ``solver="sgd"``, epoch by epoch.

    Attributes
    ----------
    initial, current : float
    kind : {"constant", "invscaling", "adaptive"}
        ``"invscaling"`` is ``initial / (t + 1)^power`` after t samples; ``"adaptive"`` divides the
        rate by 5 when training stops improving.
    power : float
    """

    initial: float
    kind: str
    power: float
    current: float = field(init=False)

    def __post_init__(self) -> None:
        self.current = self.initial

    def at_epochs_end(self, n_seen: int) -> None:
        """Set the next epoch's rate, after ``n_seen`` samples."""
        if self.kind == "invscaling":
            self.current = self.initial / (n_seen + 1) ** self.power

    def lower(self) -> bool:
        """Lower an adaptive rate; return whether it could be lowered."""
        if self.kind != "adaptive" or self.current <= _LOWEST_RATE:
            return False
        self.current /= 5.0
        return True


class Known(StrOptions):
    """The names of a kind such as Activation, including those defined later, and ``others``."""

    def __init__(self, kind: Any, *others: str) -> None:
        super().__init__({*others, *kind.known()})
        self._kind, self._others = kind, others

    def is_satisfied_by(self, val: Any) -> bool:
        """Return whether the value is one of the names."""
        self.options = {*self._others, *self._kind.known()}
        return bool(super().is_satisfied_by(val))


class Held(Schedule, abstract=True):
    """A schedule whose rate is set from outside."""

    def __init__(self, rate: Rate) -> None:
        self.rate = rate

    def factor(self, t: int, n: int) -> float:
        """Return the current rate, as a factor of the initial one."""
        del t, n
        return self.rate.current / self.rate.initial


@dataclass
class Patience:
    """Counts the epochs without improvement.

    Attributes
    ----------
    tol : float
        Minimum improvement on the best value so far.
    n_epochs : int or float
        Training stops after more consecutive epochs than this without improvement.
    best : float
        The lowest loss so far, or the negative of the highest score.
    n_without : int
        Number of consecutive epochs without improvement.
    """

    tol: float
    n_epochs: float
    best: float = math.inf
    n_without: int = 0

    def observe_loss(self, loss: float) -> bool:
        """Record a training loss; return whether it is the best."""
        self.n_without = self.n_without + 1 if loss > self.best - self.tol else 0
        return self._is_best(loss)

    def observe_score(self, score: float) -> bool:
        """Record a validation score, which may be nan; return whether it is the best."""
        self.n_without = self.n_without + 1 if score < self.best_score + self.tol else 0
        return self._is_best(-score)

    @property
    def best_score(self) -> float:
        """The highest score so far."""
        return -self.best

    @property
    def is_over(self) -> bool:
        """Whether more than ``n_epochs`` epochs in a row brought no improvement."""
        return self.n_without > self.n_epochs

    def _is_best(self, value: Any) -> bool:
        is_best = bool(value < self.best)
        if is_best:
            self.best = value
        return is_best
