"""A drained queue and active hours: nothing new starts, what runs goes on, and everything says so."""

import json
import signal
import subprocess
import time
from pathlib import Path

import pytest

from backprop.scheduler.config.settings import load
from backprop.scheduler.errors import BadConfig, LostRace
from backprop.scheduler.records import Waiting
from backprop.scheduler.store import drain
from backprop.scheduler.store.connection import Database
from backprop.scheduler.store.writes import claims
from tests.support.harness import COMMAND, QUIET_LIMITS, Bench, wait_until
from tests.support.store_rows import add_run, claimed, get

WAITS = """
import time
from pathlib import Path
print("up", flush=True)
while not Path("go").exists():
    time.sleep(0.02)
"""


def closed_now() -> str:
    """A window that is neither open now nor within the next hours."""
    hour = (time.localtime().tm_hour + 12) % 24
    return f"{hour:02}:00-{hour:02}:30"


def test_the_switch(database: Database) -> None:
    assert drain.drained(database) is None
    drain.set_drained(database, "a new driver", 5.0)
    drain.set_drained(database, "another", 6.0)
    assert drain.drained(database) == ("another", 6.0)
    run = add_run(database, "r1")
    with pytest.raises(LostRace, match="the queue was drained meanwhile"):
        claimed(database, run)
    add_run(database, "r2")
    shut = Waiting(rule="drained", text="the queue is drained (another)", since_s=6.0)
    hot = Waiting(rule="temperature", text="GPU 0 is drained of heat", since_s=6.0)
    claims.record_waiting_reasons(database, {"r1": ("waits", (hot, shut)), "r2": ("waits: drained", (hot,))})
    drain.set_drained(database, None, 7.0)
    assert drain.drained(database) is None
    assert (get(database, "r1").reason, get(database, "r1").waiting) == ("queued", ())
    assert get(database, "r2").waiting == (hot,), "another reason stays"
    assert claimed(database, get(database, "r1")).segment == 1


def test_what_runs_goes_on_and_nothing_new_starts(bench: Bench) -> None:
    bench.script("train.py", WAITS)
    first = bench.queue("train.py")
    worker = bench.worker("-p", "2")
    bench.wait_for_log(first, "up")
    assert bench.backprop("drain", "--why", "a new driver").stdout == "drained: 1 run running\n"
    assert bench.backprop("drain").stdout == "drained already: 1 run running\n"
    second = bench.queue("train.py")
    wait_until(lambda: "the queue is drained (a new driver)" in str(bench.column(second, "reason")))
    assert "the queue is drained" in bench.backprop("why", second).stdout
    assert json.loads(bench.backprop("why", second, "--json").stdout)["rules"][0]["rule"] == "drained"
    status = bench.backprop("status").stdout
    assert "none: the queue is drained (a new driver)" in status
    shown = json.loads(bench.backprop("status", "--json").stdout)
    assert (shown["drained"]["why"], "drained" in shown["closed"]) == ("a new driver", True)
    assert "would wait" in bench.backprop("run", "--dry-run", *QUIET_LIMITS, "train.py").stdout
    (bench.project / "go").touch()
    done = bench.backprop("drain", "--wait")
    assert done.returncode == 0
    bench.wait_for(first, "completed")  # its worker may note it a moment later
    assert bench.state(second) == "queued"
    assert "waiting for 1 run: train" in done.stderr or "nothing is running" in done.stdout
    assert worker.poll() is None
    assert bench.backprop("undrain").stdout == "starting runs again\n"
    bench.wait_for(second, "completed")
    said = bench.output()
    assert "closed      not starting runs: the queue is drained (a new driver)" in said
    assert "open        starting runs again" in said
    assert bench.backprop("undrain").stderr == "the queue is not drained\n"


def test_a_requeued_run_waits_and_wait_returns(bench: Bench) -> None:
    bench.script(
        "train.py",
        """
        import json, signal, sys, time
        def save(*_):
            open("c.pt", "w").write("x")
            print(json.dumps({"event": "checkpoint_saved", "path": "c.pt", "step": 1}), flush=True)
            sys.exit(75)
        signal.signal(signal.SIGINT, save)
        print("up", flush=True)
        time.sleep(60)
        """,
    )
    run = bench.queue("train.py", "-m", "0.03", "--grace-seconds", "2", "--at-timebox", "end")
    bench.worker()
    bench.wait_for_log(run, "up")
    assert bench.backprop("drain", "--wait").returncode == 0
    bench.wait_for(run, "queued")
    assert bench.show(run)["segment_count"] == 1
    bench.backprop("stop", run)


