"""Studies: opened, resumed, refused, and read by other programs."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import subprocess
import sys
from typing import Any

import optuna
import pytest
from optuna.storages import InMemoryStorage
from optuna.trial import TrialState

from tests.conftest import ROOT
from tests.search.studies import RECIPE, add, recipe, study
from xpnet.recipe import RecipeError
from xpnet.search.study import (
    SearchError,
    Settings,
    open_storage,
    open_study,
    own_settings,
    studies,
)

pytestmark = [pytest.mark.host, pytest.mark.needs("optuna", "scipy", "sklearn")]

POINT = {
    "optimizer.learning_rate": 0.01,
    "optimizer.beta1": 0.95,
    "network.layers.0.units": 8,
}


def is_one_line(error):
    text = str(error.value)
    return bool(text) and "\n" not in text and len(text) < 700


def test_a_storage_is_a_file_in_a_folder_that_need_not_be_there(tmp_path):
    place = tmp_path / "a b" / "größe" / "study.journal"
    study_ = open_study(open_storage(place), "one", recipe())
    assert place.is_file()
    assert studies(open_storage(str(place))) == [study_.name] == ["one"]


def test_a_storage_is_a_database(tmp_path):
    url = f"sqlite:///{tmp_path}/study.db"
    found = open_study(open_storage(url), "one", recipe(), seed=4)
    add(found, POINT, 0.5)
    again = open_study(open_storage(url), "one")
    assert again.settings == found.settings == Settings(seed=4)
    assert [trial.value for trial in again.ranked()] == [0.5]
    assert again.settings_of(again.trials()[0]) == pytest.approx(POINT)
    assert again.recipe == found.recipe == recipe()


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("", "storage must be a file or a URL, got an empty string"),
        ("nonsense://host/name", "cannot open the storage 'nonsense://host/name': "),
        ("://", "cannot open the storage '://': "),
        ("postgresql+pg8000://name:word@host/base", "type: pip install 'psycopg\\[binary\\]'"),
        (
            "sqlite:///no/such/folder/study.db",
            "cannot open the storage .*unable to open database",
        ),
        ("a file/study.journal", "cannot open the storage 'a file/study.journal': "),
        (".", "cannot open the storage '.': "),
        ("no\0name", r"cannot open the storage 'no\\x00name': "),
        ("a file", "storage must be an Optuna journal, got another file: 'a file'"),
        ("torn", "storage 'torn' ends in the middle of a line"),
    ],
)
def test_what_cannot_be_opened_is_said_in_a_line(tmp_path, monkeypatch, where, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a file").write_text("no\njournal\n", encoding="utf-8")
    (tmp_path / "torn").write_text('{"op_code": 0}\n{"op_code"', encoding="utf-8")
    with pytest.raises(SearchError, match=said) as error:
        open_storage(where)
    assert is_one_line(error)


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere"
)
def test_a_folder_without_rights(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(SearchError, match=r"cannot open the storage .*: .*ermission") as error:
        open_storage(tmp_path / "new" / "study.journal")
    assert is_one_line(error)


def test_a_password_is_not_said():
    with pytest.raises(SearchError, match=r"me:\*\*\*@host/name") as error:
        open_storage("nonsense://me:se:c@ret@host/name")
    assert "ret" not in str(error.value)


def test_a_study_is_gone_on_with(tmp_path):
    first = {"optimizer.learning_rate": 0.02}
    asked: dict[str, Any] = {
        "sampler": "tpe",
        "pruner": "median",
        "objective": "validation_cost",
        "seed": 7,
    }
    found = study(tmp_path, first=first, origin="recipe", **asked)
    assert not found.is_maximised
    for again in (
        study(tmp_path, first={"network.layers.0.units": 4}, origin="other", **asked),
        study(tmp_path, sampler=None, pruner=None, objective=None, seed=None),
        open_study(open_storage(tmp_path / "study.journal"), "study"),
    ):
        assert again.settings == found.settings == Settings(**asked)
        assert again.first == first
        assert again.origin == "recipe"
        assert again.refines == ""
        assert again.recipe == found.recipe
        assert list(again.space) == list(recipe().space)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("seed=4", "seed was 3, not 4"),
        ("training.epochs=3", "training.epochs was 2, not 3"),
        ("optimizer.type=adamw", "optimizer.type was 'adam', not 'adamw'"),
        ("search.seed={integer=[0,9]}", "it lacked search.seed"),
        (
            "search.network.layers.0.units={log_integer=[4,65]}",
            r"search.network.layers.0.units.log_integer was \[4, 64\], not \[4, 65\]",
        ),
    ],
)
def test_another_recipe_is_refused_with_where_it_differs(tmp_path, change, said):
    study(tmp_path)
    with pytest.raises(SearchError, match=f"the study 'study' was created with.*: {said}") as error:
        study(tmp_path, of=recipe(change))
    assert is_one_line(error)


def test_another_description_is_the_same_recipe(tmp_path):
    study(tmp_path)
    assert study(tmp_path, of=recipe('description="new words"')).name == "study"


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"sampler": "tpe"}, "has sampler random, got tpe"),
        ({"pruner": "median"}, "has pruner none, got median"),
        ({"objective": "validation_cost"}, "has objective validation_accuracy, got validation_c"),
        ({"seed": 1}, "has seed 0, got 1"),
        ({"seed": 0, "sampler": "nonsense"}, "has sampler random, got nonsense"),
    ],
)
def test_other_settings_are_refused(tmp_path, setting, said):
    study(tmp_path)
    with pytest.raises(SearchError, match=said) as error:
        study(tmp_path, **setting)
    assert is_one_line(error)


def test_a_refining_study_has_scales_of_its_own(tmp_path):
    own = recipe("search.network.layers.0.units={log_integer=[8,9]}")
    study(tmp_path, of=own, refines="another")
    again = study(tmp_path, of=recipe())
    assert again.recipe == own
    with pytest.raises(SearchError, match="seed was 3, not 4"):
        study(tmp_path, of=recipe("seed=4"))


def test_an_unknown_name_lists_those_there(tmp_path):
    storage = open_storage(tmp_path / "j")
    with pytest.raises(SearchError, match="unknown study 'x'; valid studies: none"):
        open_study(storage, "x")
    open_study(storage, "one", recipe())
    open_study(storage, "two", recipe())
    with pytest.raises(SearchError, match=r"unknown study 'x'; valid studies: one, two$"):
        open_study(storage, "x")
    assert studies(storage) == ["one", "two"]


@pytest.mark.parametrize("directions", [["maximize"], ["minimize"], ["maximize", "minimize"]])
def test_what_optuna_alone_has_made_is_refused(tmp_path, directions):
    storage = open_storage(tmp_path / "j")
    plain = optuna.create_study(storage=storage, study_name="plain", directions=directions)
    plain.enqueue_trial({})
    with pytest.raises(SearchError, match="'plain' was not made by xpnet"):
        open_study(storage, "plain", recipe())
    with pytest.raises(SearchError, match="'plain' was not made by xpnet"):
        open_study(storage, "plain")
    assert studies(storage) == []


@pytest.mark.parametrize("directions", [["minimize"], ["maximize", "minimize"]])
def test_a_study_without_trials_that_looks_elsewhere_is_nobodys_begun(directions):
    """It would rank trials the wrong way round."""
    storage = InMemoryStorage()
    optuna.create_study(storage=storage, study_name="plain", directions=directions)
    with pytest.raises(SearchError, match="'plain' was not made by xpnet"):
        open_study(storage, "plain", recipe())


def test_a_process_that_died_in_beginning_is_gone_on_with():
    storage = InMemoryStorage()
    optuna.create_study(storage=storage, study_name="study", direction="maximize")
    assert open_study(storage, "study", recipe()).is_maximised


def test_a_study_needs_scales(tmp_path):
    with pytest.raises(RecipeError, match="search is missing"):
        study(tmp_path, of=recipe(text=RECIPE.partition("[search]")[0]))
    assert studies(open_storage(tmp_path / "study.journal")) == []


def test_what_a_study_holds_that_no_recipe_is():
    storage = InMemoryStorage()
    found = open_study(storage, "study", recipe())
    own = found.optuna.user_attrs["xpnet"]
    found.optuna.set_user_attr("xpnet", {**own, "values": {**own["values"], "loss": "of mine"}})
    with pytest.raises(SearchError, match="the study 'study' cannot be read: small: loss"):
        open_study(storage, "study")


PLAIN = """
import sys
sys.modules["xpnet"] = None
import optuna
study = optuna.load_study(study_name="study", storage=optuna.storages.get_storage(sys.argv[1]))
print(repr([study.direction.name, study.best_value, study.best_params, len(study.trials)]))
print(study.user_attrs["xpnet"]["settings"]["sampler"])
"""


def test_optuna_alone_reads_it(tmp_path):
    url = f"sqlite:///{tmp_path}/study.db"
    for objective, name in (("validation_accuracy", "MAXIMIZE"), ("validation_cost", "MINIMIZE")):
        found = open_study(open_storage(url), "study", recipe(), objective=objective)
        for value in (0.5, 0.75, 0.25):
            add(found, {**POINT, "network.layers.0.units": int(16 * value)}, value)
        done = subprocess.run(
            [sys.executable, "-c", PLAIN, url], capture_output=True, text=True, check=True
        )
        said, sampler = done.stdout.splitlines()
        best = 0.75 if found.is_maximised else 0.25
        expected = {
            "optimizer.learning_rate": 0.01,
            "1 - optimizer.beta1": 1 - 0.95,
            "network.layers.0.units": int(16 * best),
        }
        assert said == repr([name, best, expected, 3])
        assert sampler == "random"
        optuna.delete_study(study_name="study", storage=url)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"sampler": "sobol"}, "unknown sampler 'sobol'; valid samplers: random, grid, quasi-rand"),
        ({"pruner": "None"}, "unknown pruner 'None'; did you mean 'none'"),
        ({"objective": "test_accuracy"}, "unknown objective 'test_accuracy'; valid objectives: v"),
        ({"seed": -1}, "seed must be an integer of at least 0, got -1"),
        ({"seed": True}, "seed must be an integer of at least 0, got True"),
        ({"seed": 1.0}, "seed must be"),
        ({"seed": "1"}, "seed must be"),
    ],
)
def test_wrong_settings(tmp_path, setting, said):
    with pytest.raises(SearchError, match=said):
        Settings(**setting)
    with pytest.raises(SearchError, match=said):
        study(tmp_path, **setting)
    assert studies(open_storage(tmp_path / "study.journal")) == []


def of_space(table, *changes):
    return recipe(*changes, text=RECIPE.partition("[search]")[0] + "[search]\n" + table)


NAMED = """
network.layers.choice.one = [{ type = "dense", units = 10 }]
network.layers.choice.two = [{ type = "dense", units = 16, activation = "relu" }, \
{ type = "dense", units = 10 }]
"network.layers.0.units" = { integer = [8, 20], when = { "network.layers" = "two" } }
"network.layers.0.bias" = { choice = [false, true], when = { "network.layers" = "one" } }
"""


@pytest.mark.parametrize(
    ("table", "changes", "expected"),
    [
        ("optimizer.learning_rate = {uniform=[0.001, 1]}", (), {"optimizer.learning_rate": 0.003}),
        ("optimizer.learning_rate = {uniform=[0.003, 1]}", (), {"optimizer.learning_rate": 0.003}),
        ("optimizer.learning_rate = {uniform=[0.0031, 1]}", (), None),
        ("optimizer.learning_rate = {uniform=[0.001, 0.0029]}", (), None),
        ("optimizer.beta1 = {uniform=[0.5, 0.95]}", (), {"optimizer.beta1": 0.9}),
        ("network.layers.0.activation = {choice=['tanh','relu']}", (), "relu"),
        ("network.layers.0.activation = {choice=['tanh','sigmoid']}", (), None),
        ("training.batch_size = {choice=['full', 64]}", (), 64),
        ("training.batch_size = {choice=['full', 64]}", ("training.batch_size=full",), "full"),
        ("training.batch_size = {log_integer=[8, 64]}", ("training.batch_size=full",), None),
        ("training.epochs = {fixed=1}", (), {"training.epochs": 1}),
        (NAMED, (), {"network.layers": "two", "network.layers.0.units": 16}),
        (
            NAMED,
            ('network.layers=[{type="dense",units=10}]',),
            {"network.layers": "one", "network.layers.0.bias": True},
        ),
        (NAMED, ("network.layers.0.activation=tanh",), None),
        (
            "optimizer.choice.a = {type='adam', learning_rate=0.003}\n"
            "optimizer.choice.b = {type='momentum'}",
            (),
            {"optimizer": "a"},
        ),
        # What the space fixes is said of the recipe before the rest.
        (
            "optimizer.fixed = {type='momentum', learning_rate=0.1}\n"
            '"optimizer.beta" = {choice=[0.5, 0.9]}\n'
            '"optimizer.learning_rate" = {uniform=[0.001, 1]}',
            (),
            {
                "optimizer": {"type": "momentum", "learning_rate": 0.1},
                "optimizer.beta": 0.9,
                "optimizer.learning_rate": 0.1,
            },
        ),
    ],
)
def test_own_settings(table, changes, expected):
    of = of_space(table, *changes)
    found = own_settings(of)
    if isinstance(expected, (str, int)):
        expected = {next(iter(of.space)): expected}
    assert found == expected
    if found is not None:
        assert of.space.contains(found)
        free = {name for name, scale in of.space.items() if scale.word != "fixed"}
        changed = of.changed(of.space.resolve(found))
        if free == set(of.space):  # then it is the recipe itself
            assert changed == of.changed({})
        json.dumps(found)


def test_the_best_come_first_and_of_equals_the_earlier_one():
    values = [0.5, -math.inf, 0.75, 0.5, math.inf, 0.75]
    expected = {
        "validation_accuracy": [4, 2, 5, 0, 3, 1],
        "validation_cost": [1, 0, 3, 2, 5, 4],
    }
    for objective, order in expected.items():
        found = open_study(InMemoryStorage(), "study", recipe(), objective=objective)
        for value in values:
            add(found, POINT, value)
        add(found, {}, state=TrialState.FAIL)
        add(found, {}, state=TrialState.WAITING)
        add(found, POINT, state=TrialState.RUNNING)
        add(found, POINT, state=TrialState.PRUNED)
        assert [trial.number for trial in found.ranked()] == order
        assert [trial.number for trial in found.complete()] == list(range(6))
        assert len(found.trials()) == 10


def test_the_recipe_of_a_trial(tmp_path):
    found = study(tmp_path)
    add(found, POINT, 0.5)
    made = found.recipe_of(found.trials()[0])
    assert "search" not in made.values
    assert made.values["optimizer"]["learning_rate"] == 0.01
    assert made.values["optimizer"]["beta1"] == pytest.approx(0.95)
    assert made.values["network"]["layers"][0]["units"] == 8
    assert made.values["network"]["layers"][1]["units"] == 10
    assert made.name == "small"
    assert found.recipe == recipe(), "the study's own is as it was"


def test_data_are_those_that_it_began_with(tmp_path):
    found = study(tmp_path)
    found.check_data("one")
    study(tmp_path).check_data("one")
    with pytest.raises(SearchError, match="the data differ from those of the study"):
        study(tmp_path).check_data("two")


BEGIN = """
import sys, time
from pathlib import Path
import optuna.trial
from tests.search.studies import study
print("ready", flush=True)
sys.stdin.readline()
found = study(Path(sys.argv[1]), seed=5)
found.optuna.add_trial(optuna.trial.create_trial(value=0.5))
print(found.id, found.settings)
"""


@pytest.mark.slow
def test_two_processes_begin_one_study(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    both = [
        subprocess.Popen(
            [sys.executable, "-c", BEGIN, str(tmp_path)],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    for process in both:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in both:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    said = [process.communicate()[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert said[0] == said[1]
    found = study(tmp_path)
    assert found.settings == Settings(seed=5)
    assert studies(found.storage) == ["study"]
    assert len(found.trials()) == 2


def test_optuna_says_nothing_and_its_level_stays(tmp_path, capfd):
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.INFO)
    try:
        study(tmp_path)
        study(tmp_path)
        assert optuna.logging.get_verbosity() == optuna.logging.INFO
    finally:
        optuna.logging.set_verbosity(before)
    assert capfd.readouterr() == ("", "")


def test_a_study_is_not_to_be_changed(tmp_path):
    with pytest.raises(dataclasses.FrozenInstanceError):
        study(tmp_path).origin = "other"


def test_a_grid_of_too_many_points_is_refused_before_it_is_laid(tmp_path):
    text = RECIPE.replace("[4, 64] }", "[4, 4000], points = 4000 }")
    text = text.replace("[0.5, 0.99] }", "[0.5, 0.99], points = 90 }")
    storage = open_storage(tmp_path / "study.journal")
    with pytest.raises(SearchError, match="at most 100,000 points, got "):
        open_study(storage, "study", recipe(text=text), sampler="grid")
    assert storage.get_all_studies() == []
