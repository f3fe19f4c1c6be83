"""The estimators in scikit-learn's company: searches, pipelines, calibration, pickles, processes.

Each test is an example as well.
"""

from __future__ import annotations

import copy
import multiprocessing
import os
import pickle
import subprocess
import sys
from typing import Any

import joblib
import numpy as np
import pytest
import sklearn
from scipy.stats import loguniform
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import TransformedTargetRegressor
from sklearn.datasets import load_iris
from sklearn.ensemble import AdaBoostClassifier, BaggingClassifier, VotingClassifier
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.frozen import FrozenEstimator
from sklearn.inspection import permutation_importance
from sklearn.linear_model import LogisticRegression as Linear
from sklearn.model_selection import (
    GridSearchCV,
    HalvingRandomSearchCV,
    RandomizedSearchCV,
    cross_val_predict,
    cross_validate,
)
from sklearn.multioutput import MultiOutputClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from tests.devices import ROOT
from xpnet import nn
from xpnet.device import DeviceUnavailableError
from xpnet.estimators import LogisticRegression, MLPClassifier, MLPRegressor, base
from xpnet.kernels.cuda_check import cuda_problem

host = pytest.mark.host
pytestmark = pytest.mark.filterwarnings("ignore:Stochastic Optimizer:Warning")


def iris(dtype="float64"):
    X, y = load_iris(return_X_y=True)
    return X.astype(dtype), y


def classifier(**options):
    given = {"max_iter": 20, "learning_rate_init": 0.05, "random_state": 0, **options}
    return MLPClassifier((8,), **given)


def scaled(**options):
    return make_pipeline(StandardScaler(), classifier(**options))


# Searches


@host
def test_grid_search():
    """In two processes, the best of which is what a fit by itself gives."""
    X, y = iris()
    grid = {
        "mlpclassifier__dropout": [0.0, 0.2],
        "mlpclassifier__activation": ["relu", nn.LeakyReLU(0.1)],
    }
    search = GridSearchCV(scaled(), grid, cv=3, n_jobs=2).fit(X, y)
    assert search.best_score_ > 0.85
    alone = clone(search.best_estimator_).fit(X, y)
    np.testing.assert_array_equal(alone.predict_proba(X), search.predict_proba(X))


@host
def test_random_search():
    X, y = iris()
    spaces = {
        "mlpclassifier__learning_rate_init": loguniform(1e-3, 1e-1),
        "mlpclassifier__hidden_layer_sizes": [(4,), (8, 8)],
        "mlpclassifier__schedule": [None, "cosine", nn.ExponentialDecay(0.9)],
    }
    search = RandomizedSearchCV(scaled(), spaces, n_iter=5, cv=3, random_state=0).fit(X, y)
    assert search.best_score_ > 0.85
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


@host
def test_halving_search():
    """Of many candidates with few epochs, few with many."""
    X, y = iris()
    search = HalvingRandomSearchCV(
        classifier(),
        {"learning_rate_init": loguniform(1e-4, 1e-1)},
        n_candidates=4,
        resource="max_iter",
        min_resources=4,
        max_resources=16,
        factor=2,
        cv=2,
        random_state=0,
    ).fit(StandardScaler().fit_transform(X), y)
    assert search.n_resources_ == [4, 8, 16]
    assert search.best_estimator_.max_iter == 16


@host
def test_cross_validation():
    X, y = iris()
    found = cross_validate(
        scaled(), X, y, cv=3, n_jobs=2, return_estimator=True, error_score="raise"
    )
    assert found["test_score"].mean() > 0.85
    for made in found["estimator"]:
        assert made[-1].device_ == "cpu"
        assert made.predict(X).shape == y.shape


@host
@pytest.mark.skipif(cuda_problem() is None, reason="there is a GPU")
def test_a_search_on_a_gpu_that_is_not_there():
    X, y = iris()
    search = GridSearchCV(
        classifier(device="cuda"), {"alpha": [0.1, 1.0]}, cv=2, n_jobs=2, error_score="raise"
    )
    with pytest.raises(DeviceUnavailableError, match="device=cuda: ") as caught:
        search.fit(X, y)
    assert "\n" not in str(caught.value)


