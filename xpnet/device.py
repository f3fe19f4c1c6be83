"""The device that a network lives on: its array module, operations, stream and border.

A :class:`Device` is made once, at the edge of a program, and handed down. The mathematics never
looks at an array to find out where it is, and no global or context variable holds a choice: two
devices can live side by side in one process.
"""

from __future__ import annotations

import importlib
import logging
import os
import re
import threading
import weakref
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from xpnet.kernels import host, transfer
from xpnet.kernels.cuda_check import compute_capability, cuda_problem, one_line
from xpnet.kernels.reference import Array, NumpyOps, ReferenceOps
from xpnet.kernels.streams import is_recorded

__all__ = [
    "PRECISIONS",
    "Device",
    "DeviceUnavailableError",
    "device",
    "format_bytes",
    "host_array",
    "lease_stream",
]

_VALID = "'cpu', 'cuda', 'cuda:N' (N a device number) or 'auto'"
_TF32_MIN_CAPABILITY = (8, 0)
PRECISIONS = ("float32", "tf32")

logger = logging.getLogger("xpnet")


class DeviceUnavailableError(RuntimeError):
    """A device was asked for by name and cannot be used; the message says why."""


class Device:
    """Where arrays live and operations run; made by :func:`device`.

    Parameters
    ----------
    name : str
        ``"cpu"`` or ``"cuda:N"``.
    xp : module
        ``numpy`` or ``cupy``, the module itself.
    ops : ReferenceOps
        The table of operations, picked here once.
    index : int, optional
        CUDA device number; None on the CPU.
    kernels : {"fused", "reference"}
        Which operations ``ops`` holds.
    precision : {"float32", "tf32"}
        What products of float32 matrices are computed in.

    Attributes
    ----------
    name, xp, ops, index, kernels, precision
        As given.
    stream : cupy.cuda.Stream or None
        The one non-blocking stream that all of this device's work is issued on; None on the CPU.
    recorders : weakref.WeakSet
        Those that record graphs for this device, and whose graphs may be launched.
    lock : threading.RLock
        Held while ``recorders`` changes and while memory is given back.
    """

    def __init__(
        self,
        name: str,
        xp: ModuleType,
        ops: ReferenceOps,
        *,
        index: int | None = None,
        kernels: str = "reference",
        precision: str = "float32",
    ) -> None:
        self.name = name
        self.xp: Any = xp
        self.ops = ops
        self.index = index
        self.kernels = kernels
        self.precision = precision
        self.lock = threading.RLock()
        self.recorders: weakref.WeakSet[Any] = weakref.WeakSet()
        self.stream: Any = None
        if index is not None:
            self.stream = lease_stream(self.xp, index, self)[0]

    def __repr__(self) -> str:
        return f"Device({self.name!r})"

    def __reduce__(self) -> tuple[Any, tuple[str, str, str]]:
        """Pickle by name: a stream cannot leave its process, nor kernels their machine."""
        return _restored, (self.name, self.kernels, self.precision)

    def __deepcopy__(self, memo: dict[int, Any]) -> Device:
        """Stay the same device: copies of what lives on it live on it too."""
        del memo
        return self

    @contextmanager
    def activate(self) -> Iterator[None]:
        """Issue the work inside the ``with`` block on this device.

        On CUDA the device and its stream become current. Entering waits, on the GPU, for what the
        caller's stream has been given so far; leaving makes the caller's stream wait for this
        one. Neither blocks the host. Nesting is free of effect. Where the GPU's memory runs out
        inside, a MemoryError says in one line what was needed and what is free.

        On the CPU NumPy's floating-point warnings are off inside: a diverging run is detected by
        its loss, and NumPy on some ARM machines warns of divisions by zero in products that have
        none. With fused kernels large arrays that are made inside lie in large pages.
        """
        if self.index is None:
            pages = host.large_pages() if self.kernels == "fused" else nullcontext()
            with np.errstate(all="ignore"), pages:
                yield
            return
        cuda = self.xp.cuda
        with cuda.Device(self.index):
            caller = cuda.get_current_stream()
            if caller == self.stream:
                with self._explained_memory():
                    yield
                return
            if is_recorded():
                raise RuntimeError(
                    f"{self.name} cannot be activated inside of work that is recorded as a graph: "
                    "that is for what comes from the host, or goes there"
                )
            self.stream.wait_event(caller.record())
            try:
                with self.stream, self._explained_memory():
                    yield
            finally:
                # Leaving its "with" makes CuPy return to the stream of the enclosing "with", and
                # forget one that the caller chose by stream.use().
                caller.use()
                caller.wait_event(self.stream.record())

    @contextmanager
    def _explained_memory(self) -> Iterator[None]:
        try:
            yield
        except self.xp.cuda.memory.OutOfMemoryError as error:
            needed = getattr(error, "_size", None)  # by CuPy's name; its message has it as well
            what = str(error) if needed is None else f"{format_bytes(needed)} more were needed"
            free, total = self.memory()
            has = f"{format_bytes(free)} of {format_bytes(total)} are free"
            limit, allocated = getattr(error, "_limit", 0), getattr(error, "_total", 0)
            if needed and limit and allocated + needed > limit:
                has = f"CuPy's memory pool is limited to {format_bytes(limit)}"
            raise MemoryError(f"{self.name} is out of memory: {what}, and {has}") from error

    def memory(self) -> tuple[int, int]:
        """Tell how much memory the GPU has.

        Returns
        -------
        free, total : int
            Bytes. What is free includes what CuPy's pool holds for later arrays, and is no more
            than its limit allows, if it has one.

        Raises
        ------
        ValueError
            On the CPU.
        """
        if self.index is None:
            raise ValueError("memory() is about a GPU, but the device is 'cpu'")
        with self.xp.cuda.Device(self.index):
            free, total = self.xp.cuda.runtime.memGetInfo()
            pool = self._pool()
            free += pool.free_bytes()
            limit = pool.get_limit()
            return (min(free, limit - pool.used_bytes()) if limit else free), total

    def _pool(self) -> Any:
        return self.xp.get_default_memory_pool()

    def require_room(self, n_bytes: int, name: str, advice: str) -> None:
        """Refuse an array that the GPU has no room for, before any of it is copied.

        Parameters
        ----------
        n_bytes : int
            That it takes.
        name : str
            How the error message calls it.
        advice : str
            What the message says to do.

        Raises
        ------
        MemoryError
            With both sizes. Never on the CPU, where memory is the operating system's concern, nor
            where CuPy's allocator is another than its own pool and may have more than the GPU.
        """
        if self.index is None or self.xp.cuda.get_allocator() != self._pool().malloc:
            return
        free, total = self.memory()
        if n_bytes > free:
            raise MemoryError(
                f"{name} takes {format_bytes(n_bytes)}, and {self.name} has {format_bytes(free)} "
                f"of {format_bytes(total)} free: {advice}"
            )

    def free_memory(self) -> None:
        """Give memory back to the GPU that no array uses, for other programs to have.

        CuPy keeps freed memory for its next arrays; operations keep a workspace for products and
        buffers for sums over columns, and make them anew when they are called again. All of it goes
        back: after :func:`xpnet.training.fit` what is left is the model. Nothing on the CPU.

        A graph that was recorded for another device must not hold operations of this one.

        Raises
        ------
        RuntimeError
            If a training step that is captured as a graph uses what is kept, as during ``fit``.
        """
        if self.index is None:
            return
        with self.lock, self.activate():  # no recorder comes meanwhile
            if len(self.recorders):
                raise RuntimeError(
                    f"{self.name}: a captured training step uses the memory that would be freed"
                )
            self.synchronize()
            for name in self.ops.fused:
                release = getattr(getattr(self.ops, name), "release", None)
                if release is not None:
                    release()
            self._pool().free_all_blocks()

    def synchronize(self) -> None:
        """Block the host until all work issued on this device has finished."""
        if self.stream is not None:
            self.stream.synchronize()

    def asarray(
        self,
        array: Any,
        dtype: npt.DTypeLike | None = None,
        *,
        name: str = "array",
        advice: str | None = None,
    ) -> Array:
        """Bring a user's array over the border.

        Parameters
        ----------
        array : array_like or cupy.ndarray
            On a CUDA device host data are copied there, and an array that is already on the same
            GPU is used as it is. On the CPU host arrays of the right dtype and layout are not
            copied.
        dtype : dtype, optional
            Converted to this; by default the array's own.
        name : str
            How error messages call the argument.
        advice : str, optional
            For what may be large: what an error message says to do where a GPU has no room for it.
            That is then found out before anything is copied; see :meth:`require_room`.

        Returns
        -------
        C-contiguous array of this device

        Raises
        ------
        TypeError
            If the array lives on another device, or does not convert to ``dtype``.
        MemoryError
            If a GPU has no room for it.
        """
        on_gpu = hasattr(array, "__cuda_array_interface__")
        if self.index is None:
            if on_gpu:
                raise TypeError(
                    f"{name} is a {type(array).__module__} array on a GPU, but the device is "
                    "'cpu': pass a host array, or choose device='cuda'"
                )
            return host_array(array, dtype, name=name)
        with self.activate():
            if not on_gpu:
                array = host_array(array, dtype, name=name)
                if advice is not None:
                    self.require_room(array.nbytes, name, advice)
                large = array.nbytes > transfer.LARGE
                return transfer.to_gpu(self.xp, array) if large else self.xp.asarray(array)
            # CuPy's own arrays as they are: asarray would copy one of another GPU without a word.
            is_cupy = isinstance(array, self.xp.ndarray)
            gpu_array = array if is_cupy else self.xp.asarray(array)
            if gpu_array.device.id != self.index:
                raise TypeError(
                    f"{name} lives on cuda:{gpu_array.device.id}, but the device is "
                    f"'{self.name}': move it there first"
                )
            if gpu_array.dtype.kind not in "biuf":
                raise TypeError(
                    f"{name} does not convert to numbers: its dtype is {gpu_array.dtype}"
                )
            return self.xp.ascontiguousarray(gpu_array, dtype=dtype)

    def to_host(self, array: Array) -> npt.NDArray[Any]:
        """Bring an array of this device to the host, as a NumPy array.

        On CUDA this waits for the work that produces the array and copies it; on the CPU it
        returns the array itself.
        """
        if self.index is None:
            return np.asarray(array)
        with self.activate():
            return np.asarray(self.xp.asnumpy(array))


