#!/usr/bin/env python3
"""Train the classifiers from a checkout, installed or not: ``python train.py --help``."""

import os
import signal
import sys

if __name__ == "__main__":
    # While there is nothing to lose, Ctrl-C simply ends the process: in the middle of an import it
    # comes out as whatever error the imported module makes of it.
    is_default = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if is_default:
        signal.signal(signal.SIGINT, lambda *_: os._exit(130))
    from xpnet.__main__ import run

    sys.exit(run("train", is_guarded=is_default))
