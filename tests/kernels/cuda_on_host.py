"""Test equipment: the text of the CUDA kernels, compiled and run by the host.

What passes here is never a result of a GPU. :func:`stand_in` gives a module in place of CuPy whose
``ElementwiseKernel`` runs the very text that CuPy would compile, on NumPy arrays, so that the
arithmetic of indices, the order of loads and stores and the launches of ``cuda.py`` are tested
where there is no GPU. It differs from a GPU in what follows, and tests nothing of it:

- The branch of ``functions.h`` for the host is what runs, with its own exponentials and logarithms,
  not that of CUDA.
- Each row has one lane (``XPN_WARP`` is 1). What the lanes of a warp tell each other, such as the
  distances of a shuffle, is not in the text that runs, and a row is added up from left to right.
- Threads run one after another, in either order. Elements outside of a raw array are refused.

Arguments are checked as CuPy does it, and more strictly: a raw array must be contiguous, a number
must be one of Python's and fit its type, and which arguments are numbers must be as
:func:`~xpnet.kernels.cuda_source.kernels` says, for that is what the compiler for CUDA is given.
"""

from __future__ import annotations

import ctypes
import os
import shlex
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from xpnet.kernels.cuda_source import KernelSpec, kernels

__all__ = ["DTYPES", "Library", "build", "compiler", "launched_as", "stand_in"]

DTYPES = ("float32", "float64")

_C_TYPES = {
    "float32": "float",
    "float64": "double",
    "uint8": "unsigned char",
    "int32": "int",
    "uint32": "unsigned int",
    "int64": "long long",
    "uint64": "unsigned long long",
}
_NUMPY_NAMES = ("ndarray", "empty", "ascontiguousarray", "broadcast_to", "take", "divide")

_HEAD = """
#define XPN_WARP 1
#include <math.h>
#include <stddef.h>
"""

_EQUIPMENT = """
namespace on_host {

struct Launch { ptrdiff_t size; ptrdiff_t is_reversed; ptrdiff_t ndim; const ptrdiff_t* shape; };
struct Argument { char* data; ptrdiff_t size; const ptrdiff_t* strides; };

static int outside;  // the raw argument that was indexed outside, or -1

// Element i, in C order, of an array that broadcasts. A number has no strides but 0.
template <class U> U& element(const Launch& launch, const Argument& argument, ptrdiff_t i) {
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

}  // namespace on_host
"""


class _Launch(ctypes.Structure):
    _fields_ = (
        ("size", ctypes.c_ssize_t),
        ("is_reversed", ctypes.c_ssize_t),
        ("ndim", ctypes.c_ssize_t),
        ("shape", ctypes.POINTER(ctypes.c_ssize_t)),
    )


