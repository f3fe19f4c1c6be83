"""The device that a network lives on: its array module, its operations and its stream.

A program makes a :class:`Device` once and passes it down. The mathematics never looks at an array
to find out where it is, and no global or context variable holds a choice: a process can use two
devices at the same time.
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
    """A device was requested by name and cannot be used; the message says why."""


class Device:
    """Where arrays live and operations run; made by :func:`device`.

    Parameters
    ----------
    name : str
        ``"cpu"`` or ``"cuda:N"``.
    xp : module
        The module ``numpy`` or ``cupy``.
    ops : ReferenceOps
        Operations for arrays of this device.
    index : int, optional
        CUDA device number; None on the CPU.
    kernels : {"fused", "reference"}
        Kind of operations in ``ops``.
    precision : {"float32", "tf32"}
        Precision of products of float32 matrices.

    Attributes
    ----------
    name, xp, ops, index, kernels, precision
        As given.
    stream : cupy.cuda.Stream or None
        Non-blocking stream that all of this device's work is issued on; None on the CPU.
    recorders : weakref.WeakSet
        Recorders of CUDA graphs for this device that are not closed.
    lock : threading.RLock
        Held while ``recorders`` changes and while memory is freed.
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
        """Pickle by name: a stream belongs to its process, and kernels to their machine."""
        return _restored, (self.name, self.kernels, self.precision)

    def __deepcopy__(self, memo: dict[int, Any]) -> Device:
        """Return the device itself: copied networks and arrays stay on it."""
        del memo
        return self

    @contextmanager
    def activate(self) -> Iterator[None]:
        """Issue the work inside the ``with`` block on this device.

        On CUDA the device and its stream become current. On entry this stream waits for the work
        already issued on the caller's stream; on exit the caller's stream waits for this one.
        Neither blocks the host. Nested blocks have no further effect. If the GPU runs out of
        memory inside, a MemoryError says how much was needed and how much is free.

        On the CPU, NumPy's floating-point warnings are off inside the block: divergence is detected
        by the loss, and on some ARM machines NumPy warns of divisions by zero in products that have
        none. With fused kernels, large arrays that are created inside use large memory pages.
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
                    f"{self.name} cannot be activated while a CUDA graph is recorded: copies from "
                    "and to the host are not allowed there"
                )
            self.stream.wait_event(caller.record())
            try:
                with self.stream, self._explained_memory():
                    yield
            finally:
                # On leaving "with", CuPy returns to the stream of the enclosing "with" and forgets
                # one that the caller chose by stream.use().
                caller.use()
                caller.wait_event(self.stream.record())

    @contextmanager
    def _explained_memory(self) -> Iterator[None]:
        try:
            yield
        except self.xp.cuda.memory.OutOfMemoryError as error:
            needed = getattr(error, "_size", None)  # CuPy's name for it; its message has it too
            what = str(error) if needed is None else f"{format_bytes(needed)} more were needed"
            free, total = self.memory()
            has = f"{format_bytes(free)} of {format_bytes(total)} are free"
            limit, allocated = getattr(error, "_limit", 0), getattr(error, "_total", 0)
            if needed and limit and allocated + needed > limit:
                has = f"CuPy's memory pool is limited to {format_bytes(limit)}"
            raise MemoryError(f"{self.name} is out of memory: {what}, and {has}") from error

    def memory(self) -> tuple[int, int]:
        """Return the GPU's free and total memory.

        Returns
        -------
        free, total : int
            Number of bytes. Free memory includes what CuPy's pool holds for later arrays. It does
            not exceed what the pool's limit, if it has one, allows.

        Raises
        ------
        ValueError
            On the CPU.
        """
        if self.index is None:
            raise ValueError("memory() needs a GPU, but the device is 'cpu'")
        with self.xp.cuda.Device(self.index):
            free, total = self.xp.cuda.runtime.memGetInfo()
            pool = self._pool()
            free += pool.free_bytes()
            limit = pool.get_limit()
            return (min(free, limit - pool.used_bytes()) if limit else free), total

    def _pool(self) -> Any:
        return self.xp.get_default_memory_pool()

    def require_room(self, n_bytes: int, name: str, advice: str) -> None:
        """Raise a MemoryError if the GPU has no room for an array, before copying any of it.

        Parameters
        ----------
        n_bytes : int
            Size of the array.
        name : str
            Name of the array in the error message.
        advice : str
            What the message tells the user to do.

        Raises
        ------
        MemoryError
            If the array does not fit; the message has both sizes. It is never raised on the CPU,
            where the operating system manages memory, nor if CuPy uses an allocator other than its
            own pool, which may have more memory than the GPU.
        """
        if self.index is None or self.xp.cuda.get_allocator() != self._pool().malloc:
            return
        free, total = self.memory()
        if n_bytes > free:
            raise MemoryError(
                f"{name} needs {format_bytes(n_bytes)}, but {self.name} has {format_bytes(free)} "
                f"of {format_bytes(total)} free: {advice}"
            )

    def free_memory(self) -> None:
        """Return unused GPU memory to the system, for other programs.

        CuPy keeps freed memory for its next arrays. Operations keep a workspace for products and
        buffers for sums over columns, and allocate them again when needed. This frees all of it:
        after :func:`xpnet.training.fit` only the model is left. On the CPU it does nothing.

        A graph that was recorded for another device must not hold operations of this one.

        Raises
        ------
        RuntimeError
            If a training step that is captured as a graph uses this memory, as during ``fit``.
        """
        if self.index is None:
            return
        with self.lock, self.activate():  # no recorder can be added meanwhile
            if len(self.recorders):
                raise RuntimeError(
                    f"{self.name}: memory cannot be freed while a captured training step uses it"
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
        """Convert a user's array to an array of this device.

        Parameters
        ----------
        array : array_like or cupy.ndarray
            A CUDA device copies host data; it uses an array that is already on the same GPU as it
            is. The CPU does not copy host arrays of the right dtype and layout.
        dtype : dtype, optional
            Data type of the result; default: the array's own.
        name : str
            Name of the argument in error messages.
        advice : str, optional
            What to tell the user if the GPU has no room for the array. Give it for arrays that may
            be large: their size is then checked before the copy; see :meth:`require_room`.

        Returns
        -------
        C-contiguous array of this device

        Raises
        ------
        TypeError
            If the array lives on another device, or cannot be converted to ``dtype``.
        MemoryError
            If the GPU has no room for it.
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
            # Not asarray for CuPy's own arrays: it would silently copy one from another GPU.
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
        """Return an array of this device as a NumPy array.

        On CUDA this waits for the work that produces the array and copies it. On the CPU it returns
        the array itself.
        """
        if self.index is None:
            return np.asarray(array)
        with self.activate():
            return np.asarray(self.xp.asnumpy(array))


