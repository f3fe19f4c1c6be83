"""What the compiled loops refuse: operands that overlap, do not fit or are too large.

Each message names the operation, the operand, what came and what was expected.
"""

from __future__ import annotations

import os

import numpy as np
import pytest

from tests.kernels.cases import ROWS, call, case, copies
from xpnet.kernels import host

pytestmark = [pytest.mark.host]
if os.environ.get("CI") != "true":
    reason = f"the host kernels are {host.problem()}"
    pytestmark += [pytest.mark.skipif(host.problem() is not None, reason=reason)]


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
            with pytest.raises(
                ValueError, match=rf"^{name}: .*(partly overlaps|must not be the same array)"
            ):
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
    with pytest.raises(ValueError, match="param and grad must not be the same array"):
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
        with pytest.raises(ValueError, match="relu: out must not overlap itself"):
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


def test_more_rows_than_an_int_counts(ops):
    values = np.broadcast_to(np.float32(1), (2**31, 1))
    with pytest.raises(
        ValueError, match=r"mean: there must be fewer than 2\*\*31 rows, got 2147483"
    ):
        ops["mean"](values)


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


@pytest.mark.parametrize(
    ("n", "seed", "purpose"), [(-1, 0, 0), (2**32, 0, 0), (4, 2**64, 0), (4, 0, -1)]
)
def test_permutations_out_of_range(n, seed, purpose):
    with pytest.raises(ValueError, match="must lie in"):
        host.permutation(n, seed, purpose=purpose)


def test_read_only(ops):
    out = np.zeros((4, 5), np.float32)
    out.flags.writeable = False
    with pytest.raises(ValueError, match="relu: out must be writeable, got a read-only array"):
        ops["relu"](out, out=out)
    np.testing.assert_array_equal(ops["relu"](out), out)


def test_a_refused_call_writes_nothing(ops):
    param, grad = np.ones((2, 3), np.float32), np.ones((2, 3), np.float32)
    with pytest.raises(ValueError, match="partly overlaps"):
        ops["gradient_descent_update"](param, param[::-1], np.ones(1, np.float32))
    with pytest.raises(TypeError, match="weight_decay must be float32"):
        ops["gradient_descent_update"](param, grad, np.ones(1, np.float32), np.ones(1), 3)
    np.testing.assert_array_equal(param, 1)
