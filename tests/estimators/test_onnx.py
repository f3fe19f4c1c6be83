"""Estimators in ONNX: onnxruntime says what they say, and needs nothing of them."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import numpy as np
import onnxruntime
import pytest
import scipy.sparse
from sklearn import datasets
from sklearn.exceptions import NotFittedError

from tests.devices import environment
from xpnet.estimators import LogisticRegression, MLPClassifier, MLPRegressor
from xpnet.nn import LeakyReLU

pytestmark = [
    pytest.mark.host,
    pytest.mark.filterwarnings("ignore:Stochastic Optimizer:Warning"),
    pytest.mark.filterwarnings("ignore:lbfgs failed to converge:Warning"),
]


def run(model, X):
    """Return onnxruntime's outputs by name."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {"X": X}), strict=True))


def random(n, n_features, seed=0):
    return np.random.default_rng(seed).standard_normal((n, n_features))


def iris():
    X, y = datasets.load_iris(return_X_y=True)
    return X, y


def strings():
    X, y = iris()
    return X, datasets.load_iris().target_names[y]


def binary():
    X, y = iris()
    return X[:100], np.array(["no", "yes"], dtype=object)[y[:100]]


def multilabel():
    X = random(80, 6)
    return X, (X[:, :3] + 0.3 * random(80, 3, 1) > 0.4).astype(int)


def sparse():
    X = random(60, 40) * (random(60, 40, 1) > 1)
    return scipy.sparse.csr_array(X), (X[:, :20].sum(axis=1) > 0).astype(int)


def tiny():
    return np.array([[0.0], [1.0], [2.0]]), np.array([-1, 7, 7])


def wide():
    X = random(30, 700)
    return X, np.arange(30) % 5


def imbalanced():
    X = random(200, 3)
    return X, (X[:, 0] > 1.9).astype(bool)


def counts():
    X = random(100, 4)
    return X, np.random.default_rng(1).poisson(np.exp(0.5 * X[:, 0]))


def two_numbers():
    X = random(100, 4)
    return X, np.column_stack([X[:, 0] ** 2, 100 + 50 * X[:, 1]])


CASES: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "multiclass": (iris, MLPClassifier, {"batch_norm": True, "dropout": 0.2}),
    "strings": (strings, MLPClassifier, {"activation": ["gelu_tanh", "softsign"]}),
    "binary": (binary, MLPClassifier, {"activation": "logistic", "solver": "lbfgs"}),
    "multilabel": (multilabel, MLPClassifier, {"activation": "tanh", "dropout": 0.5}),
    "sparse": (sparse, MLPClassifier, {"activation": [LeakyReLU(0.2), "elu"]}),
    "tiny": (tiny, MLPClassifier, {"batch_norm": True, "batch_size": 2}),
    "wide": (wide, MLPClassifier, {"activation": ["softplus", "identity"], "max_norm": 1.0}),
    "imbalanced": (imbalanced, MLPClassifier, {"class_weight": "balanced"}),
    "no hidden layer": (iris, MLPClassifier, {"hidden_layer_sizes": ()}),
    "counts": (counts, MLPRegressor, {"loss": "poisson", "batch_norm": True}),
    "two numbers": (two_numbers, MLPRegressor, {"activation": "elu", "early_stopping": True}),
    "number": (counts, MLPRegressor, {"solver": "lbfgs"}),
    "logistic regression": (strings, LogisticRegression, {}),
    "logistic regression of two": (binary, LogisticRegression, {"fit_intercept": False}),
}


def fitted(case, precision="float64"):
    data, kind, options = CASES[case]
    X, y = data()
    if kind is not LogisticRegression:
        options = {"hidden_layer_sizes": (9, 7), "learning_rate_init": 0.01, **options}
    made = kind(max_iter=20, random_state=0, precision=precision, **options).fit(X, y)
    return made, X.toarray() if scipy.sparse.issparse(X) else X


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("case", CASES)
def test_what_onnxruntime_says(case, precision):
    made, X = fitted(case, precision)
    found = run(made.to_onnx(), X.astype(precision))
    expected = made.predict(X)
    if isinstance(made, MLPRegressor):
        assert list(found) == ["variable"]
        assert found["variable"].dtype == precision
        expected = expected.reshape(len(X), -1)
        np.testing.assert_allclose(found["variable"], expected, rtol=1e-5, atol=1e-5)
        return
    assert list(found) == ["label", "probabilities"]
    assert found["probabilities"].dtype == precision
    P = made.predict_proba(X)
    np.testing.assert_allclose(found["probabilities"], P, rtol=1e-5, atol=1e-5)
    assert found["label"].shape == expected.shape
    np.testing.assert_array_equal(found["label"], expected)


ALONE = """
import sys
import json
import numpy as np

class Others:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"xpnet", "sklearn", "scipy", "onnx", "cupy", "kernels"}:
            raise ImportError(f"{name} is not to be used here")

sys.meta_path.insert(0, Others())
import onnxruntime

session = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])
label, P = session.run(None, {"X": np.load("X.npy")})
print(json.dumps([label.tolist(), P.sum(axis=1).tolist()]))
"""


def test_without_xpnet_and_scikit_learn(tmp_path):
    made, X = fitted("strings")
    made.to_onnx(tmp_path / "model.onnx")
    np.save(tmp_path / "X.npy", X)
    done = subprocess.run(
        [sys.executable, "-c", ALONE],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env=environment(PYTHONPATH=""),
    )
    assert done.returncode == 0, done.stderr
    label, total = json.loads(done.stdout)
    assert label == made.predict(X).tolist()
    np.testing.assert_allclose(total, 1)


def test_what_cannot_be_exported():
    X, y = iris()
    with pytest.raises(NotFittedError):
        MLPClassifier().to_onnx()
    one = MLPClassifier(max_iter=2).fit(X[:50], y[:50])
    with pytest.raises(ValueError, match="needs a classifier of at least two classes"):
        one.to_onnx()
