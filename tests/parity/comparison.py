"""How two devices are compared: norm by norm, with the reference on the CPU in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

import xpnet

TOLERANCE = {"float64": 1e-10, "float32": 1e-5}


def host_reference() -> xpnet.Device:
    """Make the device that others are compared with."""
    return xpnet.device("cpu", "reference")


def error(found: npt.NDArray[Any], expected: npt.NDArray[Any]) -> float:
    """Compute ``|found - expected| / |expected|``."""
    assert found.shape == expected.shape
    assert np.isfinite(found).all()
    difference = np.linalg.norm(found.astype(np.float64) - expected)
    return float(difference / max(np.linalg.norm(expected), np.finfo(np.float64).tiny))


def assert_close(
    found: npt.NDArray[Any], expected: npt.NDArray[Any], dtype: str, what: str = "result"
) -> None:
    """Compare within the tolerance of a dtype."""
    assert found.dtype == dtype
    off = error(found, expected)
    assert off <= TOLERANCE[dtype], f"{what} is off by {off:.1e}, allowed is {TOLERANCE[dtype]:g}"
