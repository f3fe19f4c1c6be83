"""Draws are as their scales say: on the scale they are uniform, and draws on another are not."""

from __future__ import annotations

import collections
import functools
import itertools
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import optuna
import pytest
from scipy import stats
from scipy.stats import qmc

from xpnet.search.distributions import scipy_distributions
from xpnet.search.parameters import parameters
from xpnet.search.sampling import design, grid_of, make_pruner, make_sampler
from xpnet.spaces import (
    Choice,
    Fixed,
    Integer,
    LogInteger,
    LogUniform,
    OneMinusLogUniform,
    Space,
    Uniform,
)

pytestmark = pytest.mark.host

SPACE = Space(
    {
        "uniform": Uniform(-0.5, 0.25),
        "log_uniform": LogUniform(1e-5, 0.1),
        "one_minus": OneMinusLogUniform(0.5, 0.9999),
        "from_zero": OneMinusLogUniform(0, 0.999),
        "integer": Integer(-3, 4),
        "log_integer": LogInteger(1, 300),
        "choice": Choice(["a", True, 3, 0.5]),
        "named": Choice({"small": [16], "large": [64, 64], "none": []}),
        "fixed": Fixed(7),
    }
)
DRAWN = [name for name in SPACE if name != "fixed"]
LEAST = 1e-3  # p-value; the seeds are fixed


def flattened(name, values, seed=0):
    """Map draws to where they are uniform in [0, 1] if they are what they are said to be."""
    scale: Any = SPACE[name]
    if isinstance(scale, Choice):
        k = np.array([scale.settings.index(value) for value in values])
        low, high = k / len(scale.settings), (k + 1) / len(scale.settings)
    else:
        x = np.asarray(values)
        ends = {"low": scale.low, "high": scale.high}
        formulas: dict[type, Callable[..., Any]] = {
            Uniform: lambda x, low, high: (x - low) / (high - low),
            LogUniform: lambda x, low, high: np.log(x / low) / np.log(high / low),
            OneMinusLogUniform: lambda x, low, high: (
                np.log((1 - x) / (1 - low)) / np.log((1 - high) / (1 - low))
            ),
            Integer: lambda x, low, high: (x - low + 0.5) / (high - low + 1),
            LogInteger: lambda x, low, high: (
                np.log(x / (low - 0.5)) / np.log((high + 0.5) / (low - 0.5))
            ),
        }
        half = 0.5 if scale.whole else 0.0
        formula = functools.partial(formulas[type(scale)], **ends)
        low, high = formula(x - half), formula(x + half)
    # What is discrete is spread over the part of [0, 1] whose length is its probability.
    return low + np.random.default_rng(seed).random(len(values)) * (high - low)


def p_value(name, values):
    return stats.kstest(flattened(name, values), "uniform").pvalue


@functools.cache
def drawn(how):
    """Draw points, by columns."""
    columns: dict[str, list[Any]] = {name: [] for name in SPACE}
    points: Iterable[dict[str, Any]]
    if how == "at":
        points = map(SPACE.at, np.random.default_rng(1).random((100_000, len(SPACE))).tolist())
    else:
        points = (design("random", SPACE, 5, number) or {} for number in range(20_000))
    for point in points:
        for name, setting in point.items():
            columns[name].append(setting)
    return columns


@pytest.mark.parametrize("how", ["at", "design"])
@pytest.mark.parametrize("name", DRAWN)
def test_points_are_as_their_scale_says(name, how):
    assert p_value(name, drawn(how)[name]) > LEAST
    assert set(drawn(how)["fixed"]) == {7}


@pytest.mark.parametrize("name", ["integer", "log_integer", "choice", "named"])
def test_what_is_discrete_is_drawn_as_often_as_it_is_said_to_be(name):
    counts = collections.Counter(drawn("at")[name])
    scale: Any = SPACE[name]
    if isinstance(scale, Choice):
        values, p = list(scale.settings), np.full(len(scale.settings), 1 / len(scale.settings))
    else:
        k = np.arange(scale.low, scale.high + 1)
        p = np.ones(len(k)) if name == "integer" else np.log((k + 0.5) / (k - 0.5))
        values, p = k.tolist(), p / p.sum()
    assert set(counts) <= set(values)
    assert stats.chisquare([counts[value] for value in values], 100_000 * p).pvalue > LEAST


