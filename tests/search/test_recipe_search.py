"""A recipe's table [search]: how it is written, what it may say, and what trials are made of."""

from __future__ import annotations

import copy
import dataclasses
import re
import tomllib
from typing import Any

import numpy as np
import pytest

from xpnet.data import load_dataset
from xpnet.recipe import Recipe, RecipeError, load_recipe, parse_recipe
from xpnet.recipe.changes import set_value
from xpnet.recipe.schema import resolve
from xpnet.spaces import Choice, Integer, LogUniform

pytestmark = pytest.mark.host

GOOD = """
loss = "softmax_cross_entropy"
optimizer = { type = "adam", learning_rate = 0.01 }
[data]
dataset = "moons"
n_samples = 60
validation_fraction = 0.2
[network]
layers = [
    { type = "dense", units = 4, activation = "tanh" },
    { type = "dropout", rate = 0.1 },
    { type = "dense", units = 2 },
]
[training]
epochs = 3
batch_size = 16
"""
RATE = "{ log_uniform = [1e-4, 0.1] }"
BETA = "{ one_minus_log_uniform = [0.8, 0.99] }"


def searched(text, *changes):
    return parse_recipe("good", f"{GOOD}\n{text}", changes=changes)


FORMS = {
    "dotted": f"""
        [search]
        optimizer.learning_rate = {RATE}
        optimizer.beta1 = {BETA}
        network.layers.0.units = {{ integer = [2, 8], points = 4 }}
    """,
    "quoted": f"""
        [search]
        "optimizer.learning_rate" = {RATE}
        "optimizer.beta1" = {BETA}
        "network.layers.0.units" = {{ integer = [2, 8], points = 4 }}
    """,
    "nested": f"""
        [search.optimizer]
        learning_rate = {RATE}
        beta1 = {BETA}
        [search.network.layers.0.units]
        integer = [2, 8]
        points = 4
    """,
    "inline": f"""
        [search]
        optimizer = {{ learning_rate = {RATE}, beta1 = {BETA} }}
        network = {{ layers = {{ 0 = {{ units = {{ points = 4, integer = [2, 8] }} }} }} }}
    """,
    "mixed": f"""
        [search]
        "optimizer.learning_rate" = {RATE}
        optimizer.beta1.one_minus_log_uniform = [0.8, 0.99]
        "network.layers".0.units = {{ integer = [2, 8], points = 4 }}
    """,
}


@pytest.mark.parametrize("form", FORMS)
def test_forms_of_the_table_mean_the_same(form):
    recipe = searched(FORMS[form])
    assert recipe.values == searched(FORMS["dotted"]).values
    assert list(recipe.space) == ["optimizer.learning_rate", "optimizer.beta1", *LAYER]
    assert recipe.space["network.layers.0.units"] == Integer(2, 8, points=4)
    assert recipe.values["optimizer"]["learning_rate"] == 0.01


LAYER = ["network.layers.0.units"]
SETS = (
    f"search.optimizer.learning_rate={RATE}",
    "search.optimizer.beta1.one_minus_log_uniform=[0.8, 0.99]",
    "search.network.layers.0.units={ integer = [2, 8], points = 4 }",
)


def test_changes_say_it_too(tmp_path):
    assert searched("", *SETS).values == searched(FORMS["dotted"]).values
    (tmp_path / "mine.toml").write_text(GOOD)
    recipe = load_recipe(tmp_path / "mine.toml", changes=SETS)
    assert recipe.values == searched(FORMS["dotted"]).values
    shipped = load_recipe("digits-shallow", changes=[SETS[0]])
    assert dict(shipped.space) == {"optimizer.learning_rate": LogUniform(1e-4, 0.1)}
    assert "search" not in load_recipe("digits-shallow").values


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "change",
    [
        "search.optimizer.learning_rate={ log_uniform = [1e-3, 1] }",
        "search.optimizer.learning_rate.log_uniform=[1e-3, 1]",
    ],
)
def test_changes_are_made_in_what_is_said_already(form, change):
    written = searched(FORMS[form]).to_toml()
    for recipe in (parse_recipe("again", written, changes=[change]), searched("", *SETS, change)):
        assert recipe.space["optimizer.learning_rate"] == LogUniform(1e-3, 1)
        assert len(recipe.space) == 3
    for text in (written, GOOD + FORMS["dotted"]):
        found = parse_recipe("fixed", text, changes=["search.network.layers.0.units.points=2"])
        assert found.space["network.layers.0.units"] == Integer(2, 8, points=2)


