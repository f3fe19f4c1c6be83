"""Bergstra & Bengio 2012: random search against grid search, by the number of trials."""

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

# Only functions import xpnet.search: it needs Optuna, which no other experiment needs.

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
PAPER = 8  # trials that are enough, by the claim
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
        # The validation accuracy equals that of Recipe.validate, which a search maximises; the
        # test accuracy is for the last column.
        try:
            result = recipe.changed(recipe.space.resolve(settings)).run(data)
            accuracies = (
                float(result.history.reports[-1].validation_accuracy or 0.0),
                result.test_accuracy,
            )
        except DivergenceError:
            accuracies = (0.0, 0.0)
        # Seconds are kept for readers of the outcomes.
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
    """Trials of one sampler on one data set, and the best of n of them.

    Attributes
    ----------
    settings : list of dict
    validation, test : array
        Accuracies, one for each trial.
    best_validation, best_test : array
        Accuracies of the trial that validation chooses among n, the first of equals. Each row is a
        possible order of the trials, each column an n. Trials of a grid occur once in each order;
        those of a random search are drawn with replacement.
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
        """Return the probability that the best of n random trials is no worse, on validation."""
        return 1.0 - float((self.validation < accuracy).mean()) ** n

    def median_at(self, accuracy: float) -> int | None:
        """Return the smallest n at which that probability is at least a half."""
        sizes = range(1, len(self) + 1)
        return next((n for n in sizes if self.chance(n, accuracy) >= 0.5), None)

    def mean_at(self, accuracy: float) -> int | None:
        """Return the smallest n at which the mean best of n random trials is no worse."""
        from xpnet.search.results import matches_at

        return matches_at(self.validation.tolist(), accuracy, is_maximised=True)

    def best_of(self, n: int) -> tuple[float, float, float]:
        """Return the bootstrap's exact limit of the best validation accuracy of n trials."""
        from xpnet.search.results import best_of

        mean, (low, high) = best_of(self.validation.tolist(), n, is_maximised=True, quantiles=BAND)
        return mean, low, high


def _band(values: Numbers) -> tuple[float, float, float]:
    """Return mean and quantiles of a column of resamples."""
    low, high = np.quantile(values, BAND)
    return float(values.mean()), float(low), float(high)


@dataclass(frozen=True)
class _Comparison:
    """Random search and grid search on one data set."""

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
        """Test accuracy of the best point, or the mean of several."""
        return float(self.grid.test[self.grid.validation == self.best].mean())

    def test_chance(self, n: int) -> float:
        """Return the share of resamples in which n random trials test no worse than the grid."""
        column = self.random.best_test[:, min(n, len(self.random)) - 1]
        return float((column >= self.best_test).mean())

    def test_at(self) -> int | None:
        """Return the smallest n at which random search tests no worse than the grid on average."""
        reached = np.flatnonzero(self.random.best_test.mean(axis=0) >= self.best_test)
        return int(reached[0]) + 1 if len(reached) else None

    def standard_error(self) -> float:
        """Return the standard error of the grid's best validation accuracy."""
        return math.sqrt(self.best * (1 - self.best) / self.n_samples[1])


def _importances(space: Space, search: _Search) -> dict[str, float]:
    """Estimate importances as xpnet's studies do."""
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
        "The tables have the best validation accuracy of n trials, and the test accuracy of the "
        "trial that reached it: the mean over possible searches, and in brackets their range from "
        "5 to 95 %. For the validation accuracy of random search we use the exact limit of the "
        "bootstrap: the best of n trials is no better than the k-th worst of N with probability "
        f"(k/N)^n. Test accuracies come from {N_RESAMPLES:,} resamples with a fixed seed, the "
        f"grid's from {N_RESAMPLES:,} random orders of its points. *No worse* is the probability "
        "that random search is no worse than the whole grid.",
    ]
    for one in compared:
        lines += ["", *_table(one), "", _matches(one)]
    lines += ["", _on_noise(compared), "", "![Best of n trials](search.png)"]
    return Section(_summarize(compared), lines, {"search.png": _draw(compared)})


