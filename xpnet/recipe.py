"""Recipes: whole experiments as TOML files, and how one is run."""

from __future__ import annotations

import copy
import functools
import json
import os
import tomllib
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from xpnet.data import DataError, Dataset, Preprocessing, load_dataset
from xpnet.device import Device
from xpnet.device import device as make_device
from xpnet.environment import versions
from xpnet.files import write_folder
from xpnet.kinds import nearest
from xpnet.nn import Augmentation, Loss, Network, Optimizer, Schedule
from xpnet.report import (
    draw_confusion,
    draw_curves,
    draw_mistakes,
    draw_predictions,
    plotting_problem,
)
from xpnet.schema import RecipeError, layers_with_init, resolve, set_value
from xpnet.spaces import Space
from xpnet.training import (
    EarlyStopping,
    History,
    Interruption,
    Model,
    Report,
    evaluate,
    fit,
)
from xpnet.training.history import finite_or_none
from xpnet.training.model import pack_model
from xpnet.training.options import OnReport

__all__ = ["Recipe", "RecipeError", "Result", "Validation", "load_recipe", "recipe_names"]


@dataclass(frozen=True)
class Recipe:
    """One experiment: data, network, loss, optimizer and training.

    Attributes
    ----------
    name : str
    values : dict
        Every key that applies, filled in; see the reference of keys in ``docs/recipes.md``.
    """

    name: str
    values: dict[str, Any]

    def to_toml(self) -> str:
        """Write the recipe out; :func:`load_recipe` reads it back."""
        import tomli_w  # which training does without

        return tomli_w.dumps(self.values)

    def load_data(self, data_dir: str | os.PathLike[str] | None = None) -> Dataset:
        """Load the recipe's data set.

        Parameters
        ----------
        data_dir : path, optional
            See :func:`xpnet.data.load_dataset`.

        Returns
        -------
        Dataset

        Raises
        ------
        DataError
            See :func:`xpnet.data.load_dataset`.
        """
        what = {k: v for k, v in self.values["data"].items() if k not in _OF_PREPROCESSING}
        if what.get("sample_weight") == "none":
            del what["sample_weight"]
        return load_dataset(**what, task=self._task(), data_dir=data_dir)

    def _task(self) -> str:
        """Give what the loss is for."""
        has_classes = Loss.resolve(self.values["loss"]).has_classes
        return "classification" if has_classes else "regression"

    def build(self, dataset: Dataset, device: str | Device | None = None) -> Network:
        """Make the untrained network.

        Parameters
        ----------
        dataset : Dataset
        device : str, Device or None
            None takes what ``XPNET_DEVICE`` says, else what the recipe says.

        Returns
        -------
        Network

        Raises
        ------
        RecipeError
            If the loss does not fit the data set, or the layers do not fit each other, the number
            of classes or of numbers to be predicted, or into memory.
        ValueError, DeviceUnavailableError
            See :func:`xpnet.device`.
        """
        device = self._device(device)
        try:
            network = Network(
                layers_with_init(self.values["network"]),
                dataset.n_features,
                device=device,
                dtype=self.values["dtype"],
                seed=self.values["seed"],
                rng=self.values["rng"],
            )
        except (TypeError, ValueError) as error:
            raise RecipeError(f"{self.name}: network.layers: {error}") from error
        except MemoryError as error:
            raise RecipeError(
                f"{self.name}: network.layers: the network does not fit into memory"
            ) from error
        self._check_outputs(network, dataset)
        return network

    def _check_outputs(self, network: Network, dataset: Dataset) -> None:
        loss, n_classes = Loss.resolve(self.values["loss"]).name, dataset.n_classes
        n_outputs = dataset.n_targets or n_classes
        wanted = f"the {n_classes} classes"
        if dataset.task == "regression":
            wanted = f"the {n_outputs} numbers" if n_outputs > 1 else "the one number"
        if dataset.task != self._task():
            other = "numbers" if n_classes else "classes"
            raise RecipeError(
                f"{self.name}: loss must be one for {wanted} of {dataset.name}, got {loss!r}, "
                f"which is for {other}"
            )
        if loss == "sigmoid_cross_entropy" and n_classes != 2:
            raise RecipeError(
                f"{self.name}: loss must be 'softmax_cross_entropy' for the {n_classes} classes of "
                f"{dataset.name}, got {loss!r}, which is for two"
            )
        if loss == "sigmoid_cross_entropy":
            n_outputs = 1
        if network.n_outputs != n_outputs:
            last = len(network.layers) - 1
            raise RecipeError(
                f"{self.name}: network.layers.{last} must have {n_outputs} outputs under {loss} "
                f"for {wanted} of {dataset.name}, got {network.n_outputs}"
            )

    def _check_augmentation(self, dataset: Dataset) -> None:
        for number, spec in enumerate(self.values["training"]["augmentation"]):
            try:
                Augmentation.resolve(spec).check(dataset.image_shape, dataset.n_features)
            except ValueError as error:
                raise RecipeError(
                    f"{self.name}: training.augmentation.{number} does not fit {dataset.name}: "
                    f"{error}"
                ) from error

    def _device(self, device: str | Device | None) -> Device:
        if device is None and not os.environ.get("XPNET_DEVICE"):
            device = str(self.values["device"])
        precision = None  # that of a device that was made before
        if not isinstance(device, Device) and not os.environ.get("XPNET_PRECISION"):
            precision = str(self.values["precision"])
        return make_device(device, precision=precision)

    @property
    def space(self) -> Space:
        """The hyper-parameters to be looked for, as the table ``[search]`` says.

        Raises
        ------
        RecipeError
            If the recipe has none.
        """
        if "search" not in self.values:
            raise RecipeError(
                f"{self.name}: search is missing: a table [search] must say which keys of the "
                "recipe are looked for, and on which scales"
            )
        return Space.from_tables(self.values["search"])

    def changed(self, values: Mapping[str, Any], *, search: bool = False) -> Recipe:
        """Give the recipe with other values.

        Parameters
        ----------
        values : mapping
            By the keys' paths, as ``optimizer.learning_rate``; in this order.
        search : bool
            Whether the table ``[search]``, if there is one, stays.

        Returns
        -------
        Recipe

        Raises
        ------
        RecipeError
            If there is no such key, or it cannot have that value.
        """
        tables = copy.deepcopy(self.values)
        if not search:
            tables.pop("search", None)
        try:
            for path, value in values.items():
                set_value(tables, path, copy.deepcopy(value))
            return Recipe(self.name, resolve(tables))
        except RecipeError as error:
            raise RecipeError(f"{self.name}: {error}") from error

    def run(
        self,
        dataset: Dataset | None = None,
        device: str | Device | None = None,
        *,
        on_report: OnReport | None = None,
    ) -> Result:
        """Train the recipe's network and evaluate it.

        Parameters
        ----------
        dataset : Dataset, optional
            By default :meth:`load_data` loads it. A data set of your own is trained on whatever
            the recipe's table ``[data]`` says, except for ``divide_by``, ``normalise`` and
            ``standardise_target``.
        device : str, Device or None
            See :meth:`build`.
        on_report : callable, optional
            See :func:`xpnet.training.fit`; :class:`xpnet.terminal.Progress` is one.

        Returns
        -------
        Result
            After Ctrl-C that of the training so far; a second Ctrl-C raises KeyboardInterrupt.

        Raises
        ------
        RecipeError
            See :meth:`build`; or if an augmentation does not fit the data, or a number is out of
            the dtype's range.
        DataError
            If the data cannot be had or preprocessed.
        ValueError
            If names or shapes in a data set of your own do not fit it.
        DivergenceError
            See :func:`xpnet.training.fit`.
        """
        dataset = self.load_data() if dataset is None else dataset
        network = self.build(dataset, device)
        with Interruption():
            parts = ["train", "test"]
            parts += [] if dataset.X_validation is None else ["validation"]
            trained = self._train(network, dataset, parts, on_report, train_accuracy=True)
            train_cost, train_accuracy = trained.evaluate("train")
            test_cost, test_accuracy = trained.evaluate("test")
            return Result(
                self._as_run(network, trained.model.preprocessing),
                dataset,
                trained.model,
                trained.history,
                train_cost,
                train_accuracy,
                test_cost,
                test_accuracy,
            )

    def validate(
        self,
        dataset: Dataset,
        device: str | Device | None = None,
        *,
        on_report: OnReport | None = None,
    ) -> Validation:
        """Train the recipe's network and evaluate it on the validation samples alone.

        The test samples take no part, so that networks can be chosen by what this gives.

        Parameters
        ----------
        dataset, device, on_report
            See :meth:`run`.

        Returns
        -------
        Validation

        Raises
        ------
        RecipeError
            See :meth:`run`; or if there are no validation samples.
        DataError, ValueError, DivergenceError
            See :meth:`run`.
        """
        self.check_validation(dataset)
        network = self.build(dataset, device)
        with Interruption():
            parts, watched = ["train", "validation"], self._watches_train()
            trained = self._train(network, dataset, parts, on_report, train_accuracy=watched)
            cost, accuracy = trained.evaluate("validation")
            return Validation(trained.history, network.n_parameters, cost, accuracy)

    def check_validation(self, dataset: Dataset) -> None:
        """Raise a RecipeError if a data set has no validation samples."""
        if dataset.X_validation is None:
            raise RecipeError(
                f"{self.name}: there must be validation samples to choose by, as with "
                "data.validation_fraction = 0.1; got none"
            )

    def _watches_train(self) -> bool:
        """Tell whether anything in the training depends on the accuracy on training samples."""
        monitors = (
            Schedule.resolve(self.values["schedule"]).monitor,
            self.values["early_stopping"]["monitor"],
        )
        return "train_accuracy" in monitors

    def _train(
        self,
        network: Network,
        dataset: Dataset,
        parts: Sequence[str],
        on_report: OnReport | None,
        *,
        train_accuracy: bool,
    ) -> _Trained:
        """Preprocess the parts of the data, and train."""
        values = self.values
        self._check_augmentation(dataset)
        preprocessing, X, divide_by = self._preprocess(dataset, network.dtype, parts)
        targets, y = self._labels(dataset, network.dtype, parts)
        validation = None
        if "validation" in parts:
            validation = (X["validation"], y["validation"])
        loss = Loss.resolve(values["loss"])
        # Before the training, which is lost if these do not fit each other.
        model = Model(
            network,
            loss,
            preprocessing,
            dataset.class_names,
            dataset.image_shape,
            dataset.feature_names,
            targets,
        )
        training = _arguments(values)
        n_reports = 0

        def count(report: Report) -> Any:
            nonlocal n_reports
            n_reports += 1
            return None if on_report is None else on_report(report)

        try:
            history = fit(
                network,
                X["train"],
                y["train"],
                divide_by=divide_by,
                loss=loss,
                optimizer=Optimizer.resolve(values["optimizer"]),
                schedule=values["schedule"],
                sample_weight=dataset.sample_weight,
                validation=validation,
                train_accuracy=train_accuracy,
                image_shape=dataset.image_shape,
                on_report=count,
                **training,
            )
        except (TypeError, ValueError) as error:
            if n_reports:  # then it is not the settings
                raise
            raise RecipeError(f"{self.name}: {error}") from error
        return _Trained(model, history, X, y, divide_by)

    def _preprocess(
        self, dataset: Dataset, dtype: npt.DTypeLike, parts: Sequence[str]
    ) -> tuple[Preprocessing, dict[str, npt.NDArray[Any]], float | None]:
        """Preprocess the parts, such that what cannot be is known before the training.

        Bytes that are only to be divided stay as they are, and the divisor comes along.
        """
        raw = {part: getattr(dataset, f"X_{part}") for part in parts}
        part = "train"
        try:
            preprocessing = Preprocessing.fit(
                dataset.X_train,
                divide_by=_divisor(self.values["data"]["divide_by"], dataset),
                normalise=self.values["data"]["normalise"],
            )
            if _only_divides(preprocessing, raw, dtype):
                return preprocessing, raw, preprocessing.divide_by
            X = {}
            for part, features in raw.items():
                X[part] = preprocessing(features, dtype)
        except DataError as error:
            data = self.values["data"]
            said = f"data.divide_by = {data['divide_by']}"
            if data["normalise"] != "none":
                said += f", data.normalise = {data['normalise']}"
            raise DataError(f"{dataset.name}, {part} samples, with {said}: {error}") from error
        return preprocessing, X, None

    def _labels(
        self, dataset: Dataset, dtype: npt.DTypeLike, parts: Sequence[str]
    ) -> tuple[Preprocessing | None, dict[str, npt.NDArray[Any]]]:
        """Give the labels of the parts: numbers in the network's dtype, standardised if asked.

        Here, such that those that cannot be are known before the training.
        """
        y = {part: getattr(dataset, f"y_{part}") for part in parts}
        if dataset.task == "classification":
            return None, y
        y = {part: numbers.reshape(len(numbers), -1) for part, numbers in y.items()}
        targets, said = None, ""
        if self.values["data"]["standardise_target"]:
            said = ", with data.standardise_target = true"
            try:
                targets = Preprocessing.fit(y["train"], normalise="standardise")
            except DataError as error:
                raise DataError(
                    f"{dataset.name}, numbers to be predicted{said}: {error}"
                ) from error
        for part, numbers in y.items():
            with np.errstate(over="ignore"):  # looked at below
                scaled = numbers if targets is None else targets(numbers, "float64")
                y[part] = scaled.astype(dtype)
            if not (is_finite := np.isfinite(y[part])).all():
                at = tuple(np.argwhere(~is_finite)[0])
                raise DataError(
                    f"{dataset.name}, {part} samples{said}: numbers to be predicted must be finite "
                    f"in {np.dtype(dtype)}, got {y[part][at]} for {numbers[at]}"
                )
        return targets, y

    def _as_run(self, network: Network, preprocessing: Preprocessing) -> Recipe:
        """Fill in what the data set and the machine decided."""
        data = {**self.values["data"], "divide_by": preprocessing.divide_by}
        device = {"device": network.device.name, "precision": network.device.precision}
        return Recipe(self.name, {**self.values, **device, "data": data})


