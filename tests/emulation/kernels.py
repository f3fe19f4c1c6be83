"""Test equipment: ``ElementwiseKernel``, whose text is compiled and run by the host.

The text is the very one that CuPy would compile, so that the arithmetic of indices, the order of
loads and stores, what the lanes of a warp tell each other, and the launches of ``cuda.py`` are
tested where there is no GPU. It differs from a GPU in what follows, and tests nothing of it:

- It is the branch of ``functions.h`` for CUDA, with the C library's exponentials and logarithms in
  place of CUDA's.
- Threads run one after another, or, where the text exchanges values within a warp, the 32 lanes of
  a warp take turns, each running up to its next exchange; from the first or from the last
  (:attr:`Library.is_reversed`). A warp of which some lanes exchange and others have ended, or that
  is not whole, is refused. Elements outside of a raw array are refused.
- Subnormal numbers in float32 are taken for zero as on a GPU, or kept (:attr:`Library.flushes`).

Arguments are checked as CuPy does it (cupy/_core/_kernel.pyx, ElementwiseKernel.__call__), and more
strictly: a raw array must be contiguous, operands must be the same or disjoint, a number must be
one of Python's and fit its type (CuPy wraps NumPy's and cuts fractions off), and which arguments
are numbers must be as :func:`~xpnet.kernels.cuda_source.kernels` says, for that is what the
compiler for CUDA is given.
"""

from __future__ import annotations

import atexit
import ctypes
import functools
import hashlib
import math
import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from tests.emulation.arrays import check_overlap, empty, ndarray
from tests.emulation.execution import ExtensionType, launch
from xpnet.kernels.cuda_source import KernelSpec, kernels

__all__ = ["DTYPES", "ElementwiseKernel", "Library", "compiler", "launched_as", "library"]

DTYPES = ("float32", "float64")
FOLDER = "XPNET_EMULATED_KERNELS"  # names the folder that processes of one test run share

Text: TypeAlias = tuple[str, str, str, str]  # parameters in and out, operation, preamble

_C_TYPES = {
    "float32": "float",
    "float64": "double",
    "uint8": "unsigned char",
    "int32": "int",
    "uint32": "unsigned int",
    "int64": "long long",
    "uint64": "unsigned long long",
}

