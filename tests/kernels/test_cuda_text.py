"""The text of the CUDA kernels, run by the host, against the reference in float64.

These are no results of a GPU: see :mod:`tests.kernels.cuda_on_host` for what it leaves untested,
above all CUDA's own exponentials and what the lanes of a warp tell each other.
"""

from __future__ import annotations

import itertools
import os
from typing import Any

import numpy as np
import pytest

from tests.kernels import cuda_on_host
from tests.kernels.cases import ROWS, SHAPES, VALUES, assert_near, call, case, draw
from tests.kernels.cuda_on_host import Library
from xpnet.kernels import cuda, cuda_source
from xpnet.kernels.catalogue import ColumnReduce, Elementwise, Rowwise
from xpnet.kernels.reference import ReferenceOps

REFERENCE: Any = ReferenceOps(np)
DTYPES = [np.float32, np.float64]
SUMS = [row.name for row in ROWS.values() if isinstance(row, ColumnReduce)]
OPTIMIZERS = [row.name for row in ROWS.values() if cuda_source.has_decay(row)]
WITH_OUT = [
    row.name
    for row in ROWS.values()
    if any(o.name == "out" and o.layout == "each" for o in row.operands) and row.name != "gather"
]
BROADCASTING = [
    row.name
    for row in ROWS.values()
    if isinstance(row, (Elementwise, ColumnReduce))
    and row.name not in ("gather", "bias_grad", "dropout")  # their arrays are raw
]
ONE_AXIS = [
    name
    for name in ROWS
    if name not in ("add_bias", "bias_grad") and not name.endswith("cross_entropy")
]


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    command = cuda_on_host.compiler()
    if command is None:
        missing = "there is no C++ compiler: set CXX, or install c++ or g++"
        if os.environ.get("CI") == "true":
            pytest.fail(missing)
        pytest.skip(missing)
    return cuda_on_host.build(tmp_path_factory.mktemp("kernels"), command)


@pytest.fixture(scope="module")
def stand_in(library):
    return cuda_on_host.stand_in(library)


@pytest.fixture(scope="module")
def ops(stand_in):
    return cuda.fused(stand_in)


@pytest.fixture(params=[1, 4, 132])
def n_multiprocessors(request, monkeypatch):
    monkeypatch.setattr(cuda, "_n_multiprocessors", lambda cupy: request.param)
    return request.param


def copies(arguments: dict[str, Any]) -> dict[str, Any]:
    return {k: v.copy() if isinstance(v, np.ndarray) else v for k, v in arguments.items()}


def assert_same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert found[key].dtype == value.dtype
        np.testing.assert_array_equal(found[key], value, err_msg=key)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("values", VALUES)
@pytest.mark.parametrize("name", ROWS)
def test_equals_the_reference(ops, name, values, dtype):
    for shape in SHAPES.values():
        if 0 in shape and name in ("mean", "softmax", "softmax_cross_entropy"):
            continue  # the reference's maximum or mean of nothing
        if shape[-1] > 1000 and values == "zeros" and isinstance(ROWS[name], Rowwise):
            continue  # the one lane of a row rounds the sum of as many equal terms to one side
        for optional in (True, False):
            arguments = case(name, shape, values, dtype, optional=optional, shared=optional)
            assert_near(name, call(ops[name], ROWS[name], arguments), arguments, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ONE_AXIS)
def test_one_axis(ops, name, dtype):
    """Without rows there is no bias for them, no sum over them, and no mean of their losses.

    (With a bias the reference gives a result of one row.)
    """
    arguments = case(name, (13,), dtype=dtype, optional=name in OPTIMIZERS)
    if name == "mean":
        assert ops[name](**arguments).shape == (1,)
    assert_near(name, call(ops[name], ROWS[name], arguments), arguments, dtype)


def test_no_axis(ops):
    assert float(ops["sigmoid"](np.array(0.0))) == 0.5


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_choice_of_optional_operands(stand_in, library, dtype, monkeypatch):
    """Together these launch every kernel that is compiled for GPUs, and no other."""
    monkeypatch.setattr(library, "launched", set())
    ops = cuda.fused(stand_in)
    for name, row in ROWS.items():
        optional = [operand.name for operand in row.operands if operand.optional]
        for n in range(len(optional) + 1):
            for absent in itertools.combinations(optional, n):
                arguments = case(name, (9, 13), dtype=dtype)
                arguments = {k: v for k, v in arguments.items() if k not in absent}
                assert_near(name, call(ops[name], row, arguments), arguments, dtype)
    T = np.dtype(dtype).name
    expected = {spec.variant: cuda_on_host.launched_as(spec, T) for spec in cuda_source.kernels()}
    assert {v for v, key in expected.items() if key not in library.launched} == set()
    assert library.launched <= set(expected.values())


