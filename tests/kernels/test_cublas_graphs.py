"""Products by cuBLAS in graphs, on several streams and in several threads."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

from tests.emulation.execution import OrderError
from tests.kernels.layouts import COPIED, DTYPES, LAYOUTS, TF32_TOLERANCE, assert_product, draw
from xpnet import graph
from xpnet.kernels import cublas

pytestmark = pytest.mark.accelerator


@pytest.mark.parametrize("precision", ["float32", "tf32"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("A_shape", "B_shape", "layout"),
    [
        ((33, 17), (17, 9), "rows"),
        ((128, 784), (784, 256), "columns"),
        ((3, 33, 17), (3, 17, 9), "rows apart"),
        ((2, 1, 33, 17), (4, 17, 9), "rows"),
    ],
)
def test_a_graph_has_the_same_bits(device, recorder, A_shape, B_shape, layout, dtype, precision):
    matmul = cublas.Products(device.xp, precision)
    A, B = draw(A_shape, dtype, 25), draw(B_shape, dtype, 26)
    with device.activate():
        a, b = LAYOUTS[layout](device, A), LAYOUTS[layout](device, B)
        eager = matmul(a, b)
        out = device.xp.empty_like(eager)
        matmul(a, b, out=out)
        run = device.to_host(out)
        out.fill(np.nan)
        made = recorder.record(lambda: matmul(a, b, out=out))
        assert np.isnan(device.to_host(out)).all()  # it was not done
        made.launch(device.stream)
        np.testing.assert_array_equal(device.to_host(out), device.to_host(eager))
        np.testing.assert_array_equal(run, device.to_host(eager))
        a *= 3
        made.launch(device.stream)
        np.testing.assert_array_equal(device.to_host(out), device.to_host(matmul(a, b)))
        is_rounded = (precision, dtype) == ("tf32", "float32")
        assert_product(device.to_host(out), 3 * A, B, TF32_TOLERANCE if is_rounded else None)


def test_a_product_that_was_not_run_before_cannot_be_captured(device, recorder, is_emulated):
    """Its workspace would be made then."""
    matmul = cublas.Products(device.xp)
    with device.activate():
        a = device.asarray(draw((9, 9)))
        out = device.xp.empty_like(a)
        n_bytes = 32 << 20 if is_emulated else r"\d+"
        with pytest.raises(
            graph.CaptureError, match=rf"^it cannot be captured as a graph: .*\b{n_bytes} bytes\b"
        ):
            recorder.record(lambda: matmul(a, a, out=out))
        matmul(a, a, out=out)
        eager = device.to_host(out)
        out.fill(np.nan)
        recorder.record(lambda: matmul(a, a, out=out)).launch(device.stream)
        np.testing.assert_array_equal(device.to_host(out), eager)


@pytest.mark.parametrize("layout", COPIED)
def test_what_must_be_copied_cannot_be_captured(device, recorder, layout):
    matmul = cublas.Products(device.xp)
    with device.activate():
        a, b = LAYOUTS[layout](device, draw((9, 9))), device.asarray(draw((9, 9)))
        out = device.xp.empty_like(b)
        matmul(a, b, out=out)
        with pytest.raises(graph.CaptureError, match=r"\b324 bytes\b"):
            recorder.record(lambda: matmul(a, b, out=out))


def test_release(device):
    A, B = draw((33, 17)), draw((17, 9))
    matmul = cublas.Products(device.xp)
    with device.activate():
        a, b = device.asarray(A), device.asarray(B)
        matmul.release()
        before = device.to_host(matmul(a, b))
        used = device.xp.get_default_memory_pool().used_bytes()
        matmul.release()
        assert used - device.xp.get_default_memory_pool().used_bytes() >= 4 << 20
        np.testing.assert_array_equal(device.to_host(matmul(a, b)), before)


@pytest.mark.emulated
def test_a_graph_needs_the_workspace(device, recorder):
    matmul = cublas.Products(device.xp)
    with device.activate():
        a = device.asarray(draw((9, 9)))
        out = device.xp.empty_like(a)
        matmul(a, a, out=out)
        made = recorder.record(lambda: matmul(a, a, out=out))
        matmul.release()
        with pytest.raises(OrderError, match="in a graph uses memory that has been freed"):
            made.launch(device.stream)


def test_streams_have_a_workspace_each(device):
    matmul = cublas.Products(device.xp)
    A, B = draw((33, 17)), draw((17, 9))
    with device.activate():
        a, b = device.asarray(A), device.asarray(B)
        device.synchronize()
        streams = [device.xp.cuda.Stream(non_blocking=True) for _ in range(2)]
        results = []
        for _ in range(3):
            for stream in streams:
                with stream:
                    results.append((stream, matmul(a, b)))
        assert len(matmul._workspaces) == 2
        for stream, result in results:
            with stream:
                assert_product(result.get(), A, B)


def test_threads(device):
    """Shapes, dtypes and values of their own, on one stream and one handle."""
    matmul = cublas.Products(device.xp)
    start = threading.Barrier(2)
    found: dict[int, list[Any]] = {}

    def work(number):
        with device.activate():
            pairs = [
                (draw((9 + number, i), "float32", i), draw((i, 4 + number), "float32", number))
                for i in range(1, 30)
            ]
            arrays = [(device.asarray(A), device.asarray(B)) for A, B in pairs]
            start.wait(20)
            made = [matmul(a, b) for a, b in arrays]
            found[number] = [
                (device.to_host(out), *pair) for out, pair in zip(made, pairs, strict=True)
            ]

    threads = [threading.Thread(target=work, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(matmul._workspaces) == 1
    for number in range(2):
        assert len(found[number]) == 29
        for out, A, B in found[number]:
            assert_product(out, A, B)
