"""`backprop resume RUN…`: queues runs again from their last checkpoint, and keeps their history.

`--done` queues nothing: it counts runs as completed that are, as only their user can tell.
"""

import contextlib
import shutil
import time
from typing import TYPE_CHECKING, Any, Final

import click

from backprop.cli.context import need_existing, say_code_changes, say_who_works
from backprop.cli.help.completion import complete_files
from backprop.cli.options import run_selection, setting_options
from backprop.cli.options.global_options import globals_of, verb_options
from backprop.cli.render import answers
from backprop.cli.render.terminal_text import safe
from backprop.scheduler.home import layout
from backprop.scheduler.home.layout import Home

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence

    from backprop.cli.options.global_options import Globals
    from backprop.scheduler.config.settings import Settings
    from backprop.scheduler.records import RunRecord
    from backprop.scheduler.spec import RunSpec
    from backprop.scheduler.store.connection import Database
    from backprop.scheduler.store.reads.selection import Chosen

REFUSAL: Final = "only a run that has ended or is held can be resumed"
NOT_DONE: Final = "only a run that is held, or has ended and is not completed, can be declared done"


@click.command(name="resume")
@run_selection.run_arguments
@setting_options.accept("resume")
@click.option(
    "-r",
    "--resume-from",
    metavar="PATH",
    shell_complete=complete_files,
    help="Resume from this instead of the newest good checkpoint.",
)
@click.option("--from-scratch", is_flag=True, help="Start from the beginning.")
@click.option("--follow", is_flag=True, help="Stream the output until the run ends.")
@click.option(
    "--as-new",
    is_flag=True,
    help="Leave the runs as they are, in whatever state, and queue each as a new run from the beginning.",
)
@click.option(
    "--done", is_flag=True, help="Queue nothing: the runs had finished, so count them as completed."
)
@verb_options
@click.pass_context
def command(
    ctx: click.Context,
    runs: tuple[str, ...],
    resume_from: str | None,
    from_scratch: bool,
    follow: bool,
    as_new: bool,
    done: bool,
    config: str | None,
    verbose: bool,
    dry_run: bool,
    **values: Any,
) -> int:
    """Queue RUNs again from their last checkpoint, however they ended, or release held ones.

    Options given here replace those of the runs. Completed runs that only a group or a filter chose stay as they are,
    unless --state asks for them. Of a group or a filter, --done takes the timeboxed ones alone, unless --state asks for
    others.
    """
    from backprop.cli.submit import startable
    from backprop.scheduler.config.files import current_directory
    from backprop.scheduler.config.keys import BY_NAME
    from backprop.scheduler.config.settings import load
    from backprop.scheduler.home import batch_outcomes
    from backprop.scheduler.lifecycle import FINAL, State
    from backprop.worker.wakeup import wake_workers

    if follow and answers.current().speaks:
        raise click.UsageError("--json goes with no --follow; see: backprop wait", ctx)
    if resume_from is not None and from_scratch:
        raise click.UsageError("--resume-from and --from-scratch cannot be combined", ctx)
    if done:
        given = (resume_from is not None, from_scratch, follow, as_new, bool(setting_options.chosen(values)))
        if any(given):
            raise click.UsageError("--done queues nothing: it takes no other option of a resume", ctx)
        return _declare_done(ctx, runs, globals_of(ctx, config, verbose, dry_run), values)
    if as_new:
        if follow:
            raise click.UsageError("--as-new goes with no --follow; see: backprop logs -f", ctx)
        return _queue_as_new(ctx, runs, resume_from, globals_of(ctx, config, verbose, dry_run), values)
    home, database = need_existing()
    filters, able = run_selection.filters_of(values), FINAL | {State.HELD}
    unnamed = able if filters.states else able - {State.COMPLETED}
    picked = run_selection.pick(ctx, database, runs, filters, unnamed, "resumed", named=able)
    picked, wrong = startable.startable(home, database, picked)
    if len(picked.able) > 1 and (resume_from is not None or follow):
        what = "--follow" if follow else "--resume-from"
        raise click.UsageError(f"{what} takes one run, and these are {len(picked.able)}", ctx)
    pin = "" if from_scratch else _pin(resume_from)
    given = globals_of(ctx, config, verbose, dry_run)
    flags = setting_options.chosen(values)
    settings = load(current_directory(), layout.locate().root, given.config, flags).settings
    only = picked.able[0] if len(picked.able) == 1 and not picked.bulk else None
    how = _how(database, only.id, pin) if only is not None else ""
    copied = any(BY_NAME[name].field == "snapshot_code" for name in flags) and settings.snapshot_code
    if given.dry_run:
        code = _rehearse(picked, only, how)
        say_code_changes(home, database, [run.id for run in picked.able], noted=False, copied=copied)
        return code or startable.say_unstartable(wrong)
    specs = _specs(home, database, picked.able, flags, settings)
    with contextlib.suppress(OSError):
        # Before the rows: an outcome that outlives this command's death would end the run again.
        batch_outcomes.clear(home, picked.able)
    resumed = _resume(home, database, picked.able, specs, pin)
    awake = wake_workers(home.locks)
    queued = [run for run in picked.able if run.id in resumed]
    code = run_selection.conclude(
        picked,
        queued,
        "queued {} again",
        lambda run: f"queued {run_selection.who(run)} again{', ' + safe(how) if how else ''}",
        REFUSAL,
        every=given.verbose,
    )
    say_code_changes(home, database, [run.id for run in queued], noted=True, copied=copied)
    code = startable.say_unstartable(wrong) or code
    if follow and queued:
        from backprop.cli.live.follow import follow_run

        return follow_run(home, database, queued[0].id, queued[0].segment, settings)
    if queued:
        say_who_works(home, awake)
    return code


