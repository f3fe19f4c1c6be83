"""From coarse to fine: what becomes of each scale, on trials whose best is known."""

from __future__ import annotations

import itertools
import math
import re

import numpy as np
import pytest
from optuna.storages import InMemoryStorage

from tests.conftest import slow
from tests.search.studies import RECIPE, add, fill, recipe
from xpnet.recipe import parse_recipe
from xpnet.search.refinement import refine
from xpnet.search.study import SearchError, open_study
from xpnet.spaces import Choice, Fixed, Range

pytestmark = [pytest.mark.host, pytest.mark.needs("optuna", "scipy", "sklearn", "tomli_w")]

RATE, BETA, UNITS = "optimizer.learning_rate", "optimizer.beta1", "network.layers.0.units"


def study(table=None, **settings):
    text = RECIPE if table is None else RECIPE.partition("[search]")[0] + "[search]\n" + table
    return open_study(InMemoryStorage(), "study", recipe(text=text), **settings)


def refined(found):
    """Refine, and check what holds of every refinement; give the narrowings by name."""
    made, best, narrowings = refine(found)
    assert [narrowing.name for narrowing in narrowings] == list(found.space)
    assert list(made.space) == [n.name for n in narrowings if n.after is not None]
    assert made.space.contains(best), (best, made.space)
    assert made.changed({}) == found.recipe.changed({})
    assert parse_recipe(made.name, made.to_toml()) == made
    made.changed(made.space.resolve(best))
    top = found.settings_of(found.ranked()[0])
    assert found.recipe.changed(found.space.resolve(top)) == made.changed(made.space.resolve(best))
    assert list(best) == [name for name in top if name in best]
    for narrowing in narrowings:
        before, after = narrowing.before, narrowing.after
        assert before == found.space[narrowing.name]
        assert narrowing.why
        if isinstance(before, Range) and isinstance(after, Range):
            assert before.low <= after.low < after.high <= before.high
            assert type(after) is type(before)
            assert after.points == before.points
        if isinstance(before, Choice) and isinstance(after, Choice):
            assert set(after.settings) <= set(before.settings)
        if after is not None:
            assert made.space[narrowing.name].to_table() == after.to_table()
    rng = np.random.default_rng(0)
    for _ in range(8):  # wherever a trial may be, there is a recipe
        point = made.space.at(rng.random(len(made.space)).tolist())
        made.changed(made.space.resolve(point))
    again = open_study(
        InMemoryStorage(), "again", made, first=best, origin="study", refines="study"
    )
    assert again.first == best
    return {narrowing.name: narrowing for narrowing in narrowings}, best


def width(scale, of):
    return of.position(scale.high) - of.position(scale.low)


@pytest.mark.parametrize("objective", ["validation_accuracy", "validation_cost"])
@pytest.mark.parametrize(("what", "at"), [(RATE, 0.02), (BETA, 0.9), (UNITS, 20)])
def test_what_matters_becomes_narrow_around_the_optimum(what, at, objective):
    found = study(objective=objective)
    scale, sign = found.space[what], 1 if objective == "validation_cost" else -1
    where = scale.position(at)
    fill(found, 100, lambda point: sign * abs(scale.position(point[what]) - where))
    narrowings, best = refined(found)
    for name, narrowing in narrowings.items():
        if name == what:
            assert width(narrowing.after, scale) < 0.4
            assert narrowing.after.contains(at)
            assert "unchanged" not in narrowing.why
            assert "wider range" not in narrowing.why
        else:
            assert width(narrowing.after, narrowing.before) > 0.75
    assert best == pytest.approx(found.settings_of(found.ranked()[0]))


def test_what_does_not_matter_is_as_wide_as_it_was():
    found = study()
    grid = [i / 19 for i in range(20)]
    for u in grid:
        add(found, found.space.at([u, u, u]), 0.5)
    for narrowing in refined(found)[0].values():  # of equals the first are the best
        assert narrowing.after.low == narrowing.before.low
        assert narrowing.after.high < narrowing.before.high
    even = study()
    for i, u in enumerate(np.random.default_rng(0).permutation(25) / 24):
        add(even, even.space.at([u, 1 - u, u]), 0.9 if round(24 * u) % 6 == 0 else i / 1000)
    for narrowing in refined(even)[0].values():
        assert (narrowing.after.low, narrowing.after.high) == (
            narrowing.before.low,
            narrowing.before.high,
        )
        assert "unchanged" in narrowing.why


