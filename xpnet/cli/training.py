"""The command ``train``: trains recipes, saves the results and prints a table."""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import time
from collections.abc import Sequence
from pathlib import Path

from xpnet.cli.running import (
    DONE,
    CtrlC,
    FailedError,
    UsageError,
    add_places,
    announced_downloads,
    refuse_data_file,
    say,
)
from xpnet.data import Dataset
from xpnet.files import check_folder
from xpnet.nn import Network
from xpnet.recipe import Recipe, RecipeError, Result, load_recipe, recipe_names
from xpnet.report import plotting_problem
from xpnet.terminal import Progress, cost_text, print_lines, print_table
from xpnet.training import DivergenceError, Interruption

__all__ = ["DESCRIPTION", "add_arguments", "work"]

DESCRIPTION = (
    "Train the network of each recipe. Show the progress, save the model, the history and plots in "
    "a new folder, and print a table of the results. For data of your own, start from a recipe "
    "that comes with xpnet: change it by --set, or write it to a file by --show and edit that."
)
_DEFAULT = ("digits-logistic", "digits-shallow", "digits-deep")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "recipes",
        nargs="*",
        metavar="RECIPE",
        help="name of a recipe that comes with xpnet, or a .toml file; several are trained one "
        f"after another (default: {', '.join(_DEFAULT)})",
    )
    shown = parser.add_argument_group("show recipes")
    shown.add_argument(
        "--list", action="store_true", help="list the recipes that come with xpnet and exit"
    )
    shown.add_argument(
        "--show", action="store_true", help="print the recipes with all defaults filled in and exit"
    )
    changed = parser.add_argument_group("change recipes")
    changed.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change a value of the recipes, e.g. training.epochs=5; may be repeated",
    )
    changed.add_argument("--dtype", metavar="DTYPE", help="float32 or float64")
    changed.add_argument(
        "--seed", metavar="N", help="seed of the weights and of the order of the samples"
    )
    changed.add_argument(
        "--target",
        metavar="COLUMN",
        help="column of a .csv file that holds the labels or the numbers to predict",
    )
    add_places(parser.add_argument_group("device and data"))
    output = parser.add_argument_group("output")
    output.add_argument(
        "--out",
        metavar="DIR",
        help="new folder for the results; with several recipes DIR/RECIPE (default: "
        "runs/RECIPE-TIME)",
    )
    output.add_argument("--quiet", action="store_true", help="show no progress, only the table")


def work(options: argparse.Namespace, ctrl_c: CtrlC) -> int:
    """Train the recipes one after another; return the exit status."""
    changes = [
        *options.set,
        *(
            f"{key}={_quoted(value) if key != 'seed' else value}"
            for key, value in (
                ("dtype", options.dtype),
                ("seed", options.seed),
                ("data.target", options.target),
            )
            if value is not None
        ),
    ]
    if options.list:
        names = recipe_names()
        width = max(map(len, names))
        print_lines(f"{n:<{width}}  {load_recipe(n).values['description']}" for n in names)
        return DONE
    names = list(dict.fromkeys(options.recipes or _DEFAULT))
    for given in names:
        refuse_data_file(given, options)
    recipes = [load_recipe(given, changes=changes) for given in names]
    if options.show:
        for recipe in recipes:
            name = [f"# {recipe.name}"] if len(recipes) > 1 else []
            print_lines([*name, *_ascii_toml(recipe.to_toml()).split("\n")[:-1]])
        return DONE
    with contextlib.nullcontext() if options.quiet else announced_downloads():
        datasets = _load(recipes, options.data_dir)
    networks = [  # all before any is trained, so that errors come first
        _build(recipe, dataset, options.device)
        for recipe, dataset in zip(recipes, datasets, strict=True)
    ]
    folders = _folders(options.out, recipes)
    results: list[Result] = []
    ctrl_c.check()
    try:
        for recipe, dataset, network, folder in zip(
            recipes, datasets, networks, folders, strict=True
        ):
            if not _train_one(recipe, dataset, network, folder, options, results):
                raise KeyboardInterrupt(f"interrupted in {recipe.name}; its result so far is saved")
    finally:
        if results:
            _print_results(results)
    return DONE


