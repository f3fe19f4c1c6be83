"""One fit after another: a warm start, parts of the data, and parameters that change."""

from __future__ import annotations

import numpy as np
import pytest

from tests.estimators.networks import BASE, differ, fitted, forward, problem
from xpnet.device import device
from xpnet.estimators import LogisticRegression, MLPClassifier, MLPRegressor

host = pytest.mark.host
pytestmark = pytest.mark.filterwarnings("ignore:Stochastic Optimizer:Warning")


@pytest.mark.parametrize("how", ["partial_fit", "warm_start", "warm_start_optimizer"])
def test_masks_are_not_drawn_twice(how):
    """Steps of one sample, of a rate that leaves a mask where the weights' changes are 0."""
    X, y = np.ones((1, 4)), np.array([0])
    made = MLPRegressor(
        hidden_layer_sizes=(64,),
        activation="identity",
        dropout=0.5,
        solver="sgd",
        momentum=0,
        max_iter=1,
        random_state=0,
        learning_rate_init=1e-3,
        alpha=0,
        warm_start=how != "partial_fit",
        warm_start_optimizer=how == "warm_start_optimizer",
    )
    masks = []
    made.partial_fit(X, y)
    for _ in range(4):
        before = made.coefs_[1].copy()
        (made.partial_fit if how == "partial_fit" else made.fit)(X, y)
        masks.append((made.coefs_[1] != before).ravel())
    assert all(0.2 < mask.mean() < 0.8 for mask in masks)
    assert len({mask.tobytes() for mask in masks}) == 4


@host
def test_dropout_that_comes_with_a_warm_start():
    X, y = problem()
    options = {"warm_start": True, "max_iter": 1}
    found = []
    for seed in (1, 2):
        made = fitted(X, y, **options)
        made.set_params(dropout=0.5, random_state=seed).fit(X, y)
        found.append(made)
    assert differ(*found)
    before = found[0].coefs_
    found[0].set_params(dropout=0.0, learning_rate_init=1e-12).fit(X, y)
    for W, expected in zip(found[0].coefs_, before, strict=True):
        np.testing.assert_allclose(W, expected, atol=1e-9)


