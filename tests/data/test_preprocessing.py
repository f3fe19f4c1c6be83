"""Preprocessing: training statistics only, rounding, memory."""

from __future__ import annotations

import re
import tracemalloc

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from xpnet.data import DataError, Preprocessing
from xpnet.data.preprocessing import NORMALISATIONS

pytestmark = pytest.mark.host


def test_division_is_exact():
    X = np.arange(256, dtype=np.uint8).reshape(-1, 1)
    np.testing.assert_array_equal(Preprocessing(255)(X, "float64"), X / 255.0)
    np.testing.assert_array_equal(Preprocessing(255)(X, "float32"), (X / 255.0).astype("f4"))


def test_standardised_training_samples_have_mean_0_and_deviation_1():
    X = np.random.default_rng(0).normal(1e6, [1, 10, 100], (500, 3))
    found = Preprocessing.fit(X, divide_by=4, normalise="standardise")(X, "float64")
    np.testing.assert_allclose(found.mean(axis=0), 0, atol=1e-9)
    np.testing.assert_allclose(found.std(axis=0), 1, rtol=1e-9)
    # a large mean costs float32 nothing: the difference is taken in float64
    single = Preprocessing.fit(X, normalise="standardise")(X, "float32")
    np.testing.assert_allclose(single, found, rtol=1e-6, atol=1e-6)


def test_statistics_are_those_of_the_training_samples():
    train, other = np.array([[0.0], [2.0]]), np.array([[5.0]])
    learnt = Preprocessing.fit(train, normalise="standardise")
    assert learnt(other, "float64") == (5 - 1) / 1
    np.testing.assert_array_equal(learnt(np.repeat(other, 9, axis=0), "float64"), 4.0)


@pytest.mark.parametrize("value", [0.0, 0.1, 1e6 / 3, -7.7])
def test_a_constant_feature_becomes_0(value):
    X = np.stack([np.full(1000, value), np.arange(1000.0)], axis=1)
    found = Preprocessing.fit(X, normalise="standardise")
    assert found.scale is not None
    assert found.scale[0] == 1
    np.testing.assert_allclose(found(X, "float64")[:, 0], 0, atol=1e-9)


@pytest.mark.parametrize("scale", [1e-310, 1e-163, 1e-20, 1.0, 1e200, 1e306])
def test_features_of_any_size_are_standardised(scale):
    X = np.random.default_rng(0).normal(size=(100, 2)) * [scale, 1.0]
    found = Preprocessing.fit(X, normalise="standardise")(X, "float64")
    rtol = 1e-3 if scale < 1e-300 else 1e-12  # subnormal numbers have few digits
    np.testing.assert_allclose(found.std(axis=0), 1, rtol=rtol)
    np.testing.assert_allclose(found.mean(axis=0), 0, atol=rtol)


def test_what_cannot_be_summed():
    X = np.array([[0, 1e308, 1e308], [0, 1e308, 1]])
    with pytest.raises(DataError, match=r"finite, got values up to 1e\+308 in feature 1"):
        Preprocessing.fit(X, normalise="standardise")
    found = Preprocessing.fit(X, divide_by=4, normalise="standardise")(X, "float64")
    np.testing.assert_allclose(found, [[0, 0, 1], [0, 0, -1]])


def test_a_range_that_overflows():
    X = np.array([[0, -1e308, 5], [1, 1e308, 7]])
    said = r"maximum minus minimum is finite, got 1e\+308 and -1e\+308 in feature 1"
    with pytest.raises(DataError, match=said):
        Preprocessing.fit(X, normalise="min-max")
    found = Preprocessing.fit(X, divide_by=2, normalise="min-max")(X, "float64")
    np.testing.assert_array_equal(found, [[0, 0, 0], [1, 1, 1]])


@pytest.mark.parametrize("normalise", NORMALISATIONS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_the_feature_that_is_not_finite_is_named(normalise, bad):
    X = np.arange(12.0).reshape(3, 4) ** 2
    learnt = Preprocessing.fit(X, normalise=normalise)
    X[1, 2] = bad
    with pytest.raises(DataError, match=rf"must be finite .*, got {bad} for {bad} in feature 2"):
        learnt(X, "float64")
    if normalise in ("standardise", "min-max"):
        with pytest.raises(DataError, match=r"finite, got .* in feature 2"):
            Preprocessing.fit(X, normalise=normalise)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            {"divide_by": 0, "normalise": "standardise"},
            "divide_by must be a finite number > 0, got 0",
        ),
        ({"divide_by": True}, "divide_by must be a finite number > 0, got True"),
        ({"X": np.ones(3)}, r"X must have shape \(n_samples, n_features\), got \(3,\)"),
        (
            {"X": np.ones((0, 3)), "normalise": "standardise"},
            "normalise='standardise' needs at least one sample",
        ),
        ({"X": np.ones((0, 3)), "normalise": "min-max"}, "'min-max' needs at least one sample"),
        ({"normalise": True}, "unknown normalisation True; valid normalisations: none"),
        ({"normalise": "zscore"}, "unknown normalisation 'zscore'; valid normalisations: none"),
    ],
)
def test_arguments_out_of_range(arguments, said):
    with pytest.raises(ValueError, match=said):
        Preprocessing.fit(**{"X": np.ones((2, 3)), **arguments})


