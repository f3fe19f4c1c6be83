"""Large arrays of an active device lie in large pages, where the system has them."""

from __future__ import annotations

import importlib
import os
from typing import Any

import numpy as np
import pytest

import xpnet
from xpnet.kernels import host

pytestmark = [pytest.mark.host]
if os.environ.get("CI") != "true":
    reason = "there are no host kernels, or NumPy's BLAS is not OpenBLAS"
    pytestmark += [pytest.mark.skipif(not host.shared(), reason=reason)]


def test_arrays_in_large_pages():
    """Inside an active device, and again as before when it is left, by an error too."""
    multiarray: Any = importlib.import_module("numpy._core.multiarray")
    name = multiarray.get_handler_name
    device, before = xpnet.device("cpu", "fused"), name()
    assert before == "default_allocator"  # whatever the tests before have activated
    with device.activate():
        dirty = np.empty(6 << 20, np.uint8)
        dirty.fill(255)
        if name() != before:  # where the system has large pages
            assert name(dirty) == "xpnet_large_pages"
            assert dirty.ctypes.data % (2 << 20) == 0
        del dirty
        assert not np.zeros(6 << 20, np.uint8).any()  # of memory that has been used
        grown = np.ones(3 << 20, np.uint8)
        grown.resize(9 << 20, refcheck=False)
        assert grown[: 3 << 20].all()
        assert not grown[3 << 20 :].any()
    assert name() == before
    with pytest.raises(KeyError), device.activate():
        raise KeyError
    assert name() == before
    with xpnet.device("cpu", "reference").activate():
        assert name() == before
