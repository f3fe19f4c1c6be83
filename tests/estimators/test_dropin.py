"""One import line is swapped: what scikit-learn's perceptrons do, ours do."""

from __future__ import annotations

import copy
import inspect
import pickle
import signal
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy import sparse
from sklearn import linear_model, neural_network
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tests.estimators.comparison import Script, alike, data, differences
from xpnet import estimators
from xpnet.estimators import LogisticRegression, MLPClassifier, MLPRegressor

host = pytest.mark.host
unconverged = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

SMALL: dict[str, Any] = {"hidden_layer_sizes": (8,), "random_state": 0, "max_iter": 5}
SOLVERS = ("adam", "sgd", "lbfgs")
RATES = ("constant", "invscaling", "adaptive")


def classifier(mlp, **parameters):
    return mlp.MLPClassifier(**{**SMALL, **parameters})


def regressor(mlp, **parameters):
    return mlp.MLPRegressor(**{**SMALL, **parameters})


# A fit: by name the data, and the parameters.
_FALLING = {"tol": 0.05, "n_iter_no_change": 1, "max_iter": 40, "learning_rate_init": 0.2}
_NO_PATIENCE = {"n_iter_no_change": 1}
FITS: dict[str, tuple[str, dict[str, Any]]] = {
    **{f"digits, {s}": ("digits", {"solver": s}) for s in SOLVERS},
    **{f"sparse, {s}": ("counts", {"solver": s}) for s in SOLVERS},
    **{f"several labels, {s}": ("multilabel", {"solver": s}) for s in SOLVERS},
    **{f"a number, {s}": ("diabetes", {"solver": s}) for s in SOLVERS},
    **{f"two numbers, {s}": ("two outputs", {"solver": s}) for s in SOLVERS},
    **{f"poisson, {s}": ("diabetes", {"solver": s, "loss": "poisson"}) for s in SOLVERS},
    **{
        f"{f}, {s}": ("cancer", {"solver": s, "activation": f})
        for f in ("identity", "logistic", "tanh", "relu")
        for s in SOLVERS
    },
    **{f"{r} rate": ("cancer", {"solver": "sgd", "learning_rate": r, **_FALLING}) for r in RATES},
    "another power": (
        "cancer",
        {"solver": "sgd", "learning_rate": "invscaling", "power_t": 0.2},
    ),
    **{
        f"momentum {m}, Nesterov's {n}": (
            "cancer",
            {"solver": "sgd", "momentum": m, "nesterovs_momentum": n},
        )
        for m in (0, 0.5, 0.9, 1)
        for n in (True, False)
    },
    "a velocity that goes on": (
        "cancer",
        {"solver": "sgd", "learning_rate": "adaptive", "nesterovs_momentum": False, **_FALLING},
    ),
    "Adam's constants": ("cancer", {"beta_1": 0.5, "beta_2": 0.9, "epsilon": 1e-3}),
    "in order": ("digits", {"shuffle": False}),
    "batches that leave some over": ("digits", {"batch_size": 64}),
    "batches of one": ("multilabel", {"batch_size": 1, "max_iter": 2}),
    "one batch": ("cancer", {"batch_size": 569, "solver": "sgd"}),
    "batches larger than all": ("cancer", {"batch_size": np.int64(1000)}),
    **{f"alpha, {s}": ("cancer", {"alpha": 10.0, "solver": s}) for s in SOLVERS},
    "no hidden layer": ("digits", {"hidden_layer_sizes": ()}),
    "no hidden layer, a number": ("diabetes", {"hidden_layer_sizes": []}),
    "one hidden layer": ("cancer", {"hidden_layer_sizes": 7}),
    "a NumPy number": ("cancer", {"hidden_layer_sizes": np.int64(7)}),
    "three hidden layers": ("cancer", {"hidden_layer_sizes": np.array([9, 7, 5])}),
    **{
        f"early stopping, {s}, {name}": (
            name,
            {"solver": s, "early_stopping": True, "n_iter_no_change": 3, "max_iter": 30},
        )
        for s in ("adam", "sgd")
        for name in ("cancer", "digits", "multilabel", "diabetes", "two outputs", "counts")
    },
    "it converges": ("cancer", {"learning_rate_init": 0.05, "tol": 0.01, "max_iter": 100}),
    "it converges slowly": (
        "cancer",
        {"solver": "sgd", "learning_rate_init": 0.02, "tol": 4e-3, "max_iter": 100, **_NO_PATIENCE},
    ),
    "it stands still": (
        "cancer",
        {"solver": "sgd", "learning_rate_init": 1e-300, "tol": 0, "shuffle": False, **_NO_PATIENCE},
    ),
    "it never gives up": ("cancer", {"n_iter_no_change": np.inf, "tol": 1e9}),
    "few evaluations": ("cancer", {"solver": "lbfgs", "max_fun": 7}),
    "a loose tolerance": ("cancer", {"solver": "lbfgs", "tol": 0.1, "max_iter": 500}),
}


