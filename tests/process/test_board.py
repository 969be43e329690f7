"""The board of promises: what counts, for how long, and what other users may put there."""

import fcntl
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from backprop.worker.executor import board as boards
from backprop.worker.executor import locks
from backprop.worker.executor.board import PREFIX, VARIABLE, Board, NoBoard, find_board
from backprop.worker.executor.vram import move_files, promised
from backprop.worker.executor.vram.move_files import MoveAnswer
from backprop.worker.executor.vram.moving import order_for
from backprop.worker.supervisor import process_tree
from tests.support.harness import new_board, wait_until, without_roots_rights

HONEST = b'{"gpus":["GPU-0"],"mib":6000,"exclusive":false}\n'
NO_PROMISES = {
    "garbage": b"\xff\x00{{{\n",
    "nothing": b"",
    "negative": HONEST.replace(b"6000", b"-6000"),
    "huge number": HONEST.replace(b"6000", b"9" * 3000),
    "fraction": HONEST.replace(b"6000", b"1e999"),
    "words": HONEST.replace(b"6000", b'"6000"'),
    "deep": b"[" * 4000 + b"\n",
    "huge file": HONEST + b" " * 5000,
    "many GPUs": HONEST.replace(b'"GPU-0"', b'"GPU-0",' * 70 + b'"GPU-0"'),
}
HOLDERS = [
    b'{"pid":-1,"start_ticks":3}\n',
    b'{"pid":99999999999999999999,"start_ticks":-1}\n',
    b"7\n",
    b'{"pid":',
]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    made = new_board(tmp_path / "shared")
    monkeypatch.setenv(VARIABLE, str(made))
    return made


@pytest.fixture
def homes(tmp_path: Path) -> list[Board]:
    for name in "ab":
        (tmp_path / name).mkdir()
    return [Board(tmp_path / name) for name in "ab"]


@pytest.fixture
def planted() -> Iterator[list[int]]:
    """Files that look like promises, kept locked; their descriptors."""
    held: list[int] = []
    yield held
    for handle in held:
        os.close(handle)


def plant(folder: Path, body: bytes, held: list[int], name: str = "planted") -> Path:
    path = folder / f"{PREFIX}{name}"
    path.write_bytes(body)
    held.append(os.open(path, os.O_RDONLY))
    fcntl.flock(held[-1], fcntl.LOCK_EX)
    return path


def test_a_promise_is_seen_by_other_homes_until_its_last_copy_is_closed(
    folder: Path, homes: list[Board]
) -> None:
    mine, other = homes
    handle = mine.post(("GPU-0", "GPU-1"), 6000, True)
    child = subprocess.Popen(["sleep", "60"], pass_fds=(handle,))
    try:
        mine.name_holder(handle, child.pid)
        os.close(handle)
        (seen,) = other.others()
        assert (seen.gpus, seen.mib, seen.exclusive) == (("GPU-0", "GPU-1"), 6000, True)
        assert seen.holder is not None
        assert seen.holder.pid == child.pid
        assert abs(time.time() - seen.since_s) < 60
        assert mine.others() == []
        other.sweep()
        assert len(list(folder.iterdir())) == 1
    finally:
        child.kill()
        child.wait()
    assert other.others() == []
    other.sweep()
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("body", NO_PROMISES.values(), ids=NO_PROMISES.keys())
def test_what_is_no_promise_is_passed_over(
    folder: Path, homes: list[Board], planted: list[int], body: bytes
) -> None:
    plant(folder, body, planted)
    plant(folder, HONEST, planted, "honest")
    assert [promise.mib for promise in homes[0].others()] == [6000]


@pytest.mark.parametrize("line", HOLDERS)
def test_a_false_holder_leaves_the_promise_without_one(
    folder: Path, homes: list[Board], planted: list[int], line: bytes
) -> None:
    plant(folder, HONEST + line, planted)
    assert [promise.mib for promise in homes[0].others()] == [6000]


