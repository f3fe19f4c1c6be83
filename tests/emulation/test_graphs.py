"""The stand-in's captures and graphs: what is recorded, what is refused, and replays."""

from __future__ import annotations

import numpy as np
import pytest

from tests.emulation import execution
from tests.emulation.execution import OrderError
from tests.emulation.module import cupy, cupyx
from tests.emulation.streams import NO_WAIT, CUDARuntimeError, add, read, zeros
from tests.emulation.test_memory import in_thread

pytestmark = [pytest.mark.host, pytest.mark.usefixtures("clean")]


def test_a_graph_is_not_run_but_replayed(streams):
    stream = streams[0]
    x, y = zeros(), zeros()
    number = 2
    with stream:
        stream.begin_capture()
        assert stream.is_capturing()
        cupy.multiply(x, number, out=y)
        y += np.float32(1)
        x.fill(7)
        x[0] = 8
        number = 100
        graph = stream.end_capture()
        assert not stream.is_capturing()
        assert (x.tolist(), y.tolist()) == ([0, 0, 0], [0, 0, 0])
        graph.upload()
        graph.launch()
        assert (x.tolist(), y.tolist()) == ([8, 7, 7], [1, 1, 1])
        graph.launch()
        assert y.tolist() == [17, 15, 15]  # of what is in memory then, and the number of before
        x.fill(0)
        graph.launch(stream)
        assert y.tolist() == [1, 1, 1]


def test_everything_that_can_be_recorded(streams):
    stream = streams[0]
    x, out = zeros(), zeros()
    i, mask = cupy.array([2, 0, 1]), cupy.array([True, False, True])
    cupy.cuda.Device().synchronize()
    stream.begin_capture()
    with stream:
        x += 1
        cupy.take(x, i, out=out)
        out[i] = x
        cupy.clip(x, 0, 0.5, out=out)
        cupy.copyto(out, x)
        cupy.logical_not(mask, out=mask)
        x[::-1] = out
        graph = stream.end_capture()
        assert x.tolist() == [0, 0, 0]
        graph.launch()
        graph.launch()
        assert (x.tolist(), mask.tolist()) == ([2, 2, 2], [True, False, True])


REFUSED = {
    "allocation": (lambda x: x + 1, RuntimeError, "allocation"),
    "empty": (lambda x: cupy.empty(0), RuntimeError, "allocation"),
    "sum": (lambda x: cupy.sum(x, out=cupy.ndarray((), "f4", memptr=x.data)), Exception, "overlap"),
    "reshape": (lambda x: cupy.broadcast_to(x, (2, 3)).reshape(6), RuntimeError, "allocation"),
    "index": (lambda x: x[x.view("int32")], RuntimeError, "allocation"),
    "H2D": (lambda x: x.set(np.ones(3, np.float32)), RuntimeError, "H2D transfers are disallowed"),
    "H2D of a number": (
        lambda x: x[0].set(np.array(1, np.float32)), RuntimeError, "H2D transfers are disallowed"),
    "asarray": (lambda x: cupy.asarray(np.ones(3)), RuntimeError, "allocation"),
    "D2H": (lambda x: x.get(), RuntimeError, "D2H transfers are disallowed"),
    "item": (lambda x: x[0].item(), RuntimeError, "D2H transfers are disallowed"),
    "float": (lambda x: float(x[0]), RuntimeError, "D2H transfers are disallowed"),
    "bool": (lambda x: bool(x[0]), RuntimeError, "D2H transfers are disallowed"),
    "repr": (repr, RuntimeError, "D2H transfers are disallowed"),
    "matmul": (lambda x: cupy.matmul(x, x), NotImplementedError, "cuBLAS"),
    "matmul with out": (
        lambda x: cupy.matmul(x[:2], x[1:], out=x[0]), NotImplementedError, "cuBLAS"),
    "sort": (cupy.sort, RuntimeError, "sorting"),
    "record": (lambda x: cupy.cuda.get_current_stream().record(), NotImplementedError, "event"),
    "wait": (
        lambda x: cupy.cuda.get_current_stream().wait_event(cupy.cuda.Event()),
        NotImplementedError,
        "event",
    ),
    "where": (lambda x: cupy.where(x > 0), RuntimeError, "allocation"),
    "another stream": (
        lambda x: add(cupy.cuda.Stream(non_blocking=True), x), RuntimeError, "while"),
    "default stream": (lambda x: add(cupy.cuda.Stream.null, x), RuntimeError, "while"),
}  # fmt: skip


