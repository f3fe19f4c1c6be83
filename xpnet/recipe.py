"""Recipes: whole experiments as TOML files, and how one is run."""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass
from importlib import resources
from typing import Any

from xpnet.data import Dataset, load_dataset
from xpnet.device import Device
from xpnet.environment import versions
from xpnet.nn import Loss, Network, Optimizer
from xpnet.nn.base import check_count
from xpnet.training import History, evaluate, fit
from xpnet.training.loop import OnReport

__all__ = ["Recipe", "RecipeError", "Result", "load_recipe", "recipe_names"]

# For each table the keys that it must hold and those that it may.
_TABLES = {
    "data": (("dataset",), ()),
    "network": (("layers",), ("dtype", "seed", "rng")),
    "training": (("epochs",), ("batch_size", "shuffle", "report_every")),
}


class RecipeError(ValueError):
    """A recipe does not exist or says something that cannot be; the message says what."""


@dataclass(frozen=True)
class Recipe:
    """One experiment: data, network, loss, optimizer and training.

    Attributes
    ----------
    name : str
    data, network, training : dict
        Arguments of :func:`xpnet.data.load_dataset`, :class:`xpnet.nn.Network` and
        :func:`xpnet.training.fit`.
    loss : Loss
    optimizer : Optimizer
    """

    name: str
    data: dict[str, Any]
    network: dict[str, Any]
    loss: Loss
    optimizer: Optimizer
    training: dict[str, Any]

    def run(
        self,
        dataset: Dataset,
        device: Device,
        *,
        on_report: OnReport | None = None,
    ) -> Result:
        """Train the recipe's network and evaluate it.

        Parameters
        ----------
        dataset : Dataset
            As :meth:`load_data` gives it.
        device : Device
        on_report : callable, optional
            See :func:`xpnet.training.fit`.

        Returns
        -------
        Result

        Raises
        ------
        DivergenceError
            See :func:`xpnet.training.fit`.
        """
        network = Network(n_features=dataset.n_features, device=device, **self.network)
        history = fit(
            network,
            dataset.X_train,
            dataset.y_train,
            loss=self.loss,
            optimizer=self.optimizer,
            on_report=on_report,
            **self.training,
        )
        _, train_accuracy = evaluate(network, self.loss, dataset.X_train, dataset.y_train)
        _, test_accuracy = evaluate(network, self.loss, dataset.X_test, dataset.y_test)
        return Result(self, dataset, network, history, train_accuracy, test_accuracy)

    def load_data(self, data_dir: str | os.PathLike[str] | None = None) -> Dataset:
        """Load the recipe's data set."""
        return load_dataset(self.data["dataset"], data_dir=data_dir)


@dataclass(frozen=True)
class Result:
    """What a run of a recipe gave.

    Attributes
    ----------
    recipe, dataset, network, history
        What was run.
    train_accuracy, test_accuracy : float
        Fractions, after training.
    """

    recipe: Recipe
    dataset: Dataset
    network: Network
    history: History
    train_accuracy: float
    test_accuracy: float

    def to_dict(self) -> dict[str, Any]:
        """Give everything worth keeping as plain data, ready for JSON."""
        return {
            "recipe": self.recipe.name,
            "device": self.network.device.name,
            "dtype": self.network.dtype.name,
            "seed": self.network.seed,
            "rng": self.network.rng,
            "versions": versions(),
            "parameters": self.network.n_parameters,
            "train_accuracy": self.train_accuracy,
            "test_accuracy": self.test_accuracy,
            "majority_accuracy": self.dataset.majority_accuracy,
            **self.history.to_dict(),
        }


def recipe_names() -> list[str]:
    """List the recipes that come with xpnet."""
    folder = resources.files("xpnet") / "recipes"
    return sorted(
        entry.name.removesuffix(".toml")
        for entry in folder.iterdir()
        if entry.name.endswith(".toml")
    )


def load_recipe(name: str) -> Recipe:
    """Read a recipe that comes with xpnet.

    Parameters
    ----------
    name : str
        One of :func:`recipe_names`.

    Returns
    -------
    Recipe

    Raises
    ------
    RecipeError
        If there is none of that name, or it holds an unknown key or an impossible value.
    """
    if name not in recipe_names():
        raise RecipeError(f"there is no recipe named {name!r}; known: {', '.join(recipe_names())}")
    text = (resources.files("xpnet") / "recipes" / f"{name}.toml").read_text(encoding="utf-8")
    return parse_recipe(name, text)


def parse_recipe(name: str, text: str) -> Recipe:
    """Make a recipe from TOML text; see :func:`load_recipe`."""
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"recipe {name!r} is not TOML: {error}") from error
    expected = {*_TABLES, "loss", "optimizer"}
    if set(tables) != expected:
        raise RecipeError(
            f"recipe {name!r} must hold the tables {', '.join(sorted(expected))}, got "
            f"{', '.join(sorted(tables))}"
        )
    for table, (required, optional) in _TABLES.items():
        if not isinstance(tables[table], dict):
            raise RecipeError(f"recipe {name!r}: {table} must be a table, got {tables[table]!r}")
        unknown = set(tables[table]) - {*required, *optional}
        if unknown:
            known = ", ".join((*required, *optional))
            raise RecipeError(
                f"recipe {name!r}: unknown key {table}.{min(unknown)}; known: {known}"
            )
        missing = set(required) - set(tables[table])
        if missing:
            raise RecipeError(f"recipe {name!r}: key {table}.{min(missing)} is missing")
    network, training = tables["network"], tables["training"]
    if not isinstance(training.get("shuffle", True), bool):
        raise RecipeError(
            f"recipe {name!r}: training.shuffle must be true or false, got {training['shuffle']!r}"
        )
    try:
        # On one feature and the CPU: whatever is wrong with the settings is wrong there too.
        Network(**network, n_features=1, device="cpu")
        for key in {"epochs", "batch_size", "report_every"} & set(training):
            check_count(f"training.{key}", training[key])
        return Recipe(
            name=name,
            data=tables["data"],
            network=network,
            loss=Loss.resolve(tables["loss"]),
            optimizer=Optimizer.resolve(tables["optimizer"]),
            training=training,
        )
    except (TypeError, ValueError) as error:
        raise RecipeError(f"recipe {name!r}: {error}") from error
