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
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from typing import Any

import numpy as np

import xpnet
from bench import test_ops
from bench.gpu import timing
from bench.gpu.outcome import Failed, Incomplete, Row, Settings
from bench.test_step import bind_step
from tests.kernels.cases import ROWS
from xpnet import nn
from xpnet.environment import versions
from xpnet.kernels.reference import ReferenceOps
from xpnet.training import fit

__all__ = ["cold_starts", "environment", "operations", "sizes", "steps"]

_MIB = 2**20
_MANY = 512  # calls in a graph
_CLOCKS = (
    "clocks.sm",
    "clocks.max.sm",
    "clocks.mem",
    "temperature.gpu",
    "power.draw",
    "power.limit",
)


def environment(settings: Settings) -> list[Row]:
    """Say what runs here, and how fast it copies and multiplies."""
    device = xpnet.device("cuda")
    runtime = device.xp.cuda.runtime
    rows: list[Row] = [
        {"what": "GPU", "value": runtime.getDeviceProperties(device.index)["name"].decode()},
        {
            "what": "compute capability",
            "value": device.xp.cuda.Device(device.index).compute_capability,
        },
        {"what": "CuPy", "value": device.xp.__version__},
        {"what": "driver", "value": runtime.driverGetVersion()},
        {"what": "CUDA runtime", "value": runtime.runtimeGetVersion()},
        *({"what": name, "value": version} for name, version in versions().items()),
        {"what": "commit", "value": _said("git", "describe", "--always", "--dirty")},
        {"what": "kernels on the CPU", "value": xpnet.device("cpu").kernels},
        {"what": "processors", "value": os.cpu_count()},
        *_clocks(runtime.deviceGetPCIBusId(device.index)),
    ]
    n_bytes = _MIB if settings.is_rehearsal else 512 * _MIB
    with device.activate():
        host = np.ones(n_bytes, np.uint8)
        source, target = device.asarray(host), device.xp.empty(n_bytes, dtype="uint8")

        def copy() -> None:
            target[...] = source

        rates: dict[str, tuple[Callable[[], Any], int]] = {
            "copy on the device": (copy, 2 * n_bytes),
            "copy to the device, which is asked for memory": (
                lambda: device.asarray(host),
                n_bytes,
            ),
            "copy to the host": (lambda: device.to_host(source), n_bytes),
        }
        for what, (call, moved) in rates.items():
            taken = timing.eager(settings, device, call)
            rows.append(_rate(what, moved / taken.median / 1e3, "GB/s", taken))
        for dtype, n in itertools.product(("float32", "float64"), (256, 1024, 4096)):
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


def _clocks(bus_id: str) -> list[Row]:
    query = f"--query-gpu={','.join(_CLOCKS)}"
    said = _said("nvidia-smi", f"--id={bus_id}", query, "--format=csv,noheader").splitlines()[0]
    values = said.split(", ")
    if len(values) != len(_CLOCKS):
        return [{"what": "clocks, temperature, power", "value": said}]
    return [{"what": n, "value": v} for n, v in zip(_CLOCKS, values, strict=True)]


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
    runtime = device.xp.cuda.runtime
    l2 = runtime.deviceGetAttribute(runtime.cudaDevAttrL2CacheSize, device.index)
    if settings.is_rehearsal:
        l2 = 2000
    rows: list[Row] = []
    with device.activate():
        for name in ROWS:
            for shape in _shapes_of(name, settings):
                if settings.left() < 10:
                    raise Incomplete(f"it ran out of time before {name}", rows)
                rows += _operation(device, reference, name, shape, l2, settings)
    return rows


def _shapes_of(name: str, settings: Settings) -> list[tuple[int, ...]]:
    if settings.is_rehearsal:
        vectors = ("mean", "shares", "variance_correction", "clip_factor", "batch_norm_tick")
        return [(1,) if name == "adam_tick" else (64,) if name in vectors else (24, 16)]
    if name.endswith("_update"):
        return [(235_146,), (1_863_690,)]
    return list(test_ops.shapes_of(name))


def _operation(
    device: xpnet.Device,
    reference: ReferenceOps,
    name: str,
    shape: tuple[int, ...],
    l2: int,
    settings: Settings,
) -> Iterator[Row]:
    """Time an operation on arrays that are in the L2 cache, and on others that are not.

    Arrays that are half as large as the cache are in neither row, nor those so small that a graph
    would have to go through very many.
    """
    first = test_ops.arguments_of(name, shape, device)
    n_bytes = test_ops.traffic(name, first)
    n_cold = 4 * l2 // n_bytes + 1
    for n_sets, is_hot in ((1, True), (n_cold, False)):
        if (n_bytes > l2 / 2) if is_hot else (n_cold > _MANY):
            continue
        sets = [first, *(_copied(first, device) for _ in range(n_sets - 1))]
        fused = [functools.partial(getattr(device.ops, name), **given) for given in sets]
        plain = [functools.partial(getattr(reference, name), **given) for given in sets]
        copies = [functools.partial(_copy, *_halves(device, n_bytes)) for _ in sets]
        for call in (*fused, *copies):
            call()
        repeated = 20 if is_hot else 1
        alone = timing.captured(settings, device, fused * repeated)
        copied = timing.captured(settings, device, copies * repeated)
        called = timing.eager(settings, device, _in_turn(fused))
        unfused = timing.eager(settings, device, _in_turn(plain))
        yield {
            "operation": name,
            "shape": "x".join(map(str, shape)),
            "in L2": "yes" if is_hot else "no",
            "alone (us)": alone.median,
            "+-": alone.spread,
            "GB/s": n_bytes / alone.median / 1e3,
            "of a copy": f"{copied.median / alone.median:.0%}",
            "called (us)": called.median,
            "reference called (us)": unfused.median,
        }


