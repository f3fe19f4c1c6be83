"""An Optuna study together with its recipe, scales, seed and sampler."""

from __future__ import annotations

import contextlib
import functools
import json
import math
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import BaseStorage, JournalStorage, RDBStorage, get_storage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import DBAPIError

from xpnet.environment import versions
from xpnet.recipe import Recipe, RecipeError
from xpnet.search.parameters import settings_of
from xpnet.search.sampling import PRUNERS, SAMPLERS
from xpnet.spaces import Choice, Fixed, Space

__all__ = [
    "OBJECTIVES",
    "SearchError",
    "Settings",
    "Study",
    "mask_passwords",
    "open_storage",
    "open_study",
    "own_settings",
    "quiet",
    "storage_reason",
    "studies",
]

OBJECTIVES = ("validation_accuracy", "validation_cost")
_MOST_POINTS = 100_000  # of a grid
_TRIES = 10  # of what another process may be in the middle of
_PAUSE = 0.25  # seconds; more than from a look at a study to its attributes
_ATTRIBUTE = "xpnet"  # of a study: all that is xpnet's


class SearchError(ValueError):
    """A search cannot be; the message says what and why."""


@dataclass(frozen=True)
class Settings:
    """How a study looks for hyper-parameters.

    Attributes
    ----------
    sampler : {"random", "grid", "quasi-random", "tpe"}
    pruner : {"none", "median", "halving", "hyperband"}
        Which trials are ended before their last epoch; see :func:`.sampling.make_pruner`.
    objective : {"validation_accuracy", "validation_cost"}
        What trials are told apart by: the highest accuracy, or R2 under a loss for numbers; or the
        lowest mean loss.
    seed : int
        Of the points. What trials themselves draw follows from the recipe's seeds.
    lease : float
        Seconds without a sign of life after which another process's trial is taken up; at least 2.
        A journal that is being written to when a process dies is locked for 30.

    Raises
    ------
    SearchError
        If one of them is something else.
    """

    sampler: str = "random"
    pruner: str = "none"
    objective: str = "validation_accuracy"
    seed: int = 0
    lease: float = 60.0

    def __post_init__(self) -> None:
        known = {"sampler": SAMPLERS, "pruner": PRUNERS, "objective": OBJECTIVES}
        for name, words in known.items():
            if (came := getattr(self, name)) not in words:
                raise SearchError(f"{name} must be one of {', '.join(words)}, got {came!r}")
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or self.seed < 0:
            raise SearchError(f"seed must be an integer of at least 0, got {self.seed!r}")
        is_number = isinstance(self.lease, (int, float)) and not isinstance(self.lease, bool)
        if not is_number or not 2 <= self.lease < math.inf:
            raise SearchError(f"lease must be a number of seconds, 2 at least, got {self.lease!r}")


