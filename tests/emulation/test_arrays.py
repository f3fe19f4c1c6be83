"""The stand-in's ndarray: what CuPy refuses, and where data lie."""

from __future__ import annotations

import copy
import math
import operator
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.emulation.module import cupy, cupyx
from tests.emulation.values import HOST, array, one, same

pytestmark = [pytest.mark.host, pytest.mark.usefixtures("clean")]

CONVERSIONS = {
    "asarray": np.asarray,
    "array": np.array,
    "asarray of a list": lambda x: np.asarray([x, x]),
    "asarray of rows": lambda x: np.asarray(list(x)),
    "asanyarray": np.asanyarray,
    "ascontiguousarray": np.ascontiguousarray,
    "float64": np.float64,
    "frombuffer": np.frombuffer,
    "from_dlpack": np.from_dlpack,
    "memoryview": memoryview,
    "bytes": bytes,
    "bytearray": bytearray,
    "exp": np.exp,
    "add": lambda x: np.add(x, x),
    "add a number": lambda x: np.add(1, x),
    "add to a host array": lambda x: np.add(HOST, x),
    "out": lambda x: np.add(HOST, HOST, out=x),
    "out and device": lambda x: np.add(x, x, out=np.empty_like(HOST)),
    "a ufunc of CuPy's that is no operator": lambda x: np.hypot(np.float32(1), x),
    "reduce": np.add.reduce,
    "accumulate": np.add.accumulate,
    "outer": lambda x: np.multiply.outer(x, x),
    "at": lambda x: np.add.at(x, 0, 1),
    "sum": np.sum,
    "mean": np.mean,
    "where": lambda x: np.where(x, 1, 0),
    "concatenate": lambda x: np.concatenate([HOST, x]),
    "stack": lambda x: np.stack([x, x]),
    "copyto": lambda x: np.copyto(HOST.copy(), x),
    "save": lambda x: np.save("/dev/null", x),
    "allclose": lambda x: np.allclose(x, HOST),
    "testing": lambda x: np.testing.assert_array_equal(x, HOST),
    "shape": np.shape,
    "shares_memory": lambda x: np.shares_memory(x, x),
    "empty_like": np.empty_like,
    "isin": lambda x: np.isin(x, HOST),
    "setitem of a host array": lambda x: HOST.copy().__setitem__(..., x),
    "dot of a host array": lambda x: HOST.T.dot(x),
    "nditer": np.nditer,
    "einsum": lambda x: np.einsum("ij->", x),
    "pickle": pickle.dumps,
    "hash": hash,
    "in": lambda x: 1.0 in x,
    "set": lambda x: {x},
    "index": operator.index,
    "range": range,
    "list index": lambda x: [1, 2][x],
    "attribute": lambda x: setattr(x, "more", 1),
}


@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy")
@pytest.mark.parametrize("convert", CONVERSIONS.values(), ids=CONVERSIONS)
@pytest.mark.parametrize("values", [HOST, HOST > 2, np.arange(2)], ids=["float", "bool", "int"])
def test_no_way_to_host_memory(convert, values):
    with pytest.raises((TypeError, AttributeError, ValueError)) as caught:
        convert(array(values))
    assert caught.type is TypeError or convert in (
        CONVERSIONS["frombuffer"],
        CONVERSIONS["from_dlpack"],
        CONVERSIONS["attribute"],
    )


def test_array_says_what_to_do_instead():
    with pytest.raises(TypeError, match=r"Please use `\.get\(\)`"):
        np.asarray(array())


def test_host_array_takes_no_device_array_as_its_index():
    with pytest.raises((TypeError, IndexError)):
        HOST[array([0, 1])]


def test_host_interfaces_are_not_there():
    for name in ("__array_interface__", "__array_struct__", "__dlpack__", "__index__", "tobytes"):
        assert not hasattr(array(), name)
    assert not any(isinstance(value, np.ndarray) for value in vars(type(array())).values())
    public = [name for name in dir(array().data.mem) if not name.startswith("_")]
    assert not any(isinstance(getattr(array().data.mem, name), np.ndarray) for name in public)


