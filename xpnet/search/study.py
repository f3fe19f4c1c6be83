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

from xpnet.data.checks import unknown_name
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
_TRIES = 10  # when another process may be writing
_PAUSE = 0.25  # seconds; longer than from reading a study to writing its attributes
_ATTRIBUTE = "xpnet"  # of a study: everything that xpnet stores about it


class SearchError(ValueError):
    """A search is impossible or has failed; the message says why."""


@dataclass(frozen=True)
class Settings:
    """Settings of a study.

    Attributes
    ----------
    sampler : {"random", "grid", "quasi-random", "tpe"}
        How hyper-parameters are chosen; see :func:`.sampling.design`.
    pruner : {"none", "median", "halving", "hyperband"}
        Which trials are stopped early; see :func:`.sampling.make_pruner`.
    objective : {"validation_accuracy", "validation_cost"}
        Maximise the accuracy (R2 with a regression loss), or minimise the mean loss.
    seed : int
        Seed of the sampler. Random numbers within trials depend on the recipe's seeds.
    lease : float
        Seconds, at least 2, after which a trial is restarted if its process does not renew its
        lease. If a process dies while it writes to a journal, the journal stays locked for 30
        seconds.

    Raises
    ------
    SearchError
        If a setting is invalid.
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
                raise SearchError(unknown_name(name, came, words))
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or self.seed < 0:
            raise SearchError(f"seed must be an integer of at least 0, got {self.seed!r}")
        is_number = isinstance(self.lease, (int, float)) and not isinstance(self.lease, bool)
        if not is_number or not 2 <= self.lease < math.inf:
            raise SearchError(f"lease must be a number >= 2 in seconds, got {self.lease!r}")


@dataclass(frozen=True, eq=False)
class Study:
    """An Optuna study with its recipe and settings.

    Attributes
    ----------
    optuna : optuna.Study
        The Optuna study.
    storage : BaseStorage
        Storage of the study.
    recipe : Recipe
        Recipe with a table ``[search]``.
    settings : Settings
        Sampler, pruner, objective, seed and lease.
    first : dict or None
        Settings of trial 0 if the sampler does not choose them: those of the recipe itself, or the
        best of the study that this one refines.
    origin : str
        Origin of ``first``: ``"recipe"`` or the name of a study; empty without ``first``.
    refines : str
        Name of the study that this one refines, or an empty string.
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
        """The name of the study in its storage."""
        return self.optuna.study_name

    @functools.cached_property
    def id(self) -> int:
        """The storage's id of the study."""
        return self.storage.get_study_id_from_name(self.name)

    @functools.cached_property
    def space(self) -> Space:
        """The search space of the recipe."""
        return self.recipe.space

    @property
    def objective(self) -> str:
        """The name of the objective, with R2 in place of accuracy for a regression loss."""
        score = self.recipe.settings.loss.score_name
        return self.settings.objective.replace("accuracy", score)

    @property
    def is_maximised(self) -> bool:
        """Whether higher is better."""
        return self.optuna.direction == StudyDirection.MAXIMIZE

    def total(self, asked: int | None) -> int | None:
        """Return the target number of trials: for a grid, at most its number of points."""
        if self.settings.sampler != "grid":
            return asked
        n_points = len(self.space.grid()) + (self.first is not None)
        return n_points if asked is None else min(asked, n_points)

    def trials(self) -> list[FrozenTrial]:
        """Return the current trials, by number; do not modify them."""
        return self.storage.get_all_trials(self.id, deepcopy=False)

    def complete(self) -> list[FrozenTrial]:
        """Return the complete trials, by number."""
        return [trial for trial in self.trials() if trial.state == TrialState.COMPLETE]

    def ranked(self, trials: Sequence[FrozenTrial] | None = None) -> list[FrozenTrial]:
        """Return the complete trials, the best first, and of equal trials the earlier first.

        Parameters
        ----------
        trials : sequence of FrozenTrial, optional
            Trials to rank; by default the current ones.

        Returns
        -------
        list of FrozenTrial
        """
        trials = self.trials() if trials is None else trials
        complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
        sign = -1.0 if self.is_maximised else 1.0

        def key(trial: FrozenTrial) -> tuple[float, int]:
            return sign * trial.values[0], trial.number

        return sorted(complete, key=key)

    def settings_of(self, trial: FrozenTrial) -> dict[str, Any]:
        """Return a trial's point of the space."""
        return settings_of(self.space, trial.params)

    def recipe_of(self, trial: FrozenTrial) -> Recipe:
        """Return the recipe of a trial."""
        return self.recipe.changed(self.space.resolve(self.settings_of(trial)))

    def check_data(self, found: str) -> None:
        """Check a worker's data against the study's, or record them if they are the first.

        Parameters
        ----------
        found : str
            Fingerprint of the worker's data.

        Raises
        ------
        SearchError
            If the data differ from the study's.
        """
        known = self.optuna.user_attrs.get("data")
        if known is None:
            self.optuna.set_user_attr("data", found)
        elif known != found:
            raise SearchError(
                f"the data differ from those of the study {self.name!r}, in training or validation "
                "samples or labels: results would not be comparable"
            )