@dataclass(frozen=True, eq=False)
class Study:
    """A study of Optuna's, and what it says of itself.

    Attributes
    ----------
    optuna : optuna.Study
    storage : BaseStorage
    recipe : Recipe
        With its table ``[search]``.
    settings : Settings
    first : dict or None
        Settings of trial 0, where they are not the sampler's: those of the recipe itself, or the
        best of the study that this one refines.
    origin : str
        Where ``first`` is from; the empty string without.
    refines : str
        The name of another study, or the empty string.
    """

    optuna: optuna.Study
    storage: BaseStorage
    recipe: Recipe
    settings: Settings
    first: dict[str, Any] | None
    origin: str
    refines: str

    @property
    def name(self) -> str:
        """What the study is called in its storage."""
        return self.optuna.study_name

    @functools.cached_property
    def id(self) -> int:
        """What the storage calls it."""
        return self.storage.get_study_id_from_name(self.name)

    @functools.cached_property
    def space(self) -> Space:
        """The recipe's."""
        return self.recipe.space

    @property
    def objective(self) -> str:
        """What trials are told apart by, as it is called: R2 under a loss for numbers."""
        score = self.recipe.settings.loss.score_name
        return self.settings.objective.replace("accuracy", score)

    @property
    def is_maximised(self) -> bool:
        """Whether higher is better."""
        return self.optuna.direction == StudyDirection.MAXIMIZE

    def total(self, asked: int | None) -> int | None:
        """Give how many trials there are to be: of a grid no more than it has points."""
        if self.settings.sampler != "grid":
            return asked
        n_points = len(self.space.grid()) + (self.first is not None)
        return n_points if asked is None else min(asked, n_points)

    def trials(self) -> list[FrozenTrial]:
        """List the trials as they are now, by number; not to be changed."""
        return self.storage.get_all_trials(self.id, deepcopy=False)

    def complete(self) -> list[FrozenTrial]:
        """List the trials that came to their end, by number."""
        return [trial for trial in self.trials() if trial.state == TrialState.COMPLETE]

    def ranked(self, trials: Sequence[FrozenTrial] | None = None) -> list[FrozenTrial]:
        """List the trials that came to their end, the best first; of equals the earlier one.

        Parameters
        ----------
        trials : sequence of FrozenTrial, optional
            By default those that there are now.
        """
        trials = self.trials() if trials is None else trials
        complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
        sign = -1.0 if self.is_maximised else 1.0

        def key(trial: FrozenTrial) -> tuple[float, int]:
            return sign * trial.values[0], trial.number

        return sorted(complete, key=key)

    def settings_of(self, trial: FrozenTrial) -> dict[str, Any]:
        """Give a trial's point of the space."""
        return settings_of(self.space, trial.params)

    def recipe_of(self, trial: FrozenTrial) -> Recipe:
        """Give the recipe that a trial ran."""
        return self.recipe.changed(self.space.resolve(self.settings_of(trial)))

    def check_data(self, found: str) -> None:
        """See that data are those of the study, or make them so, with a worker's fingerprint.

        Raises
        ------
        SearchError
            If they are others.
        """
        known = self.optuna.user_attrs.get("data")
        if known is None:
            self.optuna.set_user_attr("data", found)
        elif known != found:
            raise SearchError(
                "the data are not those of the study, whose results would not compare: training or "
                "validation samples or their labels differ"
            )


def open_storage(where: str | os.PathLike[str]) -> BaseStorage:
    """Open a storage of Optuna's.

    Parameters
    ----------
    where : str or path
        A file, which becomes a journal, to be shared by processes and by machines that share the
        folder; or what Optuna's RDB storage takes: ``sqlite:///study.db``,
        ``postgresql://user:password@host/name``.

    Returns
    -------
    BaseStorage

    Raises
    ------
    SearchError
        If it cannot be opened.
    """
    text = os.fspath(where)
    if not text:
        raise SearchError("storage must be a file or a URL, got an empty string")
    try:
        if "://" in text:
            return _open_database(text)
        Path(text).parent.mkdir(parents=True, exist_ok=True)
        _check_journal(text)
        # Links, which are Optuna's locks and hold on every NFS, take rights on Windows.
        lock = JournalFileOpenLock(text) if os.name == "nt" else None
        return JournalStorage(JournalFileBackend(text, lock_obj=lock))
    except SearchError:
        raise
    except Exception as error:  # whatever SQLAlchemy and its drivers make of a URL
        reason = mask_passwords(" ".join(str(error).split()))
        raise SearchError(
            f"storage {mask_passwords(text)!r:.200} cannot be opened: {reason:.300}"
        ) from error


def storage_reason(error: Exception) -> str:
    """Say in one line what a database, or a disk, has against it, without passwords."""
    return f"{mask_passwords(' '.join(str(error.__cause__ or error).split())):.300}"


def mask_passwords(text: str) -> str:
    """Leave out passwords of URLs."""
    text = re.sub(r"(://[^:/@]*):[^/]*@", r"\1:***@", text)
    return re.sub(r"(?i)(passw(?:or)?d=)[^&\s]*", r"\1***", text)


