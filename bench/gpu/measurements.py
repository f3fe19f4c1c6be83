"""The parts of the GPU gate that measure."""

from __future__ import annotations

import functools
import itertools
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np

import xpnet
from bench import test_ops
from bench.gpu import timing
from bench.gpu.outcome import Failed, Row, Settings
from tests.kernels.cases import ROWS
from xpnet import nn
from xpnet.environment import versions
from xpnet.kernels.reference import ReferenceOps
from xpnet.nn import TrainingStep
from xpnet.training import fit

__all__ = ["environment", "operations", "sizes", "steps"]

_MIB = 2**20
_ENOUGH = 256 * _MIB  # several times the L2 cache of any GPU
_CLOCKS = "clocks.sm,clocks.max.sm,clocks.mem,temperature.gpu,power.draw,power.limit"
_QUERY = f"--query-gpu={_CLOCKS}"


def environment(settings: Settings) -> list[Row]:
    """Say what runs here, and how fast it copies and multiplies."""
    device = xpnet.device("cuda")
    runtime = device.xp.cuda.runtime
    rows: list[Row] = [
        {"what": "GPU", "value": runtime.getDeviceProperties(device.index)["name"].decode()},
        {"what": "compute capability", "value": device.xp.cuda.Device(0).compute_capability},
        {"what": "driver", "value": runtime.driverGetVersion()},
        {"what": "CUDA runtime", "value": runtime.runtimeGetVersion()},
        *({"what": name, "value": version} for name, version in versions().items()),
        {"what": "commit", "value": _said("git", "rev-parse", "--short", "HEAD")},
        {"what": "kernels on the CPU", "value": xpnet.device("cpu").kernels},
        {"what": "processors", "value": os.cpu_count()},
        {"what": _CLOCKS, "value": _said("nvidia-smi", _QUERY, "--format=csv,noheader")},
        {"what": "CUPY_TF32", "value": os.environ.get("CUPY_TF32", "not set: float32 is float32")},
    ]
    n_bytes = _MIB if settings.is_rehearsal else 512 * _MIB
    with device.activate():
        host = np.ones(n_bytes, np.uint8)
        source, target = device.asarray(host), device.xp.empty(n_bytes, dtype="uint8")

        def copy() -> None:
            target[...] = source

        rates: dict[str, tuple[Callable[[], Any], int]] = {
            "copy on the device": (copy, 2 * n_bytes),
            "copy to the device": (lambda: device.asarray(host), n_bytes),
            "copy to the host": (lambda: device.to_host(source), n_bytes),
        }
        for what, (call, moved) in rates.items():
            taken = timing.eager(settings, device, call)
            rows.append(_rate(what, moved / taken.median / 1e3, "GB/s", taken))
        for dtype, n in itertools.product(("float32", "float64"), (256, 1024, 8192)):
            if settings.is_rehearsal and n > 256:
                continue
            A, B, C = (device.xp.ones((n, n), dtype=dtype) for _ in range(3))
            taken = timing.eager(
                settings, device, functools.partial(device.ops.matmul, A, B, out=C)
            )
            rate = 2 * n**3 / taken.median / 1e6
            rows.append(_rate(f"product {n}x{n} {dtype}", rate, "TFLOP/s", taken))
    return rows


def _rate(what: str, rate: float, unit: str, taken: timing.Timed) -> Row:
    percent = 100 * taken.spread / taken.median
    return {"what": what, "value": f"{rate:,.1f} {unit} (+- {percent:.0f} %)"}


def _said(*command: str) -> str:
    """Give what a program says, or that there is none."""
    program = shutil.which(command[0])
    if program is None:
        return f"unknown: there is no {command[0]}"
    done = subprocess.run(
        [program, *command[1:]], capture_output=True, text=True, check=False, timeout=20
    )
    return done.stdout.strip() or f"unknown: {done.stderr.strip()}"


def operations(settings: Settings) -> list[Row]:
    """Time every fused operation, alone in a graph and called from the host."""
    device = xpnet.device("cuda", "fused")
    reference = ReferenceOps(device.xp)
    rows: list[Row] = []
    with device.activate():
        for name in ROWS:
            for shape in _shapes_of(name, settings):
                for cache in ("hot", "cold"):
                    if settings.left() < 10:
                        raise Failed("it ran out of time", rows)
                    rows.append(_operation(device, reference, name, shape, cache, settings))
    return rows


def _shapes_of(name: str, settings: Settings) -> list[tuple[int, ...]]:
    if settings.is_rehearsal:
        return [(1,) if name == "adam_tick" else (64,) if name == "mean" else (24, 16)]
    if name.endswith("_update"):
        return [(235_146,), (1_863_690,)]
    return list(test_ops.shapes_of(name))


