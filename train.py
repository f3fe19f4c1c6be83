#!/usr/bin/env python3
"""Run ``xpnet train`` from a checkout, without installing it: ``python train.py --help``."""

import os
import signal
import sys

if __name__ == "__main__":
    # During the imports Ctrl-C ends the process at once: an imported module might turn
    # KeyboardInterrupt into an error of its own.
    is_default = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if is_default:
        signal.signal(signal.SIGINT, lambda *_: os._exit(130))
    from xpnet.__main__ import run

    sys.exit(run("train", is_guarded=is_default))
