"""Results of a study: tables and files of trials, importances, best of n trials."""

from __future__ import annotations

import csv
import io
import json
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from optuna.exceptions import ExperimentalWarning
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.trial import FrozenTrial, TrialState

from xpnet.search.parameters import parameters, short_names
from xpnet.search.study import SearchError, Study, open_study, quiet, studies
from xpnet.spaces import Fixed
from xpnet.training.history import finite_or_none

__all__ = [
    "best_of",
    "best_so_far",
    "comparable_values",
    "importances",
    "matches_at",
    "result_files",
    "sampled_values",
    "summary",
    "summary_lines",
]

_FEWEST = 8  # trials needed to estimate importances
_BEST = 20  # fewest trials to count as the best; a smaller group is mostly noise


def importances(study: Study) -> dict[str, float]:
    """Estimate the importance of each hyper-parameter by PED-ANOVA.

    PED-ANOVA compares the distribution of a hyper-parameter among the best trials with its
    distribution among all trials. The best trials are the best tenth, but at least twenty trials,
    and at most half of them.

    Parameters
    ----------
    study : Study

    Returns
    -------
    dict of str to float
        Importances, which sum to 1, the largest first: tune the first ones first. Empty if there
        are fewer than eight finite results, or all results are equal. Optuna 4 leaves out
        hyper-parameters that do not exist in all trials; Optuna 5 includes them.

    References
    ----------
    Watanabe, Bansal & Hutter 2023, PED-ANOVA: Efficiently Quantifying Hyperparameter Importance in
    Arbitrary Subspaces, as implemented in Optuna.
    """
    values = [trial.values[0] for trial in study.complete()]
    values = [value for value in values if math.isfinite(value)]  # Optuna ignores the others
    if len(values) < _FEWEST or len(set(values)) < 2:
        return {}
    names = {p.label: name for name, p in parameters(study.space).items()}
    with quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        warnings.filterwarnings("error", "Target and region quantiles", UserWarning)
        try:
            evaluator = PedAnovaImportanceEvaluator(
                target_quantile=min(max(0.1, _BEST / len(values)), 0.5)
            )
            found = get_param_importances(study.optuna, evaluator=evaluator)
        except UserWarning:  # nearly all results are equal: there is no group of best trials
            return {}
    shares = {names[label]: float(share) for label, share in found.items()}
    varied = {k: v for k, v in shares.items() if not isinstance(study.space[k], Fixed)}
    is_told = math.isfinite(sum(varied.values())) and sum(varied.values()) > 0
    return varied if is_told else {}


def best_so_far(values: Sequence[float], *, is_maximised: bool) -> list[float]:
    """Return the running best of the values."""
    best = np.maximum if is_maximised else np.minimum
    found: list[float] = best.accumulate(np.asarray(values, dtype=np.float64)).tolist()
    return found


def best_of(
    values: Sequence[float], n: int, *, is_maximised: bool, quantiles: Sequence[float] = ()
) -> tuple[float, list[float]]:
    """Return the expected best of ``n`` trials, and quantiles of it.

    This is the best of ``n`` values drawn with replacement from ``values``: the limit of a
    bootstrap with many repetitions. With N values sorted from worst to best, the best of n is no
    better than the k-th with probability ``(k/N)^n``.

    Parameters
    ----------
    values : sequence of float
        Results of trials.
    n : int
        Number of trials to draw.
    is_maximised : bool
        Whether higher values are better.
    quantiles : sequence of float
        Quantiles to return, where 0 is the worst.

    Returns
    -------
    mean : float
        Mean of the best of ``n`` trials.
    quantiles : list of float
        The requested quantiles.
    """
    order = np.sort(np.asarray(values, dtype=np.float64))
    order = order if is_maximised else order[::-1]
    # The probabilities that the best of n draws is no better than the 1st, 2nd, ... value.
    below = (np.arange(1, len(order) + 1) / len(order)) ** n
    weights = np.diff(below, prepend=0.0)
    counts = weights > 0  # 0 times infinity is nan
    mean = float(weights[counts] @ order[counts])
    return mean, [float(order[np.searchsorted(below, q)]) for q in quantiles]


def matches_at(values: Sequence[float], other: float, *, is_maximised: bool) -> int | None:
    """Return the smallest n for which the mean best of n trials is at least as good as ``other``.

    Returns
    -------
    int or None
        None if n would be greater than the number of values.
    """
    for n in range(1, len(values) + 1):
        mean, _ = best_of(values, n, is_maximised=is_maximised)
        if mean >= other if is_maximised else mean <= other:
            return n
    return None


