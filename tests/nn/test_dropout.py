"""Dropout: its masks, prediction, and what they depend on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from xpnet import gradient_check, nn, training
from xpnet.kernels.philox import random_words
from xpnet.random import Purpose


def mask_of(seed, layer, step, shape, rate):
    """Which elements stay, from the generator itself."""
    words = random_words(
        np, int(np.prod(shape)), seed, layer=layer, step=step, purpose=Purpose.DROPOUT
    )
    return words.reshape(shape) >= np.uint32(int(rate * 2**32))


def forward(dev, rate, X, *, seed=5, step=0, number=0, training=True):
    layers = ["identity"] * number + [nn.Dropout(rate)]
    network = nn.Network(layers, X.shape[1], device=dev, dtype=X.dtype)
    with dev.activate():
        counter = dev.asarray(np.array([step]))
        batch = nn.Batch.of(dev, len(X), X.dtype, seed=seed, step=counter)
        caches = network.allocate(len(X), training=training, input_gradient=True, batch=batch)
        output = dev.to_host(network.forward(dev.asarray(X.copy()), caches)).copy()
        if not training:
            return output, None
        dX = dev.to_host(network.backward(dev.asarray(np.ones_like(X)), caches)).copy()
    return output, dX


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("seed", "step", "number"), [(5, 0, 0), (2**63, 7, 0), (5, 2**31, 2)])
def test_the_mask_is_that_of_seed_place_and_step(dev, dtype, seed, step, number):
    X = np.random.default_rng(0).standard_normal((9, 13)).astype(dtype)
    output, dX = forward(dev, 0.3, X, seed=seed, step=step, number=number)
    kept = mask_of(seed, number, step, X.shape, 0.3)
    np.testing.assert_allclose(output, np.where(kept, X / 0.7, 0), rtol=1e-6)
    np.testing.assert_allclose(dX, np.where(kept, 1 / 0.7, 0), rtol=1e-6)


@given(st.floats(0, 0.99), st.integers(0, 2**64 - 1))
def test_the_mean_stays(dev, rate, seed):
    X = np.ones((100, 100))
    output, _ = forward(dev, rate, X, seed=seed)
    n_kept = np.count_nonzero(output)
    spread = (10_000 * rate * (1 - rate)) ** 0.5
    assert abs(n_kept - 10_000 * (1 - rate)) <= 6 * spread + 1
    np.testing.assert_allclose(output[output != 0], 1 / (1 - rate))


def test_in_prediction_nothing_is_dropped(dev):
    X = np.random.default_rng(0).standard_normal((9, 13))
    output, _ = forward(dev, 0.9, X, training=False)
    np.testing.assert_array_equal(output, X)
    network = nn.Network([nn.Dense(4), nn.Dropout(0.9), nn.Dense(2)], 13, device=dev)
    without = nn.Network([nn.Dense(4), nn.Dense(2)], 13, device=dev)
    np.testing.assert_array_equal(network.predict(X), without.predict(X))


def test_every_step_of_a_run_has_a_mask_of_its_own(dev):
    """Also those of another batch size, and every layer in a step."""
    seen = []

    class Watching(nn.Dropout):
        name = "watching"

        def forward(self, X, cache):
            A = super().forward(X, cache)
            if cache.training:
                seen.append(A.copy())  # read later: a step must not wait
            return A

    network = nn.Network(
        [nn.Dense(40), Watching(0.5), Watching(0.3), nn.Dense(2)], 3, device=dev, seed=2
    )
    X = np.random.default_rng(1).standard_normal((50, 3))
    arguments: dict[str, Any] = {
        "loss": "softmax_cross_entropy",
        "optimizer": "adam",
        "batch_size": 20,
    }
    training.fit(network, X, np.arange(50) % 2, epochs=3, **arguments)
    assert [len(A) for A in seen] == [20, 20, 20, 20, 10, 10] * 3
    masks = {(dev.to_host(A)[:10] != 0).tobytes() for A in seen}
    assert len(masks) == len(seen)


def test_the_seed_of_the_training_decides(dev):
    X = np.random.default_rng(1).standard_normal((50, 3))

    def trained(seed):
        layers = [nn.Dropout(0.2), nn.Dense(8, "tanh"), nn.Dropout(0.5), nn.Dense(2)]
        network = nn.Network(layers, 3, device=dev, seed=4)
        training.fit(
            network,
            X,
            np.arange(50) % 2,
            loss="softmax_cross_entropy",
            optimizer="adam",
            epochs=5,
            seed=seed,
        )
        return dev.to_host(network.parameters)

    np.testing.assert_array_equal(trained(1), trained(1))
    assert (trained(1) != trained(2)).any()
    np.testing.assert_array_equal(trained(4), trained(None))  # the network's


def test_pytorchs_trajectory_with_our_masks(dev):
    """50 steps in float64; PyTorch draws masks of its own, and is given ours."""
    rng = np.random.default_rng(2)
    X, y = rng.standard_normal((24, 5)), rng.integers(0, 3, 24)
    layers = [nn.Dropout(0.2), nn.Dense(7, "tanh"), nn.Dropout(0.4), nn.Dense(3)]
    network = nn.Network(layers, 5, device=dev, dtype="float64", seed=6)
    parameters = {
        name: torch.tensor(dev.to_host(view).copy(), requires_grad=True)
        for name, view in network.named_parameters().items()
    }
    costs = []
    training.fit(
        network,
        X,
        y,
        loss="softmax_cross_entropy",
        optimizer=nn.Adam(0.01),
        epochs=50,
        seed=9,
        on_report=lambda report: costs.append(report.cost),
    )
    optimizer = torch.optim.Adam(parameters.values(), lr=0.01)
    for t in range(50):

        def drop(A, number, rate, t=t):
            return A * torch.tensor(mask_of(9, number, t + 1, tuple(A.shape), rate) / (1 - rate))

        A = drop(torch.tensor(X), 0, 0.2) @ parameters["layers.1.W"] + parameters["layers.1.b"]
        A = drop(torch.tanh(A), 2, 0.4) @ parameters["layers.3.W"] + parameters["layers.3.b"]
        loss = torch.nn.functional.cross_entropy(A, torch.tensor(y))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        assert costs[t] == pytest.approx(loss.item(), abs=1e-10)
    for name, view in network.named_parameters().items():
        expected = parameters[name].detach().numpy()
        difference = np.linalg.norm(dev.to_host(view) - expected)
        assert difference < 1e-10 * np.linalg.norm(expected), name


@pytest.mark.parametrize("rate", [0, 0.3, 0.9])
def test_gradient_with_the_mask_held(dev, rate):
    result = gradient_check(nn.Dropout(rate), n_features=6, batch_size=7, device=dev)
    assert result.passed, str(result)


@pytest.mark.parametrize("rate", [-0.1, 1, 1.5, "0.5", True, float("nan")])
def test_wrong_rates(rate):
    with pytest.raises(ValueError, match="rate must"):
        nn.Dropout(rate)
