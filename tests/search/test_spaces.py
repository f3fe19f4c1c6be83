"""Scales and spaces: maps that go back and forth, conditions, grids, tables, and refusals."""

from __future__ import annotations

import itertools
import math
import re
import tomllib
from typing import Any

import pytest
import tomli_w
from hypothesis import assume, given
from hypothesis import strategies as st

from xpnet.spaces import (
    KINDS,
    Choice,
    Fixed,
    Integer,
    LogInteger,
    LogUniform,
    OneMinusLogUniform,
    Range,
    Scale,
    Space,
    Uniform,
)

pytestmark = pytest.mark.host

NAN, INF = math.nan, math.inf
BELOW_1 = math.nextafter(1, 0)
FRACTIONS = st.floats(0, 1)
LETTERS = 'ab.1 "\né'


def ordered(values):
    """Draw two different values, the lower one first."""
    return st.tuples(values, values).filter(lambda pair: pair[0] != pair[1]).map(sorted)


RANGES: dict[type[Range], Any] = {
    Uniform: ordered(st.floats(-1e300, 1e300)),
    LogUniform: ordered(st.floats(1e-300, 1e300)),
    OneMinusLogUniform: ordered(st.floats(0, BELOW_1)),
    Integer: ordered(st.integers(-(2**53), 2**53)),
    LogInteger: ordered(st.integers(1, 2**53)),
}
# As they are used, next to all that can be.
USUAL: dict[type[Range], Any] = {
    Uniform: ordered(st.floats(-1, 1, width=16)),
    LogUniform: ordered(st.sampled_from([10.0**-k for k in range(9)])),
    OneMinusLogUniform: ordered(st.sampled_from([0.0, 0.5, 0.9, 0.99, 0.999, 0.9999])),
    Integer: ordered(st.integers(-20, 20)),
    LogInteger: ordered(st.integers(1, 4096)),
}


@st.composite
def ranges(draw, among=RANGES):
    kind = draw(st.sampled_from(list(among)))
    low, high = draw(among[kind] if draw(st.booleans()) else USUAL[kind])
    return kind(low, high, points=draw(st.integers(1, 9)))


@st.composite
def choices(draw):
    if draw(st.booleans()):
        names = draw(st.lists(st.text(LETTERS, min_size=1), min_size=2, max_size=5, unique=True))
        values = st.one_of(st.integers(), st.lists(st.integers()), st.just({"type": "adam"}))
        return Choice({name: draw(values) for name in names})
    plain = st.one_of(st.text(LETTERS), st.booleans(), st.integers(), st.floats(allow_nan=False))
    return Choice(draw(st.lists(plain, min_size=2, max_size=5, unique=True)))


SCALES = st.one_of(ranges(), choices(), st.builds(Fixed, st.integers()))


@given(SCALES, FRACTIONS)
def test_what_a_scale_gives_is_its_own(scale, u):
    for fraction in (u, 0, 1, 0.0, 1.0, BELOW_1):
        setting = scale.at(fraction)
        assert scale.contains(setting)
        assert 0 <= scale.position(setting) <= 1
        if isinstance(scale, Range):
            assert type(setting) is (int if scale.whole else float)
            assert scale.low <= setting <= scale.high
    for setting in (*scale.grid(), *scale.extremes()):
        assert scale.contains(setting)
        assert 0 <= scale.position(setting) <= 1


@given(SCALES)
def test_tables_say_the_same_again(scale):
    assert Scale.from_table(scale.to_table()) == scale
    assert list(scale.to_table()) == [scale.word] + ["points"] * (getattr(scale, "points", 3) != 3)


@given(ranges())
def test_tables_are_toml(scale):
    bound = scale.when({"optimizer": ["adam", "sgd"], "n.0": 3})
    space = Space({"optimizer": Choice(["sgd", "adam", "x"]), "n.0": Integer(1, 3), "y": bound})
    tables = tomllib.loads(tomli_w.dumps({"search": space.to_tables()}))["search"]
    again = Space.from_tables(tables)
    assert dict(again) == dict(space)
    assert list(again) == list(space)
    assert again["y"].condition == {"optimizer": ("adam", "sgd"), "n.0": (3,)}


