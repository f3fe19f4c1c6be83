"""``fit``: the training loop, with epochs, minibatches, reports and early stopping."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import numpy.typing as npt

from xpnet.nn.augmentation import Augmentation
from xpnet.nn.losses import Loss
from xpnet.nn.network import Network
from xpnet.nn.optimizers import Optimizer
from xpnet.nn.regularization import MovingAverage, Regularizer
from xpnet.nn.schedules import Schedule
from xpnet.nn.step import TrainingStep
from xpnet.random import EpochOrder, epoch_order
from xpnet.training.arguments import OnReport, Options, Order, check_options, is_true
from xpnet.training.data import TrainingData, load_training_data
from xpnet.training.evaluation import Evaluation, scored_samples
from xpnet.training.execution import make_execution
from xpnet.training.history import History
from xpnet.training.interruption import Interruption
from xpnet.training.rates import Rates
from xpnet.training.recorder import LossRecorder
from xpnet.training.state import TrainingState, check_state
from xpnet.training.stopping import Best, EarlyStopping

__all__ = ["fit"]


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
        Network to train, in place, on its device and in its dtype.
    X : array_like, or sparse matrix or array of SciPy, (n_samples, n_features)
        Training samples. uint8 data keep their dtype in memory, a quarter of float32, and are
        converted when a minibatch is gathered; training on the full batch holds a converted copy as
        well.

        Sparse samples of any format stay sparse on the host and become dense when a minibatch is
        gathered; the results are those of ``X.toarray()``. Evaluation makes them dense batch by
        batch (:attr:`.Network.default_batch_size`), training on the full batch all at once. On CUDA
        the host waits for the device at every sparse minibatch.
    y : array_like (n_samples,) or (n_samples, n_outputs)
        Labels in the form that the loss requires.
    loss : str, dict or Loss
        Loss to minimise.
    optimizer : str, dict or Optimizer
        Update rule.
    epochs : int
        Number of passes over the training data.
    batch_size : int or None
        Number of samples in a minibatch. The last minibatch of an epoch may be smaller. None, or at
        least the number of samples, trains on the full batch.
    divide_by : float or None
        Divisor of ``X`` and of the validation data, only for dense uint8 data. 255 scales pixels to
        [0, 1].
    shuffle : bool or callable
        Whether to visit the samples in a new random order in each epoch. A function is called once
        per epoch with the epoch's number, from 0, and returns the order, an int64 array of the
        indices 0 to n_samples - 1. The order does not matter on the full batch.
    seed : int or None
        Seed of the order, of dropout masks and of augmentations; None takes the network's seed. A
        network with ``rng="numpy-legacy"`` visits the samples as in Andrew Ng's Deep Learning
        Specialization: epoch k, from 0, uses the order of ``RandomState(seed + k).permutation``.
    schedule : str, dict or Schedule
        Schedule of the learning rate.
    sample_weight : array_like (n_samples,), optional
        Weight of each sample, at least 0: a batch's loss is ``sum_i w_i l_i / sum_i w_i``. By
        default all weights are equal.
    class_weight : "balanced", list or dict, optional
        Factors on the weights of samples by class: a list with one factor for each class, or a dict
        with the factors that are not 1. "balanced" takes ``n / (n_classes n_of_the_class)``, so
        that all classes have the same total weight.
    l1, l2 : float
        Coefficients of penalties on the weights; see :class:`xpnet.nn.Regularizer`.
    penalty : {"mean", "sum", "batch"}
        Quantity to which the penalties are added. "mean": the mean loss. "sum": the sum of the
        losses over the training samples, before it is divided by their number (or the sum of their
        weights), as in Andrew Ng's Deep Learning Specialization. "batch": the sum of the losses
        over the batch, before it is divided by the batch's number of samples (or the sum of their
        weights), as in scikit-learn's networks. With "batch", a report's cost is the mean of the
        batches' costs weighted by their numbers of samples, even if samples have weights.
    clip_value, clip_norm : float or None
        Bounds of the gradient; see :class:`xpnet.nn.Regularizer`.
    average : float or None
        Decay of a moving average of the parameters, in [0, 1). Evaluation uses the average, and the
        network has it after training; see :class:`xpnet.nn.MovingAverage`. None for no average.
    augmentation : sequence of str, dict or Augmentation
        Random changes of the samples in every step, applied in order. Evaluation uses the original
        data.
    image_shape : tuple of int or None
        Shape of the images, ``(height, width)`` or ``(height, width, channels)``; each sample holds
        the features of an image in C order. Required by augmentations of images.
    early_stopping : EarlyStopping, optional
        Criterion to stop before the last epoch.
    validation : tuple (X, y) or (X, y, sample_weight), or None
        Validation data, evaluated at every report, optionally with sample weights. They influence
        training only through ``early_stopping`` and through a schedule that monitors them. ``X``
        may be sparse.
    state : TrainingState, optional
        State of an earlier run with this network and an equal optimizer, to resume from; it is
        changed in place. By default training starts with a new state.
    train_accuracy : bool
        Whether every report includes the accuracy on the training data, or on a sample of them; see
        :class:`Report`.
    capture : bool or None
        Whether to record a step and run several at a time: as a CUDA graph on a GPU, as a program
        on the CPU. The results are identical, and small networks train in a fraction of the time.
        None does so with fused kernels if the layers, the loss, the optimizer and the augmentations
        belong to xpnet. True does so on a GPU with your own classes, too: their steps must not
        allocate memory, and Python numbers in them must not change from step to step, since a graph
        repeats the recorded ones; see :class:`xpnet.nn.CapturedSteps`. On the CPU only xpnet's own
        classes can be recorded; see :class:`xpnet.nn.StepProgram`. Minibatches of sparse samples
        come from the host and cannot be recorded: for them None takes single steps, and True is an
        error.
    report_every : int
        Number of epochs between reports. The first and the last epoch are always reported.
    on_report : callable, optional
        Function called with each :class:`Report` while the device is active. If it returns True,
        the run ends. If it changes numbers of layers or of the optimizer, such as a dropout rate,
        pass ``capture=False``: recorded steps keep the numbers they were recorded with.

    Returns
    -------
    History

    Raises
    ------
    ValueError, TypeError
        If an argument is out of range or does not fit the network.
    DivergenceError
        If a loss is not finite, which is noticed at the next report, or if the parameters are not
        finite after the last update.

    Notes
    -----
    Ctrl-C ends the run after the current step, the current graph of up to sixteen steps, or the
    current call of a program, which takes at most 50 ms or one step. ``fit`` then returns with
    ``history.interrupted`` set and the weights of the last complete step. A second Ctrl-C raises
    ``KeyboardInterrupt`` immediately. See :class:`Interruption`.

    However the run ends, also with an error, the network is left with the averaged parameters if
    ``average`` is given, and with those of the best epoch if early stopping restores them.

    A batch whose weights are all 0 has gradient 0, but the state of the optimizer, such as a
    velocity, still moves the parameters.

    The loss is read from the device once per report, not once per step.
    """
    options = check_options(
        network,
        loss=loss,
        optimizer=optimizer,
        schedule=schedule,
        epochs=epochs,
        batch_size=batch_size,
        shuffle=shuffle,
        seed=seed,
        penalty=penalty,
        average=average,
        augmentation=augmentation,
        image_shape=image_shape,
        early_stopping=early_stopping,
        has_validation=validation is not None,
        train_accuracy=train_accuracy,
        capture=capture,
        report_every=report_every,
        on_report=on_report,
    )
    if state is not None:
        state = check_state(state, network)
    regularizer = Regularizer(l1=l1, l2=l2, clip_value=clip_value, clip_norm=clip_norm)
    data = load_training_data(
        network,
        options.loss,
        X,
        y,
        sample_weight=sample_weight,
        class_weight=class_weight,
        divide_by=divide_by,
        validation=validation,
    )
    regularizer = _scale_penalties(regularizer, penalty, data)
    callers_errstate = np.geterr()
    with network.device.activate(), Interruption() as interruption:
        run = _Run(network, options, data, regularizer, state, interruption)
        return run.train(callers_errstate)


