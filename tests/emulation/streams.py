"""What the tests of streams and graphs share: work on an array, on a stream."""

from __future__ import annotations

from tests.emulation.module import cupy

CUDARuntimeError = cupy.cuda.runtime.CUDARuntimeError
NO_WAIT = "nothing makes it wait"


def zeros():
    """Memory that all streams may use."""
    x = cupy.zeros(3, "float32")
    cupy.cuda.Device().synchronize()
    return x


def add(stream, x, value=1):
    with stream:
        x += value


def read(stream, x):
    with stream:
        return x.tolist()
