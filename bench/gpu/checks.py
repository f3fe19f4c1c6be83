"""The parts of the GPU gate that check results."""

from __future__ import annotations

import contextlib
import functools
import io
import itertools
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np

import xpnet
from bench.environment import ROOT
from bench.gpu import capture_refusal
from bench.gpu.outcome import Failed, Row, Settings, Skipped
from bench.test_step import bind, bind_step
from xpnet import nn
from xpnet.data.named import load_contents
from xpnet.graph import Recorder
from xpnet.kernels import cublas
from xpnet.training import evaluate, fit

__all__ = [
    "classifiers",
    "graph_equals_eager",
    "parity",
    "refusal",
    "sanitizer",
    "steady_step",
    "tests",
]

_OUTCOME = re.compile(r"^\S+::.* (PASSED|FAILED|SKIPPED|ERROR)\b", re.MULTILINE)
_NO_TESTS = 5  # pytest's exit status if a share has no tests


def parity(which: str, settings: Settings) -> list[Row]:
    """Compare devices: operations, layers, one step, twenty steps."""
    where = "tests/parity/test_training.py" if settings.is_quick else "tests/parity"
    return _pytest(settings, [where, "-k", which], _n_processes(8))


def tests(settings: Settings) -> list[Row]:
    """Run all tests except parity."""
    if settings.is_quick:
        return _pytest(settings, ["tests/nn/test_losses.py"], 2)
    return _pytest(settings, ["tests", "bench", "--ignore", "tests/parity"], _n_processes(14))


def _n_processes(most: int) -> int:
    """Return the number of processes; they spend much of their time compiling."""
    return max(min((os.cpu_count() or 1) - 2, most), 1)