WAITING = {
    "float": (float, 1.5),
    "int": (int, 1),
    "bool": (bool, True),
    "not": (operator.not_, False),
    "complex": (complex, 1.5 + 0j),
    "item": (lambda x: x.item(), 1.5),
    "tolist": (lambda x: x.tolist(), 1.5),
    "get": (lambda x: x.get(), 1.5),
    "asnumpy": (cupy.asnumpy, 1.5),
    "str": (str, "1.5"),
    "repr": (repr, "array(1.5, dtype=float32)"),
    "format": (lambda x: f"{x:.3f}", "1.500"),
    "percent": (lambda x: "%.1f" % x, "1.5"),  # noqa: UP031
    "math": (math.floor, 1),
    "comparison": (lambda x: 1 if x > 1 else 0, 1),
    "mask": (lambda x: x.reshape(1)[cupy.ones(1, bool)].get(), 1.5),
}


@pytest.mark.parametrize(("read", "expected"), WAITING.values(), ids=WAITING)
def test_reading_waits_for_the_device(read, expected):
    x = one()
    assert read(x) == expected
    with cupyx.allow_synchronize(False):
        with pytest.raises(cupyx.DeviceSynchronized, match="waits for the device"):
            read(x)
        with cupyx.allow_synchronize(True):
            assert read(x) == expected
    assert read(x) == expected


def test_printing_waits_for_the_device(capsys):
    with cupyx.allow_synchronize(False), pytest.raises(cupyx.DeviceSynchronized):
        print(array())  # noqa: T201
    assert capsys.readouterr().out == ""


def test_allow_synchronize_warns_as_cupys_does():
    with pytest.warns(UserWarning, match="will be removed"), cupyx.allow_synchronize(False):
        pass


def test_what_is_no_single_number():
    with pytest.raises(ValueError, match="array of size 1"):
        array().item()
    with pytest.raises(ValueError, match="ambiguous"):
        bool(array())
    with pytest.raises(ValueError, match="ambiguous"):
        bool(array([]))  # CuPy warns
    with pytest.raises(TypeError):
        float(array())
    with pytest.raises(TypeError, match="0-d"):
        iter(one())
    with pytest.raises(TypeError):
        len(one())


def test_writing_a_mask_waits_as_well():
    x, mask = array(), array(HOST > 2)
    x[mask] = 0
    same(x, np.where(HOST > 2, 0, HOST).astype(np.float32))
    with cupyx.allow_synchronize(False):
        with pytest.raises(cupyx.DeviceSynchronized):
            x[mask] = 1
        with pytest.raises(cupyx.DeviceSynchronized):
            x[mask]
        cupy.zeros((0, 3))[cupy.zeros(0, bool)]  # empty: nothing to wait for
    with pytest.raises(IndexError):
        x[cupy.ones(3, bool)]
    with pytest.raises(ValueError, match="broadcast"):
        x[mask] = array([1, 2])


KEYS = {
    "int": 1,
    "negative": -1,
    "NumPy int": np.int64(1),
    "slice": slice(1, None),
    "step": (slice(None), slice(None, None, -2)),
    "empty": slice(5, 9),
    "None": None,
    "Ellipsis": ...,
    "tuple": (1, 2),
    "nothing": (),
    "all": (None, ..., 1, None),
    "ellipsis and int": (..., 0),
    "int and ellipsis": (0, ..., 1),
}


@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
def test_basic_keys_view(key):
    x, host = array(), HOST.copy()
    view = x[key]
    same(view, host[key])
    assert view.data.mem is x.data.mem
    assert (
        view.strides
        == host[(*key, ...) if isinstance(key, tuple) and ... not in key else key].strides
        or view.size <= 1
    )
    x[key] = 7
    host[key] = 7
    same(x, host)
    same(view, host[key])
    x[key] = cupy.full(view.shape, 8, "float64")
    host[key] = 8
    same(x, host)
    if view.ndim:
        view.fill(9)
        host[key] = 9
        same(x, host)