def _queue_as_new(
    ctx: click.Context,
    runs: tuple[str, ...],
    resume_from: str | None,
    given: "Globals",
    values: "Mapping[str, Any]",
) -> int:
    from backprop.cli.submit import copies
    from backprop.scheduler.config.files import current_directory
    from backprop.scheduler.config.keys import BY_NAME
    from backprop.scheduler.config.settings import load
    from backprop.scheduler.errors import IllegalMove
    from backprop.scheduler.lifecycle import State
    from backprop.worker.wakeup import wake_workers

    home, database = need_existing()
    filters = run_selection.filters_of(values)
    picked = run_selection.pick(ctx, database, runs, filters, set(State), "queued as new")
    pin, flags = _pin(resume_from), setting_options.chosen(values)
    settings = load(current_directory(), layout.locate().root, given.config, flags).settings
    if given.dry_run:
        return run_selection.rehearse(picked, "queue as new", "", IllegalMove.exit_code)
    copied = {name for name in flags if BY_NAME[name].field == "snapshot_code"}
    without_code = {name: value for name, value in flags.items() if name not in copied}
    specs = _specs(home, database, picked.able, without_code, settings)
    snapshot = settings.snapshot_code if copied else None
    new = copies.queue_copies(home, database, picked.able, specs, settings, snapshot, pin)
    awake = wake_workers(home.locks)
    answers.current().touch(picked.able)
    for run in picked.able:
        answers.current().add(run.id, new_id=new[run.id])
    code = run_selection.conclude(
        picked,
        picked.able,
        "queued {} as new",
        lambda run: f"queued {run_selection.who(run)} as a new run, id {new[run.id]}",
        "",
        every=given.verbose,
    )
    say_who_works(home, awake)
    return code


def _declare_done(
    ctx: click.Context, runs: tuple[str, ...], given: "Globals", values: "Mapping[str, Any]"
) -> int:
    from backprop.scheduler.errors import IllegalMove
    from backprop.scheduler.home import batch_outcomes
    from backprop.scheduler.lifecycle import FINAL, State
    from backprop.scheduler.store.writes import user_requests
    from backprop.worker.wakeup import wake_workers

    home, database = need_existing()
    able = (FINAL | {State.HELD}) - {State.COMPLETED}
    filters, now_s = run_selection.filters_of(values), time.time()
    unnamed = able if filters.states else {State.TIMEBOXED}
    picked = run_selection.pick(ctx, database, runs, filters, unnamed, "declared done", named=able)
    if given.dry_run:
        return run_selection.rehearse(picked, "declare done", NOT_DONE, IllegalMove.exit_code)
    ids = set(user_requests.declare_done(database, [run.id for run in picked.able], now_s))
    finished = [run for run in picked.able if run.id in ids]
    batch_outcomes.write_if_possible(home, finished, State.COMPLETED, user_requests.DECLARED_DONE, now_s)
    wake_workers(home.locks)
    return run_selection.conclude(
        picked,
        finished,
        "declared {} done",
        lambda run: f"{run_selection.who(run)} counts as completed",
        NOT_DONE,
        every=given.verbose,
    )


def _pin(path: str | None) -> str | None:
    from backprop.cli.submit.names import refuse_undecodable
    from backprop.scheduler.config.files import current_directory
    from backprop.scheduler.errors import BadCommand

    if path is None:
        return None
    refuse_undecodable(path)
    cwd = current_directory()
    if not (cwd / path).exists():
        raise BadCommand(f"--resume-from {path} does not exist in {cwd}")
    return str(cwd / path)


def _rehearse(picked: "run_selection.Selection", only: "Chosen | None", how: str) -> int:
    from backprop.scheduler.errors import IllegalMove

    if only is None:
        return run_selection.rehearse(picked, "queue again", REFUSAL, IllegalMove.exit_code)
    answers.current().touch([only])
    click.echo(f"would queue {run_selection.who(only)} again, {safe(how)}")
    return run_selection.refuse(picked.refused, REFUSAL, IllegalMove.exit_code)


