"""Pictures of studies: what is drawn, and that they are the same bytes each time."""

from __future__ import annotations

import dataclasses
import itertools
import math
import subprocess
import sys
from functools import partial
from typing import Any

import matplotlib
import numpy as np
import optuna
import pytest
from optuna.storages import InMemoryStorage

from tests.conftest import ROOT, slow
from tests.report.pictures import ODD_NAMES, size, words
from xpnet.recipe import parse_recipe
from xpnet.report.figures import DPI, VALIDATION, style
from xpnet.search import (
    Choice,
    Fixed,
    Integer,
    LogInteger,
    LogUniform,
    OneMinusLogUniform,
    Space,
    Uniform,
    open_study,
)
from xpnet.search.parameters import parameters
from xpnet.search.pictures import (
    draw_best,
    draw_importances,
    draw_parallel,
    draw_slices,
    study_pictures,
)
from xpnet.search.pictures.axes import View, ticks
from xpnet.search.pictures.best_of import _best_figure
from xpnet.search.pictures.importance import _importances_figure
from xpnet.search.pictures.parallel import _parallel_figure
from xpnet.search.pictures.slices import _place, _points, _slices_figure
from xpnet.search.results import best_of, importances
from xpnet.search.study import Study

pytestmark = [pytest.mark.host, pytest.mark.usefixtures("styled")]

RECIPE = """
loss = "softmax_cross_entropy"
optimizer = "adam"
data = { dataset = "digits" }
network.layers = [{ type = "dense", units = 10 }]
training = { epochs = 3, batch_size = 64 }
[search]
seed = { integer = [0, 9] }
"""
USUAL = Space(
    {
        "optimizer.learning_rate": LogUniform(1e-4, 0.1),
        "optimizer.beta1": OneMinusLogUniform(0.8, 0.999),
        "network.layers.0.units": LogInteger(16, 512),
        "network.layers.0.activation": Choice(["relu", "tanh", "sigmoid"]),
        "network.layers.0.leak": Uniform(0, 1).when({"network.layers.0.activation": "relu"}),
        "training.epochs": Fixed(5),
    }
)
TWO = Space({"optimizer.learning_rate": LogUniform(0.02, 0.3), "kind": Choice(["a", "b"])})
DRAW = {
    "importances": (draw_importances, _importances_figure),
    "slices": (draw_slices, _slices_figure),
    "parallel": (draw_parallel, _parallel_figure),
}
COMPLETE, PRUNED = optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED


@dataclasses.dataclass(frozen=True, eq=False)
class Made(Study):
    """A study whose space is no recipe's, so that its names may be any."""

    own: Space = dataclasses.field(kw_only=True)

    @property
    def space(self) -> Space:
        return self.own


@pytest.fixture
def styled():
    with style():
        yield


def study(space=TWO, values=(), *, name="digits", is_maximised=True, states=None, settings=None):
    """Make a study with a trial for each value, at random points."""
    objective = "validation_accuracy" if is_maximised else "validation_cost"
    plain = open_study(InMemoryStorage(), name, parse_recipe("r", RECIPE), objective=objective)
    rng = np.random.default_rng(0)
    known = parameters(space)
    for i, value in enumerate(values):
        point = space.at(rng.random(len(space)).tolist()) if settings is None else settings[i]
        state = COMPLETE if states is None else states[i]
        diverged = state == COMPLETE and value in (0.0, math.inf)
        plain.optuna.add_trial(
            optuna.trial.create_trial(
                state=state,
                value=value if state == COMPLETE else None,
                params={known[key].label: known[key].to_optuna(one) for key, one in point.items()},
                distributions={known[key].label: known[key].distribution for key in point},
                intermediate_values={1: 0.5, 4: value} if state == PRUNED else {},
                user_attrs={"diverged": "cost is nan"} if diverged else {},
            )
        )
    fields = {field.name: getattr(plain, field.name) for field in dataclasses.fields(plain)}
    return Made(**fields, own=space)


