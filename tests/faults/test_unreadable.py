"""What cannot be read or written for a while: nothing is lost by it, nothing is repeated, and nobody else waits."""

import signal
import threading
from pathlib import Path

import pytest

from backprop.worker.checkpoints.background import BackgroundJob, BackgroundJobs
from backprop.worker.checkpoints.candidate import writer_exit
from backprop.worker.executor.segment_files import ExitRecord
from tests.support.fake_gpus import impatient
from tests.support.harness import COMMAND, Bench, wait_until, without_roots_rights

ONCE = """
    import os, sys, time
    with open("starts", "a") as file:
        file.write(os.environ["BACKPROP_SEGMENT"] + "\\n")
    print("up", flush=True)
    while not os.path.exists("go"):
        time.sleep(0.02)
"""


def starts(bench: Bench) -> list[str]:
    return (bench.project / "starts").read_text().split()


def test_a_home_that_is_away_while_a_run_ends_costs_neither_the_run_nor_a_flood_of_words(
    bench: Bench,
) -> None:
    bench.script("once.py", ONCE)
    run = bench.queue("once.py")
    bench.worker(command=(*without_roots_rights(), str(COMMAND)))
    bench.wait_for_log(run, "up")
    leader = bench.leader(run)
    bench.home.chmod(0)
    try:
        (bench.project / "go").touch()
        wait_until(lambda: not Path(f"/proc/{leader}").exists())
        wait_until(lambda: "cannot be looked at" in bench.output(), saw=bench.output)
        # Its second tick in trouble is a second after the first, and so on.
        wait_until(lambda: bench.output().count("the worker continues") >= 2, saw=bench.output)
    finally:
        bench.home.chmod(0o700)
    bench.wait_for(run, "completed")
    assert starts(bench) == ["1"]
    assert len(bench.output().splitlines()) < 100


def test_an_end_that_cannot_be_recorded_yet_is_waited_for(bench: Bench) -> None:
    """Nobody but the supervisor knows how it ended. It is late, but there is nothing else for it to do."""
    bench.script("once.py", ONCE)
    run = bench.queue("once.py", "-m", "0.05", "--at-timebox", "end", "--grace-seconds", "1")
    quick = ("LINGER_S=0.1", "MARGIN_S=0.1", "REPLACE_AFTER_S=0.5")
    bench.worker(command=impatient(*(f"worker.segments.supervisor_watchdog.{one}" for one in quick)))
    bench.wait_for_log(run, "up")
    in_the_way = bench.folder(run) / "exit.json.tmp"
    in_the_way.mkdir()
    (bench.project / "go").touch()
    wait_until(lambda: "s late" in bench.output(), saw=bench.output)
    later = bench.queue("-n", "later", "once.py")
    bench.wait_for(later, "completed")
    assert bench.state(run) == "running"
    in_the_way.rmdir()
    bench.wait_for(run, "completed")
    assert starts(bench) == ["1", "1"]
    assert "replaced" not in bench.output()


def test_an_events_file_that_cannot_be_read_does_not_keep_a_run_alive(bench: Bench) -> None:
    body = "import os\nos.close(os.open(os.environ['BACKPROP_EVENTS'], os.O_CREAT | os.O_WRONLY, 0))\nprint('up')\n"
    bench.script("train.py", body)
    run = bench.queue("train.py")
    command = (*without_roots_rights(), *impatient("worker.segments.live.UNREADABLE_S=0.5"))
    assert bench.worker("--drain", command=command).wait(timeout=60) == 0
    assert bench.state(run) == "completed"
    assert "continuing without files that cannot be read" in bench.output()
    assert "events.jsonl (Permission denied)" in bench.output()


def test_a_third_ctrl_c_leaves_what_cannot_be_settled_to_the_next_worker(bench: Bench) -> None:
    bench.script("train.py", "import os\nos.close(os.open(os.environ['BACKPROP_EVENTS'], os.O_CREAT, 0))\n")
    bench.queue("train.py")
    worker = bench.worker(command=(*without_roots_rights(), str(COMMAND)))
    wait_until(lambda: "Permission denied" in bench.output(), saw=bench.output)
    for said in ("asked to checkpoint", "leaves them to the next worker"):
        worker.send_signal(signal.SIGINT)
        wait_until(lambda said=said: said in bench.output(), saw=bench.output)
    worker.send_signal(signal.SIGINT)
    assert worker.wait(timeout=30) == 0


