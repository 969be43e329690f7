"""Runs the installed command's `main` to its end in a process that is forked and not started.

The process, its streams, its environment and its exit code are real. What an interpreter reads before it comes to our
code is not: a command for which that differs is started in the ordinary way.
"""

import atexit
import contextlib
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from functools import cache
from pathlib import Path

SERVER = Path(__file__).parent / "programs" / "command_server.py"
LIBRARIES = "LD_LIBRARY_PATH"
READ_AT_THE_START = ("PYTHON", "LC_", "LANG", "LD_", "BACKPROP_FAILPOINT", "BACKPROP_GPU")
"""How names begin that the loader, the interpreter or `import backprop` reads."""
_ASKS = threading.Lock()


def can_fork(environment: dict[str, str]) -> bool:
    """Return whether a command under `environment` starts as a server here does: as these tests did, apart from where
    libraries are looked for."""
    ours, its = _read_at_the_start(dict(os.environ)), _read_at_the_start(environment)
    return ours | {LIBRARIES: ""} == its | {LIBRARIES: ""}


def run_forked(
    argv: list[str], environment: dict[str, str], cwd: Path, timeout_s: float
) -> subprocess.CompletedProcess[str]:
    """Do what `subprocess.run` does with captured text and an empty input."""
    outputs = {name: os.pipe() for name in ("stdout", "stderr", "reply")}
    try:
        with Path(os.devnull).open() as nothing:
            given = [nothing.fileno(), *(send for _, send in outputs.values())]
            body = json.dumps({"argv": argv, "environment": environment, "cwd": str(cwd)}).encode()
            with _ASKS:
                requests = _server(environment.get(LIBRARIES, ""))
                socket.send_fds(requests, [len(body).to_bytes(4)], given)
                requests.sendall(body)
    finally:
        for _, send in outputs.values():
            os.close(send)
    texts = _read_all({receive: name for name, (receive, _) in outputs.items()}, argv, timeout_s)
    code = int(texts["reply"].split()[1])
    return subprocess.CompletedProcess(argv, code, texts["stdout"], texts["stderr"])


def _read_at_the_start(environment: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name.startswith(READ_AT_THE_START)}


@cache
def _server(libraries: str) -> socket.socket:
    """Start the server of this process for one value of LD_LIBRARY_PATH; the fake driver has its own."""
    ours, its = socket.socketpair()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("BACKPROP_")}
    environment |= {LIBRARIES: libraries}
    with its:
        process = subprocess.Popen(
            [sys.executable, str(SERVER)], stdin=its, stdout=subprocess.DEVNULL, env=environment
        )

    def end() -> None:
        ours.close()
        process.wait()

    atexit.register(end)
    return ours


def _read_all(descriptors: dict[int, str], argv: list[str], timeout_s: float) -> dict[str, str]:
    """Read each descriptor to its end and close it; end the command when time is out."""
    end = time.monotonic() + timeout_s
    read = dict.fromkeys(descriptors.values(), b"")
    with selectors.DefaultSelector() as selector:
        for descriptor in descriptors:
            selector.register(descriptor, selectors.EVENT_READ)
        while selector.get_map():
            if not (ready := selector.select(max(end - time.monotonic(), 0))):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(read["reply"].split()[0]), signal.SIGKILL)
                for descriptor in tuple(selector.get_map()):
                    os.close(descriptor)
                late = subprocess.TimeoutExpired(argv, timeout_s, read["stdout"], read["stderr"])
                late.add_note(f"until then:\n{read['stdout'].decode()}\n{read['stderr'].decode()}")
                raise late
            for key, _ in ready:
                if block := os.read(key.fd, 65536):
                    read[descriptors[key.fd]] += block
                else:
                    selector.unregister(key.fd)
                    os.close(key.fd)
    return {name: text.decode().replace("\r\n", "\n").replace("\r", "\n") for name, text in read.items()}
