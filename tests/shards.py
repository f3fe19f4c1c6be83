"""Sharing tests among processes: ``pytest --shard 2/6`` runs the second sixth of them."""

from __future__ import annotations

import re

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--shard", type=_shard, metavar="K/N", help="run the K-th of N shares")


def _shard(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d+)/(\d+)", text)
    if found is None or not 1 <= int(found[1]) <= int(found[2]):
        raise pytest.UsageError(f"--shard must be K/N with 1 <= K <= N, got {text!r}")
    return int(found[1]), int(found[2])


@pytest.hookimpl(trylast=True)  # of what is left to run
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("shard") is None:
        return
    number, n_shards = config.getoption("shard")
    config.hook.pytest_deselected(
        items=[item for n, item in enumerate(items) if n % n_shards != number - 1]
    )
    items[:] = items[number - 1 :: n_shards]