def _operation(
    device: xpnet.Device,
    reference: ReferenceOps,
    name: str,
    shape: tuple[int, ...],
    cache: str,
    settings: Settings,
) -> Row:
    fused, plain = getattr(device.ops, name), getattr(reference, name)
    first = test_ops.arguments_of(name, shape, device)
    n_bytes = test_ops.traffic(name, first)
    n_sets = 20
    if cache == "cold":
        n_sets = 3 if settings.is_rehearsal else min(max(-(-_ENOUGH // n_bytes), 20), 200)
    others = n_sets - 1 if cache == "cold" else 0
    sets = [first, *(_copied(first, device) for _ in range(others))]
    turn = itertools.cycle(sets)
    calls = [functools.partial(fused, **given) for given in itertools.islice(turn, n_sets)]
    for call in calls:
        call()
    alone = timing.captured(settings, device, calls)
    eager = timing.eager(settings, device, lambda: fused(**next(turn)))
    unfused = timing.eager(settings, device, lambda: plain(**next(turn)))
    return {
        "operation": name,
        "shape": "x".join(map(str, shape)),
        "L2": cache,
        "kernels us": alone.median,
        "+-": alone.spread,
        "GB/s": n_bytes / alone.median / 1e3,
        "called us": eager.median,
        "reference us": unfused.median,
    }


def _copied(arguments: dict[str, Any], device: xpnet.Device) -> dict[str, Any]:
    arrays = device.xp.ndarray
    return {k: v.copy() if isinstance(v, arrays) else v for k, v in arguments.items()}


_NETWORKS: tuple[tuple[tuple[int, ...], int], ...] = (
    ((784, 128, 10), 32),
    ((784, 256, 128, 10), 128),
    ((784, 1024, 1024, 10), 1024),
)


def steps(settings: Settings) -> list[Row]:
    """Count training steps a second, beside PyTorch where there is one."""
    rows = []
    for widths, batch_size in _NETWORKS:
        if settings.is_rehearsal:
            widths, batch_size = tuple(min(width, 32) for width in widths), 16
        makers: dict[str, Any] = {"xpnet fused": _our_step}
        try:
            import torch
        except ImportError:
            pass  # rows of PyTorch are left out
        else:
            torch.set_float32_matmul_precision("highest")  # what xpnet computes in: no TF32
            makers["PyTorch eager"] = _torch_step
            makers["PyTorch eager, Adam(fused=True)"] = lambda *a: _torch_step(*a, fused=True)
        device = xpnet.device("cuda", "fused")
        with device.activate():
            runs = {key: make(device, widths, batch_size) for key, make in makers.items()}
            rates = _alternating(runs, settings)
        base = rates["xpnet fused"][0]
        for key, (rate, spread) in rates.items():
            rows.append(
                {
                    "network": "-".join(map(str, widths)),
                    "batch": batch_size,
                    "implementation": key,
                    "precision": "float32, TF32 off",
                    "xpnet is faster by": base / rate,
                    "steps/s": rate,
                    "+-": spread,
                    "samples/s": rate * batch_size,
                }
            )
    return rows


def _alternating(runs: dict[str, Callable[[int], None]], settings: Settings) -> dict[str, Any]:
    """Time each by turns; a run takes as many steps as it is told, and waits for the last."""
    n_steps = {}
    for key, run in runs.items():
        run(5)
        began = time.perf_counter()
        run(5)
        seconds = (time.perf_counter() - began) / 5
        n_steps[key] = 2 if settings.is_rehearsal else int(0.1 / seconds) + 5
    found: dict[str, list[float]] = {key: [] for key in runs}
    for _ in range(2 if settings.is_rehearsal else 9):
        for key, run in runs.items():
            began = time.perf_counter()
            run(n_steps[key])
            found[key].append(n_steps[key] / (time.perf_counter() - began))
    return {
        key: (float(np.median(rates)), float(np.subtract(*np.percentile(rates, [75, 25])) / 2))
        for key, rates in found.items()
    }


def _data(widths: tuple[int, ...], batch_size: int) -> tuple[Any, Any, Any]:
    rng = np.random.default_rng(0)
    n = 8 * batch_size
    X = rng.standard_normal((n, widths[0]), np.float32)
    return X, rng.integers(0, widths[-1], n), rng.permutation(n).reshape(8, batch_size)


def _our_step(
    device: xpnet.Device, widths: tuple[int, ...], batch_size: int
) -> Callable[[int], None]:
    X, y, batches = _data(widths, batch_size)
    layers = [nn.Dense(width, "relu") for width in widths[1:-1]] + [nn.Dense(widths[-1])]
    network = nn.Network(layers, widths[0], device=device)
    loss, optimizer = nn.SoftmaxCrossEntropy(), nn.Adam()
    labels = loss.labels(device, y, widths[-1], network.dtype)
    state = optimizer.init_state(device, network.parameters)
    step = TrainingStep(network, loss, optimizer, state, device.asarray(X), labels, batch_size)
    indices = [device.asarray(batch) for batch in batches]

    def run(n: int) -> None:
        for turn in range(n):
            step(indices[turn % len(indices)])
        device.synchronize()

    return run


def _torch_step(
    device: xpnet.Device, widths: tuple[int, ...], batch_size: int, *, fused: bool = False
) -> Callable[[int], None]:
    import torch

    del device
    on = "cuda" if torch.cuda.is_available() else "cpu"  # the latter in a rehearsal
    X, y, batches = _data(widths, batch_size)
    layers: list[Any] = []
    for n_in, n_out in pairwise(widths):
        layers += [torch.nn.Linear(n_in, n_out), torch.nn.ReLU()]
    model = torch.nn.Sequential(*layers[:-1]).to(on)
    optimizer = torch.optim.Adam(model.parameters(), fused=fused)
    data, labels = torch.from_numpy(X).to(on), torch.from_numpy(y).to(on)
    indices = [torch.from_numpy(batch).to(on) for batch in batches]

    def run(n: int) -> None:
        for turn in range(n):
            chosen = indices[turn % len(indices)]
            optimizer.zero_grad(set_to_none=True)
            loss: Any = torch.nn.functional.cross_entropy(model(data[chosen]), labels[chosen])
            loss.backward()
            optimizer.step()
        if on == "cuda":
            torch.cuda.synchronize()

    return run


def sizes(settings: Settings) -> list[Row]:
    """Train for an epoch and predict, from host arrays to host arrays, on the CPU and the GPU."""
    gpu = "emulated" if settings.is_rehearsal else "GPU"
    rows: list[Row] = _cold_starts(settings, gpu)
    all_rows = (200, 400) if settings.is_rehearsal else (1_000, 10_000, 100_000)
    widths = (8, 16) if settings.is_rehearsal else (64, 256, 1024)
    for dtype, n, width in itertools.product(("float32", "float64"), all_rows, widths):
        rng = np.random.default_rng(0)
        X, y = rng.standard_normal((n, width)).astype(dtype), rng.integers(0, 10, n)
        seconds = {}
        for device in ("cuda", "cpu"):
            seconds[device] = _epoch(device, X, y, width)
            if device == "cuda" and settings.left() < 20:
                raise Failed("it ran out of time", rows)
        rows.append(
            {
                "what": "fit for an epoch and predict",
                "rows": n,
                "width": width,
                "dtype": dtype,
                "CPU s": seconds["cpu"],
                f"{gpu} s": seconds["cuda"],
                f"CPU / {gpu}": seconds["cpu"] / seconds["cuda"],
            }
        )
    return rows


def _epoch(device: str, X: Any, y: Any, width: int) -> float:
    def run(n: int) -> float:
        layers = [nn.Dense(width, "relu"), nn.Dense(width, "relu"), nn.Dense(10)]
        network = nn.Network(layers, X.shape[1], device=device, dtype=X.dtype)
        began = time.perf_counter()
        fit(
            network,
            X[:n],
            y[:n],
            loss="softmax_cross_entropy",
            optimizer="adam",
            epochs=1,
            batch_size=256,
        )
        network.predict(X[:n])
        return time.perf_counter() - began

    run(300)  # what is made at first use is in the cold starts
    return min(run(len(X)) for _ in range(2))


_COLD = """
import time
began = time.perf_counter()
import numpy as np, xpnet
from xpnet import nn
from xpnet.training import fit
device = xpnet.device({device!r})
network = nn.Network([nn.Dense(64, "relu"), nn.Dense(10)], 64, device=device)
rng = np.random.default_rng(0)
fit(network, rng.standard_normal((512, 64)), rng.integers(0, 10, 512),
    loss="softmax_cross_entropy", optimizer="adam", epochs=1, batch_size=256)
print(time.perf_counter() - began)
"""


def _cold_starts(settings: Settings, gpu: str) -> list[Row]:
    """Time a whole process that imports, compiles and trains a little."""
    found = []
    with tempfile.TemporaryDirectory() as empty:
        for what, device, more in (
            ("process: import, train a little", "cpu", {}),
            ("process, no kernel compiled yet", "cuda", {"CUPY_CACHE_DIR": empty}),
            ("process, kernels compiled before", "cuda", {"CUPY_CACHE_DIR": empty}),
        ):
            done = subprocess.run(
                [sys.executable, "-c", _COLD.format(device=device)],
                env={**os.environ, **more},
                capture_output=True,
                text=True,
                check=False,
                timeout=settings.left(),
            )
            if done.returncode:
                raise Failed(f"{what}: {done.stderr[-2000:]}")
            column = "CPU s" if device == "cpu" else f"{gpu} s"
            found.append({"what": what, column: float(done.stdout)})
    return found
