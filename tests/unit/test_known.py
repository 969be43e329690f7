"""What is known of a run by its segments, whose place a waiting run could use, and what is a sign of life."""

import os
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from backprop.scheduler.config.settings import DEFAULTS
from backprop.scheduler.governor.box_end import BoxRule, Known, rule_of
from backprop.scheduler.governor.decide import Decision, Denial, Rule
from backprop.scheduler.lifecycle import Intent
from backprop.scheduler.outcome.segment_outcome import SegmentOutcome
from backprop.scheduler.records import SegmentRecord, Waiting
from backprop.scheduler.spec import NO_TIMEBOX_S, Plan, RunSpec
from backprop.scheduler.store.connection import Database
from backprop.worker.admission.wanted import wanted_places
from backprop.worker.machine.state import MachineState, Opening
from backprop.worker.progress.steps import StepTrace
from backprop.worker.segments.boxes import known
from backprop.worker.segments.boxes.facts import SeenSaves, Wanted, facts_of, once_saved
from backprop.worker.segments.boxes.pulse import is_alive, take_pulse
from backprop.worker.segments.cadence import Cadence, ClockReading
from tests.support.governor_cases import GIB, gpu, machine, promise
from tests.support.store_rows import SPEC, add_run, checkpoint, claimed


def segment(number: int, **changes: Any) -> SegmentRecord:
    nothing: dict[str, Any] = dict.fromkeys(SegmentRecord.__annotations__)
    given = {"run_id": "r", "number": number, "worker": "w", "started_at_s": 0.0, "boxes": 1}
    return SegmentRecord(**nothing | given | changes)


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({}, BoxRule.AUTO),
        ({"at_timebox": "end"}, BoxRule.END),
        ({"auto_resume": False}, BoxRule.END),
        ({"plan": Plan(reads_deadline=True)}, BoxRule.END),
        ({"timebox_s": NO_TIMEBOX_S}, BoxRule.NONE),
        ({"timebox_s": NO_TIMEBOX_S, "max_total_s": 60.0}, BoxRule.END),
    ],
)
def test_what_the_end_of_a_box_is_for_a_run(changes: dict[str, Any], rule: BoxRule) -> None:
    assert rule_of(msgspec.structs.replace(SPEC, **changes)) is rule


def resumes(
    database: Database, spec: RunSpec, *earlier: SegmentRecord, saved: Any = (), goes_on: bool = False
) -> Known:
    run = add_run(database, "r", spec=spec)
    now = segment(len(earlier) + 1, checkpoint_used="/a" if earlier else None)
    return known.resumes(run, now, earlier, saved, goes_on, announces=False)


CLAIMS = msgspec.structs.replace(SPEC, plan=Plan(speaks="option"))


@pytest.mark.parametrize(
    ("plan", "expected"),
    [
        (None, Known.NO),
        (Plan(), Known.NO),
        (Plan(globs=("/out/*.pt",)), Known.NO),  # nothing says how it would load one
        (Plan(resumes="none", recipe="lightning", speaks="variable"), Known.NO),
        (Plan(resumes="none", integration="lightning"), Known.NO),  # until it has reported in
        (Plan(resumes="append"), Known.CLAIMED),
        (Plan(resumes="rerun"), Known.CLAIMED),
        (Plan(speaks="events"), Known.CLAIMED),
    ],
)
def test_what_claims_to_resume(database: Database, plan: Plan | None, expected: Known) -> None:
    assert resumes(database, msgspec.structs.replace(SPEC, plan=plan)) is expected


def test_an_integration_that_has_reported_in_claims_to_resume(database: Database) -> None:
    plan = Plan(resumes="none", integration="lightning")
    for spec, expected in (
        (msgspec.structs.replace(SPEC, plan=plan), Known.CLAIMED),
        (msgspec.structs.replace(SPEC, plan=plan, integrations=False), Known.NO),
    ):
        run = add_run(database, f"r{expected:d}", spec=spec)
        assert known.resumes(run, segment(1), (), (), goes_on=False, announces=True) is expected


def test_what_resumed_in_vain_is_not_ended_twice(database: Database) -> None:
    first = segment(1, outcome=SegmentOutcome.TIMEBOXED)
    assert resumes(database, CLAIMS, first) is Known.NO


def test_what_went_on_is_proven(database: Database) -> None:
    first = segment(1, outcome=SegmentOutcome.TIMEBOXED)
    assert resumes(database, CLAIMS, first, goes_on=True) is Known.PROVEN


@pytest.mark.parametrize(("step", "expected"), [(9, Known.PROVEN), (5, Known.NO), (None, Known.PROVEN)])
def test_an_earlier_segment_proves_it_by_a_later_save(
    database: Database, step: int | None, expected: Known
) -> None:
    chain = [segment(1, outcome=SegmentOutcome.TIMEBOXED), segment(2, checkpoint_used="/a")]
    saved = [checkpoint("r", "/a", 1, step=5), checkpoint("r", "/b", 2, step=step)]
    assert resumes(database, CLAIMS, *chain, saved=saved) is expected


def test_one_that_started_over_is_no_resume(database: Database) -> None:
    chain = [segment(1), segment(2, checkpoint_used="/a", outcome=SegmentOutcome.STARTED_OVER)]
    assert resumes(database, CLAIMS, *chain, goes_on=True) is Known.NO


