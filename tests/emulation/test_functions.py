"""The stand-in's functions: NumPy's values, CuPy's rules."""

from __future__ import annotations

import functools
import inspect
import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.emulation import functions, memory
from tests.emulation.module import cupy, cupyx

pytestmark = [pytest.mark.host, pytest.mark.usefixtures("clean")]

HOST = np.array([[0.5, -1, 2], [3, 0.25, -4]], np.float32)
OTHER = np.array([[1, 2, 2], [0.5, 0.25, 7]], np.float32)
DTYPES = ["bool", "uint8", "int32", "int64", "uint64", "float16", "float32", "float64"]
NUMBERS = [2, 0.5, True, np.float64(2), np.float32(0.5), np.int8(2), np.int64(2)]


def same(found, expected):
    expected = np.asarray(expected)
    assert isinstance(found, cupy.ndarray)
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    np.testing.assert_array_equal(found.get(), expected)


UFUNCS = [*functions._UFUNCS, "abs"]
UNARY = [name for name in UFUNCS if getattr(np, name).nin == 1]
BINARY = [name for name in UFUNCS if getattr(np, name).nin == 2]


@pytest.mark.parametrize("name", UNARY)
@pytest.mark.parametrize("dtype", DTYPES)
def test_unary(name, dtype):
    host = np.array([0, 1, 3, 100]).astype(dtype)
    if host.dtype.kind == "f":
        host = np.concatenate([host, [-2, np.inf, -np.inf, np.nan, 1e4]], dtype=dtype)
    with np.errstate(all="ignore"):
        try:
            expected = getattr(np, name)(host)
        except TypeError:
            with pytest.raises(TypeError):
                getattr(cupy, name)(cupy.array(host))
            return
    same(getattr(cupy, name)(cupy.array(host)), expected)
    out = cupy.empty(host.shape, expected.dtype)
    assert getattr(cupy, name)(cupy.array(host), out=out) is out
    same(out, expected)


@pytest.mark.parametrize("name", BINARY)
@pytest.mark.parametrize("dtype", DTYPES)
def test_binary(name, dtype):
    host = np.array([1, 0, 3], dtype)
    others = [np.array([[1, 2, 1], [0, 1, 2]], other) for other in DTYPES]
    cases: list[Any] = [(host, other) for other in others]
    cases += [pair for number in NUMBERS for pair in ((host, number), (number, host))]
    for operands in cases:
        on_device = [cupy.array(v) if isinstance(v, np.ndarray) else v for v in operands]
        with np.errstate(all="ignore"):
            try:
                expected = getattr(np, name)(*operands)
            except TypeError:
                with pytest.raises(TypeError):
                    getattr(cupy, name)(*on_device)
                continue
        same(getattr(cupy, name)(*on_device), expected)


@given(
    st.sampled_from(BINARY),
    st.sampled_from(DTYPES),
    st.sampled_from(DTYPES),
    st.sampled_from(DTYPES),
)
def test_out_casts_within_its_kind(name, first, second, target):
    x, y, out = np.ones(3, first), np.ones(3, second), np.zeros(3, target)
    operands = cupy.array(x), cupy.array(y)
    device_out = cupy.array(out)
    try:
        getattr(np, name)(x, y, out=out)
    except TypeError:
        with pytest.raises(TypeError):
            getattr(cupy, name)(*operands, out=device_out)
    else:
        assert getattr(cupy, name)(*operands, device_out) is device_out
        same(device_out, out)


def test_out_of_a_ufunc():
    x, y = cupy.array(HOST), cupy.array(OTHER)
    out = cupy.empty((4, 2, 3), "float32")
    cupy.add(x, y, out=out)  # out takes part in the broadcast
    same(out, np.broadcast_to(HOST + OTHER, (4, 2, 3)))
    for wrong in ((3, 2), (2, 1), (1, 3), (3,), ()):
        with pytest.raises(ValueError, match=r"mismatched|broadcast"):
            cupy.add(x, y, out=cupy.empty(wrong, "float32"))
    for foreign in (np.empty_like(HOST), HOST.tolist(), 1.0, (out,)):
        with pytest.raises(TypeError, match="Unsupported type"):
            cupy.add(x, y, out=foreign)
    turned = cupy.empty((3, 2), "float32").T
    same(cupy.add(x, y, out=turned), HOST + OTHER)
    same(cupy.add(x, y, out=x), HOST + OTHER)
    with pytest.raises(TypeError, match="same_kind"):
        cupy.exp(x, out=cupy.empty((2, 3), "int32"))


