"""Sets a segment's promise to other homes aside while its VRAM is in RAM, and takes it up before that comes back.

    promise    in the segment's folder: where its promise lies on the board

Both are done under `vram.lock`, so that nobody moves the VRAM meanwhile. A promise that is taken up counts from then
on; but others have promised since. So theirs are read after that, as at a start: of two homes one at least sees the
other. What a crash leaves in between counts, and has still to be compared with theirs. A segment whose promise is not
known here keeps it all the time.
"""

import contextlib
import os
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Final

from backprop.scheduler.home.file_reading import read_if_there
from backprop.scheduler.home.run_folder import write_synced
from backprop.worker.executor import board, locks
from backprop.worker.executor.vram import move_files

NOTE: Final = "promise"


def note(folder: Path, promise: int) -> None:
    """Note where the promise lies that a segment is started with. `promise`: its descriptor. Raises nothing."""
    with contextlib.suppress(OSError):
        path = os.readlink(f"/proc/self/fd/{promise}")  # noqa: PTH115
        write_synced(folder / NOTE, (os.fsencode(path),), synced=False)


def set_aside(folder: Path, is_ours: Callable[[], bool]) -> None:
    """Have a promise count for nothing while the VRAM is in RAM. `is_ours`: whether the segment is still this worker's,
    asked once nobody else may go on with it. Where this can't be done it counts. Raises what `is_ours` raises."""
    with contextlib.suppress(OSError), _quiet(folder) as is_quiet:
        path = _path(folder)
        if path is not None and is_quiet and move_files.out_mib(folder) is not None and is_ours():
            board.set_aside(path)


def take_up(folder: Path, mib: int) -> bool:
    """Have a promise count again, of `mib` at least; return whether it has still to be compared with those of others.
    Raises OSError where that can't be done: then nothing may come back."""
    path = _path(folder)
    if path is None or not board.is_aside(path):
        return False
    with _quiet(folder) as is_quiet:
        if not is_quiet:
            raise OSError("its VRAM is being moved")
        board.take_up(path, mib)
    return True


def settle(folder: Path) -> None:
    """Note that a promise which was taken up fits beside those of others. Raises OSError."""
    path = _path(folder)
    if path is not None:
        board.settle(path)


@contextlib.contextmanager
def _quiet(folder: Path) -> Generator[bool]:
    """Keep movers away from the segment; say whether that could be done. Raises OSError."""
    handle = locks.take(folder / move_files.LOCK)
    try:
        yield handle is not None
    finally:
        if handle is not None:
            os.close(handle)


def _path(folder: Path) -> Path | None:
    content = read_if_there(folder / NOTE)
    return Path(os.fsdecode(content)) if content else None
