"""The history of a training run: reports of cost, score and time."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["History", "Report"]


@dataclass(frozen=True)
class Report:
    """State of a run at the end of a reported epoch.

    Attributes
    ----------
    epoch : int
        Number of the epoch, from 0.
    iteration : int
        Number of the epoch's first update, from 0. On the full batch, where an epoch is a single
        update, the cost is that of the parameters before update ``iteration``.
    cost : float
        Weighted mean loss over the epoch's samples plus the penalties, where the loss of each batch
        is taken before its update.
    learning_rate : float
        Learning rate of the last step.
    seconds : float
        Training time since the start, without evaluation.
    samples_per_second : float
        Training throughput since the last report.
    validation_cost, validation_accuracy : float or None
        Cost and accuracy on the validation data after the epoch; None without validation data.
        Accuracy is a fraction; with a regression loss it is the coefficient of determination R2.
    train_accuracy : float or None
        Accuracy on the training data after the epoch, or, if there are more than 10,000 samples, on
        10,000 of them, drawn once at random. None unless :func:`fit` is called with
        ``train_accuracy=True``.
    last_cost : float or None
        Cost of the epoch's last batch, which is what the exercises of Andrew Ng's Deep Learning
        Specialization print.
    """

    epoch: int
    iteration: int
    cost: float
    learning_rate: float
    seconds: float
    samples_per_second: float
    validation_cost: float | None = None
    validation_accuracy: float | None = None
    train_accuracy: float | None = None
    last_cost: float | None = None


@dataclass
class History:
    """Reports and totals of a training run.

    Attributes
    ----------
    reports : list of Report
        Reports in the order of epochs.
    n_steps, n_samples : int
        Number of updates taken and of samples seen in the whole run.
    seconds : float
        Training time without evaluation.
    interrupted : bool
        Whether Ctrl-C stopped the run. The last step was completed.
    stopped_early : bool
        Whether early stopping or ``on_report`` ended the run before its last epoch.
    best_epoch : int or None
        Best reported epoch according to early stopping; None without early stopping.
    device, precision : str
        Device of the run and precision of products of float32 matrices.
    captured : bool
        Whether steps were run as CUDA graphs or CPU programs, except the first of each batch size.
    score_name : str
        Name of the reports' accuracies: ``"accuracy"``, or ``"R2"`` for a regression loss.
    """

    reports: list[Report] = field(default_factory=list)
    n_steps: int = 0
    n_samples: int = 0
    seconds: float = 0.0
    interrupted: bool = False
    stopped_early: bool = False
    best_epoch: int | None = None
    device: str = "cpu"
    precision: str = "float32"
    captured: bool = False
    score_name: str = "accuracy"

    @property
    def cost(self) -> list[tuple[int, float]]:
        """Learning curve, as pairs of iteration and cost."""
        return [(report.iteration, report.cost) for report in self.reports]

    @property
    def samples_per_second(self) -> float:
        """Mean training throughput."""
        return self.n_samples / self.seconds if self.seconds > 0 else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return everything as lists, dictionaries and numbers, ready for JSON.

        Numbers that are not finite, which JSON cannot represent, become None. With a regression
        loss the key ``validation_accuracy`` becomes ``validation_R2``.
        """
        own = asdict(self)
        score = own.pop("score_name")
        own["reports"] = [
            {key.replace("accuracy", score): value for key, value in report.items()}
            for report in own["reports"]
        ]
        cost = [list(pair) for pair in self.cost]
        plain: dict[str, Any] = finite_or_none(
            {"cost": cost, **own, "samples_per_second": self.samples_per_second}
        )
        return plain


def finite_or_none(value: Any) -> Any:
    """Replace numbers that are not finite by None, also inside lists and dictionaries."""
    if isinstance(value, dict):
        return {key: finite_or_none(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [finite_or_none(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
