"""Shows progress and tables: a bar on a terminal, lines in a pipe, one block in a notebook."""

from __future__ import annotations

import contextlib
import importlib
import os
import shutil
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Self

from xpnet.training import Report

__all__ = ["OutputError", "Progress", "Tally", "print_lines", "print_table"]


class OutputError(Exception):
    """Standard output cannot be written, for instance a closed pipe or a full disk."""


def print_lines(lines: Iterable[str]) -> None:
    """Write lines to standard output, if it is open.

    Characters that the stream's encoding lacks are escaped.

    Raises
    ------
    OutputError
        If the lines cannot be written.
    """
    if sys.stdout is None:  # under pythonw, or if the shell has closed it
        return
    with _writing():
        sys.stdout.write(_encodable("".join(f"{line}\n" for line in lines)))
        sys.stdout.flush()


@contextlib.contextmanager
def _writing() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(f"cannot write the output: {error.strerror or error}") from error


def _encodable(text: str) -> str:
    """Escape the characters that standard output's encoding lacks."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


def print_table(
    header: Sequence[str], rows: Sequence[Sequence[str]], optional: Sequence[str]
) -> None:
    """Print a table, with the first column aligned to the left and the others to the right.

    If the terminal is too narrow, columns named in ``optional`` are left out, in that order.
    """
    rows = [[_encodable(cell) for cell in row] for row in rows]
    kept = list(header)
    leaving = list(optional)
    while (lines := _aligned(header, rows, kept)) and leaving and len(lines[0]) > _width():
        kept.remove(leaving.pop(0))
    print_lines(["", *lines])


def _aligned(
    header: Sequence[str], rows: Sequence[Sequence[str]], kept: Sequence[str]
) -> list[str]:
    columns = [header.index(name) for name in kept]
    cells = [[row[column] for column in columns] for row in (header, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    cells.insert(1, ["-" * width for width in widths])
    return [
        "  ".join(
            cell.rjust(width) if number else cell.ljust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in cells
    ]


def _width() -> float:
    """Return the terminal's width in columns; infinite for a pipe or a file."""
    return shutil.get_terminal_size().columns if _is_terminal() else float("inf")


def _is_terminal() -> bool:
    return sys.stdout is not None and sys.stdout.isatty() and os.environ.get("TERM") != "dumb"


class Tally:
    """Shows how many of something have been done.

    Use it as ``with Tally("digits", 60, "epoch") as tally: ...``. A terminal gets a progress bar, a
    notebook one block of output that is updated, and anything else at most about one line a second.
    The last state is always shown.

    Parameters
    ----------
    title : str
    total : int or None
        Number to reach; None if unknown.
    noun : str
        What is counted, such as ``"epoch"``.

    Attributes
    ----------
    problem : OutputError or None
        First error while writing. Nothing is shown after it, so that a closed pipe does not stop
        the work.
    """

    def __init__(self, title: str, total: int | None, noun: str) -> None:
        self.problem: OutputError | None = None
        self._total = total
        self._display: _Lines | _Bar = _choose_display(_encodable(title), total, noun)
        self._shown = float("-inf")
        self._waiting: tuple[int, str, float | None] | None = None

    def __enter__(self) -> Self:
        with self._keeping_errors():
            self._display.open()
        return self

    def __exit__(self, *raised: object) -> None:
        if self._waiting is not None:
            self._show(*self._waiting)
        with self._keeping_errors():
            self._display.close()

    def show(self, done: int, text: str, left: float | None) -> None:
        """Show the state, or keep it for later if another was shown only just before.

        Parameters
        ----------
        done : int
            Number done so far.
        text : str
            Details, separated by two spaces.
        left : float or None
            Estimate of the time left, in seconds; None if unknown.
        """
        now = time.monotonic()
        if now - self._shown < self._display.interval and done != self._total:
            self._waiting = done, text, left
        else:
            self._shown = now
            self._show(done, text, left)

    def _show(self, done: int, text: str, left: float | None) -> None:
        self._waiting = None
        if self.problem is not None:
            return
        with self._keeping_errors():
            self._display.show(done, _encodable(text), left)

    @contextlib.contextmanager
    def _keeping_errors(self) -> Iterator[None]:
        try:
            with _writing():
                yield
        except OutputError as error:
            self.problem = self.problem or error


