"""The command ``search``: searches for hyper-parameters and tests the best."""

from __future__ import annotations

import argparse
import contextlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xpnet.cli.running import (
    DONE,
    FAILED,
    CtrlC,
    FailedError,
    UsageError,
    add_places,
    announced_downloads,
    refuse_data_file,
    require,
    say,
)
from xpnet.files import check_folder, write_whole
from xpnet.recipe import Recipe, Result, load_recipe
from xpnet.report import plotting_problem
from xpnet.terminal import OutputError, Progress, Tally, print_lines, print_table
from xpnet.training import DivergenceError, Interruption

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from xpnet.search.refinement import Narrowing
    from xpnet.search.running import State
    from xpnet.search.study import Study
    from xpnet.search.winner import Plan

__all__ = ["DESCRIPTION", "add_arguments", "work"]

DESCRIPTION = (
    "Search for the best hyper-parameters, on the scales in a recipe's table [search]. Trials run "
    "in several processes. You can stop a search and resume it by the same command. At the end it "
    "prints the best trials and the hyper-parameters that mattered most, retrains the winner on "
    "training and validation samples, and tests it once. Without --trials and --minutes it only "
    "reports what has been found so far; a grid it searches to its end."
)
_FOLDER = Path("runs") / "search"
_SHOWN = 10  # trials in the table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "recipe",
        metavar="RECIPE",
        help="name of a recipe that comes with xpnet, or a .toml file; it must have a table "
        "[search]",
    )
    ends = parser.add_argument_group("length of the search")
    ends.add_argument(
        "--trials",
        type=_count,
        metavar="N",
        help="stop at N trials, counting those that the study already has",
    )
    ends.add_argument(
        "--minutes", type=_positive, metavar="M", help="start no new trial after M minutes"
    )
    how = parser.add_argument_group(
        "method", "an existing study keeps its own; you need not repeat these to resume it"
    )
    how.add_argument(
        "--sampler", metavar="NAME", help="random, grid, quasi-random or tpe (default: random)"
    )
    how.add_argument(
        "--pruner",
        metavar="NAME",
        help="rule that stops poor trials early: none, median, halving or hyperband (default: "
        "none)",
    )
    how.add_argument(
        "--objective",
        metavar="NAME",
        help="validation_accuracy, which is R2 in regression, or validation_cost (default: "
        "validation_accuracy)",
    )
    how.add_argument(
        "--sampler-seed", type=_whole, metavar="N", help="seed of the sampler (default: 0)"
    )
    how.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change a value of the recipe, e.g. training.epochs=5; may be repeated",
    )
    where = parser.add_argument_group("study")
    where.add_argument(
        "--storage",
        metavar="URL",
        help="where the study is kept: a journal file, or a database such as sqlite:///study.db; "
        f"machines with the same storage share the work (default: {_FOLDER}/RECIPE.journal)",
    )
    where.add_argument(
        "--study", metavar="NAME", help="name of the study (default: RECIPE-SAMPLER)"
    )
    where.add_argument(
        "--refine",
        action="store_true",
        help="narrow the scales around the best trials of the study, show how, and search there in "
        "a new study, STUDY.refined",
    )
    where.add_argument(
        "--replay",
        type=_whole,
        metavar="N",
        help="run trial N again, with only what the study has stored, and compare the results",
    )
    places = parser.add_argument_group("processes, device and data")
    places.add_argument(
        "--workers",
        type=_count,
        metavar="N",
        help="number of processes (default: one for each GPU; without a GPU, one for each "
        "processor, at most eight)",
    )
    places.add_argument(
        "--lease",
        type=_positive,
        metavar="SECONDS",
        help="restart the trial of a process that has shown no sign of life for this long "
        "(default: 60)",
    )
    add_places(places)
    output = parser.add_argument_group("output")
    output.add_argument(
        "--out",
        metavar="DIR",
        help=f"folder for the table, pictures and the winner (default: {_FOLDER}/STUDY)",
    )
    output.add_argument(
        "--no-winner", action="store_true", help="do not retrain and test the winner"
    )
    output.add_argument("--quiet", action="store_true", help="show no progress, only the results")


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be an integer of at least 1, got {text!r}")
    return int(text)


