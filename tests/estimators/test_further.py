"""What the estimators have beyond scikit-learn's, each beside the same network trained by hand."""

from __future__ import annotations

import copy
import os
import signal
import threading
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score, log_loss, make_scorer

from xpnet import nn, training
from xpnet.device import DeviceUnavailableError, device
from xpnet.estimators import LogisticRegression, MLPClassifier, MLPRegressor
from xpnet.random import RandomStateStream

host = pytest.mark.host
pytestmark = pytest.mark.filterwarnings("ignore:Stochastic Optimizer:Warning")


def problem(n=60, n_features=5, seed=0, dtype="float64"):
    """Make samples of three classes, overlapping and of different numbers."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, n_features))
    y = np.argmax(X[:, :3] + [0.5, 0.0, -0.3] + 0.5 * rng.standard_normal((n, 3)), axis=1)
    return X.astype(dtype), y


BASE: dict[str, Any] = {
    "hidden_layer_sizes": (8, 6),
    "initialization": "he_normal",
    "alpha": 0.01,
    "batch_size": 16,
    "max_iter": 4,
    "learning_rate_init": 0.02,
    "shuffle": False,
    "random_state": 3,
}


def fitted(X, y, kind=MLPClassifier, fit=None, **options):
    return kind(**{**BASE, **options}).fit(X, y, **(fit or {}))


def by_hand(X, y, layers=None, dtype="float64", **options):
    """Train the network that the estimators of these tests are to be."""
    random_state = np.random.RandomState(3)
    if layers is None:
        layers = [dense(8), dense(6), dense(3, None)]
    stream = RandomStateStream(random_state)
    network = nn.Network(layers, X.shape[1], dtype=dtype, stream=stream)
    options = {
        "loss": "softmax_cross_entropy",
        "optimizer": nn.Adam(0.02, epsilon_hat=True),
        "epochs": 4,
        "batch_size": 16,
        "shuffle": False,
        "l2": 0.01,
        "penalty": "batch",
        "seed": int(random_state.randint(2**31)),
        **options,
    }
    return network, training.fit(network, X, y, **options)


def dense(units, activation="relu", init="he_normal", **options):
    return nn.Dense(units, activation or "identity", init=init, **options)


def weights(network):
    values = {**network.named_parameters(), **network.named_statistics()}
    return {name: network.device.to_host(view) for name, view in values.items()}


def agree(estimator, network, history, tolerance=1e-10):
    found, expected = weights(estimator.network_), weights(network)
    assert found.keys() == expected.keys()
    for name, values in found.items():
        np.testing.assert_allclose(values, expected[name], rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(estimator.loss_curve_, [r.cost for r in history.reports], 1e-6)


def differ(one, other):
    a, b = (np.concatenate([W.ravel() for W in e.coefs_]) for e in (one, other))
    return a.shape != b.shape or not np.allclose(a, b, rtol=1e-6, atol=1e-6)


def drop(first, second):
    rates = [[nn.Dropout(rate)] if rate else [] for rate in (first, second)]
    return [dense(8), *rates[0], dense(6), *rates[1], dense(3, None)]


def normalised():
    return [
        *(dense(8, None, bias=False, init={"type": "he_normal"}), nn.BatchNorm(unbiased=False)),
        *("relu", dense(6, None, bias=False), nn.BatchNorm(unbiased=False), "relu"),
        dense(3, None),
    ]


_SHAPE = [(8, "relu"), (6, "relu"), (3, None)]
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "nothing": ({}, {}),
    "dropout": ({"dropout": 0.4}, {"layers": lambda: drop(0.4, 0.4)}),
    "dropout by layer": ({"dropout": [0, 0.5]}, {"layers": lambda: drop(0, 0.5)}),
    "batch_norm": ({"batch_norm": True}, {"layers": normalised}),
    "activation": (
        {"activation": "tanh"},
        {"layers": lambda: [dense(8, "tanh"), dense(6, "tanh"), dense(3, None)]},
    ),
    "activations": (
        {"activation": ["softsign", {"type": "elu", "alpha": 0.3}]},
        {"layers": lambda: [dense(8, "softsign"), dense(6, nn.ELU(0.3)), dense(3, None)]},
    ),
    "activations as objects": (
        {"activation": (nn.LeakyReLU(0.2), "logistic")},
        {"layers": lambda: [dense(8, nn.LeakyReLU(0.2)), dense(6, "sigmoid"), dense(3, None)]},
    ),
    "max_norm": (
        {"max_norm": 0.8},
        {"layers": lambda: [dense(8, max_norm=0.8), dense(6, max_norm=0.8), dense(3, None)]},
    ),
    "initialization by name": (
        {"initialization": "xavier_uniform"},
        {"layers": lambda: [dense(n, f, "xavier_uniform") for n, f in _SHAPE]},
    ),
    "initialization as an object": (
        {"initialization": nn.LeCunNormal(gain=2.0)},
        {"layers": lambda: [dense(n, f, nn.LeCunNormal(gain=2.0)) for n, f in _SHAPE]},
    ),
    "initialization for the activation": (
        {"initialization": {"type": "orthogonal", "gain": "activation"}},
        {
            "layers": lambda: [
                dense(n, f, {"type": "orthogonal", "gain": "activation"}) for n, f in _SHAPE
            ]
        },
    ),
    "initialization auto": (
        {"initialization": "auto", "activation": ["relu", "tanh"]},
        {"layers": lambda: [nn.Dense(8, "relu"), nn.Dense(6, "tanh"), nn.Dense(3)]},
    ),
    "label_smoothing": (
        {"label_smoothing": 0.2},
        {"loss": {"type": "softmax_cross_entropy", "label_smoothing": 0.2}},
    ),
    "optimizer by name": ({"optimizer": "rmsprop"}, {"optimizer": nn.RMSprop(0.02)}),
    "optimizer by name, with decay": (
        {"optimizer": "momentum", "weight_decay": 0.3},
        {"optimizer": nn.Momentum(0.02, weight_decay=0.3)},
    ),
    "optimizer as an object": (
        {"optimizer": nn.Nesterov(0.05, beta=0.7)},
        {"optimizer": nn.Nesterov(0.05, beta=0.7)},
    ),
    "optimizer as a table": (
        {"optimizer": {"type": "gradient_descent", "learning_rate": 0.2}},
        {"optimizer": nn.GradientDescent(0.2)},
    ),
    "schedule by name": ({"schedule": "exponential"}, {"schedule": "exponential"}),
    "schedule as an object": (
        {"schedule": nn.CosineDecay(per="step", warmup=3)},
        {"schedule": nn.CosineDecay(per="step", warmup=3)},
    ),
    "schedule that watches the loss": (
        {"schedule": nn.ReduceOnPlateau("cost", patience=0, threshold=0.5)},
        {"schedule": nn.ReduceOnPlateau("cost", patience=0, threshold=0.5)},
    ),
    "schedule that watches the accuracy": (
        {"schedule": nn.ReduceOnPlateau("train_accuracy", patience=0, threshold=0.9)},
        {
            "schedule": nn.ReduceOnPlateau("train_accuracy", patience=0, threshold=0.9),
            "train_accuracy": True,
        },
    ),
    "weight_decay": (
        {"weight_decay": 0.5},
        {"optimizer": nn.Adam(0.02, epsilon_hat=True, weight_decay=0.5)},
    ),
    "clip_norm": ({"clip_norm": 0.01, "solver": "sgd"}, {"clip_norm": 0.01, "optimizer": "sgd"}),
    "class_weight": ({"class_weight": {0: 3.0, 2: 0.5}}, {"class_weight": {0: 3.0, 2: 0.5}}),
    "class_weight balanced": ({"class_weight": "balanced"}, {"class_weight": "balanced"}),
}


@pytest.mark.parametrize("case", CASES)
def test_parameters(case):
    """Each does what the mathematics do with it, and that is not what they do without it."""
    options, expected = (dict(given) for given in CASES[case])
    X, y = problem()
    if "layers" in expected:
        expected["layers"] = expected["layers"]()
        expected["layers"] = [nn.Layer.resolve(layer) for layer in expected["layers"]]
    plain = {}
    if expected.get("optimizer") == "sgd":
        expected["optimizer"], plain = nn.Nesterov(0.02, beta=0.9), {"solver": "sgd"}
    estimator = fitted(X, y, **options)
    agree(estimator, *by_hand(X, y, **expected))
    assert differ(estimator, fitted(X, y, **plain)) == (case != "nothing")


@pytest.mark.parametrize("kind", [MLPClassifier, MLPRegressor])
def test_all_parameters_are_there_for_regression_too(kind):
    """The same network but for its last layer, whatever the estimator."""
    X, y = problem()
    options = {"dropout": 0.2, "batch_norm": True, "activation": ["elu", "tanh"], "max_norm": 2.0}
    made = fitted(X, y if kind is MLPClassifier else X[:, 0], kind, **options)
    names = [layer.name for layer in made.network_.layers]
    part = ["dense", "batch_norm", "elu", "dropout"]
    assert names == [*part, *part[:2], "tanh", "dropout", "dense"]
    assert [layer.max_norm for layer in made.network_.layers if layer.name == "dense"] == [
        2,
        2,
        None,
    ]


@host
def test_regression_by_hand():
    X, _ = problem()
    y = X[:, :2] ** 2
    made = fitted(X, y, MLPRegressor, dropout=0.3, schedule="cosine", weight_decay=0.1)
    layers = drop(0.3, 0.3)
    layers[-1] = dense(2, None)
    # Half the sum of the squares of two outputs is their mean.
    expected, history = by_hand(
        X,
        y,
        layers,
        loss="mean_squared_error",
        schedule="cosine",
        optimizer=nn.Adam(0.02, epsilon_hat=True, weight_decay=0.1),
    )
    for name, values in weights(made.network_).items():
        np.testing.assert_allclose(values, weights(expected)[name], rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(made.loss_curve_[0], history.reports[0].cost / 2, rtol=0.01)


# Dropout


def test_dropout_is_off_in_prediction():
    X, y = problem()
    made = fitted(X, y, dropout=0.5)
    first = made.predict_proba(X)
    np.testing.assert_array_equal(first, made.predict_proba(X))
    np.testing.assert_allclose(first, forward(made, X), rtol=1e-10)


@pytest.mark.parametrize("how", ["partial_fit", "warm_start", "warm_start_optimizer"])
def test_masks_are_not_drawn_twice(how):
    """Steps of one sample, of a rate that leaves a mask where the weights' changes are 0."""
    X, y = np.ones((1, 4)), np.array([0])
    made = MLPRegressor(
        hidden_layer_sizes=(64,),
        activation="identity",
        dropout=0.5,
        solver="sgd",
        momentum=0,
        max_iter=1,
        random_state=0,
        learning_rate_init=1e-3,
        alpha=0,
        warm_start=how != "partial_fit",
        warm_start_optimizer=how == "warm_start_optimizer",
    )
    masks = []
    made.partial_fit(X, y)
    for _ in range(4):
        before = made.coefs_[1].copy()
        (made.partial_fit if how == "partial_fit" else made.fit)(X, y)
        masks.append((made.coefs_[1] != before).ravel())
    assert all(0.2 < mask.mean() < 0.8 for mask in masks)
    assert len({mask.tobytes() for mask in masks}) == 4


