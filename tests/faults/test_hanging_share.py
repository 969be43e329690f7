"""A share that hangs keeps the runs waiting whose files are on it, and neither the worker nor any other run."""

import signal
import threading
import time
from pathlib import Path

import pytest

from backprop.worker.checkpoints.background import BackgroundJob, BackgroundJobs
from backprop.worker.user_files import MOST_EACH, NOT_YET, UserFiles, within
from tests.support.fake_gpus import impatient
from tests.support.fakes.hanging_share import HangingShare, build
from tests.support.harness import QUIET_LIMITS, Bench, wait_until

QUICK = (
    "worker.loop.TICK_LIVE_S=0.1",
    "worker.checkpoints.scanner.SCAN_EVERY_S=0.1",
    "worker.segments.live.READ_EVERY_S=0.1",
)
SAVES = """
    import json, os, sys, time, zipfile
    out, go, announces = sys.argv[1:]
    with zipfile.ZipFile(f"{out}/1.npz", "w") as archive:
        archive.writestr("weights", b"w" * 5000)
    print(json.dumps({"step": 1}), flush=True)
    if announces == "yes":
        print(json.dumps({"event": "checkpoint_saved", "path": f"{out}/1.npz", "step": 1}), flush=True)
    print("up", flush=True)
    while not os.path.exists(go):
        time.sleep(0.02)
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("hanging"))


@pytest.fixture
def share(bench: Bench, library: Path) -> HangingShare:
    return HangingShare(library, bench.home.parent / "share")


def start(bench: Bench, share: HangingShare, announces: bool, *words: str) -> str:
    """Queue a run that saves on the share and then waits for `go`."""
    bench.script("saves.py", SAVES)
    globs = () if announces else ("--checkpoint-glob", f"{share.folder}/*.npz")
    answer = "yes" if announces else "no"
    return bench.queue(*globs, *words, "saves.py", "--", str(share.folder), str(bench.project / "go"), answer)


def others_run(bench: Bench) -> None:
    """A run whose files are elsewhere starts and ends in time."""
    bench.script("quick.py", "print('quick')")
    begun_s = time.monotonic()
    bench.wait_for(bench.queue("quick.py"), "completed", timeout_s=20)
    assert time.monotonic() - begun_s < 20


@pytest.mark.parametrize("announces", [True, False], ids=["announced", "scanned"])
def test_others_start_and_end_and_the_run_goes_on_once_the_share_answers(
    bench: Bench, share: HangingShare, announces: bool
) -> None:
    run = start(bench, share, announces)
    with share.away():
        worker = bench.worker(command=impatient(*QUICK), env=share.environment("worker"))
        bench.wait_for_log(run, "up")
        assert bench.state(run) == "running"
        # It ends meanwhile. What it saved decides what becomes of it, so it waits.
        (bench.project / "go").touch()
        assert bench.exit_record(run)["exit_code"] == 0
        others_run(bench)
        assert bench.state(run) == "running"
    bench.wait_for(run, "completed")
    assert bench.show(run)["last_checkpoint"] == str(share.folder / "1.npz")
    assert bench.end_worker(worker, signal.SIGINT) == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_a_worker_that_is_to_stop_leaves_what_does_not_answer_to_the_next(
    bench: Bench, share: HangingShare, number: signal.Signals
) -> None:
    run = start(bench, share, False, "--grace-seconds", "1")
    quick = (*QUICK, "worker.segments.tracker.LEAVE_S=1", "worker.checkpoints.manager.PATIENCE_S=1")
    with share.away():
        worker = bench.worker(command=impatient(*quick), env=share.environment("worker"))
        bench.wait_for_log(run, "up")
        worker.send_signal(number)
        assert worker.wait(timeout=30) is not None
        assert bench.state(run) == "running"
    (bench.project / "go").touch()
    assert bench.worker("--drain").wait(timeout=60) == 0
    assert bench.state(run) == "completed"
    assert bench.show(run)["last_checkpoint"] == str(share.folder / "1.npz")


def test_a_queued_run_whose_files_do_not_answer_waits_with_that_reason(
    bench: Bench, share: HangingShare
) -> None:
    """Its checkpoint, or its directory."""
    (share.folder / "first.pt").write_bytes(b"weights")
    bench.script("ready.py", "print('ready')")
    run = bench.queue("--resume-from", str(share.folder / "first.pt"), "ready.py")
    (share.folder / "there.py").write_text("print('there')")
    there = bench.backprop("run", "-q", *QUIET_LIMITS, "there.py", cwd=share.folder).stdout.strip()
    with share.away():
        bench.worker(command=impatient(*QUICK), env=share.environment("worker"))
        others_run(bench)
        for waiting in (run, there):
            wait_until(
                lambda run=waiting: "does not answer" in str(bench.column(run, "reason")), saw=bench.runs
            )
            assert str(bench.column(waiting, "reason")).startswith("waiting for its files: ")
            assert bench.state(waiting) == "queued"
    bench.wait_for(run, "completed")
    bench.wait_for(there, "completed")


def test_one_share_keeps_few_threads_and_other_places_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    back, files, made = threading.Event(), UserFiles(), list[int]()
    monkeypatch.setattr("backprop.worker.user_files._shares", lambda: ("/mnt/nas",))

    def hangs() -> int:
        made.append(1)
        back.wait(30)
        return 7

    for number in range(10):
        assert files.ask(number, hangs, "/mnt/nas/out", 0.02) is NOT_YET
    assert len(made) == MOST_EACH
    assert files.ask("else", lambda: 3, "/home/me") == 3
    assert files.has_overdue()
    back.set()
    answers = [7, 7]
    wait_until(lambda: [files.ask(number, hangs, "/mnt/nas/out") for number in range(2)] == answers)
    assert not files.has_overdue()


def test_what_is_looked_at_is_closed_once_the_look_is_over() -> None:
    back, files, closed = threading.Event(), UserFiles(), list[str]()
    assert files.ask("a", lambda: back.wait(30), patience_s=0.01) is NOT_YET
    files.forget("a", lambda: closed.append("a"))
    files.forget("b", lambda: closed.append("b"))
    files.begin_tick()
    assert closed == ["b"]
    back.set()
    wait_until(lambda: (files.begin_tick(), closed == ["b", "a"])[1])


def test_an_error_of_a_look_is_the_askers() -> None:
    def fails() -> None:
        raise OSError(5, "Input/output error", "/mnt/nas/x")

    with pytest.raises(OSError, match="/mnt/nas/x"):
        UserFiles().ask("a", fails)
    with pytest.raises(TimeoutError):
        within(0.01, lambda: time.sleep(0.2))


def test_a_copy_that_hangs_keeps_back_the_jobs_of_its_own_place() -> None:
    back, jobs, done = threading.Event(), BackgroundJobs(), list[object]()
    jobs.send(BackgroundJob(("a", "copy"), lambda _: back.wait(30), done.append, "/mnt/nas"))
    jobs.send(BackgroundJob(("b", "copy"), lambda _: "b", done.append, "/mnt/nas"))
    jobs.send(BackgroundJob(("c", "copy"), lambda _: "c", done.append, "/home/me"))
    wait_until(lambda: (jobs.report(), done == ["c"])[1])
    back.set()
    wait_until(lambda: (jobs.report(), done == ["c", True, "b"])[1])
    jobs.close(1.0)


def test_a_slot_is_free_soon_after_the_end_of_a_run_that_printed_a_lot(bench: Bench) -> None:
    """Its 300 MB are read at its end alone: no look is made before."""
    body = """
        import sys
        line = b"epoch 12 step 34567 lr 0.0003 loss 0.123 it/s 45.6 some more text" + chr(10).encode()
        for _ in range(300):
            sys.stdout.buffer.write(line * 15_000)
        sys.stdout.buffer.write(b'{"step": 7}')
    """
    bench.script("prints.py", body)
    bench.script("quick.py", "print('quick')")
    prints = bench.queue("prints.py")
    quick = bench.queue("quick.py")
    bench.worker("--max-parallel", "1", command=impatient("worker.segments.live.READ_EVERY_S=600"))
    ended_s = bench.exit_record(prints)["ended_at_s"]
    bench.wait_for(quick, "completed", timeout_s=30)
    (bench.folder(prints) / "log").unlink()
    assert bench.column(prints, "last_step") == 7
    assert time.time() - ended_s < 30
