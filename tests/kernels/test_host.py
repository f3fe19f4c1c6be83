"""The compiled loops against the reference in float64."""

from __future__ import annotations

import importlib
import inspect
import itertools
import os
import platform
import threading
from pathlib import Path

import numpy as np
import pytest

from tests.kernels.cases import (
    ELSEWHERE,
    ROWS,
    SWEEPS,
    TOLERANCE,
    Expected,
    assert_near,
    call,
    call_in_place,
    case,
    copies,
    draw,
    has_out,
    sweep,
)
from tests.kernels.teams import team_of
from xpnet.kernels import host
from xpnet.kernels.catalogue import ColumnReduce, Elementwise
from xpnet.kernels.reference import NumpyOps, ReferenceOps

REFERENCE = NumpyOps(np)
DTYPES = [np.float32, np.float64]
WITH_OUT = [name for name in ROWS if has_out(name, "each") and name not in ELSEWHERE]
ELEMENTWISE = [
    row.name
    for row in ROWS.values()
    if isinstance(row, (Elementwise, ColumnReduce))
    and row.name != "gather"
    and not has_out(row.name, "column")
]

pytestmark = [pytest.mark.host]
if os.environ.get("CI") != "true":
    reason = f"the host kernels are {host.problem()}"
    pytestmark += [pytest.mark.skipif(host.problem() is not None, reason=reason)]


def test_there_are_host_kernels():
    assert host.problem() is None
    assert host.variants()[-1] == "baseline"
    assert set(host.fused()) == set(ROWS)
    assert set(TOLERANCE) <= set(ROWS)
    assert host.variants()[0] in host.description()


@pytest.mark.skipif(
    not Path("/proc/cpuinfo").exists() or platform.machine() != "x86_64",
    reason="needs /proc/cpuinfo of an x86-64 processor",
)
def test_instruction_sets_are_detected():
    """The answer is the system's, and NumPy's."""
    found = importlib.import_module("numpy._core._multiarray_umath").__cpu_features__
    needed = {"avx512": "f dq bw vl", "avx2": ""}
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    flags = next(line for line in lines if line.startswith("flags")).split()
    compiled = host._module().compiled_variants()
    if list(compiled) == ["baseline"] and os.environ.get("CI") != "true":
        pytest.skip("the kernels were built with XPNET_MULTIVERSION=0")
    for name, parts in needed.items():
        wanted = ["avx2", *(f"avx512{part}" for part in parts.split())]
        is_there = compiled[name]
        assert is_there == ({"fma", *wanted} <= set(flags))
        assert is_there == (found["FMA3"] and all(found[flag.upper()] for flag in wanted))


@pytest.mark.parametrize("name", ROWS)
def test_signature(name):
    operation = host.fused()[name]
    method = getattr(ReferenceOps, name)
    parameters = list(inspect.signature(method).parameters.values())[1:]
    assert list(inspect.signature(operation).parameters.values()) == parameters
    assert operation.__name__ == name
    assert operation.__doc__ == method.__doc__


@pytest.mark.parametrize("name", ROWS)
def test_what_is_not_given_is_the_signatures_default(ops, name):
    arguments = case(name, (9, 21))
    for constant in ROWS[name].numbers:
        default = inspect.signature(getattr(ReferenceOps, name)).parameters.get(constant.name)
        if default is None or default.default in (None, inspect.Parameter.empty):
            continue
        expected = call(ops[name], ROWS[name], {**arguments, constant.name: default.default})
        arguments.pop(constant.name)
        found = call(ops[name], ROWS[name], arguments)
        for key, array in expected.items():
            np.testing.assert_array_equal(found[key], array)


def assert_all_near(name, arguments, dtype):
    """Compare every instruction set with what is worked out once."""
    expected = Expected(name, arguments, dtype)
    assert host.variants()
    for variant in host.variants():
        try:
            expected.assert_near(call(host.fused(variant)[name], ROWS[name], arguments))
        except AssertionError as error:
            raise AssertionError(f"{variant}: {error}") from error


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("name", "which"), SWEEPS)
def test_equals_the_reference(name, which, dtype):
    for values, shape, optional in sweep(name, which):
        arguments = case(name, shape, values, dtype, optional=optional, shared=optional)
        try:
            assert_all_near(name, arguments, dtype)
        except AssertionError as error:
            raise AssertionError(f"{values}, {shape}, {optional=}: {error}") from error