ALTERNATIVES = """
[search]
optimizer = { choice = { adam = { type = "adam" }, momentum = { type = "momentum", beta = 0.5 } } }
"optimizer.learning_rate" = { log_uniform = [1e-4, 0.1] }
"optimizer.beta1" = { one_minus_log_uniform = [0.8, 0.99], when = { optimizer = "adam" } }
"optimizer.averaged" = { choice = [true, false], when = { optimizer = ["momentum"] } }
"optimizer.weight_decay" = { choice = [0.0, 0.1], when = { optimizer.averaged = true } }
"""


def test_alternatives_with_options_of_their_own():
    recipe = searched(ALTERNATIVES)
    space = recipe.space
    assert space["optimizer.weight_decay"].condition == {"optimizer.averaged": (True,)}
    kinds: list[Any] = []
    for point in space.grid():
        optimizer = recipe.changed(space.resolve(point)).values["optimizer"]
        for name, value in point.items():
            if name != "optimizer":
                assert optimizer[name.removeprefix("optimizer.")] == value
        assert optimizer["type"] == point["optimizer"]
        if optimizer["type"] == "momentum":
            assert optimizer["beta"] == 0.5
        kinds.append(optimizer["type"])
    assert kinds.count("adam") == 3 * 3
    assert kinds.count("momentum") == 3 * (2 + 1)


@pytest.mark.parametrize("text", [*FORMS.values(), ALTERNATIVES])
def test_what_is_written_out_says_the_same_again(text):
    recipe = searched(text)
    again = parse_recipe("good", recipe.to_toml())
    assert again.values == recipe.values
    assert list(again.space) == list(recipe.space)
    u = np.random.default_rng(0).random((20, len(recipe.space))).tolist()
    assert [again.space.at(row) for row in u] == [recipe.space.at(row) for row in u]


