"""Keeps the boxes of one live segment: decides at their ends, and leaves word for when this worker is not there.

What is decided is `governor.box_end`'s. Another box is given ahead of the end of the old one, by a file made once. An
end is left to the supervisor, which asks at the very moment, by the standing order that is renewed here.
"""

import math
from collections.abc import Sequence
from typing import Final, Protocol

import msgspec

from backprop.scheduler.governor.box_end import (
    ENDED,
    BoxCause,
    BoxDecision,
    BoxFacts,
    Choice,
    Known,
    decide_box,
)
from backprop.scheduler.records import RunRecord, SegmentRecord
from backprop.scheduler.store.writes import claims
from backprop.worker.context import Context
from backprop.worker.executor import box_files
from backprop.worker.executor.box_files import StandingOrder
from backprop.worker.segments import timebox
from backprop.worker.segments.boxes.pulse import Pulse, is_alive, take_pulse
from backprop.worker.segments.ends.chain import begun_in_chain
from backprop.worker.supervisor import failpoint

NOT_SEEN: Final = "what it has saved has not been looked at yet"
PAST: Final = "runs past its timebox"
CONFIRM_EVERY_S: Final = 15.0
"""A standing order that says the same is written again this often, so that it stays fresh."""
EXPLAIN_EVERY_S: Final = 30.0
NOTICE_S: Final = 10.0
"""How long before the end of a box another one is given, or its grace where that is more; at most a quarter of it."""
SAVING_S: Final = 30.0
"""A save that is under way is waited for so long, but at most for a quarter of the box."""
SEEN_SHARE: Final = 0.5
"""Of a box of which less was seen it is not said that nothing happened in it."""
LIFELESS_S: Final = 60.0
"""Nor of one that was watched for less, alone or with those before it: a download may pause for longer than a short
box."""


class Look(msgspec.Struct, frozen=True):
    """What one look at a segment has shown. `facts`: without what depends on the box. `once_saved`: how well it would
    be known to resume after its next save. `reported`: its steps and saves."""

    elapsed_s: float
    facts: BoxFacts
    once_saved: Known
    reported: tuple[object, ...]


class Senses(Protocol):
    """What is looked at only where it matters. `gpu_was_busy`: a GPU of the segment did something since a moment on the
    monotonic clock, or that cannot be told. `why_not_suspend`: why the end of its box may not suspend it.
    `why_vram_stays`: why that would leave its VRAM on its GPU. `suspend`: have that done."""

    def pids(self) -> frozenset[int]: ...
    def gpu_was_busy(self, since_s: float, /) -> bool: ...
    def why_not_suspend(self) -> str | None: ...
    def why_vram_stays(self) -> str | None: ...
    def suspend(self, why: str, /) -> None: ...