@pytest.mark.parametrize("name", ROWS)
def test_more_columns_than_are_taken_at_once(name):
    assert_all_near(name, case(name, (40, 4100)), np.float32)


def reverse(array):
    return np.ascontiguousarray(array[..., ::-1])[..., ::-1]


def every_second(array):
    wide = np.zeros((*array.shape[:-1], 2 * array.shape[-1]), array.dtype)
    wide[..., ::2] = array
    return wide[..., ::2]


def fortran(array):
    return np.array(array, order="F")


def shifted(array):
    long = np.zeros(array.size + 1, array.dtype)
    long[1:] = array.ravel()
    return long[1:].reshape(array.shape)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ROWS)
def test_views(name, dtype):
    """Operands that are not contiguous: reversed, every second column, transposed, shifted."""
    for shape in ((37, 65), (3, 1300)):
        arguments = case(name, shape, "ordinary", dtype)
        expected = Expected(name, arguments, dtype)
        for view, variant in itertools.product(
            (reverse, every_second, fortran, shifted), host.variants()
        ):
            own = {k: view(v) if isinstance(v, np.ndarray) else v for k, v in arguments.items()}
            written = call_in_place(host.fused(variant)[name], ROWS[name], own)
            try:
                expected.assert_near(written)
            except AssertionError as error:
                raise AssertionError(f"{variant}, {view.__name__}, {shape}: {error}") from error


@pytest.mark.parametrize("name", WITH_OUT)
def test_out_may_be_an_input(ops, name):
    row = ROWS[name]
    inputs = [o.name for o in row.operands if o.use == "in" and o.layout == "each"]
    for optional in (True, False):
        arguments = case(name, (9, 21), optional=optional)
        expected = call(ops[name], row, arguments)
        for key in inputs:
            own = copies(arguments)
            assert ops[name](**own, out=own[key]) is own[key]
            np.testing.assert_array_equal(own[key], expected["out"])


@pytest.mark.skipif(not host.shared(), reason="there are no threads to share work")
@pytest.mark.parametrize("n_threads", [1, 2])
def test_a_sum_may_replace_an_input_of_all_its_parts(ops, n_threads):
    """It is written when all threads have read the means."""
    arguments = case("column_variance", (701, 97))
    with team_of(n_threads):
        expected = call(ops["column_variance"], ROWS["column_variance"], arguments)["out"]
        own = copies(arguments)
        assert ops["column_variance"](**own, out=own["mean"]) is own["mean"]
    np.testing.assert_array_equal(own["mean"], expected)


def test_dlogits_may_be_the_logits(ops):
    for shape in ((50, 10), (7, 90)):
        for name in ("sigmoid_cross_entropy", "softmax_cross_entropy", "poisson_deviance"):
            arguments = case(name, shape)
            expected = call(ops[name], ROWS[name], arguments)
            arguments["dlogits"] = arguments["logits"]
            ops[name](**arguments)
            np.testing.assert_array_equal(arguments["logits"], expected["dlogits"])
            np.testing.assert_array_equal(arguments["losses"], expected["losses"])


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_inputs_broadcast(ops, name):
    """A column, a row, a scalar and a longer stack against a whole matrix."""
    row = ROWS[name]
    each = [o.name for o in row.operands if o.use == "in" and o.layout == "each"]
    shapes: list[tuple[int, ...]] = [(12, 1), (1, 40), (40,), (1, 1), (2, 1, 40)]
    if any(o.use == "inout" for o in row.operands):
        each, shapes = each[:1], shapes[:-1]  # what is updated in place does not grow
    for key, shape in itertools.product(each, shapes):
        arguments = case(name, (12, 40), optional=False)
        if len(each) == 1 and not any(o.use == "inout" for o in row.operands):
            arguments = case(name, (12, 40))
            if "b" not in arguments:
                continue
        arguments.pop("db", None)
        arguments[key] = draw(np.random.default_rng(3), shape, "ordinary", np.float32)
        assert_near(name, call(ops[name], row, arguments), arguments, np.float32)


