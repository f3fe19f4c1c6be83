"""The stand-in for cuBLAS: what it computes, column by column, and what it refuses."""

from __future__ import annotations

import ctypes
import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.emulation import cublas, execution
from tests.emulation.cublas import tf32
from tests.emulation.module import cupy
from xpnet.kernels.cublas import PROTOTYPES

pytestmark = pytest.mark.emulated

SUCCESS, NOT_INITIALIZED, INVALID_VALUE, NOT_SUPPORTED = 0, 1, 7, 15
TYPES = {"float32": (0, 68, ctypes.c_float), "float64": (1, 70, ctypes.c_double)}


@pytest.fixture
def library():
    return declared()


def declared() -> Any:
    made = cublas.Library()
    for name, arguments in PROTOTYPES.items():
        function = getattr(made, name)
        function.argtypes, function.restype = arguments, ctypes.c_int
    return made


def create(library):
    handle = ctypes.c_void_p()
    assert library.cublasCreate_v2(ctypes.byref(handle)) == SUCCESS
    return handle


@pytest.fixture
def handle(library):
    return create(library)


class Call:
    """A product by C's names, of matrices that follow each other unless told otherwise."""

    def __init__(self, handle, m=2, n=3, k=4, transa=0, transb=0, dtype="float32", count=None):
        self.is_batched = count is not None
        type_, compute, self.scalar = TYPES[dtype]
        rows, columns = ((k, m) if transa else (m, k)), ((n, k) if transb else (k, n))
        self.arrays = {
            name: cupy.zeros((count or 1, *shape), dtype=dtype)
            for name, shape in (("A", rows), ("B", columns), ("C", (m, n)))
        }
        self.given: dict[str, Any] = {
            "handle": handle,
            "transa": transa,
            "transb": transb,
            "m": m,
            "n": n,
            "k": k,
            "alpha": 1.0,
            "A": self.arrays["A"].data.ptr,
            "Atype": type_,
            "lda": max(1, rows[0]),
            "strideA": rows[0] * rows[1],
            "B": self.arrays["B"].data.ptr,
            "Btype": type_,
            "ldb": max(1, columns[0]),
            "strideB": columns[0] * columns[1],
            "beta": 0.0,
            "C": self.arrays["C"].data.ptr,
            "Ctype": type_,
            "ldc": max(1, m),
            "strideC": m * n,
            "batchCount": count,
            "computeType": compute,
            "algo": -1,
        }

    def __call__(self, library, **changed):
        values = {**self.given, **changed}
        for name in ("alpha", "beta"):
            values[name] = ctypes.byref(self.scalar(values[name]))
        if self.is_batched:
            return library.cublasGemmStridedBatchedEx(*values.values())
        only = {"strideA", "strideB", "strideC", "batchCount"}
        return library.cublasGemmEx(*(v for k, v in values.items() if k not in only))


# What is computed.


def reference(a, transa, transb, m, n, k, alpha, A, lda, B, ldb, beta, C, ldc):
    """C = alpha op(A) op(B) + beta C in flat buffers, as BLAS has it, beginning at ``a``."""
    for j, i in itertools.product(range(n), range(m)):
        total = 0.0
        for p in range(k):
            left = A[a[0] + (p + i * lda if transa else i + p * lda)]
            right = B[a[1] + (j + p * ldb if transb else p + j * ldb)]
            total += left * right
        place = a[2] + i + j * ldc
        C[place] = alpha * total + (beta * C[place] if beta else 0.0)


sizes = st.integers(1, 5)
extras = st.integers(0, 3)
numbers = st.sampled_from([0.0, 1.0, -2.0, 0.5])


