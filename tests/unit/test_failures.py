"""What becomes of a run whose segment failed, was lost, could not start, or ended in a way nobody can read."""

import pytest
from msgspec.structs import replace

from backprop.scheduler.faults.kinds import Fault
from backprop.scheduler.lifecycle import Event
from backprop.scheduler.outcome.failures import FALLBACK_CAP, HOST_FAULT_CAP, LOST_CAP, backoff_s
from backprop.scheduler.outcome.next_move import Intent, next_move
from backprop.scheduler.outcome.segment_outcome import SegmentOutcome
from backprop.scheduler.outcome.segment_result import Chain, SegmentResult
from tests.support.outcomes import FRESH, GOOD, OLD, SPEC, spec, told


def test_what_gpu_memory_limit_to_raise_is_said() -> None:
    ending = SegmentResult(exit_code=1, out_of_memory="CUDA out of memory")
    chain = replace(GOOD, promised_mib=8192, peak_mib=8000)
    said = told(next_move(spec(gpu_memory_limit="8"), ending, chain))
    assert said == "out of GPU memory: CUDA out of memory; raise its limit: backprop resume 4123-1 -g GB"


def test_a_crash_is_retried_with_growing_patience_and_then_failed() -> None:
    crash = SegmentResult(exit_code=1, last_line="ValueError: nan")
    chain = OLD
    for attempt in (1, 2, 3):
        verdict = next_move(spec(retries=3), crash, chain)
        assert verdict.event is Event.REQUEUED
        assert verdict.retries_used == attempt
        assert verdict.delay_s == backoff_s(attempt)
        assert f"retry {attempt} of 3 from its last checkpoint" in verdict.reason
        chain = replace(chain, retries_used=verdict.retries_used)
    last = next_move(spec(retries=3), crash, chain)
    assert last.event is Event.FAILED
    assert last.reason == "exited 1: ValueError: nan (after 3 retries)"
    assert next_move(SPEC, crash, OLD).event is Event.FAILED, "none unless asked for"


def test_a_retry_does_not_go_beyond_the_bounds_of_the_chain() -> None:
    verdict = next_move(
        spec(retries=5, max_segments=2), SegmentResult(exit_code=1), replace(GOOD, segments=2)
    )
    assert verdict.event is Event.FAILED
    assert "reached --max-segments 2; backprop resume 4123-1 allows 2 more" in told(verdict)


def test_the_patience_doubles_up_to_ten_minutes() -> None:
    assert [backoff_s(attempt) for attempt in (1, 2, 3, 7, 8, 100)] == [10, 20, 40, 600, 600, 600]


@pytest.mark.parametrize(
    ("ending", "said"),
    [
        (SegmentResult(exit_code=2), "exited 2"),
        (SegmentResult(signal_name="SIGSEGV"), "ended by SIGSEGV"),
        (SegmentResult(signal_name="SIGKILL"), "out of memory?"),
        (SegmentResult(), "ended unseen"),
        (SegmentResult(could_not_start="no such file"), "could not be started: no such file"),
    ],
)
def test_a_failure_says_how_it_ended(ending: SegmentResult, said: str) -> None:
    verdict = next_move(SPEC, ending, FRESH)
    assert verdict.event is Event.FAILED
    assert said in verdict.reason


def test_what_is_lost_while_it_is_suspended_is_no_strike() -> None:
    """A reboot takes all that is suspended: however often, no run is given up for that."""
    chain = replace(GOOD, progressed=False, lost=3)
    verdict = next_move(SPEC, SegmentResult(lost=True, suspended=True), chain)
    assert (verdict.event, verdict.lost) == (Event.REQUEUED, 3)
    assert "disappeared while it was suspended" in verdict.reason
    assert next_move(SPEC, SegmentResult(lost=True), chain).event is Event.FAILED
    assert next_move(SPEC, SegmentResult(lost=True, suspended=True), GOOD).lost == 0


def test_a_lost_segment_is_started_again_and_counted() -> None:
    lost = SegmentResult(lost=True)
    chain = OLD
    for count in range(1, LOST_CAP + 1):
        verdict = next_move(SPEC, lost, chain)
        assert (verdict.event, verdict.lost) == (Event.REQUEUED, count)
        assert verdict.reason.endswith("; resumes from its last checkpoint")
        chain = replace(chain, lost=verdict.lost)
    assert next_move(SPEC, lost, FRESH).reason.endswith("; starts again: no checkpoint is known")
    last = next_move(SPEC, lost, chain)
    assert last.event is Event.FAILED
    assert last.reason == "disappeared 4 times in a row (killed, or the machine went down); giving up"
    assert next_move(SPEC, lost, replace(chain, progressed=True)).lost == 1, "progress wipes the count out"
    assert next_move(SPEC, lost, replace(OLD, stalled=1)).stalled == 1, (
        "and it is no alibi for a stalled chain"
    )


