"""What the tests do without: packages beyond NumPy, pytest and pytest-benchmark.

Where one is not installed, files of tests that import it and tests that come across its absence are
skipped, and say so. Continuous integration (``CI=true``) has them all.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
import os
from collections import Counter
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

PACKAGES = [
    *("build", "h5py", "hypothesis", "ipykernel", "jax", "matplotlib", "nbclient", "nbformat"),
    *("onnx", "onnxruntime", "optuna", "pooch", "rich", "safetensors", "scipy", "setuptools"),
    *("sklearn", "threadpoolctl", "tomli_w", "torch", "ziglang"),
]
NOT_INSTALLED = " not installed"


@functools.cache
def missing() -> frozenset[str]:
    """Give the packages that are not installed, none in continuous integration."""
    if os.environ.get("CI") == "true":
        return frozenset()
    return frozenset(name for name in PACKAGES if importlib.util.find_spec(name) is None)


class _SkippedModule(pytest.Module):
    """A file of tests that is not imported."""

    lacking: list[str]

    def collect(self) -> list[Any]:
        pytest.skip(f"{', '.join(self.lacking)}{NOT_INSTALLED}", allow_module_level=True)


def pytest_pycollect_makemodule(
    module_path: Path, parent: pytest.Collector
) -> pytest.Module | None:
    lacking = _lacks(module_path, parent.config.rootpath)
    if not lacking:
        return None
    made: _SkippedModule = _SkippedModule.from_parent(parent, path=module_path)
    made.lacking = lacking
    return made


def _lacks(file: Path, root: Path) -> list[str]:
    """Give what a file cannot be imported without, itself or through another file of tests."""
    lacking: set[str] = set()
    if not missing():
        return []
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
        for name in names:
            lacking |= {name.partition(".")[0]} & missing()
            if name.startswith("xpnet.estimators"):  # which imports it at once
                lacking |= {"sklearn"} & missing()
            other = root.joinpath(*name.split(".")).with_suffix(".py")
            if name.startswith("tests.") and other.exists():
                lacking |= set(_lacks(other, root))
    return sorted(lacking)


def _lacking(error: BaseException | None) -> str | None:
    """Find the package for want of which an error was raised, itself or from that."""
    while error is not None:
        if isinstance(error, ModuleNotFoundError) and error.name is not None:
            package = error.name.partition(".")[0]
            return package if package in missing() else None
        error = error.__cause__
    return None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        needed = {name for mark in item.iter_markers("needs") for name in mark.args}
        lacking = ", ".join(sorted(needed & missing()))
        if lacking:
            item.add_marker(pytest.mark.skip(reason=f"{lacking}{NOT_INSTALLED}"))


def _or_skip() -> Generator[None, Any, Any]:
    try:
        return (yield)
    except Exception as error:
        package = _lacking(error)
        if package is None:
            raise
        pytest.skip(f"{package}{NOT_INSTALLED}")


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say what was skipped and why, a line for each reason."""
    skipped = terminalreporter.stats.get("skipped", [])
    reasons = Counter(report.longrepr[2].removeprefix("Skipped: ") for report in skipped)
    missing_packages = {reason for reason in reasons if reason.endswith(NOT_INSTALLED)}
    if missing_packages:
        n = sum(reasons.pop(reason) for reason in missing_packages)
        names = sorted(reason.removesuffix(NOT_INSTALLED) for reason in missing_packages)
        reasons[", ".join(names) + NOT_INSTALLED] = n
    for reason, n in reasons.most_common():
        terminalreporter.write_line(f"skipped {n}: {reason}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup() -> Generator[None, Any, Any]:
    return (yield from _or_skip())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Generator[None, Any, Any]:
    return (yield from _or_skip())
