#!/usr/bin/env python3
"""Train the classifiers from a checkout, installed or not: ``python train.py --help``."""

import os
import signal
import sys


def run() -> int:
    """Import xpnet and run its command line."""
    # While there is nothing to lose, Ctrl-C simply ends the process: in the middle of an import it
    # comes out as whatever error the imported module makes of it.
    is_default = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if is_default:
        signal.signal(signal.SIGINT, lambda *_: os._exit(130))
    from xpnet.cli import main

    if is_default:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    status = main()
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:  # said already; without this Python would say it again at exit
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115
    return status


if __name__ == "__main__":
    sys.exit(run())
