"""`rm`, `prune`, old logs: what is removed is gone for good, what is the user's stays, a crash leaves nothing odd."""

import fcntl
import gzip
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from backprop.scheduler.home.layout import Home
from backprop.scheduler.lifecycle import FINAL, State
from backprop.scheduler.store.connection import Database
from backprop.scheduler.store.reads import queries
from backprop.scheduler.store.writes import deletion
from backprop.worker.maintenance import disk_usage, log_archive
from tests.support.harness import QUIET_LIMITS, Bench, wait_until
from tests.support.store_rows import add_run

SAVES = """
    import json
    print("x" * 100_000)
    open("mine.ckpt", "w").write("precious")
    print(json.dumps({"event": "checkpoint_saved", "path": "mine.ckpt", "step": 3}), flush=True)
"""


def finished(bench: Bench, *names: str) -> list[str]:
    """Runs that have completed, their ids."""
    bench.script("train.py", SAVES)
    runs = [bench.queue("-n", name, "train.py") for name in names]
    assert bench.worker("--drain").wait(timeout=60) == 0, bench.output()
    return runs


def folders(bench: Bench) -> set[str]:
    return {path.name for path in (bench.home / "runs").iterdir()}


def ids(bench: Bench) -> set[str]:
    return {str(run["id"]) for run in bench.runs()}


def test_rm_takes_what_is_ours_and_leaves_what_is_the_users(bench: Bench) -> None:
    gone, stays = finished(bench, "a", "b")
    (bench.home / "runs" / gone / "out").symlink_to(bench.project)
    done = bench.backprop("rm", gone)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"removed a ({gone})\n"
    assert folders(bench) == ids(bench) == {stays}
    assert (bench.project / "mine.ckpt").read_text() == "precious"
    assert (bench.project / "train.py").exists()
    assert bench.worker("--drain").wait(timeout=60) == 0
    assert ids(bench) == {stays}, "no worker puts it back"
    assert bench.backprop("rm", gone).returncode == 3


def test_a_queued_run_is_removed_and_never_starts_and_a_live_one_is_refused(bench: Bench) -> None:
    bench.script("train.py", "import time; print('up', flush=True); time.sleep(60)")
    live = bench.queue("train.py")
    bench.worker("-p", "1")
    bench.wait_for_log(live, "up")
    queued = bench.queue("-n", "later", "train.py")
    refused = bench.backprop("rm", live)
    assert refused.returncode == 10
    assert "backprop stop" in refused.stderr
    assert bench.backprop("rm", queued).returncode == 0
    assert bench.backprop("stop", live).returncode == 0
    bench.wait_for(live, "stopped")
    assert ids(bench) == folders(bench) == {live}


def test_runs_that_share_a_batch_leave_and_do_not_come_back(bench: Bench) -> None:
    bench.script("train.py", "print(1)")
    done = bench.backprop(
        "run", "--snapshot-code", "--group", "g", "--grid", "x=1..5", "train.py", "--", "{x}"
    )
    assert done.returncode == 0, done.stderr
    first, *rest = sorted(ids(bench))
    assert bench.backprop("rm", first).returncode == 0
    assert list((bench.home / "batches").rglob("train.py")), "the others need the code that they share"
    assert bench.backprop("rm", "--group", "g").returncode == 0
    assert ids(bench) == set()
    assert rest
    assert list((bench.home / "batches").iterdir()) == []
    assert bench.worker("--drain").wait(timeout=60) == 0
    assert ids(bench) == set()


def test_what_a_waiting_run_depends_on_stays(bench: Bench) -> None:
    (parent,) = finished(bench, "parent")
    child = bench.queue("-n", "child", "--after", parent, "train.py")
    refused = bench.backprop("rm", parent)
    assert refused.returncode == 10
    assert f"run {parent} is needed by {child}" in refused.stderr
    assert bench.backprop("prune", "--keep-last", "0").returncode == 10
    assert ids(bench) == folders(bench) == {parent, child}
    assert bench.backprop("rm", parent, child).returncode == 0, "both together may go"
    assert ids(bench) == set()