@host
def test_masks_are_those_of_the_random_state():
    X, y = problem()
    options = {"dropout": 0.5, "initialization": "zeros", "activation": "softplus"}
    one, other = (fitted(X, y, random_state=seed, **options) for seed in (1, 2))
    assert differ(one, other)
    assert not differ(one, fitted(X, y, random_state=1, **options))


@host
def test_dropout_that_comes_with_a_warm_start():
    X, y = problem()
    options = {"warm_start": True, "max_iter": 1}
    found = []
    for seed in (1, 2):
        made = fitted(X, y, **options)
        made.set_params(dropout=0.5, random_state=seed).fit(X, y)
        found.append(made)
    assert differ(*found)
    before = found[0].coefs_
    found[0].set_params(dropout=0.0, learning_rate_init=1e-12).fit(X, y)
    for W, expected in zip(found[0].coefs_, before, strict=True):
        np.testing.assert_allclose(W, expected, atol=1e-9)


@host
@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {"dropout": [0.1]},
            r"'dropout' parameter .* must be one for all .* each of the 2. Got \[0.1\]",
        ),
        ({"dropout": [0.1, 1.0]}, r"'dropout' parameter .* in the range \[0.0, 1.0\)"),
        ({"dropout": ["a", "b"]}, r"'dropout' parameter .* in the range \[0.0, 1.0\)"),
        ({"dropout": 1.0}, r"The 'dropout' parameter"),
        (
            {"activation": ["relu"] * 3},
            r"'activation' parameter .* one for all .* each of the 2. Got",
        ),
        ({"activation": "mish"}, r"The 'activation' parameter"),
        ({"activation": ["relu", "mish"]}, r"'activation' .*there is no activation named 'mish'"),
        ({"activation": {"type": "elu", "slope": 1}}, r"'activation' parameter .*slope"),
        ({"initialization": {"type": "normal", "q": 1}}, r"'initialization' parameter .*q"),
        ({"initialization": "he"}, r"The 'initialization' parameter"),
        ({"optimizer": {"type": "adam", "rate": 1}}, r"'optimizer' parameter .*rate"),
        ({"optimizer": nn.Adam(), "weight_decay": 0.1}, r"weight_decay is for a solver or the na"),
        ({"schedule": {"type": "cosine", "end": 1}}, r"'schedule' parameter .*end"),
        ({"schedule": "reduce_on_plateau"}, r"schedule watches validation_cost: pass validation"),
        (
            {"solver": "sgd", "learning_rate": "adaptive", "schedule": "cosine"},
            r"learning_rate='adaptive' .* 'constant' beside schedule='cosine'",
        ),
        (
            {"solver": "sgd", "learning_rate": "invscaling", "optimizer": "adam"},
            r"learning_rate='invscaling' .* 'constant' beside optimizer='adam'",
        ),
        ({"device": "gpu"}, r"'device' parameter .*device must be 'cpu', 'cuda'"),
        ({"precision": "float16"}, r"The 'precision' parameter"),
        ({"label_smoothing": 1.0}, r"The 'label_smoothing' parameter"),
        ({"max_norm": 0}, r"The 'max_norm' parameter"),
        ({"clip_norm": -1.0}, r"The 'clip_norm' parameter"),
        ({"weight_decay": -1.0}, r"The 'weight_decay' parameter"),
        ({"class_weight": {0: 1, 7: 2}}, r"not in class_weight"),
        ({"scoring": "precise"}, r"The 'scoring' parameter"),
    ],
    ids=str,
)
def test_what_is_refused(options, said):
    X, y = problem()
    with pytest.raises(ValueError, match=said):
        fitted(X, y, **options)


