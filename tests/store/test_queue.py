"""The verbs that write: every move a compare-and-set on a real file, and claims that never meet."""

import json
import subprocess

import msgspec
import peewee
import pytest
from msgspec.structs import replace

from backprop.scheduler.errors import AmbiguousRun, BadCommand, LostRace, UnknownRun
from backprop.scheduler.lifecycle import Event, Intent, State
from backprop.scheduler.outcome.move import NextMove
from backprop.scheduler.outcome.segment_outcome import SegmentOutcome
from backprop.scheduler.outcome.segment_result import SegmentResult
from backprop.scheduler.spec import QueuePosition
from backprop.scheduler.store.connection import Database
from backprop.scheduler.store.reads import queries
from backprop.scheduler.store.schema import Run, Segment
from backprop.scheduler.store.writes import claims, progress, suspensions, user_requests
from backprop.scheduler.store.writes.claims import Claim
from backprop.scheduler.store.writes.progress import SegmentReport
from tests.support.harness import ROOT, program
from tests.support.store_rows import SPEC, add_run, checkpoint, claimed, enqueue_run, get

REQUEUED = NextMove(Event.REQUEUED, SegmentOutcome.TIMEBOXED, "timebox reached")


def serial(database: Database) -> int:
    return queries.live_segments(database)[0]


def test_a_run_comes_back_as_it_was_queued(database: Database) -> None:
    spec = msgspec.structs.replace(SPEC, argv=("python", "a b", "ü", "\n"), timebox_s=1.5, max_segments=3)
    run = add_run(database, "r1", name="n", spec=spec)
    assert run.spec == spec
    assert (run.state, run.segment, run.worker, run.intent) == (State.QUEUED, 0, None, None)
    with pytest.raises(BadCommand, match="r1 exists"):
        add_run(database, "r1")


def test_a_claim_is_made_once(database: Database) -> None:
    run = add_run(database, "r1")
    wanted = Claim(run=run, worker="w1", serial=serial(database), gpu_uuids=("G1",), promised_mib=512)
    assert claims.claim(database, [wanted], 5.0) == [1]
    assert claims.claim(database, [replace(wanted, worker="w2", serial=serial(database))], 6.0) == [None]
    now = get(database, "r1")
    assert (now.state, now.worker, now.segment, now.started_at_s) == (State.RUNNING, "w1", 1, 5.0)
    (segment,) = queries.segments(database, "r1")
    assert (segment.gpu_uuids, segment.promised_mib, segment.outcome) == (("G1",), 512, None)


def test_a_claim_on_outdated_reservations_is_refused(database: Database) -> None:
    """Two workers decide on the same free VRAM: the second one's decision knew nothing of the first's promise."""
    one, two = add_run(database, "r1"), add_run(database, "r2")
    seen = serial(database)
    claims.claim(database, [Claim(run=one, worker="w1", serial=seen)], 5.0)
    with pytest.raises(LostRace, match="another worker claimed"):
        claims.claim(database, [Claim(run=two, worker="w2", serial=seen)], 5.0)
    assert get(database, "r2") == two
    assert len(queries.live_segments(database)[1]) == 1, "no segment row of a claim that failed"


def test_a_claim_on_an_older_segment_is_refused(database: Database) -> None:
    """The run was claimed, ran, and is queued again: its state is the same, the claim is not."""
    before = add_run(database, "r1")
    claims.apply_result(database, claimed(database, before), REQUEUED, SegmentResult(), 3.0)
    assert claims.claim(database, [Claim(run=before, worker="w2", serial=serial(database))], 5.0) == [None]
    assert claimed(database, get(database, "r1")).segment == 2


def test_what_was_decided_on_together_is_claimed_together(database: Database) -> None:
    """One of them has moved on since: the others are claimed all the same, and each has its own segment."""
    one, two, three = (add_run(database, name) for name in ("r1", "r2", "r3"))
    seen = serial(database)
    user_requests.hold_run(database, two, "why")
    wanted = [Claim(run=run, worker="w1", serial=seen) for run in (one, two, three)]
    assert claims.claim(database, wanted, 5.0) == [1, None, 1]
    assert [get(database, name).state for name in ("r1", "r2", "r3")] == ["running", "held", "running"]
    assert [one.run_id for one in queries.live_segments(database)[1]] == ["r1", "r3"]


