"""How many threads compute: by limits, variables, processors and quotas."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import xpnet
from tests.conftest import slow
from tests.kernels.teams import PARTS, SETUP, THREADS, restore_threads, run, team_of
from xpnet.kernels import blas, host

pytestmark = [pytest.mark.host]
if os.environ.get("CI") != "true":
    reason = "there are no host kernels, or NumPy's BLAS is not OpenBLAS"
    pytestmark += [pytest.mark.skipif(not host.shared(), reason=reason)]


@pytest.mark.parametrize("n_threads", THREADS)
def test_the_blas_gets_its_threads_back(n_threads):
    A = np.ones((300, 300))
    out = np.empty_like(A)
    with team_of(n_threads) as matmul:
        matmul(A, A, out=out)
        import threadpoolctl

        pools = [p for p in threadpoolctl.threadpool_info() if p["internal_api"] == "openblas"]
        assert pools
        assert {pool["num_threads"] for pool in pools} == {n_threads}
        assert host.count_threads() == n_threads


def test_a_limit_set_during_a_product_stays():
    """A number of BLAS threads that is set while BLAS is held at one stays set."""
    import threadpoolctl

    A = np.ones((1500, 1500))
    out = np.empty_like(A)
    started, controller = threading.Event(), threadpoolctl.ThreadpoolController()

    def multiply():
        started.set()
        for _ in range(4):
            matmul(A, A, out=out)

    with team_of(3) as matmul:
        thread = threading.Thread(target=multiply)
        thread.start()
        started.wait()
        time.sleep(0.02)
        limit = controller.limit(limits=2, user_api="blas")
        thread.join()
        assert host.count_threads() in (2, 3)  # 3 where no product was in progress just then
        limit.restore_original_limits()


CYCLES = """
import threading, threadpoolctl
import numpy as np
old = threadpoolctl.ThreadpoolController()  # made before xpnet was loaded, so without it
from xpnet import nn, training
from xpnet.kernels import blas, host
assert host.count_threads() == 2

def cycle():
    for _ in range(N):
        with LIMIT(limits=1, user_api="blas"):
            pass

def fit():
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((2000, 200)), rng.integers(0, 3, 2000)
    network = nn.Network([nn.Dense(256, "relu"), nn.Dense(3)], 200)
    options = {"loss": "softmax_cross_entropy", "optimizer": "adam", "batch_size": 256}
    training.fit(network, X, y, epochs=1, **options)

fit()  # loads all libraries: loading one while a ThreadpoolController is made deadlocks
limiting = threading.Thread(target=cycle)
limiting.start()
while limiting.is_alive():
    fit()
fit()
print(host.count_threads(), blas.count_blas_threads())
"""


NEW = "threadpoolctl.ThreadpoolController().limit"


@pytest.mark.parametrize(("limit", "n"), [("old.limit", 2000), (NEW, 300), slow(NEW, 2000)])
def test_limits_in_another_thread_leave_no_limit(limit, n):
    """A limit that begins while a product runs finds one thread, and puts that back at its end."""
    assert run(CYCLES.replace("LIMIT", limit).replace("range(N)", f"range({n})")) == "2 2\n"


THREADS_OF = """
import ctypes, threading, threadpoolctl
import numpy as np
old = threadpoolctl.ThreadpoolController()  # made before xpnet was loaded, so without it
from xpnet.kernels import blas, host
set_threads = ctypes.CFUNCTYPE(None, ctypes.c_int)(blas.numpy_blas().set_threads)

def threads():
    A, out = np.ones((300, 300)), np.empty((300, 300))
    host.shared()["matmul"](A, A, out=out)
    return host.count_threads(), blas.count_blas_threads()

"""


def test_one_thread_is_leftover_or_asked_for():
    """Left by another thread of Python it is set right; what the user asks for stays."""
    code = """
print(threads())
with old.limit(limits=1):  # nobody else is there: it is the user's
    print(threads())
with threadpoolctl.threadpool_limits({"libscipy_openblas": 1}):
    print(threads())
with threadpoolctl.threadpool_limits(1):
    print(threads())