def _quoted(value: str) -> str:
    """Write a TOML string, which differs from a JSON string only in DEL."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _ascii_toml(text: str) -> str:
    """Escape characters outside ASCII: they occur only in strings; output may not be UTF-8."""
    return re.sub(
        r"[^\x00-\x7f]",
        lambda found: (
            f"\\u{ord(found[0]):04x}" if found[0] <= "\uffff" else f"\\U{ord(found[0]):08x}"
        ),
        text,
    )


def _build(recipe: Recipe, dataset: Dataset, device: str | None) -> Network:
    try:
        return recipe.build(dataset, device)
    except RecipeError:
        raise
    except ValueError as error:  # an invalid device name
        raise UsageError(str(error)) from error


def _train_one(
    recipe: Recipe,
    dataset: Dataset,
    network: Network,
    folder: Path,
    options: argparse.Namespace,
    results: list[Result],
) -> bool:
    """Train and save one recipe; return False if Ctrl-C was pressed."""
    with Interruption() as interruption:
        try:
            if options.quiet:
                result = recipe.run(dataset, network=network)
            else:
                with Progress(
                    f"{recipe.name} on {network.device.name}",
                    recipe.settings.training.epochs,
                    recipe.settings.loss.score_name,
                ) as progress:
                    result = recipe.run(dataset, network=network, on_report=progress)
            results.append(result)
            folder, lacking = _save(result, folder, may_rename=options.out is None)
        except DivergenceError as error:
            raise FailedError(f"{recipe.name}: {error}") from error
        except KeyboardInterrupt:
            is_kept = (folder / "model.safetensors").exists()
            kept = f"saved in {folder}" if is_kept else "nothing was saved"
            raise KeyboardInterrupt(f"interrupted twice in {recipe.name}; {kept}") from None
        if options.quiet:
            for line in lacking:
                say(options.prog, f"{recipe.name}: {line}")
        else:
            if progress.problem is not None:  # the results are saved by now
                raise progress.problem
            problem = plotting_problem()
            lacking += [f"no pictures: {problem}"] if problem else []
            print_lines([f"  wrote {folder}", *(f"  {line}" for line in lacking)])
        return not interruption.is_requested()


def _save(result: Result, folder: Path, *, may_rename: bool) -> tuple[Path, list[str]]:
    """Save a result, under the next free name if this one has been taken meanwhile.

    Return the folder, and a line for each file that could not be made.
    """
    lacking: list[str] = []
    try:
        result.save(folder, on_problem=lacking.append)
    except FileExistsError as error:
        if may_rename:
            return _save(result, _free(folder, ()), may_rename=True)
        raise UsageError(f"cannot write {folder}: {error.strerror}") from error
    except OSError as error:
        raise UsageError(f"cannot write {folder}: {error.strerror or error}") from error
    return folder, lacking


def _load(recipes: Sequence[Recipe], data_dir: str | None) -> list[Dataset]:
    """Load each recipe's data; recipes with the same data share them."""
    loaded: dict[str, Dataset] = {}
    keys = []
    for recipe in recipes:
        has_classes = recipe.settings.loss.has_classes
        keys.append(json.dumps([recipe.values["data"], has_classes]))
        if keys[-1] not in loaded:
            loaded[keys[-1]] = recipe.load_data(data_dir)
    return [loaded[key] for key in keys]


def _folders(out: str | None, recipes: Sequence[Recipe]) -> list[Path]:
    """Choose a writable folder for each recipe."""
    if out == "":
        raise UsageError("--out must name a folder, got an empty string")
    stamp = time.strftime("%Y%m%d-%H%M%S")
    folders: list[Path] = []
    for recipe in recipes:
        if out is None:
            wanted = Path("runs") / f"{recipe.name}-{stamp}"
        else:
            wanted = Path(out) if len(recipes) == 1 else Path(out) / recipe.name
        # Two recipes of one name, or two runs in one second.
        folder = _free(wanted, folders) if out is None or wanted in folders else wanted
        try:
            check_folder(folder)
        except (OSError, ValueError) as error:  # ValueError: a null character in the name
            reason = error.strerror if isinstance(error, OSError) else error
            raise UsageError(f"--out: cannot make the folder {str(folder)!r}: {reason}") from error
        folders.append(folder)
    return folders


def _free(wanted: Path, taken: Sequence[Path]) -> Path:
    """Return the path, with a number added if it is taken."""
    number, folder = 1, wanted
    while folder in taken or folder.exists():
        number += 1
        folder = wanted.with_name(f"{wanted.name}-{number}")
    return folder


def _print_results(results: Sequence[Result]) -> None:
    """Print one table for each kind of score: accuracy and R2 are not comparable."""
    for score_name in dict.fromkeys(result.history.score_name for result in results):
        of_kind = [result for result in results if result.history.score_name == score_name]
        rows = [_row(result) for result in of_kind]
        if score_name != "accuracy":  # no classes, hence no majority
            named = {"train": f"{score_name} train", "test": f"{score_name} test"}
            rows = [{named.get(k, k): row[k] for k in row if k != "majority"} for row in rows]
        optional = ("samples/s", "parameters", "device", "seconds", "majority", "cost")
        print_table(
            tuple(rows[0]),
            [tuple(row.values()) for row in rows],
            optional=[name for name in optional if name in rows[0]],
        )


def _row(result: Result) -> dict[str, str]:
    return {
        "recipe": result.recipe.name,
        "device": result.network.device.name,
        "parameters": f"{result.network.n_parameters:,}",
        "cost": cost_text(result.history.reports[-1].cost),
        "train": f"{result.train_accuracy:.4f}",
        "test": f"{result.test_accuracy:.4f}",
        "majority": f"{result.dataset.majority_accuracy:.4f}",
        "samples/s": f"{result.history.samples_per_second:,.0f}",
        "seconds": f"{result.history.seconds:.1f}",
    }
