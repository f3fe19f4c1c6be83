"""The command line: ``xpnet train``, ``predict`` and ``search``, and ``python train.py``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from xpnet.cli import prediction, search, training
from xpnet.cli.running import WRONG_INPUT, Parser, run, say
from xpnet.recipe import recipe_names
from xpnet.recipe.errors import nearest
from xpnet.terminal import print_lines
from xpnet.version import __version__

__all__ = ["main", "train"]

_COMMANDS = {  # of xpnet: by name, the line about it in the help, and its module
    "train": ("train the network of a recipe, test it and save it", training),
    "predict": ("label samples, or predict numbers, with a trained model", prediction),
    "search": ("search for the best hyper-parameters of a recipe", search),
}
_DESCRIPTION = "Train neural networks that classify or predict numbers, described by recipes."
_EPILOG = """\
examples:
  xpnet train --list                         list the recipes of xpnet
  xpnet train digits-shallow --out run       train one, save the results in run/
  xpnet predict run digits --out labels.csv  label samples with that model
  xpnet search digits-deep --trials 40       try 40 settings of a network

environment variables:
  XPNET_DEVICE     cpu, cuda, cuda:N or auto (default: the recipe's device)
  XPNET_PRECISION  float32, or tf32 for faster matrix products on a GPU
                   (default: the recipe's precision)
  XPNET_KERNELS    fused or reference operations (default: fused if available)
  XPNET_THREADS    number of threads of a training step on the CPU
                   (default: as many as make it faster)
  XPNET_DATA_DIR   folder to look for data files in, after --data-dir

Type "xpnet COMMAND --help" for the options of a command. To read on, see the
pages "Keys of a recipe", "Data", "Searching for hyper-parameters" and "Using a
GPU" of the documentation.
"""


class _Version(argparse.Action):
    """Prints the version and ends."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        print_lines([f"xpnet {__version__}"])
        parser.exit()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command ``xpnet``.

    Parameters
    ----------
    arguments : sequence of str, optional
        Words of the command line; default: those of the process.

    Returns
    -------
    int
        Exit status: 0 for success, 1 if the training diverged, 2 if the input was wrong or the
        output could not be written, 130 if interrupted.
    """
    words = sys.argv[1:] if arguments is None else list(arguments)
    if words and not words[0].startswith("-") and words[0] not in _COMMANDS:
        say("xpnet", _unknown_command(words[0]))
        return WRONG_INPUT
    parser = Parser(
        prog="xpnet",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, (text, command) in _COMMANDS.items():
        _add_arguments(
            commands.add_parser(name, help=text, description=command.DESCRIPTION), command
        )
    return run(parser, words)


def _unknown_command(word: str) -> str:
    if word in recipe_names() or word.endswith(".toml"):
        return f"{word!r} is a recipe, not a command; to train it, type: xpnet train {word}"
    near = nearest(word, _COMMANDS)
    listed = f"did you mean {near!r}? Commands" if near else "commands"
    return f"unknown command {word!r}; {listed}: {', '.join(_COMMANDS)}"


def train(arguments: Sequence[str] | None = None) -> int:
    """Run ``xpnet train``, or the other command that is the first word; see :func:`main`."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    if words and words[0] in ("search", "predict"):
        return _run_command(f"train.py {words[0]}", _COMMANDS[words[0]][1], words[1:])
    return _run_command("train.py", training, words)


def _run_command(prog: str, command: ModuleType, arguments: Sequence[str]) -> int:
    """Run one command as a program with this name."""
    parser = Parser(prog=prog, description=command.DESCRIPTION)
    _add_arguments(parser, command)
    return run(parser, arguments)


def _add_arguments(parser: Parser, command: ModuleType) -> None:
    command.add_arguments(parser)
    parser.set_defaults(work=command.work, prog=parser.prog, usage=parser.format_usage())