def open_storage(where: str | os.PathLike[str]) -> BaseStorage:
    """Open an Optuna storage.

    Parameters
    ----------
    where : str or path
        Path of a journal file, which processes and machines that can access the folder may share;
        or a URL of Optuna's RDB storage, such as ``sqlite:///study.db`` or
        ``postgresql+psycopg://user:password@host/name``, which needs the extra ``postgresql``.

    Returns
    -------
    BaseStorage

    Raises
    ------
    SearchError
        If the storage cannot be opened.
    """
    text = os.fspath(where)
    if not text:
        raise SearchError("storage must be a file or a URL, got an empty string")
    try:
        if "://" in text:
            return _open_database(text)
        Path(text).parent.mkdir(parents=True, exist_ok=True)
        _check_journal(text)
        # By default Optuna locks by links, which work on every NFS but need rights on Windows.
        lock = JournalFileOpenLock(text) if os.name == "nt" else None
        return JournalStorage(JournalFileBackend(text, lock_obj=lock))
    except SearchError:
        raise
    except Exception as error:  # SQLAlchemy and its drivers raise many kinds
        reason = mask_passwords(" ".join(str(error).split()))
        if isinstance(error, ImportError) and text.startswith("postgresql"):
            reason = (
                "its driver is not installed; type: pip install 'psycopg[binary]', and begin the "
                "URL with postgresql+psycopg://"
            )
        raise SearchError(
            f"cannot open the storage {mask_passwords(text)!r:.200}: {reason:.300}"
        ) from error


def storage_reason(error: Exception) -> str:
    """Return the cause of an error of the database or the disk, in one line without passwords."""
    return f"{mask_passwords(' '.join(str(error.__cause__ or error).split())):.300}"


def mask_passwords(text: str) -> str:
    """Replace passwords in URLs by asterisks."""
    text = re.sub(r"(://[^:/@]*):[^/]*@", r"\1:***@", text)
    return re.sub(r"(?i)(passw(?:or)?d=)[^&\s]*", r"\1***", text)


def _open_database(url: str) -> BaseStorage:
    """Open a database; retry if another process is creating its tables."""
    connect: Callable[[], BaseStorage] = functools.partial(get_storage, url)
    if url.startswith("sqlite:"):  # by default gives up after waiting 5 seconds for a lock
        engine = {"connect_args": {"timeout": 60}}
        connect = functools.partial(RDBStorage, url, engine_kwargs=engine)
    for _ in range(_TRIES):
        with contextlib.suppress(DBAPIError):
            return connect()
        time.sleep(0.3)
    return connect()


def _check_journal(path: str) -> None:
    """Raise if a file is not a journal, or ends in the middle of a line.

    Optuna would append to it, and the result would be unreadable.
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
            raise SearchError(f"storage must be an Optuna journal, got another file: {path!r:.200}")
        if end in (b"", b"\n"):
            return
        if left:  # another process may be writing
            time.sleep(0.1)
    raise SearchError(
        f"storage {path!r:.200} ends in the middle of a line, perhaps because of a full disk or a "
        "crash: delete the last line, and its trial will run again"
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
    """Open a study, or create it.

    Parameters
    ----------
    storage : BaseStorage
        Storage; see :func:`open_storage`.
    name : str
        Name of the study.
    recipe : Recipe, optional
        Recipe with a table ``[search]``. Without it, the study must exist.
    first, origin, refines
        See :class:`Study`; used only to create a study.
    **settings
        Fields of :class:`Settings`. For an existing study they must equal its settings; None, or a
        missing field, accepts any.

    Returns
    -------
    Study

    Raises
    ------
    SearchError
        If the study does not exist and there is no recipe, or if the study has another recipe or
        other settings.
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
        found = _create_study(storage, name, recipe, Settings(**given), first, origin, refines)
    return _load_study(storage, name, found[_ATTRIBUTE], recipe, given)


