"""Records work as a CUDA graph and launches it, on CuPy's streams."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from xpnet.device import Device, lease_stream
from xpnet.kernels.streams import launched_on

__all__ = ["CaptureError", "Recorder"]


class CaptureError(RuntimeError):
    """Work does something that a graph cannot hold; the message says what."""


class Recorder:
    """Records what is issued to a GPU, on a stream of its own.

    Launched, a graph repeats what was recorded: the same kernels on the same addresses, with the
    same numbers. So all that changes from one launch to the next must lie in device arrays, and
    those must outlive the graph. Whatever else is refused:

    - Asking for memory. CuPy's pool would give some, and give it to somebody else once it is freed,
      while the graph still writes there.
    - Copies from and to the host, waiting for what is recorded, the default stream: CUDA or CuPy
      refuse them themselves.
    - CuPy's own cuBLAS, which CuPy refuses; see :mod:`xpnet.kernels.cublas`.
    - Activating a device, which would wait for another stream.

    Recording happens on a stream of its own. So other threads may go on using the device: what they
    issue meanwhile is no part of the graph.

    Parameters
    ----------
    device : Device
        A GPU.

    Raises
    ------
    ValueError
        On the CPU.
    """

    def __init__(self, device: Device) -> None:
        if device.index is None:
            raise ValueError("graphs are recorded on a GPU, but the device is 'cpu'")
        self._device = device
        self._stream: Any
        self._stream, self._give_back = lease_stream(device.xp, device.index, self)
        with device.lock:
            device.recorders.add(self)

    def close(self) -> None:
        """Say that no graph recorded here will be launched again, and nothing recorded."""
        with self._device.lock:
            if self._stream is not None:
                self._device.recorders.discard(self)
                self._stream = None
                self._give_back()

    def record(self, work: Callable[[], object]) -> Any:
        """Record what ``work`` issues. Nothing of it is done.

        Parameters
        ----------
        work : callable
            It has been called before, with the device active: that makes whatever is made at first
            use, kernels and the buffers that operations keep.

        Returns
        -------
        cupy.cuda.Graph
            To be launched on the device's stream, and no longer than this object lives.

        Raises
        ------
        CaptureError
            If it cannot be recorded. What ``work`` has changed on the host stays changed.
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
                    with contextlib.suppress(Exception):  # what it says is that of the first error
                        stream.end_capture()
                    raise
                return stream.end_capture()
        except Exception as error:
            text = " ".join(str(error).split()) or type(error).__name__
            raise CaptureError(f"it cannot be captured as a graph: {text}") from error
        finally:
            caller.use()  # which leaving "with" may have forgotten


def _refuse(n_bytes: int) -> Any:
    raise MemoryError(f"it asks for {n_bytes} bytes of memory")