def test_samples_that_do_not_fit_the_statistics():
    found = Preprocessing.fit(np.array([[0.0], [1.0]]), normalise="standardise")
    with pytest.raises(ValueError, match=r"X must have shape \(n_samples, 1\), got \(2, 3\)"):
        found(np.ones((2, 3)), "float64")
    for X in (np.ones((2, 1)) * 1j, np.ones((2, 1), dtype=object)):
        with pytest.raises(ValueError, match="X must hold numbers, got dtype"):
            found(X, "float64")
    single = Preprocessing.fit(np.array([[0.0], [1.0]]), normalise="per-image")
    assert single(np.ones((2, 3)), "float64").shape == (2, 3)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ("standardise", np.zeros(2), np.ones(3)),
            r"must both have shape \(n_features,\), got \(2,\) and \(3,\)",
        ),
        (
            ("min-max", np.zeros((1, 2)), np.ones((1, 2))),
            r"must both have shape \(n_features,\), got \(1, 2\)",
        ),
        (("standardise", np.zeros(2)), "shift and scale must be given together"),
        (("min-max", None, np.ones(2)), "shift and scale must be given together"),
        (("min-max",), "normalise='min-max' needs shift and scale"),
        (("none", np.zeros(2), np.ones(2)), "normalise='none' takes no shift and scale"),
        (("per-image", np.zeros(2), np.ones(2)), "'per-image' takes no shift and scale"),
        (("min-max", np.zeros(2), np.array([1.0, 0.0])), "scale must be positive, got 0.0"),
        (("min-max", np.array([np.inf]), np.ones(1)), "shift and scale must be finite"),
        (("min-max", np.zeros(2, "f4"), np.ones(2)), "shift and scale must be float64 arrays"),
        (("min-max", [0.0], [1.0]), "shift and scale must be float64 arrays"),
        (
            ("MinMax",),
            "unknown normalisation 'MinMax'; valid normalisations: none, standardise, min-max",
        ),
    ],
)
def test_statistics_that_contradict_themselves(arguments, said):
    with pytest.raises(ValueError, match=said):
        Preprocessing(1.0, *arguments)


def test_what_comes_out_has_a_float_dtype_of_ours():
    for dtype in ("int32", "float16"):
        with pytest.raises(ValueError, match=f"dtype must be 'float32' or 'float64', got '{dtype}"):
            Preprocessing()(np.ones((2, 3)), dtype)


def test_numpys_scalars_are_numbers():
    X = np.array([[1.0, 2.0]], dtype=np.float32)
    found = Preprocessing.fit(X, divide_by=X.max())
    assert type(found.divide_by) is float
    assert found.divide_by == 2


def test_min_max_spans_0_to_1_and_does_not_clip():
    train, other = np.array([[10.0, 3.0], [30.0, 3.0]]), np.array([[0.0, 2.0], [50.0, 5.0]])
    learnt = Preprocessing.fit(train, divide_by=10, normalise="min-max")
    np.testing.assert_allclose(learnt(train, "float64"), [[0, 0], [1, 0]])
    np.testing.assert_allclose(learnt(other, "float64"), [[-0.5, -0.1], [2, 0.2]])


def test_per_image_learns_nothing():
    learnt = Preprocessing.fit(np.zeros((0, 7)), divide_by=5, normalise="per-image")
    assert (learnt.shift, learnt.scale) == (None, None)
    X = np.array([[1.0, 3.0, 5.0, 3.0], [7.0, 7.0, 7.0, 7.0], [-2e5, 2e5, -2e5, 2e5]])
    found = learnt(X, "float64")
    np.testing.assert_allclose(found[0], np.array([-2, 0, 2, 0]) / np.sqrt(2), atol=1e-15)
    np.testing.assert_array_equal(found[1], 0)
    np.testing.assert_allclose(found[2], [-1, 1, -1, 1], rtol=1e-15)


@pytest.mark.parametrize("value", [0.0, 0.1, 1e6 / 3, -7.7, 1e308, 5e-324])
def test_a_constant_sample_becomes_0(value):
    X = np.stack([np.full(1000, value), np.arange(1000.0)])
    X[0, ::2] = np.nextafter(value, -1) if value > 1e-300 else value  # rounding is no contrast
    found = Preprocessing(normalise="per-image")(X, "float64")
    np.testing.assert_array_equal(found[0], 0)
    np.testing.assert_allclose(found[1].std(), 1)