_DEFINITIONS = """
#define __CUDACC__
#define __device__
#define __forceinline__ inline
#include <cmath>
#include <math.h>
#include <setjmp.h>
#include <stddef.h>
#include <string.h>
#include <ucontext.h>
#if defined(__SSE__)
#include <xmmintrin.h>
#endif

namespace on_host {

struct Launch {
    ptrdiff_t size, is_reversed, flushes, ndim;
    const ptrdiff_t* shape;
};
struct Argument { char* data; ptrdiff_t size, step; const ptrdiff_t* strides; };

static int outside;  // the raw argument that was indexed outside, or -1
static int diverged;  // whether lanes of a warp have missed each other

// Element i, in C order, of an array that broadcasts; from one to the next it is a step where there
// is one, which is 0 for a number.
template <class U> U& element(const Launch& launch, const Argument& argument, ptrdiff_t i) {
    if (argument.step >= 0) return *reinterpret_cast<U*>(argument.data + i * argument.step);
    ptrdiff_t offset = 0;
    for (ptrdiff_t axis = launch.ndim - 1; axis >= 0; --axis) {
        offset += i % launch.shape[axis] * argument.strides[axis];
        i /= launch.shape[axis];
    }
    return *reinterpret_cast<U*>(argument.data + offset);
}

template <class U> struct Spare { static U element; };
template <class U> struct Spare<const U> : Spare<U> {};
template <class U> U Spare<U>::element;

template <class U> class Raw {
public:
    Raw(const Argument* arguments, int position) : argument(arguments[position]), own(position) {}
    U& operator[](ptrdiff_t k) const {
        if (k < 0 || k >= argument.size) {
            outside = own;
            return Spare<U>::element;
        }
        return reinterpret_cast<U*>(argument.data)[k];
    }
private:
    const Argument& argument;
    const int own;
};

// Float instructions on a GPU take subnormal numbers for zero where they were compiled to.
struct Flushing {
    explicit Flushing(bool on) {
#if defined(__SSE__)
        before = _mm_getcsr();
        if (on) _mm_setcsr(before | 0x8040);
#endif
        (void)on;
    }
    ~Flushing() {
#if defined(__SSE__)
        _mm_setcsr(before);
#endif
    }
    unsigned before = 0;
};

// A warp: each lane has a stack of its own and runs until it exchanges a value, then the next one.
// A lane that is done waits there for the next warp.
enum { LANES = 32, STACK = 1 << 16, SLOT = 8 };

struct Warp {
    char stacks[LANES][STACK];
    ucontext_t begin[LANES];
    jmp_buf lane[LANES], scheduler;
    bool has_begun[LANES], is_done[LANES];
    char slots[2][LANES][SLOT];
    int round, current;
    ptrdiff_t first;
    void (*body)(const void*, ptrdiff_t);
    const void* closure;
};
static Warp warp;

static void run_lane() {
    for (;;) {
        warp.body(warp.closure, warp.first + warp.current);
        warp.is_done[warp.current] = true;
        if (!_setjmp(warp.lane[warp.current])) _longjmp(warp.scheduler, 1);
    }
}

static void resume(int lane) {
    if (_setjmp(warp.scheduler)) return;
    warp.current = lane;
    if (warp.has_begun[lane]) _longjmp(warp.lane[lane], 1);
    warp.has_begun[lane] = true;
    getcontext(&warp.begin[lane]);
    warp.begin[lane].uc_stack.ss_sp = warp.stacks[lane];
    warp.begin[lane].uc_stack.ss_size = STACK;
    warp.begin[lane].uc_link = nullptr;
    makecontext(&warp.begin[lane], run_lane, 0);
    setcontext(&warp.begin[lane]);
}

static void run_warp(bool is_reversed) {
    memset(warp.is_done, 0, sizeof warp.is_done);
    for (int n_done = 0; n_done < LANES;) {
        warp.round ^= 1;
        for (int turn = 0; turn < LANES; ++turn) resume(is_reversed ? LANES - 1 - turn : turn);
        n_done = 0;
        for (int lane = 0; lane < LANES; ++lane) n_done += warp.is_done[lane];
        if (n_done != 0 && n_done != LANES) {
            memset(warp.has_begun, 0, sizeof warp.has_begun);  // where they are is left behind
            diverged = 1;
            return;
        }
    }
}

template <class Body> void call(const void* closure, ptrdiff_t i) {
    (*static_cast<const Body*>(closure))(i);
}

template <class Body> void each_warp(const Launch& launch, const Body& body) {
    warp.body = call<Body>;
    warp.closure = &body;
    if (launch.size % LANES) diverged = 1;
    for (ptrdiff_t start = 0; start < launch.size && !diverged; start += LANES) {
        warp.first = launch.is_reversed ? launch.size - LANES - start : start;
        run_warp(launch.is_reversed);
    }
}

template <class Body> void each_thread(const Launch& launch, const Body& body) {
    for (ptrdiff_t turn = 0; turn < launch.size; ++turn)
        body(launch.is_reversed ? launch.size - 1 - turn : turn);
}

}  // namespace on_host

template <class U> U __shfl_xor_sync(unsigned mask, U value, int distance) {
    using on_host::warp;
    const int own = warp.current, other = own ^ distance, round = warp.round;
    if (mask != 0xffffffffu || other < 0 || other >= on_host::LANES) {
        on_host::diverged = 1;
        return value;
    }
    static_assert(sizeof(U) <= on_host::SLOT, "what a lane tells another");
    memcpy(warp.slots[round][own], &value, sizeof(U));
    if (!_setjmp(warp.lane[own])) _longjmp(warp.scheduler, 1);
    memcpy(&value, warp.slots[round][other], sizeof(U));
    return value;
}
"""


class _Launch(ctypes.Structure):
    _fields_ = (
        ("size", ctypes.c_ssize_t),
        ("is_reversed", ctypes.c_ssize_t),
        ("flushes", ctypes.c_ssize_t),
        ("ndim", ctypes.c_ssize_t),
        ("shape", ctypes.POINTER(ctypes.c_ssize_t)),
    )


