"""What the tests of the command that searches share: a recipe, and studies that it finds."""

from __future__ import annotations

from tests.search.studies import RECIPE, add, fill
from xpnet.recipe import load_recipe
from xpnet.search.study import open_storage, open_study, own_settings

RATE, BETA, UNITS = "optimizer.learning_rate", "optimizer.beta1", "network.layers.0.units"
BEST = {RATE: 0.05, BETA: 0.9, UNITS: 32}
FILES = ["trials.json", "trials.csv", "best.toml"]
SEARCH = ("search", "small.toml")
STOPPING = ("training.epochs=9", "early_stopping.patience=2")
STUDY_PICTURES = "xpnet.search.pictures.study_pictures"


def write(path, text=RECIPE):
    path.write_text(text, encoding="utf-8")


def is_one_line_of_status_2(done):
    assert done.status == 2, done.out
    assert len(done.errors.splitlines()) == 1, done.errors
    assert done.errors.startswith("train.py search: ")
    assert "Traceback" not in done.out
    return True


def opened(name="small-random", where="runs/search/small.journal"):
    return open_study(open_storage(where), name)


def begun(name="small-random", where="runs/search/small.journal", of=None, **settings):
    of = of or load_recipe("small.toml")
    first = own_settings(of)
    return open_study(
        open_storage(where), name, of, first=first, origin="recipe" if first else "", **settings
    )


def filled(n=12, **settings):
    """Begin a study and fill it; the recipe's own settings are trial 0, the best the last one."""
    found = begun(**settings)
    assert found.first is not None
    add(found, found.first, 0.25)
    fill(found, n - 2, lambda point: 0.3 + point[RATE])
    add(found, BEST, 0.9375)
    return found


def fails_if_called(*arguments, **more):
    raise AssertionError(f"this is not to be done: {arguments}, {more}")
