"""Choosing a device, honest errors, and the border between streams."""

from __future__ import annotations

import contextlib
import copy
import pickle
import re
import sys
import types
import warnings

import numpy as np
import pytest

import xpnet
from tests.fake_cuda import FakeCuda, FakeRuntime, FakeStream
from xpnet import device as make_device
from xpnet.device import format_bytes
from xpnet.kernels import cublas, cuda_check, host
from xpnet.kernels.reference import NumpyOps


@pytest.fixture
def fake_cupy(monkeypatch):
    """Install a module ``cupy`` with a runtime that answers as the test wants."""

    def install(
        n_devices=1,
        version=13020,
        capability="90",
        error=None,
        no_library=None,
        no_own_library=None,
    ):
        def own_library(cupy, problem):
            assert cupy is module
            if problem:
                raise problem
            return 130_000

        def matmul(A, B):
            if no_library:
                raise no_library
            return A @ B

        module = types.ModuleType("cupy")
        module.__dict__.update(ones=np.ones, matmul=matmul, asnumpy=np.asarray)
        module.__version__ = "14.2.0"  # type: ignore[attr-defined]
        module.cuda = FakeCuda(FakeRuntime(n_devices, version, error), capability)  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "cupy", module)
        monkeypatch.setattr(cublas, "version", lambda cupy: own_library(cupy, no_own_library))
        return module

    return install


@pytest.fixture
def no_cupy(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)


@pytest.fixture
def driver(monkeypatch):
    """Set what the NVIDIA driver answers."""

    def install(answer):
        monkeypatch.setattr(cuda_check, "_nvidia_driver", lambda: answer)

    return install


def test_cpu_is_the_default(monkeypatch):
    monkeypatch.delenv("XPNET_DEVICE", raising=False)
    found = make_device()
    assert (found.name, found.xp, found.stream) == ("cpu", np, None)
    assert isinstance(found.ops, NumpyOps)


@pytest.fixture
def built(monkeypatch):
    """Pretend that the host kernels are there, or are not."""

    def install(problem):
        monkeypatch.setattr(host, "problem", lambda: problem)
        monkeypatch.setattr(host, "fused", lambda: {"relu": np.abs})
        monkeypatch.setattr(host, "shared", dict)

    monkeypatch.delenv("XPNET_KERNELS", raising=False)
    return install


def test_fused_where_they_were_built(built):
    built(None)
    found = make_device("cpu")
    assert found.kernels == "fused"
    assert found.ops.fused == {"relu"}
    built("not built: no compiler")
    found = make_device("cpu")
    assert (found.kernels, found.ops.fused) == ("reference", frozenset())


def test_the_environment_chooses_kernels(built, monkeypatch):
    built(None)
    monkeypatch.setenv("XPNET_KERNELS", "reference")
    assert make_device("cpu").kernels == "reference"
    assert make_device("cpu", kernels="fused").kernels == "fused"
    monkeypatch.setenv("XPNET_KERNELS", "fused")
    assert make_device("cpu").kernels == "fused"
    assert make_device("cpu", kernels="reference").ops.fused == frozenset()


def test_fused_by_name_where_there_are_none(built, monkeypatch):
    built("not built: no compiler")
    with pytest.raises(xpnet.DeviceUnavailableError) as error:
        make_device("cpu", kernels="fused")
    assert str(error.value) == "kernels=fused: the host kernels are not built: no compiler"
    monkeypatch.setenv("XPNET_KERNELS", "fused")
    with pytest.raises(xpnet.DeviceUnavailableError, match=r"^XPNET_KERNELS=fused: the host ker"):
        make_device("cpu")


def test_unknown_kernels(monkeypatch):
    with pytest.raises(ValueError, match=r"^kernels must be 'fused' or 'reference', got 'fast'"):
        make_device("cpu", kernels="fast")
    monkeypatch.setenv("XPNET_KERNELS", "Fused")
    with pytest.raises(ValueError, match=r"^XPNET_KERNELS must be 'fused' or 'reference'"):
        make_device("cpu")


