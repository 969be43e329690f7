"""A damaged, deleted or locked database: found, set aside, restored, completed from folders; nothing is repeated."""

import fcntl
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from backprop.scheduler.home.layout import Home
from backprop.scheduler.store.connection import Database, open_database
from tests.support import promises as books
from tests.support.harness import SCRIPTS, Bench, alive, program, wait_until
from tests.support.store_rows import SPEC, enqueue_run
from tests.support.variants import some

TRAINER = str(SCRIPTS / "trainer.py")
IMPATIENT = (sys.executable, str(SCRIPTS / "impatient.py"))
SAVED = "checkpoint_saved"
PAGE = 4096
Damage = Callable[[Path], None]


def root_page(path: Path, table: str) -> int:
    """Where a table begins in the file, in bytes."""
    database = sqlite3.connect(path)
    (page,) = database.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (table,)).fetchone()
    database.close()
    return (int(page) - 1) * PAGE


def overwrite(path: Path, at: int, data: bytes) -> None:
    """In place: the file stays the one that others have open."""
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)


def zeroed_page(path: Path) -> None:
    overwrite(path, root_page(path, "runs"), bytes(PAGE))


def random_page(path: Path) -> None:
    overwrite(path, root_page(path, "segments"), random.Random(1).randbytes(PAGE))


def page_over_page(path: Path) -> None:
    there = root_page(path, "segments")
    overwrite(path, root_page(path, "runs"), path.read_bytes()[there : there + PAGE])


