"""What a GPU's memory holds, and what is said when it does not."""

from __future__ import annotations

import re
import threading
import time
import types
from typing import Any

import numpy as np
import pytest

import xpnet
from xpnet import nn
from xpnet.kernels import transfer
from xpnet.training import evaluate, fit

pytestmark = pytest.mark.accelerator


@pytest.fixture
def device():
    return xpnet.device(xpnet.device().name, "fused")


@pytest.fixture
def limited(device):
    """CuPy's pool with a limit that is gone after the test."""
    device.free_memory()
    with device.activate():
        pool = device.xp.get_default_memory_pool()

        def limit(n_bytes):
            pool.set_limit(size=pool.total_bytes() + n_bytes)

        yield limit
        pool.set_limit(size=0)


def test_memory_that_runs_out_is_one_line(device, limited):
    limited(2**20)
    with pytest.raises(MemoryError) as error, device.activate():
        device.xp.empty(4 * 2**20, dtype="uint8")
    assert re.fullmatch(
        r"cuda:0 is out of memory: 4.2 MB more were needed, and CuPy's memory pool is limited to "
        r"\S+ MB",
        str(error.value),
    )
    with device.activate():  # and it goes on
        assert device.to_host(device.xp.ones(3)).sum() == 3


def test_training_that_runs_out_of_memory(device, limited):
    network = nn.Network([nn.Dense(1000), nn.Dense(3)], 8, device=device)
    X, y = np.ones((5000, 8), "f"), np.zeros(5000, int)
    limited(2**21)
    with pytest.raises(MemoryError, match=r"out of memory: .* more were needed, and CuPy's"):
        fit(network, X, y, loss="softmax_cross_entropy", optimizer="adam", epochs=1)
    assert len(device.recorders) == 0


@pytest.mark.parametrize(
    ("dtype", "of_network", "advice"),
    [
        ("uint8", "float32", r"free: train on fewer samples, or on the CPU"),
        ("float64", "float32", r"free: pass uint8 data with divide_by if possible; "),
        ("float32", "float64", r"free: use dtype float32, which needs half the memory; pass uint8"),
    ],
)
def test_a_data_set_that_does_not_fit(device, monkeypatch, dtype, of_network, advice):
    """It is refused before any of it is copied; memory that is not there need not be touched."""
    network = nn.Network([nn.Dense(3)], 1000, device=device, dtype=of_network)
    X = np.broadcast_to(np.ones(1, dtype), (10_000, 1000))
    n_bytes = 10_000 * 1000 * (1 if dtype == "uint8" else int(of_network[5:]) // 8)
    monkeypatch.setattr(device, "memory", lambda: (n_bytes - 1, 80 * 10**9))
    y = np.zeros(len(X), int)
    message = f"X needs {n_bytes / 1e6:.1f} MB, but cuda:0 has .* of 80.0 GB {advice}"
    with pytest.raises(MemoryError, match=message):
        fit(network, X, y, loss="softmax_cross_entropy", optimizer="adam", epochs=1)
    with pytest.raises(MemoryError, match="but cuda:0 has"):
        evaluate(network, "softmax_cross_entropy", X, y)


def test_what_is_free_includes_what_is_kept_for_later(device, monkeypatch):
    with device.activate():
        free, total = device.memory()
        assert 0 < free <= total
        # Other programs use the GPU as well: what it says is held here.
        monkeypatch.setattr(device.xp.cuda.runtime, "memGetInfo", lambda: (1000, 5000))
        pool = types.SimpleNamespace(free_bytes=lambda: 234, get_limit=lambda: 0)
        monkeypatch.setattr(device.xp, "get_default_memory_pool", lambda: pool)
        assert device.memory() == (1234, 5000)


def test_free_memory_lets_go_of_what_operations_keep(device):
    with device.activate():
        xp, ops = device.xp, device.ops
        dZ, db = xp.ones((1000, 4)), xp.empty(4)
        ops.bias_grad(dZ, out=db)
        ops.matmul(xp.ones((4, 4)), xp.ones((4, 4)))
        pool = xp.get_default_memory_pool()
        before = pool.used_bytes()
    device.free_memory()
    with device.activate():
        assert pool.used_bytes() < before - 2**20
        ops.bias_grad(dZ, out=db)
        assert device.to_host(db)[0] == 1000


def test_memory_that_runs_out_without_a_limit(device):
    error = device.xp.cuda.memory.OutOfMemoryError(123_456_789, 10**9, 0)
    with (
        pytest.raises(MemoryError, match=r"123.5 MB more were needed, and \S+ GB of \S+ GB are f"),
        device.activate(),
    ):
        raise error


def test_an_allocator_of_ones_own_knows_best_what_there_is(device):
    """Managed memory, say, is more than the GPU has."""
    pool = device.xp.cuda.MemoryPool()
    device.require_room(1, "X", "nothing")
    with pytest.raises(MemoryError, match=r"X needs 1152921504\.6 GB"):
        device.require_room(2**60, "X", "nothing")
    with device.xp.cuda.using_allocator(pool.malloc):
        device.require_room(2**60, "X", "nothing")


def test_memory_is_freed_while_others_compute(device):
    """A workspace stays where a product in another thread is about to be launched with it."""
    network = nn.Network([nn.Dense(16, "relu"), nn.Dense(3)], 8, device=device)
    X = np.random.default_rng(0).standard_normal((64, 8))
    expected = network.predict(X)
    errors = []
    is_over = threading.Event()

    def predict():
        try:
            while not is_over.is_set():
                np.testing.assert_array_equal(network.predict(X), expected)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=predict) for _ in range(2)]
    for thread in threads:
        thread.start()
    for _ in range(200):
        device.free_memory()
    is_over.set()
    for thread in threads:
        thread.join()
    assert not errors, errors[0]


