"""Subnormal numbers, which fused operations and products on the CPU take for zero."""

from __future__ import annotations

import ctypes
import ctypes.util
import functools
import os
import platform
import threading
import time

import numpy as np
import pytest

import xpnet
from tests.kernels.cases import ROWS, case
from tests.kernels.teams import team_of
from tests.registered import one_of_each
from xpnet import nn, training
from xpnet.kernels import host

pytestmark = [pytest.mark.host]
if os.environ.get("CI") != "true":
    reason = f"the host kernels are {host.problem()}"
    pytestmark += [pytest.mark.skipif(host.problem() is not None, reason=reason)]

IS_X86 = platform.machine() in ("x86_64", "AMD64")


def subnormal(array):
    """Say which elements are subnormal, by their bits: arithmetic may take them for zero."""
    bits = array.view(np.uint32 if array.dtype == np.float32 else np.uint64)
    info = np.finfo(array.dtype)
    fraction = bits & bits.dtype.type(2**info.nmant - 1)
    exponent = (bits >> bits.dtype.type(info.nmant)) & bits.dtype.type(2**info.nexp - 1)
    return (exponent == 0) & (fraction != 0)


def rarely_active(n, n_features, n_classes):
    """Draw samples of which most features are rarely active: some after the first 200 never."""
    rng = np.random.default_rng(0)
    chance = np.geomspace(1, 1e-4, n_features)
    X = np.where(rng.random((n, n_features)) < chance, rng.random((n, n_features)), 0)
    X[:200, n_features // 2 :] = rng.random((200, n_features - n_features // 2))
    return X, rng.integers(0, n_classes, n)


RULES = {
    **{rule.name: rule for rule in one_of_each(nn.Optimizer)},
    "adam": nn.Adam(0.01),
    "adamw": nn.AdamW(0.01),
    "momentum": nn.Momentum(0.05),
    "averaged": nn.Momentum(0.5, averaged=True),
    "nesterov": nn.Nesterov(0.05),
    "rmsprop": nn.RMSprop(0.001, beta=0.5),
}


def train(rule, kernels, dtype="float32", units=(16, 4), regularizer=None, layers=None):
    """Take 3,000 steps; gives all that a training leaves behind: parameters, gradients, state."""
    X, y = rarely_active(3000, 60, max(units[-1], 2))
    device = xpnet.device("cpu", kernels)
    if layers is None:
        layers = [nn.Dense(width, "relu") for width in units[:-1]] + [nn.Dense(units[-1])]
    network = nn.Network(layers, 60, device=device, dtype=dtype)
    loss = nn.SigmoidCrossEntropy() if units[-1] == 1 else nn.SoftmaxCrossEntropy()
    with device.activate():
        state = rule.init_state(device, network.parameters)
        average = nn.MovingAverage(network, 0.9)
        step = nn.TrainingStep(
            *(network, loss, rule, state, X.astype(dtype)),
            loss.labels(device, y, units[-1], network.dtype),
            20,
            regularizer=regularizer,
            average=average,
        )
        for number in range(3000):
            step(np.arange(20) + 20 * (number % 10 if number < 100 else 10 + number % 140))
    found = {"parameters": network.parameters, "gradients": network.gradients}
    return found | {"average": average.average} | {k: v for k, v in state.items() if v.size > 1}


@pytest.mark.parametrize("rule", RULES)
def test_training_leaves_none(rule):
    for name, array in train(RULES[rule], "fused").items():
        assert not subnormal(array).any(), name


def test_training_leaves_some_on_the_reference_path():
    """What the test above would see without the flush."""
    assert subnormal(train(nn.Adam(0.01), "reference")["m"]).any()


@pytest.mark.parametrize("units", [(1,), (16, 1), (4,), (16, 8, 4)])
def test_networks_of_other_shapes_leave_none(units):
    """Of one output, too, which products by vectors compute."""
    for name, array in train(nn.Adam(0.01), "fused", units=units).items():
        assert not subnormal(array).any(), name


def test_regularised_networks_leave_none():
    layers = [
        nn.Dense(16, max_norm=2.0, bias=False),
        nn.BatchNorm(),
        "tanh",
        nn.Dropout(0.3),
        nn.Dense(8, "gelu_tanh"),
        nn.LayerNorm(),
        nn.Dense(4),
    ]
    penalties = nn.Regularizer(l2=1e-4, clip_norm=1.0)
    for name, array in train(nn.Adam(0.01), "fused", regularizer=penalties, layers=layers).items():
        assert not subnormal(array).any(), name


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(7, 13), (300, 500)])
def test_moments_decay_to_zero(dtype, shape):
    """0.9 times the smallest subnormal number rounds to itself."""
    tiny = np.finfo(dtype).tiny
    m = np.full(shape, tiny, dtype)
    scalar = functools.partial(np.full, 1, dtype=dtype)
    arrays = [np.zeros(shape, dtype), np.zeros(shape, dtype), m, np.zeros(shape, dtype)]
    host.fused()["adam_update"](*arrays, scalar(1), scalar(1), scalar(1), scalar(1), 0.9, 0.999)
    assert (m == 0).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_moments_in_a_strided_array_decay_to_zero(dtype):
    scalar = functools.partial(np.full, 1, dtype=dtype)
    arrays = [np.zeros((700, 2), dtype)[:, 0] for _ in range(4)]
    arrays[2][...] = np.finfo(dtype).tiny
    host.fused()["adam_update"](*arrays, scalar(1), scalar(1), scalar(1), scalar(1), 0.9, 0.999)
    assert (arrays[2] == 0).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sums_of_parts_are_zero(dtype):
    """Each part's sum is normal, and their difference is not."""
    tiny = np.finfo(dtype).tiny
    dA = np.zeros((2000, 32), dtype)
    dA[0], dA[-1] = dtype(1.5) * tiny, -tiny
    with team_of(2, processors=2):
        db = host.fused()["bias_grad"](dA)
    assert (db == 0).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("m", "k", "n"), [(3, 2, 5), (200, 300, 250), (900, 400, 1), (1, 9, 7)])