def fitting(name: str, *, weighted: bool) -> Script:
    samples, parameters = FITS[name]
    X, y = data(samples)
    kind = regressor if y.dtype.kind == "f" else classifier
    weights = {"sample_weight": np.random.default_rng(0).random(len(y))} if weighted else {}
    more = {"max_iter": 10, "random_state": 3, "hidden_layer_sizes": (12, 8)}

    def script(mlp, keep):
        estimator = keep(kind(mlp, **{**more, **parameters})).fit(X, y, **weights)
        return estimator.predict(X), estimator.score(X, y, **weights)

    return script


@host
@unconverged
@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("name", ["raw digits", "raw cancer", "counts", "multilabel"])
def test_the_default_network_on_raw_data(name, solver):
    """Ten epochs, or fifty iterations, of data as they come, where losses are large."""
    X, y = data(name)
    options = {"solver": solver, "max_iter": 50 if solver == "lbfgs" else 10, "random_state": 0}
    theirs, ours = (mlp.MLPClassifier(**options).fit(X, y) for mlp in (neural_network, estimators))
    if solver != "lbfgs":
        assert ours.loss_curve_ == pytest.approx(theirs.loss_curve_, rel=0, abs=1e-6)
    for a, b in zip(
        theirs.coefs_ + theirs.intercepts_, ours.coefs_ + ours.intercepts_, strict=True
    ):
        np.testing.assert_allclose(b, a, rtol=0, atol=1e-5)


@host
@pytest.mark.parametrize("weighted", [False, True], ids=["all alike", "weighted"])
@pytest.mark.parametrize("name", FITS)
def test_a_fit_learns_the_same(name, weighted):
    """Losses, scores, counts, weights, predictions and warnings, and the types of them all."""
    is_lbfgs = FITS[name][1].get("solver") == "lbfgs"
    found = differences(fitting(name, weighted=weighted), rtol=1e-5 if is_lbfgs else 1e-6)
    assert not found


ON_EVERY_DEVICE = (
    *(f"{what}, {s}" for what in ("digits", "sparse", "poisson") for s in SOLVERS),
    *("adaptive rate", "early stopping, adam, cancer", "several labels, adam"),
)


@pytest.mark.parametrize("name", ON_EVERY_DEVICE)
def test_a_fit_learns_the_same_on_this_device(dev, name):
    del dev
    assert not differences(fitting(name, weighted=True), rtol=1e-5)


@host
@unconverged
@pytest.mark.parametrize("solver", ["adam", "sgd"])
@pytest.mark.parametrize("name", ["digits", "cancer", "diabetes", "counts"])
def test_float32_learns_the_same_but_for_rounding(name, solver):
    X, y = data(name)
    X = X.astype(np.float32)
    kind = regressor if y.dtype.kind == "f" else classifier
    theirs, ours = (
        kind(mlp, solver=solver, max_iter=10).fit(X, y) for mlp in (neural_network, estimators)
    )
    assert ours.loss_curve_ == pytest.approx(theirs.loss_curve_, rel=1e-5)
    for a, b in zip(
        theirs.coefs_ + theirs.intercepts_, ours.coefs_ + ours.intercepts_, strict=True
    ):
        assert b.dtype == a.dtype == np.float32
        assert np.allclose(b, a, rtol=1e-4, atol=1e-5)
    for dtype in (np.float32, np.float64):
        a, b = theirs.predict(X.astype(dtype)), ours.predict(X.astype(dtype))
        assert alike(a, b, 1e-4)
    if kind is classifier:
        for dtype in (np.float32, np.float64):
            a, b = (estimator.predict_proba(X.astype(dtype)) for estimator in (theirs, ours))
            assert alike(a, b, 1e-4)


@host
@unconverged
@pytest.mark.parametrize("way", [("float32", "float64"), ("float64", "float32")])
@pytest.mark.parametrize("go_on", ["fit", "partial_fit"])
def test_weights_stay_in_the_dtype_that_they_began_in(go_on, way):
    X, y = data("cancer")
    before, after = way
    theirs, ours = (
        getattr(classifier(mlp, warm_start=True).fit(X.astype(before), y), go_on)(
            X.astype(after), y
        )
        for mlp in (neural_network, estimators)
    )
    for a, b in zip(theirs.coefs_, ours.coefs_, strict=True):
        assert b.dtype == a.dtype == before
        np.testing.assert_allclose(b, a, atol=1e-5)
    assert ours.predict_proba(X).dtype == theirs.predict_proba(X).dtype


