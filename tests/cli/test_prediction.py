"""The command that predicts: what it prints, writes, and refuses."""

from __future__ import annotations

import json
import re
import struct
import sys
from pathlib import Path

import numpy as np
import pytest

import xpnet.cli
from tests.cli.commands import is_one_line_of_status_2, run, shell
from xpnet.training import load_model

pytestmark = [
    pytest.mark.needs("rich", "safetensors", "sklearn", "tomli_w"),
    pytest.mark.usefixtures("few_pictures"),
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A model of three kinds of points, trained from a .csv file of your own."""
    folder = tmp_path_factory.mktemp("trained")
    rng = np.random.default_rng(0)
    kinds = ("café", "snow \N{SNOWMAN}", "tea")
    lines = ["x,kind,y"]
    for _ in range(60):
        k = rng.integers(3)
        x, y = rng.normal([[0, 5], [5, 0], [-5, -5]][k], 0.5)
        lines.append(f"{x:.3f},{kinds[k]},{y:.3f}")
    (folder / "points.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    done = run(
        *("digits-shallow", "--set", "data.dataset=points.csv", "--target", "kind", "--quiet"),
        *("--set", "network.layers.1.units=3", "--set", "data.divide_by=1", "--out", "run"),
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr
    return folder


def test_predict_prints_a_label_for_each_sample(trained):
    done = run(
        *("predict", "run", "points.csv"),
        command=xpnet.cli.main,
        cwd=trained,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "label,probability"
    given = [
        line.split(",")[1] for line in (trained / "points.csv").read_text("utf-8").splitlines()
    ]
    assert [line.split(",")[0] for line in lines[1:]] == given[1:]
    assert all(0.5 < float(line.split(",")[1]) <= 1 for line in lines[1:])


def test_predict_into_a_file(trained, tmp_path):
    out = tmp_path / "labels.csv"
    done = run(
        *("predict", "run/model.safetensors", "points.csv", "--out", out, "--target", "kind"),
        command=xpnet.cli.main,
        cwd=trained,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == (f"wrote 60 labels to {out}; 60 correct (accuracy 1.0000)\n")
    assert len(out.read_text("utf-8").splitlines()) == 61
    (tmp_path / "more.csv").write_text("y,x,note\n5,0,none\n")  # columns are found by name
    done = run(
        "predict", trained / "run", tmp_path / "more.csv", "--out", out, command=xpnet.cli.main
    )
    assert done.stdout == f"wrote 1 label to {out}\n"
    assert out.read_text("utf-8").splitlines()[1].startswith("café,")


def test_labels_that_the_encoding_lacks(trained):
    done = run(
        "predict", "run", "points.csv", command=xpnet.cli.main, cwd=trained, encoding="ascii"
    )
    assert done.returncode == 0, done.stderr
    assert "caf\\xe9," in done.stdout
    assert "snow \\u2603," in done.stdout


def test_predict_into_standard_output_by_name(trained, tmp_path):
    if not Path("/dev/stdout").exists():
        pytest.skip("no /dev/stdout here")
    command = f"'{sys.executable}' -m xpnet predict run points.csv --target kind --out /dev/stdout"
    done = shell(f"{command} > '{tmp_path}/labels.csv'", cwd=trained)
    assert done.returncode == 0, done.stderr
    lines = (tmp_path / "labels.csv").read_text("utf-8").splitlines()
    assert lines[0] == "label,probability"
    assert len(lines) == 61


@pytest.mark.heavy
def test_predict_named_data(tmp_path):
    done = run("digits-logistic", "--quiet", "--out", "run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    done = run(
        "predict", "run", "digits", "--out", "labels.csv", command=xpnet.cli.main, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("wrote 1797 labels to labels.csv; 17")
    assert done.stdout.endswith(", training samples included)\n")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["predict"], "the following arguments are required: MODEL, DATA"),
        (["predict", "none", "points.csv"], "cannot read the model none: no such file, and no fol"),
        (["predict", ".", "points.csv"], "model .: no such file, and no folder with a model.safe"),
        (
            ["predict", "points.csv", "run"],
            "the model comes first, then the data; type: xpnet predict run points.csv",
        ),
        (
            ["predict", "digits", "run/model.safetensors"],
            "type: xpnet predict run/model.safetensors digits",
        ),
        (
            ["predict", "run", "run/recipe.toml"],
            "run/recipe.toml is a recipe, not data; type: xpnet predict run DATA, with a .npz, .c",
        ),
        (["predict", "run", "digits-deep"], "digits-deep is a recipe, not data; type: xpnet pred"),
        (["predict", "points.csv", "points.csv"], "points.csv is not a valid safetensors file"),
        (
            ["predict", "run/recipe.toml", "run"],
            "run/recipe.toml is a recipe, not a trained model; type: xpnet train run/recipe.toml",
        ),
        (["predict", "digits-deep", "digits"], "digits-deep is a recipe, not a trained model"),
        (["predict", "digits", "x" * 300], "cannot read the model digits: no such file"),
        (["predict", "x" * 300, "digits"], "cannot read the model xxx"),
        (["predict", "run", "none.csv"], "none.csv"),
        (["predict", "run", "few.csv"], "y"),
        (
            ["predict", "run", "wide.npz"],
            "wide.npz does not fit the model: X must have shape (n_sam",
        ),
        (["predict", "run", "moons"], "moons is generated, not stored: give a data file"),
        (["predict", "run", "huge.npz"], "got inf for 1e+300 in feature 0"),
        (
            ["predict", "run", "points.csv", "--out", "no/labels.csv"],
            "--out: cannot write no/labels",
        ),
        (["predict", "run", "points.csv", "--device", "gpu"], "device must be 'cpu'"),
        (["predict", "run", "points.csv", "--target", "none"], "none"),
        (["predict", "run", "wide.npz", "--target", "y"], "target is only for .csv files"),
    ],
)
def test_predict_refuses_in_one_line(trained, arguments, said):
    (trained / "few.csv").write_text("x\n1\n")
    np.savez(trained / "wide.npz", X=np.zeros((2, 3)))
    np.savez(trained / "huge.npz", X=np.full((2, 2), 1e300))
    done = run(*arguments, command=xpnet.cli.main, cwd=trained)
    is_one_line_of_status_2(done)
    assert said in done.stderr
    assert not (trained / "no").exists()


def predicted(capsys, *arguments):
    """Predict in this process."""
    assert xpnet.cli.main(["predict", *map(str, arguments)]) == 0
    return capsys.readouterr().out


def test_samples_to_be_tested_come_before_those_to_be_trained_with(trained, tmp_path, capsys):
    X = np.array([[0, 5], [5, 0], [-5, -5]])
    np.savez(tmp_path / "both.npz", X=X, X_test=X[:2])
    assert len(predicted(capsys, trained / "run", tmp_path / "both.npz").splitlines()) == 1 + 2


def test_labels_are_compared_by_name_or_by_number(trained, tmp_path, capsys):
    X = np.array([[0, 5], [5, 0], [-5, -5]])
    names = np.array(["caf\xe9", "snow \N{SNOWMAN}", "tea"])

    def score(**labels):
        np.savez(tmp_path / "a.npz", X=X, **labels)
        out = tmp_path / "labels.csv"
        return predicted(capsys, trained / "run", tmp_path / "a.npz", "--out", out).partition("; ")[
            2
        ]

    right = "3 correct (accuracy 1.0000)\n"
    foreign = "not compared: none of the data's labels is a class of the model\n"
    assert score(y=names) == right
    assert score(y=[0, 1, 2]) == right
    assert score(y=[0, 1, 2], class_names=names) == right
    assert score(y=[2, 0, 1], class_names=names[[1, 2, 0]]) == right
    assert score(y=[0, 1, 2], class_names=["coffee", "snow", "leaves"]) == right
    assert score(y=["tea", "milk", "tea"]).startswith("1 correct")
    assert score(y=["a", "b", "c"]) == foreign
    assert score(y=[0, 1, 3]) == foreign


def test_a_target_of_any_characters(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    target = 'a "cat" \N{CAT FACE} \x7f'
    rows = "".join(f"{k % 2},{k % 5},a\u2028{k % 2}\n" for k in range(60))
    header = ",".join(('"' + name.replace('"', '""') + '"') for name in ("u", "v", target))
    (tmp_path / "a.csv").write_text(f"{header}\n{rows}", encoding="utf-8")
    values = ("data.dataset=a.csv", "data.divide_by=1", "network.layers.1.units=2")
    changes = [word for value in values for word in ("--set", value)]
    arguments = ["digits-shallow", *changes, "--target", target, "--quiet", "--out", "run"]
    assert xpnet.cli.train(arguments) == 0
    assert json.loads((tmp_path / "run" / "history.json").read_text())["test_accuracy"] == 1
    capsys.readouterr()
    printed = predicted(capsys, "run", "a.csv")
    predicted(capsys, "run", "a.csv", "--out", "labels.csv")
    assert printed == (tmp_path / "labels.csv").read_text("utf-8")  # U+2028 ends no line of CSV


@pytest.mark.heavy
def test_the_file_that_was_named_is_what_is_predicted(tmp_path, capsys):
    X = np.random.default_rng(0).integers(0, 256, (12, 8, 8)).astype(np.uint8)
    for name, n in (("train", 12), ("t10k", 5)):
        head = bytes((0, 0, 8, 3)) + struct.pack(">3I", n, 8, 8)
        (tmp_path / f"{name}-images-idx3-ubyte").write_bytes(head + X[:n].tobytes())
    assert xpnet.cli.train(["digits-logistic", "--quiet", "--out", str(tmp_path / "run")]) == 0
    capsys.readouterr()
    for name, n in (("train", 12), ("t10k", 5)):
        found = predicted(capsys, tmp_path / "run", tmp_path / f"{name}-images-idx3-ubyte")
        assert len(found.splitlines()) == n + 1
    np.savez(tmp_path / "wide.npz", X=X.reshape(12, 4, 16))
    np.savez(tmp_path / "flat.npz", X=X.reshape(12, 64))
    assert len(predicted(capsys, tmp_path / "run", tmp_path / "flat.npz").splitlines()) == 13
    assert xpnet.cli.main(["predict", str(tmp_path / "run"), str(tmp_path / "wide.npz")]) == 2
    assert "X must have shape (n_samples, 64), got (12, 4, 16)" in capsys.readouterr().err


def test_numbers_of_ones_own(tmp_path, capsys, monkeypatch):
    """A price by area and age; how reliable a sale is, is no feature."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    area, age, trust = rng.uniform(50, 200, 300), rng.uniform(0, 80, 300), rng.uniform(0, 1, 300)
    price = 3000 * area - 2000 * age
    sales = np.stack([area, trust, price, age], axis=1)
    np.savetxt("sales.csv", sales, "%.8g", ",", header="area,trust,price,age", comments="")
    changes = ("data.dataset=sales.csv", "data.sample_weight=trust", "training.epochs=150")
    arguments = [word for change in changes for word in ("--set", change)]
    arguments += ["--target", "price", "--quiet", "--out", "run"]
    assert xpnet.cli.train(["diabetes-shallow", *arguments]) == 0
    assert load_model("run").feature_names == ("area", "age")
    capsys.readouterr()
    printed = predicted(capsys, "run", "sales.csv")
    said = predicted(capsys, "run", "sales.csv", "--out", "prices.csv", "--target", "price")
    assert printed == Path("prices.csv").read_text()
    lines = printed.splitlines()
    assert lines[0] == "prediction"
    found = np.array(lines[1:], dtype=float)
    R2 = 1 - ((found - price) ** 2).mean() / price.var()
    assert R2 > 0.9
    assert said == f"wrote 300 predictions to prices.csv; R2 {R2:.4f}\n"
    Path("one.csv").write_text("age,area\n10,100\n")
    assert predicted(capsys, "run", "one.csv", "--out", "a") == "wrote 1 prediction to a\n"
    assert abs(float(Path("a").read_text().split()[1]) - 280_000) < 50_000
    Path("sales.csv").write_text("area,trust,price,age\n1,1,1,1\n1,-1,1,1\n")
    assert xpnet.cli.train(["diabetes-shallow", *arguments[:-2]]) == 2
    error = "line 3, column trust: expected a weight of at least 0, got '-1'\n"
    assert capsys.readouterr().err.endswith(error)


def test_several_numbers(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    X = np.random.default_rng(0).normal(size=(60, 3))
    np.savez("two.npz", X=X, y=X[:, :2] - 5)
    changes = ("data.dataset=two.npz", "network.layers.1.units=2", "training.epochs=1")
    arguments = [word for change in changes for word in ("--set", change)]
    assert xpnet.cli.train(["diabetes-shallow", *arguments, "--quiet", "--out", "run"]) == 0
    capsys.readouterr()
    lines = predicted(capsys, "run", "two.npz").splitlines()
    assert lines[0] == "prediction 0,prediction 1"
    found = np.array([line.split(",") for line in lines[1:]], dtype=float)
    np.testing.assert_allclose(found, load_model("run").predict(X), rtol=1e-8)
    np.savez("one.npz", X=X, y=X[:, 0])
    said = predicted(capsys, "run", "one.npz", "--out", "a")
    assert said == (
        "wrote 60 predictions to a; not compared: the data and the model have different numbers of "
        "targets\n"
    )
    for data, error in (
        ("digits", "digits is a classification data set, got task 'regression'"),
        ("wide.npz", r"wide.npz does not fit the model: X must have shape \(n_samples, 3\), got"),
        ("text.npz", "text.npz: y must hold numeric regression targets, got dtype <U1"),
    ):
        np.savez("wide.npz", X=X[:, :2])
        np.savez("text.npz", X=X, y=["a"] * 60)
        assert xpnet.cli.main(["predict", "run", data]) == 2
        assert re.search(error, capsys.readouterr().err)


def test_a_damaged_model_is_refused_in_one_line(trained, tmp_path):
    whole = (trained / "run" / "model.safetensors").read_bytes()
    for damaged in (whole[:-1], whole[:-1] + bytes([whole[-1] ^ 1]), b""):
        (tmp_path / "model").write_bytes(damaged)
        done = run("predict", tmp_path / "model", "points.csv", command=xpnet.cli.main, cwd=trained)
        is_one_line_of_status_2(done)
        assert str(tmp_path / "model") in done.stderr
