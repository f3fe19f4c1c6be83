"""The data sets that are known by name."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from xpnet.data.dataset import DataError, Dataset

__all__ = ["load_dataset"]


def load_dataset(name: str, *, data_dir: str | os.PathLike[str] | None = None) -> Dataset:
    """Load a data set by name.

    Parameters
    ----------
    name : {"digits", "cats"}
        ``digits``: 1,797 grey images of 8 x 8 pixels of handwritten digits, which come with
        scikit-learn; pixels / 16; a fifth of each class held out for testing, by a fixed seed.
        ``cats``: 209 + 50 colour images of 64 x 64 pixels, cat or not, from
        ``train_catvnoncat.h5`` and ``test_catvnoncat.h5``; pixels / 255.
    data_dir : path, optional
        Where files are looked up; by default in the environment variable ``XPNET_DATA_DIR``.

    Returns
    -------
    Dataset

    Raises
    ------
    DataError
        If the name is not known, a package or file is missing, or a file is not what it should
        be.
    """
    if not isinstance(name, str) or name not in _LOADERS:
        raise DataError(f"dataset must be one of {', '.join(_LOADERS)}, got {name!r}")
    where = data_dir if data_dir is not None else os.environ.get("XPNET_DATA_DIR") or None
    return _LOADERS[name](None if where is None else Path(where))


def _digits(data_dir: Path | None) -> Dataset:
    del data_dir  # the images come with scikit-learn
    datasets = _require("sklearn.datasets", "digits", "scikit-learn")
    selection = _require("sklearn.model_selection", "digits", "scikit-learn")
    pixels, labels = datasets.load_digits(return_X_y=True)
    X_train, X_test, y_train, y_test = selection.train_test_split(
        pixels / 16.0, labels, test_size=0.2, stratify=labels, random_state=0
    )
    return Dataset(
        "digits",
        X_train,
        y_train.astype(np.int64),
        X_test,
        y_test.astype(np.int64),
        tuple(map(str, range(10))),
    )


def _cats(data_dir: Path | None) -> Dataset:
    parts = {}
    for part in ("train", "test"):
        path = _find(data_dir, f"{part}_catvnoncat.h5", "cats")
        parts[part] = _read_cats(path, part)
    return Dataset("cats", *parts["train"], *parts["test"], ("non-cat", "cat"))


def _read_cats(path: Path, part: str) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    h5py = _require("h5py", "cats", "h5py")
    try:
        with h5py.File(path, "r") as file:
            images = np.asarray(file[f"{part}_set_x"])
            labels = np.asarray(file[f"{part}_set_y"])
    except (OSError, KeyError) as error:
        raise DataError(f"{path} is not the cats file it should be: {error}") from error
    if images.ndim != 4 or images.shape[1:] != (64, 64, 3) or images.dtype != np.uint8:
        raise DataError(
            f"{path}: {part}_set_x must be uint8 images (n, 64, 64, 3), got {images.dtype} "
            f"{images.shape}"
        )
    if labels.shape != (len(images),) or not np.isin(labels, (0, 1)).all() or not len(labels):
        raise DataError(
            f"{path}: {part}_set_y must hold a label 0 or 1 for each of the {len(images)} images"
        )
    return images.reshape(len(images), -1) / 255.0, labels.astype(np.int64)


def _find(data_dir: Path | None, file: str, dataset: str) -> Path:
    if data_dir is None:
        raise DataError(
            f"dataset {dataset!r} needs the file {file}: say where it is with --data-dir DIR or "
            "XPNET_DATA_DIR"
        )
    path = data_dir / file
    if not path.is_file():
        raise DataError(f"dataset {dataset!r} needs the file {file}, which is not in {data_dir}")
    return path


def _require(module: str, dataset: str, package: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise DataError(
            f"dataset {dataset!r} needs {package}, which cannot be imported ({error}); type: "
            f"pip install {package}"
        ) from error


_LOADERS: dict[str, Callable[[Path | None], Dataset]] = {"digits": _digits, "cats": _cats}
