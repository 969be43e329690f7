"""A process of ours on a fake GPU, and the folder in which orders to move its VRAM are given."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from backprop.worker.executor.vram import move_files
from backprop.worker.executor.vram.canary import Canary
from backprop.worker.executor.vram.move_files import Direction, MoveAnswer
from backprop.worker.executor.vram.moving import Move, order_for
from tests.support.fakes import FakeDriver, FakeGpu

GPU = "GPU-aaaa"
MIB = 16


class Movable:
    """`canary` holds 16 MiB of a GPU of 100 MiB."""

    def __init__(self, driver: FakeDriver, folder: Path, canary: Canary) -> None:
        self.driver, self.folder, self.canary = driver, folder, canary

    @property
    def pid(self) -> int:
        return self.canary.identity.pid

    def order(
        self, wanted: Direction, number: int = 1, failpoint: str = "", until_s: float | None = None
    ) -> Move:
        """Return a move that has been ordered. `until_s`: on the monotonic clock."""
        order = order_for(number, wanted, self.canary.identity, GPU, MIB)
        if until_s is not None:
            order = move_files.MoveOrder(**{**_fields(order), "until_monotonic_s": until_s})
        move = Move(self.folder, order, self.driver.environment(BACKPROP_FAILPOINT=failpoint))
        move.begin()
        return move

    def move(self, wanted: Direction, number: int = 1) -> MoveAnswer:
        return self.order(wanted, number).wait()

    @property
    def is_out(self) -> bool:
        return self.driver.moved_mib(self.pid) == MIB


def _fields(order: move_files.MoveOrder) -> dict[str, object]:
    return {name: getattr(order, name) for name in order.__struct_fields__}


@contextmanager
def movable(driver: FakeDriver, folder: Path) -> Iterator[Movable]:
    """Start the process, and end it."""
    driver.show(FakeGpu(GPU, total=100))
    folder.mkdir(exist_ok=True)
    canary = Canary(GPU, MIB, driver.environment())
    try:
        yield Movable(driver, folder, canary)
    finally:
        driver.hangs_no_more()
        canary.kill()
        assert not os.path.exists(f"/proc/{canary.identity.pid}")  # noqa: PTH110
