"""Carries out `backprop run` with --grid, --array, --params or --batch: many runs, of which all are queued or none."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import click

from backprop.cli.context import open_existing, open_home, say_findings, say_who_works, tell
from backprop.cli.global_options import Globals
from backprop.cli.render.command_text import command_text
from backprop.cli.render.terminal_text import safe
from backprop.cli.submit.many.batch_drafts import of_file
from backprop.cli.submit.many.drafts import Draft, Drafts, of_sweep
from backprop.cli.submit.many.enqueue_many import enqueue_many, positions_of
from backprop.cli.submit.queue_options import group_rules
from backprop.scheduler.home.layout import Home
from backprop.scheduler.spec import QueuePosition
from backprop.scheduler.store.writes.enqueue import conditions

if TYPE_CHECKING:
    from backprop.cli.submit.many.drafts import Make

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
    name, ids = enqueue_many(home, database, drafts, group is not None, rules, now_s)
    return _report(home, name, ids, drafts, values)


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
    return of_file(values, ctx.command, make, now_s)


def _describe(drafts: Drafts, group: str | None, shown: int | None, as_json: bool) -> int:
    """Print what would be queued, after the same checks. Writes nothing."""
    from backprop.cli.render.json_views import print_json
    from backprop.cli.render.tables import print_table
    from backprop.cli.submit import recipe_view

    _, database = open_existing()
    positions_of(database, drafts, [draft.run_id or "" for draft in drafts.runs])
    if as_json:
        print_json(_view(drafts, group, [draft.run_id for draft in drafts.runs], queued=False))
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
    return " ".join([*index, *(f"{key}={value}" for key, value in draft.environment.items())])


def _view(drafts: Drafts, group: str | None, ids: Sequence[str | None], queued: bool) -> dict[str, Any]:
    from backprop.cli.submit.queued_json import queued_json

    runs = [(run_id, draft.name, draft.spec) for run_id, draft in zip(ids, drafts.runs, strict=True)]
    return queued_json(runs, group, drafts.notes, drafts.warnings, queued)


def _report(home: Home, group: str, ids: Sequence[str], drafts: Drafts, values: Mapping[str, Any]) -> int:
    from backprop.worker.wakeup import wake_workers

    awake = wake_workers(home.locks)
    queued = (
        f"queued {_counted(len(ids))}, group {group}, ids {ids[0]}{' to ' + ids[-1] if len(ids) > 1 else ''}"
    )
    if values["as_json"]:
        from backprop.cli.render.json_views import json_text

        tell(json_text(_view(drafts, group, ids, queued=True)), queued)
        return 0
    if values["quiet"]:
        tell("\n".join(ids), queued)
        return 0
    tell(queued)
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