@pytest.mark.emulated
def test_a_workspace_outlives_the_product_that_was_told_of_it(device, monkeypatch):
    """Memory is freed by another thread between the two."""
    from tests.emulation.module import library

    function: Any = vars(library)["cublasGemmEx"]
    multiply, freed = function._call, []

    def free_and_multiply(*arguments):
        thread = threading.Thread(target=lambda: freed.append(device.free_memory()))
        thread.start()
        thread.join(10)
        assert not thread.is_alive()
        return multiply(*arguments)

    with device.activate():
        A = device.xp.ones((4, 4))
        monkeypatch.setattr(function, "_call", free_and_multiply)
        product = device.ops.matmul(A, A)
        monkeypatch.undo()
        assert freed == [None]
        np.testing.assert_array_equal(device.to_host(product), 4)


def test_what_is_free_keeps_to_the_limit_of_the_pool(limited, device):
    limited(2**21)
    assert device.memory()[0] <= 2**21
    with pytest.raises(MemoryError, match=r"X needs 16.8 MB, but cuda:\d has 2.1 MB of"):
        device.require_room(2**24, "X", "nothing")


def test_a_gpu_that_is_full_is_not_blamed_on_the_limit(device):
    error = device.xp.cuda.memory.OutOfMemoryError(3 * 10**9, 10**9, 60 * 10**9)
    with (
        pytest.raises(MemoryError, match=r"3.0 GB more were needed, and .* are free"),
        device.activate(),
    ):
        raise error


def test_a_stream_is_for_one_at_a_time_and_then_for_the_next():
    name = xpnet.device().name
    first, second = (xpnet.device(name) for _ in range(2))
    assert first.stream.ptr != second.stream.ptr
    before = first.stream.ptr
    del first
    assert xpnet.device(name).stream.ptr == before


@pytest.mark.needs("sklearn")
def test_one_fit_after_another_takes_the_same_memory():
    """CuPy's pool keeps what was freed on a stream for that stream alone."""
    from xpnet import MLPClassifier

    X, y = np.random.default_rng(0).standard_normal((300, 8)), np.arange(300) % 3
    pool = xpnet.device().xp.get_default_memory_pool()
    totals = []
    for _ in range(6):
        MLPClassifier((5,), max_iter=5, tol=1e9, n_iter_no_change=1).fit(X, y)
        totals.append(pool.total_bytes())
    assert totals[1:] == totals[1:2] * 5


