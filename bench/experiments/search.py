"""Bergstra & Bengio 2012: random search and a grid, by the number of trials."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bench import markdown, pictures
from bench.experiments import fashion
from bench.experiments.experiment import Experiment, Results, Section
from xpnet.spaces import Range, Scale, Space
from xpnet.training import DivergenceError

# What is from xpnet.search is imported where it is used: it needs Optuna, and no other experiment
# does.

__all__ = ["EXPERIMENT"]

DATA: dict[str, dict[str, Any]] = {
    "digits": {
        "n_train": None,
        "changes": [
            "data.dataset=digits",
            "data.divide_by=16",
            "data.test_fraction=0.25",
            "data.validation_fraction=0.3333",
            "training.epochs=30",
            "training.report_every=30",
        ],
    },
    "Fashion-MNIST": {"n_train": 4000, "changes": []},
}
N_TRIALS = {"random": 200, "grid": 192}
N_SHORT = 12
SHORT = (*fashion.SHORT, "data.validation_fraction=0.2")
AT_A_TIME = {"random": 50, "grid": 48}  # trials of a run
SEED = 0
SIZES = (8, 16, 32, 64, 128)
PAPER = 8  # trials that are said to do
N_RESAMPLES = 2000
BAND = (0.05, 0.95)
NAMES = {
    "optimizer.learning_rate": "learning rate",
    "optimizer.beta": "momentum",
    "network.layers.0.units": "hidden units",
    "network.layers.0.activation": "activation",
    "network.layers.0.init.gain": "initial weights' gain",
    "training.batch_size": "batch size",
    "training.l2": "L2",
}

Numbers = npt.NDArray[np.float64]


def _run(
    n_train: int | None, changes: list[str], sampler: str, first: int, number: int
) -> dict[str, Any]:
    from xpnet.search.sampling import design

    recipe = fashion.recipe("search", changes)
    data = fashion.load_data(recipe)
    if n_train is not None:
        data = fashion.part(data, n_train, SEED)
    assert data.y_validation is not None
    trials = []
    for trial in range(first, first + number):
        settings = design(sampler, recipe.space, SEED, trial)
        assert settings is not None
        began = time.perf_counter()
        # Of a run's results the validation accuracy is that of Recipe.validate, which is what a
        # search goes by; the test accuracy is for the last column.
        try:
            result = recipe.changed(recipe.space.resolve(settings)).run(data)
            accuracies = (
                float(result.history.reports[-1].validation_accuracy or 0.0),
                result.test_accuracy,
            )
        except DivergenceError:
            accuracies = (0.0, 0.0)
        # Seconds are kept for whoever looks at the outcomes.
        trials.append([settings, *accuracies, round(time.perf_counter() - began, 3)])
    samples = [len(y) for y in (data.y_train, data.y_validation, data.y_test)]
    return {"samples": samples, "trials": trials}


def _runs(is_short: bool) -> dict[str, dict[str, Any]]:
    runs = {}
    for (data, arguments), sampler in itertools.product(DATA.items(), N_TRIALS):
        n_trials = N_SHORT if is_short else N_TRIALS[sampler]
        own = {"n_train": None, "changes": list(SHORT)} if is_short else arguments
        for first in range(0, n_trials, AT_A_TIME[sampler]):
            number = min(AT_A_TIME[sampler], n_trials - first)
            runs[f"{data}, {sampler} {first}-{first + number - 1}"] = {
                **own,
                "sampler": sampler,
                "first": first,
                "number": number,
            }
    return runs


@dataclass(frozen=True)
class _Search:
    """Trials of one sampler on one data set, and what the best of n of them is.

    Attributes
    ----------
    settings : list of dict
    validation, test : array
        Accuracies, one for each trial.
    best_validation, best_test : array
        Those of the trial that validation chooses, of equals the first, out of n: in each row an
        order in which the trials might have come, in each column an n. Trials of a grid come each
        once, those of a random search are drawn with replacement.
    """

    settings: list[dict[str, Any]]
    validation: Numbers
    test: Numbers
    best_validation: Numbers
    best_test: Numbers

    @classmethod
    def of(cls, results: Results, data: str, sampler: str) -> _Search:
        """Gather the runs."""
        rows = [
            row
            for key, found in results.items()
            if key.startswith(f"{data}, {sampler} ")
            for row in found["trials"]
        ]
        validation, test = np.array([row[1:3] for row in rows], dtype=np.float64).T
        rng = np.random.default_rng(SEED)
        if sampler == "grid":
            orders = rng.permuted(np.tile(np.arange(len(rows)), (N_RESAMPLES, 1)), axis=1)
        else:
            orders = rng.integers(len(rows), size=(N_RESAMPLES, len(rows)))
        chosen = orders.copy()
        for n in range(1, len(rows)):
            is_better = validation[orders[:, n]] > validation[chosen[:, n - 1]]
            chosen[:, n] = np.where(is_better, orders[:, n], chosen[:, n - 1])
        return cls([row[0] for row in rows], validation, test, validation[chosen], test[chosen])

    def __len__(self) -> int:
        return len(self.validation)

    def chance(self, n: int, accuracy: float) -> float:
        """Give the probability that the best of n random trials is no worse, on validation."""
        return 1.0 - float((self.validation < accuracy).mean()) ** n

    def median_at(self, accuracy: float) -> int | None:
        """Give the smallest n at which that probability is a half."""
        sizes = range(1, len(self) + 1)
        return next((n for n in sizes if self.chance(n, accuracy) >= 0.5), None)

    def mean_at(self, accuracy: float) -> int | None:
        """Give the smallest n at which the best of n random trials is no worse in the mean."""
        from xpnet.search.results import matches_at

        return matches_at(self.validation.tolist(), accuracy, is_maximised=True)

    def best_of(self, n: int) -> tuple[float, float, float]:
        """Give what the bootstrap of the best validation accuracy of n trials tends to."""
        from xpnet.search.results import best_of

        mean, (low, high) = best_of(self.validation.tolist(), n, is_maximised=True, quantiles=BAND)
        return mean, low, high


def _band(values: Numbers) -> tuple[float, float, float]:
    """Give mean and quantiles of a column of resamples."""
    low, high = np.quantile(values, BAND)
    return float(values.mean()), float(low), float(high)


@dataclass(frozen=True)
class _Comparison:
    """Random search and grid on one data set of so many training, validation and test samples."""

    data: str
    n_samples: list[int]
    random: _Search
    grid: _Search

    @classmethod
    def of(cls, results: Results, data: str) -> _Comparison:
        """Gather the runs."""
        random, grid = (_Search.of(results, data, sampler) for sampler in ("random", "grid"))
        n_samples = next(found for key, found in results.items() if key.startswith(data))["samples"]
        return cls(data, n_samples, random, grid)

    @property
    def best(self) -> float:
        """The best validation accuracy of the grid."""
        return float(self.grid.validation.max())

    @property
    def best_test(self) -> float:
        """Test accuracy of the point that has it; of several the mean."""
        return float(self.grid.test[self.grid.validation == self.best].mean())

    def test_chance(self, n: int) -> float:
        """Give the share of resamples in which n random trials test no worse than the grid."""
        column = self.random.best_test[:, min(n, len(self.random)) - 1]
        return float((column >= self.best_test).mean())

    def test_at(self) -> int | None:
        """Give the smallest n at which random search tests no worse than the grid in the mean."""
        reached = np.flatnonzero(self.random.best_test.mean(axis=0) >= self.best_test)
        return int(reached[0]) + 1 if len(reached) else None

    def standard_error(self) -> float:
        """Give that of the grid's best validation accuracy."""
        return math.sqrt(self.best * (1 - self.best) / self.n_samples[1])


