"""Keeps the specifications of runs that were queued together, until each has a folder of its own.

    batches/<id>.jsonl        a header with the environment and the group's rules, then one line per member
    batches/<id>.ends.jsonl   how members without a folder ended: see `batch_outcomes`
    batches/<id>/             the code that all members share, where a snapshot was asked for

One synced file holds ten thousand runs; a folder for each would take twenty thousand syncs. One syncfs instead was
measured and rejected: docs/design/decisions/batch-file.md. A member gets its folder when something has to be written
into it; from then on the folder counts and not the line. The file itself never changes. It is deleted when no member
needs it any more; the code stays until the batch is removed.
"""

import contextlib
import json
import mmap
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from backprop.scheduler.home import batch_outcomes, run_folder
from backprop.scheduler.home.file_reading import NOT_THERE, is_there, open_regular
from backprop.scheduler.home.layout import Home
from backprop.scheduler.home.run_folder import OutcomeFile, SpecFile
from backprop.scheduler.lifecycle import FINAL
from backprop.scheduler.records import RunRef
from backprop.scheduler.spec import GroupRules, NewRun, created_s

FORMAT: Final = 1


class BatchHeader(msgspec.Struct, frozen=True, kw_only=True):
    """The first line. `environment`: that of the shell that queued the runs. `scrubbed`: see `SpecFile`."""

    format: int
    batch: str
    created_at_s: float
    group: GroupRules | None
    environment: dict[str, str]
    scrubbed: tuple[str, ...] = ()


class Member(NewRun, frozen=True, kw_only=True):
    """One line. `number`: counted from 0. `environment`: what this member adds to the header's."""

    number: int = 0
    environment: dict[str, str] = {}  # noqa: RUF012 - msgspec copies it


class Batch(msgspec.Struct, frozen=True):
    """A batch as its files describe it. `members`: those that have and had no folder, and were not removed.
    `outcomes`: how members without a folder ended."""

    header: BatchHeader
    members: Sequence[Member]
    outcomes: Mapping[str, OutcomeFile]


def write(
    home: Home,
    batch: str,
    members: Sequence[Member],
    environment: Mapping[str, str],
    now_s: float,
    group: GroupRules | None,
) -> None:
    """Write a new batch and sync it. Raises FileExistsError when the id is taken, and any other OSError."""
    header = {
        "format": FORMAT,
        "batch": batch,
        "created_at_s": now_s,
        "group": msgspec.to_builtins(group),
        "environment": dict(environment),
    }
    path = home.batch_file(batch)
    home.batches.mkdir(mode=0o700, exist_ok=True)
    draft = path.with_suffix(f".{os.getpid()}.part")
    try:
        first = json.dumps(header).encode("ascii") + b"\n"
        run_folder.write_synced(draft, (first, *map(_line, members)))
        os.link(draft, path, follow_symlinks=False)
    finally:
        draft.unlink(missing_ok=True)
    run_folder.sync(home.batches)
    run_folder.sync(home.root)


def remove(home: Home, batch: str) -> None:
    """Delete a batch and its shared code, when no member was queued or all are removed. Raises nothing."""
    for path in (home.batch_file(batch), home.batch_outcomes(batch)):
        with contextlib.suppress(OSError):
            path.unlink()
    shutil.rmtree(home.batch_folder(batch), ignore_errors=True)


def exists(home: Home, batch: str) -> bool:
    """Return whether the home holds a file or shared code of this batch. Raises OSError."""
    return is_there(home.batch_file(batch)) or is_there(home.batch_folder(batch))


def materialise(home: Home, run: RunRef) -> bool:
    """Create the run's folder if it has none yet. Call it before anything is written into the folder.

    Returns False when neither a folder nor a batch holds the run: it was removed, or its folder was. Raises OSError.
    """
    own = home.run_folder(run.id)
    if run.batch is None or run.segment > 0 or is_there(own / "spec.json"):
        return is_there(own)
    if batch_outcomes.has_left(home, run.batch, run.id):
        return is_there(own / "spec.json")
    match = _find(home.batch_file(run.batch), run.id)
    if match is None:
        return is_there(own / "spec.json")
    header, member = match
    with contextlib.suppress(FileExistsError):
        run_folder.make(home, run.id, member.spec.share)
    run_folder.write_first(own, spec_file(header, member), header.environment | member.environment)
    batch_outcomes.mark_left(home, run.batch, run.id)
    return True