class BoxKeeper:
    """The boxes of one live segment whose supervisor obeys what is decided on them."""

    def __init__(
        self, context: Context, run: RunRecord, earlier: Sequence[SegmentRecord], first_ends_s: float
    ) -> None:
        """`earlier`: the run's segments before this one. `first_ends_s`: the end of the first box. Raises OSError when
        its files cannot be read."""
        self._context = context
        self._number = run.segment
        self._folder = context.executor.folder(run.id, run.segment)
        self._begun_before = begun_in_chain(run, run.segment, earlier) - 1
        self.box, self._ends_s = box_files.in_force(self._folder, first_ends_s)
        self._begins_s = 0.0 if self.box == 1 else self._ends_s - timebox.box_s(run)
        self._noted = self.box == 1
        self._goes_past = box_files.goes_past(self._folder)
        self._asked = False
        self._asking_since_s: float | None = None
        self._dead: str | None = None
        self._pulse: Pulse | None = None
        self._judged = self._deadline_of = 0
        self._is_quiet = False
        self._entered_s = context.clock.monotonic_s()
        self._standing: StandingOrder | None = None
        self._confirmed_s = self._explained_s = -math.inf
        self._explained: str | None = None
        self._saving_since_s: float | None = None
        self._last: Look | None = None

    @property
    def asking_since_s(self) -> float | None:
        """Since when its supervisor is to end the segment, in seconds of running time; None while it may go on."""
        return self._asking_since_s

    def in_force(self, run: RunRecord) -> timebox.Box:
        """Return the box in force. It may end early where a run that has just saved would be ended."""
        cuts = self._last is not None and not self._asked
        if self._last is not None and cuts:
            saved = msgspec.structs.replace(
                self._last.facts,
                unsaved_s=0.0,
                has_saved=True,
                has_begun=True,
                is_saving=False,
                resumes=self._last.once_saved,
            )
            cuts = decide_box(saved).choice is Choice.ASK and self._bound(run) is None
        return timebox.Box(self._begins_s, self._ends_s, cuts=cuts)

    def why_not_end(self, run: RunRecord, cause: BoxCause) -> str | None:
        """Return why ending the run now, to make room or as the worker stops, would lose work; None where it would
        not."""
        if self._last is None:
            return NOT_SEEN
        decision = self._decide(run, msgspec.structs.replace(self._last.facts, cause=cause, is_saving=False))
        return None if decision.choice is Choice.ASK else decision.why

    def keep(self, run: RunRecord, look: Look, sense: "Senses") -> None:
        """Decide on the box in force, and act where its end is near. Call once per tick. Raises OSError,
        DatabaseBusy."""
        if self._asked or run.intent is not None:
            return
        look = self._last = msgspec.structs.replace(look, facts=self._with_patience(look))
        if not self._noted:
            self._note(run, f"segment {self._number}, timebox {self.box}")
        if self._pulse is None:
            self._entered_s = self._context.clock.monotonic_s()
            self._pulse = self._take_pulse(look, sense)
        is_past = look.elapsed_s >= self._ends_s
        if is_past and self._was_decided(look):
            return
        is_near = look.elapsed_s >= self._ends_s - self._notice_s(run)
        if is_near and (look.facts.waited_beside or look.facts.cause is BoxCause.HOURS):
            facts = msgspec.structs.replace(look.facts, why_not_suspend=sense.why_not_suspend())
            look = self._last = msgspec.structs.replace(look, facts=facts)
        elif is_near and look.facts.waited_for:
            facts = msgspec.structs.replace(look.facts, vram_stays=sense.why_vram_stays())
            look = self._last = msgspec.structs.replace(look, facts=facts)
        self._goes_past = self._goes_past and look.facts.waited_for
        decision = self._decide(run, look.facts)
        if is_near and decision.choice is not Choice.ASK and self._is_dead(look, sense):
            decision = self._decide(run, look.facts)
        self._leave_word(decision, look.facts, is_near)
        asks = is_past and decision.choice is Choice.ASK
        self._asking_since_s = (self._asking_since_s or look.elapsed_s) if asks else None
        if decision.choice is Choice.RENEW and is_near:
            self._goes_past = False
            reason = f"segment {self._number}, timebox {self.box + 1}: {decision.why}"
            self._renew(run, look, max(self._ends_s, look.elapsed_s), reason)
        elif decision.choice in (Choice.GO_ON, Choice.WAIT, Choice.SUSPEND) and is_near:
            self._goes_past = is_past and look.facts.waited_for and decision.choice is not Choice.SUSPEND
            why = f"{PAST}: {decision.why}"
            if decision.choice is not Choice.WAIT and self._deadline_of != self.box:
                # Who asks whether to stop is not to be told so.
                self._deadline_of = self.box
                box_files.write_deadline(self._folder, self._ends_s + timebox.box_s(run) - look.elapsed_s)
            if is_past and decision.choice is Choice.SUSPEND:
                sense.suspend(decision.why)
            elif look.elapsed_s >= self._ends_s + timebox.box_s(run):
                self._renew(run, look, self._ends_s, why)
            elif is_past:
                self._explain(run, why, decision.row)

    def _decide(self, run: RunRecord, facts: BoxFacts) -> BoxDecision:
        bound = self._bound(run) if facts.cause in (BoxCause.BOX, BoxCause.HOURS) else None
        return decide_box(msgspec.structs.replace(facts, ends_for=self._dead or bound))

    def _notice_s(self, run: RunRecord) -> float:
        return min(max(NOTICE_S, run.spec.grace_s), (self._ends_s - self._begins_s) / 4)

    def _with_patience(self, look: Look) -> BoxFacts:
        """Return the facts, where a save is taken for under way no longer than it is waited for."""
        if not look.facts.is_saving:
            self._saving_since_s = None
            return look.facts
        self._saving_since_s = self._saving_since_s or look.elapsed_s
        patience_s = min(SAVING_S, (self._ends_s - self._begins_s) / 4)
        return msgspec.structs.replace(
            look.facts, is_saving=look.elapsed_s - self._saving_since_s < patience_s
        )

    def _bound(self, run: RunRecord) -> str | None:
        """Return which limit of the chain the end of this box reaches."""
        spec = run.spec
        if spec.max_segments is not None and self._begun_before + self.box >= spec.max_segments:
            return f"reached --max-segments {spec.max_segments}"
        if spec.max_total_s is not None and run.chain_total_s + self._ends_s >= spec.max_total_s:
            return f"reached --max-total-minutes {spec.max_total_s / 60:g}"
        return None

    def _is_dead(self, look: Look, sense: "Senses") -> bool:
        """Note it where nothing happened in the box, and in as many quiet ones before it as make LIFELESS_S. Looked at
        once, as its end comes near; the first box has its start."""
        before, length_s = self._pulse, self._ends_s - self._begins_s
        if before is None or self.box == 1 or self._judged == self.box:
            return False
        watched_s = look.elapsed_s - before.at_s
        if watched_s < SEEN_SHARE * length_s:
            return False
        self._judged = self.box
        if sense.gpu_was_busy(self._entered_s) or is_alive(before, self._take_pulse(look, sense)):
            return False
        if watched_s < LIFELESS_S:
            self._is_quiet = True
            return False
        self._dead = "no sign of life for a whole timebox: no output, no file, no step, no processor time"
        return True

    def _take_pulse(self, look: Look, sense: "Senses") -> Pulse:
        return take_pulse(look.elapsed_s, self._folder, look.reported, sense.pids())

    def _leave_word(self, decision: BoxDecision, facts: BoxFacts, is_near: bool) -> None:
        """Renew the standing order, where it says something else or has not been confirmed for a while. That an end
        loses nothing is said only near that end, but for a run that was seen to save when asked."""
        proven = facts.resumes is Known.PROVEN and facts.saves_when_asked is Known.PROVEN
        ask = decision.choice is Choice.ASK and (is_near or proven)
        order = StandingOrder(
            box=self.box,
            ends_s=self._ends_s,
            unsaved=not ask,
            proven=proven,
            why=decision.why if ask and decision.why != ENDED else None,
            past=self._goes_past,
        )
        now_s = self._context.clock.monotonic_s()
        if order != self._standing or now_s - self._confirmed_s >= CONFIRM_EVERY_S:
            box_files.write_standing_order(self._folder, order)
            self._standing, self._confirmed_s = order, now_s

    def _was_decided(self, look: Look) -> bool:
        """Obey what somebody else has decided on the box in force."""
        decided = box_files.read_decision(self._folder, self.box)
        if decided is None:
            return False
        if decided.choice == box_files.RENEW and decided.until_s is not None:
            self._enter(decided.until_s)
        else:
            self._asked = True
            self._asking_since_s = self._asking_since_s or look.elapsed_s
        return True

    def _renew(self, run: RunRecord, look: Look, from_s: float, reason: str) -> None:
        left_s = math.inf if run.spec.max_total_s is None else run.spec.max_total_s - run.chain_total_s
        until_s = min(from_s + run.spec.timebox_s, max(left_s, self._ends_s + 1.0))
        if not box_files.renew(self._folder, self.box, until_s, reason, self._context.worker):
            self._was_decided(look)
            return
        box_files.write_deadline(self._folder, until_s - look.elapsed_s)
        failpoint.at("renewed")
        self._enter(until_s)
        self._note(run, reason)
        self._context.console.event("renewed", run, reason)

    def _enter(self, until_s: float) -> None:
        self._begins_s, self._ends_s, self.box = self._ends_s, until_s, self.box + 1
        # Of a quiet box the next one goes on to watch what this one did.
        self._pulse = self._pulse if self._is_quiet else None
        self._is_quiet, self._explained, self._noted = False, None, False

    def _note(self, run: RunRecord, reason: str) -> None:
        claims.renew(self._context.database, run, self.box, reason)
        self._noted = True

    def _explain(self, run: RunRecord, why: str, row: str) -> None:
        """Say why it goes on past its box, once per cause and then now and again, as the amounts change."""
        now_s = self._context.clock.monotonic_s()
        if self._explained == row and now_s - self._explained_s < EXPLAIN_EVERY_S:
            return
        if self._explained != row:
            self._context.console.event("overtime", run, f"segment {self._number} {why}")
        self._explained, self._explained_s = row, now_s
        claims.explain(self._context.database, run, why)