def test_an_end_is_settled_once(database: Database) -> None:
    run = claimed(database, add_run(database, "r1"))
    verdict = NextMove(
        Event.REQUEUED, SegmentOutcome.FAILED, "exited 1", stalled=1, retries_used=2, lost=3, delay_s=10.0
    )
    ending = SegmentResult(exit_code=1, signal_name=None, running_s=4.5)
    assert claims.apply_result(database, run, verdict, ending, 100.0).state is State.QUEUED
    with pytest.raises(LostRace):
        claims.apply_result(database, run, verdict, ending, 100.0)
    now = get(database, "r1")
    assert (now.stalled, now.retries_used, now.lost, now.chain_total_s) == (1, 2, 3, 4.5)
    assert (now.queued_at_s, now.not_before_s, now.worker, now.exit_code) == (100.0, 110.0, None, 1)
    (segment,) = queries.segments(database, "r1")
    assert (segment.outcome, segment.exit_code, segment.ended_at_s) == ("failed", 1, 100.0)
    assert queries.queue(database, 109.0) == []
    assert [one.id for one in queries.queue(database, 110.0)] == ["r1"]


@pytest.mark.parametrize("event", [Event.REQUEUED, Event.TIMEBOXED, Event.FAILED])
def test_a_stop_between_reading_and_settling_is_not_lost(database: Database, event: Event) -> None:
    """The worker read the run, decided that it goes on, and meanwhile the user said stop."""
    seen = claimed(database, add_run(database, "r1"))
    assert user_requests.ask_to_stop(database, seen, 3.0) is State.RUNNING
    with pytest.raises(LostRace):
        claims.apply_result(database, seen, NextMove(event, SegmentOutcome.FAILED, "y"), SegmentResult(), 4.0)
    now = get(database, "r1")
    assert (now.state, now.intent) == (State.RUNNING, Intent.STOP)
    assert queries.segments(database, "r1")[0].outcome is None
    assert (
        claims.apply_result(
            database, now, NextMove(Event.STOPPED, SegmentOutcome.STOPPED, "y"), SegmentResult(), 4.0
        ).state
        is State.STOPPED
    )
    assert get(database, "r1").intent is None


def test_a_stop_is_stronger_than_another_reason_to_end(database: Database) -> None:
    run = claimed(database, add_run(database, "r1"))
    assert claims.ask_to_end(database, run, Intent.YIELD, "heat")
    assert get(database, "r1").intent is Intent.YIELD
    user_requests.ask_to_stop(database, get(database, "r1"), 3.0)
    assert get(database, "r1").intent is Intent.STOP
    assert not claims.ask_to_end(database, run, Intent.YIELD, "heat"), "it is not overwritten"
    assert get(database, "r1").intent is Intent.STOP


def test_a_stop_of_a_run_that_has_just_moved_on_says_so(database: Database) -> None:
    waiting = add_run(database, "r1")
    running = claimed(database, waiting)
    with pytest.raises(LostRace, match="run r1 changed state just now; try again"):
        user_requests.ask_to_stop(database, waiting, 3.0)
    claims.apply_result(database, running, REQUEUED, SegmentResult(), 3.0)
    with pytest.raises(LostRace):
        user_requests.ask_to_stop(database, running, 3.0)
    assert user_requests.ask_to_stop(database, get(database, "r1"), 3.0) is State.STOPPED


def test_what_is_said_of_a_settled_segment_changes_nothing(database: Database) -> None:
    """By a worker that was frozen while another one settled it: the run is in its next segment."""
    run = claimed(database, add_run(database, "r1"))
    claims.apply_result(database, run, REQUEUED, SegmentResult(), 3.0)
    claimed(database, get(database, "r1"))
    late = SegmentReport(log_from=0, log_to=100, events_from=0, events_to=0, last_step=5)
    with pytest.raises(LostRace):
        progress.record(database, "r1", 1, late, live=True)
    assert get(database, "r1").last_step is None
    assert progress.record(database, "r1", 2, late, live=True)


