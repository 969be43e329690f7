"""Remembers what the processes of live runs write: how much, and which files they have open for it.

Both come from /proc, about once a second. A save of some MB is over between two looks, so what is open tells only of
large ones. The count of bytes (`wchar` in /proc/PID/io) misses nothing: a run that wrote less than a file holds has not
written it. What is written through a mapping of memory alone is not counted. While several runs are live, a thread
reads the counts of the processes known so far ten times a second: so that two that save one after the other are told
apart. No time here moves with the wall clock.
"""

import contextlib
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Final

import msgspec

from backprop.worker.checkpoints.open_files import is_writable, target_of
from backprop.worker.clock import set_since_s, steady_s
from backprop.worker.supervisor import process_tree

EVERY_S: Final = 0.9
COST_SHARE: Final = 0.02
PAUSE_CAP_S: Final = 30.0
BETWEEN_S: Final = 0.1
QUIET_BETWEEN_S, QUIET_AFTER_S = 0.25, 30.0
"""Runs that have written next to nothing for so long are read less often."""
KEPT_LOOKS: Final = 6000
TRIFLE_BYTES: Final = 4096
KEPT_FILES: Final = 256
"""Per run, of those that were open for writing."""
MAX_PROCESSES: Final = 1024
MAX_DESCRIPTORS: Final = 512
LATE_S: Final = 5.0
FORGET_S: Final = 900.0
"""What is known of a run that has ended is kept this long."""

RunSegment = tuple[str, int]


class OpenFile(msgspec.Struct, frozen=True):
    """A file that a run had open for writing. `inode`: 0 where the kernel does not tell. Times as of `steady_s`."""

    path: str
    inode: int
    first_s: float
    last_s: float


class _Reading(msgspec.Struct, frozen=True):
    """Bytes written by a time between `began_s` and `ended_s` (of `steady_s`), and how often their count was lost."""

    began_s: float
    ended_s: float
    written: int
    times_lost: int


class _Trail(msgspec.Struct):
    """One segment. `blind`: spans in which a process wrote that was not known yet."""

    started_s: float
    looks: deque[_Reading] = msgspec.field(default_factory=lambda: deque[_Reading](maxlen=KEPT_LOOKS))
    counts: Mapping[int, int] = {}
    blind: deque[tuple[float, float]] = msgspec.field(
        default_factory=lambda: deque[tuple[float, float]](maxlen=256)
    )
    opened: dict[tuple[str, int], OpenFile] = {}
    folders: frozenset[str] = frozenset()
    ended_s: float | None = None


