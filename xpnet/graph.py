"""Records work as a CUDA graph, on a CuPy stream of its own."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from xpnet.device import Device, lease_stream
from xpnet.kernels.streams import launched_on

__all__ = ["CaptureError", "Recorder"]


class CaptureError(RuntimeError):
    """The work cannot be recorded as a graph; the message says why."""


class Recorder:
    """Records the work issued to a GPU, on a stream of its own.

    A launched graph repeats what was recorded: the same kernels on the same addresses with the same
    arguments. Everything that changes between launches must therefore be in device arrays, and
    these must outlive the graph. The work must not do any of the following:

    - Allocate memory. CuPy's pool would give it to another array once it is freed, while the graph
      still writes there.
    - Copy from or to the host, wait for recorded work, or use the default stream. CUDA or CuPy
      raise an error.
    - Use CuPy's own cuBLAS, which CuPy refuses; see :mod:`xpnet.kernels.cublas`.
    - Activate a device, which would wait for another stream.

    Because recording has its own stream, other threads can use the device meanwhile; their work is
    not part of the graph.

    Parameters
    ----------
    device : Device
        A GPU.

    Raises
    ------
    ValueError
        If the device is the CPU.
    """

    def __init__(self, device: Device) -> None:
        if device.index is None:
            raise ValueError("recording a graph needs a GPU, but the device is 'cpu'")
        self._device = device
        self._stream: Any
        self._stream, self._give_back = lease_stream(device.xp, device.index, self)
        with device.lock:
            device.recorders.add(self)

    def close(self) -> None:
        """Return the stream; call this when no graph recorded here will be launched again."""
        with self._device.lock:
            if self._stream is not None:
                self._device.recorders.discard(self)
                self._stream = None
                self._give_back()

    def record(self, work: Callable[[], object]) -> Any:
        """Record the work that ``work`` issues, without executing it.

        Parameters
        ----------
        work : callable
            Call it once before, with the device active: the first call creates kernels and the
            buffers that operations keep.

        Returns
        -------
        cupy.cuda.Graph
            Launch it on the device's stream, and only while this object lives.

        Raises
        ------
        CaptureError
            If the work cannot be recorded. What ``work`` has changed on the host stays changed.
        RuntimeError
            After :meth:`close`.
        """
        if self._stream is None:
            raise RuntimeError("this recorder is closed")
        stream, cuda = self._stream, self._device.xp.cuda
        caller = cuda.get_current_stream()
        try:
            with stream, launched_on(self._device.stream.ptr):
                stream.begin_capture()
                try:
                    with cuda.using_allocator(_refuse):
                        work()
                except BaseException:
                    with contextlib.suppress(Exception):  # it would repeat the first error
                        stream.end_capture()
                    raise
                return stream.end_capture()
        except Exception as error:
            text = " ".join(str(error).split()) or type(error).__name__
            raise CaptureError(f"it cannot be captured as a graph: {text}") from error
        finally:
            caller.use()  # which leaving "with" may have forgotten


def _refuse(n_bytes: int) -> Any:
    raise MemoryError(f"it allocates {n_bytes} bytes of memory")
