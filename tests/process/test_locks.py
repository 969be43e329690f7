"""Locks say who is alive: held while anybody lives who was handed the descriptor, free at the last death."""

import fcntl
import os
import subprocess
import threading
import time
from pathlib import Path

import pytest

from backprop.worker.executor import locks
from tests.support.harness import program, wait_until


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run.lock"


@pytest.fixture
def taken(path: Path) -> int:
    handle = locks.take(path)
    assert handle is not None
    return handle


def test_what_is_taken_is_held_and_cannot_be_taken_again(path: Path) -> None:
    assert not locks.held(path), "nobody holds what does not exist"
    handle = locks.take(path)
    assert handle is not None
    assert locks.held(path)
    assert locks.take(path) is None
    os.close(handle)
    assert not locks.held(path)
    again = locks.take(path)
    assert again is not None
    os.close(again)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.exists(), "a lock file is never unlinked: two could hold two files of one name"


def test_taking_waits_for_whoever_merely_looks(path: Path) -> None:
    path.touch()
    looker = os.open(path, os.O_RDWR)
    fcntl.flock(looker, fcntl.LOCK_SH)
    threading.Timer(0.1, os.close, [looker]).start()
    handle = locks.take(path)
    assert handle is not None
    os.close(handle)


def test_lookers_do_not_see_each_other(path: Path) -> None:
    path.touch()
    looker = os.open(path, os.O_RDWR)
    fcntl.flock(looker, fcntl.LOCK_SH)
    assert not locks.held(path)
    os.close(looker)


def test_a_child_holds_on_after_its_parent_has_closed(path: Path, taken: int) -> None:
    with subprocess.Popen(["sleep", "600"], pass_fds=[taken]) as child:
        os.close(taken)
        assert locks.held(path)
        assert locks.take(path) is None
        child.kill()
    wait_until(lambda: not locks.held(path))


def test_a_grandchild_holds_on_after_its_parents_are_dead(path: Path, taken: int) -> None:
    with subprocess.Popen(["sh", "-c", "sleep 600 & echo $!; wait"], pass_fds=[taken],
                          stdout=subprocess.PIPE, text=True) as child:  # fmt: skip
        os.close(taken)
        assert child.stdout is not None
        grandchild = int(child.stdout.readline())
        child.kill()
        child.wait()
        assert locks.held(path)
        os.kill(grandchild, 9)
    wait_until(lambda: not locks.held(path))


def test_a_child_that_was_not_handed_the_descriptor_does_not_hold(path: Path, taken: int) -> None:
    with subprocess.Popen(["sleep", "600"], close_fds=False) as child:
        os.close(taken)
        assert not locks.held(path), "descriptors are close-on-exec unless handed down"
        child.kill()


def test_a_planted_symbolic_link_is_refused(path: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("precious")
    path.symlink_to(target)
    with pytest.raises(OSError, match="symbolic links"):
        locks.take(path)
    with pytest.raises(OSError, match="symbolic links"):
        locks.held(path)
    assert target.read_text() == "precious"


def test_what_is_no_file_is_an_error_and_not_a_free_lock(tmp_path: Path) -> None:
    folder = tmp_path / "run.lock"
    folder.mkdir()
    with pytest.raises(OSError, match="directory"):
        locks.held(folder)


def test_a_worker_lives_as_long_as_its_process(tmp_path: Path) -> None:
    assert not locks.worker_alive(tmp_path, "w1")
    with subprocess.Popen([*program("hold_worker_lock"), str(tmp_path)], stdout=subprocess.PIPE) as worker:
        assert worker.stdout is not None
        assert worker.stdout.readline() == b"held\n"
        assert locks.worker_alive(tmp_path, "w1")
        assert not locks.worker_alive(tmp_path, "w2")
        worker.kill()
    assert not locks.worker_alive(tmp_path, "w1")


def test_a_workers_lock_does_not_leak_into_what_it_starts(tmp_path: Path) -> None:
    lock = locks.hold_worker_lock(tmp_path, "w1")
    with subprocess.Popen(["sleep", "600"], close_fds=False) as child:
        lock.release()
        assert not locks.worker_alive(tmp_path, "w1")
        child.kill()


def test_two_admissions_exclude_each_other_and_the_second_gives_up_in_time(tmp_path: Path) -> None:
    with locks.Admission(tmp_path) as ours:
        assert ours
        began_s = time.monotonic()
        with locks.Admission(tmp_path) as theirs:
            assert not theirs
        assert time.monotonic() - began_s < locks.ADMISSION_PATIENCE_S + 5
    with locks.Admission(tmp_path) as again:
        assert again
