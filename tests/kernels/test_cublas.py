"""Products by cuBLAS against NumPy's in float64, on the CUDA device of the run.

On the emulated device the arguments that cuBLAS is given are looked at as well, and what it would
refuse is refused by :mod:`tests.emulation.cublas`.
"""

from __future__ import annotations

import itertools
import re
import threading
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import xpnet
from tests import devices
from tests.emulation import memory
from tests.emulation.cublas import tf32
from tests.emulation.execution import OrderError
from xpnet import graph
from xpnet.kernels import cublas

pytestmark = pytest.mark.accelerator

DTYPES = ["float32", "float64"]
TOLERANCE = {"float32": 1e-6, "float64": 1e-14}
TF32_TOLERANCE = 2e-3
N, T = 0, 1


@pytest.fixture(scope="module")
def device():
    return xpnet.device(xpnet.device().name, "fused")


@pytest.fixture
def is_emulated(pytestconfig):
    return pytestconfig.stash[devices.chosen] == "emulated"


def draw(shape, dtype="float32", seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def framed(values, before, after, step=(1, 1)):
    """Put matrices among numbers that are none, every so many rows and columns."""
    rows, columns = (
        slice(first, first + n * by, by)
        for first, n, by in zip(before, values.shape[-2:], step, strict=True)
    )
    whole = np.full(
        (*values.shape[:-2], rows.stop + after[0], columns.stop + after[1]), np.nan, values.dtype
    )
    whole[..., rows, columns] = values
    return whole, (..., rows, columns)


def view(device, values, before, after, step=(1, 1)):
    whole, index = framed(values, before, after, step)
    return device.asarray(whole)[index]


# How a matrix may lie in memory: what cuBLAS reads as it is, and what must be copied.
READ = {
    "rows": lambda device, X: device.asarray(X),
    "columns": lambda device, X: device.asarray(X.swapaxes(-1, -2)).swapaxes(-1, -2),
    "rows apart": lambda device, X: view(device, X, (0, 0), (0, 5)),
    "inner columns": lambda device, X: view(device, X, (0, 2), (0, 1)),
    "inner rows": lambda device, X: view(device, X, (3, 0), (2, 0)),
    "every other row": lambda device, X: view(device, X, (1, 1), (0, 1), (2, 1)),
    "columns apart": lambda device, X: view(device, X.swapaxes(-1, -2), (0, 0), (1, 4)).swapaxes(
        -1, -2
    ),
    "every third column": lambda device, X: view(
        device, X.swapaxes(-1, -2), (0, 0), (0, 0), (3, 1)
    ).swapaxes(-1, -2),
}
COPIED = {
    "every other element": lambda device, X: view(device, X, (0, 0), (0, 0), (1, 2)),
    "every other of each": lambda device, X: view(device, X, (1, 0), (0, 1), (2, 2)),
    "upside down": lambda device, X: device.asarray(X[..., ::-1, :])[..., ::-1, :],
    "from right to left": lambda device, X: device.asarray(X[..., ::-1])[..., ::-1],
    "both backwards": lambda device, X: device.asarray(X[..., ::-1, ::-1])[..., ::-1, ::-1],
}
LAYOUTS: dict[str, Any] = {**READ, **COPIED}


def assert_product(found, A, B, tolerance=None):
    """Compare with NumPy's product in float64, by the norm."""
    exact = np.matmul(A.astype(np.float64), B.astype(np.float64))
    scale = np.matmul(np.abs(A).astype(np.float64), np.abs(B).astype(np.float64))
    assert found.dtype == A.dtype
    assert found.shape == exact.shape
    tolerance = TOLERANCE[found.dtype.name] if tolerance is None else tolerance
    assert np.linalg.norm(found - exact) <= tolerance * np.linalg.norm(scale)


def check(device, A, B, A_layout="rows", B_layout="rows", matmul=None):
    """Multiply with and without out, and leave the operands alone."""
    matmul = device.ops.matmul if matmul is None else matmul
    with device.activate():
        a, b = LAYOUTS[A_layout](device, A), LAYOUTS[B_layout](device, B)
        made = matmul(a, b)
        out = device.xp.full(made.shape, np.nan, dtype=made.dtype)
        assert matmul(a, b, out=out) is out
        assert made.flags.c_contiguous
        assert_product(device.to_host(made), A, B)
        np.testing.assert_array_equal(device.to_host(out), device.to_host(made))
        np.testing.assert_array_equal(device.to_host(a), A)
        np.testing.assert_array_equal(device.to_host(b), B)


SHAPES = [
    *((1, 1, 1), (1, 9, 1), (9, 1, 9), (1, 33, 17), (17, 33, 1), (1, 1, 6), (6, 1, 1)),
    *((7, 5, 3), (33, 17, 41), (16, 16, 16), (128, 256, 64), (40, 784, 10)),
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("m", "k", "n"), SHAPES)
def test_transpositions(device, m, k, n, dtype):
    A, B = draw((m, k), dtype, 1), draw((k, n), dtype, 2)
    for layouts in itertools.product(("rows", "columns"), repeat=2):
        check(device, A, B, *layouts)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(device, layout, dtype):
    for m, k, n in [(7, 5, 3), (1, 5, 3), (7, 1, 3), (7, 5, 1), (1, 1, 1)]:
        A, B = draw((m, k), dtype, 3), draw((k, n), dtype, 4)
        for other in ("rows", "columns", layout):
            check(device, A, B, layout, other)
            check(device, A, B, other, layout)


@pytest.mark.parametrize("values", [draw((1, 1)), draw((6, 1)), draw((1, 6)), draw((6,))])
def test_repeated_elements(device, values):
    expected = np.broadcast_to(values, (6, 6))
    other = draw((6, 6), seed=5)
    with device.activate():
        repeated = device.xp.broadcast_to(device.asarray(values), (6, 6))
        b = device.asarray(other)
        assert_product(device.to_host(device.ops.matmul(repeated, b)), expected, other)
        assert_product(device.to_host(device.ops.matmul(b, repeated)), other, expected)
        assert_product(device.to_host(device.ops.matmul(b, repeated.T)), other, expected.T)


def test_a_matrix_times_itself(device):
    X = draw((9, 9))
    with device.activate():
        x = device.asarray(X)
        assert_product(device.to_host(device.ops.matmul(x, x)), X, X)
        assert_product(device.to_host(device.ops.matmul(x.T, x)), X.T, X)


STACKS = [
    *(((3,), (3,)), ((3,), ()), ((), (3,)), ((2, 1), (4,)), ((1,), (1,)), ((3,), (1,))),
    *(((2, 3), (2, 3)), ((2, 3), (3,)), ((2, 3), (2, 1)), ((1, 3), (2, 1)), ((2, 1, 3), (4, 1))),
]


@pytest.mark.parametrize(("A_stack", "B_stack"), STACKS)
def test_stacks(device, A_stack, B_stack):
    A, B = draw((*A_stack, 7, 5), seed=6), draw((*B_stack, 5, 3), seed=7)
    for layouts in itertools.product(LAYOUTS, ("rows", "columns")):
        check(device, A, B, *layouts)
        check(device, A, B, *reversed(layouts))


def test_a_stack_of_float64(device):
    check(device, draw((4, 33, 17), "float64", 8), draw((4, 17, 9), "float64", 9), "columns")


STACK_VIEWS = {
    "the first ones": np.s_[:, :3],
    "the last ones": np.s_[:, 1:],
    "every other": np.s_[:, ::2],
    "backwards": np.s_[:, ::-1],
    "backwards outside": np.s_[::-1],
    "one of each": np.s_[:, 2],
    "one": np.s_[0],
    "every other outside": np.s_[::2],
}


@pytest.mark.parametrize("index", STACK_VIEWS.values(), ids=STACK_VIEWS)
def test_parts_of_stacks(device, index):
    A, B = draw((3, 4, 7, 5), seed=10), draw((3, 4, 5, 2), seed=11)
    with device.activate():
        a, b = device.asarray(A), device.asarray(B)
        own_a, own_b = device.asarray(A[index]), device.asarray(B[index])
        for left, right in ((a[index], own_b), (own_a, b[index]), (a[index], b[index])):
            found = device.to_host(device.ops.matmul(left, right))
            assert_product(found, A[index], B[index])
        assert_product(device.to_host(device.ops.matmul(a[index], b[0, 0])), A[index], B[0, 0])
        assert_product(device.to_host(device.ops.matmul(a[0, 0], b[index])), A[0, 0], B[index])


def test_a_stack_whose_axes_change_places(device):
    A, B = draw((2, 3, 7, 5), seed=12), draw((3, 2, 5, 4), seed=13)
    with device.activate():
        a = device.asarray(A).swapaxes(0, 1)
        found = device.to_host(device.ops.matmul(a, device.asarray(B)))
        inside = device.asarray(A.transpose(2, 0, 1, 3)).transpose(1, 2, 0, 3)
        again = device.to_host(device.ops.matmul(inside, device.asarray(B.swapaxes(0, 1))))
    assert_product(found, A.swapaxes(0, 1), B)
    assert_product(again, A, B.swapaxes(0, 1))


def test_a_stack_that_is_repeated(device):
    A, B = draw((7, 5), seed=14), draw((3, 5, 4), seed=15)
    with device.activate():
        a = device.xp.broadcast_to(device.asarray(A), (2, 3, 7, 5))
        found = device.to_host(device.ops.matmul(a, device.asarray(B)))
    assert_product(found, np.broadcast_to(A, (2, 3, 7, 5)), B)


@pytest.mark.parametrize("stack", [(), (3,), (2, 3)])
def test_without_inner_axis_all_is_zero(device, stack):
    with device.activate():
        a, b = (device.xp.empty(shape, dtype="float32") for shape in ((*stack, 4, 0), (0, 6)))
        out = device.xp.full((*stack, 4, 6), np.nan, dtype="float32")
        assert device.ops.matmul(a, b, out=out) is out
        for found in (out, device.ops.matmul(a, b)):
            np.testing.assert_array_equal(device.to_host(found), np.zeros((*stack, 4, 6)))


@pytest.mark.parametrize(
    ("A_shape", "B_shape", "shape"),
    [
        ((0, 5), (5, 3), (0, 3)),
        ((4, 5), (5, 0), (4, 0)),
        ((0, 0), (0, 0), (0, 0)),
        ((0, 4, 5), (0, 5, 3), (0, 4, 3)),
        ((0, 4, 5), (5, 3), (0, 4, 3)),
        ((1, 4, 5), (0, 5, 3), (0, 4, 3)),
        ((2, 0, 4, 5), (1, 5, 3), (2, 0, 4, 3)),
        ((3, 4, 5), (3, 5, 0), (3, 4, 0)),
    ],
)
def test_empty_results(device, A_shape, B_shape, shape):
    with device.activate():
        a, b, out = (device.xp.empty(s, dtype="float64") for s in (A_shape, B_shape, shape))
        assert device.ops.matmul(a, b, out=out) is out
        found = device.ops.matmul(a, b)
    assert (found.shape, found.dtype) == (shape, np.float64)


@st.composite
def stacks(draw_from):
    """Draw the stacks of two operands, which broadcast."""
    whole = draw_from(st.lists(st.integers(0, 3), max_size=3))
    made = []
    for _ in range(2):
        kept = [1 if draw_from(st.booleans()) else n for n in whole]
        made.append(tuple(kept[draw_from(st.integers(0, len(kept))) :]))
    return made


@settings(max_examples=300)
@given(
    stacks(),
    *(st.integers(0, 12) for _ in range(3)),
    *(st.sampled_from(list(LAYOUTS)) for _ in range(2)),
    st.sampled_from(DTYPES),
    *(st.booleans() for _ in range(2)),
)
def test_whatever_numpy_multiplies(
    device, stacks, m, k, n, A_layout, B_layout, dtype, A_is_reversed, B_is_reversed
):
    A, B = draw((*stacks[0], m, k), dtype, 16), draw((*stacks[1], k, n), dtype, 17)
    with device.activate():
        a, b = LAYOUTS[A_layout](device, A), LAYOUTS[B_layout](device, B)
        if A_is_reversed and stacks[0]:
            A, a = A[::-1], a[::-1]
        if B_is_reversed and stacks[1]:
            B, b = B[..., ::-1, :, :], b[..., ::-1, :, :]
        found = device.ops.matmul(a, b)
        out = device.xp.full(found.shape, np.nan, dtype=dtype)
        device.ops.matmul(a, b, out=out)
        assert_product(device.to_host(found), A, B)
        assert_product(device.to_host(out), A, B)


# TF32.


@pytest.fixture(scope="module")
def fast(device):
    return cublas.Products(device.xp, "tf32")


def test_tf32_rounds_the_operands(device, fast, is_emulated):
    """Whole numbers of 12 bits, of which 11 stay: four of their products add up exactly."""
    rng = np.random.default_rng(18)
    m, k = (64, 32) if is_emulated else (512, 512)  # cuBLAS may, but need not, take tensor cores
    A, B = (rng.integers(2**11, 2**12, shape).astype("float32") for shape in ((m, k), (k, m)))
    A[:, 4:] = 0
    expected = tf32(A).astype(np.float64) @ tf32(B).astype(np.float64)
    with device.activate():
        a, b = device.asarray(A), device.asarray(B)
        found = device.to_host(fast(a, b))
        plain = device.to_host(device.ops.matmul(a, b))
    assert found.dtype == np.float32
    assert_product(plain, A, B)
    assert (found != plain).any()
    assert np.linalg.norm(found - expected) <= TF32_TOLERANCE * np.linalg.norm(expected)
    if is_emulated:
        assert (expected != A.astype(np.float64) @ B.astype(np.float64)).any()
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("stack", [(), (3,)])
def test_tf32_of_ordinary_numbers(device, fast, stack, is_emulated):
    m, k, n = (128, 256, 64) if is_emulated else (512, 512, 512)
    A, B = draw((*stack, m, k), seed=19), draw((*stack, k, n), seed=20)
    with device.activate():
        for layout in ("rows", "columns"):
            found = device.to_host(fast(LAYOUTS[layout](device, A), device.asarray(B)))
            assert_product(found, A, B, TF32_TOLERANCE)
            with pytest.raises(AssertionError):
                assert_product(found, A, B)


def test_float64_is_the_same_in_both_precisions(device, fast):
    A, B = draw((3, 33, 17), "float64", 21), draw((3, 17, 9), "float64", 22)
    with device.activate():
        a, b = device.asarray(A), device.asarray(B)
        found, plain = device.to_host(fast(a, b)), device.to_host(device.ops.matmul(a, b))
    np.testing.assert_array_equal(found, plain)
    assert_product(found, A, B)


# What is refused.


def refusal(message):
    return f"^{re.escape(message)}$"


@pytest.mark.parametrize(
    ("A_shape", "B_shape"),
    [
        ((2, 3), (4, 3)),
        ((2, 3), (1, 3)),
        ((2, 4, 3), (5, 3, 4)),
        ((0, 4, 3), (2, 3, 4)),
        ((2, 1, 4, 3), (3, 5, 3, 4)),
    ],
)
def test_shapes_that_do_not_fit(device, A_shape, B_shape):
    with device.activate():
        a, b = (device.xp.zeros(shape, dtype="float32") for shape in (A_shape, B_shape))
        said = refusal(f"matmul: the shapes {A_shape} and {B_shape} do not fit")
        with pytest.raises(ValueError, match=said):
            device.ops.matmul(a, b)


@pytest.mark.parametrize(
    ("A_shape", "B_shape", "dtypes"),
    [
        ((2, 3), (3, 4), ("float32", "float64")),
        ((2, 3), (3, 4), ("float64", "float32")),
        ((3,), (3, 4), ("float32", "float32")),
        ((2, 3), (3,), ("float32", "float32")),
    ],
)
def test_what_is_left_to_cupy(device, recorder, A_shape, B_shape, dtypes):
    """Mixed dtypes and vectors work as on the CPU, but are no part of a graph."""
    A, B = (draw(shape, dtype) for shape, dtype in zip((A_shape, B_shape), dtypes, strict=True))
    expected = A @ B
    with device.activate():
        a, b = device.asarray(A), device.asarray(B)
        out = device.xp.empty(expected.shape, dtype=expected.dtype)
        for found in (device.ops.matmul(a, b), device.ops.matmul(a, b, out=out)):
            assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
            np.testing.assert_allclose(device.to_host(found), expected, rtol=1e-5)
        with pytest.raises(graph.CaptureError, match=r"cuBLAS API during stream capture|bytes"):
            recorder.record(lambda: device.ops.matmul(a, b, out=out))


def test_operands_that_are_no_arrays_of_cupy(device):
    with device.activate():
        x = device.xp.zeros((3, 3), dtype="float32")
        for other, kind in (
            (np.zeros((3, 3), "float32"), "numpy.ndarray"),
            ([[1.0]], "builtins.list"),
            (None, "builtins.NoneType"),
        ):
            with pytest.raises(
                TypeError, match=refusal(f"matmul: A must be a CuPy array, got {kind}")
            ):
                device.ops.matmul(other, x)
            with pytest.raises(
                TypeError, match=refusal(f"matmul: B must be a CuPy array, got {kind}")
            ):
                device.ops.matmul(x, other)


def test_an_axis_that_cublas_cannot_count(device):
    with device.activate():
        x = device.xp.broadcast_to(device.xp.zeros((1, 1), dtype="float32"), (1, 2**31))
        for a, b, shapes in (
            (x.T, x[:, :1], f"({2**31}, 1) and (1, 1)"),
            (x[:, :1], x, f"(1, 1) and (1, {2**31})"),
            (x, x.T, f"(1, {2**31}) and ({2**31}, 1)"),
        ):
            message = (
                f"matmul: axes, and the number of products, must be less than 2**31, got {shapes}"
            )
            with pytest.raises(ValueError, match=refusal(message)):
                device.ops.matmul(a, b)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda xp: xp.zeros((4, 6), dtype="float64"),
            *(TypeError, "out must be float32 like A, got float64"),
        ),
        (
            lambda xp: np.zeros((4, 6), "float32"),
            *(TypeError, "out must be a CuPy array, got numpy.ndarray"),
        ),
        (lambda xp: 3, TypeError, "out must be a CuPy array, got builtins.int"),
        (
            lambda xp: xp.zeros((6, 4), dtype="float32"),
            *(ValueError, "out must have shape (4, 6), got (6, 4)"),
        ),
        (
            lambda xp: xp.zeros((1, 4, 6), dtype="float32"),
            *(ValueError, "out must have shape (4, 6), got (1, 4, 6)"),
        ),
        (
            lambda xp: xp.zeros((6, 4), dtype="float32").T,
            *(ValueError, "out must be C-contiguous, got strides (4, 16)"),
        ),
        (
            lambda xp: xp.zeros((4, 12), dtype="float32")[:, ::2],
            *(ValueError, "out must be C-contiguous, got strides (48, 8)"),
        ),
    ],
)
def test_results_that_are_refused(device, make, error, message):
    with device.activate():
        a, b = (device.xp.zeros(shape, dtype="float32") for shape in ((4, 5), (5, 6)))
        with pytest.raises(error, match=refusal(f"matmul: {message}")):
            device.ops.matmul(a, b, out=make(device.xp))


