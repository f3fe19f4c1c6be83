"""The command line of the GPU gate; see :mod:`bench.gpu`."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

from bench.gpu import report
from bench.gpu.parts import PARTS, Failed, Settings, Skipped
from xpnet.device import cuda_problem
from xpnet.files import write_whole

ROOT = Path(__file__).resolve().parent.parent.parent
RESULTS = ROOT / "bench" / "results"
SECONDS = 470  # for all parts together


def main() -> int:
    """Run the gate, or one part of it."""
    arguments = _parse()
    if arguments.rehearse:
        from tests import devices

        devices.emulate()
    os.environ["XPNET_DEVICE"] = "cuda"
    problem = cuda_problem()
    if problem is not None:
        sys.stderr.write(f"no GPU to run on: {problem}\n")
        return 2
    settings = Settings(arguments.rehearse, arguments.quick, arguments.deadline)
    if arguments.part:
        return _run_here(arguments.part, settings, Path(arguments.result))
    folder = Path(arguments.out or (tempfile.mkdtemp() if arguments.rehearse else RESULTS))
    return _run_all(settings, arguments, folder)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.gpu", description=__doc__)
    parser.add_argument(
        "--rehearse", action="store_true", help="on the stand-in for CuPy, at small sizes"
    )
    parser.add_argument(
        "--out", help="folder for the results (bench/results; of a rehearsal a new one)"
    )
    parser.add_argument(
        "--only", nargs="+", choices=list(PARTS), metavar="PART", help=", ".join(PARTS)
    )
    parser.add_argument("--quick", action="store_true", help="a few tests in place of all")
    hidden = argparse.SUPPRESS  # how the gate calls itself
    parser.add_argument("--part", choices=list(PARTS), help=hidden)
    parser.add_argument("--result", help=hidden)
    parser.add_argument("--deadline", type=float, default=0.0, help=hidden)
    return parser.parse_args()


def _run_all(settings: Settings, arguments: argparse.Namespace, folder: Path) -> int:
    """Run every part in a process of its own, and write down what came of it."""
    began = time.time()
    when = datetime.datetime.now(datetime.UTC)
    results: list[dict[str, Any]] = []
    for name in arguments.only or PARTS:
        left = SECONDS - (time.time() - began)
        sys.stdout.write(f"{name} ...\n")
        sys.stdout.flush()
        results.append(_run_apart(name, settings, left))
        sys.stdout.write(f"    {report.line(results[-1])}\n")
    found = {
        "date": when.isoformat(timespec="seconds"),
        "emulated": settings.is_rehearsal,
        "seconds": round(time.time() - began, 1),
        "parts": results,
    }
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{when:%Y-%m-%d-%H%M}-{'emulated' if settings.is_rehearsal else report.gpu(found)}"
    write_whole(folder / f"{name}.json", (json.dumps(found, indent=1) + "\n").encode())
    write_whole(folder / f"{name}.md", report.page(found).encode())
    sys.stdout.write(f"\n{report.summary(found)}\nwritten: {folder / name}.md and .json\n")
    return int(any(result["status"] == "failed" for result in results))


def _run_apart(name: str, settings: Settings, left: float) -> dict[str, Any]:
    began = time.time()
    limit = min(left, PARTS[name].seconds)
    if limit < 1:
        return {"part": name, "status": "failed", "seconds": 0.0, "reason": "no time is left"}
    with tempfile.TemporaryDirectory() as own:
        result = Path(own) / "result.json"
        command = [sys.executable, "-m", "bench.gpu", "--part", name, "--result", str(result)]
        command += ["--deadline", str(began + limit)]
        command += ["--rehearse"] if settings.is_rehearsal else []
        command += ["--quick"] if settings.is_quick else []
        reason = _run(command, limit)
        found: dict[str, Any] = {"status": "failed", "reason": reason}
        if result.exists():
            found = json.loads(result.read_text(encoding="utf-8"))
    return {"part": name, "seconds": round(time.time() - began, 1), **found}


def _run(command: list[str], limit: float) -> str:
    """Run a part, and give the reason for its failure if it leaves no result."""
    process = subprocess.Popen(
        command, cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        _, errors = process.communicate(timeout=limit + 5)  # it keeps to its deadline by itself
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # those that it started, too
        process.communicate()
        return f"it took more than {limit:.0f} s"
    return f"exit status {process.returncode}: {errors[-2000:]}"


def _run_here(name: str, settings: Settings, result: Path) -> int:
    """Run a part in this process."""
    try:
        rows = PARTS[name].run(settings)
        found: dict[str, Any] = {"status": "passed", "rows": rows}
    except Skipped as reason:
        found = {"status": "skipped", "reason": str(reason)}
    except Failed as error:
        found = {"status": "failed", "reason": str(error), "rows": error.rows}
    except Exception:  # whatever it is, it is the result of this part
        found = {"status": "failed", "reason": traceback.format_exc(limit=-6)}
    write_whole(result, json.dumps(found).encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