@given(ranges(), FRACTIONS, FRACTIONS)
def test_a_scale_does_not_fall(scale, u, v):
    u, v = sorted((u, v))
    assume(v - u > 1e-9 or u == v)
    assert scale.at(u) <= scale.at(v)
    assert scale.position(scale.at(u)) <= scale.position(scale.at(v))


@given(ranges(among=USUAL), FRACTIONS)
def test_positions_lead_back(scale, u):
    setting = scale.at(u)
    again = scale.at(scale.position(setting))
    if scale.whole:
        assert again == setting
    else:
        span = scale.high - scale.low
        assert again == pytest.approx(setting, rel=1e-12, abs=1e-15 * span)
        assert scale.position(setting) == pytest.approx(u, abs=1e-9)
    for end, fraction in ((scale.low, 0), (scale.high, 1)):
        assert scale.at(fraction) == pytest.approx(end, rel=1e-14, abs=1e-15)
        assert scale.at(scale.position(end)) == pytest.approx(end, rel=1e-14, abs=1e-15)


@given(ranges(), FRACTIONS)
def test_positions_lead_back_within_rounding(scale, u):
    """Of a logarithm near 700 a rounding is 1e-13 of the number."""
    setting = scale.at(u)
    again = scale.at(scale.position(setting))
    span = scale.high - scale.low
    if isinstance(scale, OneMinusLogUniform):
        assert 1 - again == pytest.approx(1 - setting, rel=1e-13)
    else:
        is_log = isinstance(scale, (LogUniform, LogInteger))
        assert abs(again - setting) <= (1e-12 * setting if is_log else 1e-15 * span) + scale.whole


@given(choices())
def test_choices_have_equal_parts(scale):
    n = len(scale.settings)
    found = [scale.at((i + 0.5) / n) for i in range(n)]
    assert found == list(scale.settings) == scale.grid() == scale.extremes()
    assert [scale.position(setting) for setting in found] == [(i + 0.5) / n for i in range(n)]
    for setting in found:
        assert scale.at(scale.position(setting)) == setting
        named = isinstance(scale.options, dict)
        assert scale.value(setting) == (scale.options[setting] if named else setting)


def test_steps_are_equal_where_they_matter():
    def grid(scale):
        return pytest.approx([scale.at(u) for u in (0, 0.25, 0.5, 0.75, 1)], rel=1e-12)

    assert grid(Uniform(0, 4)) == [0, 1, 2, 3, 4]
    assert grid(LogUniform(1e-4, 1)) == [1e-4, 1e-3, 1e-2, 1e-1, 1]
    assert grid(OneMinusLogUniform(0.9, 0.99999)) == [0.9, 0.99, 0.999, 0.9999, 0.99999]
    assert grid(OneMinusLogUniform(0, 0.9999)) == [0, 0.9, 0.99, 0.999, 0.9999]
    # from 1/2 to 4 1/2, and from 1/2 to 128
    assert [Integer(1, 4).at(u) for u in (0, 0.3, 0.45, 0.9, 1)] == [1, 2, 2, 4, 4]
    assert LogInteger(1, 127).at(0.5) == 8  # the middle of log(1/2) and log(127 1/2) is log 7.98
    assert LogInteger(1, 127).position(8) == pytest.approx(0.5, abs=1e-3)


@pytest.mark.parametrize(
    ("scale", "grid"),
    [
        (Uniform(0, 6), [1, 3, 5]),
        (Uniform(0, 4, points=1), [2]),
        (LogUniform(1e-6, 1), [1e-5, 1e-3, 1e-1]),
        (OneMinusLogUniform(0, 0.999999), [0.9, 0.999, 0.99999]),
        (Integer(1, 2, points=10), [1, 2]),
        (Integer(1, 9), [2, 5, 8]),
        (LogInteger(1, 3, points=50), [1, 2, 3]),
        (Choice(["b", "a"]), ["b", "a"]),
        (Choice({"x": [1], "y": 2}), ["x", "y"]),
        (Fixed(3), [3]),
    ],
)
def test_grids(scale, grid):
    found = scale.grid()
    if isinstance(scale, Range):
        assert found == pytest.approx(grid, rel=1e-12)
    assert isinstance(scale, Range) or found == grid


