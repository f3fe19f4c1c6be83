"""Values that are refused, and in which words: scikit-learn's, where the parameter is its own."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from scipy import sparse
from sklearn import linear_model, neural_network
from sklearn.utils._param_validation import InvalidParameterError

import xpnet
from tests.estimators.comparison import Script, data, differences
from tests.estimators.perceptrons import since
from xpnet import estimators
from xpnet.estimators import LogisticRegression, MLPClassifier, MLPRegressor
from xpnet.kernels.cuda_check import cuda_problem
from xpnet.nn.interfaces import Initializer
from xpnet.nn.optimizers import Optimizer
from xpnet.nn.registry import is_own
from xpnet.nn.schedules import Schedule

pytestmark = [
    pytest.mark.host,
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
]

NAN, INF = float("nan"), float("inf")

REFUSED: dict[str, list[Any]] = {
    "hidden_layer_sizes": [0, -3, "12", None, 1.5, [4, 0], (-1,), np.array([3, -1])],
    "solver": ["newton", None, 1],
    "alpha": [-1e-9, "0.1", None, NAN, INF],
    "batch_size": [0, -1, 1.5, "all", None],
    "learning_rate": ["cosine", None],
    "learning_rate_init": [0, -0.1, "0.1", None, INF],
    "power_t": [-1, None, NAN],
    "max_iter": [0, 1.5, None],
    "shuffle": [1, "yes", None],
    "random_state": ["seed", 1.5, -1],
    "tol": [-1e-9, "small", NAN],
    "verbose": ["yes", -1, None, 1.5],
    "warm_start": [1, "yes", None],
    "momentum": [-0.1, 1.1, "0.9"],
    "nesterovs_momentum": [1, "yes"],
    "early_stopping": [1, "yes", None],
    "validation_fraction": [1, 1.0, -0.1, None],
    "beta_1": [1, -0.1, "0.9"],
    "beta_2": [1.0, -0.1, NAN],
    "epsilon": [0, -1e-8, None],
    "n_iter_no_change": [0, 1.5, -1, None],
    "max_fun": [0, 1.5, INF],
    "loss": ["absolute_error", None],
}
REFUSALS = [(name, value) for name, values in REFUSED.items() for value in values]


def message_of(estimator: Any, X: Any = None, y: Any = None) -> str:
    """Return the refusal, with the words of a set in order: Python has them in any."""
    if X is None:
        X, y = data("diabetes")
        y = y if isinstance(estimator, (MLPRegressor, neural_network.MLPRegressor)) else y > 3
    with pytest.raises(ValueError, match=" must be ") as caught:
        estimator.fit(X, y)
    kind = "" if isinstance(caught.value, InvalidParameterError) else "another: "

    def in_order(found: re.Match[str]) -> str:
        return "{" + ", ".join(sorted(found[1].split(", "))) + "}"

    return kind + re.sub(r"\{(.*?)\}", in_order, str(caught.value))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        pytest.param(n, v, id=f"{n}={v!r}", marks=since(1, 7) if n == "loss" else ())
        for n, v in REFUSALS
    ],
)
def test_scikit_learns_parameters_are_refused_in_its_words(name, value):
    for kind in ("MLPRegressor",) if name == "loss" else ("MLPClassifier", "MLPRegressor"):
        theirs, ours = (getattr(mlp, kind)(**{name: value}) for mlp in (neural_network, estimators))
        assert message_of(ours) == message_of(theirs)


@pytest.mark.parametrize("value", ["swish", 3, None])
def test_more_activations_are_known_than_scikit_learn_has(value):
    theirs = message_of(neural_network.MLPClassifier(activation=value))
    ours = message_of(MLPClassifier(activation=value))
    start = "The 'activation' parameter of MLPClassifier must be a str among {"
    assert theirs.startswith(start)
    assert ours.startswith(start)
    for name in ("identity", "logistic", "relu", "tanh"):
        assert f"'{name}'" in theirs
        assert f"'{name}'" in ours
    assert ours.endswith(f"Got {value!r} instead.")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("C", value) for value in (0, -1, "1")),
        *(("tol", value) for value in (-1, "small")),
        ("fit_intercept", 1),
        *(("class_weight", value) for value in ("uniform", 3)),
        ("random_state", "seed"),
        ("verbose", "yes"),
        *(("max_iter", value) for value in (-1, 1.5)),
        ("warm_start", 1),
    ],
)
def test_logistic_regression_refuses_in_scikit_learns_words(name, value):
    theirs, ours = (
        message_of(kind(**{name: value}))
        for kind in (linear_model.LogisticRegression, LogisticRegression)
    )
    if name == "max_iter":  # 0 does nothing but to warn
        theirs = theirs.replace("[0, inf)", "[1, inf)")
    assert ours == theirs


@pytest.mark.parametrize("value", ["newton-cg", "liblinear", "saga", None])
def test_logistic_regression_names_its_solvers(value):
    assert message_of(LogisticRegression(solver=value)) == (
        "The 'solver' parameter of LogisticRegression must be a str among "
        f"{{'adam', 'lbfgs', 'sgd'}}. Got {value!r} instead."
    )


# The parameters that scikit-learn's have not: the value, and how what it must be begins.
A_FLAG = "an instance of 'bool' or an instance of 'numpy.bool'"
FURTHER: list[tuple[str, Any, str]] = [
    *(("device", v, "None, an instance of 'str' or an instance of 'xpnet.d") for v in (3, 1.5)),
    *(
        ("precision", v, "None or a str among {'float32', 'float64', 'tf32'}")
        for v in ("float16", 64, np.float32)
    ),
    *(
        ("dropout", v, "a float in the range [0.0, 1.0) or an array-like")
        for v in (-0.1, 1, 1.0, "half", None, True, NAN)
    ),
    *(("batch_norm", v, A_FLAG) for v in (1, "yes", None)),
    *(("initialization", v, "None, a str among {'auto', 'constant', ") for v in ("glorot", 3)),
    *(
        ("class_weight", v, "an instance of 'dict', an instance of 'list', a str among")
        for v in ("uniform", 3)
    ),
    *(
        ("label_smoothing", v, "a float in the range [0.0, 1.0)")
        for v in (1, -0.1, "some", None, NAN)
    ),
    *(("optimizer", v, "None, a str among {'adam', 'adamw', ") for v in ("lion", 3)),
    *(("schedule", v, "None, a str among {'constant', 'cosine', ") for v in ("linear", 3)),
    *(("weight_decay", v, "a float in the range [0.0, inf)") for v in (-1, "some", None, INF, NAN)),
    *(
        (name, v, "None or a float in the range (0.0, inf)")
        for name in ("max_norm", "clip_norm")
        for v in (0, -1, "some", INF, NAN)
    ),
    *(("scoring", v, "None, a str among {'accuracy', ") for v in ("precise", 3)),
    *(("warm_start_optimizer", v, A_FLAG) for v in (1, "yes", None)),
]


def others():
    """Return the names of parts that tests have defined."""
    for kind in (Optimizer, Schedule, Initializer):
        for name, part in kind.known().items():
            if not is_own(part):
                yield name


@pytest.mark.parametrize(
    ("name", "value", "must_be"), FURTHER, ids=[f"{n}={v!r}" for n, v, _ in FURTHER]
)
def test_further_parameters_are_refused_in_the_same_words(name, value, must_be):
    for kind in (MLPClassifier, MLPRegressor, LogisticRegression):
        if name not in kind().get_params() or (kind, name) == (LogisticRegression, "class_weight"):
            continue
        said = message_of(kind(**{name: value}))
        for part in others():
            said = said.replace(f"{part!r}, ", "")
        assert said.startswith(f"The '{name}' parameter of {kind.__name__} must be {must_be}")
        assert said.endswith(f"Got {value!r} instead.")


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"hidden_layer_sizes": (4.0,)}, "hidden_layer_sizes must be whole numbers > 0, got [4.0]"),
        ({"hidden_layer_sizes": True}, "hidden_layer_sizes must be whole numbers > 0, got [True]"),
        ({"hidden_layer_sizes": [[1, 2]]}, "hidden_layer_sizes must be whole numbers > 0"),
        ({"activation": ["relu"]}, "must be one value, or one for each of the 2 hidden layers"),
        ({"activation": ["relu", "swish"]}, "unknown activation 'swish'"),
        ({"activation": ["relu", 3]}, "activation must be a name, an instance of"),
        ({"activation": {"type": "swish"}}, "unknown activation 'swish'"),
        ({"dropout": [0.1]}, "must be one value, or one for each of the 2 hidden layers"),
        (
            {"dropout": [0.1, 1.5]},
            "must be a float in the range [0.0, 1.0), or one for each hidden layer. Got [0.1, 1.5]",
        ),
        ({"dropout": ["some", 0.1]}, "or one for each hidden layer. Got ['some', 0.1] instead."),
        ({"initialization": {"type": "glorot"}}, "unknown initializer"),
        ({"initialization": {}}, "initializer must be a name, an instance of"),
        (
            {"class_weight": [{0: 1}]},
            "must be a list only if y has several outputs. Got [{0: 1}] instead.",
        ),
        ({"class_weight": {5: 2}}, "The classes, [0, 1], are not in class_weight"),
        ({"class_weight": {0: -1}}, "must be finite and at least 0 for each class. Got"),
        ({"class_weight": {0: NAN}}, "must be finite and at least 0 for each class. Got"),
        ({"optimizer": {"type": "lion"}}, "unknown optimizer 'lion'"),
        ({"optimizer": {"type": "adam", "x": 1}}, "optimizer 'adam': got an unexpected"),
        ({"schedule": {"type": "linear"}}, "unknown schedule 'linear'"),
        ({"schedule": {"type": "cosine", "x": 1}}, "schedule 'cosine': got an"),
        *(
            ({"solver": "lbfgs", name: value}, f"{name} must be")
            for name, value in {
                "dropout": 0.1,
                "batch_norm": True,
                "max_norm": 1.0,
                "clip_norm": 1.0,
                "weight_decay": 0.1,
                "optimizer": "adam",
                "schedule": "cosine",
            }.items()
        ),
    ],
    ids=str,
)
def test_what_cannot_be_is_named(parameters, message):
    X, y = data("cancer")
    estimator = MLPClassifier(**{"hidden_layer_sizes": (3, 2), "max_iter": 2, **parameters})
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        estimator.fit(X, y)
    name, *others = parameters
    is_scikit_learns = name == "hidden_layer_sizes" or "not in class_weight" in message
    if not others and not is_scikit_learns:
        assert isinstance(caught.value, InvalidParameterError)
        assert str(caught.value).startswith(f"The {name!r} parameter of MLPClassifier must be ")


# Devices.


@pytest.mark.parametrize("kind", [MLPClassifier, MLPRegressor, LogisticRegression])
@pytest.mark.parametrize("word", ["gpu", "", "cuda:first"])
def test_a_device_that_is_no_word_for_one_is_refused(kind, word):
    said = f"The 'device' parameter of {kind.__name__} must be .* Got '{word}' instead. .*'cuda'"
    with pytest.raises(InvalidParameterError, match=said):
        kind(device=word).fit(*data("cancer"))


@pytest.mark.skipif(cuda_problem() is None, reason="there is a GPU")
@pytest.mark.parametrize("kind", [MLPClassifier, MLPRegressor, LogisticRegression])
@pytest.mark.parametrize("word", ["cuda", "cuda:9"])
def test_a_device_that_is_not_there_is_named_in_one_line(kind, word):
    with pytest.raises(xpnet.DeviceUnavailableError, match=f"^device={word}: [^\n]+$"):
        kind(device=word).fit(*data("cancer"))


# Samples and labels.


def _with(value: float, place: Any, A: Any) -> Any:
    changed = np.array(A, dtype=float)
    changed[place] = value
    return changed


X, Y = data("cancer")
NUMBERS = data("diabetes")
SAMPLES: dict[str, Script] = {
    **{
        f"{kind} with {value} in X": lambda mlp, keep, kind=kind, value=value: (  # type: ignore[misc]
            getattr(mlp, kind)().fit(_with(value, (3, 2), X), Y)
        )
        for kind in ("MLPClassifier", "MLPRegressor")
        for value in (NAN, INF, -INF)
    },
    **{
        f"{kind} with {value} in y": lambda mlp, keep, kind=kind, value=value: (  # type: ignore[misc]
            getattr(mlp, kind)().fit(NUMBERS[0], _with(value, 3, NUMBERS[1]))
        )
        for kind in ("MLPClassifier", "MLPRegressor")
        for value in (NAN, INF)
    },
    "nan in sparse X": lambda mlp, keep: mlp.MLPClassifier().fit(
        sparse.csr_array(_with(NAN, (3, 2), X)), Y
    ),
    "no y": lambda mlp, keep: mlp.MLPClassifier().fit(X, None),
    "fewer labels": lambda mlp, keep: mlp.MLPClassifier().fit(X, Y[:5]),
    "one sample's row": lambda mlp, keep: mlp.MLPClassifier().fit(X[0], Y),
    "no samples": lambda mlp, keep: mlp.MLPRegressor().fit(X[:0], Y[:0]),
    "no features": lambda mlp, keep: mlp.MLPRegressor().fit(X[:, :0], Y),
    "words": lambda mlp, keep: mlp.MLPClassifier().fit([["a", "b"]], [1]),
    "complex numbers": lambda mlp, keep: mlp.MLPClassifier().fit(X + 1j, Y),
    "another sparse format": lambda mlp, keep: (
        mlp.MLPClassifier(max_iter=1, random_state=0).fit(sparse.coo_array(X), Y).predict(X)
    ),
    "not fitted": lambda mlp, keep: mlp.MLPClassifier().predict(X),
    "no regressor fitted": lambda mlp, keep: mlp.MLPRegressor().predict(X),
    "no probabilities of numbers": lambda mlp, keep: mlp.MLPRegressor().predict_proba(X),
    "too few features": lambda mlp, keep: mlp.MLPClassifier(max_iter=1).fit(X, Y).predict(X[:, :4]),
    "nan to predict": lambda mlp, keep: (
        mlp.MLPClassifier(max_iter=1).fit(X, Y).predict_proba(_with(NAN, (0, 0), X))
    ),
    "other features for partial_fit": lambda mlp, keep: (
        mlp.MLPClassifier().partial_fit(X, Y, classes=[0, 1]).partial_fit(X[:, :4], Y)
    ),
    "partial_fit and early stopping": lambda mlp, keep: mlp.MLPClassifier(
        early_stopping=True
    ).partial_fit(X, Y, classes=[0, 1]),
}


@pytest.mark.parametrize("name", SAMPLES)
def test_samples_and_labels_are_refused_in_scikit_learns_words(name):
    assert not differences(SAMPLES[name])


def test_words_are_no_numbers():
    with pytest.raises(TypeError, match="y does not convert to an array of float64"):
        MLPRegressor().fit(X, np.array(["a", "b"])[Y])


def test_negative_numbers_have_no_poisson_deviance():
    with pytest.raises(ValueError, match="y must hold counts or other numbers >= 0"):
        MLPRegressor(loss="poisson").fit(NUMBERS[0], -NUMBERS[1])
