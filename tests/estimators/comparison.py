"""The same lines with scikit-learn's estimators and with ours, and what a user sees of both.

A script is a function of a module, which is where its estimators come from, and of a function that
keeps them: what they have learned is compared when the script has ended, normally or not.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import io
import warnings
from collections.abc import Callable, Collection
from typing import Any

import numpy as np
from scipy import sparse
from sklearn import datasets, neural_network
from sklearn.preprocessing import StandardScaler

from xpnet import estimators

Script = Callable[[Any, Callable[[Any], Any]], Any]

ATTRIBUTES = (
    *("n_iter_", "t_", "loss_", "best_loss_", "loss_curve_"),
    *("validation_scores_", "best_validation_score_"),
    *("n_layers_", "n_outputs_", "out_activation_", "n_features_in_", "feature_names_in_"),
    *("classes_", "coefs_", "intercepts_", "loss"),
)


@functools.cache
def data(name: str) -> tuple[Any, Any]:
    """Return samples and labels, of about unit scale but for "digits" and what is called raw."""
    if name == "digits":
        X, y = datasets.load_digits(return_X_y=True)
        return X[:700], y[:700]
    if name == "raw digits":
        return _pair(datasets.load_digits(return_X_y=True))
    if name == "raw cancer":
        return _pair(datasets.load_breast_cancer(return_X_y=True))
    if name == "pixels":
        X, y = data("digits")
        return X / 16, y
    if name == "multilabel":
        return _pair(datasets.make_multilabel_classification(150, random_state=0))
    if name == "counts":  # of words, say
        return sparse.random_array((200, 120), density=0.05, rng=1, format="csr"), _thirds(200)
    load = {
        "cancer": datasets.load_breast_cancer,
        "diabetes": datasets.load_diabetes,
        "two outputs": datasets.load_diabetes,
    }[name]
    X, y = load(return_X_y=True)
    X = StandardScaler().fit_transform(X)
    if name == "cancer":
        return X, y
    y = y / 50
    return X, (np.column_stack([y, np.exp(X[:, 2])]) if name == "two outputs" else y)


def _pair(loaded: Any) -> tuple[Any, Any]:
    X, y = loaded
    return X, y


def _thirds(n: int) -> Any:
    return np.arange(n) % 3


def seen(script: Script, module: Any) -> dict[str, Any]:
    """Run a script and give all that can be seen of it."""
    kept: list[Any] = []

    def keep(estimator: Any) -> Any:
        kept.append(estimator)
        return estimator

    found: dict[str, Any] = {"error": None}
    output = io.StringIO()
    with warnings.catch_warnings(record=True) as caught, contextlib.redirect_stdout(output):
        warnings.simplefilter("always")
        # Of the guard that tests have on a GPU against waiting for it.
        warnings.filterwarnings("ignore", "cupyx.allow_synchronize", UserWarning)
        try:
            found["result"] = script(module, keep)
        except Exception as error:
            found["error"] = (type(error), str(error))
    found["output"] = output.getvalue()
    found["warnings"] = [(warning.category, str(warning.message)) for warning in caught]
    for number, estimator in enumerate(kept):
        for name in ATTRIBUTES:
            found[f"{name} of {number}"] = copy.deepcopy(getattr(estimator, name, None))
    return found


def differences(script: Script, rtol: float = 1e-6, but: Collection[str] = ()) -> dict[str, Any]:
    """Return what can be seen of scikit-learn's and of ours where they are not alike."""
    theirs, ours = (seen(script, module) for module in (neural_network, estimators))
    return {
        name: (theirs.get(name), ours.get(name))
        for name in {**theirs, **ours}
        if name not in but and not alike(theirs.get(name), ours.get(name), rtol)
    }


def alike(theirs: Any, ours: Any, rtol: float = 1e-6) -> bool:
    """Return whether two values are of one type and shape and, but for rounding, equal."""
    if type(theirs) is not type(ours):
        return False
    if isinstance(theirs, (list, tuple)):
        return len(theirs) == len(ours) and all(
            alike(a, b, rtol) for a, b in zip(theirs, ours, strict=True)
        )
    if sparse.issparse(theirs):
        return alike(theirs.toarray(), ours.toarray(), rtol)
    if isinstance(theirs, np.ndarray):
        if (theirs.dtype, theirs.shape) != (ours.dtype, ours.shape):
            return False
        if theirs.dtype.kind != "f":
            return np.array_equal(theirs, ours)
        return np.allclose(ours, theirs, rtol, atol=rtol / 100, equal_nan=True)
    if isinstance(theirs, float):
        return bool(np.isclose(ours, theirs, rtol, atol=0, equal_nan=True))
    return bool(theirs == ours)