def usual(n=40, **options):
    """Make a study in which the learning rate matters."""
    rng = np.random.default_rng(0)
    points = [USUAL.at(rng.random(len(USUAL)).tolist()) for _ in range(n)]
    values = [
        0.95 - 0.05 * abs(math.log10(point["optimizer.learning_rate"]) + 2) for point in points
    ]
    return study(USUAL, values, settings=points, **options)


def assert_no_overlap(figure):
    """No two texts touch each other, and none leaves the picture."""
    figure.canvas.draw()
    found = [
        text
        for text in figure.findobj(matplotlib.text.Text)
        if text.get_text().strip() and text.get_visible()
    ]
    for axes in figure.axes:  # ticks outside of an axis are not drawn
        for axis, (low, high) in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim())):
            drawn = {id(tick) for tick in axis._update_ticks()}
            for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks()):
                if id(tick) not in drawn or not low <= tick.get_loc() <= high:
                    found = [t for t in found if t not in (tick.label1, tick.label2)]
    boxes = [(text.get_window_extent(), text) for text in found]
    width, height = figure.bbox.size
    for a, one in boxes:
        assert 0 <= a.x0 < a.x1 <= width, one
        assert 0 <= a.y0 < a.y1 <= height, one
    boxes = [(box, text) for box, text in boxes if not text.get_rotation()]
    for (a, one), (b, other) in itertools.combinations(boxes, 2):
        touches = a.x0 < b.x1 and b.x0 < a.x1 and a.y0 + 1 < b.y1 and b.y0 + 1 < a.y1
        assert not touches, (one, other)


def marks(axes):
    """Give the places of all points of a panel, by what they look like."""
    found: dict[str, list[Any]] = {"point": [], "pruned": [], "edge": [], "star": []}
    for points in axes.collections:
        at = np.asarray(points.get_offsets()).tolist()
        if points.get_offset_transform() != axes.transData:
            found["edge"] += at
        elif points.get_sizes()[0] > 100:
            found["star"] += at
        else:
            found["point" if points.get_array() is not None else "pruned"] += at
    return found


def labels_of(axis):
    return [label.get_text() for label in axis.get_ticklabels()]


# All of them


@pytest.mark.slow
@pytest.mark.parametrize("kind", DRAW)
def test_same_bytes(kind):
    draw, make = DRAW[kind]
    png = draw(usual())
    with matplotlib.rc_context({"axes.facecolor": "black", "font.size": 30}):
        assert draw(usual()) == png
    figure = make(usual())
    assert size(png) == tuple(int(one) for one in figure.get_size_inches() * DPI + 1e-6)
    assert size(png)[0] == {"importances": 1200, "slices": 1080, "parallel": 1440}[kind]
    assert_no_overlap(figure)
    assert "digits" in " ".join(words(figure))


CASES: dict[str, Any] = {
    "none": ((), {}),
    "one": ((0.5,), {}),
    "two": ((0.5, 0.9), {}),
    "costs": ((0.5, 90.0, 0.01), {"is_maximised": False}),
    "the same": ((0.5,) * 9, {}),
    "nothing finite": ((math.inf,) * 9, {"is_maximised": False}),
    "one finite": ((*(math.inf,) * 9, 0.3), {"is_maximised": False}),
    "huge": ([10.0 ** (9 * i) for i in range(30)], {"is_maximised": False}),
    "diverged": ((0.0,) * 9, {}),
    "below 0": ([-1e6, -3.0, *(0.01 * i for i in range(9))], {}),
    "pruned": ((0.5, 0.2), {"states": [PRUNED, PRUNED]}),
    "pruned, not finite": ((0.5, math.inf), {"states": [COMPLETE, PRUNED], "is_maximised": False}),
}


