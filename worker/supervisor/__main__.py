"""Starts the leader of one segment, ends it on time and records how it ended.

A worker starts it by exec as `python -I -S <this folder> SEGMENT_FOLDER FD...`. Standard library only and no package
around it: it takes about 13 MB and starts in the time of a bare interpreter. It knows nothing of SQLite or the
governor, and ends its segment on time even if the worker is gone. Each FD is a flock that is handed on to the leader:
on the run's lock and, where it was given GPUs, on the promise of them. The log is the leader's stdout and stderr, and
is locked too: if it and the run's lock are free, nothing of the segment lives.

With FD = -1 it takes the place of a supervisor that died while its leader lives. As `--spare FD` it is a standby: it
waits on the socket FD for folder and lock, and after a clean end for the next segment. As `--job` it is the node agent
of a cluster's job, see `node_agent`.
"""

import contextlib
import ctypes
import errno
import fcntl
import os
import resource
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import boxes
import claim
import failpoint
import files
import oom_kills
import process_tree
import standby
import stop_target
import suspension
from boxes import Boxes
from leader import Found, Gone, Leader, Spawned
from segment import CONTROL, IGNORED, SupervisedSegment

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
TOLD_WITHIN_S = 0.4
"""The processes of a job are signalled one after the other."""
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
"""What flock answers on a share that has none."""
STANDBY = "--spare"
"""Unchanged since 0.1.0: a worker that is running during an upgrade starts the program of the new version."""
JOB = "--job"
USAGE = (
    "usage: python -I -S worker/supervisor"
    " SEGMENT_FOLDER LOCK_FD... | --spare SOCKET_FD | --job SEGMENT_FOLDER TOKEN"
)
EXIT_TAKEN = 3
"""Another supervisor watches this segment."""
EXIT_ELSEWHERE = 4
"""The segment lives in another pid namespace: nothing of it can be identified here."""


def main(folder: Path, locks: Sequence[int]) -> int:
    """Supervise one segment to its end; return the exit code. `locks`: descriptors that live as long as the segment,
    the run's lock first; none to adopt.

    `supervisor.lock` is held meanwhile. The locks stay with this process until it ends, or until `serve` closes them.
    """
    order = files.read(folder / "order.json")
    if order is None:
        return 1
    if is_job(order):
        # Without its node agent, the cluster's word reaches nobody: the segment is asked to end.
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    own_lock = _lock(folder / "supervisor.lock", is_job(order))
    if own_lock is None:
        return EXIT_TAKEN
    try:
        return _start(folder, order, locks) if locks else _adopt(folder, order)
    finally:
        os.close(own_lock)


def is_job(order: dict[str, object]) -> bool:
    """Return whether the segment is a job of a cluster, with a node agent above this process."""
    return order.get("token") is not None


def _accept_only_control_signals() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, CONTROL)
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)
    # If it were inherited as ignored, the kernel would discard the leader's status.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def _start(folder: Path, order: dict[str, object], locks: Sequence[int]) -> int:
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    started_at_s, started_s = time.time(), time.monotonic()
    log: int | None = None
    try:
        try:
            log = _open_log(folder / "log", is_job(order))
            failpoint.at("starting")
            _boxes(folder, order).write_deadline(0.0)
            killed = oom_kills.begin()
            leader = _spawn(folder, order, locks, log, started_at_s, started_s)
        except (OSError, ValueError, MemoryError) as error:
            files.write_when_possible(folder / "exit.json", _not_started(error), is_job(order))
            return 0
        failpoint.at("spawned")
        _write_processes(folder, order, leader, started_at_s, started_s, killed)
        return _supervise(folder, order, leader, started_s, killed)
    finally:
        if log is not None:
            os.close(log)