# What users do with an estimator beside one fit.

SCRIPTS: dict[str, Script] = {}


def script(function: Script) -> Script:
    SCRIPTS[function.__name__] = function
    return function


def each(**values: Any) -> Callable[[Any], Any]:
    """Keep a script for each combination of a solver and a rate."""

    def register(function: Any) -> Any:
        for solver in ("adam", "sgd"):
            for rate in RATES if solver == "sgd" else ("constant",):

                def run(mlp: Any, keep: Any, solver: str = solver, rate: str = rate) -> Any:
                    common = {"solver": solver, "learning_rate": rate, "learning_rate_init": 0.05}
                    return function(mlp, keep, **{**common, **values})

                SCRIPTS[f"{function.__name__}, {solver}, {rate}"] = run
        return function

    return register


@each()
def partial_fits(mlp, keep, **parameters):
    X, y = data("cancer")
    estimator = keep(classifier(mlp, **parameters))
    for i in range(6):
        part = slice(i * 50, i * 50 + 80)
        estimator.partial_fit(X[part], y[part], classes=[0, 1] if i == 0 else None)
    return estimator.predict_proba(X)


@each()
def partial_fits_after_fits(mlp, keep, **parameters):
    X, y = data("cancer")
    estimator = keep(classifier(mlp, **parameters))
    for _ in range(2):
        estimator.fit(X, y).partial_fit(X[:90], y[:90]).partial_fit(X[90:], y[90:])


@each(warm_start=True)
def warm_starts(mlp, keep, **parameters):
    X, y = data("cancer")
    estimator = keep(classifier(mlp, **parameters))
    for _ in range(3):
        estimator.fit(X, y)
    estimator.set_params(max_iter=2).fit(X[:300], y[:300])
    estimator.partial_fit(X, y)


@each(tol=0.1, n_iter_no_change=1, max_iter=40, verbose=True)
def verbose_lines(mlp, keep, **parameters):
    keep(classifier(mlp, **parameters)).fit(*data("cancer"))


@each(tol=0.1, n_iter_no_change=np.int64(1), max_iter=60, verbose=10, early_stopping=True)
def verbose_lines_of_early_stopping(mlp, keep, **parameters):
    X, y = data("cancer")
    keep(classifier(mlp, **parameters)).fit(X, np.array(["benign", "malign"])[y])


@script
def verbose_partial_fits(mlp, keep):
    rate = {"solver": "sgd", "learning_rate": "adaptive", "tol": 0.5, "n_iter_no_change": 1}
    estimator = keep(classifier(mlp, verbose=True, **rate))
    for _ in range(12):
        estimator.partial_fit(*data("cancer"), classes=[0, 1])


@script
def a_rate_too_small_to_go_on(mlp, keep):
    rate = {"solver": "sgd", "learning_rate": "adaptive", "learning_rate_init": 1e-6}
    keep(classifier(mlp, verbose=True, tol=1, n_iter_no_change=1, max_iter=20, **rate)).fit(
        *data("cancer")
    )


@script
def partial_fit_without_classes(mlp, keep):
    keep(classifier(mlp)).partial_fit(*data("cancer"))


@script
def partial_fit_with_other_classes(mlp, keep):
    X, y = data("cancer")
    keep(classifier(mlp)).partial_fit(X, y, classes=[0, 1]).partial_fit(X, y, classes=[0, 1, 2])


@script
def partial_fit_with_unseen_labels(mlp, keep):
    X, y = data("cancer")
    keep(classifier(mlp)).partial_fit(X, y, classes=[0, 1]).partial_fit(X, y + 1)


@script
def partial_fit_with_unseen_labels_at_first(mlp, keep):
    keep(classifier(mlp)).partial_fit(*data("cancer"), classes=[4, 5])


@script
def partial_fit_with_strings(mlp, keep):
    X, y = data("cancer")
    names = np.array(["mal", "ben"])[y]
    estimator = keep(classifier(mlp)).partial_fit(X, names, classes=["mal", "zz", "ben"])
    return estimator.predict(X), estimator.predict_proba(X)


@script
def partial_fit_with_classes_out_of_order(mlp, keep):
    X, y = data("cancer")
    return keep(classifier(mlp)).partial_fit(X, y, classes=[1, 0]).predict_proba(X)


@script
def partial_fit_of_several_labels(mlp, keep):
    X, y = data("multilabel")
    estimator = keep(classifier(mlp)).partial_fit(X, y, classes=np.arange(5))
    estimator.partial_fit(X, y.tolist())
    return estimator.predict(X), estimator.predict_proba(X), estimator.predict_log_proba(X)


