"""Sparse samples: what they hold, how they become dense, and what a step makes of them."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

import xpnet
from xpnet import nn
from xpnet.device import host_array
from xpnet.graph import CaptureError, Recorder

pytestmark = pytest.mark.needs("scipy")

N, D = 60, 40
FORMATS = [
    *("csr_matrix", "csc_matrix", "coo_matrix", "lil_matrix"),
    *("csr_array", "csc_array", "coo_array", "bsr_array", "dok_array"),
]


def dense(n=N, d=D, dtype="float64", seed=0):
    """Make samples of which nine tenths are 0; one in five is empty, and so is a column."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d)) * (rng.random((n, d)) < 0.1) * 10
    X[::5] = 0
    X[:, 3] = 0
    return X.astype(dtype)


def sparse(X, kind="csr_array", **options):
    from scipy import sparse

    return getattr(sparse, kind)(X, **options)


def from_parts(values, columns, starts, shape):
    from scipy import sparse

    return sparse.csr_array((np.array(values), np.array(columns), np.array(starts)), shape=shape)


def make(dev, d=D, **options):
    return nn.Network([nn.Dense(7, "tanh"), nn.Dense(3)], d, device=dev, **{"seed": 1, **options})


def gathered(samples, dev, indices):
    with dev.activate():
        out = dev.asarray(np.full((len(indices), samples.shape[1]), 5, samples.dtype))
        found = samples.gather(dev.asarray(np.array(indices, np.int64)), out)
        assert found is out
        return dev.to_host(out)


ORDER = [7, 0, 59, 7, 12, 10, 31]  # one twice, some empty ones


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", FORMATS)
def test_rows_are_those_of_the_dense_matrix(dev, kind, dtype):
    X = dense()
    samples = nn.SparseSamples(sparse(X, kind), dev, dtype)
    expected = X.astype(dtype)
    assert (samples.shape, samples.ndim, samples.dtype, len(samples)) == ((N, D), 2, dtype, N)
    np.testing.assert_array_equal(gathered(samples, dev, ORDER), expected[ORDER])
    np.testing.assert_array_equal(gathered(samples, dev, range(N)), expected)
    for rows in (slice(None), slice(3, 20), slice(50, 70), slice(9, 9), slice(40, 2, -3)):
        np.testing.assert_array_equal(samples[rows], expected[rows])
        assert samples[rows].dtype == dtype
    np.testing.assert_array_equal(samples[dev.asarray(np.array(ORDER))], expected[ORDER])


@pytest.mark.parametrize("found", ["bool", "int8", "uint8", "int64", "float32", "longdouble"])
def test_numbers_are_converted(dev, found):
    X = (dense() * 10).astype(found)
    assert X.any()
    samples = nn.SparseSamples(sparse(X, "csc_matrix"), dev, "float32")
    np.testing.assert_array_equal(gathered(samples, dev, ORDER), X.astype("float32")[ORDER])


@pytest.mark.parametrize("index", ["int32", "int64"])
def test_indices_of_both_sizes(dev, index):
    X = sparse(dense())
    X.indices, X.indptr = X.indices.astype(index), X.indptr.astype(index)
    samples = nn.SparseSamples(X, dev, "float64")
    np.testing.assert_array_equal(gathered(samples, dev, ORDER), dense()[ORDER])


@pytest.mark.parametrize("dtype", ["float64", "bool", "int8"])
def test_entries_that_stand_twice_are_added_up(dev, dtype):
    """As toarray does, in the matrix's own dtype; and the matrix stays as it is."""
    values = np.array([100, 3, 50, 1, 2]).astype(dtype)
    columns = [2, 0, 2, 1, 1]
    X = from_parts(values, columns, [0, 3, 3, 5], (3, 4))
    samples = nn.SparseSamples(X, dev, "float64")
    np.testing.assert_array_equal(gathered(samples, dev, [2, 0, 1]), X.toarray()[[2, 0, 1]])
    assert len(samples.data) == 3
    np.testing.assert_array_equal(X.data, values)
    np.testing.assert_array_equal(X.indices, columns)


def test_what_lies_behind_the_entries_does_not_count(dev):
    X = from_parts([1.0, 2.0], [0, 1], [0, 1, 2], (2, 3))
    X.data, X.indices = np.append(X.data, np.nan), np.append(X.indices, 2)
    samples = nn.SparseSamples(X, dev, "float64")
    np.testing.assert_array_equal(samples.data, [1, 2])
    np.testing.assert_array_equal(samples[:], [[1, 0, 0], [0, 2, 0]])


def test_a_matrix_of_zeros_alone(dev):
    samples = nn.SparseSamples(sparse((5, 4)), dev, "float32")
    np.testing.assert_array_equal(gathered(samples, dev, [4, 0]), np.zeros((2, 4)))
    assert samples[5:].shape == (0, 4)


def test_what_need_not_be_converted_is_not_copied():
    X = sparse(dense())
    samples = nn.SparseSamples(X, xpnet.device("cpu"), "float64")
    assert np.shares_memory(samples.data, X.data)
    assert np.shares_memory(samples._columns, X.indices)


def test_what_no_float_holds_becomes_infinite(dev):
    samples = nn.SparseSamples(sparse([[1e300, 0]]), dev, "float32")
    np.testing.assert_array_equal(samples.data, [np.inf])


@pytest.mark.parametrize("dtype", ["complex64", "complex128", "object"])
def test_other_than_real_numbers_are_refused(dev, dtype):
    X = from_parts(np.array([1, 2], dtype), [0, 1], [0, 1, 2], (2, D))
    said = f"X does not convert to an array of float32: its dtype is {dtype}"
    with pytest.raises(TypeError, match=said):
        nn.SparseSamples(X, dev, "float32")
    with pytest.raises(TypeError, match=said):
        make(dev).predict(X)