def test_what_is_said_is_stored_once(database: Database) -> None:
    run = claimed(database, add_run(database, "r1"))
    first = SegmentReport(
        log_from=0,
        log_to=100,
        events_from=0,
        events_to=0,
        last_step=5,
        last_loss=0.5,
        checkpoints=(checkpoint("r1", "/a"),),
        bad_events=2,
        first_output_s=1.0,
    )
    assert progress.record(database, "r1", 1, first)
    assert not progress.record(database, "r1", 1, first), "another worker that read the same bytes"
    overlapping = replace(first, log_from=50, log_to=150, last_step=1)
    assert not progress.record(database, "r1", 1, overlapping)
    assert progress.record(
        database, "r1", 1, SegmentReport(log_from=100, log_to=160, events_from=0, events_to=9)
    )
    (segment,) = queries.segments(database, "r1")
    assert (segment.log_offset, segment.events_offset, segment.bad_events) == (160, 9, 2)
    assert segment.first_output_s == 1.0
    assert (get(database, "r1").last_step, get(database, "r1").last_loss) == (5, 0.5)
    assert [one.path for one in queries.checkpoints(database, "r1")] == ["/a"]
    assert not progress.record(
        database, run.id, 2, SegmentReport(log_from=0, log_to=1, events_from=0, events_to=0)
    )


def test_only_the_newest_checkpoints_are_remembered(database: Database) -> None:
    claimed(database, add_run(database, "r1"))
    claimed(database, add_run(database, "r2"))
    for run_id in ("r1", "r2"):
        for at in range(progress.KEPT_CHECKPOINTS + 5):
            said = (
                checkpoint(run_id, f"/good/{at}"),
                msgspec.structs.replace(checkpoint(run_id, f"/bad/{at}"), refused="it is empty"),
            )
            heard = SegmentReport(log_from=at, log_to=at + 1, events_from=0, events_to=0, checkpoints=said)
            assert progress.record(database, run_id, 1, heard)
    for run_id in ("r1", "r2"):
        kept = queries.checkpoints(database, run_id)
        good = [one.path for one in kept if one.refused is None]
        assert good == [f"/good/{at}" for at in range(progress.KEPT_CHECKPOINTS + 4, 4, -1)], "newest first"
        assert len(kept) == 2 * progress.KEPT_CHECKPOINTS
    assert queries.newest_checkpoints(database, ["r1", "r2", "r3"]) == {"r1": "/good/24", "r2": "/good/24"}


@pytest.mark.parametrize("state", [State.COMPLETED, State.FAILED, State.TIMEBOXED, State.STOPPED, State.HELD])
def test_resume_starts_a_new_chain_and_keeps_the_history(database: Database, state: State) -> None:
    run = add_run(database, "r1")
    worn = NextMove(
        Event.REQUEUED,
        SegmentOutcome.FAILED,
        "y",
        stalled=1,
        retries_used=2,
        lost=3,
        delay_s=500.0,
        need_mib=9,
    )
    claims.apply_result(database, claimed(database, run), worn, SegmentResult(running_s=60.0), 3.0)
    if state is State.HELD:
        user_requests.hold_run(database, get(database, "r1"), "why")
    else:
        ends = {"completed": Event.COMPLETED, "failed": Event.FAILED, "timeboxed": Event.TIMEBOXED}
        verdict = replace(worn, event=ends.get(state.value, Event.STOPPED), need_mib=None)
        claims.apply_result(database, claimed(database, get(database, "r1")), verdict, SegmentResult(), 4.0)
    ended = get(database, "r1")
    assert ended.state is state
    longer = msgspec.structs.replace(SPEC, timebox_s=1200.0)
    assert user_requests.resume(database, ["r1"], {"r1": longer}, "/pin", 50.0) == ["r1"]
    now = get(database, "r1")
    assert now.state is State.QUEUED
    assert (now.stalled, now.retries_used, now.lost, now.oom_retries) == (0, 0, 0, 0)
    assert (now.chain_start, now.chain_total_s) == (ended.segment, 0.0)
    assert (now.queued_at_s, now.not_before_s, now.ended_at_s) == (50.0, 0.0, None)
    assert (now.spec.timebox_s, now.resume_pin) == (1200.0, "/pin")
    assert (now.segment, now.created_at_s) == (ended.segment, run.created_at_s)
    assert len(queries.segments(database, "r1")) == ended.segment
    assert user_requests.resume(database, ["r1"], {}, None, 51.0) == [], "it is queued already"
    assert get(database, "r1") == now