def test_neither_a_fifo_nor_a_link_nor_a_folder_nor_a_socket_stops_anybody(
    folder: Path, homes: list[Board], tmp_path: Path
) -> None:
    os.mkfifo(folder / f"{PREFIX}fifo")
    (folder / f"{PREFIX}link").symlink_to(tmp_path / "elsewhere")
    (folder / f"{PREFIX}device").symlink_to("/dev/zero")
    (folder / f"{PREFIX}folder").mkdir()
    begun_s = time.monotonic()
    handle = homes[0].post(("GPU-0",), 1, False)
    assert len(homes[1].others()) == 1
    os.close(handle)
    homes[1].sweep()
    assert time.monotonic() - begun_s < 2
    assert len(list(folder.iterdir())) == 4
    assert not (tmp_path / "elsewhere").exists()


def test_one_that_cannot_be_read_is_passed_over(folder: Path, planted: list[int]) -> None:
    plant(folder, HONEST, planted).chmod(0)
    code = (
        "from pathlib import Path\n"
        "from backprop.worker.executor.board import Board\n"
        "print(Board(Path('/')).others())"
    )
    done = subprocess.run(
        [*without_roots_rights(), sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert done.stdout == "[]\n", done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give a file to another user")
def test_another_users_promise_counts_even_under_our_name_and_stays(
    folder: Path, homes: list[Board], planted: list[int]
) -> None:
    handle = homes[0].post(("GPU-0",), 1, False)
    (ours,) = folder.iterdir()
    os.close(handle)
    homes[0].sweep()
    theirs = plant(folder, HONEST, planted, ours.name.removeprefix(PREFIX))
    os.chown(theirs, 12345, 12345)
    assert [promise.mib for promise in homes[0].others()] == [6000]
    os.close(planted.pop())
    assert homes[0].others() == []
    homes[0].sweep()
    assert theirs.exists(), "only who made it may remove it"


def test_a_promise_can_be_read_by_all_and_written_by_nobody_else(folder: Path, homes: list[Board]) -> None:
    before = os.umask(0o077)
    try:
        os.close(homes[0].post(("GPU-0",), 1, False))
    finally:
        os.umask(before)
    (path,) = folder.iterdir()
    assert path.stat().st_mode & 0o777 == 0o644


def test_a_folder_that_others_could_change_is_no_board(
    folder: Path, homes: list[Board], planted: list[int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    plant(folder, HONEST, planted)
    assert find_board() == folder

    def is_refused(text: str) -> None:
        assert homes[0].others() == []
        homes[0].sweep()
        with pytest.raises(NoBoard, match=text):
            homes[0].post(("GPU-0",), 1, False)
        with pytest.raises(NoBoard, match=text):
            find_board()

    folder.chmod(0o777)
    is_refused("not sticky")
    folder.chmod(0o1777)
    (tmp_path / "link").symlink_to(folder)
    for path in ("link", "missing"):
        monkeypatch.setenv(VARIABLE, str(tmp_path / path))
        is_refused(path)
    monkeypatch.setenv(VARIABLE, str(folder))
    if os.geteuid() == 0:
        os.chown(folder, 12345, 12345)
        is_refused("belongs to uid 12345")
        os.chown(folder, 0, 0)
    monkeypatch.setattr(boards, "MOST_FILES", 10)
    for number in range(11):
        (folder / str(number)).touch()
    is_refused("more than 10 files")


def test_whoever_takes_the_locks_of_new_promises_keeps_nobody_waiting_for_long(
    folder: Path, homes: list[Board], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another user may lock what he may read. Then nothing is promised, and that is said."""
    monkeypatch.setattr(boards.locks, "acquire", lambda _: False)  # pyright: ignore[reportUnknownLambdaType]
    with pytest.raises(NoBoard, match="takes its lock"):
        homes[0].post(("GPU-0",), 1, False)
    assert list(folder.iterdir()) == []


def test_one_that_is_swept_before_its_lock_is_made_again(
    folder: Path, homes: list[Board], monkeypatch: pytest.MonkeyPatch
) -> None:
    acquire = boards.locks.acquire
    swept: list[int] = []

    def late(handle: int) -> bool:
        if not swept:
            swept.append(handle)
            homes[1].sweep()
        return acquire(handle)

    monkeypatch.setattr(boards.locks, "acquire", late)
    handle = homes[0].post(("GPU-0",), 1, False)
    assert len(swept) == len(homes[1].others()) == len(list(folder.iterdir())) == 1
    os.close(handle)


def test_a_frozen_home_keeps_its_promise_and_stops_nobody(folder: Path, homes: list[Board]) -> None:
    code = (
        "import os, signal\n"
        "from pathlib import Path\n"
        "from backprop.worker.executor.board import Board\n"
        f"Board(Path({str(folder)!r})).post(('GPU-0',), 6000, False)\n"
        "os.kill(os.getpid(), signal.SIGSTOP)\n"
    )
    frozen = subprocess.Popen([sys.executable, "-c", code])
    try:
        wait_until(homes[0].others)
        begun_s = time.monotonic()
        os.close(homes[0].post(("GPU-0",), 1, False))
        assert [promise.mib for promise in homes[0].others()] == [6000]
        assert time.monotonic() - begun_s < 2
    finally:
        frozen.kill()
        frozen.wait()
    assert homes[0].others() == []


@pytest.fixture
def segment(folder: Path, homes: list[Board], tmp_path: Path) -> Iterator[Path]:  # noqa: ARG001
    """A segment's folder with a promise that its own descriptor keeps, and its VRAM in RAM."""
    made = tmp_path / "1"
    made.mkdir()
    handle = homes[0].post(("GPU-0",), 6000, True)
    promised.note(made, handle)
    moved(made)
    yield made
    os.close(handle)


def moved(segment: Path) -> None:
    order = order_for(1, "out", process_tree.Process(1, 1), "GPU-0", 6000)
    move_files.write(segment, order)
    boot = process_tree.boot_id()
    answer = {"number": 1, "wanted": "out", "reached": "checkpointed", "boot_id": boot}
    (segment / move_files.ANSWER).write_text(json.dumps(answer))
    assert move_files.answer(segment, order) == MoveAnswer(**answer)


def seen(homes: list[Board]) -> list[tuple[int, bool]]:
    return [(promise.mib, promise.exclusive) for promise in homes[1].others()]


def test_a_promise_that_is_set_aside_counts_for_nothing(homes: list[Board], segment: Path) -> None:
    assert seen(homes) == [(6000, True)]
    promised.set_aside(segment, lambda: True)
    assert seen(homes) == []
    assert not homes[0].others()
    homes[0].sweep()
    assert promised.take_up(segment, 7000), "the others have not been asked yet"
    assert seen(homes) == [(7000, True)]


def test_what_is_taken_up_counts_before_it_is_compared(homes: list[Board], segment: Path) -> None:
    """Whoever goes on after a crash compares it; what was compared is not compared again."""
    promised.set_aside(segment, lambda: True)
    assert promised.take_up(segment, 10)
    assert promised.take_up(segment, 10)
    assert seen(homes) == [(6000, True)]
    promised.settle(segment)
    assert not promised.take_up(segment, 10)
    assert seen(homes) == [(6000, True)]
    (promise,) = homes[1].others()
    assert promise.since_s >= time.time() - 60


def test_only_vram_in_ram_sets_a_promise_aside(homes: list[Board], segment: Path) -> None:
    promised.set_aside(segment, lambda: False)
    assert seen(homes), "another worker has the segment"
    mover = locks.take(segment / move_files.LOCK)
    assert mover is not None
    promised.set_aside(segment, lambda: True)
    assert seen(homes), "somebody moves it"
    os.close(mover)
    (segment / move_files.ANSWER).unlink()
    promised.set_aside(segment, lambda: True)
    assert seen(homes), "it is not known to be in RAM"
    moved(segment)
    promised.set_aside(segment, lambda: True)
    mover = locks.take(segment / move_files.LOCK)
    with pytest.raises(OSError, match="is being moved"):
        promised.take_up(segment, 10)
    assert mover is not None
    os.close(mover)


def test_a_segment_whose_promise_nobody_knows_keeps_it(homes: list[Board], segment: Path) -> None:
    (segment / promised.NOTE).unlink()
    promised.set_aside(segment, lambda: True)
    assert seen(homes) == [(6000, True)]
    assert not promised.take_up(segment, 10)
    (segment / promised.NOTE).write_text("/nowhere/backprop-promise-1")
    assert not promised.take_up(segment, 10)