def test_products_are_zero(dtype, m, k, n):
    """Of factors that are not subnormal, whose product is; and of a subnormal factor."""
    small = np.finfo(dtype).tiny ** dtype(0.75)
    for left, right in ((small, small), (np.finfo(dtype).smallest_subnormal, dtype(1) / small)):
        A, B = np.full((m, k), left), np.full((k, n), right)
        out = np.full((m, n), 1, dtype)
        with team_of(2) as matmul:
            matmul(A, B, out=out)
        assert (out == 0).all()


def control():
    """Return the bits of the floating-point control register that say how to compute."""
    library = ctypes.CDLL(ctypes.util.find_library("m"))
    environment = (ctypes.c_uint32 * 64)()
    assert library.fegetenv(environment) == 0
    return environment[7] & 0xFFC0 if IS_X86 else environment[0]  # glibc's fenv_t


@pytest.fixture
def keeps_control():
    """Require of a call that it changes nothing, and that it is not all that is there to see."""
    if platform.system() != "Linux" or platform.machine() not in ("x86_64", "aarch64"):
        pytest.skip("where the register is found is not known here")
    before = control()

    def require(what=None):
        assert control() == before, what
        assert np.float32(2.0**-140) * np.float32(0.5) > 0, what

    return require


@pytest.mark.parametrize("name", ROWS)
def test_operations_leave_the_flags(name, keeps_control):
    operation = host.fused()[name]
    for shape in ((7, 13), (300, 500)):
        arguments = case(name, shape, "ordinary") if name != "rotate" or shape[0] == 7 else {}
        if not arguments:
            continue
        with team_of(3):
            operation(**arguments)
            keeps_control(name)
            with pytest.raises((TypeError, ValueError, IndexError)):
                operation(**{**arguments, next(iter(arguments)): np.zeros((2, 2), np.int8)})
            keeps_control(name)