REFUSED = [
    # not a table of scales
    ("search = 3", "is not TOML"),
    ("[search]", "search must name a key of the recipe and its scale, such as optimizer.learn"),
    ("[search]\nseed = 3", "search.seed must be a table with one of uniform, log_uniform, one_min"),
    ("[search]\ntraining.epochs = [1, 2]", "search.training.epochs must be a table with one of"),
    ("[[search]]\nseed = { fixed = 1 }", "search must be a table [search], got [{'seed'"),
    ("[search]\nseed = {}", "search.seed: must have exactly one scale of uniform, log_uniform"),
    ("[search.optimizer]", "search.optimizer: must have exactly one scale of uniform, log_un"),
    (
        "[search]\noptimizer.learning_rate = { loguniform = [1e-4, 1] }",
        "fixed, got [0.0001, 1]; did you mean 'log_uniform'?",
    ),
    (
        "[search]\noptimizer.learning_rate = { points = 4, loguniform = [1e-4, 1] }",
        "search.optimizer.learning_rate: unknown scale 'loguniform'; did you mean 'log_uniform'?",
    ),
    (
        '[search]\noptimizer.beta1 = { fixed = 0.5 }\n"optimizer.beta1" = { fixed = 0.6 }',
        "search.optimizer.beta1 is given twice",
    ),
    (
        '[search]\nnetwork.layers.0.units = { fixed = 5 }\n"network.layers".0.units = { fixed = 6}',
        "search.network.layers.0.units is given twice",
    ),
    (
        "[search.optimizer]\nchoice = ['adam', 'rmsprop']\nlearning_rate = { fixed = 0.1 }",
        "search.optimizer: choice: unknown option 'learning_rate'; valid options: when",
    ),
    # keys that there are not
    (
        f"[search]\noptimizer.learning_rat = {RATE}",
        "search.optimizer.learning_rat, at 0.0001: optimizer.learning_rat (got 0.0001) is not a "
        "key of a recipe; did you mean optimizer.learning_rate?",
    ),
    ("[search]\ntraining.epoch = { integer = [1, 2] }", "did you mean training.epochs?"),
    ("[search]\nlearning_rate = { fixed = 0.1 }", "did you mean optimizer.learning_rate?"),
    ("[search]\noptimizer.beta = { fixed = 0.1 }", "search.optimizer.beta, at 0.1: optimizer.beta"),
    (
        "[search]\nnetwork.layers.3.units = { integer = [1, 2] }",
        "search.network.layers.3.units, at 1: network.layers.3 is not a key of a recipe: the "
        "list's indices are 0 to 2",
    ),
    (
        "[search]\nnetwork.layers.1.units = { integer = [1, 2] }",
        "search.network.layers.1.units, at 1: network.layers.1.units (got 1) is not a key",
    ),
    ("[search]\nseed.x = { fixed = 1 }", "search.seed.x, at 1: seed.x is not a key of a recipe: s"),
    # values that a key cannot have
    (
        "[search]\nnetwork.layers.1.rate = { uniform = [0.0, 1.0] }",
        "search.network.layers.1.rate, at 1.0: network.layers.1.rate must ",
    ),
    (
        "[search]\noptimizer.learning_rate = { uniform = [0, 1] }",
        "search.optimizer.learning_rate, at 0.0: optimizer.learning_rate must be a positive finit",
    ),
    (
        "[search]\ntraining.batch_size = { uniform = [1, 64] }",
        "search.training.batch_size, at 1.0: training.batch_size must be",
    ),
    (
        "[search]\ntraining.batch_size = { integer = [0, 64] }",
        "search.training.batch_size, at 0: training.batch_size must be",
    ),
    (
        "[search]\noptimizer = { choice = ['adam', 'adan'] }",
        "search.optimizer, at 'adan': optimizer must be the name of a known optimizer",
    ),
    (
        "[search]\nnetwork.layers.0.activation = { choice = ['relu', 3] }",
        "search.network.layers.0.activation, at 3: network.layers.0.activation must be the name",
    ),
    (
        "[search]\noptimizer = { choice = { a = 'adam', b = { type = 'adam', x = 1 } } }",
        "search.optimizer, at 'b': optimizer.x (got 1) is not a key of a recipe",
    ),
    ("[search]\nseed = { fixed = 1979-05-27 }", "search.seed, at datetime.date(1979, 5, 27): seed"),
    # bounds
    (
        "[search]\noptimizer.learning_rate = { log_uniform = [0, 1] }",
        "search.optimizer.learning_rate: log_uniform: low must be greater than 0, got low=0",
    ),
    (
        "[search]\noptimizer.beta1 = { one_minus_log_uniform = [0.9, 1.0] }",
        "search.optimizer.beta1: one_minus_log_uniform: low must be at least 0 and high less than",
    ),
    (
        "[search]\noptimizer.beta1 = { uniform = [nan, 1.0] }",
        "search.optimizer.beta1: uniform: low must be a finite number, got nan",
    ),
    # what all trials have alike
    *(
        (
            f"[search]\n{path} = {{ choice = {options} }}",
            f"search.{path} is not allowed: all trials use the same data; from [data] you can "
            "search data.divide_by and data.normalise",
        )
        for path, options in {
            "data.dataset": "['moons', 'circles']",
            "data.seed": "[1, 2]",
            "data.noise": "[0.1, 0.2]",
            "data.validation_fraction": "[0.1, 0.2]",
            "data.standardise_target": "[true, false]",
            "data": "{ a = { dataset = 'moons' }, b = { dataset = 'circles' } }",
        }.items()
    ),
    *(
        (
            f"[search]\n{path} = {{ choice = {options} }}",
            f"search.{path} is not allowed: it is the same for all trials",
        )
        for path, options in {
            "description": "['a', 'b']",
            "device": "['cpu', 'cuda']",
            "precision": "['float32', 'tf32']",
            "search": "['a', 'b']",
        }.items()
    ),
    # conditions
    (
        "[search]\noptimizer.beta1 = { fixed = 0.5, when = { optimizer = 'adam' } }",
        "search.optimizer.beta1: when must name a hyper-parameter before it (there is none), got",
    ),
    (
        "[search]\nseed = { integer = [1, 2] }\nrng = { fixed = 'numpy', when = { seed = 3 } }",
        "search.rng: when requires seed to be 3, which is not one of its values",
    ),
    (
        f"[search]\noptimizer.learning_rate = {RATE}\n"
        "seed = { fixed = 3, when = { 'optimizer.learning_rate' = 0.1 } }",
        "search.seed: when must name a choice, fixed or integer hyper-parameter, got 'optimize",
    ),
    # options that one of the alternatives does not have
    (
        "[search]\noptimizer = { choice = ['adam', 'gradient_descent'] }\n"
        f'"optimizer.beta1" = {BETA}',
        "search.optimizer.beta1, at 0.8 with optimizer 'gradient_descent': optimizer.beta1 (got",
    ),
    (
        "[search]\noptimizer = { choice = ['adam', 'gradient_descent'] }\n"
        '"optimizer.beta1" = { fixed = 0.5, when = { optimizer = ["adam", "gradient_descent"] } }',
        "search.optimizer.beta1, at 0.5 with optimizer 'gradient_descent': optimizer.beta1 (got",
    ),
    (
        "[search]\nnetwork.layers.0.units = { fixed = 3 }\n"
        '"network.layers.0" = { choice = { a = { type = "dense", units = 2 }, b = "relu" } }',
        "search.network.layers.0 must come before search.network.layers.0.units, which it would",
    ),
    (
        '[search]\noptimizer = { choice = ["adam", "adam"] }',
        "search.optimizer: choice: values must be distinct",
    ),
    # A trial has every value filled in: Adam's options do not belong to other optimizers.
    (
        "[search]\noptimizer.type = { choice = ['adam', 'gradient_descent'] }",
        "search.optimizer.type, at 'gradient_descent': optimizer.beta1 (got 0.9) is not a key of",
    ),
]


