"""Tables in .csv files, and every way of being wrong."""

from __future__ import annotations

import time

import numpy as np
import pytest

from tests.data.files import held, refusal, write_csv
from xpnet.data.readers import read_file

pytestmark = pytest.mark.host


def test_csv(tmp_path):
    path = write_csv(tmp_path, '\ufeffa,"the, label",b\r\n1,x,2.5\r\n\r\n-3e2, y ,+.5\u00a0\r\n')
    contents = read_file(path, target="the, label")
    assert contents.feature_names == ("a", "b")
    np.testing.assert_array_equal(held(contents).X, [[1, 2.5], [-300, 0.5]])
    assert held(contents).y.tolist() == ["x", "y"]
    only_b = read_file(path, columns=["b"])
    np.testing.assert_array_equal(held(only_b).X, [[2.5], [0.5]])
    assert held(only_b).y is None


def test_csv_labels_that_are_whole_numbers(tmp_path):
    path = write_csv(tmp_path, "a,y\n1,7\n2,-1\n")
    assert held(read_file(path, target="y")).y.tolist() == [7, -1]
    path = write_csv(tmp_path, "a,y\n1,07\n2,7\n3,+7\n4,-0\n")
    assert held(read_file(path, target="y")).y.tolist() == ["07", "7", "+7", "-0"]
    for label in ("07", "+7", "-0", "7 000", "1" * 19):  # one of them is enough
        path = write_csv(tmp_path, f"a,y\n1,{label}\n2,7\n")
        assert held(read_file(path, target="y")).y.tolist() == [label, "7"]
    path = write_csv(tmp_path, "a,y\n1,007\n2,1.5\n")
    assert held(read_file(path, target="y")).y.tolist() == ["007", "1.5"]


def test_wide_csv(tmp_path):
    """Each column is found in one step: a table of genes has as many."""
    n = 50_000
    names = ",".join(f"gene {k}" for k in range(n))
    path = write_csv(tmp_path, f"{names}\n" + ",".join(map(str, range(n))) + "\n")
    started = time.process_time()
    assert held(read_file(path, target="gene 7")).X.shape == (1, n - 1)
    assert time.process_time() - started < 5  # 25 seconds, if each name were looked for
    twice = write_csv(tmp_path, f"{names},gene 49999\n")
    assert "'gene 49999' twice" in refusal(twice)
    assert time.process_time() - started < 10


def test_long_csv(tmp_path):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(2500, 3))
    path = write_csv(tmp_path, "a,b,c\n" + "\n".join(",".join(map(repr, x)) for x in X.tolist()))
    np.testing.assert_array_equal(held(read_file(path)).X, X)


@pytest.mark.parametrize(
    ("text", "options", "said"),
    [
        ("", {}, "is empty: expected a first line that names the columns"),
        ("\n\n", {}, "is empty"),
        ("a;b\n1;2\n", {}, "line 1: cells must be separated by commas, got 'a;b'"),
        ("a,b\n", {}, "must hold at least one sample, got only the line of column names"),
        ("a,,c\n1,2,3\n", {}, "line 1 must name every column, got no name for column 2"),
        ("a,b, a\n1,2,3\n", {}, "line 1 must give each column its own name, got 'a' twice"),
        (
            "petal,label\n1,2\n",
            {"target": "labels"},
            "unknown column 'labels'; did you mean 'label'? Valid columns: petal, label",
        ),
        ("a,b\n1,2\n", {"columns": ["a", "c"]}, "unknown column 'c'"),
        (
            "a,b\n1,2\n",
            {"columns": ["a", "a"]},
            "must be one or more distinct columns, without the target, got a, a",
        ),
        ("a,b\n1,2\n", {"columns": []}, "must be one or more"),
        ("a,b\n1,2\n", {"columns": ["a"], "target": "a"}, "without the target, got a"),
        ("a\n1\n", {"target": "a"}, "features must be one or more distinct columns"),
        ("a,b\n1,2\n3\n", {}, "line 3: expected 2 cells, got 1"),
        ("a,b\n1,2,3\n", {}, "line 2: expected 2 cells, got 3"),
        ("a,b\n1,2\n\n3,x\n", {}, "line 4, column b: expected a finite number, got 'x'"),
        ("a,b\n1,nan\n", {}, "line 2, column b: expected a finite number, got 'nan'"),
        ("a,b\n1,2\n-inf,2\n", {}, "line 3, column a: expected a finite number, got '-inf'"),
        ("a,b\n1,1e999\n", {}, "got '1e999'"),
        ("a,b\n1,\n", {}, "got ''"),
        ("a,b\n1,1_000\n", {}, "got '1_000'"),
        ("a,b\n1,\uff11\uff12\n", {}, "got '\uff11\uff12'"),
        ("a,b\n1,\n", {"target": "b"}, "line 2: expected a label, got an empty cell"),
        ('a,b\n1,"2\n', {}, "unexpected end of data"),
        ("a,b\n1,\0\n", {}, "line 2: expected text, got a NUL byte"),
        ("a,b\n1," + "x" * 201 + "\n", {"target": "b"}, "got 201 characters"),
    ],
)
def test_wrong_csv(tmp_path, text, options, said):
    assert said in refusal(write_csv(tmp_path, text), **options)


def test_csv_that_is_not_utf_8(tmp_path):
    assert "must hold UTF-8 text, got another encoding" in refusal(
        write_csv(tmp_path, "naïve\n1\n", "latin-1")
    )