@pytest.mark.parametrize(
    "values",
    [
        {"state": "sleeping"},
        {"state": "running"},
        {"worker": "w1"},
        {"state": "completed"},
        {"ended_at_s": 5.0},
        {"intent": "stop"},
        {"state": "running", "worker": "w", "intent": "whim"},
        {"segment": -1},
        {"paused_for": "heat"},
        {"state": "paused", "worker": "w"},
        {"reason": None},
    ],
    ids=json.dumps,
)
def test_the_database_refuses_what_must_never_be(database: Database, values: dict[str, object]) -> None:
    before = add_run(database, "r1")
    with pytest.raises(peewee.IntegrityError):
        database.write(lambda: Run.update(values).where(Run.id == "r1").execute())
    assert get(database, "r1") == before


def test_a_segment_row_says_how_it_ended_or_that_it_lives(database: Database) -> None:
    claimed(database, add_run(database, "r1"))
    for values in ({"outcome": "failed"}, {"ended_at_s": 5.0}, {"number": 0}, {"run_id": "nobody"}):
        with pytest.raises(peewee.IntegrityError):
            database.write(lambda values=values: Segment.update(values).execute())
    with pytest.raises(peewee.IntegrityError):
        database.write(lambda: progress.insert_checkpoint(checkpoint("nobody", "/x")))


def test_the_owner_of_a_live_run_changes_once(database: Database) -> None:
    run = claimed(database, add_run(database, "r1"))
    assert claims.change_owner(database, run, "w2")
    assert not claims.change_owner(database, run, "w3"), "another worker was faster"
    assert get(database, "r1").worker == "w2"


def test_waiting_reasons_are_only_for_those_who_wait(database: Database) -> None:
    add_run(database, "r1")
    claimed(database, add_run(database, "r2"))
    claims.record_waiting_reasons(
        database, {"r1": ("waits: RAM", ()), "r2": ("waits: RAM", ()), "r3": ("x", ())}
    )
    assert get(database, "r1").reason == "waits: RAM"
    assert get(database, "r2").reason == "segment 1"


def test_a_run_is_found_by_id_then_name_then_prefix(database: Database) -> None:
    for run_id, name in (("abc1", "base"), ("abd2", "base"), ("base2", "x"), ("x", "y"), ("a_c", "z")):
        add_run(database, run_id, name=name)
    assert queries.find_run(database, "x").id == "x", "an id beats a name"
    assert queries.find_run(database, "y").id == "x"
    assert queries.find_run(database, "abc").id == "abc1"
    assert queries.find_run(database, "base2").id == "base2"
    with pytest.raises(AmbiguousRun, match=r"2 runs are named base: .*abd2 \(queued\)"):
        queries.find_run(database, "base")
    with pytest.raises(AmbiguousRun, match="2 ids begin with ab"):
        queries.find_run(database, "ab")
    assert queries.find_run(database, "a_").id == "a_c", "no wildcard"
    for nothing in ("", "%", "nope"):
        with pytest.raises(UnknownRun):
            queries.find_run(database, nothing)


def test_the_queue_is_served_in_turn(database: Database) -> None:
    for number in range(3):
        enqueue_run(database, f"r{number}", "n", SPEC, float(number), "queued")
    first = claimed(database, get(database, "r0"))
    claims.apply_result(database, first, REQUEUED, SegmentResult(), 10.0)
    assert [run.id for run in queries.queue(database, 20.0)] == ["r1", "r2", "r0"], "to the back"
    assert [run.id for run in queries.queue(database, 20.0, limit=1)] == ["r1"]