@host
@pytest.mark.parametrize(
    "options",
    [
        {"dropout": 0.5},
        {"dropout": [0.0, 0.5]},
        {"batch_norm": True},
        {"max_norm": 1.0},
        {"weight_decay": 0.1},
        {"clip_norm": 1.0},
        {"optimizer": "adam"},
        {"schedule": "cosine"},
    ],
    ids=str,
)
def test_what_lbfgs_refuses(options):
    X, y = problem()
    (name,) = options
    with pytest.raises(ValueError, match=rf"solver='lbfgs' .* {name} must be"):
        fitted(X, y, solver="lbfgs", **options)


@host
@pytest.mark.filterwarnings("ignore:lbfgs failed to converge:Warning")
def test_what_lbfgs_takes():
    X, y = problem()
    made = fitted(X, y, solver="lbfgs", dropout=[0, 0.0])
    assert not differ(made, fitted(X, y, solver="lbfgs"))
    for options in (
        {"activation": ["elu", "tanh"]},
        {"label_smoothing": 0.1},
        {"class_weight": "balanced"},
    ):
        assert differ(made, fitted(X, y, solver="lbfgs", **options)), options
    with pytest.raises(ValueError, match="X_val is for solver='adam' and 'sgd'"):
        fitted(X, y, solver="lbfgs", fit={"X_val": X, "y_val": y})