_idle_streams: defaultdict[tuple[Any, int], list[Any]] = defaultdict(list)  # by CuPy and device


def lease_stream(cupy: Any, index: int, user: object) -> tuple[Any, Callable[[], object]]:
    """Lease a non-blocking stream to an object for as long as the object lives.

    Afterwards another object may get the stream. Streams are reused because CuPy keeps memory that
    was freed on a stream for that stream only, even after the stream is gone: with a new stream,
    each training would allocate new memory. As with any CuPy stream, keep an array until every
    other stream that reads it has done so.

    Parameters
    ----------
    cupy : module
    index : int
        CUDA device number.
    user : object
        Object that uses the stream.

    Returns
    -------
    stream : cupy.cuda.Stream
    give_back : callable
        Ends the lease early.
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
    """Return the device that a program runs on.

    Parameters
    ----------
    spec : str, Device or None
        ``"cpu"``, ``"cuda"`` (the first GPU), ``"cuda:N"`` or ``"auto"``. ``"auto"`` chooses the
        first GPU if it is usable and otherwise the CPU. It logs its choice and the reason (logger
        ``xpnet``); choosing the CPU is a warning, which Python shows by default. None reads the
        environment variable ``XPNET_DEVICE``; if that is not set, it means ``"cpu"``. A
        :class:`Device` is returned unchanged, unless ``kernels`` or ``precision`` differs from its
        own.
    kernels : {"fused", "reference"} or None
        ``"fused"`` for the compiled operations, ``"reference"`` for plain array expressions. None
        reads the environment variable ``XPNET_KERNELS``; if that is not set, operations are fused
        if possible. On the CPU, fused operations need the kernels built at installation.
    precision : {"float32", "tf32"} or None
        Precision of products of float32 matrices on a GPU. ``"tf32"`` rounds their elements to 10
        bits of mantissa, as tensor cores do from compute capability 8.0 on, and sums in float32.
        None reads the environment variable ``XPNET_PRECISION``; if that is not set, it means
        ``"float32"``. Products of float64 matrices are the same in both.

    Returns
    -------
    Device

    Raises
    ------
    ValueError
        If ``spec``, ``kernels`` or ``precision`` is not one of these values.
    DeviceUnavailableError
        If you requested CUDA by name and it is not usable, fused kernels and there are none, or a
        precision that the device lacks. There is no silent fall-back.
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
    """Return the requested value, from the argument or its environment variable, and its source."""
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
            f"{exact[1]}=tf32 needs an NVIDIA GPU, but the device is 'cpu'"
        )
    problem = None if kernels == "reference" else host.problem()  # this loads the kernels
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
                f"{exact[1]}=tf32 needs compute capability 8.0 or higher, but {name} has "
                f"{capability[0]}.{capability[1]}"
            )
        if wanted[0] == "reference":
            raise DeviceUnavailableError(
                f"{exact[1]}=tf32 needs fused kernels, but {wanted[1]}=reference"
            )
    if wanted[0] == "reference":
        return Device(name, cupy, ReferenceOps(cupy), index=index)
    from xpnet.kernels import cublas, cuda  # not needed on the CPU

    fused: dict[str, Callable[..., Any]] = {
        **cuda.fused(cupy),
        "matmul": cublas.Products(cupy, precision),
    }
    return Device(
        name, cupy, ReferenceOps(cupy, fused), index=index, kernels="fused", precision=precision
    )


