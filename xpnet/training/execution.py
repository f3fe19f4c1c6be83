"""Run the steps of an epoch one by one, or many at once as a CUDA graph or a CPU program."""

from __future__ import annotations

import itertools
import logging

from xpnet.graph import CaptureError, Recorder
from xpnet.kernels.reference import Array
from xpnet.nn.captured import CapturedSteps
from xpnet.nn.program import StepProgram, foreign_part, runs_programs
from xpnet.nn.step import TrainingStep
from xpnet.training.rates import Rates

__all__ = ["EagerExecution", "GraphExecution", "ProgramExecution", "make_execution"]

STEPS_PER_GRAPH = 16  # enough to make the cost of launching a graph negligible per step
STEPS_PER_CALL = 4096  # of a program, which also stops after 50 ms

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
        return 1, step(self._indices(number, 1, order))

    def close(self) -> None:
        """Release everything except the steps."""

    def _indices(self, number: int, n: int, order: Array) -> Array | None:
        """Return the indices of the samples of n steps, or None if they train on all."""
        if not self._steps[number].gathers:
            return None
        return order[self._starts[number] : self._starts[number + n]]


class _CapturedExecution(EagerExecution):
    """Base class of executions that record steps and then take many at a time.

    The first step of each batch size is run directly: on CUDA it creates everything that is created
    on first use, and a single step is not worth recording.

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
        Whether steps are run as captured.

    Raises
    ------
    CaptureError
        By :meth:`take`, if a capture is required and fails.
    """

    def __init__(self, steps: list[TrainingStep], rates: Rates, *, is_required: bool) -> None:
        super().__init__(steps, rates)
        self._is_required = is_required
        self._is_closed = False
        self._warm: set[int] = set()  # batch sizes

    def take(self, number: int, order: Array) -> tuple[int, Array]:
        """Take one or more steps; see :meth:`EagerExecution.take`."""
        size = self._steps[number].batch_size
        if self._is_closed or size not in self._warm:
            self._warm.add(size)
            return super().take(number, order)
        try:
            taken = self._take_captured(number, order)
        except CaptureError as error:
            if self._is_required:
                raise
            logger.warning("training continues step by step: %s", error)
            self.close()
            self.has_captured = False
            return super().take(number, order)
        self.has_captured = True
        return taken

    def close(self) -> None:
        """Release what was captured; from now on steps are taken one by one."""
        self._is_closed = True

    def _take_captured(self, number: int, order: Array) -> tuple[int, Array]:
        raise NotImplementedError

    def _rate(self) -> Array | None:
        """Return where the optimizer reads the learning rate, if each step has its own."""
        return None if self._rates.by_step is None else self._rates.rate

    def _rates_of(self, number: int, n: int) -> Array | None:
        by_step = self._rates.by_step
        return None if by_step is None else by_step[number : number + n]


class GraphExecution(_CapturedExecution):
    """Takes steps as CUDA graphs of :data:`STEPS_PER_GRAPH` steps, or of one if fewer are left."""

    def __init__(self, steps: list[TrainingStep], rates: Rates, *, is_required: bool) -> None:
        super().__init__(steps, rates, is_required=is_required)
        self._recorder = Recorder(steps[0].device)
        self._graphs: dict[tuple[int, int], CapturedSteps] = {}

    def close(self) -> None:
        """Release the graphs; from now on steps are taken one by one."""
        super().close()
        self._graphs.clear()
        self._recorder.close()

    def _take_captured(self, number: int, order: Array) -> tuple[int, Array]:
        step, last = self._steps[number], number + STEPS_PER_GRAPH - 1
        n = STEPS_PER_GRAPH if last < len(self._steps) and self._steps[last] is step else 1
        key = step.batch_size, n
        if key not in self._graphs:
            self._graphs[key] = CapturedSteps(step, n, self._recorder, self._rate())
        indices = self._indices(number, n, order)
        return n, self._graphs[key](indices, self._rates_of(number, n))


class ProgramExecution(_CapturedExecution):
    """Takes steps on the CPU as a program, as many of a batch size as fit into 50 milliseconds."""

    def __init__(self, steps: list[TrainingStep], rates: Rates, *, is_required: bool) -> None:
        super().__init__(steps, rates, is_required=is_required)
        self._programs: dict[int, StepProgram] = {}
        loss = steps[0].loss_value
        self._losses = steps[0].device.xp.empty(min(len(steps), STEPS_PER_CALL), dtype=loss.dtype)
        last = {step.batch_size: number for number, step in enumerate(steps)}
        self._ends = {size: number + 1 for size, number in last.items()}

    def close(self) -> None:
        """Release the programs; from now on steps are taken one by one."""
        super().close()
        self._programs.clear()

    def _take_captured(self, number: int, order: Array) -> tuple[int, Array]:
        step = self._steps[number]
        if step.batch_size not in self._programs:
            self._programs[step.batch_size] = StepProgram(step, self._rate())
        n = min(self._ends[step.batch_size] - number, STEPS_PER_CALL)
        losses = self._losses[:n]
        program = self._programs[step.batch_size]
        indices = self._indices(number, n, order)
        n_taken = program(losses, indices, self._rates_of(number, n))
        return n_taken, losses[:n_taken]


def make_execution(steps: list[TrainingStep], rates: Rates, capture: bool | None) -> EagerExecution:
    """Choose how to take steps: captured, as CUDA graphs or CPU programs, if ``capture`` is True.

    If it is None, capture steps if the device has fused kernels, all parts of the steps belong to
    xpnet and no samples come from the host. Raise a ValueError if ``capture`` is True but the
    device or the steps do not support it.
    """
    step = steps[0]
    device = step.device
    on_gpu = device.index is not None
    foreign = foreign_part(step.parts)
    if capture and step.from_host:
        raise ValueError(
            "capture=True needs dense samples, but X is sparse: minibatches that come from the "
            "host cannot be recorded"
        )
    is_able = device.kernels == "fused" if on_gpu else runs_programs(device)
    if capture and not is_able:
        raise ValueError(
            f"capture=True needs fused kernels, but the device is {device.name!r} with "
            f"{device.kernels} kernels: leave capture out"
        )
    if capture and foreign is not None and not on_gpu:
        raise ValueError(
            "capture=True on the CPU needs xpnet's own layers, loss, optimizer and augmentations, "
            f"got {foreign!r}: leave capture out"
        )
    # User code may compute with Python numbers that change from step to step, which a recorded
    # step would not see.
    is_required = bool(capture)
    if capture is None:
        capture = is_able and not step.from_host and foreign is None
    if not capture:
        return EagerExecution(steps, rates)
    chosen = GraphExecution if on_gpu else ProgramExecution
    return chosen(steps, rates, is_required=is_required)
