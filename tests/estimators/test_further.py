"""What the estimators have beyond scikit-learn's, each beside the same network trained by hand."""

from __future__ import annotations

import copy
import os
import signal
import threading
from typing import Any

import numpy as np
import pytest

from tests.estimators.networks import (
    BASE,
    agree,
    by_hand,
    dense,
    differ,
    drop,
    fitted,
    forward,
    normalised,
    problem,
    weights,
)
from xpnet import nn
from xpnet.device import DeviceUnavailableError
from xpnet.estimators import LogisticRegression, MLPClassifier, MLPRegressor

host = pytest.mark.host
pytestmark = pytest.mark.filterwarnings("ignore:Stochastic Optimizer:Warning")

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


@host
def test_masks_are_those_of_the_random_state():
    X, y = problem()
    options = {"dropout": 0.5, "initialization": "zeros", "activation": "softplus"}
    one, other = (fitted(X, y, random_state=seed, **options) for seed in (1, 2))
    assert differ(one, other)
    assert not differ(one, fitted(X, y, random_state=1, **options))


@host
@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {"dropout": [0.1]},
            r"'dropout' parameter .* must be one value, or .* each of the 2 hidden .* Got \[0.1\]",
        ),
        ({"dropout": [0.1, 1.0]}, r"'dropout' parameter .* in the range \[0.0, 1.0\)"),
        ({"dropout": ["a", "b"]}, r"'dropout' parameter .* in the range \[0.0, 1.0\)"),
        ({"dropout": 1.0}, r"The 'dropout' parameter"),
        (
            {"activation": ["relu"] * 3},
            r"'activation' parameter .* one value, or .* each of the 2 hidden layers. Got",
        ),
        ({"activation": "mish"}, r"The 'activation' parameter"),
        ({"activation": ["relu", "mish"]}, r"'activation' .*unknown activation 'mish'"),
        ({"activation": {"type": "elu", "slope": 1}}, r"'activation' parameter .*slope"),
        ({"initialization": {"type": "normal", "q": 1}}, r"'initialization' parameter .*q"),
        ({"initialization": "he"}, r"The 'initialization' parameter"),
        ({"optimizer": {"type": "adam", "rate": 1}}, r"'optimizer' parameter .*rate"),
        (
            {"optimizer": nn.Adam(), "weight_decay": 0.1},
            r"weight_decay must be 0 with optimizer=.*got 0.1",
        ),
        ({"schedule": {"type": "cosine", "end": 1}}, r"'schedule' parameter .*end"),
        ({"schedule": "reduce_on_plateau"}, r"schedule monitors validation_cost: pass validation"),
        (
            {"solver": "sgd", "learning_rate": "adaptive", "schedule": "cosine"},
            r"learning_rate must be 'constant' with schedule='cosine', got 'adaptive'",
        ),
        (
            {"solver": "sgd", "learning_rate": "invscaling", "optimizer": "adam"},
            r"learning_rate must be 'constant' with optimizer='adam', got 'invscaling'",
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
    with pytest.raises(ValueError, match=rf"^{name} must be .* with solver='lbfgs', got "):
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
    with pytest.raises(ValueError, match="X_val needs solver='adam' or 'sgd'"):
        fitted(X, y, solver="lbfgs", fit={"X_val": X, "y_val": y})


# Parts of the user's own


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


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_coefs_hold_the_normalisation(activation):
    X, y = problem()
    X = X * [1, 10, 100, 0.1, 1] + [0, 5, 50, 0, 1]
    made = fitted(X, y, batch_norm=True, activation=activation, max_iter=20)
    np.testing.assert_allclose(made.predict_proba(X), forward(made, X), rtol=1e-9, atol=1e-12)
    with pytest.raises(AttributeError, match="coefs_ cannot be set with batch_norm=True"):
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
    with pytest.raises(DeviceUnavailableError, match="precision=tf32 needs an NVIDIA GPU"):
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
