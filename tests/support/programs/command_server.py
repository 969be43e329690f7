"""Runs `backprop` command lines, and a program that stands in for `backprop`, each in a fork of this process, which has
imported the whole product and run none of it: a start of the interpreter and the imports would cost ten times as much.
`tests/support/forked_command.py` asks.

Standard input is a socket. A request is the length of a JSON object as four bytes, sent with four descriptors (the
standard streams, and a pipe for the reply), and then the object: `argv`, `environment`, `cwd` and `session`, whether it
gets one of its own. The reply is a line with the pid of the fork, and a line with its exit code once it has ended.
"""

import contextlib
import gc
import importlib
import json
import os
import pkgutil
import runpy
import select
import socket
import sys
import time
from pathlib import Path
from typing import Any

from backprop.cli.main import main
from backprop.worker.supervisor import failpoint

PACKAGES = ("cli", "migrations", "scheduler", "worker")
ALONE = ("backprop.worker.supervisor", "backprop.worker.executor.vram.mover")
EXTRAS = ("backprop.cli.live.keys", "backprop.cli.mcp_server")
"""What an extra brings is twice as large as all the rest, and one command of a hundred uses it."""
OTHERS = ("importlib.metadata", "rich.console", "rich.table", "rich.text")


def import_everything() -> None:
    """Import what most commands import. The modules of programs that stand alone belong to no command."""
    for package in PACKAGES:
        found = importlib.import_module(f"backprop.{package}")
        for module in pkgutil.walk_packages(found.__path__, f"{found.__name__}."):
            if not module.name.startswith((*ALONE, *EXTRAS)):
                importlib.import_module(module.name)
    for name in OTHERS:
        importlib.import_module(name)


def serve(requests: socket.socket) -> dict[str, Any] | None:
    """Fork for each request. Return it in the fork, which has its streams by then; here, None when nobody can ask."""
    running: dict[int, tuple[int, int]] = {}  # by the descriptor of a fork: its pid, and where the reply goes
    while True:
        for ready in select.select([requests, *running], [], [])[0]:
            if ready is not requests:
                pid, reply = running.pop(ready)
                _reply(reply, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
                os.close(reply)
                os.close(ready)
                continue
            head, descriptors, _, _ = socket.recv_fds(requests, 4, 4)
            if not head:
                return None
            body = requests.recv(int.from_bytes(head), socket.MSG_WAITALL)
            reply = descriptors.pop()
            if (pid := os.fork()) == 0:
                for number, descriptor in enumerate(descriptors):
                    os.dup2(descriptor, number)
                open_ones = [
                    descriptor for fork, (_, other) in running.items() for descriptor in (fork, other)
                ]
                for descriptor in (*open_ones, *descriptors, reply):
                    os.close(descriptor)
                requests.close()
                return json.loads(body)
            for descriptor in descriptors:
                os.close(descriptor)
            _reply(reply, pid)
            running[os.pidfd_open(pid)] = (pid, reply)


def _reply(descriptor: int, number: int) -> None:
    with contextlib.suppress(BrokenPipeError):  # who asked waits no longer
        os.write(descriptor, f"{number}\n".encode())


import_everything()
gc.collect()
gc.freeze()
if (request := serve(socket.socket(fileno=os.dup(0)))) is not None:
    if request["session"]:
        os.setsid()
    os.environ.clear()
    os.environ.update(request["environment"])
    time.tzset()
    os.chdir(request["cwd"])
    importlib.reload(failpoint)  # it has read the environment
    sys.argv = request["argv"]
    if stands_in := sys.argv[0] == sys.executable:
        del sys.argv[0]
    sys.path[0] = str(Path(sys.argv[0]).parent)
    if stands_in:
        runpy.run_path(sys.argv[0], run_name="__main__")
    else:
        main()
