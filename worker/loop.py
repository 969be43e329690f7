"""The worker's life: one tick after another until it is told to go.

Signal handlers only record and wake the loop; the loop acts. First INT or TERM: claim nothing more, ask the
segments to checkpoint, requeue them, exit. Second: end them now. HUP (tmux closed): exit, segments go on.
"""

import os
import select
import traceback
from collections.abc import Callable
from typing import Final

from backprop.scheduler.errors import BackpropError, DatabaseBusy, DatabaseDamaged, DatabaseRefused
from backprop.scheduler.governor import opening
from backprop.scheduler.lifecycle import State
from backprop.scheduler.store import drain as switches
from backprop.scheduler.store.reads import queries
from backprop.scheduler.store.writes import claims
from backprop.worker.admission.admission import Admitter
from backprop.worker.context import Context
from backprop.worker.machine.monitor import RuntimeMonitor
from backprop.worker.machine.reader import MachineReader
from backprop.worker.maintenance import recovery
from backprop.worker.reactions.reactions import Reactions
from backprop.worker.segments.tracker import SegmentTracker
from backprop.worker.signals import StopSignals
from backprop.worker.takeover import reconcile
from backprop.worker.wakeup import WakePipe

TICK_LIVE_S: Final = 0.5
TICK_IDLE_S: Final = 2.0
RECONCILE_EVERY_S: Final = 30.0
TROUBLE_PAUSE_S: Final = (1.0, 60.0)