class Progress(Tally):
    """Shows the progress of a training; pass it to :func:`xpnet.training.fit` as ``on_report``.

    Use it as ``with Progress("digits", epochs=60) as progress: ...``; see :class:`Tally`.

    Parameters
    ----------
    title : str
    epochs : int
        Number of epochs of the whole training.
    score_name : str
        Name of the reports' score, ``"accuracy"`` (default) or ``"R2"``; see
        :class:`xpnet.training.History`.
    """

    def __init__(self, title: str, epochs: int, score_name: str = "accuracy") -> None:
        super().__init__(title, epochs, "epoch")
        self._epochs = epochs
        self._score_name = score_name

    def __enter__(self) -> Self:
        self._started = time.monotonic()
        return super().__enter__()

    def __call__(self, report: Report) -> None:
        """Show a report, or keep it for later if another was shown only just before."""
        done = report.epoch + 1
        elapsed = time.monotonic() - self._started
        left = elapsed / done * (self._epochs - done)
        self.show(done, _describe(report, self._score_name), left)


def _describe(report: Report, score_name: str) -> str:
    accuracy, kind = report.validation_accuracy, "validation "
    if accuracy is None:
        accuracy, kind = report.train_accuracy, ""
    measured = "" if accuracy is None else f"  {kind}{score_name} {accuracy:.4f}"
    return f"cost {cost_text(report.cost)}{measured}  {report.samples_per_second:,.0f} samples/s"


def cost_text(value: float) -> str:
    """Format a cost with the digits that matter."""
    return f"{value:.6f}" if value < 1e4 else f"{value:.3e}"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class _Lines:
    """A line for each report."""

    interval = 1.0  # seconds between two lines

    def __init__(self, title: str, total: int | None, noun: str) -> None:
        self._title, self._total, self._noun = title, total, noun

    def open(self) -> None:
        print_lines([self._title])

    def close(self) -> None:
        """Do nothing: the lines stay."""

    def show(self, done: int, text: str, left: float | None) -> None:
        print_lines([self._line(done, text, left)])

    def _line(self, done: int, text: str, left: float | None) -> str:
        total = self._total
        count = str(done) if total is None else f"{done:>{len(str(total))}}/{total}"
        remaining = "" if left is None else f"  {_left(left)}"
        return f"  {self._noun} {count}  {text}{remaining}"


def _left(seconds: float | None) -> str:
    return "" if seconds is None else f"{_clock(seconds)} left"


class _Block(_Lines):
    """One block of a notebook's output."""

    interval = 0.1

    def open(self) -> None:
        display = importlib.import_module("IPython.display").display
        self._handle: Any = display({"text/plain": self._title}, raw=True, display_id=True)

    def show(self, done: int, text: str, left: float | None) -> None:
        line = self._line(done, text, left)
        self._handle.update({"text/plain": f"{self._title}\n{line}"}, raw=True)


class _Bar:
    """The title, below it a progress bar made by rich, and below that a line of numbers."""

    interval = 0.05

    def __init__(self, title: str, total: int | None, noun: str) -> None:
        from rich.console import Console
        from rich.live import Live
        from rich.progress import BarColumn, Progress, TextColumn

        self._title = title
        self._columns = Console().width  # rich's global console may predate a change of COLUMNS
        count = "{task.completed:.0f}" + ("" if total is None else "/{task.total:.0f}")
        self._progress = Progress(
            BarColumn(bar_width=max(5, min(40, self._columns - 40))),
            TextColumn(f"{noun} {count}"),
            TextColumn("{task.fields[left]}"),
            auto_refresh=False,
        )
        self._task = self._progress.add_task("", total=total, left="")
        self._live = Live(self._rendered(""), console=self._progress.console, auto_refresh=False)

    def _rendered(self, text: str) -> Any:
        from rich.console import Group
        from rich.text import Text

        # Cropped, because some encodings lack the ellipsis.
        return Group(self._progress, Text(text, no_wrap=True, overflow="crop"))

    def open(self) -> None:
        print_lines([self._title])
        self._live.start()

    def close(self) -> None:
        self._live.stop()

    def show(self, done: int, text: str, left: float | None) -> None:
        self._progress.update(self._task, completed=done, left=_left(left))
        text = f"  {text}"
        while len(text) > self._columns and "  " in text.strip():  # the last number is left out
            text = text.rpartition("  ")[0]
        self._live.update(self._rendered(text), refresh=True)


def _choose_display(title: str, total: int | None, noun: str) -> _Lines | _Bar:
    kernel = sys.modules.get("ipykernel.zmqshell")
    ipython: Any = sys.modules.get("IPython")
    if kernel is not None and isinstance(ipython.get_ipython(), kernel.ZMQInteractiveShell):
        return _Block(title, total, noun)
    return (_Bar if _is_terminal() else _Lines)(title, total, noun)