@pytest.mark.parametrize(("text", "said"), REFUSED)
def test_wrong_searches(text, said):
    text = f"{GOOD}\n{text}" if "search = 3" not in text else f"{text}\n{text}"
    with pytest.raises(RecipeError, match=re.escape(said)) as caught:
        parse_recipe("wrong", text)
    assert str(caught.value).startswith("wrong")
    assert "\n" not in str(caught.value)


def test_a_wrong_search_by_a_change():
    for change, said in {
        "search=3": "search must be a table [search], got 3",
        "search.optimizer.learning_rate=3": "search.optimizer.learning_rate must be a table with",
        "search.optimizer.learning_rate.fixed=0": "search.optimizer.learning_rate, at 0: optimize",
        "search.device.choice=['cpu', 'cuda']": "search.device is not allowed: it is the same fo",
    }.items():
        with pytest.raises(RecipeError, match=re.escape(said)):
            searched("", change)


def test_each_data_key_that_may_be_searched():
    recipe = searched(
        """
        [search]
        data.normalise = { choice = ["none", "standardise", "min-max"] }
        data.divide_by = { choice = ["auto", 2.0] }
        """
    )
    data = recipe.changed({"data.normalise": "min-max", "data.divide_by": 2.0}).values["data"]
    assert (data["normalise"], data["divide_by"]) == ("min-max", 2.0)


