"""xpnet's estimators compared with scikit-learn's: ``python -m bench.estimators``.

The data are ten small data sets that scikit-learn ships or generates, Fashion-MNIST, and cases that
do not spend their time on small steps. For each seed both sides have the same parameters,
``random_state`` and split, and train alternately, so that other load on the machine affects both.
Ratios of times are medians over the seeds.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bench.environment import BY_HAND, THREADS, processor_name, restart_without
from bench.markdown import spread, table

SEEDS = 5
Data = tuple[Any, ...]  # X and y, or all four parts of a split


@dataclass(frozen=True)
class Problem:
    """A data set and the parameters that differ from the defaults, for both sides."""

    name: str
    what: str
    load: Callable[[int], Data]  # takes a seed
    score: str = "accuracy"  # a scorer of scikit-learn's
    estimator: str = "MLPClassifier"
    parameters: dict[str, Any] = field(default_factory=dict)


def shipped(name: str) -> Callable[[int], Data]:
    from sklearn import datasets

    return lambda _: getattr(datasets, f"load_{name}")(return_X_y=True)


def generated(*arguments: Any, **options: Any) -> Callable[[int], Data]:
    from sklearn import datasets

    return lambda seed: datasets.make_classification(*arguments, **options, random_state=seed)


def problems() -> list[Problem]:
    """Return the ten small data sets."""
    from sklearn import datasets

    def sparse(seed: int) -> Data:
        from scipy.sparse import random_array

        rng = np.random.default_rng(seed)
        X = random_array((1000, 5000), density=0.01, format="csr", rng=rng)
        hidden = X @ rng.normal(size=5000)
        return X, (hidden > np.median(hidden)).astype(int)

    return [
        Problem("breast cancer", "binary, 569 x 30", shipped("breast_cancer")),
        Problem("iris", "three classes, 150 x 4", shipped("iris")),
        Problem("digits", "ten classes, 1797 x 64", shipped("digits")),
        Problem(
            "moons",
            "binary, 1000 x 2",
            lambda seed: datasets.make_moons(1000, noise=0.25, random_state=seed),
        ),
        Problem(
            "labels",
            "five labels at once, 1000 x 20",
            lambda seed: datasets.make_multilabel_classification(1000, random_state=seed),
        ),
        Problem("sparse", "binary, 1000 x 5000, one in a hundred", sparse),
        Problem("tiny", "binary, 40 x 10", generated(40, 10)),
        Problem("wide", "binary, 200 x 2000", generated(200, 2000, n_informative=20)),
        Problem(
            "imbalanced",
            "binary, 2000 x 20, one in twenty",
            generated(2000, 20, n_informative=5, weights=[0.95]),
            score="balanced_accuracy",
        ),
        Problem(
            "diabetes",
            "regression, 442 x 10",
            lambda _: datasets.load_diabetes(return_X_y=True, scaled=False),
            score="r2",
            estimator="MLPRegressor",
            parameters={"max_iter": 500},
        ),
    ]


def large_problems() -> list[Problem]:
    """Return the problems that do not spend their time on small steps."""

    def sparse(seed: int) -> Data:
        from scipy.sparse import random_array

        rng = np.random.default_rng(seed)
        X = random_array((2000, 20000), density=0.001, format="csr", rng=rng)
        return X, rng.integers(0, 2, 2000)

    def images(seed: int) -> Data:
        rng = np.random.default_rng(seed)
        return rng.random((20000, 784), dtype=np.float32), rng.integers(0, 10, 20000)

    def fashion(seed: int, dtype: str) -> Data:
        from xpnet.data import load_dataset

        del seed
        data = load_dataset("fashion-mnist")
        parts = (part.reshape(len(part), -1) for part in (data.X_train, data.X_test))
        X_train, X_test = (part.astype(dtype) / np.dtype(dtype).type(255) for part in parts)
        return X_train, X_test, data.y_train, data.y_test

    logistic: dict[str, Any] = {"estimator": "LogisticRegression", "parameters": {"max_iter": 500}}
    return [
        *(
            Problem(
                f"Fashion-MNIST, {dtype}",
                "ten classes, 60000 x 784; (256, 128), batch 128, 5 epochs",
                partial(fashion, dtype=dtype),
                parameters={"hidden_layer_sizes": (256, 128), "batch_size": 128, "max_iter": 5},
            )
            for dtype in ("float32", "float64")
        ),
        Problem(
            "very sparse",
            "binary, 2000 x 20000, one in a thousand; (20,), 10 epochs",
            sparse,
            parameters={"hidden_layer_sizes": (20,), "max_iter": 10},
        ),
        Problem(
            "large layers",
            "ten classes, 20000 x 784, float32; (1024, 1024), batch 1024, 2 epochs",
            images,
            parameters={"hidden_layer_sizes": (1024, 1024), "batch_size": 1024, "max_iter": 2},
        ),
        Problem("logistic, iris", "L-BFGS", shipped("iris"), **logistic),
        Problem("logistic, digits", "L-BFGS", shipped("digits"), **logistic),
        Problem(
            "logistic, large",
            "L-BFGS, binary, 50000 x 100",
            generated(50000, 100, n_informative=20),
            **logistic,
        ),
    ]


def split(problem: Problem, seed: int) -> Data:
    """Return training and test samples, standardised unless they are sparse."""
    from sklearn.model_selection import train_test_split
    from sklearn.preprocessing import StandardScaler

    data = problem.load(seed)
    if len(data) == 4:
        return data
    X, y = data
    is_stratified = problem.estimator != "MLPRegressor" and y.ndim == 1
    parts = train_test_split(X, y, random_state=seed, stratify=y if is_stratified else None)
    X_train, X_test, y_train, y_test = parts
    if not hasattr(X, "tocsr"):
        scaler = StandardScaler().fit(X_train)
        X_train, X_test = scaler.transform(X_train), scaler.transform(X_test)
    return X_train, X_test, y_train, y_test


def run(problem: Problem, seeds: int) -> list[str]:
    """Fit both sides for each seed, and return the row of the table."""
    import sklearn.linear_model
    import sklearn.neural_network
    from sklearn.metrics import get_scorer

    import xpnet

    is_linear = problem.estimator == "LogisticRegression"
    theirs = sklearn.linear_model if is_linear else sklearn.neural_network
    sides = {"scikit-learn": theirs, "xpnet": xpnet}
    scores: dict[str, list[float]] = {side: [] for side in sides}
    times: dict[str, list[float]] = {side: [] for side in sides}
    scorer = get_scorer(problem.score)
    same = []
    for seed in range(seeds):
        X_train, X_test, y_train, y_test = split(problem, seed)
        n_iter = set()
        for side, module in sides.items():
            kind = getattr(module, problem.estimator)
            estimator = kind(random_state=seed, **problem.parameters)
            start = time.perf_counter()
            estimator.fit(X_train, y_train)
            times[side].append(time.perf_counter() - start)
            scores[side].append(float(scorer(estimator, X_test, y_test)))
            n_iter.add(int(estimator.n_iter_[0] if is_linear else estimator.n_iter_))
        same.append(len(n_iter) == 1)
    ratios = [a / b for a, b in zip(times["scikit-learn"], times["xpnet"], strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    differences = [b - a for a, b in zip(*scores.values(), strict=True)]
    return [
        problem.name,
        problem.what,
        problem.score,
        *(spread(values, 4) for values in scores.values()),
        f"{max(differences, key=abs):+.4f}",
        f"{sum(same)} of {seeds}",
        *(f"{statistics.median(values):.3f}" for values in times.values()),
        f"{middle:.2f} ({low:.2f} to {high:.2f})",
    ]


def page(rows: list[list[str]], seeds: int) -> list[str]:
    """Return the lines of the page."""
    from xpnet.environment import versions

    about = {
        "processor": f"{processor_name()}; {os.cpu_count()} processors",
        "system": f"{platform.system()} {platform.machine()}",
        **versions(),
    }
    return [
        f"# xpnet's estimators compared with scikit-learn's, {datetime.date.today():%Y-%m-%d}",
        "",
        "Written by `python -m bench.estimators`. Both sides have the same parameters (the "
        "defaults, except as the table says), the same `random_state` and the same splits. They "
        f"are fitted alternately, with {seeds} seeds each, and use all processors. Scores are on a "
        "held-out quarter of the samples: means with the standard deviation over the seeds. "
        "*Largest difference* is xpnet's score minus scikit-learn's, for the seed where they "
        "differ most. *Same n_iter_* counts the seeds for which both took the same number of "
        "epochs. Seconds are medians for one fit; *times faster* is the median ratio over the "
        "seeds, with quartiles.",
        "",
        *table(("", ""), list(about.items())),
        "",
        *table(TITLES, rows),
    ]


TITLES = (
    *("data", "", "score", "scikit-learn", "xpnet", "largest difference", "same n_iter_"),
    *("scikit-learn, s", "xpnet, s", "times faster (quartiles)"),
)


def main() -> None:
    """Measure with the BLAS's own choice of kernels and threads, and print the page."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.estimators",
        description="Compare xpnet's estimators with scikit-learn's.",
    )
    parser.add_argument(
        "--seeds", type=int, default=SEEDS, help="number of seeds (default: %(default)s)"
    )
    parser.add_argument("--only", nargs="*", help="names of the data sets to run")
    parser.add_argument("--quick", action="store_true", help="run only the ten small data sets")
    parser.add_argument("--out", type=Path, help="file for the page")
    chosen = parser.parse_args()
    restart_without(*BY_HAND, *THREADS)
    seeds = max(chosen.seeds, 2)
    rows = []
    warnings.simplefilter("ignore")
    for problem in problems() + ([] if chosen.quick else large_problems()):
        if not chosen.only or problem.name in chosen.only:
            rows.append(run(problem, seeds))
            sys.stderr.write(f"{' | '.join(rows[-1])}\n")
    text = "\n".join(page(rows, seeds)) + "\n"
    sys.stdout.write(text)
    if chosen.out is not None:
        chosen.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
