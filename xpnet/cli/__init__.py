"""The command line: ``xpnet train``, ``search`` and ``predict``, and ``python train.py``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from types import ModuleType

from xpnet.cli import prediction, search, training
from xpnet.cli.running import Parser, run

__all__ = ["main", "train"]

_COMMANDS = (  # of xpnet: the name, what its help says of it, and who does it
    ("train", "train by recipe", training),
    ("search", "search for hyper-parameters", search),
    ("predict", "label samples", prediction),
)


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
    parser = Parser(prog="xpnet", description="Neural-network classifiers by recipe.")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, text, command in _COMMANDS:
        _add_arguments(
            commands.add_parser(name, help=text, description=command.DESCRIPTION), command
        )
    return run(parser, arguments)


def train(arguments: Sequence[str] | None = None) -> int:
    """Run ``xpnet train``, or with ``search`` as the first word that; see :func:`main`."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    if words[:1] == ["search"]:
        return _run_command("train.py search", search, words[1:])
    return _run_command("train.py", training, words)


def _run_command(prog: str, command: ModuleType, arguments: Sequence[str] | None) -> int:
    """Run one command under a name of its own."""
    parser = Parser(prog=prog, description=command.DESCRIPTION)
    _add_arguments(parser, command)
    return run(parser, arguments)


def _add_arguments(parser: Parser, command: ModuleType) -> None:
    command.add_arguments(parser)
    parser.set_defaults(work=command.work, prog=parser.prog)