def test_lock_files_deleted_under_a_live_run_do_not_start_it_twice(bench: Bench) -> None:
    """Somebody tidied up: `find ~/.backprop -type f -empty -delete`."""
    bench.script("once.py", ONCE.replace('print("up", flush=True)', ""))
    run = bench.queue("once.py")
    bench.worker()
    wait_until((bench.project / "starts").exists)
    leader = bench.leader(run)
    for path in bench.home.rglob("*"):
        if path.is_file() and path.stat().st_size == 0 and "locks" not in path.parts:
            path.unlink()
    bench.script("after.py", "")
    after = bench.queue("after.py")
    bench.wait_for(after, "completed")  # several looks, in which nothing may happen
    assert "a new one" not in bench.output()
    bench.workers[0].kill()
    bench.workers[0].wait()
    bench.worker()
    wait_until(lambda: "a new one" in bench.output(1), saw=bench.output)
    assert bench.leader(run) == leader
    assert starts(bench) == ["1"]
    (bench.project / "go").touch()
    # Its end may have been seen by nobody, then there is a second segment: after the first.
    bench.wait_for(run, "completed")
    assert "lost" not in bench.output()


def test_a_log_that_is_long_at_the_end_is_heard_to_its_end_in_parts(bench: Bench) -> None:
    body = """
        import json
        for step in range(2000):
            print("x" * 100)
            print(json.dumps({"step": step, "loss": 1.0}))
        open("last.ckpt", "w").write("it")
        print(json.dumps({"event": "checkpoint_saved", "path": "last.ckpt", "step": step}))
    """
    bench.script("train.py", body)
    run = bench.queue("train.py")
    command = impatient("worker.segments.live.FINAL_BYTES=20000", "worker.segments.live.READ_EVERY_S=60")
    assert bench.worker("--drain", command=command).wait(timeout=60) == 0
    seen = bench.show(run)
    assert (seen["state"], seen["last_step"]) == ("completed", 1999)
    assert seen["last_checkpoint"].endswith("last.ckpt")


def test_a_launcher_that_outlives_the_process_that_was_killed_tells_by_its_code() -> None:
    def killed(**changes: object) -> bool:
        return writer_exit(ExitRecord(ended_at_s=1.0, **changes)).killed  # pyright: ignore[reportArgumentType]

    assert killed(exit_code=137)
    assert killed(exit_code=1)
    assert killed(signal=9)
    assert not killed(exit_code=0)
    assert not killed(exit_code=75), "run me again"
    assert not killed(exit_code=1, asked="timebox"), "it was asked, and had its grace"


def test_no_thread_to_be_had_now_is_one_to_be_had_later(monkeypatch: pytest.MonkeyPatch) -> None:
    errands, done = BackgroundJobs(), list[object]()
    with monkeypatch.context() as scarce:
        scarce.setattr(threading.Thread, "start", _refuse)
        errands.send(BackgroundJob(("r1", "copy"), lambda _: "copied", done.append))
        errands.report()
    assert done == []

    def reported() -> bool:
        errands.report()
        return done == ["copied"]

    wait_until(reported)
    errands.close(1.0)


def _refuse(_: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


def test_a_leader_has_no_descriptor_but_its_own_and_no_deaf_signal(bench: Bench) -> None:
    """Of supervisors that were just started, and of those that had waited."""
    bench.script(
        "tell.sh", "#!/bin/sh\nls -l /proc/self/fd | sed 's/.*[0-9] //'\ngrep SigIgn /proc/self/status\n"
    )
    (bench.project / "tell.sh").chmod(0o755)
    deaf = ("env", "--ignore-signal=PROF", "--ignore-signal=URG", str(COMMAND))
    bench.worker(command=deaf)
    wait_until(lambda: "ready" in bench.output())
    for _ in range(3):
        run = bench.queue("--", "./tell.sh")
        bench.wait_for(run, "completed")
        said = bench.log(run)
        assert "socket" not in said, said
        ignored = int(said.partition("SigIgn:\t")[2].split()[0], 16)
        assert ignored & ~(3 << 31) == 0, "but 32 and 33, which glibc keeps for itself"
