#!/usr/bin/env python3
"""Train the classifiers from a checkout, installed or not: ``python train.py --help``."""

import sys

from xpnet.cli import main

if __name__ == "__main__":
    sys.exit(main())