def _adopt(folder: Path, order: dict[str, object]) -> int:
    earlier = files.read_if_possible(folder / "processes.json") or {}
    cookie = _cookie(order)
    if process_tree.is_from_elsewhere(earlier.get("pid_namespace")):
        return EXIT_ELSEWHERE
    process = _recorded_leader(earlier) or next(filter(_is_here, process_tree.carriers(cookie)), None)
    if process is None or (folder / "exit.json").exists():
        return 0
    leader = _watch(process, cookie)
    started_s = process_tree.of_this_boot(earlier, "started_monotonic_s")
    if started_s is None:
        started_s = _started_s(process)
    started_at_s = earlier.get("started_at_s")
    if not isinstance(started_at_s, float):
        started_at_s = time.time() - (time.monotonic() - started_s)
    killed = earlier.get("oom_kills") if earlier.get("boot_id") == process_tree.boot_id() else None
    _write_processes(folder, order, leader, started_at_s, started_s, killed)
    return _supervise(folder, order, leader, started_s, killed, stopped=process_tree.stopped(process))


def _cookie(order: dict[str, object]) -> tuple[bytes, ...]:
    """Return what marks the processes of the segment. An order of 0.1.0 names its run alone, and a run of another home
    may have the same id: the file of events tells them apart."""
    entries = [str(entry) for entry in _items(order["cookie"])]
    events = _pairs(order["environment"]).get("BACKPROP_EVENTS")
    entries += [] if events is None else [f"BACKPROP_EVENTS={events}"]
    return tuple(os.fsencode(entry) for entry in entries)


def _is_here(process: process_tree.Process) -> bool:
    """Return whether a process was started here, not in a container that this namespace can see into."""
    return process_tree.pid_namespace(process.pid) in (None, process_tree.pid_namespace())


def _started_s(process: process_tree.Process) -> float:
    """Return when a process started, on CLOCK_MONOTONIC. Its ticks also count the time that the machine was asleep."""
    asleep_s = time.clock_gettime(time.CLOCK_BOOTTIME) - time.monotonic()
    return process.start_ticks / os.sysconf("SC_CLK_TCK") - asleep_s


def _watch(process: process_tree.Process, cookie: tuple[bytes, ...]) -> Leader:
    try:
        return Found(process, cookie)
    except OSError:
        return Gone(process, cookie)


def _supervise(
    folder: Path,
    order: dict[str, object],
    leader: Leader,
    started_s: float,
    killed: object,
    stopped: bool | None = None,
) -> int:
    """Supervise a leader to its end. `killed`: what `oom_kills` noted as it began. `stopped`: whether it is stopped,
    for one whose supervisor died; else None."""
    segment = SupervisedSegment(
        folder,
        leader,
        boxes=_boxes(folder, order),
        grace_s=_number(order["grace_s"]),
        stop_signal=int(_number(order["stop_signal"])),
        signal_to=str(order.get("signal_to", "trainer")),
        started_s=started_s,
        is_job=is_job(order),
    )
    if stopped is not None:
        segment.pauses.take_over(stopped)
        segment.tell_deadline()
    stop = files.read_if_possible(folder / "stop.json")
    if stop is not None:
        target = stop_target.noted(stop)
        segment.take_over(str(stop["asked"]), _ago_s(stop), stop.get("sent") is not False, target)
    record = segment.run() | {"oom_kills": list(oom_kills.since(killed))}
    if is_job(order):
        record["ended_by"] = _ended_by(folder, record, segment.told)
    failpoint.at("ended")
    files.write_when_possible(folder / "exit.json", record, is_job(order))
    failpoint.at("recorded")
    return 0


def _ended_by(folder: Path, record: dict[str, object], told: bool) -> object:
    """Return whose word the end of a job was; None for its own. `told`: this process was sent TERM.

    A leader dies of the cluster's TERM, or obeys it, before anybody could ask it: its exit code says nothing then.
    """
    if record["asked"] == "timebox":
        return "timebox"
    end = time.monotonic() + TOLD_WITHIN_S
    while True:
        note = files.glance(folder / claim.ENDED_BY)
        if note is not None:
            return note.get("by")
        if told or record["asked"] is not None or signal.SIGTERM in signal.sigpending():
            return claim.ENGINE
        if time.monotonic() >= end:
            return None
        time.sleep(0.02)