def test_other_kernels_for_a_device(built):
    built(None)
    fused = make_device("cpu", "fused")
    assert make_device(fused) is fused
    assert make_device(fused, "fused") is fused
    assert make_device(fused, "reference").kernels == "reference"
    with pytest.raises(ValueError, match=r"^kernels must be"):
        make_device(fused, "fast")


@pytest.mark.parametrize("set_to", ["", "fused", "reference"])
def test_a_device_keeps_its_kernels(built, monkeypatch, set_to):
    built(None)
    monkeypatch.setenv("XPNET_KERNELS", set_to)
    for kernels in ("fused", "reference"):
        found = make_device("cpu", kernels)
        assert pickle.loads(pickle.dumps(found)).kernels == kernels
        assert copy.deepcopy(found) is found
    fused = pickle.dumps(make_device("cpu", "fused"))
    built("not built: no compiler")
    assert pickle.loads(fused).kernels == "reference"


@pytest.mark.parametrize("kernels", ["fused", "reference"])
def test_kernels_of_a_gpu(fake_cupy, kernels):
    fake_cupy()
    found = make_device("cuda", kernels)
    assert found.kernels == kernels
    assert bool(found.ops.fused) == (kernels == "fused")


def test_no_cublas_of_our_own(fake_cupy):
    fake_cupy(no_own_library=cublas.CublasError("cuBLAS cannot be loaded: there is none"))
    with pytest.raises(
        xpnet.DeviceUnavailableError,
        match=r"cannot compute on cuda:0 \(cuBLAS cannot be loaded: there is none\); if a CUDA",
    ):
        xpnet.device("cuda")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"capability": "75"}, "=tf32 needs compute capability 8.0 or higher, but cuda:0 has 7.5"),
        ({"kernels": "reference"}, "precision=tf32 needs fused kernels, but kernels=reference"),
    ],
)
def test_a_precision_that_a_gpu_lacks(fake_cupy, arguments, message):
    kernels = arguments.pop("kernels", None)
    fake_cupy(**arguments)
    with pytest.raises(xpnet.DeviceUnavailableError, match=re.escape(message)) as error:
        xpnet.device("cuda", kernels, "tf32")
    assert "\n" not in str(error.value)
    assert xpnet.device("cuda", kernels).precision == "float32"


def test_precisions(fake_cupy, monkeypatch):
    fake_cupy()
    assert xpnet.device("cuda").precision == "float32"
    fast = xpnet.device("cuda", precision="tf32")
    assert fast.precision == "tf32"
    assert xpnet.device(fast) is fast
    assert xpnet.device(fast, precision="float32").precision == "float32"
    assert pickle.loads(pickle.dumps(fast)).precision == "tf32"
    monkeypatch.setenv("XPNET_PRECISION", "tf32")
    assert xpnet.device("cuda").precision == "tf32"
    assert xpnet.device("cuda", precision="float32").precision == "float32"
    monkeypatch.setenv("XPNET_PRECISION", "float16")
    with pytest.raises(ValueError, match="XPNET_PRECISION must be 'float32' or 'tf32', got 'float"):
        xpnet.device("cpu")


@pytest.mark.parametrize(("variable", "source"), [("", "precision"), ("tf32", "XPNET_PRECISION")])
@pytest.mark.usefixtures("no_cupy")
def test_the_cpu_has_no_tf32(monkeypatch, variable, source):
    monkeypatch.setenv("XPNET_PRECISION", variable)
    precision = None if variable else "tf32"
    for name in ("cpu", "auto"):
        with pytest.raises(
            xpnet.DeviceUnavailableError, match=f"{source}=tf32 needs an NVIDIA GPU, but the"
        ):
            xpnet.device(name, precision=precision)
    assert xpnet.device("cpu", precision="float32").precision == "float32"


