"""Checks of features, labels, targets, weights and class names."""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Iterable
from numbers import Real
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = [
    "ContentError",
    "check_class_names",
    "check_features",
    "check_form",
    "check_labels",
    "check_targets",
    "check_weights",
    "is_real_number",
    "listed",
    "texts",
    "unknown_name",
]

_LONGEST = 200  # characters of a label: an array gives each label the room of the longest


class ContentError(Exception):
    """What is wrong with arrays, said without the name of the file that holds them."""


def is_real_number(value: object) -> bool:
    """Tell whether an argument is a number, Python's or NumPy's, and no truth value."""
    return isinstance(value, Real) and not isinstance(value, bool)


def listed(names: Iterable[str]) -> str:
    """Write at most twenty names in a row, each of them shortened."""
    shown = [name[:40] for name in itertools.islice(names, 21)]
    return ", ".join(shown[:20]) + (", ..." if len(shown) > 20 else "")


def unknown_name(what: str, name: str, known: Iterable[str]) -> ContentError:
    """Say that there is no such column or array, and which ones there are."""
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return ContentError(f"has no {what} {name!r}; {hint}its {what}s are {listed(known)}")


def check_form(name: str, X: npt.NDArray[Any]) -> None:
    """Refuse features of another dtype or shape than samples have; values are not looked at."""
    if not _holds_numbers(X):
        raise ContentError(
            f"{name} must hold truth values, integers or floats of up to 64 bits, got dtype "
            f"{X.dtype}"
        )
    if X.ndim not in (2, 3, 4):
        raise ContentError(
            f"{name} must have shape (n_samples, n_features), or (n_samples, height, width) or "
            f"(n_samples, height, width, n_channels) for images, got {X.shape}"
        )
    if X.ndim == 4 and X.shape[3] not in (1, 3, 4):
        raise ContentError(
            f"{name}: images must be (n, height, width, channels) with 1, 3 or 4 channels, got "
            f"{X.shape}"
        )
    if 0 in X.shape:
        raise ContentError(f"{name} must hold a sample and a feature at least, got {X.shape}")


