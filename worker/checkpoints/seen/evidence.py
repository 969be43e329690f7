"""Gathers what was seen of the writing of one file: who had it open, and who wrote too little to have written it.

Reads files and what the witness knows; it runs where the user's files are looked at.
"""

import os
from pathlib import Path
from typing import Final

import msgspec

from backprop.worker.checkpoints.formats import files_in
from backprop.worker.checkpoints.seen.attribution import RunIds
from backprop.worker.checkpoints.seen.witness import OpenFile, Witness
from backprop.worker.checkpoints.validation import CheckpointFile
from backprop.worker.clock import set_since_s

SLACK_S: Final = 0.05
SLOW_BYTES_S: Final = 5e6
"""A slower save is long enough to be seen open."""
LONGEST_SAVE_S: Final = 60.0
LATE_S: Final = 5.0
"""A file that appears this long after its own time was written at another moment than that says."""
_APPENDED: Final = (".h5", ".hdf5")


class Seen(msgspec.Struct, frozen=True):
    """What was seen of one file's writing, between two times (Unix seconds, on the present wall clock). The rest is ids
    of runs, as in `attribution.Evidence`."""

    from_s: float
    to_s: float
    opened: RunIds = frozenset()
    idle: RunIds = frozenset()
    busy: RunIds = frozenset()


class _Part(msgspec.Struct, frozen=True):
    path: str
    inode: int
    size_bytes: int
    written_s: float


def seen_of(
    witness: Witness | None, file: CheckpointFile, appeared_s: float | None, changed_in_place: bool
) -> Seen:
    """Return what was seen of a file. `appeared_s`: when it was first found as it is now, as of `steady_s`; None where
    nobody looked. `changed_in_place`: another content of the same inode was there before. Raises nothing."""
    shift_s = set_since_s()
    written_s = file.mtime_ns / 1e9 + shift_s
    appeared_s = written_s if appeared_s is None else appeared_s
    parts = _parts(file)
    biggest = max(parts, key=lambda part: part.size_bytes)
    from_s = min(biggest.written_s + shift_s, written_s, appeared_s)
    from_s -= SLACK_S + min(biggest.size_bytes / SLOW_BYTES_S, LONGEST_SAVE_S)
    to_s = written_s + SLACK_S if 0 <= appeared_s - written_s <= LATE_S else appeared_s
    if witness is None:
        return Seen(from_s - shift_s, to_s - shift_s)
    appended = changed_in_place and file.path.suffix.lower() in _APPENDED
    need = 1 if appended else biggest.size_bytes
    opened, idle, busy = set[str](), set[str](), set[str]()
    for run_id in witness.known():
        written = witness.written(run_id, from_s, to_s)
        if written is not None:
            (busy if written >= need else idle).add(run_id)
        had_open = (each for each in witness.opened(run_id, from_s) if each.first_s <= to_s + LATE_S)
        if any(_is_part(each, part) for each in had_open for part in parts):
            opened.add(run_id)
    return Seen(from_s - shift_s, to_s - shift_s, frozenset(opened), frozenset(idle), frozenset(busy))


def _parts(file: CheckpointFile) -> list[_Part]:
    """Return the file, or the files of a folder that were written with it."""
    whole = _Part(str(file.path), 0, file.size_bytes, file.mtime_ns / 1e9)
    try:
        if not file.is_dir:
            return [_Part(whole.path, file.path.stat().st_ino, whole.size_bytes, whole.written_s)]
        parts = [_part(entry) for entry in files_in(str(file.path))]
    except OSError:
        return [whole]
    return [each for each in parts if whole.written_s - each.written_s <= LONGEST_SAVE_S] or [whole]


def _part(entry: os.DirEntry[str]) -> _Part:
    info = entry.stat(follow_symlinks=False)
    return _Part(entry.path, info.st_ino, info.st_size, info.st_mtime)


def _is_part(opened: OpenFile, part: _Part) -> bool:
    """Return whether it is this very file, perhaps under the name it had before: an inode counts near by alone."""
    if opened.path == part.path:
        return True
    near = {str(parent) for parent in list(Path(part.path).parents)[:2]}
    return opened.inode == part.inode != 0 and not near.isdisjoint(
        map(str, list(Path(opened.path).parents)[:2])
    )
