"""The order to suspend a segment, as the worker writes it and as its supervisor answers it.

    suspend.json  the order: suspend the segment, or let it go on; each suspension has a number of its own
    pause.json    the answer: the number of the order that is carried out, or refused and why

Not synced: a segment does not outlive the machine. The supervisor's side is `supervisor/suspension.py`.
"""

from pathlib import Path
from typing import Final, Literal

import msgspec

from backprop.scheduler.home.file_reading import read_if_there
from backprop.scheduler.home.run_folder import write_synced
from backprop.worker.executor import segment_files
from backprop.worker.supervisor import process_tree

FORMAT: Final = 1
NAME: Final = "suspend.json"


class SuspendOrder(msgspec.Struct, frozen=True, kw_only=True):
    """`suspend.json`. `number`: from 1 in each segment; the one that lets it go on has that of the one it ends.
    `wanted`: "leaving" while its VRAM is moved out, which is nothing to its supervisor. `why`: in words. `kept`,
    `thaw_at_s`: as asked by the user, see `RunRecord`. `at_s`: when the suspension was ordered, Unix seconds.
    `boot_id`: of the boot that it is valid in."""

    format: int = FORMAT
    number: int
    wanted: Literal["leaving", "suspended", "running"]
    why: str = ""
    kept: bool = False
    thaw_at_s: float | None = None
    at_s: float | None = None
    boot_id: str = ""

    @property
    def suspends(self) -> bool:
        return self.wanted == "suspended"

    @property
    def leaves(self) -> bool:
        return self.wanted == "leaving"


class Answer(msgspec.Struct, frozen=True):
    """What the supervisor made of an order. `refused`: why it did not carry it out; None where it did."""

    refused: str | None = None


def read(folder: Path) -> SuspendOrder | None:
    """Return the order of the segment in `folder`; None for none of this boot, or one that cannot be understood. Raises
    OSError."""
    content = read_if_there(folder / NAME)
    try:
        order = msgspec.json.decode(content, type=SuspendOrder) if content is not None else None
    except msgspec.DecodeError:
        return None
    return order if order is not None and order.boot_id == process_tree.boot_id() else None


def write(folder: Path, order: SuspendOrder) -> None:
    """Replace the order. Raises OSError."""
    draft = folder / f"{NAME}.worker.tmp"
    order = msgspec.structs.replace(order, boot_id=process_tree.boot_id())
    write_synced(draft, (msgspec.json.encode(order),), synced=False)
    draft.replace(folder / NAME)


def answer(folder: Path, number: int) -> Answer | None:
    """Return what became of order `number`; None while its supervisor has not said. Raises OSError."""
    note = segment_files.read_pause(folder)
    if note is None or note.boot_id != process_tree.boot_id():
        return None
    if note.suspended == number and note.since_monotonic_s is not None and note.until_monotonic_s is None:
        return Answer()
    return Answer(note.why or "its supervisor refuses") if note.refused == number else None


def is_paused(folder: Path) -> bool:
    """Return whether the tree is not known to run. Raises OSError."""
    note = segment_files.read_pause(folder)
    if note is None or note.boot_id != process_tree.boot_id():
        return False
    return note.since_monotonic_s is not None


def obeys(folder: Path) -> bool:
    """Return whether the segment's supervisor obeys such orders: one of an earlier program does not. Raises OSError."""
    processes = segment_files.read_processes(folder)
    return processes is not None and processes.suspend_format == FORMAT
