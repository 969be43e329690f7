"""Decides what becomes of a run at the end of its box, or where room has to be made. Pure.

One rule stands above the others: no work is lost that nobody asked to lose. A run is ended where that is safe: it saves
when it is asked, or has just saved, and goes on from that. Else it is given another box while nobody waits for its
place, and is suspended where somebody does: frozen until its next turn. Where that can't be, it goes on past its box.
The rows of the table are tried from the top; the last one always holds. docs/timebox.md has it in words.
"""

from enum import IntEnum, StrEnum
from typing import Final

import msgspec

from backprop.scheduler.config.choices import AtTimebox
from backprop.scheduler.spec import NO_TIMEBOX_S, RunSpec

FRESH_S: Final = 10.0
"""Work of this long may be lost at an end."""
CHEAP_SHARE, CHEAP_S = 0.02, 10.0
"""A restart that takes longer than this share of the box, and longer than so many seconds, is dear."""
LONGEST_TURN_S: Final = 3600.0
"""A run whose restart is dear has a turn of 50 restarts, but no longer than this, while others wait."""
UNSAVED_S, UNSAVED_BOXES = 3600.0, 3
"""A run that saves when it is asked is asked after so much unsaved work at the latest: a power cut would lose it."""
SOON_S, SOON_SHARE = 30.0, 0.1
"""How soon a save has to be due to be waited for while others wait."""

ENDED: Final = "timebox reached"


class Known(IntEnum):
    """How well something is known of a run: not at all, by its own word, or by what was seen of it."""

    NO = 0
    CLAIMED = 1
    PROVEN = 2


class BoxCause(StrEnum):
    """Why it is decided."""

    BOX = "box"
    ROOM = "room"
    HOURS = "hours"
    WORKER_STOP = "worker stop"


class BoxRule(StrEnum):
    """What the end of a box is for a run: `AUTO`, decided upon; `END`, its end; `NONE`, nothing. The values are those
    of `order.json`."""

    AUTO = "auto"
    END = "end"
    NONE = "none"


class Choice(StrEnum):
    ASK = "ask"
    """Ask it to save, and end it."""
    RENEW = "renew"
    """Give the same process another box."""
    WAIT = "wait"
    """Let it go on until the save that is under way or due, and decide then."""
    SUSPEND = "suspend"
    """Freeze it in place until its next turn; its slot is free."""
    GO_ON = "go on"
    """Let it go on although others wait, or the reason to end it stays; decide again soon."""


class BoxFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What is known at the end of a box. Times in seconds of running time.

    `ends_for`: why it ends whatever is lost, the word of its user or a limit; None for no such reason. `unsaved_s`:
    since its newest whole checkpoint, or since its segment began. `has_saved`: one of this segment, and a copy of
    it is kept where it will be overwritten. `has_begun`: it has done work in this segment, as far as can be told.
    `due_s`: until its next save is expected; infinite where that is unknown. `has_resumed`: this segment began from
    a checkpoint. `restart_s`: from a start to the first new step, in segments that resumed; None for unknown.
    `turn_s`: since it began with nobody else's turn between. `waited_for`: a waiting run could use its place.
    `urgently`: one of a higher priority, or that has waited for long. `is_saving`: a save is under way.
    `waited_beside`: one could run beside what it keeps while it is suspended. `why_not_suspend`: why it can't be
    suspended, in words; None where it can. `vram_stays`: why its VRAM would stay on its GPU then; None where it would
    not, or it has none.
    """

    cause: BoxCause = BoxCause.BOX
    rule: BoxRule = BoxRule.AUTO
    ends_for: str | None = None
    is_paused: bool = False
    is_saving: bool = False
    unsaved_s: float = 0.0
    has_saved: bool = False
    has_begun: bool = True
    has_resumed: bool = False
    resumes: Known = Known.NO
    saves_when_asked: Known = Known.NO
    due_s: float = float("inf")
    restart_s: float | None = None
    box_s: float = 600.0
    turn_s: float = 600.0
    waited_for: bool = False
    urgently: bool = False
    waited_beside: bool = False
    why_not_suspend: str | None = "nobody has looked whether it can be"
    vram_stays: str | None = None


class BoxDecision(msgspec.Struct, frozen=True):
    """What to do, and why, in words. `row`: of the table that decided."""

    row: str
    choice: Choice
    why: str


def rule_of(spec: RunSpec) -> BoxRule:
    """Return what the end of a box is for a run. Without auto-resume it is the end, as it was in the npm tool; so it is
    for a script that reads the end as a number, which would stop there all the same; and for a job of a cluster, whose
    time limit does not move."""
    if spec.timebox_s >= NO_TIMEBOX_S:
        return BoxRule.NONE if spec.max_total_s is None else BoxRule.END
    fixed = spec.plan is not None and spec.plan.reads_deadline
    if spec.cluster is not None or not spec.auto_resume or spec.at_timebox == AtTimebox.END or fixed:
        return BoxRule.END
    return BoxRule.AUTO


def is_safe(facts: BoxFacts) -> bool:
    """Return whether ending the run now loses no work that is worth speaking of."""
    if not facts.has_begun or facts.resumes is Known.NO:
        return False
    if facts.saves_when_asked >= facts.resumes:
        return True
    return facts.has_saved and facts.unsaved_s <= FRESH_S


def is_dear(facts: BoxFacts) -> bool:
    """Return whether a restart costs too much of the box. What no segment has shown is taken for cheap: a run that is
    known to resume is ended, and the next start shows it."""
    return facts.restart_s is not None and facts.restart_s > max(CHEAP_SHARE * facts.box_s, CHEAP_S)


def decide_box(facts: BoxFacts) -> BoxDecision:
    """Decide by the first row that holds. Raises nothing."""
    safe = is_safe(facts)
    if facts.ends_for is not None:
        return BoxDecision("asked for", Choice.ASK, facts.ends_for)
    if facts.rule is BoxRule.END:
        return BoxDecision("policy end", Choice.ASK, ENDED)
    if facts.cause is BoxCause.BOX and facts.rule is BoxRule.NONE:
        return BoxDecision("no timebox", Choice.RENEW, "it has no timebox")
    if facts.cause is BoxCause.BOX and facts.is_paused:
        return BoxDecision("paused", Choice.WAIT, "it is paused")
    if facts.is_saving:
        return BoxDecision("is saving", Choice.WAIT, "it is saving")
    if facts.cause is not BoxCause.BOX:
        # The end of a box is the last one of a run that can't resume; what makes room is queued again.
        fresh = facts.unsaved_s <= FRESH_S and facts.cause is not BoxCause.HOURS
        return _make_way(facts, safe or fresh)
    if facts.resumes is Known.CLAIMED and safe:
        return BoxDecision("first proof", Choice.ASK, ENDED)
    if facts.resumes is Known.CLAIMED and facts.due_s <= facts.box_s:
        return BoxDecision("first save", Choice.WAIT, f"its next save is due in {_time(facts.due_s)}")
    return _waited_for(facts, safe) if facts.waited_for else _alone(facts, safe)


def _make_way(facts: BoxFacts, safe: bool) -> BoxDecision:
    """Decide on a run that is to leave its place for another cause than the end of its box."""
    row = facts.cause.value
    if safe:
        return BoxDecision(row, Choice.ASK, ENDED)
    if facts.why_not_suspend is None and facts.cause is not BoxCause.WORKER_STOP:
        return BoxDecision(row, Choice.SUSPEND, why_unsafe(facts))
    return BoxDecision(row, Choice.GO_ON, why_unsafe(facts))


def _alone(facts: BoxFacts, safe: bool) -> BoxDecision:
    asks = facts.resumes is not Known.NO and facts.saves_when_asked is not Known.NO and facts.has_begun
    if safe and facts.resumes is Known.PROVEN and not is_dear(facts):
        return BoxDecision("resumes", Choice.ASK, ENDED)
    if asks and facts.unsaved_s > max(UNSAVED_S, UNSAVED_BOXES * facts.box_s):
        return BoxDecision("unsaved for long", Choice.ASK, f"{ENDED}; unsaved for {_time(facts.unsaved_s)}")
    return BoxDecision("nobody waits", Choice.RENEW, why_dear(facts) if safe else why_unsafe(facts))


def _waited_for(facts: BoxFacts, safe: bool) -> BoxDecision:
    turn_s = min((facts.restart_s or 0.0) / CHEAP_SHARE, LONGEST_TURN_S)
    suspends = facts.waited_beside and facts.why_not_suspend is None
    if is_dear(facts) and facts.turn_s < turn_s and not facts.urgently and not suspends:
        why = f"its turns are {_time(turn_s)}: {why_dear(facts)}"
        return BoxDecision("rest of its turn", Choice.RENEW, why)
    if not safe and facts.resumes is not Known.NO and facts.due_s <= max(SOON_SHARE * facts.box_s, SOON_S):
        return BoxDecision("saves soon", Choice.WAIT, f"its next save is due in {_time(facts.due_s)}")
    if safe and not (suspends and is_dear(facts)):
        return BoxDecision("others wait", Choice.ASK, ENDED)
    if suspends:
        return BoxDecision("suspended", Choice.SUSPEND, why_dear(facts) if safe else why_unsafe(facts))
    why_not = facts.why_not_suspend if facts.waited_beside else _does_not_fit(facts)
    return BoxDecision("no way left", Choice.GO_ON, f"{why_unsafe(facts)}; not suspended: {why_not}")


def _does_not_fit(facts: BoxFacts) -> str:
    if facts.vram_stays is None:
        return "what waits does not fit beside what it keeps"
    return f"what waits does not fit beside its VRAM, which stays: {facts.vram_stays}"


def why_dear(facts: BoxFacts) -> str:
    """Word what a restart costs."""
    return f"a restart takes {_time(facts.restart_s or 0.0)}"


def why_unsafe(facts: BoxFacts) -> str:
    """Word what an end would lose, and why it would."""
    lost = _time(facts.unsaved_s)
    if facts.resumes is Known.NO and facts.has_resumed and not facts.has_saved:
        return f"it has saved nothing since it resumed; an end would lose {lost} of work"
    if facts.resumes is Known.NO:
        return f"nothing is known to resume it with; an end would lose {lost} of work"
    if not facts.has_begun:
        return "it has not come to its first step"
    if not facts.has_saved:
        return f"it has saved nothing in this segment; an end would lose {lost} of work"
    return f"its last save is {lost} old"


def minutes(seconds: float) -> str:
    """Return a box's length for people: "10 min", "0.355 min"."""
    return f"{float(f'{seconds / 60:.3g}'):g} min" if seconds < 60_000 else f"{seconds / 60:.0f} min"


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
