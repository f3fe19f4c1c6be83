"""Products that are refused, and those that are left to CuPy."""

from __future__ import annotations

import re

import numpy as np
import pytest

from tests.kernels.layouts import assert_product, draw
from xpnet import graph

pytestmark = pytest.mark.accelerator


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
                "matmul: axes and the number of products must be less than 2**31, "
                f"got shapes {shapes}"
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
                    ValueError, match=refusal("matmul: out must not share memory with A")
                ):
                    device.ops.matmul(operand, other[:n_columns], out=out)
            if n_columns == 5:
                with pytest.raises(
                    ValueError, match=refusal("matmul: out must not share memory with B")
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
