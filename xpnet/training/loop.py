"""The training loop: epochs, minibatches, reports, and the ways a run can end."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from xpnet.device import Device
from xpnet.kernels.reference import Array
from xpnet.nn.augmentation import check_image_shape
from xpnet.nn.base import Augmentation, Loss, Optimizer, Schedule, check_count, check_fraction
from xpnet.nn.network import Network, check_divisor, check_samples
from xpnet.nn.regularization import MovingAverage, Regularizer
from xpnet.nn.schedules import MONITORS
from xpnet.nn.sparse import SparseSamples, is_sparse
from xpnet.nn.step import TrainingStep
from xpnet.random import check_seed, epoch_order, subset
from xpnet.training.history import History, Report
from xpnet.training.interruption import Interruption
from xpnet.training.pace import make_pace
from xpnet.training.rates import Rates
from xpnet.training.state import TrainingState, check_state
from xpnet.training.stopping import Best, EarlyStopping
from xpnet.training.weights import sample_weights

__all__ = ["DivergenceError", "OnReport", "Order", "evaluate", "fit", "is_true", "samples"]

OnReport: TypeAlias = Callable[[Report], Any]
Order: TypeAlias = Callable[[int], npt.NDArray[np.int64]]
_CAPACITY = 65_536  # losses that wait on the device between two reports
_SCORED = 10_000  # training samples that a report's accuracy is measured on
# What to do about samples that a GPU has no room for.
_TOO_LARGE = "train on fewer samples, or on the CPU"
_BYTES = "give bytes (uint8), with divide_by, where that will do"
_TOO_WIDE = {
    "float32": _BYTES,
    "float64": f"make the network float32, which takes half; {_BYTES}",
}


class DivergenceError(ArithmeticError):
    """The loss or the parameters became infinite or nan.

    Attributes
    ----------
    step : int
        The first update, counted from 0, whose loss was not finite; or the last one, where the
        loss was still finite and the update's result was not.
    learning_rate : float
        The learning rate when it was noticed.
    """

    def __init__(self, step: int, learning_rate: float) -> None:
        super().__init__(
            f"loss or parameters were no longer finite at step {step} with learning rate "
            f"{learning_rate:g}: try a smaller learning rate, inputs scaled to about unit size, "
            "or a smaller initialisation"
        )
        self.step = step
        self.learning_rate = learning_rate

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle by what it was made from, not by its message."""
        return type(self), (self.step, self.learning_rate)