def _whole(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be an integer of at least 0, got {text!r}")
    return int(text)


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number greater than 0, got {text!r}")
    return value


def work(options: argparse.Namespace, ctrl_c: CtrlC) -> int:
    """Search and report; return the exit status."""
    require("searching", "optuna", "sqlalchemy")
    from optuna.exceptions import StorageInternalError

    from xpnet.search.study import SearchError, storage_reason

    try:
        return _work(options, ctrl_c)
    except SearchError as error:
        raise UsageError(str(error)) from error
    except StorageInternalError as error:
        raise UsageError(f"the storage cannot be used: {storage_reason(error)}") from error


def _work(options: argparse.Namespace, ctrl_c: CtrlC) -> int:
    from xpnet.search.running import run_trials

    for name in ("storage", "study", "out"):
        if getattr(options, name) == "":
            raise UsageError(f"--{name} must not be an empty string")
    refuse_data_file(options.recipe, options)
    recipe = load_recipe(options.recipe, changes=options.set)
    _ = recipe.space
    if options.replay is not None:
        others = ("trials", "minutes", "refine")
        besides = [f"--{name}" for name in others if getattr(options, name)]
        if besides:
            raise UsageError(f"--replay cannot be combined with {besides[0]}")
        return _replay(_open(options, recipe, may_begin=False), options)
    with contextlib.nullcontext() if options.quiet else announced_downloads():
        dataset = recipe.load_data(options.data_dir)  # or each worker would download them
    recipe.check_validation(dataset)  # before a study is created
    asks_for_more = options.trials is not None or options.minutes is not None
    begins = asks_for_more or options.sampler == "grid"
    study = _open(options, recipe, may_begin=begins and not options.refine)
    if options.refine:
        refined = _refine(study, begins=asks_for_more)
        if refined is None:
            return DONE
        study = refined
    folder = Path(options.out or _FOLDER / study.name)
    is_whole = True
    if asks_for_more or study.settings.sampler == "grid":
        _check_writable(folder)
        ctrl_c.check()
        with _show_progress(study, options) as on_state:
            is_whole = run_trials(
                study,
                n_trials=options.trials,
                minutes=options.minutes,
                n_workers=options.workers,
                device=options.device,
                data_dir=options.data_dir,
                on_state=on_state,
            )
    if not is_whole and not study.trials():
        raise KeyboardInterrupt
    if not study.trials():
        why = "give --trials or --minutes"
        if asks_for_more:
            why = "time ran out before the first trial started"
        raise UsageError(f"the study {study.name!r} has no trials yet: {why}")
    _report(study, folder, options)
    if not is_whole:
        raise KeyboardInterrupt("interrupted; type the same command to resume")
    if study.ranked() and not options.no_winner:
        return _train_winner(study, folder, options)
    return DONE


def _check_writable(folder: Path) -> None:
    """Raise a UsageError before the search if its results could not be written."""
    try:
        check_folder(folder / "trial")  # a new folder within it
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        reason = error.strerror if isinstance(error, OSError) else error
        raise UsageError(f"--out: cannot write {folder}: {reason}") from error


def _open(options: argparse.Namespace, recipe: Recipe, *, may_begin: bool) -> Study:
    """Open the study, or create it if it does not exist and ``may_begin`` is True."""
    from xpnet.search.study import (
        Settings,
        mask_passwords,
        open_storage,
        open_study,
        own_settings,
        studies,
    )

    settings = {
        "sampler": options.sampler,
        "pruner": options.pruner,
        "objective": options.objective,
        "seed": options.sampler_seed,
        "lease": options.lease,
    }
    Settings(**{key: value for key, value in settings.items() if value is not None})
    place = str(options.storage or _FOLDER / f"{recipe.name}.journal")
    name = options.study or f"{recipe.name}-{options.sampler or 'random'}"
    is_of_another = options.refine or options.replay is not None
    how = "" if is_of_another else "; add --trials or --minutes to create it"
    missing = UsageError(f"there is no study {name!r} in {mask_passwords(place)} yet{how}")
    if not may_begin and "://" not in place and not Path(place).exists():
        raise missing
    storage = open_storage(place)
    is_there = name in studies(storage)
    if not is_there and not may_begin:
        raise missing
    if options.replay is not None:
        return open_study(storage, name)  # with the recipe that it has stored
    first = None if options.sampler == "grid" else own_settings(recipe)
    if first is None and options.sampler != "grid" and not is_there:
        print_lines(["the recipe's own settings lie outside its [search]; they are not tried"])
    origin = "" if first is None else "recipe"
    return open_study(storage, name, recipe, first=first, origin=origin, **settings)


def _refine(study: Study, *, begins: bool) -> Study | None:
    """Open the study that refines another, or create it if ``begins``; print its scales."""
    from xpnet.search.refinement import refine
    from xpnet.search.study import open_study, studies

    name = f"{study.name}.refined"
    if name in studies(study.storage):
        print_lines([f"resuming {name}"])
        return open_study(study.storage, name)
    recipe, best, narrowings = refine(study)
    print_lines([f"{name}: scales around the best of {len(study.complete())} trials"])
    _print_narrowings(narrowings)
    if not begins:
        print_lines(["", "to search there, add --trials or --minutes"])
        return None
    # Another seed: with the same one the points would be the old ones, squeezed together.
    settings = {**vars(study.settings), "seed": study.settings.seed + 1}
    return open_study(
        study.storage, name, recipe, first=best, origin=study.name, refines=study.name, **settings
    )


def _print_narrowings(narrowings: Sequence[Narrowing]) -> None:
    rows = [
        (
            narrowing.name,
            _scale_text(narrowing.before.arguments()),
            "-" if narrowing.after is None else _scale_text(narrowing.after.arguments()),
        )
        for narrowing in narrowings
    ]
    print_table(("hyper-parameter", "before", "now"), rows, optional=())
    print_lines(["", *(f"{n.name}: {n.why}" for n in narrowings)])


def _scale_text(arguments: Mapping[str, Any]) -> str:
    from xpnet.search.parameters import format_setting

    word, value = next(iter(arguments.items()))
    if isinstance(value, dict):
        value = list(value)
    listed = value if isinstance(value, list) else [value]
    return f"{word} {', '.join(format_setting(one) for one in listed)}"


@contextlib.contextmanager
def _show_progress(
    study: Study, options: argparse.Namespace
) -> Iterator[Callable[[State], object] | None]:
    """Show progress and the best trial so far; yield a function to call with each state."""
    if options.quiet:
        yield None
        return
    from xpnet.search.parameters import format_setting, short_names

    names = short_names(list(study.space))
    n_before, last = None, -1

    def on_state(state: State) -> None:
        nonlocal n_before, last
        if n_before is None:
            n_before = state.n_finished
        if state.n_finished == last:
            return
        last = state.n_finished
        text = "no result yet"
        if state.best is not None:
            settings = study.settings_of(state.best)
            best = f"best {state.best.values[0]:.4f}  trial {state.best.number}"
            said = (f"{names[name]} {format_setting(one)}" for name, one in settings.items())
            text = "  ".join([best, *said])
        left = state.most_seconds - state.seconds
        n_done = state.n_finished - n_before
        if state.n_trials is not None and n_done:
            left = min(left, state.seconds / n_done * (state.n_trials - state.n_finished))
        tally.show(state.n_finished, text, None if left == math.inf else max(left, 0.0))

    with Tally(f"{study.name}, {study.settings.sampler}", _total(study, options), "trial") as tally:
        yield on_state
    if tally.problem is not None:
        raise tally.problem


def _total(study: Study, options: argparse.Namespace) -> int | None:
    total = study.total(options.trials)
    if total is None or study.settings.sampler == "grid":
        return total
    return max(total, sum(trial.state.is_finished() for trial in study.trials()))


def _report(study: Study, folder: Path, options: argparse.Namespace) -> None:
    """Print the best trials and what mattered most; write tables and pictures to the folder."""
    from xpnet.search.parameters import format_setting, short_names
    from xpnet.search.pictures import study_pictures
    from xpnet.search.results import importances, result_files, summary_lines

    ranked, shares = study.ranked(), importances(study)
    names = short_names(list(study.space))
    columns = [name for name, scale in study.space.items() if scale.word != "fixed"]
    rows = [
        (
            f"{trial.number}{'*' if trial.number == 0 and study.origin else ''}",
            f"{trial.values[0]:.4f}",
            *(format_setting(settings[name]) if name in settings else "-" for name in columns),
        )
        for trial in ranked[:_SHOWN]
        for settings in (study.settings_of(trial),)
    ]
    if rows:
        least = sorted(columns, key=lambda name: shares.get(name, 0.0))
        header = ("trial", study.objective, *(names[name] for name in columns))
        print_table(header, rows, optional=[names[name] for name in least])
    print_lines(["", *summary_lines(study, shares)])
    files = result_files(study)
    problem = plotting_problem()
    if problem is None:
        for name, draw in study_pictures(study).items():
            try:
                files[name] = draw()
            except Exception as error:  # a missing picture must not lose the search
                say(options.prog, f"no {name}: {error!r}")
    else:
        say(options.prog, f"no pictures: {problem}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            write_whole(folder / name, data)
    except OSError as error:
        raise UsageError(f"--out: cannot write {folder}: {error.strerror or error}") from error
    if not options.quiet:
        print_lines([f"  wrote {folder}: {', '.join(files)}"])


def _train_winner(study: Study, folder: Path, options: argparse.Namespace) -> int:
    """Train the best trial's network on all samples except the test samples; test it once."""
    from xpnet.search.winner import plan, read_score

    best = study.ranked()[0]
    if "diverged" in best.user_attrs:
        raise FailedError(f"all trials have diverged: {best.user_attrs['diverged']}")
    place = folder / f"trial-{best.number}"
    known = read_score(study, best, place)
    if known is not None:
        return _print_score(best, *known)
    try:
        check_folder(place)
    except OSError as error:
        raise UsageError(f"--out: cannot write {place}: {error.strerror or error}") from error
    planned = plan(study, best, options.data_dir)
    notes = planned.notes or ["on training and validation samples"]
    title = f"retraining trial {best.number}: {'; '.join(notes)}"
    with Interruption() as interruption:
        try:
            result, problem = _train(planned, title, options)
        except DivergenceError as error:
            raise FailedError(f"retraining trial {best.number}: {error}") from error
        if interruption.is_requested():
            raise KeyboardInterrupt("interrupted; type the same command to retrain the winner")
        try:
            result.save(place, on_problem=lambda line: say(options.prog, line))
        except FileExistsError:  # another command may have done the same
            known = read_score(study, best, place)
            if known is None:
                raise UsageError(f"--out: {place} exists but has no results") from None
            return _print_score(best, *known)
        except OSError as error:
            raise UsageError(f"--out: cannot write {place}: {error.strerror or error}") from error
    if problem is not None:  # the results are saved by now
        raise problem
    score = result.history.score_name
    print_lines(
        [
            f"  wrote {place}",
            "",
            f"trial {best.number}, retrained on {len(planned.dataset.X_train):,} samples: test "
            f"{score} {result.test_accuracy:.4f}, on {len(planned.dataset.X_test):,} samples that "
            "the search did not use",
        ]
    )
    return DONE


def _print_score(best: FrozenTrial, name: str, score: float | None) -> int:
    """Print the test score of a network that was trained before."""
    value = "not finite" if score is None else f"{score:.4f}"
    print_lines([f"trial {best.number} was trained and tested before: {name} {value}"])
    return DONE


def _train(
    planned: Plan, title: str, options: argparse.Namespace
) -> tuple[Result, OutputError | None]:
    if options.quiet:
        return planned.run(options.device), None
    with Progress(title, planned.n_epochs) as progress:
        result = planned.run(options.device, on_report=progress)
    return result, progress.problem


def _replay(study: Study, options: argparse.Namespace) -> int:
    """Run a trial again and print whether the result is the same."""
    from xpnet.search.running import replay

    found = replay(study, options.replay, device=options.device, data_dir=options.data_dir)
    settings = study.space.resolve(study.settings_of(study.trials()[found.number]))
    objective = study.objective
    print_lines(
        [
            *(f"{name} = {json.dumps(value)}" for name, value in settings.items()),
            f"trial {found.number}: {objective} was {found.recorded!r}, is now {found.found!r}",
        ]
    )
    if found.recorded == found.found:
        print_lines(["the same to the bit"])
        return DONE
    differing = [
        f"{key} was {found.then.get(key)}, is now {found.now.get(key)}"
        for key in found.now
        if found.then.get(key) != found.now.get(key)
    ]
    print_lines(["not the same" + (f": {'; '.join(differing)}" if differing else "")])
    return FAILED
