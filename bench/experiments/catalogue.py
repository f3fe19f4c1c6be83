"""All experiments, in the order of the page."""

from __future__ import annotations

from bench.experiments import (
    batch_norm,
    best,
    cats,
    circles,
    dropout,
    football,
    glorot,
    moons,
    search,
)
from bench.experiments.experiment import Experiment

__all__ = ["EXPERIMENTS"]

EXPERIMENTS: dict[str, Experiment] = {
    module.EXPERIMENT.name: module.EXPERIMENT
    for module in (football, moons, circles, cats, glorot, dropout, batch_norm, best, search)
}