def _boxes(folder: Path, order: dict[str, object]) -> Boxes:
    # An order of 0.1.0 does not say: every box ends its segment.
    return Boxes(folder, _number(order["timebox_s"]), str(order.get("at_timebox", boxes.END)))


def _spawn(
    folder: Path,
    order: dict[str, object],
    locks: Sequence[int],
    log: int,
    started_at_s: float,
    started_s: float,
) -> Leader:
    """Start the leader in the order's directory, with its umask, limits and environment. Raises OSError, ValueError."""
    spec = files.read(Path(str(order["spec"])))
    if spec is None:
        raise FileNotFoundError(2, "No such file or unreadable", str(order["spec"]))
    environment = {str(key): str(value) for key, value in _pairs(spec["environment"]).items()}
    environment |= {str(key): str(value) for key, value in _pairs(order["environment"]).items()}
    environment |= _deadlines(folder, order, started_at_s, started_s)
    for lock in locks:
        os.set_inheritable(lock, True)
    os.chdir(str(order["cwd"]))
    own_limits = _set_soft_limits(_pairs(order.get("soft_limits") or {}))
    own_umask = os.umask(int(_number(order["umask"])))
    try:
        return Spawned(str(order["program"]), [str(word) for word in _items(order["argv"])], environment, log)
    finally:
        os.umask(own_umask)
        _set_soft_limits(own_limits)
        os.chdir("/")
        for lock in locks:
            os.set_inheritable(lock, False)


def _deadlines(
    folder: Path, order: dict[str, object], started_at_s: float, started_s: float
) -> dict[str, str]:
    """Return where the script finds the end of its box: a file, as it may move.

    A box that surely ends the segment has it as numbers: on the wall clock, and on the monotonic one with what that is
    valid for, the boot and the other. The wall clock may be set, and goes on in a sleep that no box counts.
    """
    rule, timebox_s = order.get("at_timebox", boxes.END), _number(order["timebox_s"])
    if rule == boxes.AUTO:
        return {"BACKPROP_DEADLINE_FILE": str(folder / boxes.DEADLINE)}
    if rule != boxes.END:
        return {}
    end = f"{started_at_s + timebox_s:.3f}"
    steady_end = f"{started_s + timebox_s:.3f} {process_tree.boot_id()} {end}"
    return {"BACKPROP_DEADLINE": end, "BACKPROP_DEADLINE_MONOTONIC": steady_end}


def _set_soft_limits(limits: Mapping[object, object]) -> dict[object, object]:
    """Set this process's soft limits, none above its hard one; return what they were. `limits`: name → value, -1 for no
    limit."""
    before: dict[object, object] = {}
    for name, wanted in limits.items():
        number = getattr(resource, f"RLIMIT_{name}", None)
        if number is None:
            continue
        soft, hard = resource.getrlimit(number)
        value = int(_number(wanted))
        if hard >= 0 and not 0 <= value <= hard:
            value = hard
        before[name] = soft
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(number, (value, hard))
    return before


def _open_log(path: Path, may_lack_locks: bool) -> int:
    log = files.open_regular(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW)
    # The leader gets an ordinary stdout.
    os.set_blocking(log, True)
    _flock(log, may_lack_locks)
    return log


def _flock(handle: int, may_lack_locks: bool) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        # The claim has decided who begins; on a share these locks only save a look.
        if not may_lack_locks or error.errno not in NO_LOCKS:
            raise


def _lock(path: Path, may_lack_locks: bool) -> int | None:
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        _flock(handle, may_lack_locks)
    except BlockingIOError:
        os.close(handle)
        return None
    return handle


