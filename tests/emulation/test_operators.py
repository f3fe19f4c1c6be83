"""The stand-in's operators: operands that CuPy refuses, and types of results."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.emulation.module import cupy
from tests.emulation.values import HOST, array, same

pytestmark = [pytest.mark.host, pytest.mark.usefixtures("clean")]

OPERATORS = {
    name: getattr(operator, name)
    for name in (
        *("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "and_", "or_", "xor"),
        *("lshift", "rshift", "eq", "ne", "lt", "le", "gt", "ge"),
    )
}
COMPARISONS = [OPERATORS[name] for name in ("eq", "ne", "lt", "le", "gt", "ge")]
IN_PLACE = {
    name: getattr(operator, name)
    for name in ("iadd", "isub", "imul", "itruediv", "ifloordiv", "imod", "ipow", "iand", "ilshift")
}
FOREIGN = {
    "array": np.ones(3, np.int64),
    "0-d array": np.array(1),
    "list": [1, 1, 1],
    "tuple": (1, 1, 1),
    "None": None,
    "str": "1",
    "object": object(),
}


@pytest.mark.parametrize("other", FOREIGN.values(), ids=FOREIGN)
@pytest.mark.parametrize("operate", OPERATORS.values(), ids=OPERATORS)
def test_foreign_operands(operate, other):
    x = array([1, 2, 3])
    with pytest.raises(TypeError):
        operate(x, other)
    if not isinstance(other, str) or operate is not operator.mod:
        with pytest.raises(TypeError):
            operate(other, x)


@pytest.mark.parametrize("other", FOREIGN.values(), ids=FOREIGN)
@pytest.mark.parametrize("operate", IN_PLACE.values(), ids=IN_PLACE)
def test_foreign_operands_in_place(operate, other):
    with pytest.raises(TypeError, match="Unsupported type"):
        operate(array([1, 2, 3]), other)
    if isinstance(other, np.ndarray):
        with pytest.raises(TypeError):
            operate(other.copy(), array([1, 2, 3]))


def test_matrix_products_by_operator_are_lacking():
    for left, right in ((array(), array()), (array(), HOST), (HOST, array())):
        with pytest.raises(TypeError):
            left @ right


SCALARS = [2, 2.5, True, np.float64(2), np.float32(2), np.int8(2), np.int64(2), np.bool_(True)]
DTYPES = ["bool", "uint8", "int8", "int32", "int64", "uint64", "float16", "float32", "float64"]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("operate", OPERATORS.values(), ids=OPERATORS)
def test_operators_promote_as_numpy(operate, dtype):
    host = np.array([1, 0, 3], dtype)
    others = [np.array([1, 2, 1], other) for other in DTYPES]
    cases: list[Any] = [(host, other) for other in others]
    cases += [pair for number in SCALARS for pair in ((host, number), (number, host))]
    for left, right in cases:
        on_device = [array(v) if isinstance(v, np.ndarray) else v for v in (left, right)]
        if isinstance(left, np.generic) and operate in COMPARISONS:
            with pytest.raises(TypeError):  # NumPy makes an array of it; CuPy one of Python's
                operate(*on_device)
            continue
        by_numpy = np.power if operate is operator.pow else operate  # NumPy's ** may take square
        try:
            expected = by_numpy(left, right)
        except (TypeError, ValueError) as error:
            with pytest.raises(type(error)):
                operate(*on_device)
        else:
            same(operate(*on_device), expected)


@given(
    st.sampled_from(DTYPES),
    st.one_of(st.integers(-300, 300), st.floats(-1e3, 1e3, width=16), st.booleans()),
    st.sampled_from([operator.add, operator.mul, operator.lt, operator.eq]),
)
def test_python_numbers_are_weak(dtype, number, operate):
    host = np.array([0, 1, 1], dtype)
    is_outside = (
        type(number) is int
        and host.dtype.kind in "iu"
        and not np.iinfo(dtype).min <= number <= np.iinfo(dtype).max
    )
    if is_outside:  # NumPy compares them
        with pytest.raises(OverflowError, match="out of bounds"):
            operate(array(host), number)
        return
    with np.errstate(all="ignore"):
        same(operate(array(host), number), operate(host, number))


def test_in_place_casts_as_out_does():
    x = array([1.0, 2.0], "float32")
    y = x
    y += array([1.0, 2.0], "float64")
    assert y is x
    same(x, np.array([2, 4], np.float32))
    i = array([1, 2])
    with pytest.raises(TypeError, match="same_kind"):
        i += 1.5
    with pytest.raises(TypeError, match="same_kind"):
        i /= 2
    small = x[:1]
    with pytest.raises(ValueError, match=r"mismatched|broadcast"):
        small += array([[1.0], [2.0]], "float32")
    x[1:] += 1  # of a view
    same(x, np.array([2, 5], np.float32))


def test_unary():
    for operate in (operator.neg, abs):
        same(operate(array(-HOST)), operate(-HOST))
    same(~array(HOST > 2), ~(HOST > 2))
    with pytest.raises(TypeError):
        -array(HOST > 2)
    with pytest.raises(TypeError):
        ~array(HOST)


def test_operands_that_overlap_the_result_in_part():
    x = array(np.arange(6.0))
    for work in (
        lambda: cupy.add(x[1:], x[:-1], out=x[1:]),
        lambda: cupy.exp(x[::-1], out=x),
        lambda: cupy.sum(x, out=x[0]),
        lambda: x.__setitem__(slice(1, None), x[:-1]),  # CuPy: undefined
        lambda: x.__setitem__(array([0, 1]), x[:2]),
        lambda: cupy.take(x, array([1, 0]), out=x[:2]),
    ):
        with pytest.raises(ValueError, match="overlap"):
            work()
    cupy.add(x[::2], x[::2], out=x[1::2])  # nothing in common
    same(x, np.array([0, 0, 2, 4, 4, 8.0]))
