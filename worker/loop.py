"""Runs a worker: one tick after another until it is told to stop.

Signal handlers only record and wake the loop; the loop acts. First INT or TERM: claim nothing more, ask the
segments to checkpoint, requeue them, exit. Second: end them now. HUP (tmux closed): exit, segments go on.
"""

import contextlib
import select
import traceback
from collections.abc import Callable
from typing import Final

from backprop.scheduler.errors import BackpropError, DatabaseDamaged, DatabaseRefused
from backprop.scheduler.governor import opening
from backprop.scheduler.home.wake_pipes import WakePipe
from backprop.scheduler.lifecycle import State
from backprop.scheduler.store import drain, parallel
from backprop.scheduler.store.reads import queries
from backprop.worker.admission.admission import Admitter
from backprop.worker.context import Context
from backprop.worker.executor.heartbeat import BEAT_S, Heartbeat, Listener, silences
from backprop.worker.machine.monitor import RuntimeMonitor
from backprop.worker.machine.reader import MachineReader
from backprop.worker.machine.sampler import Sampler
from backprop.worker.machine.sleep_inhibitor import SleepInhibitor
from backprop.worker.maintenance.database_care import DatabaseCare
from backprop.worker.maintenance.held_runs import HeldRuns
from backprop.worker.maintenance.scrubber import Scrubber
from backprop.worker.reactions.hourly import Hourly
from backprop.worker.reactions.reactions import Reactions
from backprop.worker.segments.tracker import SegmentTracker
from backprop.worker.signals import StopSignals
from backprop.worker.takeover import reconcile

TICK_LIVE_S: Final = 0.5
TICK_IDLE_S: Final = 2.0
RECONCILE_EVERY_S: Final = 30.0
TROUBLE_PAUSE_S: Final = (1.0, 60.0)
SECOND_SIGNAL_S: Final = 3.0
"""A worker that leaves segments to the next one waits this long for a second signal, which ends them."""
REPLACED: Final = "its program was replaced: restart the worker; its segments go on"


