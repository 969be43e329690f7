"""Runs segments on this machine: one supervisor program beside each, found again by its locks and files.

The worker controls a supervisor by signals: TERM = let the segment checkpoint and end, QUIT = end it now,
USR1 = pause, USR2 = continue. A pid is only ever signalled together with its start time.
"""

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from backprop.scheduler.home.file_reading import open_regular
from backprop.scheduler.home.layout import Home
from backprop.worker.executor import locks, segment_files, serving, supervisor_program
from backprop.worker.executor.base import EndUnreadable, Life, NoSupervisor, SegmentOrder
from backprop.worker.executor.board import Board
from backprop.worker.executor.segment_files import ExitRecord, OrderFile, ProcessesFile
from backprop.worker.executor.standby import DiedAtStart, StandbyPool, StandbySupervisor
from backprop.worker.supervisor import failpoint, process_tree

INTRODUCTION_S: Final = 5.0
"""How long a new supervisor may take to write `processes.json` before it is taken for dead."""
READY_PATIENCE_S: Final = 0.5
"""How long a tick waits for a supervisor to be ready: ten times what an interpreter takes to start."""


class LocalExecutor:
    """Implements `base.Executor` for this machine."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self.board = Board(home.root)
        self._boot_id = process_tree.boot_id()
        self._children: dict[tuple[str, int], subprocess.Popen[bytes]] = {}
        self._pidfds: dict[tuple[str, int], int] = {}
        self._reused: dict[tuple[str, int], StandbySupervisor] = {}
        self._standbys = StandbyPool(supervisor_program.start_standby)
        self._program = supervisor_program.program_version()

    def start(self, order: SegmentOrder) -> None:
        folder, key = self.folder(order.run.id, order.number), (order.run.id, order.number)
        handed = (order.lock,) if order.promise is None else (order.lock, order.promise)
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            if order.before is not None:
                segment_files.write_before(folder, order.before)
            segment_files.write_order(folder, self._order_file(order))
            self._spawn(key, folder, handed)
            failpoint.at("launched")
            if order.promise is not None:
                self.board.name_holder(order.promise, self._children[key].pid)
        finally:
            # Closed, never unlocked: the supervisor holds the locks through its copies.
            for lock in handed:
                os.close(lock)

    def prepare(self) -> None:
        self._standbys.prepare()

    def make_ready(self, fresh: bool) -> bool:
        try:
            return self._standbys.make_ready(fresh, READY_PATIENCE_S)
        except OSError as error:
            raise self._no_supervisor(error) from error
        except DiedAtStart as error:
            missing = next(
                (
                    path
                    for path in (Path(sys.executable), supervisor_program.SUPERVISOR / "__main__.py")
                    if not path.exists()
                ),
                None,
            )
            told = f"a supervisor ended at its start ({error})" if missing is None else f"{missing} is gone"
            raise NoSupervisor(told + self._restart()) from error

    def is_ready(self) -> bool:
        return self._standbys.is_ready()

    def is_replaced(self) -> bool:
        return supervisor_program.program_version() != self._program

    def close(self) -> None:
        self._standbys.close()
        while self._reused:
            self._reused.popitem()[1].channel.close()
        self.board.sweep()

    def poll(self, run_id: str, number: int) -> tuple[Life, ExitRecord | None]:
        folder = self.folder(run_id, number)
        # Before anything else that may fail: an end on record is one, whatever has become of the segment's locks.
        with contextlib.suppress(OSError):
            if (record := segment_files.read_exit(folder)) is not None:
                return Life.ENDED, record
        held, trouble = self._holds_a_lock(run_id, folder)
        # From another container nobody can supervise it: all that is known is that it lives.
        unsupervised = Life.ALIVE if self._is_elsewhere(run_id, number) else Life.UNSUPERVISED
        if held:
            return (Life.ALIVE if self._supervisor_alive(run_id, number) else unsupervised), None
        # It holds a lock that was deleted under it, and has not started its leader yet.
        child_lives = self._child_lives(run_id, number)
        # Once more, after the locks: a supervisor writes its record before it releases them.
        try:
            if (record := segment_files.read_exit(folder)) is not None:
                return Life.ENDED, record
        except OSError as error:
            trouble = error
        if child_lives:
            return Life.ALIVE, None
        # Lock files may have been deleted under their holders. A second copy would be worse than a scan of /proc.
        if self._has_processes(run_id, number):
            return unsupervised, None
        if trouble is not None:
            raise EndUnreadable(trouble.errno, trouble.strerror, trouble.filename) from trouble
        return Life.LOST, None

    def ask(self, run_id: str, number: int) -> None:
        self._signal(run_id, number, signal.SIGTERM)

    def kill(self, run_id: str, number: int) -> None:
        self._signal(run_id, number, signal.SIGQUIT)

    def pause(self, run_id: str, number: int) -> None:
        self._signal(run_id, number, signal.SIGUSR1)

    def unpause(self, run_id: str, number: int) -> None:
        self._signal(run_id, number, signal.SIGUSR2)

    def rouse(self, run_id: str, number: int) -> None:
        self._signal(run_id, number, signal.SIGCONT)

    def replace(self, run_id: str, number: int) -> None:
        self._signal(run_id, number, signal.SIGKILL)

    def supervise(self, run_id: str, number: int) -> None:
        with contextlib.suppress(OSError):
            self._spawn((run_id, number), self.folder(run_id, number), ())

    def folder(self, run_id: str, number: int) -> Path:
        return self._home.segment_folder(run_id, number)

    def wake_fds(self) -> list[int]:
        channels = [standby.channel for standby in self._reused.values()]
        if self._standbys.awaited is not None:
            channels.append(self._standbys.awaited)
        return [*self._pidfds.values(), *(channel.fileno() for channel in channels)]

    def reap(self) -> None:
        for key, standby in list(self._reused.items()):
            if standby.is_free():
                del self._reused[key]
                self._forget(key)
                self._standbys.keep(standby)
        for key, child in list(self._children.items()):
            if child.poll() is not None:
                self._forget(key)
        for key, handle in list(self._pidfds.items()):
            if key not in self._children and _is_readable(handle):
                self._forget(key)

    def leader(self, run_id: str, number: int) -> process_tree.Process | None:
        """Return the leader's process if it is known and lives."""
        processes = self._processes(run_id, number)
        leader = process_tree.Process(*processes.leader) if processes is not None else None
        return leader if leader is not None and process_tree.alive(leader) else None

    def has_begun(self, run_id: str, number: int) -> bool:
        return self._processes(run_id, number) is not None or self._is_elsewhere(run_id, number)

    def is_recording(self, run_id: str, number: int) -> bool:
        processes = self._processes(run_id, number)
        if processes is None or process_tree.alive(process_tree.Process(*processes.leader)):
            return False
        supervisor = process_tree.Process(*processes.supervisor)
        return process_tree.alive(supervisor) and not process_tree.stopped(supervisor)

    def pids(self, run_id: str, number: int) -> frozenset[int]:
        processes = None
        with contextlib.suppress(OSError):
            processes = self._processes(run_id, number)
        if processes is None:
            return frozenset()
        supervisor, leader = processes.supervisor[0], processes.leader[0]
        below = process_tree.descendants(supervisor) or process_tree.descendants(leader)
        return frozenset({leader, *(process.pid for process in below)})

    def watch(self, run_id: str, number: int) -> None:
        """Add the end of a supervisor that is not a child of this worker to `wake_fds`."""
        with contextlib.suppress(OSError):
            processes = self._processes(run_id, number)
            if processes is not None and (run_id, number) not in self._pidfds:
                self._pidfds[run_id, number] = os.pidfd_open(processes.supervisor[0])

    def _order_file(self, order: SegmentOrder) -> OrderFile:
        spec = order.run.spec
        return OrderFile(
            spec=str(self._home.run_folder(order.run.id) / "spec.json"),
            program=spec.program,
            argv=order.argv,
            cwd=spec.cwd,
            umask=spec.umask,
            environment=order.environment,
            cookie=_cookie(order.run.id, order.number, order.environment),
            timebox_s=order.timebox_s,
            at_timebox=order.at_timebox.value,
            promised_mib=order.promised_mib,
            grace_s=spec.grace_s,
            stop_signal=int(signal.Signals[f"SIG{spec.stop_signal}"]),
            soft_limits=spec.soft_limits,
            signal_to=spec.signal_to,
        )

    def _holds_a_lock(self, run_id: str, folder: Path) -> tuple[bool, OSError | None]:
        """Return whether a process holds a lock of the segment, and the error of a lock that could not be tested.

        A supervisor that took over holds only its own lock, which is tested last: one that is starting finds it free.
        """
        trouble: OSError | None = None
        for path in (self._home.run_lock(run_id), folder / "log", folder / "supervisor.lock"):
            try:
                if locks.held(path):
                    return True, None
            except OSError as error:
                trouble = error
        return False, trouble

    def _spawn(self, key: tuple[str, int], folder: Path, handed: tuple[int, ...]) -> None:
        """Start a supervisor by exec; never by bare fork, which would share the database connection.

        `handed`: the locks that it and its leader are to hold; none for one that takes over.
        """
        standby = self._standbys.take(folder, handed) if handed else None
        if standby is not None:
            child = standby.child
        else:
            arguments = str(folder), *(str(lock) for lock in handed or (-1,))
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
            with open(open_regular(folder / "supervisor.log", flags), "ab") as errors:  # noqa: PTH123
                try:
                    child = supervisor_program.start_supervisor(arguments, handed, errors.fileno())
                except OSError as error:
                    raise self._no_supervisor(error) from error
        self._forget(key)
        self._children[key] = child
        if standby is not None:
            self._reused[key] = standby
        with contextlib.suppress(OSError):
            self._pidfds[key] = os.pidfd_open(child.pid)

    def _no_supervisor(self, error: OSError) -> NoSupervisor:
        where = f"{error.filename}: " if error.filename else ""
        return NoSupervisor(f"{where}{error.strerror or error}{self._restart()}")

    def _restart(self) -> str:
        """Return the advice to restart the worker, where its program is another one by now; else nothing."""
        return "; its program was replaced: restart the worker" if self.is_replaced() else ""

    def _signal(self, run_id: str, number: int, signal_number: signal.Signals) -> None:
        """Signal the segment's supervisor while it serves this segment. Raises OSError."""
        with serving.kept_at(self.folder(run_id, number)) as serves:
            if not serves:
                return
            child = self._children.get((run_id, number))
            if child is not None and child.poll() is None:
                child.send_signal(signal_number)
                return
            processes = self._processes(run_id, number)
            if processes is not None:
                process_tree.send(process_tree.Process(*processes.supervisor), signal_number)

    def _child_lives(self, run_id: str, number: int) -> bool | None:
        """Return whether the supervisor that this worker started lives; None where it started none."""
        child = self._children.get((run_id, number))
        return None if child is None else child.poll() is None

    def _supervisor_alive(self, run_id: str, number: int) -> bool:
        child_lives = self._child_lives(run_id, number)
        if child_lives is not None:
            return child_lives
        with contextlib.suppress(OSError):  # unreadable now; its lock tells too
            processes = self._processes(run_id, number)
            if processes is not None:
                return process_tree.alive(process_tree.Process(*processes.supervisor))
        if locks.held(self.folder(run_id, number) / "supervisor.lock"):
            return True  # the disk was too full for its `processes.json`
        with contextlib.suppress(OSError):
            # A clock that was set back since must not make it young for an hour.
            return abs(time.time() - self.folder(run_id, number).stat().st_mtime) < INTRODUCTION_S
        return False

    def _has_processes(self, run_id: str, number: int) -> bool:
        """Return whether a process of the segment is found without its locks: its leader, or one with its cookie."""
        with contextlib.suppress(OSError):  # unreadable now; the cookie tells too
            if self.leader(run_id, number) is not None:
                return True
        environment: dict[str, str] = {}
        with contextlib.suppress(OSError):  # without it, processes of another home's run of this id count too
            order = segment_files.read_order(self.folder(run_id, number))
            environment = {} if order is None else order.environment
        cookie = _cookie(run_id, number, environment)
        return bool(process_tree.carriers(tuple(map(os.fsencode, cookie))))

    def _processes(self, run_id: str, number: int) -> ProcessesFile | None:
        """Return the segment's processes; None when they are unknown, of another boot, or of another pid namespace,
        where their pids mean something else. Raises OSError."""
        processes = segment_files.read_processes(self.folder(run_id, number))
        if processes is None or processes.boot_id != self._boot_id:
            return None
        return None if process_tree.is_from_elsewhere(processes.pid_namespace) else processes

    def _is_elsewhere(self, run_id: str, number: int) -> bool:
        """Return whether the segment was started in another pid namespace of this boot."""
        with contextlib.suppress(OSError):
            processes = segment_files.read_processes(self.folder(run_id, number))
            return (
                processes is not None
                and processes.boot_id == self._boot_id
                and process_tree.is_from_elsewhere(processes.pid_namespace)
            )
        return False

    def _forget(self, key: tuple[str, int]) -> None:
        self._children.pop(key, None)
        handle = self._pidfds.pop(key, None)
        if handle is not None:
            os.close(handle)
        standby = self._reused.pop(key, None)
        if standby is not None:
            standby.channel.close()


def _is_readable(handle: int) -> bool:
    """Return whether a descriptor is readable. `select` would refuse descriptors from 1,024 on."""
    poll = select.poll()
    poll.register(handle, select.POLLIN)
    return bool(poll.poll(0))


def _cookie(run_id: str, number: int, environment: Mapping[str, str]) -> tuple[str, ...]:
    """Return the entries that every process of a segment has in its environment, unless it took them out.

    `environment`: of the segment's order. The file of its events belongs to them, since a run of another home may have
    the same id.
    """
    entries = (f"BACKPROP_RUN_ID={run_id}", f"BACKPROP_SEGMENT={number}")
    events = environment.get("BACKPROP_EVENTS")
    return entries if events is None else (*entries, f"BACKPROP_EVENTS={events}")
