"""Every operation, on every implementation of it, against the reference in float64.

The compiled loops of the host are compared in :mod:`tests.kernels.test_host`. How near is near is
said, row by row, in ``TOLERANCE`` of :mod:`tests.kernels.cases`.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import xpnet
from tests.devices import chosen
from tests.emulation import kernels
from tests.kernels.cases import (
    ROWS,
    SWEEPS,
    Expected,
    call_on,
    case,
    exact,
    flushed,
    sweep,
    tolerance,
)
from xpnet.kernels.catalogue import Elementwise

DTYPES = ["float32", "float64"]


@pytest.fixture(scope="module")
def implementations() -> dict[str, xpnet.Device]:
    """Array expressions on the device under test, and on CUDA its kernels."""
    own = xpnet.device()
    kinds = ["reference"] if own.index is None else ["reference", "fused"]
    return {kind: xpnet.device(own.name, kind) for kind in kinds}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("name", "which"), SWEEPS)
def test_an_operation(implementations, name, which, dtype):
    for values, shape, optional in sweep(name, which):
        arguments = case(name, shape, values, dtype, optional=optional, shared=optional)
        expected = Expected(name, arguments, dtype)
        for kind, device in implementations.items():
            try:
                expected.assert_near(
                    call_on(device, getattr(device.ops, name), ROWS[name], arguments)
                )
            except AssertionError as error:
                with_optional = "with" if optional else "without"
                raise AssertionError(
                    f"{kind}, {values}, {shape}, {with_optional} optional operands: {error}"
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
def test_subnormal_numbers(implementations, name, request, monkeypatch):
    """In float32 they may be zero: where they are read, on the way, and where they are written.

    Where an operation is continuous, that makes next to no difference. Where it is not, as a sign
    is not, each element must be what comes of some of the operands, the others being zero.
    """
    arguments = case(name, (7, 13), dtype="float32")
    small = [
        operand.name
        for operand in ROWS[name].operands
        if operand.type == "T" and operand.layout == "each" and operand.name in arguments
    ]
    for operand in small:
        arguments[operand] *= np.float32(2.0**-128)
    kept = exact(name, arguments)
    possible = [exact(name, {key: flushed(value) for key, value in arguments.items()}), kept]
    n_zero = range(1, len(small) + 1) if isinstance(ROWS[name], Elementwise) else ()
    for zeros in itertools.chain(*(itertools.combinations(small, n) for n in n_zero)):
        as_zero = {operand: 0 * arguments[operand] for operand in zeros}
        possible.append(exact(name, {**arguments, **as_zero}))
    # The emulated device does it either way, a GPU and the host's loops take them for zero.
    is_emulated = request.config.stash[chosen] == "emulated"
    devices = {**implementations, "fused": xpnet.device()}
    for flushes in (False, True) if is_emulated else (False,):
        monkeypatch.setattr(kernels.library, "flushes", flushes)
        for kind, device in devices.items():
            written = call_on(device, getattr(device.ops, name), ROWS[name], arguments)
            for key, found in written.items():
                if found.dtype.kind != "f":
                    continue
                relative = 8 * np.finfo(np.float32).eps * max(tolerance(name, key), 1)
                nearest = np.fmin.reduce([np.abs(found - one[key]) for one in possible])
                n_flushed = len(ROWS[name].operands) * 13  # at most so many terms of a sum
                absolute = n_flushed * TINY * MAGNIFIED.get((name, key), 1)
                is_near = nearest <= relative * np.abs(kept[key]) + absolute
                assert is_near.all(), (kind, key, flushes)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_gradient_of_a_single_normalised_feature_is_rounding(implementations, dtype):
    arguments = case("layer_norm_grad", (101, 1), "ordinary", dtype)
    arguments["normalized"][...] = 0
    size = np.abs(arguments["gamma"] * arguments["dA"] * arguments["inverse_std"][:, None])
    for device in (*implementations.values(), xpnet.device()):
        operation = device.ops.layer_norm_grad
        written = call_on(device, operation, ROWS["layer_norm_grad"], arguments)
        assert (np.abs(written["out"]) <= np.finfo(dtype).eps * size).all()
