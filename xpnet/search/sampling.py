"""Samplers, which choose the hyper-parameters of trials, and pruners, which stop bad trials.

Random, quasi-random and grid points depend only on the study's seed and the trial's number. Trial
17 is the same point for any number of workers, even if some of them die.
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
    """Return the point of a trial, if it does not depend on the results of other trials.

    Parameters
    ----------
    name : str
        One of :data:`SAMPLERS`. ``random`` draws positions on all scales from a generator seeded
        with the study's seed and the trial's number. ``quasi-random`` takes a point of the
        scrambled Sobol sequence. ``grid`` takes a point of :meth:`Space.grid` in a random order, so
        that a search that ends early covers more than a corner of the grid. ``tpe`` leaves the
        choice to :func:`make_sampler`.
    space : Space
        Space to search.
    seed, number : int
        Seed of the study and number of the trial.

    Returns
    -------
    dict or None
        Settings; None if Optuna's sampler chooses the point.

    Raises
    ------
    IndexError
        If the grid has no more points.

    Notes
    -----
    Optuna's own quasi-random and grid samplers depend on the trials in the study: with them,
    several workers may take the same point, and Optuna's quasi-random sampler draws conditional
    hyper-parameters at random.
    """
    if name == "grid":
        return grid_of(space, seed)[number]
    if name == "quasi-random":
        with warnings.catch_warnings():  # a number of points that is not a power of 2
            warnings.simplefilter("ignore", UserWarning)
            engine = qmc.Sobol(len(space), scramble=True, rng=np.random.default_rng(seed))
            if number:  # fast_forward(0) is an error in SciPy
                engine.fast_forward(number)
            return space.at(engine.random(1)[0].tolist())
    if name == "random":
        return space.at(np.random.default_rng([seed, number]).random(len(space)).tolist())
    return None


def make_sampler(seed: int, number: int) -> BaseSampler:
    """Return Optuna's TPE sampler, which chooses the points that :func:`design` does not.

    Parameters
    ----------
    seed, number : int
        Seed of the study and number of the trial.

    Returns
    -------
    optuna.samplers.BaseSampler
    """
    return TPESampler(seed=int(np.random.SeedSequence([seed, number]).generate_state(1)[0]))


def grid_of(space: Space, seed: int) -> list[dict[str, Any]]:
    """Return the points of the grid, in the order in which trials take them."""
    points = space.grid()
    order = np.random.default_rng(seed).permutation(len(points))
    return [points[i] for i in order]


def make_pruner(name: str, epochs: int) -> BasePruner:
    """Return a pruner of Optuna.

    Parameters
    ----------
    name : str
        One of :data:`PRUNERS`. ``median`` stops a trial whose best value is worse than the median
        of the other trials at the same epoch, from the sixth trial on and after the first tenth of
        the epochs. ``halving`` continues only the best third of the trials at each of a few epochs.
        ``hyperband`` runs several such halvings, with different first epochs, at once.
    epochs : int
        Number of epochs of a complete trial.

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