def test_a_result_over_an_operand(device):
    with device.activate():
        flat = device.xp.zeros(100, dtype="float32")
        other = device.xp.ones((5, 5), dtype="float32")
        out = flat[20:45].reshape(5, 5)
        inside = [
            out,
            out.T,
            flat[44:69].reshape(5, 5),  # the last element of out is the first of the operand
            flat[:21][None, -5:],
            flat[16:21][:, None],
            flat[16:21][::-1][:, None],
            flat[:50].reshape(5, 10)[:, ::2],
            flat[:50].reshape(5, 10)[::-1, ::-2],
        ]
        for operand in inside:
            n_rows, n_columns = operand.shape
            if n_rows == 5:
                with pytest.raises(
                    ValueError, match=refusal("matmul: out may share memory with A")
                ):
                    device.ops.matmul(operand, other[:n_columns], out=out)
            if n_columns == 5:
                with pytest.raises(
                    ValueError, match=refusal("matmul: out may share memory with B")
                ):
                    device.ops.matmul(other[:, :n_rows], operand, out=out)


def test_parts_of_one_buffer_that_are_apart(device):
    A, B = draw((5, 4), seed=23), draw((4, 3), seed=24)
    with device.activate():
        flat = device.asarray(np.concatenate([A.ravel(), np.full(15, np.nan, "f4"), B.ravel()]))
        a, out, b = flat[:20].reshape(5, 4), flat[20:35].reshape(5, 3), flat[35:].reshape(4, 3)
        device.ops.matmul(a, b, out=out)
        found = device.to_host(flat)
        backwards = device.to_host(
            device.ops.matmul(flat[19::-1].reshape(5, 4), flat[:34:-1].reshape(4, 3), out=out)
        )
    np.testing.assert_array_equal(found[:20], A.ravel())
    np.testing.assert_array_equal(found[35:], B.ravel())
    assert_product(found[20:35].reshape(5, 3), A, B)
    assert_product(backwards, A[::-1, ::-1], B[::-1, ::-1])


# Graphs and threads.


@pytest.fixture
def recorder(device):
    made = graph.Recorder(device)
    yield made
    made.close()


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


def test_version(device):
    with device.activate():
        assert cublas.version(device.xp) >= cublas.MIN_VERSION


# What cuBLAS is given, by C.


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
