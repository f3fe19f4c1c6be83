"""A recipe's values as frozen dataclasses, with layers, loss and optimizer as objects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from xpnet.nn.augmentation import Augmentation
from xpnet.nn.interfaces import Layer
from xpnet.nn.losses import Loss
from xpnet.nn.optimizers import Optimizer
from xpnet.nn.schedules import Schedule
from xpnet.recipe.errors import RecipeError
from xpnet.recipe.keys import KEYS, TABLES, Key
from xpnet.recipe.kinds import Component, Components
from xpnet.recipe.schema import layers_with_init
from xpnet.spaces import Space
from xpnet.training import EarlyStopping

__all__ = ["DataSettings", "NetworkSettings", "Settings", "TrainingSettings"]

_OF_PREPROCESSING = ("divide_by", "normalise", "standardise_target")


@dataclass(frozen=True)
class DataSettings:
    """The table ``[data]``.

    Attributes
    ----------
    dataset : str
    divide_by : float or None
        None if the data decide.
    normalise : str
    standardise_target : bool
    test_fraction, validation_fraction : float
    seed : int
    target, sample_weight, n_samples, noise
        None if the key does not apply to the data set, or if there are no weights.
    """

    dataset: str
    divide_by: float | None
    normalise: str
    standardise_target: bool
    test_fraction: float
    validation_fraction: float
    seed: int
    target: str | None = None
    sample_weight: str | None = None
    n_samples: int | None = None
    noise: float | None = None

    @property
    def source(self) -> dict[str, Any]:
        """Arguments for :func:`xpnet.data.load_dataset`."""
        return {
            key: value
            for key, value in vars(self).items()
            if value is not None and key not in _OF_PREPROCESSING
        }


@dataclass(frozen=True)
class NetworkSettings:
    """The table ``[network]``.

    Attributes
    ----------
    layers : tuple of Layer
        Layers without an ``init`` of their own have ``network.init``. Each network is built from
        clones of them.
    """

    layers: tuple[Layer, ...]


@dataclass(frozen=True)
class TrainingSettings:
    """The table ``[training]``: arguments of :func:`xpnet.training.fit` with the same names."""

    epochs: int
    batch_size: int | None
    shuffle: bool
    augmentation: tuple[Augmentation, ...]
    seed: int | None
    class_weight: str | list[float] | None
    l1: float
    l2: float
    penalty: str
    clip_value: float | None
    clip_norm: float | None
    average: float | None
    report_every: int


@dataclass(frozen=True)
class Settings:
    """A whole recipe.

    Attributes
    ----------
    description : str
    seed : int
    rng, dtype, device, precision : str
    loss : Loss
    optimizer : Optimizer
    schedule : Schedule
    data : DataSettings
    network : NetworkSettings
    training : TrainingSettings
    early_stopping : EarlyStopping or None
        None if training never stops early.
    search : Space or None
        None if the recipe has no table ``[search]``.
    """

    description: str
    seed: int
    rng: str
    dtype: str
    device: str
    precision: str
    loss: Loss
    optimizer: Optimizer
    schedule: Schedule
    data: DataSettings
    network: NetworkSettings
    training: TrainingSettings
    early_stopping: EarlyStopping | None
    search: Space | None

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> Self:
        """Make the settings from a recipe's values.

        Parameters
        ----------
        values : mapping
            Result of :func:`xpnet.recipe.schema.resolve`.

        Raises
        ------
        RecipeError
            If a component's class is not defined in this process.
        """
        network = values["network"]
        layers = layers_with_init(network["layers"], network["init"])
        values = {**values, "network": {"layers": layers}}
        tables: dict[str, dict[str, Any]] = {table: {} for table in ("", *TABLES)}
        for key in KEYS:
            table, _, name = key.path.rpartition(".")
            given = values[table] if table else values
            if name in given:
                tables[table][name] = _object(key, given[name])
        stopping = tables["early_stopping"]
        return cls(
            **tables[""],
            data=DataSettings(**tables["data"]),
            network=NetworkSettings(**tables["network"]),
            training=TrainingSettings(**tables["training"]),
            early_stopping=None if stopping["patience"] is None else EarlyStopping(**stopping),
            search=Space.from_tables(values["search"]) if "search" in values else None,
        )


def _object(key: Key, value: Any) -> Any:
    """Make the components that a value describes; a kind's word becomes None."""
    if isinstance(value, str) and value == getattr(key.kind, "word", None):
        return None
    try:
        if isinstance(key.kind, Component):
            return key.kind.kind.resolve(value)
        if isinstance(key.kind, Components):
            return tuple(key.kind.kind.resolve(member) for member in value)
    except (TypeError, ValueError) as error:  # its class may not be defined in this process
        raise RecipeError(f"{key.path}: {error}") from error
    return value
