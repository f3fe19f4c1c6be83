"""The history of a training run: reports of cost, scores and time."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["History", "Report"]


@dataclass(frozen=True)
class Report:
    """The state of a run at the end of one reported epoch.

    Attributes
    ----------
    epoch : int
        Counted from 0.
    iteration : int
        Number of the epoch's first update, counted from 0. On a full batch, where an epoch is
        one update, the cost is that of the parameters before update ``iteration``.
    cost : float
        Mean loss over the epoch's samples, weighted as they are, and the penalties; each batch's
        before its update.
    learning_rate : float
        Of the last step.
    seconds : float
        Training time since the start, evaluation not counted.
    samples_per_second : float
        Since the last report.
    validation_cost, validation_accuracy : float or None
        After the epoch, on the validation data; None without. Accuracy is a fraction; under a loss
        for numbers it is that loss's score, the coefficient of determination R2.
    train_accuracy : float or None
        After the epoch, on the training data, or where there are more than 10,000 samples on
        10,000 of them, drawn once at random; None where :func:`fit` was not asked for it.
    last_cost : float or None
        The cost of the epoch's last batch alone, which is what the course prints.
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
    """The reports of one run.

    Attributes
    ----------
    reports : list of Report
    n_steps, n_samples : int
        Updates taken and samples seen, over the whole run.
    seconds : float
        Training time, evaluation not counted.
    interrupted : bool
        Whether the run was stopped by Ctrl-C. Its last step was a whole one.
    stopped_early : bool
        Whether early stopping ended the run before its last epoch.
    best_epoch : int or None
        The best reported epoch by what early stopping watches; None without.
    device, precision : str
        Where the run was, and what products of float32 matrices were computed in.
    captured : bool
        Whether steps were taken as CUDA graphs, but for the first of each batch size.
    score_name : str
        What the reports' accuracies are: ``"accuracy"``, or what a loss for numbers scores by.
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
        """The learning curve, as pairs of iteration and cost."""
        return [(report.iteration, report.cost) for report in self.reports]

    @property
    def samples_per_second(self) -> float:
        """Mean training throughput."""
        return self.n_samples / self.seconds if self.seconds > 0 else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Give everything as plain lists, dictionaries and numbers, ready for JSON.

        A number that is not finite, which JSON cannot say, is None. What is no accuracy is not
        called so: ``validation_accuracy`` is then ``validation_R2``.
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
    """Replace what is not finite, in lists and dictionaries too, by None."""
    if isinstance(value, dict):
        return {key: finite_or_none(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [finite_or_none(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
