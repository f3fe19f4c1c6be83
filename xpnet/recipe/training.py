"""Trains a recipe's network: preprocesses samples and labels, and calls ``fit``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from xpnet.data import DataError, Dataset, Preprocessing
from xpnet.nn import Augmentation, Network
from xpnet.recipe.errors import RecipeError
from xpnet.recipe.settings import DataSettings, Settings
from xpnet.training import History, Model, Report, evaluate, fit
from xpnet.training.arguments import OnReport

__all__ = ["Trained", "train"]


@dataclass(frozen=True)
class Trained:
    """A trained model, with the preprocessed samples and labels."""

    model: Model
    history: History
    X: dict[str, npt.NDArray[Any]]
    y: dict[str, npt.NDArray[Any]]
    divide_by: float | None

    def evaluate(self, part: str) -> tuple[float, float]:
        """Return the mean loss and the accuracy, or R2 in regression."""
        network, loss = self.model.network, self.model.loss
        return evaluate(network, loss, self.X[part], self.y[part], divide_by=self.divide_by)


def train(
    name: str,
    settings: Settings,
    network: Network,
    dataset: Dataset,
    parts: Sequence[str],
    on_report: OnReport | None,
    *,
    train_accuracy: bool,
) -> Trained:
    """Preprocess the parts of the data, and train the network in place.

    ``name`` is the recipe's name; ``parts`` are ``"train"`` and optionally ``"validation"`` and
    ``"test"``. For the exceptions see :meth:`xpnet.recipe.Recipe.run`.
    """
    _check_augmentation(name, settings.training.augmentation, dataset)
    preprocessing, X, divide_by = _preprocess(settings.data, dataset, network.dtype, parts)
    targets, y = _labels(settings.data, dataset, network.dtype, parts)
    validation = None
    if "validation" in parts:
        validation = (X["validation"], y["validation"])
    # Before the training, which would be lost if these did not fit each other.
    loss = settings.loss.clone()  # each run has its own objects
    model = Model(
        network,
        loss,
        preprocessing,
        dataset.class_names,
        dataset.image_shape,
        dataset.feature_names,
        targets,
    )
    training = vars(settings.training).copy()
    training["augmentation"] = [item.clone() for item in training["augmentation"]]
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
            optimizer=settings.optimizer.clone(),
            schedule=settings.schedule,
            early_stopping=settings.early_stopping,
            sample_weight=dataset.sample_weight,
            validation=validation,
            train_accuracy=train_accuracy,
            image_shape=dataset.image_shape,
            on_report=count,
            **training,
        )
    except (TypeError, ValueError) as error:
        if n_reports:  # then the settings are not the cause
            raise
        raise RecipeError(f"{name}: {error}") from error
    return Trained(model, history, X, y, divide_by)


def _check_augmentation(name: str, augmentations: Sequence[Augmentation], dataset: Dataset) -> None:
    for number, augmentation in enumerate(augmentations):
        try:
            augmentation.check(dataset.image_shape, dataset.n_features)
        except ValueError as error:
            raise RecipeError(
                f"{name}: training.augmentation.{number} does not fit {dataset.name}: {error}"
            ) from error


def _preprocess(
    data: DataSettings, dataset: Dataset, dtype: npt.DTypeLike, parts: Sequence[str]
) -> tuple[Preprocessing, dict[str, npt.NDArray[Any]], float | None]:
    """Preprocess the parts, so that problems are found before the training.

    Bytes that only need to be divided stay bytes; the divisor is returned with them.
    """
    raw = {part: getattr(dataset, f"X_{part}") for part in parts}
    part = "train"
    try:
        preprocessing = Preprocessing.fit(
            dataset.X_train,
            divide_by=_divisor(data.divide_by, dataset),
            normalise=data.normalise,
        )
        if _only_divides(preprocessing, raw, dtype):
            return preprocessing, raw, preprocessing.divide_by
        X = {}
        for part, features in raw.items():
            X[part] = preprocessing(features, dtype)
    except DataError as error:
        said = f"data.divide_by = {'auto' if data.divide_by is None else data.divide_by}"
        if data.normalise != "none":
            said += f", data.normalise = {data.normalise}"
        raise DataError(f"{dataset.name}, {part} samples, with {said}: {error}") from error
    return preprocessing, X, None


def _labels(
    data: DataSettings, dataset: Dataset, dtype: npt.DTypeLike, parts: Sequence[str]
) -> tuple[Preprocessing | None, dict[str, npt.NDArray[Any]]]:
    """Return the labels of the parts, so that problems are found before the training.

    Regression targets are in the network's dtype, and standardised if the recipe says so.
    """
    y = {part: getattr(dataset, f"y_{part}") for part in parts}
    if dataset.task == "classification":
        return None, y
    y = {part: numbers.reshape(len(numbers), -1) for part, numbers in y.items()}
    targets, said = None, ""
    if data.standardise_target:
        said = ", with data.standardise_target = true"
        try:
            targets = Preprocessing.fit(y["train"], normalise="standardise")
        except DataError as error:
            raise DataError(f"{dataset.name}, regression targets{said}: {error}") from error
    for part, numbers in y.items():
        with np.errstate(over="ignore"):  # checked below
            scaled = numbers if targets is None else targets(numbers, "float64")
            y[part] = scaled.astype(dtype)
        if not (is_finite := np.isfinite(y[part])).all():
            at = tuple(np.argwhere(~is_finite)[0])
            raise DataError(
                f"{dataset.name}, {part} samples{said}: regression targets must be finite in "
                f"{np.dtype(dtype)}, got {y[part][at]} for {numbers[at]}"
            )
    return targets, y


def _only_divides(
    preprocessing: Preprocessing, raw: dict[str, npt.NDArray[Any]], dtype: npt.DTypeLike
) -> bool:
    """Return whether preprocessing only divides bytes, which the network's dtype can do exactly.

    Then dividing in the network's dtype gives the same numbers as dividing in float64 and rounding,
    as preprocessing does.
    """
    with np.errstate(all="ignore"):
        is_exact = float(np.asarray(preprocessing.divide_by, dtype)) == preprocessing.divide_by
    are_bytes = all(features.dtype == np.uint8 for features in raw.values())
    return preprocessing.normalise == "none" and are_bytes and is_exact


def _divisor(divide_by: float | None, dataset: Dataset) -> float:
    if divide_by is not None:
        return divide_by
    is_8_bit = dataset.X_train.dtype == np.uint8 and dataset.X_train.max() > 1
    return 255.0 if is_8_bit else 1.0