@script
def partial_fit_of_numbers(mlp, keep):
    X, y = data("diabetes")
    estimator = keep(regressor(mlp))
    for _ in range(3):
        estimator.partial_fit(X, y)
    return estimator.partial_fit(X, y, np.arange(len(y))).predict(X)


@script
def partial_fit_of_sparse_samples(mlp, keep):
    X, y = data("counts")
    estimator = keep(classifier(mlp))
    for kind in (sparse.csr_array, sparse.csc_array, sparse.csr_matrix, sparse.csc_matrix):
        estimator.partial_fit(kind(X), y, classes=[0, 1, 2])
    return estimator.predict_proba(sparse.csc_array(X)), estimator.predict_proba(X.toarray())


@script
def partial_fit_with_lbfgs(mlp, keep):
    keep(classifier(mlp, solver="lbfgs")).partial_fit(*data("cancer"), classes=[0, 1])


@script
def numbers_drawn_from_one_generator(mlp, keep):
    X, y = data("cancer")
    rng = np.random.RandomState(4)
    estimator = keep(classifier(mlp, random_state=rng))
    for _ in range(3):
        estimator.partial_fit(X, y, classes=[0, 1])
    keep(classifier(mlp, random_state=rng)).fit(X, y).fit(X, y)
    keep(classifier(mlp, random_state=rng, early_stopping=True)).fit(X, y)
    return rng.randint(1000)


@script
def numbers_drawn_from_the_global_generator(mlp, keep):
    np.random.seed(5)  # noqa: NPY002
    keep(classifier(mlp, random_state=None)).fit(*data("cancer"))
    return np.random.randint(1000)  # noqa: NPY002


@script
def warm_start_with_early_stopping(mlp, keep):
    estimator = keep(classifier(mlp, warm_start=True, early_stopping=True, max_iter=8))
    for _ in range(3):
        estimator.fit(*data("cancer"))


@script
def warm_start_with_lbfgs(mlp, keep):
    estimator = keep(classifier(mlp, warm_start=True, solver="lbfgs", max_iter=3))
    for _ in range(3):
        estimator.fit(*data("cancer"))


@script
def warm_start_of_numbers_and_of_several_labels(mlp, keep):
    for kind, name in ((regressor, "diabetes"), (classifier, "multilabel")):
        keep(kind(mlp, warm_start=True)).fit(*data(name)).fit(*data(name))


@script
def warm_start_with_another_solver(mlp, keep):
    estimator = keep(classifier(mlp, warm_start=True)).fit(*data("cancer"))
    estimator.set_params(solver="sgd").fit(*data("cancer"))
    estimator.set_params(solver="lbfgs").fit(*data("cancer"))


@script
def warm_start_with_more_classes(mlp, keep):
    X, y = data("cancer")
    keep(classifier(mlp, warm_start=True)).fit(X, y).fit(X, np.append(y[:-1], 3))


@script
def warm_start_with_fewer_classes(mlp, keep):
    X, y = data("cancer")
    keep(classifier(mlp, warm_start=True)).fit(X, y).fit(X[y == 1], y[y == 1])


@script
def warm_start_with_other_features(mlp, keep):
    X, y = data("cancer")
    keep(classifier(mlp, warm_start=True)).fit(X, y).fit(X[:, :5], y)


@script
def a_column_of_classes(mlp, keep):
    X, y = data("cancer")
    keep(classifier(mlp)).fit(X, y[:, None])


@script
def a_column_of_numbers(mlp, keep):
    X, y = data("diabetes")
    keep(regressor(mlp)).fit(X, y[:, None])


@script
def one_class(mlp, keep):
    X, y = data("cancer")
    for stops in (False, True):
        estimator = keep(classifier(mlp, early_stopping=stops)).fit(X, ["a"] * len(y))
    return estimator.predict(X), estimator.predict_proba(X), estimator.score(X, ["a"] * len(y))


@script
def kinds_of_labels(mlp, keep):
    X, y = data("cancer")
    names = np.array(["mal", "ben"])[y]
    found = []
    for labels in (
        *(names, names.astype(object), names.astype("S"), names.tolist()),
        *(y.astype(dtype) for dtype in (bool, object, float, np.float32, np.uint8)),
        2 * y - 1,
    ):
        estimator = keep(classifier(mlp, max_iter=1)).fit(X, labels)
        found += [estimator.predict(X), estimator.score(X, labels)]
    return found


@script
def kinds_of_several_labels(mlp, keep):
    X, y = data("multilabel")
    return [
        keep(classifier(mlp, max_iter=1)).fit(X, labels).predict(X)
        for labels in (y.tolist(), y.astype(bool), y.astype(float), sparse.csr_matrix(y))
    ]


@script
def several_classes_of_several_outputs(mlp, keep):
    X, y = data("multilabel")
    keep(classifier(mlp)).fit(X, y + np.arange(5))


