"""Learning-rate schedules: factors on the optimizer's learning rate, per epoch or per step.

``t`` counts epochs or steps from 0, not including the warm-up; ``n`` is their total number. Without
a warm-up the first epoch always has the full learning rate.
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
    """Base class of schedules, which multiply the optimizer's learning rate by a varying factor.

    A subclass implements :meth:`factor`. With ``warmup``, the factor first rises linearly from
    ``1 / warmup`` to 1, and the schedule starts after that. An instance serves a single run;
    :func:`xpnet.training.fit` clones the one it is given.

    Attributes
    ----------
    per : {"epoch", "step"}
        Whether the factor changes per epoch or per step.
    warmup : int
        Length of the warm-up in epochs or steps.
    monitor : str or None
        Number of a report to pass to :meth:`observe`: ``"cost"``, ``"train_accuracy"``,
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
        """Return the factor at position ``t = 0, 1, ..., n - 1`` after the warm-up."""
        raise NotImplementedError(f"{type(self).__name__} must define factor(t, n)")

    def at(self, t: int, n: int) -> float:
        """Return the factor at position ``t`` of ``n``, including the warm-up."""
        n_left = max(n - self.warmup, 1)
        if t < self.warmup:
            return (t + 1) / self.warmup * self.factor(0, n_left)
        return self.factor(t - self.warmup, n_left)

    def observe(self, value: float) -> None:
        """Process the monitored number of a report; the default does nothing."""
        del value


class NoDecay(Schedule):
    """Constant learning rate: the factor is 1.

    Parameters
    ----------
    per : {"epoch", "step"}
        Unit of ``warmup``.
    warmup : int
        Number of epochs or steps during which the rate rises linearly at first; 0 for no warm-up.

    Raises
    ------
    ValueError
        If an argument is out of range.
    """

    name = "constant"

    def __init__(self, *, per: str = "epoch", warmup: int = 0) -> None:
        self.per, self.warmup = _check_unit_and_warmup(per, warmup)

    def factor(self, t: int, n: int) -> float:
        """Return 1."""
        del t, n
        return 1.0


class InverseTimeDecay(Schedule):
    """Inverse time decay: the factor is ``1 / (1 + decay floor(t / interval))``.

    Both forms of Andrew Ng's Deep Learning Specialization are covered: with ``interval=1`` the
    decay ``1 / (1 + decay epoch)``, with a longer one its decay at fixed intervals.

    Parameters
    ----------
    decay : float
        Decay rate, at least 0.
    interval : int
        Number of epochs or steps between changes of the rate.
    per : {"epoch", "step"}
        Unit of ``t``, ``interval`` and ``warmup``.
    warmup : int
        Number of epochs or steps during which the rate rises linearly at first; 0 for no warm-up.

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
        self.per, self.warmup = _check_unit_and_warmup(per, warmup)

    def factor(self, t: int, n: int) -> float:
        """Return ``1 / (1 + decay floor(t / interval))``."""
        del n
        return 1 / (1 + self.decay * (t // self.interval))


class ExponentialDecay(Schedule):
    """Exponential decay: the factor is ``gamma^t``.

    Parameters
    ----------
    gamma : float
        Factor by which the rate changes in each epoch or step, in (0, 1].
    per : {"epoch", "step"}
        Unit of ``t`` and ``warmup``.
    warmup : int
        Number of epochs or steps during which the rate rises linearly at first; 0 for no warm-up.

    Raises
    ------
    ValueError
        If an argument is out of range.
    """

    name = "exponential"

    def __init__(self, gamma: float = 0.95, *, per: str = "epoch", warmup: int = 0) -> None:
        self.gamma = check_fraction("gamma", gamma, "(0, 1]")
        self.per, self.warmup = _check_unit_and_warmup(per, warmup)

    def factor(self, t: int, n: int) -> float:
        """Return ``gamma^t``."""
        del n
        return self.gamma**t


class StepDecay(Schedule):
    """Step decay: the factor is ``gamma^floor(t / interval)``.

    Parameters
    ----------
    interval : int
        Number of epochs or steps between changes of the rate.
    gamma : float
        Factor by which the rate changes after each interval, in (0, 1].
    per : {"epoch", "step"}
        Unit of ``t``, ``interval`` and ``warmup``.
    warmup : int
        Number of epochs or steps during which the rate rises linearly at first; 0 for no warm-up.

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
        self.per, self.warmup = _check_unit_and_warmup(per, warmup)

    def factor(self, t: int, n: int) -> float:
        """Return ``gamma^floor(t / interval)``."""
        del n
        return self.gamma ** (t // self.interval)


class CosineDecay(Schedule):
    """Cosine decay: the factor is ``final + (1 - final) (1 + cos(pi t / n)) / 2``.

    It falls from 1 towards ``final`` along half a cosine. ``n`` is the number of epochs or steps
    after the warm-up.

    Parameters
    ----------
    final : float
        Factor that would be reached at ``t = n``, in [0, 1].
    per : {"epoch", "step"}
        Unit of ``t``, ``n`` and ``warmup``.
    warmup : int
        Number of epochs or steps during which the rate rises linearly at first; 0 for no warm-up.

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
        self.per, self.warmup = _check_unit_and_warmup(per, warmup)

    def factor(self, t: int, n: int) -> float:
        """Return the cosine at ``t`` of ``n``."""
        return self.final + (1 - self.final) * (1 + math.cos(math.pi * t / n)) / 2


class ReduceOnPlateau(Schedule):
    """Multiply the learning rate by ``gamma`` when a monitored number stops improving.

    After each reported epoch the number is compared with the best so far. It is an improvement if a
    cost is lower, or an accuracy higher, by more than ``threshold |best|``. After more than
    ``patience`` reports in a row without an improvement the rate is reduced; the next ``cooldown``
    reports are then not counted.

    Parameters
    ----------
    monitor : {"cost", "train_accuracy", "validation_cost", "validation_accuracy"}
        Number of a report to monitor.
    gamma : float
        Factor of each reduction, in (0, 1).
    patience : int
        Number of reports without an improvement to tolerate, at least 0.
    threshold : float
        Smallest relative change that counts as an improvement, at least 0.
    cooldown : int
        Number of reports to ignore after a reduction, at least 0.
    min_factor : float
        Lower bound of the factor, in [0, 1].
    warmup : int
        Number of epochs during which the rate rises linearly at first; 0 for no warm-up.

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
        self.per, self.warmup = _check_unit_and_warmup("epoch", warmup)
        self._factor = 1.0
        self._is_accuracy = monitor.endswith("accuracy")
        self._best = -math.inf if self._is_accuracy else math.inf
        self._n_bad = self._n_left = 0

    def factor(self, t: int, n: int) -> float:
        """Return the current factor."""
        del t, n
        return self._factor

    def observe(self, value: float) -> None:
        """Compare a number with the best so far and reduce the rate if it is time to."""
        margin = self.threshold * abs(self._best) if math.isfinite(self._best) else 0.0
        gain = value - self._best if self._is_accuracy else self._best - value
        if gain > margin:  # False for nan; at first True for anything else
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
    """Return the name of a number that can be monitored, or raise a ValueError."""
    if monitor not in MONITORS:
        known = ", ".join(map(repr, MONITORS))
        raise ValueError(f"monitor must be one of {known}, got {monitor!r}")
    return monitor


def _check_unit_and_warmup(per: str, warmup: int) -> tuple[str, int]:
    if per not in ("epoch", "step"):
        raise ValueError(f"per must be 'epoch' or 'step', got {per!r}")
    return per, check_count("warmup", warmup, zero=True)