def summary(study: Study) -> dict[str, Any]:
    """Return the results of a study as plain data for JSON.

    Numbers that are not finite, which JSON does not have, are None.
    """
    ranked = study.ranked()
    found: dict[str, Any] = finite_or_none(
        {
            "study": study.name,
            "recipe": study.recipe.name,
            "objective": study.settings.objective,
            "direction": "maximise" if study.is_maximised else "minimise",
            "sampler": study.settings.sampler,
            "pruner": study.settings.pruner,
            "seed": study.settings.seed,
            "refines": study.refines or None,
            "space": study.space.to_tables(),
            "best": ranked[0].number if ranked else None,
            "importances": importances(study),
            "trials": [_row(study, trial) for trial in study.trials()],
        }
    )
    return found


def _row(study: Study, trial: FrozenTrial) -> dict[str, Any]:
    settings = study.settings_of(trial)
    first = {"origin": study.origin} if trial.number == 0 and study.origin else {}
    return {
        "number": trial.number,
        "state": trial.state.name.lower(),
        "value": trial.value if trial.state == TrialState.COMPLETE else None,
        **first,
        "settings": settings,
        **trial.user_attrs,
    }


def result_files(study: Study) -> dict[str, bytes]:
    """Return the results of a study as files: trials as JSON and CSV, the best one as a recipe.

    Returns
    -------
    dict of str to bytes
        Contents by file name; without ``best.toml`` if no trial is complete.
    """
    found = summary(study)
    files = {
        "trials.json": (json.dumps(found, indent=1, allow_nan=False) + "\n").encode(),
        "trials.csv": _csv(found, list(study.space)).encode(),
    }
    ranked = study.ranked()
    if ranked:
        files["best.toml"] = study.recipe_of(ranked[0]).to_toml().encode()
    return files


def _csv(found: Mapping[str, Any], names: Sequence[str]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    more = ("validation_accuracy", "validation_cost", "train_cost", "epochs", "seconds")
    writer.writerow(("number", "state", "value", *names, *more, "parameters"))
    for trial in found["trials"]:
        settings = [trial["settings"].get(name) for name in names]
        facts = [trial.get(name) for name in (*more, "parameters")]
        writer.writerow((trial["number"], trial["state"], trial["value"], *settings, *facts))
    return text.getvalue()


def summary_lines(study: Study, shares: Mapping[str, float]) -> Iterator[str]:
    """Summarise a study in lines: numbers of trials, the recipe's own result, importances.

    Parameters
    ----------
    study : Study
    shares : mapping of str to float
        The study's :func:`importances`.

    Yields
    ------
    str
        A line of text.
    """
    trials = study.trials()
    states = [trial.state.name.lower() for trial in trials]
    counts = [f"{states.count(state)} {state}" for state in dict.fromkeys(states)]
    diverged = sum("diverged" in trial.user_attrs for trial in trials)
    yield (
        f"{len(trials)} trial{'' if len(trials) == 1 else 's'}: {', '.join(counts)}"
        + (f", {diverged} of them diverged" if diverged else "")
    )
    if study.origin and trials and trials[0].values:
        whose = (
            "the recipe's own settings"
            if study.origin == "recipe"
            else f"the best of {study.origin}"
        )
        yield f"* {whose}: {study.objective} {trials[0].values[0]:.4f}"
    reasons = [t.user_attrs["reason"] for t in trials if "reason" in t.user_attrs]
    if reasons:
        yield f"last failure: {reasons[-1]}"
    if shares:
        names = short_names(list(study.space))
        listed = ", ".join(f"{names[name]} {share:.0%}" for name, share in shares.items())
        yield f"importance: {listed}"
    if not study.ranked():
        yield "no trial is complete yet"


def sampled_values(study: Study) -> list[float]:
    """Return the results of the points that the sampler chose, in the order of the trials.

    A pruned trial counts with its last value.
    """
    first = 1 if study.first is not None else 0
    return [t.values[0] for t in study.trials()[first:] if t.values is not None]


def comparable_values(study: Study) -> dict[str, list[float]]:
    """Return the results of a study, and of others in its storage with equal objective and data.

    Returns
    -------
    dict of str to list of float
        :func:`sampled_values` by the names of the studies, this study first.
    """
    values = {study.name: sampled_values(study)}
    for name in studies(study.storage):
        try:
            other = study if name == study.name else open_study(study.storage, name)
        except SearchError:  # from another version, or with custom components
            continue
        same = other.settings.objective == study.settings.objective
        if same and other.optuna.user_attrs.get("data") == study.optuna.user_attrs.get("data"):
            values[name] = sampled_values(other)
    return values
