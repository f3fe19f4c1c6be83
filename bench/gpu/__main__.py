"""The command line of the GPU gate, :mod:`bench.gpu`."""

from __future__ import annotations

import argparse
import contextlib
import datetime
import importlib
import io
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

from bench.environment import RESULTS, ROOT, cannot_write
from bench.gpu import report
from bench.gpu.outcome import Failed, Incomplete, Settings, Skipped
from bench.gpu.parts import PARTS
from xpnet.files import write_whole
from xpnet.kernels.cuda_check import cuda_problem

SECONDS = 520  # for all parts together
SLOWER = 20  # factor by which a rehearsal may be slower


def main() -> int:
    """Run the gate, or one part of it."""
    arguments = _parse()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # any output of a part can be printed
    if arguments.rehearse:
        _use_the_stand_in()
    os.environ["XPNET_DEVICE"] = "cuda"
    for variable in ("CUPY_TF32", "NVIDIA_TF32_OVERRIDE", "XPNET_PRECISION"):
        os.environ.pop(variable, None)  # so that every figure has the precision that it states
    problem = cuda_problem()
    if problem is not None:
        wanted = "rehearsal" if arguments.rehearse else "GPU to run on"
        sys.stderr.write(f"no {wanted}: {problem}\n")
        return 2
    settings = Settings(arguments.rehearse, arguments.quick, arguments.deadline)
    if arguments.part:
        return _run_here(arguments.part, settings, Path(arguments.result))
    folder = Path(arguments.out or (tempfile.mkdtemp() if arguments.rehearse else RESULTS))
    problem = cannot_write("--out", folder)
    if problem is not None:
        sys.stderr.write(problem)
        return 2
    return _run_all(settings, arguments.only or list(PARTS), folder)


def _use_the_stand_in() -> None:
    """Let ``import cupy`` find the tests' stand-in, here and in child processes."""
    site = str(ROOT / "tests" / "emulation" / "site")
    sys.path.insert(0, site)
    paths = [site, *filter(None, [os.environ.get("PYTHONPATH")])]
    os.environ["PYTHONPATH"] = os.pathsep.join(paths)
    os.environ["OPENBLAS_NUM_THREADS"] = "1"  # its products are small


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.gpu",
        description="Check and measure xpnet on a GPU, and write a page.",
    )
    parser.add_argument(
        "--rehearse", action="store_true", help="run on the stand-in for CuPy, at small sizes"
    )
    parser.add_argument(
        "--out",
        help="folder for the results (default: bench/results, or a new one for a rehearsal)",
    )
    parser.add_argument(
        "--only",
        nargs="+",
        choices=list(PARTS),
        metavar="PART",
        help=f"parts to run: {', '.join(PARTS)}",
    )
    parser.add_argument("--quick", action="store_true", help="run a few tests instead of all")
    hidden = argparse.SUPPRESS  # for the gate's own child processes
    parser.add_argument("--part", choices=list(PARTS), help=hidden)
    parser.add_argument("--result", help=hidden)
    parser.add_argument("--deadline", type=float, default=0.0, help=hidden)
    return parser.parse_args()


def _run_all(settings: Settings, parts: list[str], folder: Path) -> int:
    """Run every part in its own process, and write the results after each."""
    began = time.time()
    when = datetime.datetime.now(datetime.UTC)
    file = folder / f"{when:%Y-%m-%d-%H%M%S}-{_name(settings)}"
    found: dict[str, Any] = {
        "date": when.isoformat(timespec="seconds"),
        "emulated": settings.is_rehearsal,
        "seconds": 0.0,
        "parts": [],
    }
    for name in parts:
        left = SECONDS * (SLOWER if settings.is_rehearsal else 1) - (time.time() - began)
        sys.stdout.write(f"{name} ...\n")
        sys.stdout.flush()
        result = _run_apart(name, settings, left)
        sys.stdout.write(f"    {report.line(result, emulated=settings.is_rehearsal)}\n")
        found["parts"].append(result)
        found["seconds"] = round(time.time() - began, 1)
        write_whole(file.with_suffix(".json"), (json.dumps(found, indent=1) + "\n").encode())
        write_whole(file.with_suffix(".md"), report.page(found).encode())
        if result["status"] == "interrupted":
            break
    sys.stdout.write(f"\n{report.summary(found)}\nwritten: {file}.md and .json\n")
    statuses = {result["status"] for result in found["parts"]}
    return 130 if "interrupted" in statuses else int(bool(statuses & report.WRONG))


def _name(settings: Settings) -> str:
    """Return the GPU's name for a file name."""
    if settings.is_rehearsal:
        return "emulated"
    runtime = importlib.import_module("cupy").cuda.runtime
    name = runtime.getDeviceProperties(0)["name"].decode()
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def _run_apart(name: str, settings: Settings, left: float) -> dict[str, Any]:
    """Run a part in a child process, and return its outcome."""
    began = time.time()
    part = PARTS[name]
    limit = min(left, part.seconds * (SLOWER if settings.is_rehearsal else 1))
    if limit < 1:
        status = "not run" if part.is_check else "incomplete"
        return {"part": name, "status": status, "seconds": 0.0, "reason": "no time left"}
    with tempfile.TemporaryDirectory() as own:
        result = Path(own) / "result.json"
        command = [sys.executable, "-m", "bench.gpu", "--part", name, "--result", str(result)]
        command += ["--deadline", str(began + limit)]
        command += ["--rehearse"] if settings.is_rehearsal else []
        command += ["--quick"] if settings.is_quick else []
        try:
            found: dict[str, Any] = {"status": "failed", "reason": _run(command, limit)}
        except subprocess.TimeoutExpired:
            status = "failed" if part.is_check else "incomplete"
            found = {"status": status, "reason": f"took more than {limit:.0f} s"}
        except KeyboardInterrupt:
            found = {"status": "interrupted"}
        if result.exists():
            found = json.loads(result.read_text(encoding="utf-8"))
    return {"part": name, "seconds": round(time.time() - began, 1), **found}


def _run(command: list[str], limit: float) -> str:
    """Run a part, and return the reason for its failure, in case it leaves no result."""
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(command, cwd=ROOT, stderr=errors, start_new_session=True)
        try:
            process.wait(limit + 5)  # the part tries to keep its deadline itself
        finally:
            # Processes that it left behind would keep using the GPU.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        errors.seek(0)
        said = errors.read()[-2000:].decode(errors="replace")
        return f"exit status {process.returncode}: {said}"


def _run_here(name: str, settings: Settings, result: Path) -> int:
    """Run a part in this process."""
    try:
        rows = PARTS[name].run(settings)
        found: dict[str, Any] = {"status": "passed", "rows": rows}
    except Skipped as reason:
        found = {"status": "skipped", "reason": str(reason)}
    except (Failed, Incomplete) as error:
        status = "failed" if isinstance(error, Failed) else "incomplete"
        found = {"status": status, "reason": str(error), "rows": error.rows}
    except subprocess.TimeoutExpired as error:
        status = "failed" if PARTS[name].is_check else "incomplete"
        found = {"status": status, "reason": f"ran out of time: {error}"}
    except Exception:  # any error is the result of this part
        found = {"status": "failed", "reason": traceback.format_exc(limit=-6)}
    write_whole(result, json.dumps(found).encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
