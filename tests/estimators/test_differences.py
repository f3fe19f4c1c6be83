"""Where the perceptrons are meant to differ from scikit-learn's."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning

from tests.estimators.comparison import data
from tests.estimators.perceptrons import classifier, regressor, unconverged
from xpnet import estimators
from xpnet.estimators import MLPClassifier, MLPRegressor

host = pytest.mark.host


@host
@unconverged
def test_partial_fit_takes_a_part_of_the_classes_with_warm_start_too():
    X, y = data("cancer")
    ours = classifier(estimators, warm_start=True).partial_fit(X, y, classes=[0, 1])
    assert ours.partial_fit(X[y == 1], y[y == 1]).t_ == len(y) + np.sum(y == 1)


@host
@unconverged
def test_partial_fit_heeds_a_learning_rate_that_is_changed():
    X, y = data("cancer")
    curves = []
    for rate in (0.001, 0.1):
        ours = classifier(estimators, learning_rate_init=0.001).partial_fit(X, y, classes=[0, 1])
        for _ in range(2):
            ours.set_params(learning_rate_init=rate).partial_fit(X, y)
        curves.append(ours.loss_curve_)
    assert curves[0][0] == curves[1][0]
    assert curves[1][2] < curves[0][2] - 0.1


@host
def test_regressors_have_no_partial_fit_with_lbfgs():
    assert not hasattr(MLPRegressor(solver="lbfgs"), "partial_fit")


@host
@unconverged
def test_epochs_follow_a_fit_by_lbfgs():
    X, y = data("cancer")
    ours = classifier(estimators, warm_start=True, solver="lbfgs").fit(X, y)
    loss = ours.loss_
    ours.set_params(solver="adam").fit(X, y)
    assert len(ours.loss_curve_) == 5
    assert ours.loss_curve_[0] == pytest.approx(loss, rel=0.1)


@host
@unconverged
def test_a_batch_may_weigh_nothing():
    X, y = data("cancer")
    weights = np.append(np.zeros(200), np.ones(len(y) - 200))
    ours = classifier(estimators, shuffle=False).fit(X, y, weights)
    assert np.isfinite(ours.loss_curve_).all()


@host
def test_weights_are_no_debts():
    X, y = data("cancer")
    with pytest.raises(ValueError, match="Negative values in data passed to `sample_weight`"):
        MLPClassifier().fit(X, y, np.append(-1, np.ones(len(y) - 1)))


@host
def test_a_diverging_run_names_the_step():
    X, y = data("diabetes")
    with pytest.raises(ValueError, match=r"Solver produced non-finite .* at step 3"):
        regressor(estimators, solver="sgd", learning_rate_init=1e5).fit(100 * X, y)


@host
def test_a_diverging_run_that_may_stop_early_gives_the_best_epoch():
    """scikit-learn goes through all epochs, with warnings of NumPy's, to the same end."""
    X, y = data("diabetes")
    ours = regressor(
        estimators,
        activation="identity",
        solver="sgd",
        learning_rate_init=2.0,
        max_iter=20,
        early_stopping=True,
    )
    with pytest.warns(ConvergenceWarning, match="non-finite.*best epoch"):
        ours.fit(X, y)
    assert isinstance(ours.validation_scores_[-1], float)
    assert ours.n_iter_ < 20
    assert all(np.isfinite(W).all() for W in ours.coefs_)
    assert np.isfinite(ours.predict(X)).all()


@host
@unconverged
def test_weights_can_be_set_where_they_are_and_nowhere_else():
    X, y = data("cancer")
    with pytest.raises(AttributeError, match="after fit"):
        MLPClassifier().coefs_ = []
    ours = classifier(estimators).fit(X, y)
    with pytest.raises(ValueError, match=r"coefs_ must have the shapes \[\(30, 8\), \(8, 1\)\]"):
        ours.coefs_ = ours.coefs_[::-1]
    before = ours.predict_proba(X)
    with pytest.raises(ValueError, match="intercepts_ must have the shapes"):
        ours.intercepts_[0] = np.zeros(3)
    assert np.array_equal(ours.predict_proba(X), before)
    assert type(pickle.loads(pickle.dumps(ours.coefs_))) is list
    folded = classifier(estimators, batch_norm=True).fit(X, y)
    with pytest.raises(ValueError, match="read-only"):
        folded.coefs_[0][:] = 1
    with pytest.raises(AttributeError, match="coefs_ cannot be set with batch_norm=True"):
        folded.coefs_ = folded.coefs_
    folded.partial_fit(X, y)  # the network's own are not read-only