def fit(
    network: Network,
    X: Any,
    y: Any,
    *,
    loss: str | dict[str, Any] | Loss,
    optimizer: str | dict[str, Any] | Optimizer,
    epochs: int,
    batch_size: int | None = None,
    divide_by: float | None = None,
    shuffle: bool | Order = True,
    seed: int | None = None,
    schedule: str | dict[str, Any] | Schedule = "constant",
    sample_weight: Any = None,
    class_weight: str | Sequence[float] | Mapping[int, float] | None = None,
    l1: float = 0.0,
    l2: float = 0.0,
    penalty: str = "mean",
    clip_value: float | None = None,
    clip_norm: float | None = None,
    average: float | None = None,
    augmentation: Sequence[str | dict[str, Any] | Augmentation] = (),
    image_shape: tuple[int, ...] | None = None,
    early_stopping: EarlyStopping | None = None,
    validation: tuple[Any, Any] | tuple[Any, Any, Any] | None = None,
    state: TrainingState | None = None,
    train_accuracy: bool = False,
    capture: bool | None = None,
    report_every: int = 1,
    on_report: OnReport | None = None,
) -> History:
    """Train a network.

    Parameters
    ----------
    network : Network
        Trained in place, on its device and in its dtype.
    X : array_like, or sparse matrix or array of SciPy, (n_samples, n_features)
        Bytes (uint8) stay bytes in memory, a quarter of float32, and become numbers as each
        minibatch is gathered. Training on the full batch holds the numbers as well.

        Sparse samples, of whatever format, stay so on the host and become dense as each minibatch
        is gathered, with the results of ``X.toarray()``; what is evaluated becomes dense batch by
        batch (:attr:`.Network.default_batch_size`), and the full batch as a whole. On CUDA the host
        waits for the device at every minibatch.
    y : array_like (n_samples,) or (n_samples, n_outputs)
        Labels, as the loss asks for them.
    loss : str, dict or Loss
    optimizer : str, dict or Optimizer
    epochs : int
        Passes over the data.
    batch_size : int or None
        Samples in a minibatch; the last of an epoch holds what is left. None, or no fewer than
        there are samples, trains on the full batch.
    divide_by : float or None
        What bytes are divided by, of ``X`` and of the validation data: 255 brings pixels to
        [0, 1]. Only for bytes, and not for sparse ones.
    shuffle : bool or callable
        Whether each epoch visits the samples in a new random order; or a function that is called
        once an epoch, with its number from 0, and gives the order, an int64 array of the indices 0
        to n_samples - 1. On a full batch there is no order.
    seed : int or None
        Seed of the order, and of what layers draw; None takes the network's seed. A network with
        ``rng="numpy-legacy"`` visits the samples as the course does: in epoch k, from 0, in the
        order of ``RandomState(seed + k).permutation``.
    schedule : str, dict or Schedule
        What becomes of the optimizer's learning rate.
    sample_weight : array_like (n_samples,), optional
        How much each sample counts, at least 0: a batch's loss is ``sum_i w_i l_i / sum_i w_i``.
    class_weight : "balanced", list or dict, optional
        Factors on the samples' weights, by class: one for each, or those that are not 1. Balanced
        is ``n / (n_classes n_of_the_class)``, so that all classes weigh the same.
    l1, l2 : float
        Coefficients of penalties on the weights; see :class:`xpnet.nn.Regularizer`.
    penalty : {"mean", "sum", "batch"}
        What the penalties are added to: the mean of the losses; or, as the course has it, their sum
        over the training samples, before it is divided by their number (the sum of their weights);
        or, as scikit-learn's networks have it, their sum over the batch, before it is divided by
        the number of the batch (the sum of its weights). With the last, a report's cost is the mean
        of the batches' costs by their numbers of samples, also where samples have weights.
    clip_value, clip_norm : float or None
        Bounds of the gradient; see :class:`xpnet.nn.Regularizer`.
    average : float or None
        Decay of a moving average of the parameters, in [0, 1), which is what is evaluated, and what
        the network has in the end; see :class:`xpnet.nn.MovingAverage`.
    augmentation : sequence of str, dict or Augmentation
        What is done to the samples of every step at random, one after another. What is evaluated
        is the data as they are.
    image_shape : tuple of int or None
        ``(height, width)`` or ``(height, width, channels)``, in whose C order the features of a
        sample lie; augmentations of images need it.
    early_stopping : EarlyStopping, optional
        When to stop before the last epoch.
    validation : tuple (X, y) or (X, y, sample_weight), or None
        Evaluated at every report, with weights as for training. It has no influence on the training
        but through ``early_stopping`` and a schedule that watches it. Its ``X`` may be sparse, too.
    state : TrainingState, optional
        What an earlier run with this network and an equal optimizer has left, to go on from; it is
        changed in place. By default a new one, with which a run begins.
    capture : bool or None
        Whether steps are taken as CUDA graphs of many, which gives the same bits and takes a small
        network a fraction of the time. None does so on a GPU with fused kernels where the layers,
        the loss, the optimizer and the augmentations are xpnet's own. True does it with others as
        well: their steps must ask for no memory, and no number of Python's in them may change from
        step to step, for a graph repeats those that it was recorded with. See
        :class:`xpnet.nn.CapturedSteps`. Minibatches of sparse samples come from the host, which
        no graph can hold: None takes single steps there, and True is an error.
    train_accuracy : bool
        Whether every report also measures the accuracy on the training data, or on some of them;
        see :class:`Report`.
    report_every : int
        Epochs between reports. The first and the last epoch are always reported.
    on_report : callable, optional
        Called with each :class:`Report`, the device being active. If it returns True, the run ends.

    Returns
    -------
    History

    Raises
    ------
    ValueError, TypeError
        If an argument does not fit the network or is out of range.
    DivergenceError
        If a loss is not finite, noticed at the next report, or the last update leaves parameters
        that are not.

    Notes
    -----
    Ctrl-C ends the run after the step in progress, or the graph of up to sixteen steps: ``fit``
    returns with ``history.interrupted`` set and the weights of the last whole step; a second one
    raises ``KeyboardInterrupt`` at once. See :class:`Interruption`.

    However a run ends, also by an error, a network that is averaged is left with the average, and
    one whose best epoch is to be restored with that.

    A batch whose samples all have the weight 0 has the gradient 0; what an optimizer carries along,
    such as a velocity, still moves the parameters.

    The loss is read back from the device once per report, not once per step.
    """
    loss = Loss.resolve(loss)
    optimizer = Optimizer.resolve(optimizer)
    schedule = Schedule.resolve(schedule).clone()
    epochs = check_count("epochs", epochs)
    report_every = check_count("report_every", report_every)
    if batch_size is not None:
        batch_size = check_count("batch_size", batch_size)
    if on_report is not None and not callable(on_report):
        raise ValueError(f"on_report must be callable, got {on_report!r}")
    seed = network.seed if seed is None else check_seed(seed)
    if not isinstance(shuffle, bool) and not callable(shuffle):
        raise ValueError(f"shuffle must be true, false or a function, got {shuffle!r}")
    if capture is not None and not isinstance(capture, bool):
        raise ValueError(f"capture must be true, false or None, got {capture!r}")
    if not isinstance(train_accuracy, bool):
        raise ValueError(f"train_accuracy must be true or false, got {train_accuracy!r}")
    if early_stopping is not None and not isinstance(early_stopping, EarlyStopping):
        raise ValueError(f"early_stopping must be an EarlyStopping, got {early_stopping!r}")
    if state is not None:
        state = check_state(state, network)
    if average is not None:
        average = check_fraction("average", average)
    if network.rng == "numpy-legacy":
        check_seed(seed, bits=32)
    if penalty not in ("mean", "sum", "batch"):
        raise ValueError(f"penalty must be 'mean', 'sum' or 'batch', got {penalty!r}")
    if not isinstance(augmentation, (list, tuple)):
        raise ValueError(f"augmentation must be a sequence of them, got {augmentation!r}")
    augmentations = [Augmentation.resolve(item) for item in augmentation]
    if image_shape is not None:
        image_shape = check_image_shape(image_shape, network.n_features)
    device = network.device
    X_data, y_data = samples(network, loss, X, y, "")
    regularizer = Regularizer(l1=l1, l2=l2, clip_value=clip_value, clip_norm=clip_norm)
    weights, unit = sample_weights(
        sample_weight, class_weight, y_data, device, loss=loss, n_outputs=network.n_outputs
    )
    if penalty != "mean" and regularizer.has_penalty:
        total = float(len(X_data)) if weights is None else float(weights.sum()) * unit
        if not 1e-300 < total < math.inf:
            raise ValueError(
                f"the weights of the samples sum to {total:g}: penalty={penalty!r} cannot divide "
                "by that"
            )
        divisor = total if penalty == "sum" else unit
        regularizer = Regularizer(
            l1=regularizer.l1 / divisor,
            l2=regularizer.l2 / divisor,
            clip_value=clip_value,
            clip_norm=clip_norm,
            per_batch=penalty == "batch",
        )
    divide_by = check_divisor(divide_by, X_data, network.dtype)
    held_out = None
    if validation is not None:
        if not isinstance(validation, (tuple, list)) or len(validation) not in (2, 3):
            raise ValueError(
                "validation must be a pair (X, y), or with weights (X, y, sample_weight), got "
                f"{type(validation).__name__}"
            )
        X_held_out, y_held_out = samples(network, loss, *validation[:2], "validation ")
        check_divisor(divide_by, X_held_out, network.dtype, name="validation X")
        shares = _shares(network, loss, y_held_out, *validation[2:])
        held_out = X_held_out, y_held_out, shares
    n = len(X_data)
    if batch_size is not None and batch_size >= n:
        batch_size = None
    if schedule.per not in ("epoch", "step"):
        raise ValueError(f"schedule must be per 'epoch' or 'step', got {schedule.per!r}")
    if schedule.monitor not in (None, *MONITORS):
        raise ValueError(
            f"schedule must watch one of {', '.join(map(repr, MONITORS))}, got {schedule.monitor!r}"
        )
    for name, watched in (
        ("schedule", schedule.monitor),
        ("early_stopping", early_stopping and early_stopping.monitor),
    ):
        if watched and watched.startswith("validation") and held_out is None:
            raise ValueError(f"{name} watches {watched}: pass validation data as well")
        if watched == "train_accuracy" and not train_accuracy:
            raise ValueError(f"{name} watches train_accuracy: pass train_accuracy=True as well")
    callers_errstate = np.geterr()
    with device.activate(), Interruption() as interruption:
        if state is None:
            state = TrainingState.start(network, optimizer)
        averaged = None if average is None else MovingAverage(network, average)
        bind = functools.partial(
            TrainingStep,
            network,
            loss,
            optimizer,
            state.optimizer,
            X_data,
            y_data,
            divide_by=divide_by,
            weights=None if weights is None else device.asarray(weights, network.dtype),
            regularizer=regularizer,
            average=averaged,
            augmentations=augmentations,
            image_shape=image_shape,
            seed=seed,
            counter=state.steps,
        )
        steps = _bind_steps(bind, n, batch_size)
        sizes, n_steps = [step.batch_size for step in steps], len(steps)
        rates = Rates(schedule, optimizer.learning_rate, state.optimizer, epochs, n_steps, network)
        best = None if early_stopping is None else Best(early_stopping, network, averaged)
        recorder = _Recorder(network, state.optimizer, min(report_every, epochs) * n_steps)
        recorder.history.score_name = loss.score_name
        order, visited = device.asarray(np.arange(n), name="order"), np.arange(n)
        scored = _scored(device, n, seed) if train_accuracy else None
        parts = [network, *network.layers, loss, optimizer, *augmentations]
        pace = make_pace(steps, rates, capture, parts)
        try:
            for epoch in range(epochs):
                if callable(shuffle):
                    visited = _check_order(shuffle(epoch), n)
                elif shuffle and batch_size is not None:
                    visited = epoch_order(n, seed, epoch, network.rng)
                if shuffle and batch_size is not None:
                    order = device.asarray(visited, name="order")
                rates.begin_epoch(epoch)
                counts = _counts(steps, None if penalty == "batch" else weights, visited)
                number = 0
                while number < n_steps:
                    n_taken, losses = pace.take(number, order)
                    recorder.record(losses, n_taken)
                    number += n_taken
                    if interruption.is_requested():
                        break
                recorder.end_epoch(sizes[:number], counts[:number])
                is_cut_short = number < n_steps
                is_last = epoch == epochs - 1 or interruption.is_requested()
                if epoch % report_every == 0 or is_last:
                    cost_of_epoch = recorder.read()
                    scores = fitted = None
                    with nullcontext() if averaged is None else averaged.in_place():
                        if held_out is not None:
                            scores = _evaluate(network, loss, *held_out, divide_by)
                        if train_accuracy:
                            data = X_data, y_data, None
                            fitted = _evaluate(network, loss, *data, divide_by, scored)[1]
                        report = recorder.report(epoch, cost_of_epoch, scores, fitted)
                        if schedule.monitor is not None:
                            schedule.observe(getattr(report, schedule.monitor))
                        stops = best is not None and best.is_time_to_stop(report)
                        if on_report is not None:
                            with np.errstate(**callers_errstate):
                                stops |= is_true(on_report(report))
                    recorder.resume()
                    if interruption.is_requested():
                        recorder.history.interrupted = is_cut_short or epoch < epochs - 1
                        break
                    if stops:
                        recorder.history.stopped_early = epoch < epochs - 1
                        break
            if best is not None:
                recorder.history.best_epoch = best.epoch
            recorder.check_parameters()
            recorder.history.captured = pace.has_captured
            return recorder.history
        finally:
            pace.close()
            try:
                if averaged is not None:
                    averaged.keep()
            finally:
                if best is not None:
                    best.restore()