def test_the_best_fifth_and_their_mean_distance_on_either_side():
    """Ten of fifty, from 0.30 to 0.48: the ends are 0.02 beyond, in two digits outward."""
    found = study("training.l2 = { uniform = [0.0, 1.0] }")
    for i in range(50):
        add(found, {"training.l2": i / 50}, -abs(i / 50 - 0.39))
    kept = [found.settings_of(trial)["training.l2"] for trial in found.ranked()[:10]]
    assert (min(kept), max(kept)) == (0.30, 0.48)
    narrowing = refined(found)[0]["training.l2"]
    assert (narrowing.after.low, narrowing.after.high) == pytest.approx((0.27, 0.51), abs=0.0101)
    assert narrowing.after.low <= 0.275
    assert narrowing.after.high >= 0.505
    assert narrowing.why == "the best 10 trials are in 0.3 to 0.48"


def test_the_best_that_are_far_apart_leave_more_room():
    """Five of twenty, from 0.40 to 0.60: the ends are 0.05 beyond."""
    found = study("training.l2 = { uniform = [0.0, 1.0] }")
    for i in range(20):
        add(found, {"training.l2": i / 20}, -abs(i / 20 - 0.49))
    narrowing = refined(found)[0]["training.l2"]
    assert narrowing.why == "the best 5 trials are in 0.4 to 0.6"
    assert 0.339 < narrowing.after.low < 0.351
    assert 0.649 < narrowing.after.high < 0.661


def two_digits(value):
    return math.isclose(value, float(f"{value:.1e}"), rel_tol=1e-12)


@pytest.mark.parametrize(
    ("name", "table", "digits_of"),
    [
        (RATE, "{ log_uniform = [0.0012345, 0.98765] }", lambda x: x),
        ("training.l2", "{ uniform = [0.12345, 98.765] }", lambda x: x),
        (BETA, "{ one_minus_log_uniform = [0.12345, 0.99987654] }", lambda x: 1 - x),
        (BETA, "{ one_minus_log_uniform = [0.9, 0.999] }", lambda x: 1 - x),
    ],
)
@pytest.mark.parametrize("seed", [slow(0), slow(1), 2, slow(3), 4])
def test_ends_have_two_digits_outward(name, table, digits_of, seed):
    found = study(f"{name} = {table}")
    where = seed / 4
    scale = found.space[name]
    fill(found, 30, lambda point: -abs(scale.position(point[name]) - where), seed)
    after = refined(found)[0][name].after
    kept = [found.settings_of(trial)[name] for trial in found.ranked()[:6]]
    for end, old, inner in (
        (after.low, scale.low, min(kept)),
        (after.high, scale.high, max(kept)),
    ):
        assert end == old or two_digits(digits_of(end)), (end, old)
        sign = 1 if old == scale.low else -1
        beyond = sign * (scale.position(inner) - scale.position(end))
        assert beyond > 0.024 or end == old


def test_ends_of_momentum_read_well():
    found = study(f"{BETA} = {{ one_minus_log_uniform = [0.9, 0.999] }}")
    for i in range(40):
        add(found, {BETA: found.space[BETA].at(i / 39)}, -abs(i - 19.5))
    after = refined(found)[0][BETA].after
    assert re.fullmatch(r"0\.9\d{2}", repr(round(after.low, 12)))
    assert re.fullmatch(r"0\.99?\d{1,3}", repr(round(after.high, 12)))
    assert 0.97 < after.low < 0.99 < after.high < 0.9965


def test_integers():
    table = """
    training.epochs = { integer = [1, 20] }
    network.layers.0.units = { log_integer = [4, 256] }
    """
    found = study(table)
    fill(found, 60, lambda p: -abs(p["training.epochs"] - 10) - abs(p[UNITS] - 40) / 1e3)
    narrowings, _ = refined(found)
    epochs, units = narrowings["training.epochs"].after, narrowings[UNITS].after
    assert 5 <= epochs.low < 10 < epochs.high <= 15
    for scale in (epochs, units):
        assert isinstance(scale.low, int)
        assert isinstance(scale.high, int)


