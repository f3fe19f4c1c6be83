"""Test equipment: devices, streams, events and graphs of the stand-in, and the order they keep.

Work runs at once, on the host, in the order in which it is issued. What a GPU would have been free
to do is tracked beside it: every stream has a clock of its own, events and synchronisation carry
clocks from one to another, and every allocation remembers who wrote and read it last. An access
that nothing orders behind an earlier one of another stream raises :class:`OrderError`, where a GPU
would now and then give a wrong result.
"""

from __future__ import annotations

import itertools
import threading
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from tests.emulation.arrays import ndarray
    from tests.emulation.memory import Allocation

__all__ = [
    "CUDARuntimeError",
    "Device",
    "DeviceSynchronized",
    "Event",
    "Graph",
    "OrderError",
    "Stream",
    "allow_synchronize",
    "check_synchronize",
    "current_device",
    "forbid_in_capture",
    "get_current_stream",
    "launch",
    "reset",
    "synchronized_read",
]

N_DEVICES = 2
NAME = "emulated GPU (test equipment)"


class OrderError(RuntimeError):
    """An access to memory that nothing orders behind an earlier one on another stream."""


class CUDARuntimeError(RuntimeError):
    """An error of the CUDA runtime, as ``cupy.cuda.runtime.CUDARuntimeError``."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(f"{name}: {text}")
        self.name = name


class _Thread(threading.local):
    """What CuPy keeps for each thread of the host."""

    def __init__(self) -> None:
        self.device = 0
        self.current: dict[int, Stream] = {}
        self.enclosing: dict[int, list[Stream]] = {}  # of the "with" blocks, for each device
        self.entered: list[int] = []  # on which device each "with" block was entered
        self.may_synchronize = True
        self.capturing: Stream | None = None


_thread = _Thread()
lock = threading.RLock()  # of all that threads share


class Timeline:
    """The order of work on one stream of one device."""

    def __init__(self, device: int, name: str, *, is_null: bool, is_blocking: bool) -> None:
        self.device = device
        self.name = name
        self.is_null = is_null
        self.is_blocking = is_blocking
        self.number = next(_numbers)
        self.position = 0
        self.known: dict[int, int] = {}  # up to where this stream has waited for others, by number
        self.freed: dict[Timeline, int] = {}  # who used what this stream had asked for

    def clock(self) -> dict[int, int]:
        return {**self.known, self.number: self.position}

    def join(self, clock: dict[int, int]) -> None:
        for other, position in clock.items():
            self.known[other] = max(self.known.get(other, 0), position)

    def move_on(self) -> None:
        self.position += 1
        _issued[self.device][self.number] = self.position

    def has_waited_for(self, stamp: tuple[Timeline, int]) -> bool:
        timeline, position = stamp
        if timeline is self:
            return True
        number = timeline.number
        return max(self.known.get(number, 0), _host.get(number, 0)) >= position

    def still_used(self) -> dict[Timeline, int]:
        """Say who may still be at work on what this stream had asked for."""
        if self.freed:
            waiting = [stamp for stamp in self.freed.items() if not self.has_waited_for(stamp)]
            self.freed = dict(waiting)
        return dict(self.freed)


# By device: what the GPUs say. A test may let them say something else.
capabilities = dict.fromkeys(range(N_DEVICES), "90")

# By the numbers of timelines, which outlive them: memory may be freed after its streams, in any
# order. What each device was given, and what the host has waited for, and so everything that it
# issues from now on.
_numbers = itertools.count()
_issued: list[dict[int, int]] = [{} for _ in range(N_DEVICES)]
_host: dict[int, int] = {}
_null = [
    Timeline(i, f"the default stream of cuda:{i}", is_null=True, is_blocking=True)
    for i in range(N_DEVICES)
]
_blocking: weakref.WeakSet[Timeline] = weakref.WeakSet()


class ExtensionType(type):
    """The type of classes that are compiled in CuPy: Python cannot change them."""

    def __setattr__(cls, name: str, value: object) -> None:
        raise TypeError(f"cannot set {name!r} attribute of immutable type {cls.__name__!r}")

    def __delattr__(cls, name: str) -> None:
        raise TypeError(f"cannot set {name!r} attribute of immutable type {cls.__name__!r}")


class Device(metaclass=ExtensionType):
    """As ``cupy.cuda.Device``."""

    def __init__(self, index: int | None = None) -> None:
        self.id = _thread.device if index is None else index
        if not 0 <= self.id < N_DEVICES:  # CuPy: once it is used (runtime.pyx, setDevice)
            raise CUDARuntimeError("cudaErrorInvalidDevice", "invalid device ordinal")
        self._outer: list[int] = []

    def __enter__(self) -> Device:
        self._outer.append(_thread.device)
        _thread.device = self.id
        return self

    def __exit__(self, *error: object) -> None:
        _thread.device = self._outer.pop()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Device) and other.id == self.id

    def __hash__(self) -> int:
        return hash(self.id)

    def use(self) -> None:
        _thread.device = self.id

    def synchronize(self) -> None:
        """Wait for all streams of the device."""
        _check_wait("Device.synchronize", None)
        with lock:
            _merge_host(_issued[self.id])

    # What one kind of GPU says.

    @property
    def compute_capability(self) -> str:
        return capabilities[self.id]


_pointers = itertools.count(0x1000, 0x100)


class Stream:
    """As ``cupy.cuda.Stream``; ``Stream.null`` is the default stream of the current device.

    Leaving a ``with`` block makes the stream of the enclosing block current, or the default stream,
    and forgets one that was chosen by :meth:`use` (CuPy's tests/cupy_tests/cuda_tests/
    test_stream.py, test_mix_use_context).
    """

    null: Stream

    def __init__(self, null: bool = False, non_blocking: bool = False) -> None:
        self.ptr = 0
        self.device_id = -1
        if null:
            return
        self.ptr = next(_pointers)
        self.device_id = _thread.device
        name = f"stream {self.ptr:#x} of cuda:{self.device_id}"
        is_blocking = not non_blocking
        self._own = Timeline(self.device_id, name, is_null=False, is_blocking=is_blocking)
        self._recorded: list[_Recorded] | None = None
        self._is_spoiled = False
        if is_blocking:
            with lock:
                _blocking.add(self._own)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Stream) and other.ptr == self.ptr

    def __hash__(self) -> int:
        return hash(self.ptr)

    def __repr__(self) -> str:
        return f"<Stream {self.ptr} (device {self.device_id})>"

    @property
    def timeline(self) -> Timeline:
        return self._own if self.ptr else _null[_thread.device]

    def _on_device(self) -> int:
        if self.device_id not in (-1, _thread.device):
            raise RuntimeError(  # cupy/cuda/stream.pyx, check_stream_device_match
                f"The device that the stream is created on ({self.device_id}) does not match with "
                f"the current device ({_thread.device})"
            )
        return _thread.device

    def use(self) -> Stream:
        """Make this the current stream of the thread."""
        _thread.current[self._on_device()] = self
        return self

    def __enter__(self) -> Stream:
        device = self._on_device()
        _thread.enclosing.setdefault(device, []).append(self)
        _thread.entered.append(device)
        _thread.current[device] = self
        return self

    def __exit__(self, *error: object) -> None:
        # cupy/cuda/stream.pyx, _ThreadLocal.pop_stream
        device = _thread.entered.pop()
        enclosing = _thread.enclosing[device]
        enclosing.pop()
        _thread.current[device] = enclosing[-1] if enclosing else Stream.null

    def record(self, event: Event | None = None) -> Event:
        """Mark what this stream has been given so far."""
        forbid_in_capture("the stand-in records no events in a graph", NotImplementedError)
        event = Event() if event is None else event
        if event.device != self.timeline.device:
            # cupy_backends/cuda/api/runtime.pyx, eventRecord; CUDA's cudaEventRecord
            raise CUDARuntimeError("cudaErrorInvalidResourceHandle", "invalid resource handle")
        with lock:
            _synchronize_null(self.timeline)
            event.clock = self.timeline.clock()
        return event

    def wait_event(self, event: Event) -> None:
        """Order what this stream is given from now on behind an event."""
        forbid_in_capture("the stand-in lets no event into a graph", NotImplementedError)
        with lock:
            self.timeline.join(event.clock)

    def synchronize(self) -> None:
        """Block the host until this stream has done its work."""
        _check_wait("Stream.synchronize", self)
        with lock:
            _join_host(self.timeline)

    @property
    def done(self) -> bool:
        # A query while capturing spoils the capture, and CuPy says nothing
        # (cupy/cuda/stream.pyx, _BaseStream.done).
        _check_wait("Stream.done", self)
        return True

    def is_capturing(self) -> bool:
        """Return whether work is recorded in place of being done."""
        if self.ptr == 0 or self._recorded is None:
            return False
        if self._is_spoiled:  # cupy_backends/cuda/api/runtime.pyx, streamIsCapturing
            raise RuntimeError(
                "the stream was capturing, but an error has invalidated the capture sequence"
            )
        return True

    def begin_capture(self, mode: int | None = None) -> None:
        """Record work from now on."""
        del mode
        if self.ptr == 0:  # cupy/cuda/stream.pyx, _BaseStream.begin_capture
            raise RuntimeError("cannot capture on the default (legacy) stream")
        with lock:
            if _thread.capturing is not None or self._recorded is not None:
                raise _illegal_state()  # cupy_backends/cuda/api/runtime.pyx, streamBeginCapture
            self._recorded = []
            self._is_spoiled = False
            _thread.capturing = self

    def end_capture(self) -> Graph:
        """Return what was recorded."""
        with lock:
            # cupy_backends/cuda/api/runtime.pyx, streamEndCapture; CuPy's mode would
            # let a thread end another thread's capture; this does not.
            if self.ptr == 0 or self._recorded is None or _thread.capturing is not self:
                raise _illegal_state()
            recorded, self._recorded = self._recorded, None
            _thread.capturing = None
        if self._is_spoiled:
            # CuPy's tests/cupy_tests/cuda_tests/test_graph.py, test_stream_capture_failure1
            raise CUDARuntimeError(
                "cudaErrorStreamCaptureInvalidated",
                "operation failed due to a previous error during capture",
            )
        return Graph(recorded, self.device_id)


def _illegal_state() -> CUDARuntimeError:
    return CUDARuntimeError(
        "cudaErrorIllegalState", "the operation cannot be performed in the present state"
    )


Stream.null = Stream(null=True)


class Event:
    """As ``cupy.cuda.Event``."""

    def __init__(self, block: bool = False, disable_timing: bool = False) -> None:
        del block, disable_timing
        self.device = _thread.device
        self.clock: dict[int, int] = {}

    def record(self, stream: Stream | None = None) -> None:
        (get_current_stream() if stream is None else stream).record(self)

    def synchronize(self) -> None:
        check_synchronize("Event.synchronize waits for the device")  # none is of a capture
        with lock:
            _merge_host(self.clock)


class _Recorded:
    """One launch in a graph. It keeps no memory alive, as a GPU's does not."""

    def __init__(
        self, name: str, work: Callable[[], None], reads: list[Any], writes: list[Any]
    ) -> None:
        self.name = name
        self.work = work
        self.reads = [weakref.ref(allocation) for allocation in reads]
        self.writes = [weakref.ref(allocation) for allocation in writes]

    def memory(self) -> tuple[list[Any], list[Any]]:
        """Return what it reads and writes, if that is still there."""
        reads = [ref() for ref in self.reads]
        writes = [ref() for ref in self.writes]
        if any(allocation is None for allocation in (*reads, *writes)):
            raise OrderError(f"{self.name} in a graph uses memory that has been freed")
        return reads, writes


