"""How cuBLAS is found and called, with a library in its place that notes what it is given."""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from tests.emulation.kernels import compiler
from tests.emulation.module import cupy
from xpnet.kernels import cublas

pytestmark = pytest.mark.host

# The functions as cublas_api.h of CUDA 13 declares them, enumerations as int.
SOURCE = """
#include <cstddef>
#define EXPORTED extern "C" __attribute__((visibility("default")))

EXPORTED int version = 130000, status = 0, n_created = 0, n_noted = 0;
EXPORTED long long noted[32] = {};
EXPORTED double scalars[2] = {};
EXPORTED const char* called = "";

static void start(const char* name) { called = name; n_noted = 0; }
static void note(long long value) { noted[n_noted++] = value; }
static void note(const void* value) { note(reinterpret_cast<long long>(value)); }
static void read_scalars(int type, const void* alpha, const void* beta) {
    scalars[0] = type ? *static_cast<const double*>(alpha) : *static_cast<const float*>(alpha);
    scalars[1] = type ? *static_cast<const double*>(beta) : *static_cast<const float*>(beta);
}

EXPORTED int cublasCreate_v2(void** handle) {
    *handle = reinterpret_cast<void*>(0x123456789abcLL + n_created++);
    return status;
}
EXPORTED int cublasGetVersion_v2(void* handle, int* number) {
    start("version"); note(handle);
    *number = version;
    return status;
}
EXPORTED int cublasSetStream_v2(void* handle, void* stream) {
    start("stream"); note(handle); note(stream);
    return status;
}
EXPORTED int cublasSetWorkspace_v2(void* handle, void* workspace, size_t n_bytes) {
    start("workspace"); note(handle); note(workspace); note((long long) n_bytes);
    return status;
}
EXPORTED int cublasGemmEx(
    void* handle, int transa, int transb, int m, int n, int k, const void* alpha,
    const void* A, int Atype, int lda, const void* B, int Btype, int ldb,
    const void* beta, void* C, int Ctype, int ldc, int computeType, int algo
) {
    start("product");
    read_scalars(Ctype, alpha, beta);
    note(handle); note(transa); note(transb); note(m); note(n); note(k);
    note(A); note(Atype); note(lda);
    note(B); note(Btype); note(ldb);
    note(C); note(Ctype); note(ldc);
    note(computeType); note(algo);
    return status;
}
#ifndef WITHOUT_BATCHES
EXPORTED int cublasGemmStridedBatchedEx(
    void* handle, int transa, int transb, int m, int n, int k, const void* alpha,
    const void* A, int Atype, int lda, long long strideA,
    const void* B, int Btype, int ldb, long long strideB,
    const void* beta, void* C, int Ctype, int ldc, long long strideC,
    int batchCount, int computeType, int algo
) {
    start("products");
    read_scalars(Ctype, alpha, beta);
    note(handle); note(transa); note(transb); note(m); note(n); note(k);
    note(A); note(Atype); note(lda); note(strideA);
    note(B); note(Btype); note(ldb); note(strideB);
    note(C); note(Ctype); note(ldc); note(strideC);
    note(batchCount); note(computeType); note(algo);
    return status;
}
#endif
"""
HANDLE = 0x123456789ABC