@pytest.mark.usefixtures("no_cupy")
def test_environment_is_read_and_an_argument_wins(monkeypatch):
    monkeypatch.setenv("XPNET_DEVICE", "cuda")
    with pytest.raises(xpnet.DeviceUnavailableError, match=r"^XPNET_DEVICE=cuda: CuPy is not"):
        make_device()
    assert make_device("cpu").name == "cpu"


def test_a_device_is_returned_as_it_is():
    found = make_device("cpu")
    assert make_device(found) is found
    assert make_device("cpu") is not found


@pytest.mark.parametrize("spec", ["gpu", "CUDA", "cuda:", "cuda:x", "cuda:-1", "", 3])
def test_wrong_names(spec):
    with pytest.raises(ValueError, match=r"^device must be 'cpu', 'cuda', 'cuda:N' .* or 'auto'"):
        make_device(spec)


def test_wrong_name_in_the_environment(monkeypatch):
    monkeypatch.setenv("XPNET_DEVICE", "gpu")
    with pytest.raises(ValueError, match=r"^XPNET_DEVICE must be .*, got 'gpu'"):
        make_device()


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (None, "no NVIDIA driver was found"),
        ((11080, (8, 0)), "supports CUDA 11.8, and CuPy needs 12.0 or newer: update the driver"),
        ((12040, (8, 0)), "pip install 'cupy-cuda12x[ctk]'"),
        ((13010, (9, 0)), "pip install 'cupy-cuda13x[ctk]'"),
        ((13010, (7, 5)), "pip install 'cupy-cuda13x[ctk]'"),
        ((13010, (7, 0)), "pip install 'cupy-cuda12x[ctk]'"),
        ((13010, None), "supports CUDA 13.1 but shows no GPU"),
    ],
)
@pytest.mark.usefixtures("no_cupy")
def test_without_cupy_the_right_package_is_named(driver, answer, said):
    driver(answer)
    with pytest.raises(xpnet.DeviceUnavailableError, match=r"CuPy is not installed") as error:
        make_device("cuda")
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_a_broken_cupy_gives_its_own_reason(monkeypatch, driver):
    driver((13010, (9, 0)))

    class Broken:
        def find_spec(self, name, path=None, target=None):
            del path, target
            if name == "cupy":
                raise ImportError("libcudart.so.13:\n  not found")

    monkeypatch.delitem(sys.modules, "cupy", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    with pytest.raises(xpnet.DeviceUnavailableError) as error:
        make_device("cuda")
    assert "cannot be imported (libcudart.so.13: not found)" in str(error.value)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            PermissionError(13, "Permission denied", "/home/x"),
            "set CUPY_CACHE_DIR to a writable folder",
        ),
        (AttributeError("numpy has no bool8"), "reinstall it"),
    ],
)
def test_a_cupy_that_fails_at_import(monkeypatch, error, said):
    def fail(name):
        assert name == "cupy"
        raise error

    monkeypatch.setattr("importlib.import_module", fail)
    problem = str(cuda_check.cuda_problem())
    assert str(error) in problem
    assert said in problem


def test_a_driver_too_old_for_cupy(fake_cupy, driver, monkeypatch):
    monkeypatch.setattr(cuda_check, "_installed_cupy", lambda: None)
    fake_cupy(error="cudaErrorInsufficientDriver: CUDA driver version is insufficient")
    driver((12040, (8, 0)))
    with pytest.raises(xpnet.DeviceUnavailableError) as error:
        make_device("cuda")
    assert "cudaErrorInsufficientDriver" in str(error.value)
    assert str(error.value).endswith("type: pip install 'cupy-cuda12x[ctk]'")


def test_two_cupys_are_never_advised(fake_cupy, driver, monkeypatch):
    """What is installed and wrong has to go first; what is installed and right is not named."""
    monkeypatch.setattr(cuda_check, "_installed_cupy", lambda: "cupy-cuda13x")
    driver((12040, (8, 0)))
    fake_cupy(error="cudaErrorInsufficientDriver")
    problem = str(cuda_check.cuda_problem())
    assert problem.endswith(
        "type: pip uninstall -y cupy-cuda13x && pip install 'cupy-cuda12x[ctk]'"
    )
    driver(None)
    assert "pip install" not in str(cuda_check.cuda_problem())
    assert "no NVIDIA driver was found: install one" in str(cuda_check.cuda_problem())