FINITE = st.one_of(
    st.integers(-1000, 1000).map(float),
    st.floats(-1e300, 1e300),  # many are tiny, or the smallest there are
    st.sampled_from([0.1, 0.1 + 1e-16, 1e300, -1e300, 5e-324, 1e-310]),
)
SAMPLES = hnp.arrays(
    st.sampled_from(["float64", "float32", "int64", "uint8", "bool"]),
    st.tuples(st.integers(1, 20), st.integers(1, 9)),
)
FLOATS = hnp.arrays(np.float64, st.tuples(st.integers(1, 20), st.integers(1, 9)), elements=FINITE)


@given(st.one_of(SAMPLES, FLOATS), st.sampled_from(NORMALISATIONS), st.sampled_from("fd"))
def test_finite_or_refused(X, normalise, dtype):
    try:
        learnt = Preprocessing.fit(X, divide_by=0.5, normalise=normalise)
        found = learnt(X, dtype)
    except DataError as error:
        at = int(re.findall(r"in feature (\d+)$", str(error))[0])
        column = X[:, at].astype(np.float64)
        largest = float(np.finfo(dtype).max)
        assert not np.abs(column).max() < 0.01 * largest / len(X)
    else:
        assert (found.shape, found.dtype) == (X.shape, dtype)
        assert np.isfinite(found).all()


@given(st.one_of(FLOATS, SAMPLES), st.sampled_from(NORMALISATIONS), st.data())
def test_a_sample_alone_and_among_others(X, normalise, data):
    with np.errstate(invalid="ignore"):
        X = np.where(np.isfinite(X), X, 0).clip(-1e30, 1e30)
    learnt = Preprocessing.fit(X, divide_by=3, normalise=normalise)
    rows = data.draw(st.lists(st.integers(0, len(X) - 1), min_size=1))
    try:
        together = learnt(X, "float64")
    except DataError:  # 1e30 among numbers that are hardly not 0
        assert normalise != "per-image"
        return
    for layout in (X, np.asfortranarray(X), np.repeat(X, 2, axis=1)[:, ::2]):
        np.testing.assert_array_equal(learnt(layout, "float64"), together)
        np.testing.assert_array_equal(learnt(layout[rows], "float64"), together[rows])
        for row in rows:
            np.testing.assert_array_equal(
                learnt(layout[row : row + 1], "float64")[0], together[row]
            )


@pytest.mark.parametrize("normalise", NORMALISATIONS)
def test_the_order_in_memory_changes_no_bits(normalise):
    X = np.random.default_rng(0).normal(size=(50, 300))  # NumPy sums long rows in pairs
    learnt = Preprocessing.fit(X, divide_by=3, normalise=normalise)
    expected = learnt(X, "float64")
    for other in (np.asfortranarray(X), np.repeat(X, 2, axis=1)[:, ::2]):
        np.testing.assert_array_equal(learnt(other, "float64"), expected)
        again = Preprocessing.fit(other, divide_by=3, normalise=normalise)
        np.testing.assert_array_equal(again(X, "float64"), expected)
    for row in range(50):
        np.testing.assert_array_equal(learnt(X[row : row + 1], "float64")[0], expected[row])


@given(FLOATS, st.floats(0.01, 1000), st.sampled_from("fd"))
def test_min_max_holds_its_bounds(X, divide_by, dtype):
    learnt = Preprocessing.fit(X, divide_by=2 * divide_by, normalise="min-max")
    found = learnt(X, dtype)
    is_constant = X.min(axis=0) / (2 * divide_by) == X.max(axis=0) / (2 * divide_by)
    np.testing.assert_array_equal(found.min(axis=0), 0)
    np.testing.assert_array_equal(found.max(axis=0), np.where(is_constant, 0, 1))


@given(FLOATS)
def test_per_image_gives_mean_0_and_deviation_1(X):
    found = Preprocessing(normalise="per-image")(X, "float64")
    sizes = np.abs(X).max(axis=1, keepdims=True)
    X = X / np.where(sizes > 0, sizes, 1)  # so that NumPy's sums do not overflow
    std = X.std(axis=1)
    is_constant = std <= 1e-14 * np.abs(X.mean(axis=1))
    np.testing.assert_array_equal(found[X.min(axis=1) == X.max(axis=1)], 0)
    rounding = 1e-15 * X.shape[1] / std[~is_constant]
    assert (np.abs(found[~is_constant].mean(axis=1)) <= rounding).all()
    assert (np.abs(found[~is_constant].std(axis=1) - 1) <= rounding).all()
    assert (found[is_constant].std(axis=1) <= 1 + 1e-9).all()


