"""Commands of the user's on what happens: started once, bounded, never in the worker's way."""

import json
import os
import signal
import sqlite3
import sys
import time

from backprop.scheduler.home.layout import Home, ensure
from tests.support.harness import SCRIPTS, Bench, alive, wait_until

IMPATIENT = (sys.executable, str(SCRIPTS / "impatient.py"))


def configure(bench: Bench, **hooks: str) -> None:
    ensure(Home(bench.home))
    (bench.home / "config.json").write_text(json.dumps({"hooks": hooks}))


def test_each_end_is_told_once_as_json_and_in_the_environment(bench: Bench) -> None:
    out = bench.project.parent / "told"
    configure(
        bench,
        completed=f"cat >> {out}; echo $BACKPROP_HOOK_RUN_NAME >> {out}.names",
        failed=f"cat >> {out}",
        queue_empty=f"cat >> {out}",
    )
    bench.script("good.py", "print('done')\n")
    bench.script("bad.py", "raise SystemExit(3)\n")
    good, bad = bench.queue("good.py"), bench.queue("bad.py")
    assert bench.worker("--drain").wait(timeout=60) == 0
    told = [json.loads(line) for line in out.read_text().splitlines()]
    assert sorted(one["event"] for one in told) == ["completed", "failed", "queue_empty"]
    by_event = {one["event"]: one for one in told}
    assert by_event["completed"]["run"]["id"] == good
    assert by_event["failed"]["run"]["id"] == bad
    assert "exited 3" in by_event["failed"]["run"]["reason"]
    assert (out.parent / "told.names").read_text() == "good\n"


def test_one_that_hangs_holds_up_nothing_and_is_ended_with_all_it_started(bench: Bench) -> None:
    pids = bench.project.parent / "pids"
    configure(bench, completed=f"sleep 600 & echo $! >> {pids}; wait")
    bench.script("good.py", "print('done')\n")
    runs = [bench.queue("good.py") for _ in range(3)]
    began_s = time.monotonic()
    worker = bench.worker("--drain")
    for run in runs:
        bench.wait_for(run, "completed")
    assert worker.wait(timeout=60) == 0, "it ends what is left, some seconds after its last run"
    assert time.monotonic() - began_s < 50
    sleeping = [int(line) for line in pids.read_text().split()]
    assert len(sleeping) == 3
    wait_until(lambda: not any(alive(pid) for pid in sleeping))
    assert "killed, the worker ends" in bench.output()


def test_the_end_of_those_that_waited_in_vain_is_the_end_of_the_queue(bench: Bench) -> None:
    """The last of the group and of the queue never ran: nobody but the worker saw them end."""
    out = bench.project.parent / "told"
    configure(bench, group_finished=f"cat >> {out}", queue_empty=f"cat >> {out}")
    bench.script("bad.py", "raise SystemExit(3)\n")
    first = bench.queue("bad.py", "--group", "g")
    bench.queue("bad.py", "--group", "g", "--after", first)
    assert bench.worker("--drain").wait(timeout=60) == 0
    told = {one["event"]: one for one in map(json.loads, out.read_text().splitlines())}
    assert told["group_finished"]["counts"] == {"failed": 1, "stopped": 1}
    assert "queue_empty" in told


def test_one_that_fails_is_said_and_a_project_may_set_none(bench: Bench) -> None:
    configure(bench, completed="echo trouble >&2; exit 7")
    bench.script("good.py", "print('done')\n")
    bench.queue("good.py")
    assert bench.worker("--drain").wait(timeout=60) == 0
    assert "completed: exited 7" in bench.output()
    assert (bench.home / "hooks.log").read_text() == "trouble\n"
    (bench.project / "backprop.config.json").write_text('{"hooks": {"completed": "touch /tmp/x"}}')
    refused = bench.backprop("config")
    assert refused.returncode == 5
    assert "hooks.completed" in refused.stderr


def test_a_group_has_finished_when_its_last_member_has_ended(bench: Bench) -> None:
    out = bench.project.parent / "told"
    configure(bench, group_finished=f"cat >> {out}")
    bench.script("good.py", "print('done')\n")
    for _ in range(3):
        bench.queue("good.py", "--group", "three")
    workers = [bench.worker("--drain") for _ in range(2)]
    for worker in workers:
        assert worker.wait(timeout=60) == 0
    (told,) = [json.loads(line) for line in out.read_text().splitlines()]
    assert (told["group"], told["counts"]) == ("three", {"completed": 3})


def test_a_database_that_is_locked_right_after_an_end_loses_nothing_that_follows(bench: Bench) -> None:
    out = bench.project.parent / "told"
    configure(bench, completed=f"cat >> {out}", group_finished=f"cat >> {out}", queue_empty=f"cat >> {out}")
    bench.script("good.py", "print('done')\n")
    bench.queue("good.py", "--group", "g")
    worker = bench.worker(
        "--drain",
        command=(*IMPATIENT, "Database.patience_s=0.2", "--"),
        env={"BACKPROP_FAILPOINT": "settled:stop"},
        forked=False,
    )
    os.waitid(os.P_PID, worker.pid, os.WSTOPPED)
    locked = sqlite3.connect(bench.home / "backprop.db", isolation_level=None)
    try:
        locked.execute("BEGIN EXCLUSIVE")
        worker.send_signal(signal.SIGCONT)
        wait_until(lambda: "is locked by another process" in bench.output(), saw=bench.output)
    finally:
        locked.close()
    assert worker.wait(timeout=60) == 0
    told = [json.loads(line)["event"] for line in out.read_text().splitlines()]
    assert sorted(told) == ["completed", "group_finished", "queue_empty"], "each once"
    assert bench.output().count("completed   ") == 1