def neighbours():
    for x in (1e-300, 0.1, 1.0, 1e300):
        yield LogUniform(x, math.nextafter(x, INF))
        yield Uniform(x, math.nextafter(x, INF))
    yield Uniform(0, 5e-324)
    yield Uniform(-8e307, 8e307)
    yield LogUniform(5e-324, 1e308)
    yield LogUniform(1e-300, 1e300)
    yield OneMinusLogUniform(0, 5e-324)
    yield OneMinusLogUniform(0, BELOW_1)
    yield OneMinusLogUniform(math.nextafter(BELOW_1, 0), BELOW_1)
    yield OneMinusLogUniform(0.1, math.nextafter(0.1, 1))
    yield Integer(2**53 - 1, 2**53)
    yield Integer(-(2**53), 2**53)
    yield LogInteger(2**53 - 1, 2**53)
    yield LogInteger(1, 2**53)


@pytest.mark.parametrize("scale", list(neighbours()), ids=repr)
def test_extreme_bounds(scale):
    found = [scale.at(u) for u in (0, 1e-300, 0.25, 0.5, 0.75, BELOW_1, 1)]
    assert found == sorted(found)
    assert all(map(scale.contains, found))
    assert all(map(math.isfinite, found))
    assert found[0] == pytest.approx(scale.low, rel=1e-12, abs=1)
    assert found[-1] == pytest.approx(scale.high, rel=1e-12, abs=1)
    assert [0 <= scale.position(setting) <= 1 for setting in found] == [True] * len(found)
    assert scale.position(scale.low) <= scale.position(scale.high)


@pytest.mark.parametrize(
    ("scale", "inside", "outside"),
    [
        (Uniform(0, 1), [0, 1, 0.0, 0.5, 1.0], [True, -1e-9, 1.1, NAN, INF, "0.5", None, [0.5]]),
        (LogUniform(1, 2), [1, 1.5, 2], [True, 0, 2.1, NAN]),
        (OneMinusLogUniform(0, 0.9), [0, 0.9], [False, BELOW_1, -0.1]),
        (Integer(0, 3), [0, 1, 3], [True, 1.0, 1.5, 4, -1, "1", NAN]),
        (LogInteger(1, 3), [1, 3], [True, 2.0, 0]),
        (Choice(["a", 2]), ["a", 2], ["b", None, ["a"], {}]),
        (Choice({"a": 2, "b": [3]}), ["a", "b"], [2, [3], None]),
        (Fixed("x"), ["x"], ["y", None, 1]),
    ],
)
def test_what_is_contained(scale, inside, outside):
    assert all(scale.contains(setting) for setting in inside)
    assert not any(scale.contains(setting) for setting in outside)


