"""The scales as Optuna and SciPy have them: names, probabilities, searches of scikit-learn's."""

from __future__ import annotations

import collections
import copy
import math
import pickle
from typing import Any

import numpy as np
import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import (
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    check_distribution_compatibility,
    distribution_to_json,
    json_to_distribution,
)
from scipy import integrate, stats
from sklearn.datasets import load_digits
from sklearn.model_selection import ParameterSampler, RandomizedSearchCV

import xpnet
from xpnet.search import distributions
from xpnet.search.parameters import Parameter, parameters, settings_of, suggest
from xpnet.spaces import (
    Choice,
    Fixed,
    Integer,
    LogInteger,
    LogUniform,
    OneMinusLogUniform,
    Scale,
    Space,
    Uniform,
)

pytestmark = pytest.mark.host

BELOW_1 = math.nextafter(1, 0)
TABLES = Choice({"small": {"type": "dense"}, "large": [1, 2]})


@pytest.mark.parametrize(
    ("scale", "distribution"),
    [
        (Uniform(0, 1), FloatDistribution(0.0, 1.0)),
        (LogUniform(1e-4, 1), FloatDistribution(1e-4, 1.0, log=True)),
        (OneMinusLogUniform(0.5, 0.75), FloatDistribution(0.25, 0.5, log=True)),
        (OneMinusLogUniform(0, 0.5), FloatDistribution(0.5, 1.0, log=True)),
        (Integer(-1, 3), IntDistribution(-1, 3)),
        (LogInteger(1, 64), IntDistribution(1, 64, log=True)),
        (Choice(["a", 1, False, 0.5]), CategoricalDistribution(("a", 1, False, 0.5))),
        (TABLES, CategoricalDistribution(("small", "large"))),
        (Fixed(3), CategoricalDistribution((3,))),
        (Fixed({"b": 1, "a": [2]}), CategoricalDistribution(('{"a": [2], "b": 1}',))),
        (Fixed([{"type": "dense"}]), CategoricalDistribution(('[{"type": "dense"}]',))),
    ],
)
def test_what_optuna_has(scale, distribution):
    parameter = Parameter("optimizer.beta1", scale)
    assert parameter.distribution == distribution
    is_reversed = isinstance(scale, OneMinusLogUniform)
    assert parameter.label == ("1 - optimizer.beta1" if is_reversed else "optimizer.beta1")
    assert json_to_distribution(distribution_to_json(parameter.distribution)) == distribution
    for setting in scale.extremes():
        said = parameter.to_optuna(setting)
        assert distribution._contains(distribution.to_internal_repr(said))
        assert parameter.from_optuna(said) == setting


def test_what_optuna_does_not_have():
    nothing: Any = object()
    with pytest.raises(ValueError, match=r"scale must be a class of xpnet\.spaces, got <object"):
        Parameter("x", nothing)


BOUNDS = st.lists(st.floats(0, BELOW_1), min_size=2, max_size=2, unique=True).map(sorted)


@given(BOUNDS, st.floats(0, 1))
def test_one_minus_goes_back_and_forth(bounds, u):
    scale = OneMinusLogUniform(*bounds)
    parameter = Parameter("x", scale)
    setting = scale.at(u)
    said = parameter.to_optuna(setting)
    d: Any = parameter.distribution
    assert 0 < d.low <= said <= d.high <= 1
    again = parameter.from_optuna(said)
    assert scale.contains(again)
    assert again == pytest.approx(setting, rel=0, abs=2**-53)
    # What a study says is what it says again, once it has been rounded.
    assert parameter.to_optuna(again) == pytest.approx(said, rel=0, abs=2**-53)
    for end in (d.low, d.high):
        assert scale.contains(parameter.from_optuna(end))


@given(st.floats(1e-300, 1e300), st.floats(1e-300, 1e300), st.floats(0, 1))
def test_other_ranges_are_said_as_they_are(one, other, u):
    low, high = sorted((one, other))
    if low < high:
        for scale in (Uniform(low, high), LogUniform(low, high)):
            setting = scale.at(u)
            parameter = Parameter("x", scale)
            assert parameter.from_optuna(parameter.to_optuna(setting)) == setting
            assert parameter.distribution._contains(setting)


SPACE = Space(
    {
        "optimizer": Choice({"adam": {"type": "adam"}, "momentum": {"type": "momentum"}}),
        "rate": LogUniform(1e-4, 1),
        "beta1": OneMinusLogUniform(0.5, 0.99).when({"optimizer": "adam"}),
        "layers": Integer(1, 3),
        "units": LogInteger(4, 64).when({"layers": [2, 3]}),
        "shuffle": Choice([True, False]),
        "table": Fixed([{"type": "dense"}]),
        "dropout": Uniform(0, 0.5),
    }
)


