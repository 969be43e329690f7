"""Checkpoints that no script announces: found on disk once they are complete, each once."""

import os
import pickle
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from backprop.scheduler.store.writes import progress
from backprop.worker.checkpoints import open_files, scanner
from backprop.worker.checkpoints.candidate import WriterExit
from backprop.worker.checkpoints.formats import looks_torn, looks_whole
from backprop.worker.segments.log_reader import LogReader
from tests.support.harness import Bench
from tests.support.store_rows import get
from tests.support.unannounced_run import CLEAN, Watched, names, zip_bytes
from tests.support.watched_checkpoints import looks, until_found

WRITER = """
import sys, time
with open(sys.argv[1], "wb") as file:
    for part in range(int(sys.argv[2])):
        file.write(b"part")
        file.flush()
        print(part, flush=True)
        sys.stdin.readline()
"""


def test_a_file_is_found_once_it_has_stayed_the_same(watched: Watched) -> None:
    watched.start(step_pattern=r"step(\d+)")
    (watched.out / "old.pt").write_text("weights")
    os.utime(watched.out / "old.pt", (1, 1))
    worker = watched.scanner()
    (watched.out / "step7.pt").write_text("weights")
    assert worker.scan() == [], "one look says nothing"
    (found,) = until_found(worker)
    assert (found.record.path, found.record.step) == (str(watched.out / "step7.pt"), 7)
    assert found.record.saved_at_s == pytest.approx((watched.out / "step7.pt").stat().st_mtime, abs=1)
    assert looks(worker) == [], "once, and never the one from before"


def test_a_save_takes_as_long_as_it_is_seen_to_change(watched: Watched) -> None:
    watched.start()
    worker = watched.scanner()
    (watched.out / "at-once.pt").write_text("weights")
    (found,) = until_found(worker)
    assert found.took_s == 0, "it was whole at the first look: nobody knows"
    slow = watched.out / "slow.pt"
    begun_s = time.monotonic()
    with slow.open("w") as file:
        while time.monotonic() - begun_s < 0.6:
            file.write("weights")
            file.flush()
            assert worker.scan() == []
            time.sleep(0.02)
    written_s = time.monotonic() - begun_s
    (found,) = until_found(worker)
    assert 0.3 < found.took_s <= written_s + 0.1
    slow.write_text("other weights")
    (found,) = until_found(worker)
    assert found.took_s < 0.3, "the next save is another one"


def test_what_was_saved_while_the_clock_was_off_is_found(watched: Watched) -> None:
    """Set back when the file was saved, and right again since. What was there before seems to lie ahead."""
    watched.start()
    (watched.out / "old.pt").write_text("weights")
    os.utime(watched.out / "old.pt", (time.time() + 3600,) * 2)
    watched.note_before()
    for name, off_s in (("a.pt", -40), ("copied.pt", -3600)):
        (watched.out / name).write_text(f"weights of {name}")
        os.utime(watched.out / name, (time.time() + off_s,) * 2)
    worker = watched.scanner()
    assert names(until_found(worker)) == ["a.pt"], "not what keeps the time of another file"
    assert names(watched.scanner().final_scan(CLEAN)) == ["a.pt"]


def test_a_file_that_changes_between_looks_is_not_complete(watched: Watched) -> None:
    watched.start()
    worker = watched.scanner()
    for size in range(1, 15):
        (watched.out / "a.pt").write_bytes(b"x" * size)
        assert worker.scan() == []
        time.sleep(0.02)
    assert names(until_found(worker)) == ["a.pt"]


@pytest.mark.parametrize(
    ("content", "taken"), [(zip_bytes(), True), (zip_bytes()[:-9], False), (b"weights", False)]
)
def test_what_is_overwritten_faster_than_it_is_looked_at_is_taken_where_it_shows_its_end(
    watched: Watched, monkeypatch: pytest.MonkeyPatch, content: bytes, taken: bool
) -> None:
    monkeypatch.setattr(scanner, "SETTLED_S", 60.0)
    monkeypatch.setattr(scanner, "RESTLESS_S", 0.2)
    watched.start()
    worker = watched.scanner()
    found: list[scanner.ScannedCheckpoint] = []
    begun_s = time.monotonic()
    while time.monotonic() - begun_s < 0.6:
        (watched.out / "last.pt").write_bytes(content)
        seen = worker.scan()
        assert not seen or time.monotonic() - begun_s >= 0.2, "what may yet stand still is waited for"
        found += seen
        time.sleep(0.02)
    assert bool(found) == taken
    assert all(each.record.refused is None and each.took_s == 0 for each in found)


@pytest.fixture
def slow_writer() -> Iterator[Callable[[Path], "subprocess.Popen[str]"]]:
    """A process that writes a file in place, a part for each line it is sent."""
    started: list[subprocess.Popen[str]] = []

    def start(path: Path) -> "subprocess.Popen[str]":
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), "3"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(writer)
        return writer

    yield start
    for writer in started:
        writer.kill()
        writer.communicate()


