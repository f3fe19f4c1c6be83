"""The command ``xpnet``, also as ``python -m xpnet``."""

import os
import signal
import sys


def run(command: str = "main", *, is_guarded: bool = False) -> int:
    """Import and run a function of :mod:`xpnet.cli`, such that Ctrl-C ends it with status 130.

    From here on: before, Python itself and NumPy, which the package needs, are coming up.

    Parameters
    ----------
    command : {"main", "train"}
    is_guarded : bool
        Whether the caller has already arranged, as is done here, that Ctrl-C during the imports
        ends the process there and then.

    Returns
    -------
    int
        The exit status.
    """
    is_default = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if is_default:
        signal.signal(signal.SIGINT, lambda *_: os._exit(130))
    from xpnet import cli

    if is_default or is_guarded:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    status: int = getattr(cli, command)()
    for name in ("stdout", "stderr"):
        try:
            if (stream := getattr(sys, name)) is not None:
                stream.flush()
        except OSError:  # known already; Python would say it again and end with another status
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123, SIM115
    return status


if __name__ == "__main__":
    sys.exit(run())
