"""Drives tools that run jobs: the interface, Backprop, and tools without a queue as the floor.

Each works in a folder of its own. A job is a line for `sh -c`, run in that folder.
"""

import os
import shutil
import subprocess
import sys
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Final

from benchmarks.workbench import ALWAYS, COMMAND, wait_until

LONGEST_COMMAND_S: Final = 120.0
BLOCKER: Final = "while [ ! -e go ]; do sleep 0.2; done"
"""A job that keeps a slot busy until `release`."""


class Tool(ABC):
    """One tool. `queues`: how many jobs it takes while its slots are busy (0: it has no queue); `queues_why`: why no
    more."""

    name: str
    slots: tuple[int, ...] = (1, 2)
    jobs: int = 200
    queues: int = 10_000
    queues_why: str = ""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment: dict[str, str] = dict(os.environ)

    @staticmethod
    @abstractmethod
    def missing() -> str | None:
        """Return why it cannot be measured on this machine; None if it can."""

    @abstractmethod
    def open(self, slots: int) -> None: ...

    @abstractmethod
    def enqueue(self, line: str) -> None: ...

    @abstractmethod
    def close(self) -> None: ...

    def enqueue_many(self, line: str, count: int) -> None:
        """Queue `count` jobs, by one command where it has one. Raises CalledProcessError, TimeoutExpired."""
        for _ in range(count):
            self.enqueue(line)

    def server(self) -> int | None:
        """Return the pid of the process that waits for jobs; None where there is none."""
        return None

    def release(self) -> None:
        (self.folder / "go").touch()

    def call(self, *words: str) -> None:
        """Run a command of the tool, without its output: a server that it leaves behind would keep a pipe open."""
        subprocess.run(
            words,
            check=True,
            cwd=self.folder,
            env=self.environment,
            timeout=LONGEST_COMMAND_S,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )


class Backprop(Tool):
    name = "backprop"

    @staticmethod
    def missing() -> str | None:
        return None

    def open(self, slots: int) -> None:
        for name in [name for name in self.environment if name.startswith("BACKPROP_")]:
            del self.environment[name]
        self.environment["BACKPROP_HOME"] = str(self.folder / "home")
        with (self.folder / "worker.out").open("w") as out:
            command = [COMMAND, "worker", "-p", str(slots)]
            self._worker = subprocess.Popen(
                command, cwd=self.folder, env=self.environment, stdout=out, stderr=out, start_new_session=True
            )
        wait_until(lambda: "ready" in (self.folder / "worker.out").read_text())

    def enqueue(self, line: str) -> None:
        self._run("--", "sh", "-c", line)

    def enqueue_many(self, line: str, count: int) -> None:
        self._run("--array", f"1-{count}", "--", "sh", "-c", line)

    def close(self) -> None:
        self._worker.terminate()
        self._worker.wait(timeout=60)

    def server(self) -> int | None:
        return self._worker.pid

    def _run(self, *words: str) -> None:
        self.call(str(COMMAND), "run", "-q", *ALWAYS, "--gpu-probe", "none", *words)


class Parallel(Tool):
    """Runs the jobs it is given, and ends."""

    name = "GNU parallel"
    queues = 0

    @staticmethod
    def missing() -> str | None:
        return not_on_path("parallel", "Debian's parallel")

    def open(self, slots: int) -> None:
        self._command = ["parallel", "--will-cite", "-j", str(slots)]

    def enqueue(self, line: str) -> None:
        self.enqueue_many(line, 1)

    def enqueue_many(self, line: str, count: int) -> None:
        subprocess.run(
            self._command,
            input=f"{line}\n" * count,
            text=True,
            cwd=self.folder,
            check=True,
            capture_output=True,
            timeout=LONGEST_COMMAND_S,
        )

    def close(self) -> None:
        return


class Shell(Parallel):
    name = "xargs, sh"

    @staticmethod
    def missing() -> str | None:
        return None

    def open(self, slots: int) -> None:
        self._command = ["xargs", "-P", str(slots), "-d", "\\n", "-n", "1", "sh", "-c"]


def found(command: str) -> str:
    """Return the path of a tool's command: beside this interpreter, beside $PEERS_PYTHON, or on PATH; else its name."""
    folders = (Path(sys.executable).parent, Path(os.environ.get("PEERS_PYTHON", sys.executable)).parent)
    places = os.pathsep.join([*map(str, folders), os.environ.get("PATH", "")])
    return shutil.which(command, path=places) or command


def not_on_path(command: str, package: str) -> str | None:
    return None if shutil.which(found(command)) else f"{command} is not installed ({package})"