class _Argument(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("size", ctypes.c_ssize_t),
        ("step", ctypes.c_ssize_t),
        ("strides", ctypes.POINTER(ctypes.c_ssize_t)),
    )


@dataclass(frozen=True)
class _Parameter:
    """A declaration, ``"raw T shares_"``."""

    name: str
    type: str
    is_raw: bool
    is_output: bool

    def dtype(self, T: str) -> Any:
        return _dtype(T if self.type == "T" else self.type)

    def c_type(self, T: str) -> str:
        return "const " * (not self.is_output) + _C_TYPES[self.dtype(T).name]


_dtype = functools.cache(np.dtype)
_name = functools.cache(lambda dtype: dtype.name)  # which NumPy composes every time


def compiler() -> list[str] | None:
    """Return the command of the host's C++ compiler, or None where there is none."""
    for text in (os.environ.get("CXX"), "c++", "g++"):
        command = shlex.split(text or "")
        if command and shutil.which(command[0]):
            return command
    return None


class Library:
    """Compiled kernels: all that the operations can ask for at once, others one by one.

    Attributes
    ----------
    is_reversed : bool
        Whether the last thread runs first.
    flushes : bool
        Whether float32 kernels take subnormal numbers for zero, as they do on a GPU.
    launched : set
        What :func:`launched_as` gives for every kernel that has been launched.
    """

    def __init__(self) -> None:
        self.is_reversed = False
        self.flushes = True
        self.launched: set[tuple[Any, ...]] = set()
        self.known = {launched_as(spec, T) for spec in kernels() for T in DTYPES}
        self.texts = list(dict.fromkeys(map(_text, kernels())))
        self._functions: dict[tuple[Text, str], Any] = {}

    def function(self, text: Text, T: str) -> Any:
        """Return a kernel for one type, compiled if it is not yet."""
        if (text, T) not in self._functions:
            texts = self.texts if text in self.texts else [text]
            loaded = ctypes.CDLL(str(_built(texts)))
            for n, item in enumerate(texts):
                for dtype in DTYPES:
                    self._functions[item, dtype] = loaded[f"kernel_{n}_{dtype}"]
        return self._functions[text, T]


def launched_as(spec: KernelSpec, T: str) -> tuple[Any, ...]:
    """Distinguish a kernel from others by its text, its type and which arguments are numbers."""
    return (*_text(spec), T, spec.numbers)


def prepare() -> Path:
    """Return the folder of compiled kernels, which the processes of one test run share.

    Raises
    ------
    RuntimeError
        If there is no compiler to fill it.
    """
    if compiler() is None:
        raise RuntimeError(
            "the emulated device compiles kernels for the host, and there is no C++ compiler: "
            "install c++ or g++, or name one in CXX"
        )
    if FOLDER not in os.environ:
        os.environ[FOLDER] = tempfile.mkdtemp(prefix="xpnet-emulated-kernels-")
        atexit.register(_remove, os.environ[FOLDER], os.getpid())
    return Path(os.environ[FOLDER])


def _remove(folder: str, maker: int) -> None:
    if os.getpid() == maker:  # and not a process that it has forked
        shutil.rmtree(folder, ignore_errors=True)


def _built(texts: Sequence[Text]) -> Path:
    """Compile texts into one library, or find it compiled."""
    folder, command = prepare(), compiler() or []
    source = _source(texts)
    name = hashlib.sha256(source.encode()).hexdigest()[:20]
    target = folder / f"{name}.so"
    if not target.exists():
        with tempfile.TemporaryDirectory(dir=folder) as own:
            file, built = Path(own) / "kernels.cpp", Path(own) / "kernels.so"
            file.write_text(source, encoding="utf-8")
            options = ["-std=c++17", "-O2", "-w", "-U_FORTIFY_SOURCE", "-shared", "-fPIC"]
            subprocess.run([*command, *options, str(file), "-o", str(built)], check=True)
            built.replace(target)
    return target


def _text(spec: KernelSpec) -> Text:
    return spec.in_params, spec.out_params, spec.operation, spec.preamble