def _importances(space: Space, search: _Search) -> dict[str, float]:
    """Estimate them as a study of xpnet's does."""
    from optuna.storages import InMemoryStorage
    from optuna.trial import create_trial

    from xpnet.search.parameters import parameters
    from xpnet.search.results import importances
    from xpnet.search.study import open_study

    study = open_study(InMemoryStorage(), "search", fashion.recipe("search", []))
    known = parameters(space)
    for settings, accuracy in zip(search.settings, search.validation, strict=True):
        trial = create_trial(
            params={known[k].label: known[k].to_optuna(v) for k, v in settings.items()},
            distributions={known[k].label: known[k].distribution for k in settings},
            value=float(accuracy),
        )
        study.optuna.add_trial(trial)
    return importances(study)


def _section(results: Results) -> Section:
    compared = [_Comparison.of(results, data) for data in DATA]
    space = fashion.recipe("search", []).space
    shares = [_importances(space, one.random) for one in compared]
    lines = [
        *_set_up(compared),
        "",
        *markdown.table(
            (
                "",
                "scale",
                "the grid's values",
                *(f"importance, {one.data}" for one in compared),
            ),
            [
                (
                    NAMES[name],
                    _scale(scale),
                    ", ".join(_value(value) for value in scale.grid()),
                    *(f"{share.get(name, 0.0):.2f}" for share in shares),
                )
                for name, scale in space.items()
            ],
        ),
        "",
        *_on_importance(compared, shares),
        "",
        "Best validation accuracy of so many trials, and test accuracy of the trial that has it: "
        "means, and in brackets from 5 to 95 % of the searches that might have been. For the "
        "validation accuracy of random search that is a bootstrap of the trials in its exact "
        "limit: the best of n is no better than the k-th worst of N with probability "
        f"(k/N)^n. Test accuracies are of {N_RESAMPLES:,} resamples with a fixed seed; the grid's "
        f"are of {N_RESAMPLES:,} random orders of its points. *No worse* is the probability that "
        "random search ends no worse than the whole grid.",
    ]
    for one in compared:
        lines += ["", *_table(one), "", _matches(one)]
    lines += ["", _on_noise(compared), "", "![Best of n trials](search.png)"]
    return Section(_summarize(compared), lines, {"search.png": _draw(compared)})


