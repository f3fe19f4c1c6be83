"""Matrix products on the host, shared by a team of threads."""

from __future__ import annotations

import os
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import slow
from tests.kernels.teams import team_of
from xpnet.kernels import host

pytestmark = [pytest.mark.host]
if os.environ.get("CI") != "true":
    reason = "there are no host kernels, or NumPy's BLAS is not OpenBLAS"
    pytestmark += [pytest.mark.skipif(not host.shared(), reason=reason)]

# How many threads, whether far from each other, whether all of them take part.
TEAMS = [(1, False, True), *((n, far, True) for n in (2, 3, 7) for far in (False, True))]
TEAMS += [(2, False, False), (7, True, False)]


def matrix(rng, shape, dtype, *, transposed=False, apart=0):
    """Draw a matrix; transposed, or as a view whose rows do not follow each other."""
    n_rows, n_columns = reversed(shape) if transposed else shape
    values = rng.standard_normal((n_rows, n_columns + apart)).astype(dtype)[:, :n_columns]
    return values.T if transposed else values


def assert_product(out, A, B):
    exact = A.astype(np.float64) @ B.astype(np.float64)
    bound = np.abs(A).astype(np.float64) @ np.abs(B).astype(np.float64)
    eps = np.finfo(out.dtype).eps
    assert (np.abs(out - exact) <= A.shape[1] * eps * bound + np.finfo(out.dtype).tiny).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("m", "k", "n"),
    [
        (128, 784, 256),
        (784, 128, 256),
        (2, 3000, 200),
        (997, 131, 61),
        (61, 131, 997),
        (512,) * 3,
        slow(1200, 80, 3600),  # two or three parts are too large for their own memory
        (30, 5000, 30),
        (1000, 10, 1000),
        (32, 784, 128),  # parts that are small enough for the BLAS to rearrange nothing
        (20, 3000, 100),  # by terms
        (3, 9000, 50),
        (1, 20000, 40),
        (3000, 200, 1),  # by vectors
        (1, 200, 3000),
        (700, 1, 900),
        (1, 5000, 1),
        (50, 900, 63),  # of columns that are too few for four parts
        (200, 4, 100),  # without the BLAS, at least with AVX2
        (100, 200, 3),
        (12000, 4, 40),  # in parts that need no BLAS
        (9, 5, 20000),
    ],
)
def test_product(dtype, m, k, n):
    """The product is right, and its bits do not depend on which threads compute it."""
    rng = np.random.default_rng(m)
    for A_transposed, B_transposed, apart in [(0, 0, 2), (1, 0, 3), (0, 1, 1), (1, 1, 0)]:
        A = matrix(rng, (m, k), dtype, transposed=A_transposed, apart=apart)
        B = matrix(rng, (k, n), dtype, transposed=B_transposed, apart=apart)
        expected = None
        for number, (n_threads, far, forced) in enumerate(TEAMS):
            # What lies between the rows of the result stays; one of them has nothing there.
            whole = np.full((m, n + apart * (number != 1)), np.nan, dtype)
            out = whole[:, :n]
            with team_of(n_threads, far=far, forced=forced) as matmul:
                assert matmul(A, B, out=out) is out
            assert np.isnan(whole[:, n:]).all()
            if expected is None:
                assert_product(out, A, B)
                expected = out
            np.testing.assert_array_equal(out, expected, f"{n_threads=}, {far=}, {forced=}")


def small_product(A, B, *, variant):
    """Multiply without the BLAS; what surrounds the result must stay."""
    m, n = A.shape[0], B.shape[1]
    whole = np.full((m + 2, n + 3), 7, A.dtype)
    out = whole[1 : m + 1, 1 : n + 1]
    if not host._module().multiply_small(variant, A, B, out):
        return None
    kept = out.copy()
    out.fill(7)
    assert (whole == 7).all()
    return kept


@given(
    *(st.integers(1, 70) for _ in range(3)),
    *(st.booleans() for _ in range(2)),
    st.integers(0, 2),
    st.sampled_from([np.float32, np.float64]),
)
def test_small_products(m, k, n, A_transposed, B_transposed, apart, dtype):
    """They are right on every instruction set, whether or not the BLAS would be faster."""
    rng = np.random.default_rng(0)
    A = matrix(rng, (m, k), dtype, transposed=A_transposed, apart=apart)
    B = matrix(rng, (k, n), dtype, transposed=B_transposed, apart=apart)
    for variant in host.variants():
        assert_product(small_product(A, B, variant=variant), A, B)


