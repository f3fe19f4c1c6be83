"""The classes ``Result`` and ``Validation``: what a run gives, and the files it writes."""

from __future__ import annotations

import functools
import json
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from xpnet.data import Dataset
from xpnet.environment import versions
from xpnet.files import write_folder
from xpnet.nn import Network
from xpnet.report import (
    draw_confusion,
    draw_curves,
    draw_mistakes,
    draw_predictions,
    plotting_problem,
)
from xpnet.training import History, Model
from xpnet.training.history import finite_or_none
from xpnet.training.model import pack_model

if TYPE_CHECKING:
    from xpnet.recipe.recipe import Recipe

__all__ = ["Result", "Validation"]


@dataclass(frozen=True)
class Validation:
    """What :meth:`Recipe.validate` gives.

    Attributes
    ----------
    history : History
    n_parameters : int
    cost : float
        Mean loss on the validation samples after training.
    accuracy : float
        A fraction. Under a loss for numbers it is that loss's score, the coefficient of
        determination R2.
    """

    history: History
    n_parameters: int
    cost: float
    accuracy: float


@dataclass(frozen=True)
class Result:
    """What a run of a recipe gave.

    Attributes
    ----------
    recipe : Recipe
        As it was run: on which device, features divided by what.
    dataset : Dataset
    model : Model
    history : History
    train_cost, test_cost : float
        Mean losses, after training; weights of samples do not count.
    train_accuracy, test_accuracy : float
        Fractions, after training. Under a loss for numbers they are that loss's score, the
        coefficient of determination R2.
    """

    recipe: Recipe
    dataset: Dataset
    model: Model
    history: History
    train_cost: float
    train_accuracy: float
    test_cost: float
    test_accuracy: float

    @property
    def network(self) -> Network:
        """The trained network."""
        return self.model.network

    def to_dict(self) -> dict[str, Any]:
        """Give everything worth keeping as plain data, ready for JSON.

        A number that is not finite, which JSON cannot say, is None. What is no accuracy is not
        called so: ``test_accuracy`` is then ``test_R2``.
        """
        dataset, score = self.dataset, self.history.score_name
        majority = {"majority_accuracy": dataset.majority_accuracy} if dataset.n_classes else {}
        own: dict[str, Any] = finite_or_none(
            {
                "recipe": self.recipe.name,
                "dataset": dataset.name,
                "samples": {
                    "train": len(dataset.X_train),
                    "validation": 0 if dataset.X_validation is None else len(dataset.X_validation),
                    "test": len(dataset.X_test),
                },
                "device": self.network.device.name,
                "precision": self.network.device.precision,
                "dtype": self.network.dtype.name,
                "seed": self.network.seed,
                "rng": self.network.rng,
                "versions": versions(),
                "parameters": self.network.n_parameters,
                "train_cost": self.train_cost,
                f"train_{score}": self.train_accuracy,
                "test_cost": self.test_cost,
                f"test_{score}": self.test_accuracy,
                **majority,
            }
        )
        return {**own, **self.history.to_dict()}

    def save(
        self,
        folder: str | os.PathLike[str],
        *,
        on_problem: Callable[[str], object] | None = None,
    ) -> list[str]:
        """Write everything into a new folder, whole or not at all.

        ``history.json``; ``model.safetensors``, see :func:`xpnet.training.load_model`;
        ``recipe.toml``, all values filled in, with a comment where the data were not those that it
        names; and where matplotlib is installed ``curves.png`` and, of the test data,
        ``mistakes.png`` and ``confusion.png`` if they are images of classes, ``predictions.png`` in
        regression.

        Parameters
        ----------
        folder : path
            Must not exist, or be empty. Folders above it are made.
        on_problem : callable, optional
            Called with a line for each picture that cannot be drawn: all the rest is written
            nevertheless. By default it is a warning.

        Returns
        -------
        list of str
            The names of the files.

        Raises
        ------
        OSError
            If the folder cannot be written. Nothing is left behind.

        Warns
        -----
        RuntimeWarning
            For each picture that cannot be drawn, without ``on_problem``.
        """
        files = {
            "history.json": (json.dumps(self.to_dict(), indent=1, allow_nan=False) + "\n").encode(),
            "model.safetensors": pack_model(self.model),
            "recipe.toml": self._recipe_toml().encode(),
        }
        if plotting_problem() is None:
            for name, draw in self._pictures().items():
                try:
                    files[name] = draw()
                except Exception as error:  # whatever it is, it is not worth the training
                    problem = " ".join(f"no {name}: {error!r}".split())
                    if on_problem is None:
                        warnings.warn(problem, RuntimeWarning, stacklevel=2)
                    else:
                        on_problem(problem)
        write_folder(folder, files)
        return list(files)

    def _recipe_toml(self) -> str:
        named, trained_on = self.recipe.values["data"]["dataset"], self.dataset.name
        comment = ""
        if trained_on != named:
            comment = f"# The data were not those of [data] but {trained_on!a}.\n"
        return comment + self.recipe.to_toml()

    def _pictures(self) -> dict[str, Callable[[], bytes]]:
        """Give what there is to be drawn, each under the name of its file."""
        dataset, title, names = self.dataset, self.recipe.name, self.dataset.class_names
        shape, y = dataset.image_shape, dataset.y_test
        predicted = functools.cache(lambda: self.model.predict(dataset.X_test))
        pictures = {"curves.png": lambda: draw_curves(self.history, title=title)}
        if dataset.task == "regression":
            pictures["predictions.png"] = lambda: draw_predictions(y, predicted(), title=title)
        elif shape is not None:
            pictures["mistakes.png"] = lambda: draw_mistakes(
                dataset.X_test, y, predicted(), class_names=names, image_shape=shape, title=title
            )
            pictures["confusion.png"] = lambda: draw_confusion(
                y, predicted(), class_names=names, title=title
            )
        return pictures
