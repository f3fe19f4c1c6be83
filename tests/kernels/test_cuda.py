"""The fused CUDA operations against the reference in float64, on the CUDA device of the run.

On the emulated device these are no results of a GPU: see :mod:`tests.emulation.kernels` for what it
leaves untested, above all CUDA's own exponentials. The operations over all shapes and values are in
:mod:`tests.parity.test_ops`.
"""

from __future__ import annotations

import itertools
import threading
from typing import Any

import numpy as np
import pytest

import xpnet
from tests import devices
from tests.emulation import kernels
from tests.kernels.cases import (
    ELSEWHERE,
    ROWS,
    WITH_WORDS,
    assert_near,
    call,
    call_on,
    case,
    draw,
    has_out,
    is_defined,
    on_device,
)
from xpnet.kernels import cuda, cuda_launch, cuda_source
from xpnet.kernels.catalogue import ColumnReduce, Elementwise, Rowwise
from xpnet.kernels.reference import ReferenceOps

pytestmark = pytest.mark.accelerator

REFERENCE: Any = ReferenceOps(np)
DTYPES = [np.float32, np.float64]
SUMS = [row.name for row in ROWS.values() if isinstance(row, ColumnReduce)]
ROWWISE = [row.name for row in ROWS.values() if isinstance(row, Rowwise)]
OPTIMIZERS = [row.name for row in ROWS.values() if cuda_source.has_decay(row)]
WITH_OUT = [
    row.name for row in ROWS.values() if has_out(row.name, "each") and row.name not in ELSEWHERE
]
BROADCASTING = [
    row.name
    for row in ROWS.values()
    if isinstance(row, (Elementwise, ColumnReduce))
    and row.name not in ("gather", *WITH_WORDS)  # their arrays are raw
    and not has_out(row.name, "column")
    and sum(o.use == "out" and not o.optional for o in row.operands) <= 1  # given their shape
]
FOURS = [
    row.name
    for row in ROWS.values()
    if isinstance(row, (Elementwise, ColumnReduce))
    and cuda_source.is_plain(row)
    and cuda_source.goes_by_fours(row)
    and not has_out(row.name, "column")
]
ONE_AXIS = [
    row.name
    for row in ROWS.values()
    if not any(o.layout in ("row", "column") and not o.optional for o in row.operands)
    and row.name not in ("sigmoid_cross_entropy", "squared_error", "poisson_deviance")
]


@pytest.fixture
def library(pytestconfig, monkeypatch):
    """The emulated device's kernels, which tell what was launched and run in either order."""
    if pytestconfig.stash[devices.chosen] != "emulated":
        pytest.skip("a GPU neither tells its launches nor turns its threads round")
    monkeypatch.setattr(kernels.library, "launched", set())
    monkeypatch.setattr(kernels.library, "is_reversed", False)
    return kernels.library


@pytest.fixture(params=[1, 4, 132])
def n_multiprocessors(request, monkeypatch):
    monkeypatch.setattr(cuda, "n_multiprocessors", lambda cupy: request.param)
    return request.param


def run(device: xpnet.Device, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    return call_on(device, getattr(device.ops, name), ROWS[name], arguments)


def assert_same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert found[key].dtype == value.dtype
        assert found[key].shape == value.shape
        np.testing.assert_array_equal(found[key], value, err_msg=key)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ONE_AXIS)
def test_one_axis(device, name, dtype):
    """Without rows there is no bias for them, no sum over them, and no mean of their losses.

    (With a bias the reference gives a result of one row.)
    """
    arguments = case(name, (13,), dtype=dtype, optional=name in OPTIMIZERS)
    found = run(device, name, arguments)
    if name == "mean":
        assert found["out"].shape == (1,)
    assert_near(name, found, arguments, dtype)


def test_no_axis(device):
    found = run(device, "sigmoid", {"Z": np.array(0.0)})
    assert_same(found, {"out": np.array(0.5)})


def choices(name: str, dtype: Any, shape: tuple[int, ...] = (9, 13)) -> list[dict[str, Any]]:
    """Make the arguments of an operation with every choice of optional operands."""
    optional = [operand.name for operand in ROWS[name].operands if operand.optional]
    arguments = case(name, shape, dtype=dtype)
    return [
        {k: v for k, v in arguments.items() if k not in absent}
        for n in range(len(optional) + 1)
        for absent in itertools.combinations(optional, n)
    ]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ROWS)
