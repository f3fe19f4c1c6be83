"""What a study has found, in numbers."""

from __future__ import annotations

import itertools
import json
import math

import numpy as np
import optuna
import pytest
from optuna.storages import InMemoryStorage
from optuna.trial import TrialState

from tests.search.studies import RECIPE, add, fill, recipe
from xpnet.search.results import (
    best_of,
    best_so_far,
    comparable_values,
    importances,
    matches_at,
    summary,
)
from xpnet.search.study import open_study

pytestmark = [pytest.mark.host, pytest.mark.needs("optuna", "scipy", "sklearn")]

RATE, BETA, UNITS = "optimizer.learning_rate", "optimizer.beta1", "network.layers.0.units"
POINT = {RATE: 0.01, BETA: 0.95, UNITS: 8}


def study(table=None, **settings):
    text = RECIPE if table is None else RECIPE.partition("[search]")[0] + "[search]\n" + table
    return open_study(InMemoryStorage(), "study", recipe(text=text), **settings)


def of_all_tuples(values, n, *, is_maximised):
    best = max if is_maximised else min
    return sorted(
        (best(chosen) for chosen in itertools.product(values, repeat=n)), reverse=not is_maximised
    )


@pytest.mark.parametrize("is_maximised", [True, False])
@pytest.mark.parametrize("n", [1, 2, 3, 5])
@pytest.mark.parametrize("values", [[0.3], [0.5, 0.1], [0.2, 0.9, 0.2, 0.4], [1, 1, 1]])
def test_the_best_of_n_is_that_of_all_tuples(values, n, is_maximised):
    every = of_all_tuples(values, n, is_maximised=is_maximised)
    quantiles = [0.0, 0.13, 0.37, 0.61, 0.87, 1.0]  # none of them k/N to the power n
    mean, found = best_of(values, n, is_maximised=is_maximised, quantiles=quantiles)
    assert mean == pytest.approx(np.mean(every), rel=1e-12)
    for q, quantile in zip(quantiles, found, strict=True):
        assert quantile == every[max(math.ceil(q * len(every)) - 1, 0)]


def test_quantiles_begin_with_the_worst_and_end_with_the_best():
    values = [0.25, 0.75, 0.5]
    for is_maximised, expected in ((True, [0.25, 0.75]), (False, [0.75, 0.25])):
        assert best_of(values, 2, is_maximised=is_maximised, quantiles=(0, 1))[1] == expected
    assert best_of(values, 2, is_maximised=True)[1] == []


@pytest.mark.parametrize("is_maximised", [True, False])
def test_the_best_of_n_is_what_a_bootstrap_comes_to(is_maximised):
    rng = np.random.default_rng(0)
    values = rng.random(40)
    drawn = rng.choice(values, (200_000, 7))
    best = drawn.max(1) if is_maximised else drawn.min(1)
    quantiles = [0.1, 0.5, 0.9]
    mean, found = best_of(list(values), 7, is_maximised=is_maximised, quantiles=quantiles)
    assert mean == pytest.approx(best.mean(), abs=5 * best.std() / math.sqrt(len(best)))
    ordered = np.sort(best if is_maximised else -best)
    for q, quantile in zip(quantiles, found, strict=True):
        near = ordered[[int((q - 0.01) * len(best)), int((q + 0.01) * len(best))]]
        assert near[0] <= (quantile if is_maximised else -quantile) <= near[1]


def test_the_best_of_many_is_the_best_whatever_is_infinite():
    """A chance that is too small for a float is none, and not one of infinitely much."""
    values = [0.25, math.inf, 0.5] * 10
    assert best_of(values, 3, is_maximised=False, quantiles=[0.0, 1.0]) == (
        math.inf,
        [math.inf, 0.25],
    )
    assert best_of(values, 100_000, is_maximised=False)[0] == 0.25
    negative = [-value for value in values]
    assert best_of(negative, 1, is_maximised=True) == (-math.inf, [])
    assert best_of(negative, 100_000, is_maximised=True)[0] == -0.25
    assert best_of([math.inf] * 3, 2, is_maximised=False, quantiles=[0.5]) == (math.inf, [math.inf])