def test_whatever_is_searched_makes_recipes():
    """All that is drawn is one, not the ends alone."""
    recipe = searched(
        """
        [search]
        network.layers.0.units = { log_integer = [1, 32] }
        network.layers.0.activation = { choice = ["relu", "tanh"] }
        network.layers.1.rate = { uniform = [0.0, 0.9] }
        optimizer.learning_rate = { log_uniform = [1e-5, 1.0] }
        optimizer.beta2 = { one_minus_log_uniform = [0.9, 0.9999] }
        loss.label_smoothing = { uniform = [0, 0.2] }
        training.batch_size = { choice = [8, 16, "full"] }
        training.epochs = { fixed = 1 }
        seed = { integer = [0, 9] }
        """
    )
    space = recipe.space
    for u in np.random.default_rng(0).random((20, len(space))).tolist():
        point = space.resolve(space.at(u))
        values = recipe.changed(point).values
        for path, value in point.items():
            within: Any = values
            for word in path.split("."):
                within = within[int(word) if isinstance(within, list) else word]
            assert within == value
        assert values["training"]["epochs"] == 1
        assert "search" not in values


def test_a_recipe_without_a_search():
    with pytest.raises(RecipeError, match=r"good: search is missing: add a table \[search\] with"):
        _ = searched("").space


def test_a_changed_recipe_leaves_the_other_alone():
    recipe = searched(ALTERNATIVES)
    before = copy.deepcopy(recipe.values)
    options = {"type": "momentum", "beta": 0.5}
    layers = [{"type": "dense", "units": 2}]
    values = {"optimizer": options, "optimizer.learning_rate": 0.5, "network.layers": layers}
    changed = recipe.changed({**values, "network.layers.0.init": "zeros"})
    assert recipe.values == before
    assert options == {"type": "momentum", "beta": 0.5}
    assert layers == [{"type": "dense", "units": 2}]
    assert changed.name == "good"
    assert changed.values["optimizer"]["learning_rate"] == 0.5
    assert changed.values["network"]["layers"][0]["init"] == "zeros"
    assert "search" not in changed.values
    # Nor does what is done to the changed one reach it.
    kept = recipe.changed({"seed": 1}, search=True)
    assert kept.values == {**before, "seed": 1}
    kept.values["search"]["optimizer"]["choice"]["adam"]["type"] = "rmsprop"
    kept.values["network"]["layers"].clear()
    recipe.space.to_tables()["optimizer"]["choice"].clear()
    assert recipe.values == before


def test_changes_that_cannot_be():
    recipe = searched("")
    with pytest.raises(RecipeError, match=r"good: optimizer\.beta1 must lie in \[0, 1\), got 1"):
        recipe.changed({"optimizer.beta1": 1})
    with pytest.raises(RecipeError, match=r"good: network\.layers\.9 is not a key of a recipe"):
        recipe.changed({"network.layers.9.units": 3})
    with pytest.raises(RecipeError, match=r"did you mean optimizer\.beta1"):
        recipe.changed({"optimizer.beta_1": 0.5})
    with pytest.raises(RecipeError, match=r"search\.optimizer\.beta1, at 0\.8: optimizer\.beta1"):
        searched(f"[search]\noptimizer.beta1 = {BETA}").changed(
            {"optimizer": "gradient_descent"}, search=True
        )


def test_setting_values_of_tables():
    tables: dict[str, Any] = {"a": [{"b": "name"}, "c"], "search": {"a.b": {"fixed": 1}}}
    set_value(tables, "a.0.b.x", 1)
    set_value(tables, "a.1.y", 2)
    set_value(tables, "d.e.f", 3)
    set_value(tables, "search.a.b.fixed", 4)
    set_value(tables, "search.a.c.fixed", 5)
    assert tables == {
        "a": [{"b": {"type": "name", "x": 1}}, {"type": "c", "y": 2}],
        "search": {"a.b": {"fixed": 4}, "a": {"c": {"fixed": 5}}},
        "d": {"e": {"f": 3}},
    }
    for path in ("a.2.x", "a.-1", "a.x", "a.1.y.z"):
        with pytest.raises(RecipeError, match="is not a key of a recipe"):
            set_value(tables, path, 0)


def test_what_is_given_stays_as_it_is():
    given = tomllib.loads(GOOD + ALTERNATIVES)
    before = copy.deepcopy(given)
    resolve(given)
    assert given == before


