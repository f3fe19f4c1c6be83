"""Preprocessing: training statistics only, rounding, memory."""

from __future__ import annotations

import tracemalloc

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from xpnet.data import DataError, Preprocessing

pytestmark = pytest.mark.host


def test_division_is_exact():
    X = np.arange(256, dtype=np.uint8).reshape(-1, 1)
    np.testing.assert_array_equal(Preprocessing(255)(X, "float64"), X / 255.0)
    np.testing.assert_array_equal(Preprocessing(255)(X, "float32"), (X / 255.0).astype("f4"))


def test_standardised_training_samples_have_mean_0_and_deviation_1():
    X = np.random.default_rng(0).normal(1e6, [1, 10, 100], (500, 3))
    found = Preprocessing.fit(X, divide_by=4, standardise=True)(X, "float64")
    np.testing.assert_allclose(found.mean(axis=0), 0, atol=1e-9)
    np.testing.assert_allclose(found.std(axis=0), 1, rtol=1e-9)
    # a large mean costs float32 nothing: the difference is taken in float64
    single = Preprocessing.fit(X, standardise=True)(X, "float32")
    np.testing.assert_allclose(single, found, rtol=1e-6, atol=1e-6)


def test_statistics_are_those_of_the_training_samples():
    train, other = np.array([[0.0], [2.0]]), np.array([[5.0]])
    learnt = Preprocessing.fit(train, standardise=True)
    assert learnt(other, "float64") == (5 - 1) / 1
    np.testing.assert_array_equal(learnt(np.repeat(other, 9, axis=0), "float64"), 4.0)


@pytest.mark.parametrize("value", [0.0, 0.1, 1e6 / 3, -7.7])
def test_a_constant_feature_becomes_0(value):
    X = np.stack([np.full(1000, value), np.arange(1000.0)], axis=1)
    found = Preprocessing.fit(X, standardise=True)
    assert found.std is not None
    assert found.std[0] == 1
    np.testing.assert_allclose(found(X, "float64")[:, 0], 0, atol=1e-9)


@pytest.mark.parametrize("scale", [1e-310, 1e-163, 1e-20, 1.0, 1e200, 1e306])
def test_features_of_any_size_are_standardised(scale):
    X = np.random.default_rng(0).normal(size=(100, 2)) * [scale, 1.0]
    found = Preprocessing.fit(X, standardise=True)(X, "float64")
    rtol = 1e-3 if scale < 1e-300 else 1e-12  # subnormal numbers have few digits
    np.testing.assert_allclose(found.std(axis=0), 1, rtol=rtol)
    np.testing.assert_allclose(found.mean(axis=0), 0, atol=rtol)


def test_what_cannot_be_summed():
    with pytest.raises(DataError, match=r"sums are finite, got values up to 1e\+308"):
        Preprocessing.fit(np.full((2, 1), 1e308), standardise=True)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"divide_by": 0, "standardise": True}, "divide_by must be a finite number > 0, got 0"),
        ({"divide_by": True}, "divide_by must be a finite number > 0, got True"),
        ({"X": np.ones(3)}, r"X must have shape \(n_samples, n_features\), got \(3,\)"),
        ({"X": np.ones((0, 3)), "standardise": True}, "needs a sample at least"),
    ],
)
def test_arguments_out_of_range(arguments, said):
    with pytest.raises(ValueError, match=said):
        Preprocessing.fit(**{"X": np.ones((2, 3)), **arguments})


def test_samples_that_do_not_fit_the_statistics():
    found = Preprocessing.fit(np.array([[0.0], [1.0]]), standardise=True)
    with pytest.raises(ValueError, match=r"X must have shape \(n_samples, 1\), got \(2, 3\)"):
        found(np.ones((2, 3)), "float64")
    for X in (np.ones((2, 1)) * 1j, np.ones((2, 1), dtype=object)):
        with pytest.raises(ValueError, match="X must hold numbers, got dtype"):
            found(X, "float64")
    with pytest.raises(ValueError, match=r"one shape, \(n_features,\), got \(2,\) and \(3,\)"):
        Preprocessing(1.0, np.zeros(2), np.ones(3))


def test_what_comes_out_has_a_float_dtype_of_ours():
    for dtype in ("int32", "float16"):
        with pytest.raises(ValueError, match=f"dtype must be 'float32' or 'float64', got '{dtype}"):
            Preprocessing()(np.ones((2, 3)), dtype)


def test_numpys_scalars_are_numbers():
    X = np.array([[1.0, 2.0]], dtype=np.float32)
    found = Preprocessing.fit(X, divide_by=X.max())
    assert type(found.divide_by) is float
    assert found.divide_by == 2


@given(
    hnp.arrays(
        np.float64,
        st.tuples(st.integers(2, 20), st.integers(1, 5)),
        elements=st.integers(-1000, 1000).map(float),
    ),
    st.floats(0.01, 1000),
)
def test_agrees_with_two_lines_of_numpy(X, divide_by):
    found = Preprocessing.fit(X, divide_by=divide_by, standardise=True)
    scaled = X / divide_by
    std = scaled.std(axis=0)
    std[std <= 1e-12 * np.abs(scaled).max()] = 1
    expected = (scaled - scaled.mean(axis=0)) / std
    np.testing.assert_allclose(found(X, "float64"), expected, rtol=1e-3, atol=1e-3)


def test_what_needs_nothing_is_not_copied(tmp_path):
    X = np.memmap(tmp_path / "X", dtype=np.float32, mode="w+", shape=(10, 3))
    assert Preprocessing()(X, "float32") is X
    assert Preprocessing()(X, "float64") is not X


def test_a_memory_mapped_array_is_read_in_chunks(tmp_path):
    X = np.memmap(tmp_path / "X", dtype=np.uint8, mode="w+", shape=(40_000, 1000))
    X[20_000:] = 2  # chunks differ: each is to be compared with the mean of all
    tracemalloc.start()
    found = Preprocessing.fit(X, divide_by=2, standardise=True)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 120e6  # all of it would be 320 MB in float64
    assert found.mean is not None
    assert found.std is not None
    np.testing.assert_allclose(found.mean, 0.5)
    np.testing.assert_allclose(found.std, 0.5)
