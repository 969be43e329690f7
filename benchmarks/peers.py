"""Other queues beside ours, in one run on one machine: `python -m benchmarks.peers`, from the repository's root.

Each peer that is installed is measured, the others are named: task-spooler (`tsp`), nq and GNU parallel from Debian;
gflow (package `runqd`) and huey with SQLite from PyPI, looked for beside this interpreter and on PATH; plain `sh` is
the floor. The job is `true`, so what is measured is the queue. What each keeps of its promises when something dies is
not measured here: task-spooler's queue dies with its server, huey loses what runs, nq and parallel have no record.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.workbench import ALWAYS, COMMAND, wait_until

STAMP: Final = "date +%s.%N > stamp.tmp && mv stamp.tmp stamp"
PATIENCE_S: Final = 120.0
COUNT: Final = "echo >> done"


@dataclass(frozen=True)
class Figures:
    """`enqueue_ms`, `start_ms`: medians. `drained_a_s`: trivial runs a second by slots; None where it has no such."""

    tool: str
    enqueue_ms: float
    start_ms: float | None
    drained_a_s: dict[int, float | None]


class Queue(ABC):
    """One tool in a folder of its own. A job is a line for `sh -c`, run in that folder."""

    name: str
    slots: tuple[int, ...] = (1, 2)
    jobs: int = 200

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment: dict[str, str] = dict(os.environ)

    @staticmethod
    @abstractmethod
    def missing() -> str | None:
        """Why it cannot be measured here; None if it can."""

    @abstractmethod
    def open(self, slots: int) -> None: ...

    @abstractmethod
    def enqueue(self, line: str) -> None: ...

    @abstractmethod
    def close(self) -> None: ...

    def enqueue_many(self, line: str, count: int) -> None:
        for _ in range(count):
            self.enqueue(line)

    def call(self, *words: str) -> None:
        subprocess.run(
            words,
            check=True,
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )


class TaskSpooler(Queue):
    name = "task-spooler"

    @staticmethod
    def missing() -> str | None:
        return _not_on_path("tsp", "Debian's task-spooler")

    def open(self, slots: int) -> None:
        self.environment |= {"TS_SOCKET": str(self.folder / "ts"), "TMPDIR": str(self.folder)}
        self.call("tsp", "-S", str(slots))

    def enqueue(self, line: str) -> None:
        self.call("tsp", "-n", "sh", "-c", line)

    def close(self) -> None:
        self.call("tsp", "-K")


class Nq(Queue):
    name = "nq"
    slots = (1,)

    @staticmethod
    def missing() -> str | None:
        return _not_on_path("nq", "Debian's nq")

    def open(self, slots: int) -> None:
        self.environment["NQDIR"] = str(self.folder / "nq")
        (self.folder / "nq").mkdir()

    def enqueue(self, line: str) -> None:
        self.call("nq", "-q", "sh", "-c", line)

    def close(self) -> None:
        self.call("nq", "-w")


class Gflow(Queue):
    name = "gflow"
    jobs = 6  # some seconds each here

    @staticmethod
    def missing() -> str | None:
        return _not_on_path("gflowd", "PyPI's runqd")

    def open(self, slots: int) -> None:
        places = ("HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_RUNTIME_DIR", "TMUX_TMPDIR")
        self.environment |= {name: str(self.folder / name.lower()) for name in places}
        for name in places:
            Path(self.environment[name]).mkdir(mode=0o700)
        self.environment.pop("TMUX", None)
        self.environment["PATH"] = (
            f"{Path(_found('gflowd')).parent}:{self.environment['PATH']}"  # its jobs call it
        )
        self._slots = slots
        self.call(_found("gflowd"), "init", "--yes")
        self.call(_found("gflowd"), "up")
        wait_until(
            lambda: (
                subprocess.run([_found("gqueue")], env=self.environment, capture_output=True).returncode == 0
            )
        )

    def enqueue(self, line: str) -> None:
        self.call(_found("gbatch"), "sh", "-c", line)

    def enqueue_many(self, line: str, count: int) -> None:
        limit = ("--array", f"1-{count}", "--max-concurrent", str(self._slots))
        self.call(_found("gbatch"), *limit, "sh", "-c", line)

    def close(self) -> None:
        self.call(_found("gflowd"), "down")
        subprocess.run(["tmux", "kill-server"], env=self.environment, capture_output=True, check=False)


HUEY: Final = """\
import subprocess
from huey import SqliteHuey
huey = SqliteHuey(filename="huey.db", fsync=True)
@huey.task()
def job(line):
    subprocess.run(["sh", "-c", line])