REFUSED: list[tuple[Any, str]] = [
    # bounds
    ({"log_uniform": [0, 1]}, "log_uniform: low must be greater than 0, got low=0 and high=1"),
    ({"log_uniform": [-1, 1]}, "low must be greater than 0, got low=-1 and"),
    ({"log_uniform": [2, 1]}, "log_uniform: low must be less than high, got low=2 and high=1"),
    ({"uniform": [1, 1.0]}, "uniform: low must be less than high, got low=1 and high=1"),
    ({"uniform": [0, -0.0]}, "uniform: low must be less than high"),
    ({"integer": [3, 3]}, "integer: low must be less than high, got low=3 and high=3"),
    ({"uniform": [NAN, 1]}, "uniform: low must be a finite number, got nan"),
    ({"uniform": [0, NAN]}, "uniform: high must be a finite number, got nan"),
    ({"log_uniform": [1, INF]}, "log_uniform: high must be a finite number, got inf"),
    ({"uniform": [-INF, 1]}, "uniform: low must be a finite number, got -inf"),
    ({"uniform": [0, 10**400]}, "uniform: high must be a finite number, got 1000"),
    ({"uniform": [-1e308, 1e308]}, "uniform: high - low must be finite, got low=-1e+308 and"),
    ({"uniform": [False, True]}, "uniform: low must be a finite number, got False"),
    ({"integer": [0, True]}, "integer: high must be an integer, got True"),
    ({"uniform": ["0", 1]}, "uniform: low must be a finite number, got '0'"),
    ({"uniform": [0, None]}, "uniform: high must be a finite number, got None"),
    ({"integer": [1, 2.0]}, "integer: high must be an integer, got 2.0"),
    ({"integer": [1, 2**53 + 1]}, "integer: high must lie in [-2^53, 2^53], got 9007199254740993"),
    ({"log_integer": [1.5, 3]}, "log_integer: low must be an integer, got 1.5"),
    ({"log_integer": [0, 3]}, "log_integer: low must be at least 1, got low=0 and high=3"),
    ({"one_minus_log_uniform": [0.9, 1]}, "at least 0 and high less than 1, got low"),
    ({"one_minus_log_uniform": [-1, 0.9]}, "low must be at least 0 and high less than 1"),
    ({"one_minus_log_uniform": [2, 3]}, "low must be at least 0 and high less than 1"),
    # their form
    ({"uniform": [1]}, "uniform must be a list [low, high], got [1]"),
    ({"uniform": [1, 2, 3]}, "uniform must be a list [low, high], got [1, 2, 3]"),
    ({"uniform": 3}, "uniform must be a list [low, high], got 3"),
    ({"uniform": "ab"}, "uniform must be a list [low, high], got 'ab'"),
    ({"uniform": {"low": 1, "high": 2}}, "uniform must be a list [low, high], got {'low'"),
    # points
    ({"uniform": [0, 1], "points": 0}, "uniform: points must be at least 1, got 0"),
    ({"uniform": [0, 1], "points": -3}, "uniform: points must be at least 1, got -3"),
    ({"uniform": [0, 1], "points": 2.0}, "uniform: points must be an integer, got 2.0"),
    ({"uniform": [0, 1], "points": True}, "uniform: points must be an integer, got True"),
    ({"choice": [1, 2], "points": 3}, "choice: unknown option 'points'; valid options: when"),
    ({"fixed": 1, "points": 3}, "fixed: unknown option 'points'; valid options: when"),
    # choices
    ({"choice": ["a"]}, "choice must be a list, or a table of names and values, with at least two"),
    ({"choice": []}, "with at least two entries, got []"),
    ({"choice": {"a": 1}}, "with at least two entries, got {'a': 1}"),
    ({"choice": "ab"}, "with at least two entries, got 'ab'"),
    ({"choice": 3}, "with at least two entries, got 3"),
    ({"choice": ["a", "b", "a"]}, "choice: values must be distinct, got ['a', 'b', 'a']"),
    ({"choice": [1, True]}, "choice: values must be distinct, got [1, True]"),
    ({"choice": [1, 1.0]}, "choice: values must be distinct, got [1, 1.0]"),
    ({"choice": [1.0, NAN]}, "choice: values must not be nan, got [1.0, nan]"),
    ({"choice": ["a", {"type": "b"}]}, "numbers or booleans, or have names as in choice = { NAME"),
    ({"choice": [[1], [2]]}, "numbers or booleans, or have names as in choice = { NAME = ... }, "),
    ({"choice": ["a", None]}, "values must be strings, numbers or booleans, or have names"),
    ({"choice": {"": 1, "b": 2}}, "choice: names must be strings, got ['', 'b']"),
    ({"choice": {1: 1, "b": 2}}, "choice: names must be strings, got [1, 'b']"),
    # words
    ({}, f"must have exactly one scale of {', '.join(KINDS)}; got an empty table"),
    (
        {"loguniform": [1, 2]},
        "unknown scale 'loguniform'; did you mean 'log_uniform'? Valid scales: ",
    ),
    ({"uniform": [1, 2], "fixed": 1}, "must have exactly one scale of uniform, log_uniform, one"),
    ({"uniform": [1, 2], "fixed": 1}, "; got uniform, fixed"),
    (
        {"uniform": [1, 2], "log": True},
        "unknown option 'log'; valid options: points, when",
    ),
    ({"when": {"a": 1}}, "log_integer, choice, fixed; got when"),
    # conditions
    ({"fixed": 1, "when": "a"}, "when must be a table of hyper-parameters and values, got 'a'"),
    ({"fixed": 1, "when": ["a"]}, "when must be a table of hyper-parameters and values, got ['a']"),
    (
        {"fixed": 1, "when": {"a": []}},
        "one value or a list of values for 'a', got []",
    ),
    (
        {"fixed": 1, "when": {"a": {}}},
        "one value or a list of values for 'a', got {}",
    ),
    ({"fixed": 1, "when": {"a": None}}, "one value or a list of values for 'a', got None"),
    ({"fixed": 1, "when": {"a": [["b"]]}}, "one value or a list of values for 'a', got [['b']]"),
]


