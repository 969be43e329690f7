"""Groups that look after themselves: the worse part is stopped, and members that fail alike are held."""

import json

from backprop.scheduler.lifecycle import Event
from backprop.scheduler.outcome.move import NextMove
from backprop.scheduler.outcome.segment_outcome import SegmentOutcome
from backprop.scheduler.outcome.segment_result import SegmentResult
from backprop.scheduler.store import groups
from backprop.scheduler.store.connection import Database
from backprop.scheduler.store.writes import claims
from tests.support.harness import QUIET_LIMITS, Bench, wait_until
from tests.support.store_rows import add_run, claimed, get

LEARNS = """
    import json, os, sys
    lr = float(sys.argv[1])
    resumed = os.environ.get("BACKPROP_RESUME_FROM")
    step = int(open(resumed).read()) + 1 if resumed else 1
    mine = f"ckpt-{lr}"
    open(mine, "w").write(str(step))
    print(json.dumps({"step": step, "loss": lr / step, "metrics": {"accuracy": lr}}), flush=True)
    print(json.dumps({"event": "checkpoint_saved", "path": mine, "step": step}), flush=True)
    raise SystemExit(0 if step == 6 else 75)
"""


def test_after_some_segments_of_each_the_worse_half_is_stopped(bench: Bench) -> None:
    bench.script("learns.py", LEARNS)
    done = bench.backprop(
        "run", "-q", *QUIET_LIMITS, "--grid", "lr=1..4", "--group", "race", "--keep-best", "50%/2",
        "--metric", "loss", "learns.py", "--", "{lr}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    first, second, third, fourth = done.stdout.split()
    # One slot: with a slot each, the quicker of two that are left may be through before the other one's turn is over.
    assert bench.worker("--drain", "-p", "1").wait(timeout=90) == 0
    states = {run["id"]: run for run in bench.runs()}
    assert states[first]["state"] == "completed"
    assert [states[run]["state"] for run in (second, third, fourth)] == ["stopped"] * 3
    for run in (third, fourth):
        assert "in round 1 by loss: 2 of 4 go on" in states[run]["reason"]
        assert states[run]["segment_count"] < 4, "round robin: nobody was far ahead"
    assert "place 2 of 2" in states[second]["reason"]
    group = json.loads(bench.backprop("groups", "race", "--json").stdout)
    assert group["counts"] == {"completed": 1, "stopped": 3}
    ranked = [(one["round"], one["place"], one["id"], one["kept"]) for one in group["rankings"]]
    assert ranked == [
        (1, 1, first, True), (1, 2, second, True), (1, 3, third, False), (1, 4, fourth, False),
        (2, 1, first, True), (2, 2, second, False),
    ]  # fmt: skip
    shown = bench.backprop("groups", "race").stdout
    assert "50%/2 by the lowest loss" in shown
    assert "goes on" in shown


NEVER_ENDED = """
    import json, sys, time
    for step in range(400):
        print(json.dumps({"step": step, "loss": float(sys.argv[1])}), flush=True)
        time.sleep(0.1)
"""


def test_a_box_that_was_renewed_counts_for_a_round(bench: Bench) -> None:
    bench.script("endless.py", NEVER_ENDED)
    done = bench.backprop(
        "run", "-q", *QUIET_LIMITS, "-m", "0.05", "--grid", "lr=1,2", "--group", "race", "--keep-best", "50%/2",
        "--metric", "loss", "endless.py", "--", "{lr}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.split()
    bench.worker("-p", "2")
    seen = bench.wait_for(second, "stopped", "completed", "timeboxed")
    assert (seen["state"], seen["segment_count"]) == ("stopped", 1)
    assert "place 2 of 2 (2) in round 1 by loss" in seen["reason"]
    assert bench.state(first) == "running"


def test_more_may_be_better_and_two_workers_decide_once(bench: Bench) -> None:
    bench.script("learns.py", LEARNS)
    done = bench.backprop(
        "run", "-q", *QUIET_LIMITS, "--grid", "lr=1..4", "--group", "race", "--keep-best", "25%/3",
        "--metric", "accuracy:max", "learns.py", "--", "{lr}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    ids = done.stdout.split()
    workers = [bench.worker("--drain", "-p", "1") for _ in range(2)]
    for worker in workers:
        assert worker.wait(timeout=90) == 0
    states = [{run["id"]: run["state"] for run in bench.runs()}[one] for one in ids]
    assert states == ["stopped", "stopped", "stopped", "completed"], bench.output() + bench.output(1)
    rankings = json.loads(bench.backprop("groups", "race", "--json").stdout)["rankings"]
    assert len(rankings) == 4


def test_a_rule_without_a_group_and_one_that_is_none_are_refused(bench: Bench) -> None:
    bench.script("learns.py", LEARNS)
    for words in (
        ("--keep-best", "50%/3"),
        ("--metric", "loss"),
        ("--group", "g", "--keep-best", "half"),
        ("--group", "g", "--keep-best", "0%/3"),
        ("--group", "g", "--keep-best", "50%/0"),
        ("--group", "g", "--keep-best", "50%/3", "--metric", "loss:up"),
    ):
        refused = bench.backprop("run", *words, "learns.py")
        assert refused.returncode == 6, words
        assert len(refused.stderr.splitlines()) == 1
    assert bench.runs() == []


def test_two_that_fail_alike_at_once_hold_the_rest_of_their_group(bench: Bench) -> None:
    bench.script("broken.py", "import torhc\n")
    bench.script("fine.py", "print('fine')\n")
    bulk = bench.backprop("run", "-q", *QUIET_LIMITS, "--array", "1-8", "--group", "typo", "broken.py")
    assert bulk.returncode == 0, bulk.stderr
    fine = bench.queue("fine.py")
    bench.worker("-p", "1")
    bench.wait_for(fine, "completed")
    ids = bulk.stdout.split()
    wait_until(lambda: [bench.state(run) for run in ids].count("held") == 6, saw=bench.runs)
    assert [bench.state(run) for run in ids].count("failed") == 2
    held = next(run for run in bench.runs() if run["state"] == "held")
    assert held["reason"].startswith(
        "held: two runs of this group failed with the same import error (backprop show "
    )
    assert "6 more of group typo" in bench.output()


def test_a_metric_that_nobody_reports_stops_nobody(bench: Bench) -> None:
    bench.script("learns.py", LEARNS)
    done = bench.backprop(
        "run", "-q", *QUIET_LIMITS, "--grid", "lr=1..3", "--group", "typo", "--keep-best", "50%/2",
        "--metric", "lossy", "learns.py", "--", "{lr}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert bench.worker("--drain", "-p", "1").wait(timeout=90) == 0
    assert {run["state"] for run in bench.runs()} == {"completed"}
    told = "round 1 by lossy: 3 of 3 go on, for none has reported it; reported are: accuracy, loss"
    assert told in bench.output()


def test_a_lost_segment_counts_for_no_round(database: Database) -> None:
    for run_id, outcome in zip(
        "abc", (SegmentOutcome.TIMEBOXED, SegmentOutcome.LOST, SegmentOutcome.NOT_STARTED), strict=True
    ):
        add_run(database, run_id)
        verdict = NextMove(Event.REQUEUED, outcome, "on")
        claims.apply_result(database, claimed(database, get(database, run_id)), verdict, SegmentResult(), 3.0)
        claimed(database, get(database, run_id))
    assert groups.segments_had(database, ["a", "b", "c"]) == {"a": 1}
