"""Training steps per second: issued one by one, as graphs, and compared with PyTorch."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np

import xpnet
from bench.gpu.outcome import Failed, Incomplete, Row, Settings
from bench.test_step import bind_step
from xpnet import nn
from xpnet.graph import Recorder
from xpnet.training.execution import STEPS_PER_GRAPH

__all__ = ["Case", "alternating", "bind_captured", "compiled_steps", "in_time", "steps"]

Run: TypeAlias = Callable[[int], int]  # takes about n steps, waits, and returns their number

PRECISIONS = {"float32": "float32, no TF32", "tf32": "tf32"}
Case: TypeAlias = tuple[tuple[int, ...], int, str]  # a network's widths, batch size, precision
_CASES: tuple[Case, ...] = (
    ((784, 256, 128, 10), 128, "float32"),
    ((784, 256, 128, 10), 1024, "float32"),
    ((784, 256, 128, 10), 8192, "float32"),
    ((784, 256, 128, 10), 128, "tf32"),
    ((784, 256, 128, 10), 8192, "tf32"),
    ((784, 128, 10), 32, "float32"),
    ((784, 1024, 1024, 10), 1024, "float32"),
    ((784, 2048, 2048, 2048, 10), 8192, "tf32"),
)


def steps(settings: Settings) -> list[Row]:
    """Count training steps per second, also of PyTorch if it is installed."""
    makers: dict[str, Any] = {"xpnet captured": _our_graphs, "xpnet eager": _our_step}
    on = _torch_device(settings)
    if on is not None:
        makers["PyTorch eager"] = functools.partial(_torch_step, on)
        makers["PyTorch eager, Adam(fused=True)"] = functools.partial(_torch_step, on, fused=True)
    if on == "cuda":
        makers["PyTorch captured"] = functools.partial(_torch_graph, 1)
        makers[f"PyTorch captured, {STEPS_PER_GRAPH} steps a graph"] = functools.partial(
            _torch_graph, STEPS_PER_GRAPH
        )
    return _compared(settings, makers, on, 12)


def compiled_steps(settings: Settings) -> list[Row]:
    """Count steps per second of PyTorch's compiler, apart from steps: compiling is slow."""
    on = _torch_device(settings)
    makers: dict[str, Any] = {"xpnet captured": _our_graphs}
    if on == "cuda":
        makers['torch.compile(mode="reduce-overhead")'] = _torch_compiled
        makers[f"torch.compile, captured, {STEPS_PER_GRAPH} steps a graph"] = functools.partial(
            _torch_graph, STEPS_PER_GRAPH, is_compiled=True
        )
    return _compared(settings, makers, on, 40)


def _compared(
    settings: Settings, makers: dict[str, Any], on: str | None, seconds: float
) -> list[Row]:
    """Compare implementations on every network while ``seconds`` are left.

    An implementation of PyTorch that fails is left out from then on, and named at the end.
    """
    rows: list[Row] = []
    failed: dict[str, str] = {}
    # A rehearsal takes the first network, in both precisions.
    cases = _CASES[:4:3] if settings.is_rehearsal else _CASES
    for widths, batch_size, precision in in_time(settings, cases, seconds, rows):
        device = xpnet.device("cuda", "fused", precision)
        if on is not None:
            import torch

            torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
        runs: dict[str, Run] = {}
        with device.activate():
            for key, make in makers.items():
                if key in failed:
                    continue
                try:
                    runs[key] = make(device, widths, batch_size)
                    runs[key](1)  # compiles, if anything is compiled
                except Exception as error:
                    if key.startswith("xpnet"):
                        raise
                    runs.pop(key, None)
                    failed[key] = f"{key}: {' '.join(str(error).split())[:300]}"
            rates = alternating(runs, settings)
        runs.clear()
        device.free_memory()
        base = rates["xpnet captured"][0]
        for key, (rate, spread) in rates.items():
            rows.append(
                {
                    "network": "-".join(map(str, widths)),
                    "batch": batch_size,
                    "implementation": key,
                    "device": settings.device if key.startswith("xpnet") else on,
                    "precision": PRECISIONS[precision],
                    "xpnet captured / this": base / rate,
                    "steps/s": rate,
                    "+-": spread,
                    "samples/s": rate * batch_size,
                }
            )
    if failed:
        raise Incomplete("\n".join(failed.values()), rows)
    return rows


