"""The stand-in's memory: what is counted, limited and refused."""

from __future__ import annotations

import gc
import threading

import numpy as np
import pytest

from tests.emulation import execution, memory
from tests.emulation.module import cupy

pytestmark = pytest.mark.host

UNIT = 512


@pytest.fixture(autouse=True)
def _clean():
    yield
    cupy.cuda.set_allocator(cupy.get_default_memory_pool().malloc)
    assert execution.reset() is None


@pytest.fixture
def pool():
    gc.collect()
    pool = cupy.cuda.MemoryPool()
    with cupy.cuda.using_allocator(pool.malloc):
        yield pool


def in_thread(work):
    """Run in another thread, and give what it returns or raise what it raises."""
    results: list[object] = []
    errors: list[BaseException] = []

    def guarded():
        try:
            results.append(work())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=guarded)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "uint8"])
def test_new_memory_is_poisoned(pool, dtype):
    del pool
    x = cupy.empty((3, 5), dtype).get()
    assert set(x.tobytes()) == {0xFF}
    if x.dtype.kind == "f":
        assert np.isnan(x).all()


def test_memory_that_is_given_back_is_poisoned_again(pool):
    del pool
    for _ in range(3):
        x = cupy.empty(100, "float32")
        assert np.isnan(x.get()).all()
        x.fill(1)
        del x


def test_a_pool_counts(pool):
    assert pool.used_bytes() == 0
    x = cupy.zeros(1000, "float32")
    assert pool.used_bytes() == pool.total_bytes() == 8 * UNIT  # in units of 512 bytes, as CuPy's
    views = [x[10:], x.reshape(10, 100), x.T, x.view("int32"), x[3]]
    del x
    assert pool.used_bytes() == 8 * UNIT  # as long as a view is there
    del views
    assert pool.used_bytes() == 0
    pool.free_all_blocks()
    empty = cupy.empty((0, 3))
    assert pool.used_bytes() == 0
    del empty


def test_a_pool_refuses(pool):
    pool.set_limit(size=4 * UNIT)
    x = cupy.empty(3 * UNIT, "uint8")
    with pytest.raises(
        cupy.cuda.memory.OutOfMemoryError, match=r"allocating 1,024 bytes.*1,536"
    ) as e:
        cupy.empty(UNIT + 1, "uint8")
    assert isinstance(e.value, MemoryError)
    assert "limit set to: 2,048 bytes" in str(e.value)
    with pytest.raises(MemoryError):
        x + x
    assert pool.used_bytes() == 3 * UNIT
    y = cupy.empty(UNIT, "uint8")
    del x, y
    cupy.empty(4 * UNIT, "uint8")
    pool.set_limit(size=0)
    cupy.empty(40 * UNIT, "uint8")


def test_devices_have_limits_of_their_own(pool):
    pool.set_limit(size=UNIT)
    with cupy.cuda.Device(1):
        x = cupy.empty(4 * UNIT, "uint8")
        assert pool.used_bytes() == 4 * UNIT
    assert pool.used_bytes() == 0
    with pytest.raises(MemoryError):
        cupy.empty(4 * UNIT, "uint8")
    del x
    with cupy.cuda.Device(1):
        assert pool.used_bytes() == 0


def test_the_counter(pool):
    del pool
    before = memory.counter.n_allocations, memory.counter.n_bytes
    x = cupy.zeros((2, 3), "float32")
    x += 1  # asks for none
    x[0] = x[1]
    x.T[0].fill(2)
    cupy.add(x, x, out=x)
    after = memory.counter.n_allocations, memory.counter.n_bytes
    assert (after[0] - before[0], after[1] - before[1]) == (1, 24)
    x + x
    assert memory.counter.n_allocations == after[0] + 1


def test_allocators_nest_and_are_of_their_thread():
    default = cupy.get_default_memory_pool()
    first, second = cupy.cuda.MemoryPool(), cupy.cuda.MemoryPool()
    assert cupy.cuda.get_allocator() == default.malloc
    with cupy.cuda.using_allocator(first.malloc):
        x = cupy.empty(1)
        with cupy.cuda.using_allocator(second.malloc):
            y = cupy.empty(1)
            with cupy.cuda.using_allocator():  # CUDA itself
                z = cupy.empty(1)
            assert cupy.cuda.get_allocator() == second.malloc
            assert in_thread(cupy.cuda.get_allocator) == default.malloc
        with pytest.raises(ZeroDivisionError), cupy.cuda.using_allocator(second.malloc):
            1 / 0  # noqa: B018
        assert cupy.cuda.get_allocator() == first.malloc
        with pytest.raises(ValueError, match="inside `using_allocator`"):
            cupy.cuda.set_allocator(second.malloc)
    assert (first.used_bytes(), second.used_bytes()) == (UNIT, UNIT)
    del x, y, z
    assert (first.used_bytes(), second.used_bytes()) == (0, 0)


