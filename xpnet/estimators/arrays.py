"""A fitted network's weights, layer by layer, as scikit-learn's ``coefs_`` and ``intercepts_``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from xpnet.nn import BatchNorm, Dense, Network

__all__ = ["Arrays", "affine", "put"]


class Arrays(list[npt.NDArray[Any]]):
    """The arrays of the layers; assigning an element also updates the network."""

    def __init__(
        self, arrays: Iterable[npt.NDArray[Any]], put: Callable[[Sequence[Any]], None]
    ) -> None:
        super().__init__(arrays)
        self._put = put

    def __setitem__(self, index: Any, value: Any) -> None:
        changed = list(self)
        changed[index] = value
        self._put(changed)
        super().__setitem__(index, value)

    def __reduce__(self) -> Any:
        return list, (list(self),)


def affine(network: Network) -> list[tuple[npt.NDArray[Any], npt.NDArray[Any]]]:
    """Return weights and biases layer by layer, with batch normalisation folded in."""
    to_host = network.device.to_host
    found = []
    for layer, after in zip(network.layers, [*network.layers[1:], None], strict=True):
        if not isinstance(layer, Dense):
            continue
        W = to_host(layer.W)
        b = to_host(layer.b) if layer.bias else np.zeros(layer.units, network.dtype)
        if isinstance(after, BatchNorm):
            scale = to_host(after.gamma) / np.sqrt(to_host(after.running_variance) + after.eps)
            W, b = W * scale, to_host(after.beta) - to_host(after.running_mean) * scale
        # Writing into a copy would not change the network.
        is_copied = network.device.index is not None or isinstance(after, BatchNorm)
        W.flags.writeable = W.flags.writeable and not is_copied
        b.flags.writeable = b.flags.writeable and layer.bias and not is_copied
        found.append((W, b))
    return found


def put(network: Network, attribute: str, name: str, values: Sequence[Any]) -> None:
    """Set a parameter, ``"W"`` or ``"b"``, of every dense layer.

    ``attribute`` is its name in messages.
    """
    dense = [layer for layer in network.layers if isinstance(layer, Dense)]
    shapes = [getattr(layer, name).shape for layer in dense]
    arrays = [np.asarray(value) for value in values]
    if [array.shape for array in arrays] != shapes:
        raise ValueError(
            f"{attribute} must have the shapes {shapes}, got {[a.shape for a in arrays]}"
        )
    device = network.device
    with device.activate():
        for layer, array in zip(dense, arrays, strict=True):
            getattr(layer, name)[...] = device.asarray(array, network.dtype, name=attribute)
