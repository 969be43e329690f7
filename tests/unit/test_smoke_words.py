"""What a failed smoke test means for a run: no retry, a short head, and what to do."""

import pytest
from msgspec.structs import replace

from backprop.scheduler.lifecycle import Event, Intent
from backprop.scheduler.outcome import smoke
from backprop.scheduler.outcome.next_move import next_move
from backprop.scheduler.outcome.segment_result import Chain, SegmentResult
from backprop.scheduler.spec import RunSpec

SPEC = RunSpec(argv=("python", "t.py"), program="/usr/bin/python", cwd="/p", retries=3, smoke=True)
FRESH = Chain(segments=1, total_s=5.0, stalled=0, retries_used=0, lost=0, progressed=False, resumable=False)
CRASH = SegmentResult(exit_code=1, last_line="RuntimeError: no", running_s=5.0)


def test_a_crash_before_the_first_step_is_not_retried() -> None:
    move = next_move(SPEC, CRASH, FRESH)
    assert move.event is Event.FAILED
    assert move.reason.startswith("smoke test failed: before its first step, ")
    assert "RuntimeError: no" in move.reason
    assert next_move(SPEC, CRASH, replace(FRESH, has_begun=True)).event is Event.REQUEUED


def test_the_machines_fault_is_no_failed_test() -> None:
    lost = next_move(SPEC, SegmentResult(lost=True), FRESH)
    assert lost.event is Event.REQUEUED
    full = next_move(SPEC, SegmentResult(exit_code=1, disk_full=True), FRESH)
    assert full.event is Event.REQUEUED


@pytest.mark.parametrize("lost", [False, True])
def test_one_that_is_late_fails_whatever_its_exit_code(lost: bool) -> None:
    why = smoke.why_late(60.0, "3fa2")
    asked = None if lost else Intent.LIMIT
    result = SegmentResult(asked=asked, wanted=Intent.LIMIT, why_asked=why, exit_code=0, lost=lost)
    move = next_move(SPEC, result, FRESH)
    assert move.event is Event.FAILED
    assert move.reason.startswith(why)
    assert smoke.is_failure(move.reason)
    assert "backprop resume 3fa2 --smoke-seconds 240" in move.reason
    assert len(move.reason.partition(":")[0]) <= 24


def test_another_limit_keeps_its_words() -> None:
    result = SegmentResult(asked=Intent.LIMIT, why_asked="used 9 GiB of 8", exit_code=0)
    move = next_move(SPEC, result, FRESH)
    assert move.reason == "over its limit: used 9 GiB of 8"
    assert not smoke.is_failure(move.reason)