@pytest.mark.gpu
def test_a_search_by_four_processes_on_one_gpu():
    X, y = iris()
    found = {}
    for device, n_jobs in (("cpu", 1), ("cuda", 4)):
        found[device] = GridSearchCV(
            classifier(device=device), {"alpha": [1e-4, 0.1]}, cv=4, n_jobs=n_jobs
        ).fit(X, y)
    assert found["cuda"].best_estimator_.device_.startswith("cuda:")
    of_cpu, of_gpu = (search.cv_results_["mean_test_score"] for search in found.values())
    np.testing.assert_allclose(of_gpu, of_cpu, atol=0.02)


# Other estimators around it


@host
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("method", ["sigmoid", "isotonic"])
def test_calibration(method, dtype):
    X, y = iris(dtype)
    made = CalibratedClassifierCV(classifier(batch_norm=True), method=method, cv=3).fit(X, y)
    P = made.predict_proba(X)
    np.testing.assert_allclose(P.sum(axis=1), 1, rtol=1e-6)
    assert made.score(X, y) > 0.85
    fitted = classifier(batch_norm=True).fit(X, y)
    frozen = CalibratedClassifierCV(FrozenEstimator(fitted), method=method).fit(X, y)
    assert frozen.score(X, y) > 0.85


@host
def test_ensembles():
    X, y = iris()
    X = StandardScaler().fit_transform(X)
    labels = np.array(["a", "b", "c"])[y]
    members = [("net", classifier(dropout=0.1)), ("linear", Linear())]
    voting = VotingClassifier(members, voting="soft").fit(X, labels)
    expected = np.mean([m.predict_proba(X) for m in voting.estimators_], axis=0)
    np.testing.assert_allclose(voting.predict_proba(X), expected)
    for made in (
        BaggingClassifier(classifier(), n_estimators=2, random_state=0),
        AdaBoostClassifier(classifier(), n_estimators=2, random_state=0),
    ):
        assert made.fit(X, labels).score(X, labels) > 0.8


@host
def test_several_outputs():
    X, y = iris()
    Y = np.column_stack([y, y == 1])
    made = MultiOutputClassifier(scaled()).fit(X, Y)
    assert (made.predict(X)[:, 0] == y).mean() > 0.85
    online = MultiOutputClassifier(classifier())
    for _ in range(3):
        online.partial_fit(X, Y, classes=[[0, 1, 2], [0, 1]])
    assert online.predict(X).shape == Y.shape


@host
def test_targets_that_are_scaled():
    X, _ = iris()
    network = MLPRegressor(
        hidden_layer_sizes=(8,), max_iter=40, learning_rate_init=0.02, random_state=0
    )
    made = TransformedTargetRegressor(
        make_pipeline(StandardScaler(), network), transformer=StandardScaler()
    )
    y = 1e4 + 1e3 * X[:, 3]
    assert made.fit(X[:, :3], y).score(X[:, :3], y) > 0.8


@host
def test_importance_of_features():
    X, y = iris()
    X = np.column_stack([X, np.random.default_rng(0).standard_normal((len(X), 1))])
    found = permutation_importance(scaled().fit(X, y), X, y, n_repeats=2, random_state=0)
    assert found.importances_mean[4] < 0.1 < found.importances_mean[2:4].max()


@host
def test_predictions_out_of_sample():
    X, y = iris()
    P = cross_val_predict(scaled(), X, y, cv=3, method="predict_proba")
    assert (P.argmax(axis=1) == y).mean() > 0.85


@host
@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_data_frames_in_a_pipeline(library):
    frames = pytest.importorskip(library)
    X, y = iris()
    names = [f"feature {i}" for i in range(4)]
    data = frames.DataFrame({name: X[:, i] for i, name in enumerate(names)})
    made = scaled(early_stopping=True, scoring="f1_macro").set_output(transform=library)
    made.fit(data, y)
    np.testing.assert_array_equal(made[-1].feature_names_in_, names)
    expected = scaled(early_stopping=True, scoring="f1_macro").fit(X, y)
    np.testing.assert_allclose(made.predict_proba(data), expected.predict_proba(X))


