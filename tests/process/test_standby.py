"""Supervisors that are kept started: what hangs holds up nobody, and a signal reaches the segment it is meant for."""

import os
import shlex
import socket
import subprocess
import time
from pathlib import Path

import msgspec
import pytest

from backprop.scheduler.config.settings import DEFAULTS
from backprop.scheduler.home import run_folder
from backprop.scheduler.lifecycle import State
from backprop.scheduler.spec import RunSpec
from backprop.scheduler.store.connection import Database
from backprop.worker.clock import Clock
from backprop.worker.console.console import Console
from backprop.worker.context import Context
from backprop.worker.executor import locks, segment_files, serving
from backprop.worker.executor.base import Life, SegmentOrder
from backprop.worker.executor.local import LocalExecutor
from backprop.worker.executor.standby import KEPT, StandbyPool, StandbySupervisor
from backprop.worker.machine.monitor import RuntimeMonitor
from tests.support.bare_supervisor import state
from tests.support.governor_cases import NoReader
from tests.support.harness import alive, stays_true, wait_until
from tests.support.store_rows import add_run, get

LATE = ("ask", "kill", "pause", "replace")


def _deaf(_: int) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(["sleep", "600"])


def test_one_too_many_that_hangs_holds_up_no_tick_and_is_killed() -> None:
    pool = StandbyPool(_deaf)
    pairs = [socket.socketpair() for _ in range(KEPT + 1)]
    standbys = [StandbySupervisor(_deaf(0), near) for near, _ in pairs]
    begun_s = time.monotonic()
    for standby in standbys:
        pool.keep(standby)
    assert time.monotonic() - begun_s < 2
    assert [standby.child.poll() for standby in standbys] == [None] * KEPT + [-9]
    pool.close()
    assert [standby.child.returncode for standby in standbys] == [-9] * (KEPT + 1)
    for _, far in pairs:
        far.close()


class _Worker:
    """An executor that keeps a supervisor started, and hands it one segment after the other."""

    def __init__(self, database: Database) -> None:
        self._database, self.executor = database, LocalExecutor(database.home)
        self.executor.prepare()

    def start(self, run_id: str, command: str) -> None:
        home = self._database.home
        spec = RunSpec(argv=("sh", "-c", command), program="/bin/sh", cwd=str(home.root))
        run = add_run(self._database, run_id, spec=spec)
        home.run_folder(run_id).mkdir()
        run_folder.write_spec(home.run_folder(run_id), run_id, run.name, spec, {}, 1.0)
        lock = locks.take(home.run_lock(run_id))
        assert lock is not None
        order = SegmentOrder(
            run=run, number=1, argv=spec.argv, environment={}, timebox_s=600.0, promised_mib=0, lock=lock
        )
        self.executor.start(order)

    def life(self, run_id: str) -> Life:
        return self.executor.poll(run_id, 1)[0]

    def supervisor(self, run_id: str) -> int:
        processes = segment_files.read_processes(self.executor.folder(run_id, 1))
        assert processes is not None
        return processes.supervisor[0]

    def collect(self) -> None:
        """Wait until the supervisor of an ended segment is free again, or gone."""
        wait_until(lambda: (self.executor.reap(), self.executor.wake_fds())[1] == [])

    def end(self, run_id: str) -> None:
        self.executor.kill(run_id, 1)
        wait_until(lambda: self.life(run_id) is Life.ENDED)
        self.collect()
        self.executor.close()


def _goes_on(worker: _Worker, run_id: str) -> None:
    leader = worker.executor.leader(run_id, 1)
    assert leader is not None
    stays_true(lambda: worker.life(run_id) is Life.ALIVE and state(leader.pid) != "T", 0.3)
    assert not (worker.executor.folder(run_id, 1) / "stop.json").exists()


@pytest.mark.parametrize("late", LATE)
def test_what_is_sent_to_an_ended_segment_does_not_reach_the_next_one(database: Database, late: str) -> None:
    """`backprop stop` signals a supervisor itself where the run's worker seems dead, as after a repair."""
    worker, other = _Worker(database), LocalExecutor(database.home)
    worker.start("first", "true")
    wait_until(lambda: worker.life("first") is Life.ENDED)
    worker.collect()
    worker.start("second", "sleep 600")
    wait_until(lambda: worker.executor.leader("second", 1) is not None)
    assert worker.supervisor("first") == worker.supervisor("second")
    getattr(other, late)("first", 1)
    _goes_on(worker, "second")
    worker.end("second")