@pytest.mark.parametrize(
    "indices", [[0, 1], [1, 1, 0], [[0, -1], [1, 0]], 1], ids=["1-d", "twice", "2-d", "0-d"]
)
def test_device_indices_copy(indices):
    x, key = array(), np.array(indices)
    found = x[array(key)]
    same(found, HOST[key])
    assert found.data.mem is not x.data.mem
    same(x[:, array([0, 2])], HOST[:, [0, 2]])
    same(x[array([0, 1]), array([2, 0])], HOST[[0, 1], [2, 0]])
    host = HOST.copy()
    x[array(key)] = 5
    host[key] = 5
    same(x, host)


@pytest.mark.parametrize(
    "key",
    [
        *([0], [True, False], np.array([0]), np.array(0), np.array([True, False]), (0, [1])),
        *(1.0, "0", True, np.bool_(True), (0, (1, 2)), np.float32(1)),
    ],
    ids=repr,
)
def test_indices_that_would_be_copied_to_the_device(key):
    x = array()
    with pytest.raises(TypeError, match="index"):
        x[key]
    with pytest.raises(TypeError, match="index"):
        x[key] = 0


def test_wrong_indices():
    x = array()
    for key in (2, (0, 0, 0), (..., ...), array([0.5]), array([2]), array([-3])):
        with pytest.raises(IndexError):
            x[key]
        with pytest.raises(IndexError):
            x[key] = 0


@pytest.mark.parametrize("value", [HOST, HOST[0], np.array([1.0]), [1, 2, 3], (1,), None, "1"])
@pytest.mark.parametrize("key", [..., slice(None), 0, "mask", "indices"])
def test_values_that_would_be_copied_to_the_device(key, value):
    x = array()
    key = (
        {"mask": array(HOST > 2), "indices": array([0])}.get(key, key)
        if isinstance(key, str)
        else key
    )
    with pytest.raises(TypeError, match="Unsupported type"):
        x[key] = value
    same(x, HOST)
    with pytest.raises(TypeError, match="Unsupported type"):
        x.fill(value)


def test_assignment():
    x = array()
    x[...] = array([1, 2, 3])  # broadcasts and converts
    same(x, np.array([[1, 2, 3]] * 2, np.float32))
    x[:, ::-1] = x.copy()
    same(x, np.array([[3, 2, 1]] * 2, np.float32))
    x[0] = np.float64(2.5)
    x[1] = one(4)
    same(x, np.array([[2.5] * 3, [4] * 3], np.float32))
    with pytest.raises(ValueError, match="broadcast"):
        x[0] = array([1, 2])
    with pytest.raises(ValueError, match="dimensions"):
        x[0] = array()
    with pytest.raises(ValueError, match="broadcast"):
        x[array([0])] = array([1, 2])
    with pytest.raises(OverflowError):
        array([1], "uint8")[0] = 300
    with pytest.raises(ValueError, match="non-scalar"):
        x.fill(array([1.0]))
    x.fill(one(6))
    assert x[1, 2].item() == 6


def test_indices_that_come_twice():
    x = array()
    x[array([1, 1])] = 5  # in any order
    with pytest.raises(ValueError, match="twice"):
        x[array([1, 1])] = array([[1], [2]])
    with pytest.raises(ValueError, match="twice"):
        x[array([0, 0]), array([2, 2])] += 1
    x[array([0, 0]), array([1, 2])] += 1
    same(x, np.array([[0, 2, 3], [5, 5, 5]], np.float32))


def test_views_of_one_element_are_no_numbers():
    x = array()
    element = x[1, 2]
    assert isinstance(element, cupy.ndarray)
    element += 1
    assert x[1, 2].item() == 6


