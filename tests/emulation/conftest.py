"""Fixtures of the tests of the stand-in."""

from __future__ import annotations

import pytest

from tests.emulation import execution
from tests.emulation.module import cupy


@pytest.fixture
def clean():
    """Leave neither a capture nor a stream that was chosen for the next test."""
    yield
    assert execution.reset() is None


@pytest.fixture
def streams():
    return [cupy.cuda.Stream(non_blocking=True) for _ in range(3)]
