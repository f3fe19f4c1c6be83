"""Augmentation: what each class does with its options, and how a training step uses a list of them.

What the operations compute is tested in :mod:`tests.kernels.test_augmentation`.
"""

from __future__ import annotations

from typing import Any
from unittest import mock

import numpy as np
import pytest

import xpnet
from tests.conftest import traced_peak
from tests.registered import one_of_each, variants
from xpnet import nn, training
from xpnet.kernels import host
from xpnet.nn.augmentation import Augmentation
from xpnet.nn.batch import Batch
from xpnet.random import Purpose

SHAPE = (6, 7)
N, D, BATCH = 40, 42, 8
ALL = one_of_each(nn.Augmentation)
OPTIONS = [(augmentation, other) for augmentation in ALL for other in variants(augmentation)]


def samples(n: int = BATCH) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((n, D))


def apply(
    device: xpnet.Device,
    augmentation: Augmentation,
    X: np.ndarray,
    number: int = 0,
    *,
    seed: int = 0,
    step: int = 1,
    shape: tuple[int, ...] | None = SHAPE,
) -> np.ndarray:
    """Apply an augmentation on the device, and bring the result to the host."""
    with device.activate():
        given = device.asarray(X)
        at = device.asarray(np.array([step]))
        batch = Batch.of(device, len(X), X.dtype, seed=seed, step=at)
        out = device.xp.empty_like(given)
        assert augmentation.apply(device.ops, given, batch, number, shape, out) is out
        np.testing.assert_array_equal(device.to_host(given), X)
        found: np.ndarray = device.to_host(out)
    return found


def make_step(
    device: xpnet.Device,
    augmentations: Any,
    batch_size: int | None = BATCH,
    *,
    as_bytes: bool = False,
    shape: tuple[int, ...] | None = SHAPE,
) -> nn.TrainingStep:
    rng = np.random.default_rng(0)
    network = nn.Network([nn.Dense(16, "relu"), nn.Dense(10)], D, device=device, dtype="float64")
    loss, optimizer = nn.SoftmaxCrossEntropy(), nn.GradientDescent(0.1)
    state = optimizer.init_state(device, network.parameters)
    X = rng.integers(0, 256, (N, D)).astype(np.uint8) if as_bytes else samples(N)
    labels = loss.labels(device, rng.integers(0, 10, N), 10, np.float64)
    return nn.TrainingStep(
        network,
        loss,
        optimizer,
        state,
        device.asarray(X),
        labels,
        batch_size,
        255.0 if as_bytes else None,
        augmentations=augmentations,
        image_shape=shape,
    )


def seen(step: nn.TrainingStep, device: xpnet.Device, *indices: Any) -> np.ndarray:
    """Take a step, and give the samples that its network saw."""
    network = step._network
    forward = network.forward
    kept: list[Any] = []

    def keep(X: Any, caches: Any) -> Any:
        kept.append(X.copy())  # read back later: a step must not wait for the device
        return forward(X, caches)

    with mock.patch.object(network, "forward", keep), device.activate():
        step(*(device.asarray(np.asarray(index)) for index in indices))
    found: np.ndarray = device.to_host(kept[0])
    return found


@pytest.mark.parametrize(("first", "second"), OPTIONS, ids=repr)
def test_every_option_matters(dev, first, second):
    X = samples(N)
    assert np.any(apply(dev, first, X) != apply(dev, second, X))


@pytest.mark.parametrize(
    "augmentation",
    [
        nn.Flip(0.0),
        nn.Shift(0),
        nn.RandomCrop(0),
        nn.Rotate(0.0),
        nn.BrightnessContrast(0.0, 0.0),
        nn.GaussianNoise(0.0),
    ],
    ids=repr,
)
@pytest.mark.parametrize("shape", [SHAPE, (14, 3), (7, 2, 3), (42, 1, 1)])
def test_nothing_changes_where_nothing_is_asked_for(dev, augmentation, shape):
    X = samples()
    augmentation.check(shape, D)
    np.testing.assert_array_equal(apply(dev, augmentation, X, shape=shape), X)


