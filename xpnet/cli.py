"""The command line: ``xpnet train``, ``xpnet predict``, and ``python train.py``."""

from __future__ import annotations

import argparse
import contextlib
import csv
import importlib
import io
import json
import logging
import re
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from xpnet.data import Contents, DataError, Dataset, Part, load_contents
from xpnet.data.named import NAMES
from xpnet.device import DeviceUnavailableError
from xpnet.files import check_folder, is_stream, write_whole
from xpnet.nn import Loss
from xpnet.nn.losses import determination
from xpnet.recipe import Recipe, RecipeError, Result, load_recipe, recipe_names
from xpnet.report import plotting_problem
from xpnet.terminal import OutputError, Progress, cost_text, print_lines, print_table
from xpnet.training import DivergenceError, Interruption, Model, load_model

__all__ = ["main", "train"]

DONE, FAILED, WRONG_INPUT, INTERRUPTED = 0, 1, 2, 130
_DEFAULT = ("digits-logistic", "digits-shallow", "digits-deep")


class _UsageError(Exception):
    """The user's input is wrong; the message is one line."""


class _FailedError(Exception):
    """The training diverged."""


class _CtrlC:
    """Notes that Ctrl-C was pressed, and raises KeyboardInterrupt as Python does by itself.

    Which somebody may catch who should not: an import, a callback of a C library. Where Python has
    nobody to raise it to, as in a weak reference's callback, it would print it; it is noted anyway.
    """

    was_pressed = False

    def __enter__(self) -> None:
        in_main_thread = threading.current_thread() is threading.main_thread()
        self._is_ours = (
            in_main_thread and signal.getsignal(signal.SIGINT) is signal.default_int_handler
        )
        if self._is_ours:
            signal.signal(signal.SIGINT, self._handle)
            self._report, sys.unraisablehook = sys.unraisablehook, self._report_others

    def __exit__(self, *error: object) -> None:
        if self._is_ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            sys.unraisablehook = self._report

    def check(self) -> None:
        """Raise KeyboardInterrupt if it was raised before and got lost."""
        if self.was_pressed:
            raise KeyboardInterrupt

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.was_pressed = True
        signal.default_int_handler(number, frame)

    def _report_others(self, unraisable: Any) -> None:
        if not issubclass(unraisable.exc_type, KeyboardInterrupt):
            self._report(unraisable)


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, as everything else here does."""

    def print_help(self, file: Any = None) -> None:
        del file
        print_lines(self.format_help().splitlines())  # argparse itself keeps silent if it cannot

    def error(self, message: str) -> NoReturn:
        raise _UsageError(f"{message}; see {self.prog} --help")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command ``xpnet``.

    Parameters
    ----------
    arguments : sequence of str, optional
        The command line's words; by default the process's own.

    Returns
    -------
    int
        Exit status: 0 done, 1 the training diverged, 2 the input was wrong or the output could
        not be written, 130 interrupted.
    """
    parser = _Parser(prog="xpnet", description="Neural-network classifiers by recipe.")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    training = commands.add_parser("train", help="train by recipe", description=_TRAIN)
    _add_training(training)
    training.set_defaults(work=_train, prog=training.prog)
    prediction = commands.add_parser("predict", help="label samples", description=_PREDICT)
    _add_prediction(prediction)
    prediction.set_defaults(work=_predict, prog=prediction.prog)
    return _run(parser, arguments)


def train(arguments: Sequence[str] | None = None) -> int:
    """Run ``xpnet train``; see :func:`main`."""
    parser = _Parser(prog="train.py", description=_TRAIN)
    _add_training(parser)
    parser.set_defaults(work=_train, prog=parser.prog)
    return _run(parser, arguments)


