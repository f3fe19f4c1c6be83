"""``evaluate``: compute the mean loss and the score of a network on a data set."""

from __future__ import annotations

from typing import Any

from xpnet.device import Device
from xpnet.kernels.reference import Array
from xpnet.nn.losses import Loss
from xpnet.nn.network import Network
from xpnet.nn.sparse import SparseSamples
from xpnet.random import subset
from xpnet.training.data import samples, shares

__all__ = ["evaluate", "evaluate_on_device", "scored_samples"]

_SCORED = 10_000  # training samples used for the training accuracy of a report


def evaluate(
    network: Network,
    loss: str | dict[str, Any] | Loss,
    X: Any,
    y: Any,
    *,
    divide_by: float | None = None,
    sample_weight: Any = None,
) -> tuple[float, float]:
    """Compute the mean loss and the accuracy on a data set.

    Parameters
    ----------
    network : Network
        Network to evaluate; it is not changed.
    loss : str, dict or Loss
        Loss to compute.
    X : array_like, or sparse matrix or array of SciPy, (n_samples, n_features)
        Samples. Sparse samples become dense batch by batch (:attr:`.Network.default_batch_size`).
    y : array_like
        Labels in the form that the loss requires.
    divide_by : float or None
        Divisor of uint8 data; see :func:`fit`.
    sample_weight : array_like (n_samples,), optional
        Weight of each sample in the mean loss and in the accuracy. By default all are equal.

    Returns
    -------
    cost : float
        Mean loss.
    accuracy : float
        Fraction of the samples that are predicted correctly (in every output, if there are
        several labels); with a regression loss, the coefficient of determination.

    Raises
    ------
    ValueError, TypeError
        If the data do not fit the network.
    """
    loss = Loss.resolve(loss)
    X_data, y_data = samples(network, loss, X, y, "")
    parts = shares(network, loss, y_data, sample_weight)
    return evaluate_on_device(network, loss, X_data, y_data, parts, divide_by)


def evaluate_on_device(
    network: Network,
    loss: Loss,
    X: Array | SparseSamples,
    y: Array,
    parts: Array | None,
    divide_by: float | None,
    chosen: Array | None = None,
) -> tuple[float, float]:
    """Compute the mean loss and the accuracy on all samples, or on the chosen ones.

    ``parts`` are the sample weights, which sum to 1.
    """
    device = network.device
    with device.activate():
        if chosen is None:
            logits = device.asarray(network.predict(X, divide_by=divide_by))
        else:  # there may be many: batch by batch
            n = network.default_batch_size
            rows = [chosen[start : start + n] for start in range(0, len(chosen), n)]
            logits = device.xp.concatenate(
                [device.asarray(network.predict(X[some], divide_by=divide_by)) for some in rows]
            )
            y = y[chosen]
        losses = device.xp.empty(len(logits), dtype=network.dtype)
        mean = device.xp.empty(1, dtype=network.dtype)
        weighted = () if parts is None else (parts,)
        loss.forward(device.ops, logits, y, losses, mean, None, *weighted)
        score = loss.score(device.ops, logits, y, *weighted)
        return float(device.to_host(mean)[0]), float(device.to_host(score))


def scored_samples(device: Device, n: int, seed: int) -> Array | None:
    """Choose ``_SCORED`` samples at random; None means all samples, if there are no more.

    Samples at regular intervals would not do, since labels may alternate.
    """
    return None if n <= _SCORED else device.asarray(subset(n, _SCORED, seed), name="chosen")