def quiet_study(**options):
    return optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0), **options)


def test_a_study_chooses():
    study = quiet_study()
    assert list(parameters(SPACE)) == list(SPACE)
    counts: collections.Counter[str] = collections.Counter()
    for _ in range(200):
        trial = study.ask()
        settings = suggest(SPACE, trial)
        assert SPACE.contains(settings)
        assert settings_of(SPACE, trial.params) == settings
        assert set(trial.params) == {parameters(SPACE)[name].label for name in settings}
        # In another order than the space's, as a storage may give them.
        assert settings_of(SPACE, dict(reversed(trial.params.items()))) == settings
        counts.update(list(settings))
        study.tell(trial, 0.0)
    assert 70 < counts["beta1"] < 130
    assert 100 < counts["units"] < 170


def test_what_a_trial_has_stays():
    study = quiet_study()
    point = {
        "optimizer": "adam",
        "rate": 0.01,
        "beta1": 0.9,
        "layers": 2,
        "units": 5,
        "shuffle": False,
        "table": [{"type": "dense"}],
        "dropout": 0.25,
    }
    assert SPACE.contains(point)
    said = {parameters(SPACE)[name].label: value for name, value in point.items()}
    said |= {"1 - beta1": 1 - 0.9, "table": parameters(SPACE)["table"].to_optuna(point["table"])}
    said.pop("beta1", None)
    study.enqueue_trial(said)
    trial = study.ask()
    found = suggest(SPACE, trial)
    assert found == point
    assert suggest(SPACE, trial) == found
    study.enqueue_trial({"rate": 0.5})
    found = suggest(SPACE, study.ask())
    assert found["rate"] == 0.5


def test_points_can_be_added_as_trials():
    """Each is what its distribution has, as Optuna itself checks it."""
    study = quiet_study()
    rng = np.random.default_rng(0)
    for u in rng.random((50, len(SPACE))).tolist():
        settings = SPACE.at(u)
        own = {name: parameters(SPACE)[name] for name in settings}
        trial = optuna.trial.create_trial(
            params={p.label: p.to_optuna(settings[name]) for name, p in own.items()},
            distributions={p.label: p.distribution for p in own.values()},
            value=0.0,
        )
        study.add_trial(trial)
        found = settings_of(SPACE, study.trials[-1].params)
        assert list(found) == list(settings)
        for name, setting in settings.items():
            is_number = isinstance(SPACE[name], OneMinusLogUniform)
            assert found[name] == (pytest.approx(setting, rel=1e-15) if is_number else setting)
    for parameter in parameters(SPACE).values():
        check_distribution_compatibility(
            parameter.distribution, Parameter(parameter.name, parameter.scale).distribution
        )


@pytest.mark.parametrize("low", [0, 0.5, 0.9])
@pytest.mark.parametrize("high", [0.95, 0.9999, 1 - 1e-9])
def test_one_minus_of_scipys(low, high):
    found = frozen(OneMinusLogUniform(low, high))
    assert found.support() == (low, high)
    assert found.cdf([low - 0.1, low, high, 1.5]).tolist() == [0, 0, 1, 1]
    assert found.ppf([0, 1]) == pytest.approx([low, high], rel=1e-14)
    for q in (0.1, 0.5, 0.9):
        x = found.ppf(q)
        assert found.cdf(x) == pytest.approx(q, abs=1e-6)
        # In t = log(1 - x) the density is smooth.
        area = integrate.quad(
            lambda t: found.pdf(-np.expm1(t)) * np.exp(t), np.log1p(-x), np.log1p(-low)
        )
        assert area[0] == pytest.approx(q, rel=1e-6)
        assert x == pytest.approx(OneMinusLogUniform(low, high).at(q), rel=1e-12)
    width = math.log1p(-low) - math.log1p(-high)
    mean = 1 - (high - low) / width
    square = 1 - 2 * (high - low) / width + ((1 - low) ** 2 - (1 - high) ** 2) / (2 * width)
    assert found.mean() == pytest.approx(mean, rel=1e-6)
    assert found.var() == pytest.approx(square - mean**2, rel=1e-3)
    assert found.median() == pytest.approx(1 - math.sqrt((1 - low) * (1 - high)), rel=1e-12)


def frozen(scale: Scale) -> Any:
    return distributions.scipy_distributions(Space({"x": scale}))["x"]