class Loop:
    """`until`: asked after each tick; True ends the loop as a first Ctrl-C would, once nothing of ours lives."""

    def __init__(self, context: Context, wake: WakePipe, until: Callable[[], bool] | None = None) -> None:
        self._context = context
        self._wake = wake
        self._until = until
        self._reader = MachineReader(context)
        self._monitor = RuntimeMonitor(context, self._reader)
        self._reactions = Reactions(context)
        self._tracker = SegmentTracker(context, self._monitor.ended, self._reactions.steps)
        self._admitter = Admitter(context, self._reader, self._monitor, self._tracker)
        self._reconciled_s = -RECONCILE_EVERY_S
        self._unsound: str | None = None
        self._trouble_s = 0.0
        self._asked_seen = 0

    def run(self, drain: bool) -> bool:
        """Tick until told to stop, or until nothing is left to run when draining. True if it was interrupted."""
        with StopSignals() as stop:
            try:
                while not stop.hung_up:
                    alive = self._guarded_tick(stop)
                    if self._finished(stop, alive, drain):
                        break
                    self._sleep(stop, alive)
            finally:
                self._context.executor.close()
                self._reactions.close()
                self._tracker.close()
                self._reader.close()
            return stop.hung_up or stop.asked > 0

    def _finished(self, stop: StopSignals, alive: int, drain: bool) -> bool:
        if self._trouble_s:
            # Nothing can be settled now. The segments end without us; who insists may go.
            return stop.asked >= 2
        if stop.asked >= 3:
            return True
        if alive:
            return False
        if stop.asked or (self._until is not None and self._until()):
            return True
        return drain and not self._left_to_run()

    def _left_to_run(self) -> bool:
        try:
            return self._may_come()
        except BackpropError:
            return True  # it cannot be read now; the next tick tells what is to be done about it

    def _may_come(self) -> bool:
        if (drained := switches.drained(self._context.database)) is not None:
            self._context.console.event(
                "drained", more=f"what is queued stays so: {opening.drained_words(drained[0])}"
            )
            return False
        return queries.next_due_s(self._context.database) is not None

    def _guarded_tick(self, stop: StopSignals) -> int:
        """A tick that no trouble ends: a full disk, a locked database or a bug is said, and tried again later."""
        try:
            alive = self._tick(stop)
        except DatabaseDamaged as error:
            self._unsound = str(error)
        except DatabaseRefused:
            raise
        except BackpropError as error:
            self._trouble(str(error))
        except Exception:
            self._trouble(traceback.format_exc())
        else:
            self._trouble_s = 0.0
            return alive
        return 1

    def _tick(self, stop: StopSignals) -> int:
        """Finish what ended before starting anything."""
        # First of all: what has ended wakes us up as long as it is not collected.
        self._context.executor.reap()
        if self._unsound is None and self._context.database.replaced():
            self._unsound = f"{self._context.home.database} was deleted or replaced"
        if self._unsound is not None:
            self._repair(self._unsound)
        self._reader.pump()
        self._reactions.pump()
        now_s = self._context.clock.monotonic_s()
        if now_s - self._reconciled_s >= RECONCILE_EVERY_S:
            self._reconciled_s = now_s
            self._expect_own_row()
            reconcile(self._context)
            self._reactions.end_unmet()
            self._monitor.confirm(self._tracker.live())
            self._back_up()
        self._obey(stop)
        alive = self._tracker.track()
        self._monitor.check(self._tracker.live())
        if not stop.asked and not stop.hung_up:
            alive += self._admitter.admit()
        return alive

    def _expect_own_row(self) -> None:
        """An older copy may be put into the very file that is open, by `cp` say."""
        if all(one.id != self._context.worker for one in queries.workers(self._context.database)):
            self._repair(f"{self._context.home.database} does not know this worker any more")

    def _back_up(self) -> None:
        """Where no copy can be made (the disk is full, say), everything else goes on."""
        try:
            recovery.back_up(self._context.home, self._context.database, self._context.clock.wall_s())
        except (DatabaseBusy, OSError) as error:
            self._context.console.event("trouble", more=f"no backup could be made: {error}")

    def _obey(self, stop: StopSignals) -> None:
        if stop.asked >= 1 and self._asked_seen == 0:
            count = self._tracker.yield_all("the worker was stopped")
            told = (
                f"{count} segment{'s' if count > 1 else ''} asked to checkpoint; once more ends them now"
                if count
                else "nothing is running"
            )
            self._context.console.event("stopping", more=told)
        elif stop.asked >= 2 and self._asked_seen == 1:
            told = "what has not ended yet; once more leaves it to the next worker"
            self._context.console.event("killing", more=told)
        if stop.asked >= 2:
            self._tracker.kill_all()
        self._asked_seen = min(stop.asked, 2)

    def _repair(self, why: str) -> None:
        """Go on with a sound database, completed from the runs' folders; live segments have noticed nothing.

        Where that fails (the disk is full, say), the next tick tries again."""
        context = self._context
        self._unsound = why
        context.console.event("repairing", more=why)
        context.database.close()
        context.database = recovery.open_sound(
            context.home, lambda line: context.console.event("repairing", more=line)
        )
        claims.worker_started(
            context.database,
            context.worker,
            os.getpid(),
            context.settings.max_parallel,
            context.clock.wall_s(),
        )
        self._reconciled_s = -RECONCILE_EVERY_S
        self._unsound = None

    def _trouble(self, what: str) -> None:
        least, most = TROUBLE_PAUSE_S
        self._trouble_s = min(max(self._trouble_s * 2, least), most)
        for line in what.rstrip().splitlines():
            self._context.console.event("trouble", more=line)
        self._context.console.event("trouble", more=f"the worker goes on, in {self._trouble_s:g} s")

    def _sleep(self, stop: StopSignals, alive: int) -> None:
        """Until the next tick is due, a segment ends, a command rings, a probe answers, or a signal comes."""
        if not stop.asked and not stop.hung_up:
            self._context.executor.prepare()
        poll = select.poll()
        others = (self._wake.fileno(), *self._context.executor.wake_fds(), *self._reader.wake_fds())
        # In trouble it is time that is to pass: what ends meanwhile cannot be settled.
        for handle in (stop.fileno(), *(others if not self._trouble_s else ())):
            poll.register(handle, select.POLLIN)
        asked = bool(
            self._reader.wake_fds()
        )  # a driver that does not answer must not slow down what needs none
        timeout_s = self._trouble_s or (TICK_LIVE_S if alive or asked else TICK_IDLE_S)
        poll.poll(timeout_s * 1000)
        stop.drain()
        self._wake.drain()


def counts_line(context: Context) -> str:
    """What the queue holds now, for a last line."""
    try:
        counts = queries.state_counts(context.database)
    except Exception:  # closed while it was being repaired
        return "the queue cannot be read"
    return ", ".join(f"{counts[state]} {state}" for state in State if state in counts) or "the queue is empty"