class _Argument(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("size", ctypes.c_ssize_t),
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
        return np.dtype(T if self.type == "T" else self.type)

    def c_type(self, T: str) -> str:
        return "const " * (not self.is_output) + _C_TYPES[self.dtype(T).name]


def compiler() -> list[str] | None:
    """Give the command of the host's C++ compiler, or None where there is none."""
    for text in (os.environ.get("CXX"), "c++", "g++"):
        command = shlex.split(text or "")
        if command and shutil.which(command[0]):
            return command
    return None


class Library:
    """Every kernel that the operations can ask for, compiled.

    Attributes
    ----------
    is_reversed : bool
        Whether the last thread runs first.
    launched : set
        What :func:`launched_as` gives for every kernel that has been launched.
    """

    def __init__(self, path: Path) -> None:
        library = ctypes.CDLL(str(path))
        self.functions = {
            (*text, T): library[f"kernel_{n}_{T}"]
            for n, text in enumerate(_texts())
            for T in DTYPES
        }
        self.known = {launched_as(spec, T) for spec in kernels() for T in DTYPES}
        self.launched: set[tuple[Any, ...]] = set()
        self.is_reversed = False


def build(folder: Path, command: list[str]) -> Library:
    """Compile all kernels, in one go."""
    source, library = folder / "kernels.cpp", folder / "kernels.so"
    source.write_text(_source(), encoding="utf-8")
    options = ["-std=c++17", "-O1", "-w", "-shared", "-fPIC"]
    subprocess.run([*command, *options, str(source), "-o", str(library)], check=True)
    return Library(library)


def launched_as(spec: KernelSpec, T: str) -> tuple[Any, ...]:
    """Tell a kernel from others by its text, its type and which arguments are numbers."""
    return (*_text(spec), T, spec.numbers)


def stand_in(library: Library) -> ModuleType:
    """Give the module in place of CuPy. It has no ``cuda``."""

    class ElementwiseKernel(_ElementwiseKernel):
        own = library

    module = ModuleType("cupy")
    vars(module).update({name: getattr(np, name) for name in _NUMPY_NAMES})
    vars(module).update(ElementwiseKernel=ElementwiseKernel)
    return module


def _text(spec: KernelSpec) -> tuple[str, str, str]:
    return spec.in_params, spec.out_params, spec.operation


def _texts() -> Iterable[tuple[str, str, str]]:
    """Give each text once: a kernel may be called with or without an operand."""
    return dict.fromkeys(map(_text, kernels()))


def _parameters(in_params: str, out_params: str) -> list[_Parameter]:
    found = []
    for text, is_output in ((in_params, False), (out_params, True)):
        for declaration in filter(None, map(str.strip, text.split(","))):
            *raw, type_, name = declaration.split()
            found.append(_Parameter(name, type_, raw == ["raw"], is_output))
    return found


def _source() -> str:
    """Write one C++ text: the preamble, then a function for each kernel and type."""
    preambles = {spec.preamble for spec in kernels()}
    parts = [_HEAD, *preambles, _EQUIPMENT]
    for n, (in_params, out_params, operation) in enumerate(_texts()):
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
    return "\n".join(
        [
            f'extern "C" int {name}(const on_host::Launch* host_launch, '
            "const on_host::Argument* host_arguments) {",
            f"typedef {_C_TYPES[T]} T;",
            "on_host::outside = -1;",
            *once,
            "for (ptrdiff_t host_turn = 0; host_turn < host_launch->size; ++host_turn) {",
            "const ptrdiff_t i = host_launch->is_reversed ? host_launch->size - 1 - host_turn "
            ": host_turn;",
            *each,
            f"{operation};",
            "}",
            "return on_host::outside;",
            "}",
        ]
    )


class _ElementwiseKernel:
    own: Library

    def __init__(
        self, in_params: str, out_params: str, operation: str, name: str, *, preamble: str
    ) -> None:
        assert "namespace xpn" in preamble
        self.text = in_params, out_params, operation
        self.name = name
        self.parameters = _parameters(in_params, out_params)
        self.n_inputs = sum(not item.is_output for item in self.parameters)

    def __call__(self, *args: Any, size: int | None = None, block_size: int = 128) -> Any:
        if len(args) not in (self.n_inputs, len(self.parameters)):
            raise TypeError(f"{self.name}: got {len(args)} arguments")
        if block_size not in range(32, 1025, 32):
            raise ValueError(f"{self.name}: a block of {block_size} threads")
        T = self._bind(args)
        shape = self._shape(args, size)
        outputs = args[self.n_inputs :] or self._allocated(shape, T)
        numbers = frozenset(
            item.name
            for item, value in zip(self.parameters, args, strict=False)
            if not isinstance(value, np.ndarray)
        )
        key = (*self.text, T, numbers)
        if key not in self.own.known:
            raise ValueError(f"{self.name}: no kernel of kernels() has the numbers {numbers}")
        arrays = [
            self._array(item, value, T, shape)
            for item, value in zip(self.parameters, (*args[: self.n_inputs], *outputs), strict=True)
        ]
        if 0 not in shape:
            self._launch(self.own.functions[(*self.text, T)], shape, arrays)
            self.own.launched.add(key)
        return outputs[0] if len(outputs) == 1 else tuple(outputs)

    def _bind(self, args: tuple[Any, ...]) -> str:
        """Give the one dtype of all arrays that are declared with ``T``."""
        found: set[str] = {
            value.dtype.name
            for item, value in zip(self.parameters, args, strict=False)
            if item.type == "T" and isinstance(value, np.ndarray)
        }
        if len(found) != 1:
            raise TypeError(f"{self.name}: T is {sorted(found)}")
        return found.pop()

    def _shape(self, args: tuple[Any, ...], size: int | None) -> tuple[int, ...]:
        """Give the shape of the loop."""
        shapes = [
            value.shape
            for item, value in zip(self.parameters, args, strict=False)
            if isinstance(value, np.ndarray) and not item.is_raw
        ]
        if size is not None and shapes:
            raise ValueError(f"{self.name}: size= is for kernels whose arrays are all raw")
        if size is None and not shapes:
            raise ValueError(f"{self.name}: no size")
        return np.broadcast_shapes(*shapes) if size is None else (size,)

    def _allocated(self, shape: tuple[int, ...], T: str) -> tuple[Any, ...]:
        missing = self.parameters[self.n_inputs :]
        if any(item.is_raw for item in missing):
            raise ValueError(f"{self.name}: raw outputs must be given")
        return tuple(np.full(shape, 77, item.dtype(T)) for item in missing)

    def _array(self, item: _Parameter, value: Any, T: str, shape: tuple[int, ...]) -> Any:
        """Check an argument, and give the array that the kernel sees."""
        where, dtype = f"{self.name}: {item.name}", item.dtype(T)
        if not isinstance(value, np.ndarray):
            is_number = type(value) is int or (type(value) is float and dtype.kind == "f")
            if item.is_raw or item.is_output or not is_number:
                raise TypeError(f"{where} is {value!r}")
            value = np.array(value, dtype)  # raises OverflowError for an integer out of range
        if value.dtype != dtype:
            raise TypeError(f"{where} must be {dtype}, got {value.dtype}")
        if item.is_output and not value.flags.writeable:
            raise ValueError(f"{where} is read-only")
        if item.is_raw:
            if not value.flags.c_contiguous:
                raise ValueError(f"{where} is not contiguous")
            return value
        if item.is_output:
            if value.shape != shape:
                raise ValueError(f"{where} has shape {value.shape}, the loop has {shape}")
            return value
        return np.broadcast_to(value, shape)

    def _launch(self, function: Any, shape: tuple[int, ...], arrays: list[Any]) -> None:
        arguments = (_Argument * len(arrays))()
        for argument, array in zip(arguments, arrays, strict=True):
            argument.data = array.ctypes.data
            argument.size = array.size
            argument.strides = (ctypes.c_ssize_t * array.ndim)(*array.strides)
        n_threads = int(np.prod(shape, dtype=np.int64))
        c_shape = (ctypes.c_ssize_t * len(shape))(*shape)
        launch = _Launch(n_threads, self.own.is_reversed, len(shape), c_shape)
        position = function(ctypes.byref(launch), arguments)
        if position >= 0:
            raise IndexError(f"{self.name}: outside of {self.parameters[position].name}")
