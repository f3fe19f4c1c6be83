"""Learning-rate schedules: factors on the optimizer's learning rate, epoch by epoch or by step.

``t`` counts epochs or steps from 0, the warm-up not counted, ``n`` says how many there are in all.
The first epoch always has the full rate, but for a warm-up.
"""

from __future__ import annotations

import math

from xpnet.nn.checks import check_count, check_fraction, check_positive
from xpnet.nn.registry import Configurable

__all__ = [
    "MONITORS",
    "CosineDecay",
    "ExponentialDecay",
    "InverseTimeDecay",
    "NoDecay",
    "ReduceOnPlateau",
    "Schedule",
    "StepDecay",
    "check_monitor",
]

MONITORS = ("cost", "train_accuracy", "validation_cost", "validation_accuracy")


class Schedule(Configurable):
    """How the learning rate changes as training goes on: a factor on the optimizer's.

    A subclass gives :meth:`factor`. With ``warmup`` the factor rises in equal steps at first, from
    ``1 / warmup`` to 1, and the schedule begins after that. An instance is used for one run;
    :func:`xpnet.training.fit` clones the one that it is given.

    Attributes
    ----------
    per : {"epoch", "step"}
        What positions count.
    warmup : int
        How many of them the warm-up takes.
    monitor : str or None
        The number of a report that :meth:`observe` is given: ``"cost"``, ``"train_accuracy"``,
        ``"validation_cost"`` or ``"validation_accuracy"``; None for none.

    References
    ----------
    Goyal et al., "Accurate, large minibatch SGD: training ImageNet in 1 hour", 2017, section 2.2,
    for the warm-up.
    """

    per: str = "epoch"
    warmup: int = 0
    monitor: str | None = None

    def factor(self, t: int, n: int) -> float:
        """Give the factor at position ``t = 0, 1, ..., n - 1`` after the warm-up."""
        raise NotImplementedError(f"{type(self).__name__} must define factor(t, n)")

    def at(self, t: int, n: int) -> float:
        """Give the factor at position ``t`` of ``n`` in all, the warm-up included."""
        n_left = max(n - self.warmup, 1)
        if t < self.warmup:
            return (t + 1) / self.warmup * self.factor(0, n_left)
        return self.factor(t - self.warmup, n_left)

    def observe(self, value: float) -> None:
        """Take note of what a report says, after an epoch; the default does nothing."""
        del value


class NoDecay(Schedule):
    """Constant: the factor is 1.

    Parameters
    ----------
    per : {"epoch", "step"}
        What the warm-up counts.
    warmup : int
        How many of them the rate takes to rise, in equal steps; 0 for none.

    Raises
    ------
    ValueError
        If an argument is out of range.
    """

    name = "constant"

    def __init__(self, *, per: str = "epoch", warmup: int = 0) -> None:
        self.per, self.warmup = _check_course(per, warmup)

    def factor(self, t: int, n: int) -> float:
        """Return 1."""
        del t, n
        return 1.0