def _parameters(in_params: str, out_params: str) -> list[_Parameter]:
    found = []
    for text, is_output in ((in_params, False), (out_params, True)):
        for declaration in filter(None, map(str.strip, text.split(","))):
            *raw, type_, name = declaration.split()
            found.append(_Parameter(name, type_, raw == ["raw"], is_output))
    return found


def _source(texts: Sequence[Text]) -> str:
    """Write one C++ text: the preamble, then a function for each kernel and type."""
    preambles = dict.fromkeys(preamble for *_, preamble in texts)
    parts = [_DEFINITIONS, *preambles]
    for n, (in_params, out_params, operation, _) in enumerate(texts):
        parameters = _parameters(in_params, out_params)
        parts += [_function(f"kernel_{n}_{T}", T, parameters, operation) for T in DTYPES]
    return "\n".join(parts)


def _function(name: str, T: str, parameters: list[_Parameter], operation: str) -> str:
    once, each = [], []
    for position, item in enumerate(parameters):
        type_ = item.c_type(T)
        if item.is_raw:
            once.append(f"const on_host::Raw<{type_}> {item.name}(host_arguments, {position});")
        else:
            where = f"*host_launch, host_arguments[{position}], i"
            each.append(f"{type_}& {item.name} = on_host::element<{type_}>({where});")
    loop = "each_warp" if "across_lanes" in operation or "__shfl" in operation else "each_thread"
    return "\n".join(
        [
            f'extern "C" int {name}(const on_host::Launch* host_launch, '
            "const on_host::Argument* host_arguments) {",
            f"typedef {_C_TYPES[T]} T;",
            "on_host::outside = -1;",
            "on_host::diverged = 0;",
            f"on_host::Flushing host_flushing({int(T == 'float32')} && host_launch->flushes);",
            *once,
            f"on_host::{loop}(*host_launch, [&](const ptrdiff_t i) {{",
            *each,
            f"{operation};",
            "});",
            "return on_host::diverged ? -2 : on_host::outside;",
            "}",
        ]
    )


library = Library()