def _counts(
    steps: list[TrainingStep],
    weights: npt.NDArray[np.float64] | None,
    visited: npt.NDArray[np.int64],
) -> list[float]:
    """Tell how much the samples of each step count together."""
    sizes = [step.batch_size for step in steps]
    if weights is None:
        return [float(size) for size in sizes]
    counts: list[float] = np.add.reduceat(weights[visited], np.cumsum([0, *sizes[:-1]])).tolist()
    return counts


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
        Read only.
    loss : str, dict or Loss
    X : array_like, or sparse matrix or array of SciPy, (n_samples, n_features)
        Sparse samples become dense batch by batch (:attr:`.Network.default_batch_size`).
    y : array_like
        Labels, as the loss asks for them.
    divide_by : float or None
        As for :func:`fit`.
    sample_weight : array_like (n_samples,), optional
        How much each sample counts, in the mean loss and in the accuracy.

    Returns
    -------
    cost : float
        Mean loss.
    accuracy : float
        Fraction of the samples whose prediction is right, in every output where there are
        several; with a loss for regression, the coefficient of determination.

    Raises
    ------
    ValueError, TypeError
        If the data do not fit the network.
    """
    loss = Loss.resolve(loss)
    X_data, y_data = samples(network, loss, X, y, "")
    shares = _shares(network, loss, y_data, sample_weight)
    return _evaluate(network, loss, X_data, y_data, shares, divide_by)


def _bind_steps(
    bind: Callable[..., TrainingStep], n: int, batch_size: int | None
) -> list[TrainingStep]:
    """Make the steps of one epoch; those of one size are the same object."""
    if batch_size is None:
        return [bind()]
    n_whole, n_left = divmod(n, batch_size)
    steps = [bind(batch_size=batch_size)] * n_whole
    if n_left:
        steps.append(bind(batch_size=n_left))
    return steps


class _Recorder:
    """Keeps the losses of the steps on the device until a report reads them all at once.

    Parameters
    ----------
    network : Network
    state : dict
        The optimizer's.
    n_steps : int
        Most steps between two reports.
    """

    def __init__(self, network: Network, state: dict[str, Array], n_steps: int) -> None:
        self.history = History(device=network.device.name, precision=network.device.precision)
        self._network = network
        self._device = network.device
        self._state = state
        self._on_device = network.device.xp.empty(min(n_steps, _CAPACITY), dtype=network.dtype)
        self._filled = 0
        self.resume()

    def resume(self) -> None:
        """Start an interval, and its clock."""
        self._losses: list[npt.NDArray[np.float64]] = []
        self._sizes: list[int] = []
        self._weights: list[float] = []
        self._resumed = time.perf_counter()

    def record(self, losses: Array, n_steps: int) -> None:
        """Take the losses of some steps."""
        filled = self._filled + n_steps
        if filled > len(self._on_device):
            self._fetch()
            filled = n_steps
        self._on_device[self._filled : filled] = losses
        self._filled = filled

    def end_epoch(self, batch_sizes: list[int], weights: list[float]) -> None:
        """Take the sizes of an epoch's steps, and how much their samples count."""
        self._epoch_start = len(self._sizes)
        self._sizes += batch_sizes
        self._weights += weights

    def _fetch(self) -> None:
        filled = self._device.to_host(self._on_device[: self._filled])
        self._losses.append(filled.astype(np.float64))
        self._filled = 0

    def read(self) -> float:
        """Read the costs back and give the mean over the epoch's samples."""
        history = self.history
        self._fetch()
        losses = np.concatenate(self._losses)
        self._elapsed = time.perf_counter() - self._resumed
        finite = np.isfinite(losses)
        if not finite.all():
            raise DivergenceError(history.n_steps + int(np.argmin(finite)), self._learning_rate())
        history.seconds += self._elapsed
        history.n_steps += len(losses)
        history.n_samples += sum(self._sizes)
        of_epoch = slice(self._epoch_start, None)
        self._last = float(losses[-1])
        weights = np.array(self._weights[of_epoch])
        return float(np.average(losses[of_epoch], weights=weights if weights.any() else None))

    def report(
        self,
        epoch: int,
        cost: float,
        scores: tuple[float, float] | None,
        train_accuracy: float | None,
    ) -> Report:
        """Note what was read; ``scores`` are the cost and accuracy on the validation data."""
        history = self.history
        validation_cost, validation_accuracy = scores or (None, None)
        history.reports.append(
            Report(
                epoch=epoch,
                iteration=history.n_steps - (len(self._sizes) - self._epoch_start),
                cost=cost,
                learning_rate=self._learning_rate(),
                seconds=history.seconds,
                samples_per_second=sum(self._sizes) / max(self._elapsed, 1e-9),
                validation_cost=validation_cost,
                validation_accuracy=validation_accuracy,
                train_accuracy=train_accuracy,
                last_cost=self._last,
            )
        )
        return history.reports[-1]

    def check_parameters(self) -> None:
        """Raise a DivergenceError if the latest update, which no loss has seen, went wrong."""
        network, xp = self._network, self._device.xp
        if not all(bool(xp.isfinite(a).all()) for a in (network.parameters, network.statistics)):
            raise DivergenceError(self.history.n_steps - 1, self._learning_rate())

    def _learning_rate(self) -> float:
        return float(self._device.to_host(self._state["learning_rate"])[0])


