"""Check that the tests notice mistakes: apply one at a time to a copy of the code, run the tests.

``python -m tests.mutation`` goes through the mistakes in ``mutants.toml`` and prints a table: which
file of tests notices each, and whether ``make test`` does so or only ``make test-all``. It takes
about an hour on two cores.

1. It clones a commit into a working folder, builds the kernels for one instruction set, and runs
   all tests once under coverage, which records the tests that reach each line.
2. For each mutant it runs the tests that reach the changed lines, the file's own ones and the
   quick ones first, up to the first failure, which must happen again with that test alone.
   Coverage does not see into C++: :data:`NATIVE` reaches what it is made of. A line that runs on
   import is reached by the tests that reach any other line of its file. What runs in another
   process is reached by no test.
3. For a mutant that survives it runs all tests, except those that fail under coverage.

Results stay in the working folder (``--work``), so that a run that was interrupted can be resumed.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import queue
import subprocess
import sys
import tempfile
import time
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
DEVICES = ("cpu", "emulated")
NATIVE = ("tests/kernels/", "tests/parity/", "tests/nn/test_captured.py", "tests/nn/test_step.py")
REBUILT = ("kernels/catalogue.py", "kernels/host_source.py")  # and all that is C++
# Variables of the environment that name files: what to write under coverage, what to run, and
# where to write the first failure.
TRACE, SELECT, FAILURE = (f"XPNET_MUTATION_{name}" for name in ("TRACE", "SELECT", "FAILURE"))
SOME, ALL = "make test", "make test-all"
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
    unwanted = set(items) - set(kept)
    config.hook.pytest_deselected(items=[item for item in items if item in unwanted])
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


class _FirstFailure:
    """Writes down the first test that fails, or the file that cannot be imported."""

    def __init__(self, out: Path) -> None:
        self.out = out

    def _note(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        if report.failed and not self.out.exists():
            self.out.write_text(report.nodeid, encoding="utf-8")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._note(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        self._note(report)


def pytest_configure(config: pytest.Config) -> None:
    for name, plugin in ((TRACE, _Trace), (FAILURE, _FirstFailure)):
        if name in os.environ:
            config.pluginmanager.register(plugin(Path(os.environ[name])))


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

    def apply(self, source: str) -> str:
        """Give the text of the file with the mistake."""
        if source.count(self.text) != 1:
            raise ValueError(f"{self.name}: its text must occur once in {self.file}")
        return source.replace(self.text, self.put)

    @property
    def is_native(self) -> bool:
        """Whether the kernels must be built again."""
        return not self.file.endswith(".py") or self.file in REBUILT


def _n_equal(a: str, b: str) -> int:
    """Count the characters with which both begin."""
    pairs = zip(a, b, strict=False)
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))


@dataclass(frozen=True)
class Outcome:
    """The file of tests that noticed a mutant, or none, and the command that runs it."""

    name: str
    killed_by: str | None
    command: str | None
    seconds: float
    is_full: bool = False  # whether all tests would have run, had it survived


def mutants() -> list[Mutant]:
    """Read the table."""
    text = Path(__file__).with_name("mutants.toml").read_text(encoding="utf-8")
    return [Mutant(**entry) for entry in tomllib.loads(text)["mutant"]]


class Copy:
    """A clone of the repository at a commit, built for one instruction set."""

    def __init__(self, folder: Path, commit: str) -> None:
        self.folder = folder
        if not folder.exists():
            _do("git", "clone", "--quiet", "--shared", "--no-checkout", ROOT, folder, cwd=ROOT)
        _do("git", "checkout", "--quiet", "--force", "--detach", commit, cwd=folder)
        (folder / "tests" / "mutation.py").write_bytes(Path(__file__).read_bytes())
        if not self.build():  # also after a run that was killed and left a mutant
            raise RuntimeError(f"the kernels in {folder} could not be built")
        # An older commit may have a single command.
        self.is_split = "test-all:" in (folder / "Makefile").read_text(encoding="utf-8")

    def build(self) -> bool:
        """Compile the kernels; tell whether they can be used."""
        check = "from xpnet.kernels import host; raise SystemExit(host.problem())"
        for words in (["setup.py", "--quiet", "build_ext", "--inplace"], ["-c", check]):
            done = subprocess.run(
                [sys.executable, *words],
                cwd=self.folder,
                env=self._environment(),
                capture_output=True,
                check=False,
            )
            if done.returncode:
                return False
        return True

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
        from tests.emulation import kernels

        data = os.environ.get("XPNET_DATA_DIR", str(ROOT.parent / "shared" / "data"))
        own = {"XPNET_DATA_DIR": data} if Path(data).is_dir() else {}
        own |= {"XPNET_MULTIVERSION": "0", "OPENBLAS_NUM_THREADS": "1", "COVERAGE_CORE": "ctrace"}
        own[kernels.FOLDER] = str(self.folder / "build")  # compiled once for all runs
        return {**os.environ, **own, "PYTHONPATH": str(self.folder), **more}


def _do(*command: Any, cwd: Path) -> None:
    subprocess.run([str(word) for word in command], cwd=cwd, check=True)


class Reach:
    """Which tests reach which lines, how long they take, and which fail in the code as it is."""

    def __init__(self, work: Path, copy: Copy) -> None:
        self.folder, self.work = copy.folder, work
        with ThreadPoolExecutor(len(DEVICES)) as pool:
            list(pool.map(lambda device: self._trace(copy, device), DEVICES))
        self.seconds: dict[str, dict[str, float]] = {}
        self.slow: dict[str, set[str]] = {}
        self.failed: dict[str, list[str]] = {}
        for device in DEVICES:
            kept = json.loads((work / f"{device}.json").read_text(encoding="utf-8"))
            self.seconds[device], self.failed[device] = kept["seconds"], kept["failed"]
            self.slow[device] = set(kept["slow"]) if copy.is_split else set()

    def _trace(self, copy: Copy, device: str) -> None:
        """Run all tests under coverage, unless that has been done."""
        kept, partial = self.work / f"{device}.json", self.work / f"{device}.partial"
        if kept.exists():
            return
        data = self.work / f"{device}.coverage"
        under = ("coverage", "run", "--source=xpnet,kernels", f"--data-file={data}", "-m")
        done = copy.run(device, ["tests"], under=under, **{TRACE: str(partial)})
        if done.returncode not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
            raise RuntimeError(done.stdout[-3000:] + done.stderr)
        partial.replace(kept)

    def tests(self, mutant: Mutant, source: str, device: str) -> list[str]:
        """Give the tests that reach what a mutant changes, in the order they are best tried in.

        Those of the file's own tests and of its own folder come first, the quickest first.
        """
        seconds = self.seconds[device]
        found: set[str] = set()
        if mutant.file.endswith(".py"):
            from coverage import CoverageData

            data = CoverageData(str(self.work / f"{device}.coverage"))
            data.read()
            by_line = data.contexts_by_lineno(str((self.folder / mutant.file).resolve()))
            lines = mutant.lines(source)
            found = {test for line in lines for test in by_line.get(line, ())} - {""}
            if any("" in by_line.get(line, ()) for line in lines) or not found:
                found |= {test for tests in by_line.values() for test in tests} - {""}
        if mutant.is_native:
            found |= {test for test in seconds if test.startswith(NATIVE)}
        found -= set(self.failed[device])
        module = Path(mutant.file)

        def place(test: str) -> tuple[bool, bool, float]:
            file = Path(test.partition("::")[0])
            return (
                file.stem != f"test_{module.stem}",
                file.parent.name != module.parent.name,
                seconds[test],
            )

        return sorted(found & seconds.keys(), key=place)

    def runs(self, mutant: Mutant, source: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
        """Give the command, the device and the selection of each run of what reaches a mutant."""
        for command in (SOME, ALL):
            for device in DEVICES:
                tests = self.tests(mutant, source, device)
                if command == SOME:
                    tests = [test for test in tests if test not in self.slow[device]]
                if tests:
                    yield command, device, {"order": tests}


def kill(mutant: Mutant, copy: Copy, reach: Reach, *, is_full: bool) -> Outcome:
    """Put a mutant into a copy, and look for a test that fails."""
    begun = time.monotonic()
    file = copy.folder / mutant.file
    original = file.read_text(encoding="utf-8")
    runs = list(reach.runs(mutant, original))
    if is_full:
        runs += [
            (command, device, {"without": reach.failed[device], "slow": command == ALL})
            for command in (SOME, ALL)
            for device in DEVICES
        ]
    (extension,) = (copy.folder / "kernels").glob("_host.*")
    built = extension.read_bytes()
    file.write_text(mutant.apply(original), encoding="utf-8")
    killer = command = None
    try:
        if mutant.is_native and not copy.build():
            killer, command = "the compiler", SOME
        for command_of_run, device, selection in runs:
            if killer is None:
                quick = command_of_run == SOME and copy.is_split
                killer = _killer(copy, device, selection, is_quick=quick)
                command = killer and (command_of_run if copy.is_split else SOME)
    finally:
        file.write_text(original, encoding="utf-8")
        if mutant.is_native:
            extension.unlink()  # it may be mapped by a process that is still there
            extension.write_bytes(built)
    return Outcome(mutant.name, killer, command, time.monotonic() - begun, is_full)


def _killer(copy: Copy, device: str, selection: dict[str, Any], *, is_quick: bool) -> str | None:
    """Run tests up to a failure that happens again, and name the file it is in."""
    while True:
        failed = _first_failure(copy, device, selection, is_quick=is_quick)
        if failed is None:
            return None
        alone = {"order": [failed]}
        if "::" not in failed or _first_failure(copy, device, alone, is_quick=is_quick):
            return f"{failed.partition('::')[0]} ({device})"
        if "order" in selection:  # it failed by chance, or because of those before it
            selection = {"order": [test for test in selection["order"] if test != failed]}
        else:
            selection = {**selection, "without": [*selection["without"], failed]}


def _first_failure(
    copy: Copy, device: str, selection: dict[str, Any], *, is_quick: bool
) -> str | None:
    """Run tests up to the first failure, and name it."""
    what = sorted({test.partition("::")[0] for test in selection.get("order", ["tests"])})
    options = ["-x", *(["--hypothesis-profile", "quick"] if is_quick else [])]
    with tempfile.TemporaryDirectory() as folder:
        chosen, failure = Path(folder, "chosen.json"), Path(folder, "failure")
        chosen.write_text(json.dumps(selection), encoding="utf-8")
        more = {SELECT: str(chosen), FAILURE: str(failure)}
        try:
            done = copy.run(device, what, *options, **more)
        except subprocess.TimeoutExpired:
            return "out of time"
        if failure.exists():
            return failure.read_text(encoding="utf-8")
    if done.returncode in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        return None
    if done.returncode == pytest.ExitCode.INTERRUPTED:
        raise KeyboardInterrupt
    return f"pytest itself, status {done.returncode}"  # a conftest that cannot be imported, say


def table(outcomes: Iterable[tuple[Mutant, Outcome]]) -> str:
    """Write a Markdown table, and a line that counts."""
    lines = ["| area | mutant | noticed by | in | s |", "|---|---|---|---|---|"]
    counts: Counter[str | None] = Counter()
    for mutant, found in outcomes:
        counts[found.command] += 1
        by = found.killed_by or "**nothing**"
        seconds = f"{found.seconds:.0f}"
        cells = (mutant.area, mutant.name, by, found.command or "", seconds)
        lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "",
        f"{counts.total()} mutants: {counts[SOME]} noticed by {SOME}, {counts[ALL]} by {ALL} "
        f"alone, {counts[None]} by nothing.",
    ]
    return "\n".join(lines)


def _kept(file: Path) -> dict[str, Outcome]:
    """Read the outcomes of an earlier run, by name."""
    if not file.exists():
        return {}
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    outcomes = [Outcome(**json.loads(line)) for line in lines if line.endswith("\n")]
    return {outcome.name: outcome for outcome in outcomes}


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
        named = ["git", "rev-parse", "--verify", f"{options.revision}^{{commit}}"]
        commit = subprocess.run(named, cwd=ROOT, check=True, capture_output=True, text=True).stdout
        of = work / "commit"
        if of.exists() and of.read_text(encoding="utf-8") != commit:
            parser.error(f"{work} holds results of another commit: name another folder")
        of.write_text(commit, encoding="utf-8")
        copies = [Copy(work / f"copy {n}", commit.strip()) for n in range(options.jobs)]
        reach = Reach(work, copies[0])
        for device in DEVICES:
            n, failed = len(reach.seconds[device]), reach.failed[device]
            _say("\n  ".join([f"{device}: {n} tests, {len(failed)} fail under coverage", *failed]))
        chosen = [m for m in mutants() if options.only in m.area or options.only in m.name]
        for mutant in chosen:
            mutant.apply((copies[0].folder / mutant.file).read_text(encoding="utf-8"))
        outcomes = _kept(work / "outcomes.jsonl")
        waiting = []
        for mutant in chosen:
            kept = outcomes.get(mutant.name)
            if kept is None or (kept.command is None and options.full and not kept.is_full):
                waiting.append(mutant)
        free: queue.SimpleQueue[Copy] = queue.SimpleQueue()
        for copy in copies:
            free.put(copy)

        def attempt(mutant: Mutant) -> Outcome:
            copy = free.get()
            try:
                return kill(mutant, copy, reach, is_full=options.full)
            finally:
                free.put(copy)

        with ThreadPoolExecutor(len(copies)) as pool:
            try:
                for future in as_completed([pool.submit(attempt, m) for m in waiting]):
                    outcome = future.result()
                    outcomes[outcome.name] = outcome
                    with (work / "outcomes.jsonl").open("a", encoding="utf-8") as file:
                        file.write(json.dumps(asdict(outcome)) + "\n")
                    _say(f"{outcome.seconds:6.0f} s  {outcome.name}: {outcome.killed_by}")
            finally:
                pool.shutdown(cancel_futures=True)
        _say(table((mutant, outcomes[mutant.name]) for mutant in chosen))


if __name__ == "__main__":
    main()