UNUSABLE_TEST_PARTS: dict[str, dict[str, Any]] = {
    "nan": {"X_test": np.full((12, 2), np.nan), "y_test": np.zeros(12, np.int64)},
    "shapes": {"X_test": np.zeros((3, 7, 5)), "y_test": np.zeros((2, 2), np.int64)},
    "labels": {"X_test": np.zeros((5, 2)), "y_test": np.array([99, -7, 2**40, 0, 5])},
    "text": {"X_test": np.array([["a", "b"]]), "y_test": np.array(["c"])},
    "nothing": {"X_test": None, "y_test": None},
}


def outcome(validation):
    reports = [
        (r.cost, r.validation_cost, r.validation_accuracy) for r in validation.history.reports
    ]
    return validation.cost, validation.accuracy, validation.n_parameters, reports


@pytest.mark.parametrize("unusable", UNUSABLE_TEST_PARTS)
@pytest.mark.parametrize(
    "change", ["data.normalise=standardise", "data.divide_by=2", 'early_stopping.patience="never"']
)
def test_validation_never_looks_at_the_test_samples(unusable, change):
    recipe = searched("", change)
    dataset = recipe.load_data()
    clean = outcome(recipe.validate(dataset, "cpu"))
    changed = dataclasses.replace(dataset, **UNUSABLE_TEST_PARTS[unusable])
    assert outcome(recipe.validate(changed, "cpu")) == clean
    assert np.isfinite(clean[:2]).all()


def test_nor_under_a_loss_for_numbers_nor_of_images():
    recipe = Recipe(
        "numbers",
        searched(
            "",
            "loss=mean_squared_error",
            'data={ dataset = "diabetes", validation_fraction = 0.2, standardise_target = true }',
            "network.layers.2.units=1",
        ).values,
    )
    dataset = recipe.load_data()
    found = [
        outcome(recipe.validate(dataclasses.replace(dataset, **unusable), "cpu"))
        for unusable in ({}, UNUSABLE_TEST_PARTS["nan"], UNUSABLE_TEST_PARTS["text"])
    ]
    assert found[0] == found[1] == found[2]
    images = searched(
        "",
        'data={ dataset = "digits", validation_fraction = 0.2 }',
        "network.layers.2.units=10",
        'training.augmentation=["shift"]',
        "training.epochs=1",
    )
    dataset = images.load_data()
    found = [
        outcome(images.validate(dataclasses.replace(dataset, **unusable), "cpu"))
        for unusable in ({}, UNUSABLE_TEST_PARTS["shapes"], UNUSABLE_TEST_PARTS["labels"])
    ]
    assert found[0] == found[1] == found[2]


def test_validation_is_what_a_run_says():
    recipe = searched("")
    dataset = recipe.load_data()
    validation, result = recipe.validate(dataset, "cpu"), recipe.run(dataset, "cpu")
    last = result.history.reports[-1]
    assert (validation.cost, validation.accuracy) == (
        last.validation_cost,
        last.validation_accuracy,
    )
    assert validation.history.cost == result.history.cost
    assert validation.n_parameters == result.network.n_parameters
    # Another part for validation gives another cost.
    assert dataset.X_validation is not None
    other = dataclasses.replace(dataset, X_validation=dataset.X_validation + 1)
    assert recipe.validate(other, "cpu").cost != validation.cost


def test_validation_needs_samples():
    recipe = searched("", "data.validation_fraction=0.0")
    with pytest.raises(
        RecipeError, match=r"good: the data set has no validation samples; set, for "
    ):
        recipe.validate(recipe.load_data(), "cpu")
    with pytest.raises(RecipeError, match=r"for example, data\.validation_fraction = 0\.1"):
        searched("").validate(load_dataset("digits"), "cpu")


def test_a_searched_recipe_runs_as_one_without():
    plain, recipe = searched(""), searched(ALTERNATIVES)
    assert recipe.run(device="cpu").history.cost == plain.run(device="cpu").history.cost
    assert isinstance(recipe.space["optimizer"], Choice)