def test_killed_between_folder_and_row_it_is_removed_by_the_next_attempt(bench: Bench) -> None:
    run, other = finished(bench, "a", "b")
    killed = bench.backprop("rm", run, env={"BACKPROP_FAILPOINT": "out of sight:kill"})
    assert killed.returncode == -signal.SIGKILL
    assert ids(bench) == {run, other}, "the row is still there"
    assert run not in folders(bench)
    assert bench.worker("--drain").wait(timeout=60) == 0
    assert bench.backprop("rm", run).returncode == 0
    assert ids(bench) == folders(bench) == {other}


def test_a_failure_on_the_way_leaves_everything_in_place(bench: Bench) -> None:
    runs = finished(bench, "a", "b")
    failed = bench.backprop("rm", *runs, env={"BACKPROP_FAILPOINT": "out of sight:raise"})
    assert failed.returncode == 9
    assert "nothing was removed" in failed.stderr
    assert ids(bench) == folders(bench) == set(runs)


def test_prune_keeps_the_last_and_the_young(bench: Bench) -> None:
    a, b, c = finished(bench, "a", "b", "c")
    newest = max((a, b, c), key=lambda run: float(str(bench.column(run, "ended_at_s"))))
    assert bench.backprop("prune").returncode == 2, "without a bound it does nothing"
    assert bench.backprop("prune", "--older-than", "1h").stdout.startswith("removed 0 runs")
    told = bench.backprop("prune", "--keep-last", "1", "--dry-run").stdout
    assert told.startswith("would remove 2 runs")
    assert newest not in told
    assert len(ids(bench)) == 3
    assert bench.backprop("prune", "--keep-last", "1", "--state", "failed").stdout.startswith(
        "removed 0 runs"
    )
    assert bench.backprop("prune", "--keep-last", "1").stdout.startswith("removed 2 runs")
    assert ids(bench) == folders(bench) == {newest}


def test_prune_clears_away_what_was_never_queued(bench: Bench) -> None:
    finished(bench, "a")
    old, young = bench.home / "runs" / "old", bench.home / "runs" / "young"
    for folder in (old, young):
        (folder / "code").mkdir(parents=True)
    os.utime(old, (time.time() - 2 * 86400,) * 2)
    assert bench.backprop("prune", "--keep-last", "5").returncode == 0
    assert not old.exists()
    assert young.exists(), "a run may be about to be queued there"


def test_compressed_logs_read_the_same_and_survive_a_lost_database(bench: Bench) -> None:
    (run,) = finished(bench, "a")
    before = bench.backprop("logs", run).stdout
    assert len(before) > 100_000
    done = bench.backprop("prune", "--compress-logs", "--older-than", "0s")
    assert done.stdout.startswith("compressed 1 logs of 1 run")
    assert {path.name for path in bench.folder(run).glob("log*")} == {"log.gz"}
    assert gzip.decompress((bench.folder(run) / "log.gz").read_bytes()).decode() == before
    assert bench.backprop("logs", run).stdout == before
    assert bench.backprop("logs", run, "--segment", "1").stdout == before
    shown = bench.show(run)
    assert shown["segments"][0]["log"] == str(bench.folder(run) / "log.gz")
    assert bench.backprop("prune", "--compress-logs", "--older-than", "0s").stdout.startswith(
        "compressed 0 logs"
    )

    (bench.home / "backprop.db").unlink()
    assert bench.worker("--drain").wait(timeout=60) == 0
    put_back = bench.show(run)
    assert put_back["last_step"] == shown["last_step"] == 3
    assert put_back["last_checkpoint"] == shown["last_checkpoint"]


def test_a_log_that_is_written_to_is_not_compressed(bench: Bench) -> None:
    """A process that outlived its run has its stdout there, and with it the lock on the log."""
    (run,) = finished(bench, "a")
    log = bench.folder(run) / "log"
    handle = os.open(log, os.O_RDWR)
    fcntl.flock(handle, fcntl.LOCK_EX)
    try:
        done = bench.backprop("prune", "--compress-logs", "--older-than", "0s")
    finally:
        os.close(handle)
    assert done.stdout.startswith("compressed 0 logs")
    assert log.exists()


