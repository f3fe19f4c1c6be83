"""Runs a command: parses its arguments, handles Ctrl-C, reports errors in one line."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import logging
import os
import re
import shlex
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import Any, NoReturn

from xpnet.data import DataError
from xpnet.data.readers import SUFFIXES
from xpnet.device import DeviceUnavailableError
from xpnet.recipe import RecipeError
from xpnet.recipe.errors import nearest
from xpnet.terminal import OutputError, print_lines

__all__ = [
    "DONE",
    "FAILED",
    "INTERRUPTED",
    "WRONG_INPUT",
    "CtrlC",
    "FailedError",
    "Parser",
    "UsageError",
    "add_places",
    "announced_downloads",
    "refuse_data_file",
    "require",
    "run",
    "say",
]

DONE, FAILED, WRONG_INPUT, INTERRUPTED = 0, 1, 2, 130
# The core dependencies, which a bare checkout may lack: modules, and the packages' names for pip.
_CORE = {
    "rich": "rich",
    "safetensors": "safetensors",
    "sklearn": "scikit-learn",
    "tomli_w": "tomli-w",
}


class UsageError(Exception):
    """The user's input is wrong; the message is one line."""


class FailedError(Exception):
    """The training diverged."""


class CtrlC:
    """Remembers that Ctrl-C was pressed, and raises KeyboardInterrupt as Python does.

    Code that should not catch the exception sometimes does: an import, a callback of a C library.
    In a weak reference's callback Python cannot raise it and would only print it. The attribute
    ``was_pressed`` is set in every case.
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
        """Raise KeyboardInterrupt if Ctrl-C was pressed and the exception got lost."""
        if self.was_pressed:
            raise KeyboardInterrupt

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.was_pressed = True
        signal.default_int_handler(number, frame)

    def _report_others(self, unraisable: Any) -> None:
        if not issubclass(unraisable.exc_type, KeyboardInterrupt):
            self._report(unraisable)


class Parser(argparse.ArgumentParser):
    """A parser that raises its errors, for :func:`run` to report in one line."""

    def print_help(self, file: Any = None) -> None:
        """Print the help; raise OutputError if it cannot be written."""
        del file
        print_lines(self.format_help().splitlines())  # argparse would ignore the failure

    def error(self, message: str) -> NoReturn:
        """Raise a UsageError."""
        raise UsageError(f"{message}; see {self.prog} --help")


def run(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> int:
    """Parse the arguments, do the work, and return the exit status.

    An expected error is reported in one line on standard error.
    """
    ctrl_c = CtrlC()
    try:
        options = _parse(parser, arguments)
        _check_core()
        with ctrl_c:
            status: int = options.work(options, ctrl_c)
            ctrl_c.check()
            return status
    except (DataError, DeviceUnavailableError, ImportError, RecipeError, UsageError) as error:
        if ctrl_c.was_pressed:  # an interrupted import may raise ImportError
            return _report_error(parser, "interrupted", INTERRUPTED)
        message = _explain(error) if isinstance(error, ImportError) else str(error)
        return _report_error(parser, message, WRONG_INPUT)
    except MemoryError as error:
        message = str(error) or "the system has none left"
        return _report_error(parser, f"out of memory: {message}", WRONG_INPUT)
    except FailedError as error:
        return _report_error(parser, str(error), FAILED)
    except KeyboardInterrupt as error:
        return _report_error(parser, str(error) or "interrupted", INTERRUPTED)
    except OutputError as error:
        if isinstance(error.__cause__, BrokenPipeError):  # the reader has stopped reading
            return INTERRUPTED
        return _report_error(parser, str(error), WRONG_INPUT)


def _check_core() -> None:
    """Raise a UsageError if a package is missing that the work needs sooner or later."""
    missing = [p for module, p in _CORE.items() if importlib.util.find_spec(module) is None]
    if missing:
        raise UsageError(
            f"xpnet needs {', '.join(missing)}, not installed here; type: pip install "
            f"{' '.join(missing)}"
        )


def _explain(error: ImportError) -> str:
    """Name the core package that is damaged; raise the error again if none is."""
    for module, package in _CORE.items():
        try:
            importlib.import_module(module)
        except ImportError as why:
            reason = " ".join(str(why).split())
            typed = f"pip install --force-reinstall {package}"
            return f"xpnet needs {package}, which cannot be imported ({reason}); type: {typed}"
    raise error


def _parse(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> argparse.Namespace:
    options, unknown = parser.parse_known_args(arguments)
    if unknown:  # the main parser's own message would refer to "xpnet --help"
        near = nearest(unknown[0].partition("=")[0], re.findall("--[a-z-]+", options.usage))
        see = f"did you mean {near}? See" if near else "see"
        raise UsageError(
            f"unrecognized arguments: {' '.join(unknown)}; {see} {options.prog} --help"
        )
    return options


def _report_error(parser: argparse.ArgumentParser, message: str, status: int) -> int:
    say(parser.prog, message)
    return status


def say(prog: str, message: str) -> None:
    """Write one line to standard error, if it is open."""
    if sys.stderr is not None:
        line = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in message)
        with contextlib.suppress(OSError):  # the exit status still shows the failure
            sys.stderr.write(f"{prog}: {line}\n")


def require(what: str, *packages: str) -> None:
    """Raise a UsageError if a package that ``what`` needs cannot be imported."""
    for package in packages:
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise UsageError(
                f"{what} needs {package}, which cannot be imported ({error}); type: "
                f"pip install {package}"
            ) from error


def add_places(parser: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    """Add the options for the device and the folder of data files."""
    parser.add_argument(
        "--device",
        help="cpu, cuda, cuda:N or auto (default: XPNET_DEVICE, or else the recipe's device)",
    )
    parser.add_argument(
        "--data-dir",
        metavar="DIR",
        help="folder to look for data files in first, before XPNET_DATA_DIR",
    )


def refuse_data_file(name: str, options: argparse.Namespace) -> None:
    """Raise a UsageError that says how to train on a file, if that is what the user gave."""
    if not name.lower().removesuffix(".gz").endswith(SUFFIXES):
        return
    if name.lower().endswith(".gz") and not name.lower().endswith("ubyte.gz"):
        raise UsageError(f"{name} is compressed; type: gunzip {shlex.quote(name)}")
    program = options.prog.replace("train.py", "python train.py")
    is_search = program.endswith("search")
    data = f"--set {shlex.quote(f'data.dataset={name}')}"
    if name.lower().endswith(".csv"):
        column = "COLUMN" if is_search else shlex.quote(options.target or "COLUMN")
        data += f" --set data.target={column}" if is_search else f" --target {column}"
    where = "" if os.path.exists(name) else " (not found here)"  # noqa: PTH110  never raises
    recipe, last = ("digits-deep --trials 40", 3) if is_search else ("digits-shallow", 1)
    message = (
        f"{name}{where} is a data file, not a recipe; for N classes type: {program} {recipe} "
        f"{data} --set data.normalise=standardise --set network.layers.{last}.units=N"
    )
    if is_search:
        message += "; to predict a number, give a recipe of your own with a table [search]"
    else:
        message += f"; to predict a number: {program} diabetes-shallow {data}"
    raise UsageError(message)


@contextlib.contextmanager
def announced_downloads() -> Iterator[None]:
    """Print a line for each file that is downloaded."""

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
