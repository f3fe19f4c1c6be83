"""Every operation, on every implementation of it, against the reference in float64.

One test for each row of the catalogue, dtype, class of values and implementation; each goes through
all classes of shapes. How near is near is said, row by row, in ``TOLERANCE`` of
:mod:`tests.kernels.cases`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import xpnet
from tests.devices import chosen
from tests.emulation import kernels
from tests.kernels.cases import ROWS, SHAPES, VALUES, assert_near, call_on, case, exact, tolerance
from xpnet.kernels import host

DTYPES = ["float32", "float64"]
IMPLEMENTATIONS = [
    "reference",  # array expressions, on the device under test
    pytest.param("host", marks=pytest.mark.host),
    pytest.param("emulated", marks=pytest.mark.emulated),
    pytest.param("cuda", marks=pytest.mark.gpu),
]
REDUCED = ("mean", "softmax", "softmax_cross_entropy")  # the reference has no maximum of nothing


@pytest.fixture(params=IMPLEMENTATIONS)
def device(request) -> xpnet.Device:
    if request.param == "host" and host.problem() is not None:
        pytest.skip(f"the host kernels are {host.problem()}")
    kernels = "reference" if request.param == "reference" else "fused"
    return xpnet.device(xpnet.device().name, kernels)


def is_defined(name: str, shape: tuple[int, ...]) -> bool:
    return 0 not in shape or name not in REDUCED


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("values", VALUES)
@pytest.mark.parametrize("name", ROWS)
def test_an_operation(device, name, values, dtype):
    for shape in SHAPES.values():
        if not is_defined(name, shape):
            continue
        for optional in (True, False):
            arguments = case(name, shape, values, dtype, optional=optional, shared=optional)
            written = call_on(device, getattr(device.ops, name), ROWS[name], arguments)
            assert_near(name, written, arguments, np.dtype(dtype))


def flushed(array: Any) -> Any:
    """Take subnormal numbers for zero."""
    if not isinstance(array, np.ndarray) or array.dtype.kind != "f":
        return array
    return np.where(np.abs(array) < np.finfo(np.float32).tiny, array.dtype.type(0), array)


@pytest.fixture(params=[False, True], ids=["kept", "flushed"])
def _flushing(request, monkeypatch):
    """Take subnormal numbers for zero on the emulated device, as a GPU does."""
    if request.param and request.config.stash[chosen] != "emulated":
        pytest.skip("only the emulated device has a choice")
    monkeypatch.setattr(kernels.library, "flushes", request.param)


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.usefixtures("_flushing")
def test_subnormal_numbers(device, name):
    """In float32 they may be zero, where they are read and where they are written."""
    tiny = float(np.finfo(np.float32).tiny)
    arguments = case(name, (7, 13), dtype="float32")
    for operand in ROWS[name].operands:
        if operand.type == "T" and operand.layout == "each" and operand.name in arguments:
            arguments[operand.name] *= np.float32(2.0**-128)
    written = call_on(device, getattr(device.ops, name), ROWS[name], arguments)
    kept = exact(name, arguments)
    as_zero = exact(name, {key: flushed(value) for key, value in arguments.items()})
    for key, found in written.items():
        if found.dtype.kind != "f":
            continue
        relative = 8 * np.finfo(np.float32).eps * max(tolerance(name, key), 1)
        nearest = np.minimum(np.abs(found - kept[key]), np.abs(found - as_zero[key]))
        allowed = relative * np.abs(kept[key]) + len(ROWS[name].operands) * 13 * tiny
        assert (nearest <= allowed).all(), key
