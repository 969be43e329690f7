"""Imports each module named in argv in a process of its own, and prints as JSON what each one that fails raises.

Forked, not started: a process for each of four hundred modules takes seconds and not a minute. What is not ours is
imported once, before; of ours nothing is, so a circle of imports fails from whichever module it is entered.
"""

import contextlib
import importlib
import json
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

OURS = ("backprop", "benchmarks", "tools", "tests")


def child_says(what: Callable[[], str]) -> tuple[str, int]:
    """Return what `what` returns in a child of this process, and how the child ended."""
    receive, send = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(receive)
        with os.fdopen(send, "w") as pipe:
            pipe.write(what())
        os._exit(0)
    os.close(send)
    with os.fdopen(receive) as pipe:
        said = pipe.read()
    return said, os.waitpid(child, 0)[1]


def others() -> str:
    """Return the names of the modules that are not ours, and that ours import."""
    for name in sys.argv[1:]:
        with contextlib.suppress(BaseException):
            importlib.import_module(name)
    return "\n".join(name for name in sorted(sys.modules) if name.split(".")[0] not in OURS)


def why_not(name: str) -> str:
    """Return why a module cannot be imported, or nothing."""
    before = sorted(str(path) for path in Path().iterdir())
    try:
        importlib.import_module(name)
    except BaseException as error:
        return f"{type(error).__name__}: {error}"
    return "" if sorted(str(path) for path in Path().iterdir()) == before else "it writes files"


for name in child_says(others)[0].splitlines():
    with contextlib.suppress(BaseException):
        importlib.import_module(name)
failures: dict[str, str] = {}
for name in sys.argv[1:]:
    message, status = child_says(partial(why_not, name))
    if message or status:
        failures[name] = message or f"ended with {status}"
print(json.dumps(failures))