@given(
    *(st.integers(1, most) for most in (20, 40, 20)),
    *(st.booleans() for _ in range(2)),
    st.sampled_from([np.float32, np.float64]),
    st.integers(0, 1000),
)
def test_small_products_propagate_nan_and_infinity(
    m, k, n, A_transposed, B_transposed, dtype, seed
):
    rng = np.random.default_rng(seed)
    special = [0, 1, -2, 3, np.inf, -np.inf, np.nan]
    chances = [0.4, 0.2, 0.2, 0.1, 0.04, 0.03, 0.03]
    A, B = (rng.choice(special, p=chances, size=size).astype(dtype) for size in ((m, k), (k, n)))
    with np.errstate(invalid="ignore"):
        expected = (A[:, :, np.newaxis] * B).sum(axis=1)
    A = A.T.copy().T if A_transposed else A
    B = B.T.copy().T if B_transposed else B
    for variant in host.variants():
        np.testing.assert_array_equal(small_product(A, B, variant=variant), expected)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    "shape",
    [(17, 300, 41), (30, 129, 13), (1, 700, 2), (300, 65, 3), (17, 150, 95), (9, 300, 96)],
)
def test_small_products_of_many_terms(shape, dtype):
    m, k, n = shape
    rng = np.random.default_rng(0)
    for A_transposed, B_transposed in [(0, 0), (1, 0), (0, 1), (1, 1)]:
        A = matrix(rng, (m, k), dtype, transposed=A_transposed)
        B = matrix(rng, (k, n), dtype, transposed=B_transposed)
        for variant in host.variants():
            found = small_product(A, B, variant=variant)
            if found is not None:  # with AVX-512, a copy may need too much memory
                assert_product(found, A, B)


def test_a_copy_that_does_not_fit_is_left_to_the_blas():
    rng = np.random.default_rng(0)
    A, B = rng.standard_normal((20, 5000)), rng.standard_normal((5000, 1))
    for variant in host.variants():
        assert small_product(A, B, variant=variant) is None


@given(
    *(st.integers(0, 40) for _ in range(3)),
    *(st.booleans() for _ in range(2)),
    st.integers(0, 2),
    st.sampled_from([np.float32, np.float64]),
    st.sampled_from(["out", "positional", "none"]),
)
def test_whatever_numpy_multiplies(m, k, n, A_transposed, B_transposed, apart, dtype, how):
    rng = np.random.default_rng(0)
    A = matrix(rng, (m, k), dtype, transposed=A_transposed, apart=apart)
    B = matrix(rng, (k, n), dtype, transposed=B_transposed, apart=apart)
    matmul = host.shared()["matmul"]
    if how == "none":
        out = matmul(A, B)
    else:
        out = np.empty((m, n), dtype)
        assert (matmul(A, B, out=out) if how == "out" else matmul(A, B, out)) is out
    assert (out.dtype, out.shape) == (dtype, (m, n))
    assert_product(out, A, B)


def test_what_is_no_product_of_two_matrices_is_numpys():
    matmul = host.shared()["matmul"]
    rng = np.random.default_rng(0)
    A, B = rng.standard_normal((3, 4, 5)), rng.standard_normal((3, 5, 2))
    np.testing.assert_array_equal(matmul(A, B), A @ B)
    out = np.empty((3, 4, 2))
    np.testing.assert_array_equal(matmul(A, B, out=out), A @ B)
    np.testing.assert_array_equal(matmul(A[0], B[0, :, 0]), A[0] @ B[0, :, 0])
    np.testing.assert_array_equal(matmul(A[0].tolist(), B[0]), A[0] @ B[0])
    square = rng.standard_normal((64, 64))
    expected = square @ square
    matmul(square, square, out=square)  # NumPy sees that they overlap
    np.testing.assert_array_equal(square, expected)
    reversed_rows, theirs = np.empty((2, 64, 64))[:, ::-1]
    matmul(expected, expected, out=reversed_rows)
    np.matmul(expected, expected, out=theirs)  # NumPy 2.0 rounds such a product differently
    np.testing.assert_array_equal(reversed_rows, theirs)
    swapped = expected.astype(expected.dtype.newbyteorder())
    np.testing.assert_array_equal(
        matmul(swapped, expected, out=np.empty((64, 64))), swapped @ expected
    )

    class Own(np.ndarray):
        def __array_ufunc__(self, *arguments, **options):
            return "intercepted"

    assert matmul(square.view(Own), square, out=np.empty((64, 64))) == "intercepted"
    mixed = matmul(expected.astype(np.float32), expected, out=np.empty((64, 64)))
    np.testing.assert_array_equal(mixed, expected.astype(np.float32) @ expected)


@pytest.mark.parametrize(
    ("shapes", "expected"),
    [
        ([(2, 3), (2, 3), (2, 3)], "mismatch"),
        ([(20, 30), (30, 40), (20, 41)], "mismatch|broadcast"),
    ],
)
def test_shapes_that_do_not_fit(shapes, expected):
    A, B, out = (np.ones(shape) for shape in shapes)
    with pytest.raises(ValueError, match=expected):
        host.shared()["matmul"](A, B, out=out)


def test_a_read_only_result():
    out = np.empty((20, 20))
    out.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        host.shared()["matmul"](np.ones((20, 20)), np.ones((20, 20)), out=out)


def test_many_callers_at_once():
    # One of them has the team; the others compute by themselves, divided in the same way.
    rng = np.random.default_rng(0)
    A, B = (rng.standard_normal((256, 256)).astype(np.float32) for _ in range(2))
    failures = []

    def compute(matmul, expected):
        out = np.empty_like(A)
        for _ in range(200):
            out.fill(np.nan)
            matmul(A, B, out=out)
            if not np.array_equal(out, expected):
                failures.append(out)

    with team_of(3) as matmul:
        expected = matmul(A, B, out=np.empty_like(A)).copy()
        callers = [threading.Thread(target=compute, args=(matmul, expected)) for _ in range(4)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
        assert host.count_threads() == 3
    assert not failures
