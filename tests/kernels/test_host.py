"""The compiled loops against the reference in float64, and what they refuse."""

from __future__ import annotations

import inspect
import itertools
import os
import threading

import numpy as np
import pytest

from tests.conftest import slow
from tests.kernels.cases import (
    ELSEWHERE,
    ROWS,
    SHAPES,
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
from tests.kernels.test_philox import KNOWN
from xpnet.kernels import host, philox
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


# The best instruction set that this machine has, and the others.
VARIANTS = [*host.variants()[:1], *map(slow, host.variants()[1:])]


@pytest.fixture(params=VARIANTS or ["none"])
def ops(request):
    """The operations in one of the instruction sets."""
    return host.fused(request.param)


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


@pytest.mark.parametrize(("counter", "key", "words"), KNOWN)
@pytest.mark.parametrize("variant", VARIANTS)
def test_known_answers_of_philox(variant, counter, key, words):
    c0, layer, step, purpose = counter
    found = host.random_words(
        4,
        key[0] | key[1] << 32,
        layer=layer,
        step=step,
        purpose=purpose,
        first=4 * c0,
        variant=variant,
    )
    assert found.tolist() == list(words)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("first", [0, 1, 2, 3, 511, 512, 513])
def test_words_are_those_of_the_reference(variant, first):
    expected = philox.random_words(np, first + 1600, 9, layer=1, step=2, purpose=3)[first:]
    found = host.random_words(1600, 9, layer=1, step=2, purpose=3, first=first, variant=variant)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [*SHAPES.values(), (5,), (1027, 3)])
def test_masks_are_the_same_bits(ops, shape, dtype):
    X = np.ones(shape, dtype)
    views = [X, np.asfortranarray(X), np.ones((*shape[:-1], 2 * shape[-1]), dtype)[..., ::2]]
    for rate in (0.0, 0.25, 1 / 3, 0.999):
        for step in (0, 5, 2**32 - 1):
            arguments = (rate, 2**63 + 5, 4, np.array([step]), 6)
            expected = REFERENCE.dropout(X, *arguments)
            for view in views:
                np.testing.assert_array_equal(ops["dropout"](view, *arguments), expected)


def test_the_threshold_is_exact(ops):
    """The word that equals it is kept."""
    words = philox.random_words(np, 64, 1, layer=2, step=3, purpose=4)
    for dtype in DTYPES:
        found = ops["dropout"](np.ones(64, dtype), words[7] / 2**32, 1, 2, np.array([3]), 4)
        assert found[7] > 0
        np.testing.assert_array_equal(found == 0, words < words[7])


def test_a_mask_does_not_depend_on_what_it_masks(ops):
    """What is dropped is 0, whatever it was."""
    X = np.full((40, 40), np.inf, np.float32)
    found = ops["dropout"](X, 0.5, 1, 2, np.array([3]), 4)
    np.testing.assert_array_equal(found, REFERENCE.dropout(X, 0.5, 1, 2, np.array([3]), 4))
    assert set(np.unique(found)) == {0, np.inf}


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
    with pytest.raises(ValueError, match="out must be given with divide_by"):
        ops["gather"](X, np.array([0]), divide_by=2)
    with pytest.raises(ValueError, match="gather: out partly overlaps X"):
        ops["gather"](X, np.array([0, 1]), out=X[1:3])


def test_gather_of_more_dimensions_than_the_kernels_know(ops):
    X = np.arange(5, dtype=np.float32).reshape(5, *(1,) * 40)
    out = np.empty((2, *(1,) * 40), np.float32)
    ops["gather"](X, np.array([3, 1]), out=out)
    np.testing.assert_array_equal(out.ravel(), [3, 1])


# What is refused: each message names the operation, the operand, what came and what was expected.


@pytest.mark.parametrize("name", ROWS)
def test_partial_overlap(ops, name):
    """Every operand that is written, one element into every other one."""
    row = ROWS[name]
    arguments = case(name, (6, 8))
    arguments.update(call(ops[name], row, arguments))
    checked = 0
    for target in row.operands:
        for other in row.operands:
            if target.use == "in" or other.name == target.name:
                continue
            own = copies(arguments)
            ours, theirs = own[target.name], own[other.name]
            memory = np.zeros(ours.nbytes + theirs.nbytes, np.uint8)
            shift = 0 if ours.nbytes <= theirs.itemsize else theirs.itemsize
            own[target.name] = memory[: ours.nbytes].view(ours.dtype).reshape(ours.shape)
            own[other.name] = (
                memory[shift : shift + theirs.nbytes].view(theirs.dtype).reshape(theirs.shape)
            )
            before = memory.copy()
            with pytest.raises(ValueError, match=rf"^{name}: .*(partly overlaps|are one array)"):
                ops[name](**own)
            np.testing.assert_array_equal(memory, before)
            checked += 1
    assert checked


