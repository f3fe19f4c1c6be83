"""Several training steps in a row as one CUDA graph."""

from __future__ import annotations

from typing import Any

from xpnet.graph import Recorder
from xpnet.kernels.reference import Array
from xpnet.nn.checks import check_count
from xpnet.nn.step import TrainingStep

__all__ = ["CapturedSteps"]


class CapturedSteps:
    """``n_steps`` training steps, recorded once as a CUDA graph and launched as often as need be.

    A small network's step is some twenty-five kernels of a few microseconds each, and to issue each
    of them takes the host longer than that. A graph is issued as one. Its results are those of the
    step itself, to the bit: it holds the same kernels.

    What differs from launch to launch reaches the graph through device arrays: the samples' indices
    and, if it changes within an epoch, the learning rate, which are copied to their places before
    each launch; the step count that random draws depend on, the optimizer's own with its bias
    corrections, moving statistics and averages, which the recorded kernels advance.

    Parameters
    ----------
    step : TrainingStep
        On a GPU with fused kernels. It has been called before, so that whatever is made at first
        use is there.
    n_steps : int
        At least 1.
    recorder : Recorder
        Of the step's device, which must be active.
    learning_rate : device array (1,), optional
        Where the optimizer reads it, if each step has a rate of its own.

    Attributes
    ----------
    losses : device array (n_steps,)
        Of the last launch, each as :attr:`TrainingStep.loss_value`.

    Raises
    ------
    ValueError
        If ``n_steps`` is no positive integer.
    CaptureError
        If the step does something that a graph cannot hold.

    References
    ----------
    NVIDIA, "CUDA C++ programming guide", section on CUDA graphs: stream capture.
    """

    def __init__(
        self,
        step: TrainingStep,
        n_steps: int,
        recorder: Recorder,
        learning_rate: Array | None = None,
    ) -> None:
        n_steps = check_count("n_steps", n_steps)
        xp = step.device.xp
        self._step, self._n_steps, self._recorder = step, n_steps, recorder
        self.losses = xp.empty(n_steps, dtype=step.loss_value.dtype)
        self._indices: Array | None = None
        if step.gathers:
            self._indices = xp.zeros(n_steps * step.batch_size, dtype="int64")
        self._learning_rate = learning_rate
        if learning_rate is not None:
            self._rates = xp.empty(n_steps, dtype=learning_rate.dtype)
        self._graph = recorder.record(self._take_all)

    def __call__(self, indices: Array | None = None, rates: Array | None = None) -> Array:
        """Take the steps.

        Parameters
        ----------
        indices : int64 device array (n_steps batch_size,), optional
            The samples of all minibatches, one after another; not given where a step trains on the
            whole data set.
        rates : device array (n_steps,), optional
            The steps' learning rates, where each has its own.

        Returns
        -------
        device array (n_steps,)
            :attr:`losses`.

        Raises
        ------
        TypeError
            If an argument is missing, or given where there is no use for it.
        ValueError
            If one has another shape.
        """
        if (indices is None) is not (self._indices is None):
            raise TypeError(f"captured steps that gather need indices, got {indices!r}")
        if (rates is None) is not (self._learning_rate is None):
            raise TypeError(f"captured steps with a rate of each need rates, got {rates!r}")
        if indices is not None:
            _copy(self._indices, indices, "indices")
        if rates is not None:
            _copy(self._rates, rates, "rates")
        self._graph.launch(self._step.device.stream)
        return self.losses

    def _take_all(self) -> None:
        """Take the steps; recorded, every number that is not in an array stays what it is now."""
        step, size = self._step, self._step.batch_size
        own = step.loss_value
        try:
            for number in range(self._n_steps):
                if self._learning_rate is not None:
                    self._learning_rate[...] = self._rates[number : number + 1]
                given: list[Any] = []
                if self._indices is not None:
                    given.append(self._indices[number * size : (number + 1) * size])
                step.loss_value = self.losses[number : number + 1]  # written there at once
                step(*given)
        finally:
            step.loss_value = own


def _copy(target: Array, source: Array, name: str) -> None:
    """Copy what must be of one shape; CuPy would repeat a single number."""
    if source.shape != target.shape:
        raise ValueError(f"{name} must have shape {target.shape}, got {source.shape}")
    target[...] = source