class InverseTimeDecay(Schedule):
    """``1 / (1 + decay floor(t / interval))``.

    With the interval 1 this is the course's decay by ``1 / (1 + decay epoch)``, with a longer one
    the course's rate that is held for fixed intervals.

    Parameters
    ----------
    decay : float
        At least 0.
    interval : int
        For how many epochs or steps the rate is held.
    per : {"epoch", "step"}
        What ``t``, ``interval`` and ``warmup`` count.
    warmup : int
        How many of them the rate takes to rise at first, in equal steps; 0 for none.

    Raises
    ------
    ValueError
        If an argument is out of range.
    """

    name = "inverse_time"

    def __init__(
        self, decay: float = 1.0, *, interval: int = 1, per: str = "epoch", warmup: int = 0
    ) -> None:
        self.decay = check_positive("decay", decay, zero=True)
        self.interval = check_count("interval", interval)
        self.per, self.warmup = _check_course(per, warmup)

    def factor(self, t: int, n: int) -> float:
        """Return ``1 / (1 + decay floor(t / interval))``."""
        del n
        return 1 / (1 + self.decay * (t // self.interval))


class ExponentialDecay(Schedule):
    """``gamma^t``.

    Parameters
    ----------
    gamma : float
        In (0, 1].
    per : {"epoch", "step"}
        What ``t`` and ``warmup`` count.
    warmup : int
        How many of them the rate takes to rise at first, in equal steps; 0 for none.

    Raises
    ------
    ValueError
        If an argument is out of range.
    """

    name = "exponential"

    def __init__(self, gamma: float = 0.95, *, per: str = "epoch", warmup: int = 0) -> None:
        self.gamma = check_fraction("gamma", gamma, "(0, 1]")
        self.per, self.warmup = _check_course(per, warmup)

    def factor(self, t: int, n: int) -> float:
        """Return ``gamma^t``."""
        del n
        return self.gamma**t


class StepDecay(Schedule):
    """``gamma^floor(t / interval)``.

    Parameters
    ----------
    interval : int
        For how many epochs or steps the rate is held.
    gamma : float
        In (0, 1].
    per : {"epoch", "step"}
        What ``t``, ``interval`` and ``warmup`` count.
    warmup : int
        How many of them the rate takes to rise at first, in equal steps; 0 for none.

    Raises
    ------
    ValueError
        If an argument is out of range.
    """

    name = "step"

    def __init__(
        self, interval: int = 10, gamma: float = 0.1, *, per: str = "epoch", warmup: int = 0
    ) -> None:
        self.interval = check_count("interval", interval)
        self.gamma = check_fraction("gamma", gamma, "(0, 1]")
        self.per, self.warmup = _check_course(per, warmup)

    def factor(self, t: int, n: int) -> float:
        """Return ``gamma^floor(t / interval)``."""
        del n
        return self.gamma ** (t // self.interval)


class CosineDecay(Schedule):
    """Half a cosine from 1 down to ``final``: ``final + (1 - final) (1 + cos(pi t / n)) / 2``.

    ``n`` is what the run has after the warm-up.

    Parameters
    ----------
    final : float
        What the factor would be at ``t = n``, in [0, 1].
    per : {"epoch", "step"}
        What ``t``, ``n`` and ``warmup`` count.
    warmup : int
        How many of them the rate takes to rise at first, in equal steps; 0 for none.

    Raises
    ------
    ValueError
        If an argument is out of range.

    References
    ----------
    Loshchilov and Hutter, "SGDR: stochastic gradient descent with warm restarts", ICLR 2017,
    equation 5, without restarts.
    """

    name = "cosine"

    def __init__(self, final: float = 0.0, *, per: str = "epoch", warmup: int = 0) -> None:
        self.final = check_fraction("final", final, "[0, 1]")
        self.per, self.warmup = _check_course(per, warmup)

    def factor(self, t: int, n: int) -> float:
        """Return the cosine at ``t`` of ``n``."""
        return self.final + (1 - self.final) * (1 + math.cos(math.pi * t / n)) / 2


class ReduceOnPlateau(Schedule):
    """Multiply the rate by ``gamma`` when a number that is watched has stopped improving.

    After each epoch that is reported, the number is compared with the best so far; it is better
    where a cost is less, or an accuracy more, by over ``threshold |best|``. Once more than
    ``patience`` reports in a row are not, the rate is reduced; then ``cooldown`` reports are not
    counted.

    Parameters
    ----------
    monitor : {"cost", "train_accuracy", "validation_cost", "validation_accuracy"}
        Which number of a report.
    gamma : float
        In (0, 1).
    patience, cooldown : int
        In reports, at least 0.
    threshold : float
        Relative, at least 0.
    min_factor : float
        The least that the factor becomes, in [0, 1].
    warmup : int
        How many epochs the rate takes to rise at first, in equal steps; 0 for none.

    Raises
    ------
    ValueError
        If an argument is out of range.
    """

    name = "reduce_on_plateau"

    def __init__(
        self,
        monitor: str = "validation_cost",
        *,
        gamma: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        cooldown: int = 0,
        min_factor: float = 0.0,
        warmup: int = 0,
    ) -> None:
        self.monitor: str = check_monitor(monitor)
        self.gamma = check_fraction("gamma", gamma, "(0, 1)")
        self.patience = check_count("patience", patience, zero=True)
        self.threshold = check_positive("threshold", threshold, zero=True)
        self.cooldown = check_count("cooldown", cooldown, zero=True)
        self.min_factor = check_fraction("min_factor", min_factor, "[0, 1]")
        self.per, self.warmup = _check_course("epoch", warmup)
        self._factor = 1.0
        self._is_accuracy = monitor.endswith("accuracy")
        self._best = -math.inf if self._is_accuracy else math.inf
        self._n_bad = self._n_left = 0

    def factor(self, t: int, n: int) -> float:
        """Return what has been reached so far."""
        del t, n
        return self._factor

    def observe(self, value: float) -> None:
        """Compare a number with the best so far, and reduce the rate where it is time."""
        margin = self.threshold * abs(self._best) if math.isfinite(self._best) else 0.0
        gain = value - self._best if self._is_accuracy else self._best - value
        if gain > margin:  # which nan is not, and anything else is at first
            self._best, self._n_bad = value, 0
        else:
            self._n_bad += 1
        if self._n_left > 0:
            self._n_left -= 1
            self._n_bad = 0
        if self._n_bad > self.patience:
            self._factor = max(self._factor * self.gamma, self.min_factor)
            self._n_left, self._n_bad = self.cooldown, 0


def check_monitor(monitor: str) -> str:
    """Return the name of a number that can be watched, or raise a ValueError."""
    if monitor not in MONITORS:
        known = ", ".join(map(repr, MONITORS))
        raise ValueError(f"monitor must be one of {known}, got {monitor!r}")
    return monitor


def _check_course(per: str, warmup: int) -> tuple[str, int]:
    if per not in ("epoch", "step"):
        raise ValueError(f"per must be 'epoch' or 'step', got {per!r}")
    return per, check_count("warmup", warmup, zero=True)
