"""Several training steps in a row as one CUDA graph."""

from __future__ import annotations

from typing import Any

from xpnet.graph import Recorder
from xpnet.kernels.reference import Array
from xpnet.nn.checks import check_count
from xpnet.nn.step import TrainingStep

__all__ = ["CapturedSteps"]


class CapturedSteps:
    """``n_steps`` training steps, recorded once as a CUDA graph and launched many times.

    A training step of a small network runs about 25 kernels of a few microseconds each, and the
    host takes longer than that to launch each of them. A graph needs a single launch. Its results
    are identical to those of the step, bit by bit, since it holds the same kernels.

    Everything that changes from launch to launch reaches the graph through device arrays. The
    samples' indices and, if it changes within an epoch, the learning rate are copied into place
    before each launch. The recorded kernels themselves advance the step count that random draws
    depend on, the optimizer's step count with its bias corrections, moving statistics and averages.

    Parameters
    ----------
    step : TrainingStep
        Step on a GPU with fused kernels. It must have been called once, so that everything it
        creates on first use exists.
    n_steps : int
        Number of steps in the graph, at least 1.
    recorder : Recorder
        Recorder of the step's device, which must be active.
    learning_rate : device array (1,), optional
        Array from which the optimizer reads the learning rate, if each step has its own.

    Attributes
    ----------
    losses : device array (n_steps,)
        Losses of the last launch; see :attr:`TrainingStep.loss_value`.

    Raises
    ------
    ValueError
        If ``n_steps`` is not a positive integer.
    CaptureError
        If the step does something that a graph cannot record.

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
            The samples of all minibatches, one minibatch after another; None if a step trains on
            the whole data set.
        rates : device array (n_steps,), optional
            The learning rate of each step, if each step has its own.

        Returns
        -------
        device array (n_steps,)
            :attr:`losses`.

        Raises
        ------
        TypeError
            If an argument is missing or not used.
        ValueError
            If an argument has the wrong shape.
        """
        if (indices is None) is not (self._indices is None):
            expected = "None" if self._indices is None else "given, as the steps gather samples"
            raise TypeError(f"indices must be {expected}, got {indices!r}")
        if (rates is None) is not (self._learning_rate is None):
            expected = "None" if self._learning_rate is None else "given, one for each step"
            raise TypeError(f"rates must be {expected}, got {rates!r}")
        if indices is not None:
            _copy(self._indices, indices, "indices")
        if rates is not None:
            _copy(self._rates, rates, "rates")
        self._graph.launch(self._step.device.stream)
        return self.losses

    def _take_all(self) -> None:
        """Take the steps; a recording freezes every number that is not in a device array."""
        step, size = self._step, self._step.batch_size
        own = step.loss_value
        try:
            for number in range(self._n_steps):
                if self._learning_rate is not None:
                    self._learning_rate[...] = self._rates[number : number + 1]
                given: list[Any] = []
                if self._indices is not None:
                    given.append(self._indices[number * size : (number + 1) * size])
                step.loss_value = self.losses[number : number + 1]  # the step writes there
                step(*given)
        finally:
            step.loss_value = own


def _copy(target: Array, source: Array, name: str) -> None:
    """Copy an array of the same shape; CuPy would broadcast a single number."""
    if source.shape != target.shape:
        raise ValueError(f"{name} must have shape {target.shape}, got {source.shape}")
    target[...] = source