def _write_processes(
    folder: Path,
    order: dict[str, object],
    leader: Leader,
    started_at_s: float,
    started_s: float,
    killed: object,
) -> None:
    own = process_tree.identify(os.getpid())
    files.write_if_possible(
        folder / "processes.json",
        {
            "boot_id": process_tree.boot_id(),
            "pid_namespace": process_tree.pid_namespace(),
            "supervisor": [os.getpid(), own.start_ticks if own else 0],
            "leader": [leader.process.pid, leader.process.start_ticks],
            "started_at_s": started_at_s,
            "started_monotonic_s": started_s,
            "box_format": boxes.FORMAT if order.get("at_timebox") == boxes.AUTO else None,
            "suspend_format": suspension.FORMAT,
            "oom_kills": killed,
        },
    )


def _recorded_leader(processes: dict[str, object]) -> process_tree.Process | None:
    """Return the leader that `processes.json` names; None when that was written before this boot."""
    if processes.get("boot_id") != process_tree.boot_id():
        return None
    pid, ticks = _items(processes["leader"])
    return process_tree.Process(int(_number(pid)), int(_number(ticks)))


def _ago_s(stop: dict[str, object]) -> float:
    """Return how long ago a stop was noted. The wall clock, which may have been set since, tells it only where nothing
    else does: for a note of 0.1.0, or of another boot."""
    at_s = process_tree.of_this_boot(stop, "at_monotonic_s")
    ago_s = time.monotonic() - at_s if at_s is not None else time.time() - _number(stop["at_s"])
    return max(ago_s, 0.0)


def _not_started(error: OSError | ValueError | MemoryError) -> dict[str, object]:
    """Return the body of `exit.json` for a leader that could not be started."""
    if isinstance(error, MemoryError):
        error = OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
    number = error.errno if isinstance(error, OSError) else None
    path = f": {error.filename}" if isinstance(error, OSError) and error.filename else ""
    reason = f"{error.strerror}{path}" if isinstance(error, OSError) else str(error)
    return {
        "format": 1,
        "could_not_start": reason,
        "errno": number,
        "path": str(error.filename) if path and isinstance(error, OSError) else None,
        "running_s": 0.0,
        "ended_at_s": time.time(),
    }


def _number(value: object) -> float:
    if isinstance(value, int | float):
        return value
    raise ValueError(f"not a number: {value!r}")


def _items(value: object) -> list[object]:
    if isinstance(value, list):
        return list(value)  # pyright: ignore[reportUnknownArgumentType]
    raise ValueError(f"not a list: {value!r}")


def _pairs(value: object) -> dict[object, object]:
    if isinstance(value, dict):
        return dict(value)  # pyright: ignore[reportUnknownArgumentType]
    raise ValueError(f"not an object: {value!r}")


def serve(descriptor: int) -> int:
    """Supervise the segments that the worker hands over, one after the other, until the worker is gone.

    If a segment left anything behind, or is still signalled, this process ends with it: no trace of it may reach the
    next segment.
    """
    channel = standby.Channel(descriptor)
    if not channel.report(standby.READY):
        return 0
    while (segment := channel.next_segment()) is not None:
        folder, locks = segment
        code = main(folder, locks)
        if code or not standby.is_released(folder) or not standby.is_clean(CONTROL):
            return code
        for lock in locks:
            os.close(lock)
        if not channel.report(standby.ENDED):
            break
    return 0


if __name__ == "__main__":
    if sys.argv[1:] == ["--help"]:
        print(USAGE)
        sys.exit(0)
    if sys.argv[1] == JOB:
        import node_agent

        sys.exit(node_agent.main(Path(sys.argv[2]), sys.argv[3]))
    _accept_only_control_signals()
    descriptors = [int(word) for word in sys.argv[2:]]
    if sys.argv[1] == STANDBY:
        sys.exit(serve(descriptors[0]))
    sys.exit(main(Path(sys.argv[1]), [lock for lock in descriptors if lock >= 0]))