@settings(max_examples=300)
@given(
    *(sizes for _ in range(3)),
    *(st.booleans() for _ in range(2)),
    *(numbers for _ in range(2)),
    *(st.tuples(extras, extras, extras) for _ in range(2)),
    *(st.tuples(extras, extras, extras) for _ in range(1)),
    st.one_of(st.none(), st.integers(1, 3)),
    st.sampled_from(list(TYPES)),
    st.tuples(st.booleans(), st.booleans()),
)
def test_products_by_the_contract(
    m, n, k, transa, transb, alpha, beta, wider, apart, before, count, dtype, repeated
):
    """Whole numbers, which both sum exactly; beyond the matrices the result stays as it was."""
    library = declared()
    call = Call(create(library), m, n, k, int(transa), int(transb), dtype, count)
    rows = {"A": k if transa else m, "B": n if transb else k, "C": m}
    columns = {"A": m if transa else k, "B": k if transb else n, "C": n}
    changed: dict[str, Any] = {"alpha": alpha, "beta": beta}
    flat, arrays, leading, strides = {}, {}, {}, {}
    rng = np.random.default_rng(0)
    for i, name in enumerate("ABC"):
        leading[name] = rows[name] + wider[i]
        strides[name] = leading[name] * columns[name] + apart[i]
        if name != "C" and repeated[i]:
            strides[name] = 0
        length = before[i] + (count or 1) * leading[name] * columns[name] + 3 * apart[i] + 2
        flat[name] = rng.integers(-9, 10, length).astype(dtype)
        if name == "C" and not beta:
            flat[name][:] = np.nan  # which is not read
        arrays[name] = cupy.asarray(flat[name])
        changed |= {
            name: arrays[name][before[i] :].data.ptr,
            f"ld{name.lower()}": leading[name],
            f"stride{name}": strides[name],
        }
    assert call(library, **changed) == SUCCESS
    for i in range(count or 1):
        places = [b + i * strides[name] for b, name in zip(before, "ABC", strict=True)]
        reference(
            *(places, transa, transb, m, n, k, alpha, flat["A"], leading["A"]),
            *(flat["B"], leading["B"], beta, flat["C"], leading["C"]),
        )
    for name in "ABC":
        np.testing.assert_array_equal(arrays[name].get(), flat[name], err_msg=name)


@pytest.mark.parametrize("count", [None, 3])
def test_nothing_to_compute(library, handle, count):
    for m, n in ((0, 3), (2, 0)):
        assert Call(handle, m, n, count=count)(library) == SUCCESS
    call = Call(handle, k=1, count=count)
    call.arrays["C"].fill(7)
    assert call(library, k=0, beta=2.0) == SUCCESS
    assert (call.arrays["C"].get() == 14).all()
    call.arrays["A"].fill(1)
    call.arrays["B"].fill(1)
    assert call(library, k=0) == SUCCESS
    assert (call.arrays["C"].get() == 0).all()
    if count:
        assert call(library, batchCount=0) == SUCCESS


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (1.0, 1.0),
        (1 + 2.0**-10, 1 + 2.0**-10),
        (1 + 2.0**-11, 1.0),  # ties go to even
        (1 + 3 * 2.0**-11, 1 + 2.0**-9),
        (1 + 2.0**-11 + 2.0**-23, 1 + 2.0**-10),
        (1 + 2.0**-11 - 2.0**-23, 1.0),
        (-1 - 3 * 2.0**-11, -1 - 2.0**-9),
        (2 - 2.0**-11, 2.0),  # into the exponent
        (2.0**-126, 2.0**-126),
        (2.0**-149, 0.0),
        (4095.0, 4096.0),
        (4093.0, 4092.0),
        (float(np.finfo(np.float32).max), np.inf),
        (np.inf, np.inf),
        (-np.inf, -np.inf),
        (np.nan, np.nan),
        (-0.0, -0.0),
    ],
)
def test_tf32(number, expected):
    found = tf32(np.array([number], "float32"))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, np.array([expected], "float32"))
    assert np.signbit(found[0]) == np.signbit(np.float32(expected))


def test_every_kind_of_nan_stays_one():
    bits = np.array([0x7F800001, 0x7FFFFFFF, 0xFF800001, 0xFFFFFFFF], np.uint32)
    assert np.isnan(tf32(bits.view(np.float32))).all()


@given(st.floats(width=32, allow_nan=False, min_value=-(2.0**126), max_value=2.0**126))
def test_tf32_is_the_nearest(number):
    X = np.array([number], "float32")
    found = tf32(X)
    assert not (found.view(np.uint32) & 0x1FFF).any()
    step = np.spacing(np.abs(X)) * 2.0**13
    assert abs(float(found[0]) - float(X[0])) <= step[0] / 2
    np.testing.assert_array_equal(tf32(found), found)


