"""Data sets by name, and ``load_dataset``, which loads them and files."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from xpnet.data.checks import is_real_number, unknown_name
from xpnet.data.dataset import Contents, DataError, Dataset, Part
from xpnet.data.readers import SUFFIXES, read_file, read_idx
from xpnet.data.splits import check_task, make_dataset
from xpnet.data.store import PublishedFile, locate
from xpnet.random import check_seed

__all__ = ["GENERATED", "NAMES", "WEIGHTED", "is_file_name", "load_contents", "load_dataset"]


def load_dataset(
    dataset: str | os.PathLike[str],
    *,
    data_dir: str | os.PathLike[str] | None = None,
    target: str | None = None,
    n_samples: int = 400,
    noise: float | None = None,
    test_fraction: float = 0.2,
    validation_fraction: float = 0.0,
    seed: int = 0,
    task: str = "classification",
    sample_weight: str | None = None,
) -> Dataset:
    """Load a data set by name or from a file.

    ============== ================================================================== =========
    name           samples                                                            test part
    ============== ================================================================== =========
    digits         1,797 grey images of 8 x 8 pixels, 0 to 16, of handwritten digits, held out
                   from scikit-learn
    cats           209 + 50 colour images of 64 x 64 pixels, 0 to 255: cat or not     published
    fashion-mnist  60,000 + 10,000 grey images of 28 x 28 pixels, 0 to 255, of        published
                   articles of clothing in ten classes
    diabetes       442 patients with ten features each; the regression target is the  held out
                   disease's progression after a year, 25 to 346; from scikit-learn
    moons          points in the plane: two interleaving half circles                 held out
    circles        points in the plane: a circle within another                       held out
    blobs          points in the plane: three normal distributions                    held out
    flower         points in the plane: petals of alternating classes                 held out
    ============== ================================================================== =========

    Parameters
    ----------
    dataset : str or path
        A name from the table, or the path of an ``.npz``, ``.csv``, ``.h5`` or idx file; see
        :func:`xpnet.data.read_file`.
    data_dir : path, optional
        The first folder to search. Published files are then searched for in the folder given by
        the environment variable ``XPNET_DATA_DIR``, in Debian's ``/usr/share/datasets`` and in
        the cache; files that are in none of these are downloaded into the cache. Your own files
        are searched for in ``data_dir``, in the working directory and in ``XPNET_DATA_DIR``.
    target : str, optional
        Column of a ``.csv`` file that holds the labels or the regression targets.
    n_samples : int
        Number of points to generate; for ``moons``, ``circles``, ``blobs`` and ``flower`` only.
    noise : float, optional
        Standard deviation of the noise on the coordinates (default 0.2 for ``moons``, 0.05 for
        ``circles``, 1 for ``blobs``) or on angle and radius (0.2 for ``flower``).
    test_fraction, validation_fraction : float
        Fractions to hold out; see :func:`xpnet.data.make_dataset`.
    seed : int
        Seed of the generated points and of the splits, in [0, 2**32).
    task : {"classification", "regression"}
        Whether labels are classes or regression targets. Each named data set supports one task.
    sample_weight : str, optional
        Column of a ``.csv`` file, or array of an ``.npz`` or ``.h5`` file, with the weight of
        each training sample. It is not used as a feature.

    Returns
    -------
    Dataset
        Features as published, without scaling.

    Raises
    ------
    DataError
        If the name is unknown, a package or file is missing or cannot be downloaded, or a file
        does not have the expected contents.
    ValueError
        If another argument is out of range.

    References
    ----------
    H. Xiao, K. Rasul and R. Vollgraf, "Fashion-MNIST: a novel image dataset for benchmarking
    machine learning algorithms", arXiv:1708.07747, 2017.

    B. Efron, T. Hastie, I. Johnstone and R. Tibshirani, "Least angle regression", Annals of
    Statistics 32, 2004, section 1, for ``diabetes``.
    """
    name = os.fspath(dataset) if isinstance(dataset, os.PathLike) else dataset
    if not isinstance(name, str):
        raise DataError(f"dataset must be a name or a path, got {dataset!r}")
    is_whole = isinstance(n_samples, (int, np.integer)) and not isinstance(n_samples, bool)
    if not is_whole or n_samples < 10:
        raise ValueError(f"n_samples must be an integer of at least 10, got {n_samples!r}")
    if noise is not None and not (is_real_number(noise) and 0 <= noise < math.inf):
        raise ValueError(f"noise must be a finite number of at least 0, got {noise!r}")
    check_seed(seed, bits=32)
    _check_arguments(name, data_dir, target, task, sample_weight)
    if name in GENERATED:
        noise = GENERATED[name] if noise is None else float(noise)
        contents = _generate(name, int(n_samples), noise, seed)
    else:
        if name.lower().endswith(".csv") and target is None:
            raise DataError(
                f"{name}: target must name the column of the labels; give --target NAME, or "
                "data.target in a recipe"
            )
        contents = load_contents(
            name, data_dir=data_dir, target=target, task=task, sample_weight=sample_weight
        )
    return make_dataset(
        name,
        contents,
        test_fraction=test_fraction,
        validation_fraction=validation_fraction,
        seed=seed,
        task=task,
    )


def load_contents(
    dataset: str | os.PathLike[str],
    *,
    data_dir: str | os.PathLike[str] | None = None,
    target: str | None = None,
    columns: tuple[str, ...] | None = None,
    task: str = "classification",
    sample_weight: str | None = None,
) -> Contents:
    """Load a published data set or a file without splitting it; see :func:`load_dataset`.

    Parameters
    ----------
    dataset : str or path
    data_dir, target, task, sample_weight
        See :func:`load_dataset`.
    columns : tuple of str, optional
        Feature columns of a ``.csv`` file; by default all except the target and the weights.

    Returns
    -------
    Contents

    Raises
    ------
    DataError
        See :func:`load_dataset`.
    """
    dataset = os.fspath(dataset)
    _check_arguments(dataset, data_dir, target, task, sample_weight)
    if dataset in _PUBLISHED:
        return _PUBLISHED[dataset](None if data_dir is None else Path(data_dir))
    if dataset in GENERATED:
        raise DataError(f"{dataset} is generated, not stored: give a data file instead")
    if re.match("[a-z]+://", dataset):
        raise DataError(f"{dataset} is a URL: download the file, then give its path")
    # Path.exists raises if the name is too long or the folder cannot be read.
    if not is_file_name(dataset) and not os.path.exists(dataset):  # noqa: PTH110
        raise DataError(
            f"{unknown_name('data set', dataset, NAMES)}, or a file ending in {', '.join(SUFFIXES)}"
        )
    folders = [data_dir, "", os.environ.get("XPNET_DATA_DIR")]
    places = [Path(folder, dataset) for folder in folders if folder is not None]
    found = next(filter(os.path.isfile, places), Path(dataset))
    return read_file(found, target=target, columns=columns, task=task, sample_weight=sample_weight)


def is_file_name(dataset: str) -> bool:
    """Return whether ``dataset`` looks like a path, existing or not, rather than a name."""
    return dataset.lower().removesuffix(".gz").endswith(SUFFIXES) or os.sep in dataset


def _check_arguments(
    dataset: str,
    data_dir: str | os.PathLike[str] | None,
    target: str | None,
    task: str,
    sample_weight: str | None,
) -> None:
    """Check that the folder exists and that the arguments fit the data set."""
    if data_dir is not None:
        try:
            is_folder, why = Path(data_dir).is_dir(), ""
        except OSError as error:  # the name is too long, or a parent folder cannot be read
            is_folder, why = False, f": {error.strerror}"
        if not is_folder:
            raise DataError(
                f"data_dir must be an existing folder, got {os.fspath(data_dir)!r}{why}"
            )
    check_task(task)
    if target is not None and not dataset.lower().endswith(".csv"):
        raise DataError(
            f"target is only for .csv files, which have named columns; got {target!r} for {dataset}"
        )
    if sample_weight is not None and not dataset.lower().endswith(WEIGHTED):
        raise DataError(
            f"sample_weight is only for {', '.join(WEIGHTED)} files; got {sample_weight!r} for "
            f"{dataset}"
        )
    if dataset in NAMES and (dataset in _REGRESSION) != (task == "regression"):
        held = "regression" if dataset in _REGRESSION else "classification"
        loss = "mean_squared_error" if dataset in _REGRESSION else "softmax_cross_entropy"
        raise DataError(
            f"{dataset} is a {held} data set, got task {task!r}: use a loss for {held}, such as "
            f"{loss!r}"
        )


def _digits(data_dir: Path | None) -> Contents:
    del data_dir  # the images come with scikit-learn
    from sklearn.datasets import load_digits

    found = load_digits()
    return Contents({"train": Part(found.images, found.target)}, tuple(map(str, range(10))))


_CATS_URL = "https://github.com/uditgt/DeepLearning/raw/HEAD/data/"
_CATS = {
    "train": PublishedFile(
        _CATS_URL + "train_catvnoncat.h5",
        "fbe56ab67c3ae28d564e3a644189117976d6b31af0a3ce9bb17dbf22908af242",
        2_572_022,
    ),
    "test": PublishedFile(
        _CATS_URL + "test_catvnoncat.h5",
        "6a9d39ce52fa85953c5834695b8534a30ed8cfd54971fb2f080b5a24d002b951",
        616_958,
    ),
}


def _cats(data_dir: Path | None) -> Contents:
    parts = {}
    for key, file in _CATS.items():
        path = locate(file, dataset="cats", data_dir=data_dir)
        part = read_file(path).parts.get(key)
        if part is None or part.X.shape[1:] != (64, 64, 3) or part.X.dtype != np.uint8:
            came = "none" if part is None else f"{part.X.dtype} {part.X.shape}"
            raise DataError(f"{path}: {key}_set_x must be uint8 images (n, 64, 64, 3), got {came}")
        if part.y is None or not np.isin(part.y, (0, 1)).all():
            raise DataError(f"{path}: {key}_set_y must hold a label 0 or 1 for each image")
        parts[key] = part
    return Contents(parts, ("non-cat", "cat"))


_FASHION_URL = "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/"
_FASHION = {
    ("train", "images"): PublishedFile(
        _FASHION_URL + "train-images-idx3-ubyte.gz",
        "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
        26_421_880,
    ),
    ("train", "labels"): PublishedFile(
        _FASHION_URL + "train-labels-idx1-ubyte.gz",
        "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
        29_515,
    ),
    ("test", "images"): PublishedFile(
        _FASHION_URL + "t10k-images-idx3-ubyte.gz",
        "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
        4_422_102,
    ),
    ("test", "labels"): PublishedFile(
        _FASHION_URL + "t10k-labels-idx1-ubyte.gz",
        "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
        5_148,
    ),
}
_FASHION_CLASSES = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)


def _fashion_mnist(data_dir: Path | None) -> Contents:
    paths = {
        key: locate(file, dataset="fashion-mnist", data_dir=data_dir)
        for key, file in _FASHION.items()
    }
    parts = {}
    for key in ("train", "test"):
        X, y = read_idx(paths[key, "images"]), read_idx(paths[key, "labels"])
        if X.shape[1:] != (28, 28) or X.dtype != np.uint8:
            raise DataError(
                f"{paths[key, 'images']} must hold uint8 images (n, 28, 28), got {X.dtype} "
                f"{X.shape}"
            )
        if y.shape != (len(X),) or not len(y) or y.min() < 0 or y.max() > 9:
            raise DataError(
                f"{paths[key, 'labels']} must hold a label 0 to 9 for each of {len(X)} images"
            )
        parts[key] = Part(X, y.astype(np.int64))
    return Contents(parts, _FASHION_CLASSES)


def _diabetes(data_dir: Path | None) -> Contents:
    del data_dir  # the patients come with scikit-learn
    from sklearn.datasets import load_diabetes

    found = load_diabetes(scaled=False)
    part = Part(found.data, found.target.astype(np.float64))
    return Contents({"train": part}, feature_names=tuple(found.feature_names))


_PUBLISHED: dict[str, Callable[[Path | None], Contents]] = {
    "digits": _digits,
    "cats": _cats,
    "fashion-mnist": _fashion_mnist,
    "diabetes": _diabetes,
}
_REGRESSION = ("diabetes",)  # all others are for classification


def _flower(
    n_samples: int, noise: float, seed: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Draw the rose ``r = 4 sin(4 t)``: one class on each half turn, four petals for each.

    Noise is added to angle and radius, drawn in this order, class by class, from ``RandomState``.
    With seed 1, 400 points are those of Andrew Ng's Deep Learning Specialization.
    """
    state = np.random.RandomState(seed)
    half_turn = 3.12  # slightly less than pi, as in the course
    points, labels = [], []
    for label, n in enumerate((n_samples - n_samples // 2, n_samples // 2)):
        t = np.linspace(label * half_turn, (label + 1) * half_turn, n)
        t += noise * state.standard_normal(n)
        r = 4 * np.sin(4 * t) + noise * state.standard_normal(n)
        points.append(np.stack([r * np.sin(t), r * np.cos(t)], axis=1))
        labels.append(np.full(n, label))
    return np.concatenate(points), np.concatenate(labels)


def _generate(name: str, n_samples: int, noise: float, seed: int) -> Contents:
    from sklearn import datasets

    with np.errstate(over="ignore", invalid="ignore"):
        if name == "moons":
            X, y = datasets.make_moons(n_samples, noise=noise, random_state=seed)
        elif name == "circles":
            X, y = datasets.make_circles(n_samples, noise=noise, random_state=seed)
        elif name == "blobs":
            X, y = datasets.make_blobs(n_samples, centers=3, cluster_std=noise, random_state=seed)
        else:
            X, y = _flower(n_samples, noise, seed)
    if not np.isfinite(X).all():
        raise DataError(f"{name}: features must be finite, got overflow with noise {noise:g}")
    return Contents({"train": Part(X, y.astype(np.int64))}, feature_names=("x", "y"))


# The generated data sets, and the default of their noise.
GENERATED = {"moons": 0.2, "circles": 0.05, "blobs": 1.0, "flower": 0.2}
NAMES = (*_PUBLISHED, *GENERATED)
WEIGHTED = (".csv", ".npz", ".h5", ".hdf5")  # files that may contain sample weights
