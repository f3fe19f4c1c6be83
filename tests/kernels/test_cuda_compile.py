"""The CUDA kernels without a GPU: compiled for real ones, read, and asked how they would launch."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import os
import re
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from tests.kernels import cuda_compiler
from tests.kernels.cuda_compiler import ARCHITECTURES, DTYPES, UnsupportedCupyError
from xpnet.kernels import cuda, cuda_launch, cuda_source
from xpnet.kernels.catalogue import CATALOGUE
from xpnet.kernels.reference import ReferenceOps

pytestmark = pytest.mark.host

KERNELS = {spec.variant: spec for spec in cuda_source.kernels()}
# How many arrays a kernel reads, and writes, four elements at once.
FOURS = {
    "relu fours": (2, 1),
    "relu fours without b": (1, 1),
    "batch_norm fours": (5, 2),
    "adam_update fours": (4, 3),
    "gather fours of bytes": (0, 1),
    "gather fours of numbers": (1, 1),
}
IN_CI = os.environ.get("CI") == "true"
H100 = 132  # multiprocessors


@pytest.fixture(scope="module")
def cupy():
    """CuPy with all that it needs to compile, which is no GPU."""
    try:
        module = importlib.import_module("cupy")
        cuda_compiler.around()  # looks for the toolkit's headers
        importlib.import_module("cupy_backends.cuda.libs.nvrtc").getVersion()
    except (ImportError, RuntimeError) as error:
        missing = (
            "kernels are compiled with cupy-cuda13x, nvidia-cuda-nvrtc and nvidia-cuda-runtime: "
            f"{error}"
        )
        if IN_CI:
            pytest.fail(missing)
        pytest.skip(missing)
    return module


def assert_well_compiled(found, dtype):
    """Without spilling registers, and in float32 without double precision."""
    for variant, compiled in found.items():
        in_memory = (compiled.stack, compiled.spill_stores, compiled.spill_loads)
        assert in_memory == (0, 0, 0), f"{variant}: bytes of stack, spill stores and loads"
        if dtype == "float32" and not KERNELS[variant].is_double_exempt:
            assert cuda_compiler.doubles(compiled.ptx) == [], variant


@pytest.mark.usefixtures("cupy")
@pytest.mark.parametrize(
    "architecture",
    [a if a == "90" else pytest.param(a, marks=pytest.mark.slow) for a in ARCHITECTURES],
)
@pytest.mark.parametrize("dtype", DTYPES)
def test_kernels_compile(dtype, architecture):
    found = cuda_compiler.compile_for(list(KERNELS.values()), dtype, architecture)
    assert found.keys() == KERNELS.keys()
    assert_well_compiled(found, dtype)
    if dtype == "float32":
        for variant, expected in FOURS.items():
            moves = [found[variant].ptx.count(f"{move}.global.v4.f32") for move in ("ld", "st")]
            n_copies = moves[1] // expected[1]  # of the loop, one or two, as the compiler likes
            assert n_copies > 0, variant
            assert moves == [n_copies * n for n in expected], variant


@pytest.mark.slow
@pytest.mark.usefixtures("cupy")
def test_kernels_compile_for_stacks_of_large_arrays():
    """Three axes, and more than 2 GiB, which CuPy indexes in 64 bits."""
    specs = list(KERNELS.values())
    found = cuda_compiler.compile_for(specs, "float32", "90", ndim=3, is_large=True)
    for variant, compiled in found.items():
        assert compiled.spill_stores == compiled.spill_loads == 0, variant


def test_kernels_are_made_without_a_gpu(cupy):
    for spec in KERNELS.values():
        assert spec.make(cupy).name == spec.name


@pytest.mark.usefixtures("cupy")
def test_a_double_literal_is_caught():
    spec = KERNELS["relu"]
    assert "xpn::relu(Z + b)" in spec.operation
    slip = dataclasses.replace(
        spec, operation=spec.operation.replace("xpn::relu(Z + b)", "0.9 * Z")
    )
    found = cuda_compiler.compile_for([slip], "float32", "90")
    assert any("mul" in line for line in cuda_compiler.doubles(found["relu"].ptx))
    with pytest.raises(AssertionError, match="relu"):
        assert_well_compiled(found, "float32")


@pytest.mark.usefixtures("cupy")
def test_a_double_in_a_function_that_is_called_is_caught():
    """And in no other kernel of the same text."""
    spec = KERNELS["relu"]
    function = "__device__ __noinline__ float slip(float x) { return 0.9 * x; }"
    formulas = f"{spec.preamble}\n{function}\n"
    others = [dataclasses.replace(KERNELS["tanh"], preamble=formulas)]
    slip = dataclasses.replace(
        spec,
        preamble=formulas,
        operation=spec.operation.replace("xpn::relu(Z + b)", "slip(Z + b)"),
    )
    found = cuda_compiler.compile_for([slip, *others], "float32", "90")
    assert any("mul" in line for line in cuda_compiler.doubles(found["relu"].ptx))
    assert cuda_compiler.doubles(found["tanh"].ptx) == []


@pytest.mark.usefixtures("cupy")
def test_an_array_in_local_memory_is_caught():
    spec = KERNELS["relu"]
    table = """
        T table[64];
        for (int k = 0; k < 64; ++k) table[(k * k + int(Z_)) & 63] = Z_ * T(k);
        """
    slip = dataclasses.replace(
        spec, operation=f"{table}{spec.operation}\nout_ = table[int(b_) & 63];"
    )
    found = cuda_compiler.compile_for([slip], "float32", "90")
    assert found["relu"].stack == 256
    with pytest.raises(AssertionError, match="relu: bytes of stack"):
        assert_well_compiled(found, "float32")


@pytest.mark.usefixtures("cupy")
@pytest.mark.parametrize("variant", ["relu", "softmax", "dropout", "adam_update"])
def test_source_contains_the_formulas(variant):
    """CuPy's cache of kernels does not look into included files, so there must be none."""
    code = cuda_compiler.source(KERNELS[variant], "float32")
    formulas = Path(cuda.__file__).with_name("functions.h").read_text(encoding="utf-8")
    assert formulas in code
    on_cuda = re.sub(r"#else\n.*?#endif", "", formulas, flags=re.DOTALL)
    assert "#include" not in code.replace(formulas, on_cuda)