@pytest.mark.parametrize("kind", DRAW)
@pytest.mark.parametrize(
    "case", [name if name in ("none", "one", "huge") else slow(name) for name in CASES]
)
def test_extreme_values(kind, case):
    values, options = CASES[case]
    figure = DRAW[kind][1](study(TWO, values, **options))
    assert_no_overlap(figure)
    said = " ".join(words(figure))
    if kind != "importances" and case in ("none", "pruned"):
        assert ("there are no trials yet" if case == "none" else "none of 2 trials is") in said
    if kind == "importances" and case not in ("huge", "below 0"):
        assert ("the same result" if case in ("the same", "diverged") else "too few") in said


def test_all_fixed():
    for kind in ("slices", "parallel"):
        figure = DRAW[kind][1](study(Space({"training.epochs": Fixed(5)}), [0.5]))
        assert "all hyper-parameters are fixed" in words(figure)


TWELVE = Space(
    {
        "network.layers.0": Choice({f"named $x_{i}$ 日本 {'long ' * i}": i for i in range(16)}),
        "a_rather_long_word_without_any_point_in_it_that_has_to_be_divided": Uniform(-1, 1),
        "optimizer.beta1": OneMinusLogUniform(0, 0.99999),
        "optimizer.beta2": OneMinusLogUniform(0.95, 0.96),
        "optimizer.learning_rate": LogUniform(1e-6, 1.0),
        "narrow": LogUniform(1.1e-8, 1.2e-8),
        "training.batch_size": Choice([16, 32, 64]),
        "training.epochs": Integer(1, 3),
        "training.report_every": Integer(1, 1_000_000),
        "switch": Choice([True, False]),
        "network.layers.0.activation": Choice(["relu", ""]).when({"training.batch_size": 16}),
        "network.layers.0.units": LogInteger(16, 1_000_000).when(
            {"network.layers.0.activation": "relu"}
        ),
    }
)


@pytest.mark.parametrize("kind", DRAW)
def test_many_hyper_parameters(kind):
    made = study(TWELVE, np.random.default_rng(1).random(12).tolist(), name="$x_1$ 日本 " * 40)
    assert_no_overlap(DRAW[kind][1](made))


@pytest.mark.parametrize("kind", DRAW)
def test_odd_names(kind):
    space = Space(
        {name: LogUniform(1e-3, 1) for name in ODD_NAMES[::2]}
        | {"choice": Choice({name: 1 for name in ODD_NAMES if name})}
    )
    figure = DRAW[kind][1](study(space, np.random.default_rng(1).random(12).tolist(), name="a$b$_"))
    assert_no_overlap(figure)
    odd = [text for text in figure.findobj(matplotlib.text.Text) if "$" in text.get_text()]
    assert odd
    assert not any(text.get_parse_math() for text in odd)


# Each of them


def test_importances():
    made = usual()
    figure = _importances_figure(made)
    (axes,) = figure.axes
    shares = importances(made)
    assert labels_of(axes.yaxis) == list(shares)
    assert [bar.get_width() for bar in axes.patches] == list(shares.values())
    assert axes.yaxis_inverted()
    assert [text.get_text() for text in axes.texts] == [f"{s:.1%}" for s in shares.values()]
    said = " ".join(words(figure))
    assert "by PED-ANOVA, from 40 trials" in said