class Graph(metaclass=ExtensionType):
    """As ``cupy.cuda.Graph``: recorded work, done again at every launch."""

    def __init__(self, recorded: list[_Recorded], device: int) -> None:
        self._recorded = recorded
        self._device = device

    def launch(self, stream: Stream | None = None) -> None:
        """Do all of it, on a stream or the current one."""
        target = (get_current_stream() if stream is None else stream).timeline
        # CUDA makes a node of a graph that is launched in a capture (cupy/cuda/graph.pyx, launch).
        forbid_in_capture("the stand-in records no graph in a graph", NotImplementedError)
        if target.device != self._device:
            raise ValueError(f"a graph of cuda:{self._device} on {target.name}")
        with lock, np.errstate(all="ignore"):
            used = [item.memory() for item in self._recorded]  # of the whole graph, before any work
            for item, (reads, writes) in zip(self._recorded, used, strict=True):
                _order(target, item.name, reads, writes)
                item.work()

    def upload(self, stream: Stream | None = None) -> None:
        """Prepare a launch; nothing to do."""
        del stream


def get_current_stream() -> Stream:
    """Return the current stream of this thread on the current device."""
    return _thread.current.get(_thread.device, Stream.null)


def current_device() -> int:
    return _thread.device


def launch(
    name: str, work: Callable[[], None], reads: Iterable[ndarray], writes: Iterable[ndarray]
) -> None:
    """Issue work on the current stream: check devices and order, then do it or record it.

    Parameters
    ----------
    name : str
        For messages.
    work : callable
        Computes on the host what the GPU would compute.
    reads, writes : iterables of ndarray
        What it accesses. ``work`` must hold their views and not the arrays, so that a graph keeps
        no memory.
    """
    stream = get_current_stream()
    read, written = list(reads), list(writes)
    for array in (*read, *written):
        # CuPy warns of the price where the two devices can reach each other's memory, and raises
        # where they cannot (cupy/_core/_kernel.pyx, _check_peer_access).
        if array._allocation.device != _thread.device:
            raise ValueError(
                f"{name}: The device where the array resides ({array._allocation.device}) is "
                f"different from the current device ({_thread.device}). Peer access is unavailable "
                "between these devices."
            )
    from_memory = [array._allocation for array in read]
    to_memory = [array._allocation for array in written]
    with lock:
        if stream.is_capturing() or _thread.capturing is not None:
            if stream is not _thread.capturing:
                _refuse_beside_capture(name, stream)
            assert stream._recorded is not None
            stream._recorded.append(_Recorded(name, work, from_memory, to_memory))
            return
        _order(stream.timeline, name, from_memory, to_memory)
        _arrive()
        with np.errstate(all="ignore"):
            work()


