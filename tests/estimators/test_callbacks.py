"""scikit-learn's callbacks, its own and others: what they see of a fit, and how they end it."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, log_loss
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from xpnet.estimators import LogisticRegression, MLPClassifier, MLPRegressor

callback = pytest.importorskip("sklearn.callback", reason="needs scikit-learn 1.9")
ProgressBar, ScoringMonitor = callback.ProgressBar, callback.ScoringMonitor
host = pytest.mark.host
pytestmark = [
    pytest.mark.filterwarnings("ignore:Stochastic Optimizer:Warning"),
    pytest.mark.filterwarnings("ignore:lbfgs failed to converge:Warning"),
]


class Recorder:
    """Keeps what the hooks are told, and asks to stop after so many epochs."""

    def __init__(self, stop_after=None, fail_after=None):
        self.stop_after, self.fail_after = stop_after, fail_after
        self.events = []
        self.learned = []
        self.seen = []

    def setup(self, estimator, context):
        del estimator, context
        self.events.append("setup")

    def teardown(self, estimator, context):
        del estimator, context
        self.events.append("teardown")

    def on_fit_task_begin(self, estimator, context):
        del estimator
        self.events.append(f"begin {context.task_name}")

    def on_fit_task_end(self, estimator, context, *, X=None, y=None, metadata=None):
        del estimator
        self.events.append(f"end {context.task_name}")
        self.seen.append((X, y, metadata))
        n = self.events.count(f"end {context.task_name}")
        if context.parent is not None and n == self.fail_after:
            raise RuntimeError("no more")
        return context.parent is not None and n == self.stop_after


class Learned(Recorder):
    """Keeps the estimator of each epoch."""

    def on_fit_task_end(self, estimator, context, *, fitted_estimator=None):  # type: ignore[override]
        del estimator
        self.events.append(f"end {context.task_name}")
        self.learned.append(fitted_estimator)
        return False


def problem(n=60, n_classes=3):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n, 4))
    return X, np.argmax(X[:, :n_classes] + rng.standard_normal((n, n_classes)), axis=1)


def classifier(**options):
    given = {"max_iter": 4, "learning_rate_init": 0.1, "random_state": 0, **options}
    return MLPClassifier((6,), **given)


def epochs(n, name="epoch"):
    return [f"{what} {name}" for _ in range(n) for what in ("begin", "end")]


@host
def test_what_happens_in_a_fit():
    X, y = problem()
    recorder = Recorder()
    classifier().set_callbacks(recorder).fit(X, y, np.ones(len(y)))
    assert recorder.events == ["setup", "begin fit", *epochs(4), "end fit", "teardown"]
    for X_seen, y_seen, metadata in recorder.seen:
        np.testing.assert_array_equal(X_seen, X)
        np.testing.assert_array_equal(y_seen, y)
        np.testing.assert_array_equal(metadata["sample_weight"], 1)


@host
@pytest.mark.parametrize(
    "options",
    [{}, {"early_stopping": True}, {"solver": "sgd", "learning_rate": "adaptive"}],
    ids=str,
)
def test_a_callback_that_asks_to_stop(options):
    X, y = problem()
    recorder = Recorder(stop_after=2)
    made = classifier(**options).set_callbacks(recorder)
    made.fit(X, y)  # and no warning that it has not converged
    assert recorder.events == ["setup", "begin fit", *epochs(2), "end fit", "teardown"]
    assert (made.n_iter_, len(made.loss_curve_)) == (2, 2)
    if not options.get("early_stopping"):
        expected = classifier(max_iter=2, **options).fit(X, y)
        np.testing.assert_array_equal(made.predict_proba(X), expected.predict_proba(X))


@host
def test_the_warning_stays_away_where_a_callback_stops(recwarn):
    X, y = problem()
    classifier().set_callbacks(Recorder(stop_after=4)).fit(X, y)
    assert not recwarn.list


@host
def test_one_of_two_callbacks_stops():
    X, y = problem()
    callbacks = Recorder(), Recorder(stop_after=3)
    made = classifier().set_callbacks(*callbacks).fit(X, y)
    assert made.n_iter_ == 3
    assert callbacks[0].events == callbacks[1].events


@host
def test_stopping_early_ends_the_tasks():
    X, y = problem()
    recorder = Recorder()
    made = classifier(max_iter=50, tol=1e9, n_iter_no_change=2).set_callbacks(recorder).fit(X, y)
    assert made.n_iter_ < 10
    assert recorder.events == ["setup", "begin fit", *epochs(made.n_iter_), "end fit", "teardown"]


@host
@pytest.mark.parametrize("kind", [MLPClassifier, LogisticRegression])
def test_lbfgs(kind):
    X, y = problem()
    recorder = Recorder()
    made = kind(solver="lbfgs", max_iter=7, random_state=0).set_callbacks(recorder).fit(X, y)
    names = {event.split()[-1] for event in recorder.events} - {"setup", "fit", "teardown"}
    (name,) = names
    n = int(np.ravel(made.n_iter_)[0])
    assert recorder.events == ["setup", "begin fit", *epochs(n, name), "end fit", "teardown"]
    stopped = kind(solver="lbfgs", max_iter=7, random_state=0).set_callbacks(Recorder(stop_after=3))
    assert np.ravel(stopped.fit(X, y).n_iter_)[0] == 3
    expected = kind(solver="lbfgs", max_iter=3, random_state=0).fit(X, y)
    np.testing.assert_allclose(stopped.predict_proba(X), expected.predict_proba(X), rtol=1e-12)


@host
def test_partial_fit():
    X, y = problem()
    recorder = Recorder()
    made = classifier().set_callbacks(recorder)
    for _ in range(2):
        made.partial_fit(X, y, classes=[0, 1, 2])
    assert recorder.events == 2 * ["setup", "begin fit", *epochs(1), "end fit", "teardown"]


@host
@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_a_fit_that_fails(solver):
    X, y = problem()
    recorder = Recorder(fail_after=2)
    made = classifier(solver=solver).set_callbacks(recorder)
    with pytest.raises(RuntimeError, match="no more"):
        made.fit(X, y)
    assert recorder.events[-1] == "teardown"
    assert recorder.events.count("setup") == recorder.events.count("teardown") == 1
    made.set_callbacks().fit(X, y)
    assert made.predict(X).shape == y.shape


@host
def test_a_fit_that_diverges():
    X, y = problem()
    recorder = Recorder()
    made = classifier(solver="sgd", learning_rate_init=1e300).set_callbacks(recorder)
    with pytest.raises(ValueError, match="non-finite parameter weights"):
        made.fit(X * 1e100, y)
    assert recorder.events[-1] == "teardown"


@host
def test_data_that_are_refused_set_nothing_up():
    X, y = problem()
    recorder = Recorder()
    with pytest.raises(ValueError, match="dropout"):
        classifier(dropout=[0.1, 0.2]).set_callbacks(recorder).fit(X, y)
    assert recorder.events == []


@pytest.mark.parametrize("options", [{}, {"batch_norm": True, "dropout": 0.3}], ids=str)
def test_the_estimator_of_each_epoch(options):
    X, y = problem()
    recorder = Learned()
    made = classifier(**options).set_callbacks(recorder).fit(X, y)
    assert len(recorder.learned) == 5
    for n, learned in enumerate(recorder.learned[:4], 1):
        expected = classifier(max_iter=n, **options).fit(X, y)
        np.testing.assert_array_equal(learned.predict_proba(X), expected.predict_proba(X))
    np.testing.assert_array_equal(recorder.learned[4].predict_proba(X), made.predict_proba(X))


def test_the_best_epoch_is_what_a_fit_ends_with():
    X, y = problem(200)
    recorder = Learned()
    options = {"early_stopping": True, "max_iter": 30, "learning_rate_init": 0.1, "scoring": "loss"}
    made = classifier(**options).set_callbacks(recorder).fit(X, y)
    *of_epochs, last = recorder.learned
    best = int(np.argmax(made.validation_scores_))
    assert best < len(of_epochs) - 1
    expected = made.predict_proba(X)
    np.testing.assert_array_equal(last.predict_proba(X), expected)
    np.testing.assert_array_equal(of_epochs[best].predict_proba(X), expected)


@host
@pytest.mark.parametrize("weights", [False, True])
def test_scoring_monitor(weights):
    X, y = problem()
    weight = np.random.default_rng(1).uniform(0.2, 2, len(y)) if weights else None
    monitor = ScoringMonitor(scoring=["accuracy", "neg_log_loss"])
    classifier(dropout=0.2).set_callbacks(monitor).fit(X, y, weight)
    rows = [row for row in monitor.get_logs().data if row["task_name"] == "epoch"]
    assert [row["task_id"] for row in rows] == [0, 1, 2, 3]
    for n, row in enumerate(rows, 1):
        P = classifier(dropout=0.2, max_iter=n).fit(X, y, weight).predict_proba(X)
        assert row["accuracy"] == accuracy_score(y, P.argmax(axis=1), sample_weight=weight)
        assert row["neg_log_loss"] == pytest.approx(-log_loss(y, P, sample_weight=weight))


@host
@pytest.mark.parametrize("early_stopping", [False, True])
def test_scoring_monitor_of_data_frames(early_stopping):
    """No warning of names that are missing."""
    pandas = pytest.importorskip("pandas")
    X, y = problem()
    labels = np.array(["a", "b", "c"])[y]
    monitor = ScoringMonitor(scoring="accuracy")
    made = classifier(early_stopping=early_stopping).set_callbacks(monitor)
    made.fit(pandas.DataFrame(X, columns=list("wxyz")), labels)
    assert len(monitor.get_logs().data_as_pandas) == 5


@host
@pytest.mark.parametrize("kind", [MLPRegressor, LogisticRegression])
def test_scoring_monitor_of_other_estimators(kind):
    X, y = problem()
    name = "r2" if kind is MLPRegressor else "accuracy"
    monitor = ScoringMonitor(scoring=name)
    made = kind(max_iter=5).set_callbacks(monitor).fit(X, y)
    scores = [row[name] for row in monitor.get_logs().data]
    assert len(scores) == 6
    assert made.score(X, y) == scores[0] == scores[-1]


@host
@pytest.mark.parametrize("n_jobs", [1, 2])
def test_scoring_monitor_in_a_search(n_jobs):
    X, y = problem()
    monitor = ScoringMonitor(scoring="accuracy")
    made = make_pipeline(StandardScaler(), classifier(max_iter=3).set_callbacks(monitor))
    search = GridSearchCV(made, {"mlpclassifier__alpha": [0.01, 1.0]}, cv=2, n_jobs=n_jobs)
    search.fit(X, y)
    # A run of the search holds its fits, of which the last is that of the best candidate.
    rows = {row["task_id_path"]: row for row in monitor.get_logs().data}
    of_epochs = [path for path, row in rows.items() if row["task_name"] == "epoch"]
    assert len(of_epochs) == 3 * (2 * 2 + 1)
    X = StandardScaler().fit_transform(X)
    alpha = search.best_params_["mlpclassifier__alpha"]
    for n in range(3):
        expected = classifier(max_iter=n + 1, alpha=alpha).fit(X, y).score(X, y)
        assert rows[0, 1, 1, n]["accuracy"] == expected


@host
def test_progress_bar(capsys):
    X, y = problem()
    classifier().set_callbacks(ProgressBar()).fit(X, y)
    printed = capsys.readouterr().out
    assert "MLPClassifier" in printed
    assert "100%" in printed


@host
@pytest.mark.parametrize("n_jobs", [1, 2])
def test_progress_bar_of_a_search(capsys, n_jobs):
    """It is set on the outermost estimator, and handed down to this one."""
    X, y = problem()
    made = make_pipeline(StandardScaler(), classifier(max_iter=2))
    search = GridSearchCV(made, {"mlpclassifier__alpha": [0.01, 1.0]}, cv=2, n_jobs=n_jobs)
    search.set_callbacks(ProgressBar(max_propagation_depth=None)).fit(X, y)
    printed = capsys.readouterr().out
    assert "MLPClassifier" in printed
    assert not [thread for thread in threading.enumerate() if "rogress" in thread.name]


@host
def test_what_is_no_callback():
    with pytest.raises(TypeError, match="FitCallback protocol"):
        classifier().set_callbacks(print)
