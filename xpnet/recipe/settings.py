"""A recipe's values as frozen dataclasses, with layers, loss and optimizer as objects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self, TypeVar

from xpnet.nn.augmentation import Augmentation
from xpnet.nn.interfaces import Layer
from xpnet.nn.losses import Loss
from xpnet.nn.optimizers import Optimizer
from xpnet.nn.registry import Configurable
from xpnet.nn.schedules import Schedule
from xpnet.recipe.errors import RecipeError
from xpnet.recipe.schema import layers_with_init
from xpnet.spaces import Space
from xpnet.training import EarlyStopping

__all__ = ["DataSettings", "NetworkSettings", "Settings", "TrainingSettings"]

_Component = TypeVar("_Component", bound=Configurable)

# Words of TOML, which has no null, that stand for None.
_NONE = {
    "data.sample_weight": "none",
    "data.divide_by": "auto",
    "training.batch_size": "full",
    "training.seed": "auto",
    "training.class_weight": "none",
    "training.clip_value": "none",
    "training.clip_norm": "none",
    "training.average": "none",
}
_OF_PREPROCESSING = ("divide_by", "normalise", "standardise_target")


@dataclass(frozen=True)
class DataSettings:
    """The table ``[data]``.

    Attributes
    ----------
    dataset : str
    divide_by : float or None
        None where the data decide.
    normalise : str
    standardise_target : bool
    test_fraction, validation_fraction : float
    seed : int
    target, sample_weight, n_samples, noise
        None where the data set does not know the key, or nothing is weighted.
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
        """The arguments of :func:`xpnet.data.load_dataset` that the table gives."""
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
        Those that do not say how their weights are drawn have ``network.init``. They belong to no
        network: each network has clones.
    """

    layers: tuple[Layer, ...]


@dataclass(frozen=True)
class TrainingSettings:
    """The table ``[training]``: arguments of :func:`xpnet.training.fit`, under their names."""

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
    seed : int
    rng, dtype, device, precision : str
    loss : Loss
    optimizer : Optimizer
    schedule : Schedule
    data : DataSettings
    network : NetworkSettings
    training : TrainingSettings
    early_stopping : EarlyStopping or None
        None where training is never stopped early.
    search : Space or None
        None where the recipe has no table ``[search]``.
    """

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
        """Make the objects.

        Parameters
        ----------
        values : mapping
            As :func:`xpnet.recipe.schema.resolve` gives them.

        Raises
        ------
        RecipeError
            If a component's class is not known in this process.
        """
        layers = layers_with_init(values["network"])
        training = _table("training", values)
        augmentation = training.pop("augmentation")
        stopping = values["early_stopping"]
        return cls(
            seed=values["seed"],
            rng=values["rng"],
            dtype=values["dtype"],
            device=values["device"],
            precision=values["precision"],
            loss=_component(Loss, "loss", values["loss"]),
            optimizer=_component(Optimizer, "optimizer", values["optimizer"]),
            schedule=_component(Schedule, "schedule", values["schedule"]),
            data=DataSettings(**_table("data", values)),
            network=NetworkSettings(_components(Layer, "network.layers", layers)),
            training=TrainingSettings(
                augmentation=_components(Augmentation, "training.augmentation", augmentation),
                **training,
            ),
            early_stopping=None if stopping["patience"] == "never" else EarlyStopping(**stopping),
            search=Space.from_tables(values["search"]) if "search" in values else None,
        )


def _table(name: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Give the keys of a table, None for the words that stand for it."""
    return {
        key: None if isinstance(value, str) and value == _NONE.get(f"{name}.{key}") else value
        for key, value in values[name].items()
    }


def _components(kind: type[_Component], path: str, specs: list[Any]) -> tuple[_Component, ...]:
    return tuple(_component(kind, path, spec) for spec in specs)


def _component(kind: type[_Component], path: str, spec: Any) -> _Component:
    try:
        return kind.resolve(spec)
    except (TypeError, ValueError) as error:  # its class may have been defined elsewhere
        raise RecipeError(f"{path}: {error}") from error