class Loop:
    """`until`: called after each tick; True ends the loop as a first Ctrl-C would, once no segment of this worker
    lives."""

    def __init__(
        self,
        context: Context,
        wake: WakePipe,
        heartbeat: Heartbeat,
        until: Callable[[], bool] | None = None,
    ) -> None:
        self._context = context
        self._wake = wake
        self._heartbeat = heartbeat
        self._others = Listener(context.home.locks)
        self._until = until
        self._reader = MachineReader(context)
        self._monitor = RuntimeMonitor(context, self._reader)
        self._awake = SleepInhibitor(context.clock, lambda why: context.console.event("sleep", more=why))
        self._reactions = Reactions(context, self._awake.release)
        self._tracker = SegmentTracker(context, self._monitor, self._reactions, self._reader.snapshot)
        self._admitter = Admitter(context, self._reader, self._monitor, self._tracker)
        self._sampler = Sampler(context, self._reader.recent)
        self._hourly = Hourly(context, self._reader.recent)
        self._held = HeldRuns(context)
        self._scrubber = Scrubber(context)
        self._care = DatabaseCare(context)
        self._reconciled_s = -RECONCILE_EVERY_S
        self._trouble_s = 0.0
        self._obeyed = 0
        self._left_s = 0.0

    def run(self, stop: StopSignals, drain: bool) -> None:
        """Tick until `stop` says so, or with `drain` until nothing is left to run. Raises DatabaseRefused."""
        with contextlib.suppress(BackpropError):
            self._hourly.begin()
        try:
            while not stop.hung_up:
                stop.suspend()
                self._heartbeat.beat()
                alive = self._guarded_tick(stop)
                if self._finished(stop, alive, drain):
                    break
                self._sleep(stop, alive)
        finally:
            self._context.executor.close()
            self._context.clusters.close()
            self._reactions.close()
            self._tracker.close()
            self._reader.close()
            self._awake.release()

    def _finished(self, stop: StopSignals, alive: int, drain: bool) -> bool:
        if self._trouble_s:
            # No end can be applied now. Segments end without a worker; a second signal is enough to leave.
            return stop.asked >= 2
        if stop.asked >= 3:
            return True
        if alive > (self._not_waited_for() if stop.asked else 0):
            return False
        if stop.asked or (self._until is not None and self._until()):
            return True
        if not drain or self._left_to_run():
            return False
        self._say_what_stays()
        return True

    def _not_waited_for(self) -> int:
        """Return how many live runs a worker that is to stop leaves to the next one: those that it has not asked to
        end, once a second signal has had its time."""
        soon = self._context.clock.monotonic_s() - self._left_s < SECOND_SIGNAL_S
        try:
            left = 0 if soon or self._obeyed != 1 else self._tracker.being_left()
        except BackpropError:
            left = 0
        return left + self._tracker.unanswered()

    def _left_to_run(self) -> bool:
        try:
            drained = drain.drained(self._context.database)
            if drained is None:
                return queries.next_due_s(self._context.database) is not None
        except BackpropError:
            return True  # it cannot be read now; the next tick finds out why
        self._context.console.event(
            "drained", more=f"queued runs stay queued: {opening.drained_words(drained[0])}"
        )
        return False

    def _say_what_stays(self) -> None:
        """Name the runs that their users keep suspended."""
        with contextlib.suppress(BackpropError):
            for run in queries.live_runs(self._context.database):
                if run.state is State.SUSPENDED:
                    self._context.console.event("left", run, run.reason)

    def _guarded_tick(self, stop: StopSignals) -> int:
        """Run a tick; return how many segments live. No trouble ends it: a full disk, a locked database or a bug is
        printed, and the next tick tries again later."""
        try:
            alive = self._tick(stop)
        except DatabaseDamaged as error:
            self._care.distrust(str(error))
        except DatabaseRefused:
            raise
        except BackpropError as error:
            silent = silences(self._context.home.locks)
            self._trouble("\n".join([str(error), *(one.sentence() for one in silent)]))
        except Exception:
            advice = f"{REPLACED}\n" if self._context.executor.is_replaced() else ""
            self._trouble(traceback.format_exc() + advice)
        else:
            self._trouble_s = 0.0
            return alive
        return 1

    def _tick(self, stop: StopSignals) -> int:
        """Finish what ended before starting anything; return how many segments live."""
        self._context.files.begin_tick()
        self._reap_exited()
        self._note_sleep()
        self._repair_database()
        self._take_over_orphans()
        self._obey(stop)
        alive, ended = self._tracker.read_events()
        alive -= self._tracker.finalize_ended(ended)
        self._reactions.end_groups()
        self._watch_running()
        self._take_parallel()
        if not stop.asked and not stop.hung_up:
            alive += self._admit_queued()
            self._context.executor.prepare()
        self._sampler.sample(self._admitter.head_waits_for, stopping=stop.asked > 0)
        self._awake.keep(self._context.settings.inhibit_sleep and alive > 0)
        self._hourly.tell_if_due(self._admitter.is_closed)
        self._scrubber.step()
        return alive

    def _reap_exited(self) -> None:
        """Collect supervisors, probes and hooks that have ended: until then a supervisor keeps waking the loop."""
        self._context.executor.reap()
        self._reader.pump()
        self._reactions.pump()

    def _note_sleep(self) -> None:
        """After a sleep of the machine, look at everything anew. What is counted in running time goes on from there."""
        slept_s = self._context.clock.slept_s()
        if slept_s:
            self._context.console.event(
                "slept", more=f"the machine was asleep for {slept_s / 60:.0f} min; no box or grace counts it"
            )
            self._reader.forget()
            self._reconciled_s = -RECONCILE_EVERY_S

    def _repair_database(self) -> None:
        if self._care.repair_if_unsound():
            self._reactions.forget()
            self._reconciled_s = -RECONCILE_EVERY_S

    def _take_over_orphans(self) -> None:
        """Take over what other workers cannot go on with, and do what else is due every 30 s because no event announces
        it."""
        now_s = self._context.clock.monotonic_s()
        if now_s - self._reconciled_s < RECONCILE_EVERY_S:
            return
        self._reconciled_s = now_s
        if self._care.compare():
            self._reactions.forget()
            self._reconciled_s = -RECONCILE_EVERY_S
        reconcile(self._context, self._others)
        self._reactions.end_unsatisfiable()
        self._held.release_found()
        self._monitor.confirm(self._tracker.live())
        self._care.back_up()

    def _watch_running(self) -> None:
        self._monitor.check(self._tracker.watched())

    def _take_parallel(self) -> None:
        context = self._context
        if context.take_parallel():
            context.console.event(
                "parallel", more=f"from now on {parallel.words(context.settings.max_parallel)}"
            )
            self._admitter.judge_again()

    def _admit_queued(self) -> int:
        return self._admitter.admit()

    def _obey(self, stop: StopSignals) -> None:
        """Act on the stop signals so far."""
        if stop.asked >= 1 and self._obeyed == 0:
            asked, left = self._tracker.yield_all("the worker was stopped")
            self._left_s = self._context.clock.monotonic_s()
            self._context.console.event("stopping", more=_stopping_words(asked, left))
        elif stop.asked >= 2 and self._obeyed == 1:
            more = "segments that have not ended yet; a third signal leaves them to the next worker"
            self._context.console.event("killing", more=more)
        if stop.asked >= 2:
            self._tracker.kill_all()
        self._obeyed = min(stop.asked, 2)

    def _trouble(self, message: str) -> None:
        """Print it and pause, each time in a row for twice as long."""
        least_s, most_s = TROUBLE_PAUSE_S
        self._trouble_s = min(max(self._trouble_s * 2, least_s), most_s)
        for line in message.rstrip().splitlines():
            self._context.console.event("trouble", more=line)
        self._context.console.event("trouble", more=f"the worker continues in {self._trouble_s:g} s")

    def _sleep(self, stop: StopSignals, alive: int) -> None:
        """Wait until the next tick is due, a segment ends, a command wakes the worker, a probe answers or a signal
        comes."""
        poll = select.poll()
        probes = self._reader.wake_fds()
        others = (self._wake.fileno(), *self._context.executor.wake_fds(), *probes)
        others = (*others, *self._context.clusters.wake_fds())
        # In trouble, time has to pass: ends of segments cannot be applied meanwhile.
        for handle in (stop.fileno(), *(others if not self._trouble_s else ())):
            poll.register(handle, select.POLLIN)
        # While a probe or a look is under way ticks stay short: what hangs must not slow down runs that need it not.
        busy = alive or probes or self._context.files.has_overdue()
        timeout_s = self._trouble_s or (TICK_LIVE_S if busy else TICK_IDLE_S)
        while not poll.poll(min(timeout_s, BEAT_S) * 1000) and timeout_s > BEAT_S:
            timeout_s -= BEAT_S
            self._heartbeat.beat()
        stop.drain()
        self._wake.drain()


def _stopping_words(asked: int, left: int) -> str:
    """Say what a first signal does to `asked` segments, and to those that are `left` alone."""
    if not asked and not left:
        return "nothing is running"
    told = [f"{asked} segment{'s' if asked > 1 else ''} asked to checkpoint"] if asked else []
    told += [f"{left} left running: an end would lose work"] if left else []
    return f"{', '.join(told)}; a second signal ends them now"


def counts_line(context: Context) -> str:
    """Return what the queue holds now, for the worker's last line."""
    try:
        counts = queries.state_counts(context.database)
    except BackpropError:
        return "the queue cannot be read"
    return ", ".join(f"{counts[state]} {state}" for state in State if state in counts) or "the queue is empty"
