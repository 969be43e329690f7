"""A worker that lives but does not tick: it is named, others settle what has ended, and later it does no harm."""

import json
import os
import signal
import sqlite3
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support.fake_gpus import impatient
from tests.support.harness import SCRIPTS, Bench, Worker, stays_true, wait_until

TRAINER = str(SCRIPTS / "trainer.py")
SAVED = "checkpoint_saved"
HURRY = (
    "worker.loop.RECONCILE_EVERY_S=0.3",
    "worker.executor.heartbeat.SILENT_S=1",
    "worker.executor.locks.ADMISSION_RESPECT_S=0.5",
)
"""What a worker beside a frozen one waits for."""


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def outcomes(seen: dict[str, Any]) -> list[str | None]:
    return [segment["outcome"] for segment in seen["segments"]]


def is_locked(bench: Bench) -> bool:
    """Return whether somebody is in the middle of a transaction."""
    database = sqlite3.connect(bench.home / "backprop.db", timeout=0, isolation_level=None)
    try:
        database.execute("BEGIN IMMEDIATE")
        database.execute("ROLLBACK")
    except sqlite3.OperationalError:
        return True
    finally:
        database.close()
    return False


def stays_locked(bench: Bench) -> bool:
    """Return whether somebody stays in the middle of a transaction: every other one takes milliseconds."""
    end_s = time.monotonic() + 0.3
    while is_locked(bench):
        if time.monotonic() > end_s:
            return True
        time.sleep(0.02)
    return False


def stop_at_rest(bench: Bench, worker: Worker) -> None:
    """Stop a worker outside of a transaction, which would lock everybody out."""

    def stopped() -> bool:
        worker.send_signal(signal.SIGSTOP)
        wait_until(lambda: state(worker.pid) == "T")
        if not is_locked(bench):
            return True
        worker.send_signal(signal.SIGCONT)
        return False

    wait_until(stopped)


def test_what_ends_beside_a_frozen_worker_is_settled_and_goes_on(bench: Bench) -> None:
    """And when that goes on in the middle of the next segment, nothing is started twice."""
    run = bench.queue("-m", "0.03", "--at-timebox", "end", TRAINER, "--", "--steps", "160")
    frozen = bench.worker()
    bench.wait_for_log(run, SAVED)
    stop_at_rest(bench, frozen)
    healthy = bench.worker(command=impatient(*HURRY))
    bench.wait_for_log(run, SAVED, segment=2)
    assert "that does not tick; it has ended" in bench.output(1)
    frozen.send_signal(signal.SIGCONT)
    seen = bench.wait_for(run, "completed")
    assert outcomes(seen) == ["timeboxed"] * (len(seen["segments"]) - 1) + ["completed"]
    starts = [line.split()[0] for line in (bench.project / "starts").read_text().splitlines()]
    assert starts == [str(segment["number"]) for segment in seen["segments"]]
    assert not (bench.project / "doubles").exists()
    assert bench.end_worker(healthy) == 0
    after = bench.queue(TRAINER, "--", "--steps", "5")
    bench.wait_for(after, "completed")
    assert "trouble" not in bench.output(0) + bench.output(1)


def test_a_run_that_is_lost_beside_a_frozen_worker_is_resumed(bench: Bench) -> None:
    run = bench.queue(TRAINER, "--", "--steps", "60")
    frozen = bench.worker()
    bench.wait_for_log(run, SAVED)
    stop_at_rest(bench, frozen)
    for pid in (bench.supervisor(run), bench.leader(run)):
        os.kill(pid, signal.SIGKILL)
    bench.worker(command=impatient(*HURRY))
    try:
        assert outcomes(bench.wait_for(run, "completed")) == ["lost", "completed"]
    finally:
        frozen.send_signal(signal.SIGCONT)


def test_what_a_frozen_worker_may_be_about_to_start_is_left_to_it(bench: Bench) -> None:
    """Claimed and not begun, and even its lock file was deleted. It holds the right to decide, too."""
    run = bench.queue(TRAINER, "--", "--steps", "20")
    frozen = bench.worker(env={"BACKPROP_FAILPOINT": "claimed:stop"})
    wait_until(lambda: state(frozen.pid) == "T")
    (bench.home / "runs" / run / "run.lock").unlink()
    others = [bench.queue(TRAINER, "--", "--steps", "20") for _ in range(2)]
    bench.worker(command=impatient(*HURRY))
    try:
        for other in [
            *others,
            bench.queue(TRAINER, "--", "--steps", "20"),
        ]:  # several looks of the other worker
            bench.wait_for(other, "completed")
        assert bench.state(run) == "running"
    finally:
        frozen.send_signal(signal.SIGCONT)
    assert outcomes(bench.wait_for(run, "completed")) == ["completed"]