@pytest.mark.parametrize("is_maximised", [True, False])
def test_what_matches_is_the_first_that_is_no_worse(is_maximised):
    sign = 1 if is_maximised else -1
    values = [sign * value for value in (0.1, 0.5, 0.2, 0.9, 0.4)]
    means = [best_of(values, n, is_maximised=is_maximised)[0] for n in range(1, 6)]
    assert means == sorted(means, reverse=not is_maximised)
    for n, mean in enumerate(means, 1):
        assert matches_at(values, mean, is_maximised=is_maximised) == n
        more = mean + sign * 1e-9
        expected = n + 1 if n < 5 else None
        assert matches_at(values, more, is_maximised=is_maximised) == expected
    assert matches_at(values, -sign * 9, is_maximised=is_maximised) == 1
    assert matches_at([], 0.5, is_maximised=is_maximised) is None
    never = [*values, -sign * math.inf]
    assert matches_at(never, -sign * 9, is_maximised=is_maximised) is None


def test_the_best_so_far():
    values = [0.5, 0.25, 0.75, 0.75, 0.5]
    assert best_so_far(values, is_maximised=True) == [0.5, 0.5, 0.75, 0.75, 0.75]
    assert best_so_far(values, is_maximised=False) == [0.5, 0.25, 0.25, 0.25, 0.25]
    assert best_so_far([math.inf, 1.0], is_maximised=False) == [math.inf, 1.0]
    assert best_so_far([], is_maximised=True) == []


@pytest.mark.parametrize("deciding", [RATE, BETA, UNITS])
@pytest.mark.parametrize("objective", ["validation_accuracy", "validation_cost"])
def test_what_decides_all_comes_first_by_far(deciding, objective):
    found = study(objective=objective)
    scale = found.space[deciding]
    fill(found, 80, lambda point: scale.position(point[deciding]))
    shares = importances(found)
    assert list(shares) == sorted(shares, key=shares.__getitem__, reverse=True)
    assert set(shares) == {RATE, BETA, UNITS}
    assert sum(shares.values()) == pytest.approx(1)
    assert next(iter(shares)) == deciding
    assert shares[deciding] > 0.6


def test_importance_takes_trials_that_differ():
    found = study()
    fill(found, 7, lambda point: point[RATE])
    add(found, POINT, math.inf)
    add(found, POINT, -math.inf)
    add(found, {}, state=TrialState.FAIL)
    assert importances(found) == {}
    add(found, POINT, 0.5)
    assert set(importances(found)) == {RATE, BETA, UNITS}
    equal = study()
    fill(equal, 20, lambda point: 0.5)
    assert importances(equal) == {}
    add(equal, POINT, math.inf)
    assert importances(equal) == {}
    assert importances(study()) == {}
    nearly = study()
    fill(nearly, 30, lambda point: 0.5)
    add(nearly, POINT, 0.75)
    assert importances(nearly) == {}, "no tenth of them is the best"


def test_infinite_results_have_no_say_in_importance():
    found, finite = study(objective="validation_cost"), study(objective="validation_cost")
    for made in (found, finite):
        fill(made, 40, lambda point: abs(math.log(point[RATE])))
    fill(found, 10, lambda point: math.inf, seed=1)
    assert importances(found) == importances(finite)


