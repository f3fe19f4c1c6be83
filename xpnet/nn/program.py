"""Training steps as a program, which the host kernels run without Python in between."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from xpnet.device import Device
from xpnet.graph import CaptureError
from xpnet.kernels import host
from xpnet.nn.interfaces import Layer
from xpnet.nn.registry import is_own
from xpnet.nn.step import TrainingStep

__all__ = ["StepProgram", "foreign_part", "record", "runs_programs"]


class StepProgram:
    """A training step on the CPU, recorded once and run many times in one call.

    Between the operations of a step, Python takes longer than the arithmetic of a small network. A
    program calls the compiled operations directly, step after step, without Python's lock and
    without allocating memory. Its results are identical to those of the step, bit by bit: it runs
    the same loops and products on the same arrays. The update of a weight matrix follows the
    product that computes its gradient, part by part, while that part is in the cache, wherever no
    other operation needs the old weights or the whole gradient.

    Parameters
    ----------
    step : TrainingStep
        Step on the CPU with fused kernels, of xpnet's own parts.
    learning_rate : array (1,), optional
        Array from which the optimizer reads the learning rate, if each step has its own.

    Attributes
    ----------
    jobs : tuple of str
        Descriptions of the parts of a step, in the order in which they run.

    Raises
    ------
    CaptureError
        If the step cannot be recorded: on another device, with samples from the host, with a part
        that is not xpnet's own, since plain array expressions cannot be recorded.
    """

    def __init__(self, step: TrainingStep, learning_rate: npt.NDArray[Any] | None = None) -> None:
        if not runs_programs(step.device):
            raise CaptureError(
                "a program needs the CPU with fused kernels, but the device is "
                f"{step.device.name!r} with {step.device.kernels} kernels: call the step itself"
            )
        foreign = foreign_part(step.parts)
        if step.from_host or foreign is not None:
            got = "sparse samples" if step.from_host else repr(foreign)
            raise CaptureError(
                "a program needs dense samples and xpnet's own layers, loss, optimizer and so on, "
                f"got {got}: call the step itself"
            )
        indices = np.zeros(step.batch_size, np.int64) if step.gathers else None
        given = () if indices is None else (indices,)
        counted = step.counter.copy()
        try:
            self._program = record(
                lambda: step(*given), step.loss_value, step.counter, indices, learning_rate
            )
        finally:
            step.counter[...] = counted  # the step advances it itself, which is not an operation
        self.jobs: tuple[str, ...] = self._program.jobs

    def __call__(
        self,
        losses: npt.NDArray[Any],
        indices: npt.NDArray[np.int64] | None = None,
        rates: npt.NDArray[Any] | None = None,
        seconds: npt.NDArray[np.float64] | None = None,
    ) -> int:
        """Take up to ``n_steps`` steps, as many as fit into 50 milliseconds, and at least one.

        Parameters
        ----------
        losses : array (n_steps,)
            Overwritten with the losses of the steps taken; see :attr:`TrainingStep.loss_value`.
        indices : int64 array (n_steps batch_size,), optional
            The samples of all minibatches, one minibatch after another; None if a step trains on
            the whole data set.
        rates : array (n_steps,), optional
            The learning rate of each step, if each step has its own.
        seconds : float64 array (n_jobs,), optional
            The time of each part of the step is added here.

        Returns
        -------
        int
            Number of steps taken. The steps end before a minibatch with an index that is out of
            range.

        Raises
        ------
        TypeError, ValueError
            If an argument is missing or not used, or has the wrong shape or dtype.
        IndexError
            If an index of the first minibatch is out of range.
        RuntimeError
            If the program is already running in another thread.
        """
        taken: int = self._program.run(losses, indices, rates, seconds)
        return taken


def runs_programs(device: Device) -> bool:
    """Return whether the device is the CPU, with all operations compiled."""
    return device.index is None and "matmul" in device.ops.fused and device.kernels == "fused"


def foreign_part(parts: Iterable[Any]) -> Any:
    """Return a part, or a layer inside of one, that is not xpnet's own; None if all are.

    A part with a method of its own, replaced on the object, is not xpnet's either.
    """
    left = list(parts)
    while left:
        part = left.pop()
        values = vars(part)
        is_changed = any(callable(v) and hasattr(type(part), name) for name, v in values.items())
        if is_changed or not is_own(type(part)):
            return part
        left += [value for value in values.values() if isinstance(value, Layer)]
    return None


def record(
    work: Callable[[], object],
    result: npt.NDArray[Any],
    counter: npt.NDArray[np.int64] | None = None,
    indices: npt.NDArray[np.int64] | None = None,
    rate: npt.NDArray[Any] | None = None,
) -> Any:
    """Record a program; see :func:`xpnet.kernels.host.record`.

    Parameters
    ----------
    work : callable
        What to record.
    result : array (1,)
        The number that each run returns.
    counter, indices, rate : arrays, optional
        What changes from step to step.

    Returns
    -------
    Program

    Raises
    ------
    CaptureError
        If ``work`` calls an operation in a way that cannot be recorded.
    """
    counter = np.zeros(1, np.int64) if counter is None else counter
    try:
        return host.record(work, result, counter, indices, rate)
    except RuntimeError as error:
        raise CaptureError(f"it cannot be recorded as a program: {error}") from error