def _set_up(compared: Sequence[_Comparison]) -> list[str]:
    sizes = "; ".join(
        f"{one.data}: {one.n_samples[0]:,} training, {one.n_samples[1]:,} validation and "
        f"{one.n_samples[2]:,} test images"
        for one in compared
    )
    n_failed = sum(
        int((search.validation == 0).sum()) for one in compared for search in (one.random, one.grid)
    )
    failed = f"there were {n_failed}" if n_failed else "there was none"
    first = compared[0]
    return [
        f"One hidden layer, gradient descent with momentum, 30 epochs of digits and 15 of "
        f"Fashion-MNIST; {sizes}. {len(first.random)} random trials and a grid of "
        f"{len(first.grid)} points, the middles of equal parts of each scale: three of the "
        "learning rate, two of each of the others. Six of the hyper-parameters and their ranges "
        "are the paper's (from memory, not verified; there L2 is off in half of the trials), and "
        "momentum is in the place of its annealing. They were chosen once, before any trial, and "
        "the training is as long for all. All trials start from the same random numbers. One "
        f"that diverges counts as accuracy 0; {failed}."
    ]


def _scale(scale: Scale) -> str:
    if not isinstance(scale, Range):
        return ", ".join(_value(setting) for setting in scale.extremes())
    words = {"log_uniform": "logarithmic", "log_integer": "logarithmic"}
    words["one_minus_log_uniform"] = "logarithm of the distance to 1"
    return f"{_value(scale.low)} to {_value(scale.high)}, {words[scale.word]}"


def _value(value: Any) -> str:
    return f"{value:.2g}" if isinstance(value, float) else str(value)


