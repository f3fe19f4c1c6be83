"""Batch and layer normalisation: against PyTorch over 50 steps, at the edges, and weighted."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from xpnet import gradient_check, nn, training
from xpnet.random import shuffle

N, D, K = 50, 6, 3


def samples(n=N):
    rng = np.random.default_rng(0)
    return rng.standard_normal((n, D)) * 2 + 1, rng.integers(0, K, n)


def trajectory(dev, norm, batch_sizes, n_steps=50):
    """Train, and give the losses, the parameters and the statistics."""
    X, y = samples()
    layers = [nn.Dense(8, bias=False), norm, "tanh", nn.Dense(K)]
    network = nn.Network(layers, D, device=dev, dtype="float64", seed=1)
    with dev.activate():
        network.layers[1].gamma[...] = dev.asarray(np.linspace(0.5, 2, 8))
        network.layers[1].beta[...] = dev.asarray(np.linspace(-1, 1, 8))
    initial = {k: dev.to_host(v).copy() for k, v in network.named_parameters().items()}
    loss, optimizer = nn.SoftmaxCrossEntropy(), nn.Momentum(0.1, beta=0.5)
    losses = []
    with dev.activate():
        state = optimizer.init_state(dev, network.parameters)
        data, labels = dev.asarray(X), loss.labels(dev, y, K, np.float64)
        steps = {
            size: nn.TrainingStep(network, loss, optimizer, state, data, labels, size)
            for size in set(batch_sizes)
        }
        for t in range(n_steps):
            size = batch_sizes[t % len(batch_sizes)]
            chosen = dev.asarray(shuffle(N, 2, t)[:size])
            losses.append(float(dev.to_host(steps[size](chosen))[0]))
    prediction = network.predict(X)
    named = network.named_parameters() | network.named_statistics()
    return initial, losses, {k: dev.to_host(v).copy() for k, v in named.items()}, prediction


def pytorchs(initial, norm, batch_sizes, n_steps=50):
    X, y = samples()
    net: Any = torch.nn.Sequential(
        torch.nn.Linear(D, 8, bias=False), norm, torch.nn.Tanh(), torch.nn.Linear(8, K)
    ).double()
    given = {
        "layers.0.W": (net[0].weight, True),
        "layers.1.gamma": (net[1].weight, False),
        "layers.1.beta": (net[1].bias, False),
        "layers.3.W": (net[3].weight, True),
        "layers.3.b": (net[3].bias, False),
    }
    with torch.no_grad():
        for name, (parameter, is_transposed) in given.items():
            values = torch.tensor(initial[name])
            parameter[...] = values.T if is_transposed else values
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.5)
    losses = []
    for t in range(n_steps):
        chosen = shuffle(N, 2, t)[: batch_sizes[t % len(batch_sizes)]]
        loss = torch.nn.functional.cross_entropy(
            net(torch.tensor(X[chosen])), torch.tensor(y[chosen])
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    found = {
        name: (p.T if is_transposed else p).detach().numpy()
        for name, (p, is_transposed) in given.items()
    }
    if isinstance(norm, torch.nn.BatchNorm1d):
        statistics = norm.state_dict()
        found["layers.1.running_mean"] = statistics["running_mean"].numpy()
        found["layers.1.running_variance"] = statistics["running_var"].numpy()
    net.eval()
    return losses, found, net(torch.tensor(X)).detach().numpy()


@pytest.mark.parametrize("batch_sizes", [(16,), (16, 16, 7), (N,), (2, 3)])
@pytest.mark.parametrize("kind", ["batch", "layer"])
def test_pytorchs_trajectory(dev, kind, batch_sizes):
    """Forward, backward, running statistics and prediction; with a short last batch."""
    ours: nn.Layer
    theirs: Any
    if kind == "batch":
        ours, theirs = nn.BatchNorm(0.3, eps=1e-3), torch.nn.BatchNorm1d(8, eps=1e-3, momentum=0.3)
    else:
        ours, theirs = nn.LayerNorm(eps=1e-3), torch.nn.LayerNorm(8, eps=1e-3)
    initial, losses, final, prediction = trajectory(dev, ours, batch_sizes)
    expected_losses, expected, expected_prediction = pytorchs(initial, theirs, batch_sizes)
    assert np.abs(np.array(losses) - expected_losses).max() < 1e-10
    assert final.keys() == expected.keys()
    for name, values in expected.items():
        assert np.linalg.norm(final[name] - values) < 1e-10 * np.linalg.norm(values), name
    assert np.abs(prediction - expected_prediction).max() < 1e-10


def of_one_layer(dev, norm, X, dtype="float64", *, training=True):
    network = nn.Network([norm], X.shape[1], device=dev, dtype=dtype)
    with dev.activate():
        caches = network.allocate(len(X), training=training)
        output = network.forward(dev.asarray(X, dtype), caches)
        return network, dev.to_host(output).copy()


def test_a_batch_of_one_sample(dev):
    """Its variance says nothing: the output is beta, the running variance stays as it is."""
    X = np.array([[3.0, -2.0, 1e6]])
    network, output = of_one_layer(dev, nn.BatchNorm(0.25), X)
    np.testing.assert_array_equal(output, [[0, 0, 0]])
    np.testing.assert_array_equal(dev.to_host(network.layers[0].running_variance), [1, 1, 1])
    np.testing.assert_allclose(dev.to_host(network.layers[0].running_mean), X[0] / 4)
    network = nn.Network([nn.BatchNorm()], 3, device=dev, dtype="float64")
    with dev.activate():
        caches = network.allocate(1, training=True, input_gradient=True)
        network.forward(dev.asarray(X), caches)
        dX = dev.to_host(network.backward(dev.asarray(np.ones((1, 3))), caches))
    np.testing.assert_array_equal(dX, np.zeros((1, 3)))


def test_training_where_the_last_batch_is_one_sample(dev):
    X, y = samples(33)
    network = nn.Network([nn.Dense(8), "batch_norm", "relu", nn.Dense(K)], D, device=dev)
    arguments: dict[str, Any] = {"loss": "softmax_cross_entropy", "optimizer": nn.Adam(0.01)}
    history = training.fit(network, X, y, epochs=30, batch_size=16, **arguments)
    assert history.reports[-1].cost < 0.8 * history.reports[0].cost
    variance = dev.to_host(network.layers[1].running_variance)
    assert np.isfinite(variance).all()
    assert (variance > 0).all()


def test_prediction_does_not_depend_on_the_other_samples(dev):
    X, y = samples()
    network = nn.Network([nn.Dense(8), "batch_norm", "relu", nn.Dense(K)], D, device=dev)
    arguments: dict[str, Any] = {"loss": "softmax_cross_entropy", "optimizer": nn.Adam(0.01)}
    training.fit(network, X, y, epochs=3, batch_size=16, **arguments)
    before = dev.to_host(network.statistics).copy()
    together = network.predict(X)
    alone = np.concatenate([network.predict(X[i : i + 1]) for i in range(N)])
    np.testing.assert_allclose(alone, together, rtol=2e-5, atol=2e-6)
    np.testing.assert_array_equal(dev.to_host(network.statistics), before)


@pytest.mark.parametrize(
    "kind", [nn.BatchNorm(1.0), nn.BatchNorm(1.0, unbiased=False), nn.LayerNorm()], ids=repr
)
def test_weighted_samples_are_so_many_samples(dev, kind):
    """Integer weights: the same parameters and means as with samples repeated, or left out.

    The running variance, too, but for the factor that makes it one without bias: what counts twice
    is still one observation. Without the factor it is the same.
    """
    X, y = samples(20)
    counts = np.array([2, 1, 0, 3, 1] * 4)

    def trained(X, y, weights):
        layers = [nn.Dense(5, bias=False), kind.clone(), "tanh", nn.Dense(K)]
        network = nn.Network(layers, D, device=dev, dtype="float64", seed=3)
        training.fit(
            network,
            X,
            y,
            loss="softmax_cross_entropy",
            optimizer=nn.GradientDescent(0.3),
            epochs=20,
            sample_weight=weights,
        )
        named = network.named_parameters() | network.named_statistics()
        return {name: dev.to_host(array) for name, array in named.items()}

    weighted = trained(X, y, counts)
    repeated = trained(np.repeat(X, counts, axis=0), np.repeat(y, counts), None)
    unweighted = trained(X, y, None)
    n, n_effective = counts.sum(), counts.sum() ** 2 / (counts**2).sum()
    factor = {}
    if kind.get_config().get("unbiased", False):
        factor = {"layers.1.running_variance": (1 - 1 / n) / (1 - 1 / n_effective)}
    for name, array in repeated.items():
        expected = array * factor.get(name, 1)
        np.testing.assert_allclose(weighted[name], expected, rtol=1e-10, atol=1e-12)
        assert not np.allclose(unweighted[name], array, rtol=1e-3, atol=1e-3), name


@pytest.mark.parametrize("counts", [[2, 1, 1, 1, 1], [3, 1, 0, 2, 2], [2, 0, 0, 0, 0]])
def test_a_biased_variance_takes_weights_for_repetitions(dev, counts):
    """To rounding, in every step, also where all of a batch is one sample."""
    X, y = samples(5)

    def statistics(unbiased, X, y, weights):
        layers = [nn.Dense(4), nn.BatchNorm(0.3, unbiased=unbiased), "tanh", nn.Dense(K)]
        network = nn.Network(layers, D, device=dev, dtype="float64", seed=3)
        arguments: dict[str, Any] = {"loss": "softmax_cross_entropy", "optimizer": "momentum"}
        training.fit(network, X, y, epochs=5, sample_weight=weights, **arguments)
        return {k: dev.to_host(v) for k, v in network.named_statistics().items()}

    twice = (np.repeat(X, counts, axis=0), np.repeat(y, counts), None)
    once = (X, y, np.array(counts, float))
    weighted, repeated = statistics(False, *once), statistics(False, *twice)
    for name, array in repeated.items():
        np.testing.assert_allclose(weighted[name], array, rtol=1e-12, atol=1e-12)
    name = "layers.1.running_variance"
    weighted, repeated = statistics(True, *once), statistics(True, *twice)
    assert (np.abs(weighted[name] / repeated[name] - 1) > 1e-3).any()


def test_a_biased_variance_is_that_of_the_batch(dev):
    X, _ = samples(7)
    network, _ = of_one_layer(dev, nn.BatchNorm(0.25, unbiased=False), X)
    found = dev.to_host(network.layers[0].running_variance)
    np.testing.assert_allclose(found, 0.75 + 0.25 * X.var(axis=0), rtol=1e-12)
    network, _ = of_one_layer(dev, nn.BatchNorm(0.25, unbiased=False), X[:1])
    np.testing.assert_array_equal(dev.to_host(network.layers[0].running_variance), [0.75] * D)


@pytest.mark.parametrize("unbiased", [True, False])
def test_a_batch_without_any_weight_leaves_the_statistics(dev, unbiased):
    X, y = samples(8)
    layers = [nn.BatchNorm(0.5, unbiased=unbiased), nn.Dense(K)]
    network = nn.Network(layers, D, device=dev, dtype="float64")
    loss, optimizer = nn.SoftmaxCrossEntropy(), nn.GradientDescent(0.1)
    with dev.activate():
        state = optimizer.init_state(dev, network.parameters)
        weights = dev.asarray(np.repeat([1.0, 0.0], 4))
        data, labels = dev.asarray(X), loss.labels(dev, y, K, np.float64)
        step = nn.TrainingStep(network, loss, optimizer, state, data, labels, 4, weights=weights)
        seen = []
        for first in (0, 4):
            step(dev.asarray(np.arange(first, first + 4)))
            seen.append(dev.to_host(network.statistics).copy())
    assert (seen[0] != np.repeat([0.0, 1.0], len(seen[0]) // 2)).any()
    np.testing.assert_array_equal(seen[0], seen[1])


@pytest.mark.parametrize("factor", [2.0, 1 / 16, 1.02 / 16, 1e6])
def test_only_ratios_of_weights_count_for_the_statistics(dev, factor):
    X, y = samples()
    weights = np.random.default_rng(1).random(N)

    def statistics(weights):
        layers = [nn.Dense(5), "batch_norm", "tanh", nn.Dense(K)]
        network = nn.Network(layers, D, device=dev, dtype="float64", seed=3)
        arguments: dict[str, Any] = {"loss": "softmax_cross_entropy", "optimizer": "adam"}
        training.fit(network, X, y, epochs=3, batch_size=16, sample_weight=weights, **arguments)
        return dev.to_host(network.statistics)

    np.testing.assert_allclose(statistics(factor * weights), statistics(weights), rtol=1e-7)
    np.testing.assert_allclose(statistics(np.full(N, factor)), statistics(None), rtol=1e-7)


def test_the_correction_of_weighted_variances(dev):
    with dev.activate():
        for weights, expected in (
            ([0.25, 0.25, 0.25, 0.25], 4 / 3),
            ([0.5, 0.5, 0], 2),
            ([0.5, 0.25, 0.25], 1 / (1 - 0.375)),
            ([1.0], 0),
            ([0, 1.0, 0], 0),
            ([0.0, 0], -1),
        ):
            found = dev.ops.variance_correction(dev.asarray(np.array(weights)))
            np.testing.assert_allclose(dev.to_host(found), [expected])


@pytest.mark.parametrize("weight", [1.0, 3.0, 0.0])
def test_one_sample_says_nothing_about_the_variance_whatever_it_counts(dev, weight):
    """And one that does not count says nothing at all."""
    X, y = samples(9)
    network = nn.Network([nn.BatchNorm(0.5), nn.Dense(K)], D, device=dev, dtype="float64")
    weights = np.r_[np.ones(8), weight]
    seen = []

    class Recording(nn.GradientDescent):
        name = "recording"

        def update(self, ops, params, grads, state, n_decay=0):
            super().update(ops, params, grads, state, n_decay)
            seen.append(network.statistics.copy())

    training.fit(
        network,
        X,
        y,
        loss="softmax_cross_entropy",
        optimizer=Recording(0.1),
        epochs=1,
        batch_size=8,
        shuffle=False,
        sample_weight=weights,
    )
    first, second = (dev.to_host(statistics) for statistics in seen)
    mean, variance = slice(0, D), slice(16, 16 + D)
    np.testing.assert_array_equal(first[variance], second[variance])
    assert (first[mean] != second[mean]).all() == (weight > 0)
    assert (first[mean] == second[mean]).all() == (weight == 0)


def test_statistics_that_overflow_are_a_divergence(dev):
    network = nn.Network(["batch_norm", nn.Dense(K)], D, device=dev)
    X, y = samples()
    arguments: dict[str, Any] = {"loss": "softmax_cross_entropy", "optimizer": "adam"}
    with pytest.raises(training.DivergenceError):
        training.fit(network, X * 1e30, y, epochs=3, **arguments)


@settings(max_examples=30)
@given(
    st.integers(1, 9),
    st.integers(1, 9),
    st.floats(-100, 100),
    st.sampled_from([1e-2, 1.0, 1e3]),
    st.sampled_from(["float32", "float64"]),
)
def test_normalised_is_normalised(dev, n, n_features, offset, scale, dtype):
    """Mean 0 and variance var / (var + eps), over the batch or the features."""
    rng = np.random.default_rng(n * 10 + n_features)
    X = (rng.standard_normal((n, n_features)) * scale + offset).astype(dtype)
    size = np.abs(X).max() / scale * np.finfo(dtype).eps
    assume(size < 1e-5)  # else there is nothing left of the deviations
    for norm, axis in ((nn.BatchNorm(), 0), (nn.LayerNorm(), 1)):
        _, A = of_one_layer(dev, norm, X, dtype)
        variance = X.astype(np.float64).var(axis=axis)
        assert np.abs(A.mean(axis=axis)).max() < 1e-3 + 1e3 * size
        expected = variance / (variance + 1e-5)
        if X.shape[axis] > 1 and variance.min() > 1e-3 * scale**2:
            np.testing.assert_allclose(A.var(axis=axis), expected, rtol=1e-4 + 1e3 * size)


@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize(
    "layer", [nn.BatchNorm(), nn.BatchNorm(unbiased=False), nn.LayerNorm()], ids=repr
)
def test_gradients_of_small_batches(dev, layer, n):
    result = gradient_check(layer, n_features=5, batch_size=n, device=dev)
    assert result.errors.pop("X") < 1e-7 or n == 1  # nothing but rounding is left of one sample's
    assert all(error < 1e-7 for error in result.errors.values()), str(result)


def test_a_network_with_statistics_is_saved_and_copied_whole(dev, tmp_path):
    X, y = samples()
    network = nn.Network([nn.Dense(8), "batch_norm", "relu", nn.Dense(K)], D, device=dev)
    arguments: dict[str, Any] = {"loss": "softmax_cross_entropy", "optimizer": nn.Adam(0.01)}
    training.fit(network, X, y, epochs=3, batch_size=16, **arguments)
    training.save_network(network, tmp_path / "net.safetensors")
    for again in (
        training.load_network(tmp_path / "net.safetensors", device=dev),
        network.copy(),
        network.copy(dtype="float64").copy(dtype="float32"),
    ):
        assert list(again.named_statistics()) == [
            "layers.1.running_mean",
            "layers.1.running_variance",
        ]
        np.testing.assert_array_equal(again.predict(X), network.predict(X))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: nn.BatchNorm(0), "momentum must be a positive finite number, got 0"),
        (lambda: nn.BatchNorm(1.5), r"momentum must lie in \(0, 1\], got 1.5"),
        (lambda: nn.BatchNorm(eps=0), "eps must be a positive"),
        (
            lambda: nn.Layer.resolve({"type": "batch_norm", "unbiased": 1}),
            "unbiased must be true or false, got 1",
        ),
        (lambda: nn.LayerNorm(eps=-1), "eps must be a positive"),
    ],
)
def test_wrong_settings(make, said):
    with pytest.raises(ValueError, match=said):
        make()
