"""The state of a run beside its network, from which another run can continue."""

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
    """The optimizer's state, and the number of steps taken.

    Given to one call of :func:`xpnet.training.fit` after another, it makes them one run: moments
    and velocities go on, and no mask or augmentation is drawn twice.

    Attributes
    ----------
    network : Network
        Whose parameters are trained; the state lives on its device.
    optimizer : dict of str to device array
        As :meth:`xpnet.nn.Optimizer.init_state` makes it.
    steps : int64 device array (1,)
        Steps taken by all runs.
    """

    network: Network
    optimizer: dict[str, Array]
    steps: Array

    @classmethod
    def start(cls, network: Network, optimizer: Optimizer) -> Self:
        """Make the state of a run that begins.

        Parameters
        ----------
        network : Network
        optimizer : Optimizer

        Returns
        -------
        TrainingState
        """
        device = network.device
        with device.activate():
            state = optimizer.init_state(device, network.parameters)
            return cls(network, state, device.xp.zeros(1, dtype=np.int64))

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take what a pickle holds; joblib gives its arrays as read-only maps of a file."""

        def own(array: Array) -> Array:
            is_mapped = isinstance(array, np.ndarray) and not array.flags.writeable
            return np.array(array) if is_mapped else array

        self.network, self.steps = state["network"], own(state["steps"])
        self.optimizer = {name: own(array) for name, array in state["optimizer"].items()}

    def moved_to(self, network: Network) -> TrainingState:
        """Copy the state to where a copy of the network lives, in its dtype.

        Parameters
        ----------
        network : Network
            A copy of :attr:`network`, see :meth:`xpnet.nn.Network.copy`.

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
    """Return the state if it is one, of this very network, or raise a ValueError."""
    if not isinstance(state, TrainingState):
        raise ValueError(f"state must be a TrainingState, got {state!r}")
    if state.network is not network:
        raise ValueError(f"state must be that of {network!r}, got that of {state.network!r}")
    return state
