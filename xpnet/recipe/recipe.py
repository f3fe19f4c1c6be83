"""The class ``Recipe``: one experiment, built, changed, run and validated."""

from __future__ import annotations

import copy
import functools
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from xpnet.data import Dataset, Preprocessing, load_dataset
from xpnet.device import Device
from xpnet.device import device as make_device
from xpnet.nn import Network
from xpnet.recipe.changes import set_value
from xpnet.recipe.errors import RecipeError
from xpnet.recipe.result import Result, Validation
from xpnet.recipe.schema import resolve
from xpnet.recipe.settings import Settings
from xpnet.recipe.training import train
from xpnet.spaces import Space
from xpnet.training import Interruption
from xpnet.training.arguments import OnReport

__all__ = ["Recipe"]


@dataclass(frozen=True)
class Recipe:
    """One experiment: data, network, loss, optimizer and training.

    Attributes
    ----------
    name : str
    values : dict
        All keys that apply, with defaults filled in; ``docs/recipes.md`` describes them. Do not
        change them in place: use :meth:`changed`.
    """

    name: str
    values: dict[str, Any]

    def __getstate__(self) -> dict[str, Any]:
        # Without settings: their classes, for instance those of a notebook, may not be picklable.
        return {"name": self.name, "values": self.values}

    @functools.cached_property
    def settings(self) -> Settings:
        """The values as objects, made at the first use.

        Raises
        ------
        RecipeError
            If a component's class is not defined in this process.
        """
        try:
            return Settings.from_values(self.values)
        except RecipeError as error:
            raise RecipeError(f"{self.name}: {error}") from error

    def to_toml(self) -> str:
        """Return the recipe as TOML, which :func:`load_recipe` reads."""
        import tomli_w

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
        return load_dataset(**self.settings.data.source, task=self._task(), data_dir=data_dir)

    def _task(self) -> str:
        """Return the task that the loss is for."""
        return "classification" if self.settings.loss.has_classes else "regression"

    def build(self, dataset: Dataset, device: str | Device | None = None) -> Network:
        """Build the untrained network.

        Parameters
        ----------
        dataset : Dataset
        device : str, Device or None
            None uses ``XPNET_DEVICE`` if it is set, and otherwise the recipe's device.

        Returns
        -------
        Network

        Raises
        ------
        RecipeError
            If the loss does not fit the data set, if the layers do not fit each other or the
            number of classes or regression targets, or if the network does not fit into memory.
        ValueError, DeviceUnavailableError
            See :func:`xpnet.device`.
        """
        device, settings = self._device(device), self.settings
        try:
            network = Network(
                [layer.clone() for layer in settings.network.layers],
                dataset.n_features,
                device=device,
                dtype=settings.dtype,
                seed=settings.seed,
                rng=settings.rng,
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
        loss, n_classes = self.settings.loss.name, dataset.n_classes
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

    def _device(self, device: str | Device | None) -> Device:
        if device is None and not os.environ.get("XPNET_DEVICE"):
            device = self.settings.device
        precision = None  # a given Device keeps its own
        if not isinstance(device, Device) and not os.environ.get("XPNET_PRECISION"):
            precision = self.settings.precision
        return make_device(device, precision=precision)

    @property
    def space(self) -> Space:
        """The hyper-parameters to search for, from the table ``[search]``.

        Raises
        ------
        RecipeError
            If the recipe has no such table.
        """
        if self.settings.search is None:
            raise RecipeError(
                f"{self.name}: search is missing: add a table [search] with the keys of the recipe "
                "to search for and their scales"
            )
        return self.settings.search

    def changed(self, values: Mapping[str, Any], *, search: bool = False) -> Recipe:
        """Return the recipe with other values.

        Parameters
        ----------
        values : mapping
            New values by paths of keys, such as ``optimizer.learning_rate``; applied in order.
        search : bool
            Whether to keep the table ``[search]``; default: False.

        Returns
        -------
        Recipe

        Raises
        ------
        RecipeError
            If there is no such key, or its value is invalid.
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
        network: Network | None = None,
        on_report: OnReport | None = None,
    ) -> Result:
        """Train the recipe's network and evaluate it.

        Parameters
        ----------
        dataset : Dataset, optional
            Data set to train on; default: the one that :meth:`load_data` loads. With a data set of
            your own, only ``divide_by``, ``normalise`` and ``standardise_target`` of the recipe's
            table ``[data]`` apply.
        device : str, Device or None
            See :meth:`build`.
        network : Network, optional
            Result of :meth:`build` for this data set, instead of ``device``. It is trained in
            place. By default the network is built here.
        on_report : callable, optional
            See :func:`xpnet.training.fit`; for instance a :class:`xpnet.terminal.Progress`.

        Returns
        -------
        Result
            After Ctrl-C, the result so far; a second Ctrl-C raises KeyboardInterrupt.

        Raises
        ------
        RecipeError
            See :meth:`build`; or if an augmentation does not fit the data, or a number is out of
            the dtype's range.
        DataError
            If the data cannot be loaded or preprocessed.
        ValueError
            If names or shapes in a data set of your own do not match its data, or if both
            ``device`` and ``network`` are given.
        DivergenceError
            See :func:`xpnet.training.fit`.
        """
        if network is not None and device is not None:
            raise ValueError(f"device must be None if a network is given, got {device!r}")
        dataset = self.load_data() if dataset is None else dataset
        network = self.build(dataset, device) if network is None else network
        with Interruption():
            parts = ["train", "test"]
            parts += [] if dataset.X_validation is None else ["validation"]
            trained = train(
                self.name, self.settings, network, dataset, parts, on_report, train_accuracy=True
            )
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
        """Train the recipe's network and evaluate it on the validation samples only.

        The test samples are not used, so the result can be used to choose a network.

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
            See :meth:`run`; or if the data set has no validation samples.
        DataError, ValueError, DivergenceError
            See :meth:`run`.
        """
        self.check_validation(dataset)
        network = self.build(dataset, device)
        with Interruption():
            parts, watched = ["train", "validation"], self._watches_train()
            trained = train(
                self.name, self.settings, network, dataset, parts, on_report, train_accuracy=watched
            )
            cost, accuracy = trained.evaluate("validation")
            return Validation(trained.history, network.n_parameters, cost, accuracy)

    def check_validation(self, dataset: Dataset) -> None:
        """Raise a RecipeError if a data set has no validation samples."""
        if dataset.X_validation is None:
            raise RecipeError(
                f"{self.name}: the data set has no validation samples; set, for example, "
                "data.validation_fraction = 0.1"
            )

    def _watches_train(self) -> bool:
        """Return whether the schedule or early stopping monitors the training accuracy."""
        stopping = self.settings.early_stopping
        monitors = [self.settings.schedule.monitor]
        monitors += [] if stopping is None else [stopping.monitor]
        return "train_accuracy" in monitors

    def _as_run(self, network: Network, preprocessing: Preprocessing) -> Recipe:
        """Return the recipe with the values that the data set and the machine decided."""
        data = {**self.values["data"], "divide_by": preprocessing.divide_by}
        device = {"device": network.device.name, "precision": network.device.precision}
        return Recipe(self.name, {**self.values, **device, "data": data})
