"""Deaths at every moment, reboots, frozen and forgetful parts: what the next look makes of them.

`test_survival`, `test_takeover` and `test_supervisor` hold the plain deaths; the storms and sweeps the random ones.
"""

import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.sweep.scenes import SCENES, Scene, Stage
from tests.support import promises as books
from tests.support.harness import QUIET_LIMITS, SCRIPTS, Bench, alive, wait_until
from tests.support.moved_clock import WallClock

TRAINER = str(SCRIPTS / "trainer.py")
SAVED = "checkpoint_saved"
IMPATIENT = (sys.executable, str(SCRIPTS / "impatient.py"))


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    made = Stage(tmp_path)
    try:
        yield made
    finally:
        made.close()


def scene(name: str) -> Scene:
    return next(one for one in SCENES if one.name == name)


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


@pytest.mark.parametrize("moment", ["claimed", "launched", "heard", "settled", "set aside", "restored"])
def test_a_worker_killed_between_two_steps(stage: Stage, moment: str) -> None:
    playing = scene("repair" if moment in ("set aside", "restored") else "worker")
    playing.prepare(stage)
    assert stage.play(playing, ["env", f"BACKPROP_FAILPOINT={moment}:kill"]) == -signal.SIGKILL
    stage.finish()
    assert stage.faults() + stage.recorded() == []


@pytest.mark.parametrize("moment", ["spawned", "asking", "ended", "recorded"])
def test_a_supervisor_killed_between_two_steps(stage: Stage, moment: str) -> None:
    playing = scene("timebox" if moment == "asking" else "supervisor")
    playing.prepare(stage)
    assert stage.play(playing, ["env", f"BACKPROP_FAILPOINT={moment}:kill"]) == 0, "its worker sees to it"
    assert stage.faults() == []
    first = next(one for one in books.rows(stage.home.root, "segments") if one["number"] == 1)
    expected = {"ended": "lost", "recorded": "tempfail", "asking": "timeboxed"}
    assert first["outcome"] == expected.get(moment, first["outcome"])


def test_a_worker_frozen_after_its_claim_keeps_the_run_from_every_other(bench: Bench) -> None:
    """Claimed and not launched: the lock it still holds says so, however long it takes. Other runs are started."""
    run = bench.queue(TRAINER, "--", "--steps", "20")
    frozen = bench.worker(env={"BACKPROP_FAILPOINT": "claimed:stop"})
    wait_until(lambda: state(frozen.pid) == "T")
    hurry = ("worker.loop.RECONCILE_EVERY_S=0.2", "worker.executor.locks.ADMISSION_RESPECT_S=0.5")
    bench.worker(command=(*IMPATIENT, *hurry, "--"))
    other = bench.queue(TRAINER, "--", "--steps", "20")
    try:
        bench.wait_for(other, "completed")
        assert bench.state(run) == "running"
        assert bench.log(run) == ""
    finally:
        frozen.send_signal(signal.SIGCONT)
    assert [one["outcome"] for one in bench.wait_for(run, "completed")["segments"]] == ["completed"]


def test_after_a_reboot_pids_mean_nothing(bench: Bench) -> None:
    """Another boot id, and innocent processes under the very pids and start times on record."""
    run = bench.queue(TRAINER, "--", "--steps", "60")
    worker = bench.worker()
    bench.wait_for_log(run, SAVED)
    for pid in (worker.pid, bench.supervisor(run), bench.leader(run)):
        os.kill(pid, signal.SIGKILL)
    worker.wait()
    wait_until(lambda: not bench.left(), saw=bench.left)
    innocents = [subprocess.Popen(["sleep", "600"]) for _ in range(2)]
    try:
        known = bench.folder(run) / "processes.json"
        record = json.loads(known.read_text())
        who = [[one.pid, int(Path(f"/proc/{one.pid}/stat").read_text().split()[21])] for one in innocents]
        record |= {"boot_id": "of another boot", "supervisor": who[0], "leader": who[1]}
        known.write_text(json.dumps(record))
        assert bench.backprop("stop", run).returncode == 0, "asked while nobody can be"
        assert bench.state(run) == "running"
        bench.worker()
        bench.wait_for(run, "stopped")
        assert bench.backprop("resume", run).returncode == 0
        seen = bench.wait_for(run, "completed")
        assert [one["outcome"] for one in seen["segments"]] == ["lost", "completed"]
        assert seen["segments"][1]["checkpoint_used"]
        assert [state(one.pid) for one in innocents] == ["S", "S"]
    finally:
        for one in innocents:
            one.kill()
            one.wait()


def test_a_dead_worker_that_nobody_collects_is_dead(bench: Bench) -> None:
    """A zombie, as in a container without an init: its pid is there, its lock is not."""
    run = bench.queue(TRAINER, "--", "--steps", "60")
    zombie = bench.worker(forked=False)
    bench.wait_for_log(run, SAVED)
    os.kill(zombie.pid, signal.SIGKILL)
    wait_until(lambda: state(zombie.pid) == "Z")
    bench.worker()
    assert [one["outcome"] for one in bench.wait_for(run, "completed")["segments"]] == ["completed"]
    assert state(zombie.pid) == "Z"
    zombie.wait()


