"""One fit learns what scikit-learn's learns, on any data and with any parameters."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.sparse import csr_array
from sklearn import neural_network
from sklearn.preprocessing import LabelBinarizer

from tests.estimators.comparison import Script, alike, data, differences
from tests.estimators.perceptrons import (
    HAS_WEIGHTS,
    RATES,
    SOLVERS,
    classifier,
    regressor,
    since,
    unconverged,
)
from xpnet import estimators
from xpnet.estimators.classifier import _columns

host = pytest.mark.host

# A fit: by name the data, and the parameters.
_FALLING = {"tol": 0.05, "n_iter_no_change": 1, "max_iter": 40, "learning_rate_init": 0.2}
_NO_PATIENCE = {"n_iter_no_change": 1}
FITS: dict[str, tuple[str, dict[str, Any]]] = {
    **{f"digits, {s}": ("digits", {"solver": s}) for s in SOLVERS},
    **{f"sparse, {s}": ("counts", {"solver": s}) for s in SOLVERS},
    **{f"several labels, {s}": ("multilabel", {"solver": s}) for s in SOLVERS},
    **{f"a number, {s}": ("diabetes", {"solver": s}) for s in SOLVERS},
    **{f"two numbers, {s}": ("two outputs", {"solver": s}) for s in SOLVERS},
    **{f"poisson, {s}": ("diabetes", {"solver": s, "loss": "poisson"}) for s in SOLVERS},
    **{
        f"{f}, {s}": ("cancer", {"solver": s, "activation": f})
        for f in ("identity", "logistic", "tanh", "relu")
        for s in SOLVERS
    },
    **{f"{r} rate": ("cancer", {"solver": "sgd", "learning_rate": r, **_FALLING}) for r in RATES},
    "another power": (
        "cancer",
        {"solver": "sgd", "learning_rate": "invscaling", "power_t": 0.2},
    ),
    **{
        f"momentum {m}, Nesterov's {n}": (
            "cancer",
            {"solver": "sgd", "momentum": m, "nesterovs_momentum": n},
        )
        for m in (0, 0.5, 0.9, 1)
        for n in (True, False)
    },
    "a velocity that goes on": (
        "cancer",
        {"solver": "sgd", "learning_rate": "adaptive", "nesterovs_momentum": False, **_FALLING},
    ),
    "Adam's constants": ("cancer", {"beta_1": 0.5, "beta_2": 0.9, "epsilon": 1e-3}),
    "in order": ("digits", {"shuffle": False}),
    "batches that leave some over": ("digits", {"batch_size": 64}),
    "batches of one": ("multilabel", {"batch_size": 1, "max_iter": 2}),
    "one batch": ("cancer", {"batch_size": 569, "solver": "sgd"}),
    "batches larger than all": ("cancer", {"batch_size": np.int64(1000)}),
    **{f"alpha, {s}": ("cancer", {"alpha": 10.0, "solver": s}) for s in SOLVERS},
    "no hidden layer": ("digits", {"hidden_layer_sizes": ()}),
    "no hidden layer, a number": ("diabetes", {"hidden_layer_sizes": []}),
    "one hidden layer": ("cancer", {"hidden_layer_sizes": 7}),
    "a NumPy number": ("cancer", {"hidden_layer_sizes": np.int64(7)}),
    "three hidden layers": ("cancer", {"hidden_layer_sizes": np.array([9, 7, 5])}),
    **{
        f"early stopping, {s}, {name}": (
            name,
            {"solver": s, "early_stopping": True, "n_iter_no_change": 3, "max_iter": 30},
        )
        for s in ("adam", "sgd")
        for name in ("cancer", "digits", "multilabel", "diabetes", "two outputs", "counts")
    },
    "it converges": ("cancer", {"learning_rate_init": 0.05, "tol": 0.01, "max_iter": 100}),
    "it converges slowly": (
        "cancer",
        {"solver": "sgd", "learning_rate_init": 0.02, "tol": 4e-3, "max_iter": 100, **_NO_PATIENCE},
    ),
    "it stands still": (
        "cancer",
        {"solver": "sgd", "learning_rate_init": 1e-300, "tol": 0, "shuffle": False, **_NO_PATIENCE},
    ),
    "it never gives up": ("cancer", {"n_iter_no_change": np.inf, "tol": 1e9}),
    "few evaluations": ("cancer", {"solver": "lbfgs", "max_fun": 7}),
    "a loose tolerance": ("cancer", {"solver": "lbfgs", "tol": 0.1, "max_iter": 500}),
}


def named(fits):
    """Mark the fits that scikit-learn 1.6 does not have."""
    return [pytest.param(n, marks=since(1, 7) if n.startswith("poisson") else ()) for n in fits]


def fitting(name: str, *, weighted: bool) -> Script:
    samples, parameters = FITS[name]
    X, y = data(samples)
    kind = regressor if y.dtype.kind == "f" else classifier
    weights = {"sample_weight": np.random.default_rng(0).random(len(y))} if weighted else {}
    more = {"max_iter": 10, "random_state": 3, "hidden_layer_sizes": (12, 8)}

    def script(mlp, keep):
        estimator = keep(kind(mlp, **{**more, **parameters})).fit(X, y, **weights)
        return estimator.predict(X), estimator.score(X, y, **weights)

    return script


@host
@unconverged
@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("name", ["raw digits", "raw cancer", "counts", "multilabel"])
def test_the_default_network_on_raw_data(name, solver):
    """Ten epochs, or fifty iterations, of data as they come, where losses are large."""
    X, y = data(name)
    options = {"solver": solver, "max_iter": 50 if solver == "lbfgs" else 10, "random_state": 0}
    theirs, ours = (mlp.MLPClassifier(**options).fit(X, y) for mlp in (neural_network, estimators))
    if solver != "lbfgs":
        assert ours.loss_curve_ == pytest.approx(theirs.loss_curve_, rel=0, abs=1e-6)
    for a, b in zip(
        theirs.coefs_ + theirs.intercepts_, ours.coefs_ + ours.intercepts_, strict=True
    ):
        np.testing.assert_allclose(b, a, rtol=0, atol=1e-5)


@host
@pytest.mark.parametrize(
    "weighted", [False, pytest.param(True, marks=since(1, 7))], ids=["all alike", "weighted"]
)
@pytest.mark.parametrize("name", named(FITS))
def test_a_fit_learns_the_same(name, weighted):
    """Losses, scores, counts, weights, predictions and warnings, and the types of them all."""
    is_lbfgs = FITS[name][1].get("solver") == "lbfgs"
    found = differences(fitting(name, weighted=weighted), rtol=1e-5 if is_lbfgs else 1e-6)
    assert not found


ON_EVERY_DEVICE = (
    *(f"{what}, {s}" for what in ("digits", "sparse", "poisson") for s in SOLVERS),
    *("adaptive rate", "early stopping, adam, cancer", "several labels, adam"),
)


@pytest.mark.parametrize("name", named(ON_EVERY_DEVICE))
def test_a_fit_learns_the_same_on_this_device(dev, name):
    del dev
    assert not differences(fitting(name, weighted=HAS_WEIGHTS), rtol=1e-5)


@host
@unconverged
@pytest.mark.parametrize("solver", ["adam", "sgd"])
@pytest.mark.parametrize("name", ["digits", "cancer", "diabetes", "counts"])
def test_float32_learns_the_same_but_for_rounding(name, solver):
    X, y = data(name)
    X = X.astype(np.float32)
    kind = regressor if y.dtype.kind == "f" else classifier
    theirs, ours = (
        kind(mlp, solver=solver, max_iter=10).fit(X, y) for mlp in (neural_network, estimators)
    )
    assert ours.loss_curve_ == pytest.approx(theirs.loss_curve_, rel=1e-5)
    for a, b in zip(
        theirs.coefs_ + theirs.intercepts_, ours.coefs_ + ours.intercepts_, strict=True
    ):
        assert b.dtype == a.dtype == np.float32
        assert np.allclose(b, a, rtol=1e-4, atol=1e-5)
    for dtype in (np.float32, np.float64):
        a, b = theirs.predict(X.astype(dtype)), ours.predict(X.astype(dtype))
        assert alike(a, b, 1e-4)
    if kind is classifier:
        for dtype in (np.float32, np.float64):
            a, b = (estimator.predict_proba(X.astype(dtype)) for estimator in (theirs, ours))
            assert alike(a, b, 1e-4)


@host
@unconverged
@pytest.mark.parametrize("way", [("float32", "float64"), ("float64", "float32")])
@pytest.mark.parametrize("go_on", ["fit", "partial_fit"])
def test_weights_stay_in_the_dtype_that_they_began_in(go_on, way):
    X, y = data("cancer")
    before, after = way
    theirs, ours = (
        getattr(classifier(mlp, warm_start=True).fit(X.astype(before), y), go_on)(
            X.astype(after), y
        )
        for mlp in (neural_network, estimators)
    )
    for a, b in zip(theirs.coefs_, ours.coefs_, strict=True):
        assert b.dtype == a.dtype == before
        np.testing.assert_allclose(b, a, atol=1e-5)
    assert ours.predict_proba(X).dtype == theirs.predict_proba(X).dtype


_INDICATORS = np.array([[0, 1, 1], [1, 0, 0], [0, 0, 0]])
LABELS: dict[str, Any] = {
    "one class": np.array(["a", "a"], dtype=object),
    "two numbers": np.array([2.0, -1.0, 2.0]),
    "two names": np.array(["no", "yes", "no"]),
    "booleans": np.array([True, False]),
    "three names": np.array(["a", "ccc", "bb", "a"]),
    "three objects": np.array(["a", "ccc", "bb", "a"], dtype=object),
    "large numbers": np.array([2**53 + 1, 2**53, 5]),
    "several labels": _INDICATORS,
    "several labels, sparse": csr_array(_INDICATORS),
    "several labels, of -1 and 1": 2 * _INDICATORS - 1,
}


@host
@pytest.mark.parametrize("name", LABELS)
def test_labels_become_the_columns_of_scikit_learns_binarizer(name):
    y = LABELS[name]
    binarizer = LabelBinarizer().fit(y)
    expected = binarizer.transform(y)
    expected = expected.toarray() if hasattr(expected, "toarray") else expected
    columns = _columns(y, binarizer.classes_)
    assert columns.dtype == bool
    np.testing.assert_array_equal(columns, expected.astype(bool))
