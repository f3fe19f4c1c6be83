"""What the tests beside scikit-learn share: small perceptrons of either library."""

from __future__ import annotations

from typing import Any

import pytest
import sklearn

# Major and minor release of scikit-learn, for what older ones do not have or do wrong.
SKLEARN = tuple(int(number) for number in sklearn.__version__.split(".")[:2])
HAS_WEIGHTS = HAS_POISSON = SKLEARN >= (1, 7)  # sample_weight in fit, and a choice of losses
# Before 1.9, early stopping with labels that are strings ends in a TypeError.
HAS_NAMED_CLASSES = SKLEARN >= (1, 9)


def since(*version):
    """Skip a test that compares with scikit-learn before the given version."""
    name = ".".join(str(number) for number in version)
    return pytest.mark.skipif(version > SKLEARN, reason=f"needs scikit-learn {name}")


unconverged = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

SMALL: dict[str, Any] = {"hidden_layer_sizes": (8,), "random_state": 0, "max_iter": 5}
SOLVERS = ("adam", "sgd", "lbfgs")
RATES = ("constant", "invscaling", "adaptive")


def classifier(mlp, **parameters):
    return mlp.MLPClassifier(**{**SMALL, **parameters})


def regressor(mlp, **parameters):
    return mlp.MLPRegressor(**{**SMALL, **parameters})
