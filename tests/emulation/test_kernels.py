"""What the emulated device does with a kernel, and what it refuses."""

from __future__ import annotations

import dataclasses
import platform
from typing import Any

import numpy as np
import pytest

from tests.emulation import kernels
from tests.emulation.kernels import ElementwiseKernel
from tests.emulation.module import cupy
from xpnet.kernels import cuda, cuda_source

pytestmark = pytest.mark.emulated

SPECS = {spec.variant: spec for spec in cuda_source.kernels()}
SHUFFLE = "__shfl_xor_sync(0xffffffffu, x[i], {distance})"


@pytest.fixture
def library(monkeypatch):
    monkeypatch.setattr(kernels.library, "is_reversed", False)
    monkeypatch.setattr(kernels.library, "flushes", False)
    monkeypatch.setattr(kernels.library, "launched", set())
    return kernels.library


def made(variant: str) -> Any:
    return SPECS[variant].make(cupy)


def zeros(*shape: int, dtype: Any = np.float32) -> Any:
    return cupy.zeros(shape, dtype)


def on_device(values: Any) -> Any:
    return cupy.asarray(np.asarray(values))


# Arguments.


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (lambda: (zeros(2, 3),), "given 1"),
        (lambda: (zeros(2, 3), 0, zeros(2, 3), 0), "given 4"),
        (lambda: (zeros(2, 3), zeros(3, dtype=np.float64)), "T is"),
        (lambda: (zeros(2, 3), 0, zeros(2, 3, dtype=np.float64)), "T is"),
        (lambda: (0, 0), "T is"),
        (lambda: (zeros(2, 3), np.float32(0)), r"is np\.float32"),
        (lambda: (zeros(2, 3), True), "is True"),
        (lambda: (zeros(2, 3), "0"), "Unsupported type <class 'str'>"),
        (lambda: (zeros(2, 3), None), "Unsupported type <class 'NoneType'>"),
        (lambda: (zeros(2, 3), np.zeros(3, np.float32)), "Unsupported type <class 'numpy.ndarray'"),
    ],
)
def test_types_that_are_refused(arguments, message):
    with pytest.raises(TypeError, match=message):
        made("relu")(*arguments())


def test_shapes_that_are_refused():
    relu = made("relu")
    assert relu(zeros(2, 3), zeros(3)).shape == (2, 3)
    assert relu(zeros(2, 3), 0, zeros(4, 2, 3)).shape == (4, 2, 3)  # outputs broadcast inputs
    for out in (zeros(3), zeros(1, 3), zeros(2, 1)):
        with pytest.raises(ValueError, match="the loop"):
            relu(zeros(2, 3), 0, out)
    with pytest.raises(ValueError, match="shape mismatch"):
        relu(zeros(2, 3), zeros(2))
    with pytest.raises(ValueError, match="all of the ndarray are 'raw'"):
        relu(zeros(2, 3), 0, size=6)
    repeated = cupy.broadcast_to(zeros(1), (2, 3))
    with pytest.raises(ValueError, match="read-only"):
        relu(zeros(2, 3), 0, repeated)


def test_numbers_and_sizes_that_are_refused():
    mean = made("mean without weights")
    values, out = zeros(2, 3), zeros(2, 1)
    mean(values, 2, 2, 3, out, size=64)
    for wrong in (-(2**31) - 1, 2**31):
        with pytest.raises(OverflowError):
            mean(values, 2, wrong, 3, out, size=64)
    with pytest.raises(TypeError, match=r"is 2\.0"):
        mean(values, 2, 2.0, 3, out, size=64)
    with pytest.raises(ValueError, match="Loop size is undecided"):
        mean(values, 2, 2, 3, out)
    with pytest.raises(ValueError, match="must be given"):
        mean(values, 2, 2, 3, size=64)
    with pytest.raises(ValueError, match="not contiguous"):
        mean(values.T, 2, 2, 3, out, size=64)
    for block_size in (0, 100, 2048):
        with pytest.raises(ValueError, match="a block of"):
            mean(values, 2, 2, 3, out, size=64, block_size=block_size)
    with pytest.raises(ValueError, match="no kernel of"):
        mean(values, 2, zeros(64, dtype=np.int32), 3, out)


@pytest.mark.parametrize("index", [-1, 10, 2**40])
def test_nothing_outside_of_an_array_is_touched(index):
    gather = cuda.fused(cupy)["gather"]
    with pytest.raises(IndexError, match="xpn_gather_fours_of_bytes: outside of X_"):
        gather(zeros(10, 4, dtype=np.uint8), on_device([index]), zeros(1, 4))
    with pytest.raises(IndexError, match="xpn_mean: outside of out_"):
        made("mean without weights")(zeros(3, 3), 3, 3, 3, zeros(2, 1), size=96)