@pytest.mark.parametrize(("unstarted", "delay_s"), [(0, 0.0), (1, 10.0), (3, 40.0), (500, 600.0)])
def test_a_start_that_the_machine_refuses_counts_for_nothing(unstarted: int, delay_s: float) -> None:
    ending = SegmentResult(could_not_start="Resource temporarily unavailable", passing=True)
    before = replace(FRESH, stalled=1, retries_used=2, lost=LOST_CAP, unstarted=unstarted, segments=9)
    move = next_move(spec(max_segments=2, retries=2), ending, before)
    assert (move.event, move.outcome) == (Event.REQUEUED, SegmentOutcome.NOT_STARTED)
    assert (move.stalled, move.retries_used, move.lost, move.delay_s) == (1, 2, LOST_CAP, delay_s)
    assert next_move(SPEC, replace(ending, passing=False), FRESH).event is Event.FAILED


@pytest.mark.parametrize("ending", [SegmentResult(lost=True), SegmentResult(could_not_start="no such file")])
@pytest.mark.parametrize(
    ("wanted", "event"),
    [
        (Intent.STOP, Event.STOPPED),
        (Intent.OUTRANKED, Event.STOPPED),
        (Intent.NAN, Event.FAILED),
        (Intent.STARTED_OVER, Event.FAILED),
        (Intent.LIMIT, Event.FAILED),
    ],
)
def test_what_is_to_end_does_not_go_on_because_its_segment_was_lost(
    ending: SegmentResult, wanted: Intent, event: Event
) -> None:
    verdict = next_move(SPEC, replace(ending, wanted=wanted, why_asked="so it is"), GOOD)
    assert verdict.event is event


def test_a_refused_load_is_told_and_accuses_no_checkpoint() -> None:
    line = "_pickle.UnpicklingError: Weights only load failed. In PyTorch 2.6, the default has changed"
    chain = replace(GOOD, fallback=("2.pt", "1.pt"))
    move = next_move(SPEC, SegmentResult(exit_code=1, last_line=line), chain)
    assert (move.event, move.suspect) == (Event.FAILED, None)
    assert "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1" in move.reason


COUNTED = replace(FRESH, stalled=1, retries_used=2, lost=1, resumable=True)


@pytest.mark.parametrize(
    ("ending", "event", "counters", "delay_s"),
    [
        (SegmentResult(unreadable="exit.json (I/O error)"), Event.SET_ASIDE, (1, 2, 1), 0.0),
        (SegmentResult(could_not_start="no such disk", missing=True), Event.REQUEUED, (1, 2, 1), 2.0),
        (SegmentResult(could_not_start="no process", passing=True), Event.REQUEUED, (1, 2, 1), 0.0),
        (SegmentResult(lost=True), Event.REQUEUED, (1, 2, 2), 0.0),
        (SegmentResult(exit_code=1, disk_full=True), Event.REQUEUED, (1, 2, 1), 40.0),
        (SegmentResult(exit_code=1, port_in_use="taken"), Event.REQUEUED, (1, 2, 1), 2.0),
        (SegmentResult(exit_code=1, out_of_memory="oom"), Event.REQUEUED, (1, 2, 0), 10.0),
        (SegmentResult(exit_code=1), Event.REQUEUED, (1, 3, 0), 40.0),
    ],
)
def test_what_an_end_counts_for_and_how_long_it_waits(
    ending: SegmentResult, event: Event, counters: tuple[int, int, int], delay_s: float
) -> None:
    verdict = next_move(spec(retries=3), ending, replace(COUNTED, promised_mib=1000))
    assert verdict.event is event
    assert (verdict.stalled, verdict.retries_used, verdict.lost) == counters
    assert verdict.delay_s == delay_s


def test_an_end_that_nobody_can_read_is_said_and_what_was_wanted_is_done() -> None:
    ending = SegmentResult(unreadable="exit.json (I/O error)")
    assert told(next_move(SPEC, ending, GOOD)).startswith(
        "held: how its segment ended cannot be read: exit.json (I/O error); once it can be"
    )
    assert next_move(SPEC, replace(ending, wanted=Intent.STOP), GOOD).event is Event.STOPPED