def test_operations_are_those_of_the_device(dev):
    """With the seed, the place, the step and the purpose at their places."""
    X = samples()
    draw = (5, 3, 2, int(Purpose.AUGMENTATION))
    for augmentation, name, constants in (
        (nn.Flip(0.4), "flip", (*SHAPE, 0.4)),
        (nn.Shift(3, 0.5), "shift", (*SHAPE, 3, 0.5)),
        (nn.RandomCrop(3, 0.5), "shift", (*SHAPE, 3, 0.5)),
        (nn.Rotate(15, 0.5), "rotate", (*SHAPE, 15.0, 0.5)),
        (nn.BrightnessContrast(0.3, 0.4), "brightness_contrast", (0.3, 0.4)),
        (nn.GaussianNoise(0.3), "gaussian_noise", (0.3,)),
    ):
        found = apply(dev, augmentation, X, draw[1], seed=draw[0], step=draw[2])
        with dev.activate():
            step = dev.asarray(np.array([draw[2]]))
            given = dev.asarray(X)
            expected = getattr(dev.ops, name)(given, *constants, *draw[:2], step, draw[3])
            np.testing.assert_array_equal(found, dev.to_host(expected))


@pytest.mark.parametrize("augmentation", [a for a in ALL if a.works_in_place], ids=repr)
def test_in_place(dev, augmentation):
    X = samples()
    expected = apply(dev, augmentation, X)
    with dev.activate():
        own = dev.asarray(X.copy())
        batch = Batch.of(dev, len(X), X.dtype, step=dev.asarray(np.array([1])))
        augmentation.apply(dev.ops, own, batch, 0, SHAPE, own)
        np.testing.assert_array_equal(dev.to_host(own), expected)


# What is refused.


@pytest.mark.parametrize(
    ("attempt", "message"),
    [
        (lambda: nn.Flip(1.5), r"probability must lie in \[0, 1\], got 1\.5"),
        (lambda: nn.Flip(-0.5), "probability must be a non-negative"),
        (lambda: nn.Shift(-1), r"pixels must be an integer in \[0, 65535\], got -1"),
        (lambda: nn.Shift(1.5), "pixels must be an integer"),  # type: ignore[arg-type]
        (lambda: nn.Shift(True), "pixels must be an integer"),
        (lambda: nn.Shift(65_536), "pixels must be an integer"),
        (lambda: nn.Shift(1, fill=np.inf), "fill must be a finite number, got inf"),
        (lambda: nn.Shift(1, fill="0"), "fill must be a finite"),  # type: ignore[arg-type]
        (lambda: nn.Shift(1, fill=10**400), "fill must be a finite"),
        (lambda: nn.RandomCrop(-1), "padding must be an integer"),
        (lambda: nn.RandomCrop(1, fill=np.nan), "fill must be a finite"),
        (lambda: nn.Rotate(181), r"degrees must lie in \[0, 180\], got 181"),
        (lambda: nn.Rotate(-1), "degrees must be a non-negative"),
        (lambda: nn.Rotate(1, fill=None), "fill must be a finite"),  # type: ignore[arg-type]
        (lambda: nn.BrightnessContrast(-0.1), "brightness must be a non-negative"),
        (lambda: nn.BrightnessContrast(0.1, np.nan), "contrast must be a non-negative"),
        (lambda: nn.GaussianNoise(-1), "std must be a non-negative"),
    ],
)
def test_arguments_out_of_range(attempt, message):
    with pytest.raises(ValueError, match=message):
        attempt()


@pytest.mark.parametrize(
    "shape", [None, (6,), (6, 7, 1, 1), (6, 8), (-6, -7), (6.0, 7), (42, True)]
)
def test_samples_that_are_no_images(dev, shape):
    needs = "is for images: image_shape" if shape is None else "image_shape must be .* 42 features"
    for augmentation in ALL:
        if isinstance(augmentation, nn.ImageAugmentation):
            with pytest.raises(ValueError, match=needs):
                augmentation.check(shape, D)
        else:
            augmentation.check(shape, D)
    with dev.activate(), pytest.raises(ValueError, match=needs):
        make_step(dev, [nn.Flip()], shape=shape)


def test_fill_may_be_negative():
    assert nn.Shift(1, fill=-2).fill == -2
    assert type(nn.Rotate(1, fill=-1).get_config()["fill"]) is float


# In a training step.