def test_overlap_by_a_single_element(ops):
    memory = np.zeros(23, np.float32)
    for Z, out in ((memory[:12], memory[11:]), (memory[11:], memory[:12])):
        with pytest.raises(ValueError, match="relu: out partly overlaps Z"):
            ops["relu"](Z, out=out)
    ops["relu"](memory[:11], out=memory[11:22])
    ops["relu"](memory[11:22], out=memory[:11])


def test_the_transpose_is_not_the_same_array(ops):
    Z = np.ones((5, 5), np.float32)
    with pytest.raises(ValueError, match="relu: out partly overlaps Z"):
        ops["relu"](Z, out=Z.T)
    with pytest.raises(ValueError, match="relu: out partly overlaps b"):
        ops["relu"](np.ones((1, 5), np.float32), b=Z[0], out=Z[:1])


def test_axes_of_length_1_make_no_other_array(ops):
    Z = np.full((3, 4), -1, np.float32)
    ops["relu"](Z[None], out=Z.reshape(1, 3, 4))
    assert not Z.any()


def test_what_is_changed_shares_memory_with_nothing(ops):
    param, rate = np.ones((2, 3)), np.ones(1)
    with pytest.raises(ValueError, match="param and grad are one array: what is changed must be"):
        ops["gradient_descent_update"](param, param, rate)


def test_interleaved_operands_do_not_overlap(ops):
    """Byte ranges that meet are not yet memory that is shared."""
    memory = np.linspace(-1, 1, 24, dtype=np.float32).reshape(4, 6)
    expected = ops["relu"](memory[:, ::2])
    ops["relu"](memory[:, ::2], out=memory[:, 1::2])
    np.testing.assert_array_equal(memory[:, 1::2], expected)


def test_an_output_that_overlaps_itself(ops):
    Z = np.ones((4, 5), np.float32)
    memory = np.zeros(20, np.float32)
    for strides in ((0, 4), (4, 4), (8, 4)):
        out = np.lib.stride_tricks.as_strided(memory, (4, 5), strides)
        with pytest.raises(ValueError, match="relu: out overlaps itself"):
            ops["relu"](Z, out=out)


def test_wrong_operands(ops):
    Z = np.zeros((4, 5), np.float32)
    b = np.zeros(5, np.float32)
    refused = [
        (TypeError, "Z must be a NumPy array, got list", lambda: ops["relu"]([1.0])),
        (TypeError, "Z must be a NumPy array, got float", lambda: ops["relu"](1.0)),
        (TypeError, "Z must be an array, got None", lambda: ops["relu"](None)),
        (
            TypeError,
            "Z must be float32 or float64, got int64",
            lambda: ops["relu"](np.arange(3)),
        ),
        (
            TypeError,
            "Z must be float32 or float64, got float16",
            lambda: ops["relu"](Z.astype(np.float16)),
        ),
        (
            TypeError,
            "b must be float32 like Z, got float64",
            lambda: ops["relu"](Z, b=b.astype(float)),
        ),
        (
            TypeError,
            "out must be float32 like Z, got float64",
            lambda: ops["relu"](Z, out=np.zeros((4, 5))),
        ),
        (
            TypeError,
            "step must be int64, got float64",
            lambda: ops["dropout"](Z, 0.5, 1, 2, np.zeros(1), 3),
        ),
        (
            ValueError,
            r"b of shape \(4,\) does not broadcast against \(4, 5\)",
            lambda: ops["relu"](Z, b=np.zeros(4, np.float32)),
        ),
        (
            ValueError,
            r"out must have shape \(4, 5\), got \(5, 4\)",
            lambda: ops["relu"](Z, out=np.zeros((5, 4), np.float32)),
        ),
        (
            ValueError,
            r"db must have shape \(5,\), got \(4,\)",
            lambda: ops["relu_grad"](Z, Z, db=np.zeros(4, np.float32)),
        ),
        (
            ValueError,
            r"param must have shape \(4, 5\), got \(5,\)",
            lambda: ops["gradient_descent_update"](b.copy(), Z, np.ones(1, np.float32)),
        ),
        (
            ValueError,
            r"learning_rate must have shape \(\.\.\., 1\), got \(5,\)",
            lambda: ops["gradient_descent_update"](Z.copy(), Z, b),
        ),
        (
            ValueError,
            "dZ must have at least 2 dimensions, got 1",
            lambda: ops["bias_grad"](b),
        ),
        (
            ValueError,
            "seed must lie in",
            lambda: ops["dropout"](Z, 0.5, -1, 2, np.zeros(1, np.int64), 3),
        ),
        (
            ValueError,
            "Z must be aligned and in native byte order",
            lambda: ops["relu"](Z.astype(">f4")),
        ),
        (
            ValueError,
            "Z must be aligned",
            lambda: ops["relu"](np.zeros(9, np.uint8)[1:].view(np.float32)),
        ),
        (
            ValueError,
            r"layer must lie in \[0, 2\*\*32\), got 4294967296",
            lambda: ops["dropout"](Z, 0.5, 1, 2**32, np.zeros(1, np.int64), 3),
        ),
        (
            ValueError,
            r"n_decay must lie in \[0, 2\*\*63\), got 9223372036854775808",
            lambda: ops["gradient_descent_update"](Z.copy(), Z, b[:1], b[:1], 2**63),
        ),
        *(
            (
                ValueError,
                rf"^rate must lie in \[0, 1\), got {rate}",
                lambda rate=rate: ops["dropout"](Z, rate, 1, 2, np.zeros(1, np.int64), 3),
            )
            for rate in (1.0, -0.1, np.nan, np.inf)
        ),
        (TypeError, "slope must be a number, got None", lambda: ops["leaky_relu"](Z, None)),
        (
            ValueError,
            r"labels must have shape \(4, 5\), got \(1, 5\)",
            lambda: ops["sigmoid_cross_entropy"](Z, Z[:1], np.zeros(4, np.float32)),
        ),
        (TypeError, r"missing required argument 'Z'", lambda: ops["relu"]()),
        (TypeError, r"unexpected keyword argument 'c'", lambda: ops["relu"](Z, c=b)),
        (TypeError, r"multiple values for argument 'Z'", lambda: ops["relu"](Z, Z=Z)),
        (TypeError, r"takes at most 3 arguments, got 4", lambda: ops["relu"](Z, b, Z, Z)),
        (TypeError, "must be real number", lambda: ops["leaky_relu"](Z, "0.1")),
    ]
    for error, message, attempt in refused:
        with pytest.raises(error, match=message):
            attempt()