set_threads(1)
print(threads())
set_threads(2)
stop = threading.Event()
threading.Thread(target=stop.wait).start()
print(threads())
set_threads(1)  # as by a thread that saved a 1
print(threads())
with threadpoolctl.threadpool_limits(1):
    print(threads())
    set_threads(1)
    print(threads())
print(threads())
kept = threadpoolctl.threadpool_limits(1)
print(threads())
stop.set()
"""
    one, two = "(1, 1)", "(2, 2)"
    found = run(THREADS_OF + code).split("\n")[:-1]
    assert found == [two, one, one, one, one, two, two, one, one, two, one]


@pytest.mark.parametrize("chosen", ["", "1"])
def test_other_limits_leave_the_blas_as_it_is(chosen):
    """threadpoolctl saves and restores our number with all others, whatever is limited."""
    code = """
with old.limit(limits=1):
    threads()
    for limits, api in ((1, "openmp"), (None, None), (1, "blas"), (2, None)):
        with threadpoolctl.threadpool_limits(limits, api):
            threads()
for _ in range(2):
    print(*threads())
    with threadpoolctl.threadpool_limits(1, "openmp"):
        threads()
with threadpoolctl.threadpool_limits(2):
    print(*threads())
print(*threads())
"""
    line = f"{chosen or 2} 2\n"
    assert run(THREADS_OF + code, XPNET_THREADS=chosen) == 4 * line


def test_a_limit_of_one_that_begins_during_a_product_stays():
    code = """
limited, ended = threading.Event(), threading.Event()
A = np.ones((1500, 1500))

def multiply():
    while not limited.is_set():
        host.shared()["matmul"](A, A, out=np.empty_like(A))
    ended.set()

threading.Thread(target=multiply).start()
time.sleep(0.05)
kept = threadpoolctl.threadpool_limits(1)
limited.set()
ended.wait()
print(blas.count_blas_threads(), *threads())
"""
    assert run(f"import time{THREADS_OF}{code}") == "1 1 1\n"


@pytest.mark.parametrize(
    ("chosen", "blas_threads", "expected"), [("1", "2", 1), ("2", "2", 2), ("3", "2", 2)]
)
def test_threads_by_hand(chosen, blas_threads, expected):
    """All of them take part, but no more than the BLAS is set to."""
    code = """
A, out = np.ones((900, 900)), np.empty((900, 900))
before = len(os.listdir("/proc/self/task"))
print(host.count_threads())
for _ in range(20):
    host.shared()["matmul"](A, A, out=out)
