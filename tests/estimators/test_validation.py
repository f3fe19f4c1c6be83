"""Validation data and scorers: curves, early stopping, and schedules that watch them."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score, log_loss, make_scorer

from tests.estimators.networks import agree, by_hand, differ, fitted, problem
from xpnet import nn
from xpnet.estimators import MLPRegressor

host = pytest.mark.host
pytestmark = pytest.mark.filterwarnings("ignore:Stochastic Optimizer:Warning")


def test_validation_curves():
    X, y = problem(90)
    weight = np.random.default_rng(0).uniform(0.1, 2, 30)
    given = {"X_val": X[60:], "y_val": y[60:], "sample_weight_val": weight}
    made = fitted(X[:60], y[:60], fit=given)
    _, history = by_hand(X[:60], y[:60], validation=(X[60:], y[60:], weight))
    expected = [report.validation_cost for report in history.reports]
    np.testing.assert_allclose(made.validation_loss_curve_, expected, rtol=1e-9)
    expected = [report.validation_accuracy for report in history.reports]
    np.testing.assert_allclose(made.validation_scores_, expected)
    P = made.predict_proba(X[60:])
    assert made.validation_loss_curve_[-1] == pytest.approx(
        log_loss(y[60:], P, sample_weight=weight)
    )
    assert made.best_validation_score_ is None
    assert not differ(made, fitted(X[:60], y[:60]))


def test_early_stopping_on_own_validation_data():
    X, y = problem(160, seed=1)
    options = {"max_iter": 200, "early_stopping": True, "n_iter_no_change": 3, "tol": 0}
    made = fitted(X[:100], y[:100], fit={"X_val": X[100:], "y_val": y[100:]}, **options)
    assert made.n_iter_ == len(made.validation_scores_) < 200
    assert made.best_validation_score_ == max(made.validation_scores_)
    assert made.score(X[100:], y[100:]) == pytest.approx(made.best_validation_score_)
    assert made.best_loss_ is None
    # All samples are trained on.
    one = fitted(X[:100], y[:100], max_iter=1)
    assert made.loss_curve_[0] == pytest.approx(one.loss_curve_[0], rel=1e-12)


@host
@pytest.mark.parametrize("own", [False, True], ids=["split", "own"])
@pytest.mark.parametrize(
    "scoring",
    [
        "loss",
        "f1_macro",
        "neg_log_loss",
        lambda e, X, y: -abs(e.predict_proba(X)[:, 0].mean() - 0.4),
    ],
    ids=["loss", "name", "probabilities", "function"],
)
def test_scoring(scoring, own):
    X, y = problem(160)
    fit = {"X_val": X[100:], "y_val": y[100:]} if own else {}
    options = {"early_stopping": True, "max_iter": 8, "validation_fraction": 0.3}
    made = fitted(X[:100], y[:100], fit=fit, scoring=scoring, **options)
    if scoring == "loss":
        np.testing.assert_allclose(made.validation_scores_, -np.array(made.validation_loss_curve_))
    assert made.best_validation_score_ == max(made.validation_scores_)
    plain = fitted(X[:100], y[:100], fit=fit, **options)
    assert made.validation_scores_ != plain.validation_scores_
    if own:
        measured = {
            "loss": lambda: -log_loss(y[100:], made.predict_proba(X[100:])),
            "f1_macro": lambda: f1_score(y[100:], made.predict(X[100:]), average="macro"),
            "neg_log_loss": lambda: -log_loss(y[100:], made.predict_proba(X[100:])),
        }.get(scoring, lambda: scoring(made, X[100:], y[100:]))
        assert made.best_validation_score_ == pytest.approx(measured())


@host
def test_scorers_are_given_weights_where_they_take_them():
    X, y = problem(160)
    weight = np.where(y == 0, 5.0, 1.0)
    fit = {"X_val": X[100:], "y_val": y[100:], "sample_weight_val": weight[100:]}
    options = {"early_stopping": True, "max_iter": 3}
    made = fitted(X, y, fit=fit, scoring=make_scorer(accuracy_score), **options)
    expected = fitted(X, y, fit=fit, **options).validation_scores_
    np.testing.assert_allclose(made.validation_scores_, expected)
    plain = fitted(X, y, fit=fit, scoring=lambda e, X, y: e.score(X, y), **options)
    assert not np.allclose(plain.validation_scores_, expected)


@host
def test_scores_that_are_no_numbers():
    X, y = problem()
    options = {"early_stopping": True, "max_iter": 3, "validation_fraction": 0.2}
    made = fitted(X, y, scoring=lambda e, X, y: np.nan, **options)
    assert np.isnan(made.validation_scores_).all()
    assert made.best_validation_score_ == -np.inf
    assert made.predict(X).shape == y.shape
    for score in (None, "good", {"f1": 1.0}):
        with pytest.raises(ValueError, match="scoring must return a number, got"):
            fitted(X, y, scoring=lambda e, X, y, score=score: score, **options)
    with pytest.raises(ZeroDivisionError):
        fitted(X, y, scoring=lambda e, X, y: 1 / 0, **options)


@host
@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_data_frames(library):
    frames = pytest.importorskip(library)
    X, y = problem(80)
    names = list("abcde")
    data = frames.DataFrame({name: X[:, i] for i, name in enumerate(names)})
    options = {"early_stopping": True, "validation_fraction": 0.3}
    for scoring in (None, "loss", "f1_macro", lambda e, X, y: e.score(X, y)):
        made = fitted(data, y, scoring=scoring, **options)
        assert not differ(made, fitted(X, y, scoring=scoring, **options))
        made = fitted(
            data, y, scoring=scoring, fit={"X_val": data[:20], "y_val": y[:20]}, **options
        )
        np.testing.assert_array_equal(made.feature_names_in_, names)
        assert made.predict(data).shape == (80,)
    with pytest.raises(ValueError, match="feature names"):
        made.predict(data[names[::-1]])


@host
@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"X_val": "X"}, "X_val and y_val must be given together, got only X_val"),
        ({"y_val": "y"}, "X_val and y_val must be given together, got only y_val"),
        ({"sample_weight_val": "y"}, "sample_weight_val needs X_val and y_val, got neither"),
        ({"X_val": "narrow", "y_val": "y"}, "X has 2 features"),
        ({"X_val": "X", "y_val": "other"}, "`y` has classes not in"),
        ({"X_val": "X", "y_val": "short"}, "inconsistent numbers of samples"),
    ],
    ids=str,
)
def test_validation_data_that_do_not_fit(given, said):
    X, y = problem()
    values = {"X": X, "y": y, "narrow": X[:, :2], "other": y + 1, "short": y[:-1]}
    with pytest.raises(ValueError, match=said):
        fitted(X, y, fit={name: values[value] for name, value in given.items()})


@host
@pytest.mark.parametrize("own", [False, True], ids=["split", "own"])
def test_schedules_that_watch_validation_data(own):
    X, y = problem(120)
    fit = {"X_val": X[80:], "y_val": y[80:]} if own else {}
    schedule = nn.ReduceOnPlateau("validation_cost", patience=0, threshold=0.5)
    options = {"early_stopping": not own, "validation_fraction": 0.3, "max_iter": 6}
    made = fitted(X[:80], y[:80], fit=fit, schedule=schedule, **options)
    assert differ(made, fitted(X[:80], y[:80], fit=fit, **options))
    if own:
        agree(
            made,
            *by_hand(X[:80], y[:80], schedule=schedule, epochs=6, validation=(X[80:], y[80:])),
        )


@host
def test_early_stopping_on_little_data():
    X, y = problem(9)
    with pytest.raises(ValueError, match="validation set is too small"):
        fitted(X[:5], X[:5, 0], MLPRegressor, early_stopping=True)
    made = fitted(
        X, X[:, 0], MLPRegressor, early_stopping=True, validation_fraction=0.3, batch_size=4
    )
    assert len(made.validation_scores_) == 4
    with pytest.raises(ValueError, match="The least populated class"):
        fitted(X, np.arange(9) == 0, early_stopping=True, validation_fraction=0.5)
    own = {"X_val": X[:1], "y_val": y[:1]}
    made = fitted(X, y, early_stopping=True, fit=own, batch_size=4)
    assert set(made.validation_scores_) <= {0.0, 1.0}