# Where results are written, and from where operands are read.


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", WITH_OUT)
def test_out_may_be_an_input(ops, name, dtype):
    row = ROWS[name]
    inputs = [o.name for o in row.operands if o.use == "in" and o.layout == "each"]
    for shape, optional in itertools.product([(9, 21), (2, 9, 21)], (True, False)):
        arguments = case(name, shape, dtype=dtype, optional=optional)
        expected = call(ops[name], row, arguments)
        own = copies(arguments)
        out = np.full(shape, np.nan, dtype)
        assert ops[name](**own, out=out) is out
        np.testing.assert_array_equal(out, expected["out"])
        for key in inputs:
            own = copies(arguments)
            assert ops[name](**own, out=own[key]) is own[key]
            np.testing.assert_array_equal(own[key], expected["out"])
            if "db" in own:
                np.testing.assert_array_equal(own["db"], expected["db"])


@pytest.mark.parametrize("shape", [(50, 10), (2, 7, 90)])
@pytest.mark.parametrize("name", ["sigmoid_cross_entropy", "softmax_cross_entropy"])
def test_dlogits_may_be_the_logits(ops, name, shape):
    arguments = case(name, shape)
    expected = call(ops[name], ROWS[name], arguments)
    arguments["dlogits"] = arguments["logits"]
    assert ops[name](**arguments) is None
    np.testing.assert_array_equal(arguments["logits"], expected["dlogits"])
    np.testing.assert_array_equal(arguments["losses"], expected["losses"])


@pytest.mark.parametrize("name", ["mean", "bias_grad"])
def test_out_of_a_reduction(ops, name):
    arguments = case(name, (3, 9, 21))
    expected = ops[name](**arguments)
    out = np.full_like(expected, np.nan)
    assert ops[name](**arguments, out=out) is out
    np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("name", ROWS)
def test_views(ops, name):
    """Operands, read and written, that are not contiguous."""

    def every_second(array):
        wide = np.full((*array.shape[:-1], 2 * array.shape[-1]), 7).astype(array.dtype)
        wide[..., ::2] = array
        return wide[..., ::2]

    def reverse(array):
        return np.ascontiguousarray(array[..., ::-1])[..., ::-1]

    for shape in ((37, 21), (3, 5, 17)):
        arguments = case(name, shape)
        if name in WITH_OUT:
            arguments["out"] = np.full(shape, np.nan, np.float32)
        expected = call(ops[name], ROWS[name], arguments)
        for view in (every_second, reverse, np.asfortranarray):
            own = {
                k: view(v.copy()) if isinstance(v, np.ndarray) else v for k, v in arguments.items()
            }
            result = ops[name](**own)
            assert result is None or "out" not in own or result is own["out"]
            found = {k: own.get(k, result) for k in expected}
            assert_same(found, expected)


@pytest.mark.parametrize("shape", [(12, 1), (1, 40), (40,), (2, 1, 40)])
@pytest.mark.parametrize("name", BROADCASTING)
def test_inputs_broadcast(ops, name, shape):
    row = ROWS[name]
    each = [o.name for o in row.operands if o.use == "in" and o.layout == "each"]
    if any(o.use == "inout" for o in row.operands):
        if len(shape) == 3:
            pytest.skip("what is updated in place does not grow")
    elif len(each) == 1 and len(shape) == 1:
        pytest.skip("there is nothing to broadcast against")
    for key in each:
        decays = name in OPTIMIZERS  # which the reference adds to gradients of the whole shape
        arguments = case(name, (12, 40), optional=not decays)
        arguments.pop("db", None)
        arguments[key] = draw(np.random.default_rng(3), shape, "ordinary", np.float32)
        assert_near(name, call(ops[name], row, arguments), arguments, np.float32)


# Sums over the rows, which are shared by as many threads as fill a GPU.


@pytest.mark.parametrize("shape", [(300, 70), (3, 5, 17), (2, 130, 3), (1, 5)])
@pytest.mark.parametrize("name", SUMS)
@pytest.mark.usefixtures("n_multiprocessors")
def test_sums_of_columns(ops, name, shape):
    for optional in (True, False):
        arguments = case(name, shape, optional=optional)
        if name != "bias_grad":
            arguments["db"] = np.full((*shape[:-2], shape[-1]), np.nan, np.float32)
        assert_near(name, call(ops[name], ROWS[name], arguments), arguments, np.float32)


@pytest.mark.parametrize("name", ["bias_grad", "relu_grad", "gelu_tanh_grad"])
def test_sums_of_long_columns(ops, name, n_multiprocessors):
    """In float32: in float64 the reference's own sum is as far off as the kernels' are."""
    assert (
        cuda.n_splits(1, 8192, 10, n_multiprocessors)
        == {1: 52, 4: 205, 132: 2048}[n_multiprocessors]
    )
    arguments = case(name, (8192, 10))
    assert_near(name, call(ops[name], ROWS[name], arguments), arguments, np.float32)