def cut_short(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2 // PAGE * PAGE)


def flipped_header(path: Path) -> None:
    head = bytearray(path.read_bytes()[:100])
    for at in (17, 20, 21, 30):
        head[at] ^= 0x55
    overwrite(path, 0, bytes(head))


def emptied(path: Path) -> None:
    os.truncate(path, 0)


def text(path: Path) -> None:
    size = path.stat().st_size
    os.truncate(path, 0)
    overwrite(path, 0, b"nothing to see here\n" * (size // 20))


def deleted(path: Path) -> None:
    path.unlink()


AT_REST = [zeroed_page, random_page, page_over_page, cut_short, flipped_header, emptied, text, deleted]
AT_WORK = [flipped_header, cut_short, emptied, text, deleted]


def name_of(damage: Damage) -> str:
    return damage.__name__


FOUND = [
    pytest.param(damage, kept, id=f"{damage.__name__}-{'backup' if kept else 'no backup'}", marks=marks)
    for number, damage in enumerate(AT_REST)
    for kept, marks in ((number % 2 == 0, ()), (number % 2 == 1, pytest.mark.long))
]
"""Each with and without a backup, half of them behind the marker."""


def said(bench: Bench) -> str:
    return "".join(bench.output(number) for number in range(len(bench.workers)))


@dataclass(frozen=True)
class Night:
    """A home of three runs: one is done, one has a segment behind it, one waits. A backup knows the first alone."""

    bench: Bench
    done: str
    begun: str
    waiting: str
    last: str


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Night]:
    bench = Bench(tmp_path_factory.mktemp("night"))
    try:
        done = bench.queue(TRAINER, "--", "--steps", "5")
        bench.worker("--drain").wait(timeout=60)
        words = ("-m", "0.01", "--max-segments", "1", "--grace-seconds", "20")
        begun = bench.queue(TRAINER, *words, "--", "--steps", "100")
        bench.worker("--drain").wait(timeout=60)
        assert bench.state(begun) == "timeboxed"
        last = bench.show(begun)["last_checkpoint"]
        yield Night(bench, done, begun, bench.queue(TRAINER, "--", "--steps", "5"), last)
    finally:
        bench.close()


@pytest.mark.parametrize(("damage", "with_backup"), FOUND)
def test_damage_found_at_a_workers_start(
    bench: Bench, night: Night, damage: Damage, with_backup: bool
) -> None:
    shutil.copytree(night.bench.home, bench.home)
    if not with_backup:
        shutil.rmtree(bench.home / "backups")
    starts = night.bench.project / "starts"
    before = starts.read_text()
    damage(bench.home / "backprop.db")
    assert bench.worker("--drain").wait(timeout=60) == 0
    states = {row["id"]: row["state"] for row in books.rows(bench.home, "runs")}
    assert states == {night.done: "completed", night.begun: "timeboxed", night.waiting: "completed"}, said(
        bench
    )
    assert books.unsound(bench.home) == []
    assert bench.show(night.begun)["last_checkpoint"] == night.last
    assert starts.read_text() == f"{before}1 0\n", "what had ended was not run again"
    aside = list(bench.home.glob("backprop.db.damaged-*"))
    assert len(aside) == (damage not in (deleted, emptied)), said(bench)
    assert not list(bench.home.glob("backprop.db-*")), "and no journal of it lies beside the new one"


@pytest.mark.parametrize("later", [(), ("later",)], ids=["nothing saved since", "more saved since"])
def test_what_a_worker_had_heard_before_it_lost_the_database_is_heard_again(
    bench: Bench, later: tuple[str, ...]
) -> None:
    """How far it had read in the log says nothing of a database that was put together anew."""
    script = bench.script(
        "saver.py",
        """
        import json, os, sys, time
        from pathlib import Path
        def save(name):
            Path(name).write_text("some state")
            print(json.dumps({"event": "checkpoint_saved", "path": name}), flush=True)
        if begin := os.environ.get("BACKPROP_RESUME_FROM"):
            Path("begun").write_text(os.environ["BACKPROP_SEGMENT"] + " " + Path(begin).name)
            sys.exit(0)
        save("early")
        while not Path("go").exists():
            time.sleep(0.02)
        for name in sys.argv[1:]:
            save(name)
        sys.exit(75)
        """,
    )
    run = bench.queue(str(script), "--", *later)
    worker = bench.worker("--drain")
    wait_until(lambda: books.rows(bench.home, "checkpoints"))
    worker.send_signal(signal.SIGSTOP)
    (bench.project / "go").touch()
    bench.exit_record(run)
    (bench.home / "backprop.db").unlink()
    worker.send_signal(signal.SIGCONT)
    assert worker.wait(timeout=60) == 0, said(bench)
    assert bench.state(run) == "completed", said(bench)
    assert (bench.project / "begun").read_text() == f"2 {(later or ('early',))[0]}", said(bench)


def test_deleted_between_a_look_and_a_write(bench: Bench) -> None:
    """SQLite alone notices, when it is about to write; the worker repairs, and settles then."""
    run = bench.queue(TRAINER, "--", "--steps", "3")
    worker = bench.worker("--drain", env={"BACKPROP_FAILPOINT": "heard:stop"}, forked=False)
    for deleted_now in (True, False):
        os.waitid(os.P_PID, worker.pid, os.WSTOPPED)
        if deleted_now:
            (bench.home / "backprop.db").unlink()
        worker.send_signal(signal.SIGCONT)
    assert worker.wait(timeout=60) == 0, said(bench)
    assert "was deleted or replaced while it was open" in said(bench)
    assert bench.state(run) == "completed", said(bench)


@pytest.mark.parametrize("damage", some(AT_WORK, 2), ids=name_of)
def test_damage_while_a_segment_runs(bench: Bench, damage: Damage) -> None:
    """The segment notices nothing; what was done stays done; what waits is started."""
    done = bench.queue(TRAINER, "--", "--steps", "5")
    bench.worker("-p", "1", command=(*IMPATIENT, "worker.loop.RECONCILE_EVERY_S=1", "--"))
    bench.wait_for(done, "completed")
    running = bench.queue(TRAINER, "--", "--steps", "300")
    bench.wait_for_log(running, SAVED)
    waiting = bench.queue(TRAINER, "--", "--steps", "5")
    leader = bench.leader(running)
    damage(bench.home / "backprop.db")
    assert alive(leader)
    assert bench.backprop("list").returncode in (0, 8), "it says what is to be done, or finds nothing"
    states: dict[str, str] = {}

    def all_completed() -> bool:
        states.clear()
        try:
            states.update({str(row["id"]): str(row["state"]) for row in books.rows(bench.home, "runs")})
        except sqlite3.Error:
            return False
        return [states.get(run) for run in (done, running, waiting)] == ["completed"] * 3

    wait_until(all_completed, timeout_s=90, saw=lambda: f"{states} {said(bench)}")
    assert (bench.project / "starts").read_text().splitlines() == ["1 0"] * 3, "nothing was run again"
    assert not (bench.project / "doubles").exists()
    assert books.unsound(bench.home) == []


def test_a_worker_notices_an_emptied_database_by_itself(bench: Bench) -> None:
    """Nobody types a command, which would put the tables back."""
    bench.worker("-p", "1", command=(*IMPATIENT, "worker.loop.RECONCILE_EVERY_S=1", "--"))
    running = bench.queue(TRAINER, "--", "--steps", "100")
    bench.wait_for_log(running, SAVED)
    emptied(bench.home / "backprop.db")
    wait_until(lambda: "put back from its folder" in said(bench), saw=lambda: said(bench))
    bench.wait_for(running, "completed")
    assert (bench.project / "starts").read_text().splitlines() == ["1 0"], "nothing was run again"
    assert "Traceback" not in said(bench)


def test_a_killed_repair_is_done_by_the_next_worker(bench: Bench) -> None:
    run = bench.queue(TRAINER, "--", "--steps", "5")
    bench.worker("--drain").wait(timeout=60)
    emptied(bench.home / "backprop.db")
    overwrite(bench.home / "backprop.db", 0, b"x" * 5000)
    killed = bench.worker("--drain", env={"BACKPROP_FAILPOINT": "set aside:kill"})
    assert killed.wait(timeout=60) == -signal.SIGKILL
    assert not (bench.home / "backprop.db").exists()
    assert bench.worker("--drain").wait(timeout=60) == 0
    assert "restored from" in said(bench)
    assert bench.state(run) == "completed"


def test_a_damaged_backup_is_passed_over(bench: Bench) -> None:
    run = bench.queue(TRAINER, "--", "--steps", "5")
    bench.worker("--drain").wait(timeout=60)
    (good,) = (bench.home / "backups").glob("backprop-*.db")
    newer = good.with_name("backprop-99990101-000000.db")
    newer.write_bytes(good.read_bytes()[: 3 * PAGE])
    cut_short(bench.home / "backprop.db")
    assert bench.worker("--drain").wait(timeout=60) == 0
    assert f"restored from {good}" in said(bench)
    assert bench.state(run) == "completed"
    assert newer.exists(), "nothing of the user's is deleted"


def test_a_segment_that_a_backup_takes_for_alive_is_ended(bench: Bench) -> None:
    """Its promises would hold back other runs for ever; what it said after the backup counts."""
    run = bench.queue(TRAINER, "-m", "0.03", "--at-timebox", "end", "--", "--steps", "120")
    bench.worker("-p", "1")
    wait_until(lambda: bench.column(run, "last_step"))
    old = bench.home / "backups" / "backprop-99990101-000000.db"
    bench_copy(bench.home / "backprop.db", old)
    bench.wait_for(run, "completed")
    deleted(bench.home / "backprop.db")
    wait_until(lambda: f"restored from {old}" in said(bench), saw=lambda: said(bench))
    bench.wait_for(run, "completed")
    segments = books.rows(bench.home, "segments")
    assert [one["number"] for one in segments if one["ended_at_s"] is None] == []
    told = [row["path"] for row in books.rows(bench.home, "checkpoints")]
    assert len(told) == len(set(told))
    last = json.loads([line for line in bench.log(run).splitlines() if SAVED in line][-1])
    assert str(bench.project / last["path"]) in told


def test_a_segment_without_an_order_that_a_backup_takes_for_alive_is_ended(bench: Bench) -> None:
    """Its start failed on a full disk, right after the backup; the run has gone on since."""
    run = bench.queue(TRAINER, "--", "--steps", "5")
    worker = bench.worker()
    bench.wait_for(run, "completed")
    assert bench.end_worker(worker) == 0
    (bench.home / "runs" / run / "1").rename(bench.home / "runs" / run / "2")
    outcome = bench.home / "runs" / run / "outcome.json"
    outcome.write_text(json.dumps(json.loads(outcome.read_text()) | {"segment": 2}))
    older = sqlite3.connect(bench.home / "backprop.db")
    with older:
        older.execute("UPDATE runs SET state = 'running', worker = 'gone', ended_at_s = NULL")
        older.execute("UPDATE segments SET ended_at_s = NULL, outcome = NULL, running_s = NULL")
    older.close()
    bench.worker("--drain")
    wait_until(lambda: bench.state(run) == "completed")
    assert [one["outcome"] for one in bench.show(run)["segments"]] == ["recovered", "recovered"]
    assert None not in [one["ended_at"] for one in bench.show(run)["segments"]]


def bench_copy(source: Path, target: Path) -> None:
    """A whole copy beside writers."""
    target.parent.mkdir(exist_ok=True, mode=0o700)
    database = sqlite3.connect(source, timeout=30)
    database.execute("VACUUM INTO ?", (str(target),))
    database.close()


def test_a_lock_held_for_long_disturbs_no_segment_and_nothing_is_lost(bench: Bench) -> None:
    """Eight seconds, longer than SQLite waits by itself: the segment ends on time, and is settled afterwards."""
    run = bench.queue(TRAINER, "-m", "0.03", "--at-timebox", "end", "--", "--steps", "120")
    bench.worker()
    bench.wait_for_log(run, SAVED)
    holder = sqlite3.connect(bench.home / "backprop.db", timeout=30, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    late = subprocess.Popen(
        [str(Path(sys.executable).parent / "backprop"), "stop", run], env=bench.environment, cwd=bench.project
    )
    end_s = time.monotonic() + 8
    record = bench.exit_record(run)
    assert record["asked"] == "timebox"
    wait_until(lambda: time.monotonic() > end_s)
    holder.execute("COMMIT")
    holder.close()
    assert late.wait(timeout=60) in (0, 10), "the run may have moved on"
    seen = bench.wait_for(run, "completed", "stopped")
    assert seen["segments"][0]["running_s"] < 20
    assert not (bench.project / "doubles").exists()


def waits_s(database: Database, count: int, pause_s: float) -> list[float]:
    """How long `count` ordinary verbs take beside others, sorted."""
    taken: list[float] = []
    for number in range(count):
        began_s = time.monotonic()
        enqueue_run(database, f"n{number}", "x", SPEC, 1.0, "queued")
        taken.append(time.monotonic() - began_s)
        time.sleep(pause_s)
    return sorted(taken)


def test_a_writer_without_pauses_starves_nobody(database: Database) -> None:
    """It leaves gaps of some microseconds: SQLite's own ten looks a second would take half a minute to hit one."""
    enqueue_run(database, "heard", "x", SPEC, 1.0, "queued")
    words = [*program("database_hog"), str(database.home.root), "90", "0"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as hog:
        try:
            assert hog.stdout is not None
            assert hog.stdout.readline() == "ready\n"
            taken = waits_s(database, 8, 0.05)
        finally:
            hog.kill()
    # Generous, for a loaded machine: tenths of a second each on a quiet one.
    assert sum(taken) < 40.0, taken


def test_writers_that_pause_as_ours_do_starve_nobody(database: Database) -> None:
    """Six writers with a transaction of 5 ms each 0.2 s, five times as often as a segment's events are stored."""
    enqueue_run(database, "heard", "x", SPEC, 1.0, "queued")
    hogs = [
        subprocess.Popen(
            [*program("database_hog"), str(database.home.root), "6", "0.2"],
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(6)
    ]
    for hog in hogs:
        assert hog.stdout is not None
        assert hog.stdout.readline() == "ready\n"
    taken = waits_s(database, 40, 0.1)
    for hog in hogs:
        hog.communicate(timeout=90)
        assert hog.returncode == 0
    # Generous, for a loaded machine: a starved writer waits until the others have ended.
    assert taken[int(0.95 * len(taken))] < 2.0, taken
    check = open_database(Home(database.home.root))
    assert check.integrity_problem() is None
    check.close()


def test_a_repair_that_cannot_be_made_now_is_made_later(bench: Bench) -> None:
    """An older copy lies there, and somebody else holds the right to repair for longer than a worker waits for it."""
    first = bench.queue(TRAINER, "--", "--steps", "3")
    bench.worker("--drain").wait(timeout=60)
    copy = bench.project / "older.db"
    shutil.copyfile(bench.home / "backprop.db", copy)
    patient = ("worker.loop.RECONCILE_EVERY_S=1", "worker.maintenance.recovery.PATIENCE_S=0.5")
    bench.worker(command=(*IMPATIENT, *patient, "--"))
    wait_until(lambda: "ready" in bench.output(1))
    with (bench.home / "locks" / "recovery.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        overwrite(bench.home / "backprop.db", 0, copy.read_bytes())
        wait_until(lambda: "another worker has been repairing" in bench.output(1), saw=lambda: said(bench))
    later = bench.queue(TRAINER, "--", "--steps", "3")
    bench.wait_for(later, "completed")
    assert bench.state(first) == "completed"
    assert "Traceback" not in bench.output(1)