def _run(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> int:
    """Parse, work, and turn what can go wrong into one line and an exit status."""
    ctrl_c = _CtrlC()
    try:
        options = _parse(parser, arguments)
        with ctrl_c:
            status: int = options.work(options, ctrl_c)
            ctrl_c.check()
            return status
    except (DataError, DeviceUnavailableError, RecipeError, _UsageError) as error:
        if ctrl_c.was_pressed:  # an import that is cut short may call it an ImportError
            return _complain(parser, "interrupted", INTERRUPTED)
        return _complain(parser, str(error), WRONG_INPUT)
    except MemoryError as error:
        return _complain(parser, f"out of memory: {error or 'no more to be had'}", WRONG_INPUT)
    except _FailedError as error:
        return _complain(parser, str(error), FAILED)
    except KeyboardInterrupt as error:
        return _complain(parser, str(error) or "interrupted", INTERRUPTED)
    except OutputError as error:
        if isinstance(error.__cause__, BrokenPipeError):  # whoever read it has seen enough
            return INTERRUPTED
        return _complain(parser, str(error), WRONG_INPUT)


def _parse(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> argparse.Namespace:
    options, unknown = parser.parse_known_args(arguments)
    if unknown:  # of which the main parser would say "see xpnet --help"
        raise _UsageError(f"unrecognized arguments: {' '.join(unknown)}; see {options.prog} --help")
    return options


def _complain(parser: argparse.ArgumentParser, message: str, status: int) -> int:
    _say(parser.prog, message)
    return status


def _say(prog: str, message: str) -> None:
    """Write one line to standard error, if there is one."""
    if sys.stderr is not None:
        line = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in message)
        with contextlib.suppress(OSError):  # the exit status still tells
            sys.stderr.write(f"{prog}: {line}\n")


# ---- train

_TRAIN = "Train xpnet's classifiers by recipe: progress, then one table."


def _add_training(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "recipes",
        nargs="*",
        metavar="RECIPE",
        help="names of shipped recipes, or .toml files, run one after another; by default "
        f"{', '.join(_DEFAULT)}",
    )
    parser.add_argument("--list", action="store_true", help="list the recipes and stop")
    parser.add_argument(
        "--show", action="store_true", help="print the recipes with every value filled in and stop"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change a value of the recipes, e.g. training.epochs=5; may be repeated",
    )
    parser.add_argument("--dtype", metavar="DTYPE", help="float32 or float64")
    parser.add_argument("--seed", metavar="N", help="seed of weights and order")
    parser.add_argument("--target", metavar="COLUMN", help="the labels' column of a .csv file")
    _add_places(parser)
    parser.add_argument(
        "--out",
        metavar="DIR",
        help="a new folder for what the run leaves (of several recipes: DIR/RECIPE); by default "
        "runs/RECIPE-TIME",
    )
    parser.add_argument("--quiet", action="store_true", help="no progress, only the table")


def _add_places(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--device",
        help="cpu, cuda, cuda:N or auto; by default what XPNET_DEVICE says, else the recipe",
    )
    parser.add_argument(
        "--data-dir", metavar="DIR", help="where data files are; also XPNET_DATA_DIR"
    )


def _train(options: argparse.Namespace, ctrl_c: _CtrlC) -> int:
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
    recipes = [
        load_recipe(name, changes=changes) for name in dict.fromkeys(options.recipes or _DEFAULT)
    ]
    if options.show:
        _require("writing a recipe out", "tomli_w")
        for recipe in recipes:
            name = [f"# {recipe.name}"] if len(recipes) > 1 else []
            print_lines([*name, *_ascii_toml(recipe.to_toml()).split("\n")[:-1]])
        return DONE
    with contextlib.nullcontext() if options.quiet else _announced_downloads():
        datasets = _load(recipes, options.data_dir)
    devices = [  # whatever does not fit is refused before any runs
        _device_of(recipe, dataset, options.device)
        for recipe, dataset in zip(recipes, datasets, strict=True)
    ]
    _require("saving a run", "safetensors", "tomli_w")
    folders = _folders(options.out, recipes)
    results: list[Result] = []
    ctrl_c.check()
    try:
        for recipe, dataset, device, folder in zip(
            recipes, datasets, devices, folders, strict=True
        ):
            if not _train_one(recipe, dataset, device, folder, options, results):
                raise KeyboardInterrupt(f"interrupted in {recipe.name}, which is kept as it is")
    finally:
        if results:
            _print_results(results)
    return DONE


def _quoted(value: str) -> str:
    """Write a string of TOML, which is one of JSON but for DEL."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _ascii_toml(text: str) -> str:
    """Escape what is not ASCII, which stands in strings alone: UTF-8 may not be what is printed."""
    return re.sub(
        r"[^\x00-\x7f]",
        lambda found: (
            f"\\u{ord(found[0]):04x}" if found[0] <= "\uffff" else f"\\U{ord(found[0]):08x}"
        ),
        text,
    )


def _device_of(recipe: Recipe, dataset: Dataset, device: str | None) -> str:
    """Give the name of the device, having tried it and the network out."""
    try:
        return recipe.build(dataset, device).device.name
    except RecipeError:
        raise
    except ValueError as error:  # of the device's name
        raise _UsageError(str(error)) from error


def _train_one(
    recipe: Recipe,
    dataset: Dataset,
    device: str,
    folder: Path,
    options: argparse.Namespace,
    results: list[Result],
) -> bool:
    """Train and save one recipe; tell whether to go on, which Ctrl-C denies."""
    with Interruption() as interruption:
        try:
            if options.quiet:
                result = recipe.run(dataset, options.device)
            else:
                with Progress(
                    f"{recipe.name} on {device}",
                    recipe.values["training"]["epochs"],
                    Loss.resolve(recipe.values["loss"]).score_name,
                ) as progress:
                    result = recipe.run(dataset, options.device, on_report=progress)
            results.append(result)
            folder, lacking = _save(result, folder, may_rename=options.out is None)
        except DivergenceError as error:
            raise _FailedError(f"{recipe.name}: {error}") from error
        except KeyboardInterrupt:
            is_kept = (folder / "model.safetensors").exists()
            kept = f"which is kept in {folder}" if is_kept else "of which nothing is kept"
            raise KeyboardInterrupt(f"interrupted twice in {recipe.name}, {kept}") from None
        if options.quiet:
            for line in lacking:
                _say(options.prog, f"{recipe.name}: {line}")
        else:
            if progress.problem is not None:  # now that there is nothing to lose
                raise progress.problem
            problem = plotting_problem()
            lacking += [f"no pictures: {problem}"] if problem else []
            print_lines([f"  wrote {folder}", *(f"  {line}" for line in lacking)])
        return not interruption.is_requested()


def _save(result: Result, folder: Path, *, may_rename: bool) -> tuple[Path, list[str]]:
    """Save a result, under the next free name if somebody has taken this one meanwhile.

    Give the folder, and what is lacking in it and why.
    """
    lacking: list[str] = []
    try:
        result.save(folder, on_problem=lacking.append)
    except FileExistsError as error:
        if may_rename:
            return _save(result, _free(folder, ()), may_rename=True)
        raise _UsageError(f"cannot write {folder}: {error.strerror}") from error
    except OSError as error:
        raise _UsageError(f"cannot write {folder}: {error.strerror or error}") from error
    return folder, lacking


def _load(recipes: Sequence[Recipe], data_dir: str | None) -> list[Dataset]:
    """Load every recipe's data, the same data once."""
    loaded: dict[str, Dataset] = {}
    keys = []
    for recipe in recipes:
        has_classes = Loss.resolve(recipe.values["loss"]).has_classes
        keys.append(json.dumps([recipe.values["data"], has_classes]))
        if keys[-1] not in loaded:
            loaded[keys[-1]] = recipe.load_data(data_dir)
    return [loaded[key] for key in keys]


def _require(what: str, *packages: str) -> None:
    """Refuse what could not be brought to its end, before it is begun."""
    for package in packages:
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise _UsageError(
                f"{what} needs {package}, which cannot be imported ({error}); type: "
                f"pip install {package}"
            ) from error


@contextlib.contextmanager
def _announced_downloads() -> Iterator[None]:
    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            print_lines([record.getMessage()])

    logger, handler = logging.getLogger("xpnet.data"), Handler()
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel("INFO")
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def _folders(out: str | None, recipes: Sequence[Recipe]) -> list[Path]:
    """Name a folder for each recipe, each of them writable."""
    if out == "":
        raise _UsageError("--out must name a folder, got an empty string")
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
            raise _UsageError(f"--out: cannot make the folder {str(folder)!r}: {reason}") from error
        folders.append(folder)
    return folders


def _free(wanted: Path, taken: Sequence[Path]) -> Path:
    """Give the name itself, or with a number that makes it a new one."""
    number, folder = 1, wanted
    while folder in taken or folder.exists():
        number += 1
        folder = wanted.with_name(f"{wanted.name}-{number}")
    return folder


def _print_results(results: Sequence[Result]) -> None:
    """Print a table for each kind of score, as accuracies do not compare with others."""
    for score_name in dict.fromkeys(result.history.score_name for result in results):
        of_kind = [result for result in results if result.history.score_name == score_name]
        rows = [_row(result) for result in of_kind]
        if score_name != "accuracy":  # then there is no majority either
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


# ---- predict

_PREDICT = "Label samples with a trained model, or predict their numbers: one line of CSV for each."


def _add_prediction(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model", metavar="MODEL", help="model.safetensors of a run, or the run's folder"
    )
    parser.add_argument(
        "data",
        metavar="DATA",
        help="a file of the kinds that training reads, or digits, cats, fashion-mnist or diabetes; "
        "of either the test part where it has one, of an idx file those that it holds itself",
    )
    parser.add_argument("--target", metavar="COLUMN", help="the labels' column of a .csv file")
    parser.add_argument(
        "--out", metavar="FILE", help="write them there; by default they are printed"
    )
    _add_places(parser)


def _predict(options: argparse.Namespace, ctrl_c: _CtrlC) -> int:
    del ctrl_c  # nothing is lost if it is noticed at the end
    model = _load_model(options)
    is_table = options.data.lower().endswith(".csv")
    # Beside the images of an idx file a test part may lie, but it is the file that was named.
    is_idx = options.data.lower().removesuffix(".gz").endswith("ubyte")
    contents = load_contents(
        options.data,
        data_dir=options.data_dir,
        target=options.target,
        columns=model.feature_names if is_table else None,
        task="classification" if model.loss.has_classes else "regression",
    )
    order = ("train",) if is_idx else ("test", "train", "validation")
    part = next(contents.parts[key] for key in order if key in contents.parts)
    X = part.X if model.image_shape else part.X.reshape(len(part.X), -1)
    try:
        predicted = model.predict_proba(X) if model.loss.has_classes else model.predict(X)
    except (TypeError, ValueError) as error:
        raise _UsageError(f"{options.data} does not fit the model: {error}") from error
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(_predictions(model, predicted))
    if options.out is None:
        print_lines(text.getvalue().split("\n")[:-1])  # labels may hold other ends of lines
        return DONE
    try:
        write_whole(options.out, text.getvalue().encode())
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        reason = error.strerror if isinstance(error, OSError) else error
        raise _UsageError(f"--out: cannot write {options.out}: {reason}") from error
    if is_stream(options.out):  # which may be standard output: nothing but the labels goes there
        return DONE
    # Of a named set without a test part, recipes take most samples for training.
    caveat = (
        ", training samples included" if options.data in NAMES and len(contents.parts) == 1 else ""
    )
    noun, score = "prediction", _score_of_numbers(part, predicted, caveat)
    if model.loss.has_classes:
        classes = predicted.argmax(axis=1)
        noun, score = "label", _score(contents, part, classes, model.class_names, caveat)
    plural = "" if len(predicted) == 1 else "s"
    print_lines([f"{len(predicted)} {noun}{plural} in {options.out}{score}"])
    return DONE


def _predictions(model: Model, predicted: npt.NDArray[Any]) -> Iterator[tuple[str, ...]]:
    """Give the lines of the table: classes of probabilities, or numbers as they are."""
    if model.loss.has_classes:
        yield "label", "probability"
        for k, p in zip(predicted.argmax(axis=1), predicted.max(axis=1), strict=True):
            yield model.class_names[k], f"{p:.6g}"
        return
    numbers = predicted.reshape(len(predicted), -1)
    n_targets = numbers.shape[1]
    yield tuple(f"prediction {k}" for k in range(n_targets)) if n_targets > 1 else ("prediction",)
    for row in numbers:
        yield tuple(f"{number:.9g}" for number in row)


def _load_model(options: argparse.Namespace) -> Model:
    _require("reading a model", "safetensors")
    try:
        return load_model(options.model, device=options.device)
    except OSError as error:
        reason = error.strerror or error
        if isinstance(error, FileNotFoundError):
            reason = "there is no such file, nor a folder that holds a model.safetensors"
        raise _UsageError(f"cannot read the model {options.model}: {reason}") from error
    except ValueError as error:
        raise _UsageError(str(error)) from error


def _score_of_numbers(part: Part, predicted: npt.NDArray[Any], caveat: str) -> str:
    """Compare with the numbers that the data have, if they have as many."""
    if part.y is None:
        return ""
    if part.y.shape != predicted.shape:
        return "; the data's own numbers are not as many as the model's"
    R2 = determination(np, *(y.reshape(len(y), -1) for y in (predicted, part.y))).mean()
    return f"; R2 {R2:.4f} beside the data's own{caveat}"


def _score(
    contents: Contents,
    part: Part,
    predicted: npt.NDArray[np.int64],
    class_names: tuple[str, ...],
    caveat: str,
) -> str:
    """Compare with the labels, where the data have some that mean something to the model.

    They may be the names of its classes, or, where none of them is one, the classes' numbers.
    """
    if (y := part.y) is None:
        return ""
    is_number = y.dtype.kind != "U"
    names = np.asarray(contents.class_names)[y] if contents.class_names and is_number else y
    if np.isin(names.astype(str), class_names).any():
        is_right = names.astype(str) == np.asarray(class_names)[predicted]
    elif is_number and y.min() >= 0 and y.max() < len(class_names):
        is_right = y == predicted
    else:
        return "; none of the data's own labels is a class of the model"
    n_right = int(is_right.sum())
    return f"; {n_right} of them equal the data's own (accuracy {n_right / len(y):.4f}{caveat})"
