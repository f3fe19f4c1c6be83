"""Training and evaluation on sparse samples, beside those on the dense ones that they stand for."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest

import xpnet
from tests.nn.test_sparse import dense, from_parts, sparse
from xpnet import nn, training
from xpnet.training import evaluation

pytestmark = pytest.mark.needs("scipy")

N, D = 60, 40
Y = np.arange(N) % 3


def make(dev, d=D, **options):
    layers = [nn.Dropout(0.2), nn.Dense(7), nn.BatchNorm(), "tanh", nn.Dense(3)]
    return nn.Network(layers, d, device=dev, **{"seed": 1, **options})


def fit(network, X, y=Y, **options):
    settings: dict[str, Any] = {
        "loss": "softmax_cross_entropy",
        "optimizer": nn.Adam(0.01),
        "epochs": 3,
        "batch_size": 16,
        **options,
    }
    return training.fit(network, X, y, **settings)


def results(network, history):
    """Give all that a run leaves behind but times."""
    timeless = ("seconds", "samples_per_second")
    reports = [
        {name: value for name, value in vars(report).items() if name not in timeless}
        for report in history.reports
    ]
    to_host = network.device.to_host
    return reports, to_host(network.parameters).tolist(), to_host(network.statistics).tolist()


WAYS: dict[str, dict[str, Any]] = {
    "a shorter last batch": {},
    "batches of one size": {"batch_size": 20},
    "the full batch": {"batch_size": None},
    "more than there are": {"batch_size": 1000},
    "in order": {"shuffle": False},
    "weights": {"sample_weight": 1 + np.arange(N) % 4, "class_weight": "balanced"},
    "noise": {"augmentation": [nn.GaussianNoise(0.1)]},
    "noise on the full batch": {"augmentation": [nn.GaussianNoise(0.1)], "batch_size": None},
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", WAYS)
def test_the_run_is_that_on_the_dense_matrix(dev, monkeypatch, name, dtype):
    """To the bit, with reports on all samples, and on some of them, piece by piece."""
    monkeypatch.setattr(evaluation, "_SCORED", 20)
    monkeypatch.setattr(nn.Network, "default_batch_size", 7)
    X, held_out = dense(), dense(25, seed=1)
    found = []
    for kind in (None, "csr_matrix"):
        samples, validation = (A if kind is None else sparse(A, kind) for A in (X, held_out))
        network = make(dev, dtype=dtype)
        history = fit(
            network, samples, validation=(validation, Y[:25]), train_accuracy=True, **WAYS[name]
        )
        after = training.evaluate(network, "softmax_cross_entropy", samples, Y)
        found.append((results(network, history), after))
    assert found[0] == found[1]


@pytest.mark.parametrize("kind", ["csc_matrix", "csr_array", "csc_array", "coo_array"])
def test_every_format_trains_alike(dev, kind):
    network, other = make(dev), make(dev)
    expected = results(network, fit(network, dense()))
    assert results(other, fit(other, sparse(dense(), kind))) == expected


def test_numbers_of_any_dtype_train_as_the_networks(dev):
    for found in ("bool", "uint8", "int32"):
        X = (dense() * 10).astype(found)
        network, other = make(dev), make(dev)
        expected = results(network, fit(network, X.astype("float32")))
        assert results(other, fit(other, sparse(X))) == expected


def test_entries_that_stand_twice_train_as_their_sum(dev):
    X = from_parts([1.0, 2.0, 3.0, 4.0], [0, 0, 1, 1], [0, 2, 2, 4], (3, 2))
    network, other = make(dev, 2), make(dev, 2)
    expected = results(network, fit(network, X.toarray(), Y[:3], batch_size=2))
    assert results(other, fit(other, X, Y[:3], batch_size=2)) == expected


def test_zeros_alone(dev):
    network, other = make(dev), make(dev)
    expected = results(network, fit(network, np.zeros((N, D))))
    assert results(other, fit(other, sparse((N, D)))) == expected


def test_dense_and_sparse_data_side_by_side(dev):
    network, other = make(dev), make(dev)
    expected = results(network, fit(network, dense(), validation=(dense(), Y)))
    found = results(other, fit(other, dense(), validation=(sparse(dense()), Y)))
    assert found == expected


def with_value(value, where=0):
    X = sparse(dense())
    X.data[where] = value
    return X


def opposite_infinities():
    X = with_value(np.inf)
    X.data[1] = -np.inf
    return X


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        (lambda: {"X": with_value(np.nan, -1)}, ValueError, "^X must be finite, got 1 values"),
        (lambda: {"X": opposite_infinities()}, ValueError, "^X must be finite, got 2 values"),
        (lambda: {"X": with_value(1e300)}, ValueError, "^X must be finite, got 1 values"),
        (
            lambda: {"validation": (with_value(np.inf), Y)},
            ValueError,
            "^validation X must be finite, got 1 values that are nan or infinite",
        ),
        (
            lambda: {"X": sparse(dense(d=39))},
            ValueError,
            r"^X must have shape \(n_samples, 40\), got \(60, 39\)",
        ),
        (
            lambda: {"validation": (sparse(dense(d=41)), Y)},
            ValueError,
            r"^validation X must have shape \(n_samples, 40\), got \(60, 41\)",
        ),
        (lambda: {"X": sparse((0, D)), "y": Y[:0]}, ValueError, "^X must hold at least one sample"),
        (
            lambda: {"X": sparse(dense(9))},
            ValueError,
            "the same length, got 9 samples and 60 labels",
        ),
        (
            lambda: {"X": sparse(dense().astype(complex))},
            TypeError,
            "^X does not convert to an array of float32: its dtype is complex128",
        ),
        (
            lambda: {"validation": (sparse(dense().astype(complex)), Y)},
            TypeError,
            "^validation X does not convert to an array of float32: its dtype is complex128",
        ),
        (
            lambda: {"X": sparse(dense(dtype="uint8")), "divide_by": 255},
            ValueError,
            "^divide_by works only on dense uint8 arrays, but X is sparse",
        ),
        (
            lambda: {
                "X": dense(dtype="uint8"),
                "validation": (sparse(dense(dtype="uint8")), Y),
                "divide_by": 255,
            },
            ValueError,
            "^divide_by works only on dense uint8 arrays, but validation X is sparse",
        ),
        (lambda: {"capture": True}, ValueError, "^capture=True needs dense samples, but X is spar"),
        (lambda: {"y": sparse(dense())}, TypeError, "^y does not convert to numbers: it is sparse"),
    ],
)
def test_wrong_samples_are_refused_as_dense_ones_are(dev, arguments, error, said):
    network = make(dev)
    before = network.device.to_host(network.parameters).copy()
    with pytest.raises(error, match=said):
        fit(network, **{"X": sparse(dense()), **arguments()})
    np.testing.assert_array_equal(network.device.to_host(network.parameters), before)


def test_evaluation_refuses_them_too(dev):
    for X, said in ((with_value(np.nan), "X must be finite"), (sparse(dense(d=39)), "X must have")):
        with pytest.raises(ValueError, match=said):
            training.evaluate(make(dev), "softmax_cross_entropy", X, Y)
    with pytest.raises(ValueError, match="divide_by works only on dense uint8 arrays"):
        training.evaluate(
            make(dev), "softmax_cross_entropy", sparse(dense(dtype="uint8")), Y, divide_by=255
        )


@pytest.mark.accelerator
def test_minibatches_are_no_graphs_and_the_full_batch_is(dev, caplog):
    assert not fit(make(dev), sparse(dense())).captured
    assert not caplog.records  # nobody has tried
    assert fit(make(dev), dense()).captured
    assert fit(make(dev), sparse(dense()), batch_size=None, epochs=20).captured


@pytest.mark.host
@pytest.mark.parametrize("kernels", [None, "reference"])
def test_training_takes_the_memory_of_a_batch(kernels):
    """Dense, 2,000 samples of 20,000 features are 160 MB, a minibatch of 50 is 4 MB."""
    n, d = 2000, 20_000
    rng = np.random.default_rng(0)
    X = from_parts(
        rng.standard_normal(20 * n).astype("float32"),
        (np.arange(20) * 1000 + rng.integers(0, 1000, (n, 20))).ravel(),
        np.arange(n + 1) * 20,
        (n, d),
    )
    network = nn.Network([nn.Dense(4, "relu"), nn.Dense(3)], d, device=xpnet.device("cpu", kernels))
    tracemalloc.start()
    try:
        history = fit(network, X, np.arange(n) % 3, batch_size=50, epochs=2)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert history.n_steps == 80
    assert peak < 20e6