@pytest.mark.parametrize("name", ["relu_grad", "gelu_tanh_grad", "softmax_cross_entropy"])
def test_reductions_of_broadcast_inputs(ops, name):
    arguments = case(name, (12, 40))
    if name.endswith("_grad"):
        arguments["dA"] = arguments["dA"][:, :1]
        assert_near(name, call(ops[name], ROWS[name], arguments), arguments, np.float32)
    else:
        arguments["logits"] = np.broadcast_to(arguments["logits"][:, :1], (12, 40))
        assert_near(name, call(ops[name], ROWS[name], arguments), arguments, np.float32)


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_views_of_no_columns(ops, name):
    """NumPy gives them the strides of what they are views of."""
    row = ROWS[name]
    arguments = case(name, (4, 6), shared=True)
    arguments = {
        k: v[..., :0] if isinstance(v, np.ndarray) and v.shape[-1] == 6 else v
        for k, v in arguments.items()
    }
    written = call(ops[name], row, arguments)
    assert all(array.shape[-1] == 0 for array in written.values() if array.ndim)


@pytest.mark.parametrize("n_columns", [1, 2, 7])
def test_a_value_for_each_row(ops, n_columns):
    """Also where the values lie as far apart as the rows."""
    params, rates = np.ones((9, n_columns)), np.arange(9.0 * n_columns).reshape(9, n_columns)
    ops["gradient_descent_update"](params, np.ones((9, n_columns)), rates[:, :1])
    np.testing.assert_array_equal(params, np.broadcast_to(1 - rates[:, :1], params.shape))


def test_zero_dimensions(ops):
    assert float(ops["sigmoid"](np.array(0.0))) == 0.5
    assert ops["sigmoid"](np.zeros(3)).tolist() == [0.5] * 3


def test_gather_copies_any_dtype(ops):
    rng = np.random.default_rng(0)
    rows = np.array([3, 0, 3, 9])
    for X in (
        rng.integers(0, 10, 10),
        rng.integers(0, 256, (10, 4)).astype(np.uint8),
        rng.standard_normal((10, 2, 3)),
        rng.standard_normal((10, 5)).astype(np.float32),
        np.asfortranarray(rng.standard_normal((10, 5))),
    ):
        out = np.empty((4, *X.shape[1:]), X.dtype)
        assert ops["gather"](X, rows, out=out) is out
        np.testing.assert_array_equal(out, X[rows])
        np.testing.assert_array_equal(ops["gather"](X, rows), X[rows])
        wide = np.empty((4, 2, *X.shape[1:]), X.dtype)[:, 0]
        np.testing.assert_array_equal(ops["gather"](X, rows, out=wide), X[rows])


def test_gather_divides_exactly(ops):
    """The very bits of dividing the whole data set beforehand."""
    X = np.arange(256, dtype=np.uint8).reshape(16, 16)
    rows = np.array([2, 15, 0])
    for dtype in DTYPES:
        for divide_by in (255, 3.0, None):
            out = np.empty((3, 16), dtype)
            ops["gather"](X, rows, out=out, divide_by=divide_by)
            expected = X[rows].astype(dtype) / dtype(divide_by or 1)
            np.testing.assert_array_equal(out, expected)
            again = REFERENCE.gather(X, rows, np.empty_like(out), divide_by)
            np.testing.assert_array_equal(again, expected)


def test_gather_refuses(ops):
    X, out = np.zeros((5, 3), np.float32), np.empty((1, 3), np.float32)
    for index in (-1, 5, 2**40):
        with pytest.raises(IndexError, match=rf"indices must lie in \[0, 5\), got {index}"):
            ops["gather"](X, np.array([index]), out=out)
    with pytest.raises(ValueError, match="divide_by needs out"):
        ops["gather"](X, np.array([0]), divide_by=2)
    with pytest.raises(ValueError, match="gather: out partly overlaps X"):
        ops["gather"](X, np.array([0, 1]), out=X[1:3])


def test_gather_of_more_dimensions_than_the_kernels_know(ops):
    X = np.arange(5, dtype=np.float32).reshape(5, *(1,) * 40)
    out = np.empty((2, *(1,) * 40), np.float32)
    ops["gather"](X, np.array([3, 1]), out=out)
    np.testing.assert_array_equal(out.ravel(), [3, 1])


def test_labels_and_flags_of_other_types(ops):
    logits, losses = np.eye(3), np.empty(3)
    for dtype in (np.int8, np.int32, np.uint64, ">i4", ">i8"):
        ops["softmax_cross_entropy"](logits, np.arange(3).astype(dtype), losses)
        np.testing.assert_allclose(losses, np.log(np.e + 2) - 1)
    step, bias1, bias2, eps = np.zeros(1, np.int64), np.empty(1), np.empty(1), np.empty(1)
    ops["adam_tick"](step, bias1, bias2, eps, 0.9, 0.99, 1e-8, np.True_)
    assert eps[0] == 1e-8 / np.sqrt(1 - 0.99)