def test_every_choice_of_optional_operands(device, name, dtype):
    for arguments in choices(name, dtype):
        assert_near(name, run(device, name, arguments), arguments, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", FOURS)
def test_four_elements_a_thread(device, monkeypatch, name, dtype):
    """As where there are many, also with a rest of one to three, and in stacks."""
    monkeypatch.setattr(cuda, "_MANY", 1)
    has_columns = any(o.layout == "column" and o.use == "in" for o in ROWS[name].operands)
    shapes = [
        (6, 8),
        (2, 3, 12),
        (1, 4),
        (1, 5),
        *([] if has_columns else [(n,) for n in range(1, 9)]),
    ]
    for shape in shapes:
        if len(shape) == 1 and name not in ONE_AXIS:
            continue
        for arguments in choices(name, dtype, shape):
            arguments.pop("db", None)
            arguments.pop("penalty", None)
            assert_near(name, run(device, name, arguments), arguments, dtype)


def test_what_does_not_lie_on_sixteen_bytes_goes_one_by_one(device, monkeypatch):
    monkeypatch.setattr(cuda, "_MANY", 1)
    with device.activate():
        Z = device.asarray(np.arange(-20.0, 21), "float32")
        for start in range(5):
            found = device.to_host(device.ops.relu(Z[start:]))
            np.testing.assert_array_equal(found, np.maximum(np.arange(-20.0, 21)[start:], 0))


@pytest.mark.parametrize("dtype", DTYPES)
def test_choices_launch_what_is_compiled_for_gpus(device, library, monkeypatch, dtype):
    """Every kernel of kernels(), and no other."""
    for name in ROWS:
        for arguments in choices(name, dtype):
            run(device, name, arguments)
    monkeypatch.setattr(cuda, "_MANY", 1)
    for name in ROWS:
        for shape in ((8, 12), (12,)) if name in ONE_AXIS else ((8, 12),):
            for arguments in choices(name, dtype, shape):
                given = {k: v for k, v in arguments.items() if k not in ("db", "penalty")}
                run(device, name, given)
    run(device, "bias_grad", {"dZ": np.ones((600, 3), dtype)})
    for n_columns, of_type in ((4, dtype), (4, np.uint8), (3, np.uint8)):
        X, out = np.ones((5, n_columns), of_type), np.empty((2, n_columns), dtype)
        run(device, "gather", {"X": X, "indices": np.array([1, 4]), "out": out})
    T = np.dtype(dtype).name
    expected = {spec.variant: kernels.launched_as(spec, T) for spec in cuda_source.kernels()}
    assert {v for v, key in expected.items() if key not in library.launched} == set()
    assert library.launched <= set(expected.values())


# Where results are written, and from where operands are read.


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", WITH_OUT)
def test_out_may_be_an_input(device, name, dtype):
    inputs = [o.name for o in ROWS[name].operands if o.use == "in" and o.layout == "each"]
    for shape, optional in itertools.product([(9, 21), (2, 9, 21)], (True, False)):
        arguments = case(name, shape, dtype=dtype, optional=optional)
        expected = run(device, name, arguments)
        for out in (np.full(shape, np.nan, dtype), *(arguments[key] for key in inputs)):
            assert_same(run(device, name, {**arguments, "out": out}), expected)


@pytest.mark.parametrize("shape", [(50, 10), (2, 7, 90)])
@pytest.mark.parametrize(
    "name", ["sigmoid_cross_entropy", "softmax_cross_entropy", "poisson_deviance"]
)
def test_dlogits_may_be_the_logits(device, name, shape):
    arguments = case(name, shape)
    expected = run(device, name, arguments)
    assert_same(run(device, name, {**arguments, "dlogits": arguments["logits"]}), expected)


@pytest.mark.parametrize("name", ["mean", "bias_grad"])
def test_out_of_a_reduction(device, name):
    arguments = case(name, (3, 9, 21))
    expected = run(device, name, arguments)
    out = np.full_like(expected["out"], np.nan)
    assert_same(run(device, name, {**arguments, "out": out}), expected)


def every_second(device: xpnet.Device, array: Any) -> Any:
    wide = np.full((*array.shape[:-1], 2 * array.shape[-1]), 7).astype(array.dtype)
    wide[..., ::2] = array
    return device.asarray(wide)[..., ::2]


def backwards(device: xpnet.Device, array: Any) -> Any:
    return device.asarray(array[..., ::-1])[..., ::-1]


def fortran(device: xpnet.Device, array: Any) -> Any:
    return device.asarray(array.T).T


@pytest.mark.parametrize("view", [every_second, backwards, fortran])
@pytest.mark.parametrize("name", ROWS)
def test_views(device, name, view):
    """Operands, read and written, that are not contiguous."""
    for shape in ((37, 21), (3, 5, 17)):
        arguments = case(name, shape)
        if name in WITH_OUT:
            arguments["out"] = np.full(shape, np.nan, np.float32)
        own = {k: view(device, v) if isinstance(v, np.ndarray) else v for k, v in arguments.items()}
        arrays = [own[k] for k, v in arguments.items() if isinstance(v, np.ndarray)]
        assert any(not array.flags.c_contiguous for array in arrays)
        assert_same(run(device, name, own), run(device, name, arguments))


@pytest.mark.parametrize("name", BROADCASTING)
def test_inputs_broadcast(device, name):
    row = ROWS[name]
    each = [o.name for o in row.operands if o.use == "in" and o.layout == "each"]
    shapes: list[tuple[int, ...]] = [(12, 1), (1, 40), (40,), (2, 1, 40)]
    if any(o.use == "inout" for o in row.operands):
        shapes.pop()  # what is updated in place does not grow
    elif len(each) == 1:
        shapes.remove((40,))  # there is nothing to broadcast against
    for key, shape in itertools.product(each, shapes):
        decays = name in OPTIMIZERS  # which the reference adds to gradients of the whole shape
        arguments = case(name, (12, 40), optional=not decays)
        arguments.pop("db", None)
        arguments.pop("penalty", None)
        arguments[key] = draw(np.random.default_rng(3), shape, "ordinary", np.float32)
        assert_near(name, run(device, name, arguments), arguments, np.float32)


# Rows, each of which has a warp.


@pytest.mark.parametrize("values", ["ordinary", "large", "zeros"])
@pytest.mark.parametrize("name", ROWWISE)
def test_rows_of_any_length(device, name, values):
    """Shorter than a warp, as long, and longer; in float32, whose sums show what is left out."""
    for n_columns in (1, 2, 16, 17, 31, 32, 33, 64, 100, 1031):
        for shape in ((5, n_columns), (2, 3, n_columns)):
            if is_defined(name, shape):
                arguments = case(name, shape, values)
                assert_near(name, run(device, name, arguments), arguments, np.float32)


@pytest.mark.parametrize("n_spare", [1, 4])
def test_warps_to_spare_touch_nothing(device, n_spare):
    """A GPU runs whole blocks."""
    specs = {spec.variant: spec for spec in cuda_source.kernels()}
    values = np.arange(70.0).reshape(7, 10)
    with device.activate():
        given, out = device.asarray(values), device.xp.full((7, 1), 1e9)
        kernel = specs["mean without weights"].make(device.xp)
        kernel(given, 2, 2, 10, out, size=(2 + n_spare) * 32)
    expected = np.where(np.arange(7)[:, None] < 2, values.mean(axis=-1, keepdims=True), 1e9)
    np.testing.assert_array_equal(device.to_host(out), expected)


# Sums over the rows, which are shared by as many threads as fill a GPU.


@pytest.mark.parametrize("shape", [(300, 70), (3, 5, 17), (2, 130, 3), (1, 5)])
@pytest.mark.parametrize("name", SUMS)
@pytest.mark.usefixtures("n_multiprocessors")
def test_sums_of_columns(device, name, shape):
    for optional in (True, False):
        arguments = case(name, shape, optional=optional)
        row: Any = ROWS[name]  # of SUMS, hence with a total
        total = row.total
        if total != "out":
            arguments[total] = np.full((*shape[:-2], shape[-1]), np.nan, np.float32)
        assert_near(name, run(device, name, arguments), arguments, np.float32)


@pytest.mark.parametrize("name", ["bias_grad", "relu_grad", "gelu_tanh_grad"])
def test_sums_of_long_columns(device, name, n_multiprocessors):
    """In float32: in float64 the reference's own sum is as far off as the kernels' are."""
    assert (
        cuda_launch.n_splits(1, 8192, 10, n_multiprocessors)
        == {1: 52, 4: 205, 132: 2048}[n_multiprocessors]
    )
    arguments = case(name, (8192, 10))
    assert_near(name, run(device, name, arguments), arguments, np.float32)


@pytest.mark.usefixtures("n_multiprocessors")
def test_every_row_is_counted_once(device):
    """Whole numbers, whose sums are exact."""
    for n_rows in (*range(40), 1000, 8192):
        dZ = np.arange(2.0 * n_rows * 3).reshape(2, n_rows, 3)
        assert_same(run(device, "bias_grad", {"dZ": dZ}), {"out": dZ.sum(axis=-2)})


# What lies between the two kernels of such a sum belongs to one thread and stream.


def test_threads_do_not_share_what_is_between_two_kernels(device, monkeypatch):
    launch_rows = cuda._launch_rows
    is_between, other_is_done = threading.Event(), threading.Event()

    def launch(*arguments):
        if threading.current_thread().name == "first":
            is_between.set()
            assert other_is_done.wait(20)
        launch_rows(*arguments)

    monkeypatch.setattr(cuda, "_launch_rows", launch)
    found = {}

    def run(value):
        with device.activate():
            dZ = device.asarray(np.full((600, 5), value))
            found[value] = device.to_host(device.ops.bias_grad(dZ))

    first = threading.Thread(target=run, args=(1.0,), name="first")
    first.start()
    assert is_between.wait(20)
    second = threading.Thread(target=run, args=(2.0,))
    second.start()
    second.join()
    other_is_done.set()
    first.join()
    for value in (1.0, 2.0):
        np.testing.assert_array_equal(found[value], 600 * value)


def test_streams_do_not_share_what_is_between_two_kernels(device):
    with device.activate():
        arrays = [device.asarray(np.full((600, 5), value)) for value in (1.0, 2.0)]
    device.synchronize()
    sums = []
    for array in arrays:
        stream = device.xp.cuda.Stream(non_blocking=True)
        with stream:
            sums.append((stream, device.ops.bias_grad(array)))
    for (stream, found), expected in zip(sums, (600, 1200), strict=True):
        with stream:
            np.testing.assert_array_equal(found.get(), expected)


# A bias of every network of a stack, or one for all.


@pytest.mark.parametrize("K", [1, 3, 5])  # 5 is also the number of rows
@pytest.mark.parametrize("name", [r.name for r in ROWS.values() if "b?" in r.reads])
def test_bias_of_a_stack(device, name, K):
    for own in ((K, 17), (1, 17), (17,)):
        for with_db in (True, False):
            arguments = case(name, (K, 5, 17))
            arguments["b"] = draw(np.random.default_rng(4), own, "ordinary", np.float32)
            if not with_db:
                arguments.pop("db", None)
            assert_near(name, run(device, name, arguments), arguments, np.float32)


# Bits that must be those of the reference.


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("seed", [0, 1, 2**32 - 1, 2**32 + 5, 2**63 + 12345, 2**64 - 1])
def test_dropout_has_the_bits_of_the_reference(device, seed, dtype):
    shapes: list[tuple[int, ...]] = [(n,) for n in range(13)]
    shapes += [(1000,), (1003,), (7, 5), (3, 11, 13), ()]
    rng = np.random.default_rng(5)
    for shape in shapes:
        X = np.asarray(rng.standard_normal(shape)).astype(dtype)
        for rate, step in itertools.product((0.0, 1 / 3, 0.999), (0, 3, 2**31 + 7, 2**32 - 1)):
            arguments = {"X": X, "rate": rate, "seed": seed, "layer": 2, "purpose": 5}
            arguments["step"] = np.array([step])
            expected = {"out": np.asarray(REFERENCE.dropout(**arguments))}
            assert_same(run(device, "dropout", arguments), expected)
            assert_same(run(device, "dropout", {**arguments, "out": X}), expected)


def test_layers_and_purposes_of_dropout(device):
    for layer, purpose in itertools.product((0, 7, 2**32 - 1), repeat=2):
        arguments = {"X": np.ones(50), "rate": 0.5, "seed": 99, "layer": layer, "purpose": purpose}
        arguments["step"] = np.array([4])
        expected = call(REFERENCE.dropout, ROWS["dropout"], arguments)
        assert_same(run(device, "dropout", arguments), expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("row_shape", [(), (1,), (7,), (4, 3), (784,), (0,)])
def test_gather_has_the_bits_of_the_reference(device, row_shape, dtype):
    rng = np.random.default_rng(6)
    X = rng.integers(0, 256, (10, *row_shape)).astype(np.uint8)
    for n, index in itertools.product((0, 1, 5, 13), (np.int64, np.int32, np.uint8)):
        indices = rng.integers(0, 10, n).astype(index)
        for divide_by in (None, 255, 255.0, 3.0):
            arguments = {"X": X, "indices": indices, "divide_by": divide_by}
            arguments["out"] = np.full((n, *row_shape), np.nan, dtype)
            expected = call(REFERENCE.gather, ROWS["gather"], arguments)
            for layout in (X, fortran(device, X)):
                assert_same(run(device, "gather", {**arguments, "X": layout}), expected)


def test_any_other_gather(device):
    X = np.random.default_rng(7).standard_normal((10, 4))
    rows = np.array([3, 0, 3, 9])
    for array in (X, X.astype(np.uint8)):
        found = run(device, "gather", {"X": array, "indices": rows})
        assert_same(found, {"out": array[rows]})


# Weight decay.


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_first_columns_decay(device, name, dtype):
    """Of each network of a stack (K, P), or of the one there is."""
    for shape, shared in itertools.product([(3, 7), (1, 7), (7,), (2, 3, 7)], (True, False)):
        for n_decay in (0, 1, 4, 6, 7, 9):
            arguments = case(name, shape, dtype=dtype, shared=shared)
            arguments["weight_decay"] *= 1000  # nobody can miss it
            arguments["n_decay"] = n_decay
            assert_near(name, run(device, name, arguments), arguments, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("epsilon_hat", [False, True])
def test_ticks_of_a_stack(device, epsilon_hat, dtype):
    names = ("step", "bias1", "bias2", "eps")
    arrays = [np.array([[0], [1], [70], [10**6]]), *(np.zeros((4, 1), dtype) for _ in range(3))]
    expected = dict(zip(names, arrays, strict=True))
    own = on_device(device, expected)
    constants = {"beta1": 0.9, "beta2": 0.999, "eps_const": 1e-8, "epsilon_hat": epsilon_hat}
    for _ in range(3):
        found = run(device, "adam_tick", {**own, **constants})
        REFERENCE.adam_tick(**expected, **constants)
        assert found.keys() == expected.keys()
        np.testing.assert_array_equal(found["step"], expected["step"])
        for key in ("bias1", "bias2", "eps"):
            # Differences of 1 and a power, in which two roundings of that power are seen.
            of_power = (
                2 * np.finfo(np.float64).eps / expected["bias1" if key == "bias1" else "bias2"]
            )
            rtol = float(np.finfo(dtype).eps) + of_power
            assert (np.abs(found[key] / expected[key] - 1) <= rtol).all()


# The order of threads.


@pytest.mark.parametrize("shape", [(33, 10), (3, 5, 17)])
@pytest.mark.parametrize("name", ROWS)
def test_no_thread_waits_for_another(device, library, monkeypatch, name, shape):
    """Also where results are written over what was read."""
    arguments = case(name, shape)
    first = next(o.name for o in ROWS[name].operands if o.layout == "each")

    def in_place() -> dict[str, Any]:
        """Return all arrays, also those that are only read."""
        given = dict(arguments)
        if name in WITH_OUT:
            given["out"] = given[first]
        elif "dlogits" in given:
            given["dlogits"] = given[first]
        own = on_device(device, given)
        run(device, name, own)
        return {k: device.to_host(own[k]) for k, v in given.items() if isinstance(v, np.ndarray)}

    expected, expected_in_place = run(device, name, arguments), in_place()
    monkeypatch.setattr(library, "is_reversed", True)
    assert_same(run(device, name, arguments), expected)
    assert_same(in_place(), expected_in_place)