@pytest.mark.parametrize("count", [None, 2])
def test_only_fast_products_round(library, handle, count):
    call = Call(handle, 1, 1, 1, count=count)
    call.arrays["A"].fill(1 + 2.0**-11)
    call.arrays["B"].fill(1 + 2.0**-10)
    for compute, expected in (
        (68, np.float32(1 + 2.0**-11) * np.float32(1 + 2.0**-10)),
        (77, 1 + 2.0**-10),
    ):
        assert call(library, computeType=compute) == SUCCESS
        assert (call.arrays["C"].get() == expected).all()


# Statuses.


@pytest.mark.parametrize("count", [None, 2])
@pytest.mark.parametrize(
    ("transa", "transb", "smallest"),
    [
        (0, 0, {"lda": 2, "ldb": 4, "ldc": 2}),
        (1, 0, {"lda": 4, "ldb": 4, "ldc": 2}),
        (0, 1, {"lda": 2, "ldb": 3, "ldc": 2}),
        (1, 1, {"lda": 4, "ldb": 3, "ldc": 2}),
    ],
)
def test_leading_dimensions_that_are_too_small(library, handle, transa, transb, smallest, count):
    """Of m, n, k = 2, 3, 4."""
    call = Call(handle, transa=transa, transb=transb, count=count)
    assert call(library, **smallest) == SUCCESS
    for name, value in smallest.items():
        for wrong in (value - 1, 0, -1):
            assert call(library, **{**smallest, name: wrong}) == INVALID_VALUE


@pytest.mark.parametrize("count", [None, 2])
@pytest.mark.parametrize(
    "changed", [{"m": -1}, {"n": -1}, {"k": -1}, {"transa": 3}, {"transb": -1}]
)
def test_other_invalid_values(library, handle, changed, count):
    assert Call(handle, count=count)(library, **changed) == INVALID_VALUE


def test_fewer_products_than_none(library, handle):
    assert Call(handle, count=2)(library, batchCount=-1) == INVALID_VALUE


@pytest.mark.parametrize("count", [None, 2])
@pytest.mark.parametrize(
    "changed",
    [
        *({"Atype": 1}, {"Btype": 1}, {"Ctype": 1}, {"Atype": 2, "Btype": 2, "Ctype": 2}),
        *({"computeType": 0}, {"computeType": 70}, {"computeType": 64}, {"algo": 0}, {"algo": 99}),
    ],
)
def test_what_is_not_supported(library, handle, changed, count):
    assert Call(handle, count=count)(library, **changed) == NOT_SUPPORTED


@pytest.mark.parametrize("compute", [68, 77])
def test_float64_is_computed_in_float64(library, handle, compute):
    call = Call(handle, dtype="float64")
    assert call(library) == SUCCESS
    assert call(library, computeType=compute) == NOT_SUPPORTED


def test_a_handle_that_was_not_made(library, handle):
    number, workspace = ctypes.c_int(), cupy.empty(512, "uint8")
    for wrong in (None, 0, handle.value + 1, ctypes.c_void_p()):
        assert library.cublasGetVersion_v2(wrong, ctypes.byref(number)) == NOT_INITIALIZED
        assert library.cublasSetStream_v2(wrong, 0) == NOT_INITIALIZED
        assert library.cublasSetWorkspace_v2(wrong, workspace.data.ptr, 512) == NOT_INITIALIZED
        assert Call(wrong)(library) == NOT_INITIALIZED
        assert Call(wrong, count=2)(library) == NOT_INITIALIZED


def test_handles_are_apart(library, handle):
    other = create(library)
    assert other.value != handle.value
    stream = cupy.cuda.Stream(non_blocking=True)
    assert library.cublasSetStream_v2(other, stream.ptr) == SUCCESS
    assert Call(handle)(library) == SUCCESS


def test_version(library, handle):
    number = ctypes.c_int()
    assert library.cublasGetVersion_v2(handle, ctypes.byref(number)) == SUCCESS
    assert number.value == cublas.VERSION


