"""A summary of the benchmarks of operations, with their memory traffic."""

from __future__ import annotations

from typing import Any

import pytest


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Print one line for each operation that was timed."""
    session = getattr(config, "_benchmarksession", None)
    timed = [
        bench for bench in getattr(session, "benchmarks", ()) if "reference_us" in bench.extra_info
    ]
    if not timed:
        return
    write = terminalreporter.write_line
    write("")
    write(
        "fused against reference: medians of alternating runs (and half the interquartile range); "
        "GB/s against a copy of as many bytes"
    )
    write(
        f"{'operation':<34}{'shape':>13} {'cache':<5}{'reference us':>18}{'fused us':>17}"
        f"{'ratio':>7}{'GB/s':>7}{'copy':>7}"
    )
    for bench in timed:
        info = bench.extra_info
        spread = "{0:10.1f} ({1:5.1f})"
        write(
            f"{info['operation']:<34}{info['shape']:>13} {info['cache']:<5}"
            f"{spread.format(info['reference_us'], info['reference_iqr_us'] / 2):>18}"
            f"{spread.format(info['fused_us'], info['fused_iqr_us'] / 2):>17}"
            f"{info['reference_us'] / info['fused_us']:>7.2f}"
            f"{info['GB/s']:>7.1f}{info['copy GB/s']:>7.1f}"
        )
