"""How late a segment of a storm may end: one second, what the machine lagged meanwhile, and what the storm took of it.

Its own supervisor ends it on time. Only while that is frozen, or dead and not yet replaced, may its time pass unseen.
"""

import contextlib
import json
import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

PATIENCE_S: Final = 1.0
STEP_S: Final = 0.1
NOTICED_S: Final = 0.02
BLIND_S: Final = 25.0
"""For a segment that may have been struck before it was on record who supervises it."""

Segment = tuple[str, int]
"""Run id and number."""


def watched(home: Path) -> dict[Segment, dict[str, Any]]:
    """Return what `processes.json` says of each segment that has no end on record."""
    found: dict[Segment, dict[str, Any]] = {}
    for path in home.glob("runs/*/*/processes.json"):
        with contextlib.suppress(OSError, ValueError):
            if not (path.parent / "exit.json").exists():
                found[path.parent.parent.name, int(path.parent.name)] = json.loads(path.read_text())
    return found


class Lag:
    """Measures, in a thread, how late this machine wakes who sleeps and syncs a file in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "lag"
        self._late: list[tuple[float, float]] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._measure, daemon=True)
        self._thread.start()

    @property
    def worst_s(self) -> float:
        return max((late_s for _, late_s in self._late), default=0.0)

    def between(self, begin_s: float, end_s: float) -> float:
        """Return how long it lagged in a span of the monotonic clock."""
        return sum(late_s for at_s, late_s in list(self._late) if begin_s <= at_s <= end_s + late_s)

    def close(self) -> None:
        self._ended.set()
        self._thread.join()
        self._path.unlink(missing_ok=True)

    def _measure(self) -> None:
        while not self._ended.is_set():
            began_s = time.monotonic()
            time.sleep(STEP_S)
            with contextlib.suppress(OSError), self._path.open("wb") as file:
                file.write(b"x")
                file.flush()
                os.fsync(file.fileno())
            late_s = time.monotonic() - began_s - STEP_S
            if late_s > NOTICED_S:
                self._late.append((time.monotonic(), late_s))


@dataclass(frozen=True)
class _Unwatched:
    since_s: float
    supervisor: object


class Lateness:
    """What each segment of `home` may be late by."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._lag = Lag(home.parent)
        self._excused_s: dict[Segment, float] = {}
        self._unwatched: dict[Segment, _Unwatched] = {}
        self._blind_s: list[float] = []
        self._known: dict[Segment, dict[str, Any]] = {}

    @property
    def worst_lag_s(self) -> float:
        return self._lag.worst_s

    def froze(self, pid: int, seconds: float) -> None:
        """Note that a supervisor does nothing for so long."""
        segment = self._segment_of(pid)
        if segment is None:
            self._blind_s.append(time.monotonic())
        else:
            self._excused_s[segment] = self._excused_s.get(segment, 0.0) + seconds

    def kills(self, pid: int) -> None:
        """Note that a supervisor is about to die."""
        segment = self._segment_of(pid)
        if segment is None:
            self._blind_s.append(time.monotonic())
        else:
            supervisor = self._known.get(segment, {}).get("supervisor")
            self._unwatched.setdefault(segment, _Unwatched(time.monotonic(), supervisor))

    def look(self) -> None:
        """See which segments have a supervisor again."""
        found = watched(self._home)
        self._known |= found
        for segment, since in list(self._unwatched.items()):
            if segment not in found or found[segment].get("supervisor") != since.supervisor:
                del self._unwatched[segment]
                gap_s = time.monotonic() - since.since_s
                self._excused_s[segment] = self._excused_s.get(segment, 0.0) + gap_s

    def allowed_s(self, run: str, number: int, record: dict[str, Any]) -> float:
        """Return how much later than timebox and grace a segment may have ended. `record`: its `exit.json`."""
        began_s = self._known.get((run, number), {}).get("started_monotonic_s")
        if began_s is None:
            return BLIND_S
        blind = any(began_s - 2.0 <= at_s <= began_s + 1.0 for at_s in self._blind_s)
        end_s = began_s + record.get("running_s", 0.0) + record.get("paused_s", 0.0)
        excused_s = self._excused_s.get((run, number), 0.0) + (BLIND_S if blind else 0.0)
        return PATIENCE_S + excused_s + self._lag.between(began_s, end_s + 1.0)

    def close(self) -> None:
        self._lag.close()

    def _segment_of(self, pid: int) -> Segment | None:
        self.look()
        for segment, noted in watched(self._home).items():
            if noted["supervisor"][0] == pid:
                return segment
        with contextlib.suppress(OSError):
            # One that takes over has the folder among its words.
            for word in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
                path = Path(os.fsdecode(word))
                if path.parent.parent == self._home / "runs" and path.name.isdecimal():
                    return path.parent.name, int(path.name)
        return None