def _only_divides(
    preprocessing: Preprocessing, raw: dict[str, npt.NDArray[Any]], dtype: npt.DTypeLike
) -> bool:
    """Tell whether a division of bytes in the network's dtype is all that preprocessing does.

    Divided in float64 and rounded, as preprocessing does it, a byte gives the same number.
    """
    with np.errstate(all="ignore"):
        is_exact = float(np.asarray(preprocessing.divide_by, dtype)) == preprocessing.divide_by
    are_bytes = all(features.dtype == np.uint8 for features in raw.values())
    return preprocessing.normalise == "none" and are_bytes and is_exact


def _arguments(values: dict[str, Any]) -> dict[str, Any]:
    """Translate the tables on training to the arguments of ``fit``, which has None for words."""
    words = {
        "batch_size": "full",
        "seed": "auto",
        "class_weight": "none",
        "clip_value": "none",
        "clip_norm": "none",
        "average": "none",
    }
    arguments = {
        key: None if key in words and value == words[key] else value
        for key, value in values["training"].items()
    }
    stopping = values["early_stopping"]
    if stopping["patience"] != "never":
        arguments["early_stopping"] = EarlyStopping(**stopping)
    return arguments


_OF_PREPROCESSING = ("divide_by", "normalise", "standardise_target")