_idle_streams: defaultdict[tuple[Any, int], list[Any]] = defaultdict(list)  # by CuPy and device


def lease_stream(cupy: Any, index: int, user: object) -> tuple[Any, Callable[[], object]]:
    """Give a non-blocking stream to an object, which has it to itself as long as it lives.

    Then another object may get it. CuPy keeps memory that was freed on a stream for that stream
    alone, even when the stream is gone: with a new one for each training, each would take memory
    anew. As with any stream of CuPy's, an array that another stream still reads must be kept until
    it has done so.

    Parameters
    ----------
    cupy : module
    index : int
        CUDA device number.
    user : object
        The one that uses it.

    Returns
    -------
    stream : cupy.cuda.Stream
    give_back : callable
        Returns the stream early.
    """
    idle = _idle_streams[cupy, index]
    try:
        stream = idle.pop()
    except IndexError:
        with cupy.cuda.Device(index):
            stream = cupy.cuda.Stream(non_blocking=True)
    give_back = weakref.finalize(user, idle.append, stream)
    give_back.atexit = False
    return stream, give_back


def device(
    spec: str | Device | None = None, kernels: str | None = None, precision: str | None = None
) -> Device:
    """Make the device that a program runs on.

    Parameters
    ----------
    spec : str, Device or None
        ``"cpu"``; ``"cuda"`` (the first GPU) or ``"cuda:N"``; ``"auto"``, which takes the first
        GPU where one is usable and else the CPU, and logs which and why (logger ``xpnet``; the
        CPU as a warning, which Python shows unless told otherwise). None reads the environment
        variable ``XPNET_DEVICE``, and means ``"cpu"`` where it is not set. A :class:`Device` is
        returned as it is, unless ``kernels`` or ``precision`` asks for others than it has.
    kernels : {"fused", "reference"} or None
        ``"fused"`` for the compiled operations, ``"reference"`` for plain array expressions. None
        reads the environment variable ``XPNET_KERNELS``; where it is not set, operations are fused
        where that is possible. On the CPU that takes kernels that were built at installation.
    precision : {"float32", "tf32"} or None
        What products of float32 matrices are computed in on a GPU: ``"tf32"`` rounds their elements
        to 10 bits of mantissa, as tensor cores do from compute capability 8.0 on, and sums in
        float32. None reads the environment variable ``XPNET_PRECISION``, and means ``"float32"``
        where it is not set. Products of float64 matrices are the same in both.

    Returns
    -------
    Device

    Raises
    ------
    ValueError
        If ``spec``, ``kernels`` or ``precision`` is none of these.
    DeviceUnavailableError
        If CUDA was asked for by name and is not usable, or fused kernels, and there are none, or a
        precision that the device does not have. There is no silent fall-back.
    """
    if isinstance(spec, Device):
        if kernels in (None, spec.kernels) and precision in (None, spec.precision):
            return spec
        kernels, precision = kernels or spec.kernels, precision or spec.precision
        spec = spec.name
    wanted = _requested("kernels", kernels, ("fused", "reference"))
    exact = _requested("precision", precision, PRECISIONS)
    source = "device"
    if spec is None:
        source = "XPNET_DEVICE"
        spec = os.environ.get("XPNET_DEVICE") or "cpu"
    if not isinstance(spec, str) or not re.fullmatch(r"cpu|auto|cuda(:\d+)?", spec):
        raise ValueError(f"{source} must be {_VALID}, got {spec!r}")
    if spec == "cpu":
        return _cpu_device(wanted, exact)
    index = int(spec.partition(":")[2] or 0)
    problem = cuda_problem(index)
    if problem is None:
        chosen = _cuda_device(index, wanted, exact)
    elif spec == "auto":
        chosen = _cpu_device(wanted, exact)
    else:
        raise DeviceUnavailableError(f"{source}={spec}: {problem}")
    if spec == "auto":
        level = logging.INFO if problem is None else logging.WARNING
        logger.log(level, "device 'auto' is %s (%s)", chosen.name, problem or "a usable GPU")
    return chosen


