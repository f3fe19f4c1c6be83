"""Parameters and methods have scikit-learn's names, places and defaults."""

from __future__ import annotations

import inspect

import pytest
from sklearn import linear_model, neural_network

from tests.estimators.perceptrons import HAS_POISSON, HAS_WEIGHTS
from xpnet import estimators
from xpnet.estimators import LogisticRegression

host = pytest.mark.host


@host
@pytest.mark.parametrize("name", ["MLPClassifier", "MLPRegressor"])
def test_parameters_have_scikit_learns_places_and_defaults(name):
    theirs = inspect.signature(getattr(neural_network, name)).parameters
    ours = dict(inspect.signature(getattr(estimators, name)).parameters)
    if not HAS_POISSON:  # ours takes the arguments of later versions in every version
        ours.pop("loss", None)
    first = list(ours)[: len(theirs)]
    assert first == list(theirs)
    for parameter in first:
        assert ours[parameter].kind == theirs[parameter].kind
        assert ours[parameter].default == theirs[parameter].default, parameter
    further = [ours[parameter].kind for parameter in ours if parameter not in theirs]
    assert set(further) == {inspect.Parameter.KEYWORD_ONLY}


@host
@pytest.mark.parametrize("name", ["MLPClassifier", "MLPRegressor"])
def test_methods_take_scikit_learns_arguments(name):
    theirs, ours = getattr(neural_network, name), getattr(estimators, name)
    public = [method for method in dir(theirs) if not method.startswith("_")]
    assert set(public) <= set(dir(ours))
    for method in public:
        if not callable(getattr(theirs, method)):
            continue
        expected = list(inspect.signature(getattr(theirs, method)).parameters)
        found = dict(inspect.signature(getattr(ours, method)).parameters)
        if not HAS_WEIGHTS and method in ("fit", "partial_fit"):
            del found["sample_weight"]
        if method.endswith("_request"):  # all by name
            assert set(expected) <= set(found)
            continue
        assert list(found)[: len(expected)] == expected, method
        assert all(
            found[further].kind.name == "KEYWORD_ONLY" for further in list(found)[len(expected) :]
        )


@host
def test_parameters_are_set_and_read_as_scikit_learns():
    for name in ("MLPClassifier", "MLPRegressor"):
        theirs, ours = (getattr(mlp, name)(alpha=0.5) for mlp in (neural_network, estimators))
        known = theirs.get_params()
        assert {key: ours.get_params()[key] for key in known} == known
        assert ours.set_params(alpha=2, tol=1).get_params() == {
            **ours.get_params(),
            "alpha": 2,
            "tol": 1,
        }
        with pytest.raises(ValueError, match=f"Invalid parameter 'foo' for estimator {name}"):
            ours.set_params(foo=1)


@host
def test_the_parameters_of_logistic_regression_have_scikit_learns_defaults():
    theirs = inspect.signature(linear_model.LogisticRegression).parameters
    ours = inspect.signature(LogisticRegression).parameters
    shared = [name for name in ours if name in theirs]
    assert shared == [
        *("C", "tol", "fit_intercept", "class_weight", "random_state", "solver", "max_iter"),
        *("verbose", "warm_start"),
    ]
    for name in shared:
        assert ours[name].default == theirs[name].default, name
        assert ours[name].kind == theirs[name].kind, name