# Parts of one's own


@host
def test_an_activation_of_ones_own():
    """By name, too, which was not known when xpnet was imported."""

    class Cube(nn.Activation):
        name = "Cube of these tests"

        def forward(self, Z, cache):
            cache.Z = Z
            return Z**3

        def backward(self, dA, cache):
            return 3 * dA * cache.Z**2

    X, y = problem()
    try:
        by_name = fitted(X, y, activation=Cube.name)
        assert differ(by_name, fitted(X, y))
        assert not differ(by_name, fitted(X, y, activation=[Cube.name, Cube()]))
    finally:
        del nn.Activation._registry[Cube.name]
    with pytest.raises(ValueError, match="The 'activation' parameter of MLPClassifier must be"):
        fitted(X, y, activation=Cube.name)


# Batch normalisation


def forward(estimator, X):
    """Compute a classifier's probabilities from what it says of itself."""
    f: dict[str, Any] = {
        "relu": lambda Z: np.maximum(Z, 0),
        "tanh": np.tanh,
        "identity": lambda Z: Z,
    }
    A = X
    for W, b in zip(estimator.coefs_[:-1], estimator.intercepts_[:-1], strict=True):
        A = f[estimator.activation](A @ W + b)
    Z = A @ estimator.coefs_[-1] + estimator.intercepts_[-1]
    E = np.exp(Z - Z.max(axis=1, keepdims=True))
    return E / E.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_coefs_hold_the_normalisation(activation):
    X, y = problem()
    X = X * [1, 10, 100, 0.1, 1] + [0, 5, 50, 0, 1]
    made = fitted(X, y, batch_norm=True, activation=activation, max_iter=20)
    np.testing.assert_allclose(made.predict_proba(X), forward(made, X), rtol=1e-9, atol=1e-12)
    with pytest.raises(AttributeError, match="coefs_ can be set where every layer"):
        made.coefs_ = made.coefs_


def test_a_prediction_does_not_depend_on_the_others():
    X, y = problem()
    made = fitted(X, y, batch_norm=True, dropout=0.3)
    alone = np.concatenate([made.predict_proba(X[i : i + 1]) for i in range(10)])
    np.testing.assert_allclose(made.predict_proba(X)[:10], alone, rtol=1e-12)


# Weights of classes


@host
@pytest.mark.filterwarnings("ignore:lbfgs failed to converge:Warning")
@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
@pytest.mark.parametrize("class_weight", ["balanced", {"a": 2.0, "c": 0.25}], ids=str)
def test_weights_of_classes_are_weights_of_samples(class_weight, solver):
    X, number = problem()
    y = np.array(["a", "b", "c"])[number]
    own = np.random.default_rng(5).uniform(0.5, 2, len(y))
    options = {"solver": solver, "max_iter": 4}
    for given in (None, own):
        weight = np.ones(len(y)) if given is None else given
        if class_weight == "balanced":  # all classes weigh the same, by what their samples weigh
            of_class = weight.sum() / (3 * np.bincount(number, weight))
        else:
            of_class = np.array([2.0, 1.0, 0.25])
        one = fitted(X, y, class_weight=class_weight, fit={"sample_weight": given}, **options)
        other = fitted(X, y, fit={"sample_weight": weight * of_class[number]}, **options)
        assert not differ(one, other)
        assert differ(one, fitted(X, y, fit={"sample_weight": given}, **options))


def test_weights_of_several_labels():
    X, _ = problem()
    Y = (X[:, :2] > 0.3).astype(int)
    table = [{0: 1.0, 1: 4.0}, {0: 2.0, 1: 1.0}]
    expected = np.where(Y[:, 0], 4.0, 1.0) * np.where(Y[:, 1], 1.0, 2.0)
    made = fitted(X, Y, class_weight=table)
    assert not differ(made, fitted(X, Y, fit={"sample_weight": expected}))
    assert made.predict_proba(X).shape == (60, 2)


@host
def test_weights_of_classes_in_partial_fit():
    X, y = problem()
    made = MLPClassifier(**{**BASE, "class_weight": {0: 3.0}}).partial_fit(X, y, classes=[0, 1, 2])
    plain = MLPClassifier(**BASE).partial_fit(X, y, np.where(y == 0, 3.0, 1.0), classes=[0, 1, 2])
    assert not differ(made, plain)
    with pytest.raises(ValueError, match="class_weight='balanced' is not supported"):
        made.set_params(class_weight="balanced").partial_fit(X, y)


# Precision and device


