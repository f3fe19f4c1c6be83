"""The command ``predict``: labels, or predicted numbers, as CSV."""

from __future__ import annotations

import argparse
import csv
import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from xpnet.cli.running import DONE, CtrlC, UsageError, add_places
from xpnet.data import Contents, Part, load_contents
from xpnet.data.named import NAMES
from xpnet.files import is_stream, write_whole
from xpnet.nn.losses import determination
from xpnet.terminal import print_lines
from xpnet.training import Model, load_model

__all__ = ["DESCRIPTION", "add_arguments", "work"]

DESCRIPTION = (
    "Label samples with a trained model, or predict their numbers: one line of CSV for each."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
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
    add_places(parser)


def work(options: argparse.Namespace, ctrl_c: CtrlC) -> int:
    """Label the samples, or predict their numbers; give the exit status."""
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
        raise UsageError(f"{options.data} does not fit the model: {error}") from error
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(_predictions(model, predicted))
    if options.out is None:
        print_lines(text.getvalue().split("\n")[:-1])  # labels may hold other ends of lines
        return DONE
    try:
        write_whole(options.out, text.getvalue().encode())
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        reason = error.strerror if isinstance(error, OSError) else error
        raise UsageError(f"--out: cannot write {options.out}: {reason}") from error
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
    try:
        return load_model(options.model, device=options.device)
    except OSError as error:
        reason = error.strerror or error
        if isinstance(error, FileNotFoundError):
            reason = "there is no such file, nor a folder that holds a model.safetensors"
        raise UsageError(f"cannot read the model {options.model}: {reason}") from error
    except ValueError as error:
        raise UsageError(str(error)) from error


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