def _requested(name: str, value: str | None, valid: tuple[str, ...]) -> tuple[str | None, str]:
    """Read what is wanted, from the argument or its environment variable, and who says so."""
    source = name
    if value is None:
        source = f"XPNET_{name.upper()}"
        value = os.environ.get(source) or None
    if value not in (None, *valid):
        listed = " or ".join(map(repr, valid))
        raise ValueError(f"{source} must be {listed}, got {value!r}")
    return value, source


def _cpu_device(wanted: tuple[str | None, str], exact: tuple[str | None, str]) -> Device:
    kernels, source = wanted
    if exact[0] == "tf32":
        raise DeviceUnavailableError(
            f"{exact[1]}=tf32: it is a number format of NVIDIA's GPUs, and the device is 'cpu'"
        )
    problem = None if kernels == "reference" else host.problem()  # which loads them
    if kernels == "fused" and problem is not None:
        raise DeviceUnavailableError(f"{source}=fused: the host kernels are {problem}")
    if kernels == "reference" or problem is not None:
        return Device("cpu", np, NumpyOps(np))
    return Device("cpu", np, NumpyOps(np, {**host.fused(), **host.shared()}), kernels="fused")


def _cuda_device(
    index: int, wanted: tuple[str | None, str], exact: tuple[str | None, str]
) -> Device:
    cupy = importlib.import_module("cupy")
    name = f"cuda:{index}"
    precision = exact[0] or "float32"
    if precision == "tf32":
        capability = compute_capability(cupy, index)
        if capability < _TF32_MIN_CAPABILITY:
            raise DeviceUnavailableError(
                f"{exact[1]}=tf32: {name} has compute capability {capability[0]}.{capability[1]}, "
                "and TF32 came with 8.0"
            )
        if wanted[0] == "reference":
            raise DeviceUnavailableError(
                f"{exact[1]}=tf32: products of reference kernels are CuPy's own, in float32"
            )
    if wanted[0] == "reference":
        return Device(name, cupy, ReferenceOps(cupy), index=index)
    from xpnet.kernels import cublas, cuda  # what the CPU has no use for

    fused: dict[str, Callable[..., Any]] = {
        **cuda.fused(cupy),
        "matmul": cublas.Products(cupy, precision),
    }
    return Device(
        name, cupy, ReferenceOps(cupy, fused), index=index, kernels="fused", precision=precision
    )