def test_a_clock_that_was_set_back_gives_nobody_every_turn(database: Database) -> None:
    for number in range(3):
        enqueue_run(database, f"r{number}", "n", SPEC, 7200.0 + number, "queued")
    first = claimed(database, get(database, "r0"))
    claims.apply_result(database, first, REQUEUED, SegmentResult(), 100.0)
    assert [run.id for run in queries.queue(database, 200.0)] == ["r1", "r2", "r0"]


def test_a_retry_does_not_wait_for_a_clock_that_was_set_back(database: Database) -> None:
    enqueue_run(database, "r0", "n", SPEC, 7000.0, "queued")
    retry = replace(REQUEUED, delay_s=10.0)
    claims.apply_result(database, claimed(database, get(database, "r0")), retry, SegmentResult(), 7200.0)
    assert queries.queue(database, 7205.0) == []
    assert [run.id for run in queries.queue(database, 100.0)] == ["r0"]
    enqueue_run(database, "r1", "n", SPEC, 7200.0, place=QueuePosition(begin_s=7300.0))
    assert [run.id for run in queries.queue(database, 100.0)] == ["r0"], "what its user wants to wait, waits"


def test_four_processes_claim_a_hundred_runs_each_exactly_once(database: Database) -> None:
    for number in range(100):
        enqueue_run(database, f"r{number:03}", "n", SPEC, float(number % 7), "queued")
    claimers = [
        subprocess.Popen(
            [*program("claim_all"), str(database.home.root), f"w{who}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        for who in range(4)
    ]
    for claimer in claimers:
        assert claimer.stdout is not None
        assert claimer.stdout.readline() == "ready\n"
    claims: list[str] = []
    for claimer in claimers:
        assert claimer.stdin is not None
        claimer.stdin.write("go\n")
        claimer.stdin.flush()
    for who, claimer in enumerate(claimers):
        out, errors = claimer.communicate(timeout=90)
        assert (claimer.returncode, errors) == (0, "")
        claims += out.split()
        owned = {run.id for run in queries.live_runs(database) if run.worker == f"w{who}"}
        assert owned == set(out.split()), "what it believes to own is what is written"
    assert sorted(claims) == [f"r{number:03}" for number in range(100)]
    assert len(queries.live_segments(database)[1]) == 100
    assert database.integrity_problem() is None


def test_suspended_runs_wait_in_the_queue_for_their_turn(database: Database) -> None:
    """Not those that their users keep, nor those that are to end; nor do they count against a limit."""
    first, second = add_run(database, "a", State.SUSPENDED), add_run(database, "b", State.SUSPENDED)
    add_run(database, "c")
    assert [run.id for run in queries.queue(database, 9.0)] == ["c", "a", "b"]
    assert [run.id for run in queries.queue(database, 9.0, 2)] == ["c", "a"]
    assert [run.id for run in queries.queue(database, 9.0, after=first)] == ["b"]
    assert (queries.slot_count(database), len(queries.live_runs(database))) == (0, 2)
    assert queries.kept_by_suspended(database) == [100, 100]
    assert suspensions.ask(database, ["a", "c"], 20.0) == ["a"]
    assert [run.id for run in queries.queue(database, 9.0)] == ["c", "b"]
    assert [run.id for run in queries.queue(database, 21.0)] == ["c", "a", "b"]
    assert suspensions.unask(database, ["a", "b"]) == ["a"]
    suspensions.thaw(database, second, "w2", 1, 1, 9.0)
    with pytest.raises(LostRace):
        suspensions.thaw(database, get(database, "a"), "w2", 1, 1, 9.0)
    assert [run.id for run in queries.queue(database, 9.0)] == ["c", "a"]
    assert user_requests.ask_to_stop(database, get(database, "a"), 9.0) is State.SUSPENDED
    assert [run.id for run in queries.queue(database, 9.0)] == ["c"]
    thawed = queries.segment(database, "b", 1)
    assert thawed is not None
    assert (thawed.suspensions, get(database, "b").worker) == (1, "w2")
