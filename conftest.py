"""Options of pytest's that tests and benchmarks share."""

pytest_plugins = ["tests.devices", "tests.optional", "tests.shards"]
