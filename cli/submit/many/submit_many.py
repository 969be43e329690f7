"""Carries out `backprop run` with --grid, --array, --params or --batch: many runs, of which all are queued or none."""

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import click
import msgspec

from backprop.cli.context import open_existing, open_home, say_findings, say_who_works, tell
from backprop.cli.options.global_options import Globals
from backprop.cli.render.terminal_text import command_text, safe
from backprop.cli.submit.enqueue import existing
from backprop.cli.submit.many.batch_drafts import of_file
from backprop.cli.submit.many.drafts import Draft, Drafts, of_sweep
from backprop.cli.submit.many.enqueue_many import enqueue_many, positions_of
from backprop.cli.submit.queue_options import group_rules
from backprop.scheduler.home.credentials import masked_value
from backprop.scheduler.home.layout import Home
from backprop.scheduler.spec import QueuePosition
from backprop.scheduler.store.writes.enqueue import conditions

if TYPE_CHECKING:
    from backprop.cli.submit.many.drafts import Make
    from backprop.scheduler.spec import GroupRules
    from backprop.scheduler.store.connection import Database

SHOWN: Final = 20
SWEEPS: Final = ("grid", "array", "params")


def command(ctx: click.Context, words: Sequence[str], given: Globals, make: "Make", now_s: float) -> int:
    """Queue the runs, or describe them on a dry run; return the exit code. `words`: SCRIPT and its arguments."""
    values = ctx.params
    drafts = _drafts(ctx, words, make, now_s)
    if not values["as_json"]:
        say_findings(drafts.notes, drafts.warnings)
    group: str | None = values["group"]
    rules = group_rules(group or "group", values, drafts.at_once)
    if given.dry_run:
        return _describe(drafts, group, None if given.verbose else SHOWN, values["as_json"])
    home, database = open_home()
    return _report(home, _queue(home, database, drafts, group is not None, rules, now_s), drafts, values)


class _Queued(NamedTuple):
    """All runs of a command. `existing`: ids of those that had been queued before."""

    group: str
    ids: Sequence[str]
    existing: Collection[str]

    @property
    def new(self) -> list[str]:
        return [run_id for run_id in self.ids if run_id not in self.existing]


def _queue(
    home: Home, database: "Database", drafts: Drafts, named: bool, rules: "GroupRules", now_s: float
) -> _Queued:
    """Queue the runs, but those whose keys are taken; where nobody named a group, beside these. Raises KeyReused, and
    what `enqueue_many` raises."""
    while True:
        wanted = {spec.key: spec.asked for draft in drafts.runs if (spec := draft.spec).key is not None}
        before = existing(home, database, wanted) if wanted else {}
        missing = [draft for draft in drafts.runs if draft.spec.key is None or draft.spec.key not in before]
        group = next((run.group_name for run in before.values() if run.group_name is not None), None)
        if not named and group is not None:
            rules, named = msgspec.structs.replace(rules, name=group), True
        done = (rules.name, ()) if not missing else None
        done = done or enqueue_many(
            home, database, msgspec.structs.replace(drafts, runs=missing), named, rules, now_s
        )
        if done is not None:
            new = iter(done[1])
            ids = [
                before[draft.spec.key].id if draft.spec.key in before else next(new) for draft in drafts.runs
            ]
            return _Queued(done[0], ids, {run.id for run in before.values()})


def _drafts(ctx: click.Context, words: Sequence[str], make: "Make", now_s: float) -> Drafts:
    values = ctx.params
    if values["follow"]:
        raise click.UsageError("--follow shows one run, and these are many", ctx)
    if values["batch"] is None:
        if not words:
            raise click.UsageError("SCRIPT is missing", ctx)
        return of_sweep(words, values, make, now_s)
    if words or any(values[name] for name in SWEEPS) or values["run_id"] is not None:
        raise click.UsageError(
            "--batch takes the commands from its file: leave out SCRIPT, --grid, --array, --params and --run-id",
            ctx,
        )
    if values["key"] is not None:
        raise click.UsageError("--key names one run or sweep; with --batch give each line its own", ctx)
    return of_file(values, ctx.command, make, now_s)


def _describe(drafts: Drafts, group: str | None, shown: int | None, as_json: bool) -> int:
    """Print what would be queued, after the same checks. Writes nothing."""
    from backprop.cli.render.tables import print_table
    from backprop.cli.submit import recipe_view
    from backprop.cli.submit.queued_json import queued_text

    _, database = open_existing()
    positions_of(database, drafts, [draft.run_id or "" for draft in drafts.runs])
    if as_json:
        click.echo(queued_text(_view(drafts, group, [draft.run_id for draft in drafts.runs], queued=False)))
        return 0
    rows = [
        (str(number), draft.name, command_text(draft.spec), _extra(draft))
        for number, draft in enumerate(drafts.runs[:shown], 1)
    ]
    click.echo(f"would queue {_counted(len(drafts.runs))}, group {group or drafts.stem + '-…'}")
    print_table(("", "NAME", "COMMAND", "ENVIRONMENT"), rows, ("",))
    if shown is not None and len(drafts.runs) > shown:
        click.echo(f"… and {len(drafts.runs) - shown:,} more; --verbose shows all of them")
    for line in recipe_view.lines_of_many([draft.spec for draft in drafts.runs]):
        click.echo(safe(line))
    return 0


def _extra(draft: Draft) -> str:
    index = () if draft.index is None else (f"BACKPROP_ARRAY_INDEX={draft.index}",)
    return " ".join(
        [*index, *(f"{key}={masked_value(key, value)}" for key, value in draft.environment.items())]
    )


def _view(
    drafts: Drafts, group: str | None, ids: Sequence[str | None], queued: bool, existing: Collection[str] = ()
) -> dict[str, Any]:
    from backprop.cli.submit.queued_json import queued_json

    runs = [(run_id, draft.name, draft.spec) for run_id, draft in zip(ids, drafts.runs, strict=True)]
    return queued_json(runs, group, drafts.notes, drafts.warnings, queued, existing)


def _report(home: Home, done: _Queued, drafts: Drafts, values: Mapping[str, Any]) -> int:
    from backprop.worker.wakeup import wake_workers

    awake = wake_workers(home.locks)
    said: list[str] = []
    if new := done.new:
        ids = f"ids {new[0]}{' to ' + new[-1] if len(new) > 1 else ''}"
        said.append(f"queued {_counted(len(new))}, group {done.group}, {ids}")
    if done.existing:
        said.append(f"queued before by the same keys: {_counted(len(done.existing))}, group {done.group}")
    queued = "; ".join(said)
    if values["as_json"]:
        from backprop.cli.submit.queued_json import queued_text

        tell(queued_text(_view(drafts, done.group, done.ids, True, done.existing)), queued)
        return 0
    if values["quiet"]:
        tell("\n".join(done.ids), queued)
        return 0
    tell(queued)
    if not new:
        return 0
    from backprop.cli.submit import recipe_view

    for line in recipe_view.lines_of_many([draft.spec for draft in drafts.runs]):
        click.echo(safe(line), err=True)
    begin_s = max(draft.position.begin_s for draft in drafts.runs)
    for condition in conditions(QueuePosition(begin_s=begin_s)):
        click.echo(" ".join(condition), err=True)
    say_who_works(home, awake)
    return 0


def _counted(count: int) -> str:
    return f"{count:,} run{'s' if count != 1 else ''}"
