"""Notes in a segment's folder which files it was seen to save where no pattern names them.

Nothing on disk says later on whose they are: a database that is rebuilt from the folders would not find them again.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from backprop.scheduler.home.file_reading import read_if_there
from backprop.scheduler.home.run_folder import write_synced
from backprop.scheduler.records import CheckpointRecord

NOTED: Final = "seen.json"


class _Noted(msgspec.Struct, frozen=True):
    """`saved`: oldest first."""

    saved: tuple[CheckpointRecord, ...]
    format: int = 1


def note(folder: Path, number: int, saved: Sequence[CheckpointRecord]) -> None:
    """Note what segment `number` in `folder` was seen to save. `saved`: the run's checkpoints, newest first. Raises
    OSError."""
    own = [each for each in saved if each.segment == number and each.observed and each.refused is None]
    if not own:
        return
    draft = folder / f"{NOTED}.tmp"
    write_synced(draft, (msgspec.json.encode(_Noted(tuple(reversed(own)))),))
    draft.replace(folder / NOTED)


def noted(folder: Path, run_id: str, number: int) -> list[CheckpointRecord]:
    """Return what was noted of segment `number` of a run, oldest first. Raises OSError."""
    content = read_if_there(folder / NOTED)
    try:
        found = msgspec.json.decode(content, type=_Noted).saved if content is not None else ()
    except msgspec.DecodeError:
        return []
    return [msgspec.structs.replace(each, run_id=run_id, segment=number) for each in found]