# Metadata


@host
def test_validation_data_through_a_pipeline():
    """They go through the steps before, as what is trained on does."""
    X, y = iris()
    X, y, X_val, y_val = X[::2], y[::2], X[1::2], y[1::2]
    weight = np.linspace(0.5, 2, len(y))
    scaler = StandardScaler().fit(X)
    expected = classifier(early_stopping=True).fit(
        *(scaler.transform(X), y, weight), X_val=scaler.transform(X_val), y_val=y_val
    )
    with sklearn.config_context(enable_metadata_routing=True):
        made = Pipeline(
            [
                ("scale", StandardScaler().set_fit_request(sample_weight=False)),
                (
                    "net",
                    classifier(early_stopping=True).set_fit_request(
                        sample_weight=True, X_val=True, y_val=True
                    ),
                ),
            ],
            transform_input=["X_val"],
        ).fit(X, y, sample_weight=weight, X_val=X_val, y_val=y_val)
    assert made["net"].validation_scores_ == expected.validation_scores_
    np.testing.assert_array_equal(
        made.predict_proba(X), expected.predict_proba(scaler.transform(X))
    )


@host
def test_weights_through_a_search():
    X, y = iris()
    weight = np.where(y == 1, 0.0, 1.0)
    with sklearn.config_context(enable_metadata_routing=True):
        made = (
            classifier().set_fit_request(sample_weight=True).set_score_request(sample_weight=True)
        )
        search = GridSearchCV(made, {"alpha": [0.1]}, cv=3).fit(X, y, sample_weight=weight)
    assert not (search.predict(X) == 1).any()
    assert search.best_score_ > 0.95


@host
def test_metadata_that_nobody_asked_for():
    X, y = iris()
    with sklearn.config_context(enable_metadata_routing=True):
        made = Pipeline([("net", classifier())])
        with pytest.raises(sklearn.exceptions.UnsetMetadataPassedError, match="X_val"):
            made.fit(X, y, X_val=X, y_val=y)


# Copies


KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "dropout and batch norm": {"dropout": 0.3, "batch_norm": True},
    "objects": {"activation": nn.ELU(0.5), "optimizer": nn.AdamW(0.01), "max_norm": 2.0},
    "float32": {"precision": "float32", "solver": "sgd"},
    "early stopping": {"early_stopping": True},
}


def by_joblib(made, tmp_path, mmap_mode=None):
    joblib.dump(made, tmp_path / "made.joblib")
    return joblib.load(tmp_path / "made.joblib", mmap_mode=mmap_mode)


COPIES = {
    "pickle": lambda made, _: pickle.loads(pickle.dumps(made)),
    "joblib": by_joblib,
    "joblib, mapped": lambda made, tmp_path: by_joblib(made, tmp_path, "r"),
    "deepcopy": lambda made, _: copy.deepcopy(made),
}


@host
@pytest.mark.parametrize("way", COPIES)
@pytest.mark.parametrize("kind", KINDS)
def test_copies(kind, way, tmp_path):
    """A copy predicts the same, goes on the same, and leaves the original alone."""
    X, y = iris()
    made = classifier(**KINDS[kind], max_iter=3).fit(X, y)
    twin = COPIES[way](made, tmp_path)
    expected = made.predict_proba(X)
    np.testing.assert_allclose(twin.predict_proba(X), expected, rtol=1e-5, atol=1e-7)
    assert (twin.device_, twin.loss_curve_) == (made.device_, made.loss_curve_)
    twin.set_params(early_stopping=False).partial_fit(X, y)
    np.testing.assert_array_equal(made.predict_proba(X), expected)
    made.set_params(early_stopping=False).partial_fit(X, y)
    assert made.loss_ == pytest.approx(twin.loss_, rel=1e-5)
    np.testing.assert_allclose(twin.predict_proba(X), made.predict_proba(X), rtol=1e-4, atol=1e-6)


@host
@pytest.mark.parametrize("kind", KINDS)
def test_clone(kind):
    X, y = iris()
    made = classifier(**KINDS[kind]).fit(X, y)
    twin = clone(made)
    assert not hasattr(twin, "network_")
    assert repr(twin) == repr(made)
    np.testing.assert_array_equal(twin.fit(X, y).predict_proba(X), made.predict_proba(X))


