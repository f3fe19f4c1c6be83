"""What the tests beside scikit-learn share: small perceptrons of either library."""

from __future__ import annotations

from typing import Any

import pytest

unconverged = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

SMALL: dict[str, Any] = {"hidden_layer_sizes": (8,), "random_state": 0, "max_iter": 5}
SOLVERS = ("adam", "sgd", "lbfgs")
RATES = ("constant", "invscaling", "adaptive")


def classifier(mlp, **parameters):
    return mlp.MLPClassifier(**{**SMALL, **parameters})


def regressor(mlp, **parameters):
    return mlp.MLPRegressor(**{**SMALL, **parameters})