print(len(os.listdir("/proc/self/task")) - before)
"""
    code = f"import os{THREADS_OF}{code}"
    if Path("/proc/self/task").exists():
        done = run(code, XPNET_THREADS=chosen, OPENBLAS_NUM_THREADS=blas_threads)
        assert done == f"{expected}\n{expected - 1}\n"


@pytest.mark.parametrize("chosen", ["abc", "0", "65", "-1", "1.5", "\N{SUPERSCRIPT TWO}"])
def test_a_wrong_number_of_threads(monkeypatch, chosen):
    monkeypatch.setenv("XPNET_THREADS", chosen)
    with pytest.raises(ValueError, match=f"XPNET_THREADS must be .* from 1 to 64, got '{chosen}'"):
        blas.chosen_threads()
    host.shared.cache_clear()
    try:
        with pytest.raises(ValueError, match="XPNET_THREADS"):
            xpnet.device("cpu", "fused")
    finally:
        monkeypatch.delenv("XPNET_THREADS")
        restore_threads()


def test_no_more_threads_than_processors():
    with team_of(3):
        host._module().use_threads(PARTS, 2, 0)
        assert host.count_threads() == 2


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="processes cannot be pinned")
def test_one_processor_is_not_shared():
    # OpenBLAS makes its threads when NumPy is imported, of the team's there are none.
    code = "import os, numpy; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
    code += "before = len(os.listdir('/proc/self/task'))\n" + SETUP
    code += "print(host.count_threads(), len(os.listdir('/proc/self/task')) - before)\n"
    assert run(code) == "1 0\n"


@pytest.mark.parametrize(
    ("own", "files", "expected"),
    [
        ("0::/", {"cpu.max": "max 100000\n"}, 64),
        ("0::/", {"cpu.max": "150000 100000\n"}, 2),
        ("0::/", {"cpu.max": "5000 100000\n"}, 1),
        ("0::/", {"cpu.max": "nonsense"}, 64),
        ("0::/", {}, 64),
        ("0::/a.slice/b", {"a.slice/cpu.max": "300000 100000", "a.slice/b/cpu.max": "max 1"}, 3),
        ("0::/a/b", {"a/cpu.max": "900000 100000", "a/b/cpu.max": "200000 100000"}, 2),
        ("0::/on/the/host", {"cpu.max": "200000 100000"}, 2),
        ("3:cpu,cpuacct:/", {"cpu.cfs_quota_us": "-1", "cpu.cfs_period_us": "100000"}, 64),
        ("3:cpu,cpuacct:/", {"cpu.cfs_quota_us": "250000", "cpu.cfs_period_us": "100000"}, 3),
        ("3:cpu,cpuacct:/pod", {"pod/cpu.cfs_quota_us": "5000", "pod/cpu.cfs_period_us": "1"}, 64),
        ("4:memory:/", {"cpu.cfs_quota_us": "5", "cpu.cfs_period_us": "5"}, 64),
        ("3:cpu,cpuacct:/", {"cpu.cfs_quota_us": "5", "cpu.cfs_period_us": "0"}, 64),
        ("no colon\n\n0::/", {"cpu.max": "200000 100000"}, 2),
        ("0::/\udcff", {"cpu.max": "200000 100000"}, 2),
    ],
)
def test_the_quota_of_a_container_counts(monkeypatch, tmp_path, own, files, expected):
    text = f"9:hugetlb:/other\n{own}\n"
    (tmp_path / "own").write_text(text, encoding="utf-8", errors="surrogateescape")
    controllers = own.splitlines()[-1].split(":")[1]
    for name, text in files.items():
        path = tmp_path / "groups" / controllers / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.setattr(blas, "_OWN_CGROUPS", tmp_path / "own")
    monkeypatch.setattr(blas, "_CGROUPS", tmp_path / "groups")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    assert blas.available_cpus() == expected
    monkeypatch.setattr(blas, "_OWN_CGROUPS", tmp_path / "none")
    assert blas.available_cpus() == 64


@pytest.mark.parametrize("mount", ["cpu", "cpu,cpuacct"])
def test_a_quota_is_found_whatever_the_order_of_names(monkeypatch, tmp_path, mount):
    (tmp_path / "own").write_text("4:cpuacct,cpu:/\n")
    (tmp_path / mount).mkdir()
    (tmp_path / mount / "cpu.cfs_quota_us").write_text("200000")
    (tmp_path / mount / "cpu.cfs_period_us").write_text("100000")
    monkeypatch.setattr(blas, "_OWN_CGROUPS", tmp_path / "own")
    monkeypatch.setattr(blas, "_CGROUPS", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    assert blas.available_cpus() == 2


def test_cores_are_counted_once(monkeypatch, tmp_path):
    monkeypatch.setattr(blas, "_TOPOLOGY", tmp_path)
    monkeypatch.setattr(blas, "_OWN_CGROUPS", tmp_path / "none")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 5}, raising=False)
    assert blas.available_cores() == 4  # the system does not say
    for n, siblings in ((0, "0-1"), (1, "0-1"), (2, "2,6"), (5, "5")):
        (tmp_path / f"cpu{n}" / "topology").mkdir(parents=True)
        (tmp_path / f"cpu{n}" / "topology" / "thread_siblings_list").write_text(f"{siblings}\n")
    assert blas.available_cores() == 3


def test_another_blas_is_left_alone(monkeypatch):
    """What NumPy is built on may be another library than OpenBLAS."""
    monkeypatch.setattr(blas, "_PTHREADS", 2)  # as if those of OpenMP were asked for
    assert blas.numpy_blas.__wrapped__() is None
    monkeypatch.setattr(blas, "_NAMES", (("no_such_", "", False),))
    assert blas.numpy_blas.__wrapped__() is None
