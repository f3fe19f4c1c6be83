"""Course 2, week 1, notebook "Initialization": zero, large and He's weights on two circles."""

from __future__ import annotations

from typing import Any

from bench import markdown, pictures
from bench.experiments.experiment import Experiment, Results, Section
from bench.experiments.planar import Points, draw_regions, outcome
from xpnet import nn, training

__all__ = ["EXPERIMENT", "load", "train"]

EPOCHS = 15_000
INITS: dict[str, Any] = {
    "zeros": "zeros",
    "large": {"type": "normal", "std": 10.0},
    "He": "he_normal",
}
PRINTED = {"zeros": 0.50, "large": 0.83, "He": 0.99}  # training accuracy
TEST = {"zeros": 0.50, "large": 0.86, "He": 0.96}  # accuracy in a public repetition


def load() -> tuple[Points, Points]:
    """Draw the notebook's points: 300 to train on, 100 to test."""
    from sklearn.datasets import make_circles

    train, test = (
        make_circles(n_samples=n, noise=0.05, random_state=seed) for n, seed in ((300, 1), (100, 2))
    )
    return train, test


def train(init: Any, epochs: int) -> tuple[nn.Network, training.History]:
    """Train 2-10-5-1 as the notebook does: gradient descent on the full batch, rate 0.01."""
    layers = [nn.Dense(units, "relu", init=init) for units in (10, 5)]
    network = nn.Network(
        [*layers, nn.Dense(1, init=init)], 2, dtype="float64", seed=3, rng="numpy-legacy"
    )
    history = training.fit(
        network,
        *load()[0],
        loss="sigmoid_cross_entropy",
        optimizer=nn.GradientDescent(0.01),
        epochs=epochs,
        report_every=min(epochs, 100),
    )
    return network, history


def _run(init: Any, epochs: int) -> dict[str, Any]:
    network, history = train(init, epochs)
    return outcome(network, history, load())


def _runs(is_short: bool) -> dict[str, dict[str, Any]]:
    epochs = 20 if is_short else EPOCHS
    return {name: {"init": init, "epochs": epochs} for name, init in INITS.items()}


def _section(results: Results) -> Section:
    rows = [
        (
            name,
            f"{PRINTED[name]:.2f}",
            f"{found['train']:.3f}",
            f"{TEST[name]:.2f}",
            f"{found['test']:.2f}",
            f"{found['cost'][0][1]:.4f}",
            f"{found['cost'][-1][1]:.4f}",
        )
        for name, found in ((name, results[name]) for name in INITS)
    ]
    lines = [
        *markdown.table(
            ("weights", "training accuracy: notebook", "ours", "test: notebook", "ours",
             "our first cost", "our last cost"),
            rows,
        ),
        "",
        "The training accuracies are in the notebook's closing table; a public repetition of it "
        "(github.com/daniellaah/deeplearning.ai-step-by-step-guide) has both. Zero weights stay "
        "zero: all units of a layer have the same gradient, the gradient of a ReLU at 0 is 0, and "
        "the cost stays at log 2. Weights from a normal distribution of standard deviation 10 give "
        "logits in the thousands. A wrong point then costs as much, and training spends its epochs "
        "on bringing the cost down.",
        "",
        "![Cost by epoch](circles-cost.png)",
        "",
        "![Decision regions of each network](circles.png)",
    ]  # fmt: skip
    panels = [
        (f"{name}: test {results[name]['test']:.2f}", results[name]["region"]) for name in INITS
    ]
    came_out = ", ".join(
        f"{name} {results[name]['train']:.3f} (test {results[name]['test']:.2f})" for name in INITS
    )
    return Section(
        came_out,
        lines,
        {"circles-cost.png": _costs(results), "circles.png": draw_regions(panels)},
    )


def _costs(results: Results) -> bytes:
    drawn = pictures.figure(5, 3)
    ax = drawn.subplots()
    pictures.curves(ax, {name: results[name]["cost"] for name in INITS})
    ax.set_yscale("log")
    pictures.label_axes(ax, "", "iteration", "cost", legend="")
    return pictures.png(drawn)


EXPERIMENT = Experiment(
    name="circles",
    title="Initialisation: zeros, large, He",
    claimed="training accuracy 0.50 with zeros, 0.83 with large weights, 0.99 with He's",
    source="the course, Improving Deep Neural Networks, week 1, notebook Initialization",
    runs=_runs,
    run=_run,
    section=_section,
)