# Copies from pinned memory that may not have been done yet: what they find there is what the host
# has put there until something waits for them, or uses what they bring.
_under_way: list[tuple[int, int, Callable[[], object]]] = []


def copy_later(work: Callable[[], object], target: Allocation) -> None:
    """Issue a copy from pinned memory on the current stream."""
    timeline = get_current_stream().timeline
    with lock:
        _order(timeline, "a copy from pinned memory", [], [target])
        _under_way.append((timeline.number, timeline.position, work))


def _arrive(clock: dict[int, int] | None = None) -> None:
    """Do the copies up to where streams are, or all."""
    done = [item for item in _under_way if clock is None or clock.get(item[0], 0) >= item[1]]
    for item in done:
        _under_way.remove(item)
        item[2]()


def _refuse_beside_capture(name: str, stream: Stream) -> None:
    """Raise for work that a capture does not see, on another stream or from another thread."""
    capturing = _thread.capturing
    if capturing is not None and stream.ptr == 0 and capturing.timeline.is_blocking:
        capturing._is_spoiled = True
        raise CUDARuntimeError(  # CuPy's test_graph.py, test_null_stream_cannot_capture
            "cudaErrorStreamCaptureImplicit",
            "operation would make the legacy stream depend on a capturing blocking stream",
        )
    # CUDA does such work at once.
    by = "another thread" if capturing is None else repr(capturing)
    raise RuntimeError(f"{name} on {stream!r} while {by} captures")