class Witness:
    """One per worker. `follow` is for the thread of the ticks; the rest for those that look at files."""

    def __init__(self, pids: Callable[[str, int], frozenset[int]], avoid: Path) -> None:
        """`pids`: of a segment's processes. `avoid`: a folder whose files do not matter."""
        self._pids, self._avoid = pids, f"{avoid}/"
        self._trails: dict[RunSegment, _Trail] = {}
        self._lock = threading.Lock()
        self._next_s = 0.0
        self._busy = False
        self._reading = threading.Lock()
        self._several = threading.Event()
        self._thread: threading.Thread | None = None

    def follow(self, live: Iterable[tuple[str, int, float]]) -> None:
        """Say which segments are live now, each by run, number and start (Unix seconds)."""
        now_s, shift_s = steady_s(), set_since_s()
        with self._lock:
            wanted = {(run_id, number): started_s for run_id, number, started_s in live}
            for key, started_s in wanted.items():
                self._trails.setdefault(key, _Trail(min(started_s + shift_s, now_s))).ended_s = None
            for key, trail in list(self._trails.items()):
                if key not in wanted:
                    trail.ended_s = now_s if trail.ended_s is None else trail.ended_s
                    if now_s - trail.ended_s > FORGET_S:
                        del self._trails[key]
        if len(wanted) > 1:
            self._several.set()
            if self._thread is None:
                thread = threading.Thread(target=self._count_often, name="witness", daemon=True)
                with contextlib.suppress(RuntimeError):  # none is to be had now: the next call tries again
                    thread.start()
                    self._thread = thread
        else:
            self._several.clear()

    def look(self, *, at_once: bool = False) -> None:
        """Read /proc, unless another thread does, or did lately and it is not wanted `at_once`. Raises nothing."""
        with self._lock:
            if self._busy or (time.monotonic() < self._next_s and not at_once):
                return
            self._busy = True
            live = [(key, trail) for key, trail in self._trails.items() if trail.ended_s is None]
        began_s = time.monotonic()
        try:
            for key, trail in live:
                pids = self._pids(*key)
                with self._reading:
                    self._look_at(trail, pids)
        finally:
            cost_s = time.monotonic() - began_s
            with self._lock:
                self._busy = False
                self._next_s = began_s + min(max(EVERY_S, cost_s / COST_SHARE), PAUSE_CAP_S)

    def _count_often(self) -> None:
        # Signals are for the thread of the ticks.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        wrote_s = time.monotonic()
        while self._several.wait():
            began_s = time.monotonic()
            with self._lock:
                live = [trail for trail in self._trails.values() if trail.ended_s is None and trail.counts]
            for trail in live:
                with self._reading:
                    reading_s = steady_s()
                    known = {pid: _bytes_written(pid) for pid in trail.counts}
                    with self._lock:
                        counts = {pid: count for pid, count in known.items() if count is not None}
                        if _add(trail, counts, lost=False, began_s=reading_s) > TRIFLE_BYTES:
                            wrote_s = began_s
            between_s = BETWEEN_S if began_s - wrote_s < QUIET_AFTER_S else QUIET_BETWEEN_S
            time.sleep(max(between_s, (time.monotonic() - began_s) / COST_SHARE))

    def known(self) -> frozenset[str]:
        """Return the runs of which anything is known."""
        with self._lock:
            return frozenset(run_id for run_id, _ in self._trails)

    def written(self, run_id: str, from_s: float, to_s: float) -> int | None:
        """Return at most how many bytes a run wrote in a span of time (of `steady_s`); None where that is unknown."""
        with self._lock:
            trails = [trail for (run, _), trail in self._trails.items() if run == run_id]
            counts = [_count(trail, from_s, to_s) for trail in trails]
        known = [count for count in counts if count is not None]
        return sum(known) if known and len(known) == len(counts) else None

    def opened(self, run_id: str, since_s: float) -> list[OpenFile]:
        """Return the files that a run was seen to have open for writing since then (as of `steady_s`)."""
        with self._lock:
            return [
                file
                for (run, _), trail in self._trails.items()
                for file in trail.opened.values()
                if run == run_id and file.last_s >= since_s
            ]

    def folders(self, key: RunSegment) -> frozenset[str]:
        """Return the current directories of a segment's processes."""
        with self._lock:
            trail = self._trails.get(key)
            return trail.folders if trail is not None else frozenset()

    def _look_at(self, trail: _Trail, pids: frozenset[int]) -> None:
        reading_s = steady_s()
        counts: dict[int, int] = {}
        lost = False
        opened: list[tuple[str, int]] = []
        folders: set[str] = set()
        for pid in islice(sorted(pids), MAX_PROCESSES):
            count = _bytes_written(pid)
            if count is None:
                lost = lost or Path(f"/proc/{pid}").exists()
            else:
                counts[pid] = count
            folders.add(target_of(f"/proc/{pid}/cwd"))
            opened += self._open_files(pid)
        now_s = steady_s()
        new = {
            pid: _started_s(pid)
            for pid, count in counts.items()
            if pid not in trail.counts and count > TRIFLE_BYTES
        }
        with self._lock:
            if trail.looks:
                trail.blind += [(began_s, now_s) for began_s in new.values()]
            _add(trail, counts, lost or len(pids) > MAX_PROCESSES, reading_s)
            trail.folders = frozenset(folder for folder in folders if folder.startswith("/"))
            for key in opened:
                known = trail.opened.pop(key, None)
                trail.opened[key] = OpenFile(*key, known.first_s if known is not None else now_s, now_s)
            for key in list(trail.opened)[: max(len(trail.opened) - KEPT_FILES, 0)]:
                del trail.opened[key]

    def _open_files(self, pid: int) -> Iterator[tuple[str, int]]:
        try:
            with os.scandir(f"/proc/{pid}/fd") as entries:
                for entry in islice(entries, MAX_DESCRIPTORS):
                    target = target_of(entry.path)
                    mine = target.startswith("/") and not target.startswith(
                        ("/dev/", "/proc/", "/sys/", self._avoid)
                    )
                    if mine and (inode := is_writable(pid, entry.name)) is not None:
                        yield target, inode
        except OSError:
            return


def _add(trail: _Trail, counts: dict[int, int], lost: bool, began_s: float) -> int:
    """Add one reading; return what was written since the last one. The count of a process that has ended is added to
    its parent's, if that waited for it."""
    before = trail.counts
    if not trail.looks:
        trail.looks.append(_Reading(trail.started_s, trail.started_s, 0, 0))
        # Of those that have ended before the first reading, nothing is known.
        lost = lost or began_s - trail.started_s > LATE_S
    rise = sum(
        count - (before.get(pid, 0) if count >= before.get(pid, 0) else 0) for pid, count in counts.items()
    )
    gone = sum(count for pid, count in before.items() if pid not in counts)
    last = trail.looks[-1]
    times_lost = last.times_lost + (lost or rise < gone or not counts)
    trail.looks.append(_Reading(began_s, steady_s(), last.written + rise, times_lost))
    trail.counts = counts
    return rise


def _count(trail: _Trail, from_s: float, to_s: float) -> int | None:
    """Return what was written from the last reading before `from_s` to the first one after `to_s`."""
    if trail.started_s > to_s or (trail.ended_s is not None and trail.ended_s < from_s):
        return 0
    before = next((look for look in reversed(trail.looks) if look.ended_s <= from_s), None)
    after = next((look for look in trail.looks if look.began_s >= to_s), None)
    if before is None and trail.looks and trail.started_s >= from_s:
        before = trail.looks[0]
    if before is None or after is None or before.times_lost != after.times_lost:
        return None
    if any(began_s <= after.ended_s and ended_s >= before.began_s for began_s, ended_s in trail.blind):
        return None
    return after.written - before.written


def _bytes_written(pid: int) -> int | None:
    """Return what a process has passed to write calls; None where that cannot be read. Ten times a second and process,
    so without any object of a higher level."""
    try:
        handle = os.open(f"/proc/{pid}/io", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return int(os.read(handle, 512).partition(b"wchar: ")[2].partition(b"\n")[0])
    except (OSError, ValueError):
        return None
    finally:
        os.close(handle)


def _started_s(pid: int) -> float:
    """Return when a process began, as of `steady_s`; 0 where that cannot be read."""
    process = process_tree.identify(pid)
    if process is None:
        return 0.0
    age_s = time.clock_gettime(time.CLOCK_BOOTTIME) - process.start_ticks / os.sysconf("SC_CLK_TCK")
    return steady_s() - age_s
