"""The page of results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench import markdown
from bench.experiments.experiment import Experiment, Section

__all__ = ["Done", "page"]


@dataclass(frozen=True)
class Done:
    """An experiment, and what has become of it.

    Attributes
    ----------
    experiment : Experiment
    section : Section or None
        None where runs are missing.
    missing : str
        Why, in that case.
    seconds : float
        Of all runs, added up.
    dates : sequence of str
        Of the runs, as ISO 8601.
    """

    experiment: Experiment
    section: Section | None
    missing: str
    seconds: float
    dates: Sequence[str]


def page(all_done: Sequence[Done], machine: Mapping[str, Any], *, is_short: bool) -> str:
    """Write the page in Markdown."""
    lines = ["# Experiments: published results and ours", ""]
    if is_short:
        lines += [
            "**A short form: it shows that the experiments run, and none of its numbers means "
            "anything.**",
            "",
        ]
    lines += [
        "Results of the course and of papers, repeated with xpnet. `make experiments` carries out "
        "all of them, `python -m bench.experiments NAME` one; what is there already is not "
        "repeated, so a command that was interrupted goes on where it stopped. This page is "
        "written by it, numbers and all.",
        "",
        *markdown.table(
            ("", "claimed", "came out", "to repeat"),
            [
                (
                    f"[{done.experiment.title}](#{_anchor(done.experiment.title)})",
                    done.experiment.claimed,
                    _came_out(done),
                    f"`python -m bench.experiments {done.experiment.name}`",
                )
                for done in all_done
            ],
        ),
    ]
    for done in all_done:
        lines += ["", *_of(done)]
    seconds = sum(done.seconds for done in all_done)
    dates = sorted(date for done in all_done for date in done.dates)
    lines += ["", "## The machine", ""]
    if dates:
        lines += [
            f"Runs of {dates[0][:10]} to {dates[-1][:10]}, {seconds / 60:.0f} minutes of one "
            "processor in all where a run has one thread; such runs go side by side.",
            "",
        ]
    lines += markdown.table(("", ""), [(key, str(value)) for key, value in machine.items()])
    return "\n".join(lines) + "\n"


def _came_out(done: Done) -> str:
    return done.section.came_out if done.section else f"not there: {done.missing}"


def _of(done: Done) -> list[str]:
    experiment = done.experiment
    module = f"{experiment.run.__module__.rsplit('.', 1)[1]}.py"
    lines = [
        f"## {experiment.title}",
        "",
        f"- **Claimed:** {experiment.claimed} ({experiment.source}).",
        f"- **Came out:** {_came_out(done)}.",
        f"- **To repeat:** `python -m bench.experiments {experiment.name} --again`, "
        f"{max(done.seconds / 60, 0.1):.1f} minutes of runs; the settings are in "
        f"[{module}](../../experiments/{module}).",
    ]
    if experiment.one_run:
        lines.append(f"- **One run by itself:** `{experiment.one_run}`.")
    return [*lines, "", *done.section.lines] if done.section else lines


def _anchor(title: str) -> str:
    """Give the name that GitHub has for a heading."""
    kept = "".join(c for c in title.lower() if c.isalnum() or c in " -_")
    return kept.replace(" ", "-")