@pytest.mark.parametrize("scale", [5e-324, 1e-310, 1e-163, 1.0, 1e200, 1.7e308])
def test_samples_of_any_size_are_normalised(scale):
    X = np.array([[-1.0, 1.0, 1.0, -1.0]]) * scale
    found = Preprocessing(normalise="per-image")(X, "float64")
    np.testing.assert_array_equal(found, [[-1, 1, 1, -1]])


@given(
    hnp.arrays(
        np.float64,
        st.tuples(st.integers(2, 20), st.integers(1, 5)),
        elements=st.integers(-1000, 1000).map(float),
    ),
    st.floats(0.01, 1000),
)
def test_agrees_with_two_lines_of_numpy(X, divide_by):
    found = Preprocessing.fit(X, divide_by=divide_by, normalise="standardise")
    scaled = X / divide_by
    std = scaled.std(axis=0)
    std[std <= 1e-12 * np.abs(scaled).max()] = 1
    expected = (scaled - scaled.mean(axis=0)) / std
    np.testing.assert_allclose(found(X, "float64"), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("normalise", "scaler"), [("standardise", "StandardScaler"), ("min-max", "MinMaxScaler")]
)
@pytest.mark.parametrize("dtype", ["float64", "float32", "uint8"])
def test_agrees_with_scikit_learn(normalise, scaler, dtype):
    from sklearn import preprocessing

    rng = np.random.default_rng(0)
    X = rng.normal(100, [1, 30, 5, 1, 20], (300, 5)).clip(0, 255).astype(dtype)
    X[:, 3] = 7  # a constant feature
    train, other = X[:200], X[200:].copy()
    other[:, 3] = 9
    learnt = Preprocessing.fit(train, divide_by=255, normalise=normalise)
    theirs = getattr(preprocessing, scaler)().fit(train.astype(np.float64) / 255)
    for part in (train, other):
        expected = theirs.transform(part.astype(np.float64) / 255)  # they compute in its dtype
        np.testing.assert_allclose(learnt(part, "float64"), expected, rtol=1e-11, atol=1e-12)


def test_what_needs_nothing_is_not_copied(tmp_path):
    X = np.memmap(tmp_path / "X", dtype=np.float32, mode="w+", shape=(10, 3))
    assert Preprocessing()(X, "float32") is X
    assert Preprocessing()(X, "float64") is not X


@pytest.mark.parametrize(
    ("normalise", "shift", "scale"), [("standardise", 0.5, 0.5), ("min-max", 0.0, 1.0)]
)
def test_a_memory_mapped_array_is_read_in_chunks(tmp_path, normalise, shift, scale):
    X = np.memmap(tmp_path / "X", dtype=np.uint8, mode="w+", shape=(40_000, 1000))
    X[20_000:] = 2  # chunks differ: each is to be compared with the mean of all
    tracemalloc.start()
    found = Preprocessing.fit(X, divide_by=2, normalise=normalise)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 120e6  # all of it would be 320 MB in float64
    assert found.shift is not None
    assert found.scale is not None
    np.testing.assert_allclose(found.shift, shift)
    np.testing.assert_allclose(found.scale, scale)


def test_samples_are_normalised_in_chunks(tmp_path):
    X = np.memmap(tmp_path / "X", dtype=np.uint8, mode="w+", shape=(20_000, 1000))
    X[:, ::2] = np.arange(20_000)[:, None] % 256
    tracemalloc.start()
    found = Preprocessing(255, "per-image")(X, "float32")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak - found.nbytes < 120e6  # all of it would be 160 MB in float64, several times
    varies = np.arange(20_000) % 256 > 0
    np.testing.assert_allclose(
        found[varies], np.where(np.arange(1000) % 2, -1, 1) + 0 * found[varies]
    )
    np.testing.assert_array_equal(found[~varies], 0)


@given(
    hnp.arrays(np.float64, (5, 2), elements=st.floats(-1e6, 1e6)),
    st.sampled_from(["standardise", "min-max"]),
    st.sampled_from([1.0, 255.0]),
)
def test_what_was_learnt_can_be_undone(X, normalise, divide_by):
    done = Preprocessing.fit(X, divide_by=divide_by, normalise=normalise)
    found = done.invert(done(X, "float64"))
    np.testing.assert_allclose(found, X, rtol=1e-12, atol=1e-9)


@pytest.mark.parametrize("normalise", ["none", "per-image"])
def test_what_keeps_nothing_cannot_be_undone(normalise):
    with pytest.raises(ValueError, match=f"can be inverted, got '{normalise}'"):
        Preprocessing(1.0, normalise).invert(np.zeros((2, 2)))