@pytest.mark.parametrize("batch_size", [BATCH, None])
@pytest.mark.parametrize("as_bytes", [False, True])
@pytest.mark.parametrize(
    "augmentations",
    [
        [nn.Flip()],
        [nn.GaussianNoise()],
        [nn.Flip(), nn.Shift(), nn.Rotate()],
        [nn.GaussianNoise(), nn.Flip(), nn.BrightnessContrast(), nn.Shift(), nn.GaussianNoise()],
    ],
    ids=repr,
)
def test_a_step_applies_them_one_after_another(dev, augmentations, as_bytes, batch_size):
    """Each sample gets its own draw in every step; the data do not change."""
    with dev.activate():
        step = make_step(dev, augmentations, batch_size, as_bytes=as_bytes)
        plain = make_step(dev, (), batch_size, as_bytes=as_bytes)
        data = dev.to_host(step._data).copy()
    rng = np.random.default_rng(1)
    for t in (1, 2, 3):
        indices = [] if batch_size is None else [rng.integers(0, N, BATCH)]
        expected = seen(plain, dev, *indices)
        for number, augmentation in enumerate(augmentations):
            expected = apply(dev, augmentation, expected, number, step=t)
        found = seen(step, dev, *indices)
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-13)
    np.testing.assert_array_equal(dev.to_host(step._data), data)
    buffers = {id(out) for _, _, out in step._augmentations} - {id(step.X)}
    assert len(buffers) <= (2 if batch_size is None else 1)


def test_places_in_the_list_draw_for_themselves(dev):
    with dev.activate():
        step = make_step(dev, [nn.GaussianNoise(1.0)] * 2)
        plain = make_step(dev, ())
    indices = np.arange(BATCH)
    noise = seen(step, dev, indices) - seen(plain, dev, indices)
    first = apply(dev, nn.GaussianNoise(1.0), np.zeros((BATCH, D)))
    assert np.abs(noise - 2 * first).max() > 1


def test_a_sample_is_drawn_anew_in_every_step(dev):
    with dev.activate():
        step = make_step(dev, [nn.Shift(3)])
    found = [seen(step, dev, np.zeros(BATCH, np.int64)) for _ in range(3)]
    assert len({row.tobytes() for batch in found for row in batch}) > 2 * BATCH


@pytest.mark.parametrize("batch_size", [16, None])
def test_fit_augments_the_training_and_not_the_evaluation(dev, batch_size):
    X, y = samples(N), np.arange(N) % 3
    costs = []
    lists: list[Any] = [(), ["flip", {"type": "shift", "pixels": 3}], [nn.GaussianNoise(0.5)]]
    for augmentation in lists:
        reports: list[training.Report] = []
        network = nn.Network([nn.Dense(8, "tanh"), nn.Dense(3)], D, device=dev, dtype="float64")
        given = X.copy()
        history = training.fit(
            network,
            given,
            y,
            loss="softmax_cross_entropy",
            optimizer="adam",
            epochs=4,
            batch_size=batch_size,
            augmentation=augmentation,
            image_shape=SHAPE,
            validation=(X, y),
            train_accuracy=True,
            on_report=reports.append,
        )
        np.testing.assert_array_equal(given, X)
        cost, accuracy = training.evaluate(network, "softmax_cross_entropy", X, y)
        assert reports[-1].validation_cost == pytest.approx(cost, rel=1e-12)
        assert reports[-1].train_accuracy == pytest.approx(accuracy)
        costs.append(history.cost)
    assert costs[0] != costs[1]
    assert costs[0] != costs[2]


def test_the_same_seed_gives_the_same_run(dev):
    def trained(seed: int) -> np.ndarray:
        network = nn.Network([nn.Dense(3)], D, device=dev, dtype="float64", seed=1)
        training.fit(
            network,
            samples(N),
            np.arange(N) % 3,
            loss="softmax_cross_entropy",
            optimizer="adam",
            epochs=3,
            batch_size=None,  # so that there is no order, which the seed is also for
            seed=seed,
            augmentation=ALL,
            image_shape=SHAPE,
        )
        found: np.ndarray = dev.to_host(network.parameters).copy()
        return found

    np.testing.assert_array_equal(trained(5), trained(5))
    assert np.any(trained(5) != trained(6))


