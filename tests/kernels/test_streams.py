"""Whose memory operations use."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import pytest

from xpnet.kernels.streams import is_recorded, launched_on, owner_of_memory

pytestmark = pytest.mark.host

CUPY: Any = SimpleNamespace(cuda=SimpleNamespace(get_current_stream=lambda: SimpleNamespace(ptr=5)))


def test_the_current_stream_unless_something_is_said():
    assert owner_of_memory(CUPY) == 5
    assert not is_recorded()
    with launched_on(7):
        assert owner_of_memory(CUPY) == 7
        assert is_recorded()
        with launched_on(9):
            assert owner_of_memory(CUPY) == 9
        assert owner_of_memory(CUPY) == 7
    assert owner_of_memory(CUPY) == 5
    assert not is_recorded()


def test_an_error_ends_it():
    with pytest.raises(ZeroDivisionError), launched_on(7):
        raise ZeroDivisionError
    assert owner_of_memory(CUPY) == 5


def test_other_threads_are_not_concerned():
    found = []
    with launched_on(7):
        thread = threading.Thread(target=lambda: found.append(owner_of_memory(CUPY)))
        thread.start()
        thread.join()
    assert found == [5]
