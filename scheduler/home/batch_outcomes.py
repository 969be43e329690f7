"""Records how members of a batch ended or were resumed before they had a folder, and which have left its file.

    batches/<id>.ends.jsonl   one line per change; the last line about a run counts

A member leaves the batch's file for good when it is removed, and when it gets a folder: whoever deletes that folder by
hand has removed the run. A run with a folder has its `outcome.json` instead. Lines are only appended, each change in
one write.
"""

import contextlib
import mmap
import os
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from backprop.scheduler.home import run_folder
from backprop.scheduler.home.file_reading import NOT_THERE, is_there, open_regular, read_if_there
from backprop.scheduler.home.layout import Home
from backprop.scheduler.home.run_folder import OutcomeFile
from backprop.scheduler.lifecycle import State
from backprop.scheduler.records import RunRef

MANY: Final = 100
"""Above this, two syncs per folder take seconds."""


class BatchOutcomeLine(msgspec.Struct, frozen=True, kw_only=True):
    """A line of the file. `outcome` None: the line in the batch's file counts no more, because the run was removed or
    has had a folder of its own."""

    id: str
    outcome: OutcomeFile | None = None


def read(home: Home, batch: str) -> dict[str, OutcomeFile | None]:
    """Return the last recorded outcome of each member, None for one that has left the file. An outcome whose state is
    not final stands for a resume. Raises OSError."""
    outcomes: dict[str, OutcomeFile | None] = {}
    for line in (read_if_there(home.batch_outcomes(batch)) or b"").splitlines():
        # A crash cut the line short: what it was to record had not been done yet.
        with contextlib.suppress(msgspec.DecodeError):
            record = msgspec.json.decode(line, type=BatchOutcomeLine)
            outcomes[record.id] = record.outcome
    return outcomes


def removed(home: Home, batch: str) -> set[str]:
    """Return the ids of the members that have left the batch's file. Raises OSError."""
    return {run_id for run_id, outcome in read(home, batch).items() if outcome is None}


def write(home: Home, ended: Sequence[tuple[RunRef, OutcomeFile]]) -> None:
    """Record how runs ended, each in its folder or else beside its batch. Raises OSError.

    A batch takes one sync. More than `MANY` folders are not synced: the database holds the outcomes too, and nothing
    here has to survive the loss of both the database and the power at once.
    """
    lines: dict[str, list[BatchOutcomeLine]] = {}
    for run, outcome in ended:
        own = home.run_folder(run.id)
        if run.batch is None or is_there(own / "spec.json"):
            run_folder.write_outcome(own, outcome, synced=len(ended) <= MANY)
        else:
            lines.setdefault(run.batch, []).append(BatchOutcomeLine(id=run.id, outcome=outcome))
    for batch, records in lines.items():
        _append(home, batch, records)


def write_if_possible(
    home: Home, runs: Sequence[RunRef], state: State, reason: str, ended_at_s: float
) -> None:
    """As `write`, for runs that a user's word has ended. A failure undoes nothing."""

    def outcome(run: RunRef) -> OutcomeFile:
        return OutcomeFile(state=state.value, reason=reason, segment=run.segment, ended_at_s=ended_at_s)

    with contextlib.suppress(OSError):
        write(home, [(run, outcome(run)) for run in runs])


def clear(home: Home, runs: Sequence[RunRef]) -> None:
    """Take back the recorded outcomes of runs that are resumed. Raises OSError."""
    lines: dict[str, list[BatchOutcomeLine]] = {}
    for run in runs:
        own = home.run_folder(run.id)
        if run.batch is None or is_there(own / "spec.json"):
            run_folder.clear_outcome(own)
        else:
            lines.setdefault(run.batch, []).append(BatchOutcomeLine(id=run.id, outcome=_resumed(run.segment)))
    for batch, records in lines.items():
        _append(home, batch, records)


def has_left(home: Home, batch: str, run_id: str) -> bool:
    """Return whether a member has left the batch's file. Raises OSError."""
    wanted = b'\n{"id":"%b"' % run_id.encode()
    with (
        contextlib.suppress(*NOT_THERE, ValueError),  # an empty file cannot be mapped
        open(open_regular(home.batch_outcomes(batch)), "rb") as file,  # noqa: PTH123
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text,
    ):
        end = len(text)
        while (at := text.rfind(wanted, 0, end)) >= 0:
            # A line that a crash cut short does not count.
            with contextlib.suppress(msgspec.DecodeError):
                text.seek(at + 1)
                return msgspec.json.decode(text.readline(), type=BatchOutcomeLine).outcome is None
            end = at
    return False


def mark_left(home: Home, batch: str, run_id: str) -> None:
    """Note that a member has a folder of its own now. Not synced: the folder says so too. Raises OSError."""
    _append(home, batch, [BatchOutcomeLine(id=run_id)], synced=False)


def mark_removed(home: Home, batch: str, ids: Sequence[str]) -> dict[str, OutcomeFile | None]:
    """Keep these members from ever being put back. Call it before their rows and folders are deleted, and
    `batch_file.delete_unneeded` after that.

    Returns what was recorded before of each that had not left, for `unmark_removed`. Raises OSError.
    """
    if not is_there(home.batch_file(batch)):
        return {}
    outcomes = read(home, batch)
    _append(home, batch, [BatchOutcomeLine(id=run_id) for run_id in ids])
    left = {run_id for run_id, outcome in outcomes.items() if outcome is None}
    return {run_id: outcomes.get(run_id) for run_id in ids if run_id not in left}


def unmark_removed(home: Home, batch: str, before: Mapping[str, OutcomeFile | None]) -> None:
    """Undo `mark_removed`. Raises OSError."""
    if before and is_there(home.batch_file(batch)):
        lines = [
            BatchOutcomeLine(id=run_id, outcome=outcome or _resumed(0)) for run_id, outcome in before.items()
        ]
        _append(home, batch, lines)


def _resumed(segment: int) -> OutcomeFile:
    return OutcomeFile(state=State.QUEUED.value, reason="resumed", segment=segment, ended_at_s=0.0)


def _append(home: Home, batch: str, lines: Sequence[BatchOutcomeLine], *, synced: bool = True) -> None:
    """In one write at the end: lines of several processes do not mix."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
    handle = open_regular(home.batch_outcomes(batch), flags)
    try:
        # A newline first: after a crash the last line may have no end.
        os.write(handle, b"".join(b"\n" + msgspec.json.encode(line) for line in lines) + b"\n")
        if synced:
            os.fsync(handle)
    finally:
        os.close(handle)
    if synced:
        run_folder.sync(home.batches)