def _open_database(url: str) -> BaseStorage:
    """Open a database; where several processes find it empty at once, one makes its tables."""
    connect: Callable[[], BaseStorage] = functools.partial(get_storage, url)
    if url.startswith("sqlite:"):  # which gives up after five seconds in which others write
        engine = {"connect_args": {"timeout": 60}}
        connect = functools.partial(RDBStorage, url, engine_kwargs=engine)
    for _ in range(_TRIES):
        with contextlib.suppress(DBAPIError):
            return connect()
        time.sleep(0.3)
    return connect()


def _check_journal(path: str) -> None:
    """Refuse a file that is no journal, or one that ends in the middle of a line.

    Optuna would append to either, and nothing could read it then.
    """
    for left in range(_TRIES, -1, -1):
        try:
            with Path(path).open("rb") as file:
                start = file.read(200)
                file.seek(0, os.SEEK_END)
                file.seek(max(file.tell() - 1, 0))
                end = file.read(1)
        except FileNotFoundError:
            return
        if start and not start.startswith(b'{"op_code"'):
            raise SearchError(f"storage {path!r:.200} is no journal of Optuna's, but another file")
        if end in (b"", b"\n"):
            return
        if left:  # perhaps it is being written
            time.sleep(0.1)
    raise SearchError(
        f"storage {path!r:.200} ends in the middle of a line, as a disk that was full or a machine "
        "that died may leave it: take the last line away, and the trial that it was of is run again"
    )


def open_study(
    storage: BaseStorage,
    name: str,
    recipe: Recipe | None = None,
    *,
    first: Mapping[str, Any] | None = None,
    origin: str = "",
    refines: str = "",
    **settings: Any,
) -> Study:
    """Open a study, or begin it.

    Parameters
    ----------
    storage : BaseStorage
    name : str
    recipe : Recipe, optional
        With a table ``[search]``. Without, the study must be there.
    first, origin, refines
        See :class:`Study`; they are read where a study begins.
    **settings
        Those of :class:`Settings`. A study that is there has its own, and those that are given must
        be the same; None stands for whatever they are.

    Returns
    -------
    Study

    Raises
    ------
    SearchError
        If there is none of that name, or it is another's.
    RecipeError
        If the recipe has no table ``[search]``.
    """
    given = {key: value for key, value in settings.items() if value is not None}
    try:
        found = storage.get_study_user_attrs(storage.get_study_id_from_name(name))
    except KeyError:
        found = {}
    if _ATTRIBUTE not in found:
        if recipe is None:
            raise SearchError(_unknown_study(storage, name))
        found = _begin(storage, name, recipe, Settings(**given), first, origin, refines)
    return _read(storage, name, found[_ATTRIBUTE], recipe, given)


def own_settings(recipe: Recipe) -> dict[str, Any] | None:
    """Give the settings that a recipe itself has in its space; None where it lies outside.

    What the space fixes is as it says, and the rest what the recipe then has.

    Parameters
    ----------
    recipe : Recipe
        With a table ``[search]``.
    """
    space, plain = recipe.space, recipe.changed({})
    settings: dict[str, Any] = {}
    for name, scale in space.items():
        if not space.exists(name, settings):
            continue
        if isinstance(scale, Choice):
            same = [s for s in scale.settings if _has_value(plain, name, scale.value(s))]
            found = same[0] if same else None
        elif isinstance(scale, Fixed):
            found = scale.constant
            plain = plain.changed({name: found})
        else:
            found = _value_at(plain.values, name)
        if found is None or not scale.contains(found):
            return None
        settings[name] = found
    return settings


def _has_value(recipe: Recipe, path: str, value: Any) -> bool:
    """Tell whether a value would change nothing in a recipe."""
    return recipe.changed({path: value}).values == recipe.values


def _value_at(values: Any, path: str) -> Any:
    """Give what stands under a path; None where there is nothing."""
    for word in path.split("."):
        if isinstance(values, list) and word.isdigit() and int(word) < len(values):
            values = values[int(word)]
        elif isinstance(values, dict) and word in values:
            values = values[word]
        else:
            return None
    return values


