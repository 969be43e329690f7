"""Many runs in one command: all are queued, or none is."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import click
import msgspec

from backprop.cli.context import open_existing, open_home
from backprop.cli.global_options import Globals
from backprop.cli.render.command_text import command_text
from backprop.cli.render.terminal_text import safe
from backprop.cli.submit import drafts
from backprop.cli.submit.drafts import Draft, Drafts
from backprop.cli.submit.queue_options import Parents, group_of, refuse_too_many_links, with_keeping
from backprop.cli.submit.submission import NAME_LIMIT, no_room, was_queued
from backprop.scheduler.errors import BackpropError, BadCommand
from backprop.scheduler.home import batch_file
from backprop.scheduler.home.layout import Home
from backprop.scheduler.spec import GroupRules, QueuePosition
from backprop.scheduler.store.writes import enqueue

if TYPE_CHECKING:
    from backprop.cli.submit.drafts import Make
    from backprop.scheduler.store.connection import Database

SHOWN: Final = 20
ID_TRIES: Final = 20
SWEEPS: Final = ("grid", "array", "params")


def command(ctx: click.Context, words: Sequence[str], given: Globals, make: "Make", now_s: float) -> int:
    """`backprop run` with --grid, --array, --params or --batch. `words`: SCRIPT and its arguments."""
    values = ctx.params
    if values["follow"]:
        raise click.UsageError("--follow shows one run; these are many", ctx)
    if values["batch"] is not None:
        if words or any(values[name] for name in SWEEPS) or values["run_id"] is not None:
            told = "the commands stand in the file: no SCRIPT, --grid, --array, --params or --run-id beside --batch"
            raise click.UsageError(told, ctx)
        found = drafts.of_file(values, ctx.command, make, now_s)
    else:
        if not words:
            raise click.UsageError("SCRIPT is missing", ctx)
        found = drafts.of_sweep(words, values, make, now_s)
    for note in found.notes:
        click.echo(f"note: {safe(note)}", err=True)
    rules = group_of(values["group"] or "group", values["parallel"], found.at_once)
    rules = with_keeping(rules, values["keep_best"], values["metric"])
    named = rules if values["group"] else None
    if given.dry_run:
        return _describe(found, named, None if given.verbose else SHOWN)
    home, database = open_home()
    group, ids = _queue(home, database, found, named, rules, now_s)
    return _tell(home, group, ids, found, values["quiet"])


@dataclass(frozen=True)
class _Named:
    """Ids for a batch and its members that nothing has yet."""

    batch: str
    ids: Sequence[str]


def _queue(
    home: Home,
    database: "Database",
    found: Drafts,
    named: GroupRules | None,
    rules: GroupRules | None,
    now_s: float,
) -> tuple[str, Sequence[str]]:
    """One file, then one transaction. A crash between the two leaves the file, and the next worker's start queues all
    that is in it. Returns the group's name and the ids. Raises BadCommand, DatabaseBusy."""
    from backprop.worker.supervisor import failpoint

    chosen = _free_ids(home, database, found)
    stem = found.stem[: NAME_LIMIT - len(chosen.batch) - 1]
    group = named or msgspec.structs.replace(rules or GroupRules(name=""), name=f"{stem}-{chosen.batch}")
    members = _members(database, found, chosen.ids, group.name)
    try:
        members = _with_code(home, chosen.batch, found, members)
        batch_file.write(home, chosen.batch, members, found.environment, now_s, group)
        failpoint.at("batch written")
        enqueue.enqueue_all(database, members, now_s, group=group, batch=chosen.batch)
    except BaseException as error:
        # An interrupt may come just after the commit, and a worker that starts may have queued what the file holds.
        if not was_queued(database, chosen.ids[0], error):
            batch_file.remove(home, chosen.batch)
        if isinstance(error, OSError):
            raise no_room(home, error) from error
        raise
    return group.name, chosen.ids


def _members(database: "Database", found: Drafts, ids: Sequence[str], group: str) -> list[batch_file.Member]:
    places = _places(database, found, ids)
    return [
        batch_file.Member(
            id=run_id,
            name=draft.name,
            number=number,
            spec=draft.spec,
            place=msgspec.structs.replace(place, group=group, array_index=draft.index),
            environment=dict(draft.environment),
        )
        for number, (draft, run_id, place) in enumerate(zip(found.runs, ids, places, strict=True))
    ]


