"""Marks moments at which a test may end, stop or delay this process: BACKPROP_FAILPOINT=NAME:kill|stop|raise|sleep:MS.

There is one only where no system call separates two steps and a crash between them must make no difference; everywhere
else `strace -e inject=` needs no help. Without the variable, `at` only compares two strings. Standard library only,
imports nothing of Backprop: the worker and the supervisor share it.
"""

import os
import signal
import time

_WHERE, _, _WHAT = os.environ.get("BACKPROP_FAILPOINT", "").partition(":")


def at(name: str) -> None:
    """Do what the environment says for the failpoint `name`. Raises OSError for `raise`."""
    if name != _WHERE:
        return
    if _WHAT == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif _WHAT == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
    elif _WHAT.startswith("sleep:"):
        time.sleep(int(_WHAT.removeprefix("sleep:")) / 1000)
    elif _WHAT == "raise":
        raise OSError(5, f"failpoint {name}")
