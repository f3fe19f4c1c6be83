"""``evaluate``: compute the mean loss and the score of a network on a data set."""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator
from typing import Any

from xpnet.device import Device
from xpnet.graph import CaptureError
from xpnet.kernels.reference import Array
from xpnet.nn.interfaces import Cache
from xpnet.nn.losses import Loss
from xpnet.nn.network import Network
from xpnet.nn.program import foreign_part, record, runs_programs
from xpnet.nn.sparse import SparseSamples
from xpnet.random import subset
from xpnet.training.data import samples, shares

__all__ = ["Evaluation", "evaluate", "scored_samples"]

logger = logging.getLogger("xpnet")

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
    data = X_data, y_data, parts, divide_by
    with network.device.activate():
        return Evaluation(network, loss, *data, is_recorded=False, buffers={})()


class Evaluation:
    """The mean loss and the score of a network on one data set, computed again and again.

    On the CPU, if all parts belong to xpnet and the samples are dense, it is recorded as a program
    with buffers of its own; see :class:`xpnet.nn.StepProgram`. The results are the same. The device
    must be active.

    Parameters
    ----------
    network : Network
    loss : Loss
    X, y : device arrays, or SparseSamples and device array
        Samples and labels.
    parts : device array (n_samples,) or None
        Sample weights, which sum to 1; None if all are equal.
    divide_by : float or None
        Divisor of uint8 data.
    chosen : int64 device array or None
        Indices of the samples to evaluate; None for all.
    is_recorded : bool
        Whether to record a program if possible.
    buffers : dict
        Buffers of the network by batch size. Evaluations that do not run at the same time may
        share them.
    """

    def __init__(
        self,
        network: Network,
        loss: Loss,
        X: Array | SparseSamples,
        y: Array,
        parts: Array | None,
        divide_by: float | None,
        chosen: Array | None = None,
        *,
        is_recorded: bool,
        buffers: dict[int, tuple[list[Cache], Array, Array]],
    ) -> None:
        self._arguments = network, loss, X, y, parts, divide_by, chosen
        self._loss, self._ops, self._buffers = loss, network.device.ops, buffers
        self._programs: list[Any] = []
        is_own = foreign_part([network, *network.layers, loss]) is None
        is_able = is_own and runs_programs(network.device) and not isinstance(X, SparseSamples)
        if is_recorded and is_able:
            try:
                self._programs = list(self._record())
            except CaptureError as error:
                logger.warning("evaluation is not recorded: %s", error)

    def __call__(self) -> tuple[float, float]:
        """Return the mean loss and the score."""
        if not self._programs:
            return self._compute()
        for program in self._programs:
            program.run(self._result, None, None, None)
        score = self._loss.score(self._ops, self._logits, self._labels, *self._weighted)
        return float(self._result[0]), float(score)

    def _compute(self) -> tuple[float, float]:
        network, loss, X, y, parts, divide_by, chosen = self._arguments
        device = network.device
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

    def _record(self) -> Iterator[Any]:
        """Record a program for each batch, so that Ctrl-C ends between two of them."""
        network, loss, X, y, parts, divide_by, chosen = self._arguments
        xp, ops, dtype = network.device.xp, self._ops, network.dtype
        n, size = len(X) if chosen is None else len(chosen), network.default_batch_size
        self._weighted = () if parts is None else (parts,)
        self._labels = y if chosen is None else y[chosen]
        self._logits = xp.empty((n, network.n_outputs), dtype=dtype)
        self._result = xp.empty(1, dtype=dtype)
        losses, mean = xp.empty(n, dtype=dtype), xp.empty(1, dtype=dtype)
        rows = xp.arange(n) if chosen is None else chosen
        gathers = chosen is not None or X.dtype != dtype

        def predict(batch: slice, caches: list[Cache], gathered: Array, all_rows: Array) -> None:
            samples = X[batch]
            if gathers:
                samples = ops.gather(X, rows[batch], out=gathered, divide_by=divide_by)
            logits = network.forward(samples, caches)
            ops.gather(logits, all_rows, out=self._logits[batch])

        def compute_loss() -> None:
            loss.forward(ops, self._logits, self._labels, losses, mean, None, *self._weighted)

        for start in range(0, n, size):
            length = min(size, n - start)
            if length not in self._buffers:
                self._buffers[length] = (
                    network.allocate(length, training=False),
                    xp.empty((length, network.n_features), dtype=dtype),
                    xp.arange(length),
                )
            batch = slice(start, start + length)
            yield record(functools.partial(predict, batch, *self._buffers[length]), mean)
        yield record(compute_loss, mean)


def scored_samples(device: Device, n: int, seed: int) -> Array | None:
    """Choose ``_SCORED`` samples at random; None means all samples, if there are no more.

    Samples at regular intervals would not do, since labels may alternate.
    """
    return None if n <= _SCORED else device.asarray(subset(n, _SCORED, seed), name="chosen")