def test_what_a_process_of_the_run_still_writes_is_never_taken(
    watched: Watched, slow_writer: Callable[[Path], "subprocess.Popen[str]"]
) -> None:
    watched.start()
    worker, path = watched.scanner(), watched.out / "slow.bin"
    writer = slow_writer(path)
    watched.pids = frozenset({writer.pid})
    assert writer.stdout is not None
    assert writer.stdin is not None
    for part in range(3):
        assert writer.stdout.readline() == f"{part}\n"
        assert path.stat().st_size == 4 * (part + 1)
        assert looks(worker, 0.4) == [], "long unchanged, and half of it"
        writer.stdin.write("\n")
        writer.stdin.flush()
    assert writer.wait(timeout=20) == 0
    assert names(until_found(worker)) == ["slow.bin"]


def test_what_is_open_for_reading_alone_is_complete(watched: Watched) -> None:
    watched.start()
    path = watched.out / "a.pt"
    path.write_text("weights")
    with path.open("rb"):
        assert open_files.open_for_writing([str(path)], [os.getpid()]) == frozenset()
        with path.open("ab"):
            written = open_files.open_for_writing([str(path), str(watched.out), "/nothing"], [os.getpid()])
            assert written == {str(path), str(watched.out)}
    assert os.getpid() in set(open_files.own_processes())