def check_features(name: str, X: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Give finite features in native byte order, images with a single channel without its axis."""
    check_form(name, X)
    if X.ndim == 4 and X.shape[3] == 1:
        X = X[..., 0]
    dtype = np.dtype(np.uint8) if X.dtype.kind == "b" else X.dtype.newbyteorder("=")
    X = np.ascontiguousarray(X, dtype)
    if dtype.kind == "f" and not (finite := np.isfinite(X)).all():
        first = np.unravel_index(int(np.argmin(finite)), X.shape)
        raise ContentError(
            f"{name} must be finite, got NaN or infinity {(~finite).sum():,} times, first at "
            f"{tuple(map(int, first))}"
        )
    return X


def check_labels(
    name: str, y: npt.NDArray[Any], n_samples: int, class_names: tuple[str, ...] | None = None
) -> npt.NDArray[Any]:
    """Give a label for each sample, as int64 or strings; numbers must count the names given."""
    y = _one_each(name, "label", y, n_samples)
    if y.dtype.kind in "OSUT":
        return np.array(texts(name, y))
    if not _holds_numbers(y):
        raise ContentError(f"{name} must hold whole numbers or strings, got dtype {y.dtype}")
    with np.errstate(invalid="ignore"):  # some NaN signal
        # Beyond 2**53 a float does not tell neighbours apart; beyond 2**63 an int64 has no room.
        limit = 2.0**53 if y.dtype.kind == "f" else 2.0**63
        fits = (y == np.floor(y)) & (np.abs(y.astype(np.float64)) < limit)
    if not fits.all():
        first = int(np.argmin(fits))
        raise ContentError(f"{name} must hold whole numbers, got {y[first]} for sample {first}")
    y = y.astype(np.int64)
    if class_names is not None and not (y.min() >= 0 and y.max() < len(class_names)):
        raise ContentError(
            f"{name}: labels out of range: expected 0 to {len(class_names) - 1}, as there are "
            f"{len(class_names)} class names, got {y.min()} to {y.max()}"
        )
    return y


def check_targets(name: str, y: npt.NDArray[Any], n_samples: int) -> npt.NDArray[np.float64]:
    """Give finite numbers to be predicted, (n_samples,) for one of them, else a column for each."""
    if y.ndim not in (1, 2) or len(y) != n_samples or 0 in y.shape:
        raise ContentError(
            f"{name} must hold a number, or a row of them, for each of {n_samples:,} samples, got "
            f"shape {y.shape}"
        )
    if not _holds_numbers(y) or y.dtype.kind == "b":
        raise ContentError(f"{name} must hold numbers to be predicted, got dtype {y.dtype}")
    targets = np.ascontiguousarray(y[:, 0] if y.shape[1:] == (1,) else y, np.float64)
    if not (finite := np.isfinite(targets)).all():
        first = np.argwhere(~finite)[0]
        raise ContentError(
            f"{name} must hold finite numbers, got {targets[tuple(first)]} for sample {first[0]}"
        )
    return targets


def check_weights(name: str, weights: npt.NDArray[Any], n_samples: int) -> npt.NDArray[np.float64]:
    """Give a finite weight of at least 0 for each sample."""
    weights = _one_each(name, "weight", weights, n_samples)
    if not _holds_numbers(weights):
        raise ContentError(f"{name} must hold numbers, got dtype {weights.dtype}")
    weights = np.ascontiguousarray(weights, np.float64)
    if not (fits := np.isfinite(weights) & (weights >= 0)).all():
        first = int(np.argmin(fits))
        raise ContentError(
            f"{name} must hold finite weights of at least 0, got {weights[first]} for sample "
            f"{first}"
        )
    return weights


def _holds_numbers(array: npt.NDArray[Any]) -> bool:
    return array.dtype.kind in "biuf" and array.dtype.itemsize <= 8


def _one_each(name: str, what: str, array: npt.NDArray[Any], n_samples: int) -> npt.NDArray[Any]:
    """Give a value for each sample as one axis; it may come as a column or a row."""
    if array.shape not in ((n_samples,), (n_samples, 1), (1, n_samples)):
        raise ContentError(
            f"{name} must hold a {what} for each of {n_samples:,} samples, got shape {array.shape}"
        )
    return array.reshape(n_samples)


def check_class_names(name: str, array: npt.NDArray[Any]) -> tuple[str, ...]:
    """Give names that differ."""
    if array.dtype.kind in "iu" and np.array_equal(array, np.arange(array.size)):
        array = array.astype(str)  # the classes' own numbers, as scikit-learn's digits have them
    if array.dtype.kind not in "OSUT" or array.ndim != 1 or not array.size:
        raise ContentError(
            f"{name} must be a list of strings, got dtype {array.dtype} and shape {array.shape}"
        )
    names = tuple(texts(name, array))
    if len(set(names)) < len(names):
        raise ContentError(f"{name} must hold names that differ, got {listed(names)}")
    return names


def texts(name: str, array: npt.NDArray[Any]) -> list[str]:
    """Give strings, stripped; none may be missing."""
    try:
        items = array.tolist()
    except (SystemError, ValueError) as error:  # of code points beyond the last
        raise ContentError(f"{name} must hold strings of Unicode, got {error}") from error
    for number, item in enumerate(items):
        if not isinstance(item, (str, bytes)):
            raise ContentError(f"{name} must hold strings, got {item!r:.40} at {number}")
    texts = [(item.decode("utf-8") if isinstance(item, bytes) else item).strip() for item in items]
    "".join(texts).encode("utf-8")  # raises where a code point is none
    for number, text in enumerate(texts):
        if not 0 < len(text) <= _LONGEST:
            got = f"{len(text):,} characters" if text else "an empty string"
            raise ContentError(
                f"{name} must hold strings of 1 to {_LONGEST} characters, got {got} at {number}"
            )
    return texts
