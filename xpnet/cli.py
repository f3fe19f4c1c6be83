"""The command line."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from xpnet.data import DataError, Dataset
from xpnet.device import Device, DeviceUnavailableError, device
from xpnet.files import write_whole
from xpnet.recipe import Recipe, RecipeError, Result, load_recipe, recipe_names
from xpnet.training import DivergenceError, Report

__all__ = ["main"]

DONE, FAILED, WRONG_INPUT, INTERRUPTED = 0, 1, 2, 130
_DEFAULT = ("digits-logistic", "digits-shallow", "digits-deep")


class _UsageError(Exception):
    """The user's input is wrong; the message is one line."""


class _OutputError(Exception):
    """Standard output cannot be written: a closed pipe, a full disk."""


class _CtrlC:
    """Notes that Ctrl-C was pressed, and raises KeyboardInterrupt as Python does by itself."""

    was_pressed = False

    def __enter__(self) -> None:
        in_main_thread = threading.current_thread() is threading.main_thread()
        self._is_ours = (
            in_main_thread and signal.getsignal(signal.SIGINT) is signal.default_int_handler
        )
        if self._is_ours:
            signal.signal(signal.SIGINT, self._handle)

    def __exit__(self, *error: object) -> None:
        if self._is_ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.was_pressed = True
        signal.default_int_handler(number, frame)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run recipes and print one table of what they reached.

    Parameters
    ----------
    arguments : sequence of str, optional
        The command line's words; by default the process's own.

    Returns
    -------
    int
        Exit status: 0 done, 1 the training diverged, 2 the input was wrong, 130 interrupted.
    """
    options = _parser().parse_args(arguments)
    ctrl_c = _CtrlC()
    try:
        with ctrl_c:
            if options.list:
                _print_lines(recipe_names())
                return DONE
            return _train(options)
    except (DataError, DeviceUnavailableError, RecipeError, _UsageError) as error:
        if ctrl_c.was_pressed:  # an import that is cut short may call it an ImportError
            return _complain("interrupted", INTERRUPTED)
        return _complain(str(error), WRONG_INPUT)
    except KeyboardInterrupt:
        return _complain("interrupted", INTERRUPTED)
    except _OutputError as error:
        if isinstance(error.__cause__, BrokenPipeError):  # whoever read it has seen enough
            return INTERRUPTED
        return _complain(str(error), WRONG_INPUT)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="train.py", description="Train xpnet's classifiers by recipe."
    )
    parser.add_argument(
        "recipes",
        nargs="*",
        metavar="RECIPE",
        help=f"which to run, one after another; by default {', '.join(_DEFAULT)}",
    )
    parser.add_argument("--list", action="store_true", help="list the recipes and stop")
    parser.add_argument(
        "--device",
        help="cpu, cuda, cuda:N or auto; by default what XPNET_DEVICE says, else cpu",
    )
    parser.add_argument(
        "--data-dir", metavar="DIR", help="where data files are; by default XPNET_DATA_DIR"
    )
    parser.add_argument(
        "--out", metavar="DIR", help="write DIR/RECIPE/history.json for each recipe"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress, only the table")
    return parser


def _train(options: argparse.Namespace) -> int:
    recipes = [load_recipe(name) for name in dict.fromkeys(options.recipes or _DEFAULT)]
    try:
        chosen = device(options.device)
    except ValueError as error:
        raise _UsageError(str(error)) from error
    datasets: dict[str, Dataset] = {}
    for recipe in recipes:
        if recipe.data["dataset"] not in datasets:
            datasets[recipe.data["dataset"]] = recipe.load_data(options.data_dir)
    folders = {recipe.name: _make_folder(options.out, recipe.name) for recipe in recipes}
    results: list[Result] = []
    status, complaint = DONE, None
    for recipe in recipes:
        progress = None if options.quiet else _Progress(recipe, chosen)
        try:
            result = recipe.run(datasets[recipe.data["dataset"]], chosen, on_report=progress)
        except DivergenceError as error:
            status, complaint = FAILED, f"{recipe.name}: {error}"
            break
        except KeyboardInterrupt:
            status, complaint = INTERRUPTED, f"interrupted in {recipe.name}"
            break
        results.append(result)
        complaint = _write_history(folders[recipe.name], result)
        if complaint is not None:
            status = WRONG_INPUT
            break
        if result.history.interrupted:
            status, complaint = INTERRUPTED, f"interrupted in {recipe.name}, which is kept as it is"
            break
    if results:
        _print_lines(_table(results))
    return DONE if complaint is None else _complain(complaint, status)


def _write_history(folder: Path | None, result: Result) -> str | None:
    """Write ``history.json`` if asked to; say what went wrong."""
    if folder is None:
        return None
    path = folder / "history.json"
    try:
        write_whole(path, (json.dumps(result.to_dict(), indent=1) + "\n").encode())
    except OSError as error:
        return f"cannot write {path}: {error.strerror}"
    return None


class _Progress:
    """Prints a line for each report, but no more than about one a second."""

    def __init__(self, recipe: Recipe, chosen: Device) -> None:
        self._last_epoch = recipe.training["epochs"] - 1
        self._printed = float("-inf")
        _print_lines([f"{recipe.name} on {chosen.name}"])

    def __call__(self, report: Report) -> None:
        now = time.monotonic()
        if now - self._printed < 1 and report.epoch != self._last_epoch:
            return
        self._printed = now
        _print_lines(
            [
                f"  epoch {report.epoch + 1:>5}  cost {_cost(report.cost)}  "
                f"{report.samples_per_second:>9,.0f} samples/s  {report.seconds:6.1f} s"
            ]
        )


def _table(results: list[Result]) -> list[str]:
    rows = [
        (
            "recipe",
            "device",
            "parameters",
            "cost",
            "train",
            "test",
            "majority",
            "samples/s",
            "seconds",
        )
    ]
    rows += [
        (
            result.recipe.name,
            result.network.device.name,
            f"{result.network.n_parameters:,}",
            _cost(result.history.reports[-1].cost),
            f"{result.train_accuracy:.4f}",
            f"{result.test_accuracy:.4f}",
            f"{result.dataset.majority_accuracy:.4f}",
            f"{result.history.samples_per_second:,.0f}",
            f"{result.history.seconds:.1f}",
        )
        for result in results
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    return ["", lines[0], "  ".join("-" * width for width in widths), *lines[1:]]


def _cost(value: float) -> str:
    return f"{value:.6f}" if value < 1e4 else f"{value:.3e}"


def _make_folder(out: str | None, name: str) -> Path | None:
    if out is None:
        return None
    folder = Path(out) / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        reason = error.strerror if isinstance(error, OSError) else error
        raise _UsageError(f"--out: cannot make the folder {str(folder)!r}: {reason}") from error
    if not os.access(folder, os.W_OK):
        raise _UsageError(f"--out: cannot write into {folder}")
    return folder


def _print_lines(lines: list[str]) -> None:
    if sys.stdout is None:  # as under pythonw, or where the shell has closed it
        return
    try:
        sys.stdout.write("".join(f"{line}\n" for line in lines))
        sys.stdout.flush()
    except OSError as error:
        raise _OutputError(f"cannot write the output: {error.strerror or error}") from error


def _complain(message: str, status: int) -> int:
    if sys.stderr is not None:
        with contextlib.suppress(OSError):  # the exit status still tells
            sys.stderr.write(f"train.py: {message}\n")
    return status