def test_half_of_a_zip_is_not_taken_even_where_nothing_holds_it(watched: Watched) -> None:
    watched.start()
    worker, whole = watched.scanner(), zip_bytes()
    (watched.out / "a.pt").write_bytes(whole[: len(whole) // 2])
    assert looks(worker) == []
    assert worker.final_scan(CLEAN) == []
    (watched.out / "a.pt").write_bytes(whole)
    assert names(until_found(worker)) == ["a.pt"]


def test_a_folder_is_complete_when_what_it_needs_is_there(watched: Watched) -> None:
    watched.start(globs=(f"{watched.out}/checkpoint-*",), needs=("trainer_state.json",))
    worker, folder = watched.scanner(), watched.out / "checkpoint-20"
    folder.mkdir()
    (folder / "optimizer.pt").write_bytes(zip_bytes())
    assert looks(worker, 0.3) == []
    (folder / "trainer_state.json").write_text('{"global_step": ')
    assert looks(worker, 0.3) == [], "the sentinel is not whole"
    (folder / "trainer_state.json").write_text('{"global_step": 20}')
    (folder / "checkpoint-is-incomplete.txt").touch()
    assert looks(worker, 0.3) == [], "it says itself that it is not complete"
    (folder / "checkpoint-is-incomplete.txt").unlink()
    (found,) = until_found(worker)
    assert found.record.is_dir
    assert found.record.size_bytes > 100
    assert not found.in_place


def test_files_of_a_save_that_goes_on_are_no_checkpoints(watched: Watched) -> None:
    watched.start()
    for name in ("a.pt.tmp", "b.partial", "c.incomplete"):
        (watched.out / name).write_text("weights")
    assert looks(watched.scanner(), 0.4) == []


def test_what_is_overwritten_in_the_same_file_is_noticed(watched: Watched) -> None:
    watched.start()
    worker = watched.scanner()
    (watched.out / "last.bin").write_text("weights 1")
    (watched.out / "atomic.bin").write_text("weights 1")
    first = until_found(worker, 2)
    assert [one.in_place for one in first] == [False, False]
    (watched.out / "last.bin").write_text("weights two")
    (watched.out / "draft").write_text("weights two")
    (watched.out / "draft").rename(watched.out / "atomic.bin")
    again = {Path(one.record.path).name: one.in_place for one in until_found(worker, 2)}
    assert again == {"last.bin": True, "atomic.bin": False}


def test_the_end_decides_in_one_look(watched: Watched) -> None:
    watched.start()
    (watched.out / "a.bin").write_text("weights")
    (watched.out / "b.pt").write_bytes(zip_bytes())
    os.utime(watched.out / "b.pt", (time.time() + 5, time.time() + 5))
    assert names(watched.scanner().final_scan(CLEAN)) == ["a.bin", "b.pt"], "oldest first"


def test_what_a_killed_writer_wrote_last_counts_only_where_its_format_shows_the_end(watched: Watched) -> None:
    watched.start()
    now_s = time.time()
    for name in ("earlier.bin", "last.bin"):
        (watched.out / name).write_text("weights")
    (watched.out / "last.pt").write_bytes(zip_bytes())
    os.utime(watched.out / "earlier.bin", (now_s, now_s))
    for name in ("last.bin", "last.pt"):
        os.utime(watched.out / name, (now_s + 20, now_s + 20))
    for end in (WriterExit(now_s + 21, killed=True), WriterExit(None, killed=True)):
        assert sorted(names(watched.scanner().final_scan(end))) == ["earlier.bin", "last.pt"]
    assert len(watched.scanner().final_scan(WriterExit(now_s + 21, killed=False))) == 3


def test_what_was_announced_and_seen_is_on_record_once(watched: Watched) -> None:
    watched.start()
    listener = LogReader(get(watched.database, "r1"), watched.segment(), watched.folder)
    try:
        for first in ("announced", "seen"):
            path = watched.out / f"{first}.pt"
            path.write_text("weights")
            with (watched.folder / "log").open("a") as log:
                log.write(f'{{"event": "checkpoint_saved", "path": "out/{first}.pt", "step": 7}}\n')
            found = [one for one in watched.scanner().final_scan(CLEAN) if Path(one.record.path) == path]
            assert len(found) == 1
            if first == "seen":
                watched.store(found)
                assert watched.rows()[-1] == ("seen.pt", None)
            heard = listener.read(spotted=[one.record for one in found] if first == "announced" else ())
            assert heard is not None
            assert progress.record(watched.database, "r1", 1, heard)
            listener.mark_stored(heard)
            watched.store(found)
    finally:
        listener.close()
    assert watched.rows() == [("announced.pt", 7), ("seen.pt", 7)]


def test_the_next_worker_neither_loses_nor_doubles(watched: Watched) -> None:
    """More of them than are kept on record: told again, the forgotten ones would be the newest."""
    watched.start(step_pattern=r"(\d+)")
    now_s = time.time()
    worker = watched.scanner()
    for number in range(1, 31):
        path = watched.out / f"{number}.bin"
        path.write_text("weights")
        os.utime(path, (now_s + number, now_s + number))
        if number % 5 == 0:
            watched.store(worker.final_scan(CLEAN))
    assert [step for _, step in watched.rows()] == list(range(11, 31))
    (watched.out / "31.bin").write_text("weights")
    os.utime(watched.out / "31.bin", (now_s + 31, now_s + 31))
    watched.store(until_found(watched.scanner()))
    assert [step for _, step in watched.rows()] == list(range(12, 32))
    watched.store(watched.scanner().final_scan(CLEAN))
    assert [step for _, step in watched.rows()] == list(range(12, 32))


ORDINARY = """
    import argparse, os, pickle, time
    parser = argparse.ArgumentParser()
    parser.add_argument("--load")
    options = parser.parse_args()
    step = pickle.load(open(options.load, "rb")) if options.load else 0
    print("begins at", step, flush=True)
    os.makedirs("out", exist_ok=True)
    while step < 180:
        time.sleep(0.05)
        step += 1
        if step % 5 == 0:
            with open("out/draft", "wb") as file:
                pickle.dump(step, file)
            os.replace("out/draft", f"out/model-{step}.pkl")
    print("done at", step)
"""


def test_a_script_that_says_nothing_is_chained(bench: Bench) -> None:
    """No event, no signal handler, no word of ours in it: only where it saves and how it loads."""
    bench.script("train.py", ORDINARY)
    run = bench.queue(
        "train.py",
        "-m",
        "0.05",
        "--checkpoint-glob",
        "out/model-*.pkl",
        "--resume-arg",
        "--load {checkpoint}",
    )
    bench.worker()
    seen = bench.wait_for(run, "completed")
    segments = seen["segments"]
    assert len(segments) >= 3
    used = [one["checkpoint_used"] for one in segments]
    assert used[0] is None
    steps = [int(path.rpartition("-")[2].removesuffix(".pkl")) for path in used[1:]]
    assert steps == sorted(set(steps)), f"each segment goes on from later than the one before: {steps}"
    assert "done at 180" in bench.log(run, len(segments))
    assert f"begins at {steps[-1]}" in bench.log(run, len(segments))


@pytest.mark.parametrize(
    ("name", "content", "whole", "torn"),
    [
        ("last.pth.tar", zip_bytes(), True, False),
        ("last.pth.tar", zip_bytes()[:300], False, True),
        ("model.bin", zip_bytes()[:300], False, True),
        ("model.bin", b"bytes of any kind", True, False),
        ("state.pkl", pickle.dumps({"step": 7}), True, False),
        ("state.pkl", pickle.dumps({"step": 7})[:-3], False, False),
        ("folder/model.safetensors", b"", False, False),
        ("folder/__init__.py", b"", False, False),
    ],
)
def test_what_a_file_of_a_trainer_looks_like_whole(
    tmp_path: Path, name: str, content: bytes, whole: bool, torn: bool
) -> None:
    """`looks_torn` says only what is certain; an empty marker is fine, but not an empty model beside it."""
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    if name.startswith("folder"):
        (tmp_path / "folder" / "config.json").write_text("{}")
        path = tmp_path / "folder"
    assert (looks_whole(path) is None) == (whole or name.endswith(".py"))
    assert (looks_torn(path) is not None) == torn
