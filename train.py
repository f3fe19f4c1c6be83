#!/usr/bin/env python3
"""Train the classifiers from a checkout, installed or not: ``python train.py --help``."""

import os
import sys

try:
    from xpnet.cli import main
except KeyboardInterrupt:
    sys.exit(130)

if __name__ == "__main__":
    status = main()
    try:
        sys.stdout and sys.stdout.flush()
    except OSError:  # said already; without this Python would say it again at exit
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115
    sys.exit(status)
