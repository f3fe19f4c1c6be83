"""Cost of dropout, normalisation and other methods in a training step: ``python -m bench.tools``.

Each method alone is added to a step of 784-256-128-10 on a batch of 128 in float32 with Adam, and
compared with the plain step. All run alternately in one process, so that other load on the machine
affects them all. Ratios are medians over the rounds.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import xpnet
from bench.environment import BY_HAND, restart_without
from bench.markdown import table
from bench.test_step import bind
from xpnet import nn

WIDTHS, BATCH, N = (784, 256, 128, 10), 128, 4096
PLAIN = "nothing"


def bind_steps(
    between: Callable[[], list[Any]] = list,
    *,
    first: Sequence[Any] = (),
    max_norm: float | None = None,
    average: bool = False,
    weighted: bool = False,
    optimizer: nn.Optimizer | None = None,
    **options: Any,
) -> Callable[[], Any]:
    """Return a function that takes eight steps of a network with the given additions."""
    device = xpnet.device()
    rng = np.random.default_rng(0)
    X = rng.random((N, WIDTHS[0]), dtype=np.float32)
    y = rng.integers(0, WIDTHS[-1], N)
    hidden = [
        layer
        for width in WIDTHS[1:-1]
        for layer in (nn.Dense(width, "relu", max_norm=max_norm), *between())
    ]
    with device.activate():
        network = nn.Network([*first, *hidden, nn.Dense(WIDTHS[-1])], WIDTHS[0], device=device)
        if average:
            options["average"] = nn.MovingAverage(network, 0.999)
        if weighted:
            options["weights"] = device.asarray(1 + np.arange(N) % 3, network.dtype)
        step = bind(network, optimizer or nn.Adam(), X, y, BATCH, **options)
        indices = device.asarray(rng.permutation(N)[:BATCH])

    def run() -> None:
        with device.activate():
            for _ in range(8):
                step(indices)
            device.synchronize()

    return run


def steps() -> dict[str, Callable[[], Any]]:
    """Return the steps of each method by its name."""
    image: dict[str, Any] = {"image_shape": (28, 28)}
    return {
        PLAIN: bind_steps(),
        "dropout 0.2 after each hidden layer": bind_steps(lambda: [nn.Dropout(0.2)]),
        "dropout 0.1 of the input": bind_steps(first=[nn.Dropout(0.1)]),
        "batch normalisation of each": bind_steps(lambda: [nn.BatchNorm()]),
        "layer normalisation of each": bind_steps(lambda: [nn.LayerNorm()]),
        "L2 penalty": bind_steps(regularizer=nn.Regularizer(l2=1e-4)),
        "clipping by norm": bind_steps(regularizer=nn.Regularizer(clip_norm=1.0)),
        "max-norm of each": bind_steps(max_norm=3.0),
        "AdamW instead of Adam": bind_steps(optimizer=nn.AdamW()),
        "moving average": bind_steps(average=True),
        "sample weights": bind_steps(weighted=True),
        "label smoothing": bind_steps(loss=nn.SoftmaxCrossEntropy(0.1)),
        "flip": bind_steps(augmentations=[nn.Flip()], **image),
        "shift": bind_steps(augmentations=[nn.Shift()], **image),
        "rotation": bind_steps(augmentations=[nn.Rotate()], **image),
        "Gaussian noise": bind_steps(augmentations=[nn.GaussianNoise()]),
    }


def measure(turns: int) -> list[str]:
    """Time all methods alternately, and return the lines of the table."""
    calls = steps()
    found: dict[str, list[float]] = {name: [] for name in calls}
    for turn, (name, call) in itertools.product(range(turns + 1), calls.items()):
        start = time.perf_counter()
        call()
        if turn:  # the first warms up
            found[name].append((time.perf_counter() - start) / 8 * 1e6)
    rows = []
    for name, times in found.items():
        ratios = [t / plain for t, plain in zip(times, found[PLAIN], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        median = f"{statistics.median(times):.0f}"
        rows.append((name, median, f"{middle:.3f} ({low:.3f} to {high:.3f})"))
    return table(("with", "microseconds a step", "times the plain step (quartiles)"), rows)


def main() -> None:
    """Measure with the BLAS's own choice of kernels, and print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.tools", description="Time training steps with one addition each."
    )
    parser.add_argument(
        "--turns", type=int, default=60, help="number of rounds (default: %(default)s)"
    )
    chosen = parser.parse_args()
    restart_without(*BY_HAND)
    sys.stdout.write("\n".join(measure(max(chosen.turns, 2))) + "\n")


if __name__ == "__main__":
    main()
