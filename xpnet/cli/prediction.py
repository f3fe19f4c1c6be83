"""The command ``predict``: writes predicted labels or numbers as CSV."""

from __future__ import annotations

import argparse
import csv
import io
import os
import shlex
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from xpnet.cli.running import DONE, CtrlC, UsageError, add_places
from xpnet.data import Contents, Part, load_contents
from xpnet.data.named import NAMES
from xpnet.data.readers import SUFFIXES
from xpnet.files import is_stream, write_whole
from xpnet.nn.losses import determination
from xpnet.recipe import recipe_names
from xpnet.terminal import print_lines
from xpnet.training import Model, load_model

__all__ = ["DESCRIPTION", "add_arguments", "work"]

DESCRIPTION = (
    "Label samples with a trained model, or predict a number for each. The output is CSV, one line "
    "for each sample: its label and the label's probability, or the predicted numbers."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "model", metavar="MODEL", help="folder of a training run, or the model.safetensors in it"
    )
    parser.add_argument(
        "data",
        metavar="DATA",
        help="data file (.npz, .csv, .h5 or idx), or one of digits, cats, fashion-mnist and "
        "diabetes; if it has a test part, only that is used",
    )
    add_places(parser.add_argument_group("device and data"))
    output = parser.add_argument_group("output")
    output.add_argument(
        "--out",
        metavar="FILE",
        help="write the predictions to this file and, if the data have labels, print how many are "
        "right (default: print the predictions)",
    )
    output.add_argument(
        "--target",
        metavar="COLUMN",
        help="column of a .csv file that holds the true labels or numbers, to compare with",
    )


def work(options: argparse.Namespace, ctrl_c: CtrlC) -> int:
    """Label the samples, or predict their numbers; return the exit status."""
    del ctrl_c  # nothing is lost if it is noticed at the end
    _check_order(options)
    model = _load_model(options)
    is_table = options.data.lower().endswith(".csv")
    # An idx file may have a test part next to it, but the user has named this file.
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
        raise UsageError(f"{options.data} does not fit the model: {error}") from error
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(_predictions(model, predicted))
    if options.out is None:
        print_lines(text.getvalue().split("\n")[:-1])  # labels may contain other line separators
        return DONE
    try:
        write_whole(options.out, text.getvalue().encode())
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        reason = error.strerror if isinstance(error, OSError) else error
        raise UsageError(f"--out: cannot write {options.out}: {reason}") from error
    if is_stream(options.out):  # it may be standard output, where only the predictions belong
        return DONE
    # Recipes train on most samples of a named data set that has no test part.
    caveat = (
        ", training samples included" if options.data in NAMES and len(contents.parts) == 1 else ""
    )
    noun, score = "prediction", _score_of_numbers(part, predicted, caveat)
    if model.loss.has_classes:
        classes = predicted.argmax(axis=1)
        noun, score = "label", _score(contents, part, classes, model.class_names, caveat)
    plural = "" if len(predicted) == 1 else "s"
    print_lines([f"wrote {len(predicted)} {noun}{plural} to {options.out}{score}"])
    return DONE


def _check_order(options: argparse.Namespace) -> None:
    """Raise a UsageError if the arguments are the wrong way round, or one of them is a recipe."""
    model, data = options.model, options.data
    if not _is_model(model):
        if _is_recipe(model):
            raise UsageError(
                f"{model} is a recipe, not a trained model; type: xpnet train {shlex.quote(model)} "
                f"--out DIR, then {options.prog} DIR DATA"
            )
        if (model in NAMES or model.lower().endswith(SUFFIXES)) and _is_model(data):
            swapped = f"{options.prog} {shlex.quote(data)} {shlex.quote(model)}"
            raise UsageError(f"the model comes first, then the data; type: {swapped}")
    if _is_recipe(data):
        raise UsageError(
            f"{data} is a recipe, not data; type: {options.prog} {shlex.quote(model)} DATA, with a "
            ".npz, .csv, .h5 or idx file, or digits, cats, fashion-mnist or diabetes"
        )


def _is_model(path: str) -> bool:
    if path.endswith(".safetensors"):
        return True
    return os.path.isfile(f"{path}/model.safetensors")  # noqa: PTH113  never raises


def _is_recipe(path: str) -> bool:
    return path.lower().endswith(".toml") or path in set(recipe_names()).difference(NAMES)


def _predictions(model: Model, predicted: npt.NDArray[Any]) -> Iterator[tuple[str, ...]]:
    """Yield the lines of the table: labels with their probabilities, or numbers."""
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
    try:
        return load_model(options.model, device=options.device)
    except OSError as error:
        reason = error.strerror or error
        if isinstance(error, FileNotFoundError):
            reason = "no such file, and no folder with a model.safetensors"
        raise UsageError(f"cannot read the model {options.model}: {reason}") from error
    except ValueError as error:
        raise UsageError(str(error)) from error


def _score_of_numbers(part: Part, predicted: npt.NDArray[Any], caveat: str) -> str:
    """Compare with the regression targets in the data, if they match the model's."""
    if part.y is None:
        return ""
    if part.y.shape != predicted.shape:
        return "; not compared: the data and the model have different numbers of targets"
    R2 = determination(np, *(y.reshape(len(y), -1) for y in (predicted, part.y))).mean()
    return f"; R2 {R2:.4f}{caveat}"


def _score(
    contents: Contents,
    part: Part,
    predicted: npt.NDArray[np.int64],
    class_names: tuple[str, ...],
    caveat: str,
) -> str:
    """Compare with the true labels, if the data have labels that the model knows.

    Labels may be names of the model's classes or, if none of them is such a name, their numbers.
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
        return "; not compared: none of the data's labels is a class of the model"
    n_right = int(is_right.sum())
    return f"; {n_right} correct (accuracy {n_right / len(y):.4f}{caveat})"