@pytest.mark.parametrize("name", DRAWN)
def test_so_are_scipys(name):
    found = scipy_distributions(SPACE)[name]
    if isinstance(SPACE[name], Choice):
        assert found == [SPACE[name].value(setting) for setting in SPACE[name].extremes()]
        return
    values = found.rvs(size=100_000, random_state=2)
    assert p_value(name, values) > LEAST
    low, high = SPACE[name].extremes()
    assert low <= values.min() < values.max() <= high


@pytest.mark.parametrize("name", DRAWN)
def test_so_are_optunas(name):
    parameter, sampler = parameters(SPACE)[name], optuna.samplers.RandomSampler(seed=3)
    draw: Any = sampler.sample_independent  # 50 microseconds: hence fewer than of the others
    label, distribution = parameter.label, parameter.distribution
    values = [parameter.from_optuna(draw(None, None, label, distribution)) for _ in range(10_000)]
    assert all(map(SPACE[name].contains, values))
    assert p_value(name, values) > LEAST


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("uniform", LogUniform(1, 2)),
        ("log_uniform", Uniform(1e-5, 0.1)),
        ("log_uniform", LogUniform(1.2e-5, 0.1)),
        ("one_minus", Uniform(0.5, 0.9999)),
        ("one_minus", LogUniform(0.5, 0.9999)),
        ("from_zero", Uniform(0, 0.999)),
        ("integer", LogInteger(1, 8)),
        ("log_integer", Integer(1, 300)),
        ("log_integer", LogInteger(1, 360)),
    ],
)
def test_draws_on_another_scale_are_told(name, wrong):
    values = [wrong.at(u) for u in np.random.default_rng(4).random(100_000).tolist()]
    if name == "uniform":
        values = [value * 0.75 - 1.25 for value in values]
    if name == "integer":
        values = [value - 4 for value in values]
    assert p_value(name, values) < 1e-6


def test_integers_of_a_rounded_logarithm_from_low_are_told():
    """Without half a unit at either end the bounds come half as often."""
    u = np.random.default_rng(4).random(100_000)
    assert p_value("log_integer", np.round(np.exp(u * np.log(300))).astype(int)) < 1e-6
    assert p_value("integer", np.round(-3 + 7 * u).astype(int)) < 1e-6


def test_parameters_are_independent():
    columns = [flattened(name, drawn("at")[name], seed) for seed, name in enumerate(DRAWN)]
    correlations = stats.spearmanr(np.array(columns), axis=1).statistic
    assert abs(correlations - np.eye(len(DRAWN))).max() < 4.5 / np.sqrt(100_000)
    # Not in ranks alone: pairs fall into the cells of a chess-board as often.
    for one, other in itertools.combinations(columns, 2):
        board = np.histogram2d(one, other, bins=8, range=((0, 1), (0, 1)))[0]
        assert stats.chi2_contingency(board).pvalue > LEAST / 28


def test_trials_are_independent():
    columns = [flattened(name, drawn("design")[name], seed) for seed, name in enumerate(DRAWN)]
    bound = 4.5 / np.sqrt(20_000)
    ranks = stats.rankdata(columns, axis=1)
    for lag in (1, 2, 16):
        both = np.corrcoef(ranks[:, lag:], ranks[:, :-lag])
        assert abs(both[: len(ranks), len(ranks) :]).max() < bound
    correlations = np.corrcoef(ranks)
    assert abs(correlations - np.eye(len(DRAWN))).max() < bound


def test_so_are_seeds():
    space = Space({"x": Uniform(0, 1)})
    found = [(design("random", space, seed, 0) or {})["x"] for seed in range(5000)]
    assert stats.kstest(found, "uniform").pvalue > LEAST
    assert abs(stats.spearmanr(found[1:], found[:-1]).statistic) < 4.5 / np.sqrt(5000)
    # Trial 1 of study 0 is not trial 0 of study 1.
    firsts = {(design("random", space, a, b) or {})["x"] for a in range(30) for b in range(30)}
    assert len(firsts) == 900


@pytest.mark.parametrize("name", ["random", "quasi-random", "grid"])
def test_a_point_follows_from_seed_and_number_alone(name):
    space = Space({key: SPACE[key] for key in ("log_uniform", "one_minus", "choice", "integer")})
    numbers = [0, 1, 5, 17, 40]
    points = [design(name, space, 11, number) for number in numbers]
    again = [design(name, space, 11, number) for number in reversed(numbers)]
    assert points == again[::-1]
    assert points != [design(name, space, 12, number) for number in numbers]
    for point in points:
        assert point is not None
        assert space.contains(point)