@pytest.mark.parametrize("augmentation", ["flip", {"type": "flip"}, nn.Flip()])
def test_fit_takes_a_sequence(augmentation):
    network = nn.Network([nn.Dense(3)], D, device="cpu")
    with pytest.raises(ValueError, match="augmentation must be a list of augmentations, got"):
        training.fit(
            network,
            samples(),
            np.arange(BATCH) % 3,
            loss="softmax_cross_entropy",
            optimizer="adam",
            epochs=1,
            augmentation=augmentation,
            image_shape=SHAPE,
        )


def test_one_of_your_own(dev):
    """In plain array expressions."""

    class HalvedForThisTest(Augmentation):
        name = "halved_for_this_test"

        def apply(self, ops, X, batch, number, image_shape, out):
            del batch, number, image_shape
            return ops.xp.multiply(X, 0.5, out=out)

    with dev.activate():
        step = make_step(dev, [HalvedForThisTest(), HalvedForThisTest()], shape=None)
        plain = make_step(dev, ())
    indices = np.arange(BATCH)
    np.testing.assert_array_equal(seen(step, dev, indices), seen(plain, dev, indices) / 4)
    with pytest.raises(NotImplementedError, match="must define apply"):
        Augmentation().apply(dev.ops, None, None, 0, None, None)  # type: ignore[arg-type]


# Memory.


@pytest.mark.host
@pytest.mark.parametrize("batch_size", [256, None])
def test_a_fused_step_with_augmentation_allocates_nothing(batch_size):
    if host.problem() is not None:
        pytest.skip(f"the host kernels are {host.problem()}")
    step = make_step(xpnet.device("cpu", kernels="fused"), ALL, batch_size)
    n = N if batch_size is None else batch_size
    batches = np.random.default_rng(1).integers(0, N, (300, n))
    given = [()] * 300 if batch_size is None else [(batch,) for batch in batches]
    step(*given[0])

    def work():
        for batch in given:
            step(*batch)

    peak = traced_peak(work)
    assert peak < max(n * D * 8, 2048), peak  # a buffer of samples; Python's small objects pass


@pytest.mark.accelerator
@pytest.mark.parametrize("batch_size", [BATCH, None])
def test_a_fused_step_with_augmentation_on_cuda_asks_for_no_memory(batch_size):
    """That it does not wait either is made sure of in every test, see tests/devices.py."""

    def refuse(size):
        raise MemoryError(f"a steady step asked for {size} bytes")

    device = xpnet.device(xpnet.device().name, "fused")
    with device.activate():
        step = make_step(device, ALL, batch_size)
        given = [] if batch_size is None else [device.asarray(np.arange(BATCH))]
        step(*given)  # what is made at first use
        before = device.to_host(step._network.parameters).copy()
        with device.xp.cuda.using_allocator(refuse):
            for _ in range(5):
                step(*given)
        assert np.any(device.to_host(step._network.parameters) != before)


def augmented(dev, n_features=12, **options):
    network = nn.Network([nn.Dense(2)], n_features, device=dev)
    X, y = np.ones((6, n_features)), np.arange(6) % 2
    arguments: dict[str, Any] = {"loss": "softmax_cross_entropy", "optimizer": "adam", "epochs": 1}
    return training.fit(network, X, y, **arguments, **options)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"augmentation": 5}, "augmentation must be a list of augmentations, got 5"),
        ({"augmentation": None}, "augmentation must be a list of augmentations, got None"),
        ({"augmentation": ["flip"], "image_shape": 12}, "image_shape must be .* got 12"),
        ({"image_shape": "junk"}, "image_shape must be .* got 'junk'"),
        ({"augmentation": ["gaussian_noise"], "image_shape": (7, 7)}, "with 12 features in all"),
        ({"augmentation": [nn.GaussianNoise(1e39)]}, "std of .* must be finite in float32"),
        (
            {"augmentation": [nn.Shift(fill=-1e39)], "image_shape": (3, 4)},
            "fill of .* must be finite in float32",
        ),
    ],
)
def test_wrong_arguments_of_fit(dev, options, said):
    with pytest.raises(ValueError, match=said):
        augmented(dev, **options)


def test_one_of_your_own_must_write_where_it_is_told(dev):
    class ReturnsNewArray(nn.Augmentation):
        name = "returns_new_array"

        def apply(self, ops, X, batch, number, image_shape, out):
            del ops, batch, number, image_shape, out
            return X * 0

    with pytest.raises(TypeError, match=r"ReturnsNewArray\(\) must write to out and return it"):
        augmented(dev, augmentation=[ReturnsNewArray()])
