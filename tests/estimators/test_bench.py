"""The ten data sets that the estimators are measured on, and the page of the measurement."""

from __future__ import annotations

import re

import numpy as np
import pytest
from sklearn import neural_network

import xpnet
from bench import estimators as bench
from tests.estimators.test_onnx import run

pytestmark = [
    pytest.mark.host,
    pytest.mark.filterwarnings("ignore:Stochastic Optimizer:Warning"),
]
PROBLEMS = {problem.name: problem for problem in bench.problems()}


def test_there_are_ten():
    assert len(PROBLEMS) == 10


@pytest.mark.parametrize("name", PROBLEMS)
def test_both_sides_and_another_runtime_say_the_same(name):
    """Five epochs of the default network: predictions are equal, probabilities but for rounding."""
    problem = PROBLEMS[name]
    X, X_test, y, _ = bench.split(problem, seed=0)
    options = {"random_state": 0, "max_iter": 5}
    theirs, ours = (
        getattr(module, problem.estimator)(**options).fit(X, y)
        for module in (neural_network, xpnet)
    )
    assert ours.loss_curve_ == pytest.approx(theirs.loss_curve_, rel=1e-6)
    dense = X_test.toarray() if hasattr(X_test, "toarray") else X_test
    outputs = run(ours.to_onnx(), dense)
    if problem.estimator == "MLPRegressor":
        np.testing.assert_allclose(ours.predict(X_test), theirs.predict(X_test), rtol=1e-6)
        np.testing.assert_allclose(outputs["variable"].ravel(), ours.predict(X_test), rtol=1e-5)
        return
    np.testing.assert_array_equal(ours.predict(X_test), theirs.predict(X_test))
    np.testing.assert_array_equal(outputs["label"], ours.predict(X_test))
    proba = ours.predict_proba(X_test)
    np.testing.assert_allclose(outputs["probabilities"], proba, rtol=0, atol=1e-5)


def test_the_page():
    row = bench.run(PROBLEMS["tiny"], seeds=2)
    assert row[:3] == ["tiny", "binary, 40 x 10", "accuracy"]
    assert row[3] == row[4]
    assert row[5:7] == ["+0.0000", "2 of 2"]
    assert re.fullmatch(r"\d+\.\d\d \(\d+\.\d\d to \d+\.\d\d\)", row[-1])
    text = "\n".join(bench.page([row], 2))
    assert f"| {' | '.join(row)} |" in text
    assert "2 seeds each" in text