@pytest.mark.parametrize("late", LATE)
def test_what_its_worker_sends_too_late_does_not_wait_for_the_next_one(database: Database, late: str) -> None:
    """A segment may end between the worker's look at it and its signal."""
    worker = _Worker(database)
    worker.start("first", "true")
    wait_until(lambda: worker.life("first") is Life.ENDED)
    getattr(worker.executor, late)("first", 1)
    worker.collect()
    worker.start("second", "sleep 600")
    wait_until(lambda: worker.executor.leader("second", 1) is not None)
    _goes_on(worker, "second")
    worker.end("second")


def test_a_supervisor_that_is_about_to_be_signalled_takes_no_other_segment(
    database: Database, tmp_path: Path
) -> None:
    worker, gate = _Worker(database), tmp_path / "gate"
    worker.start("first", f"until [ -e {shlex.quote(str(gate))} ]; do sleep 0.02; done")
    wait_until(lambda: worker.executor.leader("first", 1) is not None)
    with serving.kept_at(worker.executor.folder("first", 1)) as serves:
        assert serves
        gate.touch()
        worker.collect()
    assert worker.life("first") is Life.ENDED
    assert not worker.executor.is_ready()
    with serving.kept_at(worker.executor.folder("first", 1)) as serves:
        assert not serves
    worker.executor.close()


@pytest.mark.parametrize("name", ["order.json", "exit.json"])
@pytest.mark.parametrize("what", ["fifo", "folder", "link"])
def test_what_has_become_of_its_files_keeps_no_signal_back(database: Database, name: str, what: str) -> None:
    worker = _Worker(database)
    worker.start("run", "sleep 600")
    wait_until(lambda: worker.executor.leader("run", 1) is not None)
    path = worker.executor.folder("run", 1) / name
    path.unlink(missing_ok=True)
    if what == "fifo":
        os.mkfifo(path)
    elif what == "folder":
        path.mkdir()
    else:
        path.symlink_to(path.with_name("nowhere"))
    leader = worker.executor.leader("run", 1)
    assert leader is not None
    worker.executor.kill("run", 1)
    wait_until(lambda: not alive(leader.pid))
    wait_until(lambda: (worker.executor.reap(), worker.executor.wake_fds())[1] == [])
    assert name == "exit.json" or not worker.executor.is_ready(), "it takes no other segment"
    worker.executor.close()


def test_a_run_whose_files_cannot_be_read_keeps_no_other_from_being_paused(database: Database) -> None:
    worker = _Worker(database)
    worker.start("unread", "sleep 600")
    worker.start("other", "sleep 600")
    wait_until(lambda: all(worker.executor.leader(run, 1) is not None for run in ("unread", "other")))
    end = worker.executor.folder("unread", 1) / "exit.json"
    end.symlink_to(end)
    paused = [
        msgspec.structs.replace(get(database, run), state=State.PAUSED, segment=1)
        for run in ("unread", "other")
    ]
    context = Context(database.home, database, worker.executor, "w1", DEFAULTS, Clock(), Console(quiet=True))
    RuntimeMonitor(context, NoReader()).confirm(paused)
    leader = worker.executor.leader("other", 1)
    assert leader is not None
    wait_until(lambda: state(leader.pid) == "T")
    end.unlink()
    for run in ("unread", "other"):
        worker.executor.kill(run, 1)
    wait_until(lambda: {worker.life("unread"), worker.life("other")} == {Life.ENDED})
    worker.collect()
    worker.executor.close()


def test_the_end_of_a_worker_leaves_no_socket_open(database: Database) -> None:
    def sockets() -> list[str]:
        links = [str(entry.readlink()) for entry in Path("/proc/self/fd").iterdir() if entry.is_symlink()]
        return sorted(link for link in links if link.startswith("socket:"))

    before = sockets()
    worker = _Worker(database)
    worker.start("first", "sleep 600")
    wait_until(lambda: worker.executor.leader("first", 1) is not None)
    assert sockets() != before
    worker.executor.close()
    assert sockets() == before
    worker.executor.kill("first", 1)
    wait_until(lambda: worker.life("first") is Life.ENDED)
    worker.collect()