def _divisor(divide_by: float | str, dataset: Dataset) -> float:
    if divide_by != "auto":
        return float(divide_by)
    is_8_bit = dataset.X_train.dtype == np.uint8 and dataset.X_train.max() > 1
    return 255.0 if is_8_bit else 1.0


@dataclass(frozen=True)
class _Trained:
    """A trained model, with the samples and labels as it saw them."""

    model: Model
    history: History
    X: dict[str, npt.NDArray[Any]]
    y: dict[str, npt.NDArray[Any]]
    divide_by: float | None

    def evaluate(self, part: str) -> tuple[float, float]:
        """Give mean loss and accuracy, or what else the loss scores by."""
        network, loss = self.model.network, self.model.loss
        return evaluate(network, loss, self.X[part], self.y[part], divide_by=self.divide_by)


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
        if dataset.task == "regression":
            return {
                "curves.png": lambda: draw_curves(self.history, title=title),
                "predictions.png": lambda: draw_predictions(y, predicted(), title=title),
            }
        if shape is None:
            return {"curves.png": lambda: draw_curves(self.history, title=title)}
        return {
            "curves.png": lambda: draw_curves(self.history, title=title),
            "mistakes.png": lambda: draw_mistakes(
                dataset.X_test,
                y,
                predicted(),
                class_names=names,
                image_shape=shape,
                title=title,
            ),
            "confusion.png": lambda: draw_confusion(y, predicted(), class_names=names, title=title),
        }