def _set_up(compared: Sequence[_Comparison]) -> list[str]:
    sizes = ", and ".join(
        f"{one.n_samples[0]:,} training, {one.n_samples[1]:,} validation and "
        f"{one.n_samples[2]:,} test images of {one.data}"
        for one in compared
    )
    n_failed = sum(
        int((search.validation == 0).sum()) for one in compared for search in (one.random, one.grid)
    )
    failed = f"{n_failed} did" if n_failed else "none did"
    first = compared[0]
    return [
        f"The network has one hidden layer, trained by gradient descent with momentum for 30 "
        f"epochs on digits and 15 on Fashion-MNIST. There are {sizes}. We compare "
        f"{len(first.random)} random trials with a grid of {len(first.grid)} points. The grid "
        "takes the centres of equal parts of each scale: three for the learning rate, two for "
        "every other hyper-parameter. Six of the hyper-parameters and their ranges are the paper's "
        "(from memory, not verified; there L2 is off in half of the trials), and momentum replaces "
        "its annealing. They were chosen once, before any trial. All trials have the same number "
        "of epochs and start from the same random numbers. A trial that diverges counts as "
        f"accuracy 0; {failed}."
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
        "Importance is computed by PED-ANOVA from the random trials: how much the best tenth of "
        "them differs from all trials in each hyper-parameter, as shares. "
        + (f"The shares: {'; '.join(said)}. " if said else "")
        + f"A grid wastes trials on the unimportant ones: its {len(grid)} points have "
        f"{n_values[0]} learning rates, where {len(random)} random trials have {n_values[1]}. "
        "Points that differ only in L2 have median differences in validation accuracy of "
        + " and ".join(f"{apart:.4f} on {data}" for data, apart in pairs)
        + ", almost as if the same trial ran twice."
    ]


def _apart(search: _Search, name: str) -> float:
    """Return the median difference of trials that differ only in one hyper-parameter."""
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
        f"{_at(mean, most)}, its median {_at(median, most)}. Its mean test accuracy is no worse "
        f"than that of the grid's choice {_at(test, most)}"
        + (f" (the mean of the {n_tied} points that share the best)" if n_tied > 1 else "")
        + f". With {PAPER} random trials the mean validation accuracy is {lacking:.3f} below the "
        f"grid's best, or {lacking / one.standard_error():.1f} standard errors; with {PAPER} "
        f"points of the grid it is {one.best - float(one.grid.best_validation[:, at].mean()):.3f} "
        f"below. The best of all random trials has {one.random.validation.max():.3f}."
    )


def _at(n: int | None, most: int) -> str:
    return f"from {n} trials on" if n else f"for no number of trials up to {most}"


def _on_noise(compared: Sequence[_Comparison]) -> str:
    errors = " and ".join(f"{one.standard_error():.3f} on {one.data}" for one in compared)
    return (
        f"The standard error of one validation accuracy at the grid's best is {errors}. The best "
        "of many trials owes part of its accuracy to luck, and more so with more trials, so the "
        "tables also have the test accuracy. Resampling cannot give a trial better than the best "
        "observed, and it knows only one set of random trials. In the picture, lines are means, "
        f"bands go from 5 to 95 %, and the dotted line is at {PAPER} trials."
    )


def _summarize(compared: Sequence[_Comparison]) -> str:
    said = []
    for one in compared:
        at = one.random.mean_at(one.best)
        said.append(
            f"{one.data}: {PAPER} random trials are no worse than the grid's {len(one.grid)} with "
            f"probability {one.random.chance(PAPER, one.best):.2f} (mean validation accuracy "
            f"{one.random.best_of(PAPER)[0]:.3f}, the grid's {one.best:.3f}), and on average "
            f"{_at(at, len(one.random))}"
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
    """Return mean and quantiles of all columns, in rows."""
    return np.array([_band(column) for column in values.T])


def _limits(bands: Sequence[Numbers]) -> tuple[float, float]:
    """Return limits that show everything from four trials on."""
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
