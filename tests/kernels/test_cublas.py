"""Products by cuBLAS against NumPy's in float64, on the CUDA device of the run."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.emulation.cublas import tf32
from tests.kernels.layouts import DTYPES, LAYOUTS, TF32_TOLERANCE, assert_product, draw
from xpnet.kernels import cublas

pytestmark = pytest.mark.accelerator


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


def test_version(device):
    with device.activate():
        assert cublas.version(device.xp) >= cublas.MIN_VERSION