def _evaluate(
    network: Network,
    loss: Loss,
    X: Array | SparseSamples,
    y: Array,
    shares: Array | None,
    divide_by: float | None,
    chosen: Array | None = None,
) -> tuple[float, float]:
    """Give the mean loss and the accuracy on all samples, or on those that are chosen.

    ``shares`` are the samples' parts in both.
    """
    device = network.device
    with device.activate():
        if chosen is None:
            logits = device.asarray(network.predict(X, divide_by=divide_by))
        else:  # they may be many: not all at once
            n = network.default_batch_size
            rows = [chosen[start : start + n] for start in range(0, len(chosen), n)]
            logits = device.xp.concatenate(
                [device.asarray(network.predict(X[some], divide_by=divide_by)) for some in rows]
            )
            y = y[chosen]
        losses = device.xp.empty(len(logits), dtype=network.dtype)
        mean = device.xp.empty(1, dtype=network.dtype)
        weighted = () if shares is None else (shares,)
        loss.forward(device.ops, logits, y, losses, mean, None, *weighted)
        score = loss.score(device.ops, logits, y, *weighted)
        return float(device.to_host(mean)[0]), float(device.to_host(score))


def samples(
    network: Network, loss: Loss, X: Any, y: Any, prefix: str
) -> tuple[Array | SparseSamples, Array]:
    """Bring samples and labels over the border, checked; bytes stay bytes, sparse ones sparse."""
    is_bytes = getattr(X, "dtype", None) == np.uint8
    dtype = None if is_bytes else network.dtype
    advice = _TOO_LARGE if is_bytes else f"{_TOO_WIDE[network.dtype.name]}; {_TOO_LARGE}"
    X_data: Array | SparseSamples
    if is_sparse(X):
        check_samples(X, network.n_features, name=f"{prefix}X")
        X_data = SparseSamples(X, network.device, network.dtype, name=f"{prefix}X")
    else:
        X_data = network.device.asarray(X, dtype, name=f"{prefix}X", advice=advice)
        check_samples(X_data, network.n_features, name=f"{prefix}X")
    if len(X_data) == 0:
        raise ValueError(f"{prefix}X must hold at least one sample, got none")
    if not is_bytes:
        _check_finite(network.device, X_data, f"{prefix}X")
    y_data = loss.labels(network.device, y, network.n_outputs, network.dtype, name=f"{prefix}y")
    if len(y_data) != len(X_data):
        raise ValueError(
            f"{prefix}X and {prefix}y must have one length, got {len(X_data)} samples and "
            f"{len(y_data)} labels"
        )
    return X_data, y_data