@pytest.mark.parametrize(("table", "said"), REFUSED)
def test_wrong_scales(table, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        Scale.from_table(table)
    with pytest.raises(ValueError, match=re.escape(said)) as caught:
        Space.from_tables({"fine": {"fixed": 1}, "optimizer.beta1": table})
    assert str(caught.value).startswith("optimizer.beta1: ")
    assert len(str(caught.value)) < 400


def test_every_kind_is_refused_something():
    assert {word for table, _ in REFUSED for word in table} >= set(KINDS)


A_OR_B = Choice(["a", "b"])


@pytest.mark.parametrize(
    ("scales", "said"),
    [
        ({}, "a space must have at least one hyper-parameter, got {}"),
        ([("x", A_OR_B)], "a space must have at least one hyper-parameter, got [("),
        ({"x": 3}, "x must be a scale, such as LogUniform(1e-4, 0.1), got 3"),
        ({"x": {"fixed": 3}}, "x must be a scale, such as LogUniform(1e-4, 0.1), got {'fixed': 3}"),
        (
            {"x": Fixed(1).when({"y": "a"})},
            "x: when must name a hyper-parameter before it (there is none), got 'y'",
        ),
        (
            {"x": Fixed(1).when({"y": "a"}), "y": A_OR_B},
            "x: when must name a hyper-parameter before it (there is none), got 'y'",
        ),
        ({"x": A_OR_B.when({"x": "a"})}, "x: when must name a hyper-parameter before it (there"),
        (
            {"w": A_OR_B, "x": Fixed(1).when({"y": "a"})},
            "x: when must name a hyper-parameter before it (w), got 'y'",
        ),
        *(
            (
                {"r": scale, "x": Fixed(1).when({"r": 0.5})},
                f"choice, fixed or integer hyper-parameter, got 'r', which is {scale.word}",
            )
            for scale in (
                *(Uniform(0, 1), LogUniform(0.1, 1), OneMinusLogUniform(0, 0.9)),
                LogInteger(1, 2),
            )
        ),
        (
            {"y": A_OR_B, "x": Fixed(1).when({"y": "c"})},
            "x: when requires y to be 'c', which",
        ),
        (
            {"y": A_OR_B, "x": Fixed(1).when({"y": ["a", "c"]})},
            "x: when requires y to be 'c', which is not one",
        ),
        (
            {"y": Integer(1, 3), "x": Fixed(1).when({"y": 4})},
            "x: when requires y to be 4, which",
        ),
        (
            {"y": Integer(1, 3), "x": Fixed(1).when({"y": 1.0})},
            "x: when requires y to be 1.0",
        ),
        (
            {"y": Fixed("z"), "x": Fixed(1).when({"y": "a"})},
            "x: when requires y to be 'a'",
        ),
        (
            {"y": Choice({"n": 1, "m": 2}), "x": Fixed(1).when({"y": 1})},
            "x: when requires y to be 1, which is not one of its values",
        ),
        (
            {
                "y": A_OR_B,
                "z": A_OR_B.when({"y": "a"}),
                "x": Fixed(1).when({"y": "b", "z": "a"}),
            },
            "x never exists: its conditions leave no value of y",
        ),
    ],
)
def test_wrong_spaces(scales, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        Space(scales)


@pytest.mark.parametrize("conditions", [{"a": []}, {"a": [None]}, {"a": object()}, {"a": b"x"}])
def test_wrong_conditions(conditions):
    with pytest.raises(ValueError, match="when must give one value or a list of values for 'a'"):
        Fixed(1).when(conditions)


NESTED = Space(
    {
        "optimizer": Choice({"adam": {"type": "adam"}, "sgd": {"type": "sgd"}, "none": []}),
        "rate": LogUniform(1e-4, 1, points=2).when({"optimizer": ["adam", "sgd"]}),
        "layers": Integer(1, 3).when({"optimizer": "adam"}),
        "units": LogInteger(1, 64, points=2).when({"layers": [2, 3], "optimizer": "adam"}),
        "epochs": Fixed(5),
    }
)


def test_a_condition_holds_all_the_way_up():
    assert NESTED.at([0, 0.5, 0.99, 0.5, 0]) == {
        "optimizer": "adam",
        "rate": pytest.approx(0.01),
        "layers": 3,
        "units": 6,
        "epochs": 5,
    }
    assert list(NESTED.at([0, 0.5, 0, 0.5, 0])) == ["optimizer", "rate", "layers", "epochs"]
    assert list(NESTED.at([0.5, 0.5, 0.99, 0.5, 0])) == ["optimizer", "rate", "epochs"]
    assert NESTED.at([0.99, 0.5, 0.99, 0.5, 0]) == {"optimizer": "none", "epochs": 5}
    for n in (4, 6):
        with pytest.raises(ValueError, match="zip"):
            NESTED.at([0.5] * n)


@given(st.tuples(*[FRACTIONS] * 5))
def test_points_are_contained(u):
    point = NESTED.at(u)
    assert NESTED.contains(point)
    for name in point:
        assert not NESTED.contains({key: point[key] for key in point if key != name})
        assert NESTED.exists(name, point)
    for name in set(NESTED) - set(point):
        assert not NESTED.exists(name, point)
        setting = NESTED[name].at(0.5)
        with_it = {key: {**point, name: setting}[key] for key in NESTED if key in (*point, name)}
        assert not NESTED.contains(with_it)


def test_what_is_no_point():
    point = NESTED.at([0, 0.5, 0.99, 0.5, 0])
    assert NESTED.contains(point)
    for change in (
        {"optimizer": "adan"},
        {"rate": 2.0},
        {"layers": 1},
        {"layers": 4},
        {"layers": 2.0},
        {"units": 6.5},
        {"epochs": 6},
        {"more": 1},
    ):
        assert not NESTED.contains({**point, **change})
    assert not NESTED.contains({})
    assert not NESTED.contains(dict(reversed(point.items())))


def test_the_grid_of_a_space():
    grid = NESTED.grid()
    # adam: two rates, of three numbers of layers two with two of units; sgd: two rates; none
    assert len(grid) == 2 * (1 + 2 + 2) + 2 + 1
    assert len({tuple(point.items()) for point in grid}) == len(grid)
    assert all(map(NESTED.contains, grid))
    plain = Space({"x": Uniform(0, 1, points=4), "y": A_OR_B, "z": Integer(1, 2)})
    expected = itertools.product(plain["x"].grid(), "ab", [1, 2])
    assert [tuple(point.values()) for point in plain.grid()] == list(expected)


def test_settings_stand_for_values():
    point = NESTED.at([0.5, 0.5, 0, 0, 0])
    assert NESTED.resolve(point) == {
        "optimizer": {"type": "sgd"},
        "rate": pytest.approx(0.01),
        "epochs": 5,
    }
    # A study may say 1 for true, and 2.0 for 2.
    assert Choice([True, False]).value(1) is True
    assert type(Choice([1, 2]).value(2.0)) is int


def test_settings_before():
    before = NESTED.settings_before
    assert before("optimizer") == before("epochs") == {}
    assert before("rate") == {"optimizer": "adam"}
    assert before("units") == {"optimizer": "adam", "layers": 2}
    assert list(before("units")) == ["optimizer", "layers"]
    assert NESTED.all_before("rate") == [{"optimizer": "adam"}, {"optimizer": "sgd"}]
    assert NESTED.all_before("units") == [
        {"optimizer": "adam", "layers": 2},
        {"optimizer": "adam", "layers": 3},
    ]
    assert NESTED.all_before("epochs", ["layers"]) == [
        {"optimizer": "adam", "layers": 1},
        {"optimizer": "adam", "layers": 3},
        {"optimizer": "sgd"},
        {"optimizer": "none"},
    ]


def test_settings_before_suit_all_conditions_at_once():
    """The first value of one condition is not always one of another's."""
    y = A_OR_B
    for condition in ({"z": "a", "y": ["b", "a"]}, {"y": ["b", "a"], "z": "a"}):
        scales = {"y": y, "z": A_OR_B.when({"y": "a"}), "x": Fixed(1).when(condition)}
        assert Space(scales).all_before("x") == [{"y": "a", "z": "a"}]


def test_new_names():
    names = {"optimizer": "mlp__solver", "units": "mlp__units", "rate": "optimizer"}
    renamed = NESTED.renamed(names)
    assert list(renamed) == ["mlp__solver", "optimizer", "layers", "mlp__units", "epochs"]
    assert renamed["mlp__units"].condition == {"layers": (2, 3), "mlp__solver": ("adam",)}
    assert renamed.renamed({new: old for old, new in names.items()}).to_tables() == (
        NESTED.to_tables()
    )
    assert renamed.at([0.5] * 5) == dict(
        zip(["mlp__solver", "optimizer", "epochs"], NESTED.at([0.5] * 5).values(), strict=True)
    )
    assert NESTED.renamed({}).to_tables() == NESTED.to_tables()
    with pytest.raises(
        ValueError, match="unknown hyper-parameter 'beta'; valid hyper-parameters: "
    ):
        NESTED.renamed({"beta": "gamma"})
    with pytest.raises(ValueError, match="names must be distinct, got optimizer, e"):
        NESTED.renamed({"rate": "epochs"})


def test_tables_of_a_space():
    tables = NESTED.to_tables()
    assert tables["units"] == {
        "log_integer": [1, 64],
        "points": 2,
        "when": {"layers": [2, 3], "optimizer": ["adam"]},
    }
    again = Space.from_tables(tables)
    assert dict(again) == dict(NESTED)
    assert repr(again) == repr(NESTED)
    # One value may stand for a list of one, and names of conditions need no quotes.
    short = Scale.from_table({"fixed": 1, "when": {"a": {"b": 2, "c": {"d": [3]}}}})
    assert short.condition == {"a.b": (2,), "a.c.d": (3,)}
    assert Scale.from_table({"uniform": (0, 1), "when": {}}) == Uniform(0, 1)


def test_what_a_scale_holds_is_its_own():
    options = {"a": 1, "b": 2}
    scale = Choice(options)
    options["c"] = 3
    scale.to_table()["choice"]["d"] = 4
    assert scale.settings == ("a", "b")
    with pytest.raises(AttributeError):
        scale.options = ("c", "d")  # type: ignore[misc]
    bound = scale.when({"x": "y"})
    assert (scale.condition, bound.condition) == ({}, {"x": ("y",)})
    assert bound.when({}) == scale