def _unknown_study(storage: BaseStorage, name: str) -> str:
    names = ", ".join(study.study_name for study in storage.get_all_studies()) or "none"
    return f"there is no study {name!r} of xpnet's in the storage, which has {names}"


def studies(storage: BaseStorage) -> list[str]:
    """List the names of xpnet's studies in a storage."""
    return [
        study.study_name for study in storage.get_all_studies() if _ATTRIBUTE in study.user_attrs
    ]


def _begin(
    storage: BaseStorage,
    name: str,
    recipe: Recipe,
    settings: Settings,
    first: Mapping[str, Any] | None,
    origin: str,
    refines: str,
) -> dict[str, Any]:
    """Make a study, unless another process was faster, and give its attributes."""
    n_points = math.prod(len(scale.grid()) for scale in recipe.space.values())
    if settings.sampler == "grid" and n_points > _MOST_POINTS:
        raise SearchError(
            f"the grid must have at most {_MOST_POINTS:,} points, got {n_points:,}: fewer "
            "hyper-parameters, or points = 2, make it smaller"
        )
    is_accuracy = settings.objective == "validation_accuracy"
    direction = StudyDirection.MAXIMIZE if is_accuracy else StudyDirection.MINIMIZE
    own = {
        "recipe": recipe.name,
        "values": recipe.values,
        "settings": vars(settings),
        "first": None if first is None else dict(first),
        "origin": origin,
        "refines": refines,
        "versions": versions(),
    }
    with quiet():
        study = optuna.create_study(
            storage=storage, study_name=name, direction=direction, load_if_exists=True
        )
    is_ours = study.directions == [direction] and not study.get_trials(deepcopy=False)
    if _ATTRIBUTE not in study.user_attrs and not is_ours:
        raise SearchError(f"the study {name!r} was not made by xpnet")
    if _ATTRIBUTE not in study.user_attrs:
        study.set_user_attr(_ATTRIBUTE, json.loads(json.dumps(own)))
        time.sleep(_PAUSE)  # of several that begin it, what the last one has written is what holds
    return study.user_attrs


def _read(
    storage: BaseStorage,
    name: str,
    own: Mapping[str, Any],
    recipe: Recipe | None,
    given: Mapping[str, Any],
) -> Study:
    """Take what a study says, and see that it is the one that is meant."""
    settings = Settings(**own["settings"])
    for key, value in given.items():
        if value != getattr(settings, key):
            raise SearchError(
                f"the study {name!r} has {key} {getattr(settings, key)}, got {value}: begin another"
                " by another name"
            )
    try:
        kept = Recipe(own["recipe"], own["values"]).changed({}, search=True)
    except RecipeError as error:
        raise SearchError(f"the study {name!r} cannot be read: {error}") from error
    if recipe is not None:
        said, meant = (json.loads(json.dumps(one.values)) for one in (kept, recipe))
        if own["refines"]:  # the scales are its own
            said, meant = ({k: v for k, v in one.items() if k != "search"} for one in (said, meant))
        differing = _difference(said, meant)
        if differing is not None:
            raise SearchError(
                f"the study {name!r} was begun with another recipe: {differing}; begin another by "
                "another name"
            )
    with quiet():
        study = optuna.load_study(study_name=name, storage=storage)
    first = own["first"]
    return Study(study, storage, kept, settings, first, own["origin"], own["refines"])


def _difference(one: Any, other: Any, path: str = "") -> str | None:
    """Say where two recipes differ first; None if nowhere."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in dict.fromkeys([*one, *other]):
            within = f"{path}.{key}" if path else key
            if key not in one or key not in other:
                there = "has" if key in one else "has not"
                return f"it {there} {within}"
            found = _difference(one[key], other[key], within)
            if found is not None:
                return found
        return None
    return None if one == other else f"{path} was {one!r:.100}, not {other!r:.100}"


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep Optuna from logging what is no warning: xpnet prints its own lines."""
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(max(level, optuna.logging.WARNING))
    try:
        yield
    finally:
        optuna.logging.set_verbosity(level)