def overdue_worker(bench: Bench, replace_after_s: float) -> None:
    margins = (
        "worker.segments.supervisor_watchdog.LINGER_S=0.2",
        "worker.segments.supervisor_watchdog.MARGIN_S=0.3",
    )
    bench.worker(
        command=(
            *IMPATIENT,
            *margins,
            f"worker.segments.supervisor_watchdog.REPLACE_AFTER_S={replace_after_s}",
            "--",
        )
    )


def test_a_supervisor_frozen_past_its_deadline_is_let_run_and_ends_its_segment(bench: Bench) -> None:
    run = bench.queue(TRAINER, "-m", "0.02", "--grace-seconds", "1", "--no-auto-resume")
    overdue_worker(bench, 600)
    bench.wait_for_log(run, SAVED)
    os.kill(bench.supervisor(run), signal.SIGSTOP)
    seen = bench.wait_for(run, "timeboxed")
    assert seen["segments"][0]["outcome"] == "timeboxed"
    assert " s late" in bench.output()
    assert "replaced" not in bench.output()


def test_a_supervisor_that_does_nothing_even_then_is_replaced(bench: Bench) -> None:
    run = bench.queue(TRAINER, "-m", "0.02", "--grace-seconds", "1", "--no-auto-resume")
    overdue_worker(bench, 0.5)
    bench.wait_for_log(run, SAVED)
    stuck, leader = bench.supervisor(run), bench.leader(run)

    def freeze_for_ever() -> None:
        while alive(stuck):
            with contextlib.suppress(ProcessLookupError):
                os.kill(stuck, signal.SIGSTOP)
            time.sleep(0.002)

    frost = threading.Thread(target=freeze_for_ever)
    frost.start()
    seen = bench.wait_for(run, "timeboxed")
    frost.join(timeout=30)
    assert "replaced" in bench.output()
    # Lost: roused, it asked its leader before it was frozen again, and was replaced after the leader's end.
    assert seen["segments"][0]["outcome"] in ("timeboxed", "lost")
    assert "stops at step" in bench.log(run), "its leader was asked, not killed"
    assert not alive(leader)


def last_announced(text: str) -> str:
    return str(json.loads([line for line in text.splitlines() if SAVED in line][-1])["path"])


@pytest.mark.parametrize("what", ["renamed", "deleted", "emptied"])
def test_a_user_who_tidies_up_the_log_of_a_running_segment(bench: Bench, what: str) -> None:
    """The run is not taken for dead, and what it says afterwards is heard by whoever had opened the log before."""
    run = bench.queue(TRAINER, "-m", "0.05", "--at-timebox", "end", "--", "--steps", "180")
    bench.worker()
    wait_until(lambda: bench.column(run, "last_step"))
    log = bench.folder(run) / "log"
    with log.open() as writers:
        if what == "renamed":
            log.rename(log.with_name("old"))
        elif what == "deleted":
            log.unlink()
        else:
            os.truncate(log, 0)
        seen = bench.wait_for(run, "completed")
        assert seen["segments"][0]["outcome"] == "timeboxed"
        writers.seek(0)
        text = writers.read()
    assert seen["segments"][1]["checkpoint_used"] == str(bench.project / last_announced(text))
    assert not (bench.project / "doubles").exists()