def test_one_value_that_is_left_is_fixed():
    table = """
    training.epochs = { integer = [1, 3] }
    training.batch_size = { choice = ["full", 32, 64] }
    optimizer = { choice = { adam = { type = "adam" }, momentum = { type = "momentum" } } }
    """
    found = study(table)
    for epochs, size, name in itertools.product((1, 2, 3), ("full", 32, 64), ("adam", "momentum")):
        point = {"training.epochs": epochs, "training.batch_size": size, "optimizer": name}
        for repeat in range(2):
            is_best = (epochs, size, name) == (2, 32, "momentum")
            add(found, point, 0.9 if is_best else 0.1 * epochs + repeat / 100)
    for _ in range(6):
        add(
            found,
            {"training.epochs": 2, "training.batch_size": 32, "optimizer": "momentum"},
            0.9,
        )
    narrowings, best = refined(found)
    assert {name: narrowing.after for name, narrowing in narrowings.items()} == {
        "training.epochs": Fixed(2),
        "training.batch_size": Fixed(32),
        "optimizer": Fixed({"type": "momentum"}),
    }
    assert best == {
        "training.epochs": 2,
        "training.batch_size": 32,
        "optimizer": {"type": "momentum"},
    }
    assert narrowings["training.batch_size"].why == (
        "0 of the best are full, 8 of the best are 32, 0 of the best are 64"
    )


def test_choices_that_none_of_the_best_has_made_go():
    found = study('network.layers.0.activation = { choice = ["relu", "tanh", "sigmoid"] }')
    of = {"relu": 0.5, "tanh": 0.9, "sigmoid": 0.8}
    for i in range(30):
        name = list(of)[i % 3]
        add(found, {"network.layers.0.activation": name}, of[name] + (i % 5 == 0))
    after = refined(found)[0]["network.layers.0.activation"].after
    assert after == Choice(["relu", "tanh", "sigmoid"])
    found = study('network.layers.0.activation = { choice = ["relu", "tanh", "sigmoid"] }')
    for i in range(30):
        name = list(of)[i % 3]
        add(found, {"network.layers.0.activation": name}, 0.5 if name == "relu" else i / 100 + 0.6)
    after = refined(found)[0]["network.layers.0.activation"].after
    assert after == Choice(["tanh", "sigmoid"])


CONDITIONAL = """
optimizer = { choice = { adam = { type = "adam" }, momentum = { type = "momentum" } } }
"optimizer.learning_rate" = { log_uniform = [1e-3, 1e-1] }
"optimizer.beta1" = { one_minus_log_uniform = [0.5, 0.99], when = { optimizer = "adam" } }
"optimizer.beta" = { one_minus_log_uniform = [0.5, 0.99], when = { optimizer = "momentum" } }
"""


def test_a_parent_that_is_decided_frees_its_own_and_drops_the_others():
    found = study(CONDITIONAL)
    fill(found, 60, lambda p: (p["optimizer"] == "adam") + p.get("optimizer.beta1", 0) / 10)
    narrowings, best = refined(found)
    assert narrowings["optimizer"].after == Fixed({"type": "adam"})
    assert narrowings["optimizer.beta"].after is None
    assert narrowings["optimizer.beta"].why == "its condition holds for none of the best trials"
    after = narrowings["optimizer.beta1"].after
    assert after.condition == {}
    assert after.high == 0.99
    assert after.low > 0.8
    assert "upper end: try a wider range" in narrowings["optimizer.beta1"].why
    assert list(best) == ["optimizer", "optimizer.learning_rate", "optimizer.beta1"]


def test_a_parent_that_is_left_open_keeps_its_conditions():
    found = study(CONDITIONAL)
    fill(found, 100, lambda p: -abs(math.log10(p["optimizer.learning_rate"]) + 2))
    narrowings, _ = refined(found)
    assert narrowings["optimizer"].after == narrowings["optimizer"].before
    for name, of in (("optimizer.beta1", "adam"), ("optimizer.beta", "momentum")):
        assert narrowings[name].after.condition == {"optimizer": (of,)}