def test_more_dimensions_and_fewer_are_refused(dev):
    for X in (sparse(np.ones(D), "coo_array"), sparse(np.ones((2, D, 2)), "coo_array")):
        with pytest.raises(ValueError, match=r"Z must have shape \(n_samples, n_features\), got"):
            nn.SparseSamples(X, dev, "float32", name="Z")
        with pytest.raises(ValueError, match=r"X must have shape \(n_samples, 40\), got \("):
            make(dev).predict(X)


class OnTheGPU:
    """A sparse matrix of CuPy's, as far as it is looked at."""

    shape, ndim, dtype = (2, D), 2, np.dtype("float32")

    def __init__(self, data):
        self.data = data

    def tocsr(self):
        return self


@pytest.mark.accelerator
def test_a_sparse_matrix_on_a_gpu_is_refused(dev):
    X = OnTheGPU(dev.asarray(np.ones(2, "float32")))
    with pytest.raises(TypeError, match=r"X must be a matrix of scipy\.sparse, got .* cupy"):
        make(dev).predict(X)


def test_samples_are_never_dense_as_a_whole(dev):
    samples = nn.SparseSamples(sparse(dense()), dev, "float64")
    with pytest.raises(TypeError, match="become dense batch by batch, never all at once"):
        np.asarray(samples)


@pytest.mark.host
@pytest.mark.parametrize("dtype", [None, "float64"])
def test_where_sparse_arrays_are_not_taken_the_error_says_so(dtype):
    said = r"^labels does not convert to .*: it is sparse; only the samples of fit,"
    with pytest.raises(TypeError, match=said):
        host_array(sparse(dense()), dtype, name="labels")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", ["csr_matrix", "csc_array", "coo_array"])
@pytest.mark.parametrize("batch_size", [1, 13, N, 1024])
def test_predictions_are_those_of_the_dense_matrix(dev, kind, dtype, batch_size):
    network, X = make(dev, dtype=dtype), dense()
    found = network.predict(sparse(X, kind), batch_size=batch_size)
    assert type(found) is np.ndarray
    np.testing.assert_array_equal(found, network.predict(X, batch_size=batch_size))
    assert network.predict(sparse((0, D), kind)).shape == (0, 3)


def test_wrong_samples_are_refused_as_dense_ones_are(dev):
    with pytest.raises(ValueError, match=r"^X must have shape \(n_samples, 40\), got \(60, 39\)$"):
        make(dev).predict(sparse(dense(d=39)))
    with pytest.raises(ValueError, match="divide_by works only on dense uint8 arrays, but X is"):
        make(dev).predict(sparse(dense(dtype="uint8")), divide_by=255)


@pytest.mark.host
def test_prediction_is_dense_batch_by_batch():
    """A million features: 80 MB a batch of ten, 8 GB as a whole."""
    n, d = 1000, 1_000_000
    X = from_parts(np.ones(n), np.arange(n) * 999, np.arange(n + 1), (n, d))
    network = nn.Network([nn.Dense(1, init="ones")], d, device="cpu")
    tracemalloc.start()
    try:
        found = network.predict(X, batch_size=10)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    np.testing.assert_array_equal(found, np.ones((n, 1)))
    assert 40e6 < peak < 200e6


def bind(dev, X, batch_size, **options):
    """Make a step on samples as they are given, and what it needs."""
    network = make(dev, dtype="float64")
    loss, optimizer = nn.SoftmaxCrossEntropy(), nn.Adam(0.01)
    y = loss.labels(dev, np.arange(N) % 3, 3, network.dtype)
    state = optimizer.init_state(dev, network.parameters)
    return nn.TrainingStep(network, loss, optimizer, state, X, y, batch_size, **options)


@pytest.mark.parametrize("batch_size", [7, N, None])
def test_steps_are_those_on_the_dense_matrix(dev, batch_size):
    X, found = dense(), []
    indices = [ORDER, ORDER[::-1]] if batch_size == 7 else [range(N)] * 2
    for samples in (dev.asarray(X), nn.SparseSamples(sparse(X), dev, "float64")):
        with dev.activate():
            step = bind(dev, samples, batch_size)
            for of_batch in indices:
                given = () if batch_size is None else (dev.asarray(np.array(of_batch)),)
                value = float(dev.to_host(step(*given))[0])
            found.append((value, dev.to_host(step._network.parameters).copy()))
    assert found[0][0] == found[1][0]
    np.testing.assert_array_equal(found[0][1], found[1][1])


def test_which_steps_take_their_samples_from_the_host(dev):
    samples = nn.SparseSamples(sparse(dense()), dev, "float64")
    with dev.activate():
        assert bind(dev, samples, 7).from_host
        assert not bind(dev, samples, None).from_host
        assert not bind(dev, dev.asarray(dense()), 7).from_host


@pytest.mark.parametrize("batch_size", [7, None])
def test_a_step_does_not_divide_sparse_samples(dev, batch_size):
    samples = nn.SparseSamples(sparse(dense()), dev, "float64")
    with dev.activate(), pytest.raises(ValueError, match="X is sparse: divide it beforehand"):
        bind(dev, samples, batch_size, divide_by=255)


@pytest.mark.accelerator
def test_no_graph_holds_a_gather_by_the_host():
    dev = xpnet.device()
    with dev.activate():
        step = bind(dev, nn.SparseSamples(sparse(dense()), dev, "float64"), 7)
        step(dev.asarray(np.array(ORDER)))
        recorder = Recorder(dev)
        try:
            with pytest.raises(CaptureError, match="cannot be activated while a CUDA graph"):
                nn.CapturedSteps(step, 2, recorder)
        finally:
            recorder.close()