def test_operands_are_the_result_or_disjoint_from_it():
    relu, softmax = made("relu"), made("softmax")
    X = on_device(np.arange(-12.0, 12).reshape(4, 6))
    for operand, out in (
        (X[1:], X[:-1]),
        (X[:, :4], X[:, 2:]),
        (X, X[::-1]),
        (X[:3, :3], X[:3, :3].T),
    ):
        with pytest.raises(ValueError, match="out_: an operand and the result overlap in part"):
            relu(operand, 0, out)
    flat = X.ravel()
    with pytest.raises(ValueError, match="overlap in part"):
        softmax(flat[:6], 1, 1, 6, flat[3:9], size=32)
    with pytest.raises(ValueError, match="overlap in part"):  # one that broadcasts
        relu(zeros(4, 6, dtype=np.float64), X[0], X)
    np.testing.assert_array_equal(X.get(), np.arange(-12.0, 12).reshape(4, 6))
    relu(X[:, ::2], 0, X[:, 1::2])
    assert relu(X, 0, X) is X
    assert X.get().min() == 0


def test_two_results_do_not_overlap():
    twice = ElementwiseKernel("T x", "T y, T z", "y = x; z = -x", "twice")
    Y, x = zeros(4), on_device(np.arange(3, dtype=np.float32))
    with pytest.raises(ValueError, match="overlap in part"):
        twice(x, Y[:-1], Y[1:])


# A text of a test's own.


@pytest.mark.parametrize("dtype", kernels.DTYPES)
def test_a_text_of_ones_own_is_compiled(library, dtype):
    kernel = ElementwiseKernel(
        "T x, int32 n", "T y, int64 z", "y = x * n; z = i * sizeof(T)", "own"
    )
    y, z = kernel(on_device(np.arange(6, dtype=dtype).reshape(2, 3)), 3)
    assert (y.dtype, z.dtype) == (np.dtype(dtype), np.int64)
    np.testing.assert_array_equal(y.get(), [[0, 3, 6], [9, 12, 15]])
    itemsize = np.dtype(dtype).itemsize
    np.testing.assert_array_equal(z.get(), itemsize * np.arange(6).reshape(2, 3))
    y, _ = kernel(on_device(np.ones((2, 1), dtype)), on_device(np.array([1, 2], np.int32)))
    np.testing.assert_array_equal(y.get(), [[1, 2], [1, 2]])
    assert library.launched == set()  # which is of xpnet's own


def test_a_text_with_a_preamble_of_ones_own():
    kernel = ElementwiseKernel(
        "T x", "T y", "y = own_square(x)", "own",
        preamble="template <class U> U own_square(U x) { return x * x; }",
    )  # fmt: skip
    np.testing.assert_array_equal(kernel(on_device([1.0, 2, 3])).get(), [1, 4, 9])


# Warps.


def shuffled(statement: str, n: int = 32) -> Any:
    """Run a kernel on 0, 1, 2, ..., whose lanes exchange values."""
    kernel = ElementwiseKernel("raw T x", "raw T y", statement, "shuffled")
    out = zeros(n, dtype=np.float64)
    kernel(on_device(np.arange(float(n))), out, size=n)
    return out.get()


@pytest.mark.parametrize("is_reversed", [False, True])
@pytest.mark.parametrize("distance", [0, 1, 5, 16, 31])
def test_lanes_exchange_values(library, distance, is_reversed):
    library.is_reversed = is_reversed
    found = shuffled(f"y[i] = {SHUFFLE.format(distance=distance)}", 96)
    np.testing.assert_array_equal(found, np.arange(96) ^ distance)


@pytest.mark.parametrize("is_reversed", [False, True])
@pytest.mark.parametrize(
    "statement",
    [
        "if (i % 2) y[i] = {shuffle}",
        "if (i != 31) y[i] = {shuffle}",
        "if (i == 31) y[i] = {shuffle}",
        "for (int k = 0; k <= i / 16; ++k) y[i] = {shuffle}",  # some once more than others
    ],
)
def test_lanes_that_diverge_are_refused(library, statement, is_reversed):
    library.is_reversed = is_reversed
    with pytest.raises(RuntimeError, match="shuffled: the lanes of a warp miss each other"):
        shuffled(statement.format(shuffle=SHUFFLE.format(distance=1)))
    np.testing.assert_array_equal(  # and what was left standing is no lane of the next launch
        shuffled(f"y[i] = {SHUFFLE.format(distance=1)}"), np.arange(32) ^ 1
    )


def test_whole_warps_may_go_different_ways():
    found = shuffled(f"y[i] = i < 32 ? {SHUFFLE.format(distance=1)} : -1", 96)
    np.testing.assert_array_equal(found, np.where(np.arange(96) < 32, np.arange(96) ^ 1, -1))