def test_deciding_what_is_old_is_about_ends(database: Database) -> None:
    for number in range(5):
        add_run(database, f"r{number}", State.COMPLETED)
    add_run(database, "queued")
    everything = {f"r{number}" for number in range(5)} | {"queued"}
    assert deletion.outlived(database, everything, None, 0) == ["r0", "r1", "r2", "r3", "r4"]
    assert deletion.outlived(database, everything, None, 3) == ["r3", "r4"]
    assert deletion.outlived(database, everything, 3.0, 0) == [], "all of them ended at 3"
    assert len(deletion.outlived(database, everything, 3.1, 0)) == 5
    assert deletion.outlived(database, {"r1"}, None, 0) == ["r1"]


def test_with_a_run_go_all_rows_of_it_and_a_group_that_is_empty(database: Database) -> None:
    add_run(database, "r1", State.COMPLETED)
    add_run(database, "live", State.RUNNING)
    removed = deletion.remove(database, ["r1", "live", "nobody"])
    assert (removed.ids, removed.moved) == (["r1"], ["live", "nobody"])
    assert queries.run_by_id(database, "r1") is None
    assert queries.segments(database, "r1") == []
    assert queries.run_by_id(database, "live") is not None


def test_logs_and_homes_that_grow_are_pointed_out(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    (run,) = finished(bench, "a")
    home = Home(bench.home)
    assert disk_usage.measure(home, 5.0).sentences() == []
    assert json.loads(bench.backprop("status", "--json").stdout)["warnings"] == []
    with (bench.folder(run) / "log").open("ab") as log:
        log.truncate(2 * disk_usage.GB)  # a hole: no disk is used
    shown: dict[str, Any] = json.loads(bench.backprop("status", "--json").stdout)
    assert f"the log of {run}, segment 1, has 2.0 GB" in shown["warnings"][0]
    assert f"the log of {run}" in bench.backprop("status").stdout
    assert f"the log of {run}" in bench.backprop("doctor").stdout
    monkeypatch.setattr(disk_usage, "LARGE_HOME_BYTES", 1000)
    assert "backprop prune --older-than" in disk_usage.measure(home, 5.0).sentences()[-1]
    assert not disk_usage.measure(home, -1.0).whole


def test_compressing_saves_or_leaves_alone(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"short")
    assert log_archive.compress(tmp_path) == 0
    assert log_archive.log_of(tmp_path).name == "log"
    (tmp_path / "log").write_bytes(b"a line\n" * 10_000)
    assert log_archive.compress(tmp_path) > 60_000
    with log_archive.open_log(tmp_path) as log:
        assert log.read() == b"a line\n" * 10_000
    log_archive.inflate(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["log"]
    assert (tmp_path / "log").read_bytes() == b"a line\n" * 10_000


def test_a_removal_that_fails_leaves_members_of_a_batch_able_to_start(bench: Bench) -> None:
    bench.script("train.py", "print(1)")
    done = bench.backprop("run", "-q", *QUIET_LIMITS, "--group", "g", "--array", "1-3", "train.py")
    assert done.returncode == 0, done.stderr
    failed = bench.backprop("rm", "--group", "g", env={"BACKPROP_FAILPOINT": "out of sight:raise"})
    assert failed.returncode == 9
    assert bench.worker("--drain").wait(timeout=60) == 0
    assert {run["state"] for run in bench.runs()} == {"completed"}


def test_what_was_resumed_since_it_was_chosen_is_not_pruned(database: Database) -> None:
    add_run(database, "ended", State.COMPLETED)
    add_run(database, "resumed")
    removed = deletion.remove(database, ["ended", "resumed"], among=FINAL)
    assert (removed.ids, removed.moved) == (["ended"], ["resumed"])


def test_a_list_of_packages_goes_with_the_last_run_that_names_it(bench: Bench) -> None:
    bench.script("train.py", "print(1)")
    one, two = (bench.queue("--hold", "train.py") for _ in range(2))
    lists = bench.home / "packages"
    wait_until(lambda: all("packages_digest" in str(bench.show(run)["provenance"]) for run in (one, two)))
    (kept,) = lists.iterdir()
    young = lists / f"{'0' * 16}.json"
    young.write_text("{}")
    long_ago_s = time.time() - 2 * 86400
    os.utime(kept, (long_ago_s, long_ago_s))
    assert bench.backprop("rm", one).returncode == 0
    assert kept.exists(), "the other run names it"
    assert bench.backprop("rm", two).returncode == 0
    assert sorted(lists.iterdir()) == [young], "it may be named any moment"