def test_slices():
    made = usual()
    figure = _slices_figure(made)
    *panels, bar = [axes for axes in figure.axes if axes.get_visible()]
    assert bar.get_title() == "trial"
    names = [axes.get_title().replace("\n", "") for axes in panels]
    assert names == [name for name in USUAL if name != "training.epochs"]
    best = made.ranked()[0]
    for axes, name in zip(panels, names, strict=True):
        scale = USUAL[name]
        settings = [made.settings_of(trial) for trial in made.trials()]
        there = [
            (scale.position(one[name]), trial.value)
            for trial, one in zip(made.trials(), settings, strict=True)
            if name in one
        ]
        found = marks(axes)
        assert (len(found["point"]), found["pruned"], found["edge"]) == (len(there), [], [])
        assert sorted(y for _, y in found["point"]) == sorted(y for _, y in there)
        if not isinstance(scale, Choice):
            np.testing.assert_allclose(sorted(found["point"]), sorted(there))
        has_best = name in made.settings_of(best)
        assert [y for _, y in found["star"]] == [best.value] * has_best
    assert 0 < len(marks(panels[4])["point"]) < 40  # where there is a leak
    rate, beta, units, activation, _ = panels
    assert labels_of(rate.xaxis) == ["0.0001", "0.001", "0.01", "0.1"]
    assert labels_of(beta.xaxis) == ["0.9", "0.99", "0.999"]
    assert np.ptp(np.diff(beta.get_xticks())) < 1e-9
    assert labels_of(units.xaxis) == ["16", "32", "64", "128", "256", "512"]
    assert labels_of(activation.xaxis) == ["relu", "tanh", "sigmoid"]
    for option, middle in zip(("relu", "tanh", "sigmoid"), activation.get_xticks(), strict=True):
        places = [
            _place(USUAL["network.layers.0.activation"], point, "network.layers.0.activation")
            for point in _points(made)
            if point.settings["network.layers.0.activation"] == option
        ]
        assert len(set(places)) == len(places) > 1
        assert max(abs(place - middle) for place in places) < 0.1


@pytest.mark.parametrize("is_maximised", [True, False])
def test_what_is_far_worse_is_at_the_edge(is_maximised):
    values = [0.9 + 0.001 * i if is_maximised else 0.1 - 0.001 * i for i in range(40)]
    values[3:5] = [0.0, 1e-9] if is_maximised else [math.inf, 1e9]
    states = [COMPLETE] * 40
    states[7], states[8], values[8] = PRUNED, PRUNED, -1.0 if is_maximised else math.inf
    figure = _slices_figure(study(TWO, values, is_maximised=is_maximised, states=states))
    for axes in figure.axes[:2]:
        found = marks(axes)
        assert {kind: len(at) for kind, at in found.items()} == {
            "point": 36,
            "pruned": 1,
            "edge": 3,
            "star": 1,
        }
        assert {y for _, y in found["edge"]} == {0.035 if is_maximised else 0.965}
        (pruned,) = found["pruned"]
        assert pruned[1] == values[7]
        low, high = axes.get_ylim()
        assert high - low < 0.06
        assert all(low < y < high for _, y in found["point"])
    said = words(figure)
    assert {"pruned, at last value", "worse than shown, or diverged"} <= set(said)
    assert "best, trial 39" in said
    words_of = "accuracy" if is_maximised else "cost"
    assert f"validation {words_of} against each hyper-parameter" in " ".join(said)
    assert "40 trials: 38 complete, 2 pruned" in said


def test_costs_on_a_logarithmic_axis():
    (axes, *_) = _slices_figure(study(TWO, (0.01, 0.1, 1.0, 2.0), is_maximised=False)).axes
    assert axes.get_yscale() == "log"
    (axes, *_) = _slices_figure(study(TWO, (0.2, 0.1, 1.0), is_maximised=False)).axes
    assert axes.get_yscale() == "linear"


def test_the_view_of_few_and_of_many():
    def of(values, *, is_maximised=True):
        view = View.of(values, is_maximised=is_maximised)
        return view and (view.scale.low, view.scale.high)[:: 1 if is_maximised else -1]

    assert of([]) is None
    assert of([math.nan, math.inf, -math.inf]) is None
    assert of([0.2, 0.9]) == (0.2, 0.9)  # of two none is an exception
    assert of([0.2, 0.9], is_maximised=False) == (0.9, 0.2)
    assert of([1e30, 0.3, 0.1], is_maximised=False) == pytest.approx((6.3, 0.1))
    assert of([i / 100 for i in range(101)]) == (0.0, 1.0)  # nothing is far from the others
    view = View.of([0.5, 1.0], [0.2, 2.0], is_maximised=True)
    assert view is not None
    assert [view.fraction(y) for y in (0.1, math.nan, 0.5, 1.25, 2.0)] == [0, 0, 0, 0.5, 1]