def test_as_many_columns_as_an_int_counts():
    """Zeros that nobody has written take no memory."""
    values = np.zeros(2**31 - 1, np.float32)
    assert host.fused()["mean"](values)[0] == 0


def test_long_sums_stay_accurate(ops):
    """The mean of many equal numbers is that number, however few lanes a sum has."""
    for n in (10**6, 10**7):
        found = ops["mean"](np.broadcast_to(np.float32(0.1), n).copy())
        assert abs(found[0] / np.float32(0.1) - 1) < 1e-5


def test_what_decays_is_a_prefix(ops):
    for n_decay in (0, 1, 5, 6, 2**40):
        param, grad = np.ones((2, 6)), np.zeros((2, 6))
        rate, decay = np.ones((2, 1)), np.array([[0.5], [0.25]])
        ops["gradient_descent_update"](param, grad, rate, decay, n_decay)
        n = min(n_decay, 6)
        np.testing.assert_array_equal(param[:, :n], np.broadcast_to(1 - decay, (2, n)))
        np.testing.assert_array_equal(param[:, n:], 1)
    param = np.full((1, 3), np.inf)
    ops["gradient_descent_update"](param, np.zeros((1, 3)), np.ones(1), None, 3)
    assert np.isinf(param).all()  # no decay is not a decay of 0 times infinity


def test_subclasses_and_memory_maps(ops, tmp_path):
    mapped = np.memmap(tmp_path / "Z", np.float32, "w+", shape=(3, 4))
    mapped[...] = -1
    assert not ops["relu"](mapped).any()
    assert ops["relu"](mapped, out=mapped) is mapped


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", [n for n in ROWS if n != "gather"])
def test_bits_do_not_depend_on_where_arrays_lie(ops, name, dtype):
    """Where a loop leaves vectors for single elements depends on that, and nothing else may."""

    def lying_at(offset, array):
        memory = np.zeros(array.nbytes + 64 + 16 * array.itemsize, np.uint8)
        start = -memory.ctypes.data % 64 + offset * array.itemsize
        placed = memory[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
        placed[...] = array
        return placed

    row = ROWS[name]
    for shape in ((1, 2500), (50, 50)):
        arguments = case(name, shape, dtype=dtype, shared=True)
        if any(o.name == "out" and o.layout == "each" for o in row.operands):
            arguments["out"] = np.zeros(shape, dtype)
        found = []
        for offset in (0, 1, 3, 8, 15):
            own = {
                k: lying_at(offset, v) if isinstance(v, np.ndarray) else v
                for k, v in arguments.items()
            }
            result = ops[name](**own)
            written = [own[o.name] for o in row.operands if o.use != "in" and o.name in own]
            found.append([array.tobytes() for array in (*written, result) if array is not None])
        assert all(other == found[0] for other in found)


def test_threads(ops):
    """Large operands are worked on without the interpreter's lock; results are their own."""
    rng = np.random.default_rng(0)
    inputs = [rng.standard_normal((200, 300)).astype(np.float32) for _ in range(4)]
    expected = [ops["gelu_tanh"](Z) for Z in inputs]
    failures: list[int] = []

    def work(k):
        results = (ops["gelu_tanh"](inputs[k]) for _ in range(50))
        failures.extend(k for result in results if not np.array_equal(result, expected[k]))

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_references_are_not_lost(ops):
    """A call keeps no array alive and takes none away, whether it succeeds or is refused."""
    import sys

    Z, b, out = np.ones((3, 4), np.float32), np.ones(4, np.float32), np.ones((3, 4), np.float32)
    arrays = [Z, b, out]
    before = [sys.getrefcount(array) for array in arrays]
    for _ in range(100):
        ops["relu"](Z, b=b, out=out)
        ops["relu"](Z[:, ::2], b=b[::2])
        ops["relu_grad"](Z[:, ::2], out[:, ::2], out=out[:, 1::2], db=b[::2])
        with pytest.raises(ValueError, match="does not broadcast"):
            ops["relu"](Z, b=b[:2], out=out)
    assert [sys.getrefcount(array) for array in arrays] == before
