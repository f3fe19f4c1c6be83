"""scikit-learn's own checks of estimators, of every solver and the layers that it does not know."""

from __future__ import annotations

from typing import Any

import pytest
from sklearn import neural_network
from sklearn.utils.estimator_checks import (
    check_classifiers_multilabel_output_format_predict_proba,
    parametrize_with_checks,
)

from xpnet.estimators import LogisticRegression, MLPClassifier, MLPRegressor

pytestmark = [
    pytest.mark.host,
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
]

ESTIMATORS = [
    *(MLPClassifier(solver=solver) for solver in ("adam", "lbfgs")),
    MLPRegressor(solver="sgd"),
    LogisticRegression(),
    MLPClassifier(batch_norm=True),
]
SLOW_ESTIMATORS = [
    MLPClassifier(solver="sgd"),
    *(MLPRegressor(solver=solver) for solver in ("adam", "lbfgs")),
    *(LogisticRegression(solver=solver) for solver in ("adam", "sgd")),
    MLPClassifier(solver="sgd", batch_norm=True),
    *(MLPRegressor(solver=solver, batch_norm=True) for solver in ("adam", "sgd")),
    MLPClassifier(dropout=0.2),
]
ROUNDED = (
    "scikit-learn's own MLPClassifier(solver='lbfgs') fails it as well: probabilities round to 1"
)
DRAWN = "a sample in the place of two is dropped in the place of one"


def expected(estimator: Any) -> dict[str, str]:
    """Name the checks that an estimator fails, and why."""
    failed = {}
    if isinstance(estimator, MLPClassifier) and estimator.solver == "lbfgs":
        failed["check_classifiers_multilabel_output_format_predict_proba"] = ROUNDED
    if isinstance(estimator, MLPClassifier) and estimator.dropout:
        failed["check_sample_weight_equivalence_on_dense_data"] = DRAWN
        failed["check_sample_weight_equivalence_on_sparse_data"] = DRAWN
    return failed


@parametrize_with_checks(ESTIMATORS, expected_failed_checks=expected)
def test_it_passes_the_check(estimator, check):
    check(estimator)


@pytest.mark.slow
@parametrize_with_checks(SLOW_ESTIMATORS, expected_failed_checks=expected)
def test_it_passes_the_check_slow(estimator, check):
    check(estimator)


def test_scikit_learns_own_fails_the_check_that_ours_is_excused_from():
    theirs = neural_network.MLPClassifier(solver="lbfgs")
    with pytest.raises(AssertionError):
        check_classifiers_multilabel_output_format_predict_proba("MLPClassifier", theirs)
