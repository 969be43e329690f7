"""Runs the installed command's `main` in a process that is forked and not started.

The process, its streams, its environment and its exit code are real. What an interpreter reads before it comes to our
code is not: a command for which that differs is started in the ordinary way.
"""

import atexit
import contextlib
import json
import os
import select
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path

COMMAND = Path(sys.executable).parent / "backprop"
IMPATIENT = Path(__file__).parent / "scripts" / "impatient.py"
"""Shortens waits of the command that it then runs."""
SERVER = Path(__file__).parent / "programs" / "command_server.py"
LIBRARIES = "LD_LIBRARY_PATH"
READ_AT_THE_START = ("PYTHON", "LC_", "LANG", "LD_", "BACKPROP_GPU")
"""How names begin that the loader, the interpreter or `import backprop` reads."""
_ASKS = threading.Lock()


def can_fork(command: Sequence[str], environment: dict[str, str]) -> bool:
    """Return whether this is the installed command, waits shortened or not, and starts under `environment` as a server
    here does: as these tests did, apart from where libraries are looked for."""
    if tuple(command) != (str(COMMAND),) and tuple(command[:2]) != (sys.executable, str(IMPATIENT)):
        return False
    ours, its = _read_at_the_start(dict(os.environ)), _read_at_the_start(environment)
    return ours | {LIBRARIES: ""} == its | {LIBRARIES: ""}


def run_forked(
    argv: list[str], environment: dict[str, str], cwd: Path, timeout_s: float
) -> subprocess.CompletedProcess[str]:
    """Do what `subprocess.run` does with captured text and an empty input."""
    outputs = {name: os.pipe() for name in ("stdout", "stderr", "reply")}
    try:
        _ask(argv, environment, cwd, [send for _, send in outputs.values()])
    finally:
        for _, send in outputs.values():
            os.close(send)
    texts = _read_all({receive: name for name, (receive, _) in outputs.items()}, argv, timeout_s)
    code = int(texts["reply"].split()[1])
    return subprocess.CompletedProcess(argv, code, texts["stdout"], texts["stderr"])


class ForkedProcess:
    """A command that goes on, in a session of its own: what tests use of `subprocess.Popen`. `output`: the descriptor
    that its output and its complaints go to."""

    def __init__(self, argv: list[str], environment: dict[str, str], cwd: Path, output: int) -> None:
        self.args = argv
        self.returncode: int | None = None
        self._reply, send = os.pipe()
        try:
            _ask(argv, environment, cwd, [output, output, send], session=True)
        finally:
            os.close(send)
        self._lines = os.fdopen(self._reply, buffering=1)
        self.pid = int(self._lines.readline())

    def poll(self) -> int | None:
        """Return its exit code, minus the signal that ended it; None while it lives."""
        return self._ended(0)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its exit code. Raises subprocess.TimeoutExpired."""
        if (code := self._ended(timeout)) is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _ended(self, within_s: float | None) -> int | None:
        if self.returncode is None and select.select([self._reply], [], [], within_s)[0]:
            with self._lines:
                self.returncode = int(self._lines.readline())
        return self.returncode


def _ask(
    argv: list[str], environment: dict[str, str], cwd: Path, outputs: Sequence[int], session: bool = False
) -> None:
    """Have a command run. `outputs`: descriptors for its two outputs and for the server's reply. `session`: the command
    gets one of its own."""
    request = {"argv": argv, "environment": environment, "cwd": str(cwd), "session": session}
    body = json.dumps(request).encode()
    with Path(os.devnull).open() as nothing, _ASKS:
        requests = _server(environment.get(LIBRARIES, ""))
        socket.send_fds(requests, [len(body).to_bytes(4)], [nothing.fileno(), *outputs])
        requests.sendall(body)


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