def _on_importance(
    compared: Sequence[_Comparison], shares: Sequence[dict[str, float]]
) -> list[str]:
    said = []
    for one, share in zip(compared, shares, strict=True):
        if not share:  # a short form's trials may all be the same
            continue
        ranked = list(share.items())
        first, second = ranked[:2]
        rest = [value for _, value in ranked[3:]]
        said.append(
            f"on {one.data} {NAMES[first[0]]} has {first[1]:.2f}, {NAMES[second[0]]} "
            f"{second[1]:.2f}, and the last four together {sum(rest):.2f}"
        )
    random, grid = compared[0].random, compared[0].grid
    name = "optimizer.learning_rate"
    n_values = [len({settings[name] for settings in search.settings}) for search in (grid, random)]
    pairs = [(one.data, _apart(one.grid, "training.l2")) for one in compared]
    return [
        "Importance is PED-ANOVA's over the random trials: how far the best tenth of them is from "
        "all in each hyper-parameter, as shares. "
        + (f"Of them, {'; '.join(said)}. " if said else "")
        + f"That is what a grid spends trials on: its {len(grid)} points have {n_values[0]} "
        f"learning rates, where {len(random)} random trials have {n_values[1]}, and points that "
        "differ in L2 alone are apart by "
        + " and ".join(f"{apart:.4f} on {data}" for data, apart in pairs)
        + " in the median of their validation accuracies, as good as the same trial twice."
    ]


def _apart(search: _Search, name: str) -> float:
    """Give the median difference of trials that differ in one hyper-parameter alone."""
    groups: dict[str, list[float]] = {}
    for settings, accuracy in zip(search.settings, search.validation, strict=True):
        rest = repr({key: value for key, value in settings.items() if key != name})
        groups.setdefault(rest, []).append(accuracy)
    apart = [max(group) - min(group) for group in groups.values() if len(group) > 1]
    return float(np.median(apart)) if apart else 0.0


def _table(one: _Comparison) -> list[str]:
    of_grid = (f"**{one.best:.3f}**", f"**{one.best_test:.3f}**")
    rows: list[tuple[str, ...]] = [("**grid**", str(len(one.grid)), *of_grid, "-", "-")]
    for n in SIZES:
        at = min(n, len(one.random)) - 1  # of a short form's few trials
        accuracies = one.random.best_of(n), _band(one.random.best_test[:, at])
        chances = one.random.chance(n, one.best), one.test_chance(n)
        rows.append(
            ("random", str(n), *map(_spread, accuracies), *(f"{chance:.2f}" for chance in chances))
        )
    at = min(PAPER, len(one.grid)) - 1
    part = (_band(values[:, at]) for values in (one.grid.best_validation, one.grid.best_test))
    rows.append(("part of the grid", str(PAPER), *map(_spread, part), "-", "-"))
    titles = ("trials", "validation", "test", "no worse: validation", "test")
    return markdown.table((one.data, *titles), rows)


def _spread(band: tuple[float, float, float]) -> str:
    return f"{band[0]:.3f} ({band[1]:.3f}-{band[2]:.3f})"


def _matches(one: _Comparison) -> str:
    most, mean = len(one.random), one.random.mean_at(one.best)
    median, test = one.random.median_at(one.best), one.test_at()
    n_tied = int((one.grid.validation == one.best).sum())
    lacking = one.best - one.random.best_of(PAPER)[0]
    at = min(PAPER, len(one.grid)) - 1
    return (
        f"On {one.data} the mean of random search is no worse than the grid's best "
        f"{_at(mean, most)}, its median {_at(median, most)}, and its mean test accuracy no worse "
        f"than that of the grid's choice {_at(test, most)}"
        + (f" (the mean of the {n_tied} points that share the best)" if n_tied > 1 else "")
        + f". What {PAPER} trials lack in the mean is {lacking:.3f} on validation, "
        f"{lacking / one.standard_error():.1f} of its standard errors; as many points of the grid "
        f"itself lack {one.best - float(one.grid.best_validation[:, at].mean()):.3f}. The best "
        f"random trial of all has {one.random.validation.max():.3f}."
    )


