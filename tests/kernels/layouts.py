"""What the tests of products by cuBLAS share: how matrices may lie in memory, and a comparison."""

from __future__ import annotations

from typing import Any

import numpy as np

DTYPES = ["float32", "float64"]
TOLERANCE = {"float32": 1e-6, "float64": 1e-14}
TF32_TOLERANCE = 2e-3


def draw(shape, dtype="float32", seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def framed(values, before, after, step=(1, 1)):
    """Put matrices among numbers that are none, every so many rows and columns."""
    rows, columns = (
        slice(first, first + n * by, by)
        for first, n, by in zip(before, values.shape[-2:], step, strict=True)
    )
    whole = np.full(
        (*values.shape[:-2], rows.stop + after[0], columns.stop + after[1]), np.nan, values.dtype
    )
    whole[..., rows, columns] = values
    return whole, (..., rows, columns)


def view(device, values, before, after, step=(1, 1)):
    whole, index = framed(values, before, after, step)
    return device.asarray(whole)[index]


# How a matrix may lie in memory: what cuBLAS reads as it is, and what must be copied.
READ = {
    "rows": lambda device, X: device.asarray(X),
    "columns": lambda device, X: device.asarray(X.swapaxes(-1, -2)).swapaxes(-1, -2),
    "rows apart": lambda device, X: view(device, X, (0, 0), (0, 5)),
    "inner columns": lambda device, X: view(device, X, (0, 2), (0, 1)),
    "inner rows": lambda device, X: view(device, X, (3, 0), (2, 0)),
    "every other row": lambda device, X: view(device, X, (1, 1), (0, 1), (2, 1)),
    "columns apart": lambda device, X: view(device, X.swapaxes(-1, -2), (0, 0), (1, 4)).swapaxes(
        -1, -2
    ),
    "every third column": lambda device, X: view(
        device, X.swapaxes(-1, -2), (0, 0), (0, 0), (3, 1)
    ).swapaxes(-1, -2),
}
COPIED = {
    "every other element": lambda device, X: view(device, X, (0, 0), (0, 0), (1, 2)),
    "every other of each": lambda device, X: view(device, X, (1, 0), (0, 1), (2, 2)),
    "upside down": lambda device, X: device.asarray(X[..., ::-1, :])[..., ::-1, :],
    "from right to left": lambda device, X: device.asarray(X[..., ::-1])[..., ::-1],
    "both backwards": lambda device, X: device.asarray(X[..., ::-1, ::-1])[..., ::-1, ::-1],
}
LAYOUTS: dict[str, Any] = {**READ, **COPIED}


def assert_product(found, A, B, tolerance=None):
    """Compare with NumPy's product in float64, by the norm."""
    exact = np.matmul(A.astype(np.float64), B.astype(np.float64))
    scale = np.matmul(np.abs(A).astype(np.float64), np.abs(B).astype(np.float64))
    assert found.dtype == A.dtype
    assert found.shape == exact.shape
    tolerance = TOLERANCE[found.dtype.name] if tolerance is None else tolerance
    assert np.linalg.norm(found - exact) <= tolerance * np.linalg.norm(scale)
