"""Queues the runs of a batch, all or none: one file, then one transaction.

A crash between the two leaves the file, and the next worker's start queues everything in it.
"""

import contextlib
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec

from backprop.cli.submit.enqueue import completed, no_room, was_queued
from backprop.cli.submit.many.drafts import Drafts
from backprop.cli.submit.names import NAME_LIMIT
from backprop.cli.submit.parents import Parents, refuse_too_many_links
from backprop.scheduler.errors import BackpropError, BadCommand
from backprop.scheduler.home import batch_file
from backprop.scheduler.home.file_reading import is_there
from backprop.scheduler.home.layout import Home
from backprop.scheduler.spec import GroupRules, QueuePosition
from backprop.scheduler.store.writes.enqueue import enqueue_all

if TYPE_CHECKING:
    from backprop.scheduler.store.connection import Database

ID_TRIES: Final = 20


def enqueue_many(
    home: Home, database: "Database", drafts: Drafts, named: bool, rules: GroupRules, now_s: float
) -> tuple[str, Sequence[str]] | None:
    """Queue the runs; return the group's name and the runs' ids. None: nothing was queued, since somebody else has
    queued one with the same key meanwhile. Raises BadCommand, DatabaseBusy.

    `named`: the user named the group; otherwise its name in `rules` is replaced by one made of the batch's id.
    """
    from backprop.worker.supervisor import failpoint

    ids = _free_ids(home, database, drafts)
    stem = drafts.stem[: NAME_LIMIT - len(ids.batch) - 1]
    group = rules if named else msgspec.structs.replace(rules, name=f"{stem}-{ids.batch}")
    members = _members(database, drafts, ids.members, group.name)
    try:
        members = _with_code(home, ids.batch, drafts, members)

        def write() -> None:
            # The transaction may be tried again.
            if not is_there(home.batch_file(ids.batch)):
                batch_file.write(home, ids.batch, members, drafts.environment, now_s, group)
            failpoint.at("batch written")

        if all(member.spec.key is None for member in members):
            write()
            enqueue_all(database, members, now_s, group=group, batch=ids.batch)
        else:
            from backprop.scheduler.store import keys

            if completed(
                home,
                database,
                lambda: keys.enqueue_once(database, members, now_s, write, group=group, batch=ids.batch),
            ):
                batch_file.remove(home, ids.batch)
                return None
    except BaseException as error:
        # An interrupt may come just after the commit, and a worker that starts may have queued what the file holds.
        if not was_queued(database, ids.members[0], error):
            batch_file.remove(home, ids.batch)
        if isinstance(error, OSError):
            raise no_room(home, error) from error
        raise
    _note(home, ids.batch, drafts, members)
    return group.name, ids.members


def positions_of(database: "Database | None", drafts: Drafts, ids: Sequence[str]) -> list[QueuePosition]:
    """Return where each run goes in the queue. A line's run may wait for those of the lines above it.

    Raises BadCommand, UnknownRun and AmbiguousRun, naming the line.
    """
    parents = Parents(database)
    positions = list[QueuePosition]()
    for draft, run_id in zip(drafts.runs, ids, strict=True):
        try:
            positions.append(parents.position_of(draft.position))
        except BackpropError as error:
            raise type(error)(f"{draft.where}: {error}" if draft.where else str(error)) from error
        if draft.where:
            parents.add(run_id, draft.name)
    refuse_too_many_links(positions)
    return positions


class _Ids(msgspec.Struct, frozen=True):
    """Unused ids for a batch and its members."""

    batch: str
    members: Sequence[str]


def _free_ids(home: Home, database: "Database", drafts: Drafts) -> _Ids:
    """Return `3fa2-1`, `3fa2-2`, …; an array's end in its indices. Raises BadCommand when a chosen id is taken."""
    from backprop.scheduler.store.reads import queries

    chosen = set[str]()
    for draft in drafts.runs:
        if draft.run_id is None:
            continue
        exists = (
            queries.run_by_id(database, draft.run_id) is not None or home.run_folder(draft.run_id).exists()
        )
        if exists or draft.run_id in chosen:
            reason = "a run with that id exists" if exists else "a line above has that id"
            raise BadCommand(f"{draft.where}: --run-id {draft.run_id} is taken: {reason}; choose another")
        chosen.add(draft.run_id)
    for attempt in range(ID_TRIES):
        batch = os.urandom(2 if attempt < ID_TRIES // 2 else 4).hex()
        ids = [
            draft.run_id or f"{batch}-{draft.index if drafts.is_array else number}"
            for number, draft in enumerate(drafts.runs, 1)
        ]
        taken = batch_file.exists(home, batch) or queries.any_id_begins(database, f"{batch}-")
        if not taken and not any(os.path.lexists(home.run_folder(run_id)) for run_id in ids):
            return _Ids(batch, ids)
    raise BadCommand(f"no free id found in {home.runs}")


def _members(database: "Database", drafts: Drafts, ids: Sequence[str], group: str) -> list[batch_file.Member]:
    positions = positions_of(database, drafts, ids)
    return [
        batch_file.Member(
            id=run_id,
            name=draft.name,
            number=number,
            spec=draft.spec,
            place=msgspec.structs.replace(position, group=group, array_index=draft.index),
            environment=dict(draft.environment),
        )
        for number, (draft, run_id, position) in enumerate(zip(drafts.runs, ids, positions, strict=True))
    ]


def _note(home: Home, batch: str, drafts: Drafts, members: Sequence[batch_file.Member]) -> None:
    """Note what the runs were queued with. Where there is no folder to be had, nothing is noted."""
    from backprop.worker.environment.provenance import recorder

    folder = home.batch_folder(batch)
    with contextlib.suppress(OSError):
        folder.mkdir(mode=0o700, exist_ok=True)
        recorder.keep(home, folder, (member.spec for member in members), drafts.environment, own=False)


def _with_code(
    home: Home, batch: str, drafts: Drafts, members: Sequence[batch_file.Member]
) -> list[batch_file.Member]:
    """Return the members with one copy of the code for all that have the same. Raises OSError."""
    copies: dict[Any, str] = {}
    for code in dict.fromkeys(draft.code for draft in drafts.runs if draft.code is not None):
        from backprop.worker.environment import code_snapshot

        folder = home.batch_folder(batch) / str(len(copies) + 1)
        for made in (home.batches, folder.parent, folder):  # `parents=True` would leave those above open
            made.mkdir(mode=0o700, exist_ok=made != folder)
        copies[code] = str(code_snapshot.take(code, folder))
    return [
        member
        if draft.code is None
        else msgspec.structs.replace(
            member, spec=msgspec.structs.replace(member.spec, code=copies[draft.code])
        )
        for draft, member in zip(drafts.runs, members, strict=True)
    ]