def _places(database: "Database | None", found: Drafts, ids: Sequence[str]) -> list[QueuePosition]:
    """A line's run may wait for those of the lines above it."""
    parents = Parents(database)
    places = list[QueuePosition]()
    for draft, run_id in zip(found.runs, ids, strict=True):
        try:
            places.append(parents.place_of(draft.placing))
        except BackpropError as error:
            raise type(error)(f"{draft.where}: {error}" if draft.where else str(error)) from error
        if draft.where:
            parents.add(run_id, draft.name)
    refuse_too_many_links(places)
    return places


def _free_ids(home: Home, database: "Database", found: Drafts) -> _Named:
    """`3fa2-1`, `3fa2-2`, …; of an array by its indices. Raises BadCommand when a chosen id is taken."""
    from backprop.scheduler.store.reads import queries

    own = set[str]()
    for draft in found.runs:
        if draft.run_id is None:
            continue
        there = (
            queries.run_by_id(database, draft.run_id) is not None or home.run_folder(draft.run_id).exists()
        )
        if there or draft.run_id in own:
            told = "a run with that id exists" if there else "a line above has that id"
            raise BadCommand(f"{draft.where}: --run-id {draft.run_id} is taken: {told}; choose another")
        own.add(draft.run_id)
    for attempt in range(ID_TRIES):
        batch = os.urandom(2 if attempt < ID_TRIES // 2 else 4).hex()
        ids = [
            draft.run_id or f"{batch}-{draft.index if found.is_array else number}"
            for number, draft in enumerate(found.runs, 1)
        ]
        taken = batch_file.exists(home, batch) or queries.any_id_begins(database, f"{batch}-")
        if not taken and not any(os.path.lexists(home.run_folder(run_id)) for run_id in ids):
            return _Named(batch, ids)
    raise BadCommand(f"no free id found in {home.runs}")


def _with_code(
    home: Home, batch: str, found: Drafts, members: Sequence[batch_file.Member]
) -> list[batch_file.Member]:
    """With one copy of the code for all that have the same. Raises OSError."""
    taken: dict[Any, str] = {}
    for code in dict.fromkeys(draft.code for draft in found.runs if draft.code is not None):
        from backprop.worker.environment import code_snapshot

        folder = home.batch_folder(batch) / str(len(taken) + 1)
        folder.mkdir(mode=0o700, parents=True)
        taken[code] = str(code_snapshot.take(code, folder))
    return [
        member
        if draft.code is None
        else msgspec.structs.replace(
            member, spec=msgspec.structs.replace(member.spec, code=taken[draft.code])
        )
        for draft, member in zip(found.runs, members, strict=True)
    ]


def _describe(found: Drafts, named: GroupRules | None, shown: int | None) -> int:
    """Print what would be queued, after the same checks. Writes nothing."""
    from backprop.cli.render.tables import print_table

    _, database = open_existing()
    _places(database, found, [draft.run_id or "" for draft in found.runs])
    rows = [
        (str(number), draft.name, command_text(draft.spec), _extra(draft))
        for number, draft in enumerate(found.runs[:shown], 1)
    ]
    click.echo(f"would queue {_counted(len(found.runs))}, group {named.name if named else found.stem + '-…'}")
    print_table(("", "NAME", "COMMAND", "ENVIRONMENT"), rows, ("",))
    if shown is not None and len(found.runs) > shown:
        click.echo(f"… and {len(found.runs) - shown:,} more; all of them with --verbose")
    return 0


def _extra(draft: Draft) -> str:
    index = () if draft.index is None else (f"BACKPROP_ARRAY_INDEX={draft.index}",)
    return " ".join([*index, *(f"{key}={value}" for key, value in draft.environment.items())])


def _tell(home: Home, group: str, ids: Sequence[str], found: Drafts, quiet: bool) -> int:
    from backprop.worker.wakeup import wake_workers

    awake = wake_workers(home.locks)
    if quiet:
        click.echo("\n".join(ids))
        return 0
    click.echo(
        f"queued {_counted(len(ids))}, group {group}, ids {ids[0]}{' to ' + ids[-1] if len(ids) > 1 else ''}"
    )
    begins = max(draft.placing.begin_s for draft in found.runs)
    for condition in enqueue.conditions(QueuePosition(begin_s=begins)):
        click.echo(" ".join(condition), err=True)
    if not awake:
        click.echo("no worker is running; start one (in tmux, say) with: backprop worker", err=True)
    return 0


def _counted(count: int) -> str:
    return f"{count:,} run{'s' if count != 1 else ''}"
