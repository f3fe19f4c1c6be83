#!/usr/bin/env python3
"""Train the classifiers from a checkout, installed or not: ``python train.py --help``."""

import sys

try:
    from xpnet.cli import main
except KeyboardInterrupt:
    sys.exit(130)

if __name__ == "__main__":
    sys.exit(main())
