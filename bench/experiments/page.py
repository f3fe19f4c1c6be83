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
    """An experiment and its outcome."""

    experiment: Experiment
    section: Section | None
    missing: str  # why there is no section
    kept: Sequence[Mapping[str, Any]]  # one for each finished run, see running.run_here

    @property
    def minutes(self) -> float:
        """Minutes that all runs take, as many at a time as there are processors."""
        n_threads = self.experiment.n_threads
        at_a_time = [max(found["machine"]["processors"] // n_threads, 1) for found in self.kept]
        seconds = (found["seconds"] for found in self.kept)
        return float(sum(s / n for s, n in zip(seconds, at_a_time, strict=True)) / 60)


def page(all_done: Sequence[Done], *, is_short: bool) -> str:
    """Write the page in Markdown."""
    lines = ["# Experiments: published results and ours", ""]
    if is_short:
        lines += [
            "**This is the short form: it shows that the experiments run, and its numbers mean "
            "nothing.**",
            "",
        ]
    lines += [
        "Here xpnet repeats published results: those of Andrew Ng's Deep Learning Specialization "
        "(deeplearning.ai, Coursera), called the course below, and those of papers. "
        "`make experiments` runs all experiments; `python -m bench.experiments NAME` runs one. "
        "Finished runs are kept and not repeated, so you can interrupt the command and resume it. "
        "The command writes this page, including its numbers.",
        "",
        *markdown.table(
            ("", "claimed", "our result", "command"),
            [
                (
                    f"[{done.experiment.title}](#{_anchor(done.experiment.title)})",
                    done.experiment.claimed,
                    _summarize(done),
                    f"`python -m bench.experiments {done.experiment.name}`",
                )
                for done in all_done
            ],
        ),
    ]
    for done in all_done:
        lines += ["", *_of(done)]
    return "\n".join([*lines, "", *_machines(all_done)]) + "\n"


def _machines(all_done: Sequence[Done]) -> list[str]:
    """Describe the runs' dates, duration and machine."""
    kept = [found for done in all_done for found in done.kept]
    if not kept:
        return []
    dates = sorted(found["date"][:10] for found in kept)
    minutes = sum(done.minutes for done in all_done)
    columns = list({repr(found["machine"]): found["machine"] for found in kept}.values())
    keys = list(dict.fromkeys(key for machine in columns for key in machine))
    when = dates[0] if dates[0] == dates[-1] else f"{dates[0]} to {dates[-1]}"
    return [
        "## Machine and time",
        "",
        f"{len(kept)} runs of {when}; {minutes:.0f} minutes in total, with single-threaded runs "
        "side by side on all processors.",
        "",
        *markdown.table(
            ("", *("" for _ in columns)),
            [(key, *(str(machine.get(key, "-")) for machine in columns)) for key in keys],
        ),
    ]


def _summarize(done: Done) -> str:
    return done.section.came_out if done.section else f"not available: {done.missing}"


def _of(done: Done) -> list[str]:
    experiment = done.experiment
    module = f"{experiment.run.__module__.rsplit('.', 1)[1]}.py"
    lines = [
        f"## {experiment.title}",
        "",
        f"- **Claimed:** {experiment.claimed} ({experiment.source}).",
        f"- **Our result:** {_summarize(done)}.",
        f"- **Repeat it:** `python -m bench.experiments {experiment.name} --again`"
        + (f", {max(done.minutes, 0.1):.1f} minutes" if done.kept else "")
        + f"; the settings are in [{module}](../../experiments/{module}).",
    ]
    if experiment.one_run:
        lines.append(f"- **Run one network:** `{experiment.one_run}`.")
    return [*lines, "", *done.section.lines] if done.section else lines


def _anchor(title: str) -> str:
    """Return GitHub's anchor for a heading."""
    kept = "".join(c for c in title.lower() if c.isalnum() or c in " -_")
    return kept.replace(" ", "-")