def _at(n: int | None, most: int) -> str:
    return f"from {n} trials on" if n else f"at no number up to {most}"


def _on_noise(compared: Sequence[_Comparison]) -> str:
    errors = " and ".join(f"{one.standard_error():.3f} on {one.data}" for one in compared)
    return (
        f"The standard error of one validation accuracy at the grid's best is {errors}: what is "
        "best of many is so in part by luck, the more so the more trials there are, which is why "
        "the test accuracy of what was chosen is here too. Resamples know no better trial than "
        "the best one that there was, and only one set of random trials. In the picture lines are "
        f"means, bands go from 5 to 95 %, and the dotted line is at {PAPER} trials."
    )


def _summarize(compared: Sequence[_Comparison]) -> str:
    said = []
    for one in compared:
        at = one.random.mean_at(one.best)
        said.append(
            f"{one.data}: {PAPER} random trials are no worse than the grid's {len(one.grid)} with "
            f"probability {one.random.chance(PAPER, one.best):.2f} (validation accuracy "
            f"{one.random.best_of(PAPER)[0]:.3f} in the mean, the grid's {one.best:.3f}), in the "
            f"mean {_at(at, len(one.random))}"
        )
    return "; ".join(said)


def _draw(compared: Sequence[_Comparison]) -> bytes:
    drawn = pictures.figure(9, 6)
    axes = drawn.subplots(2, len(compared), sharex=True)
    for column, one in enumerate(compared):
        of_random = np.array([one.random.best_of(n) for n in range(1, len(one.random) + 1)])
        of_grid = _bands(one.grid.best_validation)
        _draw_bands(axes[0][column], [of_random, of_grid], one.best)
        _draw_bands(
            axes[1][column],
            [_bands(one.random.best_test), _bands(one.grid.best_test)],
            one.best_test,
        )
        legend = "" if column == 0 else None
        y = "validation accuracy of the best"
        pictures.label_axes(axes[0][column], one.data, "", y, legend)
        pictures.label_axes(axes[1][column], "", "trials", "test accuracy of the chosen one")
    return pictures.png(drawn)


def _draw_bands(ax: Any, bands: Sequence[Numbers], best: float) -> None:
    """Draw means and bands of random search and grid, and a line at the whole grid's best."""
    labels = ("random", "grid, in random order")
    for band, label, colour in zip(bands, labels, pictures.COLOURS, strict=False):
        x = np.arange(1, len(band) + 1)
        ax.plot(x, band[:, 0], color=colour, linewidth=1.2, label=label)
        ax.fill_between(x, band[:, 1], band[:, 2], color=colour, alpha=0.15, linewidth=0)
    ax.axhline(best, color="black", linewidth=0.6, label="whole grid")
    ax.axvline(PAPER, color=pictures.GREY, linewidth=0.6, linestyle=":")
    ax.set_xscale("log", base=2)
    ax.xaxis.set_major_formatter("{x:g}")
    ax.set_ylim(*_limits(bands))


def _bands(values: Numbers) -> Numbers:
    """Give mean and quantiles of all columns, in rows."""
    return np.array([_band(column) for column in values.T])


def _limits(bands: Sequence[Numbers]) -> tuple[float, float]:
    """Give limits to show what is there from four trials on; before that all is worse."""
    low = min(float(band[3:, 1].min()) for band in bands)
    high = max(float(band[:, 2].max()) for band in bands)
    margin = max(0.05 * (high - low), 1e-3)
    return low - margin, high + margin


EXPERIMENT = Experiment(
    name="search",
    title="Random search and a grid of seven hyper-parameters",
    claimed="random searches of 8 trials match or outperform grid searches of (on average) 100 "
    "trials",
    source="Bergstra and Bengio, Random search for hyper-parameter optimization, JMLR 13, 2012, "
    "section 2.4 and the caption of Figure 5, as quoted by H2O's documentation; on other data",
    runs=_runs,
    run=_run,
    section=_section,
    recipes=("bench/experiments/search.toml",),
)
