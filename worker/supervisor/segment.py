"""Keeps one segment's timeboxes, ends the leader as gently as possible and leaves nothing alive.

Control is by signal: TERM = let it checkpoint and end, QUIT = end it now, USR1 = pause, USR2 = continue. The last two
first have it look whether it is ordered to suspend the segment; as long as it is, neither means anything else.
The stop sequence: the reason, on disk → the stop signal to the training alone (a signal to the whole group kills data
workers first, and the checkpoint with them) → grace → TERM to everybody → 5 s → freeze, scan again, KILL. The training
is the leader, or what a shell or launcher waits for; the grace is its own, whatever becomes of the leader.

Single-threaded: all signals that matter are blocked and taken one at a time with sigtimedwait, so nothing happens
between two lines of this file. Standard library only, imports nothing of Backprop.
"""

import math
import signal
import time
from pathlib import Path

import failpoint
import files
import job_signals
import process_tree
import stop_target
import trainers
from boxes import Boxes
from leader import Leader
from pauses import Pauses
from stop_target import StopTarget
from suspension import Suspension

LINGER_S = 5.0
KILL_PATIENCE_S = 10.0
FOREVER_S = 1e6
LOOK_EVERY_S = 0.05
"""How often to look whether a training has ended that is not a child of this process."""
PAUSE_LIMIT_S = 600.0
"""A worker continues or ends a paused run within five minutes. After ten the worker is gone, and a frozen run would
hold its VRAM for the rest of the night. What is suspended stays so for as long as it takes."""
CONTROL = {signal.SIGTERM, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGCHLD}
IGNORED = (signal.SIGHUP, signal.SIGINT, signal.SIGPIPE, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU)