def _specs(
    home: Home,
    database: "Database",
    runs: "Sequence[Chosen]",
    flags: "Mapping[str, object]",
    settings: "Settings",
) -> "dict[str, RunSpec]":
    """Return the specifications that change, by run id; empty if no option changes any."""
    import msgspec

    from backprop.scheduler.config.keys import BY_NAME
    from backprop.scheduler.config.placement import on_cluster
    from backprop.scheduler.config.settings import spec_value
    from backprop.scheduler.recipes.plan import with_resume_arg
    from backprop.scheduler.store.reads import queries

    changed: dict[str, RunSpec] = {}
    keys = [BY_NAME[name] for name in flags]
    changes = {key.field: spec_value(settings, key) for key in keys if key.stays_with_run}
    copies_code = any(key.field == "snapshot_code" for key in keys)
    for chosen in runs if flags else ():
        run = queries.run_by_id(database, chosen.id)
        if run is None:
            continue
        code = {"code": _code(home, run, settings.snapshot_code)} if copies_code else {}
        plan = run.spec.plan
        if plan is not None and "resume_arg" in changes:
            plan = with_resume_arg(plan, settings.resume_arg)
        spec = msgspec.structs.replace(run.spec, plan=plan, **changes, **code)
        chosen = "timebox_s" in changes or spec.cluster == run.spec.cluster
        changed[run.id] = on_cluster(spec, settings.clusters, chosen=chosen)
    # Those whose credentials were removed get them from this shell, into the same file.
    scrubbed = queries.scrubbing(database) & {chosen.id for chosen in runs}
    unchanged = queries.runs_by_id(database, sorted(scrubbed - changed.keys()))
    return changed | {run.id: run.spec for run in unchanged}


def _resume(
    home: Home,
    database: "Database",
    runs: "Sequence[Chosen]",
    specs: "Mapping[str, RunSpec]",
    pin: str | None,
) -> set[str]:
    """Queue the runs, with what has changed in the database and in their folders at once; return their ids. Raises
    BadCommand when a folder cannot be changed: then nothing is."""
    from backprop.cli.submit.secrets import restored_secrets, say_secrets
    from backprop.scheduler.errors import BadCommand
    from backprop.scheduler.home import batch_file
    from backprop.scheduler.home.spec_changes import SpecChanges
    from backprop.scheduler.store.writes import user_requests
    from backprop.worker.supervisor import failpoint

    @contextlib.contextmanager
    def changing(run_id: str) -> "Generator[None]":
        try:
            yield
        except (OSError, ValueError, KeyError) as error:
            trouble = error.strerror if isinstance(error, OSError) else f"damaged ({error})"
            path = home.run_folder(run_id) / "spec.json"
            raise BadCommand(f"{path} cannot be changed: {trouble}; nothing was changed") from error

    def change(run_id: str) -> None:
        with changing(run_id):
            failpoint.at("resume noted")
            taken = restored_secrets(home, run_id)
            changes.make(run_id, specs[run_id], environment=taken)
            failpoint.at("resume in folder")

    changes = SpecChanges(home.run_folder)
    for run in runs:
        if run.id in specs:
            with changing(run.id):
                batch_file.materialise(home, run)
    ids = [run.id for run in runs]
    say_secrets(home, [run_id for run_id in ids if run_id in specs])
    return set(user_requests.resume(database, ids, specs, pin, time.time(), change, changes.take_back))


def _code(home: Home, run: "RunRecord", wanted: bool) -> str | None:
    """Return the folder of a new copy of the code, beside the old one; None to run the code as it is at each start."""
    from backprop.scheduler.errors import DatabaseBusy
    from backprop.worker.environment import code_snapshot

    if not wanted:
        return None
    folder = home.run_folder(run.id) / f"code-after-{run.segment}"
    try:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(mode=0o700)
        return str(code_snapshot.take(code_snapshot.find(run.spec, home.root), folder))
    except OSError as error:
        raise DatabaseBusy(
            f"the code cannot be copied into {folder}: {error.strerror}; nothing was changed"
        ) from error


def _how(database: "Database", run_id: str, pin: str | None) -> str:
    """Return where the run continues from, in words."""
    from backprop.scheduler.store.reads import queries

    if pin == "":
        return "from the beginning"
    run = queries.run_by_id(database, run_id)
    saved = (found.path for found in queries.checkpoints(database, run_id) if found.refused is None)
    newest = pin or next(saved, run.spec.resume_from if run is not None else None)
    return f"from {newest}" if newest else "from the beginning: it saved no checkpoint"