def _order(
    timeline: Timeline, name: str, reads: list[Allocation], writes: list[Allocation]
) -> None:
    """Move a stream on by one launch, or raise where nothing orders it behind what it needs."""
    _synchronize_null(timeline)
    for allocation in (*reads, *writes):
        if allocation.written is not None and not timeline.has_waited_for(allocation.written):
            other = allocation.written[0].name
            raise OrderError(
                f"{name} on {timeline.name} uses what was written on {other}, and nothing makes it "
                "wait: record an event there and let this stream wait for it"
            )
    for allocation in writes:
        for stamp in allocation.read.items():
            if not timeline.has_waited_for(stamp):
                raise OrderError(
                    f"{name} on {timeline.name} overwrites what is read on {stamp[0].name}, or was "
                    "in use there when it was freed, and nothing makes it wait"
                )
    timeline.move_on()
    for allocation in reads:
        allocation.read[timeline] = timeline.position
    for allocation in writes:
        allocation.written = (timeline, timeline.position)
        allocation.read.clear()


def _synchronize_null(timeline: Timeline) -> None:
    """Order the default stream and the streams that block on it (CUDA's legacy behaviour)."""
    if timeline.is_null:
        for other in _blocking:
            if other.device == timeline.device:
                timeline.join(other.clock())
    elif timeline.is_blocking:
        timeline.join(_null[timeline.device].clock())


