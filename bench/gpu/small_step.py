"""A few small training steps, also as graphs, for tools that check every memory access.

Every array is a separate allocation, without CuPy's pool, so that an access past its end is outside
of CUDA's allocation. Run it with ``python -m bench.gpu.small_step``.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

import xpnet
from xpnet import nn
from xpnet.graph import Recorder
from xpnet.nn import CapturedSteps, TrainingStep

N, D, K, BATCH = 50, 21, 7, 13


def main() -> int:
    """Take the steps; return 1 if a loss is not finite."""
    device = xpnet.device("cuda", "fused")
    device.xp.cuda.set_allocator(None)
    rng = np.random.default_rng(0)
    losses = []
    for loss, n_outputs in (("softmax_cross_entropy", K), ("sigmoid_cross_entropy", 3)):
        layers: list[Any] = [nn.Dense(19, name) for name in ("relu", "gelu_tanh", "tanh")]
        network = nn.Network([*layers, "softplus", nn.Dense(n_outputs)], D, device=device)
        criterion = nn.Loss.resolve(loss)
        y = rng.integers(0, n_outputs, N)
        labels = np.eye(n_outputs)[y] if loss.startswith("sigmoid") else y
        with device.activate():
            X = device.asarray(rng.standard_normal((N, D)), network.dtype)
            target = criterion.labels(device, labels, n_outputs, network.dtype)
            for optimizer in (nn.Adam(), nn.GradientDescent()):
                state = optimizer.init_state(device, network.parameters)
                step = TrainingStep(network, criterion, optimizer, state, X, target, BATCH)
                indices = device.asarray(rng.permutation(N)[: 2 * BATCH])
                recorder = Recorder(device)
                step(indices[:BATCH])
                captured = CapturedSteps(step, 2, recorder)
                for _ in range(2):
                    captured(indices)
                losses.append(float(device.to_host(captured.losses)[-1]))
    sys.stdout.write(f"losses: {', '.join(f'{loss:.3f}' for loss in losses)}\n")
    return int(not np.isfinite(losses).all())


if __name__ == "__main__":
    sys.exit(main())
