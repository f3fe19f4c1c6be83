"""Ioffe & Szegedy 2015: epochs to reach an accuracy with and without batch normalisation."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from bench import markdown, pictures
from bench.experiments import fashion
from bench.experiments.experiment import Experiment, Results, Section
from xpnet.training import DivergenceError

__all__ = ["EXPERIMENT"]

ACTIVATIONS = ("sigmoid", "relu")
RATES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
SEEDS = (0, 1, 2)
EPOCHS = 15
TARGET = 0.85
UNITS = 100


def _layers(activation: str, normalised: bool, units: int) -> str:
    """Write the layers as TOML."""
    plain = f'{{ type = "dense", units = {units}, activation = "{activation}" }}'
    init = "he_normal" if activation == "relu" else "xavier_uniform"
    ours = (
        f'{{ type = "dense", units = {units}, bias = false, init = "{init}" }}, '
        f'{{ type = "batch_norm" }}, {{ type = "{activation}" }}'
    )
    return f'[{f"{ours if normalised else plain}, " * 3}{{ type = "dense", units = 10 }}]'


def _run(
    activation: str, normalised: bool, units: int, changes: list[str], rate: float, seeds: list[int]
) -> list[dict[str, Any]]:
    own = [
        f"network.layers={_layers(activation, normalised, units)}",
        f"optimizer.learning_rate={rate}",
        *changes,
    ]
    found: list[dict[str, Any]] = []
    for seed in seeds:
        try:
            result = fashion.run("batch_norm", own, seed=seed)
        except DivergenceError as error:
            found.append({"diverged": str(error)})
            continue
        accuracies = [report.validation_accuracy for report in result.history.reports]
        found.append({"validation": accuracies, **fashion.errors(result)})
    return found


def _runs(is_short: bool) -> dict[str, dict[str, Any]]:
    return {
        _key(activation, normalised, rate): {
            "activation": activation,
            "normalised": normalised,
            "units": 20 if is_short else UNITS,
            "changes": list(fashion.SHORT) if is_short else [f"training.epochs={EPOCHS}"],
            "rate": rate,
            "seeds": list(SEEDS),
        }
        for activation, normalised, rate in itertools.product(ACTIVATIONS, (False, True), RATES)
    }


def _key(activation: str, normalised: bool, rate: float) -> str:
    return f"{_kind(activation, normalised)}, rate {rate:g}"


def _kind(activation: str, normalised: bool) -> str:
    return f"{activation}, {'batch norm' if normalised else 'plain'}"


def _epochs_to_target(found: dict[str, Any]) -> float:
    """Count epochs until the validation accuracy reaches the target; infinity if it never does."""
    accuracies = enumerate(found.get("validation", []), start=1)
    return float(min((epoch for epoch, a in accuracies if a >= TARGET), default=np.inf))


def _section(results: Results) -> Section:
    counts = {
        (activation, normalised): [
            [_epochs_to_target(found) for found in results[_key(activation, normalised, rate)]]
            for rate in RATES
        ]
        for activation, normalised in itertools.product(ACTIVATIONS, (False, True))
    }
    rows = [(_kind(*kind), *map(_counts, of_rates)) for kind, of_rates in counts.items()]
    said, sentences = [], []
    for activation in ACTIVATIONS:
        plain, ours = (np.median(counts[activation, kind], axis=1) for kind in (False, True))
        without, best = plain.min(), ours.min()
        said.append(
            f"{activation} {_epochs(best)} with batch normalisation, {_epochs(without)} without"
        )
        sentences.append(
            f"With {activation}, {np.isfinite(ours).sum()} of the {len(RATES)} learning rates "
            f"reach the target with batch normalisation and {np.isfinite(plain).sum()} without it"
            + (
                f"; at the best rate of each, training takes {without / best:.1f} times as many "
                "epochs without it."
                if np.isfinite([best, without]).all()
                else "."
            )
        )
    lines = [
        "The network is 784-100-100-100-10, as in the paper's section 4.1 (from memory, not "
        "verified), trained by plain gradient descent with batches of 60 for at most 15 epochs. "
        f"The table has the epochs until the accuracy on 6,000 validation images is {TARGET:g}, by "
        "learning rate: medians of three seeds, with the minimum and maximum; >15 if the target is "
        "not reached.",
        "",
        *markdown.table(("", *(f"{rate:g}" for rate in RATES)), rows),
        "",
        " ".join(sentences) + " The paper's factor of 14 is for a deep convolutional network; "
        "three layers leave less to gain.",
        "",
        "![Validation accuracy by epoch](batch-norm.png)",
    ]
    return Section(
        f"epochs to {TARGET:g} on Fashion-MNIST, at the best learning rate: " + "; ".join(said),
        lines,
        {"batch-norm.png": _draw(results)},
    )


def _epochs(count: float) -> str:
    return f"{count:.0f}" if np.isfinite(count) else f">{EPOCHS}"


def _counts(counts: list[float]) -> str:
    median, low, high = (_epochs(f(counts)) for f in (np.median, min, max))
    return median if low == high else f"{median} ({low}-{high})"


def _draw(results: Results) -> bytes:
    drawn = pictures.figure(10, 5.4)
    axes = drawn.subplots(2, 2, sharex=True, sharey=True)
    for (row, activation), (column, normalised) in itertools.product(
        enumerate(ACTIVATIONS), enumerate((False, True))
    ):
        ax, lines = axes[row][column], {}
        for rate in RATES:
            curves = [
                found["validation"]
                for found in results[_key(activation, normalised, rate)]
                if "validation" in found
            ]
            if curves:
                middle = np.median(np.array(curves), axis=0)
                lines[f"{rate:g}"] = list(enumerate(middle, start=1))
        pictures.curves(ax, lines)
        ax.axhline(TARGET, color="black", linewidth=0.6)
        ax.set_ylim(0.7, 0.91)  # networks below learn slowly or nothing
        title = _kind(activation, normalised)
        is_first = (row, column) == (0, 0)
        pictures.label_axes(
            ax, title, "epoch", "validation accuracy", legend="rate" if is_first else None
        )
    return pictures.png(drawn)


EXPERIMENT = Experiment(
    name="batch-norm",
    title="Batch normalisation: epochs to reach an accuracy, by learning rate",
    claimed="the same accuracy in 14 times fewer steps, at higher learning rates (an Inception "
    "network on ImageNet; from memory, not verified)",
    source="Ioffe and Szegedy, Batch normalization, ICML 2015, abstract and section 4; on other "
    "data and a small network",
    runs=_runs,
    run=_run,
    section=_section,
    recipes=("bench/experiments/batch_norm.toml",),
    one_run="xpnet train bench/experiments/batch_norm.toml --set optimizer.learning_rate=1",
)