@pytest.mark.usefixtures("n_multiprocessors")
def test_every_row_is_counted_once(ops):
    """Whole numbers, whose sums are exact."""
    for n_rows in (*range(40), 1000, 8192):
        dZ = np.arange(2.0 * n_rows * 3).reshape(2, n_rows, 3)
        np.testing.assert_array_equal(ops["bias_grad"](dZ), dZ.sum(axis=-2))


# A bias of every network of a stack, or one for all.


@pytest.mark.parametrize("K", [1, 3, 5])  # 5 is also the number of rows
@pytest.mark.parametrize("name", [r.name for r in ROWS.values() if "b?" in r.reads])
def test_bias_of_a_stack(ops, name, K):
    for own in ((K, 17), (1, 17), (17,)):
        for with_db in (True, False):
            arguments = case(name, (K, 5, 17))
            arguments["b"] = draw(np.random.default_rng(4), own, "ordinary", np.float32)
            if not with_db:
                arguments.pop("db", None)
            assert_near(name, call(ops[name], ROWS[name], arguments), arguments, np.float32)


# Bits that must be those of the reference.


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("seed", [0, 1, 2**32 - 1, 2**32 + 5, 2**63 + 12345, 2**64 - 1])
def test_dropout_has_the_bits_of_the_reference(ops, seed, dtype):
    shapes: list[tuple[int, ...]] = [(n,) for n in range(13)]
    shapes += [(1000,), (1003,), (7, 5), (3, 11, 13), ()]
    rng = np.random.default_rng(5)
    for shape in shapes:
        X = np.asarray(rng.standard_normal(shape)).astype(dtype)
        for rate, step in itertools.product((0.0, 1 / 3, 0.999), (0, 3, 2**31 + 7, 2**32 - 1)):
            arguments = (rate, seed, 2, np.array([step]), 5)
            expected = REFERENCE.dropout(X, *arguments)
            found = ops["dropout"](X, *arguments)
            assert found.dtype == dtype
            np.testing.assert_array_equal(found, expected)
            own = X.copy()
            assert ops["dropout"](own, *arguments, out=own) is own
            np.testing.assert_array_equal(own, expected)


def test_layers_and_purposes_of_dropout(ops):
    X = np.ones(50)
    for layer, purpose in itertools.product((0, 7, 2**32 - 1), repeat=2):
        arguments = (0.5, 99, layer, np.array([4]), purpose)
        np.testing.assert_array_equal(
            ops["dropout"](X, *arguments), REFERENCE.dropout(X, *arguments)
        )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("row_shape", [(), (1,), (7,), (4, 3), (784,), (0,)])
def test_gather_has_the_bits_of_the_reference(ops, row_shape, dtype):
    rng = np.random.default_rng(6)
    X = rng.integers(0, 256, (10, *row_shape)).astype(np.uint8)
    for n, index in itertools.product((0, 1, 5, 13), (np.int64, np.int32, np.uint8)):
        indices = rng.integers(0, 10, n).astype(index)
        for divide_by in (None, 255, 255.0, 3.0):
            expected = np.empty((n, *row_shape), dtype)
            REFERENCE.gather(X, indices, expected, divide_by)
            for layout in (X, np.asfortranarray(X)):
                out = np.full_like(expected, np.nan)
                assert ops["gather"](layout, indices, out, divide_by) is out
                np.testing.assert_array_equal(out, expected)


def test_any_other_gather(ops):
    X = np.random.default_rng(7).standard_normal((10, 4))
    rows = np.array([3, 0, 3, 9])
    np.testing.assert_array_equal(ops["gather"](X, rows), X[rows])
    np.testing.assert_array_equal(ops["gather"](X.astype(np.uint8), rows), X.astype(np.uint8)[rows])


