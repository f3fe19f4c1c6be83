"""Where benchmarks run: the project, its folder of results, and the process's variables."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

__all__ = [
    "BY_HAND",
    "RESULTS",
    "ROOT",
    "THREADS",
    "cannot_write",
    "output_of",
    "processor_name",
    "restart_without",
]

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench" / "results"
# Prefixes of variables that configure a library by hand; measurements want its own choices.
BY_HAND = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE", "XLA_FLAGS", "GOMP_", "KMP_", "OMP_WAIT")
THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


def restart_without(*beginnings: str) -> None:
    """Restart this command without variables of these prefixes, which a BLAS reads on loading."""
    kept = {name: text for name, text in os.environ.items() if not name.startswith(beginnings)}
    if len(kept) < len(os.environ):
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], kept)


def cannot_write(option: str, folder: Path) -> str | None:
    """Make a folder; return an error line if nothing can be written into it, else None."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        return f"{option}: cannot write into {folder}: {error.strerror or error}\n"
    return None


def output_of(*command: str) -> str:
    """Return what a program prints, or ``"unknown: ..."`` with the reason."""
    program = shutil.which(command[0])
    if program is None:
        return f"unknown: {command[0]} is not installed"
    done = subprocess.run(
        [program, *command[1:]], cwd=ROOT, capture_output=True, text=True, check=False, timeout=20
    )
    return done.stdout.strip() or f"unknown: {done.stderr.strip()}"


def processor_name() -> str:
    """Return the name, family and model of the processor."""
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8") as file:
            fields = dict(line.split(":", 1) for line in file if ":" in line)
    except OSError:
        return platform.processor() or "unknown"
    found = {key.strip(): value.strip() for key, value in fields.items()}
    family = f"family {found.get('cpu family', '?')} model {found.get('model', '?')}"
    return f"{found.get('model name', 'unknown')}, {family}"
