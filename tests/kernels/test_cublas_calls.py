"""What cuBLAS is given, on the emulated device: arguments, workspaces and handles.

What it would refuse is refused by :mod:`tests.emulation.cublas`.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

from tests.emulation import memory
from tests.kernels.layouts import COPIED, LAYOUTS, assert_product, draw
from xpnet.kernels import cublas

pytestmark = pytest.mark.accelerator

N, T = 0, 1


@pytest.fixture
def library(monkeypatch):
    """The emulated device's cuBLAS, which tells what it is given."""
    from tests.emulation.module import library

    monkeypatch.setattr(library, "is_noting", True)
    monkeypatch.setattr(library, "calls", [])
    return library


@pytest.mark.emulated
@pytest.mark.parametrize(("dtype", "type_"), [("float32", 0), ("float64", 1)])
@pytest.mark.parametrize(
    ("A_layout", "transb", "ldb"),
    [("rows", N, 7), ("columns", T, 5), ("rows apart", N, 12), ("columns apart", T, 9)],
)
@pytest.mark.parametrize(
    ("B_layout", "transa", "lda"),
    [("rows", N, 3), ("columns", T, 7), ("inner columns", N, 6), ("every third column", T, 21)],
)
def test_the_operands_change_places(
    device, library, A_layout, transb, ldb, B_layout, transa, lda, dtype, type_
):
    """m, k, n = 5, 7, 3 of C = A B: as C' = B' A', whose m and n are 3 and 5."""
    with device.activate():
        a = LAYOUTS[A_layout](device, draw((5, 7), dtype))
        b = LAYOUTS[B_layout](device, draw((7, 3), dtype))
        out = device.ops.matmul(a, b)
    (call,) = library.calls
    assert call.pop("alpha").value == 1
    assert call.pop("beta").value == 0
    del call["handle"]
    assert call == {
        "transa": transa,
        "transb": transb,
        "m": 3,
        "n": 5,
        "k": 7,
        "A": b.data.ptr,
        "Atype": type_,
        "lda": lda,
        "B": a.data.ptr,
        "Btype": type_,
        "ldb": ldb,
        "C": out.data.ptr,
        "Ctype": type_,
        "ldc": 3,
        "computeType": 70 if dtype == "float64" else 68,
        "algo": -1,
    }


@pytest.mark.emulated
@pytest.mark.parametrize(
    ("precision", "dtype", "compute"),
    [
        ("float32", "float32", 68),
        ("tf32", "float32", 77),
        ("float32", "float64", 70),
        ("tf32", "float64", 70),
    ],
)
@pytest.mark.parametrize("stack", [(), (2,)])
def test_how_cublas_computes(device, library, stack, precision, dtype, compute):
    with device.activate():
        a = device.asarray(draw((*stack, 4, 4), dtype))
        cublas.Products(device.xp, precision)(a, a)
    assert [(call["computeType"], call["algo"]) for call in library.calls] == [(compute, -1)]


M_K, K_N, M_N = 5 * 7, 7 * 3, 5 * 3
WHOLE = np.s_[...]