# Memory, streams and captures.


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("count", [None, 2])
@pytest.mark.parametrize("name", ["A", "B", "C"])
def test_memory_that_was_not_asked_for(library, handle, name, count, dtype):
    call = Call(handle, count=count, dtype=dtype)
    array, given = call.arrays[name], call.given
    end = array.data.ptr + array.nbytes
    for changed in (
        {name: given[name] + array.itemsize},
        {name: end},
        {name: given[name] - array.itemsize},
        {f"ld{name.lower()}": given[f"ld{name.lower()}"] + 1},
    ):
        with pytest.raises(ValueError, match=r"cuBLAS reads or writes|is no address"):
            call(library, **changed)
    if count:
        with pytest.raises(ValueError, match="cuBLAS reads or writes"):
            call(library, **{f"stride{name}": given[f"stride{name}"] + 1})
        with pytest.raises(ValueError, match="a stride of -1"):
            call(library, **{f"stride{name}": -1})
        with pytest.raises(ValueError, match="cuBLAS reads or writes"):
            call(library, batchCount=count + 1)


@pytest.mark.parametrize("name", ["A", "B", "C"])
def test_addresses_between_elements(library, handle, name):
    call = Call(handle)
    wide = cupy.zeros(1000, "float32")
    with pytest.raises(ValueError, match="is not aligned for float32"):
        call(library, **{name: wide.data.ptr + 2})


def test_another_stream_than_the_current_one(library, handle):
    call = Call(handle)
    stream = cupy.cuda.Stream(non_blocking=True)
    library.cublasSetStream_v2(handle, stream.ptr)
    with pytest.raises(RuntimeError, match="another stream than the current one"):
        call(library)
    cupy.cuda.Device().synchronize()
    with stream:
        assert call(library) == SUCCESS
        library.cublasSetStream_v2(handle, None)
        with pytest.raises(RuntimeError, match="another stream than the current one"):
            call(library)
    cupy.cuda.Device().synchronize()
    assert call(library) == SUCCESS


def test_another_device_than_that_of_the_handle(library, handle):
    with cupy.cuda.Device(1), pytest.raises(RuntimeError, match="on another device than its own"):
        Call(handle)(library)


@pytest.fixture
def captured(handle):
    """A stream, a product on it, and a workspace for that, to be captured."""
    workspace = cupy.empty(512, "uint8")
    stream = cupy.cuda.Stream(non_blocking=True)
    call = Call(handle)
    call.arrays["A"].fill(1)
    call.arrays["B"].fill(2)
    cupy.cuda.Device().synchronize()
    return stream, call, workspace


def test_a_capture(library, handle, captured):
    stream, call, workspace = captured
    with stream:
        library.cublasSetStream_v2(handle, stream.ptr)
        library.cublasSetWorkspace_v2(handle, workspace.data.ptr, workspace.nbytes)
        stream.begin_capture()
        assert call(library) == SUCCESS
        made = stream.end_capture()
        assert (call.arrays["C"].get() == 0).all()
        made.launch()
        assert (call.arrays["C"].get() == 8).all()


def test_a_capture_without_workspace(library, handle, captured):
    stream, call, _ = captured
    with stream:
        library.cublasSetStream_v2(handle, stream.ptr)
        stream.begin_capture()
        with pytest.raises(RuntimeError, match="without a workspace while a stream captures"):
            call(library)
        stream.end_capture()


def test_setting_the_stream_forgets_the_workspace(library, handle, captured):
    stream, call, workspace = captured
    with stream:
        library.cublasSetStream_v2(handle, stream.ptr)
        library.cublasSetWorkspace_v2(handle, workspace.data.ptr, workspace.nbytes)
        library.cublasSetStream_v2(handle, stream.ptr)
        stream.begin_capture()
        with pytest.raises(RuntimeError, match="without a workspace while a stream captures"):
            call(library)
        stream.end_capture()


def test_no_handle_is_made_in_a_capture(library):
    stream = cupy.cuda.Stream(non_blocking=True)
    with stream:
        stream.begin_capture()
        with pytest.raises(RuntimeError, match="a handle of cuBLAS made while a stream captures"):
            create(library)
        stream.end_capture()


def test_a_workspace_that_is_none(library, handle):
    memory = cupy.empty(1024, "uint8")
    address = memory.data.ptr
    for start, n_bytes in ((address + 16, 256), (address, 1025), (address + 256, 1024)):
        assert library.cublasSetWorkspace_v2(handle, start, n_bytes) == INVALID_VALUE
    assert library.cublasSetWorkspace_v2(handle, address + 256, 768) == SUCCESS
    with pytest.raises(ValueError, match="is no address"):
        library.cublasSetWorkspace_v2(handle, address + 1024, 1)