def test_arguments_of_a_ufunc():
    x = cupy.array(HOST)
    for arguments in ((), (x,), (x, x, x, x)):
        with pytest.raises(TypeError, match="Wrong number of arguments"):
            cupy.add(*arguments)
    for more in ({"where": x > 0}, {"dtype": "float32"}, {"casting": "unsafe"}, {"order": "C"}):
        with pytest.raises(TypeError):
            cupy.add(x, x, **more)
    with pytest.raises(OverflowError):
        cupy.add(cupy.zeros(1, "uint8"), 256)
    with pytest.raises(AttributeError):
        cupy.add.reduce  # noqa: B018


def test_weak_numbers_are_of_the_type_of_the_loop():
    same(cupy.multiply(cupy.array(HOST), 1e300), HOST * np.float32(np.inf))
    same(cupy.add(1, 2), np.add(1, 2))
    same(cupy.add(1.0, 2), np.add(1.0, 2))


@pytest.mark.parametrize(
    "foreign", [HOST, HOST.tolist(), None, "1"], ids=["array", "list", "None", "str"]
)
def test_foreign_operands(foreign):
    x, i = cupy.array(HOST), cupy.array([0])
    calls: list[Any] = [(getattr(cupy, name), (foreign,)) for name in UNARY]
    calls += [(getattr(cupy, name), (x, foreign)) for name in BINARY]
    calls += [(getattr(cupy, name), (foreign, x)) for name in BINARY]
    calls += [(getattr(cupy, name), (foreign,)) for name in REDUCTIONS]
    calls += [
        *((cupy.where, (foreign, x, x)), (cupy.matmul, (foreign, x)), (cupy.matmul, (x, foreign))),
        *((cupy.clip, (foreign, 0, 1)), (cupy.clip, (x, foreign, 1)), (cupy.sort, (foreign,))),
        *((cupy.take, (foreign, i, 0)), (cupy.take, (x, foreign, 0))),
        *((cupy.take_along_axis, (foreign, i, 0)), (cupy.take_along_axis, (x, foreign, 0))),
        *((cupy.stack, ([x, foreign],)), (cupy.concatenate, ([x, foreign],))),
        *((cupy.copyto, (x, foreign)), (cupy.copyto, (foreign, x))),
        *((cupy.ascontiguousarray, (foreign,)), (cupy.empty_like, (foreign,))),
        *((cupy.zeros_like, (foreign,)), (cupy.full_like, (foreign, 1))),
        *(
            (cupy.full, (3, foreign)),
            (cupy.broadcast, (x, foreign)),
            (cupy.broadcast_to, (foreign, 3)),
        ),
        (cupy.add, (x, x, foreign)) if foreign is not None else (cupy.add, (x, None)),
    ]
    if foreign is not None:  # as if not given
        calls += [(cupy.where, (x > 0, x, foreign))]
        calls += [(functools.partial(getattr(cupy, n), out=foreign), (x,)) for n in REDUCTIONS]
        calls += [(cupy.matmul, (x, x.T, foreign)), (cupy.take, (x, i, 0, foreign))]
    for function, arguments in calls:
        is_filling = function is cupy.full and not isinstance(foreign, (np.ndarray, list))
        kind = ValueError if is_filling else TypeError  # there is no such dtype
        with pytest.raises((kind, AttributeError)):
            function(*arguments)


REDUCTIONS = ["sum", "mean", "max", "min", "all", "any", "argmax", "argmin"]