def _copied(arguments: dict[str, Any], device: xpnet.Device) -> dict[str, Any]:
    arrays = device.xp.ndarray
    return {k: v.copy() if isinstance(v, arrays) else v for k, v in arguments.items()}


def _halves(device: xpnet.Device, n_bytes: int) -> list[Any]:
    """Make two arrays: copying one reads half of the bytes and writes the other half."""
    return [device.xp.zeros(max(n_bytes // 2, 1), dtype="uint8") for _ in range(2)]


def _copy(target: Any, source: Any) -> None:
    target[...] = source


def _in_turn(calls: Iterable[Callable[[], Any]]) -> Callable[[], Any]:
    turn = itertools.cycle(calls)
    return lambda: next(turn)()


_NETWORKS: tuple[tuple[tuple[int, ...], int], ...] = (
    ((784, 128, 10), 32),
    ((784, 256, 128, 10), 128),
    ((784, 1024, 1024, 10), 1024),
)


def steps(settings: Settings) -> list[Row]:
    """Count training steps a second, beside PyTorch where there is one."""
    rows = []
    device, on = xpnet.device("cuda", "fused"), _torch_device(settings)
    for widths, batch_size in _NETWORKS:
        if settings.is_rehearsal:
            widths, batch_size = tuple(min(width, 32) for width in widths), 16
        makers: dict[str, Any] = {"xpnet fused": _our_step}
        if on is not None:
            makers["PyTorch eager"] = functools.partial(_torch_step, on)
            makers["PyTorch eager, Adam(fused=True)"] = functools.partial(
                _torch_step, on, fused=True
            )
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
                    "device": on if key.startswith("PyTorch") else settings.device,
                    "precision": "float32, no TF32",  # which bench/gpu/__main__.py sees to
                    "xpnet / this": base / rate,
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
    step = bind_step(device, widths, batch_size, X, y)
    indices = [device.asarray(batch) for batch in batches]

    def run(n: int) -> None:
        for turn in range(n):
            step(indices[turn % len(indices)])
        device.synchronize()

    return run


def _torch_device(settings: Settings) -> str | None:
    """Give where PyTorch runs, if it is here and not without a GPU beside ours."""
    try:
        import torch
    except ImportError:
        return None
    torch.set_float32_matmul_precision("highest")  # what xpnet computes in: no TF32
    if torch.cuda.is_available():
        return "cuda"
    return "cpu" if settings.is_rehearsal else None


def _torch_step(
    on: str,
    device: xpnet.Device,
    widths: tuple[int, ...],
    batch_size: int,
    *,
    fused: bool = False,
) -> Callable[[int], None]:
    import torch

    del device
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
    gpu, kernels = _gpu(settings), xpnet.device("cpu").kernels
    rows: list[Row] = []
    all_rows = (200, 400) if settings.is_rehearsal else (1_000, 10_000, 100_000)
    widths = (8, 16) if settings.is_rehearsal else (64, 256, 1024)
    for dtype, n, width in itertools.product(("float32", "float64"), all_rows, widths):
        rng = np.random.default_rng(0)
        X, y = rng.standard_normal((n, width)).astype(dtype), rng.integers(0, 10, n)
        if settings.left() < 30:
            raise Incomplete(f"it ran out of time before {n} rows of width {width}", rows)
        seconds = {device: _epoch(device, X, y, width) for device in ("cuda", "cpu")}
        rows.append(
            {
                "rows": n,
                "width": width,
                "dtype": dtype,
                f"CPU, {kernels} (s)": seconds["cpu"],
                f"{gpu} (s)": seconds["cuda"],
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


def _gpu(settings: Settings) -> str:
    return "emulated" if settings.is_rehearsal else "GPU"


_COLD = """
import numpy as np, xpnet
from xpnet import nn
from xpnet.training import fit
device = xpnet.device({device!r})
network = nn.Network([nn.Dense(64, "relu"), nn.Dense(10)], 64, device=device)
rng = np.random.default_rng(0)
fit(network, rng.standard_normal((512, 64)), rng.integers(0, 10, 512),
    loss="softmax_cross_entropy", optimizer="adam", epochs=1, batch_size=256)
"""


def cold_starts(settings: Settings) -> list[Row]:
    """Time whole processes."""
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as empty:
        for what, device, more in (
            ("CPU", "cpu", {}),
            (f"{_gpu(settings)}, no kernel compiled yet", "cuda", {"CUPY_CACHE_DIR": empty}),
            (f"{_gpu(settings)}, kernels compiled before", "cuda", {"CUPY_CACHE_DIR": empty}),
        ):
            began = time.perf_counter()
            done = subprocess.run(
                [sys.executable, "-c", _COLD.format(device=device)],
                env={**os.environ, **more},
                capture_output=True,
                text=True,
                check=False,
                timeout=settings.left(),
            )
            if done.returncode:
                raise Failed(f"{what}: {done.stderr[-2000:]}", rows)
            rows.append({"a process on": what, "seconds": time.perf_counter() - began})
    return rows