def in_time(
    settings: Settings, cases: Sequence[Case], seconds: float, rows: list[Row]
) -> Iterator[Case]:
    """Yield cases, small ones in a rehearsal, while ``seconds`` are left."""
    for widths, batch_size, precision in cases:
        if settings.left() < seconds:
            raise Incomplete(f"ran out of time before {widths} at {batch_size}", rows)
        if settings.is_rehearsal:
            widths, batch_size = tuple(min(width, 32) for width in widths), min(batch_size, 16)
        yield widths, batch_size, precision


def alternating(runs: dict[str, Run], settings: Settings) -> dict[str, tuple[float, float]]:
    """Time all alternately; return median steps per second and half the interquartile range."""
    n_steps = {}
    for key, run in runs.items():
        run(1 if settings.is_rehearsal else 2 * STEPS_PER_GRAPH)
        rate = _rate(run, 1 if settings.is_rehearsal else STEPS_PER_GRAPH)
        n_steps[key] = 2 if settings.is_rehearsal else int(0.1 * rate) + 5
    found: dict[str, list[float]] = {key: [] for key in runs}
    for _ in range(2 if settings.is_rehearsal else 9):
        for key, run in runs.items():
            found[key].append(_rate(run, n_steps[key]))
    return {
        key: (float(np.median(rates)), float(np.subtract(*np.percentile(rates, [75, 25])) / 2))
        for key, rates in found.items()
    }


def _rate(run: Run, n: int) -> float:
    began = time.perf_counter()
    n_taken = run(n)
    return n_taken / (time.perf_counter() - began)


@functools.lru_cache(maxsize=1)
def _data(widths: tuple[int, ...], batch_size: int) -> tuple[Any, Any, Any]:
    """Return samples, labels, and the order of an epoch of ``STEPS_PER_GRAPH`` steps."""
    rng = np.random.default_rng(0)
    n = STEPS_PER_GRAPH * batch_size
    X = rng.standard_normal((n, widths[0]), np.float32)
    return X, rng.integers(0, widths[-1], n), rng.permutation(n)


def _our_step(device: xpnet.Device, widths: tuple[int, ...], batch_size: int) -> Run:
    X, y, order = _data(widths, batch_size)
    step = bind_step(device, widths, batch_size, X, y)
    batches = list(device.asarray(order).reshape(-1, batch_size))

    def run(n: int) -> int:
        for turn in range(n):
            step(batches[turn % len(batches)])
        device.synchronize()
        return n

    return run


def bind_captured(
    device: xpnet.Device, widths: tuple[int, ...], batch_size: int
) -> tuple[nn.CapturedSteps, Any]:
    """Return captured steps and their indices; the device must be active."""
    X, y, order = _data(widths, batch_size)
    on_device = device.asarray(order)
    step = bind_step(device, widths, batch_size, X, y)
    step(on_device[:batch_size])
    return nn.CapturedSteps(step, STEPS_PER_GRAPH, Recorder(device)), on_device