def _scale_penalties(regularizer: Regularizer, penalty: str, data: TrainingData) -> Regularizer:
    """Return a regularizer whose penalties are added to the mean of the losses."""
    if penalty == "mean" or not regularizer.has_penalty:
        return regularizer
    total = data.total_weight
    if not 1e-300 < total < math.inf:
        raise ValueError(
            f"penalty={penalty!r} divides by the sum of the sample weights, which must be finite "
            f"and above 1e-300, got {total:g}"
        )
    divisor = total if penalty == "sum" else data.unit
    return Regularizer(
        l1=regularizer.l1 / divisor,
        l2=regularizer.l2 / divisor,
        clip_value=regularizer.clip_value,
        clip_norm=regularizer.clip_norm,
        per_batch=penalty == "batch",
    )


class _Run:
    """One call of ``fit``: everything that is created once, and the loop over epochs."""

    def __init__(
        self,
        network: Network,
        options: Options,
        data: TrainingData,
        regularizer: Regularizer,
        state: TrainingState | None,
        interruption: Interruption,
    ) -> None:
        device, optimizer = network.device, options.optimizer
        self.network, self.options, self.data = network, options, data
        self.interruption = interruption
        if state is None:
            state = TrainingState.start(network, optimizer)
        self.average = None if options.average is None else MovingAverage(network, options.average)
        weights = data.weights
        bind = functools.partial(
            TrainingStep,
            network,
            options.loss,
            optimizer,
            state.optimizer,
            data.X,
            data.y,
            divide_by=data.divide_by,
            weights=None if weights is None else device.asarray(weights, network.dtype),
            regularizer=regularizer,
            average=self.average,
            augmentations=options.augmentations,
            image_shape=options.image_shape,
            seed=options.seed,
            counter=state.steps,
        )
        n, batch_size = len(data), options.batch_size
        self.has_batches = batch_size is not None and batch_size < n
        self.steps = _bind_steps(bind, n, batch_size if self.has_batches else None)
        self.sizes = [step.batch_size for step in self.steps]
        self.sizes_as_weights = np.array(self.sizes, dtype=np.float64)
        self.rates = Rates(
            options.schedule,
            optimizer.learning_rate,
            state.optimizer,
            options.epochs,
            len(self.steps),
            network,
        )
        stopping = options.early_stopping
        self.best = None if stopping is None else Best(stopping, network, self.average)
        n_steps = min(options.report_every, options.epochs) * len(self.steps)
        self.recorder = LossRecorder(network, state.optimizer, n_steps)
        self.recorder.history.score_name = options.loss.score_name
        self.order, self.visited = device.asarray(np.arange(n), name="order"), np.arange(n)
        evaluation = functools.partial(
            Evaluation, network, options.loss, is_recorded=options.capture is not False, buffers={}
        )
        self.validation = self.on_training_data = None
        if data.held_out is not None:
            self.validation = evaluation(*data.held_out, data.divide_by)
        if options.train_accuracy:
            scored = scored_samples(device, n, options.seed)
            self.on_training_data = evaluation(data.X, data.y, None, data.divide_by, scored)
        self.execution = make_execution(self.steps, self.rates, options.capture)

    def train(self, callers_errstate: Any) -> History:
        """Run the epochs and leave the network with the right parameters however the run ends."""
        history, last = self.recorder.history, self.options.epochs - 1
        try:
            for epoch in range(self.options.epochs):
                is_cut_short = self.take_epoch(epoch)
                is_last = epoch == last or self.interruption.is_requested()
                if epoch % self.options.report_every == 0 or is_last:
                    stops = self.report(epoch, callers_errstate)
                    if self.interruption.is_requested():
                        history.interrupted = is_cut_short or epoch < last
                        break
                    if stops:
                        history.stopped_early = epoch < last
                        break
            if self.best is not None:
                history.best_epoch = self.best.epoch
            self.recorder.check_parameters()
            history.captured = self.execution.has_captured
            return history
        finally:
            self.execution.close()
            try:
                if self.average is not None:
                    self.average.keep()
            finally:
                if self.best is not None:
                    self.best.restore()

    def take_epoch(self, epoch: int) -> bool:
        """Take the steps of an epoch; return whether an interruption has cut it short."""
        self.shuffle(epoch)
        self.rates.begin_epoch(epoch)
        number, n_steps = 0, len(self.steps)
        while number < n_steps:
            n_taken, losses = self.execution.take(number, self.order)
            self.recorder.record(losses, n_taken)
            number += n_taken
            if self.interruption.is_requested():
                break
        self.recorder.end_epoch(sum(self.sizes[:number]), self.weights_of_steps()[:number])
        return number < n_steps

    def weights_of_steps(self) -> npt.NDArray[np.float64]:
        """Return the total weight of the samples in each of the epoch's steps."""
        weights = None if self.options.penalty == "batch" else self.data.weights
        if weights is None:
            return self.sizes_as_weights
        return np.add.reduceat(weights[self.visited], np.cumsum([0, *self.sizes[:-1]]))

    def shuffle(self, epoch: int) -> None:
        """Choose the order of the samples in an epoch and move it to the device."""
        shuffle, n = self.options.shuffle, len(self.data)
        if type(shuffle) is EpochOrder and shuffle.n == n:  # which need not be checked
            self.visited = shuffle(epoch)
        elif callable(shuffle):
            self.visited = _check_order(shuffle(epoch), n)
        elif shuffle and self.has_batches:
            self.visited = epoch_order(n, self.options.seed, epoch, self.network.rng)
        if shuffle and self.has_batches:
            self.order = self.network.device.asarray(self.visited, name="order")

    def report(self, epoch: int, callers_errstate: Any) -> bool:
        """Read the losses back, evaluate and report; return whether the run must end."""
        options, recorder = self.options, self.recorder
        cost = recorder.read()
        with nullcontext() if self.average is None else self.average.in_place():
            report = recorder.report(epoch, cost, *self.evaluate())
            if options.schedule.monitor is not None:
                options.schedule.observe(getattr(report, options.schedule.monitor))
            stops = self.best is not None and self.best.is_time_to_stop(report)
            if options.on_report is not None:
                with np.errstate(**callers_errstate):
                    stops |= is_true(options.on_report(report))
        recorder.resume()
        return stops

    def evaluate(self) -> tuple[tuple[float, float] | None, float | None]:
        """Return the cost and score on the validation data and the score on training samples."""
        validation = None if self.validation is None else self.validation()
        train_score = None if self.on_training_data is None else self.on_training_data()[1]
        return validation, train_score


def _bind_steps(
    bind: Callable[..., TrainingStep], n: int, batch_size: int | None
) -> list[TrainingStep]:
    """Create the steps of an epoch; steps of the same batch size are the same object."""
    if batch_size is None:
        return [bind()]
    n_whole, n_left = divmod(n, batch_size)
    steps = [bind(batch_size=batch_size)] * n_whole
    if n_left:
        steps.append(bind(batch_size=n_left))
    return steps


def _check_order(order: Any, n: int) -> npt.NDArray[np.int64]:
    """Return ``order`` as int64 if it is a permutation of the samples, else raise a ValueError."""
    found = np.asarray(order)
    if found.shape == (n,) and found.dtype.kind in "iu":
        found = found.astype(np.int64, copy=False)
        # As unsigned numbers, negative ones are large. If n indices miss none, none occurs twice.
        if found.view(np.uint64).max() < n and np.bincount(found, minlength=n).min():
            return found
    raise ValueError(
        f"shuffle must return each index from 0 to {n - 1} exactly once, got {order!r}"
    )
