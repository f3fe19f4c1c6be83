"""The command line: ``xpnet train``, ``xpnet predict``, and ``python train.py``."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType

from xpnet.cli import prediction, training
from xpnet.cli.running import Parser, run

__all__ = ["main", "train"]

_COMMANDS = (  # of xpnet: the name, what its help says of it, and who does it
    ("train", "train by recipe", training),
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
        _equip(commands.add_parser(name, help=text, description=command.DESCRIPTION), command)
    return run(parser, arguments)


def train(arguments: Sequence[str] | None = None) -> int:
    """Run ``xpnet train``; see :func:`main`."""
    return _run_alone("train.py", training, arguments)


def _run_alone(prog: str, command: ModuleType, arguments: Sequence[str] | None) -> int:
    """Run one command under a name of its own."""
    parser = Parser(prog=prog, description=command.DESCRIPTION)
    _equip(parser, command)
    return run(parser, arguments)


def _equip(parser: Parser, command: ModuleType) -> None:
    command.add_arguments(parser)
    parser.set_defaults(work=command.work, prog=parser.prog)
