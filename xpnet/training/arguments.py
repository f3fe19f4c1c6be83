"""Check the arguments of ``fit`` and resolve names to objects."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from xpnet.nn.augmentation import Augmentation, check_image_shape
from xpnet.nn.checks import check_count, check_flag, check_fraction
from xpnet.nn.losses import Loss
from xpnet.nn.network import Network
from xpnet.nn.optimizers import Optimizer
from xpnet.nn.schedules import MONITORS, Schedule
from xpnet.random import check_seed
from xpnet.training.history import Report
from xpnet.training.stopping import EarlyStopping

__all__ = ["OnReport", "Options", "Order", "check_options", "is_true"]

OnReport: TypeAlias = Callable[[Report], Any]
Order: TypeAlias = Callable[[int], npt.NDArray[np.int64]]


@dataclass(frozen=True)
class Options:
    """The arguments of ``fit`` except the data, with names resolved to objects."""

    loss: Loss
    optimizer: Optimizer
    schedule: Schedule
    epochs: int
    batch_size: int | None
    shuffle: bool | Order
    seed: int
    penalty: str
    average: float | None
    augmentations: list[Augmentation]
    image_shape: tuple[int, ...] | None
    early_stopping: EarlyStopping | None
    train_accuracy: bool
    capture: bool | None
    report_every: int
    on_report: OnReport | None


def check_options(
    network: Network,
    *,
    loss: str | dict[str, Any] | Loss,
    optimizer: str | dict[str, Any] | Optimizer,
    schedule: str | dict[str, Any] | Schedule,
    epochs: int,
    batch_size: int | None,
    shuffle: bool | Order,
    seed: int | None,
    penalty: str,
    average: float | None,
    augmentation: Sequence[str | dict[str, Any] | Augmentation],
    image_shape: tuple[int, ...] | None,
    early_stopping: EarlyStopping | None,
    has_validation: bool,
    train_accuracy: bool,
    capture: bool | None,
    report_every: int,
    on_report: OnReport | None,
) -> Options:
    """Check the arguments of :func:`xpnet.training.fit` and resolve names.

    Raises
    ------
    ValueError, TypeError
        If an argument is out of range, or does not fit another one or the network.
    """
    if on_report is not None and not callable(on_report):
        raise ValueError(f"on_report must be callable, got {on_report!r}")
    if not isinstance(shuffle, bool) and not callable(shuffle):
        raise ValueError(f"shuffle must be true, false or a function, got {shuffle!r}")
    if capture is not None and not isinstance(capture, bool):
        raise ValueError(f"capture must be true, false or None, got {capture!r}")
    if early_stopping is not None and not isinstance(early_stopping, EarlyStopping):
        raise ValueError(f"early_stopping must be an EarlyStopping, got {early_stopping!r}")
    if network.rng == "numpy-legacy":
        check_seed(network.seed if seed is None else check_seed(seed), bits=32)
    if penalty not in ("mean", "sum", "batch"):
        raise ValueError(f"penalty must be 'mean', 'sum' or 'batch', got {penalty!r}")
    if not isinstance(augmentation, (list, tuple)):
        raise ValueError(f"augmentation must be a list of augmentations, got {augmentation!r}")
    options = Options(
        loss=Loss.resolve(loss),
        optimizer=Optimizer.resolve(optimizer),
        schedule=Schedule.resolve(schedule).clone(),
        epochs=check_count("epochs", epochs),
        batch_size=None if batch_size is None else check_count("batch_size", batch_size),
        shuffle=shuffle,
        seed=network.seed if seed is None else check_seed(seed),
        penalty=penalty,
        average=None if average is None else check_fraction("average", average),
        augmentations=[Augmentation.resolve(item) for item in augmentation],
        image_shape=None
        if image_shape is None
        else check_image_shape(image_shape, network.n_features),
        early_stopping=early_stopping,
        train_accuracy=check_flag("train_accuracy", train_accuracy),
        capture=capture,
        report_every=check_count("report_every", report_every),
        on_report=on_report,
    )
    _check_monitors(options, has_validation=has_validation)
    return options


def _check_monitors(options: Options, *, has_validation: bool) -> None:
    """Raise a ValueError if a schedule or early stopping monitors a number that is not measured."""
    schedule, early_stopping = options.schedule, options.early_stopping
    if schedule.per not in ("epoch", "step"):
        raise ValueError(f"schedule.per must be 'epoch' or 'step', got {schedule.per!r}")
    if schedule.monitor not in (None, *MONITORS):
        raise ValueError(
            f"schedule.monitor must be one of {', '.join(map(repr, MONITORS))}, got "
            f"{schedule.monitor!r}"
        )
    for name, monitor in (
        ("schedule", schedule.monitor),
        ("early_stopping", early_stopping and early_stopping.monitor),
    ):
        if monitor and monitor.startswith("validation") and not has_validation:
            raise ValueError(f"{name} monitors {monitor}: pass validation data as well")
        if monitor == "train_accuracy" and not options.train_accuracy:
            raise ValueError(f"{name} monitors train_accuracy: pass train_accuracy=True as well")


def is_true(answer: Any) -> bool:
    """Return whether a callback returned True, of Python or NumPy; other values do not count."""
    return isinstance(answer, (bool, np.bool_)) and bool(answer)