# Weight decay.


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_first_columns_decay(ops, name, dtype):
    """Of each network of a stack (K, P), or of the one there is."""
    for shape, shared in itertools.product([(3, 7), (1, 7), (7,), (2, 3, 7)], (True, False)):
        for n_decay in (0, 1, 4, 6, 7, 9):
            arguments = case(name, shape, dtype=dtype, shared=shared)
            arguments["weight_decay"] *= 1000  # nobody can miss it
            arguments["n_decay"] = n_decay
            assert_near(name, call(ops[name], ROWS[name], arguments), arguments, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("epsilon_hat", [False, True])
def test_ticks_of_a_stack(ops, epsilon_hat, dtype):
    found = [np.array([[0], [1], [70], [10**6]]), *(np.zeros((4, 1), dtype) for _ in range(3))]
    expected = [array.copy() for array in found]
    constants = {"beta1": 0.9, "beta2": 0.999, "eps_const": 1e-8, "epsilon_hat": epsilon_hat}
    for _ in range(3):
        ops["adam_tick"](*found, **constants)
        REFERENCE.adam_tick(*expected, **constants)
        np.testing.assert_array_equal(found[0], expected[0])
        for array, exact in zip(found[1:], expected[1:], strict=True):
            # Differences of 1 and a power, in which one rounding of that power is seen.
            rtol = max(1e-14, float(np.finfo(dtype).eps))
            np.testing.assert_allclose(array, exact, rtol=rtol)


# The order of threads.


@pytest.mark.parametrize("shape", [(33, 10), (3, 5, 17)])
@pytest.mark.parametrize("name", ROWS)
def test_no_thread_waits_for_another(ops, library, monkeypatch, name, shape):
    """Also where results are written over what was read."""
    row = ROWS[name]
    arguments = case(name, shape)
    first = next(o.name for o in row.operands if o.layout == "each")

    def in_place(given):
        own = copies(given)
        if name in WITH_OUT:
            ops[name](**own, out=own[first])
        elif isinstance(row, Rowwise) and "dlogits" in own:
            own["dlogits"] = own["logits"]
            ops[name](**own)
        return own

    expected, expected_in_place = call(ops[name], row, arguments), in_place(arguments)
    monkeypatch.setattr(library, "is_reversed", True)
    assert_same(call(ops[name], row, arguments), expected)
    np.testing.assert_equal(in_place(arguments), expected_in_place)


# What the equipment refuses.


def made(stand_in, variant: str) -> Any:
    return {spec.variant: spec for spec in cuda_source.kernels()}[variant].make(stand_in)


def zeros(*shape: int, dtype: Any = np.float32) -> Any:
    return np.zeros(shape, dtype)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((zeros(2, 3),), "got 1 arguments"),
        ((zeros(2, 3), zeros(3, dtype=np.float64)), "T is"),
        ((0, 0), "T is"),
        ((zeros(2, 3), np.float32(0)), "is np.float32"),
        ((zeros(2, 3), "0"), "is '0'"),
    ],
)
def test_types_that_cupy_refuses(stand_in, args, message):
    with pytest.raises(TypeError, match=message):
        made(stand_in, "relu")(*args)


def test_shapes_that_cupy_refuses(stand_in):
    relu = made(stand_in, "relu")
    assert relu(zeros(2, 3), zeros(3)).shape == (2, 3)
    assert relu(zeros(2, 3), 0, zeros(4, 2, 3)).shape == (4, 2, 3)  # outputs broadcast inputs
    for out in (zeros(3), zeros(1, 3), zeros(2, 1)):
        with pytest.raises(ValueError, match="the loop has"):
            relu(zeros(2, 3), 0, out)
    with pytest.raises(ValueError, match="shape mismatch"):
        relu(zeros(2, 3), zeros(2))
    with pytest.raises(ValueError, match="all raw"):
        relu(zeros(2, 3), 0, size=6)
    with pytest.raises(ValueError, match="read-only"):
        relu(zeros(2, 3), 0, np.broadcast_to(zeros(1), (2, 3)))


def test_numbers_and_sizes_that_cupy_refuses(library: Library, stand_in):
    mean = made(stand_in, "mean")
    values, out = zeros(2, 3), zeros(2, 1)
    mean(values, 2, 2, 3, out, size=64)
    for wrong in (-(2**31) - 1, 2**31):
        with pytest.raises(OverflowError):
            mean(values, 2, wrong, 3, out, size=64)
    with pytest.raises(TypeError, match=r"is 2\.0"):
        mean(values, 2, 2.0, 3, out, size=64)
    with pytest.raises(ValueError, match="no size"):
        mean(values, 2, 2, 3, out)
    with pytest.raises(ValueError, match="must be given"):
        mean(values, 2, 2, 3, size=64)
    with pytest.raises(ValueError, match="not contiguous"):
        mean(values.T, 2, 2, 3, out, size=64)
    with pytest.raises(ValueError, match="a block of"):
        mean(values, 2, 2, 3, out, size=64, block_size=100)
    with pytest.raises(ValueError, match="no kernel of"):
        mean(values, 2, zeros(64, dtype=np.int32), 3, out)
    assert not library.is_reversed


@pytest.mark.parametrize("index", [-1, 10, 2**40])
def test_nothing_outside_of_an_array_is_touched(ops, stand_in, index):
    with pytest.raises(IndexError, match="xpn_gather: outside of X_"):
        ops["gather"](zeros(10, 4, dtype=np.uint8), np.array([index]), zeros(1, 4))
    with pytest.raises(IndexError, match="xpn_mean: outside of out_"):
        made(stand_in, "mean")(zeros(3, 3), 3, 3, 3, zeros(2, 1), size=96)