def test_importance_is_of_what_varies_or_does_not_always_exist():
    table = """
    optimizer = { choice = { adam = { type = "adam" }, momentum = { type = "momentum" } } }
    "optimizer.beta" = { uniform = [0.5, 0.9], when = { optimizer = "momentum" } }
    training.epochs = { fixed = 1 }
    """
    found = study(table)
    fill(found, 200, lambda point: len(point) + point.get("optimizer.beta", 0.0))
    if optuna.__version__.startswith("4."):
        assert set(importances(found)) == {"optimizer"}
    else:
        assert next(iter(importances(found))) == "optimizer.beta", "it tells the best from the good"
        assert set(importances(found)) == {"optimizer", "optimizer.beta"}
    only = study("training.epochs = { fixed = 1 }\nseed = { fixed = 2 }")
    for value in range(20):
        add(only, {"training.epochs": 1, "seed": 2}, value)
    assert importances(only) == {}


def test_a_summary_is_json_whatever_became_of_the_trials():
    for objective, worst in (("validation_cost", math.inf), ("validation_accuracy", -math.inf)):
        found = study(objective=objective, seed=3, first=POINT, origin="recipe")
        add(found, POINT, 0.25, validation_accuracy=0.9, worker={"threads": 1, "device": "cpu"})
        add(found, POINT, worst, diverged="cost is nan", validation_cost=math.nan, x=[math.inf])
        add(found, POINT, state=TrialState.FAIL, reason="OSError: gone")
        add(found, POINT, state=TrialState.PRUNED, epochs=1)
        add(found, POINT, state=TrialState.RUNNING)
        add(found, {}, state=TrialState.WAITING)
        said = summary(found)
        assert json.loads(json.dumps(said, allow_nan=False)) == said
        assert said["best"] == 0
        assert said["objective"] == objective
        assert said["direction"] == ("minimise" if worst > 0 else "maximise")
        assert (said["study"], said["recipe"], said["seed"]) == ("study", "small", 3)
        assert said["refines"] is None
        assert said["importances"] == {}
        assert said["space"] == recipe().space.to_tables()
        rows = said["trials"]
        assert [row["number"] for row in rows] == list(range(6))
        assert [row["state"] for row in rows] == [
            *("complete", "complete", "fail", "pruned", "running", "waiting")
        ]
        assert [row["value"] for row in rows] == [0.25] + 5 * [None]
        assert [row.get("origin") for row in rows] == ["recipe"] + 5 * [None]
        assert rows[0]["settings"] == pytest.approx(POINT)
        assert rows[0]["worker"] == {"threads": 1, "device": "cpu"}
        assert rows[1]["diverged"] == "cost is nan"
        assert rows[1]["validation_cost"] is None
        assert rows[1]["x"] == [None]
        assert rows[2]["reason"] == "OSError: gone"
        assert rows[5]["settings"] == {}


def test_a_summary_of_nothing():
    said = summary(study(refines="another"))
    assert said["best"] is None
    assert said["trials"] == []
    assert said["refines"] == "another"
    json.dumps(said, allow_nan=False)


def test_only_studies_with_the_same_objective_and_data_are_compared():
    storage = InMemoryStorage()
    found = open_study(storage, "study", recipe(), first=POINT, origin="recipe")
    add(found, POINT, 0.25)
    fill(found, 10, lambda point: point[RATE])
    alike = open_study(storage, "alike", recipe(), sampler="quasi-random")
    add(alike, POINT, 0.5)
    add(open_study(storage, "costs", recipe(), objective="validation_cost"), POINT, 0.5)
    elsewhere = open_study(storage, "elsewhere", recipe())
    add(elsewhere, POINT, 0.5)
    elsewhere.optuna.set_user_attr("data", "others")
    # One that cannot be read is left out.
    unknown = open_study(storage, "unknown", recipe())
    own = unknown.optuna.user_attrs["xpnet"]
    unknown.optuna.set_user_attr("xpnet", {**own, "values": {**own["values"], "loss": "of mine"}})
    values = comparable_values(found)
    assert list(values) == ["study", "alike"]
    assert values["alike"] == [0.5]
    sampled = [trial.value for trial in found.trials()[1:]]
    assert values["study"] == sampled, "the recipe's own settings were not drawn"
    assert len(sampled) == 10