@pytest.mark.parametrize("name", REDUCTIONS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("keepdims", [False, True])
def test_reductions(name, dtype, keepdims):
    host = np.array([[[1, 0, 3], [2, 5, 1]]], dtype)
    for source in (host, host.T, host[:, :, ::2], host[0, 0, 0]):
        axes = [None, *range(-source.ndim, source.ndim)]
        if not name.startswith("arg"):
            axes += list(itertools.combinations(range(source.ndim), 2))
        x = cupy.array(source)
        for axis in axes:
            expected = getattr(np, name)(source, axis=axis, keepdims=keepdims)
            same(getattr(cupy, name)(x, axis=axis, keepdims=keepdims), expected)
            if not name.startswith("arg"):
                same(getattr(x, name)(axis=axis, keepdims=keepdims), expected)
            if name != "min":
                out = cupy.empty(expected.shape, "float64")
                assert getattr(cupy, name)(x, axis=axis, out=out, keepdims=keepdims) is out
                same(out, np.asarray(expected, np.float64))


def test_types_of_reductions():
    x = cupy.array(HOST)
    same(cupy.sum(x, dtype="float64"), HOST.sum(dtype="float64"))
    same(x.mean(dtype="float64"), HOST.mean(dtype="float64"))
    for name in ("max", "min", "all", "any", "argmax"):
        with pytest.raises(TypeError):
            getattr(cupy, name)(x, dtype="float64")
    with pytest.raises(TypeError):
        cupy.sum(x, where=x > 0)
    with pytest.raises(TypeError):
        cupy.sum(x, initial=1)


@pytest.mark.parametrize("name", REDUCTIONS)
def test_out_of_a_reduction(name):
    x = cupy.array(HOST)
    function = getattr(cupy, name)
    for axis, wrong in ((0, (2,)), (0, (1, 3)), (None, (1,)), (1, ()), (1, (3, 2))):
        with pytest.raises(ValueError, match="mismatched"):
            function(x, axis=axis, out=cupy.empty(wrong, "float32"))
    with pytest.raises(ValueError, match=r"overlap"):
        function(x, axis=0, out=x[0]) if name != "min" else cupy.max(x, axis=0, out=x[0])
    for axis in (2, -3):
        with pytest.raises(np.exceptions.AxisError):
            function(x, axis=axis)
    if not name.startswith("arg"):
        with pytest.raises(ValueError, match=r"repeated|duplicate"):
            function(x, axis=(0, 0))


def test_out_of_a_reduction_is_of_any_type_but():
    x = cupy.array(HOST)
    same(cupy.sum(x, axis=0, out=cupy.empty(3, "int32")), HOST.sum(axis=0).astype(np.int32))
    with pytest.raises(TypeError, match="mean"):
        cupy.mean(x, axis=0, out=cupy.empty(3, "int32"))
    with pytest.raises(TypeError, match=r"min\(out=\)"):
        cupy.min(x, axis=0, out=cupy.empty(3, "float32"))


@pytest.mark.parametrize("name", REDUCTIONS)
def test_reductions_of_nothing(name):
    x, host = cupy.empty((2, 0, 3)), np.empty((2, 0, 3))
    for axis in (0, 2):
        same(getattr(cupy, name)(x, axis=axis), getattr(np, name)(host, axis=axis))
    if name in ("sum", "all", "any"):
        same(getattr(cupy, name)(x, axis=1), getattr(np, name)(host, axis=1))
    elif name != "mean":
        with pytest.raises(ValueError, match="zero-size"):
            getattr(cupy, name)(x, axis=1)


PRODUCTS = [
    ((2, 3), (3, 4)),
    ((3,), (3,)),
    ((2, 3), (3,)),
    ((3,), (3, 4)),
    ((5, 2, 3), (3, 4)),
    ((5, 2, 3), (5, 3, 4)),
    ((2, 3), (5, 3, 4)),
    ((5, 1, 2, 3), (6, 3, 4)),
    ((3,), (5, 3, 4)),
    ((5, 2, 3), (3,)),
    ((2, 0), (0, 4)),
    ((0, 3), (3, 4)),
]


@pytest.mark.parametrize(("first", "second"), PRODUCTS)
@pytest.mark.parametrize("types", [("f4", "f4"), ("f8", "f8"), ("f4", "f8")], ids=str)
def test_matmul(first, second, types):
    rng = np.random.default_rng(1)
    A, B = rng.normal(size=first).astype(types[0]), rng.normal(size=second).astype(types[1])
    expected = A @ B
    same(cupy.matmul(cupy.array(A), cupy.array(B)), expected)
    for dtype in ("f4", "f8"):
        out = cupy.empty(expected.shape, dtype)
        assert cupy.matmul(cupy.array(A), cupy.array(B), out=out) is out
        same(out, np.asarray(expected, dtype))


@pytest.mark.parametrize(
    ("first", "second"),
    [((2, 3), (2, 3)), ((3,), (2,)), ((5, 2, 3), (4, 3, 2)), ((), (3,)), ((3,), ())],
)
def test_shapes_that_do_not_multiply(first, second):
    with pytest.raises(ValueError, match=r"mismatch|broadcast|Scalar"):
        cupy.matmul(cupy.zeros(first), cupy.zeros(second))


def test_operands_that_are_the_result_in_another_object_are_copied():
    x = cupy.array(HOST)
    for out, n_copies in ((x, 0), (x[:], 2)):
        before = memory.counter.n_allocations
        cupy.add(x, x, out=out)
        assert memory.counter.n_allocations == before + n_copies


def test_out_of_matmul():
    A = cupy.array(HOST)
    with pytest.raises(ValueError, match="mismatched"):
        cupy.matmul(A, A.T, out=cupy.empty((4,), "float32"))
    with pytest.raises(ValueError, match="overlap"):
        cupy.matmul(A[:, :2], A[:, :2], out=A[:, 1:])
    with pytest.raises(TypeError, match="same_kind"):
        cupy.matmul(A, A.T, out=cupy.empty((2, 2), "int64"))
    with pytest.raises(NotImplementedError, match="int64"):
        cupy.matmul(cupy.ones((2, 2), "int64"), cupy.ones((2, 2), "int64"))


def test_memory_of_matmul():
    A = cupy.array(HOST)
    out = cupy.empty((2, 2), "float32")
    cut = cupy.array(np.ones((3, 4), np.float32))[:, ::2]
    stacked = cupy.ones((5, 3, 2), "float32")

    def asked(*arguments, **more):
        before = memory.counter.n_allocations
        cupy.matmul(*arguments, **more)
        return memory.counter.n_allocations - before

    assert asked(A, A.T) == 1
    assert asked(A, A.T, out=out) == 0
    assert asked(A, cut, out=out) == 1  # cuBLAS cannot read it as it lies
    assert asked(A, A.T, out=cupy.empty((2, 2), "float32").T) == 1
    assert asked(A, A.T, out=cupy.empty((2, 2), "float64")) == 1
    assert asked(stacked.swapaxes(1, 2), stacked, out=cupy.empty((5, 2, 2), "float32")) == 1


@pytest.mark.parametrize("axis", [None, 0, 1, -1, -2])
@pytest.mark.parametrize("indices", [[0, 1], [1, -1, 0], [[0, 1], [1, 1]], 1, []], ids=str)
def test_take(axis, indices):
    x, key = cupy.array(HOST), np.array(indices, int)
    expected = np.take(HOST, key, axis=axis)
    same(cupy.take(x, cupy.array(key), axis=axis), expected)
    out = cupy.empty(expected.shape, "float32")
    assert cupy.take(x, cupy.array(key), axis=axis, out=out) is out
    same(out, expected)
    same(cupy.take(x, 1, axis=axis), np.take(HOST, 1, axis=axis))


def test_rules_of_take():
    x, i = cupy.array(HOST), cupy.array([0, 1])
    with pytest.raises(TypeError, match="dtype mismatch"):
        cupy.take(x, i, axis=0, out=cupy.empty((2, 3), "float64"))
    for wrong in ((3, 2), (2,), (1, 2, 3)):
        with pytest.raises(ValueError, match="shape mismatch"):
            cupy.take(x, i, axis=0, out=cupy.empty(wrong, "float32"))
    for axis in (2, -3):
        with pytest.raises(np.exceptions.AxisError):
            cupy.take(x, i, axis=axis)
    for outside in ([2], [-3]):  # CuPy wraps
        with pytest.raises(IndexError):
            cupy.take(x, cupy.array(outside), axis=0)
    for wrong_type in (cupy.array([0.5]), [0], True, 0.5, np.array([0])):
        with pytest.raises(TypeError):
            cupy.take(x, wrong_type, axis=0)
    with pytest.raises(TypeError, match="mode"):
        cupy.take(x, i, axis=0, mode="clip")


def test_take_along_axis():
    x = cupy.array(HOST)
    for axis in (0, 1, -1):
        key = np.argsort(HOST, axis=axis)
        key = key[:1] if axis == 0 else key[:, :2]
        same(cupy.take_along_axis(x, cupy.array(key), axis), np.take_along_axis(HOST, key, axis))
    with pytest.raises(IndexError, match="integer"):
        cupy.take_along_axis(x, x, 0)
    with pytest.raises(IndexError):
        cupy.take_along_axis(x, cupy.full((1, 3), 2, int), 0)  # CuPy wraps
    with pytest.raises(ValueError, match="dimensions"):
        cupy.take_along_axis(x, cupy.array([0]), 0)


@pytest.mark.parametrize(
    "x", [HOST, HOST.astype("f8"), 2, 2.5, True, np.float64(1), np.int8(1)], ids=repr
)
@pytest.mark.parametrize("y", [HOST[0], HOST.astype("i4"), 2, 2.5, False, np.float32(1)], ids=repr)
def test_where(x, y):
    on_device = [cupy.array(v) if isinstance(v, np.ndarray) else v for v in (x, y)]
    same(cupy.where(cupy.array(HOST > 0), *on_device), np.where(HOST > 0, x, y))
    same(cupy.where(cupy.array(HOST), *on_device), np.where(HOST, x, y))


def test_where_refuses():
    x = cupy.array(HOST)
    for arguments in ((x > 0,), (x > 0, x), (x > 0, None, x)):
        with pytest.raises(NotImplementedError):
            cupy.where(*arguments)
    for condition in (True, np.bool_(True), HOST > 0):
        with pytest.raises(TypeError, match="Unsupported type"):
            cupy.where(condition, x, x)
    with pytest.raises(TypeError):
        cupy.where(x > 0, x, x, out=x)
    with pytest.raises(OverflowError):
        cupy.where(x > 0, cupy.ones(3, "uint8"), 300)


def test_clip():
    x = cupy.array(HOST)
    same(cupy.clip(x, -1, 2), np.clip(HOST, -1, 2))
    same(cupy.clip(x, cupy.array(OTHER), 5.0), np.clip(HOST, OTHER, 5.0))
    out = cupy.empty((2, 3), "float32")
    before = memory.counter.n_allocations
    assert cupy.clip(x, -1, 2, out=out) is out
    assert memory.counter.n_allocations == before
    same(out, np.clip(HOST, -1, 2))
    same(cupy.clip(x, -1, 2, out=x), np.clip(HOST, -1, 2))
    with pytest.raises(TypeError):
        cupy.clip(x, min=0, max=1)


def test_joining():
    x, y = cupy.array(HOST), cupy.array(HOST.astype("f8"))
    for name, axes in (("stack", (0, 1, -1)), ("concatenate", (0, 1, -1))):
        for axis in axes:
            for pair, hosts in (((x, x), (HOST, HOST)), ((x, y), (HOST, y.get()))):
                expected = getattr(np, name)(hosts, axis=axis)
                same(getattr(cupy, name)(pair, axis=axis), expected)
        with pytest.raises(ValueError, match=r"need at least|match|same shape|dimension"):
            getattr(cupy, name)([])
        with pytest.raises(ValueError, match=r"match|same shape|dimension"):
            getattr(cupy, name)([x, x[:, 0]])


def test_sort():
    host = np.array([[3, np.nan, 1], [0, -1, np.inf]])
    for axis in (0, 1, -1):
        same(cupy.sort(cupy.array(host), axis), np.sort(host, axis))
    same(cupy.sort(cupy.array(host).T), np.sort(host.T))
    with pytest.raises(np.exceptions.AxisError):
        cupy.sort(cupy.array(1.0))
    with pytest.raises(TypeError):
        cupy.sort(cupy.array(host), kind="heapsort")


def test_copyto():
    x = cupy.array(HOST)
    cupy.copyto(x, cupy.array(OTHER[0].astype("f8")))
    same(x, np.broadcast_to(OTHER[0], (2, 3)))
    with pytest.raises(TypeError, match="same_kind"):
        cupy.copyto(cupy.empty((2, 3), "int32"), x)
    with pytest.raises(ValueError, match="broadcast"):
        cupy.copyto(x, cupy.empty(2, "float32"))


@pytest.mark.parametrize("dtype", [*DTYPES, None])
def test_making(dtype):
    for shape in ((2, 3), 4, (), (0, 2), np.int64(2)):
        if dtype is not None:
            same(cupy.zeros(shape, dtype), np.zeros(shape, dtype))
            same(cupy.ones(shape, dtype), np.ones(shape, dtype))
        for value in (1, 1.0, True, np.float32(1)):
            same(cupy.full(shape, value, dtype), np.full(shape, value, dtype))
        assert cupy.empty(shape, dtype).dtype == np.empty(shape, dtype).dtype
    x = cupy.array(HOST).T
    same(cupy.zeros_like(x, dtype), np.zeros_like(HOST.T, dtype))
    same(cupy.ones_like(x, dtype), np.ones_like(HOST.T, dtype))
    same(cupy.full_like(x, 1, dtype), np.full_like(HOST.T, 1, dtype))
    assert cupy.empty_like(x, dtype).shape == (3, 2)
    assert cupy.zeros_like(x, dtype).flags.f_contiguous
    for source in ([1, 2], 3, 2.5, OTHER, [[True], [False]], np.float32(1), (), OTHER.tolist()):
        same(cupy.array(source, dtype), np.array(source, dtype))
        same(cupy.asarray(source, dtype), np.asarray(source, dtype))
    same(cupy.ascontiguousarray(cupy.array(OTHER).T, dtype), np.ascontiguousarray(OTHER.T, dtype))
    if dtype != "bool":
        for arguments in ((5,), (2, 5), (0, 5, 2), (5, 0, -1), (0,)):
            same(cupy.arange(*arguments, dtype=dtype), np.arange(*arguments, dtype=dtype))
        same(cupy.arange(5, step=2, dtype=dtype), np.arange(0, 5, 2, dtype=dtype))


def test_full_of_a_device_array():
    same(cupy.full((2,), cupy.array(np.float32(3))), np.full(2, 3, np.float32))


def test_broadcasting():
    x = cupy.array(HOST)
    same(cupy.broadcast_to(x, (4, 2, 3)), np.broadcast_to(HOST, (4, 2, 3)))
    assert cupy.broadcast_to(x, (4, 2, 3)).strides == (0, 12, 4)
    assert cupy.broadcast(x, x[0], x[:, :1]).shape == (2, 3)
    for wrong in ((3, 2), (3,), (2,)):
        with pytest.raises(ValueError, match=r"broadcast|dimensions"):
            cupy.broadcast_to(x, wrong)
    with pytest.raises(ValueError, match="mismatch"):
        cupy.broadcast(x, x.T)


def test_ascontiguousarray_asks_for_memory_once():
    x = cupy.array(HOST).T
    before = memory.counter.n_allocations
    cupy.ascontiguousarray(x, "float64")
    assert memory.counter.n_allocations == before + 1
    contiguous = cupy.array(HOST)
    assert cupy.ascontiguousarray(contiguous, "float32") is contiguous


def test_asnumpy():
    found = cupy.asnumpy(cupy.array(HOST))
    assert type(found) is np.ndarray
    np.testing.assert_array_equal(found, HOST)


def test_what_is_lacking_is_an_error():
    for name in ("nonzero", "argwhere", "unique", "dot", "einsum", "errstate", "random", "linalg"):
        with pytest.raises(AttributeError):
            getattr(cupy, name)


def test_no_function_waits():
    x, i = cupy.array(HOST), cupy.array([0, 1])
    with cupyx.allow_synchronize(False):
        for name in UNARY:
            if name != "abs":
                getattr(cupy, name)(x)
        for name in REDUCTIONS:
            getattr(cupy, name)(x)
        cupy.matmul(x, x.T)
        cupy.where(x > 0, x, 0)
        cupy.take(x, i, axis=0)
        cupy.stack([x, x])
        cupy.sort(x)
        x[i, i] += 1
        x[...] = 0
        cupy.array(3.0)
    same(x, np.zeros_like(HOST))


@pytest.mark.parametrize("copy", [cupy.array, cupy.asarray, lambda a: cupy.zeros(4).set(a)])
def test_nothing_is_copied_from_the_host_where_nothing_waits(copy):
    with (
        cupyx.allow_synchronize(False),
        pytest.raises(cupyx.DeviceSynchronized, match="a copy from the host"),
    ):
        copy(np.zeros(4))


def test_an_inner_product_asks_for_memory():
    """CuPy has cuBLAS do all other products."""
    x, out = cupy.ones((1, 7)), cupy.zeros((1, 1))
    before = memory.counter.n_allocations
    cupy.matmul(x, x.T, out=out)
    assert memory.counter.n_allocations == before + 1
    same(out, np.full((1, 1), 7.0))


def test_every_function_is_tested():
    text = inspect.getsource(inspect.getmodule(test_every_function_is_tested))  # type: ignore[arg-type]
    named = {*UNARY, *BINARY, *REDUCTIONS, *functions._DTYPES}
    missing = [n for n in functions.FUNCTIONS if n not in named and f"cupy.{n}" not in text]
    assert missing in ([], ["stack", "concatenate"])
    assert cupy.float32 is np.float32