@pytest.mark.parametrize(
    ("scale", "labels"),
    [
        (LogUniform(0.02, 0.3), "0.02 0.05 0.1 0.2"),
        (LogUniform(1e-6, 1), "1e-6 0.0001 0.01 1"),
        (OneMinusLogUniform(0.5, 0.97), "0.5 0.8 0.9 0.95"),
        (OneMinusLogUniform(0.9, 0.9999), "0.9 0.99 0.999 0.9999"),
        (Uniform(0, 0.5), "0 0.1 0.2 0.3 0.4 0.5"),
        (Integer(1, 3), "1 2 3"),
        (LogInteger(10, 300), "10 20 50 100 200"),
        (Uniform(0.5, 0.50009), "0.5 0.50002 0.50004 0.50006 0.50008"),
        (Uniform(1000.1, 1000.9), "1000.2 1000.4 1000.6 1000.8"),
    ],
)
def test_ticks(scale, labels):
    found = ticks(scale, 6)
    assert [label for _, label in found] == labels.split()
    places = [scale.position(type(scale.low)(label)) for _, label in found]
    assert [place for place, _ in found] == pytest.approx(places, abs=1e-9)


def test_parallel():
    made = usual()
    figure = _parallel_figure(made)
    (axes,) = figure.axes
    order = list(importances(made))
    # Optuna 4 leaves out hyper-parameters that only some trials have.
    order += [n for n, s in USUAL.items() if n not in order and not isinstance(s, Fixed)]
    heads = [text.get_text().replace("\n", "") for text in axes.texts]
    heads = [head for head in heads if head in USUAL or head == "validation accuracy"]
    assert heads == [*order, "validation accuracy"]
    ranked = made.ranked()
    lines = axes.get_lines()[: len(ranked)]
    for line, trial in zip(lines, reversed(ranked), strict=True):
        settings = made.settings_of(trial)
        expected = [USUAL[n].position(settings[n]) if n in settings else math.nan for n in order]
        np.testing.assert_allclose(line.get_ydata()[:-1], expected)
    assert [line.get_linewidth() for line in lines] == [1.0] * (len(ranked) - 4) + [2.6] * 4
    assert lines[-1].get_ydata()[-1] == 1.0
    assert lines[-1].get_color() == VALIDATION
    said = words(figure)
    assert {"0.0001", "0.1", "0.8", "0.999", "16", "512", "relu", "tanh", "sigmoid"} <= set(said)
    assert f"trial {ranked[0].number}, {ranked[0].value:.4g}; " in " ".join(said)


def test_a_value_between_two_gaps_is_a_point():
    space = Space(
        {
            "k": Integer(1, 3),
            "a": Uniform(0, 1).when({"k": 1}),
            "b": Uniform(0, 1).when({"k": 2}),
            "c": Uniform(0, 1).when({"k": 1}),
        }
    )
    figure = _parallel_figure(study(space, [0.5], settings=[{"k": 2, "b": 0.25}]))
    line = figure.axes[0].get_lines()[0]
    assert line.get_ydata().tolist() == pytest.approx(
        [0.5, math.nan, 0.25, math.nan, 0.5], nan_ok=True
    )
    assert line.get_markevery() == [0, 2, 4]


# Best of n


def best(curves, *, is_maximised=True, so_far=None):
    figure = _best_figure(curves, is_maximised, "a_b $c$", "$t_1$", so_far)
    assert_no_overlap(figure)
    return figure


