"""What each tool for improving a network costs a training step: ``python -m bench.tools``.

A step of 784-256-128-10 on a batch of 128, float32, Adam, with one tool at a time, beside the plain
step. All take turns in one process, so that whatever else the machine does meets all of them alike;
a ratio is the median of those of the turns.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

WIDTHS, BATCH, N = (784, 256, 128, 10), 128, 4096
PLAIN = "nothing"


def steps() -> dict[str, Callable[[], Any]]:
    """Bind a step with each tool; the device must be active when they are called."""
    import numpy as np

    import xpnet
    from xpnet import nn

    device = xpnet.device()
    rng = np.random.default_rng(0)
    X = rng.random((N, WIDTHS[0]), dtype=np.float32)
    y = rng.integers(0, WIDTHS[-1], N)

    def bind(between: Callable[[], list[Any]] = list, **options: Any) -> Callable[[], Any]:
        first, max_norm = options.pop("first", []), options.pop("max_norm", None)
        hidden = [
            layer
            for width in WIDTHS[1:-1]
            for layer in (
                nn.Dense(width, "relu", max_norm=max_norm),
                *between(),
            )
        ]
        optimizer = options.pop("optimizer", nn.Adam())
        loss = options.pop("loss", nn.SoftmaxCrossEntropy())
        with device.activate():
            network = nn.Network([*first, *hidden, nn.Dense(WIDTHS[-1])], WIDTHS[0], device=device)
            if options.pop("average", False):
                options["average"] = nn.MovingAverage(network, 0.999)
            if options.pop("weighted", False):
                options["weights"] = device.asarray(1 + np.arange(N) % 3, network.dtype)
            step = nn.TrainingStep(
                network,
                loss,
                optimizer,
                optimizer.init_state(device, network.parameters),
                device.asarray(X),
                loss.labels(device, y, WIDTHS[-1], network.dtype),
                BATCH,
                **options,
            )
            indices = device.asarray(rng.permutation(N)[:BATCH])

        def run() -> None:
            with device.activate():
                for _ in range(8):
                    step(indices)
                device.synchronize()

        return run

    image: dict[str, Any] = {"image_shape": (28, 28)}
    return {
        PLAIN: bind(),
        "dropout 0.2 behind each hidden layer": bind(lambda: [nn.Dropout(0.2)]),
        "dropout 0.1 of the input": bind(first=[nn.Dropout(0.1)]),
        "batch normalisation of each": bind(lambda: [nn.BatchNorm()]),
        "layer normalisation of each": bind(lambda: [nn.LayerNorm()]),
        "L2 penalty": bind(regularizer=nn.Regularizer(l2=1e-4)),
        "clipping by norm": bind(regularizer=nn.Regularizer(clip_norm=1.0)),
        "max-norm of each": bind(max_norm=3.0),
        "AdamW in place of Adam": bind(optimizer=nn.AdamW()),
        "moving average": bind(average=True),
        "weights of samples": bind(weighted=True),
        "label smoothing": bind(loss=nn.SoftmaxCrossEntropy(0.1)),
        "flip": bind(augmentations=[nn.Flip()], **image),
        "shift": bind(augmentations=[nn.Shift()], **image),
        "rotation": bind(augmentations=[nn.Rotate()], **image),
        "Gaussian noise": bind(augmentations=[nn.GaussianNoise()]),
    }


def measure(turns: int) -> list[str]:
    """Time all by turns, and write the table."""
    calls = steps()
    found: dict[str, list[float]] = {name: [] for name in calls}
    for turn, (name, call) in itertools.product(range(turns + 1), calls.items()):
        start = time.perf_counter()
        call()
        if turn:  # the first warms up
            found[name].append((time.perf_counter() - start) / 8 * 1e6)
    lines = ["| with | microseconds a step | times the plain step (quartiles) |", "|---|---|---|"]
    for name, times in found.items():
        ratios = [t / plain for t, plain in zip(times, found[PLAIN], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        lines.append(
            f"| {name} | {statistics.median(times):.0f} | {middle:.3f} ({low:.3f} to {high:.3f}) |"
        )
    return lines


def main(arguments: list[str]) -> None:
    """Measure with NumPy's own choice of BLAS kernels, and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.tools", description=__doc__)
    parser.add_argument("--turns", type=int, default=60, help="how often each is timed")
    chosen = parser.parse_args(arguments)
    settings = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
    if any(name in os.environ for name in settings):  # read once, when NumPy is loaded
        kept = {name: value for name, value in os.environ.items() if name not in settings}
        os.execve(sys.executable, [sys.executable, "-m", "bench.tools", *arguments], kept)
    sys.stdout.write("\n".join(measure(max(chosen.turns, 2))) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