def test_set_allocator_is_for_all_threads():
    pool = cupy.cuda.MemoryPool()
    cupy.cuda.set_allocator(pool.malloc)
    x = cupy.empty(1)
    assert pool.used_bytes() == UNIT
    assert in_thread(cupy.cuda.get_allocator) == pool.malloc
    del x
    cupy.cuda.set_allocator(None)
    x = cupy.empty(1)
    assert pool.used_bytes() == 0
    cupy.cuda.set_allocator(cupy.get_default_memory_pool().malloc)
    del x


def test_an_allocator_of_ones_own():
    arena = cupy.cuda.alloc(4 * UNIT)

    def allocator(size):
        assert size <= UNIT
        return cupy.cuda.MemoryPointer(arena.mem, UNIT)

    with cupy.cuda.using_allocator(allocator):
        x = cupy.zeros(3, "float32")
    assert x.data.mem is arena.mem
    assert x.data.ptr == arena.ptr + UNIT
    y = cupy.ndarray(3, "float32", memptr=arena)
    y.fill(1)
    assert x.tolist() == [0, 0, 0]
    with pytest.raises(ValueError, match=r"reshape|broadcast|size"):
        cupy.ndarray(4 * UNIT + 1, "uint8", memptr=arena)
    with (
        cupy.cuda.using_allocator(lambda size: size),
        pytest.raises(TypeError, match="MemoryPointer"),
    ):
        cupy.empty(3)

    def refuse(size):
        raise cupy.cuda.memory.OutOfMemoryError(size, 0, 0)

    with (
        cupy.cuda.using_allocator(refuse),
        pytest.raises(MemoryError, match=r"so far: 0 bytes\)\."),
    ):
        x + 1


def test_zero_sizes_ask_as_well():
    sizes = []

    def allocator(size):
        sizes.append(size)
        return cupy.get_default_memory_pool().malloc(size)

    with cupy.cuda.using_allocator(allocator):
        cupy.empty((0, 3))
        cupy.empty(())
    assert sizes == [0, 8]


def test_memory_is_aligned():
    assert all(cupy.empty(n).data.ptr % UNIT == 0 for n in range(1, 9))


def test_freed_memory_is_another_streams():
    # CuPy's pool gives it out again on the stream on which it was asked for.
    own, other = (cupy.cuda.Stream(non_blocking=True) for _ in range(2))
    with own:
        x = cupy.zeros(3)
        ready = own.record()
    with other:
        other.wait_event(ready)
        y = x + 1
        done = other.record()
    del x  # while the other stream may still read it
    with own, pytest.raises(execution.OrderError, match="nothing makes it wait"):
        cupy.zeros(3)
    own.wait_event(done)
    with own:
        cupy.zeros(3)
    del y


def test_freed_memory_of_one_stream():
    with cupy.cuda.Stream(non_blocking=True):
        for _ in range(3):
            cupy.zeros(3) + 1


def test_memory_of_cuda_itself_is_freed_when_it_is_not_in_use():
    own, other = (cupy.cuda.Stream(non_blocking=True) for _ in range(2))
    with cupy.cuda.using_allocator():
        with own:
            x = cupy.zeros(3)
            other.wait_event(own.record())
        with other:
            x += 1
        del x
        with own:
            cupy.zeros(3)


def test_threads_count_together():
    pool = cupy.cuda.MemoryPool()
    before = memory.counter.n_allocations

    def work():
        with cupy.cuda.using_allocator(pool.malloc):
            for _ in range(200):
                cupy.empty(1)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert pool.used_bytes() == 0
    assert memory.counter.n_allocations == before + 1600


def test_memory_that_is_freed_together_with_its_stream():
    """As a cycle of garbage frees them: what the host has waited for is not forgotten."""
    stream = cupy.cuda.Stream(non_blocking=True)
    x = cupy.zeros(3)
    stream.wait_event(cupy.cuda.get_current_stream().record())
    with stream:
        x += 1
    stream.synchronize()
    cycle = [x, stream]
    cycle.append(cycle)
    del x, stream, cycle
    gc.collect()
    assert cupy.zeros(3).tolist() == [0, 0, 0]