@pytest.mark.emulated
@pytest.mark.parametrize(
    ("A_stack", "A_part", "B_stack", "B_part", "calls"),
    [
        # calls: how many products, apart by how many elements, and where they begin (A, B, C)
        ((3,), WHOLE, (3,), WHOLE, [(3, M_K, K_N, (0, 0, 0))]),
        ((3,), WHOLE, (), WHOLE, [(3, M_K, 0, (0, 0, 0))]),
        ((3,), WHOLE, (1,), WHOLE, [(3, M_K, 0, (0, 0, 0))]),
        ((), WHOLE, (3,), WHOLE, [(3, 0, K_N, (0, 0, 0))]),
        ((2, 4), WHOLE, (2, 4), WHOLE, [(8, M_K, K_N, (0, 0, 0))]),
        ((2, 4), WHOLE, (), WHOLE, [(8, M_K, 0, (0, 0, 0))]),
        ((2, 1, 4), WHOLE, (2, 1, 4), WHOLE, [(8, M_K, K_N, (0, 0, 0))]),
        ((6,), np.s_[::2], (3,), WHOLE, [(3, 2 * M_K, K_N, (0, 0, 0))]),
        ((2, 4), np.s_[:, 1], (2,), WHOLE, [(2, 4 * M_K, K_N, (1, 0, 0))]),
        ((2, 1), WHOLE, (4,), WHOLE, [(4, 0, K_N, (0, 0, 0)), (4, 0, K_N, (1, 0, 4))]),
        (
            *((2, 4), np.s_[:, :3], (2, 3), WHOLE),
            [(3, M_K, K_N, (0, 0, 0)), (3, M_K, K_N, (4, 3, 3))],
        ),
        ((2,), np.s_[::-1], (2,), WHOLE, [(1, 0, 0, (1, 0, 0)), (1, 0, 0, (0, 1, 1))]),
        ((2,), WHOLE, (2,), np.s_[::-1], [(1, 0, 0, (0, 1, 0)), (1, 0, 0, (1, 0, 1))]),
        ((2, 1), WHOLE, (2, 1), WHOLE, [(2, M_K, K_N, (0, 0, 0))]),
        ((1, 1), WHOLE, (1,), WHOLE, [(1, 0, 0, (0, 0, 0))]),
    ],
)
@pytest.mark.parametrize("is_transposed", [False, True])
def test_stacks_take_as_few_calls_as_can_be(
    device, library, A_stack, A_part, B_stack, B_part, calls, is_transposed
):
    layout = LAYOUTS["columns" if is_transposed else "rows"]
    with device.activate():
        a, b = layout(device, draw((*A_stack, 5, 7))), layout(device, draw((*B_stack, 7, 3)))
        out = device.ops.matmul(a[A_part], b[B_part])
    made = [
        (
            *(call.get("batchCount", 1), call.get("strideB", 0), call.get("strideA", 0)),
            (
                (call["B"] - a.data.ptr) / (4 * M_K),
                (call["A"] - b.data.ptr) / (4 * K_N),
                (call["C"] - out.data.ptr) / (4 * M_N),
            ),
        )
        for call in library.calls
    ]
    assert made == calls
    for call in library.calls:
        assert ("batchCount" in call) == (made[0][0] > 1)
        assert call.get("strideC", M_N) == M_N
        assert (call["m"], call["n"], call["k"]) == (3, 5, 7)
        assert (call["transa"], call["transb"]) == ((T, T) if is_transposed else (N, N))
        assert (call["lda"], call["ldb"], call["ldc"]) == (
            (7, 5, 3) if is_transposed else (3, 7, 3)
        )


@pytest.mark.emulated
@pytest.mark.parametrize(
    ("part", "operation", "leading"),
    [
        (lambda X: X[2:3, :8], N, 8),
        (lambda X: X[:1, ::5], T, 5),
        (lambda X: X[:1, ::5].T, N, 5),
        (lambda X: X[::2, 3:4], N, 80),
        (lambda X: X[::2, 3:4].T, T, 80),
        (lambda X: X[4:5, 7:8], N, 1),
    ],
)
def test_the_stride_of_an_axis_of_one_means_nothing(device, library, part, operation, leading):
    X = draw((9, 40))
    with device.activate():
        x, B = part(device.asarray(X)), draw((part(X).shape[1], 3))
        b = device.asarray(B)
        device.ops.matmul(b.T, b)
        library.calls.clear()
        before = memory.counter.n_allocations
        found = device.ops.matmul(x, b)
        assert memory.counter.n_allocations == before + 1
        assert_product(device.to_host(found), part(X), B)
    assert [(call["transb"], call["ldb"]) for call in library.calls] == [(operation, leading)]


@pytest.mark.emulated
@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_is_copied(device, layout):
    matmul = cublas.Products(device.xp)
    with device.activate():
        for stack in ((), (3,)):
            a, b = LAYOUTS[layout](device, draw((*stack, 6, 5))), device.asarray(draw((5, 4)))
            out = matmul(a, b)
            before = memory.counter.n_allocations
            matmul(a, b, out=out)
            matmul(b.T, a.swapaxes(-1, -2), out=out.reshape(*stack, 4, 6))
            assert memory.counter.n_allocations - before == (2 if layout in COPIED else 0)


@pytest.fixture
def notes(library, monkeypatch):
    """What cuBLAS is asked for, in order: the function and its arguments."""
    made: list[tuple[Any, ...]] = []

    def noting(name, call):
        def noted(*arguments):
            made.append((name, *arguments))
            return call(*arguments)

        return noted

    for name in cublas.PROTOTYPES:
        function = getattr(library, name)
        monkeypatch.setattr(function, "_call", noting(name, function._call))
    return made