def test_while_anything_of_a_run_lives_it_is_not_started_and_says_why(bench: Bench) -> None:
    """As after processes that survived SIGKILL: the lock they hold keeps the run waiting, in words."""
    run = bench.queue(TRAINER, "--", "--steps", "10")
    lock = os.open(bench.home / "runs" / run / "run.lock", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    bench.worker()
    wait_until(lambda: "waiting for processes of its last segment" in str(bench.column(run, "reason")))
    assert bench.state(run) == "queued"
    os.close(lock)
    bench.wait_for(run, "completed")


@pytest.mark.parametrize("worker_lives", [True, False])
def test_a_database_older_than_the_folders_repeats_nothing(bench: Bench, worker_lives: bool) -> None:
    """A copy of before is put into its place, as after restoring a backup of the disk."""
    done = bench.queue(TRAINER, "-n", "done", "--", "--steps", "10")
    database = bench.home / "backprop.db"
    copy = bench.home / "copy.db"
    shutil.copy(database, copy)
    first = bench.worker()
    bench.wait_for(done, "completed")
    if not worker_lives:
        bench.end_worker(first)
    shutil.copy(copy, database)
    if not worker_lives:
        bench.worker()
    bench.wait_for(done, "completed")
    again = bench.queue(TRAINER, "--", "--steps", "10")
    bench.wait_for(again, "completed")
    assert bench.state(done) == "completed"
    assert not bench.folder(done, 2).exists()
    assert (bench.project / "starts").read_text().splitlines() == ["1 0", "1 0"]


def test_an_older_copy_laid_over_the_file_of_a_worker_at_work(bench: Bench) -> None:
    """Queued, held and drained since then: all of it is known again without a restart, and nothing starts meanwhile."""
    bench.worker(command=(*IMPATIENT, "worker.loop.RECONCILE_EVERY_S=0.3", "--"))
    wait_until(lambda: "ready" in bench.output())
    held = bench.queue("--begin", "+1s", TRAINER, "--", "--steps", "5")
    database, copy = bench.home / "backprop.db", bench.home / "copy.db"
    shutil.copy(database, copy)
    for words in (("hold", held), ("drain",)):
        assert bench.backprop(*words).returncode == 0
    later = bench.queue(TRAINER, "--", "--steps", "5")
    shutil.copy(copy, database)
    wait_until(lambda: "requests of users asked again" in bench.output(), saw=bench.output)
    assert (bench.state(held), bench.state(later)) == ("held", "queued")
    assert bench.backprop("undrain").returncode == 0
    bench.wait_for(later, "completed")
    assert bench.state(held) == "held"
    assert (bench.project / "starts").read_text().splitlines() == ["1 0"]


def test_what_was_removed_by_hand_after_the_copy_never_starts_again(bench: Bench) -> None:
    """A member of a batch that had its folder deleted, and one that `rm` removed."""
    bench.script("train.py", "import os\nopen('ran-' + os.environ['BACKPROP_RUN_ID'], 'x')")
    bench.backprop("run", "-q", *QUIET_LIMITS, "--array", "1-3", "train.py")
    names = {run["name"]: run["id"] for run in bench.runs()}
    by_hand, by_rm, kept = (names[f"train-{number}"] for number in (1, 2, 3))
    copy = bench.home / "copy.db"
    shutil.copy(bench.home / "backprop.db", copy)
    assert bench.backprop("hold", kept).returncode == 0
    bench.worker("--drain").wait(timeout=60)
    for run in (by_hand, by_rm):
        (bench.project / f"ran-{run}").unlink()
    shutil.rmtree(bench.home / "runs" / by_hand)
    assert bench.backprop("rm", by_rm).returncode == 0
    shutil.copy(copy, bench.home / "backprop.db")
    bench.worker("--drain").wait(timeout=60)
    assert {run["id"]: run["state"] for run in bench.runs()} == {by_hand: "held", kept: "held"}
    assert "was removed" in str(bench.column(by_hand, "reason"))
    assert [path.name for path in bench.project.glob("ran-*")] == []


def test_stopped_for_good_stays_stopped_and_resumed_stays_resumed(bench: Bench) -> None:
    """A worker's start believes the folder only where the database is older."""
    stopped = bench.queue(TRAINER, "-n", "stopped", "--", "--steps", "10")
    resumed = bench.queue(TRAINER, "-n", "resumed", "--", "--steps", "10")
    for run in (stopped, resumed):
        assert bench.backprop("stop", run).returncode == 0
    outcome = bench.home / "runs" / resumed / "outcome.json"
    kept = outcome.read_bytes()
    assert bench.backprop("resume", resumed).returncode == 0
    outcome.write_bytes(kept)  # as if the command had died before it could take it away
    bench.worker("--drain").wait(timeout=60)
    assert (bench.state(stopped), bench.state(resumed)) == ("stopped", "completed")


@pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed")
@pytest.mark.parametrize("seconds", [-3600, 10 * 365 * 86400], ids=["back", "forward"])
def test_a_jump_of_the_wall_clock_moves_no_timebox(bench: Bench, tmp_path: Path, seconds: int) -> None:
    """Worker, supervisor and leader see the wall clock jump in the middle of a segment. File times do not: after a jump
    forward the next segment's checkpoints look older than itself, and count."""
    clock = WallClock(tmp_path)
    bench.environment |= clock.environment
    run = bench.queue(TRAINER, "-m", "0.05", "--at-timebox", "end", "--", "--steps", "180")
    bench.worker()
    wait_until(lambda: bench.column(run, "last_step"))
    clock.set(seconds)
    seen = bench.wait_for(run, "completed", "timeboxed")
    first = seen["segments"][0]
    assert first["outcome"] == "timeboxed"
    assert 2.9 <= first["running_s"] < 3 + 20
    assert seen["state"] == "completed", seen["reason"]
    assert seen["segments"][1]["checkpoint_used"] == str(bench.project / last_announced(bench.log(run)))
    second = json.loads(bench.backprop("show", run, "--json").stdout)["checkpoints"]
    assert any(each["segment"] == 2 and each["refused"] is None for each in second)


def test_what_is_resumed_while_its_end_is_written_down_stays_queued(bench: Bench) -> None:
    """The worker is between the database and the run's folder when the user resumes it."""
    bench.script("bad.py", "raise SystemExit(3)")
    run = bench.queue("bad.py")
    worker = bench.worker("--drain", env={"BACKPROP_FAILPOINT": "settled:stop"}, forked=False)
    os.waitid(os.P_PID, worker.pid, os.WSTOPPED)
    assert bench.backprop("drain").returncode == 0
    assert bench.backprop("resume", run).returncode == 0
    worker.send_signal(signal.SIGCONT)
    assert worker.wait(timeout=60) == 0
    assert bench.worker("--drain").wait(timeout=60) == 0
    assert bench.state(run) == "queued"
