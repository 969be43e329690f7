"""Where are the specifications of runs that were queued together, until each has a folder of its own?

    batches/<id>.jsonl        a header with the environment and the group's rules, then one line a member
    batches/<id>.ends.jsonl   what became of members without a folder: ended, or removed
    batches/<id>/             the code of all of them, where a snapshot was asked for

One synced file for ten thousand runs, where a folder each would take twenty thousand syncs. A member gets its folder
when something has to be written into it; from then on the folder counts and not the line. Neither file is changed, but
for lines added to the second; both go when no member needs them any more. The code stays until `remove`.
"""

import contextlib
import json
import mmap
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from backprop.scheduler.home import run_folder
from backprop.scheduler.home.layout import Home
from backprop.scheduler.home.run_folder import OutcomeFile, SpecFile
from backprop.scheduler.lifecycle import FINAL, State
from backprop.scheduler.records import RunRef
from backprop.scheduler.spec import GroupRules, NewRun, created_s

FORMAT: Final = 1
MANY: Final = 100
"""Two syncs each are a matter of seconds from here on."""


class BatchHeader(msgspec.Struct, frozen=True, kw_only=True):
    """The first line. `environment`: of the shell that queued them."""

    format: int
    batch: str
    created_at_s: float
    group: GroupRules | None
    environment: dict[str, str]


class Member(NewRun, frozen=True, kw_only=True):
    """One line. `number`: counted from 0. `environment`: what this member has over the header's."""

    number: int = 0
    environment: dict[str, str] = {}  # noqa: RUF012 - msgspec copies it


class BatchOutcomeLine(msgspec.Struct, frozen=True, kw_only=True):
    """A line of the second file. `outcome` None: the run was removed."""

    id: str
    outcome: OutcomeFile | None = None


@dataclass(frozen=True)
class Batch:
    """A batch as its files tell it. `members`: those without a folder that were not removed. `outcomes`: of those that
    have ended."""

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
    """Have all members on disk. Raises OSError; FileExistsError when there is a batch of that id."""
    header = {
        "format": FORMAT,
        "batch": batch,
        "created_at_s": now_s,
        "group": msgspec.to_builtins(group),
        "environment": dict(environment),
    }
    path = _path(home, batch)
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
    """Delete all there is of a batch: none of its members was queued, or all of them are removed. Raises nothing."""
    for path in (_path(home, batch), _ends_path(home, batch)):
        with contextlib.suppress(OSError):
            path.unlink()
    shutil.rmtree(folder(home, batch), ignore_errors=True)


def folder(home: Home, batch: str) -> Path:
    """Where copies of code are that its members share. It is there only if there are any."""
    return home.batches / batch


def exists(home: Home, batch: str) -> bool:
    """Whether anything is kept under this id."""
    return _path(home, batch).exists() or folder(home, batch).exists()


def materialise(home: Home, run: RunRef) -> bool:
    """See to it that the run has its folder. To be called before anything is written there. False when neither a folder
    nor a batch knows it. Raises OSError."""
    own = home.run_folder(run.id)
    if run.batch is None or run.segment > 0 or (own / "spec.json").exists():
        return own.exists()
    found = _find(_path(home, run.batch), run.id)
    if found is None:
        return (own / "spec.json").exists()
    header, member = found
    own.mkdir(mode=0o700, exist_ok=True)
    run_folder.write_first(own, spec_file(header, member), header.environment | member.environment)
    return True


def write_outcomes(home: Home, ended: Sequence[tuple[RunRef, OutcomeFile]]) -> None:
    """Put down how runs ended, each where its specification is. One sync a batch; none for folders where they are many:
    the database knows it, and to lose that and the power at once is more than this is for. Raises OSError."""
    lines: dict[str, list[BatchOutcomeLine]] = {}
    for run, outcome in ended:
        own = home.run_folder(run.id)
        if run.batch is None or (own / "spec.json").exists():
            run_folder.write_outcome(own, outcome, synced=len(ended) <= MANY)
        else:
            lines.setdefault(run.batch, []).append(BatchOutcomeLine(id=run.id, outcome=outcome))
    for batch, ends in lines.items():
        _add(home, batch, ends)


def clear_outcomes(home: Home, runs: Sequence[RunRef]) -> None:
    """These go on, wherever it was put down that they had ended. Raises OSError."""
    lines: dict[str, list[BatchOutcomeLine]] = {}
    for run in runs:
        own = home.run_folder(run.id)
        if run.batch is None or (own / "spec.json").exists():
            run_folder.clear_outcome(own)
        else:
            lines.setdefault(run.batch, []).append(BatchOutcomeLine(id=run.id, outcome=_goes_on(run.segment)))
    for batch, ends in lines.items():
        _add(home, batch, ends)


def forget(home: Home, batch: str, ids: Sequence[str]) -> dict[str, OutcomeFile | None]:
    """These members are removed and must not come back. To be called before their rows and folders are deleted, and
    `tidy` after that. What was put down of each before, for `remember`. Raises OSError."""
    if not _path(home, batch).exists():
        return {}
    known = {end.id: end.outcome for end in _ends(home, batch)}
    _add(home, batch, [BatchOutcomeLine(id=run_id) for run_id in ids])
    return {run_id: known.get(run_id) for run_id in ids}


