"""The class ``Model``: preprocessing, network and class names, saved and loaded as one file."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from xpnet.data import Preprocessing
from xpnet.device import Device, host_array
from xpnet.files import write_whole
from xpnet.kernels.reference import Array, ReferenceOps
from xpnet.nn import Loss, Network
from xpnet.nn.checks import check_count
from xpnet.nn.network import check_samples
from xpnet.training.checkpoint import pack_network, read_network

__all__ = ["Model", "load_model", "pack_model", "save_model"]

_FEATURE_STATISTICS = ("preprocessing.shift", "preprocessing.scale")
_TARGET_STATISTICS = ("targets.shift", "targets.scale")


@dataclass(frozen=True)
class Model:
    """A trained network with its preprocessing and class names, which predicts from raw samples.

    Attributes
    ----------
    network : Network
        The trained network.
    loss : Loss
        Loss of the training, which defines how logits become probabilities or numbers.
    preprocessing : Preprocessing
        Preprocessing of the features.
    class_names : tuple of str
        Names of the classes: one for each output, two for a single output, none for regression.
    image_shape : tuple of int or None
        Shape of a sample if samples are images, else None.
    feature_names : tuple of str or None
        Names of the features.
    targets : Preprocessing or None
        Standardisation of the regression targets during training, which predictions invert; None if
        they were not standardised.

    Raises
    ------
    ValueError
        If the arguments do not fit each other.
    """

    network: Network
    loss: Loss
    preprocessing: Preprocessing
    class_names: tuple[str, ...]
    image_shape: tuple[int, ...] | None = None
    feature_names: tuple[str, ...] | None = None
    targets: Preprocessing | None = None

    def __post_init__(self) -> None:
        n_features, n_outputs = self.network.n_features, self.network.n_outputs
        has_classes = self.loss.has_classes
        _check_names("class_names", self.class_names, max(2, n_outputs) if has_classes else 0)
        if self.feature_names is not None:
            _check_names("feature_names", self.feature_names, n_features)
        if self.image_shape is not None:
            shape = self.image_shape
            is_shape = isinstance(shape, tuple) and len(shape) in (2, 3)
            if not (
                is_shape
                and all(type(length) is int and length > 0 for length in shape)
                and math.prod(shape) == n_features
            ):
                raise ValueError(
                    f"image_shape must be the shape of an image of {n_features} features, got "
                    f"{shape!r}"
                )
        for statistic in (self.preprocessing.shift, self.preprocessing.scale):
            if statistic is not None and statistic.shape != (n_features,):
                raise ValueError(
                    f"statistics of the features must have shape ({n_features},), got "
                    f"{statistic.shape}"
                )
        if self.targets is not None:
            shift = self.targets.shift
            if has_classes or self.targets.divide_by != 1 or shift is None:
                raise ValueError(
                    "targets must be None or standardised regression targets with a regression loss"
                )
            if not self.loss.has_negatives:
                raise ValueError(
                    f"targets must be None with loss {self.loss.name!r}, which needs targets >= 0"
                )
            if shift.shape != (n_outputs,):
                raise ValueError(
                    f"statistics of the targets must have shape ({n_outputs},), got {shift.shape}"
                )

    def predict_proba(self, X: Any, *, batch_size: int | None = None) -> npt.NDArray[Any]:
        """Compute the probability of every class.

        Parameters
        ----------
        X : array_like (n_samples, n_features) or (n_samples, height, width, ...)
            Raw features on the host, as in the data set. A memory-mapped array is read batch by
            batch.
        batch_size : int, optional
            Number of samples to process at a time; by default :attr:`.Network.default_batch_size`.

        Returns
        -------
        array (n_samples, n_classes), in the network's dtype
            Probabilities; each row sums to 1. The last bits depend on the batch size, as do those
            of matrix products.

        Raises
        ------
        ValueError, TypeError
            If ``X`` has the wrong shape, is not finite before or after preprocessing, or is too
            large for the network; or if the model is a regression model.
        """
        if not self.loss.has_classes:
            raise ValueError(
                f"predict_proba needs a classifier, but {self.loss.name!r} is a regression loss: "
                "call predict"
            )
        return self._outputs(X, batch_size, self.loss.probabilities)

    def _outputs(
        self, X: Any, batch_size: int | None, convert: Callable[[ReferenceOps, Array], Array]
    ) -> npt.NDArray[Any]:
        """Preprocess samples, compute logits and convert them, batch by batch."""
        if batch_size is None:
            batch_size = self.network.default_batch_size
        batch_size = check_count("batch_size", batch_size)
        if type(X) not in (np.ndarray, np.memmap):
            X = host_array(X, name="X")
        shape = self.image_shape
        if shape is not None and X.shape[1:] in (shape, (*shape, 1)):  # 1: an axis for one channel
            X = X.reshape(len(X), math.prod(shape))
        network, device = self.network, self.network.device
        check_samples(X, network.n_features)
        n_columns = len(self.class_names) or network.n_outputs
        result = np.empty((len(X), n_columns), network.dtype)
        for start in range(0, len(X), batch_size):
            rows = slice(start, start + batch_size)
            raw = host_array(X[rows], name="X")
            if not np.isfinite(raw).all():
                row = start + int(np.argmin(np.isfinite(raw).all(axis=1)))
                raise ValueError(f"X must be finite, got nan or an infinite value in row {row}")
            logits = network.predict(self.preprocessing(raw, network.dtype))
            with device.activate():
                on_device = device.asarray(logits)
                found = device.to_host(convert(device.ops, on_device))
            if found.shape[1] < n_columns:  # one output for two classes: probability of the second
                found = np.concatenate([1 - found, found], axis=1)
            if not np.isfinite(found).all():
                row = start + int(np.argmin(np.isfinite(found).all(axis=1)))
                raise ValueError(f"X is too large for the network in row {row}: logits overflow")
            result[rows] = found
        return result

    def predict(self, X: Any, *, batch_size: int | None = None) -> npt.NDArray[Any]:
        """Predict the class of every sample, counted from 0, or the regression targets.

        Parameters
        ----------
        X, batch_size
            See :meth:`predict_proba`.

        Returns
        -------
        int64 array (n_samples,)
            Indices into :attr:`class_names` of the most probable classes, in case of a tie of the
            first of them. For regression, a float64 array (n_samples,), or (n_samples, n_targets)
            if there are several targets.

        Raises
        ------
        ValueError, TypeError
            If ``X`` is invalid; see :meth:`predict_proba`.
        """
        if not self.loss.has_classes:
            numbers = self._outputs(X, batch_size, self.loss.decide).astype(np.float64)
            if self.targets is not None:
                numbers = self.targets.invert(numbers)
            return numbers[:, 0] if numbers.shape[1] == 1 else numbers
        probabilities = self.predict_proba(X, batch_size=batch_size)
        classes: npt.NDArray[np.int64] = probabilities.argmax(axis=1)
        return classes


def save_model(model: Model, path: str | os.PathLike[str]) -> None:
    """Save a model in a single safetensors file.

    Parameters
    ----------
    model : Model
        Model to save.
    path : path
        File to write, usually ``*.safetensors``. It is written atomically and replaces an existing
        file.

    Raises
    ------
    TypeError
        If an argument of a layer's or the loss's constructor is not plain data.
    OSError
        If the file cannot be written.

    Notes
    -----
    The file has the format of :func:`xpnet.training.save_network`, so that
    :func:`~xpnet.training.load_network` can load just the network. It also contains the statistics
    of the preprocessing, as float64 tensors, and the rest as JSON in the header. Nothing is
    pickled.
    """
    write_whole(path, pack_model(model))


def pack_model(model: Model) -> bytes:
    """Return the contents of a model's file; see :func:`save_model`."""
    features, targets = model.preprocessing, model.targets or Preprocessing()
    statistics = (features.shift, features.scale, targets.shift, targets.scale)
    return pack_network(
        model.network,
        model={
            "loss": model.loss.get_config(),
            "divide_by": model.preprocessing.divide_by,
            "normalise": model.preprocessing.normalise,
            "class_names": list(model.class_names),
            "image_shape": None if model.image_shape is None else list(model.image_shape),
            "feature_names": None if model.feature_names is None else list(model.feature_names),
        },
        tensors={
            name: values
            for name, values in zip(
                _FEATURE_STATISTICS + _TARGET_STATISTICS, statistics, strict=True
            )
            if values is not None
        },
    )