def test_views_share_memory_and_copies_do_not():
    x = array()
    views = [
        x.T,
        x.transpose(1, 0),
        x.swapaxes(0, 1),
        x.reshape(3, 2),
        x.reshape((3, -1)),
        x.ravel(),
    ]
    views += [x[None], x.view("int32"), cupy.broadcast_to(x, (4, 2, 3)), cupy.asarray(x)]
    views += [cupy.ascontiguousarray(x), x.astype("float32", copy=False)]
    copies = [x.copy(), copy.copy(x), copy.deepcopy(x), x.T.reshape(6), x.T.ravel(), cupy.array(x)]
    copies += [x.astype("float32"), cupy.ascontiguousarray(x.T), x + 0, cupy.asarray(x, "float64")]
    assert all(view.data.mem is x.data.mem for view in views)
    assert all(other.data.mem is not x.data.mem for other in copies)
    same(x.T.reshape(6), HOST.T.reshape(6))
    same(x.T.ravel(), HOST.T.ravel())
    with pytest.raises(ValueError, match="reshape"):
        x.reshape(5)
    with pytest.raises(ValueError, match="Unsupported dtype"):
        x.view("S4")


def test_views_of_other_views():
    x = array(np.arange(24.0).reshape(2, 3, 4))
    host = x.get()
    view, own = x[:, 1:, ::-2], host[:, 1:, ::-2]
    assert view.data.ptr - x.data.ptr == own.ctypes.data - host.ctypes.data
    assert view.strides == own.strides
    assert (view.flags.c_contiguous, view.flags.f_contiguous) == (False, False)
    same(view.T.copy(), own.T)
    same(view.reshape(-1), own.reshape(-1))


def test_a_broadcast_is_not_written_to():
    x = cupy.broadcast_to(array([1.0]), (3,))
    with pytest.raises(ValueError, match="read-only"):
        x += 1
    with pytest.raises(ValueError, match="read-only"):
        x.fill(1)


def test_broadcast_needs_a_device_array():
    with pytest.raises((TypeError, AttributeError)):
        cupy.broadcast_to(HOST, (2, 2, 3))


@given(st.permutations(range(3)), st.tuples(*[st.integers(0, 3)] * 3), st.booleans())
def test_copies_keep_the_order_of_axes(axes, shape, is_cut):
    host = np.zeros((*shape[:2], 2 * shape[2]), np.float32)
    host = (host[:, :, ::2] if is_cut else host).transpose(axes)
    x = cupy.zeros((*shape[:2], 2 * shape[2]), np.float32)
    x = (x[:, :, ::2] if is_cut else x).transpose(axes)
    assert x.shape == host.shape
    for found, expected in (
        (cupy.empty_like(x), np.empty_like(host)),
        (x.astype("f8"), host.astype("f8")),
    ):
        flags = expected.flags
        assert found.flags.c_contiguous == flags.c_contiguous
        assert found.flags.f_contiguous == flags.f_contiguous
        long = [n for n in range(3) if host.shape[n] > 1]
        if host.size:
            assert [found.strides[n] for n in long] == [expected.strides[n] for n in long]
    assert x.copy().flags.c_contiguous


def test_host_arrays_keep_their_order():
    assert array(HOST.T).flags.f_contiguous  # core.pyx, _array_default
    assert not array(HOST.T).flags.c_contiguous
    assert array(HOST[:, ::2]).flags.c_contiguous
    same(array(HOST.T), HOST.T)
    same(array(HOST.astype(">f4")), HOST)


def test_set_and_get():
    x = cupy.empty((2, 3), "float32")
    source = HOST.copy()
    x.set(source)
    source[:] = 0
    same(x, HOST)
    assert x.get() is not x.get()
    x.get()[:] = 0
    same(x, HOST)
    for wrong, kind, message in (
        (HOST.tolist(), TypeError, "Only numpy.ndarray"),
        (array(), TypeError, "Only numpy.ndarray"),
        (HOST.astype("f8"), TypeError, "float64 array cannot be set to float32"),
        (HOST.T, ValueError, "Shape mismatch"),
    ):
        with pytest.raises(kind, match=message):
            x.set(wrong)
    with pytest.raises(RuntimeError, match="non-contiguous"):
        x[:, ::2].set(HOST[:, ::2])
    x.T.set(HOST.T)
    same(x, HOST)