def _pytest(settings: Settings, what: Sequence[str], n_processes: int) -> list[Row]:
    """Divide tests among parallel processes, and add up their outcomes."""
    options = ["-v", "-p", "no:cacheprovider", "--tb=short", "--device", settings.device]
    began = time.time()
    threads = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"), "1")  # of each process
    running = [
        subprocess.Popen(
            [sys.executable, "-m", "pytest", *options, "--shard", f"{n + 1}/{n_processes}", *what],
            cwd=ROOT,
            env={**os.environ, **threads},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        for n in range(n_processes)
    ]
    with ThreadPoolExecutor(len(running)) as pool:  # each prints more than a pipe holds
        outputs = list(pool.map(functools.partial(_output_of, settings), running))
    counts: Counter[str] = Counter()
    wrong: list[str] = []
    for process, output in zip(running, outputs, strict=True):
        counts.update(_OUTCOME.findall(output))
        lines = output.splitlines()
        if process.returncode == -signal.SIGKILL:
            wrong.append(f"ran out of time at {lines[-1] if lines else 'its start'}")
        elif process.returncode not in (0, _NO_TESTS):
            details = [line for line in lines if line.startswith(("FAILED ", "ERROR ", "E  "))]
            wrong += details or lines[-15:]
    found = {kind: counts[kind.upper()] for kind in ("passed", "failed", "skipped", "error")}
    rows = [{**found, "seconds": round(time.time() - began, 1), "processes": n_processes}]
    if wrong or not found["passed"]:
        raise Failed("\n".join(wrong[:60]) or "no test ran", rows)
    return rows


def _output_of(settings: Settings, process: subprocess.Popen[str]) -> str:
    """Wait for a process until the deadline, and return its output."""
    try:
        return process.communicate(timeout=settings.left())[0]
    except subprocess.TimeoutExpired:
        process.kill()
        return process.communicate()[0]


def steady_step(settings: Settings) -> list[Row]:
    """Take steps that may neither wait for the device nor allocate memory."""
    device = xpnet.device("cuda", "fused")
    rows = []
    n_steps = 10 if settings.is_rehearsal else 50
    for widths, batch_size in (((784, 256, 128, 10), 128), ((64, 32, 10), 7)):
        with device.activate():
            rng, n = np.random.default_rng(0), 3 * batch_size
            X, y = rng.standard_normal((n, widths[0])), rng.integers(0, widths[-1], n)
            step = bind_step(device, widths, batch_size, X, y)
            order = device.asarray(rng.permutation(n))
            for start in range(0, n, batch_size):
                step(order[start : start + batch_size])
            with _nothing_but_kernels(device):
                for turn in range(n_steps):
                    start = turn % 3 * batch_size
                    step(order[start : start + batch_size])
            loss = float(device.to_host(step.loss_value)[0])
        if not np.isfinite(loss):
            raise Failed(f"the loss is {loss} after {n_steps} steps of {widths}")
        name = "-".join(map(str, widths))
        rows.append({"network": name, "batch": batch_size, "steps": n_steps, "loss": loss})
    return rows


def graph_equals_eager(settings: Settings) -> list[Row]:
    """Take fifty steps one by one and as graphs, and compare every bit of the results."""
    n_steps = 10 if settings.is_rehearsal else 50
    rows: list[Row] = []
    for precision, name in itertools.product(("float32", "tf32"), ("plain", "improved")):
        device = xpnet.device("cuda", "fused", precision)
        found = {
            how: _steps(device, name, n_steps, settings, is_captured=how == "captured")
            for how in ("eager", "captured")
        }
        for what, expected in found["eager"].items():
            if not np.array_equal(found["captured"][what], expected):
                n_wrong = int((found["captured"][what] != expected).sum())
                raise Failed(
                    f"{name} in {precision}: {n_wrong} of {expected.size} numbers of the {what} "
                    "differ",
                    rows,
                )
        losses = found["eager"]["losses"]
        if not np.isfinite(losses).all() or losses[0] == losses[-1]:
            raise Failed(f"{name} in {precision}: the losses are {losses}", rows)
        row = {"network": name, "precision": precision, "steps": n_steps, "loss": losses[-1]}
        rows.append({key: str(value) for key, value in row.items()})
    return rows


def _steps(
    device: xpnet.Device, name: str, n_steps: int, settings: Settings, *, is_captured: bool
) -> dict[str, Any]:
    """Take steps from the same start, one by one or as graphs, and return the results."""
    batch_size, width, n_in_graph = (16, 49, 4) if settings.is_rehearsal else (128, 784, 8)
    rng = np.random.default_rng(0)
    n = 4 * batch_size
    X, y = rng.standard_normal((n, width)), rng.integers(0, 10, n)
    layers: list[Any] = [nn.Dense(256, "relu"), nn.Dense(128, "relu"), nn.Dense(10)]
    more: dict[str, Any] = {}
    if name == "improved":
        layers = [
            *(nn.Dropout(0.1), nn.Dense(256, max_norm=1.0), nn.BatchNorm(), "gelu_tanh"),
            *(nn.Dropout(0.3), nn.Dense(128), nn.LayerNorm(), "relu", nn.Dense(10)),
        ]
        more["regularizer"] = nn.Regularizer(l1=1e-5, l2=1e-4, clip_value=1.0, clip_norm=0.5)
    network = nn.Network(layers, width, device=device)
    with device.activate():
        if name == "improved":
            more["average"] = nn.MovingAverage(network, 0.9)
            more["weights"] = device.asarray(1 + np.arange(n) % 3, network.dtype)
        step = bind(network, nn.AdamW(0.01), X, y, batch_size, **more)
        order = device.asarray(rng.integers(0, n, (n_steps + 1) * batch_size))
        losses = []
        recorder = Recorder(device)
        step(order[:batch_size])
        if is_captured:
            graphs = {k: nn.CapturedSteps(step, k, recorder) for k in (n_in_graph, 1)}
        number = 1
        while number <= n_steps:
            k = n_in_graph if is_captured and number + n_in_graph <= n_steps + 1 else 1
            chosen = order[number * batch_size : (number + k) * batch_size]
            losses.append(device.to_host(graphs[k](chosen) if is_captured else step(chosen)).copy())
            number += k
        found = {
            "parameters": network.parameters,
            "gradients": network.gradients,
            "statistics": network.statistics,
        }
        return {
            **{key: device.to_host(array) for key, array in found.items()},
            "losses": np.concatenate(losses),
        }


def refusal(settings: Settings) -> list[Row]:
    """Show why xpnet calls cuBLAS itself: CuPy's products cannot be captured."""
    del settings
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        status = capture_refusal.main(cublas.load())
    rows: list[Row] = [{"CuPy's products": line} for line in said.getvalue().splitlines()]
    if status == 1:
        raise Failed("a product has other bits in a graph than outside of one", rows)
    return rows


@contextmanager
def _nothing_but_kernels(device: xpnet.Device) -> Iterator[None]:
    """Make waiting and allocating raise an error, and check that they do."""
    import warnings

    import cupyx

    def refuse(size: int) -> Any:
        raise MemoryError(f"a steady step asked for {size} bytes")

    one = device.xp.ones(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that allow_synchronize will go one day
        with cupyx.allow_synchronize(False), device.xp.cuda.using_allocator(refuse):
            for forbidden in (lambda: device.xp.empty(1), lambda: float(one)):
                try:
                    forbidden()
                except (MemoryError, cupyx.DeviceSynchronized):
                    continue
                raise Failed("this CuPy does not raise an error for a wait or an allocation")
            yield


def sanitizer(tool: str, settings: Settings) -> list[Row]:
    """Run a small step under one of compute-sanitizer's tools.

    A rehearsal takes the step without the tool.
    """
    command = [sys.executable, "-m", "bench.gpu.small_step"]
    if not settings.is_rehearsal:
        program = shutil.which("compute-sanitizer")
        if program is None:
            raise Skipped("compute-sanitizer is not installed")
        # CuPy queries some attributes that a GPU may lack.
        options = ["--tool", tool, "--error-exitcode", "9", "--report-api-errors", "no"]
        command = [program, *options, *command]
    done = subprocess.run(
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
        timeout=settings.left(),
    )
    output = done.stdout
    if done.returncode:
        raise Failed(f"exit status {done.returncode}: {output[-3000:]}")
    under = "no tool" if settings.is_rehearsal else tool
    return [{"a small step under": under, "says": " ".join(output.split())[-200:]}]


def classifiers(settings: Settings) -> list[Row]:
    """Train the three classifiers on the CPU and on the GPU."""
    from xpnet.recipe import load_recipe

    data, X, y = _images()
    kernels = xpnet.device("cpu").kernels
    rows = []
    for name in ("logistic", "shallow", "deep"):
        values = load_recipe(f"digits-{name}").values
        training = values["training"]
        epochs = 4 if settings.is_rehearsal else training["epochs"]
        found = {}
        for device in ("cpu", "cuda"):
            network = nn.Network(values["network"]["layers"], X.shape[1], device=device)
            began = time.perf_counter()
            history = fit(
                network,
                X,
                y,
                loss=values["loss"],
                optimizer=values["optimizer"],
                epochs=epochs,
                batch_size=training["batch_size"],
                report_every=epochs,
            )
            seconds = time.perf_counter() - began
            cost, accuracy = evaluate(network, values["loss"], X, y)
            found[device] = (accuracy, cost)
            rows.append(
                {
                    "classifier": name,
                    "data": data,
                    "device": f"cpu ({kernels})" if device == "cpu" else settings.device,
                    "precision": "float32",
                    "steps": "captured" if history.captured else "one by one",
                    "accuracy": accuracy,
                    "cost": cost,
                    "seconds": seconds,
                    "steps/s": history.n_steps / history.seconds,
                }
            )
        if abs(found["cpu"][0] - found["cuda"][0]) > 0.01:
            raise Failed(f"{name}: accuracy and cost differ: {found}", rows)
    return rows


def _images() -> tuple[str, Any, Any]:
    """Return the digits, or without scikit-learn random data of that shape."""
    try:
        part = load_contents("digits").parts["train"]
    except ImportError:
        rng = np.random.default_rng(0)
        y = rng.integers(0, 10, 1797)
        centers = rng.random((10, 64))
        return "drawn", centers[y] + 0.3 * rng.standard_normal((1797, 64)), y
    return "digits", part.X.reshape(len(part.X), -1) / 16, part.y
