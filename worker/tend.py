"""What becomes of the segments this worker owns: hear them, pass on what they are asked, settle their ends."""

import contextlib
import traceback
from collections.abc import Callable
from typing import Final

import msgspec

from backprop.scheduler import claims, folders, reads
from backprop.scheduler.claims import Settled
from backprop.scheduler.errors import BackpropError, LostRace
from backprop.scheduler.folders import OutcomeFile
from backprop.scheduler.lifecycle import FINAL, Intent, State
from backprop.scheduler.outcome import Ending, Verdict, settle
from backprop.scheduler.records import RunRecord, SegmentRecord
from backprop.worker import mend
from backprop.worker.context import Context
from backprop.worker.ending import chain_of, ending_of
from backprop.worker.listen import Listener
from backprop.worker.outside import Outside
from backprop.worker.overdue import Overdue
from backprop.worker.pace import Now, Pace
from backprop.worker.place import Exit, Life
from backprop.worker.supervisor import failpoint

SUPERVISE_AGAIN_S: Final = 5.0
COMPLAIN_AGAIN_S: Final = 60.0
HEAR_EVERY_S: Final = 1.0
"""At most one transaction a second for a segment's events: a writer without pauses starves the others."""

Key = tuple[str, int]


class Tender:
    """Looks after live segments, one after the other; trouble with one run never stops the others."""

    def __init__(
        self,
        context: Context,
        ended: Callable[[str, int, bool], None],
        settled: Callable[[RunRecord, Verdict, Settled], None] | None = None,
    ) -> None:
        """`ended`: told (run id, segment, whether processes survive it) of each end; `settled`: of each once its run
        has moved."""
        self._context = context
        self._settled = settled
        self._ended = ended
        self._listeners: dict[Key, Listener] = {}
        self._heard_s: dict[Key, float] = {}
        self._asked: set[Key] = set()
        self._paces: dict[Key, Pace] = {}
        self._supervised_s: dict[Key, float] = {}
        self._overdue = Overdue(context)
        self.outside = Outside(context)
        self._complaints: dict[str, tuple[str, float]] = {}

    def tend(self) -> int:
        """One look at every live run of this worker. Returns how many still live. Raises DatabaseBusy."""
        self.outside.report()
        alive = 0
        for run in self.live():
            try:
                alive += self._tend_one(run)
            except LostRace:
                # Moved under our eyes, by the user's stop say; the next look sees it as it is now.
                alive += 1
                self._forget((run.id, run.segment))
            except BackpropError:
                raise
            except Exception:
                alive += 1
                self._complain(run, traceback.format_exc(limit=-3).replace("\n", " | "))
        return alive

    def _complain(self, run: RunRecord, what: str) -> None:
        """Say it, but not with every tick."""
        said, said_s = self._complaints.get(run.id, ("", 0.0))
        now_s = self._context.clock.monotonic_s()
        if said != what or now_s - said_s > COMPLAIN_AGAIN_S:
            self._complaints[run.id] = (what, now_s)
            self._context.talk.say("trouble", run, what)

    def live(self) -> list[RunRecord]:
        """The live runs this worker owns."""
        everybody = reads.live_runs(self._context.database)
        return [run for run in everybody if run.worker == self._context.worker]

    def yield_all(self, why: str) -> int:
        """Ask every live segment to checkpoint and make room; how many were asked."""
        runs = self.live()
        for run in runs:
            claims.ask_to_end(self._context.database, run, Intent.YIELD, why)
        return len(runs)

    def kill_all(self) -> None:
        for run in self.live():
            self._context.place.kill(run.id, run.segment)

    def close(self) -> None:
        for key in list(self._listeners):
            self._forget(key)
        self.outside.close()

    def _tend_one(self, run: RunRecord) -> bool:
        key = (run.id, run.segment)
        life, exit_record = self._context.place.look(*key)
        segment = self._segment(run)
        if life in (Life.ENDED, Life.LOST):
            self._settle(run, segment, exit_record)
            return False
        if life is Life.UNSUPERVISED:
            self._supervise(run)
        else:
            self._overdue.look(run)
        pace = self._pace(run, segment)
        if run.intent is not None:
            self._ask(run)
        self._hear(run, segment)
        if run.intent is None and run.state is State.RUNNING:
            self._end_early(run, pace)
        return True

    def _ask(self, run: RunRecord) -> None:
        key = (run.id, run.segment)
        if key not in self._asked:
            self._asked.add(key)
            self._context.place.ask(*key)
            self._context.talk.say(
                "stopping", run, f"segment {run.segment}: {run.intent_why or 'asked by the user'}"
            )

    def _pace(self, run: RunRecord, segment: SegmentRecord) -> Pace:
        key, clock = (run.id, run.segment), self._context.clock
        now = Now(clock.wall_s(), clock.monotonic_s())
        pace = self._paces.get(key)
        if pace is None:
            database = self._context.database
            earlier = [one for one in reads.segments(database, run.id) if one.number < run.segment]
            pace = Pace(run, segment, earlier, reads.checkpoints(database, run.id), now)
            self._paces[key] = pace
        pace.look(run.state, now)
        return pace

    def _end_early(self, run: RunRecord, pace: Pace) -> None:
        """Ask it to end where that is better than to wait for its supervisor's timebox."""
        listener = self._listeners.get((run.id, run.segment))
        if listener is None:
            return
        wish = pace.wish(
            _announces(run, listener),
            listener.steps,
            lambda number: self._context.place.folder(run.id, number),
        )
        if wish is not None and claims.ask_to_end(self._context.database, run, *wish):
            self._ask(msgspec.structs.replace(run, intent=wish[0], intent_why=wish[1]))

    def _segment(self, run: RunRecord) -> SegmentRecord:
        found = reads.segment(self._context.database, run.id, run.segment)
        if found is None:
            raise LostRace(f"segment {run.segment} of {run.id} is gone")
        return found

    def _supervise(self, run: RunRecord) -> None:
        key, now_s = (run.id, run.segment), self._context.clock.monotonic_s()
        if now_s - self._supervised_s.get(key, -SUPERVISE_AGAIN_S) >= SUPERVISE_AGAIN_S:
            self._supervised_s[key] = now_s
            self._asked.discard(key)
            self._context.talk.say(
                "adopted", run, f"segment {run.segment} lives on without a supervisor: a new one"
            )
            self._context.place.supervise(*key)

    def _hear(
        self,
        run: RunRecord,
        segment: SegmentRecord,
        final: bool = False,
        exit: Exit | None = None,  # noqa: A002
    ) -> bool:
        """Store what it said and saved since the last time. False when somebody has stored since `segment` was read:
        nothing is stored then, and the next call begins where the row stands. `final`: it has ended, as `exit` says."""
        key, now_s = (run.id, run.segment), self._context.clock.monotonic_s()
        if not final and now_s - self._heard_s.get(key, -HEAR_EVERY_S) < HEAR_EVERY_S and not self._near(run):
            return True
        self._heard_s[key] = now_s
        listener = self._listeners.get(key)
        if listener is not None and not listener.stands_at(segment):
            # The row is another one: the database was put together anew under us.
            self.outside.forget(key)
            listener.close()
            listener = None
        if listener is None:
            listener = Listener(run, segment, self._context.place.folder(*key))
            self._listeners[key] = listener
        try:
            hurry = self._near(run)
            look = (
                self.outside.last_look(run, segment, exit)
                if final
                else self.outside.look(run, segment, hurry)
            )
            heard = listener.hear(final, look)
            if heard is None:
                return True
            if not claims.record(self._context.database, run.id, run.segment, heard):
                self._forget(key)
                return False
        except BaseException:
            # It has read on, and nothing is stored: whatever was in there is to be heard again.
            self._listeners.pop(key).close()
            self.outside.forget(key)
            raise
        listener.stored(heard)
        if key in self._paces:
            self._paces[key].heard([*heard.checkpoints, *heard.spotted], self._context.clock.wall_s())
        if heard.nonfinite and run.spec.stop_on_nan and not final:
            step = f" at step {heard.last_step}" if heard.last_step is not None else ""
            claims.ask_to_end(self._context.database, run, Intent.NAN, f"its loss is NaN{step}")
        for saved in (*heard.checkpoints, *heard.spotted):
            if saved.refused:
                self._context.talk.say("refused", run, f"checkpoint {saved.path}: {saved.refused}")
            else:
                self._context.talk.detail("checkpoint", run, f"step {saved.step}: {saved.path}")
        return True

    def _near(self, run: RunRecord) -> bool:
        """Whether hearing of a save a second late would matter."""
        key = (run.id, run.segment)
        pace, listener = self._paces.get(key), self._listeners.get(key)
        return pace is not None and listener is not None and pace.is_near(_announces(run, listener))

    def _settle(self, run: RunRecord, segment: SegmentRecord, exit_record: Exit | None) -> None:
        """Everything said is heard first: a checkpoint saved while no worker lived counts."""
        database = self._context.database
        while not self._hear(run, segment, final=True, exit=exit_record):
            segment = self._segment(run)
        run = reads.run_by_id(database, run.id) or run
        segment = self._segment(run)
        self._ended(run.id, run.segment, exit_record is not None and bool(exit_record.survivors))
        pace = self._pace(run, segment)
        ending = ending_of(
            run,
            segment,
            exit_record,
            self._context.place.folder(run.id, run.segment),
            reads.checkpoints(database, run.id),
            pace.paused_between_s,
        )
        self._move(run, segment, ending)

    def _move(self, run: RunRecord, segment: SegmentRecord, ending: Ending) -> None:
        database = self._context.database
        chain = chain_of(run, segment, ending, mend.known(self._context.home, database, run))
        verdict = settle(run.spec, ending, chain)
        failpoint.at("heard")
        settled = claims.settle(database, run, verdict, ending, self._context.clock.wall_s())
        state = settled.state
        failpoint.at("settled")
        self._forget((run.id, run.segment))
        self._paces.pop((run.id, run.segment), None)
        if state in FINAL:
            self._write_outcome(run, state, verdict.reason)
        if state is State.COMPLETED:
            self.outside.completed(run)
        what = "requeued" if state is State.QUEUED else state.value
        self._context.talk.say(
            what, run, f"segment {run.segment}, {ending.running_s:.1f} s: {verdict.reason}"
        )
        if self._settled is not None:
            self._settled(run, verdict, settled)

    def _write_outcome(self, run: RunRecord, state: State, reason: str) -> None:
        """Into the run's folder, for a database that has to be put together again."""
        folder = self._context.home.run_folder(run.id)
        outcome = OutcomeFile(
            state=state.value, reason=reason, segment=run.segment, ended_at_s=self._context.clock.wall_s()
        )
        with contextlib.suppress(OSError):
            folders.write_outcome(folder, outcome)

    def could_not_start(self, run: RunRecord, ending: Ending) -> None:
        """Settle a claimed segment whose supervisor could not even be started."""
        segment = reads.segment(self._context.database, run.id, run.segment)
        if segment is not None:
            self._move(run, segment, ending)

    def _forget(self, key: Key) -> None:
        listener = self._listeners.pop(key, None)
        if listener is not None:
            listener.close()
        self.outside.forget(key)
        self._heard_s.pop(key, None)
        self._supervised_s.pop(key, None)
        self._overdue.forget(key)
        self._asked.discard(key)


def _announces(run: RunRecord, listener: Listener) -> bool:
    """Whether it says itself when it has saved. Whose checkpoints are looked for may do so all the same."""
    return listener.announces or run.spec.plan is None or not run.spec.plan.globs
