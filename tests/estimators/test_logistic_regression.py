"""Logistic regression does what scikit-learn's does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn import linear_model

from tests.estimators.comparison import alike, data
from tests.estimators.perceptrons import since, unconverged
from xpnet.estimators import LogisticRegression

host = pytest.mark.host

REGRESSIONS: dict[str, tuple[Any, dict[str, Any], bool]] = {
    "two classes": ("cancer", {}, False),
    "ten classes": ("pixels", {"C": 0.1}, False),
    "sparse": ("counts", {}, False),
    **{f"C={C}": ("cancer", {"C": C}, False) for C in (1e-3, 0.1, 10.0)},
    "no intercept": ("cancer", {"fit_intercept": False}, False),
    "no intercept, three classes": ("counts", {"fit_intercept": False}, False),
    "balanced": ("cancer", {"class_weight": "balanced"}, False),
    "class weights": ("cancer", {"class_weight": {0: 3, 1: 0.5}}, False),
    "weights": ("cancer", {}, True),
    "weights, three classes": ("counts", {}, True),
    "weights, balanced": ("cancer", {"class_weight": "balanced"}, True),
    "weights, class weights": ("cancer", {"class_weight": {0: 3}}, True),
}


@host
@pytest.mark.parametrize(
    "name",
    [
        # Before 1.7, "balanced" counts samples rather than their weights.
        pytest.param(name, marks=since(1, 7) if name == "weights, balanced" else ())
        for name in REGRESSIONS
    ],
)
def test_logistic_regression_is_scikit_learns(name):
    samples, parameters, is_weighted = REGRESSIONS[name]
    X, y = data(samples)
    weights = np.random.default_rng(0).random(len(y)) if is_weighted else None
    exact = {"tol": 1e-8, "max_iter": 3000, **parameters}
    theirs = linear_model.LogisticRegression(**exact).fit(X, y, weights)
    ours = LogisticRegression(**exact).fit(X, y, weights)
    for attribute in ("coef_", "intercept_"):
        a, b = getattr(theirs, attribute), getattr(ours, attribute)
        assert (b.shape, b.dtype) == (a.shape, a.dtype)
        assert np.abs(b - a).max() <= 1e-4 * np.abs(a).max(initial=0)
    assert np.array_equal(ours.classes_, theirs.classes_)
    assert (ours.n_iter_.shape, ours.n_iter_.dtype) == (theirs.n_iter_.shape, theirs.n_iter_.dtype)
    assert ours.n_iter_ == pytest.approx(theirs.n_iter_, rel=0.15)
    for method in ("decision_function", "predict_proba", "predict", "predict_log_proba"):
        a, b = (getattr(estimator, method)(X) for estimator in (theirs, ours))
        assert alike(a, b, 1e-3), method
    assert ours.score(X, y, weights) == theirs.score(X, y, weights)


@host
@unconverged
def test_logistic_regression_begins_warm_as_scikit_learns():
    X, y = data("cancer")
    theirs, ours = (
        kind(warm_start=True, max_iter=3)
        for kind in (linear_model.LogisticRegression, LogisticRegression)
    )
    for C in (1.0, 1.0, 5.0):
        theirs.set_params(C=C).fit(X, y)
        ours.set_params(C=C).fit(X, y)
        assert alike(theirs.coef_, ours.coef_)
        assert alike(theirs.n_iter_, ours.n_iter_)


@host
@unconverged
def test_the_weights_of_a_logistic_regression_can_be_set():
    X, y = data("cancer")
    pair = [
        kind(fit_intercept=has, max_iter=3).fit(X, y)
        for kind in (linear_model.LogisticRegression, LogisticRegression)
        for has in (True, False)
    ]
    for estimator in pair:
        estimator.coef_ = 2 * estimator.coef_
    for estimator in (pair[0], pair[2]):
        estimator.intercept_ = estimator.intercept_ + 1
    for theirs, ours in zip(pair[:2], pair[2:], strict=True):
        assert alike(theirs.decision_function(X), ours.decision_function(X))
    with pytest.raises(ValueError, match="coef_ must have the shapes"):
        pair[2].coef_ = np.zeros((2, 30))
    with pytest.raises(AttributeError, match="intercept_ cannot be set with fit_intercept=False"):
        pair[3].intercept_ = np.zeros(1)


@host
@unconverged
@pytest.mark.parametrize("solver", ["adam", "sgd"])
def test_logistic_regression_by_epochs_comes_near(solver):
    X, y = data("cancer")
    exact = LogisticRegression().fit(X, y)
    ours = LogisticRegression(solver=solver, random_state=0, max_iter=300).fit(X, y)
    assert np.mean(ours.predict(X) == exact.predict(X)) > 0.98