class ElementwiseKernel(metaclass=ExtensionType):
    """As ``cupy.ElementwiseKernel``."""

    def __init__(
        self,
        in_params: str,
        out_params: str,
        operation: str,
        name: str = "kernel",
        *,
        preamble: str = "",
    ) -> None:
        self.text: Text = in_params, out_params, operation, preamble
        self.name = name
        self.parameters = _parameters(in_params, out_params)
        self.n_inputs = sum(not item.is_output for item in self.parameters)

    def __call__(self, *args: Any, size: int | None = None, block_size: int = 128) -> Any:
        n = len(self.parameters)
        if len(args) not in (self.n_inputs, n):
            raise TypeError(
                f"Wrong number of arguments for '{self.name}'. It must be either {self.n_inputs} "
                f"or {n} (with outputs), but given {len(args)}."
            )
        if block_size not in range(32, 1025, 32):
            raise ValueError(f"{self.name}: a block of {block_size} threads")
        for item, value in zip(self.parameters, args, strict=False):
            if not isinstance(value, (ndarray, bool, int, float, np.generic)):
                raise TypeError(f"Unsupported type {type(value)} of {item.name} in {self.name}")
        T = self._bind(args)
        shape = self._shape(args, size)
        outputs = args[self.n_inputs :] or self._allocated(shape, T)
        numbers = frozenset(
            item.name
            for item, value in zip(self.parameters, args, strict=False)
            if not isinstance(value, ndarray)
        )
        key = (*self.text, T, numbers)
        is_ours = self.text in library.texts
        if is_ours and key not in library.known:
            raise ValueError(f"{self.name}: no kernel of kernels() has the numbers {numbers}")
        operands = (*args[: self.n_inputs], *outputs)
        views = [
            self._view(item, value, T, shape)
            for item, value in zip(self.parameters, operands, strict=True)
        ]
        arrays = [value for value in operands if isinstance(value, ndarray)]
        for position, output in enumerate(outputs):
            others = [value for value in arrays if value is not output]
            check_overlap(
                f"{self.name}: {self.parameters[self.n_inputs + position].name}", output, others
            )
        if 0 not in shape:
            function = library.function(self.text, T)
            launch(
                self.name,
                lambda: self._run(function, shape, views),
                [value for value in args if isinstance(value, ndarray)],
                outputs,
            )
            if is_ours:
                library.launched.add(key)
        return outputs[0] if len(outputs) == 1 else tuple(outputs)

    def _bind(self, args: tuple[Any, ...]) -> str:
        """Return the one dtype of all arrays that are declared with ``T``."""
        found: set[str] = {
            _name(value.dtype)
            for item, value in zip(self.parameters, args, strict=False)
            if item.type == "T" and isinstance(value, ndarray)
        }
        if len(found) > 1 or (not found and any(item.type == "T" for item in self.parameters)):
            raise TypeError(f"Type is mismatched. T is {sorted(found)} in {self.name}")
        return found.pop() if found else DTYPES[0]

    def _shape(self, args: tuple[Any, ...], size: int | None) -> tuple[int, ...]:
        """Return the shape of the loop."""
        shapes = [
            value.shape
            for item, value in zip(self.parameters, args, strict=False)
            if isinstance(value, ndarray) and not item.is_raw
        ]
        if size is not None and shapes:
            raise ValueError(
                f"Specified 'size' can be used only if all of the ndarray are 'raw'. ({self.name})"
            )
        if size is None and not shapes:
            raise ValueError(f"Loop size is undecided. ({self.name})")
        if size is not None:
            return (size,)
        return shapes[0] if len(set(shapes)) == 1 else np.broadcast_shapes(*shapes)

    def _allocated(self, shape: tuple[int, ...], T: str) -> tuple[Any, ...]:
        missing = self.parameters[self.n_inputs :]
        if any(item.is_raw for item in missing):
            raise ValueError(f"{self.name}: raw outputs must be given")
        return tuple(empty(shape, item.dtype(T)) for item in missing)

    def _view(self, item: _Parameter, value: Any, T: str, shape: tuple[int, ...]) -> Any:
        """Check an argument, and give the memory that the kernel sees."""
        where, dtype = f"{self.name}: {item.name}", item.dtype(T)
        if not isinstance(value, ndarray):
            is_number = type(value) is int or (type(value) is float and dtype.kind == "f")
            if item.is_raw or item.is_output or not is_number:
                raise TypeError(f"{where} is {value!r}")
            with np.errstate(over="ignore"):
                return np.broadcast_to(np.array(value, dtype), shape)  # or OverflowError
        if value.dtype != dtype:
            raise TypeError(f"Type is mismatched. {where} {value.dtype} {dtype}")
        if item.is_output and not value._view.flags.writeable:
            raise ValueError(f"{where} is read-only, for its elements share memory")
        if item.is_raw:
            if not value.flags.c_contiguous:
                raise ValueError(f"{where} is not contiguous")
            return value._view
        if item.is_output:
            if value.shape != shape:
                raise ValueError(
                    f"Out shape is mismatched. {where} has shape {value.shape}, the loop {shape}"
                )
            return value._view
        return value._view if value.shape == shape else np.broadcast_to(value._view, shape)

    def _run(self, function: Any, shape: tuple[int, ...], views: Iterable[Any]) -> None:
        arrays = list(views)
        arguments = (_Argument * len(arrays))()
        for argument, array in zip(arguments, arrays, strict=True):
            strides = array.strides
            argument.data = array.__array_interface__["data"][0]
            argument.size = array.size
            is_number = not any(strides)
            argument.step = 0 if is_number else array.itemsize if array.flags.c_contiguous else -1
            argument.strides = (ctypes.c_ssize_t * len(strides))(*strides)
        n_threads = math.prod(shape)
        c_shape = (ctypes.c_ssize_t * len(shape))(*shape)
        work = _Launch(n_threads, library.is_reversed, library.flushes, len(shape), c_shape)
        position = function(ctypes.byref(work), arguments)
        if position == -2:
            raise RuntimeError(f"{self.name}: the lanes of a warp miss each other")
        if position >= 0:
            raise IndexError(f"{self.name}: outside of {self.parameters[position].name}")