def _restored(name: str, kernels: str, precision: str = "float32") -> Device:
    """Return a pickled device; without host kernels on this machine, it uses the reference."""
    if name == "cpu" and host.problem() is not None:
        kernels = "reference"
    return device(name, kernels, precision)


def format_bytes(n: int) -> str:
    """Format a number of bytes with a unit: 3210000000 is "3.2 GB"."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if n >= size:
            return f"{n / size:.1f} {unit}"
    return f"{n} bytes"


def host_array(
    array: Any, dtype: npt.DTypeLike | None = None, *, name: str = "array"
) -> npt.NDArray[Any]:
    """Convert to a C-contiguous NumPy array of numbers in native byte order.

    Parameters
    ----------
    array : array_like
        Array on the host.
    dtype : dtype, optional
        Data type of the result; default: the array's own.
    name : str
        Name of the argument in error messages.

    Returns
    -------
    numpy.ndarray
        The array itself if nothing needs to change.

    Raises
    ------
    TypeError
        If it cannot be converted: strings, complex numbers, masked or sparse arrays, ragged lists.
    """
    try:
        raw = np.asarray(array)
        if isinstance(array, np.ma.MaskedArray):
            reason = "it is a masked array; fill in the masked values first"
        elif raw.dtype.kind == "O" and any(isinstance(item, (str, bytes)) for item in raw.flat):
            reason = "it holds strings"
        elif raw.dtype.kind == "O" and hasattr(array, "tocsr"):
            reason = "it is sparse; only the samples of fit, evaluate and predict may be sparse"
        elif raw.dtype.kind in "biuf" or (raw.dtype.kind == "O" and dtype is not None):
            target = raw.dtype.newbyteorder("=") if dtype is None else dtype
            if raw.dtype == target and raw.flags.c_contiguous:
                return raw
            with np.errstate(all="ignore"):  # overflow gives inf, which fit refuses
                return np.asarray(raw, dtype=target, order="C")
        else:
            reason = f"its dtype is {raw.dtype}"
    except (OverflowError, RuntimeError, TypeError, ValueError) as error:
        reason = one_line(error)
    wanted = "numbers" if dtype is None else f"an array of {np.dtype(dtype)}"
    raise TypeError(f"{name} does not convert to {wanted}: {reason}")
