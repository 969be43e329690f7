"""Brings the VRAM of segments back that run, or are to end: once there is room, the tree goes on, and then it comes in.

A running row beside VRAM in RAM is on its way back, whoever finds it. A restore that meets a full GPU may never succeed
again, so none is tried before the driver shows the room, a moment ago. Where that does not come, the run stays
suspended, and one whose tree goes on already is frozen again. A run whose
VRAM does not come back although there was room is ended, and goes on from its last checkpoint.
"""

from collections.abc import Callable, Collection, Sequence
from typing import Final

import msgspec

from backprop.scheduler.errors import LostRace
from backprop.scheduler.governor.model import Denial
from backprop.scheduler.governor.need import limits_of
from backprop.scheduler.governor.snapshot import Snapshot
from backprop.scheduler.lifecycle import Intent
from backprop.scheduler.records import RunRecord, SegmentRecord
from backprop.scheduler.store.reads import queries
from backprop.scheduler.store.writes import claims, suspensions
from backprop.worker.context import Context
from backprop.worker.executor import suspend_files
from backprop.worker.executor.vram import promised
from backprop.worker.machine.state import MachineState
from backprop.worker.segments.boxes.vram_moves import VramMoves, Where

ROOM_S: Final = 60.0
"""A run that was let go on, and finds no room on its GPU for so long, stays suspended."""
BACK_OFF_S: Final = 60.0
MOST_BACK_OFF_S: Final = 900.0
LEAST_TO_SAVE_S: Final = 10.0
"""Room for the VRAM of a run that is to end is waited for as long as its grace is, and for so long at least."""
SIGNAL_EVERY_S: Final = 2.0

_Key = tuple[str, int]


def owned(context: Context, run: RunRecord) -> bool:
    """Return whether a run is still as it was read, and this worker's. Raises DatabaseBusy."""
    now = queries.run_by_id(context.database, run.id)
    return now is not None and (now.worker, now.state, now.segment) == (
        context.worker,
        run.state,
        run.segment,
    )