@pytest.mark.parametrize(("low", "high"), [(1, 2), (1, 300), (16, 17), (8, 4096), (1, 50_000)])
def test_log_integers_of_scipys(low, high):
    found, k = frozen(LogInteger(low, high)), np.arange(low, high + 1)
    p = np.log((k + 0.5) / (k - 0.5)) / math.log((high + 0.5) / (low - 0.5))
    np.testing.assert_allclose(found.pmf(k), p, rtol=1e-9)
    assert found.pmf(k).sum() == pytest.approx(1, rel=1e-12)
    np.testing.assert_allclose(found.cdf(k), p.cumsum(), rtol=1e-9)
    assert found.pmf([low - 1, high + 1]).tolist() == [0, 0]
    assert found.cdf([low - 1, low - 0.5, high, high + 7]).tolist() == [0, 0, 1, 1]
    assert found.cdf(k[:-1] + 0.5) == pytest.approx(found.cdf(k[:-1]))
    np.testing.assert_array_equal(found.ppf(found.cdf(k)), k)
    # The least k with cdf(k) >= q.
    q = np.random.default_rng(0).random(1000)
    at = found.ppf(q)
    assert (found.cdf(at) >= q).all()
    assert (found.cdf(at - 1) < q).all()
    np.testing.assert_array_equal(at, [LogInteger(low, high).at(u) for u in q.tolist()])
    assert found.support() == (low, high)
    assert found.mean() == pytest.approx((p * k).sum(), rel=1e-9)
    assert found.var() == pytest.approx((p * (k - (p * k).sum()) ** 2).sum(), rel=1e-6)
    assert found.median() == found.ppf(0.5)


def test_many_log_integers():
    """SciPy's own sums would give up long before."""
    found = frozen(LogInteger(10, 10**9))
    width = math.log((10**9 + 0.5) / 9.5)
    assert found.mean() == pytest.approx((10**9 - 9) / width, rel=1e-6)
    assert found.std() == pytest.approx(10**9 * math.sqrt(0.5 / width - width**-2), rel=1e-6)
    k = np.array([10, 1000, 10**6, 10**9])
    np.testing.assert_array_equal(found.ppf(found.cdf(k)), k)


@pytest.mark.parametrize(
    "scale",
    [
        *(Uniform(-1, 3), LogUniform(1e-300, 1e300), OneMinusLogUniform(0, 0.999)),
        *(OneMinusLogUniform(0, BELOW_1), Integer(-3, 5), LogInteger(1, 512)),
    ],
    ids=repr,
)
def test_frozen_distributions(scale):
    found = frozen(scale)
    for same in (pickle.loads(pickle.dumps(found)), copy.deepcopy(found), frozen(scale)):
        assert same.rvs(size=5, random_state=1).tolist() == (
            found.rvs(size=5, random_state=1).tolist()
        )
        assert same.median() == found.median()
    assert found.median() == pytest.approx(scale.at(0.5), rel=1e-12)
    if scale != LogUniform(1e-300, 1e300):
        assert math.isfinite(found.mean())
    one = found.rvs(random_state=np.random.RandomState(0))
    assert scale.contains(int(one) if isinstance(one, np.integer) else one)
    assert isinstance(one, (int, np.integer) if getattr(scale, "whole", False) else float)
    shape = found.rvs(size=(2, 3), random_state=0).shape
    assert shape == (2, 3)


@pytest.mark.parametrize(
    ("make", "bounds"),
    [
        (distributions._one_minus_log_uniform, (0.5, 1.0)),
        (distributions._one_minus_log_uniform, (-0.1, 0.5)),
        (distributions._one_minus_log_uniform, (0.5, 0.5)),
        (distributions._log_integer, (0, 5)),
        (distributions._log_integer, (5, 5)),
    ],
)
def test_bounds_that_a_distribution_does_not_have(make, bounds):
    with pytest.raises(ValueError, match="Domain error"):
        make(*bounds).rvs()
    assert math.isnan(make(*bounds).cdf(0.5))


def test_choices_are_lists_of_values():
    found = distributions.scipy_distributions(
        Space({"a": Choice(["x", True]), "b": TABLES, "c": Fixed([1])})
    )
    assert found == {"a": ["x", True], "b": [{"type": "dense"}, [1, 2]], "c": [[1]]}


CONDITIONAL = Space(
    {
        "solver": Choice(["adam", "sgd", "lbfgs"]),
        "rate": LogUniform(1e-4, 1).when({"solver": ["adam", "sgd"]}),
        "nesterov": Choice([True, False]).when({"solver": "sgd"}),
        "momentum": OneMinusLogUniform(0.5, 0.99).when({"nesterov": True}),
        "depth": Integer(1, 3),
        "width": LogInteger(1, 64).when({"depth": 3}),
        "act": Choice({"r": "relu", "t": "tanh"}),
    }
)