def recipe_names() -> list[str]:
    """List the recipes that come with xpnet."""
    folder = resources.files("xpnet") / "recipes"
    return sorted(
        entry.name.removesuffix(".toml")
        for entry in folder.iterdir()
        if entry.name.endswith(".toml")
    )


def load_recipe(name: str | os.PathLike[str], *, changes: Sequence[str] = ()) -> Recipe:
    """Read a recipe that comes with xpnet, or one of your own.

    Parameters
    ----------
    name : str or path
        One of :func:`recipe_names`, or a path that ends in ``.toml``.
    changes : sequence of str
        ``"training.epochs=5"``: keys and values to change, in this order. A value is read as
        TOML, and as a string where it is not TOML.

    Returns
    -------
    Recipe

    Raises
    ------
    RecipeError
        If there is none of that name, it cannot be read, or it says something that cannot be.
    TypeError
        If ``changes`` is a string.
    """
    if isinstance(changes, str):
        raise TypeError(f"changes must be a sequence of strings, got the string {changes!r}")
    name = os.fspath(name)
    if name.lower().endswith(".toml"):
        try:
            text = Path(name).read_text(encoding="utf-8-sig")
        except (OSError, ValueError) as error:  # ValueError: not UTF-8, or a null in the name
            reason = error.strerror if isinstance(error, OSError) else error
            raise RecipeError(f"cannot read the recipe {name}: {reason}") from error
        return parse_recipe(Path(name).stem, text, changes=changes, source=name)
    if name not in recipe_names():
        near = nearest(name, tuple(recipe_names()))
        hint = f"did you mean {near!r}? " if near else ""
        raise RecipeError(
            f"there is no recipe named {name!r}; {hint}known: {', '.join(recipe_names())}, and "
            "files that end in .toml"
        )
    text = (resources.files("xpnet") / "recipes" / f"{name}.toml").read_text(encoding="utf-8")
    return parse_recipe(name, text, changes=changes)


def parse_recipe(
    name: str, text: str, *, changes: Sequence[str] = (), source: str | None = None
) -> Recipe:
    """Make a recipe from TOML text; see :func:`load_recipe`."""
    try:
        tables = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise RecipeError(f"{source or name} is not TOML: {error}") from error
    try:
        for change in changes:
            _change(tables, change)
        return Recipe(name, resolve(tables))
    except RecipeError as error:
        raise RecipeError(f"{source or name}: {error}") from error


def _change(tables: dict[str, Any], change: str) -> None:
    """Carry out one ``key=value``."""
    path, equals, text = change.partition("=")
    words = path.strip().split(".")
    if not equals or not all(words):
        raise RecipeError(f"a change must read KEY=VALUE, got {change!r}")
    try:
        read = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        read = {}
    value = read["value"] if set(read) == {"value"} else text.strip()
    set_value(tables, ".".join(words), value)
