"""Drives other queues for one machine: task-spooler and nq from Debian, gflow and huey from PyPI."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

from benchmarks.tools import Tool, found, not_on_path
from benchmarks.workbench import wait_until


class TaskSpooler(Tool):
    """Each waiting job is a process connected to the server, which takes about 1,000 of them and lets the next wait
    outside."""

    name = "task-spooler"
    queues = 900
    queues_why = "fewer than 1,000"

    @staticmethod
    def missing() -> str | None:
        return not_on_path("tsp", "Debian's task-spooler")

    def open(self, slots: int) -> None:
        self.environment |= {"TS_SOCKET": str(self.folder / "ts"), "TMPDIR": str(self.folder)}
        self.call("tsp", "-S", str(slots))

    def enqueue(self, line: str) -> None:
        self.call("tsp", "-n", "sh", "-c", line)

    def close(self) -> None:
        self.call("tsp", "-K")

    def server(self) -> int | None:
        return _process_with(f"TS_SOCKET={self.folder / 'ts'}")


class Nq(Tool):
    """Has no server: each job is a process that waits for those before it."""

    name = "nq"
    slots = (1,)
    queues = 1000
    queues_why = "a process each"

    @staticmethod
    def missing() -> str | None:
        return not_on_path("nq", "Debian's nq")

    def open(self, slots: int) -> None:
        self.environment["NQDIR"] = str(self.folder / "nq")
        (self.folder / "nq").mkdir()

    def enqueue(self, line: str) -> None:
        self.call("nq", "-q", "sh", "-c", line)

    def close(self) -> None:
        self.call("nq", "-w")


class Gflow(Tool):
    name = "gflow"
    jobs = 20  # about a second each

    @staticmethod
    def missing() -> str | None:
        return not_on_path("gflowd", "PyPI's runqd")

    def open(self, slots: int) -> None:
        places = ("HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_RUNTIME_DIR", "TMUX_TMPDIR")
        self.environment |= {name: str(self.folder / name.lower()) for name in places}
        for name in places:
            Path(self.environment[name]).mkdir(mode=0o700)
        self.environment.pop("TMUX", None)
        self.environment["PATH"] = f"{Path(found('gflowd')).parent}:{self.environment['PATH']}"
        # Its jobs end with a command of its own, in a login shell, which may set a PATH of the system's.
        profile = Path(self.environment["HOME"]) / ".bash_profile"
        profile.write_text(f"PATH={self.environment['PATH']}\n")
        self._slots = slots
        self.call(found("gflowd"), "init", "--yes")
        self.call(found("gflowd"), "up")
        ask = [found("gqueue")]
        wait_until(lambda: subprocess.run(ask, env=self.environment, capture_output=True).returncode == 0)

    def enqueue(self, line: str) -> None:
        self.call(found("gbatch"), "sh", "-c", line)

    def enqueue_many(self, line: str, count: int) -> None:
        limit = ("--array", f"1-{count}", "--max-concurrent", str(self._slots))
        self.call(found("gbatch"), *limit, "sh", "-c", line)

    def close(self) -> None:
        self.call(found("gflowd"), "down")
        subprocess.run(["tmux", "kill-server"], env=self.environment, capture_output=True, check=False)
        # What its sessions piped their output to stays.
        for _ in range(1000):
            left = _process_with(f"XDG_DATA_HOME={self.environment['XDG_DATA_HOME']}")
            if left is None:
                return
            with suppress(ProcessLookupError):
                os.kill(left, signal.SIGKILL)
            time.sleep(0.01)

    def server(self) -> int | None:
        return _process_with(f"XDG_DATA_HOME={self.environment['XDG_DATA_HOME']}", "gflowd")


HUEY: Final = """\
import subprocess
from huey import SqliteHuey
huey = SqliteHuey(filename="huey.db", fsync=True)
@huey.task()
def job(line):
    subprocess.run(["sh", "-c", line])
"""


class Huey(Tool):
    name = "huey (SQLite)"

    @staticmethod
    def missing() -> str | None:
        try:
            subprocess.run([_python_with_huey(), "-c", "import huey"], check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            return "PyPI's huey is not installed beside this interpreter, nor in $PEERS_PYTHON"
        return None

    def open(self, slots: int) -> None:
        (self.folder / "jobs.py").write_text(HUEY)
        python = Path(_python_with_huey())
        consumer = [str(python), str(python.parent / "huey_consumer"), "jobs.huey"]
        consumer += ["-w", str(slots), "-d", "0.01", "-m", "0.01"]
        nowhere = subprocess.DEVNULL
        self._consumer = subprocess.Popen(consumer, cwd=self.folder, stdout=nowhere, stderr=nowhere)

    def enqueue(self, line: str) -> None:
        self.enqueue_many(line, 1)

    def enqueue_many(self, line: str, count: int) -> None:
        self.call(_python_with_huey(), "-c", f"import jobs\nfor _ in range({count}): jobs.job({line!r})")

    def close(self) -> None:
        self._consumer.terminate()
        self._consumer.wait(timeout=60)

    def server(self) -> int | None:
        return self._consumer.pid


def _python_with_huey() -> str:
    return os.environ.get("PEERS_PYTHON", sys.executable)


def _process_with(setting: str, name: str = "") -> int | None:
    """Return the oldest process with this line in its environment, whose command contains `name`."""
    for folder in sorted(Path("/proc").glob("[0-9]*"), key=lambda path: int(path.name)):
        try:
            has = setting.encode() in (folder / "environ").read_bytes().split(b"\0")
            if has and name.encode() in (folder / "cmdline").read_bytes():
                return int(folder.name)
        except OSError:
            continue
    return None
