"""ONNX: exported models, whose files say what they are and are read without xpnet."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import onnx
import pytest

import xpnet
from tests.onnx_runs import DTYPES, close, network, run
from xpnet import nn
from xpnet.data import Preprocessing
from xpnet.data.preprocessing import NORMALISATIONS
from xpnet.export import export_model, onnx_model
from xpnet.training import Model

host = pytest.mark.host


def model(loss, n_outputs, dtype="float32", normalise="standardise", divide_by=255, **more):
    """Make one with features of which some are far from 0 and one is constant."""
    made = network([nn.Dense(7, "tanh"), nn.Dense(n_outputs)], 12, dtype)
    raw = np.random.default_rng(0).integers(0, 256, (60, 12)).astype(np.float64)
    raw[:, 3], raw[:, 5], raw[7] = 0.1, raw[:, 5] + 70_000, 0.3
    loss = nn.Loss.resolve(loss)
    names = ("cat", "dog", "élan")[: max(2, n_outputs)] if loss.has_classes else ()
    scaling = Preprocessing.fit(raw, divide_by=divide_by, normalise=normalise)
    return Model(made, loss, scaling, names, **more), raw.astype(dtype)


@host
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("divide_by", [1, 255])
@pytest.mark.parametrize("normalise", NORMALISATIONS)
def test_preprocessing(normalise, divide_by, dtype):
    made, raw = model("softmax_cross_entropy", 3, dtype, normalise, divide_by)
    for X in (raw, raw[:1], raw[:0], 0 * raw):
        label, P = run(export_model(made), X, "label", "probabilities")
        close(P, made.predict_proba(X))
        assert label.tolist() == [made.class_names[index] for index in made.predict(X)]


@host
@pytest.mark.parametrize("size", [1e-300, 1e300])
def test_images_of_extreme_brightness(size):
    made, raw = model("softmax_cross_entropy", 3, "float64", "per-image", 1)
    X = size * raw / raw.max()
    _, P = run(export_model(made), X, "label", "probabilities")
    close(P, made.predict_proba(X))


@host
def test_images_of_one_brightness_up_to_rounding():
    made, raw = model("softmax_cross_entropy", 3, "float64", "per-image", 1)
    X = 0 * raw + 7.3
    X[:, ::2] = np.nextafter(7.3, 8)
    assert not made.preprocessing(X, "float64").any()
    _, P = run(export_model(made), X, "label", "probabilities")
    close(P, made.predict_proba(X))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("loss", "n_outputs"),
    [
        ("softmax_cross_entropy", 2),
        ("softmax_cross_entropy", 3),
        ("sigmoid_cross_entropy", 1),
        ("sigmoid_cross_entropy", 3),
    ],
)
def test_models_of_classes(dev, loss, n_outputs, dtype):
    made, raw = model(loss, n_outputs, dtype)
    made = Model(made.network.copy(device=dev), made.loss, made.preprocessing, made.class_names)
    label, P = run(export_model(made), raw, "label", "probabilities")
    assert P.dtype == dtype
    close(P, made.predict_proba(raw))
    assert label.tolist() == [made.class_names[index] for index in made.predict(raw)]


@host
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("n_outputs", [1, 3])
def test_models_of_numbers(n_outputs, scaled, dtype):
    targets = None
    if scaled:
        shift, scale = np.array([1e5, -3, 0.2])[:n_outputs], np.array([10, 0.1, 1e4])[:n_outputs]
        targets = Preprocessing(1.0, "standardise", shift, scale)
    made, raw = model("mean_squared_error", n_outputs, dtype, targets=targets)
    (found,) = run(export_model(made), raw, "variable")
    assert found.dtype == dtype
    assert found.shape == (60, n_outputs)
    close(found, made.predict(raw).reshape(60, -1))


@host
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n_outputs", [1, 3])
def test_models_of_counts(n_outputs, dtype):
    made, raw = model("poisson_deviance", n_outputs, dtype)
    (found,) = run(export_model(made), raw, "variable")
    assert found.dtype == dtype
    assert (found > 0).all()
    close(found, made.predict(raw).reshape(60, -1))


class Squared(nn.MeanSquaredError):
    name = "Export-squared"


@host
def test_losses_that_are_not_known():
    made, _ = model("Export-squared", 2)
    with pytest.raises(ValueError, match=r"with your own loss Squared\(\): .*outputs="):
        export_model(made)


@host
def test_what_a_file_says(tmp_path):
    features = tuple(f"feature {n}" for n in range(12))
    made, _ = model("softmax_cross_entropy", 3, image_shape=(3, 4), feature_names=features)
    path = tmp_path / "model.onnx"
    path.write_bytes(b"an older one")
    exported = export_model(made, path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.onnx"]
    assert onnx.load(path) == exported
    assert (exported.producer_name, exported.producer_version) == (
        "xpnet",
        xpnet.__version__,
    )
    assert (exported.ir_version, exported.opset_import[0].version) == (8, 17)
    properties = {entry.key: entry.value for entry in exported.metadata_props}
    assert properties.pop("loss") == "softmax_cross_entropy"
    assert {name: json.loads(value) for name, value in properties.items()} == {
        "class_names": ["cat", "dog", "élan"],
        "feature_names": list(features),
        "image_shape": [3, 4],
    }
    assert export_model(made).SerializeToString() == path.read_bytes()
    named = onnx_model(
        made.network, outputs="labels", name="mine", doc="what it is", metadata={"by": "me"}
    )
    assert (named.graph.name, named.doc_string) == ("mine", "what it is")
    assert [(entry.key, entry.value) for entry in named.metadata_props] == [("by", "me")]


ALONE = """
import importlib.abc, json, sys

BLOCKED = {"xpnet", "kernels", "sklearn", "scipy", "onnx", "cupy", "torch"}

class Blocked(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BLOCKED:
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, Blocked())
import numpy as np
import onnxruntime

try:
    import xpnet
except ImportError:
    session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
    label, probabilities = session.run(["label", "probabilities"], {"X": np.load(sys.argv[2])})
    print(json.dumps(label.tolist()))
"""


@host
def test_a_file_in_a_process_without_xpnet(tmp_path):
    made, raw = model("softmax_cross_entropy", 3)
    export_model(made, tmp_path / "model.onnx")
    np.save(tmp_path / "X.npy", raw)
    done = subprocess.run(
        [sys.executable, "-c", ALONE, "model.onnx", "X.npy"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [made.class_names[index] for index in made.predict(raw)]