def _shares(network: Network, loss: Loss, labels: Array, sample_weight: Any = None) -> Array | None:
    """Give the parts in the mean of samples that do not count the same, in the network's dtype."""
    device, n_outputs = network.device, network.n_outputs
    weights, _ = sample_weights(sample_weight, None, labels, device, loss=loss, n_outputs=n_outputs)
    if weights is None:
        return None
    return device.asarray(weights / weights.sum(), network.dtype, name="sample_weight")


def is_true(answer: Any) -> bool:
    """Tell whether a callback's answer is True, Python's or NumPy's; others may mean anything."""
    return isinstance(answer, (bool, np.bool_)) and bool(answer)


def _check_order(order: Any, n: int) -> npt.NDArray[np.int64]:
    """Return an order of the samples if it is one, or raise a ValueError."""
    found = np.asarray(order)
    is_order = found.shape == (n,) and found.dtype.kind in "iu"
    is_order = is_order and found.min() >= 0 and found.max() < n
    if not is_order or not (np.bincount(found, minlength=n) == 1).all():
        raise ValueError(f"shuffle must give the indices 0 to {n - 1} in some order, got {order!r}")
    return found.astype(np.int64, copy=False)


def _scored(device: Device, n: int, seed: int) -> Array | None:
    """Choose ``_SCORED`` samples at random, or None, for all, where there are no more.

    Not every so-many-th: labels may come in turn.
    """
    return None if n <= _SCORED else device.asarray(subset(n, _SCORED, seed), name="chosen")


def _check_finite(device: Device, X: Array | SparseSamples, name: str) -> None:
    xp, values = (np, X.data) if isinstance(X, SparseSamples) else (device.xp, X)
    with device.activate(), np.errstate(all="ignore"):
        # A sum costs one pass and no memory; only if it is not finite is every element looked at.
        if bool(xp.isfinite(values.sum())):
            return
        n_bad = int((~xp.isfinite(values)).sum())
        if n_bad:
            raise ValueError(f"{name} must be finite, got {n_bad} values that are nan or infinite")