@script
def numbers_for_classes(mlp, keep):
    keep(classifier(mlp)).fit(*data("diabetes"))


@script
def kinds_of_samples(mlp, keep):
    X, y = data("digits")
    X, y = X[:60], y[:60]
    read_only = X.copy()
    read_only.flags.writeable = False
    found = []
    for samples in (
        *(X.tolist(), X.astype(int), X.astype(object), X.astype(np.uint8), X.astype(np.float16)),
        *(np.asfortranarray(X), read_only, X[:, ::-2], X[:, :1]),
    ):
        estimator = keep(classifier(mlp)).fit(samples, y.tolist())
        found += [estimator.predict_proba(samples), estimator.predict(samples)]
    return found


@script
def one_sample(mlp, keep):
    X, y = data("diabetes")
    for solver in SOLVERS:
        keep(classifier(mlp, solver=solver)).fit(X[:1], [1])
        keep(regressor(mlp, solver=solver)).fit(X[:1], y[:1])


@script
def probabilities(mlp, keep):
    found = []
    for name in ("cancer", "digits", "multilabel"):
        X, y = data(name)
        estimator = keep(classifier(mlp)).fit(X, y)
        found += [estimator.predict_proba(X), estimator.predict_log_proba(X)]
        found += [estimator.predict(X), estimator.score(X, y)]
    return found


@script
def scores_of_numbers(mlp, keep):
    X, y = data("diabetes")
    estimator = keep(regressor(mlp)).fit(X, y)
    return estimator.score(X, y), estimator.score(X, y, np.arange(len(y)))


@script
def weights_as_a_number_a_list_or_whole(mlp, keep):
    X, y = data("cancer")
    for weights in (2.0, [1] * len(y), np.arange(len(y)), np.ones(len(y), np.float32)):
        keep(classifier(mlp)).fit(X, y, weights)


def _refused(weights: Callable[[int], Any], solver: str = "adam") -> Script:
    def run(mlp: Any, keep: Any) -> None:
        X, y = data("cancer")
        keep(classifier(mlp, solver=solver)).fit(X, y, weights(len(y)))

    return run


SCRIPTS |= {
    **{f"weights of nothing, {solver}": _refused(np.zeros, solver) for solver in SOLVERS},
    "weights that are no numbers": _refused(lambda n: np.full(n, np.nan)),
    "too few weights": _refused(lambda n: np.ones(4)),
    "a table of weights": _refused(lambda n: np.ones((n, 2))),
}


@script
def pickles_and_copies(mlp, keep):
    X, y = data("cancer")
    estimator = classifier(mlp).fit(X, y)
    for make in (lambda e: pickle.loads(pickle.dumps(e)), copy.deepcopy):
        keep(make(estimator)).partial_fit(X, y)
    fresh = clone(estimator)
    return hasattr(fresh, "coefs_"), repr(fresh), keep(fresh).fit(X, y).predict(X)


@script
def representations(mlp, keep):
    del keep
    return [
        repr(mlp.MLPClassifier()),
        repr(mlp.MLPClassifier((3,), "tanh", alpha=0.1)),
        repr(mlp.MLPRegressor("poisson", 3)),
    ]


@script
def weights_that_are_set(mlp, keep):
    X, y = data("cancer")
    estimator = keep(classifier(mlp)).fit(X, y)
    estimator.coefs_ = [2 * W for W in estimator.coefs_]
    estimator.intercepts_ = [b + 1 for b in estimator.intercepts_]
    return estimator.predict_proba(X), estimator.partial_fit(X, y).predict_proba(X)


@script
def weights_that_are_set_one_by_one(mlp, keep):
    X, y = data("cancer")
    estimator = keep(classifier(mlp)).fit(X, y)
    estimator.coefs_[0] = estimator.coefs_[0] * 2
    estimator.coefs_[-1] += 1
    estimator.intercepts_[1][:] = 0.5
    estimator.coefs_[0][2, 3] = 1
    return estimator.predict_proba(X)


@script
def weights_that_are_set_before_a_warm_start(mlp, keep):
    X, y = data("cancer")
    estimator = keep(classifier(mlp, warm_start=True)).fit(X, y)
    estimator.coefs_ = [2 * W for W in estimator.coefs_]
    return estimator.fit(X, y).predict_proba(X)


@script
def too_little_to_validate_on(mlp, keep):
    X, y = data("diabetes")
    keep(regressor(mlp, early_stopping=True)).fit(X[:8], y[:8])


@script
def nothing_to_validate_on(mlp, keep):
    keep(classifier(mlp, early_stopping=True, validation_fraction=0.0)).fit(*data("cancer"))


