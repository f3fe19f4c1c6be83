"""Whether the tests notice mistakes: puts one at a time into a copy of the code, and runs them.

``python -m tests.mutation`` goes through the mistakes in ``mutants.toml`` and prints a table: which
file of tests notices each, and whether ``make test`` does so or only ``make test-all``. It needs
the package coverage, and takes about an hour on two cores.

1. The repository is cloned into a working folder, the kernels are built for one instruction set,
   and all tests run once under coverage, which records the tests that reach each line.
2. For each mutant, the tests that reach the changed lines run, the quickest first, up to the first
   failure. A file that coverage cannot see into, such as a C++ header, is reached by
   :data:`NATIVE`; a line that runs on import, by the tests that reach any other line of its file.
3. A mutant that survives gets a run of all tests.

Results are kept in the working folder (``--work``): an interrupted run resumes.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
DEVICES = ("cpu", "emulated")
NATIVE = ("tests/kernels/", "tests/parity/", "tests/nn/test_captured.py", "tests/nn/test_step.py")
REBUILT = ("kernels/catalogue.py", "kernels/host_source.py")  # and all that is C++
TRACE, SELECT = "XPNET_MUTATION_TRACE", "XPNET_MUTATION_SELECT"
SOME, ALL = "make test", "make test-all"
NO_TESTS = 5  # an exit status of pytest
LIMIT = 3600.0  # seconds for one run of tests

# ---- as a plugin of pytest: pytest -p tests.mutation


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep the chosen tests, in their order."""
    if SELECT not in os.environ:
        return
    chosen = json.loads(Path(os.environ[SELECT]).read_text(encoding="utf-8"))
    if "order" in chosen:
        place = {name: number for number, name in enumerate(chosen["order"])}
        kept = [item for item in items if item.nodeid in place]
        kept.sort(key=lambda item: place[item.nodeid])
    else:
        left_out = set(chosen["without"])
        kept = [item for item in items if item.nodeid not in left_out]
        kept = [item for item in kept if _is_slow(item) == chosen["slow"]]
    config.hook.pytest_deselected(items=[item for item in items if item not in set(kept)])
    items[:] = kept


def _is_slow(item: pytest.Item) -> bool:
    return item.get_closest_marker("slow") is not None