def test_a_machine_without_a_gpu(fake_cupy, driver):
    fake_cupy(n_devices=0)
    driver((13010, None))
    with pytest.raises(xpnet.DeviceUnavailableError, match=r"finds no GPU; .* shows no GPU"):
        make_device("cuda")


def test_a_device_number_too_high(fake_cupy):
    fake_cupy(n_devices=2)
    with pytest.raises(xpnet.DeviceUnavailableError, match=r"no CUDA device 2; .* cuda:0, cuda:1"):
        make_device("cuda:2")


def test_cuda_13_refuses_volta(fake_cupy):
    fake_cupy(version=13020, capability="70")
    with pytest.raises(
        xpnet.DeviceUnavailableError, match=r"7\.0 of cuda:0; .*pip install 'cupy-cuda12x"
    ):
        make_device("cuda")
    fake_cupy(version=12080, capability="70")
    assert make_device("cuda").name == "cuda:0"


def test_capability_of_two_digits(fake_cupy):
    fake_cupy(capability="120")
    assert make_device("cuda").name == "cuda:0"


def test_auto_takes_the_gpu_and_says_so(fake_cupy, caplog):
    fake_cupy()
    with caplog.at_level("INFO", logger="xpnet"):
        assert make_device("auto").name == "cuda:0"
    assert "'auto' is cuda:0" in caplog.text


@pytest.mark.usefixtures("no_cupy")
def test_auto_falls_back_and_says_why(caplog):
    assert make_device("auto").name == "cpu"
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "'auto' is cpu (CuPy is not installed" in caplog.text


def test_the_border_waits_on_both_sides(fake_cupy):
    log = fake_cupy().cuda.log
    gpu = make_device("cuda:0")
    log.clear()
    with gpu.activate():
        assert FakeCuda.current is gpu.stream
        with gpu.activate():
            log.append("work")
    assert FakeCuda.current is FakeCuda.default
    assert log == [
        "enter device 0",
        "record default",
        "own waits for default",
        "enter device 0",
        "work",
        "leave device 0",
        "record own",
        "default waits for own",
        "leave device 0",
    ]


@pytest.mark.parametrize("how", ["use", "with", "use inside with"])
def test_the_callers_stream_stays_current(fake_cupy, how):
    log = fake_cupy().cuda.log
    gpu = make_device("cuda")
    chosen = FakeStream(log, "chosen")
    with contextlib.ExitStack() as enclosing:
        if how == "use inside with":
            enclosing.enter_context(FakeStream(log, "outer"))
        if how == "with":
            enclosing.enter_context(chosen)
        else:
            chosen.use()
        with gpu.activate():
            assert FakeCuda.current is gpu.stream
        assert FakeCuda.current is chosen
    assert log[-2:] == ["chosen waits for own", "leave device 0"]


def test_a_cupy_without_its_libraries_is_not_usable(fake_cupy):
    fake_cupy(no_library=ImportError("libcublas.so.13:\n cannot open"))
    with pytest.raises(xpnet.DeviceUnavailableError) as error:
        make_device("cuda")
    assert "cannot compute on cuda:0 (libcublas.so.13: cannot open)" in str(error.value)
    assert "pip install 'cupy-cuda" in str(error.value)
    assert make_device("auto").name == "cpu"


def test_the_border_is_crossed_back_after_an_error(fake_cupy):
    log = fake_cupy().cuda.log
    gpu = make_device("cuda")
    with pytest.raises(KeyError), gpu.activate():
        raise KeyError
    assert "default waits for own" in log
    assert FakeCuda.current is FakeCuda.default


def test_two_devices_live_side_by_side(fake_cupy):
    fake_cupy(n_devices=2)
    first, second, cpu = make_device("cuda:0"), make_device("cuda:1"), make_device("cpu")
    assert first.stream is not second.stream
    assert (first.index, second.index, cpu.index) == (0, 1, None)