@script
def a_class_too_rare_to_validate_on(mlp, keep):
    X, y = data("cancer")
    keep(classifier(mlp, early_stopping=True)).fit(X, np.append(y[:-1], 2))


@script
def more_in_a_batch_than_training_leaves(mlp, keep):
    keep(classifier(mlp, early_stopping=True, batch_size=560)).fit(*data("cancer"))


@script
def a_function_flat_in_no_direction(mlp, keep):
    keep(classifier(mlp, solver="lbfgs", max_iter=1)).fit(*data("digits"))


@host
@pytest.mark.parametrize("name", SCRIPTS)
def test_a_user_sees_the_same(name):
    """Results, printed lines, warnings and errors, word for word."""
    assert not differences(SCRIPTS[name])


@host
def test_data_frames_are_known_by_their_columns():
    pd = pytest.importorskip("pandas")
    X, y = data("cancer")
    frame = pd.DataFrame(X, columns=[f"c{i}" for i in range(X.shape[1])])
    labels = pd.Series(np.array(["mal", "ben"])[y], dtype="category")

    def run(mlp, keep):
        keep(classifier(mlp, early_stopping=True)).fit(frame, labels)
        keep(classifier(mlp)).partial_fit(frame, labels, classes=["ben", "mal"])
        estimator = keep(classifier(mlp)).fit(frame, labels)
        return estimator.predict(frame), estimator.predict(X), estimator.score(frame, labels)

    def with_columns_reversed(mlp, keep):
        keep(classifier(mlp)).fit(frame, labels).predict(frame[frame.columns[::-1]])

    assert not differences(run)
    assert not differences(with_columns_reversed)


@host
@pytest.mark.filterwarnings("ignore:Training interrupted by user")
def test_ctrl_c_ends_a_fit_and_leaves_what_was_learned():
    class Interrupted(list[Any]):
        def append(self, loss):
            super().append(loss)
            if len(self) == 3:
                signal.raise_signal(signal.SIGINT)

    def run(mlp, keep):
        estimator = keep(classifier(mlp, warm_start=True, max_iter=1)).fit(*data("cancer"))
        estimator.loss_curve_ = Interrupted()
        estimator.set_params(max_iter=9).fit(*data("cancer"))
        estimator.loss_curve_ = list(estimator.loss_curve_)

    assert not differences(run, but=["best_loss_ of 0"])


@host
@unconverged
def test_a_search_over_a_pipeline_finds_the_same():
    X, y = data("cancer")
    found = []
    for mlp in (neural_network, estimators):
        model = make_pipeline(StandardScaler(), classifier(mlp, max_iter=3))
        grid = {"mlpclassifier__alpha": [1e-4, 1.0], "mlpclassifier__activation": ["relu", "tanh"]}
        search = GridSearchCV(model, grid, cv=3).fit(X, y)
        predicted = cross_val_predict(search.best_estimator_, X, y, cv=3, method="predict_proba")
        found.append((search.cv_results_["mean_test_score"], search.best_params_, predicted))
    assert alike(found[0], found[1])


# The face that estimators show.


@host
@pytest.mark.parametrize("name", ["MLPClassifier", "MLPRegressor"])
def test_parameters_have_scikit_learns_places_and_defaults(name):
    theirs = inspect.signature(getattr(neural_network, name)).parameters
    ours = inspect.signature(getattr(estimators, name)).parameters
    first = list(ours)[: len(theirs)]
    assert first == list(theirs)
    for parameter in first:
        assert ours[parameter].kind == theirs[parameter].kind
        assert ours[parameter].default == theirs[parameter].default, parameter
    further = [ours[parameter].kind for parameter in ours if parameter not in theirs]
    assert set(further) == {inspect.Parameter.KEYWORD_ONLY}


@host
@pytest.mark.parametrize("name", ["MLPClassifier", "MLPRegressor"])
def test_methods_take_scikit_learns_arguments(name):
    theirs, ours = getattr(neural_network, name), getattr(estimators, name)
    public = [method for method in dir(theirs) if not method.startswith("_")]
    assert set(public) <= set(dir(ours))
    for method in public:
        if not callable(getattr(theirs, method)):
            continue
        expected = list(inspect.signature(getattr(theirs, method)).parameters)
        found = inspect.signature(getattr(ours, method)).parameters
        if method.endswith("_request"):  # all by name
            assert set(expected) <= set(found)
            continue
        assert list(found)[: len(expected)] == expected, method
        assert all(
            found[further].kind.name == "KEYWORD_ONLY" for further in list(found)[len(expected) :]
        )


