"""The order to move a segment's VRAM, as the worker writes it and as the mover answers it.

    vram.json         the order: whose VRAM, out or in; the number is that of the suspension that it belongs to
    vram-answer.json  the answer to the order with that number and that direction
    vram.lock         held by a mover for its life

Not synced: what was moved does not outlive the machine. The mover's side is `mover/__main__.py`.
"""

from pathlib import Path
from typing import Final, Literal, TypeVar

import msgspec

from backprop.scheduler.home.file_reading import read_if_there
from backprop.scheduler.home.run_folder import write_synced
from backprop.worker.executor import locks
from backprop.worker.supervisor import process_tree

FORMAT: Final = 1
ORDER: Final = "vram.json"
ANSWER: Final = "vram-answer.json"
LOCK: Final = "vram.lock"
PATIENCE_S: Final = 30.0
SLOWEST_MIB_PER_S: Final = 100
"""RAM that was swapped out comes back at the speed of a disk."""

Direction = Literal["out", "in"]


class MoveOrder(msgspec.Struct, frozen=True, kw_only=True):
    """`vram.json`. `pid`, `start_ticks`: the one CUDA process. `gpu_uuid`, `mib`: where its VRAM is, and how much.
    `until_monotonic_s`: when it is given up. `boot_id`: of the boot that it is valid in."""

    format: int = FORMAT
    number: int
    wanted: Direction
    pid: int
    start_ticks: int
    gpu_uuid: str
    mib: int
    until_monotonic_s: float
    boot_id: str = ""


class MoveAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """`vram-answer.json`. `reached`: running, locked, checkpointed, failed; unknown where the driver does not say, gone
    where the process is. `error`: a CUresult, `what` in words. `is_late`: it took longer than was waited for."""

    number: int
    wanted: Direction
    reached: str
    error: int | None = None
    what: str | None = None
    seconds: float = 0.0
    mib: int | None = None
    is_late: bool = False
    boot_id: str = ""

    @property
    def is_out(self) -> bool:
        return self.reached == "checkpointed"

    @property
    def runs(self) -> bool:
        return self.reached == "running"


_Content = TypeVar("_Content", MoveOrder, MoveAnswer)


def patience_s(mib: int) -> float:
    """Return how long moving so much may take."""
    return PATIENCE_S + mib / SLOWEST_MIB_PER_S


def read(folder: Path) -> MoveOrder | None:
    """Return the order; None for none of this boot, or one that cannot be understood. Raises OSError."""
    return _read(folder / ORDER, MoveOrder)


def write(folder: Path, order: MoveOrder) -> None:
    """Replace the order, and forget what became of the one before. Raises OSError."""
    (folder / ANSWER).unlink(missing_ok=True)
    draft = folder / f"{ORDER}.worker.tmp"
    order = msgspec.structs.replace(order, boot_id=process_tree.boot_id())
    write_synced(draft, (msgspec.json.encode(order),), synced=False)
    draft.replace(folder / ORDER)


def answer(folder: Path, order: MoveOrder) -> MoveAnswer | None:
    """Return what became of an order; None while that is not known. Raises OSError."""
    found = _read(folder / ANSWER, MoveAnswer)
    return (
        found if found is not None and (found.number, found.wanted) == (order.number, order.wanted) else None
    )


def out_mib(folder: Path) -> int | None:
    """Return how much VRAM of the segment lies in RAM; None where it is not known to. Raises OSError."""
    order = read(folder)
    found = answer(folder, order) if order is not None and order.wanted == "out" else None
    return order.mib if order is not None and found is not None and found.is_out else None


def was_moving(folder: Path) -> bool:
    """Return whether the segment's process may have ended of a move: one has no answer, or says so. Raises OSError."""
    order = read(folder)
    found = answer(folder, order) if order is not None else None
    return order is not None and (found is None or not (found.is_out or found.runs))


def is_moving(folder: Path) -> bool:
    """Return whether somebody is moving VRAM of this segment. Raises OSError."""
    return locks.held(folder / LOCK)


def _read(path: Path, type_: type[_Content]) -> _Content | None:
    content = read_if_there(path)
    try:
        found = msgspec.json.decode(content, type=type_) if content is not None else None
    except msgspec.DecodeError:
        return None
    return found if found is not None and found.boot_id == process_tree.boot_id() else None
