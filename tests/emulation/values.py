"""What the tests of arrays share: arrays, and a comparison with NumPy's."""

from __future__ import annotations

import numpy as np

from tests.emulation.module import cupy

HOST = np.arange(6, dtype=np.float32).reshape(2, 3)


def array(values=HOST, dtype=None):
    return cupy.array(values, dtype)


def one(value=1.5, dtype="float32"):
    return cupy.full((), value, dtype)


def same(found, expected):
    assert isinstance(found, cupy.ndarray)
    assert found.dtype == expected.dtype
    assert found.shape == np.shape(expected)
    np.testing.assert_array_equal(found.get(), expected)
