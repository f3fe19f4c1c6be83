"""Reads samples and labels from .csv files."""

from __future__ import annotations

import csv
import itertools
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from xpnet.data.checks import ContentError, listed, texts, unknown_name
from xpnet.data.dataset import Contents, Part

__all__ = ["read_csv"]


def read_csv(
    where: str,
    target: str | None,
    columns: Sequence[str] | None,
    task: str,
    sample_weight: str | None,
) -> Contents:
    """Read a .csv file; for the parameters see :func:`xpnet.data.read_file`."""
    with Path(where).open(encoding="utf-8-sig", newline="") as file:
        rows = csv.reader(_without_nul(file), strict=True)
        filled = ((rows.line_num, row) for row in rows if len(row) > 1 or "".join(row).strip())
        try:
            names = _column_names(next(filled, (1, []))[1])
            places = {name: place for place, name in enumerate(names)}
            others = (target, sample_weight)
            wanted = [name for name in names if name not in others] if columns is None else columns
            features = {_column(places, name): name for name in wanted}
            label = None if target is None else _column(places, target)
            weight = None if sample_weight is None else _column(places, sample_weight)
            if not features or len(features) < len(wanted) or label in features:
                raise ContentError(
                    "features must be one or more distinct columns, without the target, got "
                    f"{listed(wanted) or 'none'}"
                )
            if weight is not None and (weight in features or weight == label):
                raise ContentError(
                    f"sample_weight must be neither the target nor a feature, got {names[weight]!r}"
                )
            text, number = (None, label) if task == "regression" else (label, None)
            numeric = [*features, *(k for k in (number, weight) if k is not None)]
            table, labels = _read_rows(filled, names, numeric, text, weight)
        except csv.Error as error:
            raise ContentError(f"line {rows.line_num}: {error}") from error
    # Columns of a table are not contiguous: copy them.
    X = np.ascontiguousarray(table[:, : len(features)])
    y = None if text is None else _labels(names[text], labels)
    if number is not None:
        y = table[:, len(features)].copy()
    weights = None if weight is None else table[:, -1].copy()
    return Contents({"train": Part(X, y, weights)}, feature_names=tuple(features.values()))


def _without_nul(lines: Iterable[str]) -> Iterator[str]:
    for number, line in enumerate(lines, start=1):
        if "\0" in line:
            raise ContentError(f"line {number}: expected text, got a NUL byte")
        yield line


def _column_names(header: list[str]) -> list[str]:
    if not header:
        raise ContentError("is empty: expected a first line that names the columns")
    names = [name.strip() for name in header]
    if len(names) == 1 and re.search("[;\t]", names[0]):
        raise ContentError(f"line 1: cells must be separated by commas, got {names[0][:40]!r}")
    if not all(names):
        nameless = names.index("") + 1
        raise ContentError(f"line 1 must name every column, got no name for column {nameless}")
    if len(set(names)) < len(names):
        twice = next(name for name, n_found in Counter(names).items() if n_found > 1)
        raise ContentError(f"line 1 must give each column its own name, got {twice!r} twice")
    return names


def _column(places: dict[str, int], name: str) -> int:
    if name in places:
        return places[name]
    raise ContentError(unknown_name("column", name, places))


def _read_rows(
    rows: Iterator[tuple[int, list[str]]],
    names: Sequence[str],
    columns: Sequence[int],
    label: int | None,
    weight: int | None,
) -> tuple[npt.NDArray[np.float64], list[str]]:
    """Read the numeric columns, in this order, and the labels, which are text.

    Rows are read in blocks, because cells take many times the memory of numbers.
    """
    blocks, labels = [], []
    while block := list(itertools.islice(rows, 1000)):
        for line, row in block:
            if len(row) != len(names):
                raise ContentError(f"line {line}: expected {len(names)} cells, got {len(row)}")
            if label is not None:
                labels.append(row[label].strip())
                if not labels[-1]:
                    raise ContentError(f"line {line}: expected a label, got an empty cell")
        numbers = np.array([[_number(row[k]) for k in columns] for _, row in block])
        wrong = np.argwhere(~np.isfinite(numbers))
        if len(wrong):
            (line, row), k = block[wrong[0, 0]], columns[wrong[0, 1]]
            raise ContentError(
                f"line {line}, column {names[k]}: expected a finite number, got {row[k][:40]!r}"
            )
        if weight is not None and (negative := numbers[:, columns.index(weight)] < 0).any():
            line, row = block[int(np.argmax(negative))]
            raise ContentError(
                f"line {line}, column {names[weight]}: expected a weight of at least 0, got "
                f"{row[weight][:40]!r}"
            )
        blocks.append(numbers)
    if not blocks:
        raise ContentError("must hold at least one sample, got only the line of column names")
    return np.concatenate(blocks), labels


def _number(cell: str) -> float:
    """Return a cell's value, NaN if it is not a number."""
    try:
        # float() also accepts 1_000 and the digits of other scripts.
        return float(cell) if cell.strip().isascii() and "_" not in cell else math.nan
    except ValueError:
        return math.nan


def _labels(name: str, labels: list[str]) -> npt.NDArray[Any]:
    # Convert only numbers that print as they were written: 01 and 1 are different labels.
    if all(re.fullmatch("0|-?[1-9][0-9]{0,17}", label) for label in labels):
        return np.array([int(label) for label in labels], dtype=np.int64)
    return np.array(texts(f"column {name}", np.array(labels, dtype=object)))