def test_what_few_of_the_best_have_stays_as_it_was():
    found = study(CONDITIONAL)
    rates = iter(range(100))
    for i in range(25):  # of the best five one has momentum
        name = "momentum" if i in (3, 8, 9) else "adam"
        point = {"optimizer": name, "optimizer.learning_rate": 0.01}
        point |= {"optimizer.beta": 0.9} if name == "momentum" else {"optimizer.beta1": 0.8}
        add(found, point, -next(rates))
    narrowings, _ = refined(found)
    assert narrowings["optimizer.beta"].after == narrowings["optimizer.beta"].before
    assert narrowings["optimizer.beta"].why == "only 1 of the best 5 trials have it"
    assert isinstance(narrowings["optimizer"].after, Choice)
    few = study(CONDITIONAL.replace("{ one_minus_log_uniform = [0.5, 0.99]", "{ choice=[0.8,0.9]"))
    for i in range(25):
        name = "momentum" if i in (3, 8, 9) else "adam"
        point = {"optimizer": name, "optimizer.learning_rate": 0.01}
        point |= {"optimizer.beta": 0.9} if name == "momentum" else {"optimizer.beta1": 0.8}
        add(few, point, -i)
    narrowings, _ = refined(few)
    assert narrowings["optimizer.beta"].after == narrowings["optimizer.beta"].before
    assert narrowings["optimizer.beta1"].after == Fixed(0.8, condition={"optimizer": ("adam",)}), (
        "four of five have it"
    )


NESTED = """
optimizer.choice.a = { type = "adam" }
optimizer.choice.b = { type = "momentum" }
optimizer.choice.c = { type = "rmsprop" }
"training.epochs" = { integer = [1, 3], when = { optimizer = ["a", "b"] } }
"training.l2" = { uniform = [0.1, 0.2], when = { "training.epochs" = [2, 3] } }
"training.l1" = { uniform = [0.1, 0.2], when = { "training.epochs" = 1 } }
"""


def nested(values, table=NESTED):
    """Make a study with a trial of each value: optimizer, epochs and the rest, best first."""
    found = study(table)
    for i, point in enumerate(values):
        add(found, point, -i)
    return found


def test_one_that_is_decided_but_does_not_always_exist_hands_its_condition_down():
    """Or what depends on it would exist where it does not itself."""
    two = {"optimizer": "b", "training.epochs": 2, "training.l2": 0.15}
    best = [two, {"optimizer": "c"}, two, two, two]
    narrowings, _ = refined(nested(best + 10 * [{"optimizer": "c"}]))
    assert narrowings["training.epochs"].after == Fixed(2, condition={"optimizer": ("b",)})
    assert narrowings["training.l2"].after.condition == {"optimizer": ("b",)}
    assert narrowings["training.l1"].after is None
    assert narrowings["optimizer"].after.settings == ("b", "c")
    # The best one may be where it does not exist.
    best = [{"optimizer": "c"}, two, two, two, two]
    _, first = refined(nested(best + 10 * [{"optimizer": "c"}]))
    assert first == {"optimizer": "c"}


def test_conditions_of_conditions_go_as_they_are_decided():
    two = {"optimizer": "b", "training.epochs": 2, "training.l2": 0.15}
    three = {"optimizer": "a", "training.epochs": 3, "training.l2": 0.15}
    narrowings, _ = refined(nested([two, three, two, three, two] + 8 * [{"optimizer": "c"}]))
    assert narrowings["optimizer"].after.settings == ("a", "b")
    assert narrowings["training.epochs"].after.condition == {}
    assert narrowings["training.epochs"].after.arguments() == {"integer": [2, 3]}
    assert narrowings["training.l2"].after.condition == {}
    assert narrowings["training.l1"].after is None
    narrowings, best = refined(nested(5 * [{"optimizer": "c"}] + 8 * [two]))
    assert [n.name for n in narrowings.values() if n.after is not None] == ["optimizer"]
    assert best == {"optimizer": {"type": "rmsprop"}}


def test_what_none_of_the_best_has_stays_where_it_may_yet_be():
    """It exists for two choices together, which the best have made one at a time."""
    table = """
    training.batch_size = { choice = [32, 64] }
    training.epochs = { choice = [1, 2] }
    training.l2 = { uniform = [0.1, 0.2], when = { "training.batch_size"=64, "training.epochs"=2 } }
    """
    one = {"training.batch_size": 32, "training.epochs": 2}
    other = {"training.batch_size": 64, "training.epochs": 1}
    narrowings, _ = refined(nested([one, other, one, other, one] + 7 * [one], table))
    assert narrowings["training.l2"].after == narrowings["training.l2"].before
    assert narrowings["training.l2"].why == "only 0 of the best 5 trials have it"