def test_labels_and_flags_of_other_types(ops):
    logits, losses = np.eye(3), np.empty(3)
    for dtype in (np.int8, np.int32, np.uint64, ">i4", ">i8"):
        ops["softmax_cross_entropy"](logits, np.arange(3).astype(dtype), losses)
        np.testing.assert_allclose(losses, np.log(np.e + 2) - 1)
    step, bias1, bias2, eps = np.zeros(1, np.int64), np.empty(1), np.empty(1), np.empty(1)
    ops["adam_tick"](step, bias1, bias2, eps, 0.9, 0.99, 1e-8, np.True_)
    assert eps[0] == 1e-8 / np.sqrt(1 - 0.99)


def test_more_rows_than_an_int_counts(ops):
    values = np.broadcast_to(np.float32(1), (2**31, 1))
    with pytest.raises(
        ValueError, match=r"mean: there must be fewer than 2\*\*31 rows, got 2147483"
    ):
        ops["mean"](values)


def test_as_many_columns_as_an_int_counts():
    """Zeros that nobody has written take no memory."""
    values = np.zeros(2**31 - 1, np.float32)
    assert host.fused()["mean"](values)[0] == 0


def test_long_sums_stay_accurate(ops):
    """The mean of many equal numbers is that number, however few lanes a sum has."""
    for n in (10**6, 10**7):
        found = ops["mean"](np.broadcast_to(np.float32(0.1), n).copy())
        assert abs(found[0] / np.float32(0.1) - 1) < 1e-5


@pytest.mark.parametrize(
    "draw_wrong",
    [
        lambda draw: draw(4, -1, purpose=0),
        lambda draw: draw(4, 2**64, purpose=0),
        lambda draw: draw(4, 0, purpose=2**32),
        lambda draw: draw(4, 0, purpose=0, first=2**34),
    ],
)
def test_words_out_of_range(draw_wrong):
    with pytest.raises(ValueError, match="must lie in"):
        draw_wrong(host.random_words)


def test_read_only(ops):
    out = np.zeros((4, 5), np.float32)
    out.flags.writeable = False
    with pytest.raises(ValueError, match="relu: out is written to, but the array is read-only"):
        ops["relu"](out, out=out)
    np.testing.assert_array_equal(ops["relu"](out), out)


def test_a_refused_call_writes_nothing(ops):
    param, grad = np.ones((2, 3), np.float32), np.ones((2, 3), np.float32)
    with pytest.raises(ValueError, match="partly overlaps"):
        ops["gradient_descent_update"](param, param[::-1], np.ones(1, np.float32))
    with pytest.raises(TypeError, match="weight_decay must be float32"):
        ops["gradient_descent_update"](param, grad, np.ones(1, np.float32), np.ones(1), 3)
    np.testing.assert_array_equal(param, 1)


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