def test_a_workspace_that_was_freed(library, handle):
    call = Call(handle)
    workspace = cupy.empty(512, "uint8")
    library.cublasSetWorkspace_v2(handle, workspace.data.ptr, workspace.nbytes)
    assert call(library) == SUCCESS
    del workspace
    with pytest.raises(ValueError, match="is no address"):
        call(library)


def test_a_workspace_of_two_streams(library):
    workspace = cupy.empty(512, "uint8")
    streams = [cupy.cuda.Stream(non_blocking=True) for _ in range(2)]
    calls = [Call(create(library)) for _ in streams]
    cupy.cuda.Device().synchronize()

    def multiply(stream, call):
        with stream:
            library.cublasSetStream_v2(call.given["handle"], stream.ptr)
            library.cublasSetWorkspace_v2(
                call.given["handle"], workspace.data.ptr, workspace.nbytes
            )
            call(library)

    multiply(streams[0], calls[0])
    with pytest.raises(execution.OrderError, match="nothing makes it wait"):
        multiply(streams[1], calls[1])
    streams[1].wait_event(streams[0].record())
    multiply(streams[1], calls[1])


def test_operands_of_another_stream(library, handle):
    call = Call(handle)
    stream = cupy.cuda.Stream(non_blocking=True)
    cupy.cuda.Device().synchronize()
    for name in "ABC":
        with stream:
            call.arrays[name] += 1
        with pytest.raises(execution.OrderError, match="nothing makes it wait"):
            call(library)
        cupy.cuda.Device().synchronize()
    assert call(library) == SUCCESS


# Arguments, which pass through ctypes.


@pytest.mark.parametrize(
    ("changed", "error"),
    [
        *(({name: 2.0}, TypeError) for name in ("m", "n", "k", "transa", "lda", "Ctype", "algo")),
        *(({name: 2.0}, TypeError) for name in ("A", "B", "C", "handle")),
        *(({name: "2"}, TypeError) for name in ("m", "ldb", "computeType")),
        *(({name: None}, TypeError) for name in ("m", "ldc")),
        *(({name: 2**31}, OverflowError) for name in ("m", "n", "k", "lda", "ldb", "ldc")),
        *(({name: -(2**31) - 1}, OverflowError) for name in ("m", "algo")),
        *(({name: 2**64}, OverflowError) for name in ("A", "handle")),
    ],
)
def test_arguments_that_do_not_fit(library, handle, changed, error):
    with pytest.raises(error):
        Call(handle)(library, **changed)


@pytest.mark.parametrize(
    ("changed", "error"),
    [
        *(({name: 2.0}, TypeError) for name in ("strideA", "batchCount")),
        *(({name: 2**63}, OverflowError) for name in ("strideA", "strideB", "strideC")),
        ({"batchCount": 2**31}, OverflowError),
    ],
)
def test_arguments_of_a_batch_that_do_not_fit(library, handle, changed, error):
    with pytest.raises(error):
        Call(handle, count=2)(library, **changed)


def test_too_few_and_too_many_arguments(library, handle):
    for arguments in ((), (handle,), (handle, 0, 0)):
        with pytest.raises(TypeError, match="arguments"):
            library.cublasSetStream_v2(*arguments)
    with pytest.raises(TypeError, match="arguments"):
        library.cublasGemmEx(handle)


def test_functions_without_prototype():
    made = cublas.Library()
    with pytest.raises(TypeError, match="arguments"):
        made.cublasSetStream_v2(1, 0)  # type: ignore[attr-defined]
    made.cublasSetStream_v2.argtypes = (ctypes.c_void_p,) * 2  # type: ignore[attr-defined]
    with pytest.raises(TypeError, match="arguments"):
        made.cublasSetStream_v2(1, 0)  # type: ignore[attr-defined]


def test_every_function_of_the_prototypes(library):
    for name in PROTOTYPES:
        assert callable(getattr(library, name))


def test_calls_are_noted(library, handle):
    call = Call(handle, count=2)
    call(library)
    assert library.calls == []
    library.is_noting = True
    call(library)
    Call(handle)(library, lda=0)  # also what is refused
    batched, single = library.calls
    assert (batched["batchCount"], batched["strideA"], batched["lda"]) == (2, 8, 2)
    assert (single["lda"], single["handle"]) == (0, handle.value)
    assert "batchCount" not in single
    assert (single["alpha"].value, single["beta"].value) == (1, 0)
