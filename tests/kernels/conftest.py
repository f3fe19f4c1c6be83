"""Fixtures of the tests of kernels: a CUDA device, and what records its graphs."""

from __future__ import annotations

import pytest

import xpnet
from tests import devices
from xpnet import graph


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