class _Trace:
    """Tells coverage which test is running, and how long each took."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.seconds: dict[str, float] = {}
        self.failed: set[str] = set()
        self.slow: set[str] = set()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[Any]:
        from coverage import Coverage

        current = Coverage.current()
        assert current is not None
        current.switch_context(item.nodeid)
        if _is_slow(item):
            self.slow.add(item.nodeid)
        result = yield
        current.switch_context("")
        return result

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        before = self.seconds.get(report.nodeid, 0.0)
        self.seconds[report.nodeid] = before + report.duration
        if report.failed:
            self.failed.add(report.nodeid)

    def pytest_sessionfinish(self) -> None:
        kept = {"seconds": self.seconds, "failed": sorted(self.failed), "slow": sorted(self.slow)}
        self.out.write_text(json.dumps(kept), encoding="utf-8")


def pytest_configure(config: pytest.Config) -> None:
    if TRACE in os.environ:
        config.pluginmanager.register(_Trace(Path(os.environ[TRACE])))


# ---- as a command


@dataclass(frozen=True)
class Mutant:
    """A text in a file, and what is put in its place."""

    name: str
    area: str
    file: str
    text: str
    put: str

    def lines(self, source: str) -> range:
        """Give the numbers of the lines that it changes."""
        start = source.index(self.text)
        before = _n_equal(self.text, self.put)
        after = _n_equal(self.text[before:][::-1], self.put[before:][::-1])
        changed = range(start + before, max(start + len(self.text) - after, start + before + 1))
        first, last = (source.count("\n", 0, place) + 1 for place in (changed[0], changed[-1]))
        return range(first, last + 1)


def _n_equal(a: str, b: str) -> int:
    """Count the characters with which both begin."""
    return next(
        (n for n, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b))
    )


@dataclass(frozen=True)
class Outcome:
    """How a mutant fared: the file of tests that noticed it, or none, and by which command."""

    name: str
    killed_by: str | None
    command: str | None
    seconds: float


def mutants() -> list[Mutant]:
    """Read the table."""
    text = Path(__file__).with_name("mutants.toml").read_text(encoding="utf-8")
    return [Mutant(**entry) for entry in tomllib.loads(text)["mutant"]]


class Copy:
    """A clone of the repository at a revision, built for one instruction set."""

    def __init__(self, folder: Path, revision: str) -> None:
        self.folder = folder
        if not folder.exists():
            _do("git", "clone", "--quiet", "--shared", "--no-checkout", ROOT, folder, cwd=ROOT)
            _do("git", "checkout", "--quiet", "--detach", revision, cwd=folder)
            self.build()
        (folder / "tests" / "mutation.py").write_bytes(Path(__file__).read_bytes())
        # Before, there was one command.
        self.is_split = "test-all:" in (folder / "Makefile").read_text(encoding="utf-8")

    def build(self) -> bool:
        """Compile the kernels; False where that fails."""
        command = [sys.executable, "setup.py", "--quiet", "build_ext", "--inplace"]
        done = subprocess.run(
            command, cwd=self.folder, env=self._environment(), capture_output=True, check=False
        )
        return done.returncode == 0

    def run(
        self,
        device: str,
        what: Iterable[str],
        *options: str,
        under: Iterable[str] = (),
        **more: str,
    ) -> subprocess.CompletedProcess[str]:
        """Run tests on a device."""
        command = [sys.executable, "-m", *under, "pytest", "-p", "tests.mutation", "-q"]
        return subprocess.run(
            [*command, "-p", "no:cacheprovider", "--device", device, *options, *what],
            cwd=self.folder,
            env=self._environment(**more),
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
        )

    def _environment(self, **more: str) -> dict[str, str]:
        data = os.environ.get("XPNET_DATA_DIR", str(ROOT.parent / "shared" / "data"))
        own = {"XPNET_DATA_DIR": data} if Path(data).is_dir() else {}
        own |= {"XPNET_MULTIVERSION": "0", "OPENBLAS_NUM_THREADS": "1"}
        return {**os.environ, **own, "PYTHONPATH": str(self.folder), **more}


def _do(*command: Any, cwd: Path) -> None:
    subprocess.run([str(word) for word in command], cwd=cwd, check=True)


class Reach:
    """Which tests reach which lines, how long they take, and which fail in the code as it is."""

    def __init__(self, work: Path, copy: Copy) -> None:
        threads = [
            threading.Thread(target=self._trace, args=(work, copy, device))
            for device in DEVICES
            if not (work / f"{device}.json").exists()
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.folder, self.work = copy.folder, work
        self.seconds: dict[str, dict[str, float]] = {}
        self.slow: dict[str, set[str]] = {}
        self.failed: dict[str, list[str]] = {}
        for device in DEVICES:
            kept = json.loads((work / f"{device}.json").read_text(encoding="utf-8"))
            self.seconds[device], self.failed[device] = kept["seconds"], kept["failed"]
            self.slow[device] = set(kept["slow"]) if copy.is_split else set()

    @staticmethod
    def _trace(work: Path, copy: Copy, device: str) -> None:
        partial = work / f"{device}.partial"
        data = work / f"{device}.coverage"
        under = ("coverage", "run", "--source=xpnet,kernels", f"--data-file={data}", "-m")
        more = {TRACE: str(partial)}
        done = copy.run(device, ["tests"], under=under, **more)
        if not partial.exists():
            raise RuntimeError(done.stdout[-3000:] + done.stderr)
        partial.replace(work / f"{device}.json")

    def tests(self, mutant: Mutant, device: str) -> list[str]:
        """Give the tests that reach what a mutant changes, the quickest first."""
        seconds = self.seconds[device]
        found: set[str]
        if mutant.file.endswith(".py"):
            from coverage import CoverageData

            data = CoverageData(str(self.work / f"{device}.coverage"))
            data.read()
            path = self.folder / mutant.file
            by_line = data.contexts_by_lineno(str(path.resolve()))
            lines = mutant.lines(path.read_text(encoding="utf-8"))
            found = {test for line in lines for test in by_line.get(line, ())} - {""}
            if any("" in by_line.get(line, ()) for line in lines) or not found:
                found |= {test for tests in by_line.values() for test in tests} - {""}
        else:
            found = {test for test in seconds if test.startswith(NATIVE)}
        found -= set(self.failed[device])
        return sorted(found & seconds.keys(), key=seconds.__getitem__)


def kill(mutant: Mutant, copy: Copy, reach: Reach, *, is_full: bool) -> Outcome:
    """Put a mutant into a copy, and look for a test that fails."""
    begun = time.monotonic()
    file = copy.folder / mutant.file
    original = file.read_text(encoding="utf-8")
    if original.count(mutant.text) != 1:
        raise ValueError(f"{mutant.name}: its text must occur once in {mutant.file}")
    runs = [*_runs_of_what_reaches_it(mutant, reach)]
    if is_full:
        runs += [
            (command, device, {"without": reach.failed[device], "slow": command == ALL})
            for command in (SOME, ALL)
            for device in DEVICES
        ]
    is_native = not mutant.file.endswith(".py") or mutant.file in REBUILT
    file.write_text(original.replace(mutant.text, mutant.put), encoding="utf-8")
    killer = command = None
    try:
        if is_native and not copy.build():
            killer, command = "the compiler", SOME
        for command_of_run, device, selection in runs:
            if killer is None:
                quick = command_of_run == SOME and copy.is_split
                killer = _first_failure(copy, device, selection, is_quick=quick)
                command = killer and command_of_run
    finally:
        file.write_text(original, encoding="utf-8")
        if is_native:
            copy.build()
    return Outcome(mutant.name, killer, command, time.monotonic() - begun)


def _runs_of_what_reaches_it(
    mutant: Mutant, reach: Reach
) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Give runs of the tests that reach a mutant: the command, the device, and which tests."""
    for command in (SOME, ALL):
        for device in DEVICES:
            tests = reach.tests(mutant, device)
            if command == SOME:
                tests = [test for test in tests if test not in reach.slow[device]]
            if tests:
                yield command, device, {"order": tests}