class VramReturn:
    """`away`: the segments whose VRAM is not known to be on its GPU. `let_go_on`: gives a box, and orders the
    supervisor to let the tree go on; `stand_still`: has it frozen again, for a reason. `state`: returns the machine's
    state; None while it is not read."""

    def __init__(
        self,
        context: Context,
        moves: VramMoves,
        snapshot: Callable[[], Snapshot | None],
        state: Callable[[Snapshot], MachineState],
        let_go_on: Callable[[RunRecord, int], None],
        stand_still: Callable[[RunRecord, SegmentRecord, str], None],
    ) -> None:
        self._context, self._moves = context, moves
        self._snapshot, self._state = snapshot, state
        self._let_go_on, self._stand_still = let_go_on, stand_still
        self._known: set[_Key] = set()
        self.away: set[_Key] = set()
        self._since_s: dict[_Key, float] = {}
        self._signalled_s: dict[_Key, float] = {}
        self._refused: dict[_Key, int] = {}

    def is_away(self, key: _Key) -> bool:
        """Return whether the VRAM of a segment is out, or on its way. Raises OSError."""
        if key not in self._known:
            if self._moves.where(key) not in (Where.HERE, Where.STAYED):
                self.away.add(key)
            self._known.add(key)
        return key in self.away

    def forget(self, keys: Collection[_Key]) -> None:
        """Keep nothing but what concerns these live segments."""
        self._known &= set(keys)
        self.away &= set(keys)
        for kept in (self._since_s, self._signalled_s, self._refused):
            for key in [key for key in kept if key not in keys]:
                del kept[key]

    def attend(self, run: RunRecord, segment: SegmentRecord) -> None:
        """Take the next step of a run that is to have its VRAM. Raises OSError, LostRace, DatabaseBusy."""
        key = (run.id, run.segment)
        match self._moves.step(key):
            case Where.HERE:
                self._is_back(run)
            case Where.STAYED:
                self.away.discard(key)
            case Where.LEAVING | Where.COMING:
                pass
            case Where.OUT:
                self._call_in(run, segment)
            case Where.STRANDED:
                self.strand(run)

    def end(self, run: RunRecord, segment: SegmentRecord) -> None:
        """Take the next step of a run that was asked to end: with its VRAM it can save. Raises OSError, LostRace,
        DatabaseBusy."""
        key = (run.id, run.segment)
        if run.intent is Intent.STRANDED:
            if self._is_due(key):
                self._context.executor.kill(*key)
            return
        why = self._promise(run, segment) if segment.vram_out_mib is not None else None
        if why is None and self._moves.where(key) is Where.OUT:
            why = self._moves.why_no_room(key) or self._why_not_promised(run)
        if why is None:
            self.attend(run, segment)
        else:
            since_s = self._since_s.setdefault(key, self._context.clock.monotonic_s())
            waited_s = self._context.clock.monotonic_s() - since_s
            if waited_s >= max(run.spec.grace_s, LEAST_TO_SAVE_S) and self._is_due(key):
                self._context.console.event(
                    "killed", run, f"segment {run.segment}: it cannot save, its VRAM is in RAM: {why}"
                )
                self._context.executor.kill(*key)

    def strand(self, run: RunRecord) -> None:
        """End a run whose VRAM does not come back. Raises OSError, DatabaseBusy."""
        why = self._moves.what_failed((run.id, run.segment))
        if claims.ask_to_end(self._context.database, run, Intent.STRANDED, why):
            self._context.console.event(
                "stranded", run, f"segment {run.segment}: its VRAM did not come back: {why}"
            )

    def _is_back(self, run: RunRecord) -> None:
        key = (run.id, run.segment)
        suspensions.went_on(self._context.database, run, self._context.clock.wall_s())
        self.away.discard(key)
        for kept in (self._since_s, self._signalled_s, self._refused):
            kept.pop(key, None)  # pyright: ignore[reportUnknownMemberType]
        self._context.console.event("restored", run, f"segment {run.segment} has its VRAM again")

    def _call_in(self, run: RunRecord, segment: SegmentRecord) -> None:
        key, folder = (run.id, run.segment), self._context.executor.folder(run.id, run.segment)
        if self._moves.stuck is not None:
            return
        order = suspend_files.read(folder)
        is_frozen = order is not None and order.suspends
        if (why := self._moves.why_no_room(key) or self._why_not_promised(run)) is not None:
            since_s = self._since_s.setdefault(key, self._context.clock.monotonic_s())
            if self._context.clock.monotonic_s() - since_s >= ROOM_S and run.intent is None:
                self._since_s.pop(key, None)
                if is_frozen:
                    self._give_back(run, why)
                else:
                    self._stand_still(run, segment, f"no room for its VRAM: {why}")
            return
        self._since_s.pop(key, None)
        if order is not None and is_frozen:
            self._let_go_on(run, order.number)
        elif not suspend_files.is_paused(folder):
            self._moves.call_in(key)
        elif self._is_due(key):
            self._context.executor.unpause(*key)

    def _why_not_promised(self, run: RunRecord) -> str | None:
        """Have what is promised to the run count for other homes again, which have not counted it while its VRAM was
        in RAM; return why it does not fit beside theirs, None where it does. Raises DatabaseBusy."""
        folder = self._context.executor.folder(run.id, run.segment)
        segment = queries.segment(self._context.database, run.id, run.segment)
        try:
            if segment is None or not promised.take_up(folder, segment.promised_mib):
                return None
            snapshot = self._snapshot()
            if snapshot is None:
                return "its GPU is not read yet"
            # They are read after ours counts: of two homes that decide at one moment one at least sees the other.
            state = self._state(snapshot).without(run.id)
            denials: Sequence[Denial] = ()
            if any(one.gpu_uuid in segment.gpu_uuids for one in state.elsewhere):
                limits = limits_of(run.spec, self._context.settings)
                _, denials = state.judge_return(segment, limits)
            if not denials:
                promised.settle(folder)
                return None
        except (OSError, msgspec.DecodeError) as error:
            return f"other homes cannot be told: {error}"
        promised.set_aside(folder, lambda: owned(self._context, run))
        return "; ".join(denial.sentence() for denial in denials)

    def _give_back(self, run: RunRecord, why: str) -> None:
        """Leave a run suspended that was let go on: its promise goes back."""
        key = (run.id, run.segment)
        count = self._refused.get(key, 0)
        delay_s = min(BACK_OFF_S * 2**count, MOST_BACK_OFF_S)
        out_mib = self._moves.out_mib(key) or 0
        now_s = self._context.clock.wall_s()
        suspensions.give_back(
            self._context.database, run, f"no room for its VRAM: {why}", out_mib, now_s + delay_s, now_s
        )
        self._refused[key] = count + 1
        self._context.console.event(
            "suspended", run, f"segment {run.segment} stays so for {delay_s / 60:g} min: {why}"
        )

    def _promise(self, run: RunRecord, segment: SegmentRecord) -> str | None:
        """Promise a suspended run its VRAM again, which is to save and end; return why it has to wait. Raises
        DatabaseBusy."""
        if self._moves.stuck is not None:
            return self._moves.stuck
        snapshot = self._snapshot()
        if snapshot is None:
            return "its GPU is not read yet"
        state = self._state(snapshot)
        need, denials = state.judge_return(segment, limits_of(run.spec, self._context.settings))
        if denials:
            return "; ".join(denial.sentence() for denial in denials)
        try:
            promised = suspensions.Promised(need.vram_mib, state.serial)
            suspensions.promise_again(self._context.database, run, promised)
        except LostRace as error:
            return str(error)
        return None

    def _is_due(self, key: _Key) -> bool:
        """Return whether a signal may be sent again."""
        now_s = self._context.clock.monotonic_s()
        if now_s - self._signalled_s.get(key, -SIGNAL_EVERY_S) < SIGNAL_EVERY_S:
            return False
        self._signalled_s[key] = now_s
        return True