@pytest.mark.parametrize(("work", "kind", "message"), REFUSED.values(), ids=REFUSED)
def test_refused_in_a_capture_which_goes_on(streams, work, kind, message):
    stream = streams[0]
    x = zeros()
    with stream:
        stream.begin_capture()
        with pytest.raises(kind, match=message):
            work(x)
        x += 1
        graph = stream.end_capture()
        graph.launch()
        assert x.tolist() == [1, 1, 1]


INVALIDATING = {
    "stream": lambda: cupy.cuda.get_current_stream().synchronize(),
    "device": lambda: cupy.cuda.Device().synchronize(),
    "query": lambda: cupy.cuda.get_current_stream().done,
}


@pytest.mark.parametrize("work", INVALIDATING.values(), ids=INVALIDATING)
def test_waiting_invalidates_a_capture(streams, work):
    stream = streams[0]
    x = zeros()
    with stream:
        stream.begin_capture()
        x += 1
        with pytest.raises(CUDARuntimeError, match="cudaErrorStreamCaptureUnsupported"):
            work()
        for further in (stream.is_capturing, lambda: x.fill(1)):
            with pytest.raises(RuntimeError, match="invalidated the capture"):
                further()
        with pytest.raises(CUDARuntimeError, match="cudaErrorStreamCaptureInvalidated"):
            stream.end_capture()
        assert not stream.is_capturing()
        stream.synchronize()
        stream.begin_capture()  # and the next one is sound
        x += 1
        stream.end_capture().launch()
        assert x.tolist() == [1, 1, 1]


def test_the_default_stream_beside_the_capture_of_a_blocking_one():
    stream = cupy.cuda.Stream()
    x = zeros()
    stream.begin_capture()
    with pytest.raises(CUDARuntimeError, match="cudaErrorStreamCaptureImplicit"):
        x += 1
    with pytest.raises(CUDARuntimeError, match="cudaErrorStreamCaptureInvalidated"):
        stream.end_capture()
    x += 1
    assert x.tolist() == [1, 1, 1]


def test_captures_that_cannot_begin_or_end(streams):
    first, second, _ = streams
    for null in (cupy.cuda.Stream.null, cupy.cuda.Stream(null=True)):
        with pytest.raises(RuntimeError, match="cannot capture on the default"):
            null.begin_capture()
        with pytest.raises(CUDARuntimeError, match="cudaErrorIllegalState"):
            null.end_capture()
        assert not null.is_capturing()
    with pytest.raises(CUDARuntimeError, match="cudaErrorIllegalState"):
        first.end_capture()
    first.begin_capture()
    for stream in (first, second):
        with pytest.raises(CUDARuntimeError, match="cudaErrorIllegalState"):
            stream.begin_capture()
    with pytest.raises(CUDARuntimeError, match="cudaErrorIllegalState"):
        second.end_capture()
    assert first.is_capturing()
    first.end_capture()
    with pytest.raises(TypeError):
        cupy.cuda.Graph()


def test_a_capture_is_of_its_thread(streams):
    first, second, _ = streams
    x, y = zeros(), zeros()
    first.begin_capture()
    for work in (first.begin_capture, first.end_capture):
        with pytest.raises(CUDARuntimeError, match="cudaErrorIllegalState"):
            in_thread(work)
    with pytest.raises(RuntimeError, match="another thread captures"):
        in_thread(lambda: add(first, x))
    in_thread(lambda: add(second, y))  # at once
    add(first, x)
    graph = first.end_capture()
    graph.launch(first)
    assert (read(first, x), read(second, y)) == ([1, 1, 1], [1, 1, 1])