def test_making_arrays():
    assert cupy.asarray(array()).dtype == "float32"
    x = array()
    assert cupy.asarray(x) is x
    with pytest.raises(ValueError, match="avoid copy"):
        cupy.array(x, "float64", copy=False)
    with pytest.raises(TypeError, match="stack"):
        cupy.array([x, x])
    with pytest.raises(TypeError):
        cupy.array([[x], [x]])
    for dtype in ("object", "U1", "datetime64[s]", "longdouble"):
        with pytest.raises(ValueError, match="Unsupported dtype"):
            cupy.empty(2, dtype)
        with pytest.raises(ValueError, match="Unsupported dtype"):
            x.astype(dtype)
    with pytest.raises(ValueError, match="Negative"):
        cupy.empty(-1)
    assert cupy.ascontiguousarray(one()).shape == (1,)
    assert cupy.asnumpy(HOST) is HOST


@pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0), (2, 0, 3)])
def test_zero_size(shape):
    x, host = cupy.empty(shape, "float32"), np.empty(shape, np.float32)
    assert x.__cuda_array_interface__["data"] == (0, False)
    same(x + 1, host + 1)
    same(x.T, host.T)
    same(x.reshape(-1), host.reshape(-1))
    same(x.sum(), host.sum())
    same(x.all(), host.all())
    same(x[..., :1], host[..., :1])
    same(cupy.array(host), host)
    x[...] = 1
    assert x.tolist() == host.tolist()
    with pytest.raises(ValueError, match="zero-size"):
        x.max()
    with cupyx.allow_synchronize(False):
        x.get()  # core.pyx, _ndarray_base.get


def test_cuda_array_interface():
    x = array()
    found = x.T.__cuda_array_interface__
    assert found == {
        "shape": (3, 2),
        "typestr": "<f4",
        "descr": [("", "<f4")],
        "stream": 1,
        "version": 3,
        "strides": (4, 12),
        "data": (x.data.ptr, False),
    }
    assert x.__cuda_array_interface__["strides"] is None
    with cupy.cuda.Stream() as stream:
        assert x.__cuda_array_interface__["stream"] == stream.ptr


MIXED = {
    "add": lambda x, y: x + y,
    "in place": lambda x, y: operator.iadd(x, y),
    "out": lambda x, y: cupy.add(x, x, out=y),
    "assign": lambda x, y: x.__setitem__(..., y),
    "take": lambda x, y: cupy.take(x, y.astype(int)),
    "index": lambda x, y: x[y.view("int32")],
    "where": lambda x, y: cupy.where(x > 0, x, y),
    "matmul": lambda x, y: cupy.matmul(x, y.T),
    "stack": lambda x, y: cupy.stack([x, y]),
    "elsewhere": lambda x, y: y + 1,
    "sum": lambda x, y: y.sum(),
    "fill": lambda x, y: y.fill(1),
    "get": lambda x, y: y.get(),
    "copy": lambda x, y: y.copy(),
    "asarray": lambda x, y: cupy.asarray(y),  # CuPy copies between the devices
    "array": lambda x, y: cupy.array(y),
    "set": lambda x, y: y.set(HOST),
}


@pytest.mark.parametrize("work", MIXED.values(), ids=MIXED)
def test_arrays_of_another_device(work):
    x = array()
    with cupy.cuda.Device(1):
        y = array(np.zeros_like(HOST))
        assert y.device == cupy.cuda.Device(1)
        same(y + 1, np.ones_like(HOST))
    with pytest.raises(ValueError, match=r"device"):
        work(x, y)
    same(x, HOST)