def own_settings(recipe: Recipe) -> dict[str, Any] | None:
    """Return the recipe's own values as settings of its space; None if they lie outside of it.

    Fixed hyper-parameters have the value of the space.

    Parameters
    ----------
    recipe : Recipe
        Recipe with a table ``[search]``.

    Returns
    -------
    dict or None
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
    """Return whether a recipe already has a value."""
    return recipe.changed({path: value}).values == recipe.values


def _value_at(values: Any, path: str) -> Any:
    """Return the value at a path; None if there is none."""
    for word in path.split("."):
        if isinstance(values, list) and word.isdigit() and int(word) < len(values):
            values = values[int(word)]
        elif isinstance(values, dict) and word in values:
            values = values[word]
        else:
            return None
    return values


def _unknown_study(storage: BaseStorage, name: str) -> str:
    names = [study.study_name for study in storage.get_all_studies()]
    if name in names:
        return f"the study {name!r} was not made by xpnet"
    return unknown_name("study", name, names, plural="studies")


def studies(storage: BaseStorage) -> list[str]:
    """Return the names of xpnet's studies in a storage."""
    return [
        study.study_name for study in storage.get_all_studies() if _ATTRIBUTE in study.user_attrs
    ]


def _create_study(
    storage: BaseStorage,
    name: str,
    recipe: Recipe,
    settings: Settings,
    first: Mapping[str, Any] | None,
    origin: str,
    refines: str,
) -> dict[str, Any]:
    """Create a study, unless another process has done so, and return its attributes."""
    n_points = math.prod(len(scale.grid()) for scale in recipe.space.values())
    if settings.sampler == "grid" and n_points > _MOST_POINTS:
        raise SearchError(
            f"the grid must have at most {_MOST_POINTS:,} points, got {n_points:,}: search fewer "
            "hyper-parameters, or set points = 2"
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
        time.sleep(_PAUSE)  # if several processes create it, the last one to write wins
    return study.user_attrs


def _load_study(
    storage: BaseStorage,
    name: str,
    own: Mapping[str, Any],
    recipe: Recipe | None,
    given: Mapping[str, Any],
) -> Study:
    """Load a study, and check its settings and recipe against the given ones."""
    settings = Settings(**own["settings"])
    for key, value in given.items():
        if value != getattr(settings, key):
            raise SearchError(
                f"the study {name!r} has {key} {getattr(settings, key)}, got {value}: start a "
                "new study under another name"
            )
    try:
        kept = Recipe(own["recipe"], own["values"]).changed({}, search=True)
    except RecipeError as error:
        raise SearchError(f"the study {name!r} cannot be read: {error}") from error
    if recipe is not None:
        said, meant = (json.loads(json.dumps(one.values)) for one in (kept, recipe))
        meant["description"] = said["description"]  # it changes no result
        if own["refines"]:  # a refining study has its own scales
            said, meant = ({k: v for k, v in one.items() if k != "search"} for one in (said, meant))
        differing = _difference(said, meant)
        if differing is not None:
            raise SearchError(
                f"the study {name!r} was created with another recipe: {differing}; start a new "
                "study under another name"
            )
    with quiet():
        study = optuna.load_study(study_name=name, storage=storage)
    first = own["first"]
    return Study(study, storage, kept, settings, first, own["origin"], own["refines"])


def _difference(one: Any, other: Any, path: str = "") -> str | None:
    """Describe the first difference of two recipes; None if they are equal."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in dict.fromkeys([*one, *other]):
            within = f"{path}.{key}" if path else key
            if key not in one or key not in other:
                return f"it {'had' if key in one else 'lacked'} {within}"
            found = _difference(one[key], other[key], within)
            if found is not None:
                return found
        return None
    return None if one == other else f"{path} was {one!r:.100}, not {other!r:.100}"


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence Optuna's log below warnings, because xpnet prints its own lines."""
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(max(level, optuna.logging.WARNING))
    try:
        yield
    finally:
        optuna.logging.set_verbosity(level)
