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
        Every key that applies, filled in; see the reference of keys in ``docs/recipes.md``. They
        are not to be changed: see :meth:`changed`.
    """

    name: str
    values: dict[str, Any]

    def __getstate__(self) -> dict[str, Any]:
        # Without settings: classes of components, of a notebook for instance, may not be picklable.
        return {"name": self.name, "values": self.values}

    @functools.cached_property
    def settings(self) -> Settings:
        """The values as objects, made once.

        Raises
        ------
        RecipeError
            If a component's class is not known in this process.
        """
        try:
            return Settings.from_values(self.values)
        except RecipeError as error:
            raise RecipeError(f"{self.name}: {error}") from error

    def to_toml(self) -> str:
        """Write the recipe out; :func:`load_recipe` reads it back."""
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
        """Give what the loss is for."""
        return "classification" if self.settings.loss.has_classes else "regression"

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
        precision = None  # that of a device that was made before
        if not isinstance(device, Device) and not os.environ.get("XPNET_PRECISION"):
            precision = self.settings.precision
        return make_device(device, precision=precision)

    @property
    def space(self) -> Space:
        """The hyper-parameters to be looked for, as the table ``[search]`` says.

        Raises
        ------
        RecipeError
            If the recipe has none.
        """
        if self.settings.search is None:
            raise RecipeError(
                f"{self.name}: search is missing: a table [search] must say which keys of the "
                "recipe are looked for, and on which scales"
            )
        return self.settings.search

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
        network: Network | None = None,
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
        network : Network, optional
            What :meth:`build` gave for this data set, in place of ``device``; trained in place. By
            default it is built now.
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
            If names or shapes in a data set of your own do not fit it, or both ``device`` and
            ``network`` are given.
        DivergenceError
            See :func:`xpnet.training.fit`.
        """
        if network is not None and device is not None:
            raise ValueError(f"device must be left out with a network, got {device!r}")
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
            trained = train(
                self.name, self.settings, network, dataset, parts, on_report, train_accuracy=watched
            )
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
        stopping = self.settings.early_stopping
        monitors = [self.settings.schedule.monitor]
        monitors += [] if stopping is None else [stopping.monitor]
        return "train_accuracy" in monitors

    def _as_run(self, network: Network, preprocessing: Preprocessing) -> Recipe:
        """Fill in what the data set and the machine decided."""
        data = {**self.values["data"], "divide_by": preprocessing.divide_by}
        device = {"device": network.device.name, "precision": network.device.precision}
        return Recipe(self.name, {**self.values, **device, "data": data})