@pytest.mark.parametrize("data", ["float32", "float64"])
@pytest.mark.parametrize("precision", ["float32", "float64", None])
def test_precision(precision, data):
    X, y = problem(dtype=data)
    made = fitted(X, y, precision=precision)
    expected = precision or data
    assert made.network_.dtype == made.coefs_[0].dtype == made.predict_proba(X).dtype == expected
    network, history = by_hand(X, y, dtype=expected)
    agree(made, network, history, {"float32": 2e-4, "float64": 1e-10}[expected])


@host
def test_precision_of_other_machines():
    X, y = problem()
    with pytest.raises(DeviceUnavailableError, match=r"precision=tf32: .* the device is 'cpu'"):
        fitted(X, y, precision="tf32", device="cpu")


def test_device(dev):
    X, y = problem()
    by_object, by_name = (fitted(X, y, device=given) for given in (dev, dev.name))
    assert by_object.device_ == by_name.device_ == dev.name == by_object.network_.device.name
    assert not differ(by_object, by_name)
    moved = fitted(X, y, device="cpu", warm_start=True, warm_start_optimizer=True, dropout=0.2)
    assert moved.device_ == "cpu"
    stayed = copy.deepcopy(moved).fit(X, y)
    moved.set_params(device=dev).fit(X, y)
    assert moved.device_ == dev.name
    np.testing.assert_allclose(moved.predict_proba(X), stayed.predict_proba(X), rtol=1e-9)


# Validation data


def test_validation_curves():
    X, y = problem(90)
    weight = np.random.default_rng(0).uniform(0.1, 2, 30)
    given = {"X_val": X[60:], "y_val": y[60:], "sample_weight_val": weight}
    made = fitted(X[:60], y[:60], fit=given)
    _, history = by_hand(X[:60], y[:60], validation=(X[60:], y[60:], weight))
    expected = [report.validation_cost for report in history.reports]
    np.testing.assert_allclose(made.validation_loss_curve_, expected, rtol=1e-9)
    expected = [report.validation_accuracy for report in history.reports]
    np.testing.assert_allclose(made.validation_scores_, expected)
    P = made.predict_proba(X[60:])
    assert made.validation_loss_curve_[-1] == pytest.approx(
        log_loss(y[60:], P, sample_weight=weight)
    )
    assert made.best_validation_score_ is None
    assert not differ(made, fitted(X[:60], y[:60]))


def test_early_stopping_on_own_validation_data():
    X, y = problem(160, seed=1)
    options = {"max_iter": 200, "early_stopping": True, "n_iter_no_change": 3, "tol": 0}
    made = fitted(X[:100], y[:100], fit={"X_val": X[100:], "y_val": y[100:]}, **options)
    assert made.n_iter_ == len(made.validation_scores_) < 200
    assert made.best_validation_score_ == max(made.validation_scores_)
    assert made.score(X[100:], y[100:]) == pytest.approx(made.best_validation_score_)
    assert made.best_loss_ is None
    # All samples are trained on.
    one = fitted(X[:100], y[:100], max_iter=1)
    assert made.loss_curve_[0] == pytest.approx(one.loss_curve_[0], rel=1e-12)


@host
@pytest.mark.parametrize("own", [False, True], ids=["split", "own"])
@pytest.mark.parametrize(
    "scoring",
    [
        "loss",
        "f1_macro",
        "neg_log_loss",
        lambda e, X, y: -abs(e.predict_proba(X)[:, 0].mean() - 0.4),
    ],
    ids=["loss", "name", "probabilities", "function"],
)
def test_scoring(scoring, own):
    X, y = problem(160)
    fit = {"X_val": X[100:], "y_val": y[100:]} if own else {}
    options = {"early_stopping": True, "max_iter": 8, "validation_fraction": 0.3}
    made = fitted(X[:100], y[:100], fit=fit, scoring=scoring, **options)
    if scoring == "loss":
        np.testing.assert_allclose(made.validation_scores_, -np.array(made.validation_loss_curve_))
    assert made.best_validation_score_ == max(made.validation_scores_)
    plain = fitted(X[:100], y[:100], fit=fit, **options)
    assert made.validation_scores_ != plain.validation_scores_
    if own:
        measured = {
            "loss": lambda: -log_loss(y[100:], made.predict_proba(X[100:])),
            "f1_macro": lambda: f1_score(y[100:], made.predict(X[100:]), average="macro"),
            "neg_log_loss": lambda: -log_loss(y[100:], made.predict_proba(X[100:])),
        }.get(scoring, lambda: scoring(made, X[100:], y[100:]))
        assert made.best_validation_score_ == pytest.approx(measured())


@host
def test_scorers_are_given_weights_where_they_take_them():
    X, y = problem(160)
    weight = np.where(y == 0, 5.0, 1.0)
    fit = {"X_val": X[100:], "y_val": y[100:], "sample_weight_val": weight[100:]}
    options = {"early_stopping": True, "max_iter": 3}
    made = fitted(X, y, fit=fit, scoring=make_scorer(accuracy_score), **options)
    expected = fitted(X, y, fit=fit, **options).validation_scores_
    np.testing.assert_allclose(made.validation_scores_, expected)
    plain = fitted(X, y, fit=fit, scoring=lambda e, X, y: e.score(X, y), **options)
    assert not np.allclose(plain.validation_scores_, expected)


