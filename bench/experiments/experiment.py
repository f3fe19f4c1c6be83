"""An experiment and its section of the page."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Experiment", "Results", "Section"]

Results = Mapping[str, Any]


@dataclass(frozen=True)
class Section:
    """An experiment's section of the page."""

    came_out: str  # the result in one sentence, for the table at the top
    lines: list[str]  # the section's text, in Markdown
    # PNG files, by the names that the lines use.
    pictures: dict[str, bytes] = field(default_factory=dict)
    # PNG files that may not be published; they are written beside the outcomes.
    own_pictures: dict[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class Experiment:
    """A published result, and the runs that repeat it.

    Attributes
    ----------
    name : str
        Name on the command line.
    title : str
        Heading of the section.
    claimed : str
        The published result in one sentence, for the table at the top.
    source : str
        Where the result was published. The text marks numbers that were not looked up there.
    runs : callable
        Takes whether the experiment is short, and returns each run's arguments by its name, as
        data for JSON. A short experiment takes seconds and only shows that it works.
    run : callable
        Carries out one run, and returns data for JSON.
    section : callable
        Takes the results by the names of the runs, and returns the section.
    recipes : tuple of str
        Names or files of recipes, relative to the project's root. An outcome is kept while its
        recipes stay the same.
    one_run : str
        Command that trains one of the networks, if there is one.
    n_threads : int
        Number of threads of a run. Single-threaded runs go side by side on all processors.
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