@pytest.mark.parametrize(
    ("limit", "chain", "need_mib"),
    [
        (None, {"promised_mib": 1000, "peak_mib": 900}, 1500),
        (None, {"promised_mib": 1000, "peak_mib": None}, 1500),
        (None, {"promised_mib": 1000, "peak_mib": 2000}, 2500),
        (None, {"promised_mib": 1000, "oom_retries": 1}, None),
        (None, {"promised_mib": 0}, None),
        ("8", {"promised_mib": 1000, "peak_mib": 899}, 1000),
        ("8", {"promised_mib": 1000, "peak_mib": 900}, None),
        ("8", {"promised_mib": 1000, "peak_mib": None}, None),
    ],
)
def test_out_of_gpu_memory_is_tried_once_more_with_what_it_may_need(
    limit: str | None, chain: dict[str, int | None], need_mib: int | None
) -> None:
    """Not where it ran into the limit that its user set; a neighbour may have taken what was there below it."""
    ending = SegmentResult(exit_code=1, out_of_memory="oom")
    verdict = next_move(spec(gpu_memory_limit=limit), ending, replace(GOOD, **chain))
    assert verdict.event is (Event.FAILED if need_mib is None else Event.REQUEUED)
    assert verdict.need_mib == need_mib


@pytest.mark.parametrize(("tries", "delay_s"), [(0, 2.0), (1, 10.0), (2, 20.0), (HOST_FAULT_CAP - 1, 80.0)])
def test_a_taken_port_is_looked_at_again_soon_and_then_ever_later(tries: int, delay_s: float) -> None:
    ending = SegmentResult(exit_code=1, port_in_use="taken")
    verdict = next_move(SPEC, ending, replace(OLD, host_faults=tries))
    assert (verdict.delay_s, verdict.host_faults) == (delay_s, tries + 1)
    late = replace(OLD, host_faults=HOST_FAULT_CAP)
    assert next_move(SPEC, ending, late).event is Event.FAILED
    assert next_move(SPEC, ending, replace(late, others_live=True)).event is Event.REQUEUED
    full = SegmentResult(exit_code=1, disk_full=True)
    assert next_move(SPEC, full, replace(late, others_live=True)).event is Event.FAILED
    started = SegmentResult(exit_code=1, port_in_use="taken", signal_name="SIGKILL")
    assert next_move(SPEC, started, OLD).fault is None


def test_what_could_not_be_started_has_not_failed_in_training() -> None:
    ending = SegmentResult(could_not_start="Permission denied")
    assert next_move(SPEC, ending, GOOD).outcome is SegmentOutcome.NOT_STARTED


AT_ONCE = replace(GOOD, fallback=("2.pt", "1.pt"))
"""It failed right at its start, with a checkpoint that may be the reason."""


def test_a_run_that_fails_at_once_with_its_checkpoint_tries_the_one_before() -> None:
    move = next_move(SPEC, SegmentResult(exit_code=1, last_line="KeyError: 'epoch'"), AT_ONCE)
    assert (move.event, move.suspect) == (Event.REQUEUED, "2.pt")
    assert "tries 1.pt instead" in move.reason
    spent = replace(AT_ONCE, fell_back=FALLBACK_CAP)
    assert next_move(SPEC, SegmentResult(exit_code=1), spent).event is Event.FAILED


@pytest.mark.parametrize(
    "ending",
    [
        SegmentResult(exit_code=1, last_line="RuntimeError: CUDA error: device-side assert triggered"),
        SegmentResult(exit_code=1, last_line="requests.exceptions.ConnectionError: Connection refused"),
        SegmentResult(exit_code=1, last_line="ModuleNotFoundError: No module named 'torch'"),
        SegmentResult(exit_code=1, last_line="MemoryError"),
        SegmentResult(exit_code=2, last_line="train.py: error: unrecognized arguments: --epoch"),
        SegmentResult(signal_name="SIGKILL"),
        SegmentResult(could_not_start="Permission denied"),
    ],
)
def test_no_checkpoint_is_accused_of_what_another_would_not_change(ending: SegmentResult) -> None:
    assert next_move(SPEC, ending, AT_ONCE).suspect is None


@pytest.mark.parametrize(("chain", "kept"), [(OLD, 3), (GOOD, 0)])
def test_ends_by_the_hosts_trouble_stay_counted_until_something_new_is_saved(chain: Chain, kept: int) -> None:
    for ending in (SegmentResult(asked=Intent.TIMEBOX), SegmentResult(asked=Intent.YIELD)):
        assert next_move(SPEC, ending, replace(chain, host_faults=3)).host_faults == kept


NO_MODULE = SegmentResult(exit_code=1, last_line="ModuleNotFoundError: No module named 'torch'")


