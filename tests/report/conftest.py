"""A fixture that the tests of pictures share."""

from __future__ import annotations

import pytest

from xpnet.report.figures import style


@pytest.fixture
def styled():
    with style():
        yield