def load_model(path: str | os.PathLike[str], *, device: str | Device | None = None) -> Model:
    """Load a model saved by :func:`save_model`.

    Parameters
    ----------
    path : path
        File to read, or the folder of a run, which contains it as ``model.safetensors``.
    device : str, Device or None
        Device of the network, which may differ from the one it was trained on.

    Returns
    -------
    Model

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If the file is not an xpnet model, is damaged or was edited, holds only a network, or uses
        an unknown layer or loss: import your own first.
    """
    if Path(path).is_dir():
        path = Path(path) / "model.safetensors"
    network, described, tensors = read_network(path, device)
    if described is None:
        raise ValueError(
            f"{os.fspath(path)} holds only a network: load it with load_network, or save a whole "
            "model with save_model"
        )
    try:
        return _make_model(network, json.loads(described), tensors)
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
        raise ValueError(f"{os.fspath(path)} does not describe a model: {error}") from error


def _make_model(
    network: Network, described: dict[str, Any], tensors: dict[str, npt.NDArray[Any]]
) -> Model:
    shift, scale = (tensors.get(name) for name in _FEATURE_STATISTICS)
    target_statistics = [tensors.get(name) for name in _TARGET_STATISTICS]
    is_standardised = any(statistic is not None for statistic in target_statistics)
    class_names, image_shape, feature_names = (
        tuple(value) if isinstance(value, list) else value  # as JSON has no tuples
        for value in map(described.__getitem__, ("class_names", "image_shape", "feature_names"))
    )
    return Model(
        network,
        Loss.resolve(described["loss"]),
        Preprocessing(described["divide_by"], described["normalise"], shift, scale),
        class_names,
        image_shape,
        feature_names,
        Preprocessing(1.0, "standardise", *target_statistics) if is_standardised else None,
    )


def _check_names(name: str, names: Any, n: int) -> None:
    is_good = isinstance(names, tuple) and all(isinstance(item, str) and item for item in names)
    if not is_good or len(names) != n or len(set(names)) < n:
        raise ValueError(f"{name} must be a tuple of {n} different strings, got {names!r:.200}")