@host
def test_scores_that_are_no_numbers():
    X, y = problem()
    options = {"early_stopping": True, "max_iter": 3, "validation_fraction": 0.2}
    made = fitted(X, y, scoring=lambda e, X, y: np.nan, **options)
    assert np.isnan(made.validation_scores_).all()
    assert made.best_validation_score_ == -np.inf
    assert made.predict(X).shape == y.shape
    for score in (None, "good", {"f1": 1.0}):
        with pytest.raises(ValueError, match="scoring must give a number, got"):
            fitted(X, y, scoring=lambda e, X, y, score=score: score, **options)
    with pytest.raises(ZeroDivisionError):
        fitted(X, y, scoring=lambda e, X, y: 1 / 0, **options)


@host
@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_data_frames(library):
    frames = pytest.importorskip(library)
    X, y = problem(80)
    names = list("abcde")
    data = frames.DataFrame({name: X[:, i] for i, name in enumerate(names)})
    options = {"early_stopping": True, "validation_fraction": 0.3}
    for scoring in (None, "loss", "f1_macro", lambda e, X, y: e.score(X, y)):
        made = fitted(data, y, scoring=scoring, **options)
        assert not differ(made, fitted(X, y, scoring=scoring, **options))
        made = fitted(
            data, y, scoring=scoring, fit={"X_val": data[:20], "y_val": y[:20]}, **options
        )
        np.testing.assert_array_equal(made.feature_names_in_, names)
        assert made.predict(data).shape == (80,)
    with pytest.raises(ValueError, match="feature names"):
        made.predict(data[names[::-1]])


@host
@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"X_val": "X"}, "X_val and y_val must be given together, got X_val alone"),
        ({"y_val": "y"}, "X_val and y_val must be given together, got y_val alone"),
        ({"sample_weight_val": "y"}, "sample_weight_val must go with X_val and y_val"),
        ({"X_val": "narrow", "y_val": "y"}, "X has 2 features"),
        ({"X_val": "X", "y_val": "other"}, "`y` has classes not in"),
        ({"X_val": "X", "y_val": "short"}, "inconsistent numbers of samples"),
    ],
    ids=str,
)
def test_validation_data_that_do_not_fit(given, said):
    X, y = problem()
    values = {"X": X, "y": y, "narrow": X[:, :2], "other": y + 1, "short": y[:-1]}
    with pytest.raises(ValueError, match=said):
        fitted(X, y, fit={name: values[value] for name, value in given.items()})


@host
@pytest.mark.parametrize("own", [False, True], ids=["split", "own"])
def test_schedules_that_watch_validation_data(own):
    X, y = problem(120)
    fit = {"X_val": X[80:], "y_val": y[80:]} if own else {}
    schedule = nn.ReduceOnPlateau("validation_cost", patience=0, threshold=0.5)
    options = {"early_stopping": not own, "validation_fraction": 0.3, "max_iter": 6}
    made = fitted(X[:80], y[:80], fit=fit, schedule=schedule, **options)
    assert differ(made, fitted(X[:80], y[:80], fit=fit, **options))
    if own:
        agree(
            made,
            *by_hand(X[:80], y[:80], schedule=schedule, epochs=6, validation=(X[80:], y[80:])),
        )


@host
def test_early_stopping_on_little_data():
    X, y = problem(9)
    with pytest.raises(ValueError, match="validation set is too small"):
        fitted(X[:5], X[:5, 0], MLPRegressor, early_stopping=True)
    made = fitted(
        X, X[:, 0], MLPRegressor, early_stopping=True, validation_fraction=0.3, batch_size=4
    )
    assert len(made.validation_scores_) == 4
    with pytest.raises(ValueError, match="The least populated class"):
        fitted(X, np.arange(9) == 0, early_stopping=True, validation_fraction=0.5)
    own = {"X_val": X[:1], "y_val": y[:1]}
    made = fitted(X, y, early_stopping=True, fit=own, batch_size=4)
    assert set(made.validation_scores_) <= {0.0, 1.0}


# Going on


