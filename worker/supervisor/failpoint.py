"""Named moments at which a test may end, stop or delay this process: BACKPROP_FAILPOINT=NAME:kill|stop|raise|sleep:MS.

Only where no system call stands between two steps that must not be told apart by whoever comes after; everywhere else
`strace -e inject=` needs no help from us. Without the variable, `at` compares a string with None. Standard library
only, imports nothing of ours: the worker and the supervisor share it.
"""

import os
import signal
import time

_WHERE, _, _WHAT = os.environ.get("BACKPROP_FAILPOINT", "").partition(":")


def at(name: str) -> None:
    """Do here what the environment says. Raises OSError for `raise`."""
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