def test_what_is_fixed_stays_so():
    table = CONDITIONAL + '"training.epochs" = { fixed = 1, when = { optimizer = "momentum" } }\n'
    found = study(table)
    fill(found, 50, lambda p: p["optimizer"] == "adam")
    assert refined(found)[0]["training.epochs"].after is None
    found = study(table)
    fill(found, 50, lambda p: -p["optimizer.learning_rate"])
    narrowing = refined(found)[0]["training.epochs"]
    assert narrowing.after == Fixed(1, condition={"optimizer": ("momentum",)})


@pytest.mark.parametrize(
    ("table", "at", "end"),
    [
        ("optimizer.learning_rate = { log_uniform = [1e-3, 1e-1] }", 0.0, "lower"),
        ("optimizer.learning_rate = { log_uniform = [1e-3, 1e-1] }", 1.0, "upper"),
        ("optimizer.beta1 = { one_minus_log_uniform = [0.5, 0.99] }", 0.0, "lower"),
        ("optimizer.beta1 = { one_minus_log_uniform = [0.5, 0.99] }", 1.0, "upper"),
        ("training.epochs = { integer = [1, 4] }", 0.0, "lower"),
        ("training.epochs = { integer = [1, 4] }", 1.0, "upper"),
        ("network.layers.0.units = { log_integer = [4, 6] }", 1.0, "upper"),
    ],
)
def test_the_best_at_an_end_says_so(table, at, end):
    found = study(table)
    (name,) = found.space
    for i in range(21):
        add(found, found.space.at([i / 20]), -abs(i / 20 - at))
    narrowing = refined(found)[0][name]
    assert narrowing.why.endswith(f"; the best is at the {end} end: try a wider range")
    assert narrowing.after.contains(found.space[name].at(at))


def test_few_trials_are_refused():
    found = study()
    fill(found, 9, lambda p: p[RATE])
    for _ in range(5):
        found.optuna.ask()
    with pytest.raises(
        SearchError, match="needs at least 10 complete trials, got 9 in the study 'study'"
    ):
        refine(found)
    fill(found, 1, lambda p: p[RATE], seed=1)
    refined(found)


def test_infinite_results_are_the_worst():
    found = study(objective="validation_cost")
    scale = found.space[RATE]
    fill(found, 40, lambda p: math.inf if p[RATE] > 0.01 else abs(math.log(p[RATE] / 0.003)))
    after = refined(found)[0][RATE].after
    assert after.contains(0.003)
    assert scale.position(after.high) < scale.position(0.015)


@pytest.mark.slow
def test_a_refinement_is_refined_again():
    storage = InMemoryStorage()
    optimum = {RATE: 0.02, BETA: 0.9, UNITS: 20}
    found = open_study(storage, "study", recipe())
    scales, widths = found.space, []
    for round_ in range(4):
        fill(
            found,
            40,
            lambda p: (
                -sum(
                    abs(scales[name].position(p[name]) - scales[name].position(optimum[name]))
                    for name in p
                )
            ),
            seed=round_,
        )
        narrowings, best = refined(found)
        made, first, _ = refine(found)
        assert first == best
        widths.append(
            [
                width(n.after, scales[n.name]) if isinstance(n.after, Range) else 0.0
                for n in narrowings.values()
            ]
        )
        name = f"{found.name}.refined"
        found = open_study(storage, name, made, first=best, refines=found.name)
    for before, after in itertools.pairwise(widths):
        assert all(b >= a for b, a in zip(before, after, strict=True))
    assert max(widths[-1]) < 0.35
    low, high = found.space[RATE].extremes()
    assert low < 0.03
    assert high > 0.015


@pytest.mark.parametrize("seed", [0, 1, 2, *map(slow, range(3, 15))])
def test_any_space_is_refined_to_one_that_holds_its_best(seed):
    """Whatever its trials come to, at random."""
    tables = (NESTED, CONDITIONAL, CONDITIONAL.replace("[1e-3, 1e-1]", "[0.0123, 0.0124]"))
    found = study(tables[seed % 3])
    rng = np.random.default_rng(seed)
    weights = dict(zip(found.space, rng.normal(size=len(found.space)), strict=True))
    weights = {name: weight * (rng.random() < 0.7) for name, weight in weights.items()}
    fill(
        found,
        int(rng.integers(10, 40)),
        lambda p: sum(weights[k] * found.space[k].position(v) for k, v in p.items()),
        seed,
    )
    refined(found)