@pytest.mark.parametrize(
    ("call", "n"),
    [
        (SHUFFLE.format(distance=32), 32),
        (SHUFFLE.format(distance=-1), 32),
        (SHUFFLE.format(distance=1), 33),  # a warp that is not whole
        (SHUFFLE.format(distance=1), 16),
        ("__shfl_xor_sync(0xffffu, x[i], 1)", 32),
    ],
)
def test_exchanges_that_are_refused(call, n):
    with pytest.raises(RuntimeError, match="miss each other"):
        shuffled(f"y[i] = {call}", n)


def sums_of_rows(preamble: str) -> Any:
    spec = dataclasses.replace(SPECS["mean without weights"], preamble=preamble)
    values, out = on_device(np.arange(2.0 * 64).reshape(2, 64)), zeros(2, 1, dtype=np.float64)
    spec.make(cupy)(values, 2, 2, 64, out, size=64)
    return out.get() * 64


@pytest.mark.parametrize(
    ("start", "is_refused"), [("XPN_WARP / 2", None), ("XPN_WARP / 4", False), ("XPN_WARP", True)]
)
def test_a_wrong_distance_shows(start, is_refused):
    """In the text of a kernel of xpnet, whose sums go across all lanes."""
    preamble = SPECS["mean without weights"].preamble
    assert preamble.count("distance = XPN_WARP / 2;") == 2
    preamble = preamble.replace("distance = XPN_WARP / 2;", f"distance = {start};")
    expected = np.arange(2.0 * 64).reshape(2, 64).sum(axis=1, keepdims=True)
    if is_refused is None:
        np.testing.assert_array_equal(sums_of_rows(preamble), expected)
    elif is_refused:
        with pytest.raises(RuntimeError, match="miss each other"):
            sums_of_rows(preamble)
    else:
        assert (sums_of_rows(preamble) < expected).all()


# The order of threads.


@pytest.mark.parametrize("prefix", ["", f"T got = {SHUFFLE.format(distance=1)};"])
def test_the_last_thread_runs_first(library, prefix):
    """Also among the lanes of a warp, after an exchange."""
    assert shuffled(f"{prefix} y[0] = i", 96)[0] == 95
    library.is_reversed = True
    assert shuffled(f"{prefix} y[0] = i", 96)[0] == 0


@pytest.mark.parametrize("variant", ["mean without weights", "softmax", "totals"])
def test_exchanges_give_the_same_in_both_orders(library, variant):
    """To the last bit."""
    values = np.random.default_rng(0).standard_normal((5, 70)).astype(np.float32)
    found = []
    for is_reversed in (False, True):
        library.is_reversed = is_reversed
        out = zeros(*((5, 70) if variant == "softmax" else (5, 1)))
        made(variant)(on_device(values), 5, 5, 70, out, size=160)
        found.append(out.get())
    np.testing.assert_array_equal(*found)
    exact = {
        "mean without weights": values.mean(axis=1),
        "totals": values.sum(axis=1),
        "softmax": 1,
    }[variant]
    np.testing.assert_allclose(found[0].sum(axis=1), exact, rtol=1e-5)


# Subnormal numbers.


needs_sse = pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64", "i686"), reason="flushes with SSE"
)
TINY = {"float32": float(np.finfo(np.float32).tiny), "float64": float(np.finfo(np.float64).tiny)}


@needs_sse
@pytest.mark.parametrize("flushes", [False, True])
@pytest.mark.parametrize("dtype", kernels.DTYPES)
def test_subnormal_numbers_are_zero(library, dtype, flushes):
    """In float32 as on a GPU, whether they come in or go out; in float64 a GPU keeps them."""
    library.flushes = flushes
    tiny = TINY[dtype]
    values = np.array([tiny, tiny / 2, -tiny, 1]).astype(dtype)
    scaled = ElementwiseKernel("T x, T factor", "T y", "y = x * factor", "scaled")
    is_zero = flushes and dtype == "float32"
    for factor, kept, flushed in (
        (0.5, [tiny / 2, tiny / 4, -tiny / 2, 0.5], [0, 0, 0, 0.5]),
        (2.0, [2 * tiny, tiny, -2 * tiny, 2], [2 * tiny, 0, -2 * tiny, 2]),
    ):
        found = scaled(on_device(values), factor).get()
        np.testing.assert_array_equal(found, np.array(flushed if is_zero else kept, dtype))
    assert values[0] * values.dtype.type(0.5) != 0  # the host itself goes on as before


@needs_sse
@pytest.mark.parametrize("dtype", kernels.DTYPES)
def test_subnormal_sums_of_lanes_are_zero(library, dtype):
    """Each lane has the same instructions as a thread by itself."""
    values, out = np.full((1, 64), TINY[dtype] / 64, dtype), zeros(1, 1, dtype=dtype)
    made("totals")(on_device(values), 1, 1, 64, out, size=32)
    assert out.get().item() == TINY[dtype]
    library.flushes = True
    made("totals")(on_device(values), 1, 1, 64, out, size=32)
    assert out.get().item() == (0 if dtype == "float32" else TINY[dtype])