def test_synchronize_waits_for_the_own_stream(fake_cupy):
    log = fake_cupy().cuda.log
    make_device("cuda").synchronize()
    assert log[-1] == "synchronize own"
    make_device("cpu").synchronize()


def test_host_arrays_are_not_copied_without_need():
    cpu = make_device("cpu")
    X = np.zeros((3, 2))
    assert cpu.asarray(X, np.float64) is X
    assert cpu.asarray(X, np.float32).dtype == np.float32
    assert cpu.asarray(X.T).flags.c_contiguous


def test_a_gpu_array_on_the_cpu_is_refused():
    class OnGpu:
        __cuda_array_interface__ = None

    with pytest.raises(TypeError, match=r"^X is a .* array on a GPU, but the device is 'cpu'"):
        make_device("cpu").asarray(OnGpu(), name="X")


@pytest.mark.accelerator
def test_an_array_of_another_gpu_is_refused():
    """It is not copied implicitly, as cupy.asarray would."""
    first = make_device("cuda:0")
    if first.xp.cuda.runtime.getDeviceCount() < 2:
        pytest.skip("there is one GPU alone")
    with first.xp.cuda.Device(1):
        other = first.xp.ones(3)
    with pytest.raises(TypeError, match=r"^X lives on cuda:1, but the device is 'cuda:0'"):
        first.asarray(other, name="X")


def test_what_does_not_convert_is_named():
    with pytest.raises(TypeError, match=r"^X does not convert to an array of float32"):
        make_device("cpu").asarray([["a"]], np.float32, name="X")


@pytest.mark.parametrize(
    "array",
    [
        ["1", "2"],
        [1j, 2],
        np.ma.array([1, 2], mask=[False, True]),
        np.array(["2026-01-01"], "M8[D]"),
        [[1], [1, 2]],
        [{}],
        np.array(["1"], object),
    ],
)
@pytest.mark.parametrize("dtype", [np.float64, None])
def test_what_is_not_numbers_is_refused(array, dtype):
    with pytest.raises(TypeError, match=r"^X does not convert to (numbers|an array of float64): "):
        make_device("cpu").asarray(array, dtype, name="X")


def test_layouts_and_byte_orders(dev):
    X = np.arange(12.0).reshape(3, 4)
    read_only = X.copy()
    read_only.flags.writeable = False
    for array in (X.astype(">f8"), np.asfortranarray(X), read_only, X.tolist(), X.astype(object)):
        found = dev.asarray(array, np.float64)
        assert found.dtype == np.dtype("=f8")
        assert found.flags.c_contiguous
        np.testing.assert_array_equal(dev.to_host(found), X)
    labels = dev.asarray(np.array([1, 2], ">i4"))
    assert labels.dtype.isnative
    np.testing.assert_array_equal(dev.to_host(labels), [1, 2])


def test_pickling_by_name(dev):
    assert pickle.loads(pickle.dumps(dev)).name == dev.name
    assert copy.deepcopy(dev) is dev


def test_spurious_warnings_are_off_inside_only():
    cpu = make_device("cpu")
    one, zero = np.ones(1), np.zeros(1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with cpu.activate():
            assert np.isinf(one / zero)
    with pytest.warns(RuntimeWarning, match="divide by zero"):
        one / zero


def test_memory_on_the_cpu():
    cpu = xpnet.device("cpu")
    cpu.free_memory()
    cpu.require_room(2**60, "X", "nothing")
    with pytest.raises(ValueError, match=r"memory\(\) needs a GPU, but the device is 'cpu'"):
        cpu.memory()


@pytest.mark.parametrize(
    ("n", "text"),
    [(0, "0 bytes"), (999, "999 bytes"), (1500, "1.5 kB"), (2e6, "2.0 MB"), (94.04e9, "94.0 GB")],
)
def test_bytes_as_people_write_them(n, text):
    assert format_bytes(n) == text