def test_best():
    rng = np.random.default_rng(0)
    curves = {"random": rng.random(30).tolist(), "_grid $x_1$": rng.random(9).tolist()}
    figure = best(curves, so_far=curves["random"])
    (axes,) = figure.axes
    *means, steps = axes.get_lines()
    for line, (label, values) in zip(means, curves.items(), strict=True):
        n = range(1, len(values) + 1)
        assert list(line.get_xdata()) == list(n), label
        expected = [best_of(values, k, is_maximised=True)[0] for k in n]
        np.testing.assert_allclose(line.get_ydata(), expected)
    assert list(steps.get_ydata()) == np.maximum.accumulate(curves["random"]).tolist()
    assert steps.get_drawstyle() == "steps-post"
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [
        *curves,
        "actual best so far",
    ]
    assert axes.get_xlim() == (1, 30)
    assert axes.get_xticks()[0] == 1
    assert axes.get_ylabel() == "a_b $c$"
    for band, values in zip(axes.collections, curves.values(), strict=True):
        _, ends = best_of(values, 1, is_maximised=True, quantiles=(0.05, 0.95))
        at_first = [y for x, y in band.get_paths()[0].vertices if x == 1]
        assert [min(at_first), max(at_first)] == pytest.approx(ends)
    options: Any = {"is_maximised": True, "objective": "o", "title": "t"}
    png = draw_best(curves, **options)
    assert size(png) == (1080, 648)
    assert draw_best(curves, **options) == png


def test_medians_where_not_all_is_finite():
    values = [math.inf, 3.0, 2.0, 1.0]
    figure = best({"a": values}, is_maximised=False, so_far=values)
    line, steps = figure.axes[0].get_lines()
    assert np.all(np.isfinite(line.get_ydata()))
    assert steps.get_xydata().tolist() == [[2, 3], [3, 2], [4, 1]]
    assert any("median" in word for word in words(figure))


@pytest.mark.parametrize(
    ("curves", "is_maximised"),
    [
        ({"a": [0.5], "b": [0.7, 0.8], "c": []}, True),
        ({"a": [0.5] * 9}, True),
        ({"a": [1e30, *(0.1 + 0.01 * i for i in range(30))]}, False),
        ({"a": [math.nan, 0.5]}, True),
        ({"a": [*(0.1,) * 8, *(0.9 + 0.001 * i for i in range(60))]}, True),
        ({f"{i} " + "long " * 40: [0.1 * i, 1.0] for i in range(14)}, True),
        ({"a": (np.arange(1000) / 1000).tolist()}, True),
        ({"a": [0.001, 1.0, 10.0]}, False),
    ],
)
def test_best_of_extreme_values(curves, is_maximised):
    assert len(best(curves, is_maximised=is_maximised, so_far=[0.3, 0.2, 0.4]).axes) == 1


def test_best_of_nothing():
    assert "there are no values" in words(best({}))
    assert "there are no values" in words(best({"a": []}))
    assert "no value is finite" in words(best({"a": [math.inf]}, is_maximised=False))
    assert len(best({}, so_far=[0.1, 0.2]).axes) == 1


def test_the_pictures_of_a_study(monkeypatch):
    made, seen = usual(), {}

    def draw(name, *given, **more):
        seen[name] = (*given, more)
        return b"PNG"

    for name in ("best", *DRAW):
        monkeypatch.setattr(f"xpnet.search.pictures.draw_{name}", partial(draw, name))
    pictures = study_pictures(made)
    assert list(pictures) == ["importances.png", "slices.png", "parallel.png", "best.png"]
    assert {one() for one in pictures.values()} == {b"PNG"}
    assert [seen[name] for name in DRAW] == [(made, {})] * 3
    values = [trial.value for trial in made.trials()]
    assert seen["best"] == (
        {"digits": values},
        {
            "is_maximised": True,
            "objective": "validation_accuracy",
            "title": "r",
            "so_far": values,
        },
    )


@pytest.mark.slow
def test_matplotlib_is_imported_late():
    code = (
        "import sys, xpnet.search.pictures as p; print('matplotlib' in sys.modules); "
        "p.draw_best({'a': [1.0]}, is_maximised=True, objective='o', title='t'); "
        "print('matplotlib.pyplot' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["False", "False"]
