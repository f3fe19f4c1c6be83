"""The command ``xpnet``, also run by ``python -m xpnet``."""

import os
import signal
import sys


def run(command: str = "main", *, is_guarded: bool = False) -> int:
    """Import and run a function of :mod:`xpnet.cli`; Ctrl-C ends it with status 130.

    While Python and NumPy start up, before this function is called, Ctrl-C has its usual effect.

    Parameters
    ----------
    command : {"main", "train"}
        Name of the function.
    is_guarded : bool
        Whether the caller has already made Ctrl-C end the process during the imports.

    Returns
    -------
    int
        Exit status.
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
        except OSError:  # already reported; Python would repeat it and change the exit status
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123, SIM115
    return status


if __name__ == "__main__":
    sys.exit(run())