@host
def test_parameters_are_set_and_read_as_scikit_learns():
    for name in ("MLPClassifier", "MLPRegressor"):
        theirs, ours = (getattr(mlp, name)(alpha=0.5) for mlp in (neural_network, estimators))
        known = theirs.get_params()
        assert {key: ours.get_params()[key] for key in known} == known
        assert ours.set_params(alpha=2, tol=1).get_params() == {
            **ours.get_params(),
            "alpha": 2,
            "tol": 1,
        }
        with pytest.raises(ValueError, match=f"Invalid parameter 'foo' for estimator {name}"):
            ours.set_params(foo=1)


# Where ours are meant to differ.


@host
@unconverged
def test_partial_fit_takes_a_part_of_the_classes_with_warm_start_too():
    X, y = data("cancer")
    ours = classifier(estimators, warm_start=True).partial_fit(X, y, classes=[0, 1])
    assert ours.partial_fit(X[y == 1], y[y == 1]).t_ == len(y) + np.sum(y == 1)


@host
@unconverged
def test_partial_fit_heeds_a_learning_rate_that_is_changed():
    X, y = data("cancer")
    curves = []
    for rate in (0.001, 0.1):
        ours = classifier(estimators, learning_rate_init=0.001).partial_fit(X, y, classes=[0, 1])
        for _ in range(2):
            ours.set_params(learning_rate_init=rate).partial_fit(X, y)
        curves.append(ours.loss_curve_)
    assert curves[0][0] == curves[1][0]
    assert curves[1][2] < curves[0][2] - 0.1


@host
def test_regressors_have_no_partial_fit_with_lbfgs():
    assert not hasattr(MLPRegressor(solver="lbfgs"), "partial_fit")


@host
@unconverged
def test_epochs_follow_a_fit_by_lbfgs():
    X, y = data("cancer")
    ours = classifier(estimators, warm_start=True, solver="lbfgs").fit(X, y)
    loss = ours.loss_
    ours.set_params(solver="adam").fit(X, y)
    assert len(ours.loss_curve_) == 5
    assert ours.loss_curve_[0] == pytest.approx(loss, rel=0.1)


@host
@unconverged
def test_a_batch_may_weigh_nothing():
    X, y = data("cancer")
    weights = np.append(np.zeros(200), np.ones(len(y) - 200))
    ours = classifier(estimators, shuffle=False).fit(X, y, weights)
    assert np.isfinite(ours.loss_curve_).all()


@host
def test_weights_are_no_debts():
    X, y = data("cancer")
    with pytest.raises(ValueError, match="Negative values in data passed to `sample_weight`"):
        MLPClassifier().fit(X, y, np.append(-1, np.ones(len(y) - 1)))


@host
def test_a_diverging_run_names_the_step():
    X, y = data("diabetes")
    with pytest.raises(ValueError, match=r"Solver produced non-finite .* at step 3"):
        regressor(estimators, solver="sgd", learning_rate_init=1e5).fit(100 * X, y)


@host
def test_a_diverging_run_that_may_stop_early_gives_the_best_epoch():
    """scikit-learn goes through all epochs, with warnings of NumPy's, to the same end."""
    X, y = data("diabetes")
    ours = regressor(
        estimators,
        activation="identity",
        solver="sgd",
        learning_rate_init=2.0,
        max_iter=20,
        early_stopping=True,
    )
    with pytest.warns(ConvergenceWarning, match="non-finite.*best epoch"):
        ours.fit(X, y)
    assert isinstance(ours.validation_scores_[-1], float)
    assert ours.n_iter_ < 20
    assert all(np.isfinite(W).all() for W in ours.coefs_)
    assert np.isfinite(ours.predict(X)).all()


@host
@unconverged
def test_weights_can_be_set_where_they_are_and_nowhere_else():
    X, y = data("cancer")
    with pytest.raises(AttributeError, match="after a fit"):
        MLPClassifier().coefs_ = []
    ours = classifier(estimators).fit(X, y)
    with pytest.raises(ValueError, match=r"coefs_ must have the shapes \[\(30, 8\), \(8, 1\)\]"):
        ours.coefs_ = ours.coefs_[::-1]
    before = ours.predict_proba(X)
    with pytest.raises(ValueError, match="intercepts_ must have the shapes"):
        ours.intercepts_[0] = np.zeros(3)
    assert np.array_equal(ours.predict_proba(X), before)
    assert type(pickle.loads(pickle.dumps(ours.coefs_))) is list
    folded = classifier(estimators, batch_norm=True).fit(X, y)
    with pytest.raises(ValueError, match="read-only"):
        folded.coefs_[0][:] = 1
    with pytest.raises(AttributeError, match="coefs_ can be set where every layer has them"):
        folded.coefs_ = folded.coefs_
    folded.partial_fit(X, y)  # the network's own are not read-only


# Logistic regression.