"""


class Huey(Queue):
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
        consumer = [
            str(python),
            str(python.parent / "huey_consumer"),
            "jobs.huey",
            "-w",
            str(slots),
            "-d",
            "0.01",
            "-m",
            "0.01",
        ]
        nowhere = subprocess.DEVNULL
        self._consumer = subprocess.Popen(consumer, cwd=self.folder, stdout=nowhere, stderr=nowhere)

    def enqueue(self, line: str) -> None:
        self.enqueue_many(line, 1)

    def enqueue_many(self, line: str, count: int) -> None:
        self.call(_python_with_huey(), "-c", f"import jobs\nfor _ in range({count}): jobs.job({line!r})")

    def close(self) -> None:
        self._consumer.terminate()
        self._consumer.wait()


class Parallel(Queue):
    name = "GNU parallel"

    @staticmethod
    def missing() -> str | None:
        return _not_on_path("parallel", "Debian's parallel")

    def open(self, slots: int) -> None:
        self._command = ["parallel", "-j", str(slots)]

    def enqueue(self, line: str) -> None:
        subprocess.run(self._command, input=line, text=True, cwd=self.folder, check=True, capture_output=True)

    def enqueue_many(self, line: str, count: int) -> None:
        text = f"{line}\n" * count
        subprocess.run(self._command, input=text, text=True, cwd=self.folder, check=True, capture_output=True)

    def close(self) -> None:
        return


class Shell(Parallel):
    name = "sh, xargs (the floor)"

    @staticmethod
    def missing() -> str | None:
        return None

    def open(self, slots: int) -> None:
        self._command = ["xargs", "-P", str(slots), "-d", "\n", "-n", "1", "sh", "-c"]


class Backprop(Queue):
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
        self.call(str(COMMAND), "run", "-q", *ALWAYS, "--gpu-probe", "none", "--", "sh", "-c", line)

    def enqueue_many(self, line: str, count: int) -> None:
        once = ("--array", f"1-{count}")
        self.call(str(COMMAND), "run", "-q", *ALWAYS, "--gpu-probe", "none", *once, "--", "sh", "-c", line)

    def close(self) -> None:
        self._worker.terminate()
        self._worker.wait(timeout=60)


QUEUES: Final[tuple[type[Queue], ...]] = (Backprop, TaskSpooler, Nq, Gflow, Huey, Parallel, Shell)


def measure(kind: type[Queue], repeats: int, jobs: int) -> Figures:
    """All figures of one tool, each in a fresh folder with a fresh server."""
    with _opened(kind, 1) as queue:
        spent = [_timed(lambda: queue.enqueue("true")) for _ in range(repeats)]
    drained: dict[int, float | None] = dict.fromkeys((1, 2))
    for slots in kind.slots:
        with _opened(kind, slots) as queue:
            drained[slots] = _drain(queue, min(jobs, kind.jobs))
    with _opened(kind, 1) as queue:
        tries = 1 if kind is Gflow else max(repeats // 2, 3)
        starts = [] if kind in (Parallel, Shell) else [_start_s(queue) for _ in range(tries)]
    start_ms = statistics.median(starts) * 1000 if starts else None
    return Figures(kind.name, statistics.median(spent) * 1000, start_ms, drained)


def _drain(queue: Queue, jobs: int) -> float | None:
    """Runs a second, from the first command that queues them to the last end; None if that takes minutes."""
    counted = queue.folder / "done"
    begun_s = time.monotonic()
    queue.enqueue_many(COUNT, jobs)
    try:
        wait_until(lambda: counted.exists() and counted.stat().st_size >= jobs, timeout_s=PATIENCE_S)
    except TimeoutError:
        return None
    return jobs / (time.monotonic() - begun_s)


def _start_s(queue: Queue) -> float:
    """From the return of the command that queued it to the job's first instruction."""
    stamp = queue.folder / "stamp"
    stamp.unlink(missing_ok=True)
    queue.enqueue(STAMP)
    queued_s = time.time()
    wait_until(stamp.exists, timeout_s=60)
    time.sleep(0.3)  # its server goes back to sleep
    return float(stamp.read_text()) - queued_s


class _opened:  # noqa: N801 - used as a function
    def __init__(self, kind: type[Queue], slots: int) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="backprop-peers-"))
        self._queue, self._slots = kind(self._folder), slots

    def __enter__(self) -> Queue:
        self._queue.open(self._slots)
        return self._queue

    def __exit__(self, *_: object) -> None:
        self._queue.close()
        shutil.rmtree(self._folder, ignore_errors=True)


def _timed(action: Callable[[], None]) -> float:
    begun_s = time.monotonic()
    action()
    return time.monotonic() - begun_s


def _found(command: str) -> str:
    folders = (Path(sys.executable).parent, Path(os.environ.get("PEERS_PYTHON", sys.executable)).parent)
    return (
        shutil.which(command, path=os.pathsep.join([*map(str, folders), os.environ.get("PATH", "")]))
        or command
    )


def _not_on_path(command: str, package: str) -> str | None:
    return None if shutil.which(_found(command)) else f"{command} is not installed ({package})"


def _python_with_huey() -> str:
    return os.environ.get("PEERS_PYTHON", sys.executable)


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure Backprop beside other queues on this machine.")
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--jobs", type=int, default=200, help="trivial runs to drain")
    asked = parser.parse_args()
    print("| tool | enqueue one, ms | 1 slot, runs/s | 2 slots, runs/s | start latency, ms |")
    print("| --- | ---: | ---: | ---: | ---: |", flush=True)
    absent: list[str] = []
    for kind in QUEUES:
        why = kind.missing()
        if why is not None:
            absent.append(f"{kind.name}: {why}")
            continue
        seen = measure(kind, asked.repeats, asked.jobs)
        cells = [
            _cell(seen.enqueue_ms),
            _cell(seen.drained_a_s[1]),
            _cell(seen.drained_a_s[2]),
            _cell(seen.start_ms),
        ]
        print(f"| {seen.tool} | {' | '.join(cells)} |", flush=True)
    for line in absent:
        print(f"\nnot measured: {line}")


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}" if value < 100 else f"{value:.0f}"


if __name__ == "__main__":
    main()
