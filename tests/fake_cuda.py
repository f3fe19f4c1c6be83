"""In place of cupy.cuda: a runtime that answers as a test wants, and streams that take notes."""

from __future__ import annotations

import types


class FakeRuntime:
    """Answers as cupy.cuda.runtime does, for the questions that choosing a device asks."""

    class CUDARuntimeError(RuntimeError):
        pass

    def __init__(self, n_devices, version=13020, error=None):
        self._n_devices, self._version, self._error = n_devices, version, error

    def getDeviceCount(self):  # noqa: N802
        if self._error:
            raise self.CUDARuntimeError(self._error)
        return self._n_devices

    def runtimeGetVersion(self):  # noqa: N802
        return self._version


class FakeEvent:
    def __init__(self, stream):
        self.stream = stream


class FakeStream:
    """Keeps, as CuPy does, a stack of "with" blocks and apart from it the current stream.

    Leaving a block makes the stream of the enclosing block current, or the default stream, and
    forgets one that was chosen by use(): tests/cupy_tests/cuda_tests/test_stream.py of CuPy,
    test_mix_use_context.
    """

    def __init__(self, log, name):
        self.log, self.name = log, name

    def use(self):
        FakeCuda.current = self

    def record(self):
        self.log.append(f"record {self.name}")
        return FakeEvent(self)

    def wait_event(self, event):
        self.log.append(f"{self.name} waits for {event.stream.name}")

    def synchronize(self):
        self.log.append(f"synchronize {self.name}")

    def __enter__(self):
        FakeCuda.stack.append(self)
        FakeCuda.current = self

    def __exit__(self, *error):
        FakeCuda.stack.pop()
        FakeCuda.current = FakeCuda.stack[-1] if FakeCuda.stack else FakeCuda.default


class FakeCuda:
    """cupy.cuda: one GPU of compute capability 9.0 unless told otherwise."""

    current: FakeStream
    default: FakeStream
    stack: list[FakeStream]

    def __init__(self, runtime, capability="90"):
        self.runtime = runtime
        self.log: list[str] = []
        FakeCuda.current = FakeCuda.default = FakeStream(self.log, "default")
        FakeCuda.stack = []
        outer = self

        class Device:
            def __init__(self, index):
                self.index, self.compute_capability = index, capability

            def __enter__(self):
                outer.log.append(f"enter device {self.index}")

            def __exit__(self, *error):
                outer.log.append(f"leave device {self.index}")

        self.Device = Device

    memory = types.SimpleNamespace(OutOfMemoryError=MemoryError)

    def Stream(self, *, non_blocking):  # noqa: N802
        assert non_blocking
        return FakeStream(self.log, "own")

    def get_current_stream(self):
        return FakeCuda.current