def _our_graphs(device: xpnet.Device, widths: tuple[int, ...], batch_size: int) -> Run:
    captured, indices = bind_captured(device, widths, batch_size)

    def run(n: int) -> int:
        n_graphs = -(-n // STEPS_PER_GRAPH)
        for _ in range(n_graphs):
            captured(indices)
        device.synchronize()
        loss = float(device.to_host(captured.losses)[-1])
        if not np.isfinite(loss):
            raise Failed(f"the loss of captured steps is {loss}")
        return n_graphs * STEPS_PER_GRAPH

    return run


def _torch_device(settings: Settings) -> str | None:
    """Return PyTorch's device, or None if it is not installed or lacks a GPU."""
    try:
        import torch
    except ImportError:
        return None
    if torch.cuda.is_available():
        return "cuda"
    return "cpu" if settings.is_rehearsal else None


def _torch_parts(on: str, widths: tuple[int, ...], batch_size: int, **of_adam: Any) -> Any:
    """Return PyTorch's model, optimizer, samples, labels and order of the same problem."""
    import torch

    X, y, order = _data(widths, batch_size)
    layers: list[Any] = []
    for n_in, n_out in pairwise(widths):
        layers += [torch.nn.Linear(n_in, n_out), torch.nn.ReLU()]
    model = torch.nn.Sequential(*layers[:-1]).to(on)
    optimizer = torch.optim.Adam(model.parameters(), **of_adam)
    data, labels = torch.from_numpy(X).to(on), torch.from_numpy(y).to(on)
    return model, optimizer, data, labels, torch.from_numpy(order).to(on)


def _torch_step(
    on: str, device: xpnet.Device, widths: tuple[int, ...], batch_size: int, **of_adam: Any
) -> Run:
    import torch

    del device
    model, optimizer, data, labels, order = _torch_parts(on, widths, batch_size, **of_adam)
    batches = order.reshape(-1, batch_size)

    def run(n: int) -> int:
        for turn in range(n):
            chosen = batches[turn % len(batches)]
            optimizer.zero_grad(set_to_none=True)
            loss: Any = torch.nn.functional.cross_entropy(model(data[chosen]), labels[chosen])
            loss.backward()
            optimizer.step()
        if on == "cuda":
            torch.cuda.synchronize()
        return n

    return run


def _torch_graph(
    n_steps: int,
    device: xpnet.Device,
    widths: tuple[int, ...],
    batch_size: int,
    *,
    is_compiled: bool = False,
) -> Run:
    """Capture PyTorch's step as its guide says: warm up on a side stream, no gradients before.

    If compiled, the graph has the compiler's kernels of the loss and its gradient, and the fused
    Adam.
    """
    import torch

    del device
    model, optimizer, data, labels, order = _torch_parts(
        "cuda", widths, batch_size, fused=True, capturable=True
    )
    indices = order[: n_steps * batch_size].clone()
    losses = torch.empty(n_steps, device="cuda")

    def loss_of(chosen: Any) -> Any:
        return torch.nn.functional.cross_entropy(model(data[chosen]), labels[chosen])

    if is_compiled:
        torch._dynamo.reset()  # each network is compiled for its own shapes
        loss_of = torch.compile(loss_of, dynamic=False)

    def take(number: int) -> None:
        chosen = indices[number * batch_size : (number + 1) * batch_size]
        optimizer.zero_grad(set_to_none=True)
        loss: Any = loss_of(chosen)
        loss.backward()
        optimizer.step()
        losses[number] = loss.detach()

    cuda: Any = torch.cuda  # some of its functions have no types
    side = cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            take(0)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for number in range(n_steps):
            take(number)
    batches = order.reshape(-1, n_steps * batch_size)
    used = take, model, optimizer  # keeps alive what the graph reads and writes

    def run(n: int) -> int:
        n_graphs = -(-n // n_steps)
        for turn in range(n_graphs):
            indices.copy_(batches[turn % len(batches)])
            graph.replay()
        torch.cuda.synchronize()
        loss = float(losses[-1])
        if not np.isfinite(loss):
            raise Failed(f"the loss of {used[1]} is {loss}")
        return n_graphs * n_steps

    return run


def _torch_compiled(device: xpnet.Device, widths: tuple[int, ...], batch_size: int) -> Run:
    """Compile the loss and its gradient; the optimizer is PyTorch's fused Adam.

    Each network is compiled for its own shapes, and the address of the data set is marked as
    static. Otherwise sizes become variables, and all samples are copied before each step.
    """
    import torch

    del device
    torch._dynamo.reset()
    model, optimizer, data, labels, order = _torch_parts("cuda", widths, batch_size, fused=True)
    torch._dynamo.mark_static_address(data)
    torch._dynamo.mark_static_address(labels)
    batches = order.reshape(-1, batch_size)

    def loss_of(chosen: Any) -> Any:
        return torch.nn.functional.cross_entropy(model(data[chosen]), labels[chosen])

    compiled = torch.compile(loss_of, mode="reduce-overhead", dynamic=False)
    compiler: Any = torch.compiler  # some of its functions have no types

    def run(n: int) -> int:
        for turn in range(n):
            compiler.cudagraph_mark_step_begin()
            optimizer.zero_grad(set_to_none=True)
            loss: Any = compiled(batches[turn % len(batches)])
            loss.backward()
            optimizer.step()
        torch.cuda.synchronize()
        return n

    return run