class SupervisedSegment:
    """The life of one leader, from just after its start. Durations are in seconds on CLOCK_MONOTONIC."""

    def __init__(
        self,
        folder: Path,
        leader: Leader,
        *,
        boxes: Boxes,
        grace_s: float,
        stop_signal: int,
        signal_to: str,
        started_s: float,
        is_job: bool = False,
    ) -> None:
        """`is_job`: of a cluster, whose scheduler may signal all processes at once."""
        self._folder = folder
        self._leader = leader
        self._grace_s = grace_s
        self._stop_signal = stop_signal
        self._signal_to = signal_to
        self._target: StopTarget | None = None
        self._training_status: int | None = None
        self._started_s = started_s
        self._is_job = is_job
        self.told = False
        """It was sent TERM, as a job of a cluster."""
        self._all_told = False
        self._boxes = boxes
        self.pauses = Pauses(folder, self._not_held)
        self._suspension = Suspension(folder, self.pauses, self._not_held)
        self._asked: str | None = None
        self._asked_at_s: float | None = None
        self._escalated = "none"

    def take_over(self, asked: str, ago_s: float, sent: bool, target: StopTarget | None) -> None:
        """Go on with the stop sequence of a supervisor that died.

        `target`: whom it signalled, if that is known. `ago_s`: how long ago it noted in `stop.json` that it was about
        to send the stop signal. `sent`: whether it noted that it had. The signal is not sent twice: to many scripts a
        second one means "drop everything", in the middle of their save. Without the second note it was most likely
        not sent, since the note takes a disk's time and the signal none. A leader that has ended counts as asked in
        either case.
        """
        if sent or self._leader.ended():
            self._asked, self._asked_at_s = asked, self._now() - ago_s
            self._target = target
        else:
            self._ask(asked)

    def run(self) -> dict[str, object]:
        """Supervise until nothing of the segment is alive; return the body of `exit.json`."""
        if self._asked is not None:
            self.pauses.end()
        else:
            self._look_at_order()
        while not self._over():
            if self._asked is None:  # afterwards the wrappers above the training are held by us
                self.pauses.look(lambda: process_tree.stopped(self._leader.process))
                self._suspension.step()
            if self._pause_ends_s() <= self._now():
                self.pauses.end()
            if self._asked is None and self.pauses.since_s is None and self._now() >= self._due_s():
                self._end_box()
            elif self._asked_at_s is not None and self._now() >= self._asked_at_s + self._grace_s:
                break
            self._obey(self._wait(self._next_due_s()))
        ended_s = self._now()
        survivors = self._finish()
        return self._record(ended_s, survivors)

    def _over(self) -> bool:
        """Return whether the leader has ended or, once it was asked to, all of the training."""
        ended = self._leader.ended()
        return not self._target.works() if self._target is not None else ended

    def _not_held(self) -> list[process_tree.Process]:
        held = self._target.held if self._target is not None else ()
        return [process for process in self._leader.find() if process not in held]

    def _pause_ends_s(self) -> float:
        if self.pauses.since_s is None or self.pauses.suspended is not None:
            return math.inf
        return self.pauses.since_s + PAUSE_LIMIT_S

    def _look_at_order(self) -> None:
        """Find out what is ordered, and let a suspended segment go on for which that is over."""
        self._suspension.look()
        if self.pauses.suspended is not None and not self._suspension.is_wanted:
            # What it finds when it goes on: the end of the box that it was given for that.
            self._boxes.catch_up()
            self._boxes.write_deadline(self._running_s(self.pauses.since_s or self._now()))
            self._suspension.release()
            failpoint.at("thawing")
            self.pauses.end()
            failpoint.at("thawed")

    def _next_due_s(self) -> float | None:
        """Return the seconds until something is due; None when only a signal can change anything."""
        due: list[float] = []
        if self._asked_at_s is not None:
            due.append(self._asked_at_s + self._grace_s - self._now())
        elif self.pauses.since_s is None:
            due.append(self._due_s() - self._now())
        elif self.pauses.suspended is None:
            due.append(self._pause_ends_s() - self._now())
        if self._asked_at_s is None and self._suspension.due_s is not None:
            due.append(self._suspension.due_s - self._now())
        if self._leader.poll_s is not None:
            due.append(self._leader.poll_s)
        if self._target is not None and list(self._target.working) != [self._leader.process]:
            due.append(LOOK_EVERY_S)
        return max(min(due), 0.0) if due else None

    def _wait(self, timeout_s: float | None) -> int | None:
        if timeout_s is None:
            timeout_s = FOREVER_S
        info = signal.sigtimedwait(CONTROL, timeout_s)
        if self._is_job and info is not None and info.si_signo == signal.SIGTERM:
            self.told = True
            self._all_told = job_signals.reached_all(self._folder, info.si_pid)
        return info.si_signo if info is not None else None

    def _obey(self, number: int | None) -> None:
        if number == signal.SIGTERM and self._asked is None:
            self._ask("asked")
        elif number == signal.SIGQUIT:
            self._asked = self._asked or "asked"
            self._asked_at_s = self._now() - self._grace_s - LINGER_S
        elif number in (signal.SIGUSR1, signal.SIGUSR2) and self._asked is None:
            self._look_at_order()
            if self._suspension.is_wanted:
                return
            if number == signal.SIGUSR1:
                self.pauses.begin()
            elif self.pauses.since_s is not None:
                self.pauses.end()
                self.tell_deadline()

    def tell_deadline(self) -> None:
        """Tell the script when the box in force ends. What was paused runs longer by the clock."""
        self._boxes.write_deadline(self._running_s(self._now()))

    def _end_box(self) -> None:
        """Act on what is decided about the box in force, whose end has come."""
        before = self._boxes.number
        why = self._boxes.decide(self._running_s(self._now()))
        if why is not None:
            self._ask(why)
        elif self._boxes.number != before:
            self.tell_deadline()

    def _ask(self, why: str) -> None:
        """Record why, then send the stop signal to the training alone. A leader that has just ended was not asked."""
        note: dict[str, object] = {
            "asked": why,
            "at_s": time.time(),
            "boot_id": process_tree.boot_id(),
            "at_monotonic_s": self._now(),
            "sent": False,
            "log_bytes": files.size(self._folder / "log"),
        }
        files.write_if_possible(self._folder / "stop.json", note, durable=True)
        failpoint.at("asking")
        if self._leader.ended():
            return
        # Chosen after the note, which takes a disk's time: a script may have gone on to its next step meanwhile.
        target = stop_target.choose(self._leader.process, self._stop_signal, self._signal_to)
        group = self._leader.process.pid if self._signal_to == "group" else None
        target.hold()
        if self._all_told and trainers.catches(self._leader.process.pid, signal.SIGTERM):
            # It has had the same word already. To many scripts a second signal means "drop everything".
            self._asked, self._asked_at_s, self._target = why, self._now(), target
            files.write_if_possible(self._folder / "stop.json", note | {"sent": True} | target.note())
            return
        # A leader that may not be signalled (it changed its user) counts as asked: its time is over.
        if target.send(self._stop_signal, group) or not self._leader.ended():
            self._asked, self._asked_at_s, self._target = why, self._now(), target
            files.write_if_possible(self._folder / "stop.json", note | {"sent": True} | target.note())
        # A stopped process handles a signal only once it is continued, whoever stopped it.
        self.pauses.end()

    def _finish(self) -> list[process_tree.Process]:
        """End whatever is still alive: TERM, a moment, then KILL until nothing is left. Return the survivors."""
        find, late = self._leader.find, not self._over()
        self._end_wrappers(late)
        self._escalated = "term" if late else "none"
        end = self._now() + LINGER_S
        if late and self._asked_at_s is not None:
            end = self._asked_at_s + self._grace_s + LINGER_S
        for process in find():
            process_tree.send(process, signal.SIGTERM)
        self.pauses.end()
        # Not "until a scan finds nobody": with a program that forks without end, any scan may find nobody.
        while not (gone := self._leader.gone()) and self._now() < end:
            if self._wait(0.02) == signal.SIGQUIT:
                break
        survivors: list[process_tree.Process] = []
        if not gone:
            self._escalated = "kill" if late else "none"
            survivors = process_tree.kill_all(find, self._leader.cull, self._leader.gone, KILL_PATIENCE_S)
        self._leader.ended()
        return survivors

    def _end_wrappers(self, late: bool) -> None:
        """End what was held above the training. `late`: the training itself still lives."""
        if self._target is None:
            return
        if not self._leader.ended():
            self._training_status = self._target.status()
        self._target.end_held()
        end = self._now() + LINGER_S
        # What it wrote last may still be in a pipe, and an announcement with it. A wrapper may have kept that open.
        while not late and self._target.reads() and self._now() < end:
            if self._wait(0.02) == signal.SIGQUIT:
                break
        self._target = None

    def _record(self, ended_s: float, survivors: list[process_tree.Process]) -> dict[str, object]:
        status = self._training_status if self._training_status is not None else self._leader.status()
        paused_s = self.pauses.ended_s()
        running_s = self._running_s(ended_s)
        return {
            "format": 1,
            "asked": self._asked,
            "exit_code": None if status is None or _by_signal(status) else status >> 8,
            "signal": status & 0x7F if status is not None and _by_signal(status) else None,
            "seen_to_end": status is not None,
            "escalated": self._escalated,
            "running_s": round(max(running_s, 0.0), 3),
            "paused_s": round(paused_s, 3),
            "boxes": self._boxes.number,
            "ended_at_s": time.time(),
            "survivors": [process.pid for process in survivors],
            # Whoever prints to a full disk fails, and nothing of why is in the log.
            "disk_full": self._asked is None and bool(status) and not files.has_room(self._folder),
        }

    def _due_s(self) -> float:
        """Return when the end of the box in force is to be decided on, on CLOCK_MONOTONIC."""
        return self._started_s + self.pauses.ended_s() + self._boxes.due_s

    def _running_s(self, at_s: float) -> float:
        return at_s - self._started_s - self.pauses.ended_s()

    def _now(self) -> float:
        return time.monotonic()


def _by_signal(status: int) -> bool:
    return status & 0x7F != 0