@pytest.mark.heavy
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"dropout": 0.4, "batch_norm": True},
        {"solver": "sgd"},
        {"solver": "sgd", "learning_rate": "invscaling"},
        {"optimizer": "rmsprop"},
        {"weight_decay": 0.1},
        {"precision": "float32"},
    ],
    ids=str,
)
def test_two_fits_are_one(options):
    X, y = problem()
    twice = MLPClassifier(**{**BASE, "max_iter": 5, "warm_start": True, **options})
    twice.set_params(warm_start_optimizer=True).fit(X, y).fit(X, y)
    once = fitted(X, y, max_iter=10, **options)
    for a, b in zip(twice.coefs_, once.coefs_, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(twice.loss_curve_, once.loss_curve_, rtol=1e-6)
    anew = MLPClassifier(**{**BASE, "max_iter": 5, "warm_start": True, **options})
    assert differ(anew.fit(X, y).fit(X, y), once)


@pytest.mark.parametrize("options", [{}, {"dropout": 0.4}, {"optimizer": "momentum"}], ids=str)
def test_partial_fits_are_epochs(options):
    X, y = problem()
    made = MLPClassifier(**{**BASE, **options})
    for _ in range(4):
        made.partial_fit(X, y, classes=[0, 1, 2])
    assert not differ(made, fitted(X, y, **options))


@host
def test_schedules_are_for_fit():
    X, y = problem()
    with pytest.raises(ValueError, match="partial_fit does not support a schedule"):
        MLPClassifier(schedule="cosine").partial_fit(X, y, classes=[0, 1, 2])


@host
def test_what_is_set_between_calls_takes_effect():
    """Rates and coefficients that an optimizer keeps in its state are those of the call."""
    X, y = problem()

    def then(**changes):
        made = MLPClassifier(**{**BASE, "weight_decay": 0.1}).partial_fit(X, y, classes=[0, 1, 2])
        return made.set_params(**changes).partial_fit(X, y)

    plain = then()
    for changes in (
        {"learning_rate_init": 0.5},
        {"weight_decay": 5.0},
        {"weight_decay": 0.0},
        {"epsilon": 1.0},
        {"beta_1": 0.1},
        {"solver": "sgd"},
        {"dropout": 0.5},
        {"label_smoothing": 0.5},
        {"clip_norm": 1e-9, "solver": "sgd"},
    ):
        assert differ(then(**changes), plain), changes


@pytest.mark.parametrize("optimizer", [False, True], ids=["anew", "goes on"])
@pytest.mark.parametrize("way", [("float32", "float64"), ("float64", "float32")])
def test_precision_that_changes(way, optimizer):
    X, y = problem()
    before, after = way
    options = {"warm_start": True, "warm_start_optimizer": optimizer}
    made = fitted(X, y, precision=before, **options)
    coefs = made.coefs_
    made.set_params(precision=after, learning_rate_init=1e-9).fit(X, y)
    assert made.network_.dtype == made.predict_proba(X).dtype == after
    for a, b in zip(made.coefs_, coefs, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.accelerator
@pytest.mark.parametrize("way", [("float32", "tf32"), ("tf32", "float32")])
def test_products_whose_precision_changes(way):
    X, y = problem()
    made = fitted(X, y, precision=way[0], warm_start=True, warm_start_optimizer=True)
    assert made.network_.device.precision == way[0]
    made.set_params(precision=way[1]).fit(X, y)
    assert made.network_.device.precision == way[1]


@host
@pytest.mark.parametrize("has", np.array([False, True]))
def test_an_intercept_by_a_search_over_an_array(has):
    """Its elements are NumPy's own bools, which scikit-learn's checks let pass."""
    X, y = problem()
    made = LogisticRegression(fit_intercept=has).fit(X, y)
    np.testing.assert_array_equal(
        made.coef_, LogisticRegression(fit_intercept=bool(has)).fit(X, y).coef_
    )


@host
def test_a_loss_that_changes():
    """Predictions go through the link of the loss that the weights were last trained on."""
    X, _ = problem()
    y = np.exp(0.3 * X[:, 0])
    made = fitted(X, y, MLPRegressor, warm_start=True)
    made.set_params(loss="poisson").fit(X, y)
    assert made.out_activation_ == "exp"
    np.testing.assert_allclose(made.predict(X), np.exp(made.network_.predict(X)[:, 0]))


@host
def test_what_a_refused_call_leaves():
    X, _ = problem()
    made = fitted(X, X[:, 0], MLPRegressor)
    before = made.predict(X)
    with pytest.raises(ValueError, match="the weights of the last fit have the shapes"):
        made.partial_fit(X, X[:, :2])
    assert made.n_outputs_ == 1
    np.testing.assert_array_equal(made.predict(X), before)


@host
def test_operations_that_change():
    X, y = problem()
    made = fitted(X, y, device="cpu", warm_start=True)
    made.set_params(device=device("cpu", "reference")).fit(X, y)
    assert made.network_.device.kernels == "reference"


@host
def test_parameters_that_change_with_a_warm_start():
    X, y = problem()
    made = fitted(X, y, warm_start=True)
    coefs = made.coefs_
    made.set_params(activation="tanh", learning_rate_init=1e-9, max_norm=100.0).fit(X, y)
    for a, b in zip(made.coefs_, coefs, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    np.testing.assert_allclose(made.predict_proba(X), forward(made, X), rtol=1e-9)
    before = made.predict_proba(X)
    for changes in ({"hidden_layer_sizes": (9,)}, {"batch_norm": True}):
        made.set_params(**changes)
        with pytest.raises(ValueError, match=r"the weights of the last fit .* warm_start=False"):
            made.fit(X, y)
        made.set_params(**{name: BASE.get(name, False) for name in changes})
    np.testing.assert_array_equal(made.predict_proba(X), before)
    with pytest.raises(ValueError, match="warm_start can only be used where"):
        made.fit(X, y + 1)


@host
@pytest.mark.filterwarnings("ignore:lbfgs failed to converge:Warning")
def test_a_solver_that_changes_with_a_warm_start():
    X, y = problem()
    made = fitted(X, y, solver="lbfgs", warm_start=True)
    lowest = made.loss_
    made.set_params(solver="adam", learning_rate_init=1e-6).fit(X, y)
    assert made.loss_ == pytest.approx(lowest, rel=0.05)
    assert len(made.loss_curve_) == 4
    assert made.set_params(solver="lbfgs").fit(X, y).loss_ < lowest


@host
def test_what_is_watched_changes_with_a_warm_start():
    """A score of 0.9 is no loss of -0.9, which nothing would ever be better than."""
    X, y = problem(100)
    options = {"warm_start": True, "n_iter_no_change": 2, "validation_fraction": 0.3}
    made = fitted(X, y, early_stopping=True, **options)
    made.set_params(early_stopping=False, max_iter=10).fit(X, y)
    assert made.n_iter_ == 10
    assert made.best_loss_ == min(made.loss_curve_[4:])
    assert made.best_validation_score_ is None
    made.set_params(early_stopping=True, scoring="loss", n_iter_no_change=20).fit(X, y)
    assert made.validation_scores_ is not None
    assert made.best_validation_score_ == max(made.validation_scores_[4:])


# How a fit may end


@host
@pytest.mark.parametrize("early_stopping", [False, True])
def test_ctrl_c(early_stopping):
    """A fit ends with what it has reached, and the estimator is as after any other."""
    X, y = problem()
    n_scores = 0

    def score(estimator, X, y):
        nonlocal n_scores
        n_scores += 1
        if n_scores == 5:
            os.kill(os.getpid(), signal.SIGINT)
        return estimator.score(X, y)

    options = {"scoring": score, "early_stopping": early_stopping, "n_iter_no_change": np.inf}
    made = MLPClassifier(**{**BASE, **options, "max_iter": 10_000})
    with pytest.warns(UserWarning, match=r"Training interrupted by user\."):
        made.fit(X, y, X_val=X, y_val=y)
    assert 5 <= made.n_iter_ < 10
    assert made.validation_scores_ is not None
    assert len(made.loss_curve_) == len(made.validation_scores_) == made.n_iter_
    assert made.predict(X).shape == y.shape
    if early_stopping:
        assert made.score(X, y) == made.best_validation_score_ == max(made.validation_scores_)
    made.set_params(max_iter=2, warm_start=True).fit(X, y)
    assert made.n_iter_ == 2


@host
@pytest.mark.parametrize("solver", ["sgd", "adam"])
@pytest.mark.parametrize("kind", [MLPClassifier, MLPRegressor])
def test_a_fit_that_diverges(kind, solver):
    X, y = problem()
    made = kind(**{**BASE, "solver": solver, "learning_rate_init": 1e300, "max_iter": 50})
    with pytest.raises(ValueError, match="Solver produced non-finite parameter weights"):
        made.fit(X * 1e100, y)
    made.set_params(learning_rate_init=0.01).fit(X, y)
    assert np.isfinite(made.loss_)


@host
def test_batch_of_one_sample_with_all_there_is():
    X, y = problem(21)
    made = fitted(X, y, batch_size=1, batch_norm=True, dropout=0.5, max_norm=1, clip_norm=1)
    assert np.isfinite(made.predict_proba(X)).all()


# Logistic regression


@host
@pytest.mark.parametrize("batch_size", [25, 100, 200])
def test_logistic_regression_by_epochs(batch_size):
    """The penalty is beside the sum over all samples, however many are in a batch."""
    X, y = problem(200)
    exact = LogisticRegression(C=0.02).fit(X, y)
    made = LogisticRegression(
        C=0.02,
        solver="adam",
        learning_rate_init=0.003,
        batch_size=batch_size,
        max_iter=500,
        tol=0,
        n_iter_no_change=np.inf,
        random_state=0,
    ).fit(X, y)
    np.testing.assert_allclose(made.coef_, exact.coef_, atol=0.02)


# Several threads


@host
def test_predictions_of_four_threads():
    X, y = problem(3000)
    made = fitted(X, y, batch_norm=True, max_iter=1)
    expected = made.predict_proba(X)
    found: list[Any] = [None] * 4

    def predict(i):
        for _ in range(5):
            found[i] = made.predict_proba(X)

    in_threads(predict, 4)
    for one in found:
        np.testing.assert_array_equal(one, expected)


@host
def test_fits_of_two_threads():
    X, y = problem(400)
    options: list[dict[str, Any]] = [
        {"dropout": 0.3},
        {"batch_norm": True, "solver": "sgd", "shuffle": True},
    ]
    alone = [fitted(X, y, max_iter=15, **more) for more in options]
    found: list[Any] = [None, None]

    def fit(i):
        found[i] = fitted(X, y, max_iter=15, **options[i])

    in_threads(fit, 2)
    for one, expected in zip(found, alone, strict=True):
        assert one.loss_curve_ == expected.loss_curve_
        np.testing.assert_array_equal(one.predict_proba(X), expected.predict_proba(X))


def in_threads(work, n):
    errors = []

    def guarded(i):
        try:
            work(i)
        except Exception as error:  # pytest does not see those of threads
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(i,)) for i in range(n)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not errors, errors
    assert not any(thread.is_alive() for thread in threads)


def test_a_small_probability_of_the_first_of_two_classes_keeps_its_digits():
    """It is no difference from 1, of which nothing would be left."""
    X, y = np.random.default_rng(0).normal(size=(60, 3)), np.arange(60) % 2
    fitted = MLPClassifier((8,), max_iter=2, random_state=0).fit(X, y)
    P = fitted.predict_proba(100 * X)
    assert (P > 0).all()
    assert P[:, 0].min() < 1e-17
    assert P[:, 1].min() < 1e-17
