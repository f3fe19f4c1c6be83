"""CuPy's own CUDA source for the kernels, compiled for real GPUs where there is none.

This is the one place that touches private names of CuPy. ``python -m tests.kernels.cuda_compiler``
prints the registers of every kernel.
"""

from __future__ import annotations

import functools
import io
import itertools
import multiprocessing
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from xpnet.kernels.cuda_source import KernelSpec, kernels

ARCHITECTURES = ("75", "80", "90", "100", "120")
DTYPES = ("float32", "float64")
CUPY = "14.2."  # the versions whose private names are used here

_SIZES = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
_REGISTERS = re.compile(r"Used (\d+) registers")
_COMPILING = re.compile(r"Compiling entry function '(\w+)'")
_FUNCTION = re.compile(r"\.(?:entry|func)\s+(?:\([^)]*\)\s*)?(\w+)")
_CALL = re.compile(r"\bcall(?:\.uni)?\b([^;]*);")
_START = 'extern "C" __global__ void'
_ARRAY, _INDEXER, _NUMBER = 1, 2, 3  # kinds of arguments


class UnsupportedCupyError(RuntimeError):
    """This version of CuPy is not the one whose private names are used."""


@dataclass(frozen=True)
class Compiled:
    """What the compiler says about a kernel, sizes in bytes."""

    registers: int
    stack: int
    spill_stores: int
    spill_loads: int
    ptx: str


def check_version(version: str) -> None:
    """Raise if CuPy's private names may be others than those used here."""
    if not version.startswith(CUPY):
        raise UnsupportedCupyError(
            f"the source of kernels is read through private names of CuPy {CUPY}x, this is CuPy "
            f"{version}: look at tests/kernels/cuda_compiler.py against the new version's "
            "_core/_kernel.pyx and cuda/compiler.py"
        )


def source(spec: KernelSpec, dtype: str, *, ndim: int | None = None, is_large: bool = False) -> str:
    """Return what CuPy makes of a kernel for C-contiguous arrays.

    ``ndim`` is that of the call after CuPy has merged axes: by default 1 where all arrays have
    one shape, 2 where some broadcast. Large arrays have 2 GiB or more.
    """
    cupy = _cupy()
    from cupy._core import _carray, _kernel, _scalar

    kernel = spec.make(cupy)
    if ndim is None:
        ndim = 2 if spec.repeated else 1
    infos = []
    for parameter in (*kernel.in_params, *kernel.out_params):
        type_ = np.dtype(dtype if parameter.dtype is None else parameter.dtype)
        if parameter.name in spec.numbers:
            info = (_NUMBER, _scalar.CScalar, type_, 0, True, True)
        else:
            is_contiguous = parameter.name not in spec.repeated
            info = (_ARRAY, cupy.ndarray, type_, ndim, is_contiguous, not is_large)
        infos.append(_kernel._ArgInfo(*info))
    infos.append(_kernel._ArgInfo(_INDEXER, _carray.Indexer, None, ndim, True, not is_large))
    types = _kernel._TypeMap((("T", np.dtype(dtype).type),))
    code: str = _kernel._get_elementwise_kernel_code(
        tuple(infos), types, kernel.params, kernel.operation, kernel.name, kernel.preamble
    )
    return code