class Noting:
    """The library, what it says, and what it was given."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.found: Any = ctypes.CDLL(path)
        self.say(version=130_000, status=0, n_created=0)

    def say(self, **values: int) -> None:
        for name, value in values.items():
            ctypes.c_int.in_dll(self.found, name).value = value

    @property
    def called(self) -> bytes | None:
        return ctypes.c_char_p.in_dll(self.found, "called").value

    @property
    def noted(self) -> list[int]:
        n = ctypes.c_int.in_dll(self.found, "n_noted").value
        return list((ctypes.c_longlong * 32).in_dll(self.found, "noted"))[:n]

    @property
    def scalars(self) -> list[float]:
        return list((ctypes.c_double * 2).in_dll(self.found, "scalars"))


@pytest.fixture(scope="module")
def build(tmp_path_factory):
    """Compile the library, which is loaded again for every name."""
    command = compiler()
    if command is None or sys.platform == "win32":
        pytest.skip("there is no C++ compiler")
    folder = tmp_path_factory.mktemp("cublas")
    source = folder / "cublas.cpp"
    source.write_text(SOURCE, encoding="utf-8")

    def build(name, *options):
        target = folder / f"{name}.so"
        if not target.exists():
            arguments = ["-shared", "-fPIC", *options, str(source), "-o", str(target)]
            subprocess.run([*command, *arguments], check=True)
        return str(target)

    return build


@pytest.fixture
def noting(build):
    return Noting(build("whole"))


@pytest.fixture
def library(noting):
    return cublas._Library(noting.found)


def message(text):
    return f"^{re.escape(text)}$"


# Loading.


def test_a_function_is_missing(build):
    lacking = ctypes.CDLL(build("lacking", "-DWITHOUT_BATCHES"))
    with pytest.raises(
        cublas.CublasError,
        match=r"^cuBLAS lacks the function cublasGemmStridedBatchedEx: .*BatchedEx",
    ):
        cublas._Library(lacking)


@pytest.mark.parametrize("name", cublas.PROTOTYPES)
def test_each_function_is_needed(noting, name):
    others = [other for other in cublas.PROTOTYPES if other != name]
    lacking = SimpleNamespace(**{other: getattr(noting.found, other) for other in others})
    with pytest.raises(cublas.CublasError, match=f"^cuBLAS lacks the function {name}: "):
        cublas._Library(lacking)


def test_an_old_version(noting, library):
    noting.say(version=119_999)
    for _ in range(2):  # and it is not kept
        with pytest.raises(
            cublas.CublasError,
            match=message("cuBLAS must be 120000 (CUDA 12) or newer, got 119999"),
        ):
            library.handle(0)
    noting.say(version=120_000)
    assert library.handle(0).value == HANDLE + 2


def test_a_handle_for_each_device(noting, library):
    first, second = library.handle(0), library.handle(1)
    assert (first.value, second.value) == (HANDLE, HANDLE + 1)
    assert library.handle(0) is first
    assert library.handle(1) is second
    assert noting.noted == [HANDLE + 1]  # whose version was asked for


def test_cublas_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "cuda.pathfinder", None)
    with pytest.raises(
        cublas.CublasError, match=r"^cuBLAS cannot be loaded: .*cuda\.pathfinder"
    ) as caught:
        cublas.load()
    assert isinstance(caught.value.__cause__, ImportError)


def with_pathfinder(monkeypatch, load_nvidia_dynamic_lib):
    finder = SimpleNamespace(load_nvidia_dynamic_lib=load_nvidia_dynamic_lib)
    monkeypatch.setitem(sys.modules, "cuda.pathfinder", finder)


def test_cublas_is_not_found(monkeypatch):
    class DynamicLibNotFoundError(RuntimeError):  # as cuda.pathfinder's
        pass

    def find(name):
        raise DynamicLibNotFoundError(f"no lib{name}.so anywhere")

    with_pathfinder(monkeypatch, find)
    with pytest.raises(
        cublas.CublasError, match=message("cuBLAS cannot be loaded: no libcublas.so anywhere")
    ):
        cublas.load()


def test_what_is_found_is_no_library(monkeypatch, tmp_path):
    file = tmp_path / "libcublas.so"
    with_pathfinder(monkeypatch, lambda name: SimpleNamespace(abs_path=str(file)))
    for content in (None, "no library"):
        if content is not None:
            file.write_text(content, encoding="utf-8")
        with pytest.raises(cublas.CublasError, match=r"^cuBLAS cannot be loaded: .*libcublas\.so"):
            cublas.load()


def test_cublas_is_found(monkeypatch, noting, tmp_path):
    asked = []
    own = shutil.copy(noting.path, tmp_path / "libcublas.so")

    def find(name):
        asked.append(name)
        return SimpleNamespace(abs_path=str(own))

    with_pathfinder(monkeypatch, find)
    library = cublas._Library(cublas.load())
    assert asked == ["cublas"]
    assert library.handle(0).value == HANDLE


# Statuses.


@pytest.mark.parametrize(
    ("status", "name"),
    [
        (1, "CUBLAS_STATUS_NOT_INITIALIZED"),
        (3, "CUBLAS_STATUS_ALLOC_FAILED"),
        (7, "CUBLAS_STATUS_INVALID_VALUE"),
        (8, "CUBLAS_STATUS_ARCH_MISMATCH"),
        (11, "CUBLAS_STATUS_MAPPING_ERROR"),
        (13, "CUBLAS_STATUS_EXECUTION_FAILED"),
        (14, "CUBLAS_STATUS_INTERNAL_ERROR"),
        (15, "CUBLAS_STATUS_NOT_SUPPORTED"),
        (16, "CUBLAS_STATUS_LICENSE_ERROR"),
        (99, "status 99"),
        (-1, "status -1"),
    ],
)
def test_a_call_that_fails(noting, library, status, name):
    noting.say(status=status)
    with pytest.raises(cublas.CublasError, match=message(f"cublasSetStream_v2: {name}")):
        library.cublasSetStream_v2(HANDLE, 0)
    with pytest.raises(cublas.CublasError, match=message(f"cublasCreate_v2: {name}")):
        library.handle(0)
    noting.say(status=0)
    library.cublasSetStream_v2(HANDLE, 0)


def test_a_product_that_fails(noting, multiply):
    """The lock is free again."""
    a = cupy.ones((3, 3), dtype="float32")
    multiply(a, a)
    noting.say(status=13)
    for _ in range(2):
        with pytest.raises(
            cublas.CublasError, match=message("cublasSetStream_v2: CUBLAS_STATUS_EXECUTION_FAILED")
        ):
            multiply(a, a)
    noting.say(status=0)
    multiply(a, a)


# Arguments.


def test_the_arguments_of_a_product(noting, library):
    alpha, beta = ctypes.c_float(2.5), ctypes.c_float(-3)
    address, other, third = 2**47 + 1, 2**46 + 3, 2**45 + 7
    library.cublasGemmEx(
        *(HANDLE, 0, 1, 2**31 - 1, 12, 13, ctypes.byref(alpha)),
        *(address, 0, 15, other, 0, 17),
        *(ctypes.byref(beta), third, 0, 19, 77, -1),
    )
    assert noting.called == b"product"
    assert noting.scalars == [2.5, -3]
    assert noting.noted == [
        *(HANDLE, 0, 1, 2**31 - 1, 12, 13, address, 0, 15, other, 0, 17, third, 0, 19, 77, -1)
    ]


def test_the_arguments_of_several_products(noting, library):
    alpha, beta = ctypes.c_double(1 / 3), ctypes.c_double(1e300)
    address, other, third = 2**47 + 1, 2**46 + 3, 2**45 + 7
    library.cublasGemmStridedBatchedEx(
        *(HANDLE, 1, 0, 11, 12, 13, ctypes.byref(alpha)),
        *(address, 1, 15, 2**40 + 1, other, 1, 17, 2**41 + 1),
        *(ctypes.byref(beta), third, 1, 19, 2**42 + 1, 20, 70, -1),
    )
    assert noting.called == b"products"
    assert noting.scalars == [1 / 3, 1e300]
    assert noting.noted == [
        *(HANDLE, 1, 0, 11, 12, 13, address, 1, 15, 2**40 + 1, other, 1, 17, 2**41 + 1),
        *(third, 1, 19, 2**42 + 1, 20, 70, -1),
    ]


def test_the_arguments_of_the_other_functions(noting, library):
    library.cublasSetStream_v2(HANDLE, 2**47 + 5)
    assert (noting.called, noting.noted) == (b"stream", [HANDLE, 2**47 + 5])
    library.cublasSetWorkspace_v2(HANDLE, 2**47 + 9, 2**33)
    assert (noting.called, noting.noted) == (b"workspace", [HANDLE, 2**47 + 9, 2**33])


def test_numbers_are_not_taken_for_each_other(library):
    with pytest.raises(ctypes.ArgumentError):
        library.cublasSetWorkspace_v2(HANDLE, 0, 1.5)
    with pytest.raises(ctypes.ArgumentError):
        library.cublasSetStream_v2(HANDLE, 1.5)
    with pytest.raises(TypeError, match="3 arguments"):
        library.cublasSetWorkspace_v2(HANDLE, 0)


@pytest.fixture
def multiply(library, monkeypatch):
    """The operation, on arrays of the stand-in, through ctypes."""
    monkeypatch.setattr(cublas, "_library", lambda: library)
    return cublas.Products(cupy)


@pytest.mark.parametrize(("dtype", "type_", "compute"), [("float32", 0, 68), ("float64", 1, 70)])
def test_a_product_of_arrays(noting, multiply, dtype, type_, compute):
    """m, k, n = 5, 7, 3 of C = A B, which is asked for as C' = B' A'."""
    a, b = cupy.ones((5, 7), dtype=dtype), cupy.ones((3, 8), dtype=dtype)[:, :7].T
    out = multiply(a, b)
    assert noting.called == b"product"
    assert noting.scalars == [1, 0]
    assert noting.noted == [
        *(HANDLE, 1, 0, 3, 5, 7, b.data.ptr, type_, 8, a.data.ptr, type_, 7),
        *(out.data.ptr, type_, 3, compute, -1),
    ]


