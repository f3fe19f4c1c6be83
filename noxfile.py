"""The versions and extras that xpnet supports, and a run of tests with each: ``make compat``.

A cell is an interpreter and a set of packages: the oldest that pyproject.toml allows, the newest,
and those of the time of each release of scikit-learn. Older releases warn under newer packages, and
a warning fails a test. Each extra is installed by itself, and used.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import nox

nox.needs_version = ">=2025.2"
nox.options.default_venv_backend = "uv"


class Cell(NamedTuple):
    """What a cell installs."""

    python: str
    packages: tuple[str, ...] = ()  # besides those of pyproject.toml
    until: str | None = None  # only packages that are older than this day
    resolution: str = "highest"


CELLS = {
    "oldest": Cell("3.11", until="2025-06-15", resolution="lowest-direct"),
    "scikit-learn-1.6": Cell("3.11", ("scikit-learn==1.6.*",), "2025-06-15"),
    "scikit-learn-1.7": Cell("3.12", ("scikit-learn==1.7.*",), "2025-11-15"),
    "scikit-learn-1.8": Cell("3.12", ("scikit-learn==1.8.*",), "2026-04-15"),
    "scikit-learn-1.9": Cell("3.13", ("scikit-learn==1.9.*", "optuna==4.*"), "2026-10-15"),
    "newest": Cell("3.13"),
}
OPTUNA = "2026-02-01"  # the first release that xpnet works with is newer than some cells
QUICK = ("-m", "not slow", "--hypothesis-profile", "quick", "--device", "cpu")
PROBLEM = "import sys; from xpnet.kernels import host; sys.exit(host.problem())"


def define(name: str, cell: Cell) -> None:
    """Define the session of a cell."""

    @nox.session(name=name, python=cell.python)
    def tests(session: nox.Session) -> None:
        until = []
        if cell.until:
            optuna = max(cell.until, OPTUNA)
            until = ["--exclude-newer", cell.until, "--exclude-newer-package", f"optuna={optuna}"]
        extras = [f"--extra={extra}" for extra in ("data", "plot", "search", "test")]
        pyproject = ["--requirements=pyproject.toml", *extras]
        session.install(f"--resolution={cell.resolution}", *until, *pyproject, *cell.packages)
        # The tests run from the checkout: cells with one interpreter share its extension.
        if session.run("python", "-c", PROBLEM, silent=True, success_codes=[0, 1]):
            session.run("python", "setup.py", "--quiet", "build_ext", "--inplace")
            session.run("python", "-c", PROBLEM)
        processes = ["--numprocesses", "logical", "--dist", "worksteal"]
        # As in the Makefile.
        environment = {"OPENBLAS_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": None}
        session.run("python", "-m", "pytest", *processes, *QUICK, *session.posargs, env=environment)


for name, cell in CELLS.items():
    define(name, cell)

DECLARED = nox.project.load_toml("pyproject.toml")["project"]["optional-dependencies"]
EXTRAS = ["", *(extra for extra in DECLARED if extra not in ("bench", "test"))]
WHEELS: list[str] = []  # built once for all extras


@nox.session
@nox.parametrize("extra", EXTRAS, ids=[extra or "none" for extra in EXTRAS])
def extras(session: nox.Session, extra: str) -> None:
    """Install one extra by itself, and check that it does what it is for."""
    if not WHEELS:
        folder = Path(session.create_tmp()).resolve() / "dist"
        session.run("uv", "build", "--quiet", "--wheel", "--clear", f"--out-dir={folder}")
        WHEELS.extend(wheel.as_uri() for wheel in folder.glob("*.whl"))
    mpi = ["mpich"] if extra == "distributed" else []  # pyproject.toml says why it has no MPI
    session.install(f"xpnet[{extra}] @ {WHEELS[0]}", *mpi)
    session.run("python", "-P", "-W", "error", "tests/extras.py", extra)