def remember(home: Home, batch: str, before: Mapping[str, OutcomeFile | None]) -> None:
    """They were not removed after all. Raises OSError."""
    if before and _path(home, batch).exists():
        _add(
            home,
            batch,
            [BatchOutcomeLine(id=run_id, outcome=one or _goes_on(0)) for run_id, one in before.items()],
        )


def names(home: Home) -> list[str]:
    """The ids of the batches that there are. Raises OSError."""
    if not home.batches.is_dir():
        return []
    return sorted(path.stem for path in home.batches.glob("*.jsonl") if not path.name.endswith(".ends.jsonl"))


def read(home: Home, batch: str) -> Batch | None:
    """Those members whose folder is missing; None when the file is gone, damaged or of a later format."""
    ends = {end.id: end.outcome for end in _ends(home, batch)}
    try:
        with _path(home, batch).open("rb") as file:
            header = _header(next(file))
            gone = {run_id for run_id, outcome in ends.items() if outcome is None}
            members = [member for line in file if (member := _member(line)).id not in gone]
    except (OSError, ValueError, StopIteration):
        return None
    if header.format != FORMAT:
        return None
    waiting = [one for one in members if not (home.run_folder(one.id) / "spec.json").exists()]
    ended = {run_id: one for run_id, one in ends.items() if one is not None and one.state in FINAL}
    return Batch(header, waiting, ended)


def tidy(home: Home, batch: str) -> None:
    """Delete the batch's files once each member has its folder or is removed."""
    found = read(home, batch)
    if found is not None and not found.members:
        with contextlib.suppress(OSError):
            run_folder.sync(home.runs)
            _path(home, batch).unlink(missing_ok=True)
            _ends_path(home, batch).unlink(missing_ok=True)


def spec_file(header: BatchHeader, member: Member) -> SpecFile:
    """What the member's `spec.json` holds."""
    return SpecFile(
        id=member.id,
        name=member.name,
        created_at_s=created_s(header.created_at_s, member.number),
        spec=member.spec,
        place=member.place,
        group=header.group,
        batch=header.batch,
    )


def _path(home: Home, batch: str) -> Path:
    return home.batches / f"{batch}.jsonl"


def _ends_path(home: Home, batch: str) -> Path:
    return home.batches / f"{batch}.ends.jsonl"


def _line(member: Member) -> bytes:
    """The id comes first: `_find` looks for it there. An environment may hold what is not UTF-8; see `folders`."""
    rest = msgspec.json.encode(
        {"name": member.name, "number": member.number, "place": member.place, "spec": member.spec}
    )
    environment = json.dumps(member.environment).encode("ascii")
    return b'{"id":"%b",%b,"environment":%b}\n' % (member.id.encode(), rest[1:-1], environment)


def _header(line: bytes) -> BatchHeader:
    return msgspec.convert(json.loads(line), BatchHeader)


def _member(line: bytes) -> Member:
    return msgspec.convert(json.loads(line), Member)


_last: dict[Path, int] = {}
"""Where the last member was found in each file: the next one asked for mostly follows it."""


def _find(path: Path, run_id: str) -> tuple[BatchHeader, Member] | None:
    """A member and its batch's header. None when there is no such line."""
    wanted = b'\n{"id":"%b"' % run_id.encode()
    with contextlib.suppress(FileNotFoundError, ValueError, KeyError), path.open("rb") as file:
        header = _header(file.readline())
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
            at = text.find(wanted, _last.get(path, 0))
            at = at if at >= 0 else text.find(wanted)
            if at >= 0:
                _last[path] = at
                text.seek(at + 1)
                return header, _member(text.readline())
    return None


def _goes_on(segment: int) -> OutcomeFile:
    """The last line about a run counts, and a state that is not final is no end."""
    return OutcomeFile(state=State.QUEUED.value, reason="resumed", segment=segment, ended_at_s=0.0)


def removed(home: Home, batch: str) -> set[str]:
    """The members that were removed."""
    last = {one.id: one.outcome for one in _ends(home, batch)}
    return {run_id for run_id, outcome in last.items() if outcome is None}


def _ends(home: Home, batch: str) -> Iterator[BatchOutcomeLine]:
    """A line that a crash cut short is passed over: what it told was not done yet."""
    with contextlib.suppress(FileNotFoundError):
        for line in _ends_path(home, batch).read_bytes().splitlines():
            with contextlib.suppress(msgspec.DecodeError):
                yield msgspec.json.decode(line, type=BatchOutcomeLine)


def _add(home: Home, batch: str, ends: Sequence[BatchOutcomeLine]) -> None:
    """In one write at the end: lines of several processes do not mix."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
    handle = os.open(_ends_path(home, batch), flags, 0o600)
    try:
        # A newline first: after a crash the last line may have no end.
        os.write(handle, b"".join(b"\n" + msgspec.json.encode(end) for end in ends) + b"\n")
        os.fsync(handle)
    finally:
        os.close(handle)
    run_folder.sync(home.batches)