def holds(home: Home, run: RunRef) -> bool:
    """Return whether a folder or a batch holds the run. Raises OSError."""
    if run.batch is None or is_there(home.run_folder(run.id) / "spec.json"):
        return is_there(home.run_folder(run.id) / "spec.json")
    return not batch_outcomes.has_left(home, run.batch, run.id) and (
        _find(home.batch_file(run.batch), run.id) is not None
    )


def environment_of(home: Home, run: RunRef) -> dict[str, str]:
    """Return the environment of the shell that queued the run; empty where that is not to be had. Raises OSError."""
    own = home.run_folder(run.id)
    if run.batch is None or is_there(own / "spec.json"):
        return run_folder.read_environment(own)
    match = _find(home.batch_file(run.batch), run.id)
    return match[0].environment | match[1].environment if match is not None else {}


def names(home: Home) -> list[str]:
    """Return the ids of all batches. Raises OSError."""
    try:
        # Not by glob, which finds nothing in a folder that cannot be read.
        found = [path for path in home.batches.iterdir() if path.suffix == ".jsonl"]
    except NOT_THERE:
        return []
    return sorted(path.stem for path in found if not path.name.endswith(".ends.jsonl"))


def read(home: Home, batch: str) -> Batch | None:
    """Return a batch; None when its file is missing, damaged or of a later format. Raises OSError."""
    outcomes = batch_outcomes.read(home, batch)
    try:
        with open(open_regular(home.batch_file(batch)), "rb") as file:  # noqa: PTH123
            header = msgspec.convert(json.loads(next(file)), BatchHeader)
            removed = {run_id for run_id, outcome in outcomes.items() if outcome is None}
            members = [member for line in file if (member := _member(line)).id not in removed]
    except (*NOT_THERE, ValueError, StopIteration):
        return None
    if header.format != FORMAT:
        return None
    waiting = [member for member in members if not is_there(home.run_folder(member.id) / "spec.json")]
    ended = {
        run_id: outcome
        for run_id, outcome in outcomes.items()
        if outcome is not None and outcome.state in FINAL
    }
    return Batch(header, waiting, ended)


def delete_unneeded(home: Home, batch: str) -> None:
    """Delete the batch's files once each member has a folder or is removed. Raises nothing."""
    with contextlib.suppress(OSError):
        content = read(home, batch)
        if content is not None and not content.members:
            run_folder.sync(home.runs)
            home.batch_file(batch).unlink(missing_ok=True)
            home.batch_outcomes(batch).unlink(missing_ok=True)


def spec_file(header: BatchHeader, member: Member) -> SpecFile:
    """Return the content of the member's `spec.json`."""
    return SpecFile(
        id=member.id,
        name=member.name,
        created_at_s=created_s(header.created_at_s, member.number),
        spec=member.spec,
        place=member.place,
        group=header.group,
        batch=header.batch,
        scrubbed=header.scrubbed,
    )


def _line(member: Member) -> bytes:
    """The id comes first, where `_find` searches for it. An environment need not be UTF-8: see `run_folder`."""
    rest = msgspec.json.encode(
        {"name": member.name, "number": member.number, "place": member.place, "spec": member.spec}
    )
    environment = json.dumps(member.environment).encode("ascii")
    return b'{"id":"%b",%b,"environment":%b}\n' % (member.id.encode(), rest[1:-1], environment)


def _member(line: bytes) -> Member:
    return msgspec.convert(json.loads(line), Member)


_last: dict[Path, int] = {}
"""Offset of the last match in each file: the next member asked for usually follows it."""


def _find(path: Path, run_id: str) -> tuple[BatchHeader, Member] | None:
    """Return the header and a member; None when the file has no such line."""
    wanted = b'\n{"id":"%b"' % run_id.encode()
    with contextlib.suppress(*NOT_THERE, ValueError, KeyError), open(open_regular(path), "rb") as file:  # noqa: PTH123
        header = msgspec.convert(json.loads(file.readline()), BatchHeader)
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
            at = text.find(wanted, _last.get(path, 0))
            at = at if at >= 0 else text.find(wanted)
            if at >= 0:
                _last[path] = at
                text.seek(at + 1)
                return header, _member(text.readline())
    return None