def test_entry_points_leave_the_flags(keeps_control):
    X, y = rarely_active(600, 60, 3)

    def use():
        network = nn.Network([nn.Dense(130, "relu"), nn.Dense(3)], 60)
        loss = "softmax_cross_entropy"
        training.fit(network, X, y, loss=loss, optimizer="adam", epochs=2, batch_size=200)
        keeps_control("fit")
        with pytest.raises(ValueError, match="nan"):
            training.fit(network, X * np.nan, y, loss=loss, optimizer="adam", epochs=1)
        keeps_control("an error in fit")
        network.predict(X)
        keeps_control("predict")
        training.evaluate(network, loss, X, y)
        keeps_control("evaluate")
        with pytest.raises(IndexError):
            host.fused()["gather"](X, np.array([10**6]), out=np.empty((1, 60)))
        keeps_control("an error in gather")
        with pytest.raises(ValueError, match="mismatch"):
            host.shared()["matmul"](X, X, out=np.empty((600, 600)))
        keeps_control("an error in matmul")
        host.random_words(1000, 1, purpose=1)
        host.shares_core()
        keeps_control("words")

    with team_of(2, forced=False):
        use()
        failures = []

        def other():
            try:
                use()
            except BaseException as error:
                failures.append(error)
                raise

        threads = [threading.Thread(target=other) for _ in range(2)]
        for thread in threads:
            thread.start()
        use()
        for thread in threads:
            thread.join()
        assert not failures
    keeps_control()


def test_an_update_of_subnormal_moments_takes_no_longer():
    """An Intel processor takes some 150 cycles for each that it computes with."""
    n = 100_000
    rng = np.random.default_rng(0)
    scalar = functools.partial(np.full, 1, dtype=np.float32)

    def arrays(scale):
        param, m = rng.standard_normal((2, n), dtype=np.float32)
        return [param, np.zeros(n, np.float32), m * np.float32(scale), np.ones(n, np.float32)]

    kinds = {"ordinary": arrays(1.0), "subnormal": arrays(2.0**-140)}
    assert subnormal(kinds["subnormal"][2]).mean() > 0.99
    ratios = []
    update = host.fused()["adam_update"]
    here = arrays(1.0)  # where arrays lie makes a difference, too
    with team_of(1):
        for _ in range(60):
            seconds = {}
            for kind, values in kinds.items():
                for array, value in zip(here, values, strict=True):
                    array[...] = value
                start = time.perf_counter()
                update(*here, *(scalar(v) for v in (1e-3, 0.5, 0.5, 1e-8)), 0.9, 0.999)
                seconds[kind] = time.perf_counter() - start
            # Of each pair, because the machine's pace changes during the test.
            ratios.append(seconds["subnormal"] / seconds["ordinary"])
    assert np.median(ratios) <= 1.2, sorted(ratios)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_what_a_flush_makes_zero_is_refused(dtype):
    """An epsilon keeps a denominator from zero."""
    eps = float(np.finfo(dtype).tiny) / 2
    network = nn.Network([nn.Dense(2)], 3, dtype=dtype)
    for rule in (nn.Adam(eps=eps), nn.RMSprop(eps=eps), nn.GradientDescent(eps)):
        with pytest.raises(
            ValueError, match=f"=.* is subnormal in {dtype}: choose a value between"
        ):
            rule.init_state(network.device, network.parameters)
    for layer in (nn.BatchNorm(eps=eps), nn.LayerNorm(eps=eps)):
        with pytest.raises(
            ValueError, match=f"eps=.* is subnormal in {dtype}: choose a value between"
        ):
            nn.Network([layer, nn.Dense(2)], 3, dtype=dtype)
    nn.Network([nn.BatchNorm(eps=2 * eps), nn.Dense(2)], 3, dtype=dtype)
