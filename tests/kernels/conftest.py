"""Fixtures of the tests of kernels: on the host, and on a CUDA device."""

from __future__ import annotations

import pytest

import xpnet
from tests import devices
from tests.conftest import slow
from xpnet import graph
from xpnet.kernels import host

# The best instruction set that this machine has, and the others.
VARIANTS = [*host.variants()[:1], *map(slow, host.variants()[1:])]


@pytest.fixture(params=VARIANTS or ["none"])
def ops(request):
    """The operations in one of the instruction sets."""
    return host.fused(request.param)


@pytest.fixture(scope="module")
def device():
    return xpnet.device(xpnet.device().name, "fused")


@pytest.fixture
def is_emulated(pytestconfig):
    return pytestconfig.stash[devices.chosen] == "emulated"


@pytest.fixture
def recorder(device):
    made = graph.Recorder(device)
    yield made
    made.close()
