"""What is going on while a fault strikes: who is traced, doing what, and how the story ends."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from backprop.scheduler.home import layout, run_folder
from backprop.scheduler.home.layout import Home
from backprop.scheduler.spec import RunSpec
from backprop.scheduler.store.connection import open_database
from backprop.scheduler.store.writes import user_requests as queue
from tests.faults.sweep import faults
from tests.faults.sweep.faults import Point
from tests.support import promises as books
from tests.support.harness import COMMAND, ROOT, SCRIPTS, processes_with, wait_until
from tests.support.store_rows import enqueue_run

LEDGER = SCRIPTS / "ledger.py"
RUN = "swept"
PATIENCE_S = 90.0
TRACEBACK = 1
DRAIN = ("worker", "--drain", "--gpu-probe", "none")
ONE_SLOT = (*DRAIN, "-p", "1")


@dataclass(frozen=True)
class Scene:
    """`prepare`: called before the strike. `words`: of the command that is traced, or whose supervisor is.

    `supervisor`: which of those that it starts is traced, for all its segments; 0 for the command itself. `command`:
    the installed one, rather than the driver. `ends`: how the run may end besides well, since the scene makes it so.
    """

    name: str
    prepare: "Callable[[Stage], None]"
    words: tuple[str, ...] = DRAIN
    supervisor: int = 0
    command: bool = False
    ends: tuple[str, ...] = ()


class Stage:
    """One home with one run in it, on which a scene is played once."""

    def __init__(self, folder: Path) -> None:
        self.home = Home(folder / "home")
        self.project = folder / "project"
        self.project.mkdir(parents=True)
        self.trace = folder / "trace"
        self.told = folder / "told"
        self.environment = {
            "BACKPROP_HOME": str(self.home.root),
            "PATH": f"{COMMAND.parent}:{os.environ['PATH']}",
            "HOME": str(folder),
            "PYTHONPATH": str(ROOT),
        }

    def queue(self, *words: str, timebox_s: float = 60.0, run: str = RUN, at_timebox: str = "end") -> None:
        """Queue a run of the ledger script, without a process for it."""
        database = open_database(layout.ensure(self.home))
        argv = (sys.executable, "-ISu", str(LEDGER), *words)
        spec = RunSpec(argv=argv, program=sys.executable, cwd=str(self.project), script=str(LEDGER), gpus=0,
                       timebox_s=timebox_s, at_timebox=at_timebox, grace_s=10.0, min_free_ram_mib=0,
                       max_cpu_load=1000.0, gpu_probe="none")  # fmt: skip
        _, folder = run_folder.create(self.home, run)
        now_s = time.time()
        run_folder.write_spec(folder, run, run, spec, self.environment, now_s)
        enqueue_run(database, run, run, spec, now_s, "queued")
        database.close()

    def files(self) -> list[Path]:
        """The files of ours that a fault may be aimed at."""
        root, run = self.home.root, self.home.run_folder(RUN)
        kept = ("spec.json", "spec.json.tmp", "run.lock", "outcome.json", "outcome.json.tmp")
        beside = ("order.json", "order.json.tmp", "log", "supervisor.log", "supervisor.lock", "processes.json",
                  "processes.json.tmp", "pause.json", "pause.json.tmp", "stop.json", "stop.json.tmp", "exit.json",
                  "exit.json.tmp", "suspend.json", "suspend.json.worker.tmp", "box.json", "box-1.json",
                  "box-2.json")  # fmt: skip
        return [
            self.home.database,
            Path(f"{self.home.database}-journal"),
            root,
            self.home.locks / "admission.lock",
            self.home.locks / "recovery.lock",
            run,
            *(run / name for name in kept),
            *(run / str(number) for number in (1, 2)),
            *(run / str(number) / name for number in (1, 2) for name in beside),
        ]

    def play(self, scene: Scene, strace: Sequence[str]) -> int:
        """Play the scene with one process under `strace` until it is over; the exit status of its command."""
        prefix, inner = (strace, ()) if scene.supervisor == 0 else ((), strace)
        if scene.command:
            command = [*prefix, str(COMMAND), *scene.words]
        else:
            command = [*prefix, *_driver(scene.supervisor, inner), *scene.words]
        return self._run(command)

    def finish(self, ends: Sequence[str] = ()) -> list[str]:
        """Nobody is disturbed any more: a worker drains the queue; what has not ended well is resumed, and drained
        again. Return what is wrong: no script here fails, so a run ends in one of `ends`, or well."""
        drain = [*_driver(0, ()), *DRAIN]
        self._run(drain)
        open_still = self._open()
        if not open_still:
            return []
        found = books.unfounded_ends(self.home.root)
        if not set(open_still.values()) <= set(ends) and not found:
            found = [f"I3: {open_still}, and no script and no user wanted that: {self._told()}"]
        self._run([str(COMMAND), "resume", *open_still])
        self._run(drain)
        return found

    def faults(self) -> list[str]:
        wait_until(lambda: not self.left(), timeout_s=30, saw=self.left)
        found = books.faults(self.home.root, self.project)
        if open_still := self._open():
            found.append(f"I3: in the end: {open_still}; {self._told()}")
        return found

    def recorded(self) -> list[str]:
        """I4: of each segment that began, the end is on record; for scenes in which no supervisor is struck."""
        book = books.read_book(self.project, RUN)
        missing = [
            number
            for number, _ in book.starts
            if not (self.home.segment_folder(RUN, number) / "exit.json").exists()
        ]
        return [f"I4: segments {missing} began and have no end on record"] if missing else []

    def left(self) -> list[int]:
        return processes_with(f"BACKPROP_HOME={self.home.root}")

    def close(self) -> None:
        for pid in self.left():
            os.kill(pid, signal.SIGKILL)

    def _told(self) -> str:
        return self.told.read_text()[-3000:]

    def _open(self) -> dict[str, str]:
        """Return the runs that have not completed, and their states."""
        states = {str(row["id"]): str(row["state"]) for row in books.rows(self.home.root, "runs")}
        return {run: state for run, state in states.items() if state != "completed"}

    def _run(self, command: Sequence[str]) -> int:
        with self.told.open("a") as told:
            process = subprocess.Popen(command, env=self.environment, cwd=self.project, stdin=subprocess.DEVNULL,
                                       stdout=told, stderr=told, start_new_session=True)  # fmt: skip
            try:
                code = process.wait(timeout=PATIENCE_S)
                told.write(f"ended with {code}\n")
                return code  # noqa: TRY300
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                told.write(f"\n{command} did not end\n")
                return -1


def _driver(nth: int, strace: Sequence[str]) -> list[str]:
    return [sys.executable, "-m", "tests.faults.sweep.driver", str(nth), json.dumps(list(strace)), "--"]


def _chain(stage: Stage) -> None:
    """Two segments: the first asks to be run again, the second ends."""
    stage.queue("--steps", "4", "--first", "2")


def _timebox(stage: Stage) -> None:
    """The first segment is asked to stop."""
    stage.queue("--steps", "6", "--pace", "0.1", timebox_s=0.3)


def _shared(stage: Stage) -> None:
    """Two runs that save at their end alone, in one slot: each is suspended and goes on, more than once."""
    for run in (RUN, "other"):
        stage.queue(
            "--steps",
            "10",
            "--pace",
            "0.1",
            "--save-every",
            "1000",
            timebox_s=0.4,
            run=run,
            at_timebox="auto",
        )


def _orphan(stage: Stage) -> None:
    """A segment under way, whose worker and supervisor have died."""
    stage.queue("--steps", "10", "--first", "8", "--pace", "0.15")
    worker = subprocess.Popen([*_driver(0, ()), *DRAIN], env=stage.environment, cwd=stage.project,
                              stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                              start_new_session=True)  # fmt: skip
    noted = stage.home.segment_folder(RUN, 1) / "processes.json"
    wait_until(lambda: bool(books.read_book(stage.project, RUN).starts) and noted.exists(), saw=stage.left)
    worker.kill()
    worker.wait()
    os.kill(int(json.loads(noted.read_text())["supervisor"][0]), signal.SIGKILL)


def _damaged(stage: Stage) -> None:
    """A run that has gone through one segment, and a database of which only a backup of before is whole."""
    stage.queue("--steps", "4", "--first", "2")
    (stage.home.root / "backups").mkdir(mode=0o700)
    shutil.copy(stage.home.database, stage.home.root / "backups" / "backprop-20260101-000000.db")
    with stage.home.database.open("r+b") as file:
        file.truncate(4096)


def _nothing(stage: Stage) -> None:
    """Not even a home."""


def _ended(stage: Stage) -> None:
    """A run that has ended, not well: its script wants to go on, and was told not to."""
    stage.queue("--steps", "4", "--first", "2")
    database = open_database(stage.home)
    spec = run_folder.read_spec(stage.home.run_folder(RUN))
    assert spec is not None
    from backprop.scheduler.home.run_folder import OutcomeFile
    from backprop.scheduler.store.reads import queries

    run = queries.run_by_id(database, RUN)
    assert run is not None
    state = queue.ask_to_stop(database, run, time.time())
    database.close()
    told = OutcomeFile(state=state.value, reason="stopped", segment=0, ended_at_s=time.time())
    run_folder.write_outcome(stage.home.run_folder(RUN), told)


LEDGER_RUN = ("run", "--run-id", RUN, "--min-free-ram", "0", "--max-cpu-load", "1000", "--gpu-probe", "none",
              str(LEDGER), "--", "--steps", "2")  # fmt: skip
SCENES = (
    Scene("worker", _chain),
    Scene("supervisor", _chain, supervisor=1),
    Scene("suspending worker", _shared, words=ONE_SLOT),
    Scene("suspended supervisor", _shared, words=ONE_SLOT, supervisor=1),
    Scene("adopter", _orphan, supervisor=1),
    Scene("timebox", _timebox, supervisor=1, ends=("timeboxed",)),
    Scene("repair", _damaged),
    Scene("first run", _nothing, words=LEDGER_RUN, command=True),
    Scene("resume", _ended, words=("resume", RUN), command=True, ends=("stopped",)),
)


def all_points(scene: Scene, folder: Path, kinds: Sequence[bool] = (False, True)) -> list[Point]:
    """Play the scene undisturbed and count: every fault that can strike it. `kinds`: see `Point.filed`."""
    found: list[Point] = []
    for filed in kinds:
        stage = Stage(folder / f"count-{filed}")
        scene.prepare(stage)
        stage.play(scene, faults.counting(stage.trace, stage.files() if filed else ()))
        wait_until(lambda stage=stage: not stage.left(), saw=stage.left)
        found += faults.points(stage.trace, filed)
    return found


def strike(scene: Scene, point: Point, folder: Path) -> tuple[bool, list[str]]:
    """Play the scene with one fault, then let it end undisturbed: (whether the fault came to pass, what is wrong)."""
    stage = Stage(folder)
    try:
        scene.prepare(stage)
        code = stage.play(scene, point.strace(stage.trace, stage.files()))
        struck = faults.struck(stage.trace)
        found = stage.finish(scene.ends)
        found += stage.faults()
        if not scene.supervisor:
            found += stage.recorded()
        if code == TRACEBACK:
            found.append(f"it ended with a traceback: {stage.told.read_text()[-3000:]}")
        return struck, [f"{scene.name}, {point}: {fault}" for fault in found]
    finally:
        stage.close()