def _restored(name: str, kernels: str, precision: str = "float32") -> Device:
    """Make the device of a pickle: its kernels are used where they are there too."""
    if name == "cpu" and host.problem() is not None:
        kernels = "reference"
    return device(name, kernels, precision)


def format_bytes(n: int) -> str:
    """Write a number of bytes as people do: 3210000000 is "3.2 GB"."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if n >= size:
            return f"{n / size:.1f} {unit}"
    return f"{n} bytes"


def host_array(
    array: Any, dtype: npt.DTypeLike | None = None, *, name: str = "array"
) -> npt.NDArray[Any]:
    """Make a C-contiguous NumPy array of numbers in native byte order, or refuse.

    Parameters
    ----------
    array : array_like
        On the host.
    dtype : dtype, optional
        By default the array's own.
    name : str
        How error messages call the argument.

    Returns
    -------
    numpy.ndarray
        The array itself where nothing needs to change.

    Raises
    ------
    TypeError
        If it does not convert: strings, complex numbers, masked or sparse arrays, ragged lists.
    """
    wanted = "numbers" if dtype is None else f"an array of {np.dtype(dtype)}"
    try:
        raw = np.asarray(array)
        if isinstance(array, np.ma.MaskedArray):
            reason = "it is a masked array; fill in what is masked first"
        elif raw.dtype.kind == "O" and any(isinstance(item, (str, bytes)) for item in raw.flat):
            reason = "it holds strings"
        elif raw.dtype.kind == "O" and hasattr(array, "tocsr"):
            reason = "it is sparse, which only samples may be that fit, evaluate or predict take"
        elif raw.dtype.kind in "biuf" or (raw.dtype.kind == "O" and dtype is not None):
            target = raw.dtype.newbyteorder("=") if dtype is None else dtype
            with np.errstate(all="ignore"):  # what overflows becomes infinite; fit refuses that
                return np.asarray(raw, dtype=target, order="C")
        else:
            reason = f"its dtype is {raw.dtype}"
    except (OverflowError, RuntimeError, TypeError, ValueError) as error:
        reason = one_line(error)
    raise TypeError(f"{name} does not convert to {wanted}: {reason}")
