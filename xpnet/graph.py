"""Work that is recorded once and launched many times: CUDA graphs, on CuPy's streams."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from xpnet.device import Device

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

    Other threads may go on using the device, whose stream is another one: what they issue meanwhile
    is no part of the graph.

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
        try:
            self._stream = device.idle_streams.pop()
        except IndexError:
            with device.xp.cuda.Device(device.index):
                self._stream = device.xp.cuda.Stream(non_blocking=True)
        device.recorders.add(self)

    def close(self) -> None:
        """Say that no graph recorded here will be launched again, and nothing recorded."""
        if self._stream is not None:
            self._device.idle_streams.append(self._stream)
            self._device.recorders.discard(self)
            self._stream = None

    def __del__(self) -> None:
        if hasattr(self, "_stream"):
            self.close()

    def run(self, work: Callable[..., object], *arguments: object) -> None:
        """Do work here without recording it, ordered with the rest of the device's work.

        It makes what is made at first use: kernels, and buffers that operations keep for a stream.
        The device must be active.
        """
        main = self._device.stream
        self._stream.wait_event(main.record())
        try:
            with self._stream:
                work(*arguments)
        finally:
            main.use()
            main.wait_event(self._stream.record())

    def record(self, work: Callable[[], object]) -> Any:
        """Record what ``work`` issues. Nothing of it is done.

        Parameters
        ----------
        work : callable
            Has been :meth:`run` before.

        Returns
        -------
        cupy.cuda.Graph
            To be launched on the device's stream, and no longer than this object lives.

        Raises
        ------
        CaptureError
            If it cannot be recorded. What ``work`` has changed on the host stays changed.
        """
        stream, cuda = self._stream, self._device.xp.cuda
        try:
            with stream:
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
            self._device.stream.use()


def _refuse(n_bytes: int) -> Any:
    raise MemoryError(f"it asks for {n_bytes} bytes of memory")