def test_a_stack_of_arrays(noting, multiply):
    a, b = cupy.ones((4, 7, 5), dtype="float32").swapaxes(1, 2), cupy.ones((7, 3), dtype="float32")
    out = multiply(a, b)
    assert noting.called == b"products"
    assert noting.noted == [
        *(HANDLE, 0, 1, 3, 5, 7, b.data.ptr, 0, 3, 0, a.data.ptr, 0, 5, 35),
        *(out.data.ptr, 0, 3, 15, 4, 68, -1),
    ]


@pytest.mark.parametrize("n", [2**31 - 1, 2**31])
def test_leading_dimensions_that_c_has_no_int_for(n):
    apart = SimpleNamespace(shape=(2, 3), strides=(4 * n, 4), itemsize=4)
    transposed = SimpleNamespace(shape=(3, 2), strides=(4, 4 * n), itemsize=4)
    fits = n < 2**31
    assert cublas._layout(apart) == ((0, n) if fits else None)
    assert cublas._layout(transposed) == ((1, n) if fits else None)


def test_version(noting, library, monkeypatch):
    monkeypatch.setattr(cublas, "_library", lambda: library)
    noting.say(version=130_102)
    assert cublas.version(cupy) == 130_102


def test_cublas_is_loaded_once(noting, monkeypatch):
    loads = iter([noting.found])
    monkeypatch.setattr(cublas, "load", lambda: next(loads))
    cublas._library.cache_clear()
    try:
        a = cupy.ones((3, 3), dtype="float32")
        for _ in range(2):
            cublas.Products(cupy)(a, a)
        assert ctypes.c_int.in_dll(noting.found, "n_created").value == 1
    finally:
        cublas._library.cache_clear()