def test_what_would_fail_again_is_retried_only_where_a_checkpoint_may_change_that() -> None:
    asked = spec(retries=3)
    never = next_move(asked, NO_MODULE, FRESH)
    assert never.event is Event.FAILED
    assert never.reason.endswith("; not retried: it would fail the same way again")
    assert next_move(asked, NO_MODULE, OLD).event is Event.REQUEUED
    assert (
        next_move(asked, SegmentResult(exit_code=1, last_line="ValueError: x"), FRESH).event is Event.REQUEUED
    )


def test_a_failure_with_two_checkpoints_acquits_both_and_says_so() -> None:
    crash = SegmentResult(exit_code=1, last_line="ValueError: x")
    twice = next_move(SPEC, crash, replace(OLD, fell_back=1))
    assert (twice.acquits, twice.reason) == (
        True,
        "exited 1: ValueError: x; so it did with another checkpoint",
    )
    once = next_move(SPEC, crash, OLD)
    assert (once.acquits, once.reason) == (False, "exited 1: ValueError: x")
    retried = next_move(spec(retries=1), crash, replace(OLD, fell_back=1))
    assert (retried.event, retried.acquits) == (Event.REQUEUED, True)


def test_another_checkpoint_costs_no_retry_and_keeps_what_was_counted() -> None:
    chain = replace(AT_ONCE, stalled=1, retries_used=2, lost=1)
    move = next_move(spec(retries=5), SegmentResult(exit_code=1), chain)
    assert (move.stalled, move.retries_used, move.lost, move.delay_s) == (1, 2, 0, 2.0)


def test_the_hosts_trouble_is_tried_again_from_one_once_something_new_is_saved() -> None:
    full = SegmentResult(exit_code=1, disk_full=True)
    known = next_move(SPEC, full, replace(GOOD, host_faults=HOST_FAULT_CAP))
    assert (known.event, known.host_faults) == (Event.REQUEUED, 1)
    assert known.reason == (
        "disk full: there was no room for its output (exit code 1); again from its last checkpoint once there is room,"
        " in 40 s or later"
    )
    taken = next_move(SPEC, SegmentResult(exit_code=1, port_in_use="port 29500 is taken"), OLD)
    assert taken.reason.startswith("port in use: port 29500 is taken (exit code 1); again from")
    by_text = SegmentResult(exit_code=1, last_line="OSError: [Errno 98] Address already in use")
    assert next_move(SPEC, by_text, OLD).reason.startswith("port in use: [Errno 98] Address already in use")


HUNG = SegmentResult(asked=Intent.YIELD, hung=True, exit_code=130, why_asked="hung: no step for 12 min")


def test_hangs_are_tried_again_and_counted_until_something_new_is_saved() -> None:
    chain = OLD
    for attempt in (1, 2):
        verdict = next_move(SPEC, HUNG, chain)
        assert (verdict.event, verdict.outcome) == (Event.REQUEUED, SegmentOutcome.HUNG)
        assert verdict.retries_used == attempt
        assert (
            f"again from its last checkpoint in {backoff_s(attempt):g} s ({attempt} of 2)" in verdict.reason
        )
        chain = replace(chain, retries_used=verdict.retries_used)
    last = next_move(SPEC, HUNG, chain)
    assert (last.event, last.fault) == (Event.FAILED, Fault.HUNG)
    assert "; 3 times in a row without a new checkpoint; " in told(last)
    assert told(last).endswith("--no-watchdog lets it be; backprop resume 4123-1 tries again")
    assert next_move(SPEC, HUNG, replace(GOOD, retries_used=2)).retries_used == 1, "it had gone on"
    assert next_move(spec(retries=5), HUNG, chain).event is Event.REQUEUED, "its user allows more"


def test_a_hang_starts_nothing_from_zero_that_its_user_has_not_asked_for() -> None:
    assert next_move(SPEC, HUNG, FRESH).event is Event.FAILED
    assert "no checkpoint is known" in next_move(SPEC, HUNG, FRESH).reason
    assert "again from the beginning" in next_move(spec(retries=1), HUNG, FRESH).reason
    assert next_move(spec(auto_resume=False), HUNG, OLD).event is Event.FAILED
    assert next_move(spec(max_segments=1), HUNG, OLD).event is Event.FAILED


def test_what_its_user_wanted_and_what_shows_its_end_count_more_than_a_hang() -> None:
    assert next_move(SPEC, replace(HUNG, wanted=Intent.STOP), OLD).event is Event.STOPPED
    assert next_move(SPEC, replace(HUNG, exit_code=0, shown_end="step 9/9"), OLD).event is Event.COMPLETED