def test_errors_leave_what_the_next_test_needs(streams):
    stream = streams[0]
    x = zeros()
    stream.begin_capture()
    with pytest.raises(IndexError), cupy.cuda.Device(0), stream:
        x[3] += 1
    add(stream, x)
    assert stream.is_capturing()  # as CUDA: nobody has ended it
    assert execution.reset() == stream
    assert not stream.is_capturing()
    assert x.tolist() == [0, 0, 0]
    with stream:
        stream.begin_capture()
        x += 1
        stream.end_capture().launch()
        assert x.tolist() == [1, 1, 1]


def test_waiting_is_refused_before_the_capture_is(streams):
    x = zeros()
    with streams[0] as stream, cupyx.allow_synchronize(False):
        stream.begin_capture()
        for work in (x.get, stream.synchronize):
            with pytest.raises(cupyx.DeviceSynchronized):
                work()
        stream.end_capture()


WRITING = {
    "in place": lambda x, y: x.__iadd__(1),
    "fill": lambda x, y: x.fill(1),
    "assign": lambda x, y: x.__setitem__(..., y),
    "out": lambda x, y: cupy.add(y, y, out=x),
    "take": lambda x, y: cupy.take(y, y.view("int32"), out=x),
    "index": lambda x, y: x.__setitem__(y.view("int32"), 1),
    "operand": lambda x, y: cupy.add(x, x, out=y),
}


@pytest.mark.parametrize("work", WRITING.values(), ids=WRITING)
def test_a_graph_keeps_no_memory(streams, work):
    stream = streams[0]
    pool = cupy.cuda.MemoryPool()
    y = zeros()
    with cupy.cuda.using_allocator(pool.malloc):
        x = zeros()
    with stream:
        stream.begin_capture()
        y += 1
        work(x, y)
        graph = stream.end_capture()
        del x
        assert pool.used_bytes() == 0
        with pytest.raises(OrderError, match="in a graph uses memory that has been freed"):
            graph.launch()
        assert y.tolist() == [0, 0, 0]  # nothing of it is done


def test_replays_are_ordered_as_other_work(streams):
    first, second, _ = streams
    x = zeros()
    first.begin_capture()
    add(first, x)
    graph = first.end_capture()
    graph.launch(first)
    with pytest.raises(OrderError, match=NO_WAIT):
        graph.launch(second)
    with pytest.raises(OrderError, match=NO_WAIT):
        read(second, x)
    second.wait_event(first.record())
    graph.launch(second)
    event = second.record()
    graph.launch(second)
    first.wait_event(event)
    with pytest.raises(OrderError, match=NO_WAIT):
        read(first, x)
    first.wait_event(second.record())
    assert read(first, x) == [3, 3, 3]
    with first:
        x.fill(0)  # what a graph reads waits as well
    with pytest.raises(OrderError, match=NO_WAIT):
        graph.launch(second)


def test_recording_is_no_access(streams):
    first, second, _ = streams
    x = zeros()
    add(second, x)
    first.begin_capture()
    add(first, x)  # no wait: it is not done yet
    graph = first.end_capture()
    assert read(second, x) == [1, 1, 1]
    graph.launch(second)
    assert read(second, x) == [2, 2, 2]


def test_graphs_in_graphs_and_on_other_devices(streams):
    stream = streams[0]
    x = zeros()
    stream.begin_capture()
    add(stream, x)
    graph = stream.end_capture()
    stream.begin_capture()
    with pytest.raises(NotImplementedError, match="graph in a graph"):
        graph.launch(stream)
    stream.end_capture()
    with cupy.cuda.Device(1), pytest.raises(ValueError, match="cuda:0"):
        graph.launch()
    assert x.tolist() == [0, 0, 0]


def test_numbers_that_do_not_fit_are_refused_when_they_are_recorded(streams):
    x = cupy.zeros(3, "uint8")
    streams[0].begin_capture()
    with streams[0]:
        for work in (lambda: x.__iadd__(300), lambda: x.fill(300), lambda: x.__setitem__(0, -1)):
            with pytest.raises(OverflowError):
                work()
        with pytest.raises(ValueError, match="dimensions"):
            x[...] = cupy.broadcast_to(x, (2, 3))
    streams[0].end_capture()
