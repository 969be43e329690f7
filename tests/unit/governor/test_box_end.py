"""The end of a box is decided by the first row that holds, and no row loses work that nobody asked to lose."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from backprop.scheduler.governor.box_end import (
    FRESH_S,
    BoxCause,
    BoxFacts,
    BoxRule,
    Choice,
    Known,
    decide_box,
)

INF = float("inf")
MAY_LOSE = {"asked for", "policy end"}
ROWS = {
    *MAY_LOSE, "no timebox", "paused", "is saving", "room", "hours", "worker stop", "first proof", "first save",
    "resumes", "unsaved for long", "nobody waits", "rest of its turn", "saves soon", "others wait", "no way left",
    "suspended",
}  # fmt: skip
times_s = st.sampled_from([0.0, 5.0, 10.0, 11.0, 60.0, 600.0, 3601.0, 7200.0, 1e6])
mixtures = st.builds(
    BoxFacts,
    cause=st.sampled_from([BoxCause.BOX] * 5 + list(BoxCause)),
    rule=st.sampled_from([BoxRule.AUTO] * 6 + list(BoxRule)),
    ends_for=st.sampled_from([None] * 8 + ["stopped by the user"]),
    is_paused=st.sampled_from([False] * 6 + [True]),
    is_saving=st.sampled_from([False] * 6 + [True]),
    unsaved_s=times_s,
    has_saved=st.booleans(),
    has_begun=st.sampled_from([True, True, True, False]),
    resumes=st.sampled_from(Known),
    saves_when_asked=st.sampled_from(Known),
    due_s=st.sampled_from([0.0, 5.0, 40.0, 600.0, INF]),
    restart_s=st.sampled_from([None, 1.0, 10.0, 11.0, 13.0, 60.0, 300.0]),
    box_s=st.sampled_from([3.0, 60.0, 600.0, 7200.0]),
    turn_s=st.sampled_from([3.0, 600.0, 3000.0, 3600.0]),
    waited_for=st.booleans(),
    urgently=st.booleans(),
    waited_beside=st.booleans(),
    why_not_suspend=st.sampled_from([None, "no room"]),
)


def test_what_resumed_and_saved_nothing_since_is_not_said_to_have_no_way_to_resume() -> None:
    facts = BoxFacts(unsaved_s=5.0)
    assert decide_box(facts).why.startswith("nothing is known to resume it with")
    assert decide_box(replace(facts, has_resumed=True)).why == (
        "it has saved nothing since it resumed; an end would lose 5 s of work"
    )


@settings(max_examples=500)
@given(mixtures)
def test_no_row_loses_work_that_nobody_asked_to_lose(facts: BoxFacts) -> None:
    decision = decide_box(facts)
    assert decision.row in ROWS
    assert decision.why
    makes_room = facts.cause in (BoxCause.ROOM, BoxCause.WORKER_STOP) and facts.unsaved_s <= FRESH_S
    if decision.choice is Choice.ASK and decision.row not in MAY_LOSE and not makes_room:
        assert facts.resumes is not Known.NO
        assert facts.saves_when_asked is not Known.NO or (facts.has_saved and facts.unsaved_s <= FRESH_S)
        assert facts.has_begun
    if decision.choice is Choice.RENEW:
        assert not facts.waited_for or decision.row in ("no timebox", "rest of its turn")
    if decision.choice is Choice.SUSPEND:
        assert facts.why_not_suspend is None
        assert (facts.waited_for and facts.waited_beside) or facts.cause is not BoxCause.BOX
        assert facts.cause is not BoxCause.WORKER_STOP
        assert not facts.is_saving
    if decision.choice is Choice.WAIT and facts.cause is not BoxCause.BOX:
        assert facts.is_saving


def test_every_row_can_be_reached() -> None:
    seen: Counter[str] = Counter()

    @settings(max_examples=300, database=None)
    @given(mixtures)
    def look(facts: BoxFacts) -> None:
        seen[decide_box(facts).row] += 1

    for _ in range(10):
        look()
        if set(seen) == ROWS:
            break
    assert set(seen) == ROWS


PROVEN = BoxFacts(
    resumes=Known.PROVEN, saves_when_asked=Known.PROVEN, unsaved_s=500, has_saved=True, restart_s=5
)
SAVES_NOTHING = BoxFacts(unsaved_s=600)
FREEZES = BoxFacts(unsaved_s=600, waited_for=True, waited_beside=True, why_not_suspend=None)
DEAR = replace(PROVEN, restart_s=300, waited_for=True, waited_beside=True, why_not_suspend=None)
CLAIMS = BoxFacts(resumes=Known.CLAIMED, unsaved_s=600)


@pytest.mark.parametrize(
    ("facts", "row", "choice"),
    [
        (PROVEN, "resumes", Choice.ASK),  # even alone in the queue
        (replace(PROVEN, restart_s=None), "resumes", Choice.ASK),  # the next start shows it
        (replace(PROVEN, restart_s=None, box_s=1800), "resumes", Choice.ASK),
        (replace(PROVEN, restart_s=12), "resumes", Choice.ASK),  # 2 % of its box
        (replace(PROVEN, restart_s=13), "nobody waits", Choice.RENEW),
        (replace(PROVEN, restart_s=13, waited_for=True), "rest of its turn", Choice.RENEW),
        (replace(PROVEN, restart_s=13, waited_for=True, turn_s=700), "others wait", Choice.ASK),
        (replace(PROVEN, restart_s=300, waited_for=True, turn_s=3600), "others wait", Choice.ASK),
        (replace(PROVEN, restart_s=13, waited_for=True, urgently=True), "others wait", Choice.ASK),
        (replace(PROVEN, restart_s=300, unsaved_s=3700), "unsaved for long", Choice.ASK),
        (replace(PROVEN, saves_when_asked=Known.NO), "nobody waits", Choice.RENEW),
        (replace(PROVEN, saves_when_asked=Known.NO, unsaved_s=4), "resumes", Choice.ASK),
        (replace(PROVEN, saves_when_asked=Known.NO, due_s=50, waited_for=True), "saves soon", Choice.WAIT),
        (replace(PROVEN, saves_when_asked=Known.NO, waited_for=True), "no way left", Choice.GO_ON),
        (replace(PROVEN, saves_when_asked=Known.CLAIMED), "nobody waits", Choice.RENEW),  # it was seen not to
        (SAVES_NOTHING, "nobody waits", Choice.RENEW),
        (replace(SAVES_NOTHING, waited_for=True), "no way left", Choice.GO_ON),
        (replace(SAVES_NOTHING, rule=BoxRule.END), "policy end", Choice.ASK),
        (replace(SAVES_NOTHING, rule=BoxRule.NONE), "no timebox", Choice.RENEW),
        (replace(SAVES_NOTHING, cause=BoxCause.WORKER_STOP), "worker stop", Choice.GO_ON),
        (replace(SAVES_NOTHING, cause=BoxCause.WORKER_STOP, unsaved_s=4), "worker stop", Choice.ASK),
        (replace(PROVEN, cause=BoxCause.WORKER_STOP), "worker stop", Choice.ASK),
        (replace(PROVEN, cause=BoxCause.HOURS, restart_s=300), "hours", Choice.ASK),
        (replace(PROVEN, cause=BoxCause.ROOM, rule=BoxRule.NONE), "room", Choice.ASK),
        (FREEZES, "suspended", Choice.SUSPEND),
        (replace(FREEZES, waited_beside=False), "no way left", Choice.GO_ON),
        (replace(FREEZES, waited_for=False), "nobody waits", Choice.RENEW),
        (replace(FREEZES, rule=BoxRule.END), "policy end", Choice.ASK),
        (replace(FREEZES, ends_for="reached --max-segments 3"), "asked for", Choice.ASK),
        (replace(FREEZES, is_saving=True), "is saving", Choice.WAIT),
        (replace(FREEZES, cause=BoxCause.HOURS), "hours", Choice.SUSPEND),
        (replace(FREEZES, cause=BoxCause.HOURS, why_not_suspend="no room"), "hours", Choice.GO_ON),
        (replace(FREEZES, cause=BoxCause.ROOM), "room", Choice.SUSPEND),
        (replace(FREEZES, cause=BoxCause.ROOM, unsaved_s=4), "room", Choice.ASK),
        (replace(FREEZES, cause=BoxCause.WORKER_STOP), "worker stop", Choice.GO_ON),
        (DEAR, "suspended", Choice.SUSPEND),  # at the end of its box, not of a turn of 50 restarts
        (replace(DEAR, restart_s=5), "others wait", Choice.ASK),
        (CLAIMS, "nobody waits", Choice.RENEW),  # it may compile until after its box
        (replace(CLAIMS, due_s=300), "first save", Choice.WAIT),
        (replace(CLAIMS, has_saved=True, unsaved_s=2), "first proof", Choice.ASK),
        (replace(CLAIMS, saves_when_asked=Known.CLAIMED), "first proof", Choice.ASK),
        (replace(CLAIMS, saves_when_asked=Known.CLAIMED, has_begun=False), "nobody waits", Choice.RENEW),
    ],
)
def test_rows(facts: BoxFacts, row: str, choice: Choice) -> None:
    decision = decide_box(facts)
    assert (decision.row, decision.choice) == (row, choice)
