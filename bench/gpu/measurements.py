"""The parts of the GPU gate that measure."""

from __future__ import annotations

import functools
import itertools
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

import xpnet
from bench import test_ops
from bench.environment import output_of
from bench.gpu import timing
from bench.gpu.outcome import Failed, Incomplete, Row, Settings
from xpnet import nn
from xpnet.device import PRECISIONS
from xpnet.environment import versions
from xpnet.kernels import cublas
from xpnet.kernels.reference import ReferenceOps
from xpnet.training import fit

__all__ = ["cold_starts", "environment", "operations", "sizes"]

_MIB = 2**20
_MANY = 512  # calls in a graph
_CLOCKS = (
    *("clocks.sm", "clocks.max.sm", "clocks.mem"),
    *("temperature.gpu", "power.draw", "power.limit"),
)


def environment(settings: Settings) -> list[Row]:
    """Describe the machine, and measure how fast it copies and multiplies."""
    device = xpnet.device("cuda")
    runtime = device.xp.cuda.runtime
    facts = {
        "GPU": runtime.getDeviceProperties(device.index)["name"].decode(),
        "compute capability": device.xp.cuda.Device(device.index).compute_capability,
        "CuPy": device.xp.__version__,
        "driver": runtime.driverGetVersion(),
        "CUDA runtime": runtime.runtimeGetVersion(),
        "cuBLAS": cublas.version(device.xp),
        **versions(),
        "commit": output_of("git", "describe", "--always", "--dirty"),
        "kernels on the CPU": xpnet.device("cpu").kernels,
        "processors": os.cpu_count(),
    }
    rows: list[Row] = [{"what": what, "value": value} for what, value in facts.items()]
    rows += _clocks(runtime.deviceGetPCIBusId(device.index))
    n_bytes = _MIB if settings.is_rehearsal else 512 * _MIB
    with device.activate():
        host = np.ones(n_bytes, np.uint8)
        source, target = device.asarray(host), device.xp.empty(n_bytes, dtype="uint8")
        rates: dict[str, tuple[Callable[[], Any], int]] = {
            "copy on the device": (functools.partial(timing.copy, target, source), 2 * n_bytes),
            "copy to the device, with allocation": (
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
            rows.append(_product_rate(dtype, n, taken))
        n = 64 if settings.is_rehearsal else 8192
        # Ones would take less power, so the clock would be higher.
        A = device.asarray(np.random.default_rng(0).standard_normal((n, n), np.float32))
        C = device.xp.empty_like(A)
        for precision in PRECISIONS:
            multiply = cublas.Products(device.xp, precision)
            taken = timing.eager(settings, device, functools.partial(multiply, A, A, out=C))
            rows.append(_product_rate(f"in {precision}", n, taken))
    return rows


def _rate(what: str, rate: float, unit: str, taken: timing.Timed) -> Row:
    percent = 100 * taken.spread / taken.median
    return {"what": what, "value": f"{rate:,.1f} {unit} (+- {percent:.0f} %)"}


def _product_rate(what: str, n: int, taken: timing.Timed) -> Row:
    return _rate(f"product {n}x{n} {what}", 2 * n**3 / taken.median / 1e6, "TFLOP/s", taken)


def _clocks(bus_id: str) -> list[Row]:
    query = f"--query-gpu={','.join(_CLOCKS)}"
    line = output_of("nvidia-smi", f"--id={bus_id}", query, "--format=csv,noheader").splitlines()[0]
    values = line.split(", ")
    if len(values) != len(_CLOCKS):
        return [{"what": "clocks, temperature, power", "value": line}]
    return [{"what": n, "value": v} for n, v in zip(_CLOCKS, values, strict=True)]


def operations(settings: Settings) -> list[Row]:
    """Time every fused operation, in a graph and called from the host."""
    device = xpnet.device("cuda", "fused")
    reference = ReferenceOps(device.xp)
    runtime = device.xp.cuda.runtime
    l2 = runtime.deviceGetAttribute(runtime.cudaDevAttrL2CacheSize, device.index)
    if settings.is_rehearsal:
        l2 = 2000
    rows: list[Row] = []
    with device.activate():
        for name in test_ops.ROWS:
            for shape in _shapes_of(name, settings):
                if settings.left() < 10:
                    raise Incomplete(f"ran out of time before {name}", rows)
                rows += _operation(device, reference, name, shape, l2, settings)
    return rows


def _shapes_of(name: str, settings: Settings) -> list[tuple[int, ...]]:
    if settings.is_rehearsal:
        vectors = [*("mean", "add_sum", "inverse_sum", "shares", "variance_correction")]
        vectors += ["clip_factor", "batch_norm_tick", "inverse_std"]
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
    """Time an operation on arrays in the L2 cache and on arrays outside of it.

    The first row is left out for arrays larger than half the cache, the second for arrays so small
    that a graph would need very many of them.
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
        copies = [functools.partial(timing.copy, *_halves(device, n_bytes)) for _ in sets]
        for call in (*fused, *copies):
            call()
        repeated = 20 if is_hot else 1
        alone = timing.captured(settings, device, fused * repeated)
        copied = timing.captured(settings, device, copies * repeated)
        called = timing.eager(settings, device, _in_turn(fused))
        unfused = timing.eager(settings, device, _in_turn(plain))
        yield {
            "operation": name,
            "precision": "float32",
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
    """Make two arrays; a copy between them reads half of the bytes and writes the other half."""
    return [device.xp.zeros(max(n_bytes // 2, 1), dtype="uint8") for _ in range(2)]


def _in_turn(calls: Iterable[Callable[[], Any]]) -> Callable[[], Any]:
    turn = itertools.cycle(calls)
    return lambda: next(turn)()


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
            raise Incomplete(f"ran out of time before {n} rows of width {width}", rows)
        seconds = {device: _epoch(device, X, y, width) for device in ("cuda", "cpu")}
        rows.append(
            {
                "rows": n,
                "width": width,
                "precision": dtype,
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

    run(300)  # the cold starts measure what happens at first use
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
    """Time whole processes, from the start to a trained network."""
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
            seconds = time.perf_counter() - began
            rows.append({"a process on": what, "precision": "float32", "seconds": seconds})
    return rows
