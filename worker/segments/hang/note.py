"""The note on a hang in the segment's folder, `hang.json`: written before any signal is sent for it.

It holds the very words that the run is then asked to end with. A note whose words are not those of the run's intent
says nothing: its worker died in between, or the segment was asked for something else.
"""

from pathlib import Path
from typing import Final

import msgspec

from backprop.scheduler.home.file_reading import read_if_there
from backprop.scheduler.home.run_folder import write_synced
from backprop.scheduler.lifecycle import Intent
from backprop.scheduler.records import RunRecord

HANG: Final = "hang.json"


class HangFile(msgspec.Struct, frozen=True, kw_only=True):
    """`why`: in words. `silent_s`, `usual_s`: as of `Hang`. `at_s`: Unix seconds."""

    format: int = 1
    why: str
    silent_s: float
    usual_s: float
    at_s: float


def write(folder: Path, note: HangFile) -> None:
    """Write it, synced, whole or not at all. Raises OSError."""
    draft = folder / f"{HANG}.tmp"
    write_synced(draft, (msgspec.json.encode(note),))
    draft.replace(folder / HANG)


def withdraw(folder: Path) -> None:
    """Remove the note. Raises OSError."""
    (folder / HANG).unlink(missing_ok=True)


def why_hung(folder: Path, run: RunRecord) -> str | None:
    """Return why a segment that was asked to end had hung; None where it was asked for anything else. Without an intent
    the database has forgotten it. Raises OSError."""
    if run.intent not in (Intent.YIELD, None):
        return None
    content = read_if_there(folder / HANG)
    try:
        note = msgspec.json.decode(content, type=HangFile) if content is not None else None
    except msgspec.DecodeError:
        return None
    return note.why if note is not None and run.intent_why in (None, note.why) else None