def _merge_host(clock: dict[int, int]) -> None:
    _arrive(clock)
    for number, position in clock.items():
        _host[number] = max(_host.get(number, 0), position)


def _join_host(timeline: Timeline) -> None:
    _synchronize_null(timeline)
    _merge_host(timeline.clock())


def forbid_in_capture(message: str, kind: type[Exception] = RuntimeError) -> None:
    """Raise if the thread is capturing."""
    if _thread.capturing is not None:
        raise kind(message)


class DeviceSynchronized(RuntimeError):  # noqa: N818  (its name in cupyx)
    """As ``cupyx.DeviceSynchronized``."""


def check_synchronize(what: str) -> None:
    """Raise if the host and the device must leave each other alone."""
    if not _thread.may_synchronize:
        # CuPy looks at ndarray.get and Device.synchronize alone (core.pyx and cuda/device.pyx, both
        # through syncdetect.py). What else makes the host wait is no better.
        raise DeviceSynchronized(f"Device synchronization was detected while disallowed: {what}")


def _check_wait(what: str, stream: Stream | None) -> None:
    """Raise if the host must not wait for a stream, or for all of them.

    A capture does not survive that, unless it is another stream that is waited for: CuPy captures
    in CUDA's relaxed mode.
    """
    check_synchronize(f"{what} waits for the device")
    if _thread.capturing is not None and stream in (None, _thread.capturing):
        # CuPy's test_graph.py, test_stream_capture_failure1
        _thread.capturing._is_spoiled = True
        raise CUDARuntimeError(
            "cudaErrorStreamCaptureUnsupported", "operation not permitted when stream is capturing"
        )


@contextmanager
def allow_synchronize(allow: bool) -> Iterator[None]:
    """As ``cupyx.allow_synchronize``, for everything that makes the host wait."""
    warnings.warn(  # as CuPy does (cupy/_core/syncdetect.py)
        "cupyx.allow_synchronize will be removed in future releases as it is not possible to "
        "reliably detect synchronizations.",
        stacklevel=3,
    )
    before, _thread.may_synchronize = _thread.may_synchronize, allow
    try:
        yield
    finally:
        _thread.may_synchronize = before


def synchronized_read(name: str, array: ndarray) -> Any:
    """Copy an array to the host, which waits for the current stream."""
    check_synchronize(f"{name} waits for the device")
    # cupy/cuda/memory.pyx, MemoryPointer.copy_to_host_async
    forbid_in_capture("the current stream is capturing, so D2H transfers are disallowed")
    copies: list[Any] = []
    with lock:
        launch(name, lambda: copies.append(array._view.copy()), [array], [])
        _join_host(get_current_stream().timeline)
    return copies[0]


def reset() -> Stream | None:
    """Wait for everything and bring this thread back to its default streams, between tests.

    Returns
    -------
    Stream or None
        The one whose capture was never ended.
    """
    capturing = _thread.capturing
    if capturing is not None:
        capturing._recorded = None
    with lock:
        for issued in _issued:
            _host.update(issued)
    _thread.__init__()  # type: ignore[misc]
    return capturing
