"""Fixtures for all tests.

Which device they run on is decided in :mod:`tests.devices`.
"""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import xpnet
from tests import devices

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

with contextlib.suppress(ImportError):  # then there are no tests with it
    import hypothesis

    hypothesis.settings.register_profile("xpnet", deadline=None)  # machines are shared
    hypothesis.settings.register_profile("quick", deadline=None, max_examples=25)
    hypothesis.settings.load_profile("xpnet")

os.environ.pop("PYTHONUNBUFFERED", None)  # processes buffer what they print, as a user's do

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def dev() -> xpnet.Device:
    """The device under test."""
    return xpnet.device()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Test the mathematics on both kinds of operations: fused, where there are any, and not.

    On CUDA those that are not fused are compared with the CPU's, in tests/parity, and nowhere else.
    On the CPU, the unfused networks run only in ``make test-all``.
    """
    folder = metafunc.definition.path.parent.name
    if "dev" not in metafunc.fixturenames or folder not in ("kernels", "nn", "parity"):
        return
    own = _device(None)
    kinds = dict.fromkeys([own.kernels, "reference"])
    if folder != "parity" and own.index is not None:
        kinds = dict.fromkeys([own.kernels])
    devices = []
    for number, kind in enumerate(kinds):
        marks = [pytest.mark.slow] if number and folder == "nn" else []
        devices.append(pytest.param(_device(kind), marks=marks, id=kind))
    metafunc.parametrize("dev", devices, scope="session")


@functools.cache
def _device(kernels: str | None) -> xpnet.Device:
    """Give one device to all tests: each keeps a workspace for products on a GPU."""
    return xpnet.device(None, kernels)


@pytest.fixture(autouse=True)
def _ctrl_c() -> Iterator[None]:
    """Handle SIGINT as at a terminal: a job in the background inherits that it is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(autouse=True)
def _emulated_device(request: pytest.FixtureRequest) -> Iterator[None]:
    """Leave nothing of a test on the emulated device for the next one."""
    yield
    if request.config.stash[devices.chosen] == "emulated":
        from tests.emulation import execution

        assert execution.reset() is None, "a capture was begun and not ended"


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder with data that are not ours to ship."""
    folder = Path(os.environ.get("XPNET_DATA_DIR") or ROOT.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"no data directory {folder}: set XPNET_DATA_DIR")
    return folder


@pytest.fixture(scope="session")
def archives(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The wheel and the sdist of this checkout, built once for all processes of a run."""
    from tests.packages import build_archives, copy_of_the_checkout

    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    with (shared / "archives.lock").open("w") as lock:
        if fcntl is not None:
            fcntl.flock(lock, fcntl.LOCK_EX)
        dist = shared / "archives"
        if not dist.exists():
            building = tmp_path_factory.mktemp("building")
            # One instruction set: installing the checkout has compiled all of them.
            one = {"XPNET_MULTIVERSION": "0"}
            build_archives(copy_of_the_checkout(building), building / "dist", env=one)
            (building / "dist").rename(dist)
    (wheel,), (sdist,) = dist.glob("*.whl"), dist.glob("*.tar.gz")
    return wheel, sdist


def traced_peak(work: Callable[[], object]) -> int:
    """Measure the most bytes that Python holds at once: the least of three runs.

    A garbage collection or another thread of the process may add to one of them.
    """
    peaks = []
    for _ in range(3):
        tracemalloc.start()
        try:
            work()
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    return min(peaks)


def slow(*values: Any) -> Any:
    """Mark a case of a parametrised test as one that ``make test`` leaves out."""
    return pytest.param(*values, marks=pytest.mark.slow)


def require_file(folder: Path, name: str) -> Path:
    """Give a data file, or skip the test and name what is missing."""
    path = folder / name
    if not path.is_file():
        pytest.skip(f"{name} is not in the data directory")
    return path