@pytest.mark.usefixtures("cupy")
def test_options_are_those_of_cupy():
    """What cuda_compiler adds is looked up in the source of CuPy's own call of the compiler."""
    from cupy.cuda import compiler

    text = inspect.getsource(compiler)
    assert re.findall(r"options \+= \('(-[^']+)',\)\n\n    if to_ltoir", text) == ["-ftz=true"]
    assert "options += ('--device-as-default-execution-space',)" in text
    assert "f'-arch=sm_{arch}', 'cubin'" in text
    _, options = cuda_compiler.around()
    assert "--std=c++17" in options
    assert {option[:2] for option in options} == {"--", "-I"}


@pytest.mark.parametrize("version", ["13.6.0", "14.1.9", "14.20.0", "15.0.0"])
def test_another_cupy_is_refused(version):
    with pytest.raises(UnsupportedCupyError, match=rf"this is CuPy {re.escape(version)}: look at"):
        cuda_compiler.check_version(version)


def test_this_cupy_is_accepted():
    cuda_compiler.check_version("14.2.0")


# What needs no compiler.


def test_signatures_are_those_of_the_reference(ops):
    assert ops.keys() == {row.name for row in CATALOGUE}
    reference = ReferenceOps(np)
    for name, operation in ops.items():
        assert inspect.signature(operation) == inspect.signature(getattr(reference, name)), name
        assert operation.__doc__ == getattr(reference, name).__doc__
    assert ReferenceOps(np, ops).fused == ops.keys()


def test_every_operation_has_kernels():
    assert {spec.variant.split()[0] for spec in KERNELS.values()} == (
        {row.name for row in CATALOGUE} | {"totals"}
    )


def test_calls_that_python_would_refuse(ops):
    for args, kwargs in (((), {}), ((1, 2, 3, 4), {}), ((1,), {"Z": 1}), ((), {"z": 1})):
        with pytest.raises(TypeError, match=r"argument"):
            ops["relu"](*args, **kwargs)