def test_conditions_become_a_list():
    listed = distributions.scipy_distributions(CONDITIONAL)
    assert isinstance(listed, list)
    assert len(listed) == 3 * 2 * 3
    for found in listed:
        assert all(len(found[name]) == 1 for name in ("solver", "depth"))
        settings = {
            name: values[0] if name in ("solver", "nesterov", "depth") else CONDITIONAL[name].at(0)
            for name, values in found.items()
        }
        assert CONDITIONAL.contains(settings)
        assert found["act"] == ["relu", "tanh"]


def test_scikit_learn_draws_as_often_as_a_study():
    n = 3000
    listed = distributions.scipy_distributions(CONDITIONAL)
    points = list(ParameterSampler(listed, n, random_state=0))
    solvers = collections.Counter(point["solver"] for point in points)
    assert stats.chisquare([solvers[name] for name in ("adam", "sgd", "lbfgs")]).pvalue > 1e-3
    depths = collections.Counter(point["depth"] for point in points)
    assert stats.chisquare([depths[k] for k in (1, 2, 3)]).pvalue > 1e-3
    nested = [point for point in points if point["solver"] == "sgd"]
    with_it = sum("momentum" in point for point in nested)
    assert stats.binomtest(with_it, len(nested)).pvalue > 1e-3
    assert all("rate" in point for point in points if point["solver"] != "lbfgs")
    for point in points:
        settings = {**point, "act": {"relu": "r", "tanh": "t"}[point["act"]]}
        ordered = {name: settings[name] for name in CONDITIONAL if name in settings}
        assert CONDITIONAL.contains(ordered)
    rates = np.array([point["rate"] for point in points if "rate" in point])
    assert stats.kstest(np.log10(rates) / 4 + 1, "uniform").pvalue > 1e-3
    momenta = np.array([point["momentum"] for point in points if "momentum" in point])
    scaled = np.log((1 - momenta) / 0.5) / np.log(0.01 / 0.5)
    assert stats.kstest(scaled, "uniform").pvalue > 1e-3


DIGITS = Space(
    {
        "learning_rate_init": LogUniform(1e-3, 1e-1),
        "alpha": LogUniform(1e-6, 1e-2),
        "beta_1": OneMinusLogUniform(0.8, 0.99),
        "batch_size": LogInteger(32, 256),
        "hidden_layer_sizes": Choice({"one": [32], "two": [32, 16], "wide": [64, 32]}),
        "activation": Choice(["relu", "tanh"]),
        "max_iter": Fixed(8),
    }
)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_a_search_of_scikit_learns():
    X, y = load_digits(return_X_y=True)
    X, y = X[:600] / 16, y[:600]
    search = RandomizedSearchCV(
        xpnet.MLPClassifier(random_state=0),
        distributions.scipy_distributions(DIGITS),
        n_iter=6,
        cv=2,
        random_state=0,
    )
    search.fit(X, y)
    assert search.best_score_ > 0.8
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    sizes_by_name = DIGITS.to_tables()["hidden_layer_sizes"]["choice"]
    names = {str(sizes): name for name, sizes in sizes_by_name.items()}
    for point in search.cv_results_["params"]:
        sizes = names[str(point["hidden_layer_sizes"])]
        settings = {name: {**point, "hidden_layer_sizes": sizes}[name] for name in DIGITS}
        assert DIGITS.contains(settings)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_a_search_of_scikit_learns_with_conditions():
    X, y = load_digits(return_X_y=True)
    X, y = X[:300] / 16, y[:300]
    space = Space(
        {
            "solver": Choice(["adam", "sgd"]),
            "beta_1": OneMinusLogUniform(0.8, 0.99).when({"solver": "adam"}),
            "momentum": OneMinusLogUniform(0.8, 0.99).when({"solver": "sgd"}),
            "learning_rate_init": LogUniform(1e-3, 1e-1),
        }
    )
    search = RandomizedSearchCV(
        xpnet.MLPClassifier(max_iter=2, random_state=0),
        distributions.scipy_distributions(space.renamed({})),
        n_iter=6,
        cv=2,
        random_state=1,
    )
    search.fit(X, y)
    points = search.cv_results_["params"]
    assert {point["solver"] for point in points} == {"adam", "sgd"}
    assert all(("beta_1" in point) == (point["solver"] == "adam") for point in points)