def test_a_supervisor_that_has_begun_nothing_yet_lives_without_the_lock_file(bench: Bench) -> None:
    """Nothing shows that it lives, but that its worker started it: a loaded machine, and a deleted lock file."""
    run = bench.queue(TRAINER, "--", "--steps", "5")
    worker = bench.worker(env={"BACKPROP_FAILPOINT": "claimed:stop"})
    wait_until(lambda: state(worker.pid) == "T")
    (supervisor,) = (
        child for child in psutil.Process(worker.pid).children() if child.status() != psutil.STATUS_ZOMBIE
    )
    supervisor.suspend()
    (bench.home / "runs" / run / "run.lock").unlink()
    worker.send_signal(signal.SIGCONT)
    wait_until(lambda: "started" in bench.output())
    stays_true(lambda: bench.state(run) == "running", for_s=2.0, saw=bench.output)
    supervisor.resume()
    assert outcomes(bench.wait_for(run, "completed")) == ["completed"]


def test_everybody_names_a_worker_that_was_stopped(bench: Bench) -> None:
    run = bench.queue(TRAINER)
    worker = bench.worker()
    bench.wait_for_log(run, SAVED)
    stop_at_rest(bench, worker)
    wait_until(lambda: state(worker.pid) == "T")
    told = bench.backprop("run", "--min-free-ram", "0", TRAINER).stderr
    assert f"it is stopped (Ctrl-Z); bring it back with fg or kill -CONT {worker.pid}" in told
    assert f"kill -9 {worker.pid}" in told
    for words in (("status",), ("why", run), ("doctor",)):
        assert "has not ticked for" in bench.backprop(*words).stdout, words
    shown = json.loads(bench.backprop("status", "--json").stdout)
    assert [one["silent_s"] is not None for one in shown["workers"]] == [True]
    assert len(json.loads(bench.backprop("why", run, "--json").stdout)["silent_workers"]) == 1
    assert bench.backprop("stop", run).returncode == 0
    bench.exit_record(run)
    worker.send_signal(signal.SIGCONT)
    bench.wait_for(run, "stopped")
    assert bench.backprop("status").stdout.count("has not ticked") == 0


def test_a_worker_that_hangs_in_a_call_is_named_too(bench: Bench) -> None:
    run = bench.queue(TRAINER)
    worker = bench.worker(env={"BACKPROP_FAILPOINT": "claimed:sleep:60000"})
    bench.wait_for(run, "running")
    command = impatient("worker.executor.heartbeat.SILENT_S=1")
    wait_until(lambda: "it hangs" in bench.backprop("status", command=command).stdout)
    worker.kill()


def test_ctrl_z_waits_for_the_end_of_a_transaction(bench: Bench) -> None:
    run = bench.queue(TRAINER, "--", "--steps", "5")
    worker = bench.worker(env={"BACKPROP_FAILPOINT": "settling:sleep:1500"}, as_job=True)
    wait_until(lambda: stays_locked(bench))
    worker.send_signal(signal.SIGTSTP)
    wait_until(lambda: state(worker.pid) == "T")
    assert not is_locked(bench)
    assert bench.backprop("list", timeout_s=20).returncode == 0
    after = bench.queue(TRAINER, "--", "--steps", "5")
    assert bench.state(run) == "completed"
    assert bench.state(after) == "queued"
    worker.send_signal(signal.SIGCONT)
    bench.wait_for(after, "completed")


def test_a_worker_frozen_in_a_transaction_is_named_to_those_who_wait(bench: Bench) -> None:
    bench.queue(TRAINER, "--", "--steps", "5")
    worker = bench.worker(env={"BACKPROP_FAILPOINT": "settling:stop"})
    wait_until(lambda: state(worker.pid) == "T")
    waiting = impatient("Database.patience_s=1")
    done = bench.backprop("run", "--min-free-ram", "0", TRAINER, command=waiting)
    assert done.returncode == 9, done.stderr
    assert "has not ticked for" in done.stderr
    assert f"kill -9 {worker.pid}" in done.stderr
    worker.kill()
    worker.wait()
    bench.queue(TRAINER, "--hold")


@pytest.mark.parametrize("what", ["", "1e3 nonsense"])
def test_a_worker_that_leaves_no_note_is_never_called_silent(bench: Bench, what: str) -> None:
    """As one of an older version."""
    worker = bench.worker()
    wait_until(lambda: "ready" in bench.output())
    stop_at_rest(bench, worker)
    (lock,) = bench.home.glob("locks/worker-*.lock")
    lock.write_text(what)
    command = impatient("worker.executor.heartbeat.SILENT_S=0")
    assert "has not ticked" not in bench.backprop("status", command=command).stdout
    worker.send_signal(signal.SIGCONT)
