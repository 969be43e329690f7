"""Groups that end themselves: by a goal in plain output, and by their running time, whoever is killed meanwhile."""

import json
import shutil
import signal

from tests.support.harness import QUIET_LIMITS, Bench, wait_until

IMPROVES = """
    import sys, time
    for step in range(1, 31):
        print(f"step {step} | val_bpb: {1.0 - step * float(sys.argv[1]):.4f}", flush=True)
        time.sleep(0.2)
"""
SAVES_WHEN_ASKED = """
    import json, os, signal, sys, time
    def save(*_):
        open(name, "w").write("7")
        print(json.dumps({"event": "checkpoint_saved", "path": name, "step": 7}), flush=True)
        sys.exit(0)
    name = f"ckpt-{sys.argv[1]}"
    signal.signal(signal.SIGINT, save)
    print("begun", flush=True)
    while True:
        time.sleep(0.05)
"""


def sweep(bench: Bench, *words: str) -> list[str]:
    done = bench.backprop("run", "-q", *QUIET_LIMITS, "--group", "night", *words)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def group(bench: Bench) -> dict[str, object]:
    return json.loads(bench.backprop("groups", "night", "--json").stdout)


def test_a_goal_that_is_met_stops_the_rest_also_in_a_restored_database(bench: Bench) -> None:
    bench.script("improves.py", IMPROVES)
    good, bad, *waiting = sweep(
        bench,
        "--grid",
        "rate=0.01,0.0001,0.02,0.03",
        "--until",
        "val_bpb<0.98",
        "improves.py",
        "--",
        "{rate}",
    )
    before = bench.home / "backprop.db"
    older = bench.project / "older.db"
    shutil.copy(before, older)
    worker = bench.worker("-p", "2")
    for run in waiting:
        bench.wait_for(run, "stopped")
    assert bench.wait_for(bad, "stopped")["reason"].startswith(f"goal met: val_bpb 0.97 of {good} is < 0.98")
    view = group(bench)
    assert (view["until"], view["over"]) == ("val_bpb<0.98", f"goal met: val_bpb 0.97 of {good} is < 0.98")
    assert f"over: goal met: val_bpb 0.97 of {good}" in bench.backprop("show", waiting[0]).stdout
    assert "goal met: val_bpb 0.97" in bench.backprop("why", waiting[0]).stdout
    assert bench.wait_for(good, "completed")
    assert [bench.show(run)["segment_count"] for run in waiting] == [0, 0]
    bench.end_worker(worker, signal.SIGKILL)
    # The older copy knows of no end, and neither do the files of the two that never began.
    older.replace(before)
    for file in bench.home.rglob("*.ends.jsonl"):
        file.unlink()
    for run in waiting:
        (bench.home / "runs" / run / "outcome.json").unlink(missing_ok=True)
    bench.worker("-p", "2")
    for run in waiting:
        assert bench.wait_for(run, "stopped", "running", "completed")["state"] == "stopped"
    assert [bench.show(run)["segment_count"] for run in waiting] == [0, 0]


def test_a_group_whose_time_is_used_up_while_its_worker_is_dead_is_ended_by_the_next(bench: Bench) -> None:
    bench.script("saves.py", SAVES_WHEN_ASKED)
    runs = sweep(bench, "--grid", "seed=1..3", "--group-max-minutes", "4s", "saves.py", "--", "{seed}")
    worker = bench.worker("-p", "2")
    live = [*map(str, runs[:2])]
    for run in live:
        bench.wait_for_log(run, "begun")
    bench.end_worker(worker, signal.SIGKILL)
    wait_until(lambda: (group(bench)["used_minutes"] or 0.0) > 4 / 60, saw=lambda: group(bench))  # pyright: ignore
    assert [bench.state(run) for run in runs] == ["running", "running", "queued"]
    bench.worker("-p", "2")
    for run in runs:
        assert bench.wait_for(run, "stopped")["reason"].startswith("budget used up: its group has run for ")
    for run in live:
        assert bench.show(run)["last_checkpoint"], "asked, not killed"
        assert "backprop resume" in bench.show(run)["reason"]
    assert bench.show(runs[2])["segment_count"] == 0


def test_rules_that_are_none_are_refused_in_one_line(bench: Bench) -> None:
    bench.script("improves.py", IMPROVES)
    for words in (
        ("--group", "g", "--until", "val_bpb"),
        ("--group", "g", "--until", "val_bpb<now"),
        ("--group", "g", "--group-max-minutes", "0"),
        ("--group", "g", "--group-max-minutes", "nan"),
        ("--until", "val_bpb<0.98"),
        ("--group-max-minutes", "10"),
    ):
        refused = bench.backprop("run", *words, "improves.py", "--", "1")
        assert refused.returncode == 6, words
        assert len(refused.stderr.splitlines()) == 1, refused.stderr
    assert bench.runs() == []
