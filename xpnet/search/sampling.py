"""Samplers and pruners: the hyper-parameters of a trial, and when a trial is stopped early.

Random, quasi-random and grid points follow from the study's seed and the trial's number: however
many workers there are, and whichever of them dies, trial 17 is where it is.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from optuna.pruners import (
    BasePruner,
    HyperbandPruner,
    MedianPruner,
    NopPruner,
    SuccessiveHalvingPruner,
)
from optuna.samplers import BaseSampler, TPESampler
from scipy.stats import qmc

from xpnet.spaces import Space

__all__ = ["PRUNERS", "SAMPLERS", "design", "grid_of", "make_pruner", "make_sampler"]

SAMPLERS = ("random", "grid", "quasi-random", "tpe")
PRUNERS = ("none", "median", "halving", "hyperband")


def design(name: str, space: Space, seed: int, number: int) -> dict[str, Any] | None:
    """Give the point of a trial, where it does not depend on other trials' results.

    Parameters
    ----------
    name : str
        One of :data:`SAMPLERS`. ``random``: each scale at a fraction drawn from a generator that is
        seeded with the study's seed and the trial's number. ``quasi-random``: at a point of Sobol's
        sequence, scrambled; Optuna's sampler counts the points in the study, where two workers may
        take the same one, and draws what does not always exist at random. ``grid``: a point of
        :meth:`Space.grid`, in a random order, so that what is there when a search ends early is no
        corner of it; with Optuna's, several workers may repeat points.
    space : Space
    seed, number : int

    Returns
    -------
    dict or None
        Settings; None where Optuna's sampler is to choose.

    Raises
    ------
    IndexError
        If a grid has no more points.
    """
    if name == "grid":
        return grid_of(space, seed)[number]
    if name == "quasi-random":
        with warnings.catch_warnings():  # a single point is no power of 2
            warnings.simplefilter("ignore", UserWarning)
            engine = qmc.Sobol(len(space), scramble=True, rng=np.random.default_rng(seed))
            if number:  # SciPy cannot go on by nothing
                engine.fast_forward(number)
            return space.at(engine.random(1)[0].tolist())
    if name == "random":
        return space.at(np.random.default_rng([seed, number]).random(len(space)).tolist())
    return None


def make_sampler(seed: int, number: int) -> BaseSampler:
    """Make the sampler that chooses where :func:`design` does not: Optuna's TPE.

    Parameters
    ----------
    seed, number : int
        The study's, and the trial's.
    """
    return TPESampler(seed=int(np.random.SeedSequence([seed, number]).generate_state(1)[0]))


def grid_of(space: Space, seed: int) -> list[dict[str, Any]]:
    """Give the points of the grid, in the order in which trials take them."""
    points = space.grid()
    order = np.random.default_rng(seed).permutation(len(points))
    return [points[i] for i in order]


def make_pruner(name: str, epochs: int) -> BasePruner:
    """Make the pruner that is asked for.

    Parameters
    ----------
    name : str
        One of :data:`PRUNERS`. ``median`` stops a trial whose best is below the median of the
        others' at the same epoch, from the sixth trial on and after the first tenth of the epochs;
        ``halving`` lets a third go on at each of a few epochs; ``hyperband`` does so with several
        first epochs at once.
    epochs : int
        Of a whole trial.

    Returns
    -------
    optuna.pruners.BasePruner
    """
    makers: dict[str, Callable[[], BasePruner]] = {
        "none": NopPruner,
        "median": functools.partial(
            MedianPruner, n_startup_trials=5, n_warmup_steps=max(1, epochs // 10)
        ),
        "halving": functools.partial(SuccessiveHalvingPruner, reduction_factor=3),
        "hyperband": functools.partial(
            HyperbandPruner, min_resource=1, max_resource=max(epochs, 3), reduction_factor=3
        ),
    }
    return makers[name]()
