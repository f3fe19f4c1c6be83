"""One import line is swapped: what scikit-learn's perceptrons do, ours do."""

from __future__ import annotations

import copy
import pickle
import signal
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy import sparse
from sklearn import neural_network
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tests.estimators.comparison import Script, alike, data, differences
from tests.estimators.perceptrons import (
    HAS_NAMED_CLASSES,
    HAS_WEIGHTS,
    RATES,
    SOLVERS,
    classifier,
    regressor,
    since,
    unconverged,
)
from xpnet import estimators

host = pytest.mark.host

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
    labels = np.array(["benign", "malign"])[y] if HAS_NAMED_CLASSES else y
    keep(classifier(mlp, **parameters)).fit(X, labels)


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
    weights = (np.arange(len(y)),) if HAS_WEIGHTS else ()
    return estimator.partial_fit(X, y, *weights).predict(X)


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
    labels = ["a" if HAS_NAMED_CLASSES else 0] * len(y)
    for stops in (False, True):
        estimator = keep(classifier(mlp, early_stopping=stops)).fit(X, labels)
    return estimator.predict(X), estimator.predict_proba(X), estimator.score(X, labels)


@script
def kinds_of_labels(mlp, keep):
    X, y = data("cancer")
    names = np.array(["mal", "ben"])[y]
    found = []
    for labels in (
        *(names, names.astype(object), names.tolist()),
        *(y.astype(dtype) for dtype in (bool, object, float, np.float32, np.uint8)),
        2 * y - 1,
    ):
        estimator = keep(classifier(mlp, max_iter=1)).fit(X, labels)
        found += [estimator.predict(X), estimator.score(X, labels)]
    return found


@script
def labels_as_bytes(mlp, keep):
    X, y = data("cancer")
    keep(classifier(mlp, max_iter=1)).fit(X, np.array([b"mal", b"ben"])[y])


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


# The release from which scikit-learn does what our estimators do with any release.
NEWER = {
    **dict.fromkeys(["weights_as_a_number_a_list_or_whole", "representations"], (1, 7)),
    **dict.fromkeys(["weights that are no numbers", "too few weights"], (1, 7)),
    **dict.fromkeys(["a table of weights", "too_little_to_validate_on"], (1, 7)),
    "labels_as_bytes": (1, 7),  # an error; 1.6 warns of it as often as it checks the labels
    **{f"weights of nothing, {solver}": (1, 9) for solver in SOLVERS},
}


@host
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=since(*NEWER.get(name, (1, 6)))) for name in SCRIPTS]
)
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
        keep(classifier(mlp, early_stopping=HAS_NAMED_CLASSES)).fit(frame, labels)
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
