"""The yardstick itself: what the comparisons of operations must not let pass."""

from __future__ import annotations

import numpy as np
import pytest

from tests.kernels.cases import ROWS, assert_near, call, case
from xpnet.kernels.reference import NumpyOps

pytestmark = pytest.mark.host

WITH_A_BIAS = [name for name, row in ROWS.items() if any(o.name == "db" for o in row.operands)]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("values", ["ordinary", "large", "zeros"])
@pytest.mark.parametrize("name", WITH_A_BIAS)
def test_a_wrong_bias_gradient_is_told(name, values, dtype):
    arguments = case(name, (64, 33), values, dtype)
    written = call(getattr(NumpyOps(np), name), ROWS[name], arguments)
    assert_near(name, written, arguments, np.dtype(dtype))
    for db in (
        np.zeros_like(written["db"]),
        -written["db"],
        arguments["dA"].sum(axis=-2),
        written["db"] + 1e-2 * np.abs(written["out"]).max(axis=-2),
    ):
        with pytest.raises(AssertionError, match="db is off"):
            assert_near(name, {**written, "db": db}, arguments, np.dtype(dtype))


@pytest.mark.parametrize("values", ["ordinary", "large", "zeros"])
@pytest.mark.parametrize("name", WITH_A_BIAS)
def test_a_wrong_gradient_is_told(name, values):
    arguments = case(name, (64, 33), values)
    written = call(getattr(NumpyOps(np), name), ROWS[name], arguments)
    for out in (arguments["dA"], written["out"] * np.float32(1.0001), -written["out"]):
        with pytest.raises(AssertionError, match="out is off"):
            assert_near(name, {**written, "out": out}, arguments, np.dtype("float32"))
