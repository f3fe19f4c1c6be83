"""The stand-in's streams and events: the order that they keep, and which of them is current."""

from __future__ import annotations

import threading

import pytest

from tests.emulation import execution
from tests.emulation.execution import OrderError
from tests.emulation.module import cupy, cupyx
from tests.emulation.streams import NO_WAIT, CUDARuntimeError, add, read, zeros
from tests.emulation.test_memory import in_thread

pytestmark = [pytest.mark.host, pytest.mark.usefixtures("clean")]


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


def test_reset_forgets_streams_and_devices(streams):
    cupy.cuda.Device(1).use()
    cupy.cuda.Stream().use()
    assert execution.reset() is None
    assert cupy.cuda.Device().id == 0
    assert cupy.cuda.get_current_stream() == cupy.cuda.Stream.null
    streams[0].use()