def compile_for(
    specs: Sequence[KernelSpec], dtype: str, architecture: str, **shape: Any
) -> dict[str, Compiled]:
    """Compile kernels as CuPy does at their first calls on a GPU of an architecture, ``"90"``.

    All of them in one translation unit, since the text before each kernel is the same: a minute
    shorter than one by one. ``shape`` is as for :func:`source`. The result is by variant.
    """
    _cupy()
    from cupy.cuda import compiler

    headers, options = around()
    options += (
        "-ftz=true",
        f"-arch=sm_{architecture}",
        "--device-as-default-execution-space",
        "--ptxas-options=-v",  # sizes go to the log, what comes out is the same
    )
    before, kernels = "", []
    for number, spec in enumerate(specs):
        head, start, kernel = source(spec, dtype, **shape).partition(_START)
        if before not in ("", head):
            raise UnsupportedCupyError(f"the text before {spec.variant} is not that of the others")
        before = head
        kernels.append(start + kernel.replace(f" {spec.name}(", f" kernel_{number}(", 1))
    log = io.StringIO()
    text = "\n".join([headers + before, *kernels])
    program = compiler._NVRTCProgram(text, "kernel.cu", method="cubin")
    program.compile(options, log)
    logged = dict(_sections(log.getvalue(), _COMPILING))
    ptx = dict(_sections(compiler.nvrtc.getPTX(program.ptr).decode(), _FUNCTION))
    found = {}
    for number, spec in enumerate(specs):
        said = logged.get(f"kernel_{number}", "")
        sizes, registers = _SIZES.search(said), _REGISTERS.search(said)
        if sizes is None or registers is None:
            raise RuntimeError(f"the compiler's log has no sizes: {log.getvalue()}")
        stack, stores, loads = map(int, sizes.groups())
        own = _with_calls(f"kernel_{number}", ptx)
        found[spec.variant] = Compiled(int(registers[1]), stack, stores, loads, own)
    return found


def _sections(text: str, heading: re.Pattern[str]) -> Iterator[tuple[str, str]]:
    """Cut a text at its headings; gives what each names, and what follows it."""
    headings = list(heading.finditer(text))
    ends = [later.start() for later in headings[1:]] + [len(text)]
    for found, end in zip(headings, ends, strict=True):
        yield found[1], text[found.start() : end]


def _with_calls(name: str, functions: Mapping[str, str]) -> str:
    """Return the text of a function and of all that it calls, directly or not."""
    called = dict.fromkeys([name])
    for caller in (pending := [name]):
        for text in _CALL.findall(functions[caller]):
            for other in re.findall(r"\w+", text):
                if other in functions and other not in called:
                    called[other] = None
                    pending.append(other)
    return "\n".join(functions[function] for function in called)


def doubles(ptx: str) -> list[str]:
    """Return the instructions on doubles."""
    return [line.strip() for line in ptx.splitlines() if ".f64" in line]


@functools.cache
def around() -> tuple[str, tuple[str, ...]]:
    """Return the text that CuPy puts before a kernel, and the options it adds first.

    They are caught on their way from CuPy's core to its compiler module.
    """
    _cupy()
    from cupy._core import core
    from cupy.cuda import compiler

    handed_on: list[Any] = []
    marker = "// the kernel"

    def keep(text: str, options: tuple[str, ...], **_: Any) -> None:
        handed_on.extend((text, options))

    original = compiler._compile_module_with_cache
    compiler._compile_module_with_cache = keep
    try:
        core.compile_with_cache(marker, ())
    finally:
        compiler._compile_module_with_cache = original
    text, options = handed_on
    headers, found, rest = text.partition(marker)
    if not found or rest:
        raise UnsupportedCupyError(f"CuPy does not put the kernel last: {text[-200:]!r}")
    return headers, options


@functools.cache
def _cupy() -> Any:
    import cupy

    check_version(cupy.__version__)
    return cupy


def compilers() -> ProcessPoolExecutor:
    """Return processes to compile in: in threads NVRTC sometimes fails to find its own parts."""
    return ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn"))


def main() -> None:
    """Print what every kernel takes."""
    heads = "".join(f"{'sm_' + architecture:>7}" for architecture in ARCHITECTURES)
    sys.stdout.write(f"{'registers':<54}{heads}  bytes of stack and spills\n")
    specs = list(kernels())
    targets = list(itertools.product(DTYPES, ARCHITECTURES))
    with compilers() as pool:
        compiled = list(
            pool.map(functools.partial(compile_for, specs), *zip(*targets, strict=True))
        )
    for spec, dtype in itertools.product(specs, DTYPES):
        found = [
            by_variant[spec.variant]
            for target, by_variant in zip(targets, compiled, strict=True)
            if target[0] == dtype
        ]
        registers = "".join(f"{item.registers:>7}" for item in found)
        spilled = max(item.stack + item.spill_stores + item.spill_loads for item in found)
        sys.stdout.write(f"{spec.variant:<45}{dtype:<9}{registers}{spilled:>9}\n")


if __name__ == "__main__":
    main()
