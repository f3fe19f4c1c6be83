"""Runs a command: parser, Ctrl-C, exit status, errors in one line."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import logging
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import Any, NoReturn

from xpnet.data import DataError
from xpnet.device import DeviceUnavailableError
from xpnet.recipe import RecipeError
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
    "require",
    "run",
    "say",
]

DONE, FAILED, WRONG_INPUT, INTERRUPTED = 0, 1, 2, 130
# Installed with xpnet, but perhaps not beside a checkout: their modules, and what pip calls them.
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


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, as everything else here does."""

    def print_help(self, file: Any = None) -> None:
        """Print the help, or fail."""
        del file
        print_lines(self.format_help().splitlines())  # argparse itself keeps silent if it cannot

    def error(self, message: str) -> NoReturn:
        """Raise what :func:`run` says in one line."""
        raise UsageError(f"{message}; see {self.prog} --help")


def run(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> int:
    """Parse, work, and turn what can go wrong into one line and an exit status."""
    ctrl_c = CtrlC()
    try:
        options = _parse(parser, arguments)
        _check_core()
        with ctrl_c:
            status: int = options.work(options, ctrl_c)
            ctrl_c.check()
            return status
    except (DataError, DeviceUnavailableError, ImportError, RecipeError, UsageError) as error:
        if ctrl_c.was_pressed:  # an import that is cut short may call it an ImportError
            return _report_error(parser, "interrupted", INTERRUPTED)
        message = _explain(error) if isinstance(error, ImportError) else str(error)
        return _report_error(parser, message, WRONG_INPUT)
    except MemoryError as error:
        return _report_error(parser, f"out of memory: {error or 'no more to be had'}", WRONG_INPUT)
    except FailedError as error:
        return _report_error(parser, str(error), FAILED)
    except KeyboardInterrupt as error:
        return _report_error(parser, str(error) or "interrupted", INTERRUPTED)
    except OutputError as error:
        if isinstance(error.__cause__, BrokenPipeError):  # whoever read it has seen enough
            return INTERRUPTED
        return _report_error(parser, str(error), WRONG_INPUT)


def _check_core() -> None:
    """Refuse to begin without a package that the work needs sooner or later."""
    missing = [p for module, p in _CORE.items() if importlib.util.find_spec(module) is None]
    if missing:
        raise UsageError(
            f"xpnet needs {', '.join(missing)}, not installed here; type: pip install "
            f"{' '.join(missing)}"
        )


def _explain(error: ImportError) -> str:
    """Say which core package is damaged; raise the error again if none is."""
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
    if unknown:  # of which the main parser would say "see xpnet --help"
        raise UsageError(f"unrecognized arguments: {' '.join(unknown)}; see {options.prog} --help")
    return options


def _report_error(parser: argparse.ArgumentParser, message: str, status: int) -> int:
    say(parser.prog, message)
    return status


def say(prog: str, message: str) -> None:
    """Write one line to standard error, if there is one."""
    if sys.stderr is not None:
        line = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in message)
        with contextlib.suppress(OSError):  # the exit status still tells
            sys.stderr.write(f"{prog}: {line}\n")


def require(what: str, *packages: str) -> None:
    """Refuse what could not be brought to its end, before it is begun."""
    for package in packages:
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise UsageError(
                f"{what} needs {package}, which cannot be imported ({error}); type: "
                f"pip install {package}"
            ) from error


def add_places(parser: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    """Add the options that say where to compute and where data files are."""
    parser.add_argument(
        "--device",
        help="cpu, cuda, cuda:N or auto; by default what XPNET_DEVICE says, else the recipe",
    )
    parser.add_argument(
        "--data-dir", metavar="DIR", help="where data files are; also XPNET_DATA_DIR"
    )


@contextlib.contextmanager
def announced_downloads() -> Iterator[None]:
    """Print a line for each file that is fetched."""

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
