"""The state of a training run, from which another run can resume."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from xpnet.kernels.reference import Array
from xpnet.nn.network import Network
from xpnet.nn.optimizers import Optimizer

__all__ = ["TrainingState", "check_state"]


@dataclass
class TrainingState:
    """The optimizer's state and the number of steps taken.

    Passing the same state to several calls of :func:`xpnet.training.fit` turns them into one run:
    moments and velocities continue, and no dropout mask or augmentation is drawn twice.

    Attributes
    ----------
    network : Network
        Network that is trained; the state is on its device.
    optimizer : dict of str to device array
        State created by :meth:`xpnet.nn.Optimizer.init_state`.
    steps : int64 device array (1,)
        Number of steps taken in all runs.
    """

    network: Network
    optimizer: dict[str, Array]
    steps: Array

    @classmethod
    def start(cls, network: Network, optimizer: Optimizer) -> Self:
        """Return the state of a new run.

        Parameters
        ----------
        network : Network
            Network to train.
        optimizer : Optimizer
            Optimizer of the run.

        Returns
        -------
        TrainingState
        """
        device = network.device
        with device.activate():
            state = optimizer.init_state(device, network.parameters)
            return cls(network, state, device.xp.zeros(1, dtype=np.int64))

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore a pickle; joblib loads arrays as read-only memory maps, which must be copied."""

        def own(array: Array) -> Array:
            is_mapped = isinstance(array, np.ndarray) and not array.flags.writeable
            return np.array(array) if is_mapped else array

        self.network, self.steps = state["network"], own(state["steps"])
        self.optimizer = {name: own(array) for name, array in state["optimizer"].items()}

    def moved_to(self, network: Network) -> TrainingState:
        """Copy the state to the device and dtype of a copy of the network.

        Parameters
        ----------
        network : Network
            Copy of :attr:`network`; see :meth:`xpnet.nn.Network.copy`.

        Returns
        -------
        TrainingState
        """

        def move(array: Array) -> Array:
            on_host = self.network.device.to_host(array)
            is_float = on_host.dtype.kind == "f"
            return network.device.asarray(
                on_host.astype(network.dtype if is_float else on_host.dtype)  # a copy
            )

        optimizer = {name: move(array) for name, array in self.optimizer.items()}
        return TrainingState(network, optimizer, move(self.steps))


def check_state(state: Any, network: Network) -> TrainingState:
    """Return ``state`` if it is a TrainingState of this network, else raise a ValueError."""
    if not isinstance(state, TrainingState):
        raise ValueError(f"state must be a TrainingState, got {state!r}")
    if state.network is not network:
        raise ValueError(
            f"state must belong to this network, {network!r}, got the state of {state.network!r}"
        )
    return state
