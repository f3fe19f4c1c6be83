"""Every operation, on every implementation of it, against the reference in float64.

One test for each row of the catalogue, dtype, class of values and implementation; each goes through
all classes of shapes. How near is near is said, row by row, in ``TOLERANCE`` of
:mod:`tests.kernels.cases`.
"""

from __future__ import annotations

import numpy as np
import pytest

import xpnet
from tests.devices import chosen
from tests.emulation import kernels
from tests.kernels.cases import (
    ROWS,
    SHAPES,
    VALUES,
    assert_near,
    call_on,
    case,
    exact,
    flushed,
    is_defined,
    tolerance,
)
from xpnet.kernels import host

DTYPES = ["float32", "float64"]
IMPLEMENTATIONS = [
    "reference",  # array expressions, on the device under test
    pytest.param("host", marks=pytest.mark.host),
    pytest.param("emulated", marks=pytest.mark.emulated),
    pytest.param("cuda", marks=pytest.mark.gpu),
]


@pytest.fixture(params=IMPLEMENTATIONS)
def device(request) -> xpnet.Device:
    if request.param == "host" and host.problem() is not None:
        pytest.skip(f"the host kernels are {host.problem()}")
    kernels = "reference" if request.param == "reference" else "fused"
    return xpnet.device(xpnet.device().name, kernels)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("values", VALUES)
@pytest.mark.parametrize("name", ROWS)
def test_an_operation(device, name, values, dtype):
    for shape in SHAPES.values():
        if not is_defined(name, shape):
            continue
        for optional in (True, False):
            arguments = case(name, shape, values, dtype, optional=optional, shared=optional)
            try:
                written = call_on(device, getattr(device.ops, name), ROWS[name], arguments)
                assert_near(name, written, arguments, np.dtype(dtype))
            except AssertionError as error:
                with_optional = "with" if optional else "without"
                raise AssertionError(
                    f"{shape}, {with_optional} optional operands: {error}"
                ) from error


TINY = float(np.finfo(np.float32).tiny)
# A product on the way, learning_rate grad or m, that becomes zero would have been divided by eps;
# a deviation from the mean, by its root.
MAGNIFIED = {
    ("rmsprop_update", "param"): 1 / 1e-8,
    ("adam_update", "param"): 1 / 1e-8,
    ("layer_norm", "normalized"): 1 / 1e-4,
    ("layer_norm", "out"): 10 / 1e-4,  # times gamma
}


# Parts of a mean are not all so small: they sum to 1.
@pytest.mark.parametrize("name", [name for name in ROWS if name != "variance_correction"])
def test_subnormal_numbers(device, name, request, monkeypatch):
    """In float32 they may be zero: where they are read, on the way, and where they are written."""
    arguments = case(name, (7, 13), dtype="float32")
    for operand in ROWS[name].operands:
        if operand.type == "T" and operand.layout == "each" and operand.name in arguments:
            arguments[operand.name] *= np.float32(2.0**-128)
    kept = exact(name, arguments)
    as_zero = exact(name, {key: flushed(value) for key, value in arguments.items()})
    # The emulated device does it either way, a GPU takes them for zero.
    is_emulated = request.config.stash[chosen] == "emulated"
    for flushes in (False, True) if is_emulated else (False,):
        monkeypatch.setattr(kernels.library, "flushes", flushes)
        written = call_on(device, getattr(device.ops, name), ROWS[name], arguments)
        for key, found in written.items():
            if found.dtype.kind != "f":
                continue
            relative = 8 * np.finfo(np.float32).eps * max(tolerance(name, key), 1)
            nearest = np.minimum(np.abs(found - kept[key]), np.abs(found - as_zero[key]))
            n_flushed = len(ROWS[name].operands) * 13  # at most so many terms of a sum
            absolute = n_flushed * TINY * MAGNIFIED.get((name, key), 1)
            assert (nearest <= relative * np.abs(kept[key]) + absolute).all(), (key, flushes)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_gradient_of_a_single_normalised_feature_is_rounding(device, dtype):
    arguments = case("layer_norm_grad", (101, 1), "ordinary", dtype)
    arguments["normalized"][...] = 0
    written = call_on(device, device.ops.layer_norm_grad, ROWS["layer_norm_grad"], arguments)
    size = np.abs(arguments["gamma"] * arguments["dA"] * arguments["inverse_std"][:, None])
    assert (np.abs(written["out"]) <= np.finfo(dtype).eps * size).all()