WITHOUT_CUPY = """
import pickle
import sys
import numpy as np

class NoCuPy:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"cupy", "cupyx", "cupy_backends"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, NoCuPy())
with open("made.pickle", "rb") as file:
    estimators = pickle.load(file)
X, y = np.load("X.npy"), np.load("y.npy")
for made, expected in zip(estimators, np.load("expected.npy"), strict=True):
    assert made.device_ == "cuda:0", made.device_
    np.testing.assert_allclose(made.predict_proba(X), expected, rtol=1e-12)
    made.set_params(device=None)
    (made.fit if made.solver == "lbfgs" else made.partial_fit)(X, y)
    assert made.device_ == "cpu", made.device_
    assert np.isfinite(made.loss_)
"""


@pytest.mark.accelerator
@pytest.mark.parametrize("way", ["pickle", "deepcopy"])
def test_pickles_of_a_gpu_where_there_is_one(way, tmp_path):
    """They are on the host until they are trained on, which goes on on the GPU."""
    X, y = iris()
    made = classifier(dropout=0.2, batch_norm=True, device="cuda").fit(X, y)
    twin = COPIES[way](made, tmp_path)
    assert twin.network_.device.name == "cpu"
    np.testing.assert_allclose(twin.predict_proba(X), made.predict_proba(X), rtol=1e-10)
    for each in (made, twin):
        each.partial_fit(X, y)
    assert twin.device_ == twin.network_.device.name == "cuda:0"
    np.testing.assert_allclose(twin.predict_proba(X), made.predict_proba(X), rtol=1e-10)


@pytest.mark.accelerator
def test_a_precision_that_gpus_alone_have_leaves_the_host_alone(monkeypatch):
    """Of what is fitted there, probabilities are computed and pickles made on the CPU."""
    monkeypatch.setenv("XPNET_PRECISION", "tf32")
    base.host.cache_clear()
    X, y = iris("float32")
    made = classifier(device="cuda").fit(X, y)
    assert made.network_.device.precision == "tf32"
    P = made.predict_proba(X)
    twin = pickle.loads(pickle.dumps(made))
    np.testing.assert_allclose(twin.predict_proba(X), P, atol=1e-2)  # ten bits of mantissa


@pytest.mark.accelerator
def test_pickles_of_a_gpu_where_there_is_none(tmp_path, dev):
    """Trained there, used where CuPy is not even installed, and trained on."""
    X, y = iris()
    made = [
        classifier(dropout=0.2, batch_norm=True, device="cuda").fit(X, y),
        classifier(device=dev, solver="sgd").fit(X, y),
        LogisticRegression(max_iter=500).fit(X, y),
    ]
    (tmp_path / "made.pickle").write_bytes(pickle.dumps(made))
    np.save(tmp_path / "X.npy", X)
    np.save(tmp_path / "y.npy", y)
    np.save(tmp_path / "expected.npy", [each.predict_proba(X) for each in made])
    env = {name: value for name, value in os.environ.items() if name != "XPNET_DEVICE"}
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_CUPY],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env={**env, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr


# Processes


def _fit_and_predict(queue):
    X, y = iris()
    queue.put(classifier().fit(X, y).predict_proba(X))


@host
@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_fit_after_a_fork():
    """Threads of the parent's are not in the child, which must not wait for them."""
    X, y = iris()
    expected = classifier().fit(X, y).predict_proba(X)
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_fit_and_predict, args=(queue,))
    child.start()
    try:
        np.testing.assert_array_equal(queue.get(timeout=60), expected)
    finally:
        child.join(10)
        child.kill()


@host
def test_how_it_is_shown():
    html = scaled(dropout=0.25).fit(*iris())._repr_html_()
    for text in ("MLPClassifier", "dropout", "0.25", "StandardScaler"):
        assert text in html
    assert repr(MLPClassifier()) == "MLPClassifier()"
    assert "batch_norm=True" in repr(MLPRegressor(batch_norm=True))
