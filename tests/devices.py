"""Which device the tests run on: ``pytest --device cpu|emulated|cuda``.

``cpu``
    By default, or what ``XPNET_DEVICE`` says.
``emulated``
    The stand-in for CuPy of :mod:`tests.emulation`. Never a result of a GPU.
``cuda``
    A GPU.

Processes that tests start run on the same device. What tests marked ``host`` look at is the same
whatever the device, and they run with ``cpu`` alone; those marked ``accelerator`` run with the
other two; tests marked ``gpu`` wait for a GPU. Those marked ``long`` leave the stand-in out, whose
arithmetic is the CPU's; on the stand-in ``heavy`` means ``slow``.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
DEVICES = ("cpu", "emulated", "cuda")
RUNS_ON = {
    "host": ("cpu",),
    "emulated": ("emulated",),
    "accelerator": ("emulated", "cuda"),
    "long": ("cpu", "cuda"),
}
WAITING = "waits for a GPU: pytest --device cuda"
chosen: pytest.StashKey[str] = pytest.StashKey()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--device",
        choices=DEVICES,
        help="where the tests run; by default what XPNET_DEVICE says, or the CPU",
    )


def pytest_configure(config: pytest.Config) -> None:
    device = config.getoption("device")
    if device is None:
        device = "cuda" if os.environ.get("XPNET_DEVICE", "cpu").startswith("cuda") else "cpu"
    config.stash[chosen] = device
    if device == "emulated":
        try:
            emulate()
        except RuntimeError as error:
            raise pytest.UsageError(str(error)) from error
    if device != "cpu":
        if not os.environ.get("XPNET_DEVICE", "").startswith("cuda"):
            os.environ["XPNET_DEVICE"] = "cuda"
        from xpnet.kernels.cuda_check import cuda_problem

        problem = cuda_problem()
        if problem is not None:
            raise pytest.UsageError(f"--device {device}: {problem}")
        forbid_waiting()
    else:
        os.environ["XPNET_DEVICE"] = "cpu"
        from tests.emulation import kernels

        with contextlib.suppress(RuntimeError):  # then there is no compiler
            kernels.prepare()  # for all processes of tests that use the stand-in: compiled once


def emulate() -> None:
    """Put the stand-in in the place of CuPy, in this process and those that it starts.

    Its products are small, and threads of BLAS would wait for each other where tests share a
    machine: one has to do.
    """
    from tests import emulation
    from tests.emulation import kernels, module

    module.install()
    kernels.prepare()
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    with contextlib.suppress(ImportError):
        import threadpoolctl

        threadpoolctl.threadpool_limits(1, "blas")
    site = str(Path(emulation.__file__).with_name("site"))
    paths = [site, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(paths))


def environment(**more: str) -> dict[str, str]:
    """Give the environment of a process that imports xpnet from this checkout."""
    paths = [str(ROOT), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), **more}


def forbid_waiting() -> None:
    """Let whatever makes the host wait for the device fail inside a training step and behind it.

    The losses are read where a report wants them, or where there is no room for more; sparse
    samples are gathered by the host.
    """
    import cupyx

    from xpnet.nn.sparse import SparseSamples
    from xpnet.nn.step import TrainingStep
    from xpnet.training.recorder import LossRecorder

    def with_waiting(call: Callable[..., Any], *, allowed: bool) -> Callable[..., Any]:
        @functools.wraps(call)
        def guarded(*args: Any, **kwargs: Any) -> Any:
            with cupyx.allow_synchronize(allowed):
                return call(*args, **kwargs)

        return guarded

    step, recorder = vars(TrainingStep), vars(LossRecorder)
    setattr(TrainingStep, "__call__", with_waiting(step["__call__"], allowed=False))  # noqa: B010
    gather = with_waiting(SparseSamples.gather, allowed=True)
    setattr(SparseSamples, "gather", gather)  # noqa: B010
    setattr(LossRecorder, "record", with_waiting(recorder["record"], allowed=False))  # noqa: B010
    setattr(LossRecorder, "_fetch", with_waiting(recorder["_fetch"], allowed=True))  # noqa: B010


def pytest_report_header(config: pytest.Config) -> str:
    device = config.stash[chosen]
    note = " (test equipment in place of a GPU)" if device == "emulated" else ""
    return f"device: {device}{note}"


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Skip files that have no test for this device: importing them takes time."""
    if collection_path.suffix != ".py" or not collection_path.name.startswith("test_"):
        return None
    if any(Path(argument.partition("::")[0]).suffix == ".py" for argument in config.args):
        return None  # a file named on the command line is always collected
    text = collection_path.read_text(encoding="utf-8")
    marks = re.findall(r"^pytestmark = .*(?:\n[ \])].*)*", text, re.MULTILINE)
    names = {name for mark in marks for name in re.findall(r"pytest\.mark\.(\w+)", mark)}
    runs_on = [RUNS_ON[name] for name in names & RUNS_ON.keys()]
    return True if any(config.stash[chosen] not in devices for devices in runs_on) else None


@pytest.hookimpl(tryfirst=True)  # before -m selects
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out tests of other devices, and mark those that are slow on this one."""
    device = config.stash[chosen]
    waiting = pytest.mark.skip(reason=WAITING)
    kept: list[pytest.Item] = []
    left_out: list[pytest.Item] = []
    for item in items:
        if device != "cuda" and item.get_closest_marker("gpu"):
            item.add_marker(waiting)
        if device == "emulated" and item.get_closest_marker("heavy"):
            item.add_marker(pytest.mark.slow)
        runs_on = [RUNS_ON[mark.name] for mark in item.iter_markers() if mark.name in RUNS_ON]
        (kept if all(device in devices for devices in runs_on) else left_out).append(item)
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = kept
