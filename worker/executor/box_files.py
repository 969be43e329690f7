"""The files about a segment's boxes, as the worker reads and writes them.

    box-N.json  the decision on box N, made once, by a worker or by the supervisor; whoever finds it obeys it
    box.json    the worker's standing order, by which the supervisor decides where nobody has
    deadline    when the box in force ends, for the script

The supervisor's side is `supervisor/boxes.py`.
"""

import contextlib
import errno
import time
from pathlib import Path
from typing import Final

import msgspec

from backprop.scheduler.home.file_reading import read_if_there
from backprop.scheduler.home.run_folder import write_synced
from backprop.worker.executor import segment_files
from backprop.worker.supervisor import process_tree
from backprop.worker.supervisor.once import make_once

FORMAT: Final = 1
"""Of decisions and standing orders. A supervisor that does not say that it understands it ends every box."""
FULL: Final = (errno.ENOSPC, errno.EDQUOT)
ASK: Final = "ask"
RENEW: Final = "renew"


class BoxDecisionFile(msgspec.Struct, frozen=True, kw_only=True):
    """`box-N.json`. `choice`: ASK or RENEW. `until_s`: end of the next box in seconds of running time, for RENEW.
    `why`: in words. `by`: the worker's id, or "supervisor"."""

    format: int = FORMAT
    choice: str
    why: str | None = None
    until_s: float | None = None
    by: str = ""
    at_s: float = 0.0


class StandingOrder(msgspec.Struct, frozen=True, kw_only=True):
    """`box.json`. `box`: the one in force. `unsaved`: an end would lose work that nobody asked to lose. `proven`: the
    run was seen to save when asked and to go on from that. `why`: it is to be ended, in words. `past`: it keeps its
    place past its timebox, though others wait. `looked_monotonic_s`: when the worker last looked, in the boot
    `boot_id`."""

    format: int = FORMAT
    box: int
    ends_s: float
    unsaved: bool = True
    proven: bool = False
    why: str | None = None
    past: bool = False
    boot_id: str = ""
    looked_monotonic_s: float = 0.0


def read_decision(folder: Path, box: int) -> BoxDecisionFile | None:
    """Return what was decided on a box; None for nothing, or nothing that can be understood. Raises OSError."""
    content = read_if_there(folder / f"box-{box}.json")
    try:
        return msgspec.json.decode(content, type=BoxDecisionFile) if content is not None else None
    except msgspec.DecodeError:
        return None


def in_force(folder: Path, first_ends_s: float) -> tuple[int, float]:
    """Return the number of the box in force, and when it ends. `first_ends_s`: the end of the first one. Raises
    OSError."""
    box, ends_s = 1, first_ends_s
    while (decided := read_decision(folder, box)) is not None and decided.choice == RENEW:
        if decided.until_s is None or decided.until_s <= ends_s:
            break
        box, ends_s = box + 1, decided.until_s
    return box, ends_s


def renew(folder: Path, box: int, until_s: float, why: str, worker: str) -> bool:
    """Decide that the segment gets another box; False where a decision is there already. Raises OSError."""
    decision = BoxDecisionFile(choice=RENEW, until_s=until_s, why=why, by=worker, at_s=time.time())
    return make_once(folder / f"box-{box}.json", msgspec.to_builtins(decision))


def write_standing_order(folder: Path, order: StandingOrder) -> None:
    """Write `box.json`, with this moment as that of the look. Raises OSError."""
    order = msgspec.structs.replace(
        order, boot_id=process_tree.boot_id(), looked_monotonic_s=time.monotonic()
    )
    _replace(folder / "box.json", msgspec.json.encode(order))


def goes_past(folder: Path) -> bool:
    """Return whether a segment keeps its place past its timebox, as its worker last noted. Raises OSError."""
    content = read_if_there(folder / "box.json")
    try:
        return content is not None and msgspec.json.decode(content, type=StandingOrder).past
    except msgspec.DecodeError:
        return False


def write_deadline(folder: Path, left_s: float) -> None:
    """Tell the script when the box ends: in Unix seconds, on the monotonic clock, and in which boot that counts."""
    text = f"{time.time() + left_s:.3f} {time.monotonic() + left_s:.3f} {process_tree.boot_id()}\n"
    with contextlib.suppress(OSError):
        _replace(folder / "deadline", text.encode())


def left_s(folder: Path) -> float | None:
    """Return for how long of running time the box in force still lasts, less than nothing where it is past; None where
    the files do not tell. What stands still keeps what it has left. Raises OSError."""
    words = (read_if_there(folder / "deadline") or b"").decode(errors="replace").split()
    if len(words) < 3:
        order, running_s = segment_files.read_order(folder), segment_files.running_s(folder)
        return order.timebox_s - running_s if order is not None and running_s is not None else None
    pause = segment_files.read_pause(folder)
    stands = pause is not None and pause.until_monotonic_s is None and pause.boot_id == words[2]
    since_s = pause.since_monotonic_s if pause is not None and stands else None
    with contextlib.suppress(ValueError):
        if words[2] == process_tree.boot_id():
            return float(words[1]) - (time.monotonic() if since_s is None else since_s)
    return None


def _replace(path: Path, content: bytes) -> None:
    draft = path.with_name(f"{path.name}.worker.tmp")
    try:
        write_synced(draft, (content,), synced=False)
    except OSError as error:
        draft.unlink(missing_ok=True)
        if error.errno not in FULL or not path.exists() or path.stat().st_size != len(content):
            raise
        # A full disk still takes what needs no new block.
        with path.open("r+b", buffering=0) as file:
            file.write(content)
        return
    draft.replace(path)
