"""Checks of features, labels, targets, weights and class names."""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Collection, Iterable
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

_LONGEST = 200  # characters of a label: an array gives every label the size of the longest


class ContentError(Exception):
    """Arrays are not as expected; the message does not name the file that holds them."""


def is_real_number(value: object) -> bool:
    """Return whether a value is a real number of Python or NumPy, and not a boolean."""
    return isinstance(value, Real) and not isinstance(value, bool)


def listed(names: Iterable[str]) -> str:
    """Join names with commas: at most twenty, each cut to 40 characters."""
    shown = [name[:40] for name in itertools.islice(names, 21)]
    return ", ".join(shown[:20]) + (", ..." if len(shown) > 20 else "")


def unknown_name(
    what: str, name: object, known: Collection[str], *, plural: str | None = None
) -> str:
    """Return the message for an unknown name: the nearest valid name, and all valid names."""
    near = difflib.get_close_matches(str(name), known, n=1, cutoff=0.65)
    hint = f"did you mean {near[0]!r}? Valid" if near else "valid"
    return f"unknown {what} {name!r:.200}; {hint} {plural or f'{what}s'}: {listed(known) or 'none'}"


def check_form(name: str, X: npt.NDArray[Any]) -> None:
    """Check the dtype and the shape of features, without reading their values."""
    if not _holds_numbers(X):
        raise ContentError(
            f"{name} must hold booleans, integers or floats of up to 64 bits, got dtype {X.dtype}"
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
        raise ContentError(
            f"{name} must hold at least one sample and one feature, got shape {X.shape}"
        )


def check_features(name: str, X: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return finite features in native byte order; single-channel images lose the channel axis."""
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
    """Return one label per sample, as int64 or strings; numbers must index ``class_names``."""
    y = _one_each(name, "label", y, n_samples)
    if y.dtype.kind in "OSUT":
        return np.array(texts(name, y))
    if not _holds_numbers(y):
        raise ContentError(f"{name} must hold whole numbers or strings, got dtype {y.dtype}")
    with np.errstate(invalid="ignore"):  # some NaN signal
        # From 2**53 on, floats skip integers; from 2**63 on, an int64 overflows.
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
    """Return finite regression targets: (n_samples,) for one target, else a column for each."""
    if y.ndim not in (1, 2) or len(y) != n_samples or 0 in y.shape:
        raise ContentError(
            f"{name} must hold a number, or a row of numbers, for each of {n_samples:,} samples, "
            f"got shape {y.shape}"
        )
    if not _holds_numbers(y) or y.dtype.kind == "b":
        raise ContentError(f"{name} must hold numeric regression targets, got dtype {y.dtype}")
    targets = np.ascontiguousarray(y[:, 0] if y.shape[1:] == (1,) else y, np.float64)
    if not (finite := np.isfinite(targets)).all():
        first = np.argwhere(~finite)[0]
        raise ContentError(
            f"{name} must hold finite numbers, got {targets[tuple(first)]} for sample {first[0]}"
        )
    return targets


def check_weights(name: str, weights: npt.NDArray[Any], n_samples: int) -> npt.NDArray[np.float64]:
    """Return one finite weight of at least 0 per sample."""
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
    """Return one value per sample, as one axis; accept a column or a row."""
    if array.shape not in ((n_samples,), (n_samples, 1), (1, n_samples)):
        raise ContentError(
            f"{name} must hold a {what} for each of {n_samples:,} samples, got shape {array.shape}"
        )
    return array.reshape(n_samples)


def check_class_names(name: str, array: npt.NDArray[Any]) -> tuple[str, ...]:
    """Return the class names, all distinct."""
    if array.dtype.kind in "iu" and np.array_equal(array, np.arange(array.size)):
        array = array.astype(str)  # 0, 1, 2, ..., as in scikit-learn's digits
    if array.dtype.kind not in "OSUT" or array.ndim != 1 or not array.size:
        raise ContentError(
            f"{name} must be a list of strings, got dtype {array.dtype} and shape {array.shape}"
        )
    names = tuple(texts(name, array))
    if len(set(names)) < len(names):
        raise ContentError(f"{name} must hold distinct names, got {listed(names)}")
    return names


def texts(name: str, array: npt.NDArray[Any]) -> list[str]:
    """Return the strings of an array, stripped; none may be missing or empty."""
    try:
        items = array.tolist()
    except (SystemError, ValueError) as error:  # a code point beyond U+10FFFF
        raise ContentError(f"{name} must hold valid Unicode strings, got {error}") from error
    for number, item in enumerate(items):
        if not isinstance(item, (str, bytes)):
            raise ContentError(f"{name} must hold strings, got {item!r:.40} at {number}")
    texts = [(item.decode("utf-8") if isinstance(item, bytes) else item).strip() for item in items]
    "".join(texts).encode("utf-8")  # raises on halves of surrogate pairs
    for number, text in enumerate(texts):
        if not 0 < len(text) <= _LONGEST:
            got = f"{len(text):,} characters" if text else "an empty string"
            raise ContentError(
                f"{name} must hold strings of 1 to {_LONGEST} characters, got {got} at {number}"
            )
    return texts
