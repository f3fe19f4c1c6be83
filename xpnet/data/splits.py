"""Splits the contents of a file into training, validation and test samples."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from xpnet.data.checks import (
    ContentError,
    check_form,
    check_labels,
    check_targets,
    check_weights,
    is_real_number,
    listed,
    unknown_name,
)
from xpnet.data.dataset import TASKS, Contents, DataError, Dataset, Part
from xpnet.random import check_seed

__all__ = ["check_task", "make_dataset"]


def make_dataset(
    name: str,
    contents: Contents,
    *,
    test_fraction: float = 0.2,
    validation_fraction: float = 0.0,
    seed: int = 0,
    task: str = "classification",
) -> Dataset:
    """Split contents into training, validation and test samples, with classes counted from 0.

    Splits are random, and stratified in classification: each class keeps its share, to the sample.
    Parts that are in ``contents`` are used as they are. Without a split, nothing is copied.

    Parameters
    ----------
    name : str
    contents : Contents
        Contents with a part ``"train"``. Every part needs labels. Only the sample weights of
        ``"train"`` are used.
    test_fraction : float
        Fraction of the training samples to hold out if there is no part ``"test"``, in (0, 1).
    validation_fraction : float
        Fraction of the remaining training samples to hold out if there is no part
        ``"validation"``, in [0, 1).
    seed : int
        Seed of the splits.
    task : {"classification", "regression"}
        Whether labels are classes or regression targets. Class names are ignored in regression.

    Returns
    -------
    Dataset

    Raises
    ------
    ValueError
        If an argument is out of range.
    DataError
        If labels or the training part are missing, if a part has an unknown name, if samples,
        labels or names do not have the form that :class:`Part` and :class:`Contents` describe, if
        the parts do not fit each other, if there are fewer than two classes, or if there are too
        few samples, in total or of a class, to split.

    Notes
    -----
    Samples are not checked for finite values here, because memory-mapped arrays would have to be
    read. :class:`Preprocessing` checks them.
    """
    if not is_real_number(test_fraction) or not 0 < test_fraction < 1:
        raise ValueError(f"test_fraction must lie in (0, 1), got {test_fraction!r}")
    if not is_real_number(validation_fraction) or not 0 <= validation_fraction < 1:
        raise ValueError(f"validation_fraction must lie in [0, 1), got {validation_fraction!r}")
    check_seed(seed, bits=32)
    check_task(task)
    if unknown := [key for key in contents.parts if key not in _PARTS]:
        raise DataError(f"{name}: {unknown_name('part', unknown[0], _PARTS)}")
    if "train" not in contents.parts:
        held = ", ".join(sorted(contents.parts)) or "nothing"
        raise DataError(f"{name} holds no training samples, only {held}")
    parts = {key: _check_part(name, key, part, task) for key, part in contents.parts.items()}
    for part_name, part in parts.items():
        if part.X.shape[1:] != parts["train"].X.shape[1:]:
            raise DataError(
                f"{name}: {part_name} samples must have the shape of the training samples, "
                f"{parts['train'].X.shape[1:]}, got {part.X.shape[1:]}"
            )
    n_features = math.prod(parts["train"].X.shape[1:])
    feature_names = _check_names(name, "feature_names", contents.feature_names, n_features)
    class_names: tuple[str, ...] = ()
    if task == "regression":
        labels = _check_columns(name, parts)
    else:
        named = _check_names(name, "class_names", contents.class_names)
        class_names, labels = _count_classes(name, parts, named)
    weights = parts["train"].sample_weight
    image_shape = parts["train"].X.shape[1:]
    if image_shape[2:] == (1,):  # drop the axis of a single channel
        image_shape = image_shape[:2]
    X = {key: part.X.reshape(len(part.X), -1) for key, part in parts.items()}
    for key, fraction in (("test", test_fraction), ("validation", validation_fraction)):
        if key not in X and fraction:
            kept, held_out = _split(name, key, labels["train"], class_names, fraction, seed)
            X[key], X["train"] = X["train"][held_out], X["train"][kept]
            labels[key], labels["train"] = labels["train"][held_out], labels["train"][kept]
            weights = None if weights is None else weights[kept]
    return Dataset(
        name,
        X["train"],
        labels["train"],
        X["test"],
        labels["test"],
        class_names,
        X.get("validation"),
        labels.get("validation"),
        image_shape if len(image_shape) > 1 else None,
        feature_names,
        weights,
    )


def check_task(task: str) -> None:
    """Raise if ``task`` is neither classification nor regression."""
    if task not in TASKS:
        raise ValueError(f"task must be {' or '.join(map(repr, TASKS))}, got {task!r}")


_PARTS = ("train", "validation", "test")


def _check_names(
    name: str, which: str, names: Iterable[str] | None, n: int | None = None
) -> tuple[str, ...] | None:
    """Return names as a tuple of ``n`` distinct strings."""
    if names is None:
        return None
    found = (names,) if isinstance(names, str) else tuple(names)
    is_good = all(isinstance(item, str) and item for item in found)
    if not is_good or len(set(found)) < len(found) or n not in (None, len(found)):
        many = "" if n is None else f"{n:,} "
        raise DataError(f"{name}: {which} must be {many}different strings, got {found!r:.200}")
    return tuple(map(str, found))  # NumPy's strings are a subclass of str


def _check_part(name: str, key: str, part: Part, task: str) -> Part:
    """Return the part with checked labels and weights."""
    which = "training" if key == "train" else key
    if part.y is None:
        raise DataError(f"{name} holds no labels for its {which} samples")
    for what, array in (("samples", part.X), ("labels", part.y), ("weights", part.sample_weight)):
        if not isinstance(array, np.ndarray) and (what, array) != ("weights", None):
            raise DataError(
                f"{name}: {which} {what} must be a NumPy array, got {type(array).__name__}"
            )
    try:
        check_form(f"{which} samples", part.X)
        check, weights = check_targets if task == "regression" else check_labels, part.sample_weight
        y = check(f"{which} labels", part.y, len(part.X))
        if weights is not None:
            weights = check_weights(f"{which} weights", weights, len(part.X))
        return Part(part.X, y, weights)
    except ContentError as error:
        raise DataError(f"{name}: {error}") from error


def _count_classes(
    name: str, parts: dict[str, Part], class_names: tuple[str, ...] | None
) -> tuple[tuple[str, ...], dict[str, npt.NDArray[np.int64]]]:
    """Turn labels into classes 0, 1, ..., in the order of ``class_names`` or else sorted."""
    found = {key: np.asarray(part.y) for key, part in parts.items()}
    known: npt.NDArray[Any] = np.unique(found["train"])
    if len(known) < 2:
        raise DataError(
            f"{name} must hold at least two classes, got only the label {str(known[0])!r}"
        )
    if class_names is not None:
        is_text = known.dtype.kind == "U"
        known = np.asarray(class_names) if is_text else np.arange(len(class_names))
    order = np.argsort(known)
    labels = {}
    for key, y in found.items():
        if (y.dtype.kind == "U") != (found["train"].dtype.kind == "U"):
            raise DataError(
                f"{name}: labels must be numbers in all parts or strings in all parts, got "
                f"{found['train'].dtype} for training and {y.dtype} for {key}"
            )
        unknown = np.setdiff1d(y, known)
        if len(unknown):
            raise DataError(
                f"{name}: {key} labels hold {str(unknown[0])!r}, which is not one of the "
                f"{len(known)} classes {listed(repr(str(label)[:38]) for label in known)}"
            )
        labels[key] = order[np.searchsorted(known, y, sorter=order)].astype(np.int64)
    return class_names or tuple(str(label) for label in known), labels


def _check_columns(name: str, parts: dict[str, Part]) -> dict[str, npt.NDArray[Any]]:
    """Return the regression targets; all parts have the same number of columns."""
    targets = {key: np.asarray(part.y) for key, part in parts.items()}
    for key, y in targets.items():
        if y.shape[1:] != targets["train"].shape[1:]:
            raise DataError(
                f"{name}: {key} targets must have as many columns as the training targets, whose "
                f"shape is {targets['train'].shape}, got {y.shape}"
            )
    return targets


def _split(
    name: str,
    key: str,
    y: npt.NDArray[Any],
    class_names: tuple[str, ...],
    fraction: float,
    seed: int,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the indices to keep and the indices to hold out."""
    n_held_out = math.ceil(fraction * len(y))
    counts = np.bincount(y, minlength=len(class_names)) if class_names else None
    if counts is not None:
        if counts[counts > 0].min() < 2:
            lonely = class_names[int(np.flatnonzero(counts == 1)[0])]
            raise DataError(
                f"{name}: class {lonely!r} must have at least two samples to hold one out for "
                f"{key}, got one"
            )
        n_classes = int((counts > 0).sum())
        if min(n_held_out, len(y) - n_held_out) < n_classes:
            raise DataError(
                f"{name}: cannot hold out {fraction:g} of {len(y)} samples for {key}: both parts "
                f"need a sample of each of the {n_classes} classes"
            )
    elif n_held_out >= len(y):
        raise DataError(
            f"{name}: cannot hold out {fraction:g} of {len(y)} samples for {key}: no sample would "
            "be left for training"
        )
    from sklearn.model_selection import train_test_split

    stratify = None if counts is None else y
    kept, held_out = train_test_split(
        np.arange(len(y)), test_size=n_held_out, stratify=stratify, random_state=seed
    )
    if counts is not None:
        lost = (counts > 0) & (np.bincount(y[kept], minlength=len(class_names)) == 0)
        if lost.any():
            raise DataError(
                f"{name}: cannot hold out {fraction:g} of the samples for {key}: none of class "
                f"{class_names[int(np.argmax(lost))]!r} would be left for training"
            )
    return kept, held_out
