"""What an experiment is, and what it leaves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Experiment", "Results", "Section"]

Results = Mapping[str, Any]


@dataclass(frozen=True)
class Section:
    """What an experiment has shown."""

    came_out: str  # a sentence with numbers, for the table on top
    lines: list[str]  # the rest, in Markdown
    # PNG files, by the names under which the lines refer to them.
    pictures: dict[str, bytes] = field(default_factory=dict)
    # Those that may not be published, and are written where outcomes are kept.
    own_pictures: dict[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class Experiment:
    """A published result, and the runs that repeat it.

    Attributes
    ----------
    name : str
        What to type.
    title : str
    claimed : str
        A sentence with numbers, for the table on top.
    source : str
        Where it was claimed; numbers that were not looked up there are called so.
    runs : callable
        Given whether the experiment is to be short, the arguments of every run by its name: plain
        data, fit for JSON. A short one takes seconds and shows nothing but that it works.
    run : callable
        Carries out one run, and gives plain data.
    section : callable
        Given the runs' results by their names, what they show.
    recipes : tuple of str
        What :func:`xpnet.load_recipe` takes, files counted from the project's root. Outcomes are
        kept for as long as these say the same.
    one_run : str
        How one of the runs goes by itself on the command line, if it does.
    n_threads : int
        Of a run. Runs with one thread go side by side on all processors.
    """

    name: str
    title: str
    claimed: str
    source: str
    runs: Callable[[bool], dict[str, dict[str, Any]]]
    run: Callable[..., Any]
    section: Callable[[Results], Section]
    recipes: tuple[str, ...] = ()
    one_run: str = ""
    n_threads: int = 1