@pytest.mark.parametrize(
    ("shape", "splits"),
    [
        ((1, 128, 10), 32),  # 4 rows each
        ((1, 128, 256), 32),
        ((1, 1024, 1024), 66),  # 67584 threads, 4 blocks of 128 on each multiprocessor
        ((1, 8192, 10), 2048),
        ((1, 8192, 1024), 66),
        ((8, 128, 256), 32),
        ((100, 128, 1024), 1),
        ((1, 1, 10), 1),
        ((1, 0, 10), 1),
        ((1, 5, 0), 2),
        ((1, 7, 1), 2),
    ],
)
def test_rows_are_split_to_fill_the_gpu(shape, splits):
    n_networks, n_rows, n_columns = shape
    assert cuda_launch.n_splits(n_networks, n_rows, n_columns, H100) == splits
    assert splits == 1 or -(-n_rows // splits) >= 3
    assert n_networks * n_columns * splits < 2**32


@pytest.mark.parametrize(
    ("shape", "blocks"), [((128, 256), 256), ((8192, 10), 640), ((8192, 1024), 528)]
)
def test_blocks_of_a_column_reduce(shape, blocks):
    """CuPy's own sum over the rows launches 8, 2 and 32."""
    n_rows, n_columns = shape
    n_threads = n_columns * cuda_launch.n_splits(1, n_rows, n_columns, H100)
    assert n_threads // cuda_launch.block_size(n_threads, H100) == blocks


@pytest.mark.parametrize("n_multiprocessors", [1, 20, H100, 400])
def test_blocks_are_whole_warps(n_multiprocessors):
    for n_threads in (1, 31, 32, 1000, 10**5, 10**9):
        size = cuda_launch.block_size(n_threads, n_multiprocessors)
        assert size in (32, 64, 128)
        enough = 4 * n_multiprocessors
        assert size == 32 or n_threads / size >= enough
        assert size == 128 or n_threads / (2 * size) < enough


# How operations call their kernels, on a stand-in for CuPy whose kernels only keep the calls.


@pytest.fixture
def calls():
    return []


@pytest.fixture
def ops(calls):
    class ElementwiseKernel:
        def __init__(self, in_params, out_params, operation, name, preamble):
            assert operation
            assert "namespace xpn" in preamble
            declared = ",".join(filter(None, (in_params, out_params)))
            self.parameters = [text.split()[-1] for text in declared.split(",")]
            self.name = name

        def __call__(self, *args, **kwargs):
            calls.append((self.name, dict(zip(self.parameters, args, strict=True)), kwargs))

    names = ("ndarray", "empty", "ascontiguousarray", "broadcast_to", "take", "divide")
    numpy_names = {name: getattr(np, name) for name in names}
    module = ModuleType("cupy")
    module.cuda = SimpleNamespace(  # type: ignore[attr-defined]
        Device=lambda: SimpleNamespace(id=0),
        get_current_stream=lambda: SimpleNamespace(ptr=0),
        runtime=SimpleNamespace(
            cudaDevAttrMultiProcessorCount=16, deviceGetAttribute=lambda attribute, index: H100
        ),
    )
    vars(module).update(numpy_names, ElementwiseKernel=ElementwiseKernel)
    return cuda.fused(module)


def zeros(*shape, dtype=np.float32):
    return np.zeros(shape, dtype)


def test_derived_constants_are_computed_in_double(ops, calls):
    param, rate = zeros(3, 7), zeros(3, 1)
    args = (param, param, param, param, rate, rate, rate, rate)
    ops["adam_update"](*args, 0.9, 0.999, weight_decay=rate, n_decay=5)
    ops["dropout"](param, 0.3, 2**64 - 1, 1, zeros(1, dtype=np.int64), 2, out=param)
    (_, adam, _), (_, dropout, how) = calls
    assert (adam["one_minus_beta1"], adam["one_minus_beta2"]) == (1 - 0.9, 1 - 0.999)
    assert (adam["n_decay"], adam["n_columns"]) == (5, 7)
    assert (dropout["threshold"], dropout["scale"]) == (int(0.3 * 2**32), 1 / (1 - 0.3))
    assert (dropout["seed"], dropout["n_elements"], how["size"]) == (2**64 - 1, 21, 6)


def test_nothing_decays_without_weight_decay(ops, calls):
    ops["gradient_descent_update"](zeros(7), zeros(7), zeros(1), n_decay=5)
    assert (calls[0][1]["weight_decay_"], calls[0][1]["n_decay"]) == (0, 0)


def test_a_warp_for_each_row(ops, calls):
    labels = zeros(2, 9, dtype=np.int32)
    ops["softmax_cross_entropy"](zeros(2, 9, 5), labels, zeros(2, 9))
    ((name, given, how),) = calls
    assert name == "xpn_softmax_cross_entropy"
    assert (given["n_all_rows"], given["n_rows"], given["n_columns"]) == (18, 9, 5)
    assert given["labels_"].dtype == np.int64
    assert "dlogits_" not in given
    assert how == {"size": 18 * 32, "block_size": 32}


def test_a_column_reduce_is_two_kernels_or_one(ops, calls):
    ops["relu_grad"](zeros(2, 900, 5), zeros(2, 900, 5), db=zeros(2, 5))
    ops["bias_grad"](zeros(40, 5))
    ops["relu_grad"](zeros(2, 9, 5), zeros(2, 9, 5), out=zeros(2, 9, 5))
    assert [name for name, _, _ in calls] == [
        *("xpn_relu_grad_columns", "xpn_totals"),
        "xpn_bias_grad_columns",
        "xpn_relu_grad",
    ]
    (_, first, how), (_, second, _), (_, third, of_warps) = calls[:3]
    n_shares = 225  # each with 4 rows
    assert (first["n_rows"], first["n_columns"], first["n_shares"]) == (900, 5, n_shares)
    assert how["size"] == -(-2 * 5 * n_shares // 32) * 32
    assert first["shares_"] is second["shares_"]
    assert (second["n_all_rows"], second["n_columns"]) == (10, n_shares)
    assert (third["n_shares"], of_warps["size"]) == (0, 5 * 32)


def test_raw_kernels_are_given_contiguous_arrays(ops, calls):
    wide = zeros(6, 8)
    out = wide[:, ::2]
    assert ops["softmax"](zeros(4, 6).T, out=out) is out
    given = calls[0][1]
    assert given["logits_"].flags.c_contiguous
    assert given["out_"].flags.c_contiguous
    assert not np.shares_memory(given["out_"], wide)


def test_gather_of_bytes(ops, calls):
    X, indices = zeros(9, 2, 3, dtype=np.uint8), zeros(4, dtype=np.int64)
    out = zeros(4, 2, 3)
    assert ops["gather"](X, indices, out, 255) is out
    assert (calls[0][1]["divide_by"], calls[0][1]["row_size"]) == (255.0, 6)
    assert ops["gather"](zeros(9, 2), indices).shape == (4, 2)
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("name", "args", "message"),
    [
        ("relu", ([1.0],), "relu: Z must be a CuPy array, got builtins.list"),
        ("relu", (zeros(2, dtype=np.int64),), "relu: Z must be float32 or float64, got int64"),
        (
            "relu",
            (zeros(2, 3), zeros(3, dtype=np.float64)),
            "relu: b must be float32 like Z, got float64",
        ),
        (
            "relu_grad",
            (zeros(2, 3), zeros(2, 3), None, zeros(3, dtype=np.float16)),
            "relu_grad: db must be float32 like dA, got float16",
        ),
        (
            "softmax_cross_entropy",
            (zeros(2, 3), zeros(2), zeros(2)),
            "softmax_cross_entropy: labels must be integers, got float32",
        ),
        (
            "softmax_cross_entropy",
            (zeros(2, 3), zeros(2, dtype=np.int64), None),
            "softmax_cross_entropy: losses must be a CuPy array, got builtins.NoneType",
        ),
        (
            "adam_tick",
            (zeros(1, dtype=np.int32), zeros(1), zeros(1), zeros(1), 0.9, 0.9, 1e-8, False),
            "adam_tick: step must be int64, got int32",
        ),
    ],
)
def test_types_are_checked(ops, calls, name, args, message):
    with pytest.raises(TypeError, match=f"^{re.escape(message)}$"):
        ops[name](*args)
    assert calls == []


@pytest.mark.parametrize(
    ("name", "args", "message"),
    [
        ("softmax", (zeros(2, 3), zeros(3, 2)), "softmax: out must have shape (2, 3), got (3, 2)"),
        (
            "sigmoid_cross_entropy",
            (zeros(2, 3), zeros(2, 1), zeros(2)),
            "sigmoid_cross_entropy: labels must have shape (2, 3), got (2, 1)",
        ),
        (
            "relu_grad",
            (zeros(2, 3), zeros(1, 3), None, zeros(3)),
            "relu_grad: A must have shape (2, 3), got (1, 3)",
        ),
        ("bias_grad", (zeros(2, 3), zeros(2)), "bias_grad: out must have shape (3,), got (2,)"),
        ("bias_grad", (zeros(2),), "bias_grad: dZ must have rows and columns, got shape (2,)"),
        (
            "gather",
            (zeros(9, 2, dtype=np.uint8), zeros(4, dtype=np.int64), zeros(4)),
            "gather: out must have shape (4, 2), got (4,)",
        ),
        (
            "dropout",
            (zeros(3), 0.5, 1, 0, zeros(2, dtype=np.int64), 0),
            "dropout: step must have one element, got shape (2,)",
        ),
        (
            "dropout",
            (zeros(3), 0.5, -1, 0, zeros(1, dtype=np.int64), 0),
            "seed must lie in [0, 2**64), got -1",
        ),
        (
            "gradient_descent_update",
            (np.broadcast_to(zeros(1), 2**32), zeros(1), zeros(1)),
            f"gradient_descent_update: there must be fewer than {2**32} parameters, got {2**32}",
        ),
        (
            "bias_grad",
            (np.broadcast_to(zeros(1), (2**31, 0)),),
            f"bias_grad: there must be fewer than {2**31} rows, got {2**31}",
        ),
        (
            "softmax",
            (np.broadcast_to(zeros(1), (0, 2**31)),),
            f"softmax: there must be fewer than {2**31} columns, got {2**31}",
        ),
    ],
)
def test_shapes_and_sizes_are_checked(ops, calls, name, args, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        ops[name](*args)
    assert calls == []