def _first_failure(
    copy: Copy, device: str, selection: dict[str, Any], *, is_quick: bool
) -> str | None:
    """Run tests up to the first failure, and name the file it is in."""
    what = sorted({test.partition("::")[0] for test in selection.get("order", ["tests"])})
    options = ["-x", *(["--hypothesis-profile", "quick"] if is_quick else [])]
    with tempfile.NamedTemporaryFile("w", suffix=".json") as chosen:
        json.dump(selection, chosen)
        chosen.flush()
        try:
            done = copy.run(device, what, *options, **{SELECT: chosen.name})
        except subprocess.TimeoutExpired:
            return "out of time"
    if done.returncode in (0, NO_TESTS):
        return None
    for line in done.stdout.splitlines():
        if line.startswith(("FAILED ", "ERROR ")):
            return f"{line.split()[1].partition('::')[0]} ({device})"
    return f"pytest itself, status {done.returncode} ({device})"


def table(all_mutants: list[Mutant], outcomes: dict[str, Outcome]) -> str:
    """Write a Markdown table, and a line that counts."""
    lines = ["| area | mutant | noticed by | in | s |", "|---|---|---|---|---|"]
    for mutant in all_mutants:
        if mutant.name in outcomes:
            found = outcomes[mutant.name]
            by = found.killed_by or "**nothing**"
            lines.append(
                f"| {mutant.area} | {mutant.name} | {by} | {found.command or ''} "
                f"| {found.seconds:.0f} |"
            )
    counts = Counter(outcome.command for outcome in outcomes.values())
    lines += [
        "",
        f"{len(outcomes)} mutants: {counts[SOME]} noticed by {SOME}, {counts[ALL]} by {ALL} alone, "
        f"{counts[None]} by nothing.",
    ]
    return "\n".join(lines)


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def main() -> None:
    """Run the mutants, print the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=main.__doc__)
    parser.add_argument("--revision", default="HEAD", help="the commit to clone (HEAD)")
    parser.add_argument("--work", type=Path, help="a folder that keeps results (a temporary one)")
    parser.add_argument("--jobs", type=int, default=2, help="how many mutants at once (2)")
    parser.add_argument("--only", default="", help="mutants whose area or name contains this")
    parser.add_argument(
        "--no-full", dest="full", action="store_false", help="no run of all tests for survivors"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        work: Path = (options.work or Path(temporary)).absolute()
        work.mkdir(parents=True, exist_ok=True)
        copies = [Copy(work / f"copy {n}", options.revision) for n in range(options.jobs)]
        reach = Reach(work, copies[0])
        for device in DEVICES:
            n, failed = len(reach.seconds[device]), reach.failed[device]
            _say("\n  ".join([f"{device}: {n} tests, {len(failed)} fail under coverage", *failed]))
        chosen = [m for m in mutants() if options.only in m.area or options.only in m.name]
        done = work / "outcomes.jsonl"
        outcomes: dict[str, Outcome] = {}
        if done.exists():
            for line in done.read_text(encoding="utf-8").splitlines():
                outcome = Outcome(**json.loads(line))
                outcomes[outcome.name] = outcome
        waiting: queue.SimpleQueue[Mutant] = queue.SimpleQueue()
        for mutant in chosen:
            if mutant.name not in outcomes:
                waiting.put(mutant)
        lock = threading.Lock()

        def work_on(copy: Copy) -> None:
            while True:
                try:
                    mutant = waiting.get_nowait()
                except queue.Empty:
                    return
                outcome = kill(mutant, copy, reach, is_full=options.full)
                with lock:
                    outcomes[mutant.name] = outcome
                    with done.open("a", encoding="utf-8") as file:
                        file.write(json.dumps(asdict(outcome)) + "\n")
                    _say(f"{outcome.seconds:6.0f} s  {mutant.name}: {outcome.killed_by}")

        threads = [threading.Thread(target=work_on, args=(copy,)) for copy in copies]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        _say(table(chosen, outcomes))


if __name__ == "__main__":
    main()
