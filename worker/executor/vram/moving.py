"""Starts movers, and follows what becomes of their orders, without ever waiting for one or ending it.

A mover that overruns its deadline is in a driver that may never answer. It is left behind, its run is not touched until
it returns, and nothing more is asked of the driver by this process.
"""

import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from backprop.scheduler.home.file_reading import open_regular
from backprop.worker.executor.vram import move_files
from backprop.worker.executor.vram.move_files import Direction, MoveAnswer, MoveOrder
from backprop.worker.supervisor import process_tree

PROGRAM: Final = (
    sys.executable, "-I", "-S", "-X", "utf8", str(Path(__file__).parent / "mover"),
)  # fmt: skip
_APPEND: Final = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
MOST_STARTS: Final = 3
"""Of a mover that ends without an answer, for one order."""


class Stuck(Exception):
    """A mover has overrun its deadline. The text says for how long."""


class NoAnswer(Exception):
    """No mover came to an answer. The text says why."""


def order_for(
    number: int, wanted: Direction, process: process_tree.Process, gpu_uuid: str, mib: int
) -> MoveOrder:
    """Return an order whose time begins now."""
    return MoveOrder(
        number=number,
        wanted=wanted,
        pid=process.pid,
        start_ticks=process.start_ticks,
        gpu_uuid=gpu_uuid,
        mib=mib,
        until_monotonic_s=time.monotonic() + move_files.patience_s(mib),
    )


class Move:
    """An order that is carried out in a segment's folder. `begin` it, then `poll`."""

    def __init__(
        self,
        folder: Path,
        order: MoveOrder,
        environment: Mapping[str, str] | None = None,
        program: Sequence[str] = PROGRAM,
    ) -> None:
        """`environment`: of the mover; None: this process's. `program`: the mover."""
        self.order = order
        self._folder = folder
        self._environment = environment
        self._program = program
        self._mover: subprocess.Popen[bytes] | None = None
        self._starts = 0

    def begin(self) -> None:
        """Write the order, which replaces the one before. Raises OSError."""
        move_files.write(self._folder, self.order)

    def poll(self) -> MoveAnswer | None:
        """Return the answer once nobody moves any more; else see to it that a mover is at work. Raises OSError, Stuck,
        NoAnswer."""
        if self._mover is not None and self._mover.poll() is not None:
            self._mover = None
        if self._mover is not None or move_files.is_moving(self._folder):
            over_s = time.monotonic() - self.order.until_monotonic_s
            if over_s > 0:
                waited_s = over_s + move_files.patience_s(self.order.mib)
                raise Stuck(f"the driver has not answered for {waited_s:.0f} s")
            return None
        found = move_files.answer(self._folder, self.order)
        if found is not None:
            return found
        if self._starts >= MOST_STARTS:
            raise NoAnswer(f"what asks the driver ended {self._starts} times without an answer")
        self._starts += 1
        if time.monotonic() > self.order.until_monotonic_s:
            # Nobody was there to see to it in time.
            until_s = time.monotonic() + move_files.patience_s(self.order.mib)
            self.order = msgspec.structs.replace(self.order, until_monotonic_s=until_s)
            self.begin()
        self._mover = self._start()
        return None

    def wait(self) -> MoveAnswer:
        """Carry the order out and wait for the answer. Raises OSError, Stuck, NoAnswer."""
        self.begin()
        while (found := self.poll()) is None:
            time.sleep(0.02)
        return found

    def _start(self) -> "subprocess.Popen[bytes]":
        with open(open_regular(self._folder / "mover.log", _APPEND), "ab") as errors:  # noqa: PTH123
            return subprocess.Popen(
                [*self._program, str(self._folder)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                env=self._environment,
                cwd="/",
                start_new_session=True,
            )