def test_quasi_random_points_are_sobols_in_sequence():
    n = 64
    expected = qmc.Sobol(len(SPACE), scramble=True, rng=np.random.default_rng(9)).random(n)
    assert [design("quasi-random", SPACE, 9, k) for k in range(n)] == [
        SPACE.at(u) for u in expected.tolist()
    ]


def test_quasi_random_points_are_more_even():
    space = Space({name: Uniform(0, 1) for name in "abcd"})

    def discrepancy(name, seed):
        points = [design(name, space, seed, number) or {} for number in range(128)]
        return qmc.discrepancy([[point[key] for key in "abcd"] for point in points])

    quasi = [discrepancy("quasi-random", seed) for seed in range(5)]
    random = [discrepancy("random", seed) for seed in range(5)]
    assert 3 * max(quasi) < min(random)


def test_a_grid_has_every_point_once():
    space = Space(
        {
            "kind": Choice(["a", "b", "c"]),
            "x": LogUniform(1e-4, 1, points=4).when({"kind": ["a", "b"]}),
            "k": Integer(1, 2).when({"kind": "a"}),
            "f": Fixed("z"),
        }
    )
    n = 4 * 2 + 4 + 1
    points = [design("grid", space, 1, number) or {} for number in range(n)]
    assert len({tuple(point.items()) for point in points}) == n
    assert all(map(space.contains, points))
    listed = space.grid()
    assert sorted(points, key=repr) == sorted(listed, key=repr)
    assert points == grid_of(space, 1)
    assert points != grid_of(space, 2)
    assert points != listed
    with pytest.raises(IndexError):
        design("grid", space, 1, n)


def test_the_first_half_of_a_grid_is_no_corner():
    space = Space({"x": Uniform(0, 1, points=20), "y": Uniform(0, 1, points=20)})
    half = grid_of(space, 0)[:200]
    assert len({point["x"] for point in half}) == len({point["y"] for point in half}) == 20


@pytest.mark.parametrize("name", ["random", "quasi-random"])
def test_what_does_not_always_exist(name):
    space = Space(
        {
            "kind": Choice(["a", "b"]),
            "size": Integer(1, 3).when({"kind": "a"}),
            "rate": Uniform(0, 1).when({"size": [2, 3]}),
        }
    )
    points = [design(name, space, 0, number) or {} for number in range(1024)]
    assert all(map(space.contains, points))
    kinds = collections.Counter(point["kind"] for point in points)
    sizes = collections.Counter(point.get("size") for point in points)
    assert set(kinds) == {"a", "b"}
    assert sizes[None] == kinds["b"]
    assert stats.chisquare([kinds["a"], kinds["b"]]).pvalue > LEAST
    assert stats.chisquare([sizes[1], sizes[2], sizes[3]]).pvalue > LEAST
    rates = [point["rate"] for point in points if "rate" in point]
    assert len(rates) == sizes[2] + sizes[3]
    assert stats.kstest(rates, "uniform").pvalue > LEAST


def test_a_condition_moves_no_other_hyper_parameter():
    """What stands behind one that does not exist has its own fraction nevertheless."""
    plain = Space({"kind": Choice(["a", "b"]), "x": Uniform(0, 1), "y": Uniform(0, 1)})
    bound = Space({**plain, "x": Uniform(0, 1).when({"kind": "a"})})
    for name, number in itertools.product(("random", "quasi-random"), range(20)):
        one, other = design(name, plain, 0, number) or {}, design(name, bound, 0, number) or {}
        assert (one["kind"], one["y"]) == (other["kind"], other["y"])


def test_tpe_is_optunas():
    assert design("tpe", SPACE, 0, 0) is None
    one, other, again = (make_sampler(0, 1), make_sampler(0, 2), make_sampler(0, 1))
    parameter = parameters(SPACE)["log_uniform"]
    study = optuna.create_study()
    trial = study._storage.get_trial(study._storage.create_new_trial(study._study_id))
    found = [
        sampler.sample_independent(study, trial, parameter.label, parameter.distribution)
        for sampler in (one, other, again)
    ]
    assert found[0] == found[2] != found[1]


@pytest.mark.parametrize("epochs", [1, 2, 9, 200])
def test_pruners_can_be_made_for_any_number_of_epochs(epochs):
    kinds = {
        "none": optuna.pruners.NopPruner,
        "median": optuna.pruners.MedianPruner,
        "halving": optuna.pruners.SuccessiveHalvingPruner,
        "hyperband": optuna.pruners.HyperbandPruner,
    }
    for name, kind in kinds.items():
        assert type(make_pruner(name, epochs)) is kind