@pytest.mark.heavy
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"dropout": 0.4, "batch_norm": True},
        {"solver": "sgd"},
        {"solver": "sgd", "learning_rate": "invscaling"},
        {"optimizer": "rmsprop"},
        {"weight_decay": 0.1},
        {"precision": "float32"},
    ],
    ids=str,
)
def test_two_fits_are_one(options):
    X, y = problem()
    twice = MLPClassifier(**{**BASE, "max_iter": 5, "warm_start": True, **options})
    twice.set_params(warm_start_optimizer=True).fit(X, y).fit(X, y)
    once = fitted(X, y, max_iter=10, **options)
    for a, b in zip(twice.coefs_, once.coefs_, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(twice.loss_curve_, once.loss_curve_, rtol=1e-6)
    anew = MLPClassifier(**{**BASE, "max_iter": 5, "warm_start": True, **options})
    assert differ(anew.fit(X, y).fit(X, y), once)


@pytest.mark.parametrize("options", [{}, {"dropout": 0.4}, {"optimizer": "momentum"}], ids=str)
def test_partial_fits_are_epochs(options):
    X, y = problem()
    made = MLPClassifier(**{**BASE, **options})
    for _ in range(4):
        made.partial_fit(X, y, classes=[0, 1, 2])
    assert not differ(made, fitted(X, y, **options))


@host
def test_schedules_are_for_fit():
    X, y = problem()
    with pytest.raises(ValueError, match="partial_fit does not support a schedule"):
        MLPClassifier(schedule="cosine").partial_fit(X, y, classes=[0, 1, 2])


@host
def test_what_is_set_between_calls_takes_effect():
    """Rates and coefficients that an optimizer keeps in its state are those of the call."""
    X, y = problem()

    def then(**changes):
        made = MLPClassifier(**{**BASE, "weight_decay": 0.1}).partial_fit(X, y, classes=[0, 1, 2])
        return made.set_params(**changes).partial_fit(X, y)

    plain = then()
    for changes in (
        {"learning_rate_init": 0.5},
        {"weight_decay": 5.0},
        {"weight_decay": 0.0},
        {"epsilon": 1.0},
        {"beta_1": 0.1},
        {"solver": "sgd"},
        {"dropout": 0.5},
        {"label_smoothing": 0.5},
        {"clip_norm": 1e-9, "solver": "sgd"},
    ):
        assert differ(then(**changes), plain), changes


@pytest.mark.parametrize("optimizer", [False, True], ids=["anew", "goes on"])
@pytest.mark.parametrize("way", [("float32", "float64"), ("float64", "float32")])
def test_precision_that_changes(way, optimizer):
    X, y = problem()
    before, after = way
    options = {"warm_start": True, "warm_start_optimizer": optimizer}
    made = fitted(X, y, precision=before, **options)
    coefs = made.coefs_
    made.set_params(precision=after, learning_rate_init=1e-9).fit(X, y)
    assert made.network_.dtype == made.predict_proba(X).dtype == after
    for a, b in zip(made.coefs_, coefs, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.accelerator
@pytest.mark.parametrize("way", [("float32", "tf32"), ("tf32", "float32")])
def test_products_whose_precision_changes(way):
    X, y = problem()
    made = fitted(X, y, precision=way[0], warm_start=True, warm_start_optimizer=True)
    assert made.network_.device.precision == way[0]
    made.set_params(precision=way[1]).fit(X, y)
    assert made.network_.device.precision == way[1]


@host
@pytest.mark.parametrize("has", np.array([False, True]))
def test_an_intercept_by_a_search_over_an_array(has):
    """Its elements are NumPy's own bools, which scikit-learn's checks let pass."""
    X, y = problem()
    made = LogisticRegression(fit_intercept=has).fit(X, y)
    np.testing.assert_array_equal(
        made.coef_, LogisticRegression(fit_intercept=bool(has)).fit(X, y).coef_
    )


@host
def test_a_loss_that_changes():
    """Predictions go through the link of the loss that the weights were last trained on."""
    X, _ = problem()
    y = np.exp(0.3 * X[:, 0])
    made = fitted(X, y, MLPRegressor, warm_start=True)
    made.set_params(loss="poisson").fit(X, y)
    assert made.out_activation_ == "exp"
    np.testing.assert_allclose(made.predict(X), np.exp(made.network_.predict(X)[:, 0]))


@host
def test_what_a_refused_call_leaves():
    X, _ = problem()
    made = fitted(X, X[:, 0], MLPRegressor)
    before = made.predict(X)
    with pytest.raises(ValueError, match="the previous fit's weights must have the shapes"):
        made.partial_fit(X, X[:, :2])
    assert made.n_outputs_ == 1
    np.testing.assert_array_equal(made.predict(X), before)


@host
def test_operations_that_change():
    X, y = problem()
    made = fitted(X, y, device="cpu", warm_start=True)
    made.set_params(device=device("cpu", "reference")).fit(X, y)
    assert made.network_.device.kernels == "reference"


@host
def test_parameters_that_change_with_a_warm_start():
    X, y = problem()
    made = fitted(X, y, warm_start=True)
    coefs = made.coefs_
    made.set_params(activation="tanh", learning_rate_init=1e-9, max_norm=100.0).fit(X, y)
    for a, b in zip(made.coefs_, coefs, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    np.testing.assert_allclose(made.predict_proba(X), forward(made, X), rtol=1e-9)
    before = made.predict_proba(X)
    for changes in ({"hidden_layer_sizes": (9,)}, {"batch_norm": True}):
        made.set_params(**changes)
        with pytest.raises(ValueError, match=r"the previous fit's weights .* warm_start=False"):
            made.fit(X, y)
        made.set_params(**{name: BASE.get(name, False) for name in changes})
    np.testing.assert_array_equal(made.predict_proba(X), before)
    with pytest.raises(ValueError, match="warm_start can only be used where"):
        made.fit(X, y + 1)


@host
@pytest.mark.filterwarnings("ignore:lbfgs failed to converge:Warning")
def test_a_solver_that_changes_with_a_warm_start():
    X, y = problem()
    made = fitted(X, y, solver="lbfgs", warm_start=True)
    lowest = made.loss_
    made.set_params(solver="adam", learning_rate_init=1e-6).fit(X, y)
    assert made.loss_ == pytest.approx(lowest, rel=0.05)
    assert len(made.loss_curve_) == 4
    assert made.set_params(solver="lbfgs").fit(X, y).loss_ < lowest


@host
def test_what_is_watched_changes_with_a_warm_start():
    """A score of 0.9 is no loss of -0.9, which nothing would ever be better than."""
    X, y = problem(100)
    options = {"warm_start": True, "n_iter_no_change": 2, "validation_fraction": 0.3}
    made = fitted(X, y, early_stopping=True, **options)
    made.set_params(early_stopping=False, max_iter=10).fit(X, y)
    assert made.n_iter_ == 10
    assert made.best_loss_ == min(made.loss_curve_[4:])
    assert made.best_validation_score_ is None
    made.set_params(early_stopping=True, scoring="loss", n_iter_no_change=20).fit(X, y)
    assert made.validation_scores_ is not None
    assert made.best_validation_score_ == max(made.validation_scores_[4:])
