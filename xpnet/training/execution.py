"""Runs the steps of an epoch one by one, or many at once as a CUDA graph."""

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

STEPS_PER_GRAPH = 16  # so that what is issued for each graph, and not for each step, hardly counts

logger = logging.getLogger("xpnet")


class EagerExecution:
    """Takes one step at a time.

    Parameters
    ----------
    steps : list of TrainingStep
        The steps of an epoch in order; those of one batch size are one object.
    rates : Rates
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
            Of the epoch's next step, from 0.
        order : int64 device array (n_samples,)
            The samples as the epoch visits them.

        Returns
        -------
        n_taken : int
        losses : device array (n_taken,)
            Overwritten by the next call.
        """
        self._rates.begin_step(number)
        step = self._steps[number]
        if not step.gathers:
            return 1, step()
        return 1, step(order[self._starts[number] : self._starts[number + 1]])

    def close(self) -> None:
        """Let go of what it holds beside the steps."""


class GraphExecution(EagerExecution):
    """Takes steps as CUDA graphs of :data:`STEPS_PER_GRAPH`, and of one where fewer are left.

    The first step of each batch size is taken as it is, which makes whatever is made at first use.

    Parameters
    ----------
    steps, rates
        As for :class:`EagerExecution`.
    is_required : bool
        Whether to raise where a step cannot be captured, or else to warn (logger ``xpnet``) and
        take it as it is.

    Attributes
    ----------
    has_captured : bool
        Whether graphs are launched, and have not been given up.

    Raises
    ------
    CaptureError
        From :meth:`take`, if a capture is required.
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
            logger.warning("training steps are not captured any more: %s", error)
            self.close()
            self.has_captured = False
            return super().take(number, order)
        by_step, starts = self._rates.by_step, self._starts
        indices = order[starts[number] : starts[number + n]] if step.gathers else None
        self.has_captured = True
        return n, captured(indices, None if by_step is None else by_step[number : number + n])

    def close(self) -> None:
        """Let go of the graphs; from now on steps are taken one by one."""
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
    """Choose how steps, which consist of ``parts``, are taken: as graphs where ``capture`` is true.

    Where it is None, as graphs if a GPU has fused kernels, all parts are xpnet's own and nothing
    comes from the host. Raises a ValueError if graphs are asked for on a device that has none, or
    of steps that no graph can hold.
    """
    if capture and steps[0].from_host:
        raise ValueError(
            "capture=True takes dense samples, but X is sparse: minibatches come from the host, "
            "which no graph can hold"
        )
    device = steps[0].device
    is_able = device.index is not None and device.kernels == "fused"
    if capture and not is_able:
        raise ValueError(
            "capture=True takes a GPU with fused kernels, but the device is "
            f"{device.name!r} with {device.kernels} ones"
        )
    # Something of a user's may compute with Python's numbers that change from step to step, which a
    # graph would not see.
    is_required = bool(capture)
    if capture is None:
        capture = is_able and not steps[0].from_host and all(map(_is_own, parts))
    if capture:
        return GraphExecution(steps, rates, is_required=is_required)
    return EagerExecution(steps, rates)


def _is_own(part: Any) -> bool:
    """Tell whether a part of a step, and the layers inside, are of xpnet's own classes."""
    inside = [value for value in vars(part).values() if isinstance(value, Layer)]
    return is_own(type(part)) and all(map(_is_own, inside))