@pytest.mark.parametrize("n_bytes", [0, 1, 63, 64, 65, 128, 129, 1000])
def test_large_arrays_go_through_two_buffers(device, monkeypatch, n_bytes):
    """Which are used again and again, once the GPU has read what was in them."""
    monkeypatch.setattr(transfer, "LARGE", 64)
    with device.activate():
        buffers = transfer._Buffers(device.xp)
        monkeypatch.setattr(transfer, "_buffers", lambda cupy, index: buffers)
        for dtype in ("uint8", "float32", "float64"):
            array = np.arange(n_bytes).astype(dtype).reshape(-1, 1)
            expected = array.copy()
            found = device.asarray(array)
            array[...] = 7  # which comes too late
            assert found.dtype == dtype
            np.testing.assert_array_equal(device.to_host(found), expected)


@pytest.mark.emulated
def test_a_buffer_that_is_used_again_too_early_shows(device, monkeypatch):
    """The stand-in copies as late as a GPU may."""
    monkeypatch.setattr(transfer, "LARGE", 64)
    monkeypatch.setattr(device.xp.cuda.Event, "synchronize", lambda self: None)
    with device.activate():
        buffers = transfer._Buffers(device.xp)
        monkeypatch.setattr(transfer, "_buffers", lambda cupy, index: buffers)
        array = np.arange(256).astype("uint8")
        found = device.to_host(device.asarray(array))
    np.testing.assert_array_equal(found[128:], array[128:])
    assert (found[:128] != array[:128]).any()


@pytest.mark.emulated
def test_pinned_memory_does_not_grow(device, monkeypatch):
    from tests.emulation.memory import pinned_pool

    monkeypatch.setattr(transfer, "LARGE", 64)
    monkeypatch.setattr(transfer, "_made", {})
    device.asarray(np.zeros(1000))
    before = pinned_pool.n_bytes
    for _ in range(5):
        device.asarray(np.zeros(100_000))
    assert pinned_pool.n_bytes == before


@pytest.mark.emulated
def test_threads_share_the_buffers_from_the_first(device, monkeypatch):
    """Those that are dropped would be used again while the GPU reads them."""
    made, allocate = [], device.xp.cuda.alloc_pinned_memory

    def slowly(size):
        time.sleep(0.02)
        made.append(size)
        return allocate(size)

    monkeypatch.setattr(transfer, "LARGE", 64)
    monkeypatch.setattr(transfer, "_made", {})
    monkeypatch.setattr(device.xp.cuda, "alloc_pinned_memory", slowly)
    array = np.arange(1000.0)
    found = []

    def copy():
        with device.activate():
            found.append(device.to_host(device.asarray(array)))

    threads = [threading.Thread(target=copy) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == [64, 64]
    assert len(found) == 3
    for copied in found:
        np.testing.assert_array_equal(copied, array)


@pytest.mark.emulated
def test_without_pinned_memory_arrays_come_over_all_the_same(device, monkeypatch):
    def refuse(size):
        del size
        raise device.xp.cuda.runtime.CUDARuntimeError("cudaErrorMemoryAllocation", "out of memory")

    monkeypatch.setattr(transfer, "LARGE", 64)
    monkeypatch.setattr(transfer, "_made", {})
    monkeypatch.setattr(device.xp.cuda, "alloc_pinned_memory", refuse)
    found = device.to_host(device.asarray(np.arange(1000.0)))
    np.testing.assert_array_equal(found, np.arange(1000.0))


def test_wide_networks_are_evaluated_on_fewer_samples(device):
    """So that the outputs of a layer take no more than 64 MiB, from 1,024 samples on."""
    for width, dtype, expected in (
        (8, "float32", 16_384),
        (4096, "float32", 4096),
        (4096, "float64", 2048),
        (100_000, "float32", 1024),
    ):
        network = nn.Network([nn.Dense(1)], width, device=device, dtype=dtype)
        assert network.default_batch_size == expected
    assert nn.Network([nn.Dense(1)], 100_000, device="cpu").default_batch_size == 1024
