"""Recording work as a graph, and what a graph cannot hold."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

import xpnet
from xpnet.graph import CaptureError, Recorder


@pytest.fixture
def device():
    """A device that no other test has, so that what it keeps is this test's."""
    return xpnet.device(xpnet.device().name, "fused")


@pytest.mark.host
def test_there_are_no_graphs_on_the_cpu():
    with pytest.raises(ValueError, match="recording a graph needs a GPU, but the device is 'cpu'"):
        Recorder(xpnet.device("cpu"))


@pytest.mark.accelerator
def test_recorded_work_is_done_at_each_launch_and_not_before(device):
    with device.activate():
        total, one = device.xp.zeros(3), device.xp.ones(3)

        def work():
            device.xp.add(total, one, out=total)

        recorder = Recorder(device)
        work()
        np.testing.assert_array_equal(device.to_host(total), 1)
        graph = recorder.record(work)
        np.testing.assert_array_equal(device.to_host(total), 1)
        for _ in range(3):
            graph.launch(device.stream)
        np.testing.assert_array_equal(device.to_host(total), 4)
        one[...] = 10
        graph.launch(device.stream)
        np.testing.assert_array_equal(device.to_host(total), 14)


FORBIDDEN = {
    "an allocation": (
        lambda device, a: device.xp.empty(7),
        "it allocates 56 bytes of memory",
    ),
    "a temporary array": (
        lambda device, a: device.xp.copyto(a, a + 1),
        "it allocates 128 bytes of memory",
    ),
    "CuPy's own cuBLAS": (
        lambda device, a: device.xp.matmul(a.reshape(4, 4), a.reshape(4, 4), out=_other(device)),
        "cuBLAS API during stream capture is currently unsupported",
    ),
    "a copy to the host": (lambda device, a: a.get(), "(?i)captur"),
    "a copy from the host": (lambda device, a: a.set(np.zeros(16)), "(?i)captur"),
    "a number read from the device": (lambda device, a: float(a[0]), "(?i)captur"),
    "a device to be activated": (
        lambda device, a: device.to_host(a),
        "cannot be activated while a CUDA graph is recorded",
    ),
    "waiting for itself": (
        lambda device, a: device.xp.cuda.get_current_stream().synchronize(),
        "(?i)captur",
    ),
}
_others: dict[int, Any] = {}


def _other(device):
    return _others[id(device)]


@pytest.mark.accelerator
@pytest.mark.parametrize("name", FORBIDDEN)
def test_what_a_graph_cannot_hold_is_refused(device, name):
    work, message = FORBIDDEN[name]
    with device.activate():
        a = device.xp.ones(16)
        _others[id(device)] = device.xp.empty((4, 4))
        recorder = Recorder(device)
        work(device, a)
        with pytest.raises(CaptureError, match="it cannot be captured as a graph: ") as caught:
            recorder.record(lambda: work(device, a))
        assert caught.match(message)
        del _others[id(device)]
        # All is as before: the device computes, and records what it can.
        assert device.xp.cuda.get_current_stream() == device.stream
        a[...] = 1
        graph = recorder.record(lambda: device.xp.add(a, a, out=a))
        graph.launch(device.stream)
        assert device.to_host(a + 1)[0] == 3


@pytest.mark.emulated
def test_the_default_stream_is_refused(device):
    """CUDA would do the work at once, and the graph would not have it."""
    with device.activate():
        a = device.xp.ones(16)

        def work():
            with device.xp.cuda.Stream.null:
                device.xp.add(a, a, out=a)

        with pytest.raises(CaptureError, match=r"on <Stream 0 .* while <Stream .* captures"):
            Recorder(device).record(work)


@pytest.mark.accelerator
def test_an_error_of_the_work_itself(device):
    def work():
        raise ZeroDivisionError("of its own")

    with device.activate():
        recorder = Recorder(device)
        with pytest.raises(CaptureError, match="as a graph: of its own") as caught:
            recorder.record(work)
        assert isinstance(caught.value.__cause__, ZeroDivisionError)


@pytest.mark.accelerator
def test_ctrl_c_while_recording(device):
    def work():
        raise KeyboardInterrupt

    with device.activate():
        recorder = Recorder(device)
        with pytest.raises(KeyboardInterrupt):
            recorder.record(work)
        recorder.record(lambda: None)


@pytest.mark.accelerator
def test_other_threads_go_on_meanwhile(device):
    """What another thread issues while one records is done there and then."""
    found = []
    with device.activate():
        a = device.xp.zeros(8)

        def other():
            with device.activate():
                found.append(device.to_host(device.xp.ones(8) + 1))

        def work():
            thread = threading.Thread(target=other)
            thread.start()
            thread.join()
            device.xp.add(a, 1, out=a)

        recorder = Recorder(device)
        work()
        graph = recorder.record(work)
        graph.launch(device.stream)
        assert device.to_host(a)[0] == 2
    assert len(found) == 2
    for array in found:
        np.testing.assert_array_equal(array, 2)


@pytest.mark.accelerator
def test_streams_are_used_again(device):
    with device.activate():
        first = Recorder(device)
        stream = first._stream
        second = Recorder(device)
        assert second._stream != stream
        assert len(device.recorders) == 2
        first.close()
        first.close()
        assert len(device.recorders) == 1
        with pytest.raises(RuntimeError, match="this recorder is closed"):
            first.record(lambda: None)
        assert Recorder(device)._stream == stream
        second.close()
        assert len(device.recorders) == 0


@pytest.mark.accelerator
def test_a_recorder_that_is_gone_is_closed(device):
    recorder = Recorder(device)
    with pytest.raises(RuntimeError, match="while a captured training step uses it"):
        device.free_memory()
    del recorder
    device.free_memory()


@pytest.mark.accelerator
def test_the_callers_stream_stays_current(device):
    cuda = device.xp.cuda
    with cuda.Device(device.index):
        for stream in (cuda.Stream.null, cuda.Stream(non_blocking=True)):
            stream.use()
            Recorder(device).record(lambda: None)
            assert cuda.get_current_stream() == stream
        cuda.Stream.null.use()


@pytest.mark.accelerator
def test_no_recorder_comes_while_memory_is_freed(device, monkeypatch):
    came = []
    thread = threading.Thread(target=lambda: came.append(Recorder(device)))

    def wait():
        thread.start()
        thread.join(0.2)
        assert not came

    monkeypatch.setattr(device, "synchronize", wait)
    device.free_memory()
    thread.join()
    assert len(came) == 1
    with pytest.raises(RuntimeError, match="while a captured training step uses it"):
        device.free_memory()