REGRESSIONS: dict[str, tuple[Any, dict[str, Any], bool]] = {
    "two classes": ("cancer", {}, False),
    "ten classes": ("pixels", {"C": 0.1}, False),
    "sparse": ("counts", {}, False),
    **{f"C={C}": ("cancer", {"C": C}, False) for C in (1e-3, 0.1, 10.0)},
    "no intercept": ("cancer", {"fit_intercept": False}, False),
    "no intercept, three classes": ("counts", {"fit_intercept": False}, False),
    "balanced": ("cancer", {"class_weight": "balanced"}, False),
    "class weights": ("cancer", {"class_weight": {0: 3, 1: 0.5}}, False),
    "weights": ("cancer", {}, True),
    "weights, three classes": ("counts", {}, True),
    "weights, balanced": ("cancer", {"class_weight": "balanced"}, True),
    "weights, class weights": ("cancer", {"class_weight": {0: 3}}, True),
}


@host
@pytest.mark.parametrize("name", REGRESSIONS)
def test_logistic_regression_is_scikit_learns(name):
    samples, parameters, is_weighted = REGRESSIONS[name]
    X, y = data(samples)
    weights = np.random.default_rng(0).random(len(y)) if is_weighted else None
    exact = {"tol": 1e-8, "max_iter": 3000, **parameters}
    theirs = linear_model.LogisticRegression(**exact).fit(X, y, weights)
    ours = LogisticRegression(**exact).fit(X, y, weights)
    for attribute in ("coef_", "intercept_"):
        a, b = getattr(theirs, attribute), getattr(ours, attribute)
        assert (b.shape, b.dtype) == (a.shape, a.dtype)
        assert np.abs(b - a).max() <= 1e-4 * np.abs(a).max(initial=0)
    assert np.array_equal(ours.classes_, theirs.classes_)
    assert (ours.n_iter_.shape, ours.n_iter_.dtype) == (theirs.n_iter_.shape, theirs.n_iter_.dtype)
    assert ours.n_iter_ == pytest.approx(theirs.n_iter_, rel=0.15)
    for method in ("decision_function", "predict_proba", "predict", "predict_log_proba"):
        a, b = (getattr(estimator, method)(X) for estimator in (theirs, ours))
        assert alike(a, b, 1e-3), method
    assert ours.score(X, y, weights) == theirs.score(X, y, weights)


@host
@unconverged
def test_logistic_regression_begins_warm_as_scikit_learns():
    X, y = data("cancer")
    theirs, ours = (
        kind(warm_start=True, max_iter=3)
        for kind in (linear_model.LogisticRegression, LogisticRegression)
    )
    for C in (1.0, 1.0, 5.0):
        theirs.set_params(C=C).fit(X, y)
        ours.set_params(C=C).fit(X, y)
        assert alike(theirs.coef_, ours.coef_)
        assert alike(theirs.n_iter_, ours.n_iter_)


@host
@unconverged
def test_the_weights_of_a_logistic_regression_can_be_set():
    X, y = data("cancer")
    pair = [
        kind(fit_intercept=has, max_iter=3).fit(X, y)
        for kind in (linear_model.LogisticRegression, LogisticRegression)
        for has in (True, False)
    ]
    for estimator in pair:
        estimator.coef_ = 2 * estimator.coef_
    for estimator in (pair[0], pair[2]):
        estimator.intercept_ = estimator.intercept_ + 1
    for theirs, ours in zip(pair[:2], pair[2:], strict=True):
        assert alike(theirs.decision_function(X), ours.decision_function(X))
    with pytest.raises(ValueError, match="coef_ must have the shapes"):
        pair[2].coef_ = np.zeros((2, 30))
    with pytest.raises(AttributeError, match="intercept_ can be set where"):
        pair[3].intercept_ = np.zeros(1)


@host
def test_the_parameters_of_logistic_regression_have_scikit_learns_defaults():
    theirs = inspect.signature(linear_model.LogisticRegression).parameters
    ours = inspect.signature(LogisticRegression).parameters
    shared = [name for name in ours if name in theirs]
    assert shared == [
        *("C", "tol", "fit_intercept", "class_weight", "random_state", "solver", "max_iter"),
        *("verbose", "warm_start"),
    ]
    for name in shared:
        assert ours[name].default == theirs[name].default, name
        assert ours[name].kind == theirs[name].kind, name


@host
@unconverged
@pytest.mark.parametrize("solver", ["adam", "sgd"])
def test_logistic_regression_by_epochs_comes_near(solver):
    X, y = data("cancer")
    exact = LogisticRegression().fit(X, y)
    ours = LogisticRegression(solver=solver, random_state=0, max_iter=300).fit(X, y)
    assert np.mean(ours.predict(X) == exact.predict(X)) > 0.98
