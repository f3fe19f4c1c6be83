"""The stand-in's streams, events and graphs: the order that they keep."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from tests.emulation import execution
from tests.emulation.execution import OrderError
from tests.emulation.module import cupy, cupyx
from tests.emulation.test_memory import in_thread

pytestmark = pytest.mark.host

CUDARuntimeError = cupy.cuda.runtime.CUDARuntimeError
NO_WAIT = "nothing makes it wait"


@pytest.fixture(autouse=True)
def _clean():
    yield
    assert execution.reset() is None


@pytest.fixture
def streams():
    return [cupy.cuda.Stream(non_blocking=True) for _ in range(3)]


def zeros():
    """Memory that all streams may use."""
    x = cupy.zeros(3, "float32")
    cupy.cuda.Device().synchronize()
    return x


def add(stream, x, value=1):
    with stream:
        x += value


def read(stream, x):
    with stream:
        return x.tolist()


# Order.


def test_a_read_behind_a_write_of_another_stream(streams):
    first, second, _ = streams
    x = zeros()
    add(first, x)
    for work in (
        lambda: read(second, x),
        lambda: add(second, x),
        lambda: x.get(),
        lambda: x.fill(1),
    ):
        with pytest.raises(OrderError, match=NO_WAIT):
            work()
    with pytest.raises(OrderError, match=NO_WAIT):
        read(second, x[1:])  # also another view
    second.wait_event(first.record())
    assert read(second, x) == [1, 1, 1]


def test_a_write_behind_a_read_of_another_stream(streams):
    first, second, _ = streams
    x = zeros()
    with first:
        y = x + 1
    with pytest.raises(OrderError, match="overwrites what is read"):
        add(second, x)
    with second:
        x + 1  # both may read
    second.wait_event(first.record())
    with pytest.raises(OrderError, match=NO_WAIT):
        add(first, x)
    first.wait_event(second.record())
    add(first, x)
    assert read(first, y) == [1, 1, 1]


def test_an_event_holds_for_what_came_before_it(streams):
    first, second, _ = streams
    x = zeros()
    event = first.record()
    add(first, x)
    second.wait_event(event)
    with pytest.raises(OrderError, match=NO_WAIT):
        read(second, x)
    event.record(first)  # again, and later
    with pytest.raises(OrderError, match=NO_WAIT):
        read(second, x)
    second.wait_event(event)
    assert read(second, x) == [1, 1, 1]


def test_events_carry_what_their_stream_has_waited_for(streams):
    first, second, third = streams
    x = zeros()
    add(first, x)
    second.wait_event(first.record())
    third.wait_event(second.record())
    with pytest.raises(OrderError, match=NO_WAIT):
        x.get()
    assert read(third, x) == [1, 1, 1]


def test_an_event_that_was_not_recorded_orders_nothing(streams):
    x = zeros()
    add(streams[0], x)
    streams[1].wait_event(cupy.cuda.Event())
    with pytest.raises(OrderError, match=NO_WAIT):
        read(streams[1], x)


def test_events_are_recorded_on_the_current_stream(streams):
    x = zeros()
    event = cupy.cuda.Event(disable_timing=True)
    with streams[0]:
        x += 1
        event.record()
    streams[1].wait_event(event)
    assert read(streams[1], x) == [1, 1, 1]


@pytest.mark.parametrize(
    "wait",
    [
        lambda stream: stream.synchronize(),
        lambda stream: stream.record().synchronize(),
        lambda stream: cupy.cuda.Device().synchronize(),
    ],
    ids=["stream", "event", "device"],
)
def test_the_host_waits(streams, wait):
    x = zeros()
    add(streams[0], x)
    wait(streams[0])
    assert read(streams[1], x) == [1, 1, 1]
    add(streams[2], x)


def test_reading_waits_for_its_stream(streams):
    first, second, _ = streams
    x, y = zeros(), zeros()
    add(first, x)
    add(first, y)
    assert read(first, x) == [1, 1, 1]
    assert read(second, y) == [1, 1, 1]


def test_waiting_for_one_stream_is_no_wait_for_another(streams):
    x = zeros()
    add(streams[0], x)
    streams[1].synchronize()
    with pytest.raises(OrderError, match=NO_WAIT):
        read(streams[1], x)
    cupy.cuda.Device(1).synchronize()
    with pytest.raises(OrderError, match=NO_WAIT):
        read(streams[1], x)


def test_a_refused_access_changes_nothing(streams):
    x = zeros()
    add(streams[0], x)
    with pytest.raises(OrderError):
        add(streams[1], x)
    assert read(streams[0], x) == [1, 1, 1]


def test_the_default_stream_and_blocking_ones():
    blocking = cupy.cuda.Stream()
    x = zeros()
    x += 1
    add(blocking, x)  # behind the default stream
    x += 1  # and it behind them
    other = cupy.cuda.Stream()
    add(other, x)
    assert x.tolist() == [4, 4, 4]
    add(blocking, x)
    with pytest.raises(OrderError, match=NO_WAIT):
        add(other, x)  # nothing on the default stream came between
    cupy.zeros(1)
    add(other, x)
    assert read(other, x) == [6, 6, 6]


def test_the_default_stream_and_non_blocking_ones(streams):
    x = zeros()
    x += 1
    with pytest.raises(OrderError, match="default stream"):
        add(streams[0], x)
    streams[0].wait_event(cupy.cuda.Stream.null.record())
    add(streams[0], x)
    with pytest.raises(OrderError, match=NO_WAIT):
        x += 1
    cupy.cuda.Stream.null.wait_event(streams[0].record())
    x += 1
    assert x.tolist() == [3, 3, 3]


def test_an_event_of_the_default_stream_is_behind_blocking_ones(streams):
    x = zeros()
    add(cupy.cuda.Stream(), x)
    streams[0].wait_event(cupy.cuda.Stream.null.record())
    assert read(streams[0], x) == [1, 1, 1]


def test_default_streams_are_of_their_device():
    x = zeros()
    add(cupy.cuda.Stream(), x)
    with cupy.cuda.Device(1):
        event = cupy.cuda.Stream.null.record()
    third = cupy.cuda.Stream(non_blocking=True)
    third.wait_event(event)
    with pytest.raises(OrderError, match=NO_WAIT):
        read(third, x)


def test_an_event_of_another_device():
    with cupy.cuda.Device(1):
        other, event = cupy.cuda.Stream(), cupy.cuda.Event()
    with pytest.raises(CUDARuntimeError, match="cudaErrorInvalidResourceHandle"):
        event.record(cupy.cuda.Stream())
    with pytest.raises(CUDARuntimeError, match="cudaErrorInvalidResourceHandle"):
        other.record()
    event.record(other)
    cupy.cuda.Stream().wait_event(event)


# Which stream is current.


def test_use_and_with(streams):
    first, second, third = streams
    current = cupy.cuda.get_current_stream
    assert current() == cupy.cuda.Stream.null
    with first:
        with second, first:
            assert current() is first
        assert current() is first
        third.use()
        with second:
            assert current() is second
        assert current() is first  # CuPy forgets what use() chose
        third.use()
    assert current() == cupy.cuda.Stream.null
    assert third.use() is third
    with first:
        pass
    assert current() == cupy.cuda.Stream.null
    cupy.cuda.Stream.null.use()
    with pytest.raises(ZeroDivisionError), first:
        1 / 0  # noqa: B018
    assert current() == cupy.cuda.Stream.null


def test_streams_of_another_device(streams):
    with cupy.cuda.Device(1):
        other = cupy.cuda.Stream()
        for enter in (streams[0].use, streams[0].__enter__):
            with pytest.raises(RuntimeError, match="does not match with the current device"):
                enter()
        with other:
            assert cupy.cuda.get_current_stream() is other
        assert cupy.cuda.get_current_stream() == cupy.cuda.Stream.null
    assert cupy.cuda.get_current_stream() == cupy.cuda.Stream.null


def test_each_device_has_a_current_stream(streams):
    with streams[0]:
        with cupy.cuda.Device(1):
            assert cupy.cuda.get_current_stream() == cupy.cuda.Stream.null
            with cupy.cuda.Stream():
                pass
            assert cupy.cuda.get_current_stream() == cupy.cuda.Stream.null
            cupy.zeros(1)
        assert cupy.cuda.get_current_stream() is streams[0]


def test_each_thread_has_a_current_stream_and_device(streams):
    with cupy.cuda.Device(1), cupy.cuda.Stream():
        assert in_thread(cupy.cuda.get_current_stream) == cupy.cuda.Stream.null
        assert in_thread(lambda: cupy.cuda.Device().id) == 0
    streams[0].use()
    in_thread(streams[1].use)
    assert cupy.cuda.get_current_stream() is streams[0]
    with cupyx.allow_synchronize(False):
        assert in_thread(lambda: cupy.ones(1).item()) == 1


def test_threads_are_held_to_the_same_order(streams):
    x = zeros()
    in_thread(lambda: add(streams[0], x))
    with pytest.raises(OrderError, match=NO_WAIT):
        in_thread(lambda: read(streams[1], x))
    streams[1].wait_event(in_thread(streams[0].record))
    assert in_thread(lambda: read(streams[1], x)) == [1, 1, 1]


def test_threads_at_once():
    errors = []

    def work(value):
        try:
            stream = cupy.cuda.Stream(non_blocking=True)
            with stream:
                x = cupy.zeros(100)
                for _ in range(50):
                    x += value
                    cupy.cuda.Stream()
                    cupy.cuda.Device().synchronize()
                assert (x.get() == 50 * value).all()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


def test_streams_by_their_pointers(streams):
    first, second, _ = streams
    assert first == first
    assert first != second
    assert cupy.cuda.Stream(null=True) == cupy.cuda.Stream.null
    assert {first, second, first} == {first, second}
    assert (cupy.cuda.Stream.null.ptr, cupy.cuda.Stream.null.device_id) == (0, -1)
    assert repr(cupy.cuda.Stream.null) == "<Stream 0 (device -1)>"


def test_devices():
    with pytest.raises(CUDARuntimeError, match="cudaErrorInvalidDevice"):
        cupy.cuda.Device(2)
    with pytest.raises(CUDARuntimeError, match="cudaErrorInvalidDevice"):
        cupy.cuda.runtime.getDeviceProperties(2)
    device = cupy.cuda.Device(1)
    with device, cupy.cuda.Device(0), device:
        assert cupy.cuda.Device() == device
    assert cupy.cuda.Device().id == 0
    device.use()
    assert cupy.empty(1).device.id == 1


@pytest.mark.parametrize(
    "wait",
    [
        lambda: cupy.cuda.get_current_stream().synchronize(),
        lambda: cupy.cuda.Event().synchronize(),
        lambda: cupy.cuda.Device().synchronize(),
        lambda: cupy.cuda.get_current_stream().done,
    ],
)
def test_waiting_without_an_array(streams, wait):
    with streams[0]:
        wait()
        with cupyx.allow_synchronize(False), pytest.raises(cupyx.DeviceSynchronized):
            wait()


# Capture.


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


def test_reset_forgets_streams_and_devices(streams):
    cupy.cuda.Device(1).use()
    cupy.cuda.Stream().use()
    assert execution.reset() is None
    assert cupy.cuda.Device().id == 0
    assert cupy.cuda.get_current_stream() == cupy.cuda.Stream.null
    streams[0].use()


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
