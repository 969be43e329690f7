"""The mover brings a process's VRAM out and in on a fake driver, whatever an earlier one has left behind."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from backprop.worker.executor.vram import move_files
from backprop.worker.executor.vram.move_files import MoveAnswer
from backprop.worker.executor.vram.moving import Move, NoAnswer, Stuck
from backprop.worker.executor.vram.target import NoTarget, find_target
from tests.support.fakes import FakeDriver
from tests.support.harness import wait_until
from tests.support.movable import GPU, MIB, Movable, movable

pytestmark = pytest.mark.gpu
NOT_SUPPORTED, FULL = 801, 2
AGAIN_S = 2.0


@pytest.fixture
def seat(tmp_path: Path, nvml_library: Path) -> Iterator[Movable]:
    with movable(FakeDriver(tmp_path / "driver", nvml_library), tmp_path / "segment") as made:
        yield made


def killed(move: Move) -> Move:
    """Have the mover killed that is at work on an order; return the order for a worker that finds it."""
    assert move.poll() is None
    wait_until(lambda: not move_files.is_moving(move._folder) and move._mover.poll() is not None)  # pyright: ignore
    assert move_files.answer(move._folder, move.order) is None
    return move


def taken_up(seat: Movable, move: Move) -> MoveAnswer:
    """Go on with an order as another worker does."""
    other = Move(seat.folder, move.order, seat.driver.environment())
    while (found := other.poll()) is None:
        time.sleep(0.02)
    return found


def test_out_and_in_with_its_content(seat: Movable) -> None:
    held = seat.canary.digest
    out = seat.move("out")
    assert (out.reached, out.what, out.mib, seat.is_out) == ("checkpointed", None, MIB, True)
    os.kill(seat.pid, signal.SIGSTOP)
    os.kill(seat.pid, signal.SIGCONT)
    assert (seat.move("in").reached, seat.is_out) == ("running", False)
    assert seat.canary.ask() == held
    assert seat.canary.ask("change") != held


@pytest.mark.parametrize("failpoint", ["vram locking", "vram locked", "vram checkpointed"])
def test_a_mover_is_killed_on_the_way_out(seat: Movable, failpoint: str) -> None:
    held = seat.canary.digest
    move = killed(seat.order("out", failpoint=f"{failpoint}:kill"))
    assert taken_up(seat, move).is_out
    assert seat.is_out
    assert seat.move("in").runs
    assert seat.canary.ask() == held


@pytest.mark.parametrize("failpoint", ["vram restoring", "vram restored"])
def test_a_mover_is_killed_on_the_way_in(seat: Movable, failpoint: str) -> None:
    held = seat.canary.digest
    assert seat.move("out").is_out
    move = killed(seat.order("in", failpoint=f"{failpoint}:kill"))
    assert taken_up(seat, move).runs
    assert seat.canary.ask() == held


def test_what_the_driver_refuses_goes_on(seat: Movable) -> None:
    seat.driver.cuda(lock=NOT_SUPPORTED)
    refused = seat.move("out")
    assert (refused.runs, refused.what) == (True, "lock: CUDA_ERROR_NOT_SUPPORTED (801)")
    seat.driver.cuda(checkpoint=NOT_SUPPORTED)
    assert seat.move("out", 2).runs
    assert seat.canary.ask() == seat.canary.digest
    seat.driver.cuda(kills=1)
    assert seat.move("out", 3).reached == "gone"


def test_a_restore_is_tried_once_more_but_not_one_that_met_a_full_gpu(seat: Movable) -> None:
    assert seat.move("out").is_out
    seat.driver.occupy(GPU, 95)
    full = seat.move("in")
    assert (full.reached, full.error) == ("checkpointed", FULL)
    assert full.seconds < AGAIN_S
    seat.driver.cuda(restore=NOT_SUPPORTED)
    failed = seat.move("in", 2)
    assert (failed.reached, failed.error) == ("checkpointed", NOT_SUPPORTED)
    assert failed.seconds >= AGAIN_S


def test_a_driver_that_hangs_is_left_alone_and_what_comes_late_is_undone(seat: Movable) -> None:
    seat.driver.cuda(hang=2)
    move = seat.order("out", until_s=time.monotonic() + 0.5)
    with pytest.raises(Stuck):
        while move.poll() is None:
            time.sleep(0.02)
    assert move_files.is_moving(seat.folder)
    second = Move(seat.folder, move.order, seat.driver.environment())
    with pytest.raises(Stuck):
        second.poll()
    seat.driver.hangs_no_more()
    wait_until(lambda: not move_files.is_moving(seat.folder))
    late = move.poll()
    assert late is not None and late.runs and late.is_late
    assert seat.canary.ask() == seat.canary.digest


def test_an_order_that_nobody_could_carry_out_is_given_up(seat: Movable) -> None:
    move = seat.order("out", failpoint="vram locking:kill")
    with pytest.raises(NoAnswer):
        while move.poll() is None:
            time.sleep(0.02)


def test_an_order_of_another_boot_is_none(seat: Movable) -> None:
    move = seat.order("out")
    path = seat.folder / move_files.ORDER
    path.write_text(path.read_text().replace(move_files.read(seat.folder).boot_id, "another"))  # type: ignore[union-attr]
    assert move_files.read(seat.folder) is None
    with pytest.raises(NoAnswer):
        while move.poll() is None:
            time.sleep(0.02)
    assert not seat.is_out


def test_a_signal_does_not_end_a_mover(seat: Movable) -> None:
    seat.driver.cuda(hang=1)
    move = seat.order("out")
    assert move.poll() is None
    wait_until(lambda: move_files.is_moving(seat.folder))
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        move._mover.send_signal(number)  # type: ignore[union-attr]
    seat.driver.hangs_no_more()
    while (found := move.poll()) is None:
        time.sleep(0.02)
    assert found.is_out
    assert seat.move("in").runs


def test_only_one_process_on_one_whole_gpu_is_moved(seat: Movable, monkeypatch: pytest.MonkeyPatch) -> None:
    from msgspec.structs import replace

    from backprop.scheduler.governor.snapshot import Gpu

    one = Gpu(GPU, 0, "Fake", 100, 50, 40, None, None, None, used_by_pid=((seat.pid, 16), (1, 20)))
    other = replace(one, uuid="GPU-bbbb", index=1, used_by_pid=())
    found = find_target([GPU], [one, other], {seat.pid, os.getpid()})
    assert (found.process.pid, found.mib) == (seat.pid, 16)
    second = replace(one, used_by_pid=((seat.pid, 16), (os.getpid(), 20)))
    refused = [
        ([GPU, "GPU-bbbb"], [one, other], "several GPUs"),
        ([], [one], "no GPU"),
        ([GPU], [other], "cannot be read"),
        ([GPU], [second], "2 CUDA processes"),
        ([GPU], [one, replace(other, used_by_pid=((os.getpid(), 1),))], "2 CUDA processes"),
        ([GPU], [replace(one, used_by_pid=((1, 16),))], "does not say"),
        ([GPU], [replace(one, used_by_pid=((seat.pid, None),))], "does not say"),
        ([GPU], [replace(one, unified=True)], "no memory of its own"),
        (["MIG-a"], [replace(one, uuid="MIG-a")], "MIG"),
        ([GPU], [replace(one, used_by_pid=((seat.pid, 96),))], "too much of its GPU"),
        ([GPU], [replace(one, reserved_mib=10, used_by_pid=((seat.pid, 86),))], "too much of its GPU"),
        ([GPU], [replace(one, total_mib=None)], "too much of its GPU"),
    ]
    for uuids, gpus, word in refused:
        with pytest.raises(NoTarget, match=word):
            find_target(uuids, gpus, {seat.pid, os.getpid()})
    (seat.folder / "control").touch()
    monkeypatch.setenv("CUDA_MPS_PIPE_DIRECTORY", str(seat.folder))
    with pytest.raises(NoTarget, match="MPS"):
        find_target([GPU], [one], {seat.pid})