@pytest.mark.parametrize(
    ("costs", "heeds", "expected"),
    [
        ((), False, Known.NO),
        ((), True, Known.CLAIMED),
        ((0.0,), False, Known.PROVEN),
        ((120.0,), True, Known.NO),  # what was seen beats what it says
        ((0.0, 120.0, 0.0), False, Known.PROVEN),
        ((0.0, 0.0, 120.0, 90.0, 0.0), False, Known.NO),  # the latest count
    ],
)
def test_what_saves_when_asked(costs: tuple[float, ...], heeds: bool, expected: Known) -> None:
    earlier = [segment(number, cut_cost_s=cost) for number, cost in enumerate(costs, 1)]
    assert known.saves_when_asked(earlier, heeds) is expected


def test_a_restart_is_measured_where_one_was_seen() -> None:
    chain = [
        segment(1, first_step_s=300.0),
        *(segment(n, checkpoint_used="/a", first_step_s=float(n)) for n in (2, 3, 4)),
    ]
    assert known.restart_s(chain[:1]) is None, "the first start may have compiled"
    assert known.restart_s(chain) == 3.0


def test_a_place_is_wanted_that_would_do_together_with_what_leaves(database: Database) -> None:
    live = [claimed(database, add_run(database, f"r{n}")) for n in range(3)]
    spec = msgspec.structs.replace(SPEC, gpu_memory_limit="20")
    big = add_run(database, "big", spec=spec)
    card = gpu(0, free=0)
    promises = [promise(run.id, 8 * GIB, 8 * GIB, settled=True) for run in live]
    segments = [segment(1, run_id=run.id, gpu_uuids=("GPU-0",)) for run in live]
    state = MachineState(machine(card), 0, segments, {}, {}, promises, [], {}, {}, {}, Opening(None, None))
    settings = msgspec.structs.replace(DEFAULTS, max_parallel=8, min_free_ram_mib=0)
    waits = Decision((Denial(Rule.VRAM, 20 * GIB, 0, "needs", "GPU-0", 0),), ())

    def wanted(runs: Any, **changes: Any) -> dict[str, Wanted]:
        waiting = [(msgspec.structs.replace(big, **changes), waits)]
        return wanted_places(waiting, runs, state, settings, {}, (), now_s=10_000.0)

    assert wanted(live) == {}, "no run alone makes room for it"
    leaving = [msgspec.structs.replace(run, intent=Intent.YIELD) for run in live[:2]]
    assert wanted([*leaving, live[2]]) == {"r2": Wanted()}
    since = Waiting(rule="free VRAM", text="", since_s=0.0)
    assert wanted(live, waiting=(since,)) == {run.id: Wanted(urgently=True) for run in live}, (
        "after half an hour"
    )
    path = Decision((Denial(Rule.PATH, None, None, "gone"),), ())
    assert wanted_places([(big, path)], live, state, settings, {}, (), now_s=0.0) == {}
    urgent = wanted([*leaving, live[2]], priority=5)
    assert urgent == {"r2": Wanted(urgently=True)}
    ids = [run.id for run in live]
    given: Any = (*leaving, live[2]), state, settings, {}, (), 10_000.0, ()
    assert wanted_places([(big, waits)], *given, ids) == {"r2": Wanted(beside=True)}, (
        "all VRAM would be moved"
    )
    assert wanted_places([(big, waits)], *given, ids[:2]) == {"r2": Wanted()}


def test_signs_of_life(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("a line\n")
    before = take_pulse(0.0, tmp_path, (1,), [os.getpid()])
    assert before.printed == 7
    still = replace(before, at_s=600.0)
    assert not is_alive(before, still)
    assert is_alive(before, replace(still, cpu_s=still.cpu_s + 10))
    assert not is_alive(before, replace(still, cpu_s=still.cpu_s + 1)), "what only waits takes a little too"
    for changes in (
        {"printed": 8},
        {"reported": (2,)},
        {"pids": frozenset[int]()},
        {"wrote": before.wrote + 1},
    ):
        assert is_alive(before, replace(still, **changes))
    assert is_alive(replace(before, pids=frozenset()), replace(still, pids=frozenset())), (
        "nothing can be seen of it"
    )


@pytest.mark.parametrize("used", [None, "/models/a.pt"])
@pytest.mark.parametrize(
    ("plan", "stood_back", "claims"),
    [
        (Plan(resumes="none", integration="keras"), False, True),
        (Plan(resumes="none", integration="keras"), True, False),
        (Plan(resumes="append", integration="keras"), True, True),
    ],
    ids=["attached", "left alone", "left alone, with an option"],
)
def test_what_an_integration_left_alone_is_not_handed_back(
    database: Database, plan: Plan, stood_back: bool, claims: bool, used: str | None
) -> None:
    run = add_run(database, "r", spec=msgspec.structs.replace(SPEC, plan=plan))
    now = segment(1, checkpoint_used=used)
    cadence = Cadence(run, now, [], [], 0.0, ClockReading(0.0, 0.0))
    seen = SeenSaves(
        steps=StepTrace(),
        newest=None,
        has_copy=False,
        is_writing=False,
        announces=True,
        takes=True,
        heeds=True,
        stood_back=stood_back,
    )
    facts = facts_of(run, now, cadence, seen, 0.0, None, False)
    assert facts.resumes is (Known.CLAIMED if claims else Known.NO)
    assert facts.saves_when_asked is (Known.NO if stood_back else Known.CLAIMED)
    proven = Known.PROVEN if used else Known.CLAIMED
    assert once_saved(run, now, cadence, seen) is (proven if claims else Known.NO)
