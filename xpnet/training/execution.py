"""Run the steps of an epoch one by one, or many at once as a CUDA graph."""

from __future__ import annotations

import itertools
import logging
from typing import Any

from xpnet.graph import CaptureError, Recorder
from xpnet.kernels.reference import Array
from xpnet.nn.captured import CapturedSteps
from xpnet.nn.interfaces import Layer
from xpnet.nn.registry import is_own
from xpnet.nn.step import TrainingStep
from xpnet.training.rates import Rates

__all__ = ["EagerExecution", "GraphExecution", "make_execution"]

STEPS_PER_GRAPH = 16  # enough to make the cost of launching a graph negligible per step

logger = logging.getLogger("xpnet")


class EagerExecution:
    """Takes one step at a time.

    Parameters
    ----------
    steps : list of TrainingStep
        The steps of an epoch in order; steps of the same batch size are the same object.
    rates : Rates
        Learning rates of the steps.
    """

    has_captured = False

    def __init__(self, steps: list[TrainingStep], rates: Rates) -> None:
        self._steps, self._rates = steps, rates
        self._starts = list(itertools.accumulate((s.batch_size for s in steps), initial=0))

    def take(self, number: int, order: Array) -> tuple[int, Array]:
        """Take one or more steps.

        Parameters
        ----------
        number : int
            Number of the epoch's next step, from 0.
        order : int64 device array (n_samples,)
            Indices of the samples in the order of the epoch.

        Returns
        -------
        n_taken : int
            Number of steps taken.
        losses : device array (n_taken,)
            Losses of these steps; the next call overwrites them.
        """
        self._rates.begin_step(number)
        step = self._steps[number]
        if not step.gathers:
            return 1, step()
        return 1, step(order[self._starts[number] : self._starts[number + 1]])

    def close(self) -> None:
        """Release everything except the steps."""


class GraphExecution(EagerExecution):
    """Takes steps as CUDA graphs of :data:`STEPS_PER_GRAPH` steps, or of one if fewer are left.

    The first step of each batch size is run directly, to create everything that is created on first
    use.

    Parameters
    ----------
    steps, rates
        See :class:`EagerExecution`.
    is_required : bool
        Whether to raise an error if a step cannot be captured. If False, log a warning (logger
        ``xpnet``) and run the steps one by one.

    Attributes
    ----------
    has_captured : bool
        Whether steps are run as graphs.

    Raises
    ------
    CaptureError
        By :meth:`take`, if a capture is required and fails.
    """

    def __init__(self, steps: list[TrainingStep], rates: Rates, *, is_required: bool) -> None:
        super().__init__(steps, rates)
        self._is_required = is_required
        self._recorder = Recorder(steps[0].device)
        self._graphs: dict[tuple[int, int], CapturedSteps] = {}
        self._is_closed = False
        self._warm: set[int] = set()  # batch sizes

    def take(self, number: int, order: Array) -> tuple[int, Array]:
        """Take one or more steps; see :meth:`EagerExecution.take`."""
        step = self._steps[number]
        if self._is_closed:
            return super().take(number, order)
        if step.batch_size not in self._warm:
            self._warm.add(step.batch_size)
            return super().take(number, order)
        last = number + STEPS_PER_GRAPH - 1
        n = STEPS_PER_GRAPH if last < len(self._steps) and self._steps[last] is step else 1
        try:
            captured = self._captured(step, n)
        except CaptureError as error:
            if self._is_required:
                raise
            logger.warning("training continues without CUDA graphs: %s", error)
            self.close()
            self.has_captured = False
            return super().take(number, order)
        by_step, starts = self._rates.by_step, self._starts
        indices = order[starts[number] : starts[number + n]] if step.gathers else None
        self.has_captured = True
        return n, captured(indices, None if by_step is None else by_step[number : number + n])

    def close(self) -> None:
        """Release the graphs; from now on steps are taken one by one."""
        self._is_closed = True
        self._graphs.clear()
        self._recorder.close()

    def _captured(self, step: TrainingStep, n: int) -> CapturedSteps:
        key = step.batch_size, n
        if key not in self._graphs:
            rate = None if self._rates.by_step is None else self._rates.rate
            self._graphs[key] = CapturedSteps(step, n, self._recorder, rate)
        return self._graphs[key]


def make_execution(
    steps: list[TrainingStep], rates: Rates, capture: bool | None, parts: list[Any]
) -> EagerExecution:
    """Choose how to take steps that consist of ``parts``: as CUDA graphs if ``capture`` is True.

    If it is None, use graphs if the device is a GPU with fused kernels, all parts belong to xpnet
    and no samples come from the host. Raise a ValueError if ``capture`` is True but the device or
    the steps do not support graphs.
    """
    if capture and steps[0].from_host:
        raise ValueError(
            "capture=True needs dense samples, but X is sparse: a CUDA graph cannot record "
            "minibatches that come from the host"
        )
    device = steps[0].device
    is_able = device.index is not None and device.kernels == "fused"
    if capture and not is_able:
        raise ValueError(
            "capture=True needs a GPU with fused kernels, but the device is "
            f"{device.name!r} with {device.kernels} kernels"
        )
    # User code may compute with Python numbers that change from step to step, which a graph would
    # not see.
    is_required = bool(capture)
    if capture is None:
        capture = is_able and not steps[0].from_host and all(map(_is_own, parts))
    if capture:
        return GraphExecution(steps, rates, is_required=is_required)
    return EagerExecution(steps, rates)


def _is_own(part: Any) -> bool:
    """Return whether a part of a step, and the layers inside it, belong to xpnet."""
    inside = [value for value in vars(part).values() if isinstance(value, Layer)]
    return is_own(type(part)) and all(map(_is_own, inside))
