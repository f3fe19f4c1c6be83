"""The classes ``Result`` and ``Validation``: the results of a run, and its files."""

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
    """The result of :meth:`Recipe.validate`.

    Attributes
    ----------
    history : History
    n_parameters : int
    cost : float
        Mean loss on the validation samples after training.
    accuracy : float
        Fraction of the validation samples classified correctly; in regression the coefficient of
        determination R2.
    """

    history: History
    n_parameters: int
    cost: float
    accuracy: float


@dataclass(frozen=True)
class Result:
    """The result of a recipe's run.

    Attributes
    ----------
    recipe : Recipe
        The recipe as it was run, with the actual device and ``divide_by``.
    dataset : Dataset
    model : Model
    history : History
    train_cost, test_cost : float
        Mean losses after training, without sample weights.
    train_accuracy, test_accuracy : float
        Fractions of samples classified correctly after training; in regression the coefficient of
        determination R2.
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
        """Return the settings, scores and history as plain data, ready for JSON.

        Numbers that are not finite become None, because JSON cannot hold them. In regression the
        keys are named after the score: ``test_R2`` instead of ``test_accuracy``.
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
        """Save the result in a new folder, completely or not at all.

        The files are ``history.json``, ``model.safetensors`` (read it with
        :func:`xpnet.training.load_model`) and ``recipe.toml``, with all values filled in and a
        comment if the data were not those that it names. If matplotlib is installed there is also
        ``curves.png``. For the test data, ``mistakes.png`` and ``confusion.png`` are added if they
        are images with classes, and ``predictions.png`` in regression.

        Parameters
        ----------
        folder : path
            A path that does not exist, or an empty folder. Parent folders are created.
        on_problem : callable, optional
            Called with one line for each picture that cannot be drawn. The other files are still
            written. By default the line is a warning.

        Returns
        -------
        list of str
            Names of the files.

        Raises
        ------
        OSError
            If the folder cannot be written. Then nothing is left behind.

        Warns
        -----
        RuntimeWarning
            For each picture that cannot be drawn, if ``on_problem`` is None.
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
                except Exception as error:  # a missing picture must not lose the training
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
            comment = f"# Trained on {trained_on!a}, not on the data set in [data].\n"
        return comment + self.recipe.to_toml()

    def _pictures(self) -> dict[str, Callable[[], bytes]]:
        """Return the functions that draw the pictures, by file name."""
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
