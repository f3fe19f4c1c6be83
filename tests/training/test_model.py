"""Whole models: from raw samples to named classes, in files and in another process."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests import devices
from tests.training.test_checkpoint import forge
from xpnet import nn, training
from xpnet.data import Preprocessing
from xpnet.data.preprocessing import NORMALISATIONS
from xpnet.training import Model, load_model, save_model

STATISTICS = ("shift", "scale")


def make(dev, loss="softmax_cross_entropy", n_outputs=3, dtype="float32", **more):
    n_classes = max(2, n_outputs)
    network = nn.Network(
        [nn.Dense(7, "tanh"), nn.Dense(n_outputs)], 12, device=dev, dtype=dtype, seed=3
    )
    raw = np.random.default_rng(0).integers(0, 256, (40, 12)).astype(np.uint8)
    scaling = Preprocessing.fit(raw, divide_by=255, normalise="standardise")
    names = ("cat", "dog", "élan")[:n_classes]
    return Model(network, nn.Loss.resolve(loss), scaling, names, **more), raw


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("loss", "n_outputs"), [("softmax_cross_entropy", 3), ("sigmoid_cross_entropy", 1)]
)
def test_probabilities(dev, loss, n_outputs, dtype):
    model, raw = make(dev, loss, n_outputs, dtype)
    found = model.predict_proba(raw, batch_size=17)
    assert found.dtype == dtype
    assert found.shape == (40, max(2, n_outputs))
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-6)
    Z = model.network.predict(model.preprocessing(raw, dtype)).astype(np.float64)
    Z = np.concatenate([0 * Z, Z], axis=1) if n_outputs == 1 else Z  # softmax of (0, z): sigmoid
    expected = np.exp(Z) / np.exp(Z).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    np.testing.assert_array_equal(model.predict(raw), expected.argmax(axis=1))


def test_images_and_lists(dev):
    model, raw = make(dev, image_shape=(2, 2, 3))
    expected = model.predict_proba(raw)
    np.testing.assert_array_equal(model.predict_proba(raw.reshape(-1, 2, 2, 3)), expected)
    np.testing.assert_array_equal(model.predict_proba(raw.tolist()), expected)
    grey, _ = make(dev, image_shape=(3, 4))
    np.testing.assert_array_equal(grey.predict_proba(raw.reshape(-1, 3, 4, 1)), expected)
    with pytest.raises(ValueError, match=r"X must have shape \(n_samples, 12\), got \(40, 3, 4\)"):
        model.predict(raw.reshape(-1, 3, 4))


def test_memory_mapped_input_in_bounded_memory(dev, tmp_path):
    model, _ = make(dev)
    X = np.memmap(tmp_path / "X", dtype=np.float64, mode="w+", shape=(98 * 1024, 12))
    model.predict_proba(X[:2000], batch_size=1024)
    tracemalloc.start()
    found = model.predict_proba(X, batch_size=1024)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < found.nbytes + 3e6  # X itself has 9.6 MB
    assert (found == found[0]).all()  # in whole batches, for products of one shape


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite(dev, bad):
    model, raw = make(dev)
    X = raw.astype(np.float64)
    X[33, 5] = bad
    with pytest.raises(
        ValueError, match="X must be finite, got nan or an infinite value in row 33"
    ):
        model.predict_proba(X, batch_size=16)


def test_what_overflows(dev):
    model, raw = make(dev)
    with pytest.raises(ValueError, match=r"finite in float32, got inf for 1e\+300 in feature 4"):
        model.predict_proba(np.where(np.arange(12) == 4, 1e300, raw))
    model.network.parameters[...] = 1e38
    with pytest.raises(ValueError, match=r"X is too large for the network in row 0: logits over"):
        model.predict_proba(raw)


def test_no_samples(dev):
    model, raw = make(dev, image_shape=(3, 4))
    assert model.predict_proba(raw[:0]).shape == (0, 3)
    assert model.predict_proba(raw[:0].reshape(0, 3, 4)).shape == (0, 3)


def test_a_header_without_end(dev, tmp_path):
    model, _ = make(dev)
    save_model(model, tmp_path / "model")
    config = json.dumps(model.network.get_config())
    for key, said in (("model", "a model"), ("network", "a network")):
        metadata = {"format": "xpnet-network/2", "network": config, key: "[" * 100_000}
        forge(tmp_path / "model", load_file(tmp_path / "model"), metadata)
        with pytest.raises(ValueError, match=f"does not describe {said}: maximum recursion"):
            load_model(tmp_path / "model")


PREDICT = """
import sys
import numpy as np
from xpnet.training import load_model
model = load_model(sys.argv[1])
np.save(sys.argv[3], model.predict_proba(np.load(sys.argv[2])))
print(model.class_names, model.image_shape, model.feature_names)
"""


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("normalise", NORMALISATIONS)
def test_the_same_bits_in_another_process(dev, tmp_path, dtype, normalise):
    model, raw = make(dev, dtype=dtype, image_shape=(3, 4), feature_names=tuple("abcdefghijkl"))
    scaling = Preprocessing.fit(raw[:30], divide_by=16, normalise=normalise)
    model = dataclasses.replace(model, preprocessing=scaling)
    if normalise == "none":
        model = dataclasses.replace(model, feature_names=None)
    save_model(model, tmp_path / "model")
    np.save(tmp_path / "X.npy", raw)
    done = subprocess.run(
        [sys.executable, "-c", PREDICT, "model", "X.npy", "P.npy"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env=devices.environment(PYTHONIOENCODING="utf-8"),
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stderr
    assert np.load(tmp_path / "P.npy").tobytes() == model.predict_proba(raw).tobytes()
    assert done.stdout.split() == (
        f"{model.class_names} {model.image_shape} {model.feature_names}".split()
    )


def test_a_runs_folder_will_do(dev, tmp_path):
    model, raw = make(dev)
    save_model(model, tmp_path / "model.safetensors")
    found = load_model(tmp_path, device=dev)
    np.testing.assert_array_equal(found.predict(raw), model.predict(raw))
    with pytest.raises(FileNotFoundError):
        load_model(tmp_path / "none", device=dev)


def test_the_network_alone_can_be_taken_from_it(dev, tmp_path):
    model, _ = make(dev)
    save_model(model, tmp_path / "model")
    network = training.load_network(tmp_path / "model", device=dev)
    assert network.get_config() == model.network.get_config()
    training.save_network(network, tmp_path / "network")
    with pytest.raises(ValueError, match="holds only a network: load it with load_network"):
        load_model(tmp_path / "network")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda described, tensors: described.pop("loss"), "'loss'"),
        (lambda described, tensors: described.update(loss="hinge"), "unknown loss 'hinge'"),
        (lambda described, tensors: described.update(class_names=["a"]), "tuple of 3 different"),
        (lambda described, tensors: described.update(class_names=["a", "b", "b"]), "3 different"),
        (lambda described, tensors: described.update(class_names=["a", None, "b"]), "3 different"),
        (lambda described, tensors: described.update(feature_names="x"), "12 different strings"),
        (lambda described, tensors: described.update(feature_names=["x"]), "12 different strings"),
        (lambda described, tensors: described.update(image_shape=[3, 5]), "image of 12 features"),
        (lambda described, tensors: described.update(image_shape={}), "image of 12 features"),
        (lambda described, tensors: described.update(divide_by=10**400), "divide_by must be a fin"),
        (lambda described, tensors: described.update(divide_by=0), "divide_by must be a finite"),
        (lambda described, tensors: described.update(divide_by=True), "divide_by must be a finite"),
        (
            lambda described, tensors: tensors.update({"preprocessing.scale": np.zeros(12)}),
            "scale must be positive, got 0.0",
        ),
        (
            lambda described, tensors: tensors.update({"preprocessing.shift": np.full(12, np.nan)}),
            "shift and scale must be finite",
        ),
        (lambda described, tensors: described.update(class_names=3), "got 3"),
        (lambda described, tensors: described.update(divide_by="x"), "got 'x'"),
        (lambda described, tensors: tensors.pop("preprocessing.scale"), "must be given together"),
        (lambda described, tensors: described.pop("normalise"), "'normalise'"),
        (
            lambda described, tensors: described.update(normalise="zscore"),
            "unknown normalisation 'zscore'; valid normalisations: none, standardise, min-max",
        ),
        (
            lambda described, tensors: described.update(normalise=["none"]),
            r"normalisation \['none'\]",
        ),
        (
            lambda described, tensors: described.update(normalise="none"),
            "normalise='none' takes no shift and scale",
        ),
        (
            lambda described, tensors: described.update(normalise="per-image"),
            "normalise='per-image' takes no shift and scale",
        ),
        (
            lambda described, tensors: [tensors.pop(f"preprocessing.{s}") for s in STATISTICS],
            "normalise='standardise' needs shift and scale",
        ),
        (
            lambda described, tensors: tensors.update(
                {"preprocessing.shift": np.zeros(12, dtype=np.float32)}
            ),
            "shift and scale must be float64 arrays",
        ),
        (
            lambda described, tensors: tensors.update({"preprocessing.scale": np.ones(3)}),
            r"shift and scale must both have shape \(n_features,\), got \(12,\) and \(3,\)",
        ),
        (
            lambda described, tensors: tensors.update(
                {f"preprocessing.{which}": np.ones(3) for which in STATISTICS}
            ),
            r"must have shape \(12,\), got \(3,\)",
        ),
    ],
)
def test_files_that_contradict_themselves(dev, tmp_path, change, said):
    path = tmp_path / "model"
    model, _ = make(dev)
    save_model(model, path)
    _, text, _ = training.checkpoint.read_network(path, dev)
    assert text is not None
    described, tensors = json.loads(text), load_file(path)
    change(described, tensors)
    config = json.dumps(model.network.get_config())
    forge(
        path,
        tensors,
        {"format": "xpnet-network/2", "network": config, "model": json.dumps(described)},
    )
    with pytest.raises(ValueError, match=f"model does not describe a model: .*{said}"):
        load_model(path)
    for nonsense in ("3", "null", "[]", '"x"'):
        forge(path, tensors, {"format": "xpnet-network/2", "network": config, "model": nonsense})
        with pytest.raises(ValueError, match="model does not describe a model: "):
            load_model(path)


def make_of_numbers(dev, n_outputs=2, dtype="float32", *, standardised=True, loss=None):
    model, raw = make(dev, n_outputs=n_outputs, dtype=dtype)
    y = np.random.default_rng(1).normal(2e9, 1e3, (40, n_outputs))
    targets = Preprocessing.fit(y, normalise="standardise") if standardised else None
    loss = nn.Loss.resolve(loss or "mean_squared_error")
    return dataclasses.replace(model, loss=loss, class_names=(), targets=targets), raw


@pytest.mark.parametrize("standardised", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("n_outputs", [1, 2])
def test_numbers(dev, tmp_path, n_outputs, dtype, standardised):
    model, raw = make_of_numbers(dev, n_outputs, dtype, standardised=standardised)
    found = model.predict(raw, batch_size=17)
    assert found.dtype == np.float64  # whose digits large numbers that differ little need
    assert found.shape == ((40,) if n_outputs == 1 else (40, 2))
    Z = model.network.predict(model.preprocessing(raw, dtype)).astype(np.float64)
    if standardised:
        Z = Z * model.targets.scale + model.targets.shift
    np.testing.assert_allclose(found, Z.reshape(found.shape), rtol=1e-12 if standardised else 1e-5)
    assert model.predict(raw[:0]).shape == found[:0].shape
    with pytest.raises(ValueError, match="'mean_squared_error' is a regression loss: call predict"):
        model.predict_proba(raw)
    save_model(model, tmp_path / "model")
    again = load_model(tmp_path / "model", device=dev)
    assert again.class_names == ()
    assert (again.targets is None) == (not standardised)
    np.testing.assert_array_equal(again.predict(raw), model.predict(raw))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"class_names": ("a", "b")}, "class_names must be a tuple of 0 different strings, got"),
        ({"loss": nn.Loss.resolve("softmax_cross_entropy")}, "class_names must be a tuple of 2"),
        (
            {"targets": Preprocessing(2.0)},
            "targets must be None or standardised regression targets",
        ),
        (
            {"loss": nn.Loss.resolve("poisson_deviance")},
            "targets must be None with loss 'poisson_deviance', which needs targets >= 0",
        ),
        (
            {"targets": Preprocessing(1.0, "standardise", np.zeros(3), np.ones(3))},
            r"statistics of the targets must have shape \(2,\), got \(3,\)",
        ),
    ],
)
def test_numbers_that_do_not_fit(dev, change, said):
    model, _ = make_of_numbers(dev)
    with pytest.raises(ValueError, match=said):
        dataclasses.replace(model, **change)
    classes, _ = make(dev)
    with pytest.raises(ValueError, match="targets must be None or standardised regression targets"):
        dataclasses.replace(classes, targets=model.targets)


def test_statistics_of_targets_come_together(dev, tmp_path):
    model, _ = make_of_numbers(dev)
    save_model(model, tmp_path / "model")
    _, text, _ = training.checkpoint.read_network(tmp_path / "model", dev)
    tensors = load_file(tmp_path / "model")
    del tensors["targets.scale"]
    config = json.dumps(model.network.get_config())
    metadata = {"format": "xpnet-network/2", "network": config, "model": text}
    forge(tmp_path / "model", tensors, metadata)
    with pytest.raises(ValueError, match="describe a model: shift and scale must be given t"):
        load_model(tmp_path / "model")
