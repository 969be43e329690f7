"""Runs one command line in a process that does not outlive the server that has started it. Loads nothing of the SDK."""

import os
import signal
import sys
from typing import Final

from backprop.cli.main import main

PR_SET_PDEATHSIG: Final = 1
ORPHANED: Final = 1


def run_command_line() -> None:
    """Run the command line of this process, whose first word is the server's pid. Does not return."""
    import ctypes

    server = int(sys.argv.pop(1))
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != server:
        os._exit(ORPHANED)  # it died before that
    main()