@pytest.mark.emulated
def test_the_stream_and_then_the_workspace(device, recorder, notes):
    """At every product, for others may have used the handle. A graph has the same handle, and the
    workspace of the stream that it will be launched on.
    """
    matmul = cublas.Products(device.xp)
    with device.activate():
        a = device.asarray(draw((4, 4)))
        out = device.xp.empty_like(a)
        work = lambda: matmul(a, a, out=out)  # noqa: E731
        work()
        work()
        recorder.record(work)
        work()
    order = ["cublasSetStream_v2", "cublasSetWorkspace_v2", "cublasGemmEx"]
    assert [name for name, *_ in notes] == order * 4
    assert len({handle for _, handle, *_ in notes}) == 1
    own = device.stream.ptr
    other = recorder._stream.ptr
    assert [stream for _, _, stream in notes[::3]] == [own, own, other, own]
    ((_, n_bytes),) = {tuple(arguments) for _, _, *arguments in notes[1::3]}
    assert n_bytes == 32 << 20


@pytest.mark.emulated
@pytest.mark.parametrize(("capability", "n_bytes"), [("80", 4 << 20), ("100", 32 << 20)])
def test_the_workspace_of_other_gpus(device, notes, monkeypatch, capability, n_bytes):
    from tests.emulation import execution

    monkeypatch.setitem(execution.capabilities, device.index, capability)
    with device.activate():
        a = device.asarray(draw((4, 4)))
        cublas.Products(device.xp)(a, a)
    assert [note[3] for note in notes if note[0] == "cublasSetWorkspace_v2"] == [n_bytes]


@pytest.mark.emulated
def test_a_handle_for_each_gpu(device, notes, monkeypatch):
    from tests.emulation.module import library

    own = cublas._Library(library)
    monkeypatch.setattr(cublas, "_library", lambda: own)
    xp, matmul = device.xp, cublas.Products(device.xp)
    for _ in range(2):
        for index in range(2):
            with xp.cuda.Device(index):
                a = xp.ones((4, 4), dtype="float32")
                np.testing.assert_array_equal(matmul(a, a).get(), np.full((4, 4), 4))
    assert [name for name, *_ in notes].count("cublasCreate_v2") == 2
    handles = [note[1] for note in notes if note[0] == "cublasGemmEx"]
    assert handles[0] == handles[2] != handles[1] == handles[3]


@pytest.mark.emulated
def test_a_product_on_another_gpu_than_the_current_one(device, monkeypatch):
    """It fails, and spoils nothing for the next one."""
    from tests.emulation.module import library

    own = cublas._Library(library)
    monkeypatch.setattr(cublas, "_library", lambda: own)
    xp, matmul = device.xp, cublas.Products(device.xp)
    with xp.cuda.Device(1):
        a = xp.ones((4, 4), dtype="float32")
        out = xp.empty_like(a)
    with xp.cuda.Device(0), pytest.raises(ValueError, match="different from the current device"):
        matmul(a, a, out=out)
    with xp.cuda.Device(1):
        np.testing.assert_array_equal(matmul(a, a, out=out).get(), np.full((4, 4), 4))


@pytest.mark.emulated
def test_threads_do_not_come_between_the_calls_of_a_product(device, library, monkeypatch):
    """Stream, workspace and product belong together: the handle is that of all threads."""
    order = []
    with device.activate():
        a = device.asarray(np.eye(4, dtype="float32"))
    device.synchronize()

    def multiply():
        stream = device.xp.cuda.Stream(non_blocking=True)
        with stream:
            np.testing.assert_array_equal(cublas.Products(device.xp)(a, a).get(), np.eye(4))

    second = threading.Thread(target=multiply)

    def noting(call, *, pauses):
        def noted(*arguments):
            order.append(threading.current_thread())
            if pauses and len(order) == 1:
                second.start()
                second.join(0.2)  # where nothing holds it up, it is done by then
            return call(*arguments)

        return noted

    for name, pauses in (("cublasSetWorkspace_v2", True), ("cublasGemmEx", False)):
        function = getattr(library, name)
        monkeypatch.setattr(function, "_call", noting(function._call, pauses=pauses))
    multiply()
    second.join()
    assert order == [threading.current_thread()] * 2 + [second] * 2