def test_waiting_can_be_interrupted(bench: Bench) -> None:
    bench.script("train.py", WAITS)
    run = bench.queue("train.py")
    bench.worker()
    bench.wait_for_log(run, "up")
    waiting = subprocess.Popen(
        [str(COMMAND), "drain", "--wait"],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        env=bench.environment,
        text=True,
    )
    assert waiting.stderr is not None
    assert waiting.stderr.readline() == f"waiting for 1 run: train ({run})\n"
    waiting.send_signal(signal.SIGINT)
    assert waiting.communicate(timeout=30)[1] == "the queue stays drained\n"
    assert waiting.returncode == 130
    (bench.project / "go").touch()
    bench.wait_for(run, "completed")


def test_a_worker_that_drains_leaves_a_drained_queue(bench: Bench) -> None:
    bench.script("train.py", "print(1)")
    run = bench.queue("train.py")
    assert bench.backprop("drain", "--dry-run").stdout == "would drain the queue; nothing is running\n"
    assert bench.backprop("drain").returncode == 0
    assert bench.worker("--drain").wait(timeout=60) == 0
    assert "drained     queued runs stay queued: the queue is drained (by the user)" in bench.output()
    assert bench.state(run) == "queued"
    help_text = " ".join(bench.backprop("worker", "--help").stdout.split())
    assert "confused with `backprop drain`" in help_text
    assert "confused with" in bench.backprop("drain", "--help").stdout


def test_outside_active_hours_nothing_starts(bench: Bench) -> None:
    bench.script("train.py", "print(1)")
    hours = closed_now()
    (bench.home).mkdir(mode=0o700)
    (bench.home / "config.json").write_text(json.dumps({"activeHours": hours}))
    run = bench.queue("train.py")
    worker = bench.worker("--drain")
    wait_until(lambda: f"outside activeHours ({hours}), opens at" in str(bench.column(run, "reason")))
    assert "active hours" in bench.backprop("why", run).stdout
    assert f"none: outside activeHours ({hours})" in bench.backprop("status").stdout
    assert json.loads(bench.backprop("status", "--json").stdout)["active_hours"] == [hours]
    assert "would wait: outside activeHours" in bench.backprop("worker", "--dry-run").stdout
    assert worker.poll() is None, "its hours will come"
    bench.end_worker(worker)
    assert "closed      not starting runs: outside activeHours" in bench.output()
    assert bench.worker("--drain", "--active-hours", "always").wait(timeout=60) == 0
    assert bench.state(run) == "completed"


def test_a_worker_with_hours_of_its_own_tells_status(bench: Bench) -> None:
    bench.script("train.py", "print(1)")
    run = bench.queue("train.py")
    hours = closed_now()
    bench.worker("--active-hours", f"{hours}; Mon-Sun {hours}")
    wait_until(lambda: "outside activeHours" in str(bench.column(run, "reason")))
    assert f"none: outside activeHours ({hours}; Mon-Sun {hours})" in bench.backprop("status").stdout


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        ("always", None),
        ([], None),
        ("22:00-08:00", ("22:00-08:00",)),
        (["Mon-Fri 19:00-08:00", "Sat 0:00-24:00"], ("Mon-Fri 19:00-08:00", "Sat 0:00-24:00")),
        ("22:00-06:00; Sat,Sun 00:00-24:00", ("22:00-06:00", "Sat,Sun 00:00-24:00")),
    ],
)
def test_active_hours_in_a_configuration(tmp_path: Path, value: object, expected: object) -> None:
    (tmp_path / "backprop.config.json").write_text(json.dumps({"activeHours": value}))
    assert load(tmp_path, tmp_path, None, {}).settings.active_hours == expected


@pytest.mark.parametrize(
    "value", ["night", "22:00", 22, ["22:00-08:00", 3], ["22:00-22:00"], "Mon 25:00-26:00", {}]
)
def test_active_hours_that_are_none(tmp_path: Path, value: object) -> None:
    (tmp_path / "backprop.config.json").write_text(json.dumps({"activeHours": value}))
    with pytest.raises(BadConfig, match='activeHours: expected "22:00-08:00", "Mon-Fri 19:00-08:00", a list'):
        load(tmp_path, tmp_path, None, {})


def test_a_suspended_run_is_waited_for_unless_its_loss_is_meant(bench: Bench) -> None:
    bench.script("train.py", WAITS)
    run = bench.queue("train.py")
    bench.worker()
    bench.wait_for_log(run, "up")
    assert bench.backprop("suspend", run).returncode == 0
    refused = bench.backprop("drain", "--even-if-lost")
    assert (refused.returncode, "add --wait" in refused.stderr) == (2, True)
    done = bench.backprop("drain", "--wait", "--even-if-lost")
    assert done.returncode == 0
    assert "1 run suspended: they go on after backprop undrain; a reboot would lose their work" in done.stderr
    bench.backprop("undrain")
    assert bench.backprop("unsuspend", run).returncode == 0
    (bench.project / "go").touch()
    bench.wait_for(run, "completed")
